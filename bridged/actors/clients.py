"""Clients: who is connected, which jobs and uploads are whose, and what becomes of the jobs of those who leave.

A client is a clientId; its session is one WebSocket connection. Only the client's own going away revokes its jobs, and
only as each was submitted (`on_disconnect`); a close that we start (job done, time-out, take-over by a second socket,
stop of the service) never does.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from bisect import insort
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from bridged.actors.books import JobRecord
from bridged.actors.dispatcher import Dispatcher
from bridged.actors.messages import CLOSED, MAX_WAITING, WORTH_TELLING, Mailbox, Message, told
from bridged.catalogue import TOKEN_PREFIX
from bridged.config.schema import Jobs
from bridged.errors import BadRequest, TooMany
from bridged.model import Grace, JobEvent, JobState, Output, StoredFile, Upload, owner_of
from bridged.store.ledger import ClientConnected, Ledger, ResultFetched, Saved, UploadAdded, UploadsForgotten

FORGET = 60.0
"""seconds that a client without a job, of whom nothing is heard, stays known"""


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

    def __init__(self, client_id: str, now: float, resume_token: str = "") -> None:
        self.client_id = client_id
        self.resume_token = resume_token
        self.jobs: OrderedDict[str, JobRecord] = OrderedDict()
        self._open: dict[str, JobRecord] = {}
        self._ready: list[tuple[int, str]] = []
        """succeeded with files and not fetched yet: (place in the order of submission, job id), sorted"""
        self._unfetched: set[str] = set()
        self._places: dict[str, int] = {}
        self.newest = Message("connected", "connected")
        self.session: Session | None = None
        self.submitted = 0
        self.last_seen = now
        self.waiting = 0
        """requests of its that wait for a job's end"""
        self.away_since: float | None = None
        """when its connection ended without being closed by us"""
        self.left: set[str] = set()
        """the jobs it left behind then"""
        self.after_restart = False
        """it had a connection when an earlier run of the service ended, and has not come back yet"""
        self.missed: list[Message] = []
        """ends of jobs that its connection would have been told of"""
        self.stopping = False
        self.job_ended = trio.Event()

    def open_jobs(self) -> list[JobRecord]:
        return list(self._open.values())

    def next_result(self, job_id: str | None = None) -> JobRecord | None:
        """The oldest finished job that was not fetched yet; by its id, also one that was: its answer may have been
        lost on the way."""
        if job_id is None:
            return self.jobs[self._ready[0][1]] if self._ready else None
        record = self.jobs.get(job_id)
        return record if record is not None and record.end_is_known and record.stored else None

    def is_fetched(self, job_id: str) -> bool:
        return job_id not in self._unfetched

    def fetched(self, job_id: str) -> None:
        """All of its results were taken."""
        if job_id in self._unfetched:
            self._unfetched.remove(job_id)
            self._ready.remove((self._places[job_id], job_id))

    def follow(self, record: JobRecord, state: JobState | None = None) -> None:
        """Keeps the books after a job was submitted or changed to `state` (its present one by default)."""
        state = state or record.state
        job_id = record.job.id
        if job_id not in self.jobs:
            self.jobs[job_id] = record
            self.submitted += 1
            self._places[job_id] = self.submitted
            self.newest = Message("progress", "0.00%", job_id)
        if not state.terminal:
            self._open[job_id] = record
        elif self._open.pop(job_id, None) is not None:
            if state is JobState.SUCCEEDED and record.outputs:
                self._offer(job_id)
            self.wake()

    def _offer(self, job_id: str) -> None:
        """Its results may be fetched: in the order of submission."""
        self._unfetched.add(job_id)
        insort(self._ready, (self._places[job_id], job_id))

    def wake(self) -> None:
        """Those who wait for the end of a job look again."""
        self.job_ended.set()
        self.job_ended = trio.Event()

    def restore(self, record: JobRecord, fetched: bool) -> None:
        """A job that an earlier run left."""
        self.follow(record)
        job_id = record.job.id
        if record.state is JobState.SUCCEEDED and record.outputs and not fetched:
            self._offer(job_id)
        for message in told(record.event()):
            self.newest = message
        if record.state is JobState.SUCCEEDED:
            self.newest = CLOSED

    async def wait_ended(self, record: JobRecord, seconds: float) -> bool:
        """Waits until the end of a job is known and safe, or for the end of the service. False where it is open."""
        job_id = record.job.id
        with trio.move_on_after(seconds), self.polling():
            while job_id in self._open and not self.stopping:
                await self.job_ended.wait()
        return job_id not in self._open

    @contextmanager
    def polling(self) -> Iterator[None]:
        """Around a request that waits: as long as it does, its client is there."""
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    def forget(self, job_id: str) -> None:
        """Its time is over."""
        self.fetched(job_id)
        self.jobs.pop(job_id, None)
        self._places.pop(job_id, None)

    def tell(self, message: Message, *, ends: bool = False, newest: bool = True) -> None:
        """`ends`: it tells of a job's end, which a client that is away must not miss."""
        if newest:
            self.newest = message
        if self.session is not None:
            self.session.mailbox.put(message)
        elif ends and self.away_since is not None and len(self.missed) < MAX_WAITING:
            self.missed.append(message)


class Clients:
    """All clients. `on_event` is what the dispatcher's publications come to. `settings` gives those in force;
    `secret` makes the tokens with which clients come back."""

    def __init__(
        self, dispatcher: Dispatcher, ledger: Ledger, settings: Callable[[], Jobs], secret: bytes = b""
    ) -> None:
        self._dispatcher = dispatcher
        self._ledger = ledger
        self._clock = ledger.now
        self._settings = settings
        self._secret = secret
        self._away: set[str] = set()
        """clients that went away and left jobs to wait for them"""
        self._leased: set[str] = set()
        """clients without a connection that have open jobs: those hold a lease, where one is set"""
        self._ended: deque[tuple[float, str, str]] = deque()
        """(when, client_id, job_id) of the ended jobs that are still known, oldest first"""
        self.stored = 0
        """bytes of results that are kept"""
        self._clients: dict[str, Client] = {}
        self._uploads: dict[str, Upload] = {}
        self._arriving: Counter[str] = Counter()
        """owner -> bytes of uploads that are under way"""
        self._stopping = False

    def get(self, client_id: str) -> Client | None:
        client = self._clients.get(client_id)
        if client is not None:
            client.last_seen = self._clock()
        return client

    def obtain(self, client_id: str) -> Client:
        client = self.get(client_id)
        if client is None:
            client = self._clients[client_id] = Client(client_id, self._clock(), self._resume_token(client_id))
        return client

    def connected(self) -> int:
        return sum(1 for client in self._clients.values() if client.session is not None)

    # -- jobs --------------------------------------------------------------------------------------------------------

    def on_event(self, event: JobEvent) -> None:
        client = self._clients.get(event.client_id) or self.obtain(event.client_id)
        record = self._dispatcher.jobs[event.job_id]
        client.follow(record, event.state)
        for message in told(event):
            client.tell(message, ends=event.state in WORTH_TELLING)
        if event.state.terminal:
            record.end_is_known = True
            self._note_end(client, record)
            if not client.open_jobs():
                # Who polls sees the newest state only: of a failed job that must stay the error, with its reason.
                client.tell(CLOSED, ends=bool(client.missed), newest=event.state is JobState.SUCCEEDED)
        elif client.session is None and event.job_id not in client.left:
            self._leased.add(client.client_id)

    def _note_end(self, client: Client, record: JobRecord) -> None:
        self._ended.append((record.ended_at or self._clock(), client.client_id, record.job.id))
        self.stored += sum(output.file.size for output in record.stored)
        if not client.open_jobs():
            self._leased.discard(client.client_id)

    def fetched(self, client: Client, job_id: str) -> None:
        """All of a job's results were taken."""
        client.fetched(job_id)
        self._ledger.write(ResultFetched(job_id))

    def restore(self, saved: Saved) -> None:
        """Takes up what an earlier run left, once the dispatcher has. Clients that were connected may come back."""
        for each in saved.jobs:
            record = self._dispatcher.jobs[each.job.id]
            client = self.obtain(each.job.client_id)
            client.restore(record, each.fetched)
            if record.state.terminal:
                record.end_is_known = True
                self._note_end(client, record)
            elif client.client_id not in saved.connected:
                self._leased.add(client.client_id)
        for client in self._clients.values():
            if client.newest == CLOSED and client.open_jobs():
                client.newest = Message("progress", "100.00%", next(reversed(client.jobs)))
        self._ended = deque(sorted(self._ended))
        self._uploads = {upload.token: upload for upload in saved.uploads}
        now = self._clock()
        for client_id in saved.connected:
            client = self.obtain(client_id)
            client.away_since, client.after_restart = now, True
            client.left = {record.job.id for record in client.open_jobs()}
            self._away.add(client_id)
            client.missed = [
                message
                for record in client.jobs.values()
                if record.state in WORTH_TELLING and (record.ended_at or 0.0) > now - self._settings().reconnect_grace
                for message in told(record.event())
            ]
            if client.missed and not client.open_jobs():
                client.missed.append(CLOSED)

    def revoke_owner(self, owner: str, reason: str) -> int:
        """Takes back all open jobs of all clients of a caller; returns how many."""
        return sum(self.revoke(c, reason) for c in list(self._clients.values()) if owner_of(c.client_id) == owner)

    def revoke(self, client: Client, reason: str) -> int:
        """Takes back all open jobs of a client; returns how many."""
        return sum(self._dispatcher.on_revoked(record.job.id, reason) for record in client.open_jobs())

    # -- connections -------------------------------------------------------------------------------------------------

    @contextmanager
    def session(self, client_id: str, *, resumed: bool = False) -> Iterator[tuple[Client, Session]]:
        """One connection's life. Being cancelled inside means that the client went away: that revokes its jobs (or
        gives it time to come back), unless we ended the session. Only plain calls are made then, so nothing awaits in
        a cancelled scope. `resumed`: it proved to be the one that went away, however long ago."""
        client = self.obtain(client_id)
        session = Session()
        if client.session is not None:
            client.session.close("another connection of this clientId took over")
        client.session = session
        self._ledger.write(ClientConnected(client_id, True))
        self._come_back(client, resumed)
        ours = False
        try:
            yield client, session
            ours = True
        except Exception:
            ours = True  # our own fault: not the client's going away
            raise
        finally:
            if client.session is session:
                client.session = None
                if not self._stopping:
                    if not ours and session.closing is None:
                        self._go_away(client)
                    if not client.left:  # else it stays written down until it is clear what becomes of those
                        self._ledger.write(ClientConnected(client_id, False))
            client.last_seen = self._clock()

    def _resume_token(self, client_id: str) -> str:
        name = base64.urlsafe_b64encode(client_id.encode()).decode()
        return f"{name}.{hmac.new(self._secret, client_id.encode(), 'sha256').hexdigest()}"

    def resumed(self, token: str) -> str:
        """The clientId that a resume token was given to, in this run of the service or an earlier one. Raises
        BadRequest: it is none of ours."""
        try:
            client_id = base64.urlsafe_b64decode(token.partition(".")[0].encode()).decode()
        except (ValueError, UnicodeError):
            client_id = ""
        if not client_id or not hmac.compare_digest(token.encode(), self._resume_token(client_id).encode()):
            raise BadRequest("this resume token is not one of ours; connect with ?clientId=… instead")
        return client_id

    def _come_back(self, client: Client, resumed: bool) -> None:
        since, missed = client.away_since, client.missed
        client.away_since, client.after_restart, client.missed, client.left = None, False, [], set()
        self._away.discard(client.client_id)
        self._leased.discard(client.client_id)
        if resumed or (since is not None and self._clock() - since <= self._settings().reconnect_grace):
            assert client.session is not None
            if resumed and not missed and client.newest.status in ("closed", "error") and not client.open_jobs():
                missed = [client.newest] if client.newest == CLOSED else [client.newest, CLOSED]
            for message in missed:
                client.session.mailbox.put(message)

    def _go_away(self, client: Client) -> None:
        """The client's own doing: what becomes of its jobs is what each was submitted with."""
        for record in client.open_jobs():
            if record.job.disconnect == "cancel":
                self._dispatcher.on_revoked(record.job.id, "its client disconnected")
        client.away_since = self._clock()
        client.left = {record.job.id for record in client.open_jobs() if not record.state.terminal}
        if client.left:
            self._away.add(client.client_id)

    def lapse(self) -> None:
        """Revokes what waits for clients that have not come back in time, and what nobody asks for any more."""
        now, settings = self._clock(), self._settings()
        for client_id in list(self._away):
            client = self._clients.get(client_id)
            if client is None or client.away_since is None or not client.left:
                self._away.discard(client_id)
                self._ledger.write(ClientConnected(client_id, False))
                continue
            away = now - client.away_since
            client.left &= {record.job.id for record in client.open_jobs()}
            for record in [client.jobs[job_id] for job_id in client.left]:
                policy = record.job.disconnect
                patience = policy.grace if isinstance(policy, Grace) else 0.0
                if client.after_restart:
                    patience = max(patience, settings.reconnect_grace)
                if policy != "detach" and away >= patience:
                    self._dispatcher.on_revoked(record.job.id, "its client disconnected and did not come back")
        lease = settings.rest_lease
        for client_id in list(self._leased) if lease > 0 else ():
            client = self._clients.get(client_id)
            if client is None or not client.open_jobs():
                self._leased.discard(client_id)
            elif client.waiting:
                client.last_seen = now
            elif now - client.last_seen > lease:
                for record in [r for r in client.open_jobs() if r.job.id not in client.left]:
                    reason = f"nobody asked for it for {lease:g} s"
                    self._dispatcher.on_revoked(record.job.id, reason, JobState.EXPIRED)

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
        self._ledger.write(UploadAdded(upload))
        return upload

    @contextmanager
    def room_for_upload(self, client_id: str, size: int, most: float) -> Iterator[None]:
        """Around `size` bytes that arrive. Raises TooMany: with them more than `most` bytes of this owner's would wait
        to be used."""
        owner = owner_of(client_id)
        waiting = sum(u.file.size for u in self._uploads.values() if owner_of(u.client_id) == owner)
        if waiting + self._arriving[owner] + size > most:
            raise TooMany(f"{waiting / 1e6:.0f} MB of your uploads wait to be used already; they expire by and by", 60)
        self._arriving[owner] += size
        try:
            yield
        finally:
            self._arriving[owner] -= size
            if not self._arriving[owner]:
                del self._arriving[owner]

    def uploads_of(self, client_id: str) -> list[Upload]:
        """The client's own, those that can be used; oldest first."""
        now = self._clock()
        return [u for u in self._uploads.values() if u.client_id == client_id and u.expires_at > now]

    def resolve(self, client_id: str, token: str) -> StoredFile:
        """The client's own upload. Raises BadRequest: unknown, expired, or somebody else's (told apart to nobody)."""
        upload = self._uploads.get(token)
        if upload is None or upload.client_id != client_id or upload.expires_at <= self._clock():
            raise BadRequest("unknown or expired upload token; upload the file again")
        return upload.file

    # -- the janitor -------------------------------------------------------------------------------------------------

    def expire(self, result_ttl: float, max_stored: float) -> list[StoredFile]:
        """Forgets what is over: uploads past their time and not in use, jobs past theirs, files of delivered results
        beyond `max_stored` bytes, oldest first, and silent clients without jobs. Returns the files to remove."""
        now = self._clock()
        files = self._expire_uploads(now)
        while self._ended and self._ended[0][0] + result_ttl <= now:
            _, client_id, job_id = self._ended.popleft()
            files += self._forget(client_id, job_id)
        if self.stored > max_stored:
            for _, client_id, job_id in self._ended:
                if self.stored <= max_stored:
                    break
                client = self._clients[client_id]
                outputs = client.jobs[job_id].stored
                if outputs and client.is_fetched(job_id):
                    files += self._drop(outputs)
                    self._dispatcher.drop_outputs(job_id)
        for client_id, client in list(self._clients.items()):
            if not client.jobs and client.session is None and client.last_seen + min(result_ttl, FORGET) <= now:
                del self._clients[client_id]
        return files

    def _expire_uploads(self, now: float) -> list[StoredFile]:
        over = [upload for upload in self._uploads.values() if upload.expires_at <= now]
        if not over:
            return []
        in_use = {
            use.file.sha256
            for client in self._clients.values()
            for record in client.open_jobs()
            for use in record.job.files
        }
        over = [upload for upload in over if upload.file.sha256 not in in_use]
        for upload in over:
            del self._uploads[upload.token]
        self._ledger.write(UploadsForgotten(tuple(upload.token for upload in over)))
        return [upload.file for upload in over]

    def _forget(self, client_id: str, job_id: str) -> list[StoredFile]:
        client = self._clients[client_id]
        files = self._drop(client.jobs[job_id].stored)
        client.forget(job_id)
        self._dispatcher.forget(job_id)
        return files

    def _drop(self, outputs: Iterable[Output]) -> list[StoredFile]:
        files = [output.file for output in outputs]
        self.stored -= sum(file.size for file in files)
        return files

    def files(self) -> set[Path]:
        """Every file of the spool that somebody may still ask for."""
        known = {upload.file.path for upload in self._uploads.values()}
        for client in self._clients.values():
            for record in client.jobs.values():
                known |= {output.file.path for output in record.outputs} | {use.file.path for use in record.job.files}
        return known
