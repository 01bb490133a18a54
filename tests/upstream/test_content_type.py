"""A browser never takes an answer for a page."""

from __future__ import annotations

import pytest

from gateway_middleware.core.domain import Surface
from gateway_middleware.upstream.content_type import content_type_of
from rig import GOOD, Rig
from scripted import ScriptedAnswer

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "told",
    [
        b"application/json",
        b"application/json; charset=utf-8",
        b"Text/Plain;charset=utf-8",
        b"audio/mpeg",
        b"image/png",
        b"application/octet-stream",
    ],
)
def test_types_of_data_stay(told: bytes) -> None:
    assert content_type_of(told, Surface.CHAT) == told


@pytest.mark.parametrize(
    "told",
    [
        None,
        b"",
        b"text/html",
        b"text/html; charset=utf-8",
        b"image/svg+xml",
        b"application/xhtml+xml",
        b"text/xml",
        b"application/javascript",
        b"application/json\r\nx: y",
        b"application/json, text/html",
        b"text/plain text/html",
        b"application/json;" + b"a" * 200,
    ],
)
def test_others_become_that_of_the_surface(told: bytes | None) -> None:
    assert content_type_of(told, Surface.CHAT) == b"application/json"
    assert content_type_of(told, Surface.AUDIO_TRANSCRIPTIONS) == b"text/plain; charset=utf-8"
    assert content_type_of(told, Surface.AUDIO_SPEECH) == b"application/octet-stream"


async def test_a_page_of_a_provider_reaches_no_browser_as_one() -> None:
    rig = Rig()
    rig.scripts["a"] = lambda _: ScriptedAnswer(200, [(b"content-type", b"text/html")], [GOOD])

    answer = await rig.call("a/m")

    assert answer.status == 200
    assert answer.body == GOOD
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_refusals_are_not_sniffed_either() -> None:
    answer = await Rig().call("a/m", path="/nowhere")

    assert answer.status == 404
    assert answer.headers["x-content-type-options"] == "nosniff"
