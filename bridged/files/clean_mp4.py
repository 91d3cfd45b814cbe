"""MP4 and QuickTime without metadata: its boxes become `free` boxes full of zeros. Nothing moves, so that the offsets
of the samples (stco, co64) stay right.

ComfyUI writes a graph as `moov/udta/meta` or `moov/meta` (its containers' metadata, with `use_metadata_tags`).
Sources: ISO/IEC 14496-12 (boxes, 8.10 user data and metadata, 8.1.2 free space), Apple's QuickTime File Format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from bridged.files.splice import Piece, Source, Span, Unclean, Zeros, placed

METADATA = frozenset((b"udta", b"meta", b"uuid", b"free", b"skip", b"pnot", b"PICT", b"meco"))
CONTAINERS = frozenset((b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"mvex", b"moof", b"traf"))
TRACKS = frozenset(
    (
        b"vide",
        b"soun",
        b"text",
        b"sbtl",
        b"subt",
        b"subp",
        b"clcp",
        b"tmcd",
        b"auxv",
        b"pict",
        b"alis",
        b"url ",
    )
)
"""handlers of tracks that are content (and of references to data); others carry places and the like over time"""

DEPTH = 8


def mp4(source: Source) -> Iterator[Piece]:
    if not any(kind == b"moov" for kind, _, _, _ in _heads(source, 0, source.size, True)):
        raise Unclean("it has no description")
    yield from _cleaned(source, 0, source.size, 0)


def _heads(source: Source, at: int, stop: int, outermost: bool) -> Iterator[tuple[bytes, int, int, int]]:
    """(type, where it begins, where its content does, where it ends) of each box."""
    while stop - at >= 8:
        size, kind = struct.unpack(">I4s", source.at(at, 8))
        content = at + 8
        if size == 1:
            (size,) = struct.unpack(">Q", source.at(at + 8, 8))
            content = at + 16
        end = stop if size == 0 and outermost else at + size
        if not content <= end <= stop:
            raise Unclean("it ends too early")
        yield kind, at, content, end
        at = end


def _cleaned(source: Source, start: int, stop: int, depth: int) -> Iterator[Piece]:
    if depth > DEPTH:
        raise Unclean("its boxes are nested too deeply")
    end = start
    for kind, at, content, end in _heads(source, start, stop, depth == 0):
        if kind in METADATA:
            yield Span(at, at + 4)
            yield placed(source, at + 4, b"free")
            yield Span(at + 8, content)
            if end > content:
                yield Zeros(end - content)
        elif kind in CONTAINERS:
            yield Span(at, content)
            yield from _cleaned(source, content, end, depth + 1)
        else:
            if kind == b"cmov":
                raise Unclean("its description is compressed")
            if kind == b"hdlr" and source.at(content + 8, 4) not in TRACKS:
                raise Unclean("it has a track of metadata")
            yield Span(at, end)
    if any(source.at(end, stop - end)):
        raise Unclean("something stands between its boxes")
    yield Span(end, stop)  # QuickTime may end a list with a zero
