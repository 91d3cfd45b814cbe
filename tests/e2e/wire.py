"""HTTP/1.1 over one connection, kept as long as the server keeps it: what it took to get an answer can be seen."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import h11
import msgspec
import trio


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Wire:
    """`connections`: how many it took so far; 1 while the server kept the first."""

    def __init__(self, url: str) -> None:
        self.host, port = url.removeprefix("http://").rsplit(":", 1)
        self.port = int(port)
        self.connections = 0
        self._stream: trio.SocketStream | None = None
        self._http = h11.Connection(h11.CLIENT)

    async def aclose(self) -> None:
        if self._stream is not None:
            await trio.aclose_forcefully(self._stream)
            self._stream = None

    async def ask(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | Iterable[bytes] = b"",
        length: int | None = None,
        *,
        seconds: float = 20,
    ) -> Answer:
        """`body` in pieces needs its `length`, or goes in chunks where that is None. A server may answer before it
        has had all; then the rest is not sent."""
        stream = await self._connected()
        pieces = [body] if isinstance(body, bytes) else body
        size = len(body) if isinstance(body, bytes) else length
        said = ("Transfer-Encoding", "chunked") if size is None else ("Content-Length", str(size))
        head = h11.Request(method=method, target=target, headers=[("Host", f"{self.host}:{self.port}"), said, *headers])

        async def send() -> None:
            try:
                await stream.send_all(self._http.send(head) or b"")
                for piece in pieces:
                    await stream.send_all(self._http.send(h11.Data(data=piece)) or b"")
                await stream.send_all(self._http.send(h11.EndOfMessage()) or b"")
            except trio.BrokenResourceError:
                pass  # it hung up; whether it answered before is for the reader to find out

        with trio.fail_after(seconds):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                answer = await self._answer(stream)
                nursery.cancel_scope.cancel()
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        else:
            await self.aclose()
        return answer

    async def _answer(self, stream: trio.SocketStream) -> Answer:
        status, headers, body = 0, {}, bytearray()
        while True:
            event = self._http.next_event()
            match event:
                case h11.NEED_DATA:
                    self._http.receive_data(await stream.receive_some(65536))
                case h11.Response():
                    status = event.status_code
                    headers = {name.decode(): value.decode() for name, value in event.headers}
                case h11.Data():
                    body += event.data
                case h11.EndOfMessage():
                    return Answer(status, headers, bytes(body))
                case h11.ConnectionClosed():
                    raise ConnectionError("the server hung up without an answer")

    async def _connected(self) -> trio.SocketStream:
        if self._stream is None:
            self._stream = await trio.open_tcp_stream(self.host, self.port)
            self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
            self.connections += 1
        return self._stream


@asynccontextmanager
async def wire(url: str) -> AsyncIterator[Wire]:
    opened = Wire(url)
    try:
        yield opened
    finally:
        await opened.aclose()
