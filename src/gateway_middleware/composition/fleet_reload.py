"""A reload in every process of the fleet: each reads its own sources again and says what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.composition.fleet import overall, row_of, standing
from gateway_middleware.core.errors import InvalidRequestError, SettingsError

if TYPE_CHECKING:
    from gateway_middleware.composition.fleet import Fleet
    from gateway_middleware.composition.log import Log
    from gateway_middleware.composition.reload import Reload
    from gateway_middleware.fleet.entries import Entry, Process
    from gateway_middleware.settings import Settings

KIND = "reload"
_ANSWER_SECONDS = 1.0
_QUESTION_SECONDS = 10.0


class Question(msgspec.Struct, frozen=True):
    """Who wants a reload: for the audit lines of those who are asked."""

    by: str


class Answer(msgspec.Struct, frozen=True):
    """What came of it in one process; `refused` says why its configuration was not taken."""

    config_hash: str
    refused: str | None = None


_decode_question = msgspec.json.Decoder(Question).decode
_decode_answer = msgspec.json.Decoder(Answer).decode


class FleetReload:
    """Reloads this process when any process is told to, and all of them when this one is."""

    def __init__(self, reload: Reload, fleet: Fleet, log: Log) -> None:
        self._reload = reload
        self._fleet = fleet
        self._log = log.lines
        self._questions: list[Entry] = []
        fleet.on(KIND, self._hear)

    async def everywhere(self, by: str, **audited: Any) -> dict[str, Any]:
        """Reload here, then ask the others; what each of them answered within a second.

        Raises `SettingsError` or `InvalidRequestError` where it is refused here: then nobody else is asked.
        """
        document = self._here(by, **audited)
        others = {process.id: process for process in self._fleet.others()}
        answers = await self._fleet.ask(KIND, Question(self._signed(by)), within=_ANSWER_SECONDS)
        others |= {process.id: process for process in self._fleet.others()}
        decoded = {name: _decode_answer(entry.body) for name, entry in answers.items()}
        return document | _told(self._fleet.process, others, decoded)

    def on_signal(self, by: str) -> bool:
        """The same without waiting for answers: whether it was taken here. Complaints go to the log."""
        try:
            self._here(by)
        except (SettingsError, InvalidRequestError) as error:
            self._complain(error)
            return False
        self._fleet.post(KIND, self._fleet.process.id, Question(self._signed(by)), seconds=_QUESTION_SECONDS)
        return True

    async def on_change(self) -> None:
        """Files of the configuration have changed: read in a thread, taken here. Every process sees its own files."""
        try:
            self._here("file watch", settings=await asyncio.to_thread(self._reload.read))
        except SettingsError as error:
            self._complain(error)

    def _here(self, by: str, *, settings: Settings | None = None, **audited: Any) -> dict[str, Any]:
        document = self._reload.apply(settings)
        changes = {name: ", ".join(document[name]) or None for name in ("changed", "need_restart")}
        self._log.audit("reload", client=by, config_hash=document["config_hash"], **changes, **audited)
        return document

    def _signed(self, by: str) -> str:
        return f"{by} at {self._fleet.name}"

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
            self._here(_decode_question(questions[0].body).by)
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
