"""What the older bridge's patch left in a ComfyUI, and how it is put away.

Facts, from that patch (Bridge-server-for-ComfyUI, `patch.py --dest`): it copied main_adapted.py and server_adapted.py
(a `BridgeServer` on top of `PromptServer`) and make_models_symlink.py to the top of ComfyUI, apiinput_widget.js to
web/extensions, and, over files of ComfyUI's own, app.js, litegraph.core.js or the bundle web/assets/index-*.js, in
which its lines are marked `comfyui_bridge_server`. A still older form replaced server.py. Owners start
`python main_adapted.py`. Its example pictures in input/ do no harm and stay.

Its own files are moved into a backup. Launch commands beside them are changed to main.py; the backup has the original.
Files of ComfyUI's own are never touched: what is wrong with them is said, with the command that restores them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from . import disk
from .layouts import Layout

_MARK = b"comfyui_bridge_server"
_OWN = {
    "main_adapted.py": (_MARK, b"server_adapted", b"PromptServer"),
    "server_adapted.py": (_MARK, b"BridgeServer", b"PromptServer"),
    "make_models_symlink.py": (b"create_symbolic_links",),
    "web/extensions/apiinput_widget.js": (_MARK, b"apiinput"),
}
_COMFYUIS = ("main.py", "server.py", "execution.py", "web")
_BUNDLES = ("server.py", "web/scripts/app.js", "web/lib/litegraph.core.js", "web/assets/index-*.js")
_FRONT_ENDS = (
    "python_embeded/Lib/site-packages",
    *(f"{venv}/{lib}/site-packages" for venv in ("venv", ".venv") for lib in ("Lib", "lib/python3*")),
)
_LAUNCHERS = {".bat", ".cmd", ".ps1", ".sh", ".command", ".service", ".desktop"}
_NAME = re.compile(rb"(?<![\w-])main_adapted\.py(?!\w)")
_NAME_UTF16 = re.compile(rb"(?<![\w-]\0)" + "main_adapted".encode("utf-16-le") + rb"\.\0p\0y\0(?!\w\0)")
_LARGEST_LAUNCHER = 1 << 20


@dataclass
class Remains:
    """`files` are its own, by their names in the backup; `launchers` name main_adapted.py; `notes` are for people."""

    files: dict[str, Path] = field(default_factory=dict)
    launchers: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.files or self.launchers or self.notes)


def find(layout: Layout) -> Remains:
    """Looks, and changes nothing."""
    remains = Remains()
    folders = [folder for folder in (layout.code, layout.root) if folder is not None]
    for folder in folders:
        _find_files(folder, remains)
    main = folders[0] / "main_adapted.py" if folders else None
    if main is None or main in remains.files.values() or not disk.exists(main):
        for folder in dict.fromkeys([*folders, layout.base]):
            _find_launchers(folder, remains)
    if layout.code is not None:
        _find_damage(layout.code, remains)
    for folder in dict.fromkeys([*folders, layout.base]):
        _find_bundles(folder, layout, remains)
    return remains


def put_away(remains: Remains, backup: disk.Backup) -> list[str]:
    """Does it, and says what was done; launch commands first, so that ComfyUI can always be started. Raises OSError."""
    said = []
    for name, path in remains.launchers.items():
        backup.copy(path, name)
        disk.overwrite(path, renamed(path.read_bytes()))
        said.append(f"{path}: starts main.py now instead of main_adapted.py")
    for name, path in remains.files.items():
        said.append(f"{path}: moved to {backup.take(path, name)}")
    return said


def renamed(content: bytes) -> bytes:
    """A launch command with main.py for main_adapted.py; every other byte stays as it is."""
    if content.startswith(b"\xff\xfe"):
        return _NAME_UTF16.sub("main.py".encode("utf-16-le"), content)
    return _NAME.sub(b"main.py", content)


def _find_files(folder: Path, remains: Remains) -> None:
    candidates = dict(_OWN)
    for path in sorted(folder.glob("*_adapted.py")):
        candidates.setdefault(path.name, (_MARK, b"BridgeServer"))
    for name, marks in candidates.items():
        path = folder / name
        if disk.is_link(path):
            if name in _OWN:
                remains.notes.append(f"{path}: is a link; if it leads to the old patch, remove it yourself")
            continue
        if not path.is_file():
            continue
        content = _content(path, remains)
        if any(mark in content for mark in marks):
            remains.files[_backup_name(folder, name, remains.files)] = path
        elif name == "main_adapted.py":
            remains.notes.append(f"{path}: has nothing of the old patch in it but its name; left as it is")


def _find_launchers(folder: Path, remains: Remains) -> None:
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in _LAUNCHERS or not path.is_file() or path.stat().st_size > _LARGEST_LAUNCHER:
            continue
        content = _content(path, remains)
        if renamed(content) == content:
            continue
        if disk.is_link(path):
            remains.notes.append(f"{path}: starts main_adapted.py, and is a link; change it to main.py yourself")
        else:
            remains.launchers[_backup_name(folder, path.name, remains.launchers)] = path


def _content(path: Path, remains: Remains) -> bytes:
    """b"" where it may not be read: a script of another user's is no reason to stop."""
    try:
        return path.read_bytes()
    except OSError as error:
        remains.notes.append(
            f"{path}: cannot be read, so look for the old patch's main_adapted.py in it: {error.strerror}"
        )
        return b""


def _backup_name(folder: Path, name: str, taken: dict[str, Path]) -> str:
    return f"{folder.name}/{name}" if name in taken else name


def _find_damage(code: Path, remains: Remains) -> None:
    known = _git(code, "ls-files", "-z", "--", *_COMFYUIS)
    differs = _git(code, "diff", "--name-only", "--diff-filter=M", "-z", "HEAD", "--", *_COMFYUIS)
    for name in differs:
        theirs = _MARK in _content(code / name, remains)
        why = "changed by the old patch" if theirs else "not as ComfyUI's own version; if the old patch did that"
        remains.notes.append(f"{code / name}: {why}; restore it: git -C {code} checkout -- {name}")
    for pattern in _BUNDLES:
        for path in sorted(code.glob(pattern)):
            name = path.relative_to(code).as_posix()
            if name in differs or _MARK not in _content(path, remains):
                continue
            if known and name not in known:
                remains.notes.append(f"{path}: of the old patch, and not part of this ComfyUI, which does without it")
            else:
                remains.notes.append(f"{path}: changed by the old patch; update or reinstall ComfyUI to restore it")


def _find_bundles(folder: Path, layout: Layout, remains: Remains) -> None:
    for place in _FRONT_ENDS:
        for path in sorted(folder.glob(f"{place}/comfyui_frontend_package/static/assets/index-*.js")):
            if _MARK in _content(path, remains):
                remains.notes.append(
                    f"{path}: changed by the old patch; restore it with ComfyUI's Python:"
                    f" python -m pip install --force-reinstall --no-deps {_front_end_pin(layout)}"
                )


def _front_end_pin(layout: Layout) -> str:
    name = "comfyui-frontend-package"
    try:
        lines = (layout.code or layout.base).joinpath("requirements.txt").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return name
    return next((line.strip() for line in lines if line.startswith(f"{name}==")), name)


def _git(code: Path, *command: str) -> list[str]:
    """The names that git answers with; none where there is no git, no checkout of its own, or git refuses."""
    git = shutil.which("git")
    if git is None or not (code / ".git").exists():
        return []
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        answer = subprocess.run(
            [git, "--no-optional-locks", "-C", str(code), *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            env=clean,
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [os.fsdecode(name) for name in answer.stdout.split(b"\0") if name]
