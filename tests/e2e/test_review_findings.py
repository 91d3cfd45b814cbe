"""What a review found: each of these once went wrong."""

from __future__ import annotations

import gc
import gzip
import io
import json
import os
import shutil
import threading
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trio.testing
import watchfiles
from PIL import Image

from bridged.actors import reloader
from bridged.actors.intake import Intake
from bridged.actors.reloader import Loaded, load_all
from bridged.files import spool
from bridged.files.verify import verify
from tests.conftest import StartFake
from tests.e2e.house import PATTERN, House
from tests.fakes.comfyui import FakeComfyUI, Reply
from tests.fakes.comfyui.routes import get_view
from tests.fakes.comfyui.script import Call


async def _running_and_prefetched(house: House, fake: FakeComfyUI, client: Any) -> None:
    for color in range(2):
        await client.submit("pattern", **{"1__color": color})
    with trio.fail_after(5):
        await fake.wait_for(lambda: len(fake.prompts) == 2 and any(p.held_at for p in fake.prompts.values()))


async def test_a_job_taken_back_for_the_owner_stays_away_while_the_owner_waits(house: House, fake: FakeComfyUI) -> None:
    fake.script.gate = trio.Event()
    async with house.client() as client:
        await _running_and_prefetched(house, fake, client)
        fake.submit_foreign(gate=(owner := trio.Event()))
        with trio.fail_after(5):
            states = ["deleted", "queued", "running"]
            await fake.wait_for(lambda: sorted(p.state for p in fake.prompts.values()) == states)
        for _ in range(100):  # each answer is a turn of the daemon's loop: time enough to place it again
            await house.status()
        assert len(fake.calls_to("POST", "/prompt")) == 2
        owner.set()
        fake.script.gate.set()
        assert [len(await client.result()) for _ in range(2)] == [1, 1]


@pytest.mark.parametrize("url", ["http://192.168.0.300:8188", "http://ö..:8188"])
async def test_a_typo_in_an_address_does_not_end_the_daemon(house: House, fake: FakeComfyUI, url: str) -> None:
    house.write_backends(("pc-1", fake.url), ("pc-2", url))
    await house.wait_status(lambda s: "backend[1].url: this is no address" in str(s["configuration"]["errors"]))


async def test_a_folder_that_is_swapped_does_not_end_the_daemon(house: House, fake: FakeComfyUI) -> None:
    new = house.folder / "etc.new"
    shutil.copytree(house.etc, new)
    os.rename(house.etc, house.folder / "etc.old")
    await house.wait_status(lambda s: "no such folder" in str(s["configuration"]["errors"]))
    os.rename(new, house.etc)
    await house.wait_status(lambda s: not s["configuration"]["errors"])
    house.write_workflow("later", PATTERN)
    await house.wait_status(lambda s: any(w["alias"] == "later" for w in s["workflows"]))


@pytest.mark.parametrize("text", ['[workflows]\ndir = "~nosuchuser/x"\n', '[workflows]\naliases = "a\\u0000"\n'])
async def test_a_setting_that_is_no_path_does_not_end_the_daemon(house: House, fake: FakeComfyUI, text: str) -> None:
    (house.etc / "bridged.toml").write_text(text)
    await house.wait_status(lambda s: "this is no path" in str(s["configuration"]["errors"]))


async def test_a_success_that_was_not_heard_is_found_although_the_end_was(house: House, fake: FakeComfyUI) -> None:
    fake.script.event_filter = lambda kind, data: kind != "execution_success"
    async with house.client() as client:
        await client.submit("pattern")
        assert len(await client.result(wait=5)) == 1


async def test_a_broken_spool_ends_jobs_and_not_the_actor(
    house: House, fake: FakeComfyUI, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bridged.actors import pool

    monkeypatch.setattr(pool, "COOL_DOWN", 0.1)
    shutil.rmtree(house.folder / "state" / "spool" / "results")
    async with house.client() as client:
        await client.submit("pattern")
        await client.wait_info(state="failed")


async def test_a_network_that_blinks_during_the_download_loses_no_finished_job(house: House, fake: FakeComfyUI) -> None:
    gate = trio.Event()
    fake.script.view_gate = gate
    async with house.client() as client:
        await client.submit("pattern")
        with trio.fail_after(5):
            await fake.wait_for(lambda: bool(fake.calls_to("GET", "/view")))
        fake.stop_listening()
        fake.drop_connections(reset=True)
        gate.set()
        await house.wait_status(lambda s: s["backends"][0]["state"] == "down")
        await fake.start_listening()
        await house.wait_up("pc-1")
        assert len(await client.result()) == 1, await client.info()
    assert len(fake.prompts) == 1


async def test_a_network_that_blinks_during_an_upload_fails_no_job(house: House, fake: FakeComfyUI) -> None:
    from tests.e2e.test_bridge_api import picture

    fake.script.upload_gate = (gate := trio.Event())
    async with house.client() as client:
        tokens = await client.upload(f=("a.png", picture((1, 2, 3))))
        await client.submit("invert", **{"10__image": tokens["f"]})
        with trio.fail_after(5):
            await fake.wait_for(lambda: bool(fake.calls_to("POST", "/upload/image")))
        fake.stop_listening()
        fake.drop_connections(reset=True)
        gate.set()
        await house.wait_status(lambda s: s["backends"][0]["state"] == "down")
        await fake.start_listening()
        assert len(await client.result()) == 1, await client.info()


async def test_a_body_that_is_no_utf8_is_the_clients_fault(served: House) -> None:
    async with served.client() as client:
        answer = await client.http.post("/generate-based-workflow", content=b'{"workflow": "\xff\xfe"}')
        assert answer.status_code == 400


async def test_a_head_request_takes_no_result_away(house: House, fake: FakeComfyUI) -> None:
    async with house.client() as client:
        await client.submit("pattern")
        await client.wait_info(state="succeeded")
        await client.http.head("/history")
        assert len(await client.result(wait=0)) == 1


async def test_status_says_no_address_not_even_a_wrong_one(house: House, fake: FakeComfyUI) -> None:
    house.write_backends(("pc-1", fake.url), ("pc-2", "192.168.77.20:8188"))
    status = await house.wait_status(lambda s: bool(s["configuration"]["errors"]))
    assert "192.168.77.20" not in str(status)


async def test_a_late_prompt_that_was_given_up_is_stopped(house: House, start_fake: StartFake) -> None:
    """The proxy in front of a PC cuts the connection, and hands the prompt on a little later."""
    one, other = await start_fake("one"), await start_fake("two")
    late: list[Call] = []

    async def hook(call: Call) -> Reply | None:
        if call.route == "/prompt" and call.method == "POST" and not late:
            late.append(call)
            return Reply(fate="reset")
        return None

    one.script.hook = hook
    house.write_backends(("pc-1", one.url))
    await house.start()
    await house.wait_up("pc-1")
    async with house.client() as client:
        await client.submit("pattern")
        with trio.fail_after(5):
            await one.wait_for(lambda: bool(late))
        house.write_backends(("pc-1", one.url), ("pc-2", other.url))
        await house.wait_up("pc-1", "pc-2")
        assert len(await client.result()) == 1
        one.script.gate = trio.Event()
        async with httpx.AsyncClient() as http:
            await http.post(f"{one.url}/prompt", json=late[0].json)
        with trio.move_on_after(8):
            await one.wait_for(lambda: all(p.state == "interrupted" for p in one.prompts.values()))
        assert [p.state for p in one.prompts.values()] == ["interrupted"]


async def test_definitions_that_are_no_text_make_a_pc_down_and_not_crashed(
    house: House, start_fake: StartFake, caplog: pytest.LogCaptureFixture
) -> None:
    fake = await start_fake("one")

    async def hook(call: Call) -> Reply | None:
        return Reply(body=b'{"\xff": {}}') if call.route == "/object_info" else None

    fake.script.hook = hook
    house.write_backends(("pc-1", fake.url))
    await house.start()
    status = await house.wait_status(lambda s: "node definitions" in s["backends"][0]["reason"])
    assert status["backends"][0]["state"] == "down"


async def test_an_address_that_changes_under_a_running_job_fails_no_waiting_one(
    house: House, start_fake: StartFake
) -> None:
    one, other = await start_fake("one"), await start_fake("two")
    moved = await start_fake("moved")
    del other.classes["EmptyImage"]
    one.script.gate = trio.Event()
    house.write_backends(("pc-1", one.url), ("pc-2", other.url))
    await house.start()
    await house.wait_up("pc-1", "pc-2")
    async with house.client() as client:
        for color in range(3):
            await client.submit("pattern", **{"1__color": color})
        await client.wait_info(status="progress")
        with trio.fail_after(5):
            await one.wait_for(lambda: any(p.held_at for p in one.prompts.values()))
        house.write_backends(("pc-1", moved.url), ("pc-2", other.url))
        await house.wait_status(lambda s: s["backends"][0]["state"] == "draining")
        other.drop_websockets()
        with trio.fail_after(5):
            await other.wait_for(lambda: len(other.calls_to("GET", "/object_info")) == 2)
        await house.wait_up("pc-2")
        assert "failed" not in (await house.status())["jobs"]
        await client.submit("pattern", **{"1__color": 9})
        one.script.gate.set()
        assert [len(await client.result()) for _ in range(4)] == [1] * 4


async def test_an_alias_may_be_as_long_as_the_configuration_allows(house: House, fake: FakeComfyUI) -> None:
    alias = "그림" * 60
    entry = {"alias": alias, "fn": "pattern.json", "description": ""}
    (house.etc / "workflow_alias.json").write_text(json.dumps([entry]))
    await house.wait_status(lambda s: any(w["alias"] == alias for w in s["workflows"]))
    async with house.client() as client:
        await client.submit(alias)
        assert len(await client.result()) == 1, await client.info()


async def test_ended_jobs_do_not_keep_what_they_were_made_of(house: House, fake: FakeComfyUI) -> None:
    graph: dict[str, Any] = {
        **PATTERN,
        "3": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0], "note": "x"}, "_meta": {"apiinput": "note"}},
    }
    house.write_workflow("noted", graph)
    await house.wait_status(lambda s: any(w["alias"] == "noted" for w in s["workflows"]))
    fake.script.gate = trio.Event()
    async with house.client() as client:
        await client.submit("pattern")
        await client.wait_info(state="running")
        for _ in range(20):
            await client.submit("noted", **{"3__note": "y" * 900_000})
            await client.http.post("/interrupt")
    kept = sum(
        len(r.job.graph["3"]["inputs"]["note"]) for r in house.daemon.dispatcher.jobs.values() if "3" in r.job.graph
    )
    assert kept < 2_000_000


async def test_a_lost_upload_file_names_no_path(house: House, fake: FakeComfyUI) -> None:
    from tests.e2e.test_bridge_api import picture

    fake.script.gate = trio.Event()
    async with house.client() as client:
        tokens = await client.upload(f=("a.png", picture((1, 2, 3))))
        for file in (house.folder / "state" / "spool" / "uploads").iterdir():
            file.unlink()
        await client.submit("invert", **{"10__image": tokens["f"]})
        info = await client.wait_info(state="failed")
    assert str(house.folder) not in str(info)


async def test_a_look_up_during_a_withdrawal_takes_it_for_no_loss(house: House, fake: FakeComfyUI) -> None:
    """The witness asks between the deletion and the answers to the withdrawal's own questions."""
    fake.script.gate = trio.Event()
    slow: list[Call] = []

    async def hook(call: Call) -> Reply | None:
        if call.method == "GET" and call.route == "/queue" and fake.calls_to("POST", "/queue") and not slow:
            slow.append(call)
            await trio.sleep(0.7)
        return None

    fake.script.hook = hook
    async with house.client() as client:
        await _running_and_prefetched(house, fake, client)
        fake.submit_foreign(gate=trio.Event())
        status = await house.wait_status(lambda s: s["queue"] == 1)
        assert slow
        assert "failed" not in status["jobs"]


async def test_a_backend_put_back_while_it_finishes_loses_no_job_that_comes_as_it_ends(
    house: House, fake: FakeComfyUI
) -> None:
    fake.script.gate = trio.Event()
    intake = Intake(
        house.daemon.dispatcher,
        house.daemon.clients,
        house.daemon._ledger,
        lambda: (house.daemon.reloader.current.catalogue, house.daemon.reloader.current.config.settings),
    )
    async with house.client() as client, house.client("c2") as second, trio.open_nursery() as nursery:
        await client.submit("pattern")
        await client.wait_info(state="running")
        (house.etc / "backends.toml").write_text("")
        await house.wait_status(lambda s: s["backends"][0]["state"] == "draining")
        house.write_backends(("pc-1", fake.url))
        await house.wait_status(lambda s: s["backends"][0]["state"] == "up")
        ending = house.daemon.pool.actor("pc-1")

        async def submit_as_it_ends() -> None:
            await ending.wait_empty()
            await trio.lowlevel.checkpoint()  # by now the pool has seen it, too
            await intake.submit("c2", "pattern", {})

        nursery.start_soon(submit_as_it_ends)
        await trio.testing.wait_all_tasks_blocked(0.05)
        fake.script.gate.set()
        assert len(await client.result()) == 1
        assert len(await second.result(wait=5)) == 1, await second.info()


async def test_a_slow_reload_does_not_bring_back_what_a_later_one_replaced(
    house: House, fake: FakeComfyUI, start_fake: StartFake, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = await start_fake("added")
    may_end = threading.Event()
    slow: list[bool] = []

    def load(*args: Any) -> Loaded:
        loaded = load_all(*args)
        if not slow:
            slow.append(True)
            may_end.wait(5)
        return loaded

    monkeypatch.setattr(reloader, "load_all", load)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.daemon.reloader.reload)  # SIGHUP, an instant before the save
        with trio.fail_after(5):
            while not slow:
                await trio.sleep(0.01)
        house.write_backends(("pc-1", fake.url), ("pc-2", added.url))
        await trio.sleep(0.5)  # the watch has seen it by now, and may or may not have read it
        may_end.set()
    await house.wait_up("pc-1", "pc-2")
    assert [b.name for b in house.daemon.reloader.current.config.backends] == ["pc-1", "pc-2"]


async def test_a_ledger_that_cannot_be_written_ends_neither_the_daemon_nor_a_job(
    house: House, fake: FakeComfyUI
) -> None:
    ledger = house.daemon._ledger
    assert ledger._connection is not None
    fake.script.gate = trio.Event()
    async with house.client() as client:
        await client.submit("pattern")
        await client.wait_info(state="running")
        ledger._connection.execute("PRAGMA query_only = 1")
        refused = await client.http.post("/generate-based-workflow?clientId=c1", json={"workflow": "pattern"})
        assert refused.status_code == 503, "what could not be stored is not acknowledged"
        fake.script.gate.set()
        await house.wait_status(lambda s: s["jobs"].get("succeeded") == 1)
        assert await client.result(wait=0) == [], "and an end that could not be stored is not told"
        ledger._connection.execute("PRAGMA query_only = 0")
        assert len(await client.result(wait=5)) == 1


async def test_an_owner_who_empties_the_input_folder_fails_no_job(house: House, fake: FakeComfyUI) -> None:
    from tests.e2e.test_bridge_api import picture

    async with house.client() as client:
        tokens = await client.upload(f=("a.png", picture((1, 2, 3))))
        await client.submit("invert", **{"10__image": tokens["f"]})
        assert len(await client.result()) == 1
        for key in [key for key in fake.files.files if key[:2] == ("input", "bridged")]:
            del fake.files.files[key]
        await client.submit("invert", **{"10__image": tokens["f"]})
        assert len(await client.result()) == 1, await client.info()


async def test_a_revoked_job_leaves_no_result_where_the_pc_closes_its_connections(
    house: House, fake: FakeComfyUI, monkeypatch: pytest.MonkeyPatch
) -> None:
    checking = threading.Event()

    def slow_verify(*args: Any) -> str:
        checking.set()
        time.sleep(0.3)
        return verify(*args)

    monkeypatch.setattr(spool, "verify", slow_verify)

    buffer = io.BytesIO()
    Image.effect_noise((400, 400), 90).save(buffer, "PNG")
    noise = buffer.getvalue()

    async def hook(call: Call) -> Reply | None:
        if call.route != "/view":
            return None
        reply = await get_view(fake, call, "")
        reply.body = noise  # large enough to be checked in a thread
        reply.headers = {**reply.headers, "Connection": "close"}
        return reply

    fake.script.hook = hook
    async with house.client() as client:
        await client.submit("pattern")
        with trio.fail_after(5):
            await trio.to_thread.run_sync(checking.wait, 5)
        await client.http.post("/interrupt")
        await house.wait_status(lambda s: s["backends"][0]["running"] == 0)
        with trio.fail_after(5):
            while house.daemon.spool.limiter.borrowed_tokens:
                await trio.sleep(0.01)
    assert list((house.folder / "state" / "spool" / "results").iterdir()) == []


async def test_a_changed_workflows_folder_leaves_no_watcher_behind(house: House, fake: FakeComfyUI) -> None:
    shutil.copytree(house.workflows, house.folder / "other")
    house.settings["workflows"] = {"dir": str(house.folder / "other")}
    house.write_settings()
    await house.wait_status(lambda s: s["configuration"]["generation"] == 2)
    gc.collect()  # a generator that was left behind is a warning, and that an error
    (house.folder / "other" / "new.json").write_text(json.dumps(PATTERN))
    await house.wait_status(lambda s: any(w["alias"] == "new.json" for w in s["workflows"]))


async def test_what_is_saved_just_before_a_watch_begins_counts(
    house: House, fake: FakeComfyUI, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = watchfiles.awatch

    def awatch(*folders: Path, **options: Any) -> AsyncGenerator[Any, None]:
        if house.folder / "other" in folders:  # what it had was read already
            (house.folder / "other" / "new.json").write_text(json.dumps(PATTERN))
        return watch(*folders, **options)

    monkeypatch.setattr(watchfiles, "awatch", awatch)
    shutil.copytree(house.workflows, house.folder / "other")
    house.settings["workflows"] = {"dir": str(house.folder / "other")}
    house.write_settings()
    await house.wait_status(lambda s: any(w["alias"] == "new.json" for w in s["workflows"]))


async def test_a_pc_that_encodes_its_definitions_is_down_and_they_are_not_decoded(
    house: House, start_fake: StartFake
) -> None:
    """A few kB of gzip can be a GB of definitions."""
    fake = await start_fake("one")

    async def hook(call: Call) -> Reply | None:
        packed = Reply(body=gzip.compress(bytes(1_000_000)), headers={"Content-Encoding": "gzip"})
        return packed if call.route == "/object_info" else None

    fake.script.hook = hook
    house.write_backends(("pc-1", fake.url))
    await house.start()
    status = await house.wait_status(lambda s: "must not be encoded" in s["backends"][0]["reason"])
    assert status["backends"][0]["state"] == "down"
    (call, *_) = fake.calls_to("GET", "/object_info")
    assert call.headers["accept-encoding"] == "identity"
