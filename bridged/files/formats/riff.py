"""RIFF: WAV and WebP.

Facts: Microsoft's RIFF (chunks padded to even sizes), EBU Tech 3306 (RF64: sizes of 0xFFFFFFFF are in `ds64`), RFC 9649
(WebP). Programs that write WAV into a pipe leave sizes 0 or 0xFFFFFFFF.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from bridged.files.formats.active import MAX_TEXT, check_block, check_framed, check_region
from bridged.files.formats.exif import check_exif, check_xmp
from bridged.files.formats.limits import Limits, Picture
from bridged.files.formats.source import Refusal, Source
from bridged.files.formats.trailing import check_end

MAX_CHUNKS, MAX_INNER = 4096, 256
"""chunks of a file (but for frames, which have a limit of their own), and of one chunk"""

_HEAD = Struct("<4sI")
_LEAST_UNKNOWN = 0x7FFF0000
"""sizes from here on stand for "not known yet": each program has one of its own, all near 2 or 4 GB"""

_SAMPLED = frozenset({1, 3, 6, 7, 0xFFFE})
"""PCM, floats, A-law, µ-law, and the extensible form of these"""

SLACK = 16
"""bytes: some programs count the header itself, or not the padding, or not what extends `fmt `"""

_ALPHA = 0x10


class Chunk(NamedTuple):
    kind: bytes
    start: int
    size: int


def chunks(source: Source, start: int, end: int, most: int = MAX_INNER) -> Iterator[Chunk]:
    """The chunks between two places. Raises Refusal: one that goes beyond, or has no name."""
    for _ in range(most):
        if start >= end:
            return
        kind, size = _HEAD.unpack(source.exact(start, 8))
        if not kind.isascii() or not kind.decode().isprintable():
            raise Refusal("it has data that are no chunk")
        if size > end - start - 8:
            raise Refusal("the file is cut off, or its chunks do not fit into it")
        yield Chunk(kind, start + 8, size)
        start += 8 + size
        if size % 2 and start < end:
            start += 1
    raise Refusal(f"it has more than {most} chunks")


def check_webp(source: Source, limits: Limits) -> Picture:
    """Raises Refusal: broken, too large, active content, or something behind it."""
    head = source.exact(0, 12)
    end = 8 + int.from_bytes(head[4:8], "little")
    if head[:4] != b"RIFF" or head[8:] != b"WEBP":
        raise Refusal("it is no WebP")
    if end > source.size or end % 2:
        raise Refusal("the file is cut off, or says a wrong size")
    check_end(source, end)
    picture, frames, stills = None, 0, 0
    alpha: Chunk | None = None
    has_alpha = False
    for chunk in chunks(source, 12, end, MAX_CHUNKS + limits.frames):
        if alpha and (chunk.kind != b"VP8 " or stills):
            _webp_metadata(source, alpha)
        alpha = None
        if picture is None:
            picture = _canvas(source, chunk)
            limits.size(picture.width, picture.height)
            has_alpha = chunk.kind == b"VP8X" and bool(source.exact(chunk.start, 1)[0] & _ALPHA)
        if chunk.kind in (b"VP8 ", b"VP8L"):
            stills += 1
            if _bitstream(source, chunk) != picture[:2]:
                raise Refusal("its pixels have another size than its header says")
        elif chunk.kind == b"ANMF":
            frames += 1
            limits.frames_of(picture.width, picture.height, frames)
            _frame(source, chunk, picture)
        elif chunk.kind == b"ALPH" and has_alpha:
            alpha = chunk
        else:
            _webp_metadata(source, chunk)
    if alpha:
        _webp_metadata(source, alpha)
    if picture is None or (stills, bool(frames)) not in ((1, False), (0, True)):
        raise Refusal("it has no picture, or more than one")
    return picture._replace(frames=max(1, frames))


def _canvas(source: Source, chunk: Chunk) -> Picture:
    if chunk.kind != b"VP8X":
        return Picture(*_bitstream(source, chunk))
    data = source.exact(chunk.start, 10)
    if chunk.size < 10:
        raise Refusal("its header is broken")
    return Picture(1 + int.from_bytes(data[4:7], "little"), 1 + int.from_bytes(data[7:10], "little"))


def _bitstream(source: Source, chunk: Chunk) -> tuple[int, int]:
    """Width and height as the compressed picture itself says them."""
    data = source.read(chunk.start, min(10, chunk.size))
    if chunk.kind == b"VP8 " and data[3:6] == b"\x9d\x01\x2a" and len(data) == 10 and not data[0] & 1:
        return int.from_bytes(data[6:8], "little") & 0x3FFF, int.from_bytes(data[8:10], "little") & 0x3FFF
    if chunk.kind == b"VP8L" and data[:1] == b"\x2f" and len(data) >= 5:
        bits = int.from_bytes(data[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    raise Refusal("its pixel data are broken")


def _frame(source: Source, chunk: Chunk, picture: Picture) -> None:
    head = source.exact(chunk.start, 16)
    x, y = (2 * int.from_bytes(head[at : at + 3], "little") for at in (0, 3))
    width, height = (1 + int.from_bytes(head[at : at + 3], "little") for at in (6, 9))
    if chunk.size < 16 or x + width > picture.width or y + height > picture.height:
        raise Refusal("a frame lies outside the picture")
    inner = list(chunks(source, chunk.start + 16, chunk.start + chunk.size))
    streams = [each for each in inner if each.kind in (b"VP8 ", b"VP8L")]
    if len(streams) != 1 or _bitstream(source, streams[0]) != (width, height):
        raise Refusal("a frame is broken")
    for each, following in zip(inner, [*inner[1:], None], strict=True):
        alpha = each.kind == b"ALPH" and following and following.kind == b"VP8 "
        if not alpha and each is not streams[0]:
            _webp_metadata(source, each)


def _webp_metadata(source: Source, chunk: Chunk) -> None:
    where = f"its chunk {chunk.kind.decode().strip()}"
    if chunk.size > MAX_TEXT:
        check_region(source, chunk.start, chunk.start + chunk.size, where)
        return
    data = source.exact(chunk.start, chunk.size)
    if chunk.kind == b"EXIF":
        check_exif(data.removeprefix(b"Exif\0\0"), "its EXIF", source.budget)
    elif chunk.kind == b"XMP ":
        check_xmp(data, "its XMP")
    else:
        check_block(data, where)


def check_wav(source: Source, _: Limits) -> None:
    """Raises Refusal: chunks that do not fit, no sound, active content, or something behind it."""
    head = source.exact(0, 12)
    if head[:4] not in (b"RIFF", b"RF64", b"BW64") or head[8:] != b"WAVE":
        raise Refusal("it is no WAV")
    position, large, kinds = 12, 0, set()
    for _chunk in range(MAX_CHUNKS):
        if position >= source.size:
            break
        if source.size - position < 8 or not _is_chunk(source.read(position, 4)):
            check_end(source, position)
            break
        kind, size = _HEAD.unpack(source.exact(position, 8))
        left = source.size - position - 8
        if kind == b"data" and _is_unknown(size):
            size = large if 0 < large <= left else left
        if size > left:
            raise Refusal("the file is cut off")
        if kind == b"ds64" and size >= 16:
            large = int.from_bytes(source.exact(position + 16, 8), "little")
        elif kind == b"data" and b"fmt " not in kinds:
            raise Refusal("its header is broken")
        elif kind != b"data":
            if kind == b"fmt ":
                _check_form(source.read(position + 8, min(size, 16)))
            _wav_metadata(source, Chunk(kind, position + 8, size))
        kinds.add(kind)
        position += 8 + size
        if size % 2 and not _is_chunk(source.read(position, 4)):
            position += 1  # many programs forget to pad
    else:
        raise Refusal(f"it has more than {MAX_CHUNKS} chunks")
    if not {b"fmt ", b"data"} <= kinds:
        raise Refusal("it has no sound")
    said = int.from_bytes(head[4:8], "little")
    if not _is_unknown(said) and abs(said + 8 - position) > SLACK:
        raise Refusal("it says a wrong size")


def _is_unknown(size: int) -> bool:
    return size == 0 or size >= _LEAST_UNKNOWN


def _check_form(data: bytes) -> None:
    """How the sound is stored: what a player divides by must not be 0."""
    if len(data) < 14:
        raise Refusal("its header is broken")
    form, channels, rate = (int.from_bytes(data[at : at + size], "little") for at, size in ((0, 2), (2, 2), (4, 4)))
    bits = int.from_bytes(data[14:16], "little") if form in _SAMPLED else 8
    if not channels or not rate or not 0 < bits <= 64:
        raise Refusal("its header is broken")


def _is_chunk(kind: bytes) -> bool:
    return len(kind) == 4 and kind.isascii() and kind.decode().isprintable() and kind[:1] not in b"<#%"


def _wav_metadata(source: Source, chunk: Chunk) -> None:
    where = f"its chunk {chunk.kind.decode().strip()}"
    if chunk.kind == b"LIST" and source.read(chunk.start, 4) == b"INFO" and chunk.size >= 4:
        for each in chunks(source, chunk.start + 4, chunk.start + chunk.size):
            check_framed(source.exact(each.start, min(each.size, MAX_TEXT)), where)
    elif chunk.size <= MAX_TEXT:
        check_framed(source.exact(chunk.start, chunk.size), where)
    else:
        check_region(source, chunk.start, chunk.start + chunk.size, where)
