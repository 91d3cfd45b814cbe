"""The gate as a whole: types, declared types, what stands behind a file, costs."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from bridged.config.schema import DEFAULT_TYPES, Files
from bridged.errors import FileRefused
from bridged.files import verify as gate
from bridged.files.formats.limits import Limits
from bridged.files.formats.source import BLOCK, Refusal, Source, opened
from bridged.files.spool import Spool
from bridged.files.verify import is_cheap, verify
from tests.files import forge

RULES = Files()


@pytest.mark.parametrize("extension", forge.MADE)
def test_a_sound_file_passes_from_memory_and_from_disk(tmp_path: Path, extension: str) -> None:
    data = forge.MADE[extension]()
    path = tmp_path / "spooled"
    path.write_bytes(data)
    kind = verify(data, f"a{extension}", RULES)
    assert extension in DEFAULT_TYPES[kind]
    assert verify(path, f"a{extension}", RULES) == kind


@pytest.mark.parametrize("extension", forge.MADE)
@pytest.mark.parametrize("what", forge.APPENDED)
def test_nothing_harmful_follows_a_file(tmp_path: Path, extension: str, what: str) -> None:
    path = tmp_path / "spooled"
    path.write_bytes(forge.MADE[extension]() + forge.APPENDED[what])
    with pytest.raises(FileRefused, match=f"^a{extension}: ") as refused:
        verify(path, f"a{extension}", RULES)
    assert str(tmp_path) not in str(refused.value)
    assert extension in DEFAULT_TYPES[refused.value.kind]


@pytest.mark.parametrize("extension", forge.MADE)
def test_zeros_may_follow_a_file(extension: str) -> None:
    assert verify(forge.MADE[extension]() + bytes(70_001), f"a{extension}", RULES)


@pytest.mark.parametrize("extension", [each for each in forge.MADE if each != ".mp3"])  # which has no end
def test_a_file_that_is_cut_off_is_refused(extension: str) -> None:
    data = forge.MADE[extension]()
    with pytest.raises(FileRefused):
        verify(data[: len(data) * 2 // 3], f"a{extension}", RULES)


@pytest.mark.parametrize("extension", forge.MADE)
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_damaged_file_passes_or_is_refused_and_nothing_else(extension: str, data: st.DataObject) -> None:
    content = bytearray(forge.MADE[extension]())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["change", "remove", "insert", "cut", "huge"])):
            case "change":
                content[at] = data.draw(st.integers(0, 255))
            case "remove":
                del content[at : at + data.draw(st.integers(1, 9))]
            case "insert":
                content[at:at] = data.draw(st.binary(max_size=9))
            case "cut":
                del content[at + 1 :]
            case "huge":
                content[at : at + 4] = b"\xff\xff\xff\xff"
        if not content:
            return
    whole = bytes(content)
    is_cheap(whole)
    with suppress(FileRefused):
        verify(whole, f"a{extension}", RULES)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(sorted(gate._WALKS)))
def test_no_walk_says_anything_but_refused_of_any_bytes(tail: bytes, kind: str) -> None:
    heads = (
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8",
        b"GIF89a",
        b"RIFF",
        b"BM",
        b"II*\0",
        b"MM\0*",
        b"fLaC",
        b"OggS",
        b"ID3",
    )
    for head in heads:
        with suppress(Refusal):
            gate._WALKS[kind](Source(head + tail), Limits(10**6, 1000, 10))


@pytest.mark.parametrize(
    ("declared", "extension"),
    [
        ("image/png", ".png"),
        ("IMAGE/PNG; name=a.png", ".png"),
        ("image/x-png", ".png"),
        ("image/apng", ".png"),
        ("image/*", ".png"),
        ("*/*", ".png"),
        ("application/octet-stream", ".png"),
        (" ", ".png"),
        ("image/jpg", ".jpg"),
        ("image/pjpeg", ".jpg"),
        ("image/x-ms-bmp", ".bmp"),
        ("image/tif", ".tif"),
        ("audio/wav", ".wav"),
        ("audio/vnd.wave", ".wav"),
        ("audio/mp3", ".mp3"),
        ("audio/x-flac", ".flac"),
        ("application/ogg", ".ogg"),
        ("video/ogg", ".ogg"),
        ("audio/opus", ".ogg"),
        ("audio/webm", ".webm"),
        ("video/x-m4v", ".mp4"),
    ],
)
def test_a_declared_type_may_go_by_any_of_its_names(declared: str, extension: str) -> None:
    assert verify(forge.MADE[extension](), f"a{extension}", RULES, declared)


@pytest.mark.parametrize(
    "declared", ["image/jpeg", "text/html", "text/plain", "audio/*", "png", "multipart/form-data", "x" * 10_000]
)
def test_a_declared_type_must_agree(declared: str) -> None:
    with pytest.raises(FileRefused, match=r"^a\.png: it is declared as '.*', but its content is image/png$") as refused:
        verify(forge.png(), "a.png", RULES, declared)
    assert refused.value.kind == "image/png"
    assert len(str(refused.value)) < 300


def allowing(**types: list[str]) -> Files:
    return Files(allowed={kind.replace("__", "/").replace("_", "-"): extensions for kind, extensions in types.items()})


def test_the_operators_names_of_types_are_understood() -> None:
    assert verify(forge.wav(), "a.wav", allowing(audio__wav=[".wav"])) == "audio/x-wav"
    assert verify(forge.ogg(), "a.opus", allowing(audio__ogg=[".ogg"], audio__opus=[".opus"])) == "audio/ogg"
    with pytest.raises(FileRefused, match=r"use \.ogg or \.opus"):
        verify(forge.ogg(), "a.png", allowing(audio__ogg=[".ogg"], audio__opus=[".opus"]))


def test_sound_alone_in_an_mp4_is_audio_where_that_is_allowed() -> None:
    both = allowing(video__mp4=[".mp4"], audio__x_m4a=[".m4a"])
    assert verify(forge.mp4(kind=b"soun"), "a.m4a", both) == "audio/mp4"
    assert verify(forge.mp4(kind=b"soun"), "a.mp4", both) == "video/mp4"
    with pytest.raises(FileRefused, match=r"use \.mp4"):
        verify(forge.mp4(kind=b"vide"), "a.m4a", both)


def test_mp3_that_libmagic_does_not_know_is_known_by_its_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "sniff", lambda _: "application/octet-stream")
    assert verify(forge.mp3(), "a.mp3", RULES) == "audio/mpeg"
    with pytest.raises(FileRefused, match="its content is application/octet-stream"):
        verify(forge.mp3()[:400], "a.mp3", RULES)
    with pytest.raises(FileRefused, match="its content is application/octet-stream"):
        verify(forge.mp3(), "a.png", RULES)


@pytest.mark.parametrize(
    ("head", "says"),
    [(b"%PDF-1.4 ", "PDF"), (b"<html>", "its beginning"), (b"\n<?xml version='1.0'?>", "its beginning")],
)
def test_types_without_a_walk_are_still_looked_at(monkeypatch: pytest.MonkeyPatch, head: bytes, says: str) -> None:
    monkeypatch.setattr(gate, "sniff", lambda _: "image/x-odd")
    rules = allowing(image__x_odd=[".odd"])
    assert verify(b"ODD" + bytes(100), "a.odd", rules) == "image/x-odd"
    with pytest.raises(FileRefused, match=says):
        verify(b"ODD" + head + bytes(100), "a.odd", rules)
    with pytest.raises(FileRefused, match="ZIP"):
        verify(b"ODD" + forge.ARCHIVE, "a.odd", rules)


def test_an_archive_counts_by_its_directory_and_not_by_four_bytes() -> None:
    pixels = b"\0PK\x05\x06" + bytes(range(40))
    stored = zlib.compressobj(0)
    packed = stored.compress(b"\0" + pixels) + stored.flush()
    plain = forge.png(forge.header(len(pixels), 1, 8, 0), forge.chunk(b"IDAT", packed))
    assert b"PK\x05\x06" in plain
    assert verify(plain, "a.png", RULES)
    for record in (
        forge.END_OF_ZIP,  # its directory lies before it
        forge.END_OF_ZIP + b"comment" * 9000,
        b"PK\x06\x07" + bytes(16) + b"PK\x05\x06" + b"\xff" * 18,  # a large archive
    ):
        hidden = forge.png(after=[forge.chunk(b"prVt", forge.DIRECTORY + record)])
        with pytest.raises(FileRefused, match="it is a ZIP archive, too"):
            verify(hidden, "a.png", RULES)
    far = forge.png(after=[forge.chunk(b"prVt", forge.DIRECTORY + forge.END_OF_ZIP + bytes(66_000))])
    assert verify(far, "a.png", RULES), "no reader of archives looks that far"


@pytest.mark.parametrize(
    ("content", "cheap"),
    [
        (forge.png(), True),
        (forge.png(before=[forge.text(forge.GRAPH, b"prompt")]), True),
        (forge.png(before=[forge.ztext(b"x")]), False),
        (forge.png(before=[forge.itext(b"x")]), False),
        (forge.apng(), False),
        (forge.png(forge.header(256, 256)), True),
        (forge.png(forge.header(257, 256)), False),
        (forge.png(forge.header(256, 257)), False),
        (forge.jpeg(size=(256, 256)), True),
        (forge.jpeg(size=(257, 1)), False),
        (forge.jpeg(size=(1, 257)), False),
        (forge.jpeg(size=(8, 8), progressive=True), False),
        (forge.gif(), True),
        (forge.gif(frames=3), False),
        (forge.gif(width=257), False),
        (forge.saved("WEBP", size=(96, 96)), True),
        (forge.saved("WEBP", size=(97, 96)), False),
        (forge.saved("WEBP", size=(96, 96), lossless=True), True),
        (forge.saved("WEBP", size=(96, 97), lossless=True), False),
        (forge.webp(), False),
        (forge.saved("BMP"), True),
        (forge.saved("BMP", size=(1, 257)), False),
        (forge.saved("TIFF"), False),
        (forge.mp4(), False),
        (forge.wav(), False),
        (b"", False),
        (b"hello", False),
        (b"\xff\xd8\xff", False),
        (b"\x89PNG\r\n\x1a\n", False),
    ],
)
def test_what_is_cheap_enough_for_the_event_loop(content: bytes, cheap: bool) -> None:
    assert is_cheap(content) is cheap


async def test_what_is_not_cheap_is_checked_in_threads_two_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path)
    spool.prepare(set())
    most = 0

    def counting(*args: object) -> str:
        nonlocal most
        most = max(most, int(spool.deep.borrowed_tokens))
        return "image/png"

    monkeypatch.setattr("bridged.files.spool.verify", counting)

    async def one(content: bytes) -> None:
        async with spool.incoming("uploads") as incoming:
            await incoming.write(content, 10**6)
            await incoming.finish("a.png", RULES)

    await one(forge.png())
    assert most == 0, "a small picture is checked on the event loop"
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(one, forge.png(forge.header(300, 300)))
    assert most == 2
    assert spool.deep.borrowed_tokens == 0


def test_a_source_is_the_same_in_memory_and_on_disk(tmp_path: Path) -> None:
    data = os.urandom(3 * BLOCK + 17)
    path = tmp_path / "x"
    path.write_bytes(data)
    places = [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 5, 7, len(data) - 3, len(data), len(data) + 9]
    with opened(path) as file, opened(data) as memory:
        assert file.size == memory.size == len(data)
        for at in places:
            for size in (0, 1, 8, BLOCK // 2, BLOCK // 2 + 1, BLOCK + 1, len(data)):
                assert file.read(at, size) == memory.read(at, size) == data[at : at + size]
        assert file.read(-1, 1) == memory.read(-1, 1) == file.read(-5, 100) == memory.read(-5, 100) == b""
        for source in (file.part(100, 2 * BLOCK), memory.part(100, 2 * BLOCK)):
            assert source.size == 2 * BLOCK
            assert source.read(2 * BLOCK - 4, 100) == data[2 * BLOCK + 96 : 2 * BLOCK + 100]
            assert b"".join(source.blocks(3, source.size)) == data[103 : 2 * BLOCK + 100]
            with pytest.raises(Refusal, match="cut off"):
                source.exact(source.size - 1, 2)


def test_a_large_picture_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "large"
    side = 5900
    row = b"\0" + os.urandom(3 * side)
    packer = zlib.compressobj(0)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + forge.header(side, side))
        for _ in range(side):
            file.write(forge.chunk(b"IDAT", packed) if (packed := packer.compress(row)) else b"")
        file.write(forge.chunk(b"IDAT", packer.flush()) + forge.chunk(b"IEND"))
    assert path.stat().st_size > 100_000_000
    child = """
import sys
from pathlib import Path
from bridged.config.schema import Files
from bridged.files.verify import verify
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
verify(Path(sys.argv[2]), "a.png", Files())
before = peak()
verify(Path(sys.argv[1]), "a.png", Files())
print(peak() - before)
"""
    small = tmp_path / "small"
    small.write_bytes(forge.png())
    done = subprocess.run(
        [sys.executable, "-c", child, path, small], capture_output=True, text=True, timeout=60, check=True
    )
    assert int(done.stdout) < 10_000, "kB"
