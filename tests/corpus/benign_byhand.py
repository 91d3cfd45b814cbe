"""Pictures and sounds written by hand, after the formats' own texts: what encoders seldom write but readers read, and
pixels that happen to spell what a scanner looks for."""

from __future__ import annotations

import io
import struct
import wave
import zlib
from collections.abc import Iterator

import numpy as np

from tests.corpus import forms
from tests.corpus.case import Case, mime
from tests.corpus.forms import LONG, SHORT, png_header, png_of, tiff_entry, tiff_grey, tiff_of
from tests.corpus.seeds import scene, seed, tone

WORDS: dict[str, bytes] = {
    "eval(": b"eval(",
    "import": b"import os\nimport sys\n",
    "<?": b"<?",
    "<?php": b"<?php ",
    "<script": b"<script>",
    "PK": b"PK\x03\x04",
    "PK, end": b"PK\x05\x06",
    "MZ": b"MZ\x90\x00",
    "ELF": b"\x7fELF",
    "%PDF": b"%PDF-1.7",
    "Rar!": b"Rar!\x1a\x07",
    "exec": b"exec(__import__('os').system(",
    "IEND": b"IEND\xaeB`\x82",
    "FFD9": b"\xff\xd9\xff\xd8",
}
"""what a scanner of raw bytes looks for; harmless where it is a colour"""


def spelled(word: bytes, size: int) -> bytes:
    """Noise of `size` bytes with the word in it, three times, in none of its first 1500 bytes."""
    noise = bytearray(np.random.default_rng(len(word)).integers(0, 256, size, np.uint8).tobytes())
    for place in (1501, size // 2, size - 200):
        noise[place : place + len(word)] = word
    return bytes(noise)


def words() -> Iterator[Case]:
    for label, word in WORDS.items():
        pixels = spelled(word, 48 * 64 * 3)
        rows = b"".join(b"\0" + pixels[y * 144 : y * 144 + 144] for y in range(64))
        made = {
            ".bmp": forms.bmp_of(48, 64, pixels),
            ".png": png_of(png_header(48, 64, 8, 2), rows, level=0),
            ".tif": tiff_of(tiff_grey(144, 64, len(pixels)), pixels),
        }
        for extension, data in made.items():
            if word not in data:
                continue  # a row's filter byte cuts it
            name = f"picture{extension}"
            why = f"its pixels spell {label}"
            yield Case(f"by hand {extension} spells {label}", name, data, mime(name), why, encoder="by hand")
    for label in ("eval(", "<?php", "PK", "MZ", "<script"):
        body = io.BytesIO()
        with wave.open(body, "wb") as out:
            out.setparams((2, 2, 44100, 0, "NONE", ""))
            out.writeframes(spelled(WORDS[label], 8000))
        yield Case(
            f"wave spells {label}",
            "sound.wav",
            body.getvalue(),
            "audio/wav",
            "its samples do",
            encoder="wave",
        )


def png() -> Iterator[Case]:
    header = png_header(24, 16, 8, 2)
    raw = b"".join(b"\0" + row.tobytes() for row in scene())
    packed = zlib.compress(raw)
    end = (b"IEND", b"")
    chunks = [(b"IDAT", packed[at : at + 7]) for at in range(0, len(packed), 7)]
    before = [
        (b"gAMA", struct.pack(">I", 45455)),
        (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
        (b"sRGB", b"\0"),
        (b"sBIT", b"\x08\x08\x08"),
        (b"pHYs", struct.pack(">IIB", 2835, 2835, 1)),
        (b"bKGD", bytes(6)),
        (b"tIME", struct.pack(">HBBBBB", 2024, 5, 1, 12, 30, 45)),
        (b"cICP", b"\x01\x0d\x00\x01"),
        (b"sPLT", b"six\0\x08" + bytes(range(12))),
        (b"vpAg", bytes(9)),
        (b"oFFs", bytes(9)),
        (b"iDOT", bytes(28)),
    ]
    for kind, data in before:
        whole = forms.png_join([header, (kind, data), (b"IDAT", packed), end])
        yield _png(f"with {kind.decode()}", whole)
    yield _png("with all of them", forms.png_join([header, *before, (b"IDAT", packed), end]))
    yield _png("IDAT of 7 bytes each", forms.png_join([header, *chunks, end]))
    yield _png("an empty IDAT among them", forms.png_join([header, *chunks[:2], (b"IDAT", b""), *chunks[2:], end]))
    yield _png("text behind the pixels", forms.png_with(seed(".png"), (b"tEXt", b"Comment\0late"), before=b"IEND"))
    yield _png("zeros behind the end", seed(".png") + bytes(4096))
    for depth, colour, size in ((16, 0, 2), (16, 2, 6), (16, 4, 4), (16, 6, 8), (8, 4, 2), (8, 6, 4)):
        rows = b"".join(b"\0" + bytes(range(9 * size)) for _ in range(9))
        yield _png(f"depth {depth}, colour {colour}", png_of(png_header(9, 9, depth, colour), rows))
    for depth in (1, 2, 4):
        rows = b"".join(b"\0" + bytes([0xA5] * ((9 * depth + 7) // 8)) for _ in range(9))
        yield _png(f"grey of {depth} bits", png_of(png_header(9, 9, depth, 0), rows))
        palette = (b"PLTE", bytes(range(3 << depth)))
        yield _png(f"palette of {depth} bits", png_of(png_header(9, 9, depth, 3), rows, palette))
    for method in range(5):
        rows = b"".join(bytes([method]) + bytes(range(27)) for _ in range(9))
        yield _png(f"filter {method}", png_of(png_header(9, 9, 8, 2), rows))
    passes = b"".join(bytes(((across + 7) // 8 + 1) * down) for across, down in _adam7(9, 9))
    yield _png("interlaced, 1 bit", png_of(png_header(9, 9, 1, 0, 1), passes))


ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def _adam7(width: int, height: int) -> Iterator[tuple[int, int]]:
    """Pixels across and down of each pass that has any."""
    for x, y, dx, dy in ADAM7:
        across, down = -(-(width - x) // dx), -(-(height - y) // dy)
        if across > 0 and down > 0:
            yield across, down


def _png(label: str, data: bytes) -> Case:
    return Case(f"by hand .png {label}", "picture.png", data, "image/png", label, encoder="by hand")


def bmp() -> Iterator[Case]:
    grey = b"".join(bytes([n, 255 - n, n, 0]) for n in range(256))

    def row(bits: int, width: int = 13) -> int:
        return (width * bits + 31) // 32 * 4

    made = {f"{bits} bits": forms.bmp_of(13, 9, bytes(range(row(bits))) * 9, bits) for bits in (16, 24, 32)}
    for bits in (1, 4, 8):
        pixels = bytes(n & 0xFF for n in range(row(bits))) * 9
        made[f"{bits} bits"] = forms.bmp_of(13, 9, pixels, bits, palette=grey[: 4 << bits])
    made["top-down"] = forms.bmp_of(13, -9, bytes(row(24) * 9))
    made["RLE8"] = forms.bmp_of(13, 9, b"\x0d\x07\x00\x00" * 9 + b"\x00\x01", 8, compression=1, palette=grey)
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    made["565"] = forms.bmp_of(13, 9, bytes(row(16) * 9), 16, compression=3, palette=masks)
    masks = struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)
    made["bit fields of 32"] = forms.bmp_of(13, 9, bytes(row(32) * 9), 32, compression=3, palette=masks)
    core = struct.pack("<IHHHH", 12, 13, 9, 1, 24)
    made["OS/2"] = b"BM" + struct.pack("<IHHI", 26 + row(24) * 9, 0, 0, 26) + core + bytes(row(24) * 9)
    size = 14 + 124 + row(32) * 9
    fifth = struct.pack("<IiiHHIIiiII", 124, 13, 9, 1, 32, 3, row(32) * 9, 2835, 2835, 0, 0)
    fifth += struct.pack("<IIIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, 0x73524742) + bytes(48 + 16)
    made["version 5, alpha"] = b"BM" + struct.pack("<IHHI", size, 0, 0, 138) + fifth + bytes(range(row(32))) * 9
    made["no image size"] = made["24 bits"][:34] + bytes(4) + made["24 bits"][38:]
    made["two bytes more (Photoshop)"] = made["24 bits"] + bytes(2)
    for label, data in made.items():
        yield Case(f"by hand .bmp {label}", "picture.bmp", data, "image/bmp", label, encoder="by hand")


def tiff() -> Iterator[Case]:
    pixels = scene(16, 16, channels=1).tobytes()
    grey = tiff_grey(16, 16, 256)
    tiled = [entry for entry in grey if entry[0] not in (273, 278, 279)]
    tile = [tiff_entry(322, LONG, 16), tiff_entry(323, LONG, 16), tiff_entry(325, LONG, 256)]
    at = 8 + 2 + 12 * (len(tiled) + 4) + 4
    made = {
        "grey": tiff_of(grey, pixels),
        "one tile": tiff_of([*tiled, *tile, tiff_entry(324, LONG, at)], pixels),
        "16 bits": tiff_of(tiff_grey(16, 8, 256, bits=16), pixels),
        "aligned to 16 bytes": tiff_of(grey, pixels, gap=bytes(8)),
        "white is zero": tiff_of([e for e in grey if e[0] != 262] + [tiff_entry(262, SHORT, 0)], pixels),
        "description": tiff_of([*grey, (270, 2, 20, b"a walk by the river\0")], pixels),
        "zeros behind the end": tiff_of(grey, pixels) + bytes(64),
    }
    for label, data in made.items():
        yield Case(f"by hand .tif {label}", "picture.tif", data, "image/tiff", label, encoder="by hand")


def gif() -> Iterator[Case]:
    netscape = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"
    control = b"\x21\xf9\x04\x04\x0a\x00\x00\x00"
    frame = forms.gif_frame()
    made = {
        "GIF87a": b"GIF87a" + forms.gif_of(1, 1, frame)[6:],
        "looped": forms.gif_of(1, 1, netscape, control, frame, control, frame),
        "frames off the corner": forms.gif_of(9, 9, control, frame, control, forms.gif_frame(x=5, y=4)),
        "comment": forms.gif_of(1, 1, forms.gif_comment(b"Made on a Mac, 1995 <3"), frame),
        "a comment of 2 kB": forms.gif_of(1, 1, forms.gif_comment(b"la " * 700), frame),
        "zeros behind the end": forms.gif_of(1, 1, frame) + bytes(100),
        "1000 pixels wide": forms.gif_of(1000, 700, forms.gif_frame(x=300)),
    }
    for label, data in made.items():
        yield Case(f"by hand .gif {label}", "picture.gif", data, "image/gif", label, encoder="by hand")


def sound() -> Iterator[Case]:
    for rate in (8000, 22050, 44100, 96000):
        for width, channels in ((1, 1), (2, 2), (3, 1), (4, 2)):
            body = io.BytesIO()
            with wave.open(body, "wb") as out:
                out.setnchannels(channels)
                out.setsampwidth(width)
                out.setframerate(rate)
                samples = (tone(0.05, rate, channels) * 100 + 128).astype(np.uint8)
                out.writeframes(np.repeat(samples, width, axis=1).tobytes())
            label = f"{rate} Hz, {width} bytes, {channels} channels"
            yield Case(f"wave {label}", "sound.wav", body.getvalue(), "audio/x-wav", label, encoder="wave")
    silence = bytes(800)
    fmt = struct.pack("<HHIIHH", 3, 1, 8000, 32000, 4, 32)
    extra = struct.pack("<HHIIHHH", 3, 1, 8000, 32000, 4, 32, 0) + b""
    chunks = {
        "floats": [(b"fmt ", fmt), (b"data", silence)],
        "floats, fact": [(b"fmt ", extra), (b"fact", struct.pack("<I", 200)), (b"data", silence)],
        "broadcast": [(b"bext", bytes(602)), (b"fmt ", fmt), (b"data", silence)],
        "padding chunk": [(b"JUNK", bytes(28)), (b"fmt ", fmt), (b"data", silence)],
        "title": [(b"fmt ", fmt), (b"data", silence), (b"LIST", b"INFOINAM\x06\x00\x00\x00hello\0")],
        "cue points": [(b"fmt ", fmt), (b"cue ", struct.pack("<I", 0)), (b"data", silence)],
        "an odd chunk": [(b"fmt ", fmt), (b"odd ", b"abc"), (b"data", silence)],
    }
    for label, listed in chunks.items():
        data = forms.riff_join(b"WAVE", listed)
        yield Case(f"by hand .wav {label}", "sound.wav", data, "audio/wav", label, encoder="by hand")
