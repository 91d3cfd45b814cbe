"""A full disk: the state folder on a small tmpfs in a mount namespace of its own, filled and freed by the suite."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from .world import World

SIZE = 64
"""MiB of the small disk: room for every result that nobody has fetched yet, and for some that were"""

HOLDER = 'mount -t tmpfs -o size="$1"m,mode=700 tmpfs "$2" && echo mounted && exec sleep 86400'


class Skipped(Exception):
    """This kernel, or this user, cannot do what the scenario needs. Says why."""


@asynccontextmanager
async def small_disk(folder: Path) -> AsyncIterator[int]:
    """A tmpfs on `folder`, seen only from inside the namespaces of the process whose id is given."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        process = await trio.lowlevel.open_process(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", HOLDER, "sh", str(SIZE), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except OSError as error:
        raise Skipped(f"unshare cannot be run: {error.strerror}") from error
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with process.stdout, process.stderr:
            with trio.fail_after(10):
                if not (await process.stdout.receive_some(100)).startswith(b"mounted"):
                    said = (await process.stderr.receive_some(500)).decode(errors="replace").strip()
                    raise Skipped(f"no tmpfs in a namespace of our own: {said}")
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        with trio.move_on_after(5, shield=True):
            await process.wait()


def fill(ballast: Path) -> int:
    """Writes until nothing more fits; how many bytes that were. Blocking."""
    written = 0
    with contextlib.suppress(FileNotFoundError):
        written = ballast.stat().st_size
    fd = os.open(ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        size = 1 << 20
        while size >= 512:
            try:
                written += os.write(fd, b"\0" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2
    finally:
        os.close(fd)
    return written


async def disk(world: World) -> None:
    """The disk fills up while jobs flow, the daemon is killed and started on a full disk, and space comes back."""
    state = world.house.state
    holder = await world.stack.enter_async_context(small_disk(state))
    seen = Path(f"/proc/{holder}/root") / state.relative_to("/")
    ballast = seen / "ballast"
    world.spool = seen / "spool"
    world.service.wrapper = ["nsenter", f"--target={holder}", "--user", "--mount", "--preserve-credentials", "--"]
    world.house.setting("files", results_max_total=SIZE / 4)
    await world.set_up()
    world.service.excuse = "disk is full"  # where even its reserve was taken by others while it was dead
    world.customers.keep(world.scale.in_flight, world.scale.sockets)
    for number in range(max(2, world.scale.rounds // 6)):
        await world.flow(ended=world.scale.in_flight // 2, seconds=world.scale.patience / 9)
        await trio.to_thread.run_sync(fill, ballast)
        world.book.fault("disk full")
        await trio.sleep(world.rng.uniform(0.2, 3.0))
        if number % 3 == 1:
            await world.service.kill()
            await trio.to_thread.run_sync(fill, ballast)
            world.book.fault("daemon killed, and started on a full disk")
            await world.service.start()
            await trio.sleep(world.rng.uniform(0.5, 3.0))
        ballast.unlink()
