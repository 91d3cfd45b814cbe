"""A pool's file names as one PC writes them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridged.nodedefs.localise import localised

WINDOWS = {"Loader": json.dumps({"input": {"required": {"name": [["s\\a.pt", "b.pt"]], "text": ["STRING"]}}}).encode()}
LINUX = {"Loader": json.dumps({"input": {"required": {"name": [["s/a.pt", "b.pt"]]}}}).encode()}


def graph(kind: str = "Loader", **inputs: Any) -> dict[str, dict[str, Any]]:
    return {
        "1": {"class_type": kind, "inputs": inputs, "_meta": {"title": "x"}},
        "2": {"class_type": "B", "inputs": {}},
    }


def test_a_windows_pc_gets_backslashes() -> None:
    given = graph(name="s/a.pt", text="s/a.pt")
    found = localised(given, WINDOWS)
    assert found["1"] == {**given["1"], "inputs": {"name": "s\\a.pt", "text": "s/a.pt"}}
    assert found["2"] is given["2"]
    assert given == graph(name="s/a.pt", text="s/a.pt")  # not written to


def test_a_windows_name_is_known_to_another_pc() -> None:
    assert localised(graph(name="s\\a.pt"), LINUX)["1"]["inputs"]["name"] == "s/a.pt"


def test_a_file_newer_than_the_definitions_is_written_as_the_others_are() -> None:
    assert localised(graph(name="s/new.pt"), WINDOWS)["1"]["inputs"]["name"] == "s\\new.pt"
    assert localised(graph(name="s/new.pt"), LINUX)["1"]["inputs"]["name"] == "s/new.pt"


@pytest.mark.parametrize(
    "given",
    [
        graph(name="b.pt"),
        graph(name="s\\a.pt"),
        graph(text="a/b"),
        graph(name=["4", 0]),
        graph(name=5, other="a/b"),
        graph("Unknown", name="s/a.pt"),
        {},
    ],
)
def test_a_graph_with_nothing_to_change_is_the_same_object(given: Any) -> None:
    assert localised(given, WINDOWS) is given


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"input": 5}', b'{"input": {"required": {"name": [[]]}}}'])
def test_unreadable_definitions_change_nothing(raw: bytes) -> None:
    given = graph(name="s/a.pt")
    assert localised(given, {"Loader": raw}) is given


def test_several_inputs_and_explicit_combos() -> None:
    raw = json.dumps({"input": {"required": {n: ["COMBO", {"options": ["s\\a.pt", 1, None]}] for n in "xy"}}}).encode()
    found = localised(graph(x="s/a.pt", y="s/a.pt"), {"Loader": raw})
    assert found["1"]["inputs"] == {"x": "s\\a.pt", "y": "s\\a.pt"}
