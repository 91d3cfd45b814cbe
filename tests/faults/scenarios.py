"""What goes wrong: one function of the world each. Sleeps here are the faults' own times, never a condition."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import trio

from .disk import disk
from .edits import edits
from .machines import Machine
from .routes import cables
from .world import World

Scenario = Callable[[World], Awaitable[None]]
Trouble = Callable[[Machine, random.Random], Awaitable[None]]

CLOCK = Path(__file__).parent / "clock"
HOUR = 3600.0


async def kills(world: World) -> None:
    """SIGKILL of the daemon at random moments, its own start and recovery included."""
    await world.set_up()
    world.customers.keep(world.scale.in_flight, world.scale.sockets)
    for _ in range(world.scale.rounds):
        if world.rng.random() < 0.75:
            await world.service.ready()
        await trio.sleep(world.rng.uniform(0.0, 1.5))
        await world.service.kill()
        world.book.fault("daemon killed")
        await world.service.start()
    await world.service.ready()
    await world.flow(ended=world.scale.in_flight)


async def stops(world: World) -> None:
    """SIGTERM and start, as `systemctl restart` does it under load: every stop is judged."""
    await world.set_up()
    world.customers.keep(world.scale.in_flight, world.scale.sockets)
    for _ in range(max(2, world.scale.rounds // 5)):
        await world.service.ready(*world.names)
        await trio.sleep(world.rng.uniform(0.0, 1.5))
        await world.service.stop()
        world.book.fault("daemon stopped")
        await world.service.start()
    await world.service.ready()
    await world.flow(ended=world.scale.in_flight)


async def backends(world: World) -> None:
    """PCs die, freeze, slow down, and become unreachable in all the ways of TCP; at most two of them at a time."""
    await world.set_up()
    world.customers.keep(world.scale.in_flight, world.scale.sockets)
    await _troubles(world, TROUBLES)


async def wire(world: World) -> None:
    """Answers and WebSocket messages that are cut, empty, garbage or late; sockets that go silent."""
    await world.set_up()
    world.customers.keep(world.scale.in_flight, world.scale.sockets)
    await _troubles(world, DAMAGES)


async def storm(world: World) -> None:
    """Everything at once: PCs fail, answers are damaged, and the daemon is killed."""
    await world.set_up()
    world.customers.keep(world.scale.in_flight, world.scale.sockets)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_troubles, world, {**TROUBLES, **DAMAGES})
        for _ in range(max(2, world.scale.rounds // 4)):
            await trio.sleep(world.rng.uniform(1.0, 6.0))
            await world.service.kill()
            world.book.fault("daemon killed")
            await world.service.start()


async def clock(world: World) -> None:
    """The wall clock of the daemon jumps by hours, forth and back, also while it is dead."""
    offset = world.folder / "offset"
    offset.write_text("0")
    world.service.path.insert(0, str(CLOCK))
    world.service.environment["CLOCK_OFFSET"] = str(offset)
    await world.set_up()
    world.customers.keep(world.scale.in_flight, world.scale.sockets)
    for number in range(max(3, world.scale.rounds // 2)):
        part = offset.with_suffix(".new")
        dead = number % 4 == 3
        if dead:
            await world.service.kill()
        part.write_text(str(world.rng.uniform(-12, 12) * HOUR))
        part.replace(offset)
        world.book.fault("clock jumped")
        if dead:
            await world.service.start()
            await world.service.ready()
        await world.flow(ended=world.scale.in_flight // 4, seconds=10)


async def owners(world: World) -> None:
    """Busy owners, and clients that take back what they asked for or just go: only what is theirs may stop."""
    world.customers.leaving = 0.3
    await world.set_up(owners_rest=0.4)
    world.customers.keep(world.scale.in_flight, world.scale.sockets * 2)
    await world.flow(ended=world.scale.in_flight * (6 if world.scale.rounds > 10 else 2), seconds=120)
    world.book.faults["clients that left"] += sum(work.may_cancel for work in world.book.works)


# -- what can happen to one PC ---------------------------------------------------------------------------------------


async def _troubles(world: World, kinds: Mapping[str, Trouble]) -> None:
    """So many rounds of trouble, two at a time, never two for one PC; each kind comes before one comes twice."""
    healthy = list(world.machines)
    limit = trio.CapacityLimiter(min(2, len(healthy)))
    names: list[str] = []

    async def one(name: str, machine: Machine, rng: random.Random) -> None:
        async with limit:
            world.book.fault(name)
            try:
                await kinds[name](machine, rng)
            finally:
                with trio.move_on_after(30, shield=True):
                    await machine.heal()
                healthy.append(machine)

    async with trio.open_nursery() as nursery:
        for number in range(max(world.scale.rounds, len(kinds) if world.scale.rounds > 10 else 0)):
            names = names or world.rng.sample(sorted(kinds), len(kinds))
            while limit.available_tokens == 0 or not healthy:
                await trio.sleep(0.02)
            machine = healthy.pop(world.rng.randrange(len(healthy)))
            nursery.start_soon(one, names.pop(), machine, random.Random(f"{world.seed}/trouble/{number}"))
            await trio.sleep(world.rng.uniform(0.1, 0.5))


async def _kill(machine: Machine, rng: random.Random) -> None:
    await machine.kill()
    await trio.sleep(rng.choice((0.0, 0.5, 2.0, 5.0)))


async def _freeze(machine: Machine, rng: random.Random) -> None:
    machine.freeze()
    await trio.sleep(rng.uniform(0.2, 7.0))


async def _slow(machine: Machine, rng: random.Random) -> None:
    await machine.order(slow=rng.uniform(0.1, 1.5))
    await trio.sleep(rng.uniform(1.0, 4.0))


async def _slow_network(machine: Machine, rng: random.Random) -> None:
    machine.proxy.set("slow")
    await trio.sleep(rng.uniform(1.0, 4.0))


async def _reset(machine: Machine, rng: random.Random) -> None:
    for _ in range(rng.randrange(1, 5)):
        machine.proxy.reset()
        await trio.sleep(rng.uniform(0.05, 0.6))


async def _half_open(machine: Machine, rng: random.Random) -> None:
    machine.proxy.set("swallow")
    await trio.sleep(rng.uniform(0.5, 8.0))


async def _black_hole(machine: Machine, rng: random.Random) -> None:
    machine.proxy.set("hole")
    await trio.sleep(rng.uniform(0.5, 8.0))


async def _refuse(machine: Machine, rng: random.Random) -> None:
    machine.proxy.refuse()
    machine.proxy.reset()
    await trio.sleep(rng.uniform(0.5, 5.0))


async def _cut(machine: Machine, rng: random.Random) -> None:
    machine.proxy.set("cut")
    machine.proxy.reset()
    await trio.sleep(rng.uniform(0.5, 3.0))


TROUBLES: dict[str, Trouble] = {
    "PC killed": _kill,
    "PC frozen": _freeze,
    "PC slow": _slow,
    "network slow": _slow_network,
    "connections reset": _reset,
    "half-open": _half_open,
    "black hole": _black_hole,
    "connections refused": _refuse,
    "answers cut by RST": _cut,
}


def _damaged(route: str, *ways: str) -> Trouble:
    async def damage(machine: Machine, rng: random.Random) -> None:
        await machine.order(mangle={route: list(ways)}, share=rng.uniform(0.2, 0.7))
        if not route.endswith(("/prompt", "/view")):
            machine.proxy.reset()  # else nobody would ask
        await trio.sleep(rng.uniform(1.0, 3.0))

    return damage


async def _broken_frames(machine: Machine, rng: random.Random) -> None:
    await machine.order(frames=rng.uniform(0.05, 0.5))
    await trio.sleep(rng.uniform(1.0, 4.0))


async def _silent_socket(machine: Machine, rng: random.Random) -> None:
    await machine.order(silent=True)
    await trio.sleep(rng.uniform(1.0, 5.0))


async def _late_history(machine: Machine, rng: random.Random) -> None:
    await machine.order(history_lag=rng.uniform(0.2, 2.0))
    for _ in range(rng.randrange(3)):
        await trio.sleep(rng.uniform(0.2, 1.5))
        machine.proxy.reset()
    await trio.sleep(rng.uniform(0.5, 2.0))


ALL_WAYS = ("truncate", "cut", "garbage", "wrong", "error", "empty", "reset")

DAMAGES: dict[str, Trouble] = {
    "damaged /prompt": _damaged("POST /prompt", *ALL_WAYS),
    "damaged /queue": _damaged("GET /queue", *ALL_WAYS),
    "damaged /history": _damaged("GET /history/*", *ALL_WAYS),
    "damaged /view": _damaged("GET /view", *ALL_WAYS),
    "damaged /object_info": _damaged("GET /object_info", *ALL_WAYS),
    "damaged /upload/image": _damaged("POST /upload/image", *ALL_WAYS),
    "/prompt hangs": _damaged("POST /prompt", "hang"),
    "/view hangs": _damaged("GET /view", "hang"),
    "broken frames": _broken_frames,
    "silent WebSocket": _silent_socket,
    "late history": _late_history,
}

SCENARIOS: dict[str, Scenario] = {
    "kills": kills,
    "stops": stops,
    "backends": backends,
    "wire": wire,
    "storm": storm,
    "disk": disk,
    "clock": clock,
    "edits": edits,
    "owners": owners,
    "cables": cables,
}
