"""A JPEG file: a picture, and what cameras and phones put behind it.

Facts: CIPA DC-007 (Multi-Picture Format), Android's Ultra HDR (a gain map: one more JPEG) and Motion Photo 1.0 (an MP4
at the end); Samsung's trailer as ExifTool's Samsung.pm reads it: entries, then SEFH with a directory of them (distance
backwards, size), the directory's length, then SEFT. Anything else is judged as leftovers (`trailing.py`).
"""

from __future__ import annotations

from struct import Struct

from bridged.files.formats.active import check_block, check_region
from bridged.files.formats.bmff import walk_bmff
from bridged.files.formats.jpeg import walk_jpeg
from bridged.files.formats.limits import Limits, Picture
from bridged.files.formats.source import Refusal, Source
from bridged.files.formats.trailing import UNKNOWN, check_leftovers, name_of, skip_padding

MAX_PICTURES = 64
"""JPEGs in one file: stereo has 2, a gain map 2, panoramas of MPF a few dozen"""

MAX_ENTRIES = 256

_FILL = b"\0\xff \r\n"
"""what cameras fill a sector with"""

_ENTRY = Struct("<2xHII")


def check_jpeg(source: Source, limits: Limits) -> Picture:
    """Walks to the end of the file. Raises Refusal: broken, too large, active content, or something behind it."""
    walked = walk_jpeg(source, limits)
    end = _further(source, limits, walked.end)
    if video := _video(source, end):
        end = walk_bmff(source, video, trailing=True)
    if end >= source.size or source.read(source.size - 4, 4) != b"SEFT" or not _samsung(source, limits, end):
        check_leftovers(source, skip_padding(source, end, _FILL))
    return walked.picture


def _further(source: Source, limits: Limits, end: int) -> int:
    """The end of the last of the JPEGs that follow each other."""
    for _ in range(MAX_PICTURES):
        start = skip_padding(source, end, b"\0")
        if source.read(start, 2) == b"\xff\xff":
            start = skip_padding(source, start, b"\xff") - 1
        if source.read(start, 3) != b"\xff\xd8\xff":
            return end
        end = walk_jpeg(source, limits, start).end
    raise Refusal(f"it has more than {MAX_PICTURES} pictures")


def _video(source: Source, end: int) -> int:
    """Where an MP4 begins behind the pictures, perhaps behind padding; 0 where none does. Its first box has less than
    64 kB, so that the length begins with zeros, too."""
    start = skip_padding(source, end)
    places = (place for place in (start - 3, start - 2) if place >= end)
    return next((place for place in places if source.read(place + 4, 4) == b"ftyp"), 0)


def _samsung(source: Source, limits: Limits, start: int) -> bool:
    """Looks at each entry of a trailer that fits into itself; False where it does not."""
    end = source.size - 8
    length = int.from_bytes(source.exact(end, 4), "little")
    directory = end - length
    head = source.exact(directory, 12) if start <= directory <= end - 12 else b""
    count = int.from_bytes(head[8:12], "little")
    if head[:4] != b"SEFH" or count > MAX_ENTRIES or length < 12 + 12 * count:
        return False
    entries = sorted(
        (directory - back, size, kind)
        for kind, back, size in _ENTRY.iter_unpack(source.exact(directory + 12, 12 * count))
    )
    at = start
    for offset, size, kind in entries:
        if offset < at or size < 8 or offset + size > directory or _gap(source, at, offset):
            return False
        name_size = int.from_bytes(source.exact(offset + 4, 4), "little")
        if source.read(offset + 2, 2) != kind.to_bytes(2, "little") or name_size > min(size - 8, 256):
            return False
        check_block(source.exact(offset + 8, name_size), "its trailer")
        _samsung_entry(source.part(offset + 8 + name_size, size - 8 - name_size), limits)
        at = offset + size
    return at == directory


def _gap(source: Source, start: int, end: int) -> bool:
    """Whether something is between two places."""
    part = source.part(start, end - start)
    return skip_padding(part, 0) != part.size


def _samsung_entry(entry: Source, limits: Limits) -> None:
    if entry.read(4, 4) == b"ftyp":
        walk_bmff(entry, 0)
    elif entry.read(0, 3) == b"\xff\xd8\xff":
        check_leftovers(entry, walk_jpeg(entry, limits).end)
    else:
        check_region(entry, 0, entry.size, "its trailer")
        if (what := name_of(entry.read(0, 512))) not in (UNKNOWN, "markup"):
            raise Refusal(f"{what} is in its trailer")
