"""One definition of a node class out of those that several backends have. The rules, in this order:

1. What all agree on is taken as it is. With one backend that is everything.
2. Two definitions agree where they are equal but for the choices and defaults of their combos. Where some do not, the
   one that most backends have is taken; of those that equally many have, the one of the backend listed first. What the
   others have otherwise is a conflict, and named.
3. A combo's choices are those of all backends together: sorted, where every backend's are; else in the order of the
   backends. File names are compared with "/" between folders, whatever the PC uses; of a list of files, what is no
   file stays before and after them.
4. A combo's default is the one of the definition taken, where that is among the choices; else that of the first
   backend for which it is; else there is none, and the first choice is it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from bridged.nodedefs.combos import Combo, read_combo
from bridged.nodedefs.forms import Definition, inputs_of
from bridged.nodedefs.lazy import MAX_EXTRAS, Source, normalise

Place = tuple[str, str]
"""of an input: section ("required", "optional", …) and name"""


class Offer(msgspec.Struct, frozen=True):
    """What one backend says of a class: its definition in V2 with inline options; which of its combos list files."""

    backend: str
    definition: Definition
    sources: Mapping[Place, Source]


class Conflict(msgspec.Struct, frozen=True):
    """Something that `backends` say otherwise than the definition taken. `field`: `output`, `input.required.steps`."""

    field: str
    backends: tuple[str, ...]


class Merged(msgspec.Struct, frozen=True):
    """`sources`: the combos that list the same folder everywhere."""

    definition: Definition
    sources: Mapping[Place, Source]
    conflicts: tuple[Conflict, ...] = ()


def merge(offers: Sequence[Offer]) -> Merged:
    """`offers`: at least one, in the order of the configuration."""
    if _are_same([offer.definition for offer in offers]):
        return Merged(offers[0].definition, _common_sources(offers[0].definition, offers))
    shapes = [msgspec.json.encode(_shape(offer.definition), order="sorted") for offer in offers]
    most = max(Counter(shapes).values())
    taken = next(offer for offer, shape in zip(offers, shapes, strict=True) if shapes.count(shape) == most)
    definition = {**taken.definition, "input": _copied(taken.definition.get("input"))}
    sources = _common_sources(taken.definition, offers)
    for place, spec in _combos(taken.definition):
        found = [
            (offer, (combo.options, combo.settings))
            for offer in offers
            if (combo := _combo_of(offer, place)) is not None and combo.options is not None
        ]
        lists = [(choices, place in offer.sources) for offer, (choices, _) in found]
        defaults = [settings["default"] for _, (_, settings) in found if "default" in settings]
        mine = [spec[1]["default"]] if "default" in spec[1] else []
        definition["input"][place[0]][place[1]] = [
            "COMBO",
            _with_choices(spec[1], _all_choices(lists, sources.get(place)), [*mine, *defaults]),
            *spec[2:],
        ]
    return Merged(definition, sources, _conflicts(taken, offers))


def united(lists: Sequence[Sequence[Any]]) -> list[Any]:
    """All choices once (rule 3)."""
    if not lists:
        return []
    if _are_same(lists):
        return list(lists[0])
    return _joined(lists, all(_is_sorted(each) for each in lists))


def _all_choices(lists: Sequence[tuple[list[Any], bool]], source: Source | None) -> list[Any]:
    """`lists`: the choices of each backend, and whether they are files; `source`: the folder that all of them list."""
    plain = [[_normalised(each) for each in choices] if files else choices for choices, files in lists]
    if source is None:
        return united(plain)
    extras = {*source.first, *source.last}
    files = [[each for each in choices if each not in extras] for choices in plain]
    # A PC sorts by its own separators: "a1" stands before "a\\b", but after "a/b".
    own = ([each for each in choices if each not in extras] for choices, _ in lists)
    return [*source.first, *_joined(files, all(_is_sorted(each) for each in own)), *source.last]


def _joined(lists: Iterable[Sequence[Any]], is_sorted: bool) -> list[Any]:
    choices = list({_key(choice): choice for each in lists for choice in each}.values())
    return sorted(choices) if is_sorted else choices


def _is_sorted(choices: Sequence[Any]) -> bool:
    return all(isinstance(choice, str) for choice in choices) and all(a <= b for a, b in pairwise(choices))


def _key(choice: Any) -> Any:
    """Equal for choices that a ComfyUI takes for the same: in Python 1, 1.0 and True would be."""
    if isinstance(choice, str):
        return choice
    return (type(choice).__name__, msgspec.json.encode(choice))


def _with_choices(settings: Mapping[str, Any], choices: list[Any], defaults: Iterable[Any]) -> dict[str, Any]:
    """The settings with these choices, and the first of these defaults that is one (rule 4)."""
    known = {_key(choice) for choice in choices}
    candidates = (each for default in defaults for each in (default, _normalised(default)))
    default = next((each for each in candidates if _is_among(each, known)), msgspec.UNSET)
    merged = {**settings, "options": choices, "default": default}
    return {key: value for key, value in merged.items() if value is not msgspec.UNSET}


def _is_among(default: Any, known: Collection[Any]) -> bool:
    """Whether it is a choice, or some of them where one may take several."""
    return _key(default) in known or (isinstance(default, list) and all(_key(each) in known for each in default))


def _normalised(choice: Any) -> Any:
    if isinstance(choice, list):
        return [_normalised(each) for each in choice]
    return normalise(choice) if isinstance(choice, str) else choice


def _are_same(values: Sequence[Any]) -> bool:
    """Equality as JSON has it: 1 is not true."""
    first = values[0]
    if len(values) == 1 or any(each != first for each in values[1:]):
        return len(values) == 1
    as_json = msgspec.json.encode(first, order="sorted")
    return all(msgspec.json.encode(each, order="sorted") == as_json for each in values[1:])


def _combos(definition: Definition) -> list[tuple[Place, Any]]:
    """The combos with inline choices, in V2's form: what is so odd that it has none is compared as it is."""
    return [
        ((section, name), spec)
        for section, name, spec in inputs_of(definition)
        if (combo := read_combo(spec)) is not None and combo.options is not None and spec[0] == "COMBO"
    ]


def _combo_of(offer: Offer, place: Place) -> Combo | None:
    """What it is on that backend; None where it is no combo there."""
    sections = offer.definition.get("input")
    section = sections.get(place[0]) if isinstance(sections, dict) else None
    return read_combo(section.get(place[1])) if isinstance(section, dict) else None


def _common_sources(definition: Definition, offers: Sequence[Offer]) -> dict[Place, Source]:
    places = ((section, name) for section, name, _ in inputs_of(definition))
    found = ((place, _common_source(place, offers)) for place in places)
    return {place: source for place, source in found if source is not None}


def _common_source(place: Place, offers: Sequence[Offer]) -> Source | None:
    """The folder that all list here, with everything that some list beside its files; None: they do not list one."""
    known: list[Source] = []
    for offer in offers:
        source, combo = offer.sources.get(place), _combo_of(offer, place)
        if source is not None:
            known.append(source)
        elif combo is not None and (combo.options or combo.remote is not None):
            return None
    if len({(source.folder, source.filter_ext, source.filter_content_type) for source in known}) != 1:
        return None
    first = tuple(dict.fromkeys(choice for source in known for choice in source.first))
    last = tuple(dict.fromkeys(choice for source in known for choice in source.last if choice not in first))
    if len(first) + len(last) > MAX_EXTRAS:
        return None
    return msgspec.structs.replace(known[0], first=first, last=last)


def offered(offers: Sequence[Offer]) -> dict[str, dict[str, dict[str, tuple[str, ...]]]]:
    """Section -> input -> choice -> the backends that offer it, of all combos with inline choices. A choice that is no
    text goes by its JSON."""
    who: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {}
    for offer in offers:
        for (section, name), spec in _combos(offer.definition):
            choices = who.setdefault(section, {}).setdefault(name, {})
            for choice in spec[1]["options"]:
                text = _normalised(choice) if (section, name) in offer.sources else choice
                key = text if isinstance(text, str) else msgspec.json.encode(text).decode()
                choices[key] = (*choices.get(key, ()), offer.backend)
    return who


# -- who agrees with whom --------------------------------------------------------------------------------------------


def _shape(definition: Definition) -> dict[str, Any]:
    """The definition without what backends may differ in by the files they have."""
    shape = {**definition, "input": _copied(definition.get("input"))}
    for (section, name), spec in _combos(definition):
        settings = {key: value for key, value in spec[1].items() if key not in ("options", "default")}
        shape["input"][section][name] = ["COMBO", settings, *spec[2:]]
    return shape


def _copied(sections: Any) -> Any:
    if not isinstance(sections, dict):
        return sections
    return {name: dict(section) if isinstance(section, dict) else section for name, section in sections.items()}


def _conflicts(taken: Offer, offers: Sequence[Offer]) -> tuple[Conflict, ...]:
    mine = _fields(taken.definition)
    who: dict[str, list[str]] = {}
    for offer in offers:
        theirs = _fields(offer.definition)
        for field in {**mine, **theirs}:
            if mine.get(field, msgspec.UNSET) != theirs.get(field, msgspec.UNSET):
                who.setdefault(field, []).append(offer.backend)
    return tuple(Conflict(field, tuple(backends)) for field, backends in who.items())


def _fields(definition: Definition) -> dict[str, bytes]:
    shape = _shape(definition)
    sections = shape.pop("input", None)
    fields = {key: msgspec.json.encode(value, order="sorted") for key, value in shape.items()}
    if not isinstance(sections, dict):
        return fields
    for section, inputs in sections.items():
        if isinstance(inputs, dict):
            for name, spec in inputs.items():
                fields[f"input.{section}.{name}"] = msgspec.json.encode(spec, order="sorted")
        else:
            fields[f"input.{section}"] = msgspec.json.encode(inputs, order="sorted")
    return fields
