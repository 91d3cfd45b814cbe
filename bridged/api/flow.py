"""Back-pressure for request bodies: Quart would collect a body in memory as fast as it arrives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

AHEAD = 1024 * 1024
"""bytes of a body that may wait for its handler; then the connection is not read on, and TCP slows the sender"""


class Flow:
    """One request's body on its way from the server to its handler."""

    def __init__(self) -> None:
        self._waiting = 0
        self._room = trio.Event()

    async def receive(self, receive: Callable[[], Awaitable[Any]]) -> Any:
        """The next ASGI message, once there is room for more body."""
        while self._waiting > AHEAD:
            self._room = trio.Event()
            await self._room.wait()
        message = await receive()
        self._waiting += len(message.get("body", b""))
        return message

    def took(self, size: int) -> None:
        """The handler has read so many bytes."""
        self._waiting -= size
        self._room.set()
