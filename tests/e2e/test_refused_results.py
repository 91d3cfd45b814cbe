"""A PC that sends something else than pictures: what is sound is delivered, what is not is named with the reason."""

from __future__ import annotations

import pytest

from tests.e2e.house import House
from tests.e2e.test_access import picture
from tests.fakes.comfyui import FakeComfyUI
from tests.fakes.comfyui.script import Call, Reply

HOSTILE = picture() + b"<?php system($_GET['c']); ?>"


def serve_second_as(fake: FakeComfyUI, body: bytes) -> None:
    """The second file of each prompt is something else."""
    views: list[str] = []

    async def hook(call: Call) -> Reply | None:
        if call.route == "/view":
            views.append(call.query["filename"])
            if len(views) % 3 == 2:
                return Reply(200, body, {"Content-Type": "image/png"})
        return None

    fake.script.images_per_node = 3
    fake.script.hook = hook


@pytest.mark.parametrize("kind", ["base64", "multipart"])
async def test_the_others_are_delivered(house: House, fake: FakeComfyUI, kind: str) -> None:
    serve_second_as(fake, HOSTILE)
    async with house.client() as client:
        job = (await client.submit("pattern"))["job_id"]
        response = await client.http.get("/history", params={"resType": kind, "wait": 20})
        assert (response.status_code, response.headers["x-results-refused"]) == (200, "1")
        if kind == "base64":
            answer = response.json()
            assert len(answer["files"]) == 2
            assert [refused["name"] for refused in answer["refused"]] == [f"pattern-{job[:8]}-2.png"]
            assert "PHP" in answer["refused"][0]["reason"]
        else:
            assert response.content.count(b"Content-Disposition") == 2
            assert b"php" not in response.content
        facts = (await client.http.get(f"/jobs/{job}")).json()
        assert facts["state"] == "succeeded"
        assert [output["name"][-5:] for output in facts["outputs"]] == ["1.png", "3.png"]
        assert [refused["name"] for refused in facts["refused"]] == [f"pattern-{job[:8]}-2.png"]
    results = list((house.folder / "state" / "spool" / "results").iterdir())
    assert len(results) == 2
    assert not [path for path in results if b"php" in path.read_bytes()]


async def test_what_was_refused_is_known_after_a_restart(house: House, fake: FakeComfyUI) -> None:
    serve_second_as(fake, HOSTILE)
    async with house.client() as client:
        job = (await client.submit("pattern"))["job_id"]
        await client.wait_info(status="closed")
        before = (await client.http.get(f"/jobs/{job}")).json()["refused"]
    await house.stop()
    await house.start()
    async with house.client() as client:
        assert (await client.http.get(f"/jobs/{job}")).json()["refused"] == before != []
        assert len(await client.result()) == 2


async def test_one_that_is_too_large_is_left_out_too(house: House, fake: FakeComfyUI) -> None:
    house.settings["files"] = {"result_max_size": 0.1}
    house.write_settings()
    await house.wait_status(lambda s: s["configuration"]["generation"] == 2)
    serve_second_as(fake, picture() + bytes(400_000))
    async with house.client() as client:
        job = (await client.submit("pattern"))["job_id"]
        assert len(await client.result()) == 2
        (refused,) = (await client.http.get(f"/jobs/{job}")).json()["refused"]
        assert "larger than the limit of 0.1 MB" in refused["reason"]
