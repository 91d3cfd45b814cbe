"""V2 as it is sent: what is left out comes back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.nodedefs.brief import brief, whole
from bridged.nodedefs.forms import Definition, to_v1, to_v2
from tests.nodedefs.samples import json_objects, recorded, text, v1_definitions

USUAL = {"input": {}, "output": [], "name": "X", "display_name": "X", "description": "", "category": "c"}


def through(v1: Definition, name: str) -> Definition:
    return to_v1(whole(brief(to_v2(v1), name), name))


def test_every_recorded_class_comes_back_as_it_was_in_its_order() -> None:
    for name, v1 in recorded().items():
        assert text(through(v1, name)) == text(v1), name


@given(v1_definitions | json_objects(), st.sampled_from(["X", ""]))
def test_whatever_a_node_says_comes_back(v1: Definition, name: str) -> None:
    for each in (v1, {**v1, "name": name, "description": ""}, {**USUAL, **v1}):
        assert text(through(each, name)) == text(to_v1(to_v2(each)))


def test_what_goes_without_saying_is_not_sent() -> None:
    assert brief(USUAL, "X") == {"input": {}, "output": [], "category": "c"}


@pytest.mark.parametrize(
    "known",
    [
        {"name": "Y", "display_name": "Why", "description": "d"},
        {"name": None, "display_name": False, "description": []},
    ],
)
def test_what_does_not_is(known: dict[str, Any]) -> None:
    assert brief({**USUAL, **known}, "X") == {**USUAL, **known}


def test_what_was_not_there_does_not_come_back() -> None:
    v1 = {key: value for key, value in USUAL.items() if key != "description"}
    assert brief(v1, "X")["v1"] == {"absent": ["description"]}
    assert "description" not in whole(brief(v1, "X"), "X")
