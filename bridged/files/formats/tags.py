"""Tags before and behind MPEG audio (and FLAC): ID3v1, ID3v2, APE, Lyrics3. Facts: id3.org's ID3v2.3 and 2.4, APEv2."""

from __future__ import annotations

from bridged.files.formats.active import MAX_TEXT, check_block, check_framed, check_region
from bridged.files.formats.source import Refusal, Source
from bridged.files.formats.trailing import skip_padding

MAX_TAGS, MAX_FRAMES = 16, 10_000
_PICTURES = (b"APIC", b"PIC")


def skip_leading(source: Source, at: int) -> int:
    """Where the first byte is behind the ID3v2 tags that begin at `at`; their frames are looked at. Raises Refusal."""
    for _ in range(MAX_TAGS):
        head = source.read(at, 10)
        if head[:3] != b"ID3" or len(head) < 10 or any(byte & 0x80 for byte in head[6:]):
            return at
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        if at + 10 + size > source.size:
            raise Refusal("the file is cut off")
        _frames(source.part(at + 10, size), head[3], unsynchronised=bool(head[5] & 0x80))
        at += 10 + size + (10 if head[5] & 0x10 else 0)
    raise Refusal("it has too many tags")


def end_of_sound(source: Source, start: int) -> int:
    """Where the tags and the padding at the file's end begin; their texts are looked at. Raises Refusal."""
    end = source.size
    for _ in range(MAX_TAGS):
        begin = _trailing_tag(source, end)
        if begin is None or begin < start:
            return end
        check_region(source, begin, end, "its tag")
        end = begin
    return end


def _trailing_tag(source: Source, end: int) -> int | None:
    if source.read(end - 128, 3) == b"TAG" and end >= 128:
        extended = source.read(end - 128 - 227, 4) == b"TAG+" and end >= 355
        return end - 355 if extended else end - 128
    footer = source.read(end - 32, 32) if end >= 32 else b""
    if footer[:8] == b"APETAGEX":
        size = int.from_bytes(footer[12:16], "little") + (32 if footer[23:24] and footer[23] & 0x80 else 0)
        return end - size if 32 <= size <= end else None
    if footer[-9:] == b"LYRICS200":
        digits = source.read(end - 15, 6)
        return end - 15 - int(digits) if digits.isdigit() and int(digits) + 15 <= end else None
    if footer[-10:-7] == b"3DI":
        size = footer[-4] << 21 | footer[-3] << 14 | footer[-2] << 7 | footer[-1]
        return end - size - 20 if size + 20 <= end else None
    return None


def _frames(tag: Source, version: int, *, unsynchronised: bool) -> None:
    if version not in (2, 3, 4) or unsynchronised:
        if tag.size > 4 * MAX_TEXT:
            raise Refusal("its tag is too large")
        data = tag.exact(0, tag.size)
        check_block(data.replace(b"\xff\0", b"\xff") if unsynchronised else data, "its ID3 tag")
        return
    head = 6 if version == 2 else 10
    at = 0
    for _ in range(MAX_FRAMES):
        if at + head > tag.size:
            break
        header = tag.exact(at, head)
        name = header[:3] if version == 2 else header[:4]
        if not name.strip(b"\0"):
            break
        digits = header[3:6] if version == 2 else header[4:8]
        size = int.from_bytes(digits, "big")
        if version == 4 and not any(byte & 0x80 for byte in digits):
            size = sum(byte << 7 * place for place, byte in enumerate(reversed(digits)))
        if not name.isalnum() or at + head + size > tag.size:
            break  # the rest is looked at as it is
        if name in _PICTURES or size > MAX_TEXT:
            check_region(tag, at + head, at + head + size, "its ID3 picture" if name in _PICTURES else "its ID3 tag")
        else:
            check_framed(tag.exact(at + head, size), f"its ID3 frame {name.decode('latin-1')}")
        at += head + size
    if skip_padding(tag, at) < tag.size:
        check_region(tag, at, tag.size, "its ID3 tag")
