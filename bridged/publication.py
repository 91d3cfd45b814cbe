"""A workflow as it is sent to be published: what it must be, and everything that is wrong with it.

The chosen inputs stand in the graph, as in the files of the workflows folder: `_meta.apiinput`, `_meta.descimage`.
"""

from __future__ import annotations

import base64
import binascii
import copy
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec

from bridged.catalogue import Offered, checked_graph, offered
from bridged.config.published import MIME, Version, generated_name, pictures_of
from bridged.config.schema import Files
from bridged.errors import BadRequest, ConfigError, TooLarge
from bridged.files.names import bare_name, extension_of
from bridged.files.sniff import type_of_extension
from bridged.files.verify import verify
from bridged.model import Graph

MAX_BODY = 16_000_000
"""bytes of a request: the graph, and its pictures in base64"""

MAX_GRAPH, MAX_DEPTH = 4_000_000, 32
"""bytes of the graph as JSON (the largest that people share have some 100 kB), and how deep it may nest"""

MAX_PICTURE, MAX_PICTURES = 4_000_000, 64
"""bytes of one picture, and how many may describe inputs"""

MAX_PIXELS = 25.0
"""million pixels of one picture: they are shown small, and 64 of the size that results may have would take minutes"""

PICTURES = {"image/png": [".png"], "image/jpeg": [".jpg", ".jpeg"], "image/webp": [".webp"]}
DATA_URL = re.compile(r"data:(image/(?:png|jpeg|webp));base64,([A-Za-z0-9+/=]*)")
DIGEST = re.compile(r"\.[0-9a-f]{12}$")
"""what the name of a picture has at its end that was stored before"""
EXTENSIONS = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}

EXACT = 2**53
"""whole numbers up to here are the same as floats"""


class Publication(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A workflow to be published. `workflow` is in API format, with `_meta.apiinput` and `_meta.descimage`;
    `thumbnail` is a data URL of a PNG, JPEG or WebP, and so are the values of `descimages`, whose names the nodes'
    `_meta.descimage` give."""

    alias: str
    workflow: dict[str, Any]
    description: str = ""
    thumbnail: str | None = None
    descimages: dict[str, str] = msgspec.field(default_factory=dict)


class Checked(msgspec.Struct, frozen=True):
    """`inputs` are the keys of /workflow-info; `warnings` what may be meant otherwise."""

    version: Version
    inputs: list[str]
    warnings: list[str]


class _Size(msgspec.Struct):
    workflow: msgspec.Raw


_decoder = msgspec.json.Decoder(Publication)
_size_decoder = msgspec.json.Decoder(_Size)


def decoded(body: bytes) -> Publication:
    """Raises BadRequest, TooLarge: that is no publication.

    The graph's size comes first: as values 15 MB of it take 300 MB, and a second of the event loop (measured)."""
    if len(body) > MAX_BODY:
        raise TooLarge(f"the publication is larger than the limit of {MAX_BODY / 1e6:g} MB")
    try:
        if len(_size_decoder.decode(body).workflow) > MAX_GRAPH:
            raise BadRequest(f"workflow: it is larger than the limit of {MAX_GRAPH / 1e6:g} MB")
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadRequest(f"the body is no publication: {error}") from None


def check(publication: Publication, files: Files, known: Mapping[str, frozenset[str]]) -> Checked:
    """`files`: the settings that pictures are checked by, and that say which inputs are files; `known`: the node
    classes of each backend that has answered. Blocking.

    Raises BadRequest, whose message has everything that is wrong.
    """
    wrong, warnings = _wrong_alias(publication.alias), []
    if len(publication.description) > 10_000:
        wrong.append("`description` is longer than 10000 characters")
    try:
        graph = copy.deepcopy(_bounded_graph(publication.workflow))
    except ConfigError as error:
        raise BadRequest("; ".join([*wrong, str(error)])) from None
    inputs = []
    images: set[str] = set()
    for each in offered(graph, "workflow", files.allowed):
        if isinstance(each, Offered):
            inputs.append(each.input.key)
            wrong += _wrong_image(each, publication.descimages)
            if isinstance(each.image, str) and each.image:
                images.add(each.image)
        else:
            wrong.append(str(each))
    if not inputs and not wrong:
        warnings.append("no input is chosen: clients can run it only as it is")
    warnings += _left_behind(graph, files, inputs)
    unknown, warning = _classes(graph, known)
    wrong += unknown
    warnings += warning
    pictures: dict[tuple[str, str], bytes] = {}
    thumbnail = None
    if publication.thumbnail is not None:
        try:
            thumbnail, content = _picture("thumbnail", publication.thumbnail, files)
            pictures["thumbnail", thumbnail] = content
        except BadRequest as error:
            wrong.append(f"thumbnail: {error}")
    if len(publication.descimages) > MAX_PICTURES:
        raise BadRequest("; ".join([*wrong, f"`descimages` has more than {MAX_PICTURES} pictures"]))
    names: dict[str, str] = {}
    for name, url in publication.descimages.items():
        try:
            bare_name(name)
            stored, content = _picture(DIGEST.sub("", Path(name).stem), url, files)
            if name in images:
                names[name] = stored
                pictures["descimage", stored] = content
            else:
                warnings.append(f"descimages: no chosen input has {name!r}, so it is left out")
        except BadRequest as error:
            wrong.append(f"descimages: {name[:100]!r}: {error}")
    if wrong:
        raise BadRequest("; ".join(wrong))
    _rename(graph, names)
    version = Version(publication.alias, publication.description, graph, thumbnail, pictures)
    return Checked(version, inputs, warnings)


def _wrong_alias(alias: str) -> list[str]:
    """It also has to be said in an address, to remove it."""
    parts = alias.split("/")
    if not 1 <= len(alias) <= 200 or not alias.isprintable() or alias != alias.strip():
        return ["`alias` must have 1 to 200 printable characters, with no spaces around it"]
    if not {"", ".", ".."}.isdisjoint(parts):
        return ["`alias` must have no empty part and no dots alone between its slashes"]
    return []


def _bounded_graph(workflow: dict[str, Any]) -> Graph:
    """Raises ConfigError."""
    level: list[Any] = [workflow]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
    if level:
        raise ConfigError(f"workflow: it is nested deeper than {MAX_DEPTH} levels")
    return checked_graph(workflow, "workflow")


def _wrong_image(each: Offered, sent: Mapping[str, str]) -> list[str]:
    if each.image in (None, ""):
        return []
    if not isinstance(each.image, str):
        return [f"{each.where}: {each.image!r} must be a bare file name"]
    return [] if each.image in sent else [f"{each.where}: {each.image[:100]!r} is not among `descimages`"]


def _left_behind(graph: Graph, files: Files, inputs: Collection[str]) -> list[str]:
    """The defaults that are files: those of the PC it was made on, which others need not have."""
    return [
        f"node {node}: {name}: the file {value[:100]!r} is not sent along, so only PCs that have it run a job"
        + (" that does not set this input" if f"{node}/{name}" in inputs else "")
        for node, content in graph.items()
        for name, value in content["inputs"].items()
        if isinstance(value, str) and type_of_extension(extension_of(value), files.allowed)
    ]


def _classes(graph: Graph, known: Mapping[str, frozenset[str]]) -> tuple[list[str], list[str]]:
    """What is wrong, and what is to be warned of, with the node classes."""
    requires = {content["class_type"] for content in graph.values()}
    if not known:
        return [], ["no PC has said yet which nodes it has, so the node classes were not checked"]
    unknown = requires.difference(*known.values())
    if unknown:
        names = ", ".join(sorted(name[:100] for name in unknown)[:50])
        return [f"workflow: no PC has the node classes {names}; install them on one, or take them out"], []
    if any(requires <= classes for classes in known.values()):
        return [], []
    lacks = (f"{name} lacks {', '.join(sorted(requires - classes))}" for name, classes in known.items())
    return [], [f"no PC has all the node classes, so none can run it now: {'; '.join(lacks)}"]


def _picture(stem: str, url: str, files: Files) -> tuple[str, bytes]:
    """The name to store it under, and its content. Raises BadRequest, FileRefused among them."""
    found = DATA_URL.fullmatch(url)
    if found is None:
        raise BadRequest("it must be a data URL of a PNG, JPEG or WebP picture (data:image/png;base64,…)")
    kind, text = found.groups()
    if len(text) > MAX_PICTURE * 4 // 3 + 4:
        raise BadRequest(f"it is larger than the limit of {MAX_PICTURE / 1e6:g} MB")
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise BadRequest("it is no base64") from None
    if not content:
        raise BadRequest("it is empty")
    name = generated_name(stem, content, EXTENSIONS[kind])
    rules = msgspec.structs.replace(files, allowed=PICTURES, max_pixels=min(files.max_pixels, MAX_PIXELS))
    verify(content, f"picture{EXTENSIONS[kind]}", rules, kind)
    return name, content


def write_floats(graph: Graph, floats: Mapping[str, frozenset[str]]) -> None:
    """Makes whole numbers floats where a class takes FLOATs: JavaScript writes 2.0 as 2, and a default of 2 would have
    clients send whole numbers only. `floats`: class -> its inputs that are FLOATs."""
    for content in graph.values():
        inputs = content["inputs"]
        for name in floats.get(content["class_type"], frozenset()) & inputs.keys():
            value = inputs[name]
            if type(value) is int and abs(value) <= EXACT:  # a bool is an int, too
                inputs[name] = float(value)


def _rename(graph: Graph, names: Mapping[str, str]) -> None:
    """Has the nodes name their pictures as they are stored."""
    for content in graph.values():
        meta = content.get("_meta") or {}
        named = meta.get("descimage")
        if isinstance(named, list):
            meta["descimage"] = [names.get(name, name) if isinstance(name, str) else name for name in named]
        elif isinstance(named, str) and named in names:
            meta["descimage"] = names[named]


def from_file(path: Path, alias: str | None, description: str, thumbnail: Path | None) -> dict[str, Any]:
    """The publication that a file in API format makes, as a JSON object, with the pictures it names: from `descimage/`
    beside it, or from beside it. What was kept of a version (in `previous/`) is one already.

    `alias`: by default the file's name, without its extension. Blocking. Raises BadRequest.
    """
    try:
        content = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise BadRequest(f"{path}: cannot be read: {error.strerror}") from None
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadRequest(f"{path}: it is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise BadRequest(f"{path}: it must be a workflow in API format, as Export (API) writes it")
    kept = isinstance(content.get("workflow"), dict) and isinstance(content.get("alias"), str)
    body: dict[str, Any] = dict(content) if kept else {"alias": path.stem, "workflow": content, "description": ""}
    body["alias"] = alias or body["alias"]
    body["description"] = description or body["description"]
    if thumbnail is not None:
        body["thumbnail"] = _as_url(thumbnail)
    if not kept:
        body["descimages"] = {}
        for name in sorted(pictures_of(content)):
            beside = path.parent / "descimage" / name
            body["descimages"][name] = _as_url(beside if beside.is_file() else path.parent / name)
    return body


def _as_url(path: Path) -> str:
    kind = MIME.get(extension_of(path.name))
    if kind is None:
        raise BadRequest(f"{path}: a picture must be .png, .jpg, .jpeg or .webp")
    try:
        return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
    except OSError as error:
        raise BadRequest(f"{path}: cannot be read: {error.strerror}") from None
