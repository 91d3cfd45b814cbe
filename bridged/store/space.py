"""Room on the disk for the ledger's own books: a file that is given up when the disk is full.

Without it a full disk would keep the ledger from noting that jobs ended, and what ran would be run again after a
restart. With it new work is refused while what was accepted goes on.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)


class Reserve:
    """`size` bytes beside the ledger. `spent`: they were given up, and not won back yet."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size
        self.spent = False

    def take(self) -> bool:
        """Occupies the room, if there is as much again besides. Blocking. False where the disk is too full for it."""
        try:
            if self._path.exists() and self._path.stat().st_size == self._size:
                self.spent = False
                return True
            stat = os.statvfs(self._path.parent)
            if stat.f_bavail * stat.f_frsize < 2 * self._size:
                raise OSError("too little is free")
            fd = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, self._size)
            finally:
                os.close(fd)
        except OSError:
            self._path.unlink(missing_ok=True)
            self.spent = True
            return False
        self.spent = False
        return True

    def give_up(self) -> None:
        """Frees it for the ledger. Quick, on the event loop."""
        if not self.spent:
            log.error("the disk is full: no new work is taken until %d MB are free", 2 * self._size // 1_000_000)
        self.spent = True
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.error("the disk is full, and the reserve cannot be freed: %s", error.strerror)
