"""Jobs per second. Part 1: `--clients` concurrent clients (16) that each run one trivial job after another on one
ComfyUI: directly, through bridged (REST, WebSocket) and, with --peer-command, through comfy-api-proxy, in rounds by
turns in one run; services whose turn it is not are stopped (SIGSTOP). Part 2: 64 clients on bridged over 8 fake
ComfyUIs (processes of their own, jobs of a few ms), against the same clients spread evenly over the same fakes
directly: jobs/s, and CPU per job (from /proc/PID/stat) of the daemon, of the fakes and of the clients' process.
With few cores the three compete, and CPU per job is the figure that lasts.
"""

from __future__ import annotations

import argparse
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

import trio

from bench.common import PEER_HELP, Server, awake, daemon, fakes, machine, ms, next_color, peer, percentile, table
from bench.contenders import ApiProxy, BridgedRest, BridgedRun, BridgedWs, Contender, Direct, opened


class Crowd:
    """Clients of one kind. `servers`: the processes whose CPU is theirs."""

    def __init__(self, name: str, make: Callable[[int], Contender], servers: Sequence[Server]) -> None:
        self.name = name
        self.make = make
        self.servers = servers
        self.seconds = self.cpu = self.client_cpu = 0.0
        self.rates: list[float] = []
        self.latencies: list[float] = []

    async def turn(self, clients: int, jobs: int, prefix: str, width: int, height: int, *, count: bool = True) -> None:
        """`jobs` jobs in all, taken one by one by whichever client is free."""
        left = iter(range(jobs))
        latencies: list[float] = []

        async def one(contender: Contender, ready: trio.Event, go: trio.Event) -> None:
            async with opened(contender):
                ready.set()
                await go.wait()
                for _ in left:
                    began = time.perf_counter()
                    await contender.job(next_color(), prefix=prefix, width=width, height=height)
                    latencies.append(time.perf_counter() - began)
                done.append(time.perf_counter())

        go, readies, done = trio.Event(), [trio.Event() for _ in range(clients)], list[float]()
        async with trio.open_nursery() as nursery:
            for number, ready in enumerate(readies):
                nursery.start_soon(one, self.make(number), ready, go)
            for ready in readies:
                await ready.wait()
            cpu, mine, began = sum(server.cpu() for server in self.servers), time.process_time(), time.perf_counter()
            go.set()
        if count:
            seconds = max(done) - began
            self.rates.append(jobs / seconds)
            self.seconds += seconds
            self.latencies += latencies
            self.cpu += sum(server.cpu() for server in self.servers) - cpu
            self.client_cpu += time.process_time() - mine


def report(crowds: Sequence[Crowd], fakes_cpu: Sequence[float] | None = None) -> None:
    base = crowds[0]
    rows = []
    for number, crowd in enumerate(crowds):
        jobs = len(crowd.latencies)
        rate = jobs / crowd.seconds
        ratio = f"{rate / (len(base.latencies) / base.seconds):.2f}"
        spread = f"{min(crowd.rates):.0f}-{max(crowd.rates):.0f}"
        latency = f"{ms(percentile(crowd.latencies, 50))} / {ms(percentile(crowd.latencies, 99))}"
        row = [crowd.name, f"{rate:.1f}", spread, ratio, latency]
        row += [ms(crowd.cpu / jobs) if crowd.servers else "", ms(crowd.client_cpu / jobs)]
        rows.append([*row, ms(fakes_cpu[number] / jobs)] if fakes_cpu else row)
    head = ["", "jobs/s", "rounds", "x direct", "ms p50 / p99", "service CPU ms/job", "client CPU"]
    table([*head, "backends' CPU"] if fakes_cpu else head, rows)


async def one_backend(args: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        backend = args.backend or (await stack.enter_async_context(fakes(1)))[0].url
        bridged = await stack.enter_async_context(daemon([backend]))
        proxy = await stack.enter_async_context(peer(args.peer_command, backend))
        crowds = [
            Crowd("direct", lambda _: Direct(backend), []),
            Crowd("bridged /run", lambda _: BridgedRun(bridged.url), [bridged]),
            Crowd("bridged REST", lambda _: BridgedRest(bridged.url), [bridged]),
            Crowd("bridged WS", lambda _: BridgedWs(bridged.url), [bridged]),
        ]
        if proxy is not None:
            url = proxy.url
            crowds.append(Crowd("comfy-api-proxy", lambda _: ApiProxy(url, pause=args.peer_poll), [proxy]))
        run = f"bench-{uuid.uuid4().hex[:8]}"
        services = [bridged, *([proxy] if proxy else [])]
        size = 64 if args.backend else 1
        for number in range(args.rounds):
            for crowd in crowds[number % len(crowds) :] + crowds[: number % len(crowds)]:
                awake(crowd.servers[0] if crowd.servers else None, services)
                await trio.sleep(0.3)
                prefix = f"{run}/{number}-{crowds.index(crowd)}"
                await crowd.turn(args.clients, args.clients, f"{run}/warm-{number}", size, size, count=False)
                await crowd.turn(args.clients, args.jobs, prefix, size, size)
    kind = "ComfyUI" if args.backend else "fake ComfyUI"
    print(f"{args.clients} clients, one {kind}, {args.rounds} rounds of {args.jobs} jobs; {machine()}")
    report(crowds)


async def many_backends(args: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        pcs = await stack.enter_async_context(fakes(args.fakes))
        bridged = await stack.enter_async_context(daemon([pc.url for pc in pcs]))
        crowds = [
            Crowd("direct", lambda number: Direct(pcs[number % len(pcs)].url), []),
            Crowd("bridged /run", lambda _: BridgedRun(bridged.url), [bridged]),
            Crowd("bridged REST", lambda _: BridgedRest(bridged.url), [bridged]),
            Crowd("bridged WS", lambda _: BridgedWs(bridged.url), [bridged]),
        ]
        spent = [0.0] * len(crowds)
        for crowd in crowds:
            await crowd.turn(args.many_clients, args.many_clients, "warm", args.duration, 1, count=False)
        for _ in range(args.rounds):
            for number, crowd in enumerate(crowds):
                before = sum(pc.cpu() for pc in pcs)
                await crowd.turn(args.many_clients, args.many_jobs, "bench", args.duration, 1)
                spent[number] += sum(pc.cpu() for pc in pcs) - before
    jobs = f"{args.rounds} rounds of {args.many_jobs} jobs of {args.duration} ms"
    print(f"{args.many_clients} clients, {args.fakes} fake ComfyUIs, {jobs}; {machine()}")
    report(crowds, spent)


async def measure(args: argparse.Namespace) -> None:
    if args.part in ("one", "both"):
        await one_backend(args)
    if args.part in ("many", "both"):
        await many_backends(args)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.throughput", description=__doc__)
    parser.add_argument("--part", choices=["one", "many", "both"], default="both")
    parser.add_argument("--backend", metavar="URL", help="a ComfyUI for part 1; without it a fake one (jobs of 1 ms)")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--jobs", type=int, default=160, help="per round and contender in part 1")
    parser.add_argument("--peer-command", metavar="COMMAND", help=PEER_HELP)
    parser.add_argument("--peer-poll", type=float, default=0.05, help="seconds between two polls of one client")
    parser.add_argument("--fakes", type=int, default=8)
    parser.add_argument("--many-clients", type=int, default=64)
    parser.add_argument("--many-jobs", type=int, default=640, help="per round and contender in part 2")
    parser.add_argument("--duration", type=int, default=5, help="ms of one job on a fake, its own overhead aside")
    trio.run(measure, parser.parse_args())


if __name__ == "__main__":
    main()
