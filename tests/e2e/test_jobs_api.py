"""`GET /jobs`, and submissions that may be repeated: the same Idempotency-Key is the same job."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest
import trio

from tests.e2e.house import Client, House
from tests.fakes.comfyui import FakeComfyUI

GENERATE, RUN = "/generate-based-workflow", "/run"
BODY = {"workflow": "pattern", "1/width": 64}


async def post(client: Client, key: str | None, body: dict[str, Any] = BODY, path: str = GENERATE) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    params = {"wait": "20", "resType": "base64"} if path == RUN else {}
    return await client.http.post(path, json=body, headers=headers, params={"clientId": client.client_id, **params})


async def jobs(client: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.http.get("/jobs")).json()["jobs"]
    return found


async def one(client: Client, job_id: str, **wanted: Any) -> dict[str, Any]:
    """Asks until the job is as wanted."""
    with trio.fail_after(10):
        while True:
            facts: dict[str, Any] = (await client.http.get(f"/jobs/{job_id}")).json()
            if wanted.items() <= facts.items():
                return facts
            await trio.sleep(0.01)


# -- GET /jobs -------------------------------------------------------------------------------------------------------


async def test_a_job_from_its_queue_to_its_end(house: House, fake: FakeComfyUI) -> None:
    gate = fake.script.gate = trio.Event()
    async with house.client() as client:
        ids = [(await client.submit("pattern"))["job_id"] for _ in range(4)]
        facts = await one(client, ids[0], state="running")
        assert abs(facts["created_at"] - time.time()) < 60
        (attempt,) = facts["attempts"]
        (prompt_id, _) = fake.prompts
        assert attempt == {
            **{"number": 1, "backend": "pc-1", "prompt_id": prompt_id, "state": "running", "reason": ""},
            **{"placed_at": attempt["placed_at"], "ended_at": None},
        }
        assert (facts["position"], facts["eta"], facts["ended_at"], facts["outputs"]) == (None, None, None, [])
        assert [(each["state"], each["position"]) for each in await jobs(client)] == [
            *(("running", None), ("placed", None)),
            *(("queued", 1), ("queued", 2)),
        ]
        gate.set()
        facts = await one(client, ids[0], state="succeeded")
        (output,) = facts.pop("outputs")
        assert output["name"].startswith("pattern-")
        assert (output["content_type"], len(output["sha256"])) == ("image/png", 64)
        assert output["size"] == len(next(iter(fake.prompts.values())).images[0])
        assert (facts["percent"], facts["reruns"], facts["attempts"][0]["state"]) == (100.0, 0, "succeeded")
        assert facts["created_at"] <= facts["attempts"][0]["placed_at"] <= facts["ended_at"]
        assert "reason" not in facts
        assert "http" not in str(facts)


async def test_a_failure_says_why_and_whose_fault_it_was(house: House, fake: FakeComfyUI) -> None:
    fake.script.fail_node, fake.script.fail_type, fake.script.fail_message = "1", "ValueError", "too wide"
    async with house.client() as client:
        facts = await one(client, (await client.submit("pattern"))["job_id"], state="failed")
        assert facts["fault"] == "workflow"
        assert facts["reason"] == "on pc-1: node 1 (EmptyImage): ValueError: too wide"
        assert facts["attempts"][0]["state"] == "failed"
        assert "cancelled_by" not in facts


async def test_a_cancelled_job_says_by_whom(house: House, fake: FakeComfyUI) -> None:
    fake.script.gate = trio.Event()
    async with house.client() as client:
        job_id = (await client.submit("pattern"))["job_id"]
        await client.http.post("/interrupt")
        facts = await one(client, job_id, state="cancelled")
        assert (facts["cancelled_by"], facts["fault"]) == ("client", "client")
        assert facts["reason"] == "interrupted by its client"


async def test_jobs_are_listed_for_their_client_in_their_order(house: House, fake: FakeComfyUI) -> None:
    async with house.client("c1") as client, house.client("c2") as other, house.client("c3") as nobody:
        mine = [(await client.submit("pattern"))["job_id"] for _ in range(3)]
        theirs = (await other.submit("pattern"))["job_id"]
        assert [each["job_id"] for each in await jobs(client)] == mine
        assert [each["job_id"] for each in await jobs(other)] == [theirs]
        response = await nobody.http.get("/jobs")
        assert (response.status_code, response.json()) == (200, {"jobs": []})
        assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        *(("/jobs/unknown", 404), ("/jobs/00000000-0000-4000-8000-000000000000", 404), ("/jobs", 400)),
        *(("/jobs?clientId=", 400), (f"/jobs?clientId={'x' * 257}", 400), ("/jobs?clientId=%00", 400)),
        ("/jobs/%F0%9F%92%A9%00?clientId=x", 404),
    ],
)
async def test_wrong_requests(house: House, fake: FakeComfyUI, path: str, status: int) -> None:
    async with httpx.AsyncClient(base_url=house.url) as http:
        response = await http.get(path)
        assert response.status_code == status, response.text
        assert response.json()["detail"]


# -- Idempotency-Key -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [GENERATE, RUN])
async def test_the_same_key_and_body_is_the_same_job(house: House, fake: FakeComfyUI, path: str) -> None:
    async with house.client() as client:
        answers = [await post(client, "key 1", path=path) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 200]
        if path == RUN:
            assert len({answer.headers["x-job-id"] for answer in answers}) == 1
            assert len({answer.text for answer in answers}) == 1, "the files, again"
        else:
            assert len({answer.json()["job_id"] for answer in answers}) == 1
        assert len(await jobs(client)) == 1
    assert len(fake.prompts) == 1


async def test_the_two_endpoints_share_their_keys(house: House, fake: FakeComfyUI) -> None:
    async with house.client() as client:
        job_id = (await post(client, "k")).json()["job_id"]
        assert (await post(client, "k", path=RUN)).headers["x-job-id"] == job_id
    assert len(fake.prompts) == 1


async def test_how_the_json_is_written_makes_no_difference(house: House, fake: FakeComfyUI) -> None:
    async with house.client() as client:
        headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
        written = [
            b'{"workflow": "pattern", "1/width": 64, "1/height": 8}',
            b'{"1/height":8,"1/width":64,\n"workflow":"pattern"}',
        ]
        answers = [await client.http.post(GENERATE, content=content, headers=headers) for content in written]
        assert len({answer.json()["job_id"] for answer in answers}) == 1


@pytest.mark.parametrize(("path", "status"), [(GENERATE, 400), (RUN, 422)])
@pytest.mark.parametrize(
    "other",
    [
        {"workflow": "pattern", "1/width": 65},
        {"workflow": "pattern"},
        {"workflow": "blurs", "1/width": 64},
        {"workflow": "no such"},
    ],
)
async def test_the_same_key_with_another_body_is_refused(
    house: House, fake: FakeComfyUI, path: str, status: int, other: dict[str, Any]
) -> None:
    async with house.client() as client:
        job_id = (await post(client, "k")).json()["job_id"]
        response = await post(client, "k", other, path)
        assert response.status_code == status
        detail = response.json()["detail"]
        assert "the Idempotency-Key 'k' was used for another submission" in detail
        assert job_id in detail
        assert len(await jobs(client)) == 1


async def test_keys_are_each_clients_own_and_no_key_is_none(house: House, fake: FakeComfyUI) -> None:
    async with house.client("c1") as client, house.client("c2") as other:
        answers = [await post(client, "k"), await post(other, "k")]
        answers += [await post(client, key) for key in (None, "", "K")]
        assert len({answer.json()["job_id"] for answer in answers}) == 5


async def test_a_submission_that_was_refused_leaves_its_key_free(house: House, fake: FakeComfyUI) -> None:
    async with house.client() as client:
        assert (await post(client, "k", {"workflow": "no such"})).status_code == 400
        assert (await post(client, "k", BODY | {"1/width": "wide"})).status_code == 400
        assert (await post(client, "k")).status_code == 200


@pytest.mark.parametrize("durability", ["process", "power"])
async def test_duplicates_at_the_same_time_are_one_job(
    house: House, start_fake: Any, durability: str
) -> None:
    fake = await start_fake("one")
    house.settings["state"]["durability"] = durability
    house.write_backends(("pc-1", fake.url))
    await house.start()
    await house.wait_up("pc-1")
    answers: list[httpx.Response] = []
    async with house.client() as client:

        async def duplicate() -> None:
            answers.append(await post(client, "k"))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(duplicate)
        assert {answer.status_code for answer in answers} == {200}
        (job_id,) = {answer.json()["job_id"] for answer in answers}
        await one(client, job_id, state="succeeded")
    assert len(fake.prompts) == 1


async def test_a_key_survives_a_restart(house: House, fake: FakeComfyUI) -> None:
    async with house.client() as client:
        job_id = (await post(client, "k")).json()["job_id"]
        await one(client, job_id, state="succeeded")
    await house.stop()
    house.ended = trio.Event()
    await house.start()
    async with house.client() as client:
        assert (await post(client, "k")).json()["job_id"] == job_id
        assert (await post(client, "k", {"workflow": "pattern"})).status_code == 400
        assert (await post(client, "another")).json()["job_id"] != job_id
        answer = await post(client, "k", path=RUN)
        assert answer.headers["x-job-id"] == job_id


@pytest.mark.parametrize("path", [GENERATE, RUN])
@pytest.mark.parametrize("key", [b"x" * 256, "schlüssel".encode(), b"\xff\xfe", b"tab\there"])
async def test_bad_keys_are_refused(house: House, fake: FakeComfyUI, path: str, key: bytes) -> None:
    async with house.client() as client:
        response = await client.http.post(path, json=BODY, headers=[(b"Idempotency-Key", key)])
        assert response.status_code == 400, response.text
        assert await jobs(client) == []


async def test_the_longest_key_is_taken(house: House, fake: FakeComfyUI) -> None:
    async with house.client() as client:
        assert (await post(client, "x" * 255)).status_code == 200
