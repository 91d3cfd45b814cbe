"""The node definitions in the RFC's form (V2): `/object_info?format=v2`, and which combos list which folder.

The plain `/object_info` is ComfyUI's own, and is not touched. V2 says of a class what that says, but combos and outputs
are in the RFC's form (1.1, 2.2), and lists of files are named instead of given. A class whose outputs do not fit keeps
ComfyUI's own lists for them: readers take both forms.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import quote

from .lists import Listing, Listings, all_accounted, inputs_of, options_of, proven

REFRESH = 60_000
"""ms for which a client may keep a list of files"""

PARALLEL = ("output_is_list", "output_name", "output_tooltips")

NEWER = (
    ("has_intermediate_output", "HAS_INTERMEDIATE_OUTPUT"),
    ("search_aliases", "SEARCH_ALIASES"),
    ("essentials_category", "ESSENTIALS_CATEGORY"),
)
"""what newer releases say of a class besides, each where the class has it"""

log = logging.getLogger("bridged_patch")

Info = dict[str, Any]


class Nodes(Protocol):
    """ComfyUI's registered classes, and the names that people see."""

    @property
    def classes(self) -> Mapping[str, Any]: ...

    @property
    def titles(self) -> Mapping[str, str]: ...


class Definitions:
    """One pass at a time. All of it is for a thread that may wait: a custom node's INPUT_TYPES may do anything."""

    def __init__(self, nodes: Nodes, listings: Listings) -> None:
        self._nodes = nodes
        self._listings = listings
        self._one_at_a_time = threading.Lock()

    def v2(self, only: str | None = None) -> bytes:
        """The JSON object of all classes, or of one. A class that raises is left out, as ComfyUI leaves it out."""
        with self._one_at_a_time:
            parts = []
            for name, node_class in list(self._nodes.classes.items()):
                if only is not None and name != only:
                    continue
                try:
                    parts.append(f"{json.dumps(name)}: {json.dumps(self._describe(name, node_class))}")
                except Exception as error:  # a custom node may raise anything
                    log.warning("bridged_patch: the node %s does not say what it is: %r", name, error)
            return ("{" + ", ".join(parts) + "}").encode()

    def combos(self) -> dict[str, dict[str, dict[str, str]]]:
        """Class -> input -> {"folder": folder}, of what is proven without reading a disk."""
        with self._one_at_a_time:
            found: dict[str, dict[str, dict[str, str]]] = {}
            for name, node_class in list(self._nodes.classes.items()):
                try:
                    with self._listings.watch(scan=False):
                        inputs = list(inputs_of(_throwaway(node_class).INPUT_TYPES()))
                except Exception:  # it is in ComfyUI's log already, from its own /object_info
                    log.debug("bridged_patch: INPUT_TYPES of %s failed", name, exc_info=True)
                    continue
                if lists := {
                    key: {"folder": listing.folder} for _, key, spec in inputs if (listing := proven(spec)) is not None
                }:
                    found[name] = lists
            return found

    def _describe(self, name: str, node_class: Any) -> Info:
        own = _throwaway(node_class)
        input_types = self._input_types(own)
        if hasattr(node_class, "GET_NODE_INFO_V1"):
            with self._listings.watch(scan=False):
                info = dict(own.GET_NODE_INFO_V1())
        else:
            info = _static(name, node_class, self._nodes.titles)
        info["input"] = {
            section: {key: explicit(spec) for key, spec in inputs.items()}
            if isinstance(inputs, dict) and section != "hidden"
            else inputs
            for section, inputs in input_types.items()
        }
        info["input_order"] = {section: list(inputs) for section, inputs in input_types.items()}
        return _with_outputs(info, node_class)

    def _input_types(self, node_class: Any) -> Any:
        """Asked without reading a disk; where that is not enough (a list was filtered, sorted, looked into), once more
        with the real lists: a choice must never get lost."""
        try:
            with self._listings.watch(scan=False) as asked:
                input_types = node_class.INPUT_TYPES()
            if all_accounted(asked, input_types):
                return input_types
        except Exception:  # for example the first of no files
            log.debug("bridged_patch: INPUT_TYPES needs real lists", exc_info=True)
        with self._listings.watch(scan=True):
            return node_class.INPUT_TYPES()


def explicit(spec: Any) -> Any:
    """An input's specification in V2: a combo is ["COMBO", {...}]; a folder's list is where to fetch it."""
    options = options_of(spec)
    if options is None:
        return spec
    settings = spec[1] if len(spec) > 1 else {}
    if not isinstance(settings, dict):
        return spec
    if (listing := proven(spec)) is not None:
        where = {**remote(listing), **{key: value for key, value in settings.items() if key != "options"}}
        return ["COMBO", where, *spec[2:]]
    if options is spec[0] and ("options" in settings or settings.get("type") == "remote"):
        return spec  # its settings mean something else by V2's words
    return ["COMBO", {"options": list(options), **settings}, *spec[2:]]


def remote(listing: Listing) -> Info:
    """Where a folder's list is fetched, in the RFC's words."""
    where: Info = {
        "type": "remote",
        "route": "/internal/files/" + quote(listing.folder, safe=""),
        "response_key": "files",
        "refresh": REFRESH,
    }
    extras = {key: value for key, value in (("first", listing.first), ("last", listing.last)) if value}
    return {**where, "query_params": extras} if extras else where


def _throwaway(node_class: Any) -> Any:
    """A subclass to ask in place of the class: what INPUT_TYPES keeps on its class does not reach the real one."""
    try:
        said = {key: getattr(node_class, key) for key in ("__module__", "__qualname__", "__doc__")}  # nodes read them
        return type(node_class)(node_class.__name__, (node_class,), said)
    except Exception:  # a metaclass that wants more, or a class that wants no subclasses
        return node_class


def _static(name: str, node_class: Any, titles: Mapping[str, str]) -> Info:
    """What ComfyUI 0.3.12 to 0.3.64 says of a class of the old schema, but for its inputs."""
    types = node_class.RETURN_TYPES
    info: Info = {
        "input": {},
        "input_order": {},
        "output": types,
        "output_is_list": getattr(node_class, "OUTPUT_IS_LIST", [False] * len(types)),
        "output_name": getattr(node_class, "RETURN_NAMES", types),
        "name": name,
        "display_name": titles.get(name, name),
        "description": getattr(node_class, "DESCRIPTION", ""),
        "python_module": getattr(node_class, "RELATIVE_PYTHON_MODULE", "nodes"),
        "category": getattr(node_class, "CATEGORY", "sd"),
        "output_node": getattr(node_class, "OUTPUT_NODE", False) is True,
    }
    if hasattr(node_class, "OUTPUT_TOOLTIPS"):
        info["output_tooltips"] = node_class.OUTPUT_TOOLTIPS
    for key, attribute in (
        ("deprecated", "DEPRECATED"),
        ("experimental", "EXPERIMENTAL"),
        ("dev_only", "DEV_ONLY"),
    ):
        if getattr(node_class, attribute, False):
            info[key] = True
    if hasattr(node_class, "API_NODE"):
        info["api_node"] = node_class.API_NODE
    info.update({key: getattr(node_class, attribute) for key, attribute in NEWER if hasattr(node_class, attribute)})
    return info


def _with_outputs(info: Info, node_class: Any) -> Info:
    types, lists, names = (info.get(key, ()) for key in ("output", "output_is_list", "output_name"))
    tooltips = info.get("output_tooltips")
    columns = [types, lists, names] + ([tooltips] if tooltips is not None else [])
    if not all(isinstance(column, (list, tuple)) and len(column) >= len(types) for column in columns):
        return info  # longer ones are those of a base class with more outputs
    outputs = []
    for place, kind in enumerate(types):
        choices = isinstance(kind, (list, tuple))
        name = names[place] if isinstance(names[place], str) else "COMBO"  # ComfyUI names a choice by its choices
        output: Info = {"type": "COMBO" if choices else kind, "name": name, "is_list": lists[place]}
        if choices:
            output["options"] = kind
        if tooltips is not None and isinstance(tooltips[place], str):
            output["tooltip"] = tooltips[place]
        outputs.append(output)
    for output, said in zip(outputs, getattr(node_class, "RETURNS", ())):  # noqa: B905 Python 3.9
        if isinstance(said, dict) and said.get("optional") is True:
            output["optional"] = True
    unsaid = PARALLEL if _has_numbers(info["input_order"]) else (*PARALLEL, "input_order")
    return {key: outputs if key == "output" else value for key, value in info.items() if key not in unsaid}


def _has_numbers(order: Mapping[str, Any]) -> bool:
    """Whether some input is called by a number: JavaScript's objects put those first, so V2 says the order besides."""
    return any(str(name).isdecimal() for section, names in order.items() for name in (section, *names))
