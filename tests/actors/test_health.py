"""The judgements about a backend and about all of them, with a clock that moves when it is told to."""

from __future__ import annotations

import math

import pytest

from bridged.actors.health import (
    FIRST_PROBATION,
    FLAP_WINDOW,
    LAST_PROBATION,
    OUTAGE_LIMIT,
    OUTAGE_WINDOW,
    QUIET,
    REFUSED_FOR,
    Health,
    Outage,
)


class Changes:
    def __init__(self) -> None:
        self.seen: list[bool] = []
        self.outage = Outage(lambda: self.seen.append(self.outage.suspended))


def test_refusals_in_a_row_over_a_while_mean_that_it_is_gone_and_are_told_once() -> None:
    health = Health("a", Outage(), 0.0)
    health.on_up(0.0)
    health.on_down(10.0)
    assert not health.undecided
    assert not health.on_refused(10.3)
    assert health.undecided
    assert [health.on_refused(10.3 + step) for step in (0.1, 0.2, 0.3, REFUSED_FOR - 0.01)] == [False] * 4
    assert health.on_refused(10.3 + REFUSED_FOR)
    assert health.gone
    assert not health.undecided
    assert not health.on_refused(20.0)
    health.on_up(30.0)
    assert not health.gone


def test_two_refusals_are_not_enough_however_far_apart() -> None:
    health = Health("a", Outage(), 0.0)
    assert not health.on_refused(0.0)
    assert not health.on_refused(100.0)
    assert health.on_refused(100.1)


def test_any_other_outcome_starts_the_refusals_over() -> None:
    health = Health("a", Outage(), 0.0)
    for now in (0.0, 1.0, 1.5):
        assert not health.on_refused(now)
    health.on_reached()
    for now in (2.0, 3.0, 3.5):
        assert not health.on_refused(now)
    assert health.on_refused(3.9)


def flap(health: Health, now: float) -> float:
    assert health.on_down(now)
    assert not health.on_down(now + 0.5)
    return health.on_up(now + 1)


def test_probation_begins_with_the_third_time_and_doubles_up_to_a_bound() -> None:
    health = Health("a", Outage(), 0.0)
    assert health.on_up(1.0) == 0.0
    assert [flap(health, now) for now in (10, 20, 30, 40, 50)] == [0, 0, 5, 10, 20]
    assert [flap(health, now) for now in range(60, 160, 10)][-1] == LAST_PROBATION


def test_going_away_now_and_then_is_no_flapping() -> None:
    health = Health("a", Outage(), 0.0)
    health.on_up(0.0)
    assert [flap(health, 10 + n * FLAP_WINDOW / 2) for n in range(6)] == [0.0] * 6


def test_one_on_probation_says_for_how_long_until_it_is_over_or_lost() -> None:
    health = Health("a", Outage(), 0.0)
    health.on_up(0.0)
    for now in (10, 20, 30):
        flap(health, now)
    assert "another 5 s" in health.probation(31.0)
    assert "another 2 s" in health.probation(34.0)
    assert health.probation(31 + FIRST_PROBATION) == ""
    health.on_down(32.0)
    assert health.probation(32.0) == ""


def test_a_flapper_is_as_good_as_any_after_it_was_quiet() -> None:
    health = Health("a", Outage(), 0.0)
    health.on_up(0.0)
    assert [flap(health, now) for now in (10, 20, 30)] == [0, 0, 5]
    assert flap(health, 31 + QUIET - 1) == 10
    again = 31 + QUIET - 1 + 1 + QUIET
    assert [flap(health, again + step) for step in (0, 10, 20)] == [0, 0, 5]


def test_one_whose_actor_is_stopped_does_not_flap() -> None:
    health = Health("a", Outage(), 0.0)
    health.on_up(0.0)
    for now in (10, 20, 30, 40):
        health.on_stop(now)
        assert health.on_up(now + 1) == 0.0


def test_it_is_unreachable_only_when_it_was_asked_or_is_down() -> None:
    health = Health("a", Outage(), 0.0)
    health.on_up(0.0)
    health.heard(5.0)
    assert health.unreachable_at(3.0, 60) == math.inf
    health.asked = True
    assert health.unreachable_at(3.0, 60) == 65
    assert health.unreachable_at(20.0, 60) == 80, "an attempt that came later waits for its own time"
    health.heard(30.0)
    assert health.unreachable_at(3.0, 60) == math.inf
    health.on_down(40.0)
    assert health.unreachable_at(3.0, 60) == 90
    health.heard(70.0)
    assert health.unreachable_at(3.0, 60) == 100, "events alone do not keep one that is down alive"


def up(outage: Outage, *names: str) -> None:
    for name in names:
        outage.on_up(name, 0.0)


def test_most_going_away_at_once_is_an_outage_until_half_are_back() -> None:
    changes = Changes()
    outage = changes.outage
    up(outage, *"abcde")
    outage.on_down("a", 10.0)
    outage.on_down("b", 11.0)
    assert not outage.suspended
    outage.on_down("c", 14.0)
    assert outage.suspended
    outage.on_down("d", 60.0)
    assert [outage.covers(name) for name in "abcde"] == [True] * 4 + [False]
    outage.on_up("a", 70.0)
    assert outage.suspended
    outage.on_up("c", 80.0)
    assert not outage.suspended
    assert outage.covers("b")
    assert not outage.covers("a")
    assert outage.spared_until == 80.0
    assert changes.seen == [True, False]


@pytest.mark.parametrize(
    ("present", "falls"),
    [
        ("ab", [("a", 0.0), ("b", 0.0)]),
        ("abcdef", [("a", 0.0), ("b", 0.0), ("c", 0.0)]),
        ("abc", [("a", 0.0), ("b", 1.0), ("c", OUTAGE_WINDOW + 0.1)]),
    ],
    ids=["too few", "not most", "not at once"],
)
def test_what_is_no_outage(present: str, falls: list[tuple[str, float]]) -> None:
    outage = Outage()
    up(outage, *present)
    for name, now in falls:
        outage.on_down(name, now)
    assert not outage.suspended


def test_those_that_blink_one_after_the_other_are_no_outage() -> None:
    outage = Outage()
    up(outage, *"abc")
    for name in "abc":
        outage.on_down(name, 1.0)
        outage.on_up(name, 1.1)
    assert not outage.suspended


def test_those_that_were_down_already_or_are_forgotten_do_not_count() -> None:
    outage = Outage()
    up(outage, *"abc")
    outage.on_down("x", 0.0)
    outage.forget("c", 0.0)
    outage.on_down("a", 0.0)
    outage.on_down("b", 0.0)
    outage.on_down("c", 0.0)
    assert not outage.suspended


def test_an_outage_ends_when_those_that_are_away_are_forgotten() -> None:
    outage = Outage()
    up(outage, *"abc")
    for name in "abc":
        outage.on_down(name, 0.0)
    for name in "abc":
        outage.forget(name, 1.0)
    assert not outage.suspended


def test_an_outage_is_bounded_and_its_backends_stay_blameless_until_they_are_back() -> None:
    outage = Outage()
    up(outage, *"abc")
    healths = {name: Health(name, outage, 0.0) for name in "abc"}
    for health in healths.values():
        health.on_up(0.0)
    for health in healths.values():
        health.on_down(10.0)
    a = healths["a"]
    assert a.unreachable_at(0.0, 60) == math.inf
    assert [a.on_refused(now) for now in (11, 12, 13, 14)] == [False] * 4
    outage.expire(10 + OUTAGE_LIMIT - 1)
    assert outage.suspended
    outage.expire(10 + OUTAGE_LIMIT)
    assert not outage.suspended
    assert outage.covers("a")
    assert a.unreachable_at(0.0, 60) < 10 + OUTAGE_LIMIT, "it has waited enough"
    assert [a.on_refused(now) for now in (320, 321, 322)] == [False, False, True]


def test_after_an_outage_that_ended_by_itself_the_rest_gets_time_anew_and_nobody_flapped() -> None:
    outage = Outage()
    healths = [Health(name, outage, 0.0) for name in "abc"]
    for health in healths:
        health.on_up(0.0)
    for begin in (10.0, 110.0, 210.0):
        for health in healths:
            health.on_down(begin)
        assert outage.suspended
        assert [health.on_up(begin + 80) for health in healths[:2]] == [0.0, 0.0]
        assert not outage.suspended
        assert healths[2].unreachable_at(0.0, 60) == begin + 80 + 60
        assert healths[2].on_up(begin + 81) == 0.0
