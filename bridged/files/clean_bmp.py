"""BMP without what its format has no place for: bytes between its colours and its pixels, and behind them. Nothing
moves, so the pixels stay where and as they are.

Source: Microsoft's BITMAPFILEHEADER, DIB header structures and bV5ProfileData; OS/2's headers of 12, 16 and 64 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from bridged.files.riff import number
from bridged.files.splice import Piece, Source, Span, Unclean, Zeros, placed

HEADERS = frozenset((12, 16, 40, 52, 56, 64, 108, 124))
RLE = frozenset((1, 2))
MASKS = {3: 12, 6: 16}
"""compression -> bytes of masks behind a header of 40 bytes; larger headers hold them"""

EMBEDDED, LINKED, PROFILED = b"DEBM", b"KNIL", 124
"""kinds of colour profile, and the size of the header that may name one"""


def bmp(source: Source) -> Iterator[Piece]:
    """Raises Unclean: its colour profile is elsewhere, or it is not what its header says."""
    magic, size, _, start, header = struct.unpack("<2sIIII", source.at(0, 18))
    if magic != b"BM" or header not in HEADERS:
        raise Unclean("it does not begin as a BMP")
    info = source.at(14, header) + bytes(40)
    colour, used, stored, compression = 4, 0, 0, 0
    if header == 12:
        width, height, _, depth = struct.unpack_from("<HHHH", info, 4)
        colour = 3
    else:
        width, height, _, depth, compression, stored = struct.unpack_from("<iiHHII", info, 4)
        (used,) = struct.unpack_from("<I", info, 32)
        if header == 16:
            compression = stored = used = 0
    colours = min(used or 1 << depth, 1 << depth) if depth <= 8 else 0
    masks = MASKS.get(compression, 0) if header == 40 else 0
    if start < 14 + header or width <= 0:
        raise Unclean("its header is broken")
    end = start + (width * depth + 31) // 32 * 4 * abs(height)
    if compression in RLE:
        end = start + stored if stored else min(size, source.size) if size > start else source.size
    if end > source.size:
        raise Unclean("it ends too early")
    profile = _profile(source, info, end) if header == PROFILED else Span(end, end)
    described = min(14 + header + masks + colours * colour, start)
    yield Span(0, 2)
    yield from number(source, 2, "<I", size if profile.end == source.size else profile.end)
    yield placed(source, 6, bytes(4))  # reserved
    yield Span(10, described)
    yield from _blank(source, described, start)
    yield Span(start, end)
    yield from _blank(source, end, profile.start)
    yield profile


def _profile(source: Source, info: bytes, end: int) -> Span:
    """The colour profile behind the pixels, empty where there is none."""
    kind = info[56:60]
    start, size = struct.unpack_from("<II", info, 112)
    if kind == LINKED:
        raise Unclean("its colour profile is in another file")
    if kind != EMBEDDED or not size:
        return Span(end, end)
    if not end <= start + 14 <= start + 14 + size <= source.size:
        raise Unclean("its colour profile is not where it should be")
    return Span(start + 14, start + 14 + size)


def _blank(source: Source, start: int, end: int) -> Iterator[Piece]:
    if end - start <= 16:  # padding, mostly of zeros already
        yield placed(source, start, bytes(end - start))
    else:
        yield Zeros(end - start)
