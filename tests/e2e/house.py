"""A whole daemon for a test: real hypercorn on port 0, real files in a folder of its own, and its clients."""

from __future__ import annotations

import hashlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import trio
import trio_websocket

from bridged.daemon import Daemon

PATTERN: dict[str, Any] = {
    "1": {
        "class_type": "EmptyImage",
        "inputs": {"width": 32, "height": 32, "batch_size": 1, "color": 255},
        "_meta": {"title": "Colour", "apiinput": "width,height,color"},
    },
    "2": {"class_type": "SaveImage", "inputs": {"filename_prefix": "p", "images": ["1", 0]}, "_meta": {"title": "S"}},
}
INVERT: dict[str, Any] = {
    "10": {
        "class_type": "LoadImage",
        "inputs": {"image": "example.png"},
        "_meta": {"title": "Load", "apiinput": "image"},
    },
    "11": {"class_type": "ImageInvert", "inputs": {"image": ["10", 0]}},
    "12": {
        "class_type": "ImageScale",
        "inputs": {"image": ["11", 0], "upscale_method": "lanczos", "width": 24, "height": 16, "crop": "disabled"},
        "_meta": {"title": "Size", "apiinput": "width,height"},
    },
    "13": {"class_type": "SaveImage", "inputs": {"filename_prefix": "i", "images": ["12", 0]}},
}
BLURS: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 512, "height": 512, "batch_size": 1, "color": 1}},
    **{
        str(n): {"class_type": "ImageBlur", "inputs": {"image": [str(n - 1), 0], "blur_radius": 9, "sigma": 3.0}}
        for n in range(2, 42)
    },
    "99": {"class_type": "SaveImage", "inputs": {"filename_prefix": "b", "images": ["41", 0]}},
}
"""long enough on a real ComfyUI to be interrupted, short enough to wait for"""

FAST = {"timeout_interval": 0.2, "limit_timeout_count": 60, "witness_interval": 0.3, "unreachable_after": 2.0}


class House:
    """One configuration folder, and the daemon that runs on it after `start`."""

    def __init__(self, folder: Path, nursery: trio.Nursery) -> None:
        self.folder = folder
        self.etc = folder / "etc"
        self.workflows = folder / "workflows"
        self.etc.mkdir()
        for name in ("", "thumbnail", "descimage", "input"):
            (self.workflows / name).mkdir()
        self._nursery = nursery
        self.settings: dict[str, dict[str, Any]] = {
            "server": {"port": 0, "shutdown_budget": 3},
            "state": {"dir": str(folder / "state")},
            "embedded": {"worker": "never"},
            "jobs": dict(FAST),
        }
        self.url = ""
        self.admin_key = ""
        """what the test itself asks /status with, once there are keys"""
        self.daemon: Daemon
        self.ended = trio.Event()

    def write_settings(self) -> None:
        lines = []
        for section, values in self.settings.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        (self.etc / "bridged.toml").write_text("\n".join(lines) + "\n")

    def write_backends(self, *backends: tuple[str, str], **options: str) -> None:
        """`backends` are (name, url); `options` maps a name to more TOML lines of its table."""
        tables = [
            f'[[backend]]\nname = "{name}"\nurl = "{url}"\n{options.get(name.replace("-", "_"), "")}\n'
            for name, url in backends
        ]
        (self.etc / "backends.toml").write_text("\n".join(tables))

    def write_clients(self, *names: str, **options: str) -> dict[str, str]:
        """A key for each name, and one with all scopes for the test itself; `options` maps a name to more TOML lines.
        Returns name -> key. The same name has the same key each time."""
        keys = {name: f"key-of-{name}" for name in (*names, "tester")}
        options = {"tester": 'scopes = ["submit", "admin"]', **options}
        tables = [
            f'[[client]]\nname = "{name}"\nkeys = ["sha256:{hashlib.sha256(key.encode()).hexdigest()}"]\n'
            f"{options.get(name, '')}\n"
            for name, key in keys.items()
        ]
        (self.etc / "clients.toml").write_text("\n".join(tables))
        self.admin_key = keys["tester"]
        return keys

    def write_workflow(self, alias: str, graph: dict[str, Any], **entry: Any) -> None:
        (self.workflows / f"{alias}.json").write_text(json.dumps(graph))
        path = self.etc / "workflow_alias.json"
        entries = json.loads(path.read_text()) if path.exists() else []
        entries = [other for other in entries if other["alias"] != alias]
        entries.append({"alias": alias, "fn": f"{alias}.json", "description": f"makes {alias}", **entry})
        path.write_text(json.dumps(entries))

    async def start(self) -> str:
        self.write_settings()
        self.daemon = Daemon(self.etc, {})
        urls: list[str] = await self._nursery.start(self._run)
        self.url = urls[0]
        return self.url

    async def _run(self, *, task_status: trio.TaskStatus[list[str]]) -> None:
        try:
            await self.daemon.run(task_status=task_status)
        finally:
            self.ended.set()

    async def stop(self) -> None:
        self.daemon.stop()
        with trio.fail_after(10):
            await self.ended.wait()

    def client(self, client_id: str = "c1", key: str = "") -> Client:
        return Client(self.url, client_id, key)

    async def status(self) -> dict[str, Any]:
        async with httpx.AsyncClient(headers=_bearer(self.admin_key)) as http:
            facts: dict[str, Any] = (await http.get(f"{self.url}/status")).json()
            return facts

    async def wait_status(self, holds: Callable[[dict[str, Any]], bool], seconds: float = 5) -> dict[str, Any]:
        """Asks until it holds: what an operator does, and the only way from outside."""
        with trio.fail_after(seconds):
            while not holds(facts := await self.status()):
                await trio.sleep(0.01)
        return facts

    async def wait_up(self, *names: str) -> None:
        await self.wait_status(lambda s: set(names) <= {b["name"] for b in s["backends"] if b["state"] == "up"}, 10)


class Client:
    """A client of the wire contract: httpx and trio-websocket, no code of the product."""

    def __init__(self, url: str, client_id: str, key: str = "") -> None:
        self.url = url
        self.client_id = client_id
        self.key = key
        self.http = httpx.AsyncClient(
            base_url=url, params={"clientId": client_id}, headers=_bearer(key), timeout=30, trust_env=False
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def submit(self, alias: str, **values: Any) -> dict[str, Any]:
        response = await self.http.post(
            "/generate-based-workflow", json={"workflow": alias, **{k.replace("__", "/"): v for k, v in values.items()}}
        )
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def upload(self, **files: tuple[str, bytes]) -> dict[str, str]:
        response = await self.http.post("/upload", files=files)
        assert response.status_code == 200, response.text
        tokens: dict[str, str] = response.json()
        return tokens

    async def result(self, wait: float = 20, **query: str) -> list[dict[str, str]]:
        response = await self.http.get("/history", params={"resType": "base64", "wait": wait, **query})
        if response.status_code == 204:
            return []
        files: list[dict[str, str]] = response.json()["files"]
        return files

    async def info(self) -> dict[str, Any] | None:
        answer: dict[str, Any] | None = (await self.http.get("/execution-info")).json()
        return answer

    async def wait_info(self, **wanted: str) -> dict[str, Any]:
        with trio.fail_after(10):
            while True:
                info = await self.info()
                if info is not None and wanted.items() <= info.items():
                    return info
                await trio.sleep(0.01)

    @asynccontextmanager
    async def socket(self, query: str = "") -> AsyncIterator[Socket]:
        """A connected WebSocket, by default as this client. Closes its TCP stream on exit, whatever state it is in."""
        host, port = self.url.removeprefix("http://").rsplit(":", 1)
        stream = await trio.open_tcp_stream(host, int(port))
        async with trio.open_nursery() as nursery:
            connection = await trio_websocket.wrap_client_stream(
                nursery,
                stream,
                f"{host}:{port}",
                f"/ws?{query or f'clientId={self.client_id}'}",
                extra_headers=[(name.encode(), value.encode()) for name, value in _bearer(self.key).items()],
            )
            try:
                yield Socket(connection, stream)
            finally:
                with trio.move_on_after(1, shield=True):
                    await connection.aclose()
                await trio.aclose_forcefully(stream)
                nursery.cancel_scope.cancel()


class Socket:
    def __init__(self, connection: trio_websocket.WebSocketConnection, stream: trio.SocketStream) -> None:
        self.connection = connection
        self.stream = stream
        self.seen: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self.connection.get_message())
        self.seen.append(message)
        return message

    async def until(self, status: str, seconds: float = 20) -> dict[str, Any]:
        with trio.fail_after(seconds):
            while True:
                message = await self.receive()
                if message["status"] == status:
                    return message

    async def until_closed(self, seconds: float = 20) -> tuple[int, str]:
        """Reads to the end; the code and the reason of the close."""
        with trio.fail_after(seconds):
            try:
                while True:
                    await self.receive()
            except trio_websocket.ConnectionClosed as closed:
                reason = closed.reason or trio_websocket.CloseReason(1006, "no close frame")
                return reason.code, reason.reason or ""

    def statuses(self) -> list[str]:
        return [message["status"] for message in self.seen if message["status"] != "listening"]

    def percentages(self) -> list[float]:
        return [float(m["detail"].rstrip("%")) for m in self.seen if m["status"] == "progress"]

    async def leave(self, how: str) -> None:
        """Goes away as clients do: `close` (handshake), `fin` (no close frame), `rst`."""
        if how == "close":
            await self.connection.aclose()
            return
        if how == "rst":
            self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await trio.aclose_forcefully(self.stream)


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def never_falling(percentages: Iterable[float]) -> bool:
    values = list(percentages)
    return values == sorted(values)
