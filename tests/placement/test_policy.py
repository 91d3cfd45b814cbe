"""The decision list of `placement.policy`, number by number, and what it promises for any pool."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from bridged.model import BackendSnapshot, Graph
from bridged.placement.capability import can_run, obstacles, required_classes
from bridged.placement.policy import Decision, Prefetched, Waiting, decide

NEEDS = frozenset({"SaveImage"})


def snapshot(
    name: str,
    *,
    up: bool = True,
    draining: bool = False,
    classes: frozenset[str] | None = NEEDS,
    foreign: int = 0,
    load: int = 0,
    max_running: int = 1,
    prefetch: int = 1,
    idle_since: float = 0.0,
    paused: bool = False,
) -> BackendSnapshot:
    return BackendSnapshot(
        name=name,
        up=up,
        draining=draining,
        classes=classes,
        foreign=foreign,
        load=load,
        max_running=max_running,
        capacity=max_running + prefetch,
        idle_since=idle_since,
        paused=paused,
    )


def waiting(*names: str, excluded: frozenset[str] = frozenset()) -> list[Waiting]:
    return [Waiting(name, NEEDS, excluded) for name in names]


def places(decision: Decision) -> list[tuple[str, str]]:
    return [(placement.job_id, placement.backend) for placement in decision.placements]


def test_1_what_is_not_considered() -> None:
    unusable = [
        snapshot("away", up=False),
        snapshot("draining", draining=True),
        snapshot("paused", paused=True),
        snapshot("owner", foreign=1),
        snapshot("unknown", classes=None),
        snapshot("lacking", classes=frozenset({"Other"})),
        snapshot("full", load=2),
    ]
    assert decide(waiting("j"), [], unusable) == Decision((), ())
    assert places(decide(waiting("j"), [], [*unusable, snapshot("z")])) == [("j", "z")]


def test_a_pause_is_a_reason_to_wait_and_not_to_refuse() -> None:
    paused = snapshot("paused", paused=True)
    assert not can_run(NEEDS, paused)
    assert obstacles(NEEDS, [paused]) is None
    assert obstacles(NEEDS | {"Rare"}, [paused]) == {"paused": "lacks Rare"}


def test_2_the_order_of_the_queue_and_jobs_that_fit_nowhere() -> None:
    queue = [Waiting("rare", frozenset({"Rare"})), *waiting("j1", "j2", "j3")]
    assert places(decide(queue, [], [snapshot("a")])) == [("j1", "a"), ("j2", "a")]


def test_2_excluded_backends_are_no_fit_for_that_job_alone() -> None:
    queue = [*waiting("failed", excluded=frozenset({"a"})), *waiting("fresh")]
    assert places(decide(queue, [], [snapshot("a")])) == [("fresh", "a")]


def test_3_a_running_place_comes_before_a_prefetch_even_with_more_work() -> None:
    pool = [snapshot("a", load=1), snapshot("b", load=2, max_running=4)]
    assert places(decide(waiting("j"), [], pool)) == [("j", "b")]


def test_4_least_work_then_longest_idle_then_name() -> None:
    pool = [
        snapshot("busy", load=1, max_running=2),
        snapshot("a-late", idle_since=9.0, max_running=2),
        snapshot("early", idle_since=3.0, max_running=2),
    ]
    assert places(decide(waiting("j"), [], pool)) == [("j", "early")]
    same = [snapshot("b"), snapshot("a")]
    assert places(decide(waiting("j"), [], same)) == [("j", "a")]


def test_5_a_prefetched_job_goes_to_a_free_running_place() -> None:
    prefetched = [Prefetched("p", "a", NEEDS)]
    assert decide([], prefetched, [snapshot("a", load=2), snapshot("b")]).withdrawals == ("p",)
    assert decide([], prefetched, [snapshot("a", load=2), snapshot("b", load=1)]).withdrawals == ()
    assert decide(waiting("j"), prefetched, [snapshot("a", load=2), snapshot("b")]).withdrawals == ()


def test_5_each_free_place_takes_back_one() -> None:
    prefetched = [Prefetched("p1", "a", NEEDS), Prefetched("p2", "b", NEEDS), Prefetched("p3", "c", NEEDS)]
    full = [snapshot(name, load=2) for name in "abc"]
    assert decide([], prefetched, [*full, snapshot("d")]).withdrawals == ("p1",)
    assert decide([], prefetched, [*full, snapshot("d", max_running=2)]).withdrawals == ("p1", "p2")


def test_5_a_place_that_a_leaving_attempt_is_to_have_is_not_free() -> None:
    prefetched = [Prefetched("p1", "a", NEEDS), Prefetched("p2", "b", NEEDS, leaving=True)]
    pool = [snapshot("a", load=2), snapshot("b", load=2), snapshot("c")]
    assert decide([], prefetched, pool).withdrawals == ()


def test_5_never_for_a_backend_that_it_failed_on_or_that_cannot_run_it() -> None:
    prefetched = [Prefetched("p", "a", NEEDS, frozenset({"b"}))]
    pool = [snapshot("a", load=2), snapshot("b"), snapshot("c", classes=frozenset()), snapshot("d", classes=None)]
    assert decide([], prefetched, pool).withdrawals == ()


def test_6_the_owner_takes_back_everything_that_waits_and_gets_no_place_promised() -> None:
    prefetched = [Prefetched("p1", "a", NEEDS), Prefetched("p2", "b", NEEDS)]
    pool = [snapshot("a", load=2, foreign=1), snapshot("b", load=2)]
    assert decide([], prefetched, pool).withdrawals == ("p1",)
    # The one free place goes to the one that must leave anyway.
    assert decide([], prefetched[::-1], [*pool, snapshot("c")]).withdrawals == ("p1",)
    leaving = [Prefetched("p1", "a", NEEDS, leaving=True)]
    assert decide([], leaving, pool).withdrawals == ()


def test_6_a_backend_that_is_away_is_not_asked_to_give_anything_back_to_its_owner() -> None:
    pool = [snapshot("a", load=1, foreign=1, up=False)]
    assert decide([], [Prefetched("p", "a", NEEDS)], pool).withdrawals == ()


CLASSES = st.frozensets(st.sampled_from("XYZ"), max_size=3)
NAMES = "abcde"
SNAPSHOTS = st.lists(
    st.builds(
        snapshot,
        st.sampled_from(NAMES),
        up=st.booleans(),
        draining=st.booleans(),
        classes=st.none() | CLASSES,
        foreign=st.integers(0, 1),
        load=st.integers(0, 4),
        max_running=st.integers(1, 3),
        prefetch=st.integers(0, 1),
        idle_since=st.floats(0, 9),
    ),
    unique_by=lambda s: s.name,
)
QUEUES = st.lists(
    st.builds(Waiting, st.uuids().map(str), CLASSES, st.frozensets(st.sampled_from(NAMES), max_size=2)), max_size=8
)
PREFETCHED = st.lists(
    st.builds(
        Prefetched,
        st.uuids().map(str),
        st.sampled_from(NAMES),
        CLASSES,
        st.frozensets(st.sampled_from(NAMES)),
        st.booleans(),
    ),
    max_size=6,
)


@given(QUEUES, PREFETCHED, SNAPSHOTS)
def test_whatever_the_pool_is_the_decision_keeps_its_promises(
    queue: list[Waiting], prefetched: list[Prefetched], pool: list[BackendSnapshot]
) -> None:
    decision = decide(queue, prefetched, pool)
    by_name = {s.name: s for s in pool}
    jobs = {job.job_id: job for job in queue}
    assert decide(queue, prefetched, pool) == decision
    assert len({p.job_id for p in decision.placements}) == len(decision.placements)
    assert len(set(decision.withdrawals)) == len(decision.withdrawals)
    added = Counter(p.backend for p in decision.placements)
    for placement in decision.placements:
        s, job = by_name[placement.backend], jobs[placement.job_id]
        assert s.up
        assert not s.draining
        assert s.foreign == 0
        assert s.name not in job.excluded
        assert s.classes is not None
        assert job.requires <= s.classes
        assert s.load + added[s.name] <= s.capacity
    placed = {p.job_id for p in decision.placements}
    for job in (job for job in queue if job.job_id not in placed):
        for s in pool:
            free = s.up and s.foreign == 0 and s.load + added[s.name] < s.capacity
            assert not (free and s.name not in job.excluded and can_run(job.requires, s))
    assert not {p.prompt_id for p in prefetched if p.leaving} & set(decision.withdrawals)
    owners = {
        p.prompt_id
        for p in prefetched
        if not p.leaving and p.backend in by_name and by_name[p.backend].up and by_name[p.backend].foreign
    }
    assert owners <= set(decision.withdrawals)
    running_places = sum(max(0, s.max_running - s.load - added[s.name]) for s in pool if s.up)
    assert len(set(decision.withdrawals) - owners) <= running_places


def test_required_classes_are_those_of_the_graph() -> None:
    graph: Graph = {"1": {"class_type": "A", "inputs": {}}, "2": {"class_type": "B"}, "3": {"class_type": "A"}}
    assert required_classes(graph) == {"A", "B"}


def test_obstacles_name_every_backend_or_none_at_all() -> None:
    lacking = snapshot("l", classes=frozenset({"Other"}))
    draining = snapshot("d", draining=True)
    assert obstacles(frozenset({"SaveImage", "A"}), [lacking, draining]) == {
        "l": "lacks A, SaveImage",
        "d": "is being drained",
    }
    assert obstacles(NEEDS, []) == {}
    assert obstacles(NEEDS, [lacking, snapshot("new", classes=None)]) is None
    assert obstacles(NEEDS, [lacking, snapshot("away", up=False, foreign=3, load=9)]) is None
    assert not can_run(NEEDS, snapshot("x", classes=None))
