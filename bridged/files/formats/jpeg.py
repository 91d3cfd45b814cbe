"""JPEG: every marker up to the last, and what may follow it.

Facts: ITU-T T.81 annex B; CIPA DC-007 (MPF: further whole JPEGs behind the first); Android's Motion Photo 1.0 (an MP4
behind the last JPEG): `jpeg_file.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from bridged.files.formats.active import check_block, check_text
from bridged.files.formats.exif import check_exif, check_xmp
from bridged.files.formats.limits import Limits, Picture
from bridged.files.formats.source import BLOCK, Budget, Refusal, Source
from bridged.files.formats.trailing import skip_padding

MAX_SEGMENTS, MAX_SCANS = 20_000, 100
"""marker segments and scans of one picture; a usual progressive file has 10 scans, libjpeg's longest script 24"""

MAX_FILL = 256 * 1024
"""bytes of 0xFF before markers, which decoders pass over one by one"""

MAX_EXTRA = 16 * 1024 * 1024
"""bytes of metadata: decoders hold them in memory, and join them again with every piece; depth maps have 5 MB"""

MAX_SCANNED = 30
"""times `max_pixels`: pixels of one picture times its scans, each of which costs a decoder a walk over all of them"""

_NEXT = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_NO_FRAMES = frozenset({0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF, 0xC8})
_XMP = (b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0")
_SCRIPT = re.compile(rb"\*/\s*[=;(,]")


class Walked(NamedTuple):
    """`end`: the first byte behind the picture. `pixels`: where its compressed data are."""

    picture: Picture
    end: int
    pixels: list[tuple[int, int]]


def walk_jpeg(source: Source, limits: Limits | None, start: int = 0, *, metadata: bool = True) -> Walked:
    """One picture, from SOI to EOI. Raises Refusal: broken, too large, or (with `metadata`) with active content."""
    if source.read(start, 2) != b"\xff\xd8":
        raise Refusal("it is no JPEG")
    position, width, height, scans = start + 2, 0, 0, 0
    pixels: list[tuple[int, int]] = []
    script = source.read(start + 4, 2) == b"/*"
    fill = extra = 0
    for _ in range(MAX_SEGMENTS):
        before = position
        position, marker = _marker(source, position)
        fill += position - before - 2
        if fill > MAX_FILL:
            raise Refusal("it has too many bytes between its segments")
        if marker == 0xD9:
            if not scans:
                raise Refusal("it has no pixel data")
            return Walked(Picture(width, height), position, pixels)
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:
            continue
        if marker in (0x00, 0xD8):
            raise Refusal("its structure is broken")
        length = int.from_bytes(source.exact(position, 2), "big")
        if length < 2:
            raise Refusal("its structure is broken")
        body, end = position + 2, position + length
        if end > source.size:
            raise Refusal("the file is cut off")
        if marker in _FRAMES:
            if width or length < 8:
                raise Refusal("its structure is broken")
            header = source.exact(body, 6)
            height, width = int.from_bytes(header[1:3], "big"), int.from_bytes(header[3:5], "big")
            if limits:
                limits.size(width, height)
            if header[5] not in (1, 3, 4) or length != 8 + 3 * header[5]:
                raise Refusal("its header is broken")
        elif marker in _NO_FRAMES:
            raise Refusal("it has a form of JPEG that is not read by common decoders")
        elif marker == 0xDA:
            scans += 1
            if not width or scans > MAX_SCANS or (limits and scans * width * height > MAX_SCANNED * limits.pixels):
                raise Refusal("it has too many scans" if width else "its structure is broken")
            behind = _end_of_scan(source, end)
            pixels.append((end, behind))
            end = behind
        elif metadata:
            extra += length
            if extra > MAX_EXTRA:
                raise Refusal(f"it has more than {MAX_EXTRA // 2**20} MB of metadata")
            _check_metadata(marker, source.exact(body, end - body), source.budget, script=script)
        position = end
    raise Refusal(f"it has more than {MAX_SEGMENTS} segments")


def pixels_of(thumbnail: Source) -> Iterator[tuple[int, int]]:
    """Where the compressed data of a thumbnail are; nothing where it is no JPEG. Its metadata are not looked at."""
    try:
        yield from walk_jpeg(thumbnail, None, metadata=False).pixels
    except Refusal:
        return


def _marker(source: Source, position: int) -> tuple[int, int]:
    """The marker that has to be here, and the place behind it; 0xFF may fill the space before."""
    head = source.exact(position, 2)
    if head[0] != 0xFF:
        raise Refusal("its structure is broken: data between its segments")
    if head[1] == 0xFF:
        position = skip_padding(source, position + 1, b"\xff") - 1
        head = source.exact(position, 2)
    return position + 2, head[1]


def _end_of_scan(source: Source, start: int) -> int:
    position = start
    while True:
        block = source.read(position, BLOCK)
        if found := _NEXT.search(block):
            return position + found.start()
        if len(block) < BLOCK:
            raise Refusal("the file is cut off")
        position += len(block) - 1  # a marker may lie across two blocks


def _check_metadata(marker: int, data: bytes, budget: Budget, *, script: bool) -> None:
    where = "its comment" if marker == 0xFE else f"its segment {marker:02X}"
    if 0xE0 <= marker <= 0xEF:
        where = f"its segment APP{marker - 0xE0}"
    if script and _SCRIPT.search(data):
        raise Refusal(f"{where} ends a comment of a script, which the file's beginning opens")
    if marker == 0xFE:
        check_text(data, where)
    elif marker == 0xE1 and data.startswith(b"Exif\0"):
        check_exif(data[6:], "its EXIF", budget)
    elif marker == 0xE1 and data.startswith(_XMP):
        check_xmp(data, "its XMP")
    else:
        check_block(data, where)
