"""Names that mean something else to a file system, a shell, a web server or a reader than to whoever checks them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from tests.corpus.case import MIME, Case
from tests.corpus.seeds import seed

PATHS = {
    "parent": "../photo.png",
    "far parent": "../../../../../../etc/cron.d/photo.png",
    "folder": "folder/photo.png",
    "own folder": "./photo.png",
    "absolute": "/etc/passwd.png",
    "double slash": "//host/share/photo.png",
    "home": "~/photo.png",
    "backslash parent": "..\\..\\photo.png",
    "backslash folder": "folder\\photo.png",
    "mixed slashes": "..\\../photo.png",
    "drive": "C:\\Windows\\photo.png",
    "drive, relative": "C:photo.png",
    "drive, slash": "C:/photo.png",
    "UNC": "\\\\evil.example\\share\\photo.png",
    "device path": "\\\\?\\C:\\photo.png",
    "dots": "....//photo.png",
    "only dots": "..",
    "one dot": ".",
    "slash at the end": "photo.png/",
    "file URL": "file:///etc/passwd.png",
}
ENCODED = {
    "percent slash": "..%2f..%2fphoto.png",
    "percent dots": "%2e%2e%2fphoto.png",
    "percent backslash": "..%5c..%5cphoto.png",
    "twice encoded": "..%252f..%252fphoto.png",
    "percent NUL": "photo.php%00.png",
    "percent newline": "photo%0d%0aSet-Cookie: a=b.png",
    "fullwidth solidus": "..\uff0fphoto.png",
    "fullwidth reverse solidus": "..\uff3cphoto.png",
    "fraction slash": "..\u2044photo.png",
    "division slash": "..\u2215photo.png",
    "two dot leader": "\u2025/photo.png",
}
CONTROLS = {
    "NUL": "photo.php\x00.png",
    "NUL at the end": "photo.png\x00",
    "newline": "photo\n.png",
    "carriage return": "photo\r\nX-Evil: 1.png",
    "tab": "photo\t.png",
    "escape": "photo\x1b[31m.png",
    "bell": "photo\x07.png",
    "delete": "photo\x7f.png",
    "C1 control": "photo\x9b31m.png",
    "line separator": "photo\u2028.png",
    "paragraph separator": "photo\u2029.png",
    "right-to-left override": "photo\u202egnp.exe.png",
    "left-to-right override": "photo\u202d.png",
    "right-to-left embedding": "photo\u202b.png",
    "right-to-left isolate": "photo\u2067gnp.png",
    "first strong isolate": "photo\u2068.png",
    "pop directional": "photo\u202c.png",
    "right-to-left mark": "photo\u200f.png",
    "zero width space": "photo\u200b.png",
    "byte order mark": "\ufeffphoto.png",
    "soft hyphen": "pho\u00adto.png",
    "word joiner": "photo\u2060.png",
    "tag characters": "photo\U000e0041\U000e0042.png",
}
WINDOWS = {
    "CON": "CON.png",
    "con": "con.png",
    "NUL": "NUL.png",
    "AUX": "aux.png",
    "PRN": "PRN.png",
    "COM1": "COM1.png",
    "LPT9": "lpt9.png",
    "superscript": "COM\u00b9.png",
    "CONIN$": "CONIN$.png",
    "two extensions": "nul.tar.png",
    "space": "CON .png",
    "stream": "photo.png:evil.exe",
    "stream, data": "photo.png::$DATA",
    "stream, data, extension": "shell.php::$DATA.png",
    "stream before the extension": "photo:evil.png",
    "dot at the end": "photo.png.",
    "dots at the end": "photo.png...",
    "space at the end": "photo.png ",
    "dot and space": "photo.png. .",
    "no-break space at the end": "photo.png\u00a0",
    "ideographic space at the end": "photo.png\u3000",
}
PROGRAMS = (
    "php", "php5", "phtml", "phar", "pht", "asp", "aspx", "ashx", "jsp", "jspx", "cgi", "exe", "scr", "bat", "cmd",
    "pif", "msi", "dll", "vbs", "ps1", "hta", "jar", "sh", "html", "htm", "xhtml", "shtml", "svg", "js",
)  # fmt: skip


def names() -> Iterator[Case]:
    """All of them on a good PNG, so that nothing but the name can be at fault."""
    png = seed(".png")
    for group, listed in (("path", PATHS), ("encoded", ENCODED), ("control", CONTROLS), ("Windows", WINDOWS)):
        for label, name in listed.items():
            yield Case(f"{group}, {label}", name, png, "image/png", f"{group}: {label}")
    for program in PROGRAMS:
        yield Case(f"double .{program}", f"photo.{program}.png", png, "image/png", "executable before the extension")
    for name in ("photo.PhP.png", "photo.php.PNG", "photo.php .png", "photo.php..png", "photo.php.jpg.png"):
        yield Case(f"double {name!r}", name, png, "image/png", "executable before the extension, in disguise")
    yield Case("double .php, JPEG", "a.php.jpg", seed(".jpg"), MIME[".jpg"], "executable before the extension")
    yield Case("double .html, GIF", "a.html.gif", seed(".gif"), MIME[".gif"], "executable before the extension")


def lengths() -> Iterator[Case]:
    png = seed(".png")
    decomposed = unicodedata.normalize("NFD", "각" * 60)
    for label, name in {
        "256 bytes": "a" * 252 + ".png",
        "Korean": "가" * 100 + ".png",
        "emoji": "\U0001f600" * 70 + ".png",
        "decomposed Korean": decomposed * 2 + ".png",
        "4 kB": "a" * 4096 + ".png",
    }.items():
        yield Case(f"too long, {label}", name, png, "image/png", "longer than a file system takes, in bytes")


def not_utf8() -> Iterator[Case]:
    png = seed(".png")
    for label, name in {
        "overlong slash": b"..\xc0\xaf..\xc0\xafphoto.png",
        "overlong dot": b"\xc0\xae\xc0\xae/photo.png",
        "overlong NUL": b"photo.php\xc0\x80.png",
        "surrogate": b"photo\xed\xa0\x80.png",
        "cut sequence": b"photo\xe2\x82.png",
        "invalid byte and a path": b"\xff/../photo.png",
    }.items():
        yield Case(f"not UTF-8, {label}", name, png, "image/png", f"no valid UTF-8: {label}")
