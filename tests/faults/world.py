"""One daemon, its PCs, their owners and the clients: set up, healed, settled and judged."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import trio

from . import owner
from .book import Book
from .customers import Customers
from .diary import Diaries
from .house import House, known_settings
from .invariants import Executions, check_ends, check_owners, check_spool, surplus
from .machines import ROOT, Machine
from .service import Service


@dataclass(frozen=True)
class Scale:
    """How much of everything. `patience` (s) is how long a healed world may take until all jobs have ended."""

    name: str
    pcs: int
    in_flight: int
    sockets: int
    rounds: int
    patience: float
    allowed: dict[str, int] = field(default_factory=dict)
    """what an idle daemon may have more of after work than before it"""


FULL = Scale("full", 6, 100, 6, 50, 180.0, {"threads": 2, "socket": 30, "file": 2})
SMALL = Scale("small", 3, 16, 2, 4, 40.0, {"threads": 40, "socket": 15, "client socket": 60, "file": 2})
"""An idle thread stays for 10 s, and an idle connection of a client for 75 s: a small run does not wait for them. A PC
may have five connections that are kept for later."""

RESOURCES_WITHIN = 100.0
"""seconds until an idle daemon must be as it was before its work"""


@dataclass
class Verdict:
    """What a scenario came to."""

    scenario: str
    seed: str
    seconds: float = 0.0
    acknowledged: int = 0
    lost: int = 0
    duplicates: int = 0
    reruns: int = 0
    owners: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    skipped: str = ""


class World:
    def __init__(self, folder: Path, seed: str, scale: Scale, nursery: trio.Nursery, source: Path) -> None:
        self.folder, self.seed, self.scale, self.nursery = folder, seed, scale, nursery
        self.rng = random.Random(seed)
        self.book = Book(first_value=self.rng.randrange(1_000_000, 8_000_000))
        self.house = House(folder, folder / "state", known_settings(source))
        self.service = Service(self.house, self.book, source)
        self.machines = [Machine(f"pc-{number}", folder, seed) for number in range(1, scale.pcs + 1)]
        self.customers = Customers(self.service, self.book, seed, nursery)
        self.spool = self.house.state / "spool"
        self.calm = trio.Event()
        """set when no more faults come: owners stop then"""
        self.before: Counter[str] = Counter()
        self.stack = AsyncExitStack()
        """what a scenario needs until everything is judged"""

    async def set_up(self, owners_rest: float = 2.0) -> None:
        """PCs, the daemon (`before` is what it needs while it does nothing), the owners."""
        async with trio.open_nursery() as nursery:
            for machine in self.machines:
                await self.nursery.start(machine.proxy.serve)
                nursery.start_soon(machine.start)
            self.write_backends()
            nursery.start_soon(self.service.start)
        await self.service.ready(*self.names)
        self.before = self.service.resources()
        self.nursery.start_soon(self.service.watch)
        self.nursery.start_soon(owner.work_now_and_then, self.machines, self.seed, owners_rest, self.calm)

    @property
    def names(self) -> list[str]:
        return [machine.name for machine in self.machines]

    def write_backends(self, drained: tuple[str, ...] = (), without: tuple[str, ...] = ()) -> None:
        listed = [(machine.name, machine.url) for machine in self.machines if machine.name not in without]
        self.house.write_backends(listed, drained)

    async def flow(self, ended: int, seconds: float = 60) -> None:
        """Until so many more jobs have ended: what a scenario waits for instead of a time."""
        goal = self.ended() + ended
        with trio.move_on_after(seconds):
            while self.ended() < goal:
                await trio.sleep(0.05)

    def ended(self) -> int:
        return sum(work.ended.is_set() for work in self.book.works)

    async def settle(self) -> None:
        """No more faults: heals everything, and waits until all that was acknowledged has ended and is fetched."""
        self.calm.set()
        self.house.write_settings()
        self.write_backends()
        if not self.service.wanted:
            await self.service.start()
        async with trio.open_nursery() as nursery:
            for machine in self.machines:
                nursery.start_soon(machine.heal)
        self.customers.enough.set()
        with trio.move_on_after(self.scale.patience) as patience:
            await self.customers.all_acknowledged()
            for work in self.book.acknowledged:
                await work.ended.wait()
            for machine in self.machines:
                while await self._remaining(machine):
                    await trio.sleep(0.05)
        if patience.cancelled_caught:
            self.book.violation(f"{self.scale.patience:g} s after the last fault there was left: {await self._left()}")
        with trio.move_on_after(self.scale.patience):
            await self._fetch_all()

    async def _left(self) -> str:
        """What has not ended, for whoever looks for the reason."""
        works = self.book.works
        asking = [f"{work} was not acknowledged" for work in works if work.job_id is None]
        running = [f"{work} has not ended" for work in works if work.job_id is not None and not work.ended.is_set()]
        prompts = [f"{n} prompts on {m.name}" for m in self.machines if (n := await self._remaining(m))]
        return "; ".join([*asking, *running, *prompts]) or f"{self.customers.busy} slots at work"

    async def _remaining(self, machine: Machine) -> int:
        try:
            return await machine.remaining()
        except httpx.TransportError:
            return 1

    async def _fetch_all(self) -> None:
        async with trio.open_nursery() as nursery:
            for customer in self.customers.all:
                nursery.start_soon(self._fetch, customer)

    async def _fetch(self, customer: Any) -> None:
        for work in customer.works:
            while not await customer.fetch(work):
                await trio.sleep(0.05)

    async def judge(self, verdict: Verdict) -> None:
        """Checks all invariants, the graceful stop and the life after it included."""
        book = self.book
        await self._look_at_all()
        diaries = Diaries(machine.diary for machine in self.machines)
        executions = Executions(book, diaries)
        check_ends(book)
        histories = {machine.name: await machine.history() for machine in self.machines}
        verdict.owners = check_owners(book, diaries, histories)
        check_spool(book, self.spool)
        await self._check_resources()
        await self.service.stop()
        await self.service.start()
        await self.service.ready(*self.names)
        await self._look_at_all()  # the book notes what is not as it was
        await self.service.stop()
        for exception, count in self.service.complaints().items():
            book.violation(f"{count} tracebacks in {self.service.log}: {exception[:200]}")
        self._sum_up(verdict, executions)

    async def tear_down(self) -> None:
        """Ends every process and connection that is left."""
        await self.customers.hang_up()
        for machine in self.machines:
            await machine.kill()
        if self.service.process is not None:
            await self.service.kill()
        await self.stack.aclose()

    async def _look_at_all(self) -> None:
        with trio.move_on_after(60) as scope:
            for customer in self.customers.all:
                while customer.works and not await customer.look():
                    await trio.sleep(0.1)
        if scope.cancelled_caught:
            self.book.violation("the daemon does not tell the states of all jobs within 60 s")

    async def _check_resources(self) -> None:
        await self.customers.hang_up()
        with trio.move_on_after(RESOURCES_WITHIN):
            while surplus(self.before, self.service.resources(), self.scale.allowed):
                await trio.sleep(0.2)
            return
        more = surplus(self.before, self.service.resources(), self.scale.allowed)
        self.book.violation(f"idle after work, the daemon has more than before it: {more}")

    def _sum_up(self, verdict: Verdict, executions: Executions) -> None:
        book = self.book
        verdict.acknowledged = len(book.acknowledged)
        verdict.ends = Counter(work.terminal or "open" for work in book.acknowledged)
        verdict.lost = verdict.ends["open"] + verdict.ends["lost"]
        verdict.duplicates, verdict.reruns = executions.duplicates, executions.reruns
        verdict.faults, verdict.notes, verdict.violations = book.faults, book.notes, book.violations


@asynccontextmanager
async def world(seed: str, scale: Scale, source: Path = ROOT, keep: bool = False) -> AsyncIterator[World]:
    """A world in a folder of its own, which is kept where something was wrong, or where that is asked for."""
    folder = Path(tempfile.mkdtemp(prefix="bridged-faults-"))
    made: World | None = None
    try:
        async with trio.open_nursery() as nursery:
            made = World(folder, seed, scale, nursery, source)
            try:
                yield made
            finally:
                nursery.cancel_scope.cancel()
    finally:
        # After the nursery: nobody opens a connection or starts a process any more.
        with trio.move_on_after(30, shield=True):
            if made is not None:
                await made.tear_down()
    if made.book.violations or keep:
        print(f"  kept: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
