"""Random sequences of changes, late and doubled ones included, against a model in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bridged.model import AttemptLog, AttemptState, Job, JobState, Upload
from bridged.store.ledger import (
    AttemptMoved,
    Change,
    ClientConnected,
    DeliveryAdded,
    DeliveryMoved,
    JobAdded,
    JobFacts,
    JobMoved,
    JobsForgotten,
    JobStarted,
    ProgressSeen,
    ResultFetched,
    Saved,
    SavedDelivery,
    SavedJob,
    UploadAdded,
    UploadsForgotten,
)
from tests.store.samples import job, log_of, opened, upload

NAMES = st.sampled_from(["a", "b", "c", "d"])
PROMPTS = st.sampled_from([None, "p", "q"])
FACTS = st.builds(
    JobFacts,
    state=st.sampled_from(JobState),
    prompt_id=PROMPTS,
    attempts=st.integers(0, 3),
    excluded=st.frozensets(NAMES),
    signature=st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
    ended_at=st.none() | st.floats(0, 1e9),
)
CHANGES: st.SearchStrategy[Change] = st.one_of(
    st.builds(lambda name: JobAdded(job(name)), NAMES),
    st.builds(JobMoved, NAMES, st.sampled_from(JobState), PROMPTS, FACTS),
    st.builds(
        lambda name, number, state, reason: AttemptMoved(log_of(name, number, state, reason=reason)),
        *(NAMES, st.integers(1, 2), st.sampled_from(AttemptState), NAMES),
    ),
    st.builds(ProgressSeen, NAMES, st.floats(0, 100)),
    st.builds(ResultFetched, NAMES),
    st.builds(lambda names: JobsForgotten(tuple(names)), st.lists(NAMES, max_size=2)),
    st.builds(lambda name: UploadAdded(upload(name)), NAMES),
    st.builds(lambda names: UploadsForgotten(tuple(names)), st.lists(NAMES, max_size=2)),
    st.builds(ClientConnected, NAMES, st.booleans()),
    st.builds(JobStarted, NAMES),
    st.builds(DeliveryAdded, NAMES, NAMES, NAMES, st.binary(max_size=3), st.floats(0, 1e9)),
    st.builds(DeliveryMoved, NAMES, st.integers(0, 9), st.none() | st.floats(0, 1e9)),
)


class Model:
    """What a ledger should have, as plainly as it can be said."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.facts: dict[str, JobFacts] = {}
        self.percent: dict[str, float] = {}
        self.fetched: set[str] = set()
        self.attempts: dict[str, AttemptLog] = {}
        self.uploads: dict[str, Upload] = {}
        self.connected: set[str] = set()
        self.count = 0
        self.deliveries: dict[str, SavedDelivery] = {}

    def take(self, change: Change) -> None:
        match change:
            case JobAdded(job) if job.id not in self.jobs:
                self.jobs[job.id], self.facts[job.id], self.percent[job.id] = job, JobFacts(), 0.0
            case JobMoved(name, before, prompt, facts) if name in self.jobs:
                if (self.facts[name].state, self.facts[name].prompt_id) == (before, prompt):
                    self.facts[name] = facts
                    if facts.state.terminal:
                        self.jobs[name] = replace(self.jobs[name], graph={}, files=())
            case AttemptMoved(entry):
                known = self.attempts.get(entry.attempt.prompt_id)
                if known is None or not known.state.terminal:
                    self.attempts[entry.attempt.prompt_id] = entry
            case ProgressSeen(name, percent) if name in self.jobs:
                self.percent[name] = max(percent, self.percent[name])
            case ResultFetched(name) if name in self.jobs:
                self.fetched.add(name)
            case JobsForgotten(names):
                for name in names:
                    self.jobs.pop(name, None)
                    self.fetched.discard(name)
                    self.attempts = {key: e for key, e in self.attempts.items() if e.attempt.job_id != name}
            case UploadAdded(upload):
                self.uploads.setdefault(upload.token, upload)
            case UploadsForgotten(tokens):
                for token in tokens:
                    self.uploads.pop(token, None)
            case ClientConnected(name, connected):
                (self.connected.add if connected else self.connected.discard)(name)
            case JobStarted():
                self.count += 1
            case DeliveryAdded():
                self.deliveries.setdefault(change.id, SavedDelivery(change, 0))
            case DeliveryMoved(name, tries, due_at) if name in self.deliveries:
                found = self.deliveries.pop(name)
                if due_at is not None:
                    self.deliveries[name] = SavedDelivery(replace(found.delivery, due_at=due_at), tries)

    def saved(self) -> Saved:
        return Saved(
            jobs=tuple(
                SavedJob(job, self.facts[name], self.percent[name], name in self.fetched, self.log_of(name))
                for name, job in self.jobs.items()
            ),
            uploads=tuple(sorted(self.uploads.values(), key=lambda each: each.token)),
            connected=frozenset(self.connected),
            deliveries=in_order(self.deliveries.values()),
        )

    def log_of(self, name: str) -> tuple[AttemptLog, ...]:
        mine = [entry for entry in self.attempts.values() if entry.attempt.job_id == name]
        return tuple(sorted(mine, key=lambda entry: entry.attempt.number))


def in_order(deliveries: Any) -> tuple[SavedDelivery, ...]:
    return tuple(sorted(deliveries, key=lambda each: (each.delivery.due_at, each.delivery.id)))


@given(st.lists(st.lists(CHANGES, max_size=12), max_size=4))
@settings(max_examples=50, deadline=None)
def test_what_comes_back_is_what_the_model_has(runs: list[list[Change]]) -> None:
    """Each run of the service takes some changes, in two commits."""
    model = Model()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite3"
        for changes in runs:
            ledger = opened(path, reserve=4096)
            assert ledger.generation_count == model.count
            half = len(changes) // 2
            ledger.write(*changes[:half])
            ledger._commit_here()
            ledger.write(*changes[half:])
            ledger.close()
            for change in changes:
                model.take(change)
        ledger = opened(path, reserve=4096)
        found = ledger.load()
        ledger.close()
    assert replace(found, deliveries=in_order(found.deliveries)) == model.saved()
    assert [each.delivery.due_at for each in found.deliveries] == sorted(e.delivery.due_at for e in found.deliveries)
