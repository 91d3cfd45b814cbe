"""Text files, for a service that has text/plain on its map: UTF-8 and nothing that runs."""

from __future__ import annotations

from collections.abc import Iterator

from tests.corpus import payloads
from tests.corpus.benign_words import WORDS
from tests.corpus.case import Case

POEM = "A walk by the river,\nno one in sight;\nthe reeds and the water\nare talking of light.\n"


def _case(kind: str, label: str, data: bytes, name: str = "notes.txt") -> Case:
    return Case(f"{kind}: {label}", name, data, "text/plain", label, kind=kind, encoder="by hand")


def hostile() -> Iterator[Case]:
    late = POEM.encode() * 50
    texts = {
        "invalid UTF-8": POEM.encode() + b"\xff\xfe\xfa",
        "Latin-1": "Übergrößenträger und Äpfel\n".encode("latin-1") * 9,
        "UTF-16": POEM.encode("utf-16"),
        "a surrogate": b"hello \xed\xa0\x80 there\n",
        "an overlong slash": b"hello \xc0\xaf there\n",
        "cut in a character": "봄 소풍".encode()[:-1],
        "NUL": b"hello\0there\n",
        "escape sequences": b"hello \x1b]0;evil\x07\x1b[2J there\n",
        "HTML": payloads.HTML,
        "HTML behind a poem": late + payloads.HTML,
        "a script behind a poem": late + payloads.SCRIPT,
        "PHP": payloads.PHP,
        "PHP behind a poem": late + payloads.PHP,
        "ASP": payloads.ASP,
        "JSP": payloads.JSP,
        "SVG": payloads.SVG,
        "SVG with a declaration": payloads.SVG_DECLARED,
        "SVG behind a BOM": b"\xef\xbb\xbf" + payloads.SVG,
        "shell": payloads.SHELL,
        "Python with a shebang": payloads.PYTHON,
        "Perl": payloads.PERL,
        "a handler": b"hello <img src=x onerror=alert(1)> there\n",
        "an iframe": b'hello <iframe src="https://evil.example"></iframe>\n',
        "RTF": payloads.RTF,
        "PostScript": payloads.POSTSCRIPT,
        "PDF": payloads.PDF,
        "XML with an external entity": payloads.XXE,
    }
    for label, data in texts.items():
        yield _case("text", label, data)


def benign() -> Iterator[Case]:
    yield _case("text", "a poem", POEM.encode())
    yield _case("text", "with a BOM", b"\xef\xbb\xbf" + POEM.encode())
    yield _case("text", "of Windows", POEM.replace("\n", "\r\n").encode())
    yield _case("text", "long", POEM.encode() * 2000)
    yield _case("text", "tabs", b"one\ttwo\tthree\nfour\tfive\tsix and more words\n")
    yield _case("text", "a list of prompts", b"a cat <lora:x:1>, (best:1.2)\na dog, [blurry]\na < b & c > d\n" * 20)
    for language in (word for word in WORDS if word != "code"):
        yield _case("text", language, f"{WORDS[language]}\n{POEM}".encode(), f"{language.replace(' ', '-')}.txt")
