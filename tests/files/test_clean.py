"""Pictures lose their metadata and nothing else; what cannot be cleaned for certain is refused and left alone."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bridged.config.schema import DEFAULT_TYPES, Files
from bridged.errors import FileRefused
from bridged.files.clean import STRIPPERS, strip, strip_bytes
from bridged.files.sniff import sniff
from bridged.files.verify import verify
from tests.files.secret_pictures import PICTURES, SECRET, chunk, exif, jpeg, saved, seen

JPEG_GPS = 0x8825


@pytest.mark.parametrize("what", PICTURES)
def test_a_picture_without_its_metadata_looks_the_same(what: str, tmp_path: Path) -> None:
    content = PICTURES[what]
    kind = sniff(content)
    path = tmp_path / "stored.part"
    path.write_bytes(content)
    assert strip(path, kind) is (SECRET in content or what.startswith("tiff") or not what.startswith("bmp"))
    left = path.read_bytes()
    assert left == strip_bytes(content, kind)
    assert SECRET not in left
    assert seen(left) == seen(content)
    with Image.open(io.BytesIO(left)) as image:
        told = {"text", "comment", "xmp", "description", "photoshop"} & image.info.keys()
        assert not told
        assert dict(image.getexif()).keys() <= (
            {0x0112} if not what.startswith("tiff") else set(range(254, 70_000))
        )
        assert not image.getexif().get_ifd(JPEG_GPS)
    assert verify(path, "a" + DEFAULT_TYPES[kind][0], Files()) == kind
    assert [each.name for each in tmp_path.iterdir()] == ["stored.part"]


@pytest.mark.parametrize("what", PICTURES)
def test_what_was_stripped_is_not_written_again(what: str, tmp_path: Path) -> None:
    kind = sniff(PICTURES[what])
    path = tmp_path / "stored.part"
    path.write_bytes(strip_bytes(PICTURES[what], kind))
    before = path.stat()
    if not what.startswith("tiff"):  # its gaps are made zeros again
        assert not strip(path, kind)
        assert path.stat().st_ino == before.st_ino


def test_an_exif_orientation_stays_and_its_thumbnail_and_place_do_not() -> None:
    with Image.open(io.BytesIO(strip_bytes(jpeg(orientation=6), "image/jpeg"))) as image:
        assert dict(image.getexif()) == {0x0112: 6}
    assert b"Exif" not in strip_bytes(jpeg(orientation=1), "image/jpeg")


def test_a_motorola_orientation_is_read_too() -> None:
    entry = struct.pack(">HHIHHI", 0x0112, 3, 1, 3, 0, 0)
    data = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + SECRET
    plain = saved(Image.new("RGB", (8, 8)), "JPEG")
    content = plain[:2] + struct.pack(">BBH", 0xFF, 0xE1, len(data) + 2) + data + plain[2:]
    left = strip_bytes(content, "image/jpeg")
    with Image.open(io.BytesIO(left)) as image:
        assert image.getexif()[0x0112] == 3
    assert SECRET not in left


def test_a_jfif_thumbnail_goes() -> None:
    plain = saved(Image.new("RGB", (8, 8)), "JPEG")
    assert plain[2:4] == b"\xff\xe0"
    assert plain[4:6] == b"\0\x10"
    thumbnail = SECRET.ljust(48)
    head = plain[6:18] + b"\x04\x04" + thumbnail
    content = plain[:2] + struct.pack(">BBH", 0xFF, 0xE0, len(head) + 2) + head + plain[20:]
    assert strip_bytes(content, "image/jpeg") == plain


def test_metadata_inside_a_webp_frame_goes() -> None:
    content = PICTURES["webp, animated"]
    at = content.index(b"ANMF")
    (size,) = struct.unpack_from("<I", content, at + 4)
    extra = b"XMP " + struct.pack("<I", len(SECRET)) + SECRET + b"\0" * (len(SECRET) % 2)
    inner = content[at + 8 : at + 8 + size] + extra
    changed = content[:at] + b"ANMF" + struct.pack("<I", len(inner)) + inner + content[at + 8 + size :]
    changed = changed[:4] + struct.pack("<I", len(changed) - 8) + changed[8:]
    assert seen(changed) == seen(content)
    assert strip_bytes(changed, "image/webp") == strip_bytes(content, "image/webp")


def test_gif_application_data_goes_and_the_number_of_rounds_stays() -> None:
    content = PICTURES["gif, animated"]
    at = content.index(b"!\xff\x0bNETSCAPE2.0")
    xmp = b"!\xff\x0bXMP DataXMP" + bytes((len(SECRET),)) + SECRET + b"\0"
    left = strip_bytes(content[:at] + xmp + content[at:], "image/gif")
    assert left == strip_bytes(content, "image/gif")
    with Image.open(io.BytesIO(left)) as image:
        assert image.info["loop"] == 2


def test_what_follows_a_pictures_end_goes() -> None:
    for what in ("png RGB", "jpeg RGB", "webp, lossless", "gif", "tiff RGB"):
        content = PICTURES[what]
        kind = sniff(content)
        assert strip_bytes(content + SECRET, kind) == strip_bytes(content, kind)


PLAIN = saved(Image.new("RGB", (9, 9)), "PNG")
TIFF = PICTURES["tiff RGB"]
BROKEN = {
    "no PNG": (b"GIF89a" + PLAIN, "image/png", "does not begin as a PNG"),
    "half a PNG": (PLAIN[:-9], "image/png", "ends too early"),
    "a critical chunk": (PLAIN[:33] + chunk(b"CgBI", b"x") + PLAIN[33:], "image/png", "critical chunk"),
    "half a JPEG": (PICTURES["jpeg RGB"][:-200], "image/jpeg", "ends too early"),
    "a JPEG with something between": (
        b"\xff\xd8no" + PICTURES["jpeg RGB"],
        "image/jpeg",
        "between its segments",
    ),
    "half a WebP": (PICTURES["webp, lossless"][:-9], "image/webp", "ends too early"),
    "half a GIF": (PICTURES["gif"][:-9], "image/gif", "ends too early"),
    "a GIF with something between": (PICTURES["gif"][:-1] + b"no;", "image/gif", "between its blocks"),
    "half a TIFF": (TIFF[:-90], "image/tiff", "ends too early"),
    "a TIFF in a circle": (
        *(
            struct.pack("<4sIHHHIIIHHIII", b"II*\0", 8, 2, 256, 3, 1, 9, 8, 257, 3, 1, 9, 8)[:38],
            "image/tiff",
        ),
        "have no end|ends too early|that nobody knows",
    ),
    "a type that nobody knows": (b"%PDF-1.4", "application/pdf", "nobody knows how for application/pdf"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_cannot_be_cleaned_for_certain_is_refused_and_left_as_it_was(what: str, tmp_path: Path) -> None:
    content, kind, why = BROKEN[what]
    path = tmp_path / "stored.part"
    path.write_bytes(content)
    with pytest.raises(FileRefused, match=f"my.bin: its metadata cannot be removed.*({why})"):
        strip(path, kind, "my.bin")
    assert path.read_bytes() == content
    assert [each.name for each in tmp_path.iterdir()] == ["stored.part"]


def test_a_tiff_whose_pixels_lie_in_what_goes_keeps_them() -> None:
    """Descriptions that cover the pixels' place must not be a way to blank them."""
    with Image.open(io.BytesIO(TIFF)) as image:
        offset, count = image.tag_v2[273][0], image.tag_v2[279][0]  # type: ignore[attr-defined]
    left = strip_bytes(TIFF, "image/tiff")
    assert left[offset : offset + count] == TIFF[offset : offset + count]


@pytest.mark.parametrize("what", ["png", "jpeg"])
def test_a_large_file_is_cleaned_in_constant_memory(what: str, tmp_path: Path) -> None:
    noise = Image.frombytes("RGB", (2000, 2000), random.Random(1).randbytes(12_000_000))
    options = {"exif": exif(), "quality": 95} if what == "jpeg" else {"compress_level": 0}
    path = tmp_path / "stored.part"
    noise.save(path, what.upper(), **options)
    if what == "png":
        content = path.read_bytes()
        path.write_bytes(content[:33] + chunk(b"tEXt", b"a\0" + SECRET) + content[33:])
        del content
    del noise
    sniff(b"warm up")
    tracemalloc.start()
    try:
        assert strip(path, f"image/{what}")
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_megabytes_of_tiny_chunks_do_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "stored.part"
    tiny = (chunk(b"tEXt", b"") + chunk(b"gAMA", b"\0\0\xb1\x8f")) * 100_000
    path.write_bytes(PLAIN[:33] + tiny + PLAIN[33:])
    tracemalloc.start()
    try:
        assert strip(path, "image/png")
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(sorted(PICTURES)),
    st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=4)), max_size=6),
    st.data(),
)
def test_damaged_pictures_are_cleaned_or_refused(
    what: str, changes: list[tuple[float, bytes]], data: st.DataObject
) -> None:
    content = bytearray(PICTURES[what])
    kind = sniff(bytes(content))
    for place, new in changes:
        at = int(place * min(len(content), data.draw(st.sampled_from([64, 512, 1 << 20]))))
        content[at : at + len(new)] = new
    cut = data.draw(st.sampled_from([len(content), len(content) // 2, len(content) - 1]))
    try:
        left = strip_bytes(bytes(content[:cut]), kind)
    except FileRefused:
        return
    assert strip_bytes(left, kind) is not None


@pytest.mark.parametrize("kind", STRIPPERS)
def test_nonsense_is_refused(kind: str) -> None:
    if kind == "text/plain":
        return
    for content in (b"", b"\0", b"RIFF", zlib.compress(b"x"), bytes(100), b"\xff" * 100):
        with pytest.raises(FileRefused):
            strip_bytes(content, kind)
