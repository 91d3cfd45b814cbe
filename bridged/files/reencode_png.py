"""PNG decoded to its scanlines and compressed anew.

Not through Pillow, which decoded it before (`verify`): it would cut 16 bits a channel to 8, lose gamma and
chromaticities, and merge frames. What is written here has the same scanlines, so the same pixels, in chunks that were
all made here.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from bridged.files.clean_images import EXIF_READ, PNG_KEPT, PNG_SIGNATURE, png_chunk
from bridged.files.orientation import UPRIGHT, exif_of, orientation_of
from bridged.files.splice import BLOCK, Source, Unclean
from bridged.files.verify import Rules

CHUNK_MAX = 16_000_000
"""bytes of a chunk that is held in memory: everything but pixels, an ICC profile at most"""

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""colour type -> samples of a pixel (PNG 3rd edition, section 11.2.1)"""

ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""passes of an interlaced picture: first column and row, steps between columns and rows"""

LEVEL = 6


def encode_png(old: BinaryIO, new: BinaryIO, rules: Rules) -> None:
    """Raises Unclean: it is malformed, or larger than the rules allow."""
    source = Source(old)
    if source.at(0, 8) != PNG_SIGNATURE or source.at(12, 4) != b"IHDR":
        raise Unclean("it does not begin as a PNG")
    new.write(PNG_SIGNATURE)
    width, height = struct.unpack(">II", source.at(16, 8))
    depth, colour, _, _, interlaced = source.at(24, 5)
    sequence = 0
    rows: _Rows | None = None
    for kind, at, count in _chunks(source):
        if rows is not None and kind != rows.kind:
            sequence += rows.finish(new)
            rows = None
        if kind == b"fcTL":
            frame = source.at(at, 26)
            if count != 26:
                raise Unclean("a frame of it is malformed")
            width, height = struct.unpack_from(">II", frame, 4)
            new.write(png_chunk(kind, struct.pack(">I", sequence) + frame[4:]))
            sequence += 1
        elif kind in (b"IDAT", b"fdAT"):
            if rows is None:
                if width * height > rules.max_pixels * 1e6 or colour not in CHANNELS:
                    raise Unclean("it is larger than is allowed, or of no known kind")
                lengths = _lengths(width, height, depth * CHANNELS[colour], bool(interlaced))
                rows = _Rows(kind, sequence, lengths)
            skipped = 4 if kind == b"fdAT" else 0
            for start in range(at + skipped, at + count, BLOCK):
                rows.feed(source.at(start, min(BLOCK, at + count - start)), new)
        elif kind in PNG_KEPT or kind == b"eXIf":
            if count > CHUNK_MAX:
                raise Unclean("a chunk of it is too large")
            if kind == b"eXIf":
                orientation = orientation_of(source.at(at, min(count, EXIF_READ)))
                if orientation != UPRIGHT:
                    new.write(png_chunk(kind, exif_of(orientation)))
            else:
                new.write(png_chunk(kind, source.at(at, count)))
        elif not kind[0] & 0x20:
            raise Unclean("it has a critical chunk that nobody knows")


def _chunks(source: Source) -> Iterator[tuple[bytes, int, int]]:
    """(name, where the data begins, its size) of each chunk up to the end."""
    at, kind = 8, b""
    while kind != b"IEND":
        count, kind = struct.unpack(">I4s", source.at(at, 8))
        if at + 12 + count > source.size:
            raise Unclean("it ends too early")
        yield kind, at + 8, count
        at += 12 + count


def _lengths(width: int, height: int, bits: int, interlaced: bool) -> list[tuple[int, int]]:
    """(rows, bytes of each with its filter's number) of each pass."""
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    found = []
    for column, row, over, down in passes:
        columns, rows = -(-(width - column) // over), -(-(height - row) // down)
        if columns > 0 and rows > 0:
            found.append((rows, 1 + (columns * bits + 7) // 8))
    return found


class _Rows:
    """The scanlines of one frame on their way from one compressed stream into another."""

    def __init__(self, kind: bytes, sequence: int, lengths: list[tuple[int, int]]) -> None:
        self.kind = kind
        self._first = self._sequence = sequence
        self._passes = lengths[::-1]
        self._inflate, self._deflate = zlib.decompressobj(), zlib.compressobj(LEVEL)
        self._until_filter = 0
        """bytes until the next row begins"""

    def feed(self, data: bytes, new: BinaryIO) -> None:
        """The next bytes of the old stream. What it has beyond the last row is left out."""
        while data and self._wanted() and not self._inflate.eof:
            try:
                found = self._inflate.decompress(data, BLOCK)
            except zlib.error as error:
                raise Unclean("its pixels cannot be unpacked") from error
            data = self._inflate.unconsumed_tail
            self._write(self._deflate.compress(self._checked(found)), new)

    def finish(self, new: BinaryIO) -> int:
        """Ends the frame; returns how many sequence numbers it took. Raises Unclean: it is not whole."""
        while self._wanted() and not self._inflate.eof:
            found = self._inflate.decompress(self._inflate.unconsumed_tail, BLOCK)
            if not found:
                break
            self._write(self._deflate.compress(self._checked(found)), new)
        if self._wanted():
            raise Unclean("its pixels are not all there")
        self._write(self._deflate.flush(), new)
        return self._sequence - self._first

    def _wanted(self) -> bool:
        return bool(self._passes) or self._until_filter > 0

    def _checked(self, data: bytes) -> bytes:
        """As much of it as belongs to rows, each of which begins with a filter that exists."""
        at = self._until_filter
        while at < len(data) and self._passes:
            if data[at] > 4:
                raise Unclean("its rows are malformed")
            left, length = self._passes.pop()
            if left > 1:
                self._passes.append((left - 1, length))
            at += length
        self._until_filter = max(0, at - len(data))
        return data[:at]

    def _write(self, data: bytes, new: BinaryIO) -> None:
        if not data:
            return
        if self.kind == b"fdAT":
            data = struct.pack(">I", self._sequence) + data
            self._sequence += 1
        new.write(png_chunk(self.kind, data))
