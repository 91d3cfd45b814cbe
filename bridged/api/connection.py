"""One TCP connection: HTTP/1.1 on it, deadlines for clients that are slow, and errors that end it alone."""

from __future__ import annotations

import logging
import math
import socket
import ssl
from contextlib import suppress
from typing import Any, cast

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from bridged.api.connections import Connections
from bridged.api.fastlane import FastLane, Paths
from bridged.api.http11 import CanRead, Http11, Over, answer

log = logging.getLogger(__name__)

KEEP_ALIVE = 75.0
"""seconds that a connection may wait for its next request"""

LINGER = 1.0
"""seconds to read on after a refusal: a client that still sends would otherwise see a reset, not why"""

PIECE = 64 * 1024
"""bytes that are sent at a time, each with its own patience"""

TOO_SLOW = b'{"detail":"the request took too long to arrive; send it again, or over a faster line"}'
TOO_MANY = b'{"detail":"too many connections from this address; close some, or try again later"}'


class ServerConfig(Config):
    """hypercorn's settings, and what our connections share. `tls`: HTTPS with this context, else HTTP. `fast`: what the
    fast lane serves."""

    connections: Connections
    fast: Paths
    tls: ssl.SSLContext | None = None

    @property
    def ssl_enabled(self) -> bool:
        return self.tls is not None

    def create_ssl_context(self) -> ssl.SSLContext | None:
        return self.tls


class Connection(TCPServer):
    """hypercorn's connection, changed: what goes wrong with one ends it alone (hypercorn 0.18 lets it end the server: a
    second upgrade on a connection whose first one was refused was enough, measured), slow clients are told 408, and
    the wait for a next request is a deadline of the reader, not a task that each request starts and stops."""

    _head = b""
    _last = False
    """the response that was begun says that the connection ends with it"""
    _told = False
    """that it was too slow"""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._shared = cast("ServerConfig", self.config).connections
        self._waiting: trio.CancelScope | None = None
        """around the wait for the client's next bytes"""
        self._begun: float | None = None
        """when the first bytes of a request came, while its headers are not complete"""
        self._body_size, self._body_waits = 0, 0.0
        """bytes of the present request, and the seconds that were waited for them"""
        self._lane: FastLane | None = None

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
            protocol = Http11(
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
            protocol.can_read = CanRead(self._socket)
            self.protocol = cast("ProtocolWrapper", protocol)
            self._http = protocol
            if not self._tls:
                plain, paths = cast("trio.SocketStream", self.stream), cast("ServerConfig", self.config).fast
                self._lane = FastLane(
                    self.app, paths, plain, self._next_bytes, self._send_now, protocol.client, protocol.server
                )
            await self._read_data()

    async def _refuse(self) -> None:
        with self._shared.refusing() as patient:
            if patient and not self._tls and not self._shared.stopping:
                await self._send_now(answer(b"429 Too Many Requests", TOO_MANY, b"retry-after: 10\r\n"))
                await self._linger()

    async def _linger(self) -> None:
        """So that what was said last arrives: closing with bytes unread resets the connection."""
        with trio.move_on_after(LINGER), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            if not self._tls:
                await self.stream.send_eof()
            while await self.stream.receive_some(MAX_RECV):
                pass

    @property
    def _their_state(self) -> Any:
        """What the client is about (h11's), in either lane."""
        if self._lane is not None and self._lane.awaits_body:
            return h11.SEND_BODY
        return self._http.connection.their_state

    def is_idle(self) -> bool:
        """Whether it waits for a request."""
        return self._waiting is not None and self._their_state is h11.IDLE

    def end_if_idle(self) -> None:
        if self._waiting is not None and self.is_idle():
            self._waiting.cancel()

    def cut(self) -> None:
        """A send to a client that does not read is woken by this, too."""
        with suppress(OSError):  # it is gone
            self._socket.shutdown(socket.SHUT_RDWR)

    # -- reading -----------------------------------------------------------------------------------------------------

    async def _read_data(self) -> None:
        lane = self._lane
        while True:
            data: bytes | None = b""
            if lane is not None and not self._shared.stopping:
                data, lane.ahead = lane.ahead, b""
            data = data or await self._next_bytes()
            if data is None:
                break
            if lane is not None and self._is_fresh():
                self._body_size, self._body_waits = 0, 0.0
                if await lane.served(data):
                    self._http.keep_alive_requests += 1
                    if lane.gone:
                        break
                    continue
            try:
                await self.protocol.handle(RawData(data))
            except Over:
                await self._linger()
                break
            if self._http.enough:
                await self._linger()
                break
            if not data:
                break
            if self._begun is None and self._has_part_of_a_request():
                self._begun = trio.current_time()
        if self._told:
            await self._linger()
        await self.protocol.handle(Closed())

    async def _next_bytes(self, most: int = MAX_RECV) -> bytes | None:
        """b"": it says that it is done. None: the client is gone, or was too slow, and was told so. Cancelled, it has
        neither taken nor said anything."""
        began = trio.current_time()
        data = None
        try:
            with trio.CancelScope(deadline=self._patience(began)) as waiting:
                self._waiting = waiting
                data = bytes(await self.stream.receive_some(most))
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            return None
        finally:
            self._waiting = None
        if data is None:
            await self._too_slow()
            return None
        self._body_size += len(data)
        self._body_waits += trio.current_time() - began
        return data

    def _is_fresh(self) -> bool:
        """Whether hypercorn has nothing of a request, and no answer to give; nor to say that this is the last one."""
        http, h11s = self._http, self._http.connection
        if http.stream is not None or http.keep_alive_requests >= self.config.keep_alive_max_requests - 1:
            return False
        return h11s.their_state is h11.IDLE and h11s.our_state is h11.IDLE and not h11s.trailing_data[0]

    def _has_part_of_a_request(self) -> bool:
        connection = self._http.connection
        return connection.their_state is h11.IDLE and bool(connection.trailing_data[0])

    def _patience(self, now: float) -> float:
        """Until when the client's next bytes must come."""
        state, limits = self._their_state, self._shared.limits()
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
        unanswered = self._http.connection.our_state in (h11.IDLE, h11.SEND_RESPONSE) and not self._head
        begun = self._begun is not None or self._their_state is h11.SEND_BODY
        if begun and unanswered and not self._shared.stopping:
            await self._send_now(answer(b"408 Request Timeout", TOO_SLOW))
            self._told = True

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
