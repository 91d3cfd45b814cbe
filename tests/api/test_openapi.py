"""The OpenAPI document: nothing is missing from it, and what the service really answers is what it says."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Iterator
from typing import Any, cast

import httpx
import jsonschema_rs
import pytest
from PIL import Image
from quart import Response

from bridged.api.app import Services, create_app, endpoints, hot_endpoints
from bridged.api.hot import KEPT_STATUS
from bridged.api.openapi import document, operation_of, text_of
from tests.conftest import StartFake
from tests.e2e.house import PATTERN, Client, House

NOTHING = Services(*[cast("Any", None)] * len(Services.__struct_fields__))
"""handlers are only looked at, not called"""

METHODS = {"get", "post", "put", "patch", "delete"}


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    return file.getvalue()


def made() -> dict[str, Any]:
    return document(*endpoints(create_app(NOTHING), hot_endpoints(NOTHING)))


# -- nothing is missing ----------------------------------------------------------------------------------------------


def test_every_route_and_every_hot_endpoint_is_described() -> None:
    app, listed = create_app(NOTHING), made()["paths"]
    found: set[tuple[str, str]] = set()
    for rule in app.url_map.iter_rules():
        handler = app.view_functions[rule.endpoint]
        if rule.websocket:
            assert text_of(handler) in made()["info"]["description"], rule
        else:
            assert operation_of(handler).summary, rule
            path = re.sub(r"<(?:path:)?(\w+)>", r"{\1}", str(rule))
            found |= {(path, method.lower()) for method in rule.methods or ()}
    for path, endpoint in hot_endpoints(NOTHING).items():
        assert operation_of(endpoint.handler).summary, path
        found |= {(path, method.lower()) for method in endpoint.methods}
    assert {(path, method) for path, methods in listed.items() for method in methods} == {
        (path, method) for path, method in found if method in METHODS
    }
    assert len(listed) >= 14


def test_a_route_without_a_description_is_an_error() -> None:
    app = create_app(NOTHING)

    @app.get("/nobody-told")
    async def nobody_told() -> Response:
        return Response("")

    with pytest.raises(LookupError, match="nobody_told has no description"):
        document(*endpoints(app, {}))

    @app.websocket("/nor-of-this")
    async def nor_of_this() -> None: ...

    with pytest.raises(LookupError, match="nor_of_this has no text"):
        document([], endpoints(app, {})[1])


def test_it_holds_together() -> None:
    whole = made()
    names = set(whole["components"]["schemas"])
    refs = set(re.findall(r'"#/components/schemas/([^"]+)"', str(whole).replace("'", '"')))
    assert refs == names
    operations = [each for methods in whole["paths"].values() for each in methods.values()]
    assert len({each["operationId"] for each in operations}) == len(operations)
    for path, methods in whole["paths"].items():
        for operation in methods.values():
            declared = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
            assert declared == set(re.findall(r"{(\w+)}", path)), path
            assert {"400", "401", "403", "408", "429"} <= set(operation["responses"])
    for schema in [*schemas(whole), *whole["components"]["schemas"].values()]:
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


def schemas(value: Any) -> Iterator[dict[str, Any]]:
    """Every schema of parameters, bodies, answers and headers."""
    if isinstance(value, dict):
        if isinstance(value.get("schema"), dict):
            yield value["schema"]
        for each in value.values():
            yield from schemas(each)
    elif isinstance(value, list):
        for each in value:
            yield from schemas(each)


# -- what is answered is what it says --------------------------------------------------------------------------------


class Contract:
    """The served document, and the answers that were held against it."""

    def __init__(self, served: dict[str, Any]) -> None:
        self.paths = served["paths"]
        self._components = {"components": {"schemas": _strict(served["components"]["schemas"])}}
        self.seen: set[tuple[str, str, int]] = set()

    def hold(self, response: httpx.Response) -> httpx.Response:
        """Fails where the document does not say so. JSON objects must have nothing that it does not name."""
        request = response.request
        path = re.sub(r"^/jobs/.+", "/jobs/{job_id}", request.url.path)
        path = re.sub(r"^/object_info/.+", "/object_info/{name}", path)
        path = re.sub(r"^/internal/files/[^/]+", "/internal/files/{folder}", path)
        path = re.sub(r"^/admin/workflows/.+", "/admin/workflows/{alias}", path)
        where = f"{request.method} {path} {response.status_code} {response.text[:200]}"
        described = self.paths[path][request.method.lower()]["responses"].get(str(response.status_code))
        assert described is not None, where
        self.seen.add((request.method, path, response.status_code))
        for name, header in described.get("headers", {}).items():
            if name in response.headers:
                text = response.headers[name]
                value = int(text) if header["schema"]["type"] == "integer" else text
                self._check(header["schema"], value, where)
        kind = response.headers.get("content-type", "").partition(";")[0]
        assert kind in (described.get("content") or {"": None}), where
        if kind == "application/json":
            self._check(described["content"][kind]["schema"], response.json(), where)
        return response

    def _check(self, schema: dict[str, Any], value: Any, where: str) -> None:
        try:
            jsonschema_rs.validate({**_strict(schema), **self._components}, value)
        except jsonschema_rs.ValidationError as error:
            pytest.fail(f"{where}: {error}")


def _strict(schema: Any) -> Any:
    """Objects with named properties have no others."""
    if isinstance(schema, dict):
        made = {name: _strict(each) for name, each in schema.items()}
        if "properties" in made and "additionalProperties" not in made:
            made["additionalProperties"] = False
        return made
    return [_strict(each) for each in schema] if isinstance(schema, list) else copy.copy(schema)


@pytest.fixture
async def contract(served: House) -> Contract:
    async with served.client() as client:
        response = await client.http.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    assert response.json()["openapi"].startswith("3.1.")
    return Contract(response.json())


async def test_what_is_served_is_what_is_made(served: House) -> None:
    async with served.client() as client:
        assert (await client.http.get("/openapi.json")).json() == made()
        assert (await client.http.head("/openapi.json")).content == b""


async def test_real_answers_are_what_the_document_says(served: House, contract: Contract) -> None:
    async with served.client() as client:
        hold, http = contract.hold, client.http
        for path in ("/", "/workflow-list", "/status", "/generation-count"):
            hold(await http.get(path))
        hold(await http.get("/workflow-info", params={"workflow": "invert"}))
        hold(await http.get("/execution-info", params={"clientId": "nobody"}))
        token = hold(await http.post("/upload", files={"f": ("a.png", picture())})).json()["f"]
        for kind in ("base64", "multipart"):
            submission = {"workflow": "invert", "10/image": token, "12/width": 16}
            job = hold(await http.post("/generate-based-workflow", json=submission)).json()["job_id"]
            hold(await http.get(f"/jobs/{job}"))
            hold(await http.get("/execution-info"))
            await client.wait_info(status="closed")
            hold(await http.get("/history", params={"resType": kind, "wait": 20}))
            hold(await http.get("/history", params={"resType": kind}))
            hold(await http.post("/run", params={"resType": kind}, json={"workflow": "pattern"}))
        for path in (f"/jobs/{job}", "/jobs", "/execution-info", "/openapi.json"):
            hold(await http.get(path))
        for path in ("/object_info", "/object_info/LoadImage", "/internal/files/loras", "/internal/files/input"):
            found = hold(await http.get(path, params={"availability": 1}))
            hold(await http.get(path, params={"availability": 1}, headers={"If-None-Match": found.headers["etag"]}))
        hold(await http.get("/internal/files", params={"folder_path": "loras"}))
        hold(await http.post("/internal/files/loras/refresh"))
        combo = {"class": "LoadImageOutput", "input": "image"}  # not one of the fakes' classes
        for response in (
            await http.get("/internal/combos", params=combo),
            await http.post("/internal/combos/refresh", params=combo),
        ):
            hold(response)
        for alias in ("new", "new", "of two/parts"):
            hold(await http.post("/admin/workflows", json={"alias": alias, "workflow": PATTERN}))
        hold(await http.get("/admin/workflows"))
        hold(await http.delete("/admin/workflows/of two/parts"))
        hold(await http.post("/free"))
        hold(await http.post("/interrupt"))
        unfinished = await http.post("/run", params={"wait": 0}, json={"workflow": "blurs"})
        hold(unfinished)
        hold(await http.get("/status"))
        hold(await http.post("/interrupt"))
        hold(await http.get(f"/jobs/{unfinished.json()['job_id']}"))
        assert {status for *_, status in contract.seen} == {200, 201, 202, 204, 304, 404}
        told = {(method.lower(), path) for method, path, status in contract.seen if status < 300}
        combos = {("get", "/internal/combos"), ("post", "/internal/combos/refresh")}
        assert told | combos == {(method, path) for path, methods in contract.paths.items() for method in methods}


async def test_real_refusals_are_what_the_document_says(served: House, contract: Contract) -> None:
    async with served.client() as client, served.client("") as nobody:
        hold, http = contract.hold, client.http
        known = {"workflow": "pattern"}
        for wrong in ({"workflow": "nope"}, {**known, "x": 1}, {}, {**known, "webhook": "x"}):
            hold(await http.post("/generate-based-workflow", json=wrong))
            hold(await http.post("/run", json=wrong))
        for path in ("/execution-info", "/history", "/jobs", "/workflow-info"):
            hold(await nobody.http.get(path))
        for path in ("/upload", "/interrupt", "/run"):
            hold(await nobody.http.post(path))
        hold(await http.post("/upload", files={"f": ("a.png", b"no picture")}))
        hold(await http.get("/history", params={"resType": "x"}))
        hold(await http.get("/workflow-info", params={"workflow": "nope"}))
        hold(await http.get("/jobs/nope"))
        hold(await http.post("/admin/workflows", json={"alias": "x", "workflow": {}}))
        hold(await http.post("/admin/workflows", content=b" " * 16_000_001))
        hold(await http.delete("/admin/workflows/nope"))
        hold(await http.post("/run", content=b"1" * 1_000_001))
        hold(await http.post("/generate-based-workflow", content=b"1" * 1_000_001))
        twice = {"Idempotency-Key": "same"}
        hold(await http.post("/run", json={"workflow": "pattern"}, headers=twice))
        hold(await http.post("/run", json={"workflow": "invert"}, headers=twice))
        hold(await http.get("/", headers={"Origin": "http://elsewhere.example"}))
        wrong_methods = [await http.delete("/status"), await http.get("/upload"), await http.put("/run")]
        assert [(each.status_code, each.headers["allow"]) for each in wrong_methods] == [
            (405, "GET, HEAD, OPTIONS"),
            (405, "OPTIONS, POST"),
            (405, "POST"),
        ]
        assert {status for *_, status in contract.seen} == {200, 400, 403, 404, 413, 422}


async def test_refusals_with_keys_are_what_the_document_says(house: House, start_fake: StartFake) -> None:
    fake = await start_fake("one")
    house.write_backends(("pc-1", fake.url))
    house.write_clients("anna", "ben", anna='aliases = ["pattern"]\nrate = 1\nburst = 1', ben="requests = 1\n")
    await house.start()
    await house.wait_up("pc-1")
    async with house.client(key="key-of-tester") as tester:
        contract = Contract((await tester.http.get("/openapi.json")).json())
    hold = contract.hold

    async def asked(client: Client) -> None:
        for path, methods in contract.paths.items():
            for method in methods:
                hold(await client.http.request(method, re.sub("{.*?}", "1", path)))

    async with house.client() as nobody:
        await asked(nobody)
        assert {status for *_, status in contract.seen} == {401}
        hold(await nobody.http.get("/generation-count", params={"key": "key-of-ben"}))
    assert {status for *_, status in contract.seen} == {400, 401}
    contract.seen.clear()
    async with house.client(key="key-of-ben") as ben:
        for _ in range(10):
            hold(await ben.http.get("/generation-count"))
        await asked(ben)
    assert {status for *_, status in contract.seen} == {200, 429}
    contract.seen.clear()
    async with house.client(key="key-of-anna") as anna:
        hold(await anna.http.post("/run", json={"workflow": "pattern"}))
        for path in ("/run", "/generate-based-workflow"):
            hold(await anna.http.post(path, json={"workflow": "pattern"}))
            hold(await anna.http.post(path, json={"workflow": "invert"}))
        hold(await anna.http.get("/workflow-list"))
        hold(await anna.http.get("/workflow-info", params={"workflow": "invert"}))
        hold(await anna.http.get("/status"))
        hold(await anna.http.post("/free", params={"clientId": "c1"}))
        anna.http.params = httpx.QueryParams()
        hold(await anna.http.post("/free"))
    assert {status for *_, status in contract.seen} == {200, 403, 429}


def test_the_statuses_it_speaks_of_are_those_that_are_kept() -> None:
    """Operations of the bridge dialect have no others for a fault of the request."""
    for path, methods in made()["paths"].items():
        for operation in methods.values():
            if operation["tags"] == ["bridge"]:
                allowed = {"200", "204", "400", *map(str, KEPT_STATUS)}
                assert set(operation["responses"]) <= allowed, path
