"""What the bridge adds to a job: sequential trivial jobs (EmptyImage 64x64 of a new colour each time, SaveImage)
sent to one ComfyUI directly (POST /prompt, WebSocket events, GET /view), through bridged over REST (submit,
long poll) and as a WebSocket client, and, with --peer-command, through comfy-api-proxy; from before the
submission until the output is downloaded. All in one run, in rounds that give each a turn, with the same client
in a process of its own: a lean one that costs next to nothing (bench.lean), or with --client ordinary what
clients are usually written with (bench.ordinary), whose own cost is in every figure, direct ones too. While it
is not their turn the services are stopped (SIGSTOP), so that none burdens the ComfyUI in another's turn;
"direct, bridged attached" is direct while the daemon, idle itself, follows that ComfyUI: what its owner notices
of it. Prints per job p50, p99, mean and max, what was added to direct, the ratios (of p50, of mean, and the
spread of the rounds' p50 ratios), and the CPU that the service between client and ComfyUI took.
"""

from __future__ import annotations

import argparse
import time
import uuid
from contextlib import AsyncExitStack
from statistics import fmean

import trio

from bench import lean, ordinary
from bench.common import PEER_HELP, Server, awake, daemon, fakes, machine, ms, next_color, peer, percentile, table
from bench.contenders import ApiProxy, BridgedRest, BridgedRun, BridgedWs, Contender, Direct, opened


class Lane:
    """One contender's samples (s per job, by round) and the process whose CPU it costs."""

    def __init__(self, contender: Contender, server: Server | None, attached: Server | None = None) -> None:
        self.contender = contender
        self.server = server
        self.attached = server or attached
        """the one process that is awake in its turns"""
        self.rounds: list[list[float]] = []
        self.cpu = 0.0

    @property
    def samples(self) -> list[float]:
        return [sample for samples in self.rounds for sample in samples]

    async def turn(self, jobs: int, prefix: str, *, count: bool = True) -> None:
        samples = []
        cpu = self.server.cpu() if self.server else 0.0
        for _ in range(jobs):
            began = time.perf_counter()
            await self.contender.job(next_color(), prefix=prefix)
            samples.append(time.perf_counter() - began)
        if count:
            self.rounds.append(samples)
            self.cpu += (self.server.cpu() - cpu) if self.server else 0.0


async def measure(args: argparse.Namespace) -> None:
    run = f"bench-{uuid.uuid4().hex[:8]}"
    async with AsyncExitStack() as stack:
        backend = args.backend or (await stack.enter_async_context(fakes(1)))[0].url
        bridged = await stack.enter_async_context(daemon([backend]))
        proxy = await stack.enter_async_context(peer(args.peer_command, backend))
        services = [bridged, *([proxy] if proxy else [])]
        client = ordinary if args.client == "ordinary" else lean
        lanes = [
            Lane(Direct(backend, client=client), None),
            Lane(Direct(backend, name="direct, bridged attached", client=client), None, bridged),
        ]
        lanes += [Lane(each(bridged.url, client=client), bridged) for each in (BridgedRun, BridgedRest, BridgedWs)]
        if proxy is not None:
            lanes.append(Lane(ApiProxy(proxy.url, pause=args.peer_poll, client=client), proxy))
        for lane in lanes:
            await stack.enter_async_context(opened(lane.contender))
            await lane.turn(args.jobs, f"{run}/warm", count=False)
        for number in range(args.rounds):
            # A folder per turn: ComfyUI lists it for every file it saves. The order rotates: the folder's first
            # turn, and whatever else runs on the machine, favours nobody.
            for lane in lanes[number % len(lanes) :] + lanes[: number % len(lanes)]:
                awake(lane.attached, services)
                await trio.sleep(args.settle)
                await lane.turn(2, f"{run}/settle-{number}", count=False)
                await lane.turn(args.jobs, f"{run}/{number}-{lanes.index(lane)}")
    kind = "ComfyUI" if args.backend else "fake ComfyUI"
    print(f"{args.rounds} rounds of {args.jobs} jobs each; one {kind}; {args.client} client; {machine()}")
    report(lanes)


def report(lanes: list[Lane]) -> None:
    base = lanes[0]
    rows = []
    base50, base99 = percentile(base.samples, 50), percentile(base.samples, 99)
    for lane in lanes:
        p50, p99 = percentile(lane.samples, 50), percentile(lane.samples, 99)
        row = [lane.contender.name, ms(p50), ms(p99), ms(fmean(lane.samples)), ms(max(lane.samples))]
        row += [f"{(p50 - base50) * 1000:+.2f}", f"{(p99 - base99) * 1000:+.2f}", f"{p50 / base50:.2f}"]
        row += [f"{fmean(lane.samples) / fmean(base.samples):.2f}"]
        if lane.server is None:
            rows.append([*row, "", ""])
            continue
        pairs = zip(lane.rounds, base.rounds, strict=True)
        ratios = [percentile(mine, 50) / percentile(theirs, 50) for mine, theirs in pairs]
        rows.append([*row, f"{min(ratios):.2f}-{max(ratios):.2f}", ms(lane.cpu / len(lane.samples))])
    head = ["ms per job", "p50", "p99", "mean", "max", "added p50", "added p99", "x p50", "x mean", "rounds' x", "CPU"]
    table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.overhead", description=__doc__)
    parser.add_argument("--backend", metavar="URL", help="a ComfyUI; without it a fake one (whose jobs take 64 ms)")
    parser.add_argument("--client", choices=["lean", "ordinary"], default="lean")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=30, help="per round and contender")
    parser.add_argument(
        "--settle", type=float, default=0.3, help="seconds before a turn, for what was stopped to catch up"
    )
    parser.add_argument("--peer-command", metavar="COMMAND", help=PEER_HELP)
    parser.add_argument("--peer-poll", type=float, default=0.002, help="seconds between two polls of the peer")
    trio.run(measure, parser.parse_args())


if __name__ == "__main__":
    main()
