"""The worker as a process: it says where it listens, ends with its parent, and comes back when it dies."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from bridged.embedded import process
from bridged.embedded.process import run_worker_process

if TYPE_CHECKING:
    import pathlib

PROGRAM = """
import argparse, pathlib, sys
from bridged.embedded.main import run_worker
parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int)
parser.add_argument("--base-directory", type=pathlib.Path)
parser.add_argument("--exit-with-stdin", action="store_true")
options = parser.parse_args()
(options.base_directory.parent / "pid").write_text(str(__import__("os").getpid()))
sys.exit(run_worker("127.0.0.1", options.port, options.base_directory, options.exit_with_stdin))
"""

COMMAND = [sys.executable, "-c", PROGRAM]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Urls:
    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[str](10)

    def __call__(self, url: str) -> None:
        self._send.send_nowait(url)

    async def next(self) -> str:
        with trio.fail_after(30):
            return await self._receive.receive()


async def test_it_is_restarted_at_the_same_address_and_ends_with_us(tmp_path: pathlib.Path) -> None:
    urls = Urls()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(run_worker_process, tmp_path, on_url=urls, command=COMMAND))
        url = await urls.next()
        async with httpx.AsyncClient(base_url=url) as http:
            assert (await http.get("/features")).status_code == 200
        assert (tmp_path / "worker" / "input" / "example.png").is_file()
        first = int((tmp_path / "pid").read_text())
        os.kill(first, signal.SIGKILL)
        assert await urls.next() == url
        second = int((tmp_path / "pid").read_text())
        assert second != first
        nursery.cancel_scope.cancel()
    assert not is_alive(second)


async def test_a_program_that_cannot_run_is_tried_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "FIRST_DELAY", 0.001)
    state, urls = tmp_path / "state", Urls()
    state.mkdir()
    script = tmp_path / "flaky"
    script.write_text(
        f"import os, sys, pathlib\nmark = pathlib.Path({str(tmp_path / 'mark')!r})\n"
        "if not mark.exists():\n    mark.touch()\n    sys.exit(3)\n"
        "print('listening on http://127.0.0.1:1', flush=True)\nsys.stdin.read()\n"
    )
    async with trio.open_nursery() as nursery:
        command = [sys.executable, str(script)]
        nursery.start_soon(functools.partial(run_worker_process, state, on_url=urls, command=command))
        assert await urls.next() == "http://127.0.0.1:1"
        nursery.cancel_scope.cancel()


async def test_a_worker_that_does_not_end_is_killed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "STOP_TIMEOUT", 0.2)
    stubborn = "import os, time; print('listening on http://x:%d' % os.getpid(), flush=True); time.sleep(999)"
    urls = Urls()
    async with trio.open_nursery() as nursery:
        command = [sys.executable, "-c", stubborn]
        nursery.start_soon(functools.partial(run_worker_process, tmp_path, on_url=urls, command=command))
        pid = int((await urls.next()).rsplit(":", 1)[1])
        nursery.cancel_scope.cancel()
    assert not is_alive(pid)


PARENT = f"""
import pathlib, sys, trio
from bridged.embedded.process import run_worker_process
async def main():
    on_url = lambda url: print(url, flush=True)
    await run_worker_process(pathlib.Path(sys.argv[1]), on_url=on_url, command={COMMAND!r})
trio.run(main)
"""


async def test_a_killed_parent_leaves_no_worker_behind(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    parent = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stderr is not None
    async with parent.stdout, parent.stderr:
        with trio.fail_after(30):
            assert (await parent.stdout.receive_some()).startswith(b"http://")
        parent.kill()
        await parent.wait()
        with trio.fail_after(10):
            # The worker has the other end of its parent's stderr: it is closed when both are gone.
            while await parent.stderr.receive_some():
                pass


async def started(base: pathlib.Path, port: int = 0) -> tuple[trio.Process, str]:
    command = [*COMMAND, "--port", str(port), "--base-directory", str(base), "--exit-with-stdin"]
    worker = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert worker.stdout is not None
    with trio.fail_after(30):
        return worker, (await worker.stdout.receive_some()).decode().strip()


@pytest.mark.parametrize("end", ["stdin", "SIGTERM", "SIGINT"])
async def test_it_ends_in_order(tmp_path: pathlib.Path, end: str) -> None:
    worker, line = await started(tmp_path / "worker")
    assert line.startswith("listening on http://127.0.0.1:")
    assert worker.stdin is not None
    if end == "stdin":
        await worker.stdin.aclose()
    else:
        worker.send_signal(signal.Signals[end])
    with trio.fail_after(10):
        assert await worker.wait() == 0
    await worker.stdin.aclose()
    assert worker.stdout is not None
    await worker.stdout.aclose()


async def test_a_port_that_is_taken_is_one_line_and_exit_code_1(tmp_path: pathlib.Path) -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    async with listener:
        port = listener.socket.getsockname()[1]
        command = [*COMMAND, "--port", str(port), "--base-directory", str(tmp_path / "worker")]
        with trio.fail_after(30):
            result = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    assert result.returncode == 1
    assert result.stdout == b""
    assert result.stderr.decode().count("\n") == 1
    assert f"cannot listen on 127.0.0.1:{port}" in result.stderr.decode()
