"""The daemon behind the real nginx and the real Caddy, each with its template of etc/proxy."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trio_websocket

from tests.conftest import StartFake
from tests.e2e.authority import Authority
from tests.e2e.house import House, Socket
from tests.e2e.proxies import PROXIES, Proxy, Upstream
from tests.fakes.comfyui import FakeComfyUI
from tests.files.pictures import picture

KEY = "the-key-of-a-test-0123456789"

Start = Callable[..., AbstractAsyncContextManager[Proxy]]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    folder = tmp_path / "certificates"
    folder.mkdir()
    return Authority(folder)


@pytest.fixture(params=PROXIES)
def start(request: pytest.FixtureRequest, tmp_path: Path, authority: Authority) -> Start:
    """Starts the proxy in front of a port."""

    def start(service: int, **changes: str) -> AbstractAsyncContextManager[Proxy]:
        return PROXIES[request.param](tmp_path / "proxy", service, authority.pair("server"), changes)

    return start


@pytest.fixture
async def pc(start_fake: StartFake) -> FakeComfyUI:
    return await start_fake("one")


@pytest.fixture
async def house(house: House, pc: FakeComfyUI) -> House:
    """As an operator has it behind a proxy: it trusts that one, and callers have a key."""
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    (house.etc / "clients.toml").write_text(
        f'[[client]]\nname = "alice"\nkeys = ["sha256:{digest}"]\nscopes = ["submit", "admin"]\n'
    )
    house.settings["access"] = {"trusted_proxies": ["127.0.0.1/32"], "hosts": ["127.0.0.1"]}
    house.write_backends(("pc-1", pc.url))
    return house


async def port_of(house: House) -> int:
    await house.start()
    async with httpx.AsyncClient(base_url=house.url, headers={"Authorization": f"Bearer {KEY}"}) as http:
        with trio.fail_after(10):
            while (await http.get("/status")).json()["backends"][0]["state"] != "up":
                await trio.sleep(0.01)
    return int(house.url.rpartition(":")[2])


def client(proxy: Proxy, authority: Authority, client_id: str = "c1", **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=proxy.url,
        params={"clientId": client_id},
        headers={"Authorization": f"Bearer {KEY}"},
        verify=authority.client(),
        timeout=60,
        **options,
    )


@asynccontextmanager
async def tls(proxy: Proxy, authority: Authority, address: str = "127.0.0.1") -> AsyncIterator[trio.SSLStream[Any]]:
    """A connection to the proxy, made from that address."""
    tcp = await trio.open_tcp_stream("127.0.0.1", proxy.port, local_address=address)
    context = authority.client()
    context.set_alpn_protocols(["http/1.1"])
    try:
        yield trio.SSLStream(tcp, context, server_hostname="127.0.0.1", https_compatible=True)
    finally:
        await trio.aclose_forcefully(tcp)


@asynccontextmanager
async def websocket(
    proxy: Proxy, authority: Authority, query: str, address: str = "127.0.0.1"
) -> AsyncIterator[Socket]:
    async with tls(proxy, authority, address) as stream, trio.open_nursery() as nursery:
        connection = await trio_websocket.wrap_client_stream(
            nursery, stream, f"127.0.0.1:{proxy.port}", f"/ws?{query}"
        )
        try:
            yield Socket(connection, stream.transport_stream)
        finally:
            nursery.cancel_scope.cancel()


# -- a service behind it -------------------------------------------------------------------------------------------


async def test_a_job_over_https_and_a_websocket(house: House, start: Start, authority: Authority) -> None:
    async with start(await port_of(house)) as proxy, client(proxy, authority) as http:
        async with websocket(proxy, authority, f"clientId=c1&key={KEY}") as socket:
            sent = await http.post("/upload", files={"picture": ("p.png", picture(), "image/png")})
            assert sent.status_code == 200, sent.text
            assert sent.headers["Strict-Transport-Security"] == "max-age=31536000"
            values = {"workflow": "invert", "10/image": sent.json()["picture"]}
            answer = await http.post("/generate-based-workflow", json=values)
            assert answer.status_code == 200, answer.text
            assert (await socket.until_closed())[0] == 1000
            assert socket.statuses()[0] == "connected"
            assert socket.statuses()[-1] == "closed"
        result = await http.get("/history", params={"resType": "base64", "wait": 20})
        assert len(result.json()["files"]) == 1


async def test_a_client_that_leaves_cancels_its_job(
    house: House, pc: FakeComfyUI, start: Start, authority: Authority
) -> None:
    pc.script.gate = trio.Event()
    async with (
        start(await port_of(house)) as proxy,
        client(proxy, authority) as http,
        websocket(proxy, authority, f"clientId=c1&key={KEY}") as socket,
    ):
        await socket.until("connected")
        answer = await http.post("/generate-based-workflow", json={"workflow": "pattern"})
        assert answer.status_code == 200, answer.text
        with trio.fail_after(10):
            await pc.wait_for(lambda: any(prompt.held_at for prompt in pc.prompts.values()))
        await socket.leave("rst")
        with trio.fail_after(10):
            await pc.wait_for(lambda: all(p.state == "interrupted" for p in pc.prompts.values()))


def sound(size: int) -> bytes:
    """A WAV file of so many bytes."""
    fmt = b"fmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0"
    head = b"RIFF" + (size - 8).to_bytes(4, "little") + b"WAVE" + fmt + b"data" + (size - 44).to_bytes(4, "little")
    return head + bytes(size - 44)


async def test_100_mb_go_through_and_are_never_collected(house: House, start: Start, authority: Authority) -> None:
    async with start(await port_of(house)) as proxy, client(proxy, authority) as http:
        watched: list[Path] = []
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                while True:
                    watched.extend(proxy.temporary())
                    await trio.sleep(0.05)

            nursery.start_soon(watch)
            before = memory(proxy)
            sent = await http.post("/upload", files={"big": ("big.wav", sound(99_900_000), "audio/x-wav")})
            assert sent.status_code == 200, sent.text
            assert memory(proxy) - before < 20e6
            for size in (100_500_000, 130_000_000):  # what the service refuses, and what the proxy does
                refused = await told_at_once(proxy, authority, size)
                assert refused.startswith(b"HTTP/1.1 413 ")
                assert b"larger than" in refused
            nursery.cancel_scope.cancel()
        assert watched == []


async def told_at_once(proxy: Proxy, authority: Authority, size: int) -> bytes:
    """The answer to an upload of so many bytes, which comes long before the last of them was sent."""
    async with tls(proxy, authority) as stream, trio.open_nursery() as nursery:
        await stream.send_all(
            f"POST /upload?clientId=c1 HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n"
            f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {size}\r\n\r\n".encode()
        )

        async def go_on() -> None:
            """Go's server looks whether there is an answer only when more of the request comes."""
            for _ in range(100):
                await stream.send_all(bytes(1000))
                await trio.sleep(0.05)

        nursery.start_soon(go_on)
        answer = await answer_of(stream)
        nursery.cancel_scope.cancel()
    return answer


async def answer_of(stream: trio.SSLStream[Any]) -> bytes:
    answer = b""
    with trio.fail_after(10):
        while not answer.endswith(b"}") and (chunk := await stream.receive_some()):
            answer += chunk
    return answer


def memory(proxy: Proxy) -> int:
    """Bytes that it has ever had at once."""
    status = Path(f"/proc/{proxy.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1000


async def test_a_body_that_stalls_is_given_up(house: House, start: Start, authority: Authority) -> None:
    house.settings["limits"] = {"body_timeout": 0.5}
    async with start(await port_of(house)) as proxy, tls(proxy, authority) as stream:
        await stream.send_all(
            f"POST /upload?clientId=slow HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000000\r\n\r\n"
            '--b\r\nContent-Disposition: form-data; name="p"; filename="p.png"\r\n\r\n'.encode()
            + picture(size=500, noise=True)[:600_000]
        )
        spool = house.folder / "state" / "spool"
        with trio.fail_after(10):
            for there in (True, False):
                while any(path.is_file() for path in spool.rglob("*")) != there:
                    await trio.sleep(0.02)
        if proxy.name == "nginx":  # Caddy tells a client nothing before it has sent more
            assert (await answer_of(stream)).startswith(b"HTTP/1.1 408 ")


async def test_limits_are_each_clients_own(house: House, start: Start, authority: Authority) -> None:
    house.settings["limits"] = {"sessions_per_address": 1}
    async with start(await port_of(house)) as proxy:
        own = partial(websocket, proxy, authority)
        async with own(f"clientId=a&key={KEY}", "127.0.0.11") as first:
            await first.until("connected")
            async with own(f"clientId=b&key={KEY}", "127.0.0.12") as other:
                await other.until("connected")
            with pytest.raises(BaseExceptionGroup) as refused:
                async with own(f"clientId=c&key={KEY}", "127.0.0.11"):
                    pass
            (rejected,) = leaves(refused.value)
            assert isinstance(rejected, trio_websocket.ConnectionRejected)
            assert rejected.status_code == 429


def leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


async def test_a_key_is_in_no_log_whatever_happens(house: House, start: Start, authority: Authority) -> None:
    async with start(await port_of(house)) as proxy:
        async with websocket(proxy, authority, f"clientId=c1&key={KEY}") as socket:
            await socket.until("connected")
            await socket.leave("rst")
        async with client(proxy, authority) as http:
            assert (await http.get("/status")).status_code == 200
            await house.stop()
            for path in ("/ws", "/status"):  # the second as somebody might who has not read that it is refused
                query = {"key": KEY} if path == "/ws" else {}
                away = await http.get(path, params=query)
                assert away.status_code == 503
                assert away.headers["Retry-After"] == "5"
                assert "not running" in away.json()["detail"]
        with trio.fail_after(5):
            while proxy.logs().count("/status") < 2:
                await trio.sleep(0.02)
        assert "/ws" in proxy.logs()
        assert KEY not in proxy.logs()


# -- what the proxy itself does ------------------------------------------------------------------------------------


async def test_the_clients_address_arrives_and_cannot_be_made_up(
    nursery: trio.Nursery, start: Start, authority: Authority
) -> None:
    async def talk(method: str, body: bytes, stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    upstream = Upstream(talk)
    await nursery.start(upstream.serve)
    async with start(upstream.port) as proxy, tls(proxy, authority, "127.0.0.9") as stream:
        await stream.send_all(
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 127.0.0.1\r\n"
            b"X-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Forwarded-Proto: http\r\n\r\n"
        )
        with trio.fail_after(5):
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
    (head,) = upstream.heads
    said = [line.lower() for line in head]
    assert [line for line in said if line.startswith("x-forwarded-for")] == ["x-forwarded-for: 127.0.0.9"]
    assert [line for line in said if line.startswith("x-forwarded-proto")] == ["x-forwarded-proto: https"]
    assert "host: 127.0.0.1" in said
    assert "6.6.6.6" not in "".join(said)


async def test_both_directions_are_streamed(nursery: trio.Nursery, start: Start, authority: Authority) -> None:
    began, go_on = trio.Event(), trio.Event()

    async def talk(method: str, body: bytes, stream: trio.SocketStream) -> None:
        if method == "POST":
            while b"first" not in body:
                body += await stream.receive_some()
            began.set()
            await trio.sleep_forever()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nfirst ")
        await go_on.wait()
        await stream.send_all(b"then.")

    upstream = Upstream(talk)
    await nursery.start(upstream.serve)
    async with start(upstream.port) as proxy:
        async with tls(proxy, authority) as stream:
            await stream.send_all(b"POST /upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nfirst")
            with trio.fail_after(5):
                await began.wait()
        async with client(proxy, authority) as http:
            with trio.fail_after(5):
                async with http.stream("GET", "/history") as answer:
                    chunks = answer.aiter_raw()
                    assert await anext(chunks) == b"first "
                    go_on.set()
                    assert b"".join([chunk async for chunk in chunks]) == b"then."


async def test_a_client_that_does_not_finish_its_headers_is_let_go(
    nursery: trio.Nursery, start: Start, authority: Authority, request: pytest.FixtureRequest
) -> None:
    async def talk(method: str, body: bytes, stream: trio.SocketStream) -> None:
        raise AssertionError("nobody asked for anything")

    upstream = Upstream(talk)
    await nursery.start(upstream.serve)
    quicker = {"client_header_timeout 10s": "client_header_timeout 1s"}
    if "caddy" in request.node.name:
        quicker = {"read_header 10s": "read_header 1s"}
    async with start(upstream.port, **quicker) as proxy, tls(proxy, authority) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
        with trio.fail_after(8):
            said = await stream.receive_some()
            assert not said or said.startswith(b"HTTP/1.1 4")


async def test_old_tls_is_refused(nursery: trio.Nursery, start: Start, authority: Authority) -> None:
    async def talk(method: str, body: bytes, stream: trio.SocketStream) -> None:
        raise AssertionError("nobody got through")

    upstream = Upstream(talk)
    await nursery.start(upstream.serve)
    async with start(upstream.port) as proxy:
        command = f"openssl s_client -connect 127.0.0.1:{proxy.port} -tls1_1 -cipher DEFAULT@SECLEVEL=0"
        done = await trio.run_process(command.split(), stdin=b"", capture_stdout=True, stderr=-3, check=False)
        assert b"Cipher is (NONE)" in done.stdout
