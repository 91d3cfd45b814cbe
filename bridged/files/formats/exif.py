"""EXIF and XMP, wherever a picture's container has room for them."""

from __future__ import annotations

from bridged.files.formats.active import check_archives, check_block, check_framed, check_text, suspicious
from bridged.files.formats.ifd import Directories, Directory
from bridged.files.formats.source import Budget, Refusal, Source

EXPLAINED, TABLES = 4, 2
"""times a block's size: the sum of its values that are looked at one by one, and that of its directories and
thumbnails; all of them may overlap, and be very many"""

_THUMBNAIL, _THUMBNAIL_SIZE, _MAKER_NOTE = 0x0201, 0x0202, 0x927C


def check_exif(data: bytes, where: str, budget: Budget) -> None:
    """A TIFF structure with tags; `budget`: the whole file's. Raises Refusal: something active is in it.

    All of it is searched, referenced or not; structure explains a find away: the thumbnail's compressed pixels may
    spell anything, and a value that is JSON may have tags (ComfyUI's graph in WebP).
    """
    check_archives(data, where)
    if suspicious(data) is None:
        return
    source = Source(data.removeprefix(b"Exif\0\0"), budget=budget)
    rest = bytearray(source.read(0, source.size))
    left, tables = EXPLAINED * source.size, TABLES * source.size
    for directories, directory in _directories(source):
        left -= _take_out(source, directory, rest, left)
        if _THUMBNAIL in directory.entries:
            start, size = (directories.number(directory, tag) for tag in (_THUMBNAIL, _THUMBNAIL_SIZE))
            tables -= min(size, source.size)
            if tables > 0:
                _take_out_thumbnail(source, start, size, rest)
    check_block(bytes(rest), where)


def check_xmp(data: bytes, where: str) -> None:
    """XMP is XML of Adobe's own; markup of other kinds has no place in it. Raises Refusal."""
    check_text(data, where)


def _directories(source: Source) -> list[tuple[Directories, Directory]]:
    try:
        directories = Directories(source, 16, lenient=True)
        found, left = [], TABLES * source.size
        for directory in directories:
            found.append((directories, directory))
            left -= directory.end - directory.start
            if left < 0:
                raise Refusal("its directories overlap")
        return found
    except Refusal:
        return []  # broken: nothing is explained, and what was found counts


def _take_out(source: Source, directory: Directory, rest: bytearray, most: int) -> int:
    """Overwrites what is explained; returns how many bytes of values were looked at, at most about `most`."""
    looked_at = 0
    for entry in directory.entries.values():
        if looked_at < most and entry.type in (1, 2, 7, 129) and entry.size > 4 and entry.tag != _MAKER_NOTE:
            looked_at += entry.size
            check_framed(source.read(entry.offset, entry.size), f"its EXIF tag {entry.tag}")
            rest[entry.offset : entry.offset + entry.size] = bytes(entry.size)
    return looked_at


def _take_out_thumbnail(source: Source, start: int, size: int, rest: bytearray) -> None:
    from bridged.files.formats.jpeg import pixels_of  # JPEG has EXIF, and EXIF has a JPEG

    for begin, end in pixels_of(source.part(start, size)):
        rest[start + begin : start + end] = bytes(end - begin)
