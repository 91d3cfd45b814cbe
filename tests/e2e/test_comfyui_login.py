"""docs/proxy.md, "A login in front of ComfyUI": its commands, its template on a real nginx, and a daemon outside."""

from __future__ import annotations

import re
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
import trustme

from tests.conftest import StartFake
from tests.e2e.authority import Pair
from tests.e2e.house import House
from tests.e2e.proxies import nginx_of_a_pc
from tests.e2e.test_backend_tls import job_with_a_file, reason
from tests.fakes.comfyui import FakeComfyUI

PAGE = Path(__file__).parents[2] / "docs" / "proxy.md"
TOKEN = "0123456789abcdef0123456789abcdef"


def run_commands_of_the_page(folder: Path, *names: str) -> None:
    """Runs its blocks of commands that begin with `# NAME`."""
    blocks = re.findall(r"```sh\n(# (\w+)\n.*?)```", PAGE.read_text(), re.DOTALL)
    commands = {name: text for text, name in blocks}
    for name in names:
        # The PC of the page is here.
        script = commands[name].replace("IP:192.168.0.21", "IP:127.0.0.1")
        subprocess.run(["sh", "-e"], input=script, text=True, cwd=folder, check=True, capture_output=True)


def with_token(folder: Path) -> dict[str, str]:
    return {"SECRET": TOKEN}


def with_certificates(folder: Path) -> dict[str, str]:
    """What the template says: the lines of (a) go, those of (b) come."""
    template = (PAGE.parents[1] / "etc" / "proxy" / "comfyui-nginx.conf").read_text()
    lines = {line: "" for line in template.splitlines(keepends=True) if "# (a)" in line and not line.startswith("#")}
    return lines | {"#b ": "", "/etc/nginx/comfyui/ca.crt": str(folder / "ca.crt")}


@pytest.fixture
def pair(house: House) -> Pair:
    """All files of the page, in the configuration's folder; the PC's own."""
    run_commands_of_the_page(house.etc, "authority", "server", "client")
    return Pair(house.etc / "server.crt", house.etc / "server.key")


@pytest.fixture
async def pc(start_fake: StartFake) -> FakeComfyUI:
    return await start_fake("one")


def listed(house: House, port: int, *lines: str) -> None:
    house.write_backends(("pc-1", f"https://127.0.0.1:{port}"), pc_1="\n".join(('tls_ca = "ca.crt"', *lines)))


def bearer(token: str) -> str:
    return f'headers = {{ Authorization = "Bearer {token}" }}'


CERTIFICATE = 'tls_cert = "bridge.crt"\ntls_key = "bridge.key"'


async def test_a_job_with_a_token(house: House, pair: Pair, pc: FakeComfyUI) -> None:
    async with nginx_of_a_pc(house.folder / "pc", pc.port, pair, with_token(house.etc)) as nginx:
        listed(house, nginx.port, bearer(TOKEN))
        await house.start()
        await house.wait_up("pc-1")
        await job_with_a_file(house)
        assert not any("authorization" in {name.lower() for name in call.headers} for call in pc.calls)
        assert TOKEN not in nginx.logs()


@pytest.mark.parametrize("token", ["", "wrong", TOKEN.upper(), TOKEN + "0"])
async def test_without_the_token_nothing_comes_through(
    house: House, pair: Pair, pc: FakeComfyUI, token: str
) -> None:
    async with nginx_of_a_pc(house.folder / "pc", pc.port, pair, with_token(house.etc)) as nginx:
        listed(house, nginx.port, *[bearer(token)] if token else [])
        await house.start()
        text = await reason(house, "it answers /ws with HTTP status 401: it wants a login; give it as `headers`")
        assert str(nginx.port) not in text
        assert pc.calls == []


async def test_a_job_with_certificates_on_both_sides(house: House, pair: Pair, pc: FakeComfyUI) -> None:
    async with nginx_of_a_pc(house.folder / "pc", pc.port, pair, with_certificates(house.etc)) as nginx:
        listed(house, nginx.port, CERTIFICATE)
        await house.start()
        await house.wait_up("pc-1")
        await job_with_a_file(house)


@pytest.mark.parametrize("shown", ["nothing", "a stranger's", "a pc's", "expired"])
async def test_without_the_right_certificate_nothing_comes_through(
    house: House, pair: Pair, pc: FakeComfyUI, shown: str
) -> None:
    lines = [] if shown == "nothing" else [CERTIFICATE]
    if shown == "a stranger's":
        (house.folder / "stranger").mkdir()
        run_commands_of_the_page(house.folder / "stranger", "authority", "client")
        for name in ("bridge.crt", "bridge.key"):
            (house.folder / "stranger" / name).replace(house.etc / name)
    elif shown == "a pc's":  # signed by the right authority, for another purpose
        for kind in ("crt", "key"):
            (house.etc / f"bridge.{kind}").write_bytes((house.etc / f"server.{kind}").read_bytes())
    elif shown == "expired":
        ca = trustme.CA.from_pem((house.etc / "ca.crt").read_bytes(), (house.etc / "ca.key").read_bytes())
        now = datetime.now(UTC)
        over = ca.issue_cert("bridge", not_before=now - timedelta(days=9), not_after=now - timedelta(days=1))
        over.cert_chain_pems[0].write_to_path(str(house.etc / "bridge.crt"))
        over.private_key_pem.write_to_path(str(house.etc / "bridge.key"))
    async with nginx_of_a_pc(house.folder / "pc", pc.port, pair, with_certificates(house.etc)) as nginx:
        listed(house, nginx.port, *lines)
        await house.start()
        await reason(house, "it answers /ws with HTTP status 403: it wants a login; give it as `headers`")
        assert pc.calls == []


async def test_the_certificates_of_the_page_pass_the_strict_rules(pair: Pair, house: House, pc: FakeComfyUI) -> None:
    """RFC 5280 to the letter, as Python 3.13 has it for every context that is made for it."""
    async with nginx_of_a_pc(house.folder / "pc", pc.port, pair, with_certificates(house.etc)) as nginx:
        context = ssl.create_default_context(cafile=house.etc / "ca.crt")
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_cert_chain(house.etc / "bridge.crt", house.etc / "bridge.key")
        async with await trio.open_ssl_over_tcp_stream("127.0.0.1", nginx.port, ssl_context=context) as stream:
            with trio.fail_after(5):
                await stream.do_handshake()
                await stream.send_all(b"GET /queue HTTP/1.1\r\nHost: pc-1\r\nConnection: close\r\n\r\n")
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")


def test_the_page_and_the_templates_name_the_same_things() -> None:
    page = PAGE.read_text()
    for link in re.findall(r"`(etc/proxy/[\w.-]+|tests/e2e/\w+\.py)`", page):
        assert (PAGE.parents[1] / link).is_file(), link
