"""WebM and Matroska without metadata: all elements that players do not need become Void elements full of zeros. Nothing
moves, so that the positions in Cues and SeekHead stay right.

Source: RFC 8794 (EBML), RFC 9559 (Matroska).
"""

from __future__ import annotations

from collections.abc import Iterator

from bridged.files.splice import Piece, Source, Span, Unclean, Zeros

EBML, SEGMENT, CLUSTER, INFO, TRACKS, TRACK, SEEKHEAD, SEEK, SEEK_ID = (
    *(0x1A45DFA3, 0x18538067, 0x1F43B675, 0x1549A966, 0x1654AE6B, 0xAE, 0x114D9B74, 0x4DBB, 0x53AB),
)
TAGS, ATTACHMENTS, CHAPTERS, CUES, VOID = 0x1254C367, 0x1941A469, 0x1043A770, 0x1C53BB6B, 0xEC
TOP_LEVEL = frozenset((SEGMENT, CLUSTER, INFO, TRACKS, SEEKHEAD, TAGS, ATTACHMENTS, CHAPTERS, CUES))
PROGRAMS = frozenset((0x4D80, 0x5741))
"""what wrote it, a camera perhaps; the format wants these elements, so they are made blank"""

ENCRYPTION = 0x5035
FILE = 0

KEPT = {
    FILE: frozenset((EBML, SEGMENT)),
    EBML: frozenset((0x4286, 0x42F7, 0x42F2, 0x42F3, 0x4282, 0x4287, 0x4285)),
    SEGMENT: frozenset((SEEKHEAD, INFO, TRACKS, CLUSTER, CUES)),
    SEEKHEAD: frozenset((SEEK,)),
    SEEK: frozenset((SEEK_ID, 0x53AC)),
    INFO: PROGRAMS | {0x2AD7B1, 0x4489},
    TRACKS: frozenset((TRACK,)),
    TRACK: frozenset(
        (
            *(0xD7, 0x73C5, 0x83, 0xB9, 0x88, 0x55AA, 0x55AB, 0x55AC, 0x55AD, 0x55AE, 0x55AF, 0x9C, 0x6DE7, 0x6DF8),
            *(0x23E383, 0x234E7A, 0x23314F, 0x537F, 0x55EE, 0x41E4, 0x22B59C, 0x22B59D, 0x86, 0x63A2, 0xAA, 0x6FAB),
            *(0x56AA, 0x56BB, 0xE0, 0xE1, 0xE2, 0x6D80),
        )
    ),
    0x41E4: frozenset((0x41F0, 0x41E7, 0x41ED)),  # additions to blocks
    0xE0: frozenset(  # video
        (
            *(0x9A, 0x9D, 0x53B8, 0x53C0, 0xB0, 0xBA, 0x54AA, 0x54BB, 0x54CC, 0x54DD, 0x54B0, 0x54BA, 0x54B2, 0x54B3),
            *(0x2EB524, 0x2FB523, 0x2383E3, 0x55B0, 0x7670),
        )
    ),
    0x55B0: frozenset((*range(0x55B1, 0x55BE), 0x55D0)),  # colour
    0x55D0: frozenset(range(0x55D1, 0x55DB)),
    0x7670: frozenset(range(0x7671, 0x7676)),  # projection
    0xE1: frozenset((0xB5, 0x78B5, 0x9F, 0x7D7B, 0x6264, 0x52F1)),  # audio
    0xE2: frozenset((0xE3, 0xE9)),  # tracks made of others
    0xE3: frozenset((0xE4,)),
    0xE4: frozenset((0xE5, 0xE6)),
    0xE9: frozenset((0xED,)),
    0x6D80: frozenset((0x6240,)),  # compression
    0x6240: frozenset((0x5031, 0x5032, 0x5033, 0x5034, ENCRYPTION)),
    0x5034: frozenset((0x4254, 0x4255)),
    CLUSTER: frozenset((0xE7, 0xA7, 0xAB, 0xA3, 0xA0)),
    0xA0: frozenset((0xA1, 0x75A1, 0x9B, 0xFA, 0xFB, 0xA4, 0x75A2)),  # a block and what goes with it
    0x75A1: frozenset((0xA6,)),
    0xA6: frozenset((0xA5, 0xEE)),
    CUES: frozenset((0xBB,)),
    0xBB: frozenset((0xB3, 0xB7)),
    0xB7: frozenset((0xF7, 0xF1, 0xF0, 0xB2, 0x5378, 0xEA, 0xDB)),
    0xDB: frozenset((0x96, 0x97, 0x535F, 0xEB)),
}
"""container -> what stays in it. Everything else becomes void: checksums, too, since what they are of changes. None can
be in one of its own kind, which bounds the depth"""

LARGE = frozenset((0x86, 0x63A2, 0x22B59C, 0x22B59D, 0x4282, 0x41ED, 0x7672, 0x4255, 0xA3, 0xA1, 0xA4, 0xA5)) | PROGRAMS
"""what is no number, and so may have more than 8 bytes"""

SEEK_MAX, NAME_MAX = 1024, 4096


def matroska(source: Source) -> Iterator[Piece]:
    if source.at(0, 4) != EBML.to_bytes(4, "big"):
        raise Unclean("it does not begin as WebM or Matroska")
    yield from _elements(source, 0, source.size, FILE)


def _elements(source: Source, at: int, stop: int, parent: int) -> Iterator[Piece]:
    """What lies between two places, inside an element of the ID `parent`."""
    kept = at  # from here on, up to `at`, all stays: one piece for all blocks of a cluster
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
        if element == ENCRYPTION:
            raise Unclean("it is encrypted")
        stays = element in KEPT[parent] and not (element == SEEK and _leads_nowhere(source, content, end))
        if stays and element in KEPT:
            yield Span(kept, content)
            yield from _elements(source, content, end, element)
            kept = end
        elif stays and element in PROGRAMS:
            if end - content > NAME_MAX:
                raise Unclean("the name of the program that wrote it is too large")
            yield Span(kept, content)
            yield b" " * (end - content)
            kept = end
        elif not stays:
            yield Span(kept, at)
            if element == VOID:
                yield Span(at, content)
                yield Zeros(end - content)
            else:
                yield from _void(end - at)
            kept = end
        elif end - content > 8 and element not in LARGE:
            raise Unclean("a number of it is too large")
        at = end
    yield Span(kept, at)


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
            return int.from_bytes(source.at(content, size), "big") not in KEPT[SEGMENT]
        at = content + size
    return False


def _void(size: int) -> Iterator[Piece]:
    """A Void element of `size` bytes in all: 2 at least, which every element has."""
    if size < 10:
        yield bytes((VOID, 0x80 | size - 2)) + bytes(size - 2)
    else:
        yield bytes((VOID, 0x01)) + (size - 9).to_bytes(7, "big")
        yield Zeros(size - 9)
