"""A small ComfyUI client for these tests: plain HTTP, and one WebSocket whose messages it keeps."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
import trio_websocket

from tests.fakes.recording import mask_frame

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import httpx


class Socket:
    """What has arrived so far is in `messages`, JSON decoded and binary as it is."""

    def __init__(self, connection: trio_websocket.WebSocketConnection) -> None:
        self._connection = connection
        self.messages: list[Any] = []

    async def send(self, message: Any) -> None:
        await self._connection.send_message(json.dumps(message))

    async def next(self) -> Any:
        """The next message. Raises trio.TooSlowError after 20 seconds."""
        with trio.fail_after(20):
            raw = await self._connection.get_message()
        message = json.loads(raw) if isinstance(raw, str) else raw
        self.messages.append(message)
        return message

    async def until(self, wanted: Callable[[Any], bool]) -> Any:
        """Read on up to the first message that is wanted."""
        while not wanted(message := await self.next()):
            pass
        return message

    async def until_event(self, kind: str, **data: Any) -> Any:
        """Read on up to an event of that type whose data has those values."""

        def wanted(message: Any) -> bool:
            return (
                isinstance(message, dict)
                and message["type"] == kind
                and all(message["data"].get(key) == value for key, value in data.items())
            )

        return await self.until(wanted)

    async def until_over(self) -> None:
        """Read on up to the end of a prompt."""

        def wanted(message: Any) -> bool:
            return (
                isinstance(message, dict)
                and message["type"] == "executing"
                and message["data"]["node"] is None
            )

        await self.until(wanted)

    def types(self) -> list[str]:
        return [message["type"] if isinstance(message, dict) else "binary" for message in self.messages]

    def masked(self) -> list[Any]:
        return [mask_frame(message) for message in self.messages]

    async def nothing_more(self) -> bool:
        """Whether no message is on its way: the answer to a ping comes after all that were sent before it."""
        before = len(self.messages)
        with trio.fail_after(20):
            await self._connection.ping()
        with trio.move_on_after(0):
            await self.next()
        return len(self.messages) == before


class Client:
    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self.url = url
        self.http = http

    @asynccontextmanager
    async def socket(self, client_id: str) -> AsyncIterator[Socket]:
        """Opened, and greeted: the first `status` is already in its messages."""
        address = self.url.replace("http://", "ws://") + f"/ws?clientId={client_id}"
        async with trio_websocket.open_websocket_url(address, max_message_size=1 << 26) as connection:
            socket = Socket(connection)
            await socket.next()
            yield socket

    async def get(self, path: str, **params: str) -> Any:
        """The JSON at that path; asserts that the status is 200."""
        answer = await self.http.get(path, params=params)
        assert answer.status_code == 200, (path, answer.status_code)
        return answer.json()

    async def post(self, path: str, content: Any) -> httpx.Response:
        return await self.http.post(path, json=content)

    async def submit(self, prompt: dict[str, Any], client_id: str | None = None, **more: Any) -> str:
        """Queue a prompt that must be accepted; its id."""
        body = {"prompt": prompt, **({"client_id": client_id} if client_id is not None else {}), **more}
        answer = await self.post("/prompt", body)
        assert answer.status_code == 200, answer.text
        prompt_id: str = answer.json()["prompt_id"]
        return prompt_id

    async def run(self, prompt: dict[str, Any], client_id: str = "runner") -> dict[str, Any]:
        """Run a prompt to its end; its history entry."""
        async with self.socket(client_id) as socket:
            prompt_id = await self.submit(prompt, client_id)
            await socket.until_over()
        entry: dict[str, Any] = (await self.get(f"/history/{prompt_id}"))[prompt_id]
        return entry

    async def upload(self, name: str, data: bytes, **fields: str) -> httpx.Response:
        return await self.http.post("/upload/image", files={"image": (name, data)}, data=fields)

    async def picture(self, entry: dict[str, Any], node_id: str, index: int = 0) -> bytes:
        """The bytes of a picture in a history entry."""
        answer = await self.http.get("/view", params=entry["outputs"][node_id]["images"][index])
        assert answer.status_code == 200
        return answer.content


def tiny(color: int = 0xFF8000, side: int = 64, prefix: str = "tiny") -> dict[str, Any]:
    """The smallest prompt that gives a picture."""
    size = {"width": side, "height": side, "batch_size": 1, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": size},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
    }


def chain(length: int, side: int = 256, batch: int = 1, color: int = 1) -> dict[str, Any]:
    """Blurs one after the other: node "1" makes the pictures, "10", "11", … blur them, "99" saves."""
    size = {"width": side, "height": side, "batch_size": batch, "color": color}
    prompt: dict[str, Any] = {"1": {"class_type": "EmptyImage", "inputs": size}}
    source = "1"
    for node_id in map(str, range(10, 10 + length)):
        inputs = {"image": [source, 0], "blur_radius": 15, "sigma": 3.0}
        prompt[node_id] = {"class_type": "ImageBlur", "inputs": inputs}
        source = node_id
    save = {"images": [source, 0], "filename_prefix": "chain"}
    return prompt | {"99": {"class_type": "SaveImage", "inputs": save}}
