"""What a file may cost: time, pixels that are more than they seem, tables that overlap; and what counts as cheap."""

from __future__ import annotations

import struct
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from bridged.config.schema import Files
from bridged.errors import FileRefused
from bridged.files.formats import decode as decoding
from bridged.files.formats import exif as exif_walk
from bridged.files.formats import source as reading
from bridged.files.formats.jpeg import walk_jpeg
from bridged.files.formats.limits import Limits, Picture
from bridged.files.formats.mp3 import frame_size
from bridged.files.formats.source import Budget, Refusal, Source
from bridged.files.formats.tiff import check_tiff
from bridged.files.verify import is_cheap, verify
from tests.files import forge
from tests.files.forge import chunk, png, segment

RULES = Files()
SMALL = Files(max_pixels=0.0001, max_side=50, max_frames=10)
"""100 pixels a frame, 1000 in all, 2000 bytes unpacked"""


def refused(data: bytes, extension: str, says: str, rules: Files = RULES) -> None:
    with pytest.raises(FileRefused, match=f"^a{extension}: .*{says}"):
        verify(data, f"a{extension}", rules)


def pages(count: int, wide: int, high: int, *, pixels: int = 1, parts: int = 1, more: Any = (), tile: int = 0) -> bytes:
    """A TIFF of pages that share one packed tile of zeros."""
    packed = zlib.compress(bytes((tile or wide * high) * 3))
    body = bytearray(b"II*\0\0\0\0\0" + packed + bytes(len(packed) % 2))
    bits = len(body)
    body += struct.pack("<3H", 8, 8, 8) + bytes(2)
    starts = len(body)
    body += struct.pack("<I", 8) * parts + struct.pack("<I", len(packed)) * parts
    last = 4
    for _ in range(count):
        body[last : last + 4] = struct.pack("<I", len(body))
        tags = {256: (1, pixels), 257: (1, pixels), 258: (3, bits), 259: (1, 8), 262: (1, 2), 277: (1, 3), 284: (1, 1)}
        tags.update({322: (1, wide), 323: (1, high)})
        tags[324] = (parts, starts) if parts > 1 else (1, 8)
        tags[325] = (parts, starts + 4 * parts) if parts > 1 else (1, len(packed))
        tags.update(more)
        body += struct.pack("<H", len(tags))
        for tag, (number, value) in sorted(tags.items()):
            body += struct.pack("<HHII", tag, 3 if tag == 258 else 4, number, value)
        last = len(body)
        body += bytes(4)
    return bytes(body)


def test_a_tiff_costs_what_its_tiles_do() -> None:
    assert verify(pages(2, 16, 16, pixels=5), "a.tif", RULES)
    refused(pages(1, 9792, 9792, tile=10), ".tif", "its tiles are too large")
    refused(pages(12, 16, 16), ".tif", "more than 0.003 million pixels together", Files(max_pixels=0.0003))
    assert verify(pages(12, 16, 16), "a.tif", RULES)


def test_a_tiff_has_no_more_parts_than_it_can_show() -> None:
    refused(pages(1, 1024, 1024, tile=10, parts=10), ".tif", "its tiles are too large")


def test_a_tiff_that_costs_much_is_decoded_apart() -> None:
    picture = check_tiff(Source(pages(10, 1024, 1024, tile=10)), Limits.of(RULES))
    assert tuple(picture) == (1, 1, 10)
    assert picture.cost == 10 * 1024 * 1024 > decoding.LARGE
    assert Picture(3, 4, 5).cost == 60


def test_samples_and_their_bits_are_part_of_a_tiffs_cost() -> None:
    deep = forge.tiff_tags(
        *((tag, 4, struct.pack("<I", value)) for tag, value in {256: 9, 257: 9, 258: 64, 277: 16}.items())
    )
    assert check_tiff(Source(deep), Limits.of(RULES)).cost == 81 * 64 * 16 // 32


def test_nothing_is_checked_for_longer_than_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    for extension, make in forge.MADE.items():
        path.write_bytes(make())
        for content in (path, make()):
            assert verify(content, f"a{extension}", RULES)
            with monkeypatch.context() as patch:
                patch.setattr(reading, "PATIENCE", -1.0)
                with pytest.raises(FileRefused, match="it takes too long to check"):
                    verify(content, f"a{extension}", RULES)


def test_parts_of_a_file_have_its_time_and_no_more() -> None:
    budget = Budget()
    whole = Source(bytes(9), budget=budget)
    assert whole.part(1, 4).part(1, 2).budget is budget
    budget.deadline = time.monotonic() - 1
    with pytest.raises(Refusal, match="too long"):
        Source(bytes(9), budget=budget).part(1, 4).read(0, 1)


def deep_apng(frames: int, side: int) -> bytes:
    data = forge.rows(side, side, 64)
    parts = [forge.header(side, side, 16, 6), forge.animation(frames), forge.frame_control(0, side, side)]
    parts.append(forge.idat(data))
    for number in range(1, frames):
        parts += [forge.frame_control(2 * number - 1, side, side), forge.frame_data(2 * number, data)]
    return png(*parts)


def test_the_frames_of_a_png_are_counted_in_bytes() -> None:
    assert verify(deep_apng(2, 10), "a.png", SMALL)
    refused(deep_apng(3, 10), ".png", "its frames unpack to more than 0.002 MB together", SMALL)


def test_a_tag_behind_sound_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = b"\xff\xfb\x14\0" + bytes(frame_size(b"\xff\xfb\x14\0") - 4)
    text = (b"<a b" * 250_000)[:1_000_000]
    tag = text + b"APETAGEX" + struct.pack("<IIII", 2000, len(text) + 32, 1, 0) + bytes(8)
    looked = []
    real = Source.blocks

    def counting(self: Source, start: int, end: int, *more: int) -> Any:
        looked.append(end - start)
        return real(self, start, end, *more)

    monkeypatch.setattr(Source, "blocks", counting)
    refused(frame * 4 + b"y" + (frame + frame + b"x") * 20 + b"z" * 70_000 + frame * 4 + tag, ".mp3", "follows its end")
    assert sum(size > 900_000 for size in looked) <= 3


def overlapping(size: int = 60_000) -> bytes:
    """EXIF of 256 directories of 4096 entries each, two bytes apart, that has something to be explained."""
    data = bytearray(b"\0\x10" * (size // 2))
    note = b'{"a":"<script>x</script>"}'
    lists = 8 + 2 + 12 * 5 + 4
    places = [lists + 4 * 256 + 40 + 2 * index for index in range(256)]
    entries = []
    for index, tag in enumerate((330, 34665, 34853, 40965)):
        at = lists + 256 * index
        entries.append((tag, 4, 64, at))
        data[at : at + 256] = struct.pack("<64I", *places[64 * index : 64 * index + 64])
    entries.append((270, 2, len(note), lists + 1024))
    data[lists + 1024 : lists + 1024 + len(note)] = note
    table = struct.pack("<H", 5) + b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries)) + bytes(4)
    data[:8] = b"II*\0" + struct.pack("<I", 8)
    data[8 : 8 + len(table)] = table
    return bytes(data)


def test_overlapping_exif_directories_are_read_up_to_a_limit() -> None:
    data = overlapping()
    budget = Budget()
    with pytest.raises(Refusal, match="active content"):
        exif_walk.check_exif(data, "x", budget)
    assert budget.tags > reading.MAX_TAGS - 2 * len(data) // 12 - 5000, "stopped where no honest block gets"


def test_all_exif_of_a_file_has_one_budget() -> None:
    block = forge.tiff_tags((270, 2, b'{"a": "<script>x</script>"}   \0'), (271, 2, b"x\0"))
    exif = segment(0xE1, b"Exif\0\0" + block)
    file = Source(forge.jpeg(exif, exif, exif))
    walk_jpeg(file, None)
    assert file.budget.tags == reading.MAX_TAGS - 6
    short = Source(forge.jpeg(exif, exif, exif))
    short.budget.tags = 5
    with pytest.raises(Refusal, match="active content"):  # what is not read explains nothing
        walk_jpeg(short, None)


def test_many_thumbnails_in_one_place_are_walked_once_or_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    walked = []

    def walk(part: Source) -> list[tuple[int, int]]:
        walked.append(part.size)
        return []

    monkeypatch.setattr("bridged.files.formats.jpeg.pixels_of", walk)
    thumbnail = b"<script>" + bytes(4000)
    first = {0x0201: 0, 0x0202: len(thumbnail)}
    count, size = 10, 2 + 12 * 2 + 4
    body = bytearray(b"II*\0" + struct.pack("<I", 8))
    for number in range(count):
        first[0x0201] = 8 + count * size
        following = 8 + (number + 1) * size if number + 1 < count else 0
        body += struct.pack("<H", 2) + b"".join(struct.pack("<HHII", tag, 4, 1, first[tag]) for tag in first)
        body += struct.pack("<I", following)
    with pytest.raises(Refusal, match="active content"):
        exif_walk.check_exif(bytes(body) + thumbnail, "x", Budget())
    assert len(walked) == 2


def test_a_png_has_exif_once() -> None:
    exif = chunk(b"eXIf", forge.tiff_tags((270, 2, b"words\0")))
    assert verify(png(before=[exif]), "a.png", RULES)
    refused(png(before=[exif], after=[exif]), ".png", "it has EXIF twice")


SOME = forge.tiff_tags((270, 2, b"x" * 4000 + b"\0"))
MUCH = forge.tiff_tags((270, 2, b"x" * 9000 + b"\0"))
TINY_WEBP = forge.saved("WEBP", size=(9, 9))


def frame(left: int, top: int, width: int, height: int) -> bytes:
    return b"," + struct.pack("<HHHHB", left, top, width, height, 0) + b"\x02\x03\x04\0\x05\0"


def gif(*blocks: bytes, side: int = 20) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes(6) + b"".join(blocks) + b";"


def jpeg_with_two_sizes() -> bytes:
    """The real header is behind a marker without a length, whose next bytes would be one that leads to a small size."""
    large = forge.saved("JPEG", size=(3000, 3000))
    hidden = segment(0xC0, struct.pack(">BHHB", 8, 8, 8, 3) + bytes(9))
    behind = segment(0xEF, hidden.rjust(10, b"\0") + bytes(65_000))
    head = large[:2] + b"\xff\xd0"
    skipped = 2 + 2 + int.from_bytes(b"\xff\xef", "big")
    at = behind.index(hidden)
    filler = skipped - len(head) - at
    return head + (segment(0xEF, bytes(filler - 4)) if filler > 4 else b"") + behind + large[2:]


@pytest.mark.parametrize(
    ("content", "cheap"),
    [
        (png(before=[chunk(b"eXIf", SOME)]), True),
        (png(before=[chunk(b"eXIf", MUCH)]), False),
        (forge.jpeg(segment(0xE1, b"Exif\0\0" + SOME)), True),
        (forge.jpeg(segment(0xE1, b"Exif\0\0" + MUCH)), False),
        (forge.jpeg(*[segment(0xE1, b"Exif\0\0" + SOME)] * 3), False),
        (forge.jpeg() + forge.jpeg(segment(0xE1, b"Exif\0\0" + MUCH)), False),
        (forge.riff(b"WEBP", TINY_WEBP[12:], forge.riff_chunk(b"EXIF", SOME)), True),
        (forge.riff(b"WEBP", TINY_WEBP[12:], forge.riff_chunk(b"EXIF", MUCH)), False),
        (gif(frame(0, 0, 2, 2)), True),
        (gif(frame(18, 18, 2, 2)), True),
        (gif(b"!\xf9\4\0\0\0\0\0", frame(0, 0, 2, 2)), True),
        (gif(frame(19, 0, 2, 2)), False),
        (gif(frame(0, 19, 2, 2)), False),
        (gif(frame(0, 0, 2800, 2800)), False),
        (gif(frame(0, 0, 0, 2)), False),
        (gif(frame(0, 0, 2, 2), b"\0" * 9, frame(0, 0, 2, 2)), False),
        (gif(frame(0, 0, 2, 2), frame(0, 0, 2, 2)), False),
        (gif(b"!\xfe" + b"\1x" * 5000 + b"\0", frame(0, 0, 2, 2)), False),
        (gif(b"!\xfe\0" * 70, frame(0, 0, 2, 2)), False),
        (gif(b"?", frame(0, 0, 2, 2)), False),
        (gif(), False),
        (jpeg_with_two_sizes(), False),
    ],
)
def test_what_may_cost_more_than_it_seems_is_not_cheap(content: bytes, cheap: bool) -> None:
    assert is_cheap(content) is cheap
