"""What one small request costs a client: CPU (process time) and wall time per request of httpx on Trio, the least
that h11 on Trio needs, bridged.comfy.hotpath, and aiohttp where it is installed, each over one keep-alive connection,
GET (about 50 bytes of JSON) and POST (a 400-byte body), one after the other, in rounds by turns in one run. The server
is a process of its own that answers every request with the same bytes (asyncio, no parsing to speak of), so that wall
time is the client's; --url measures against a real ComfyUI instead (GET /prompt, and POST /queue that deletes nothing).
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import ssl
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import h11
import httpx
import trio

from bench.common import machine, ms, process, table
from bridged.comfy.hotpath import HotPath

ANSWER = b'{"exec_info": {"queue_remaining": 0}}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n\r\n" % len(ANSWER)
BODY = json.dumps({"delete": [], "filler": "x" * 370}).encode()
JSON = {"Content-Type": "application/json"}

Call = Callable[[], Awaitable[bytes]]
Figures = dict[str, tuple[float, float]]
"""method -> (CPU s, wall s) of all requests"""


class _Responder(asyncio.Protocol):
    """One answer per request; a request's body comes with its head, or after it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, mark, body = self.buffer.partition(b"\r\n\r\n")
        length = len(BODY) if head.startswith(b"POST") else 0
        if mark and len(body) >= length:
            self.buffer = b""
            self.transport.write(HEAD + ANSWER)


async def respond() -> None:
    server = await asyncio.get_running_loop().create_server(_Responder, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def timed(get: Call, post: Call, count: int) -> Figures:
    figures = {}
    for name, call in (("GET", get), ("POST", post)):
        for _ in range(20):
            await call()
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(count):
            await call()
        figures[name] = (time.process_time() - cpu, time.perf_counter() - wall)
    return figures


async def with_httpx(url: str, count: int) -> Figures:
    async with httpx.AsyncClient(base_url=url, trust_env=False, verify=ssl.create_default_context()) as client:

        async def get() -> bytes:
            return (await client.get("/prompt")).content

        async def post() -> bytes:
            return (await client.post("/queue", content=BODY, headers=JSON)).content

        return await timed(get, post, count)


async def with_h11(url: str, count: int) -> Figures:
    """No pool, no stale check, no errors: what a client on h11 cannot do without."""
    host, _, port = url.removeprefix("http://").partition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        http = h11.Connection(h11.CLIENT)

        async def exchange(method: str, target: str, headers: dict[str, str], body: bytes) -> bytes:
            request = h11.Request(method=method, target=target, headers=[("Host", f"{host}:{port}"), *headers.items()])
            data = (http.send(request) or b"") + (http.send(h11.Data(data=body)) or b"" if body else b"")
            answer = b""
            with trio.fail_after(30):
                await stream.send_all(data + (http.send(h11.EndOfMessage()) or b""))
                while not isinstance(event := http.next_event(), h11.EndOfMessage):
                    if event is h11.NEED_DATA:
                        http.receive_data(bytes(await stream.receive_some(65536)))
                    elif isinstance(event, h11.Data):
                        answer += event.data
            http.start_next_cycle()
            return answer

        async def get() -> bytes:
            return await exchange("GET", "/prompt", {}, b"")

        async def post() -> bytes:
            return await exchange("POST", "/queue", {**JSON, "Content-Length": str(len(BODY))}, BODY)

        return await timed(get, post, count)


async def with_hotpath(url: str, count: int) -> Figures:
    hot = HotPath(url, {}, ssl.create_default_context())

    async def get() -> bytes:
        async with hot.get("/prompt") as (_, chunks):
            return b"".join([chunk async for chunk in chunks])

    async def post() -> bytes:
        return (await hot.post_json("/queue", BODY))[1]

    try:
        return await timed(get, post, count)
    finally:
        await hot.aclose()


async def with_aiohttp(url: str, count: int) -> Figures:
    aiohttp = importlib.import_module("aiohttp")
    async with aiohttp.ClientSession(url) as session:

        async def get() -> bytes:
            async with session.get("/prompt") as response:
                return bytes(await response.read())

        async def post() -> bytes:
            async with session.post("/queue", data=BODY, headers=JSON) as response:
                return bytes(await response.read())

        return await timed(get, post, count)


async def measure(args: argparse.Namespace) -> dict[str, list[Figures]]:
    runners: dict[str, Callable[[], Figures]] = {}
    async with AsyncExitStack() as stack:
        url = args.url
        if url is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            command = [sys.executable, "-m", "bench.http_clients", "--serve"]
            child = await stack.enter_async_context(process(command, {}, folder / "log"))
            assert child.stdout is not None
            url = f"http://127.0.0.1:{int(await trio.to_thread.run_sync(child.stdout.readline))}"
        # Each in an event loop of its own, in a thread that exists for it: nobody waits in somebody else's loop.
        runners["httpx on Trio"] = lambda: trio.run(with_httpx, url, args.count)
        runners["h11 on Trio"] = lambda: trio.run(with_h11, url, args.count)
        runners["bridged.comfy.hotpath"] = lambda: trio.run(with_hotpath, url, args.count)
        try:
            importlib.import_module("aiohttp")
            runners["aiohttp"] = lambda: asyncio.run(with_aiohttp(url, args.count))
        except ImportError:
            print("aiohttp is not installed: left out")
        results: dict[str, list[Figures]] = {name: [] for name in runners}
        for _ in range(args.rounds):
            for name, runner in runners.items():
                results[name].append(await trio.to_thread.run_sync(runner))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.http_clients", description=__doc__)
    parser.add_argument("--url", help="a ComfyUI to measure against")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=1000, help="requests per round, client and method")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        asyncio.run(respond())
        return
    results = trio.run(measure, args)
    print(f"{args.rounds} rounds of {args.count} requests; {machine()}")
    rows: list[list[str]] = []
    base: list[float] = []
    for name, rounds in results.items():
        per = [
            sum(figures[method][kind] for figures in rounds) / args.rounds / args.count
            for method in ("GET", "POST")
            for kind in (0, 1)
        ]
        base = base or per
        rows.append([name, *(f"{ms(value)} ({value / first:.2f})" for value, first in zip(per, base, strict=True))])
    table(["ms per request (ratio to httpx)", "GET CPU", "GET wall", "POST CPU", "POST wall"], rows)


if __name__ == "__main__":
    main()
