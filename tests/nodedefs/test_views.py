"""What clients are told of all backends' nodes together, and what only owners are told."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as how
from hypothesis import strategies as st

from bridged.nodedefs.brief import whole
from bridged.nodedefs.combos import Remote
from bridged.nodedefs.forms import Definition, to_v1
from bridged.nodedefs.lazy import folder_of, load
from bridged.nodedefs.views import (
    Offered,
    View,
    Views,
    about_input,
    definition_of,
    has_unknown_lists,
    hides,
    remotes_of,
    witnesses,
)
from tests.nodedefs.samples import inputs as any_inputs
from tests.nodedefs.samples import invented_lists, recorded, with_files

V1, V2 = View(owners=True), View(v2=True, owners=True)
OTHERS = [View(), View(v2=True), View(availability=True), View(v2=True, availability=True)]
SECRETS = ("secret.png", "secret", "family")


def node(**inputs: Any) -> bytes:
    return json.dumps({"input": {"required": inputs}, **OUTPUTS}).encode()


OUTPUTS: dict[str, Any] = {"output": ["A"], "output_is_list": [False], "output_name": ["A"], "output_node": False}


def pc(
    backend: str, classes: Mapping[str, bytes], lists: Mapping[str, Sequence[str]] | None = None, **more: Any
) -> Offered:
    return Offered(backend, classes, lists=lists or {}, **more)


def said(pool: Sequence[Offered], name: str, view: View) -> Definition:
    body = Views().one(pool, name, view)
    assert body is not None
    found = json.loads(body)
    assert isinstance(found, dict)
    return found


def full_pc(backend: str, lists: dict[str, list[str]]) -> Offered:
    definitions = with_files(recorded(), lists)
    return pc(backend, {name: json.dumps(each).encode() for name, each in definitions.items()}, lists)


# -- V1 and V2 --


def test_one_backends_v1_is_the_very_bytes() -> None:
    raw = b'{"input": {"required": {"x": [["b", "a", "secret.png"],{}]}},   "a": 1.0}'
    assert Views().one([pc("a", {"X": raw})], "X", V1) is raw
    assert Views().whole([pc("a", {"X": raw, 'Y"': raw})], V1) == b'{"X": ' + raw + b', "Y\\"": ' + raw + b"}"


def test_nobody_has_it() -> None:
    assert Views().one([], "X", V1) is None
    assert Views().one([pc("a", {"Y": node()})], "X", V1) is None
    assert Views().whole([], V1) == b"{}"
    assert definition_of([], "X", V2) is None


def test_v1_of_several_has_all_classes_and_choices() -> None:
    pool = [
        pc("a", {"X": node(m=[["a"], {"default": "a"}]), "A": node()}),
        pc("b", {"X": node(m=[["b"]]), "B": node()}),
    ]
    found = json.loads(Views().whole(pool, V1))
    assert found.keys() == {"X", "A", "B"}
    assert found["X"]["input"]["required"]["m"] == [["a", "b"], {"default": "a"}]


def test_v2_loaded_is_the_v1_of_the_union() -> None:
    lists = invented_lists()
    halves = [{folder: files[side::2] for folder, files in lists.items()} for side in (0, 1)]
    pool = [full_pc(name, half) for name, half in zip("ab", halves, strict=True)]

    def files(remote: Remote) -> list[str]:
        folder = folder_of(remote)
        assert folder is not None
        return lists[folder]

    v1, v2 = json.loads(Views().whole(pool, V1)), json.loads(Views().whole(pool, V2))
    assert v1.keys() == v2.keys() == recorded().keys()
    is_lazy = [name for name, each in v2.items() if load(each, files) is not each]
    assert {"CheckpointLoaderSimple", "VAELoader", "LoadImage", "LoraLoader"} <= set(is_lazy)
    different = [name for name in v2 if to_v1(whole(load(v2[name], files), name)) != v1[name]]
    assert different == []


def test_v2_is_lazy() -> None:
    pool = [pc(who, {"X": node(lora=[[f"{who}.pt"]])}, {"loras": [f"{who}.pt"]}) for who in "ab"]
    settings = said(pool, "X", V2)["input"]["required"]["lora"][1]
    assert (settings["type"], settings["route"], "options" in settings) == ("remote", "/internal/files/loras", False)
    known = definition_of(pool, "X", V2)
    assert known is not None
    assert known["input"] == said(pool, "X", V2)["input"]


def test_lists_read_since_then_count() -> None:
    raw = node(lora=[["None", "a.pt"], {"default": "None"}])
    pool = [pc("a", {"X": raw}, {"loras": ["a.pt"]}, newer={"loras": ["c.pt", "a.pt"], "vae": ["v"]})]
    assert said(pool, "X", V1)["input"]["required"]["lora"] == [["None", "a.pt", "c.pt"], {"default": "None"}]


# -- backends are not trusted --


@pytest.mark.parametrize("bad", [b"{", b"[]", b"5", b"{}", b"\xff", b"[" * 100_000])
def test_one_unreadable_definition_hurts_nobody(bad: bytes) -> None:
    pool = [pc("bad", {"X": bad, "Only": bad}), pc("good", {"X": node(m=[["a"]])})]
    for view in (V1, V2, *OTHERS):
        assert said(pool, "X", view)["input"]["required"]["m"]
        assert json.loads(Views().whole(pool[:0] + pool[1:], view)).keys() == {"X"}
    assert Views().one(pool, "Only", V2) is None
    assert json.loads(Views().whole(pool, V2)).keys() == {"X"}
    assert definition_of(pool, "Only", View(v2=True)) is None
    assert not has_unknown_lists(pool[0])
    assert witnesses({"LoraLoader": bad}) == {}


@how(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(any_inputs, any_inputs, st.sampled_from(["X", "LoadImage", "LoraLoader"]))
def test_any_json_gives_an_answer(one: Any, another: Any, name: str) -> None:
    raws = [json.dumps({"input": each, "output": []}).encode() for each in (one, another)]
    pool = [
        pc(who, {name: raw}, {"loras": ["a"], "input": ["image"]}, newer={"loras": ["b"], "input": ["c"]})
        for who, raw in zip("ab", raws, strict=True)
    ]
    for view in (V1, V2, *OTHERS, View(owners=True, availability=True)):
        assert said(pool, name, view)
        assert said(pool[:1], name, view)
    for key in ("a", "image"):
        about_input(said(pool, name, V2), key)
        remotes_of(pool, name, key)
    has_unknown_lists(pool[0])


# -- what is the owners' --


def owned() -> dict[str, bytes]:
    return {
        "LoadImage": node(image=[["secret.png"], {"image_upload": True, "default": "secret.png"}]),
        "LoadImageMask": node(image=[["secret"], {"default": "secret"}]),
        "Upload": node(any=[["secret.png", "secret"], {"image_upload": True, "default": "secret"}]),
        "Custom": node(pick=[["fast", "secret.png"], {"default": "secret.png"}]),
        "Explicit": node(pick=["COMBO", {"options": ["fast", "secret.png"], "default": "secret.png"}]),
        "LoadImageSetFromFolderNode": node(folder=[["family"], {"default": "family"}]),
        "Odd": node(pick=[["secret.png"], {}, 1], more=[["secret.png"], "x"], bare=["COMBO"]),
        "Out": json.dumps(
            {"input": {"required": {"pick": [["secret.png"]]}}, **OUTPUTS, "output": [["secret.png", "fast"]]}
        ).encode(),
    }


@pytest.mark.parametrize("view", OTHERS)
@pytest.mark.parametrize("backends", [1, 2])
@pytest.mark.parametrize("name", list(owned()))
def test_owners_files_are_shown_to_owners_alone(name: str, backends: int, view: View) -> None:
    pool = [pc(who, owned(), newer={"input": ["secret.png"]}) for who in "ab"[:backends]]
    body = Views().one(pool, name, view)
    assert body is not None
    assert not any(f'"{secret}"'.encode() in body for secret in SECRETS)
    shown = definition_of(pool, name, View(v2=True))
    assert not any(f'"{secret}"' in json.dumps(shown) for secret in SECRETS)
    theirs = Views().one(pool, name, V1)
    assert theirs is not None
    assert any(f'"{secret}"'.encode() in theirs for secret in SECRETS)


@pytest.mark.parametrize("view", OTHERS)
@pytest.mark.parametrize("choices", [["secret"], ["fast"]])
def test_one_pc_that_knows_the_folder_is_enough_for_its_own_files(choices: list[str], view: View) -> None:
    known = Offered("a", {"X": node(pick=[["secret"], {"default": "secret"}])}, hints={("X", "pick"): "input"})
    for pool in ([known, pc("b", {"X": node(pick=[["fast"]])})], [pc("b", {"X": node(pick=[["fast"]])}), known]):
        assert "secret" not in json.dumps(said(pool, "X", view))


def test_what_is_no_owners_file_stays() -> None:
    pool = [pc("a", owned())]
    assert said(pool, "Custom", View())["input"]["required"]["pick"] == [["fast"]]
    raw = node(model=[["a.safetensors", "1.5", "None"], {"default": "None"}])
    assert said([pc("a", {"X": raw})], "X", View()) == json.loads(raw)


@pytest.mark.parametrize(
    ("choice", "is_hidden"),
    [
        ("a.PNG", True),
        ("s/a.mp4 [output]", True),
        ("a.safetensors", False),
        ("png", False),
        (".png", False),
        (5, False),
    ],
)
def test_what_looks_like_somebodys_file(choice: Any, is_hidden: bool) -> None:
    assert hides(choice) is is_hidden


# -- availability --


def test_availability_is_names_for_owners_and_counts_for_others() -> None:
    pool = [pc("a", {"X": node(m=[["x", "y"]])}), pc("b", {"X": node(m=[["y"], {"tooltip": "t"}])})]
    assert said(pool, "X", View(owners=True, availability=True))["availability"] == {
        "backends": ["a", "b"],
        "options": {"required": {"m": {"x": ["a"], "y": ["a", "b"]}}},
        "conflicts": [{"field": "input.required.m", "backends": ["b"]}],
    }
    assert said(pool, "X", View(availability=True))["availability"] == {
        "backends": 2,
        "options": {"required": {"m": {"x": 1, "y": 2}}},
        "conflicts": [{"field": "input.required.m", "backends": 1}],
    }
    assert said(pool[:1], "X", View(owners=True, availability=True))["availability"]["backends"] == ["a"]


def test_availability_of_lazy_combos_is_told_elsewhere() -> None:
    pool = [pc("a", {"X": node(lora=[["a.pt"]])}, {"loras": ["a.pt"]})]
    options = said(pool, "X", View(v2=True, owners=True, availability=True))["availability"]["options"]
    assert options == {"required": {}}


# -- remote combos of a node's own --


def test_a_nodes_own_remote_combo_goes_through_us() -> None:
    raw = node(
        pick=["COMBO", {"type": "remote", "route": "/mine", "response_key": "k", "refresh": 5, "cache_key": "c"}]
    )
    pool = [pc("a", {"X": raw}), pc("b", {"X": raw})]
    for view in (V2, View(v2=True)):
        settings = said(pool, "X", view)["input"]["required"]["pick"][1]
        assert settings == {
            "type": "remote",
            "route": "/internal/combos",
            "response_key": "files",
            "query_params": {"class": "X", "input": "pick"},
            "refresh": 5,
            "invalidation_signal": "combos.X.pick",
        }
    remotes, signal = remotes_of(pool, "X", "pick")
    assert remotes.keys() == {"a", "b"}
    assert signal == "combos.X.pick"
    assert (remotes["a"].route, remotes["a"].response_key) == ("/mine", "k")
    assert remotes_of(pool, "X", "other") == ({}, "") == remotes_of(pool, "Y", "pick")


def test_a_signal_of_its_own_is_kept() -> None:
    raw = node(pick=["COMBO", {"type": "remote", "route": "/mine", "invalidation_signal": "s"}])
    assert remotes_of([pc("a", {"X": raw})], "X", "pick")[1] == "s"
    assert said([pc("a", {"X": raw})], "X", V2)["input"]["required"]["pick"][1]["invalidation_signal"] == "s"


def test_what_a_form_needs_to_know() -> None:
    pool = [
        pc(
            "a",
            {
                "X": node(
                    n=["INT", {"min": 0, "max": 5, "other": 1}],
                    m=[["a"]],
                    r=["COMBO", {"type": "remote", "route": "/x"}],
                )
            },
        )
    ]
    definition = said(pool, "X", V2)
    assert about_input(definition, "n") == {"min": 0, "max": 5}
    assert about_input(definition, "m") == {"options": ["a"]}
    assert about_input(definition, "r")["remote"]["route"] == "/internal/combos"
    assert about_input(definition, "none") == {}


# -- lists --


def test_comfyuis_own_loaders_tell_of_folders() -> None:
    classes = {
        "VAELoader": node(vae_name=[["a.pt", "s\\b.pt", "pixel_space"]]),
        "LoraLoader": node(lora_name=["COMBO", {"options": ["l.pt"]}]),
        "LoadImage": node(image=[["secret.png"]]),
        "UNETLoader": node(other=[["x.pt"]]),
    }
    assert witnesses(classes) == {"vae": ["a.pt", "s\\b.pt"], "loras": ["l.pt"]}


@pytest.mark.parametrize(
    ("choices", "lists", "is_unknown"),
    [
        (["a.safetensors"], {}, True),
        (["a.safetensors"], {"mine": ["a.safetensors"]}, False),
        (["fast", "slow"], {}, False),
        (["a.png"], {}, False),
        ([1, "a.safetensors"], {}, False),
    ],
)
def test_unknown_lists(choices: list[Any], lists: dict[str, list[str]], is_unknown: bool) -> None:
    assert has_unknown_lists(pc("a", {"X": node(pick=[choices])}, lists)) is is_unknown


# -- memo --


def test_nothing_is_made_twice() -> None:
    views = Views()
    lists, newer = {"loras": ["a.pt"]}, {"loras": ["a.pt", "b.pt"]}
    raw = node(lora=[["a.pt"]])
    pool = [Offered("a", {"X": raw}, lists=lists, newer={}), Offered("b", {"X": raw}, lists=lists, newer={})]
    first = views.one(pool, "X", V1)
    assert views.one(list(pool), "X", V1) is first
    views.whole(pool, V2)
    assert views.one(pool, "X", V1) is first
    assert views.one(pool, "X", V2) != first
    changed = views.one([pool[0], Offered("b", {"X": raw}, lists=lists, newer=newer)], "X", V1)
    assert changed is not None
    assert b"b.pt" in changed
    assert views.one(pool[:1], "X", V1) is raw
    assert views.one([Offered("a", {"X": node()}, lists=lists)], "X", V1) == node()


def test_what_v2_cannot_say_tells_nothing_of_owners_files_either() -> None:
    odd = {"input": {"required": {"file": [["mine.png"], {"options": ["mine.png"], "default": "mine.png"}]}}}
    pool = [Offered("pc", {"Odd": json.dumps({**odd, "output": ["IMAGE"], "output_name": ["x"]}).encode()})]
    assert b"mine.png" in (Views().one(pool, "Odd", View(owners=True)) or b"")
    for view in (View(), View(v2=True), View(availability=True), View(v2=True, availability=True)):
        answer = Views().one(pool, "Odd", view)
        assert answer
        assert b"mine.png" not in answer


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("LoadImage", [["a.png", "auto", "z.secret"], {"image_upload": True}]),
        ("Mine", [["z.secret", "z.secret", 5], {"image_upload": True}]),
        ("Mine", [["fine", "a.png", "z.secret"], {}]),
        ("Mine", [[["a.png", "z.secret"]], {}]),
        (
            "Mine",
            ["DYNAMIC", {"options": [{"inputs": {"i": ["COMBO", {"options": ["z.secret"], "image_upload": True}]}}]}],
        ),
        ("Mine", [["z.secret\nb.png"], {"options": ["z.secret.heif"]}]),
    ],
)
def test_owners_files_are_hidden_however_deep_or_odd(kind: str, spec: Any) -> None:
    pool = [Offered("pc", {kind: json.dumps({"input": {"required": {"x": spec}}, "output": []}).encode()})]
    for view in (View(), View(v2=True), View(availability=True), View(v2=True, availability=True)):
        answer = Views().one(pool, kind, view)
        assert answer
        assert b"secret" not in answer
        assert b"a.png" not in answer
        assert json.loads(answer).get("v1", {}).keys() <= {"absent"}
