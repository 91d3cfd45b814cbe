"""Publishing over the real wire: what is answered can be run at once, what is wrong is said whole, what was is kept."""

from __future__ import annotations

import base64
import copy
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from PIL import Image

from tests.cli.commands import bridged
from tests.conftest import StartFake
from tests.e2e.house import INVERT, PATTERN, House
from tests.e2e.test_access import let_in, wait_for_keys, wait_let_in
from tests.fakes.comfyui import FakeComfyUI

RED, BLUE = "red", "blue"


def picture(color: str = RED, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(file, kind)
    return file.getvalue()


def url(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def graph(**inputs: Any) -> dict[str, Any]:
    """`pattern`, with other defaults."""
    made = copy.deepcopy(PATTERN)
    made["1"]["inputs"] |= inputs
    return made


def meta(**said: Any) -> dict[str, Any]:
    made = graph()
    made["1"]["_meta"] = {"title": "Colour", **said}
    return made


def published(house: House) -> Path:
    return house.folder / "state" / "workflows"


@pytest.fixture
async def http(house: House, fake: FakeComfyUI) -> AsyncIterator[httpx.AsyncClient]:
    """An operator of a daemon on one PC, of which there are no keys."""
    async with httpx.AsyncClient(base_url=house.url, timeout=10, trust_env=False) as http:
        yield http


async def publish(http: httpx.AsyncClient, status: int = 201, **said: Any) -> dict[str, Any]:
    response = await http.post("/admin/workflows", json={"alias": "new", "workflow": graph(), **said})
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def listed(http: httpx.AsyncClient) -> dict[str, dict[str, Any]]:
    return {each["alias"]: each for each in (await http.get("/workflow-list")).json()}


async def info(http: httpx.AsyncClient, alias: str = "new") -> dict[str, Any]:
    answer: dict[str, Any] = (await http.get("/workflow-info", params={"workflow": alias})).json()
    return answer


# -- from nothing to a result ----------------------------------------------------------------------------------------


async def test_a_published_workflow_can_be_run_when_that_is_answered(
    house: House, fake: FakeComfyUI, http: httpx.AsyncClient
) -> None:
    for number in range(5):
        done = await publish(http, alias=f"fresh {number}/ü", workflow=graph(width=100 + number))
        assert done["inputs"] == ["1/width", "1/height", "1/color"] == list(await info(http, f"fresh {number}/ü"))
        assert (done["warnings"], done["previous"]) == ([], None)
        async with house.client() as client:
            await client.submit(f"fresh {number}/ü")
            assert len(await client.result()) == 1
    assert [p.graph["1"]["inputs"]["width"] for p in fake.prompts.values()] == [100, 101, 102, 103, 104]


async def test_description_thumbnail_and_pictures_of_inputs_are_shown(http: httpx.AsyncClient) -> None:
    workflow = meta(apiinput="width,height,color", descimage=["w.png", "", "c.webp"])
    pictures = {"w.png": url(picture(RED)), "c.webp": url(picture(BLUE, "WEBP"), "image/webp")}
    thumbnail = picture("green", "JPEG")
    await publish(
        http,
        workflow=workflow,
        description="schön",
        thumbnail=url(thumbnail, "image/jpeg"),
        descimages=pictures,
    )
    shown = (await listed(http))["new"]
    assert (shown["description"], base64.b64decode(shown["thumbnail"])) == ("schön", thumbnail)
    images = [each["descimage"] for each in (await info(http)).values()]
    assert images == [pictures["w.png"].partition(",")[2], None, pictures["c.webp"].partition(",")[2]]


async def test_a_replaced_version_is_kept_and_can_be_published_again(house: House, http: httpx.AsyncClient) -> None:
    first = meta(apiinput="width", descimage="w.png")
    old: dict[str, Any] = {
        "workflow": first,
        "description": "old",
        "descimages": {"w.png": url(picture(RED))},
    }
    await publish(http, **old, thumbnail=url(picture(RED)))
    before, before_info = (await listed(http))["new"], await info(http)
    new: dict[str, Any] = {
        "workflow": meta(apiinput="width", descimage="w.png"),
        "descimages": {"w.png": url(picture(BLUE))},
    }
    done = await publish(http, 200, **new)
    assert (await info(http))["1/width"]["descimage"] == url(picture(BLUE)).partition(",")[2]
    assert (await publish(http, 200, **new))["previous"] is None, "the same again replaces nothing"
    kept = published(house) / "previous" / done["previous"]
    again = await publish(http, 200, **json.loads(kept.read_text()))
    assert again["previous"] not in (None, done["previous"])
    assert ((await listed(http))["new"], await info(http)) == (before, before_info)
    (entry,) = (await http.get("/admin/workflows")).json()["workflows"]
    assert entry["previous"] == [done["previous"], again["previous"]]
    assert len(list((published(house) / "descimage").iterdir())) == 1, "what nothing names any more is gone"


async def test_a_published_workflow_wins_over_the_operators_and_gives_way_when_it_is_removed(
    house: House, http: httpx.AsyncClient
) -> None:
    done = await publish(http, alias="pattern", workflow=graph(width=77))
    assert "the workflows folder has one of that name" in done["warnings"][0]
    assert list(await listed(http)) == ["pattern", "invert", "blurs"], "in its place"
    assert (await info(http, "pattern"))["1/width"]["default"] == 77
    house.write_workflow("pattern", graph(width=55))
    assert (await http.get("/admin/workflows")).json()["workflows"][0]["replaces"] is True
    assert (await http.delete("/admin/workflows/pattern")).status_code == 204
    assert (await info(http, "pattern"))["1/width"]["default"] == 55
    gone = await http.delete("/admin/workflows/pattern")
    assert (gone.status_code, "is in the workflows folder" in gone.json()["detail"]) == (404, True)
    assert (await http.delete("/admin/workflows/nope")).status_code == 404
    assert (await publish(http, alias="a/b c"))["alias"] == "a/b c"
    assert (await http.delete("/admin/workflows/a/b%20c")).status_code == 204


async def test_it_is_there_after_a_restart_and_so_are_edits_by_hand(house: House, http: httpx.AsyncClient) -> None:
    await publish(http)
    folder = published(house)
    (entry,) = json.loads((folder / "workflow_alias.json").read_text())
    entry |= {"description": "by hand", "max_runtime": 5}
    (folder / "workflow_alias.json").write_text(json.dumps([entry]))
    (folder / "mine.json").write_text(json.dumps(graph()))
    with trio.fail_after(5):
        while (shown := await listed(http)).get("new", {}).get("description") != "by hand" or "mine.json" not in shown:
            await trio.sleep(0.01)
    await publish(http, 200, description="again", workflow=graph(width=9))
    assert json.loads((folder / "workflow_alias.json").read_text())[0]["max_runtime"] == 5, "options stay"
    await house.stop()
    house.ended = trio.Event()
    await house.start()
    async with httpx.AsyncClient(base_url=house.url, trust_env=False) as http:
        assert (await listed(http))["new"]["description"] == "again"
        assert (await http.delete("/admin/workflows/mine.json")).status_code == 204
        assert "mine.json" not in await listed(http)


async def test_a_broken_file_there_takes_nothing_else_away(house: House, http: httpx.AsyncClient) -> None:
    await publish(http)
    await publish(http, alias="pattern", workflow=graph(width=77))
    aliases = published(house) / "workflow_alias.json"
    good = aliases.read_text()
    for broken in ("[", good.replace('"fn"', '"nf"')):
        aliases.write_text(broken)
        await house.wait_status(lambda s: any("published" in each for each in s["configuration"]["errors"]))
        assert {"pattern", "invert", "blurs", "new"} <= (await listed(http)).keys()
        refused = await http.post("/admin/workflows", json={"alias": "x", "workflow": graph()})
        assert (refused.status_code, "workflow_alias.json" in refused.json()["detail"]) == (400, True)
        aliases.write_text(good)
        await house.wait_status(lambda s: not s["configuration"]["errors"])
    fn = (await listed(http))["pattern"]["fn"]
    (published(house) / fn).write_text("{")
    aliases.write_text(good + "\n")
    await house.wait_status(lambda s: any(fn in each for each in s["configuration"]["errors"]))
    assert (await info(http, "pattern"))["1/width"]["default"] == 77, "its previous content stays"
    await house.stop()
    house.ended = trio.Event()
    await house.start()
    async with httpx.AsyncClient(base_url=house.url, trust_env=False) as http:
        assert (await info(http, "pattern"))["1/width"]["default"] == 32, "the operator's own is left"


async def test_many_at_once_are_written_one_after_the_other(house: House, http: httpx.AsyncClient) -> None:
    answers: list[dict[str, Any]] = []

    async def one(number: int) -> None:
        response = await http.post(
            "/admin/workflows", json={"alias": f"n{number % 4}", "workflow": graph(width=number + 1)}
        )
        answers.append(response.json() | {"status": response.status_code})

    async with trio.open_nursery() as nursery:
        for number in range(12):
            nursery.start_soon(one, number)
    assert sorted(each["status"] for each in answers) == [200] * 8 + [201] * 4
    assert {"n0", "n1", "n2", "n3"} <= (await listed(http)).keys()
    assert len(list((published(house) / "previous").iterdir())) == 8
    assert len(list(published(house).glob("*.json"))) == 5


# -- what is refused -------------------------------------------------------------------------------------------------


async def test_everything_that_is_wrong_is_said_at_once(http: httpx.AsyncClient) -> None:
    workflow = meta(apiinput="width,nope", descimage=["gone.png"])
    workflow["2"]["_meta"] = {"apiinput": "images"}
    workflow["3"] = {"class_type": "NobodyHasThis", "inputs": {}}
    refused = await http.post(
        "/admin/workflows",
        json={
            "alias": " x",
            "workflow": workflow,
            "thumbnail": url(b"GIF89a no picture"),
            "descimages": {
                "../p.png": url(picture()),
                "t.png": url(b"<svg/>"),
                "u.png": "http://elsewhere/x.png",
            },
        },
    )
    assert refused.status_code == 400
    for part in (
        "`alias` must have",
        "node 1: _meta.apiinput: 'nope': the node has no such input; it has width, height, batch_size, color",
        "node 2: _meta.apiinput: 'images' is linked to another node",
        "node 1: _meta.descimage: 'gone.png' is not among",
        "no PC has the node classes NobodyHasThis;",
        "thumbnail: ",
        "descimages: '../p.png': filename",
        "descimages: 't.png': ",
        "descimages: 'u.png': it must be a data URL",
    ):
        assert part in refused.json()["detail"], part
    assert list(await listed(http)) == ["pattern", "invert", "blurs"]


BAD: list[tuple[bytes, str]] = [
    (b"{", "no publication"),
    (b"[]", "no publication"),
    (b'{"alias": "x", "workflow": {}, "unknown": 1}', "unknown field `unknown`"),
    (b'{"alias": "x", "workflow": {}}', "must be an object of nodes"),
    (b'{"alias": "x", "workflow": {"nodes": [], "links": []}}', "saved for the editor"),
    (b'{"alias": "x", "workflow": {"1": {"inputs": {}}}}', "node 1: needs `class_type`"),
    (
        b'{"alias": "x", "workflow": {"1": {"class_type": "A", "inputs": {"a": ' + b"[" * 60 + b"]" * 60 + b"}}}}",
        "nested deeper than 32 levels",
    ),
    (
        b'{"alias": "x", "workflow": {"1": {"class_type": "A", "inputs": {"a": "' + b"x" * 4_000_000 + b'"}}}}',
        "larger than the limit of 4 MB",
    ),
    (
        b'{"alias": "a/../b", "workflow": {"1": {"class_type": "SaveImage", "inputs": {}}}}',
        "no dots alone",
    ),
]


async def test_what_is_no_publication_is_refused(http: httpx.AsyncClient) -> None:
    for body, said in BAD:
        refused = await http.post("/admin/workflows", content=body)
        assert refused.status_code == 400
        assert said in refused.json()["detail"]
    assert (await http.post("/admin/workflows", content=b" " * 16_000_001)).status_code == 413


async def test_who_has_no_admin_key_may_not_publish(house: House, start_fake: StartFake) -> None:
    fake = await start_fake("one")
    house.write_backends(("pc-1", fake.url))
    keys = house.write_clients("anna")
    await house.start()
    body = {"alias": "x", "workflow": graph()}
    async with house.client() as nobody, house.client(key=keys["anna"]) as anna:
        for client, status in ((nobody, 401), (anna, 403)):
            assert (await client.http.post("/admin/workflows", json=body)).status_code == status
            assert (await client.http.get("/admin/workflows")).status_code == status
            assert (await client.http.delete("/admin/workflows/x")).status_code == status
    async with house.client(key=keys["tester"]) as tester:
        assert (await tester.http.post("/admin/workflows", json=body)).status_code == 201


async def test_where_everybody_may_call_not_everybody_may_publish(house: House) -> None:
    house.settings["access"] = {"allow_anonymous": True}
    await house.start()
    async with house.client() as anybody:
        body = {"alias": "x", "workflow": graph()}
        refused = await anybody.http.post("/admin/workflows", json=body)
        assert (refused.status_code, "needs an API key" in refused.json()["detail"]) == (403, True)
        assert (await anybody.http.delete("/admin/workflows/x")).status_code == 403


async def test_a_page_of_another_site_cannot_publish(http: httpx.AsyncClient) -> None:
    """In the browser of somebody who works at the machine of a service without keys."""
    body = json.dumps({"alias": "x", "workflow": graph()})
    await publish(http, alias="mine")
    port = http.base_url.port
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://127.0.0.1:{(port or 0) + 1}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
        {"Host": f"evil.example:{port}"},
    ):
        plain = headers | {"Content-Type": "text/plain"}
        refused = await http.post("/admin/workflows", content=body, headers=plain)
        assert refused.status_code in (401, 403), headers
        assert (await http.delete("/admin/workflows/mine", headers=headers)).status_code in (401, 403), headers
        assert (await http.get("/admin/workflows", headers=headers)).status_code in (401, 403), headers
    assert (await http.get("/admin/workflows")).json()["workflows"][0]["alias"] == "mine"


async def test_what_arrives_while_its_key_is_withdrawn_is_not_published(house: House, fake: FakeComfyUI) -> None:
    keys = house.write_clients("anna", anna='scopes = ["submit", "admin"]')
    await wait_for_keys(house)
    async with house.client(key=keys["anna"]) as anna:
        body = json.dumps({"alias": "x", "workflow": graph()}).encode()

        async def slowly() -> AsyncIterator[bytes]:
            yield body[:5]
            assert await let_in(anna) == 200
            house.write_clients()
            await wait_let_in(anna, 401)
            yield body[5:]

        headers = {"Content-Length": str(len(body))}
        refused = await anna.http.post("/admin/workflows", content=slowly(), headers=headers)
        assert refused.status_code == 401
    assert not (published(house) / "workflow_alias.json").exists()


async def test_the_log_says_who_publishes(
    house: House, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    await publish(http, alias="a\u0308 '\"")
    assert "was published by a program at 127.0.0.1" in caplog.text
    keys = house.write_clients()
    await wait_for_keys(house)
    async with house.client(key=keys["tester"]) as tester:
        await publish(tester.http, alias="b")
        assert (await tester.http.delete("/admin/workflows/b")).status_code == 204
    assert "workflow 'b' was published by key 'tester'" in caplog.text
    assert "workflow 'b' was taken out by key 'tester'" in caplog.text


async def test_pcs_that_have_not_answered_and_pcs_that_lack_something_are_warnings(
    house: House, start_fake: StartFake
) -> None:
    await house.start()
    async with httpx.AsyncClient(base_url=house.url, trust_env=False) as http:
        done = await publish(http, workflow=meta())
        assert done["warnings"] == [
            "no input is chosen: clients can run it only as it is",
            "no PC has said yet which nodes it has, so the node classes were not checked",
        ]
        fake = FakeComfyUI(name="half", lacks=["SaveImage"])
        other = FakeComfyUI(name="other", lacks=["EmptyImage"])
        async with trio.open_nursery() as nursery:
            for each in (fake, other):
                await nursery.start(each.serve)
            house.write_backends(("pc-1", fake.url), ("pc-2", other.url))
            await house.wait_up("pc-1", "pc-2")
            done = await publish(http, 200)
            assert done["warnings"] == [
                "no PC has all the node classes, so none can run it now: pc-1 lacks SaveImage; pc-2 lacks EmptyImage"
            ]
            nursery.cancel_scope.cancel()


async def test_a_float_with_a_whole_number_as_its_default_takes_fractions(
    fake: FakeComfyUI, http: httpx.AsyncClient
) -> None:
    blur: dict[str, Any] = {
        "class_type": "ImageBlur",
        "inputs": {"image": ["1", 0], "blur_radius": 2, "sigma": 3},  # JavaScript's 3.0
        "_meta": {"apiinput": "blur_radius,sigma"},
    }
    workflow = graph() | {"3": blur}
    workflow["2"]["inputs"]["images"] = ["3", 0]
    await publish(http, workflow=workflow)
    said = await info(http)
    assert {key: each["type"] for key, each in said.items() if key.startswith("3/")} == {
        "3/blur_radius": "int",
        "3/sigma": "float",
    }
    run = await http.post("/run?clientId=me", json={"workflow": "new", "3/sigma": 2.5, "3/blur_radius": 3})
    assert run.status_code == 200, run.text
    assert list(fake.prompts.values())[-1].graph["3"]["inputs"] == {"image": ["1", 0], "blur_radius": 3, "sigma": 2.5}


async def test_that_a_default_file_stays_where_it_is_is_said(house: House, http: httpx.AsyncClient) -> None:
    workflow = copy.deepcopy(INVERT)
    chosen = "node 10: image: the file 'example.png' is not sent along, so only PCs that have it run a job"
    assert (await publish(http, workflow=workflow))["warnings"] == [f"{chosen} that does not set this input"]
    workflow["10"]["_meta"] = {}
    assert (await publish(http, 200, workflow=workflow))["warnings"] == [chosen]


# -- the command -----------------------------------------------------------------------------------------------------


async def test_the_command_publishes_through_the_running_service(
    house: House, fake: FakeComfyUI, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    (folder / "descimage").mkdir(parents=True)
    (folder / "descimage" / "w.png").write_bytes(picture())
    (folder / "t.webp").write_bytes(picture(BLUE, "WEBP"))
    (folder / "waves.json").write_text(json.dumps(meta(apiinput="width", descimage="w.png")))
    options = ("--url", house.url)
    thumbnail = ("--description", "waves", "--thumbnail", "mine/t.webp")
    done = await bridged(tmp_path, "workflow", "add", "mine/waves.json", *thumbnail, *options)
    assert (done.returncode, done.stdout, done.stderr) == (0, "waves is published\ninputs: 1/width\n", "")
    async with house.client() as client:
        await client.submit("waves")
        assert len(await client.result()) == 1
        shown = await listed(client.http)
    assert (shown["waves"]["description"], shown["waves"]["thumbnail"]) == (
        "waves",
        base64.b64encode(picture(BLUE, "WEBP")).decode(),
    )
    found = await bridged(tmp_path, "workflow", "list", *options)
    assert "waves" in found.stdout
    assert (await bridged(tmp_path, "workflow", "remove", "waves", *options)).stdout == "waves is removed\n"
