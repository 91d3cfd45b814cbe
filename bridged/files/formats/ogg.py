"""Ogg: pages with checksums, from the first to the end of the file. Facts: RFC 3533, RFC 5334, RFC 7845 (Opus)."""

from __future__ import annotations

from collections.abc import Callable
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

_HEADERS: dict[bytes, Callable[[bytes], bool]] = {
    b"\x01vorbis": lambda packet: packet[1:7] == b"vorbis" and packet[0] & 1 == 1,
    b"\x80theora": lambda packet: packet[:1] >= b"\x80",
    b"\x80kate": lambda packet: packet[:1] >= b"\x80",
    b"\x7fFLAC": lambda packet: packet[:1] != b"\xff",
    b"fishead\0": lambda packet: True,
    b"CMML": lambda packet: True,
}
"""codecs with headers behind the comments (Vorbis I 4.2.1, Theora 6.1, FLAC in Ogg: RFC 9639, 10.1), and whether a
packet is one; Skeleton and CMML have nothing else"""


def check_ogg(source: Source, _: Limits) -> None:
    """Raises Refusal: no chain of whole pages with right checksums, active content in tags, or more behind it."""
    streams: dict[int, _Stream] = {}
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
            check_framed(body, "its header")
            streams[serial] = _Stream(body)
            if len(streams) > MAX_STREAMS:
                raise Refusal(f"it has more than {MAX_STREAMS} streams")
        elif serial not in streams:
            raise Refusal("a page of it belongs to no stream")
        else:
            streams[serial].take(table, body)
        position += 27 + count + len(body)
    if not pages or not any(stream.begun for stream in streams.values()):
        raise Refusal("it has no sound")
    check_end(source, position)


class _Stream:
    """Collects the packets of a stream that are no sound yet, from the second one on, and looks at them."""

    def __init__(self, first: bytes) -> None:
        self.begun = False
        self._codec = next(codec for codec in _CODECS if first.startswith(codec))
        self._held: bytearray | None = bytearray()
        self._packets = 0

    def take(self, table: bytes, body: bytes) -> None:
        self.begun |= bool(table)
        if self._held is None:
            return
        start = end = 0
        for lace in table:
            end += lace
            if lace < 255:
                self._held += body[start:end]
                start = end
                if not self._packet(bytes(self._held)):
                    self._held = None
                    return
                self._held.clear()
        self._held += body[start:]
        if len(self._held) > 4 * MAX_TEXT:
            raise Refusal("its comments are too large")

    def _packet(self, packet: bytes) -> bool:
        """Whether others like it may follow."""
        self._packets += 1
        if self._packets == 1:
            _check_comments(packet)
            return self._codec in _HEADERS
        if not _HEADERS[self._codec](packet):
            return False
        check_framed(packet, "its header")
        return True


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
