"""The worker over the wire, where the recordings say nothing."""

from __future__ import annotations

import io
import json
import socket as stdlib_socket
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import trio
from PIL import Image

from bridged.embedded import hub
from tests.embedded.client import Client, chain, tiny
from tests.embedded.conftest import running_worker

if TYPE_CHECKING:
    import pathlib


async def test_every_route_is_there_under_api_as_well(client: Client) -> None:
    for path in ["/prompt", "/queue", "/history", "/history/x", "/object_info/SaveImage"]:
        assert (await client.http.get("/api" + path)).json() == await client.get(path)
    for path in ["/system_stats", "/features", "/models", "/models/vae", "/embeddings"]:
        assert (await client.http.get("/api" + path)).status_code == 200
    assert (await client.http.get("/models/nonsense")).status_code == 404
    assert await client.get("/internal/files/input") == ["example.png"]
    assert (await client.http.get("/internal/files/etc")).status_code == 400


@pytest.mark.parametrize("path", ["/prompt", "/queue", "/history", "/free"])
@pytest.mark.parametrize("body", [b"{nonsense", b"[]", b"\xff"])
async def test_malformed_json_is_a_500(client: Client, path: str, body: bytes) -> None:
    assert (await client.http.post(path, content=body)).status_code == 500


@pytest.mark.parametrize("prompt", [[], ["a"], "text", 7, {"1": "text"}, {"1": None}, {"1": ["class_type"]}])
async def test_a_prompt_that_is_no_graph_harms_nobody(client: Client, prompt: Any) -> None:
    assert (await client.post("/prompt", {"prompt": prompt})).status_code in (400, 500)
    await client.run(tiny())


async def test_a_cycle_is_refused(client: Client) -> None:
    prompt = {
        "1": {"class_type": "ImageInvert", "inputs": {"image": ["2", 0]}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    }
    assert (await client.post("/prompt", {"prompt": prompt})).status_code == 400
    # Where no output needs it, it is not looked at, and must not stop what is good.
    entry = await client.run(prompt | good_parts())
    assert entry["status"]["status_str"] == "success"


def good_parts() -> dict[str, Any]:
    """An output of its own next to nodes that lead nowhere: a cycle, a link to nothing, a class without
    inputs."""
    return {
        "1": {"class_type": "ImageInvert", "inputs": {"image": ["2", 0]}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "ImageInvert", "inputs": {"image": ["nobody", 0]}},
        "4": {"class_type": "ImageInvert"},
        "5": {"class_type": "ImageInvert", "inputs": {"image": [["list"], 0]}},
        "6": tiny()["1"],
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "x"}},
    }


async def test_a_web_page_from_elsewhere_cannot_queue_work(client: Client) -> None:
    body = {"prompt": tiny()}
    elsewhere = await client.http.post("/prompt", json=body, headers={"Origin": "http://evil.example"})
    assert elsewhere.status_code == 403
    own = await client.http.post("/prompt", json=body, headers={"Origin": client.url})
    assert own.status_code == 200


async def test_events_reach_only_the_client_of_the_prompt(client: Client) -> None:
    async with client.socket("mine") as mine, client.socket("yours") as yours:
        await client.submit(tiny(), "mine")
        await mine.until_over()
        while len(yours.messages) < 4:  # on connecting; queued, taken, done
            await yours.next()
        assert await yours.nothing_more()
    assert set(yours.types()) == {"status"}
    assert "executed" in mine.types()


async def test_a_prompt_without_a_client_tells_everybody_its_progress(client: Client) -> None:
    async with client.socket("anyone") as socket:
        prompt_id = await client.submit(chain(1, side=32, batch=2))
        await socket.until_event("progress", value=2)
        while not await client.get(f"/history/{prompt_id}"):
            await socket.next()
    types = set(socket.types())
    assert {"status", "progress_state", "progress", "binary"} >= types
    assert {"progress_state", "progress", "binary"} <= types


async def test_prompts_run_by_number_then_by_arrival(client: Client) -> None:
    async with client.socket("me") as socket:
        first = await client.submit(chain(30, side=64), "me")
        await socket.until_event("executing", node="10")
        late = await client.submit(tiny(2), "me")
        soon = await client.submit(tiny(3), "me", front=True)
        sooner = await client.submit(tiny(4), "me", number=-100)
        await client.post("/interrupt", {"prompt_id": first})
        for _ in range(4):
            await socket.until_over()
    started = [
        message["data"]["prompt_id"]
        for message in socket.messages
        if isinstance(message, dict) and message["type"] == "execution_start"
    ]
    assert started == [first, sooner, soon, late]


async def test_an_interrupt_stops_a_batch_between_two_pictures(client: Client) -> None:
    async with client.socket("me") as socket:
        prompt_id = await client.submit(chain(1, side=256, batch=200), "me")
        await socket.until_event("progress")
        assert (await client.post("/interrupt", {"prompt_id": prompt_id})).status_code == 200
        await socket.until_event("execution_interrupted", prompt_id=prompt_id, node_id="10")
        await socket.until_over()
    progress = [message["data"]["value"] for message in socket.messages if is_event(message, "progress")]
    assert progress[-1] < 200
    entry = (await client.get(f"/history/{prompt_id}"))[prompt_id]
    assert entry["status"]["completed"] is False
    assert entry["outputs"] == {}
    # And the next prompt is not harmed.
    assert (await client.run(tiny()))["status"]["completed"] is True


def is_event(message: Any, kind: str) -> bool:
    return isinstance(message, dict) and message["type"] == kind


async def test_an_interrupt_without_a_prompt_id_stops_whatever_runs(client: Client) -> None:
    assert (await client.http.post("/interrupt")).status_code == 200  # nothing runs: nothing happens
    async with client.socket("me") as socket:
        await client.submit(chain(40, side=256), "me")
        await socket.until_event("executing", node="10")
        await client.http.post("/interrupt", content=b"no json")
        await socket.until_event("execution_interrupted")
        await socket.until_over()


async def test_a_client_that_comes_back_is_told_what_runs(client: Client) -> None:
    async with client.socket("me") as first:
        await client.submit(chain(40, side=256), "me")
        await first.until_event("executing", node="10")
        async with client.socket("me") as second:
            message = await second.next()
            assert message["type"] == "executing"
            assert "prompt_id" not in message["data"]
            await client.post("/interrupt", {})
            await second.until_over()


async def test_freed_memory_means_that_everything_runs_again(client: Client) -> None:
    first = await client.run(tiny())
    assert (await client.post("/free", {"free_memory": True})).status_code == 200
    again = await client.run(tiny())
    names = [entry["outputs"]["2"]["images"][0]["filename"] for entry in (first, again)]
    assert names == ["tiny_00001_.png", "tiny_00002_.png"]


async def test_a_changed_file_runs_again_and_an_equal_one_does_not(client: Client) -> None:
    prompt = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a"}},
    }
    red, blue = (png(Image.new("RGB", (8, 8), color)) for color in ("red", "blue"))
    names = []
    for data in (red, red, blue):
        await client.upload("a.png", data, overwrite="true")
        entry = await client.run(prompt)
        names.append(entry["outputs"]["2"]["images"][0]["filename"])
    assert names == ["a_00001_.png", "a_00001_.png", "a_00002_.png"]
    picture = Image.open(io.BytesIO(await client.picture(entry, "2")))
    assert picture.getpixel((0, 0)) == (0, 0, 255)


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


async def test_a_whole_graph_gives_the_expected_picture(client: Client) -> None:
    prompt = {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": 4, "height": 2, "batch_size": 1, "color": 0x102030},
        },
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "ImageRotate", "inputs": {"image": ["2", 0], "rotation": "90 degrees"}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
    }
    entry = await client.run(prompt)
    assert entry["outputs"]["4"]["images"][0]["type"] == "temp"
    pixels = np.asarray(Image.open(io.BytesIO(await client.picture(entry, "4"))))
    assert pixels.shape == (4, 2, 3)
    assert np.abs(pixels.astype(int) - [0xEF, 0xDF, 0xCF]).max() <= 1


async def test_views_can_be_partial_and_conditional(client: Client, base: pathlib.Path) -> None:
    data = bytes(range(256)) * 4000  # larger than one read
    (base / "output" / "data.bin").write_bytes(data)

    async def view(**headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await client.http.get("/view", params={"filename": "data.bin"}, headers=named)

    whole = await view()
    assert (whole.status_code, whole.content) == (200, data)
    assert whole.headers["content-disposition"] == 'filename="data.bin"'
    etag = whole.headers["etag"]
    for wanted, start, end in [
        ("5-9", 5, 10),
        ("-7", len(data) - 7, len(data)),
        ("1000000-", 10**6, len(data)),
    ]:
        part = await view(Range=f"bytes={wanted}")
        assert (part.status_code, part.content) == (206, data[start:end])
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{len(data)}"
    assert (await view(Range="bytes=99999999-")).status_code == 416
    assert (await view(Range="bytes=1-2", If_Range='"other"')).status_code == 200
    assert (await view(Range="lines=1-2")).status_code == 200
    assert (await view(If_None_Match=etag)).status_code == 304
    assert (await view(If_Modified_Since=whole.headers["last-modified"])).status_code == 304
    assert (await view(If_None_Match='"other"')).status_code == 200
    head = await client.http.head("/view", params={"filename": "data.bin"})
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(data)))


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({}, 404),
        ({"filename": ""}, 400),
        ({"filename": "nope.png"}, 404),
        ({"filename": "../input/example.png"}, 400),
        ({"filename": "/etc/passwd"}, 400),
        ({"filename": "example.png", "subfolder": "../input"}, 403),
        ({"filename": "example.png", "subfolder": "/etc"}, 403),
        ({"filename": "example.png", "type": "etc"}, 400),
        ({"filename": "example.png", "type": "input", "subfolder": "\0"}, 403),
        ({"filename": "example.png", "type": "input"}, 200),
    ],
)
async def test_views_stay_in_their_folder(client: Client, query: dict[str, str], status: int) -> None:
    assert (await client.http.get("/view", params=query)).status_code == status


async def test_a_browser_is_given_no_page_to_run(client: Client) -> None:
    await client.upload("page.html", b"<script>")
    answer = await client.http.get("/view", params={"filename": "page.html", "type": "input"})
    assert answer.headers["content-type"] == "application/octet-stream"


async def test_views_can_be_re_encoded(client: Client) -> None:
    await client.upload("clear.png", png(Image.new("RGBA", (3, 2), (1, 2, 3, 4))))
    for extra, kind, mode in [
        ({"preview": "webp;50"}, "WEBP", "RGBA"),
        ({"preview": "jpeg"}, "JPEG", "RGB"),
        ({"channel": "rgb"}, "PNG", "RGB"),
        ({"channel": "a"}, "PNG", "RGBA"),
    ]:
        answer = await client.http.get("/view", params={"filename": "clear.png", "type": "input", **extra})
        picture = Image.open(io.BytesIO(answer.content))
        assert (picture.format, picture.mode, picture.size) == (kind, mode, (3, 2))


@pytest.mark.parametrize("fields", [{"subfolder": "../x"}, {"type": "etc"}])
async def test_uploads_stay_in_their_folder(client: Client, fields: dict[str, str]) -> None:
    assert (await client.upload("a.png", b"1", **fields)).status_code == 400


async def test_an_upload_needs_a_file(client: Client) -> None:
    assert (await client.http.post("/upload/image", data={"image": "text"})).status_code == 400


async def test_history_can_be_paged_and_cleared(client: Client) -> None:
    ids = [(await client.run(tiny(color)))["prompt"][1] for color in range(3)]
    assert list(await client.get("/history")) == ids
    assert list(await client.get("/history", max_items="2")) == ids[1:]
    assert list(await client.get("/history", max_items="1", offset="1")) == ids[1:2]
    await client.post("/history", {"delete": [ids[0], "unknown"]})
    assert list(await client.get("/history")) == ids[1:]
    await client.post("/history", {"clear": True})
    assert await client.get("/history") == {}


async def test_secrets_in_extra_data_are_not_kept(client: Client) -> None:
    async with client.socket("me") as socket:
        prompt_id = await client.submit(tiny(), "me", extra_data={"api_key_comfy_org": "secret", "a": 1})
        await socket.until_over()
    entry = (await client.get(f"/history/{prompt_id}"))[prompt_id]
    assert entry["prompt"][3] == {"a": 1, "client_id": "me"}


HANDSHAKE = "\r\n".join(
    [
        "GET /ws?clientId=stalled HTTP/1.1",
        "Host: x",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "\r\n",
    ]
).encode()


async def test_a_socket_that_stops_reading_holds_up_nobody(
    base: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its queue fills, it is disconnected, and other clients' prompts go on all the while."""
    monkeypatch.setattr(hub, "MAX_BYTES", 20_000)
    with stdlib_socket.socket() as stalled:
        async with running_worker(base) as client:
            stalled.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_RCVBUF, 4096)
            host, port = client.url.removeprefix("http://").split(":")
            await trio.to_thread.run_sync(stalled.connect, (host, int(port)))
            stalled.sendall(HANDSHAKE)
            async with client.socket("other") as other:
                with trio.fail_after(60):
                    for _ in range(60):
                        await client.submit(chain(40, side=8), "stalled")
                        await client.submit(tiny(), "other")
                        await other.until_over()
            assert "does not read its events" in caplog.text
            # An RST, so that the worker's end of it need not wait for the kernel's time-out.
            stalled.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            stalled.close()


@pytest.mark.parametrize("client_id", [7, ["list"], {"a": 1}, True])
async def test_a_strange_client_id_harms_nobody(client: Client, client_id: Any) -> None:
    assert (await client.post("/prompt", {"prompt": tiny(), "client_id": client_id})).status_code == 200
    await client.run(tiny(3))


@pytest.mark.parametrize("name", ["\ud800.png", "a\0.png", "x" * 5000 + ".png", "../../../etc/passwd", ""])
async def test_a_strange_file_name_is_refused(client: Client, name: str) -> None:
    prompt = {
        "1": {"class_type": "LoadImage", "inputs": {"image": name}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    answer = await client.http.post("/prompt", content=json.dumps({"prompt": prompt}))
    assert answer.status_code == 400
    assert answer.json()["node_errors"]["1"]["errors"][0]["type"] == "custom_validation_failed"


async def test_a_socket_may_say_anything(client: Client) -> None:
    async with client.socket("me") as socket:
        for text in ["{nonsense", "[]", "7", json.dumps({"type": "feature_flags"})]:
            await socket._connection.send_message(text)
        await socket._connection.send_message(b"bytes")
        await client.submit(tiny(), "me")
        await socket.until_over()
    assert "feature_flags" not in socket.types()  # only a first message counts
