"""An edited folder of the configuration: one writer at a time, and its entries on the disk."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bridged.errors import ConfigError

LOCK_TIMEOUT = 10.0
"""seconds for another edit to end: one takes milliseconds"""


@contextmanager
def locked(folder: Path, called: str) -> Iterator[None]:
    """One edit at a time, the service's and commands' alike, by a lock on the folder itself: one on a file would go
    with the file that is replaced. Blocking. `called`: its name in the error. Raises ConfigError: it stays locked."""
    with _opened(folder) as descriptor:
        deadline = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ConfigError(f"{called}: another command holds its lock; try again") from None
                time.sleep(0.01)
        yield


def sync(folder: Path) -> None:
    """What was replaced in it is so after a loss of power, too. Blocking."""
    with _opened(folder) as descriptor:
        os.fsync(descriptor)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
