"""V2 as it is sent: without what goes without saying.

A class stands under its name. Where it has no other display name, and no description, V2 does not say so;
`whole` puts back what V1 always has.
"""

from __future__ import annotations

from typing import Final

from bridged.nodedefs.forms import Definition

_NEXT: Final = {"output": "name", "name": "display_name", "display_name": "description"}
"""what follows what, in ComfyUI's own order"""


def brief(v2: Definition, name: str) -> Definition:
    """What is sent of a class in V2. For every V2 that `to_v2` made: whole(brief(x, name), name) is x again but for
    the residue, which then says what V1 did not have either."""
    usual = _usual(name)
    if absent := [key for key in usual if key not in v2]:
        residue = v2.get("v1", {})
        return {**v2, "v1": {**residue, "absent": [*residue.get("absent", ()), *absent]}}
    small = {key: value for key, value in v2.items() if usual.get(key, v2) != value}
    return small if list(whole(small, name)) == list(v2) else v2


def whole(v2: Definition, name: str) -> Definition:
    """The inverse, for `to_v1`."""
    residue = v2.get("v1")
    absent = residue.get("absent", ()) if isinstance(residue, dict) else ()
    missing = {key: value for key, value in _usual(name).items() if key not in v2 and key not in absent}
    result: Definition = {}
    for key, value in v2.items():
        result[key] = value
        while (key := _NEXT.get(key, "")) in missing:
            result[key] = missing.pop(key)
    return result | missing


def _usual(name: str) -> dict[str, str]:
    return {"name": name, "display_name": name, "description": ""}
