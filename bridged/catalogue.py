"""Workflow aliases: from files in API format to typed inputs, and from a caller's values to a prompt graph.

A node whose `_meta.apiinput` is "text,seed" offers the inputs NODE/text and NODE/seed; nothing else of the graph can
be set from outside.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from bridged.errors import BadInput, BadRequest, ConfigError, FileRefused, UnknownAlias
from bridged.files.names import bare_name, extension_of
from bridged.files.sniff import type_of_extension
from bridged.files.spool import stored_from_disk
from bridged.model import Disconnect, FileInput, Graph, StoredFile

TOKEN_PREFIX = "bridge_server_comfyui_"
JSON_TYPES: dict[type, str] = {str: "str", bool: "bool", int: "int", float: "float"}
ALIASES_FILE = "workflow_alias.json"
PUBLISHED_NAME = re.compile(r".+\.[0-9a-f]{12}\.[a-z0-9]+")
"""file names of published workflows and their pictures, which have a digest of the content in them"""

MAX_TEXT = 1_000_000
"""characters of one text value: far above any prompt, far below what would hurt a backend"""


class Input(msgspec.Struct, frozen=True):
    """One named input. `type`: str, int, float, bool, or a MIME type (then a value is an upload token or the name of
    a file that the backends hold)."""

    key: str
    node: str
    name: str
    type: str
    title: str
    default: Any
    descimage: bytes | None = None

    @property
    def is_file(self) -> bool:
        return "/" in self.type


class Options(msgspec.Struct, frozen=True):
    """What an alias says of its jobs in place of the settings for all; None: it says nothing."""

    on_disconnect: Disconnect | None = None
    max_runtime: float | None = None
    no_progress_timeout: float | None = None
    metadata: Literal["keep", "strip"] | None = None


class Workflow(msgspec.Struct, frozen=True):
    """One alias. `files` are the defaults that are sent along: (node, input) -> a file of `workflows/input/`."""

    alias: str
    fn: str
    description: str
    thumbnail: bytes | None
    graph: Graph
    inputs: dict[str, Input]
    files: dict[tuple[str, str], StoredFile]
    requires: frozenset[str]
    options: Options = Options()


class Source(msgspec.Struct, frozen=True):
    """What an alias entry says; a workflow file without an entry is listed under its file name."""

    alias: str
    fn: str
    description: str = ""
    thumbnail: str | None = None
    options: Options = Options()


class Catalogue(msgspec.Struct, frozen=True):
    """All aliases, in the order they are listed."""

    workflows: dict[str, Workflow]

    def get(self, alias: str) -> Workflow:
        """Raises UnknownAlias."""
        workflow = self.workflows.get(alias)
        if workflow is None:
            known = ", ".join(self.workflows) or "none"
            raise UnknownAlias(f"workflow {alias!r} is not registered; registered are: {known}")
        return workflow


EMPTY = Catalogue({})


def load(
    folder: Path,
    sources: Sequence[Source],
    allowed: Mapping[str, Sequence[str]],
    previous: Catalogue = EMPTY,
) -> tuple[Catalogue, list[str]]:
    """Reads every workflow of the folder. A bad one is a line in the second result and keeps its previous content.

    A file that was published counts only where the list names it: it may be what a crash left. Blocking.
    """
    problems: list[str] = []
    workflows: dict[str, Workflow] = {}
    listed = {name for source in sources for name in (source.fn, source.alias)}  # an alias wins over a file name
    names = [path.name for path in sorted(folder.glob("*.json")) if path.name not in listed]
    unlisted = [Source(name, name) for name in names if name != ALIASES_FILE and not PUBLISHED_NAME.fullmatch(name)]
    for source in [*sources, *unlisted]:
        if source.fn.startswith("."):
            continue  # an editor's own file
        try:
            workflows[source.alias] = read_workflow(folder, source, allowed)
        except ConfigError as error:
            problems.append(str(error))
            if source.alias in previous.workflows:
                workflows[source.alias] = previous.workflows[source.alias]
    return Catalogue(workflows), problems


def over(shipped: Catalogue, published: Catalogue) -> Catalogue:
    """Both; of two workflows of one alias the published one, in the other's place."""
    return Catalogue({**shipped.workflows, **published.workflows})


class Offered(NamedTuple):
    """An input that a node offers. `image` is what `_meta.descimage` says of it, `where` the place, for people."""

    input: Input
    image: Any
    where: str


def offered(graph: Graph, fn: str, allowed: Mapping[str, Sequence[str]]) -> Iterator[Offered | ConfigError]:
    """Every input that `_meta.apiinput` chooses, without its picture, or what is wrong with the choice."""
    for node, content in graph.items():
        meta = content.get("_meta") or {}
        names = [name.strip() for name in str(meta.get("apiinput") or "").split(",") if name.strip()]
        images = meta.get("descimage")
        image_names = images if isinstance(images, list) else [images] * len(names)
        for position, name in enumerate(names):
            where = f"{fn}: node {node}: _meta.apiinput: {name!r}"
            if name not in content["inputs"]:
                known = ", ".join(content["inputs"])
                yield ConfigError(f"{where}: the node has no such input; it has {known}")
                continue
            default = content["inputs"][name]
            kind = _type_of(default, allowed)
            if kind is None:
                yield ConfigError(f"{where} is linked to another node; only values can be set from outside")
                continue
            title = f"{meta.get('title') or content['class_type']} / {name}"
            declared = Input(f"{node}/{name}", node, name, kind, title, default)
            image = image_names[position] if position < len(image_names) else None
            yield Offered(declared, image, f"{fn}: node {node}: _meta.descimage")


def read_workflow(folder: Path, source: Source, allowed: Mapping[str, Sequence[str]]) -> Workflow:
    """Raises ConfigError: FILE, where in it, what is wrong and what would be right."""
    graph = _read_graph(folder, source.fn)
    inputs: dict[str, Input] = {}
    files: dict[tuple[str, str], StoredFile] = {}
    for each in offered(graph, source.fn, allowed):
        if isinstance(each, ConfigError):
            raise each
        picture = _asset(folder / "descimage", each.image, each.where)
        inputs[each.input.key] = msgspec.structs.replace(each.input, descimage=picture)
    for node, content in graph.items():
        for name, value in content["inputs"].items():
            if isinstance(value, str) and (kind := type_of_extension(extension_of(value), allowed)):
                file = _default_file(folder / "input", value, kind, f"{source.fn}: node {node}: {name}")
                if file is not None:
                    files[node, name] = file
    return Workflow(
        alias=source.alias,
        fn=source.fn,
        description=source.description,
        thumbnail=_asset(folder / "thumbnail", source.thumbnail, f"workflow_alias.json: {source.alias}: thumbnail"),
        graph=graph,
        inputs=inputs,
        files=files,
        requires=frozenset(content["class_type"] for content in graph.values()),
        options=source.options,
    )


def apply(
    workflow: Workflow, values: Mapping[str, Any], resolve: Callable[[str], StoredFile]
) -> tuple[Graph, tuple[FileInput, ...]]:
    """The prompt graph with these values in place of the defaults, and the files it needs.

    `resolve` turns an upload token into the caller's file; it raises BadRequest for an unknown or expired one.
    Raises BadInput: an unknown key or a wrong value, naming the key.
    """
    graph: Graph = {node: {**content, "inputs": dict(content["inputs"])} for node, content in workflow.graph.items()}
    files = dict(workflow.files)
    for key, value in values.items():
        declared = workflow.inputs.get(key)
        if declared is None:
            known = ", ".join(workflow.inputs) or "none"
            raise BadInput(f"{key!r} is no input of {workflow.alias!r}; its inputs are: {known}")
        place = (declared.node, declared.name)
        if declared.is_file:
            _expect(key, value, "str")
            if value.startswith(TOKEN_PREFIX):
                files[place] = _upload(declared, value, resolve)
            elif value != declared.default:
                files.pop(place, None)
                _held_name(key, value)
        else:
            value = _expect(key, value, declared.type)
        graph[declared.node]["inputs"][declared.name] = value
    return graph, tuple(FileInput(node, name, file) for (node, name), file in files.items())


def _upload(declared: Input, token: str, resolve: Callable[[str], StoredFile]) -> StoredFile:
    try:
        file = resolve(token)
    except BadRequest as error:
        raise BadInput(f"{declared.key!r}: {error}") from None
    if file.content_type.split("/")[0] != declared.type.split("/")[0]:
        raise BadInput(f"{declared.key!r}: the upload is {file.content_type}; this input takes {declared.type}")
    return file


def _held_name(key: str, value: str) -> None:
    """A file the backends hold: a relative name, perhaps in a subfolder, perhaps annotated like `a.png [output]`."""
    parts = value.split("/")
    try:
        for part in parts:
            bare_name(part)
    except FileRefused as error:
        raise BadInput(f"{key!r}: {error}; or upload the file and send its token") from None


def _expect(key: str, value: Any, kind: str) -> Any:
    """The value as that type. A whole number is a fine float; a bool is no number."""
    if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            value = float("inf")
    if JSON_TYPES.get(type(value)) != kind:
        found = JSON_TYPES.get(type(value), "null" if value is None else type(value).__name__)
        raise BadInput(f"{key!r} must be {kind}, not {found}")
    if (isinstance(value, float) and value != value) or value in (float("inf"), float("-inf")):
        raise BadInput(f"{key!r} must be a finite number")
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise BadInput(f"{key!r} is longer than {MAX_TEXT} characters")
    try:
        str(value).encode()
    except UnicodeEncodeError:
        raise BadInput(f"{key!r} has half of a surrogate pair, which is no text") from None
    return value


def _type_of(default: Any, allowed: Mapping[str, Sequence[str]]) -> str | None:
    if isinstance(default, str):
        return type_of_extension(extension_of(default), allowed) or "str"
    return JSON_TYPES.get(type(default))


def _read_graph(folder: Path, fn: str) -> Graph:
    try:
        graph = json.loads((folder / fn).read_text(encoding="utf-8"), parse_constant=_no_constant)
        msgspec.json.encode(graph)  # what is sent to backends later must be sendable
    except FileNotFoundError:
        raise ConfigError(f"{fn}: no such file in the workflows folder; write it with Export (API)") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{fn}: cannot be read: {error}") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{fn}: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise ConfigError(f"{fn}: nested too deeply") from None
    except (ValueError, OverflowError) as error:  # NaN, half of a surrogate pair, thousands of digits
        raise ConfigError(f"{fn}: has a value that JSON cannot carry: {error}") from None
    return checked_graph(graph, fn)


def checked_graph(graph: Any, fn: str) -> Graph:
    """Raises ConfigError: that is no graph in API format."""
    if isinstance(graph, dict) and isinstance(graph.get("nodes"), list):
        raise ConfigError(f"{fn}: this is a workflow saved for the editor; export it with Export (API) instead")
    if not isinstance(graph, dict) or not graph:
        raise ConfigError(f"{fn}: must be an object of nodes, as Export (API) writes it")
    for node, content in graph.items():
        if not (
            isinstance(content, dict)
            and isinstance(content.get("class_type"), str)
            and isinstance(content.get("inputs"), dict)
            and isinstance(content.get("_meta", {}), dict)
        ):
            raise ConfigError(f"{fn}: node {node}: needs `class_type` (text) and `inputs` (an object)")
    return graph


def _default_file(folder: Path, name: str, kind: str, where: str) -> StoredFile | None:
    """The file of that name, or None where there is none: any text may end like a file name."""
    try:
        bare_name(name)
    except FileRefused:
        return None
    path = folder / name
    try:
        return stored_from_disk(path, kind) if path.is_file() else None
    except OSError as error:
        raise ConfigError(f"{where}: {name!r} in {folder.name}/ cannot be read: {error.strerror}") from None


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _asset(folder: Path, name: Any, where: str) -> bytes | None:
    if name in (None, ""):
        return None
    if not isinstance(name, str) or Path(name).name != name:
        raise ConfigError(f"{where}: {name!r} must be a bare file name in {folder.name}/")
    try:
        return (folder / name).read_bytes()
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        raise ConfigError(f"{where}: no file {name!r} in {folder.name}/") from None


def to_base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()
