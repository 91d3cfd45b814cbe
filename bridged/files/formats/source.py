"""Bytes at any place of a file, in pieces: what every format's walk reads from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

BLOCK = 64 * 1024
"""bytes read from a file at once: small enough to be cheap where a header is wanted, large enough for a long walk"""


class Refusal(Exception):
    """Why content is not acceptable, as a sentence's end: it follows the file's name and a colon."""


PATIENCE = 60.0
"""seconds that one walk over a file may take: two files are checked at once, and none may keep others waiting longer"""

MAX_TAGS = 20_000
"""entries of all EXIF directories of one file: they may overlap, so that a block of 60 kB has a million"""


class Budget:
    """What one file may cost, shared by all parts of its Source. `deadline`: as `time.monotonic` counts."""

    __slots__ = ("deadline", "tags")

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = monotonic() + PATIENCE if deadline is None else deadline
        self.tags = MAX_TAGS


class Source:
    """`size` bytes, of a file or in memory. Nothing here maps or holds a whole file: memory is one BLOCK.

    Every read looks at the clock, so that no walk has to: all of them read on as they go.
    """

    __slots__ = ("_at", "_budget", "_data", "_deadline", "_fd", "_start", "size")

    def __init__(self, data: bytes, fd: int = -1, start: int = 0, size: int = -1, budget: Budget | None = None) -> None:
        self._budget = budget
        self._deadline = budget.deadline if budget else monotonic() + PATIENCE
        self._data = data
        self._fd = fd
        self._at = 0
        self._start = start
        self.size = len(data) if size < 0 else size

    @property
    def budget(self) -> Budget:
        """Made when it is first needed: most files never do."""
        if self._budget is None:
            self._budget = Budget(self._deadline)
        return self._budget

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes; fewer where the source ends, none before its beginning. Raises Refusal: time is up."""
        if monotonic() > self._deadline:
            raise Refusal("it takes too long to check")
        size = min(size, self.size - offset)
        if size <= 0 or offset < 0:
            return b""
        offset += self._start
        if self._fd < 0:
            return self._data[offset : offset + size]
        begin = offset - self._at
        if begin < 0 or begin + size > len(self._data):
            if size > BLOCK // 2:
                return self._from_disk(offset, size)
            self._data, self._at, begin = self._from_disk(offset, BLOCK), offset, 0
        return self._data[begin : begin + size]

    def exact(self, offset: int, size: int) -> bytes:
        """`size` bytes. Raises Refusal: there are not so many."""
        if self._fd < 0 and 0 <= offset <= self.size - size and monotonic() <= self._deadline:
            offset += self._start
            return self._data[offset : offset + size]
        data = self.read(offset, size)
        if len(data) != size:
            raise Refusal("the file is cut off")
        return data

    def part(self, offset: int, size: int) -> Source:
        """A stretch of this one, as a source; at most what there is."""
        size = max(0, min(size, self.size - offset))
        return Source(self._data if self._fd < 0 else b"", self._fd, self._start + offset, size, self.budget)

    def blocks(self, start: int, end: int, size: int = BLOCK) -> Iterator[bytes]:
        """The bytes from `start` to `end`, at most `size` at a time."""
        while start < end:
            block = self.exact(start, min(size, end - start))
            yield block
            start += len(block)

    def _from_disk(self, offset: int, size: int) -> bytes:
        pieces: list[bytes] = []
        while size > 0 and (piece := os.pread(self._fd, size, offset)):
            pieces.append(piece)
            offset += len(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


@contextmanager
def opened(content: Path | bytes) -> Iterator[Source]:
    """A stored file, or the bytes that will be one. Blocking. Raises OSError."""
    if isinstance(content, bytes):
        yield Source(content)
        return
    fd = os.open(content, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield Source(b"", fd, 0, os.fstat(fd).st_size)
    finally:
        os.close(fd)
