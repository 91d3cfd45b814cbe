"""Connections as such: what a broken one costs the others, and what a closed one leaves behind."""

from __future__ import annotations

import os
import socket
import stat

import pytest
import trio

from tests.e2e.house import House


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
