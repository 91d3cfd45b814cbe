"""File names as one PC writes them: a choice of the pool, `sub/a.safetensors`, is `sub\\a.safetensors` on Windows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from bridged.model import Graph
from bridged.nodedefs.combos import read_combo
from bridged.nodedefs.forms import inputs_of
from bridged.nodedefs.lazy import normalise
from bridged.nodedefs.parse import UNREADABLE


def localised(graph: Graph, definitions: Mapping[str, bytes]) -> Graph:
    """The graph with the names that a backend with these definitions knows its files by; itself where nothing differs.

    Only what is no choice there as it stands, and is one with the other separators.
    """
    changed: Graph = {}
    for node, content in graph.items():
        raw = definitions.get(content["class_type"])
        if raw is None:
            continue
        for name, value in content["inputs"].items():
            if isinstance(value, str) and ("/" in value or "\\" in value):
                here = _name_here(raw, name, value)
                if here != value:
                    inputs: dict[str, Any] = (changed.get(node) or content)["inputs"]
                    changed[node] = {**content, "inputs": {**inputs, name: here}}
    return {**graph, **changed} if changed else graph


def _name_here(raw: bytes, name: str, value: str) -> str:
    choices, by_plain_name = _choices(raw, name)
    if value in choices or not choices:
        return value
    plain = normalise(value)
    if plain in by_plain_name:
        return by_plain_name[plain]
    writes_backslashes = any("\\" in choice for choice in choices) and not any("/" in choice for choice in choices)
    return plain.replace("/", "\\") if writes_backslashes else value


@lru_cache(maxsize=256)
def _choices(raw: bytes, name: str) -> tuple[frozenset[str], Mapping[str, str]]:
    """The names that an input offers, and each by the way the pool writes it."""
    try:
        definition = msgspec.json.decode(raw)
    except UNREADABLE:
        return frozenset(), {}
    for _, found, spec in inputs_of(definition):
        combo = read_combo(spec)
        if found == name and combo is not None and combo.options:
            names = [option for option in combo.options if isinstance(option, str)]
            return frozenset(names), {normalise(each): each for each in names}
    return frozenset(), {}
