"""MP3 without metadata: its frames, and nothing before, between or behind them. The frames are copied as they are.

Sources: ISO/IEC 11172-3 section 2.4.1.3 (frames); tags as in clean_audio.
"""

from __future__ import annotations

from collections.abc import Iterator

from bridged.files.clean_audio import between_tags, leading_tag
from bridged.files.formats.mp3 import frame_size
from bridged.files.splice import Piece, Source, Span, Unclean

SAME = 0xFFFE0C00
"""bits of a header that all frames of one file share: version, layer, sampling rate"""

CONSISTENT = 3
"""frames that have to follow each other before a place counts as sound"""

WITHIN, JUNK_MAX = 4096, 64 * 1024
"""bytes before the first frame, and bytes in all between frames, that are neither sound nor tags"""


def mp3(source: Source) -> Iterator[Piece]:
    """Raises Unclean: too much of it is no sound."""
    start, stop = between_tags(source)
    at = _resume(source, start, min(start + WITHIN, stop), stop, 0)
    if at is None:
        raise Unclean("its sound does not begin where it should")
    first = int.from_bytes(source.at(at, 4), "big") & SAME
    kept, last, junk = at, at, 0
    while at < stop:
        if size := frame_size(source.upto(at, 4), first):
            last, at = at, min(at + size, stop)  # the last one may be cut off, as recordings are
            continue
        found = _resume(source, last + 1, at, stop, first) if last < at else None
        if found is not None:  # what looked like a frame was none: a whole one begins in it
            yield Span(kept, last)
            junk += max(64, found - last)
            if junk > JUNK_MAX:
                raise Unclean("too much of it is no sound")
            kept = last = at = found
            continue
        yield Span(kept, at)
        if size := leading_tag(source, at):
            at += size
        else:
            found = _resume(source, at + 1, min(at + JUNK_MAX - junk, stop), stop, first)
            if found is None and stop - at > JUNK_MAX - junk:
                raise Unclean("too much of it is no sound")
            found = stop if found is None else found
            junk += max(64, found - at)  # looking for its end costs more than its bytes
            at = found
        if at > stop:
            raise Unclean("it ends too early")
        kept = last = at
    yield Span(kept, stop)


def _resume(source: Source, at: int, end: int, stop: int, first: int) -> int | None:
    """The first place before `end` where sound goes on."""
    data = source.upto(at, max(0, end - at))
    found = data.find(b"\xff")
    while found >= 0:
        if _is_sound(source, at + found, stop, first):
            return at + found
        found = data.find(b"\xff", found + 1)
    return None


def _is_sound(source: Source, at: int, stop: int, first: int) -> bool:
    """Whether some frames of one kind follow each other, or all that there is."""
    first = first or int.from_bytes(source.upto(at, 4), "big") & SAME
    for _ in range(CONSISTENT):
        size = frame_size(source.upto(at, 4), first)
        if not size:
            return False
        at += size
        if at >= stop or leading_tag(source, at):
            return True
    return True
