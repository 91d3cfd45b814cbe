"""Matroska and WebM: EBML elements.

Facts: RFC 8794 (EBML: lengths, unknown sizes), RFC 9559 (Matroska's elements). Browsers' MediaRecorder writes segments
and clusters of unknown size, which end where the next element of their level, or the file, does.
"""

from __future__ import annotations

from bridged.files.formats.active import MAX_TEXT, check_framed, check_region
from bridged.files.formats.limits import Limits
from bridged.files.formats.source import Refusal, Source
from bridged.files.formats.trailing import check_end, skip_padding

MAX_ELEMENTS = 3_000_000
"""blocks count, too: a long recording has some hundred a second"""

_EBML, _SEGMENT, _CLUSTER, _VOID, _CRC = 0x1A45DFA3, 0x18538067, 0x1F43B675, 0xEC, 0xBF
_INFO, _TRACKS, _TAGS, _ATTACHMENTS, _DOCTYPE = 0x1549A966, 0x1654AE6B, 0x1254C367, 0x1941A469, 0x4282
_SEEK, _CUES, _CHAPTERS = 0x114D9B74, 0x1C53BB6B, 0x1043A770
_LEVEL_1 = frozenset({_SEEK, _INFO, _TRACKS, _CHAPTERS, _CLUSTER, _CUES, _ATTACHMENTS, _TAGS, _VOID, _CRC})
_CLOSING = _LEVEL_1 - {_VOID, _CRC}
_IN_CLUSTER = frozenset({0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF, _VOID, _CRC})
_BLOCKS = frozenset({0xA3, 0xA0, 0xAF})
_MASTERS = frozenset(
    {_TAGS, 0x7373, 0x63C0, 0x67C8, _TRACKS, 0xAE, _INFO, _CHAPTERS, 0x45B9, 0xB6, 0x80, _ATTACHMENTS, 0x61A7}
)
"""elements of elements whose texts are looked at: tags, tracks, chapters, attachments"""

_FILE_DATA = 0x465C
_NAMES = {_VOID: "unused space in it", _SEEK: "its index", _CUES: "its index"}

CHECKSUM, FEW = 4, 4
"""bytes of a CRC-32 (RFC 8794, 11.3.1), and of what has no room for anything active"""

_UNKNOWN = -1


def check_matroska(source: Source, _: Limits) -> None:
    """Raises Refusal: elements that do not fit into each other, no tracks, active content, or more behind it."""
    walk = _Walk(source)
    at = walk.header()
    kind, at, size = walk.element(at, source.size)
    while kind in (_VOID, _CRC) and size != _UNKNOWN:
        check_spare(source, kind, at, size)
        kind, at, size = walk.element(at + size, source.size)
    if kind != _SEGMENT:
        raise Refusal("it has no segment")
    check_end(source, walk.segment(at, source.size if size == _UNKNOWN else at + size))
    if not {_INFO, _TRACKS} <= walk.seen:
        raise Refusal("it has no tracks")


def check_spare(source: Source, kind: int, at: int, size: int) -> None:
    """What has no words: padding, checksums, indexes, times. Raises Refusal: it has, or a checksum is none."""
    if kind == _CRC and size != CHECKSUM:
        raise Refusal("one of its checksums is broken")
    if size > FEW:
        check_region(source, at, at + size, _NAMES.get(kind, "one of its elements"))


class _Walk:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._count = 0
        self.seen: set[int] = set()

    def element(self, at: int, end: int) -> tuple[int, int, int]:
        """Identifier, place and size of an element's content; the size may be _UNKNOWN."""
        self._count += 1
        if self._count > MAX_ELEMENTS:
            raise Refusal("it has too many elements")
        head = self._source.read(at, min(12, end - at))
        length = 9 - head[0].bit_length() if head else 9
        if length > 4 or len(head) <= length:
            raise Refusal("it has data that are no element")
        kind = int.from_bytes(head[:length], "big")
        width = 9 - head[length].bit_length()
        if width > 8 or len(head) < length + width:
            raise Refusal("it has data that are no element")
        size = int.from_bytes(head[length : length + width], "big") & ((1 << 7 * width) - 1)
        start = at + length + width
        if size == (1 << 7 * width) - 1:
            return kind, start, _UNKNOWN
        if size > end - start:
            raise Refusal("the file is cut off, or its elements do not fit into each other")
        return kind, start, size

    def header(self) -> int:
        """Checks the EBML header; returns where it ends."""
        kind, at, size = self.element(0, self._source.size)
        if kind != _EBML or not 0 <= size <= 4096:
            raise Refusal("its header is broken")
        end, document = at + size, b""
        check_region(self._source, at, end, "its header")
        while at < end:
            kind, at, size = self.element(at, end)
            if size == _UNKNOWN:
                raise Refusal("its header is broken")
            if kind == _DOCTYPE:
                document = self._source.exact(at, size).rstrip(b"\0")
            at += size
        if document not in (b"webm", b"matroska"):
            raise Refusal("it is neither WebM nor Matroska")
        return end

    def segment(self, at: int, end: int) -> int:
        while at < end:
            if self._only_padding(at):
                return at
            kind, at, size = self.element(at, end)
            if kind not in _LEVEL_1:
                raise Refusal("it has data that are no element of a segment")
            self.seen.add(kind)
            if kind == _CLUSTER:
                at = self._cluster(at, end) if size == _UNKNOWN else self._cluster(at, at + size, whole=True)
                continue
            if size == _UNKNOWN:
                raise Refusal("one of its elements has no end")
            if kind in _MASTERS:
                self._texts(at, at + size, 0)
            else:
                check_spare(self._source, kind, at, size)
            at += size
        return at

    def _cluster(self, at: int, end: int, *, whole: bool = False) -> int:
        """The end of a cluster: that of its elements where its size is unknown, else all of it is theirs."""
        while at < end:
            if not whole and self._only_padding(at):
                return at
            kind, start, size = self.element(at, end)
            if kind in _CLOSING and not whole:
                return at
            if kind not in _IN_CLUSTER or size == _UNKNOWN:
                raise Refusal("it has data that are no element of a cluster")
            if kind not in _BLOCKS:
                check_spare(self._source, kind, start, size)
            at = start + size
        return at

    def _only_padding(self, at: int) -> bool:
        return self._source.read(at, 1) == b"\0" and skip_padding(self._source, at) == self._source.size

    def _texts(self, at: int, end: int, depth: int) -> None:
        while at < end:
            kind, at, size = self.element(at, end)
            if size == _UNKNOWN or depth > 8:
                raise Refusal("its elements are broken")
            if kind in _MASTERS:
                self._texts(at, at + size, depth + 1)
            elif kind == _CRC:
                check_spare(self._source, kind, at, size)
            elif size > MAX_TEXT or kind == _FILE_DATA:
                check_region(self._source, at, at + size, "an attachment")
            elif size > 4:
                check_framed(self._source.exact(at, size), "its tags")
            at += size
