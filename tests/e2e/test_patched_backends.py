"""PCs with the patch, over the real wire: what they say, the owner's pauses, exact cancels, leases; and without it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
import trio

from tests.e2e.house import House
from tests.e2e.test_restart import described, ended, restarted
from tests.fakes.comfyui import Call, FakeComfyUI, Reply

TOKEN = "uJ0Zk3Vd9q8rT2xYw5bN7mC1sL4hG6fA_eP-iOaQzBX"
WITH_TOKEN = f'token = "{TOKEN}"'

StartPatched = Callable[[str], Awaitable[FakeComfyUI]]


@pytest.fixture
async def start_patched(nursery: trio.Nursery) -> StartPatched:
    """Starts a fake with the patch, on a free port."""

    async def start(name: str) -> FakeComfyUI:
        fake = FakeComfyUI(name=name, token=TOKEN)
        await nursery.start(fake.serve)
        return fake

    return start


@pytest.fixture
async def one(house: House, start_patched: StartPatched) -> FakeComfyUI:
    """A patched PC that the house's daemon runs on, alone; the daemon is started, and a job may be tried but once."""
    fake = await start_patched("one")
    house.settings["jobs"] |= {"max_attempts": 1}
    await begin(house, fake)
    return fake


async def begin(house: House, *fakes: FakeComfyUI, options: str = WITH_TOKEN, **jobs: Any) -> None:
    """The daemon on these, pc-1, pc-2, …, all with the same lines."""
    house.settings["jobs"] |= jobs
    names = [f"pc-{number}" for number in range(1, len(fakes) + 1)]
    house.write_backends(
        *((name, fake.url) for name, fake in zip(names, fakes, strict=True)),
        **{name.replace("-", "_"): options for name in names},
    )
    await house.start()
    await house.wait_up(*names)


async def state_of(house: House, state: str, index: int = 0) -> dict[str, Any]:
    facts = await house.wait_status(lambda s: s["backends"][index]["state"] == state)
    backend: dict[str, Any] = facts["backends"][index]
    return backend


def states(fake: FakeComfyUI) -> list[str]:
    return sorted(prompt.state for prompt in fake.prompts.values())


async def until(fake: FakeComfyUI, *wanted: str) -> None:
    """Its prompts are in these states, in any order."""
    with trio.fail_after(5):
        await fake.wait_for(lambda: states(fake) == sorted(wanted))


def interferences(fake: FakeComfyUI) -> list[str]:
    return [call.route for call in fake.calls if call.method == "POST" and call.route in ("/interrupt", "/queue")]


# -- what it says of itself ------------------------------------------------------------------------------------------


async def test_what_a_patched_pc_says_is_shown_and_its_token_goes_nowhere_else(
    house: House, one: FakeComfyUI, caplog: pytest.LogCaptureFixture
) -> None:
    backend = (await house.status())["backends"][0]
    assert (backend["patch"]["patch"], backend["patch"]["comfyui"]) == ("1.0.0", "0.3.64")
    assert backend["patch"]["devices"] == [{"name": "cpu", "type": "cpu", "memory_total": 2000, "memory_free": 1000}]
    assert backend["patch"]["lending"] == {"paused": False, "until": None}
    async with house.client() as client:
        await client.submit("pattern")
        assert len(await client.result()) == 1
    with_it = {call.route for call in one.calls if TOKEN in call.headers.values()}
    assert with_it == {call.route for call in one.calls if call.route.startswith("/bridged/v1/")}
    assert {"/bridged/v1/info", "/bridged/v1/combos"} <= with_it
    assert TOKEN not in str(await house.status())
    assert TOKEN not in caplog.text
    assert [p.extra_data["bridged"] for p in one.prompts.values()] == [{"lease": 120.0}]


@pytest.mark.parametrize(
    ("options", "said"),
    [('token = "not-its-token-0000000"', "refuses the token"), ("", "has no `token` for it")],
)
async def test_a_pc_that_does_not_take_our_token_is_a_stock_one(
    house: House, start_patched: StartPatched, caplog: pytest.LogCaptureFixture, options: str, said: str
) -> None:
    fake = await start_patched("one")
    await begin(house, fake, options=options)
    assert (await house.status())["backends"][0]["patch"] is None
    fake.script.gate = trio.Event()
    async with house.client() as client:
        await client.submit("pattern")
        await client.wait_info(state="running")
        await client.http.post("/interrupt")
        await until(fake, "interrupted")
        assert "bridged" not in next(iter(fake.prompts.values())).extra_data, "nobody could renew its lease"
    fake.drop_websockets()
    with trio.fail_after(5):
        await fake.wait_for(lambda: len(fake.calls_to("GET", "/bridged/v1/info")) == 2)
    await house.wait_up("pc-1")
    assert caplog.text.count(said) == 1, "it is said once, not with each connection"
    assert "not-its-token" not in caplog.text
    fake.patch.pause()
    assert (await state_of(house, "paused"))["reason"] == "paused by its owner until it is resumed"


async def test_a_token_for_a_stock_comfyui_does_no_harm(
    house: House, fake: FakeComfyUI, caplog: pytest.LogCaptureFixture
) -> None:
    (house.etc / "token").write_text(f"{TOKEN}\n")
    house.write_backends(("pc-1", fake.url), pc_1='token_file = "token"')
    with trio.fail_after(5):
        await fake.wait_for(lambda: any(TOKEN in call.headers.values() for call in fake.calls))
    await house.wait_up("pc-1")
    async with house.client() as client:
        await client.submit("pattern")
        assert len(await client.result()) == 1
    assert "pc-1 has no patch, though backends.toml has a token for it" in caplog.text


# -- the owner's pauses ----------------------------------------------------------------------------------------------


async def test_a_paused_pc_ends_what_it_runs_and_gets_nothing_new(house: House, one: FakeComfyUI) -> None:
    one.script.gate = trio.Event()
    async with house.client() as client:
        running, prefetched = [(await client.submit("pattern", **{"1__color": n}))["job_id"] for n in (1, 2)]
        await until(one, "queued", "running")
        one.patch.pause(until=4102444800.0)
        assert (await state_of(house, "paused"))["reason"] == "paused by its owner until 2100-01-01 00:00 UTC"
        await until(one, "deleted", "running")
        waits = (await client.submit("pattern", **{"1__color": 3}))["job_id"]  # only this PC could run it
        one.script.gate.set()
        await ended(client, running)
        assert [(await described(client, job))["state"] for job in (prefetched, waits)] == [
            "queued",
            "queued",
        ]
        assert len(one.prompts) == 2
        one.patch.resume()
        await ended(client, prefetched, waits)
        await state_of(house, "up")
    assert one.violations == []


async def test_a_paused_pc_that_connects_gets_nothing_either(house: House, start_patched: StartPatched) -> None:
    fake, other = await start_patched("one"), await start_patched("two")
    fake.patch.pause()
    house.write_backends(("pc-1", fake.url), ("pc-2", other.url), pc_1=WITH_TOKEN, pc_2=WITH_TOKEN)
    await house.start()
    await house.wait_up("pc-2")
    await state_of(house, "paused")
    async with house.client() as client:
        for color in range(3):
            await client.submit("pattern", **{"1__color": color})
        for _ in range(3):
            assert len(await client.result()) == 1
    assert (len(fake.prompts), len(other.prompts)) == (0, 3)


async def test_a_job_that_its_owner_stopped_goes_elsewhere_and_nobody_is_to_blame(
    house: House, start_patched: StartPatched
) -> None:
    fake, other = await start_patched("one"), await start_patched("two")
    fake.script.gate = other.script.gate = trio.Event()
    await begin(house, fake, other, max_attempts=1)
    async with house.client() as client:
        jobs = [(await client.submit("pattern", **{"1__color": n}))["job_id"] for n in range(4)]
        await until(fake, "queued", "running")
        fake.patch.pause(stop=True)
        await until(fake, "deleted", "interrupted")
        other.script.gate.set()
        facts = await ended(client, *jobs)
    attempts = [attempt for job in facts for attempt in job["attempts"] if attempt["backend"] == "pc-1"]
    assert [attempt["state"] for attempt in attempts] == ["withdrawn", "withdrawn"]
    assert "its owner paused the PC" in {attempt["reason"] for attempt in attempts}
    assert sum(job["reruns"] for job in facts) == 1
    fake.patch.resume()
    await state_of(house, "up")
    async with house.client("again") as client:  # it is held against the PC neither
        for color in range(2):
            await client.submit("pattern", **{"1__color": 10 + color})
        for _ in range(2):
            assert len(await client.result()) == 1
    assert len(fake.prompts) == 3


async def test_a_prompt_that_a_pause_refused_waits_for_its_end(house: House, one: FakeComfyUI) -> None:
    """Its event was lost."""
    one.patch.announces = False
    one.patch.pause()
    async with house.client() as client:
        job_id = (await client.submit("pattern"))["job_id"]
        await state_of(house, "paused")
        facts = await described(client, job_id)
        assert facts["state"] == "queued"
        assert [attempt["state"] for attempt in facts["attempts"]] == ["withdrawn"]
        one.patch.announces = True
        one.patch.resume()
        await ended(client, job_id)
    assert len(one.calls_to("POST", "/prompt")) == 2


# -- exact cancels ---------------------------------------------------------------------------------------------------


async def test_cancels_go_through_the_patch(house: House, one: FakeComfyUI) -> None:
    one.script.gate = trio.Event()
    async with house.client() as client:
        for color in range(2):
            await client.submit("pattern", **{"1__color": color})
        await until(one, "queued", "running")
        await client.http.post("/interrupt")
        await until(one, "deleted", "interrupted")
        one.script.gate.set()
        await client.submit("pattern")
        assert len(await client.result()) == 1
    assert sorted(done for _, done in one.patch.cancelled) == ["queued", "running"]
    assert interferences(one) == []


async def test_where_the_patch_has_gone_cancels_are_made_as_on_a_stock_comfyui(house: House, one: FakeComfyUI) -> None:
    one.script.gate = trio.Event()
    async with house.client() as client:
        for color in range(2):
            await client.submit("pattern", **{"1__color": color})
        await until(one, "queued", "running")
        one.patch.token = "another"
        await client.http.post("/interrupt")
        await until(one, "deleted", "interrupted")
    assert {"/interrupt", "/queue"} <= set(interferences(one))
    assert one.violations == []


async def test_where_the_patch_answers_nonsense_they_are_too(house: House, one: FakeComfyUI) -> None:
    async def nonsense(call: Call) -> Reply | None:
        return Reply.json({"cancelled": "perhaps"}) if call.route.endswith("/cancel") else None

    one.script.gate, one.script.hook = trio.Event(), nonsense
    async with house.client() as client:
        for color in range(2):
            await client.submit("pattern", **{"1__color": color})
        await until(one, "queued", "running")
        await client.http.post("/interrupt")
        await until(one, "deleted", "interrupted")
    assert one.violations == []


# -- leases ----------------------------------------------------------------------------------------------------------


async def test_a_lease_is_renewed_while_a_job_runs_and_only_then(house: House, start_patched: StartPatched) -> None:
    fake = await start_patched("one")
    await begin(house, fake, lease=1, max_attempts=1)
    assert fake.patch.leases == [], "nothing of ours is there"
    fake.script.gate = trio.Event()
    async with house.client() as client:
        await client.submit("pattern")
        with trio.fail_after(5):
            await fake.wait_for(lambda: len(fake.patch.leases) == 4)  # longer than the lease by now
        fake.script.gate.set()
        assert len(await client.result()) == 1
    assert {seconds for _, seconds in fake.patch.leases} == {1.0}
    assert {client_id for client_id, _ in fake.patch.leases} == {p.client_id for p in fake.prompts.values()}


async def test_a_prompt_that_its_lease_ended_is_run_again_and_does_not_count(
    house: House, start_patched: StartPatched
) -> None:
    fake = await start_patched("one")
    await begin(house, fake, lease=1, max_attempts=1)
    fake.script.gate = trio.Event()

    async def deaf(call: Call) -> Reply | None:
        return Reply(500) if call.route == "/bridged/v1/lease" else None

    fake.script.hook = deaf
    async with house.client() as client:
        job_id = (await client.submit("pattern"))["job_id"]
        await client.wait_info(state="running")
        fake.script.for_prompt = lambda graph, prompt_id: None
        gate, fake.script.gate = fake.script.gate, None
        (facts,) = await ended(client, job_id)
        gate.set()
    assert states(fake) == ["done", "interrupted"]
    assert facts["attempts"][0]["reason"] == "the service was away from that PC for longer than its lease"
    assert [attempt["state"] for attempt in facts["attempts"]] == ["withdrawn", "succeeded"]


async def test_a_stop_renews_the_lease_and_the_next_start_adopts(house: House, start_patched: StartPatched) -> None:
    fake = await start_patched("one")
    await begin(house, fake, lease=60, on_disconnect="detach")
    fake.script.gate = trio.Event()
    async with house.client() as client:
        job_id = (await client.submit("pattern"))["job_id"]
        await client.wait_info(state="running")
    async with restarted(house):
        leases = list(fake.patch.leases)
        assert [seconds for _, seconds in leases] == [60.0]
    await house.wait_up("pc-1")
    with trio.fail_after(5):
        await fake.wait_for(lambda: len(fake.patch.leases) > len(leases))
    assert len({client_id for client_id, _ in fake.patch.leases}) == 1, "it is the same client as before"
    fake.script.gate.set()
    async with house.client() as client:
        (facts,) = await ended(client, job_id)
    assert (len(fake.prompts), facts["reruns"]) == (1, 0)


@pytest.mark.parametrize("state", ["running", "queued"])
async def test_what_a_lease_ended_while_the_service_was_down_is_run_again_and_does_not_count(
    house: House, start_patched: StartPatched, state: str
) -> None:
    fake = await start_patched("one")
    await begin(house, fake, on_disconnect="detach", max_attempts=1)
    fake.script.gate = trio.Event()
    async with house.client() as client:
        if state == "queued":
            await client.submit("pattern", **{"1__color": 1})
        job_id = (await client.submit("pattern"))["job_id"]
        await until(fake, *(["queued", "running"] if state == "queued" else ["running"]))
    async with restarted(house):
        fake.patch.end_leases()
        fake.script.gate = None
    async with house.client() as client:
        (facts,) = await ended(client, job_id)
    assert [attempt["state"] for attempt in facts["attempts"]] == ["withdrawn", "succeeded"]
    assert facts["attempts"][0]["reason"] == "the service was away from that PC for longer than its lease"


async def test_a_patch_whose_lists_fail_keeps_no_pc_from_being_used(
    house: House, start_patched: StartPatched
) -> None:
    fake = await start_patched("one")

    async def broken(call: Call) -> Reply | None:
        return Reply(500) if call.route == "/bridged/v1/combos" else None

    fake.script.hook = broken
    await begin(house, fake)
    async with house.client() as client:
        await client.submit("pattern")
        assert len(await client.result()) == 1


async def test_an_owner_who_interrupts_by_hand_is_no_pause(house: House, start_patched: StartPatched) -> None:
    """As with a stock ComfyUI: it counts, and the job does not come back to that PC."""
    fake = await start_patched("one")
    await begin(house, fake, max_attempts=1)
    fake.script.gate = trio.Event()
    async with house.client() as client:
        job_id = (await client.submit("pattern"))["job_id"]
        await client.wait_info(state="running")
        async with httpx.AsyncClient(base_url=fake.url) as owner:
            await owner.post("/interrupt", json={"prompt_id": next(iter(fake.prompts))})
        (facts,) = await ended(client, job_id, state="failed")
    assert facts["reason"] == "on pc-1: it was interrupted on the PC"
