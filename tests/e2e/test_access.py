"""Keys through the whole daemon: who is let in, and that one caller's things are never another's."""

from __future__ import annotations

import io

import httpx
import pytest
import trio
from PIL import Image

from bridged.errors import ConfigError
from tests.conftest import StartFake
from tests.e2e.house import Client, House
from tests.fakes.comfyui import FakeComfyUI


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    return file.getvalue()


async def let_in(client: Client) -> int:
    return (await client.http.get("/workflow-list")).status_code


async def upgraded(client: Client, **query: str) -> int:
    """The status that an attempt to open a WebSocket is answered with."""
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    async with client.http.stream(
        "GET", "/ws", params=query, headers={**headers, "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    ) as response:
        return response.status_code


async def wait_let_in(client: Client, status: int) -> None:
    with trio.fail_after(5):
        while await let_in(client) != status:
            await trio.sleep(0.01)


async def wait_for_keys(house: House) -> None:
    async with house.client() as nobody:
        await wait_let_in(nobody, 401)


@pytest.fixture
async def keyed(house: House, start_fake: StartFake) -> House:
    """A daemon that knows anna and ben."""
    fake = await start_fake("one")
    house.write_backends(("pc-1", fake.url))
    house.write_clients("anna", "ben", ben='aliases = ["pattern"]')
    await house.start()
    await house.wait_up("pc-1")
    return house


async def test_every_endpoint_needs_a_key_once_there_is_one(keyed: House) -> None:
    paths = ["/", "/workflow-list", "/workflow-info?workflow=pattern", "/execution-info", "/history", "/jobs"]
    paths += ["/status", "/generation-count", "/openapi.json", "/nowhere", "/jobs/1"]
    async with keyed.client() as nobody, keyed.client(key="wrong") as wrong:
        for client in (nobody, wrong):
            for path in paths:
                response = await client.http.get(path)
                assert response.status_code == 401, path
                assert response.headers["www-authenticate"] == "Bearer"
                assert "key" in response.json()["detail"]
            for path in ("/upload", "/generate-based-workflow", "/run", "/free", "/interrupt"):
                assert (await client.http.post(path, content=b"x" * 100)).status_code == 401, path
            assert await upgraded(client) == 401


async def test_a_key_works_over_rest_and_both_ways_on_a_websocket(keyed: House) -> None:
    async with keyed.client(key="key-of-anna") as anna:
        async with anna.socket() as socket:
            await anna.submit("pattern")
            await socket.until("closed")
        assert len(await anna.result()) == 1
    async with keyed.client() as browser, browser.socket("clientId=c1&key=key-of-anna") as socket:
        assert (await socket.receive())["detail"] == "connected / c1"


async def test_one_client_has_nothing_of_another(keyed: House) -> None:
    """Under the very same clientId."""
    async with keyed.client("same", "key-of-anna") as anna, keyed.client("same", "key-of-ben") as ben:
        token = (await anna.upload(f=("a.png", picture())))["f"]
        job = (await anna.submit("pattern"))["job_id"]
        await anna.wait_info(status="closed")

        assert await ben.info() is None
        assert await ben.result(wait=0) == []
        assert await ben.result(wait=0, jobId=job) == []
        assert (await ben.http.get(f"/jobs/{job}")).status_code == 404
        assert (await ben.http.get("/jobs")).json() == {"jobs": []}
        async with keyed.client("same", "key-of-tester") as other:
            body = {"workflow": "invert", "10/image": token}
            refused = await other.http.post("/generate-based-workflow", json=body)
        assert (refused.status_code, "unknown or expired" in refused.json()["detail"]) == (400, True)

        facts = (await anna.http.get(f"/jobs/{job}")).json()
        assert (facts["clientId"], facts["state"]) == ("same", "succeeded")
        assert len(await anna.result()) == 1


async def test_one_client_cannot_interrupt_or_take_over_another(keyed: House, start_fake: StartFake) -> None:
    async with keyed.client("same", "key-of-anna") as anna, keyed.client("same", "key-of-ben") as ben:
        async with anna.socket() as socket:
            first = await socket.receive()
            await anna.submit("blurs")
            await ben.http.post("/interrupt")
            await ben.http.post("/free")
            async with ben.socket() as other:
                await other.receive()
            stolen = await ben.http.get("/jobs")
            assert stolen.json() == {"jobs": []}
            assert await upgraded(ben, resume=first["resume"]) == 400
            await socket.until("closed")
        assert [job["state"] for job in (await anna.http.get("/jobs")).json()["jobs"]] == ["succeeded"]


async def test_scopes_and_aliases(keyed: House) -> None:
    async with keyed.client(key="key-of-ben") as ben, keyed.client(key="key-of-tester") as tester:
        assert (await ben.http.get("/status")).status_code == 403
        assert (await ben.http.post("/free", params={"clientId": ""})).status_code == 400
        async with httpx.AsyncClient(headers={"Authorization": "Bearer key-of-ben"}) as no_client_id:
            assert (await no_client_id.post(f"{keyed.url}/free")).status_code == 403
        assert [w["alias"] for w in (await ben.http.get("/workflow-list")).json()] == ["pattern"]
        for path in ("/generate-based-workflow", "/run"):
            refused = await ben.http.post(path, json={"workflow": "invert"})
            assert (refused.status_code, "may not run 'invert'" in refused.json()["detail"]) == (403, True)
        assert (await ben.http.get("/workflow-info", params={"workflow": "invert"})).status_code == 403
        assert (await tester.http.get("/status")).status_code == 200
        job = (await ben.submit("pattern"))["job_id"]
        assert (await tester.http.get(f"/jobs/{job}")).status_code == 200  # an operator sees every job


async def test_limits_of_a_key(house: House, fake: FakeComfyUI) -> None:
    fake.script.gate = trio.Event()
    house.write_clients("anna", "ben", anna="max_jobs = 2", ben="rate = 1\nburst = 2")
    async with house.client(key="key-of-anna") as anna, house.client(key="key-of-ben") as ben:
        await wait_for_keys(house)
        for _ in range(2):
            await anna.submit("pattern")
        refused = await anna.http.post("/generate-based-workflow", json={"workflow": "pattern"})
        assert (refused.status_code, "2 open jobs" in refused.json()["detail"]) == (429, True)
        assert int(refused.headers["retry-after"]) > 0
        for _ in range(2):
            await ben.submit("pattern")
        refused = await ben.http.post("/generate-based-workflow", json={"workflow": "pattern"})
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
        await anna.http.post("/interrupt")
        await anna.submit("pattern")


async def test_owners_take_turns(house: House, fake: FakeComfyUI) -> None:
    gate = fake.script.gate = trio.Event()
    house.write_clients("anna", "ben", ben="weight = 2")
    async with house.client(key="key-of-anna") as anna, house.client(key="key-of-ben") as ben:
        await wait_for_keys(house)
        names: dict[str, str] = {}
        for client, count, name in ((anna, 8, "a"), (ben, 6, "b")):
            for _ in range(count):
                names[(await client.submit("pattern"))["job_id"]] = name
        order = [names[record.job.id] for record in house.daemon.dispatcher._queue]
        assert order == ["b", "b", "a", "b", "b", "a", "b", "b", "a", "a", "a", "a"]
        gate.set()


async def test_keys_come_and_go_while_the_service_runs(house: House, fake: FakeComfyUI) -> None:
    fake.script.gate = trio.Event()
    async with house.client() as nobody, house.client(key="key-of-anna") as anna:
        assert await let_in(nobody) == 200
        async with nobody.socket() as open_socket:
            house.write_clients("anna")
            await wait_let_in(nobody, 401)
            assert await open_socket.until_closed() == (1008, "the API key of this connection is not valid any more")
        async with anna.socket() as socket:
            job = (await anna.submit("pattern"))["job_id"]
            house.write_clients("ben")
            assert (await socket.until_closed())[0] == 1008
        assert await let_in(anna) == 401
        async with house.client(key=house.admin_key) as operator:
            with trio.fail_after(5):
                while (facts := (await operator.http.get(f"/jobs/{job}")).json())["state"] != "cancelled":
                    await trio.sleep(0.01)
        assert facts["reason"] == "its API key was withdrawn"


async def test_a_broken_clients_file_lets_nobody_else_in(house: House, fake: FakeComfyUI) -> None:
    house.write_clients("anna")
    async with house.client() as nobody, house.client(key="key-of-anna") as anna:
        await wait_let_in(nobody, 401)
        (house.etc / "clients.toml").write_text("[[client]\nname = ")
        facts = await house.wait_status(lambda s: s["configuration"]["errors"] != [])
        assert "clients.toml" in facts["configuration"]["errors"][0]
        assert (await let_in(nobody), await let_in(anna)) == (401, 200)


async def test_a_broken_clients_file_at_the_start_is_no_open_door(house: House) -> None:
    (house.etc / "clients.toml").write_text("[[client]\nname = \"x\"\n")
    with pytest.raises(ConfigError, match=r"clients\.toml"):
        await house.start()


async def test_serving_others_without_a_key_is_refused_at_the_start(house: House) -> None:
    house.settings["server"]["host"] = "0.0.0.0"
    with pytest.raises(ConfigError, match="bridged key new NAME"):
        await house.start()


async def test_a_proxy_in_front_of_an_open_loopback_opens_nothing(served: House) -> None:
    async with served.client() as client:
        for headers in ({"X-Forwarded-For": "127.0.0.1"}, {"Host": "bridged.example.org"}, {"Via": "1.1 x"}):
            refused = await client.http.get("/workflow-list", headers=headers)
            assert (refused.status_code, "no API keys yet" in refused.json()["detail"]) == (401, True)


async def test_pages_of_other_sites(house: House, start_fake: StartFake) -> None:
    house.settings["access"] = {"cors": ["https://app.example.org"]}
    house.write_backends()
    house.write_clients("anna")
    await house.start()
    listed, other = {"Origin": "https://app.example.org"}, {"Origin": "https://evil.example.com"}
    async with house.client(key="key-of-anna") as anna, house.client() as nobody:
        ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        preflight = await nobody.http.options("/generate-based-workflow", headers={**listed, **ask})
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == listed["Origin"]
        assert "Authorization" in preflight.headers["access-control-allow-headers"]
        answer = await anna.http.get("/workflow-list", headers=listed)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, listed["Origin"])
        refused = await nobody.http.get("/workflow-list", headers=listed)
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, listed["Origin"])
        for method, extra in (("OPTIONS", ask), ("GET", {}), ("POST", {})):
            refused = await anna.http.request(method, "/interrupt", headers={**other, **extra})
            assert refused.status_code == 403
            assert "access-control-allow-origin" not in refused.headers


async def test_every_answer_says_that_it_is_what_it_says(served: House) -> None:
    async with served.client() as client:
        await client.submit("pattern")
        await client.wait_info(status="closed")
        result = await client.http.get("/history")
        assert result.headers["content-disposition"].startswith("attachment")
        for response in (result, await client.http.get("/"), await client.http.get("/nowhere")):
            assert response.headers["x-content-type-options"] == "nosniff"
            assert "default-src 'none'" in response.headers["content-security-policy"]
            assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("how", ["gone", "empty"])
async def test_a_clients_file_that_is_gone_opens_nothing(house: House, fake: FakeComfyUI, how: str) -> None:
    """An editor's save half-way, or a tool that deletes and writes."""
    house.write_clients("anna")
    await wait_for_keys(house)
    path = house.etc / "clients.toml"
    if how == "gone":
        path.unlink()
    else:
        path.write_text("")
    facts = await house.wait_status(lambda s: s["configuration"]["errors"] != [])
    assert "gone or empty" in facts["configuration"]["errors"][0]
    async with house.client() as nobody, house.client(key="key-of-anna") as anna:
        assert (await let_in(nobody), await let_in(anna)) == (401, 200)


async def test_jobs_of_a_key_that_was_withdrawn_while_the_service_was_down_do_not_run(
    house: House, fake: FakeComfyUI
) -> None:
    fake.script.gate = trio.Event()
    house.write_clients("anna")
    await wait_for_keys(house)
    async with house.client(key="key-of-anna") as anna:
        jobs = [(await anna.submit("pattern"))["job_id"] for _ in range(4)]
    await house.stop()
    house.write_clients("ben")
    await house.start()
    async with house.client(key=house.admin_key) as operator:
        with trio.fail_after(5):
            for job in jobs:
                while (await operator.http.get(f"/jobs/{job}")).json()["state"] != "cancelled":
                    await trio.sleep(0.01)


async def test_a_submission_that_arrives_while_its_key_is_withdrawn_is_none(
    house: House, fake: FakeComfyUI
) -> None:
    house.write_clients("anna")
    await wait_for_keys(house)
    host, port = house.url.removeprefix("http://").rsplit(":", 1)
    body = b'{"workflow": "pattern"}'
    head = (
        "POST /generate-based-workflow?clientId=c HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer key-of-anna\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    async with await trio.open_tcp_stream(host, int(port)) as stream, house.client(key="key-of-anna") as anna:
        await stream.send_all(head.encode() + body[:5])
        assert await let_in(anna) == 200
        house.write_clients("ben")
        await wait_let_in(anna, 401)
        await stream.send_all(body[5:])
        assert b" 401 " in await stream.receive_some()
    assert (await house.status())["jobs"] == {}
