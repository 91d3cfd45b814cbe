"""Control of prompts on one backend: cancelling, taking back, and tidying its history. Never anyone else's prompts."""

from __future__ import annotations

import logging

import trio

from bridged.actors.attempt import Follow
from bridged.comfy.client import ComfyClient
from bridged.comfy.protocol import Interrupted
from bridged.errors import BackendUnavailable

log = logging.getLogger(__name__)

CONFIRM = 1.0
"""seconds to wait for the event that confirms an interrupt before the queue is asked (nodes can take longer)"""

REPEAT = 2.0
"""seconds between interrupts of one prompt: a long node hears them only when it ends"""

RETRY = 1.0
"""seconds between tries against a backend that does not answer"""

HISTORY_BATCH, HISTORY_DELAY = 100, 2.0
"""finished prompts are removed from the backend's history this many, or this many seconds, at a time"""


class Control:
    """`atomic`: the backend can cancel one prompt under its own lock (2026 versions). `orphans`: prompts of ours
    that were given up and must not go on if they still exist."""

    def __init__(self, client: ComfyClient, name: str) -> None:
        self._client = client
        self._name = name
        self.atomic = False
        self.orphans: set[str] = set()
        self._finished: list[str] = []
        self._finished_some = trio.Event()

    async def cancel(self, follow: Follow) -> None:
        """Works until the attempt has ended: by our interrupt, by itself, or because the backend was given up."""
        await follow.settled.wait()
        last_interrupt = -REPEAT
        while not follow.ended.is_set():
            try:
                if follow.prompt_id in self.orphans:
                    return
                # Said again until it is heard: ComfyUI clears its flag when a prompt begins to execute, so an
                # interrupt in the moment before that is lost (0.3.64).
                if trio.current_time() - last_interrupt >= REPEAT:
                    last_interrupt = trio.current_time()
                    await self._stop(follow.prompt_id, known_running=follow.started)
                if follow.started:
                    with trio.move_on_after(CONFIRM):
                        await follow.ended.wait()
                        return
                if not await self._is_queued(follow.prompt_id):
                    follow.gap = True
                    follow.end(Interrupted(follow.prompt_id))
                    return
                with trio.move_on_after(CONFIRM):
                    await follow.ended.wait()
            except BackendUnavailable as error:
                log.info("backend %s: a cancel waits: %s", self._name, error)
                last_interrupt = -REPEAT
                with trio.move_on_after(RETRY):
                    await follow.ended.wait()

    async def _stop(self, prompt_id: str, *, known_running: bool) -> None:
        if self.atomic and await self._client.cancel_atomically(prompt_id):
            return
        if not known_running:
            await self._client.delete_queued([prompt_id])
        # A stock ComfyUI compares the id and then sets a global flag: in between the next prompt may have begun. The
        # window is its own few microseconds; only the atomic cancel above closes it.
        await self._client.interrupt(prompt_id)

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

    async def revoke_orphans(self) -> None:
        """Stops what was given up while the backend was away."""
        for prompt_id in list(self.orphans):
            try:
                await self._stop(prompt_id, known_running=False)
                if not await self._is_queued(prompt_id):
                    self.orphans.discard(prompt_id)
            except BackendUnavailable:
                return

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
