"""How a backend is doing, and how all of them are: state machines without I/O, told what happens and when.

Four judgements, each with its reason:

- **Gone.** Connections to it are refused, again and again: its PC answers and its ComfyUI does not run. A queue lives
  in that process alone, so what it had of ours is lost, and nobody needs to wait for it.
- **Unreachable.** No sign of life for a long time although it was asked. It may well go on; only then is it given up.
- **On probation.** It went away repeatedly: what is placed on it would be lost next time. It is used again once it has
  stayed for a while, longer each time.
- **An outage of ours.** Most backends went away within seconds of each other: that is our network and not their fault.

All times are seconds of one clock that never goes back.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

REFUSALS, REFUSED_FOR = 3, 1.8
"""refused connections in a row, and seconds from the first to the last, after which a backend is gone. A ComfyUI that
is only restarted has lost its queue too: where it is back earlier, it is asked all the same"""

REFUSED_RETRY = 0.3
"""seconds between tries while that is being found out"""

FLAPS, FLAP_WINDOW = 3, 300.0
"""times that a backend may have gone away within so many seconds"""

FIRST_PROBATION, LAST_PROBATION = 5.0, 300.0
"""seconds that it must stay before it is used again: doubling; the first where no other backend is in use"""

QUIET = 600.0
"""seconds without going away after which it is as good as any"""

OUTAGE_LEAST, OUTAGE_WINDOW, OUTAGE_LIMIT = 3, 5.0, 300.0
"""backends that went away, within so many seconds, for an outage; and how many seconds it may keep jobs waiting"""


class Outage:
    """Whether backends are away because of us. `on_change` is called when `suspended` has changed.

    It begins when more than half of those that were up, and at least OUTAGE_LEAST, went away within OUTAGE_WINDOW; it
    ends when half of those are back, or after OUTAGE_LIMIT.
    """

    def __init__(self, on_change: Callable[[], object] = lambda: None) -> None:
        self._on_change = on_change
        self._up: set[str] = set()
        self._fell: dict[str, float] = {}
        """those that went away lately and are not back -> when"""
        self._away: set[str] = set()
        self._all: set[str] = set()
        """those that went away in it; of these, `_away` are not back"""
        self.ends_at = math.inf
        """when it ends at the latest; infinite where there is none"""
        self.spared_until = -math.inf
        """when the last one ended by itself: who is still away gets all the time there is from then on"""

    @property
    def suspended(self) -> bool:
        return self.ends_at < math.inf

    def covers(self, name: str) -> bool:
        """Whether that backend went away in an outage and is not back: nothing of that is its, or a job's, fault."""
        return name in self._away

    def on_up(self, name: str, now: float) -> None:
        self._up.add(name)
        self._fell.pop(name, None)
        self._away.discard(name)
        self._end_if_over(now)

    def on_down(self, name: str, now: float) -> None:
        """A backend that was up went away."""
        if name not in self._up:
            return
        self._up.discard(name)
        if self.suspended:
            self._all.add(name)
            self._away.add(name)
            return
        self._fell = {other: at for other, at in self._fell.items() if now - at <= OUTAGE_WINDOW}
        self._fell[name] = now
        if len(self._fell) >= OUTAGE_LEAST and len(self._fell) > len(self._up):
            self._all = set(self._fell)
            self._away |= self._all
            self._fell = {}
            self.ends_at = now + OUTAGE_LIMIT
            self._on_change()

    def forget(self, name: str, now: float) -> None:
        """It is not watched any more, by our own doing."""
        self._up.discard(name)
        self._fell.pop(name, None)
        self._away.discard(name)
        self._all.discard(name)
        self._end_if_over(now)

    def expire(self, now: float) -> None:
        """Ends it where its time is over."""
        if now >= self.ends_at:
            self._end()

    def _end_if_over(self, now: float) -> None:
        if self.suspended and 2 * len(self._away & self._all) <= len(self._all):
            self.spared_until = now
            self._end()

    def _end(self) -> None:
        self.ends_at = math.inf
        self._on_change()


class Health:
    """One backend, which has not been reached yet. Its attempts' ends are its actor's to bring about."""

    def __init__(self, name: str, outage: Outage, now: float) -> None:
        self._name = name
        self._outage = outage
        self.down_since: float | None = now
        """None while it is up, on probation or not"""
        self.last_heard = now
        """its last sign of life: an event, an answer"""
        self.asked = False
        """it was asked something since, and has not answered"""
        self.gone = False
        """its ComfyUI does not run"""
        self._refused_since = now
        self._refusals = 0
        self._returns: deque[float] = deque(maxlen=FLAPS)
        """when it went away, of the times it came back from"""
        self._up_since: float | None = None
        self._level = 0
        """how many probations it had, since it was last quiet"""
        self._probation_ends = -math.inf

    def heard(self, now: float) -> None:
        self.last_heard = now
        self.asked = False

    def on_stall(self, now: float) -> None:
        """Nobody listened for a while: its silence begins anew."""
        self.last_heard = now
        if self.down_since is not None:
            self.down_since = now

    # -- away, and back ----------------------------------------------------------------------------------------------

    def on_down(self, now: float) -> bool:
        """Its connection ended. True where that is news."""
        self.end_probation()
        if self.down_since is not None:
            return False
        self.down_since = now
        self._outage.on_down(self._name, now)
        return True

    def on_up(self, now: float) -> float:
        """It is connected and answers. Seconds for which it is not to be used all the same."""
        self.heard(now)
        self.on_reached()
        went, self.down_since = self.down_since, None
        blamed = self._up_since is not None and not self._outage.covers(self._name)
        self._outage.on_up(self._name, now)
        if blamed and went is not None and self._up_since is not None:
            if went - self._up_since >= QUIET:
                self._level = 0
                self._returns.clear()
            self._returns.append(went)
        self._up_since = now
        flaps = len(self._returns) == FLAPS and now - self._returns[0] <= FLAP_WINDOW
        if not blamed or not (self._level or flaps):
            return 0.0
        seconds = min(FIRST_PROBATION * 2.0**self._level, LAST_PROBATION)
        self._level = min(self._level + 1, 16)
        self._probation_ends = now + seconds
        return seconds

    def on_stop(self, now: float) -> None:
        """Its actor ends: what it misses from now on is no fault of the backend's."""
        self.end_probation()
        self._up_since = None
        self.down_since = now if self.down_since is None else self.down_since
        self._outage.forget(self._name, now)

    def end_probation(self) -> None:
        self._probation_ends = -math.inf

    def probation(self, now: float) -> str:
        """Why it is not used although it is there, and for how long; "" where it is."""
        left = self._probation_ends - now
        return f"it went away repeatedly and must stay for another {left:.0f} s to be used again" if left > 0 else ""

    # -- gone --------------------------------------------------------------------------------------------------------

    def on_reached(self) -> None:
        """Something answered there, or nothing at all did: it does not refuse connections."""
        self._refusals = 0
        self.gone = False

    def on_refused(self, now: float) -> bool:
        """A connection was refused. True where that makes it certain that its ComfyUI is gone."""
        if self._outage.suspended:
            self._refusals = 0
            return False
        if not self._refusals:
            self._refused_since = now
        self._refusals += 1
        certain = self._refusals >= REFUSALS and now - self._refused_since >= REFUSED_FOR
        news, self.gone = certain and not self.gone, self.gone or certain
        return news

    @property
    def undecided(self) -> bool:
        """It refuses connections, and whether it is gone is to be known soon."""
        return self._refusals > 0 and not self.gone

    # -- unreachable -------------------------------------------------------------------------------------------------

    def unreachable_at(self, since: float, limit: float) -> float:
        """When an attempt that last had news at `since` has waited `limit` for a sign of life; infinite as long as
        nothing is amiss, or it may be our own network."""
        if self._outage.suspended or not (self.asked or self.down_since is not None):
            return math.inf
        from_when = max(since, self._outage.spared_until)
        # Events of a backend that answers no request are not enough: what has been down for so long is down.
        down = math.inf if self.down_since is None else self.down_since
        return max(min(self.last_heard, down), from_when) + limit
