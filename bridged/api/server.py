"""hypercorn, with what it needs to stop in time whatever its clients do."""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from hypercorn.trio import run as hypercorn_run
from hypercorn.trio import serve as hypercorn_serve
from hypercorn.trio.tcp_server import TCPServer

from bridged.api.connection import KEEP_ALIVE, Connection, ServerConfig
from bridged.api.connections import Connections
from bridged.api.entrance import Entrance
from bridged.api.tls import Certificate
from bridged.config.schema import Server
from bridged.errors import ConfigError

log = logging.getLogger(__name__)


def _connection(app: Any, config: Any, *rest: Any) -> TCPServer:
    """In the place of hypercorn's class: our connections for our server. Others in this process keep theirs."""
    return (Connection if isinstance(config, ServerConfig) else TCPServer)(app, config, *rest)


hypercorn_run.TCPServer = _connection  # type: ignore[assignment,attr-defined]


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
    app: Entrance,
    server: Server,
    listener: socket.socket,
    connections: Connections,
    *,
    certificate: Certificate | None = None,
    stopping: Callable[[], Awaitable[object]],
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves until `stopping` returns, lets sessions end for a third of the shutdown budget, then cuts what is left.

    Takes over `listener`. Reports the URLs it listens on.
    """
    config = ServerConfig()
    config.connections = connections
    config.fast = app.fast
    config.tls = certificate.context if certificate is not None else None
    config.bind = [f"fd://{listener.detach()}"]
    config.graceful_timeout = server.shutdown_budget / 3
    config.keep_alive_timeout = KEEP_ALIVE
    config.keep_alive_max_requests = 1_000_000  # its default ends a busy client's connection after 1,000
    config.websocket_max_message_size = 64 * 1024  # clients have nothing large to say; files go through /upload
    config.h11_max_incomplete_size = 32 * 1024  # bytes of headers that are not complete
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = None

    async def shutdown_trigger() -> None:
        await stopping()

    whole: Any = app
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end, connections, stopping, config.graceful_timeout)
        if certificate is not None:
            nursery.start_soon(certificate.run)
        await hypercorn_serve(whole, config, shutdown_trigger=shutdown_trigger, task_status=task_status)
        nursery.cancel_scope.cancel()  # nothing is left to cut


async def _end(connections: Connections, stopping: Callable[[], Awaitable[object]], grace: float) -> None:
    await stopping()
    connections.stop()
    await trio.sleep(grace)
    connections.cut()
