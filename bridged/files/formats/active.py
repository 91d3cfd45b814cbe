"""Active content where a file has room for words: comments, text chunks, XMP, tags, boxes that nobody reads.

Looked at is only what a format's walk calls metadata, never compressed pixels or samples: those may spell anything.
And only structure counts: a tag, an open tag of PHP, an archive's header. Words do not: a prompt may say `eval(`.

ComfyUI writes its graph as JSON into every result, and a graph may have notes with any markup in them. What is a
whole JSON object is therefore data, and may have tags: what is delivered as an attachment with `nosniff` is not
rendered. An open tag of PHP is refused even there: an interpreter that includes a file reads no headers.
"""

from __future__ import annotations

import json
import re
from typing import NoReturn

from bridged.files.formats.source import BLOCK, Refusal, Source

MAX_TEXT = 8 * 1024 * 1024
"""bytes of one text, unpacked: a large ComfyUI graph has 2 MB"""

_NAME = rb"[a-z][\w:.-]{0,40}"
_MARKUP = re.compile(
    rb"<(?:"
    rb"script[\s>/]|iframe[\s>/]|html[\s>]|!doctype\s{1,9}html|!entity\s|foreignobject[\s>/]"
    rb"|svg\s[^<>\x00-\x08\x0e-\x1f]{0,2000}?xmlns"
    rb"|xsl:(?:stylesheet|template)\s|\?xml-stylesheet\s"
    rb"|" + _NAME + rb"(?:[\s/][^<>\x00-\x08\x0e-\x1f]{0,2000}?)?[\s/\"']on[a-z]{3,24}\s{0,9}="
    rb"|" + _NAME + rb"[\s/][^<>\x00-\x08\x0e-\x1f]{0,2000}?(?:href|src|action|data|content|from|to|values)\s{0,9}="
    rb"\s{0,9}[\"']?\s{0,9}(?:java|vb)script\s{0,9}:"
    rb")",
    re.IGNORECASE,
)
_LOOSE_MARKUP = re.compile(
    rb"<(?:"
    rb"svg[\s/][^<>\x00-\x08\x0e-\x1f]{0,2000}?>|applet\s|jsp:\w|body\s{0,9}>\s{0,9}<"
    rb"|(?:object|embed|meta|form|base|link)\s[^<>\x00-\x08\x0e-\x1f]{0,2000}?(?:data|classid|src|http-equiv|action|href)\s{0,9}="
    rb")",
    re.IGNORECASE,
)
_PHP = re.compile(
    rb"<\?(?:php(?:\s|$)|=\s{0,9}(?:"
    rb"[$`@\"'(\\\[!~+#/-](?:[\t\n\r -~]{8}|[\t\n\r -~]{1,7}\?>)|`[\t\n\r -~]{1,7}`\s?;"
    rb"|[a-z_]\w{2,40}\s{0,9}(?:[(#\"'`$\\]|/[/*])[\t\n\r -~]{3}))",
    re.IGNORECASE,
)
"""open tags; `<?=` only with enough of an expression behind it that compressed bytes do not spell it by chance"""
_SERVER = re.compile(
    rb"<(?:\?=|%[@=!]|%\s{0,9}(?:eval|execute|response|request|runtime|out|system|session)\b"
    rb"|\?\s{0,9}(?:\$\w|(?:echo|eval|system|exec|passthru|shell_exec|include|require|assert|print)\b))",
    re.IGNORECASE,
)
_SHEBANG = re.compile(rb"\s{0,16}#!\s{0,9}/[\w/.-]{1,60}")
_HEAD = re.compile(
    rb"<(?:!doctype\s{1,9}html|(?:html|head|body|script|iframe|svg|title|table|style)[\s>/]|\?php\s|\?xml\s)",
    re.IGNORECASE,
)
_PDF = re.compile(rb"%PDF-\d\.\d")
_LABELLED = re.compile(rb"[\w .-]{1,64}:\s{0,9}(?=\{)")

_SIGNATURES = (
    (b"\x1a", b"Rar!\x1a\x07", "a RAR archive", None),
    (b"\xaf", b"7z\xbc\xaf\x27\x1c", "a 7z archive", None),
    (
        b"\x04",
        b"PK\x03\x04",
        "a ZIP archive",
        re.compile(
            rb"PK\x03\x04[\x0a-\x3f]\x00.[\x00-\x2f][\x00\x08\x09\x0c\x0e\x5d\x5f\x62\x63]\x00.{16}.[\x00-\x03]", re.S
        ),
    ),
    (b"\x7f", b"\x7fELF", "a program", re.compile(rb"\x7fELF[\x01\x02][\x01\x02]\x01")),
    (
        b"\0",
        b"This program ",
        "a program",
        re.compile(rb"This program (?:cannot be|must be) run (?:in|under) (?:DOS mode|Win)"),
    ),
    (b"<", b"__HALT_COMPILER(", "a PHP archive", None),
)
"""a byte that text seldom has and that is found at memory's speed, bytes to look for, what they begin, and what else
has to be there"""

_END_OF_DIRECTORY = b"PK\x05\x06"
_END_RECORD, _MAX_COMMENT = 22, 65_535
"""bytes: a ZIP's last record, and the comment that may follow it (APPNOTE 4.3.16)"""


def check_text(text: bytes, where: str, *, begins: bool = True) -> None:
    """A value that is text, in any encoding that has ASCII's letters; `begins`: from its first byte on.

    Raises Refusal: it has active content.
    """
    check_archives(text, where)
    if b"\0" in text:
        text = text.replace(b"\0", b"")  # UTF-16
    if begins and _SHEBANG.match(text):
        raise Refusal(f"{where} starts like a script ({_shown(text[:40])})")
    if b"<" not in text:
        return
    if found := _PHP.search(text):
        _refuse(found, where)
    found = _MARKUP.search(text) or _LOOSE_MARKUP.search(text) or _SERVER.search(text)
    if found and not is_json_object(text):
        _refuse(found, where)


def check_block(data: bytes, where: str) -> None:
    """Data that may be anything, words among them. Raises Refusal: it has what is active in any surroundings."""
    if found := suspicious(data):
        _refuse(found, where)
    check_archives(data, where)


def check_framed(data: bytes, where: str) -> None:
    """A text between bytes that frame it (a language, an encoding, a length). Raises Refusal, as for a block; a JSON
    object in there is data."""
    start, end = data.find(b"{"), data.rfind(b"}") + 1
    if 0 <= start < end and suspicious(data):
        text = data[start:end].replace(b"\0", b"")
        if is_json_object(text):
            check_text(text, where)
            data = data[:start] + data[end:]
    check_block(data, where)


def suspicious(data: bytes) -> re.Match[bytes] | None:
    """Markup or PHP in binary data, plain or in UTF-16: of at least 6 bytes, so that chance has no part in it."""
    found = _MARKUP.search(data) or _PHP.search(data)
    if not found and b"<\0" in data:
        plain = data.replace(b"\0", b"")
        found = _MARKUP.search(plain) or _PHP.search(plain)
    return found


def check_archives(data: bytes, where: str) -> None:
    """Raises Refusal: an archive or a program begins in there."""
    for rare, signature, what, pattern in _SIGNATURES:
        if rare in data and signature in data and (pattern is None or pattern.search(data)):
            raise Refusal(f"{where} holds {what}")


def check_region(source: Source, start: int, end: int, where: str) -> None:
    """`check_block` for a stretch of any length, in constant memory."""
    if end - start <= BLOCK:
        check_block(source.exact(start, end - start), where)
        return
    before = b""
    for block in source.blocks(start, end):
        if block.count(0) != len(block):
            check_block(before + block, where)
        before = block[-4096:]


def is_json_object(text: bytes) -> bool:
    """Whether all of it is one JSON object, as ComfyUI writes them: perhaps behind a label (`workflow:{…}` in EXIF)."""
    label = _LABELLED.match(text)
    try:
        return isinstance(json.loads(text[label.end() :] if label else text), dict)
    except (ValueError, RecursionError):
        return False


def check_head(source: Source, *, walked: bool) -> None:
    """What others would take the file for by how it begins: PDF readers look for their header in the first 1024 bytes,
    browsers for tags in the first 256. Raises Refusal.

    `walked`: a format's walk has looked at its metadata and tables, and knows more than where they begin: ComfyUI's
    graph is in a PNG's first bytes, and may have tags.
    """
    head = source.read(0, 1024)
    if b"%PDF-" in head and _PDF.search(head):
        raise Refusal("it is a PDF document, too: a PDF header is in its first 1024 bytes")
    if not walked and b"<" in head[:256] and (found := _HEAD.search(head[:262])):
        _refuse(found, "its beginning")


def check_zip(source: Source) -> None:
    """Raises Refusal: a ZIP archive (a JAR, a document) ends where the file ends, whatever the file is otherwise.

    A record counts where its directory is there: four bytes by chance do not.
    """
    start = max(0, source.size - _END_RECORD - _MAX_COMMENT)
    tail = source.read(start, _END_RECORD + _MAX_COMMENT)
    at = tail.rfind(_END_OF_DIRECTORY)
    while at >= 0:
        record = tail[at : at + _END_RECORD]
        if len(record) == _END_RECORD:
            size = int.from_bytes(record[12:16], "little")
            offset = int.from_bytes(record[16:20], "little")
            zip64 = source.read(start + at - 20, 4) == b"PK\x06\x07" if start + at >= 20 else False
            if zip64 or any(
                place >= 0 and source.read(place, 4) == b"PK\x01\x02" for place in (start + at - size, offset)
            ):
                raise Refusal("it is a ZIP archive, too: its end has an archive's directory")
        at = tail.rfind(_END_OF_DIRECTORY, 0, at)


def _refuse(found: re.Match[bytes], where: str) -> NoReturn:
    raise Refusal(f"{where} has active content ({_shown(found.group()[:40])})")


def _shown(data: bytes) -> str:
    return "".join(character if character.isprintable() else "." for character in data.decode("latin-1"))
