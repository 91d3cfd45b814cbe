"""All backends: one supervised child per backend, each with its own cancel scope, kept as the configuration says.

A child that crashes is logged, cooled down and started again with its attempts; the others never notice. A removed
backend finishes what runs on it and then ends; one whose address changed does the same and comes back as the new one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import trio

from bridged.actors.backend import BackendActor, Shared
from bridged.actors.health import Outage
from bridged.actors.patch import Patch
from bridged.config.schema import Backend
from bridged.errors import BackendUnavailable
from bridged.model import Attempt, Failure, Fault, Job
from bridged.nodedefs.parse import NodeClasses

log = logging.getLogger(__name__)

COOL_DOWN = 5.0
"""seconds before a crashed child is started again"""


class _Child:
    def __init__(self, config: Backend) -> None:
        self.config = config
        self.wanted: Backend | None = config
        """what is to run under this name: None once it was removed"""
        self.changed = trio.Event()
        self.fenced: list[str] = []
        """prompts that an earlier run gave up here"""
        self.actor: BackendActor | None = None
        self.adopted: dict[str, tuple[Job, Attempt, bool]] = {}
        """prompt_id -> what an earlier run of the service began here, until its actor takes it up"""
        self.crashed = False
        self.ending = False
        """its actor is being stopped: nothing may be placed on it any more, whatever is wanted next"""


    @property
    def in_place(self) -> bool:
        """Whether what runs is where it is wanted."""
        return self.wanted is not None and self.wanted.place == self.config.place


class Pool:
    """`run` owns the backends' nursery; `apply` may be called before and after it began."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._dispatcher = shared.dispatcher
        self._children: dict[str, _Child] = {}
        self._outage = Outage(self._on_outage)
        self._outage_timer = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._removed = trio.Event()

    def actor(self, name: str) -> BackendActor:
        """The running actor of a backend. Raises KeyError: there is none of that name."""
        actor = self._children[name].actor
        if actor is None:
            raise KeyError(name)
        return actor

    def adopt(self, job: Job, attempt: Attempt, *, wanted: bool) -> None:
        """Before `run`: that attempt is to be looked up on its backend, which is one of the pool."""
        self._children[attempt.backend].adopted[attempt.prompt_id] = (job, attempt, wanted)

    def fence(self, attempt: Attempt) -> None:
        """Before `run`: that attempt was given up, and must not go on should it turn up on its backend."""
        self._children[attempt.backend].fenced.append(attempt.prompt_id)

    def is_crashed(self, name: str) -> bool:
        """Whether its actor crashed and now cools down."""
        child = self._children.get(name)
        return child is not None and child.crashed

    def probation(self, name: str) -> str:
        """Why a backend is not used although it is there, and for how long; "" where it is used, or not there."""
        child = self._children.get(name)
        return "" if child is None or child.actor is None else child.actor.probation()

    def patch(self, name: str) -> Patch | None:
        """What is known of a backend's patch, and whether its owner lends it. None: its actor does not run."""
        child = self._children.get(name)
        return None if child is None or child.actor is None else child.actor.patch

    async def renew_leases(self) -> None:
        """The service stops: what runs on patched backends may go on until it is back, for one lease."""
        async with trio.open_nursery() as nursery:
            for child in self._children.values():
                if child.actor is not None:
                    nursery.start_soon(child.actor.patch.renew)

    async def wait_removed(self, name: str) -> None:
        """Until a backend that is not wanted any more has finished and is gone."""
        while name in self._children:
            await self._removed.wait()

    def apply(self, backends: Iterable[Backend]) -> None:
        """Makes the pool be these backends. What did not change is not touched."""
        wanted = {backend.name: backend for backend in backends}
        for name, child in self._children.items():
            new = wanted.get(name)
            if child.wanted == new:
                continue
            child.wanted = new
            child.changed.set()
            child.changed = trio.Event()
            moved = new is not None and new.place != child.config.place
            going = new is None or moved or child.ending
            self._configure(new or child.config, draining=going, moving=new is not None and going)
            if new is not None and not moved:
                child.config = new
        for name, backend in wanted.items():
            if name not in self._children:
                self._add(backend)

    async def ask(self, name: str, path: str) -> bytes | None:
        """What a backend answers to a GET of some list; None where it has no such thing. Raises BackendUnavailable."""
        try:
            return await self.actor(name).ask(path)
        except KeyError:
            raise BackendUnavailable("it is not there any more") from None

    async def definitions(self, name: str) -> NodeClasses:
        """A backend's node definitions as they are now. Raises BackendUnavailable."""
        try:
            return await self.actor(name).definitions()
        except KeyError:
            raise BackendUnavailable("it is not there any more") from None

    async def free(self, name: str) -> bool:
        """Frees memory on one backend. False where it could not be asked."""
        try:
            await self.actor(name).free()
        except (KeyError, BackendUnavailable) as error:
            log.info("backend %s: not freed: %s", name, error)
            return False
        return True

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for name, child in self._children.items():
                nursery.start_soon(self._supervise, name, child)
            while True:
                with trio.CancelScope(deadline=self._outage.ends_at) as self._outage_timer:
                    await trio.sleep_forever()
                self._outage.expire(trio.current_time())

    def _on_outage(self) -> None:
        suspended = self._dispatcher.suspended = self._outage.suspended
        if suspended:
            log.warning("most backends went away at once: taken for our own network, nothing is given up for now")
        else:
            log.warning("backends that are away are given up again: enough are back, or it lasted too long")
        self._outage_timer.deadline = self._outage.ends_at
        for child in self._children.values():
            if child.actor is not None:
                child.actor.on_outage()

    def _add(self, backend: Backend) -> None:
        child = _Child(backend)
        self._children[backend.name] = child
        self._configure(backend)
        if self._nursery is not None:
            self._nursery.start_soon(self._supervise, backend.name, child)

    def _configure(self, backend: Backend, *, draining: bool = False, moving: bool = False) -> None:
        self._dispatcher.on_backend_configured(
            backend.name,
            max_running=backend.max_running,
            draining=draining or backend.drain,
            moving=moving and not backend.drain,
        )

    async def _supervise(self, name: str, child: _Child) -> None:
        while child.wanted is not None:
            child.config, child.ending = child.wanted, False
            try:
                child.actor = actor = BackendActor(child.config, self._shared, self._outage)
            except Exception:
                log.exception("backend %s: its configuration cannot be used", name)
                self._dispatcher.on_backend_down(name, "its configuration cannot be used")
                for prompt_id in list(child.adopted):
                    failure = Failure(Fault.NETWORK, "its configuration cannot be used")
                    self._dispatcher.on_failed(prompt_id, failure, lost=True)
                child.adopted = {}
                await child.changed.wait()
                continue
            for job, attempt, wanted in child.adopted.values():
                actor.adopt(job, attempt, wanted=wanted)
            for prompt_id in child.fenced:
                actor.fence(prompt_id)
            child.adopted, child.fenced = {}, []
            self._configure(child.config)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._run_again_after_crashes, name, child, actor)
                    while child.in_place or not actor.is_empty():
                        await self._until_replaced(child)
                        await actor.wait_empty()
                    # From here to the next actor nothing may be placed: `apply` sees `ending`, if it is wanted back.
                    child.ending = True
                    self._configure(child.config, draining=True, moving=child.wanted is not None)
                    nursery.cancel_scope.cancel()
            finally:
                with trio.move_on_after(1, shield=True):
                    await actor.aclose()
        del self._children[name]
        self._removed.set()
        self._removed = trio.Event()
        self._dispatcher.on_backend_removed(name)
        self._shared.nodes.on_removed(name)
        log.info("backend %s was removed", name)

    async def _until_replaced(self, child: _Child) -> None:
        while child.in_place:
            await child.changed.wait()

    async def _run_again_after_crashes(self, name: str, child: _Child, actor: BackendActor) -> None:
        while True:
            try:
                await actor.run()
            except* Exception:
                child.crashed = True
                log.exception("backend %s: its actor crashed; it starts again in %g s", name, COOL_DOWN)
            self._dispatcher.on_backend_down(name, "its actor crashed and cools down")
            await trio.sleep(COOL_DOWN)
            child.crashed = False
