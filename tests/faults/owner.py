"""The owners of the PCs: their own prompts go straight to their ComfyUI, and nobody else may touch them."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence

import httpx
import trio

from .house import PAINT
from .machines import Machine
from .pc import OWNER


async def work_now_and_then(machines: Sequence[Machine], seed: str, rest: float, until: trio.Event) -> None:
    """Each owner posts one or two prompts, waits `rest` seconds or so, and does it again, until told to stop."""
    async with trio.open_nursery() as nursery:
        for machine in machines:
            nursery.start_soon(_owner, machine, random.Random(f"{seed}/{machine.name}/owner"), rest, until)


async def _owner(machine: Machine, rng: random.Random, rest: float, until: trio.Event) -> None:
    async with httpx.AsyncClient(base_url=machine.direct, timeout=5, headers={"X-Owner": "1"}) as http:
        while not until.is_set():
            for _ in range(rng.randrange(1, 3)):
                graph = PAINT | {"1": {**PAINT["1"], "inputs": {**PAINT["1"]["inputs"], "color": rng.randrange(1000)}}}
                if machine.alive:
                    with contextlib.suppress(httpx.TransportError):  # a PC that dies takes its owner's work along
                        await http.post("/prompt", json={"prompt": graph, "client_id": f"{OWNER}-{machine.name}"})
            with trio.move_on_after(rest * (0.5 + rng.random())):
                await until.wait()
