"""The hot path's guarantees where servers are strange or hostile: what is refused, what is bounded, and which
connections are never used again."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from bridged.comfy.hotpath import MAX_HEAD, HotPath
from bridged.errors import BackendUnavailable
from tests.comfy.test_hotpath import OK, Server, always, answers_ok, get, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]
"""the server's, the client's"""

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

# -- as little as possible -------------------------------------------------------------------------------------------


async def test_a_small_answer_takes_one_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = 0
    wait_readable = trio.lowlevel.wait_readable

    async def counted(fd: int) -> None:
        nonlocal waits
        waits += 1
        await wait_readable(fd)

    async with serving(answers_ok) as (_, hot):
        await get(hot)
        monkeypatch.setattr(trio.lowlevel, "wait_readable", counted)
        assert await hot.post_json("/prompt", b"{}") == (200, b"ok")
        assert await get(hot) == (200, b"ok")
    assert waits == 2


async def test_a_body_that_follows_its_head_at_once_or_late() -> None:
    head, body = OK[:-2], OK[-2:]
    go_on = trio.Event()

    async def talk(server: Server, number: int, stream: trio.SocketStream) -> None:
        while await server.read_request(stream):
            await stream.send_all(head)
            await go_on.wait()
            await stream.send_all(body)

    async with serving(talk) as (server, hot):
        async with hot.get("/view") as (response, chunks):
            assert response.status == 200
            go_on.set()
            assert b"".join([chunk async for chunk in chunks]) == b"ok"
        assert await hot.post_json("/prompt", b"{}") == (200, b"ok")
        assert server.connections == 1


# -- what is sent ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X", "a\r\nY: b"),
        ("X", "a\nb"),
        ("X", "a\0b"),
        ("X", "é"),
        ("X\r\nY", "a"),
        ("X:", "a"),
        ("", "a"),
        ("Content-Length", "5"),
        ("transfer-encoding", "chunked"),
    ],
)
def test_a_header_that_would_change_the_request_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="header"):
        HotPath("http://127.0.0.1:1", {name: value}, ssl.create_default_context())


@pytest.mark.parametrize("target", ["/a b", "/a\r\nX: y", "/a\n", "/a\0", "/é", "a", ""])
async def test_a_target_that_would_change_the_request_is_refused(target: str) -> None:
    hot = HotPath("http://127.0.0.1:1", {}, ssl.create_default_context())
    with pytest.raises(ValueError, match="target"):
        await hot.post_json(target, b"{}")
    with pytest.raises(ValueError, match="target"):
        hot.get(target)


async def test_a_configured_host_header_takes_the_place_of_ours() -> None:
    async with serving(answers_ok, headers={"host": "comfy.lan"}) as (server, hot):
        await get(hot)
    assert server.requests[0].lower().count(b"\r\nhost:") == 1
    assert b"\r\nhost: comfy.lan\r\n" in server.requests[0]


# -- which connections are kept --------------------------------------------------------------------------------------


@pytest.mark.parametrize("trailing", [b"\n", b"\r\n", b"\r\n\r\n", b"H", b" ", b"\0", b"garbage", OK[:20]])
@pytest.mark.parametrize(
    "answer",
    [OK, OK[:-4] + b"\r\n\r\n\r\n", CHUNKED + b"2\r\nok\r\n0\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"],
)
async def test_nothing_may_trail(answer: bytes, trailing: bytes) -> None:
    async with serving(always(answer + trailing, then_close=False)) as (server, hot):
        first = await hot.post_json("/prompt", b"{}")
        await server.wait_gone(1)
        assert await get(hot) == first
        assert server.connections == 2


@pytest.mark.parametrize(
    "answer", [OK, OK[:-2] + b"\r\n", CHUNKED + b"0\r\nA: b\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"]
)
async def test_what_ends_where_it_should_is_kept(answer: bytes) -> None:
    async with serving(always(answer, then_close=False)) as (server, hot):
        for _ in range(3):
            await hot.post_json("/prompt", b"{}")
        assert server.connections == 1


async def test_what_comes_unasked_between_two_exchanges_is_not_read() -> None:
    sent = trio.Event()
    asked = trio.Event()

    async def talk(server: Server, number: int, stream: trio.SocketStream) -> None:
        await server.read_request(stream)
        await stream.send_all(OK)
        if number == 0:
            await asked.wait()
            await stream.send_all(OK.replace(b"ok", b"no"))
            sent.set()
        await stream.receive_some()

    async with serving(talk) as (server, hot):
        await get(hot)
        asked.set()
        await sent.wait()
        assert await get(hot) == (200, b"ok")
        assert server.connections == 2


@pytest.mark.parametrize("more", [b"", b"Connection: keep-alive\r\n"])
async def test_http_1_0_is_understood_and_not_kept(more: bytes) -> None:
    answer = b"HTTP/1.0 200 OK\r\n" + more + b"Content-Length: 2\r\n\r\nok"
    async with serving(always(answer, then_close=False)) as (server, hot):
        assert await get(hot) == (200, b"ok")
        await server.wait_gone(1)
        assert await hot.post_json("/prompt", b"{}") == (200, b"ok")
        assert server.connections == 2


async def test_a_small_file_that_nobody_took_leaves_the_connection_clean() -> None:
    async with serving(answers_ok) as (server, hot):
        async with hot.get("/view") as (response, _):
            assert response.status == 200
        assert await get(hot) == (200, b"ok")
        assert server.connections == 1


async def test_chunks_end_with_their_context() -> None:
    async with serving(answers_ok) as (_, hot):
        async with hot.get("/view") as (_, chunks):
            pass
        async with hot.get("/view"):
            with pytest.raises(trio.ClosedResourceError):
                await anext(chunks)


# -- heads and trailers ----------------------------------------------------------------------------------------------


async def test_trailers_are_headers_of_nothing() -> None:
    first = CHUNKED + b"2\r\nok\r\n0\r\nX-Late: 1\r\n\r\n"

    async def talk(server: Server, number: int, stream: trio.SocketStream) -> None:
        for answer in (first, OK):
            await server.read_request(stream)
            await stream.send_all(answer)

    async with serving(talk) as (server, hot):
        async with hot.get("/view") as (response, chunks):
            assert [chunk async for chunk in chunks] == [b"ok"]
            assert response.headers == {b"transfer-encoding": b"chunked"}
        async with hot.get("/view") as (response, _):
            assert response.headers == {b"content-length": b"2"}
        assert server.connections == 1


async def test_an_upgrade_that_is_only_offered_changes_nothing() -> None:
    answer = OK.replace(b"\r\n\r\n", b"\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n")
    async with serving(always(answer, then_close=False)) as (_, hot):
        assert await get(hot) == (200, b"ok")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n" + OK,
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nContent-Length: 3\r\n\r\nabc" + OK,
        b"HTTP/1.1 099 X\r\n\r\n" + OK,
        b"HTTP/1.1 1000 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/3.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.7 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"\r\n" + OK,
        OK.replace(b"\r\n", b"\n"),
        OK.replace(b":", b" :"),
        OK.replace(b": ", b": +"),
        OK.replace(b"2\r", b"2, 2\r"),
        OK.replace(b"2\r", b"99999999999999999999999\r"),
        OK.replace(b"Content-Length", b"Transfer-Encoding: chunked\r\nContent-Length"),
        OK.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"),
        OK.replace(b"\r\n\r\n", b"\r\nX: a\r\n folded\r\n\r\n"),
        OK.replace(b"\r\n\r\n", b"\r\nX: a\0b\r\n\r\n"),
        CHUNKED + b"2\nok\n0\n\n",
        CHUNKED + b"2\r\nok0\r\n\r\n",
        CHUNKED + b"-2\r\nok\r\n0\r\n\r\n",
        CHUNKED + b"11111111111111111\r\nok\r\n0\r\n\r\n",
    ],
)
async def test_what_is_not_strictly_an_answer_is_refused_at_once(answer: bytes) -> None:
    async with serving(always(answer, then_close=False)) as (server, hot):
        with pytest.raises(BackendUnavailable, match="not HTTP"):
            await hot.post_json("/prompt", b"{}")
        with pytest.raises(BackendUnavailable, match="not HTTP"):
            await get(hot)
        await server.wait_gone(2)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        CHUNKED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + b"5\r\nshort\r\n",
        CHUNKED + b"5\r\nshort\r\n0\r\n",
        CHUNKED + b"5\r\nshort\r\n0\r\nX: y\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\nshort",
    ],
)
async def test_a_cut_off_body_is_never_taken_for_a_whole_one(answer: bytes) -> None:
    async with serving(always(answer)) as (_, hot):
        with pytest.raises(BackendUnavailable, match="in the middle"):
            await get(hot)
        with pytest.raises(BackendUnavailable, match="in the middle"):
            await hot.post_json("/prompt", b"{}")


@pytest.mark.parametrize(
    ("start", "again"),
    [
        (b"HTTP/1.1 200 OK\r\nX: ", b"x" * 1000),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 100),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
        (CHUNKED + b"2\r\nok\r\n0\r\n", b"X: y\r\n" * 100),
        (CHUNKED + b"2\r\nok\r\n0\r\nX: ", b"x" * 1000),
        (CHUNKED + b"2\r\nok\r\n5;", b"x" * 1000),
    ],
)
async def test_heads_and_trailers_without_end_are_ended(start: bytes, again: bytes) -> None:
    sent = 0

    async def talk(server: Server, number: int, stream: trio.SocketStream) -> None:
        nonlocal sent
        stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, 4096)
        await server.read_request(stream)
        await stream.send_all(start)
        while True:
            await stream.send_all(again)
            sent += len(again)

    async with serving(talk) as (server, hot):
        with pytest.raises(BackendUnavailable, match="does not end"):
            await get(hot)
        await server.wait_gone(1)
    assert sent < 200 * MAX_HEAD


# -- being cancelled -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", range(len(OK) + 1))
async def test_cancelled_after_any_byte_the_next_answer_is_the_next_requests(count: int) -> None:
    asked = trio.Event()

    async def talk(server: Server, number: int, stream: trio.SocketStream) -> None:
        while request := await server.read_request(stream):
            if b"first" in request:
                await stream.send_all(OK.replace(b"ok", b"no")[:count])
                asked.set()
            else:
                await stream.send_all(OK)

    async with serving(talk) as (_, hot):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hot.post_json, "/first", b"{}")
            await asked.wait()
            nursery.cancel_scope.cancel()
        assert [await get(hot) for _ in range(2)] == [(200, b"ok")] * 2


async def test_a_request_that_was_cancelled_before_is_not_sent() -> None:
    async with serving(answers_ok) as (server, hot):
        await get(hot)
        with trio.CancelScope() as scope:
            scope.cancel()
            await hot.post_json("/prompt", b"{}")
        assert scope.cancelled_caught
        await server.wait_gone(1)
        assert len(server.requests) == 1


# -- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Contexts:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    folder: Path = tmp_path_factory.mktemp("tls")
    key, cert = str(folder / "key.pem"), str(folder / "cert.pem")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*command.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    return server, ssl.create_default_context(cafile=cert)


@asynccontextmanager
async def serving_tls(
    contexts: Contexts, answer: Callable[[int], bytes], client: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Server, HotPath]]:
    async def talk(server: Server, number: int, stream: trio.SocketStream) -> None:
        secure = trio.SSLStream(stream, contexts[0], server_side=True)
        while b"\r\n\r\n" in await secure.receive_some(65536):
            server.requests.append(b"")
            await secure.send_all(answer(number))

    async with serving(talk) as (server, _):
        hot = HotPath(server.url.replace("http:", "https:"), {}, client or contexts[1], timeout=5)
        try:
            yield server, hot
        finally:
            await hot.aclose()


async def test_over_tls(tls: Contexts) -> None:
    large = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000
    async with serving_tls(tls, lambda number: large) as (server, hot):
        for _ in range(3):
            assert await hot.post_json("/prompt", b"{}") == (200, b"x" * 200_000)
            assert await get(hot) == (200, b"x" * 200_000)
        assert server.connections == 1


async def test_over_tls_an_answer_in_a_record_of_its_own_is_not_taken_for_the_next(
    tls: Contexts,
) -> None:
    def answer(number: int) -> bytes:
        head = b"HTTP/1.1 200 OK\r\nX: %d\r\nContent-Length: 16000\r\n" % number
        fill = 16384 - 16000 - len(head) - len(b"Fill: \r\n\r\n")  # a whole TLS record; what follows is the next
        return head + b"Fill: " + b"f" * fill + b"\r\n\r\n" + b"x" * 16000 + OK

    async with serving_tls(tls, answer) as (server, hot):
        for _ in range(3):
            status, body = await get(hot)
            assert (status, len(body)) == (200, 16000)
        assert server.connections == 3


async def test_over_tls_a_stranger_is_refused_and_the_connection_closed(
    tls: Contexts,
) -> None:
    async with serving_tls(tls, lambda number: OK, ssl.create_default_context()) as (server, hot):
        with pytest.raises(BackendUnavailable):
            await get(hot)
        await server.wait_gone(1)
        assert server.requests == []


async def test_over_tls_a_cut_off_answer_is_an_error(tls: Contexts) -> None:
    async def talk(server: Server, number: int, stream: trio.SocketStream) -> None:
        secure = trio.SSLStream(stream, tls[0], server_side=True)
        await secure.receive_some(65536)
        await secure.send_all(b"HTTP/1.1 200 OK\r\n\r\nuntil")  # and no close_notify

    async with serving(talk) as (server, _):
        hot = HotPath(server.url.replace("http:", "https:"), {}, tls[1])
        with pytest.raises(BackendUnavailable):
            await get(hot)
