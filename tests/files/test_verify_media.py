"""Sound and video: containers that fit into themselves, and nothing else in or behind them."""

from __future__ import annotations

import struct

import pytest

from bridged.config.schema import Files
from bridged.errors import FileRefused
from bridged.files.formats import flac as flac_walk
from bridged.files.formats import mp3 as mp3_walk
from bridged.files.formats.crc import flac_crc8, flac_crc16, ogg_crc
from bridged.files.formats.source import Source
from bridged.files.verify import verify
from tests.files import forge
from tests.files.forge import box, element

RULES = Files(
    allowed={
        **Files().allowed,
        "video/x-matroska": [".mkv"],
        "audio/mp4": [".m4a"],
        "image/avif": [".avif"],
    }
)


def refused(data: bytes, extension: str, says: str) -> None:
    with pytest.raises(FileRefused, match=f"^a{extension}: .*(?:{says})"):
        verify(data, f"a{extension}", RULES)


def accepted(data: bytes, extension: str) -> None:
    assert verify(data, f"a{extension}", RULES)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (forge.FTYP + forge.movie(), "it has no data"),
        (forge.FTYP + box(b"mdat", bytes(9)), "it has no tracks"),
        (forge.FTYP + box(b"moov", box(b"mvhd", bytes(100))) + box(b"mdat"), "it has no tracks"),
        (forge.mp4()[:-1], "cut off"),
        (forge.mp4(end=b"\0\0\0\x09"), "follows its end"),
        (forge.mp4(end=b"\0\0\0\x07free"), "follows its end"),
        (forge.mp4(end=struct.pack(">I4s", 99, b"free")), "cut off"),
        (forge.mp4(end=b"\0\0\0\x10\1\2\3\4" + bytes(8)), "follows its end"),
        (forge.FTYP + forge.movie(box(b"udta", b"\0\0\0\x50free")) + box(b"mdat"), "do not fit into each other"),
        (forge.FTYP + forge.movie(box(b"udta", b"<html>")) + box(b"mdat"), "do not fit into each other"),
        (forge.mp4(box(b"free", b"<?php evil(); ?>")), "its box free has active content"),
        (forge.mp4(box(b"uuid", b"x" * 70_000 + b"<script>1</script>")), "its box uuid has active content"),
        (forge.mp4(box(b"skip", b"x" * 9_000_000 + b"<script>1</script>")), "its box skip has active content"),
        (forge.mp4(box(b"junk", forge.APPENDED["ELF"])), "its box junk holds a program"),
        (forge.mp4(forge.tagged(b"<html><body>x")), "active content"),
        (forge.mp4(forge.tagged(forge.GRAPH.replace(b"eval(", b"<?php "))), "active content"),
        (forge.FTYP + b"".join([box(b"free")] * 200_001), "more than 200000 boxes"),
    ],
)
def test_an_mp4_that_does_not_fit_into_itself_is_refused(data: bytes, says: str) -> None:
    refused(data, ".mp4", says)


def test_mp4s_of_all_kinds() -> None:
    accepted(forge.mp4(forge.tagged(forge.GRAPH)), ".mp4")
    accepted(forge.FTYP + box(b"mdat", bytes(99)) + forge.movie(), ".mp4")
    accepted(forge.FTYP + forge.movie() + struct.pack(">I4sQ", 1, b"mdat", 80) + bytes(64), ".mp4")
    accepted(forge.FTYP + forge.movie() + box(b"mdat", b"<?php ?><script>", size=0), ".mp4")
    fragment = box(b"moof", box(b"mfhd", bytes(8)), box(b"traf", box(b"trun", bytes(8)))) + box(b"mdat", bytes(9))
    accepted(forge.FTYP + forge.movie(box(b"mvex", box(b"trex", bytes(24)))) + fragment * 50, ".mp4")
    accepted(
        forge.FTYP + forge.movie(box(b"udta", bytes(4))) + box(b"mdat"), ".mp4"
    )  # QuickTime ends a list with zeros
    old = box(b"wide") + box(b"mdat", bytes(99)) + forge.movie()
    accepted(old, ".mov")


def test_boxes_are_not_nested_without_end() -> None:
    deep = box(b"free")
    for _ in range(20):
        deep = box(b"udta", deep)
    refused(forge.FTYP + forge.movie(deep) + box(b"mdat"), ".mp4", "nested too deeply")


def still(width: int = 20, height: int = 10, *more: bytes) -> bytes:
    size = box(b"ispe", struct.pack(">III", 0, width, height))
    meta = box(b"meta", bytes(4), forge.handler(b"pict"), box(b"iprp", box(b"ipco", size)))
    return box(b"ftyp", b"avif\0\0\0\0avifmif1") + meta + b"".join(more) + box(b"mdat", bytes(30))


def test_avif_is_walked_and_its_size_is_limited() -> None:
    accepted(still(), ".avif")
    refused(still(40_000, 1), ".avif", "it is 40000 x 1 pixels")
    refused(still(0, 1), ".avif", "no valid size")
    refused(still(20, 10, box(b"free", b"<script>")), ".avif", "active content")
    refused(still() + forge.APPENDED["PHP"], ".avif", "follows its end|cut off")
    refused(still() + b"\0\0\0\x07free", ".avif", "follows its end")
    refused(box(b"ftyp", b"avif\0\0\0\0avifmif1") + box(b"mdat", bytes(30)), ".avif", "it has no picture")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (forge.webm()[:-1], "cut off"),
        (forge.webm(unknown=True)[:-1], "cut off"),
        (forge.webm(end=b"\0x"), "follows its end"),
        (forge.webm(unknown=True, end=element(0x4DBB, b"x")), "no element of a"),
        (forge.webm(unknown=True, end=forge.APPENDED["HTML"]), "no element of a|does not fit|cut off"),
        (forge.webm(element(0x1A45DFA3, b"x")), "no element of a segment"),
        (forge.webm().replace(b"\x18\x53\x80\x67", element(0xEC, b"<script>") + b"\x18\x53\x80\x67"), "unused space"),
        (forge.webm(element(0x1F43B675, element(0xEC, b"<script>"))), "unused space"),
        (forge.webm(element(0x1F43B675, element(0x4DBB, b"x"))), "no element of a cluster"),
        (forge.webm(element(0x1F43B675, bytes(9))), "no element"),
        (forge.webm(element(0x1254C367, unknown=True)), "one of its elements has no end"),
        (forge.webm(element(0x1254C367, element(0x7373, unknown=True))), "its elements are broken"),
        (forge.webm(element(0xEC, b"<?php evil(); ?>")), "unused space in it has active content"),
        (forge.webm(forge.simple_tag(b"<script>alert(1)</script>")), "its tags has active content"),
        (forge.webm(forge.simple_tag(b"\x45\xa3")[:-1]), "cut off|fit|no element|broken"),
        (forge.webm(element(0x1941A469, element(0x61A7, element(0x465C, forge.APPENDED["ELF"])))), "holds a program"),
        (forge.webm()[:40], "cut off"),
        (element(0x1A45DFA3, element(0x4282, b"webm")) + element(0x18538067, forge.cluster()), "no tracks"),
        (element(0x1A45DFA3, element(0x4282, b"webm")) + element(0xEC, b"x"), "no element|no segment"),
    ],
)
def test_a_webm_that_does_not_fit_into_itself_is_refused(data: bytes, says: str) -> None:
    refused(data, ".webm", says)


def test_elements_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridged.files.formats.matroska.MAX_ELEMENTS", 100)
    refused(forge.webm(*[element(0xEC, b"")] * 100), ".webm", "too many elements")


def test_webms_of_all_kinds() -> None:
    accepted(forge.webm(unknown=True), ".webm")  # as browsers record
    accepted(forge.webm(unknown=True, end=bytes(70_000)), ".webm")
    accepted(forge.webm(forge.simple_tag(forge.GRAPH)), ".webm")
    accepted(forge.webm(document=b"matroska"), ".mkv")
    accepted(forge.webm(element(0xEC, bytes(300)), element(0x1C53BB6B, bytes(30))), ".webm")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (forge.wav()[:-1], "cut off"),
        (forge.wav(end=b"<abc"), "markup follows its end"),
        (forge.wav(end=b"\x01\x02\x03\x04\x05"), "unknown data follows its end"),
        (forge.wav(end=b"abcd\xff\xff\xff\x7f"), "cut off"),
        (forge.riff(b"WAVE", forge.riff_chunk(b"data", bytes(99))), "its header is broken"),
        (forge.riff(b"WAVE", forge.riff_chunk(b"fmt ", bytes(13)), forge.riff_chunk(b"data", bytes(9))), "broken"),
        (forge.riff(b"WAVE", forge.wav()[12:36]), "it has no sound"),
        (forge.wav(forge.riff_chunk(b"LIST", b"INFO" + forge.riff_chunk(b"ICMT", b"<?php x ?>"))), "active content"),
        (forge.wav(forge.riff_chunk(b"LIST", b"INFO" + b"ICMT\xff\0\0\0x")), "do not fit"),
        (forge.wav(forge.riff_chunk(b"id3 ", b"<script>x</script>")), "its chunk id3 has active content"),
        (forge.wav(forge.riff_chunk(b"junk", b"x" * 9_000_000 + b"<script>")), "active content"),
    ],
)
def test_a_wav_that_does_not_fit_into_itself_is_refused(data: bytes, says: str) -> None:
    refused(data, ".wav", says)


@pytest.mark.parametrize("size", [None, 0, 0xFFFFFFFF, 0x7FFFF024])
def test_wavs_of_all_kinds(size: int | None) -> None:
    accepted(forge.wav(size=size), ".wav")
    note = forge.riff_chunk(b"LIST", b"INFO" + forge.riff_chunk(b"ICMT", forge.GRAPH))
    accepted(forge.wav(note, size=size), ".wav")


@pytest.mark.parametrize("off", [-16, -12, -1, 1, 8, 16])
def test_a_wav_may_be_off_by_its_own_header(off: int) -> None:
    accepted(forge.wav(size=len(forge.wav()) - 8 + off), ".wav")
    refused(forge.wav(size=len(forge.wav()) - 8 + off + (1 if off > 0 else -1) * 16), ".wav", "it says a wrong size")


@pytest.mark.parametrize(
    "form", [(1, 0, 8000, 16), (1, 1, 0, 16), (1, 1, 8000, 0), (3, 1, 8000, 65), (0xFFFE, 1, 8000, 0), (85, 0, 8000, 0)]
)
def test_what_a_player_divides_by_is_not_zero(form: tuple[int, int, int, int]) -> None:
    code, channels, rate, bits = form
    head = forge.riff_chunk(b"fmt ", struct.pack("<HHIIHH", code, channels, rate, 16000, 2, bits))
    refused(forge.riff(b"WAVE", head, forge.riff_chunk(b"data", bytes(9))), ".wav", "its header is broken")
    fine = forge.riff_chunk(b"fmt ", struct.pack("<HHIIHH", 85, 1, 8000, 16000, 2, 0))
    accepted(forge.riff(b"WAVE", fine, forge.riff_chunk(b"data", bytes(10))), ".wav")  # MP3 in WAV has no bits


@pytest.mark.parametrize(
    ("kind", "head", "entry"),
    [
        (b"stts", 4, 8),
        (b"ctts", 4, 8),
        (b"stsc", 4, 12),
        (b"stco", 4, 4),
        (b"co64", 4, 8),
        (b"stss", 4, 4),
        (b"stsz", 8, 4),
    ],
)
def test_tables_of_samples_have_the_entries_that_they_say(kind: bytes, head: int, entry: int) -> None:
    def table(count: int, entries: int, fixed: int = 0) -> bytes:
        start = bytes(4) + struct.pack(">I", fixed) if kind == b"stsz" else bytes(head)
        inside = box(kind, start + struct.pack(">I", count) + bytes(entry * entries))
        return forge.FTYP + forge.movie(box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", inside))))) + box(b"mdat")

    accepted(table(3, 3), ".mp4")
    refused(table(4, 3), ".mp4", "more samples than it can have")
    refused(table(0xFFFFFFFF, 3), ".mp4", "more samples than it can have")
    if kind == b"stsz":
        accepted(table(9, 0, fixed=1), ".mp4")
        refused(table(0xFFFFFFFF, 0, fixed=1), ".mp4", "more samples than it can have")


@pytest.mark.parametrize("size", [b"\0\0\0\0", b"\xff\xff\xff\xff"])
def test_a_wav_that_was_written_into_a_pipe_has_sound_up_to_its_end(size: bytes) -> None:
    data = forge.wav(sound=b"<script>" + bytes(200))
    at = data.index(b"data") + 4
    streamed = data[:at] + size + data[at + 4 :]
    accepted(streamed, ".wav")
    refused(streamed + forge.ARCHIVE, ".wav", "it is a ZIP archive, too")


def test_a_long_wav_has_its_size_elsewhere() -> None:
    sound = bytes(200)
    ds64 = forge.riff_chunk(b"ds64", struct.pack("<QQQI", 0, len(sound), 0, 0))
    form = forge.wav()[12:36]
    data = forge.riff(b"WAVE", ds64, form, b"data\xff\xff\xff\xff" + sound, kind=b"RF64", size=0xFFFFFFFF)
    assert data[:4] == b"RF64"
    from bridged.files.formats.limits import Limits
    from bridged.files.formats.riff import check_wav
    from bridged.files.formats.source import Refusal

    check_wav(Source(data), Limits.of(RULES))
    with pytest.raises(Refusal, match="markup follows its end"):
        check_wav(Source(data + b"<a"), Limits.of(RULES))


def test_checksums_are_those_of_the_specifications() -> None:
    def slow(data: bytes, polynomial: int, bits: int) -> int:
        value = 0
        for byte in data:
            value ^= byte << bits - 8
            for _ in range(8):
                value = value << 1 ^ (polynomial if value >> bits - 1 else 0)
                value &= (1 << bits) - 1
        return value

    data = bytes(range(256)) * 3
    assert ogg_crc(data) == ogg_crc(data[:7], b"", data[7:]) == slow(data, 0x04C11DB7, 32)
    assert flac_crc8(data) == slow(data, 0x07, 8)
    assert flac_crc16(data) == slow(data, 0x8005, 16)
    assert ogg_crc(b"123456789") == 0x89A1897F, "CRC-32 without its inversions (checked with libogg's table)"
    assert flac_crc8(b"123456789") == 0xF4
    assert flac_crc16(b"123456789") == 0xFEE8


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (forge.flac(frames=b""), "it has no sound"),
        (forge.flac(frames=forge.flac_frame()[:-1]), "its last frame is broken"),
        (forge.flac(end=b"\x01"), "its last frame is broken, or something follows it"),
        (forge.flac(end=forge.APPENDED["HTML"]), "something follows it"),
        (forge.flac(frames=b"x" + forge.flac_frame()), "it has no sound"),
        (forge.flac(frames=forge.flac_frame(0)[:6] + b"\0" + forge.flac_frame(0)[7:]), "it has no sound"),
        (forge.flac(forge.flac_block(0, forge.STREAMINFO)), "its metadata are broken"),
        (forge.flac(forge.flac_block(127, b"")), "its metadata are broken"),
        (forge.flac(b"\1\xff\xff\xff"), "its metadata are broken"),
        (b"fLaC" + forge.flac_block(4, forge.comments()) + forge.flac_frame(), "its metadata are broken"),
        (forge.flac().replace(forge.STREAMINFO[10:13], bytes(2) + b"\0"), "its header is broken"),
        (b"fLaC" + forge.flac_block(0, b"x" * 33, last=True) + forge.flac_frame(), "its header is broken"),
        (forge.flac(forge.flac_block(4, forge.comments(b"COMMENT=<?php x ?>"))), "'COMMENT' has active content"),
        (forge.flac(forge.flac_block(4, forge.comments(b"a=b")[:-1])), "its comments are broken"),
        (forge.flac(forge.flac_block(4, forge.comments(b"a=b") + b"<script>")), "its comments has active content"),
        (forge.flac(forge.flac_block(6, b"\0<script>x</script>")), "its picture has active content"),
        (forge.flac(forge.flac_block(2, b"\0<script>x</script>")), "its metadata has active content"),
        (forge.flac(forge.flac_block(1, b"<script>x</script>")), "its metadata has active content"),
    ],
)
def test_a_flac_that_does_not_fit_into_itself_is_refused(data: bytes, says: str) -> None:
    refused(data, ".flac", says)


def test_flacs_of_all_kinds() -> None:
    accepted(forge.flac(forge.flac_block(4, forge.comments(b"prompt=" + forge.GRAPH))), ".flac")
    accepted(forge.flac(end=bytes(1000)), ".flac")
    accepted(forge.flac(end=b"TAG" + bytes(125)), ".flac")
    accepted(forge.flac(frames=b"".join(forge.flac_frame(n % 128) for n in range(40_000))), ".flac")
    accepted(forge.flac(frames=forge.flac_frame(sound=b"<?php <script>..".ljust(32))), ".flac")


@pytest.mark.parametrize("zeros", [0, 1, 2])
def test_a_last_flac_frame_may_end_in_zeros(zeros: int) -> None:
    for value in range(300_000):
        frame = forge.flac_frame(sound=value.to_bytes(4, "big") + b"\1" * 28)
        if len(frame.rstrip(b"\0")) == len(frame) - zeros:
            accepted(forge.flac(frames=frame), ".flac")
            accepted(forge.flac(frames=frame + bytes(500)), ".flac")
            return
    raise AssertionError("no such frame")


@pytest.mark.parametrize(
    "head", [b"\xff\xf8\x00\x08\0\x0f", b"\xff\xf8\x6f\x08\0\x0f", b"\xff\xf8\x60\xb8\0\x0f", b"\xff\xfb\x60\x08\0\x0f"]
)
def test_what_is_no_header_of_a_flac_frame(head: bytes) -> None:
    assert flac_walk.header_size(head + bytes([flac_crc8(head)]) + bytes(9)) == 0


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (forge.mp3(end=b"\x01\x02\x03\x04"), "unknown data follows its end"),
        (forge.mp3(end=bytes(100) + b"\1"), "unknown data follows its end|is no sound"),
        (forge.mp3((b"COMM", b"\0eng\0<?php evil(); ?>")), "its ID3 frame COMM has active content"),
        (forge.mp3((b"TXXX", b"\1\xff\xfe" + "<script>x</script>".encode("utf-16-le"))), "active content"),
        (forge.mp3((b"APIC", b"\0image/png\0\3\0" + forge.APPENDED["ELF"])), "its ID3 picture holds a program"),
        (forge.mp3((b"GEOB", b"\0\0\0\0" + forge.ARCHIVE[:-22] + bytes(70_000))), "holds a ZIP archive"),
        (forge.mp3(end=b"TAG<?php evil(); ?>".ljust(128)), "its tag has active content"),
        (forge.MP3_FRAME * 4 + b"<html><script>x</script>" + forge.MP3_FRAME * 8, "data between its frames"),
        (forge.MP3_FRAME * 4 + b"\1" * 70_000 + forge.MP3_FRAME * 8, "follows its end"),
        ((forge.MP3_FRAME * 4 + b"\1" * 40_000) * 3 + forge.MP3_FRAME * 8, "too much of it is no sound"),
        (forge.mp3((b"TIT2", b"\0x"), (b"\0\0\0\0", b"<script>x</script>")), "its ID3 tag has active content"),
        (forge.mp3((b"TIT2", b"\0x"), (b"T-2!", b"<script>x</script>")), "its ID3 tag has active content"),
        (forge.mp3((b"TIT2", b"\0x"))[:30], "cut off|no sound|not allowed"),
    ],
)
def test_an_mp3_that_is_something_else_too_is_refused(data: bytes, says: str) -> None:
    refused(data, ".mp3", says)


def ape() -> bytes:
    item = struct.pack("<II", 1, 0) + b"Title\0x"
    size = len(item) + 32
    head = struct.pack("<8sIII", b"APETAGEX", 2000, size, 1)
    return head + struct.pack("<I", 0xA0000000) + bytes(8) + item + head + struct.pack("<I", 0x80000000) + bytes(8)


def test_mp3s_of_all_kinds() -> None:
    accepted(forge.mp3((b"TIT2", b"\0Title"), (b"TXXX", b"\0prompt\0" + forge.GRAPH)), ".mp3")
    accepted(forge.mp3(end=b"TAG" + bytes(125)), ".mp3")
    accepted(forge.mp3(end=ape() + b"TAG" + bytes(125)), ".mp3")
    accepted(forge.mp3(end=ape()[32:]), ".mp3")
    accepted(forge.mp3()[:-100], ".mp3")  # recordings are cut off
    accepted(forge.MP3_FRAME * 4 + b"\1" * 3000 + forge.MP3_FRAME * 8, ".mp3")  # a stream was joined to another
    accepted(forge.mp3((b"TIT2", b"\0x")) + forge.mp3((b"TIT2", b"\0y")), ".mp3")
    accepted(forge.id3((b"TIT2", b"\0x")) + bytes(2000) + forge.mp3(), ".mp3")
    accepted(b"\xff\xfb\x90\x64" + b"<?php <script>".ljust(413) + forge.mp3(), ".mp3")


@pytest.mark.parametrize(
    ("head", "size"),
    [
        (b"\xff\xfb\x90\x64", 417),  # 128 kbit/s, 44.1 kHz
        (b"\xff\xfb\x92\x64", 418),  # padded
        (b"\xff\xfb\x94\x64", 384),  # 48 kHz
        (b"\xff\xf3\x80\x64", 208),  # MPEG 2, 64 kbit/s, 22.05 kHz
        (b"\xff\xe3\x80\x64", 417),  # MPEG 2.5, 64 kbit/s, 11.025 kHz
        (b"\xff\xfd\x80\x64", 417),  # layer II, 128 kbit/s
        (b"\xff\xff\x80\x64", 278 * 4 // 4 + 0),  # layer I, 256 kbit/s
        (b"\xff\xfb\x00\x64", 0),  # free format
        (b"\xff\xfb\xf0\x64", 0),
        (b"\xff\xfb\x9c\x64", 0),
        (b"\xff\xeb\x90\x64", 0),  # no such version
        (b"\xff\xf9\x90\x64", 0),  # no such layer
        (b"\xfe\xfb\x90\x64", 0),
        (b"\xff\xfb\x90", 0),
    ],
)
def test_sizes_of_mpeg_frames(head: bytes, size: int) -> None:
    if head[1] == 0xFF:
        size = (12 * 256_000 // 44_100) * 4
    assert mp3_walk.frame_size(head) == size


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (forge.ogg()[:-1], "cut off"),
        (forge.ogg(end=b"OggS"), "unknown data|text follows its end"),
        (forge.ogg(end=b"x" + forge.page(7, 9, b"y")), "follows its end"),
        (forge.ogg(end=forge.page(7, 9, b"y", checksum=1)), "a page of it is broken"),
        (forge.ogg(end=forge.page(8, 0, b"y")), "belongs to no stream"),
        (forge.ogg(end=forge.page(8, 0, b"<html>", 2)), "a stream of an unknown kind"),
        (forge.ogg(b"COMMENT=<script>x</script>"), "its comment 'COMMENT' has active content"),
        (forge.ogg(b"COMMENT=" + b"x" * 200_000 + b"<script>x</script>"), "active content"),
        (forge.page(7, 0, forge.OPUS_HEAD, 2), "it has no sound"),
        (
            forge.page(7, 0, forge.OPUS_HEAD, 2) + forge.page(7, 1, b"OpusTags\xff\xff\xff\0") + forge.page(7, 2, b"x"),
            "comments are broken|active",
        ),
        (forge.ogg(end=b"".join(forge.page(n, 0, forge.OPUS_HEAD, 2) for n in range(8, 80))), "more than 64 streams"),
    ],
)
def test_an_ogg_that_does_not_fit_into_itself_is_refused(data: bytes, says: str) -> None:
    refused(data, ".ogg", says)


def test_oggs_of_all_kinds() -> None:
    accepted(forge.ogg(b"prompt=" + forge.GRAPH), ".ogg")
    accepted(forge.ogg(b"prompt=" + forge.GRAPH[:-1] + b', "pad": "' + b"x" * 200_000 + b'"}'), ".ogg")
    accepted(forge.ogg(end=forge.ogg().replace(b"\7\0\0\0", b"\7\0\0\0")), ".ogg")  # one stream behind another
    pages = forge.ogg()[: -len(forge.page(7, 3, bytes(50), 4))] + forge.page(7, 3, b"<script><?php x".ljust(50), 4)
    accepted(pages, ".ogg")


def test_comments_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridged.files.formats.ogg.MAX_TEXT", 60_000)
    refused(forge.ogg(b"a=" + b"x" * 400_000), ".ogg", "its comments are too large")


def test_every_page_counts() -> None:
    data = forge.ogg()
    for at in range(0, len(data), 7):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(FileRefused):
            verify(changed, "a.ogg", RULES)
