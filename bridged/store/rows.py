"""The ledger's changes as SQL, and its rows as values: what of it is SQLite's and not the writer's."""

from __future__ import annotations

import logging
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from bridged.model import AttemptLog, FileInput, Graph, Job, Upload
from bridged.store.ledger import (
    AttemptMoved,
    Change,
    ClientConnected,
    DeliveryAdded,
    DeliveryMoved,
    JobAdded,
    JobFacts,
    JobMoved,
    JobsForgotten,
    JobStarted,
    ProgressSeen,
    ResultFetched,
    Saved,
    SavedDelivery,
    SavedJob,
    UploadAdded,
    UploadsForgotten,
)

log = logging.getLogger(__name__)

MIGRATIONS = (
    """
    CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS identity (name TEXT PRIMARY KEY, value TEXT NOT NULL);
    """,
    """
    CREATE TABLE owners (id TEXT PRIMARY KEY, expires_at REAL NOT NULL);
    CREATE TABLE jobs (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, state TEXT NOT NULL,
        prompt_id TEXT, facts BLOB NOT NULL, spec BLOB NOT NULL, work BLOB, percent REAL NOT NULL DEFAULT 0,
        fetched INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE attempts (
        prompt_id TEXT PRIMARY KEY, job_id TEXT NOT NULL, number INTEGER NOT NULL, ended INTEGER NOT NULL,
        log BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX attempts_of_job ON attempts (job_id);
    CREATE TABLE uploads (token TEXT PRIMARY KEY, upload BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE connected (client_id TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE deliveries (
        id TEXT PRIMARY KEY, delivery BLOB NOT NULL, tries INTEGER NOT NULL, due_at REAL NOT NULL
    ) WITHOUT ROWID;
    """,
)
"""Each takes the schema one version further; `PRAGMA user_version` counts those that were applied. Never edit one that
was released: append."""


class _Work(msgspec.Struct, frozen=True):
    """What a job is made of: not needed any more once it has ended."""

    graph: Graph
    files: tuple[FileInput, ...]


T = TypeVar("T")


def migrate(connection: sqlite3.Connection) -> None:
    """Brings the schema up to date, whole or not at all. Raises sqlite3.Error, ValueError: a newer version wrote it."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise ValueError(f"it was written by a newer bridged (schema {version}, this one knows {len(MIGRATIONS)})")
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")


class Rows:
    """Changes and rows of one ledger. Paths below `base`, its folder, are kept relative to it: a state folder may be
    moved as a whole."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._encode = msgspec.json.Encoder(enc_hook=self._relative).encode
        self._job, self._work = self._decoder(Job), self._decoder(_Work)
        self._facts, self._attempt = self._decoder(JobFacts), self._decoder(AttemptLog)
        self._upload, self._delivery = self._decoder(Upload), self._decoder(DeliveryAdded)

    def _relative(self, path: Path) -> str:
        return str(path.relative_to(self._base) if path.is_relative_to(self._base) else path)

    def _absolute(self, kind: type, value: Any) -> Any:
        if kind is Path:
            return self._base / value
        raise NotImplementedError(kind)

    def _decoder(self, kind: type[T]) -> Callable[[bytes], T]:
        return msgspec.json.Decoder(kind, dec_hook=self._absolute).decode

    def execute(self, connection: sqlite3.Connection, owner: str, change: Change) -> None:
        """Carries out one change inside the caller's transaction. Raises sqlite3.Error."""
        run, _encode = connection.execute, self._encode
        match change:
            case JobAdded(job):
                spec = msgspec.structs.replace(job, graph={}, files=())
                run(
                    "INSERT INTO jobs (id, owner, state, facts, spec, work) VALUES (?, ?, 'queued', ?, ?, ?)",
                    (job.id, owner, _encode(JobFacts()), _encode(spec), _encode(_Work(job.graph, job.files))),
                )
            case JobMoved(job_id, before, before_prompt, facts):
                cursor = run(
                    "UPDATE jobs SET state = ?, prompt_id = ?, facts = ?, work = CASE WHEN ? THEN NULL ELSE work END "
                    "WHERE id = ? AND state = ? AND prompt_id IS ? AND owner = ?",
                    (
                        *(facts.state.value, facts.prompt_id, _encode(facts), facts.state.terminal),
                        *(job_id, before.value, before_prompt, owner),
                    ),
                )
                if cursor.rowcount != 1:
                    log.error("the ledger refused job %s from %s to %s: it is elsewhere", job_id, before, facts.state)
            case AttemptMoved(entry):
                run(
                    "INSERT INTO attempts VALUES (?, ?, ?, ?, ?) ON CONFLICT (prompt_id) DO UPDATE "
                    "SET ended = excluded.ended, log = excluded.log WHERE ended = 0",
                    (
                        *(entry.attempt.prompt_id, entry.attempt.job_id, entry.attempt.number),
                        *(entry.state.terminal, _encode(entry)),
                    ),
                )
            case ProgressSeen(job_id, percent):
                run("UPDATE jobs SET percent = ? WHERE id = ? AND percent < ?", (percent, job_id, percent))
            case ResultFetched(job_id):
                run("UPDATE jobs SET fetched = 1 WHERE id = ?", (job_id,))
            case JobsForgotten(job_ids):
                for job_id in job_ids:
                    run("DELETE FROM jobs WHERE id = ?", (job_id,))
                    run("DELETE FROM attempts WHERE job_id = ?", (job_id,))
            case UploadAdded(upload):
                run("INSERT INTO uploads VALUES (?, ?)", (upload.token, _encode(upload)))
            case UploadsForgotten(tokens):
                connection.executemany("DELETE FROM uploads WHERE token = ?", [(token,) for token in tokens])
            case ClientConnected(client_id, True):
                run("INSERT OR IGNORE INTO connected VALUES (?)", (client_id,))
            case ClientConnected(client_id, _):
                run("DELETE FROM connected WHERE client_id = ?", (client_id,))
            case JobStarted():
                run("INSERT INTO counters VALUES ('started', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1")
            case DeliveryAdded():
                run("INSERT INTO deliveries VALUES (?, ?, 0, ?)", (change.id, _encode(change), change.due_at))
            case DeliveryMoved(delivery_id, _, None):
                run("DELETE FROM deliveries WHERE id = ?", (delivery_id,))
            case DeliveryMoved(delivery_id, tries, due_at):
                run("UPDATE deliveries SET tries = ?, due_at = ? WHERE id = ?", (tries, due_at, delivery_id))

    def read(self, connection: sqlite3.Connection) -> Saved:
        """Everything there is. A row that cannot be read is logged and left alone: it does not keep the rest from going
        on. Raises sqlite3.Error."""
        attempts: defaultdict[str, list[AttemptLog]] = defaultdict(list)
        for job_id, blob in connection.execute("SELECT job_id, log FROM attempts ORDER BY number"):
            attempts[job_id].extend(_readable("an attempt", self._attempt, blob))

        def job(row: tuple[Any, ...]) -> SavedJob:
            job_id, facts, spec, work, percent, fetched = row
            whole = self._job(spec)
            if work is not None:
                parts = self._work(work)
                whole = msgspec.structs.replace(whole, graph=parts.graph, files=parts.files)
            return SavedJob(whole, self._facts(facts), percent, bool(fetched), tuple(attempts[job_id]))

        rows = connection.execute("SELECT id, facts, spec, work, percent, fetched FROM jobs ORDER BY seq")
        jobs = [found for row in rows for found in _readable("a job", job, row)]
        rows = connection.execute("SELECT upload FROM uploads")
        uploads = [found for (blob,) in rows for found in _readable("an upload", self._upload, blob)]
        rows = connection.execute("SELECT delivery, tries, due_at FROM deliveries ORDER BY due_at")
        deliveries = [
            SavedDelivery(msgspec.structs.replace(found, due_at=due_at), tries)
            for blob, tries, due_at in rows
            for found in _readable("a delivery", self._delivery, blob)
        ]
        connected = frozenset(client_id for (client_id,) in connection.execute("SELECT client_id FROM connected"))
        return Saved(tuple(jobs), tuple(uploads), connected, tuple(deliveries))


def _readable(what: str, decode: Callable[[Any], T], row: Any) -> Sequence[T]:
    try:
        return [decode(row)]
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        log.error("the ledger has %s that cannot be read; it is left out: %s", what, error)
        return []
