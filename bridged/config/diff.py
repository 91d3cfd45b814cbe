"""What changed between two configurations, so that what did not change is not touched."""

from __future__ import annotations

import msgspec

from bridged.config.schema import Backend, Config


class Diff(msgspec.Struct, frozen=True):
    """Backends by what is to be done with them, and the settings that only a restart applies."""

    added: tuple[Backend, ...]
    removed: tuple[str, ...]
    reconnect: tuple[Backend, ...]
    """its address or headers changed: the old connection drains, a new one takes over"""
    retuned: tuple[Backend, ...]
    """only drain, max_running or tags changed: the connection stays"""
    withdrawn: tuple[str, ...]
    """clients that have no key any more"""
    needs_restart: tuple[str, ...]


def diff(old: Config, new: Config) -> Diff:
    before = {backend.name: backend for backend in old.backends}
    after = {backend.name: backend for backend in new.backends}
    common = [(before[name], after[name]) for name in before if name in after]
    return Diff(
        added=tuple(after[name] for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        reconnect=tuple(b for a, b in common if a.place != b.place),
        retuned=tuple(b for a, b in common if a != b and a.place == b.place),
        withdrawn=tuple(c.name for c in old.clients if c.name not in {client.name for client in new.clients}),
        needs_restart=tuple(
            name
            for name, a, b in (
                ("server", old.settings.server, new.settings.server),
                ("state", old.state_dir, new.state_dir),
            )
            if a != b
        ),
    )
