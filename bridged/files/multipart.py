"""multipart/form-data (RFC 7578) both ways: stored files out as a stream, a request's body in as events."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from urllib.parse import quote

import msgspec
import trio

BLOCK = 256 * 1024


class Part(msgspec.Struct, frozen=True):
    """One part: a form field (`text`), or a file that is read from `path` while it is sent, unless `data` has it."""

    name: str
    text: str = ""
    data: bytes | None = None
    path: Path | None = None
    size: int = 0
    filename: str = ""
    content_type: str = ""


class Encoded:
    """A body for the given parts: `content_type`, `length` in bytes, and `chunks()`."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._boundary = uuid.uuid4().hex
        self.content_type = f"multipart/form-data; boundary={self._boundary}"
        self._pieces = [(self._header(part), part) for part in parts]
        self._end = f"--{self._boundary}--\r\n".encode()
        self.length = len(self._end) + sum(
            len(header) + (part.size if part.path else len(part.text.encode())) + 2 for header, part in self._pieces
        )

    def _header(self, part: Part) -> bytes:
        lines = [f"--{self._boundary}", f'Content-Disposition: form-data; name="{part.name}"']
        if part.filename:
            lines[1] += f'; filename="{_ascii(part.filename)}"'
            if not part.filename.isascii():
                lines[1] += f"; filename*=UTF-8''{quote(part.filename, safe='')}"
            lines.append(f"Content-Type: {part.content_type}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def whole(self) -> bytes | None:
        """The body at once, where nothing of it is on disk."""
        if any(part.path is not None and part.data is None for _, part in self._pieces):
            return None
        bodies = (header + (part.text.encode() if part.data is None else part.data) for header, part in self._pieces)
        return b"".join(body + b"\r\n" for body in bodies) + self._end

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        pending = b""
        for header, part in self._pieces:
            pending += header
            if part.data is not None:
                pending += part.data
            elif part.path is None:
                pending += part.text.encode()
            else:
                async with aclosing(read_blocks(part.path)) as blocks:
                    async for block in blocks:
                        yield pending + block
                        pending = b""
            pending += b"\r\n"
        yield pending + self._end


async def read_blocks(path: Path, block: int = BLOCK) -> AsyncGenerator[bytes, None]:
    """A file's bytes; one thread hop where it fits into one block.

    Raises OSError: the file is gone.
    """

    def start() -> tuple[bytes, int]:
        with open(path, "rb") as file:
            return file.read(block), file.seek(0, 2)

    first, size = await trio.to_thread.run_sync(start)
    yield first
    position = len(first)

    def following(offset: int) -> bytes:
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(block)

    while position < size:
        data = await trio.to_thread.run_sync(following, position)
        if not data:
            raise OSError(f"{path.name} became shorter while it was read")
        position += len(data)
        yield data


def _ascii(name: str) -> str:
    return "".join(c if " " <= c < "\x7f" and c not in '"\\' else "_" for c in name)
