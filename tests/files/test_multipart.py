"""Bodies that we send: multipart and base64, read back by parsers that are not ours."""

from __future__ import annotations

import base64
import io
import json
import os
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.formparser import FormDataParser

from bridged.api.results import BASE64_BLOCK, Body, base64_body, multipart_body
from bridged.files.multipart import BLOCK, Encoded, Part, read_blocks
from bridged.model import Output, StoredFile

NAMES = [
    "a.png",
    "Bild ä.png",
    "그림.webp",
    "🐈 and dog.gif",
    'quo"te.png',
    "semi;colon.png",
    "back\\slash.png",
    "100%.png",
]


async def whole(body: Body | Encoded) -> bytes:
    data = b"".join([chunk async for chunk in body.chunks()])
    assert len(data) == body.length
    return data


class Received(NamedTuple):
    filename: str | None
    mimetype: str
    data: bytes


def parse(content_type: str, data: bytes) -> tuple[dict[str, str], dict[str, Received]]:
    """What werkzeug makes of it: fields, files."""
    kind, _, boundary = content_type.partition("; boundary=")
    _, form, files = FormDataParser(silent=False).parse(io.BytesIO(data), kind, len(data), {"boundary": boundary})
    received: dict[str, Received] = {}
    for name, file in files.items():
        with file.stream:
            received[name] = Received(file.filename, file.mimetype, file.read())
    return dict(form), received


def output(folder: Path, name: str, data: bytes, content_type: str = "image/png") -> Output:
    path = folder / f"{len(list(folder.iterdir()))}.file"
    path.write_bytes(data)
    return Output(name, StoredFile(path, len(data), "00", content_type, ".png"))


@pytest.mark.parametrize("name", NAMES)
async def test_a_body_with_fields_and_files_is_what_was_meant(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.file"
    path.write_bytes(b"\r\n--not the boundary\r\n\x00\xff")
    encoded = Encoded(
        [
            Part("type", text="input"),
            Part("unicode", text="한국어 é"),
            Part("image", path=path, size=path.stat().st_size, filename=name, content_type="image/png"),
        ]
    )
    form, files = parse(encoded.content_type, await whole(encoded))
    assert form == {"type": "input", "unicode": "한국어 é"}
    assert files["image"].data == path.read_bytes()
    assert files["image"].mimetype == "image/png"
    shown = "".join("_" if c in '"\\' else c for c in name)
    assert files["image"].filename == shown


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_no_name_can_add_headers_or_parts(name: str) -> None:
    encoded = Encoded([Part("image", path=Path("x"), size=0, filename=name, content_type="image/png")])
    (header, _), *_ = encoded._pieces
    lines = header.split(b"\r\n")
    assert len(lines) == 5
    assert header.isascii()
    assert b"\n" not in b"".join(lines)
    assert lines[1].startswith(b'Content-Disposition: form-data; name="image"; filename="')


async def test_results_are_numbered_parts(tmp_path: Path) -> None:
    contents = [b"one", os.urandom(BLOCK), os.urandom(2 * BLOCK + 1), b""]
    outputs = [output(tmp_path, f"r-{number}.png", data) for number, data in enumerate(contents)]
    body = multipart_body(outputs)
    _, files = parse(body.content_type, await whole(body))
    assert list(files) == ["result_0", "result_1", "result_2", "result_3"]
    for number, data in enumerate(contents):
        file = files[f"result_{number}"]
        assert (file.data, file.filename, file.mimetype) == (data, f"r-{number}.png", "image/png")


async def test_what_is_still_in_memory_is_not_read_from_disk(tmp_path: Path) -> None:
    outputs = [output(tmp_path, "a.png", b"one"), output(tmp_path, "b.png", b"two"), output(tmp_path, "c.png", b"")]
    known = {outputs[0].file.path: b"one", outputs[2].file.path: b""}
    for path in known:
        path.unlink()
    body = multipart_body(outputs, lambda file: known.get(file.path))
    _, files = parse(body.content_type, await whole(body))
    assert [files[f"result_{number}"].data for number in range(3)] == [b"one", b"two", b""]


@pytest.mark.parametrize(
    "size", [0, 1, 2, 3, 4, BASE64_BLOCK - 1, BASE64_BLOCK, BASE64_BLOCK + 1, BASE64_BLOCK + 2, 2 * BASE64_BLOCK]
)
async def test_base64_is_exact_at_every_edge(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    body = base64_body([output(tmp_path, 'ä "quoted"\\.png', data), output(tmp_path, "b.webp", b"xy", "image/webp")])
    assert body.content_type == "application/json"
    answer = json.loads(await whole(body))
    assert [list(file) for file in answer["files"]] == [["file_name", "content_type", "content"]] * 2
    first, second = answer["files"]
    assert (first["file_name"], first["content_type"]) == ('ä "quoted"\\.png', "image/png")
    assert base64.b64decode(first["content"], validate=True) == data
    assert (second["content_type"], base64.b64decode(second["content"])) == ("image/webp", b"xy")


async def test_a_job_with_no_files_is_still_a_whole_answer() -> None:
    assert json.loads(await whole(base64_body([]))) == {"files": []}
    assert (await whole(multipart_body([]))).endswith(b"--\r\n")


async def test_two_bodies_never_share_a_boundary() -> None:
    assert Encoded([]).content_type != Encoded([]).content_type


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 20, 21, 100])
async def test_a_file_is_read_in_blocks(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x"
    path.write_bytes(os.urandom(size))
    blocks = [block async for block in read_blocks(path, 10)]
    assert b"".join(blocks) == path.read_bytes()
    assert all(len(block) == 10 for block in blocks[:-1])


async def test_a_file_that_shrinks_or_goes_is_an_error_and_no_short_body(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x" * 30)
    blocks = read_blocks(path, 10)
    assert await anext(blocks) == b"x" * 10
    path.write_bytes(b"x" * 5)
    with pytest.raises(OSError, match="became shorter"):
        await anext(blocks)
    path.unlink()
    with pytest.raises(OSError, match="No such file"):
        await anext(read_blocks(path))
