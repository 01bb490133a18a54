"""Takes card numbers out of prompts, answers and streams, in the gateway's own process.

OPENAI_API_KEY=sk-... GATEWAY_OPEN=true uvicorn guarded_prompts:app
"""

import re

from gateway_middleware import Gateway, Guarded, GuardRule, Settings, Verdict

CARD = re.compile(r"\b(?:\d[ -]?){13,19}\b")


async def without_cards(guarded: Guarded) -> Verdict:
    text = CARD.sub("[card]", guarded.content)
    return Verdict() if text == guarded.content else Verdict(action="replace", content=text)


app = Gateway(
    Settings.from_env(),
    # The longest thing looked for has 37 characters: so many are held back of a stream, and shown again.
    guards=[GuardRule(name="cards", guard=without_cards, deadline=0.1, window=100, overlap=37)],
)
