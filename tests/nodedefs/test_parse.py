"""What backends' answers about nodes may say, and what is left out of them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.errors import BackendUnavailable
from bridged.nodedefs.parse import (
    MAX_CHOICES,
    MAX_NAME,
    ClassesReader,
    is_file_name,
    parse_classes,
    parse_combos,
    parse_list,
)

DEEP = b"[" * 100_000


def test_classes_outputs_and_definitions_as_they_came() -> None:
    found = parse_classes(b'{"A": {"output_node": true,  "x": 1}, "B": {"output_node": null}, "C": {}}')
    assert set(found.names) == {"A", "B", "C"}
    assert set(found.outputs) == {"A"}
    assert found.definitions["A"] == b'{"output_node": true,  "x": 1}'


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"A": 5}', b'{"A": {"output_node": 1}}', b"\xff", b'{"A":' + DEEP]
)
def test_what_is_no_object_info_is_refused(body: bytes) -> None:
    with pytest.raises(BackendUnavailable):
        parse_classes(body)


def test_a_list_is_cut() -> None:
    assert len(parse_list(json.dumps(["a"] * (MAX_CHOICES + 1)).encode())) == MAX_CHOICES


def test_only_fit_choices_are_taken() -> None:
    long = "a" * MAX_NAME
    body = json.dumps(
        ["a", "", long, long + "a", "a\nb", "a\x00", "\x1b[31m", "a\x7f", "a\u202eb", 1, 1.5, True, None, [], {}]
    )
    assert parse_list(body.encode()) == ("a", long, 1, 1.5, True)


@pytest.mark.parametrize("name", ["a b.pt", "画像.png", "é.pt", "画像\u30001.png", "a\u00a0b.png"])
def test_names_in_any_script_are_taken(name: str) -> None:
    assert parse_list(json.dumps([name]).encode()) == (name,)


def test_a_list_under_its_key() -> None:
    body = b'{"files": ["a"], "other": 5}'
    assert parse_list(body, "files") == ("a",)
    assert parse_list(b'["a"]', "files") == ("a",)
    for key in ("other", "none", "", None):
        with pytest.raises(BackendUnavailable):
            parse_list(body, key)


@pytest.mark.parametrize("body", [b"", b"5", b'"a"', b"null", b"{}", b"[", b"\xff", b'["\xff"]', DEEP])
def test_what_is_no_list_is_refused(body: bytes) -> None:
    with pytest.raises(BackendUnavailable):
        parse_list(body)


def test_combos_by_class_and_input() -> None:
    assert parse_combos(b'{"combos": {"A": {"x": {"folder": "loras", "more": 1}}, "B": {}}}') == {("A", "x"): "loras"}


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"combos": {"A": {"x": "loras"}}}', b"\xff", DEEP])
def test_what_are_no_combos_is_refused(body: bytes) -> None:
    with pytest.raises(BackendUnavailable):
        parse_combos(body)


@pytest.mark.parametrize(
    ("name", "is_fit"),
    [
        ("a.pt", True),
        ("s/a.pt", True),
        ("s\\a.pt", True),
        ("..a/b..", True),
        ("...", True),
        ("", False),
        ("/a", False),
        ("\\a", False),
        ("\\\\host\\a", False),
        ("C:\\a", False),
        ("C:a", False),
        ("..", False),
        ("../a", False),
        ("s/../a", False),
        ("s\\..\\a", False),
        ("s/..", False),
        ("./a", False),
        ("s//a", False),
        ("s/", False),
    ],
)
def test_file_names_stay_in_their_folder(name: str, is_fit: bool) -> None:
    assert is_file_name(name) is is_fit


PARTS = ["", "a", "a.pt", ".", "..", "/", "\\", ":", "\n", "\u3000", "\0", "é", "./", "a" * (MAX_NAME - 1)]


@given(st.lists(st.lists(st.sampled_from(PARTS), max_size=4).map("".join), max_size=4))
def test_many_files_at_once_are_what_each_is_alone(names: list[str]) -> None:
    alone = [name for each in names for name in parse_list(json.dumps([each, 0]).encode(), files=True)]
    assert list(parse_list(json.dumps(names).encode(), files=True)) == alone


def test_the_same_text_again_is_the_same_object() -> None:
    reader = ClassesReader()
    first = reader.read(b'{"A": {}}')
    assert reader.read(b'{"A": {}}') is first
    assert reader.read(b'{"A": {"output_node": true}}').outputs == {"A"}
    with pytest.raises(BackendUnavailable):
        reader.read(b"[]")
