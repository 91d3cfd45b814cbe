"""A disk that is full, read-only or away: new work is refused, the books go on, and it recovers by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from bridged.errors import OutOfSpace, StorageFailed
from bridged.store import sqlite
from bridged.store.ledger import JobAdded, JobStarted
from bridged.store.space import Reserve
from bridged.store.sqlite import SqliteLedger
from tests.store.samples import RESERVE, job, job_ids, opened, pragma

ROOT = Path(__file__).parents[2]


class Disk:
    """How much room a `Reserve` finds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = 1 << 40
        real = os.statvfs

        def statvfs(path: Any) -> Any:
            found = real(path)
            return type("Statvfs", (), {"f_bavail": self.free, "f_frsize": 1, "f_bsize": found.f_bsize})

        monkeypatch.setattr("bridged.store.space.os.statvfs", statvfs)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


@asynccontextmanager
async def running(path: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> AsyncIterator[SqliteLedger]:
    monkeypatch.setattr(sqlite, "RETRY", 0.01)
    ledger = opened(path, **options)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ledger.run)
            with trio.fail_after(10):
                yield ledger
            nursery.cancel_scope.cancel()
    finally:
        ledger.close()


# -- the reserve -----------------------------------------------------------------------------------------------------


def test_the_reserve_occupies_its_room_and_is_kept_over_restarts(tmp_path: Path, disk: Disk) -> None:
    file = tmp_path / "reserve"
    assert Reserve(file, RESERVE).take()
    assert file.stat().st_blocks * 512 >= RESERVE, "a sparse file reserves nothing"
    assert file.stat().st_mode & 0o077 == 0
    disk.free = 0
    again = Reserve(file, RESERVE)
    assert again.take()
    assert not again.spent
    again.give_up()
    assert again.spent
    assert not file.exists()
    assert not again.take()
    disk.free = 2 * RESERVE - 1
    assert not again.take()
    disk.free += 1
    assert again.take()
    assert not again.spent
    assert file.stat().st_size == RESERVE


def test_a_reserve_of_another_size_is_made_anew(tmp_path: Path, disk: Disk) -> None:
    file = tmp_path / "reserve"
    assert Reserve(file, RESERVE).take()
    for size in (2 * RESERVE, 3 * RESERVE):
        assert Reserve(file, size).take()
        assert file.stat().st_size == size


def test_where_it_cannot_be_made_it_counts_as_spent(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "nowhere" / "reserve", RESERVE)
    assert not reserve.take()
    assert reserve.spent


async def test_too_little_room_for_the_reserve_is_a_full_disk(
    path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.free = RESERVE
    async with running(path, monkeypatch) as ledger:
        with pytest.raises(OutOfSpace):
            ledger.refuse_if_full()
        ledger.write(JobStarted("j"))
        await ledger.durable()
        disk.free = 2 * RESERVE
        await recovered(ledger)


async def recovered(ledger: SqliteLedger) -> None:
    while True:
        try:
            ledger.refuse_if_full()
        except (OutOfSpace, StorageFailed):
            await trio.sleep(0.005)
        else:
            return


# -- SQLite says that it is full -------------------------------------------------------------------------------------


async def test_the_reserve_is_given_up_for_what_was_accepted(
    path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(path, monkeypatch) as ledger:
        pages = pragma(ledger, "page_count")
        given_up = ledger._reserve.give_up
        monkeypatch.setattr(
            ledger._reserve, "give_up", lambda: (given_up(), pragma(ledger, f"max_page_count = {pages + 100}"))
        )
        pragma(ledger, f"max_page_count = {pages}")
        disk.free = 0
        ledger.write(JobAdded(job("j", alias="x" * 20_000)))
        await ledger.durable()
        assert job_ids(path) == ["j"], "it was acknowledged"
        with pytest.raises(OutOfSpace):
            ledger.refuse_if_full()
        ledger.write(JobStarted("j"))
        await ledger.durable()
        assert caplog.text.count("the disk is full") == 1
        disk.free = 1 << 40
        await recovered(ledger)
    assert "there is room on the disk again" in caplog.text


@pytest.mark.parametrize("durability", ["process", "power"])
async def test_with_the_reserve_spent_nothing_is_acknowledged_and_nothing_forgotten(
    path: Path, disk: Disk, durability: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    async with running(path, monkeypatch, durability=durability) as ledger:
        pages = pragma(ledger, "page_count")
        pragma(ledger, f"max_page_count = {pages}")
        disk.free = 0
        for number in range(3):
            ledger.write(JobAdded(job(str(number), alias="x" * 20_000)))
            ledger.after_commit(partial(told.append, str(number)))
            with pytest.raises(OutOfSpace):
                await ledger.durable()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ledger.committed)
            with pytest.raises(OutOfSpace):
                ledger.refuse_if_full()
            assert (told, job_ids(path)) == ([], [])
            pragma(ledger, f"max_page_count = {pages + 100}")
            disk.free = 1 << 40
        assert (told, job_ids(path)) == (["0", "1", "2"], ["0", "1", "2"])
        await recovered(ledger)
        assert caplog.text.count("the state file cannot be written") == 1
        assert caplog.text.count("the state file can be written again") == 1
        ledger.write(JobAdded(job("3")))
        await ledger.durable()


@pytest.mark.parametrize("durability", ["process", "power"])
async def test_a_file_that_became_read_only(path: Path, durability: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(path, monkeypatch, durability=durability) as ledger:
        pragma(ledger, "query_only = ON")
        ledger.write(JobAdded(job("j")))
        with pytest.raises(StorageFailed):
            await ledger.durable()
        with pytest.raises(StorageFailed):
            ledger.refuse_if_full()
        assert not ledger._reserve.spent, "there is room enough"
        pragma(ledger, "query_only = OFF")
        await ledger.committed()
        ledger.refuse_if_full()
        assert job_ids(path) == ["j"]


async def test_closing_a_ledger_that_cannot_be_written_ends(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(path, monkeypatch) as ledger:
        pragma(ledger, "query_only = ON")
        ledger.write(JobAdded(job("j")))
    assert job_ids(path) == []


# -- a real small disk -----------------------------------------------------------------------------------------------


def in_namespace(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    mount = 'mount -t tmpfs -o size=8m none "$1"'
    try:
        possible = in_namespace(mount, str(tmp_path)).returncode == 0
    except OSError:
        possible = False
    if not possible:
        pytest.skip("no mount namespaces here")
    done = in_namespace(f'{mount} && exec "$2" -m tests.store.small_disk "$1"', str(tmp_path), sys.executable)
    assert done.returncode == 0, done.stderr
    steps = {facts.pop("step"): facts for facts in map(json.loads, done.stdout.splitlines())}
    said = steps.pop("read-only")["said"]
    assert steps == {
        "room": {"full": False, "reserve": 3_000_000},
        "full": {"full": True, "reserve": False, "accepted": True},
        "books": {"full": True, "known": True},
        "room again": {"full": False, "reserve": 3_000_000},
        "reloaded": {"ended": 20, "last": "after"},
    }
    assert f"the state file {tmp_path}/ledger.sqlite3 cannot be used" in said
