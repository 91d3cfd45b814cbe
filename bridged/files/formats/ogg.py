"""Ogg: pages with checksums, from the first to the end of the file. Facts: RFC 3533, RFC 5334, RFC 7845 (Opus)."""

from __future__ import annotations

from struct import Struct

from bridged.files.formats.active import MAX_TEXT, check_framed
from bridged.files.formats.crc import ogg_crc
from bridged.files.formats.limits import Limits
from bridged.files.formats.source import Refusal, Source
from bridged.files.formats.trailing import check_end

MAX_PAGES, MAX_STREAMS = 1_000_000, 64
"""a page has 4 kB as a rule; streams of one file, those that follow each other included"""

MAX_COMMENTS = 100_000

_HEAD = Struct("<4sBBqIIIB")
_CODECS = (
    *(b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ", b"\x80theora", b"fishead\0", b"\x80kate", b"BBCD\0"),
    *(b"CMML", b"OVP80", b"\x8bJNG"),
)
_COMMENTS = (b"\x03vorbis", b"OpusTags", b"\x81theora")
_FIRST, _CONTINUED = 2, 1


def check_ogg(source: Source, _: Limits) -> None:
    """Raises Refusal: no chain of whole pages with right checksums, active content in tags, or more behind it."""
    streams: dict[int, bytearray | None] = {}
    position = pages = 0
    while position < source.size:
        head = source.read(position, 27)
        if head[:4] != b"OggS" or len(head) < 27:
            break
        _, version, flags, _, serial, _, checksum, count = _HEAD.unpack(head)
        table = source.exact(position + 27, count)
        body = source.exact(position + 27 + count, sum(table))
        pages += 1
        if version or ogg_crc(head[:22], bytes(4), head[26:], table, body) != checksum or pages > MAX_PAGES:
            raise Refusal("a page of it is broken")
        if flags & _FIRST:
            if not body.startswith(_CODECS):
                raise Refusal("it has a stream of an unknown kind")
            streams[serial] = bytearray()
            if len(streams) > MAX_STREAMS:
                raise Refusal(f"it has more than {MAX_STREAMS} streams")
        elif serial not in streams:
            raise Refusal("a page of it belongs to no stream")
        else:
            streams[serial] = _comments(streams[serial], table, body)
        position += 27 + count + len(body)
    if not pages or all(held is not None and not held for held in streams.values()):
        raise Refusal("it has no sound")
    check_end(source, position)


def _comments(held: bytearray | None, table: bytes, body: bytes) -> bytearray | None:
    """Collects the second packet of a stream, its comments, and looks at it; None: it is over."""
    if held is None:
        return None
    size = 0
    for lace in table:
        size += lace
        if lace < 255:
            held += body[:size]
            _check_comments(bytes(held))
            return None
    held += body
    if len(held) > 4 * MAX_TEXT:
        raise Refusal("its comments are too large")
    return held


def _check_comments(packet: bytes) -> None:
    if packet.startswith(_COMMENTS):
        prefix = 8 if packet.startswith(b"OpusTags") else 7
        check_vorbis_comments(packet[prefix:])
    elif packet[:1] in (b"\x04", b"\x84"):  # a FLAC block of comments
        check_vorbis_comments(packet[4:])
    else:
        check_framed(packet, "its comments")


def check_vorbis_comments(data: bytes) -> None:
    """Lengths and texts `KEY=value`. Raises Refusal: broken, or active content in one."""
    at = 4 + int.from_bytes(data[:4], "little")
    count = int.from_bytes(data[at : at + 4], "little")
    if at + 4 > len(data) or count > MAX_COMMENTS:
        raise Refusal("its comments are broken")
    check_framed(data[:at], "its comments")
    at += 4
    for _ in range(count):
        size = int.from_bytes(data[at : at + 4], "little")
        value = data[at + 4 : at + 4 + size]
        if len(value) != size or at + 4 > len(data):
            raise Refusal("its comments are broken")
        check_framed(value, f"its comment {value.split(b'=')[0][:32].decode('latin-1')!r}")
        at += 4 + size
    check_framed(data[at:], "its comments")
