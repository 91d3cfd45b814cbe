"""Pictures that are decoded and written anew: what is seen stays, everything else is gone."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image, JpegImagePlugin

from bridged.config.schema import DEFAULT_TYPES, Files
from bridged.errors import FileRefused
from bridged.files.clean import reencode, reencode_bytes
from bridged.files.sniff import sniff
from bridged.files.verify import verify
from tests.files.secret_pictures import LOSSY, PICTURES, SECRET, chunk, deep_png, saved, seen

RULES = Files(reencode=True)


@pytest.mark.parametrize("what", PICTURES)
def test_a_picture_that_was_encoded_anew_looks_the_same(what: str, tmp_path: Path) -> None:
    content = PICTURES[what]
    kind = sniff(content)
    path = tmp_path / "stored.part"
    path.write_bytes(content)
    assert reencode(path, kind, RULES)
    left = path.read_bytes()
    assert SECRET not in left
    before, after = seen(content), seen(left)
    if any(what.startswith(each) for each in LOSSY) and "lossless" not in what:
        assert [each[:5] for each in after] == [each[:5] for each in before]
        for one, other in zip(before, after, strict=True):
            distance = sum(abs(a - b) for a, b in zip(one[5], other[5], strict=True)) / len(one[5])
            assert distance < 16  # of 255, on noise
    else:
        assert after == before
    assert verify(path, "a" + DEFAULT_TYPES[kind][0], Files()) == kind
    assert [each.name for each in tmp_path.iterdir()] == ["stored.part"]


@pytest.mark.parametrize("sampling", [0, 1, 2])
def test_a_jpeg_keeps_its_sampling_and_its_scans(sampling: int) -> None:
    for progressive in (False, True):
        content = saved(
            Image.new("RGB", (64, 64), "teal"), "JPEG", subsampling=sampling, progressive=progressive
        )
        with Image.open(io.BytesIO(reencode_bytes(content, "image/jpeg", RULES))) as image:
            assert JpegImagePlugin.get_sampling(image) == sampling
            assert ("progressive" in image.info) is progressive


def test_a_png_keeps_its_gamma_and_its_bit_depth() -> None:
    left = reencode_bytes(deep_png(6, 4), "image/png", RULES)
    assert b"gAMA\0\0\xb1\x8f" in left
    assert left[24:26] == b"\x10\x06"


def test_what_hides_behind_the_pixels_of_a_png_goes() -> None:
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 0, 0, 0, 0))
    pixels = zlib.compress(b"\0ab\0cd" + SECRET * 9, 0) + SECRET
    left = reencode_bytes(head + chunk(b"IDAT", pixels) + chunk(b"IEND", b"") + SECRET, "image/png", RULES)
    assert SECRET not in left
    with Image.open(io.BytesIO(left)) as image:
        assert image.tobytes() == b"abcd"


def test_a_bmp_with_alpha_keeps_it() -> None:
    pixels = random.Random(1).randbytes(4 * 12)
    head = struct.pack("<2sIII", b"BM", 122 + 48, 0, 122) + struct.pack("<IiiHH", 108, 4, 3, 1, 32)
    masks = struct.pack("<6I4I", 3, 48, 3780, 3780, 0, 0, 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    content = head + masks + bytes(52) + pixels
    assert seen(content)[0][0] == "RGBA"
    assert seen(reencode_bytes(content, "image/bmp", RULES)) == seen(content)


def test_an_animation_of_frames_with_places_of_their_own_keeps_them() -> None:
    first, second = Image.new("P", (40, 30)), Image.new("P", (40, 30))
    for image in (first, second):
        image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    first.paste(1, (0, 0, 40, 30))
    second.paste(1, (0, 0, 40, 30))
    second.paste(2, (11, 7, 19, 12))
    content = saved(first, "GIF", save_all=True, append_images=[second], duration=[70, 110], interlace=True)
    left = reencode_bytes(content, "image/gif", RULES)
    assert seen(left) == seen(content)


MORE = {
    "pixels that are not all there": (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"\0ab"))
        + chunk(b"IEND", b""),
        "image/png",
        "not all there",
    ),
    "a filter that does not exist": (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"\0ab\x07cd"))
        + chunk(b"IEND", b""),
        "image/png",
        "malformed",
    ),
    "no picture": (b"GIF89a" + bytes(7) + b";", "image/gif", "no picture"),
    "half a picture": (PICTURES["jpeg RGB"][:9000], "image/jpeg", "cannot be decoded"),
    "more than is allowed": (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b""),
        "image/png",
        "larger than is allowed",
    ),
}


@pytest.mark.parametrize("what", MORE)
def test_what_cannot_be_encoded_anew_is_refused_and_left_as_it_was(what: str, tmp_path: Path) -> None:
    content, kind, why = MORE[what]
    path = tmp_path / "stored.part"
    path.write_bytes(content)
    with pytest.raises(FileRefused, match=f"my.bin: it cannot be encoded anew: .*{why}"):
        reencode(path, kind, RULES, "my.bin")
    assert path.read_bytes() == content
    assert [each.name for each in tmp_path.iterdir()] == ["stored.part"]


def test_a_tiff_of_16_bits_a_channel_is_refused_rather_than_cut(tmp_path: Path) -> None:
    tags = [(256, 4), (257, 2), (258, 0), (262, 2), (273, 122), (277, 3), (278, 2), (279, 48)]
    entries = b"".join(
        struct.pack("<HHII", tag, 3, 3, 116) if tag == 258 else struct.pack("<HHII", tag, 3, 1, value)
        for tag, value in tags
    )
    content = struct.pack("<4sIH", b"II*\0", 8, len(tags)) + entries + bytes(4)
    content = content.ljust(116, b"\0") + struct.pack("<3H", 16, 16, 16) + random.Random(1).randbytes(48)
    assert seen(content)[0][0] == "RGB"
    with pytest.raises(FileRefused, match="more than 8 bits a channel"):
        reencode_bytes(content, "image/tiff", RULES)


def test_what_is_no_picture_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "stored.part"
    path.write_bytes(b"fLaC")
    assert not reencode(path, "audio/flac", RULES)
    assert reencode_bytes(b"fLaC", "audio/flac", RULES) == b"fLaC"
