"""Webhooks through the whole daemon: from a submission to a receiver that checks signatures, whatever dies between."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from bridged.actors import webhooks
from tests.conftest import StartFake
from tests.e2e.house import House
from tests.fakes.comfyui import FakeComfyUI
from tests.fakes.receiver import Receiver

ROOT = Path(__file__).parents[2]
SECRET = "a secret of the test"


@pytest.fixture
async def receiver(nursery: trio.Nursery) -> Receiver:
    receiver = Receiver()
    await nursery.start(receiver.serve)
    return receiver


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(webhooks.Webhooks.__init__.__kwdefaults__, "first", 0.05)  # type: ignore[arg-type]


@pytest.fixture
def allowing(house: House) -> House:
    """Its daemon, once it starts, may call receivers on this machine."""
    house.settings["webhooks"] = {"hosts": ["127.0.0.1"], "private": ["127.0.0.0/8"], "secret": SECRET}
    return house


@pytest.fixture
async def running(allowing: House, fake: FakeComfyUI) -> House:
    return allowing


async def submit(house: House, webhook: Any, path: str = "/generate-based-workflow", **more: Any) -> httpx.Response:
    body = {"workflow": "pattern", "1/color": 5, "webhook": webhook}
    async with httpx.AsyncClient(base_url=house.url, timeout=30, params={"clientId": "c1"}) as http:
        return await http.post(path, json=body, **more)


async def test_a_success_is_told_with_its_outputs(running: House, receiver: Receiver) -> None:
    answer = await submit(running, f"{receiver.url}/hook?for=me")
    assert answer.status_code == 200
    (call,) = await receiver.wait_calls(1)
    assert call.target == "/hook?for=me"
    assert call.is_signed(SECRET.encode())
    async with running.client() as client:
        (file,) = await client.result()
        (job,) = (await client.http.get("/jobs")).json()["jobs"]
    told = call.told
    content = base64.b64decode(file["content"])
    assert [{**output, "available": True} for output in told["outputs"]] == job["outputs"]
    assert told["outputs"][0]["sha256"] == hashlib.sha256(content).hexdigest()
    assert told["outputs"][0]["size"] == len(content)
    assert told["job_id"] == answer.json()["job_id"] == job["job_id"]
    assert (told["clientId"], told["workflow"], told["state"]) == ("c1", "pattern", "succeeded")
    assert (told["reason"], told["fault"]) == (None, None)
    assert (told["created_at"], told["ended_at"]) == (job["created_at"], job["ended_at"])
    assert told["delivery_id"] == call.id


async def test_a_failure_and_a_cancellation_are_told_with_the_reason(
    running: House, fake: FakeComfyUI, receiver: Receiver
) -> None:
    fake.script.fail_node = "1"
    await submit(running, receiver.url)
    (failed,) = await receiver.wait_calls(1)
    assert (failed.told["state"], failed.told["fault"], failed.told["outputs"]) == ("failed", "workflow", [])
    assert "the fake was told to fail" in failed.told["reason"]
    fake.script.fail_node, fake.script.gate = None, trio.Event()
    await submit(running, receiver.url)
    async with running.client() as client:
        await client.http.post("/interrupt")
    cancelled = (await receiver.wait_calls(2))[1].told
    assert (cancelled["state"], cancelled["fault"]) == ("cancelled", "client")
    assert cancelled["reason"] == "interrupted by its client"


async def test_run_may_have_one_too(running: House, receiver: Receiver) -> None:
    answer = await submit(running, receiver.url, "/run")
    assert answer.status_code == 200
    (call,) = await receiver.wait_calls(1)
    assert call.told["state"] == "succeeded"


@pytest.mark.parametrize(
    ("webhook", "what"),
    [
        ("https://elsewhere.example/", "the host 'elsewhere.example' is not allowed"),
        ("http://user@127.0.0.1/", "no user name"),
        ("file:///etc/passwd", "must start with https://"),
        (f"http://127.0.0.1/{'x' * 2048}", "at most 2048"),
        (7, "`webhook` must be the URL"),
    ],
)
async def test_what_cannot_be_a_webhook_is_refused_and_nothing_is_queued(
    running: House, webhook: Any, what: str
) -> None:
    for path, status in (("/generate-based-workflow", 400), ("/run", 422 if isinstance(webhook, str) else 400)):
        answer = await submit(running, webhook, path)
        assert (answer.status_code, what in answer.json()["detail"]) == (status, True), answer.text
    assert (await running.status())["jobs"] == {}


async def test_with_no_hosts_configured_the_refusal_says_what_to_do(house: House, fake: FakeComfyUI) -> None:
    answer = await submit(house, "https://example.org/")
    assert answer.status_code == 400
    assert "[webhooks] hosts" in answer.json()["detail"]
    assert (await house.status())["jobs"] == {}


async def test_an_idempotency_key_calls_once(running: House, receiver: Receiver) -> None:
    headers = {"Idempotency-Key": "k"}
    first = await submit(running, receiver.url, headers=headers)
    (call,) = await receiver.wait_calls(1)
    again = await submit(running, receiver.url, headers=headers)
    other = await submit(running, f"{receiver.url}/other", headers=headers)
    assert first.json()["job_id"] == again.json()["job_id"] == call.told["job_id"]
    assert other.status_code == 400
    await submit(running, receiver.url)
    assert len({call.told["job_id"] for call in await receiver.wait_calls(2)}) == 2


async def test_a_receiver_that_fails_is_told_after_a_restart(running: House, receiver: Receiver) -> None:
    receiver.answers += [500, 503, "hang"]
    await submit(running, receiver.url)
    await receiver.wait_calls(3)
    await running.stop()
    running.ended = trio.Event()
    await running.start()
    calls = await receiver.wait_calls(4)
    assert len({call.id for call in calls}) == len({call.body for call in calls}) == 1
    assert all(call.is_signed(SECRET.encode()) for call in calls)
    await submit(running, receiver.url)  # and that was the last of it
    assert (await receiver.wait_calls(5))[4].id != calls[0].id


async def test_hosts_can_be_allowed_while_it_runs_and_the_made_key_signs(
    house: House, fake: FakeComfyUI, receiver: Receiver
) -> None:
    key = house.folder / "state" / "webhook-secret"
    house.settings["webhooks"] = {"hosts": ["127.0.0.1"], "private": ["127.0.0.0/8"]}
    house.write_settings()
    with trio.fail_after(5):
        while (await submit(house, receiver.url)).status_code != 200:
            await trio.sleep(0.01)
    (call,) = await receiver.wait_calls(1)
    assert key.stat().st_mode & 0o777 == 0o600
    assert call.is_signed(key.read_bytes().strip())


# -- a process that is killed ----------------------------------------------------------------------------------------


@asynccontextmanager
async def killable(house: House) -> AsyncIterator[trio.Process]:
    """`bridged serve` on the house's folder in a process of its own, killed at the end."""
    house.write_settings()
    kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "bridged", "serve", "--config", str(house.etc)],
        env=kept | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    log = b""
    try:
        with trio.fail_after(20):
            while b"listens on http" not in log or not log.endswith(b"\n"):
                log += await process.stderr.receive_some()
        house.url = log.split(b"listens on ")[1].split()[0].decode()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_drain, process)
            yield process
            nursery.cancel_scope.cancel()
    finally:
        if process.returncode is None:
            process.kill()
        with trio.move_on_after(5, shield=True):
            await process.wait()
        await process.stderr.aclose()


async def _drain(process: trio.Process) -> None:
    assert process.stderr is not None
    while await process.stderr.receive_some():
        pass


async def test_a_daemon_killed_while_a_receiver_thinks_tells_it_again(
    allowing: House, start_fake: StartFake, receiver: Receiver
) -> None:
    allowing.write_backends(("pc-1", (await start_fake("one")).url))
    receiver.answers.append("hang")
    async with killable(allowing) as process:
        await allowing.wait_up("pc-1")
        await submit(allowing, receiver.url)
        await receiver.wait_calls(1)
        process.send_signal(signal.SIGKILL)
        await process.wait()
    async with killable(allowing):
        first, second = await receiver.wait_calls(2)
    assert (first.id, first.body) == (second.id, second.body)
    assert second.is_signed(SECRET.encode())


async def test_a_daemon_killed_between_the_end_and_the_delivery_still_delivers(
    allowing: House, start_fake: StartFake, receiver: Receiver
) -> None:
    allowing.write_backends(("pc-1", (await start_fake("one")).url))
    allowing.settings["webhooks"]["private"] = []  # it cannot call yet …
    allowing.settings["webhooks"]["hosts"] = ["localhost"]
    webhook = f"http://localhost:{receiver.port}/"
    async with killable(allowing) as process:
        await allowing.wait_up("pc-1")
        job_id = (await submit(allowing, webhook)).json()["job_id"]
        async with allowing.client() as client:
            await client.result()
        process.send_signal(signal.SIGKILL)
        await process.wait()
    assert receiver.connections == 0
    allowing.settings["webhooks"]["private"] = ["127.0.0.0/8", "::1"]  # … and now it may
    async with killable(allowing):
        (call,) = await receiver.wait_calls(1)
    assert (call.told["job_id"], call.told["state"]) == (job_id, "succeeded")
    assert call.headers["host"] == f"localhost:{receiver.port}"
    assert json.loads(call.body)["delivery_id"] == call.id
