"""ISO base media files (MP4, MOV, M4A, 3GP, HEIF, AVIF): boxes in boxes.

Facts: ISO/IEC 14496-12 (boxes, 64-bit and open sizes), Apple's QuickTime File Format (files without `ftyp`, `meta`
that is no full box, a 32-bit zero at the end of `udta`).
"""

from __future__ import annotations

import re

from bridged.files.formats.active import check_framed, check_region
from bridged.files.formats.limits import Limits
from bridged.files.formats.source import Refusal, Source
from bridged.files.formats.trailing import check_end

MAX_BOXES, MAX_DEPTH, MAX_VALUE = 200_000, 16, 8 * 1024 * 1024
"""MAX_BOXES: fragmented files have about 8 per fragment, so this is hours; MAX_VALUE: bytes of one text"""

_CONTAINERS = frozenset(
    (
        *(b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf", b"mvex", b"udta", b"meta", b"ilst", b"tref"),
        *(b"moof", b"traf", b"mfra", b"iprp", b"ipco", b"gmhd", b"tapt", b"clip", b"matt"),
    )
)
_NUMBERS = frozenset(
    (
        *(b"stts", b"ctts", b"stsc", b"stsz", b"stz2", b"stco", b"co64", b"stss", b"stsh", b"sdtp", b"sbgp", b"subs"),
        *(b"trun", b"sidx", b"ssix", b"tfra", b"senc", b"saio", b"saiz", b"elst", b"mdat", b"idat", b"cslg"),
    )
)
"""boxes of numbers or samples: `mdat` may be anything, and no number spells a tag"""

_TABLES = {b"stts": 8, b"ctts": 8, b"stsc": 12, b"stsz": 4, b"stco": 4, b"co64": 8, b"stss": 4}
"""bytes of an entry"""

_FIRST = (b"ftyp", b"styp")
_OLD = (b"moov", b"wide", b"mdat", b"free", b"skip", b"pnot")
"""what a QuickTime file of before 2001 may begin with"""

_MAY_BE_LARGE = (b"mdat", b"uuid", b"free", b"moov")
"""boxes with a size of 64 bits, or up to the end of the file"""

_TYPE = re.compile(rb"[\xa9A-Za-z0-9 _.:@#$/+-]{4}")


def check_video(source: Source, _: Limits) -> None:
    """Raises Refusal: boxes that do not fit into each other, no tracks or data, active content, or more behind it."""
    check_end(source, walk_bmff(source))


def check_still(source: Source, limits: Limits) -> None:
    """HEIF and AVIF. Raises Refusal, also for a size that is not allowed."""
    walk = _Walk(source, 0, limits)
    walk.run()
    if b"meta" not in walk.seen or b"ftyp" not in walk.seen or not walk.sizes:
        raise Refusal("it has no picture")
    check_end(source, walk.end)


def walk_bmff(source: Source, start: int = 0, *, trailing: bool = False) -> int:
    """Where the last box ends. `trailing`: behind a JPEG, where other things may come after it. Raises Refusal."""
    walk = _Walk(source, start)
    walk.run(trailing=trailing)
    if not {b"moov", b"trak"} <= walk.seen:
        raise Refusal("it has no tracks")
    if not walk.seen & {b"mdat", b"moof"}:
        raise Refusal("it has no data")
    return walk.end


def kinds_of_tracks(source: Source) -> set[bytes]:
    """Handlers of its tracks: b"vide", b"soun", … Raises Refusal."""
    walk = _Walk(source, 0)
    walk.run()
    return walk.handlers


class _Walk:
    def __init__(self, source: Source, start: int, limits: Limits | None = None) -> None:
        self.end = start
        self.seen: set[bytes] = set()
        self.handlers: set[bytes] = set()
        self.sizes: list[tuple[int, int]] = []
        self._source = source
        self._limits = limits
        self._boxes = 0

    def run(self, *, trailing: bool = False) -> None:
        source = self._source
        head = source.read(self.end, 8)
        if head[4:8] not in _FIRST and not (head[4:8] in _OLD and not trailing):
            raise Refusal("its beginning is broken")
        while self.end < source.size:
            if not self._is_box(self.end):
                if {b"moov"} & self.seen or {b"meta"} & self.seen:
                    return
                raise Refusal("it has data that are no box")
            self.end = self._box(self.end, source.size, 0)

    def _is_box(self, at: int) -> bool:
        head = self._source.read(at, 8)
        size, kind = int.from_bytes(head[:4], "big"), head[4:]
        return _TYPE.fullmatch(kind) is not None and (size > 7 or (size in (0, 1) and kind in _MAY_BE_LARGE))

    def _box(self, at: int, end: int, depth: int) -> int:
        """Takes one box; returns where it ends."""
        self._boxes += 1
        if self._boxes > MAX_BOXES:
            raise Refusal(f"it has more than {MAX_BOXES} boxes")
        head = self._source.exact(at, 8)
        size, kind = int.from_bytes(head[:4], "big"), head[4:]
        body = at + 8
        if size == 1:
            size, body = int.from_bytes(self._source.exact(body, 8), "big"), body + 8
        elif size == 0 and not depth:
            size = end - at
        if size < body - at or at + size > end:
            raise Refusal("the file is cut off, or its boxes do not fit into each other")
        self.seen.add(kind)
        self._content(kind, body, at + size, depth)
        return at + size

    def _content(self, kind: bytes, start: int, end: int, depth: int) -> None:
        if kind in _NUMBERS:
            if kind in _TABLES:
                self._check_table(kind, start, end)
            if kind != b"mdat":
                check_region(self._source, start, end, f"its box {kind.decode()}")
            return
        if kind in _CONTAINERS or (depth > 2 and kind not in (b"stsd", b"dref") and self._in_list(start, end)):
            if depth >= MAX_DEPTH:
                raise Refusal("its boxes are nested too deeply")
            if kind == b"meta" and self._source.read(start + 4, 4) != b"hdlr":
                start += 4
            self._children(start, end, depth + 1)
            return
        if kind == b"hdlr":
            self.handlers.add(self._source.read(start + 8, 4))
        elif kind == b"ispe" and self._limits:
            size = self._source.exact(start + 4, 8)
            self.sizes.append((int.from_bytes(size[:4], "big"), int.from_bytes(size[4:], "big")))
            self._limits.size(*self.sizes[-1])
        where = f"its box {kind.decode('latin-1')}"
        if end - start <= MAX_VALUE:
            check_framed(self._source.exact(start, end - start), where)
        else:
            check_region(self._source, start, end, where)

    def _check_table(self, kind: bytes, start: int, end: int) -> None:
        """A table says how many entries it has, and decoders make room for them."""
        head = self._source.exact(start, 12 if kind == b"stsz" else 8)
        count, place = int.from_bytes(head[-4:], "big"), len(head)
        same = int.from_bytes(head[4:8], "big") if kind == b"stsz" else 0
        size, room = (same, self._source.size) if same else (_TABLES[kind], end - start - place)
        if count * size > room:
            raise Refusal("it says that it has more samples than it can have")

    def _in_list(self, start: int, end: int) -> bool:
        """Whether a tag's box holds boxes (`data`, `mean`, `name`), as those in `ilst` do."""
        return self._source.read(start + 4, 4) in (b"data", b"mean") and start + 16 <= end

    def _children(self, at: int, end: int, depth: int) -> None:
        while at < end:
            if end - at < 8 or self._source.read(at, 4) == b"\0\0\0\0":
                if self._source.exact(at, min(end - at, 64)).strip(b"\0"):
                    raise Refusal("its boxes do not fit into each other")
                return
            at = self._box(at, end, depth)
