"""Which backends can run a graph at all, and why the others cannot."""

from __future__ import annotations

from collections.abc import Iterable

from bridged.model import BackendSnapshot, Graph


def required_classes(graph: Graph) -> frozenset[str]:
    """The node classes a graph needs."""
    return frozenset(str(node["class_type"]) for node in graph.values())


def can_run(requires: frozenset[str], snapshot: BackendSnapshot) -> bool:
    """Whether it may be placed there, busy or not. Unknown definitions cannot be relied on."""
    away = snapshot.draining or snapshot.paused
    return snapshot.classes is not None and requires <= snapshot.classes and not away


def obstacles(requires: frozenset[str], snapshots: Iterable[BackendSnapshot]) -> dict[str, str] | None:
    """None where some backend can run it or may turn out to; else the reason per backend name, for people.

    A backend that has never been seen may turn out to have the classes: that is a reason to wait, not to refuse; so is
    one that its owner has paused.
    """
    reasons: dict[str, str] = {}
    for snapshot in snapshots:
        if snapshot.draining and not snapshot.moving:
            reasons[snapshot.name] = "is being drained"
        elif snapshot.classes is None or requires <= snapshot.classes:
            return None
        else:
            reasons[snapshot.name] = "lacks " + ", ".join(sorted(requires - snapshot.classes))
    return reasons
