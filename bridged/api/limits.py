"""Token buckets: how often a caller or an address may do something."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from bridged.errors import TooMany

MOST = 20_000
"""buckets of one kind: beyond that the one that was not used for longest starts anew (full)"""


class Buckets:
    """One bucket per key. `clock` in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """key -> (tokens, when)"""

    def take(self, key: str, per_minute: float, burst: float, what: str) -> None:
        """Takes one token of at most `burst`, which come back at `per_minute`; 0: no limit.

        Raises TooMany: there is none, and in how many seconds there will be.
        """
        if not per_minute:
            return
        now = self._clock()
        tokens, since = self._levels.pop(key, (burst, now))
        tokens = min(burst, tokens + (now - since) * per_minute / 60)
        enough = tokens >= 1
        self._levels[key] = (tokens - 1 if enough else tokens, now)
        if len(self._levels) > MOST:
            self._levels.popitem(last=False)
        if not enough:
            wait = math.ceil((1 - tokens) * 60 / per_minute)
            raise TooMany(f"too many {what}: at most {per_minute:g} a minute; try again in {wait} s", wait)
