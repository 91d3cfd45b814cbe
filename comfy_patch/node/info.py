"""What `info` says of the PC: versions, node packs, memory, loaded models. Cheap: no folder is scanned."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

VERSION = "1.0.0"
"""of this package; the installer shows it"""

LONGEST = 256 * 1024
"""bytes of a pack's pyproject.toml that are read"""

_SECTION = re.compile(r"^\s*\[([^\]\n]+)\]\s*(?:#.*)?$", re.MULTILINE)
_VERSION = re.compile(r"""^\s*version\s*=\s*(["'])([^"'\n]{1,100})\1""", re.MULTILINE)


class Info:
    """`packs`: (name, folder or file) of each loaded node pack; `devices` and `models` as the answer has them."""

    def __init__(
        self,
        comfyui: str,
        packs: Callable[[], Iterable[tuple[str, Path]]],
        devices: Callable[[], list[dict[str, Any]]],
        models: Callable[[], list[dict[str, Any]]],
    ) -> None:
        self._comfyui = comfyui
        self._packs = packs
        self._devices = devices
        self._models = models
        self._lock = threading.Lock()
        self._known: dict[tuple[str, Path], str | None] = {}
        """a pack's version changes with a restart only"""

    def __call__(self) -> dict[str, Any]:
        return {
            "patch": VERSION,
            "comfyui": self._comfyui,
            "node_packs": self._node_packs(),
            "devices": self._devices(),
            "loaded_models": self._models(),
        }

    def _node_packs(self) -> list[dict[str, Any]]:
        packs = sorted(set(self._packs()))
        with self._lock:
            for pack in packs:
                if pack not in self._known:
                    self._known[pack] = version_of(pack[1])
            return [{"name": pack[0], "version": self._known[pack]} for pack in packs]


def version_of(folder: Path) -> str | None:
    """The version in a project's pyproject.toml; None: it says none there. Read as text: Python 3.9 has no TOML."""
    try:
        with (folder / "pyproject.toml").open(encoding="utf-8") as file:
            text = file.read(LONGEST)
    except (OSError, UnicodeError):
        return None
    sections = list(_SECTION.finditer(text))
    for section, after in zip(sections, [*sections[1:], None]):  # noqa: B905 Python 3.9
        if section[1].strip() == "project":
            found = _VERSION.search(text, section.end(), after.start() if after else len(text))
            return found[2] if found else None
    return None
