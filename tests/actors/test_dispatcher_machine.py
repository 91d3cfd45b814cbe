"""Random histories of a pool against the dispatcher, compared with a model that only counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bridged.actors.dispatcher import Dispatcher
from bridged.actors.verdict import EXCUSES
from bridged.model import Attempt, Failure, Fault, Job, JobEvent, JobState, Results
from bridged.store.ledger import Change, JobMoved
from tests.fakes.recorded_effects import RecordedEffects, job, outputs

NAMES = ["a", "b", "c"]
NEEDS = [frozenset("X"), frozenset("X"), frozenset("XY"), frozenset("Z")]
KNOWN = [frozenset("XYZ"), frozenset("XY"), frozenset("X"), frozenset("Z")]
BACKEND_EVENTS = ["configure", *["up"] * 3, "down", *["load"] * 4, *["lending"] * 2, "remove"]
MOSTLY_NOT = st.integers(0, 5).map(lambda n: n == 5)
MAX_ATTEMPTS = 2
PREFETCH = 1


@dataclass
class Backend:
    max_running: int
    draining: bool
    up: bool = False
    classes: frozenset[str] | None = None
    foreign: int = 0
    paused: bool = False

    def takes(self, requires: frozenset[str]) -> bool:
        usable = self.up and not self.draining and not self.paused and self.foreign == 0
        return usable and self.classes is not None and requires <= self.classes


@dataclass
class Prompt:
    attempt: Attempt
    started: bool = False
    collecting: bool = False
    cancel: bool = False
    withdraw: bool = False


@dataclass
class World(RecordedEffects):
    """What the effects lead to. Each is checked at the moment it is caused."""

    backends: dict[str, Backend] = field(default_factory=dict)
    live: dict[str, Prompt] = field(default_factory=dict)
    failed_on: dict[str, set[str]] = field(default_factory=dict)
    detached: bool = False
    ended: Counter[str] = field(default_factory=Counter)
    percent: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        RecordedEffects.__init__(self)

    def filling(self, name: str) -> int:
        return sum(1 for p in self.live.values() if p.attempt.backend == name and not p.collecting)

    def start(self, job: Job, attempt: Attempt) -> None:
        super().start(job, attempt)
        backend = self.backends[attempt.backend]
        assert not self.detached
        assert backend.takes(job.requires)
        assert attempt.backend not in self.failed_on.get(job.id, set())
        assert self.filling(attempt.backend) < backend.max_running + PREFETCH
        assert job.id not in {p.attempt.job_id for p in self.live.values()}, "in two places at once"
        assert not self.ended[job.id]
        assert attempt.prompt_id not in self.live
        self.live[attempt.prompt_id] = Prompt(attempt)

    def cancel(self, attempt: Attempt) -> None:
        super().cancel(attempt)
        prompt = self.live[attempt.prompt_id]
        assert not prompt.cancel
        assert self.ended[attempt.job_id] == 1, "only revoked jobs are cancelled"
        prompt.cancel = True

    def withdraw(self, attempt: Attempt) -> None:
        super().withdraw(attempt)
        prompt = self.live[attempt.prompt_id]
        asked_in_vain = prompt.started or prompt.collecting or prompt.cancel or prompt.withdraw
        assert not asked_in_vain
        assert not self.detached
        prompt.withdraw = True

    def publish(self, event: JobEvent) -> None:
        super().publish(event)
        assert not self.ended[event.job_id], "an event after the end"
        assert event.percent >= self.percent.get(event.job_id, 0.0)
        assert (event.percent == 100.0) <= (event.state is JobState.SUCCEEDED)
        self.percent[event.job_id] = event.percent
        self.ended[event.job_id] += event.state.terminal

    def write(self, *changes: Change) -> None:
        super().write(*changes)
        assert all(0 <= c.facts.attempts <= MAX_ATTEMPTS for c in changes if isinstance(c, JobMoved))
        assert max(Counter(self.counted).values(), default=0) <= 1


class PoolMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.now = 0.0
        self.dispatcher = Dispatcher(self.world, self.clock, max_attempts=MAX_ATTEMPTS, prefetch=PREFETCH)
        self.jobs: dict[str, Job] = {}
        self.over: list[str] = []
        """prompts that have ended: late reports come for these"""

    def clock(self) -> float:
        self.now += 1.0
        return self.now

    def release(self, prompt: Prompt) -> str:
        prompt_id = prompt.attempt.prompt_id
        del self.world.live[prompt_id]
        self.over.append(prompt_id)
        return prompt_id

    @initialize(known=st.lists(st.sampled_from(KNOWN), min_size=3, max_size=3))
    def three_backends(self, known: list[frozenset[str]]) -> None:
        for name, classes in zip(NAMES, known, strict=True):
            self.configure(name, 1, False)
            self.world.backends[name].up, self.world.backends[name].classes = True, classes
            self.dispatcher.on_backend_up(name, classes, 0)

    # -- jobs --------------------------------------------------------------------------------------------------------

    # Few rules with many kinds each: Hypothesis leaves rules out at random, and a run that never submits finds nothing.

    @rule(requires=st.lists(st.sampled_from(NEEDS), min_size=1, max_size=4))
    def submit(self, requires: list[frozenset[str]]) -> None:
        for needs in requires if self.dispatcher.queued() < 4 else ():
            made = job(f"j{len(self.jobs)}", requires=needs)
            self.jobs[made.id] = made
            open_before = self.dispatcher.open_jobs()
            assert self.dispatcher.on_submitted(made) == open_before + 1

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), placed_one=st.booleans())
    def revoke(self, data: st.DataObject, placed_one: bool) -> None:
        some = [p.attempt.job_id for p in self.world.live.values()] if placed_one else []
        job_id = data.draw(st.sampled_from(some or sorted(self.jobs)))
        was_open = not self.world.ended[job_id] and not self.world.detached
        placed = [p for p in self.world.live.values() if p.attempt.job_id == job_id]
        assert self.dispatcher.on_revoked(job_id, "gone") == was_open
        if was_open:
            assert all(p.cancel for p in placed)

    @precondition(lambda self: len(self.jobs) >= 8)
    @rule(now=MOSTLY_NOT)
    def detach(self, now: bool) -> None:
        if now:
            self.world.detached = True
            self.dispatcher.detach()

    # -- backends ----------------------------------------------------------------------------------------------------

    @rule(data=st.data(), what=st.sampled_from(BACKEND_EVENTS))
    def backend(self, data: st.DataObject, what: str) -> None:
        if what == "configure" or not self.world.backends:
            name = data.draw(st.sampled_from(NAMES))
            self.configure(name, data.draw(st.integers(1, 2)), data.draw(MOSTLY_NOT))
            return
        name = data.draw(st.sampled_from(sorted(self.world.backends)))
        backend = self.world.backends[name]
        match what:
            case "up":
                backend.up, backend.classes = True, data.draw(st.sampled_from(KNOWN))
                backend.foreign = int(data.draw(MOSTLY_NOT))
                self.dispatcher.on_backend_up(name, backend.classes, backend.foreign)
            case "down":
                backend.up = False
                self.dispatcher.on_backend_down(name, "away")
            case "load":
                backend.foreign = data.draw(st.sampled_from([0, 0, 1]))
                self.dispatcher.on_load(name, backend.foreign)
            case "lending":
                backend.paused = data.draw(st.sampled_from([False, False, True]))
                self.dispatcher.on_lending(name, backend.paused)
            case _:
                if not any(p.attempt.backend == name for p in self.world.live.values()):
                    del self.world.backends[name]
                    self.dispatcher.on_backend_removed(name)

    def configure(self, name: str, max_running: int, draining: bool) -> None:
        backend = self.world.backends.setdefault(name, Backend(max_running, draining))
        backend.max_running, backend.draining = max_running, draining
        self.dispatcher.on_backend_configured(name, max_running=max_running, draining=draining)

    # -- attempts ----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.world.live)
    @rule(
        data=st.data(),
        what=st.sampled_from(["started", "progress", "collecting", "finished", "failed", "excused", "answer"]),
    )
    def attempt(self, data: st.DataObject, what: str) -> None:
        prompts = list(self.world.live.values())
        prompt = prompts[data.draw(st.integers(0, len(prompts) - 1))]
        prompt_id = prompt.attempt.prompt_id
        match what:
            case "started":
                prompt.started = True
                self.dispatcher.on_started(prompt_id)
            case "progress":
                prompt.started = True
                self.dispatcher.on_progress(prompt_id, data.draw(st.floats(0.0, 99.99)))
            case "collecting":
                prompt.collecting = True
                self.dispatcher.on_collecting(prompt_id)
            case "finished":
                self.finished(prompt)
            case "failed":
                self.failed(prompt, data.draw(st.sampled_from(list(Fault))))
            case "excused":
                self.excused(prompt)
            case _:
                self.answered(prompt, refused=data.draw(st.booleans()))

    def finished(self, prompt: Prompt) -> None:
        job_id = prompt.attempt.job_id
        wanted = not self.world.ended[job_id]
        assert self.dispatcher.on_finished(self.release(prompt), Results(outputs(job_id))) == wanted
        if wanted:
            assert self.dispatcher.jobs[job_id].state is JobState.SUCCEEDED

    def failed(self, prompt: Prompt, fault: Fault) -> None:
        job_id = prompt.attempt.job_id
        was_open = not self.world.ended[job_id]
        if fault is Fault.HOST:
            self.world.failed_on.setdefault(job_id, set()).add(prompt.attempt.backend)
        self.dispatcher.on_failed(self.release(prompt), Failure(fault, "broken"))
        if was_open and fault not in (Fault.HOST, Fault.NETWORK):
            assert self.dispatcher.jobs[job_id].state is JobState.FAILED

    def excused(self, prompt: Prompt) -> None:
        job_id = prompt.attempt.job_id
        record = self.dispatcher.jobs[job_id]
        was_open, attempts, reruns = not self.world.ended[job_id], record.attempts, record.facts.reruns
        last = reruns >= EXCUSES
        if last:
            self.world.failed_on.setdefault(job_id, set()).add(prompt.attempt.backend)
        self.dispatcher.on_excused(self.release(prompt), "its owner paused the PC")
        if was_open and not last:
            placed_again = record.state is not JobState.QUEUED
            assert not record.state.terminal
            assert record.attempts == attempts - 1 + placed_again

    def answered(self, prompt: Prompt, *, refused: bool) -> None:
        """What an actor says to a cancel or a withdrawal."""
        if prompt.withdraw and refused:
            prompt.withdraw = False
            self.dispatcher.on_withdraw_refused(prompt.attempt.prompt_id)
        elif prompt.withdraw and not prompt.started:
            self.dispatcher.on_withdrawn(self.release(prompt))
        elif prompt.cancel:
            self.dispatcher.on_cancelled(self.release(prompt))

    @precondition(lambda self: self.over)
    @rule(data=st.data(), what=st.integers(0, 7))
    def late(self, data: st.DataObject, what: int) -> None:
        prompt_id = data.draw(st.sampled_from(self.over))
        before = len(self.world.calls)
        match what:
            case 0:
                self.dispatcher.on_started(prompt_id)
            case 1:
                self.dispatcher.on_progress(prompt_id, 99.0)
            case 2:
                self.dispatcher.on_collecting(prompt_id)
            case 3:
                assert not self.dispatcher.on_finished(prompt_id, Results(()))
            case 4:
                self.dispatcher.on_failed(prompt_id, Failure(Fault.HOST, "late"))
            case 5:
                self.dispatcher.on_cancelled(prompt_id)
            case 6:
                self.dispatcher.on_excused(prompt_id, "late")
            case _:
                self.dispatcher.on_withdrawn(prompt_id)
        # A withdrawal that was refused is asked for again whenever there is an occasion; nothing else happens.
        assert {kind for kind, _, _ in self.world.calls[before:]} <= {"withdraw"}

    # -- what always holds -------------------------------------------------------------------------------------------

    @invariant()
    def every_open_job_is_in_exactly_one_place(self) -> None:
        on_backends = Counter(
            p.attempt.job_id for p in self.world.live.values() if not self.world.ended[p.attempt.job_id]
        )
        for job_id in self.jobs:
            record = self.dispatcher.jobs[job_id]
            assert record.state.terminal == bool(self.world.ended[job_id])
            if not record.state.terminal:
                assert on_backends[job_id] + (record.state is JobState.QUEUED) == 1
        queued = [r for r in self.dispatcher.jobs.values() if r.state is JobState.QUEUED]
        assert self.dispatcher.queued() == len(queued)
        assert self.dispatcher.open_jobs() == len(self.jobs) - sum(self.world.ended.values())

    @invariant()
    def the_load_is_what_the_backends_hold(self) -> None:
        snapshots = {s.name: s for s in self.dispatcher.snapshots()}
        assert snapshots.keys() == self.world.backends.keys()
        for name, snapshot in snapshots.items():
            assert snapshot.load == self.world.filling(name)

    @invariant()
    def no_job_waits_while_a_place_is_free_for_it(self) -> None:
        if self.world.detached:
            return
        for job_id, record in self.dispatcher.jobs.items():
            if record.state is not JobState.QUEUED:
                continue
            for name, backend in self.world.backends.items():
                free = self.world.filling(name) < backend.max_running + PREFETCH
                excluded = name in self.world.failed_on.get(job_id, set())
                assert not (free and not excluded and backend.takes(self.jobs[job_id].requires))

    @invariant()
    def nothing_that_waits_keeps_the_owner_waiting(self) -> None:
        if self.world.detached:
            return
        for prompt in self.world.live.values():
            backend = self.world.backends[prompt.attempt.backend]
            asked = prompt.withdraw or prompt.cancel or prompt.started or prompt.collecting
            if backend.up and backend.foreign and not asked:
                # Refused a moment ago: it is asked again when something changes.
                assert prompt.attempt.prompt_id in self.world.withdrawn

    def teardown(self) -> None:
        for prompt in list(self.world.live.values()):
            self.dispatcher.on_finished(self.release(prompt), Results(outputs(prompt.attempt.job_id)))
        if not self.world.detached:
            for job_id in self.jobs:
                self.dispatcher.on_revoked(job_id, "the end")
            for prompt in list(self.world.live.values()):
                self.dispatcher.on_cancelled(self.release(prompt))
            assert {job_id: 1 for job_id in self.jobs} == {j: n for j, n in self.world.ended.items() if n}
            assert self.dispatcher.open_jobs() == 0
            assert all(snapshot.load == 0 for snapshot in self.dispatcher.snapshots())


PoolMachine.TestCase.settings = settings(max_examples=250, stateful_step_count=80, deadline=None)
TestPool = PoolMachine.TestCase
