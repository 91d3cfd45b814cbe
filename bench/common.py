"""What the benchmarks share: processes under measurement, the graph they run, and figures for people.

Servers always run in processes of their own, so that the client's CPU is not theirs. Ports are free ones; the
environment variable BENCH_PORTS=FIRST-LAST limits them to a range.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import trio

from bench.lean import Http

ROOT = Path(__file__).resolve().parent.parent
ALIAS = "bench"
START_TIMEOUT, STOP_TIMEOUT = 30.0, 15.0
"""seconds for a process to be ready, and to end after SIGTERM before it is killed"""

PEER_HELP = "comfy-api-proxy's, e.g. 'comfy-api-proxy --comfyui {backend} --port {port}'"

_colors = itertools.count(int.from_bytes(os.urandom(2), "big") << 8)


def next_color() -> int:
    """A value of EmptyImage's `color` that this run has not used: nothing is ever answered from a cache."""
    return next(_colors) % (1 << 24)


def graph(color: int, *, width: int = 64, height: int = 64, size: int = 1, prefix: str = "bench") -> dict[str, Any]:
    """EmptyImage -> SaveImage. `size` is EmptyImage's batch_size; see bench.fake for what a fake makes of these."""
    empty = {"width": width, "height": height, "batch_size": size, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": empty},
        "2": {"class_type": "SaveImage", "inputs": {"filename_prefix": prefix, "images": ["1", 0]}},
    }


def values(color: int, *, width: int = 64, height: int = 64, size: int = 1, prefix: str = "bench") -> dict[str, Any]:
    """The same job as the body of /generate-based-workflow."""
    sizes = {"1/width": width, "1/height": height, "1/batch_size": size}
    return {"workflow": ALIAS, "1/color": color, **sizes, "2/filename_prefix": prefix}


# -- processes ---------------------------------------------------------------------------------------------------


def free_port() -> int:
    first, _, last = os.environ.get("BENCH_PORTS", "0-0").partition("-")
    for port in range(int(first), int(last) + 1):
        with socket.socket() as sock, suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))
            number: int = sock.getsockname()[1]
            return number
    raise SystemExit("BENCH_PORTS: all of them are taken")


class Server:
    """A process under measurement."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.process = process
        self.url = url

    @property
    def pid(self) -> int:
        return self.process.pid

    def cpu(self) -> float:
        """Seconds of CPU it has used, threads and children that it waited for included (10 ms steps)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def awake(server: Server | None, others: Iterable[Server]) -> None:
    """Stops the other processes where they are (SIGSTOP) and lets this one go on (SIGCONT): a service that follows a
    ComfyUI burdens it also while others use it, and nobody else's turn should pay for that."""
    for other in others:
        if other is not server:
            other.process.send_signal(signal.SIGSTOP)
    if server is not None:
        server.process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def process(command: Sequence[str], env: Mapping[str, str], log: Path) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A process that is ended with SIGTERM, after STOP_TIMEOUT killed. Its stderr goes to `log`."""
    with log.open("wb") as file:
        child = subprocess.Popen(  # noqa: ASYNC220 (a millisecond, off the clock)
            command, cwd=ROOT, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=file, stdin=subprocess.DEVNULL
        )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGCONT)  # it may be paused
            child.terminate()
        with trio.move_on_after(STOP_TIMEOUT, shield=True):
            while child.poll() is None:
                await trio.sleep(0.01)
        if child.poll() is None:
            child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


class House:
    """A configuration folder and a state folder for a daemon, which may be started in it again and again."""

    def __init__(self, folder: Path, python: Sequence[str]) -> None:
        self.folder = folder
        self.port = free_port()
        self.command = [*python, "serve", "--config", str(folder / "etc")]
        self.log = folder / "daemon.log"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def daemon(self, *, all_up: bool = True) -> AsyncIterator[Server]:
        """The daemon, once it answers and, with `all_up`, all of its backends are up."""
        env = {"HOST": "127.0.0.1", "PORT": str(self.port), "XDG_STATE_HOME": str(self.folder / "state")}
        env |= {"COMFYUI_SERVERS": "", "STATE_DIRECTORY": ""}
        async with process(self.command, env, self.log) as child:
            server = Server(child, self.url)
            with _telling(self.log):
                await _until_ready(server, all_up)
            yield server


BRIDGED = (sys.executable, "-m", "bridged")


@contextmanager
def house(
    backends: Sequence[str], *, settings: str = "", options: str = "", python: Sequence[str] = BRIDGED
) -> Iterator[House]:
    """`settings` is appended to bridged.toml, `options` to every backend. The alias `bench` runs `graph`. `python` is
    the command whose `serve` starts the daemon."""
    with tempfile.TemporaryDirectory(prefix="bridged-bench-") as name:
        folder = Path(name)
        (folder / "etc").mkdir()
        (folder / "workflows").mkdir()
        (folder / "etc/bridged.toml").write_text(settings)
        listed = (f'[[backend]]\nname = "pc-{i}"\nurl = "{url}"\n{options}\n' for i, url in enumerate(backends, 1))
        (folder / "etc/backends.toml").write_text("\n".join(listed))
        (folder / "etc/workflow_alias.json").write_text(json.dumps([{"alias": ALIAS, "fn": "bench.json"}]))
        workflow = graph(0)
        for node, inputs in (("1", "width,height,batch_size,color"), ("2", "filename_prefix")):
            workflow[node]["_meta"] = {"title": node, "apiinput": inputs}
        (folder / "workflows/bench.json").write_text(json.dumps(workflow))
        yield House(folder, python)


@asynccontextmanager
async def daemon(backends: Sequence[str], *, settings: str = "", options: str = "") -> AsyncIterator[Server]:
    """bridged over these backend URLs, ready: all of them are up (see `house`)."""
    with house(backends, settings=settings, options=options) as place:
        async with place.daemon() as server:
            yield server
            told = [line for line in place.log.read_text().splitlines() if " ERROR" in line or "Traceback" in line]
            if told:
                print(f"the daemon's log has {len(told)} errors, the first: {told[0]}", file=sys.stderr)


class _telling:
    """Shows a log when starting fails."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, Exception):
            print(self.log.read_text(), file=sys.stderr)


async def _until_ready(server: Server, all_up: bool) -> None:
    with trio.fail_after(START_TIMEOUT):
        while True:
            if server.process.poll() is not None:
                raise RuntimeError(f"it exited with {server.process.returncode}")
            with suppress(OSError):
                async with Http(server.url) as http:
                    status = await http.json("GET", "/status")
                if not all_up or all(backend["state"] == "up" for backend in status["backends"]):
                    return
            await trio.sleep(0.01)


@asynccontextmanager
async def fakes(count: int) -> AsyncIterator[list[Server]]:
    """`count` fake ComfyUIs (bench.fake), each in a process of its own."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bridged-bench-")))
        command = [sys.executable, "-m", "bench.fake"]
        logs = [folder / f"{number}.log" for number in range(count)]
        children = [await stack.enter_async_context(process(command, {}, log)) for log in logs]
        servers = []
        for child, log in zip(children, logs, strict=True):
            assert child.stdout is not None
            with _telling(log), trio.fail_after(START_TIMEOUT):
                line = await trio.to_thread.run_sync(child.stdout.readline)
                servers.append(Server(child, json.loads(line)["url"]))
        yield servers


@asynccontextmanager
async def peer(command: str | None, backend: str) -> AsyncIterator[Server | None]:
    """comfy-api-proxy in front of `backend`, or None without a command. In the command, {backend} and {port} stand
    for the backend's URL and the port to serve on."""
    if command is None:
        yield None
        return
    port = free_port()
    words = [word.format(backend=backend, port=port) for word in command.split()]
    with tempfile.TemporaryDirectory(prefix="bridged-bench-") as name:
        log = Path(name) / "peer.log"
        async with process(words, {}, log) as child:
            server = Server(child, f"http://127.0.0.1:{port}")
            with _telling(log), trio.fail_after(START_TIMEOUT):
                while child.poll() is None:
                    with suppress(OSError):
                        async with Http(server.url) as http:
                            await http.json("GET", "/api/v2/health")
                        break
                    await trio.sleep(0.05)
                else:
                    raise RuntimeError(f"it exited with {child.returncode}")
            yield server


async def exit_time(server: Server, limit: float) -> tuple[float, int | None]:
    """Sends SIGTERM; seconds until it has exited, and its exit code (None: not within `limit` seconds)."""
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    with trio.move_on_after(limit):
        while server.process.poll() is None:
            await trio.sleep(0.002)
    return time.monotonic() - began, server.process.returncode


# -- figures -----------------------------------------------------------------------------------------------------


def percentile(samples: Iterable[float], percent: float) -> float:
    """The nearest-rank percentile."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns for people; the first is left-aligned, the others right-aligned."""
    lines = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        print("  ".join([line[0].ljust(widths[0]), *cells]), flush=True)


def machine() -> str:
    model = "unknown CPU"
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return f"{os.cpu_count()} cores, {model}, Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}"
