"""What must survive the daemon, in the terms of a database that several daemons could share.

The dispatcher and the clients decide; the ledger writes down what they decided, as changes, in the order in which they
were made. A change of a job says from which state it leaves (compare and set): where that is not what the ledger has,
it is refused, so a late or doubled report never overwrites. Jobs belong to an owner, one run of the daemon, whose lease
ends unless it is renewed; who starts takes over the jobs of those whose lease is over.

`write` is a plain call, so that the synchronous core may cause it. What must not be known before it is safe is said in
`after_commit`; who must wait until it is safe awaits `durable` (and is told where it cannot be) or `committed`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from bridged.model import AttemptLog, AttemptState, Failure, Job, JobState, Output, Refused, Upload


class JobAdded(msgspec.Struct, frozen=True):
    """A submission was accepted: it is queued."""

    job: Job


class JobFacts(msgspec.Struct, frozen=True):
    """What is kept of a job apart from what was submitted. `prompt_id`: its present attempt. `reruns`: how often it
    was placed again though an earlier attempt may have run. `signature`: of a node's exception that waits for its
    confirmation on another backend. `crashed_on`: backends that went down while it ran there. `outputs_gone`: their
    files were removed before their time, for want of room."""

    state: JobState = JobState.QUEUED
    prompt_id: str | None = None
    attempts: int = 0
    reruns: int = 0
    excluded: frozenset[str] = frozenset()
    crashed_on: frozenset[str] = frozenset()
    signature: str = ""
    failure: Failure | None = None
    outputs: tuple[Output, ...] = ()
    refused: tuple[Refused, ...] = ()
    outputs_gone: bool = False
    was_started: bool = False
    ended_at: float | None = None


class JobMoved(msgspec.Struct, frozen=True):
    """A job went from the state (and attempt) it had to another; refused where the ledger has something else."""

    job_id: str
    before: JobState
    before_prompt: str | None
    facts: JobFacts


class AttemptMoved(msgspec.Struct, frozen=True):
    """An attempt was made, or went on. One that has ended never changes again."""

    log: AttemptLog


class ProgressSeen(msgspec.Struct, frozen=True):
    """Written down some time soon, so that percentages do not fall over a restart."""

    job_id: str
    percent: float


class ResultFetched(msgspec.Struct, frozen=True):
    job_id: str


class JobsForgotten(msgspec.Struct, frozen=True):
    job_ids: tuple[str, ...]


class UploadAdded(msgspec.Struct, frozen=True):
    upload: Upload


class UploadsForgotten(msgspec.Struct, frozen=True):
    tokens: tuple[str, ...]


class ClientConnected(msgspec.Struct, frozen=True):
    """A client's connection began, or ended by the client's own doing (False)."""

    client_id: str
    connected: bool


class JobStarted(msgspec.Struct, frozen=True):
    """One more job started for the first time (the generation count)."""

    job_id: str


class DeliveryAdded(msgspec.Struct, frozen=True):
    """A webhook is to be told: `body` is sent to `url` until it is taken, from `due_at` on."""

    id: str
    job_id: str
    url: str
    body: bytes
    due_at: float


class DeliveryMoved(msgspec.Struct, frozen=True):
    """A try failed and the next is `due_at`; None: it was taken, or given up."""

    id: str
    tries: int
    due_at: float | None


Change = (
    JobAdded
    | JobMoved
    | AttemptMoved
    | ProgressSeen
    | ResultFetched
    | JobsForgotten
    | UploadAdded
    | UploadsForgotten
    | ClientConnected
    | JobStarted
    | DeliveryAdded
    | DeliveryMoved
)


class SavedJob(msgspec.Struct, frozen=True):
    """A job as it was left, with all of its attempts in their order."""

    job: Job
    facts: JobFacts
    percent: float
    fetched: bool
    attempts: tuple[AttemptLog, ...]


class SavedDelivery(msgspec.Struct, frozen=True):
    delivery: DeliveryAdded
    tries: int


class Saved(msgspec.Struct, frozen=True):
    """Everything there is: jobs in the order of submission, `connected` clients had a connection at the end."""

    jobs: tuple[SavedJob, ...] = ()
    uploads: tuple[Upload, ...] = ()
    connected: frozenset[str] = frozenset()
    deliveries: tuple[SavedDelivery, ...] = ()


class Ledger(Protocol):
    @property
    def generation_count(self) -> int:
        """Jobs ever started, restarts included."""

    def now(self) -> float:
        """Seconds of the service's own clock: near the wall clock, never going back, not even over a restart."""

    def write(self, *changes: Change) -> None:
        """Takes changes, in order. They are committed soon, all together where they came together."""

    def after_commit(self, call: Callable[[], object]) -> None:
        """Makes a plain call once everything written so far is safe: after the calls that were asked for before."""

    async def durable(self) -> None:
        """Until everything written so far is safe. Raises OutOfSpace, StorageFailed: it is not, for now."""

    async def committed(self) -> None:
        """Until everything written so far is safe, however long the disk takes to recover."""

    def refuse_if_full(self) -> None:
        """Raises OutOfSpace, StorageFailed: the ledger only keeps its own books now, and takes no new work."""


def moved(job_id: str, before: JobFacts, after: JobFacts) -> JobMoved:
    return JobMoved(job_id, before.state, before.prompt_id, after)


def ended(log: AttemptLog, state: AttemptState, at: float, reason: str = "") -> AttemptLog:
    return msgspec.structs.replace(log, state=state, ended_at=at, reason=reason)
