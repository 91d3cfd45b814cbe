"""HTTPS served by the daemon itself, over the real wire: what clients get, and what they are not given."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trio_websocket

from bridged.api import tls
from tests.conftest import StartFake
from tests.e2e.authority import Authority, Pair
from tests.e2e.house import House, Socket
from tests.e2e.test_process import environment
from tests.fakes.comfyui import FakeComfyUI
from tests.files.pictures import picture


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    folder = tmp_path / "certificates"
    folder.mkdir()
    return Authority(folder)


class Secure:
    """A house that serves HTTPS with `pair`, its fake PC, and clients that trust its authority."""

    def __init__(self, house: House, fake: FakeComfyUI, authority: Authority, pair: Pair) -> None:
        self.house = house
        self.fake = fake
        self.authority = authority
        self.pair = pair
        self.port = 0

    async def start(self) -> None:
        self.house.settings["server"] |= {"tls_cert": str(self.pair.cert), "tls_key": str(self.pair.key)}
        self.house.write_backends(("pc-1", self.fake.url))
        url = await self.house.start()
        assert url.startswith("https://127.0.0.1:")
        self.port = int(url.rpartition(":")[2])
        async with self.http() as http:
            with trio.fail_after(10):
                while (await http.get("/status")).json()["backends"][0]["state"] != "up":
                    await trio.sleep(0.01)

    def http(self, client_id: str = "c1", **options: Any) -> httpx.AsyncClient:
        context = self.authority.client()
        query = {"clientId": client_id}
        return httpx.AsyncClient(base_url=self.house.url, params=query, verify=context, timeout=30, **options)

    @asynccontextmanager
    async def socket(self, client_id: str = "c1") -> AsyncIterator[Socket]:
        tcp = await trio.open_tcp_stream("127.0.0.1", self.port)
        stream = trio.SSLStream(tcp, self.authority.client(), server_hostname="127.0.0.1", https_compatible=True)
        async with trio.open_nursery() as nursery:
            connection = await trio_websocket.wrap_client_stream(
                nursery, stream, f"127.0.0.1:{self.port}", f"/ws?clientId={client_id}"
            )
            try:
                yield Socket(connection, tcp)
            finally:
                nursery.cancel_scope.cancel()
                await trio.aclose_forcefully(tcp)

    async def shown(self) -> str:
        """The serial number of the certificate that a new connection is shown."""
        async with connected(self.port, self.authority.client()) as stream:
            facts: Any = stream.getpeercert()
            return str(facts["serialNumber"])

    async def until_shown(self, pair: Pair) -> None:
        wanted = serial(pair)
        with trio.fail_after(10):
            while await self.shown() != wanted:
                await trio.sleep(0.02)


@asynccontextmanager
async def connected(port: int, context: ssl.SSLContext) -> AsyncIterator[trio.SSLStream[trio.SocketStream]]:
    tcp = await trio.open_tcp_stream("127.0.0.1", port)
    stream = trio.SSLStream(tcp, context, server_hostname="127.0.0.1", https_compatible=True)
    try:
        with trio.fail_after(5):
            await stream.do_handshake()
        yield stream
    finally:
        await trio.aclose_forcefully(stream)


def serial(pair: Pair) -> str:
    command = f"openssl x509 -in {pair.cert} -noout -serial"
    done = subprocess.run(command.split(), capture_output=True, text=True, check=True)
    return done.stdout.strip().removeprefix("serial=")


@pytest.fixture
async def secure(house: House, start_fake: StartFake, authority: Authority) -> Secure:
    """Started, with a pair that is called `server`."""
    secure = Secure(house, await start_fake("one"), authority, authority.pair("server"))
    await secure.start()
    return secure


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are looked at all the time."""
    monkeypatch.setattr(tls, "LOOK_AGAIN", 0.02)
    monkeypatch.setattr(tls, "SETTLE", 0.02)


# -- what clients get ----------------------------------------------------------------------------------------------


async def test_a_job_with_an_upload_and_a_websocket(secure: Secure) -> None:
    async with secure.http() as http, secure.socket() as client:
        sent = await http.post("/upload", files={"picture": ("p.png", picture(), "image/png")})
        assert sent.status_code == 200, sent.text
        values = {"workflow": "invert", "10/image": sent.json()["picture"]}
        assert (await http.post("/generate-based-workflow", json=values)).status_code == 200
        assert (await client.until_closed())[0] == 1000
        assert client.statuses()[0] == "connected"
        assert client.statuses()[-1] == "closed"
        answer = await http.get("/history", params={"resType": "multipart"})
        assert answer.status_code == 200
        assert b"\x89PNG" in answer.content
    assert [call.upload_name for call in secure.fake.calls_to("POST", "/upload/image")] != []


async def test_a_large_upload_and_its_way_back(secure: Secure) -> None:
    secure.fake.script.output_bytes = noise = picture(size=1500, noise=True)
    async with secure.http() as http:
        sent = await http.post("/upload", files={str(n): (f"{n}.png", noise, "image/png") for n in range(5)})
        assert sent.status_code == 200, sent.text
        values = {"workflow": "invert", "10/image": sent.json()["4"]}
        assert (await http.post("/generate-based-workflow", json=values)).status_code == 200
        answer = await http.get("/history", params={"resType": "multipart", "wait": "20"})
        assert noise in answer.content


async def test_a_client_that_goes_away_without_a_word_of_tls_cancels_its_job(secure: Secure) -> None:
    secure.fake.script.gate = trio.Event()
    async with secure.http() as http, secure.socket() as client:
        assert (await http.post("/generate-based-workflow", json={"workflow": "pattern"})).status_code == 200
        with trio.fail_after(5):
            await secure.fake.wait_for(lambda: any(prompt.held_at for prompt in secure.fake.prompts.values()))
        await trio.aclose_forcefully(client.stream)
        with trio.fail_after(5):
            await secure.fake.wait_for(lambda: all(p.state == "interrupted" for p in secure.fake.prompts.values()))


@pytest.mark.parametrize(("offered", "chosen"), [(["h2", "http/1.1"], "http/1.1"), (["h2"], None), ([], None)])
async def test_http_2_is_not_to_be_had(secure: Secure, offered: list[str], chosen: str | None) -> None:
    context = secure.authority.client()
    if offered:
        context.set_alpn_protocols(offered)
    async with connected(secure.port, context) as stream:
        assert stream.selected_alpn_protocol() == chosen
        assert stream.version() == "TLSv1.3"
        await stream.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
        with trio.fail_after(5):
            said = await stream.receive_some()
        assert not said or said.startswith(b"HTTP/1.1 4")


async def test_old_versions_and_ciphers_are_refused(secure: Secure) -> None:
    for options in (["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"], ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"]):
        assert "Cipher is (NONE)" in await s_client(secure.port, *options)
    assert "Cipher is ECDHE" in await s_client(secure.port, "-tls1_2")
    assert "No ALPN negotiated" in await s_client(secure.port, "-alpn", "h2")
    assert "ALPN protocol: http/1.1" in await s_client(secure.port, "-alpn", "h2,http/1.1")


async def s_client(port: int, *options: str) -> str:
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *options]
    done = await trio.run_process(command, stdin=b"", capture_stdout=True, capture_stderr=True, check=False)
    return done.stdout.decode()


async def test_who_does_not_speak_tls_is_let_go_and_troubles_nobody(
    secure: Secure, caplog: pytest.LogCaptureFixture
) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", secure.port) as plain:
        await plain.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        with trio.fail_after(5):
            assert not (await plain.receive_some()).startswith(b"HTTP")
    async with secure.http() as http:
        assert (await http.get("/")).status_code == 200
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_handshake_that_does_not_come_ends_the_connection(
    house: House, start_fake: StartFake, authority: Authority
) -> None:
    house.settings["limits"] = {"header_timeout": 0.2}
    secure = Secure(house, await start_fake("one"), authority, authority.pair("server"))
    await secure.start()
    async with await trio.open_tcp_stream("127.0.0.1", secure.port) as silent:
        with trio.fail_after(5):
            assert await silent.receive_some() == b""


async def test_a_stop_does_not_wait_for_open_connections(secure: Secure) -> None:
    async with secure.http() as http, connected(secure.port, secure.authority.client()):
        assert (await http.get("/")).status_code == 200
        async with secure.socket() as client:
            await client.until("connected")
            secure.house.daemon.stop()
            assert (await client.until_closed())[0] == 1001
        with trio.fail_after(4):
            await secure.house.ended.wait()


# -- certificates that change --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("eager")
async def test_a_renewed_pair_is_for_new_connections_and_old_ones_go_on(
    secure: Secure, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bridged")
    before = serial(secure.pair)
    assert await secure.shown() == before
    async with secure.http() as http, secure.socket() as client:
        await client.until("connected")
        assert (await http.get("/")).status_code == 200
        await secure.until_shown(secure.authority.pair("server"))
        assert serial(secure.pair) != before
        assert (await http.post("/generate-based-workflow", json={"workflow": "pattern"})).status_code == 200
        assert (await client.until_closed())[0] == 1000
    assert [r.message for r in caplog.records if r.name == "bridged.api.tls"] == ["a new certificate is in use"]


@pytest.mark.usefixtures("eager")
async def test_another_kind_of_key_leaves_nothing_of_the_old_one(secure: Secure) -> None:
    folder = secure.pair.cert.parent
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN=rsa -addext subjectAltName=IP:127.0.0.1"
    command = f"{command} -keyout {folder}/rsa.key -out {folder}/rsa.crt"
    await trio.run_process(command.split(), stderr=subprocess.DEVNULL)
    rsa = Pair(folder / "rsa.crt", folder / "rsa.key")
    secure.authority.ca.write_text(secure.authority.ca.read_text() + rsa.cert.read_text())
    for file, target in zip(rsa, secure.pair, strict=True):
        os.replace(file, target)
    await secure.until_shown(secure.pair)
    assert "Cipher is (NONE)" in await s_client(secure.port, "-tls1_2", "-sigalgs", "ECDSA+SHA256")
    assert "Cipher is ECDHE-RSA" in await s_client(secure.port, "-tls1_2")


@pytest.mark.usefixtures("eager")
async def test_links_may_be_moved_anywhere_on_the_way(
    house: House, start_fake: StartFake, authority: Authority, tmp_path: Path
) -> None:
    """As certbot does (the file is a link), and as Kubernetes does (its folder is behind one)."""
    first, second, third = (authority.pair(name) for name in ("first", "second", "third"))
    live = tmp_path / "live"
    live.mkdir()
    mounts = [tmp_path / name for name in ("..1", "..2")]
    for mount, pair in zip(mounts, (first, second), strict=True):
        mount.mkdir()
        for name, file in zip(("cert", "key"), pair, strict=True):
            os.link(file, mount / name)
    (tmp_path / "..data").symlink_to(mounts[0])
    for name in ("cert", "key"):
        (live / name).symlink_to(tmp_path / "..data" / name)
    secure = Secure(house, await start_fake("one"), authority, Pair(live / "cert", live / "key"))
    await secure.start()
    assert await secure.shown() == serial(first)

    (tmp_path / "new").symlink_to(mounts[1])
    os.replace(tmp_path / "new", tmp_path / "..data")
    await secure.until_shown(second)

    for name, file in zip(("cert", "key"), third, strict=True):
        (live / "new").symlink_to(file)
        os.replace(live / "new", live / name)
    await secure.until_shown(third)


@pytest.mark.usefixtures("eager")
async def test_a_pair_that_does_not_fit_changes_nothing_and_is_told_once(
    secure: Secure, caplog: pytest.LogCaptureFixture
) -> None:
    before = serial(secure.pair)

    def told() -> list[str]:
        return [r.message for r in caplog.records if r.name == "bridged.api.tls" and r.levelno >= logging.WARNING]

    key = secure.pair.key.read_bytes()
    secure.pair.key.write_bytes(secure.authority.pair("other").key.read_bytes())
    with trio.fail_after(5):
        while not told():
            await trio.sleep(0.02)
    secure.pair.key.touch()  # looked at again, and still wrong
    for _ in range(10):
        assert await secure.shown() == before
        await trio.sleep(0.02)
    (line,) = told()
    assert f"server.tls_key: {secure.pair.key}: it is not the key" in line
    assert line.endswith("; the previous certificate stays in use")
    secure.pair.key.write_bytes(key)
    await secure.until_shown(secure.authority.pair("server"))
    assert len(told()) == 1


async def test_sighup_takes_the_renewed_pair_at_once(house: House, authority: Authority) -> None:
    pair = authority.pair("server")
    house.settings["server"] |= {"tls_cert": str(pair.cert), "tls_key": str(pair.key)}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = house.settings["server"]["port"] = free.getsockname()[1]
    house.write_settings()
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "bridged", "serve", "--config", str(house.etc)],
        env=environment(house.folder),
        stderr=subprocess.DEVNULL,
    )
    try:
        with trio.fail_after(20):
            before = await first_shown(port, authority)
            assert before == serial(pair)
            authority.pair("server")
            process.send_signal(signal.SIGHUP)
            while await first_shown(port, authority) != serial(pair):
                await trio.sleep(0.05)
    finally:
        process.kill()
        with trio.move_on_after(5, shield=True):
            await process.wait()


async def first_shown(port: int, authority: Authority) -> str:
    while True:
        try:
            async with connected(port, authority.client()) as stream:
                facts: Any = stream.getpeercert()
                return str(facts["serialNumber"])
        except OSError:
            await trio.sleep(0.05)


async def test_an_expired_certificate_is_served_and_warned_of(
    house: House, start_fake: StartFake, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    pair = authority.pair("server", days=-1, age=9)
    house.settings["server"] |= {"tls_cert": str(pair.cert), "tls_key": str(pair.key)}
    url = await house.start()
    assert "it expired on" in caplog.text
    context = authority.client()
    with pytest.raises(trio.BrokenResourceError) as refused:
        async with connected(int(url.rpartition(":")[2]), context):
            pass
    assert isinstance(refused.value.__cause__, ssl.SSLCertVerificationError)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with connected(int(url.rpartition(":")[2]), context) as stream:
        await stream.send_all(b"GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        with trio.fail_after(5):
            answer = b""
            while chunk := await stream.receive_some():
                answer += chunk
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["stopping"] is False
