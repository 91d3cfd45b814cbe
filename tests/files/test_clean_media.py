"""Sound and video lose their metadata, and every decoded frame stays what and when it was."""

from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import av
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridged.config.schema import DEFAULT_TYPES, Files
from bridged.errors import FileRefused
from bridged.files.clean import strip, strip_bytes
from bridged.files.sniff import sniff
from bridged.files.verify import verify
from tests.files.media import SECRET, described, heard_and_seen, sound, video

HIDDEN = SECRET.encode()

MADE: dict[str, Callable[[], bytes]] = {
    "mp4 as ComfyUI saves it": lambda: video("mp4", "libx264", "aac", movflags="use_metadata_tags"),
    "mp4": lambda: video("mp4", "libx264", "aac"),
    "mp4, description first": lambda: video("mp4", "libx264", "aac", movflags="faststart+use_metadata_tags"),
    "mp4, fragments": lambda: video("mp4", "libx264", "aac", movflags="frag_keyframe+empty_moov"),
    "mov": lambda: video("mov", "libx264", "pcm_s16le"),
    "mov with keys": lambda: video("mov", "libx264", "aac", movflags="use_metadata_tags"),
    "webm as ComfyUI saves it": lambda: video("webm", "libvpx-vp9"),
    "webm with sound": lambda: video("webm", "libvpx", "libopus"),
    "webm, vorbis": lambda: video("webm", "libvpx", "vorbis"),
    "webm, live": lambda: video("webm", "libvpx", "libopus", live="1"),
    "mkv": lambda: video("matroska", "libx264", "aac"),
    "wav": lambda: sound("wav", "pcm_s16le"),
    "wav, bext": lambda: sound("wav", "pcm_s24le", write_bext="1"),
    "flac as ComfyUI saves it": lambda: sound("flac", "flac"),
    "mp3 as ComfyUI saves it": lambda: sound("mp3", "libmp3lame"),
    "mp3, both ID3": lambda: sound("mp3", "libmp3lame", write_id3v1="1", id3v2_version="3"),
    "ogg, vorbis": lambda: sound("ogg", "vorbis"),
    "ogg, opus as ComfyUI saves it": lambda: sound("opus", "libopus"),
    "ogg, flac": lambda: sound("ogg", "flac"),
    "m4a": lambda: sound("ipod", "aac"),
}


@cache
def made(what: str) -> bytes:
    return MADE[what]()


@pytest.mark.parametrize("what", MADE)
def test_a_file_without_its_metadata_plays_the_same(what: str, tmp_path: Path) -> None:
    content = made(what)
    assert HIDDEN in content
    kind = sniff(content)
    path = tmp_path / "stored.part"
    path.write_bytes(content)
    assert strip(path, kind)
    left = path.read_bytes()
    assert left == strip_bytes(content, kind) == strip_bytes(left, kind)
    assert HIDDEN not in left
    assert "prompt" in described(content) or HIDDEN.decode() in described(content).values()
    assert not any(HIDDEN.decode() in value for value in described(left).values())
    assert heard_and_seen(path) == heard_and_seen(content)
    if kind in DEFAULT_TYPES:
        assert verify(path, "a" + DEFAULT_TYPES[kind][0], Files()) == kind
    assert [each.name for each in tmp_path.iterdir()] == ["stored.part"]


@pytest.mark.parametrize("what", ["mp4", "webm with sound", "mkv"])
def test_what_remains_can_still_be_sought_in(what: str) -> None:
    """Offsets and indexes point to where they pointed."""

    def after_seeking(content: bytes) -> list[object]:
        with av.open(io.BytesIO(content), "r") as container:
            container.seek(500_000)
            return [packet.pts for packet in container.demux()]

    left = strip_bytes(made(what), sniff(made(what)))
    assert after_seeking(left) == after_seeking(made(what))


def pages_of(content: bytes) -> list[tuple[int, int]]:
    """(sequence number, granule position) of each page, whose checksums are right (RFC 3533 section 6)."""
    found, at = [], 0
    while at < len(content):
        _, _, _, granule, _, sequence, checksum, count = struct.unpack_from("<4sBBqIIIB", content, at)
        end = at + 27 + count + sum(content[at + 27 : at + 27 + count])
        page = content[at : at + 22] + bytes(4) + content[at + 26 : end]
        crc = 0
        for byte in page:
            crc ^= byte << 24
            for _ in range(8):
                crc = crc << 1 ^ (0x104C11DB7 if crc >> 31 else 0)
        assert crc == checksum
        found.append((sequence, granule))
        at = end
    return found


@pytest.mark.parametrize("what", [what for what in MADE if what.startswith("ogg")])
def test_ogg_pages_are_numbered_without_gaps_and_have_right_checksums(what: str) -> None:
    before, after = pages_of(made(what)), pages_of(strip_bytes(made(what), "audio/ogg"))
    assert len(after) < len(before)
    assert [sequence for sequence, _ in after] == list(range(len(after)))
    assert after[-1][1] == before[-1][1]


def test_the_streams_of_a_chained_ogg_are_cleaned_one_by_one() -> None:
    first, second = made("ogg, opus as ComfyUI saves it"), sound("opus", "libopus")
    serial = struct.unpack_from("<I", second, 14)[0]
    assert serial != struct.unpack_from("<I", first, 14)[0]
    left = strip_bytes(first + second, "audio/ogg")
    assert left == strip_bytes(first, "audio/ogg") + strip_bytes(second, "audio/ogg")


def test_tags_at_the_end_of_an_mp3_go() -> None:
    plain = strip_bytes(made("mp3, both ID3"), "audio/mpeg")
    item = struct.pack("<II", len(HIDDEN), 0) + b"Title\0" + HIDDEN
    ape = [
        struct.pack("<8sIIIIQ", b"APETAGEX", 2000, len(item) + 32, 1, flags, 0)
        for flags in (5 << 29, 1 << 31)
    ]
    lyrics = b"LYRICSBEGINLYR00037" + HIDDEN
    tags = {
        "ape": ape[0] + item + ape[1],
        "lyrics": lyrics + f"{len(lyrics):06}LYRICS200".encode(),
        "id3v1": b"TAG" + HIDDEN.ljust(125),
        "id3v2 behind": b"ID3\4\0\x10\0\0\0\x25" + HIDDEN + b"3DI\4\0\x10\0\0\0\x25",
    }
    for tag in tags.values():
        assert strip_bytes(plain + tag, "audio/mpeg") == plain
    assert strip_bytes(plain + b"".join(tags.values()), "audio/mpeg") == plain
    assert strip_bytes(b"ID3\4\0\0\0\0\0\x25" + HIDDEN + tags["ape"] + plain, "audio/mpeg") == plain


def test_a_flac_keeps_the_comment_that_says_where_its_channels_go() -> None:
    content = sound("flac", "flac", {"title": SECRET, "WAVEFORMATEXTENSIBLE_CHANNEL_MASK": "0x0003"})
    left = strip_bytes(content, "audio/flac")
    assert b"WAVEFORMATEXTENSIBLE_CHANNEL_MASK=0x0003" in left
    assert HIDDEN not in left


def test_pictures_and_application_data_in_a_flac_go() -> None:
    content = made("flac as ComfyUI saves it")
    blocks = b"".join(struct.pack(">I", kind << 24 | len(HIDDEN)) + HIDDEN for kind in (2, 6, 5, 1, 77))
    changed = content[:42] + blocks + content[42:]
    assert strip_bytes(changed, "audio/flac") == strip_bytes(content, "audio/flac")


def test_attachments_and_titles_in_a_matroska_go() -> None:
    content = made("mkv")
    at = content.rindex(b"\x12\x54\xc3\x67")  # Tags
    changed = content[:at] + b"\x19\x41\xa4\x69" + content[at + 4 :]
    left = strip_bytes(changed, "video/x-matroska")
    assert left == strip_bytes(content, "video/x-matroska")
    assert left[at] == 0xEC
    assert HIDDEN not in left


def box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I", 8 + len(body)) + kind + body


REFUSED = {
    "a track of places": (
        box(b"ftyp", b"isom")
        + box(b"moov", box(b"trak", box(b"mdia", box(b"hdlr", bytes(8), b"meta", bytes(13))))),
        "video/mp4",
        "track of metadata",
    ),
    "a compressed description": (
        box(b"moov", box(b"cmov", box(b"dcom", b"zlib"))),
        "video/quicktime",
        "is compressed",
    ),
    "RF64": (b"RF64\xff\xff\xff\xffWAVE" + bytes(40), "audio/x-wav", "no plain RIFF"),
    "no sound": (b"RIFF\x04\0\0\0WAVE", "audio/x-wav", "not where it should be"),
    "only tags": (b"ID3\4\0\0\0\0\0\x05hello", "audio/mpeg", "nothing but tags"),
    "Theora": (b"OggS\0\2" + bytes(20) + b"\x01\x07\x80theora", "audio/ogg", "stream of another kind"),
    "an element without size": (b"\x1a\x45\xdf\xa3\x80\x15\x49\xa9\x66\xff", "video/webm", "has no size"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_cleaned_for_certain_is_refused(what: str) -> None:
    content, kind, why = REFUSED[what]
    with pytest.raises(FileRefused, match=f"my.bin: its metadata cannot be removed for certain: .*{why}"):
        strip_bytes(content, kind, "my.bin")


def test_boxes_in_boxes_of_their_own_kind_are_not_looked_into() -> None:
    content = box(b"free", HIDDEN)
    for _ in range(2000):
        content = box(b"moov", content)
    left = strip_bytes(box(b"ftyp", b"isom\0\0\0\0isom") + content, "video/mp4")
    assert HIDDEN not in left
    assert left.count(b"moov") == left.count(b"free") == 1


def test_a_video_of_many_megabytes_is_cleaned_in_constant_memory(tmp_path: Path) -> None:
    path = tmp_path / "stored.part"
    with open(path, "wb") as file:
        file.write(box(b"ftyp", b"isom\0\0\0\0") + struct.pack(">I", 8 + 60_000_000) + b"mdat")
        file.truncate(24 + 60_000_000)
        file.seek(0, 2)
        file.write(box(b"moov", box(b"udta", HIDDEN * 100_000)))
    sniff(b"warm up")
    tracemalloc.start()
    try:
        assert strip(path, sniff(path))
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert HIDDEN not in path.read_bytes()[60_000_000:]


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(sorted(MADE)),
    st.lists(
        st.tuples(st.sampled_from([64, 1024, 1 << 20]), st.floats(0, 1), st.binary(max_size=4)), max_size=6
    ),
)
def test_damaged_files_are_cleaned_or_refused(what: str, changes: list[tuple[int, float, bytes]]) -> None:
    content = bytearray(made(what))
    kind = sniff(made(what))
    for within, place, new in changes:
        at = int(place * min(len(content), within))
        content[at : at + len(new)] = new
    with suppress(FileRefused):
        strip_bytes(bytes(content), kind)
