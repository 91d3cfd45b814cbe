"""ComfyUI's queue, as `Jobs` wants it: the half of host.py that has to do with prompts."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

from .prompts import Prompt, lease_of

FLAG = ("interrupt_processing", "interrupt_current_processing")
"""names of functions of one argument: True sets the flag, False clears it"""

log = logging.getLogger("bridged_patch")


class HostQueue:
    """ComfyUI's PromptQueue. It tells of its changes by `queue_updated` of the server, under its lock."""

    def __init__(self, server: Any, flags: Sequence[Any]) -> None:
        """`flags`: modules that have a function which sets or clears the interrupt flag; the first one's is used."""
        self._server = server
        self._queue = server.prompt_queue
        self._flags = [(module, name) for module in flags for name in FLAG if callable(getattr(module, name, None))]
        module, name = self._flags[0]
        self._interrupt: Callable[[bool], object] = getattr(module, name)

    @property
    def lock(self) -> Any:
        return self._queue.mutex

    def running(self) -> list[Prompt]:
        return [_prompt(item) for item in list(self._queue.currently_running.values())]

    def waiting(self) -> list[Prompt]:
        return [_prompt(item) for item in list(self._queue.queue)]

    def remove(self, prompt_ids: set[str]) -> None:
        while self._queue.delete_queue_item(lambda item: _prompt(item).prompt_id in prompt_ids):
            pass

    def completed(self, prompt_id: str) -> bool:
        entry = self._queue.history.get(prompt_id)
        status = entry.get("status") if isinstance(entry, dict) else None
        return isinstance(status, dict) and status.get("completed") is True

    def interrupt(self, on: bool) -> None:
        self._interrupt(on)

    def observe(self, on_change: Callable[[], None], on_reset: Callable[[], None]) -> None:
        """`on_change`: after each change, under the lock. `on_reset`: whenever the interrupt flag has been cleared, by
        whomever; said more than once, where one of these functions calls another."""
        updated = self._server.queue_updated

        @functools.wraps(updated)
        def queue_updated(*args: Any, **kwargs: Any) -> Any:
            try:
                on_change()
            except Exception:  # ComfyUI's worker must not die of us
                log.exception("bridged_patch: the queue's state is not understood")
            return updated(*args, **kwargs)

        self._server.queue_updated = queue_updated
        for module, name in self._flags:
            setattr(module, name, _observed(getattr(module, name), on_reset))


def _observed(change: Callable[..., Any], on_reset: Callable[[], None]) -> Callable[..., Any]:
    @functools.wraps(change)
    def observed(value: bool = True) -> Any:
        result = change(value)
        if not value:
            try:
                on_reset()
            except Exception:  # ComfyUI is about to execute a prompt
                log.exception("bridged_patch: the queue's state is not understood")
        return result

    return observed


def _prompt(item: Any) -> Prompt:
    """An item of the queue: (number, prompt_id, prompt, extra_data, outputs), and in 2026 a sixth part. What has
    another shape counts as the owner's."""
    try:
        prompt_id, extra = item[1], item[3]
    except (TypeError, IndexError, KeyError):
        return Prompt("")
    client = extra.get("client_id") if isinstance(extra, dict) else None
    return Prompt(str(prompt_id), client if isinstance(client, str) else "", lease_of(extra))
