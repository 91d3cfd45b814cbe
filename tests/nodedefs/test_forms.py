"""V1 and V2: nothing gets lost between them, whatever a node says."""

from __future__ import annotations

import copy
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.nodedefs.combos import Combo, Remote, read_combo
from bridged.nodedefs.forms import Definition, inputs_of, is_v2, map_inputs, to_v1, to_v2
from tests.nodedefs.samples import (
    json_objects,
    recorded,
    size,
    specs,
    text,
    v1_definitions,
    v2_definitions,
    values,
)


@pytest.mark.parametrize("name", recorded())
def test_a_recorded_class_comes_back_as_it_was_in_its_order(name: str) -> None:
    v1 = recorded()[name]
    v2 = to_v2(v1)
    assert text(to_v1(v2)) == text(v1)
    assert text(to_v2(v2)) == text(v2)
    assert is_v2(v2)
    for output in v2["output"]:
        assert list(output)[:3] == ["type", "name", "is_list"]
    for _, _, spec in inputs_of(v2):
        assert not (isinstance(spec, list) and isinstance(spec[0], list))


def test_most_recorded_classes_need_no_residue_and_v2_is_not_larger_for_it() -> None:
    v2 = {name: to_v2(definition) for name, definition in recorded().items()}
    assert sum("v1" in definition for definition in v2.values()) <= 14
    residues = [definition["v1"] for definition in v2.values() if "v1" in definition]
    assert size(residues) < 0.002 * size(v2)


@given(v1_definitions)
def test_every_v1_comes_back_as_it_was_in_its_order(v1: Definition) -> None:
    before = text(v1)
    v2 = to_v2(v1)
    assert text(to_v1(v2)) == before
    assert text(v1) == before, "what was given is not written to"


@given(json_objects())
def test_v2_of_v2_is_the_same(definition: Definition) -> None:
    v2 = to_v2(definition)
    assert text(to_v2(v2)) == text(v2)


@given(json_objects())
def test_v2_of_anything_is_v2(definition: Definition) -> None:
    assert is_v2(to_v2(definition))


@given(v2_definitions)
def test_v2_that_authors_wrote_keeps_its_choices_in_v1(definition: Definition) -> None:
    v1 = to_v1(to_v2(definition))
    for (section, name, spec), (_, _, new) in zip(inputs_of(definition), inputs_of(v1), strict=True):
        before, after = read_combo(spec), read_combo(new)
        assert (before and before.options) == (after and after.options), (section, name)
    again = to_v2(v1)
    if "kept" not in again.get("v1", {}) and "v1" not in definition:
        assert [output["type"] for output in again["output"]] == [o["type"] for o in to_v2(definition)["output"]]


@given(values)
def test_no_json_at_all_makes_anything_raise(value: Any) -> None:
    for definition in (
        value,
        {"input": value},
        {"output": value},
        {"v1": value},
        {"output": [], "v1": value},
    ):
        to_v1(to_v2(definition))
        to_v1(definition)
        is_v2(definition) if isinstance(definition, dict) else None
        list(inputs_of(definition))
    read_combo(value)


@given(
    st.dictionaries(
        st.sampled_from(["combos", "inputs", "kept", "absent", "keys", "more", "tooltips", "order", "own"]),
        values | st.dictionaries(st.just("required"), st.dictionaries(st.just("a"), values)) | st.just({"output": [1]}),
    ),
    json_objects(),
)
def test_a_forged_residue_harms_nobody(residue: Definition, definition: Definition) -> None:
    forged = {**definition, "output": [{"type": "A"}], "v1": residue}
    v2 = to_v2(forged)
    to_v1(v2)
    assert text(to_v2(v2)) == text(v2)


def test_a_list_combo_becomes_explicit() -> None:
    v1 = {
        "input": {
            "required": {"mode": [["a", "b"], {"default": "a"}], "seed": ["INT", {"min": 0}]},
            "hidden": {"p": "P"},
        },
        "input_order": {"required": ["mode", "seed"], "hidden": ["p"]},
        "output": ["MODEL", ["x", "y"]],
        "output_is_list": [False, True],
        "output_name": ["model", "choice"],
        "output_node": False,
        "output_tooltips": ["It.", None],
    }
    v2 = to_v2(v1)
    assert v2 == {
        "input": {
            "required": {
                "mode": ["COMBO", {"options": ["a", "b"], "default": "a"}],
                "seed": ["INT", {"min": 0}],
            },
            "hidden": {"p": "P"},
        },
        "output": [
            {"type": "MODEL", "name": "model", "is_list": False, "tooltip": "It."},
            {"type": "COMBO", "name": "choice", "is_list": True, "options": ["x", "y"]},
        ],
        "output_node": False,
    }
    assert text(to_v1(v2)) == text(v1)


def test_the_rfcs_own_examples_are_read() -> None:
    old = {
        "input": {
            "required": {
                "ckpt_name": [["file1", "file2"]],
                "combo_input": [["option1"], {"default": "option1", "tooltip": "Processing mode"}],
            },
            "optional": {},
        },
        "output": ["MODEL"],
        "output_name": ["model"],
        "output_is_list": [False],
        "output_tooltip": ["The loaded model"],
        "output_node": False,
        "category": "loaders",
    }
    v2 = to_v2(old)
    assert v2["output"] == [{"type": "MODEL", "name": "model", "is_list": False, "tooltip": "The loaded model"}]
    assert text(to_v1(v2)) == text(old)


def test_v2_by_hand_becomes_the_v1_that_todays_clients_know() -> None:
    v2 = {
        "input": {
            "required": {
                "mode": ["COMBO", {"options": ["a"], "default": "a"}],
                "bare": ["COMBO", {"options": [1]}],
            }
        },
        "output": [
            {"type": "IMAGE", "optional": True},
            {"type": "MASK", "name": "m", "is_list": True, "tooltip": "t"},
        ],
        "output_node": True,
        "category": "c",
    }
    assert to_v1(v2) == {
        "input": {"required": {"mode": [["a"], {"default": "a"}], "bare": [[1]]}},
        "input_order": {"required": ["mode", "bare"]},
        "output": ["IMAGE", "MASK"],
        "output_is_list": [False, True],
        "output_name": ["IMAGE", "m"],
        "output_optional": [True, False],
        "output_node": True,
        "output_tooltips": [None, "t"],
        "category": "c",
    }


@pytest.mark.parametrize(
    "order",
    [
        None,
        {"required": ["b", "a"]},
        {"required": ["a"]},
        {"required": {"a": 0, "b": 0}},
        {"optional": [], "required": ["a", "b"]},
    ],
    ids=json.dumps,
)
def test_an_order_that_the_keys_do_not_say_is_kept(order: Any) -> None:
    known: dict[str, Any] = {"input": {"required": {"a": ["INT"], "b": ["INT"]}, "optional": {}}}
    if order is not None:
        known["input_order"] = order
    known |= {"output": [], "output_is_list": [], "output_name": []}
    v2 = to_v2(known)
    assert v2.get("input_order") == order
    assert text(to_v1(v2)) == text(known)


def test_inputs_named_by_numbers_keep_their_order_beside_them() -> None:
    """JavaScript has such keys first, whatever the text says."""
    known = {"input": {"required": {"b": ["INT"], "1": ["INT"]}}, "input_order": {"required": ["b", "1"]}}
    assert to_v2({**known, "output": []})["input_order"] == known["input_order"]


def test_v2_does_not_say_twice_in_what_order_inputs_are() -> None:
    assert all("input_order" not in to_v2(known) for known in recorded().values())


def test_a_mixture_of_new_outputs_and_old_combos_is_read() -> None:
    mixed = {
        "input": {"required": {"a": [["x"], {}], "b": ["COMBO", {"options": ["y"]}]}},
        "output": [{"type": "A"}],
    }
    v2 = to_v2(mixed)
    assert v2["input"]["required"] == {"a": ["COMBO", {"options": ["x"]}], "b": ["COMBO", {"options": ["y"]}]}
    assert v2["output"] == [{"type": "A", "name": "A", "is_list": False}]
    assert to_v1(v2)["input"]["required"] == {"a": [["x"], {}], "b": [["y"]]}


def test_the_residue_of_explicit_combos_does_not_repeat_their_options() -> None:
    many = [f"file_{number}.safetensors" for number in range(1000)]
    v1 = copy.deepcopy(recorded()["LoraLoader"])
    v1["input"]["required"]["lora_name"] = ["COMBO", {"options": many}]
    v2 = to_v2(v1)
    assert size(v2["v1"]) < 100
    assert text(to_v1(v2)) == text(v1)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ([["a", "b"]], Combo(["a", "b"], None, {})),
        ([[1, 2], {"default": 2}], Combo([1, 2], None, {"default": 2})),
        (["COMBO", {"options": ["a"], "tooltip": "t"}], Combo(["a"], None, {"tooltip": "t"})),
        (["COMBO"], Combo(None, None, {})),
        (["COMBO", {"options": 5}], Combo(None, None, {})),
        (["INT", {"options": ["a"]}], None),
        ("PROMPT", None),
        ([], None),
        (
            [
                "COMBO",
                {
                    "type": "remote",
                    "route": "/internal/files",
                    "response_key": "files",
                    "refresh": 0,
                    "cache_key": None,
                    "invalidation_signal": None,
                    "query_params": {"folder_path": "checkpoints", "filter_ext": [".ckpt"]},
                    "tooltip": "t",
                },
            ],
            Combo(
                None,
                Remote("/internal/files", "files", {"folder_path": "checkpoints", "filter_ext": [".ckpt"]}),
                {"tooltip": "t"},
            ),
        ),
        (
            [
                "COMBO",
                {"remote": {"route": "/r", "refresh": 500, "timeout": 3, "refresh_button": True}, "x": 1},
            ],
            Combo(None, Remote("/r", refresh=500, extra={"timeout": 3, "refresh_button": True}), {"x": 1}),
        ),
        (["COMBO", {"remote": {"refresh": 1}}], Combo(None, None, {"remote": {"refresh": 1}})),
        (["COMBO", {"type": "remote", "route": 5}], Combo(None, None, {"type": "remote", "route": 5})),
    ],
)
def test_a_combo_of_any_form_is_read(spec: Any, expected: Combo | None) -> None:
    assert read_combo(spec) == expected


@pytest.mark.parametrize("refresh", [-1, 0, None, True, "60000", float("nan"), float("inf"), [], 0.2])
def test_a_refresh_that_is_no_time_means_never(refresh: Any) -> None:
    combo = read_combo(["COMBO", {"remote": {"route": "/r", "refresh": refresh}}])
    assert combo is not None
    assert combo.remote is not None
    assert combo.remote.refresh == 0


@given(specs)
def test_reading_a_combo_never_writes_to_it(spec: Any) -> None:
    before = text(spec)
    read_combo(spec)
    assert text(spec) == before


def test_inputs_are_changed_in_place_of_their_order_only_where_they_differ() -> None:
    definition: Definition = {
        "input": {"required": {"a": ["A"], "b": ["B"]}, "optional": {"c": ["C"]}, "odd": 1},
        "output": [],
    }
    assert map_inputs(definition, lambda section, name, spec: spec) is definition
    changed = map_inputs(definition, lambda section, name, spec: ["Z"] if name == "a" else spec)
    assert text(changed["input"]) == text({"required": {"a": ["Z"], "b": ["B"]}, "optional": {"c": ["C"]}, "odd": 1})
    assert definition["input"]["required"]["a"] == ["A"]


def test_two_thousand_classes_take_well_under_a_second() -> None:
    classes = [list(recorded().values())[number % 477] for number in range(2000)]
    start = time.process_time()
    for definition in classes:
        to_v1(to_v2(definition))
    assert time.process_time() - start < 1.0
