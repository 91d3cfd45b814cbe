"""When an attempt has run, shown nothing, or been out of reach for too long: one timer per backend.

The timer is a cancel scope that sleeps until the earliest deadline there is. What brings one nearer says so with a
plain call; what puts one off is only looked at when the timer fires. So an event costs nothing here.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping

import trio

from bridged.actors.attempt import Desired, Follow, Lost
from bridged.actors.control import Control
from bridged.actors.health import Health
from bridged.comfy.protocol import Succeeded
from bridged.config.schema import Jobs

log = logging.getLogger(__name__)

STALL = 0.25
"""seconds that the timer may fire late; beyond that it was this process that stood still"""

CONFIRM = 5.0
"""seconds that a backend may take to confirm that a hung prompt was stopped; then it is given up as it is"""


class Deadlines:
    """Of all attempts on one backend. `covered`: whether it went away for reasons of our own."""

    def __init__(
        self,
        name: str,
        follows: Mapping[str, Follow],
        control: Control,
        health: Health,
        settings: Callable[[], Jobs],
        covered: Callable[[], bool],
    ) -> None:
        self._name = name
        self._follows = follows
        self._control = control
        self._health = health
        self._settings = settings
        self._covered = covered
        self._timer = trio.CancelScope()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for follow in self._follows.values():
                if follow.overdue and not follow.ended.is_set():  # its stopping went down with an actor that crashed
                    nursery.start_soon(self._stop, follow)
            while True:
                with trio.CancelScope(deadline=max(self._next(), trio.current_time())) as self._timer:
                    await trio.sleep_forever()
                late = trio.current_time() - self._timer.deadline
                if late > STALL:
                    self._on_stall(late)
                else:
                    self._enforce(nursery)

    # -- plain calls -------------------------------------------------------------------------------------------------

    def on_started(self, follow: Follow, now: float) -> None:
        """It has begun to run: from now on its own deadlines count."""
        follow.started_at = follow.progressed_at = now
        self._arm(self._overdue_at(follow))

    def on_heard_again(self, away: float) -> None:
        """Events come again after `away` seconds: progress that nobody could hear of is not held against anyone."""
        for follow in self._follows.values():
            follow.progressed_at = min(follow.progressed_at + away, trio.current_time())
        self.rearm()

    def rearm(self) -> None:
        """The backend went away, or was asked something, or an outage has ended."""
        self._arm(self._next())

    def _arm(self, at: float) -> None:
        """The timer fires at `at`, at the latest; never in the past, so that lateness is a stall of ours."""
        self._timer.deadline = min(self._timer.deadline, max(at, trio.current_time()))

    def give_up(self, follow: Follow, why: Lost) -> None:
        """Ends what is open of it. What may still run there must not go on, should it turn up."""
        follow.blameless = self._covered()
        follow.abandoned = True
        if not follow.ended.is_set():
            if follow.posted:
                self._control.give_up(follow.prompt_id)
            follow.end(why)
        if follow.interruptible is not None:
            follow.interruptible.cancel()

    def _on_stall(self, seconds: float) -> None:
        """This process stood still (stopped, a paused machine, a busy one) for that long at least: what its backend
        said meanwhile is still to be read, so its silence begins anew."""
        log.warning("backend %s: this service stood still for %.1f s; its silence does not count", self._name, seconds)
        now = trio.current_time()
        self._health.on_stall(now)
        for follow in self._follows.values():
            follow.last_heard = follow.progressed_at = now

    # -- the deadlines -----------------------------------------------------------------------------------------------

    def _next(self) -> float:
        return min(map(self._due, self._follows.values()), default=math.inf)

    def _due(self, follow: Follow) -> float:
        return min(self._unreachable_at(follow), self._overdue_at(follow))

    def _unreachable_at(self, follow: Follow) -> float:
        """The backend's silence, also while its files are uploaded and its outputs fetched."""
        over = follow.ended.is_set() and not isinstance(follow.outcome, Succeeded)
        if over or follow.abandoned:
            return math.inf
        return self._health.unreachable_at(follow.last_heard, self._settings().unreachable_after)

    def _overdue_at(self, follow: Follow) -> float:
        if follow.started_at is None or follow.overdue or follow.ended.is_set() or self._covered():
            return math.inf
        job = follow.job
        longest = follow.started_at + job.max_runtime if job.max_runtime else math.inf
        hears = self._health.down_since is None
        silent = follow.progressed_at + job.no_progress_timeout if job.no_progress_timeout and hears else math.inf
        return min(longest, silent)

    def _enforce(self, nursery: trio.Nursery) -> None:
        now = trio.current_time()
        for follow in list(self._follows.values()):
            if self._unreachable_at(follow) <= now:
                log.warning("backend %s: given up for job %s: no sign of life", self._name, follow.job.id)
                self.give_up(follow, Lost.UNREACHABLE)
            elif self._overdue_at(follow) <= now:
                assert follow.started_at is not None
                job = follow.job
                if job.max_runtime and now - follow.started_at >= job.max_runtime:
                    follow.overdue = f"it ran longer than max_runtime {job.max_runtime:g} s"
                else:
                    follow.overdue = f"it showed no progress for {job.no_progress_timeout:g} s"
                log.warning("backend %s: job %s is stopped: %s", self._name, job.id, follow.overdue)
                nursery.start_soon(self._stop, follow)

    async def _stop(self, follow: Follow) -> None:
        """A hung backend never confirms: it is not waited for."""
        with trio.move_on_after(CONFIRM):
            if follow.desired is Desired.RUN:
                await self._control.cancel(follow)
            await follow.ended.wait()
        if not follow.ended.is_set():
            self.give_up(follow, Lost.HUNG)
