"""The RFC's cache of remote options, as a state machine without I/O: what is due, what is stale, when to try again.

One entry holds what one backend answered to one listing. What an entry has is given at once, however old it is; it is
asked for again behind the caller's back (stale while revalidate). Times are seconds of one clock that never goes back.
"""

from __future__ import annotations

import math
from typing import Generic, TypeVar

FIRST_BACKOFF, LAST_BACKOFF = 1.0, 10.0
"""seconds after the first failure, doubling, and at most: RFC 1.1, `min(1000 * 2 ** (failedAttempts - 1), 10000)` ms"""

V = TypeVar("V")


def backoff(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    return min(FIRST_BACKOFF * 2.0 ** min(failures - 1, 16), LAST_BACKOFF) if failures else 0.0


class Entry(Generic[V]):
    """`value` is None until it was first loaded."""

    def __init__(self) -> None:
        self.value: V | None = None
        self.loaded_at = -math.inf
        self.failures = 0
        """in a row"""
        self.fetching = False
        self._retry_at = -math.inf
        self._invalid = False

    def is_due(self, now: float, refresh: float) -> bool:
        """Whether to fetch it now. `refresh`: seconds for which it is fresh; 0: for ever."""
        if self.fetching or now < self._retry_at:
            return False
        return self.value is None or self._invalid or (refresh > 0 and now - self.loaded_at >= refresh)

    def invalidate(self) -> None:
        """It is stale from now on. A fetch that is under way may have begun too early, so another one follows it."""
        self._invalid = True

    def try_again(self) -> None:
        """Whom it is fetched from came back: earlier failures say nothing any more."""
        self.failures = 0
        self._retry_at = -math.inf

    def begin(self) -> None:
        self.fetching = True
        self._invalid = False

    def succeed(self, value: V, now: float) -> bool:
        """True where that is another value than before; the first one is no change. An equal one leaves the very object
        that was there, by which others know what they made of it."""
        is_first = self.value is None
        is_other = self.value != value
        self.fetching = False
        self.value = value if is_other else self.value
        self.loaded_at = now
        self.failures = 0
        return is_other and not is_first

    def fail(self, now: float) -> None:
        """What was there before stays."""
        self.fetching = False
        self._invalid = True
        self.failures += 1
        self._retry_at = now + backoff(self.failures)
