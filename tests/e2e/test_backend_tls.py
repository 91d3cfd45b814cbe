"""Backends behind TLS: who is trusted, what is said of those who are not, and that no redirect is followed."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import pytest
import trio

from bridged.comfy.client import ComfyClient
from bridged.errors import BackendUnavailable
from tests.conftest import StartFake
from tests.e2e.authority import Authority, TlsFront
from tests.e2e.house import House
from tests.fakes.comfyui import FakeComfyUI, Reply
from tests.fakes.comfyui.script import Call
from tests.files.pictures import picture


@pytest.fixture
def authority(house: House) -> Authority:
    return Authority(house.etc)


@pytest.fixture
async def pc(start_fake: StartFake) -> FakeComfyUI:
    return await start_fake("one")


@pytest.fixture
async def front(nursery: trio.Nursery, pc: FakeComfyUI, authority: Authority) -> TlsFront:
    """TLS in front of the fake, with a certificate for 127.0.0.1 and localhost."""
    front = TlsFront(pc.port, authority.server(authority.pair("server")))
    await nursery.start(front.serve)
    return front


def listed(house: House, front: TlsFront, *lines: str, host: str = "127.0.0.1") -> None:
    house.write_backends(("pc-1", f"https://{host}:{front.port}"), pc_1="\n".join(lines))


async def reason(house: House, wanted: str) -> str:
    """Why the backend is down, once that is said to begin so."""
    facts: dict[str, Any] = {}
    try:
        facts = await house.wait_status(lambda s: facts.update(s) or s["backends"][0]["reason"].startswith(wanted), 10)
    except trio.TooSlowError:
        pytest.fail(f"it is {facts['backends'][0]['state']}: {facts['backends'][0]['reason']}")
    (backend,) = facts["backends"]
    assert backend["state"] == "down"
    return str(backend["reason"])


async def job_with_a_file(house: House) -> None:
    async with house.client() as client:
        tokens = await client.upload(picture=("p.png", picture()))
        await client.submit("invert", **{"10__image": tokens["picture"]})
        assert len(await client.result()) == 1


# -- who is trusted ------------------------------------------------------------------------------------------------


async def test_a_job_on_a_pc_whose_certificate_is_of_an_authority_of_ones_own(
    house: House, front: TlsFront, pc: FakeComfyUI
) -> None:
    listed(house, front, 'tls_ca = "ca.pem"')
    await house.start()
    await house.wait_up("pc-1")
    await job_with_a_file(house)
    routes = {call.route for call in pc.calls}
    assert {"/ws", "/prompt", "/view", "/queue", "/upload/image"} <= routes  # all three of our clients


async def test_a_job_with_mutual_tls(house: House, front: TlsFront, authority: Authority) -> None:
    front.context = authority.server(authority.pair("server"), wants_client=True)
    authority.pair("bridge", "bridge")
    listed(house, front, 'tls_ca = "ca.pem"\ntls_cert = "bridge.crt"\ntls_key = "bridge.key"')
    await house.start()
    await house.wait_up("pc-1")
    await job_with_a_file(house)
    assert front.failed == 0


async def says_bad_request(stream: trio.SocketStream) -> None:
    """What a web server answers to a TLS handshake."""
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("stranger", "its certificate comes from no authority that is trusted here; give the one that made it"),
        ("system", "its certificate comes from no authority that is trusted here"),
        ("expired", "its certificate has expired"),
        ("early", "its certificate is not valid yet; compare both clocks"),
        ("other name", "its certificate is for another name than the one in `url`"),
        ("other address", "its certificate is for another name than the one in `url`"),
        ("wants ours", "it wants a certificate of ours; give `tls_cert` and `tls_key`"),
        ("ours of a stranger", "it does not accept the certificate in `tls_cert`"),
        ("ours expired", "it does not accept the certificate in `tls_cert`"),
        ("no tls", "it does not speak TLS; is its url http:// and not https://?"),
    ],
)
async def test_what_is_wrong_with_a_certificate_is_said_without_the_address(
    house: House, front: TlsFront, pc: FakeComfyUI, authority: Authority, nursery: trio.Nursery, what: str, said: str
) -> None:
    lines = ['tls_ca = "ca.pem"']
    host = "localhost" if what == "other name" else "127.0.0.1"
    match what:
        case "stranger":
            front.context = authority.server(Authority(house.etc, "stranger").pair("stranger"))
        case "system":
            lines = []
        case "expired":
            front.context = authority.server(authority.pair("server", days=-1, age=9))
        case "early":
            front.context = authority.server(authority.pair("server", age=-2))
        case "other name" | "other address":
            front.context = authority.server(authority.pair("server", "pc.example.org"))
        case "wants ours" | "ours of a stranger" | "ours expired":
            front.context = authority.server(authority.pair("server"), wants_client=True)
            if what == "ours of a stranger":
                Authority(house.etc, "stranger").pair("bridge")
            elif what == "ours expired":
                authority.pair("bridge", days=-1, age=9)
            if what != "wants ours":
                lines.append('tls_cert = "bridge.crt"\ntls_key = "bridge.key"')
        case "no tls":
            (plain,) = await nursery.start(partial(trio.serve_tcp, says_bad_request, 0, host="127.0.0.1"))
            front.port = plain.socket.getsockname()[1]
    listed(house, front, *lines, host=host)
    await house.start()
    text = await reason(house, said)
    assert host not in text
    assert str(front.port) not in text
    assert [call for call in pc.calls if call.route != "/"] == []


async def test_every_kind_of_connection_says_what_is_wrong(front: TlsFront, authority: Authority, house: House) -> None:
    stranger = Authority(house.etc, "stranger").client()
    client = ComfyClient(f"https://127.0.0.1:{front.port}", {}, "c", stranger)

    async def listen() -> None:
        async with client.events():
            pass

    for ask in (client.queue, partial(client.post_prompt, "1", {}), listen):
        with pytest.raises(BackendUnavailable, match="its certificate comes from no authority"):
            await ask()
    await client.use(authority.client())
    assert (await client.queue()).running == ()
    await client.aclose()


async def test_its_certificate_is_looked_at_for_each_connection(
    house: House, front: TlsFront, pc: FakeComfyUI, authority: Authority
) -> None:
    """A job meets a PC whose certificate was good a moment ago: nothing is sent to it any more."""
    listed(house, front, 'tls_ca = "ca.pem"')
    await house.start()
    await house.wait_up("pc-1")
    front.context = authority.server(Authority(house.etc, "stranger").pair("stranger"))
    pc.drop_connections()
    await reason(house, "its certificate comes from no authority")
    asked = len(pc.calls)
    async with house.client() as client:
        await client.submit("pattern")
        front.context = authority.server(authority.pair("server"))
        assert len(await client.result()) == 1
    assert len(pc.calls) > asked


async def test_renewed_files_are_used_without_a_restart(
    house: House, front: TlsFront, pc: FakeComfyUI, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """Both sides change their authority, and there is a moment in which ours cannot be read at all."""
    front.context = authority.server(authority.pair("server"), wants_client=True)
    authority.pair("bridge", "bridge")
    listed(house, front, 'tls_ca = "ca.pem"\ntls_cert = "bridge.crt"\ntls_key = "bridge.key"')
    await house.start()
    await house.wait_up("pc-1")
    ca = house.etc / "ca.pem"
    kept = ca.read_bytes()
    (house.etc / "new").mkdir()
    new = Authority(house.etc / "new")
    front.context = new.server(new.pair("server"), wants_client=True)
    ca.write_bytes(b"nonsense")
    pc.drop_connections()
    await reason(house, "its certificate comes from no authority")
    assert caplog.text.count("backends.toml: backend pc-1.tls_ca: ") == 1
    assert kept != new.ca.read_bytes()
    for file in (new.ca, *new.pair("bridge")):
        os.replace(file, house.etc / file.name)
    await house.wait_up("pc-1")
    await job_with_a_file(house)


async def test_files_that_cannot_be_used_leave_the_pcs_as_they_were(
    house: House, front: TlsFront, authority: Authority
) -> None:
    listed(house, front, 'tls_ca = "ca.pem"')
    await house.start()
    await house.wait_up("pc-1")
    listed(house, front, 'tls_ca = "gone.pem"')
    facts = await house.wait_status(lambda s: s["configuration"]["errors"])
    (problem,) = facts["configuration"]["errors"]
    assert problem.startswith(f"backends.toml: backend[0].tls_ca: {house.etc}/gone.pem: No such file")
    assert facts["backends"][0]["state"] == "up"
    await job_with_a_file(house)


# -- redirects -----------------------------------------------------------------------------------------------------


ROUTES = ("/ws", "/object_info", "/queue", "/history", "/prompt", "/view", "/upload/image")


@pytest.mark.parametrize(
    ("route", "status"), [*((route, 302) for route in ROUTES), *((route, 307) for route in ROUTES), ("/prompt", 301)]
)
async def test_a_redirect_leads_nowhere(
    house: House, pc: FakeComfyUI, start_fake: StartFake, route: str, status: int
) -> None:
    elsewhere = await start_fake("elsewhere")

    async def redirect(call: Call) -> Reply | None:
        if call.route == route or (route == "/history" and call.route.startswith("/history/")):
            return Reply(status, headers={"Location": f"{elsewhere.url}{call.path}"})
        return None

    pc.script.hook = redirect
    pc.script.omit_executed = route == "/history"
    house.settings["jobs"] |= {"max_attempts": 1, "unreachable_after": 0.5}
    house.write_backends(("pc-1", pc.url))
    await house.start()
    if route in ("/ws", "/object_info", "/queue"):
        text = await reason(house, "it answers ")
        assert f"HTTP status {status}" in text
        assert str(elsewhere.port) not in text
    else:
        await house.wait_up("pc-1")
        async with house.client() as client:
            tokens = await client.upload(picture=("p.png", picture()))
            await client.submit("invert", **{"10__image": tokens["picture"]})
            info = await client.wait_info(status="error")
            assert str(elsewhere.port) not in info["detail"]
    assert elsewhere.calls == []
