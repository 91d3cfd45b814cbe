"""Clients: who is connected, which jobs and uploads are whose, and what each is told.

A client is a clientId; its session is one WebSocket connection. Only the client's own going away revokes its jobs; a
close that we start (job done, time-out, take-over by a second socket, stop of the service) never does.
"""

from __future__ import annotations

import math
import secrets
from bisect import insort
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
import trio

from bridged.actors.dispatcher import Dispatcher, JobRecord
from bridged.catalogue import TOKEN_PREFIX
from bridged.errors import BadRequest
from bridged.model import JobEvent, JobState, StoredFile

MAX_WAITING = 1024
"""messages that wait for one socket. Progress is coalesced per job, so this is about as many jobs ending at once; a
client that does not take a terminal message within it is disconnected."""


PACE = 0.05
"""seconds between two messages of mere progress on one socket: nobody reads more than 20 a second"""


class Message(msgspec.Struct, frozen=True):
    """One WebSocket message, or the newest state for /execution-info."""

    status: str
    detail: str
    job_id: str | None = None


class Upload(msgspec.Struct, frozen=True):
    token: str
    client_id: str
    name: str
    file: StoredFile
    expires_at: float


class Mailbox:
    """What waits to be sent to one socket: progress coalesces to the newest per job, the rest keeps its order."""

    def __init__(self) -> None:
        self._messages: OrderedDict[tuple[str, str | None, int], Message] = OrderedDict()
        self._serial = 0
        self._news = trio.Event()
        self._urgent = trio.Event()
        self.overflowed = False

    def put(self, message: Message) -> None:
        if message.status == "progress":
            key = ("progress", message.job_id, 0)
            self._messages.pop(key, None)
        else:
            self._serial += 1
            key = (message.status, message.job_id, self._serial)
            self._urgent.set()
        if len(self._messages) >= MAX_WAITING:
            self.overflowed = True
            self._urgent.set()
        else:
            self._messages[key] = message
        self._news.set()

    def wake(self) -> None:
        """Something other than progress is to be looked at."""
        self._news.set()
        self._urgent.set()

    async def wait(self) -> None:
        await self._news.wait()

    async def wait_urgent(self) -> None:
        """Until there is something that cannot wait: anything but progress."""
        await self._urgent.wait()

    def take(self) -> list[Message]:
        self._news, self._urgent = trio.Event(), trio.Event()
        messages = list(self._messages.values())
        self._messages.clear()
        return messages


class Session:
    """One connection of a client."""

    def __init__(self) -> None:
        self.mailbox = Mailbox()
        self.closing: str | None = None
        """why we end it: then its end revokes nothing"""

    def close(self, reason: str) -> None:
        self.closing = reason
        self.mailbox.wake()


class Client:
    """One clientId: its jobs in the order of submission, its newest state, its session if it is connected."""

    def __init__(self, client_id: str, now: float) -> None:
        self.client_id = client_id
        self.jobs: OrderedDict[str, JobRecord] = OrderedDict()
        self._open: dict[str, JobRecord] = {}
        self._ready: list[tuple[int, str]] = []
        """succeeded with files and not fetched yet: (place in the order of submission, job id), sorted"""
        self._places: dict[str, int] = {}
        self.newest = Message("connected", "connected")
        self.session: Session | None = None
        self.submitted = 0
        self.last_seen = now
        self.stopping = False
        self.job_ended = trio.Event()

    def open_jobs(self) -> list[JobRecord]:
        return list(self._open.values())

    def next_result(self, job_id: str | None = None) -> JobRecord | None:
        """The oldest finished job that was not fetched yet, or that job if it is one."""
        if job_id is None and self._ready:
            job_id = self._ready[0][1]
        if job_id is None or (self._places.get(job_id, 0), job_id) not in self._ready:
            return None
        return self.jobs[job_id]

    def fetched(self, job_id: str) -> None:
        """All of its results were taken."""
        with suppress(ValueError):
            self._ready.remove((self._places.get(job_id, 0), job_id))

    def follow(self, record: JobRecord) -> None:
        """Keeps the books after a job was submitted or changed."""
        job_id = record.job.id
        if job_id not in self.jobs:
            self.jobs[job_id] = record
            self.submitted += 1
            self._places[job_id] = self.submitted
            self.newest = Message("progress", "0.00%", job_id)
        if not record.state.terminal:
            self._open[job_id] = record
        elif self._open.pop(job_id, None) is not None:
            if record.state is JobState.SUCCEEDED and record.outputs:
                insort(self._ready, (self._places[job_id], job_id))
            self.wake()

    def wake(self) -> None:
        """Those who wait for the end of a job look again."""
        self.job_ended.set()
        self.job_ended = trio.Event()

    async def wait_ended(self, record: JobRecord, seconds: float) -> bool:
        """Waits for the end of a job, or of the service. False where it is still open."""
        with trio.move_on_after(seconds):
            while not record.state.terminal and not self.stopping:
                await self.job_ended.wait()
        return record.state.terminal

    def forget(self, job_id: str) -> None:
        """Its time is over."""
        self.fetched(job_id)
        self.jobs.pop(job_id, None)
        self._places.pop(job_id, None)

    def tell(self, message: Message, *, newest: bool = True) -> None:
        if newest:
            self.newest = message
        if self.session is not None:
            self.session.mailbox.put(message)


class Clients:
    """All clients. `on_event` is what the dispatcher's publications come to."""

    def __init__(self, dispatcher: Dispatcher, clock: Callable[[], float]) -> None:
        self._dispatcher = dispatcher
        self._clock = clock
        self._clients: dict[str, Client] = {}
        self._uploads: dict[str, Upload] = {}
        self._stopping = False

    def get(self, client_id: str) -> Client | None:
        client = self._clients.get(client_id)
        if client is not None:
            client.last_seen = self._clock()
        return client

    def obtain(self, client_id: str) -> Client:
        client = self.get(client_id)
        if client is None:
            client = self._clients[client_id] = Client(client_id, self._clock())
        return client

    def connected(self) -> int:
        return sum(1 for client in self._clients.values() if client.session is not None)

    # -- jobs --------------------------------------------------------------------------------------------------------

    def on_event(self, event: JobEvent) -> None:
        client = self.obtain(event.client_id)
        client.follow(self._dispatcher.jobs[event.job_id])
        for status, detail in _told(event):
            client.tell(Message(status, detail, event.job_id))
        if event.state.terminal and not client.open_jobs():
            # Who polls sees the newest state only: of a failed job that must stay the error, with its reason.
            client.tell(Message("closed", "Execution is done"), newest=event.state is JobState.SUCCEEDED)

    def revoke(self, client: Client, reason: str) -> int:
        """Takes back all open jobs of a client; returns how many."""
        return sum(self._dispatcher.on_revoked(record.job.id, reason) for record in client.open_jobs())

    # -- connections -------------------------------------------------------------------------------------------------

    @contextmanager
    def session(self, client_id: str) -> Iterator[tuple[Client, Session]]:
        """One connection's life. Being cancelled inside means that the client went away: that revokes its jobs,
        unless we ended the session. Only plain calls are made then, so nothing awaits in a cancelled scope."""
        client = self.obtain(client_id)
        session = Session()
        if client.session is not None:
            client.session.close("another connection of this clientId took over")
        client.session = session
        ours = False
        try:
            yield client, session
            ours = True
        except Exception:
            ours = True  # our own fault: not the client's going away
            raise
        finally:
            if not ours and session.closing is None and not self._stopping:
                self.revoke(client, "its client disconnected")
            if client.session is session:
                client.session = None
            client.last_seen = self._clock()

    def stop(self) -> None:
        """The service stops: every session is closed by us, which revokes nothing."""
        self._stopping = True
        for client in self._clients.values():
            if client.session is not None:
                client.session.close("the service is stopping")
            client.stopping = True
            client.wake()

    # -- uploads -----------------------------------------------------------------------------------------------------

    def add_upload(self, client_id: str, name: str, file: StoredFile, ttl: float) -> Upload:
        self.obtain(client_id)
        token = TOKEN_PREFIX + secrets.token_urlsafe(24)
        upload = Upload(token, client_id, name, file, self._clock() + ttl)
        self._uploads[token] = upload
        return upload

    def resolve(self, client_id: str, token: str) -> StoredFile:
        """The client's own upload. Raises BadRequest: unknown, expired, or somebody else's (told apart to nobody)."""
        upload = self._uploads.get(token)
        if upload is None or upload.client_id != client_id or upload.expires_at <= self._clock():
            raise BadRequest("unknown or expired upload token; upload the file again")
        return upload.file

    # -- the janitor -------------------------------------------------------------------------------------------------

    def expire(self, result_ttl: float) -> list[StoredFile]:
        """Forgets what is over: uploads past their time and not in use, results past theirs, silent clients without
        jobs. Returns the files to remove."""
        now = self._clock()
        files: list[StoredFile] = []
        in_use = {
            use.file.sha256
            for client in self._clients.values()
            for record in client.open_jobs()
            for use in record.job.files
        }
        for token, upload in list(self._uploads.items()):
            if upload.expires_at <= now and upload.file.sha256 not in in_use:
                del self._uploads[token]
                files.append(upload.file)
        for client_id, client in list(self._clients.items()):
            for job_id, record in list(client.jobs.items()):
                if record.ended_at is not None and record.ended_at + result_ttl <= now:
                    client.forget(job_id)
                    self._dispatcher.forget(job_id)
                    files.extend(output.file for output in record.outputs)
            if not client.jobs and client.session is None and client.last_seen + result_ttl <= now:
                del self._clients[client_id]
        return files


def _told(event: JobEvent) -> Iterator[tuple[str, str]]:
    """What a client is told of a job's change, in the wire contract's words."""
    match event.state:
        case JobState.RUNNING:
            yield "progress", f"{event.percent:.2f}%"
        case JobState.SUCCEEDED:
            yield "progress", "100.00%"
        case JobState.FAILED | JobState.CANCELLED | JobState.EXPIRED:
            yield "error", event.failure.message if event.failure else event.state.value


async def converse(
    client: Client, session: Session, *, interval: float, limit: int
) -> AsyncGenerator[Message, None]:
    """What one connection is sent, in order, until we end it: `listening` every `interval` seconds while nothing else
    is said; after `limit` of them with no job submitted a time-out error."""
    yield Message("connected", f"connected / {client.client_id}")
    for record in client.open_jobs():
        if record.state is JobState.RUNNING:
            yield Message("progress", f"{record.percent:.2f}%", record.job.id)
    submitted = client.submitted
    idle = 0
    spoke = -math.inf
    while session.closing is None:
        with trio.move_on_after(interval) as patience:
            await session.mailbox.wait()
        with trio.move_on_at(spoke + PACE):
            await session.mailbox.wait_urgent()
        if session.mailbox.overflowed:
            session.close("it does not take its messages")
            return
        messages = session.mailbox.take()
        spoke = trio.current_time() if messages else spoke
        for message in messages:
            if message.status == "closed" and client.open_jobs():
                continue  # a new job came before this was sent
            if message.status == "closed":
                session.close("done")
            yield message
            if session.closing is not None:
                return
        if patience.cancelled_caught and not messages:
            idle = idle + 1 if client.submitted == submitted and not client.open_jobs() else 0
            if idle >= limit:
                yield Message("error", f"time out error: exceed {limit * interval:g}s")
                session.close("timed out")
                return
            yield Message("listening", "listening")


def info(client: Client | None) -> dict[str, Any] | None:
    """The answer of /execution-info."""
    if client is None:
        return None
    answer: dict[str, Any] = {"status": client.newest.status, "detail": client.newest.detail}
    if client.jobs:
        record = next(reversed(client.jobs.values()))
        answer |= {"details": answer["detail"], "job_id": record.job.id, "state": record.state.value}
        if record.failure is not None:
            answer |= {"reason": record.failure.message, "fault": record.failure.fault.value}
    return answer
