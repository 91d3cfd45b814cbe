"""One attempt, from its input files to its report: what one backend's actor does for each that is placed there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import trio

from bridged.actors.attempt import Desired, Follow, Lost
from bridged.actors.collect import collect
from bridged.actors.control import Control
from bridged.actors.dispatcher import Dispatcher
from bridged.actors.patch import Patch
from bridged.comfy import protocol
from bridged.comfy.blame import blame
from bridged.comfy.client import ComfyClient
from bridged.config.schema import Settings
from bridged.errors import AttemptFailed, BackendUnavailable, BridgedError, OutOfSpace, PausedByOwner
from bridged.files.multipart import Encoded, Part
from bridged.files.spool import Spool
from bridged.model import OUT_OF_MEMORY, Failure, Fault, FileInput, Graph, Job, Results
from bridged.store.ledger import Ledger

log = logging.getLogger(__name__)

SUBFOLDER = "bridged"
"""where our uploads go in a backend's input folder: its owner can see whose they are, and remove them"""

MAX_UPLOADED = 10_000
"""files that are remembered to be on a backend"""

PAUSE = 5.0
"""seconds between tries to fetch outputs onto a full disk, or over a network of ours that does not work"""


def _nothing() -> None:
    """The report of an attempt that has made its report."""


class Runner:
    """Runs attempts on one backend. `output_classes`: its node classes that give results. `localised` gives a graph the
    names by which that backend knows its files."""

    def __init__(
        self,
        name: str,
        client: ComfyClient,
        control: Control,
        patch: Patch,
        dispatcher: Dispatcher,
        spool: Spool,
        ledger: Ledger,
        settings: Callable[[], Settings],
        localised: Callable[[Graph], Graph],
    ) -> None:
        self._name = name
        self._client = client
        self._control = control
        self._patch = patch
        self._dispatcher = dispatcher
        self._spool = spool
        self._ledger = ledger
        self._settings = settings
        self._localised = localised
        self._uploaded: dict[str, str] = {}
        """sha256 -> what the file is called on the backend"""
        self._uploads = trio.Lock()
        self.output_classes: frozenset[str] = frozenset()

    async def run(self, follow: Follow) -> tuple[Callable[[], object], bool]:
        """Takes the attempt to its end, or takes it up where a crashed actor left it.

        Returns the report to make to the dispatcher (how it ended, and whose fault it was where it failed), and
        whether the way to the backend is still to be trusted.
        """
        lost = down = False
        try:
            return await self._attempt(follow), True
        except AttemptFailed as error:
            failure = Failure(Fault(error.fault), self._client.without_address(str(error)), error.signature)
            lost, down = error.lost, error.down
        except BackendUnavailable as error:
            failure = Failure(Fault.NETWORK, str(error))
        except BridgedError as error:
            failure = Failure(Fault.POLICY, str(error))
        except Exception:
            # Whatever it is, it is one attempt's: crashing the actor would run into it again with each restart.
            log.exception("backend %s: an attempt failed in a way nobody foresaw", self._name)
            failure = Failure(Fault.HOST, "an internal error; the service's log says more")
        if failure.signature == OUT_OF_MEMORY:
            await self._free_memory(follow.job)
        report = partial(self._dispatcher.on_failed, follow.prompt_id, failure, lost=lost, down=down)
        return report, failure.fault is not Fault.NETWORK or follow.adopted

    async def _attempt(self, follow: Follow) -> Callable[[], object]:
        """Raises what `run` attributes."""
        if not follow.posted:
            graph: Graph | None = None
            if follow.desired is Desired.RUN and not follow.ended.is_set():
                with trio.CancelScope() as follow.interruptible:
                    graph = await self._with_files(follow.job)
                    if follow.before is not None:
                        await follow.before.settled.wait()
                follow.interruptible = follow.before = None
                if follow.to_withdraw:
                    follow.end(Lost.WITHDRAWN)  # no need to send it first
            if graph is None or follow.desired is Desired.CANCEL or follow.ended.is_set():
                return self._unsuccessful(follow)
            await self._post_with_files(follow, graph)
        elif not follow.settled.is_set():
            await self._settle(follow)
            follow.last_heard = trio.current_time()
            follow.settled.set()  # from here on it is watched, and others may be posted behind it
        await follow.collectable.wait()
        outputs: Results | None = None
        if not follow.ended.is_set():
            outputs = await self._collect_early(follow)
            await follow.ended.wait()
        if follow.desired is Desired.RUN and isinstance(follow.outcome, protocol.Succeeded):
            return await self._collected(follow, outputs)
        await self._discard(outputs)
        unasked = isinstance(follow.outcome, protocol.Interrupted) or follow.outcome is Lost.GONE
        if unasked and follow.desired is Desired.RUN and not follow.overdue:
            excuse = await self._patch.excuses(follow)
            if excuse and follow.desired is Desired.RUN:
                return partial(self._dispatcher.on_excused, follow.prompt_id, excuse)
        return self._unsuccessful(follow)

    def _unsuccessful(self, follow: Follow) -> Callable[[], object]:
        """The report of an attempt that ended without success, or that nobody wants any more."""
        if follow.desired is Desired.CANCEL:
            return partial(self._dispatcher.on_cancelled, follow.prompt_id)
        match follow.outcome:
            case protocol.Errored() as error:
                self._dispatcher.on_started(follow.prompt_id)  # only the history may have told that it ran
                failure = blame(error.node_id, error.node_type, error.exception_type, error.exception_message)
                raise AttemptFailed(failure.message, failure.fault, signature=failure.signature)
            case Lost.WITHDRAWN:
                return partial(self._dispatcher.on_withdrawn, follow.prompt_id)
            case Lost.GONE if follow.adopted:
                # The service was away: whatever happened to it then, the PC need not be at fault.
                raise AttemptFailed(Lost.GONE.value, Fault.NETWORK, lost=True)
            case Lost.GONE:
                raise AttemptFailed(Lost.GONE.value, Fault.HOST, lost=True, down=True)
            case Lost.UNREACHABLE as lost:
                down = follow.posted and not follow.blameless
                raise AttemptFailed(lost.value, Fault.NETWORK, lost=follow.posted, down=down)
            case Lost.CRASHED as lost:
                # Who only waited there did not bring it down, and may go back once it runs again.
                blamed = follow.started and not follow.adopted and not follow.blameless
                fault = Fault.HOST if blamed else Fault.NETWORK
                raise AttemptFailed(lost.value, fault, lost=follow.posted, down=blamed)
            case Lost.HUNG:
                raise AttemptFailed(follow.overdue, Fault.HOST, lost=True)
            case protocol.Interrupted() if follow.overdue:
                raise AttemptFailed(follow.overdue, Fault.HOST)
            case Lost.REFUSED if follow.refusal:
                raise AttemptFailed(follow.refusal, Fault.HOST)
            case Lost() as lost:
                raise AttemptFailed(lost.value, Fault.NETWORK)
            case _:
                raise AttemptFailed("it was interrupted on the PC", Fault.HOST)

    async def _free_memory(self, job: Job) -> None:
        self._dispatcher.on_out_of_memory(self._name, job.alias)
        try:
            await self._client.free()
        except BackendUnavailable as error:
            log.info("backend %s: its memory is not freed: %s", self._name, error)

    def has_all_outputs(self, follow: Follow) -> bool:
        """Whether `executed` was heard of every output node of the graph."""
        expected = {n for n, content in follow.job.graph.items() if content["class_type"] in self.output_classes}
        return bool(expected) and expected <= follow.outputs.keys()

    async def _collect_early(self, follow: Follow) -> Results | None:
        """Fetches the outputs while the prompt's end is still to be announced. None where that did not work: then it
        is done, and judged, after the end."""
        try:
            return await self._collect(follow)
        except BridgedError as error:
            log.info("backend %s: outputs are fetched again after the end: %s", self._name, error)
            return None

    async def _collect(self, follow: Follow) -> Results | None:
        """None where a revocation came in between. Raises BackendUnavailable where the backend was given up."""
        settings = self._settings()
        outputs = None
        with trio.CancelScope() as follow.interruptible:
            if follow.desired is Desired.RUN and not follow.abandoned:
                patience = settings.jobs.unreachable_after if follow.ended.is_set() else 0.0
                history = follow.gap or not self.has_all_outputs(follow)
                outputs = await collect(follow, self._client, self._spool, settings.files, history, patience)
        follow.interruptible = None
        if outputs is None and follow.abandoned and follow.desired is Desired.RUN:
            raise BackendUnavailable(Lost.UNREACHABLE.value)
        return outputs

    async def _collected(self, follow: Follow, outputs: Results | None) -> Callable[[], object]:
        self._dispatcher.on_started(follow.prompt_id)  # only the history may have told that it ran
        told = False
        while outputs is None and follow.desired is Desired.RUN:
            try:
                outputs = await self._collect(follow)
            except OutOfSpace as error:
                # The PC still has them: a full disk of ours costs the job time, not its result.
                if not told:
                    log.error("backend %s: the outputs of a job wait on it: %s", self._name, error)
                told = True
            except BackendUnavailable:
                if follow.abandoned or not self._dispatcher.suspended:
                    raise  # else it is our network, and the outputs wait for it
            if outputs is None and follow.desired is Desired.RUN:
                with trio.CancelScope() as follow.interruptible:
                    await trio.sleep(PAUSE)
                follow.interruptible = None
        if outputs is None:
            return partial(self._dispatcher.on_cancelled, follow.prompt_id)
        if not self._dispatcher.on_finished(follow.prompt_id, outputs):
            await self._discard(outputs)
        return _nothing

    async def _discard(self, results: Results | None) -> None:
        """Nobody wants them any more."""
        if results is not None:
            await self._spool.discard(*(output.file for output in results.outputs))

    async def _post_with_files(self, follow: Follow, graph: Graph) -> None:
        """A refusal may come from an owner who emptied the input folder: then the files go once more."""
        try:
            await self._post(follow, graph)
        except AttemptFailed:
            if not follow.job.files or follow.settled.is_set():
                raise
            for use in follow.job.files:
                self._uploaded.pop(use.file.sha256, None)
            await self._post(follow, await self._with_files(follow.job))

    async def _post(self, follow: Follow, graph: Graph) -> None:
        """POST /prompt, and where its answer stays away, finds out whether it was accepted."""
        await self._ledger.committed()  # after a crash it is looked up under the id it is about to get
        if follow.ended.is_set():
            return
        follow.posted = True
        answer = protocol.PromptAnswer()
        try:
            lease = self._patch.lease_of(follow)
            with trio.CancelScope() as follow.posting:
                answer = await self._client.post_prompt(follow.prompt_id, self._localised(graph), lease)
        except PausedByOwner:
            self._patch.on_refused_prompt()  # before the report: nothing more is placed here
            follow.end(Lost.WITHDRAWN)
            return
        except BackendUnavailable as error:
            log.warning("backend %s: no answer to a prompt (%s); looking it up", self._name, error)
            follow.refusal = str(error) if error.answered else ""
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

    async def _settle(self, follow: Follow) -> None:
        """A POST with no answer may have been accepted: asks until that is known, or the backend is given up."""
        follow.gap = True
        with trio.CancelScope() as follow.posting:
            await self._look_for(follow)

    async def _look_for(self, follow: Follow) -> None:
        misses = 0
        while not follow.settled.is_set():
            try:
                queue = await self._client.queue()
                if follow.prompt_id in {*queue.running, *queue.pending}:
                    return
                entry = await self._client.history(follow.prompt_id)
                if entry is not None:
                    follow.left_queue = True
                    follow.end(entry.outcome())
                    return
                misses += 1
                if misses >= 2:  # the first look may have come before a request that was still under way
                    self._control.give_up(follow.prompt_id)
                    follow.end(Lost.GONE if follow.adopted else Lost.REFUSED)
                    return
            except BackendUnavailable as error:
                log.info("backend %s: %s", self._name, error)
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
            raise AttemptFailed("an uploaded file is gone from the service's disk", Fault.POLICY) from error
        if len(self._uploaded) >= MAX_UPLOADED:
            del self._uploaded[next(iter(self._uploaded))]
        self._uploaded[file.sha256] = answer.value
        return answer.value
