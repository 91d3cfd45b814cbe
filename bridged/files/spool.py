"""What is on our disk: uploads and results, under names of our own, and their removal.

Files arrive as chunks, are written by worker threads in blocks, checked, and only then get their final name. Small ones
are checked before they are written, at once under their final name: a rename costs more than the rest (75 of 129 us on
ext4). Whatever a crash leaves of either is nobody's, and removed at the next start (`prepare`).
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, TypeVar

import trio

from bridged.errors import FileRefused, OutOfSpace, StorageFailed, TooLarge
from bridged.files import clean
from bridged.files.clamd import Scanner
from bridged.files.names import bare_name, extension_of
from bridged.files.verify import Rules, is_cheap, verify
from bridged.model import StoredFile

BLOCK = 256 * 1024
"""bytes per thread hop (measured: a hop costs about 0.1 ms, as much as writing this many bytes)"""

log = logging.getLogger(__name__)

SMALL, RECENT = 64 * 1024, 8 * 1024 * 1024
"""bytes: files up to SMALL are also kept in memory for a while, RECENT of them in all"""

PATIENCE, SLOW_FOR = 0.02, 60.0
"""seconds: a write on the event loop that took longer than PATIENCE sends the next ones into threads for SLOW_FOR"""

DEEP_CHECKS = 2
"""files that are checked in threads at once: a decoded picture takes up to 4 bytes a pixel (WebP 16, PNG none),
with the default limits 400 MB (1.6 GB), and memory has to hold this many"""

R = TypeVar("R")
Area = Literal["uploads", "results"]


def stored_from_disk(path: Path, content_type: str) -> StoredFile:
    """A file that the operator put there (a workflow's default picture), as if it had been uploaded. Blocking."""
    data = path.read_bytes()
    return StoredFile(path, len(data), hashlib.sha256(data).hexdigest(), content_type, extension_of(path.name))


class Spool:
    """The spool folder. `threads` bounds its disk work, so that a burst of uploads cannot starve everything else;
    `keep_free` bytes of the disk are not for files: the ledger needs them. `fsync`: a file that was taken survives a
    loss of power."""

    def __init__(self, folder: Path, threads: int = 8, keep_free: int = 0, *, fsync: bool = False) -> None:
        self.folder = folder
        self.fsync = fsync
        self._keep_free = keep_free
        self.limiter = trio.CapacityLimiter(threads)
        self.deep = trio.CapacityLimiter(DEEP_CHECKS)
        self.scanner = Scanner()
        self._recent: OrderedDict[Path, bytes] = OrderedDict()
        self._recent_size = 0
        self._slow_until = 0.0

    def prepare(self, known: Set[Path]) -> int:
        """Makes the folders; removes what an earlier run left half-written or forgot: all but the `known` files.
        Returns how many files went. Blocking, before the service starts."""
        removed = 0
        for area in ("uploads", "results"):
            folder = self.folder / area
            folder.mkdir(parents=True, mode=0o700, exist_ok=True)
            for path in folder.iterdir():
                if path not in known:
                    path.unlink(missing_ok=True)
                    removed += 1
        return removed

    async def receive(
        self,
        area: Area,
        name: str,
        chunks: AsyncIterator[bytes],
        *,
        limit: int,
        rules: Rules,
        strip: bool = False,
        patience: float = 0.0,
    ) -> StoredFile:
        """Stores and checks one file of at most `limit` bytes; `strip` and `patience` as in `Incoming.finish`.

        Raises FileRefused, TooLarge, OutOfSpace, ScannerAway; then, and when cancelled, nothing is left on disk.
        """
        name = bare_name(name)
        async with self.incoming(area) as incoming:
            async for chunk in chunks:
                await incoming.write(chunk, limit)
            return await incoming.finish(name, rules, strip=strip, patience=patience)

    def disk_is_quick(self) -> bool:
        """Whether a small file may be written right here, on the event loop.

        A thread hop costs a job 0.5 to 1.2 ms on a busy machine, the check and the write of a small picture 0.3 ms
        (bench/overhead.py). A disk that once took longer than PATIENCE gets its work in threads for a while: the loop
        waits for a slow disk once a minute at most.
        """
        return not self.fsync and time.monotonic() >= self._slow_until

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Around disk work on the event loop: notes a disk that is slow."""
        began = time.monotonic()
        try:
            yield
        finally:
            if time.monotonic() - began > PATIENCE:
                self._slow_until = time.monotonic() + SLOW_FOR

    def remember(self, file: StoredFile, content: bytes) -> None:
        """Keeps a small file's bytes at hand until newer ones take their place: most are read at once, and once."""
        self._recent[file.path] = content
        self._recent_size += len(content)
        while self._recent_size > RECENT:
            _, oldest = self._recent.popitem(last=False)
            self._recent_size -= len(oldest)

    def recall(self, file: StoredFile) -> bytes | None:
        """The bytes of a file that was stored a moment ago, or None: then read it from disk."""
        return self._recent.get(file.path)

    def refuse_if_full(self, size: int) -> None:
        """Raises OutOfSpace: so many bytes more would leave too little. One system call, 2 us."""
        if self._keep_free:
            stat = os.statvfs(self.folder)
            if stat.f_bavail * stat.f_frsize < self._keep_free + size:
                raise OutOfSpace()

    def incoming(self, area: Area) -> Incoming:
        """A file that is arriving; for callers that get their bytes piecemeal."""
        return Incoming(self, area)

    async def discard(self, *files: StoredFile) -> None:
        """Removes files that nobody needs any more; a missing one is no error."""

        for file in files:
            self._recent_size -= len(self._recent.pop(file.path, b""))

        def remove() -> None:
            for file in files:
                file.path.unlink(missing_ok=True)

        if files:
            await trio.to_thread.run_sync(remove, limiter=self.limiter)


def _fsync(path: Path) -> None:
    """A file's content, or a folder's entries, onto the disk. Blocking."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def storage_errors() -> Iterator[None]:
    """What a disk can say, as errors that callers may see."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutOfSpace() from error
        log.error("the disk cannot be written: %s", error)
        raise StorageFailed("the service cannot store files now; its log says why") from error


class Incoming:
    """One arriving file: an async context manager that leaves nothing behind unless `finish` returned."""

    def __init__(self, spool: Spool, area: Area) -> None:
        self._spool = spool
        self._area = area
        self._path = spool.folder / area / f"{uuid.uuid4().hex}.part"
        self._final = self._path.with_suffix(".file")
        self._buffer = bytearray()
        self._hash = hashlib.sha256()
        self._whole = b""
        """the content, once it is what will be stored, where it fits into one block"""
        self._size = 0
        self._on_disk = False
        self._finished = False
        self._left = False
        """nobody waits for it any more"""

    async def __aenter__(self) -> Incoming:
        return self

    async def write(self, data: bytes, limit: int) -> None:
        """Takes the next bytes. Raises TooLarge beyond `limit` bytes in all, OutOfSpace."""
        self._size += len(data)
        if self._size > limit:
            raise TooLarge(f"the file is larger than the limit of {limit / 1e6:g} MB")
        self._buffer += data
        if len(self._buffer) >= BLOCK:
            await self._in_thread(self._flush)

    async def finish(
        self, name: str, rules: Rules, declared: str = "", *, strip: bool = False, patience: float = 0.0
    ) -> StoredFile:
        """Everything arrived: writes the rest, checks the file, gives it its final name.

        `declared`: the content type that came with it, if any. `strip`: without its metadata. `patience`: seconds for a
        virus scanner that is away to come back.
        Raises FileRefused, OutOfSpace, ScannerAway, StorageFailed.
        """
        reencode = rules.reencode and self._area == "uploads"
        in_steps = bool(rules.clamd) or self._spool.fsync

        def check() -> str:
            if self._size == 0:
                raise FileRefused(f"{name}: the file is empty", "application/x-empty")
            if self._on_disk:
                self._flush()
                kind = verify(self._path, name, rules, declared)
                if reencode or strip:
                    self._spool.refuse_if_full(self._size)
                changed = reencode and clean.reencode(self._path, kind, rules, name)
                if strip and clean.strip(self._path, kind, name):
                    changed = True
                if changed:
                    self._measure()
            else:
                # Small enough to be checked before it is written: fewer calls that each give up the interpreter lock.
                whole = bytes(self._buffer)
                kind = verify(whole, name, rules, declared)
                if reencode:
                    whole = clean.reencode_bytes(whole, kind, rules, name)
                if strip:
                    whole = clean.strip_bytes(whole, kind, name)
                if reencode or strip:
                    self._buffer[:] = whole
                self._whole, self._size = whole, len(whole)
                self._path = self._path if in_steps else self._final
                self._flush()
            return kind

        def settle(kind: str) -> StoredFile:
            if self._spool.fsync:
                _fsync(self._path)
            if self._path != self._final:
                os.replace(self._path, self._final)
            if self._spool.fsync:
                _fsync(self._final.parent)
            return StoredFile(
                path=self._final,
                size=self._size,
                sha256=self._hash.hexdigest(),
                content_type=kind,
                extension=extension_of(name),
            )

        quick = len(self._buffer) <= SMALL and not self._on_disk and not reencode and is_cheap(bytes(self._buffer))
        if in_steps:
            kind = await self._check(check, quick)
            if rules.clamd:
                with storage_errors():
                    await self._spool.scanner.scan(rules.clamd, self._whole or self._path, name, patience)
            stored = await self._run(lambda: settle(kind), quick)
        else:
            stored = await self._check(lambda: settle(check()), quick)
        self._finished = True
        if 0 < len(self._whole) <= SMALL:
            self._spool.remember(stored, self._whole)
        return stored

    def _measure(self) -> None:
        """Size and digest of what is on disk now, in place of what arrived."""
        with open(self._path, "rb") as file:
            self._hash = hashlib.file_digest(file, "sha256")
            self._size = file.tell()

    def _flush(self) -> None:
        self._spool.refuse_if_full(len(self._buffer))
        with open(self._path, "ab") as file:
            self._on_disk = True
            file.write(self._buffer)
        self._hash.update(self._buffer)
        self._buffer.clear()

    async def _check(self, work: Callable[[], R], quick: bool) -> R:
        """As `_run`, a few at once."""
        if quick and self._spool.disk_is_quick():
            return await self._run(work, quick)
        return await self._in_thread(work, self._spool.deep)

    async def _run(self, work: Callable[[], R], quick: bool) -> R:
        """`quick`: right here, while the disk is."""
        if quick and self._spool.disk_is_quick():
            with self._spool.timed(), storage_errors():
                return work()
        return await self._in_thread(work)

    async def _in_thread(self, work: Callable[[], R], limiter: trio.CapacityLimiter | None = None) -> R:
        """Being cancelled does not wait for the work: a check may take a minute, a stop may not. It keeps its place in
        the limiter until it is done, and cleans up after itself."""

        def to_its_end() -> R:
            try:
                return work()
            finally:
                if self._left:
                    self._remove()

        with storage_errors():
            return await trio.to_thread.run_sync(
                to_its_end, limiter=limiter or self._spool.limiter, abandon_on_cancel=True
            )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._finished:
            self._left = True
            self._remove()

    def _remove(self) -> None:
        """One unlink of a local file or two: quick enough also for the event loop, and while being cancelled."""
        if self._on_disk:
            self._path.unlink(missing_ok=True)
            self._final.unlink(missing_ok=True)
