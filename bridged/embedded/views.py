"""`/view`: a file, or a part of it (RFC 9110 section 14), or a re-encoding of it."""

from __future__ import annotations

import email.utils
import io
import mimetypes
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio
from PIL import Image
from quart import Response

if TYPE_CHECKING:
    import pathlib
    from collections.abc import AsyncIterator

    from werkzeug.datastructures import Headers

CHUNK = 256 * 1024
"""Bytes read and sent at a time; a smaller file is one read."""

UNSAFE_TYPES = {"text/html", "text/html-sandboxed", "application/xhtml+xml", "text/javascript", "text/css"}
"""What a browser would run: such files are served as plain bytes."""


@dataclass(frozen=True)
class _File:
    size: int
    modified: int
    etag: str
    first: bytes


async def file_response(path: pathlib.Path, headers: Headers) -> Response:
    """`headers` are the request's. Raises FileNotFoundError."""
    file = await trio.to_thread.run_sync(_open, path)
    answer_headers = {
        "Content-Disposition": _disposition(path.name),
        "Content-Type": _content_type(path.name),
        "Etag": file.etag,
        "Last-Modified": email.utils.formatdate(file.modified, usegmt=True),
        "Accept-Ranges": "bytes",
    }
    if _not_modified(file, headers):
        del answer_headers["Content-Type"]
        return Response(b"", 304, answer_headers)
    status, start, end = 200, 0, file.size
    wanted = _range(headers, file)
    if wanted is not None:
        start, end = wanted
        if start >= end:
            answer_headers["Content-Range"] = f"bytes */{file.size}"
            return Response(b"", 416, answer_headers)
        status = 206
        answer_headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
    answer_headers["Content-Length"] = str(end - start)
    if end <= len(file.first):
        return Response(file.first[start:end], status, answer_headers)
    response = Response(_chunks(path, start, end), status, answer_headers)
    response.timeout = None  # a slow reader of a large file must not get a silently shortened one
    return response


def _open(path: pathlib.Path) -> _File:
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        return _File(
            status.st_size,
            int(status.st_mtime),
            f'"{status.st_mtime_ns:x}-{status.st_size:x}"',
            file.read(CHUNK),
        )


async def _chunks(path: pathlib.Path, start: int, end: int) -> AsyncIterator[bytes]:
    position = start
    while position < end:
        chunk = await trio.to_thread.run_sync(_read, path, position, min(CHUNK, end - position))
        if not chunk:
            return  # the file has shrunk since: the client sees a short body
        position += len(chunk)
        yield chunk


def _read(path: pathlib.Path, position: int, size: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(position)
        return file.read(size)


def _not_modified(file: _File, headers: Headers) -> bool:
    tags = headers.get("If-None-Match")
    if tags is not None:
        return tags.strip() == "*" or file.etag in [tag.strip().removeprefix("W/") for tag in tags.split(",")]
    since = _date(headers.get("If-Modified-Since"))
    return since is not None and file.modified <= since


def _range(headers: Headers, file: _File) -> tuple[int, int] | None:
    """First and past-the-last byte, empty when it cannot be satisfied, None for the whole. Only single
    ranges."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", headers.get("Range", "").replace(" ", ""))
    if match is None or match[0] == "bytes=-":
        return None
    condition = headers.get("If-Range")
    if condition is not None and condition != file.etag and _date(condition) != file.modified:
        return None
    if not match[1]:
        length = int(match[2])
        return (max(0, file.size - length), file.size)
    last = int(match[2]) if match[2] else file.size - 1
    return (int(match[1]), min(file.size, last + 1))


def _date(text: str | None) -> int | None:
    try:
        return None if text is None else int(email.utils.parsedate_to_datetime(text).timestamp())
    except ValueError:
        return None


def _content_type(name: str) -> str:
    guessed = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return "application/octet-stream" if guessed in UNSAFE_TYPES else guessed


def _disposition(name: str) -> str:
    # Header values are Latin-1 without control characters; other names would fail the whole answer.
    safe = "".join(letter if letter.isprintable() and letter not in '"\\' else "_" for letter in name)
    return f'filename="{safe.encode("latin-1", "replace").decode("latin-1")}"'


async def picture_response(path: pathlib.Path, preview: str | None, channel: str) -> Response:
    """Re-encoded: `preview` is "webp" or "jpeg", perhaps ";QUALITY"; `channel` "rgb" drops transparency, "a"
    shows only it.

    Raises FileNotFoundError, and OSError when it is no picture.
    """
    if preview is not None:
        data, kind = await trio.to_thread.run_sync(_preview, path, preview, channel)
    else:
        data, kind = await trio.to_thread.run_sync(_channel, path, channel), "png"
    return Response(
        data, 200, {"Content-Type": f"image/{kind}", "Content-Disposition": _disposition(path.name)}
    )


def _preview(path: pathlib.Path, preview: str, channel: str) -> tuple[bytes, str]:
    kind, _, quality = preview.partition(";")
    if kind != "jpeg" or "a" in channel:
        kind = "webp"
    with Image.open(path) as opened:
        flat = kind == "jpeg" or channel == "rgb"
        picture = opened.convert("RGB") if flat else opened
        buffer = io.BytesIO()
        picture.save(buffer, kind, quality=min(100, int(quality)) if quality.isdigit() else 90)
    return buffer.getvalue(), kind


def _channel(path: pathlib.Path, channel: str) -> bytes:
    with Image.open(path) as opened:
        if channel == "rgb":
            picture = opened.convert("RGB")
        else:
            alpha = opened.getchannel("A") if opened.mode == "RGBA" else Image.new("L", opened.size, 255)
            picture = Image.new("RGBA", opened.size)
            picture.putalpha(alpha)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
    return buffer.getvalue()
