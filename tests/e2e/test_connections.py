"""Connections as such: what a broken one costs the others, and what a closed one leaves behind."""

from __future__ import annotations

import io
import os
import re
import socket
import stat
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from PIL import Image

from tests.conftest import StartFake
from tests.e2e.house import House
from tests.fakes.comfyui import FakeComfyUI


def connections(house: House) -> int:
    """Open sockets of this process on the daemon's port: the daemon's own ends of its clients' connections."""
    port = int(house.url.rsplit(":", 1)[1])
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.fstat(int(fd)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(fd))) as sock:
                count += sock.family == socket.AF_INET and sock.getsockname()[1] == port
        except OSError:
            continue  # closed meanwhile: the listing's own, for one
    return count


async def until_there_are(house: House, count: int) -> None:
    with trio.fail_after(10):
        while connections(house) != count:
            await trio.sleep(0.01)


@pytest.mark.parametrize("target", ["/status", "/history?clientId=x", "/history?clientId=x&wait=60", "/nowhere"])
async def test_a_connection_that_its_client_closed_is_let_go_at_once(served: House, target: str) -> None:
    """Also one that resets it, as closing with the answer unread does: hypercorn would keep it for 75 s, like an idle
    one."""
    host, port = served.url.removeprefix("http://").rsplit(":", 1)
    async with served.client("x") as client:
        await client.submit("blurs")
        before = connections(served)
        for number in range(20):
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                await stream.send_all(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                if "wait" not in target:
                    await trio.lowlevel.wait_readable(stream.socket)
                    if number % 2:
                        await stream.receive_some()
        with trio.fail_after(5):
            while connections(served) > before:
                await trio.sleep(0.01)


async def test_who_closes_its_half_before_the_answer_still_gets_it(served: House) -> None:
    host, port = served.url.removeprefix("http://").rsplit(":", 1)
    before = connections(served)
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await stream.receive_some(1)
        await stream.send_eof()
        heard = b""
        with trio.fail_after(5):
            while chunk := await stream.receive_some():
                heard += chunk
    assert b" 200 " in heard
    with trio.fail_after(5):
        while connections(served) > before:
            await trio.sleep(0.01)


async def test_what_goes_wrong_with_one_connection_ends_that_one_alone(served: House) -> None:
    """hypercorn cannot answer a second upgrade on a connection whose first one it refused; the service goes on."""
    upgrade = (
        b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    async with served.client() as client, client.socket() as neighbour:
        await neighbour.receive()
        host, port = served.url.removeprefix("http://").rsplit(":", 1)
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(upgrade + upgrade)
            heard = b""
            with trio.fail_after(5):
                while chunk := await stream.receive_some():
                    heard += chunk
        assert heard.startswith(b"HTTP/1.1 400")
        await client.submit("pattern")
        await neighbour.until("closed")


# What is said in one piece takes the fast lane (`bridged.api.fastlane`).

SUBMISSION = b'{"workflow":"pattern"}'
RUN = b"POST /run?clientId=%b&wait=60 HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"
HISTORY = b"GET /history?clientId=%b HTTP/1.1\r\nHost: localhost\r\n\r\n"
COUNT = b"GET /generation-count HTTP/1.1\r\nHost: localhost\r\n\r\n"


def run(client_id: bytes) -> bytes:
    return RUN % (client_id, len(SUBMISSION), SUBMISSION)


@asynccontextmanager
async def connected(house: House, local: str | None = None) -> AsyncIterator[trio.SocketStream]:
    host, port = house.url.removeprefix("http://").rsplit(":", 1)
    async with await trio.open_tcp_stream(host, int(port), local_address=local) as stream:
        yield stream


async def statuses(stream: trio.SocketStream, count: int) -> list[int]:
    """Of so many answers, or of those that came before the connection ended."""
    heard = b""
    found: list[int] = []
    with trio.fail_after(10):
        while len(found) < count and (chunk := await stream.receive_some()):
            heard += chunk
            found = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", heard)]
    return found


async def test_the_lanes_take_turns_on_one_connection(served: House) -> None:
    async with connected(served) as stream:
        for _ in range(3):
            for data in (HISTORY % b"n", COUNT):
                await stream.send_all(data)
                assert await statuses(stream, 1) == [204 if data.startswith(b"GET /history") else 200]
        await stream.send_all(HISTORY[:20])
        await stream.send_all((HISTORY[20:] % b"n") + COUNT)
        assert sorted(await statuses(stream, 2)) == [200, 204]


async def test_what_is_sent_while_an_answer_is_awaited_is_answered_after_it(house: House, fake: FakeComfyUI) -> None:
    fake.script.gate = trio.Event()
    async with connected(house) as stream:
        await stream.send_all(run(b"r"))
        await house.wait_status(lambda s: s["jobs"] == {"running": 1})
        await stream.send_all(HISTORY % b"n")
        await house.status()
        await stream.send_all(COUNT)
        fake.script.gate.set()
        assert await statuses(stream, 3) == [200, 204, 200]


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("ahead", [b"", HISTORY % b"n", COUNT[:10]])
async def test_who_leaves_while_an_answer_is_awaited_takes_the_job_along(
    house: House, fake: FakeComfyUI, how: str, ahead: bytes
) -> None:
    fake.script.gate = trio.Event()
    before = connections(house)
    async with connected(house) as stream:
        await stream.send_all(run(b"r"))
        await house.wait_status(lambda s: s["jobs"] == {"running": 1})
        if ahead:
            await stream.send_all(ahead)
        if how == "rst":
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await house.wait_status(lambda s: s["jobs"] == {"cancelled": 1})
    with trio.fail_after(5):
        while connections(house) > before:
            await trio.sleep(0.01)


async def test_a_stop_lets_who_waits_have_an_answer_and_ends_who_does_not(house: House, fake: FakeComfyUI) -> None:
    fake.script.gate = trio.Event()
    async with connected(house) as idle, connected(house) as waiting, connected(house) as ahead:
        await idle.send_all(HISTORY % b"n")
        assert await statuses(idle, 1) == [204]
        await waiting.send_all(run(b"r"))
        await ahead.send_all(run(b"s"))
        await house.wait_status(lambda s: s["jobs"] == {"running": 1, "placed": 1} or sum(s["jobs"].values()) == 2)
        await ahead.send_all(HISTORY % b"n")
        await house.status()
        house.daemon.stop()
        began = trio.current_time()
        assert await statuses(idle, 1) == []
        assert await statuses(waiting, 2) == await statuses(ahead, 2) == [202]
        assert trio.current_time() - began < 0.9  # not only when the third of the budget is over
        with trio.fail_after(5):
            await house.ended.wait()


async def test_who_takes_an_answer_too_slowly_is_let_go_and_may_come_again(house: House, start_fake: StartFake) -> None:
    file = io.BytesIO()
    Image.frombytes("RGB", (1600, 1600), os.urandom(1600 * 1600 * 3)).save(file, "PNG", compress_level=0)
    fake = await start_fake("one")
    fake.script.output_bytes = file.getvalue()
    house.write_backends(("pc-1", fake.url))
    house.settings["server"]["stalled_client_timeout"] = 1
    house.settings["limits"] = {"body_min_rate": 1000}
    await house.start()
    await house.wait_up("pc-1")
    async with house.client("c") as client:
        await client.submit("pattern")
        await house.wait_status(lambda s: s["jobs"] == {"succeeded": 1})
        await until_there_are(house, 1 + 1)  # that which listens, and this client's
        host, port = house.url.removeprefix("http://").rsplit(":", 1)
        began = trio.current_time()
        with trio.socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await slow.connect((host, int(port)))
            await slow.send(HISTORY % b"c")
            assert (await slow.recv(100)).startswith(b"HTTP/1.1 200 ")
            assert connections(house) == 3
            await until_there_are(house, 2)
        assert trio.current_time() - began > 0.9
        assert len(await client.result(wait=0)) == 1  # it does not count as fetched


async def test_who_waits_for_an_answer_is_not_idle(house: House, fake: FakeComfyUI) -> None:
    """A full service gives up idle connections, not these."""
    fake.script.gate = trio.Event()
    async with connected(house) as one, connected(house) as two:
        await one.send_all(run(b"one"))
        await two.send_all(run(b"two"))
        await house.wait_status(lambda s: sum(s["jobs"].values()) == 2)
        house.settings["limits"] = {"connections": 2}
        house.write_settings()
        with trio.fail_after(5):
            while True:
                async with connected(house, "127.0.0.9") as third:
                    await third.send_all(COUNT)
                    if await statuses(third, 1) == [429]:
                        break
        fake.script.gate.set()
        assert await statuses(one, 1) == await statuses(two, 1) == [200]


async def test_half_a_head_after_a_plain_request_has_its_deadline(house: House) -> None:
    house.settings["limits"] = {"header_timeout": 0.4}
    await house.start()
    async with connected(house) as stream:
        await stream.send_all(HISTORY % b"n")
        assert await statuses(stream, 1) == [204]
        await stream.send_all(HISTORY[:30])
        assert await statuses(stream, 2) == [408]
