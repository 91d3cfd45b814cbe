"""PNG and APNG: every chunk, and every scanline in constant memory.

Facts: PNG third edition (W3C, 2025), which has APNG; chunk `comf` is ComfyUI's (0.3.64, SaveAnimatedPNG).
"""

from __future__ import annotations

import zlib
from struct import Struct

from bridged.files.formats.active import MAX_TEXT, check_block, check_region, check_text
from bridged.files.formats.exif import check_exif
from bridged.files.formats.limits import Limits, Picture
from bridged.files.formats.source import BLOCK, Refusal, Source
from bridged.files.formats.trailing import check_end

SIGNATURE = b"\x89PNG\r\n\x1a\n"

MAX_CHUNKS = 250_000
"""encoders write 8 kB at a time, so 1 GB has 125,000"""

MAX_UNPACKED = 32 * 1024 * 1024
"""bytes of all packed texts together"""

_HEAD = Struct(">I4s")
_HEADER = Struct(">IIBBBBB")
_FRAME = Struct(">IIIII")
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""x and y of the first pixel, steps in x and y, per pass"""

_PLAIN = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9, b"tIME": 7, b"cICP": 4, b"bKGD": 1, b"sBIT": 1}
"""chunks of a few numbers, and the bytes that they need at least"""

FEW = 8
"""bytes of such a chunk in which nothing active has room"""


def check_png(source: Source, limits: Limits) -> Picture:
    """Walks to the end of the file. Raises Refusal: broken, too large, or with active content."""
    picture, end = walk_png(source, limits)
    check_end(source, end)
    return picture


def walk_png(source: Source, limits: Limits) -> tuple[Picture, int]:
    """The picture, and where it ends. Raises Refusal."""
    if source.read(0, 8) != SIGNATURE:
        raise Refusal("it is no PNG")
    walk = _Walk(source, limits)
    position = 8
    for _ in range(MAX_CHUNKS):
        length, kind = _HEAD.unpack(source.exact(position, 8))
        if length > source.size - position - 12:
            raise Refusal("the file is cut off" if kind.isalpha() else "it has data that are no PNG chunk")
        if not kind.isalpha():
            raise Refusal("it has data that are no PNG chunk")
        walk.take(kind, position + 8, length)
        position += length + 12
        if kind == b"IEND":
            return walk.picture, position
    raise Refusal(f"it has more than {MAX_CHUNKS} chunks")


class _Walk:
    def __init__(self, source: Source, limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._header: tuple[int, ...] = ()
        self._before = b""
        self._palette = False
        self._data: _Scanlines | None = None
        self._has_data = False
        self._frames = self._frames_seen = self._sequence = self._unpacked = self._rows = 0
        self._exif = False
        self.picture = Picture(0, 0)

    def take(self, kind: bytes, start: int, length: int) -> None:
        if not self._before and kind != b"IHDR":
            raise Refusal("its header is not its first chunk")
        if kind == b"IDAT":
            self._idat(start, length)
        elif kind == b"fdAT":
            if self._data is None or not self._frames_seen or not self._has_data or length < 4:
                raise Refusal("it has frame data without a frame")
            self._number(self._source.exact(start, 4))
            self._pixels(kind, start, length, skip=4)
        elif length > MAX_TEXT:
            self._check_sum_of_large(kind, start, length)
        else:
            body = self._source.exact(start, length + 4)
            data = body[:length]
            if zlib.crc32(data, zlib.crc32(kind)) != int.from_bytes(body[length:], "big"):
                raise Refusal(f"its chunk {kind.decode()} has a wrong checksum")
            self._chunk(kind, data)
        self._before = kind

    def _chunk(self, kind: bytes, data: bytes) -> None:
        if kind == b"IHDR":
            self._ihdr(data)
        elif kind == b"PLTE":
            if self._palette or self._has_data or not data or len(data) % 3 or len(data) > 768:
                raise Refusal("its palette is broken")
            check_block(data, "its palette")
            self._palette = True
        elif kind == b"IEND":
            self._end(data)
        elif kind == b"acTL":
            self._animation(data)
        elif kind == b"fcTL":
            self._frame(data)
        elif not kind[0] & 0x20:
            raise Refusal(f"it has an unknown critical chunk, {kind.decode()}")
        elif len(data) < _PLAIN.get(kind, 0):
            raise Refusal(f"its chunk {kind.decode()} is broken")
        elif kind == b"eXIf" and self._exif:
            raise Refusal("it has EXIF twice")
        elif kind not in _PLAIN or len(data) > FEW:
            self._exif |= kind == b"eXIf"
            self._unpacked += _check_metadata(kind, data, self._source)
            if self._unpacked > MAX_UNPACKED:
                raise Refusal(f"its texts unpack to more than {MAX_UNPACKED // 2**20} MB")

    def _ihdr(self, data: bytes) -> None:
        if self._before or len(data) != 13:
            raise Refusal("its header is broken")
        self._header = width, height, depth, colour, compression, filters, interlace = _HEADER.unpack(data)
        if depth not in _DEPTHS.get(colour, ()) or compression or filters or interlace > 1:
            raise Refusal("its header is broken")
        self._limits.size(width, height)
        self.picture = Picture(width, height)

    def _idat(self, start: int, length: int) -> None:
        if not self._has_data:
            width, height, _, colour, *_ = self._header
            if colour == 3 and not self._palette:
                raise Refusal("it has no palette")
            self._has_data = True
            self._data = self._scanlines(width, height)
        elif self._before != b"IDAT":
            raise Refusal("its pixel data are not in one row")
        self._pixels(b"IDAT", start, length)

    def _pixels(self, kind: bytes, start: int, length: int, skip: int = 0) -> None:
        assert self._data is not None
        checksum = zlib.crc32(self._source.exact(start, skip), zlib.crc32(kind))
        for block in self._source.blocks(start + skip, start + length):
            checksum = zlib.crc32(block, checksum)
            self._data.feed(block)
        if checksum != int.from_bytes(self._source.exact(start + length, 4), "big"):
            raise Refusal(f"its chunk {kind.decode()} has a wrong checksum")

    def _scanlines(self, width: int, height: int) -> _Scanlines:
        bits = self._header[2] * _CHANNELS[self._header[3]]
        if self._frames:
            self._rows += (width * bits + 7) // 8 * height
            if self._rows > self._limits.unpacked:
                raise Refusal(f"its frames unpack to more than {self._limits.unpacked / 1e6:g} MB together")
        return _Scanlines(width, height, bits, interlaced=bool(self._header[6]))

    def _animation(self, data: bytes) -> None:
        if self._has_data or self._frames or len(data) != 8:
            raise Refusal("its animation is broken")
        self._frames = int.from_bytes(data[:4], "big")
        if not self._frames:
            raise Refusal("its animation has no frames")
        self._limits.frames_of(*self.picture[:2], self._frames)
        self.picture = self.picture._replace(frames=self._frames)

    def _frame(self, data: bytes) -> None:
        if not self._frames or len(data) != 26 or self._before == b"fcTL":
            raise Refusal("its animation is broken")
        if self._frames_seen or self._has_data:
            self._finish_data()
        self._number(data[:4])
        _, width, height, x, y = _FRAME.unpack_from(data)
        if not width or not height or x + width > self.picture.width or y + height > self.picture.height:
            raise Refusal("a frame lies outside the picture")
        self._frames_seen += 1
        if self._has_data:
            self._data = self._scanlines(width, height)
        elif (width, height) != self.picture[:2]:
            raise Refusal("its first frame does not fit its size")

    def _number(self, data: bytes) -> None:
        if int.from_bytes(data, "big") != self._sequence:
            raise Refusal("its animation's pieces are out of order")
        self._sequence += 1

    def _finish_data(self) -> None:
        if self._data is None:
            raise Refusal("its animation is broken")
        self._data.finish()

    def _end(self, data: bytes) -> None:
        if data or not self._has_data:
            raise Refusal("it has no pixel data" if not self._has_data else "its end is broken")
        self._finish_data()
        if self._frames_seen != self._frames:
            raise Refusal("it has another number of frames than it says")

    def _check_sum_of_large(self, kind: bytes, start: int, length: int) -> None:
        if not kind[0] & 0x20 or kind in _TEXTS:
            raise Refusal(f"its chunk {kind.decode()} is larger than {MAX_TEXT // 2**20} MB")
        checksum = zlib.crc32(kind)
        for block in self._source.blocks(start, start + length):
            checksum = zlib.crc32(block, checksum)
        if checksum != int.from_bytes(self._source.exact(start + length, 4), "big"):
            raise Refusal(f"its chunk {kind.decode()} has a wrong checksum")
        check_region(self._source, start, start + length, f"its chunk {kind.decode()}")


class _Scanlines:
    """Takes a picture's compressed data and counts what comes out, row by row, without keeping it."""

    def __init__(self, width: int, height: int, bits: int, *, interlaced: bool) -> None:
        passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
        sizes = [((width - x + dx - 1) // dx, (height - y + dy - 1) // dy) for x, y, dx, dy in passes]
        self._passes = [(1 + (columns * bits + 7) // 8, rows) for columns, rows in sizes if columns > 0 and rows > 0]
        self._passes.reverse()
        self._inflate = zlib.decompressobj()
        self._stride = self._left = self._until_filter = 0

    def feed(self, data: bytes) -> None:
        inflate = self._inflate
        while True:
            if inflate.eof:
                if data or inflate.unused_data:
                    raise Refusal("data follow its compressed pixels")
                return
            try:
                block = inflate.decompress(data, BLOCK)
            except zlib.error:
                raise Refusal("its pixel data cannot be unpacked") from None
            self._count(block)
            data = inflate.unconsumed_tail
            if not data and len(block) < BLOCK and not inflate.unused_data:
                return

    def finish(self) -> None:
        self.feed(b"")
        if self._left or self._passes or not self._inflate.eof:
            raise Refusal("its pixel data are cut off")

    def _count(self, block: bytes) -> None:
        at = 0
        while at < len(block):
            if not self._left:
                if not self._passes:
                    raise Refusal("it has more pixel data than its size needs")
                self._stride, rows = self._passes.pop()
                self._left, self._until_filter = self._stride * rows, 0
            taken = min(len(block) - at, self._left)
            if self._until_filter < taken:
                filters = block[at + self._until_filter : at + taken : self._stride]
                if filters.translate(None, b"\0\1\2\3\4"):
                    raise Refusal("its pixel data are broken")
            self._until_filter = (self._until_filter - taken) % self._stride
            self._left -= taken
            at += taken


_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"comf"})


def _check_metadata(kind: bytes, data: bytes, file: Source) -> int:
    """Returns how many bytes were unpacked for it."""
    unpacked = 0
    where = f"its chunk {kind.decode()}"
    keyword, _, rest = data.partition(b"\0")
    if kind in (b"tEXt", b"comf"):
        check_text(keyword, where)
        check_text(rest, where)
    elif kind == b"zTXt":
        check_text(keyword, where)
        check_text(text := _unpack(rest[1:], where), where)
        unpacked = len(text)
    elif kind == b"iCCP":
        check_text(keyword, where)
        check_block(profile := _unpack(rest[1:], where), where)
        unpacked = len(profile)
    elif kind == b"iTXt":
        language, _, more = rest[2:].partition(b"\0")
        translated, _, text = more.partition(b"\0")
        if rest[:1] == b"\1":
            text = _unpack(text, where)
            unpacked = len(text)
        for piece in (keyword, language, translated, text):
            check_text(piece, where)
    elif kind == b"eXIf":
        check_exif(data, where, file.budget)
    else:
        check_block(data, where)
    return unpacked


def _unpack(data: bytes, where: str) -> bytes:
    inflate = zlib.decompressobj()
    try:
        text = inflate.decompress(data, MAX_TEXT + 1)
    except zlib.error:
        raise Refusal(f"{where} cannot be unpacked") from None
    if len(text) > MAX_TEXT:
        raise Refusal(f"{where} unpacks to more than {MAX_TEXT // 2**20} MB")
    check_block(inflate.unused_data, where)
    return text
