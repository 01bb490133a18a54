"""Images, speech and transcripts."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator
from typing import Any

from gateway_middleware.simulator.answer import EVENTS, Answer, Stream, Task, encode, event_frame
from gateway_middleware.simulator.refusals import stream_error

# A transparent PNG of one pixel.
_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
# The head of an MPEG-1 layer III frame (128 kbit/s, 44.1 kHz), and silence.
_MP3 = b"\xff\xfb\x90\x64" + bytes(413)
_PLAIN_TEXT = frozenset({"text", "srt", "vtt"})


def images(task: Task) -> Answer:
    """`images/generations`, `images/edits`, `images/variations`."""
    if task.parameters.stream:
        return _events(task, _images(task))
    pictures = [{"b64_json": _PNG}] * min(max(task.parameters.n or 1, 1), 10)
    return Answer(body=encode({"created": task.created, "data": pictures, **_usage(task)}))


def _images(task: Task) -> list[bytes]:
    described: dict[str, Any] = {
        "b64_json": _PNG,
        "created_at": task.created,
        "size": "1024x1024",
        "quality": "low",
        "background": "opaque",
        "output_format": "png",
    }
    name = "image_edit" if task.kind == "images/edits" else "image_generation"
    partial = event_frame({"type": f"{name}.partial_image", **described, "partial_image_index": 0})
    return [partial, event_frame({"type": f"{name}.completed", **described, **_usage(task)})]


def speech(task: Task) -> Answer:
    """`audio/speech`: binary, or events when `stream_format` is `sse`."""
    if task.parameters.stream_format != "sse":
        return Answer(content_type=b"audio/mpeg", stream=Stream(content=[_MP3] * task.reply.count))
    sound = event_frame({"type": "speech.audio.delta", "audio": b64encode(_MP3).decode()})
    done = event_frame({"type": "speech.audio.done", **_usage(task)})
    return _events(task, [sound] * task.reply.count, done)


def transcript(task: Task) -> Answer:
    """`audio/transcriptions`, `audio/translations`."""
    if task.parameters.stream:
        done = {"type": "transcript.text.done", "text": task.reply.text, **_usage(task)}
        return _events(task, _transcript_deltas(task), event_frame(done))
    wanted = task.parameters.response_format
    if wanted in _PLAIN_TEXT:
        return Answer(content_type=b"text/plain; charset=utf-8", body=task.reply.text.encode() + b"\n")
    document: dict[str, Any] = {"text": task.reply.text, **_usage(task)}
    if wanted == "verbose_json":
        document |= {"task": "transcribe", "language": "english", "duration": 1.0, "segments": [], "words": []}
        document["usage"] = {"type": "duration", "seconds": 1}
    return Answer(body=encode(document))


def _transcript_deltas(task: Task) -> Iterator[bytes]:
    for piece in task.reply:
        yield event_frame({"type": "transcript.text.delta", "delta": piece})


def _usage(task: Task) -> dict[str, Any]:
    spent = task.usage
    if spent is None:
        return {}
    usage: dict[str, Any] = {
        "input_tokens": spent.input,
        "output_tokens": spent.output,
        "total_tokens": spent.input + spent.output,
    }
    if task.kind.startswith("images"):
        usage["input_tokens_details"] = {"text_tokens": spent.input, "image_tokens": 0}
    elif task.kind != "audio/speech":
        usage |= {"type": "tokens", "input_token_details": {"text_tokens": 0, "audio_tokens": spent.input}}
    return {"usage": usage}


def _events(task: Task, content: Iterable[bytes], *closing: bytes) -> Answer:
    def error() -> bytes:
        return stream_error(task.behaviour, provider=task.provider, kind=task.kind, number=task.number)

    return Answer(content_type=EVENTS, stream=Stream(content=content, closing=closing, error=error))
