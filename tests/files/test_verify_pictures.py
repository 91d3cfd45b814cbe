"""Pictures: their structure, their size, their pixels, and what lies between and behind them."""

from __future__ import annotations

import random
import struct
import zlib
from typing import Any

import pytest
from PIL import Image, TiffImagePlugin

from bridged.config.schema import Files
from bridged.errors import FileRefused
from bridged.files.formats import gif as gif_walk
from bridged.files.formats import jpeg as jpeg_walk
from bridged.files.formats import png as png_walk
from bridged.files.formats.limits import Limits
from bridged.files.formats.source import Refusal, Source
from bridged.files.verify import verify
from tests.files import forge
from tests.files.forge import animation, apng, chunk, frame_control, frame_data, header, idat, png, rows, segment

RULES = Files()
SMALL = Files(max_pixels=0.0001, max_side=50, max_frames=3)
"""100 pixels a frame, 1000 in all"""


def refused(data: bytes, extension: str, says: str, rules: Files = RULES) -> None:
    with pytest.raises(FileRefused, match=f"^a{extension}: .*{says}"):
        verify(data, f"a{extension}", rules)


def accepted(data: bytes, extension: str, rules: Files = RULES) -> None:
    assert verify(data, f"a{extension}", rules)


MODES = [
    *((colour, depth) for colour, depths in png_walk._DEPTHS.items() for depth in depths),
]


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize(("colour", "depth"), MODES)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 5), (9, 8), (17, 33)])
def test_png_has_exactly_the_bytes_that_its_size_needs(
    colour: int, depth: int, interlace: int, size: tuple[int, int]
) -> None:
    bits = depth * png_walk._CHANNELS[colour]
    parts = [size]
    if interlace:
        parts = []
        for x, y, dx, dy in [
            (0, 0, 8, 8),
            (4, 0, 8, 8),
            (0, 4, 4, 8),
            (2, 0, 4, 4),
            (0, 2, 2, 4),
            (1, 0, 2, 2),
            (0, 1, 1, 2),
        ]:
            parts.append((len(range(x, size[0], dx)), len(range(y, size[1], dy))))
    data = b"".join(rows(w, h, bits, filters=4) for w, h in parts if w and h)
    palette = [chunk(b"PLTE", bytes(6))] if colour == 3 else []
    head = header(*size, depth, colour, interlace)
    accepted(png(head, *palette, idat(data)), ".png")
    refused(png(head, *palette, idat(data[:-1])), ".png", "its pixel data are cut off")
    refused(png(head, *palette, idat(data + b"\0")), ".png", "more pixel data than its size needs")
    refused(png(head, *palette, idat(b"\5" + data[1:])), ".png", "its pixel data are broken")


def test_png_of_pillow_in_every_mode() -> None:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        accepted(forge.saved("PNG", mode if mode != "I;16" else "L"), ".png")


PACKED = zlib.compress(rows())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (png(idat()), "which is not allowed"),
        (png(header(), header(), idat()), "its header is broken"),
        (png(header(0, 1), idat(b"")), "its header has no valid size"),
        (png(header(depth=3), idat()), "its header is broken"),
        (png(header(colour=5), idat()), "its header is broken"),
        (png(header(interlace=2), idat()), "its header is broken"),
        (png(chunk(b"IHDR", bytes(12)), idat()), "which is not allowed"),
        (png(header()), "it has no pixel data"),
        (png(header(colour=3), idat(rows(bits=8))), "it has no palette"),
        (png(header(), chunk(b"PLTE", bytes(5)), idat()), "its palette is broken"),
        (png(header(), chunk(b"PLTE", bytes(771)), idat()), "its palette is broken"),
        (png(header(), chunk(b"PLTE", bytes(3)), chunk(b"PLTE", bytes(3)), idat()), "its palette is broken"),
        (png(header(), idat(), chunk(b"PLTE", bytes(3))), "its palette is broken"),
        (png(header(), chunk(b"PLTE", b"<script>alert(1)</script>  "), idat()), "its palette has active content"),
        (
            png(header(), chunk(b"IDAT", PACKED[:9]), chunk(b"tIME", bytes(7)), chunk(b"IDAT", PACKED[9:])),
            "not in one row",
        ),
        (png(header(), chunk(b"IDAT", b"nonsense")), "cannot be unpacked"),
        (png(header(), chunk(b"IDAT", PACKED[:-1] + b"x")), "cannot be unpacked"),
        (png(header(), chunk(b"IDAT", PACKED[:-4])), "are cut off"),
        (png(header(), chunk(b"IDAT", PACKED + b"<?php ?>")), "data follow its compressed pixels"),
        (png(header(), chunk(b"IDAT", PACKED), chunk(b"IDAT", b"x")), "data follow its compressed pixels"),
        (png(header(), chunk(b"IDAT", PACKED, 7)), "its chunk IDAT has a wrong checksum"),
        (png(header(), chunk(b"tEXt", b"a\0b", 7), idat()), "its chunk tEXt has a wrong checksum"),
        (png(header(), chunk(b"pHYs", bytes(8)), idat()), "its chunk pHYs is broken"),
        (png(header(), chunk(b"sRGB", b"\0" + b"<script>x</script>".ljust(64)), idat()), "its chunk sRGB has active"),
        (png(header(), chunk(b"CgBI", bytes(4)), idat()), "an unknown critical chunk, CgBI"),
        (png(header(), chunk(b"a1b2"), idat()), "data that are no PNG chunk"),
        (png(header(), idat(), chunk(b"IEND", b"x")), "its end is broken"),
        (png()[:-13] + b"\x7f" + png()[-12:], "cut off|no PNG chunk|wrong checksum"),
        (png()[:-12], "the file is cut off"),
        (png(end=b"x" * 9), "text follows its end|unknown data follows its end"),
        (png(end=png()), "a PNG picture follows its end"),
        (png(header(), struct.pack(">I", 0x7FFFFFFF) + b"prVt" + b"x"), "the file is cut off"),
    ],
)
def test_a_png_that_is_not_whole_is_refused(data: bytes, says: str) -> None:
    refused(data, ".png", says)


def test_png_data_may_be_cut_into_chunks_anywhere() -> None:
    for at in range(len(PACKED) + 1):
        accepted(png(header(), chunk(b"IDAT", PACKED[:at]), chunk(b"IDAT", PACKED[at:])), ".png")


def test_large_png_data_are_counted_across_blocks() -> None:
    data = rows(1000, 300)
    for level in (0, 9):
        packed = zlib.compress(data, level)
        accepted(png(header(1000, 300), chunk(b"IDAT", packed)), ".png")
    broken = bytearray(data)
    broken[3001 * 250] = 9
    refused(png(header(1000, 300), idat(bytes(broken))), ".png", "its pixel data are broken")
    broken = bytearray(data)
    broken[3001 * 250 + 1] = 9
    accepted(png(header(1000, 300), idat(bytes(broken))), ".png")


def test_a_png_that_unpacks_to_more_than_it_says_is_refused_at_once() -> None:
    bomb = zlib.compress(bytes(300_000_000), 1)
    refused(png(header(), chunk(b"IDAT", bomb)), ".png", "more pixel data than its size needs")


ANIMATED = [header(), animation(2), frame_control(0), idat(), frame_control(1), frame_data(2)]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (apng(2, says=3), "another number of frames"),
        (apng(3, says=2), "another number of frames"),
        (apng(2, says=0), "its animation has no frames"),
        (png(*ANIMATED[:4], frame_control(2), frame_data(3)), "out of order"),
        (png(*ANIMATED[:4], frame_control(1), frame_data(3)), "out of order"),
        (png(*ANIMATED[:5], frame_data(2, rows() + b"\0")), "more pixel data"),
        (png(*ANIMATED[:5], frame_data(2, rows()[:-1])), "cut off"),
        (png(*ANIMATED[:4], frame_control(1, 3, 3), frame_data(2)), "outside the picture"),
        (png(*ANIMATED[:4], frame_control(1, x=1), frame_data(2)), "outside the picture"),
        (png(*ANIMATED[:4], frame_control(1, 0), frame_data(2)), "outside the picture"),
        (png(*ANIMATED[:5]), "cut off"),
        (png(header(), animation(2), frame_control(0, 2), idat(), *ANIMATED[4:]), "does not fit its size"),
        (png(header(), idat(), animation(1)), "its animation is broken"),
        (png(header(), idat(), frame_data(0)), "frame data without a frame"),
        (png(header(), frame_control(0), idat()), "its animation is broken"),
        (png(header(), animation(1), animation(1), frame_control(0), idat()), "its animation is broken"),
    ],
)
def test_an_animated_png_that_is_not_whole_is_refused(data: bytes, says: str) -> None:
    refused(data, ".png", says)


def test_animated_pngs() -> None:
    accepted(apng(5), ".png")
    accepted(png(header(), animation(1), idat(), frame_control(0), frame_data(1)), ".png")
    accepted(png(*ANIMATED[:4], frame_control(1, 1, 1, 2, 1), frame_data(2, rows(1, 1))), ".png")
    frames = [Image.effect_noise((20, 20), 50 + 10 * n) for n in range(4)]
    accepted(forge.saved("PNG", "L", (20, 20), save_all=True, append_images=frames), ".png")


@pytest.mark.parametrize(
    ("extension", "data"),
    [
        (".png", lambda w, h: png(header(w, h), idat(rows(w, h)))),
        (".jpg", lambda w, h: forge.saved("JPEG", size=(w, h))),
        (".gif", lambda w, h: forge.saved("GIF", size=(w, h))),
        (".webp", lambda w, h: forge.saved("WEBP", size=(w, h))),
        (".webp", lambda w, h: forge.saved("WEBP", size=(w, h), lossless=True)),
        (".bmp", lambda w, h: forge.saved("BMP", size=(w, h))),
        (".tif", lambda w, h: forge.saved("TIFF", size=(w, h))),
    ],
)
def test_sizes_are_limited(extension: str, data: Any) -> None:
    accepted(data(10, 10), extension, SMALL)
    accepted(data(50, 2), extension, SMALL)
    refused(data(51, 1), extension, "it is 51 x 1 pixels; at most 50 are taken on a side", SMALL)
    refused(data(1, 51), extension, "it is 1 x 51 pixels", SMALL)
    refused(data(10, 11), extension, "it has 0.0 million pixels; at most 0.0001 are taken", SMALL)


def animated(form: str, size: int, frames: int) -> bytes:
    rng = random.Random(1)
    more = [Image.frombytes("L", (size, size), rng.randbytes(size * size)) for _ in range(frames - 1)]
    return forge.saved(form, "L", (size, size), save_all=True, append_images=more)


@pytest.mark.parametrize(("extension", "form"), [(".png", "PNG"), (".gif", "GIF"), (".webp", "WEBP"), (".tif", "TIFF")])
def test_frames_are_limited_in_number_and_in_pixels(extension: str, form: str) -> None:
    accepted(animated(form, 10, 3), extension, SMALL)
    refused(animated(form, 10, 4), extension, "it has more than 3 frames", SMALL)
    many = Files(max_pixels=0.0001, max_frames=100)
    accepted(animated(form, 10, 10), extension, many)
    refused(animated(form, 10, 11), extension, "more than 0.001 million pixels together", many)


def test_a_size_that_is_too_large_is_refused_before_anything_is_decoded() -> None:
    huge = png(header(30_000, 30_000), chunk(b"IDAT", zlib.compress(bytes(1000))))
    refused(huge, ".png", "it has 900.0 million pixels; at most 100 are taken")


JPEG = forge.saved("JPEG")
SOF = JPEG.index(b"\xff\xc0")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (JPEG[:-2], "the file is cut off"),
        (JPEG[:-1], "the file is cut off"),
        (JPEG[:SOF] + JPEG[-2:], "it has no pixel data"),
        (JPEG[:20] + b"x" + JPEG[20:], "data between its segments"),
        (JPEG[:2] + segment(0xE5, b"")[:3] + b"\1", "structure is broken|cut off"),
        (JPEG[: SOF + 5] + b"\0\0" + JPEG[SOF + 7 :], "no valid size"),
        (JPEG[:SOF] + JPEG[SOF:].replace(b"\xff\xc0", b"\xff\xc3", 1), "not read by common decoders"),
        (JPEG[:2] + JPEG[SOF : SOF + 19] + JPEG[2:], "its structure is broken"),
        (JPEG[:2] + b"\xff\xd8" + JPEG[2:], "its structure is broken"),
        (JPEG[: SOF + 9] + b"\2" + JPEG[SOF + 10 :], "its header is broken"),
        (forge.jpeg(segment(0xDB, b"\0<script>alert(1)</script>")), "segment DB has active content"),
        (JPEG + forge.jpeg(segment(0xFE, b"<?php ?>")), "its comment has active content"),
        (JPEG + JPEG[:-2], "the file is cut off"),
        (JPEG * (2 + 64), "more than 64 pictures"),
        (JPEG[:2] + b"\xff" * 300_000 + JPEG[2:], "too many bytes between its segments"),
        (forge.jpeg(*[segment(0xE1, b"Exif\0\0" + bytes(65_000))] * 260), "more than 16 MB of metadata"),
        (JPEG + b"\xff" * 100 + b"\0" * 100 + forge.ARCHIVE, "ZIP"),
        (JPEG + random.Random(1).randbytes(99) + forge.ARCHIVE[:-22], "holds a ZIP archive"),
        (JPEG + b"\x01\x02\x80\x90" * 99 + b"%PDF-1.4\n", "holds a PDF document"),
        (JPEG + b"\x01\x02\x80\x90" * 99_999 + b"%PDF-1.4\n", "holds a PDF document"),
        (JPEG + b"\x01\x02\x80\x90" * 99 + b"<?php __HALT_COMPILER(); ?>", "active content"),
        (JPEG + b"\x01\x02\x80\x90" * 99 + b"<?=0;__HALT_COMPILER(); ?>", "a PHP archive"),
        (JPEG + b"\x01\x02\x80\x90" * 99_999 + b"<html >", "active content"),
    ],
)
def test_a_jpeg_that_is_not_whole_or_hides_something_is_refused(data: bytes, says: str) -> None:
    refused(data, ".jpg", says)


def test_jpegs_of_all_kinds() -> None:
    for mode in ("L", "RGB", "CMYK"):
        for options in ({}, {"progressive": True}, {"quality": 5}, {"restart_marker_blocks": 1}, {"subsampling": 0}):
            accepted(forge.saved("JPEG", mode, (97, 65), **options), ".jpg")
    accepted(JPEG[:2] + b"\xff" * 70_000 + JPEG[2:], ".jpg")  # fill bytes before a marker


@pytest.mark.parametrize("size", [65_534, 65_535, 65_536, 65_537, 131_071])
def test_a_marker_across_two_blocks_is_found(size: int) -> None:
    start = jpeg_walk.walk_jpeg(Source(JPEG), None).pixels[0][0]
    scan = b"\0" * size
    walked = jpeg_walk.walk_jpeg(Source(JPEG[:start] + scan + b"\xff\xd9"), None)
    assert walked.pixels == [(start, start + size)]


def test_a_walk_begins_with_the_header() -> None:
    with pytest.raises(Refusal, match="its header is not its first chunk"):
        png_walk.check_png(Source(png(idat())), Limits.of(RULES))


def test_scans_are_limited() -> None:
    start = jpeg_walk.walk_jpeg(Source(JPEG), None).pixels[0][0]
    sos = JPEG.rindex(b"\xff\xda", 0, start)
    scans = JPEG[sos:-2] * 100
    refused(JPEG[:sos] + scans + JPEG[sos:], ".jpg", "too many scans")
    refused(JPEG[:sos] + JPEG[sos:-2] * 40 + JPEG[-2:], ".jpg", "too many scans", Files(max_pixels=17 * 11 / 1e6))


def samsung(*entries: tuple[int, bytes, bytes]) -> bytes:
    body, directory = b"", b""
    blocks = [struct.pack("<HHI", 0, kind, len(name)) + name + data for kind, name, data in entries]
    total = sum(len(block) for block in blocks)
    for (kind, _, _), block in zip(entries, blocks, strict=True):
        directory += struct.pack("<HHII", 0, kind, total - len(body), len(block))
        body += block
    head = b"SEFH" + struct.pack("<II", 101, len(entries)) + directory
    return body + head + struct.pack("<I", len(head)) + b"SEFT"


TIME = (0x0A01, b"Image_UTC_Data", b"1486666298918")
MOTION = (0x0A30, b"MotionPhoto_Data", forge.mp4())


@pytest.mark.parametrize(
    "tail",
    [
        JPEG,  # a stereo pair, a gain map, a preview
        b"\0\0\0" + JPEG + bytes(7) + b"\xff\xff" + JPEG,
        forge.mp4(),  # a motion photo
        JPEG + forge.mp4(),
        samsung(TIME),
        samsung(TIME, MOTION),
        JPEG + samsung((0x0A40, b"Preview", JPEG), TIME),
        b"\xff" * 500,
        b" " * 20 + b"\r\n",
        bytes(100_000),
        random.Random(2).randbytes(50_000),  # what a camera's sector held before
        b"\x01\xd8\xff\xdb\0\x84" + random.Random(3).randbytes(900),  # a preview as Minolta damages it
    ],
)
def test_what_cameras_and_phones_put_behind_a_photo_is_fine(tail: bytes) -> None:
    accepted(JPEG + tail, ".jpg")


@pytest.mark.parametrize(
    ("tail", "says"),
    [
        (forge.mp4()[:-1], "cut off"),
        (forge.mp4(forge.tagged(b"<?php evil(); ?>")), "active content"),
        (forge.mp4() + forge.ARCHIVE, "ZIP"),
        (forge.FTYP + forge.box(b"mdat", bytes(64)), "it has no tracks"),
        (samsung((0x0A01, b"Note", b"<script>alert(1)</script>")), "active content"),
        (samsung((0x0A01, b"<?php x", b"1")), "active content"),
        (samsung((0x0A01, b"Zip", forge.ARCHIVE)), "ZIP"),
        (samsung((0x0A40, b"Preview", JPEG + b"#!/bin/sh\n")), "a script follows its end"),
        (samsung((0x0A01, b"Program", forge.APPENDED["PE"])), "a program"),
        (samsung((0x0A30, b"MotionPhoto_Data", forge.mp4()[:-1])), "cut off"),
        (samsung(TIME)[:-8] + b"\xff\xff\xff\xff" + b"SEFT" + forge.APPENDED["HTML"], "active content"),
        (b"<script>" + samsung(TIME), "a script follows its end"),
    ],
)
def test_what_looks_like_a_photos_trailer_is_looked_into(tail: bytes, says: str) -> None:
    refused(JPEG + tail, ".jpg", says)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (forge.gif(frames=0), "it has no picture"),
        (forge.gif()[:-3], "the file is cut off"),
        (forge.gif(b"x"), "its structure is broken"),
        (forge.gif(b"!\xf9\4\0\0"), "structure is broken|cut off"),
        (forge.gif()[:19] + forge.gif()[19:].replace(b"\x02\x03\x04", b"\x0c\x03\x04"), "its pixel data are broken"),
        (forge.gif()[:19] + forge.gif()[19:].replace(b",\0\0\0\0\2\0", b",\0\0\0\0\0\0"), "a frame has no size"),
        (forge.gif()[:13] + b"<?php " + forge.gif()[19:], "its palette has active content"),
        (forge.gif(end=forge.gif()), "a GIF picture follows its end"),
        (forge.gif(*[forge.comment(b"x" * 1_000_000)] * 9), "its extensions are too large"),
        (forge.gif(forge.comment(b"*/=alert(1)/*"), width=0x2A2F), "goes on with a script"),
        (forge.gif(forge.comment(b"=1;alert(1)//"), width=0x203D), "goes on with a script"),
    ],
)
def test_a_gif_that_is_not_whole_or_is_something_else_too_is_refused(data: bytes, says: str) -> None:
    refused(data, ".gif", says)


def test_gifs_of_all_kinds() -> None:
    accepted(animated("GIF", 20, 5), ".gif")
    accepted(forge.saved("GIF", "P", (300, 200), interlace=1), ".gif")
    accepted(forge.gif(forge.comment(b"Created with The GIMP")), ".gif")
    accepted(forge.gif(b"!\xff\x0bNETSCAPE2.0\3\1\0\0\0"), ".gif")
    accepted(forge.gif()[:-1], ".gif")  # old programs forget the trailer
    accepted(forge.gif(width=0x2A2F), ".gif")  # a width may spell the start of a script's comment
    accepted(forge.gif(end=b"\x1a\x14\0;;\xba\n\x44\x14\0\0;;"), ".gif")  # Tcl's own icon ends like this


def test_tags_that_a_gifs_block_lengths_are_letters_of_are_found() -> None:
    data = b"<?"
    block = b"!\xfe" + bytes([len(data)]) + data + b"p" + b"hp system(1); ?>".ljust(ord("p"), b" ") + b"\0"
    refused(forge.gif(block), ".gif", "active content")


def test_gif_blocks_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gif_walk, "MAX_BLOCKS", 100)
    refused(forge.gif(*[b"!\xf9\0"] * 100), ".gif", "more than 100 blocks")


def test_tags_that_a_gifs_block_lengths_cut_are_found() -> None:
    block = b"!\xff\x0bABCDEFGH1.0" + bytes([4]) + b"<scr" + bytes([20]) + b"ipt>alert(1)</script"[:20] + b"\0"
    refused(forge.gif(block), ".gif", "active content")


def test_gif_data_blocks_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gif_walk, "MAX_SUBBLOCKS", 1000)
    monkeypatch.setattr(gif_walk, "BLOCK", 1024)
    many = b",\0\0\0\0\2\0\2\0\0\2" + b"\1\0" * 4000 + b"\0"
    refused(forge.gif(many), ".gif", "too many data blocks")


WEBP = forge.saved("WEBP", size=(17, 11))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (WEBP + b"\0x", "unknown data|follows its end"),
        (WEBP[:-2], "cut off|wrong size"),
        (forge.riff(b"WEBP", WEBP[12:], size=len(WEBP) - 8 + 2), "wrong size"),
        (forge.riff(b"WEBP", WEBP[12:], b"\0"), "wrong size"),
        (forge.riff(b"WEBP", WEBP[12:], WEBP[12:]), "more than one"),
        (forge.webp(forge.riff_chunk(b"prVt", b"x"))[:-2], "cut off|wrong size"),
        (forge.webp().replace(b"\x10\0\0\x0a\0\0", b"\x11\0\0\x0a\0\0", 1), "another size than its header says"),
        (forge.webp(forge.riff_chunk(b"\x01xyz", b"x")), "data that are no chunk"),
        (forge.riff(b"WEBP", forge.riff_chunk(b"VP8X", bytes(10))), "it has no picture"),
        (forge.riff(b"WEBP", forge.riff_chunk(b"VP8 ", WEBP[20:30])), "cannot be decoded"),
        (WEBP[:20] + b"\xff" + WEBP[21:], "its pixel data are broken"),
    ],
)
def test_a_webp_that_is_not_whole_is_refused(data: bytes, says: str) -> None:
    refused(data, ".webp", says)


def test_webps_of_all_kinds() -> None:
    accepted(forge.saved("WEBP", "RGBA", (17, 11)), ".webp")
    accepted(forge.saved("WEBP", "RGBA", (17, 11), lossless=True, exif=Image.Exif().tobytes()), ".webp")
    accepted(animated("WEBP", 12, 4), ".webp")
    moved = animated("WEBP", 12, 4)
    at = moved.index(b"ANMF") + 8
    refused(moved[:at] + b"\x09" + moved[at + 1 :], ".webp", "a frame lies outside the picture")
    refused(moved[: at + 6] + b"\x01" + moved[at + 7 :], ".webp", "a frame is broken")


def bmp(
    size: int | None = None, start: int = 54, width: int = 2, height: int = 2, bits: int = 24, **more: int
) -> bytes:
    pixels = bytes((width * bits + 31) // 32 * 4 * abs(height)) if width > 0 else b""
    size = 54 + len(pixels) if size is None else size
    fields = [more.get(key, 0) for key in ("compression", "stored", "x", "y", "colours", "important")]
    return struct.pack("<2sIIIIiiHHIIiiII", b"BM", size, 0, start, 40, width, height, 1, bits, *fields) + pixels


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (bmp()[:-1], "the file is cut off"),
        (bmp() + b"\0x", "follows its end"),
        (bmp(start=40), "its header is broken"),
        (bmp(start=5000), "its header is broken"),
        (bmp(bits=7), "a kind that is not read"),
        (bmp(compression=4), "a kind that is not read"),
        (bmp(compression=1), "a kind that is not read"),
        (bmp(width=-2), "no valid size"),
        (bmp(height=0), "no valid size"),
        (bmp(bits=2, start=70)[:54] + bytes(24), "cannot be decoded: Unsupported BMP pixel depth"),
        (bmp(size=0x2A2F), "opens a comment of a script"),
        (
            bmp(start=80)[:54] + b"<script>alert(1)</script> " + bytes(16),
            "what is before its pixels has active content",
        ),
        (bmp(bits=8, start=1078)[:54] + b"<?php die(); ?>".ljust(1024) + bytes(8), "what is before its pixels"),
        (bmp(bits=8, compression=1, start=1078)[:54] + bytes(1024) + b"\2\1\0\1", "cannot be decoded"),
    ],
)
def test_a_bmp_that_is_not_whole_is_refused(data: bytes, says: str) -> None:
    refused(data, ".bmp", says)


def test_bmps_of_all_kinds() -> None:
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        accepted(forge.saved("BMP", mode, (33, 5)), ".bmp")
    accepted(bmp(height=-2), ".bmp")
    accepted(bmp(size=0), ".bmp")  # many programs write no size
    accepted(bmp() + b"\0\0", ".bmp")  # Photoshop
    encoded = bmp(bits=8, compression=1, start=1078)[:54] + bytes(1024) + b"\2\1\0\0\2\1\0\1"
    accepted(encoded, ".bmp")
    os2 = struct.pack("<2sIIIIHHHH", b"BM", 34, 0, 26, 12, 2, 1, 1, 24) + bytes(8)
    accepted(os2, ".bmp")


def tiff(*more: tuple[int, int, bytes], order: str = "<", pixels: bytes = b"\x80" * 12, **fields: int) -> bytes:
    """A grey picture of 4 x 3 in one strip at the end."""
    values = {256: 4, 257: 3, 258: 8, 259: 1, 262: 1, 277: 1, 278: 3, 279: 12}
    values.update({int(key[1:]): value for key, value in fields.items() if key != "t273"})

    def pack(value: int) -> bytes:
        return struct.pack(order + "I", value)

    tags = [(tag, 4, pack(value)) for tag, value in values.items()] + list(more)
    bare = forge.tiff_tags(*sorted([*tags, (273, 4, pack(0))]), order=order)
    start = fields.get("t273", len(bare))
    return forge.tiff_tags(*sorted([*tags, (273, 4, pack(start))]), order=order) + pixels


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (tiff()[:-1], "its pixels are not all there|cut off"),
        (tiff(t273=5000), "its pixels are not all there"),
        (tiff(t279=5000), "its pixels are not all there"),
        (tiff(t256=0), "no valid size"),
        (tiff(t277=99), "a form that is not read"),
        (tiff(t322=1 << 20, t323=1), "its tiles are too large"),
        (tiff((700, 1, b"<?php evil(); ?>")), "its tag 700 has active content"),
        (tiff((270, 2, b"<script>x</script>")), "its tag 270 has active content"),
        (tiff(pixels=b"\x80" * 12 + b"GIF89a"), "a GIF picture follows its end"),
        (tiff(pixels=b"\x80" * 12 + forge.APPENDED["PHP"]), "PHP script follows its end"),
        (tiff()[:4] + struct.pack("<I", 5000) + tiff()[8:], "the file is cut off"),
        (tiff()[:4] + struct.pack("<I", 0) + tiff()[8:], "it has no picture"),
        (tiff(t330=8), "form a loop"),
        (forge.tiff_tags((270, 2, b"hello")), "has no size"),
    ],
)
def test_a_tiff_that_is_not_whole_is_refused(data: bytes, says: str) -> None:
    refused(data, ".tif", says)


def test_tiffs_of_all_kinds() -> None:
    accepted(tiff(), ".tif")
    accepted(tiff(order=">"), ".tiff")
    accepted(tiff(pixels=b"\x80" * 12 + b"\1\2\3\4" * 4), ".tif")  # tifffile leaves some
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        accepted(forge.saved("TIFF", size=(65, 33), compression=compression), ".tif")
    accepted(animated("TIFF", 10, 4), ".tif")
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[270] = "<b>bold</b> words: eval( import os " * 100
    accepted(forge.saved("TIFF", tiffinfo=info), ".tif")
    accepted(forge.saved("TIFF", big_tiff=True), ".tif")


def test_a_chain_of_pages_without_end_is_refused() -> None:
    page = tiff()
    start = 8 + 2 + 12 * struct.unpack_from("<H", page, 8)[0]
    looping = page[:start] + struct.pack("<I", 8) + page[start + 4 :]
    refused(looping, ".tif", "form a loop")


def test_the_parts_of_a_tiff_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridged.files.formats.tiff.MAX_PARTS", 5)
    refused(tiff(), ".tif", "more than 5 parts")
    monkeypatch.undo()
    monkeypatch.setattr("bridged.files.formats.tiff.MAX_TAGS", 20)
    refused(tiff(), ".tif", "its tags have more than")
    monkeypatch.undo()
    monkeypatch.setattr("bridged.files.formats.ifd.MAX_SUBDIRECTORIES", 0)
    directory = forge.tiff_tags((270, 2, b"words\0"))[8:]
    refused(tiff(pixels=b"\x80" * 12 + directory, t330=len(tiff(t330=1))), ".tif", "too many directories")


def test_what_lies_unused_in_a_tiff_is_looked_at() -> None:
    page = tiff()
    gap = b"\0<script>alert(1)</script>\0"
    moved = tiff(t273=len(page) - 12 + len(gap), pixels=gap + b"\x80" * 12)
    refused(moved, ".tif", "unused space in it has active content")
    accepted(moved.replace(b"script", b"scripp"), ".tif")
