"""hypercorn's HTTP/1.1, changed where it would leave the ground that our limits stand on.

HTTP/1.1 only, with no HTTP/2 and no compression of WebSocket messages: every limit counts on one request at a time per
connection, and on messages being as large as they arrive.
"""

from __future__ import annotations

import select
from typing import Any

import h11
import trio
from hypercorn.events import RawData
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import FrameTooLargeError, WebsocketBuffer, WSStream
from hypercorn.trio.worker_context import EventWrapper
from wsproto.events import Message

PAUSE = 0.5
"""seconds between two looks whether a client that sent its next request already is still there"""


NO_REQUEST = b'{"detail":"this is no request that HTTP/1.1 allows, or its headers are too long"}'


class Over(Exception):
    """The connection is to end: what was to be said has been."""


class Http11(H11Protocol):
    """HTTP/1.1 that stays HTTP/1.1, and WebSockets without compression: 64 kB can be 64 MB (zlib's best is 1000:1)."""

    enough = False
    """the client sent what ends its connection, once it was told so"""

    async def _check_protocol(self, event: h11.Request) -> None:
        """Where hypercorn would change to HTTP/2."""

    async def _create_stream(self, request: h11.Request) -> None:
        is_upgrade = any(name == b"upgrade" for name, _ in request.headers)
        if is_upgrade and self.connection.trailing_data[0]:
            # What stands behind an upgrade nobody has agreed to yet confuses hypercorn (measured: a traceback each).
            await self._send_error_response(400)
            raise Over
        if any(name == b"sec-websocket-extensions" for name, _ in request.headers):
            request = h11.Request(
                method=request.method,
                headers=[(name, value) for name, value in request.headers if name != b"sec-websocket-extensions"],
                target=request.target,
                http_version=request.http_version,
            )
        await super()._create_stream(request)
        if isinstance(self.stream, WSStream):
            self.stream.buffer = _Message(self.config.websocket_max_message_size, self)

    async def _send_error_response(self, status_code: int) -> None:
        """hypercorn's has no body; faults of the request as such (h11's: 400, 431) are answered like all others."""
        await self.send(RawData(answer(b"%d " % status_code, NO_REQUEST)))


class _Message(WebsocketBuffer):
    """A WebSocket message that arrives. One that is too long ends its connection: hypercorn says so to the client and
    then goes on collecting it (measured: 1 MB of memory for each MB that is sent)."""

    def __init__(self, most: int, protocol: Http11) -> None:
        super().__init__(most)
        self._protocol = protocol

    def extend(self, event: Message[Any]) -> None:
        try:
            super().extend(event)
        except FrameTooLargeError:
            self.clear()
            self._protocol.enough = True
            raise


class CanRead(EventWrapper):
    """hypercorn waits for it to take the next request, when that came before the answer to the one before it; then
    nobody reads, so somebody must look whether the client is still there."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        super().__init__()
        self._socket = sock

    async def wait(self) -> None:
        while not self.is_set():
            with trio.move_on_after(PAUSE):
                await super().wait()
                return
            if is_gone(self._socket):
                raise Over  # hypercorn would wait for an answer that nobody can send any more


def is_gone(sock: trio.socket.SocketType) -> bool:
    """Whether the client has closed its side, also behind bytes that nobody has read yet."""
    if sock.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))


def answer(status: bytes, body: bytes, more: bytes = b"") -> bytes:
    """A whole response in JSON, after which the connection ends; `more`: further header lines."""
    return (
        b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n%b"
        % (status, len(body), more, body)
    )
