"""Control of prompts on one backend: cancelling, taking back, and tidying its history. Never anyone else's prompts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress

import trio

from bridged.actors.attempt import Follow
from bridged.comfy.client import ComfyClient
from bridged.comfy.patch import Cancelled
from bridged.comfy.protocol import Interrupted
from bridged.errors import BackendUnavailable

log = logging.getLogger(__name__)

REPEAT = 2.0
"""seconds between interrupts of one prompt: a long node hears them only when it ends"""

RETRY = 1.0
"""seconds between tries against a backend that does not answer"""

MAX_ORPHANS = 256

HISTORY_BATCH, HISTORY_DELAY = 100, 2.0
"""finished prompts are removed from the backend's history this many, or this many seconds, at a time"""


class _Stop:
    """One attempt that is to be stopped; `asked`: the backend was told."""

    def __init__(self, follow: Follow) -> None:
        self.follow = follow
        self.asked = False
        self.done = trio.Event()


class Control:
    """`atomic`: the backend can cancel one prompt under its own lock (2026 versions). `is_patched`: whether it has a
    patch that can. `orphans`: prompts of ours that were given up and must not go on if they still exist."""

    def __init__(self, client: ComfyClient, name: str, is_patched: Callable[[], bool]) -> None:
        self._client = client
        self._name = name
        self._is_patched = is_patched
        self.atomic = False
        self.orphans: dict[str, None] = {}
        self._batch: list[_Stop] = []
        self._batch_some = trio.Event()
        self._finished: list[str] = []
        self._finished_some = trio.Event()

    async def cancel(self, follow: Follow) -> None:
        """Works until the attempt has ended: by our interrupt, by itself, or because the backend was given up."""
        await follow.settled.wait()
        while not follow.ended.is_set() and follow.prompt_id not in self.orphans:
            stop = _Stop(follow)
            self._batch.append(stop)
            self._batch_some.set()
            await stop.done.wait()
            # Said again until it is heard: ComfyUI clears its flag when a prompt begins to execute, so an interrupt
            # in the moment before that is lost (0.3.64). A long node hears it only when it ends.
            with trio.move_on_after(REPEAT if stop.asked else RETRY):
                await follow.ended.wait()

    async def stop_batches(self) -> None:
        """The one task that stops prompts here. What is wanted at the same time goes together: first everything out
        of the queue, then the interrupts, so that none of ours begins because another was interrupted."""
        while True:
            await self._batch_some.wait()
            await trio.lowlevel.checkpoint()  # whoever was revoked by the same event has asked by now
            batch, self._batch, self._batch_some = self._batch, [], trio.Event()
            try:
                await self._stop([stop.follow for stop in batch])
                for stop in batch:
                    stop.asked = True
            except BackendUnavailable as error:
                log.info("backend %s: a cancel waits: %s", self._name, error)
            finally:
                for stop in batch:
                    stop.done.set()

    async def _stop(self, follows: list[Follow]) -> None:
        if self._is_patched():
            waiting_first = sorted(follows, key=lambda follow: follow.started)
            follows = [follow for follow in waiting_first if not await self._cancelled_by_patch(follow)]
        if self.atomic:
            follows = [f for f in follows if not await self._client.cancel_atomically(f.prompt_id)]
        waiting = [follow for follow in follows if not follow.started]
        running = [follow.prompt_id for follow in follows if follow.started]
        if waiting:
            await self._client.delete_queued([follow.prompt_id for follow in waiting])
            queue = await self._client.queue()
            for follow in waiting:
                if follow.prompt_id in queue.running:
                    running.append(follow.prompt_id)
                elif follow.prompt_id not in queue.pending:
                    follow.gap = follow.left_queue = True
                    follow.end(Interrupted(follow.prompt_id))
        for prompt_id in running:
            # A stock ComfyUI compares the id and then sets a global flag: in between, the next prompt may have begun.
            # That window is its own few microseconds; only the atomic cancel closes it.
            await self._client.interrupt(prompt_id)

    async def _cancelled_by_patch(self, follow: Follow) -> bool:
        """False where there is no patch any more: then it is to be done as on a stock ComfyUI."""
        match await self._by_patch(follow.prompt_id):
            case None:
                return False
            case "running":
                pass  # its end is announced
            case _ if not follow.started:  # out of the queue; or nowhere, and its start would have been told
                follow.gap = follow.left_queue = True
                follow.end(Interrupted(follow.prompt_id))
        return True

    async def _by_patch(self, prompt_id: str) -> Cancelled | None:
        """None also where it answers what nobody can read. Raises BackendUnavailable."""
        try:
            return await self._client.cancel_by_patch(prompt_id)
        except BackendUnavailable as error:
            if not error.answered:
                raise
            log.info("backend %s: a cancel is made without its patch: %s", self._name, error)
            return None

    async def withdraw(self, follow: Follow) -> bool:
        """Takes it out of the queue if it has not started; never interrupts. True where it is certain not to run."""
        if follow.started or follow.ended.is_set():
            return False
        try:
            await self._client.delete_queued([follow.prompt_id])
            if await self._is_queued(follow.prompt_id):
                return False
            entry = await self._client.history(follow.prompt_id)
        except BackendUnavailable as error:
            log.info("backend %s: a withdrawal failed: %s", self._name, error)
            return False
        return entry is None and not follow.started and not follow.ended.is_set()

    async def _is_queued(self, prompt_id: str) -> bool:
        queue = await self._client.queue()
        return prompt_id in queue.running or prompt_id in queue.pending

    def give_up(self, prompt_id: str) -> None:
        """From now on this prompt must not go on, should it turn up. The newest MAX_ORPHANS are remembered."""
        self.orphans[prompt_id] = None
        if len(self.orphans) > MAX_ORPHANS:
            del self.orphans[next(iter(self.orphans))]

    async def revoke_orphans(self) -> None:
        """Stops what was given up: after the backend was away, or when one of them turns up."""
        if not self.orphans:
            return
        with suppress(BackendUnavailable):
            if self._is_patched():
                queue = await self._client.queue()
                there = [prompt_id for prompt_id in (*queue.pending, *queue.running) if prompt_id in self.orphans]
                if all([await self._by_patch(prompt_id) is not None for prompt_id in there]):
                    return
            await self._client.delete_queued(list(self.orphans))
            for prompt_id in (await self._client.queue()).running:
                if prompt_id in self.orphans:
                    await self._client.interrupt(prompt_id)

    def forget_history(self, prompt_id: str) -> None:
        """Its outputs are ours now, or never will be: the entry can go, some time soon."""
        self._finished.append(prompt_id)
        self._finished_some.set()

    async def delete_histories(self) -> None:
        while True:
            await self._finished_some.wait()
            if len(self._finished) < HISTORY_BATCH:
                await trio.sleep(HISTORY_DELAY)
            batch, self._finished = self._finished[:HISTORY_BATCH], self._finished[HISTORY_BATCH:]
            if not self._finished:
                self._finished_some = trio.Event()
            try:
                await self._client.delete_history(batch)
            except BackendUnavailable as error:
                log.info("backend %s: its history keeps %d entries of ours: %s", self._name, len(batch), error)
