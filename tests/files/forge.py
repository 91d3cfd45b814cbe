"""Files of every type made by hand, byte by byte, so that each of their parts can be made wrong."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from bridged.files.formats.crc import flac_crc8, flac_crc16, ogg_crc

GRAPH = (
    b'{"3": {"class_type": "KSampler", "inputs": {"text": "<lora:x:1> eval( import os <b>bold</b>", "seed": NaN}},'
    b' "5": {"class_type": "Note", "inputs": {"text": "<script>alert(1)</script> <html><svg onload=alert(1)>"}}}'
)
"""a ComfyUI graph with a note that has markup"""


def chunk(kind: bytes, data: bytes = b"", checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def header(width: int = 3, height: int = 2, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))


def rows(width: int = 3, height: int = 2, bits: int = 24, filters: int = 0) -> bytes:
    return (bytes([filters]) + bytes((width * bits + 7) // 8)) * height


def idat(data: bytes | None = None) -> bytes:
    return chunk(b"IDAT", zlib.compress(rows() if data is None else data))


def png(*parts: bytes, before: Sequence[bytes] = (), after: Sequence[bytes] = (), end: bytes = b"") -> bytes:
    """`parts` in place of header and pixels, or `before` and `after` the pixels."""
    middle = parts or (header(), *before, idat(), *after)
    return b"\x89PNG\r\n\x1a\n" + b"".join(middle) + chunk(b"IEND") + end


def text(value: bytes, key: bytes = b"Comment", kind: bytes = b"tEXt") -> bytes:
    return chunk(kind, key + b"\0" + value)


def ztext(value: bytes) -> bytes:
    return chunk(b"zTXt", b"Comment\0\0" + zlib.compress(value))


def itext(value: bytes, packed: bool = False) -> bytes:
    return chunk(b"iTXt", b"Comment\0" + bytes([packed, 0]) + b"en\0\0" + (zlib.compress(value) if packed else value))


def frame_control(number: int, width: int = 3, height: int = 2, x: int = 0, y: int = 0) -> bytes:
    return chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, width, height, x, y, 1, 10, 0, 0))


def frame_data(number: int, data: bytes | None = None) -> bytes:
    return chunk(b"fdAT", struct.pack(">I", number) + zlib.compress(rows() if data is None else data))


def animation(frames: int, plays: int = 0) -> bytes:
    return chunk(b"acTL", struct.pack(">II", frames, plays))


def apng(frames: int = 2, says: int | None = None) -> bytes:
    parts = [header(), animation(frames if says is None else says), frame_control(0), idat()]
    for number in range(1, frames):
        parts += [frame_control(2 * number - 1), frame_data(2 * number)]
    return png(*parts)


def saved(form: str, mode: str = "RGB", size: tuple[int, int] = (17, 11), **options: Any) -> bytes:
    body = io.BytesIO()
    noise = random.Random(1).randbytes(3 * size[0] * size[1])
    image = Image.frombytes("RGB", size, noise).convert(mode)
    image.save(body, form, **options)
    return body.getvalue()


def segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def jpeg(*segments: bytes, end: bytes = b"", **options: Any) -> bytes:
    """A picture with further segments behind its start."""
    plain = saved("JPEG", **options)
    return plain[:2] + b"".join(segments) + plain[2:] + end


def tiff_tags(*tags: tuple[int, int, bytes], order: str = "<") -> bytes:
    """A TIFF structure of one directory: (tag, type, value)."""
    sizes = {1: 1, 2: 1, 3: 2, 4: 4, 7: 1}
    place = 8 + 2 + 12 * len(tags) + 4
    table, values = b"", b""
    for tag, kind, value in tags:
        count = len(value) // sizes[kind]
        inline = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack(order + "I", place + len(values))
        values += value if len(value) > 4 else b""
        table += struct.pack(order + "HHI", tag, kind, count) + inline
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(order + "IH", 8, len(tags)) + table + bytes(4) + values


def exif(*tags: tuple[int, int, bytes]) -> bytes:
    return segment(0xE1, b"Exif\0\0" + tiff_tags(*tags))


def gif(*blocks: bytes, width: int = 2, height: int = 2, end: bytes = b"", frames: int = 1) -> bytes:
    """Frames of a lone pixel code each, and further blocks before them."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    frame = b"," + struct.pack("<HHHHB", 0, 0, 2, 2, 0) + b"\x02\x03\x04\0\x05\0"  # clear, four pixels, end
    return head + b"".join(blocks) + frame * frames + b";" + end


def comment(data: bytes) -> bytes:
    pieces = [data[at : at + 255] for at in range(0, len(data), 255)]
    return b"!\xfe" + b"".join(bytes([len(piece)]) + piece for piece in pieces) + b"\0"


def riff_chunk(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def riff(form: bytes, *chunks: bytes, size: int | None = None, kind: bytes = b"RIFF", end: bytes = b"") -> bytes:
    body = form + b"".join(chunks)
    return kind + struct.pack("<I", len(body) if size is None else size) + body + end


def webp(*chunks: bytes, end: bytes = b"") -> bytes:
    """An extended WebP with further chunks behind its pixels."""
    simple = saved("WEBP", size=(17, 11))
    extended = riff_chunk(b"VP8X", b"\x0c\0\0\0" + (16).to_bytes(3, "little") + (10).to_bytes(3, "little"))
    return riff(b"WEBP", extended, simple[12:], *chunks, end=end)


def wav(*chunks: bytes, sound: bytes = bytes(200), end: bytes = b"", **options: Any) -> bytes:
    form = riff_chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16))
    return riff(b"WAVE", form, riff_chunk(b"data", sound), *chunks, end=end, **options)


def box(kind: bytes, *parts: bytes, size: int | None = None) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", len(body) + 8 if size is None else size) + kind + body


def handler(kind: bytes = b"vide") -> bytes:
    return box(b"hdlr", bytes(8) + kind + bytes(12) + b"\0")


def track(kind: bytes = b"vide") -> bytes:
    table = box(b"stbl", box(b"stsd", bytes(8)), box(b"stco", bytes(8)))
    return box(b"trak", box(b"tkhd", bytes(84)), box(b"mdia", handler(kind), box(b"minf", table)))


FTYP = box(b"ftyp", b"isom\0\0\2\0isommp41")


def movie(*inside: bytes, kind: bytes = b"vide") -> bytes:
    return box(b"moov", box(b"mvhd", bytes(100)), track(kind), *inside)


def mp4(*boxes: bytes, kind: bytes = b"vide", end: bytes = b"") -> bytes:
    return FTYP + movie(kind=kind) + b"".join(boxes) + box(b"mdat", bytes(64)) + end


def tagged(value: bytes) -> bytes:
    """A box of user data as FFmpeg and iTunes write it."""
    data = box(b"data", struct.pack(">II", 1, 0) + value)
    return box(b"udta", box(b"meta", bytes(4), handler(b"mdir"), box(b"ilst", box(b"\xa9cmt", data))))


def element(kind: int, *parts: bytes, unknown: bool = False) -> bytes:
    body = b"".join(parts)
    name = kind.to_bytes((kind.bit_length() + 7) // 8, "big")
    size = bytes([0x80 | len(body)]) if len(body) < 127 else (1 << 28 | len(body)).to_bytes(4, "big")
    return name + (b"\x01" + b"\xff" * 7 if unknown else size) + body


def cluster(unknown: bool = False) -> bytes:
    return element(0x1F43B675, element(0xE7, b"\0"), element(0xA3, b"\x81\0\0\x80" + bytes(40)), unknown=unknown)


def simple_tag(value: bytes) -> bytes:
    return element(0x1254C367, element(0x7373, element(0x67C8, element(0x45A3, b"COMMENT"), element(0x4487, value))))


def webm(*parts: bytes, document: bytes = b"webm", unknown: bool = False, end: bytes = b"") -> bytes:
    head = element(0x1A45DFA3, element(0x4286, b"\1"), element(0x4282, document))
    tracks = element(0x1654AE6B, element(0xAE, element(0xD7, b"\1"), element(0x86, b"V_VP8")))
    info = element(0x1549A966, element(0x2AD7B1, b"\x0f\x42\x40"))
    return head + element(0x18538067, info, tracks, *parts, cluster(unknown), cluster(unknown), unknown=unknown) + end


def page(serial: int, number: int, body: bytes, flags: int = 0, checksum: int | None = None) -> bytes:
    table = b"\xff" * (len(body) // 255) + bytes([len(body) % 255])
    head = struct.pack("<4sBBqIII", b"OggS", 0, flags, 0, serial, number, 0) + bytes([len(table)]) + table
    checksum = ogg_crc(head, body) if checksum is None else checksum
    return head[:22] + struct.pack("<I", checksum) + head[26:] + body


def comments(*values: bytes) -> bytes:
    entries = [struct.pack("<I", len(value)) + value for value in values]
    return struct.pack("<I4sI", 4, b"test", len(values)) + b"".join(entries)


OPUS_HEAD = b"OpusHead\1\1" + struct.pack("<HIhB", 312, 48000, 0, 0)


def ogg(*values: bytes, head: bytes = OPUS_HEAD, end: bytes = b"") -> bytes:
    tags = b"OpusTags" + comments(*values)
    pieces = [tags[at : at + 255 * 250] for at in range(0, len(tags), 255 * 250)]
    pages = [page(7, 0, head, 2)]
    for number, piece in enumerate(pieces, 1):
        whole = number == len(pieces)
        pages.append(page(7, number, piece) if whole else open_page(7, number, piece))
    return b"".join(pages) + page(7, len(pages), bytes(100)) + page(7, len(pages) + 1, bytes(50), 4) + end


def open_page(serial: int, number: int, body: bytes) -> bytes:
    """A page whose last packet goes on in the next one."""
    table = b"\xff" * (len(body) // 255)
    head = struct.pack("<4sBBqIII", b"OggS", 0, 0, -1, serial, number, 0) + bytes([len(table)]) + table
    return head[:22] + struct.pack("<I", ogg_crc(head, body)) + head[26:] + body


def flac_frame(number: int = 0, sound: bytes = bytes(32)) -> bytes:
    """16 samples of 16 bits, as they are."""
    head = bytes([0xFF, 0xF8, 0x60, 0x08, number, 15])
    body = head + bytes([flac_crc8(head)]) + b"\x02" + sound
    return body + struct.pack(">H", flac_crc16(body))


def flac_block(kind: int, data: bytes, last: bool = False) -> bytes:
    return bytes([kind | last << 7]) + len(data).to_bytes(3, "big") + data


STREAMINFO = struct.pack(">HH", 16, 16) + bytes(6) + (8000 << 44 | 15 << 36 | 32).to_bytes(8, "big") + bytes(16)


def flac(*blocks: bytes, end: bytes = b"", frames: bytes | None = None) -> bytes:
    tags = flac_block(4, comments(b"TITLE=x"), last=True)
    sound = flac_frame(0) + flac_frame(1) if frames is None else frames
    return b"fLaC" + flac_block(0, STREAMINFO) + b"".join(blocks) + tags + sound + end


MP3_FRAME = b"\xff\xfb\x90\x64" + bytes(413)


def id3(*frames: tuple[bytes, bytes]) -> bytes:
    body = b"".join(name + struct.pack(">IH", len(data), 0) + data for name, data in frames)
    size = len(body)
    return b"ID3\3\0\0" + bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127]) + body


def mp3(*frames: tuple[bytes, bytes], end: bytes = b"") -> bytes:
    return (id3(*frames) if frames else b"") + MP3_FRAME * 8 + end


MADE: dict[str, Callable[[], bytes]] = {
    ".png": png,
    ".jpg": jpeg,
    ".gif": gif,
    ".webp": webp,
    ".bmp": lambda: saved("BMP"),
    ".tif": lambda: saved("TIFF"),
    ".mp4": mp4,
    ".mov": lambda: mp4().replace(b"isom\0\0\2\0isommp41", b"qt  \0\0\2\0qt  qt  "),
    ".webm": webm,
    ".wav": wav,
    ".flac": flac,
    ".mp3": mp3,
    ".ogg": ogg,
}
"""a sound file of each type that is allowed by default"""

ZIP = b"PK\x03\x04\x14\0\0\0\0\0" + bytes(16) + b"\1\0\0\0a"
DIRECTORY = b"PK\x01\x02" + bytes(42)
END_OF_ZIP = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(DIRECTORY), len(ZIP), 0)
ARCHIVE = ZIP + DIRECTORY + END_OF_ZIP

APPENDED = {
    "ZIP": ARCHIVE,
    "RAR": b"Rar!\x1a\x07\x01\0" + bytes(40),
    "7z": b"7z\xbc\xaf\x27\x1c\0\4" + bytes(40),
    "gzip": b"\x1f\x8b\x08\0" + bytes(40),
    "PDF": b"%PDF-1.7\n1 0 obj\n" + bytes(40),
    "ELF": b"\x7fELF\2\1\1" + bytes(60),
    "PE": b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + bytes(40),
    "HTML": b"<html><body onload=alert(1)></body></html>",
    "doctype": b"\n\n<!DOCTYPE html><title>x</title>",
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
    "PHP": b"<?php system($_GET[0]); ?>",
    "short PHP": b"<?=`$_GET[0]`?>",
    "JSP": b"<%@ page import='java.io.*' %>",
    "script tag": b"<script>alert(1)</script>",
    "shell": b"#!/bin/sh\nrm -rf /\n",
    "Python": b"import os\nos.system('id')\n",
    "shell behind zeros": bytes(5000) + b"\n#!/bin/sh\nid\n",
}
"""what attackers put behind a file"""
