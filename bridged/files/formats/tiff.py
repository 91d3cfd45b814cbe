"""TIFF files: their pages, where everything in them lies, and that nothing lies elsewhere.

Facts: TIFF 6.0; tags of Adobe (700 XMP, 34377 image resources, 34675 ICC, 37724 layers) and of EXIF 2.32.
"""

from __future__ import annotations

from bridged.files.formats.active import MAX_TEXT, check_framed, check_region
from bridged.files.formats.ifd import Directories, Directory, Entry, equal
from bridged.files.formats.limits import Limits, PaddedPicture, Picture
from bridged.files.formats.source import Refusal, Source
from bridged.files.formats.trailing import check_leftovers

_WIDTH, _HEIGHT, _BITS, _SAMPLES, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 258, 277, 322, 323
_STRIPS, _TILES, _ROWS, _PLANES = 273, 324, 278, 284
_COMPRESSION, _COLOURS, _STRIP_SIZES = 259, 262, 279
_YCBCR = 6
"""may have fewer samples of colour than pixels"""
_DATA = ((273, 279), (324, 325), (513, 514))
"""tags of offsets and of their sizes: strips, tiles, an old-style JPEG; what it calls free (288, 289) is not used"""

MAX_TAGS = 64 * 1024 * 1024
"""bytes of all tags' values: decoders read them into memory"""

MAX_PARTS = 1_000_000
"""strips, tiles, tags and directories"""

MAX_PADDING, LARGE_TILE, PART = 4, 2048 * 2048, 1024
"""times a page's pixels that its tiles may have, or as many pixels in any case; and the pixels that a further strip or
tile counts at least, since each costs its decoder some time"""

_JPEG_TABLES = frozenset({513, 519, 520, 521})


class _Map:
    """What of the file is referenced by something."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._parts: list[tuple[int, int]] = []
        self._tags = 0

    def add(self, start: int, size: int) -> None:
        if start + size > self._source.size:
            raise Refusal("the file is cut off: its pixels are not all there")
        if len(self._parts) > MAX_PARTS:
            raise Refusal(f"it has more than {MAX_PARTS} parts")
        if size:
            self._parts.append((start, start + size))

    def tag(self, entry: Entry) -> None:
        self.add(entry.offset, entry.size)
        self._tags += entry.size
        if self._tags > MAX_TAGS:
            raise Refusal(f"its tags have more than {MAX_TAGS // 2**20} MB")

    def check_rest(self) -> None:
        """What nothing refers to: space between the parts, and behind the last one."""
        end = 0
        for start, behind in sorted(self._parts):
            if start > end and not equal(self._source, end, start, 0):
                check_region(self._source, end, start, "unused space in it")
            end = max(end, behind)
        check_leftovers(self._source, end)


def check_tiff(source: Source, limits: Limits) -> Picture:
    """Raises Refusal: loops, parts out of range, too large, active content, or something behind it."""
    directories = Directories(source, limits.frames)
    used = _Map(source)
    used.add(0, directories.header_size)
    width = height = pixels = frames = padded = 0
    for directory in directories:
        used.add(directory.start, directory.end - directory.start)
        for entry in directory.entries.values():
            used.tag(entry)
            _check_tag(source, entry)
        _pixels(directories, directory, used)
        if _WIDTH in directory.entries:
            wide, high = directories.number(directory, _WIDTH), directories.number(directory, _HEIGHT)
            limits.size(wide, high)
            cost = _layout(directories, directory, limits, wide, high)
            _check_plain_strips(directories, directory, wide, high)
            if not directory.depth:
                frames += 1
                pixels += wide * high
                padded += cost
                if frames == 1:
                    width, height = wide, high
        elif not directory.depth:
            raise Refusal("one of its pages has no size")
    if not frames:
        raise Refusal("it has no picture")
    limits.frames_of(1, max(pixels, padded), 1)
    used.check_rest()
    picture = PaddedPicture(width, height, frames)
    picture.padded = padded
    return picture


def _layout(directories: Directories, directory: Directory, limits: Limits, width: int, height: int) -> int:
    """Tiles and samples that a decoder makes room for before it reads any; returns the page's cost in pixels of 4
    bytes. Tiles may be much larger than the page, and pages may share them.
    """
    wide, high = directories.number(directory, _TILE_WIDTH, 1), directories.number(directory, _TILE_HEIGHT, 1)
    samples = directories.number(directory, _SAMPLES, 1)
    bits = directories.number(directory, _BITS, 1)
    if not 0 < wide <= limits.side + 1024 or not 0 < high <= limits.side + 1024 or wide * high > limits.pixels:
        raise Refusal("its tiles are too large")
    if not 0 < samples <= 16 or not 0 < bits <= 64:
        raise Refusal("it has a form that is not read")
    entries = directory.entries
    count = max((entries[tag].count for tag in (_STRIPS, _TILES) if tag in entries), default=1)
    apart = directories.number(directory, _PLANES, 1) == 2
    area = width * height * (samples if apart else 1)
    if _TILE_WIDTH in entries or _TILE_HEIGHT in entries:
        needed = -(-width // wide) * -(-height // high) * (samples if apart else 1)
        area = max(area, max(count, needed) * wide * high)
    else:
        rows = min(directories.number(directory, _ROWS, height) or height, height)
        area = max(area, (count - 1) * rows * width)
    if area > max(MAX_PADDING * width * height * (samples if apart else 1), LARGE_TILE):
        raise Refusal("its tiles are too large")
    return max(area, area * bits * (1 if apart else samples) // 32, (count - 1) * PART)


def _check_plain_strips(directories: Directories, directory: Directory, width: int, height: int) -> None:
    """Raises Refusal: rows without compression take more bytes than it says. Decoders read on regardless, so whoever
    copies what it says would lose pixels."""
    size = directory.entries.get(_STRIP_SIZES)
    plain = directories.number(directory, _COMPRESSION, 1) == 1 and directories.number(directory, _COLOURS, 1) != _YCBCR
    if size is None or not plain:
        return
    samples = directories.number(directory, _SAMPLES, 1)
    apart = directories.number(directory, _PLANES, 1) == 2
    row = (width * directories.number(directory, _BITS, 1) * (1 if apart else samples) + 7) // 8
    rows = min(directories.number(directory, _ROWS, height) or height, height)
    strips = -(-height // rows)
    for number, count in enumerate(directories.integers(size)[: strips * (samples if apart else 1)]):
        if count < row * min(rows, height - number % strips * rows):
            raise Refusal("its pixel data are cut off")


def _pixels(directories: Directories, directory: Directory, used: _Map) -> None:
    for offsets, sizes in _DATA:
        where, size = directory.entries.get(offsets), directory.entries.get(sizes)
        if where is None or size is None:
            continue
        starts, counts = directories.integers(where), directories.integers(size)
        if len(starts) != len(counts) and offsets != 513:
            raise Refusal("its pixel data are broken")
        for start, count in zip(starts, counts, strict=False):
            used.add(start, count)
    for tag in _JPEG_TABLES & directory.entries.keys():
        for start in directories.integers(directory.entries[tag]):
            used.add(start, min(1024, max(0, directories.source.size - start)))


def _check_tag(source: Source, entry: Entry) -> None:
    if entry.size <= 4:
        return
    where = f"its tag {entry.tag}"
    if entry.size <= MAX_TEXT:
        check_framed(source.exact(entry.offset, entry.size), where)
    else:
        check_region(source, entry.offset, entry.offset + entry.size, where)
