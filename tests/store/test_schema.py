"""Files of other versions, and rows that cannot be read."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from bridged.errors import BridgedError
from bridged.store import rows as sql
from bridged.store.ledger import (
    AttemptMoved,
    DeliveryAdded,
    JobAdded,
    JobFacts,
    JobStarted,
    Saved,
    SavedJob,
    UploadAdded,
)
from bridged.store.sqlite import SqliteLedger
from tests.store.samples import job, job_ids, log_of, opened, pragma, rows, upload

FIRST = """
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS identity (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
"""the only schema before there were versions of it"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


def first_schema(path: Path, version: int = 0) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(FIRST)
    connection.execute("INSERT INTO counters VALUES ('started', 4711)")
    connection.execute("INSERT INTO identity VALUES ('instance', 'an old identity')")
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()


@pytest.mark.parametrize("version", [0, 1])
def test_a_file_of_the_first_schema_keeps_its_count_and_its_identity(path: Path, version: int) -> None:
    first_schema(path, version)
    for count in (4711, 4712):
        ledger = opened(path)
        assert (ledger.generation_count, ledger.instance_id) == (count, "an old identity")
        assert pragma(ledger, "user_version") == len(sql.MIGRATIONS)
        ledger.write(JobStarted("j"), JobAdded(job(str(count))))
        ledger.close()
    assert job_ids(path) == ["4711", "4712"]


def test_a_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first_schema(path)
    broken = (*sql.MIGRATIONS[:1], "CREATE TABLE half (x); CREATE TABLE counters (x);")
    monkeypatch.setattr(sql, "MIGRATIONS", broken)
    with pytest.raises(BridgedError, match="cannot be used"):
        opened(path)
    assert rows(path, "PRAGMA user_version") == [1]
    assert rows(path, "SELECT name FROM sqlite_master WHERE name = 'half'") == []
    monkeypatch.undo()
    ledger = opened(path)
    assert ledger.generation_count == 4711
    ledger.close()


def test_a_file_of_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    ledger = opened(path)
    ledger.write(JobAdded(job("j")))
    ledger.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(BridgedError) as refused:
        opened(path)
    assert "written by a newer bridged (schema 99, this one knows 2)" in str(refused.value)
    assert path.read_bytes() == before
    assert sorted(each.name for each in path.parent.iterdir()) == ["ledger.sqlite3", "reserve"]


BROKEN = {
    "facts that are no JSON": ("UPDATE jobs SET facts = 'x' WHERE id = 'bad'", "a job"),
    "a state nobody knows": ("""UPDATE jobs SET facts = '{"state": "dreaming"}' WHERE id = 'bad'""", "a job"),
    "no job": ("UPDATE jobs SET spec = '{}' WHERE id = 'bad'", "a job"),
    "a number for a job": ("UPDATE jobs SET spec = 3 WHERE id = 'bad'", "a job"),
    "half a graph": ("UPDATE jobs SET work = substr(work, 1, 20) WHERE id = 'bad'", "a job"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_job_that_cannot_be_read_is_left_out_and_logged(
    path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    change, said = BROKEN[what]
    ledger = opened(path)
    ledger.write(*(JobAdded(job(name)) for name in ("a", "bad", "z")))
    ledger._commit_here()
    assert ledger._connection is not None
    ledger._connection.execute(change)
    found = ledger.load()
    ledger.close()
    assert [each.job.id for each in found.jobs] == ["a", "z"]
    assert caplog.text.count(f"the ledger has {said} that cannot be read") == 1
    assert job_ids(path) == ["a", "bad", "z"], "it stays for whoever can read it"


def test_other_rows_that_cannot_be_read_are_left_out_and_logged(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = opened(path)
    ledger.write(JobAdded(job("j")), *(AttemptMoved(log_of("j", number)) for number in (1, 2, 3)))
    ledger.write(*(UploadAdded(upload(token)) for token in "ab"))
    ledger.write(*(DeliveryAdded(name, "j", "u", b"", 1.0) for name in "de"))
    ledger._commit_here()
    assert ledger._connection is not None
    ledger._connection.executescript(
        """UPDATE attempts SET log = '[]' WHERE number = 2; UPDATE uploads SET upload = '' WHERE token = 'a';
        UPDATE deliveries SET delivery = NULL || 'x' IS NULL WHERE id = 'd';"""
    )
    found = ledger.load()
    ledger.close()
    attempts = (log_of("j", 1), log_of("j", 3))
    assert found == Saved(
        (SavedJob(job("j"), JobFacts(), 0.0, False, attempts),), (upload("b"),), frozenset(), found.deliveries
    )
    assert [each.delivery.id for each in found.deliveries] == ["e"]
    for what in ("an attempt", "an upload", "a delivery"):
        assert caplog.text.count(f"the ledger has {what} that cannot be read") == 1


def test_a_file_whose_tables_are_not_ours_cannot_be_loaded(path: Path) -> None:
    ledger = opened(path)
    assert ledger._connection is not None
    ledger._connection.execute("DROP TABLE uploads")
    with pytest.raises(BridgedError, match="cannot be read"):
        ledger.load()
    ledger.close()


def test_a_job_from_before_it_could_say_what_becomes_of_metadata_keeps_it(path: Path) -> None:
    ledger = opened(path)
    ledger.write(JobAdded(job("j", metadata="strip")))
    ledger._commit_here()
    assert ledger._connection is not None
    assert ledger.load().jobs[0].job.metadata == "strip"
    ledger._connection.execute("UPDATE jobs SET spec = json_remove(spec, '$.metadata')")
    assert ledger.load().jobs[0].job == job("j", metadata="keep")
    ledger.close()


def test_the_new_owner_takes_over_what_the_former_had(path: Path) -> None:
    former = opened(path)
    former.write(JobAdded(job("j")))
    former._commit_here()
    now: SqliteLedger = opened(path)
    assert rows(path, "SELECT DISTINCT owner FROM jobs") == rows(path, "SELECT id FROM owners")
    now.close()
    former.close()
