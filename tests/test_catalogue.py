"""Workflow files to typed inputs, and a caller's values to a prompt graph."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from bridged import catalogue
from bridged.catalogue import Catalogue, Source, Workflow, apply, load, read_workflow, to_base64
from bridged.config.schema import DEFAULT_TYPES
from bridged.errors import BadInput, BadRequest, ConfigError, UnknownAlias
from bridged.model import FileInput, Graph, StoredFile

TOKEN = catalogue.TOKEN_PREFIX + "abc"

GRAPH: dict[str, Any] = {
    "6": {
        "class_type": "CLIPTextEncode",
        "inputs": {"text": "a cat", "clip": ["4", 1]},
        "_meta": {"title": "Prompt", "apiinput": "text"},
    },
    "10": {
        "class_type": "LoadImage",
        "inputs": {"image": "start.png", "upload": "image"},
        "_meta": {"title": "Load Image", "apiinput": " image , "},
    },
    "15": {
        "class_type": "KSampler",
        "inputs": {"seed": 7, "cfg": 1.5, "tiled": False, "model": ["4", 0], "steps": 20},
        "_meta": {"apiinput": "seed,cfg,tiled"},
    },
    "20": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x", "images": ["15", 0]}},
}

UPLOAD = StoredFile(Path("/spool/u.file"), 9, "aa", "image/jpeg", ".jpg")
DEFAULT = StoredFile(Path("/workflows/input/start.png"), 9, "cc", "image/png", ".png")
CLIP = StoredFile(Path("/spool/c.file"), 9, "bb", "video/mp4", ".mp4")


def resolve(token: str) -> StoredFile:
    match token.removeprefix(catalogue.TOKEN_PREFIX):
        case "abc":
            return UPLOAD
        case "clip":
            return CLIP
        case _:
            raise BadRequest("unknown or expired upload token; upload the file again")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("thumbnail", "descimage", "input"):
        (tmp_path / name).mkdir()
    return tmp_path


def write(folder: Path, fn: str = "w.json", graph: Any = None, **changes: Any) -> str:
    """Writes a workflow; `changes` are merged into its nodes, n6={"_meta": …}."""
    graph = copy.deepcopy(GRAPH if graph is None else graph)
    for node, content in changes.items():
        graph[node.removeprefix("n")].update(content)
    (folder / fn).write_text(json.dumps(graph), encoding="utf-8")
    return fn


def read(folder: Path, fn: str = "w.json", **source: Any) -> Workflow:
    return read_workflow(folder, Source("alias", fn, **source), DEFAULT_TYPES)


def refusal(folder: Path, fn: str = "w.json", **source: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        read(folder, fn, **source)
    return str(refused.value)


@pytest.fixture
def workflow(folder: Path) -> Workflow:
    write(folder)
    return read(folder)


# -- reading ---------------------------------------------------------------------------------------------------------


def test_only_what_apiinput_names_is_offered_with_the_type_of_its_default(workflow: Workflow) -> None:
    assert {key: (i.type, i.title, i.default) for key, i in workflow.inputs.items()} == {
        "6/text": ("str", "Prompt / text", "a cat"),
        "10/image": ("image/png", "Load Image / image", "start.png"),
        "15/seed": ("int", "KSampler / seed", 7),
        "15/cfg": ("float", "KSampler / cfg", 1.5),
        "15/tiled": ("bool", "KSampler / tiled", False),
    }
    assert workflow.requires == {"CLIPTextEncode", "LoadImage", "KSampler", "SaveImage"}
    assert workflow.inputs["10/image"].is_file
    assert not workflow.inputs["6/text"].is_file


@pytest.mark.parametrize(
    ("default", "kind"),
    [
        ("photo.JPEG", "image/jpeg"),
        ("a.mp4", "video/mp4"),
        ("notes.txt", "str"),
        (".png", "str"),
        ("", "str"),
        (True, "bool"),
    ],
)
def test_types_of_defaults(folder: Path, default: Any, kind: str) -> None:
    write(folder, n6={"inputs": {"text": default}})
    assert read(folder).inputs["6/text"].type == kind


def test_an_input_that_is_not_there_is_named_with_those_that_are(folder: Path) -> None:
    write(folder, n15={"_meta": {"apiinput": "seed,sed"}})
    text = refusal(folder)
    assert text.startswith("w.json: node 15: _meta.apiinput: 'sed'")
    assert "seed, cfg, tiled, model, steps" in text


@pytest.mark.parametrize("link", [["4", 0], {"a": 1}, None])
def test_what_is_no_plain_value_cannot_be_offered(folder: Path, link: Any) -> None:
    write(folder, n15={"inputs": {"model": link}, "_meta": {"apiinput": "model"}})
    assert refusal(folder).startswith("w.json: node 15: _meta.apiinput: 'model'")


def test_a_linked_input_is_said_to_be_linked(folder: Path) -> None:
    write(folder, n15={"_meta": {"apiinput": "model"}})
    assert "linked to another node; only values can be set" in refusal(folder)


def test_descimage_as_text_stands_for_every_input_and_as_a_list_for_each(folder: Path) -> None:
    (folder / "descimage" / "one.png").write_bytes(b"one")
    (folder / "descimage" / "two.png").write_bytes(b"two")
    meta = {"apiinput": "seed,cfg,tiled"}
    write(folder, n15={"_meta": {**meta, "descimage": "one.png"}})
    assert [i.descimage for i in read(folder).inputs.values() if i.node == "15"] == [b"one"] * 3
    write(folder, n15={"_meta": {**meta, "descimage": ["one.png", None]}})
    assert [i.descimage for i in read(folder).inputs.values() if i.node == "15"] == [b"one", None, None]
    write(folder, n15={"_meta": {**meta, "descimage": ["", "two.png", "one.png", "two.png"]}})
    assert [i.descimage for i in read(folder).inputs.values() if i.node == "15"] == [None, b"two", b"one"]


@pytest.mark.parametrize("name", ["../one.png", "gone.png", 5, "a/b.png", "\0.png", ".."])
def test_pictures_must_be_bare_names_that_are_there(folder: Path, name: Any) -> None:
    (folder / "one.png").write_bytes(b"outside")
    write(folder, n15={"_meta": {"apiinput": "seed", "descimage": name}})
    assert refusal(folder).startswith("w.json: node 15: _meta.descimage: ")
    if isinstance(name, str):
        write(folder)
        assert refusal(folder, thumbnail=name).startswith("workflow_alias.json: alias: thumbnail: ")


def test_a_thumbnail_is_its_bytes(folder: Path) -> None:
    (folder / "thumbnail" / "t.png").write_bytes(b"\x00\xff")
    write(folder)
    assert to_base64(read(folder, thumbnail="t.png").thumbnail) == "AP8="
    assert to_base64(read(folder).thumbnail) is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{\n"1": {\n"class_type": "A",,\n', "w.json: line 3, column "),
        (b"", "w.json: line 1, column 1: "),
        (b"\xff\xfe", "w.json: cannot be read: "),
        (b"[]", "w.json: must be an object of nodes, as Export (API) writes it"),
        (b"{}", "w.json: must be an object of nodes"),
        (b"3", "w.json: must be an object of nodes"),
        (b'{"nodes": [], "links": [], "version": 0.4}', "w.json: this is a workflow saved for the editor; export"),
        (b'{"1": []}', "w.json: node 1: needs `class_type` (text) and `inputs` (an object)"),
        (b'{"1": {"class_type": "A"}}', "w.json: node 1: needs"),
        (b'{"1": {"class_type": 1, "inputs": {}}}', "w.json: node 1: needs"),
        (b'{"1": {"class_type": "A", "inputs": [], "_meta": {}}}', "w.json: node 1: needs"),
        (b'{"1": {"class_type": "A", "inputs": {}, "_meta": 3}}', "w.json: node 1: needs"),
        (b"[" * 200_000, "w.json: nested too deeply"),
        (b'{"1": {"class_type": "A", "inputs": {"n": ' + b"9" * 5000 + b"}}}", "w.json: "),
        (b'{"1": {"class_type": "A", "inputs": {"n": NaN}}}', "w.json: "),
        (b'{"1": {"class_type": "A", "inputs": {"n": "\\ud800"}}}', "w.json: "),
    ],
)
def test_a_broken_file_says_where_and_what(folder: Path, content: bytes, says: str) -> None:
    (folder / "w.json").write_bytes(content)
    text = refusal(folder)
    assert text.startswith(says)
    assert "\n" not in text
    assert len(text) < 300


def test_a_missing_file_says_how_to_make_it(folder: Path) -> None:
    assert refusal(folder, "gone.json") == "gone.json: no such file in the workflows folder; write it with Export (API)"


def test_defaults_that_lie_beside_the_workflows_are_sent_along(folder: Path) -> None:
    Image.new("RGB", (2, 2)).save(folder / "input" / "start.png")
    write(folder)
    file = read(folder).files["10", "image"]
    assert file.path == folder / "input" / "start.png"
    assert (file.content_type, file.extension, file.size) == ("image/png", ".png", file.path.stat().st_size)
    graph, files = apply(read(folder), {}, resolve)
    assert files == (FileInput("10", "image", file),)
    assert graph["10"]["inputs"]["image"] == "start.png"


def test_files_that_no_input_offers_are_sent_along_too(folder: Path) -> None:
    Image.new("RGB", (2, 2)).save(folder / "input" / "start.png")
    write(folder, n10={"_meta": {}})
    assert set(read(folder).files) == {("10", "image")}


@pytest.mark.parametrize("value", ["x" * 300 + ".png", "../w.png", "a\0.png", "input", "~/x.png"])
def test_values_that_only_look_like_files_are_left_alone(folder: Path, value: str) -> None:
    write(folder, n6={"inputs": {"text": value, "clip": ["4", 1]}})
    assert read(folder).files == {}


# -- the whole folder ------------------------------------------------------------------------------------------------


def test_aliases_come_first_in_their_order_then_unlisted_files(folder: Path) -> None:
    for fn in ("b.json", "a.json", "z.json", ".hidden.json"):
        write(folder, fn)
    (folder / "notes.txt").write_text("no workflow")
    loaded, problems = load(folder, [Source("zed", "z.json", "the last")], DEFAULT_TYPES)
    assert list(loaded.workflows) == ["zed", "a.json", "b.json"]
    assert loaded.get("zed").description == "the last"
    assert problems == []


def test_two_aliases_may_share_a_file(folder: Path) -> None:
    write(folder)
    loaded, _ = load(folder, [Source("one", "w.json"), Source("two", "w.json")], DEFAULT_TYPES)
    assert list(loaded.workflows) == ["one", "two"]


def test_a_file_never_takes_the_place_of_an_alias_of_the_same_name(folder: Path) -> None:
    write(folder, "listed.json")
    write(folder, "taken.json", {"1": {"class_type": "Other", "inputs": {}}})
    loaded, _ = load(folder, [Source("taken.json", "listed.json")], DEFAULT_TYPES)
    assert loaded.get("taken.json").fn == "listed.json"


def test_an_unknown_alias_names_those_there_are() -> None:
    with pytest.raises(UnknownAlias, match="'nope' is not registered; registered are: none"):
        Catalogue({}).get("nope")


def test_a_bad_workflow_keeps_its_previous_content_and_the_others_apply(folder: Path) -> None:
    write(folder, "a.json")
    write(folder, "b.json")
    before, _ = load(folder, [Source("first", "a.json")], DEFAULT_TYPES)
    (folder / "a.json").write_text("{")
    write(folder, "b.json", n6={"inputs": {"text": "a dog"}})
    after, problems = load(folder, [Source("first", "a.json")], DEFAULT_TYPES, before)
    assert after.get("first") is before.get("first")
    assert after.get("b.json").inputs["6/text"].default == "a dog"
    assert len(problems) == 1
    assert problems[0].startswith("a.json: line 1")
    fresh, problems = load(folder, [Source("first", "a.json")], DEFAULT_TYPES)
    assert list(fresh.workflows) == ["b.json"]
    assert len(problems) == 1


def test_a_removed_file_is_no_workflow_any_more(folder: Path) -> None:
    write(folder)
    before, _ = load(folder, [], DEFAULT_TYPES)
    (folder / "w.json").unlink()
    after, problems = load(folder, [], DEFAULT_TYPES, before)
    assert (after.workflows, problems) == ({}, [])


# -- applying --------------------------------------------------------------------------------------------------------


def test_values_take_the_place_of_defaults_and_of_nothing_else(workflow: Workflow) -> None:
    before = copy.deepcopy(workflow.graph)
    values = {"6/text": "a dog", "15/seed": 8, "15/cfg": 2, "15/tiled": True}
    graph, files = apply(workflow, values, resolve)
    assert workflow.graph == before
    assert graph["6"]["inputs"] == {"text": "a dog", "clip": ["4", 1]}
    assert graph["15"]["inputs"] == {"seed": 8, "cfg": 2.0, "tiled": True, "model": ["4", 0], "steps": 20}
    assert isinstance(graph["15"]["inputs"]["cfg"], float)
    assert graph["20"] == before["20"]
    assert files == ()


def test_a_token_stands_for_the_callers_file(workflow: Workflow) -> None:
    _, files = apply(workflow, {"10/image": TOKEN}, resolve)
    assert files == (FileInput("10", "image", UPLOAD),)


def test_a_token_replaces_a_default_that_would_be_sent_along(folder: Path) -> None:
    Image.new("RGB", (2, 2)).save(folder / "input" / "start.png")
    write(folder)
    assert apply(read(folder), {"10/image": TOKEN}, resolve)[1] == (FileInput("10", "image", UPLOAD),)
    graph, files = apply(read(folder), {"10/image": "held.png"}, resolve)
    assert (graph["10"]["inputs"]["image"], files) == ("held.png", ())
    assert len(apply(read(folder), {"10/image": "start.png"}, resolve)[1]) == 1


@pytest.mark.parametrize("name", ["held.png", "sub/held.png", "held.png [output]", "Bild ä.png"])
def test_a_file_that_backends_hold_goes_by_its_name(workflow: Workflow, name: str) -> None:
    graph, files = apply(workflow, {"10/image": name}, resolve)
    assert (graph["10"]["inputs"]["image"], files) == (name, ())


@pytest.mark.parametrize(
    "name", ["../x.png", "/etc/passwd", "a/../b.png", "a//b.png", "C:\\x.png", "", "a\nb.png", "."]
)
def test_a_name_that_leaves_the_input_folder_is_refused(workflow: Workflow, name: str) -> None:
    with pytest.raises(BadInput, match=r"^'10/image': .*upload the file and send its token"):
        apply(workflow, {"10/image": name}, resolve)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("6/text", 5, "'6/text' must be str, not int"),
        ("6/text", None, "'6/text' must be str, not null"),
        ("6/text", ["4", 0], "'6/text' must be str, not list"),
        ("6/text", "x" * 1_000_001, "'6/text' is longer than 1000000 characters"),
        ("15/seed", "7", "'15/seed' must be int, not str"),
        ("15/seed", 7.0, "'15/seed' must be int, not float"),
        ("15/seed", True, "'15/seed' must be int, not bool"),
        ("15/cfg", False, "'15/cfg' must be float, not bool"),
        ("15/cfg", float("nan"), "'15/cfg' must be a finite number"),
        ("15/cfg", float("-inf"), "'15/cfg' must be a finite number"),
        ("15/cfg", 10**400, "'15/cfg' must be a finite number"),
        ("15/tiled", 1, "'15/tiled' must be bool, not int"),
        ("10/image", 3, "'10/image' must be str, not int"),
        ("10/image", TOKEN + "gone", "'10/image': unknown or expired upload token"),
        (
            "10/image",
            catalogue.TOKEN_PREFIX + "clip",
            "'10/image': the upload is video/mp4; this input takes image/png",
        ),
        ("15/steps", 3, "'15/steps' is no input of 'alias'; its inputs are: 6/text, 10/image, 15/seed"),
        ("nope", 3, "'nope' is no input of 'alias'"),
    ],
)
def test_what_is_wrong_names_the_key(workflow: Workflow, key: str, value: Any, says: str) -> None:
    with pytest.raises(BadInput) as refused:
        apply(workflow, {key: value}, resolve)
    assert str(refused.value).startswith(says)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.sampled_from([TOKEN, "start.png", "held.png", "\ud800", 10**400, -(10**400)]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(["6/text", "10/image", "15/seed", "15/cfg", "15/tiled"]) | st.text(max_size=10)


def from_memory() -> Workflow:
    inputs = {
        key: catalogue.Input(key, node, name, kind, key, GRAPH[node]["inputs"][name])
        for key, kind in {
            "6/text": "str",
            "10/image": "image/png",
            "15/seed": "int",
            "15/cfg": "float",
            "15/tiled": "bool",
        }.items()
        for node, name in [key.split("/")]
    }
    return Workflow("alias", "w.json", "", None, copy.deepcopy(GRAPH), inputs, {("10", "image"): DEFAULT}, frozenset())


@given(st.dictionaries(KEYS, JSON, max_size=5))
@example({"15/cfg": 10**400})
@example({"6/text": "\ud800"})
@example({"10/image": TOKEN})
@example({"10/image": "held.png"})
def test_any_values_are_refused_or_make_a_graph_that_can_be_sent(values: dict[str, Any]) -> None:
    workflow = from_memory()
    before = copy.deepcopy(workflow.graph)
    files_before = dict(workflow.files)
    refused: BadInput | None = None
    try:
        graph, files = apply(workflow, values, resolve)
    except BadInput as error:
        refused = error
    if refused is not None:
        assert any(repr(key) in str(refused) for key in values)
    else:
        decoded: Graph = msgspec.json.decode(msgspec.json.encode(graph))
        assert decoded == graph
        json.dumps(graph, allow_nan=False)
        assert graph.keys() == GRAPH.keys()
        assert all(graph[node].keys() == GRAPH[node].keys() for node in GRAPH)
        assert {(use.node, use.input) for use in files} <= {("10", "image")}
    assert workflow.graph == before
    assert workflow.files == files_before


@given(st.dictionaries(KEYS, JSON, max_size=3), st.dictionaries(KEYS, JSON, max_size=3))
def test_one_job_never_sees_the_values_of_another(first: dict[str, Any], second: dict[str, Any]) -> None:
    workflow = from_memory()

    def attempt(values: dict[str, Any]) -> str:
        try:
            return repr(apply(workflow, values, resolve))
        except BadInput as error:
            return str(error)

    alone = attempt(second)
    attempt(first)
    assert attempt(second) == alone


def test_changing_a_jobs_graph_does_not_reach_the_workflow(workflow: Workflow) -> None:
    before = copy.deepcopy(workflow.graph)
    graph, _ = apply(workflow, {}, resolve)
    for node in graph.values():
        node["inputs"]["added"] = 1
    graph["99"] = {"class_type": "X", "inputs": {}}
    assert workflow.graph == before


def test_links_cannot_be_set_from_outside(workflow: Workflow) -> None:
    values: list[Callable[[], Any]] = [lambda: ["4", 0], lambda: {"__value__": ["4", 0]}]
    for value in values:
        with pytest.raises(BadInput):
            apply(workflow, {"15/seed": value()}, resolve)
