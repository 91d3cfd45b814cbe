"""What was acknowledged, what was seen of it, and what of that may not be."""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import trio

TERMINAL = frozenset({"succeeded", "failed", "cancelled", "expired", "lost"})
STATES = TERMINAL | {"queued", "placed", "running"}


@dataclass(eq=False)
class Work:
    """One thing that a client wants done: a submission, repeated under the same key until it is acknowledged."""

    value: int
    client: str
    alias: str
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    job_id: str | None = None
    states: list[str] = field(default_factory=list)
    percent: tuple[int, float] = (0, 0.0)  # (life of the daemon, the highest that was seen in it)
    ended: trio.Event = field(default_factory=trio.Event)
    delivered: bool = False  # its result was fetched, whole and right
    may_cancel: bool = False  # its client took it back or left
    broken_fetches: int = 0
    record: dict[str, Any] | None = None  # the last word of /jobs/{job_id}

    @property
    def terminal(self) -> str | None:
        return self.states[-1] if self.states and self.states[-1] in TERMINAL else None

    def __str__(self) -> str:
        return f"job {self.job_id} (value {self.value}, {self.alias}, client {self.client})"


class Book:
    """All works of one run, and everything that was wrong."""

    def __init__(self, first_value: int) -> None:
        self.works: list[Work] = []
        self.violations: list[str] = []
        self.faults: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self._next = first_value

    def new(self, client: str, alias: str) -> Work:
        work = Work(self._next, client, alias)
        self._next += 1
        self.works.append(work)
        return work

    @property
    def acknowledged(self) -> list[Work]:
        return [work for work in self.works if work.job_id is not None]

    def violation(self, text: str) -> None:
        if text not in self.violations:
            self.violations.append(text)

    def fault(self, name: str) -> None:
        """One more fault was injected."""
        self.faults[name] += 1

    def note(self, name: str) -> None:
        """Something worth a number in the report, and no violation."""
        self.notes[name] += 1

    def acknowledge(self, work: Work, job_id: str) -> None:
        if work.job_id not in (None, job_id):
            self.violation(f"{work}: the same Idempotency-Key gave a second job, {job_id}")
        work.job_id = job_id

    def saw(self, work: Work, job: dict[str, Any], life: int) -> None:
        """One look at a job; looks at one job come in their order."""
        state = str(job["state"])
        before = work.states[-1] if work.states else None
        if state not in STATES:
            self.violation(f"{work} is in a state that nobody knows: {state!r}")
        if work.terminal is not None and state != work.terminal:
            self.violation(f"{work} had ended as {work.terminal}, and then was {state}")
        if state != before:
            work.states.append(state)
        self.progress(work, float(job.get("percent") or 0.0), life)
        work.record = job
        if state in TERMINAL:
            work.ended.set()

    def progress(self, work: Work, percent: float, life: int) -> None:
        """Percentages never fall while one daemon lives; that a new one begins lower is noted."""
        seen_in, highest = work.percent
        if percent < highest and life == seen_in:
            self.violation(f"{work} fell from {highest}% to {percent}%")
        elif percent < highest and work.terminal is not None:
            self.violation(f"{work} was at {highest}% when it {work.terminal}, and at {percent}% after a restart")
        elif percent < highest:
            self.note("percent lower after a restart")
        work.percent = (life, percent if life != seen_in else max(percent, highest))

    def gone(self, work: Work, where: str) -> None:
        self.violation(f"{work} was acknowledged, and {where} does not know it")
