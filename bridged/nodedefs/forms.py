"""The two forms of a node definition, and the way from one to the other that loses nothing.

V1 is what ComfyUI's `/object_info` says today (0.3.64): combos as `[[...], {...}]` or as
`["COMBO", {"options": ...}]`, outputs as parallel lists. V2 is the RFC's: every combo explicit, outputs as
one list of objects, inputs in the order of their keys. What V2 cannot say of the V1 it came from stands in one more
key, `"v1"`, the residue:

    combos    "list" or "explicit": the form of this class's combos, where it is not the expected one
    inputs    {section: {name: mark}}: combos of another form than the class's; a mark is "list", "explicit",
              "empty" (a list with empty settings) or {"settings": ...} (where V2's own keys would hide them)
    kept      true: the outputs are not understood and stand as they came
    absent    the output lists, and `input_order`, that were missing
    more      what the output lists had beyond the number of outputs
    keys      the output lists that were anything else than expected
    tooltips  "output_tooltip", the RFC's name of that list, where the original had it
    order     the original's keys, where their order is not the expected one
    own       what the original had under "v1" itself

What is expected: nodes of ComfyUI's newer schema always say deprecated, experimental and api_node; their
combos are explicit, their tooltips stand beside the names. The others have list combos, and tooltips, if any,
after output_node. So 463 of the 477 recorded classes need no residue.

Nothing here raises on any JSON, changes what it was given, or copies what it does not change: results share
their lists and objects with what was given, so write into neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

Definition: TypeAlias = dict[str, Any]

NEWER_SCHEMA: Final = ("deprecated", "experimental", "api_node")
TOOLTIPS: Final = ("output_tooltips", "output_tooltip")
"""what ComfyUI says, and what the RFC says that it says"""
PARALLEL: Final = ("output_is_list", "output_name", "output_tooltips", "output_optional")
"""the lists beside `output`; ComfyUI has no output_optional, the RFC's outputs have `optional`"""
ORDER: Final = "input_order"
"""V1's names of inputs by section. V2 has it only where the keys of `input` do not say the same."""

_MISSING: Final = object()
_RESIDUE: Final[dict[str, Callable[[Any], bool]]] = {
    "combos": lambda value: value == "list" or value == "explicit",
    "inputs": lambda value: _is_of(value, dict, dict),
    "kept": lambda value: value is True,
    "absent": lambda value: _is_of(value, list, str),
    "keys": lambda value: isinstance(value, dict),
    "more": lambda value: _is_of(value, dict, list),
    "tooltips": lambda value: value == "output_tooltip",
    "order": lambda value: _is_of(value, list, str),
    "own": lambda value: True,
}
"""the residue's keys, and what may stand there: a backend may say anything"""


def is_v2(definition: Definition) -> bool:
    """Whether a definition is V2: its outputs are objects and stand alone, or it has a residue.

    `{"output": []}` without the other lists is V2: ComfyUI sends them always.
    """
    return _residue(definition) is not None or (
        _are_objects(definition.get("output")) and definition.keys().isdisjoint((*PARALLEL, *TOOLTIPS))
    )


def to_v2(definition: Definition) -> Definition:
    """V2 with inline options, of V1, V2 or a mixture; a V2 that is canonical already comes back equal."""
    if not isinstance(definition, dict):
        return definition
    v2, marks = _explicit(definition)
    own = v2.pop("v1", _MISSING)
    if is_v2(definition):
        known = _residue(definition)
        residue = dict(known) if known is not None else {} if own is _MISSING else {"own": own}
        form = residue.get("combos", _usual_form(v2))
        new = {place: mark for place, mark in marks.items() if mark != "explicit"}  # the others stand already
        if noted := _noted(new, form):
            old = residue.get("inputs", {})
            residue["inputs"] = {**old, **{name: {**old.get(name, {}), **noted[name]} for name in noted}}
        if "kept" not in residue:
            v2["output"] = [_canonical(output) for output in v2["output"]]
        return {**v2, "v1": residue} if residue else v2

    residue = {} if own is _MISSING else {"own": own}
    form = _usual_form(v2)
    if 2 * sum((mark == "explicit") == (form == "explicit") for mark in marks.values()) < len(marks):
        residue["combos"] = form = "explicit" if form == "list" else "list"
    if noted := _noted(marks, form):
        residue["inputs"] = noted
    outputs = _outputs(definition)
    if outputs is None:
        residue["kept"] = True
    else:
        v2["output"] = outputs
        for key in (*PARALLEL, *TOOLTIPS):
            v2.pop(key, None)
        residue |= _unexpected(definition, _parallel(outputs, v2, {}), _tooltips_key(definition))
    order = _order(definition)
    if order is not None and ORDER not in definition:
        residue["absent"] = [*residue.get("absent", ()), ORDER]
    elif order is not None and definition[ORDER] == order and list(definition[ORDER]) == list(order):
        del v2[ORDER]
    if list(_with_lists(v2, residue)) != list(definition):
        residue["order"] = list(definition)
    return {**v2, "v1": residue} if residue else v2


def to_v1(definition: Definition) -> Definition:
    """V1, of V2 with inline options or of V1. Combos without options stay `["COMBO", {...}]`.

    For every JSON object x that is not V2: to_v1(to_v2(x)) == x, with the keys in the same order.
    """
    if not isinstance(definition, dict) or not is_v2(definition):
        return definition
    residue = _residue(definition) or {}
    form = residue.get("combos", _usual_form(definition))
    noted = residue.get("inputs", {})

    def original(section: str, name: str, spec: Any) -> Any:
        if not _is_explicit(spec):
            return spec
        mark = noted.get(section, {}).get(name, form)
        if mark == "explicit":
            return spec
        options = spec[1]["options"]
        if isinstance(mark, dict):
            return [options, mark.get("settings", {})]
        settings = {key: value for key, value in spec[1].items() if key != "options"}
        return [options, settings] if settings or mark == "empty" else [options]

    plain = map_inputs(definition, original)
    if residue:
        plain = {key: value for key, value in plain.items() if key != "v1"}
    return _with_lists(plain, residue)


def inputs_of(definition: Definition) -> Iterator[tuple[str, str, Any]]:
    """(section, name, spec) of every input, in order; nothing of what is not shaped like inputs."""
    sections = definition.get("input") if isinstance(definition, dict) else None
    for section, inputs in sections.items() if isinstance(sections, dict) else ():
        for name, spec in inputs.items() if isinstance(inputs, dict) else ():
            yield section, name, spec


def map_inputs(definition: Definition, change: Callable[[str, str, Any], Any]) -> Definition:
    """The definition with `change(section, name, spec)` for each spec; itself where nothing is changed."""
    sections = definition.get("input")
    changed: dict[str, dict[str, Any]] = {}
    for section, name, spec in inputs_of(definition):
        new = change(section, name, spec)
        if new is not spec:
            changed.setdefault(section, {})[name] = new
    if not changed or not isinstance(sections, dict):
        return definition
    new_sections = {
        name: {**inputs, **changed[name]} if name in changed else inputs for name, inputs in sections.items()
    }
    return {**definition, "input": new_sections}


# --- inputs ---


def _explicit(definition: Definition) -> tuple[Definition, dict[tuple[str, str], Any]]:
    """A copy with every combo explicit, and the mark of each combo that V1 has two forms for."""
    marks: dict[tuple[str, str], Any] = {}

    def change(section: str, name: str, spec: Any) -> Any:
        if _is_explicit(spec):
            marks[section, name] = "explicit"
            return spec
        if not isinstance(spec, list) or not spec or not isinstance(spec[0], list) or len(spec) > 2:
            return spec
        settings = spec[1] if len(spec) == 2 else {}
        if not isinstance(settings, dict):
            return spec
        if "options" in settings or settings.get("type") == "remote":
            marks[section, name] = {"settings": settings}
            settings = {key: value for key, value in settings.items() if key not in ("options", "type")}
        else:
            marks[section, name] = "empty" if len(spec) == 2 and not settings else "list"
        return ["COMBO", {"options": spec[0], **settings}]

    changed = map_inputs(definition, change)
    return (dict(changed) if changed is definition else changed), marks


def _is_explicit(spec: Any) -> bool:
    """Whether it is an explicit combo that could be a list combo as well."""
    return (
        isinstance(spec, list)
        and len(spec) == 2
        and spec[0] == "COMBO"
        and isinstance(spec[1], dict)
        and isinstance(spec[1].get("options"), list)
        and spec[1].get("type") != "remote"
    )


def _usual_form(definition: Definition) -> str:
    return "explicit" if _is_newer(definition) else "list"


def _is_newer(definition: Definition) -> bool:
    return all(key in definition for key in NEWER_SCHEMA)


def _order(definition: Definition) -> dict[str, list[str]] | None:
    """The order of inputs that their keys say; None where that is not certain: not all sections are objects, or a
    name is a number, which JavaScript's objects put first."""
    sections = definition.get("input")
    if not isinstance(sections, dict) or not _is_of(sections, dict, dict):
        return None
    if any(name.isdecimal() for section, names in sections.items() for name in (section, *names)):
        return None
    return {section: list(names) for section, names in sections.items()}


def _noted(marks: dict[tuple[str, str], Any], form: str) -> dict[str, dict[str, Any]]:
    noted: dict[str, dict[str, Any]] = {}
    for (section, name), mark in marks.items():
        if mark != form:
            noted.setdefault(section, {})[name] = mark
    return noted


# --- outputs ---


def _outputs(definition: Definition) -> list[Definition] | None:
    """V1's lists as V2's objects, as far as they can be read; None: these outputs are no V1 lists."""
    types = definition.get("output")
    if not isinstance(types, list) or (types and _are_objects(types)):
        return None

    def column(key: str, wanted: type) -> list[Any]:
        found = definition.get(key)
        items = found[: len(types)] if isinstance(found, list) else []
        known = [item if isinstance(item, wanted) else None for item in items]
        return known + [None] * (len(types) - len(known))

    names, flags = column("output_name", str), column("output_is_list", bool)
    tooltips, optionals = column(_tooltips_key(definition), str), column("output_optional", bool)
    outputs = []
    for type_, name, is_list, tooltip, optional in zip(types, names, flags, tooltips, optionals, strict=True):
        # A combo's output type is its options, in V1.
        shown = "COMBO" if isinstance(type_, list) else type_
        output = {"type": shown, "name": name, "is_list": is_list is True}
        if name is None:
            output["name"] = shown if isinstance(shown, str) else ""
        if tooltip is not None:
            output["tooltip"] = tooltip
        if optional is not None:
            output["optional"] = optional
        if isinstance(type_, list):
            output["options"] = type_
        outputs.append(output)
    return outputs


def _tooltips_key(definition: Definition) -> str:
    return next((key for key in TOOLTIPS if key in definition), TOOLTIPS[0])


def _are_objects(outputs: Any) -> bool:
    return _is_of(outputs, list, dict) and all("type" in output for output in outputs)


def _canonical(output: Definition) -> Definition:
    type_ = output["type"]
    if isinstance(type_, list):
        output = {**output, "type": "COMBO", "options": type_}
    if "name" not in output or "is_list" not in output:
        name = output["type"] if isinstance(output["type"], str) else ""
        return {"type": output["type"], "name": name, "is_list": False, **output}
    return output


def _parallel(outputs: list[Definition], v2: Definition, residue: Definition) -> Definition:
    """The V1 lists of V2's outputs, by key."""
    lists: Definition = {
        "output": [
            output["options"]
            if output["type"] == "COMBO" and isinstance(output.get("options"), list)
            else output["type"]
            for output in outputs
        ],
        "output_is_list": [output.get("is_list", False) for output in outputs],
        "output_name": [output.get("name", output["type"]) for output in outputs],
    }
    tooltips = [output.get("tooltip") for output in outputs]
    if _is_newer(v2) or any(tooltip is not None for tooltip in tooltips):
        lists[residue.get("tooltips", TOOLTIPS[0])] = tooltips
    if any("optional" in output for output in outputs):
        lists["output_optional"] = [output.get("optional", False) for output in outputs]
    for key, tail in residue.get("more", {}).items():
        lists[key] = [*lists.get(key, ()), *tail]
    lists |= residue.get("keys", {})
    for key in residue.get("absent", ()):
        lists.pop(key, None)
    return lists


def _unexpected(definition: Definition, expected: Definition, tooltips: str) -> Definition:
    """The residue that turns the expected lists into a V1 definition's own."""
    residue: Definition = {}
    if tooltips != TOOLTIPS[0]:
        residue["tooltips"] = tooltips
        if TOOLTIPS[0] in expected:
            expected[tooltips] = expected.pop(TOOLTIPS[0])
    for key in dict.fromkeys((*PARALLEL, *TOOLTIPS)):
        ours, theirs = expected.get(key, _MISSING), definition.get(key, _MISSING)
        if theirs is _MISSING:
            if ours is not _MISSING:
                residue.setdefault("absent", []).append(key)
        elif isinstance(ours, list) and isinstance(theirs, list) and _same(ours, theirs[: len(ours)]):
            if len(theirs) > len(ours):
                residue.setdefault("more", {})[key] = theirs[len(ours) :]
        else:
            residue.setdefault("keys", {})[key] = theirs
    return residue


def _with_lists(v2: Definition, residue: Definition) -> Definition:
    """V1's top level, in V1's order; the specs of the inputs as they are given."""
    outputs = v2.get("output")
    result: Definition = {}
    late: Definition = {}
    for key, value in v2.items():
        if key != "output" or "kept" in residue or not isinstance(outputs, list):
            result[key] = value
        else:
            lists = _parallel(outputs, v2, residue)
            if not _is_newer(v2):
                late = {name: lists.pop(name) for name in TOOLTIPS if name in lists}
            result |= lists
        if key == "output_node":
            result |= late
            late = {}
        elif key == "input" and ORDER not in v2 and ORDER not in residue.get("absent", ()):
            order = _order(v2)
            result |= {} if order is None else {ORDER: order}
    result |= late
    if "own" in residue:
        result["v1"] = residue["own"]
    order = residue.get("order")
    if order is None:
        return result
    return {key: result[key] for key in dict.fromkeys((*order, *result)) if key in result}


def _residue(definition: Definition) -> Definition | None:
    """What is under "v1", if it is a residue and not something of the node's own."""
    found = definition.get("v1")
    if not isinstance(found, dict) or not found or not found.keys() <= _RESIDUE.keys():
        return None
    if not all(_RESIDUE[key](value) for key, value in found.items()):
        return None
    return found if "kept" in found or _are_objects(definition.get("output")) else None


def _same(left: Any, right: Any) -> bool:
    """Equality as JSON has it: 0 is not false."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_same(value, right[key]) for key, value in left.items())
    return bool(left == right)


def _is_of(value: Any, kind: type, items: type) -> bool:
    """Whether it is a list or a dict of that kind, with only such items (values) in it."""
    if not isinstance(value, kind) or not isinstance(value, list | dict):
        return False
    return all(isinstance(item, items) for item in (value.values() if isinstance(value, dict) else value))
