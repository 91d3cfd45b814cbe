"""What follows the end of a container: nothing, or padding."""

from __future__ import annotations

import re

from bridged.files.formats.active import check_region
from bridged.files.formats.source import Refusal, Source

UNKNOWN = "unknown data"


_KNOWN = (
    (re.compile(rb"pk\x03\x04|pk\x05\x06|pk\x07\x08"), "a ZIP archive"),
    (re.compile(rb"rar!\x1a"), "a RAR archive"),
    (re.compile(rb"7z\xbc\xaf"), "a 7z archive"),
    (re.compile(rb"\x1f\x8b\x08"), "a gzip archive"),
    (re.compile(rb"bzh[1-9]1ay"), "a bzip2 archive"),
    (re.compile(rb"\xfd7zxz"), "an xz archive"),
    (re.compile(rb"\x28\xb5\x2f\xfd"), "a Zstandard archive"),
    (re.compile(rb"!<arch>\n"), "a package"),
    (re.compile(rb"mscf\0\0\0\0"), "a CAB archive"),
    (re.compile(rb"\xd0\xcf\x11\xe0\xa1\xb1"), "an Office document"),
    (re.compile(rb"%pdf-|%!ps"), "a document (PDF, PostScript)"),
    (re.compile(rb"\x7felf[\x01\x02]"), "a program (ELF)"),
    (re.compile(rb"mz.{58}.{4}", re.DOTALL), "a program (PE)"),
    (re.compile(rb"\xca\xfe\xba\xbe\0|[\xce\xcf]\xfa\xed\xfe|\x00asm\x01\x00"), "a program"),
    (re.compile(rb"l\0\0\0\x01\x14\x02\0"), "a Windows shortcut"),
    (re.compile(rb"#!\s*/"), "a script"),
    (re.compile(rb"<\?(?:php|=)"), "a PHP script"),
    (re.compile(rb"<%"), "a server-side script"),
    (re.compile(rb"<svg"), "an SVG document"),
    (re.compile(rb"<(?:!doctype|html|head|body)"), "an HTML document"),
    (re.compile(rb"<script"), "a script"),
    (re.compile(rb"<[a-z!?]"), "markup"),
    (re.compile(rb"\x89png\r\n"), "a PNG picture"),
    (re.compile(rb"gif8[79]a"), "a GIF picture"),
    (re.compile(rb"riff....(?:wave|webp|avi )", re.DOTALL), "a RIFF file"),
)
"""what bytes begin, seen in lower case"""

_TEXT, _SHORT = 0.95, 4
"""the part of printable bytes from which leftovers are a text, and the bytes below which they cannot be one"""

_PDF = re.compile(rb"%PDF-\d\.\d")


def check_end(source: Source, end: int) -> None:
    """Raises Refusal: more than zeros follows the container's end."""
    start = skip_padding(source, end)
    if start < source.size and not _line_ends(source, start):
        raise Refusal(f"{name_of(source.read(start, 32))} follows its end ({source.size - start} bytes)")


def check_leftovers(source: Source, end: int) -> None:
    """What cameras and old programs leave behind a JPEG or a GIF: previews, rests of a memory card's sector. No harm is
    in bytes that nothing would run or show.

    Raises Refusal: they begin like, or hold, an archive, a program, a document, markup or a script; or are a text.
    """
    start = skip_padding(source, end)
    if start == source.size:
        return
    head = source.read(start, 512)
    what = name_of(head)
    printable = sum(32 <= byte < 127 or 9 <= byte <= 13 for byte in head)
    if what == UNKNOWN and len(head.strip()) >= _SHORT and printable >= _TEXT * len(head):
        what = "text"
    if what != UNKNOWN:
        raise Refusal(f"{what} follows its end ({source.size - start} bytes)")
    where = "what follows its end"
    check_region(source, start, source.size, where)
    before = b""
    for block in source.blocks(start, source.size):
        if b"%PDF-" in (joined := before + block) and _PDF.search(joined):
            raise Refusal(f"{where} holds a PDF document")
        before = block[-16:]


def skip_padding(source: Source, start: int, padding: bytes = b"\0") -> int:
    """Where the first byte is that is no padding."""
    for block in source.blocks(start, source.size):
        rest = block.lstrip(padding)
        if rest:
            return start + len(block) - len(rest)
        start += len(block)
    return start


def name_of(data: bytes) -> str:
    """What bytes begin, for people; UNKNOWN where they say nothing."""
    plain = data.lstrip(b" \t\r\n\xef\xbb\xbf")
    begin = plain.lower()
    what = next((what for signature, what in _KNOWN if signature.match(begin)), UNKNOWN)
    if what == "a program (PE)":
        header = int.from_bytes(plain[60:64], "little")
        if header + 4 <= len(begin) and begin[header : header + 2] != b"pe":
            return UNKNOWN  # "MZ" by chance
    return what


def _line_ends(source: Source, start: int) -> bool:
    """A line's end or two, as transfers in text mode leave them."""
    return source.size - start <= 4 and not source.read(start, 4).strip(b"\r\n\0\x1a")
