"""The suite's hold on one PC: its process, which can be killed and frozen, and the network in front of it."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import trio

from .proxy import Proxy

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """A port that was free a moment ago; one that comes back on it has to know it before it starts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Machine:
    """One PC. The daemon knows it by `url`, which is the proxy's; its owner sits in front of it, at `direct`."""

    def __init__(self, name: str, folder: Path, seed: str) -> None:
        self.name = name
        self.port = free_port()
        self.diary = folder / f"{name}.diary"
        self.proxy = Proxy(self.port, random.Random(f"{seed}/{name}/proxy"))
        self.process: trio.Process | None = None
        self.frozen = False
        self._seed = f"{seed}/{name}"
        self._log = folder / f"{name}.log"
        self._orders: dict[str, Any] = {}

    @property
    def url(self) -> str:
        return f"http://{self.proxy.host}:{self.proxy.port}"

    @property
    def direct(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None and not self.frozen

    async def start(self) -> None:
        """A new life: empty queue, empty history, the orders it had."""
        if self.process is not None and self.process.poll() is None:
            return
        arguments = ["--port", str(self.port), "--name", self.name, "--diary", str(self.diary), "--seed", self._seed]
        with open(self._log, "ab") as log:
            self.process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "tests.faults.pc", *arguments, "--orders", json.dumps(self._orders)],
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        await self._answers()

    async def _answers(self) -> None:
        with trio.fail_after(30):
            while not await self.order():
                assert self.process is not None
                assert self.process.poll() is None, f"{self.name} did not start, see {self._log}"
                await trio.sleep(0.02)

    async def order(self, **orders: Any) -> bool:
        """Changes its orders, as far as it can hear; in any case for its next life. True where it heard."""
        self._orders |= orders
        try:
            async with httpx.AsyncClient(timeout=5) as http:
                return (await http.post(f"{self.direct}/control", json=orders)).status_code == 200
        except httpx.TransportError:
            return False

    async def remaining(self) -> int:
        """Prompts in its queue, the running one included. Raises httpx.TransportError."""
        async with httpx.AsyncClient(timeout=5) as http:
            answer = await http.post(f"{self.direct}/control", json={})
            return int(answer.json()["remaining"])

    async def history(self) -> dict[str, Any]:
        """What its owner sees in its history."""
        async with httpx.AsyncClient(timeout=10, headers={"X-Owner": "1"}) as http:
            entries: dict[str, Any] = (await http.get(f"{self.direct}/history")).json()
            return entries

    async def kill(self) -> None:
        """SIGKILL: queue and history are gone."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGKILL)
            with trio.move_on_after(10, shield=True):
                await self.process.wait()
        self.frozen = False

    def freeze(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGSTOP)
            self.frozen = True

    def thaw(self) -> None:
        if self.frozen and self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
        self.frozen = False

    async def heal(self) -> None:
        """Whatever was wrong with it is over."""
        self.thaw()
        await self.start()
        await self.order(mangle={}, share=0.0, frames=0.0, silent=False, history_lag=0.0, slow=0.0)
        await self.proxy.heal()
