"""The synchronous core: what every job's state is, and what happens next.

No method awaits, so each is atomic and nothing needs a lock. Everything it causes leaves through `Effects`; what
reaches it comes as `on_*` calls. An effect must not call back into the dispatcher before it returns.
"""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from msgspec.structs import replace

from bridged.actors.announcement import announcement
from bridged.actors.books import BackendState, Effects, JobRecord, OnBackend
from bridged.actors.verdict import Failed, judge
from bridged.errors import NoBackendCanRun, Stopping
from bridged.model import (
    Attempt,
    AttemptLog,
    AttemptState,
    BackendSnapshot,
    Failure,
    Fault,
    Job,
    JobState,
    Results,
)
from bridged.placement.capability import can_run, obstacles
from bridged.placement.fairness import FairQueue
from bridged.placement.policy import Prefetched, Waiting, decide
from bridged.store.ledger import (
    AttemptMoved,
    Change,
    JobAdded,
    JobFacts,
    JobsForgotten,
    JobStarted,
    ProgressSeen,
    SavedJob,
    ended,
    moved,
)

log = logging.getLogger(__name__)

SETTLING = 30.0
"""seconds after the start in which backends that were not seen yet may still come"""

LEARNING = 0.2
"""how much the newest run of a workflow counts in what it is expected to take"""

TOO_LARGE_FOR = 3600.0
"""seconds that an alias avoids a backend on which it ran out of memory"""

PERCENT_STEP = 5.0
"""percentages are written down in steps: after a restart a client is told at most this much less than before"""


class Dispatcher:
    """`clock` gives seconds that never go back; `max_attempts` and `prefetch` are the jobs' settings."""

    def __init__(
        self, effects: Effects, clock: Callable[[], float], *, max_attempts: int = 3, prefetch: int = 1
    ) -> None:
        self._effects = effects
        self._clock = clock
        self.max_attempts = max_attempts
        self.prefetch = prefetch
        self._began = clock()
        self._durations: dict[str, float] = {}
        """alias -> seconds that it took lately from its start to its end"""
        self._too_large: dict[tuple[str, str], float] = {}
        """(backend, alias) -> when it ran out of memory there"""
        self.detached = False
        self.suspended = False
        """most backends went away at once: then it is our network, and no job is blamed for it"""
        self.jobs: dict[str, JobRecord] = {}
        self._queue: FairQueue[JobRecord] = FairQueue()
        self._backends: dict[str, BackendState] = {}
        self._on_backend: dict[str, tuple[BackendState, OnBackend]] = {}

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

    def is_full_for(self, owner: str, most: int) -> bool:
        """Whether `most` jobs wait. An owner with less than its share of them may still add one, up to a tenth more in
        all: one who fills the queue shuts nobody else out."""
        waiting = len(self._queue)
        if waiting < most:
            return False
        mine = self._queue.of_owner(owner)
        return waiting >= most * 1.1 or mine >= most / (self._queue.owners() + (not mine))

    def open_jobs_of(self, owner: str) -> int:
        on_backends = sum(1 for _, e in self._on_backend.values() if self._is_open(e) and e.record.job.owner == owner)
        return self._queue.of_owner(owner) + on_backends

    def states(self) -> Counter[str]:
        """How many known jobs are in each state."""
        return Counter(record.state.value for record in self.jobs.values())

    def position(self, job_id: str) -> int | None:
        """Its place in the queue, 1 for the next; None where it is not queued."""
        return next((place for place, record in enumerate(self._queue, 1) if record.job.id == job_id), None)

    def outlook(self) -> dict[str, tuple[int, float | None]]:
        """Of every queued job its place in the queue, 1 for the next, and in how many seconds it may have ended: by
        what its workflow and those before it took lately, None where that is not known. One pass over the queue."""
        places = sum(backend.max_running for backend in self._backends.values() if backend.up)
        open_ = [entry.record for _, entry in self._on_backend.values() if self._is_open(entry)]
        work: float | None = 0.0
        for record in open_:
            took = self._durations.get(record.job.alias)
            work = None if work is None or took is None else work + took
        found: dict[str, tuple[int, float | None]] = {}
        for place, record in enumerate(self._queue, 1):
            own = self._durations.get(record.job.alias)
            known = work is not None and own is not None and places
            found[record.job.id] = place, round((work or 0.0) / places + (own or 0.0), 1) if known else None
            work = None if work is None or own is None else work + own
        return found

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
        self._queue.add(job.id, record, job.owner, job.weight)
        self._effects.write(JobAdded(job))
        self._publish(record)
        position = self.open_jobs()
        self._schedule()
        return position

    def on_revoked(
        self, job_id: str, reason: str, state: JobState = JobState.CANCELLED, *, announced: bool = True
    ) -> bool:
        """The job is not wanted any more. True where that changed something. Nothing is revoked while stopping. With
        `announced` False its webhook is told nothing: whoever submitted it was told that there is no job."""
        record = self.jobs.get(job_id)
        if record is None or record.state.terminal or self.detached:
            return False
        self._queue.discard(job_id)
        facts = replace(record.facts, state=state, failure=Failure(Fault.CLIENT, reason))
        self._end(record, facts, announced=announced)
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
        if all(entry.state.terminal for entry in record.log.values()):
            self._effects.write(JobsForgotten((job_id,)))  # else once the last attempt is confirmed to have ended
        return self.jobs.pop(job_id)

    def drop_outputs(self, job_id: str) -> None:
        """The files of an ended job are removed before its time; what became of it stays known."""
        record = self.jobs[job_id]
        facts = replace(record.facts, outputs_gone=True)
        self._effects.write(moved(job_id, record.facts, facts))
        record.facts = facts

    def restore(self, saved: Iterable[SavedJob]) -> None:
        """Takes up what an earlier run left, in the order of submission; the backends are configured already.

        An attempt that had not ended is looked up on its backend: for its job, or, where the job is over, so that it
        does not go on for nobody. One whose backend is not there any more (the embedded worker ends with the service)
        is lost.
        """
        for each in saved:
            record = self.jobs[each.job.id] = JobRecord(each.job, each.facts)
            record.percent = 100.0 if record.state is JobState.SUCCEEDED else each.percent
            record.written_percent = record.percent
            record.log = {entry.attempt.prompt_id: entry for entry in each.attempts}
            for entry in each.attempts:
                if not entry.state.terminal:
                    self._restore_attempt(record, entry)
                elif entry.state is AttemptState.LOST and entry.attempt.backend in self._backends:
                    self._effects.fence(entry.attempt)
            if not record.state.terminal and record.attempt is None:
                if record.state is not JobState.QUEUED:
                    facts = replace(record.facts, state=JobState.QUEUED, reruns=record.facts.reruns + 1, prompt_id=None)
                    self._move(record, facts)
                self._queue.add(record.job.id, record, record.job.owner, record.job.weight)
        self._schedule()

    def _restore_attempt(self, record: JobRecord, entry: AttemptLog) -> None:
        attempt = entry.attempt
        backend = self._backends.get(attempt.backend)
        if backend is None:
            self._log_attempt(record, attempt.prompt_id, AttemptState.LOST, "it ended with the service, or its PC left")
            return
        wanted = not record.state.terminal and record.facts.prompt_id == attempt.prompt_id
        place = OnBackend(attempt, record, started=entry.state is AttemptState.RUNNING)
        place.leaving, place.adopted = not wanted, True
        backend.attempts[attempt.prompt_id] = place
        self._on_backend[attempt.prompt_id] = (backend, place)
        self._effects.adopt(record.job, attempt, wanted=wanted)
        if wanted:
            record.attempt = attempt

    def detach(self) -> None:
        """The service stops: nothing more is placed or revoked; what runs stays on its PC."""
        for record in self.jobs.values():
            if not record.state.terminal and record.percent > record.written_percent:
                self._effects.write(ProgressSeen(record.job.id, record.percent))
        self.detached = True

    # -- backends ----------------------------------------------------------------------------------------------------

    def on_backend_configured(self, name: str, *, max_running: int, draining: bool, moving: bool = False) -> None:
        """It was added or its options changed. `draining`: it gets nothing new; `moving`: only until it has moved."""
        backend = self._backends.get(name)
        if backend is None:
            self._backends[name] = BackendState(name, max_running, draining, self._clock())
        else:
            backend.max_running, backend.draining = max_running, draining
        self._backends[name].moving = moving
        self._withdraw_prefetched(self._backends[name])
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
        self._fail_impossible()
        self._schedule()

    def on_lending(self, name: str, paused: bool) -> None:
        """Its owner lends it, or has paused it: then it gets nothing new, and what has not begun is taken back. A job
        that only it can run waits."""
        backend = self._backends[name]
        if backend.paused != paused:
            backend.paused = paused
            self._withdraw_prefetched(backend)
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
        entry.started, entry.started_at = True, self._clock()
        record = entry.record
        self._log_attempt(record, prompt_id, AttemptState.RUNNING)
        if self._current(record, prompt_id):
            self._count_started(record)
            self._move(record, replace(record.facts, state=JobState.RUNNING, was_started=True))

    def on_progress(self, prompt_id: str, percent: float) -> None:
        """`percent` of this attempt; what clients see never falls, not even over a retry."""
        self.on_started(prompt_id)
        _, entry = self._on_backend.get(prompt_id, (None, None))
        if entry is not None and self._current(entry.record, prompt_id) and percent > entry.record.percent:
            record = entry.record
            record.percent = percent
            if percent - record.written_percent >= PERCENT_STEP:
                record.written_percent = percent
                self._effects.write(ProgressSeen(record.job.id, percent))
            self._publish(record)

    def on_collecting(self, prompt_id: str) -> None:
        """The prompt has left its backend's queue: the place is free while the outputs are fetched."""
        backend, entry = self._on_backend.get(prompt_id, (None, None))
        if backend is not None and entry is not None and not entry.collecting:
            entry.collecting = True
            self._touch_idle(backend)
            self._schedule()

    def on_finished(self, prompt_id: str, results: Results) -> bool:
        """It succeeded. False where nobody wants the outputs any more: then their files are the caller's to remove."""
        entry = self._release(prompt_id)
        wanted = entry is not None and self._current(entry.record, prompt_id)
        if entry is not None and wanted:
            entry.record.percent = 100.0
            if backend := self._backends.get(entry.attempt.backend):
                backend.completed += 1
            self._log_attempt(entry.record, prompt_id, AttemptState.SUCCEEDED)
            self._learn(entry)
            self._count_started(entry.record)
            facts = replace(
                entry.record.facts,
                outputs=results.outputs,
                refused=results.refused,
                failure=None,
                was_started=True,
            )
            self._end(entry.record, replace(facts, state=JobState.SUCCEEDED))
        elif entry is not None:
            self._log_attempt(entry.record, prompt_id, AttemptState.CANCELLED, "its job was over already")
        self._schedule()
        return wanted

    def _learn(self, entry: OnBackend) -> None:
        if entry.started_at is not None:
            alias, took = entry.record.job.alias, self._clock() - entry.started_at
            before = self._durations.get(alias, took)
            self._durations[alias] = before + LEARNING * (took - before)

    def on_failed(self, prompt_id: str, failure: Failure, *, lost: bool = False, down: bool = False) -> None:
        """It failed; `verdict.judge` says what that means for its job. `lost`: nobody knows whether it ran to its end;
        `down`: its backend went away with it."""
        entry = self._release(prompt_id)
        if entry is not None:
            record, backend = entry.record, entry.attempt.backend
            state = AttemptState.LOST if lost else AttemptState.FAILED
            self._log_attempt(record, prompt_id, state, failure.message)
            if self._current(record, prompt_id):
                failed = Failed(backend, failure, started=entry.started, lost=lost, down=down and not self.suspended)
                before = record.facts
                if entry.adopted and not entry.started:  # as far as anybody knows it never ran
                    before = replace(before, attempts=before.attempts - 1)
                facts = judge(record.job, before, failed, self.snapshots(), max_attempts=self.max_attempts)
                if facts.state.terminal:
                    self._end(record, facts)
                else:
                    log.warning("job %s failed on %s: %s; it is tried again", record.job.id, backend, failure.message)
                    self._requeue(record, facts)
        self._schedule()

    def on_excused(self, prompt_id: str, reason: str) -> None:
        """Its PC's patch ended it, for its owner or because we were away: nobody's fault, and no try less."""
        entry = self._release(prompt_id)
        if entry is not None:
            record, backend = entry.record, entry.attempt.backend
            self._log_attempt(record, prompt_id, AttemptState.WITHDRAWN, reason)
            if self._current(record, prompt_id):
                failed = Failed(backend, Failure(Fault.HOST, reason), started=entry.started, excused=True)
                facts = judge(record.job, record.facts, failed, self.snapshots(), max_attempts=self.max_attempts)
                if facts.state.terminal:
                    self._end(record, facts)
                else:
                    self._requeue(record, facts)
        self._schedule()

    def on_out_of_memory(self, backend: str, alias: str) -> None:
        """That workflow was too large for that backend: for a while it goes there only where nobody else has it."""
        self._too_large[backend, alias] = self._clock()

    def _avoided(self, alias: str) -> frozenset[str]:
        if not self._too_large:
            return frozenset()
        since = self._clock() - TOO_LARGE_FOR
        self._too_large = {key: at for key, at in self._too_large.items() if at > since}
        return frozenset(backend for backend, large in self._too_large if large == alias)

    def on_cancelled(self, prompt_id: str) -> None:
        """The backend confirmed that it does not run (any more)."""
        self._take_back(prompt_id, AttemptState.CANCELLED)

    def on_withdrawn(self, prompt_id: str) -> None:
        """A prefetched attempt was taken back before it started: the job goes to the head of the queue."""
        self._take_back(prompt_id, AttemptState.WITHDRAWN)

    def _take_back(self, prompt_id: str, state: AttemptState) -> None:
        entry = self._release(prompt_id)
        if entry is not None:
            record = entry.record
            reason = "it was cancelled there" if state is AttemptState.CANCELLED else "it was taken back unstarted"
            self._log_attempt(record, prompt_id, state, reason)
            if self._current(record, prompt_id):
                withdrawn = state is AttemptState.WITHDRAWN
                self._requeue(record, replace(record.facts, attempts=record.attempts - withdrawn))
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
        waiting = (
            Waiting(r.job.id, r.job.requires, r.excluded, self._avoided(r.job.alias)) for r in self._queue
        )
        decision = decide(waiting, prefetched, self.snapshots())
        for placement in decision.placements:
            self._place(self._queue.take(placement.job_id), self._backends[placement.backend])
        for prompt_id in decision.withdrawals:
            _, entry = self._on_backend[prompt_id]
            entry.leaving = True
            self._effects.withdraw(entry.attempt)

    def _place(self, record: JobRecord, backend: BackendState) -> None:
        attempt = Attempt(str(uuid.uuid4()), record.job.id, backend.name, len(record.log) + 1)
        entry = OnBackend(attempt, record)
        record.attempt = attempt
        backend.attempts[attempt.prompt_id] = entry
        self._on_backend[attempt.prompt_id] = (backend, entry)
        record.log[attempt.prompt_id] = AttemptLog(attempt, AttemptState.PLACED, self._clock())
        self._effects.write(AttemptMoved(record.log[attempt.prompt_id]))
        placed = replace(
            record.facts, state=JobState.PLACED, prompt_id=attempt.prompt_id, attempts=record.attempts + 1
        )
        self._move(record, placed)
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
                        entry.attempt.prompt_id,
                        backend.name,
                        record.job.requires,
                        record.excluded | self._avoided(record.job.alias),
                        entry.leaving,
                    )

    def _withdraw_prefetched(self, backend: BackendState) -> None:
        """Where it is to get nothing new."""
        for entry in backend.filling() if (backend.draining or backend.paused) and not self.detached else ():
            if not entry.started and not entry.leaving:
                entry.leaving = True
                self._effects.withdraw(entry.attempt)

    def _release(self, prompt_id: str) -> OnBackend | None:
        backend, entry = self._on_backend.pop(prompt_id, (None, None))
        if backend is None or entry is None:
            return None
        del backend.attempts[prompt_id]
        self._touch_idle(backend)
        return entry

    def _touch_idle(self, backend: BackendState) -> None:
        if not backend.filling():
            backend.idle_since = self._clock()

    def _requeue(self, record: JobRecord, facts: JobFacts) -> None:
        record.attempt = None
        self._queue.put_back(record.job.id, record, record.job.owner)
        self._move(record, replace(facts, state=JobState.QUEUED, prompt_id=None))

    def _fail_impossible(self) -> None:
        """Ends queued jobs that what is now known of the pool rules out: they would wait for ever."""
        if self.detached:
            return
        snapshots = self.snapshots()
        settling = self._clock() - self._began < SETTLING
        for record in list(self._queue):
            # A drain is an operator's passing wish, a pause an owner's: what waits already may wait for its end.
            others = [replace(s, draining=False, paused=False) for s in snapshots if s.name not in record.excluded]
            reasons = obstacles(record.job.requires, others)
            unconfirmed = record.failure is not None and record.failure.fault is Fault.WORKFLOW
            may_confirm = (
                can_run(record.job.requires, s) if s.up else settling and s.classes is None for s in others
            )
            if unconfirmed and not any(may_confirm):
                reasons = {}  # a node's exception that nobody is there to confirm
            # With no backend at all it waits for the next; one that failed on all there are has waited enough.
            if reasons or (reasons is not None and record.failure is not None):
                self._queue.discard(record.job.id)
                each = "; ".join(f"{name} {reason}" for name, reason in reasons.items())
                message = f"no backend can run {record.job.alias!r} any more: {each}"
                failure = record.failure or Failure(Fault.POLICY, message)
                self._end(record, replace(record.facts, state=JobState.FAILED, failure=failure))

    def _end(self, record: JobRecord, facts: JobFacts, *, announced: bool = True) -> None:
        facts = replace(facts, ended_at=self._clock())
        # In one write, so that no crash comes between an end and the delivery of its news.
        self._move(record, facts, *(announcement(record.job, facts, str(uuid.uuid4())) if announced else ()))
        # It is kept for its result's time, without what it was made of.
        record.job = replace(record.job, graph={}, files=())

    def _move(self, record: JobRecord, facts: JobFacts, *more: Change) -> None:
        """The one place where a job's facts change; `more` is written down together with that."""
        change = moved(record.job.id, record.facts, facts)
        record.facts = facts
        self._effects.write(change, *more)
        self._publish(record)

    def _log_attempt(self, record: JobRecord, prompt_id: str, state: AttemptState, reason: str = "") -> None:
        entry = record.log[prompt_id]
        if state.terminal:
            entry = ended(entry, state, self._clock(), reason)
        else:
            entry = replace(entry, state=state, reason=reason)
        record.log[prompt_id] = entry
        self._effects.write(AttemptMoved(entry))
        if record.job.id not in self.jobs and all(each.state.terminal for each in record.log.values()):
            self._effects.write(JobsForgotten((record.job.id,)))

    def _count_started(self, record: JobRecord) -> None:
        if not record.facts.was_started:
            self._effects.write(JobStarted(record.job.id))

    def _current(self, record: JobRecord, prompt_id: str) -> bool:
        """Whether that prompt is what the job is waiting for: a late report of another attempt changes nothing."""
        return not record.state.terminal and record.attempt is not None and record.attempt.prompt_id == prompt_id

    def _is_open(self, entry: OnBackend) -> bool:
        return self._current(entry.record, entry.attempt.prompt_id)

    def _publish(self, record: JobRecord) -> None:
        self._effects.publish(record.event())
