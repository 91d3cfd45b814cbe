"""What hides in places that formats leave open goes, too; what is seen and heard stays, and the file is still good."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import av
import pytest
from PIL import Image

from bridged.config.schema import DEFAULT_TYPES, Files
from bridged.errors import FileRefused
from bridged.files.clean import strip_bytes
from bridged.files.formats.mp3 import frame_size
from bridged.files.sniff import sniff
from bridged.files.verify import verify
from tests.files.media import heard_and_seen, sound, video
from tests.files.secret_pictures import PICTURES, SECRET, seen


def box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I", 8 + len(body)) + kind + body


PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1", b"mp4a", b"dinf", b"dref", b"edts")
ENTRIES = {b"stsd": 8, b"dref": 8, b"avc1": 78, b"mp4a": 28}
"""bytes before the first box in these"""


def with_box(content: bytes, path: list[bytes], new: bytes) -> bytes:
    """A file whose description comes last, with one more box at the end of the first one found by that path."""
    at = content.rindex(path[0]) - 4
    grown, stop = [at], at + int.from_bytes(content[at : at + 4], "big")
    for kind in path[1:]:
        at = content.index(kind, at + 8, stop) - 4
        grown.append(at)
        stop = at + int.from_bytes(content[at : at + 4], "big")
    changed = bytearray(content)
    for each in grown:
        struct.pack_into(">I", changed, each, int.from_bytes(content[each : each + 4], "big") + len(new))
    return bytes(changed[:stop]) + new + bytes(changed[stop:])


def mp4_with(path: list[bytes], new: bytes) -> Callable[[], bytes]:
    return lambda: with_box(video("mp4", "libx264", "aac"), path, new)


def mp4_of_a_camera() -> bytes:
    content = video("mp4", "libx264", "aac")
    at = content.rindex(b"avc1") + 4 + 42  # the compressor's name
    content = content[:at] + b"\x1f" + SECRET[:31] + content[at + 32 :]
    at = content.index(b"VideoHandler\0")
    content = content[:at] + SECRET[:12] + content[at + 12 :]
    at = content.rindex(b"mvhd") + 8
    return content[:at] + SECRET[:8] + content[at + 8 :]


TITLE = b"TIT2" + struct.pack(">I", len(SECRET) + 1) + b"\0\0\0" + SECRET
ID3 = b"ID3\3\0\0\0\0\0" + bytes((len(TITLE),)) + TITLE


def between_frames(content: bytes, new: bytes) -> bytes:
    """In the middle of an MP3 without tags."""
    at = 0
    while at < len(content) // 2:
        at += frame_size(content[at : at + 4])
    return content[:at] + new + content[at:]


def element(kind: int, content: bytes) -> bytes:
    return kind.to_bytes((kind.bit_length() + 7) // 8, "big") + b"\x01" + len(content).to_bytes(7, "big") + content


def live_webm_with(kind: int) -> Callable[[], bytes]:
    """Behind the time of the first cluster, whose size is then not known, as browsers write it."""

    def make() -> bytes:
        content = video("webm", "libvpx", "libopus", live="1")
        at = content.index(b"\x1f\x43\xb6\x75") + 4
        width = 9 - content[at].bit_length()
        unknown = ((1 << 7 * width + 1) - 1).to_bytes(width, "big")
        time = at + width
        assert content[time] == 0xE7
        end = time + 2 + (content[time + 1] & 0x7F)
        return content[:at] + unknown + content[time:end] + element(kind, SECRET) + content[end:]

    return make


def webm_with(kind: int) -> Callable[[], bytes]:
    """At the end of the segment, in place of its tags."""

    def make() -> bytes:
        content = video("webm", "libvpx", "libopus")
        at = content.rindex(b"\x12\x54\xc3\x67")
        width = 9 - content[at + 4].bit_length()
        end = at + 4 + width + (int.from_bytes(content[at + 4 : at + 4 + width], "big") & (1 << 7 * width) - 1)
        new = element(kind, SECRET.ljust(end - at - len(element(kind, b""))))
        assert len(new) == end - at
        return content[:at] + new + content[end:]

    return make


def mkv_of_a_camera() -> bytes:
    content = video("matroska", "libx264", "aac")
    at = content.index(b"\x57\x41") + 3
    size = content[at - 1] & 0x7F
    return content[:at] + SECRET[:size] + content[at + size :]


MEDIA: dict[str, tuple[str, Callable[[], bytes]]] = {
    "mp4 of a dashcam": ("video/mp4", mp4_with([b"moov"], box(b"gps ", SECRET))),
    "mp4, unknown box in a track": ("video/mp4", mp4_with([b"moov", b"trak"], box(b"xyzw", SECRET))),
    "mp4, unknown box in its samples": (
        "video/mp4",
        mp4_with([b"moov", b"trak", b"mdia", b"minf", b"stbl"], box(b"CAME", SECRET)),
    ),
    "mp4, user data in a codec's entry": (
        "video/mp4",
        mp4_with([b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"], box(b"udta", SECRET)),
    ),
    "mp4, a group of no known kind": (
        "video/mp4",
        mp4_with([b"moov", b"trak", b"mdia", b"minf", b"stbl"], box(b"sbgp", bytes(4), SECRET)),
    ),
    "mp4, more in a table than it says": (
        "video/mp4",
        mp4_with([b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts"], SECRET),
    ),
    "mp4, more in a header than it has": ("video/mp4", mp4_with([b"moov", b"mvhd"], SECRET)),
    "mp4, the path it once had": (
        "video/mp4",
        mp4_with([b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref", b"url "], SECRET),
    ),
    "mp4, unknown box around all": ("video/mp4", lambda: video("mp4", "libx264") + box(b"xyzw", SECRET)),
    "mp4 of a camera": ("video/mp4", mp4_of_a_camera),
    "webm, unknown in a cluster": ("video/webm", live_webm_with(0x4DAA)),
    "webm, old encryption in a cluster": ("video/webm", live_webm_with(0xAF)),
    "webm, checksum of a segment": ("video/webm", webm_with(0xBF)),
    "webm, unknown in a segment": ("video/webm", webm_with(0x1A5A5A5A)),
    "mkv of a camera": ("video/x-matroska", mkv_of_a_camera),
}


@pytest.mark.parametrize("what", MEDIA)
def test_sound_and_video_lose_what_hides_in_them(what: str, tmp_path: Path) -> None:
    kind, make = MEDIA[what]
    content = make()
    assert SECRET[:8] in content
    left = strip_bytes(content, kind)
    assert SECRET[:8] not in left
    assert heard_and_seen(left) == heard_and_seen(content)
    path = tmp_path / "stored.part"
    path.write_bytes(left)
    if kind in DEFAULT_TYPES:
        assert verify(path, "a" + DEFAULT_TYPES[kind][0], Files()) == kind


@pytest.mark.parametrize("hidden", [ID3, SECRET, ID3 * 3, b"\xff\xfb\x54" + SECRET, bytes(99) + ID3 + bytes(9)])
def test_an_mp3_loses_what_is_between_its_frames_and_keeps_each_of_them(hidden: bytes) -> None:
    plain = strip_bytes(sound("mp3", "libmp3lame"), "audio/mpeg")
    content = between_frames(plain, hidden)
    assert verify(content, "a.mp3", Files()) == "audio/mpeg"
    left = strip_bytes(content, "audio/mpeg")
    assert left == plain
    assert verify(left, "a.mp3", Files()) == "audio/mpeg"


def test_an_mp3_with_too_much_between_its_frames_is_refused() -> None:
    plain = strip_bytes(sound("mp3", "libmp3lame"), "audio/mpeg")
    with pytest.raises(FileRefused, match="too much of it is no sound"):
        strip_bytes(between_frames(plain, SECRET * 9999), "audio/mpeg")


def test_what_may_be_needed_to_decode_a_video_is_not_blanked() -> None:
    path = [b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"]
    with pytest.raises(FileRefused, match="part of its codec's settings"):
        strip_bytes(mp4_with(path, box(b"xyzw", SECRET))(), "video/mp4")


def test_a_video_whose_samples_would_go_with_the_box_that_they_are_in_is_refused() -> None:
    content = video("mp4", "libx264")
    with pytest.raises(FileRefused, match="samples are not where they should be"):
        strip_bytes(content.replace(b"mdat", b"uuid", 1), "video/mp4")


def test_no_program_is_named_in_what_remains() -> None:
    for form, codec, kind in (("mp4", "libx264", "video/mp4"), ("webm", "libvpx", "video/webm")):
        with av.open(io.BytesIO(strip_bytes(video(form, codec), kind))) as container:
            assert not {key for key, value in container.metadata.items() if value.strip() and "brand" not in key} - {
                "minor_version"
            }


def gif_with(where: str) -> bytes:
    content = PICTURES["gif, animated"]
    extra = bytes((len(SECRET),)) + SECRET
    at = content.index(b"!\xff\x0bNETSCAPE2.0") + 18 if where == "rounds" else content.index(b"!\xf9\x04") + 7
    assert content[at] == 0
    return content[:at] + extra + content[at:]


def riff(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def webp_with(what: str, at: Callable[[bytes], int], new: bytes) -> bytes:
    content = PICTURES[what]
    place = at(content)
    content = content[:place] + new + content[place:]
    return content[:4] + struct.pack("<I", len(content) - 8) + content[8:]


def bmp_with(mode: str, before: bytes, behind: bytes = b"") -> bytes:
    content = PICTURES[f"bmp {mode}"]
    (start,) = struct.unpack_from("<I", content, 10)
    head = content[:2] + struct.pack("<IHHI", len(content) + len(before) + len(behind), 0, 0, start + len(before))
    return head + content[14:start] + before + content[start:] + behind


def first_pixels(content: bytes) -> int:
    return min(at for at in (content.find(b"VP8 "), content.find(b"VP8L")) if at > 0)


HIDING = {  # the name of the picture is what it is made of
    "gif, animated: behind the rounds": gif_with("rounds"),
    "gif, animated: behind a frame's time": gif_with("time"),
    "webp, lossless: alpha": webp_with("webp, lossless", first_pixels, riff(b"ALPH", SECRET)),
    "webp, lossless: unknown": webp_with("webp, lossless", first_pixels, riff(b"abcd", SECRET)),
    "webp, lossy: animation": webp_with("webp, lossy", first_pixels, riff(b"ANIM", bytes(6) + SECRET)),
    "webp, animated: alpha": webp_with("webp, animated", lambda c: c.index(b"ANMF"), riff(b"ALPH", SECRET)),
    "webp, lossy, alpha: behind the pixels": webp_with("webp, lossy, alpha", len, riff(b"ALPH", SECRET)),
    **{f"bmp {mode}: before the pixels": bmp_with(mode, SECRET) for mode in ("1", "L", "P", "RGB")},
}


@pytest.mark.parametrize("what", HIDING)
def test_pictures_lose_what_hides_in_them(what: str) -> None:
    content = HIDING[what]
    kind = sniff(content)
    assert SECRET in content
    left = strip_bytes(content, kind)
    assert SECRET not in left
    assert seen(left) == seen(PICTURES[what.partition(":")[0]])
    assert verify(left, "a" + DEFAULT_TYPES[kind][0], Files()) == kind


def test_what_is_behind_the_pixels_of_a_bmp_goes_and_its_profile_stays() -> None:
    plain = PICTURES["bmp RGB"]
    left = strip_bytes(bmp_with("RGB", b"", SECRET), "image/bmp")
    assert left == plain
    pixels = plain[54:]
    head = struct.pack("<2sIII", b"BM", 138 + len(pixels) + 2 + len(SECRET), 0, 138)
    five = bytearray(struct.pack("<I", 124) + plain[18:54]).ljust(124, b"\0")
    five[56:60] = b"DEBM"
    struct.pack_into("<II", five, 112, 124 + len(pixels) + 2, 8)
    content = head + five + pixels + b"no" + b"aprofile" + SECRET
    left = strip_bytes(content, "image/bmp")
    assert left[6:] == content[6 : -len(SECRET)].replace(b"noaprofile", b"\0\0aprofile")
    with Image.open(io.BytesIO(left)) as image:
        assert seen(left)[0][5] == image.tobytes() == seen(plain)[0][5]


def test_a_bmp_whose_profile_is_a_path_is_refused() -> None:
    head = struct.pack("<2sIII", b"BM", 138 + 4, 0, 138)
    five = bytearray(struct.pack("<IiiHH", 124, 1, 1, 1, 32)).ljust(124, b"\0")
    five[56:60] = b"KNIL"
    with pytest.raises(FileRefused, match="profile is in another file"):
        strip_bytes(head + five + bytes(4), "image/bmp")


def test_an_unneeded_size_in_a_webps_header_goes() -> None:
    content = PICTURES["webp, lossless"]
    assert content[12:16] == b"VP8X"
    extra = SECRET + b"\0" * (len(SECRET) % 2)
    changed = content[:16] + struct.pack("<I", 10 + len(extra)) + content[20:30] + extra + content[30:]
    changed = changed[:4] + struct.pack("<I", len(changed) - 8) + changed[8:]
    assert strip_bytes(changed, "image/webp") == strip_bytes(content, "image/webp")
