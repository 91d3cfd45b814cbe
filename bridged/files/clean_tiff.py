"""TIFF without metadata: tags that do not make the picture go, and all bytes that no remaining tag points to become
zeros. Nothing moves, so the pixels stay where and as they are.

Source: TIFF 6.0, its Technical Note 1 (SubIFDs), and libtiff's description of BigTIFF.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from bridged.files.splice import Piece, Source, Span, Unclean, Zeros

COMPRESSION, STRIPS, STRIP_SIZES = 259, 273, 279
TILES, TILE_SIZES, SUBDIRECTORIES = 324, 325, 330
OLD_JPEG = 6
"""a compression whose data is all over the file"""

KEPT = (
    frozenset(
        (*range(254, 260), *range(262, 267), 273, 274, *range(277, 285), *range(290, 294), 296, 297, 301)
    )
    | frozenset((*range(317, 326), 330, 332, 334, 336, *range(338, 343), 347, *range(529, 533)))
    | frozenset((32995, 32996, 32997, 32998, 34675))
)
"""geometry, samples, compression, colours (ICC included), orientation, resolution"""

TYPE_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
INTEGERS = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}

MAX_DIRECTORIES, MAX_VALUES, MAX_RANGES = 10_000, 1_000_000, 100_000
"""far above any real file: they bound what is held in memory"""


def tiff(source: Source) -> Iterator[Piece]:
    yield from _Tiff(source).pieces()


class _Tiff:
    def __init__(self, source: Source) -> None:
        self._source = source
        head = source.at(0, 8)
        order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        version = struct.unpack(f"{order}H", head[2:4])[0] if order else 0
        if version not in (42, 43):
            raise Unclean("it does not begin as a TIFF")
        self._order = order
        self._big = version == 43
        self._offset = f"{order}{'Q' if self._big else 'I'}"
        self._count = f"{order}{'Q' if self._big else 'H'}"
        self._entry = f"{order}HH{'Q8s' if self._big else 'I4s'}"
        self._start = 16 if self._big else 8
        self._kept: list[tuple[int, int, bytes | None]] = [(0, self._start, None)]
        """(start, end, new content where it is not to stay as it is)"""

    def pieces(self) -> Iterator[Piece]:
        size = struct.calcsize(self._offset)
        (first,) = struct.unpack(self._offset, self._source.at(self._start - size, size))
        seen: set[int] = set()
        waiting = [first]
        while waiting:
            at = waiting.pop()
            while at:
                if at in seen or len(seen) >= MAX_DIRECTORIES:
                    raise Unclean("its directories have no end")
                seen.add(at)
                at = self._directory(at, waiting)
        done, replaced = 0, False
        for start, end, content in sorted(self._kept, key=lambda kept: kept[:2]):
            if start < done and (replaced or content is not None):
                raise Unclean("its parts overlap")
            if start > done:
                yield Zeros(start - done)
            replaced = content is not None
            if content is not None:
                yield content
            elif end > done:
                yield Span(max(start, done), end)
            done = max(done, end)

    def _directory(self, at: int, waiting: list[int]) -> int:
        """Notes what is kept of the directory there; returns where the next one is."""
        source, each = self._source, struct.calcsize(self._entry)
        (count,) = struct.unpack(self._count, source.at(at, struct.calcsize(self._count)))
        if count > 65535:
            raise Unclean("a directory of it has too many entries")
        begin = at + struct.calcsize(self._count)
        end = begin + count * each
        (following,) = struct.unpack(self._offset, source.at(end, struct.calcsize(self._offset)))
        entries, arrays = [], {}
        raw_entries = source.at(begin, count * each)
        for position in range(0, count * each, each):
            raw = raw_entries[position : position + each]
            tag, kind, number, value = struct.unpack(self._entry, raw)
            if tag not in KEPT:
                continue
            entries.append(raw)
            size = number * TYPE_SIZES.get(kind, 0)
            if not size:
                raise Unclean("it has a tag of a type that nobody knows")
            if size > len(value):
                (where,) = struct.unpack(self._offset, value)
                self._keep(where, where + size)
            if tag in (COMPRESSION, STRIPS, STRIP_SIZES, TILES, TILE_SIZES, SUBDIRECTORIES):
                arrays[tag] = self._numbers(kind, number, value, size)
        if OLD_JPEG in arrays.get(COMPRESSION, ()):
            raise Unclean("it is compressed in a way that was given up")
        for starts, sizes in ((STRIPS, STRIP_SIZES), (TILES, TILE_SIZES)):
            if len(arrays.get(starts, ())) != len(arrays.get(sizes, ())):
                raise Unclean("it does not say where its pixels end")
            for start, length in zip(arrays.get(starts, ()), arrays.get(sizes, ()), strict=True):
                self._keep(start, start + length)
        waiting.extend(arrays.get(SUBDIRECTORIES, ()))
        content = (
            struct.pack(self._count, len(entries)) + b"".join(entries) + struct.pack(self._offset, following)
        )
        whole = end + struct.calcsize(self._offset)
        same = len(entries) == count
        self._keep(at, whole, None if same else content + bytes(whole - at - len(content)))
        return int(following)

    def _numbers(self, kind: int, number: int, value: bytes, size: int) -> tuple[int, ...]:
        if kind not in INTEGERS or number > MAX_VALUES:
            raise Unclean("it has a tag of a wrong type or size")
        if size > len(value):
            value = self._source.at(struct.unpack(self._offset, value)[0], size)
        return struct.unpack_from(f"{self._order}{number}{INTEGERS[kind]}", value)

    def _keep(self, start: int, end: int, content: bytes | None = None) -> None:
        if end > self._source.size:
            raise Unclean("it ends too early")
        last = self._kept[-1]
        if content is None and last[2] is None and last[1] == start:
            self._kept[-1] = (last[0], end, None)
            return
        if len(self._kept) >= MAX_RANGES:
            raise Unclean("it is in too many parts")
        self._kept.append((start, end, content))
