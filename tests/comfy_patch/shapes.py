"""Whether an answer has the shape of an example: the same keys, and values of the same types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parent.parent / "data" / "patch"

NULLABLE = {"last", "until", "version", "size"}
"""keys whose value may be null (docs/patch-api.md)"""

FREE = {"folders", "combos"}
"""keys whose value is an object with keys of its own; each value is as any of the example's"""


def example(name: str) -> Any:
    return json.loads((EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))


def assert_like(wanted: Any, found: Any, place: str = "", key: str = "") -> None:
    """Raises AssertionError, with the place."""
    if key in NULLABLE and (found is None or wanted is None):
        return
    if isinstance(wanted, bool) or isinstance(found, bool):
        assert type(wanted) is type(found), f"{place}: {found!r} is not like {wanted!r}"
    elif isinstance(wanted, (int, float)):
        assert isinstance(found, (int, float)), f"{place}: {found!r} is no number"
    elif isinstance(wanted, dict):
        assert isinstance(found, dict), f"{place}: {found!r} is no object"
        free = key in FREE or place.rpartition(".")[0].endswith(".combos")
        if not free:
            assert found.keys() == wanted.keys(), f"{place}: other keys"
        for name, value in found.items():
            pattern = max(wanted.values(), key=lambda each: len(str(each)), default={}) if free else wanted[name]
            assert_like(pattern, value, f"{place}.{name}", name if not free else "")
    elif isinstance(wanted, list):
        assert isinstance(found, list), f"{place}: {found!r} is no list"
        for number, value in enumerate(found if wanted else ()):
            assert_like(wanted[0], value, f"{place}[{number}]")
    else:
        assert type(found) is type(wanted), f"{place}: {found!r} is not like {wanted!r}"
