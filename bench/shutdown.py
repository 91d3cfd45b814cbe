"""How long the daemon takes to exit after SIGTERM, against its configured budget, while clients hold on to it in
the ways that have held services up: a WebSocket client that stopped reading (small SO_RCVBUF; it pinged until the
daemon's send queue was full and the daemon took nothing more), a download of a large result that stopped, an upload
that stopped, idle keep-alive connections, a long poll; and all of these together. Each variant has a daemon of its
own with a job running on a fake ComfyUI (a process of its own), which must be left alone: calls that stop it are
counted. Prints the seconds to exit against the budget; the bound is the same stop with nobody connected.
"""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import trio

from bench.common import Server, daemon, exit_time, fakes, machine, next_color, table, values
from bench.interrupt import asked, named, submissions, submitted, until
from bench.lean import Http, WebSocket, address

HOLD_JOB = 16_000
"""ms: the running job outlasts every stop"""

Variant = Callable[["Holders"], Awaitable[None]]


class Holders:
    """Clients of one daemon. Connections stay open until the variant is over."""

    def __init__(self, bridged: Server, large: int) -> None:
        self.bridged = bridged
        self.large = large
        self.kept: list[object] = []
        self.notes: list[str] = []

    async def nobody(self) -> None:
        """The bound."""

    async def running_job(self) -> None:
        """A WebSocket client with a job that has begun; it goes on reading nothing, and has nothing to miss."""
        _, socket = await submitted(self.bridged, next_color(), HOLD_JOB, 100)
        await until(socket, "progress")
        self.kept.append(socket)

    async def stalled_websocket(self) -> None:
        socket = await WebSocket.connect(self.bridged.url, f"/ws?clientId={uuid.uuid4().hex}", receive_buffer=2048)
        self.kept.append(socket)
        pings = 0
        with trio.move_on_after(20):
            while True:
                # Once the daemon cannot send its pongs it reads no more pings, and then neither can we send.
                with trio.move_on_after(1) as patience:
                    for _ in range(100):
                        await socket.ping(b"x" * 120)
                        pings += 1
                if patience.cancelled_caught:
                    self.notes.append(f"it stalled after {pings} pings; {queued(socket)} bytes wait to be sent to it")
                    return
        self.notes.append("it could not be made to stall")

    async def stalled_download(self) -> None:
        client = uuid.uuid4().hex
        async with Http(self.bridged.url) as http:
            body = values(next_color(), width=1, height=1, size=self.large)
            await http.json("POST", f"/generate-based-workflow?clientId={client}", body)
            with trio.fail_after(60):
                while (await http.json("GET", f"/execution-info?clientId={client}"))["state"] != "succeeded":
                    await trio.sleep(0.05)
        stream = await self._open()
        await stream.send_all(f"GET /history?clientId={client} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
        await stream.receive_some(1000)
        await trio.sleep(0.5)
        self.kept.append(stream)

    async def stalled_upload(self) -> None:
        stream = await self._open()
        head = f"POST /upload?clientId={uuid.uuid4().hex} HTTP/1.1\r\nHost: bench\r\nContent-Length: 50000000\r\n"
        part = '--x\r\nContent-Disposition: form-data; name="a"; filename="a.png"\r\n\r\n'
        await stream.send_all(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n{part}".encode())
        await stream.send_all(bytes(1_000_000))
        self.kept.append(stream)

    async def idle_connections(self) -> None:
        for _ in range(20):
            http = Http(self.bridged.url)
            await http.connect()
            await http.json("GET", "/generation-count")
            self.kept.append(http)

    async def long_poll(self) -> None:
        client = uuid.uuid4().hex
        async with Http(self.bridged.url) as http:
            body = values(next_color(), width=HOLD_JOB, height=100)
            await http.json("POST", f"/generate-based-workflow?clientId={client}", body)
        stream = await self._open()
        await stream.send_all(f"GET /history?clientId={client}&wait=300 HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
        await trio.sleep(0.2)
        self.kept.append(stream)

    async def _open(self) -> trio.SocketStream:
        stream = await trio.open_tcp_stream(*address(self.bridged.url))
        self.kept.append(stream)
        return stream


def queued(socket: WebSocket) -> int:
    """Bytes in the daemon's send queue for this connection (/proc/net/tcp), -1 where that is not to be found."""
    sock = socket.wire.stream.socket
    ours, theirs = (f":{name[1]:04X}" for name in (sock.getsockname(), sock.getpeername()))
    with suppress(OSError):
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, remote, _, queues, *_ = line.split()
            if local.endswith(theirs) and remote.endswith(ours):
                return int(queues.partition(":")[0], 16)
    return -1


VARIANTS: dict[str, list[Variant]] = {
    "nobody connected": [Holders.nobody],
    "a running job": [Holders.running_job],
    "WebSocket not reading, running job": [Holders.stalled_websocket, Holders.running_job],
    "stalled download, running job": [Holders.stalled_download, Holders.running_job],
    "stalled upload, running job": [Holders.stalled_upload, Holders.running_job],
    "20 idle keep-alive connections": [Holders.idle_connections, Holders.running_job],
    "long poll of a running job": [Holders.long_poll],
}
VARIANTS["all of these"] = [
    Holders.stalled_download,  # first: its job has to end before the long ones begin
    Holders.stalled_websocket,
    Holders.stalled_upload,
    Holders.idle_connections,
    Holders.running_job,
    Holders.long_poll,
]


async def one(variant: list[Variant], args: argparse.Namespace) -> tuple[float, int | None, int, list[str]]:
    """Seconds to exit, exit code, calls that would stop a prompt, notes."""
    settings = f"[server]\nshutdown_budget = {args.budget}\n"
    async with fakes(1) as pcs, daemon([pcs[0].url], settings=settings) as bridged:
        holders = Holders(bridged, args.large)
        for hold in variant:
            await hold(holders)
        took, code = await exit_time(bridged, args.budget + 30)
        await trio.sleep(0.1)
        (calls,) = await asked(pcs, "/__calls")
        posted = {prompt for prompts in submissions(calls).values() for prompt in prompts}
        # Of prompts that exist: the daemon may ask for the cancel of one that cannot, to see whether that is known.
        stops = sum(len({"(any)", *posted} & set(named(call))) for call in calls if call["route"] != "/history")
        return took, code, stops, holders.notes


async def measure(args: argparse.Namespace) -> None:
    rows: list[list[object]] = []
    notes: list[str] = []
    for name, variant in VARIANTS.items():
        if args.only not in name:
            continue
        results = [await one(variant, args) for _ in range(args.repeat)]
        times = [took for took, *_ in results]
        codes = sorted({str(code) for _, code, *_ in results})
        stops = sum(stops for *_, stops, _ in results)
        within = "yes" if max(times) <= args.budget else "NO"
        span = [f"{min(times):.2f}", f"{max(times):.2f}"]
        share = f"{max(times) / args.budget:.2f}"
        rows.append([name, *span, f"{args.budget:g}", within, share, "/".join(codes), stops])
        notes += [f"{name}: {note}" for note in results[-1][3]]
    print(f"{args.repeat} stops of each; {machine()}")
    head = ["seconds from SIGTERM to exit", "min", "max", "budget", "within", "of budget", "exit code", "jobs stopped"]
    table(head, rows)
    for note in notes:
        print(note)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.shutdown", description=__doc__)
    parser.add_argument("--budget", type=float, default=6.0, help="seconds ([server] shutdown_budget)")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--large", type=int, default=64, help="MB of the result whose download stalls")
    parser.add_argument("--only", default="", metavar="TEXT", help="just the variants with this in their name")
    trio.run(measure, parser.parse_args())


if __name__ == "__main__":
    main()
