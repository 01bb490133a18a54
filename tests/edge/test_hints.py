"""What a 404 tells about a path fits what was asked."""

from __future__ import annotations

import pytest

from gateway_middleware.edge.admission import path_not_found


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/chat/completions", "it is /v1/chat/completions; the base URL of OpenAI's SDK ends in /v1"),
        ("/v1/v1/messages", "the base URL of Anthropic's SDK ends before it"),
        ("/v1/chat/completion", "did you mean /v1/chat/completions?"),
        ("/healths", "did you mean /healthz?"),
        ("/openai/deployments/x/nothing", "Azure's paths are /openai/deployments/{deployment}/..."),
        ("/x", "models are called below /v1"),
        ("/wp-login.php", "health is at /v1/health"),
    ],
)
def test_the_hint_of_a_path(path: str, hint: str) -> None:
    message = path_not_found(path).message
    assert message.startswith(f"There is no endpoint at {path}. HINT: ")
    assert hint in message
    assert message[-1] in ".?"
    assert not message.endswith("?.")


def test_a_path_of_control_characters_is_shown_escaped_and_cut() -> None:
    message = path_not_found("/v1/\n" + "x" * 10_000).message
    assert "\n" not in message
    assert len(message) < 400
