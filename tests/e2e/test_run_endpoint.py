"""`POST /run`: one request in, the files out; the client's going away takes the job with it."""

from __future__ import annotations

import base64
import uuid

import httpx
import pytest
import trio

from tests.e2e.house import House
from tests.e2e.test_bridge_api import picture
from tests.fakes.comfyui import FakeComfyUI

BASE64 = {"resType": "base64"}


async def test_one_request_gives_the_files(served: House) -> None:
    async with served.client(str(uuid.uuid4())) as client:
        answer = await client.http.post("/run", params=BASE64, json={"workflow": "pattern", "1/color": 7})
        assert answer.status_code == 200
        (file,) = answer.json()["files"]
        assert base64.b64decode(file["content"]).startswith(b"\x89PNG")
        assert await client.result(wait=0) == []  # it was given
        multipart = await client.http.post("/run", json={"workflow": "pattern", "1/color": 8})
        assert multipart.headers["content-type"].startswith("multipart/form-data")


async def test_client_id_may_be_left_out(served: House) -> None:
    async with httpx.AsyncClient(base_url=served.url, timeout=30) as http:
        answer = await http.post("/run", params=BASE64, json={"workflow": "pattern"})
    assert len(answer.json()["files"]) == 1


async def test_an_upload_can_be_its_input(served: House) -> None:
    async with served.client(str(uuid.uuid4())) as client:
        token = (await client.upload(f=("f.png", picture())))["f"]
        answer = await client.http.post("/run", params=BASE64, json={"workflow": "invert", "10/image": token})
    assert len(answer.json()["files"]) == 1


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_a_client_that_goes_away_while_it_waits_interrupts_that_job_alone(
    house: House, fake: FakeComfyUI, how: str
) -> None:
    fake.script.gate = trio.Event()
    host, port = house.url.removeprefix("http://").rsplit(":", 1)
    async with house.client("c1") as client:
        await client.submit("pattern", **{"1__color": 1})
        stream = await trio.open_tcp_stream(host, int(port))
        body = b'{"workflow": "pattern"}'
        head = f"POST /run?clientId=c1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        await stream.send_all(head.encode() + body)
        with trio.fail_after(5):
            await fake.wait_for(lambda: len(fake.prompts) == 2)
        first, second = fake.prompts.values()
        if how == "rst":
            import socket
            import struct

            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await trio.aclose_forcefully(stream)
        with trio.fail_after(5):
            await fake.wait_for(lambda: second.state == "deleted")
        assert first.state == "running"
        fake.script.gate.set()
        assert len(await client.result()) == 1


async def test_what_takes_longer_than_the_wait_goes_on_and_is_fetched_later(house: House, fake: FakeComfyUI) -> None:
    fake.script.gate = trio.Event()
    async with house.client() as client:
        answer = await client.http.post("/run", params={"wait": "0.1"}, json={"workflow": "pattern"})
        assert answer.status_code == 202
        assert answer.json()["clientId"] == "c1"
        fake.script.gate.set()
        assert len(await client.result(jobId=answer.json()["job_id"])) == 1


async def test_failures_have_proper_statuses_and_reasons(house: House, fake: FakeComfyUI) -> None:
    fake.script.fail_node, fake.script.fail_message = "1", "no such colour"
    async with house.client() as client:
        failed = await client.http.post("/run", json={"workflow": "pattern"})
        unknown = await client.http.post("/run", json={"workflow": "nope"})
        wrong = await client.http.post("/run", json={"workflow": "pattern", "1/color": "red"})
        broken = await client.http.post("/run", content=b"{")
    assert (failed.status_code, failed.json()["fault"]) == (422, "workflow")
    assert "no such colour" in failed.json()["detail"]
    assert [r.status_code for r in (unknown, wrong, broken)] == [404, 422, 400]


async def test_a_stop_of_the_service_answers_and_revokes_nothing(house: House, fake: FakeComfyUI) -> None:
    fake.script.gate = trio.Event()
    statuses: list[int] = []

    async with house.client() as client:

        async def wait_for_it(path: str) -> None:
            response = await client.http.request(
                "POST" if path == "/run" else "GET", path, params={"wait": "60"}, json={"workflow": "pattern"}
            )
            statuses.append(response.status_code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_it, "/run")
            with trio.fail_after(5):
                await fake.wait_for(lambda: any(p.held_at for p in fake.prompts.values()))
            nursery.start_soon(wait_for_it, "/history")
            await client.wait_info(state="running")
            house.daemon.stop()
    with trio.fail_after(3):
        await house.ended.wait()
    assert sorted(statuses) == [202, 204]
    assert [p.state for p in fake.prompts.values()] == ["running"]
    assert fake.calls_to("POST", "/interrupt") == []
