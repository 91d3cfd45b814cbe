"""The fake's side of a TCP connection: HTTP/1.1 on h11, WebSocket on wsproto, and the ways in which a
connection can end.
"""

import contextlib
import json
import socket
import struct
import time
from collections import deque
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl, unquote, urlsplit

import h11
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Request, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from .files import parse_multipart
from .script import Call, Reply

READ_SIZE = 65536
GONE = (trio.BrokenResourceError, trio.ClosedResourceError)
Barrier = Callable[[], Awaitable[None]]


class Connection:
    """One accepted connection while it speaks HTTP."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._h11 = h11.Connection(h11.SERVER)

    async def next_request(self) -> tuple[h11.Request, bytes] | None:
        """The next request and its whole body; None when the client is gone or does not speak HTTP."""
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
        request: h11.Request | None = None
        body = bytearray()
        try:
            while True:
                event = self._h11.next_event()
                if event is h11.NEED_DATA:
                    if self._h11.they_are_waiting_for_100_continue:
                        informal = h11.InformationalResponse(status_code=100, headers=[])
                        await self.stream.send_all(self._h11.send(informal))
                    self._h11.receive_data(await self.stream.receive_some(READ_SIZE))
                elif isinstance(event, h11.Request):
                    request = event
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage) and request is not None:
                    return request, bytes(body)
                else:
                    return None
        except (h11.RemoteProtocolError, *GONE):
            return None

    async def send(self, reply: Reply, *, head_only: bool = False) -> bool:
        """Carries out a reply. True when the connection can take another request."""
        if reply.fate == "hang":
            await self.wait_gone()
            return False
        if reply.truncate is None and reply.fate in ("reset", "close"):
            self.end(reset=reply.fate == "reset")
            return False
        headers = [*reply.headers.items()]
        if reply.status != 304:
            framing = (
                ("Transfer-Encoding", "chunked")
                if reply.chunked
                else ("Content-Length", str(len(reply.body)))
            )
            headers.append(framing)
        try:
            out = self._h11.send(h11.Response(status_code=reply.status, headers=headers)) or b""
            body = b"" if head_only or reply.status == 304 else reply.body
            for part in _parts(body[: reply.truncate], reply.chunked):
                out += self._h11.send(h11.Data(data=part)) or b""
            if reply.truncate is not None:
                await self.stream.send_all(out)
                self.end(reset=reply.fate == "reset")
                return False
            out += self._h11.send(h11.EndOfMessage()) or b""
            await self.stream.send_all(out)
        except GONE:
            return False
        return self._h11.our_state is h11.DONE

    async def wait_gone(self) -> None:
        """Reads and forgets until the client closes."""
        try:
            while await self.stream.receive_some(READ_SIZE):
                pass
        except GONE:
            pass

    def end(self, *, reset: bool) -> None:
        end(self.stream, reset=reset)

    def trailing(self) -> bytes:
        """What came behind an upgrade request."""
        return bytes(self._h11.trailing_data[0])


def _parts(body: bytes, chunked: bool) -> list[bytes]:
    """Chunked answers come in at least two chunks, so that a reader has to join them."""
    middle = len(body) // 2
    return [part for part in ((body[:middle], body[middle:]) if chunked else (body,)) if part]


def end(stream: trio.SocketStream, *, reset: bool) -> None:
    """Ends a connection at once: RST, or FIN and no more writing."""
    try:
        if reset:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            stream.socket.close()
        else:
            # close() with unread data in the kernel would send RST; this does not.
            stream.socket.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def read_call(request: h11.Request, body: bytes) -> Call:
    url = urlsplit(request.target.decode())
    path = unquote(url.path)
    headers = {key.decode(): value.decode("latin-1") for key, value in request.headers}
    route = (
        path.removeprefix("/api")
        if path.startswith("/api/") and not path.startswith("/api/internal/")
        else path
    )
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    now = (trio.current_time(), time.monotonic(), time.time())
    call = Call(request.method.decode(), path, route, query, headers, len(body), *now)
    kind = headers.get("content-type", "")
    if kind.startswith("multipart/form-data"):
        call.fields = parse_multipart(kind, body)
        call.upload_name = call.fields.get("image", (None, b""))[0]
        call.upload_subfolder = call.fields.get("subfolder", (None, b""))[1].decode()
    elif body:
        with contextlib.suppress(ValueError):
            call.json = json.loads(body)
    return call


class WebSocketPeer:
    """One client's WebSocket. Sending never waits: a writer task sends what has been queued, in order.

    The queue has no bound: a test is to see what a real server would have buffered, and it ends with the
    test.
    """

    def __init__(self, stream: trio.SocketStream, sid: str, request: h11.Request, barrier: Barrier) -> None:
        self.sid = sid
        self.flags: dict[str, object] = {}
        self.dropped = False
        self._stream = stream
        self._barrier = barrier
        self._outgoing: deque[bytes] = deque()
        self._wake = trio.Event()
        self._sending = trio.Lock()
        self._ws = WSConnection(ConnectionType.SERVER)
        self._ws.initiate_upgrade_connection(list(request.headers), request.target)

    def accept(self, trailing: bytes) -> bool:
        """Answers the handshake; False when it was none."""
        if not any(isinstance(event, Request) for event in self._ws.events()):
            return False
        self._put(self._ws.send(AcceptConnection()))
        if trailing:
            self._ws.receive_data(trailing)
        return True

    def send(self, message: str | bytes) -> None:
        if not self.dropped:
            event = TextMessage(data=message) if isinstance(message, str) else BytesMessage(data=message)
            try:
                self._put(self._ws.send(event))
            except LocalProtocolError:
                self.dropped = True  # the closing handshake has begun

    def close(self, code: int) -> None:
        with contextlib.suppress(LocalProtocolError):
            self._put(self._ws.send(CloseConnection(code=code)))

    def drop(self, *, reset: bool) -> None:
        self.dropped = True
        end(self._stream, reset=reset)

    async def run(self, on_text: Callable[[str], None]) -> None:
        """Serves the socket until either side is gone."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write)
            await self._read(on_text)
            nursery.cancel_scope.cancel()

    async def _read(self, on_text: Callable[[str], None]) -> None:
        text = ""
        while True:
            for event in self._ws.events():
                if isinstance(event, TextMessage):
                    text += event.data
                    if event.message_finished:
                        on_text(text)
                        text = ""
                elif isinstance(event, Ping):
                    self._put(self._ws.send(event.response()))
                elif isinstance(event, CloseConnection):
                    with trio.move_on_after(1):
                        await self._finish(event)
                    return
            try:
                data = await self._stream.receive_some(READ_SIZE)
                await self._barrier()
                if not data:
                    return
                self._ws.receive_data(data)
            except (RemoteProtocolError, *GONE):
                return

    async def _finish(self, event: CloseConnection) -> None:
        try:
            async with self._sending:  # the writer may be in the middle of something
                await self._stream.send_all(self._ws.send(event.response()))
        except (LocalProtocolError, *GONE):
            pass

    async def _write(self) -> None:
        try:
            while True:
                await self._wake.wait()
                await self._barrier()
                self._wake = trio.Event()
                data = b"".join(self._outgoing)
                self._outgoing.clear()
                async with self._sending:
                    await self._stream.send_all(data)
        except GONE:
            self.dropped = True  # the reader notices by itself

    def _put(self, data: bytes) -> None:
        self._outgoing.append(data)
        self._wake.set()
