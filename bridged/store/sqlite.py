"""The embedded ledger: SQLite in the state folder, one writer, many changes per commit.

With `durability = "process"` a commit is a write to the kernel (WAL, synchronous = NORMAL): it outlives the daemon's
death at any moment, not the machine's. It takes about 20 us, where a hop into a thread takes 100 us and more
(measured), so it is made right on the event loop, unless the disk turned out to be slow. With "power" each commit is
an fsync (synchronous = FULL), in a thread: what comes in the meantime shares the next one.
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec
import trio

from bridged.errors import BridgedError, OutOfSpace, StorageFailed
from bridged.store import rows
from bridged.store.clock import Anchor, ServiceClock
from bridged.store.ledger import Change, JobStarted, Saved
from bridged.store.space import Reserve

log = logging.getLogger(__name__)

TOGETHER, RETRY = 0.05, 1.0
"""seconds: changes that nobody waits for share a commit within TOGETHER; one that failed is tried again after RETRY"""

PATIENCE, SLOW_FOR = 0.02, 60.0
"""seconds: a commit on the event loop that took longer than PATIENCE sends the next ones into threads for SLOW_FOR"""

MANY = 200
"""changes that are committed on the event loop at most (measured: 10 us each); more go into a thread"""

LEASE = 30.0
"""seconds that our jobs stay ours without a sign of life"""

CHECKPOINT, CHECKPOINT_AFTER = 4_000_000, 1000
"""bytes of write-ahead log, and changes since the last time, that are worth moving it into the database: in a thread,
it costs an fsync. The file keeps its size and is written again from its beginning."""

OURS = (
    *(sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.DataError),
    *(TypeError, ValueError, OverflowError, RecursionError),
)
"""errors of the change itself: it will never succeed, and must not hold up the others"""


class LeaseLost(BridgedError):
    """Another daemon has taken over this one's jobs: it must not touch them any more."""


class SqliteLedger:
    """`open` it first, `run` its writer, `close` it last. The connection is used by one thread at a time."""

    def __init__(
        self, path: Path, *, durability: Literal["process", "power"] = "process", reserve: int = 16_000_000
    ) -> None:
        self._path = path
        self._durability = durability
        self._reserve = Reserve(path.with_name("reserve"), reserve)
        self._rows = rows.Rows(path.parent)
        self._limiter = trio.CapacityLimiter(1)
        self._connection: sqlite3.Connection | None = None
        self._clock: ServiceClock
        self._owner = uuid.uuid4().hex
        self._count = 0
        self._pending: list[Change] = []
        self._written = self._safe = 0
        """changes that were ever taken, and that were committed"""
        self._calls: deque[tuple[int, Callable[[], object]]] = deque()
        self._some, self._urgent, self._settled = trio.Event(), trio.Event(), trio.Event()
        self._in_threads = 0
        self._slow_until = 0.0
        self._failure: BridgedError | None = None
        self.instance_id = ""
        """a UUID of this installation, the bridge's client_id on every backend, the same after each restart"""
        self.secret = b""
        """this installation's own: what is signed with it is known again after a restart"""

    # -- opening -----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Takes over everything that is there: the state folder's lock says that no former owner is alive (a shared
        store would wait for the ends of their leases). Blocking. Raises BridgedError: the file cannot be used."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                self._connection = self._connect()
            except sqlite3.Error as error:
                if not _is_full(error):
                    raise
                self._reserve.give_up()  # a full disk must not keep the service, and what it holds, from starting
                self._connection = self._connect()
        except (OSError, ValueError, sqlite3.Error) as error:
            raise BridgedError(f"the state file {self._path} cannot be used: {error}") from error
        self._reserve.take()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None, timeout=1.0)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {'FULL' if self._durability == 'power' else 'NORMAL'}")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            rows.migrate(connection)
            self._take_over(connection)
        except (ValueError, sqlite3.Error):
            connection.close()
            raise
        return connection

    def _take_over(self, connection: sqlite3.Connection) -> None:
        connection.execute("INSERT OR IGNORE INTO identity VALUES ('instance', ?)", (uuid.uuid4().hex,))
        connection.execute("INSERT OR IGNORE INTO identity VALUES ('secret', ?)", (secrets.token_hex(32),))
        known = dict(connection.execute("SELECT name, value FROM identity"))
        self.instance_id, self.secret = known["instance"], bytes.fromhex(known["secret"])
        self._clock = ServiceClock(_anchor(known.get("clock")))
        row = connection.execute("SELECT value FROM counters WHERE name = 'started'").fetchone()
        self._count = row[0] if row else 0
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM owners")
        connection.execute("INSERT INTO owners VALUES (?, ?)", (self._owner, self.now() + LEASE))
        connection.execute("UPDATE jobs SET owner = ?", (self._owner,))
        connection.execute("COMMIT")
        self._renew(connection)

    def load(self) -> Saved:
        """Everything there is. Blocking. Raises BridgedError."""
        assert self._connection is not None
        try:
            return self._rows.read(self._connection)
        except sqlite3.Error as error:
            raise BridgedError(f"the state file {self._path} cannot be read: {error}") from error

    def close(self) -> None:
        """Saves what is unsaved, if it can be. Blocking."""
        if self._connection is not None:
            self._commit_here()
            with suppress(sqlite3.Error):
                self._renew(self._connection)  # the next boot's clock begins after this
            self._connection.close()
            self._connection = None

    # -- what the interface says -------------------------------------------------------------------------------------

    @property
    def generation_count(self) -> int:
        return self._count

    def now(self) -> float:
        return self._clock.now()

    def write(self, *changes: Change) -> None:
        self._pending += changes
        self._written += len(changes)
        self._count += sum(1 for change in changes if isinstance(change, JobStarted))
        self._some.set()

    def after_commit(self, call: Callable[[], object]) -> None:
        if self._safe == self._written and not self._calls:
            call()
        else:
            self._calls.append((self._written, call))
            self._urgent.set()

    async def durable(self) -> None:
        await self._until_safe(patient=False)

    async def committed(self) -> None:
        await self._until_safe(patient=True)

    async def _until_safe(self, *, patient: bool) -> None:
        """Not `patient`: raises the failure of a commit instead of waiting for the next."""
        target = self._written
        if self._safe < target and self._may_commit_here():
            self._commit_here()
        while self._safe < target:
            if self._failure is not None and not patient:
                raise self._failure
            self._urgent.set()
            await self._settled.wait()

    def refuse_if_full(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._reserve.spent:
            raise OutOfSpace()

    # -- the writer --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. Raises LeaseLost."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write_on)
            nursery.start_soon(self._keep)

    async def _write_on(self) -> None:
        while True:
            await self._some.wait()
            with trio.move_on_after(TOGETHER):
                await self._urgent.wait()
            if self._may_commit_here():
                self._commit_here()
            else:
                await self._commit_in_thread()
            if self._failure is not None:
                await trio.sleep(RETRY)

    def _may_commit_here(self) -> bool:
        quick = self._durability == "process" and time.monotonic() >= self._slow_until
        return quick and not self._in_threads and len(self._pending) <= MANY

    def _commit_here(self) -> None:
        began = time.monotonic()
        batch = list(self._pending)
        self._done(len(batch), self._commit(batch))
        if time.monotonic() - began > PATIENCE:
            self._slow_until = time.monotonic() + SLOW_FOR

    async def _commit_in_thread(self) -> None:
        batch = list(self._pending)
        self._in_threads += 1
        try:
            error = await trio.to_thread.run_sync(self._commit, batch, limiter=self._limiter)
        finally:
            self._in_threads -= 1
        self._done(len(batch), error)

    def _done(self, size: int, error: sqlite3.Error | None) -> None:
        """The outcome of a commit: tells those who wait for it."""
        if error is None:
            if self._failure is not None:
                log.warning("the state file can be written again")
            self._failure = None
            del self._pending[:size]
            self._safe += size
        else:
            if self._failure is None:
                log.error("the state file cannot be written: %s; trying again", error)
            if _is_full(error):
                self._failure = OutOfSpace()
            else:
                self._failure = StorageFailed("the service cannot store its books now; its log says why")
        if not self._pending:
            self._some, self._urgent = trio.Event(), trio.Event()
        self._settled.set()
        self._settled = trio.Event()
        while self._calls and self._calls[0][0] <= self._safe:
            self._calls.popleft()[1]()

    # -- SQLite, in whichever thread ---------------------------------------------------------------------------------

    def _commit(self, batch: Sequence[Change]) -> sqlite3.Error | None:
        """All of it or nothing. On a full disk it is tried once more with the reserve."""
        error = self._try_commit(batch)
        if error is not None and _is_full(error) and not self._reserve.spent:
            self._reserve.give_up()
            error = self._try_commit(batch)
        return error

    def _try_commit(self, batch: Sequence[Change]) -> sqlite3.Error | None:
        connection = self._connection
        assert connection is not None
        try:
            connection.execute("BEGIN IMMEDIATE")
            for change in batch:
                try:
                    self._rows.execute(connection, self._owner, change)
                except OURS:
                    log.exception("the ledger cannot take a %s; it is left out", type(change).__name__)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            return error
        return None

    # -- keeping house -----------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Renews the lease, moves the write-ahead log into the database, wins the reserve back."""
        renew_at = trio.current_time() + LEASE / 3
        checkpointed = self._safe - CHECKPOINT_AFTER
        while True:
            await trio.sleep(RETRY)
            if self._reserve.spent:
                await trio.to_thread.run_sync(self._reserve.take, limiter=self._limiter)
                if not self._reserve.spent:
                    log.warning("there is room on the disk again: new work is taken")
            worth = self._safe - checkpointed >= CHECKPOINT_AFTER or self._reserve.spent
            if worth and self._wal_size() > (0 if self._reserve.spent else CHECKPOINT):
                checkpointed = self._safe
                await trio.to_thread.run_sync(self._checkpoint)
            if trio.current_time() >= renew_at:
                renew_at = trio.current_time() + LEASE / 3
                self._in_threads += 1
                try:
                    await trio.to_thread.run_sync(self._renew_or_fail, limiter=self._limiter)
                finally:
                    self._in_threads -= 1

    def _wal_size(self) -> int:
        try:
            return self._path.with_name(self._path.name + "-wal").stat().st_size
        except OSError:
            return 0

    def _checkpoint(self) -> None:
        """On a connection of its own, so that commits go on."""
        try:
            connection = sqlite3.connect(self._path, isolation_level=None)
            try:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            finally:
                connection.close()
        except sqlite3.Error as error:
            log.warning("the write-ahead log stays as it is: %s", error)

    def _renew_or_fail(self) -> None:
        assert self._connection is not None
        try:
            if not self._renew(self._connection):
                raise LeaseLost("another daemon has taken over this one's jobs")
        except sqlite3.Error as error:
            log.warning("the lease could not be renewed: %s", error)

    def _renew(self, connection: sqlite3.Connection) -> bool:
        anchor = msgspec.json.encode(self._clock.anchor()).decode()
        connection.execute("INSERT OR REPLACE INTO identity VALUES ('clock', ?)", (anchor,))
        cursor = connection.execute(
            "UPDATE owners SET expires_at = ? WHERE id = ?", (self.now() + LEASE, self._owner)
        )
        return cursor.rowcount == 1


def _is_full(error: sqlite3.Error) -> bool:
    """A full disk is SQLITE_FULL, or an I/O error where a file of SQLite's own cannot grow."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def _anchor(text: str | None) -> Anchor | None:
    try:
        return msgspec.json.decode(text, type=Anchor) if text else None
    except msgspec.MsgspecError:
        return None
