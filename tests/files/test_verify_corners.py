"""Active content in places that seem to have no room for words: fixed lengths, tables of numbers, indexes, headers."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable

import pytest
from PIL import Image

from bridged.config.schema import Files
from bridged.errors import FileRefused
from bridged.files.formats.active import suspicious
from bridged.files.formats.crc import ogg_crc
from bridged.files.verify import verify
from tests.files import forge
from tests.files.forge import OPUS_HEAD, box, chunk, comments, element, page, png, riff, riff_chunk, segment

RULES = Files(allowed={**Files().allowed, "video/ogg": [".ogv"]})

ECHOES = [
    b"<?=`$_GET[0]`?>",
    b"<?=`id`?>",
    b"<?=`w`;",
    b"<?= $_GET[0]($_GET[1]) ?>",
    b"<?=system($_GET[0])?>",
    b"<?=\n\tSYSTEM ('id')?>",
    b"<?=\\system('id')?>",
    b"<?=@eval($_POST[0]);",
    b"<?=('sys'.'tem')('id')?>",
    b'<?="{${system(0)}}"?>',
    b"<?=include$_GET[0]?>",
    b'<?=require"/tmp/x"?>',
    b"<?=!system(1)?>",
    b"<?=/**/system(1)?>",
    b"<?=system/**/(1)?>",
    b"<?=[system(1)]?>",
    b"".join(bytes([byte, 0]) for byte in b"<?=system($_GET[0])?>") + bytes(8),
]
"""PHP's short form of `echo`"""

NO_ECHOES = [
    b"<?=",
    b"a <?= b",
    b"<?= x ?>",
    b"<?=$a",
    b"<?=5 > 4",
    b"if a<?=b c",
    b"<?=\x80\x81(((((",
    b"<?=$\0\1\2\3\4",
]


@pytest.mark.parametrize("value", ECHOES)
def test_short_echo_is_found_in_any_bytes(value: bytes) -> None:
    assert suspicious(b"\1\2" + value + b"\3")


@pytest.mark.parametrize("value", NO_ECHOES)
def test_what_only_begins_like_it_is_not(value: bytes) -> None:
    assert not suspicious(b"\1\2" + value + b"\3\0")


def test_compressed_bytes_do_not_spell_it_by_chance() -> None:
    rng = random.Random(3)
    assert not any(suspicious(b"".join(b"<?=" + rng.randbytes(24) for _ in range(400))) for _ in range(5))


def free_space(value: bytes, kind: int = 4) -> bytes:
    """A TIFF that calls the end of itself free, or has words in the list of free places."""
    tags = {256: 4, 257: 3, 258: 8, 259: 1, 262: 1, 277: 1, 278: 3, 279: 12}
    table = [(tag, 4, struct.pack("<I", number)) for tag, number in tags.items()]
    if kind == 1:
        start = len(forge.tiff_tags(*table, (273, 4, bytes(4)), (288, 1, value), (289, 1, value)))
        table += [(288, 1, value), (289, 1, value), (273, 4, struct.pack("<I", start))]
        return forge.tiff_tags(*sorted(table)) + b"\x80" * 12
    start = len(forge.tiff_tags(*table, *[(tag, 4, bytes(4)) for tag in (273, 288, 289)]))
    places = {273: start, 288: start + 12, 289: len(value)}
    table += [(tag, 4, struct.pack("<I", number)) for tag, number in places.items()]
    return forge.tiff_tags(*sorted(table)) + b"\x80" * 12 + value


def alpha_webp(flags: int, *chunks: bytes) -> bytes:
    extended = bytes([flags, 0, 0, 0]) + (16).to_bytes(3, "little") + (10).to_bytes(3, "little")
    return riff(b"WEBP", riff_chunk(b"VP8X", extended), *chunks)


STILL = forge.saved("WEBP", size=(17, 11))[12:]


def long_vp8x(value: bytes) -> bytes:
    extended = bytes(4) + (16).to_bytes(3, "little") + (10).to_bytes(3, "little")
    return riff(b"WEBP", riff_chunk(b"VP8X", extended + value), STILL)


def flac_in_ogg(value: bytes) -> bytes:
    head = b"\x7fFLAC\1\0\0\2fLaC" + forge.flac_block(0, forge.STREAMINFO)
    packets = [head, forge.flac_block(4, comments(b"x=y")), forge.flac_block(2, value, last=True), forge.flac_frame()]
    return b"".join(page(7, at, packet, 2 if not at else 4 * (at == 3)) for at, packet in enumerate(packets))


def vorbis(value: bytes) -> bytes:
    packets = [b"\1vorbis" + bytes(23), b"\3vorbis" + comments(b"x=y") + b"\1", b"\5vorbis" + value, bytes(40)]
    return b"".join(page(7, at, packet, 2 if not at else 4 * (at == 3)) for at, packet in enumerate(packets))


def skeleton(value: bytes) -> bytes:
    return page(3, 0, b"fishead\0" + bytes(56), 2) + page(3, 1, b"fisbone\0" + bytes(44)) + page(3, 2, value, 4)


def second_in_one_page(value: bytes) -> bytes:
    """Comments and what follows them in one page, as encoders of Vorbis write them."""
    second = b"\3vorbis" + comments(b"x=y") + b"\1"
    third = b"\5vorbis" + value
    table = bytes([len(second), len(third)])
    head = struct.pack("<4sBBqIII", b"OggS", 0, 4, 0, 7, 1, 0) + bytes([2]) + table
    body = second + third
    checksum = struct.pack("<I", ogg_crc(head, body))
    return page(7, 0, b"\1vorbis" + bytes(23), 2) + head[:22] + checksum + head[26:] + body


def in_table(value: bytes, *boxes: bytes) -> bytes:
    table = box(b"stbl", box(b"stsd", bytes(8)), *boxes)
    track = box(b"trak", box(b"mdia", forge.handler(), box(b"minf", table)))
    return forge.FTYP + box(b"moov", box(b"mvhd", bytes(100)), track) + box(b"mdat", bytes(9))


PLACES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "PNG time": (".png", lambda value: png(before=[chunk(b"tIME", bytes(7) + value)])),
    "PNG gamma": (".png", lambda value: png(before=[chunk(b"gAMA", bytes(4) + value)])),
    "PNG chromaticities": (".png", lambda value: png(before=[chunk(b"cHRM", value.ljust(32, b"\0"))])),
    "PNG background": (".png", lambda value: png(before=[chunk(b"bKGD", bytes(6) + value)])),
    "GIF control": (
        ".gif",
        lambda value: forge.gif(b"!\xf9\4\0\0\0\0" + bytes([len(value)]) + value + b"\0"),
    ),
    "GIF control of another size": (".gif", lambda value: forge.gif(b"!\xf9" + bytes([len(value)]) + value + b"\0")),
    "WebP alpha without alpha": (".webp", lambda value: alpha_webp(0, riff_chunk(b"ALPH", value), STILL)),
    "WebP alpha behind": (".webp", lambda value: alpha_webp(0x10, STILL, riff_chunk(b"ALPH", value))),
    "WebP alpha twice": (
        ".webp",
        lambda value: alpha_webp(0x10, riff_chunk(b"ALPH", value), riff_chunk(b"ALPH", b"\0"), STILL),
    ),
    "WebP ANIM": (".webp", lambda value: alpha_webp(0, riff_chunk(b"ANIM", bytes(6) + value), STILL)),
    "WebP VP8X": (".webp", long_vp8x),
    "Ogg's first page": (".ogg", lambda value: forge.ogg(b"x=y", head=OPUS_HEAD + value)),
    "FLAC's third packet in Ogg": (".ogg", flac_in_ogg),
    "Vorbis's third packet": (".ogg", vorbis),
    "Vorbis's third packet in the second's page": (".ogg", second_in_one_page),
    "Ogg Skeleton": (".ogv", skeleton),
    "MP4 groups": (".mp4", lambda value: in_table(value, box(b"sbgp", value))),
    "MP4 behind a table": (".mp4", lambda value: in_table(value, box(b"stss", bytes(8) + value))),
    "MP4 item data": (".mp4", lambda value: forge.mp4(box(b"idat", value))),
    "MP4 edits": (".mp4", lambda value: forge.mp4(box(b"moof", box(b"traf", box(b"senc", value))))),
    "Matroska index": (".webm", lambda value: forge.webm(element(0x1C53BB6B, value))),
    "Matroska places": (".webm", lambda value: forge.webm(element(0x114D9B74, value))),
    "Matroska checksum": (".webm", lambda value: forge.webm(element(0xBF, value))),
    "Matroska checksum in tags": (".webm", lambda value: forge.webm(element(0x1254C367, element(0xBF, value)))),
    "Matroska checksum in a cluster": (".webm", lambda value: forge.webm(element(0x1F43B675, element(0xBF, value)))),
    "Matroska position": (".webm", lambda value: forge.webm(element(0x1F43B675, element(0xA7, value)))),
    "Matroska header": (
        ".webm",
        lambda value: (
            element(0x1A45DFA3, element(0x4286, b"\1"), element(0x4282, b"webm"), element(0x4FFF, value))
            + forge.webm()[len(element(0x1A45DFA3, element(0x4286, b"\1"), element(0x4282, b"webm"))) :]
        ),
    ),
    "TIFF free space": (".tif", free_space),
    "TIFF list of free space": (".tif", lambda value: free_space(value, 1)),
    "JPEG EXIF": (".jpg", lambda value: forge.jpeg(forge.exif((270, 2, value + b"    \0")))),
    "ID3": (".mp3", lambda value: forge.mp3((b"TIT2", b"\0" + value))),
    "MP4 tag": (".mp4", lambda value: forge.mp4(forge.tagged(value))),
    "Vorbis comment": (".ogg", lambda value: forge.ogg(b"TITLE=" + value)),
    "JPEG APP": (".jpg", lambda value: forge.jpeg(segment(0xE7, b"Maker\0" + value))),
}

HOSTILE = [b"<?php system($_GET[0]); ?><script>alert(1)</script>", b"<?=`$_GET[0]`?>"]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("place", PLACES)
def test_no_place_is_passed_over(place: str, value: bytes) -> None:
    extension, make = PLACES[place]
    if place == "PNG chromaticities":
        value = value[:32]
    with pytest.raises(FileRefused, match=r"active content|broken|follows its end"):
        verify(make(value), f"a{extension}", RULES)


BROKEN_WHEN_LONGER = {"Matroska checksum", "Matroska checksum in tags", "Matroska checksum in a cluster"} | {
    *("WebP ANIM", "WebP VP8X", "WebP alpha behind", "WebP alpha twice"),  # libwebp says so
}


@pytest.mark.parametrize("place", sorted(PLACES.keys() - BROKEN_WHEN_LONGER))
def test_the_same_places_may_have_numbers(place: str) -> None:
    extension, make = PLACES[place]
    assert verify(make(b"\x01\x02\x03\x04" * 3), f"a{extension}", RULES)


def test_a_checksum_has_four_bytes() -> None:
    for inside in (element(0xBF, bytes(4)), element(0x1254C367, element(0xBF, bytes(4)))):
        assert verify(forge.webm(inside), "a.webm", RULES)
    for size in (0, 3, 5):
        with pytest.raises(FileRefused, match="one of its checksums is broken"):
            verify(forge.webm(element(0xBF, bytes(size))), "a.webm", RULES)


def test_alpha_of_lossy_pixels_may_be_anything() -> None:
    body = io.BytesIO()
    Image.frombytes("RGBA", (17, 11), random.Random(2).randbytes(17 * 11 * 4)).save(body, "WEBP")
    assert b"ALPH" in body.getvalue()
    assert verify(body.getvalue(), "a.webp", RULES)
    raw = alpha_webp(0x10, riff_chunk(b"ALPH", b"\0" + b"<script>".ljust(17 * 11)), STILL)
    assert verify(raw, "a.webp", RULES)


@pytest.mark.parametrize("said", [6, 1024, 1151])
def test_a_plain_tiff_that_says_it_has_fewer_bytes_than_its_rows_take(said: int) -> None:
    """Decoders read on regardless: whoever copied what it says would lose pixels."""
    file = io.BytesIO()
    Image.new("RGB", (24, 16), "red").save(file, "TIFF")
    whole = file.getvalue()
    verify(whole, "a.tif", Files())
    count = struct.pack("<HHI", 279, 4, 1)
    at = whole.index(count) + len(count)
    with pytest.raises(FileRefused, match="cut off"):
        verify(whole[:at] + struct.pack("<I", said) + whole[at + 4 :], "a.tif", Files())
