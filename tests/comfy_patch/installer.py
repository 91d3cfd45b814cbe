"""Folders for the installer's tests: a package to install in two versions, the ComfyUIs it meets, and looks at them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from comfy_patch import disk, install, package
from comfy_patch.layouts import PACKAGE, Layout, recognise

TOKEN = "a-token-of-the-owners-43-characters-long-000"
OLD = {
    "__init__.py": "WEB_DIRECTORY = './web'\n",
    "host.py": "old\n",
    "web/bridged.js": "old\n",
    "web/gone.js": "old\n",
}
NEW = {
    "__init__.py": "WEB_DIRECTORY = './web'\n",
    "host.py": "new\n",
    "web/bridged.js": "new\n",
    "web/lib/a.js": "new\n",
}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def checkout(folder: Path) -> Path:
    """What the installer looks for in a ComfyUI 0.3.64."""
    write(folder, {"main.py": "", "nodes.py": "", "folder_paths.py": "", "server.py": ""})
    write(folder, {"comfyui_version.py": '# made by the build\n__version__ = "0.3.64"\n'})
    return write(folder, {"custom_nodes/other/__init__.py": "", "custom_nodes/example.py.example": ""})


class Place:
    """A ComfyUI with the old version in it, its token TOKEN, and copies of the package to install."""

    def __init__(self, folder: Path) -> None:
        self.sources = {"1.0.0": write(folder / "old" / "node", OLD), "1.1.0": write(folder / "new" / "node", NEW)}
        self.comfyui = checkout(folder / "ComfyUI")
        self.layout: Layout = recognise(str(self.comfyui))
        self.package = self.layout.package

    def install(self, version: str = "1.1.0") -> install.Report:
        return install.install(self.layout, self.sources[version], version)

    def with_old(self) -> Place:
        self.install("1.0.0")
        (self.package / package.TOKEN).write_text(TOKEN + "\n", encoding="ascii")
        return self

    def version(self) -> str | None:
        """Which version is whole and in force, as ComfyUI would load it; None: none. Fails where it is a mixture."""
        if not self.package.exists():
            return None
        found = {path.relative_to(self.package).as_posix(): path.read_text() for path in _files(self.package)}
        found.pop(package.MANIFEST)
        assert found.pop(package.TOKEN).strip() == TOKEN
        assert found in (OLD, NEW)
        return "1.0.0" if found == OLD else "1.1.0"

    def loadable(self) -> set[str]:
        """What ComfyUI 0.3.64 would load as custom nodes (`init_external_custom_nodes`)."""
        names = os.listdir(self.layout.custom_nodes)
        return {name for name in names if not name.endswith((".disabled", ".example")) and name != "__pycache__"}

    def leftovers(self) -> set[str]:
        return {path.name for path in self.layout.custom_nodes.glob(f"{PACKAGE}.*")}

    def backed_up(self) -> dict[str, str]:
        """Everything in all backups, by its name there."""
        return {
            path.relative_to(folder).as_posix(): path.read_text()
            for folder in self.comfyui.glob("bridged-backup-*")
            for path in _files(folder)
            if path.name != ".gitignore"
        }

    def copy_to(self, folder: Path) -> Place:
        """The same in another folder, independent of this one."""
        shutil.copytree(self.comfyui.parent, folder, symlinks=True)
        return Place.__new__(Place)._at(folder)

    def _at(self, folder: Path) -> Place:
        self.sources = {"1.0.0": folder / "old" / "node", "1.1.0": folder / "new" / "node"}
        self.comfyui = folder / "ComfyUI"
        self.layout = recognise(str(self.comfyui))
        self.package = self.layout.package
        return self


class Killed(BaseException):
    """The process ends here: no handler of OSError or Exception runs, and no later step happens."""


class Fault:
    """In place of `disk.before`: raises at the n-th step; after Killed, at every later one as well."""

    def __init__(self, at: int, error: Callable[[], BaseException]) -> None:
        self.at = at
        self.error = error
        self.steps: list[str] = []

    def __call__(self, step: str, path: Path) -> None:
        self.steps.append(f"{step} {path.name}")
        dead = len(self.steps) > self.at and self.error is Killed
        if len(self.steps) == self.at or dead:
            raise self.error()


def no_exchange(one: Path, other: Path) -> bool:
    """As on Windows."""
    disk.before("exchange", other)
    return False


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() or path.is_symlink()]
