"""One backend's actor: its event socket, its health, and every attempt that was placed on it.

It follows one long-lived WebSocket; `/queue` and `/history` are the second witness wherever the socket may have
missed something. Nothing here decides where jobs go: it reports to the dispatcher and does what Effects say.
"""

from __future__ import annotations

import logging
import random
import ssl
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import trio
import trio_websocket

from bridged.actors.attempt import Desired, Follow, Lost
from bridged.actors.collect import collect
from bridged.actors.control import Control
from bridged.actors.dispatcher import Dispatcher
from bridged.comfy import protocol
from bridged.comfy.client import ComfyClient
from bridged.config.schema import Backend, Settings
from bridged.errors import AttemptFailed, BackendUnavailable, BridgedError
from bridged.files.multipart import Encoded, Part
from bridged.files.spool import Spool
from bridged.model import Attempt, Failure, Fault, FileInput, Graph, Job
from bridged.nodedefs.parse import NodeClasses, parse_classes

log = logging.getLogger(__name__)

FIRST_RETRY, LAST_RETRY = 0.25, 10.0
"""seconds between attempts to connect: doubling, with jitter, back to the first after a connection that worked"""

IDLE_PROBE = 15.0
"""seconds between probes of a backend that says nothing and has nothing of ours"""

SUBFOLDER = "bridged"
"""where our uploads go in a backend's input folder: its owner can see whose they are, and remove them"""


def _nothing() -> None:
    """The report of an attempt that has made its report."""


class Shared(msgspec.Struct, frozen=True):
    """What all actors share."""

    dispatcher: Dispatcher
    spool: Spool
    ssl_context: ssl.SSLContext
    client_id: str
    settings: Callable[[], Settings]


class BackendActor:
    """`run` does everything; `start`, `cancel` and `withdraw` are plain calls that only tell it what is wanted."""

    def __init__(self, config: Backend, shared: Shared) -> None:
        self.name = config.name
        self._shared = shared
        self._dispatcher = shared.dispatcher
        self._client = ComfyClient(config.url, dict(config.headers), shared.client_id, shared.ssl_context)
        self._follows: dict[str, Follow] = {}
        self._recent: deque[str] = deque(maxlen=256)
        """prompts of ours that ended a moment ago: `/queue` may still name them"""
        self._classes: NodeClasses | None = None
        self._uploaded: dict[str, str] = {}
        self._uploads = trio.Lock()
        self._control = Control(self._client, self.name)
        self._nursery: trio.Nursery | None = None
        self._socket: trio_websocket.WebSocketConnection | None = None
        self._down_since: float | None = trio.current_time()
        self._last_heard = 0.0
        self._emptied = trio.Event()
        self._foreign_check = False

    # -- what Effects call -------------------------------------------------------------------------------------------

    def start(self, job: Job, attempt: Attempt) -> None:
        before = next(reversed(self._follows.values()), None)
        follow = Follow(job, attempt, trio.current_time(), before)
        self._follows[attempt.prompt_id] = follow
        if self._nursery is not None:
            self._nursery.start_soon(self._run_attempt, follow)

    def cancel(self, prompt_id: str) -> None:
        follow = self._follows[prompt_id]
        follow.desired = Desired.CANCEL
        if follow.interruptible is not None:
            follow.interruptible.cancel()
        if follow.posted and self._nursery is not None:
            self._nursery.start_soon(self._control.cancel, follow)

    def withdraw(self, prompt_id: str) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._withdraw, self._follows[prompt_id])

    async def free(self) -> None:
        """Raises BackendUnavailable."""
        await self._client.free()

    async def wait_empty(self) -> None:
        """Until no attempt is left here."""
        while self._follows:
            await self._emptied.wait()

    # -- the actor ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. May be run again after a crash: attempts are taken up where they were."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._control.delete_histories)
                nursery.start_soon(self._control.stop_batches)
                nursery.start_soon(self._watch)
                for follow in self._follows.values():
                    follow.gap = True
                    nursery.start_soon(self._run_attempt, follow)
                    if follow.posted and follow.desired is Desired.CANCEL:
                        nursery.start_soon(self._control.cancel, follow)
                await self._stay_connected()
        finally:
            self._nursery = None
            self._dispatcher.on_backend_down(self.name, "its actor ended")

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _stay_connected(self) -> None:
        delay = FIRST_RETRY
        while True:
            connected_at = trio.current_time()
            try:
                async with self._client.events() as socket:
                    self._socket = socket
                    reason = await self._converse(socket)
            except BackendUnavailable as error:
                reason = str(error)
            self._socket = None
            if self._down_since is None:
                log.warning("backend %s is down: %s", self.name, reason)
                self._down_since = trio.current_time()
                delay = FIRST_RETRY
            for follow in self._follows.values():
                follow.gap = True
            self._dispatcher.on_backend_down(self.name, reason)
            self._give_up_unreachable()
            worked = trio.current_time() - connected_at > LAST_RETRY
            delay = FIRST_RETRY if worked else delay
            await trio.sleep(delay * random.uniform(0.8, 1.2))
            delay = min(delay * 2, LAST_RETRY)

    async def _converse(self, socket: trio_websocket.WebSocketConnection) -> str:
        """Reads until the socket ends; returns why."""
        reasons: list[str] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._identify, socket, reasons)
            try:
                while True:
                    message = await socket.get_message()
                    event = protocol.parse_message(message)
                    if event is not None:
                        self._on_event(event)
            except trio_websocket.ConnectionClosed:
                nursery.cancel_scope.cancel()
        return reasons[0] if reasons else "its event socket closed"

    async def _identify(self, socket: trio_websocket.WebSocketConnection, reasons: list[str]) -> None:
        """Learns what the backend can do and what it is doing, then reports it up."""
        try:
            body = await self._client.object_info()
            self._classes = await trio.to_thread.run_sync(parse_classes, body)
            self._control.atomic = await self._client.has_atomic_cancel()
            foreign = await self._look_up()
        except BackendUnavailable as error:
            reasons.append(str(error))
            await socket.aclose()
            return
        self._down_since = None
        self._last_heard = trio.current_time()
        log.info("backend %s is up: %d node classes", self.name, len(self._classes.names))
        self._dispatcher.on_backend_up(self.name, self._classes.names, foreign)
        if self._nursery is not None:
            self._nursery.start_soon(self._control.revoke_orphans)

    async def _watch(self) -> None:
        """The second witness: asks about attempts that are silent, and whether a quiet backend is still there."""
        failures = 0
        while True:
            interval = self._shared.settings().jobs.witness_interval
            await trio.sleep(interval)
            self._give_up_unreachable()
            now = trio.current_time()
            followed = [f for f in self._follows.values() if f.on_backend and f.settled.is_set()]
            silent = any(now - follow.last_heard >= interval for follow in followed)
            if self._down_since is not None or not (silent or now - self._last_heard >= IDLE_PROBE):
                continue
            try:
                self._dispatcher.on_load(self.name, await self._look_up())
                self._last_heard = now
                failures = 0
            except BackendUnavailable as error:
                failures += 1
                log.info("backend %s: probe %d failed: %s", self.name, failures, error)
                if failures >= 2 and self._socket is not None:
                    failures = 0
                    await self._drop(self._socket)

    async def _drop(self, socket: trio_websocket.WebSocketConnection) -> None:
        """Ends a connection whose other side says nothing: without waiting for its half of the closing handshake."""
        with trio.move_on_after(0.5):
            await socket.aclose(1001, "no answer to probes")
        # aclose's own cleanup closes the stream also when it was cut short, so the reader wakes either way.

    def _give_up_unreachable(self) -> None:
        limit = self._shared.settings().jobs.unreachable_after
        if self._down_since is None or trio.current_time() - self._down_since < limit:
            return
        for follow in self._follows.values():
            if follow.posted and not follow.ended.is_set():
                self._control.orphans.add(follow.prompt_id)
                follow.settled.set()
                follow.end(Lost.UNREACHABLE)

    async def _look_up(self) -> int:
        """Asks what became of our attempts; returns how many prompts there are not ours.

        A prompt leaves ComfyUI's queue and enters its history under one lock (0.3.64), so one that is in neither,
        asked in this order, never ran or was lost.
        """
        expected = [f for f in self._follows.values() if f.on_backend and f.settled.is_set()]
        queue = await self._client.queue()
        present = {*queue.running, *queue.pending}
        now = trio.current_time()
        for follow in expected:
            if follow.prompt_id in present:
                follow.last_heard = now
                if follow.prompt_id in queue.running:
                    self._started(follow)
            elif not follow.ended.is_set():
                entry = await self._client.history(follow.prompt_id)
                follow.gap = True
                follow.end(entry.outcome() if entry is not None else Lost.GONE)
        return len(present - self._follows.keys() - self._control.orphans - set(self._recent))

    # -- events ------------------------------------------------------------------------------------------------------

    def _on_event(self, event: protocol.Event) -> None:
        self._last_heard = trio.current_time()
        if isinstance(event, protocol.Status):
            self._on_status(event.queue_remaining)
            return
        follow = self._follows.get(event.prompt_id)
        if follow is None:
            return
        follow.last_heard = self._last_heard
        follow.settled.set()  # it is there, whatever became of the answer to its POST
        match event:
            case protocol.Started():
                self._started(follow)
            case protocol.Executed(node=node, output=output):
                follow.outputs[node] = output
            case protocol.Succeeded() | protocol.Interrupted() | protocol.Errored():
                follow.end(event)
                return
            case protocol.Executing(node=None):
                follow.left_queue = True
                if not follow.ended.is_set():
                    self._start_check()
        percent = follow.progress.feed(event)
        if percent is not None and follow.desired is Desired.RUN:
            self._dispatcher.on_progress(follow.prompt_id, percent)

    def _started(self, follow: Follow) -> None:
        if not follow.started:
            follow.started = True
            self._dispatcher.on_started(follow.prompt_id)

    def _on_status(self, remaining: int) -> None:
        """More prompts than ours can be: the owner is at work. Which ones are whose, `/queue` says exactly."""
        ours = sum(1 for follow in self._follows.values() if follow.posted and not follow.left_queue)
        if self._down_since is not None:
            return
        if remaining > ours:
            self._start_check()
        else:
            self._dispatcher.on_load(self.name, 0)

    def _start_check(self) -> None:
        if not self._foreign_check and self._nursery is not None:
            self._foreign_check = True
            self._nursery.start_soon(self._check)

    async def _check(self) -> None:
        try:
            self._foreign_check = False
            foreign = await self._look_up()
            if self._down_since is None:
                self._dispatcher.on_load(self.name, foreign)
        except BackendUnavailable as error:
            log.info("backend %s: %s", self.name, error)

    # -- attempts ----------------------------------------------------------------------------------------------------

    async def _run_attempt(self, follow: Follow) -> None:
        """Takes an attempt to its end and reports that, with whose fault it was where it failed."""
        failed = partial(self._dispatcher.on_failed, follow.prompt_id)
        try:
            report = await self._attempt(follow)
        except AttemptFailed as error:
            report = partial(failed, Failure(Fault(error.fault), str(error)))
        except BackendUnavailable as error:
            report = partial(failed, Failure(Fault.NETWORK, str(error)))
        except BridgedError as error:
            report = partial(failed, Failure(Fault.POLICY, str(error)))
        follow.settled.set()
        del self._follows[follow.prompt_id]
        self._recent.append(follow.prompt_id)
        report()
        if not self._follows:
            self._emptied.set()
            self._emptied = trio.Event()

    async def _attempt(self, follow: Follow) -> Callable[[], object]:
        """Returns the report to make of the attempt's end. Raises what `_run_attempt` attributes."""
        cancelled = partial(self._dispatcher.on_cancelled, follow.prompt_id)
        if not follow.posted:
            graph: Graph | None = None
            if follow.desired is Desired.RUN:
                with trio.CancelScope() as follow.interruptible:
                    graph = await self._with_files(follow.job)
                    if follow.before is not None:
                        await follow.before.settled.wait()
                follow.interruptible = follow.before = None
            if graph is None or follow.desired is Desired.CANCEL:
                return cancelled
            await self._post(follow, graph)
        elif not follow.settled.is_set():
            await self._settle(follow)
        await follow.ended.wait()
        self._dispatcher.on_collecting(follow.prompt_id)
        if not isinstance(follow.outcome, Lost):
            self._control.forget_history(follow.prompt_id)
        if follow.desired is Desired.CANCEL:
            return cancelled
        match follow.outcome:
            case protocol.Succeeded():
                return await self._collected(follow)
            case protocol.Errored() as error:
                where = f"node {error.node_id} ({error.node_type}): {error.exception_type}: " if error.node_id else ""
                raise AttemptFailed(f"{where}{error.exception_message.strip()}", Fault.WORKFLOW)
            case Lost.WITHDRAWN:
                return partial(self._dispatcher.on_withdrawn, follow.prompt_id)
            case Lost() as lost:
                raise AttemptFailed(lost.value, Fault.NETWORK if lost is Lost.UNREACHABLE else Fault.HOST)
            case _:
                raise AttemptFailed("it was interrupted on the PC", Fault.HOST)

    async def _collected(self, follow: Follow) -> Callable[[], object]:
        settings = self._shared.settings().files
        outputs = None
        with trio.CancelScope() as follow.interruptible:
            output_classes = self._classes.outputs if self._classes is not None else frozenset[str]()
            outputs = await collect(follow, self._client, self._shared.spool, settings, output_classes)
        follow.interruptible = None
        if outputs is None:
            return partial(self._dispatcher.on_cancelled, follow.prompt_id)
        if not self._dispatcher.on_finished(follow.prompt_id, outputs):
            await self._shared.spool.discard(*(output.file for output in outputs))
        return _nothing

    async def _post(self, follow: Follow, graph: Graph) -> None:
        """POST /prompt, and where its answer stays away, finds out whether it was accepted."""
        follow.posted = True
        answer = protocol.PromptAnswer()
        try:
            with trio.CancelScope() as follow.posting:
                answer = await self._client.post_prompt(follow.prompt_id, graph)
        except AttemptFailed:
            if follow.job.files:
                self._uploaded.clear()  # perhaps the owner removed them: the next attempt here sends them again
            follow.end(Lost.GONE)
            raise
        except BackendUnavailable as error:
            log.warning("backend %s: no answer to a prompt (%s); looking it up", self.name, error)
            await self._settle(follow)
        else:
            if answer.node_errors:
                follow.settled.set()
                follow.desired = Desired.CANCEL
                await self._control.cancel(follow)
                text = protocol.describe_node_errors(answer.node_errors)
                raise AttemptFailed(f"it would leave out some outputs: {text}", Fault.WORKFLOW)
        follow.last_heard = trio.current_time()
        follow.settled.set()
        if follow.desired is Desired.CANCEL and self._nursery is not None:
            self._nursery.start_soon(self._control.cancel, follow)

    async def _settle(self, follow: Follow) -> None:
        """A POST with no answer may have been accepted: asks until that is known, or the backend is given up."""
        follow.gap = True
        misses = 0
        while not follow.settled.is_set():
            try:
                queue = await self._client.queue()
                if follow.prompt_id in {*queue.running, *queue.pending}:
                    return
                entry = await self._client.history(follow.prompt_id)
                if entry is not None:
                    follow.end(entry.outcome())
                    return
                misses += 1
                if misses >= 2:  # the first look may have come before a request that was still under way
                    self._control.orphans.add(follow.prompt_id)
                    follow.end(Lost.GONE)
                    return
            except BackendUnavailable as error:
                log.info("backend %s: %s", self.name, error)
            with trio.move_on_after(1.0):
                await follow.settled.wait()

    async def _with_files(self, job: Job) -> Graph:
        """The graph with the names its input files have here; those not here yet are sent first."""
        if not job.files:
            return job.graph
        graph: dict[str, Any] = dict(job.graph)
        for use in job.files:
            async with self._uploads:  # one at a time: the next may need the same content
                name = self._uploaded.get(use.file.sha256) or await self._upload(use)
            node = graph[use.node]
            graph[use.node] = {**node, "inputs": {**node["inputs"], use.input: name}}
        return graph

    async def _upload(self, use: FileInput) -> str:
        """Sends a file under a name made of its content, so that the same content is one file on the backend."""
        file = use.file
        try:
            body = Encoded(
                [
                    Part("type", text="input"),
                    Part("subfolder", text=SUBFOLDER),
                    Part(
                        "image",
                        path=file.path,
                        size=file.size,
                        filename=f"{file.sha256[:32]}{file.extension}",
                        content_type=file.content_type,
                    ),
                ]
            )
            answer = await self._client.upload(body.chunks(), body.content_type, body.length)
        except OSError as error:
            raise AttemptFailed(f"the uploaded file is gone: {error}", Fault.POLICY) from error
        self._uploaded[file.sha256] = answer.value
        return answer.value

    async def _withdraw(self, follow: Follow) -> None:
        await follow.settled.wait()
        if await self._control.withdraw(follow):
            follow.end(Lost.WITHDRAWN)
        elif not follow.ended.is_set():
            self._dispatcher.on_withdraw_refused(follow.prompt_id)
