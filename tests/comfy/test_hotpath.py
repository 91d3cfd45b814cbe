"""The two requests of the hot path against servers that answer as told, byte by byte."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest
import trio

from bridged.comfy.hotpath import MAX_JSON, HotPath
from bridged.errors import BackendUnavailable

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Server:
    """Accepts connections and lets `talk(connection, stream)` do what it likes with each."""

    talk: Callable[[int, trio.SocketStream], Awaitable[None]]
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    gone: int = 0
    url: str = ""
    _changed: trio.Event = field(default_factory=trio.Event)

    async def read_request(self, stream: trio.SocketStream) -> bytes:
        """One whole request, or b"" where the client has closed."""
        data = b""
        while b"\r\n\r\n" not in data or len(data) < _length(data):
            chunk = await stream.receive_some(65536)
            if not chunk:
                return b""
            data += chunk
        self.requests.append(data)
        return data

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, self._accept, 0, host="127.0.0.1"))
            self.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
            task_status.started()

    async def _accept(self, stream: trio.SocketStream) -> None:
        number, self.connections = self.connections, self.connections + 1
        try:
            async with stream:
                await self.talk(number, stream)
        except trio.BrokenResourceError:
            pass
        finally:
            self.gone += 1
            self._changed.set()
            self._changed = trio.Event()

    async def wait_gone(self, count: int) -> None:
        """Until that many connections have ended."""
        while self.gone < count:
            await self._changed.wait()


def _length(data: bytes) -> int:
    head, _, _ = data.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return len(head) + 4 + (int(lengths[0]) if lengths else 0)


@asynccontextmanager
async def serving(
    talk: Callable[[Server, int, trio.SocketStream], Awaitable[None]],
    *,
    timeout: float = 5.0,
    path: str = "",
    headers: dict[str, str] | None = None,
) -> AsyncIterator[tuple[Server, HotPath]]:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            server = Server(lambda number, stream: talk(server, number, stream))
            await nursery.start(server.serve)
            hot = HotPath(server.url + path, headers or {}, ssl.create_default_context(), timeout=timeout)
            try:
                yield server, hot
            finally:
                await hot.aclose()
                nursery.cancel_scope.cancel()


async def answers_ok(server: Server, number: int, stream: trio.SocketStream) -> None:
    while await server.read_request(stream):
        await stream.send_all(OK)


def always(answer: bytes, *, then_close: bool = True) -> Callable[[Server, int, trio.SocketStream], Awaitable[None]]:
    async def talk(server: Server, number: int, stream: trio.SocketStream) -> None:
        while await server.read_request(stream):
            await stream.send_all(answer)
            if then_close:
                return

    return talk


async def get(hot: HotPath, target: str = "/view?filename=a.png") -> tuple[int, bytes]:
    async with hot.get(target) as (response, chunks):
        return response.status, b"".join([chunk async for chunk in chunks])


# -- what goes right -------------------------------------------------------------------------------------------------


async def test_one_connection_serves_many_requests() -> None:
    async with serving(answers_ok) as (server, hot):
        for number in range(20):
            assert await hot.post_json("/prompt", b'{"n": %d}' % number) == (200, b"ok")
            assert await get(hot) == (200, b"ok")
        assert server.connections == 1
        assert len(server.requests) == 40


async def test_what_is_sent() -> None:
    async with serving(answers_ok, path="/comfy/", headers={"Authorization": "Basic eDp5"}) as (server, hot):
        await hot.post_json("/prompt", b'{"a":1}')
        await get(hot, "/view?filename=%EA.png")
        post, view = server.requests
    assert post.startswith(b"POST /comfy/prompt HTTP/1.1\r\n")
    assert view.startswith(b"GET /comfy/view?filename=%EA.png HTTP/1.1\r\n")
    head, _, body = post.partition(b"\r\n\r\n")
    assert body == b'{"a":1}'
    lines = head.lower().split(b"\r\n")[1:]
    assert b"host: " + server.url.removeprefix("http://").encode() in lines
    assert b"authorization: basic edp5" in lines
    assert b"content-length: 7" in lines
    for request in (post, view):
        assert b"origin:" not in request.lower()
        assert b"sec-fetch" not in request.lower()


async def test_a_large_body_each_way() -> None:
    large = bytes(range(256)) * 20_000

    async def talk(server: Server, number: int, stream: trio.SocketStream) -> None:
        while await server.read_request(stream):
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(large) + large)

    async with serving(talk) as (server, hot):
        assert await hot.post_json("/prompt", large) == (200, large)
        assert server.requests[0].endswith(large)
        assert await get(hot) == (200, large)
        assert server.connections == 1


async def test_chunked_answers_are_put_together_and_the_connection_is_kept() -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nWiki\r\n6;x=y\r\npedia \r\n0\r\nTrailer: t\r\n\r\n"
    )
    async with serving(always(answer, then_close=False)) as (server, hot):
        assert await get(hot) == (200, b"Wikipedia ")
        assert await hot.post_json("/prompt", b"{}") == (200, b"Wikipedia ")
        assert server.connections == 1


async def test_an_answer_that_comes_byte_by_byte() -> None:
    async def talk(server: Server, number: int, stream: trio.SocketStream) -> None:
        while await server.read_request(stream):
            for byte in OK:
                await stream.send_all(bytes([byte]))

    async with serving(talk) as (_, hot):
        assert await get(hot) == (200, b"ok")


async def test_interim_answers_are_passed_over() -> None:
    async with serving(always(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + OK)) as (_, hot):
        assert await hot.post_json("/prompt", b"{}") == (200, b"ok")


@pytest.mark.parametrize("status", [204, 206, 302, 400, 404, 500])
async def test_any_status_is_handed_on(status: int) -> None:
    length = b"" if status == 204 else b"Content-Length: 3\r\n"
    body = b"" if status == 204 else b"why"
    answer = b"HTTP/1.1 %d X\r\n%s\r\n%s" % (status, length, body)
    async with serving(always(answer, then_close=False)) as (server, hot):
        assert await hot.post_json("/prompt", b"{}") == (status, body)
        assert await get(hot) == (status, body)
        assert server.connections == 1


async def test_an_answer_that_ends_with_the_connection() -> None:
    async with serving(always(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")) as (server, hot):
        assert await get(hot) == (200, b"until the end")
        assert await get(hot) == (200, b"until the end")
        assert server.connections == 2


async def test_requests_at_the_same_time_have_a_connection_each_and_keep_them() -> None:
    together = trio.Event()

    async def talk(server: Server, number: int, stream: trio.SocketStream) -> None:
        while await server.read_request(stream):
            if server.connections == 3:
                together.set()
            await together.wait()
            await stream.send_all(OK)

    async with serving(talk) as (server, hot):
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(get, hot)
        assert server.connections == 3


# -- connections that cannot be used again ---------------------------------------------------------------------------


async def test_a_connection_that_the_server_closed_meanwhile_is_replaced() -> None:
    async with serving(always(OK)) as (server, hot):
        for number in range(1, 4):
            assert await hot.post_json("/prompt", b"{}") == (200, b"ok")
            await server.wait_gone(number)
        assert server.connections == 3


async def test_connection_close_is_believed() -> None:
    answer = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    async with serving(always(answer, then_close=False)) as (server, hot):
        await get(hot)
        await server.wait_gone(1)
        await get(hot)
        assert server.connections == 2


async def test_a_second_answer_that_nobody_asked_for_is_never_taken_for_the_next() -> None:
    async def talk(server: Server, number: int, stream: trio.SocketStream) -> None:
        while await server.read_request(stream):
            mine = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number
            await stream.send_all(mine + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")

    async with serving(talk) as (server, hot):
        assert [await get(hot) for _ in range(3)] == [(200, b"0"), (200, b"1"), (200, b"2")]
        assert server.connections == 3


async def test_a_body_that_was_not_taken_to_its_end_costs_the_connection_only() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000
    async with serving(always(answer, then_close=False)) as (server, hot):
        async with hot.get("/view") as (_, chunks):
            assert await anext(chunks)
        await server.wait_gone(1)
        async with hot.get("/view") as (response, _):
            assert response.status == 200
        await server.wait_gone(2)
        status, body = await get(hot)
        assert (status, len(body), server.connections) == (200, 200_000, 3)


async def test_an_error_of_whoever_reads_is_theirs_and_closes() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nxxx"
    async with serving(always(answer, then_close=False)) as (server, hot):

        async def read() -> None:
            async with hot.get("/view") as (_, chunks):
                async for _chunk in chunks:
                    raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await read()
        await server.wait_gone(1)


# -- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot hex\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x16\x03\x01\x00\xff" * 100,
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
    ],
)
async def test_what_is_no_whole_answer_is_a_backend_that_cannot_be_used(answer: bytes) -> None:
    async with serving(always(answer)) as (server, hot):
        with pytest.raises(BackendUnavailable) as first:
            await hot.post_json("/prompt", b"{}")
        with pytest.raises(BackendUnavailable):
            await get(hot)
        await server.wait_gone(2)
        assert server.connections == 2, "nothing of it is used again"
        assert "127.0.0.1" not in str(first.value), "messages never have addresses"


async def test_a_cut_off_file_is_an_error_after_what_came() -> None:
    async with serving(always(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort")) as (_, hot):
        got = bytearray()

        async def read() -> None:
            async with hot.get("/view") as (_, chunks):
                async for chunk in chunks:
                    got.extend(chunk)

        with pytest.raises(BackendUnavailable):
            await read()
        assert got == b"short"


async def test_a_reset_is_a_backend_that_cannot_be_used() -> None:
    async def talk(server: Server, number: int, stream: trio.SocketStream) -> None:
        await server.read_request(stream)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing sends RST

    async with serving(talk) as (_, hot):
        with pytest.raises(BackendUnavailable):
            await hot.post_json("/prompt", b"{}")


async def test_nobody_listens() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    hot = HotPath(f"http://127.0.0.1:{port}", {}, ssl.create_default_context())
    with pytest.raises(BackendUnavailable, match="the connection failed"):
        await hot.post_json("/prompt", b"{}")


async def test_an_endless_answer_to_a_prompt_ends_at_its_limit() -> None:
    async def talk(server: Server, number: int, stream: trio.SocketStream) -> None:
        await server.read_request(stream)
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await stream.send_all(b"x" * 1_000_000)

    async with serving(talk) as (server, hot):
        with pytest.raises(BackendUnavailable, match="does not end"):
            await hot.post_json("/prompt", b"{}")
        await server.wait_gone(1)
    assert MAX_JSON < 100_000_000


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"])
async def test_silence_is_bounded_in_the_head_and_in_the_body(answer: bytes) -> None:
    async def talk(server: Server, number: int, stream: trio.SocketStream) -> None:
        await server.read_request(stream)
        if answer:
            await stream.send_all(answer)
        await stream.receive_some()

    async with serving(talk, timeout=0.05) as (server, hot):
        with pytest.raises(BackendUnavailable, match="did not answer in time"):
            await get(hot)
        await server.wait_gone(1)


async def test_a_server_that_does_not_read_is_given_up() -> None:
    async def talk(server: Server, number: int, stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with serving(talk, timeout=0.05) as (_, hot):
        with pytest.raises(BackendUnavailable, match="did not answer in time"):
            await hot.post_json("/prompt", b"x" * 50_000_000)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"])
async def test_cancelled_in_the_middle_the_connection_is_closed_and_not_used_again(answer: bytes) -> None:
    asked = trio.Event()

    async def talk(server: Server, number: int, stream: trio.SocketStream) -> None:
        while await server.read_request(stream):
            if number > 0:
                await stream.send_all(OK)
                continue
            if answer:
                await stream.send_all(answer)
            asked.set()

    async with serving(talk) as (server, hot):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(get, hot)
            await asked.wait()
            nursery.cancel_scope.cancel()
        await server.wait_gone(1)
        assert await get(hot) == (200, b"ok")
        assert server.connections == 2


async def test_closing_ends_idle_connections() -> None:
    async with serving(answers_ok) as (server, hot):
        await get(hot)
        await hot.aclose()
        await server.wait_gone(1)
        await hot.aclose()
        assert await get(hot) == (200, b"ok")
