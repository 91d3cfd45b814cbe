"""MP4 and QuickTime without metadata: all boxes that players do not need become `free` boxes full of zeros, and so does
what lies in the others beyond what they say they hold. Nothing moves, so that the offsets of the samples (stco, co64)
stay right.

ComfyUI writes a graph as `moov/udta/meta` or `moov/meta` (its containers' metadata, with `use_metadata_tags`); cameras
write places, names and serial numbers into boxes of their own.
Sources: ISO/IEC 14496-12 (boxes, 8.10 user data and metadata, 8.1.2 free space), Apple's QuickTime File Format.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator

from bridged.files.clean_mp4_entries import FREED_IN_ENTRIES, KEPT_IN_ENTRIES, entry_parts
from bridged.files.splice import BLOCK, Piece, Source, Span, Unclean, Zeros, placed

FILE, DESCRIPTIONS, REFERENCES = b"", b"stsd", b"dref"

GROUPS = (b"sbgp", b"sgpd")
KEPT = {
    FILE: frozenset((b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"mfra", b"sidx", b"ssix", b"wide")),
    b"moov": frozenset((b"mvhd", b"trak", b"mvex")),
    b"trak": frozenset((b"tkhd", b"edts", b"tref", b"tapt", b"mdia")),
    b"edts": frozenset((b"elst",)),
    b"tref": frozenset(
        (b"chap", b"tmcd", b"sync", b"subt", b"font", b"vdep", b"vplx", b"auxl", b"thmb", b"cdep", b"fall", b"forc")
    ),
    b"tapt": frozenset((b"clef", b"prof", b"enof")),
    b"mdia": frozenset((b"mdhd", b"hdlr", b"minf")),
    b"minf": frozenset((b"vmhd", b"smhd", b"nmhd", b"sthd", b"gmhd", b"hdlr", b"dinf", b"stbl")),
    b"gmhd": frozenset((b"gmin", b"text", b"tmcd")),
    b"tmcd": frozenset((b"tcmi",)),
    b"dinf": frozenset((REFERENCES,)),
    b"stbl": frozenset(
        (
            *(DESCRIPTIONS, b"stts", b"ctts", b"cslg", b"stss", b"stps", b"stsc", b"stsz", b"stz2", b"stco", b"co64"),
            *(*GROUPS, b"sdtp", b"stsh", b"subs", b"saiz", b"saio"),
        )
    ),
    b"mvex": frozenset((b"mehd", b"trex", b"leva")),
    b"moof": frozenset((b"mfhd", b"traf")),
    b"traf": frozenset((b"tfhd", b"tfdt", b"trun", *GROUPS, b"sdtp", b"subs", b"saiz", b"saio")),
    b"mfra": frozenset((b"tfra", b"mfro")),
    b"wave": frozenset((b"frma", b"enda", b"esds", b"mp4a", b"alac", b"samr", b"QDCA", b"QDCP", b"\0\0\0\0")),
}
"""container -> what stays in it; no box can be in one of its own kind, which bounds the depth"""

FIXED = {
    **{b"mvhd": (100, 112), b"tkhd": (84, 96), b"mdhd": (24, 36), b"vmhd": (12, 12), b"smhd": (8, 8)},
    **{b"nmhd": (4, 4), b"sthd": (4, 4), b"gmin": (16, 16), b"text": (36, 36), b"tcmi": (24, 24), b"wide": (0, 0)},
    **{b"mehd": (8, 12), b"trex": (24, 24), b"mfhd": (8, 8), b"tfdt": (8, 12), b"mfro": (8, 8), b"cslg": (24, 44)},
    **{b"clef": (12, 12), b"prof": (12, 12), b"enof": (12, 12)},
}
"""bytes of content, of version 0 and 1"""

DATED = frozenset((b"mvhd", b"tkhd", b"mdhd"))
"""they say when the file was made"""

TABLES = {
    **{b"stts": 8, b"ctts": 8, b"stsc": 12, b"stco": 4, b"co64": 8, b"stss": 4, b"stps": 4, b"stsh": 8},
    b"stsz": 4,
}
"""bytes of an entry of tables that say how many they have"""

GROUPINGS = frozenset((b"roll", b"prol", b"rap ", b"sync", b"tsas", b"stsa", b"tscl", b"tele", b"sap ", b"alst"))
"""kinds of groups of samples that say how to decode and seek"""

TRACKS = frozenset(
    (
        *(b"vide", b"soun", b"text", b"sbtl", b"subt", b"subp", b"clcp", b"tmcd", b"auxv", b"pict"),
        *(b"alis", b"url "),
    )
)
"""handlers of tracks that are content (and of references to data); others carry places and the like over time"""

TO_CHUNKS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")

BRANDS_MAX, FREED_MAX = 1024, 10_000


def mp4(source: Source) -> Iterator[Piece]:
    if not any(kind == b"moov" for kind, _, _, _ in _heads(source, 0, source.size, True)):
        raise Unclean("it has no description")
    _check_chunks(source)
    yield from _cleaned(source, 0, source.size, FILE, KEPT[FILE])


def _check_chunks(source: Source) -> None:
    """Raises Unclean: samples lie in a box that is no place for them, and would go with it."""
    freed: list[tuple[int, int]] = []
    for kind, at, _, end in _heads(source, 0, source.size, True):
        if kind not in KEPT[FILE]:
            freed.append((at, end))
            if len(freed) > FREED_MAX:
                raise Unclean("it is in too many parts")
    for kind, start, stop in _chunk_tables(source, 0, source.size, 0):
        form, size = (">%dI", 4) if kind == b"stco" else (">%dQ", 8)
        (count,) = struct.unpack(">I", source.at(start + 4, 4))
        stop = min(stop, start + 8 + count * size)
        for at in range(start + 8, stop, BLOCK):
            block = source.at(at, min(BLOCK, stop - at) // size * size)
            for chunk in struct.unpack(form % (len(block) // size), block):
                found = bisect_right(freed, (chunk, source.size)) - 1
                if found >= 0 and chunk < freed[found][1]:
                    raise Unclean("its samples are not where they should be")


def _chunk_tables(source: Source, start: int, stop: int, depth: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, beginning and end of the content of each table that says where samples are."""
    for kind, _, content, end in _heads(source, start, stop, depth == 0):
        if depth == len(TO_CHUNKS):
            if kind in (b"stco", b"co64"):
                yield kind, content, end
        elif kind == TO_CHUNKS[depth]:
            yield from _chunk_tables(source, content, end, depth + 1)


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


def _cleaned(
    source: Source,
    start: int,
    stop: int,
    parent: bytes,
    kept: frozenset[bytes],
    handler: bytes = b"",
) -> Iterator[Piece]:
    """The boxes between two places, inside a `parent`. `handler`: the kind of track they are of."""
    end = start
    if parent == b"mdia":
        for kind, _, content, _ in _heads(source, start, stop, False):
            if kind == b"hdlr":
                handler = source.at(content + 8, 4)
    for kind, at, content, end in _heads(source, start, stop, parent == FILE):
        if kind == b"cmov":
            raise Unclean("its description is compressed")
        if kind not in kept or (kind in GROUPS and source.at(content + 4, 4) not in GROUPINGS):
            yield Span(at, at + 4)
            yield placed(source, at + 4, b"free")
            yield Span(at + 8, content)
            yield Zeros(end - content)
        else:
            yield Span(at, content)
            yield from _content(source, kind, content, end, parent, handler)
    if any(source.at(end, stop - end)):
        raise Unclean("something stands between its boxes")
    yield Span(end, stop)  # QuickTime may end a list with a zero


def _content(source: Source, kind: bytes, start: int, end: int, parent: bytes, handler: bytes) -> Iterator[Piece]:
    """What is in a box that stays."""
    if kind == b"hdlr":
        if source.at(start + 8, 4) not in TRACKS:
            raise Unclean("it has a track of metadata")
        yield from _cut(start, start + 12, end)  # then who made the handler, and its name
    elif kind == DESCRIPTIONS:
        yield from _descriptions(source, start, end, handler)
    elif kind == REFERENCES:
        yield from _references(source, start, end)
    elif kind in KEPT and parent not in (b"tref", b"wave"):
        yield from _cleaned(source, start, end, kind, KEPT[kind], handler)
    elif kind in FIXED and parent != b"tref":
        newer = source.at(start, 1)[0] == 1 if end > start else False
        at = start
        if kind in DATED:
            at = start + (20 if newer else 12)
            yield Span(start, start + 4)
            yield from _cut(start + 4, start + 4, at)
        yield from _cut(at, start + FIXED[kind][newer], end)
    elif kind in TABLES:
        head = 12 if kind == b"stsz" else 8
        words = struct.unpack(f">{head // 4}I", source.at(start, head))
        size = 0 if kind == b"stsz" and words[1] else TABLES[kind]
        yield from _cut(start, start + head + words[-1] * size, end)
    elif kind in (b"ftyp", b"styp") and end - start > BRANDS_MAX:
        raise Unclean("it names too many formats")
    else:
        yield Span(start, end)


def _cut(start: int, kept: int, end: int) -> Iterator[Piece]:
    """Up to `kept` what is there, then zeros."""
    yield Span(start, min(kept, end))
    if kept < end:
        yield Zeros(end - kept)


def _references(source: Source, start: int, end: int) -> Iterator[Piece]:
    """Where the samples are: in this file. What more an entry says is the path that the file once had."""
    yield Span(start, start + 8)
    at = start + 8
    for _, at, content, stop in _heads(source, start + 8, end, False):
        if not source.at(content + 3, 1)[0] & 1:
            raise Unclean("its samples are in another file")
        yield Span(at, content)
        yield from _cut(content, content + 4, stop)
        at = stop
    yield from _cut(at, at, end)


def _descriptions(source: Source, start: int, end: int, handler: bytes) -> Iterator[Piece]:
    """How samples are encoded: of each codec's entry its numbers, and the boxes that decoders need."""
    newer = source.at(start, 1)[0] == 1
    yield Span(start, start + 8)
    stop = start + 8
    for kind, at, content, stop in _heads(source, start + 8, end, False):
        yield Span(at, content)
        place = content
        for part in entry_parts(source, handler, kind, content, stop, newer):
            yield part
            place += part.size if isinstance(part, Zeros) else part.end - part.start
        for inner, _, _, _ in _heads(source, place, stop, False):
            if inner not in KEPT_IN_ENTRIES | FREED_IN_ENTRIES:
                raise Unclean("nobody knows what a part of its codec's settings is")
        yield from _cleaned(source, place, stop, kind, KEPT_IN_ENTRIES)
    yield from _cut(stop, stop, end)
