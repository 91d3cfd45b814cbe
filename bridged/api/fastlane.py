"""The fast lane: plain requests to the endpoints that every job costs, served without h11, tasks and channels.

One strict recogniser looks at the bytes of one read. What it takes is a request in the plainest form there is: its
whole head, and nothing behind it but its body, as long as one Content-Length says, or the beginning of that. Anything
else it leaves, untouched, to hypercorn. So there is one parser per request, never two that could disagree about where
it ends. Behind the recogniser it is the same ASGI application with the same scope, the same deadlines, and the same
answers to what goes wrong.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, NamedTuple
from wsgiref.handlers import format_date_time

import trio
from hypercorn.typing import AppWrapper

from bridged.api.hot import ClientGone
from bridged.api.http11 import NO_REQUEST, PAUSE, answer, is_gone

MOST_HEAD = 8 * 1024
"""bytes of a request's head; a longer one is hypercorn's"""

HEAD = re.compile(
    rb"(GET|HEAD|POST) (/[a-z-]+)(?:\?([!$-~]*))? HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9-]+: ?[!-~](?:[ -~]*[!-~])?\r\n)+)\r\n"
)
"""ASCII only, no tabs, no empty values, no `%` or second `/` in the path: so no two ways to read it"""

LENGTH = re.compile(rb"[1-9][0-9]{0,4}")
"""of a body; a longer one gains nothing here"""

UNUSUAL = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-connection", b"upgrade", b"http2-settings"),
        *(b"expect", b"te", b"trailer", b"transfer-encoding", b"sec-websocket-extensions"),
    }
)
"""what changes a request's end, its connection or its protocol"""

INTERNAL = b'{"detail":"internal error; the service\'s log says more"}'

Paths = Mapping[str, Collection[str]]
"""path -> methods of what the fast lane serves: each answer of them is 204 or has a Content-Length"""


class Plain(NamedTuple):
    """A request, of whose body `missing` bytes are still to come."""

    method: str
    path: str
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    missing: int


def recognised(data: bytes, paths: Paths) -> Plain | None:
    """The one plain request that `data` is or begins, or None: then it is for hypercorn."""
    end = data.find(b"\r\n\r\n", 0, MOST_HEAD) + 4
    head = HEAD.fullmatch(data, 0, end) if end > 4 else None
    if head is None:
        return None
    method, path = head[1].decode(), head[2].decode()
    if method not in paths.get(path, ()):
        return None
    headers = []
    for line in head[4].split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value[1:] if value.startswith(b" ") else value
        if name in UNUSUAL and (name, value.lower()) != (b"connection", b"keep-alive"):
            return None
        headers.append((name, value))
    names = [name for name, _ in headers]
    if names.count(b"host") != 1:
        return None
    size = 0
    if method == "POST":
        lengths = [value for name, value in headers if name == b"content-length"]
        if len(lengths) != 1 or not LENGTH.fullmatch(lengths[0]):
            return None
        size = int(lengths[0])
    elif b"content-length" in names:
        return None
    missing = size - (len(data) - end)
    if missing < 0:
        return None
    return Plain(method, path, head[3] or b"", headers, data[end:], missing)


class FastLane:
    """That of one connection without TLS, while hypercorn's protocol has nothing of a request.

    `app` is the application as hypercorn wraps it. `read` gives at most so many of the next bytes of a body, b"" at the
    client's end; None: it is gone, or was too slow, and was told so. `send` sends with patience; False: the client is
    gone, or takes it too slowly.
    """

    def __init__(
        self,
        app: AppWrapper,
        paths: Paths,
        stream: trio.SocketStream,
        read: Callable[[int], Awaitable[bytes | None]],
        send: Callable[[bytes], Awaitable[bool]],
        client: tuple[str, int] | None,
        server: tuple[str, int] | None,
    ) -> None:
        self._app = app
        self._paths = paths
        self._stream = stream
        self._read = read
        self._send = send
        self._scope = {
            "type": "http",
            "asgi": {"spec_version": "2.1", "version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "root_path": "",
            "client": client,
            "server": server,
        }
        self.ahead = b""
        """what the client sent before it had its answer: the next to be looked at"""
        self.gone = False
        """the connection is to end"""
        self.awaits_body = False

    async def served(self, data: bytes) -> bool:
        """Whether `data` was a plain request, or its beginning, which now has its answer."""
        request = recognised(data, self._paths)
        if request is None:
            return False
        exchange = Exchange(self, request)
        receive: Any = exchange.receive
        send: Any = exchange.send
        scope: Any = {
            **self._scope,
            "method": request.method,
            "path": request.path,
            "raw_path": request.path.encode(),
            "query_string": request.query,
            "headers": request.headers,
            "state": {},
            "extensions": {},
        }
        try:
            await self._app(scope, receive, send, trio.to_thread.run_sync, trio.from_thread.run)
        except Exception:
            if not exchange.begun and not self.gone:
                await self._send(answer(b"500 ", INTERNAL))
            raise
        # With bytes of its body still to come, nobody could tell where the next request begins.
        self.gone = self.gone or not exchange.complete or exchange.missing > 0
        return True

    async def more_body(self, most: int) -> bytes | None:
        """At most so many bytes of it, and at least one; None: no more will come, and the connection is to end."""
        self.awaits_body = True
        try:
            data = await self._read(most)
        finally:
            self.awaits_body = False
        if data == b"":
            await self._send(answer(b"400 ", NO_REQUEST))
        self.gone = self.gone or not data
        return data or None

    async def send(self, data: bytes) -> None:
        """All that the socket takes at once; the rest, if any, with patience."""
        try:
            sent = os.write(self._stream.socket.fileno(), data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.gone = True
            return
        if sent < len(data) and not await self._send(data[sent:] if sent else data):
            self.gone = True

    async def wait_gone(self) -> None:
        """Until the client is: it says that it is done (FIN), resets the connection, or is cut off."""
        while not self.gone and not self.ahead:
            try:
                self.ahead = bytes(await self._stream.receive_some(64 * 1024))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self.gone = True
            self.gone = self.gone or not self.ahead
        while not self.gone:
            await trio.sleep(PAUSE)
            self.gone = is_gone(self._stream.socket)


class Exchange:
    """One request and its answer, as ASGI has them."""

    def __init__(self, lane: FastLane, request: Plain) -> None:
        self._lane = lane
        self._body: bytes | None = request.body
        """what is there of the body and was not given yet"""
        self.missing = request.missing
        self._is_head = request.method == "HEAD"
        self._head = b""
        self._left = 0
        """bytes of the answer's body that are still to come"""
        self.begun = self.complete = False

    async def receive(self) -> dict[str, Any]:
        data, self._body = self._body, None
        if self.missing and not data and not self.begun:
            data = await self._lane.more_body(self.missing)
            self.missing -= len(data or b"")
        if data is not None:
            return {"type": "http.request", "body": data, "more_body": self.missing > 0}
        await self._lane.wait_gone()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        """Raises ClientGone with the last message: not all of it was taken. Raises RuntimeError: what the application
        says does not fit together, and would garble the connection."""
        if message["type"] == "http.response.start":
            self._start(message["status"], message["headers"])
            return
        data, more = message.get("body", b""), message.get("more_body", False)
        self._left -= len(data)
        if self._left < 0 or (self._left and not more):
            raise RuntimeError("an answer is not as long as its Content-Length says")
        if self._head:
            # In one segment: with two a client wakes up twice.
            data, self._head, self.begun = self._head + data, b"", True
        if data and not self._lane.gone:
            await self._lane.send(data)
        if not more:
            self.complete = not self._lane.gone
            if self._lane.gone:
                raise ClientGone

    def _start(self, status: int, headers: Collection[tuple[bytes, bytes]]) -> None:
        lines = [b"HTTP/1.1 %d \r\n" % status]
        length = None
        for name, value in headers:
            lines.append(b"%b: %b\r\n" % (name, value))
            if name == b"content-length":
                length = int(value)
        if length is None and status != 204:
            raise RuntimeError("an answer has no Content-Length")
        head = b"".join(lines)
        if not head.count(b"\r") == head.count(b"\n") == len(lines) or b"\0" in head:
            raise RuntimeError("an answer's header has more than one line")
        self._head = head + _date()
        self._left = 0 if self._is_head or length is None else length


_dated = (0, b"")


def _date() -> bytes:
    """The last header, and the end of the head; made once a second."""
    global _dated
    second = int(time.time())
    if _dated[0] != second:
        _dated = second, b"date: %b\r\n\r\n" % format_date_time(second).encode()
    return _dated[1]
