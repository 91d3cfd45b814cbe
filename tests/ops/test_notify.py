"""sd_notify over a real datagram socket, as systemd would hold it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.socket as trio_socket

from bridged.ops import notify


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The service manager's end; NOTIFY_SOCKET points at it."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        monkeypatch.delenv("WATCHDOG_USEC", raising=False)
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        yield sock


def lines(sock: socket.socket) -> list[str]:
    return sock.recv(4096).decode().split("\n")


def test_ready_and_stopping(manager: socket.socket) -> None:
    assert notify.ready()
    assert lines(manager)[0] == "READY=1"
    assert notify.stopping()
    assert lines(manager)[0] == "STOPPING=1"


def test_a_reload_is_announced_with_the_monotonic_time(manager: socket.socket) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert notify.reloading()
    first, second = lines(manager)
    assert first == "RELOADING=1"
    name, _, value = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert 0 <= int(value) - before < 60_000_000


def test_one_datagram_has_all_lines(manager: socket.socket) -> None:
    assert notify.notify("STATUS=läuft", "X=1")
    assert lines(manager) == ["STATUS=läuft", "X=1"]


def test_an_abstract_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("")  # the kernel chooses an abstract name
        sock.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + sock.getsockname()[1:].decode())
        assert notify.ready()
        assert lines(sock)[0] == "READY=1"


def test_without_a_manager_nothing_is_said_and_nothing_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify.ready()
    monkeypatch.setenv("NOTIFY_SOCKET", "")
    assert not notify.ready()
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert not notify.ready()
    monkeypatch.setenv("NOTIFY_SOCKET", "/" + "x" * 200)
    assert not notify.ready()


def test_a_manager_that_does_not_listen_never_blocks_the_daemon(manager: socket.socket) -> None:
    sent = 0
    while notify.ready():
        sent += 1
        assert sent < 100_000
    assert sent > 0


async def test_the_watchdog_is_fed_for_as_long_as_the_loop_turns(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    received = trio_socket.from_stdlib_socket(manager.dup())
    with received, trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(notify.watchdog)
            for _ in range(3):
                assert await received.recv(100) == b"WATCHDOG=1"
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("environ", [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}])
async def test_no_watchdog_no_feeding(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with trio.fail_after(5):
        await notify.watchdog()
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(100)
