"""Values of every kind that a ledger keeps, and how to look at a ledger's file from outside."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bridged.model import (
    Attempt,
    AttemptLog,
    AttemptState,
    Failure,
    Fault,
    FileInput,
    Grace,
    Job,
    JobState,
    Output,
    Refused,
    StoredFile,
    Upload,
)
from bridged.store.ledger import JobFacts, Saved
from bridged.store.sqlite import SqliteLedger

FILE = StoredFile(Path("/spool/uploads/ünï.file"), 7, "ab" * 32, "image/png", ".png")
OUTPUT = Output("pattern-1234-1.png", FILE)
RESERVE = 65536


def job(name: str, **more: Any) -> Job:
    given: dict[str, Any] = {
        "id": name,
        "client_id": "a client",
        "alias": "pattern",
        "graph": {"1": {"class_type": "EmptyImage", "inputs": {"seed": 2**64 + 1, "text": "ö\u2028\x00", "x": 0.1}}},
        "files": (FileInput("1", "image", FILE),),
        "requires": frozenset({"EmptyImage", "SaveImage"}),
        "created_at": 12.5,
    }
    return Job(**(given | more))


def full_job(name: str) -> Job:
    """Every field is something else than its default."""
    return job(
        name,
        disconnect=Grace(grace=30.0),
        max_runtime=60.0,
        no_progress_timeout=5.0,
        idempotency_key="a key",
        digest="cd" * 32,
        webhook="https://example.org/hook?x=1",
        metadata="strip",
        weight=2.5,
    )


FULL_FACTS = JobFacts(
    state=JobState.SUCCEEDED,
    prompt_id="prompt",
    attempts=3,
    reruns=2,
    excluded=frozenset({"pc-1", "pc-2"}),
    crashed_on=frozenset({"pc-2"}),
    signature="5 RuntimeError",
    failure=Failure(Fault.HOST, "it was “hot”", "5 RuntimeError"),
    outputs=(OUTPUT, OUTPUT),
    refused=(Refused("pattern-1234-2.png", "its end is “odd”"),),
    outputs_gone=True,
    was_started=True,
    ended_at=99.25,
)


def log_of(job_id: str, number: int = 1, state: AttemptState = AttemptState.PLACED, **more: Any) -> AttemptLog:
    return AttemptLog(Attempt(f"{job_id}-{number}", job_id, "pc-1", number), state, 3.5, **more)


def upload(token: str) -> Upload:
    return Upload(token, "a client", "ünï.png", FILE, 1000.5)


def opened(path: Path, **options: Any) -> SqliteLedger:
    ledger = SqliteLedger(path, **({"reserve": RESERVE} | options))
    ledger.open()
    return ledger


def reloaded(path: Path) -> Saved:
    """What the next run of the service would find."""
    ledger = opened(path)
    try:
        return ledger.load()
    finally:
        ledger.close()


def rows(path: Path, query: str) -> list[Any]:
    """What another process finds in the file now: the first column of the rows."""
    connection = sqlite3.connect(path)
    try:
        return [row[0] for row in connection.execute(query)]
    finally:
        connection.close()


def job_ids(path: Path) -> list[str]:
    return rows(path, "SELECT id FROM jobs ORDER BY seq")


def commits(ledger: SqliteLedger) -> list[str]:
    """Grows by one for every commit that the ledger makes from now on."""
    seen: list[str] = []
    assert ledger._connection is not None
    ledger._connection.set_trace_callback(lambda said: seen.append(said) if said == "COMMIT" else None)
    return seen


def pragma(ledger: SqliteLedger, text: str) -> Any:
    assert ledger._connection is not None
    row: Iterable[Any] | None = ledger._connection.execute(f"PRAGMA {text}").fetchone()
    return next(iter(row)) if row else None
