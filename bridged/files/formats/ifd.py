"""TIFF's directories of tags, which EXIF has too.

Facts: TIFF 6.0 section 2; BigTIFF (libtiff's description): 8-byte offsets, 20-byte entries, version 43.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from struct import Struct
from typing import NamedTuple

from bridged.files.formats.source import BLOCK, Refusal, Source

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""bytes of one value, per type"""

SUBDIRECTORIES = frozenset({330, 34665, 34853, 40965})
"""tags that point to directories: SubIFDs, EXIF, GPS, Interoperability"""

MAX_ENTRIES, MAX_SUBDIRECTORIES, MAX_VALUES = 4096, 256, 600_000
"""entries of one directory (cameras write up to 100), directories below the pages, and values of one tag (strips)"""

_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One tag: `count` values of `type` in `size` bytes at `offset` of the source."""

    tag: int
    type: int
    count: int
    offset: int
    size: int


class Directory(NamedTuple):
    """`end`: the first byte behind it. `depth` 0: a page of the file."""

    entries: dict[int, Entry]
    start: int
    end: int
    depth: int


class Directories:
    """The directories of a TIFF, each once. Raises Refusal for what is out of range, loops or has no end; with
    `lenient` (EXIF, which cameras write and editors damage) such parts are passed over."""

    def __init__(self, source: Source, max_pages: int, *, lenient: bool = False) -> None:
        head = source.exact(0, 8)
        order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        if not order:
            raise Refusal("it is no TIFF")
        self.source = source
        self._order = order
        self._lenient = lenient
        self._max_pages = max_pages
        version = Struct(order + "H").unpack_from(head, 2)[0]
        self._big = version == 43
        if version not in (42, 43) or (self._big and head[4:8] != (b"\x08\0\0\0" if order == "<" else b"\0\x08\0\0")):
            raise Refusal("it is no TIFF")
        self._count = Struct(order + ("Q" if self._big else "H"))
        self._pointer = Struct(order + ("Q" if self._big else "I"))
        self._entry = Struct(order + ("HHQ8s" if self._big else "HHI4s"))
        place = 8 if self._big else 4
        self._first: int = self._pointer.unpack(source.exact(place, self._pointer.size))[0]
        self.header_size = place + self._pointer.size

    def __iter__(self) -> Iterator[Directory]:
        seen: set[int] = set()
        offset, pages, below = self._first, 0, 0
        while offset:
            pages += 1
            if pages > self._max_pages:
                raise Refusal(f"it has more than {self._max_pages} frames")
            waiting = [(offset, 0)]
            offset = 0
            while waiting:
                place, depth = waiting.pop()
                if place in seen:
                    if self._lenient:
                        continue
                    raise Refusal("its directories form a loop")
                seen.add(place)
                below += depth > 0
                if below > MAX_SUBDIRECTORIES:
                    raise Refusal("it has too many directories")
                try:
                    directory, following = self._read(place, depth)
                except Refusal:
                    if self._lenient:
                        continue
                    raise
                self._count_tags((directory.end - directory.start) // self._entry.size)
                if not depth:
                    offset = following
                yield directory
                if depth < 4:
                    waiting += [(child, depth + 1) for child in self._children(directory)]

    def integers(self, entry: Entry) -> tuple[int, ...]:
        """A tag's values. Raises Refusal: they are no numbers, or too many."""
        code = _INTEGERS.get(entry.type)
        if code is None or entry.count > MAX_VALUES:
            raise Refusal(f"its tag {entry.tag} is broken")
        return Struct(f"{self._order}{entry.count}{code}").unpack(self.source.exact(entry.offset, entry.size))

    def number(self, directory: Directory, tag: int, default: int = 0) -> int:
        """A tag's first value, or `default` where there is no such tag."""
        entry = directory.entries.get(tag)
        if entry is None or not entry.count:
            return default
        return self.integers(replace(entry, count=1, size=SIZES.get(entry.type, 1)))[0]

    def _count_tags(self, count: int) -> None:
        """Raises Refusal: too many of all EXIF together. A TIFF's own pages are limited elsewhere."""
        if self._lenient:
            self.source.budget.tags -= count
            if self.source.budget.tags < 0:
                raise Refusal("it has too many EXIF tags")

    def _children(self, directory: Directory) -> Iterator[int]:
        for tag in SUBDIRECTORIES & directory.entries.keys():
            try:
                entry = directory.entries[tag]
                entry = replace(entry, count=min(entry.count, 64), size=min(entry.count, 64) * SIZES.get(entry.type, 1))
                yield from (child for child in self.integers(entry) if child)
            except Refusal:
                if not self._lenient:
                    raise

    def _read(self, offset: int, depth: int) -> tuple[Directory, int]:
        count = self._count.unpack(self.source.exact(offset, self._count.size))[0]
        if not 0 < count <= MAX_ENTRIES:
            raise Refusal("one of its directories is broken")
        start = offset + self._count.size
        size = count * self._entry.size
        table = self.source.read(start, size + self._pointer.size)
        if len(table) < size or (len(table) < size + self._pointer.size and not self._lenient):
            raise Refusal("the file is cut off")
        entries: dict[int, Entry] = {}
        for index in range(count):
            tag, kind, values, inline = self._entry.unpack_from(table, index * self._entry.size)
            bytes_ = values * SIZES.get(kind, 1)
            place = start + (index + 1) * self._entry.size - len(inline)
            if bytes_ > len(inline):
                place = self._pointer.unpack(inline)[0]
            if place + bytes_ > self.source.size:
                if self._lenient:
                    continue
                raise Refusal(f"its tag {tag} points outside the file")
            entries.setdefault(tag, Entry(tag, kind, values, place, bytes_))
        following = self._pointer.unpack_from(table, size)[0] if len(table) > size else 0
        return Directory(entries, offset, start + size + self._pointer.size, depth), following


def equal(source: Source, start: int, end: int, value: int) -> bool:
    """Whether all bytes of a stretch are `value`."""
    return all(block.count(value) == len(block) for block in source.blocks(start, end, BLOCK))
