"""Which kind of ComfyUI a folder is, and where its custom nodes live.

Facts, from ComfyUI 0.3.64: a checkout has main.py, nodes.py and folder_paths.py at its top; `--base-directory` moves
models, custom_nodes, user, input, output and temp elsewhere together; the Windows portable is a folder with `ComfyUI`,
`python_embeded` (spelled so) and run_*.bat; the desktop app keeps its program among its resources (beside `app.asar`)
and everything of the owner's in a base directory. Other folders of custom nodes (extra_model_paths.yaml) do not matter.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from .disk import is_link

PACKAGE = "bridged_patch"
STATE = f"{PACKAGE}.json"


class NotComfyUI(Exception):
    """The folder is none that a package can be installed into; the text says what was looked for."""


@dataclass(frozen=True)
class Layout:
    """`code`: the folder of main.py (None: unknown), `base`: that of custom_nodes, `root`: the portable's."""

    kind: str
    code: Path | None
    base: Path
    root: Path | None = None

    @property
    def custom_nodes(self) -> Path:
        return self.base / "custom_nodes"

    @property
    def package(self) -> Path:
        return self.custom_nodes / PACKAGE

    def states(self) -> list[Path]:
        """The files in which the package remembers a pause and what was served, and halves of one that a crash left.
        Where a user folder is a link, or was moved by `--user-directory`, they are not looked for."""
        user = self.base / "user"
        return [] if is_link(user) else [*user.glob(STATE), *user.glob(f".{STATE}.*")]

    @property
    def version(self) -> str | None:
        """ComfyUI's own version, as its files say it."""
        return _version(self.code) if self.code else None

    def __str__(self) -> str:
        return f"ComfyUI {self.version or '(version not known)'}, {self.kind}, {self.root or self.code or self.base}"


def recognise(dest: str | None, base_directory: str | None = None) -> Layout:
    """The ComfyUI that is meant by what `--dest` and `--base-directory` say. Raises NotComfyUI."""
    base = _folder(base_directory, "--base-directory") if base_directory else None
    if base is not None and not any((base / name).is_dir() for name in ("custom_nodes", "models", "user")):
        raise NotComfyUI(
            f"{base} is no base directory of a ComfyUI: there is none of the folders custom_nodes, models, user in it."
        )
    if dest is None:
        if base is None:
            raise NotComfyUI("Say where ComfyUI is: --dest PATH (and --base-directory PATH if it is started with it).")
        return _whole(base) or Layout("a base directory", None, base)
    folder = _folder(dest, "--dest")
    layout = _whole(folder)
    if layout is None:
        raise NotComfyUI(_unknown(folder))
    if base is not None:
        return Layout(f"{layout.kind} with a base directory of its own ({base})", layout.code, base, layout.root)
    if layout.code is not None and (layout.code.parent / "app.asar").exists():
        raise NotComfyUI(
            f"{folder} is the program of the desktop app; its next update would remove what is installed there. Give"
            " the folder that you chose when you set the app up, with models, custom_nodes and user in it (often"
            " Documents/ComfyUI)."
        )
    return layout


def _whole(folder: Path) -> Layout | None:
    if _is_code(folder):
        root = folder.parent if folder.name.lower() == "comfyui" and _is_portable(folder.parent) else None
        return Layout("the Windows portable" if root else "a source checkout", folder, folder, root)
    inner = folder / "ComfyUI"
    if _is_code(inner) and _is_portable(folder):
        return Layout("the Windows portable", inner, inner, folder)
    if all((folder / name).is_dir() for name in ("custom_nodes", "models", "user")):
        return Layout("the base directory of the desktop app", None, folder)
    return None


def _is_code(folder: Path) -> bool:
    return (folder / "main.py").is_file() and any((folder / name).is_file() for name in ("nodes.py", "folder_paths.py"))


def _is_portable(folder: Path) -> bool:
    pythons = (folder / name for name in ("python_embeded", "python_embedded"))
    return any(python.is_dir() for python in pythons) or any(folder.glob("run_*.bat"))


def _folder(text: str, option: str) -> Path:
    # cmd.exe makes `C:\ComfyUI"` of "C:\ComfyUI\": the backslash escapes the quotation mark.
    path = Path(os.path.abspath(os.path.expanduser(text.strip().rstrip('"'))))
    if not path.is_dir():
        raise NotComfyUI(f"{option}: there is no folder {path}.")
    return path


def _unknown(folder: Path) -> str:
    lines = [
        f"{folder} is no ComfyUI that I know. What I looked for in it:",
        "- a source checkout: main.py, and nodes.py or folder_paths.py;",
        "- the Windows portable: a folder ComfyUI that is such a checkout, and python_embeded or run_*.bat;",
        "- the desktop app's base directory: the folders models, custom_nodes and user.",
    ]
    for near in (folder / "ComfyUI", folder.parent):
        if _whole(near) is not None:
            lines.append(f"Did you mean --dest {near} ?")
            break
    return "\n".join(lines)


def _version(code: Path) -> str | None:
    for name, pattern in (
        ("comfyui_version.py", r"""^__version__\s*=\s*["']([^"'\s]{1,40})["']"""),
        ("pyproject.toml", r"""^\[project\][^\[]*?^version\s*=\s*["']([^"'\s]{1,40})["']"""),
    ):
        try:
            text = (code / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        found = re.search(pattern, text, re.MULTILINE | re.DOTALL)
        if found:
            return found.group(1)
    return None
