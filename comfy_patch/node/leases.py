"""How long a bridge's prompts may go on without a word from their bridge."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable


class Leases:
    """Who has promised to come back until when. Times are of `monotonic`, in seconds: setting the PC's clock ends none.

    May be called from any thread.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._until: dict[str, float] = {}

    def renew(self, holder: str, seconds: float) -> None:
        with self._lock:
            self._until[holder] = self._monotonic() + seconds

    def begin(self, holder: str, seconds: float) -> None:
        """As at a prompt's submission: a lease that runs longer already is not cut."""
        with self._lock:
            self._until[holder] = max(self._until.get(holder, 0.0), self._monotonic() + seconds)

    def spare(self, seconds: float) -> None:
        """Nobody's lease ends before that: this process could not hear for a while."""
        with self._lock:
            earliest = self._monotonic() + seconds
            self._until = {holder: max(until, earliest) for holder, until in self._until.items()}

    def expired(self, holders: Iterable[str]) -> set[str]:
        """Those of them that have no lease any more. All other leases that have run out are forgotten."""
        with self._lock:
            now, holders = self._monotonic(), set(holders)
            self._until = {holder: until for holder, until in self._until.items() if until > now or holder in holders}
            return {holder for holder in holders if self._until.get(holder, now) <= now}

    def next_expiry(self, holders: Iterable[str]) -> float | None:
        """Seconds until the first of these ends; None: there is none."""
        with self._lock:
            ends = [self._until[holder] for holder in holders if holder in self._until]
        return max(0.0, min(ends) - self._monotonic()) if ends else None
