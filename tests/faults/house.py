"""The configuration folder of the daemon under test: what an operator would have written, and its later edits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PAINT: dict[str, Any] = {
    "1": {
        "class_type": "EmptyImage",
        "inputs": {"width": 32, "height": 32, "batch_size": 1, "color": 1},
        "_meta": {"title": "Colour", "apiinput": "width,color"},
    },
    "2": {
        "class_type": "ImageScale",
        "inputs": {"image": ["1", 0], "upscale_method": "bicubic", "width": 8, "height": 8, "crop": "disabled"},
    },
    "3": {"class_type": "ImageSharpen", "inputs": {"image": ["2", 0], "sharpen_radius": 1, "sigma": 1.0, "alpha": 1.0}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "paint"}},
}
"""ten or so events, and a value that makes it unlike all others"""

BREAK: dict[str, Any] = {
    **PAINT,
    "3": {"class_type": "ImageInvert", "inputs": {"image": ["2", 0]}},
}
"""fails on every PC, in its third node: a workflow's own fault"""

BLEND: dict[str, Any] = {
    "1": PAINT["1"],
    "5": {
        "class_type": "LoadImage",
        "inputs": {"image": "example.png"},
        "_meta": {"title": "Picture", "apiinput": "image"},
    },
    "6": {
        "class_type": "ImageBlend",
        "inputs": {"image1": ["1", 0], "image2": ["5", 0], "blend_factor": 0.5, "blend_mode": "normal"},
    },
    "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "blend"}},
}
"""brings a picture along, which has to be on the PC before it can run"""

WORKFLOWS = {"paint": PAINT, "break": BREAK, "blend": BLEND}

WISHES: dict[str, dict[str, Any]] = {
    "server": {"shutdown_budget": 8},
    "state": {"reserve": 4},
    "embedded": {"worker": "never"},
    "jobs": {
        "timeout_interval": 0.5,
        "limit_timeout_count": 200,
        "unreachable_after": 3.0,
        "witness_interval": 0.5,
        "result_ttl": 7 * 86400.0,
        "max_queued": 5000,
        "reconnect_grace": 30.0,
        "no_progress_timeout": 4.0,
        "max_runtime": 20.0,
    },
}
"""Settings that make a fault's consequences come within seconds. One that the daemon does not have is left out."""

ASK = """
import json, msgspec
from bridged.config.schema import Settings
names = lambda kind: [field.name for field in msgspec.structs.fields(kind)]
sections = {f.name: f.type for f in msgspec.structs.fields(Settings)}
print(json.dumps({name: names(kind) for name, kind in sections.items() if isinstance(kind, type)}))
"""


class House:
    """etc/ and workflows/ of one daemon, with its state folder beside them."""

    def __init__(self, folder: Path, state: Path, known: dict[str, set[str]]) -> None:
        self.folder, self.state = folder, state
        self.etc, self.workflows = folder / "etc", folder / "workflows"
        self._known = known
        self.settings: dict[str, dict[str, Any]] = {"state": {"dir": str(state)}}
        for section, values in WISHES.items():
            self._set(section, values)
        for path in (self.etc, *(self.workflows / name for name in ("", "thumbnail", "descimage", "input"))):
            path.mkdir(parents=True, exist_ok=True)
        self.write_settings()
        for alias in WORKFLOWS:
            self.write_workflow(alias)
        self.write_aliases("paints")

    @property
    def budget(self) -> float:
        return float(self.settings["server"]["shutdown_budget"])

    def setting(self, section: str, **values: Any) -> None:
        """Changes settings, as far as the daemon has them."""
        self._set(section, values)
        self.write_settings()

    def _set(self, section: str, values: dict[str, Any]) -> None:
        names = self._known.get(section, set())
        self.settings.setdefault(section, {}).update({key: value for key, value in values.items() if key in names})

    def write_settings(self) -> None:
        lines = []
        for section, values in self.settings.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        self._replace("bridged.toml", "\n".join(lines) + "\n")

    def write_backends(self, backends: Iterable[tuple[str, str]], drained: Iterable[str] = ()) -> None:
        """`backends` are (name, url)."""
        drained = set(drained)
        tables = [
            f'[[backend]]\nname = "{name}"\nurl = "{url}"\n' + ("drain = true\n" if name in drained else "")
            for name, url in backends
        ]
        self._replace("backends.toml", "\n".join(tables))

    def write_workflow(self, alias: str, prefix: str = "made") -> None:
        """`prefix` is what its files on a PC begin with: a change that changes nothing for the client."""
        graph = {
            node: {**content, "inputs": {**content["inputs"], "filename_prefix": prefix}}
            if content["class_type"] == "SaveImage"
            else content
            for node, content in WORKFLOWS[alias].items()
        }
        part = self.workflows / f".{alias}.new"
        part.write_text(json.dumps(graph))
        part.replace(self.workflows / f"{alias}.json")

    def write_aliases(self, description: str) -> None:
        entries = [{"alias": alias, "fn": f"{alias}.json", "description": description} for alias in WORKFLOWS]
        self._replace("workflow_alias.json", json.dumps(entries))

    def spoil(self, name: str, text: str) -> None:
        """An operator's mistake: not even the file is replaced in one piece."""
        (self.etc / name).write_text(text)

    def _replace(self, name: str, text: str) -> None:
        part = self.etc / f".{name}.new"
        part.write_text(text)
        part.replace(self.etc / name)


def known_settings(source: Path) -> dict[str, set[str]]:
    """The settings that the daemon of a checkout has: section -> names."""
    done = subprocess.run([sys.executable, "-c", ASK], cwd=source, capture_output=True, check=True, text=True)
    return {section: set(names) for section, names in json.loads(done.stdout).items()}
