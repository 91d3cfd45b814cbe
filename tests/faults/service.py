"""The daemon as a process: started, killed, stopped and looked at from outside."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import trio

from .book import Book
from .house import House
from .machines import ROOT, free_port

EXCEPTION = re.compile(r"^[\s|]*((?:[a-z_]\w*\.)*[A-Z]\w+(?:: .*)?)$", re.MULTILINE)
"""the line that ends a traceback: a name, and what it says"""

RESTART = 0.2
"""seconds from an end that nobody asked for to the next start (RestartSec= of a unit)"""


class Service:
    """`python -m bridged serve --config etc`, on one port and one state folder through all its lives.

    `wrapper` goes before the command (to enter a namespace, say), `environment` is added to its own; `source` is the
    checkout it runs from.
    """

    def __init__(self, house: House, book: Book, source: Path = ROOT) -> None:
        self.house = house
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.wrapper: Sequence[str] = ()
        self.environment: dict[str, str] = {}
        self.path: list[str] = [str(source)]
        self.life = 0
        self.log = house.folder / "daemon.log"
        self.process: trio.Process | None = None
        self.wanted = False
        self.excuse = ""
        """what it may say to refuse a start; never to end once it has served"""
        self._book = book
        self._starting = trio.Lock()

    async def start(self) -> None:
        """Spawns it, unless it runs, and does not wait until it serves."""
        async with self._starting:
            if self.process is None or self.process.poll() is not None:
                await self._spawn()
            self.wanted = True

    async def _spawn(self) -> None:
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        mine = {"PYTHONPATH": os.pathsep.join(self.path), "PORT": str(self.port), "HOST": "127.0.0.1"}
        self.life += 1
        with open(self.log, "ab") as log:
            log.write(f"--- life {self.life}\n".encode())
            log.flush()
            self.process = await trio.lowlevel.open_process(
                [*self.wrapper, sys.executable, "-m", "bridged", "serve", "--config", str(self.house.etc)],
                cwd=self.house.folder,
                env=kept | mine | self.environment,
                stdout=log,
                stderr=log,
            )

    async def watch(self) -> None:
        """As systemd: a daemon that ended by itself is a violation, and is started again."""
        told: trio.Process | None = None
        while True:
            process = self.process
            if self.wanted and process is not None and process is not told and (code := process.poll()) is not None:
                told = process
                said = self.log.read_text(errors="replace").rpartition("--- life")[2]
                if self.excuse and self.excuse in said and "listens on" not in said:
                    self._book.note(f"starts refused: {self.excuse}")
                else:
                    self._book.violation(f"the daemon ended by itself with {code} in life {self.life}, see {self.log}")
                await trio.sleep(RESTART)
                if self.wanted:
                    await self.start()
            await trio.sleep(0.05)

    async def kill(self) -> None:
        """SIGKILL."""
        self.wanted = False
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        with trio.move_on_after(10, shield=True):
            await self.process.wait()

    async def stop(self) -> float:
        """SIGTERM; how long it took, in seconds. What is wrong with it goes into the book."""
        self.wanted = False
        assert self.process is not None
        began = trio.current_time()
        self.process.send_signal(signal.SIGTERM)
        with trio.move_on_after(self.house.budget + 3) as scope:
            code = await self.process.wait()
            if code != 0:
                self._book.violation(f"a graceful stop ended with exit code {code}, see {self.log}")
        if scope.cancelled_caught:
            self._book.violation(f"a graceful stop took more than its {self.house.budget:g} s")
            await self.kill()
        return trio.current_time() - began

    async def ready(self, *backends: str, seconds: float = 30) -> dict[str, Any]:
        """Waits until it answers and these backends are up; its /status. Raises trio.TooSlowError."""
        async with httpx.AsyncClient(timeout=5) as http:
            with trio.fail_after(seconds):
                while True:
                    with contextlib.suppress(httpx.TransportError, ValueError):
                        facts: dict[str, Any] = (await http.get(f"{self.url}/status")).json()
                        if {b["name"] for b in facts["backends"] if b["state"] == "up"} >= set(backends):
                            return facts
                    await trio.sleep(0.05)

    def resources(self) -> Counter[str]:
        """Its open descriptors by kind, and its threads; from /proc.

        Connections of clients count apart from all others: hypercorn keeps one that its client has closed until its
        keep-alive time-out.
        """
        assert self.process is not None
        folder = Path(f"/proc/{self.process.pid}")
        counted: Counter[str] = Counter(threads=len(list((folder / "task").iterdir())))
        clients = _sockets_on(folder, self.port)
        for link in (folder / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                target = os.readlink(link)
                kind = target.partition(":")[0] if not target.startswith("/") else "file"
                counted["client socket" if target in clients else kind] += 1
        return counted

    def complaints(self) -> Counter[str]:
        """The exceptions that ended in its log with a traceback: no fault outside excuses one."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        found: Counter[str] = Counter()
        for traceback in text.split("Traceback (most recent call last):")[1:]:
            end = EXCEPTION.search(traceback)
            found[end[1] if end is not None else "an exception"] += 1
        return found


def _sockets_on(folder: Path, port: int) -> set[str]:
    """`socket:[inode]` of all TCP sockets in this process's network whose own port is this one."""
    found = set()
    for line in (folder / "net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == port:
            found.add(f"socket:[{fields[9]}]")
    return found
