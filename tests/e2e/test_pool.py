"""Many backends: placement, the owner's precedence, and configuration edited while it runs. Real files."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import trio

from tests.conftest import StartFake
from tests.e2e.house import PATTERN, House
from tests.fakes.comfyui import FakeComfyUI


async def two(house: House, start_fake: StartFake) -> tuple[FakeComfyUI, FakeComfyUI]:
    one, other = await start_fake("one"), await start_fake("two")
    house.write_backends(("pc-1", one.url), ("pc-2", other.url))
    await house.start()
    await house.wait_up("pc-1", "pc-2")
    return one, other


async def test_a_job_goes_to_the_free_backend(house: House, start_fake: StartFake) -> None:
    one, other = await two(house, start_fake)
    one.script.gate = other.script.gate = trio.Event()
    async with house.client("a") as a, house.client("b") as b:
        await a.submit("pattern")
        await b.submit("pattern")
        with trio.fail_after(5):
            await one.wait_for(lambda: len(one.prompts) == 1)
            await other.wait_for(lambda: len(other.prompts) == 1)
        one.script.gate.set()
        assert len(await a.result()) == 1
        assert len(await b.result()) == 1


async def test_a_pc_whose_owner_is_at_work_gets_nothing(house: House, start_fake: StartFake) -> None:
    one, other = await two(house, start_fake)
    one.submit_foreign(gate=(gate := trio.Event()))
    await house.wait_status(lambda s: s["backends"][0]["owner_prompts"] == 1)
    async with house.client() as client:
        for color in range(5):
            await client.submit("pattern", **{"1__color": color})
        for _ in range(5):
            assert len(await client.result()) == 1
    assert len(one.prompts) == 1
    assert len(other.prompts) == 5
    gate.set()
    await house.wait_status(lambda s: s["backends"][0]["owner_prompts"] == 0)


async def test_jobs_wait_while_all_owners_are_at_work_then_run(house: House, fake: FakeComfyUI) -> None:
    fake.submit_foreign(gate=(gate := trio.Event()))
    await house.wait_status(lambda s: s["backends"][0]["owner_prompts"] == 1)
    async with house.client() as client:
        await client.submit("pattern")
        assert (await house.status())["queue"] == 1
        gate.set()
        assert len(await client.result()) == 1
    assert fake.violations == []


async def test_a_prefetched_job_moves_to_a_backend_that_becomes_free(house: House, start_fake: StartFake) -> None:
    one, other = await two(house, start_fake)
    one.script.gate, other.script.gate = trio.Event(), trio.Event()
    async with house.client() as client:
        for color in range(4):
            await client.submit("pattern", **{"1__color": color})
        with trio.fail_after(5):
            await one.wait_for(lambda: len(one.prompts) == 2)
            await other.wait_for(lambda: len(other.prompts) == 2)
        other.script.gate.set()  # runs both of its own, then the one that waits behind the other's long job
        for _ in range(3):
            assert len(await client.result()) == 1
        assert sorted(p.state for p in one.prompts.values()) == ["deleted", "running"]
        one.script.gate.set()
        assert len(await client.result()) == 1
    assert len(other.prompts) == 3


async def test_adding_a_pc_by_editing_the_file_puts_the_next_job_there(
    house: House, fake: FakeComfyUI, start_fake: StartFake
) -> None:
    fake.script.gate = trio.Event()
    added = await start_fake("added")
    async with house.client() as client:
        await client.submit("pattern", **{"1__color": 1})
        await client.wait_info(state="running")
        connections = len(fake.calls_to("GET", "/ws"))
        house.write_backends(("pc-1", fake.url), ("pc-2", added.url))
        with trio.fail_after(1):  # what the operator was promised
            await added.wait_for(lambda: bool(added.calls_to("GET", "/object_info")))
        await house.wait_up("pc-1", "pc-2")
        await client.submit("pattern", **{"1__color": 2})
        assert len(await client.result()) == 1
        assert len(added.prompts) == 1
        fake.script.gate.set()
        assert len(await client.result()) == 1
    assert len(fake.calls_to("GET", "/ws")) == connections == 1  # the untouched one kept its connection


@pytest.mark.parametrize("how", ["removed", "drain = true"])
async def test_a_removed_or_draining_pc_finishes_what_runs_and_gets_nothing_new(
    house: House, start_fake: StartFake, how: str
) -> None:
    one, other = await two(house, start_fake)
    one.script.gate = trio.Event()
    async with house.client() as client:
        await client.submit("pattern", **{"1__color": 1})
        with trio.fail_after(5):
            await one.wait_for(lambda: any(p.held_at for p in one.prompts.values()))
        if how == "removed":
            house.write_backends(("pc-2", other.url))
        else:
            house.write_backends(("pc-1", one.url), ("pc-2", other.url), pc_1=how)
        await house.wait_status(lambda s: any(b["state"] == "draining" for b in s["backends"]))
        for color in range(2, 5):
            await client.submit("pattern", **{"1__color": color})
            assert len(await client.result()) == 1
        assert len(one.prompts) == 1
        one.script.gate.set()
        assert len(await client.result()) == 1
    if how == "removed":
        await house.wait_status(lambda s: [b["name"] for b in s["backends"]] == ["pc-2"])


async def test_draining_takes_back_what_has_not_started(house: House, start_fake: StartFake) -> None:
    one, other = await two(house, start_fake)
    one.script.gate = other.script.gate = trio.Event()
    async with house.client() as client:
        for color in range(4):
            await client.submit("pattern", **{"1__color": color})
        with trio.fail_after(5):
            await one.wait_for(lambda: len(one.prompts) == 2)
        house.write_backends(("pc-2", other.url))
        with trio.fail_after(5):
            await one.wait_for(lambda: sorted(p.state for p in one.prompts.values()) == ["deleted", "running"])
        other.script.gate.set()
        assert [len(await client.result()) for _ in range(4)] == [1, 1, 1, 1]


async def test_a_backend_whose_address_changes_is_used_at_the_new_one(
    house: House, fake: FakeComfyUI, start_fake: StartFake
) -> None:
    moved = await start_fake("moved")
    house.write_backends(("pc-1", moved.url))
    with trio.fail_after(5):
        await moved.wait_for(lambda: bool(moved.calls_to("GET", "/object_info")))
    await house.wait_up("pc-1")
    async with house.client() as client:
        await client.submit("pattern")
        assert len(await client.result()) == 1
    assert len(moved.prompts) == 1
    assert len(fake.prompts) == 0


async def test_configured_headers_are_sent_with_every_request(house: House, start_fake: StartFake) -> None:
    fake = await start_fake("guarded")
    house.write_backends(("pc-1", fake.url), pc_1='headers = { Authorization = "Bearer s3cret" }')
    await house.start()
    await house.wait_up("pc-1")
    async with house.client() as client:
        await client.submit("pattern")
        assert len(await client.result()) == 1
    assert {c.headers.get("authorization") for c in fake.calls} == {"Bearer s3cret"}
    assert not any("origin" in c.headers for c in fake.calls)


async def test_a_changed_alias_affects_new_jobs_only(house: House, fake: FakeComfyUI) -> None:
    fake.script.gate = trio.Event()
    async with house.client() as client:
        await client.submit("pattern")
        await client.wait_info(state="running")
        await client.submit("pattern")
        changed = json.loads(json.dumps(PATTERN))
        changed["1"]["inputs"]["color"] = 4242
        (house.workflows / "pattern.json").write_text(json.dumps(changed))
        await house.wait_status(lambda s: s["configuration"]["generation"] == 2)
        await client.submit("pattern")
        fake.script.gate.set()
        assert [len(await client.result()) for _ in range(3)] == [1, 1, 1]
    assert [p.graph["1"]["inputs"]["color"] for p in fake.prompts.values()] == [255, 255, 4242]


@pytest.mark.parametrize(
    ("file", "text", "named"),
    [
        ("backends.toml", "[[backend]]\nname = 'x'\n", "backends.toml: line 1: backend[0]"),
        ("backends.toml", "[[backend]\n", "backends.toml: "),
        ("backends.toml", "[[backend]]\nname='x'\nurl='nonsense'\n", "write it like http://192.168.0.20:8188"),
        ("bridged.toml", "[server]\nprot = 1\n", "did you mean `port`?"),
        ("workflow_alias.json", '[{"alias": "a"', "workflow_alias.json: line 1"),
        ("../workflows/pattern.json", "{", "pattern.json: line 1"),
    ],
)
async def test_a_bad_file_is_reported_and_what_runs_stays(
    house: House, fake: FakeComfyUI, file: str, text: str, named: str
) -> None:
    (house.etc / file).write_text(text)
    status = await house.wait_status(lambda s: bool(s["configuration"]["errors"]))
    assert named in status["configuration"]["errors"][0]
    async with house.client() as client:
        await client.submit("pattern")
        assert len(await client.result()) == 1
    house.write_settings()
    house.write_backends(("pc-1", fake.url))
    house.write_workflow("blurs", PATTERN) if file == "workflow_alias.json" and rewrite(house) else None
    (house.workflows / "pattern.json").write_text(json.dumps(PATTERN))
    await house.wait_status(lambda s: not s["configuration"]["errors"])
    assert len(fake.calls_to("GET", "/ws")) == 1


def rewrite(house: House) -> bool:
    (house.etc / "workflow_alias.json").write_text("[]")
    return True


async def test_one_bad_file_does_not_hold_up_the_others(house: House, fake: FakeComfyUI, start_fake: StartFake) -> None:
    added = await start_fake("added")
    (house.workflows / "broken.json").write_text("{")
    house.write_backends(("pc-1", fake.url), ("pc-2", added.url))
    await house.wait_up("pc-1", "pc-2")
    status = await house.status()
    assert any("broken.json" in error for error in status["configuration"]["errors"])


async def test_atomic_replaces_temporary_files_and_rapid_edits_end_at_the_last_content(
    house: House, fake: FakeComfyUI, start_fake: StartFake
) -> None:
    last = await start_fake("last")
    target = house.etc / "backends.toml"
    for number in range(30):
        (house.etc / f".backends.toml.sw{number % 3}").write_text("garbage [[")
        temporary = house.etc / "backends.toml~"
        temporary.write_text(f'[[backend]]\nname = "n{number}"\nurl = "{fake.url}"\n')
        os.replace(temporary, target)
    house.write_backends(("pc-1", fake.url), ("final", last.url))
    await house.wait_status(lambda s: {b["name"] for b in s["backends"]} == {"pc-1", "final"})
    await house.wait_up("pc-1", "final")
    assert (await house.status())["configuration"]["errors"] == []


async def test_sighup_reloads_at_once(house: House, fake: FakeComfyUI, start_fake: StartFake) -> None:
    added = await start_fake("added")
    house.write_backends(("pc-1", fake.url), ("pc-2", added.url))
    os.kill(os.getpid(), signal.SIGHUP)
    await house.wait_up("pc-1", "pc-2")


async def test_a_default_picture_of_the_workflows_folder_is_sent_along(house: House, fake: FakeComfyUI) -> None:
    from tests.e2e.test_bridge_api import picture

    (house.workflows / "input" / "example.png").write_bytes(picture((1, 2, 3)))
    await house.wait_status(lambda s: s["configuration"]["generation"] == 2)
    async with house.client() as client:
        await client.submit("invert")
        await client.submit("invert")
        assert [len(await client.result()) for _ in range(2)] == [1, 1]
    (call,) = fake.calls_to("POST", "/upload/image")  # the same content goes to a backend once
    assert call.upload_subfolder == "bridged"
    assert call.upload_name is not None
    assert Path(call.upload_name).suffix == ".png"


async def test_two_services_cannot_share_a_state_folder(house: House, fake: FakeComfyUI) -> None:
    from bridged.daemon import Daemon
    from bridged.errors import BridgedError

    with pytest.raises(BridgedError, match="another bridged uses the state folder"):
        await Daemon(house.etc, {}).run()


async def test_the_next_job_runs_on_a_pc_that_was_just_added(
    house: House, fake: FakeComfyUI, start_fake: StartFake
) -> None:
    added = await start_fake("added")
    async with house.client() as client:
        await client.submit("pattern", **{"1__color": 1})
        assert len(await client.result()) == 1
        house.write_backends(("pc-1", fake.url), ("pc-2", added.url))
        await house.wait_up("pc-2")
        await client.submit("pattern", **{"1__color": 2})
        assert len(await client.result()) == 1
    assert (len(fake.prompts), len(added.prompts)) == (1, 1)
