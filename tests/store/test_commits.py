"""When changes are safe, who is told, and what it costs: commits shared, and nothing said before its time."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import pytest
import trio
import trio.testing

from bridged.errors import StorageFailed
from bridged.model import JobState
from bridged.store import rows as sql
from bridged.store import sqlite
from bridged.store.ledger import Change, JobAdded, JobFacts, JobStarted, ProgressSeen, UploadAdded, moved
from bridged.store.sqlite import LeaseLost, SqliteLedger
from tests.store.samples import commits, job, job_ids, opened, pragma, reloaded, rows, upload

Durability = Literal["process", "power"]
MODES: list[Durability] = ["process", "power"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


@asynccontextmanager
async def running(path: Path, durability: Durability = "process") -> AsyncIterator[SqliteLedger]:
    ledger = opened(path, durability=durability)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ledger.run)
            with trio.fail_after(10):
                yield ledger
            nursery.cancel_scope.cancel()
    finally:
        ledger.close()


@pytest.mark.parametrize(("durability", "level"), [("process", 1), ("power", 2)])
def test_the_durability_is_sqlites_synchronous_level(path: Path, durability: Durability, level: int) -> None:
    ledger = opened(path, durability=durability)
    assert (pragma(ledger, "synchronous"), pragma(ledger, "journal_mode")) == (level, "wal")
    assert pragma(ledger, "wal_autocheckpoint") == 0, "else a commit on the event loop costs an fsync now and then"
    ledger.close()


async def test_with_power_many_submissions_share_few_commits(path: Path) -> None:
    async with running(path, "power") as ledger:
        made = commits(ledger)
        early: list[str] = []

        async def submit(name: str) -> None:
            ledger.write(JobAdded(job(name)))
            await ledger.durable()
            if len(made) < 3 and name not in job_ids(path):
                early.append(name)

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(submit, str(number))
        assert early == []
        assert len(job_ids(path)) == 200
        assert len(made) <= 5


async def test_with_power_what_comes_during_a_commit_shares_the_next(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = trio.Event(), threading.Event()
    real = sql.Rows.execute

    def held(*arguments: object) -> None:
        trio.from_thread.run_sync(begun.set)
        assert go_on.wait(10)
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(sql.Rows, "execute", held)
    async with running(path, "power") as ledger, trio.open_nursery() as nursery:
        made = commits(ledger)
        ledger.write(JobAdded(job("first")))
        nursery.start_soon(ledger.durable)
        await begun.wait()
        for number in range(50):
            ledger.write(JobAdded(job(str(number))))
            nursery.start_soon(ledger.durable)
        await trio.testing.wait_all_tasks_blocked()
        assert (made, job_ids(path)) == ([], [])
        go_on.set()
        await ledger.durable()
        assert len(made) == 2
        assert len(job_ids(path)) == 51


async def test_in_process_mode_what_came_together_is_one_commit(path: Path) -> None:
    async with running(path) as ledger:
        made = commits(ledger)
        for number in range(100):
            ledger.write(JobAdded(job(str(number))))
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(ledger.durable)
        assert len(made) == 1
        assert len(job_ids(path)) == 100
        await ledger.durable()
        assert len(made) == 1, "nothing new, no commit"


@pytest.mark.parametrize("durability", MODES)
async def test_more_than_many_at_once(path: Path, durability: Durability) -> None:
    async with running(path, durability) as ledger:
        ledger.write(*(JobAdded(job(str(number))) for number in range(sqlite.MANY + 50)))
        ledger.write(JobAdded(job("last")))
        await ledger.durable()
        assert job_ids(path) == [*map(str, range(sqlite.MANY + 50)), "last"]


async def test_changes_that_nobody_waits_for_share_a_commit(path: Path) -> None:
    async with running(path) as ledger:
        made = commits(ledger)
        for _ in range(5):
            ledger.write(JobStarted("j"))
            await trio.testing.wait_all_tasks_blocked(0.001)
        assert made == []
        with trio.fail_after(5):
            while ledger._pending:
                await trio.sleep(sqlite.TOGETHER / 5)
        assert len(made) == 1


@pytest.mark.parametrize("durability", MODES)
@pytest.mark.parametrize("waits", ["durable", "committed"])
async def test_who_waits_is_told_after_the_commit(path: Path, durability: Durability, waits: str) -> None:
    async with running(path, durability) as ledger:
        for name in ("a", "b"):
            ledger.write(JobAdded(job(name)))
            assert name not in job_ids(path)
            await getattr(ledger, waits)()
            assert job_ids(path)[-1] == name


@pytest.mark.parametrize("durability", MODES)
@pytest.mark.parametrize("waits", ["durable", "committed", "after_commit"])
async def test_who_waits_does_not_wait_for_company(
    path: Path, durability: Durability, waits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "TOGETHER", 3600.0)
    async with running(path, durability) as ledger:
        for name in ("a", "b"):
            ledger.write(JobAdded(job(name)))
            if waits == "after_commit":
                told = trio.Event()
                ledger.after_commit(told.set)
                await told.wait()
            else:
                await getattr(ledger, waits)()


# -- after the commit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", MODES)
async def test_calls_come_after_their_commit_and_in_their_order(path: Path, durability: Durability) -> None:
    told: list[str] = []
    all_told = trio.Event()

    def tell(name: str) -> Callable[[], None]:
        def call() -> None:
            assert name in job_ids(path), f"{name} was told before it was safe"
            told.append(name)
            if len(told) == 30:
                all_told.set()

        return call

    async with running(path, durability) as ledger:
        for number in range(30):
            name = str(number)
            ledger.write(JobAdded(job(name)))
            ledger.after_commit(tell(name))
            assert name not in told
            if number % 7 == 0:
                await trio.testing.wait_all_tasks_blocked()
        await all_told.wait()
        assert told == [*map(str, range(30))]


async def test_a_call_about_what_is_safe_already_is_made_at_once(path: Path) -> None:
    async with running(path) as ledger:
        told: list[int] = []
        ledger.after_commit(lambda: told.append(1))
        assert told == [1]
        ledger.write(JobStarted("j"))
        ledger.after_commit(lambda: told.append(2))
        assert told == [1]
        await ledger.durable()
        assert told == [1, 2]


async def test_calls_are_made_before_those_who_wait_go_on(path: Path) -> None:
    """Who is told by a call, and asks, finds what the answer to a waiting request says."""
    async with running(path, "power") as ledger:
        told: list[str] = []
        ledger.write(JobAdded(job("j")))
        ledger.after_commit(lambda: told.append("call"))
        await ledger.durable()
        assert told == ["call"]


async def test_changes_written_by_a_call_are_committed_too(path: Path) -> None:
    async with running(path) as ledger:
        ledger.write(JobAdded(job("a")))
        ledger.after_commit(lambda: ledger.write(JobAdded(job("b"))))
        await ledger.durable()
        await ledger.durable()
        assert job_ids(path) == ["a", "b"]


# -- changes that cannot be made -------------------------------------------------------------------------------------


BAD: dict[str, Change] = {
    "IntegrityError": JobAdded(job("twice")),
    "ProgrammingError": JobAdded(job({"no": "text"})),  # type: ignore[arg-type]
    "NOT NULL": ProgressSeen("twice", None),  # type: ignore[arg-type]
    "UnicodeEncodeError": JobAdded(job("half", alias="\ud800")),
}


@pytest.mark.parametrize("durability", MODES)
@pytest.mark.parametrize("bad", BAD)
async def test_a_change_that_never_succeeds_does_not_hold_up_the_others(
    path: Path, durability: Durability, bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(path, durability) as ledger:
        ledger.write(JobAdded(job("twice")), JobAdded(job("before")), BAD[bad], JobAdded(job("after")))
        ledger.write(BAD[bad])
        await ledger.durable()
        ledger.write(UploadAdded(upload("later")))
        await ledger.durable()
        ledger.refuse_if_full()
    found = reloaded(path)
    assert [each.job.id for each in found.jobs] == ["twice", "before", "after"]
    assert found.jobs[0].percent == 0
    assert found.uploads == (upload("later"),)
    assert "the ledger cannot take a" in caplog.text or bad == "NOT NULL"


@pytest.mark.parametrize("durability", MODES)
async def test_changes_that_came_together_are_made_together_or_not_at_all(
    path: Path, durability: Durability, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "RETRY", 0.01)
    async with running(path, durability) as ledger:
        assert ledger._connection is not None
        ledger._connection.execute("ALTER TABLE uploads RENAME TO away")  # an error that is not the changes' own
        ledger.write(JobAdded(job("j")), UploadAdded(upload("u")), JobStarted("j"))
        with pytest.raises(StorageFailed):
            await ledger.durable()
        assert job_ids(path) == []
        assert not ledger._connection.in_transaction
        ledger._connection.execute("ALTER TABLE away RENAME TO uploads")
        await ledger.committed()
    found = reloaded(path)
    assert ([each.job.id for each in found.jobs], found.uploads) == (["j"], (upload("u"),))
    assert rows(path, "SELECT value FROM counters") == [1]


# -- slow disks ------------------------------------------------------------------------------------------------------


async def test_a_disk_that_turned_out_slow_gets_its_work_in_threads(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[bool] = []
    real = sql.Rows.execute

    def noting(*arguments: object) -> None:
        threads.append(threading.current_thread() is not threading.main_thread())
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(sql.Rows, "execute", noting)
    async with running(path) as ledger:
        for number in range(2):
            ledger.write(JobAdded(job(f"quick {number}")))
            await ledger.durable()
        monkeypatch.setattr(sqlite, "PATIENCE", -1.0)
        ledger.write(JobAdded(job("slow")))
        await ledger.durable()
        monkeypatch.undo()
        monkeypatch.setattr(sql.Rows, "execute", noting)
        for number in range(2):
            ledger.write(JobAdded(job(f"after {number}")))
            await ledger.durable()
        assert threads == [False, False, False, True, True]
        ledger._slow_until = 0.0  # a minute later
        ledger.write(JobAdded(job("quick again")))
        await ledger.durable()
        assert threads[-1] is False
    assert len(job_ids(path)) == 6


async def test_nothing_is_lost_when_the_writer_is_cancelled_during_a_commit(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = trio.Event(), threading.Event()
    real = sql.Rows.execute

    def held(*arguments: object) -> None:
        trio.from_thread.run_sync(begun.set)
        assert go_on.wait(10)
        real(*arguments)  # type: ignore[arg-type]

    ledger = opened(path, durability="power")
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            monkeypatch.setattr(sql.Rows, "execute", held)
            nursery.start_soon(ledger.run)
            ledger.write(JobAdded(job("a")))
            await begun.wait()
            ledger.write(JobAdded(job("b")), moved("a", JobFacts(), JobFacts(state=JobState.FAILED)))
            nursery.cancel_scope.cancel()
            go_on.set()
    monkeypatch.undo()
    ledger.close()
    found = reloaded(path)
    assert [(each.job.id, each.facts.state) for each in found.jobs] == [("a", "failed"), ("b", "queued")]


# -- leases and the log ----------------------------------------------------------------------------------------------


async def test_a_lease_that_another_took_ends_the_writer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "LEASE", 0.03)
    monkeypatch.setattr(sqlite, "RETRY", 0.005)
    ledger = opened(path)
    other: SqliteLedger | None = None
    try:
        with trio.fail_after(10), pytest.raises(ExceptionGroup) as ended:  # noqa: PT012 - what ends is a nursery
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ledger.run)
                ledger.write(JobAdded(job("j")))
                await ledger.durable()
                for _ in range(3):  # while it is alone it is renewed
                    until = expiry(path)
                    while expiry(path) == until:
                        await trio.sleep(0.005)
                other = opened(path)
        assert ended.group_contains(LeaseLost)
    finally:
        ledger.close()
        assert other is not None
        other.close()


def expiry(path: Path) -> float:
    (at,) = rows(path, "SELECT expires_at FROM owners")
    return float(at)


async def test_the_write_ahead_log_is_moved_into_the_database_while_commits_go_on(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sqlite, "RETRY", 0.005)
    monkeypatch.setattr(sqlite, "CHECKPOINT", 100_000)
    caplog.set_level(logging.WARNING)
    async with running(path) as ledger:
        size = path.stat().st_size
        number = 0
        while path.stat().st_size == size:
            ledger.write(JobAdded(job(str(number), alias="x" * 5000)))
            await ledger.durable()
            await trio.lowlevel.checkpoint()
            number += 1
    assert job_ids(path) == [*map(str, range(number))]
    assert caplog.records == []
