"""The service's clock: what a person, NTP or a restart does to the wall clock does not move it back."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridged.store import clock
from bridged.store.clock import Anchor, ServiceClock
from tests.store.samples import opened


class Machine:
    wall = 1_000_000.0
    up = 100.0


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr("bridged.store.clock.time.time", lambda: machine.wall)
    monkeypatch.setattr(clock, "_since_start", lambda: machine.up)
    return machine


def test_it_begins_at_the_wall_clock(machine: Machine) -> None:
    assert ServiceClock(None, "boot").now() == machine.wall


@pytest.mark.parametrize("jump", [-86400.0, -1.0, 86400.0])
def test_jumps_of_the_wall_clock_do_not_matter_during_one_boot(machine: Machine, jump: float) -> None:
    first = ServiceClock(None, "boot")
    machine.wall += jump
    machine.up += 5.0
    assert first.now() == 1_000_005.0
    again = ServiceClock(first.anchor(), "boot")
    assert again.now() == 1_000_005.0
    assert again.anchor() == Anchor("boot", first.anchor().offset, 1_000_005.0)


def test_a_new_boot_takes_the_wall_clock_again(machine: Machine) -> None:
    anchor = ServiceClock(None, "boot").anchor()
    machine.wall, machine.up = 1_000_500.0, 1.0
    after = ServiceClock(anchor, "another boot")
    assert after.now() == 1_000_500.0
    machine.up += 2.0
    assert after.now() == 1_000_502.0


def test_a_new_boot_never_goes_back_before_what_was_seen(machine: Machine) -> None:
    before = ServiceClock(None, "boot")
    machine.up += 40.0
    anchor = before.anchor()
    machine.wall, machine.up = 5.0, 0.5  # a machine without a battery begins in 1970
    after = ServiceClock(anchor, "another boot")
    assert after.now() == anchor.seen == 1_000_040.0
    machine.up += 1.0
    assert after.now() == 1_000_041.0


def test_without_a_boot_id_each_run_is_a_new_boot(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "boot_id", lambda: "")
    anchor = ServiceClock(None).anchor()
    machine.wall = 1_000_900.0
    assert ServiceClock(anchor).now() == 1_000_900.0


def test_the_ledgers_clock_goes_on_over_restarts(tmp_path: Path, machine: Machine) -> None:
    first = opened(tmp_path / "l")
    machine.up += 10.0
    before = first.now()
    first.close()
    machine.wall = 3.0
    second = opened(tmp_path / "l")
    assert second.now() >= before == 1_000_010.0
    second.close()


@pytest.mark.parametrize("anchor", ["", "{", '{"boot": 3}', "[]"])
def test_an_anchor_that_cannot_be_read_is_none(tmp_path: Path, anchor: str) -> None:
    ledger = opened(tmp_path / "l")
    assert ledger._connection is not None
    ledger._connection.execute("UPDATE identity SET value = ? WHERE name = 'clock'", (anchor,))
    ledger.close()
    again = opened(tmp_path / "l")
    assert again.now() > 0
    again.close()


def test_the_anchor_is_written_when_the_ledger_is_closed(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a boot with a wrong wall clock could begin before times that were already given out."""
    first = opened(tmp_path / "l")
    machine.up += 8.0
    last = first.now()
    first.close()
    machine.wall, machine.up = 3.0, 1.0
    monkeypatch.setattr(clock, "boot_id", lambda: "another boot")
    second = opened(tmp_path / "l")
    second.close()
    assert second.now() >= last
