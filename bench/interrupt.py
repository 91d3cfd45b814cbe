"""How soon, and how exactly, a client that vanishes takes its jobs with it.

Part 1, latency: on 8 fake ComfyUIs (processes of their own) one long job each runs for a WebSocket client; the
client's connection is reset (RST), one by one at random moments or all in the same instant, and the clock
(monotonic, the same for all processes) runs until the fake has read the call that names that prompt (/interrupt, or
the atomic cancel). Prints p50 and p99 against the goal of 100 ms, and, as the bound of the same run, the same for
one /interrupt straight from here to a fake. With --load N, N more clients run short jobs through the same daemon.

Part 2, races: clients on 8 fakes that are shared with prompts of their owners, submitted at random. Half of the
clients leave (RST) at a random moment around the end of their job, one in ten of these in the middle of a job that
would go on for 16 s; the other half stay for the result. Printed as counts that should be 0: foreign prompts that
were touched (named in a call, or not run to their end), prompts of ours that were still open 2 s after the last
client had gone, that began or ended later than --slack seconds after their client had left, results of those who
stayed that are missing or another job's.
"""

from __future__ import annotations

import argparse
import random
import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import trio

from bench.common import Server, daemon, fakes, graph, machine, ms, next_color, percentile, table, values
from bench.contenders import BridgedWs, opened
from bench.lean import Http, Refused, WebSocket
from tests.fakes.comfyui import png_for

GOAL = 0.100
OPEN = ("queued", "running")
LONG = 16_000
"""ms of a job that does not end by itself while it matters; it hears interrupts every 100 ms"""


async def submitted(bridged: Server, color: int, width: int, height: int) -> tuple[str, WebSocket]:
    """A client with a WebSocket and one job: its clientId and the socket."""
    client = uuid.uuid4().hex
    socket = await WebSocket.connect(bridged.url, f"/ws?clientId={client}")
    await socket.receive()
    async with Http(bridged.url) as http:
        body = values(color, width=width, height=height)
        await http.json("POST", f"/generate-based-workflow?clientId={client}", body)
    return client, socket


async def until(socket: WebSocket, word: str) -> bool:
    """Until a message has this status or detail. False: the socket closed before."""
    while (message := await socket.receive()) is not None:
        told = msgspec.json.decode(message)
        if word in (told["status"], told["detail"]):
            return True
    return False


async def asked(pcs: Sequence[Server], path: str) -> list[Any]:
    """What every fake tells at `path`."""
    answers = []
    for pc in pcs:
        async with Http(pc.url) as http:
            answers.append(await http.json("GET", path))
    return answers


def submissions(calls: Iterable[dict[str, Any]]) -> dict[int, list[str]]:
    """color -> the prompt ids under which that job was posted."""
    found: dict[int, list[str]] = {}
    for call in calls:
        if call["method"] == "POST" and call["route"] == "/prompt":
            color = call["json"]["prompt"]["1"]["inputs"]["color"]
            found.setdefault(color, []).append(call["json"]["prompt_id"])
    return found


def named(call: dict[str, Any]) -> list[str]:
    """The prompt ids that a call would stop, remove or forget."""
    if call["method"] != "POST":
        return []
    if call["route"].startswith("/jobs/"):
        return [call["route"].split("/")[2]]
    body = call["json"] if isinstance(call["json"], dict) else {}
    if call["route"] == "/interrupt":
        return [body.get("prompt_id", "(any)")]
    return list(body.get("delete", [])) if call["route"] in ("/queue", "/history") else []


# -- part 1 ------------------------------------------------------------------------------------------------------


async def latency(args: argparse.Namespace) -> None:
    resets: dict[str, list[tuple[float, int]]] = {"one by one": [], "all at once": []}
    async with fakes(args.fakes + (2 if args.load else 0)) as pcs, daemon([pc.url for pc in pcs]) as bridged:
        async with trio.open_nursery() as busy:
            for _ in range(args.load):
                busy.start_soon(keep_busy, bridged)
            for kind, samples in resets.items():
                for _ in range(args.rounds):
                    samples += await one_round(bridged, args.fakes, at_once=kind == "all at once")
            await trio.sleep(1)
            busy.cancel_scope.cancel()
        bound = [await one_interrupt(pc) for pc in pcs[: args.fakes] for _ in range(25)]
        calls = [call for told in await asked(pcs, "/__calls") for call in told]
    stops = ("/interrupt", "/jobs/")
    arrivals = {
        prompt: call["mono"] for call in reversed(calls) if call["route"].startswith(stops) for prompt in named(call)
    }
    prompts = submissions(calls)
    print(f"{args.fakes} fake ComfyUIs, {args.load} clients of load; {machine()}")
    rows = [figures("straight to a fake", bound, percentile(bound, 50))]
    for kind, samples in resets.items():
        heard = [(at, arrivals.get(prompts[color][-1])) for at, color in samples]
        took = [arrived - at for at, arrived in heard if arrived is not None]
        rows.append(figures(f"RST, {kind}", took, percentile(bound, 50)))
        if len(took) < len(heard):
            print(f"{kind}: {len(heard) - len(took)} of {len(heard)} resets were followed by no interrupt")
    table(["ms to the interrupt", "samples", "p50", "p99", "max", "x bound p50", "over goal of 100 ms"], rows)


def figures(name: str, samples: Sequence[float], bound: float) -> list[object]:
    p50 = percentile(samples, 50)
    over = sum(sample > GOAL for sample in samples)
    return [name, len(samples), ms(p50), ms(percentile(samples, 99)), ms(max(samples)), f"{p50 / bound:.1f}", over]


async def one_round(bridged: Server, count: int, *, at_once: bool) -> list[tuple[float, int]]:
    """`count` running jobs whose clients are then reset: (time of the RST, color of the job)."""
    clients: list[tuple[int, WebSocket]] = []

    async def start() -> None:
        color = next_color()
        _, socket = await submitted(bridged, color, LONG, LONG // 100)
        if not await until(socket, "progress"):
            raise Refused("a long job ended")
        clients.append((color, socket))

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(start)
    await trio.sleep(random.uniform(0.05, 0.15))
    done = []
    for color, socket in clients:
        if not at_once:
            await trio.sleep(random.uniform(0.0, 0.03))
        done.append((time.monotonic(), color))
        socket.reset()
    async with Http(bridged.url) as http:
        with trio.fail_after(30):
            while (await http.json("GET", "/status"))["jobs"].get("running", 0) >= count:
                await trio.sleep(0.02)
    await trio.sleep(0.2)
    return done


async def one_interrupt(pc: Server) -> float:
    """Seconds until a fake has read an /interrupt over a connection that is open."""
    async with Http(pc.url) as http:
        await http.json("GET", "/prompt")
        prompt_id = str(uuid.uuid4())
        began = time.monotonic()
        await http.json("POST", "/interrupt", {"prompt_id": prompt_id})
        (calls,) = await asked([pc], "/__calls")
    (arrived,) = (call["mono"] for call in calls if prompt_id in named(call))
    return float(arrived) - began


async def keep_busy(bridged: Server) -> None:
    async with opened(BridgedWs(bridged.url)) as client:
        while True:
            await client.job(next_color(), width=5, height=1)


# -- part 2 ------------------------------------------------------------------------------------------------------


class Race:
    """What the clients know at the end. Colors name jobs."""

    def __init__(self, bridged: Server, pcs: Sequence[Server], args: argparse.Namespace) -> None:
        self.bridged = bridged
        self.pcs = pcs
        self.args = args
        self.left: dict[int, float] = {}
        """when the client of a job went"""
        self.stayed: dict[int, bytes | str] = {}
        """the result, or what came instead"""
        self.foreign: list[str] = []
        self.typical = 0.05
        """seconds that a job took for those who stayed, lately: where the races are"""
        self.too_late = 0
        """clients that left when they had been told that their job was over"""

    async def client(self, leaves: Iterable[bool]) -> None:
        for leaving in leaves:
            color = next_color()
            long = leaving and random.random() < 0.1
            width, height = (LONG, LONG // 100) if long else (random.randint(2, 30), random.randint(1, 3))
            began = time.monotonic()
            client, socket = await submitted(self.bridged, color, width, height)
            if leaving:
                await self.leave(socket, color, 0.3 if long else self.typical * random.uniform(0.0, 1.2))
            else:
                self.stayed[color] = await self.stay(client, socket)
                self.typical += 0.1 * (time.monotonic() - began - self.typical)

    async def leave(self, socket: WebSocket, color: int, after: float) -> None:
        """Goes after that many seconds, or, every other time, in the moment it hears how far its job is."""
        moment = random.choice(("", "", "progress", "100.00%"))
        over = False
        with trio.move_on_after(after if not moment else 30):
            over = not await until(socket, moment or "closed") or not moment
        if over:
            self.too_late += 1
        self.left[color] = time.monotonic()
        socket.reset()

    async def stay(self, client: str, socket: WebSocket) -> bytes | str:
        last: Any = None
        try:
            while (message := await socket.receive()) is not None:
                last = msgspec.json.decode(message)
            async with Http(self.bridged.url) as http:
                status, body = await http.request("GET", f"/history?clientId={client}")
        except (OSError, trio.BrokenResourceError) as error:
            return repr(error)
        return body if status == 200 else f"history: {status}, after {last}"

    async def owner(self, pc: Server) -> None:
        """The PC's owner, who submits a prompt of up to 50 ms now and then, and never cancels one."""
        async with Http(pc.url) as http:
            while True:
                await trio.sleep(random.expovariate(self.args.foreign_rate))
                prompt_id = str(uuid.uuid4())
                prompt = graph(next_color(), width=random.randint(2, 50), height=2, prefix="owner")
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                    await http.json("POST", "/prompt", {"prompt": prompt, "prompt_id": prompt_id})
                self.foreign.append(prompt_id)

    async def run(self) -> float:
        """Everything; returns when the last client had gone."""
        fates = [True] * self.args.disconnects + [False] * self.args.disconnects
        random.shuffle(fates)
        shared = iter(fates)
        async with trio.open_nursery() as owners:
            for pc in self.pcs:
                owners.start_soon(self.owner, pc)
            async with trio.open_nursery() as clients:
                for _ in range(self.args.clients):
                    clients.start_soon(self.client, shared)
            owners.cancel_scope.cancel()
        ended = time.monotonic()
        await trio.sleep(2)
        return ended


async def races(args: argparse.Namespace) -> None:
    async with fakes(args.fakes) as pcs, daemon([pc.url for pc in pcs]) as bridged:
        race = Race(bridged, pcs, args)
        began = time.monotonic()
        ended = await race.run()
        (calls_of, prompts_of) = (await asked(pcs, "/__calls"), await asked(pcs, "/__prompts"))
        status = (await asked([bridged], "/status"))[0]
    calls = [call for told in calls_of for call in told]
    prompts: dict[str, dict[str, Any]] = {key: record for told in prompts_of for key, record in told.items()}
    posted = submissions(calls)
    foreign = set(race.foreign)
    touched = {prompt for call in calls for prompt in named(call)} & foreign
    unfinished = {key for key in foreign if prompts[key]["state"] != "done"}
    leavers = [(at, prompts[key]) for color, at in race.left.items() for key in posted.get(color, []) if key in prompts]
    late = [at + args.slack for at, _ in leavers]
    states = [record["state"] for _, record in leavers]
    lost = [value for value in race.stayed.values() if isinstance(value, str)]
    wrong = sum(
        not any(png_for(key, "2", 0) in value for key in posted.get(color, []))
        for color, value in race.stayed.items()
        if isinstance(value, bytes)
    )
    print(
        f"{len(race.left)} clients left, {len(race.stayed)} stayed, {len(foreign)} foreign prompts, "
        f"{args.clients} clients at a time on {args.fakes} fake ComfyUIs, {ended - began:.1f} s; {machine()}"
    )
    told = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    never = sum(color not in posted for color in race.left)
    print(f"prompts of those who left: {told}; {never} were never posted; {race.too_late} clients left after the end")
    ours = [record for key, record in prompts.items() if key not in foreign]
    rows: list[list[object]] = [
        ["foreign prompts named in a call of ours", len(touched)],
        ["foreign prompts not run to their end", len(unfinished)],
        ["calls that stop whatever runs", sum("(any)" in named(call) for call in calls)],
        ["prompts of ours open 2 s after the last client went", sum(r["state"] in OPEN for r in ours)],
        ["open jobs in the daemon by then", sum(status["jobs"].get(s, 0) for s in ("queued", "placed", "running"))],
        ["prompts begun too late after their client left", _later(leavers, late, ("running",))],
        ["prompts ended too late after their client left", _later(leavers, late, ("done", "interrupted", "error"))],
        ["results lost by clients that stayed", len(lost)],
        ["results of another job", wrong],
        ["jobs that ran to their end more than once", sum(_runs(posted[c], prompts) > 1 for c in posted)],
    ]
    table(["should be 0", ""], rows)
    if lost:
        print(f"the first that was lost: {lost[0]}")


def _later(leavers: Sequence[tuple[float, dict[str, Any]]], late: Sequence[float], states: Sequence[str]) -> int:
    """How many prompts entered one of these states too late."""
    limits = zip(leavers, late, strict=True)
    return sum(record["mono"].get(state, 0.0) > limit for (_, record), limit in limits for state in states)


def _runs(keys: Iterable[str], prompts: dict[str, dict[str, Any]]) -> int:
    return sum(prompts[key]["state"] == "done" for key in keys if key in prompts)


async def measure(args: argparse.Namespace) -> None:
    if args.part in ("latency", "both"):
        await latency(args)
    if args.part in ("races", "both"):
        await races(args)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.interrupt", description=__doc__)
    parser.add_argument("--part", choices=["latency", "races", "both"], default="both")
    parser.add_argument("--fakes", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15, help="of one reset per fake, for either kind")
    parser.add_argument("--load", type=int, default=0, metavar="N", help="other clients at work during part 1")
    parser.add_argument("--disconnects", type=int, default=1000, help="clients that leave, and as many that stay")
    parser.add_argument("--clients", type=int, default=32, help="at a time, in part 2")
    parser.add_argument("--foreign-rate", type=float, default=1.0, help="prompts per second of each PC's owner")
    parser.add_argument("--slack", type=float, default=0.5, help="seconds in which a revoked prompt must have ended")
    trio.run(measure, parser.parse_args())


if __name__ == "__main__":
    main()
