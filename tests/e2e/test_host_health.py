"""Dead, flapping, cut-off and hung PCs over real sockets: how soon it is noticed, and who is blamed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from bridged.actors import backend, deadlines, health
from tests.conftest import StartFake
from tests.e2e.house import House
from tests.e2e.test_bridge_api import picture
from tests.fakes.comfyui import Call, FakeComfyUI, Reply

ROOT = Path(__file__).parents[2]


def patched(monkeypatch: pytest.MonkeyPatch, **values: float) -> None:
    """Constants of health, wherever they were imported."""
    for module in (health, backend, deadlines):
        for name, value in values.items():
            monkeypatch.setattr(module, name, value, raising=False)


async def starts_on(house: House, fakes: dict[str, str], *names: str) -> None:
    """The daemon, with these of the backends."""
    house.write_backends(*((name, fakes[name]) for name in names))
    if house.url:
        await house.wait_status(lambda s: {b["name"] for b in s["backends"]} == set(names))
    else:
        await house.start()
    await house.wait_up(*names)


def backend_status(status: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(b for b in status["backends"] if b["name"] == name)
    return found


async def running_on(fake: FakeComfyUI) -> None:
    with trio.fail_after(10):
        await fake.wait_for(lambda: any(p.held_at or p.node for p in fake.prompts.values() if p.state == "running"))


# -- gone ------------------------------------------------------------------------------------------------------------


async def test_a_killed_comfyui_gives_its_job_to_another_within_3_seconds(house: House, start_fake: StartFake) -> None:
    one, other = await start_fake("one"), await start_fake("two")
    urls = {"pc-1": one.url, "pc-2": other.url}
    house.settings["jobs"]["unreachable_after"] = 60
    one.script.gate = trio.Event()
    await starts_on(house, urls, "pc-1")
    async with house.client() as client:
        await client.submit("pattern")
        await running_on(one)
        await starts_on(house, urls, "pc-1", "pc-2")
        killed_at = trio.current_time()
        one.crash()
        with trio.fail_after(3):
            await other.wait_for(lambda: other.prompts)
        assert trio.current_time() - killed_at > health.REFUSED_FOR, "not at the first refusal"
        assert len(await client.result()) == 1
        await one.start_listening()
        await house.wait_up("pc-1")
    assert len(other.prompts) == 1
    assert one.violations == []


async def test_a_killed_process_gives_its_job_to_another_within_3_seconds(house: House, start_fake: StartFake) -> None:
    command = [sys.executable, "-m", "tests.fakes.comfyui", "--node-duration", "60", "--steps", "600"]
    process = await trio.lowlevel.open_process(command, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        url = json.loads(await process.stdout.receive_some())["url"]
        other = await start_fake("two")
        house.settings["jobs"]["unreachable_after"] = 60
        await starts_on(house, {"pc-1": url}, "pc-1")
        async with house.client() as client:
            await client.submit("pattern")
            await client.wait_info(state="running")
            await starts_on(house, {"pc-1": url, "pc-2": other.url}, "pc-1", "pc-2")
            process.send_signal(signal.SIGKILL)
            with trio.fail_after(3):
                await other.wait_for(lambda: other.prompts)
            assert len(await client.result()) == 1
    finally:
        process.kill()
        await process.wait()
        if process.stdout is not None:
            await process.stdout.aclose()


async def test_a_job_that_only_waited_on_a_killed_comfyui_may_go_back_to_it(house: House, fake: FakeComfyUI) -> None:
    house.settings["jobs"]["unreachable_after"] = 60
    house.write_settings()
    await house.wait_status(lambda s: s["configuration"]["generation"] == 2)
    fake.script.gate = trio.Event()
    async with house.client("c1") as first, house.client("c2") as second:
        await first.submit("pattern")
        await second.submit("pattern")
        with trio.fail_after(5):
            await fake.wait_for(lambda: len(fake.prompts) == 2)
        fake.crash()
        lost = await first.wait_info(state="lost")
        assert "its ComfyUI is gone" in lost["detail"]
        assert lost["fault"] == "host"
        fake.script.gate = None
        await fake.start_listening()
        assert len(await second.result()) == 1


async def test_a_comfyui_that_is_back_at_once_is_asked(house: House, start_fake: StartFake) -> None:
    """The connection broke and the port was closed for a moment, but the prompt goes on: nothing is run twice."""
    one = await start_fake("one")
    await starts_on(house, {"pc-1": one.url}, "pc-1")
    one.script.gate = trio.Event()
    async with house.client() as client:
        await client.submit("pattern")
        await running_on(one)
        one.stop_listening()
        one.drop_connections(reset=True)
        await house.wait_status(lambda s: s["backends"][0]["reason"] == "it refuses connections")
        await one.start_listening()
        await house.wait_up("pc-1")
        one.script.gate.set()
        assert len(await client.result()) == 1
    assert len(one.prompts) == 1


# -- flapping --------------------------------------------------------------------------------------------------------


async def connects_again(fake: FakeComfyUI) -> None:
    before = len(fake.calls_to("GET", "/ws"))
    with trio.fail_after(5):
        await fake.wait_for(lambda: len(fake.calls_to("GET", "/ws")) > before and fake.connected)


async def flap(house: House, fake: FakeComfyUI, times: int) -> None:
    for _ in range(times):
        fake.drop_websockets(reset=True)
        await connects_again(fake)
        await house.wait_status(lambda s: s["backends"][0]["state"] in ("up", "probation"))


async def test_a_flapper_is_followed_and_gets_nothing_new_until_it_has_stayed(
    house: House, start_fake: StartFake
) -> None:
    one, other = await start_fake("one"), await start_fake("two")
    urls = {"pc-1": one.url, "pc-2": other.url}
    one.script.gate = trio.Event()
    await starts_on(house, urls, "pc-1")
    async with house.client("c1") as first, house.client("c2") as second:
        await first.submit("pattern")
        await running_on(one)
        await starts_on(house, urls, "pc-1", "pc-2")
        await flap(house, one, 2)
        assert backend_status(await house.status(), "pc-1")["state"] == "up"
        one.drop_websockets(reset=True)
        status = await house.wait_status(lambda s: backend_status(s, "pc-1")["state"] == "probation")
        assert "went away repeatedly" in backend_status(status, "pc-1")["reason"]
        one.script.gate.set()
        assert len(await first.result()) == 1
        for color in range(3):
            await second.submit("pattern", **{"1__color": color})
        assert [len(await second.result()) for _ in range(3)] == [1, 1, 1]
        assert backend_status(await house.status(), "pc-1")["state"] == "probation"
    assert len(one.prompts) == 1
    assert len(other.prompts) == 3


async def test_a_flapper_that_is_alone_is_used_after_the_first_step(
    house: House, fake: FakeComfyUI, monkeypatch: pytest.MonkeyPatch
) -> None:
    patched(monkeypatch, FIRST_PROBATION=0.3)
    await flap(house, fake, 5)
    patched(monkeypatch, FIRST_PROBATION=0.6)
    fake.drop_websockets(reset=True)
    await house.wait_status(lambda s: s["backends"][0]["state"] == "probation")
    async with house.client() as client:
        await client.submit("pattern")
        assert (await client.wait_info(state="queued"))["state"] == "queued"
        assert len(await client.result()) == 1


async def test_one_that_is_edited_and_drained_again_and_again_is_no_flapper(house: House, fake: FakeComfyUI) -> None:
    for header in range(4):
        house.write_backends(("pc-1", fake.url), pc_1=f'headers = {{ X-Test = "{header}" }}')
        await connects_again(fake)
        status = await house.wait_status(lambda s: s["backends"][0]["state"] in ("up", "probation"))
        assert status["backends"][0]["state"] == "up"


# -- an outage of ours -----------------------------------------------------------------------------------------------


async def three_with_jobs(house: House, start_fake: StartFake) -> list[FakeComfyUI]:
    fakes = [await start_fake(f"f{number}") for number in (1, 2, 3)]
    for fake in fakes:
        fake.script.gate = trio.Event()
    urls = {f"pc-{number}": fake.url for number, fake in enumerate(fakes, 1)}
    await starts_on(house, urls, *urls)
    async with house.client() as client:
        for color in range(3):
            await client.submit("pattern", **{"1__color": color})
    for fake in fakes:
        await running_on(fake)
    return fakes


def cut_off(*fakes: FakeComfyUI) -> None:
    """The network fails; the PCs work on."""
    for fake in fakes:
        fake.stop_listening()
        fake.drop_connections(reset=True)


async def test_when_most_go_at_once_nothing_is_given_up_and_nothing_runs_twice(
    house: House, start_fake: StartFake, monkeypatch: pytest.MonkeyPatch
) -> None:
    patched(monkeypatch, REFUSED_FOR=0.1, REFUSED_RETRY=0.05, LAST_RETRY=0.1)
    house.settings["jobs"]["unreachable_after"] = 1
    refused, many = 0, trio.Event()
    real = health.Health.on_refused

    def counted(self: health.Health, now: float) -> bool:
        nonlocal refused
        refused += 1
        if refused == 3 * 20:  # each of them for about 2 s
            many.set()
        return real(self, now)

    monkeypatch.setattr(health.Health, "on_refused", counted)
    fakes = await three_with_jobs(house, start_fake)
    async with house.client() as client:
        assert (await house.status())["suspended"] is False
        cut_off(*fakes)
        status = await house.wait_status(lambda s: s["suspended"])
        assert "most PCs went away at once" in status["backends"][0]["reason"]
        with trio.fail_after(10):
            await many.wait()
        assert (await house.status())["jobs"] == {"running": 3}
        for fake in fakes:
            await fake.start_listening()
        await house.wait_status(lambda s: not s["suspended"])
        await house.wait_up("pc-1", "pc-2", "pc-3")
        for fake in fakes:
            assert fake.script.gate is not None
            fake.script.gate.set()
        assert [len(await client.result()) for _ in fakes] == [1, 1, 1]
    assert [len(fake.prompts) for fake in fakes] == [1, 1, 1]


async def test_an_outage_keeps_jobs_waiting_for_a_while_only(
    house: House, start_fake: StartFake, monkeypatch: pytest.MonkeyPatch
) -> None:
    patched(monkeypatch, OUTAGE_LIMIT=0.5)
    house.settings["jobs"]["unreachable_after"] = 0.2
    last = await start_fake("last")
    fakes = await three_with_jobs(house, start_fake)
    async with house.client() as client:
        urls = {f"pc-{number}": fake.url for number, fake in enumerate((*fakes, last), 1)}
        await starts_on(house, urls, *urls)
        cut_off(*fakes)
        await house.wait_status(lambda s: s["suspended"])
        assert [len(await client.result()) for _ in fakes] == [1, 1, 1]
        assert (await house.status())["suspended"] is False
    assert len(last.prompts) == 3


# -- hung ------------------------------------------------------------------------------------------------------------


async def test_a_run_without_progress_is_stopped_and_tried_elsewhere(house: House, start_fake: StartFake) -> None:
    one, other = await start_fake("one"), await start_fake("two")
    urls = {"pc-1": one.url, "pc-2": other.url}
    house.settings["jobs"]["no_progress_timeout"] = 0.5
    one.script.gate = trio.Event()
    await starts_on(house, urls, "pc-1")
    async with house.client() as client:
        await client.submit("pattern")
        await running_on(one)
        await starts_on(house, urls, "pc-1", "pc-2")
        assert len(await client.result()) == 1
    assert [p.state for p in one.prompts.values()] == ["interrupted"]
    assert len(other.prompts) == 1


async def test_a_backend_that_never_confirms_a_stop_is_not_waited_for_and_gets_nothing_new(
    house: House, start_fake: StartFake, monkeypatch: pytest.MonkeyPatch
) -> None:
    patched(monkeypatch, CONFIRM=0.3)
    one, other = await start_fake("one"), await start_fake("two")
    urls = {"pc-1": one.url, "pc-2": other.url}
    house.settings["jobs"]["no_progress_timeout"] = 0.5
    one.script.busy = {"1": (stuck := trio.Event())}
    await starts_on(house, urls, "pc-1")
    async with house.client() as client:
        await client.submit("pattern")
        await running_on(one)
        await starts_on(house, urls, "pc-1", "pc-2")
        assert len(await client.result()) == 1
        for color in range(3):
            await client.submit("pattern", **{"1__color": color})
        assert [len(await client.result()) for _ in range(3)] == [1, 1, 1]
        assert len(one.prompts) == 1
        assert one.calls_to("POST", "/interrupt")
        stuck.set()
        with trio.fail_after(5):
            await one.wait_for(lambda: not any(p.open for p in one.prompts.values()))
        await house.wait_status(lambda s: backend_status(s, "pc-1")["owner_prompts"] == 0)


async def test_a_run_with_progress_ends_at_max_runtime_and_says_so(house: House, start_fake: StartFake) -> None:
    one = await start_fake("one")
    house.settings["jobs"] |= {"no_progress_timeout": 0.5, "max_runtime": 1.0}
    one.script.node_duration, one.script.steps = 20.0, 400
    await starts_on(house, {"pc-1": one.url}, "pc-1")
    async with house.client() as client:
        await client.submit("pattern")
        info = await client.wait_info(state="failed")
        assert "it ran longer than max_runtime 1 s" in info["detail"]
        assert info["fault"] == "host"
    assert [p.state for p in one.prompts.values()] == ["interrupted"]


async def test_waiting_behind_another_prompt_is_no_lack_of_progress(house: House, start_fake: StartFake) -> None:
    one = await start_fake("one")
    house.settings["jobs"] |= {"no_progress_timeout": 0.5, "max_runtime": 1.5}
    one.script.node_duration, one.script.steps = 0.5, 10
    await starts_on(house, {"pc-1": one.url}, "pc-1")
    async with house.client() as client:
        for color in range(3):
            await client.submit("pattern", **{"1__color": color})
        assert [len(await client.result()) for _ in range(3)] == [1, 1, 1]
    assert [p.state for p in one.prompts.values()] == ["done"] * 3


@pytest.mark.parametrize("route", ["/upload/image", "/prompt", "/view", "/history/*"])
async def test_a_pc_that_says_nothing_any_more_loses_its_job_in_time_wherever_that_is(
    house: House, start_fake: StartFake, route: str
) -> None:
    one, other = await start_fake("one"), await start_fake("two")
    urls = {"pc-1": one.url, "pc-2": other.url}
    house.settings["jobs"] |= {"unreachable_after": 1.0, "witness_interval": 0.2}
    silent = trio.Event()
    one.script.omit_executed = route == "/history/*"

    async def hook(call: Call) -> Reply | None:
        if call.route == route or (route.endswith("*") and call.route.startswith(route[:-1])):
            one.black_hole()
            silent.set()
        return None

    one.script.hook = hook
    await starts_on(house, urls, "pc-1")
    async with house.client() as client:
        token = (await client.upload(image=("a.png", picture())))["image"]
        await client.submit("invert", **{"10__image": token})
        with trio.fail_after(5):
            await silent.wait()
        began = trio.current_time()
        await starts_on_second(house, urls)
        assert len(await client.result()) == 1
        assert trio.current_time() - began < 3.5
    assert len(other.prompts) == 1


async def starts_on_second(house: House, urls: dict[str, str]) -> None:
    house.write_backends(*urls.items())
    await house.wait_up("pc-2")


async def test_a_cancel_that_a_silent_pc_never_confirms_ends_in_time(house: House, start_fake: StartFake) -> None:
    one = await start_fake("one")
    house.settings["jobs"] |= {"unreachable_after": 1.0, "witness_interval": 0.2}
    one.script.gate = trio.Event()
    await starts_on(house, {"pc-1": one.url}, "pc-1")
    async with house.client() as client:
        await client.submit("pattern")
        await running_on(one)
        one.black_hole()
        await client.http.post("/interrupt")
        await client.wait_info(state="cancelled")
        await house.wait_status(lambda s: s["backends"][0]["running"] == 0, 3)
        one.resume()
        with trio.fail_after(10):
            await one.wait_for(lambda: all(p.state == "interrupted" for p in one.prompts.values()))
