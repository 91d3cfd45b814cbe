"""Nobody is told where a PC is: not callers, not who reads the log, however the PC fails and whatever it says."""

from __future__ import annotations

import json
import logging
import re
import ssl
import traceback
from functools import partial

import httpx
import pytest
import trio

from bridged.comfy import client as comfy_client
from bridged.comfy.client import ComfyClient
from bridged.errors import BackendUnavailable
from tests.conftest import StartFake
from tests.e2e.house import House
from tests.fakes.comfyui import FakeComfyUI, Reply
from tests.fakes.comfyui.script import Call

HOST = "localhost"
"""how the PC is called in the configuration; the service itself is 127.0.0.1 everywhere"""


class Witness:
    """Everything that could be seen of a house from outside and in its log."""

    def __init__(self, house: House, fake: FakeComfyUI, log: pytest.LogCaptureFixture) -> None:
        self.house = house
        self.fake = fake
        self.port = fake.port
        self.heard: list[str] = []
        self._log = log

    async def run(self, url: str = "") -> str:
        """A job to its bad end, or until the backend is known to be down; everything else is asked then, too.
        Returns the reasons that were given."""
        self.house.write_backends(("pc-1", url or f"http://{HOST}:{self.port}"))
        await self.house.start()
        async with httpx.AsyncClient(base_url=self.house.url, params={"clientId": "c"}, timeout=30) as http:
            with trio.fail_after(15):
                while not (reason := await self._ended(http)):
                    await trio.sleep(0.02)
            for path in ("/status", "/execution-info", "/history", "/jobs", "/workflow-list", "/nowhere"):
                await self._ask(http, "GET", path)
            await self._ask(http, "POST", "/free")
            await self._ask(http, "POST", "/interrupt")
            await self._ask(http, "POST", "/generate-based-workflow", json={"workflow": "pattern"})
        await self.house.stop()
        return reason

    async def _ended(self, http: httpx.AsyncClient) -> str:
        facts = json.loads(await self._ask(http, "GET", "/status"))
        (backend,) = facts["backends"]
        if backend["state"] == "up":
            if not facts["jobs"].get("failed") and not any(facts["jobs"].values()):
                await self._ask(http, "POST", "/generate-based-workflow", json={"workflow": "pattern"})
        elif not self.fake.prompts and backend["reason"] not in ("", "not connected yet"):
            return str(backend["reason"])
        info = json.loads(await self._ask(http, "GET", "/execution-info"))
        return str(info["detail"]) if info is not None and info["status"] == "error" else ""

    async def _ask(self, http: httpx.AsyncClient, method: str, path: str, **more: object) -> str:
        answer = await http.request(method, path, **more)  # type: ignore[arg-type]
        self.heard.append(f"{answer.headers} {answer.text}")
        return answer.text

    def assert_discreet(self, *more: str) -> None:
        # With tracebacks: what a formatter makes of a record, not only its message.
        lines = [logging.Formatter().format(r) for r in self._log.records if r.levelno >= logging.INFO]
        assert any("pc-1" in line for line in lines)
        for text in (*self.heard, *lines):
            for secret in (HOST, rf"(?<!\d){self.port}(?!\d)", *more):
                assert not re.search(secret, text), text


@pytest.fixture
async def witness(
    house: House, start_fake: StartFake, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Witness:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(comfy_client, "CONTROL_TIMEOUT", 0.3)
    monkeypatch.setattr(comfy_client, "OPEN_TIMEOUT", 0.5)
    house.settings["jobs"] |= {"max_attempts": 1, "unreachable_after": 0.5}
    return Witness(house, await start_fake("one"), caplog)


async def test_refused(witness: Witness) -> None:
    witness.fake.stop_listening()
    assert await witness.run() == "it refuses connections"
    witness.assert_discreet()


async def test_a_name_that_does_not_exist(witness: Witness) -> None:
    assert (await witness.run("http://no-such-pc.invalid:4711")).startswith("it cannot be reached")
    witness.assert_discreet("no-such-pc", "4711")


async def test_something_that_speaks_no_tls(witness: Witness) -> None:
    await witness.run(f"https://{HOST}:{witness.port}")
    witness.assert_discreet()


async def test_nothing_ever_answers(witness: Witness) -> None:
    witness.fake.black_hole()
    assert await witness.run() == "its event socket does not open in time"
    witness.assert_discreet()


def own_words(witness: Witness) -> bytes:
    """What a PC might say of itself."""
    place = f"{HOST}:{witness.port}"
    return f"Cannot connect to host {place}, see http://{place}/ ({place})".encode()


@pytest.mark.parametrize("status", [302, 401, 404, 500])
@pytest.mark.parametrize("route", ["/ws", "/object_info", "/queue", "/prompt", "/view"])
async def test_an_error_page_that_tells_all(witness: Witness, route: str, status: int) -> None:
    async def hook(call: Call) -> Reply | None:
        url = f"http://{HOST}:{witness.port}/elsewhere"
        return Reply(status, own_words(witness), {"Location": url}) if call.route == route else None

    witness.fake.script.hook = hook
    assert await witness.run()
    witness.assert_discreet()


async def test_a_refused_prompt_that_tells_all(witness: Witness) -> None:
    witness.fake.script.post_status = 400
    words = own_words(witness).decode()
    error = {"type": words, "message": words, "details": words}
    errors = {"1": {"errors": [error], "class_type": words}}
    witness.fake.script.post_body = {"error": error, "node_errors": errors}
    assert "its address" in await witness.run()
    witness.assert_discreet()


async def test_a_node_that_tells_all(witness: Witness) -> None:
    witness.fake.script.fail_node = "1"
    witness.fake.script.fail_message = own_words(witness).decode()
    assert "Cannot connect to host its address, see its address/ (its address)" in await witness.run()
    witness.assert_discreet()


@pytest.mark.parametrize("fate", ["reset", "answer"])
async def test_closed_in_the_middle_of_a_file(witness: Witness, fate: str) -> None:
    witness.fake.script.view_truncate = 10
    witness.fake.script.view_fate = "reset" if fate == "reset" else "answer"
    assert await witness.run()
    witness.assert_discreet()


async def test_a_file_that_is_an_error_page(witness: Witness) -> None:
    witness.fake.script.view_body = own_words(witness)
    assert await witness.run()
    witness.assert_discreet()


async def garbage(words: bytes, stream: trio.SocketStream) -> None:
    async with stream:
        await stream.receive_some()
        await stream.send_all(words)


@pytest.mark.parametrize(
    "answer",
    [
        "{words}\r\n\r\n",
        "HTTP/1.1 200 {words}\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n{words}\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: {words}\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {words}\r\n\r\n",
    ],
)
async def test_garbage_that_tells_all(witness: Witness, nursery: trio.Nursery, answer: str) -> None:
    words = answer.replace("{words}", own_words(witness).decode()).encode()
    (listener,) = await nursery.start(partial(trio.serve_tcp, partial(garbage, words), 0, host="127.0.0.1"))
    port = listener.socket.getsockname()[1]
    assert (await witness.run(f"http://{HOST}:{port}")).startswith("it")
    witness.assert_discreet(rf"(?<!\d){port}(?!\d)")


async def test_a_traceback_has_no_address_in_it(witness: Witness) -> None:
    """Where something unforeseen happens while a failure is dealt with, the whole chain of causes is logged."""
    witness.fake.stop_listening()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client = ComfyClient(f"http://{HOST}:{witness.port}", {}, "c", context)

    async def listen() -> None:
        async with client.events():
            pass

    for ask in (client.queue, partial(client.post_prompt, "1", {}), listen):
        with pytest.raises(BackendUnavailable) as refused:
            await ask()
        try:
            raise ValueError("unforeseen") from refused.value
        except ValueError as error:
            text = "".join(traceback.format_exception(error))
        assert "BackendUnavailable" in text
        assert not re.search(rf"(?<!\d){witness.port}(?!\d)", text)
    await client.aclose()


@pytest.mark.parametrize(
    ("url", "said", "shown"),
    [
        ("http://192.168.0.2:8188", "at 192.168.0.2:8188, http://192.168.0.2 (192.168.0.2)", "at X, X (X)"),
        ("http://192.168.0.2:8188", "192.168.0.21 and 1192.168.0.2", "192.168.0.21 and 1192.168.0.2"),
        ("https://pc.example.org/comfy", "PC.example.org: wss://pc.example.org:443/comfy", "X: X/comfy"),
        ("https://pc.example.org", "my-pc.example.org pc.example.organ", "my-pc.example.org pc.example.organ"),
        ("http://studio:8188", "studio lights at http://studio/ and studio:8188", "studio lights at X/ and X"),
        ("http://[fd00::7]:8188", "http://[fd00::7]:8188/ws and fd00::7", "X/ws and X"),
    ],
)
async def test_an_address_in_a_pcs_own_words(url: str, said: str, shown: str) -> None:
    client = ComfyClient(url, {}, "c", ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    assert client.without_address(said).replace("its address", "X") == shown
    await client.aclose()
