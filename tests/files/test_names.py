"""File names that callers and backends give."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.errors import FileRefused
from bridged.files.names import MAX_NAME_BYTES, bare_name, extension_of


@pytest.mark.parametrize(
    "name",
    [
        "a.png",
        "a b.png",
        "Bild ä.png",
        "그림.webp",
        "写真 (1).jpeg",
        "Фото-2024.jpg",
        "صورة.png",
        "चित्र.png",
        "क्\u200dष.png",  # Hindi: a joiner keeps two letters apart
        "نامه\u200cها.png",  # Persian: the plural without a space
        "ශ්\u200dරී.png",  # Sinhala
        "ﺎ\u0600٥.png",  # an Arabic sign of numbers, which is seen
        "🐈.gif",
        "👩\u200d🚀.png",  # emoji of several
        "👍🏽\ufe0f\u200d👩.png",
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f.png",  # the flag of England
        "\U0001fae9.png",  # an emoji newer than Python 3.11's tables
        "Screenshot 2024-01-01 at 3.04.05\u202fPM.png",  # as macOS names them
        "ComfyUI_00001_.png",
        "-rf.png",  # no command line sees it
        "noextension",
        "my.photo.v2.png",
        "example.com.png",
        "workflow.app.final.png",
        "console.png",
        "communication.png",
        "com10.png",
        "nul-1.png",
        "php.png",
        "a.tar.gz",
        "50% off; now.png",
        "images%2Fphoto.png",
        "'quoted'.png",
    ],
)
def test_ordinary_names_are_kept(name: str) -> None:
    assert bare_name(name) == unicodedata.normalize("NFC", name)


INVISIBLE = "no control or invisible characters"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "filename is required"),
        (".", "filename is required"),
        ("..", "filename is required"),
        ("../a.png", "must be a bare name"),
        ("/etc/passwd", "must be a bare name"),
        ("a/b.png", "must be a bare name"),
        ("C:\\a.png", "must be a bare name"),
        (" a.png", "no outer spaces"),
        ("a.png ", "no outer spaces"),
        ("a.png\u2003", "no outer spaces"),
        ("a\n.png", INVISIBLE),
        ("a\0.png", INVISIBLE),
        ("a\x7f.png", INVISIBLE),
        ("a\x85b.png", INVISIBLE),
        ("a\u2028b.png", INVISIBLE),
        ("a\u202egnp.exe", INVISIBLE),
        ("a\u2066b.png", INVISIBLE),
        ("a\u200eb.png", INVISIBLE),
        ("a\u061cb.png", INVISIBLE),
        ("a\u200b.png", INVISIBLE),
        ("a\u00adb.png", INVISIBLE),
        ("a\ufeffb.png", INVISIBLE),
        ("a\u200d.png", INVISIBLE),  # a joiner behind a Latin letter joins nothing
        ("Фото\u200c.png", INVISIBLE),
        ("\u200dक.png", INVISIBLE),
        ("क\u200d\u200d.png", INVISIBLE),
        ("a\U000e0067\U000e007f.png", INVISIBLE),
        ("a\u3164.png", INVISIBLE),
        ("a\ud800.png", INVISIBLE),
        ("a\uf022b.png", INVISIBLE),  # what Windows' subsystem writes for a colon
        ("a\ufffe.png", INVISIBLE),
        ("a\U0001ffff.png", INVISIBLE),
        ("a\ufdd0.png", INVISIBLE),
        ("ä" * 126 + ".png", "longer than 255 bytes"),
        ("a" * 256, "longer than 255 bytes"),
        *((f"a{character}b.png", "must have none of") for character in "<>:|"),
        (".hidden.png", "must neither begin nor end with a dot"),
        (".png", "must neither begin nor end with a dot"),
        ("...png", "must neither begin nor end with a dot"),
        ("a.png.", "must neither begin nor end with a dot"),
        ("CON", "the name of a device"),
        ("con.png", "the name of a device"),
        ("Aux .png", "the name of a device"),
        ("NUL.tar.png", "the name of a device"),
        ("com0.png", "the name of a device"),
        ("COM9", "the name of a device"),
        ("lpt¹.png", "the name of a device"),
        ("COM³.txt", "the name of a device"),
        ("CONIN$", "the name of a device"),
        ("conout$.png", "the name of a device"),
        ("photo.php.png", "hides the extension .php"),
        ("photo.PhP5.png", "hides the extension"),
        ("x.exe.jpg", "hides the extension .exe"),
        ("a.svg.png", "hides the extension .svg"),
        ("a.html.b.png", "hides the extension .html"),
        ("a.php .png", "hides the extension"),
        ("a.asp;.jpg", "hides the extension"),
        ("a.php%00.png", "hides a path"),
        ("a.php%20.png", "hides the extension"),
        ("a.phtml.png", "hides the extension"),
        ("%2e%2e%2fa.png", "hides a path behind percent signs"),
        ("a%2f..%5cb.png", "hides a path behind percent signs"),
        ("%252e%252e%252fa.png", "hides a path behind percent signs"),
        ("a%0d%0ab.png", "hides a path behind percent signs"),
        ("a.JS.png", "hides the extension"),
    ],
)
def test_what_is_no_bare_name_is_refused_with_the_reason(name: str, says: str) -> None:
    with pytest.raises(FileRefused, match=says):
        bare_name(name)


def test_an_error_does_not_repeat_a_long_name() -> None:
    with pytest.raises(FileRefused) as refused:
        bare_name("a/" * 10_000)
    assert len(str(refused.value)) < 200


def test_the_longest_name_that_linux_takes() -> None:
    assert len(bare_name("ä" * 125 + ".pngx").encode()) == 255
    assert bare_name("a" * 255) == "a" * 255
    decomposed = "a\u0308" * 125 + ".pngx"
    assert len(decomposed.encode()) > 255
    assert len(bare_name(decomposed).encode()) == 255, "the limit is that of the name as it is kept"


def test_names_are_composed_as_others_will_look_for_them() -> None:
    assert bare_name("a\u0308.png") == "ä.png"


@given(st.text(st.characters()))
def test_any_text_is_a_bare_name_or_refused(name: str) -> None:
    try:
        accepted = bare_name(name)
    except FileRefused:
        return
    assert accepted == bare_name(accepted)
    assert not set(accepted) & set("/\\\0\r\n")
    assert accepted.strip(".") == accepted != ""
    assert 0 < len(accepted.encode()) <= MAX_NAME_BYTES


@pytest.mark.parametrize(
    ("name", "extension"),
    [("a.png", ".png"), ("a.tar.GZ", ".gz"), ("a", ""), (".png", ""), ("a.", "."), ("..png", ".png"), ("", "")],
)
def test_extensions(name: str, extension: str) -> None:
    assert extension_of(name) == extension
