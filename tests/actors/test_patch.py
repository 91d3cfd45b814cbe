"""What is kept of a PC's patch, on a clock of its own, with the PC's answers in place of the network."""

from __future__ import annotations

import time
from typing import Any

import pytest
import trio
import trio.testing

from bridged.actors.attempt import Follow
from bridged.actors.patch import FLAPPING, OVERDUE, Patch
from bridged.errors import BackendUnavailable
from bridged.model import Attempt, Lending, PatchInfo
from tests.fakes.recorded_effects import job

PAUSED, LENT = Lending(True), Lending(False)
AWAY = BackendUnavailable("it does not answer")
UNREADABLE = BackendUnavailable("its patch's answer is not readable", answered=True)


class Pc:
    """One PC: `lending` is what it says of itself, `fault` what is in the way of that."""

    def __init__(self) -> None:
        self.lending = LENT
        self.fault: BackendUnavailable | None = None
        self.status = 200
        self.asked = 0
        self.renewed: list[float] = []
        self.needed = False
        self.told: list[bool] = []
        self.patch = Patch(
            "pc",
            self,  # type: ignore[arg-type]
            has_token=True,
            lease=lambda: 120.0,
            on_lending=self.told.append,
            is_needed=lambda: self.needed,
        )

    async def patch_info(self) -> tuple[int, PatchInfo | None]:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if self.fault is not None:
            raise self.fault
        return self.status, PatchInfo(1, "1.0.0", self.lending) if self.status == 200 else None

    async def renew_lease(self, seconds: float) -> bool:
        if self.fault is not None:
            raise self.fault
        self.renewed.append(trio.current_time())
        return self.status == 200

    def without_address(self, text: str) -> str:
        return text


@pytest.fixture
async def pc(nursery: trio.Nursery, mock_clock: trio.testing.MockClock) -> Pc:
    pc = Pc()
    nursery.start_soon(pc.patch.run)
    await pc.patch.connect()
    pc.asked = 0
    return pc


async def after(clock: Any, seconds: float) -> None:
    await trio.testing.wait_all_tasks_blocked()
    clock.jump(seconds)
    await trio.testing.wait_all_tasks_blocked()


async def test_a_pc_that_does_not_answer_once_is_asked_again_whether_it_is_still_paused(
    pc: Pc, mock_clock: trio.testing.MockClock
) -> None:
    pc.patch.on_refused_prompt()
    pc.fault = AWAY
    await after(mock_clock, 2)
    assert (pc.asked, pc.told[-1]) == (1, True)
    pc.fault = None
    await after(mock_clock, OVERDUE)
    assert (pc.asked, pc.told[-1]) == (2, False)


async def test_a_pause_outlives_a_connection_on_which_the_pc_does_not_say_what_it_is(
    pc: Pc, mock_clock: trio.testing.MockClock
) -> None:
    pc.patch.on_lending(PAUSED)
    pc.lending, pc.fault = PAUSED, AWAY
    await pc.patch.connect()
    assert pc.told[-1] is True
    pc.fault = None
    await after(mock_clock, OVERDUE)
    assert (pc.told[-1], pc.patch.lending) == (True, PAUSED)


@pytest.mark.parametrize(("fault", "status"), [(None, 404), (None, 403), (UNREADABLE, 200)])
async def test_but_not_one_on_which_it_has_no_patch(pc: Pc, fault: BackendUnavailable | None, status: int) -> None:
    pc.patch.on_lending(PAUSED)
    pc.fault, pc.status = fault, status
    await pc.patch.connect()
    assert pc.told[-1] is False
    assert pc.patch.info is None


async def test_a_lease_is_renewed_though_the_pc_did_not_say_what_it_is_when_it_came_back(
    pc: Pc, mock_clock: trio.testing.MockClock
) -> None:
    pc.needed = True
    pc.patch.lease_of(Follow(job("j"), Attempt("p", "j", "pc", 1), 0.0))
    await after(mock_clock, 100)
    pc.renewed.clear()
    pc.fault = AWAY
    await pc.patch.connect()
    pc.fault = None
    began = trio.current_time()
    await after(mock_clock, 2)
    assert pc.renewed
    assert pc.renewed[0] - began <= 2


async def test_a_pc_whose_clock_is_slow_is_asked_before_its_pause_is_taken_to_be_over(
    pc: Pc, mock_clock: trio.testing.MockClock
) -> None:
    pc.lending = Lending(True, time.time() - 3600)
    pc.patch.on_lending(pc.lending)
    for asked in (1, 2):
        await after(mock_clock, OVERDUE)
        assert (pc.asked, pc.told[-1]) == (asked, True)
    pc.lending = LENT
    await after(mock_clock, OVERDUE)
    assert pc.told[-1] is False


async def test_one_that_comes_and_goes_is_lent_again_the_later_each_time(
    pc: Pc, mock_clock: trio.testing.MockClock
) -> None:
    """Each time it could have a job placed and taken back, which costs no try."""

    def flap() -> None:
        pc.told.clear()
        pc.patch.on_lending(PAUSED)
        pc.patch.on_lending(LENT)

    flap()
    assert pc.told == [True, False], "an owner who changes their mind waits for nothing"
    held = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, FLAPPING, FLAPPING]
    for seconds in held:
        flap()
        await after(mock_clock, seconds - 0.5)
        assert pc.told == [True]
        await after(mock_clock, 0.5)
        assert pc.told == [True, False]
    await after(mock_clock, FLAPPING + 1)
    flap()
    assert pc.told == [True, False]


async def test_a_pc_that_says_lent_and_refuses_prompts_is_not_asked_every_second(
    pc: Pc, mock_clock: trio.testing.MockClock
) -> None:
    for _ in range(300):
        if not pc.patch.lending.paused:
            pc.patch.on_refused_prompt()
        await after(mock_clock, 1)
    assert pc.told.count(False) < 12
    assert pc.asked < 12
