"""What every request passes on its way in: who makes it, then the hot endpoints or the application; and the headers
that every answer carries.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import trio
from quart_trio import QuartTrio

from bridged.api.access import Gate, scope_needed
from bridged.api.flow import Flow
from bridged.api.hosts import cors_headers
from bridged.api.hot import Answer, Endpoint, HotRequest, Receive, Send, error_answer, respond
from bridged.api.hot import serve as serve_hot
from bridged.errors import BridgedError

SAFE = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
"""of every answer: it is what it says it is, no page shows it in a frame, and no cache keeps it"""

ABSOLUTE = re.compile(r"[a-z][a-z0-9+.-]*://[^/]*(/.*)?", re.IGNORECASE | re.DOTALL)
"""a request's target as a whole URL, which every server takes (RFC 9112 3.2.2)"""


class Entrance:
    """The whole service as one ASGI application. `deadline` (s) bounds the last message of an answer."""

    def __init__(self, app: QuartTrio, hot: Mapping[str, Endpoint], gate: Gate, deadline: float) -> None:
        self._app = app
        self._hot = hot
        self._gate = gate
        self._deadline = deadline

    @property
    def fast(self) -> dict[str, tuple[str, ...]]:
        """Path -> methods of what may take the fast lane (`FastLane`)."""
        return {path: endpoint.methods for path, endpoint in self._hot.items()}

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        scope["path"] = one_path(scope["path"])
        origin = self._listed_origin(scope)
        if scope["type"] == "http":
            preflight = scope["method"] == "OPTIONS" and _has(scope, b"access-control-request-method")
            send = partial(_marked, SAFE + (cors_headers(origin, preflight=preflight) if origin else []), send)
            if origin and preflight:
                await respond(Answer(204), HotRequest(scope, receive), send)
                return
        try:
            caller = self._gate.admit(scope)
            caller.need(scope_needed(scope["path"]))
        except BridgedError as error:
            answer = error_answer(error, proper=True)
            if scope["type"] == "http":
                await respond(answer, HotRequest(scope, receive), send)
            else:
                await _refuse_upgrade(answer, send)
            return
        scope["bridged.caller"] = caller
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _serve(self, scope: Any, receive: Receive, send: Send) -> None:
        """Request bodies are taken no faster than handlers read them (`Flow`).

        The last message of each response is shielded, for at most `deadline` seconds: hypercorn tells the application
        of the end of a request in the middle of that last send; quart-trio then cancels the sender, and with it what
        hypercorn does after it (hypercorn 0.18, quart-trio 0.12).
        """

        async def send_whole(message: Any) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body"):
                with trio.move_on_after(self._deadline, shield=True):
                    await send(message)
            else:
                await send(message)

        endpoint = self._hot.get(scope["path"])
        if endpoint is not None:
            await serve_hot(endpoint, scope, receive, send)
            return
        flow = scope["bridged.flow"] = Flow()
        await self._app(scope, partial(flow.receive, receive), send_whole)

    def _listed_origin(self, scope: Any) -> bytes:
        for name, value in scope["headers"]:
            if name == b"origin":
                return value if self._gate.origin_allowed(value.decode("latin-1")) else b""
        return b""


def one_path(path: str) -> str:
    """The one way to write a path. Quart's routing takes `//status` and `http://any/status` for `/status`, so whoever
    looks at the path before it would else see another one: a key's scope was got round so."""
    if not path.startswith("/"):
        absolute = ABSOLUTE.fullmatch(path)
        path = (absolute[1] or "/") if absolute else f"/{path}"
    return re.sub(r"/{2,}", "/", path)


async def _marked(headers: list[tuple[bytes, bytes]], send: Send, message: Any) -> None:
    if message["type"] == "http.response.start":
        own = list(message["headers"])
        if any(name.lower() == b"cache-control" for name, _ in own):  # its endpoint knows better
            headers = [header for header in headers if header[0] != b"cache-control"]
        message["headers"] = [*own, *headers]
    await send(message)


async def _refuse_upgrade(answer: Answer, send: Send) -> None:
    headers = [(name.lower().encode(), value.encode()) for name, value in answer.headers.items()]
    headers += [
        (b"content-type", answer.content_type.encode()),
        (b"content-length", str(len(answer.body)).encode()),
        (b"connection", b"close"),  # hypercorn cannot go on with it
    ]
    await send({"type": "websocket.http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": answer.body})


def _has(scope: Any, wanted: bytes) -> bool:
    return any(name == wanted for name, _ in scope["headers"])
