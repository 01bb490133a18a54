"""Requests of clients that are odd, broken or hostile: bytes for the wire, by what is odd about them."""

from __future__ import annotations

import json

from running import KEY

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
ASK = [{"role": "user", "content": "hi"}]
BODIES = {
    CHAT: json.dumps({"model": "fast", "messages": ASK}).encode(),
    MESSAGES: json.dumps({"model": "fast", "max_tokens": 20, "messages": ASK}).encode(),
    RESPONSES: json.dumps({"model": "claude", "input": "hi"}).encode(),
}
JSON = b"Content-Type: application/json"
CHUNKED = b"Transfer-Encoding: chunked"


def request(method: str, path: str, *headers: bytes, body: bytes = b"", key: str | None = KEY, version: str = "1.1",
            is_last: bool = True, has_length: bool = True) -> bytes:  # fmt: skip
    lines = [f"{method} {path} HTTP/{version}".encode(), b"Host: gateway.test"]
    lines += [] if key is None else [b"Authorization: Bearer " + key.encode()]
    lines += [b"Connection: close"] if is_last else []
    lines += [b"Content-Length: %d" % len(body)] if has_length else []
    return b"\r\n".join([*lines, *headers]) + b"\r\n\r\n" + body


def post(path: str, *headers: bytes, body: bytes | None = None, **others: bool | str | None) -> bytes:
    chosen = BODIES[path] if body is None else body
    return request("POST", path, JSON, *headers, body=chosen, **others)  # type: ignore[arg-type]


def in_chunks(body: bytes) -> bytes:
    """Every byte a chunk."""
    return b"".join(b"1;x=y\r\n%c\r\n" % byte for byte in body) + b"0\r\nX-Trailer: 1\r\n\r\n"


def odd_http() -> dict[str, bytes]:
    """Valid HTTP that few clients send, and what is none."""
    chunked = request("POST", CHAT, JSON, CHUNKED, has_length=False)
    stream = BODIES[CHAT][:-1] + b',"stream":true}'
    return {
        "expect": post(CHAT, b"Expect: 100-continue"),
        "chunks": chunked + in_chunks(BODIES[CHAT]),
        "no chunk": chunked + b"zz\r\nx\r\n0\r\n\r\n",
        "length and chunks": request("POST", CHAT, JSON, CHUNKED) + in_chunks(BODIES[CHAT]),
        "two lengths": post(CHAT, b"Content-Length: 3"),
        "a length below zero": request("POST", CHAT, JSON, b"Content-Length: -1", has_length=False),
        "a length of days": request("POST", CHAT, JSON, b"Content-Length: 99999999999999999999", has_length=False),
        "gzip": post(CHAT, b"Content-Encoding: gzip"),
        "one point naught": post(CHAT, version="1.0", is_last=False),
        "a stream in one point naught": post(CHAT, body=stream, version="1.0", is_last=False),
        "HEAD": request("HEAD", "/v1/models"),
        "HEAD where POST is": request("HEAD", MESSAGES),
        "OPTIONS": request("OPTIONS", CHAT, b"Origin: https://a.test", b"Access-Control-Request-Method: POST"),
        "OPTIONS of all": request("OPTIONS", "*"),
        "TRACE": request("TRACE", CHAT),
        "CONNECT": request("CONNECT", "a.test:443"),
        "two": request("GET", "/v1/models", version="2.0"),
        "preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "hello of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
        "lines ended by LF": request("GET", "/v1/models").replace(b"\r\n", b"\n"),
        "two hosts": request("GET", "/v1/models", b"Host: b"),
        "a name with a space": request("GET", "/v1/models", b"X A: b"),
        "a folded line": request("GET", "/v1/models", b"X-A: b\r\n c"),
        "a hundred and one": request("GET", "/v1/models", *(b"x-%d: 1" % at for at in range(101))),
        "a long header": request("GET", "/v1/models", b"x: " + b"a" * 70_000),
        "a long path": request("GET", "/v1/models/" + "a" * 70_000),
        "a path of bytes": request("GET", "/v1/models/%ff%00%zz%"),
        "a response of bytes": request("GET", "/v1/responses/resp_%0d%0aX:%20y"),
        "a long response": request("GET", "/v1/responses/" + "r" * 50_000),
        "a long usage": request("GET", "/v1/usage/" + "u" * 50_000),
        "a deployment elsewhere": request(
            "POST", "/openai/deployments/%2e%2e%2fx/chat/completions?api-version=%0d%0a", JSON, body=BODIES[CHAT]
        ),
        "many at once": b"".join(post(CHAT, is_last=at == 9) for at in range(10)),
        "good and bad at once": post(CHAT, body=b"{", is_last=False)
        + post(CHAT, key="gw-wrong", is_last=False)
        + request("GET", "/nowhere"),
        "junk after": request("GET", "/v1/models", is_last=False) + b"\x00\xff\r\n\r\n",
    }


def odd_headers() -> dict[str, bytes]:
    values = [
        b"x-gateway-tags: team=search", b"x-gateway-tags: \xff=\xfe", b"x-gateway-tags: " + b"a=b," * 999,
        b"x-gateway-tags: __proto__=1", b"x-gateway-session: " + b"s" * 5000, b"x-gateway-session: \xff{}*:%",
        b'session_id: {"a":1}', b"x-claude-code-session-id: \xf0\x9f\x98\x80", b"x-request-id: a b\tc",
        b"x-request-id: \xff", b"traceparent: 00-0-0-00", b"tracestate: " + b"a" * 9000, b"x-gateway-strict: maybe",
        b"anthropic-beta: " + b"b" * 8192, b"anthropic-beta: " + b"b" * 8193, b"anthropic-version: \xff",
        b"openai-beta: " + b"x" * 5000, b"Accept: application/xml;q=0", b"Accept: \xff", b"Accept: " + b"a/b," * 3000,
        b"Accept-Encoding: br, *;q=0", b"Range: bytes=0-1", b"X-HTTP-Method-Override: DELETE", b"Cookie: \xff=\xfe",
    ]  # fmt: skip
    return {f"{value[:40]!r} at {path}": post(path, value) for value in values for path in BODIES}


def odd_bodies() -> dict[str, bytes]:
    bodies = {
        "empty": b"", "null": b"null", "a list": b"[]", "a mark": b"\xef\xbb\xbf{}",
        "utf-16": '{"a":1}'.encode("utf-16"),
        "no utf-8": b'{"model":"fast","messages":[{"role":"user","content":"\xff"}],"input":"\xfe"}',
        "half a pair": b'{"model":"fast","messages":[{"role":"user","content":"\\ud800"}],"input":"\\ud800"}',
        "deep": b"[" * 100_000, "deep objects": b'{"a":' * 50_000,
        "deep inside": b'{"model":"fast","messages":' + b"[" * 2000 + b"]" * 2000 + b"}",
        "no number": b'{"model":"fast","max_tokens":9,"messages":[{"role":"user","content":"hi"}],"temperature":1e999}',
        "a large number": b'{"model":"fast","max_tokens":' + b"9" * 5000 + b',"messages":[]}',
        "two of a name": b'{"model":"fast","model":"claude","messages":[],"input":"x"}',
        "two": b"{}{}", "a long model": json.dumps({"model": "m" * 1_000_000}).encode(),
        "an odd model": json.dumps({"model": "a/../c\r\nX: y\x00{}*", "messages": ASK}).encode(),
        "many names": json.dumps({f"k{at}": at for at in range(50_000)}).encode(),
        "a long name": json.dumps({"k" * 1_000_000: 1, "model": "fast"}).encode(),
        "a long user": json.dumps({"model": "fast", "user": "u" * 1_000_000, "messages": ASK, "input": "x"}).encode(),
        "a long id": json.dumps({"model": "claude", "previous_response_id": "r" * 1_000_000, "input": "x"}).encode(),
        "of another dialect": b'{"model":"fast","input":["x"],"system":1,"max_output_tokens":[]}',
        "of no kind": b'{"model":"claude","messages":1,"input":[1],"include":[{}],"tools":{}}',
        "an odd include": b'{"model":"claude","messages":[],"input":"hi","include":[{}]}',
    }  # fmt: skip
    return {f"{name} at {path}": post(path, body=body) for name, body in bodies.items() for path in BODIES}


def odd_keys(expired: str) -> dict[str, bytes]:
    keys = {
        "none": None,
        "another": "gw-aaaaaaaa-" + "A" * 43,
        "expired": expired,
        "long": "k" * 60_000,
        "two": f"{KEY} x",
    }
    return {f"key {name} at {path}": post(path, key=key) for name, key in keys.items() for path in BODIES}
