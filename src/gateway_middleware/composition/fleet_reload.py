"""A reload in every process of the fleet: each reads its own sources again and says what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec

from gateway_middleware.composition.fleet import overall, row_of, standing
from gateway_middleware.composition.reload_audit import Cause
from gateway_middleware.core.errors import InvalidRequestError, SettingsError

if TYPE_CHECKING:
    from gateway_middleware.composition.fleet import Fleet
    from gateway_middleware.composition.log import Log
    from gateway_middleware.composition.reload import Reload
    from gateway_middleware.composition.reload_audit import ReloadAudit
    from gateway_middleware.fleet.entries import Entry, Process
    from gateway_middleware.operations.admin import Requester
    from gateway_middleware.settings import Settings

KIND = "reload"
_ANSWER_SECONDS = 1.0
_QUESTION_SECONDS = 10.0


class Answer(msgspec.Struct, frozen=True):
    """What came of it in one process; `refused` says why its configuration was not taken."""

    config_hash: str
    refused: str | None = None


_decode_cause = msgspec.json.Decoder(Cause).decode
_decode_answer = msgspec.json.Decoder(Answer).decode


class FleetReload:
    """Reloads this process when any process is told to, and all of them when this one is."""

    def __init__(self, reload: Reload, fleet: Fleet, log: Log, audit: ReloadAudit) -> None:
        self._reload = reload
        self._fleet = fleet
        self._audit = audit
        self._log = log.lines
        self._questions: list[Entry] = []
        fleet.on(KIND, self._hear)

    async def everywhere(self, by: Requester) -> dict[str, Any]:
        """Reload here, then ask the others; what each of them answered within a second.

        Raises `SettingsError` or `InvalidRequestError` where it is refused here: then nobody else is asked.
        """
        cause = Cause(
            actor="admin", by=by.client, client=by.client, request_id=by.request_id, reload=uuid4().hex,
            is_asked_here=True,
        )  # fmt: skip
        try:
            document = self._here(cause)
        except SettingsError:
            await self._audit.written()
            raise
        others = {process.id: process for process in self._fleet.others()}
        answers = await self._fleet.ask(KIND, self._question(cause), within=_ANSWER_SECONDS)
        others |= {process.id: process for process in self._fleet.others()}
        decoded = {name: _decode_answer(entry.body) for name, entry in answers.items()}
        await self._audit.written()
        return document | _told(self._fleet.process, others, decoded)

    def on_signal(self, by: str) -> bool:
        """The same without waiting for answers: whether it was taken here. Complaints go to the log."""
        cause = Cause(actor="signal", by=by, reload=uuid4().hex)
        try:
            self._here(cause)
        except (SettingsError, InvalidRequestError) as error:
            self._complain(error)
            return False
        self._fleet.post(KIND, self._fleet.process.id, self._question(cause), seconds=_QUESTION_SECONDS)
        return True

    async def on_change(self) -> None:
        """Files of the configuration have changed: read in a thread, taken here. Every process sees its own files."""
        cause = Cause(actor="file watch", by="file watch")
        try:
            settings = await asyncio.to_thread(self._reload.read)
        except SettingsError as error:
            self._refuse(cause, error)
            self._complain(error)
            return
        try:
            self._here(cause, settings)
        except SettingsError as error:
            self._complain(error)

    def by_host(self, settings: Settings | None) -> dict[str, Any]:
        """The application around this gateway gives it other settings, or has them read again."""
        return self._here(Cause(actor="host", by="host"), settings)

    def _here(self, cause: Cause, settings: Settings | None = None) -> dict[str, Any]:
        before = self._fleet.process.config_hash
        try:
            document = self._reload.apply(settings)
        except SettingsError as error:
            self._refuse(cause, error)
            raise
        changes = {name: ", ".join(document[name]) or None for name in ("changed", "need_restart")}
        asked = {} if cause.request_id is None or not cause.is_asked_here else {"request_id": cause.request_id}
        self._log.audit("reload", client=cause.by, config_hash=document["config_hash"], **changes, **asked)
        self._audit.taken(cause, before, document)
        return document

    def _refuse(self, cause: Cause, error: SettingsError) -> None:
        self._audit.refused(cause, self._fleet.process.config_hash, str(error))

    def _question(self, cause: Cause) -> Cause:
        """What the other processes are told: they were not asked by the operator themselves."""
        return msgspec.structs.replace(cause, by=f"{cause.by} at {self._fleet.name}", is_asked_here=False)

    def _complain(self, error: Exception) -> None:
        self._log.event("reload_failed", level="error", message=f"Reload failed: {error}")

    def _hear(self, question: Entry) -> None:
        """One reload answers all that ask at a time."""
        self._questions.append(question)
        if len(self._questions) == 1:
            asyncio.get_running_loop().call_soon(self._answer_all)

    def _answer_all(self) -> None:
        questions, self._questions = self._questions, []
        refused = None
        try:
            self._here(_decode_cause(questions[0].body))
        except (SettingsError, InvalidRequestError) as error:
            refused = str(error)
            self._complain(error)
        for question in questions:
            self._fleet.answer(question, Answer(self._fleet.process.config_hash, refused))


def _told(own: Process, others: Mapping[str, Process], answers: Mapping[str, Answer]) -> dict[str, Any]:
    """Every process with what came of it; `config` is `same` where all have answered and have the same."""
    rows = [{**row_of(own), "standing": "same"}]
    rows += [{**row_of(process), **_row(answers.get(name), own.config_hash)} for name, process in others.items()]
    return {"config": overall(rows), "processes": rows}


def _row(answer: Answer | None, own: str) -> dict[str, Any]:
    if answer is None:
        return {"standing": "silent"}
    if answer.refused is not None:
        return {"config_hash": answer.config_hash, "standing": "refused", "reason": answer.refused}
    return {"config_hash": answer.config_hash, "standing": standing(answer.config_hash, own)}
