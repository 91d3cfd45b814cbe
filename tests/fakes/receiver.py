"""A webhook's receiver on a real socket: it notes every call, checks its signature as a receiver should, and answers
as it was told to. It has no code of the product."""

from __future__ import annotations

import hashlib
import hmac
import json
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import h11
import trio


@dataclass
class Call:
    """`headers` by lower-case name; `at` is `trio.current_time()`."""

    target: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def told(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.body)
        return value

    @property
    def id(self) -> str:
        return self.headers["bridged-delivery"]

    def is_signed(self, key: bytes) -> bool:
        timestamp = self.headers["bridged-timestamp"]
        mac = hmac.new(key, timestamp.encode() + b"." + self.body, hashlib.sha256).hexdigest()
        return hmac.compare_digest(self.headers["bridged-signature"], f"v1={mac}")


@dataclass
class Receiver:
    """`answers` are given one per call, then 204: a status, raw bytes, or "hang" and "close". `on_call` is told of each
    before it is answered."""

    tls: ssl.SSLContext | None = None
    answers: deque[int | bytes | str] = field(default_factory=deque)
    calls: list[Call] = field(default_factory=list)
    on_call: Callable[[Call], object] = lambda call: None
    port: int = 0
    connections: int = 0
    open: int = 0
    most_open: int = 0
    _news: trio.Event = field(default_factory=trio.Event)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, self._handle, self.port, host="127.0.0.1"))
            self.port = listeners[0].socket.getsockname()[1]
            task_status.started()

    async def wait_calls(self, count: int, seconds: float = 10) -> list[Call]:
        with trio.fail_after(seconds):
            while len(self.calls) < count:
                await self._news.wait()
        return self.calls

    async def _handle(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._answer(trio.SSLStream(stream, self.tls, server_side=True) if self.tls else stream)
        finally:
            self.open -= 1
            await trio.aclose_forcefully(stream)

    async def _answer(self, stream: trio.abc.Stream) -> None:
        http = h11.Connection(h11.SERVER)
        request: h11.Request | None = None
        body = b""
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(bytes(await stream.receive_some()))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return
        assert request is not None
        headers = {name.decode(): value.decode() for name, value in request.headers}
        call = Call(request.target.decode(), headers, body, trio.current_time())
        answer = self.answers.popleft() if self.answers else 204
        self.calls.append(call)
        self.on_call(call)
        self._news.set()
        self._news = trio.Event()
        if answer == "hang":
            await trio.sleep_forever()
        elif isinstance(answer, bytes):
            await stream.send_all(answer)
        elif isinstance(answer, int):
            await stream.send_all(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % answer)
