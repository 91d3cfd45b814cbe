"""What the dispatcher keeps: a record per job, a state per backend, and what it causes.

Only the dispatcher changes any of it; others may look.
"""

from __future__ import annotations

import math
from typing import Protocol

from bridged.model import (
    Attempt,
    AttemptLog,
    BackendSnapshot,
    Failure,
    Job,
    JobEvent,
    JobState,
    Output,
)
from bridged.store.ledger import Change, JobFacts


class Effects(Protocol):
    """What the dispatcher causes. All are immediate and must not fail."""

    def start(self, job: Job, attempt: Attempt) -> None:
        """Run this attempt on its backend."""

    def adopt(self, job: Job, attempt: Attempt, *, wanted: bool) -> None:
        """An earlier run of the service began this attempt: find out what became of it, and go on from there; not
        `wanted`: see that it does not go on."""

    def fence(self, attempt: Attempt) -> None:
        """That attempt was given up in an earlier run: should it turn up on its backend, it must not go on."""

    def cancel(self, attempt: Attempt) -> None:
        """Work towards this attempt not running, until the backend confirms it (`on_cancelled`)."""

    def withdraw(self, attempt: Attempt) -> None:
        """Take it back if it has not started (`on_withdrawn`), else leave it alone (`on_withdraw_refused`)."""

    def write(self, *changes: Change) -> None:
        """Write this down in the ledger, in this order."""

    def publish(self, event: JobEvent) -> None:
        """Tell whoever follows the job; of its end only once that is safe in the ledger."""


class JobRecord:
    """One job and its fate so far. Only the dispatcher changes it; `facts` is what the ledger has of it."""

    def __init__(self, job: Job, facts: JobFacts = JobFacts()) -> None:  # noqa: B008 - it is frozen
        self.job = job
        self.facts = facts
        self.percent = 0.0
        self.written_percent = 0.0
        self.end_is_known = False
        """its end is safe in the ledger, and its client was told"""
        self.attempt: Attempt | None = None
        self.log: dict[str, AttemptLog] = {}
        """prompt_id -> how that attempt went, in the order of the attempts"""

    @property
    def state(self) -> JobState:
        return self.facts.state

    @property
    def shown_state(self) -> JobState:
        """What anybody may be told: an end only once it is known."""
        return JobState.RUNNING if self.state.terminal and not self.end_is_known else self.state

    @property
    def failure(self) -> Failure | None:
        return self.facts.failure

    @property
    def outputs(self) -> tuple[Output, ...]:
        return self.facts.outputs

    @property
    def stored(self) -> tuple[Output, ...]:
        """The outputs that can be fetched."""
        return () if self.facts.outputs_gone else self.facts.outputs

    @property
    def ended_at(self) -> float | None:
        return self.facts.ended_at

    @property
    def attempts(self) -> int:
        return self.facts.attempts

    @property
    def excluded(self) -> frozenset[str]:
        return self.facts.excluded

    def event(self) -> JobEvent:
        """What it is now, as sessions are told."""
        return JobEvent(
            job_id=self.job.id,
            client_id=self.job.client_id,
            state=self.state,
            percent=self.percent,
            failure=self.failure,
            outputs=self.outputs,
        )


class OnBackend:
    """An attempt as its backend's slot sees it."""

    def __init__(self, attempt: Attempt, record: JobRecord, *, started: bool = False) -> None:
        self.attempt = attempt
        self.record = record
        self.started = started
        self.adopted = False
        """an earlier run of the service began it"""
        self.started_at: float | None = None
        """when, where this run of the service saw it start"""
        self.leaving = False
        """a cancel or withdrawal is under way"""
        self.collecting = False
        """it has left the backend's queue; its outputs are being fetched and it fills no place any more"""


class BackendState:
    def __init__(self, name: str, max_running: int, draining: bool, now: float) -> None:
        self.name = name
        self.max_running = max_running
        self.draining = draining
        self.moving = False
        self.paused = False
        """by its owner"""
        self.up = False
        self.reason = "not connected yet"
        self.classes: frozenset[str] | None = None
        self.foreign = 0
        self.attempts: dict[str, OnBackend] = {}
        self.idle_since = -math.inf
        """a PC that was just added has been idle longest: the next job shows its operator that it works"""
        self.completed = 0

    def filling(self) -> list[OnBackend]:
        return [entry for entry in self.attempts.values() if not entry.collecting]

    def snapshot(self, prefetch: int) -> BackendSnapshot:
        return BackendSnapshot(
            name=self.name,
            up=self.up,
            draining=self.draining,
            classes=self.classes,
            foreign=self.foreign,
            load=len(self.filling()),
            max_running=self.max_running,
            capacity=self.max_running + prefetch,
            idle_since=self.idle_since,
            moving=self.moving,
            paused=self.paused,
        )
