"""The checks every file passes, uploads and results alike, before anyone else sees it.

The order is that of cost: name, type by content (libmagic), type against what is allowed, the extension and what the
sender declares. Then the structure, which libmagic does not look at: each type's walk reads its container to the end
(`formats/`), holds the limits of size, looks at metadata for active content, and refuses what follows the end. Last,
pictures are decoded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from bridged.errors import FileRefused
from bridged.files.formats import (
    active,
    bmff,
    bmp,
    flac,
    gif,
    jpeg_file,
    limits,
    matroska,
    mp3,
    ogg,
    png,
    riff,
    text,
    tiff,
)
from bridged.files.formats.decode import decode
from bridged.files.formats.limits import Limits, Picture
from bridged.files.formats.source import Refusal, Source, opened
from bridged.files.names import bare_name, extension_of
from bridged.files.sniff import UNKNOWN, canonical, sniff

CHEAP_SIDE, CHEAP_WEBP = 256, 96
"""pixels: a picture of at most this width and height is checked in less time than a thread hop takes; WebP decodes ten
times slower than the others"""

CHEAP_EXIF, CHEAP_BLOCKS = 8 * 1024, 1024
"""bytes of EXIF, whose directories may overlap, and data blocks of a GIF, which are walked one by one"""


class Rules(limits.Rules, Protocol):
    """What is acceptable, as the settings have it (`config.schema.Files` is one)."""

    @property
    def allowed(self) -> Mapping[str, Sequence[str]]: ...
    @property
    def reencode(self) -> bool: ...
    @property
    def clamd(self) -> str: ...


def verify(content: Path | bytes, name: str, rules: Rules, declared: str = "") -> str:
    """Checks a stored file, or the bytes that will be one; returns its content type. Blocking, in constant memory but
    for a picture's pixels (4 bytes each; none for PNG and plain BMP).

    `declared`: the Content-Type that came with the file.
    Raises FileRefused: the name is not bare; content, extension and declared type do not fit or are not allowed; the
    content is broken, too large, harmful, or not only what it seems. Raises OSError where the disk cannot be read.
    """
    bare_name(name)
    kind = _accepted_kind(content, name, rules.allowed)
    if declared:
        _check_declared(name, kind, declared)
    try:
        with opened(content) as file:
            _check_structure(file, content, kind, Limits.of(rules))
    except Refusal as refusal:
        raise FileRefused(f"{name}: {refusal}", kind) from None
    return kind


def is_cheap(content: bytes) -> bool:
    """Whether checking these bytes takes less than a hop into a thread (0.5 ms): a PNG, JPEG, GIF, WebP or BMP of at
    most CHEAP_SIDE pixels a side, in one frame, with nothing in it that has to be unpacked first, and little EXIF. It
    reads sizes where the walks do: what is cheap here is never one that `decode` gives to a process of its own."""
    width, height = _size(content)
    side = CHEAP_WEBP if content[:4] == b"RIFF" else CHEAP_SIDE
    return 0 < width <= side and 0 < height <= side


def _accepted_kind(content: Path | bytes, name: str, allowed: Mapping[str, Sequence[str]]) -> str:
    kind = sniff(content)
    extension = extension_of(name)
    if extension in allowed.get(kind, ()):
        return kind
    kind = _refined(kind, content, extension, allowed)
    extensions = _extensions(kind, allowed)
    if not extensions:
        raise FileRefused(f"{name}: its content is {kind}, which is not allowed; allowed: {', '.join(allowed)}", kind)
    if extension not in extensions:
        fitting = " or ".join(extensions)
        raise FileRefused(
            f"{name}: the extension {extension or '(none)'} does not fit its content {kind}; use {fitting}", kind
        )
    return kind


def _extensions(kind: str, allowed: Mapping[str, Sequence[str]]) -> list[str]:
    """The extensions of a type, under whichever of its names the operator has it."""
    return [extension for key, extensions in allowed.items() if canonical(key) == kind for extension in extensions]


def _refined(kind: str, content: Path | bytes, extension: str, allowed: Mapping[str, Sequence[str]]) -> str:
    """What libmagic does not tell apart, or not recognise, told by structure."""
    if kind == UNKNOWN and extension in (".mp3", ".mov"):
        with opened(content) as file:
            return _recognised(file, extension) or kind
    if kind == "video/mp4" and extension in _extensions("audio/mp4", allowed):
        try:
            with opened(content) as file:
                return kind if b"vide" in bmff.kinds_of_tracks(file) else "audio/mp4"
        except Refusal:
            return kind
    plain = kind in _PLAIN or (kind.startswith("text/x-") and kind not in _NOT_PLAIN)
    if plain and extension in _extensions("text/plain", allowed):
        return "text/plain"
    return kind


def _recognised(file: Source, extension: str) -> str | None:
    """MPEG audio of less common rates, and QuickTime of before 2001: they have no signature."""
    try:
        if extension == ".mp3":
            return "audio/mpeg" if mp3.has_sound(file) else None
        return "video/quicktime" if bmff.kinds_of_tracks(file) else None
    except Refusal:
        return None


_PLAIN = frozenset({"text/csv", "text/markdown", "text/tab-separated-values", "text/troff"})
_NOT_PLAIN = frozenset({"text/x-php", "text/x-shellscript", "text/x-msdos-batch"})
"""what libmagic takes some plain texts for (source code is text/x-…), and what it is right about"""


def _check_declared(name: str, kind: str, declared: str) -> None:
    said = canonical(declared.partition(";")[0].strip().lower())
    if said in ("", UNKNOWN, kind, "*/*", f"{kind.partition('/')[0]}/*") or {said, kind} in _SAME:
        return
    raise FileRefused(f"{name}: it is declared as {said[:80]!r}, but its content is {kind}", kind)


_SAME: tuple[set[str], ...] = (
    {"audio/ogg", "video/ogg"},  # browsers tell by the extension, and `.ogg` may be either
    {"audio/mp4", "video/mp4"},
    {"video/webm", "video/x-matroska"},
    {"image/heic", "image/heif"},
)


def _check_structure(file: Source, content: Path | bytes, kind: str, bounds: Limits) -> None:
    if kind in _DOCUMENTS:
        _DOCUMENTS[kind](file, bounds)
        return
    if kind.startswith(("image/", "video/", "audio/")):
        active.check_head(file, walked=kind in _WALKS)
        active.check_zip(file)
    check = _WALKS.get(kind)
    picture = check(file, bounds) if check else None
    if kind in _DECODED and picture is not None:
        decode(content, kind, picture)


_Check = Callable[[Source, Limits], Picture | None]
"""a walk; it returns a picture whose pixels have to be decoded by Pillow"""

_DOCUMENTS: dict[str, _Check] = {
    "text/plain": text.check_plain,
    "application/json": text.check_json,
    "image/svg+xml": text.check_svg,
}

_WALKS: dict[str, _Check] = {
    "image/png": png.check_png,
    "image/jpeg": jpeg_file.check_jpeg,
    "image/gif": gif.check_gif,
    "image/webp": riff.check_webp,
    "image/bmp": bmp.check_bmp,
    "image/tiff": tiff.check_tiff,
    "image/avif": bmff.check_still,
    "image/heic": bmff.check_still,
    "image/heif": bmff.check_still,
    "video/mp4": bmff.check_video,
    "audio/mp4": bmff.check_video,
    "video/quicktime": bmff.check_video,
    "video/3gpp": bmff.check_video,
    "video/webm": matroska.check_matroska,
    "video/x-matroska": matroska.check_matroska,
    "audio/x-wav": riff.check_wav,
    "audio/flac": flac.check_flac,
    "audio/mpeg": mp3.check_mp3,
    "audio/ogg": ogg.check_ogg,
    "video/ogg": ogg.check_ogg,
}
"""Types that the operator allows beyond these are known by libmagic's word alone."""

_DECODED = frozenset({"image/jpeg", "image/gif", "image/webp", "image/bmp", "image/tiff"})


def _size(content: bytes) -> tuple[int, int]:
    """Width and height as the header of a simple picture says them; 0, 0 for all else."""
    if content[:8] == png.SIGNATURE:
        return _png_size(content)
    if content[:3] == b"GIF":
        return _gif_size(content)
    if content[:2] == b"BM":
        return _little(content, 18, 4), abs(int.from_bytes(content[22:26], "little", signed=True))
    if content[:4] == b"RIFF" and len(content) > 20 + _little(content, 16, 4) + CHEAP_EXIF:
        return 0, 0
    if content[8:16] == b"WEBPVP8 ":
        return _little(content, 26) & 0x3FFF, _little(content, 28) & 0x3FFF
    if content[8:16] == b"WEBPVP8L":
        bits = _little(content, 21, 4)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return _jpeg_size(content) if content[:2] == b"\xff\xd8" else (0, 0)


def _png_size(content: bytes) -> tuple[int, int]:
    at = 8
    for _ in range(64):
        kind = content[at + 4 : at + 8]
        if kind in (b"acTL", b"zTXt", b"iTXt", b"iCCP"):
            break
        if kind == b"eXIf" and int.from_bytes(content[at : at + 4], "big") >= CHEAP_EXIF:
            break
        if kind in (b"IEND", b""):
            return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
        at += 12 + int.from_bytes(content[at : at + 4], "big")
    return 0, 0


def _gif_size(content: bytes) -> tuple[int, int]:
    """The screen's, where the file's one frame lies in it."""
    screen, at = (_little(content, 6), _little(content, 8)), 13 + _gif_table(content, 10)
    found = False
    for _ in range(64):
        kind = content[at : at + 1]
        if kind in (b";", b""):
            return screen if found else (0, 0)
        if kind == b"," and not found:
            found = True
            left, top, width, height = (_little(content, at + place) for place in (1, 3, 5, 7))
            if not width or not height or left + width > screen[0] or top + height > screen[1]:
                break
            at += 11 + _gif_table(content, at + 9)
        elif kind == b"!":
            at += 2
        elif kind == b"\0":
            at += 1
            continue
        else:
            break
        for _ in range(CHEAP_BLOCKS):
            size = content[at] if at < len(content) else 0
            at += 1 + size
            if not size:
                break
        else:
            break
    return 0, 0


def _gif_table(content: bytes, at: int) -> int:
    """Bytes of the colour table that the flags at this place announce."""
    flags = _little(content, at, 1)
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


_EXIF = re.compile(rb"\xff\xe1(..)Exif\0", re.DOTALL)


def _jpeg_size(content: bytes) -> tuple[int, int]:
    if sum(int.from_bytes(size, "big") for size in _EXIF.findall(content)) >= CHEAP_EXIF:
        return 0, 0
    at = 2
    while content[at : at + 1] == b"\xff":
        marker = content[at + 1 : at + 2]
        if marker in (b"\xc0", b"\xc1"):
            return int.from_bytes(content[at + 7 : at + 9], "big"), int.from_bytes(content[at + 5 : at + 7], "big")
        if not b"\xc4" <= marker <= b"\xfe" or b"\xd0" <= marker <= b"\xd9":
            break  # those have no length
        at += 2 + max(2, int.from_bytes(content[at + 2 : at + 4], "big"))
    return 0, 0


def _little(content: bytes, at: int, size: int = 2) -> int:
    return int.from_bytes(content[at : at + size], "little")
