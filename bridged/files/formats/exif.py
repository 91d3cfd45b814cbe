"""EXIF and XMP, wherever a picture's container has room for them."""

from __future__ import annotations

from bridged.files.formats.active import check_archives, check_block, check_framed, check_text, suspicious
from bridged.files.formats.ifd import Directories, Directory
from bridged.files.formats.source import Refusal, Source

EXPLAINED = 4
"""times a block's size: the sum of its values that are looked at one by one; values may overlap, and be very many"""

_THUMBNAIL, _THUMBNAIL_SIZE, _MAKER_NOTE = 0x0201, 0x0202, 0x927C


def check_exif(data: bytes, where: str) -> None:
    """A TIFF structure with tags. Raises Refusal: something active is in it.

    All of it is searched, referenced or not; structure explains a find away: the thumbnail's compressed pixels may
    spell anything, and a value that is JSON may have tags (ComfyUI's graph in WebP).
    """
    check_archives(data, where)
    if suspicious(data) is None:
        return
    source = Source(data.removeprefix(b"Exif\0\0"))
    rest = bytearray(source.read(0, source.size))
    left = EXPLAINED * source.size
    for directories, directory in _directories(source):
        left -= _take_out(source, directories, directory, rest, left)
    check_block(bytes(rest), where)


def check_xmp(data: bytes, where: str) -> None:
    """XMP is XML of Adobe's own; markup of other kinds has no place in it. Raises Refusal."""
    check_text(data, where)


def _directories(source: Source) -> list[tuple[Directories, Directory]]:
    try:
        directories = Directories(source, 16, lenient=True)
        return [(directories, directory) for directory in directories]
    except Refusal:
        return []  # broken: nothing is explained, and what was found counts


def _take_out(source: Source, directories: Directories, directory: Directory, rest: bytearray, most: int) -> int:
    """Overwrites what is explained; returns how many bytes of values were looked at, at most about `most`."""
    looked_at = 0
    for entry in directory.entries.values():
        if looked_at < most and entry.type in (1, 2, 7, 129) and entry.size > 4 and entry.tag != _MAKER_NOTE:
            looked_at += entry.size
            check_framed(source.read(entry.offset, entry.size), f"its EXIF tag {entry.tag}")
            rest[entry.offset : entry.offset + entry.size] = bytes(entry.size)
    if _THUMBNAIL in directory.entries:
        from bridged.files.formats.jpeg import pixels_of  # JPEG has EXIF, and EXIF has a JPEG

        start = directories.number(directory, _THUMBNAIL)
        size = directories.number(directory, _THUMBNAIL_SIZE)
        thumbnail = source.part(start, size)
        for begin, end in pixels_of(thumbnail):
            rest[start + begin : start + end] = bytes(end - begin)
    return looked_at
