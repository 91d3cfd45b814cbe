"""PNG, JPEG, WebP and GIF without metadata. What makes the picture is copied as it is; an orientation stays.

Sources: PNG 3rd edition (W3C), ISO/IEC 10918-1 annex B and JFIF 1.02, Google's WebP container specification, GIF89a.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator

from bridged.files.orientation import EXIF_HEADER, UPRIGHT, exif_of, orientation_of
from bridged.files.riff import number, riff_chunks, riff_rest
from bridged.files.splice import BLOCK, Piece, Source, Span, Unclean, length, placed

EXIF_READ = 65536
"""bytes of a chunk that are searched for the orientation: ComfyUI puts whole graphs there"""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_KEPT = frozenset(
    (
        *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"bKGD", b"pHYs", b"sBIT"),
        *(b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"mDCV", b"mDCv", b"cLLI", b"cLLi"),
        *(b"acTL", b"fcTL", b"fdAT"),
    )
)
"""the picture, its colours and its frames"""


def png(source: Source) -> Iterator[Piece]:
    """Text, times, EXIF (but for an orientation), private chunks and what follows the end go."""
    if source.at(0, 8) != PNG_SIGNATURE:
        raise Unclean("it does not begin as a PNG")
    yield Span(0, 8)
    at, kind = 8, b""
    while kind != b"IEND":
        size, kind = struct.unpack(">I4s", source.at(at, 8))
        end = at + 12 + size
        if end > source.size:
            raise Unclean("it ends too early")
        if kind in PNG_KEPT:
            yield Span(at, end)
        elif kind == b"eXIf":
            orientation = orientation_of(source.at(at + 8, min(size, EXIF_READ)))
            if orientation != UPRIGHT:
                yield placed(source, at, png_chunk(kind, exif_of(orientation)))
        elif not kind[0] & 0x20:
            raise Unclean("it has a critical chunk that nobody knows")
        at = end


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
SOS, EOI, COM = 0xDA, 0xD9, 0xFE
JPEG_KEPT = frozenset(range(0xC0, 0xE0)) - {0xD8}
"""frames, tables, scans and restart intervals"""


def jpeg(source: Source) -> Iterator[Piece]:
    """APPn and comments go, but for JFIF, the ICC profile, Adobe's colour transform and an orientation; and what
    follows the end."""
    if source.at(0, 2) != b"\xff\xd8":
        raise Unclean("it does not begin as a JPEG")
    yield Span(0, 2)
    at, turned = 2, False
    while True:
        start = at
        while (marker := source.at(at, 2))[1] == 0xFF:
            at += 1
        if marker[0] != 0xFF:
            raise Unclean("something stands between its segments")
        code = marker[1]
        if code == EOI:
            yield Span(at, at + 2)
            return
        (size,) = struct.unpack(">H", source.at(at + 2, 2))
        end = at + 2 + size
        if size < 2 or end > source.size:
            raise Unclean("it ends too early")
        if code in JPEG_KEPT:
            if code == SOS:
                end = _after_scan(source, end)
            yield Span(start, end)
        elif 0xE0 <= code <= 0xEF:
            data = source.at(at + 4, size - 2)
            kept = _app_segment(code, data, turned)
            turned = turned or (code == 0xE1 and kept != b"")
            if kept:
                yield placed(source, start, struct.pack(">BBH", 0xFF, code, len(kept) + 2) + kept)
        elif code != COM:
            raise Unclean("it has a segment that nobody knows")
        at = end


def _app_segment(code: int, data: bytes, turned: bool) -> bytes:
    """The content that an APPn segment is to have; nothing: it goes. `turned`: the orientation was said already."""
    if code == 0xE0 and data.startswith(b"JFIF\0") and len(data) >= 14:
        return data if len(data) == 14 else data[:12] + b"\0\0"  # without its thumbnail
    if code == 0xE1 and data.startswith(EXIF_HEADER) and not turned:
        orientation = orientation_of(data)
        return b"" if orientation == UPRIGHT else EXIF_HEADER + exif_of(orientation)
    if code == 0xE2 and data.startswith(b"ICC_PROFILE\0"):
        return data
    return data if code == 0xEE and data.startswith(b"Adobe") and len(data) == 12 else b""


def _after_scan(source: Source, at: int) -> int:
    """Where the entropy-coded data ends that begins there: at the next marker that is no restart."""
    while True:
        block = source.upto(at, BLOCK)
        if found := MARKER.search(block):
            return at + found.start()
        step = len(block.rstrip(b"\xff"))
        if len(block) < BLOCK or not step:
            raise Unclean("it ends too early")
        at += step


HAS_EXIF, HAS_XMP, IS_ANIMATED, EXTENDED = 0x08, 0x04, 0x02, 0x100
"""flags of VP8X, and one for that there is one"""


def webp(source: Source) -> Iterator[Piece]:
    """EXIF (but for an orientation), XMP and unknown chunks go, those inside frames too; and what follows the end."""
    form, size, kind = struct.unpack("<4sI4s", source.at(0, 12))
    if form != b"RIFF" or kind != b"WEBP":
        raise Unclean("it does not begin as a WebP")
    stop, orientation = 8 + size, UPRIGHT
    for kind, at, end in riff_chunks(source, 12, stop):
        if kind == b"EXIF" and orientation == UPRIGHT:
            orientation = orientation_of(source.at(at + 8, min(end - at - 8, EXIF_READ)))
    yield Span(0, 4)
    yield from number(source, 4, "<I", 4 + length(_webp_chunks(source, stop, orientation)))
    yield Span(8, 12)
    yield from _webp_chunks(source, stop, orientation)


def _webp_chunks(source: Source, stop: int, orientation: int) -> Iterator[Piece]:
    still = _Still()
    flags, seen = 0, False
    for kind, at, end in riff_chunks(source, 12, stop):
        extended = bool(flags)
        if kind == b"VP8X" and not seen:
            flags = EXTENDED | source.at(at + 8, 10)[0]
            kept = flags & ~(HAS_EXIF | HAS_XMP | EXTENDED)
            yield Span(at, at + 4)
            yield from number(source, at + 4, "<I", 10)
            yield from number(source, at + 8, "B", kept if orientation == UPRIGHT else kept | HAS_EXIF)
            yield Span(at + 9, at + 18)
        elif kind == b"ANIM" and flags & IS_ANIMATED:
            yield Span(at, at + 4)
            yield from number(source, at + 4, "<I", 6)
            yield Span(at + 8, at + 14)
            if end < at + 14:
                raise Unclean("it ends too early")
        elif kind == b"ANMF" and flags & IS_ANIMATED:
            yield Span(at, at + 4)
            yield from number(source, at + 4, "<I", 16 + length(_frame_chunks(source, at + 24, end)))
            yield Span(at + 8, at + 24)
            yield from _frame_chunks(source, at + 24, end)
        elif kind == b"ICCP" and extended:
            yield from riff_rest(source, at, end)
        elif kind == b"EXIF" and extended and orientation != UPRIGHT:
            exif = exif_of(orientation)
            yield placed(source, at, struct.pack("<4sI", kind, len(exif)) + exif)
            orientation = UPRIGHT
        elif not flags & IS_ANIMATED and (extended or kind != b"ALPH"):
            yield from still.chunk(source, kind, at, end)
        seen = True
    if not flags & IS_ANIMATED and not still.done:
        raise Unclean("it has no picture")


def _frame_chunks(source: Source, start: int, end: int) -> Iterator[Piece]:
    """Those that make one frame of an animation."""
    still = _Still()
    for kind, at, stop in riff_chunks(source, start, end):
        yield from still.chunk(source, kind, at, stop)


class _Still:
    """One picture: its pixels, and before lossy ones the alpha channel, which nothing else has a use for."""

    def __init__(self) -> None:
        self.done = False
        self._alpha: tuple[int, int] | None = None

    def chunk(self, source: Source, kind: bytes, at: int, end: int) -> Iterator[Piece]:
        """What stays of the next chunk."""
        if self.done:
            return
        if kind == b"ALPH":
            self._alpha = self._alpha or (at, end)
        elif kind in (b"VP8 ", b"VP8L"):
            if self._alpha and kind == b"VP8 ":
                yield from riff_rest(source, *self._alpha)
            yield from riff_rest(source, at, end)
            self.done = True


GIF_CONTROL, GIF_APPLICATION = 0xF9, 0xFF
GIF_KEPT_APPLICATIONS = (b"\x0bNETSCAPE2.0", b"\x0bANIMEXTS1.0")
"""how often an animation is played; all others carry XMP and the like"""


def _as_it_is(source: Source, at: int, end: int) -> Iterator[Piece]:
    yield Span(at, end)


def gif(source: Source, image: Callable[[Source, int, int], Iterator[Piece]] = _as_it_is) -> Iterator[Piece]:
    """Comments, captions, foreign application data and what follows the end go. `image` gives what becomes of an
    image, from its descriptor to its last sub-block."""
    head = source.at(0, 13)
    if head[:6] not in (b"GIF87a", b"GIF89a"):
        raise Unclean("it does not begin as a GIF")
    at = 13 + gif_colours(head[10])
    yield Span(0, at)
    while True:
        introducer = source.at(at, 1)
        if introducer == b";":
            yield Span(at, at + 1)
            return
        if introducer == b",":
            end = after_blocks(source, at + 11 + gif_colours(source.at(at + 9, 1)[0]))
            yield from image(source, at, end)
        elif introducer == b"!":
            label = source.at(at + 1, 1)[0]
            end = after_blocks(source, at + 2)
            if label == GIF_CONTROL:
                yield from _gif_control(source, at, end)
            elif label == GIF_APPLICATION and source.at(at + 2, 12) in GIF_KEPT_APPLICATIONS:
                yield from _gif_rounds(source, at, end)
        else:
            raise Unclean("something stands between its blocks")
        at = end


def _gif_control(source: Source, at: int, end: int) -> Iterator[Piece]:
    """How long a frame is shown: the first sub-block says it all."""
    size = source.at(at + 2, 1)[0]
    if size == 4:
        yield Span(at, at + 7)
        yield Span(end - 1, end)
    elif size:
        raise Unclean("the timing of a frame is malformed")


def _gif_rounds(source: Source, at: int, end: int) -> Iterator[Piece]:
    """How often it is played: a sub-block of a 1 and the number."""
    block = at + 14
    while size := source.at(block, 1)[0]:
        if size >= 3 and source.at(block + 1, 1) == b"\1":
            yield Span(at, at + 14)
            yield from number(source, block, "B", 3)
            yield Span(block + 1, block + 4)
            yield Span(end - 1, end)
            return
        block += 1 + size


def gif_colours(flags: int) -> int:
    """Bytes of the colour table that these flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def after_blocks(source: Source, at: int) -> int:
    """Where a chain of sub-blocks ends that begins there."""
    while size := source.at(at, 1)[0]:
        at += 1 + size
    return at + 1
