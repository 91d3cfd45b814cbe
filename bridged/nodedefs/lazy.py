"""Combos that list a folder's files, as remote combos, and back.

`recognise` finds what a combo lists, `lazy` puts the address of the list in the place of the options, `load`
puts the options back. A choice must never get lost on that way: what is not certain stays as it is. Only
where a choice and the name of an owner's file cannot be told apart (`PRIVATE`), it counts as a file.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias
from urllib.parse import quote, unquote

import msgspec

from bridged.nodedefs.combos import Remote, read_combo
from bridged.nodedefs.forms import Definition, map_inputs
from bridged.nodedefs.loaders import CONTENT_TYPES, LEGACY, LOADERS, UPLOADS, WORDS, Listing

PRIVATE: Final = frozenset({"input", "output", "temp"})
"""Folders of the PCs' owners: their files are named to nobody else, so they are no evidence either."""

REFRESH_MS: Final = 60_000
MAX_EXTRAS: Final = 16
"""Choices that are no files. More of them than that, and it is no list of files."""

ROUTE: Final = "/internal/files/"
_ROUTE = re.compile(r"(?:/api)?/internal/files(?:/(?P<folder>[^/?#]+))?/?")
_EXTENSION = re.compile(r"\.[A-Za-z0-9_]{1,16}$")
_NO_FILES = frozenset({"", "none", "[none]", "(none)", "null", "auto", "default", "disabled", "off"})
_OURS = ("type", "route", "response_key", "query_params", "refresh", "cache_key", "invalidation_signal")
_ALL_FILES_OF_A_PACK: Final = frozenset({"custom_nodes"})
_mimetypes = mimetypes.MimeTypes()  # knows what Python knows, not what this machine does

SourceOf: TypeAlias = Callable[[str, Any], "Source | None"]
"""(input name, spec) -> what that input of the class in question lists."""


class Source(msgspec.Struct, frozen=True):
    """The folder that a combo lists: one of `/models`, or input, output, temp.

    `first` and `last`: the choices that are no files, before and after them ("None", "pixel_space").
    """

    folder: str
    filter_ext: tuple[str, ...] = ()
    filter_content_type: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    last: tuple[str, ...] = ()


def normalise(name: str) -> str:
    """A file's name as the pool says it: a Windows PC's `a\\b` is `a/b`."""
    return name.replace("\\", "/") if "\\" in name else name


def select(
    files: Sequence[str],
    filter_ext: Collection[str] = (),
    filter_content_type: Collection[str] = (),
    first: Sequence[str] = (),
    last: Sequence[str] = (),
) -> Sequence[str]:
    """A folder's files as a combo shows them, in the order given; once more on the result changes nothing.

    Extensions in any case; content types as ComfyUI's filter has them: image, video, audio, and model, which
    means 3D models there.
    """
    if not (filter_ext or filter_content_type or first or last):
        return files
    extras = {*first, *last}
    passing = [name for name in files if name not in extras] if extras else files
    if filter_ext:
        endings = tuple(ending.lower() for ending in filter_ext)
        passing = [name for name in passing if name.lower().endswith(endings)]
    if filter_content_type:
        passing = [name for name in passing if _content_type(name) in filter_content_type]
    return [*first, *passing, *last]


def recognise(
    class_name: str,
    input_name: str,
    spec: Any,
    lists: Mapping[str, Sequence[str]],
    hints: Mapping[tuple[str, str], str],
) -> Source | None:
    """What this input of that class lists, if it is a folder's files.

    `lists`: the PC's own lists by folder, as `/models/{folder}` gives them; `hints`: folders by class and
    input, as a patched ComfyUI knows them. The first that says something decides:

    1. `hints`
    2. the address that the spec itself names
    3. the table of ComfyUI's own loaders. Before 4: LoadImageMask has LoadImage's flag, but shows all files.
    4. the spec's upload flags
    5. options that are one folder's list, extras before or after allowed. An empty list says nothing.

    None where a choice might get lost: options that are no strings, extras that look like files or are many.
    """
    combo = read_combo(spec)
    if combo is None:
        return None
    options, place = combo.options, (class_name, input_name)
    if options is not None and not all(type(option) is str for option in options):
        return None
    if place in hints:  # 1
        folder = hints[place] if hints[place] in lists else LEGACY.get(hints[place], hints[place])
        known = LOADERS.get(place)
        return _with_extras(known if known and known.folder == folder else Listing(folder), options, lists)
    if combo.remote is not None:  # 2
        listing = _addressed(combo.remote)
        return None if listing is None else _with_extras(listing, options, lists)
    if place in LOADERS:  # 3
        return _with_extras(LOADERS[place], options, lists)
    if listing := _flagged(combo.settings, options or ()):  # 4
        return _with_extras(listing, options, lists)
    return _matching(input_name, options, lists) if options else None  # 5


def lazy(definition: Definition, source_of: SourceOf, refresh: int = REFRESH_MS) -> Definition:
    """V2 whose recognised combos are fetched from `/internal/files/{folder}` when they are opened.

    `refresh` in ms. ComfyUI's own remote block stays beside it. A combo whose settings use the RFC's names
    for anything else stays inline.
    """

    def change(section: str, name: str, spec: Any) -> Any:
        settings = spec[1] if isinstance(spec, list) and len(spec) == 2 and spec[0] == "COMBO" else None
        if not isinstance(settings, dict) or not settings.keys().isdisjoint(_OURS):
            return spec
        own_block = isinstance(settings.get("remote"), dict)
        if not isinstance(settings.get("options"), list) and (not own_block or "options" in settings):
            return spec
        source = source_of(name, spec)
        return spec if source is None else ["COMBO", _remote_settings(settings, source, refresh)]

    return map_inputs(definition, change)


def load(definition: Definition, files: Callable[[Remote], Sequence[str]]) -> Definition:
    """The V2 with inline options that `lazy` was given. Combos that are remote by themselves stay so.

    `files` gives the list of the folder, or already what its route answers; `folder_of` and the remote's
    query_params say which. One list may stand in many combos: nothing is copied.
    """

    def change(section: str, name: str, spec: Any) -> Any:
        if not isinstance(spec, list) or len(spec) != 2 or not isinstance(spec[1], dict):
            return spec
        settings = spec[1]
        if settings.get("type") != "remote":
            return spec
        combo = read_combo(spec)
        remote = combo.remote if combo is not None else None
        folder = folder_of(remote) if remote is not None else None
        if remote is None or folder is None:
            return spec
        if (remote.route, remote.invalidation_signal) != (route_of(folder), signal_of(folder)):
            return spec  # somebody else's
        options: Sequence[str] | None = None
        if "options" in settings or not isinstance(settings.get("remote"), dict):
            chosen = select(files(remote), **_parameters(remote))
            options = chosen if isinstance(chosen, list) else list(chosen)
        inline: Definition = {}
        for key, value in settings.items():
            if key in ("type", "options"):
                if options is not None:
                    inline["options"] = options
            elif key not in _OURS:
                inline[key] = value
        return ["COMBO", inline]

    return map_inputs(definition, change)


def folder_of(remote: Remote) -> str | None:
    """The folder whose files a remote combo lists: the one in its route, or the RFC's folder_path."""
    route = _ROUTE.fullmatch(remote.route)
    if route is None:
        return None
    named = remote.query_params.get("folder_path")
    folder = unquote(route["folder"]) if route["folder"] else named
    return folder if isinstance(folder, str) and folder else None


def route_of(folder: str) -> str:
    """The path that answers a folder's files."""
    return ROUTE + quote(folder, safe="")


def signal_of(folder: str) -> str:
    """The WebSocket event that says that a folder's list has changed."""
    return f"files.{folder}"


def _remote_settings(settings: Definition, source: Source, refresh: int) -> Definition:
    remote: Definition = {"type": "remote", "route": route_of(source.folder), "response_key": "files"}
    wanted = ("filter_ext", "filter_content_type", "first", "last")
    if params := {key: list(value) for key in wanted if (value := getattr(source, key))}:
        remote["query_params"] = params
    remote |= {"refresh": refresh, "invalidation_signal": signal_of(source.folder)}
    if "options" not in settings:
        return {**settings, **remote}
    lazily: Definition = {}
    for key, value in settings.items():
        if key != "options":
            lazily[key] = value
            continue
        lazily |= remote
        if isinstance(settings.get("remote"), dict):
            lazily["options"] = []  # tells `load` that there were options beside the block
    return lazily


def _parameters(remote: Remote) -> dict[str, tuple[str, ...]]:
    """`select`'s arguments; one may be a list or, as in a URL, one text with commas."""

    def texts(value: Any) -> tuple[str, ...]:
        if isinstance(value, str):
            return tuple(value.split(",")) if value else ()
        return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()

    params = remote.query_params
    return {
        "filter_ext": tuple(filter(None, texts(params.get("filter_ext")))),
        "filter_content_type": tuple(filter(None, texts(params.get("filter_content_type")))),
        "first": texts(params.get("first")),
        "last": texts(params.get("last")),
    }


# --- evidence ---


def _addressed(remote: Remote) -> Listing | None:
    folder = folder_of(remote)
    if folder is None:
        return None
    given = _parameters(remote)
    return Listing(folder, given["filter_ext"], given["filter_content_type"])


def _flagged(settings: Mapping[str, Any], options: Sequence[str]) -> Listing | None:
    flag = next((name for name in UPLOADS if settings.get(name) is True), None)
    if flag is None:
        return None
    folder = settings.get("image_folder")
    types = UPLOADS[flag]
    # Many nodes let people upload an image and then list whatever there is.
    if types and not all(_content_type(option) in types for option in options if _may_be_file(option)):
        types = ()
    return Listing(folder if folder in PRIVATE else "input", filter_content_type=types)


def _with_extras(listing: Listing, options: Sequence[str] | None, lists: Mapping[str, Sequence[str]]) -> Source | None:
    """The source of these options: files, but for some at both ends that clearly are none."""
    is_file: Callable[[str], bool] = looks_like_file
    if listing.folder in PRIVATE:
        is_file = _may_be_file
    elif listing.folder in lists:
        known = {normalise(name) for name in lists[listing.folder]}
        is_file = known.__contains__
    names = [normalise(option) for option in options or ()]
    begin = next((place for place, name in enumerate(names) if is_file(name)), 0)
    end = next((place for place in range(len(names), 0, -1) if is_file(names[place - 1])), 0)
    return _source(listing, names, options or (), begin, end) if all(map(is_file, names[begin:end])) else None


def _matching(input_name: str, options: Sequence[str], lists: Mapping[str, Sequence[str]]) -> Source | None:
    found: dict[str, Source] = {}
    for folder, files in lists.items():
        extras = len(options) - len(files)
        if not files or not 0 <= extras <= MAX_EXTRAS or folder in _ALL_FILES_OF_A_PACK:
            continue
        begin = _place(options, files, extras)
        if begin is not None:
            source = _source(Listing(folder), options, options, begin, begin + len(files))
            if source is not None:
                found[folder] = source
    if len(found) > 1:
        return found.get(_meant(input_name, found) or "")
    return next(iter(found.values()), None)


def _place(options: Sequence[str], files: Sequence[str], extras: int) -> int | None:
    """Where in the options the whole list stands. Separators, and the order that they lead to, may differ."""
    for begin in range(extras + 1):
        if options[begin] == files[0] and list(options[begin : begin + len(files)]) == list(files):
            return begin
    names, wanted = [normalise(option) for option in options], sorted(map(normalise, files))
    if wanted[0] in names:
        for begin in range(extras + 1):
            if sorted(names[begin : begin + len(files)]) == wanted:
                return begin
    return None


def _meant(input_name: str, folders: Iterable[str]) -> str | None:
    """The one of these folders that the input's name points at: by the longest word, and by it alone."""
    name = re.sub(r"[^a-z]", "", input_name.lower())
    best: dict[str, int] = {}
    for folder in folders:
        words = [
            folder.lower().removesuffix("s"),
            *(word for word, meant in WORDS.items() if meant == folder),
        ]
        plain = [re.sub(r"[^a-z]", "", word) for word in words]
        best[folder] = max((len(word) for word in plain if word and word in name), default=0)
    longest = max(best.values(), default=0)
    winners = [folder for folder, length in best.items() if length == longest]
    return winners[0] if longest and len(winners) == 1 else None


def _source(listing: Listing, names: Sequence[str], options: Sequence[str], begin: int, end: int) -> Source | None:
    first, last = tuple(options[:begin]), tuple(options[end:])
    if len(first) + len(last) > MAX_EXTRAS or any(map(looks_like_file, (*first, *last))):
        return None
    if len({*first, *last}) != len(first) + len(last) or not {*first, *last}.isdisjoint(names[begin:end]):
        return None  # a list of choices that says one twice is not ours to tidy
    return Source(listing.folder, listing.filter_ext, listing.filter_content_type, first, last)


def looks_like_file(option: str) -> bool:
    return "/" in option or "\\" in option or _EXTENSION.search(option) is not None


def _may_be_file(option: str) -> bool:
    return looks_like_file(option) or option.lower() not in _NO_FILES


def _content_type(name: str) -> str | None:
    _, dot, extension = name.rpartition(".")
    return _type_of(extension.lower()) if dot else None


@lru_cache(maxsize=1024)
def _type_of(extension: str) -> str | None:
    if extension in CONTENT_TYPES:
        return CONTENT_TYPES[extension]
    guess, _ = _mimetypes.guess_type(f"name.{extension}", strict=False)
    return guess.partition("/")[0] if guess else None
