"""Effects that only write down what the dispatcher causes, and what each backend would hold because of it.

`calls` is the order of everything. `Pool` builds a dispatcher over it with a clock that moves when it is told to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from bridged.actors.books import JobRecord
from bridged.actors.dispatcher import Dispatcher
from bridged.model import Attempt, Failure, Fault, Job, JobEvent, JobState, Output, Results, StoredFile
from bridged.store.ledger import Change, JobStarted

CLASSES = frozenset({"LoadImage", "SaveImage"})


class RecordedEffects:
    """`calls`: ("start" | "cancel" | "withdraw" | "publish" | "count", prompt_id or job_id, detail)."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str]] = []
        self.attempts: list[Attempt] = []
        """every attempt that was ever started, in order"""
        self.events: list[JobEvent] = []
        self.cancelled: list[str] = []
        self.withdrawn: list[str] = []
        self.counted: list[str] = []
        self.changes: list[Change] = []

    def start(self, job: Job, attempt: Attempt) -> None:
        assert attempt.job_id == job.id
        self.calls.append(("start", attempt.prompt_id, attempt.backend))
        self.attempts.append(attempt)

    def cancel(self, attempt: Attempt) -> None:
        self.calls.append(("cancel", attempt.prompt_id, attempt.backend))
        self.cancelled.append(attempt.prompt_id)

    def withdraw(self, attempt: Attempt) -> None:
        self.calls.append(("withdraw", attempt.prompt_id, attempt.backend))
        self.withdrawn.append(attempt.prompt_id)

    def publish(self, event: JobEvent) -> None:
        self.calls.append(("publish", event.job_id, event.state.value))
        self.events.append(event)

    def adopt(self, job: Job, attempt: Attempt, *, wanted: bool) -> None:
        self.calls.append(("adopt", attempt.prompt_id, "wanted" if wanted else "unwanted"))

    def fence(self, attempt: Attempt) -> None:
        self.calls.append(("fence", attempt.prompt_id, attempt.backend))

    def write(self, *changes: Change) -> None:
        self.changes += changes
        for change in changes:
            if isinstance(change, JobStarted):
                self.calls.append(("count", change.job_id, ""))
                self.counted.append(change.job_id)

    def of(self, job_id: str) -> list[JobEvent]:
        """What was published about a job."""
        return [event for event in self.events if event.job_id == job_id]

    def terminal(self, job_id: str) -> list[JobEvent]:
        return [event for event in self.of(job_id) if event.state.terminal]

    def placed(self) -> list[tuple[str, str]]:
        """(job_id, backend) of every start, in order."""
        return [(attempt.job_id, attempt.backend) for attempt in self.attempts]


class RecordedLedger:
    """A ledger for which everything is safe at once; `changes` is what it was told."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.now = clock
        self.generation_count = 0
        self.changes: list[Change] = []

    def write(self, *changes: Change) -> None:
        self.changes += changes

    def after_commit(self, call: Callable[[], object]) -> None:
        call()

    async def durable(self) -> None: ...

    async def committed(self) -> None: ...

    def refuse_if_full(self) -> None: ...


class Pool:
    """A dispatcher, its effects, and its clock: `now` is what the dispatcher believes."""

    def __init__(self, *, max_attempts: int = 3, prefetch: int = 1) -> None:
        self.now = 0.0
        self.effects = RecordedEffects()
        self.dispatcher = Dispatcher(self.effects, lambda: self.now, max_attempts=max_attempts, prefetch=prefetch)
        self._jobs = 0

    def backend(
        self,
        name: str,
        *,
        up: bool = True,
        classes: Iterable[str] = CLASSES,
        foreign: int = 0,
        max_running: int = 1,
        draining: bool = False,
    ) -> str:
        """Configures a backend and, unless told not to, brings it up."""
        self.dispatcher.on_backend_configured(name, max_running=max_running, draining=draining)
        if up:
            self.dispatcher.on_backend_up(name, frozenset(classes), foreign)
        return name

    def submit(self, *, client_id: str = "client", requires: Iterable[str] = CLASSES) -> str:
        """Submits a job named job-1, job-2, …; returns its id."""
        self._jobs += 1
        made = job(f"job-{self._jobs}", client_id=client_id, requires=requires)
        self.dispatcher.on_submitted(made)
        return made.id

    def record(self, job_id: str) -> JobRecord:
        return self.dispatcher.jobs[job_id]

    def state(self, job_id: str) -> JobState:
        return self.record(job_id).state

    def attempt(self, job_id: str) -> Attempt:
        """The attempt a job waits for now."""
        attempt = self.record(job_id).attempt
        assert attempt is not None, f"{job_id} is on no backend"
        return attempt

    def prompt(self, job_id: str) -> str:
        return self.attempt(job_id).prompt_id

    def where(self, job_id: str) -> str | None:
        attempt = self.record(job_id).attempt
        return attempt.backend if attempt else None

    def run(self, job_id: str) -> str:
        """Reports that the job's attempt has started; returns its prompt_id."""
        prompt_id = self.prompt(job_id)
        self.dispatcher.on_started(prompt_id)
        return prompt_id

    def finish(self, job_id: str) -> bool:
        return self.dispatcher.on_finished(self.prompt(job_id), Results(outputs(job_id)))

    def fail(self, job_id: str, fault: Fault, message: str = "broken") -> str:
        """Reports that the job's attempt failed; returns the prompt_id it had."""
        prompt_id = self.prompt(job_id)
        self.dispatcher.on_failed(prompt_id, Failure(fault, message))
        return prompt_id


def job(job_id: str, *, client_id: str = "client", requires: Iterable[str] = CLASSES) -> Job:
    return Job(
        id=job_id,
        client_id=client_id,
        alias="an-alias",
        graph={"1": {"class_type": "SaveImage", "inputs": {}}},
        files=(),
        requires=frozenset(requires),
        created_at=0.0,
    )


def outputs(job_id: str) -> tuple[Output, ...]:
    file = StoredFile(Path(f"/spool/{job_id}.file"), 3, "00", "image/png", ".png")
    return (Output(f"{job_id}-1.png", file),)
