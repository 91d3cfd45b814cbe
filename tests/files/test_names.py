"""File names that callers and backends give."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.errors import FileRefused
from bridged.files.names import MAX_NAME_BYTES, bare_name, extension_of


@pytest.mark.parametrize(
    "name", ["a.png", "a b.png", "Bild ä.png", "그림.webp", "...png", "-rf.png", "noextension", "🐈.gif"]
)
def test_ordinary_names_are_kept(name: str) -> None:
    assert bare_name(name) == unicodedata.normalize("NFC", name)


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
        ("a\n.png", "no control or invisible characters"),
        ("a\0.png", "no control or invisible characters"),
        ("a\u202egnp.exe", "no control or invisible characters"),
        ("a\u200b.png", "no control or invisible characters"),
        ("a\ud800.png", "no control or invisible characters"),
        ("ä" * 126 + ".png", "longer than 255 bytes"),
    ],
)
def test_what_is_no_bare_name_is_refused_with_the_reason(name: str, says: str) -> None:
    with pytest.raises(FileRefused, match=says):
        bare_name(name)


def test_the_longest_name_that_linux_takes() -> None:
    assert len(bare_name("ä" * 125 + ".pngx").encode()) == 255
    assert bare_name("a" * 255) == "a" * 255


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
    assert accepted not in ("", ".", "..")
    assert 0 < len(accepted.encode()) <= MAX_NAME_BYTES


@pytest.mark.parametrize(
    ("name", "extension"),
    [("a.png", ".png"), ("a.tar.GZ", ".gz"), ("a", ""), (".png", ""), ("a.", "."), ("..png", ".png"), ("", "")],
)
def test_extensions(name: str, extension: str) -> None:
    assert extension_of(name) == extension
