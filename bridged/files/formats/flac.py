"""FLAC: its metadata blocks, its first frame, and its last one, which ends where the file does. Facts: RFC 9639."""

from __future__ import annotations

import re

from bridged.files.formats.active import MAX_TEXT, check_region
from bridged.files.formats.crc import flac_crc8, flac_crc16
from bridged.files.formats.limits import Limits
from bridged.files.formats.ogg import check_vorbis_comments
from bridged.files.formats.source import Refusal, Source
from bridged.files.formats.tags import end_of_sound, skip_leading

MAX_BLOCKS, MAX_FRAME = 10_000, 512 * 1024
"""metadata blocks; bytes of the last frame: 65,535 samples of 8 channels at 24 bits would be three times that"""

MAX_TRIES, MAX_ZEROS = 8, 64
"""places that look like a last frame's start, and zeros at its end"""

_SYNC = re.compile(rb"\xff[\xf8\xf9]")
_STREAMINFO, _PADDING, _SEEK, _COMMENT, _PICTURE, _INVALID = 0, 1, 3, 4, 6, 127


def check_flac(source: Source, _: Limits) -> None:
    """Raises Refusal: broken, active content in tags, or something behind the last frame."""
    at = skip_leading(source, 0)
    if source.read(at, 4) != b"fLaC":
        raise Refusal("it is no FLAC")
    at += 4
    for number in range(MAX_BLOCKS):
        head = source.exact(at, 4)
        kind, size = head[0] & 0x7F, int.from_bytes(head[1:], "big")
        if (kind == _STREAMINFO) != (number == 0) or kind == _INVALID or at + 4 + size > source.size:
            raise Refusal("its metadata are broken")
        _block(source, kind, at + 4, size)
        at += 4 + size
        if head[0] & 0x80:
            break
    else:
        raise Refusal("its metadata have no end")
    end = end_of_sound(source, at)
    if not header_size(source.read(at, 16)):
        raise Refusal("it has no sound")
    if not _ends_with_frame(source, at, end):
        raise Refusal("its last frame is broken, or something follows it")


def header_size(head: bytes) -> int:
    """Bytes of a frame's header with its checksum, 0 where it is none."""
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xFE != 0xF8:
        return 0
    block, rate, channels, bits = head[2] >> 4, head[2] & 15, head[3] >> 4, head[3] >> 1 & 7
    if not block or rate == 15 or channels > 10 or bits == 3 or head[3] & 1:
        return 0
    number = 1 if head[4] < 0x80 else 8 - (head[4] ^ 0xFF).bit_length()
    size = 4 + number + {6: 1, 7: 2}.get(block, 0) + {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if 0x80 <= head[4] < 0xC0 or size >= len(head) or flac_crc8(head[:size]) != head[size]:
        return 0
    return size + 1


def _block(source: Source, kind: int, at: int, size: int) -> None:
    if kind == _STREAMINFO and (size != 34 or (not any(source.exact(at + 10, 2)) and source.exact(at + 12, 1)[0] < 16)):
        raise Refusal("its header is broken")
    if kind == _COMMENT:
        if size > 2 * MAX_TEXT:
            raise Refusal("its comments are too large")
        check_vorbis_comments(source.exact(at, size))
    elif kind not in (_STREAMINFO, _SEEK):
        check_region(source, at, at + size, "its picture" if kind == _PICTURE else "its metadata")


def _ends_with_frame(source: Source, start: int, end: int) -> bool:
    """Whether a frame ends exactly there: the checksum over all of it is right."""
    begin = max(start, end - MAX_FRAME)
    padded = source.exact(begin, end - begin)
    data = padded.rstrip(b"\0")
    zeros = bytes(min(MAX_ZEROS, len(padded) - len(data)))
    places = [found.start() for found in _SYNC.finditer(data) if header_size(data[found.start() : found.start() + 16])]
    return any(_is_frame(data[place:], zeros) for place in reversed(places[-MAX_TRIES:]))


def _is_frame(data: bytes, zeros: bytes) -> bool:
    """Whether it is a frame with its checksum, which may need some of the zeros that follow to be whole."""
    checksum = flac_crc16(data)
    for _ in range(len(zeros)):
        if not checksum:
            break
        checksum = flac_crc16(b"\0", checksum)
    return not checksum
