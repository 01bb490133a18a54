"""Makes the answer to a simulated call: the behaviour that applies, a refusal, or the body or stream of a surface."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Iterator

import msgspec

from gateway_middleware.core.domain import Clock, Surface
from gateway_middleware.simulator.answer import Answer, Task
from gateway_middleware.simulator.behaviour import PLAIN, Behaviour, Rule, Rulebook, harmless
from gateway_middleware.simulator.calls import Call, key_of, refusal_for
from gateway_middleware.simulator.catalog import models
from gateway_middleware.simulator.chat import chat, completions
from gateway_middleware.simulator.heads import Heads, without_headers
from gateway_middleware.simulator.media import images, speech, transcript
from gateway_middleware.simulator.messages import count_tokens, messages
from gateway_middleware.simulator.names import behaviour_of
from gateway_middleware.simulator.places import MODELS, STORED
from gateway_middleware.simulator.refusals import Refusal, failure, refuse
from gateway_middleware.simulator.replays import replay_script
from gateway_middleware.simulator.responses import compacted, responses
from gateway_middleware.simulator.responses import input_tokens as input_tokens_of
from gateway_middleware.simulator.script import Step, disguised, script
from gateway_middleware.simulator.stored import StoredResponses, no_previous
from gateway_middleware.simulator.vectors import embeddings, moderations
from gateway_middleware.simulator.vendors.vendor import dressed
from gateway_middleware.simulator.words import Spent, document_after, input_tokens, reply_to

_OK = 200
_BUILDERS: dict[str, Callable[[Task], Answer]] = {
    Surface.CHAT: chat,
    Surface.COMPLETIONS: completions,
    Surface.RESPONSES: responses,
    Surface.INPUT_TOKENS: input_tokens_of,
    Surface.COMPACT: compacted,
    Surface.EMBEDDINGS: embeddings,
    Surface.MODERATIONS: moderations,
    Surface.MESSAGES: messages,
    Surface.COUNT_TOKENS: count_tokens,
    Surface.IMAGES_GENERATIONS: images,
    Surface.IMAGES_EDITS: images,
    Surface.IMAGES_VARIATIONS: images,
    Surface.AUDIO_SPEECH: speech,
    Surface.AUDIO_TRANSCRIPTIONS: transcript,
    Surface.AUDIO_TRANSLATIONS: transcript,
}


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What to send. `is_plain`: a good answer with nothing special, which the same request would get again."""

    status: int
    steps: bytes | Iterator[Step]
    is_plain: bool = False
    task: Task | None = None
    """Of a response that is stored."""


class Answering:
    """Decides how calls are answered. `default` is for calls that neither a rule nor their model name speaks of."""

    def __init__(
        self,
        rules: Rulebook,
        *,
        seed: int,
        clock: Clock,
        keys: Container[str] | None,
        has_accounts: bool,
        default: Behaviour,
    ) -> None:
        self._rules = rules
        self._random = random.Random(seed)
        self._clock = clock
        self._keys = keys
        self._has_accounts = has_accounts
        self._default = default
        self._heads = Heads(clock)
        self.stored = StoredResponses()

    def answer(self, call: Call, number: str) -> Outcome:
        """Answer one call; `number` makes its ids. Counts the use of a rule unless the call is refused."""
        rule = self._rule(call)
        if rule is not None and rule.behaviour.replay is not None:
            self._rules.use(rule)
            replay = rule.behaviour.replay
            return Outcome(status=replay.status, steps=replay_script(rule.behaviour, replay))
        provider = call.place.provider
        refusal = refusal_for(call, self._keys)
        if refusal is not None:
            return self._send(call, refuse(refusal, provider, number), PLAIN, number)
        try:
            behaviour = self._chosen(call, rule)
        except ValueError as error:
            unreadable = Refusal(status=400, message=str(error), param="model")
            return self._send(call, refuse(unreadable, provider, number), PLAIN, number)
        outcome = self._send(call, self._behaved(call, behaviour, number), behaviour, number)
        if call.place.kind != Surface.RESPONSES or outcome.status != _OK:
            return outcome
        task = self._task(call, behaviour, number)
        self.stored.keep(task)
        return msgspec.structs.replace(outcome, task=task)

    def _rule(self, call: Call) -> Rule | None:
        if not self._rules:
            return None
        place = call.place
        return self._rules.find(model=call.model, surface=place.kind, provider=place.provider, path=place.path)

    def _chosen(self, call: Call, rule: Rule | None) -> Behaviour:
        """By rule, by model name, or the default. Raises `ValueError` for a name that cannot be read."""
        if rule is not None:
            self._rules.use(rule)
            return self._drawn(rule.behaviour)
        named = behaviour_of(call.model)
        return self._drawn(self._default if named is PLAIN else named)

    def _drawn(self, behaviour: Behaviour) -> Behaviour:
        """With `fail_rate`, chance decides."""
        if behaviour.fail_rate >= 1:
            return behaviour
        if self._random.random() >= behaviour.fail_rate:
            return harmless(behaviour)
        return behaviour if behaviour.is_harmful else msgspec.structs.replace(behaviour, status=500)

    def _behaved(self, call: Call, behaviour: Behaviour, number: str) -> Answer:
        provider, kind = call.place.provider, call.place.kind
        if behaviour.status is not None:
            return failure(behaviour, provider, number)
        if kind == MODELS:
            return models(provider, call.place.model)
        if kind == STORED:
            return self.stored.answer(call.place, call.method, self._account(call))
        if self._has_accounts and not self.stored.has(call.parameters.previous_response_id, self._account(call)):
            return no_previous(call.parameters.previous_response_id)
        answer = _BUILDERS[kind](self._task(call, behaviour, number))
        if answer.stream is None and behaviour.error_after is not None:
            answer.body = failure(behaviour, provider, number).body
        return answer

    def _task(self, call: Call, behaviour: Behaviour, number: str) -> Task:
        parameters = call.parameters
        schema = parameters.answer_schema
        if schema is None:
            reply = reply_to(
                parameters.prompt_text, length=behaviour.length, size=behaviour.chunk_size, cap=parameters.output_cap
            )
        else:
            reply = document_after(schema, cap=parameters.output_cap)
        return Task(
            provider=call.place.provider,
            kind=call.place.kind,
            model=call.model,
            parameters=parameters,
            behaviour=behaviour,
            spent=_spent(call, behaviour, reply.count),
            reply=reply,
            number=number,
            created=int(self._clock()),
            account=self._account(call),
        )

    def _account(self, call: Call) -> str:
        return key_of(call) or "" if self._has_accounts else ""

    def _send(self, call: Call, answer: Answer, behaviour: Behaviour, number: str) -> Outcome:
        vendor = call.vendor
        if vendor is not None:
            answer = dressed(answer, vendor)
        answer = disguised(answer, behaviour)
        head = self._heads.head(call.place.provider, answer.status, answer.content_type, number.encode())
        if vendor is not None and vendor.omits:
            head = without_headers(head, vendor.omits)
        extra = (*answer.headers, *behaviour.headers.items())
        if extra:
            head += "".join(f"{name}: {value}\r\n" for name, value in extra).encode("latin-1")
        is_plain = behaviour is PLAIN and answer.status == _OK
        if behaviour is PLAIN and answer.stream is None:
            whole = b"%bcontent-length: %d\r\n\r\n%b" % (head, len(answer.body), answer.body)
            return Outcome(status=answer.status, steps=whole, is_plain=is_plain)
        steps = script(head, answer, behaviour, self._random)
        return Outcome(status=answer.status, steps=steps, is_plain=is_plain)


def _spent(call: Call, behaviour: Behaviour, chunks: int) -> Spent:
    """What the answer claims to have used: by rule of thumb, or as the behaviour says."""
    given, made = behaviour.input_tokens, behaviour.output_tokens
    choices = max(call.parameters.n or 1, 1)
    return Spent(
        input=given if given is not None else input_tokens(call.body),
        output=made if made is not None else chunks * choices + behaviour.reasoning_tokens,
        cached=behaviour.cached_tokens,
        cache_write=behaviour.cache_write_tokens,
        reasoning=behaviour.reasoning_tokens,
    )
