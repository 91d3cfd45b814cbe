"""One backend's actor: its event socket, its health, and every attempt that was placed on it.

It follows one long-lived WebSocket; `/queue` and `/history` are the second witness wherever the socket may have
missed something. Nothing here decides where jobs go: it reports to the dispatcher and does what Effects say.
"""

from __future__ import annotations

import logging
import random
import ssl
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial

import msgspec
import trio

from bridged.actors.attempt import Desired, Follow, Lost
from bridged.actors.control import Control
from bridged.actors.deadlines import Deadlines
from bridged.actors.dispatcher import Dispatcher
from bridged.actors.health import FIRST_PROBATION, REFUSED_RETRY, Health, Outage
from bridged.actors.nodes import COMBOS, Nodes
from bridged.actors.patch import Patch
from bridged.actors.runner import Runner
from bridged.comfy import protocol
from bridged.comfy.client import ComfyClient
from bridged.comfy.eventsocket import EventSocket
from bridged.config.schema import Backend, Settings
from bridged.config.tls import ClientContexts
from bridged.errors import BackendUnavailable, ConfigError
from bridged.files.spool import Spool
from bridged.model import Attempt, Job, Lending
from bridged.nodedefs.parse import ClassesReader, NodeClasses
from bridged.store.ledger import Ledger

log = logging.getLogger(__name__)

FIRST_RETRY, LAST_RETRY = 0.25, 10.0
"""seconds between attempts to connect: doubling, with jitter, back to the first after a connection that worked"""

PROBES = 2
"""look-ups without an answer after which its event socket is not believed any more"""

IDLE_PROBE = 15.0
"""seconds between probes of a backend that says nothing and has nothing of ours"""


class Shared(msgspec.Struct, frozen=True):
    """What all actors share."""

    dispatcher: Dispatcher
    nodes: Nodes
    spool: Spool
    ledger: Ledger
    ssl_context: ssl.SSLContext
    client_id: str
    settings: Callable[[], Settings]
    own_contexts: ClientContexts = msgspec.field(default_factory=ClientContexts)
    """of the backends that have TLS files of their own; `ssl_context` is all others'"""


class BackendActor:
    """`run` does everything; `start`, `cancel` and `withdraw` are plain calls that only tell it what is wanted."""

    def __init__(self, config: Backend, shared: Shared, outage: Outage) -> None:
        self.name = config.name
        self._config = config
        self._shared = shared
        self._dispatcher = shared.dispatcher
        self._client = ComfyClient(
            config.url,
            dict(config.headers),
            f"{shared.client_id}-{config.name}",  # its own: a renamed one's late close would take our events away
            # Until its own files were read, nobody is trusted: it may be meant to be known by them alone.
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if _has_tls_files(config) else shared.ssl_context,
            config.token,
        )
        self._tls_problem = self._why_down = ""
        self._classes = ClassesReader()
        self._follows: dict[str, Follow] = {}
        self.patch = Patch(
            self.name,
            self._client,
            has_token=bool(config.token),
            lease=lambda: shared.settings().jobs.lease,
            on_lending=partial(shared.dispatcher.on_lending, config.name),
            is_needed=lambda: any(follow.open for follow in self._follows.values()),
        )
        self._control = Control(self._client, self.name, lambda: self.patch.info is not None)
        self._runner = Runner(
            self.name,
            self._client,
            self._control,
            self.patch,
            shared.dispatcher,
            shared.spool,
            shared.ledger,
            shared.settings,
            lambda graph: shared.nodes.localised(config.name, graph),
        )
        self._nursery: trio.Nursery | None = None
        self._socket: EventSocket | None = None
        self._health = Health(self.name, outage, trio.current_time())
        self._deadlines = Deadlines(
            self.name,
            self._follows,
            self._control,
            self._health,
            lambda: shared.settings().jobs,
            partial(outage.covers, self.name),
        )
        self._emptied = trio.Event()
        self._checking = False
        self._foreign = 0
        self._remaining = 0
        """prompts in its queue, anyone's, as the newest status says"""
        self._statuses = 0
        """how many statuses were heard: what was asked before the newest one is not newer than it"""
        self._leaving: set[str] = set()
        """prompts of ours that ended and that its queue may still count"""

    # -- what Effects call -------------------------------------------------------------------------------------------

    def start(self, job: Job, attempt: Attempt) -> None:
        self._follow(job, attempt)
        if self._nursery is not None:
            self._nursery.start_soon(self._run_attempt, self._follows[attempt.prompt_id])

    def adopt(self, job: Job, attempt: Attempt, *, wanted: bool) -> None:
        """Before `run`: an earlier run of the service began this attempt; not `wanted`: it only must not go on."""
        follow = self._follow(job, attempt)
        follow.adopted = follow.posted = follow.gap = True
        if not wanted:
            follow.desired = Desired.CANCEL

    def fence(self, prompt_id: str) -> None:
        """Before `run`: that prompt was given up, and must not go on should it turn up."""
        self._control.give_up(prompt_id)

    def _follow(self, job: Job, attempt: Attempt) -> Follow:
        before = next(reversed(self._follows.values()), None)
        follow = Follow(job, attempt, trio.current_time(), before)
        follow.on_end = partial(self._dispatcher.on_collecting, attempt.prompt_id)
        self._follows[attempt.prompt_id] = follow
        return follow

    def cancel(self, prompt_id: str) -> None:
        follow = self._follows.get(prompt_id)
        if follow is None:
            return  # it has ended, and its report is on its way
        follow.desired = Desired.CANCEL
        if follow.interruptible is not None:
            follow.interruptible.cancel()
        if follow.posted and self._nursery is not None:
            self._nursery.start_soon(self._control.cancel, follow)

    def withdraw(self, prompt_id: str) -> None:
        follow = self._follows.get(prompt_id)
        if follow is None:
            return
        follow.to_withdraw = True
        if self._nursery is not None:
            self._nursery.start_soon(self._withdraw, follow)

    def on_outage(self) -> None:
        """One of our own network began or ended."""
        self._deadlines.rearm()

    def probation(self) -> str:
        """Why it is not used although it is there, and for how long; "" where it is."""
        return self._health.probation(trio.current_time())

    async def free(self) -> None:
        """Raises BackendUnavailable."""
        await self._client.free()

    async def ask(self, path: str) -> bytes | None:
        """What it answers to a GET of some list; None where it has none such. Raises BackendUnavailable: it does not
        answer, it is not connected, or it ends meanwhile."""
        return await self._put(partial(self._client.listing, path))

    async def definitions(self) -> NodeClasses:
        """Its node definitions as they are now. Raises BackendUnavailable, as `ask` does."""
        body = await self._put(self._client.object_info)
        return await trio.to_thread.run_sync(self._classes.read, body or b"")

    async def _put(self, request: Callable[[], Awaitable[bytes | None]]) -> bytes | None:
        if self._nursery is None or self._health.down_since is not None:
            raise BackendUnavailable("it is not up")
        question = _Question()
        try:
            self._nursery.start_soon(question.put, request)
        except RuntimeError:  # it is just ending: a nursery that closes takes nobody any more
            raise BackendUnavailable("it is not up") from None
        return await question.answer()

    def is_empty(self) -> bool:
        return not self._follows

    async def wait_empty(self) -> None:
        """Until no attempt is left here."""
        while self._follows:
            await self._emptied.wait()

    # -- the actor ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. May be run again after a crash: attempts are taken up where they were."""
        try:
            await self._take_tls_files()
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._control.delete_histories)
                nursery.start_soon(self._control.stop_batches)
                nursery.start_soon(self._watch)
                nursery.start_soon(self.patch.run)
                nursery.start_soon(self._deadlines.run)
                for follow in self._follows.values():
                    follow.gap = True
                    nursery.start_soon(self._run_attempt, follow)
                    if follow.posted and follow.desired is Desired.CANCEL:
                        nursery.start_soon(self._control.cancel, follow)
                    elif follow.to_withdraw:
                        nursery.start_soon(self._withdraw, follow)
                await self._stay_connected()
        finally:
            self._nursery = None
            self._health.on_stop(trio.current_time())
            self._dispatcher.on_backend_down(self.name, "its actor ended")

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _take_tls_files(self) -> None:
        """Its TLS files as they are now: a renewed certificate is used from the next connection on."""
        if not _has_tls_files(self._config):
            return
        problem = ""
        try:
            context = await trio.to_thread.run_sync(self._shared.own_contexts.get, self._config)
            await self._client.use(context)
        except ConfigError as error:
            problem = str(error)
            if problem != self._tls_problem:
                log.error("%s; what was read before stays in use", problem)
        self._tls_problem = problem

    async def _stay_connected(self) -> None:
        delay = FIRST_RETRY
        while True:
            connected_at = trio.current_time()
            refused = False
            try:
                await self._take_tls_files()
                async with self._client.events() as socket:
                    self._socket = socket
                    reason = await self._converse(socket)
            except BackendUnavailable as error:
                reason, refused = str(error), error.refused
            self._socket = None
            now = trio.current_time()
            if self._health.on_down(now):
                log.warning("backend %s is down: %s", self.name, reason)
                delay = FIRST_RETRY
            elif reason != self._why_down:
                log.warning("backend %s is not up: %s", self.name, reason)
            self._why_down = reason
            for follow in self._follows.values():
                follow.gap = follow.gap or not follow.ended.is_set()
            self._dispatcher.on_backend_down(self.name, reason)
            if not refused:
                self._health.on_reached()
            elif self._health.on_refused(now):
                self._eject()
            self._deadlines.rearm()
            delay = FIRST_RETRY if now - connected_at > LAST_RETRY else delay
            pause = REFUSED_RETRY if self._health.undecided else delay
            await trio.sleep(pause * random.uniform(0.8, 1.2))
            delay = min(pause * 2, LAST_RETRY)

    async def _converse(self, socket: EventSocket) -> str:
        """Reads until the socket ends; returns why."""
        reasons: list[str] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._identify, socket, reasons)
            async with aclosing(socket.messages()) as messages:
                async for message in messages:
                    event = protocol.parse_message(message)
                    if event is not None:
                        self._on_event(event)
            nursery.cancel_scope.cancel()
        return reasons[0] if reasons else "its event socket closed"

    async def _identify(self, socket: EventSocket, reasons: list[str]) -> None:
        """Learns what the backend can do and what it is doing, then reports it up: at once, or after a probation."""
        try:
            body = await self._client.object_info()
            classes = await trio.to_thread.run_sync(self._classes.read, body)
            combos = await self._client.listing(COMBOS)
            self._shared.nodes.on_connected(self.name, classes, combos)
            await self.patch.connect()
            self._control.atomic = await self._client.has_atomic_cancel()
            await self._look_up()
        except BackendUnavailable as error:
            reasons.append(str(error))
            await self._drop(socket)
            return
        now = trio.current_time()
        away = now - (self._health.down_since or now)
        seconds = self._health.on_up(now)
        self._deadlines.on_heard_again(away)
        self._runner.output_classes = classes.outputs
        if self._nursery is not None:
            self._nursery.start_soon(self._control.revoke_orphans)
        if seconds:
            await self._serve_probation(seconds)
        self._why_down = ""
        log.info("backend %s is up: %d node classes", self.name, len(classes.names))
        self._dispatcher.on_backend_up(self.name, classes.names, self._foreign)

    async def _serve_probation(self, seconds: float) -> None:
        """What runs on it is followed; nothing new comes. It is let off where it is the only one left to use."""
        log.warning("backend %s is back and %s", self.name, self.probation())
        self._dispatcher.on_backend_down(self.name, "on probation")
        while seconds > 0:
            await trio.sleep(min(seconds, FIRST_PROBATION))
            seconds -= FIRST_PROBATION
            others = (s for s in self._dispatcher.snapshots() if s.name != self.name)
            if not any(s.up and not s.draining for s in others):
                break
        self._health.end_probation()

    def _eject(self) -> None:
        """Its ComfyUI does not run, and the queue went with it. What has ended may still have its files there."""
        log.warning("backend %s is gone: it refuses connections", self.name)
        for follow in list(self._follows.values()):
            if not follow.ended.is_set():
                self._deadlines.give_up(follow, Lost.CRASHED)

    async def _watch(self) -> None:
        """The second witness: asks about attempts that are silent, and whether a quiet backend is still there."""
        failures = 0
        while True:
            interval = self._shared.settings().jobs.witness_interval
            await trio.sleep(interval)
            now = trio.current_time()
            silent = any(f.open and now - f.last_heard >= interval for f in self._follows.values())
            patience = interval if self._follows else IDLE_PROBE
            if self._health.down_since is not None or not (silent or now - self._health.last_heard >= patience):
                continue
            self._ask()
            try:
                await self._look_up()
                failures = 0
            except BackendUnavailable as error:
                self._ask()  # an event may have come in between: that is life, and no answer
                failures = PROBES if error.refused else failures + 1
                log.info("backend %s: probe %d failed: %s", self.name, failures, error)
                if failures >= PROBES and self._socket is not None:
                    failures = 0
                    await self._drop(self._socket)

    def _ask(self) -> None:
        """From now on its silence counts."""
        self._health.asked = True
        self._deadlines.rearm()

    def _suspect(self) -> None:
        """A request failed on the network: nothing more is placed here until a new connection has been made."""
        if self._socket is not None and self._nursery is not None:
            self._dispatcher.on_backend_down(self.name, "a request to it failed")
            self._nursery.start_soon(self._drop, self._socket)

    async def _drop(self, socket: EventSocket) -> None:
        """Ends a connection whose other side may say nothing any more: it is not waited for."""
        with trio.move_on_after(0.5):
            await socket.close()
        await socket.abort()

    async def _look_up(self) -> None:
        """Asks what became of our attempts, and how many prompts there are that are not ours.

        A prompt leaves ComfyUI's queue and enters its history under one lock (0.3.64), so one that is in neither,
        asked in this order, never ran or was lost.
        """
        expected = [f for f in self._follows.values() if f.awaited]
        heard = self._statuses
        queue = await self._client.queue()
        present = {*queue.running, *queue.pending}
        now = trio.current_time()
        self._health.heard(now)
        self._leaving &= present
        if self._statuses == heard:
            self._remaining = len(present)
            self._set_foreign(len(present - self._follows.keys() - self._leaving))
        for follow in expected:
            if follow.prompt_id in present:
                follow.last_heard = now
                if follow.prompt_id in queue.running:
                    self._started(follow)
            elif not follow.ended.is_set():
                entry = await self._client.history(follow.prompt_id)
                follow.gap = follow.left_queue = True
                gone = Lost.WITHDRAWN if follow.withdrawing else Lost.GONE
                follow.end(entry.outcome() if entry is not None else gone)

    # -- events ------------------------------------------------------------------------------------------------------

    def _on_event(self, event: protocol.Event) -> None:
        now = trio.current_time()
        self._health.heard(now)
        if isinstance(event, protocol.Status):
            self._remaining = event.queue_remaining
            self._statuses += 1
            self._count_foreign()
            return
        if isinstance(event, Lending):
            self.patch.on_lending(event)
            return
        follow = self._follows.get(event.prompt_id)
        if follow is None:
            if event.prompt_id in self._control.orphans and self._nursery is not None:
                self._nursery.start_soon(self._control.revoke_orphans)
            if isinstance(event, protocol.Executing) and event.node is None:
                self._leaving.discard(event.prompt_id)
                self._count_foreign()
            return
        follow.last_heard = follow.progressed_at = now
        follow.settled.set()  # it is there, whatever became of the answer to its POST
        match event:
            case protocol.Started():
                self._started(follow)
            case protocol.Executed(node=node, output=output):
                follow.outputs[node] = output
                if not follow.gap and self._runner.has_all_outputs(follow):
                    follow.collectable.set()
            case protocol.Succeeded() | protocol.Interrupted() | protocol.Errored():
                follow.end(event)
                return
            case protocol.Executing(node=None):
                follow.left_queue = True
                self._count_foreign()
                if not follow.ended.is_set():
                    self._start_check()
        percent = follow.progress.feed(event)
        if percent is not None and follow.desired is Desired.RUN:
            self._dispatcher.on_progress(follow.prompt_id, percent)

    def _started(self, follow: Follow) -> None:
        if not follow.started:
            self._deadlines.on_started(follow, trio.current_time())
            self._dispatcher.on_started(follow.prompt_id)

    def _count_foreign(self) -> None:
        """More prompts than ours can be: the owner is at work.

        From the events alone: a look-up per event would burden the owner's PC, and its answer may be older than the
        next event. Prompts of ours count from before their POST until `executing` says that they left, so the owner's
        are never counted too many; every change of the queue brings another status. One that is being taken out of
        the queue counts no more: to take the owner's prompt for ours would place the next job in front of it.
        """
        ours = sum(1 for follow in self._follows.values() if follow.counts)
        self._set_foreign(max(0, self._remaining - ours - len(self._leaving)))

    def _set_foreign(self, count: int) -> None:
        self._foreign = count
        self._dispatcher.on_load(self.name, count)

    def _start_check(self) -> None:
        if not self._checking and self._nursery is not None:
            self._checking = True
            self._nursery.start_soon(self._check)

    async def _check(self) -> None:
        try:
            await self._look_up()
        except BackendUnavailable as error:
            log.info("backend %s: %s", self.name, error)
        finally:
            self._checking = False

    # -- attempts ----------------------------------------------------------------------------------------------------

    async def _run_attempt(self, follow: Follow) -> None:
        report, healthy = await self._runner.run(follow)
        follow.settled.set()
        if not healthy:
            self._suspect()
        del self._follows[follow.prompt_id]
        if follow.posted and not follow.left_queue and not isinstance(follow.outcome, Lost):
            self._leaving.add(follow.prompt_id)
        try:
            self._count_foreign()  # before the report, which may place the next job: this one counts no more
        finally:
            report()
        if not self._follows:
            self._emptied.set()
            self._emptied = trio.Event()
        if follow.outcome is not None and not isinstance(follow.outcome, Lost):
            # Only now: until that is in the ledger, the history is what a crash could be recovered from.
            await self._shared.ledger.committed()
            self._control.forget_history(follow.prompt_id)

    async def _withdraw(self, follow: Follow) -> None:
        await follow.settled.wait()
        follow.withdrawing = True
        try:
            if await self._control.withdraw(follow):
                follow.end(Lost.WITHDRAWN)
        finally:
            follow.withdrawing = False
        follow.to_withdraw = False
        if not follow.ended.is_set():
            self._dispatcher.on_withdraw_refused(follow.prompt_id)


class _Question:
    """A request made inside the actor, for somebody outside: it ends with the actor, before its connections do."""

    def __init__(self) -> None:
        self._done = trio.Event()
        self._answer: bytes | None = None
        self._error: BackendUnavailable | None = BackendUnavailable("it went away")

    async def put(self, ask: Callable[[], Awaitable[bytes | None]]) -> None:
        try:
            self._answer = await ask()
            self._error = None
        except BackendUnavailable as error:
            self._error = error
        finally:
            self._done.set()

    async def answer(self) -> bytes | None:
        await self._done.wait()
        if self._error is not None:
            raise self._error
        return self._answer


def _has_tls_files(config: Backend) -> bool:
    return bool(config.tls_ca or config.tls_cert)
