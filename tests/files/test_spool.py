"""What gets onto the disk, and that nothing else stays there."""

from __future__ import annotations

import errno
import hashlib
import os
import wave
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest
import trio

from bridged.config.schema import Files
from bridged.errors import FileRefused, OutOfSpace, TooLarge
from bridged.files.sniff import sniff, type_of_extension
from bridged.files.spool import BLOCK, RECENT, SMALL, Spool, stored_from_disk
from bridged.files.verify import verify
from bridged.model import StoredFile
from tests.files.pictures import FORMATS, picture

LIMIT = 10_000_000


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool")
    spool.prepare(set())
    return spool


def on_disk(spool: Spool) -> list[Path]:
    return [path for path in spool.folder.rglob("*") if path.is_file()]


async def pieces(data: bytes, size: int = 1000) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def receive(spool: Spool, name: str, data: bytes, limit: int = LIMIT, size: int = 1000) -> StoredFile:
    async with aclosing(pieces(data, size)) as chunks:
        return await spool.receive("uploads", name, chunks, limit=limit, rules=Files())


@pytest.mark.parametrize("extension", FORMATS)
async def test_a_real_picture_is_stored_as_it_came(spool: Spool, extension: str) -> None:
    data = picture(extension)
    stored = await receive(spool, f"Bild{extension.upper()}", data)
    assert stored.path.read_bytes() == data
    assert stored.path.parent == spool.folder / "uploads"
    assert (stored.size, stored.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (stored.extension, stored.content_type) == (extension, type_of_extension(extension, Files().allowed))
    assert on_disk(spool) == [stored.path]
    assert "Bild" not in stored.path.name, "names that callers choose never reach the disk"


async def test_a_large_file_in_any_pieces(spool: Spool) -> None:
    data = picture(".png", 500, noise=True)
    assert len(data) > 2 * BLOCK
    for size in (1 << 20, 100_000, 7777):
        stored = await receive(spool, "a.png", data, size=size)
        assert hashlib.sha256(stored.path.read_bytes()).hexdigest() == stored.sha256
        assert stored.size == len(data)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.jpg", picture(".png"), "the extension .jpg does not fit its content image/png; use .png"),
        ("a.gif", picture(".jpg"), "does not fit its content image/jpeg; use .jpg or .jpeg"),
        ("a", picture(".png"), r"the extension \(none\) does not fit"),
        (".png", picture(".png"), "must neither begin nor end with a dot"),
        (
            "a.png",
            b"#!/bin/sh\necho hello\n",
            "a.png: its content is text/.*, which is not allowed; allowed: image/png",
        ),
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "its content is .*, which is not allowed"),
        ("a.png", b"<html><script>1</script></html>", "its content is text/html"),
        ("a.png", b"", "a.png: the file is empty"),
        ("../a.png", picture(".png"), "must be a bare name"),
        ("a\0.png", picture(".png"), "no control"),
    ],
)
async def test_what_is_refused_leaves_nothing_on_disk(spool: Spool, name: str, data: bytes, says: str) -> None:
    with pytest.raises(FileRefused, match=says):
        await receive(spool, name, data)
    assert on_disk(spool) == []


async def test_the_limit_is_in_bytes_and_is_kept(spool: Spool) -> None:
    data = picture(".png", 500, noise=True)
    assert (await receive(spool, "a.png", data, limit=len(data))).size == len(data)
    before = on_disk(spool)
    with pytest.raises(TooLarge, match="larger than the limit of"):
        await receive(spool, "a.png", data, limit=len(data) - 1)
    assert on_disk(spool) == before


async def test_an_endless_file_is_refused_as_soon_as_it_is_too_large(spool: Spool) -> None:
    sent = 0

    async def endless() -> AsyncGenerator[bytes, None]:
        nonlocal sent
        while True:
            sent += 1
            yield b"x" * 1000

    chunks = endless()
    with pytest.raises(TooLarge):
        await spool.receive("results", "a.png", chunks, limit=10_000, rules=Files())
    await chunks.aclose()
    assert sent <= 11
    assert on_disk(spool) == []


async def test_cancelled_in_the_middle_nothing_stays(spool: Spool) -> None:
    waiting = trio.Event()

    async def stalls() -> AsyncGenerator[bytes, None]:
        yield picture(".png") + b"x" * 2 * BLOCK
        waiting.set()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            await spool.receive("uploads", "a.png", stalls(), limit=LIMIT, rules=Files())

        with trio.fail_after(5):
            await waiting.wait()
        assert len(on_disk(spool)) == 1
        nursery.cancel_scope.cancel()
    assert on_disk(spool) == []


async def test_a_source_that_breaks_leaves_nothing(spool: Spool) -> None:
    async def breaks() -> AsyncGenerator[bytes, None]:
        yield b"x" * 2 * BLOCK
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await spool.receive("uploads", "a.png", breaks(), limit=LIMIT, rules=Files())
    assert on_disk(spool) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_a_full_disk_is_said_as_such_and_leaves_nothing(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        with pytest.raises(OutOfSpace, match="disk is full"):
            await receive(spool, "a.png", picture(".png", 500, noise=True))
    monkeypatch.setattr("bridged.files.spool.open", full, raising=False)
    with pytest.raises(OutOfSpace, match="disk is full"):
        await receive(spool, "a.png", picture())
    assert on_disk(spool) == []


async def test_discarding_twice_is_no_error(spool: Spool) -> None:
    stored = await receive(spool, "a.png", picture())
    await spool.discard(stored, stored)
    await spool.discard(stored)
    await spool.discard()
    assert on_disk(spool) == []


async def test_what_an_earlier_run_left_is_removed_at_the_start(spool: Spool) -> None:
    await receive(spool, "a.png", picture())
    (spool.folder / "results" / "x.part").write_bytes(b"half")
    Spool(spool.folder).prepare(set())
    assert on_disk(spool) == []
    assert (spool.folder / "results").stat().st_mode & 0o077 == 0, "other people's pictures are nobody else's to read"


async def test_an_incoming_file_that_is_never_finished_is_gone(spool: Spool) -> None:
    async with spool.incoming("uploads") as incoming:
        await incoming.write(b"x" * 2 * BLOCK, LIMIT)
        assert len(on_disk(spool)) == 1
    assert on_disk(spool) == []


async def test_small_files_are_at_hand_for_a_while_and_in_bounded_memory(spool: Spool) -> None:
    first = await receive(spool, "a.png", picture())
    assert spool.recall(first) == picture()
    await spool.discard(first)
    assert spool.recall(first) is None
    large = await receive(spool, "a.png", picture(".png", 500, noise=True))
    assert spool.recall(large) is None
    files = [StoredFile(Path(f"/spool/{n}"), SMALL, "00", "image/png", ".png") for n in range(3 * RECENT // SMALL)]
    for file in files:
        spool.remember(file, bytes(SMALL))
    kept = [file for file in files if spool.recall(file) is not None]
    assert kept == files[-RECENT // SMALL :]
    await spool.discard(*kept)
    again = await receive(spool, "a.png", picture())
    assert spool.recall(again) == picture()


async def test_what_is_refused_is_not_remembered(spool: Spool) -> None:
    with pytest.raises(FileRefused):
        await receive(spool, "a.jpg", picture())
    assert not spool._recent


def test_a_file_of_the_operators_is_described_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "Start.PNG"
    path.write_bytes(picture())
    stored = stored_from_disk(path, "image/png")
    assert (stored.path, stored.size, stored.extension) == (path, len(picture()), ".png")


def test_verify_decides_by_content_alone(tmp_path: Path) -> None:
    path = tmp_path / "whatever.txt"
    path.write_bytes(picture(".webp"))
    assert verify(path, "a.webp", Files()) == "image/webp"
    assert verify(path.read_bytes(), "a.webp", Files()) == "image/webp"
    with pytest.raises(FileRefused, match=r"use \.webp"):
        verify(path, "a.png", Files())
    with pytest.raises(FileRefused, match="not allowed; allowed: image/png"):
        verify(path, "a.webp", Files(allowed={"image/png": [".png"]}))


def test_types_have_one_name_whatever_libmagic_calls_them(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "a"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(100))
    assert sniff(tmp_path / "a") == "audio/x-wav"
    (tmp_path / "b").write_bytes(picture(".bmp"))
    assert sniff(tmp_path / "b") == "image/bmp"


async def test_many_at_once_do_not_mix(spool: Spool) -> None:
    got: dict[int, StoredFile] = {}

    async def one(number: int) -> None:
        got[number] = await receive(spool, "a.png", picture(".png", number + 1), size=17)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(one, number)
    for number, stored in got.items():
        assert stored.path.read_bytes() == picture(".png", number + 1)
