"""One TCP connection: hypercorn's HTTP/1.1 on it, deadlines for clients that are slow, and errors that end it alone.

HTTP/1.1 only, with no HTTP/2 and no compression of WebSocket messages: every limit here counts on one request at a
time per connection, and on messages being as large as they arrive.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import select
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import FrameTooLargeError, WebsocketBuffer, WSStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.trio.worker_context import EventWrapper
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr
from wsproto.events import Message

from bridged.config.schema import Limits

log = logging.getLogger(__name__)

KEEP_ALIVE = 75.0
"""seconds that a connection may wait for its next request"""

LINGER = 1.0
"""seconds to read on after a refusal: a client that still sends would otherwise see a reset, not why"""

MOST_REFUSED = 64
"""connections at once that are told why they are refused"""

PIECE = 64 * 1024
"""bytes that are sent at a time, each with its own patience"""

PAUSE = 0.5
"""seconds between two looks whether a client that sent its next request already is still there"""

TOO_SLOW = b'{"detail":"the request took too long to arrive; send it again, or over a faster line"}'
TOO_MANY = b'{"detail":"too many connections from this address; close some, or try again later"}'


class Connections:
    """The open connections of one server: how many there may be, and their end.

    `exempt` says of an address that it is a proxy of ours, behind which many clients are. A `stalled` client (s) is one
    that takes nothing of what it is sent. `most` is what the process can have open.
    """

    def __init__(
        self, limits: Callable[[], Limits], exempt: Callable[[str], bool], stalled: float, most: float = math.inf
    ) -> None:
        self.limits = limits
        self.stalled = stalled
        self.stopping = False
        self._exempt = exempt
        self._most = most
        self._open: dict[str, set[Connection]] = {}
        """address -> its connections"""
        self._count = 0
        self._refused = 0

    def __len__(self) -> int:
        return self._count

    @contextmanager
    def holding(self, connection: Connection, host: str) -> Iterator[bool]:
        """Counts a connection while it lasts. Gives False, and does not count it, where it is one too many."""
        address = network_of(host)
        if not self._has_room(host, address):
            yield False
            return
        self._open.setdefault(address, set()).add(connection)
        self._count += 1
        try:
            yield True
        finally:
            self._forget(connection, address)

    def _has_room(self, host: str, address: str) -> bool:
        limits = self.limits()
        held = len(self._open.get(address, ()))
        if held >= limits.connections_per_address and not self._exempt(host):
            return False
        if self._count < min(limits.connections, self._most):
            return True
        # Full: whoever has most gives up one that it does not use, so that a few addresses cannot keep all others out.
        most = max(self._open, key=lambda each: len(self._open[each]))
        if len(self._open[most]) <= held + 1:
            return False
        idle = next((each for each in self._open[most] if each.is_idle()), None)
        if idle is None:
            return False
        idle.cut()
        self._forget(idle, most)
        return True

    def _forget(self, connection: Connection, address: str) -> None:
        """It counts no more; once is enough."""
        connections = self._open.get(address, set())
        if connection in connections:
            self._count -= 1
            connections.discard(connection)
            if not connections:
                del self._open[address]

    @contextmanager
    def refusing(self) -> Iterator[bool]:
        """Around telling one that it is one too many. False: so many are being told that this one is just closed."""
        self._refused += 1
        try:
            yield self._refused <= MOST_REFUSED
        finally:
            self._refused -= 1

    def _all(self) -> list[Connection]:
        return [connection for connections in self._open.values() for connection in connections]

    def stop(self) -> None:
        """The server stops: connections without a request end now, the others after theirs."""
        self.stopping = True
        for connection in self._all():
            connection.end_if_idle()

    def cut(self) -> int:
        """Ends every connection at once, also one that is being sent to; returns how many there were."""
        for connection in self._all():
            connection.cut()
        return self._count


def network_of(host: str) -> str:
    """What counts as one address: an IPv4 address, the /64 of an IPv6 one (what one subscriber has: RFC 6177)."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return host


class ServerConfig(Config):
    """hypercorn's settings, and what our connections share. `tls`: HTTPS with this context, else HTTP."""

    connections: Connections
    tls: ssl.SSLContext | None = None

    @property
    def ssl_enabled(self) -> bool:
        return self.tls is not None

    def create_ssl_context(self) -> ssl.SSLContext | None:
        return self.tls


class _Over(Exception):
    """The connection is to end: what was to be said has been."""


class _Protocol(H11Protocol):
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
            raise _Over
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
        body = b'{"detail":"this is no request that HTTP/1.1 allows, or its headers are too long"}'
        await self.send(RawData(_answer(b"%d " % status_code, body)))


class _Message(WebsocketBuffer):
    """A WebSocket message that arrives. One that is too long ends its connection: hypercorn says so to the client and
    then goes on collecting it (measured: 1 MB of memory for each MB that is sent)."""

    def __init__(self, most: int, protocol: _Protocol) -> None:
        super().__init__(most)
        self._protocol = protocol

    def extend(self, event: Message[Any]) -> None:
        try:
            super().extend(event)
        except FrameTooLargeError:
            self.clear()
            self._protocol.enough = True
            raise


class _CanRead(EventWrapper):
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
            if self._is_gone():
                raise _Over  # hypercorn would wait for an answer that nobody can send any more

    def _is_gone(self) -> bool:
        if self._socket.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLRDHUP)
        return bool(poll.poll(0))


class Connection(TCPServer):
    """hypercorn's connection, changed: what goes wrong with one ends it alone (hypercorn 0.18 lets it end the server: a
    second upgrade on a connection whose first one was refused was enough, measured), slow clients are told 408, and
    the wait for a next request is a deadline of the reader, not a task that each request starts and stops."""

    _head = b""
    _last = False
    """the response that was begun says that the connection ends with it"""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._shared = cast("ServerConfig", self.config).connections
        self._waiting: trio.CancelScope | None = None
        """around the wait for the client's next bytes"""
        self._begun: float | None = None
        """when the first bytes of a request came, while its headers are not complete"""
        self._body_size, self._body_waits = 0, 0.0
        """bytes of the present request, and the seconds that were waited for them"""

    # -- its life ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        try:
            address = self._socket.getpeername()
            with self._shared.holding(self, address[0]) as welcome:
                if welcome and await self._is_secure():
                    await self._serve(address)
            if not welcome:
                await self._refuse()
        except* OSError:
            pass  # it is gone
        except* Exception as errors:
            log.warning("a connection ended: %s", errors, exc_info=log.isEnabledFor(logging.DEBUG))
        finally:
            await self._close()

    @property
    def _socket(self) -> trio.socket.SocketType:
        stream: Any = self.stream
        return cast("trio.socket.SocketType", getattr(stream, "transport_stream", stream).socket)

    @property
    def _tls(self) -> bool:
        return isinstance(self.stream, trio.SSLStream)

    async def _is_secure(self) -> bool:
        """False where it should be, and the client did not manage in time."""
        if self._tls:
            try:
                with trio.fail_after(self._shared.limits().header_timeout):
                    await self.stream.do_handshake()
            except (trio.BrokenResourceError, trio.TooSlowError):
                return False
        return True

    async def _serve(self, address: Any) -> None:
        async with TaskGroup() as task_group:
            protocol = _Protocol(
                self.app,
                self.config,
                self.context,
                task_group,
                ConnectionState(self.state),
                self._tls,
                parse_socket_addr(self._socket.family, address),
                parse_socket_addr(self._socket.family, self._socket.getsockname()),
                self.protocol_send,
            )
            protocol.can_read = _CanRead(self._socket)
            self.protocol = cast("ProtocolWrapper", protocol)
            self._http = protocol
            await self._read_data()

    async def _refuse(self) -> None:
        with self._shared.refusing() as patient:
            if patient and not self._tls and not self._shared.stopping:
                await self._send_now(_answer(b"429 Too Many Requests", TOO_MANY, b"retry-after: 10\r\n"))
                await self._linger()

    async def _linger(self) -> None:
        """So that what was said last arrives: closing with bytes unread resets the connection."""
        with trio.move_on_after(LINGER), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            if not self._tls:
                await self.stream.send_eof()
            while await self.stream.receive_some(MAX_RECV):
                pass

    def is_idle(self) -> bool:
        """Whether it waits for a request."""
        return self._waiting is not None and self._http.connection.their_state is h11.IDLE

    def end_if_idle(self) -> None:
        if self._waiting is not None and self.is_idle():
            self._waiting.cancel()

    def cut(self) -> None:
        """A send to a client that does not read is woken by this, too."""
        with suppress(OSError):  # it is gone
            self._socket.shutdown(socket.SHUT_RDWR)

    # -- reading -----------------------------------------------------------------------------------------------------

    async def _read_data(self) -> None:
        while True:
            began = trio.current_time()
            with trio.CancelScope(deadline=self._patience(began)) as self._waiting:
                try:
                    data = await self.stream.receive_some(MAX_RECV)
                except (trio.ClosedResourceError, trio.BrokenResourceError):
                    data = None
            cancelled = self._waiting.cancelled_caught
            self._waiting = None
            if cancelled:
                await self._too_slow()
                break
            if data is None:
                break
            self._body_size += len(data)
            self._body_waits += trio.current_time() - began
            try:
                await self.protocol.handle(RawData(bytes(data)))
            except _Over:
                await self._linger()
                break
            if self._http.enough:
                await self._linger()
                break
            if not data:
                break
            if self._begun is None and self._has_part_of_a_request():
                self._begun = trio.current_time()
        await self.protocol.handle(Closed())

    def _has_part_of_a_request(self) -> bool:
        connection = self._http.connection
        return connection.their_state is h11.IDLE and bool(connection.trailing_data[0])

    def _patience(self, now: float) -> float:
        """Until when the client's next bytes must come."""
        state, limits = self._http.connection.their_state, self._shared.limits()
        if state is h11.IDLE:
            if self._shared.stopping:
                return -math.inf
            if self._begun is not None:
                return self._begun + limits.header_timeout
            return now + (KEEP_ALIVE if self._http.keep_alive_requests else limits.header_timeout)
        if state is h11.SEND_BODY:
            if not limits.body_min_rate:
                return now + limits.body_timeout
            # Only waiting counts: it is not the client's fault that its handler takes its time.
            earned = limits.body_timeout + self._body_size / (limits.body_min_rate * 1000)
            return now + min(limits.body_timeout, earned - self._body_waits)
        return math.inf  # it has said what it wants, or it is a WebSocket

    async def _too_slow(self) -> None:
        connection = self._http.connection
        unanswered = connection.our_state in (h11.IDLE, h11.SEND_RESPONSE) and not self._head
        begun = self._begun is not None or connection.their_state is h11.SEND_BODY
        if begun and unanswered and not self._shared.stopping:
            await self._send_now(_answer(b"408 Request Timeout", TOO_SLOW))
            await self._linger()

    # -- sending -----------------------------------------------------------------------------------------------------

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, RawData):
            await self._send(event.data)
        elif isinstance(event, Updated):
            self._begun, self._body_size, self._body_waits = None, 0, 0.0
            if event.idle and self._waiting is not None:
                self._waiting.deadline = self._patience(trio.current_time())
        elif isinstance(event, Closed):
            if self._head:
                await self._send(b"")
            await super().protocol_send(event)

    async def _send(self, data: bytes) -> None:
        """A response's head goes out together with what follows it: with two sends a client wakes up twice, and each
        costs 0.05 ms. hypercorn has the first of the body, or the end, in hand when it sends the head."""
        if not self._head and data.startswith(b"HTTP/1.1 ") and data[9:10] != b"1" and data.endswith(b"\r\n\r\n"):
            self._head = data
            self._last = b"\r\nconnection: close\r\n" in data
            return
        is_end = not data
        head, self._head = self._head, b""
        pieces = [head + data] if len(data) <= PIECE else [head, data]  # joining them would copy what is large
        for piece in pieces:
            if piece and not await self._send_now(piece):
                await self.protocol.handle(Closed())
                break
        if is_end and self._last:
            # hypercorn may wait for ever to read on: after refusing an upgrade that has data behind it (measured).
            await super().protocol_send(Closed())

    async def _send_now(self, data: bytes) -> bool:
        """False where the client is gone, or takes it more slowly than it may. Not cancelled half-way: what follows
        would be garbage to the client."""
        rate = self._shared.limits().body_min_rate
        patience = self._shared.stalled + (PIECE / (rate * 1000) if rate else 0.0)
        view = memoryview(data)
        async with self.send_lock:
            for start in range(0, len(data), PIECE):
                with trio.move_on_after(patience, shield=True) as patient:
                    try:
                        await self.stream.send_all(view[start : start + PIECE])
                    except (trio.BrokenResourceError, trio.ClosedResourceError):
                        return False
                if patient.cancelled_caught:
                    self.cut()
                    return False
        return True


def _answer(status: bytes, body: bytes, more: bytes = b"") -> bytes:
    return (
        b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n%b"
        % (status, len(body), more, body)
    )
