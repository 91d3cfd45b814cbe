"""The worker as a server: its parts put together, and served with hypercorn."""

from __future__ import annotations

import functools
import socket
import sys
from typing import TYPE_CHECKING

import hypercorn.config
import hypercorn.trio
import trio

from bridged.embedded.executor import Executor
from bridged.embedded.folders import Folders
from bridged.embedded.hub import Hub
from bridged.embedded.routes import Routes

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Awaitable, Callable

USER_TIMEOUT_MS = 10_000
"""A peer that acknowledges nothing for this long is gone. Bounds how long a send to it, which hypercorn
shields, can last."""

GRACE = 1.0
"""Seconds that open connections have at the end."""

_SOCKET_OPTIONS = {(socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1}
if sys.platform == "linux":
    _SOCKET_OPTIONS |= {
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE): 20,
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL): 5,
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT): 3,
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT): USER_TIMEOUT_MS,
    }


class _Config(hypercorn.config.Config):
    def create_sockets(self) -> hypercorn.config.Sockets:
        sockets = super().create_sockets()
        for listener in sockets.insecure_sockets:
            for option, value in _SOCKET_OPTIONS.items():
                listener.setsockopt(*option, value)  # the accepted connections inherit it
        return sockets


async def serve(
    host: str,
    port: int,
    base_directory: pathlib.Path,
    *,
    shutdown_trigger: Callable[[], Awaitable[None]] | None = None,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a worker until `shutdown_trigger` returns or this is cancelled.

    Port 0 takes a free one; `task_status` is told the address, such as "http://127.0.0.1:41234", once it
    accepts connections. Raises OSError when it cannot listen there, or cannot make its folders.
    """
    folders = Folders(base_directory)
    await trio.to_thread.run_sync(folders.prepare)
    hub = Hub()
    executor = Executor(folders, hub)
    config = _Config()
    config.bind = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}"]
    config.accesslog = None
    config.errorlog = None
    config.graceful_timeout = GRACE
    config.keep_alive_timeout = (
        75  # longer than HTTP clients keep idle connections, so that we are not the first to close
    )
    # No pings: hypercorn's pinger outlives a closed socket by up to one interval, and holds up the shutdown.
    # The kernel's keepalive finds clients that are gone without a word.
    config.websocket_ping_interval = None
    config.include_server_header = False

    async def trigger() -> None:
        if shutdown_trigger is None:
            await trio.sleep_forever()
        else:
            await shutdown_trigger()
        hub.close_all()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(executor.run)
        start = functools.partial(
            hypercorn.trio.serve,
            Routes(folders, hub, executor).app,
            config,
            shutdown_trigger=trigger,
        )

        async def listen(*, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED) -> None:
            await start(task_status=task_status)
            nursery.cancel_scope.cancel()

        binds: list[str] = await nursery.start(listen)
        task_status.started(binds[0])
