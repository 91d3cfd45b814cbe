"""The clients: they submit until they are acknowledged, look at their jobs all the time, and fetch what is done."""

from __future__ import annotations

import base64
import contextlib
import json
import random
from typing import Any

import httpx
import trio
import trio_websocket

from .book import Book, Work
from .pictures import picture_of
from .service import Service

PAUSE = 0.1
"""seconds before a client tries again"""

JOBS_EACH = 25
"""jobs of one client: then its slot goes on as a new one, so that lists stay short"""

HANDSHAKE = 15.0
"""seconds"""

REFUSALS = 50
"""answers that are neither yes nor "later", before a client complains"""


class Customer:
    """One clientId. Plain HTTP, no code of the product."""

    def __init__(self, name: str, service: Service, book: Book, interval: float) -> None:
        self.name = name
        self.works: list[Work] = []
        self._service = service
        self._book = book
        self._interval = interval
        self.http = self._connections()

    def _connections(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self._service.url, params={"clientId": self.name}, timeout=15)

    async def hang_up(self) -> None:
        """Closes its connections; it opens others when it needs them."""
        http, self.http = self.http, self._connections()
        await http.aclose()

    async def submit(self, work: Work) -> None:
        """Says it again, under the same key, until it is acknowledged."""
        self.works.append(work)
        refused = 0
        body: dict[str, Any] = {"workflow": work.alias, "1/color": work.value}
        if work.alias == "blend":
            body["5/image"] = await self._upload()
        while True:
            try:
                answer = await self.http.post(
                    "/generate-based-workflow", json=body, headers={"Idempotency-Key": work.key}
                )
            except httpx.TransportError:
                self._book.note("submissions whose answer was lost")
            else:
                if answer.status_code == 200:
                    self._book.acknowledge(work, answer.json()["job_id"])
                    return
                if answer.status_code not in (429, 503):
                    if work.alias == "blend" and answer.status_code == 400:
                        self._book.note("uploads forgotten before they were used")
                        self.works.remove(work)
                        return
                    refused += 1
                    self._book.note(f"submissions refused with {answer.status_code}")
                    if refused == REFUSALS:
                        self._book.violation(f"{work} is refused: {answer.status_code} {answer.text[:200]}")
                        return
                else:
                    self._book.note(f"submissions put off with {answer.status_code}")
            await trio.sleep(PAUSE)

    async def _upload(self) -> str:
        """The token of a picture that the daemon has taken."""
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = await self.http.post("/upload", files={"picture": ("photo.png", picture_of(3))})
                if answer.status_code == 200:
                    return str(answer.json()["picture"])
            await trio.sleep(PAUSE)

    async def look(self) -> bool:
        """One look at all its jobs. True where the daemon answered."""
        open_works = [work for work in self.works if work.job_id is not None]
        life = self._service.life
        try:
            answer = await self.http.get("/jobs")
            if answer.status_code != 200:
                if answer.status_code not in (429, 503):
                    self._book.violation(f"GET /jobs?clientId={self.name}: {answer.status_code} {answer.text[:200]}")
                return False
            jobs = {job["job_id"]: job for job in answer.json()["jobs"]}
            for work in open_works:
                job = jobs.get(work.job_id) or await self.job(work)
                if job is not None:
                    self._book.saw(work, job, life if life == self._service.life else life + 1)
        except httpx.TransportError:
            return False
        return True

    async def job(self, work: Work) -> dict[str, Any] | None:
        """GET /jobs/{id}. Raises httpx.TransportError."""
        answer = await self.http.get(f"/jobs/{work.job_id}")
        if answer.status_code == 404:
            self._book.gone(work, "GET /jobs/{job_id}")
        if answer.status_code != 200:
            return None
        job: dict[str, Any] = answer.json()
        return job

    async def keep_looking(self) -> None:
        """Samples until cancelled."""
        while True:
            if any(work.job_id is not None and not work.ended.is_set() for work in self.works):
                await self.look()
            await trio.sleep(self._interval)

    async def fetch(self, work: Work) -> bool:
        """Fetches and checks the result of a job that succeeded. True where nothing is left to fetch."""
        if work.delivered or work.terminal != "succeeded":
            return True
        query = {"jobId": str(work.job_id), "resType": "base64"}
        try:
            answer = await self.http.get("/history", params=query)
        except httpx.TransportError:
            work.broken_fetches += 1
            return False
        if answer.status_code == 503:
            return False
        if answer.status_code != 200:
            broken = f", after {work.broken_fetches} answers that broke off" if work.broken_fetches else ""
            told = f"succeeded, says /jobs, and /history does not have it: {answer.status_code}{broken}"
            self._book.violation(f"{work} {told}")
            return True
        contents = [base64.b64decode(file["content"]) for file in answer.json()["files"]]
        if contents != [picture_of(work.value)]:
            self._book.violation(f"{work} has the wrong result: {[len(content) for content in contents]} bytes")
        work.delivered = True
        return True

    async def interrupt(self) -> None:
        """Takes all its jobs back."""
        for work in self.works:
            work.may_cancel = True
        with contextlib.suppress(httpx.TransportError):
            await self.http.post("/interrupt")

    async def socket(self, work: Work) -> None:
        """A WebSocket until its job has ended; comes back at once where the connection breaks."""
        while not work.ended.is_set():
            with contextlib.suppress(OSError):
                stream = await trio.open_tcp_stream("127.0.0.1", self._service.port)
                try:
                    await self._converse(stream, work)
                finally:  # trio-websocket leaves it open where the handshake fails
                    await trio.aclose_forcefully(stream)
            await trio.sleep(PAUSE)

    async def _converse(self, stream: trio.SocketStream, work: Work) -> None:
        """One connection, until it ends or the job has."""
        host = f"127.0.0.1:{self._service.port}"
        async with trio.open_nursery() as nursery:
            with contextlib.suppress(trio_websocket.HandshakeError, trio_websocket.ConnectionClosed):
                path = f"/ws?clientId={self.name}"
                # trio-websocket may wait for ever for a handshake whose server was killed meanwhile.
                with trio.move_on_after(HANDSHAKE) as patience:
                    ws = await trio_websocket.wrap_client_stream(nursery, stream, host, path)
                if patience.cancelled_caught:
                    self._book.note("handshakes that were not answered")
                    nursery.cancel_scope.cancel()
                    return
                if work.job_id is None:
                    await self.submit(work)
                await self._listen(ws, work)
                with trio.move_on_after(1):
                    await ws.aclose()
            nursery.cancel_scope.cancel()

    async def _listen(self, ws: trio_websocket.WebSocketConnection, work: Work) -> None:
        highest = 0.0
        while not work.ended.is_set():
            message: dict[str, Any] = json.loads(await ws.get_message())
            if message["status"] == "progress" and message.get("job_id") == work.job_id:
                percent = float(message["detail"].rstrip("%"))
                if percent < highest:
                    self._book.violation(f"{work}: its WebSocket said {percent}% after {highest}%")
                highest = percent


class Customers:
    """All of them. `keep` holds so many jobs in flight until `enough` is set."""

    def __init__(self, service: Service, book: Book, seed: str, nursery: trio.Nursery) -> None:
        self.all: list[Customer] = []
        self.enough = trio.Event()
        self.interval = 0.25
        self.breaking = 0.04  # share of jobs whose workflow fails by itself
        self.uploading = 0.1  # share of jobs that bring a picture
        self.leaving = 0.0  # share of jobs that are taken back, or whose WebSocket goes away
        self._service, self._book, self._seed, self._nursery = service, book, seed, nursery
        self._busy = 0
        self._idle = trio.Event()

    def keep(self, in_flight: int, sockets: int = 0) -> None:
        """Starts slots that hold one open job each, several of them a client; `sockets` more with a WebSocket each."""
        for number in range(0, in_flight, 10):
            share = [f"{number + slot}" for slot in range(min(10, in_flight - number))]
            self._start(self._group, number, share)
        for number in range(sockets):
            self._start(self._socket_slot, number)

    def _start(self, *arguments: Any) -> None:
        self._busy += 1
        self._nursery.start_soon(self._counted, *arguments)

    async def _counted(self, slot: Any, *arguments: Any) -> None:
        try:
            await slot(*arguments)
        finally:
            self._busy -= 1
            if self._busy == 0:
                self._idle.set()

    @property
    def busy(self) -> int:
        return self._busy

    async def all_acknowledged(self) -> None:
        """After `enough`: every submission that was begun is acknowledged."""
        while self._busy:
            await self._idle.wait()

    def _new(self, name: str) -> Customer:
        customer = Customer(name, self._service, self._book, self.interval)
        self.all.append(customer)
        self._nursery.start_soon(customer.keep_looking)
        return customer

    async def _group(self, number: int, slots: list[str]) -> None:
        """Ten slots or so that are one client, and then the next one."""
        turn = 0
        while not self.enough.is_set():
            turn += 1
            customer = self._new(f"client-{number}-{turn}")
            async with trio.open_nursery() as nursery:
                for slot in slots:
                    nursery.start_soon(self._slot, customer, random.Random(f"{self._seed}/{slot}/{turn}"))

    async def _slot(self, customer: Customer, rng: random.Random) -> None:
        while not self.enough.is_set() and len(customer.works) < JOBS_EACH:
            work = self._book.new(customer.name, self._alias(rng.random()))
            await customer.submit(work)
            if work.job_id is None:
                continue
            if rng.random() < self.leaving:
                await trio.sleep(rng.random())
                await customer.interrupt()
            await self._ended(work)
            if rng.random() < 0.5:
                await customer.fetch(work)

    def _alias(self, chance: float) -> str:
        if chance < self.breaking:
            return "break"
        return "blend" if chance < self.breaking + self.uploading else "paint"

    async def _socket_slot(self, number: int) -> None:
        turn = 0
        while not self.enough.is_set():
            turn += 1
            customer = self._new(f"socket-{number}-{turn}")
            rng = random.Random(f"{self._seed}/socket/{number}/{turn}")
            work = self._book.new(customer.name, "paint")
            with trio.CancelScope() as patience:
                if rng.random() < self.leaving:
                    work.may_cancel = True
                    patience.deadline = trio.current_time() + 2 * rng.random()
                await customer.socket(work)
            if work.job_id is not None:
                await self._ended(work)

    async def _ended(self, work: Work) -> None:
        """The job's end, or the end of the run, whichever is first."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_on_enough, nursery.cancel_scope)
            await work.ended.wait()
            nursery.cancel_scope.cancel()

    async def _cancel_on_enough(self, scope: trio.CancelScope) -> None:
        await self.enough.wait()
        scope.cancel()

    async def hang_up(self) -> None:
        for customer in self.all:
            await customer.hang_up()
