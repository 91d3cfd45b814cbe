"""The worker gives the answers and the events that a real ComfyUI 0.3.64 gave: its recordings, played
again."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from bridged.embedded.nodes import NODES
from bridged.embedded.sockets import FEATURES
from tests.fakes import recording
from tests.fakes.recording import Ids, Request, Response, differences, mask

if TYPE_CHECKING:
    import httpx

    from tests.embedded.client import Client


def answer_differences(recorded: Response, live: httpx.Response) -> list[str]:
    found = (
        [] if live.status_code == recorded.status else [f"status {recorded.status}, live {live.status_code}"]
    )
    expected = set(recorded.headers) - {"Content-Length", "Etag", "Last-Modified"}
    found += [f"header {name} is missing" for name in sorted(expected) if name not in live.headers]
    for name in ("Content-Type", "Content-Disposition", "Accept-Ranges"):
        if recorded.headers.get(name) not in (None, live.headers.get(name)):
            found.append(f"{name}: recorded {recorded.headers[name]}, live {live.headers.get(name)}")
    if recorded.json is not None:
        found += differences(mask(recorded.json), mask(live.json()))
    elif not recorded.body and live.content:
        found.append("the recorded answer was empty")
    return found


async def replay(client: Client, request: Request, ids: Ids, response: Response) -> httpx.Response:
    """Send it again, and hold the answer against the recorded one."""
    live = await client.http.request(
        request.method, ids.translate(request.path), params=request.params, json=ids.translate(request.json)
    )
    if live.headers.get("content-type", "").startswith("application/json") and live.status_code == 200:
        ids.learn(response.json, live.json())
    assert answer_differences(response, live) == [], f"{request.method} {request.path} ({request.note})"
    return live


def client_id_of(transcript: recording.Transcript) -> str:
    request, _ = next(transcript.exchanges())
    client_id: str = request.json["client_id"]
    return client_id


async def finish(client: Client, exchanges: list[tuple[Request, Response]], ids: Ids) -> list[httpx.Response]:
    return [await replay(client, request, ids, response) for request, response in exchanges]


@pytest.mark.parametrize("name", ["success", "own_prompt_id"])
async def test_a_prompt_that_succeeds(client: Client, name: str) -> None:
    transcript = recording.load(name)
    (first, *rest), ids = list(transcript.exchanges()), Ids()
    async with client.socket(client_id_of(transcript)) as socket:
        await replay(client, first[0], ids, first[1])
        await socket.until_over()
    assert differences(transcript.events(), socket.masked()) == []
    # The recording server had saved pictures before: only the counter in their names is another one.
    for request, response in rest:
        if request.path == "/view":
            live = await client.http.get("/view", params=request.params)
            assert answer_differences(response, live) == []
            real, ours = (Image.open(io.BytesIO(data)) for data in (response.body or b"", live.content))
            assert (real.size, real.mode, real.info.keys()) == (ours.size, ours.mode, ours.info.keys())
        else:
            await replay(client, request, ids, response)


async def test_a_prompt_that_has_run_before_is_cached(client: Client) -> None:
    before = recording.load("success")
    await client.run(next(before.exchanges())[0].json["prompt"])
    transcript = recording.load("cached_rerun")
    (first, *rest), ids = list(transcript.exchanges()), Ids()
    async with client.socket(client_id_of(transcript)) as socket:
        await replay(client, first[0], ids, first[1])
        await socket.until_over()
    assert differences(transcript.events(), socket.masked()) == []
    await finish(client, rest, ids)


async def test_a_node_that_fails(client: Client) -> None:
    transcript = recording.load("execution_error")
    (upload, first, *rest), ids = list(transcript.exchanges()), Ids()
    live = await client.upload("corrupt.png", b"this is not a picture")
    assert answer_differences(upload[1], live) == []
    async with client.socket(first[0].json["client_id"]) as socket:
        await replay(client, first[0], ids, first[1])
        await socket.until_over()
    assert differences(transcript.events(), socket.masked()) == []
    await finish(client, rest, ids)


async def test_an_interrupt_reaches_only_the_prompt_it_names(client: Client) -> None:
    transcript = recording.load("interrupt_running")
    (first, queue, other, interrupt, *rest), ids = list(transcript.exchanges()), Ids()
    async with client.socket(client_id_of(transcript)) as socket:
        await replay(client, first[0], ids, first[1])
        await socket.until_event("executing", node="11")
        await finish(client, [queue, other, interrupt], ids)
        await socket.until_over()
    *_, interrupted, status, over = socket.masked()
    *expected, recorded, recorded_status, recorded_over = transcript.events()
    assert [status, over] == [recorded_status, recorded_over]
    # Where the interrupt strikes is a race; what is said before and then is not.
    assert interrupted["type"] == "execution_interrupted"
    assert interrupted["data"].keys() == recorded["data"].keys()
    until = [event["type"] for event in expected].index("executing")
    assert differences(expected[: until + 1], socket.masked()[: until + 1]) == []
    history, answer = rest[0]
    live = await client.http.get(ids.translate(history.path))
    (entry,), (wanted,) = live.json().values(), answer.json.values()
    for key in ("prompt", "outputs", "meta"):
        assert differences(mask(wanted[key]), mask(entry[key])) == []
    assert entry["status"]["status_str"] == "error"
    assert [kind for kind, _ in entry["status"]["messages"]] == [
        "execution_start",
        "execution_cached",
        "execution_interrupted",
    ]


async def test_a_waiting_prompt_can_be_deleted(client: Client) -> None:
    transcript = recording.load("delete_pending")
    exchanges, ids = list(transcript.exchanges()), Ids()
    async with client.socket(client_id_of(transcript)) as socket:
        await finish(client, exchanges[:1], ids)
        await socket.until_event("executing", node="10")
        await finish(client, exchanges[1:7], ids)
        await socket.until_event("execution_interrupted")
        await socket.until_over()
    statuses = [
        message["data"]["status"]["exec_info"]["queue_remaining"]
        for message in socket.messages
        if message["type"] == "status"
    ]
    # Connected; put, taken; put; the deletion, said twice; interrupted.
    assert statuses == [0, 1, 1, 2, 1, 1, 0]
    await finish(client, exchanges[7:], ids)


def known(request: Request) -> bool:
    graph = request.json.get("prompt", {})
    return all(node["class_type"] in NODES or node["class_type"] == "NoSuchNode" for node in graph.values())


async def test_prompts_that_are_refused(client: Client) -> None:
    exchanges = [pair for pair in recording.load("validation_errors").exchanges() if known(pair[0])]
    assert len(exchanges) == 9
    for request, response in exchanges:
        await replay(client, request, Ids(), response)


async def test_a_class_the_worker_lacks_is_refused_like_any_unknown_one(client: Client) -> None:
    request, _ = next(recording.load("validation_errors").exchanges())
    answer = await client.http.post("/prompt", json=request.json)
    assert answer.status_code == 400
    assert answer.json()["error"] == {
        "type": "invalid_prompt",
        "message": "Cannot execute because node CheckpointLoaderSimple does not exist.",
        "details": "Node ID '#4'",
        "extra_info": {},
    }


async def test_uploads(client: Client) -> None:
    exchanges = list(recording.load("upload").exchanges())
    uploads: list[tuple[bytes, dict[str, str]]] = [
        (b"first", {}),
        (b"first", {}),
        (b"first", {"overwrite": "true"}),
        (b"first", {"subfolder": "bridged", "type": "input"}),
        (b"other", {}),
        (b"first", {"subfolder": "../.."}),
    ]
    await client.upload(
        "example.png", b"first", overwrite="true"
    )  # the recording's folder had no example picture
    for (request, response), (data, fields) in zip(exchanges, uploads, strict=True):
        live = await client.upload("example.png", data, **fields)
        assert answer_differences(response, live) == [], request.note


ELSEWHERE = {
    "/models/checkpoints",  # the worker has no models
    "/internal/files/input",
    "/internal/files/output",
    "/internal/folder_paths",
    "/extensions",
    "/system_stats",
}


async def test_what_it_says_about_itself(client: Client) -> None:
    compared = []
    for request, response in recording.load("views_and_info").exchanges():
        wanted: Any = response.json
        other_class = isinstance(wanted, dict) and any(name not in NODES for name in wanted)
        if request.path in ELSEWHERE or (request.path.startswith("/object_info/") and other_class):
            continue
        if request.path == "/object_info/LoadImage":
            wanted["LoadImage"]["input"]["required"]["image"][0] = ["example.png"]
        await replay(client, request, Ids(), response)
        compared.append(request.path)
    assert len(compared) == 7


async def test_system_stats_have_the_same_keys(client: Client) -> None:
    recorded = next(
        response.json
        for request, response in recording.load("views_and_info").exchanges()
        if request.path == "/system_stats"
    )
    live = await client.get("/system_stats")
    assert live.keys() == recorded.keys()
    assert live["system"].keys() == recorded["system"].keys()
    assert live["devices"][0].keys() == recorded["devices"][0].keys()


async def test_every_class_is_described_as_in_a_real_comfyui(client: Client) -> None:
    recorded, live = recording.object_info(), await client.get("/object_info")
    recorded["LoadImage"]["input"]["required"]["image"][0] = ["example.png"]
    assert len(live) == 13
    for name, info in live.items():
        assert differences(recorded[name], info) == [], name
        assert list(info["input"]["required"]) == list(recorded[name]["input"]["required"])


@pytest.mark.parametrize("announced", [True, False], ids=["with metadata", "legacy"])
async def test_previews_come_as_from_a_real_sampler(client: Client, announced: bool) -> None:
    name = "txt2img_progress_previews" if announced else "txt2img_legacy_previews"
    recorded = recording.load(name).events()
    async with client.socket("previews") as socket:
        if announced:
            await socket.send({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
            assert (await socket.next()) == {"type": "feature_flags", "data": FEATURES}
        prompt = {
            "1": {
                "class_type": "EmptyImage",
                "inputs": {"width": 64, "height": 64, "batch_size": 3, "color": 7},
            },
            "3": {
                "class_type": "ImageBlur",
                "inputs": {"image": ["1", 0], "blur_radius": 1, "sigma": 1.0},
            },
            "9": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
        }
        await client.submit(prompt, "previews")
        await socket.until_over()

    def order(events: list[Any]) -> list[str]:
        """The kinds of the events from the last preview's report to the end of the node."""
        kinds = [event.get("type") or f"binary {event['binary']}" for event in events]
        last = max(index for index, event in enumerate(events) if "binary" in event)
        return kinds[last - 2 : last + 3]

    live = socket.masked()
    assert order(live) == order(recorded)
    preview, wanted = ([event for event in events if "binary" in event][-1] for events in (live, recorded))
    assert differences(wanted, preview) == []
    progress = [event["data"] for event in live if event.get("type") == "progress"]
    assert progress[-1] == {"value": 3, "max": 3, "prompt_id": "<id>", "node": "3"}
