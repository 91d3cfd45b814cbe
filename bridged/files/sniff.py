"""Content types by content: python-magic over libmagic. Blocking; callers run it in a thread."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pylibmagic  # noqa: F401  # lets python-magic find the libmagic of this wheel where the system has none

import magic  # isort: skip  # after pylibmagic, on purpose

_local = threading.local()

UNKNOWN = "application/octet-stream"

CONTENT_ALIASES = {
    "application/ogg": "audio/ogg",
    "audio/flac-x": "audio/flac",
    "audio/m4a": "audio/mp4",
    "audio/mp3": "audio/mpeg",
    "audio/mpeg3": "audio/mpeg",
    "audio/opus": "audio/ogg",
    "audio/vnd.wave": "audio/x-wav",
    "audio/vorbis": "audio/ogg",
    "audio/wav": "audio/x-wav",
    "audio/wave": "audio/x-wav",
    "audio/webm": "video/webm",
    "audio/x-flac": "audio/flac",
    "audio/x-m4a": "audio/mp4",
    "audio/x-matroska": "video/x-matroska",
    "audio/x-mp3": "audio/mpeg",
    "audio/x-mpeg": "audio/mpeg",
    "audio/x-pn-wav": "audio/x-wav",
    "image/apng": "image/png",
    "image/heic-sequence": "image/heic",
    "image/heif-sequence": "image/heif",
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/svg": "image/svg+xml",
    "image/tif": "image/tiff",
    "image/vnd.mozilla.apng": "image/png",
    "image/x-bmp": "image/bmp",
    "image/x-ms-bmp": "image/bmp",
    "image/x-os2-graphics": "image/bmp",
    "image/x-png": "image/png",
    "image/x-tiff": "image/tiff",
    "image/x-windows-bmp": "image/bmp",
    "text/json": "application/json",
    "video/matroska": "video/x-matroska",
    "video/x-m4v": "video/mp4",
}
"""One type under several names: libmagic's differ by version, callers' by system. Opus, and sound alone in WebM, are
told by their container here, as libmagic tells them."""


def canonical(kind: str) -> str:
    """The one name that we have for a content type."""
    return CONTENT_ALIASES.get(kind, kind)


def sniff(content: Path | bytes) -> str:
    """The content type of a file, or of the bytes that will be one, by what it contains; UNKNOWN where libmagic fails.
    Raises OSError."""
    if not hasattr(_local, "magic"):  # a libmagic handle is not to be shared by threads
        _local.magic = magic.Magic(mime=True)
    libmagic = _local.magic
    try:
        kind: str = libmagic.from_buffer(content) if isinstance(content, bytes) else libmagic.from_file(str(content))
    except magic.MagicException:
        return UNKNOWN
    return CONTENT_ALIASES.get(kind, kind)


def type_of_extension(extension: str, allowed: Mapping[str, Sequence[str]]) -> str | None:
    """The allowed content type that an extension stands for, or None."""
    return next((kind for kind, extensions in allowed.items() if extension in extensions), None)
