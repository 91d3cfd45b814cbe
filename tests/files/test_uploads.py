"""Request bodies with files: all of them are stored, or none is."""

from __future__ import annotations

import struct
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridged.api.uploads import MAX_PART_HEADER, MAX_PARTS, ReceivedFile, receive_files
from bridged.config.schema import Files
from bridged.errors import BadRequest, BridgedError, FileRefused, TooLarge
from bridged.files.spool import BLOCK, Spool
from tests.files.pictures import picture

PNG = picture(".png")
BOUNDARY = "------------------------d74496d66958873e"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool")
    spool.prepare(set())
    return spool


def on_disk(spool: Spool) -> list[Path]:
    return [path for path in spool.folder.rglob("*") if path.is_file()]


def part(name: str, filename: str | None, data: bytes = PNG, more: str = "", declared: str = "image/png") -> bytes:
    file = "" if filename is None else f'; filename="{filename}"'
    kind = f"Content-Type: {declared}\r\n" if declared else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}{more}\r\n{kind}\r\n'
    return head.encode() + data + b"\r\n"


def ending_with(data: bytes) -> bytes:
    """A BMP whose last pixels are these bytes: the one kind of picture that may end with any."""
    pixels = bytes(-len(data) % 4) + data
    height = len(pixels) // 4
    return struct.pack("<2sIIIIiiHHIIiiII", b"BM", 54 + len(pixels), 0, 54, 40, 1, height, 1, 32, *[0] * 6) + pixels


def body(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


async def pieces(data: bytes, size: int) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def receive(
    spool: Spool, data: bytes, *, content_type: str = CONTENT_TYPE, size: int = 1 << 20, limit: int = 10_000_000
) -> list[ReceivedFile]:
    with trio.fail_after(10):
        return await receive_files(content_type, pieces(data, size), spool, limit=limit, rules=Files())


@pytest.mark.parametrize("size", [1 << 20, 1000, 37])
async def test_every_part_becomes_a_file(spool: Spool, size: int) -> None:
    large = picture(".png", 200, noise=True)
    data = body(part("photo", "a.png"), part("mask", "b.png", large), part("10/image", "그림.png"))
    received = await receive(spool, data, size=size)
    assert [(file.identifier, file.name) for file in received] == [
        ("photo", "a.png"),
        ("mask", "b.png"),
        ("10/image", "그림.png"),
    ]
    assert [file.file.path.read_bytes() for file in received] == [PNG, large, PNG]
    assert sorted(on_disk(spool)) == sorted(file.file.path for file in received)


WHOLE = body(part("a", "a.png"))


@pytest.mark.parametrize("split", range(1, len(WHOLE)))
async def test_a_body_may_be_cut_anywhere(spool: Spool, split: int) -> None:
    data = WHOLE

    async def two() -> AsyncGenerator[bytes, None]:
        yield data[:split]
        yield data[split:]

    (file,) = await receive_files(CONTENT_TYPE, two(), spool, limit=10_000, rules=Files())
    assert file.file.path.read_bytes() == PNG


@pytest.mark.parametrize("boundary", ["x", "x-", "x--", "-", "--------", "-" * 60])
async def test_boundaries_of_dashes_and_contents_of_dashes(spool: Spool, boundary: str) -> None:
    ends = [b"\0", b"-", b"-" * 1000, b"\r", b"\r\n", b"\r\n-"]
    contents = [PNG, *(ending_with(PNG + end) for end in ends)]
    names = ["a.png", *["a.bmp"] * len(ends)]
    data = body(*(part(name + str(n), name, contents[n], declared="") for n, name in enumerate(names)))
    data = data.replace(BOUNDARY.encode(), boundary.encode())
    for size in (1, 2, 3, 1000):
        received = await receive(spool, data, content_type=f'multipart/form-data; boundary="{boundary}"', size=size)
        assert [file.file.path.read_bytes() for file in received] == contents


async def test_content_that_looks_like_a_boundary_is_content(spool: Spool) -> None:
    data = ending_with(PNG + f"\r\n--{BOUNDARY[:-1]}\r\n--".encode() * 50)
    for size in (1, 7, 100_000):
        (file,) = await receive(spool, body(part("a", "a.bmp", data, declared="")), size=size)
        assert file.file.path.read_bytes() == data


async def test_a_preamble_and_an_epilogue_are_passed_over(spool: Spool) -> None:
    data = b"This is a multi-part message.\r\n" + body(part("a", "a.png")) + b"\r\nthe end"
    assert len(await receive(spool, data)) == 1


GOOD = part("first", "a.png", picture(".png", 300, noise=True))
"""large enough to be on disk before what follows is refused"""


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (body(GOOD, part("b", None)), "part 'b' has no filename: every part must be a file"),
        (body(GOOD, part("b", "")), "filename is required"),
        (body(GOOD, part("b", "../x.png")), "must be a bare name"),
        (body(GOOD, part("first", "b.png")), "two parts are named 'first'"),
        (body(GOOD, part("b", "b.jpg")), "the extension .jpg does not fit"),
        (body(GOOD, part("b", "b.png", b"hello")), "which is not allowed"),
        (body(GOOD, part("b", "b.png", b"")), "the file is empty"),
        (body(GOOD, part("b", "b.png", declared="image/jpeg")), "b.png: it is declared as 'image/jpeg'"),
        (body(), "has no file; send at least one part"),
        (b"", "ends too early|has no file"),
        (GOOD, "ends too early"),
        (GOOD + part("b", "b.png")[:-30], "ends too early"),
        (GOOD + f"--{BOUNDARY}\r\nContent-Dispo".encode(), "ends too early"),
        (GOOD + f"--{BOUNDARY}".encode(), "ends too early"),
        (b"no multipart at all", "ends too early|malformed"),
        (body(GOOD, f"--{BOUNDARY}\r\nContent-Type: image/png\r\n\r\nx\r\n".encode()), "malformed|ends too early"),
        (body(GOOD, part("b", "b.png").replace(b'name="b"; ', b"")), "name"),
        (body(GOOD, part("", "b.png")), "name"),
        (body(GOOD, part("n" * MAX_PART_HEADER, "b.png")), "a part's headers are too long"),
        (body(GOOD, part("b", "b.png", more="".join(f"\r\nX-{n}: y" for n in range(2000)))), "headers are too long"),
        (body(GOOD, part("b", "b.png", more="\r\nthis is no header")), "a line among its headers that is none"),
        (body(GOOD, part("b", "b.png").replace(b"form-data", b"attachment")), "a part is no form-data"),
        (body(GOOD, part("b", "folder\\b.png")), "must be a bare name"),
        (body(GOOD, part("b", "b\xff.png").replace("ÿ".encode(), b"\xff")), "bytes that are not UTF-8"),
        (body(*(part(f"p{number}", "a.png") for number in range(MAX_PARTS + 1))), f"more than {MAX_PARTS} parts"),
    ],
)
@pytest.mark.parametrize("size", [1 << 20, 1000])
async def test_what_is_refused_leaves_nothing_on_disk(spool: Spool, data: bytes, says: str, size: int) -> None:
    with pytest.raises((BadRequest, FileRefused), match=says):
        await receive(spool, data, size=size)
    assert on_disk(spool) == []


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/mixed; boundary=x",
        f"multipart/form-data; boundary={'x' * 300}",
        "multipart/form-data; boundary*=UTF-8''%E2%82%AC",
    ],
)
async def test_what_is_no_multipart_is_refused(spool: Spool, content_type: str) -> None:
    with pytest.raises(BadRequest, match="multipart/form-data"):
        await receive(spool, body(GOOD), content_type=content_type)
    assert on_disk(spool) == []


async def test_a_quote_in_a_name_may_be_escaped(spool: Spool) -> None:
    (file,) = await receive(spool, body(part('a\\"b\\\\c', "a.png")))
    assert file.identifier == 'a"b\\c'


@pytest.mark.parametrize("declared", ["", "application/octet-stream", "image/x-png", "IMAGE/PNG; charset=binary"])
async def test_a_part_need_not_declare_its_type(spool: Spool, declared: str) -> None:
    (file,) = await receive(spool, body(part("a", "a.png", declared=declared)))
    assert file.file.content_type == "image/png"


async def test_as_many_parts_as_are_allowed(spool: Spool) -> None:
    data = body(*(part(f"p{number}", "a.png") for number in range(MAX_PARTS)))
    assert len(await receive(spool, data)) == MAX_PARTS


async def test_a_file_over_the_limit_is_refused_and_so_are_those_before_it(spool: Spool) -> None:
    data = body(part("a", "a.png"), part("b", "b.png", picture(".png", 300, noise=True)))
    with pytest.raises(TooLarge):
        await receive(spool, data, limit=100_000, size=5000)
    assert on_disk(spool) == []


@pytest.mark.parametrize("start", [b"", b"--" + BOUNDARY.encode() + b"\r\nX: "])
async def test_headers_without_end_are_refused_before_they_fill_the_memory(spool: Spool, start: bytes) -> None:
    taken = 0

    async def endless() -> AsyncGenerator[bytes, None]:
        nonlocal taken
        yield start
        while True:
            taken += 1000
            yield b"x" * 1000

    with pytest.raises(BadRequest):
        await receive_files(CONTENT_TYPE, endless(), spool, limit=10**9, rules=Files())
    assert taken < 2 * MAX_PART_HEADER
    assert on_disk(spool) == []


async def test_cancelled_in_the_middle_nothing_stays(spool: Spool) -> None:
    stalled = trio.Event()

    async def stalls() -> AsyncGenerator[bytes, None]:
        yield GOOD + part("b", "b.png", PNG + b"x" * 2 * BLOCK)[:-2]
        stalled.set()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            await receive_files(CONTENT_TYPE, stalls(), spool, limit=10**9, rules=Files())

        with trio.fail_after(5):
            await stalled.wait()
        assert len(on_disk(spool)) == 2, "one whole, one half"
        nursery.cancel_scope.cancel()
    assert on_disk(spool) == []


async def test_a_client_that_breaks_off_leaves_nothing(spool: Spool) -> None:
    async def breaks() -> AsyncGenerator[bytes, None]:
        yield GOOD
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await receive_files(CONTENT_TYPE, breaks(), spool, limit=10**9, rules=Files())
    assert on_disk(spool) == []


BASE = body(part("a", "a.png"), part("b", "b.png"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, len(BASE)), st.integers(0, 40), st.binary(max_size=20)), max_size=4))
def test_any_damage_is_stored_whole_or_refused_whole(tmp_path: Path, damage: list[tuple[int, int, bytes]]) -> None:
    data = BASE
    for position, removed, added in damage:
        data = data[:position] + added + data[position + removed :]
    spool = Spool(tmp_path / "spool")
    spool.prepare(set())

    async def run() -> list[ReceivedFile]:
        try:
            return await receive(spool, data, size=100)
        except BridgedError:
            return []

    received = trio.run(run)
    assert sorted(on_disk(spool)) == sorted(file.file.path for file in received)
    assert all(isinstance(file.identifier, str) and file.identifier for file in received)
