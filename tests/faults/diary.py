"""What the PCs wrote down: which prompt ran when, for which job, and in which of the PC's lives."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(eq=False)
class Prompt:
    """One prompt on one PC, queued `at` (s, the monotonic clock of the machine). `killed`: the PC died while it was
    open."""

    prompt_id: str
    pc: str
    value: int
    owner: bool
    life: int
    at: float
    states: list[str] = field(default_factory=list)
    killed: bool = False

    @property
    def started(self) -> bool:
        return "running" in self.states

    @property
    def open(self) -> bool:
        return self.states[-1] in ("queued", "running") and not self.killed


class Diaries:
    """All PCs' diaries, read anew."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.prompts: list[Prompt] = []
        self.violations: list[str] = []
        self.lives: dict[str, int] = {}
        for path in paths:
            if path.exists():
                self._read(path)

    def by_value(self) -> dict[int, list[Prompt]]:
        """The daemon's prompts, by the value of the job they are for, in the order in which they were queued."""
        found: defaultdict[int, list[Prompt]] = defaultdict(list)
        for prompt in sorted(self.prompts, key=lambda prompt: prompt.at):
            if not prompt.owner:
                found[prompt.value].append(prompt)
        return found

    def owners(self) -> list[Prompt]:
        return [prompt for prompt in self.prompts if prompt.owner]

    def _read(self, path: Path) -> None:
        known: dict[str, Prompt] = {}
        life = 0
        for line in path.read_bytes().splitlines():
            entry = json.loads(line)
            match entry["event"]:
                case "boot":
                    life += 1
                    for prompt in known.values():
                        prompt.killed |= prompt.open
                    self.lives[entry["pc"]] = life
                case "violation":
                    self.violations.append(f"{entry['pc']}: {entry['text']}")
                case "queued":
                    prompt_id = entry["prompt"]
                    if prompt_id in known and known[prompt_id].life == life:
                        self.violations.append(f"{entry['pc']}: prompt {prompt_id} was posted twice")
                    whose = (entry["pc"], entry["value"], entry["owner"])
                    known[prompt_id] = Prompt(prompt_id, *whose, life, entry["at"], ["queued"])
                    self.prompts.append(known[prompt_id])
                case state:
                    known[entry["prompt"]].states.append(state)
