"""The synchronous core: what every job's state is, and what happens next.

No method awaits, so each is atomic and nothing needs a lock. Everything it causes leaves through `Effects`; what
reaches it comes as `on_*` calls. An effect must not call back into the dispatcher before it returns.
"""

from __future__ import annotations

import logging
import math
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import msgspec

from bridged.errors import NoBackendCanRun, Stopping
from bridged.model import (
    Attempt,
    BackendSnapshot,
    Failure,
    Fault,
    Job,
    JobEvent,
    JobState,
    Output,
)
from bridged.placement.capability import obstacles
from bridged.placement.policy import Prefetched, Waiting, decide

log = logging.getLogger(__name__)


class Effects(Protocol):
    """What the dispatcher causes. All are immediate and must not fail."""

    def start(self, job: Job, attempt: Attempt) -> None:
        """Run this attempt on its backend."""

    def cancel(self, attempt: Attempt) -> None:
        """Work towards this attempt not running, until the backend confirms it (`on_cancelled`)."""

    def withdraw(self, attempt: Attempt) -> None:
        """Take it back if it has not started (`on_withdrawn`), else leave it alone (`on_withdraw_refused`)."""

    def publish(self, event: JobEvent) -> None:
        """Tell whoever follows the job."""

    def count_started(self, job: Job) -> None:
        """A job started for the first time (the generation count)."""


class JobRecord:
    """One job and its fate so far. Only the dispatcher changes it."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.state = JobState.QUEUED
        self.percent = 0.0
        self.attempt: Attempt | None = None
        self.attempts = 0
        self.excluded: frozenset[str] = frozenset()
        self.failure: Failure | None = None
        self.outputs: tuple[Output, ...] = ()
        self.ended_at: float | None = None
        self.was_started = False


class _OnBackend:
    """An attempt as its backend's slot sees it."""

    def __init__(self, attempt: Attempt, record: JobRecord) -> None:
        self.attempt = attempt
        self.record = record
        self.started = False
        self.leaving = False
        """a cancel or withdrawal is under way"""
        self.collecting = False
        """it has left the backend's queue; its outputs are being fetched and it fills no place any more"""


class _BackendState:
    def __init__(self, name: str, max_running: int, draining: bool, now: float) -> None:
        self.name = name
        self.max_running = max_running
        self.draining = draining
        self.moving = False
        self.up = False
        self.reason = "not connected yet"
        self.classes: frozenset[str] | None = None
        self.foreign = 0
        self.attempts: dict[str, _OnBackend] = {}
        self.idle_since = -math.inf
        """a PC that was just added has been idle longest: the next job shows its operator that it works"""
        self.completed = 0

    def filling(self) -> list[_OnBackend]:
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
        )


class Dispatcher:
    """`clock` gives seconds that never go back; `max_attempts` and `prefetch` are the jobs' settings."""

    def __init__(
        self, effects: Effects, clock: Callable[[], float], *, max_attempts: int = 3, prefetch: int = 1
    ) -> None:
        self._effects = effects
        self._clock = clock
        self.max_attempts = max_attempts
        self.prefetch = prefetch
        self.detached = False
        self.jobs: dict[str, JobRecord] = {}
        self._queue: OrderedDict[str, JobRecord] = OrderedDict()
        self._backends: dict[str, _BackendState] = {}
        self._on_backend: dict[str, tuple[_BackendState, _OnBackend]] = {}

    # -- what others may look at -------------------------------------------------------------------------------------

    def snapshots(self) -> list[BackendSnapshot]:
        return [backend.snapshot(self.prefetch) for backend in self._backends.values()]

    def backend_reason(self, name: str) -> str:
        """Why a backend is not up, for people; "" when it is."""
        backend = self._backends[name]
        return "" if backend.up else backend.reason

    def completed_on(self, name: str) -> int:
        return self._backends[name].completed

    def queued(self) -> int:
        return len(self._queue)

    def open_jobs(self) -> int:
        return len(self._queue) + sum(1 for _, entry in self._on_backend.values() if self._is_open(entry))

    def states(self) -> Counter[str]:
        """How many known jobs are in each state."""
        return Counter(record.state.value for record in self.jobs.values())

    def refuse_if_impossible(self, job: Job) -> None:
        """Raises NoBackendCanRun with the reason per backend; Stopping while the service stops."""
        if self.detached:
            raise Stopping("the service is stopping; submit again in a moment")
        reasons = obstacles(job.requires, self.snapshots())
        if reasons is not None:
            each = "; ".join(f"{name} {reason}" for name, reason in reasons.items()) or "no backend is configured"
            raise NoBackendCanRun(f"no backend can run {job.alias!r}: {each}")

    # -- jobs --------------------------------------------------------------------------------------------------------

    def on_submitted(self, job: Job) -> int:
        """Queues a job. Returns how many open jobs there are now, this one included."""
        record = JobRecord(job)
        self.jobs[job.id] = record
        self._queue[job.id] = record
        self._publish(record)
        position = self.open_jobs()
        self._schedule()
        return position

    def on_revoked(self, job_id: str, reason: str) -> bool:
        """The job is not wanted any more. True where that changed something. Nothing is revoked while stopping."""
        record = self.jobs.get(job_id)
        if record is None or record.state.terminal or self.detached:
            return False
        self._queue.pop(job_id, None)
        self._end(record, JobState.CANCELLED, failure=Failure(Fault.CLIENT, reason))
        if record.attempt is not None:
            _, entry = self._on_backend[record.attempt.prompt_id]
            entry.leaving = True
            self._effects.cancel(record.attempt)
        self._schedule()
        return True

    def forget(self, job_id: str) -> JobRecord | None:
        """Drops an ended job (its results' time is over). None where it is unknown or still open."""
        record = self.jobs.get(job_id)
        if record is None or not record.state.terminal:
            return None
        return self.jobs.pop(job_id)

    def detach(self) -> None:
        """The service stops: nothing more is placed or revoked; what runs stays on its PC."""
        self.detached = True

    # -- backends ----------------------------------------------------------------------------------------------------

    def on_backend_configured(self, name: str, *, max_running: int, draining: bool, moving: bool = False) -> None:
        """It was added or its options changed. `draining`: it gets nothing new; `moving`: only until it has moved."""
        backend = self._backends.get(name)
        if backend is None:
            self._backends[name] = _BackendState(name, max_running, draining, self._clock())
        else:
            backend.max_running, backend.draining = max_running, draining
        self._backends[name].moving = moving
        self._withdraw_prefetched(self._backends[name], draining)
        self._schedule()

    def on_backend_removed(self, name: str) -> None:
        """It is gone for good; its attempts have all ended before."""
        self._backends.pop(name, None)
        self._fail_impossible()

    def on_backend_up(self, name: str, classes: frozenset[str], foreign: int) -> None:
        backend = self._backends[name]
        backend.up, backend.classes, backend.foreign = True, classes, foreign
        self._fail_impossible()
        self._schedule()

    def on_backend_down(self, name: str, reason: str) -> None:
        """It cannot be used now. Its attempts stay with it: its actor finds out what became of them."""
        backend = self._backends[name]
        backend.up, backend.reason = False, reason
        self._schedule()

    def on_load(self, name: str, foreign: int) -> None:
        """How many prompts of the owner's it has now."""
        backend = self._backends[name]
        if backend.foreign != foreign:
            backend.foreign = foreign
            self._schedule()

    # -- attempts ----------------------------------------------------------------------------------------------------

    def on_started(self, prompt_id: str) -> None:
        _, entry = self._on_backend.get(prompt_id, (None, None))
        if entry is None or entry.started:
            return
        entry.started = True
        record = entry.record
        if self._current(record, prompt_id):
            record.state = JobState.RUNNING
            self._count_started(record)
            self._publish(record)

    def on_progress(self, prompt_id: str, percent: float) -> None:
        """`percent` of this attempt; what clients see never falls, not even over a retry."""
        self.on_started(prompt_id)
        _, entry = self._on_backend.get(prompt_id, (None, None))
        if entry is not None and self._current(entry.record, prompt_id) and percent > entry.record.percent:
            entry.record.percent = percent
            self._publish(entry.record)

    def on_collecting(self, prompt_id: str) -> None:
        """The prompt has left its backend's queue: the place is free while the outputs are fetched."""
        backend, entry = self._on_backend.get(prompt_id, (None, None))
        if backend is not None and entry is not None and not entry.collecting:
            entry.collecting = True
            self._touch_idle(backend)
            self._schedule()

    def on_finished(self, prompt_id: str, outputs: tuple[Output, ...]) -> bool:
        """It succeeded. False where nobody wants the outputs any more: then their files are the caller's to remove."""
        entry = self._release(prompt_id)
        wanted = entry is not None and self._current(entry.record, prompt_id)
        if entry is not None and wanted:
            entry.record.percent = 100.0
            if backend := self._backends.get(entry.attempt.backend):
                backend.completed += 1
            self._end(entry.record, JobState.SUCCEEDED, outputs=outputs)
        self._schedule()
        return wanted

    def on_failed(self, prompt_id: str, failure: Failure) -> None:
        """It failed. Host and network faults are tried again elsewhere, the others end the job."""
        entry = self._release(prompt_id)
        if entry is not None and self._current(entry.record, prompt_id):
            self._retry_or_fail(entry.record, entry.attempt, failure)
        self._schedule()

    def on_cancelled(self, prompt_id: str) -> None:
        """The backend confirmed that it does not run (any more)."""
        entry = self._release(prompt_id)
        if entry is not None and self._current(entry.record, prompt_id):
            self._requeue(entry.record)  # nobody asked for that: it was withdrawn and cancelled at once
        self._schedule()

    def on_withdrawn(self, prompt_id: str) -> None:
        """A prefetched attempt was taken back before it started: the job goes to the head of the queue."""
        entry = self._release(prompt_id)
        if entry is not None and self._current(entry.record, prompt_id):
            entry.record.attempts -= 1
            self._requeue(entry.record)
        self._schedule()

    def on_withdraw_refused(self, prompt_id: str) -> None:
        """Too late, it has started: it stays."""
        _, entry = self._on_backend.get(prompt_id, (None, None))
        if entry is not None and not entry.record.state.terminal:
            entry.leaving = False

    # -- inside ------------------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if self.detached:
            return
        prefetched = list(self._prefetched())
        if not self._queue and not prefetched:
            return
        waiting = (Waiting(r.job.id, r.job.requires, r.excluded) for r in self._queue.values())
        decision = decide(waiting, prefetched, self.snapshots())
        for placement in decision.placements:
            self._place(self._queue.pop(placement.job_id), self._backends[placement.backend])
        for prompt_id in decision.withdrawals:
            _, entry = self._on_backend[prompt_id]
            entry.leaving = True
            self._effects.withdraw(entry.attempt)

    def _place(self, record: JobRecord, backend: _BackendState) -> None:
        record.attempts += 1
        attempt = Attempt(str(uuid.uuid4()), record.job.id, backend.name, record.attempts)
        entry = _OnBackend(attempt, record)
        record.attempt, record.state = attempt, JobState.PLACED
        backend.attempts[attempt.prompt_id] = entry
        self._on_backend[attempt.prompt_id] = (backend, entry)
        self._publish(record)
        self._effects.start(record.job, attempt)

    def _prefetched(self) -> Iterator[Prefetched]:
        for backend in self._backends.values():
            filling = backend.filling()
            first = backend.max_running if backend.foreign == 0 else 0
            for position, entry in enumerate(filling):
                record = entry.record
                # One that is being taken back wants a place elsewhere; a revoked one wants none.
                leaves = entry.leaving and not record.state.terminal
                if leaves or (position >= first and not entry.started and not entry.leaving):
                    yield Prefetched(
                        entry.attempt.prompt_id, backend.name, record.job.requires, record.excluded, entry.leaving
                    )

    def _withdraw_prefetched(self, backend: _BackendState, draining: bool) -> None:
        for entry in backend.filling() if draining and not self.detached else ():
            if not entry.started and not entry.leaving:
                entry.leaving = True
                self._effects.withdraw(entry.attempt)

    def _release(self, prompt_id: str) -> _OnBackend | None:
        backend, entry = self._on_backend.pop(prompt_id, (None, None))
        if backend is None or entry is None:
            return None
        del backend.attempts[prompt_id]
        self._touch_idle(backend)
        return entry

    def _touch_idle(self, backend: _BackendState) -> None:
        if not backend.filling():
            backend.idle_since = self._clock()

    def _retry_or_fail(self, record: JobRecord, attempt: Attempt, failure: Failure) -> None:
        where = f"on {attempt.backend}: {failure.message}"
        retriable = failure.fault in (Fault.HOST, Fault.NETWORK) and not self.detached
        if not retriable or record.attempts >= self.max_attempts:
            self._end(record, JobState.FAILED, failure=Failure(failure.fault, where))
            return
        if failure.fault is Fault.HOST:
            record.excluded |= {attempt.backend}  # never twice on a host that was at fault; a network may be back
        others = [s for s in self.snapshots() if s.name not in record.excluded]
        if obstacles(record.job.requires, others) is not None:
            self._end(record, JobState.FAILED, failure=Failure(failure.fault, f"{where}; no other backend can run it"))
            return
        log.warning("job %s failed %s; it is tried elsewhere", record.job.id, where)
        record.failure = Failure(failure.fault, where)
        self._requeue(record)

    def _requeue(self, record: JobRecord) -> None:
        record.state, record.attempt = JobState.QUEUED, None
        self._queue[record.job.id] = record
        self._queue.move_to_end(record.job.id, last=False)
        self._publish(record)

    def _fail_impossible(self) -> None:
        """Ends queued jobs that what is now known of the pool rules out: they would wait for ever."""
        for record in list(self._queue.values()):
            # A drain is an operator's passing wish: what waits already may wait for its end.
            others: Iterable[BackendSnapshot] = (
                msgspec.structs.replace(s, draining=False) for s in self.snapshots() if s.name not in record.excluded
            )
            reasons = obstacles(record.job.requires, others)
            # With no backend at all it waits for the next; one that failed on all there are has waited enough.
            if reasons or (reasons is not None and record.failure is not None):
                del self._queue[record.job.id]
                each = "; ".join(f"{name} {reason}" for name, reason in reasons.items())
                message = f"no backend can run {record.job.alias!r} any more: {each}"
                self._end(record, JobState.FAILED, failure=record.failure or Failure(Fault.POLICY, message))

    def _end(
        self,
        record: JobRecord,
        state: JobState,
        *,
        failure: Failure | None = None,
        outputs: tuple[Output, ...] = (),
    ) -> None:
        if state is JobState.SUCCEEDED:
            self._count_started(record)
        record.state, record.failure, record.outputs = state, failure, outputs
        record.ended_at = self._clock()
        # It is kept for its result's time, without what it was made of.
        record.job = msgspec.structs.replace(record.job, graph={}, files=())
        self._publish(record)

    def _count_started(self, record: JobRecord) -> None:
        if not record.was_started:
            record.was_started = True
            self._effects.count_started(record.job)

    def _current(self, record: JobRecord, prompt_id: str) -> bool:
        """Whether that prompt is what the job is waiting for: a late report of another attempt changes nothing."""
        return not record.state.terminal and record.attempt is not None and record.attempt.prompt_id == prompt_id

    def _is_open(self, entry: _OnBackend) -> bool:
        return self._current(entry.record, entry.attempt.prompt_id)

    def _publish(self, record: JobRecord) -> None:
        self._effects.publish(
            JobEvent(
                job_id=record.job.id,
                client_id=record.job.client_id,
                state=record.state,
                percent=record.percent,
                failure=record.failure,
                outputs=record.outputs,
            )
        )
