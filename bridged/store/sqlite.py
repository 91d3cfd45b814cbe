"""The embedded ledger: SQLite in the state folder, one writer task, many changes per commit."""

from __future__ import annotations

import logging
import sqlite3
import uuid
from pathlib import Path

import trio

from bridged.errors import BridgedError

log = logging.getLogger(__name__)

TOGETHER, RETRY = 0.05, 5.0
"""seconds: changes within TOGETHER share a commit; a write that failed is tried again after RETRY"""

SCHEMA = """
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS identity (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class SqliteLedger:
    """`open` it first, `run` its writer, `close` it last. The connection is used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._limiter = trio.CapacityLimiter(1)
        self._connection: sqlite3.Connection | None = None
        self._count = 0
        self._unsaved = trio.Event()
        self._failing = False
        self.instance_id = ""
        """a UUID of this installation, the bridge's client_id on every backend, the same after each restart"""

    def open(self) -> None:
        """Blocking. Raises BridgedError: the file cannot be used."""
        connection: sqlite3.Connection | None = None
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            connection = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(SCHEMA)
            connection.execute("INSERT OR IGNORE INTO identity VALUES ('instance', ?)", (uuid.uuid4().hex,))
            (self.instance_id,) = connection.execute("SELECT value FROM identity WHERE name = 'instance'").fetchone()
            row = connection.execute("SELECT value FROM counters WHERE name = 'started'").fetchone()
        except (OSError, sqlite3.Error) as error:
            if connection is not None:
                connection.close()
            raise BridgedError(f"the state file {self._path} cannot be used: {error}") from error
        self._count = row[0] if row else 0
        self._connection = connection

    def close(self) -> None:
        """Saves what is unsaved, if it can be. Blocking."""
        if self._connection is not None:
            self._save(self._count)
            self._connection.close()
            self._connection = None

    @property
    def generation_count(self) -> int:
        return self._count

    def count_started(self) -> None:
        self._count += 1
        self._unsaved.set()

    async def run(self) -> None:
        """The writer, until cancelled: whatever changed during one commit goes into the next."""
        while True:
            await self._unsaved.wait()
            self._unsaved = trio.Event()
            saved = await trio.to_thread.run_sync(self._save, self._count, limiter=self._limiter)
            # One commit for what comes within this time; `close` saves the last of it.
            await trio.sleep(TOGETHER if saved else RETRY)
            if not saved:
                self._unsaved.set()

    def _save(self, count: int) -> bool:
        """False where it cannot be written now (a full disk is no crash): the count goes on in memory."""
        assert self._connection is not None
        try:
            self._connection.execute("INSERT OR REPLACE INTO counters VALUES ('started', ?)", (count,))
        except sqlite3.Error as error:
            if not self._failing:
                log.error("the state file cannot be written: %s; trying again", error)
            self._failing = True
            return False
        self._failing = False
        return True
