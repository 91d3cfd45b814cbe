"""What the rooms talk about: jobs, attempts, outputs, snapshots and events. Frozen values, no I/O.

Times called `*_at` are seconds of the service's own clock (`store.clock`): near the wall clock, but never going back
and untouched by its jumps. Percentages are 0.0 to 100.0.
"""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

OWNER_END = "\x1f"
"""between the owner and the clientId in a `client_id`; neither can contain it: it is not printable"""


def own(owner: str, client_id: str) -> str:
    """The `client_id` that everything inside goes by: one caller's clientIds are never another's, guessed or not. What
    callers without a key have is named by the clientId alone."""
    return f"{owner}{OWNER_END}{client_id}" if owner else client_id


def owner_of(client_id: str) -> str:
    """The name of the key it belongs to, or ""."""
    owner, found, _ = client_id.partition(OWNER_END)
    return owner if found else ""


def shown_client_id(client_id: str) -> str:
    """The clientId as its caller chose it."""
    return client_id.rpartition(OWNER_END)[2]


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
    """nobody asked for it within its client's lease"""
    LOST = "lost"
    """its last run is out of reach, and so is how that ended"""

    @property
    def terminal(self) -> bool:
        return self in TERMINAL


TERMINAL = frozenset(
    {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED, JobState.LOST}
)


class AttemptState(enum.StrEnum):
    PLACED = "placed"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    WITHDRAWN = "withdrawn"
    LOST = "lost"
    """nobody can say whether it ran to its end"""

    @property
    def terminal(self) -> bool:
        return self not in (AttemptState.PLACED, AttemptState.RUNNING)


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


class Grace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`grace` (s): how long a client that went away may take to come back before its jobs are revoked."""

    grace: Annotated[float, Meta(gt=0, le=86400)]


Disconnect = Literal["cancel", "detach"] | Grace
"""What becomes of a client's jobs when its connection ends: revoked at once, run on, or revoked after a while."""


class Job(msgspec.Struct, frozen=True):
    """One submission. `graph` and all options are a snapshot: later edits of the alias do not touch them.

    `idempotency_key`, where the client gave one, goes with the `digest` of what was submitted under it. `max_runtime`
    and `no_progress_timeout` (s, 0: none) bound one run. `webhook` is the URL to tell of its end, or "". `weight` is
    its owner's share of the pool at the time. `metadata`: what becomes of that in its results.
    """

    id: str
    client_id: str
    alias: str
    graph: Graph
    files: tuple[FileInput, ...]
    requires: frozenset[str]
    created_at: float
    disconnect: Disconnect = "cancel"
    max_runtime: float = 0.0
    no_progress_timeout: float = 0.0
    idempotency_key: str = ""
    digest: str = ""
    webhook: str = ""
    weight: float = 1.0
    metadata: Literal["keep", "strip"] = "keep"

    @property
    def owner(self) -> str:
        return owner_of(self.client_id)


class Attempt(msgspec.Struct, frozen=True):
    """One try of a job on one backend. The prompt_id is ours, a canonical lower-case UUID, new per attempt."""

    prompt_id: str
    job_id: str
    backend: str
    number: int


class AttemptLog(msgspec.Struct, frozen=True):
    """How an attempt went: what a client, an operator or a recovery may know of it."""

    attempt: Attempt
    state: AttemptState
    placed_at: float
    ended_at: float | None = None
    reason: str = ""


class Output(msgspec.Struct, frozen=True):
    """One result file in the spool; `name` is what clients see, unique within its job."""

    name: str
    file: StoredFile


class Refused(msgspec.Struct, frozen=True):
    """A result file that was not taken: `name` as clients would have seen it, and why not."""

    name: str
    reason: str


class Results(msgspec.Struct, frozen=True):
    """What a run left, in node order."""

    outputs: tuple[Output, ...] = ()
    refused: tuple[Refused, ...] = ()


OUT_OF_MEMORY = "out of memory"
"""the `signature` of a failure for want of memory"""


class Failure(msgspec.Struct, frozen=True):
    """Why a job did not succeed. `message` is for people and names backends, never addresses.

    `signature` tells a node's exception from others ("" where it is none): the same one on two PCs is the workflow's.
    """

    fault: Fault
    message: str
    signature: str = ""


class Upload(msgspec.Struct, frozen=True):
    """A client's file, waiting to be used in its submissions under `token`."""

    token: str
    client_id: str
    name: str
    file: StoredFile
    expires_at: float


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
    paused: bool = False
    """its owner does not lend it for now: it gets nothing new, and what only it can run waits"""


class JobEvent(msgspec.Struct, frozen=True):
    """A job changed: what sessions are told. Terminal states come exactly once per job."""

    job_id: str
    client_id: str
    state: JobState
    percent: float
    failure: Failure | None = None
    outputs: tuple[Output, ...] = ()


# -- what a patched PC says of itself (docs/patch-api.md); times are UNIX seconds, sizes bytes -------------------------

PcTime = Annotated[float, Meta(ge=0, le=1e11)]
PcCount = Annotated[int, Meta(ge=0, le=2**53)]


class Lending(msgspec.Struct, frozen=True):
    """Whether the owner lends the PC. `until`: when it is lent again; None: until the owner says so."""

    paused: bool
    until: PcTime | None = None


class NodePack(msgspec.Struct, frozen=True):
    """A pack of custom nodes on a PC."""

    name: str
    version: str | None = None


class Device(msgspec.Struct, frozen=True):
    """What a PC computes on; sizes in bytes."""

    name: str
    type: str
    memory_total: PcCount = 0
    memory_free: PcCount = 0


class LoadedModel(msgspec.Struct, frozen=True):
    """A model in a PC's memory; `size` in bytes."""

    name: str
    size: PcCount = 0


class OwnerActivity(msgspec.Struct, frozen=True):
    """The owner's own prompts on a PC; `last`: when there was one, in UNIX seconds."""

    active: bool = False
    running: PcCount = 0
    queued: PcCount = 0
    last: PcTime | None = None


class Served(msgspec.Struct, frozen=True):
    """What a PC ran for bridges on that day, as its own clock has it; `seconds` of running."""

    date: str = ""
    jobs: PcCount = 0
    seconds: Annotated[float, Meta(ge=0, le=1e11)] = 0.0


class PatchInfo(msgspec.Struct, frozen=True):
    """What a patched PC said of itself when it was last asked. `patch` and `comfyui` are versions."""

    protocol: int
    patch: str
    lending: Lending
    comfyui: str = ""
    node_packs: list[NodePack] = []
    devices: list[Device] = []
    loaded_models: list[LoadedModel] = []
    owner: OwnerActivity = msgspec.field(default_factory=OwnerActivity)
    served: Served = msgspec.field(default_factory=Served)
