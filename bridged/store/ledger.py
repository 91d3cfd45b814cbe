"""What must survive the daemon. Today: how many jobs were ever started."""

from __future__ import annotations

from typing import Protocol


class Ledger(Protocol):
    """`count_started` is a plain call, so that the dispatcher's core may cause it; a writer task commits in order."""

    @property
    def generation_count(self) -> int:
        """Jobs ever started, restarts included."""

    def count_started(self) -> None:
        """One more job was started. Committed soon, in order."""
