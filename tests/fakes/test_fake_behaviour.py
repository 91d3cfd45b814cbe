"""What tests of a pool rely on in the fake: its connections end and stall as told, and it catches what may
not be done.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import httpx
import pytest
import trio
import trio_websocket

from tests.fakes.comfyui import START, STORE, FakeComfyUI, PromptScript, png_for

GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 1}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "ComfyUI"}},
}


@asynccontextmanager
async def serving(fake: FakeComfyUI) -> AsyncIterator[httpx.AsyncClient]:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            url = await nursery.start(fake.serve)
            async with httpx.AsyncClient(base_url=url, timeout=5) as http:
                yield http
            nursery.cancel_scope.cancel()


async def submit(http: httpx.AsyncClient, prompt_id: str, client_id: str | None = None) -> httpx.Response:
    owner = {} if client_id is None else {"client_id": client_id}
    return await http.post("/prompt", json={"prompt": GRAPH, "prompt_id": prompt_id, **owner})


@asynccontextmanager
async def connect(fake: FakeComfyUI, client_id: str) -> AsyncIterator[trio_websocket.WebSocketConnection]:
    # On a stream of our own: trio-websocket 0.12.2 leaves its TCP socket open when the peer ends without a
    # close frame.
    async with await trio.open_tcp_stream("127.0.0.1", fake.port) as stream, trio.open_nursery() as nursery:
        socket = await trio_websocket.wrap_client_stream(
            nursery, stream, f"127.0.0.1:{fake.port}", f"/ws?clientId={client_id}"
        )
        yield socket
        await socket.aclose()
        nursery.cancel_scope.cancel()


async def until(socket: trio_websocket.WebSocketConnection, kind: str) -> dict[str, Any]:
    """The data of the next event of that type."""
    while True:
        message = json.loads(await socket.get_message())
        if message["type"] == kind:
            data: dict[str, Any] = message["data"]
            return data


def ended(fake: FakeComfyUI, prompt_id: str) -> bool:
    return prompt_id in fake.prompts and not fake.prompts[prompt_id].open


async def test_a_gate_holds_a_prompt_and_an_interrupt_gets_through_it() -> None:
    fake = FakeComfyUI()
    fake.script.gate = trio.Event()
    async with serving(fake) as http:
        await submit(http, "mine")
        await fake.wait_for(lambda: fake.prompts["mine"].held_at == "1")
        await http.post("/interrupt", json={"prompt_id": "another"})
        assert fake.prompts["mine"].open
        await http.post("/interrupt", json={"prompt_id": "mine"})
        await fake.wait_for(lambda: ended(fake, "mine"))
        assert fake.prompts["mine"].state == "interrupted"
        entry = (await http.get("/history/mine")).json()["mine"]
        assert [message[0] for message in entry["status"]["messages"]][-1] == "execution_interrupted"
    assert fake.violations == []


async def test_history_is_stored_after_execution_success() -> None:
    fake = FakeComfyUI()
    fake.script.gates = {STORE: trio.Event()}
    async with serving(fake) as http, connect(fake, "me") as socket:
        await submit(http, "mine", "me")
        await until(socket, "execution_success")
        assert (await http.get("/history/mine")).json() == {}
        fake.script.gates[STORE].set()
        while (await until(socket, "executing"))["node"] is not None:
            pass
        assert "mine" in (await http.get("/history/mine")).json()


async def test_every_prompt_has_bytes_of_its_own_under_names_that_all_fakes_share() -> None:
    fake = FakeComfyUI()
    async with serving(fake) as http:
        await submit(http, "a")
        await submit(http, "b")
        await fake.wait_for(lambda: ended(fake, "a") and ended(fake, "b"))
        first, second = (fake.prompts[name].outputs["2"]["images"][0] for name in ("a", "b"))
        assert (first["filename"], second["filename"]) == ("ComfyUI_00001_.png", "ComfyUI_00002_.png")
        for prompt_id, image in (("a", first), ("b", second)):
            assert (await http.get("/view", params=image)).content == png_for(prompt_id, "2")
        part = await http.get("/view", params=first, headers={"Range": "bytes=1-3"})
        assert (part.status_code, part.content) == (206, b"PNG")
        again = await http.get("/view", params=first, headers={"If-None-Match": part.headers["etag"]})
        assert again.status_code == 304
    assert png_for("a", "2") != png_for("b", "2")


async def test_foreign_prompts_are_broadcast_without_executing_and_guarded() -> None:
    fake = FakeComfyUI()
    release = trio.Event()
    async with serving(fake) as http, connect(fake, "me") as socket:
        foreign = fake.submit_foreign(gate=release)
        assert (await until(socket, "progress_state"))["prompt_id"] == foreign
        await http.post("/queue", json={"delete": [foreign]})
        assert fake.prompts[foreign].state == "running"
        await http.post("/interrupt")
        await fake.wait_for(lambda: ended(fake, foreign))
        await http.post("/history", json={"clear": True})
    assert fake.violations == [
        f"POST /queue names the foreign prompt {foreign}",
        "POST /interrupt without a prompt_id",
        f"foreign prompt {foreign} was interrupted",
        "POST /history with clear: true",
    ]


async def test_the_hole_of_a_stock_interrupt_can_be_opened() -> None:
    fake = FakeComfyUI()
    comparison, mine = trio.Event(), trio.Event()
    fake.script.gate, fake.script.interrupt_gate = mine, comparison
    async with serving(fake) as http, trio.open_nursery() as nursery:
        await submit(http, "mine")
        foreign = fake.submit_foreign(gate=trio.Event())
        await fake.wait_for(lambda: fake.prompts["mine"].held_at)

        async def interrupt() -> None:
            await http.post("/interrupt", json={"prompt_id": "mine"})

        nursery.start_soon(interrupt)
        await fake.wait_for(lambda: fake.calls_to("POST", "/interrupt"))
        mine.set()
        await fake.wait_for(lambda: fake.prompts[foreign].held_at)
        comparison.set()
        await fake.wait_for(lambda: ended(fake, foreign))
    assert fake.prompts["mine"].state == "done"
    assert fake.violations == [f"foreign prompt {foreign} was interrupted"]


async def test_events_go_to_the_prompts_own_client_alone() -> None:
    fake = FakeComfyUI()
    async with serving(fake) as http, connect(fake, "me") as mine, connect(fake, "you") as yours:
        await submit(http, "p", "me")
        await until(mine, "execution_success")
        await fake.wait_for(lambda: ended(fake, "p"))
        fake.emit("the end", {})
        seen = []
        while (kind := json.loads(await yours.get_message())["type"]) != "the end":
            seen.append(kind)
        assert set(seen) == {"status"}


async def test_closing_an_old_socket_deregisters_a_new_one_of_the_same_client() -> None:
    fake = FakeComfyUI()
    fake.script.gate = trio.Event()
    async with serving(fake) as http, connect(fake, "me") as old:
        await submit(http, "p", "me")
        await until(old, "executing")
        async with connect(fake, "me") as new:
            await until(new, "status")
            # After a reconnect, `executing` names the node and no prompt.
            assert await until(new, "executing") == {"node": "1"}
            await old.aclose()
            await fake.wait_for(lambda: "me" not in fake.sockets)
            assert fake.connected == ["me"]


@pytest.mark.parametrize("reset", [False, True])
async def test_websockets_can_be_dropped(reset: bool) -> None:
    fake = FakeComfyUI()
    async with serving(fake) as http, connect(fake, "me") as socket:
        await until(socket, "status")
        fake.drop_websockets(reset=reset)
        with pytest.raises(trio_websocket.ConnectionClosed):
            await until(socket, "never")
        assert (await http.get("/prompt")).status_code == 200


async def test_a_silent_fake_loses_events_and_answers_http() -> None:
    fake = FakeComfyUI()
    async with serving(fake) as http, connect(fake, "me") as socket:
        await until(socket, "status")
        fake.go_silent()
        await submit(http, "p", "me")
        await fake.wait_for(lambda: ended(fake, "p"))
        await socket.ping()
        assert "p" in (await http.get("/history/p")).json()
        fake.resume()
        fake.emit("the end", {})
        assert json.loads(await socket.get_message())["type"] == "the end"


async def test_a_black_hole_answers_nothing_until_it_resumes() -> None:
    fake = FakeComfyUI()
    async with serving(fake) as http:
        fake.black_hole()
        with pytest.raises(httpx.ReadTimeout):
            await http.get("/prompt", timeout=0.05)
        fake.resume(discard=True)
        assert (await http.get("/prompt")).status_code == 200


async def test_it_can_stop_listening_and_crash_and_come_back_on_its_port() -> None:
    fake = FakeComfyUI()
    fake.script.gate = trio.Event()
    async with serving(fake) as http, connect(fake, "me") as socket:
        await submit(http, "p", "me")
        await until(socket, "executing")
        fake.crash()
        with pytest.raises(trio_websocket.ConnectionClosed):
            await until(socket, "never")
        with pytest.raises(httpx.TransportError):
            await http.get("/prompt")
        await fake.start_listening()
        assert (await http.get("/queue")).json() == {"queue_running": [], "queue_pending": []}
        assert fake.prompts["p"].state == "lost"
        fake.script.gate.set()
        await submit(http, "q")
        await fake.wait_for(lambda: ended(fake, "q"))


@pytest.mark.parametrize("accepts", [True, False])
async def test_a_post_that_is_never_answered_may_have_been_accepted(accepts: bool) -> None:
    fake = FakeComfyUI()
    fake.script.post_fate, fake.script.post_accepts = "hang", accepts
    async with serving(fake) as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.post("/prompt", json={"prompt": GRAPH, "prompt_id": "p"}, timeout=0.05)
        assert ("p" in fake.prompts) is accepts


@pytest.mark.parametrize(("where", "queued"), [("queued", False), ("running", True)])
async def test_prompts_can_get_lost(where: Literal["queued", "running"], queued: bool) -> None:
    fake = FakeComfyUI()
    fake.script.for_prompt = lambda graph, prompt_id: PromptScript(lose_at=where)
    async with serving(fake) as http:
        assert (await submit(http, "p")).status_code == 200
        await fake.wait_for(lambda: ended(fake, "p"))
        assert (await http.get("/history")).json() == {}
        assert (await http.get("/queue")).json() == {"queue_running": [], "queue_pending": []}
        assert ("running" in fake.prompts["p"].times) is queued


async def test_a_download_can_be_cut_short_chunked_refused_or_reset() -> None:
    fake = FakeComfyUI()
    scripts = {
        "cut": PromptScript(view_truncate=10),
        "chunked": PromptScript(view_chunked=True),
        "refused": PromptScript(view_status=404),
        "reset": PromptScript(view_fate="reset"),
    }
    fake.script.for_prompt = lambda graph, prompt_id: scripts[prompt_id]
    async with serving(fake) as http:
        for prompt_id in scripts:
            await submit(http, prompt_id)
        await fake.wait_for(lambda: all(ended(fake, prompt_id) for prompt_id in scripts))
        images = {key: fake.prompts[key].outputs["2"]["images"][0] for key in scripts}
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get("/view", params=images["cut"])
        assert (await http.get("/view", params=images["chunked"])).content == png_for("chunked", "2")
        assert (await http.get("/view", params=images["refused"])).status_code == 404
        with pytest.raises(httpx.TransportError):
            await http.get("/view", params=images["reset"])


async def test_atomic_cancel_is_there_when_asked_for() -> None:
    stock, modern = FakeComfyUI(), FakeComfyUI(atomic_cancel=True)
    held, waiting = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
    modern.script.gate = trio.Event()
    async with serving(stock) as http:
        # A stock server serves files under every path: 405 for a POST that it does not know (aiohttp,
        # measured).
        assert (await http.post(f"/api/jobs/{held}/cancel")).status_code == 405
        assert (await http.get(f"/api/jobs/{held}")).status_code == 404
    async with serving(modern) as http:
        assert (await submit(http, "not-a-uuid")).status_code == 400
        await submit(http, held)
        await submit(http, waiting)
        assert (await http.get(f"/api/jobs/{waiting}")).json()["status"] == "pending"
        for prompt_id, there in ((waiting, True), (held, True), ("unknown", False)):
            assert (await http.post(f"/api/jobs/{prompt_id}/cancel")).json() == {"cancelled": there}
        await modern.wait_for(lambda: ended(modern, held))
        assert (await http.get(f"/api/jobs/{held}")).json()["status"] == "cancelled"
        assert (await http.get(f"/api/jobs/{waiting}")).status_code == 404
    assert [modern.prompts[key].state for key in (held, waiting)] == ["interrupted", "deleted"]


async def test_every_route_is_also_below_api_and_every_call_is_recorded() -> None:
    fake = FakeComfyUI(lacks=["ImageBlur"])
    async with serving(fake) as http:
        assert "ImageBlur" not in (await http.get("/api/object_info")).json()
        await http.post("/api/upload/image", files={"image": ("a.png", b"x")}, data={"subfolder": "bridged"})
        told = (await http.get("/object_info/LoadImage")).json()["LoadImage"]["input"]["required"]["image"][0]
        assert told == ["example.png"]
        assert fake.files.has_input("bridged/a.png")
        routes = [(call.method, call.route, call.status) for call in fake.calls]
        assert routes[0] == ("GET", "/object_info", 200)
        (upload,) = fake.calls_to("POST", "/upload/image")
        assert (upload.upload_name, upload.upload_subfolder) == ("a.png", "bridged")
        assert [call["route"] for call in (await http.get("/__calls")).json()] == [
            route for _, route, _ in routes
        ]


async def test_an_interrupt_between_the_queue_and_the_start_is_lost_as_on_a_real_one() -> None:
    fake = FakeComfyUI()
    start = trio.Event()
    fake.script.gates = {START: start}
    async with serving(fake) as http:
        await submit(http, "p")
        await fake.wait_for(lambda: fake.prompts["p"].held_at == START)
        await http.post("/interrupt", json={"prompt_id": "p"})
        start.set()
        await fake.wait_for(lambda: ended(fake, "p"))
    assert fake.prompts["p"].state == "done"
