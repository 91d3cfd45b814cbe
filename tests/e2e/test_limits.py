"""Limits that hold against clients that mean harm: slow ones, large ones, many at once. Raw sockets: no client library
would do these things.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.conftest import StartFake
from tests.e2e.house import House
from tests.e2e.test_access import picture, wait_for_keys
from tests.e2e.test_connections import connections
from tests.fakes.comfyui import FakeComfyUI

UPGRADE = (
    *("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)

LIMITS: dict[str, float] = {
    **{"header_timeout": 0.4, "body_timeout": 0.4, "body_min_rate": 100, "json_max_size": 0.01},
    **{"connections_per_address": 8, "sessions_per_address": 2, "uploads_per_key": 0.01},
}


@pytest.fixture
async def strict(house: House, start_fake: StartFake) -> House:
    fake = await start_fake("one")
    house.write_backends(("pc-1", fake.url))
    house.settings["limits"] = LIMITS
    await house.start()
    await house.wait_up("pc-1")
    return house


@asynccontextmanager
async def raw(house: House) -> AsyncIterator[trio.SocketStream]:
    host, port = house.url.removeprefix("http://").rsplit(":", 1)
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        yield stream


async def heard(stream: trio.SocketStream, seconds: float = 5) -> bytes:
    """All until the server closes."""
    said = b""
    with trio.fail_after(seconds):
        while chunk := await stream.receive_some():
            said += chunk
    return said


def request(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    head = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    return ("\r\n".join(head) + "\r\n\r\n").encode() + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize("part", [b"G", b"GET /workflow-list HTTP/1.1\r\nHost: localhost\r\nX-Slow: "])
async def test_headers_that_do_not_end_are_answered_408(strict: House, part: bytes) -> None:
    async with raw(strict) as stream:
        await stream.send_all(part)
        answer = await heard(stream)
    assert status(answer) == 408
    assert "took too long" in json.loads(answer.partition(b"\r\n\r\n")[2])["detail"]


async def test_headers_that_trickle_have_one_deadline_for_all(strict: House) -> None:
    began = trio.current_time()
    async with raw(strict) as stream, trio.open_nursery() as nursery:

        async def trickle() -> None:
            await stream.send_all(b"GET / HTTP/1.1\r\n")
            while True:
                await stream.send_all(b"x: y\r\n")
                await trio.sleep(0.05)

        nursery.start_soon(trickle)
        answer = await heard(stream)
        nursery.cancel_scope.cancel()
    assert status(answer) == 408
    assert trio.current_time() - began < 3


async def test_also_the_second_request_of_a_connection(strict: House) -> None:
    async with raw(strict) as stream:
        await stream.send_all(request("GET", "/generation-count"))
        while b"\r\n\r\n0" not in (first := await stream.receive_some()):
            pass
        assert status(first) == 200
        await stream.send_all(b"GET /gener")
        assert status(await heard(stream)) == 408


@pytest.mark.parametrize("path", ["/generate-based-workflow?clientId=a", "/upload?clientId=a"])
async def test_a_body_that_stops_is_answered_408(strict: House, path: str) -> None:
    async with raw(strict) as stream:
        await stream.send_all(request("POST", path, "Content-Length: 1000", body=b"{"))
        assert status(await heard(stream)) == 408


async def test_a_body_slower_than_the_least_rate_is_answered_408(strict: House) -> None:
    """Though every byte comes within body_timeout."""
    async with raw(strict) as stream, trio.open_nursery() as nursery:

        async def trickle() -> None:
            await stream.send_all(request("POST", "/upload?clientId=a", "Content-Length: 100000"))
            while True:
                await stream.send_all(b"x")
                await trio.sleep(0.05)

        nursery.start_soon(trickle)
        answer = await heard(stream)
        nursery.cancel_scope.cancel()
    assert status(answer) == 408


async def test_half_a_submission_is_none_even_where_it_could_be_read(strict: House) -> None:
    body = b'{"workflow": "pattern"}'
    for end in ("stops", "leaves"):
        async with raw(strict) as stream:
            head = request("POST", f"/generate-based-workflow?clientId={end}", f"Content-Length: {len(body) + 1}")
            await stream.send_all(head + body)
            if end == "stops":
                assert status(await heard(stream)) == 408
            else:
                await stream.send_eof()
                await heard(stream)
    assert (await strict.status())["jobs"] == {}


async def test_who_waits_for_an_answer_is_not_slow(strict: House) -> None:
    """Longer than all of these deadlines."""
    async with strict.client() as client:
        await client.submit("blurs")
        response = await client.http.get("/history", params={"wait": 20})
    assert response.status_code == 200


async def test_a_connection_without_a_request_ends_quietly_with_the_service(strict: House) -> None:
    async with raw(strict) as silent, raw(strict) as used:
        await used.send_all(request("GET", "/generation-count"))
        await used.receive_some()
        began = trio.current_time()
        await strict.stop()
        assert await heard(silent) == await heard(used) == b""
        assert trio.current_time() - began < 0.9  # not after the third of the budget that requests would have had


async def test_connections_of_one_address_are_counted(strict: House) -> None:
    held: list[trio.SocketStream] = []
    try:
        for _ in range(int(LIMITS["connections_per_address"])):
            host, port = strict.url.removeprefix("http://").rsplit(":", 1)
            held.append(await trio.open_tcp_stream(host, int(port)))
            await held[-1].send_all(request("GET", "/generation-count"))
            await held[-1].receive_some()
        async with raw(strict) as one_too_many:
            answer = await heard(one_too_many)
        assert status(answer) == 429
        assert b"\r\nretry-after: 10\r\n" in answer
        assert "too many connections" in json.loads(answer.partition(b"\r\n\r\n")[2])["detail"]
        await held.pop().aclose()
        with trio.fail_after(5):
            while True:
                async with raw(strict) as stream:
                    await stream.send_all(request("GET", "/generation-count", "Connection: close"))
                    if status(await heard(stream)) == 200:
                        break
    finally:
        for stream in held:
            await stream.aclose()


async def test_websockets_of_one_address_are_counted(strict: House) -> None:
    async with strict.client("a") as a, strict.client("b") as b, a.socket(), b.socket(), raw(strict) as stream:
        await stream.send_all(request("GET", "/ws?clientId=c", *UPGRADE))
        answer = await heard(stream)
    assert status(answer) == 429
    assert b"retry-after: 10" in answer.lower()


async def test_messages_are_never_compressed(strict: House) -> None:
    """What is 64 kB on the wire could be 64 MB."""
    async with raw(strict) as stream:
        offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
        await stream.send_all(request("GET", "/ws?clientId=c", *UPGRADE, offer))
        answer = await stream.receive_some()
    assert status(answer) == 101
    assert b"deflate" not in answer


@pytest.mark.parametrize(
    "wish",
    [
        request("GET", "/status", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAM"),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_http_2_is_not_spoken(strict: House, wish: bytes) -> None:
    async with raw(strict) as stream:
        await stream.send_all(wish)
        with trio.fail_after(5):
            answer = await stream.receive_some()
    assert answer.startswith(b"HTTP/1.1 ")
    assert status(answer) in (200, 400, 401, 404, 405, 505)


async def test_sizes(strict: House) -> None:
    async with strict.client() as client:
        big = {"workflow": "pattern", "1/width": "x" * 20_000}
        for path in ("/generate-based-workflow", "/run"):
            assert (await client.http.post(path, json=big)).status_code == 413
            for nested in (b"[" * 9000, b'{"workflow":' + b"[" * 4000 + b"]" * 4000 + b"}", b'{"a":' * 1500):
                assert (await client.http.post(path, content=nested)).status_code == 400
            wrong = {"workflow": "pattern", "1/width": [[[1]]]}
            assert (await client.http.post(path, json=wrong)).status_code in (400, 422)
        assert (await client.http.get("/workflow-list", headers={"X-Long": "y" * 100_000})).status_code == 431
        assert (await client.http.get("/workflow-list")).status_code == 200


async def test_uploads_that_wait_are_counted(strict: House) -> None:
    """Under whatever clientId."""
    async with strict.client("a") as client:
        for number in range(200):
            response = await client.http.post(f"/upload?clientId=c{number}", files={"f": ("a.png", picture())})
            if response.status_code != 200:
                break
        assert response.status_code == 429
        assert "uploads" in response.json()["detail"]
    strict.write_clients("anna")
    await wait_for_keys(strict)
    async with strict.client("a", strict.admin_key) as other:
        await other.upload(f=("a.png", picture()))


def text_frame(payload: bytes, *, first: bool, last: bool) -> bytes:
    """A client's frame (RFC 6455 5.2), masked with zeros."""
    head = bytes([(0x80 if last else 0) | (1 if first else 0), 0x80 | 127]) + len(payload).to_bytes(8, "big")
    return head + bytes(4) + payload


async def test_a_message_without_end_ends_its_connection(strict: House) -> None:
    """hypercorn would say 1009 and go on collecting it."""
    async with raw(strict) as stream:
        await stream.send_all(request("GET", "/ws?clientId=c", *UPGRADE))
        assert status(await stream.receive_some()) == 101
        answer = b""
        with trio.fail_after(5):
            try:
                for number in range(100):
                    await stream.send_all(text_frame(b"x" * 65_000, first=not number, last=False))
                answer = await heard(stream)
            except trio.BrokenResourceError:
                answer = b"reset"
        assert b"\x03\xf1" in answer or answer == b"reset"  # 1009, where it was still read
    assert (await strict.status())["clients"] == 0


@pytest.mark.parametrize("behind", [b"xxxx", text_frame(b"hello", first=True, last=True)])
async def test_what_stands_behind_an_upgrade_is_refused(
    strict: House, behind: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with raw(strict) as stream:
        await stream.send_all(request("GET", "/ws?clientId=c", *UPGRADE, body=behind))
        assert status(await heard(stream)) == 400
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


async def test_a_client_that_sent_its_next_request_already_can_still_leave(house: House, fake: FakeComfyUI) -> None:
    """Nobody reads while an answer is awaited: its going away must be seen all the same."""
    fake.script.gate = trio.Event()
    before = connections(house)
    async with raw(house) as stream:
        body = b'{"workflow": "pattern"}'
        run = request("POST", "/run?clientId=r&wait=100", f"Content-Length: {len(body)}", body=body)
        await stream.send_all(run + request("GET", "/status"))
        await house.wait_status(lambda s: s["jobs"] == {"running": 1})
    await house.wait_status(lambda s: s["jobs"] == {"cancelled": 1})
    with trio.fail_after(5):
        while connections(house) > before:  # nothing of it stays
            await trio.sleep(0.01)


async def test_connections_that_are_refused_take_nobodys_place(strict: House) -> None:
    """Nor do those of one address that fills the service: it gives up an idle one for each from elsewhere."""
    strict.settings["limits"] = {**LIMITS, "connections": 8, "connections_per_address": 8}
    strict.write_settings()
    await strict.wait_status(lambda s: s["configuration"]["generation"] > 1)
    host, port = strict.url.removeprefix("http://").rsplit(":", 1)
    held: list[trio.SocketStream] = []
    try:
        for _ in range(30):
            held.append(await trio.open_tcp_stream(host, int(port)))
            await held[-1].send_all(request("GET", "/generation-count"))
        others = [await trio.open_tcp_stream(host, int(port), local_address="127.0.0.9") for _ in range(3)]
        held += others
        for other in others:
            await other.send_all(request("GET", "/generation-count"))
        for other in others:
            with trio.fail_after(5):
                assert status(await other.receive_some()) == 200
    finally:
        for stream in held:
            await trio.aclose_forcefully(stream)


async def test_a_connection_that_never_says_anything_is_not_kept_like_an_idle_one(strict: House) -> None:
    async with raw(strict) as stream:
        assert await heard(stream) == b""


async def test_a_full_queue_is_full_for_those_who_filled_it(house: House, fake: FakeComfyUI) -> None:
    fake.script.gate = trio.Event()
    house.settings["jobs"]["max_queued"] = 10
    house.write_settings()
    house.write_clients("anna", "ben")
    async with house.client(key="key-of-anna") as anna, house.client(key="key-of-ben") as ben:
        await wait_for_keys(house)
        refused = [
            (await anna.http.post("/generate-based-workflow", json={"workflow": "pattern"})).status_code
            for _ in range(20)
        ]
        assert refused.count(429) >= 8
        assert refused[-1] == 429
        await ben.submit("pattern")
        assert (await ben.http.post("/generate-based-workflow", json={"workflow": "pattern"})).status_code == 429
