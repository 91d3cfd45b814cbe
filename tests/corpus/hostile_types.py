"""Files that are not what they say: by extension, by declared type, or by the first bytes only."""

from __future__ import annotations

from collections.abc import Iterator

from tests.corpus import payloads
from tests.corpus.case import MIME, Case, mime
from tests.corpus.forms import PNG_MAGIC, ebml_head
from tests.corpus.seeds import EXTENSIONS, IMAGES, seed


def wrong_extension() -> Iterator[Case]:
    """Each type under the names of others, and under names that are on no list."""
    for place, true in enumerate(EXTENSIONS):
        others = [EXTENSIONS[(place + step) % len(EXTENSIONS)] for step in (1, 4)]
        for claimed in (*others, ".exe", ".html"):
            name = f"file{claimed}"
            yield Case(f"{true} as {claimed}", name, seed(true), mime(name), "the name has another type's extension")
    for name in ("photo", "photo.", ".png", "photo.pn", "photo.png.exe", "photo.png_", "photo.png.svg"):
        yield Case(f"PNG as {name!r}", name, seed(".png"), "image/png", "no extension that a PNG has")


def wrong_declaration() -> Iterator[Case]:
    """The part's Content-Type says something else than content and name do."""
    pairs = [
        (".png", "image/jpeg"),
        (".png", "text/html"),
        (".png", "application/zip"),
        (".png", "image/svg+xml"),
        (".png", "application/x-php"),
        (".png", "text/plain"),
        (".png", "multipart/mixed"),
        (".jpg", "image/png"),
        (".jpg", "application/javascript"),
        (".gif", "application/java-archive"),
        (".gif", "image/webp"),
        (".webp", "image/gif"),
        (".bmp", "application/x-msdownload"),
        (".tif", "application/pdf"),
        (".mp4", "audio/mpeg"),
        (".mp4", "text/html"),
        (".mov", "image/png"),
        (".webm", "video/mp4"),
        (".mp3", "video/mp4"),
        (".wav", "image/webp"),
        (".flac", "audio/mpeg"),
        (".ogg", "text/html"),
    ]
    for extension, declared in pairs:
        name = f"file{extension}"
        yield Case(f"{extension} declared {declared}", name, seed(extension), declared, "declared as something else")


def not_allowed() -> Iterator[Case]:
    """Content that no setting allows by default, under its own name and under a picture's."""
    for label, (name, data) in payloads.FOREIGN.items():
        yield Case(f"{label} as {name}", name, data, mime(name), "not on the allowed map")
        yield Case(f"{label} as photo.png", "photo.png", data, "image/png", "not on the allowed map, and no PNG")
    for extension in (".jpg", ".gif", ".mp4", ".mp3"):
        for label in ("ELF", "PHP", "ZIP"):
            data = payloads.FOREIGN[label][1]
            yield Case(f"{label} as file{extension}", f"file{extension}", data, MIME[extension], "not what it says")


def disguised() -> Iterator[Case]:
    """SVG and HTML under innocent names, in the encodings that browsers guess."""
    pages = {
        "SVG": payloads.SVG,
        "SVG with a declaration": payloads.SVG_DECLARED,
        "SVG with a BOM": b"\xef\xbb\xbf" + payloads.SVG,
        "SVG in UTF-16": payloads.SVG.decode().encode("utf-16"),
        "SVG behind a comment": b"<!-- " + b"x" * 600 + b" -->" + payloads.SVG,
        "HTML": payloads.HTML,
        "HTML behind spaces": b" \n" * 300 + payloads.HTML,
        "HTML in UTF-16": payloads.HTML.decode().encode("utf-16"),
        "a bare script": payloads.SCRIPT,
    }
    for label, data in pages.items():
        for extension in (".png", ".jpg", ".gif", ".txt"):
            name = f"drawing{extension}"
            declared = MIME.get(extension, "text/plain")
            yield Case(f"{label} as {name}", name, data, declared, "active content under an innocent name")


MAGIC = {
    ".png": PNG_MAGIC,
    ".jpg": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
    ".gif": b"GIF89a",
    ".webp": b"RIFF\xff\xff\x00\x00WEBPVP8 ",
    ".bmp": b"BM\x46\x00\x00\x00\x00\x00\x00\x00\x36\x00\x00\x00\x28\x00\x00\x00",
    ".tif": b"II*\x00\x08\x00\x00\x00",
    ".mp4": b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2",
    ".mov": b"\x00\x00\x00\x14ftypqt  \x20\x05\x03\x00qt  ",
    ".webm": ebml_head(),
    ".mp3": b"ID3\x03\x00\x00\x00\x00\x00\x00",
    ".wav": b"RIFF\xff\xff\x00\x00WAVEfmt ",
    ".flac": b"fLaC\x00\x00\x00\x22",
    ".ogg": b"OggS\x00\x02" + bytes(8) + b"\x01\x00\x00\x00",
}
"""what a guess by the first bytes is content with"""


def magic_only() -> Iterator[Case]:
    """The first bytes of an allowed type, and something else behind them."""
    bodies = {"HTML": payloads.HTML, "PHP": payloads.PHP, "an SVG": payloads.SVG, "a ZIP": payloads.ZIP}
    for extension, magic in MAGIC.items():
        name = f"file{extension}"
        for label, body in bodies.items():
            yield Case(
                f"{extension} magic and {label}",
                name,
                magic + body,
                MIME[extension],
                "only the magic is real",
            )
        yield Case(f"{extension} magic alone", name, magic, MIME[extension], "only the magic")


def tiny() -> Iterator[Case]:
    for extension in EXTENSIONS:
        yield Case(f"empty {extension}", f"file{extension}", b"", MIME[extension], "empty")
        yield Case(f"one byte of {extension}", f"file{extension}", seed(extension)[:1], MIME[extension], "one byte")
    for extension in IMAGES:
        yield Case(f"four bytes of {extension}", f"f{extension}", seed(extension)[:4], MIME[extension], "four bytes")
