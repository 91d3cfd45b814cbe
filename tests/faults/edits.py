"""The operator edits the configuration while jobs flow, and makes mistakes."""

from __future__ import annotations

import trio

from .world import World

MISTAKES = (
    ("backends.toml", '[[backend]]\nname = "pc-1"\nurl = '),
    ("backends.toml", '[[backend]]\nname = "pc-1"\n'),
    ("backends.toml", "\0\0\0"),
    ("bridged.toml", "[jobs]\nmax_attempts = 'many'\n"),
    ("bridged.toml", "[jobs\n"),
    ("workflow_alias.json", '[{"alias": "paint"'),
    ("workflow_alias.json", "{}"),
)


async def edits(world: World) -> None:
    """PCs leave, come back and drain, aliases and workflows change, files are broken and repaired."""
    await world.set_up()
    world.customers.keep(world.scale.in_flight, world.scale.sockets)
    rng, house = world.rng, world.house
    for number in range(world.scale.rounds):
        away = tuple(rng.sample(world.names, rng.randrange(len(world.names))))
        match rng.choice(("remove", "drain", "both", "alias", "workflow", "mistake", "setting")):
            case "remove":
                world.write_backends(without=away)
            case "drain":
                world.write_backends(drained=away)
            case "both":
                world.write_backends(drained=away[:1], without=away[1:])
            case "alias":
                house.write_aliases(f"paints, as of edit {number}")
            case "workflow":
                house.write_workflow(rng.choice(("paint", "break", "blend")), f"edit-{number}")
            case "mistake":
                house.spoil(*rng.choice(MISTAKES))
            case _:
                house.setting("jobs", prefetch=rng.randrange(2), max_attempts=rng.randrange(2, 6))
        world.book.fault("configuration edited")
        await trio.sleep(rng.uniform(0.1, 1.0))
        if rng.random() < 0.5:  # what is broken is repaired, sooner or later
            house.write_settings()
            house.write_aliases("paints")
            world.write_backends()
    house.write_settings()
    house.write_aliases("paints")
    world.write_backends()
    await world.flow(ended=world.scale.in_flight)
