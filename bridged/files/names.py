"""File names that callers and backends give: what is acceptable, and what is shown in their place."""

from __future__ import annotations

import unicodedata

from bridged.errors import FileRefused

MAX_NAME_BYTES = 255
"""the limit of Linux file systems (NAME_MAX); longer names cannot be saved by whoever downloads them"""


def bare_name(name: str) -> str:
    """The name in NFC. Raises FileRefused: empty, a path, a hidden or reserved form, or too long."""
    name = unicodedata.normalize("NFC", name)
    if not name or name in (".", ".."):
        raise FileRefused("filename is required: send a bare file name such as photo.png")
    if "/" in name or "\\" in name or name != name.strip():
        raise FileRefused(f"filename {name!r} must be a bare name, with no folders and no outer spaces")
    if any(unicodedata.category(character) in ("Cc", "Cf", "Cs") for character in name):
        raise FileRefused("filename must have no control or invisible characters")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise FileRefused(f"filename is longer than {MAX_NAME_BYTES} bytes")
    return name


def extension_of(name: str) -> str:
    """The last extension with its dot, lower case; "" where there is none."""
    stem, dot, extension = name.rpartition(".")
    return f".{extension.lower()}" if dot and stem else ""
