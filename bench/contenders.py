"""One client of each way to run a job: straight to ComfyUI, through bridged (REST, WebSocket), through comfy-api-proxy.
All use the same client (bench.lean, or bench.ordinary) over keep-alive connections, take the result's bytes home, and
check that they are a picture.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec
import trio

from bench import lean
from bench.common import graph, values
from bench.lean import Refused

PNG = b"\x89PNG\r\n\x1a\n"


class Contender(ABC):
    """One client of a service at `url`, with a connection of its own."""

    name = ""

    def __init__(self, url: str, *, pause: float = 0.0, name: str = "", client: ModuleType = lean) -> None:
        self.url = url
        self.name = name or self.name
        self.client = client
        self.http = client.Http(url)
        self.pause = pause

    async def open(self) -> None:
        await self.http.connect()

    async def close(self) -> None:
        await self.http.aclose()

    @abstractmethod
    async def job(self, color: int, **shape: Any) -> bytes:
        """Runs bench.common.graph to its end and returns the result. Raises Refused."""


class Direct(Contender):
    """POST /prompt, the events of one long-lived WebSocket until execution_success, GET /view. Our own history
    entries are removed at the end (`close`), off the clock."""

    name = "direct"

    async def open(self) -> None:
        await super().open()
        self.client_id = f"bench-{uuid.uuid4()}"
        self.socket = await self.client.WebSocket.connect(self.url, f"/ws?clientId={self.client_id}")
        self.prompt_ids: list[str] = []

    async def close(self) -> None:
        await self.socket.leave()
        await self.http.json("POST", "/history", {"delete": self.prompt_ids})
        await super().close()

    async def job(self, color: int, **shape: Any) -> bytes:
        body = {"prompt": graph(color, **shape), "client_id": self.client_id}
        prompt_id = (await self.http.json("POST", "/prompt", body))["prompt_id"]
        self.prompt_ids.append(prompt_id)
        files: list[dict[str, str]] = []
        while True:
            message = await self.socket.receive()
            if message is None:
                raise Refused("the event socket closed")
            event = msgspec.json.decode(message)
            data = event["data"]
            if data.get("prompt_id") != prompt_id:
                continue
            if event["type"] == "executed":
                files += data["output"]["images"]
            elif event["type"] == "execution_success":
                break
            elif event["type"] in ("execution_error", "execution_interrupted"):
                raise Refused(f"{event}")
        (file,) = files
        return _picture(await self.http.bytes(f"/view?{urlencode(file)}"))


class BridgedRest(Contender):
    """POST /generate-based-workflow, GET /history?wait=30 (multipart). A clientId per job, as the API advises."""

    name = "bridged REST"

    async def job(self, color: int, **shape: Any) -> bytes:
        client = uuid.uuid4().hex
        await self.http.json("POST", f"/generate-based-workflow?clientId={client}", values(color, **shape))
        return _part(await self.http.bytes(f"/history?clientId={client}&wait=30"))


class BridgedRun(Contender):
    """POST /run (multipart): one request for the whole job."""

    name = "bridged /run"

    async def job(self, color: int, **shape: Any) -> bytes:
        target = f"/run?clientId={uuid.uuid4().hex}&wait=30"
        return _part(await self.http.bytes(target, "POST", values(color, **shape)))


class BridgedWs(Contender):
    """A WebSocket per job: connected, submit over HTTP, read until `closed`, GET /history."""

    name = "bridged WS"

    async def job(self, color: int, **shape: Any) -> bytes:
        client = uuid.uuid4().hex
        socket = await self.client.WebSocket.connect(self.url, f"/ws?clientId={client}")
        await socket.receive()
        await self.http.json("POST", f"/generate-based-workflow?clientId={client}", values(color, **shape))
        last: Any = None
        while (message := await socket.receive()) is not None:
            last = msgspec.json.decode(message)
        if last is None or last["status"] != "closed":
            raise Refused(f"the last message is {last}")
        return _part(await self.http.bytes(f"/history?clientId={client}"))


class ApiProxy(Contender):
    """comfy-api-proxy: POST /api/v2/jobs, GET the job every `pause` seconds until it has ended, GET its output."""

    name = "comfy-api-proxy"

    async def job(self, color: int, **shape: Any) -> bytes:
        job = await self.http.json("POST", "/api/v2/jobs", {"workflow": graph(color, **shape)})
        target = f"/api/v2/jobs/{job['id']}"
        while job["status"] not in ("succeeded", "failed", "canceled"):
            await trio.sleep(self.pause)
            job = await self.http.json("GET", target)
        (output,) = job["outputs"]
        return _picture(await self.http.bytes(urlsplit(output["url"]).path))


def _picture(data: bytes) -> bytes:
    if not data.startswith(PNG):
        raise Refused(f"no picture: {data[:100]!r}")
    return data


def _part(body: bytes) -> bytes:
    """The one file of a multipart answer."""
    boundary, _, rest = body.partition(b"\r\n")
    return _picture(rest.partition(b"\r\n\r\n")[2].rpartition(b"\r\n" + boundary + b"--")[0])


@asynccontextmanager
async def opened(contender: Contender) -> AsyncIterator[Contender]:
    await contender.open()
    yield contender
    await contender.close()  # not when it failed: then the process ends, and its connections with it
