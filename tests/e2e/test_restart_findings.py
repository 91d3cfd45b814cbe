"""What a review of the ledger found, over restarts and duplicate submissions: each failed before it was mended."""

from __future__ import annotations

import shutil

import httpx
import trio

from tests.conftest import StartFake
from tests.e2e.house import PATTERN, House
from tests.e2e.test_jobs_api import BODY, RUN, post
from tests.e2e.test_restart import Gates, described, ended, gated, gates, held, restarted, submit
from tests.fakes.comfyui import FakeComfyUI

__all__ = ["gated", "gates"]


async def test_a_key_without_a_client_is_refused_not_run_twice(house: House, fake: FakeComfyUI) -> None:
    async with httpx.AsyncClient(base_url=house.url) as http:
        answer = await http.post("/run", json=BODY, headers={"Idempotency-Key": "k"})
    assert answer.status_code == 400
    assert "clientId" in answer.json()["detail"]
    assert fake.prompts == {}


async def test_who_gave_a_key_may_lose_the_connection_and_ask_again(
    house: House, gated: FakeComfyUI, gates: Gates
) -> None:
    await house.start()
    await house.wait_up("pc-1")
    async with house.client() as client, trio.open_nursery() as nursery:
        nursery.start_soon(post, client, "k", BODY, RUN)
        with trio.fail_after(5):
            await gated.wait_for(lambda: held(gated))
        nursery.cancel_scope.cancel()
    gates.open_all()
    async with house.client() as client:
        again = await post(client, "k", path=RUN)
    assert again.status_code == 200, again.text
    assert len(gated.prompts) == 1


async def test_one_of_two_who_share_a_key_leaves_the_job_to_the_other(
    house: House, gated: FakeComfyUI, gates: Gates
) -> None:
    await house.start()
    await house.wait_up("pc-1")
    answers: list[httpx.Response] = []
    async with house.client() as leaves, house.client() as stays, trio.open_nursery() as nursery:

        async def stay() -> None:
            answers.append(await post(stays, "k", path=RUN))

        nursery.start_soon(stay)
        with trio.fail_after(5):
            await gated.wait_for(lambda: held(gated))
        async with trio.open_nursery() as second:
            second.start_soon(post, leaves, "k", BODY, RUN)
            with trio.fail_after(5):
                while house.daemon.clients.obtain("c1").waiting < 2:
                    await trio.sleep(0.01)
            second.cancel_scope.cancel()
        with trio.fail_after(5):
            while house.daemon.clients.obtain("c1").waiting > 1:
                await trio.sleep(0.01)
        gates.open_all()
    assert answers[0].status_code == 200, answers[0].text


async def test_the_newest_state_is_the_same_after_a_restart_with_an_older_job_open(
    house: House, start_fake: StartFake, gates: Gates
) -> None:
    one, two = await start_fake("one"), await start_fake("two")
    one.script.for_prompt = two.script.for_prompt = gates.script
    house.write_backends(("pc-1", one.url), ("pc-2", two.url))
    await house.start()
    await house.wait_up("pc-1", "pc-2")
    async with house.client() as client:
        _, second = await submit(client, 101), await submit(client, 102)
        with trio.fail_after(5):
            await one.wait_for(lambda: held(one))
            await two.wait_for(lambda: held(two))
        gates.open(102)
        await ended(client, second)
        before = await client.info()
    async with restarted(house):
        pass
    async with house.client() as client:
        assert await client.info() == before
    gates.open_all()


async def test_a_state_folder_may_be_moved(house: House, gated: FakeComfyUI, gates: Gates) -> None:
    gates.open_all()
    await house.start()
    await house.wait_up("pc-1")
    async with house.client() as client:
        await ended(client, await submit(client, 101))
    async with restarted(house):
        shutil.move(house.folder / "state", house.folder / "elsewhere")
        house.settings["state"]["dir"] = str(house.folder / "elsewhere")
    async with house.client() as client:
        assert len(await client.result()) == 1


async def test_a_key_does_not_lead_to_a_job_that_was_refused(house: House, gated: FakeComfyUI, gates: Gates) -> None:
    gates.open_all()
    await house.start()
    await house.wait_up("pc-1")
    ledger = house.daemon._ledger
    assert ledger._connection is not None
    async with house.client() as client:
        ledger._connection.execute("PRAGMA query_only = ON")
        assert (await post(client, "k")).status_code == 503
        ledger._connection.execute("PRAGMA query_only = OFF")
        with trio.fail_after(5):
            await ledger.committed()
    async with restarted(house):
        pass
    async with house.client() as client:
        again = await post(client, "k")
        assert again.status_code == 200
        await ended(client, again.json()["job_id"])


async def test_a_grace_that_had_begun_goes_on_after_a_restart(house: House, gated: FakeComfyUI, gates: Gates) -> None:
    house.write_workflow("patient", PATTERN, on_disconnect={"grace": 1.0})
    house.settings["jobs"]["reconnect_grace"] = 0.5
    await house.start()
    await house.wait_up("pc-1")
    async with house.client() as client:
        async with client.socket() as socket:
            job = await client.submit("patient")
            await client.wait_info(state="running")
            await socket.leave("rst")
        await house.wait_status(lambda s: s["clients"] == 0)
    async with restarted(house):
        pass
    async with house.client() as client:
        with trio.fail_after(8):
            while (facts := await described(client, job["job_id"]))["state"] != "cancelled":
                assert facts["state"] in ("placed", "running")
                await trio.sleep(0.05)
    gates.open_all()
