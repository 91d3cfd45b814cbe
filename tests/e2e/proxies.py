"""Real nginx and Caddy on the templates of etc/proxy, as an ordinary user could run them: files in a folder of the
test's, free ports of 127.0.0.1. What is changed in a template is what its first lines tell operators to change."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.e2e.authority import Pair

TEMPLATES = Path(__file__).parents[2] / "etc" / "proxy"

NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/log/main.log;
events {{ worker_connections 512; }}
http {{
    access_log {folder}/log/main.access.log;
    client_body_temp_path {folder}/temp/body;
    proxy_temp_path {folder}/temp/proxy;
    fastcgi_temp_path {folder}/temp/fastcgi;
    uwsgi_temp_path {folder}/temp/uwsgi;
    scgi_temp_path {folder}/temp/scgi;
    include {folder}/site.conf;
}}
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def edited(template: str, changes: dict[str, str]) -> str:
    text = (TEMPLATES / template).read_text()
    for old, new in changes.items():
        assert old in text, f"{template} has no {old!r}"
        text = text.replace(old, new)
    return text


class Proxy:
    """One that runs. `logs` is everything it wrote about anything."""

    def __init__(self, name: str, folder: Path, port: int) -> None:
        self.name = name
        self.folder = folder
        self.port = port
        self.url = f"https://127.0.0.1:{port}"
        self.process: trio.Process

    def logs(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted((self.folder / "log").iterdir()))

    def temporary(self) -> list[Path]:
        """Files that bodies were collected in."""
        return [path for path in (self.folder / "temp").rglob("*") if path.is_file()]


@asynccontextmanager
async def nginx(
    folder: Path, service: int, pair: Pair, changes: dict[str, str] | None = None
) -> AsyncIterator[Proxy]:
    """nginx.conf in front of the service on that port."""
    plain, port = free_port(), free_port()
    template = {
        "    listen [::]:80;\n": "",
        "    listen [::]:443 ssl;\n": "",
        "listen 80;": f"listen 127.0.0.1:{plain};",
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "/etc/letsencrypt/live/bridge.example.org/fullchain.pem": str(pair.cert),
        "/etc/letsencrypt/live/bridge.example.org/privkey.pem": str(pair.key),
        "127.0.0.1:8000": f"127.0.0.1:{service}",
        "/var/log/nginx": f"{folder}/log",
        "bridge.example.org": "127.0.0.1",
    }
    async with _nginx(folder, port, edited("nginx.conf", template | (changes or {}))) as proxy:
        yield proxy


@asynccontextmanager
async def nginx_of_a_pc(folder: Path, comfyui: int, pair: Pair, changes: dict[str, str]) -> AsyncIterator[Proxy]:
    """comfyui-nginx.conf in front of the ComfyUI on that port; `changes` choose (a) or (b)."""
    port = free_port()
    template = {
        "listen 8443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "/etc/nginx/comfyui/server.crt": str(pair.cert),
        "/etc/nginx/comfyui/server.key": str(pair.key),
        "127.0.0.1:8188": f"127.0.0.1:{comfyui}",
    }
    async with _nginx(folder, port, edited("comfyui-nginx.conf", template | changes)) as proxy:
        yield proxy


@asynccontextmanager
async def _nginx(folder: Path, port: int, site: str) -> AsyncIterator[Proxy]:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("nginx is not installed here: apt-get install nginx")
    for name in ("log", "temp"):
        (folder / name).mkdir(parents=True)
    (folder / "site.conf").write_text(site)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "log" / "main.log")]
    async with _running(Proxy("nginx", folder, port), command, {}) as proxy:
        yield proxy


@asynccontextmanager
async def caddy(
    folder: Path, service: int, pair: Pair, changes: dict[str, str] | None = None
) -> AsyncIterator[Proxy]:
    """Caddyfile in front of the service on that port."""
    program = shutil.which("caddy")
    if program is None:
        pytest.skip("caddy is not installed here: apt-get install caddy")
    for name in ("log", "temp"):
        (folder / name).mkdir(parents=True)
    port = free_port()
    mine = f"\tadmin off\n\tauto_https disable_redirects\n\tdefault_bind 127.0.0.1\n\thttp_port {free_port()}\n"
    template = {
        "{\n\t# Errors": f"{{\n{mine}\t# Errors",
        "\nbridge.example.org {": f"\nhttps://127.0.0.1:{port} {{",
        "# tls /etc/ssl/bridge.crt /etc/ssl/bridge.key": f"tls {pair.cert} {pair.key}",
        "127.0.0.1:8000": f"127.0.0.1:{service}",
        "/var/log/caddy": f"{folder}/log",
    }
    (folder / "Caddyfile").write_text(edited("Caddyfile", template | (changes or {})))
    homes = {"XDG_DATA_HOME": str(folder / "data"), "XDG_CONFIG_HOME": str(folder / "config"), "HOME": str(folder)}
    command = [program, "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    async with _running(Proxy("caddy", folder, port), command, homes) as proxy:
        yield proxy


@asynccontextmanager
async def _running(proxy: Proxy, command: list[str], more: dict[str, str]) -> AsyncIterator[Proxy]:
    """Once it accepts connections, until the end of the block."""
    with (proxy.folder / "log" / "said.log").open("wb") as said:
        proxy.process = await trio.lowlevel.open_process(
            command,
            env={"PATH": os.environ["PATH"]} | more,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
    try:
        with trio.fail_after(20):
            while True:
                assert proxy.process.poll() is None, proxy.logs()
                try:
                    await (await trio.open_tcp_stream("127.0.0.1", proxy.port)).aclose()
                    break
                except OSError:
                    await trio.sleep(0.02)
        yield proxy
    finally:
        if proxy.process.poll() is None:
            proxy.process.kill()
        with trio.move_on_after(5, shield=True):
            await proxy.process.wait()


PROXIES = {"nginx": nginx, "caddy": caddy}

Talk = Callable[[str, bytes, trio.SocketStream], Awaitable[None]]


class Upstream:
    """A service that is only its requests: `heads` has the headers of each, one per line, and
    `talk(method, what came of the body, connection)` answers it."""

    def __init__(self, talk: Talk) -> None:
        self.heads: list[list[str]] = []
        self.port = 0
        self._talk = talk

    async def serve(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, self._converse, 0, host="127.0.0.1"))
            self.port = listener.socket.getsockname()[1]
            task_status.started(self.port)

    async def _converse(self, stream: trio.SocketStream) -> None:
        data = b""
        try:
            while b"\r\n\r\n" not in data:
                if not (chunk := await stream.receive_some()):
                    return
                data += chunk
            head, _, body = data.partition(b"\r\n\r\n")
            request, *headers = head.decode().split("\r\n")
            self.heads.append(headers)
            await self._talk(request.split()[0], body, stream)
        except trio.BrokenResourceError:
            pass
