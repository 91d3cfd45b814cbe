from __future__ import annotations

import threading
from pathlib import Path
from random import Random

import pytest

from comfy_patch.node.host import Host
from comfy_patch.node.prompts import LEASE, Jobs, Prompt, lease_of
from tests.comfy_patch.standin import Clock, Comfy, Interrupted


class House:
    def __init__(self, folder: Path) -> None:
        self.comfy = Comfy(folder)
        self.clock = Clock()
        self.submitted: list[Prompt] = []
        self.completed: list[tuple[str, float]] = []
        queue = Host(self.comfy.find).queue()
        self.jobs = Jobs(
            queue,
            self.submitted.append,
            lambda prompt, seconds: self.completed.append((prompt.prompt_id, seconds)),
            self.clock,
            self.clock,
        )
        queue.observe(self.jobs.on_change, self.jobs.on_reset)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_a_waiting_prompt_is_taken_out_and_the_others_keep_their_order(house: House) -> None:
    for name in ("a", "b", "c"):
        house.comfy.submit(name)
    assert house.jobs.cancel("b") == "queued"
    assert sorted(item[1] for item in house.comfy.queue.queue) == ["a", "c"]
    assert not house.comfy.management.flag
    assert house.jobs.cancel("b") == "unknown"


def test_a_running_prompt_is_interrupted_at_its_next_node(house: House) -> None:
    house.comfy.submit("a")
    house.comfy.take()
    house.comfy.begin()
    assert house.jobs.cancel("a") == "running"
    with pytest.raises(Interrupted):
        house.comfy.node()


def test_an_interrupt_before_the_prompt_begins_to_execute_is_not_lost(house: House) -> None:
    house.comfy.submit("a")
    house.comfy.take()
    assert house.jobs.cancel("a") == "running"
    house.comfy.begin()  # clears the flag
    with pytest.raises(Interrupted):
        house.comfy.node()


def test_an_interrupt_after_the_last_node_does_not_hit_the_next_prompt(house: House) -> None:
    house.comfy.submit("a")
    house.comfy.submit("owners", lease=None)
    key = house.comfy.take()
    house.comfy.begin()
    house.comfy.node()
    assert house.jobs.cancel("a") == "running"
    house.comfy.done(key)
    assert not house.comfy.management.flag, "it would wait for the owner's prompt"
    house.comfy.take()
    house.comfy.node()  # even where a release does not clear the flag at the start
    house.comfy.begin()
    house.comfy.node()


def test_prompts_that_run_side_by_side_are_interrupted_only_if_all_are_meant(house: House) -> None:
    house.comfy.submit("a")
    house.comfy.submit("owners", lease=None)
    house.comfy.take()
    owners = house.comfy.take()
    house.comfy.begin()
    assert house.jobs.cancel("a") == "running"
    house.comfy.node()
    house.comfy.done(owners)
    with pytest.raises(Interrupted):
        house.comfy.node()


def test_a_prompt_without_a_mark_can_be_cancelled_by_its_id_but_not_with_all(house: House) -> None:
    house.comfy.submit("unmarked", lease=None)
    assert not house.jobs.cancel_all()
    assert house.jobs.cancel("unmarked") == "queued"


def test_what_bridges_submit_and_complete_is_told(house: House) -> None:
    house.comfy.submit("a", client="c", lease=30)
    house.comfy.submit("failing")
    house.comfy.submit("owners", lease=None)
    assert house.submitted == [Prompt("a", "c", 30.0), Prompt("failing", "bridge", 60.0)]
    for completed in (True, False, True):
        key = house.comfy.take()
        house.clock.now += 2.5
        house.comfy.done(key, completed)
    assert house.completed == [("a", 2.5)]


def test_whether_the_owner_is_at_work(house: House) -> None:
    assert house.jobs.owner().last is None
    house.comfy.submit("bridges")
    house.comfy.submit("mine", lease=None)
    owner = house.jobs.owner()
    assert (owner.running, owner.queued, owner.last) == (0, 1, house.clock.now)
    for _ in range(2):
        house.comfy.done(house.comfy.take())
    ended = house.clock.now
    house.clock.now += 100
    owner = house.jobs.owner()
    assert (owner.running, owner.queued, owner.last) == (0, 0, ended)


@pytest.mark.parametrize(
    ("extra", "lease"),
    [
        ({"bridged": {"lease": 30}}, 30.0),
        ({"bridged": {}}, LEASE),
        ({"bridged": {"lease": True}}, LEASE),
        ({"bridged": {"lease": -1}}, LEASE),
        ({"bridged": {"lease": 10**9}}, LEASE),
        ({"bridged": 1}, None),
        ({}, None),
        (None, None),
    ],
)
def test_the_mark_of_a_bridge(extra: object, lease: float | None) -> None:
    assert lease_of(extra) == lease


@pytest.mark.parametrize(
    "item", [(1, "a", {}, {"client_id": "c"}, [], {}), (1, "a", {}, None), (1,), None, {"prompt_id": "a"}]
)
def test_items_of_other_releases_are_the_owners_at_worst(house: House, item: object) -> None:
    house.comfy.queue.queue.append(item)  # type: ignore[arg-type]
    assert not house.jobs.cancel_all()
    assert house.jobs.owner().queued == 1


def test_only_what_is_cancelled_is_ever_interrupted(house: House) -> None:
    """A worker and a bridge that cancels in every moment: bridges' prompts may end either way, the owner's succeed."""
    names = [f"{'owners' if number % 2 else 'bridges'}-{number}" for number in range(600)]
    for number, name in enumerate(names):
        house.comfy.submit(name, lease=None if number % 2 else 60, number=number)
    interrupted: list[str] = []
    finished = threading.Event()

    def work() -> None:
        while house.comfy.queue.queue:
            key = house.comfy.take()
            name = house.comfy.queue.currently_running[key][1]
            try:
                house.comfy.begin()
                for _ in range(3):
                    house.comfy.node()
            except Interrupted:
                interrupted.append(name)
            house.comfy.done(key)
        finished.set()

    worker = threading.Thread(target=work)
    worker.start()
    random = Random(1)
    answers: dict[str, str] = {}
    while not finished.is_set():
        here = [prompt.prompt_id for prompt in house.jobs.here()[:2]]
        if here:
            name = random.choice(here)
            answers[name] = house.jobs.cancel(name)
    worker.join()
    assert set(interrupted) <= answers.keys()
    assert not [name for name in interrupted if name.startswith("owners")]
    assert {name for name in names if name.startswith("owners")} <= house.comfy.queue.history.keys()
    assert not house.comfy.management.flag


def test_a_prompt_begins_whatever_we_make_of_the_queue(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    house.comfy.submit("a")
    house.comfy.take()
    assert house.jobs.cancel("a") == "running"
    monkeypatch.setattr(house.comfy.queue, "currently_running", None)
    house.comfy.begin()
    assert "not understood" in caplog.text
