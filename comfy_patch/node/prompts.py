"""Prompts in ComfyUI's queue: whose they are, what has become of them, and how one of them is stopped and no other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

LEASE = 120.0
"""seconds, of a bridge's prompt that names none"""

LONGEST_LEASE = 3600.0
"""seconds"""


@dataclass(frozen=True)
class Prompt:
    """`lease`: seconds, as the bridge's mark says them; None: the prompt is the owner's."""

    prompt_id: str
    client_id: str = ""
    lease: float | None = None

    @property
    def bridged(self) -> bool:
        return self.lease is not None

    @property
    def holder(self) -> str:
        """Whose lease it runs on: its client's, or, where it names none, one of its own that nobody can renew."""
        return self.client_id or f"prompt:{self.prompt_id}"


def lease_of(extra_data: Any) -> float | None:
    """The lease in a prompt's extra_data, in seconds; None where there is no bridge's mark."""
    mark = extra_data.get("bridged") if isinstance(extra_data, dict) else None
    return _seconds(mark.get("lease")) if isinstance(mark, dict) else None


def _seconds(value: Any) -> float:
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= LONGEST_LEASE
    return float(value) if fits else LEASE


class Queue(Protocol):
    """What `Jobs` needs of ComfyUI's queue; `lock` is the queue's own, and reentrant."""

    @property
    def lock(self) -> Any: ...

    def running(self) -> list[Prompt]: ...

    def waiting(self) -> list[Prompt]: ...

    def remove(self, prompt_ids: set[str]) -> None: ...

    def completed(self, prompt_id: str) -> bool: ...

    def interrupt(self, on: bool) -> None: ...


@dataclass(frozen=True)
class Owner:
    """What the owner's own prompts do. `last`: UNIX time at which one was last seen waiting or running."""

    running: int
    queued: int
    last: float | None


class Jobs:
    """The prompts in the queue, and the only code that stops one.

    ComfyUI has one flag that says "interrupt", and no word for which prompt. Setting it is made to hit one prompt only:

    1. Whether a prompt waits or runs is looked up under the queue's lock, and acted upon under the same lock.
       ComfyUI moves prompts from waiting to running to done under that lock.
    2. ComfyUI clears the flag as it begins to execute a prompt, which is later than that prompt counts as running. A
       flag set in between would be lost: `on_reset` is called after each clearing and sets it again.
    3. A flag set after the prompt's last node would wait for the next prompt. `on_change` clears it under the lock as
       the prompt is done, before the next one can be taken from the queue.
    4. Where an extension runs several prompts at once, the flag is set only while all of them are to be stopped.

    `on_submitted` and `on_completed` (with its seconds) are called under the lock, for bridges' prompts only.
    """

    def __init__(
        self,
        queue: Queue,
        on_submitted: Callable[[Prompt], object] = lambda prompt: None,
        on_completed: Callable[[Prompt, float], object] = lambda prompt, seconds: None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._on_submitted = on_submitted
        self._on_completed = on_completed
        self._clock = clock
        self._monotonic = monotonic
        self._known: dict[str, Prompt] = {}
        self._since: dict[str, float] = {}
        """running prompt -> its start"""
        self._stopping: set[str] = set()
        self._owner_last: float | None = None

    def cancel(self, prompt_id: str) -> str:
        """Stops that prompt. "queued": it waited, and is out of the queue. "running": it is being interrupted.
        "unknown": none of that id waits or runs. It need not have a bridge's mark: a bridge may have posted it before
        it knew of this patch."""
        return self._stop(lambda prompt: prompt.prompt_id == prompt_id) or "unknown"

    def cancel_all(self, which: Callable[[Prompt], bool] = lambda prompt: True) -> bool:
        """Stops all bridges' prompts that `which` picks; whether there was any. The owner's are never among them."""
        return self._stop(lambda prompt: prompt.bridged and which(prompt)) is not None

    def _stop(self, which: Callable[[Prompt], bool]) -> str | None:
        with self._queue.lock:
            running = {prompt.prompt_id for prompt in self._queue.running() if which(prompt)}
            waiting = {prompt.prompt_id for prompt in self._queue.waiting() if which(prompt)}
            if waiting:
                self._queue.remove(waiting)
            self._stopping |= running
            if running:
                self._interrupt_if_meant()
            return "running" if running else "queued" if waiting else None

    def here(self) -> list[Prompt]:
        """Bridges' prompts that run or wait."""
        with self._queue.lock:
            return [prompt for prompt in self._all() if prompt.bridged]

    def owner(self) -> Owner:
        with self._queue.lock:
            running = sum(not prompt.bridged for prompt in self._queue.running())
            queued = sum(not prompt.bridged for prompt in self._queue.waiting())
            if running or queued:
                self._owner_last = self._clock()
            return Owner(running, queued, self._owner_last)

    def on_reset(self) -> None:
        """Somebody has cleared the interrupt flag: ComfyUI does as it begins to execute a prompt."""
        with self._queue.lock:
            if self._stopping:
                self._interrupt_if_meant()

    def on_change(self) -> None:
        """The queue has changed. Called under its lock."""
        with self._queue.lock:
            running = {prompt.prompt_id: prompt for prompt in self._queue.running()}
            now = {**{prompt.prompt_id: prompt for prompt in self._queue.waiting()}, **running}
            if any(not prompt.bridged for prompt in (*now.values(), *self._known.values())):
                self._owner_last = self._clock()
            known, self._known = self._known, now
            for prompt_id in now.keys() - known.keys():
                if now[prompt_id].bridged:
                    self._on_submitted(now[prompt_id])
            for prompt_id in running.keys() - self._since.keys():
                self._since[prompt_id] = self._monotonic()
            for prompt_id in self._since.keys() - running.keys():
                self._ended(known.get(prompt_id), prompt_id, self._monotonic() - self._since.pop(prompt_id))
            if self._stopping:
                self._interrupt_if_meant()

    def _ended(self, prompt: Prompt | None, prompt_id: str, seconds: float) -> None:
        if prompt_id in self._stopping:
            self._stopping.discard(prompt_id)
            self._queue.interrupt(False)
        if prompt is not None and prompt.bridged and self._queue.completed(prompt_id):
            self._on_completed(prompt, seconds)

    def _interrupt_if_meant(self) -> None:
        running = self._queue.running()
        if running and all(prompt.prompt_id in self._stopping for prompt in running):
            self._queue.interrupt(True)

    def _all(self) -> Iterable[Prompt]:
        return (*self._queue.running(), *self._queue.waiting())
