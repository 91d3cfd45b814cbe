"""An attempt's silence, and that of this very process, on a clock that jumps."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from bridged.actors.attempt import Follow, Lost
from bridged.actors.deadlines import STALL, Deadlines
from bridged.actors.health import Health, Outage
from bridged.config.schema import Jobs
from bridged.model import Attempt
from tests.fakes.recorded_effects import job

LIMIT = Jobs().unreachable_after


class NoControl:
    """Cancels what was given up: here nothing is asked of it."""

    def give_up(self, prompt_id: str) -> None:
        pass


async def given_up_after(clock: trio.testing.MockClock, steps: list[float]) -> list[bool]:
    """Whether a silent attempt was given up, after each of these steps of the clock (s). A step that passes the
    deadline by more than STALL is what a process sees that stood still."""
    now = trio.current_time()
    follow = Follow(job("j"), Attempt("p", "j", "pc", 1), now)
    follow.posted = True
    health = Health("pc", Outage(), now)
    health.on_up(now)
    health.asked = True
    deadlines = Deadlines("pc", {"p": follow}, NoControl(), health, Jobs, lambda: False)  # type: ignore[arg-type]
    seen = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deadlines.run)
        await trio.testing.wait_all_tasks_blocked()
        for step in steps:
            clock.jump(step)
            await trio.testing.wait_all_tasks_blocked()
            seen.append(follow.outcome is Lost.UNREACHABLE)
        nursery.cancel_scope.cancel()
    return seen


async def test_silence_is_given_up_in_time(mock_clock: trio.testing.MockClock) -> None:
    assert await given_up_after(mock_clock, [LIMIT - 1, 1 + STALL / 2]) == [False, True]


async def test_time_in_which_we_stood_still_is_no_silence(
    mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Stopped and continued, or a machine that was paused: what a PC said meanwhile is still to be read."""
    steps = [10, 3600, LIMIT - 1, 1 + STALL / 2]
    assert await given_up_after(mock_clock, steps) == [False, False, False, True]
    assert "this service stood still" in caplog.text


async def test_one_that_is_asked_after_a_long_quiet_is_given_up_at_once(mock_clock: trio.testing.MockClock) -> None:
    """A deadline that is past when it is set is not a stall."""
    now = trio.current_time()
    follow = Follow(job("j"), Attempt("p", "j", "pc", 1), now)
    follow.posted = True
    health = Health("pc", Outage(), now)
    health.on_up(now)
    deadlines = Deadlines("pc", {"p": follow}, NoControl(), health, Jobs, lambda: False)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deadlines.run)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(LIMIT + 1)
        health.asked = True
        deadlines.rearm()
        await trio.testing.wait_all_tasks_blocked()
        assert follow.outcome is Lost.UNREACHABLE
        nursery.cancel_scope.cancel()
