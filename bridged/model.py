"""What the rooms talk about: jobs, attempts, outputs, snapshots and events. Frozen values, no I/O.

Times called `*_at` are seconds of the caller's clock: wall time (`time.time`) where a person or a file sees them,
the monotonic run clock inside the dispatcher and placement. Percentages are 0.0 to 100.0.
"""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

import msgspec

Graph = dict[str, dict[str, Any]]
"""A prompt graph in ComfyUI's API format: node id -> {class_type, inputs, _meta}."""


class JobState(enum.StrEnum):
    QUEUED = "queued"
    PLACED = "placed"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def terminal(self) -> bool:
        return self in TERMINAL


TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})


class Fault(enum.StrEnum):
    """Who a failure is attributed to: only host and network faults are tried again elsewhere."""

    WORKFLOW = "workflow"
    HOST = "host"
    NETWORK = "network"
    CLIENT = "client"
    POLICY = "policy"


class StoredFile(msgspec.Struct, frozen=True):
    """A checked file on our disk. `size` in bytes, `sha256` in hex, `extension` with its dot, lower case."""

    path: Path
    size: int
    sha256: str
    content_type: str
    extension: str


class FileInput(msgspec.Struct, frozen=True):
    """This file's content is to be the value of `graph[node]["inputs"][input]` on whichever backend runs it."""

    node: str
    input: str
    file: StoredFile


class Job(msgspec.Struct, frozen=True):
    """One submission. `graph` is a snapshot: later edits of the alias do not touch it."""

    id: str
    client_id: str
    alias: str
    graph: Graph
    files: tuple[FileInput, ...]
    requires: frozenset[str]
    created_at: float


class Attempt(msgspec.Struct, frozen=True):
    """One try of a job on one backend. The prompt_id is ours, a canonical lower-case UUID, new per attempt."""

    prompt_id: str
    job_id: str
    backend: str
    number: int


class Output(msgspec.Struct, frozen=True):
    """One result file in the spool; `name` is what clients see, unique within its job."""

    name: str
    file: StoredFile


class Failure(msgspec.Struct, frozen=True):
    """Why a job did not succeed. `message` is for people and names backends, never addresses."""

    fault: Fault
    message: str


class BackendSnapshot(msgspec.Struct, frozen=True):
    """What placement may know of a backend.

    `classes` is None until its node definitions were first read. `foreign` counts the prompts on it that are not
    ours, `load` the attempts of ours on it, `capacity` how many of ours it may hold (running and prefetched).
    """

    name: str
    up: bool
    draining: bool
    classes: frozenset[str] | None
    foreign: int
    load: int
    max_running: int
    capacity: int
    idle_since: float
    moving: bool = False
    """it drains only to come back, at another address"""


class JobEvent(msgspec.Struct, frozen=True):
    """A job changed: what sessions are told. Terminal states come exactly once per job."""

    job_id: str
    client_id: str
    state: JobState
    percent: float
    failure: Failure | None = None
    outputs: tuple[Output, ...] = ()
