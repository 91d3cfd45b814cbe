"""What a client is told of the pool's nodes: every class, or one, in V1 or V2, of all backends together.

With one backend, V1 is exactly its own answer. Whoever has not the admin scope is told nothing of the owners' files:
choices from the PCs' input, output and temp folders are left out, and so is every other choice that looks like
somebody's picture, recording or document.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import UnionType
from typing import Any

import msgspec

from bridged.nodedefs.brief import brief
from bridged.nodedefs.combos import Remote, read_combo
from bridged.nodedefs.forms import Definition, inputs_of, map_inputs, to_v1, to_v2
from bridged.nodedefs.lazy import PRIVATE, REFRESH_MS, Source, lazy, looks_like_file, recognise, select
from bridged.nodedefs.loaders import LOADERS, SUBFOLDERS, UPLOADS
from bridged.nodedefs.merge import Conflict, Merged, Offer, Place, merge, offered
from bridged.nodedefs.parse import UNREADABLE

OWNERS_FILE = re.compile(
    r".+\.(png|jpe?g|webp|gif|bmp|tiff?|avif|heic|exr|hdr|psd|svg|mp4|webm|mkv|mov|avi|m4v|wav|mp3|flac|ogg|opus|m4a|aac|"
    r"glb|gltf|obj|fbx|stl|ply|latent|npy|npz|txt|md|pdf|docx?|csv|"
    r"srt|heif|jfif|dng|xcf|ico|mpe?g|wmv|aiff?|wma|zip|rar|7z|tar|gz|xlsx?|pptx?|rtf|html?|log)"
    r"( \[(input|output|temp)\])?",
    re.IGNORECASE | re.DOTALL,
)


TOLD: dict[str, type | UnionType] = {
    "min": int | float,
    "max": int | float,
    "step": int | float,
    "tooltip": str,
    "multiline": bool,
}
"""of an input's settings: what a form for it needs"""

HARMLESS = frozenset({"combos", "absent", "order", "tooltips", "kept"})
"""of a residue (`forms`): keys whose values are no values of the definition's"""

REMOTE = ("type", "route", "response_key", "query_params", "refresh", "invalidation_signal")

MODEL_FILE = re.compile(rb"\.(safetensors|sft|ckpt|pth?|pt2|bin|gguf|onnx|pkl|engine|yaml|torchscript)\"")
"""in a definition: some choice is a file's name"""


def hides(choice: Any) -> bool:
    """Whether a choice looks like a file of somebody's own."""
    return isinstance(choice, str) and OWNERS_FILE.fullmatch(choice) is not None


class Offered(msgspec.Struct, frozen=True, eq=False):
    """What one backend has. `classes`: definitions as they came; `hints`: see `lazy.recognise`; `lists`: folder -> its
    files when the definitions were made; `newer`: those that were read since."""

    backend: str
    classes: Mapping[str, bytes]
    hints: Mapping[Place, str] = {}
    lists: Mapping[str, Sequence[str]] = {}
    newer: Mapping[str, Sequence[str]] = {}
    is_complete: bool = False
    """all lists are there by which its combos can be recognised"""


class View(msgspec.Struct, frozen=True):
    """`v2`: the RFC's form with lazy options, `refresh` being theirs, in ms. `owners`: the owners' files are shown, and
    backends by name."""

    v2: bool = False
    owners: bool = False
    availability: bool = False
    refresh: int = REFRESH_MS


def witnesses(classes: Mapping[str, bytes]) -> dict[str, list[str]]:
    """Folder -> its files, as far as ComfyUI's own loaders among the classes list them: at no cost for the PC, and at
    the very moment at which the definitions were made."""
    lists: dict[str, list[str]] = {}
    for (kind, name), listing in LOADERS.items():
        plain = not (listing.filter_ext or listing.filter_content_type or listing.folder in PRIVATE)
        if plain and listing.folder not in lists and kind in classes:
            for _, found, spec in inputs_of(_decoded(classes[kind])):
                combo = read_combo(spec)
                if found == name and combo is not None and combo.options is not None:
                    lists[listing.folder] = [c for c in combo.options if isinstance(c, str) and looks_like_file(c)]
    return lists


def has_unknown_lists(offered: Offered) -> bool:
    """Whether some combo may list a folder that `lists` does not have."""
    for name, raw in offered.classes.items():
        if not MODEL_FILE.search(raw):
            continue
        for _, found, spec in inputs_of(to_v2(_decoded(raw))):
            combo = read_combo(spec)
            options = combo.options if combo is not None else None
            are_files = options and all(isinstance(o, str) for o in options) and any(map(looks_like_file, options))
            if are_files and recognise(name, found, spec, offered.lists, offered.hints) is None:
                return True
    return False


class Views:
    """Makes answers, and keeps of each class what it need not make again. For one thread at a time."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, View], tuple[tuple[Any, ...], bytes]] = {}

    def whole(self, pool: Sequence[Offered], view: View) -> bytes:
        """All classes. Blocking: some ms, and up to a second where everything is new."""
        names = dict.fromkeys(name for each in pool for name in each.classes)
        self._kept = {key: kept for key, kept in self._kept.items() if key[0] in names}
        answers = ((name, self.one(pool, name, view)) for name in names)
        return b"{" + b", ".join(msgspec.json.encode(name) + b": " + body for name, body in answers if body) + b"}"

    def one(self, pool: Sequence[Offered], name: str, view: View) -> bytes | None:
        """One class; None where no backend has it, or none says anything readable of it."""
        having = [each for each in pool if name in each.classes]
        if not having:
            return None
        # Whatever the answer depends on; values are compared by identity first, so this costs next to nothing.
        seen = tuple((each.backend, each.classes[name], each.hints, each.lists, each.newer) for each in having)
        kept = self._kept.get((name, view))
        if kept is None or not _same(kept[0], seen):
            kept = self._kept[name, view] = (seen, _answer(having, name, view))
        return kept[1] or None


def definition_of(pool: Sequence[Offered], name: str, view: View) -> Definition | None:
    """One class, before it is made brief."""
    having = [each for each in pool if name in each.classes]
    offers = _offers(having, name, owners=view.owners)
    return _shown(name, merge(offers), view) if offers else None


def about_input(definition: Definition, name: str) -> dict[str, Any]:
    """What a class in V2 says of one input to whoever fills it in: its limits, and its choices or where they are."""
    for _, found, spec in inputs_of(definition):
        if found == name and isinstance(spec, list) and len(spec) > 1 and isinstance(spec[1], dict):
            said = {key: spec[1][key] for key, kind in TOLD.items() if isinstance(spec[1].get(key), kind)}
            if spec[0] == "COMBO" and spec[1].get("type") == "remote":
                said["remote"] = {key: spec[1][key] for key in REMOTE if key in spec[1]}
            elif spec[0] == "COMBO" and isinstance(spec[1].get("options"), list):
                said["options"] = spec[1]["options"]
            return said
    return {}


def remotes_of(pool: Sequence[Offered], name: str, key: str) -> tuple[dict[str, Remote], str]:
    """Backend -> what its own definition says of that remote combo; and the signal that says of another answer."""
    remotes: dict[str, Remote] = {}
    for offer in _offers((each for each in pool if name in each.classes), name):
        for section, found, spec in inputs_of(offer.definition):
            combo = read_combo(spec)
            if found == key and combo is not None and combo.remote is not None and (section, key) not in offer.sources:
                remotes[offer.backend] = combo.remote
    return remotes, next((_signal(name, key, remote) for remote in remotes.values()), "")


def _signal(name: str, key: str, remote: Remote) -> str:
    return remote.invalidation_signal or f"combos.{name}.{key}"


def _same(kept: tuple[Any, ...], seen: tuple[Any, ...]) -> bool:
    return len(kept) == len(seen) and all(
        a[0] == b[0] and a[1] == b[1] and all(x is y for x, y in zip(a[2:], b[2:], strict=True))
        for a, b in zip(kept, seen, strict=True)
    )


def _answer(having: Sequence[Offered], name: str, view: View) -> bytes:
    if len(having) == 1 and view == View(owners=True) and not having[0].newer:
        return having[0].classes[name]
    offers = _offers(having, name, owners=view.owners)
    if not offers:
        return b""
    merged = merge(offers)
    answer = _shown(name, merged, view)
    if view.v2:
        answer = brief(answer, name)
    if view.availability:
        answer |= _availability(name, offers, merged, view)
    return msgspec.json.encode(answer)


def _offers(having: Iterable[Offered], name: str, *, owners: bool = True) -> list[Offer]:
    """What these backends say of the class, those that say something readable.

    Without `owners`, what is an owner's own goes before anything is merged: one PC may be known to list its input
    folder where nothing is known of another.
    """
    offers = []
    for each in having:
        said = _decoded(each.classes[name])
        if not said:
            continue
        definition = to_v2(said)
        sources: dict[Place, Source] = {}
        for section, key, spec in inputs_of(definition):
            source = recognise(name, key, spec, each.lists, each.hints)
            if source is not None:
                sources[section, key] = source
        definition = _renewed(definition, sources, each.newer)
        if not owners:
            definition = _without_owners_files(name, definition, sources)
        offers.append(Offer(each.backend, definition, sources))
    return offers


def _renewed(definition: Definition, sources: Mapping[Place, Source], newer: Mapping[str, Sequence[str]]) -> Definition:
    """With the choices of lists that were read since."""

    def change(section: str, name: str, spec: Any) -> Any:
        source = sources.get((section, name))
        combo = read_combo(spec)
        if source is None or source.folder not in newer or combo is None or combo.options is None:
            return spec
        if spec[0] != "COMBO":
            return spec
        files = select(sorted(newer[source.folder]), source.filter_ext, source.filter_content_type)
        return ["COMBO", {**spec[1], "options": [*source.first, *files, *source.last]}]

    return map_inputs(definition, change) if newer else definition


def _shown(name: str, merged: Merged, view: View) -> Definition:
    definition = merged.definition
    if not view.v2:
        return dict(to_v1(definition))
    places = {key: source for (_, key), source in merged.sources.items()}
    made = lazy(definition, lambda key, _: places.get(key), view.refresh)
    return dict(map_inputs(made, lambda section, key, spec: _through_us(name, key, spec, places)))


def _through_us(kind: str, name: str, spec: Any, listed: Mapping[str, Source]) -> Any:
    """A node's own remote combo, fetched by way of this service: the PC's routes are not reachable for clients."""
    combo = read_combo(spec)
    if combo is None or combo.remote is None or name in listed:
        return spec
    remote = combo.remote
    made = {
        "type": "remote",
        "route": "/internal/combos",
        "response_key": "files",
        "query_params": {"class": kind, "input": name},
        "refresh": remote.refresh,
        "invalidation_signal": _signal(kind, name, remote),
    }
    settings = {key: value for key, value in spec[1].items() if key != "cache_key"}
    return ["COMBO", settings | made]


def _without_owners_files(kind: str, definition: Definition, sources: Mapping[Place, Source]) -> Definition:
    gone: set[str] = set()

    def change(section: str, name: str, spec: Any) -> Any:
        combo = read_combo(spec)
        source = sources.get((section, name))
        if source is not None and source.folder not in PRIVATE:
            return spec
        if combo is None or (source is None and not _lists_owners_files(kind, name, combo.settings)):
            clean = _cleaned(spec)
            if combo is not None and combo.options is not None:
                left = _cleaned(combo.options)
                gone.update(each for each in combo.options if isinstance(each, str) and each not in left)
            return spec if clean == spec else clean
        shown = () if source is None else (*source.first, *source.last)
        gone.update(each for each in combo.options or () if isinstance(each, str) and each not in shown)
        if spec[0] != "COMBO":  # too odd for V2
            return [list(shown)]
        if len(spec) < 2 or not isinstance(spec[1], dict):
            return spec
        settings = {**spec[1], "options": list(shown)} if combo.options is not None else dict(spec[1])
        if settings.get("default") not in shown:
            settings.pop("default", None)
        return ["COMBO", settings] if settings != spec[1] else spec

    shown = map_inputs(definition, change)
    outputs = shown.get("output")
    if isinstance(outputs, list) and any(isinstance(each, dict) and "options" in each for each in outputs):
        # The type of a combo that is put out is its choices, in V1.
        shown = {**shown, "output": [_output_without(gone, each) for each in outputs]}
    if isinstance(shown.get("v1"), dict):  # what V2 cannot say may have names in it, too; then V1 goes without it
        residue = {key: value for key, value in shown["v1"].items() if key in HARMLESS}
        shown = {**shown, "v1": residue}
        if not residue:
            del shown["v1"]
    return shown


def _lists_owners_files(kind: str, name: str, settings: Mapping[str, Any]) -> bool:
    """Whether a combo lists an owner's folder, also where what it lists is not understood."""
    known = LOADERS.get((kind, name))
    return (
        (kind, name) in SUBFOLDERS
        or (known is not None and known.folder in PRIVATE)
        or any(settings.get(flag) for flag in UPLOADS)
        or settings.get("image_folder") in PRIVATE
    )


def _cleaned(value: Any) -> Any:
    """Without texts that look like somebody's files, however deep they stand; where a list has one, its other files
    are taken for the same kind."""
    if isinstance(value, list):
        suspicious = any(map(hides, value))
        kept = (each for each in value if not hides(each) and not (suspicious and _is_some_file(each)))
        return [_cleaned(each) for each in kept]
    if isinstance(value, dict):
        clean = {key: _cleaned(each) for key, each in value.items() if not hides(each)}
        if any(value.get(flag) for flag in UPLOADS) and isinstance(clean.get("options"), list):
            clean["options"] = []
        return clean
    return value


def _is_some_file(choice: Any) -> bool:
    return isinstance(choice, str) and looks_like_file(choice)


def _output_without(gone: Collection[str], output: Any) -> Any:
    if not isinstance(output, dict) or not isinstance(output.get("options"), list):
        return output
    kept = [each for each in output["options"] if not (isinstance(each, str) and (each in gone or hides(each)))]
    return {**output, "options": kept}


def _availability(name: str, offers: Sequence[Offer], merged: Merged, view: View) -> Definition:
    """How many backends offer the class, each choice, and how they differ; their names for those who may know."""

    def who(backends: Sequence[str]) -> Any:
        return list(backends) if view.owners else len(backends)

    def fields(conflict: Conflict) -> Definition:
        return {"field": conflict.field, "backends": who(conflict.backends)}

    choices = {
        section: {
            key: {choice: who(names) for choice, names in by_choice.items()}
            for key, by_choice in inputs.items()
            if not (view.v2 and (section, key) in merged.sources)  # /internal/files tells of those
        }
        for section, inputs in offered(offers).items()
    }
    return {
        "availability": {
            "backends": who([offer.backend for offer in offers]),
            "options": choices,
            "conflicts": [fields(conflict) for conflict in merged.conflicts],
        }
    }


def _decoded(raw: bytes) -> Definition:
    """A definition; empty where it is none."""
    try:
        found = msgspec.json.decode(raw)
    except UNREADABLE:
        return {}
    return found if isinstance(found, dict) else {}
