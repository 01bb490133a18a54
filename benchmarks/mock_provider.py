"""A provider in C: nginx from Debian with canned answers, so that the upstream is not what is measured.

Each kind of answer has an address of its own, `http://127.0.0.1:{port}/{kind}/v1`, so nginx never looks into a body.
The paced and the slow kinds are made by nginx's `echo` module: `apt-get install nginx-light libnginx-mod-http-echo`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.kinds import KINDS, Kind
from benchmarks.servers import LOAD_CORE, Server, free_port, process

ECHO_MODULE = Path("/usr/lib/nginx/modules/ngx_http_echo_module.so")
_MODEL = "gpt-5-mini-2025-08-07"
_TEXT = "A gateway gives every team one address, one key and one bill, whatever the model behind it. " * 6
_USAGE = {"prompt_tokens": 312, "completion_tokens": 48, "total_tokens": 360}


def _completion() -> str:
    message = {"role": "assistant", "content": _TEXT, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    head = {"id": "chatcmpl-mock", "object": "chat.completion", "created": 1_760_000_000, "model": _MODEL}
    return json.dumps({**head, "choices": [choice], "usage": _USAGE})


def _chat_events(count: int) -> Iterator[str]:
    head = {"id": "chatcmpl-mock", "object": "chat.completion.chunk", "created": 1_760_000_000, "model": _MODEL}

    def chunk(delta: dict[str, str], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return "data: " + json.dumps({**head, "choices": [choice], "usage": None}, separators=(",", ":"))

    yield chunk({"role": "assistant", "content": ""})
    for _ in range(count - 1):
        yield chunk({"content": " gateway"})
    yield chunk({}, "stop")
    yield "data: " + json.dumps({**head, "choices": [], "usage": _USAGE}, separators=(",", ":"))
    yield "data: [DONE]"


def _message_events(count: int) -> Iterator[str]:
    def event(name: str, **fields: object) -> str:
        return f"event: {name}\ndata: " + json.dumps({"type": name, **fields}, separators=(",", ":"))

    usage = {"input_tokens": 312, "output_tokens": 1}
    message = {"id": "msg_mock", "type": "message", "role": "assistant", "model": "claude-haiku-4-5", "content": []}
    yield event("message_start", message={**message, "stop_reason": None, "stop_sequence": None, "usage": usage})
    yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    for _ in range(count):
        yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": " gateway"})
    yield event("content_block_stop", index=0)
    yield event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 48})
    yield event("message_stop")


def _echo(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    return f"echo -n '{escaped}';"


def _answer(kind: Kind) -> str:
    lines = [f"echo_sleep {kind.wait};"] if kind.wait else []
    if not kind.events:
        return "\n".join([*lines, _echo(_completion())])
    pause = f"echo_flush; echo_sleep {kind.gap};" if kind.gap else ""
    texts = list(_message_events(kind.events) if kind.dialect == "anthropic" else _chat_events(kind.events))
    for text in texts[:-1]:
        lines += [_echo(text + "\n\n"), pause]
    return "\n".join([*lines, _echo(texts[-1] + "\n\n")])


def _location(name: str, kind: Kind) -> str:
    media = "text/event-stream" if kind.events else "application/json"
    # What is not paced leaves in one write, as a provider's fast answer does.
    size = 65_536 if not kind.gap else 0
    fault = 'if ($is_faulty) { return 500 \'{"error":{"message":"mock","type":"server_error"}}\'; }'
    return (
        f"location /{name}/ {{ default_type {media}; postpone_output {size};\n"
        f"{fault if kind.faults else ''}\n{_answer(kind)} }}"
    )


_CONF = """
load_module {module};
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log crit;
events {{ worker_connections 16384; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 100000000; keepalive_timeout 300; tcp_nodelay on;
  client_max_body_size 64m; client_body_buffer_size 64k;
  split_clients $request_id $is_faulty {{ 5% 1; * ''; }}
  server {{ listen 127.0.0.1:{port} backlog=8192;
{locations}
  }}
}}
"""


@contextlib.contextmanager
def mock_provider(core: str = LOAD_CORE) -> Iterator[Server]:
    """The provider, on the load's core; SystemExit with what to install where nginx or its echo module is missing."""
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if binary is None or not ECHO_MODULE.exists():
        raise SystemExit("the mock provider is nginx: apt-get install nginx-light libnginx-mod-http-echo")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        locations = "\n".join(_location(name, kind) for name, kind in KINDS.items())
        conf = Path(folder) / "nginx.conf"
        conf.write_text(_CONF.format(module=ECHO_MODULE, folder=folder, port=port, locations=locations))
        with process("mock provider", [binary, "-c", str(conf), "-p", folder], port, core, {}) as server:
            yield server
