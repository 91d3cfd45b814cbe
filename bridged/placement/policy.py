"""Where the next jobs go: a pure function over the queue and the backends' snapshots.

The decision list; the numbers stand beside the code:

1. Only backends that are up, not draining, not paused by their owner nor busy with the owner's own prompts, and that
   know every node class of the graph are considered.
2. Jobs are taken in the order of the queue. One that fits nowhere now does not hold up those behind it.
3. A backend with a free running place comes before one that could only prefetch; before both, one on which the
   workflow did not run out of memory.
4. Among those, the one with the least work; ties go to the one that has been idle longest.
5. A prefetched job is taken back when a backend that could run it has a free running place and nothing of the
   queue is left for it; a job that has started is never moved.
6. A prefetched job is taken back when the owner's own prompts arrive on its backend: they come first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from bridged.model import BackendSnapshot
from bridged.placement.capability import can_run


class Waiting(msgspec.Struct, frozen=True):
    """A queued job. `excluded`: backends it already failed on. `avoided`: backends that take it only where no other
    can: its workflow ran out of memory there."""

    job_id: str
    requires: frozenset[str]
    excluded: frozenset[str] = frozenset()
    avoided: frozenset[str] = frozenset()


class Prefetched(msgspec.Struct, frozen=True):
    """An attempt that waits in a backend's own queue behind another of ours. `leaving`: it is being taken back
    already, so a free place is spoken for."""

    prompt_id: str
    backend: str
    requires: frozenset[str]
    excluded: frozenset[str] = frozenset()
    leaving: bool = False


class Placement(msgspec.Struct, frozen=True):
    job_id: str
    backend: str


class Decision(msgspec.Struct, frozen=True):
    placements: tuple[Placement, ...]
    withdrawals: tuple[str, ...]
    """prompt_ids of prefetched attempts to take back"""


def decide(
    queue: Iterable[Waiting], prefetched: Sequence[Prefetched], snapshots: Sequence[BackendSnapshot]
) -> Decision:
    available = {s.name: s for s in snapshots if s.up and not (s.draining or s.paused) and s.foreign == 0}  # 1
    load = {name: s.load for name, s in available.items()}
    places = sum(max(0, s.capacity - s.load) for s in available.values())
    placements: list[Placement] = []
    hopeless: set[tuple[frozenset[str], frozenset[str], frozenset[str]]] = set()
    if places:
        for job in queue:  # 2
            kind = (job.requires, job.excluded, job.avoided)
            if kind in hopeless:
                continue
            best = _best(job, available, load)
            if best is None:
                hopeless.add(kind)
                continue
            placements.append(Placement(job.job_id, best))
            load[best] += 1
            places -= 1
            if not places:
                break
    return Decision(tuple(placements), tuple(_withdrawals(prefetched, snapshots, available, load)))


def _best(
    job: Waiting,
    available: dict[str, BackendSnapshot],
    load: dict[str, int],
) -> str | None:
    fitting = [
        snapshot
        for name, snapshot in available.items()
        if load[name] < snapshot.capacity and name not in job.excluded and can_run(job.requires, snapshot)
    ]
    if not fitting:
        return None
    return min(
        fitting,
        key=lambda s: (
            s.name in job.avoided,  # 3
            load[s.name] >= s.max_running,
            load[s.name],  # 4
            s.idle_since,
            s.name,
        ),
    ).name


def _withdrawals(
    prefetched: Sequence[Prefetched],
    snapshots: Sequence[BackendSnapshot],
    available: dict[str, BackendSnapshot],
    load: dict[str, int],
) -> Iterable[str]:
    owners_turn = {s.name for s in snapshots if s.up and s.foreign > 0}
    free = {name: s.max_running - load[name] for name, s in available.items() if load[name] < s.max_running}
    for attempt in sorted(prefetched, key=lambda a: (not a.leaving, a.backend not in owners_turn)):
        place = next(
            (
                name
                for name in sorted(free)
                if free[name] > 0
                and name != attempt.backend
                and name not in attempt.excluded
                and can_run(attempt.requires, available[name])
            ),
            None,
        )
        if place is not None:  # 5
            free[place] -= 1
        if not attempt.leaving and (place is not None or attempt.backend in owners_turn):  # 6
            yield attempt.prompt_id
