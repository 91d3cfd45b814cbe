"""The worker as a child process of the daemon, restarted when it dies."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Sequence

logger = logging.getLogger(__name__)

FIRST_DELAY, LONGEST_DELAY = 0.25, 30.0
"""Seconds before a restart; doubled each time."""

HEALTHY_AFTER = 30.0
"""Seconds of life after which the next death counts as the first one again."""

START_TIMEOUT = 60.0
"""Seconds until it must listen; a cold disk takes a few to read Python, numpy and Pillow."""

STOP_TIMEOUT = 3.0
"""Seconds to end by itself once its standard input is closed."""

GREETING = "listening on "


async def run_worker_process(
    state_dir: pathlib.Path,
    *,
    on_url: Callable[[str], None],
    python: str = sys.executable,
    command: Sequence[str] | None = None,
) -> None:
    """Keep a worker running until cancelled, with its folders under `state_dir`/worker.

    `on_url` is called with its address each time it starts to listen. That is the same address after a crash,
    unless the port was taken in between. `command` replaces `python -m bridged worker`; the options are
    appended to it.
    """
    base = state_dir / "worker"
    program = [python, "-m", "bridged", "worker"] if command is None else list(command)
    port, delay = 0, FIRST_DELAY
    while True:
        started = trio.current_time()
        options = ["--port", str(port), "--base-directory", str(base), "--exit-with-stdin"]
        url = await _run_once([*program, *options], on_url)
        lived = trio.current_time() - started
        if lived > HEALTHY_AFTER:
            delay = FIRST_DELAY
        # Without a url it could not even listen: perhaps somebody has taken its port.
        port = 0 if url is None else int(url.rsplit(":", 1)[1])
        logger.warning("the embedded worker ended after %.1f s; restarting it in %.2f s", lived, delay)
        await trio.sleep(delay)
        delay = min(2 * delay, LONGEST_DELAY)


async def _run_once(command: list[str], on_url: Callable[[str], None]) -> str | None:
    """Returns its address when the worker has ended, None when it never listened."""
    try:
        # In a session of its own: a Ctrl-C in the daemon's terminal is for the daemon, which ends the worker
        # when it is ready to.
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        logger.error("the embedded worker cannot be started: %s", error)
        return None
    assert process.stdin is not None
    assert process.stdout is not None
    url: str | None = None
    try:
        with trio.move_on_after(START_TIMEOUT):
            line = await _first_line(process.stdout)
            if line.startswith(GREETING):
                url = line.removeprefix(GREETING)
        if url is None:
            return None
        on_url(url)
        # Reading on keeps a worker that prints from blocking on a full pipe; the end of it means that the
        # worker has ended.
        while await process.stdout.receive_some():
            pass
        await process.wait()
        return url
    finally:
        await _stop(process)


async def _first_line(stream: trio.abc.ReceiveStream) -> str:
    data = b""
    while b"\n" not in data and (chunk := await stream.receive_some()):
        data += chunk
    return data.split(b"\n")[0].decode(errors="replace").strip()


async def _stop(process: trio.Process) -> None:
    """Make sure that it is gone: first by closing its standard input, then by force."""
    assert process.stdin is not None
    assert process.stdout is not None
    with trio.CancelScope(deadline=trio.current_time() + STOP_TIMEOUT, shield=True):
        await process.stdin.aclose()
        await process.stdout.aclose()
        await process.wait()
    if process.returncode is None:
        process.kill()
        with trio.CancelScope(deadline=trio.current_time() + STOP_TIMEOUT, shield=True):
            await process.wait()
