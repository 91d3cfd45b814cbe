"""Prompts that wait, the one that runs, and those that ended. Lives in the event loop's thread; nothing here
waits."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_HISTORY = 10_000
"""Entries (ComfyUI 0.3.64). A client that cares deletes its own."""

SENSITIVE = ("auth_token_comfy_org", "api_key_comfy_org")
"""Keys of extra_data that are not shown afterwards."""


@dataclass(frozen=True)
class Item:
    number: float
    prompt_id: str
    prompt: dict[str, Any]
    extra_data: dict[str, Any]
    outputs: list[str]

    @property
    def client_id(self) -> str | None:
        """Whose events these are. Text, whatever the request had: it is looked up among the sockets' ids."""
        client_id = self.extra_data.get("client_id")
        return None if client_id is None else str(client_id)

    def as_list(self) -> list[Any]:
        """As `/queue` and the history show it."""
        return [self.number, self.prompt_id, self.prompt, self.extra_data, self.outputs]


class PromptQueue:
    """`on_change` is called after every change of what waits or runs."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._heap: list[tuple[float, int, Item]] = []
        self._arrivals = 0
        self._wake = trio.Event()
        self.running: Item | None = None
        self.history: dict[str, dict[str, Any]] = {}

    @property
    def remaining(self) -> int:
        return len(self._heap) + (self.running is not None)

    @property
    def pending(self) -> list[Item]:
        """In heap order, as ComfyUI shows it: only the first is sure to be the next."""
        return [item for _, _, item in self._heap]

    def put(self, item: Item) -> None:
        self._arrivals += 1
        heapq.heappush(self._heap, (item.number, self._arrivals, item))
        self._wake.set()
        self._on_change()

    def wake(self) -> None:
        """Let `wait` return although nothing has been put."""
        self._wake.set()

    async def wait(self) -> None:
        """Until there is something to take, or somebody called `wake`."""
        await self._wake.wait()
        self._wake = trio.Event()

    def take(self) -> Item | None:
        """The next one, which from now on runs; None when nothing waits."""
        if not self._heap:
            return None
        self.running = heapq.heappop(self._heap)[2]
        self._on_change()
        return self.running

    def done(self, outputs: dict[str, Any], meta: dict[str, Any], status: dict[str, Any]) -> None:
        """The running one has ended: into the history with it."""
        item = self.running
        assert item is not None
        self.running = None
        if len(self.history) > MAX_HISTORY:
            del self.history[next(iter(self.history))]
        extra_data = {key: value for key, value in item.extra_data.items() if key not in SENSITIVE}
        prompt = [item.number, item.prompt_id, item.prompt, extra_data, item.outputs]
        self.history.pop(item.prompt_id, None)
        self.history[item.prompt_id] = {"prompt": prompt, "outputs": outputs, "status": status, "meta": meta}
        self._on_change()

    def clear(self) -> None:
        self._heap.clear()
        self._on_change()

    def delete(self, prompt_id: str) -> None:
        """Take it out if it waits. Deleting the last one says so twice, like ComfyUI: once for the queue,
        once for the item."""
        for index, (_, _, item) in enumerate(self._heap):
            if item.prompt_id == prompt_id:
                if len(self._heap) == 1:
                    self.clear()
                else:
                    del self._heap[index]
                    heapq.heapify(self._heap)
                self._on_change()
                return

    def history_slice(self, max_items: int | None, offset: int) -> dict[str, dict[str, Any]]:
        """`max_items` from `offset`; the newest ones when the offset is negative."""
        ids = list(self.history)
        if offset < 0:
            offset = 0 if max_items is None else max(0, len(ids) - max_items)
        end = None if max_items is None else offset + max(1, max_items)
        return {prompt_id: self.history[prompt_id] for prompt_id in ids[offset:end]}
