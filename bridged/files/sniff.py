"""Content types by content: python-magic over libmagic. Blocking; callers run it in a thread."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pylibmagic  # noqa: F401  # lets python-magic find the libmagic of this wheel where the system has none

import magic  # isort: skip  # after pylibmagic, on purpose

_local = threading.local()

CONTENT_ALIASES = {
    "audio/wav": "audio/x-wav",
    "audio/x-flac": "audio/flac",
    "image/x-ms-bmp": "image/bmp",
    "application/ogg": "audio/ogg",
}
"""libmagic's names differ by version; these are one type under two names"""


def sniff(content: Path | bytes) -> str:
    """The content type of a file, or of the bytes that will be one, by what it contains."""
    if not hasattr(_local, "magic"):  # a libmagic handle is not to be shared by threads
        _local.magic = magic.Magic(mime=True)
    libmagic = _local.magic
    kind: str = libmagic.from_buffer(content) if isinstance(content, bytes) else libmagic.from_file(str(content))
    return CONTENT_ALIASES.get(kind, kind)


def type_of_extension(extension: str, allowed: Mapping[str, Sequence[str]]) -> str | None:
    """The allowed content type that an extension stands for, or None."""
    return next((kind for kind, extensions in allowed.items() if extension in extensions), None)
