"""Cut cables: the kernel stops routing to a PC, in a network namespace of the suite's own.

Every PC has an address of its own there. Cut means that its packets are dropped without a word, those of connections
that are open included; once it is mended, TCP sends them again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import trio

from .disk import Skipped
from .machines import Machine
from .world import World

INSIDE = "BRIDGED_FAULTS_NAMESPACE"
"""set in the environment of a suite that is in a namespace of its own"""

UNSHARE = ("unshare", "--user", "--map-root-user", "--net")


def enter(arguments: Sequence[str]) -> None:
    """Starts this suite again in a network namespace of its own, where that is possible; else returns."""
    if INSIDE in os.environ:
        return
    try:
        possible = subprocess.run([*UNSHARE, "ip", "link", "set", "lo", "up"], capture_output=True, check=False)
    except OSError:
        return
    if possible.returncode == 0:
        again = [sys.executable, "-m", "tests.faults", *arguments]
        command = [*UNSHARE, "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *again]
        os.execvpe(command[0], command, {**os.environ, INSIDE: "1"})


async def _ip(*words: str) -> None:
    await trio.run_process(["ip", *words])


async def _cut(machine: Machine) -> None:
    await _ip("route", "del", "local", machine.proxy.host, "dev", "lo", "table", "local")
    await _ip("route", "add", "blackhole", machine.proxy.host)


async def _mend(machine: Machine) -> None:
    await _ip("route", "del", "blackhole", machine.proxy.host)
    await _ip("route", "add", "local", machine.proxy.host, "dev", "lo", "table", "local")


async def cables(world: World) -> None:
    """Cables of one PC or two are pulled and put back while jobs flow, for longer and shorter than PCs may be away."""
    if INSIDE not in os.environ:
        raise Skipped("no network namespace of our own (unshare or ip is missing, or the kernel does not allow it)")
    for number, machine in enumerate(world.machines, 1):
        machine.proxy.host = f"10.77.0.{number}"
        await _ip("address", "add", f"{machine.proxy.host}/32", "dev", "lo")
    await world.set_up()
    world.customers.keep(world.scale.in_flight, world.scale.sockets)
    for _ in range(max(3, world.scale.rounds // 2)):
        pulled = world.rng.sample(world.machines, world.rng.randint(1, 2))
        for machine in pulled:
            await _cut(machine)
            world.book.fault("cable pulled")
        await world.flow(ended=world.scale.in_flight // 2, seconds=world.rng.uniform(0.5, 6.0))
        for machine in pulled:
            await _mend(machine)
        await world.flow(ended=world.scale.in_flight // 4, seconds=3)
