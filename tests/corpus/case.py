"""One upload, and one request that is none."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Content = bytes | Callable[[], bytes]


@dataclasses.dataclass(frozen=True)
class Case:
    """A file as a client sends it. `filename`: as bytes where it is no valid UTF-8. `content`: the bytes, or what
    makes them when they are needed (bombs, encoders). `content_type` None: the part declares none. `why`: what is
    wrong with it, or what is ordinary about it. `kind` is its class, `encoder` the library that made it."""

    name: str
    filename: str | bytes
    content: Content
    content_type: str | None
    why: str
    kind: str = ""
    encoder: str = ""

    def data(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else self.content()


@dataclasses.dataclass(frozen=True)
class Request:
    """A whole body of POST /upload, with its Content-Type header (None: none is sent)."""

    name: str
    content_type: str | None
    body: Content
    why: str

    def data(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else self.body()


def of_kind(kind: str, cases: Iterable[Case]) -> Iterator[Case]:
    for case in cases:
        yield dataclasses.replace(case, kind=kind, name=f"{kind}: {case.name}")


def library(name: str) -> Any:
    """A module of the `test` extra, imported when it is needed. Raises ImportError."""
    return importlib.import_module(name)


MIME = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".mp4": "video/mp4",
    ".mov": "video/quicktime",
    ".webm": "video/webm",
    ".mp3": "audio/mpeg",
    ".wav": "audio/x-wav",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
}
"""what a browser declares for a file of that name"""


def mime(filename: str | bytes) -> str:
    text = filename.decode("latin-1") if isinstance(filename, bytes) else filename
    extension = "." + text.rpartition(".")[2].lower()
    return MIME.get(extension, "application/octet-stream")
