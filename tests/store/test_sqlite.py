"""What survives the daemon: the count and the installation's identity."""

from __future__ import annotations

import sqlite3
import uuid
from pathlib import Path

import pytest
import trio

from bridged.errors import BridgedError
from bridged.store.ledger import JobStarted, Ledger
from bridged.store.sqlite import SqliteLedger


def opened(path: Path) -> SqliteLedger:
    ledger = SqliteLedger(path)
    ledger.open()
    return ledger


def saved(path: Path) -> int:
    """The count that another process would find now."""
    connection = sqlite3.connect(path)
    try:
        row = connection.execute("SELECT value FROM counters WHERE name = 'started'").fetchone()
    finally:
        connection.close()
    return row[0] if row else 0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.sqlite3"


def test_the_count_survives_a_restart(path: Path) -> None:
    for expected in (0, 3, 6):
        ledger: Ledger = opened(path)
        assert ledger.generation_count == expected
        for _ in range(3):
            ledger.write(JobStarted("a job"))
        assert ledger.generation_count == expected + 3
        assert isinstance(ledger, SqliteLedger)
        ledger.close()
    assert saved(path) == 9


def test_the_identity_stays_and_is_each_installations_own(path: Path, tmp_path: Path) -> None:
    first, again, other = opened(path), SqliteLedger(path), opened(tmp_path / "other.sqlite3")
    first.close()
    again.open()
    assert first.instance_id == again.instance_id != other.instance_id
    assert uuid.UUID(hex=first.instance_id).hex == first.instance_id
    again.close()
    other.close()


def test_closing_twice_is_no_error(path: Path) -> None:
    ledger = opened(path)
    ledger.close()
    ledger.close()
    SqliteLedger(path).close()


async def test_the_writer_commits_while_the_daemon_runs(path: Path) -> None:
    ledger = opened(path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ledger.run)
        for _ in range(500):
            ledger.write(JobStarted("a job"))
        with trio.fail_after(5):
            while saved(path) != 500:
                await trio.lowlevel.checkpoint()
        ledger.write(JobStarted("a job"))
        nursery.cancel_scope.cancel()
    assert ledger.generation_count == 501
    ledger.close()
    assert saved(path) == 501, "what came after the last commit is saved at the end"


async def test_a_kill_after_a_commit_loses_nothing_of_it(path: Path) -> None:
    ledger = opened(path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ledger.run)
        ledger.write(JobStarted("a job"))
        with trio.fail_after(5):
            while saved(path) != 1:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    after = opened(path)  # the first was never closed
    assert after.generation_count == 1
    after.close()
    ledger.close()


@pytest.mark.parametrize("content", [b"no database at all, but long enough to look at " * 30, None])
def test_a_file_that_cannot_be_used_is_said_with_its_path(path: Path, content: bytes | None) -> None:
    path.parent.mkdir(parents=True)
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(BridgedError) as refused:
        opened(path)
    assert str(path) in str(refused.value)
    assert "cannot be used" in str(refused.value)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BridgedError, match="cannot be used"):
        opened(tmp_path / "file" / "ledger.sqlite3")


def test_the_state_folder_is_not_everyones(path: Path) -> None:
    opened(path).close()
    assert path.parent.stat().st_mode & 0o077 == 0
