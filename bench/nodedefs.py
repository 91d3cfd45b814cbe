"""Node definitions of a pool: what the first payload weighs and costs in V1 and V2, what reading one folder anew costs
against reading the whole, how many requests a rush of clients makes, and what is answered while PCs are away.

The pool: 10 fake ComfyUIs in a second process, each with 2,000 classes: the 477 recorded ones and, for custom node
packs, copies of some of them, of which some have one more combo, that lists files (PACKS). 10,000 model files: loras
6000, checkpoints 1500, embeddings 760, diffusion_models 400, controlnet 300, hypernetworks 300, upscale_models 250,
vae 200, text_encoders 150, the rest in small folders (MODELS); a PC has a random 70 % of them, and every second one
writes `\\` between folders. The fakes keep their answers ready, so that what a ComfyUI needs to make them is not in
the figures.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import trio

from bench.common import START_TIMEOUT, Server, house, machine, ms, percentile, process, table
from bench.lean import Http, Refused, address
from bridged.nodedefs.loaders import LOADERS
from tests.fakes.comfyui import Call, FakeComfyUI, Reply, Script
from tests.fakes.recording import object_info

MODELS = {
    "loras": 6000,
    "checkpoints": 1500,
    "embeddings": 760,
    "diffusion_models": 400,
    "controlnet": 300,
    "hypernetworks": 300,
    "upscale_models": 250,
    "vae": 200,
    "text_encoders": 150,
    "clip_vision": 40,
    "style_models": 20,
    "model_patches": 20,
    "configs": 20,
    "gligen": 10,
    "photomaker": 10,
    "audio_encoders": 10,
    "vae_approx": 10,
}
PACKS = {
    "loras": 25,
    "checkpoints": 19,
    "upscale_models": 5,
    "controlnet": 3,
    "diffusion_models": 2,
    "vae": 1,
    "configs": 1,
}
"""how many combos list these folders in the 911 classes of eight published packs whose INPUT_TYPES were run for it:
Impact Pack, KJNodes, Comfyroll, WAS, essentials, controlnet_aux, Custom-Scripts, rgthree, as of autumn 2026"""

LARGEST = 3000
"""bytes of the inputs and outputs of what is copied: so copies have 366 on average; the packs' have 375"""

PACK_CLASSES = 911
RECORDED = frozenset({"sd15_random.safetensors"})
"""files of the PC that was recorded: not of these PCs"""

SHARE = 0.7
WORDS = ("anime", "portrait", "detail", "style", "light", "film", "ink", "paint", "dark", "fantasy", "city", "robot")
BASES = ("sd15", "sdxl", "flux", "pony", "illustrious", "wan")
LISTED = "/internal/files/loras"
UNLIMITED = """[limits]
lists_per_minute = 0
renewals_per_minute = 0
"""

# -- the pool ----------------------------------------------------------------------------------------------------


def all_models(dice: random.Random) -> dict[str, list[str]]:
    """folder -> names, with `/` between folders; two of three files are in a subfolder."""

    def name(number: int) -> str:
        base, words = dice.choice(BASES), "_".join(dice.sample(WORDS, 2))
        return f"{base}/{words}_{number}.safetensors" if dice.random() < 2 / 3 else f"{words}_{number}.safetensors"

    return {folder: sorted(name(number) for number in range(count)) for folder, count in MODELS.items()}


Listing = dict[tuple[str, str], str]
"""(section, input) -> the folder that a class's combo lists"""


def classes(count: int, dice: random.Random) -> dict[str, tuple[Any, Listing]]:
    """name -> its definition, and which of its combos list files."""
    known = object_info()
    found = {name: (info, listing(name, info)) for name, info in list(known.items())[:count]}
    copied = [name for name, (info, folders) in found.items() if not folders and is_like_packs(info)]
    folders = [folder for folder, number in PACKS.items() for _ in range(number)]
    folders += [""] * (PACK_CLASSES - len(folders))
    pack, undealt = 1, dice.sample(folders, len(folders))
    while len(found) < count:
        for name in dice.sample(copied, min(len(copied), count - len(found))):
            info = {**known[name], "name": f"{name} (pack {pack})", "python_module": f"custom_nodes.pack_{pack}"}
            undealt = undealt or dice.sample(folders, len(folders))
            folder = undealt.pop()
            found[info["name"]] = with_combo(info, folder) if folder else (info, {})
        pack += 1
    return found


def is_like_packs(definition: Any) -> bool:
    """Of the older schema, as most of their nodes are, and not one of the few that have an input for each block."""
    what = [definition[key] for key in ("input", "output", "output_name", "output_is_list")]
    return "api_node" not in definition and len(msgspec.json.encode(what)) <= LARGEST


def listing(kind: str, definition: Any) -> Listing:
    names = {key: entry.folder for (name, key), entry in LOADERS.items() if name == kind and entry.folder in MODELS}
    sections = definition["input"].items()
    return {(section, key): names[key] for section, inputs in sections for key in names.keys() & inputs.keys()}


def with_combo(definition: Any, folder: str) -> tuple[Any, Listing]:
    key, inputs = f"{folder.rstrip('s')}_name", definition["input"]
    required = {key: [[], {"tooltip": "The file to load."}], **inputs.get("required", {})}
    order = definition["input_order"]
    return {
        **definition,
        "input": {**inputs, "required": required},
        "input_order": {**order, "required": list(required)},
    }, {("required", key): folder}


def with_files(definition: Any, folders: Listing, models: dict[str, list[str]]) -> Any:
    """The definition as a PC with these files gives it."""
    if not folders:
        return definition
    definition = deepcopy(definition)
    for (section, key), folder in folders.items():
        spec = definition["input"][section][key]
        old = spec[0] if isinstance(spec[0], list) else spec[1]["options"]
        old[:] = [*models[folder], *(choice for choice in old if choice not in RECORDED)]
    return definition


class Pool:
    """The fakes, and a control server that says and changes what they do (`act`)."""

    def __init__(self, backends: int, count: int, seed: int) -> None:
        dice = random.Random(seed)
        self.classes = classes(count, dice)
        every = all_models(dice)
        self.failing: set[int] = set()
        self.models: list[dict[str, list[str]]] = []
        self.ready: list[dict[str, Reply]] = []
        self.combos = sum(len(folders) for _, folders in self.classes.values())
        self.extra = 0
        for number in range(backends):
            joint = "\\" if number % 2 else "/"
            chosen = {
                folder: sorted(name.replace("/", joint) for name in dice.sample(names, round(len(names) * SHARE)))
                for folder, names in every.items()
            }
            self.models.append(chosen)
            self.ready.append({})
            self.prepare(number)
        self.fakes = [
            FakeComfyUI(name=f"pc-{n}", models=self.models[n], script=Script(hook=partial(self.answer, n)))
            for n in range(backends)
        ]
        self.control = FakeComfyUI(name="control", script=Script(hook=self.act))

    def prepare(self, number: int) -> None:
        models = self.models[number]
        made = {name: with_files(info, folders, models) for name, (info, folders) in self.classes.items()}
        self.ready[number]["/object_info"] = Reply.json(made)
        for folder, names in self.models[number].items():
            self.ready[number][f"/models/{folder}"] = Reply.json(names)

    async def answer(self, number: int, call: Call) -> Reply | None:
        reply = self.ready[number].get(call.route) if call.method == "GET" else None
        return Reply(500) if reply is not None and number in self.failing else reply

    async def act(self, call: Call) -> Reply:
        """/calls (those since the last time), /more (a new LoRA on every PC), /crash?n=, /fail?n=, /recover"""
        match call.route:
            case "/calls":
                told = [[(each.method, each.route, each.mono) for each in fake.calls] for fake in self.fakes]
                for fake in self.fakes:
                    fake.calls.clear()
                return Reply.json(told)
            case "/more":
                self.extra += 1
                for number, models in enumerate(self.models):
                    models["loras"].append(f"zz_new_{self.extra}.safetensors")
                    self.prepare(number)
            case "/crash":
                self.fakes[int(call.query["n"])].crash()
            case "/fail":
                self.failing.add(int(call.query["n"]))
            case "/recover":
                self.failing.clear()
                for fake in self.fakes:
                    await fake.start_listening()
        return Reply.json({})

    async def run(self) -> None:
        """Prints one line of JSON with its addresses, and serves until it is ended."""
        async with trio.open_nursery() as nursery:
            urls = [await nursery.start(fake.serve) for fake in self.fakes]
            control = await nursery.start(self.control.serve)
            size = len(self.ready[0]["/object_info"].body)
            told = {"urls": urls, "control": control, "combos": self.combos, "bytes": size}
            print(json.dumps(told), flush=True)


@asynccontextmanager
async def pool(args: argparse.Namespace) -> AsyncIterator[dict[str, Any]]:
    """What the second process has said of itself."""
    command = [sys.executable, "-m", "bench.nodedefs", "--serve"]
    command += ["--backends", str(args.backends), "--classes", str(args.classes), "--seed", str(args.seed)]
    with tempfile.TemporaryDirectory(prefix="bridged-bench-") as folder:
        log = Path(folder) / "pool.log"
        async with process(command, {}, log) as child:
            assert child.stdout is not None
            with trio.fail_after(2 * START_TIMEOUT):
                line = await trio.to_thread.run_sync(child.stdout.readline)
            if not line:
                raise RuntimeError(log.read_text())
            yield json.loads(line)


# -- asking ------------------------------------------------------------------------------------------------------


async def fetch(url: str, target: str, method: str = "GET", headers: str = "") -> tuple[float, bytes]:
    """Seconds until the whole answer is there, and its body as it was sent. A connection of its own."""
    host, port = address(url)
    began = time.perf_counter()
    async with await trio.open_tcp_stream(host, port) as stream:
        length = "Content-Length: 0\r\n" if method == "POST" else ""
        head = f"{method} {target} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n{length}{headers}\r\n"
        await stream.send_all(head.encode())
        answer = b"".join([data async for data in stream])
    took = time.perf_counter() - began
    head_sent, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head_sent[:20]:
        raise Refused(f"{method} {target}: {answer[:300]!r}")
    return took, body


GZIP, NO_CACHE = "Accept-Encoding: gzip\r\n", "Cache-Control: no-cache\r\n"


async def act(control: str, what: str) -> Any:
    async with Http(control) as http:
        return await http.json("GET", what)


async def pings(url: str, delays: list[float]) -> None:
    """How long GET / takes, every 5 ms, until cancelled."""
    async with Http(url) as http:
        while True:
            began = time.perf_counter()
            await http.request("GET", "/")
            delays.append(time.perf_counter() - began)
            await trio.sleep(0.005)


@asynccontextmanager
async def pinged(url: str) -> AsyncIterator[list[float]]:
    delays: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pings, url, delays)
        await trio.sleep(0.05)
        delays.clear()
        yield delays
        nursery.cancel_scope.cancel()


def delay_row(what: str, delays: Sequence[float]) -> list[object]:
    return [what, len(delays), ms(percentile(delays, 50)), ms(percentile(delays, 99)), ms(max(delays))]


# -- what is measured --------------------------------------------------------------------------------------------


async def first_payload(urls: Sequence[str], settings: str, rounds: int) -> None:
    """A new daemon for each form; its first answer is the cold one."""
    sizes: dict[str, list[float]] = {}
    loop: list[list[object]] = []
    for form in ("v1", "v2"):
        target = f"/object_info?format={form}"
        async with started(urls, settings) as daemon:
            async with pinged(daemon.url) as idle:
                await trio.sleep(1)
            loop = loop or [delay_row("idle", idle)]
            cpu = daemon.cpu()
            async with pinged(daemon.url) as delays:
                cold, body = await fetch(daemon.url, target)
            cpu = daemon.cpu() - cpu
            loop.append(delay_row(f"while {form} is built", delays))
            packed_cold, packed = await fetch(daemon.url, target, headers=GZIP)
            assert gzip.decompress(packed) == body
            warm = [(await fetch(daemon.url, target))[0] for _ in range(rounds)]
            packed_warm = [(await fetch(daemon.url, target, headers=GZIP))[0] for _ in range(rounds)]
            times = [cold, cpu, median(warm), packed_cold, median(packed_warm)]
            sizes[form] = [len(body) / 1e6, len(packed) / 1e6, *(1000 * each for each in times)]
    names = ["MB", "MB, gzip", "cold ms", "cold, CPU ms", "warm ms", "first gzip ms", "warm gzip ms"]
    print("\nfirst payload (goal: V2 at most 10 % of the bytes, gzip apart)")
    rows = zip(names, sizes["v1"], sizes["v2"], strict=True)
    table(["", "V1", "V2", "V2 / V1"], [[n, f"{a:.2f}", f"{b:.2f}", f"{100 * b / a:.1f} %"] for n, a, b in rows])
    print("\nGET / every 5 ms, ms")
    table(["", "pings", "p50", "p99", "max"], loop)


async def refreshes(url: str, control: str, rounds: int) -> None:
    """One folder and the whole, each with news (a LoRA more on every PC) and without."""
    await fetch(url, "/object_info")
    rows = []
    for news in (True, False):
        one: list[float] = []
        whole: list[float] = []
        both: list[float] = []
        for _ in range(rounds):
            for target, method, headers, times in (
                (f"{LISTED}/refresh", "POST", "", one),
                ("/object_info", "GET", NO_CACHE, whole),
            ):
                if news:
                    await act(control, "/more")
                took, _ = await fetch(url, target, method, headers)
                times.append(took)
            both.append(one[-1] / whole[-1])
        ratio = f"{100 * median(one) / median(whole):.1f} %"
        spread = f"{100 * min(both):.1f} to {100 * max(both):.1f} %"
        rows.append(["a file more" if news else "no news", ms(median(one)), ms(median(whole)), ratio, spread])
    print("\nread anew, ms (goal: one folder at most 2 % of the whole)")
    table(["", "loras", "whole V1", "ratio", "rounds"], rows)


async def rush(url: str, control: str, clients: int) -> list[object]:
    """Seconds for each of the clients, and the requests that each backend got."""
    https = [Http(url) for _ in range(clients)]
    for http in https:
        await http.connect()
    await act(control, "/calls")
    times: list[float] = []

    async def ask(http: Http) -> None:
        began = time.perf_counter()
        await http.bytes(LISTED)
        times.append(time.perf_counter() - began)

    async with trio.open_nursery() as nursery:
        for http in https:
            nursery.start_soon(ask, http)
    for http in https:
        http.close()
    await trio.sleep(1)  # what is fetched behind their backs
    asked = [sum(route == "/models/loras" for _, route, _ in calls) for calls in await act(control, "/calls")]
    return [f"{min(asked)} to {max(asked)}", ms(percentile(times, 50)), ms(max(times))]


async def stale(url: str, control: str, down: Sequence[int], seconds: float) -> None:
    """The daemon's `refresh` is 1 s: what is asked for is stale all the time."""
    targets = (LISTED, "/object_info?format=v2", "/object_info/LoraLoader?format=v2", "/object_info")
    for target in targets:
        await fetch(url, target)
    rows = []
    for stopped in ((), down):
        for number in stopped:
            await act(control, f"/crash?n={number}")
        await trio.sleep(1.5)
        for target in targets:
            times: list[float] = []
            async with Http(url) as http:
                end = time.perf_counter() + seconds
                while (began := time.perf_counter()) < end:
                    await http.bytes(target)
                    times.append(time.perf_counter() - began)
                    await trio.sleep(0.005)
            rows.append(delay_row(f"{len(stopped)} stopped: {target}", times))
    await act(control, "/recover")
    print("\nanswers that are stale every second, ms (goal: < 50)")
    table(["", "answers", "p50", "p99", "max"], rows)


async def pauses(url: str, control: str, count: int) -> None:
    """Between tries at a list that a backend answers with 500, asked for every 50 ms."""
    await fetch(url, LISTED)
    await act(control, "/fail?n=9")
    await act(control, "/calls")
    tries: list[float] = []
    with trio.move_on_after(60):
        while len(tries) <= count:
            await fetch(url, LISTED)
            await trio.sleep(0.05)
            calls = (await act(control, "/calls"))[9]
            tries += [when for _, route, when in calls if route == "/models/loras"]
    await act(control, "/recover")
    found = [f"{after - before:.2f}" for before, after in pairwise(tries)]
    print(f"\npauses between tries at a backend that answers 500, s (goal 1, 2, 4, 8, 10): {', '.join(found)}")


@asynccontextmanager
async def started(urls: Sequence[str], settings: str) -> AsyncIterator[Server]:
    with house(urls, settings=settings) as place:
        async with place.daemon() as server:
            yield server


async def run(args: argparse.Namespace) -> None:
    print(machine())
    async with pool(args) as told:
        urls, control = told["urls"], told["control"]
        print(
            f"{len(urls)} backends, {args.classes} classes, {told['combos']} combos that list model files, "
            f"{sum(MODELS.values())} files, one PC's own /object_info {told['bytes'] / 1e6:.1f} MB"
        )
        async with started(urls, UNLIMITED) as daemon:
            rushes = [["cold", *await rush(daemon.url, control, args.clients)]]
            rushes.append(["fresh", *await rush(daemon.url, control, args.clients)])
            await refreshes(daemon.url, control, args.rounds)
        await first_payload(urls, UNLIMITED, args.rounds)
        async with started(urls, UNLIMITED + "[nodes]\nrefresh = 1\n") as daemon:
            await fetch(daemon.url, LISTED)
            await trio.sleep(1.2)
            rushes.append(["stale", *await rush(daemon.url, control, args.clients)])
            print(f"\n{args.clients} clients open one combo at once (goal: 1 request to each backend)")
            table(["", "requests to each", "p50 ms", "max ms"], rushes)
            await pauses(daemon.url, control, args.pauses)
        async with started(urls, UNLIMITED + "[nodes]\nrefresh = 1\n") as daemon:
            await stale(daemon.url, control, range(min(3, len(urls) - 1)), args.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.nodedefs", description=__doc__)
    parser.add_argument("--backends", type=int, default=10)
    parser.add_argument("--classes", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pauses", type=int, default=5, help="how many to wait for, 25 s in all")
    parser.add_argument("--seconds", type=float, default=4.0, help="of asking, for each kind of stale answer")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--serve", action="store_true", help="be the backends")
    args = parser.parse_args()
    try:
        trio.run(Pool(args.backends, args.classes, args.seed).run if args.serve else partial(run, args))
    except* KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
