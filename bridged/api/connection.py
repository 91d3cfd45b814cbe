"""One TCP connection: hypercorn's HTTP/1.1 on it, deadlines for clients that are slow, and errors that end it alone.

HTTP/1.1 only, with no HTTP/2 and no compression of WebSocket messages: every limit here counts on one request at a
time per connection, and on messages being as large as they arrive.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from bridged.config.schema import Limits

log = logging.getLogger(__name__)

KEEP_ALIVE = 75.0
"""seconds that a connection may wait for its next request"""

LINGER = 1.0
"""seconds to read on after a refusal: a client that still sends would otherwise see a reset, not why"""

TOO_SLOW = b'{"detail":"the request took too long to arrive; send it again, or over a faster line"}'
TOO_MANY = b'{"detail":"too many connections from this address; close some, or try again later"}'


class Connections:
    """The open connections of one server: how many there may be, and their end.

    `exempt` says of an address that it is a proxy of ours, behind which many clients are. A `stalled` client (s) is one
    that takes nothing of what it is sent.
    """

    def __init__(self, limits: Callable[[], Limits], exempt: Callable[[str], bool], stalled: float) -> None:
        self.limits = limits
        self.stalled = stalled
        self.stopping = False
        self._exempt = exempt
        self._open: set[Connection] = set()
        self._of_address: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def holding(self, connection: Connection, host: str) -> Iterator[bool]:
        """Counts a connection while it lasts. Gives False where it is one too many."""
        limits, address = self.limits(), network_of(host)
        self._open.add(connection)
        self._of_address[address] += 1
        try:
            within = self._of_address[address] <= limits.connections_per_address or self._exempt(host)
            yield within and len(self._open) <= limits.connections
        finally:
            self._open.discard(connection)
            self._of_address[address] -= 1
            if not self._of_address[address]:
                del self._of_address[address]

    def stop(self) -> None:
        """The server stops: connections without a request end now, the others after theirs."""
        self.stopping = True
        for connection in list(self._open):
            connection.end_if_idle()

    def cut(self) -> int:
        """Ends every connection at once, also one that is being sent to; returns how many there were."""
        for connection in list(self._open):
            connection.cut()
        return len(self._open)


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


class _Protocol(H11Protocol):
    """HTTP/1.1 that stays HTTP/1.1, and WebSockets without compression: 64 kB can be 64 MB (zlib's best is 1000:1)."""

    async def _check_protocol(self, event: h11.Request) -> None:
        """Where hypercorn would change to HTTP/2."""

    async def _create_stream(self, request: h11.Request) -> None:
        if any(name == b"sec-websocket-extensions" for name, _ in request.headers):
            request = h11.Request(
                method=request.method,
                headers=[(name, value) for name, value in request.headers if name != b"sec-websocket-extensions"],
                target=request.target,
                http_version=request.http_version,
            )
        await super()._create_stream(request)


class Connection(TCPServer):
    """hypercorn's connection, changed: what goes wrong with one ends it alone (hypercorn 0.18 lets it end the server: a
    second upgrade on a connection whose first one was refused was enough, measured), slow clients are told 408, and
    the wait for a next request is a deadline of the reader, not a task that each request starts and stops."""

    _head = b""
    _last = False
    """the response that was begun says that the connection ends with it"""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._shared = cast('ServerConfig', self.config).connections
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
                if not welcome:
                    await self._refuse()
                elif await self._is_secure():
                    await self._serve(address)
        except* OSError:
            pass  # it is gone
        except* Exception as errors:
            log.warning("a connection ended: %s", errors, exc_info=log.isEnabledFor(logging.DEBUG))
        finally:
            await self._close()

    @property
    def _socket(self) -> trio.socket.SocketType:
        stream: Any = self.stream
        return cast('trio.socket.SocketType', getattr(stream, "transport_stream", stream).socket)

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
            self.protocol = cast('ProtocolWrapper', protocol)
            self._http = protocol
            await self._read_data()

    async def _refuse(self) -> None:
        if not self._tls and not self._shared.stopping:
            await self._send_now(_answer(b"429 Too Many Requests", TOO_MANY, b"retry-after: 10\r\n"))
            await self._linger()

    async def _linger(self) -> None:
        """So that what was said last arrives: closing with bytes unread resets the connection."""
        with trio.move_on_after(LINGER):
            if not self._tls:
                await self.stream.send_eof()
            while await self.stream.receive_some(MAX_RECV):
                pass

    def end_if_idle(self) -> None:
        if self._waiting is not None and self._http.connection.their_state is h11.IDLE:
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
            await self.protocol.handle(RawData(bytes(data)))
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
            return now + KEEP_ALIVE if self._begun is None else self._begun + limits.header_timeout
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
        data, self._head = self._head + data, b""
        if data and not await self._send_now(data):
            await self.protocol.handle(Closed())
        if is_end and self._last:
            # hypercorn may wait for ever to read on: after refusing an upgrade that has data behind it (measured).
            await super().protocol_send(Closed())

    async def _send_now(self, data: bytes) -> bool:
        """False where the client is gone, or takes it more slowly than it may. Not cancelled half-way: what follows
        would be garbage to the client."""
        patience = self._shared.stalled
        if rate := self._shared.limits().body_min_rate:
            patience += len(data) / (rate * 1000)
        async with self.send_lock:
            with trio.move_on_after(patience, shield=True):
                try:
                    await self.stream.send_all(data)
                    return True
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return False
        self.cut()
        return False


def _answer(status: bytes, body: bytes, more: bytes = b"") -> bytes:
    return (
        b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n%b"
        % (status, len(body), more, body)
    )
