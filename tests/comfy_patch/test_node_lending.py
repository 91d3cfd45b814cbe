from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from comfy_patch.node.host import Host
from comfy_patch.node.leases import Leases
from comfy_patch.node.lending import Lending, Store
from comfy_patch.node.prompts import Jobs
from comfy_patch.node.watch import GRACE, Watch
from tests.comfy_patch.standin import Clock, Comfy, Interrupted, Timer


class House:
    def __init__(self, folder: Path) -> None:
        self.comfy = Comfy(folder)
        self.clock = Clock()
        self.timer = Timer(self.clock)
        self.told: list[dict[str, Any]] = []
        self.leases = Leases(self.clock)
        self.lending = Lending(Store(folder / "state.json"), self.clock)
        queue = Host(self.comfy.find).queue()
        self.jobs = Jobs(queue, self._submitted, clock=self.clock, monotonic=self.clock)
        self.watch = Watch(self.timer, self.jobs, self.leases, self.lending, self.told.append)
        queue.observe(self.jobs.on_change, self.jobs.on_reset)

    def _submitted(self, prompt: Any) -> None:
        self.leases.begin(prompt.holder, prompt.lease)
        self.watch.poke()

    def waiting(self) -> list[str]:
        return [item[1] for item in self.comfy.queue.queue]


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


# --- leases ---


def test_a_bridge_that_is_gone_loses_what_runs_and_waits_and_the_owner_nothing(house: House) -> None:
    house.comfy.submit("a", lease=60)
    house.comfy.submit("b", lease=60)
    house.comfy.submit("owners", lease=None)
    house.comfy.submit("others", client="another bridge", lease=90)
    house.comfy.take()
    house.comfy.begin()
    house.timer.run(59)
    house.comfy.node()
    house.timer.run(2)
    with pytest.raises(Interrupted):
        house.comfy.node()
    assert house.waiting() == ["owners", "others"]
    house.timer.run(30)
    assert house.waiting() == ["owners"]


def test_an_owners_prompt_that_runs_is_not_interrupted_when_a_lease_ends(house: House) -> None:
    house.comfy.submit("owners", lease=None)
    house.comfy.submit("a", lease=60)
    house.comfy.take()
    house.comfy.begin()
    house.timer.run(100)
    house.comfy.node()
    assert house.waiting() == []


def test_a_renewed_lease_goes_on_and_a_shorter_one_ends_earlier(house: House) -> None:
    house.comfy.submit("a", lease=60)
    for _ in range(5):
        house.timer.run(40)
        house.leases.renew("bridge", 60)
        house.watch.poke()
    assert house.waiting() == ["a"]
    house.leases.renew("bridge", 5)
    house.watch.poke()
    house.timer.run(6)
    assert house.waiting() == []


def test_another_submission_does_not_cut_a_lease(house: House) -> None:
    house.leases.renew("bridge", 100)
    house.comfy.submit("a", lease=10)
    house.timer.run(99)
    assert house.waiting() == ["a"]
    house.timer.run(2)
    assert house.waiting() == []


def test_a_prompt_without_a_client_has_a_lease_of_its_own(house: House) -> None:
    house.comfy.submit("a", client="", lease=10)
    house.timer.run(5)
    house.comfy.submit("b", client="", lease=10)
    house.timer.run(6)
    assert house.waiting() == ["b"]


def test_after_a_sleep_a_bridge_has_a_while_to_come_back(house: House) -> None:
    house.comfy.submit("a", lease=60)
    house.timer.run(1)
    house.timer.run(3600, asleep=True)
    assert house.waiting() == ["a"]
    house.timer.run(GRACE + 1)
    assert house.waiting() == []


def test_it_sleeps_while_there_is_nothing_to_wait_for(house: House) -> None:
    house.comfy.submit("a", lease=600)
    assert house.timer.run(590) < 20
    house.comfy.done(house.comfy.take())
    house.comfy.submit("owners", lease=None)
    house.timer.run(60)
    assert house.timer.alarms == []


# --- pausing ---


def test_a_pause_ends_by_itself_and_everybody_is_told_once(house: House) -> None:
    house.lending.pause(30, stop=False)
    house.watch.poke()
    assert house.lending.state() == {"paused": True, "until": house.clock.now + 1800}
    house.timer.run(1799)
    assert house.told == []
    house.timer.run(2)
    assert house.told == [{"paused": False, "until": None}]
    assert house.lending.state() == {"paused": False, "until": None}
    assert house.timer.alarms == []


def test_a_pause_that_is_over_is_over_for_who_asks_before_the_alarm(house: House) -> None:
    house.lending.pause(1, stop=False)
    house.clock.now += 61
    assert house.lending.state() == {"paused": False, "until": None}
    assert not house.lending.paused


def test_a_pause_that_stops_takes_what_still_comes_in_too(house: House) -> None:
    house.lending.pause(None, stop=True)
    house.comfy.submit("slipped-through")
    house.comfy.submit("owners", lease=None)
    house.timer.run()
    assert house.waiting() == ["owners"]


def test_a_pause_that_does_not_stop_lets_go_on_what_is_there(house: House) -> None:
    house.comfy.submit("a")
    house.lending.pause(None, stop=False)
    house.watch.poke()
    house.timer.run(1)
    assert house.waiting() == ["a"]


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    clock, store = Clock(), Store(tmp_path / "deep" / "state.json")
    before = Lending(store, clock, lambda: "2026-11-23")
    before.count(2.5)
    before.pause(10, stop=True)
    after = Lending(store, clock, lambda: "2026-11-23")
    assert after.state() == {"paused": True, "until": clock.now + 600}
    assert after.served() == {"date": "2026-11-23", "jobs": 1, "seconds": 2.5}
    after.resume()
    assert not Lending(store, clock).paused
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["state.json"]


def test_nothing_is_written_down_once_the_package_is_gone(tmp_path: Path) -> None:
    home, path = tmp_path / "bridged_patch", tmp_path / "state.json"
    home.mkdir()
    lending = Lending(Store(path, home))
    lending.pause(None, stop=False)
    assert path.exists()
    home.rmdir()
    path.unlink()
    lending.resume()
    assert not path.exists()
    assert not lending.paused


def test_what_was_served_yesterday_is_not_todays(tmp_path: Path) -> None:
    day = ["2026-11-23"]
    lending = Lending(Store(tmp_path / "state.json"), today=lambda: day[0])
    lending.count(1)
    day[0] = "2026-11-24"
    assert lending.served() == {"date": "2026-11-24", "jobs": 0, "seconds": 0.0}
    lending.count(0.25)
    assert lending.served() == {"date": "2026-11-24", "jobs": 1, "seconds": 0.25}


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"paused": 1, "until": "x", "served": {"date": 5}}', '{"served": {"jobs": 1}}', "\x00"]
)
def test_a_state_file_that_is_not_ours_is_as_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)
    lending = Lending(Store(path))
    assert not lending.paused
    assert lending.served()["jobs"] == 0
    lending.pause(None, stop=False)
    assert json.loads(path.read_text())["paused"] is True


@pytest.mark.parametrize("until", ["NaN", "Infinity", "1" + "0" * 400, "true", '"x"', "[" * 100_000])
def test_a_damaged_file_is_neither_in_the_way_nor_the_end_of_a_pause(tmp_path: Path, until: str) -> None:
    (tmp_path / "state.json").write_text(
        f'{{"paused": true, "until": {until}, "served": {{"date": "", "jobs": 1, "seconds": NaN}}}}'
    )
    lending = Lending(Store(tmp_path / "state.json"), Clock())
    assert lending.remaining() is None
    assert lending.state() == {"paused": not until.startswith("["), "until": None}
    lending.count(1.0)
    assert lending.served()["seconds"] == 1.0


def test_two_comfyuis_of_one_user_directory_do_not_end_each_others_pause(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.json")
    one, other = Lending(store, Clock()), Lending(store, Clock())
    one.pause(None, stop=False)
    other.count(1.0)
    other.save()
    assert Lending(store, Clock()).state() == {"paused": True, "until": None}
    one.resume()
    assert not Lending(store, Clock()).paused


def test_a_pause_that_could_not_be_written_is_written_with_the_next_word(tmp_path: Path) -> None:
    folder = tmp_path / "user"
    folder.write_text("")
    lending = Lending(Store(folder / "state.json"), Clock())
    with pytest.raises(FileExistsError):
        lending.pause(None, stop=False)
    folder.unlink()
    lending.count(1.0)
    lending.save()
    assert Lending(Store(folder / "state.json"), Clock()).paused
