"""The whole package in a stand-in for ComfyUI: every route as a client sees it, and as the shared examples have it."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

import comfy_patch
from comfy_patch.node.host import EVERYTHING, INTERFACES
from comfy_patch.node.info import VERSION
from comfy_patch.node.routes import MAX_BODY
from comfy_patch.node.wiring import EVENT, install
from tests.comfy_patch.shapes import assert_like, example
from tests.comfy_patch.standin import Comfy, Interrupted

TOKEN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ"
OWNER = {"Host": "127.0.0.1:8188", "Sec-Fetch-Site": "same-origin"}
HERE = "/bridged/v1"


class Headers(dict[str, str]):
    def getall(self, name: str) -> list[str]:
        return [self[name]]


class Query(dict[str, list[str]]):
    def getall(self, name: str) -> list[str]:
        return self[name]


class Body:
    """A request's body, as it comes: in small pieces."""

    def __init__(self, body: bytes) -> None:
        self.left = body

    async def read(self, most: int) -> bytes:
        piece, self.left = self.left[: min(most, 5000)], self.left[min(most, 5000) :]
        return piece


class Client:
    """What aiohttp would do: middlewares around the route that is found."""

    def __init__(self, comfy: Comfy, folder: Path) -> None:
        self.comfy = comfy
        self.token = folder / "token"
        self.token.write_text(TOKEN)
        install(folder, comfy.find)

    async def __call__(
        self, method: str, url: str, body: Any = None, headers: dict[str, str] | None = None, peer: str = "10.0.0.7"
    ) -> tuple[int, Any]:
        """Status and JSON; "ComfyUI" where it is left to ComfyUI."""
        parts = urlsplit(url)
        sent = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()

        async def read() -> bytes:
            return sent

        handler, params = self._route(method, parts.path)
        request = SimpleNamespace(
            method=method,
            path=parts.path,
            query=Query(parse_qs(parts.query, keep_blank_values=True)),
            headers=Headers({"X-Bridged-Token": TOKEN} if headers is None else headers),
            transport=SimpleNamespace(get_extra_info=lambda name: (peer, 50000)),
            content=Body(sent),
            read=read,
            match_info=params,
        )
        call: Callable[[Any], Coroutine[Any, Any, Any]] = handler
        for middleware in self.comfy.middlewares:
            call = _around(middleware, call)
        answer = await call(request)
        return (200, answer) if answer == "ComfyUI" else (answer.status, json.loads(answer.body))

    def _route(self, method: str, path: str) -> tuple[Any, dict[str, str]]:
        for (route_method, pattern), handler in self.comfy.routes.items():
            wanted, found = pattern.split("/"), path.split("/")
            if route_method == method and len(wanted) == len(found):
                pairs = list(zip(wanted, found, strict=True))
                if all(want == got or want.startswith("{") for want, got in pairs):
                    return handler, {want[1:-1]: got for want, got in pairs if want.startswith("{")}

        async def comfyui(request: Any) -> str:
            return "ComfyUI"

        return comfyui, {}


def _around(middleware: Any, handler: Any) -> Any:
    async def call(request: Any) -> Any:
        return await middleware(request, handler)

    return call


Scenario = Callable[[Client], Coroutine[Any, Any, None]]


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Scenario], None]:
    def play(scenario: Scenario) -> None:
        async def main() -> None:
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
            (tmp_path / "package").mkdir(exist_ok=True)
            await scenario(Client(Comfy(tmp_path, asyncio.get_running_loop()), tmp_path / "package"))

        asyncio.run(main())

    return play


async def settled() -> None:
    """What was put on the loop has run, and what that put into the one thread that there is."""
    for _ in range(2):
        await asyncio.sleep(0)
        await asyncio.get_running_loop().run_in_executor(None, lambda: None)


@pytest.mark.parametrize("route", ["info", "page", "models", "combos"])
def test_the_answers_are_like_the_examples(run: Callable[[Scenario], None], route: str) -> None:
    async def scenario(client: Client) -> None:
        status, answer = await client("GET", f"{HERE}/{route}")
        assert status == 200
        assert_like(example(route), answer)

    run(scenario)


def test_info_says_what_there_is(run: Callable[[Scenario], None], tmp_path: Path) -> None:
    pack = tmp_path / "custom_nodes" / "x"
    pack.mkdir(parents=True)
    (pack / "pyproject.toml").write_text('[tool.x]\nversion = "9"\n[project]\nname = "x"\nversion = "1.2" # now\n[a]\n')

    async def scenario(client: Client) -> None:
        client.comfy.submit("owners", lease=None)
        _, info = await client("GET", f"{HERE}/info")
        assert info["node_packs"] == [{"name": "x", "version": "1.2"}]
        assert info["loaded_models"] == [{"name": "Sdxl", "size": 7}]
        assert [(device["memory_total"], device["memory_free"]) for device in info["devices"]] == [(16, 8)]
        assert (info["protocol"], info["comfyui"]) == (1, "0.3.64")
        assert (info["owner"]["active"], info["owner"]["queued"]) == (True, 1)

    run(scenario)


def test_without_the_token_there_is_only_the_owners_page_at_the_pc(run: Callable[[Scenario], None]) -> None:
    async def scenario(client: Client) -> None:
        forbidden = (403, example("errors")["forbidden"]["body"])
        for method, route in client.comfy.routes:
            url = route.replace("{prompt_id}", "a")
            allowed = url.rsplit("/", 1)[1] in ("page", "pause", "resume")
            assert await client(method, url, {}, headers={}) == forbidden
            assert await client(method, url, {}, headers={"X-Bridged-Token": TOKEN[:-1]}) == forbidden
            assert await client(method, url, {}, headers=OWNER) == forbidden, "from another machine"
            status, _ = await client(method, url, {}, headers=OWNER, peer="127.0.0.1")
            assert status == (200 if allowed else 403), url
        client.token.unlink()
        assert (await client("GET", f"{HERE}/info"))[0] == 403
        assert (await client("GET", f"{HERE}/page", headers=OWNER, peer="::1"))[0] == 200

    run(scenario)


def test_cancel(run: Callable[[Scenario], None]) -> None:
    async def scenario(client: Client) -> None:
        client.comfy.submit("a")
        client.comfy.submit("b")
        client.comfy.take()
        client.comfy.begin()
        for prompt_id, wanted in (("b", "queued"), ("b", "unknown"), ("a", "running")):
            status, answer = await client("POST", f"{HERE}/jobs/{prompt_id}/cancel")
            assert_like(example("cancel"), answer)
            assert (status, answer) == (200, {"cancelled": wanted})
        with pytest.raises(Interrupted):
            client.comfy.node()

    run(scenario)


def test_lease(run: Callable[[Scenario], None]) -> None:
    async def scenario(client: Client) -> None:
        status, answer = await client("POST", f"{HERE}/lease", {"client_id": "c", "seconds": 120})
        assert status == 200
        assert_like(example("lease"), answer)
        malformed = (400, example("errors")["malformed"]["body"])
        for body in ({}, {"client_id": ""}, {"client_id": "c" * 256}, {"client_id": 1, "seconds": 1}):
            assert await client("POST", f"{HERE}/lease", body) == malformed
        for seconds in (0, -1, 3601, True, "5", None, float("inf"), float("nan")):
            assert (await client("POST", f"{HERE}/lease", {"client_id": "c", "seconds": seconds}))[0] == 400
        for text in (b"[]", b"{", b"\xff", b"1"):
            assert (await client("POST", f"{HERE}/lease", text))[0] == 400
        assert (await client("POST", f"{HERE}/lease", b" " * (MAX_BODY + 1)))[0] == 413

    run(scenario)


def test_a_lease_that_ends_on_the_real_loop(run: Callable[[Scenario], None]) -> None:
    async def scenario(client: Client) -> None:
        client.comfy.submit("owners", lease=None)
        client.comfy.submit("a", lease=0.05)
        gone = asyncio.Event()
        client.comfy.queue.on_delete = gone.set
        async with asyncio.timeout(5):
            await gone.wait()
        assert [item[1] for item in client.comfy.queue.queue] == ["owners"]

    run(scenario)


def test_pause_and_resume(run: Callable[[Scenario], None], tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        bridges = {"prompt": {}, "extra_data": {"bridged": {"lease": 60}}}
        owners: list[Any] = [{"prompt": {}}, {"prompt": {}, "extra_data": {}}, b"{", b"[]"]
        assert await client("POST", "/prompt", bridges) == (200, "ComfyUI")
        status, answer = await client("POST", f"{HERE}/pause", {"minutes": 30, "stop": False})
        assert status == 200
        assert_like(example("paused"), answer)
        for path in ("/prompt", "/api/prompt"):
            refused = await client("POST", path, bridges, headers={})
            assert refused[0] == example("errors")["paused"]["status"]
            assert_like(example("errors")["paused"]["body"], refused[1])
            for body in owners:
                assert await client("POST", path, body) == (200, "ComfyUI")
        assert_like(example("lending"), client.comfy.events[-1][1])
        again = Client(Comfy(tmp_path, client.comfy.loop), tmp_path / "package")  # a restart
        assert (await again("POST", "/prompt", bridges))[0] == 503
        assert await client("POST", f"{HERE}/resume") == (200, {"lending": {"paused": False, "until": None}})
        assert client.comfy.events[-1] == (EVENT, {"paused": False, "until": None})
        assert await client("POST", "/prompt", bridges) == (200, "ComfyUI")
        for bad in (
            {"minutes": 0},
            {"minutes": "5"},
            {"minutes": True},
            {"minutes": 10**9},
            {"minutes": 10**400},
            {"stop": 1},
            {"stop": None},
        ):
            assert (await client("POST", f"{HERE}/pause", bad))[0] == 400
        assert client.comfy.events[-1] == (EVENT, {"paused": False, "until": None})

    run(scenario)


def test_a_pause_that_stops(run: Callable[[Scenario], None]) -> None:
    async def scenario(client: Client) -> None:
        for name, lease in (("a", 60.0), ("owners", None), ("b", 60.0)):
            client.comfy.submit(name, lease=lease)
        client.comfy.take()
        client.comfy.begin()
        await client("POST", f"{HERE}/pause", {"minutes": None, "stop": True})
        await settled()
        assert [item[1] for item in client.comfy.queue.queue] == ["owners"]
        with pytest.raises(Interrupted):
            client.comfy.node()

    run(scenario)


def test_what_was_served_is_counted_and_kept(run: Callable[[Scenario], None], tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        client.comfy.submit("a")
        client.comfy.submit("owners", lease=None)
        for _ in range(2):
            client.comfy.done(client.comfy.take())
        await settled()
        for each in (client, Client(Comfy(tmp_path, client.comfy.loop), tmp_path / "package")):
            assert (await each("GET", f"{HERE}/page"))[1]["served"]["jobs"] == 1

    run(scenario)


def test_files_in_the_rfcs_form_beside_comfyuis_own(run: Callable[[Scenario], None]) -> None:
    async def scenario(client: Client) -> None:
        files = (200, example("files"))
        for url in ("/internal/files/loras", "/api/internal/files/loras", "/internal/files?folder_path=loras"):
            assert await client("GET", url, headers={}) == files
        for query in (
            "filter_ext=.SAFETENSORS",
            "filter_ext=.pt,.safetensors",
            "filter_ext=.pt&filter_ext=.safetensors",
        ):
            assert await client("GET", f"/internal/files/loras?{query}") == files
        one = await client("GET", "/internal/files/loras?first=None&first=a,b&filter_ext=.pt&last=x")
        assert one == (200, {"files": ["None", "a,b", "x"]})
        client.comfy.files["packs/bbox"] = ["c.pt"]
        assert await client("GET", "/internal/files/packs/bbox") == (200, {"files": ["c.pt"]})
        missing = example("errors")["no_such_folder"]
        for url in ("/internal/files/nothing", "/internal/files/a/../b", "/internal/files?folder_path=custom_nodes"):
            assert await client("GET", url) == (missing["status"], missing["body"])
        assert (await client("GET", f"/internal/files/loras?first={'x' * 256}"))[0] == 400
        for url in (
            "/internal/files/input",
            "/internal/files",
            "/internal/logs",
            "/models/loras",
        ):
            assert await client("GET", url) == (200, "ComfyUI")
        assert await client("GET", "/internal/files/input?filter_ext=.png") == (200, {"files": []})

    run(scenario)


def test_definitions_only_where_they_are_asked_for(run: Callable[[Scenario], None]) -> None:
    async def scenario(client: Client) -> None:
        for url in ("/object_info", "/object_info/A", "/object_info?x=1", "/object_info?format=v1", "/ws?format=v2"):
            assert await client("GET", url) == (200, "ComfyUI")
        assert await client("GET", "/object_info?format=v2") == (200, {})
        for name in ("A", "Int // Logic"):
            assert await client("GET", f"/api/object_info/{name}?format=v2") == (200, {})
        assert (await client("GET", "/object_info?format=v3"))[0] == 400

    run(scenario)


def test_returns_are_derived_when_all_extensions_are_loaded(run: Callable[[Scenario], None]) -> None:
    async def scenario(client: Client) -> None:
        late = client.comfy.classes["Late"] = type("Late", (), {"RETURNS": ({"type": "INT"},)})
        for call in client.comfy.started:
            await call(None)
        assert late.RETURN_TYPES == ("INT",)  # type: ignore[attr-defined]

    run(scenario)


def test_nodes_that_take_for_ever_take_none_of_comfyuis_threads(run: Callable[[Scenario], None]) -> None:
    async def scenario(client: Client) -> None:
        asked, goes_on = threading.Event(), threading.Event()

        def input_types() -> Any:
            asked.set()
            goes_on.wait(20)
            return {"required": {"x": ("INT",)}}

        client.comfy.classes["Slow"] = type("Slow", (), {"RETURN_TYPES": (), "INPUT_TYPES": input_types})
        urls = ("/object_info?format=v2", "/object_info?format=v2", f"{HERE}/combos")
        waiting = [asyncio.ensure_future(client("GET", url)) for url in urls]
        try:
            async with asyncio.timeout(5):
                while not asked.is_set():
                    await asyncio.sleep(0)
                await asyncio.get_running_loop().run_in_executor(None, lambda: None)
                assert (await client("POST", f"{HERE}/pause", {"minutes": None, "stop": False}))[0] == 200
                assert await client("POST", "/prompt", {"prompt": {}}) == (200, "ComfyUI")
        finally:
            goes_on.set()
        assert [(await each)[0] for each in waiting] == [200, 200, 200]

    run(scenario)


def test_a_second_copy_of_the_package_keeps_its_hands_off(
    run: Callable[[Scenario], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(client: Client) -> None:
        assert install(tmp_path / "a copy", client.comfy.find) is None
        assert "loaded already" in caplog.text
        client.comfy.submit("a")
        client.comfy.done(client.comfy.take())
        await client("POST", f"{HERE}/pause", {"minutes": None, "stop": False})
        await settled()
        kept = json.loads((tmp_path / "bridged_patch.json").read_text())
        assert (kept["paused"], kept["served"]["jobs"]) == (True, 1)

    run(scenario)


def test_our_own_failures_are_answered_and_logged(
    run: Callable[[Scenario], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(client: Client) -> None:
        client.comfy.management.current_loaded_models = None  # type: ignore[assignment]
        with caplog.at_level(logging.ERROR):
            assert (await client("GET", f"{HERE}/info"))[0] == 500
        assert "failed" in caplog.text

    run(scenario)


@pytest.mark.parametrize("interface", INTERFACES, ids=lambda interface: interface.place)
def test_a_release_without_an_interface_is_named_in_one_line_and_all_else_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, interface: Any
) -> None:
    async def main() -> None:
        comfy = Comfy(tmp_path, asyncio.get_running_loop())
        (tmp_path / "token").write_text(TOKEN)
        module, _, path = interface.place.partition(":")
        *owners, name = path.split(".")
        owner = comfy.modules[module]
        for each in owners:
            owner = getattr(owner, each)
        monkeypatch.delattr(owner if name in vars(owner) else type(owner), name)
        with caplog.at_level(logging.WARNING):
            routes = install(tmp_path, comfy.find)
        lines = [record.message for record in caplog.records]
        assert len(lines) == 1
        assert interface.place in lines[0]
        assert interface.what_for in lines[0]
        assert (routes is None) is (interface.what_for == EVERYTHING)
        if routes is not None:
            for route in ("info", "page", "models", "combos"):
                if ("GET", f"{HERE}/{route}") in comfy.routes:
                    request = SimpleNamespace(
                        method="GET", path="/", query=Query(), headers=Headers({"X-Bridged-Token": TOKEN}),
                        transport=None, content=Body(b""), match_info={},
                    )  # fmt: skip
                    assert (await comfy.routes["GET", f"{HERE}/{route}"](request)).status == 200

    asyncio.run(main())


def test_the_package_says_the_version_that_the_installer_says() -> None:
    assert comfy_patch.__version__ == VERSION
