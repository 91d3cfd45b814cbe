"""The RFC's cache, with a clock that moves when it is told to."""

from __future__ import annotations

import pytest

from bridged.nodedefs.cache import Entry, backoff


def loaded(value: str = "a", at: float = 0.0) -> Entry[str]:
    entry: Entry[str] = Entry()
    entry.begin()
    entry.succeed(value, at)
    return entry


def test_an_entry_that_was_never_loaded_is_due_once() -> None:
    entry: Entry[str] = Entry()
    assert entry.is_due(0.0, 60)
    entry.begin()
    assert not entry.is_due(1e9, 60), "one fetch in flight"


def test_it_is_fresh_for_its_time_and_then_due_while_it_keeps_its_value() -> None:
    entry = loaded(at=100)
    assert not entry.is_due(159.9, 60)
    assert entry.is_due(160, 60)
    assert entry.value == "a"


def test_zero_means_never_after_the_first_load() -> None:
    assert not loaded().is_due(1e9, 0)
    entry: Entry[str] = Entry()
    assert entry.is_due(0, 0)


def test_what_was_invalidated_is_due_at_once_and_once() -> None:
    entry = loaded()
    entry.invalidate()
    assert entry.is_due(0.1, 0)
    entry.begin()
    entry.succeed("a", 0.2)
    assert not entry.is_due(0.3, 0)


def test_what_is_invalidated_while_it_is_fetched_is_fetched_again() -> None:
    entry = loaded()
    entry.invalidate()
    entry.begin()
    entry.invalidate()
    entry.succeed("b", 1.0)
    assert entry.is_due(1.0, 0)


def test_only_another_value_is_a_change_and_the_first_one_is_none() -> None:
    entry: Entry[str] = Entry()
    entry.begin()
    assert not entry.succeed("a", 0)
    entry.begin()
    assert not entry.succeed("a", 1)
    entry.begin()
    assert entry.succeed("b", 2)


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [(0, 0), (1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (6, 10), (9999, 10)],
)
def test_the_rfcs_backoff(failures: int, seconds: float) -> None:
    assert backoff(failures) == seconds


def test_failures_keep_the_value_and_are_waited_out_longer_each_time() -> None:
    entry = loaded(at=0)
    now = 60.0
    for pause in (1, 2, 4, 8, 10, 10):
        assert entry.is_due(now, 60)
        entry.begin()
        entry.fail(now)
        assert entry.value == "a"
        assert not entry.is_due(now + pause - 0.01, 60)
        now += pause
    entry.begin()
    entry.succeed("b", now)
    assert (entry.failures, entry.value) == (0, "b")
    entry.invalidate()
    assert entry.is_due(now, 60), "a success ends the pause"


def test_a_failure_is_tried_again_although_it_would_be_fresh_for_ever() -> None:
    entry = loaded()
    entry.invalidate()
    entry.begin()
    entry.fail(1.0)
    assert not entry.is_due(1.5, 0)
    assert entry.is_due(2.0, 0)


def test_who_came_back_is_asked_at_once() -> None:
    entry = loaded()
    for _ in range(5):
        entry.begin()
        entry.fail(0.0)
    assert not entry.is_due(5.0, 60)
    entry.try_again()
    assert entry.is_due(5.0, 60)
