"""Small files that would be large, or would never end, for whoever opens them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator

from PIL import Image

from tests.corpus import forms
from tests.corpus.case import MIME, Case
from tests.corpus.forms import LONG, png_header, png_of, tiff_entry, tiff_grey, tiff_of, zeros_deflated
from tests.corpus.seeds import pillow, seed

MB = 1 << 20


def _case(extension: str, label: str, content: bytes | Callable[[], bytes], why: str) -> Case:
    return Case(f"{extension} {label}", f"file{extension}", content, MIME[extension], why)


def _frames(count: int, side: int) -> bytes:
    """An APNG of `count` grey frames of side x side pixels, all zero."""
    data = zeros_deflated((side + 1) * side)

    def control(number: int) -> forms.Chunk:
        return b"fcTL", struct.pack(">IIIIIHHBB", number, side, side, 0, 0, 1, 10, 0, 0)

    chunks = [png_header(side, side), (b"acTL", struct.pack(">II", count, 0)), control(0), (b"IDAT", data)]
    for number in range(1, count):
        chunks += [control(2 * number - 1), (b"fdAT", struct.pack(">I", 2 * number) + data)]
    return forms.png_join([*chunks, (b"IEND", b"")])


def png() -> Iterator[Case]:
    small = seed(".png")
    row = zlib.compress(bytes(2000))

    def sized(width: int, height: int, depth: int = 8, colour: int = 0) -> bytes:
        return forms.png_join([png_header(width, height, depth, colour), (b"IDAT", row), (b"IEND", b"")])

    def text(kind: bytes, size: int) -> bytes:
        head = {b"zTXt": b"Comment\0\0", b"iTXt": b"Comment\0\1\0en\0\0", b"iCCP": b"ICC\0\0"}[kind]
        return forms.png_with(small, (kind, head + zeros_deflated(size)))

    many = (b"zTXt", b"Comment\0\0" + zeros_deflated(900_000))
    bombs: dict[str, bytes | Callable[[], bytes]] = {
        "2**31-1 square": sized(2**31 - 1, 2**31 - 1),
        "100000 square": sized(100_000, 100_000),
        "65535 square, 1 bit": sized(65535, 65535, 1),
        "65535 square, RGBA 16": sized(65535, 65535, 16, 6),
        "1 x 1000000": sized(1, 1_000_000),
        "1000000 x 1": sized(1_000_000, 1),
        "20000 square, little data": sized(20_000, 20_000),
        "30000 square, whole": lambda: forms.png_join(
            [png_header(30_000, 30_000, 1), (b"IDAT", zeros_deflated(3751 * 30_000)), (b"IEND", b"")]
        ),
        "12000 square, interlaced": lambda: png_of(png_header(12_000, 12_000, 1, 0, 1), bytes(1501 * 12_000)),
        "IDAT inflates to 64 MB for 10 x 10": lambda: forms.png_join(
            [png_header(10, 10), (b"IDAT", zeros_deflated(64 * MB)), (b"IEND", b"")]
        ),
        "many IDATs inflate to 64 MB for 10 x 10": lambda: _scattered(zeros_deflated(64 * MB)),
        "zTXt of 64 MB": lambda: text(b"zTXt", 64 * MB),
        "iTXt of 64 MB": lambda: text(b"iTXt", 64 * MB),
        "iCCP of 64 MB": lambda: text(b"iCCP", 64 * MB),
        "zTXt of 0.9 MB, 100 times": lambda: forms.png_with(small, *[many] * 100),
        "4 billion APNG frames": forms.png_with(small, (b"acTL", struct.pack(">II", 0xFFFFFFFF, 0))),
        "1200 APNG frames": lambda: _frames(1200, 4),
        "200 APNG frames of 3000 square": lambda: _frames(200, 3000),
        "APNG frame outside of the picture": _frames(2, 4).replace(
            struct.pack(">IIIII", 1, 4, 4, 0, 0), struct.pack(">IIIII", 1, 60000, 60000, 9, 9)
        ),
    }
    for label, content in bombs.items():
        yield _case(".png", label, content, label)


def _scattered(data: bytes) -> bytes:
    pieces = [(b"IDAT", data[at : at + 100]) for at in range(0, len(data), 100)]
    return forms.png_join([png_header(10, 10), *pieces, (b"IEND", b"")])


def gif() -> Iterator[Case]:
    full = forms.gif_frame(65535, 65535)

    def large_frames() -> bytes:
        image = pillow(Image.new("P", (3000, 3000)), "GIF")
        frame = image[image.index(b"\x2c\x00\x00\x00\x00") : -1]
        return forms.gif_of(3000, 3000, *[frame] * 200)

    bombs: dict[str, bytes | Callable[[], bytes]] = {
        "65535 square": forms.gif_of(65535, 65535, full),
        "65535 square, 500 frames": forms.gif_of(65535, 65535, *[full] * 500),
        "65535 square, small frames": forms.gif_of(65535, 65535, *[forms.gif_frame()] * 50),
        "frame larger than its screen": forms.gif_of(4, 4, full),
        "5000 frames": forms.gif_of(1, 1, *[forms.gif_frame()] * 5000),
        "200 frames of 3000 square": large_frames,
    }
    for label, content in bombs.items():
        yield _case(".gif", label, content, label)


def webp() -> Iterator[Case]:
    (kind, picture) = next(c for c in forms.riff_split(seed(".webp")) if c[0] in (b"VP8 ", b"VP8L"))
    key_frame = picture[:6] + struct.pack("<HH", 16383, 16383) + picture[10:]
    lossless = b"\x2f" + struct.pack("<I", 16383 | 16383 << 14) + b"\x00" * 40
    frame_head = bytes(6) + (23).to_bytes(3, "little") + (15).to_bytes(3, "little") + b"\x0a\x00\x00\x00"
    frame = (b"ANMF", frame_head + forms.riff_chunk(kind, picture))
    start = (b"ANIM", bytes(6))
    bombs = {
        "canvas of 2**24 square": [forms.webp_extended(1 << 24, 1 << 24), (kind, picture)],
        "canvas of 16384 square": [forms.webp_extended(16384, 16384), (kind, picture)],
        "lossy, 16383 square": [(b"VP8 ", key_frame)],
        "lossless, 16384 square": [(b"VP8L", lossless)],
        "1200 frames": [forms.webp_extended(24, 16, 2), start, *[frame] * 1200],
        "animation of 16384 square": [forms.webp_extended(16384, 16384, 2), start, *[frame] * 9],
        "frame outside of the canvas": [
            forms.webp_extended(8, 8, 2),
            start,
            (b"ANMF", b"\xff" * 6 + frame[1][6:]),
        ],
    }
    for label, chunks in bombs.items():
        yield _case(".webp", label, forms.riff_join(b"WEBP", chunks), label)


def tiff() -> Iterator[Case]:
    def replaced(entries: list[forms.Entry], *new: forms.Entry) -> list[forms.Entry]:
        tags = {entry[0] for entry in new}
        return [entry for entry in entries if entry[0] not in tags] + list(new)

    grey = tiff_grey(4, 4, 16)
    tiled = [entry for entry in grey if entry[0] not in (273, 278, 279)]
    tiles = [tiff_entry(322, LONG, 1 << 20), tiff_entry(323, LONG, 1 << 20), tiff_entry(325, LONG, 16)]
    lzw = tiff_grey(100_000, 100_000, 16, 5)
    endless = tiff_grey(4, 4, 16)
    bombs: dict[str, bytes | Callable[[], bytes]] = {
        "100000 square": tiff_of(lzw, bytes(16)),
        "2**32-1 wide": tiff_of(replaced(grey, tiff_entry(256, LONG, 0xFFFFFFFF)), bytes(16)),
        "strip of 4 GB": tiff_of(tiff_grey(4, 4, 0xFFFFFFFF), bytes(16)),
        "tiles of 2**20 square": tiff_of([*tiled, *tiles, tiff_entry(324, LONG, 8)], bytes(16)),
        "IFD that follows itself": tiff_of(endless, bytes(16), following=8),
        "values of 4 GB": tiff_of([*grey, (270, 2, 0xFFFFFFFF, b"\x08\0\0\0")], bytes(16)),
        "4 billion strips": tiff_of(replaced(grey, (273, 4, 0xFFFFFFFF, b"\x08\0\0\0")), bytes(16)),
        "12000 square, deflate": lambda: _deflated_tiff(12_000),
        "1200 pages": lambda: _pages(1200),
    }
    for label, content in bombs.items():
        yield _case(".tif", label, content, label)


def _deflated_tiff(side: int) -> bytes:
    data = zeros_deflated(side * side)
    return tiff_of(tiff_grey(side, side, len(data), 8), data)


def _pages(count: int) -> bytes:
    """`count` pictures of one pixel each, one IFD after the other, all of the same pixel."""
    size = 2 + 12 * 9 + 4
    pages = []
    for number in range(count):
        entries = [(*entry[:3], bytes(4)) if entry[0] == 273 else entry for entry in tiff_grey(1, 1, 1)]
        following = 8 + (number + 1) * size if number < count - 1 else 0
        page = bytearray(tiff_of(entries, following=following)[8:])
        place = page.index(struct.pack("<HHI", 273, LONG, 1)) + 8
        struct.pack_into("<I", page, place, 8 + count * size)
        pages.append(bytes(page))
    return b"II*\x00\x08\x00\x00\x00" + b"".join(pages) + b"\x80"


def others() -> Iterator[Case]:
    jpeg = seed(".jpg")
    palette = bytes(8)
    bombs: list[tuple[str, str, bytes | Callable[[], bytes]]] = [
        (".jpg", "65500 square", forms.jpeg_sized(jpeg, 65500, 65500)),
        (".jpg", "20000 square", forms.jpeg_sized(jpeg, 20_000, 20_000)),
        (".jpg", "1 x 65500", forms.jpeg_sized(jpeg, 1, 65500)),
        (".jpg", "whole, 11000 square", lambda: pillow(Image.new("L", (11_000, 11_000)), "JPEG", quality=10)),
        (".bmp", "2**31-1 square", forms.bmp_of(2**31 - 1, 2**31 - 1, bytes(64))),
        (".bmp", "100000 square, 1 bit", forms.bmp_of(100_000, 100_000, bytes(64), 1, palette=palette)),
        (
            ".bmp",
            "30000 square, RLE",
            forms.bmp_of(30_000, 30_000, b"\x00\x01", 8, compression=1, palette=bytes(1024)),
        ),
        (".bmp", "height -2**31", forms.bmp_of(4, -(2**31), bytes(64))),
        (".bmp", "100000 wide", forms.bmp_of(100_000, 1, bytes(300_000))),
    ]
    for extension, label, content in bombs:
        yield _case(extension, label, content, label)
