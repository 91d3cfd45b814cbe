"""Files that end too early, that are damaged, or whose containers lie about themselves."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from tests.corpus import forms
from tests.corpus.case import MIME, Case
from tests.corpus.forms import box, boxes, boxes_join, element, png_chunk, png_split, riff_chunk
from tests.corpus.seeds import EXTENSIONS, seed


def _case(extension: str, label: str, data: bytes, why: str) -> Case:
    return Case(f"{extension} {label}", f"file{extension}", data, MIME[extension], why)


def truncated() -> Iterator[Case]:
    """An MP3 has no length of its own: only cuts before the end of its first frame make it no MP3."""
    for extension in EXTENSIONS:
        whole = seed(extension)
        points = (0.1, 0.3, 0.5, 0.7, 0.9)
        cuts = {f"cut at {point:.0%}": whole[: int(len(whole) * point)] for point in points}
        if extension == ".mp3":
            cuts = {f"cut at {size} bytes": whole[:size] for size in (12, 40, 80, 200)}
        elif extension in (".png", ".jpg", ".webp", ".mp4", ".mov", ".wav", ".flac", ".ogg", ".webm"):
            cuts["without its last byte"] = whole[:-1]
        for label, data in cuts.items():
            yield _case(extension, label, data, "ends too early")


def damaged_png() -> Iterator[Case]:
    png = seed(".png")
    chunks = png_split(png)
    header, data, end = chunks[0], next(c for c in chunks if c[0] == b"IDAT"), chunks[-1]
    raw = zlib.decompress(data[1])

    def crc(kind: bytes) -> bytes:
        pieces = (png_chunk(k, d, zlib.crc32(k + d) ^ (k == kind)) for k, d in chunks)
        return forms.PNG_MAGIC + b"".join(pieces)

    def head(**fields: int) -> bytes:
        names = ("width", "height", "depth", "colour", "compression", "filter", "interlace")
        values = dict(zip(names, struct.unpack(">IIBBBBB", header[1]), strict=True)) | fields
        return forms.png_join([(b"IHDR", struct.pack(">IIBBBBB", *values.values())), data, end])

    broken = {
        "wrong CRC of IHDR": crc(b"IHDR"),
        "wrong CRC of IDAT": crc(b"IDAT"),
        "wrong CRC of IEND": crc(b"IEND"),
        "no IHDR": forms.png_join([data, end]),
        "no IDAT": forms.png_join([header, end]),
        "no IEND": forms.png_join([header, data]),
        "IDAT before IHDR": forms.png_join([data, header, end]),
        "two IHDR": forms.png_join([header, header, data, end]),
        "width 0": head(width=0),
        "height 0": head(height=0),
        "depth 3": head(depth=3),
        "depth 2 in RGB": head(depth=2),
        "colour type 5": head(colour=5),
        "compression 9": head(compression=9),
        "interlace 7": head(interlace=7),
        "palette missing": head(colour=3),
        "taller than its data": head(height=400),
        "IDAT is no zlib": forms.png_join([header, (b"IDAT", b"\x00" * len(data[1])), end]),
        "IDAT damaged": forms.png_join([header, (b"IDAT", data[1][:40] + b"\xff" * 40 + data[1][80:]), end]),
        "IDAT checksum wrong": forms.png_join([header, (b"IDAT", data[1][:-4] + b"\0\0\0\0"), end]),
        "IDAT short by half": forms.png_join([header, (b"IDAT", zlib.compress(raw[: len(raw) // 2])), end]),
        "filter 9": forms.png_join([header, (b"IDAT", zlib.compress(b"\x09" + raw[1:])), end]),
        "chunk of 4 GB": png[:33] + b"\xff\xff\xff\xffIDAT" + png[41:],
        "chunk of 2 GB": png[:33] + b"\x7f\xff\xff\xffIDAT" + png[41:],
        "chunk kind of no letters": forms.png_with(png, (b"\x00\x01\x02\x03", b"x")),
        "unknown critical chunk": forms.png_with(png, (b"EVIL", b"x")),
        "newlines translated": png.replace(b"\r\n", b"\n"),
    }
    for label, content in broken.items():
        yield _case(".png", label, content, label)


def damaged_jpeg() -> Iterator[Case]:
    jpeg = seed(".jpg")
    scan = next(start for marker, start, _ in forms.jpeg_segments(jpeg) if marker == 0xDA)
    broken = {
        "start and end only": jpeg[:2] + jpeg[-2:],
        "no frame header": forms.jpeg_without(jpeg, 0xC0),
        "no quantization tables": forms.jpeg_without(jpeg, 0xDB),
        "no scan": jpeg[:scan] + jpeg[-2:],
        "no end": jpeg[:-2],
        "width 0": forms.jpeg_sized(jpeg, 0, 16),
        "segment of length 0": jpeg[:2] + b"\xff\xe1\x00\x00" + jpeg[2:],
        "segment of length 1": jpeg[:2] + b"\xff\xe1\x00\x01" + jpeg[2:],
        "comment past the end": jpeg[:2] + b"\xff\xfe\xff\xff" + jpeg[2:],
        "zeros in place of the header": jpeg[:20] + bytes(scan - 20) + jpeg[scan:],
        "99 bits a sample": jpeg.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x63"),
    }
    for label, content in broken.items():
        yield _case(".jpg", label, content, label)


def damaged_others() -> Iterator[Case]:
    gif, webp, bmp, tif = seed(".gif"), seed(".webp"), seed(".bmp"), seed(".tif")
    at = forms.gif_head_end(gif)
    lossless = riff_chunk(b"VP8L", b"\x00" * 20)
    broken: list[tuple[str, str, bytes]] = [
        (".gif", "no picture", forms.gif_of(4, 4)),
        (".gif", "code size 13", forms.gif_of(1, 1, forms.gif_frame(data=b"\x0d\x02\x44\x01\x00"))),
        (".gif", "unknown block", gif[:at] + b"\x99\x04abcd\x00" + gif[at:]),
        (".gif", "frame without data", forms.gif_of(64, 64, forms.gif_frame(64, 64, data=b"\x02\x00"))),
        (".gif", "frame with too little data", forms.gif_of(64, 64, forms.gif_frame(64, 64))),
        (".webp", "no picture", forms.riff_join(b"WEBP", [forms.webp_extended(8, 8)])),
        (".webp", "no chunk", forms.riff_join(b"WEBP", [])),
        (".webp", "damaged frame tag", webp[:20] + b"\xff" * 10 + webp[30:]),
        (
            ".webp",
            "lossless without signature",
            b"RIFF" + struct.pack("<I", 4 + len(lossless)) + b"WEBP" + lossless,
        ),
        (".webp", "RIFF larger than the file", forms.riff_sized(webp, len(webp) * 2)),
        (".webp", "RIFF smaller than its chunk", forms.riff_sized(webp, len(webp) // 2)),
        (".webp", "chunk past the end", webp[:16] + b"\xff\xff\xff\x7f" + webp[20:]),
        (".bmp", "7 bits a pixel", forms.bmp_of(4, 4, bytes(64), 7)),
        (".bmp", "header of 3 bytes", forms.bmp_of(4, 4, bytes(64), header=3)),
        (".bmp", "header of 4 GB", forms.bmp_of(4, 4, bytes(64), header=0xFFFFFFFF)),
        (".bmp", "unknown compression", forms.bmp_of(4, 4, bytes(64), compression=77)),
        (".bmp", "pixels past the end", bmp[:10] + struct.pack("<I", 0x7FFFFFFF) + bmp[14:]),
        (".bmp", "width 0", forms.bmp_of(0, 4, bytes(64))),
        (".bmp", "negative width", forms.bmp_of(-4, 4, bytes(64))),
        (".bmp", "no pixels", forms.bmp_of(40, 40, b"")),
        (".tif", "IFD at 0", tif[:4] + bytes(4) + tif[8:]),
        (".tif", "IFD past the end", tif[:4] + b"\xff\xff\xff\x7f" + tif[8:]),
        (".tif", "no dimensions", forms.tiff_of(forms.tiff_grey(4, 4, 16)[2:], bytes(16))),
        (".tif", "no entries", forms.tiff_of([])),
        (".tif", "unknown compression", forms.tiff_of(forms.tiff_grey(4, 4, 16, 65000), bytes(16))),
        (".tif", "strip past the end", forms.tiff_of(forms.tiff_grey(40, 40, 1600), bytes(16))),
        (".tif", "damaged deflate", forms.tiff_of(forms.tiff_grey(4, 4, 16, 8), b"\xff" * 16)),
        (".tif", "65535 bits a sample", forms.tiff_of(forms.tiff_grey(4, 4, 16, bits=65535), bytes(16))),
    ]
    for extension, label, content in broken:
        yield _case(extension, label, content, label)


def lying_mp4() -> Iterator[Case]:
    for extension in (".mp4", ".mov"):
        whole = seed(extension)
        parts = boxes(whole)
        start = boxes_join(parts[:1])
        rest = boxes_join(parts[1:])
        moov = next(data for kind, data in parts if kind == b"moov")
        nested = b""
        for _ in range(3000):
            nested = box(b"moov", nested)
        table = moov.find(b"stsz")
        absurd = moov[: table + 12] + b"\xff\xff\xff\xff" + moov[table + 16 :]
        lies = {
            "ftyp only": start,
            "no moov": boxes_join(part for part in parts if part[0] != b"moov"),
            "no samples at all": boxes_join([parts[0], (b"moov", b"")]),
            "box larger than the file": start + box(b"mdat", b"x" * 99, 0x7FFFFFFF) + rest,
            "box of 3 bytes": start + box(b"free", b"", 3) + rest,
            "box of 2**63 bytes": start + struct.pack(">I4sQ", 1, b"free", 1 << 63) + rest,
            "3000 boxes in each other": start + nested,
            "inner box larger than its outer": boxes_join([*parts[:-1], (b"moov", b"\x7f" + moov[1:])]),
            "4 billion samples": boxes_join((k, absurd if k == b"moov" else d) for k, d in parts),
            "zeros behind ftyp": start + bytes(4000),
        }
        for label, content in lies.items():
            yield _case(extension, label, content, label)


def lying_ebml() -> Iterator[Case]:
    whole = seed(".webm")
    head = forms.ebml_head()
    segment, tracks, cluster = b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b", b"\x1f\x43\xb6\x75"
    at = whole.find(segment)
    lies = {
        "empty segment": head + element(segment),
        "segment larger than the file": whole[: at + 4] + b"\x01" + b"\x0f" * 7 + whole[at + 12 :],
        "no tracks": head + element(segment, element(cluster, element(b"\xe7", b"\x00"))),
        "tracks of 2**55 bytes": head + element(segment, element(tracks, b"", 1 << 55)),
        "header of 2**50 bytes": element(b"\x1a\x45\xdf\xa3", element(b"\x42\x82", b"webm"), 1 << 50) + whole[at:],
        "no segment": head + element(b"\xec", bytes(200)),
        "identifier of zeros": head + element(segment, bytes(300)),
        "another document type": forms.ebml_head(b"matroska") + whole[at:],
        "document type evil": forms.ebml_head(b"evil") + whole[at:],
    }
    for label, content in lies.items():
        yield _case(".webm", label, content, label)


def lying_sound() -> Iterator[Case]:
    wav, flac, ogg, mp3 = seed(".wav"), seed(".flac"), seed(".ogg"), seed(".mp3")
    samples = bytes(400)
    first = len(flac) if (sync := flac.find(b"\xff\xf8")) < 0 else sync

    def riff(*chunks: bytes) -> bytes:
        body = b"WAVE" + b"".join(chunks)
        return b"RIFF" + struct.pack("<I", len(body)) + body

    def form(kind: int = 1, channels: int = 1, rate: int = 8000, bits: int = 16) -> bytes:
        align = channels * bits // 8
        return riff_chunk(b"fmt ", struct.pack("<HHIIHH", kind, channels, rate, rate * align, align, bits))

    def id3(size: int, data: bytes) -> bytes:
        parts = bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0))
        return b"ID3\x03\x00\x00" + parts + data

    data = riff_chunk(b"data", samples)
    page = ogg.find(b"OggS", 4)
    lies: list[tuple[str, str, bytes]] = [
        (".wav", "RIFF larger than the file", forms.riff_sized(wav, len(wav) * 2)),
        (".wav", "RIFF smaller than the file", forms.riff_sized(wav, 100)),
        (".wav", "no fmt", riff(data)),
        (".wav", "no data", riff(form())),
        (".wav", "no channels", riff(form(channels=0), data)),
        (".wav", "rate 0", riff(form(rate=0), data)),
        (".wav", "0 bits", riff(form(bits=0), data)),
        (".wav", "data larger than the file", riff(form(), riff_chunk(b"data", samples, 1 << 30))),
        (".wav", "chunk larger than the file", riff(form(), riff_chunk(b"LIST", b"INFO", 0x7FFFFFFF), data)),
        (".wav", "fmt of 2 bytes", riff(riff_chunk(b"fmt ", b"\x01\x00"), data)),
        (".flac", "no STREAMINFO", b"fLaC\x84" + b"\x00\x00\x08" + bytes(8) + flac[first:]),
        (".flac", "STREAMINFO of 4 bytes", b"fLaC\x80\x00\x00\x04" + bytes(4) + flac[first:]),
        (".flac", "rate 0", flac[:18] + b"\x00\x00\x00" + flac[21:]),
        (".flac", "metadata past the end", flac[:42] + b"\x01\xff\xff\xff" + bytes(99)),
        (".flac", "no frames", flac[:first]),
        (
            ".flac",
            "metadata without an end",
            flac[:4] + b"\x00" + flac[5:42] + b"\x01\x00\x00\x04" + bytes(4),
        ),
        (".flac", "noise in place of frames", flac[:first] + bytes(i * 7 % 256 for i in range(2000))),
        (".ogg", "no valid page", ogg[:4] + b"\x09" + ogg[5:]),
        (".ogg", "wrong checksum", ogg[:22] + bytes(4) + ogg[26:]),
        (".ogg", "first page only", ogg[:page]),
        (".ogg", "no first page", ogg[page:]),
        (".ogg", "noise between pages", ogg[:page] + b"noise" * 20 + ogg[page:]),
        (".ogg", "codec of noise", ogg.replace(b"OpusHead", b"EvilHead")),
        (".mp3", "only a tag", id3(100, bytes(100))),
        (".mp3", "tag larger than the file", id3(1 << 27, mp3)),
        (".mp3", "tag and noise", id3(20, bytes(20)) + bytes(i * 7 % 251 for i in range(3000))),
        (".mp3", "tag and zeros", id3(20, bytes(20)) + bytes(3000)),
        (".mp3", "sync words only", b"\xff\xfb" * 800),
        (".mp3", "one header, then zeros", b"\xff\xfb\x90\x00" + bytes(100)),
    ]
    for extension, label, content in lies:
        yield _case(extension, label, content, label)
