"""The fake answers what a real ComfyUI 0.3.64 answered: recorded conversations, replayed against it over real
sockets.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
import trio_websocket

from tests.fakes import recording
from tests.fakes.comfyui import FakeComfyUI, Script, recorded_classes
from tests.fakes.recording import Frame, Ids, Request, Response, Transcript, differences, mask, mask_frame

LIMIT = 10  # seconds; nothing here takes one
MAX_MESSAGE = 4 << 20
INPUTS = ("example.png", "example (1).png", "corrupt.png")


class Replay:
    """One fake, and one client of it for each transcript that is replayed."""

    def __init__(self, fake: FakeComfyUI, http: httpx.AsyncClient) -> None:
        self.fake, self.http, self.ids = fake, http, Ids()

    async def run(
        self, transcript: Transcript, *, actions: Mapping[int, Callable[[], Awaitable[None]]] | None = None
    ) -> None:
        """Plays a transcript step by step; asserts that every answer and every event is the recorded one.

        `actions[n]` is awaited after the n-th exchange.
        """
        client_id = client_of(transcript)
        exchanges = iter(transcript.exchanges())
        done = 0
        async with trio_websocket.open_websocket_url(
            f"{self.fake.url}/ws?clientId={client_id}".replace("http", "ws"), max_message_size=MAX_MESSAGE
        ) as socket:
            for frame in transcript.steps:
                if isinstance(frame, Frame) and frame.sent:
                    await socket.send_message(json.dumps(frame.json))
            if transcript.frames():
                # The recorder had connected, and greeted, before it sent the first request.
                assert_same(transcript.events()[0], await socket.get_message())
            skip = 1
            for step in transcript.steps:
                if isinstance(step, Response):
                    request, response = next(exchanges)
                    await self.exchange(request, response)
                    done += 1
                    if actions and done in actions:
                        await actions[done]()
                elif isinstance(step, Frame) and not step.sent:
                    if skip:
                        skip -= 1
                        continue
                    recorded = mask_frame(step.json if step.binary is None else step.binary)
                    assert_same(recorded, await socket.get_message())

    async def exchange(self, request: Request, recorded: Response) -> None:
        body = self.ids.translate(request.json)
        live = await self.http.request(
            request.method, self.ids.translate(request.path), params=request.params, json=body
        )
        assert live.status_code == recorded.status, request
        told = {name.lower() for name in live.headers}
        assert {name.lower() for name in recorded.headers} <= told
        kind = recorded.headers.get("Content-Type")
        assert kind is None or live.headers["content-type"] == kind
        if recorded.json is None:
            assert bool(recorded.body) == bool(live.content)
        else:
            self.ids.learn(recorded.json, live.json())
            found = differences(mask(recorded.json), mask(live.json()))
            assert not found, (request.path, found)


def assert_same(recorded: Any, message: str | bytes) -> None:
    live = mask_frame(message if isinstance(message, bytes) else json.loads(message))
    assert not differences(recorded, live), (recorded, live)


def client_of(transcript: Transcript) -> str:
    for request, _ in transcript.exchanges():
        if isinstance(request.json, dict) and "client_id" in request.json:
            return str(request.json["client_id"])
    return "nobody"


@asynccontextmanager
async def replaying(script: Script) -> AsyncIterator[Replay]:
    fake = FakeComfyUI(
        classes=recorded_classes(),
        inputs=dict.fromkeys(INPUTS, b"an image"),
        models={"checkpoints": ["sd15_random.safetensors"]},
        script=script,
    )
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            url = await nursery.start(fake.serve)
            async with httpx.AsyncClient(base_url=url) as http:
                yield Replay(fake, http)
            assert fake.violations == []
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("name", ["success", "own_prompt_id"])
async def test_a_prompt_that_succeeds(name: str) -> None:
    async with replaying(Script()) as replay:
        await replay.run(recording.load(name))


async def test_a_prompt_that_ran_before_is_cached() -> None:
    async with replaying(Script(auto_cache=True)) as replay:
        await replay.run(recording.load("success"))
        await replay.run(recording.load("cached_rerun"))


async def test_previews_of_both_kinds() -> None:
    first, second = recording.load("txt2img_progress_previews"), recording.load("txt2img_legacy_previews")
    picture = next(frame.binary for frame in second.frames() if frame.binary is not None)[8:]
    async with replaying(Script(auto_cache=True, preview=picture, node_steps={"3": 4})) as replay:
        await replay.run(first)
        replay.fake.script.node_steps = {"3": 2}
        await replay.run(second)


async def test_a_node_that_raises() -> None:
    transcript = recording.load("execution_error")
    (upload, *_), _ = zip(*transcript.exchanges(), strict=True)
    steps = tuple(step for step in transcript.steps if step is not upload)[1:]
    script = Script(
        fail_node="LoadImage",
        fail_type="PIL.UnidentifiedImageError",
        fail_message="cannot identify image file '/srv/comfyui/input/corrupt.png'",
    )
    async with replaying(script) as replay:
        await replay.run(Transcript(transcript.name, steps))


async def test_an_interrupt_stops_the_prompt_that_it_names_at_the_next_node() -> None:
    transcript = recording.load("interrupt_running")
    blur = trio.Event()

    async def finish_the_node() -> None:
        blur.set()

    async with replaying(Script(busy={"11": blur})) as replay:
        told = [request.path for request, _ in transcript.exchanges()]
        await replay.run(transcript, actions={told.index("/interrupt") + 2: finish_the_node})


async def test_a_pending_prompt_can_be_deleted() -> None:
    transcript = recording.load("delete_pending")
    empty = trio.Event()
    script = Script(busy={"1": empty})
    wanted = [event for event in transcript.events() if event.get("type") != "status"]
    async with replaying(script) as replay:
        address = f"{replay.fake.url}/ws?clientId={client_of(transcript)}".replace("http", "ws")
        async with trio_websocket.open_websocket_url(address) as socket:
            *exchanges, last = transcript.exchanges()
            for request, response in exchanges:
                await replay.exchange(request, response)
            empty.set()
            # The recorder's two POSTs outran the worker, ours do not: the status broadcasts are mixed in
            # elsewhere.
            broadcasts = 0
            while wanted:
                message = await socket.get_message()
                if json.loads(message)["type"] == "status":
                    broadcasts += 1
                else:
                    assert_same(wanted.pop(0), message)
            assert broadcasts == sum(event["type"] == "status" for event in transcript.events())
        await replay.fake.wait_for(lambda: replay.fake.engine.running is None)
        await replay.exchange(*last)


async def test_every_refusal() -> None:
    async with replaying(Script()) as replay:
        for request, response in recording.load("validation_errors").exchanges():
            await replay.exchange(request, response)


async def test_uploads() -> None:
    async with replaying(Script()) as replay:
        for name in INPUTS:
            del replay.fake.files.files["input", "", name]
        for request, recorded in recording.load("upload").exchanges():
            note = request.note or ""
            fields = dict(
                pair.split("=") for pair in note.split() if "=" in pair and not pair.startswith("image=")
            )
            fields = {key: value for key, value in fields.items() if value != "None"}
            content = b"other" if "other bytes" in note else b"bytes"
            live = await replay.http.post(
                "/upload/image", data=fields, files={"image": ("example.png", content, "image/png")}
            )
            assert live.status_code == recorded.status, note
            assert recorded.json is None or live.json() == recorded.json


TOLD_BY_THE_MACHINE = {"/system_stats", "/internal/files/output", "/internal/folder_paths", "/extensions"}


async def test_what_a_server_says_of_itself() -> None:
    async with replaying(Script()) as replay:
        for request, recorded in recording.load("views_and_info").exchanges():
            if request.path not in TOLD_BY_THE_MACHINE:
                await replay.exchange(request, recorded)
            elif request.path == "/system_stats":
                live = (await replay.http.get("/system_stats")).json()
                assert live["system"].keys() == recorded.json["system"].keys()
                assert live["devices"][0].keys() == recorded.json["devices"][0].keys()


async def test_every_transcript_is_replayed() -> None:
    assert set(recording.names()) == {
        "cached_rerun",
        "delete_pending",
        "execution_error",
        "interrupt_running",
        "own_prompt_id",
        "success",
        "txt2img_legacy_previews",
        "txt2img_progress_previews",
        "upload",
        "validation_errors",
        "views_and_info",
    }
