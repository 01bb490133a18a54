"""Fake providers: OpenAI, Anthropic and Azure OpenAI on one port, well-behaved until asked otherwise.

    async with Simulator().serve() as server:
        ...                                # base_url=f"{server.url}/v1"

Or `python -m gateway_middleware.simulator --port 9100`. How a call is answered is chosen by a rule
(`Simulator.behave`, or `POST /control/behaviour`), else by the model name (`sim-slow-200+truncate-5`), else by the
simulator's default. All knobs and names: docs/simulator.md.
"""

from gateway_middleware.simulator.behaviour import Behaviour, Match, Replay, Rule
from gateway_middleware.simulator.record import Counters, Received
from gateway_middleware.simulator.simulator import Server, Simulator

__all__ = ["Behaviour", "Counters", "Match", "Received", "Replay", "Rule", "Server", "Simulator"]
