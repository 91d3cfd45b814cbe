"""The installed package as files: what belongs to it, what its owner changed, and how a folder of it is taken apart."""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import disk
from .layouts import PACKAGE

MANIFEST = ".manifest.json"
TOKEN = "token"
UNFINISHED = ".unfinished"
"""Is in a folder that is being filled, from its first moment to its last."""


@dataclass(frozen=True)
class Manifest:
    """What was installed: the patch's version, and the SHA-256 of each file by its name (relative, with `/`)."""

    patch: str
    files: dict[str, str]

    def dump(self) -> bytes:
        said = {
            "package": PACKAGE,
            "patch": self.patch,
            "installed": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "files": dict(sorted(self.files.items())),
        }
        return (json.dumps(said, indent=1) + "\n").encode("ascii")


@dataclass
class Contents:
    """The files of an installed package, by name. What Python compiled is none: it goes with its folder."""

    unchanged: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)


def load(folder: Path) -> Manifest | None:
    """The manifest of an installed package; None: it is not ours."""
    if disk.is_link(folder) or disk.is_link(folder / MANIFEST):
        return None
    try:
        said = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(said, dict) or said.get("package") != PACKAGE or not isinstance(said.get("files"), dict):
        return None
    return Manifest(str(said.get("patch")), {str(name): str(digest) for name, digest in said["files"].items()})


def read_source(folder: Path) -> dict[str, bytes]:
    """The files to install, by name. Raises FileNotFoundError where there is no package in the folder."""
    files = {
        name: (folder / name).read_bytes()
        for name in _walk(folder)
        if not _compiled(name) and not disk.is_link(folder / name) and name not in (MANIFEST, TOKEN, UNFINISHED)
    }
    if "__init__.py" not in files:
        raise FileNotFoundError(f"{folder / '__init__.py'} is missing: this copy of comfy_patch is not complete")
    return files


def look(folder: Path, manifest: Manifest) -> Contents:
    """Compares an installed package with its manifest. Follows no link: a link is the owner's, whatever its name is."""
    contents = Contents()
    found = set(_walk(folder))
    for name in sorted(found):
        if _compiled(name) or name == MANIFEST or (name == TOKEN and not disk.is_link(folder / name)):
            continue
        expected = manifest.files.get(name)
        if expected is None:
            contents.added.append(name)
        elif not disk.is_link(folder / name) and disk.sha256(folder / name) == expected:
            contents.unchanged.append(name)
        else:
            contents.changed.append(name)
    contents.missing = sorted(set(manifest.files) - found)
    return contents


def read_token(folder: Path) -> str | None:
    """The token of an installed package; None: there is none, or an empty file. A link is not followed: None."""
    path = folder / TOKEN
    if disk.is_link(path):
        return None
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return text if re.fullmatch(r"[!-~]+", text) else None


def take_apart(folder: Path, backup: disk.Backup) -> None:
    """Removes a folder of ours, wherever it stands: what we installed is deleted, anything else goes into the backup.

    May be ended at any step and begun again: the manifest, which says what is ours, goes last. In a folder that was
    never finished all files that the manifest names are ours, half written ones too.
    """
    unfinished = disk.exists(folder / UNFINISHED)
    manifest = load(folder) or Manifest("", {})
    contents = look(folder, manifest)
    theirs = set(contents.added) | (set() if unfinished else set(contents.changed))
    last = {MANIFEST, UNFINISHED} if unfinished or manifest.files else set()
    for name in _walk(folder):
        if name in last:
            continue
        if name in theirs or (name == MANIFEST and not last):
            backup.take(folder / name, f"custom_nodes/{PACKAGE}/{name}")
        else:
            disk.remove(folder / name)
    for parent, _, _ in os.walk(folder, topdown=False):
        if Path(parent) != folder:
            disk.remove_folder(Path(parent))
    for name in sorted(last):
        if disk.exists(folder / name):
            disk.remove(folder / name)
    disk.remove_folder(folder)


def _compiled(name: str) -> bool:
    return name.endswith((".pyc", ".pyo")) or "__pycache__/" in name


def _walk(folder: Path, prefix: str = "") -> list[str]:
    """Everything below that is no folder, relative and with `/`. Links to folders are listed, not entered."""
    names: list[str] = []
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False) and not disk.is_link(path):
            names += _walk(path, f"{prefix}{entry.name}/")
        else:
            names.append(prefix + entry.name)
    return names
