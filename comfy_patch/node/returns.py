"""`RETURNS`, the RFC's one list of outputs, on node classes of a ComfyUI that reads only the old attributes.

The old attributes are derived from it when the server starts. A class that has `RETURN_TYPES` of its own keeps all that
it says.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

log = logging.getLogger("bridged_patch")

NAMES = ("RETURN_TYPES", "RETURN_NAMES", "OUTPUT_IS_LIST", "OUTPUT_TOOLTIPS")


class Returns:
    """`mappings`: ComfyUI's NODE_CLASS_MAPPINGS."""

    def __init__(self, mappings: Mapping[str, Any]) -> None:
        self._mappings = mappings
        self._looked_at: set[int] = set()
        """ids of classes, which live as long as the process"""
        self._count = -1

    def derive(self) -> None:
        """Looks at the classes that are new. Raises nothing: what does not fit is logged, and left alone."""
        if len(self._mappings) == self._count:
            return
        found = list(self._mappings.items())
        self._count = len(found)
        for name, node_class in found:
            if id(node_class) in self._looked_at:
                continue
            self._looked_at.add(id(node_class))
            self._derive(name, node_class)

    def _derive(self, name: str, node_class: Any) -> None:
        owner = _who_says_returns(node_class)
        if owner is None:
            return
        try:
            attributes = old_attributes(node_class.RETURNS)
        except ValueError as error:
            log.warning("bridged_patch: RETURNS of the node %s is not understood and left alone: %s", name, error)
            return
        try:
            for attribute, value in attributes.items():
                setattr(owner, attribute, value)
        except (AttributeError, TypeError) as error:
            log.warning("bridged_patch: RETURNS of the node %s cannot be used: %s", name, error)


def old_attributes(returns: Any) -> dict[str, tuple[Any, ...]]:
    """What a stock ComfyUI wants beside or instead of `RETURNS`. Names and tooltips only where there are any.

    Raises ValueError: it is no list of outputs in the RFC's form (2.1), with the reason.
    """
    if not isinstance(returns, (tuple, list)):
        raise ValueError("it is no tuple")
    for number, output in enumerate(returns, 1):
        if problem := _problem(output):
            raise ValueError(f"output {number}: {problem}")
    types = tuple(_type(output) for output in returns)
    attributes: dict[str, tuple[Any, ...]] = {
        "RETURN_TYPES": types,
        "OUTPUT_IS_LIST": tuple(output.get("is_list", False) for output in returns),
    }
    if any(output.get("name") is not None for output in returns):
        names = (output.get("name") for output in returns)
        plain = ("COMBO" if isinstance(kind, list) else kind for kind in types)
        both = zip(names, plain)  # noqa: B905 Python 3.9
        attributes["RETURN_NAMES"] = tuple(kind if name is None else name for name, kind in both)
    if any(output.get("tooltip") is not None for output in returns):
        # The front end takes texts only; it shows nothing for an empty one.
        attributes["OUTPUT_TOOLTIPS"] = tuple(output.get("tooltip") or "" for output in returns)
    return attributes


def _problem(output: Any) -> str:
    if not isinstance(output, dict):
        return "it is no dictionary"
    if not isinstance(output.get("type"), str):
        return "its `type` is no text"
    for key in ("name", "tooltip"):
        if output.get(key) is not None and not isinstance(output[key], str):
            return f"its `{key}` is no text"
    for key in ("is_list", "optional"):
        if not isinstance(output.get(key, False), bool):
            return f"its `{key}` is neither True nor False"
    if "options" in output and not isinstance(output["options"], (list, tuple)):
        return "its `options` are no list"
    return ""


def _type(output: Mapping[str, Any]) -> Any:
    """An output that is one of several choices is a list of them in the old form."""
    return list(output["options"]) if output["type"] == "COMBO" and "options" in output else output["type"]


def _who_says_returns(node_class: Any) -> Any:
    """The class in whose body RETURNS stands, if no RETURN_TYPES there or nearer says the outputs in the old form."""
    for base in getattr(node_class, "__mro__", ()):
        said = vars(base)
        if "RETURN_TYPES" in said:
            return None
        if "RETURNS" in said:
            return base
    return None
