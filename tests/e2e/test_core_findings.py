"""What a second review found, over restarts and edits: each failed before it was mended."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
import trio

from bridged.actors import janitor
from tests.conftest import StartFake
from tests.e2e.house import House
from tests.e2e.test_restart import Gates, described, gated, gates, held, restarted, submit
from tests.fakes.comfyui import FakeComfyUI, recorded_classes

__all__ = ["gated", "gates"]


async def ended_in(client: Any, job_id: str, seconds: float) -> dict[str, Any]:
    """The job, once it has ended."""
    with trio.fail_after(seconds):
        while (facts := await described(client, job_id))["ended_at"] is None:
            await trio.sleep(0.02)
    return facts


async def test_a_crash_of_the_core_does_not_pass_for_the_clients_leaving(
    house: House, gated: FakeComfyUI, gates: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = trio.Event()

    async def crash(*_: Any) -> None:
        await bomb.wait()
        raise RuntimeError("a fault of ours")

    async def run(*, task_status: Any) -> None:
        with pytest.raises(BaseExceptionGroup, match="Trio nursery"):
            await house.daemon.run(task_status=task_status)
        house.ended.set()

    monkeypatch.setattr(janitor, "run", crash)
    monkeypatch.setattr(house, "_run", run)
    await house.start()
    await house.wait_up("pc-1")
    async with house.client() as client, client.socket() as socket:
        job = await submit(client, 7)
        with trio.fail_after(5):
            await gated.wait_for(lambda: held(gated))
        bomb.set()
        with trio.fail_after(10):
            await house.ended.wait()
        await socket.until_closed()
    ledger = sqlite3.connect(house.folder / "state" / "ledger.sqlite3")
    try:
        [(state,)] = ledger.execute("SELECT state FROM jobs WHERE id = ?", (job,)).fetchall()
    finally:
        ledger.close()
    assert state in ("placed", "running")


async def test_what_only_the_embedded_worker_can_run_waits_for_it_after_a_restart(
    house: House, nursery: trio.Nursery
) -> None:
    pc = FakeComfyUI(name="one", classes=recorded_classes("EmptyImage", "SaveImage"))
    await nursery.start(pc.serve)
    house.settings["embedded"] = {"worker": "always"}
    house.write_backends(("pc-1", pc.url))
    await house.start()
    await house.wait_up("pc-1", "embedded")
    async with house.client() as client:
        jobs = [(await client.submit("blurs"))["job_id"] for _ in range(3)]
    async with restarted(house):
        pass
    async with house.client() as client:
        assert [(await ended_in(client, job, 40))["state"] for job in jobs] == ["succeeded"] * 3


async def test_a_renamed_backend_hears_its_events(house: House, gated: FakeComfyUI, gates: Gates) -> None:
    """The old name's connection closes late; under one client_id that would take the new one's events away."""
    house.settings["jobs"] |= {"witness_interval": 30.0, "unreachable_after": 60.0}
    await house.start()
    await house.wait_up("pc-1")
    async with house.client() as client:
        first = await submit(client, 5)
        with trio.fail_after(5):
            await gated.wait_for(lambda: held(gated))
        house.write_backends(("pc-a", gated.url))
        await house.wait_up("pc-a")
        gates.open_all()
        await ended_in(client, first, 5)
        await house.wait_status(lambda s: [b["name"] for b in s["backends"]] == ["pc-a"], 10)
        for name in (6, 7):
            assert (await ended_in(client, await submit(client, name), 5))["state"] == "succeeded"


async def test_what_waits_on_a_pc_that_is_drained_at_the_restart_is_given_back(
    house: House, gated: FakeComfyUI, gates: Gates, start_fake: StartFake
) -> None:
    two = await start_fake("two")
    await house.start()
    await house.wait_up("pc-1")
    async with house.client() as client:
        _, second = await submit(client, 5), await submit(client, 6)
        with trio.fail_after(5):
            await gated.wait_for(lambda: len(gated.prompts) == 2 and held(gated))
    async with restarted(house):
        house.write_backends(("pc-1", gated.url), ("pc-2", two.url), pc_1="drain = true")
    async with house.client() as client:
        facts = await ended_in(client, second, 10)
    gates.open_all()
    assert (facts["state"], facts["attempts"][-1]["backend"]) == ("succeeded", "pc-2")


async def test_by_its_id_a_result_is_given_again(house: House, fake: FakeComfyUI) -> None:
    """The answer may have been lost on the way, which nobody can see."""
    async with house.client() as client:
        job = (await client.submit("pattern"))["job_id"]
        first = await client.result()
        assert await client.result(wait=0) == []
        assert await client.result(wait=0, jobId=job) == first
