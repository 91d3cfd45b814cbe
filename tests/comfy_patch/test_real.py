"""The patch in a real ComfyUI: each route once, against the example files and against ComfyUI's own answers.

Skipped unless COMFYUI_PATCHED_URL and COMFYUI_PATCHED_TOKEN say where one is. Its queue must be empty.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from bridged.nodedefs.forms import to_v2
from tests.comfy_patch.shapes import assert_like, example

URL = os.environ.get("COMFYUI_PATCHED_URL", "")
TOKEN = os.environ.get("COMFYUI_PATCHED_TOKEN", "")

pytestmark = pytest.mark.skipif(not (URL and TOKEN), reason="COMFYUI_PATCHED_URL and COMFYUI_PATCHED_TOKEN are not set")

OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def comfy() -> Iterator[httpx.Client]:
    with httpx.Client(base_url=URL, headers={"X-Bridged-Token": TOKEN}, timeout=60) as client:
        assert client.get("/queue").json() == {"queue_running": [], "queue_pending": []}
        yield client
        client.post("/bridged/v1/resume", json={})
        client.post("/queue", json={"clear": True})
        client.post("/interrupt", json={})


def long_graph(steps: int = 60) -> dict[str, Any]:
    """Runs for half a minute, without models; the color keeps it out of ComfyUI's cache. More nodes would cost ComfyUI
    seconds before it begins with the first."""
    graph: dict[str, Any] = {
        "0": {
            "class_type": "EmptyImage",
            "inputs": {"width": 1024, "height": 1024, "batch_size": 1, "color": uuid.uuid4().int % 2**24},
        }
    }
    for step in range(1, steps):
        inputs = {"image": [str(step - 1), 0], "blur_radius": 10, "sigma": 1.0}
        graph[str(step)] = {"class_type": "ImageBlur", "inputs": inputs}
    graph["end"] = {"class_type": "PreviewImage", "inputs": {"images": [str(steps - 1), 0]}}
    return graph


def submit(comfy: httpx.Client, *, client: str = "a-bridge", lease: float | None = 60, steps: int = 60) -> str:
    prompt_id = str(uuid.uuid4())
    extra = {} if lease is None else {"bridged": {"lease": lease}}
    body = {"prompt": long_graph(steps), "prompt_id": prompt_id, "client_id": client, "extra_data": extra}
    answer = comfy.post("/prompt", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["prompt_id"])  # 0.3.12 takes its own


def queue(comfy: httpx.Client) -> tuple[list[str], list[str]]:
    said = comfy.get("/queue").json()
    return [item[1] for item in said["queue_running"]], [item[1] for item in said["queue_pending"]]


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.05)


def ended_how(comfy: httpx.Client, prompt_id: str) -> str:
    until(lambda: prompt_id in comfy.get(f"/history/{prompt_id}").json())
    status = comfy.get(f"/history/{prompt_id}").json()[prompt_id]["status"]
    return "interrupted" if "execution_interrupted" in json.dumps(status["messages"]) else str(status["status_str"])


@pytest.mark.parametrize("route", ["info", "models", "combos", "page"])
def test_the_answers_are_like_the_examples(comfy: httpx.Client, route: str) -> None:
    answer = comfy.get(f"/bridged/v1/{route}")
    assert answer.status_code == 200
    assert_like(example(route), answer.json())
    assert comfy.get(f"/api/bridged/v1/{route}").json().keys() == answer.json().keys()


def test_nobody_gets_anything_without_the_token(comfy: httpx.Client) -> None:
    for route in ("info", "models", "combos", "page"):
        refused = httpx.get(f"{URL}/bridged/v1/{route}")
        assert (refused.status_code, refused.json()) == (403, example("errors")["forbidden"]["body"])
    assert httpx.post(f"{URL}/bridged/v1/lease", json={}).status_code == 403
    assert comfy.post("/bridged/v1/lease", json={}).json() == example("errors")["malformed"]["body"]


def test_the_owner_needs_no_token_at_the_pc(comfy: httpx.Client) -> None:
    page = httpx.get(f"{URL}/bridged/v1/page", headers=OWN_PAGE)
    assert page.status_code == 200
    assert httpx.get(f"{URL}/bridged/v1/page", headers={**OWN_PAGE, "X-Forwarded-For": "1.2.3.4"}).status_code == 403
    assert httpx.get(f"{URL}/bridged/v1/page", headers={**OWN_PAGE, "Host": "evil.example"}).status_code == 403
    assert httpx.get(f"{URL}/bridged/v1/info", headers=OWN_PAGE).status_code == 403


def test_cancel_takes_a_waiting_prompt_out_and_interrupts_a_running_one_and_no_other(comfy: httpx.Client) -> None:
    owners_first = submit(comfy, client="the-owner", lease=None)
    ours, owners_next = submit(comfy), submit(comfy, client="the-owner", lease=None, steps=3)
    until(lambda: queue(comfy)[0] == [owners_first])
    cancel = comfy.post(f"/bridged/v1/jobs/{ours}/cancel").json()
    assert_like(example("cancel"), cancel)
    assert cancel == {"cancelled": "queued"}
    assert queue(comfy) == ([owners_first], [owners_next])
    assert comfy.post(f"/bridged/v1/jobs/{ours}/cancel").json() == {"cancelled": "unknown"}
    assert comfy.post(f"/bridged/v1/jobs/{owners_first}/cancel").json() == {"cancelled": "running"}
    assert ended_how(comfy, owners_first) == "interrupted"
    assert ended_how(comfy, owners_next) == "success"


def test_a_cancel_in_the_moment_in_which_a_prompt_begins_is_not_lost(comfy: httpx.Client) -> None:
    for _ in range(5):
        ours = submit(comfy)
        assert comfy.post(f"/bridged/v1/jobs/{ours}/cancel").json()["cancelled"] in ("queued", "running")
        until(lambda: queue(comfy) == ([], []), seconds=10)


def test_a_bridge_that_is_gone_loses_its_prompts_and_the_owner_none(comfy: httpx.Client) -> None:
    bridge = f"bridge-{uuid.uuid4()}"
    running, waiting = submit(comfy, client=bridge, lease=1), submit(comfy, client=bridge, lease=1)
    owners = submit(comfy, client="the-owner", lease=None, steps=3)
    until(lambda: queue(comfy)[0] == [running])
    lease = {"client_id": bridge, "seconds": 2}
    assert_like(example("lease"), comfy.post("/bridged/v1/lease", json=lease).json())
    assert ended_how(comfy, running) == "interrupted"
    assert ended_how(comfy, owners) == "success"
    assert comfy.get(f"/history/{waiting}").json() == {}


def test_a_pause_refuses_bridges_only_and_can_stop_what_is_there(comfy: httpx.Client) -> None:
    running = submit(comfy)
    until(lambda: queue(comfy)[0] == [running])
    paused = comfy.post("/bridged/v1/pause", json={"minutes": 5, "stop": True})
    assert_like(example("paused"), paused.json())
    assert ended_how(comfy, running) == "interrupted"
    body = {"prompt": long_graph(2), "extra_data": {"bridged": {"lease": 60}}}
    refused = comfy.post("/prompt", json=body)
    assert refused.status_code == 503
    assert_like(example("errors")["paused"]["body"], refused.json())
    owners = submit(comfy, client="the-owner", lease=None, steps=3)
    assert ended_how(comfy, owners) == "success"
    assert comfy.post("/bridged/v1/resume").json() == {"lending": {"paused": False, "until": None}}


def test_what_was_served_is_counted(comfy: httpx.Client) -> None:
    before = comfy.get("/bridged/v1/page").json()["served"]
    assert ended_how(comfy, submit(comfy, steps=3)) == "success"
    assert ended_how(comfy, submit(comfy, client="the-owner", lease=None, steps=3)) == "success"
    after = comfy.get("/bridged/v1/page").json()["served"]
    assert after["jobs"] == before["jobs"] + 1
    assert after["seconds"] > before["seconds"]


def test_files_of_a_folder(comfy: httpx.Client) -> None:
    files = httpx.get(f"{URL}/internal/files/loras").json()
    assert_like(example("files"), files)
    assert files["files"] == comfy.get("/models/loras").json()
    assert httpx.get(f"{URL}/internal/files", params={"folder_path": "loras"}).json() == files
    missing = httpx.get(f"{URL}/internal/files/no-such-folder")
    assert (missing.status_code, missing.json()) == (404, example("errors")["no_such_folder"]["body"])


def test_the_new_form_says_what_the_old_one_says(comfy: httpx.Client) -> None:
    old, new = comfy.get("/object_info").json(), comfy.get("/object_info", params={"format": "v2"}).json()
    assert new.keys() == old.keys()
    different = [name for name in old if with_choices(comfy, new[name]) != without_residue(to_v2(old[name]))]
    assert different == []
    one = comfy.get("/object_info/LoraLoader", params={"format": "v2"}).json()
    assert one == {"LoraLoader": new["LoraLoader"]}
    assert one["LoraLoader"]["input"]["required"]["lora_name"][1]["route"] == "/internal/files/loras"


def with_choices(comfy: httpx.Client, definition: dict[str, Any]) -> dict[str, Any]:
    """A definition in the new form, with its remote combos' choices fetched."""
    definition = json.loads(json.dumps(definition))
    for inputs in definition["input"].values():
        for name, spec in inputs.items():
            if len(spec) == 2 and spec[0] == "COMBO" and spec[1].get("type") == "remote":
                settings = {key: value for key, value in spec[1].items() if key not in ("type", "refresh")}
                params = settings.pop("query_params", {})
                answer = comfy.get(settings.pop("route"), params=params).json()
                inputs[name] = ["COMBO", {"options": answer[settings.pop("response_key")], **settings}]
    return definition


def without_residue(definition: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in definition.items() if key != "v1"}
