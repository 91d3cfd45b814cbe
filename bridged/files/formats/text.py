"""Text that the operator lets through: plain, JSON, SVG."""

from __future__ import annotations

import codecs
import json
import re
from xml.parsers import expat

from bridged.files.formats.active import check_text
from bridged.files.formats.limits import Limits
from bridged.files.formats.source import Refusal, Source

MAX_JSON = 64 * 1024 * 1024
"""bytes: parsing needs about ten times that"""

MAX_SVG = 16 * 1024 * 1024
"""bytes: the parser holds one attribute, and we one style, whole"""

MAX_DEPTH, MAX_ELEMENTS = 200, 1_000_000

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f\x80-\x84\x86-\x9f\ufffe\uffff]")
"""controls that text has not; a tab, line ends, form feed, escape (terminal colours in logs) and NEL may be there"""

_FORBIDDEN = frozenset(
    (
        *("script", "foreignobject", "iframe", "object", "embed", "handler", "listener", "audio", "video", "canvas"),
        *("html", "body", "link", "meta", "base", "form", "input", "textarea", "button"),
    )
)
_INNER = re.compile(r"\s*(?:#|data:image/(?:png|jpeg|gif|webp);base64,|$)", re.IGNORECASE)
_URL = re.compile(r"url\(\s*[\"']?(?!\s*(?:#|data:image/(?:png|jpeg|gif|webp)[;,]))", re.IGNORECASE)
_STYLE = re.compile(r"@import|expression\s*\(|javascript\s*:|-moz-binding|behavior\s*:", re.IGNORECASE)
_ESCAPED = re.compile(r"\\([0-9a-fA-F]{1,6})\s?|\\(.)|/\*.*?\*/", re.DOTALL)


def check_plain(source: Source, _: Limits) -> None:
    """Raises Refusal: no UTF-8, with control characters, or with active content."""
    if source.read(0, 5) in (b"{\\rtf", b"%!PS-", b"%PDF-"):
        raise Refusal("it is a document that is more than text")
    decoder = codecs.getincrementaldecoder("utf-8")()
    before = b""
    for block in source.blocks(0, source.size):
        _utf8(decoder, block)
        check_text(before + block, "it", begins=not before)
        before = block[-4096:]
    _utf8(decoder, b"", final=True)


def check_json(source: Source, _: Limits) -> None:
    """Raises Refusal: no JSON, or larger than 64 MB."""
    if source.size > MAX_JSON:
        raise Refusal(f"it is JSON of more than {MAX_JSON // 2**20} MB")
    try:
        json.loads(source.exact(0, source.size).decode("utf-8-sig"), parse_constant=_no_constant)
    except RecursionError:
        raise Refusal("it is nested too deeply") from None
    except ValueError:
        raise Refusal("it is no valid JSON") from None


def check_svg(source: Source, _: Limits) -> None:
    """Raises Refusal: no XML, with entities, scripts, handlers of events, foreign elements or outside references."""
    if source.size > MAX_SVG:
        raise Refusal(f"it is SVG of more than {MAX_SVG // 2**20} MB")
    parser = expat.ParserCreate(namespace_separator=" ")
    walk = _Svg()
    parser.StartElementHandler = walk.start
    parser.EndElementHandler = walk.end
    parser.CharacterDataHandler = walk.text
    parser.StartDoctypeDeclHandler = walk.doctype
    parser.EntityDeclHandler = walk.entity
    parser.ProcessingInstructionHandler = walk.instruction
    parser.buffer_text = True
    try:
        for block in source.blocks(0, source.size):
            parser.Parse(block, False)
        parser.Parse(b"", True)
    except expat.ExpatError:
        raise Refusal("it is no well-formed XML") from None


class _Svg:
    def __init__(self) -> None:
        self._depth = self._elements = 0
        self._style: list[str] | None = None

    def start(self, name: str, attributes: dict[str, str]) -> None:
        local = name.rpartition(" ")[2].lower()
        self._depth += 1
        self._elements += 1
        if self._elements == 1 and local != "svg":
            raise Refusal("it is no SVG")
        if self._depth > MAX_DEPTH or self._elements > MAX_ELEMENTS:
            raise Refusal("it has too many elements")
        if local in _FORBIDDEN:
            raise Refusal(f"it has active content (<{local}>)")
        for key, value in attributes.items():
            self._attribute(local, key.rpartition(" ")[2].lower(), value)
        if local == "style":
            self._style = []

    def _attribute(self, element: str, key: str, value: str) -> None:
        if key.startswith("on") or (
            key == "attributename" and value.strip().lower().startswith(("on", "href", "xlink"))
        ):
            raise Refusal(f"it has active content ({key})")
        if (key in ("href", "src") or key == "base") and element != "a" and not _INNER.match(value):
            raise Refusal(f"it refers to something outside ({key})")
        if element == "a" and key == "href" and not re.match(r"\s*(?:#|https?:)", value):
            raise Refusal("it has active content (a link)")
        _check_style(value)

    def end(self, _: str) -> None:
        self._depth -= 1
        if self._style is not None:
            _check_style("".join(self._style))
            self._style = None

    def text(self, data: str) -> None:
        if self._style is not None:
            self._style.append(data)

    def doctype(self, _: str, __: str | None, ___: str | None, has_subset: int) -> None:
        if has_subset:
            raise Refusal("it declares entities")

    def entity(self, *_: object) -> None:
        raise Refusal("it declares entities")

    def instruction(self, target: str, _: str) -> None:
        raise Refusal(f"it has a processing instruction ({target[:20]})")


def _check_style(value: str) -> None:
    plain = _ESCAPED.sub(_unescaped, value) if "\\" in value or "/*" in value else value
    if _URL.search(plain) or _STYLE.search(plain):
        raise Refusal("it refers to something outside (in a style)")


def _unescaped(found: re.Match[str]) -> str:
    """A character that a style writes with a backslash; nothing for a comment."""
    code = int(found[1], 16) if found[1] else 0
    return chr(code) if 0 < code < 0xD800 else found[2] or ""


def _utf8(decoder: codecs.IncrementalDecoder, block: bytes, *, final: bool = False) -> None:
    try:
        text = decoder.decode(block, final)
    except UnicodeDecodeError:
        raise Refusal("it is no text in UTF-8") from None
    if _CONTROL.search(text):
        raise Refusal("it has control characters, which are no text")


def _no_constant(_: str) -> float:
    raise ValueError
