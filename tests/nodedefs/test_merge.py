"""One definition out of several: each rule of merge.py, and that no choice is lost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.nodedefs.forms import Definition, to_v2
from bridged.nodedefs.lazy import MAX_EXTRAS, Source
from bridged.nodedefs.merge import Conflict, Merged, Offer, merge, offered, united
from tests.nodedefs.samples import inputs, text

LORAS = Source("loras")
PLACE = ("required", "name")


def offer(backend: str, choices: list[Any], source: Source | None = None, **settings: Any) -> Offer:
    spec = ["COMBO", {"options": choices, **settings}]
    definition = {"input": {"required": {"name": spec}}, "output": [{"type": "A", "name": "A", "is_list": False}]}
    return Offer(backend, definition, {} if source is None else {PLACE: source})


def other(backend: str, **more: Any) -> Offer:
    plain = offer(backend, ["a"])
    return Offer(backend, {**plain.definition, **more}, {})


def settings_of(merged: Merged) -> dict[str, Any]:
    found = merged.definition["input"]["required"]["name"][1]
    assert isinstance(found, dict)
    return found


def choices_of(merged: Merged) -> list[Any]:
    found = settings_of(merged)["options"]
    assert isinstance(found, list)
    return found


# -- 1: what all agree on --


def test_one_definition_is_taken_as_it_is() -> None:
    only = offer("a", ["z", "a", "a"], LORAS, default="missing")
    merged = merge([only])
    assert merged.definition is only.definition
    assert (merged.sources, merged.conflicts) == ({PLACE: LORAS}, ())


@given(inputs)
def test_merging_one_or_the_same_changes_nothing(found: Any) -> None:
    definition = to_v2({"input": found, "output": []})
    assert merge([Offer("a", definition, {})]).definition == definition
    assert text(merge([Offer("a", definition, {}), Offer("b", definition, {})]).definition) == text(definition)


@given(inputs, inputs)
def test_nothing_that_backends_say_breaks_it(one: Any, another: Any) -> None:
    offers = [Offer(name, to_v2({"input": found, "output": []}), {}) for name, found in (("a", one), ("b", another))]
    assert isinstance(merge(offers), Merged)
    assert isinstance(offered(offers), dict)


def test_equal_definitions_list_a_folder_only_where_all_are_known_to() -> None:
    assert merge([offer("a", ["x"], LORAS), offer("b", ["x"])]).sources == {}
    assert merge([offer("a", ["x"], LORAS), offer("b", ["x"], Source("vae"))]).sources == {}
    assert merge([offer("a", [], None), offer("b", [], LORAS)]).sources == {PLACE: LORAS}


# -- 2: the one that most have --


def test_most_backends_decide_and_what_others_say_is_named() -> None:
    merged = merge([other("a", category="x"), other("b", category="y"), other("c", category="y", gone=True)])
    assert merged.definition["category"] == "x"  # one each: the first
    merged = merge([other("a", category="x"), other("b", category="y"), other("c", category="y")])
    assert merged.definition["category"] == "y"
    assert merged.conflicts == (Conflict("category", ("a",)),)


def test_of_equally_many_the_first_is_taken() -> None:
    offers = [other(name, category=said) for name, said in (("a", "x"), ("b", "y"), ("c", "y"), ("d", "x"))]
    assert merge(offers).definition["category"] == "x"
    assert merge(offers).conflicts == (Conflict("category", ("b", "c")),)
    assert merge(offers[::-1]).definition["category"] == "x"
    assert merge(offers[1:] + offers[:1]).definition["category"] == "y"


def test_conflicts_name_single_inputs() -> None:
    one = Offer("a", {"input": {"required": {"steps": ["INT", {"max": 1}]}}}, {})
    two = Offer("b", {"input": {"required": {"steps": ["INT", {"max": 2}], "new": ["INT"]}, "hidden": 5}}, {})
    fields = {conflict.field for conflict in merge([one, two]).conflicts}
    assert fields == {"input.required.steps", "input.required.new", "input.hidden"}


def test_choices_and_defaults_are_no_conflict() -> None:
    assert merge([offer("a", ["x"], default="x"), offer("b", ["y"])]).conflicts == ()
    assert merge([offer("a", ["x"], tooltip="t"), offer("b", ["y"])]).conflicts != ()


def test_choices_come_from_those_too_who_say_something_else() -> None:
    assert choices_of(merge([offer("a", ["x"]), offer("b", ["y"], tooltip="t")])) == ["x", "y"]


def test_true_is_not_one() -> None:
    assert merge([other("a", flag=1), other("b", flag=True)]).conflicts == (Conflict("flag", ("b",)),)


# -- 3: choices --


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ([], []),
        ([["b", "a"]], ["b", "a"]),
        ([["a", "c"], ["b"]], ["a", "b", "c"]),
        ([["b", "a"], ["a", "0"]], ["b", "a", "0"]),
        ([["a"], []], ["a"]),
        ([[1], [True], [1.0], ["1"]], [1, True, 1.0, "1"]),
        ([[{"k": 1}], [{"k": 1}, [2]]], [{"k": 1}, [2]]),
    ],
)
def test_all_choices_once(lists: list[list[Any]], expected: list[Any]) -> None:
    assert text(united(lists)) == text(expected)


choices = st.lists(st.sampled_from(["a", "b", "c", "x/y", "", "None"]) | st.integers(0, 1) | st.booleans(), max_size=5)


@given(st.lists(choices, min_size=1, max_size=4))
def test_no_choice_is_lost_and_none_is_made_up(lists: list[list[Any]]) -> None:
    merged = merge([offer(f"pc{number}", found) for number, found in enumerate(lists)])
    assert {text(each) for each in choices_of(merged)} == {text(each) for found in lists for each in found}


@given(
    st.lists(st.lists(st.text(max_size=2), max_size=4).map(sorted), min_size=1, max_size=4).flatmap(
        lambda lists: st.tuples(st.just(lists), st.permutations(lists))
    )
)
def test_the_order_of_equal_offers_does_not_matter(lists: tuple[list[list[str]], list[list[str]]]) -> None:
    """Sorted lists: else the rule says that it does."""
    one, another = (merge([offer(f"{n}", found, LORAS) for n, found in enumerate(each)]) for each in lists)
    assert one == another


def test_file_names_are_compared_with_slashes() -> None:
    merged = merge([offer("a", ["s/a.pt"], LORAS), offer("b", ["s\\a.pt", "s\\b.pt"], LORAS)])
    assert choices_of(merged) == ["s/a.pt", "s/b.pt"]
    merged = merge([offer("a", ["s/a"]), offer("b", ["s\\a"])])
    assert choices_of(merged) == ["s/a", "s\\a"]  # no files: who knows what they mean


def test_a_list_sorted_as_windows_does_is_sorted() -> None:
    merged = merge([offer("a", ["s/z.pt"], LORAS), offer("b", ["s1.pt", "s\\a.pt"], LORAS)])
    assert choices_of(merged) == ["s/a.pt", "s/z.pt", "s1.pt"]


def test_what_is_no_file_stays_around_the_files() -> None:
    one = offer("a", ["None", "b.pt", "taesd"], Source("vae", first=("None",), last=("taesd",)))
    two = offer("b", ["a.pt", "taesd", "pixel_space"], Source("vae", last=("taesd", "pixel_space")))
    merged = merge([one, two])
    assert choices_of(merged) == ["None", "a.pt", "b.pt", "taesd", "pixel_space"]
    assert merged.sources == {PLACE: Source("vae", first=("None",), last=("taesd", "pixel_space"))}


def test_sources_with_too_many_extras_or_another_filter_are_none() -> None:
    many = [Source("vae", last=tuple(f"{who}{n}" for n in range(MAX_EXTRAS))) for who in "ab"]
    assert merge([offer("a", ["x"], many[0]), offer("b", ["y"], many[1])]).sources == {}
    assert merge([offer("a", ["x"], LORAS), offer("b", ["y"], Source("loras", (".pt",)))]).sources == {}
    assert merge([offer("a", ["x"], LORAS), offer("b", [])]).sources == {PLACE: LORAS}


def test_a_remote_combo_keeps_its_folder_where_another_input_differs() -> None:
    spec = ["COMBO", {"remote": {"route": "/internal/files/output"}}]
    offers = [
        Offer(who, {"input": {"required": {"name": spec}}, "category": who}, {PLACE: Source("output")}) for who in "ab"
    ]
    assert merge(offers).sources == {PLACE: Source("output")}


# -- 4: defaults --


@pytest.mark.parametrize(
    ("defaults", "expected"),
    [
        (("y", "x"), "y"),
        (("gone", "x"), "x"),
        ((None, "x"), "x"),
        (("gone", "too"), None),
        ((None, None), None),
        ((["x", "y"], None), ["x", "y"]),
    ],
)
def test_the_default_is_a_choice(defaults: tuple[Any, Any], expected: Any) -> None:
    offers = [
        offer(who, who_has, **({} if default is None else {"default": default}))
        for who, who_has, default in zip("ab", (["x"], ["y"]), defaults, strict=True)
    ]
    assert settings_of(merge(offers)).get("default") == expected


def test_a_windows_default_becomes_the_pools_name() -> None:
    merged = merge([offer("a", ["s\\a.pt"], LORAS, default="s\\a.pt"), offer("b", ["b.pt"], LORAS)])
    assert settings_of(merged)["default"] == "s/a.pt"


# -- who offers what --


def test_who_offers_each_choice() -> None:
    offers = [offer("a", ["s\\x.pt", 1, True], LORAS), offer("b", ["s/x.pt"], LORAS)]
    assert offered(offers) == {"required": {"name": {"s/x.pt": ("a", "b"), "1": ("a",), "true": ("a",)}}}


def test_nothing_given_is_written_to() -> None:
    offers = [offer("a", ["x"], default="gone"), offer("b", ["y"])]
    before = [text(each.definition) for each in offers]
    merge(offers)
    assert [text(each.definition) for each in offers] == before


def definition_with(spec: Any) -> Definition:
    return to_v2({"input": {"required": {"name": spec}}, "output": []})


@pytest.mark.parametrize("spec", [[["x"], "odd"], [["x"], {}, 1], ["COMBO"], ["COMBO", 5], [["x"]], None, "COMBO"])
def test_odd_specs_hurt_nobody(spec: Any) -> None:
    offers = [Offer("a", definition_with([["y"]]), {}), Offer("b", definition_with(spec), {})]
    assert "y" in choices_of(merge(offers))
    assert merge(offers[::-1]).definition["input"]["required"]
