"""What the ledger costs: submissions acknowledged per second, durable against the death of the process, against loss of
power, and with no ledger at all (the same daemon whose commits do nothing); and how long a start takes that recovers
10,000 queued jobs, against the start of an empty one. The one backend is a closed port: nothing runs, all is queued.
Prints rates and ratios of one run; the order of the turns rotates.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from statistics import median

import trio

from bench.common import ALIAS, BRIDGED, House, Server, free_port, house, machine, table
from bench.lean import Http

NO_LEDGER = (
    sys.executable,
    "-c",
    "from bridged.store.sqlite import SqliteLedger; SqliteLedger._try_commit = lambda *_: None; "
    "from bridged.cli.main import main; main()",
)
KINDS = {
    "no ledger": ("", NO_LEDGER),
    "durability = process": ('[state]\ndurability = "process"\n', BRIDGED),
    "durability = power": ('[state]\ndurability = "power"\n', BRIDGED),
}


async def submit(server: Server, jobs: int, clients: int) -> float:
    """Seconds until `jobs` submissions were acknowledged to so many clients, each waiting for its answer."""
    began = time.perf_counter()

    async def one(number: int) -> None:
        async with Http(server.url) as http:
            for _ in range(jobs // clients):
                await http.json("POST", f"/generate-based-workflow?clientId=c{number}", {"workflow": ALIAS})

    async with trio.open_nursery() as nursery:
        for number in range(clients):
            nursery.start_soon(one, number)
    return time.perf_counter() - began


async def started(place: House) -> float:
    """Seconds from the start of the process until it answers; it is killed then."""
    began = time.perf_counter()
    async with place.daemon(all_up=False) as server:
        took = time.perf_counter() - began
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    return took


async def measure(args: argparse.Namespace) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    cpu: dict[str, float] = dict.fromkeys(KINDS, 0.0)
    names = list(KINDS)
    for number in range(args.rounds):
        for kind in names[number % len(names) :] + names[: number % len(names)]:
            settings, python = KINDS[kind]
            with house([nobody], settings=f"{settings}[jobs]\nmax_queued = 1000000\n", python=python) as place:
                async with place.daemon(all_up=False) as server:
                    await submit(server, args.clients * 10, args.clients)
                    before = server.cpu()
                    rates[kind].append(args.jobs / await submit(server, args.jobs, args.clients))
                    cpu[kind] += server.cpu() - before
    print(f"{args.rounds} rounds of {args.jobs} submissions by {args.clients} clients; {machine()}")
    base = median(rates["no ledger"])
    table(
        ["acknowledged", "per second", "x no ledger", "rounds", "CPU ms each"],
        [
            [
                kind,
                f"{median(each):.0f}",
                f"{median(each) / base:.2f}",
                f"{min(each):.0f}-{max(each):.0f}",
                f"{cpu[kind] / args.rounds / args.jobs * 1000:.2f}",
            ]
            for kind, each in rates.items()
        ],
    )
    with house([nobody], settings="[jobs]\nmax_queued = 1000000\n") as place:
        empty = [await started(place) for _ in range(args.starts)]
        async with place.daemon(all_up=False) as server:
            await submit(server, args.queued, 16)
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
        full = [await started(place) for _ in range(args.starts)]
        async with place.daemon(all_up=False) as server, Http(server.url) as http:
            queued = (await http.json("GET", "/status"))["queue"]
    print(f"\nfrom the start to the first answer, median of {args.starts}, after a kill -9")
    table(
        ["ledger", "seconds", "x empty"],
        [
            ["empty", f"{median(empty):.2f}", "1.00"],
            [f"{queued} jobs queued", f"{median(full):.2f}", f"{median(full) / median(empty):.2f}"],
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.ledger", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=3200, help="submissions per round and kind")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--queued", type=int, default=10_000)
    parser.add_argument("--starts", type=int, default=3)
    trio.run(measure, parser.parse_args())


if __name__ == "__main__":
    main()
