"""Stored files written anew: without location and workflow metadata (`strip`), or decoded and encoded again
(`reencode`). Blocking.

ComfyUI writes the whole graph, prompts included, into what it saves: PNG text, WebP EXIF, the metadata of video and
audio containers. What cannot be cleaned for certain is refused, never passed on as it is.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from bridged.errors import FileRefused
from bridged.files.clean_audio import flac, wav
from bridged.files.clean_bmp import bmp
from bridged.files.clean_images import gif, jpeg, png, webp
from bridged.files.clean_matroska import matroska
from bridged.files.clean_mp3 import mp3
from bridged.files.clean_mp4 import mp4
from bridged.files.clean_ogg import ogg
from bridged.files.clean_tiff import tiff
from bridged.files.reencode import ENCODERS
from bridged.files.sniff import sniff
from bridged.files.splice import Piece, Source, Span, Unclean, rewrite
from bridged.files.verify import Rules


def _nothing(source: Source) -> Iterator[Piece]:
    """For formats without metadata."""
    yield Span(0, source.size)


STRIPPERS: dict[str, Callable[[Source], Iterator[Piece]]] = {
    "image/png": png,
    "image/jpeg": jpeg,
    "image/webp": webp,
    "image/gif": gif,
    "image/tiff": tiff,
    "image/bmp": bmp,
    "video/mp4": mp4,
    "video/quicktime": mp4,
    "video/x-m4v": mp4,
    "audio/mp4": mp4,
    "audio/x-m4a": mp4,
    "video/webm": matroska,
    "audio/webm": matroska,
    "video/x-matroska": matroska,
    "audio/x-wav": wav,
    "audio/flac": flac,
    "audio/mpeg": mp3,
    "audio/ogg": ogg,
    "text/plain": _nothing,
}
"""by content type; other types are refused where metadata is to go"""

ASIDE = ".clean"
"""the suffix of a file on its way to take the place of another"""

Work = Callable[[BinaryIO, BinaryIO], bool]


def strip(path: Path, kind: str, name: str = "the file") -> bool:
    """Takes the metadata out of a file of that content type, atomically, in constant memory; whether it had any.

    Its pixels and samples stay what they are; so does a picture's orientation. Raises FileRefused, naming `name`:
    that cannot be done for certain; then the file is as it was.
    """
    return _replace(path, kind, _stripping(kind, name))


def strip_bytes(content: bytes, kind: str, name: str = "the file") -> bytes:
    """As `strip`, of a file that is not on disk yet."""
    return _converted(content, kind, _stripping(kind, name), name)


def reencode(path: Path, kind: str, rules: Rules, name: str = "the file") -> bool:
    """Decodes a picture and writes it anew in its format; whether it is a picture.

    Lossless formats keep every pixel, JPEG and lossy WebP lose a little. Orientation, ICC profile and the timing of
    animations stay, everything else is gone. Raises FileRefused: it cannot be decoded and written without loss beyond
    that; then the file is as it was.
    """
    return kind in ENCODERS and _replace(path, kind, _reencoding(kind, rules, name))


def reencode_bytes(content: bytes, kind: str, rules: Rules, name: str = "the file") -> bytes:
    """As `reencode`, of a file that is not on disk yet."""
    return _converted(content, kind, _reencoding(kind, rules, name), name) if kind in ENCODERS else content


def _stripping(kind: str, name: str) -> Work:
    stripper = STRIPPERS.get(kind)

    def work(old: BinaryIO, new: BinaryIO) -> bool:
        if stripper is None:
            raise FileRefused(f"{name}: its metadata cannot be removed: nobody knows how for {kind}", kind)
        try:
            source = Source(old)
            return rewrite(source, stripper(source), new)
        except Unclean as error:
            raise FileRefused(f"{name}: its metadata cannot be removed for certain: {error}", kind) from error

    return work


def _reencoding(kind: str, rules: Rules, name: str) -> Work:
    def work(old: BinaryIO, new: BinaryIO) -> bool:
        try:
            ENCODERS[kind](old, new, rules)
        except Unclean as error:
            raise FileRefused(f"{name}: it cannot be encoded anew: {error}", kind) from error
        return True

    return work


def _replace(path: Path, kind: str, work: Work) -> bool:
    aside = path.with_suffix(ASIDE)
    try:
        with open(path, "rb") as old, open(aside, "xb") as new:
            changed = work(old, new)
        if changed:
            _refuse_if_other(aside, kind, path.name)
            os.replace(aside, path)
        return changed
    finally:
        aside.unlink(missing_ok=True)


def _converted(content: bytes, kind: str, work: Work, name: str) -> bytes:
    new = io.BytesIO()
    if not work(io.BytesIO(content), new):
        return content
    _refuse_if_other(new.getvalue(), kind, name)
    return new.getvalue()


def _refuse_if_other(content: Path | bytes, kind: str, name: str) -> None:
    """What a type is recognised by may have gone with the metadata: then others would take it for something else."""
    found = sniff(content)
    if found != kind:
        raise FileRefused(f"{name}: without its metadata its content is {found}, not {kind}", kind)
