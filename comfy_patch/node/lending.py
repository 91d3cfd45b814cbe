"""Whether the owner lends this PC, and what it has served today. Both survive a restart of ComfyUI."""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

State = dict[str, Any]


class Store:
    """One JSON object in a file that is replaced whole: after a power cut there is the old one or the new one.

    `home`: nothing is written any more once this folder is gone. A package is removed while ComfyUI runs, and nothing
    of it shall come back then.
    """

    def __init__(self, path: Path, home: Path | None = None) -> None:
        self._path = path
        self._home = home

    def load(self) -> State:
        """{} where there is no file, or none that can be read."""
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def save(self, state: State) -> None:
        """Raises OSError."""
        if self._home is not None and not self._home.is_dir():
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self._path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise


class Lending:
    """`clock`: UNIX time; `today`: the local date, YYYY-MM-DD. May be called from any thread."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float] = time.time,
        today: Callable[[], str] = lambda: time.strftime("%Y-%m-%d"),
    ) -> None:
        self._store = store
        self._clock = clock
        self._today = today
        self._lock = threading.Lock()
        self._saving = threading.Lock()
        self.stopped = False
        """the owner has paused, and wants what still comes in to be cancelled, too"""
        self._unsaid = False
        """the pause has been changed here and is not written down"""
        self._paused, self._until, self._served = _read(store.load())

    def state(self) -> State:
        """{"paused": bool, "until": UNIX time or None}, as of now."""
        with self._lock:
            over = self._until is not None and self._until <= self._clock()
            paused = self._paused and not over
            return {"paused": paused, "until": self._until if paused else None}

    @property
    def paused(self) -> bool:
        return bool(self.state()["paused"])

    def served(self) -> State:
        """{"date": today, "jobs": number, "seconds": of computing}."""
        with self._lock:
            return dict(self._served_today())

    def pause(self, minutes: float | None, stop: bool) -> None:
        """`minutes` None: until resumed. Raises OSError: it cannot be written down; it holds until the restart then."""
        with self._lock:
            self._paused, self.stopped, self._unsaid = True, stop, True
            self._until = None if minutes is None else self._clock() + minutes * 60
        self.save()

    def resume(self) -> None:
        """Raises OSError as `pause` does."""
        with self._lock:
            self._paused, self._until, self.stopped, self._unsaid = False, None, False, True
        self.save()

    def over(self) -> bool:
        """Whether a pause has come to its end since this was last asked; true once."""
        with self._lock:
            if not self._paused or self._until is None or self._until > self._clock():
                return False
            self._paused, self._until, self.stopped = False, None, False
            return True

    def remaining(self) -> float | None:
        """Seconds of the pause; None: there is no end to wait for."""
        with self._lock:
            return max(0.0, self._until - self._clock()) if self._paused and self._until is not None else None

    def count(self, seconds: float) -> None:
        """One more job served. Nothing is written: `save` is for a thread that may wait."""
        with self._lock:
            served = self._served_today()
            self._served = {
                **served,
                "jobs": served["jobs"] + 1,
                "seconds": round(served["seconds"] + seconds, 3),
            }

    def save(self) -> None:
        """Raises OSError. Two ComfyUIs may share a user directory, one for each GPU: what was served is written without
        a word on a pause that the owner has begun or ended in the other one."""
        with self._saving:  # whoever writes last writes the newest
            with self._lock:
                state = {"paused": self._paused, "until": self._until, "served": self._served}
                unsaid, self._unsaid = self._unsaid, False
            try:
                written = {} if unsaid else self._store.load()
                self._store.save({**state, **{key: written[key] for key in ("paused", "until") if key in written}})
            except OSError:
                with self._lock:
                    self._unsaid = self._unsaid or unsaid
                raise

    def _served_today(self) -> State:
        today = self._today()
        return self._served if self._served["date"] == today else {"date": today, "jobs": 0, "seconds": 0.0}


def _read(state: State) -> tuple[bool, float | None, State]:
    until = state.get("until")
    served = state.get("served")
    fits = (
        isinstance(served, dict)
        and isinstance(served.get("date"), str)
        and isinstance(served.get("jobs"), int)
        and _finite(served.get("seconds")) is not None
    )
    known = {key: served[key] for key in ("date", "jobs", "seconds")} if isinstance(served, dict) and fits else None
    return (
        state.get("paused") is True,
        _finite(until),
        known or {"date": "", "jobs": 0, "seconds": 0.0},
    )


def _finite(value: Any) -> float | None:
    """None: it is no number. JSON as Python reads it has NaN and Infinity, and integers of any size."""
    try:
        fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        return float(value) if fits else None
    except OverflowError:
        return None
