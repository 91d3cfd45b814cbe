"""BMP: headers, palette, pixels. Facts: Microsoft's BITMAPFILEHEADER and DIB header structures; OS/2's of 12 and 64."""

from __future__ import annotations

from bridged.files.formats.active import check_region
from bridged.files.formats.limits import Limits, Picture
from bridged.files.formats.source import Refusal, Source
from bridged.files.formats.trailing import check_end

_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_RGB, _RLE8, _RLE4, _MASKS, _ALPHA_MASKS = 0, 1, 2, 3, 6
_DEPTHS = {_RGB: (1, 2, 4, 8, 16, 24, 32), _RLE8: (8,), _RLE4: (4,), _MASKS: (16, 32), _ALPHA_MASKS: (16, 32)}

MAX_RLE = 16_000_000
"""pixels of a run-length encoded picture, which is decoded in Python"""

MAX_HEADERS = 1024 * 1024
"""bytes before the pixels: headers, masks, palette, and a gap that some programs leave"""


def check_bmp(source: Source, limits: Limits) -> Picture:
    """The picture, with no frames to decode where its pixels are plain: those are good as they are.

    Raises Refusal: broken, too large, cut off, or with something between or behind.
    """
    head = source.exact(0, 26)
    size, start, header = (int.from_bytes(head[at : at + 4], "little") for at in (2, 10, 14))
    if head[:2] != b"BM" or header not in _HEADERS:
        raise Refusal("it is no BMP of a kind that is read")
    if head[2:4] == b"/*":
        raise Refusal("its beginning opens a comment of a script")
    compression, stored = _RGB, 0
    if header == 12:
        width, height, _, depth = (int.from_bytes(head[at : at + 2], "little") for at in (18, 20, 22, 24))
    else:
        body = source.exact(14, header) + bytes(40)
        width, height = (int.from_bytes(body[at : at + 4], "little", signed=True) for at in (4, 8))
        depth = int.from_bytes(body[14:16], "little")
        if header > 16:
            compression, stored = (int.from_bytes(body[at : at + 4], "little") for at in (16, 20))
    height = abs(height)
    limits.size(width, height)
    if depth not in _DEPTHS.get(compression, ()) or (header == 64 and compression == _MASKS):
        raise Refusal("its header is broken, or of a kind that is not read")
    if start < 14 + header or start > source.size or start > MAX_HEADERS:
        raise Refusal("its header is broken")
    check_region(source, 14 + header, start, "what is before its pixels")
    encoded = compression in (_RLE8, _RLE4)
    if encoded and width * height > MAX_RLE:
        raise Refusal(f"it is run-length encoded and has more than {MAX_RLE / 1e6:g} million pixels")
    end = start + (width * depth + 31) // 32 * 4 * height
    if encoded:
        end = start + stored if stored else size if size > start else source.size
    if end > source.size:
        raise Refusal("the file is cut off")
    check_end(source, _end_of_profile(source, header, end))
    return Picture(width, height, int(encoded))


def _end_of_profile(source: Source, header: int, end: int) -> int:
    """Behind the pixels there may be a colour profile (BITMAPV5HEADER, bV5CSType "MBED")."""
    if header != 124:
        return end
    body = source.exact(14, 124)
    start, size = (int.from_bytes(body[at : at + 4], "little") for at in (112, 116))
    if body[56:60] != b"DEBM" or not size:
        return end
    start += 14
    if not end <= start <= end + 4 or start + size > source.size:
        raise Refusal("its colour profile is broken")
    check_region(source, start, start + size, "its colour profile")
    return start + size
