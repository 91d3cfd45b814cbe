"""The entries of an MP4's `stsd`, one for each way its samples are encoded: which of their numbers stay.

Sources: ISO/IEC 14496-12 (8.5.2 sample description, 12.1.3 video, 12.2.3 sound), 14496-30 (WebVTT), 3GPP TS 26.245
(tx3g), Apple's QuickTime File Format (sound of version 1 and 2, text, time code).
"""

from __future__ import annotations

from collections.abc import Iterator

from bridged.files.splice import Source, Span, Unclean, Zeros

KEPT_IN_ENTRIES = frozenset(
    (
        *(b"avcC", b"hvcC", b"lhvC", b"vvcC", b"vpcC", b"av1C", b"dvcC", b"dvvC", b"dvwC", b"hvcE", b"esds", b"glbl"),
        *(b"colr", b"pasp", b"clap", b"fiel", b"gama", b"btrt", b"mdcv", b"clli", b"SmDm", b"CoLL", b"amve", b"cclv"),
        *(b"st3d", b"sv3d", b"vexu", b"hfov", b"d263", b"jp2h", b"ACLR", b"ADHR", b"APRG", b"ARES", b"SMI "),
        *(b"wave", b"chan", b"chnl", b"srat", b"dfLa", b"dOps", b"alac", b"dac3", b"dec3", b"dac4", b"dmlp", b"ddts"),
        *(b"damr", b"wfex", b"pcmC", b"mhaC", b"ftab", b"vttC", b"frma", b"enda"),
    )
)
"""what decoders need, and how to show it"""

FREED_IN_ENTRIES = frozenset((b"udta", b"meta", b"uuid", b"free", b"skip", b"name", b"vlab", b"wide"))

ENCRYPTED = frozenset((b"encv", b"enca", b"enct", b"encs", b"drmi", b"drms"))

VIDEO, SOUND = 78, 28
"""bytes before the first box, behind the entry's own head"""

OTHERS = {b"tx3g": 38, b"wvtt": 8, b"c608": 8, b"c708": 8, b"mp4s": 8, b"tmcd": 26}
TEXT = 51
"""QuickTime's text; the name of a font follows. FFmpeg writes a tx3g under that name, all of 51 bytes"""

DRAWN_AS = (b"\x1ePlanar Y'CbCr 8-bit 4:2:0", b"\x0dSorenson H263")
"""names of compressors that FFmpeg needs, since the codec's type alone does not say it"""


def entry_parts(
    source: Source, handler: bytes, kind: bytes, start: int, end: int, newer: bool
) -> Iterator[Span | Zeros]:
    """What stays of an entry up to its first box. `newer`: it is in an `stsd` of version 1. Raises Unclean."""
    if kind in ENCRYPTED:
        raise Unclean("it is encrypted")
    if handler in (b"vide", b"auxv", b"pict"):
        name = source.at(start + 42, 32)
        yield from (Span(start, start + 12), Zeros(4), Span(start + 16, start + 42))  # who made the codec
        yield Span(start + 42, start + 74) if name.startswith(DRAWN_AS) else Zeros(32)  # and its name
        size = VIDEO
        yield Span(start + 74, start + size)
    elif handler == b"soun":
        version = int.from_bytes(source.at(start + 8, 2), "big")
        size = SOUND + {1: 16, 2: 36}.get(0 if newer else version, 0)
        yield from (Span(start, start + 12), Zeros(4), Span(start + 16, start + size))
    elif kind == b"text":
        size = end - start
        yield Span(start, min(start + TEXT, end))
        if size > TEXT:
            yield Zeros(size - TEXT)
    elif kind in OTHERS:
        size = OTHERS[kind]
        yield Span(start, start + size)
    else:
        raise Unclean("it has a track of a kind that nobody knows")
    if start + size > end:
        raise Unclean("it ends too early")
