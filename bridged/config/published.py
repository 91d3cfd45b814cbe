"""The folder of published workflows, in the state folder: what is written there, and how.

It has the format of the operator's own one, its list included: `workflow_alias.json`, `*.json`, `thumbnail/`,
`descimage/`. The files of a version have a digest of their content in their names, so that no version ever changes
another's; a version comes into force, and the one before it goes, with the replacement of the list. Whatever a crash
leaves beside that is no workflow (see `catalogue.load`), and goes with the next change. What was replaced or removed
is kept in `previous/`, each version as one file that can be published again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from bridged.config.folder import locked, sync
from bridged.config.load import ALIASES_FILE, read_aliases
from bridged.config.schema import AliasEntry
from bridged.errors import UnknownAlias

PREVIOUS = "previous"
KEPT = 10
"""versions of one alias that are kept there"""

GENERATED = re.compile(r".+\.[0-9a-f]{12}\.[a-z0-9]+")
HALF = re.compile(r"\..+\.[0-9]+\.tmp")
MIME = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}


class Version(msgspec.Struct, frozen=True):
    """A workflow to be published, checked. `pictures`: ("thumbnail" or "descimage", file name) -> content;
    `thumbnail` is one of those names."""

    alias: str
    description: str
    graph: dict[str, dict[str, Any]]
    thumbnail: str | None
    pictures: Mapping[tuple[str, str], bytes]


class Written(msgspec.Struct, frozen=True):
    """`new`: nothing was published under that alias. `previous`: the file that keeps what was, if it was another."""

    fn: str
    new: bool
    previous: str | None


def generated_name(stem: str, content: bytes, extension: str) -> str:
    """A file name for that content: what is left of `stem`, a digest, the extension with its dot."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:60]
    if plain != stem:  # two names that are no file names must not become the same one
        plain = f"{plain or 'x'}-{hashlib.sha256(stem.encode()).hexdigest()[:8]}"
    return f"{plain}.{hashlib.sha256(content).hexdigest()[:12]}{extension}"


def publish(folder: Path, version: Version) -> Written:
    """Puts a version in the place of the one of that alias. Blocking. A crash leaves the one or the other.

    The options of the alias that were set by hand stay; a file that was put there by hand goes, once it is kept: else
    it would be a workflow of its own. Raises ConfigError (the list there is broken), OSError.
    """
    content = json.dumps(version.graph, ensure_ascii=False, indent=2).encode() + b"\n"
    fn = generated_name(version.alias, content, ".json")
    with _locked(folder):
        entries = list(read_aliases(folder / ALIASES_FILE))
        at = next((place for place, entry in enumerate(entries) if entry.alias == version.alias), None)
        old = entries[at] if at is not None else AliasEntry(version.alias, fn)
        entry = msgspec.structs.replace(old, fn=fn, description=version.description, thumbnail=version.thumbnail)
        for (area, name), picture in version.pictures.items():
            _put(folder / area / name, picture)
        _put(folder / fn, content)
        previous = _keep(folder, old) if at is not None and entry != old else None
        by_hand = previous is not None and not GENERATED.fullmatch(old.fn) and bool(_content(folder, old))
        if at is None:
            entries.append(entry)
        else:
            entries[at] = entry
        _put_list(folder, entries)
        with suppress(OSError):
            if by_hand and old.fn not in {other.fn for other in entries}:
                (folder / old.fn).unlink(missing_ok=True)
            _tidy(folder, entries)
    return Written(fn, at is None, previous)


def remove(folder: Path, alias: str) -> str:
    """Takes a workflow out; the file that keeps it. Blocking. One that was put there by hand, without an entry in the
    list, goes by its file name. Raises UnknownAlias, ConfigError, OSError."""
    with _locked(folder):
        entries = list(read_aliases(folder / ALIASES_FILE))
        entry = next((entry for entry in entries if entry.alias == alias), None)
        if entry is None:
            if alias not in _unlisted(folder, entries):
                raise UnknownAlias(f"no workflow {alias!r} was published")
            entry = AliasEntry(alias, alias)
        previous = _keep(folder, entry)
        entries = [other for other in entries if other.alias != alias]
        _put_list(folder, entries)
        if entry.fn not in {other.fn for other in entries}:
            (folder / entry.fn).unlink(missing_ok=True)
        with suppress(OSError):
            _tidy(folder, entries)
    return previous


def versions(folder: Path, alias: str) -> list[str]:
    """The files that keep what was published under that alias before, the oldest first. Blocking."""
    stem = generated_name(alias, b"", "").rpartition(".")[0]
    pattern = re.compile(re.escape(stem) + r"\.\d{8}T\d{12}Z\.[0-9a-f]{12}\.json")
    try:
        return sorted(name for name in os.listdir(folder / PREVIOUS) if pattern.fullmatch(name))
    except FileNotFoundError:
        return []


def pictures_of(graph: Any) -> set[str]:
    """The names in `_meta.descimage`, whatever else is in the graph; only such as are bare names."""
    found: set[str] = set()
    for node in graph.values() if isinstance(graph, dict) else ():
        meta = node.get("_meta") if isinstance(node, dict) else None
        named = meta.get("descimage") if isinstance(meta, dict) else None
        names = named if isinstance(named, list) else [named]
        found |= {name for name in names if isinstance(name, str) and name and Path(name).name == name}
    return found


# -- inside ----------------------------------------------------------------------------------------------------------


def _unlisted(folder: Path, entries: list[AliasEntry]) -> set[str]:
    listed = {entry.fn for entry in entries} | {ALIASES_FILE}
    names = {path.name for path in folder.glob("*.json")} - listed
    return {name for name in names if not name.startswith(".") and not GENERATED.fullmatch(name)}


def _keep(folder: Path, entry: AliasEntry) -> str:
    """Writes a version as one file, in the form in which it can be published again; what of it cannot be read is left
    out."""
    kept = {"alias": entry.alias, "description": entry.description, "workflow": _content(folder, entry)}
    if entry.thumbnail:
        kept["thumbnail"] = _data_url(folder / "thumbnail" / entry.thumbnail)
    pictures = {name: _data_url(folder / "descimage" / name) for name in sorted(pictures_of(kept["workflow"]))}
    kept["descimages"] = {name: url for name, url in pictures.items() if url is not None}
    content = json.dumps(kept, ensure_ascii=False, indent=1).encode() + b"\n"
    stamp = datetime.fromtimestamp(time.time(), UTC).strftime("%Y%m%dT%H%M%S%fZ")
    stem = generated_name(entry.alias, b"", "").rpartition(".")[0]
    name = f"{stem}.{stamp}.{hashlib.sha256(content).hexdigest()[:12]}.json"
    _put(folder / PREVIOUS / name, content)
    for old in versions(folder, entry.alias)[:-KEPT]:
        (folder / PREVIOUS / old).unlink(missing_ok=True)
    return name


def _content(folder: Path, entry: AliasEntry) -> Any:
    """{} where it cannot be read."""
    try:
        return json.loads((folder / entry.fn).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}


def _data_url(path: Path) -> str | None:
    try:
        return f"data:{MIME[path.suffix.lower()]};base64,{base64.b64encode(path.read_bytes()).decode()}"
    except (OSError, ValueError, KeyError):
        return None


def _tidy(folder: Path, entries: list[AliasEntry]) -> None:
    """Removes files of versions that the list does not name any more, and what a crash left half-written; never one
    that somebody named by hand. What cannot be removed stays: the change is in force. Raises OSError."""
    for half in (each for area in (".", "thumbnail", "descimage", PREVIOUS) for each in (folder / area).glob(".*.tmp")):
        if HALF.fullmatch(half.name):
            half.unlink(missing_ok=True)
    used = {entry.fn for entry in entries}
    for path in folder.glob("*.json"):
        if GENERATED.fullmatch(path.name) and path.name not in used:
            path.unlink(missing_ok=True)
    pictures: set[str] = set()
    for path in folder.glob("*.json"):
        if path.name != ALIASES_FILE:
            try:
                pictures |= pictures_of(json.loads(path.read_bytes()))
            except (OSError, ValueError, RecursionError):
                return  # somebody is at it: its pictures are not known
    thumbnails = {entry.thumbnail for entry in entries}
    for area, kept in (("thumbnail", thumbnails), ("descimage", pictures)):
        for path in (folder / area).glob("*"):
            if GENERATED.fullmatch(path.name) and path.name not in kept:
                path.unlink(missing_ok=True)


def _put_list(folder: Path, entries: list[AliasEntry]) -> None:
    defaults = {field.name: field.default for field in msgspec.structs.fields(AliasEntry)}
    said = [
        {name: value for name, value in msgspec.to_builtins(entry).items() if value != defaults[name]}
        for entry in entries
    ]
    _put(folder / ALIASES_FILE, json.dumps(said, ensure_ascii=False, indent=2).encode() + b"\n")


def _put(path: Path, content: bytes) -> None:
    """The file at once, or not at all; on the disk when this returns."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextmanager
def as_its_owner(folder: Path) -> Iterator[None]:
    """For root, who may publish for the service: acts as the owner of the state folder, so that what is written is the
    service's, and a link that was planted there leads root nowhere. It holds for the whole process: for commands alone.
    Raises OSError."""
    state = next(each for each in folder.parents if each.exists()).stat()
    if os.geteuid() != 0 or state.st_uid == 0:
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(state.st_gid)
    os.seteuid(state.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    with locked(folder, f"{folder.name}/"):
        yield
