"""Turns: who waits shares by weight, who comes late waits behind one of each, nobody saves up."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from bridged.placement.fairness import FairQueue


def fill(queue: FairQueue[str], *lanes: tuple[str, int, float]) -> None:
    for owner, count, weight in lanes:
        for number in range(count):
            queue.add(f"{owner}{number}", f"{owner}{number}", owner, weight)


def taken(queue: FairQueue[str], count: int) -> list[str]:
    return [queue.take(next(iter(queue))) for _ in range(count)]


def test_one_owner_is_first_come_first_served() -> None:
    queue: FairQueue[str] = FairQueue()
    fill(queue, ("a", 4, 3.0))
    assert list(queue) == taken(queue, 4) == ["a0", "a1", "a2", "a3"]
    assert len(queue) == 0


def test_owners_take_turns_however_many_jobs_each_has() -> None:
    queue: FairQueue[str] = FairQueue()
    fill(queue, ("a", 100, 1.0), ("b", 2, 1.0))
    assert list(queue)[:5] == ["a0", "b0", "a1", "b1", "a2"]


def test_turns_go_by_weight() -> None:
    queue: FairQueue[str] = FairQueue()
    fill(queue, ("a", 300, 1.0), ("b", 300, 3.0))
    owners = Counter(item[0] for item in taken(queue, 200))
    assert owners["b"] / owners["a"] == 3.0


def test_who_comes_late_waits_behind_one_of_each() -> None:
    queue: FairQueue[str] = FairQueue()
    fill(queue, ("a", 50, 1.0))
    taken(queue, 20)
    fill(queue, ("b", 3, 1.0))
    assert list(queue)[:4] == ["b0", "a20", "b1", "a21"]


def test_nobody_saves_up_turns_while_away() -> None:
    queue: FairQueue[str] = FairQueue()
    fill(queue, ("b", 1, 1.0))
    taken(queue, 1)
    fill(queue, ("a", 50, 1.0))
    taken(queue, 20)
    fill(queue, ("b", 20, 1.0))
    assert Counter(item[0] for item in list(queue)[:10]) == {"a": 5, "b": 5}


def test_nobody_pays_for_what_was_taken_back_before_its_turn() -> None:
    queue: FairQueue[str] = FairQueue()
    fill(queue, ("a", 100, 1.0))
    for number in range(100):
        queue.discard(f"a{number}")
    fill(queue, ("b", 100, 1.0), ("c", 1, 1.0))
    fill(queue, ("a", 1, 1.0))
    assert list(queue)[:3] == ["b0", "c0", "a0"]


def test_but_for_what_was_taken_it_does() -> None:
    queue: FairQueue[str] = FairQueue()
    fill(queue, ("a", 5, 1.0), ("b", 5, 1.0))
    assert taken(queue, 3) == ["a0", "b0", "a1"]
    for number in range(2, 5):
        queue.discard(f"a{number}")
    fill(queue, ("a", 1, 1.0))
    assert list(queue)[:4] == ["b1", "b2", "a0", "b3"]  # two each, then a tie: whoever came first


def test_what_is_put_back_comes_first_the_last_one_first() -> None:
    queue: FairQueue[str] = FairQueue()
    fill(queue, ("a", 3, 1.0), ("b", 3, 1.0))
    one, two = taken(queue, 2)
    queue.put_back(one, one, "a")
    queue.put_back(two, two, "b")
    assert list(queue)[:3] == [two, one, "a1"]
    assert queue.of_owner("a") == 3
    assert queue.discard(one)
    assert not queue.discard(one)
    assert one not in queue


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["add", "take", "back", "discard"])), max_size=60))
def test_nothing_is_lost_and_lanes_keep_their_order(steps: list[tuple[str, str]]) -> None:
    queue: FairQueue[str] = FairQueue()
    inside: dict[str, str] = {}
    out: list[tuple[str, str]] = []
    for number, (owner, step) in enumerate(steps):
        if step == "add":
            queue.add(str(number), f"{owner}{number:03}", owner, 1.0 + number % 3)
            inside[str(number)] = f"{owner}{number:03}"
        elif step == "take" and inside:
            item = next(iter(queue))
            id_ = next(key for key, value in inside.items() if value == item)
            assert queue.take(id_) == inside.pop(id_)
            out.append((id_, item))
        elif step == "back" and out:
            id_, item = out.pop()
            queue.put_back(id_, item, item[0])
            inside[id_] = item
        elif step == "discard" and inside:
            id_ = min(inside)
            assert queue.discard(id_)
            del inside[id_]
        assert sorted(queue) == sorted(inside.values())
        assert len(queue) == len(inside) == sum(queue.of_owner(owner) for owner in "abc")
