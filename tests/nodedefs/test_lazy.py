"""Combos that list files: recognised, made lazy, loaded again; no choice is lost on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.nodedefs.combos import Remote, read_combo
from bridged.nodedefs.forms import Definition, inputs_of, to_v1, to_v2
from bridged.nodedefs.lazy import (
    MAX_EXTRAS,
    PRIVATE,
    Source,
    folder_of,
    lazy,
    load,
    normalise,
    recognise,
    select,
)
from bridged.nodedefs.loaders import LOADERS
from tests.nodedefs.samples import (
    FOLDERS,
    invented_lists,
    json_objects,
    names,
    recorded,
    size,
    text,
    with_files,
)

LISTS = invented_lists()
FULL = with_files(recorded(), LISTS)


def models(lists: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """What a PC says under /models: its input, output and temp are not among them."""
    return {folder: files for folder, files in lists.items() if folder not in PRIVATE}


def lazily(class_name: str, v1: Definition, lists: Mapping[str, list[str]] = LISTS) -> Definition:
    def source_of(name: str, spec: Any) -> Source | None:
        return recognise(class_name, name, spec, models(lists), {})

    return lazy(to_v2(v1), source_of)


def from_lists(lists: Mapping[str, Sequence[str]]) -> Callable[[Remote], Sequence[str]]:
    def files(remote: Remote) -> Sequence[str]:
        folder = folder_of(remote)
        assert folder is not None
        return lists.get(folder, [])

    return files


@pytest.mark.parametrize("name", FULL)
def test_a_recorded_class_of_a_pc_full_of_files_comes_back_as_it_was(name: str) -> None:
    v2 = to_v2(FULL[name])
    loaded = load(lazily(name, FULL[name]), from_lists(LISTS))
    assert text(loaded) == text(v2)
    assert text(to_v1(loaded)) == text(FULL[name])


@pytest.mark.parametrize("name", recorded())
def test_a_recorded_class_of_a_pc_without_files_comes_back_as_it_was(name: str) -> None:
    empty: dict[str, list[str]] = {folder: [] for folder in FOLDERS}
    v1 = with_files({name: recorded()[name]}, empty)[name]
    loaded = load(lazily(name, v1, empty), from_lists(empty))
    assert text(to_v1(loaded)) == text(v1)


def test_every_loader_of_the_table_becomes_lazy_with_files_and_without() -> None:
    empty: dict[str, list[str]] = {folder: [] for folder in FOLDERS}
    for lists in (LISTS, empty):
        full = with_files(recorded(), lists)
        for class_name, input_name in LOADERS:
            if class_name not in full:
                continue  # its library was not installed where it was recorded
            specs = {name: spec for _, name, spec in inputs_of(lazily(class_name, full[class_name], lists))}
            assert specs[input_name][1]["type"] == "remote", (class_name, input_name)


def test_the_table_knows_the_recorded_nodes() -> None:
    missing = {class_name for class_name, _ in LOADERS} - recorded().keys()
    assert missing == {"AudioEncoderLoader", "LoadAudio"}


def test_what_is_sent_of_a_lazy_combo() -> None:
    specs = {
        name: spec for _, name, spec in inputs_of(lazily("CheckpointLoaderSimple", FULL["CheckpointLoaderSimple"]))
    }
    assert specs["ckpt_name"] == [
        "COMBO",
        {
            "type": "remote",
            "route": "/internal/files/checkpoints",
            "response_key": "files",
            "refresh": 60000,
            "invalidation_signal": "files.checkpoints",
            "tooltip": "The name of the checkpoint (model) to load.",
        },
    ]


def test_filters_and_extras_are_query_parameters() -> None:
    def params(class_name: str, name: str) -> Any:
        specs = {name: spec for _, name, spec in inputs_of(lazily(class_name, FULL[class_name]))}
        return specs[name][1].get("query_params")

    assert params("VAELoader", "vae_name") == {"last": ["taesd", "pixel_space"]}
    assert params("TrainLoraNode", "existing_lora") == {"last": ["[None]"]}
    assert params("LoadImage", "image") == {"filter_content_type": ["image"]}
    assert params("LoadImageMask", "image") is None
    assert params("LoadLatent", "latent") == {"filter_ext": [".latent"]}


def test_no_file_name_of_an_owner_is_in_what_is_sent() -> None:
    sent = text({name: lazily(name, v1) for name, v1 in FULL.items()})
    shown = [name for name in LISTS["input"] if f'"{name}"' in sent]
    assert shown == []


def test_comfyuis_own_remote_block_stays_beside_ours() -> None:
    specs = {name: spec for _, name, spec in inputs_of(lazily("LoadImageOutput", recorded()["LoadImageOutput"]))}
    assert specs["image"][1]["remote"] == recorded()["LoadImageOutput"]["input"]["required"]["image"][1]["remote"]
    assert specs["image"][1]["route"] == "/internal/files/output"
    combo = read_combo(specs["image"])
    assert combo is not None
    assert combo.remote is not None
    assert combo.remote.invalidation_signal == "files.output"


def test_a_folder_name_is_encoded_in_the_route() -> None:
    definition = {"input": {"required": {"a": ["COMBO", {"options": ["x"]}]}}, "output": []}
    v2 = lazy(definition, lambda name, spec: Source("my models/ä"))
    combo = read_combo(v2["input"]["required"]["a"])
    assert combo is not None
    assert combo.remote is not None
    assert combo.remote.route == "/internal/files/my%20models%2F%C3%A4"
    assert folder_of(combo.remote) == "my models/ä"
    assert load(v2, lambda remote: ["x"]) == definition


def test_another_refresh_can_be_asked_for() -> None:
    definition = {"input": {"required": {"a": ["COMBO", {"options": []}]}}, "output": []}
    v2 = lazy(definition, lambda name, spec: Source("loras"), refresh=0)
    assert v2["input"]["required"]["a"][1]["refresh"] == 0
    assert load(v2, lambda remote: []) == definition


sources = st.builds(
    Source,
    folder=st.sampled_from(["loras", "input", "a b/ä"]),
    filter_ext=st.sampled_from([(), (".pt",)]),
    filter_content_type=st.sampled_from([(), ("image",)]),
    first=st.sampled_from([(), ("None",), ("", "x,y")]),
    last=st.sampled_from([(), ("end",)]),
)
files = st.lists(names | st.sampled_from(["x.pt", "y.PT", "a/z.png", "None"]), unique=True).map(sorted)


@given(json_objects(), sources, files, st.booleans())
def test_whatever_was_made_lazy_is_there_again_once_it_is_loaded(
    definition: Definition, source: Source, listed: list[str], answers_as_the_route: bool
) -> None:
    """Any combos, lazily given; the options are what the folder holds, as the law supposes."""
    params = (source.filter_ext, source.filter_content_type, source.first, source.last)
    shown = list(select(listed, *params))
    v2 = to_v2(definition)
    for _, _, spec in inputs_of(v2):
        found = read_combo(spec)
        if found is not None and found.options is not None and spec[0] == "COMBO":
            spec[1]["options"] = list(shown)
    before = text(v2)
    there = lazy(v2, lambda name, spec: source)
    back = load(there, lambda remote: shown if answers_as_the_route else listed)
    assert text(back) == before
    assert text(v2) == before, "what was given is not written to"


@given(json_objects())
def test_nothing_raises_on_any_definition(definition: Definition) -> None:
    v2 = to_v2(definition)
    there = lazy(v2, lambda name, spec: recognise("LoadImage", name, spec, LISTS, {("LoadImage", "a"): "loras"}))
    load(there, from_lists(LISTS))
    for _, name, spec in inputs_of(definition):
        recognise("X", name, spec, LISTS, {})
        recognise("X", name, spec, LISTS, {("X", name): "loras"})


@given(json_objects(), st.dictionaries(st.sampled_from(FOLDERS), files))
def test_what_is_recognised_loses_no_choice(definition: Definition, lists: dict[str, list[str]]) -> None:
    for _, name, spec in inputs_of(definition):
        combo, source = read_combo(spec), recognise("X", name, spec, models(lists), {("X", "a"): "loras"})
        if combo is None or combo.options is None or source is None or source.folder in PRIVATE:
            continue
        given_files = lists.get(source.folder, list(map(normalise, combo.options)))
        again = select(given_files, source.filter_ext, source.filter_content_type, source.first, source.last)
        assert set(map(normalise, combo.options)) <= set(again)


# --- evidence ---

NO_HINTS: dict[tuple[str, str], str] = {}


def combo(options: list[Any], **settings: Any) -> list[Any]:
    return ["COMBO", {"options": options, **settings}]


def matched(name: str, options: list[Any], lists: Mapping[str, Sequence[str]]) -> Source | None:
    return recognise("SomeNode", name, combo(options), lists, NO_HINTS)


def test_a_list_that_is_one_folders_is_recognised_in_either_form() -> None:
    lists = {"loras": ["a.pt", "b.pt"], "vae": ["v.pt"]}
    assert matched("anything", ["a.pt", "b.pt"], lists) == Source("loras")
    assert recognise("SomeNode", "x", [["a.pt", "b.pt"]], lists, NO_HINTS) == Source("loras")


def test_choices_around_the_files_are_kept() -> None:
    lists = {"loras": ["a.pt", "b.pt"]}
    assert matched("x", ["None", "a.pt", "b.pt", "last"], lists) == Source("loras", first=("None",), last=("last",))


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["a.pt"],
        ["b.pt", "c.pt"],
        ["a.pt", "None", "b.pt"],
        ["None", "b.pt"],
        ["a.pt", "b.pt", "c.pt"],
        ["a.pt", "b.pt", "a.pt"],
        ["None", "a.pt", "b.pt", "None"],
        ["a.pt", "b.pt", 1],
        ["a.pt", "b.pt", None],
        [f"choice {number}" for number in range(MAX_EXTRAS + 1)] + ["a.pt", "b.pt"],
    ],
)
def test_anything_else_than_the_whole_list_and_a_few_choices_stays_inline(options: list[Any]) -> None:
    assert matched("lora_name", options, {"loras": ["a.pt", "b.pt"], "vae": []}) is None


def test_an_empty_list_says_nothing_by_itself_but_the_table_and_hints_do() -> None:
    assert matched("lora_name", [], {"loras": []}) is None
    assert recognise("LoraLoader", "lora_name", [[]], {}, NO_HINTS) == Source("loras")
    assert recognise("SomeNode", "it", [[]], {}, {("SomeNode", "it"): "my_folder"}) == Source("my_folder")
    assert recognise("SomeNode", "it", [[]], {}, {("SomeNode", "it"): "unet"}) == Source("diffusion_models")


def test_of_equal_folders_the_inputs_name_decides_or_nothing_does() -> None:
    lists = {
        "vae": ["a.pt"],
        "vae_approx": ["a.pt"],
        "text_encoders": ["a.pt"],
        "clip_vision": ["a.pt"],
        "x": ["a.pt"],
    }
    assert matched("vae_name", ["a.pt"], lists) == Source("vae")
    assert matched("vae_approx_name", ["a.pt"], lists) == Source("vae_approx")
    assert matched("clip_name1", ["a.pt"], lists) == Source("text_encoders")
    assert matched("clip_vision_name", ["a.pt"], lists) == Source("clip_vision")
    assert matched("file", ["a.pt"], lists) is None


def test_windows_separators_and_the_order_they_lead_to_do_not_matter() -> None:
    theirs = sorted(["a\\b.pt", "aZ.pt", "a0.pt"])
    ours = sorted(map(normalise, theirs))
    assert [normalise(name) for name in theirs] != ours
    assert matched("x", ["None", *theirs], {"loras": ours}) == Source("loras", first=("None",))
    assert matched("x", theirs, {"loras": theirs}) == Source("loras")
    v2 = {"input": {"required": {"a": combo(theirs)}}, "output": []}
    loaded = load(lazy(v2, lambda name, spec: Source("loras")), lambda remote: ours)
    assert loaded["input"]["required"]["a"] == combo(ours)


def test_hints_go_before_all_else() -> None:
    hints = {("LoraLoader", "lora_name"): "checkpoints"}
    assert recognise("LoraLoader", "lora_name", combo([]), {}, hints) == Source("checkpoints")
    hints = {("LoadImage", "image"): "input"}
    found = recognise("LoadImage", "image", combo([], image_upload=True), {}, hints)
    assert found == Source("input", filter_content_type=("image",))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"remote": {"route": "/internal/files/output"}}, Source("output")),
        ({"remote": {"route": "/api/internal/files/my%20models"}}, Source("my models")),
        (
            {"type": "remote", "route": "/internal/files", "query_params": {"folder_path": "configs"}},
            Source("configs"),
        ),
        (
            {"type": "remote", "route": "/internal/files/loras", "query_params": {"filter_ext": ".a,.b"}},
            Source("loras", filter_ext=(".a", ".b")),
        ),
        ({"remote": {"route": "http://elsewhere/internal/files/output"}}, None),
        ({"remote": {"route": "/internal/files/a/b"}}, None),
        ({"remote": {"route": "/internal/files"}}, None),
    ],
)
def test_an_address_in_the_spec_is_evidence(settings: Definition, expected: Source | None) -> None:
    assert recognise("SomeNode", "x", ["COMBO", settings], {}, NO_HINTS) == expected


@pytest.mark.parametrize(
    ("options", "settings", "expected"),
    [
        (["a.png"], {"image_upload": True}, Source("input", filter_content_type=("image",))),
        ([], {"video_upload": True}, Source("input", filter_content_type=("video",))),
        (["a.wav"], {"audio_upload": True}, Source("input", filter_content_type=("audio", "video"))),
        (["a.png"], {"image_upload": True, "image_folder": "output"}, Source("output", (), ("image",))),
        (["a.png", "b.txt"], {"image_upload": True}, Source("input")),
        (["None", "a.png"], {"image_upload": True}, Source("input", (), ("image",), first=("None",))),
        (["README", "a.png"], {"image_upload": True}, Source("input")),
        (["a.png"], {"image_upload": False}, None),
        (["a.png", 1], {"image_upload": True}, None),
    ],
)
def test_upload_flags_are_evidence(options: list[Any], settings: Definition, expected: Source | None) -> None:
    assert recognise("SomeNode", "x", combo(options, **settings), {}, NO_HINTS) == expected


def test_a_file_that_the_list_does_not_know_is_not_lost() -> None:
    assert recognise("LoraLoader", "lora_name", combo(["a.pt", "new.pt"]), {"loras": ["a.pt"]}, NO_HINTS) is None
    found = recognise("LoraLoader", "lora_name", combo(["a.pt"]), {"loras": ["a.pt", "new.pt"]}, NO_HINTS)
    assert found == Source("loras")


def test_settings_that_use_the_rfcs_names_otherwise_stay_as_they_are() -> None:
    v2 = {"input": {"required": {"a": combo([], route="x"), "b": combo([], type="y")}}, "output": []}
    assert lazy(v2, lambda name, spec: Source("loras")) is v2


def test_a_combo_that_is_remote_by_itself_stays_remote() -> None:
    by_author = {"type": "remote", "route": "/internal/files", "query_params": {"folder_path": "loras"}}
    v2 = {"input": {"required": {"a": ["COMBO", by_author]}}, "output": []}
    assert lazy(v2, lambda name, spec: Source("loras")) is v2
    assert load(v2, lambda remote: ["a.pt"]) is v2


# --- what the route answers ---


def test_files_are_chosen_by_extension_and_content_type() -> None:
    everything = ["a.PNG", "b.webp", "c.mp4", "d.glb", "e.flac", "noext", "f.safetensors", "png"]
    assert select(everything, filter_content_type=["image"]) == ["a.PNG", "b.webp"]
    assert select(everything, filter_content_type=["video", "audio"]) == ["c.mp4", "e.flac"]
    assert select(everything, filter_content_type=["model"]) == ["d.glb"]
    assert select(everything, filter_ext=[".png", ".safetensors"]) == ["a.PNG", "f.safetensors"]
    assert select(everything, [".webp", ".glb"], ["image"]) == ["b.webp"]
    assert select(everything) is everything


@given(files, sources)
def test_choosing_twice_is_choosing_once(listed: list[str], source: Source) -> None:
    params = (source.filter_ext, source.filter_content_type, source.first, source.last)
    once = select(listed, *params)
    assert select(once, *params) == once


# --- what it costs ---


def test_lazy_v2_is_a_small_part_of_v1_where_there_are_many_files() -> None:
    lists = invented_lists(1000)
    v1 = with_files(recorded(), lists)
    v2 = {name: lazily(name, definition, lists) for name, definition in v1.items()}
    assert size(v2) < 0.5 * size(v1)
    assert size(v2) <= size({name: lazily(name, recorded()[name], {}) for name in recorded()}) * 1.01


def test_two_thousand_classes_take_well_under_a_second() -> None:
    lists = invented_lists(500)
    full = list(with_files(recorded(), lists).items())
    classes = [full[number % len(full)] for number in range(2000)]
    known, answer = models(lists), from_lists(lists)
    start = time.process_time()
    for name, v1 in classes:
        there = lazy(to_v2(v1), partial(_source_of, name, known))
        to_v1(load(there, answer))
    assert time.process_time() - start < 1.5


def _source_of(class_name: str, known: Mapping[str, list[str]], name: str, spec: Any) -> Source | None:
    return recognise(class_name, name, spec, known, NO_HINTS)
