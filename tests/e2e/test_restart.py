"""The daemon is killed or stopped and comes back: nobody notices more than a pause, and nothing runs twice.

Every job has a width of its own: by that the fakes' prompts are known for their jobs.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.conftest import StartFake
from tests.e2e.house import Client, House
from tests.e2e.test_bridge_api import picture
from tests.e2e.test_process import runnable, service
from tests.fakes.comfyui import Call, FakeComfyUI, PromptScript

KEY = "1/width"
INPUT = "10/image"


class Gates:
    """Holds each job's prompts until told otherwise."""

    def __init__(self) -> None:
        self.of: dict[int, trio.Event] = {}
        self.everything = False
        self.busy: set[int] = set()
        """widths whose prompts are deaf to interrupts while they are held"""

    def script(self, graph: dict[str, Any], prompt_id: str) -> PromptScript:
        name = width(graph)
        gate = self.of.setdefault(name, trio.Event())
        if self.everything:
            gate.set()
        return PromptScript(busy={"1": gate}) if name in self.busy else PromptScript(gate=gate)

    def open(self, *names: int) -> None:
        for name in names:
            self.of.setdefault(name, trio.Event()).set()

    def open_all(self) -> None:
        self.everything = True
        for gate in self.of.values():
            gate.set()


def width(graph: dict[str, Any]) -> int:
    found = graph.get("1", {}).get("inputs", {}).get("width")
    return int(found) if found is not None else 0


def executions(*fakes: FakeComfyUI) -> Counter[int]:
    """How often each job's prompt began to run, on all PCs together."""
    return Counter(width(p.graph) for fake in fakes for p in fake.prompts.values() if "running" in p.times)


def held(fake: FakeComfyUI) -> list[int]:
    return [width(prompt.graph) for prompt in fake.prompts.values() if prompt.held_at and prompt.open]


def is_filled(fake: FakeComfyUI) -> bool:
    return sum(prompt.open for prompt in fake.prompts.values()) == 2


async def submit(client: Client, name: int) -> str:
    job_id: str = (await client.submit("pattern", **{KEY.replace("/", "__"): name}))["job_id"]
    return job_id


async def described(client: Client, job_id: str) -> dict[str, Any]:
    facts: dict[str, Any] = (await client.http.get(f"/jobs/{job_id}")).json()
    return facts


async def ended(client: Client, *job_ids: str, state: str = "succeeded") -> list[dict[str, Any]]:
    """Waits until they have ended, as a client that polls."""
    found = []
    with trio.fail_after(20):
        for job_id in job_ids:
            while (facts := await described(client, job_id))["ended_at"] is None:
                await trio.sleep(0.01)
            found.append(facts)
    assert [facts["state"] for facts in found] == [state] * len(found), found
    return found


@asynccontextmanager
async def restarted(house: House) -> AsyncIterator[None]:
    """What happens inside happens while the service is away, after a graceful stop."""
    await house.stop()
    yield
    house.ended = trio.Event()
    await house.start()


@pytest.fixture
def gates() -> Gates:
    return Gates()


@pytest.fixture
async def gated(house: House, start_fake: StartFake, gates: Gates) -> FakeComfyUI:
    """A fake that holds every prompt, alone; the daemon is not started."""
    fake = await start_fake("one")
    fake.script.for_prompt = gates.script
    house.write_backends(("pc-1", fake.url))
    return fake


# -- SIGKILL ---------------------------------------------------------------------------------------------------------


def count(folder: Path) -> int:
    connection = sqlite3.connect(folder / "state" / "ledger.sqlite3")
    try:
        row = connection.execute("SELECT value FROM counters WHERE name = 'started'").fetchone()
    finally:
        connection.close()
    return int(row[0]) if row else 0


@asynccontextmanager
async def killed_later(house: House) -> AsyncIterator[str]:
    """A daemon process on the house's folders; it is killed at the end, without a word."""
    (house.folder / "notify").unlink(missing_ok=True)
    async with service(house.folder) as running:
        yield running.url
        running.process.kill()


@pytest.mark.parametrize("durability", ["process", "power"])
async def test_a_kill_loses_nothing_and_runs_nothing_twice(
    house: House, start_fake: StartFake, gates: Gates, durability: str
) -> None:
    """Jobs in every state at once: a done one fetched, one not; running, prefetched and queued ones; one that ends and
    one that is lost while the service is away; one that was cancelled and has not heard of it."""
    fakes = [await start_fake(name) for name in ("one", "two", "three")]
    for fake in fakes:
        fake.script.for_prompt = gates.script
    house.settings["state"]["durability"] = durability
    house.settings["jobs"]["prefetch"] = 1
    house.write_settings()
    house.write_backends(*((f"pc-{number}", fake.url) for number, fake in enumerate(fakes, 1)))
    gates.open(101, 102)
    gates.busy = {106}
    jobs: dict[int, str] = {}
    async with killed_later(house) as url, Client(url, "c1") as client:
        await runnable(url, "pc-1", "pc-2", "pc-3")
        for name in (101, 102):
            jobs[name] = await submit(client, name)
        await ended(client, jobs[101], jobs[102])
        assert len(await client.result(jobId=jobs[101])) == 1
        tokens = await client.upload(**{INPUT: ("p.png", picture((5, 6, 7)))})
        async with Client(url, "c2") as other:
            for name in (103, 104, 105):
                jobs[name] = await submit(client, name)
            with trio.fail_after(5):
                for fake in fakes:
                    await fake.wait_for(partial(held, fake))
            jobs[106] = await submit(other, 106)  # prefetched; it will be cancelled
            for name in (107, 108, 109, 110, 111):
                jobs[name] = await submit(client, name)
            with trio.fail_after(5):
                for fake in fakes:
                    await fake.wait_for(partial(is_filled, fake))
            where = {width(p.graph): fake for fake in fakes for p in fake.prompts.values()}
            states = {name: (await described(client, job_id))["state"] for name, job_id in jobs.items()}
            assert list(Counter(states.values()).items()) == [
                ("succeeded", 2),
                *(("running", 3), ("placed", 3), ("queued", 3)),
            ]
            before = (await client.http.get("/jobs")).json()["jobs"]
            info = await client.info()
            assert count(house.folder) == 5
            assert (await client.http.get("/generation-count")).json() == 5
    # The service is away: 103 ends, and what waits behind it begins; the PC of 104 is started anew.
    gates.open(103)
    with trio.fail_after(5):
        await where[103].wait_for(lambda: [p.state for p in where[103].prompts.values()].count("running"))
    where[104].crash()
    await where[104].start_listening()
    lost = {width(p.graph) for p in where[104].prompts.values() if p.state == "lost"}
    assert 104 in lost
    async with killed_later(house) as url, Client(url, "c1") as client:
        after = (await client.http.get("/jobs")).json()["jobs"]
        assert [each["job_id"] for each in after] == [each["job_id"] for each in before], "known before READY=1"
        await ended(client, jobs[103])
        gates.open_all()
        for name, job_id in jobs.items():
            (facts,) = await ended(client, job_id)
            assert facts["reruns"] == (name in lost), (name, facts)
        unfetched = 0
        while await client.result(wait=0):
            unfetched += 1
        assert unfetched == len(jobs) - 2, "101 was fetched before the kill, 106 is another client's"
        async with Client(url, "c2") as other:
            assert await other.result(jobId=jobs[106])
        inverted = await client.submit("invert", **{INPUT.replace("/", "__"): tokens[INPUT]})
        await ended(client, inverted["job_id"])
        assert (await client.http.get("/generation-count")).json() == len(jobs) + 1
        assert info is not None
    done = executions(*fakes)
    # What was lost while it only waited had not run, and runs once.
    assert {name: done[name] for name in jobs} == {name: 2 if name == 104 else 1 for name in jobs}
    for fake in fakes:
        assert fake.violations == []


async def test_a_cancelled_prompt_that_had_not_heard_is_stopped_after_a_kill(
    house: House, gated: FakeComfyUI, gates: Gates
) -> None:
    gates.busy = {101}
    house.write_settings()
    async with killed_later(house) as url, Client(url, "c1") as client:
        await runnable(url, "pc-1")
        running, waiting = await submit(client, 101), await submit(client, 102)
        with trio.fail_after(5):
            await gated.wait_for(lambda: len(gated.prompts) == 2 and held(gated))
        await client.http.post("/interrupt")
        await ended(client, running, waiting, state="cancelled")
        with trio.fail_after(5):
            await gated.wait_for(lambda: gated.calls_to("POST", "/interrupt"))
    asked = len(gated.calls_to("POST", "/interrupt"))
    async with killed_later(house) as url, Client(url, "c1") as client:
        with trio.fail_after(5):
            await gated.wait_for(lambda: len(gated.calls_to("POST", "/interrupt")) > asked)
        gates.open_all()
        with trio.fail_after(5):
            await gated.wait_for(lambda: not any(p.open for p in gated.prompts.values()))
        for job_id in (running, waiting):
            facts = await described(client, job_id)
            assert (facts["state"], facts["cancelled_by"], facts["outputs"]) == ("cancelled", "client", [])
        done = await submit(client, 103)
        await ended(client, done)
    assert executions(gated) == {101: 1, 103: 1}
    assert gated.violations == []


# -- a graceful stop -------------------------------------------------------------------------------------------------


async def test_a_stop_leaves_what_runs_alone_and_the_next_run_adopts_it(
    house: House, gated: FakeComfyUI, gates: Gates
) -> None:
    await house.start()
    await house.wait_up("pc-1")
    async with house.client() as client:
        jobs = [await submit(client, name) for name in range(101, 107)]
        await client.wait_info(state="queued")
        with trio.fail_after(5):
            await gated.wait_for(lambda: len(gated.prompts) == 2 and held(gated))
        prompts = list(gated.prompts)
        assert [(await described(client, job_id))["position"] for job_id in jobs] == [None, None, 1, 2, 3, 4]
    async with restarted(house):
        assert held(gated) == [101]
        assert gated.calls_to("POST", "/interrupt") == []
        assert [p.state for p in gated.prompts.values()] == ["running", "queued"]
    async with house.client() as client:
        assert [(await described(client, job_id))["state"] for job_id in jobs[:3]] == ["running", "placed", "queued"]
        assert [(await described(client, job_id))["position"] for job_id in jobs] == [None, None, 1, 2, 3, 4]
        await house.wait_up("pc-1")
        gates.open_all()
        for facts in await ended(client, *jobs):
            assert (facts["reruns"], len(facts["attempts"])) == (0, 1)
    assert list(gated.prompts)[:2] == prompts, "no new prompts for what was there"
    assert [width(p.graph) for p in gated.prompts.values()] == [*range(101, 107)], "in the order of the queue"
    assert executions(gated) == dict.fromkeys(range(101, 107), 1)
    assert (await house.status())["generation_count"] == 6


@pytest.mark.parametrize("when", ["while it is away", "after it is back"])
async def test_what_is_lost_upstream_runs_once_more_and_says_so(
    house: House, gated: FakeComfyUI, gates: Gates, when: str
) -> None:
    await house.start()
    await house.wait_up("pc-1")
    async with house.client() as client:
        jobs = [await submit(client, name) for name in (101, 102)]
        with trio.fail_after(5):
            await gated.wait_for(lambda: len(gated.prompts) == 2 and held(gated))
    gates.everything = True
    async with restarted(house):
        if when == "while it is away":
            gated.crash()
            await gated.start_listening()
    if when == "after it is back":
        await house.wait_up("pc-1")
        gated.crash()
        await gated.start_listening()
    async with house.client() as client:
        if when == "while it is away":
            for facts in await ended(client, *jobs):
                assert facts["reruns"] == 1
                assert [each["state"] for each in facts["attempts"]] == ["lost", "succeeded"]
        else:  # it is alone and took a job down: that job ends with the reason, whatever it is, and no silence
            with trio.fail_after(10):
                for job_id in jobs:
                    while (await described(client, job_id))["ended_at"] is None:
                        await trio.sleep(0.02)


async def test_what_ended_upstream_while_the_service_was_away_is_collected(
    house: House, gated: FakeComfyUI, gates: Gates
) -> None:
    await house.start()
    await house.wait_up("pc-1")
    async with house.client() as client:
        jobs = [await submit(client, name) for name in (101, 102)]
        with trio.fail_after(5):
            await gated.wait_for(lambda: len(gated.prompts) == 2 and held(gated))
    async with restarted(house):
        gates.open_all()
        with trio.fail_after(5):
            await gated.wait_for(lambda: all(p.state == "done" for p in gated.prompts.values()))
    async with house.client() as client:
        for facts in await ended(client, *jobs):
            assert (facts["reruns"], facts["percent"], len(facts["outputs"])) == (0, 100.0, 1)
        assert len(await client.result()) == 1
    assert executions(gated) == {101: 1, 102: 1}


async def test_the_end_that_came_while_it_reconnected_is_not_missed(
    house: House, gated: FakeComfyUI, gates: Gates
) -> None:
    """It is in the queue when the service asks first, and has left it when the events come."""
    await house.start()
    await house.wait_up("pc-1")
    async with house.client() as client:
        job_id = await submit(client, 101)
        with trio.fail_after(5):
            await gated.wait_for(lambda: held(gated))

    async def hook(call: Call) -> None:
        if call.route == "/ws":
            with trio.move_on_after(5):
                await gated.wait_for(lambda: [c.status for c in gated.calls_to("GET", "/queue")[asked:]] == [200])
                gates.open_all()
                await gated.wait_for(lambda: all(p.state == "done" for p in gated.prompts.values()))

    async with restarted(house):
        asked = len(gated.calls_to("GET", "/queue"))
        gated.script.hook = hook
    async with house.client() as client:
        (facts,) = await ended(client, job_id)
        assert facts["reruns"] == 0
    assert executions(gated) == {101: 1}


async def test_a_prompt_that_waits_upstream_is_taken_out_when_it_is_cancelled_after_the_restart(
    house: House, gated: FakeComfyUI, gates: Gates
) -> None:
    """Nothing is heard of it while another runs before it, and it must not begin."""
    await house.start()
    await house.wait_up("pc-1")
    async with house.client("c1") as first, house.client("c2") as second:
        running, waiting = await submit(first, 101), await submit(second, 102)
        with trio.fail_after(5):
            await gated.wait_for(lambda: len(gated.prompts) == 2 and held(gated))
    async with restarted(house):
        pass
    await house.wait_up("pc-1")
    async with house.client("c1") as first, house.client("c2") as second:
        await second.http.post("/interrupt")
        await ended(second, waiting, state="cancelled")
        with trio.fail_after(5):
            await gated.wait_for(lambda: [p.state for p in gated.prompts.values()] == ["running", "deleted"])
        gates.open_all()
        await ended(first, running)
    assert executions(gated) == {101: 1}


async def test_a_prompt_that_waits_upstream_moves_to_a_free_pc_after_the_restart(
    house: House, gated: FakeComfyUI, gates: Gates, start_fake: StartFake
) -> None:
    await house.start()
    await house.wait_up("pc-1")
    async with house.client() as client:
        running, waiting = await submit(client, 101), await submit(client, 102)
        with trio.fail_after(5):
            await gated.wait_for(lambda: len(gated.prompts) == 2 and held(gated))
        two = await start_fake("two")
    async with restarted(house):
        house.write_backends(("pc-1", gated.url), ("pc-2", two.url))
    async with house.client() as client:
        with trio.fail_after(5):
            await two.wait_for(lambda: two.prompts)
        (facts,) = await ended(client, waiting)
        assert [(each["backend"], each["state"]) for each in facts["attempts"]] == [
            ("pc-1", "withdrawn"),
            ("pc-2", "succeeded"),
        ]
        assert facts["reruns"] == 0
        gates.open_all()
        await ended(client, running)
    assert executions(gated, two) == {101: 1, 102: 1}


async def test_a_cancel_that_was_not_confirmed_is_repeated_after_the_restart(
    house: House, gated: FakeComfyUI, gates: Gates
) -> None:
    gates.busy = {101}
    await house.start()
    await house.wait_up("pc-1")
    async with house.client() as client:
        job_id = await submit(client, 101)
        with trio.fail_after(5):
            await gated.wait_for(lambda: held(gated))
        await client.http.post("/interrupt")
        await ended(client, job_id, state="cancelled")
        with trio.fail_after(5):
            await gated.wait_for(lambda: gated.calls_to("POST", "/interrupt"))
    async with restarted(house):
        asked = len(gated.calls_to("POST", "/interrupt"))
    async with house.client() as client:
        with trio.fail_after(5):
            await gated.wait_for(lambda: len(gated.calls_to("POST", "/interrupt")) > asked)
        gates.open_all()
        following = await submit(client, 102)
        await ended(client, following)
        assert (await described(client, job_id))["state"] == "cancelled"
        assert [p.state for p in gated.prompts.values()] == ["interrupted", "done"]
    with trio.fail_after(5):
        await house.wait_status(lambda s: all(b["running"] == 0 for b in s["backends"]))


# -- files -----------------------------------------------------------------------------------------------------------


async def test_orphans_are_swept_and_what_is_known_is_kept(house: House, gated: FakeComfyUI, gates: Gates) -> None:
    gates.open_all()
    await house.start()
    await house.wait_up("pc-1")
    spool = house.folder / "state" / "spool"
    async with house.client() as client:
        fetched, unfetched = await submit(client, 101), await submit(client, 102)
        await ended(client, fetched, unfetched)
        content = await client.result(jobId=fetched)
        tokens = await client.upload(**{INPUT: ("p.png", picture((7, 8, 9)))})
    known = sorted(path for path in spool.rglob("*") if path.is_file())
    assert len(known) == 3
    async with restarted(house):
        for name in ("results/0123.file", "results/0123.part", "uploads/4567.file", "uploads/4567.part"):
            (spool / name).write_bytes(b"left behind")
    assert sorted(path for path in spool.rglob("*") if path.is_file()) == known
    async with house.client() as client, house.client("other") as other:
        assert await client.result(wait=0, jobId=fetched) == content, "by its id it is given again"
        (file,) = await client.result(wait=0)
        assert file != content[0]
        assert await client.result(wait=0) == []
        assert (await described(client, unfetched))["outputs"][0]["name"] == file["file_name"]
        body = {"workflow": "invert", INPUT: tokens[INPUT]}
        stranger = await other.http.post("/generate-based-workflow", json=body)
        assert stranger.status_code == 400, "a token is its client's own, still"
        inverted = await client.submit("invert", **{INPUT.replace("/", "__"): tokens[INPUT]})
        await ended(client, inverted["job_id"])
    (sent,) = gated.calls_to("POST", "/upload/image")
    assert sent.status == 200


async def test_what_a_queued_job_needs_outlives_the_restart(house: House, gated: FakeComfyUI, gates: Gates) -> None:
    """Its files and its graph as it was: though the workflow was changed in the meantime."""
    await house.start()
    await house.wait_up("pc-1")
    async with house.client() as client:
        for name in (101, 102):
            await submit(client, name)
        tokens = await client.upload(**{INPUT: ("p.png", picture((9, 9, 9)))})
        job_id = (await client.submit("invert", **{INPUT.replace("/", "__"): tokens[INPUT]}))["job_id"]
        assert (await described(client, job_id))["state"] == "queued"
    async with restarted(house):
        house.write_workflow("invert", json.loads('{"1": {"class_type": "SaveImage", "inputs": {}}}'))
    async with house.client() as client:
        gates.open_all()
        await ended(client, job_id)
    ran = [p.graph for p in gated.prompts.values() if width(p.graph) == 0]
    assert [sorted(graph) for graph in ran] == [["10", "11", "12", "13"]]


# -- what clients see ------------------------------------------------------------------------------------------------


async def everything(client: Client, jobs: Sequence[str]) -> tuple[Any, ...]:
    facts = [await described(client, job_id) for job_id in jobs]
    return facts, await client.info(), (await client.http.get("/generation-count")).json()


async def test_who_polls_sees_the_same_before_and_after(house: House, gated: FakeComfyUI, gates: Gates) -> None:
    gates.open(101)
    await house.start()
    await house.wait_up("pc-1")
    async with house.client() as client:
        jobs = [await submit(client, 101)]
        await ended(client, *jobs)
        jobs.append(await submit(client, 104))
        with trio.fail_after(5):
            await gated.wait_for(lambda: held(gated))
        await client.http.post("/interrupt")
        await ended(client, jobs[1], state="cancelled")
        with trio.fail_after(5):
            await gated.wait_for(lambda: not any(p.open for p in gated.prompts.values()))
        jobs += [await submit(client, name) for name in (105, 106, 107)]
        await client.wait_info(state="queued")
        with trio.fail_after(5):
            await gated.wait_for(lambda: held(gated))
        while (await described(client, jobs[2]))["state"] != "running":
            await trio.sleep(0.01)
        before = await everything(client, jobs)
    async with restarted(house):
        pass
    async with house.client() as client:
        after = await everything(client, jobs)
    for facts in (before[0], after[0]):
        for each in facts:
            each.pop("eta")  # what jobs took lately is learnt anew
    assert after == before
