"""The bridge API over the wire, endpoint by endpoint. Runs on real ComfyUIs where COMFYUI_URLS names some."""

from __future__ import annotations

import base64
import io
import uuid

import httpx
import pytest
import trio
from PIL import Image
from werkzeug.formparser import parse_form_data

from tests.e2e.house import BLURS, House
from tests.fakes.comfyui import FakeComfyUI


def picture(color: tuple[int, int, int] = (10, 200, 30), kind: str = "PNG", size: tuple[int, int] = (20, 10)) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", size, color).save(data, kind)
    return data.getvalue()


async def test_greets_browsers(served: House) -> None:
    async with httpx.AsyncClient() as http:
        response = await http.get(served.url + "/")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    assert "workflow-list" in response.text


async def test_workflow_list_names_aliases_then_unlisted_files(house: House) -> None:
    thumbnail = picture()
    (house.workflows / "thumbnail" / "t.png").write_bytes(thumbnail)
    house.write_workflow("pattern", BLURS, thumbnail="t.png")
    (house.workflows / "unlisted.json").write_text((house.workflows / "blurs.json").read_text())
    await house.start()
    async with house.client() as client:
        listed = (await client.http.get("/workflow-list")).json()
    assert [w["alias"] for w in listed] == ["invert", "blurs", "pattern", "unlisted.json"]
    assert listed[0] == {"alias": "invert", "fn": "invert.json", "description": "makes invert", "thumbnail": None}
    assert base64.b64decode(listed[2]["thumbnail"]) == thumbnail


async def test_workflow_info_gives_types_titles_and_defaults(served: House) -> None:
    async with served.client() as client:
        info = (await client.http.get("/workflow-info", params={"workflow": "invert"})).json()
        missing = await client.http.get("/workflow-info", params={"workflow": "nope"})
        none = await client.http.get("/workflow-info")
    read_by_all = ("type", "title", "default", "descimage")
    assert {key: {name: shown[name] for name in read_by_all} for key, shown in info.items()} == {
        "10/image": {"type": "image/png", "title": "Load / image", "default": "example.png", "descimage": None},
        "12/width": {"type": "int", "title": "Size / width", "default": 24, "descimage": None},
        "12/height": {"type": "int", "title": "Size / height", "default": 16, "descimage": None},
    }
    assert (missing.status_code, none.status_code) == (400, 400)
    assert missing.headers["content-type"] == "application/json"
    assert "'nope' is not registered" in missing.json()["detail"]
    assert "pattern" in missing.json()["detail"]


async def test_a_rest_client_uploads_runs_polls_and_fetches(served: House) -> None:
    async with served.client(str(uuid.uuid4())) as client:
        assert await client.info() is None
        token = (await client.upload(mine=("photo.png", picture())))["mine"]
        assert token.startswith("bridge_server_comfyui_")
        answer = await client.submit("invert", **{"10__image": token, "12__width": 30, "12__height": 20})
        assert answer["detail"] == "queued / 1"
        await client.wait_info(status="closed", detail="Execution is done", job_id=answer["job_id"])
        response = await client.http.get("/history")
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("multipart/form-data; boundary=")
        environ = {
            "wsgi.input": io.BytesIO(response.content),
            "CONTENT_LENGTH": str(len(response.content)),
            "CONTENT_TYPE": response.headers["content-type"],
            "REQUEST_METHOD": "POST",
        }
        _, _, files = parse_form_data(environ)
        assert list(files) == ["result_0"]
        assert files["result_0"].content_type == "image/png"
        assert files["result_0"].filename is not None
        assert files["result_0"].filename.endswith(".png")
        Image.open(files["result_0"].stream).verify()
        files["result_0"].close()
        assert (await client.http.get("/history")).status_code == 204


async def test_history_as_base64_gives_the_oldest_unfetched_job_or_the_one_asked_for(served: House) -> None:
    async with served.client(str(uuid.uuid4())) as client:
        jobs = [(await client.submit("pattern", **{"1__color": color}))["job_id"] for color in (1, 2, 3)]
        await client.wait_info(status="closed")
        third = await client.result(jobId=jobs[2])
        first = await client.result()
        second = await client.result()
        assert [files[0]["file_name"].split("-")[1] for files in (first, second, third)] == [j[:8] for j in jobs]
        assert await client.result() == []
        pixels = [
            Image.open(io.BytesIO(base64.b64decode(files[0]["content"]))).size for files in (first, second, third)
        ]
        assert len(set(pixels)) == 1
        assert first[0]["content_type"] == "image/png"


async def test_history_can_wait_for_the_result(served: House) -> None:
    async with served.client(str(uuid.uuid4())) as client:
        await client.submit("pattern", **{"1__color": 77})
        assert len(await client.result(wait=20)) == 1
        assert await client.result(wait=20) == []  # nothing is open: it does not wait in vain
        refused = await client.http.get("/history", params={"wait": "soon"})
        assert refused.status_code == 400


@pytest.mark.parametrize("path", ["/history", "/history?resType=base64"])
async def test_a_result_whose_download_broke_off_can_be_fetched_again(
    house: House, fake: FakeComfyUI, path: str
) -> None:
    data = io.BytesIO()
    Image.effect_noise((3000, 3000), 90).save(data, "PNG")
    fake.script.view_body = data.getvalue()
    async with house.client("c1") as client:
        await client.submit("pattern")
        await client.wait_info(state="succeeded")
        host, port = house.url.removeprefix("http://").rsplit(":", 1)
        stream = await trio.open_tcp_stream(host, int(port))
        query = f"{path}{'&' if '?' in path else '?'}clientId=c1"
        await stream.send_all(f"GET {query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert await stream.receive_some(65536)
        await trio.aclose_forcefully(stream)
        for _ in range(100):  # each answer is a turn of the daemon's loop: it has dealt with the rest of that body
            await house.status()
        (file,) = await client.result()
        assert base64.b64decode(file["content"]) == fake.script.view_body


async def test_history_of_an_unknown_client_is_empty(served: House) -> None:
    async with served.client("nobody") as client:
        assert (await client.http.get("/history")).status_code == 204
        assert (await client.http.get("/execution-info")).json() is None


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"workflow": "invert", "12/width": "wide"}, "'12/width' must be int, not str"),
        ({"workflow": "invert", "12/width": True}, "'12/width' must be int, not bool"),
        ({"workflow": "invert", "12/depth": 3}, "'12/depth' is no input of 'invert'"),
        ({"workflow": "invert", "11/image": 3}, "'11/image' is no input of 'invert'"),
        ({"workflow": "invert", "10/image": "bridge_server_comfyui_x"}, "'10/image': unknown or expired upload token"),
        ({"workflow": "invert", "10/image": "../secret.png"}, "'10/image'"),
        ({"workflow": "nope"}, "'nope' is not registered"),
        ({"12/width": 3}, "`workflow` is required"),
    ],
)
async def test_bad_submissions_name_the_key_and_queue_nothing(
    served: House, values: dict[str, object], named: str
) -> None:
    async with served.client() as client:
        response = await client.http.post("/generate-based-workflow", json=values)
    assert response.status_code == 400
    assert named in response.json()["detail"]
    assert (await served.status())["jobs"] == {}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b'{"workflow": "pattern", "1/color": NaN}'])
async def test_bodies_that_are_no_json_object_are_refused(served: House, body: bytes) -> None:
    async with served.client() as client:
        response = await client.http.post("/generate-based-workflow", content=body)
    assert response.status_code == 400
    assert response.json()["detail"]


@pytest.mark.parametrize("path", ["/history", "/execution-info", "/interrupt", "/upload", "/generate-based-workflow"])
async def test_client_id_is_required(served: House, path: str) -> None:
    method = "GET" if path in ("/history", "/execution-info") else "POST"
    async with httpx.AsyncClient(base_url=served.url) as http:
        for query in ("", "?clientId=", "?clientId=" + "x" * 300, "?clientId=a%00b"):
            response = await http.request(method, path + query)
            assert response.status_code == 400
            assert "clientId" in response.json()["detail"]


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("photo.jpg", picture(), "does not fit"),
        ("photo.jpeg", picture(kind="PNG"), "does not fit"),
        ("../photo.png", picture(), "bare name"),
        ("a\\b.png", picture(), "bare name"),
        ("page.html", b"<!DOCTYPE html><html><body>hello</body></html>", "not allowed"),
        ("empty.png", b"", "empty"),
    ],
)
async def test_uploads_that_do_not_pass_are_refused_and_leave_nothing(
    served: House, name: str, data: bytes, why: str
) -> None:
    async with served.client() as client:
        response = await client.http.post("/upload", files={"good": ("g.png", picture()), "bad": (name, data)})
    assert response.status_code == 400
    assert why in response.json()["detail"]
    assert list((served.folder / "state" / "spool" / "uploads").iterdir()) == []


async def test_jpeg_by_either_extension_is_accepted(served: House) -> None:
    async with served.client() as client:
        jpeg = picture(kind="JPEG")
        tokens = await client.upload(a=("a.jpg", jpeg), b=("b.jpeg", jpeg))
    assert set(tokens) == {"a", "b"}
    assert tokens["a"] != tokens["b"]


async def test_an_upload_that_is_too_large_gets_413_and_leaves_nothing(house: House) -> None:
    house.settings["files"] = {"upload_max_size": 0.5}
    await house.start()
    async with house.client() as client:
        response = await client.http.post("/upload", files={"big": ("big.png", picture() + bytes(2_000_000))})
    assert response.status_code == 413
    assert "0.5 MB" in response.json()["detail"]
    assert list((house.folder / "state" / "spool" / "uploads").iterdir()) == []


async def test_an_upload_belongs_to_the_client_that_made_it(served: House) -> None:
    async with served.client("owner") as owner, served.client("other") as other:
        token = (await owner.upload(f=("f.png", picture())))["f"]
        stolen = await other.http.post("/generate-based-workflow", json={"workflow": "invert", "10/image": token})
        assert stolen.status_code == 400
        assert "unknown or expired upload token" in stolen.json()["detail"]
        await owner.submit("invert", **{"10__image": token})
        assert len(await owner.result()) == 1


async def test_generation_count_is_a_bare_integer_that_survives_a_restart(served: House) -> None:
    async with served.client() as client:
        assert (await client.http.get("/generation-count")).text == "0"
        await client.submit("pattern", **{"1__color": 5})
        assert len(await client.result()) == 1
        assert (await client.http.get("/generation-count")).json() == 1
    await served.stop()
    await served.start()
    async with served.client() as client:
        assert (await client.http.get("/generation-count")).text == "1"


async def test_free_reaches_all_backends_or_the_clients(served: House) -> None:
    async with served.client("me") as client, httpx.AsyncClient(base_url=served.url) as http:
        everyone = await http.post("/free")
        mine = await client.http.post("/free")
    assert everyone.json() == {"detail": "server memory free now / ALL"}
    assert mine.json() == {"detail": "server memory free now / me"}


async def test_interrupt_answers_as_documented_also_with_nothing_to_interrupt(served: House) -> None:
    async with served.client("me") as client:
        response = await client.http.post("/interrupt")
    assert response.status_code == 200
    assert response.json() == {"detail": "interrupted that clientId will be ignored. / me"}


async def test_a_rest_client_interrupts_its_running_job(served: House) -> None:
    async with served.client(str(uuid.uuid4())) as client:
        await client.submit("blurs")
        await client.wait_info(state="running")
        await client.http.post("/interrupt")
        assert (await client.info() or {})["state"] == "cancelled"
        assert await client.result(wait=0) == []
    await served.wait_status(lambda s: all(b["running"] == 0 for b in s["backends"]), 30)


async def test_unknown_paths_and_methods_answer_in_json(served: House) -> None:
    async with httpx.AsyncClient(base_url=served.url) as http:
        missing, wrong = await http.get("/nope"), await http.get("/upload")
    assert (missing.status_code, wrong.status_code) == (404, 405)
    assert missing.json()["detail"]
    assert wrong.json()["detail"]


async def test_what_no_backend_can_run_is_refused_with_the_reason_per_name(served: House) -> None:
    served.write_workflow("checkpoint", {"1": {"class_type": "NoSuchLoader", "inputs": {}}})
    await served.wait_status(lambda s: any(w["alias"] == "checkpoint" for w in s["workflows"]))
    async with served.client() as client:
        response = await client.http.post("/generate-based-workflow", json={"workflow": "checkpoint"})
    assert response.status_code == 400
    detail = response.json()["detail"]
    assert "pc-1 lacks NoSuchLoader" in detail
    assert "127.0.0.1" not in detail


async def test_one_client_cannot_fetch_anothers_result(served: House) -> None:
    async with served.client("a") as a, served.client("b") as b:
        job = (await a.submit("pattern", **{"1__color": 9}))["job_id"]
        await a.wait_info(status="closed")
        assert await b.result(wait=0, jobId=job) == []
        assert len(await a.result()) == 1
