"""Whose turn it is: the queue of jobs in an order that is fair to their owners.

Start-time fair queueing (Goyal, Vin and Cheng, 1996): each owner has a lane, first come first served; a job that joins
its lane is stamped with the virtual time at which it may begin, and pushes its owner's next one back by 1 / weight. The
queue is all lanes by stamp. So owners who wait share the pool by their weights, however many jobs each has sent, an
owner who comes late waits behind one job of each other, not behind all of them, and nobody saves up turns. With one
owner it is first come, first served.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items by id. `len`, `in`, and iteration over the items in their turn."""

    def __init__(self) -> None:
        self._lanes: dict[str, OrderedDict[str, tuple[float, int, float, T]]] = {}
        """owner -> id -> (stamp, serial, weight, item)"""
        self._owners: dict[str, str] = {}
        self._next: dict[str, float] = {}
        """owner -> stamp of its next job, where that is ahead of `_time`"""
        self._charged: dict[str, float] = {}
        """owner -> what that would be by the jobs that were taken alone"""
        self._time = 0.0
        """the stamp of the job that was taken last"""
        self._serial = 0

    def __len__(self) -> int:
        return len(self._owners)

    def __contains__(self, id_: str) -> bool:
        return id_ in self._owners

    def __iter__(self) -> Iterator[T]:
        lanes = list(self._lanes.values())
        ordered = lanes[0].values() if len(lanes) == 1 else heapq.merge(*(lane.values() for lane in lanes), key=_turn)
        return (item for _, _, _, item in ordered)

    def owners(self) -> int:
        """How many have something in it."""
        return len(self._lanes)

    def of_owner(self, owner: str) -> int:
        return len(self._lanes.get(owner, ()))

    def add(self, id_: str, item: T, owner: str, weight: float) -> None:
        """At the end of its owner's lane. `weight` > 0."""
        stamp = max(self._time, self._next.get(owner, 0.0))
        self._next[owner] = stamp + 1 / weight
        self._serial += 1
        self._put(id_, (stamp, self._serial, weight, item), owner)

    def put_back(self, id_: str, item: T, owner: str) -> None:
        """Before all others: it had its turn already."""
        self._serial += 1
        self._put(id_, (-math.inf, -self._serial, 1.0, item), owner)
        self._lanes[owner].move_to_end(id_, last=False)

    def take(self, id_: str) -> T:
        """Its turn has come."""
        owner = self._owners[id_]
        stamp, weight, item = self._remove(id_)
        if stamp > -math.inf:
            self._charged[owner] = stamp + 1 / weight
        if stamp > self._time:
            self._time = stamp
            self._next = {name: due for name, due in self._next.items() if due > stamp or name in self._lanes}
            self._charged = {name: due for name, due in self._charged.items() if due > stamp}
        return item

    def discard(self, id_: str) -> bool:
        """It is not wanted any more, if it is there at all. An owner who has nothing left here is not charged for what
        never had its turn."""
        owner = self._owners.get(id_)
        if owner is None:
            return False
        self._remove(id_)
        if owner not in self._lanes:
            self._next[owner] = self._charged.get(owner, 0.0)
        return True

    def _put(self, id_: str, entry: tuple[float, int, float, T], owner: str) -> None:
        self._lanes.setdefault(owner, OrderedDict())[id_] = entry
        self._owners[id_] = owner

    def _remove(self, id_: str) -> tuple[float, float, T]:
        owner = self._owners.pop(id_)
        lane = self._lanes[owner]
        stamp, _, weight, item = lane.pop(id_)
        if not lane:
            del self._lanes[owner]
        return stamp, weight, item


def _turn(entry: tuple[float, int, float, object]) -> tuple[float, int]:
    return entry[:2]
