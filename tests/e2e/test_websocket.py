"""Sessions: what a WebSocket client is told, and what its going away does. Real sockets throughout."""

from __future__ import annotations

import uuid

import httpx
import pytest
import trio

from tests.conftest import StartFake
from tests.e2e.house import House, never_falling
from tests.fakes.comfyui import FakeComfyUI


async def test_a_client_is_told_connected_progress_closed_and_fetches(served: House) -> None:
    async with served.client(str(uuid.uuid4())) as client, client.socket() as socket:
        first = await socket.receive()
        assert first["status"] == "connected"
        assert first["detail"] == first["details"]
        job = await client.submit("pattern", **{"1__color": 3})
        closed = await socket.until("closed")
        assert closed["detail"] == closed["details"] == "Execution is done"
        assert await socket.until_closed() == (1000, "done")
        assert socket.statuses()[0] == "connected"
        assert set(socket.statuses()[1:-1]) == {"progress"}
        assert socket.percentages()[-1] == 100.0
        assert never_falling(socket.percentages())
        assert {m["job_id"] for m in socket.seen if m["status"] == "progress"} == {job["job_id"]}
        assert len(await client.result()) == 1


async def test_progress_is_told_as_nodes_advance(house: House, fake: FakeComfyUI) -> None:
    fake.script.steps = 4
    fake.script.gates = {"12": (gate := trio.Event()), "13": (last := trio.Event())}
    async with house.client() as client, client.socket() as socket:
        token = (await client.upload(f=("f.png", fake_png())))["f"]
        await client.submit("invert", **{"10__image": token})
        while not socket.percentages() or socket.percentages()[-1] < 50:
            await socket.receive()
        assert socket.percentages()[-1] == 50.0
        gate.set()
        while socket.percentages()[-1] < 75:
            await socket.receive()
        last.set()
        await socket.until("closed")
        assert never_falling(socket.percentages())
        assert socket.percentages()[-2:] == [75.0, 100.0]


async def test_listening_while_nothing_else_is_said_then_a_time_out(house: House) -> None:
    house.settings["jobs"] |= {"timeout_interval": 0.05, "limit_timeout_count": 4}
    await house.start()
    async with house.client() as client, client.socket() as socket:
        error = await socket.until("error")
        assert error["detail"] == "time out error: exceed 0.2s"
        assert await socket.until_closed() == (1000, "timed out")
        assert [m["status"] for m in socket.seen] == ["connected", "listening", "listening", "listening", "error"]


async def test_a_job_that_waits_does_not_time_out(house: House, fake: FakeComfyUI) -> None:
    fake.script.gate = trio.Event()
    house.settings["jobs"] |= {"timeout_interval": 0.05, "limit_timeout_count": 2}
    house.write_settings()
    await house.wait_status(lambda s: s["configuration"]["generation"] == 2)
    async with house.client() as client, client.socket() as socket:
        await client.submit("pattern")
        listened = 0
        while listened < 6:
            listened += (await socket.receive())["status"] == "listening"
        fake.script.gate.set()
        await socket.until("closed")


async def test_several_jobs_of_one_client_close_after_the_last(house: House, fake: FakeComfyUI) -> None:
    fake.script.gate = trio.Event()
    async with house.client() as client, client.socket() as socket:
        jobs = [(await client.submit("pattern", **{"1__color": n}))["job_id"] for n in range(4)]
        fake.script.gate.set()
        await socket.until("closed")
        assert socket.statuses().count("closed") == 1
        done = [m["job_id"] for m in socket.seen if m["status"] == "progress" and m["detail"] == "100.00%"]
        assert sorted(done) == sorted(jobs)
        assert [p.graph["1"]["inputs"]["color"] for p in fake.prompts.values()] == [0, 1, 2, 3]
        for job in jobs:
            mine = [float(m["detail"][:-1]) for m in socket.seen if m.get("job_id") == job]
            assert never_falling(mine)
        assert [len(await client.result()) for _ in jobs] == [1, 1, 1, 1]


async def test_a_failed_job_is_told_with_its_node_and_reason(house: House, fake: FakeComfyUI) -> None:
    fake.script.fail_node = "1"
    fake.script.fail_message = "no such colour"
    async with house.client() as client, client.socket() as socket:
        await client.submit("pattern")
        error = await socket.until("error")
        assert "node 1 (EmptyImage): RuntimeError: no such colour" in error["detail"]
        assert "pc-1" in error["detail"]
        assert "127.0.0.1" not in error["detail"]
        await socket.until_closed()
        assert await client.result(wait=0) == []


@pytest.mark.parametrize("how", ["close", "fin", "rst"])
async def test_a_client_that_leaves_interrupts_its_running_job_by_id_and_dequeues_the_others(
    house: House, fake: FakeComfyUI, how: str
) -> None:
    fake.script.gate = trio.Event()
    async with house.client("leaver") as client, house.client("stayer") as stayer:
        async with client.socket() as socket:
            for color in range(4):
                await client.submit("pattern", **{"1__color": color})
            await stayer.submit("pattern", **{"1__color": 99})
            with trio.fail_after(5):
                await fake.wait_for(lambda: len(fake.prompts) == 2 and any(p.held_at for p in fake.prompts.values()))
            running, prefetched = fake.prompts.values()
            await socket.leave(how)
            with trio.fail_after(5):
                await fake.wait_for(lambda: running.state == "interrupted" and prefetched.state == "deleted")
        fake.script.gate.set()
        assert len(await stayer.result()) == 1
        await house.wait_status(lambda s: s["jobs"] == {"cancelled": 4, "succeeded": 1})
    assert [c.json for c in fake.calls_to("POST", "/interrupt") if c.json == {"prompt_id": running.prompt_id}]
    assert all(c.json.get("prompt_id") for c in fake.calls_to("POST", "/interrupt"))
    assert len(fake.prompts) == 3  # the two that waited here never reached the PC
    assert fake.violations == []


@pytest.mark.parametrize("how", ["close", "fin", "rst"])
async def test_leaving_touches_no_prompt_of_the_owner(house: House, fake: FakeComfyUI, how: str) -> None:
    owners = fake.submit_foreign(gate=(gate := trio.Event()))
    await house.wait_status(lambda s: s["backends"][0]["owner_prompts"] == 1)
    async with house.client() as client, client.socket() as socket:
        await client.submit("pattern")
        await socket.leave(how)
        await house.wait_status(lambda s: s["jobs"] == {"cancelled": 1})
    gate.set()
    with trio.fail_after(5):
        await fake.wait_for(lambda: fake.prompts[owners].state == "done")
    assert fake.violations == []
    assert len(fake.prompts) == 1


async def test_a_client_that_leaves_while_its_prompt_is_being_posted_leaves_nothing_running(
    house: House, fake: FakeComfyUI
) -> None:
    fake.script.gate = trio.Event()
    fake.script.post_gate = trio.Event()
    async with house.client() as client, client.socket() as socket:
        await client.submit("pattern")
        with trio.fail_after(5):
            await fake.wait_for(lambda: bool(fake.calls_to("POST", "/prompt")))
        await socket.leave("rst")
        await house.wait_status(lambda s: s["jobs"] == {"cancelled": 1})
        fake.script.post_gate.set()
        with trio.fail_after(5):
            await fake.wait_for(lambda: all(p.state in ("interrupted", "deleted") for p in fake.prompts.values()))
        await house.wait_status(lambda s: s["backends"][0]["running"] == 0)


async def test_a_client_that_leaves_during_an_upload_posts_nothing(house: House, fake: FakeComfyUI) -> None:
    fake.script.upload_gate = trio.Event()
    async with house.client() as client, client.socket() as socket:
        token = (await client.upload(f=("f.png", fake_png())))["f"]
        await client.submit("invert", **{"10__image": token})
        with trio.fail_after(5):
            await fake.wait_for(lambda: bool(fake.calls_to("POST", "/upload/image")))
        await socket.leave("rst")
        await house.wait_status(lambda s: s["backends"][0]["running"] == 0 and s["jobs"] == {"cancelled": 1})
    fake.script.upload_gate.set()
    assert fake.calls_to("POST", "/prompt") == []


async def test_a_second_socket_takes_over_and_nothing_is_revoked(house: House, fake: FakeComfyUI) -> None:
    fake.script.gate = trio.Event()
    async with house.client() as client, client.socket() as first:
        await client.submit("pattern")
        await first.until("progress")
        async with client.socket() as second:
            code, reason = await first.until_closed()
            assert code == 1000
            assert "took over" in reason
            assert (await second.receive())["status"] == "connected"
            await second.until("progress")
            fake.script.gate.set()
            await second.until("closed")
        assert len(await client.result()) == 1
    assert fake.calls_to("POST", "/interrupt") == []


async def test_after_a_take_over_it_is_the_second_sockets_leaving_that_counts(house: House, fake: FakeComfyUI) -> None:
    fake.script.gate = trio.Event()
    async with house.client() as client, client.socket() as first:
        await client.submit("pattern")
        await first.until("progress")
        async with client.socket() as second:
            await second.receive()
            await second.leave("rst")
            with trio.fail_after(5):
                await fake.wait_for(lambda: all(p.state == "interrupted" for p in fake.prompts.values()))


async def test_a_stop_of_the_service_closes_with_1001_and_revokes_nothing(house: House, fake: FakeComfyUI) -> None:
    fake.script.gate = trio.Event()
    async with house.client() as client, client.socket() as socket:
        await client.submit("pattern")
        await socket.until("progress")
        house.daemon.stop()
        code, _ = await socket.until_closed(5)
        assert code == 1001
        with trio.fail_after(5):
            await house.ended.wait()
    assert [p.state for p in fake.prompts.values()] == ["running"]
    assert fake.calls_to("POST", "/interrupt") == []
    assert fake.calls_to("POST", "/queue") == []


async def test_what_clients_say_is_ignored_and_does_not_hide_that_they_leave(house: House, fake: FakeComfyUI) -> None:
    fake.script.gate = trio.Event()
    async with house.client() as client, client.socket() as socket:
        await client.submit("pattern")
        for _ in range(50):
            await socket.connection.send_message("hello")
        await socket.until("progress")
        await socket.leave("rst")
        with trio.fail_after(5):
            await fake.wait_for(lambda: all(p.state == "interrupted" for p in fake.prompts.values()))


async def test_a_rest_job_is_not_revoked_by_the_end_of_its_http_connections(house: House, fake: FakeComfyUI) -> None:
    fake.script.gate = trio.Event()
    async with house.client("rest") as client:
        await client.submit("pattern")
        await client.wait_info(state="running")
    fake.script.gate.set()
    async with house.client("rest") as again:
        assert len(await again.result()) == 1


async def test_a_socket_without_client_id_is_refused(served: House) -> None:
    async with httpx.AsyncClient() as http:
        headers = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        response = await http.get(f"{served.url}/ws", headers=headers)
    assert response.status_code == 400
    assert "clientId" in response.json()["detail"]


async def test_many_clients_at_once_each_get_their_own_result(house: House, start_fake: StartFake) -> None:
    fakes = [await start_fake(f"f{n}") for n in range(4)]
    house.write_backends(*((fake.name, fake.url) for fake in fakes))
    await house.start()
    await house.wait_up(*(fake.name for fake in fakes))
    names: list[str] = []

    async def one(number: int) -> None:
        async with house.client(f"client-{number}") as client, client.socket() as socket:
            await socket.receive()
            job = await client.submit("pattern", **{"1__color": number})
            await socket.until("closed", 30)
            (file,) = await client.result()
            assert job["job_id"][:8] in file["file_name"]
            names.append(file["content"])

    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(one, number)
    assert len(set(names)) == 40
    assert all(fake.prompts for fake in fakes)


def fake_png() -> bytes:
    from tests.e2e.test_bridge_api import picture

    return picture()
