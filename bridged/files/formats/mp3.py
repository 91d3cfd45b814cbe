"""MPEG audio, layers I to III: every frame from the first to the tags at the end.

Facts: ISO/IEC 11172-3, 2.4.1.3 (headers), 13818-3 (half sampling rates); MPEG 2.5 has quarter rates.
"""

from __future__ import annotations

from bridged.files.formats.active import check_region
from bridged.files.formats.limits import Limits
from bridged.files.formats.source import Refusal, Source
from bridged.files.formats.tags import end_of_sound, skip_leading
from bridged.files.formats.trailing import name_of, skip_padding

CONSISTENT = 3
"""frames that have to follow each other before a place counts as sound"""

MAX_FRAMES, MAX_JUNK = 4_000_000, 64 * 1024
"""frames (a day of sound), and bytes between frames that are none: editors and streams leave such pieces"""

MIN_JUNK = 64
"""bytes that each piece counts at least, since looking for its end costs more than its bytes"""

_RATES = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""kbit/s by (1 for MPEG 1, else 2; layer)"""

_FREQUENCIES = (44_100, 48_000, 32_000)
_FIXED = 0xFFFE0C00
"""bits of a header that stay the same in all frames of one file: version, layer, sampling rate"""


def check_mp3(source: Source, _: Limits) -> None:
    """Raises Refusal: no sound, too much between its frames, active content in tags, or something behind it."""
    start = start_of_sound(source)
    end = end_of_sound(source, start)
    if not is_sound(source, start, end):
        raise Refusal("it has no sound")
    at, junk = start, 0
    first = int.from_bytes(source.exact(start, 4), "big") & _FIXED
    for _frame in range(MAX_FRAMES):
        size = frame_size(source.read(at, 4), first)
        if size:
            if at + size >= end:
                return  # the last frame may be cut off, as recordings are
            at += size
            continue
        if skip_padding(source.part(0, end), at) == end:
            return
        tag = skip_leading(source, at)
        following = tag if tag > at else _resume(source, at, end, first)
        if following is None:
            raise Refusal(f"{name_of(source.read(at, 32))} follows its end ({end - at} bytes)")
        if tag == at:
            check_region(source, at, following, "data between its frames")
            junk += max(MIN_JUNK, following - at)
            if junk > MAX_JUNK:
                raise Refusal("too much of it is no sound")
        at = following
    raise Refusal("it has too many frames")


def start_of_sound(source: Source) -> int:
    """The first byte behind leading tags and padding. Raises Refusal."""
    start = skip_padding(source, skip_leading(source, 0))
    return skip_padding(source, skip_leading(source, start)) if start else start


def has_sound(source: Source) -> bool:
    """Whether it is MPEG audio, behind tags if there are any. Raises Refusal."""
    start = start_of_sound(source)
    return is_sound(source, start, end_of_sound(source, start))


def is_sound(source: Source, at: int, end: int) -> bool:
    """Whether some frames of one kind follow each other, or all that there is up to the sound's `end`."""
    first = int.from_bytes(source.read(at, 4), "big") & _FIXED
    for number in range(CONSISTENT):
        size = frame_size(source.read(at, 4), first)
        if not size:
            return number > 1 and at >= end
        at += size
    return True


def frame_size(head: bytes, first: int = 0) -> int:
    """Bytes of the frame that a header begins, 0 where it is none, or not one like the `first`."""
    value = int.from_bytes(head, "big")
    if len(head) < 4 or value >> 21 != 0x7FF or (first and value & _FIXED != first):
        return 0
    version, layer, rate, frequency = value >> 19 & 3, 4 - (value >> 17 & 3), value >> 12 & 15, value >> 10 & 3
    if version == 1 or layer == 4 or rate in (0, 15) or frequency == 3:
        return 0
    kbits = _RATES[1 if version == 3 else 2, layer][rate - 1]
    hertz = _FREQUENCIES[frequency] >> {3: 0, 2: 1, 0: 2}[version]
    padding = value >> 9 & 1
    if layer == 1:
        return (12_000 * kbits // hertz + padding) * 4
    return (72_000 if layer == 3 and version != 3 else 144_000) * kbits // hertz + padding


def _resume(source: Source, at: int, end: int, first: int) -> int | None:
    """Where sound goes on, within MAX_JUNK bytes."""
    data = source.read(at, min(MAX_JUNK, end - at))
    found = data.find(b"\xff", 1)
    while found >= 0:
        if frame_size(data[found : found + 4], first) and is_sound(source, at + found, end):
            return at + found
        found = data.find(b"\xff", found + 1)
    return None
