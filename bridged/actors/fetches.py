"""What backends were asked for, and said: one entry and at most one fetch in flight per backend and question.

Whoever asks gets what is there; what is stale is fetched behind its back. A fetch outlives whoever caused it.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Generic, TypeVar

import trio

from bridged.errors import BackendUnavailable
from bridged.nodedefs.cache import Entry

log = logging.getLogger(__name__)

AT_ONCE = 2
"""fetches from one backend at a time: its owner's ComfyUI answers them between other things"""

MOST = 1000
"""entries of one backend; beyond that its first one goes whose question was not asked for longest"""

Q = TypeVar("Q", bound=Hashable)
V = TypeVar("V")


class Fetches(Generic[Q, V]):
    """`fetch` asks a backend; it raises BackendUnavailable. `on_answer` hears of every answer, and whether it differs
    from the one before."""

    def __init__(self, fetch: Callable[[str, Q], Awaitable[V]], on_answer: Callable[[str, Q, V, bool], object]) -> None:
        self._fetch = fetch
        self._on_answer = on_answer
        self._entries: dict[str, OrderedDict[Q, Entry[V]]] = {}
        self._limits: dict[str, trio.CapacityLimiter] = {}
        self._nursery: trio.Nursery | None = None
        self._settled = trio.Event()

    async def run(self) -> None:
        """Until cancelled. Before it nothing is fetched."""
        async with trio.open_nursery() as self._nursery:
            await trio.sleep_forever()

    def get(self, backend: str, question: Q, refresh: float) -> Entry[V]:
        """What is there, at once; where it is not fresh (`refresh`: seconds, 0: it stays fresh), a fetch begins."""
        entry = self._entry(backend, question)
        if self._nursery is not None and entry.is_due(trio.current_time(), refresh):
            entry.begin()
            self._nursery.start_soon(self._run_fetch, backend, question, entry)
        return entry

    def _entry(self, backend: str, question: Q) -> Entry[V]:
        entries = self._entries.setdefault(backend, OrderedDict())
        entry = entries.setdefault(question, Entry())
        entries.move_to_end(question)
        if len(entries) > MOST:
            del entries[next((key for key, each in entries.items() if not each.fetching), question)]
        return entry

    async def wait(self, asked: Mapping[str, Q], refresh: float, patience: float) -> dict[str, V]:
        """What these backends say to their questions, those that have said something. One that never answered is
        waited for, at most `patience` seconds together."""
        entries = {backend: self.get(backend, question, refresh) for backend, question in asked.items()}
        with trio.move_on_after(patience):
            while any(entry.value is None and entry.fetching for entry in entries.values()):
                await self._settled.wait()
        return {backend: entry.value for backend, entry in entries.items() if entry.value is not None}

    async def renew(self, asked: Mapping[str, Q], patience: float) -> None:
        """Fetches it from all of them now, and waits for that, at most `patience` seconds together."""
        for backend, question in asked.items():
            self._entry(backend, question).invalidate()
        with trio.move_on_after(patience):
            # A fetch that was under way before may bring what was there before; then another one follows it.
            while any([self.get(backend, question, 0).fetching for backend, question in asked.items()]):
                await self._settled.wait()

    def put(self, backend: str, question: Q, value: V) -> None:
        """It was learnt in another way. A fetch that is under way may know less: another one follows it."""
        entry = self._entry(backend, question)
        is_fetching = entry.fetching
        changed = entry.succeed(value, trio.current_time())
        if is_fetching:
            entry.fetching = True
            entry.invalidate()
        self._on_answer(backend, question, value, changed)

    def on_back(self, backend: str) -> None:
        """It came back, perhaps with other files: what it said is stale, and failures say nothing any more."""
        for entry in self._entries.get(backend, {}).values():
            entry.try_again()
            entry.invalidate()

    def forget(self, backend: str) -> list[Q]:
        """It is gone for good; what it was asked."""
        self._limits.pop(backend, None)
        return list(self._entries.pop(backend, {}))

    async def _run_fetch(self, backend: str, question: Q, entry: Entry[V]) -> None:
        limit = self._limits.setdefault(backend, trio.CapacityLimiter(AT_ONCE))
        try:
            async with limit:
                value = await self._fetch(backend, question)
            changed = entry.succeed(value, trio.current_time())
            if backend in self._entries and self._entries[backend].get(question) is entry:
                self._on_answer(backend, question, value, changed)
        except BackendUnavailable as error:
            entry.fail(trio.current_time())
            log.debug("backend %s: %s not learnt (%d. time): %s", backend, question, entry.failures, error)
        except Exception:
            # Whatever it is, one PC's answer caused it: the service goes on without.
            log.exception("backend %s: an answer could not be dealt with", backend)
            entry.fail(trio.current_time())
        self._settled.set()
        self._settled = trio.Event()
