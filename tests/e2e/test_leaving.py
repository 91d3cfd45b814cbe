"""Clients that leave and come back, over real connections: what becomes of their jobs, and what they are told."""

from __future__ import annotations

import httpx
import pytest
import trio

from tests.e2e.house import PATTERN, House
from tests.fakes.comfyui import FakeComfyUI


@pytest.mark.parametrize("how", ["close", "fin", "rst"])
async def test_within_its_grace_a_client_comes_back_to_its_running_job(
    house: House, fake: FakeComfyUI, how: str
) -> None:
    house.write_workflow("patient", PATTERN, on_disconnect={"grace": 20})
    await house.wait_status(lambda s: any(w["alias"] == "patient" for w in s["workflows"]))
    fake.script.gate = trio.Event()
    async with house.client() as client:
        async with client.socket() as socket:
            await client.submit("patient")
            await client.wait_info(state="running")
            await socket.leave(how)
        await house.wait_status(lambda s: s["clients"] == 0)
        async with client.socket() as socket:
            assert (await socket.receive())["status"] == "connected"
            fake.script.gate.set()
            await socket.until("closed")
        assert len(await client.result()) == 1
    assert [prompt.state for prompt in fake.prompts.values()] == ["done"]


async def test_who_does_not_come_back_loses_the_job_when_the_grace_is_over(house: House, fake: FakeComfyUI) -> None:
    house.write_workflow("patient", PATTERN, on_disconnect={"grace": 0.2})
    await house.wait_status(lambda s: any(w["alias"] == "patient" for w in s["workflows"]))
    fake.script.gate = trio.Event()
    async with house.client() as client:
        async with client.socket() as socket:
            job = await client.submit("patient")
            await client.wait_info(state="running")
            await socket.leave("rst")
        info = await client.wait_info(state="cancelled")
        assert info["reason"] == "its client disconnected and did not come back"
        with trio.fail_after(5):
            await fake.wait_for(lambda: all(p.state == "interrupted" for p in fake.prompts.values()))
        described = (await client.http.get(f"/jobs/{job['job_id']}")).json()
        assert (described["state"], described["cancelled_by"]) == ("cancelled", "client")


async def test_a_detached_job_runs_on_and_its_end_is_told_to_who_comes_back(house: House, fake: FakeComfyUI) -> None:
    house.settings["jobs"]["on_disconnect"] = "detach"
    house.write_settings()
    await house.wait_status(lambda s: s["configuration"]["generation"] >= 2)
    fake.script.gate = trio.Event()
    async with house.client() as client:
        async with client.socket() as socket:
            await client.submit("pattern")
            await client.wait_info(state="running")
            await socket.leave("rst")
        await house.wait_status(lambda s: s["clients"] == 0)
        fake.script.gate.set()
        await client.wait_info(state="succeeded")
        async with client.socket() as socket:
            assert (await socket.until_closed())[0] == 1000
            assert socket.statuses() == ["connected", "progress", "closed"]
        assert len(await client.result()) == 1


async def test_a_resume_token_outlives_a_restart_and_the_job_goes_on(house: House, fake: FakeComfyUI) -> None:
    fake.script.gate = trio.Event()
    async with house.client() as client, client.socket() as socket:
        token = (await socket.receive())["resume"]
        job = await client.submit("pattern")
        await client.wait_info(state="running")
        await house.stop()
        assert (await socket.until_closed())[0] == 1001
    await house.start()
    await house.wait_up("pc-1")
    async with house.client() as client, client.socket(f"resume={token}") as socket:
        connected = await socket.receive()
        assert connected["detail"] == "connected / c1"
        fake.script.gate.set()
        closed = await socket.until("closed")
        assert closed["detail"] == "Execution is done"
        described = (await client.http.get(f"/jobs/{job['job_id']}")).json()
        assert (described["state"], len(described["attempts"]), described["reruns"]) == ("succeeded", 1, 0)
        assert len(await client.result()) == 1
    assert [prompt.state for prompt in fake.prompts.values()] == ["done"]


async def test_a_resume_token_of_another_client_or_of_nobody_is_refused(house: House, fake: FakeComfyUI) -> None:
    async with house.client() as client, client.socket() as socket, httpx.AsyncClient() as other:
        token = (await socket.receive())["resume"]
        for query in (f"clientId=other&resume={token}", "resume=x.y", f"resume={token}0"):
            refused = await other.get(
                f"{house.url}/ws?{query}",
                headers={
                    "Upgrade": "websocket",
                    "Connection": "Upgrade",
                    "Sec-WebSocket-Version": "13",
                    "Sec-WebSocket-Key": "x" * 22 + "==",
                },
            )
            assert refused.status_code == 400, refused.text
            assert "resume token" in refused.json()["detail"]


async def test_a_rest_job_that_nobody_asks_for_expires_where_a_lease_is_set(house: House, fake: FakeComfyUI) -> None:
    house.settings["jobs"]["rest_lease"] = 1.5
    house.write_settings()
    await house.wait_status(lambda s: s["configuration"]["generation"] >= 2)
    fake.script.gate = trio.Event()
    async with house.client("asks") as asks, house.client("gone") as gone, httpx.AsyncClient() as outsider:
        kept, left = await asks.submit("pattern"), await gone.submit("pattern")
        facts: dict[str, int] = {}
        with trio.fail_after(10):
            while not facts.get("expired"):
                await asks.info()  # a poll like any other; the outsider's look at the service renews nothing
                facts = (await outsider.get(f"{house.url}/status")).json()["jobs"]
        assert (await gone.http.get(f"/jobs/{left['job_id']}")).json()["reason"] == "nobody asked for it for 1.5 s"
        fake.script.gate.set()
        assert len(await asks.result()) == 1
        assert (await asks.http.get(f"/jobs/{kept['job_id']}")).json()["state"] == "succeeded"
