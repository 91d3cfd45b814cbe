"""What happens when time passes: leases end, a pause ends."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from .leases import Leases
from .lending import Lending
from .prompts import Jobs

LATE = 1.0
"""seconds: an alarm that rings so much later finds that this process stood still, or the PC slept"""

GRACE = 15.0
"""seconds that bridges then have to say a word: nobody could have heard them"""

LOOK_AGAIN = 60.0
"""seconds. The end of a pause is a time of day, and a PC's clock may be set while we wait for it."""

log = logging.getLogger("bridged_patch")


class Timer(Protocol):
    """The server's event loop. `soon` may be called from any thread; `later` gives what cancels it."""

    def soon(self, call: Callable[[], object]) -> None: ...

    def later(self, delay: float, call: Callable[[], object]) -> Callable[[], object]: ...

    def monotonic(self) -> float: ...


class Watch:
    """Sleeps until the next thing is due. `announce` tells everybody of a changed lending state."""

    def __init__(
        self,
        timer: Timer,
        jobs: Jobs,
        leases: Leases,
        lending: Lending,
        announce: Callable[[dict[str, Any]], object],
    ) -> None:
        self._timer = timer
        self._jobs = jobs
        self._leases = leases
        self._lending = lending
        self._announce = announce
        self._cancel_alarm: Callable[[], object] | None = None
        self._due: float | None = None

    def poke(self) -> None:
        """Something has changed that may be due earlier. From any thread, and under any lock."""
        self._timer.soon(self._look)

    def _look(self) -> None:
        if self._cancel_alarm is not None:
            self._cancel_alarm()
        now = self._timer.monotonic()
        if self._due is not None and now - self._due > LATE:
            self._leases.spare(GRACE)
        self._due = None
        if self._lending.over():
            self._announce(self._lending.state())
        if self._lending.stopped:
            self._jobs.cancel_all()
        holders = {prompt.holder for prompt in self._jobs.here()}
        gone = self._leases.expired(holders)
        if gone and self._jobs.cancel_all(lambda prompt: prompt.holder in gone):
            log.warning("bridged_patch: a bridge was not heard of for longer than its lease: its prompts are stopped")
        self._sleep(holders - gone)

    def _sleep(self, holders: set[str]) -> None:
        waits = [wait for wait in (self._leases.next_expiry(holders), self._lending.remaining()) if wait is not None]
        if not waits:
            self._cancel_alarm = None
            return
        # A little later than due: timers may ring a moment early, and would find nothing to do.
        wait = min(min(waits) + 0.02, LOOK_AGAIN)
        self._due = self._timer.monotonic() + wait
        self._cancel_alarm = self._timer.later(wait, self._look)
