"""RIFF chunks, of which WebP and WAV are made: a name, a size, the data, and a zero after data of odd size."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from bridged.files.splice import Piece, Source, Span, Unclean, placed


def riff_chunks(source: Source, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """(name, where it begins, where its data ends) of each chunk. Raises Unclean: one is not whole."""
    while stop - start >= 8:
        kind, size = struct.unpack("<4sI", source.at(start, 8))
        end = start + 8 + size
        if end > min(stop, source.size):
            raise Unclean("it ends too early")
        yield kind, start, end
        start = end + size % 2


def riff_rest(source: Source, start: int, end: int) -> Iterator[Piece]:
    """A chunk from `start` on, padded to an even place; the last one of a file may lack its padding."""
    yield Span(start, end)
    if end % 2:
        yield Span(end, end + 1) if source.upto(end, 1) == b"\0" else b"\0"


def number(source: Source, at: int, form: str, value: int) -> Iterator[Piece]:
    """A number in place of the one that stands there; as it is where it is right already. Raises Unclean: too large."""
    try:
        yield placed(source, at, struct.pack(form, value))
    except struct.error:
        raise Unclean("it is too large") from None
