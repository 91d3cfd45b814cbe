"""What a lent PC can do to us: vanish, go silent, lose prompts, lie about files. Nothing acknowledged is forgotten."""

from __future__ import annotations

import pytest
import trio

from tests.conftest import StartFake
from tests.e2e.house import House
from tests.e2e.test_bridge_api import picture
from tests.fakes.comfyui import STORE, FakeComfyUI, PromptScript


async def test_a_silent_socket_never_loses_a_finished_job(house: House, fake: FakeComfyUI) -> None:
    fake.go_silent()
    async with house.client() as client:
        await client.submit("pattern")
        assert len(await client.result()) == 1
    assert len(fake.prompts) == 1


@pytest.mark.parametrize("reset", [False, True])
async def test_a_socket_lost_in_the_middle_of_a_job_is_replaced_and_the_job_delivered(
    house: House, fake: FakeComfyUI, reset: bool
) -> None:
    fake.script.gate = trio.Event()
    async with house.client() as client:
        await client.submit("pattern")
        await client.wait_info(state="running")
        fake.drop_websockets(reset=reset)
        fake.script.gate.set()
        assert len(await client.result()) == 1
    assert len(fake.prompts) == 1
    assert len(fake.calls_to("GET", "/ws")) == 2


async def test_history_that_lags_behind_the_success_is_waited_for(house: House, fake: FakeComfyUI) -> None:
    fake.script.omit_executed = True
    fake.script.gates = {STORE: (gate := trio.Event())}
    async with house.client() as client:
        await client.submit("pattern")
        with trio.fail_after(5):
            await fake.wait_for(lambda: len([c for c in fake.calls if c.route.startswith("/history/")]) >= 3)
        gate.set()
        assert len(await client.result()) == 1


async def test_a_fully_cached_run_gives_its_outputs_all_the_same(house: House, fake: FakeComfyUI) -> None:
    fake.script.cached = "all"
    fake.script.omit_executed = True
    async with house.client() as client, client.socket() as socket:
        await client.submit("pattern")
        await socket.until("closed")
        assert "progress" in socket.statuses()
        assert len(await client.result()) == 1


@pytest.mark.parametrize("fate", ["hang", "reset", "close"])
async def test_a_post_that_was_accepted_without_an_answer_is_found_and_not_sent_twice(
    house: House, fake: FakeComfyUI, fate: str
) -> None:
    fake.script.post_fate = fate  # type: ignore[assignment]
    async with house.client() as client:
        await client.submit("pattern")
        assert len(await client.result()) == 1
    assert len(fake.prompts) == 1


async def test_a_post_that_was_accepted_and_answered_with_an_error_is_found_and_not_sent_twice(
    house: House, start_fake: StartFake
) -> None:
    one, other = await start_fake("one"), await start_fake("two")
    one.script.post_answer_status = other.script.post_answer_status = 502
    house.write_backends(("pc-1", one.url), ("pc-2", other.url))
    await house.start()
    await house.wait_up("pc-1", "pc-2")
    async with house.client() as client:
        await client.submit("pattern")
        assert len(await client.result()) == 1
    assert len(one.prompts) + len(other.prompts) == 1


async def test_a_pc_that_answers_prompts_with_an_error_and_does_not_queue_them_is_at_fault(
    house: House, start_fake: StartFake
) -> None:
    one, other = await start_fake("one"), await start_fake("two")
    one.script.post_status = 500
    house.write_backends(("pc-1", one.url), ("pc-2", other.url))
    await house.start()
    await house.wait_up("pc-1", "pc-2")
    async with house.client() as client:
        jobs = [await client.submit("pattern", **{"1__color": color}) for color in range(2)]
        assert [len(await client.result()) for _ in range(2)] == [1, 1]
        described = [(await client.http.get(f"/jobs/{job['job_id']}")).json() for job in jobs]
    tried = {attempt["backend"]: attempt["reason"] for job in described for attempt in job["attempts"]}
    assert tried == {"pc-1": "it answers a prompt with HTTP status 500", "pc-2": ""}
    assert len(other.prompts) == 2


async def test_an_error_page_in_place_of_a_result_is_asked_for_again(house: House, fake: FakeComfyUI) -> None:
    fake.script.view_body = b"<html>Bad Gateway</html>"
    async with house.client() as client:
        await client.submit("pattern")
        with trio.fail_after(5):
            await fake.wait_for(lambda: bool(fake.calls_to("GET", "/view")))
        for prompt in fake.prompts.values():
            prompt.script.view_body = None
        assert len(await client.result()) == 1
    assert len(fake.prompts) == 1


@pytest.mark.parametrize("fate", ["reset", "close"])
async def test_a_post_that_was_not_accepted_runs_elsewhere_once(
    house: House, start_fake: StartFake, fate: str
) -> None:
    one, other = await start_fake("one"), await start_fake("two")
    one.script.post_accepts = False
    one.script.post_fate = fate  # type: ignore[assignment]
    house.write_backends(("pc-1", one.url), ("pc-2", other.url))
    await house.start()
    await house.wait_up("pc-1", "pc-2")
    async with house.client() as client:
        for color in range(2):
            await client.submit("pattern", **{"1__color": color})
        assert [len(await client.result()) for _ in range(2)] == [1, 1]
    assert len(one.prompts) == 0
    assert len(other.prompts) == 2


async def test_a_prompt_that_the_pc_lost_is_run_elsewhere(house: House, start_fake: StartFake) -> None:
    one, other = await start_fake("one"), await start_fake("two")
    for fake in (one, other):
        fake.script.for_prompt = lambda graph, prompt_id: PromptScript(lose_at="running")
    other.script.for_prompt = None
    house.write_backends(("pc-1", one.url))
    await house.start()
    await house.wait_up("pc-1")
    async with house.client() as client:
        await client.submit("pattern")
        with trio.fail_after(5):
            await one.wait_for(lambda: len(one.prompts) == 1)
        house.write_backends(("pc-1", one.url), ("pc-2", other.url))
        await house.wait_up("pc-2")
        assert len(await client.result()) == 1
    assert len(other.prompts) == 1


async def test_a_pc_that_stays_away_gives_its_job_to_another_and_is_told_to_stop_when_it_returns(
    house: House, start_fake: StartFake
) -> None:
    one, other = await start_fake("one"), await start_fake("two")
    house.settings["jobs"]["unreachable_after"] = 0.5
    one.script.gate = trio.Event()
    house.write_backends(("pc-1", one.url))
    await house.start()
    await house.wait_up("pc-1")
    async with house.client() as client:
        await client.submit("pattern")
        await client.wait_info(state="running")
        house.write_backends(("pc-1", one.url), ("pc-2", other.url))
        await house.wait_up("pc-2")
        one.stop_listening()
        one.drop_connections(reset=True)
        assert len(await client.result()) == 1
        assert len(other.prompts) == 1
        await one.start_listening()
        with trio.fail_after(15):
            await one.wait_for(lambda: all(p.state == "interrupted" for p in one.prompts.values()))
    assert one.violations == []


async def test_a_workflows_own_error_is_confirmed_once_elsewhere(house: House, start_fake: StartFake) -> None:
    one, other = await start_fake("one"), await start_fake("two")
    for fake in (one, other):
        fake.script.fail_node = "1"
        fake.script.fail_message = "wrong"
    house.write_backends(("pc-1", one.url), ("pc-2", other.url))
    await house.start()
    await house.wait_up("pc-1", "pc-2")
    async with house.client() as client:
        await client.submit("pattern")
        info = await client.wait_info(state="failed")
        assert info["status"] == "error"  # the newest state of who only polls: not a `closed` that hides it
        assert "RuntimeError: wrong" in info["detail"]
        assert info["fault"] == "workflow"
    assert len(one.prompts) == len(other.prompts) == 1


async def test_a_value_that_one_pc_lacks_is_tried_on_another(house: House, start_fake: StartFake) -> None:
    one, other = await start_fake("one"), await start_fake("two")
    refusal = {
        "error": {"type": "prompt_outputs_failed_validation", "message": "m", "details": "", "extra_info": {}},
        "node_errors": {
            "1": {
                "errors": [{"type": "value_not_in_list", "message": "Value not in list", "details": "x not in []"}],
                "dependent_outputs": ["2"],
                "class_type": "EmptyImage",
            }
        },
    }
    one.script.post_status, one.script.post_body = 400, refusal
    house.write_backends(("pc-1", one.url), ("pc-2", other.url))
    await house.start()
    await house.wait_up("pc-1", "pc-2")
    async with house.client() as client:
        for color in range(3):
            await client.submit("pattern", **{"1__color": color})
        assert [len(await client.result()) for _ in range(3)] == [1, 1, 1]
    assert len(other.prompts) == 3


async def test_a_graph_the_backend_refuses_fails_with_its_reason(house: House, fake: FakeComfyUI) -> None:
    async with house.client() as client:
        await client.submit("pattern", **{"1__width": -4})
        await client.wait_info(state="failed")
        async with client.socket() as socket:
            await socket.receive()
    status = await house.status()
    assert status["jobs"] == {"failed": 1}
    assert status["backends"][0]["running"] == 0


async def test_outputs_dropped_by_the_backend_fail_the_job_instead_of_giving_half(
    house: House, fake: FakeComfyUI
) -> None:
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 1}},
        "2": {"class_type": "SaveImage", "inputs": {"filename_prefix": "a", "images": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"filename_prefix": "b"}},
    }
    house.write_workflow("half", graph)
    await house.wait_status(lambda s: any(w["alias"] == "half" for w in s["workflows"]))
    async with house.client() as client, client.socket() as socket:
        await client.submit("half")
        error = await socket.until("error")
        assert "would leave out some outputs: node 3 (SaveImage): Required input is missing: images" in error["detail"]


async def test_a_result_that_was_cut_off_is_fetched_again(house: House, fake: FakeComfyUI) -> None:
    fake.script.view_truncate = 20
    async with house.client() as client:
        await client.submit("pattern")
        with trio.fail_after(5):
            await fake.wait_for(lambda: bool(fake.calls_to("GET", "/view")))
        for prompt in fake.prompts.values():
            prompt.script.view_truncate = None
        assert len(await client.result()) == 1
    assert len(fake.prompts) == 1
    assert len(fake.calls_to("GET", "/view")) >= 2


@pytest.mark.parametrize(
    ("body", "why"),
    [(b"<html><script>alert(1)</script></html>", "not allowed"), (picture(kind="JPEG"), "does not fit")],
)
async def test_a_result_that_does_not_pass_the_checks_never_reaches_the_client(
    house: House, fake: FakeComfyUI, body: bytes, why: str
) -> None:
    fake.script.view_body = body
    async with house.client() as client, client.socket() as socket:
        await client.submit("pattern")
        error = await socket.until("error")
        assert why in error["detail"]
        assert await client.result(wait=0) == []
    assert list((house.folder / "state" / "spool" / "results").iterdir()) == []


async def test_a_result_that_is_too_large_is_refused_while_it_arrives(house: House, fake: FakeComfyUI) -> None:
    house.settings["files"] = {"result_max_size": 0.1}
    house.write_settings()
    await house.wait_status(lambda s: s["configuration"]["generation"] == 2)
    fake.script.view_body = picture() + bytes(400_000)
    async with house.client() as client, client.socket() as socket:
        await client.submit("pattern")
        error = await socket.until("error")
        assert "larger than the limit of 0.1 MB" in error["detail"]
    assert list((house.folder / "state" / "spool" / "results").iterdir()) == []


async def test_a_black_holed_pc_is_taken_down_and_its_job_moves(house: House, start_fake: StartFake) -> None:
    one, other = await start_fake("one"), await start_fake("two")
    house.settings["jobs"]["unreachable_after"] = 0.5
    one.script.gate = trio.Event()
    house.write_backends(("pc-1", one.url))
    await house.start()
    await house.wait_up("pc-1")
    async with house.client() as client:
        await client.submit("pattern")
        await client.wait_info(state="running")
        house.write_backends(("pc-1", one.url), ("pc-2", other.url))
        await house.wait_up("pc-2")
        one.black_hole()
        assert len(await client.result(wait=60)) == 1
        assert len(other.prompts) == 1


async def test_results_go_when_their_time_is_over(house: House, fake: FakeComfyUI) -> None:
    house.settings["jobs"]["result_ttl"] = 0.1
    house.write_settings()
    await house.wait_status(lambda s: s["configuration"]["generation"] == 2)
    async with house.client() as client:
        await client.submit("pattern")
        await client.wait_info(state="succeeded")
        await house.wait_status(lambda s: s["jobs"] == {}, 10)
    assert list((house.folder / "state" / "spool" / "results").iterdir()) == []


async def test_the_backends_history_is_tidied_of_ours_alone(house: House, fake: FakeComfyUI) -> None:
    owners = fake.submit_foreign()
    async with house.client() as client:
        await client.submit("pattern")
        assert len(await client.result()) == 1
    with trio.fail_after(5):
        await fake.wait_for(lambda: bool(fake.calls_to("POST", "/history")))
    (call,) = fake.calls_to("POST", "/history")
    assert owners not in call.json["delete"]
    assert fake.violations == []


async def test_an_actor_that_crashes_is_started_again_and_its_job_delivered(
    house: House, fake: FakeComfyUI, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bridged.actors import pool
    from bridged.comfy import protocol

    monkeypatch.setattr(pool, "COOL_DOWN", 0.05)
    fake.script.gate = trio.Event()
    async with house.client() as client:
        await client.submit("pattern")
        await client.wait_info(state="running")
        real = protocol.parse_message

        def broken(message: str | bytes) -> None:
            monkeypatch.setattr(protocol, "parse_message", real)
            raise RuntimeError("a bug")

        monkeypatch.setattr(protocol, "parse_message", broken)
        fake.submit_foreign()  # its status broadcast meets the bug
        with trio.fail_after(5):
            await fake.wait_for(lambda: len(fake.calls_to("GET", "/ws")) == 2)
        fake.script.gate.set()
        assert len(await client.result()) == 1
    assert len([p for p in fake.prompts.values() if p.client_id]) == 1


async def test_cancelling_is_repeated_until_the_pc_hears_it(house: House, fake: FakeComfyUI) -> None:
    """An interrupt in the moment before a prompt begins to execute is lost on a stock ComfyUI."""
    from tests.fakes.comfyui import START

    fake.script.gates = {START: (start := trio.Event())}
    fake.script.gate = trio.Event()
    async with house.client() as client:
        await client.submit("pattern")
        with trio.fail_after(5):
            await fake.wait_for(lambda: any(p.state == "running" for p in fake.prompts.values()))
        await client.http.post("/interrupt")
        with trio.fail_after(5):
            await fake.wait_for(lambda: bool(fake.calls_to("POST", "/interrupt")))
        start.set()
        with trio.fail_after(10):
            await fake.wait_for(lambda: all(p.state == "interrupted" for p in fake.prompts.values()))


async def test_an_atomic_cancel_is_used_where_the_backend_has_it(house: House, nursery: trio.Nursery) -> None:
    fake = FakeComfyUI(name="new", atomic_cancel=True)
    await nursery.start(fake.serve)
    fake.script.gate = trio.Event()
    house.write_backends(("pc-1", fake.url))
    await house.start()
    await house.wait_up("pc-1")
    async with house.client() as client:
        await client.submit("pattern", **{"1__color": 1})
        await client.submit("pattern", **{"1__color": 2})
        await client.wait_info(state="placed")
        with trio.fail_after(5):
            await fake.wait_for(lambda: len(fake.prompts) == 2)
        await client.http.post("/interrupt")
        with trio.fail_after(5):
            await fake.wait_for(lambda: all(p.state in ("interrupted", "deleted") for p in fake.prompts.values()))
    assert fake.calls_to("POST", "/interrupt") == []
    assert fake.violations == []



async def test_a_url_that_is_no_comfyui_is_down_with_a_reason_and_nothing_crashes(
    house: House, nursery: trio.Nursery
) -> None:
    (house.folder / "other").mkdir()
    other = House(house.folder / "other", nursery)
    await other.start()  # a bridged is a web server, and no ComfyUI
    house.write_backends(("pc-1", other.url + "/nowhere"))
    await house.start()
    status = await house.wait_status(lambda s: "no ComfyUI" in s["backends"][0]["reason"])
    assert status["backends"][0]["state"] == "down"
    assert "127.0.0.1" not in status["backends"][0]["reason"]
