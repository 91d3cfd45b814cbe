"""Node definitions and lists of files over the real wire: one PC, several, slow ones, broken ones; who sees what."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import httpx
import pytest
import trio
import trio_websocket

from bridged.nodedefs.brief import whole
from bridged.nodedefs.combos import Remote
from bridged.nodedefs.forms import to_v1
from bridged.nodedefs.lazy import load
from tests.conftest import StartFake
from tests.e2e.house import House
from tests.e2e.test_bridge_api import picture
from tests.fakes.comfyui import Call, FakeComfyUI, Reply
from tests.fakes.comfyui.facts import DEFAULT_CLASSES, recorded_classes

ELSEWHERE = [
    *("http://127.0.0.1:1/x", "//elsewhere/x", "/a/../../x", "x", "/a b", "/a/%2e%2e/x", "/" + "a" * 3000),
    *("/internal//files/output", "/api/internal/logs", "/internal/files/input?x=1"),
]
LORAS = ["a.safetensors", "sub/b.safetensors"]


def classes(loras: list[str], **more: Any) -> dict[str, Any]:
    """The usual ones, and LoraLoader over these files."""
    found = copy.deepcopy(dict(recorded_classes(*DEFAULT_CLASSES, "LoraLoader", "KSampler")))
    found["LoraLoader"]["input"]["required"]["lora_name"][0] = loras
    return found | more


def node(**inputs: Any) -> dict[str, Any]:
    """A node class of some pack."""
    keys = {"output": ["IMAGE"], "output_is_list": [False], "output_name": ["IMAGE"]}
    return {"input": {"required": inputs}, **keys, "output_node": False, "category": "pack", "name": "x"}


def teach(fake: FakeComfyUI, loras: list[str], **more: Any) -> None:
    fake.classes.clear()
    fake.classes.update(classes(loras, **more))
    fake.models = {"loras": loras}


@asynccontextmanager
async def pool(house: House, *fakes: FakeComfyUI, key: str = "") -> AsyncIterator[httpx.AsyncClient]:
    """The daemon on these backends, pc-1, pc-2, …; and a client."""
    names = [f"pc-{number}" for number in range(1, len(fakes) + 1)]
    house.write_backends(*((name, fake.url) for name, fake in zip(names, fakes, strict=True)))
    await house.start()
    await house.wait_up(*names)
    async with asked(house, key) as http:
        yield http


@asynccontextmanager
async def asked(house: House, key: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(base_url=house.url, headers=headers, timeout=20, trust_env=False) as http:
        yield http


async def files(http: httpx.AsyncClient, folder: str = "loras", **query: Any) -> list[Any]:
    response = await http.get(f"/internal/files/{folder}", params=query)
    assert response.status_code == 200, response.text
    found: list[Any] = response.json()["files"]
    return found


@asynccontextmanager
async def signals(house: House, key: str = "") -> AsyncIterator[trio_websocket.WebSocketConnection]:
    host, port = house.url.removeprefix("http://").rsplit(":", 1)
    path = "/internal/signals" + (f"?key={key}" if key else "")
    async with await trio.open_tcp_stream(host, int(port)) as stream, trio.open_nursery() as nursery:
        connection = await trio_websocket.wrap_client_stream(nursery, stream, f"{host}:{port}", path)
        try:
            yield connection
        finally:
            with trio.move_on_after(1, shield=True):
                await connection.aclose()
            nursery.cancel_scope.cancel()


def is_asked(fake: FakeComfyUI) -> bool:
    return "/models/loras" in listings(fake)


def listings(fake: FakeComfyUI) -> list[str]:
    return [call.path for call in fake.calls if call.route.startswith(("/models", "/internal", "/object_info"))]


# -- one PC ----------------------------------------------------------------------------------------------------------


async def test_v1_of_one_pc_is_its_own_answer(house: House, start_fake: StartFake) -> None:
    fake = await start_fake("one")
    fake.classes.update(recorded_classes())
    async with pool(house, fake) as http, httpx.AsyncClient(base_url=fake.url) as direct:
        theirs, ours = await direct.get("/object_info"), await http.get("/object_info")
        assert json.dumps(ours.json()) == json.dumps(theirs.json()), "in the same order, too"
        one = await http.get("/object_info/KSampler")
        assert one.json() == {"KSampler": theirs.json()["KSampler"]}
        assert (await http.get("/object_info/Nope")).json() == {}


async def test_lazy_v2_is_v1_again_once_the_lists_are_loaded(house: House, start_fake: StartFake) -> None:
    fake = await start_fake("one")
    teach(fake, LORAS)
    async with pool(house, fake) as http:
        v1 = (await http.get("/object_info")).json()
        v2 = (await http.get("/object_info", params={"format": "v2"})).json()
        assert v2["LoraLoader"]["input"]["required"]["lora_name"][1]["route"] == "/internal/files/loras"
        assert v2["KSampler"]["output"][0]["type"] == "LATENT"
        fetched: dict[str, list[str]] = {}
        for folder in ("loras", "input"):
            fetched[f"/internal/files/{folder}"] = await files(http, folder)

        def of(remote: Remote) -> list[str]:
            return fetched[remote.route]

        assert {name: to_v1(whole(load(definition, of), name)) for name, definition in v2.items()} == v1
        assert v1["KSampler"].keys() - v2["KSampler"].keys() > {"input_order", "name"}


async def test_v2_says_for_how_long_lists_are_fresh(house: House, start_fake: StartFake) -> None:
    fake = await start_fake("one")
    teach(fake, LORAS)
    house.settings["nodes"] = {"refresh": 5}
    async with pool(house, fake) as http:
        v2 = (await http.get("/object_info/LoraLoader?format=v2")).json()
        assert v2["LoraLoader"]["input"]["required"]["lora_name"][1]["refresh"] == 5000


async def test_an_answer_is_sent_once_and_packed(house: House, start_fake: StartFake) -> None:
    fake = await start_fake("one")
    teach(fake, LORAS)
    async with pool(house, fake) as http:
        for path in ("/object_info", "/object_info?format=v2", "/internal/files/loras"):
            first = await http.get(path)
            assert "no-store" not in first.headers["cache-control"]
            again = await http.get(path, headers={"If-None-Match": first.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
        packed = await http.get("/object_info", headers={"Accept-Encoding": "gzip"})
        plain = await http.get("/object_info", headers={"Accept-Encoding": "identity"})
        assert packed.headers["content-encoding"] == "gzip"
        assert packed.content == plain.content
        assert int(packed.headers["content-length"]) < len(plain.content) / 2
        fake.models["loras"] = [*LORAS, "new.safetensors"]
        etag = (await http.get("/internal/files/loras")).headers["etag"]
        await http.post("/internal/files/loras/refresh")
        changed = await http.get("/internal/files/loras", headers={"If-None-Match": etag})
        assert changed.status_code == 200


async def test_one_folder_is_renewed_without_the_definitions(house: House, start_fake: StartFake) -> None:
    fake = await start_fake("one")
    teach(fake, LORAS)
    async with pool(house, fake) as http:
        assert await files(http) == LORAS
        before = len(listings(fake))
        fake.models["loras"] = ["z.safetensors", *LORAS]
        assert await files(http) == LORAS, "still fresh"
        renewed = await http.post("/internal/files/loras/refresh")
        assert renewed.json()["files"] == [*LORAS, "z.safetensors"]
        assert listings(fake)[before:] == ["/models/loras"]
        v1 = (await http.get("/object_info/LoraLoader")).json()["LoraLoader"]
        assert v1["input"]["required"]["lora_name"][0] == [*LORAS, "z.safetensors"], "V1 knows what was learnt since"
        with_header = await http.get("/internal/files/loras", headers={"Cache-Control": "no-cache"})
        assert with_header.status_code == 200
        assert listings(fake)[before:] == ["/models/loras"] * 2


async def test_the_rfcs_filters_and_its_way_to_name_a_folder(house: House, start_fake: StartFake) -> None:
    fake = await start_fake("one")
    teach(fake, ["a.safetensors", "b.ckpt", "c.PT"])
    async with pool(house, fake) as http:
        assert await files(http, filter_ext=".ckpt,.pt") == ["b.ckpt", "c.PT"]
        assert (await http.get("/internal/files/loras?filter_ext[]=.ckpt&filter_ext[]=.pt")).json() == {
            "files": ["b.ckpt", "c.PT"]
        }
        assert await files(http, first="None") == ["None", "a.safetensors", "b.ckpt", "c.PT"]
        named = await http.get("/internal/files", params={"folder_path": "loras", "filter_ext": ".ckpt"})
        assert named.json() == {"files": ["b.ckpt"]}
        assert await files(http, "clip") == [], "an old name of text_encoders"


@pytest.mark.parametrize("folder", ["nope", "..", "%2e%2e", "a%2Fb", "..%5Cx", "x" * 200, "%00", "lo%0Aras"])
async def test_a_folder_that_no_pc_has_is_404_and_no_pc_is_asked_for_it(
    house: House, start_fake: StartFake, folder: str
) -> None:
    fake = await start_fake("one")
    async with pool(house, fake) as http:
        response = await http.get(f"/internal/files/{folder}")
        assert response.status_code == 404
        assert (await http.post(f"/internal/files/{folder}/refresh")).status_code == 404
        assert {path for path in listings(fake) if path != "/object_info"} <= {"/models"}


# -- many PCs --------------------------------------------------------------------------------------------------------


async def test_a_pools_choices_are_united_and_each_is_attributed(house: House, start_fake: StartFake) -> None:
    one, two = await start_fake("one"), await start_fake("two")
    teach(one, ["a.safetensors", "c.safetensors"], Mine=node(mode=[["x", "y"], {"default": "y"}]))
    teach(two, ["b.safetensors", "c.safetensors"], Mine=node(mode=[["y", "z"], {"default": "z"}]), Other=node())
    house.write_clients("anna")
    async with pool(house, one, two, key="key-of-tester") as admin, asked(house, "key-of-anna") as anna:
        found = (await anna.get("/object_info")).json()
        assert found["LoraLoader"]["input"]["required"]["lora_name"][0] == [f"{n}.safetensors" for n in "abc"]
        assert found["Mine"]["input"]["required"]["mode"] == [["x", "y", "z"], {"default": "y"}]
        assert "Other" in found
        query = {"availability": 1}
        names = (await admin.get("/object_info/Mine", params=query)).json()["Mine"]["availability"]
        assert names["backends"] == ["pc-1", "pc-2"]
        assert names["options"]["required"]["mode"] == {"x": ["pc-1"], "y": ["pc-1", "pc-2"], "z": ["pc-2"]}
        counts = (await anna.get("/object_info/Other", params=query)).json()["Other"]["availability"]
        assert counts["backends"] == 1
        assert (await anna.get("/internal/files/loras", params=query)).json() == {
            "files": ["a.safetensors", "b.safetensors", "c.safetensors"],
            "availability": {"a.safetensors": 1, "b.safetensors": 1, "c.safetensors": 2},
            "unknown": 0,
        }


async def test_definitions_that_differ_are_resolved_and_the_conflict_is_shown(
    house: House, start_fake: StartFake
) -> None:
    fakes = [await start_fake(str(number)) for number in range(3)]
    for fake, most in zip(fakes, (5, 9, 9), strict=True):
        teach(fake, LORAS, Steps=node(steps=["INT", {"max": most}]))
    async with pool(house, *fakes) as http:
        found = (await http.get("/object_info/Steps", params={"availability": 1})).json()["Steps"]
        assert found["input"]["required"]["steps"] == ["INT", {"max": 9}]
        assert found["availability"]["conflicts"] == [{"field": "input.required.steps", "backends": ["pc-1"]}]


async def test_a_windows_pcs_files_have_one_name_in_the_pool_and_its_own_on_it(
    house: House, start_fake: StartFake
) -> None:
    linux, windows = await start_fake("linux"), await start_fake("windows")
    teach(linux, ["sub/a.safetensors"])
    teach(windows, ["sub\\a.safetensors", "sub\\w.safetensors"])
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {
            "class_type": "Pick",
            "inputs": {"lora_name": "sub/w.safetensors", "image": ["1", 0]},
            "_meta": {"apiinput": "lora_name"},
        },
        "3": {"class_type": "SaveImage", "inputs": {"filename_prefix": "p", "images": ["2", 0]}},
    }
    pick = node(lora_name=[["sub\\a.safetensors", "sub\\w.safetensors"]], image=["IMAGE"])
    windows.classes["Pick"] = pick
    house.write_workflow("pick", graph)
    async with pool(house, linux, windows) as http:
        assert await files(http) == ["sub/a.safetensors", "sub/w.safetensors"]
        async with house.client() as client:
            await client.submit("pick", **{"2__lora_name": "sub/a.safetensors"})
            assert len(await client.result()) == 1
    (prompt,) = windows.prompts.values()
    assert prompt.graph["2"]["inputs"]["lora_name"] == "sub\\a.safetensors"


async def test_500_callers_cost_each_pc_one_request(house: House, start_fake: StartFake) -> None:
    fakes = [await start_fake(str(number)) for number in range(3)]
    gate = trio.Event()

    async def held(call: Call) -> Reply | None:
        if call.route == "/models/loras":
            await gate.wait()
        return None

    for fake in fakes:
        teach(fake, LORAS)
        fake.script.hook = held
    async with pool(house, *fakes) as http:
        await files(http, "checkpoints")
        answers = []

        async def one() -> None:
            answers.append(await files(http))

        async with trio.open_nursery() as nursery:
            for _ in range(100):  # httpx has 100 connections; the others come behind them
                nursery.start_soon(one)
            for fake in fakes:
                await fake.wait_for(partial(is_asked, fake))
            gate.set()
        assert answers == [LORAS] * 100
        for fake in fakes:
            assert listings(fake).count("/models/loras") == 1


async def test_a_caller_that_goes_away_does_not_end_the_fetch_for_the_others(
    house: House, start_fake: StartFake
) -> None:
    fake = await start_fake("one")
    teach(fake, LORAS)
    gate = trio.Event()

    async def held(call: Call) -> Reply | None:
        if call.route == "/models/loras":
            await gate.wait()
        return None

    fake.script.hook = held
    async with pool(house, fake) as http, trio.open_nursery() as nursery:
        with trio.CancelScope() as impatient:

            async def leave() -> None:
                await fake.wait_for(partial(is_asked, fake))
                impatient.cancel()

            nursery.start_soon(leave)
            await files(http)
        assert impatient.cancelled_caught
        gate.set()
        assert await files(http) == LORAS
        assert listings(fake).count("/models/loras") == 1


# -- PCs that are away, slow or wrong --------------------------------------------------------------------------------


async def test_what_a_pc_said_stays_while_it_is_away_and_it_is_tried_ever_less_often(
    house: House, start_fake: StartFake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridged.nodedefs.cache.FIRST_BACKOFF", 0.1)
    monkeypatch.setattr("bridged.nodedefs.cache.LAST_BACKOFF", 0.4)
    house.settings["nodes"] = {"refresh": 0.01}
    one, two = await start_fake("one"), await start_fake("two")
    teach(one, ["a.safetensors"])
    teach(two, ["b.safetensors"])
    tried: list[float] = []

    async def broken(call: Call) -> Reply | None:
        if call.route == "/models/loras":
            tried.append(trio.current_time())
            return Reply(500)
        return None

    async with pool(house, one, two) as http:
        assert await files(http) == ["a.safetensors", "b.safetensors"]
        two.script.hook = broken
        with trio.fail_after(10):
            while len(tried) < 5:
                assert await files(http) == ["a.safetensors", "b.safetensors"]
                await trio.sleep(0.01)
        pauses = [after - before for before, after in pairwise(tried)]
        assert all(pause >= least for pause, least in zip(pauses, (0.1, 0.2, 0.4, 0.4), strict=True)), pauses
        two.script.hook = None
        two.models["loras"] = ["c.safetensors"]
        with trio.fail_after(5):
            while await files(http) != ["a.safetensors", "c.safetensors"]:
                await trio.sleep(0.01)


async def test_nobody_answers_yet_is_503_and_one_that_hangs_is_not_waited_for_long(
    house: House, start_fake: StartFake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridged.actors.folders.PATIENCE", 0.2)
    one, two = await start_fake("one"), await start_fake("two")
    teach(one, LORAS)
    gate = trio.Event()

    async def hangs(call: Call) -> Reply | None:
        if call.route.startswith("/models"):
            await gate.wait()
        return None

    one.script.hook = two.script.hook = hangs
    async with pool(house, one, two) as http:
        refused = await http.get("/internal/files/loras")
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        async with house.client() as client:
            await client.submit("pattern")
            assert len(await client.result()) == 1, "no job waits for a list"
        one.script.hook = None
        gate.set()
        two.script.hook = None
        with trio.fail_after(5):
            while (await http.get("/internal/files/loras")).status_code == 503:
                await trio.sleep(0.01)
        assert await files(http) == LORAS


@pytest.mark.parametrize(
    "answer",
    [b"no json", b'{"a": 1}', b"null", b'"text"', b"[" * 5000, b"\xff\xfe"],
)
async def test_a_pc_that_answers_nonsense_takes_nothing_from_the_others(
    house: House, start_fake: StartFake, answer: bytes
) -> None:
    one, two = await start_fake("one"), await start_fake("two")
    teach(one, LORAS)

    async def spoiled(call: Call) -> Reply | None:
        return Reply(200, body=answer) if call.route.startswith("/models") else None

    two.script.hook = spoiled
    async with pool(house, one, two) as http:
        assert await files(http) == LORAS
        assert {b["state"] for b in (await house.status())["backends"]} == {"up"}


async def test_names_that_lead_out_of_a_folder_or_are_no_text_are_left_out(house: House, start_fake: StartFake) -> None:
    fake = await start_fake("one")
    teach(fake, LORAS)
    fake.models["loras"] = ["../x.pt", "/etc/passwd", "C:\\x.pt", "a\nb.pt", "", 5, None, {"a": 1}, "ok.pt", "x" * 2000]  # type: ignore[list-item]
    async with pool(house, fake) as http:
        assert await files(http) == ["ok.pt"]


async def test_a_pc_that_is_removed_takes_its_choices_along(house: House, start_fake: StartFake) -> None:
    one, two = await start_fake("one"), await start_fake("two")
    teach(one, ["a.safetensors"])
    teach(two, ["b.safetensors"], Other=node())
    async with pool(house, one, two) as http, signals(house) as heard:
        assert await files(http) == ["a.safetensors", "b.safetensors"]
        house.write_backends(("pc-1", one.url))
        told: set[str] = set()
        with trio.fail_after(5):
            while not {"files.loras", "object_info"} <= told:
                told.add(json.loads(await heard.get_message())["type"])
        assert await files(http) == ["a.safetensors"]
        assert (await http.get("/object_info/Other")).json() == {}


# -- signals, a node's own routes, the patch -------------------------------------------------------------------------


async def test_who_listens_hears_of_a_changed_list_once(house: House, start_fake: StartFake) -> None:
    fake = await start_fake("one")
    teach(fake, LORAS)
    async with pool(house, fake) as http, signals(house) as heard:
        definition = (await http.get("/object_info/LoraLoader?format=v2")).json()["LoraLoader"]
        signal = definition["input"]["required"]["lora_name"][1]["invalidation_signal"]
        await files(http)
        await http.post("/internal/files/loras/refresh")  # nothing new: nothing is said
        fake.models["loras"] = ["new.safetensors"]
        await http.post("/internal/files/loras/refresh")
        with trio.fail_after(5):
            assert json.loads(await heard.get_message()) == {"type": signal, "data": {}}


async def test_while_somebody_listens_lists_that_were_opened_are_looked_at_again(
    house: House, start_fake: StartFake
) -> None:
    house.settings["nodes"] = {"refresh": 0.1}
    fake = await start_fake("one")
    teach(fake, LORAS)
    async with pool(house, fake) as http, signals(house) as heard:
        await files(http)
        fake.models["loras"] = ["new.safetensors"]
        with trio.fail_after(5):
            assert json.loads(await heard.get_message())["type"] == "files.loras"
        assert listings(fake).count("/models/vae") == 0, "nobody opened it"


async def test_listeners_are_told_when_the_service_stops_and_when_their_key_goes(
    house: House, start_fake: StartFake
) -> None:
    fake = await start_fake("one")
    house.write_clients("anna", "ben")
    async with pool(house, fake, key="key-of-tester"):
        codes: dict[str, int] = {}

        async def listen(name: str, task_status: trio.TaskStatus[None]) -> None:
            async with signals(house, f"key-of-{name}") as heard:
                task_status.started()
                try:
                    await heard.get_message()
                except trio_websocket.ConnectionClosed as closed:
                    codes[name] = closed.reason.code if closed.reason else 1006

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                await nursery.start(listen, "anna")
                await nursery.start(listen, "ben")
                house.write_clients("anna")
                while "ben" not in codes:
                    await trio.sleep(0.01)
                await house.stop()
        assert codes == {"ben": 1008, "anna": 1001}


async def test_a_nodes_own_remote_combo_is_fetched_by_way_of_the_service(house: House, start_fake: StartFake) -> None:
    one, two = await start_fake("one"), await start_fake("two")
    remote = {"route": "/pack/styles", "refresh": 0, "response_key": "styles", "query_params": {"kind": "x y"}}
    teach(one, LORAS, Styled=node(style=["COMBO", {"remote": remote}]))
    teach(two, LORAS, Styled=node(style=["COMBO", {"remote": remote}]))
    seen: list[str] = []

    def answering(*styles: Any) -> Any:
        async def hook(call: Call) -> Reply | None:
            if call.route != "/pack/styles":
                return None
            seen.append(call.query["kind"])
            return Reply.json({"styles": list(styles)})

        return hook

    one.script.hook, two.script.hook = answering("b", 3), answering("a", "b", "me.png")
    house.write_clients("anna")
    async with pool(house, one, two, key="key-of-anna") as http:
        v2 = (await http.get("/object_info/Styled?format=v2")).json()["Styled"]["input"]["required"]["style"][1]
        assert (v2["type"], v2["route"], v2["response_key"]) == ("remote", "/internal/combos", "files")
        for _ in range(2):
            found = await http.get(v2["route"], params=v2["query_params"])
            assert set(found.json()["files"]) == {"a", "b", 3}
        assert seen == ["x y"] * 2, "one from each: it is fresh for ever"
        await http.post(v2["route"] + "/refresh", params=v2["query_params"])
        assert seen == ["x y"] * 4
        nothing = await http.get("/internal/combos", params={"class": "Styled", "input": "nope"})
        assert nothing.status_code == 404


@pytest.mark.parametrize("route", ELSEWHERE)
async def test_a_route_that_leads_elsewhere_is_not_followed(house: House, start_fake: StartFake, route: str) -> None:
    fake = await start_fake("one")
    teach(fake, LORAS, Styled=node(style=["COMBO", {"remote": {"route": route}}]))
    async with pool(house, fake) as http:
        before = len(fake.calls)
        response = await http.get("/internal/combos", params={"class": "Styled", "input": "style"})
        assert response.status_code == 404
        assert [call.path for call in fake.calls[before:]] == []


async def test_a_patched_pc_says_which_folder_a_combo_lists(house: House, start_fake: StartFake) -> None:
    fake = await start_fake("one")
    teach(fake, LORAS, Pack=node(empty=[[]], other=[[]]))
    fake.models["styles"] = []

    async def patched(call: Call) -> Reply | None:
        if call.route != "/bridged/v1/combos":
            return None
        return Reply.json({"combos": {"Pack": {"empty": {"folder": "loras"}}}})

    fake.script.hook = patched
    async with pool(house, fake) as http:
        inputs = (await http.get("/object_info/Pack?format=v2")).json()["Pack"]["input"]["required"]
        assert inputs["empty"][1]["route"] == "/internal/files/loras"
        assert inputs["other"] == ["COMBO", {"options": []}], "an empty list says nothing by itself"


async def test_a_packs_own_folder_is_known_by_its_list(house: House, start_fake: StartFake) -> None:
    fake = await start_fake("one")
    teach(fake, LORAS, Sam=node(model=[["None", "sam_b.pth", "sam_h.pth"]]))
    fake.models["sams"] = ["sam_b.pth", "sam_h.pth"]

    async def folders(call: Call) -> Reply | None:
        return Reply.json(["loras", "sams"]) if call.route == "/models" else None

    fake.script.hook = folders
    async with pool(house, fake) as http:
        combo = (await http.get("/object_info/Sam?format=v2")).json()["Sam"]["input"]["required"]["model"][1]
        assert combo["route"] == "/internal/files/sams"
        assert await files(http, "sams", **combo["query_params"]) == ["None", "sam_b.pth", "sam_h.pth"]


# -- who sees what, and how often ------------------------------------------------------------------------------------


async def test_owners_files_are_shown_to_nobody_without_the_admin_scope(house: House, start_fake: StartFake) -> None:
    fake = await start_fake("one")
    secret = "my-secret.png"
    fake.files.files["input", "", secret] = fake.files.files["input", "", "example.png"]
    teach(
        fake,
        LORAS,
        Hidden=node(any=[["fine", secret, "clip.mp4"], {"default": secret}]),
        LoadImageSetFromFolderNode=node(folder=[["holiday"], {"default": "holiday"}]),
    )
    house.write_clients("anna")
    async with pool(house, fake, key="key-of-tester") as admin, asked(house, "key-of-anna") as anna:
        assert secret in (await admin.get("/object_info")).text
        assert secret in await files(admin, "input")
        paths = [f"/internal/files/{folder}" for folder in ("input", "output", "temp")]
        for query in ("", "?availability=1", "?format=v2", "?format=v2&availability=1"):
            paths += [f"/object_info{query}"]
            paths += [f"/object_info/{name}{query}" for name in ("LoadImage", "Hidden", "LoadImageSetFromFolderNode")]
        paths += ["/internal/files?folder_path=input", "/workflow-info?workflow=invert"]
        before = len(fake.calls)
        for path in paths:
            answer = await anna.get(path)
            assert answer.status_code == 200
            told = answer.text.replace("LoadImageSetFromFolderNode", "")
            assert not any(name in told for name in (secret, "clip.mp4", "holiday")), path
        hidden = (await anna.get("/object_info/Hidden")).json()["Hidden"]["input"]["required"]["any"]
        assert hidden == [["fine"]]
        assert not any(call.route == "/internal/files/input" for call in fake.calls[before:])


async def test_the_input_folder_is_a_callers_own_uploads(house: House, start_fake: StartFake) -> None:
    fake = await start_fake("one")
    house.write_clients("anna", "ben")
    async with pool(house, fake, key="key-of-anna") as anna, asked(house, "key-of-ben") as ben:
        answer = await anna.post("/upload?clientId=c1", files={"f": ("a.png", picture())})
        token = answer.json()["f"]
        assert await files(anna, "input", clientId="c1") == [token]
        assert await files(anna, "input", clientId="c2") == []
        assert await files(anna, "input") == []
        assert await files(ben, "input", clientId="c1") == []
        assert await files(anna, "output", clientId="c1") == []


async def test_looks_and_renewals_are_limited_per_caller_and_list(house: House, start_fake: StartFake) -> None:
    fake = await start_fake("one")
    house.settings["limits"] = {"lists_per_minute": 20, "renewals_per_minute": 1}
    house.write_clients("anna", "ben")
    async with pool(house, fake, key="key-of-anna") as anna, asked(house, "key-of-ben") as ben:
        renewals = [(await anna.post("/internal/files/loras/refresh")).status_code for _ in range(6)]
        assert renewals == [200] * 5 + [429]
        looks = [await anna.get("/internal/files/loras") for _ in range(15)]
        assert looks[0].status_code == 200
        assert looks[-1].status_code == 429
        assert int(looks[-1].headers["retry-after"]) >= 1
        assert (await anna.get("/internal/files/vae")).status_code == 200
        assert (await ben.get("/internal/files/loras")).status_code == 200


async def test_workflow_info_says_what_a_form_needs(house: House, start_fake: StartFake) -> None:
    fake = await start_fake("one")
    teach(fake, LORAS, Text=node(text=["STRING", {"multiline": True, "tooltip": "say it"}], mode=[["x", "y"]]))
    graph = {
        "1": {"class_type": "Text", "inputs": {"text": "t", "mode": "x"}, "_meta": {"apiinput": "text,mode"}},
        "2": {
            "class_type": "LoraLoader",
            "inputs": {"lora_name": "a.safetensors", "strength_model": 1.0},
            "_meta": {"apiinput": "lora_name,strength_model"},
        },
    }
    house.write_workflow("form", graph)
    async with pool(house, fake) as http:
        info = (await http.get("/workflow-info?workflow=form")).json()
        assert (info["1/text"]["multiline"], info["1/text"]["tooltip"]) == (True, "say it")
        assert info["1/mode"]["options"] == ["x", "y"]
        assert info["2/lora_name"]["remote"]["route"] == "/internal/files/loras"
        strength = info["2/strength_model"]
        assert (strength["min"], strength["max"], strength["step"]) == (-100.0, 100.0, 0.01)
        assert set(info["1/mode"]) >= {"type", "title", "default", "descimage"}, "what old clients read"
