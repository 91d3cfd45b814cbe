"""What checking files costs: uploads through the daemon, against the same bytes through a plain nginx that only proxies
them to a server which throws them away. MB/s and ratios of one run; the order of the turns rotates. nginx must be
installed.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import shutil
import socket
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import trio
from PIL import Image

from bench.common import START_TIMEOUT, Server, daemon, free_port, machine, process, table

BOUNDARY = "-----bench"
NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ }}
http {{
    access_log off;
    client_max_body_size 0;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass {sink}; proxy_http_version 1.1; proxy_request_buffering off; }}
    }}
}}
"""


def wav(size: int) -> bytes:
    rest = size - 44
    head = b"RIFF" + struct.pack("<I", rest + 36) + b"WAVEfmt "
    return head + struct.pack("<IHHIIHH", 16, 1, 2, 44100, 176400, 4, 16) + b"data" + struct.pack("<I", rest) + (
        random.randbytes(rest)
    )


def png(side: int) -> bytes:
    """Noise, hardly compressed: its size is about 3 * side * side bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + random.randbytes(3 * side) for _ in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


def photo(width: int, height: int, kind: str) -> bytes:
    """Something that compresses as pictures do."""
    small = Image.frombytes("RGB", (width // 16, height // 16), random.randbytes(3 * (width // 16) * (height // 16)))
    file = io.BytesIO()
    small.resize((width, height), Image.Resampling.BICUBIC).save(file, kind)
    return file.getvalue()


def files() -> dict[str, tuple[str, bytes, int]]:
    """name -> (filename, content, how often per turn)"""
    return {
        "WAV, 100 MB": ("a.wav", wav(99_900_000), 1),
        "PNG of noise, 96 MB": ("a.png", png(5650), 1),
        "JPEG, 12 megapixels": ("a.jpg", photo(4000, 3000, "JPEG"), 10),
        "PNG, 1024 x 1024": ("a.png", photo(1024, 1024, "PNG"), 20),
        "PNG, 64 x 64": ("a.png", photo(64, 64, "PNG"), 200),
    }


def upload(url: str, filename: str, content: bytes, times: int) -> float:
    """Seconds for so many uploads, one after another, each on a connection of its own. Blocking."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="f"; filename="{filename}"\r\n\r\n'.encode()
    end = f"\r\n--{BOUNDARY}--\r\n".encode()
    length = len(head) + len(content) + len(end)
    request = (
        f"POST /upload?clientId=bench HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()
    parts = urlsplit(url)
    began = time.perf_counter()
    for _ in range(times):
        with socket.create_connection((parts.hostname or "", parts.port or 80)) as sock:
            sock.sendall(request + head)
            sock.sendall(content)
            sock.sendall(end)
            answer = b""
            while data := sock.recv(65536):
                answer += data
        if b" 200 " not in answer[:20]:
            raise RuntimeError(answer[:500].decode(errors="replace"))
    return time.perf_counter() - began


@asynccontextmanager
async def proxied() -> AsyncIterator[Server]:
    """nginx in front of the sink."""
    with tempfile.TemporaryDirectory(prefix="bridged-bench-") as name:
        folder = Path(name)
        async with process([sys.executable, "-m", "bench.sink"], {}, folder / "sink.log") as sink:
            assert sink.stdout is not None
            url = json.loads(await trio.to_thread.run_sync(sink.stdout.readline))["url"]
            port = free_port()
            (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, sink=url))
            command = [shutil.which("nginx") or "nginx", "-p", name, "-c", str(folder / "nginx.conf")]
            async with process(command, {}, folder / "nginx.log") as child:
                with trio.fail_after(START_TIMEOUT):
                    while True:
                        with suppress(OSError):
                            await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
                            break
                        await trio.sleep(0.01)
                yield Server(child, f"http://127.0.0.1:{port}")


async def measure(args: argparse.Namespace) -> None:
    rows = []
    settings = "[limits]\nuploads_per_key = 1e6\n[files]\nupload_max_size = 120\nupload_ttl = 1\n"
    async with daemon([], settings=settings) as service, proxied() as nginx:
        for name, (filename, content, times) in files().items():
            took: dict[str, list[float]] = {"bridged": [], "nginx": []}
            cpu = 0.0
            for turn in range(args.rounds):
                servers = [("bridged", service), ("nginx", nginx)]
                for who, server in servers if turn % 2 else servers[::-1]:
                    before = service.cpu()
                    took[who].append(await trio.to_thread.run_sync(upload, server.url, filename, content, times))
                    cpu += service.cpu() - before if who == "bridged" else 0.0
            size = len(content) * times / 1e6
            ours, peer = median(took["bridged"]), median(took["nginx"])
            each = cpu / args.rounds / times * 1000
            rates = f"{size / ours:.0f}", f"{size / peer:.0f}", f"{peer / ours:.2f}"
            times_each = f"{ours / times * 1000:.1f}", f"{peer / times * 1000:.1f}", f"{each:.1f}"
            rows.append((name, f"{len(content) / 1e6:.3f}", *rates, *times_each))
    print(f"{args.rounds} rounds; {machine()}")
    head = ["upload", "MB", "bridged MB/s", "nginx MB/s", "x nginx", "ms each", "nginx ms each", "CPU ms each"]
    table(head, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    trio.run(measure, parser.parse_args())
