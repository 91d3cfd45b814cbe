"""A file rewritten as a sequence of pieces: stretches of what it was, new bytes, zeros. Memory stays constant.

Whoever cleans a format (`clean_*.py`) walks through the file and yields pieces; the stretches that are kept are never
looked at. Blocking.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO, NamedTuple

BLOCK = 256 * 1024

MAX_PIECES = 2_000_000
"""far above any real file (a gigabyte of Ogg has 250,000): bounds the time"""


class Unclean(ValueError):
    """This file cannot be cleaned for certain; the message says why, as the end of a sentence."""


class Span(NamedTuple):
    """The file's own bytes from `start` up to `end`."""

    start: int
    end: int


class Zeros(NamedTuple):
    """So many zero bytes."""

    size: int


Piece = Span | Zeros | bytes


class Source:
    """A file that is read here and there. `size` in bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, 2)

    def at(self, offset: int, count: int) -> bytes:
        """Exactly these bytes. Raises Unclean: the file ends before."""
        data = self.upto(offset, count)
        if len(data) != count:
            raise Unclean("it ends too early")
        return data

    def upto(self, offset: int, count: int) -> bytes:
        """These bytes, or as many of them as there are."""
        if offset >= self.size:
            return b""
        self._file.seek(offset)
        return self._file.read(min(count, self.size - offset))


def rewrite(source: Source, pieces: Iterable[Piece], sink: BinaryIO) -> bool:
    """Writes the pieces. False, and nothing written, where they are the whole file as it is.

    Raises Unclean."""
    kept: Span | None = None
    written = False
    for number, piece in enumerate(pieces):
        if number > MAX_PIECES:
            raise Unclean("it is in too many parts")
        if isinstance(piece, Span) and kept is not None and piece.start == kept.end:
            kept = Span(kept.start, piece.end)
            continue
        if kept is not None:
            _copy(source, kept, sink)
            written = True
        kept = None
        if isinstance(piece, Span):
            kept = piece
            continue
        written = True
        if isinstance(piece, bytes):
            sink.write(piece)
        else:
            _zeros(piece.size, sink)
    if kept == Span(0, source.size) and not written:
        return False
    if kept is not None:
        _copy(source, kept, sink)
    return True


def placed(source: Source, at: int, data: bytes) -> Piece:
    """These bytes; as what stands there, where it is the same already."""
    return Span(at, at + len(data)) if source.upto(at, len(data)) == data else data


def length(pieces: Iterable[Piece]) -> int:
    """How many bytes they will be: for headers that say so in advance."""
    total = 0
    for piece in pieces:
        if isinstance(piece, Span):
            total += piece.end - piece.start
        else:
            total += len(piece) if isinstance(piece, bytes) else piece.size
    return total


def _copy(source: Source, span: Span, sink: BinaryIO) -> None:
    for start in range(span.start, span.end, BLOCK):
        sink.write(source.at(start, min(BLOCK, span.end - start)))


def _zeros(count: int, sink: BinaryIO) -> None:
    nothing = bytes(min(BLOCK, count))
    for start in range(0, count, BLOCK):
        sink.write(nothing[: count - start])
