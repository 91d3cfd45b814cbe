"""How commands show their key: in a header, to the service alone; and what they say where it is not enough."""

from __future__ import annotations

import logging
from pathlib import Path

import httpx
import pytest
import trio

from bridged.cli.http import Service, read_key
from bridged.config.keys import add_client, key_hash, make_key
from bridged.config.schema import ClientKey
from bridged.errors import BadInput
from tests.cli.commands import bridged
from tests.conftest import StartFake
from tests.e2e.house import House

ONE_LINE = 1


class Answerer:
    """A TCP server that keeps the head of each request, and gives each path its prepared answer."""

    def __init__(self, **answers: bytes) -> None:
        self.answers = answers
        self.heads: list[str] = []
        self.url = ""

    async def serve(
        self, *, task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        await trio.serve_listeners(self._answer, [listener], task_status=task_status)

    async def _answer(self, stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            received = await stream.receive_some()
            if not received:
                return
            head += received
        self.heads.append(head.decode())
        name = head.split()[1].decode().partition("?")[0].strip("/").replace("-", "_")
        status, _, body = self.answers[name].partition(b"|")
        await stream.send_all(
            b"HTTP/1.1 %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (status, len(body), body)
        )
        await stream.aclose()


async def test_commands_of_a_service_with_keys(
    house: House, start_fake: StartFake, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    house.settings["log"] = {"level": "debug"}
    fake = await start_fake("one")
    house.write_backends(("pc-1", fake.url))
    desk, web = make_key(), make_key()
    add_client(house.etc, ClientKey(name="desk", keys=(key_hash(desk),), scopes=("submit", "admin")))
    add_client(house.etc, ClientKey(name="web", keys=(key_hash(web),)))
    url = await house.start()
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {desk}"}) as http:
        with trio.fail_after(10):
            while (await http.get(f"{url}/status")).json()["backends"][0]["state"] != "up":
                await trio.sleep(0.01)
    away = tmp_path / "away"
    away.mkdir()
    (away / "key").write_text(f"{web}\n")

    for arguments in (["status"], ["workflows"], ["info", "pattern"], ["run", "pattern"], ["smoke"]):
        for wrong in ({}, {"BRIDGED_KEY": ""}, {"BRIDGED_KEY": make_key()}):
            refused = await bridged(away, *arguments, BRIDGED_URL=url, **wrong)
            assert refused.returncode == 1
            assert "BRIDGED_KEY" in refused.stderr
            assert len(refused.stderr.strip().splitlines()) == ONE_LINE, refused.stderr

    shown = await bridged(away, "status", BRIDGED_URL=url, BRIDGED_KEY=desk)
    assert "pc-1" in shown.stdout, shown.stderr
    smoked = await bridged(away, "smoke", BRIDGED_URL=url, BRIDGED_KEY=desk)
    assert smoked.returncode == 0, smoked.stdout + smoked.stderr

    forbidden = await bridged(away, "status", BRIDGED_URL=url, BRIDGED_KEY=web)
    assert forbidden.returncode == 1
    assert "BRIDGED_KEY" in forbidden.stderr
    listed = await bridged(away, "workflows", BRIDGED_URL=url, BRIDGED_KEY=web)
    assert "pattern" in listed.stdout, listed.stderr
    assert "?" in listed.stdout, "what can run is told to the scope `admin` alone"

    for options in ([], ["--rest"]):
        done = await bridged(away, "run", "pattern", "-o", "out", "--url", url, "--key-file", "key", *options)
        assert done.returncode == 0, done.stderr
    assert len(list((away / "out").iterdir())) == 2

    written = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p != away / "key")
    for key in (desk, web):
        assert key.encode() not in written
        assert key not in caplog.text


async def test_the_key_is_a_header_of_requests_and_of_websockets(tmp_path: Path, nursery: trio.Nursery) -> None:
    service = Answerer(workflow_info=b"200 OK|{}", ws=b'401 Unauthorized|{"detail": "no such\\nkey"}')
    await nursery.start(service.serve)
    done = await bridged(tmp_path, "run", "x", BRIDGED_URL=service.url, BRIDGED_KEY="bk_secret")
    assert done.returncode == 1
    assert done.stderr == "Error: no such key; look into BRIDGED_KEY, or give another --key-file FILE\n"
    assert [head.split()[1].partition("?")[0] for head in service.heads] == ["/workflow-info", "/ws"]
    for head in service.heads:
        request, _, headers = head.partition("\r\n")
        assert "authorization: bearer bk_secret\r\n" in headers.lower()
        assert "bk_secret" not in request


async def test_no_key_is_sent_where_there_is_none(tmp_path: Path, nursery: trio.Nursery) -> None:
    service = Answerer(status=b"401 Unauthorized|")
    await nursery.start(service.serve)
    done = await bridged(tmp_path, "status", BRIDGED_URL=service.url)
    assert done.stderr == "Error: HTTP status 401; set BRIDGED_KEY, or give --key-file FILE\n"
    assert "authorization" not in service.heads[0].lower()


async def test_the_key_does_not_follow_a_redirect(tmp_path: Path, nursery: trio.Nursery) -> None:
    thief = Answerer()
    await nursery.start(thief.serve)
    there = b"302 Found\r\nLocation: %b/|" % thief.url.encode()
    service = Answerer(status=there, workflow_info=b"200 OK|{}", ws=there, interrupt=there)
    await nursery.start(service.serve)
    for command in (["status"], ["smoke"]):
        done = await bridged(tmp_path, *command, BRIDGED_URL=service.url, BRIDGED_KEY="bk_secret")
        assert done.returncode == 1
        assert done.stderr == f"Error: the service is elsewhere: '{thief.url}/'; give that address with --url\n"
    done = await bridged(tmp_path, "run", "x", BRIDGED_URL=service.url, BRIDGED_KEY="bk_secret")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == ONE_LINE, done.stderr
    assert thief.heads == []


async def test_the_key_does_not_go_to_the_environments_proxy(tmp_path: Path, nursery: trio.Nursery) -> None:
    proxy, service = Answerer(), Answerer(status=b"401 Unauthorized|")
    await nursery.start(proxy.serve)
    await nursery.start(service.serve)
    proxies = {"HTTP_PROXY": proxy.url, "http_proxy": proxy.url, "ALL_PROXY": proxy.url}
    await bridged(tmp_path, "status", BRIDGED_URL=service.url, BRIDGED_KEY="bk_secret", **proxies)
    assert proxy.heads == []
    assert len(service.heads) == 1


async def test_a_key_is_no_argument(tmp_path: Path) -> None:
    for option in (["--key", "bk_secret"], ["--key=bk_secret"]):
        done = await bridged(tmp_path, "status", *option)
        assert done.returncode == 2
        assert "--key-file" in done.stderr
        assert "bk_secret" not in done.stderr


def test_a_key_file_wins_over_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("  bk_file\n\n")
    assert read_key(file, {"BRIDGED_KEY": "bk_environment"}) == "bk_file"
    assert read_key(None, {"BRIDGED_KEY": " bk_environment\n"}) == "bk_environment"
    assert read_key(None, {"BRIDGED_KEY": "  "}) == read_key(None, {}) == ""
    assert "bk_file" not in repr(Service("http://x", "bk_file"))


@pytest.mark.parametrize("text", ["", "two words", "two\nlines", "süß", "a\0b", "x" * 600])
def test_what_is_no_key_is_refused_without_repeating_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    with pytest.raises(BadInput, match="this is no key; a key is one line, as `bridged key new` printed it") as refused:
        read_key(file, {})
    assert not text or text not in str(refused.value)
    if text:
        with pytest.raises(BadInput, match=r"^BRIDGED_KEY: this is no key"):
            read_key(None, {"BRIDGED_KEY": text})


def test_a_key_file_that_is_not_there_is_an_error_and_never_no_key(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        read_key(tmp_path / "missing", {"BRIDGED_KEY": "bk_environment"})
