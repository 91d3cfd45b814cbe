"""WAV and FLAC without metadata. The samples are copied as they are.

Sources: RIFF/WAVE (Microsoft, 1991), RFC 9639 (FLAC), ID3v2.4.0 structure, APEv2 and Lyrics3 specifications.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from bridged.files.riff import number, riff_chunks, riff_rest
from bridged.files.splice import Piece, Source, Span, Unclean, length

WAV_KEPT = frozenset((b"fmt ", b"fact", b"data", b"cue ", b"smpl", b"inst"))


def wav(source: Source) -> Iterator[Piece]:
    """Everything but the sound, its format and its marks goes: LIST, id3, bext, iXML, axml, …"""
    form, size, kind = struct.unpack("<4sI4s", source.at(0, 12))
    if form != b"RIFF" or kind != b"WAVE":
        raise Unclean("it is no plain RIFF/WAVE")  # RF64: its sizes are elsewhere
    stop = min(8 + size, source.size)
    if not any(kind == b"data" for kind, _, _ in riff_chunks(source, 12, stop)):
        raise Unclean("its sound is not where it should be")
    yield Span(0, 4)
    yield from number(source, 4, "<I", 4 + length(_wav_chunks(source, stop)))
    yield Span(8, 12)
    yield from _wav_chunks(source, stop)


def _wav_chunks(source: Source, stop: int) -> Iterator[Piece]:
    for kind, at, end in riff_chunks(source, 12, stop):
        if kind in WAV_KEPT:
            yield from riff_rest(source, at, end)


STREAMINFO, SEEKTABLE, COMMENT = 0, 3, 4
FLAC_KEPT = frozenset((STREAMINFO, SEEKTABLE, COMMENT))
CHANNEL_MASK = re.compile(rb"WAVEFORMATEXTENSIBLE_CHANNEL_MASK=0x[0-9a-fA-F]{1,8}")
"""the one comment that says how to play it (RFC 9639 section 8.6.2)"""

VENDOR_MAX, COMMENTS_READ = 4096, 65536


def flac(source: Source) -> Iterator[Piece]:
    """Comments, pictures, application data, cue sheets and padding go; ID3 tags around it, too."""
    start, stop = between_tags(source)
    if source.at(start, 4) != b"fLaC":
        raise Unclean("it does not begin as a FLAC")
    at, last = start + 4, False
    kept: dict[int, Span] = {}
    while not last:
        (head,) = struct.unpack(">I", source.at(at, 4))
        last, kind = bool(head >> 31), head >> 24 & 127
        end = at + 4 + (head & 0xFFFFFF)
        if end > stop:
            raise Unclean("it ends too early")
        if kind in FLAC_KEPT:
            kept.setdefault(kind, Span(at, end))
        at = end
    if STREAMINFO not in kept:
        raise Unclean("it does not say what its stream is like")
    yield Span(start, start + 4)
    for kind, block in sorted(kept.items()):
        content: Piece = Span(block.start + 4, block.end)
        if kind == COMMENT:
            content = bare_comments(
                source.at(block.start + 4, min(block.end - block.start - 4, COMMENTS_READ))
            )
        yield from number(
            source, block.start, ">I", (kind == max(kept)) << 31 | kind << 24 | length([content])
        )
        yield content
    yield Span(at, stop)


def bare_comments(comments: bytes) -> bytes:
    """A Vorbis comment structure with the encoder's name, and without comments but for a channel mask. `comments`
    need not be whole, beyond the encoder's name."""
    if len(comments) < 4:
        raise Unclean("it ends too early")
    (size,) = struct.unpack_from("<I", comments)
    if size > VENDOR_MAX or size + 4 > len(comments):
        raise Unclean("its comments are malformed")
    mask = CHANNEL_MASK.search(comments, size + 4)
    found = [mask[0]] if mask else []
    listed = b"".join(struct.pack("<I", len(each)) + each for each in found)
    return comments[: size + 4] + struct.pack("<I", len(found)) + listed


def between_tags(source: Source) -> tuple[int, int]:
    """Where the sound of a FLAC or MP3 begins and ends: between ID3v2 and APE tags before it, and such, ID3v1 and
    Lyrics3 behind it."""
    start, stop = 0, source.size
    while size := leading_tag(source, start):
        start += size
    while (size := _trailing_tag(source, stop)) and stop - size >= start:
        stop -= size
    if start >= stop:
        raise Unclean("it is nothing but tags")
    return start, stop


def leading_tag(source: Source, at: int) -> int:
    """Bytes of the tag that begins there; 0: none does."""
    head = source.upto(at, 32)
    if head.startswith(b"ID3") and len(head) >= 10:
        return _id3_size(head)
    if head.startswith(b"APETAGEX") and len(head) == 32:
        return 32 + int(struct.unpack_from("<I", head, 12)[0])
    return 0


def _trailing_tag(source: Source, stop: int) -> int:
    """Bytes of the tag that ends there; 0: none does."""
    if stop >= 128 and source.at(stop - 128, 3) == b"TAG":
        return 128
    if (
        stop >= 227 and source.at(stop - 227, 4) == b"TAG+"
    ):  # the extended ID3v1, once the tag behind it is gone
        return 227
    foot = source.at(stop - 32, 32) if stop >= 32 else b""
    if foot.startswith(b"APETAGEX"):
        size, _, flags = struct.unpack_from("<III", foot, 12)
        return int(size) + (32 if flags >> 31 else 0)
    if foot[22:25] == b"3DI":
        return _id3_size(foot[22:])
    if foot.endswith(b"LYRICS200") and foot[-15:-9].isdigit():
        return int(foot[-15:-9]) + 15
    return 0


def _id3_size(head: bytes) -> int:
    """Of an ID3v2 tag by its header or footer: seven bits in each byte, and a footer where the flags say so."""
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    return size + (20 if head[5] & 0x10 else 10)
