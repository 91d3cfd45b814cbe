"""A ledger on a disk that is really full: run by test_full_disk in a mount namespace of its own, on a small tmpfs.

Prints what it found as JSON, one line per step.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import trio

from bridged.errors import BridgedError, OutOfSpace
from bridged.model import AttemptState
from bridged.store import sqlite
from bridged.store.ledger import AttemptMoved, JobAdded, JobFacts, ended, moved
from tests.store.samples import FULL_FACTS, job, job_ids, log_of, reloaded

RESERVE = 3_000_000


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def fill(folder: Path) -> Path:
    filler = folder / "filler"
    with open(filler, "ab", buffering=0) as file:
        for block in (65536, 4096, 1):
            try:
                while True:
                    file.write(b"x" * block)
            except OSError:
                pass
    return filler


def is_full(ledger: sqlite.SqliteLedger) -> bool:
    try:
        ledger.refuse_if_full()
    except OutOfSpace:
        return True
    return False


async def main(folder: Path) -> None:
    sqlite.RETRY = 0.02
    path = folder / "ledger.sqlite3"
    ledger = sqlite.SqliteLedger(path, reserve=RESERVE)
    ledger.open()
    open_jobs = [str(number) for number in range(20)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ledger.run)
        ledger.write(*(JobAdded(job(name)) for name in open_jobs))
        ledger.write(*(AttemptMoved(log_of(name)) for name in open_jobs))
        await ledger.durable()
        say(step="room", full=is_full(ledger), reserve=(folder / "reserve").stat().st_size)

        filler = fill(folder)
        accepted = 0
        while not is_full(ledger):
            ledger.write(JobAdded(job(f"more {accepted}", alias="x" * 10_000)))
            try:
                await ledger.durable()
            except OutOfSpace:
                break
            accepted += 1
        say(step="full", full=is_full(ledger), reserve=(folder / "reserve").exists(), accepted=accepted > 0)

        for name in open_jobs:
            ledger.write(AttemptMoved(ended(log_of(name), AttemptState.SUCCEEDED, 9.0)))
            ledger.write(moved(name, JobFacts(), FULL_FACTS))
            await ledger.durable()
        say(step="books", full=is_full(ledger), known=len(job_ids(path)) == len(open_jobs) + accepted)

        filler.unlink()
        with trio.fail_after(5):
            while is_full(ledger):
                await trio.sleep(0.01)
        ledger.write(JobAdded(job("after")))
        await ledger.durable()
        say(step="room again", full=is_full(ledger), reserve=(folder / "reserve").stat().st_size)
        nursery.cancel_scope.cancel()
    ledger.close()
    found = reloaded(path)
    say(step="reloaded", ended=sum(each.facts == FULL_FACTS for each in found.jobs), last=found.jobs[-1].job.id)
    await trio.run_process(["mount", "-o", "remount,ro", str(folder)], check=True)
    try:
        sqlite.SqliteLedger(path, reserve=RESERVE).open()
    except BridgedError as error:
        say(step="read-only", said=str(error))


logging.disable()
trio.run(main, Path(sys.argv[1]))
