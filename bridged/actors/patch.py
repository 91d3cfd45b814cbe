"""One PC's patch, where it has one, as its actor keeps it: what it says, the owner's pauses, the lease of our prompts.

A PC without the patch, or with one that does not take our token, is a stock ComfyUI in every respect but one: an event
that its owner has paused it is believed all the same.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime

import trio

from bridged.actors.attempt import Follow
from bridged.comfy.client import ComfyClient
from bridged.errors import BackendUnavailable
from bridged.model import Lending, PatchInfo

log = logging.getLogger(__name__)

RETRY = 2.0
"""seconds between tries to renew a lease, or to learn what a PC is that runs our prompts, where it does not answer: at
most a third of the lease"""

ASK_AGAIN = 1.0
"""seconds after a prompt was refused for a pause that we had not heard of, before the PC is asked about it"""

OVERDUE = 30.0
"""seconds after the end of a pause, by our clock, in which the PC may say so itself before it is asked"""

FLAPPING = 60.0
"""seconds: one that is paused again within so long of being lent is lent again the later each time, up to so long after
its pause began; else it could have a job placed and taken back without end"""

LENT = Lending(paused=False)


class Patch:
    """`has_token`: one is configured. `lease` gives the seconds that prompts go on without us. `on_lending` is told
    whether the PC is paused, whenever that may have changed; `is_needed` says whether it has prompts of ours."""

    def __init__(
        self,
        name: str,
        client: ComfyClient,
        *,
        has_token: bool,
        lease: Callable[[], float],
        on_lending: Callable[[bool], object],
        is_needed: Callable[[], bool],
    ) -> None:
        self._name = name
        self._client = client
        self._has_token = has_token
        self._lease = lease
        self._on_lending = on_lending
        self._is_needed = is_needed
        self.info: PatchInfo | None = None
        """None: it has none that lets us in"""
        self.lending = LENT
        self._heard = 0
        """how often it said itself whether it is paused: what was asked before that is older"""
        self._said = ""
        self._until = -math.inf
        """until when the PC has our lease at least, by our clock; -inf: it has none that we know of"""
        self._lapses = 0
        self._renew_at = self._ask_at = self._lend_at = math.inf
        self._hold = 0.0
        """how long the present pause lasts at least (s), and until when that is"""
        self._held_until = self._lent_at = -math.inf
        self._wake = trio.Event()

    # -- what it says ------------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """A new connection was made, perhaps to another ComfyUI than before: asks whether it has a patch."""
        heard = self._heard
        if await self._learn() and self.info is None and self._heard == heard:
            self._set(LENT)
        self._renew_at = trio.current_time() if self._is_needed() else math.inf
        self._rouse()

    def on_lending(self, lending: Lending) -> None:
        """The event `bridged.lending`."""
        self._heard += 1
        self._set(lending)

    def on_refused_prompt(self) -> None:
        """It refused a prompt because it is paused; the event that says so is on its way, or was lost."""
        if not self.lending.paused:
            self.on_lending(Lending(paused=True))
            self._ask_at = trio.current_time() + ASK_AGAIN
            self._rouse()

    def reason(self) -> str:
        """Why it gets nothing new, for people; "" where it does."""
        if not self.lending.paused:
            return ""
        if self.lending.until is None:
            return "paused by its owner until it is resumed"
        until = datetime.fromtimestamp(self.lending.until, UTC)
        return f"paused by its owner until {until:%Y-%m-%d %H:%M} UTC"

    async def _learn(self) -> bool:
        """False where it gives no answer: what was known stays, and it is asked again."""
        heard = self._heard
        try:
            status, info = await self._client.patch_info()
        except BackendUnavailable as error:
            self._say(logging.WARNING, f"does not say what its patch is: {self._client.without_address(str(error))}")
            if error.answered:
                self.info = None
                return True
            again = min(RETRY, self._lease() / 3) if self._is_needed() else OVERDUE
            self._ask_at = min(self._ask_at, trio.current_time() + again)
            self._rouse()
            return False
        if info is not None:
            self._say(logging.INFO, f"has the patch, version {info.patch}")
            if self._heard == heard:
                self._set(info.lending)
        elif status in (401, 403):
            self._refused()
        elif self._has_token:
            self._say(logging.WARNING, "has no patch, though backends.toml has a token for it")
        else:
            self._say(logging.DEBUG, "has no patch")
        self.info = info
        return True

    def _refused(self) -> None:
        if self._has_token:
            self._say(logging.WARNING, "refuses the token in backends.toml, and is used like a stock ComfyUI")
        else:
            self._say(logging.INFO, "may have the patch, but backends.toml has no `token` for it")

    def _say(self, level: int, what: str) -> None:
        """Once, until there is something else to say."""
        if what != self._said:
            self._said = what
            log.log(level, "backend %s %s", self._name, what)

    def _set(self, lending: Lending) -> None:
        now = trio.current_time()
        self._ask_at = self._lend_at = math.inf
        if self.lending.paused and not lending.paused and now < self._held_until:
            self._lend_at = self._held_until
        else:
            self._take(lending, now)
        self._rouse()

    def _take(self, lending: Lending, now: float) -> None:
        changed, self.lending = lending.paused != self.lending.paused, lending
        if changed:
            log.info("backend %s is %s", self._name, self.reason() or "lent again by its owner")
        if changed and lending.paused:
            again = now < self._lent_at + FLAPPING
            self._hold = min(max(1.0, 2 * self._hold), FLAPPING) if again else 0.0
            self._held_until = now + self._hold
        elif changed:
            self._lent_at = now
        if lending.paused and lending.until is not None:
            self._ask_at = now + max(0.0, lending.until - time.time()) + OVERDUE
        self._on_lending(lending.paused)

    # -- the lease ---------------------------------------------------------------------------------------------------

    def lease_of(self, follow: Follow) -> float:
        """An attempt is about to be posted: the lease to post it with, in seconds; 0 for none. A lease that could not
        be renewed would end the prompt."""
        if self.info is None:
            return 0.0
        lease, now = self._lease(), trio.current_time()
        follow.lapses = self._count_lapse()
        self._until = max(self._until, now + lease)
        if not now < self._renew_at < now + lease / 3:
            self._renew_at = now + lease / 3
        self._rouse()
        return lease

    async def renew(self) -> bool:
        """Our prompts there may go on for another lease from now, connected or not. False where there are none, or it
        does not answer."""
        if not self._renews:
            return False
        lease, now = self._lease(), trio.current_time()
        try:
            renewed = await self._client.renew_lease(lease)
        except BackendUnavailable as error:
            log.info("backend %s: its lease is not renewed: %s", self._name, error)
            self._renew_at = trio.current_time() + min(RETRY, lease / 3)
            return False
        self._renew_at = now + lease / 3
        if renewed:
            self._count_lapse()
            self._until = now + lease
        return True

    def _count_lapse(self) -> int:
        """How often the lease has been over since the beginning."""
        if -math.inf < self._until <= trio.current_time():
            self._lapses += 1
            self._until = -math.inf
        return self._lapses

    async def excuses(self, follow: Follow) -> str:
        """Why a prompt that ended there, though nobody of ours asked for it, was ended by the patch; "" where it was
        not. Of one that an earlier run of the service began nobody knows how long it was alone."""
        if follow.adopted and self.info is None:
            await self._learn()  # its end may be found before the connection is made
        if follow.lapses is None and not (follow.adopted and self.info is not None):
            return ""
        if follow.adopted or self._count_lapse() != follow.lapses:
            return "the service was away from that PC for longer than its lease"
        if not self.lending.paused:
            await self._learn()  # the event may come after the end of the prompt that it ended
        return "its owner paused the PC" if self.lending.paused else ""

    # -- its task ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Renews the lease while there are prompts of ours, and what is known with it. Until cancelled."""
        while True:
            wake = self._wake
            with trio.move_on_at(min(self._ask_at, self._lend_at, self._renew_at if self._renews else math.inf)):
                await wake.wait()
            if trio.current_time() >= self._lend_at:
                self._set(LENT)
            if trio.current_time() >= self._renew_at and await self.renew():
                self._ask_at = trio.current_time()  # what it said of itself has grown old, too
            if trio.current_time() >= self._ask_at:
                self._ask_at = math.inf
                await self._learn()

    @property
    def _renews(self) -> bool:
        return self.info is not None and self._is_needed()

    def _rouse(self) -> None:
        self._wake.set()
        self._wake = trio.Event()
