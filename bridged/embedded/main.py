"""The worker as a program of its own: `run_worker` is what `bridged worker` calls."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import trio

from bridged.embedded.server import serve

if TYPE_CHECKING:
    import pathlib


def run_worker(host: str, port: int, base_directory: pathlib.Path, exit_with_stdin: bool) -> int:
    """Serve until SIGINT, SIGTERM, or with `exit_with_stdin` the end of standard input. Returns the exit
    code.

    Prints `listening on http://…` on standard output as soon as it accepts connections. With
    `exit_with_stdin` a parent that holds the other end of the pipe takes the worker with it, however it dies.
    """
    code = 0
    try:
        trio.run(_run, host, port, base_directory, exit_with_stdin)
    except* OSError as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        print(f"the worker cannot listen on {host}:{port} with {base_directory}: {error}", file=sys.stderr)
        code = 1
    return code


async def _run(host: str, port: int, base_directory: pathlib.Path, exit_with_stdin: bool) -> None:
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(_stop_on_signal, stopping)
        if exit_with_stdin:
            nursery.start_soon(_stop_at_end_of_stdin, stopping)

        async def server(*, task_status: trio.TaskStatus[str]) -> None:
            trigger = stopping.wait
            await serve(host, port, base_directory, shutdown_trigger=trigger, task_status=task_status)
            nursery.cancel_scope.cancel()

        url = await nursery.start(server)
        print(f"listening on {url}", flush=True)


async def _stop_on_signal(
    stopping: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            stopping.set()


async def _stop_at_end_of_stdin(stopping: trio.Event) -> None:
    try:
        while await trio.to_thread.run_sync(os.read, 0, 4096, abandon_on_cancel=True):
            pass
    except OSError:
        pass  # it was closed from the start
    stopping.set()
