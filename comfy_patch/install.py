"""Puts the package into a ComfyUI's custom_nodes, and takes it out again.

The new package is made ready beside the old one, under a name that ComfyUI does not load (`….disabled`), and then the
two change places. Where the system can exchange two folders in one step (Linux, macOS), ComfyUI finds one whole package
at every moment. Where it cannot (Windows), there is a moment between two renames without any: an error there is undone
at once, and after a crash there the next install or uninstall puts the old one back; ComfyUI itself does not mind.
What an interruption left behind is recognised by its name, and cleared away by the next install or uninstall.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from . import disk, package
from .layouts import PACKAGE, Layout

NEW, OLD, GONE = (f"{PACKAGE}.{word}.disabled" for word in ("new", "old", "removed"))


class Refused(Exception):
    """Nothing was changed, and the text says what the owner has to do first."""


@dataclass
class Report:
    """What was done, or would be in a dry run. `kept`: the owner's files in it, `backup`: where they are now."""

    done: str
    token: str = ""
    fresh_token: bool = False
    kept: list[str] = field(default_factory=list)
    backup: Path | None = None
    problems: list[str] = field(default_factory=list)


@dataclass
class Status:
    """What is there now. `current`: exactly what this copy of comfy_patch would install."""

    installed: str | None
    current: bool
    contents: package.Contents
    token: str | None
    token_open: bool
    foreign: bool
    interrupted: list[Path]


def install(layout: Layout, source: Path, version: str, dry_run: bool = False) -> Report:
    """Installs, updates or repairs; does nothing where the package is as it should be. The token is kept.

    Raises Refused, and OSError for what the system refused; in both cases the old package is in force.
    """
    files = package.read_source(source)
    _check(layout)
    if not dry_run:
        disk.make_folder(layout.custom_nodes)
    backup = disk.Backup(layout.base)
    if not dry_run:
        _recover(layout, backup)
    before = status(layout, source)
    token = before.token or secrets.token_urlsafe(32)
    if before.current and before.token and not before.token_open:
        return Report(f"{version}, nothing to do", token, False, backup.names, backup.folder)
    report = Report(f"installed {PACKAGE} {version} ({len(files)} files)", token, before.token is None)
    if before.installed:
        report.done = f"{report.done} in place of {before.installed}"
    report.kept = before.contents.changed + before.contents.added
    if dry_run:
        return report

    stage = layout.custom_nodes / NEW
    try:
        _fill(stage, files, version, token)
        old = _into_place(stage, layout.package)
    except OSError:
        with contextlib.suppress(OSError):
            if disk.exists(stage):
                package.take_apart(stage, backup)
        raise
    if old is not None:
        try:
            package.take_apart(old, backup)
        except OSError as error:
            report.problems.append(f"the old package could not be cleared away, install again to do so: {error}")
    report.kept = backup.names
    report.backup = backup.folder
    return report


def uninstall(layout: Layout, dry_run: bool = False) -> Report:
    """Removes what `install` made, the token too, and what the package remembers in ComfyUI's user folder; the owner's
    files in it go into a backup. Raises as `install`."""
    _check(layout)
    backup = disk.Backup(layout.base)
    manifest = package.load(layout.package)
    if manifest is None and not _leftovers(layout) and not layout.states():
        return Report("nothing to do: it is not installed")
    report = Report(f"removed {PACKAGE}")
    if manifest is not None:
        contents = package.look(layout.package, manifest)
        report.kept = contents.changed + contents.added
    if dry_run:
        return report
    _recover(layout, backup)
    if disk.exists(layout.package):
        disk.move(layout.package, layout.custom_nodes / GONE)
        package.take_apart(layout.custom_nodes / GONE, backup)
    for path in layout.states():
        disk.remove(path)
    report.kept = backup.names
    report.backup = backup.folder
    return report


def status(layout: Layout, source: Path) -> Status:
    """Looks, and changes nothing."""
    there = layout.package
    manifest = package.load(there)
    if manifest is None:
        leftovers = _leftovers(layout)
        return Status(None, False, package.Contents(), None, False, disk.exists(there), leftovers)
    contents = package.look(there, manifest)
    ours = {name: hashlib.sha256(content).hexdigest() for name, content in package.read_source(source).items()}
    clean = not (contents.changed or contents.added or contents.missing)
    token = package.read_token(there)
    # Windows has access lists instead, which say nothing here.
    exposed = token is not None and os.name != "nt" and bool((there / package.TOKEN).stat().st_mode & 0o077)
    return Status(manifest.patch, clean and ours == manifest.files, contents, token, exposed, False, _leftovers(layout))


def _check(layout: Layout) -> None:
    if disk.exists(layout.custom_nodes) and not layout.custom_nodes.is_dir():
        raise Refused(f"{layout.custom_nodes} is no folder.")
    for name in (PACKAGE, NEW, OLD, GONE):
        path = layout.custom_nodes / name
        if disk.is_link(path):
            raise Refused(f"{path} is a link to another folder, which is not ours. Remove the link first.")
        if disk.exists(path) and not path.is_dir():
            raise Refused(f"{path} is there, and is no folder. Move it away first.")
    if disk.exists(layout.package) and package.load(layout.package) is None:
        raise Refused(
            f"{layout.package} was not made by this installer ({package.MANIFEST} is missing or damaged). Move that"
            " folder out of custom_nodes first."
        )
    if disk.is_link(layout.package / package.TOKEN):
        raise Refused(f"{layout.package / package.TOKEN} is a link. Put a file in its place, or remove it.")


def _leftovers(layout: Layout) -> list[Path]:
    return [path for name in (NEW, OLD, GONE) if disk.exists(path := layout.custom_nodes / name)]


def _recover(layout: Layout, backup: disk.Backup) -> None:
    """Clears away what an interrupted run left; an old package that lost its place gets it back first."""
    old = layout.custom_nodes / OLD
    if disk.exists(old) and not disk.exists(layout.package) and package.load(old) is not None:
        disk.move(old, layout.package)
    for path in _leftovers(layout):
        package.take_apart(path, backup)


def _fill(stage: Path, files: dict[str, bytes], version: str, token: str) -> None:
    disk.make_folder(stage)
    disk.write(stage / package.UNFINISHED, b"")
    manifest = package.Manifest(version, {name: hashlib.sha256(content).hexdigest() for name, content in files.items()})
    disk.write(stage / package.MANIFEST, manifest.dump())
    for name, content in files.items():
        path = stage.joinpath(*name.split("/"))
        disk.make_folder(path.parent)
        disk.write(path, content)
    disk.write(stage / package.TOKEN, f"{token}\n".encode("ascii"), mode=0o600)
    owner = stage.parent.stat()
    if hasattr(os, "geteuid") and os.geteuid() == 0 != owner.st_uid:
        # Run with sudo for a ComfyUI of an ordinary user, which could not read the token otherwise.
        for parent, _, names in os.walk(stage):
            for path in (Path(parent), *(Path(parent, name) for name in names)):
                disk.give(path, owner.st_uid, owner.st_gid)
    disk.remove(stage / package.UNFINISHED)


def _into_place(stage: Path, place: Path) -> Path | None:
    """Makes the staged folder the package. Returns where the old one is now, if there was one."""
    if not disk.exists(place):
        disk.move(stage, place)
        return None
    if disk.exchange(stage, place):
        return stage
    old = place.with_name(OLD)
    disk.move(place, old)
    try:
        disk.move(stage, place)
    except OSError:
        disk.move(old, place)
        raise
    return old
