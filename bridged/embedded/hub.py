"""The clients' WebSockets, each with a bounded queue, so that one that stops reading never holds up the
worker."""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from typing import Any

import trio

logger = logging.getLogger(__name__)

Message = str | bytes

MAX_MESSAGES = 512
"""Per socket. A prompt of 40 nodes makes about 130 messages, so this is several prompts' worth for a client
that reads slowly."""

MAX_BYTES = 16 * 1024 * 1024
"""Per socket. A preview is about 50 kB and the progress of a 40-node prompt 8 kB per message, so MAX_MESSAGES
is met first as a rule."""

DROPPABLE = frozenset({"progress", "progress_state", "status"})
"""Events that the next one of their kind replaces; previews are droppable as well."""


class Outbox:
    """What still has to be sent to one socket.

    When it is full, the oldest droppable message makes room. A message that may not be dropped and finds no
    room sets `overflowed`: the socket must be closed, since a client that has missed the end of its prompt
    would wait for ever.
    """

    def __init__(self) -> None:
        self.features: dict[str, Any] = {}
        self.overflowed = False
        self.closing = False
        self._queue: deque[tuple[bool, Message]] = deque()
        self._bytes = 0
        self._wake = trio.Event()

    def put(self, message: Message, *, droppable: bool) -> None:
        if self.overflowed or self.closing:
            return
        while self._queue and (len(self._queue) >= MAX_MESSAGES or self._bytes + len(message) > MAX_BYTES):
            if not self._drop_oldest():
                if not droppable:
                    self.overflowed = True
                    logger.warning("a client does not read its events: closing its socket")
                    self._queue.clear()
                    self._wake.set()
                return
        self._queue.append((droppable, message))
        self._bytes += len(message)
        self._wake.set()

    def _drop_oldest(self) -> bool:
        for index, (droppable, message) in enumerate(self._queue):
            if droppable:
                del self._queue[index]
                self._bytes -= len(message)
                return True
        return False

    def close(self) -> None:
        """No more messages; what is queued is given up."""
        self.closing = True
        self._wake.set()

    async def get(self) -> Message | None:
        """The next message, or None when the socket is to be closed."""
        while not self._queue and not self.overflowed and not self.closing:
            self._wake = trio.Event()
            await self._wake.wait()
        if self.overflowed or self.closing:
            return None
        _, message = self._queue.popleft()
        self._bytes -= len(message)
        return message


class Hub:
    """The newest socket of each client_id. Use from the event loop's thread only, except `is_heard`."""

    def __init__(self) -> None:
        self._outboxes: dict[str, Outbox] = {}
        self._lock = threading.Lock()

    def open(self, client_id: str) -> Outbox:
        """A new socket takes over the client_id; the older one stays open, and gets nothing more."""
        outbox = Outbox()
        with self._lock:
            self._outboxes[client_id] = outbox
        return outbox

    def close(self, client_id: str, outbox: Outbox) -> None:
        """That socket has gone. A newer one of the same client_id stays. (A real ComfyUI 0.3.64 would
        deregister it.)"""
        with self._lock:
            if self._outboxes.get(client_id) is outbox:
                del self._outboxes[client_id]

    def close_all(self) -> None:
        for outbox in self._outboxes.values():
            outbox.close()

    def is_heard(self, client_id: str | None) -> bool:
        with self._lock:
            return bool(self._outboxes) if client_id is None else client_id in self._outboxes

    def understands_metadata(self, client_id: str | None) -> bool:
        outbox = None if client_id is None else self._outboxes.get(client_id)
        return outbox is not None and outbox.features.get("supports_preview_metadata") is True

    def send(self, event: str, data: dict[str, Any], client_id: str | None) -> None:
        if self.is_heard(client_id):
            self._put(json.dumps({"type": event, "data": data}), client_id, droppable=event in DROPPABLE)

    def send_bytes(self, message: bytes, client_id: str | None) -> None:
        self._put(message, client_id, droppable=True)

    def _put(self, message: Message, client_id: str | None, *, droppable: bool) -> None:
        if client_id is None:
            for outbox in self._outboxes.values():
                outbox.put(message, droppable=droppable)
        elif client_id in self._outboxes:
            self._outboxes[client_id].put(message, droppable=droppable)
