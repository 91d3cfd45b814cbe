"""The service's own clock: near the wall clock, never going back, and untouched by its jumps.

Times that are written down must mean something after a restart, so the run clock of a process will not do; the wall
clock jumps (NTP, a person, a VM that was paused), and a jump of a day must not end the life of every result. Linux
counts seconds since the machine's start (CLOCK_BOOTTIME, suspends included); the ledger keeps what to add to them.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec


class Anchor(msgspec.Struct, frozen=True):
    """Service time = `offset` + seconds since the start of the machine, during this `boot`. `seen`: service time when
    this was written down: no later run begins before it."""

    boot: str
    offset: float
    seen: float


class ServiceClock:
    """`saved`: the anchor of an earlier run."""

    def __init__(self, saved: Anchor | None, boot: str | None = None) -> None:
        self._boot = boot or boot_id()
        if saved is not None and self._boot and saved.boot == self._boot:
            self._offset = saved.offset
        else:
            self._offset = max(time.time(), saved.seen if saved else 0.0) - _since_start()

    def now(self) -> float:
        return self._offset + _since_start()

    def anchor(self) -> Anchor:
        return Anchor(self._boot, self._offset, self.now())


def _since_start() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""  # no such file: then every run anchors itself to the one wall clock there is
