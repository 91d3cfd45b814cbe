"""hypercorn, with what it needs to stop in time whatever its clients do."""

from __future__ import annotations

import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.trio import run as hypercorn_run
from hypercorn.trio import serve as hypercorn_serve
from hypercorn.trio.tcp_server import TCPServer
from quart_trio import QuartTrio

from bridged.api.flow import Flow
from bridged.api.hot import Endpoint
from bridged.api.hot import serve as serve_hot
from bridged.config.schema import Server
from bridged.errors import ConfigError

log = logging.getLogger(__name__)


class _Connection(TCPServer):
    """One connection: what goes wrong with it ends it alone. hypercorn 0.18 lets it end the server, and with it the
    service: a second upgrade on a connection whose first one was refused was enough (measured)."""

    _ended = False
    _head = b""
    _last = False
    """the response that was begun says that the connection ends with it"""

    async def _read_data(self) -> None:
        """Also ends the wait for a next request, once none can come: hypercorn would keep the connection of a client
        that reset it for as long as an idle one (75 s, measured)."""
        await super()._read_data()
        self._ended = True
        await self.idle_task.stop()

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, RawData):
            await self._send(event.data)
            return
        if self._head and isinstance(event, Closed):
            await self._send(b"")
        await super().protocol_send(event)
        if self._ended and isinstance(event, Updated):
            await self.idle_task.stop()  # the wait began while the reading ended

    async def _send(self, data: bytes) -> None:
        """A response's head goes out together with what follows it: with two sends a client wakes up twice, and each
        costs 0.05 ms. hypercorn has the first of the body, or the end, in hand when it sends the head."""
        if not self._head and data.startswith(b"HTTP/1.1 ") and data[9:10] != b"1" and data.endswith(b"\r\n\r\n"):
            self._head = data
            self._last = b"\r\nconnection: close\r\n" in data
            return
        is_end = not data
        data, self._head = self._head + data, b""
        if data:
            await super().protocol_send(RawData(data))
        if is_end and self._last:
            # hypercorn may wait for ever to read on: after refusing an upgrade that has data behind it (measured).
            await super().protocol_send(Closed())

    async def run(self) -> None:
        try:
            await super().run()
        except* Exception as errors:
            log.warning("a connection ended: %s", errors, exc_info=log.isEnabledFor(logging.DEBUG))


hypercorn_run.TCPServer = _Connection  # type: ignore[attr-defined]


def listen(server: Server) -> socket.socket:
    """The listening socket. Accepted connections inherit its options: a peer that acknowledges nothing is given up
    (hypercorn sends shielded, with no deadline), and so is one that vanished without a word (keepalive; hypercorn's
    own pings would hold the task of a closed WebSocket for up to one interval more).

    Raises ConfigError: the address cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            server.host, server.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(server.stalled_client_timeout * 1000))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
            sock.bind(address)
            sock.listen(128)
        except OSError:
            sock.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {server.host} port {server.port}: {error.strerror}; "
            "choose another [server] host or port, or set HOST or PORT"
        ) from error
    return sock


async def serve(
    app: QuartTrio,
    hot: Mapping[str, Endpoint],
    server: Server,
    listener: socket.socket,
    *,
    stopping: Callable[[], Awaitable[object]],
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves until `stopping` returns, lets sessions end for a third of the shutdown budget, then cuts what is left.

    Takes over `listener`. Reports the URLs it listens on.
    """
    ports = {listener.getsockname()[1]}
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.graceful_timeout = server.shutdown_budget / 3
    config.keep_alive_timeout = 75.0
    config.keep_alive_max_requests = 1_000_000  # its default ends a busy client's connection after 1,000
    config.websocket_max_message_size = 1024 * 1024  # clients have nothing large to say; files go through /upload
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = None

    async def shutdown_trigger() -> None:
        await stopping()

    whole: Any = _mended(app, hot, server.stalled_client_timeout)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cut_after, stopping, config.graceful_timeout, ports)
        await hypercorn_serve(whole, config, shutdown_trigger=shutdown_trigger, task_status=task_status)
        nursery.cancel_scope.cancel()  # nothing is left to cut


def _mended(app: QuartTrio, hot: Mapping[str, Endpoint], deadline: float) -> Callable[..., Awaitable[None]]:
    """The hot endpoints, and the application with two habits of its server and its framework put right.

    Request bodies are taken no faster than handlers read them (`Flow`).

    The last message of each response is shielded, for at most `deadline` seconds:

    hypercorn tells the application of the end of a request in the middle of that last send; quart-trio then cancels
    the sender, and with it hypercorn's restart of the connection's idle timer: an idle keep-alive connection would
    never time out and would hold each stop for the whole grace period (hypercorn 0.18, quart-trio 0.12).
    """

    async def call(scope: Any, receive: Any, send: Any) -> None:
        async def send_whole(message: Any) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body"):
                with trio.move_on_after(deadline, shield=True):
                    await send(message)
            else:
                await send(message)

        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        endpoint = hot.get(scope["path"])
        if endpoint is not None:
            await serve_hot(endpoint, scope, receive, send)
            return
        flow = scope["bridged.flow"] = Flow()
        await app(scope, partial(flow.receive, receive), send_whole)

    return call


async def _cut_after(stopping: Callable[[], Awaitable[object]], seconds: float, ports: set[int]) -> None:
    await stopping()
    await trio.sleep(seconds)
    cut_connections(ports)


def cut_connections(ports: set[int]) -> int:
    """Ends every accepted connection of these local ports at once; returns how many there were.

    hypercorn shields its sends with no deadline, so a client that does not read would hold the stop for as long as
    its kernel buffers are full; shutting the socket down wakes such a send. Linux (/proc/self/fd).
    """
    cut = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.fstat(int(fd)).st_mode):
                continue
            duplicate = os.dup(int(fd))
        except OSError:
            continue  # closed meanwhile: it was the listing's own
        with socket.socket(fileno=duplicate) as sock:
            try:
                if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.getsockname()[1] in ports:
                    sock.getpeername()
                    sock.shutdown(socket.SHUT_RDWR)
                    cut += 1
            except OSError:
                continue  # a listening socket, or one that is gone
    return cut
