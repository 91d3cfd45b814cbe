"""WebM and Matroska without metadata: its elements become Void elements full of zeros. Nothing moves, so that the
positions in Cues and SeekHead stay right.

Source: RFC 8794 (EBML), RFC 9559 (Matroska).
"""

from __future__ import annotations

from collections.abc import Iterator

from bridged.files.splice import Piece, Source, Span, Unclean, Zeros

EBML, SEGMENT, CLUSTER, INFO, TRACKS, TRACK, SEEKHEAD, SEEK, SEEK_ID = (
    *(0x1A45DFA3, 0x18538067, 0x1F43B675, 0x1549A966, 0x1654AE6B, 0xAE, 0x114D9B74, 0x4DBB, 0x53AB),
)
TAGS, ATTACHMENTS, CHAPTERS, CUES, VOID, CRC = 0x1254C367, 0x1941A469, 0x1043A770, 0x1C53BB6B, 0xEC, 0xBF
CONTAINERS = frozenset((SEGMENT, INFO, TRACKS, TRACK, SEEKHEAD))
TOP_LEVEL = frozenset((CLUSTER, INFO, TRACKS, SEEKHEAD, TAGS, ATTACHMENTS, CHAPTERS, CUES))
GONE = {
    SEGMENT: frozenset((TAGS, ATTACHMENTS, CHAPTERS)),
    INFO: frozenset((0x7BA9, 0x7384, 0x3C83AB, 0x3E83BB, 0x4461, CRC)),  # title, file names, date
    TRACKS: frozenset((CRC,)),
    TRACK: frozenset((0x536E, CRC)),  # name
    SEEKHEAD: frozenset((CRC,)),
}
"""container -> what becomes void in it; checksums of what is changed, too"""

DEPTH, SEEK_MAX = 6, 1024


def matroska(source: Source) -> Iterator[Piece]:
    if source.at(0, 4) != EBML.to_bytes(4, "big"):
        raise Unclean("it does not begin as WebM or Matroska")
    yield from _elements(source, 0, source.size, 0, 0)


def _elements(source: Source, at: int, stop: int, parent: int, depth: int) -> Iterator[Piece]:
    """What lies between two places, inside an element of the ID `parent`."""
    if depth > DEPTH:
        raise Unclean("its elements are nested too deeply")
    while at < stop:
        element, content, size = _head(source, at)
        if size is None:
            if element == SEGMENT:
                end = stop
            elif element == CLUSTER:
                end = _cluster_end(source, content, stop)
            else:
                raise Unclean("an element of it has no size")
        else:
            end = content + size
        if end > stop:
            raise Unclean("it ends too early")
        if element in GONE.get(parent, ()) or (element == SEEK and _leads_nowhere(source, content, end)):
            yield from _void(end - at)
        elif element == VOID:
            yield Span(at, content)
            if end > content:
                yield Zeros(end - content)
        elif element in CONTAINERS:
            yield Span(at, content)
            yield from _elements(source, content, end, element, depth + 1)
        else:
            yield Span(at, end)
        at = end


def _head(source: Source, at: int) -> tuple[int, int, int | None]:
    """(ID, where the content begins, its size or None where that is not known) of the element there."""
    data = source.upto(at, 12)
    width = _width(data, 0)
    element = int.from_bytes(data[:width], "big")
    size_width = _width(data, width)
    if width > 4 or len(data) < width + size_width:
        raise Unclean("something stands between its elements")
    ones = (1 << 7 * size_width) - 1
    size = int.from_bytes(data[width : width + size_width], "big") & ones
    return element, at + width + size_width, None if size == ones else size


def _width(data: bytes, at: int) -> int:
    """Bytes of the number that begins there: its leading zero bits say so."""
    if at >= len(data) or not data[at]:
        raise Unclean("something stands between its elements")
    return 9 - data[at].bit_length()


def _cluster_end(source: Source, at: int, stop: int) -> int:
    """Where a cluster ends that does not say its size: at the next element that cannot be in it."""
    while at < stop:
        element, content, size = _head(source, at)
        if element in TOP_LEVEL:
            break
        if size is None:
            raise Unclean("an element of it has no size")
        at = content + size
    return at


def _leads_nowhere(source: Source, at: int, end: int) -> bool:
    """Whether this entry of the SeekHead points to what becomes void."""
    if end - at > SEEK_MAX:
        raise Unclean("an entry of its index is too large")
    while at < end:
        element, content, size = _head(source, at)
        if size is None:
            raise Unclean("an element of it has no size")
        if element == SEEK_ID:
            return int.from_bytes(source.at(content, size), "big") in GONE[SEGMENT]
        at = content + size
    return False


def _void(size: int) -> Iterator[Piece]:
    """A Void element of `size` bytes in all: 2 at least, which every element has."""
    if size < 10:
        yield bytes((VOID, 0x80 | size - 2)) + bytes(size - 2)
    else:
        yield bytes((VOID, 0x01)) + (size - 9).to_bytes(7, "big")
        yield Zeros(size - 9)
