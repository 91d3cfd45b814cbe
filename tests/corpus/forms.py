"""File formats taken apart and put together again: only as far as the corpus needs them.

PNG and APNG: W3C PNG third edition. JPEG: ITU-T T.81 annex B. GIF: GIF89a. WebP and WAV: RIFF. BMP: Microsoft's
BITMAPINFOHEADER. TIFF 6.0. MP4: ISO/IEC 14496-12. EBML: RFC 8794.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
Chunk = tuple[bytes, bytes]


# -- PNG ---------------------------------------------------------------------------------------------------------


def png_chunk(kind: bytes, data: bytes = b"", crc: int | None = None) -> bytes:
    """`crc`: what is written in place of the right one."""
    right = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", right if crc is None else crc)


def png_split(png: bytes) -> list[Chunk]:
    at, chunks = 8, []
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        chunks.append((png[at + 4 : at + 8], png[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def png_join(chunks: Iterable[Chunk]) -> bytes:
    return PNG_MAGIC + b"".join(png_chunk(kind, data) for kind, data in chunks)


def png_with(png: bytes, *new: Chunk, before: bytes = b"IDAT") -> bytes:
    """The chunks put in before the first `before`."""
    chunks = png_split(png)
    at = next(i for i, (kind, _) in enumerate(chunks) if kind == before)
    return png_join([*chunks[:at], *new, *chunks[at:]])


def png_header(width: int, height: int, depth: int = 8, colour: int = 0, interlace: int = 0) -> Chunk:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)


def png_of(header: Chunk, raw: bytes, *extra: Chunk, level: int = 6) -> bytes:
    """A PNG of that header and of `raw`: filtered rows as they are before deflate."""
    return png_join([header, *extra, (b"IDAT", zlib.compress(raw, level)), (b"IEND", b"")])


def zeros_deflated(size: int) -> bytes:
    """zlib data that inflates to `size` zero bytes, made without holding them."""
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    pieces = [packer.compress(block) for _ in range(size >> 20)]
    return b"".join([*pieces, packer.compress(bytes(size & ((1 << 20) - 1))), packer.flush()])


# -- JPEG --------------------------------------------------------------------------------------------------------


def jpeg_segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def jpeg_segments(jpeg: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each segment up to and with the first SOS."""
    at = 2
    while at < len(jpeg):
        marker, (length,) = jpeg[at + 1], struct.unpack_from(">H", jpeg, at + 2)
        yield marker, at, at + 2 + length
        at += 2 + length
        if marker == 0xDA:
            return


def jpeg_with(jpeg: bytes, *segments: bytes, first: bool = False) -> bytes:
    """The segments put in after APP0, or directly behind SOI."""
    at = 2
    if not first:
        at = next((end for marker, _, end in jpeg_segments(jpeg) if marker == 0xE0), 2)
    return jpeg[:at] + b"".join(segments) + jpeg[at:]


def jpeg_without(jpeg: bytes, *markers: int) -> bytes:
    kept, at = [jpeg[:2]], 2
    for marker, start, end in jpeg_segments(jpeg):
        if marker not in markers:
            kept.append(jpeg[start:end])
        at = end
    return b"".join([*kept, jpeg[at:]])


def jpeg_sized(jpeg: bytes, width: int, height: int) -> bytes:
    """The same data under a frame header that claims other dimensions."""
    for marker, start, _ in jpeg_segments(jpeg):
        if marker in (0xC0, 0xC1, 0xC2):
            return jpeg[: start + 5] + struct.pack(">HH", height, width) + jpeg[start + 9 :]
    raise ValueError("no frame header")


# -- GIF ---------------------------------------------------------------------------------------------------------


def gif_blocks(data: bytes) -> bytes:
    """Data sub-blocks of at most 255 bytes, and their terminator."""
    pieces = (data[at : at + 255] for at in range(0, len(data), 255))
    return b"".join(bytes([len(piece)]) + piece for piece in pieces) + b"\x00"


def gif_comment(text: bytes) -> bytes:
    return b"\x21\xfe" + gif_blocks(text)


def gif_head_end(gif: bytes) -> int:
    """Where the screen descriptor and the global colour table end."""
    flags = gif[10]
    return 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)


def gif_with(gif: bytes, block: bytes) -> bytes:
    at = gif_head_end(gif)
    return gif[:at] + block + gif[at:]


GIF_PIXEL = b"\x02\x02\x44\x01\x00"
"""LZW data of one pixel, with its minimum code size"""


def gif_frame(width: int = 1, height: int = 1, x: int = 0, y: int = 0, data: bytes = GIF_PIXEL) -> bytes:
    return b"\x2c" + struct.pack("<HHHHB", x, y, width, height, 0) + data


def gif_of(width: int, height: int, *blocks: bytes, trailer: bytes = b"\x3b") -> bytes:
    """Two colours."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\x00\x00\x00\xff\xff\xff"
    return head + b"".join(blocks) + trailer


# -- RIFF: WebP, WAV ---------------------------------------------------------------------------------------------


def riff_chunk(kind: bytes, data: bytes, size: int | None = None) -> bytes:
    """`size`: what is written in place of the right one."""
    return kind + struct.pack("<I", len(data) if size is None else size) + data + b"\x00" * (len(data) & 1)


def riff_split(riff: bytes) -> list[Chunk]:
    at, chunks = 12, []
    while at + 8 <= len(riff):
        (size,) = struct.unpack_from("<I", riff, at + 4)
        chunks.append((riff[at : at + 4], riff[at + 8 : at + 8 + size]))
        at += 8 + size + (size & 1)
    return chunks


def riff_join(form: bytes, chunks: Iterable[Chunk]) -> bytes:
    body = form + b"".join(riff_chunk(kind, data) for kind, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def riff_with(riff: bytes, *new: Chunk) -> bytes:
    """The chunks put in at the end, the sizes being right."""
    return riff_join(riff[8:12], [*riff_split(riff), *new])


def riff_sized(riff: bytes, size: int) -> bytes:
    return riff[:4] + struct.pack("<I", size) + riff[8:]


def webp_extended(width: int, height: int, flags: int = 0) -> Chunk:
    return b"VP8X", bytes([flags, 0, 0, 0]) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")


# -- BMP ---------------------------------------------------------------------------------------------------------


def bmp_of(
    width: int,
    height: int,
    pixels: bytes,
    bits: int = 24,
    *,
    compression: int = 0,
    palette: bytes = b"",
    gap: bytes = b"",
    header: int = 40,
) -> bytes:
    """BITMAPINFOHEADER; `gap` lies between palette and pixels."""
    offset = 14 + 40 + len(palette) + len(gap)
    info = struct.pack("<IiiHHIIiiII", header, width, height, 1, bits, compression, len(pixels), 2835, 2835, 0, 0)
    file = b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset)
    return file + info + palette + gap + pixels


# -- TIFF --------------------------------------------------------------------------------------------------------

SHORT, LONG, ASCII, UNDEFINED = 3, 4, 2, 7
Entry = tuple[int, int, int, bytes]


def tiff_entry(tag: int, kind: int, *values: int) -> Entry:
    return tag, kind, len(values), struct.pack(f"<{len(values)}{'H' if kind == SHORT else 'I'}", *values)


def tiff_of(entries: Sequence[Entry], data: bytes = b"", gap: bytes = b"", following: int = 0) -> bytes:
    """One little-endian IFD behind the header and `gap`; then the values that do not fit into it, then `data`, whose
    place is the value of StripOffsets where that is given as 0. `following`: the place of the next IFD."""
    start = 8 + len(gap)
    values_at = start + 2 + 12 * len(entries) + 4
    outside = sum(len(value) + (len(value) & 1) for *_, value in entries if len(value) > 4)
    table, values = struct.pack("<H", len(entries)), b""
    for tag, kind, count, value in sorted(entries):
        if tag == 273 and value == bytes(4):
            value = struct.pack("<I", values_at + outside)
        if len(value) > 4:
            place = struct.pack("<I", values_at + len(values))
            values += value + b"\x00" * (len(value) & 1)
            value = place
        table += struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\x00")
    return b"II*\x00" + struct.pack("<I", start) + gap + table + struct.pack("<I", following) + values + data


def tiff_grey(width: int, height: int, size: int, compression: int = 1, bits: int = 8) -> list[Entry]:
    """The entries of a grey picture in one strip of `size` bytes."""
    return [
        tiff_entry(256, LONG, width),
        tiff_entry(257, LONG, height),
        tiff_entry(258, SHORT, bits),
        tiff_entry(259, SHORT, compression),
        tiff_entry(262, SHORT, 1),
        tiff_entry(273, LONG, 0),
        tiff_entry(277, SHORT, 1),
        tiff_entry(278, LONG, height),
        tiff_entry(279, LONG, size),
    ]


# -- MP4, EBML ---------------------------------------------------------------------------------------------------


def box(kind: bytes, data: bytes = b"", size: int | None = None) -> bytes:
    """`size`: what is written in place of the right one."""
    return struct.pack(">I", 8 + len(data) if size is None else size) + kind + data


def boxes(mp4: bytes) -> list[Chunk]:
    at, found = 0, []
    while at + 8 <= len(mp4):
        (size,) = struct.unpack_from(">I", mp4, at)
        found.append((mp4[at + 4 : at + 8], mp4[at + 8 : at + size]))
        at += size
    return found


def boxes_join(found: Iterable[Chunk]) -> bytes:
    return b"".join(box(kind, data) for kind, data in found)


def element(identifier: bytes, data: bytes = b"", size: int | None = None) -> bytes:
    """An EBML element with a size of 8 bytes; `size`: what is written in place of the right one, -1: unknown."""
    number = len(data) if size is None else size
    return identifier + struct.pack(">Q", (1 << 56) | (number & ((1 << 56) - 1))) + data


def ebml_head(doctype: bytes = b"webm") -> bytes:
    return element(b"\x1a\x45\xdf\xa3", element(b"\x42\x82", doctype) + element(b"\x42\x87", b"\x02"))
