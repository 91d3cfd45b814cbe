"""What clients are usually written with, in the place of bench.lean: httpx, and trio-websocket."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import httpx
import msgspec
import trio_websocket

from bench.lean import Refused


class Http:
    """As `bench.lean.Http`: one keep-alive connection."""

    def __init__(self, url: str) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=60, trust_env=False)

    async def connect(self) -> None:
        """With the first request."""

    async def aclose(self) -> None:
        await self._client.aclose()

    async def json(self, method: str, target: str, value: object = None) -> Any:
        """The decoded body. Raises Refused for anything but 2xx."""
        response = await self._ask(method, target, value)
        if not response.is_success:
            raise Refused(f"{method} {target}: {response.status_code} {response.text[:300]}")
        return msgspec.json.decode(response.content) if response.content else None

    async def bytes(self, target: str, method: str = "GET", value: object = None) -> bytes:
        """The body as it is. Raises Refused for anything but 200."""
        response = await self._ask(method, target, value)
        if response.status_code != 200:
            raise Refused(f"{method} {target}: {response.status_code} {response.text[:300]}")
        return response.content

    async def _ask(self, method: str, target: str, value: object) -> httpx.Response:
        return await (self._client.request(method, target, json=value) if value else self._client.get(target))


class WebSocket:
    """As `bench.lean.WebSocket`."""

    def __init__(self, socket: trio_websocket.WebSocketConnection, held: AsyncExitStack) -> None:
        self._socket, self._held = socket, held

    @classmethod
    async def connect(cls, url: str, target: str) -> WebSocket:
        held = AsyncExitStack()
        address = url.replace("http", "ws", 1) + target
        return cls(await held.enter_async_context(trio_websocket.open_websocket_url(address)), held)

    async def receive(self) -> str | bytes | None:
        try:
            message: str | bytes = await self._socket.get_message()
            return message
        except trio_websocket.ConnectionClosed:
            await self.leave()
            return None

    async def leave(self) -> None:
        await self._held.aclose()
