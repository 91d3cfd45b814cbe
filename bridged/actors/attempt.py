"""One attempt on one backend, as its actor keeps it: what is wanted, what is known, how it ended."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import trio

from bridged.comfy.protocol import Errored, Interrupted, PromptProgress, Succeeded
from bridged.model import Attempt, Job


class Desired(enum.Enum):
    """What the dispatcher wants of an attempt; the actor works towards it until the backend confirms."""

    RUN = enum.auto()
    CANCEL = enum.auto()


class Lost(enum.Enum):
    """Ends that no backend announces."""

    WITHDRAWN = "it was taken back before it started"
    GONE = "the backend does not know the prompt any more (was it restarted, or its queue cleared?)"
    REFUSED = "the connection failed while the prompt was sent, and the backend did not get it"
    UNREACHABLE = "the backend could not be reached for too long"
    CRASHED = "its ComfyUI is gone: the PC refuses connections"
    HUNG = "it hung, and did not stop when it was told to"


Outcome = Succeeded | Interrupted | Errored | Lost


class Follow:
    """The state of one attempt. Only its backend's actor changes it."""

    def __init__(self, job: Job, attempt: Attempt, now: float, before: Follow | None = None) -> None:
        self.job = job
        self.attempt = attempt
        self.before = before
        """the attempt that was placed here before this one: prompts are posted in the order they were placed"""
        self.desired = Desired.RUN
        self.progress = PromptProgress(job.graph)
        self.on_end: Callable[[], object] | None = None
        """called once when it has ended"""
        self.collectable = trio.Event()
        """it has ended, or every output is there already: worth fetching while the rest of the news comes"""
        self.outputs: dict[str, dict[str, Any] | None] = {}
        """node id -> its output, from `executed` events"""
        self.interruptible: trio.CancelScope | None = None
        """what a revocation may cancel at once: transfers, never a request that changes something"""
        self.posted = False
        """POST /prompt was begun: from here on the backend may have it"""
        self.posting: trio.CancelScope | None = None
        """around that POST: once the prompt has ended, its answer is not waited for"""
        self.settled = trio.Event()
        """that POST was answered, or its fate was looked up"""
        self.started_at: float | None = None
        """when it was first seen running; before that it may wait behind the owner's prompts"""
        self.progressed_at = now
        """the newest event of this prompt, or when its start was noticed: that it runs at all is no progress"""
        self.overdue = ""
        """why it is being stopped, once it has run, or shown nothing, for too long"""
        self.abandoned = False
        """given up although it has ended, or before it was posted: its backend cannot be reached"""
        self.blameless = False
        """it was given up for a backend that went away with most others"""
        self.left_queue = False
        self.gap = False
        """events may have been missed: outputs come from the history"""
        self.refusal = ""
        """what the backend answered to the POST in place of an answer"""
        self.adopted = False
        """an earlier run of the service began it"""
        self.lapses: int | None = None
        """how often the lease had been over when it was posted; None: it was posted without one"""
        self.to_withdraw = False
        """it is wanted back, if it has not started"""
        self.withdrawing = False
        """it is being taken back: if it is nowhere any more, that is why"""
        self.ended = trio.Event()
        self.outcome: Outcome | None = None
        self.last_heard = now

    @property
    def started(self) -> bool:
        return self.started_at is not None

    @property
    def prompt_id(self) -> str:
        return self.attempt.prompt_id

    @property
    def awaited(self) -> bool:
        """Whether the backend has it and we do not know yet how it ends."""
        return self.posted and self.settled.is_set() and not self.ended.is_set()

    @property
    def open(self) -> bool:
        """Whether the backend may have it and we do not know yet how it ends."""
        return self.posted and not self.ended.is_set()

    @property
    def counts(self) -> bool:
        """Whether it is for certain among the prompts that the backend's queue counts, or about to be."""
        leaving = self.withdrawing or (self.desired is Desired.CANCEL and not self.started)
        return self.posted and not self.left_queue and not leaving

    def end(self, outcome: Outcome) -> None:
        """How it ended; the first report counts."""
        if self.outcome is None:
            self.outcome = outcome
            self.left_queue = self.left_queue or isinstance(outcome, Lost)
            self.settled.set()
            self.ended.set()
            self.collectable.set()
            if self.on_end is not None:
                self.on_end()
            if self.posting is not None:
                self.posting.cancel()
