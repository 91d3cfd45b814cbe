"""Node definitions to try things on: recorded ones, the same with many files in them, and invented ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from hypothesis import strategies as st

from bridged.nodedefs.forms import Definition, is_v2
from bridged.nodedefs.lazy import select
from bridged.nodedefs.loaders import LOADERS, Listing
from tests.fakes import recording

FOLDERS = sorted({listing.folder for listing in LOADERS.values()} | {"embeddings", "vae_approx", "output", "temp"})

EXTRAS = {("VAELoader", "vae_name"): ["taesd", "pixel_space"], ("TrainLoraNode", "existing_lora"): ["[None]"]}
"""Choices that ComfyUI's own loaders have after the files."""

_ENDINGS = {
    "input": ("png", "jpg", "webp", "mp4", "mkv", "wav", "latent", "glb", "stl", "txt", "pdf"),
    "output": ("png", "webp", "mp4"),
    "temp": ("png",),
    "configs": ("yaml",),
}


@cache
def _recorded() -> dict[str, Definition]:
    return recording.object_info()


def recorded() -> dict[str, Definition]:
    """The recorded `/object_info` of a real ComfyUI 0.3.64, read once: look, do not write."""
    return _recorded()


def text(value: Any) -> str:
    """JSON as it stands: equal only if the same keys come in the same order, and 1 is not true."""
    return json.dumps(value)


def size(value: Any) -> int:
    """Bytes of it as compact JSON."""
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())


def invented_lists(files: int = 12) -> dict[str, list[str]]:
    """That many files for each folder, sorted by code point as ComfyUI does, some in subfolders."""
    lists = {}
    for folder in FOLDERS:
        endings = _ENDINGS.get(folder, ("safetensors", "ckpt", "pt"))
        names = [f"{folder}_{number:05}.{endings[number % len(endings)]}" for number in range(files)]
        lists[folder] = sorted(f"sub {n % 3}/{name}" if n % 4 == 3 else name for n, name in enumerate(names))
    return lists


def with_files(definitions: Mapping[str, Definition], lists: Mapping[str, list[str]]) -> dict[str, Definition]:
    """The V1 of a PC that has these files: every loader in the table shows them, in its own form."""
    full = {name: json.loads(json.dumps(definition)) for name, definition in definitions.items()}
    for (class_name, input_name), listing in LOADERS.items():
        for inputs in full.get(class_name, {}).get("input", {}).values():
            if input_name in inputs:
                options = shown(listing, lists) + EXTRAS.get((class_name, input_name), [])
                spec = inputs[input_name]
                if isinstance(spec[0], list):
                    spec[0] = options
                else:
                    spec[1]["options"] = options
    return full


def shown(listing: Listing, lists: Mapping[str, list[str]]) -> list[str]:
    """What a combo with that listing shows of these files."""
    return list(select(lists[listing.folder], listing.filter_ext, listing.filter_content_type))


# --- for Hypothesis ---

names = st.sampled_from(["a", "b", "ckpt_name", "image", "", "options", "type", "v1", "é"]) | st.text(max_size=4)
scalars = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, 1.0, 0.5]) | names
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)

options = st.lists(names | st.integers(0, 3) | st.booleans(), max_size=4)
remote_blocks = st.fixed_dictionaries(
    {"route": st.sampled_from(["/internal/files/output", "/internal/files/loras", "/api/x", "http://h/y", ""])},
    optional={
        "refresh_button": st.booleans(),
        "control_after_refresh": st.sampled_from(["first", "last"]),
        "timeout": st.integers(0, 9),
        "max_retries": st.integers(0, 9),
        "refresh": st.sampled_from([0, 1, 1.5, -1, True, None, "1", 1e300]),
    },
)
settings: st.SearchStrategy[Definition] = st.fixed_dictionaries(
    {},
    optional={
        "default": values,
        "tooltip": names,
        "image_upload": st.booleans(),
        "multiselect": st.booleans(),
        "options": options | values,
        "type": st.sampled_from(["remote", "other", 1]),
        "route": st.sampled_from(["/internal/files", "/internal/files/loras", 5]),
        "query_params": st.sampled_from([{"folder_path": "loras"}, [], {"filter_ext": [".pt", 1]}]),
        "remote": remote_blocks | values,
    },
) | st.just({})

list_combos = st.tuples(options).map(list) | st.tuples(options, settings).map(list)
explicit_combos = (
    st.just(["COMBO"])
    | st.tuples(st.just("COMBO"), settings).map(list)
    | st.tuples(st.just("COMBO"), st.builds(lambda some, more: {**more, "options": some}, options, settings)).map(list)
)
plain_specs = st.just(["MODEL"]) | st.tuples(st.just("INT"), settings).map(list)
odd_specs = (
    values
    | st.tuples(options, settings, values).map(list)
    | st.tuples(st.just("COMBO"), values).map(list)
    | st.tuples(options, values).map(list)
)
specs = list_combos | explicit_combos | plain_specs | odd_specs

sections = st.dictionaries(names, specs, max_size=4)
inputs = st.dictionaries(st.sampled_from(["required", "optional", "hidden", "x"]), sections | values, max_size=3)

types = st.sampled_from(["MODEL", "IMAGE", "COMBO", "*"])


@st.composite
def outputs(draw: st.DrawFn) -> Definition:
    """The output keys of a V1 definition as ComfyUI writes them: lists of one length."""
    count = draw(st.integers(0, 3))

    def column(items: st.SearchStrategy[Any]) -> Any:
        return draw(st.lists(items, min_size=count, max_size=count))

    lists = {
        "output": column(types | options),
        "output_is_list": column(st.booleans()),
        "output_name": column(names),
    }
    for key, items in (("output_tooltips", st.none() | names), ("output_tooltip", names)):
        if draw(st.booleans()):
            lists[key] = column(items)
    return lists


odd_outputs = st.fixed_dictionaries(
    {},
    optional={
        "output": values | st.lists(types | options | values, max_size=3),
        "output_is_list": values | st.lists(st.booleans() | values, max_size=4),
        "output_name": values | st.lists(names | values, max_size=4),
        "output_tooltips": values | st.lists(names | st.none(), max_size=4),
        "output_tooltip": values,
        "output_optional": values | st.lists(st.booleans(), max_size=3),
    },
)
"""Missing, null, too long, too short, or no lists at all."""

other_keys = st.fixed_dictionaries(
    {},
    optional={
        "input_order": values,
        "name": names,
        "output_node": st.booleans() | values,
        "deprecated": st.booleans(),
        "experimental": st.booleans(),
        "api_node": st.booleans(),
        "v1": values
        | st.sampled_from(
            [{"combos": "explicit"}, {"kept": True}, {"order": ["v1", "output"]}, {"own": 1}, {"more": 1}]
        ),
        "category": names,
    },
) | st.just({"output_node": False, "deprecated": False, "experimental": False, "api_node": False})


@st.composite
def json_objects(draw: st.DrawFn) -> Definition:
    """Definitions of every form there is, and of forms there should not be, keys in any order."""
    parts: Definition = {**draw(outputs() | odd_outputs | v2_outputs), **draw(other_keys)}
    if draw(st.integers(0, 9)):
        parts["input"] = draw(inputs) if draw(st.integers(0, 9)) else draw(values)
    if draw(st.booleans()):
        return parts
    return {key: parts[key] for key in draw(st.permutations(list(parts)))}


v2_outputs = st.lists(
    st.fixed_dictionaries(
        {"type": types | options},
        optional={
            "name": names,
            "is_list": st.booleans(),
            "tooltip": names | st.none(),
            "optional": st.booleans(),
            "options": options | values,
            "more": values,
        },
    ),
    max_size=3,
).map(lambda objects: {"output": objects})
"""The RFC's outputs, as a node's author might write them."""

v1_definitions = json_objects().filter(lambda definition: not is_v2(definition))
v2_definitions = json_objects().filter(is_v2)
