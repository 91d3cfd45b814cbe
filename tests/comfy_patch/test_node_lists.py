# ruff: noqa: RUF005  # how nodes write it matters here
"""Combos that list a folder, and definitions in the RFC's form."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridged.nodedefs.forms import to_v2
from bridged.nodedefs.lazy import load
from bridged.nodedefs.parse import parse_combos
from comfy_patch.node.definitions import Definitions, explicit
from comfy_patch.node.files import Files
from comfy_patch.node.host import Host
from comfy_patch.node.lists import MAX_EXTRAS, Listing
from tests.comfy_patch.shapes import assert_like, example
from tests.comfy_patch.standin import Comfy

FILES = ["a.safetensors", "sub/b.safetensors"]


@pytest.fixture
def comfy(tmp_path: Path) -> Comfy:
    return Comfy(tmp_path)


def definitions(comfy: Comfy) -> Definitions:
    host = Host(comfy.find)
    return Definitions(host, host.listings())


def node(comfy: Comfy, make: Callable[[Callable[[str], list[str]]], Any], **attributes: Any) -> type:
    """A class whose input `x` is what `make` makes of get_filename_list."""

    def input_types(cls: Any) -> Any:
        return {"required": {"x": make(comfy.folder_paths.get_filename_list)}, "hidden": {"id": "UNIQUE_ID"}}

    said = {"RETURN_TYPES": ("MODEL",), "FUNCTION": "f", "CATEGORY": "c", "INPUT_TYPES": classmethod(input_types)}
    made = type("Node", (), said | attributes)
    comfy.classes["Loader"] = made
    return made


PROVEN: dict[str, tuple[Callable[[Callable[[str], list[str]]], Any], dict[str, list[str]]]] = {
    "the list itself": (lambda files: (files("loras"),), {}),
    "with settings": (lambda files: (files("loras"), {"tooltip": "t"}), {}),
    "by its old name": (lambda files: (files("lora"),), {}),
    "a copy": (lambda files: (files("loras")[:].copy(),), {}),
    "none before it": (lambda files: (["None"] + files("loras"),), {"first": ["None"]}),
    "one after it": (lambda files: (files("loras") + ["x"],), {"last": ["x"]}),
    "both": (lambda files: (["None", "y"] + files("loras") + ["x"],), {"first": ["None", "y"], "last": ["x"]}),
    "appended": (lambda files: (_changed(files("loras"), lambda listed: listed.append("x")),), {"last": ["x"]}),
    "inserted": (lambda files: (_changed(files("loras"), lambda listed: listed.insert(0, "x")),), {"first": ["x"]}),
    "in the newer form": (lambda files: ("COMBO", {"options": files("loras"), "multiselect": False}), {}),
}


def _changed(listed: list[str], change: Callable[[list[str]], object]) -> list[str]:
    change(listed)
    return listed


NOT_PROVEN: dict[str, Callable[[Callable[[str], list[str]]], Any]] = {
    "sorted": lambda files: (sorted(files("loras")),),
    "filtered": lambda files: ([name for name in files("loras") if name.startswith("a")],),
    "cut": lambda files: (files("loras")[:1],),
    "reversed": lambda files: (files("loras")[::-1],),
    "two folders": lambda files: (files("loras") + files("vae"),),
    "removed": lambda files: (_changed(files("loras"), lambda listed: listed.pop()),),
    "not only text": lambda files: ([1] + files("loras"),),
    "too many others": lambda files: ([f"x{number}" for number in range(MAX_EXTRAS + 1)] + files("loras"),),
    "a route of its own": lambda files: (files("loras"), {"remote": {"route": "/x"}}),
}


@pytest.mark.parametrize("scanned", [True, False])
@pytest.mark.parametrize("name", PROVEN)
def test_a_folders_list_is_named_without_reading_a_disk(comfy: Comfy, name: str, scanned: bool) -> None:
    make, extras = PROVEN[name]
    if scanned:
        comfy.folder_paths.get_filename_list("loras")
    node(comfy, make)
    found = definitions(comfy)
    comfy.scanned.clear()
    combo, settings = json.loads(found.v2())["Loader"]["input"]["required"]["x"]
    assert combo == "COMBO"
    assert "options" not in settings
    assert (settings["type"], settings["route"], settings["response_key"]) == (
        "remote",
        "/internal/files/loras",
        "files",
    )
    assert settings.get("query_params", {}) == extras
    assert found.combos() == {"Loader": {"x": {"folder": "loras"}}}
    assert comfy.scanned == []


@pytest.mark.parametrize("name", NOT_PROVEN)
def test_what_is_not_proven_keeps_every_choice(comfy: Comfy, name: str) -> None:
    make = NOT_PROVEN[name]
    wanted = make(comfy.folder_paths.get_filename_list)[0]
    node(comfy, make)
    found = definitions(comfy)
    comfy.folder_paths.filename_list_cache.clear()
    combo, settings = json.loads(found.v2())["Loader"]["input"]["required"]["x"]
    assert (combo, settings["options"]) == ("COMBO", wanted)
    if name != "a route of its own":
        assert "route" not in settings
        assert found.combos() == {}


def test_a_default_that_needs_the_files_gets_them(comfy: Comfy) -> None:
    node(comfy, lambda files: (files("loras"), {"default": files("loras")[0]}))
    settings = json.loads(definitions(comfy).v2())["Loader"]["input"]["required"]["x"][1]
    assert (settings["default"], settings["route"]) == ("a.safetensors", "/internal/files/loras")


def both_ways(files: list[str]) -> Any:
    return {"required": {"x": (files,), "y": (sorted(files),), "z": ([*files, "z"],)}}


def test_a_list_that_is_used_in_two_ways_loses_nothing(comfy: Comfy) -> None:
    node(comfy, lambda files: (), INPUT_TYPES=lambda: both_ways(comfy.folder_paths.get_filename_list("loras")))
    inputs = json.loads(definitions(comfy).v2())["Loader"]["input"]["required"]
    assert inputs["x"][1]["route"] == "/internal/files/loras"
    assert inputs["y"] == ["COMBO", {"options": FILES}]
    assert inputs["z"] == ["COMBO", {"options": [*FILES, "z"]}]


@pytest.mark.parametrize(
    "look",
    [list, tuple, sorted, set, len, bool, max, lambda files: "x" in files, lambda files: files == [],
     lambda files: files[0:1], lambda files: files.index("a.safetensors"), lambda files: [name for name in files],
     lambda files: files.sort(), lambda files: files.reverse(), lambda files: files + files, lambda files: files * 2,
     lambda files: list(filter(None, files)), lambda files: next(reversed(files)), lambda files: files.insert(1, "x"),
     lambda files: [*files], lambda files: dict.fromkeys(files), lambda files: list(enumerate(files))],
)  # fmt: skip
def test_whoever_looks_into_a_list_is_noticed(look: Callable[[Any], object]) -> None:
    listing = Listing(FILES, "loras")
    copy = listing + ["None"]
    assert not listing.was_read
    look(copy)
    assert listing.was_read


def test_what_a_class_keeps_of_its_lists_is_not_touched(comfy: Comfy) -> None:
    def input_types(cls: Any) -> Any:
        cls.kept = comfy.folder_paths.get_filename_list("loras")
        return {"required": {"x": (cls.kept,)}}

    made = node(comfy, lambda files: (), INPUT_TYPES=classmethod(input_types), kept="before")
    assert "remote" in definitions(comfy).v2().decode()
    assert made.kept == "before"  # type: ignore[attr-defined]


def test_elsewhere_the_function_is_comfyuis_own(comfy: Comfy) -> None:
    definitions(comfy)
    found = comfy.folder_paths.get_filename_list("loras")
    assert type(found) is list
    with pytest.raises(KeyError):
        comfy.folder_paths.get_filename_list("nothing")


def test_a_node_that_raises_is_left_out_alone(comfy: Comfy) -> None:
    node(comfy, lambda files: (files("no-such-folder"),))
    comfy.classes["Fails"] = comfy.classes["Loader"]
    node(comfy, lambda files: ("INT", {"default": 1}))
    found = definitions(comfy)
    assert list(json.loads(found.v2())) == ["Loader"]
    assert json.loads(found.v2("Fails")) == {}
    assert found.combos() == {}


def test_the_bridge_reads_the_combos(comfy: Comfy) -> None:
    node(comfy, lambda files: (files("loras"),))
    answer = {"combos": definitions(comfy).combos()}
    assert_like(example("combos"), answer)
    assert parse_combos(json.dumps(answer).encode()) == {("Loader", "x"): "loras"}
    assert len(parse_combos(json.dumps(example("combos")).encode())) == 3


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {
            "RETURN_NAMES": ("m",),
            "OUTPUT_IS_LIST": (True,),
            "OUTPUT_TOOLTIPS": ("t",),
            "DESCRIPTION": "d",
            "OUTPUT_NODE": True,
        },
        {"RETURN_TYPES": ()},
        {"RETURN_TYPES": (["a", "b"], "INT"), "DEPRECATED": True, "EXPERIMENTAL": True},
        {"RETURN_NAMES": ("longer", "than types")},
    ],
)
def test_the_bridge_understands_the_definitions_as_it_does_the_old_ones(
    comfy: Comfy, attributes: dict[str, Any]
) -> None:
    made: Any = node(comfy, lambda files: (["None"] + files("loras"), {"default": "None"}), **attributes)
    v2 = json.loads(definitions(comfy).v2())["Loader"]
    types = made.RETURN_TYPES
    old: dict[str, Any] = {
        "input": {"required": {"x": [["None", *FILES], {"default": "None"}]}, "hidden": {"id": "UNIQUE_ID"}},
        "input_order": {"required": ["x"], "hidden": ["id"]},
        "output": types,
        "output_is_list": getattr(made, "OUTPUT_IS_LIST", [False] * len(types)),
        "output_name": getattr(made, "RETURN_NAMES", types),
        "name": "Loader",
        "display_name": "A loader",
        "description": getattr(made, "DESCRIPTION", ""),
        "python_module": "nodes",
        "category": "c",
        "output_node": hasattr(made, "OUTPUT_NODE"),
    }
    if hasattr(made, "OUTPUT_TOOLTIPS"):
        old["output_tooltips"] = made.OUTPUT_TOOLTIPS
    old.update({key.lower(): True for key in ("DEPRECATED", "EXPERIMENTAL") if hasattr(made, key)})
    wanted = {key: value for key, value in to_v2(json.loads(json.dumps(old))).items() if key != "v1"}
    settings = v2["input"]["required"]["x"][1]
    settings["invalidation_signal"] = "files.loras"  # a PC has no such event; `load` takes the bridge's own for its own
    assert load(v2, lambda remote: FILES) == wanted


def test_outputs_that_do_not_fit_stand_as_they_came(comfy: Comfy) -> None:
    node(comfy, lambda files: ("INT",), RETURN_TYPES=("A", "B"), RETURN_NAMES=("only one",))
    v2 = json.loads(definitions(comfy).v2())["Loader"]
    assert (v2["output"], v2["output_name"], v2["output_is_list"]) == (["A", "B"], ["only one"], [False, False])


@pytest.mark.parametrize(
    "spec", [("INT", {}), ("MODEL",), ([1, 2], {"options": 3}), ([1], {"type": "remote"}), ([1], None), (), None, "x"]
)
def test_inputs_that_are_no_combos_by_either_word_stay(spec: Any) -> None:
    assert explicit(spec) is spec


def test_a_combo_is_explicit() -> None:
    assert explicit((["a", "b"], {"default": "a"})) == ["COMBO", {"options": ["a", "b"], "default": "a"}]
    assert explicit((("a", "b"),)) == ["COMBO", {"options": ["a", "b"]}]


def test_a_listing_is_a_list_to_all_others() -> None:
    listing = Listing(FILES, "loras")
    assert listing == FILES
    assert json.dumps(listing) == json.dumps(FILES)
    assert sorted(listing, reverse=True) == FILES[::-1]
    assert (listing[0], listing[-1], len(listing), "a.safetensors" in listing) == (FILES[0], FILES[1], 2, True)
    with pytest.raises(TypeError):
        hash(listing)
    with pytest.raises(TypeError):
        listing += 5


# --- files ---


def test_a_folders_files_between_the_choices_that_are_none(comfy: Comfy) -> None:
    comfy.files["loras"] = ["a.safetensors", "b.PT", "c.txt"]
    files = Files(Host(comfy.find))
    assert files.listed("loras") == ["a.safetensors", "b.PT", "c.txt"]
    assert files.listed("loras", [".pt", ".safetensors"], (), ["None"], ["x"]) == ["None", "a.safetensors", "b.PT", "x"]
    assert files.listed("nothing") is None
    assert files.listed("custom_nodes") is None


def test_content_types_are_comfyuis_own(comfy: Comfy) -> None:
    comfy.folder_paths.filter_files_content_types = lambda files, types: [name for name in files if types == ["image"]]
    files = Files(Host(comfy.find))
    assert files.listed("loras", (), ["image"]) == FILES
    assert files.listed("loras", (), ["video"]) == []


def test_models_have_sizes_and_packs_are_no_models(comfy: Comfy, tmp_path: Path) -> None:
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / "a.safetensors").write_bytes(b"12345")
    models = {"folders": Files(Host(comfy.find)).models()}
    assert_like(example("models"), models)
    assert models["folders"] == {
        "loras": [{"name": "a.safetensors", "size": 5}, {"name": "sub/b.safetensors", "size": None}],
        "vae": [],
    }


def test_the_owners_folders_are_listed_as_comfyui_lists_them(comfy: Comfy, tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "sub").mkdir()
    (tmp_path / "input" / "mine.png").write_bytes(b"")
    comfy.folder_paths.get_directory_by_type = lambda kind: str(tmp_path / kind)
    files = Files(Host(comfy.find))
    assert files.listed("input") == ["mine.png"]
    assert files.listed("output") == []
