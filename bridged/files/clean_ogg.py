"""Ogg Vorbis, Opus and FLAC without comments: the header packets are written anew, and the pages behind them are
numbered anew where that made fewer of them. The sound's packets are copied as they are.

Sources: RFC 3533 (Ogg), RFC 7845 (Opus), Vorbis I section 4.2 and 5, RFC 9639 section 10.1 (FLAC in Ogg).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from bridged.files.clean_audio import COMMENT, COMMENTS_READ, bare_comments
from bridged.files.splice import Piece, Source, Span, Unclean

HEAD = struct.Struct("<4sBBqIII")
"""capture pattern, version, flags, granule position, serial, sequence number, checksum; a count of segments follows"""

CONTINUED, BEGINNING = 0x01, 0x02
SETUP_MAX = 1_000_000
"""bytes of a Vorbis setup header (real ones have 3 to 10 kB); of comments only the beginning is held"""

MAX_STREAMS = 100


def ogg(source: Source) -> Iterator[Piece]:
    """Raises Unclean: another codec is in it, or its headers are not on pages of their own."""
    streams: dict[int, _Stream] = {}
    at = 0
    while at < source.size:
        magic, version, flags, _, serial, sequence, _ = HEAD.unpack(source.at(at, HEAD.size))
        if magic != b"OggS" or version:
            raise Unclean("something stands between its pages")
        (count,) = source.at(at + HEAD.size, 1)
        lacing = source.at(at + HEAD.size + 1, count)
        begin = at + HEAD.size + 1 + count
        end = begin + sum(lacing)
        if end > source.size:
            raise Unclean("it ends too early")
        if flags & BEGINNING:
            if serial in streams or len(streams) >= MAX_STREAMS:
                raise Unclean("its streams are mixed up")
            streams[serial] = stream = _Stream(source.at(begin, end - begin), lacing)
            yield from _page(source, at, end, sequence, 0, stream.first)
        elif (found := streams.get(serial)) is None:
            raise Unclean("its streams are mixed up")
        elif found.headers_missing:
            found.take(flags, lacing, source.at(begin, end - begin))
            if not found.headers_missing:
                yield from found.header_pages(serial)
                found.shift = found.sequence - sequence - 1
        else:
            yield from _page(source, at, end, sequence, sequence + found.shift)
        at = end
    if any(stream.headers_missing for stream in streams.values()):
        raise Unclean("it ends too early")


class _Stream:
    """One logical stream: what of its headers has come, and by how much its pages move up."""

    def __init__(self, first: bytes, lacing: bytes) -> None:
        self.first = first
        self.shift = 0
        self.sequence = 1
        self._packet = bytearray()
        self._size = 0
        """of the packet in hand, of which a part may be held"""
        self._packets: list[bytes] = []
        self.headers_missing = 1
        if first.startswith(b"\x01vorbis"):
            self._magic, self._end = b"\x03vorbis", b"\x01"
            self.headers_missing = 2
        elif first.startswith(b"OpusHead"):
            self._magic, self._end = b"OpusTags", b""
        elif first.startswith(b"\x7fFLAC") and len(first) > 13:
            self._magic, self._end = b"", b""
            self.first = first[:7] + struct.pack(">H", 1) + first[9:]
        else:
            raise Unclean("it has a stream of another kind")
        if sum(lacing) != len(first) or lacing[-1:] == b"\xff" or any(each < 255 for each in lacing[:-1]):
            raise Unclean("its headers are not where they should be")

    def take(self, flags: int, lacing: bytes, body: bytes) -> None:
        """The next page of headers."""
        if bool(flags & CONTINUED) != (self._size > 0):
            raise Unclean("its pages are not in order")
        at = 0
        for index, size in enumerate(lacing):
            room = (SETUP_MAX if self._packets else COMMENTS_READ) - len(self._packet)
            self._packet += body[at : at + min(size, room)]
            self._size += size
            at += size
            if size < 255:
                self._complete()
                if not self.headers_missing and index + 1 < len(lacing):
                    raise Unclean("its headers are not where they should be")

    def _complete(self) -> None:
        packet, whole = bytes(self._packet), self._size == len(self._packet)
        self._packet.clear()
        self._size = 0
        if self._magic == b"":
            self._flac_block(packet)
        elif not self._packets:
            if not packet.startswith(self._magic):
                raise Unclean("its comments are not where they should be")
            self._packets.append(self._magic + bare_comments(packet[len(self._magic) :]) + self._end)
            self.headers_missing -= 1
        else:
            if not whole or not packet.startswith(b"\x05vorbis"):
                raise Unclean("its headers are not where they should be")
            self._packets.append(packet)
            self.headers_missing -= 1

    def _flac_block(self, block: bytes) -> None:
        """One metadata block: of all only the first, the comments, is kept."""
        if not block:
            raise Unclean("its headers are not where they should be")
        if not self._packets:
            if block[0] & 127 != COMMENT:
                raise Unclean("its comments are not where they should be")
            content = bare_comments(block[4:])
            self._packets.append(struct.pack(">I", 1 << 31 | COMMENT << 24 | len(content)) + content)
        self.headers_missing = int(not block[0] & 0x80)

    def header_pages(self, serial: int) -> Iterator[bytes]:
        """The headers on as few pages as they need; no packet of sound is on them."""
        lacing, body = b"", b"".join(self._packets)
        for packet in self._packets:
            lacing += b"\xff" * (len(packet) // 255) + bytes((len(packet) % 255,))
        at, goes_on = 0, False
        for start in range(0, len(lacing), 255):
            part = lacing[start : start + 255]
            granule = 0 if min(part) < 255 else -1  # -1: no packet ends on it
            head = HEAD.pack(b"OggS", 0, CONTINUED * goes_on, granule, serial, self.sequence, 0)
            yield _with_checksum(head + bytes((len(part),)) + part + body[at : at + sum(part)])
            self.sequence += 1
            at += sum(part)
            goes_on = part[-1] == 255


def _page(
    source: Source, at: int, end: int, sequence: int, wanted: int, body: bytes | None = None
) -> Iterator[Piece]:
    """The page there, under another number, or with another body of the same size."""
    if sequence == wanted and body is None:
        yield Span(at, end)
        return
    page = bytearray(source.at(at, end - at))
    struct.pack_into("<I", page, 18, wanted & 0xFFFFFFFF)
    if body is not None:
        page[len(page) - len(body) :] = body
    page[22:26] = bytes(4)
    new = _with_checksum(bytes(page))
    yield Span(at, end) if new == source.at(at, end - at) else new


REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _with_checksum(page: bytes) -> bytes:
    """The page with its checksum in place of the zeros there.

    Ogg's CRC has zlib's polynomial the other way round, and neither its initial value nor its final inversion.
    """
    reflected = zlib.crc32(page.translate(REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return page[:22] + reflected.to_bytes(4, "big").translate(REVERSED) + page[26:]
