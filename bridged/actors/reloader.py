"""Watches the configuration folder and the workflows, and applies what changed.

Folders are watched, not files (a watched file misses atomic replaces). An invalid file keeps its previous content and
is reported once; the next good save clears the report.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import trio
import watchfiles

from bridged import catalogue
from bridged.config.diff import Diff, diff
from bridged.config.load import load
from bridged.config.schema import Config

log = logging.getLogger(__name__)

SETTLE_MS = 100
"""a save is often several changes (write, rename, chmod): they are taken together when this long passes without one"""

IGNORED = (".swp", ".swx", ".swo", "~", ".tmp", ".part", ".bak", ".orig")


class Loaded(msgspec.Struct, frozen=True):
    """One generation of the configuration, and what of the files on disk could not be used."""

    config: Config
    catalogue: catalogue.Catalogue
    problems: tuple[str, ...]
    generation: int


def load_all(folder: Path, environ: Mapping[str, str] | None = None, previous: Loaded | None = None) -> Loaded:
    """Reads everything. Blocking. Raises ConfigError: bridged.toml or backends.toml is bad and there is no previous."""
    config, problems = load(folder, environ, previous.config if previous else None)
    sources = [
        catalogue.Source(entry.alias, entry.fn, entry.description, entry.thumbnail) for entry in config.aliases
    ]
    workflows, more = catalogue.load(
        config.workflows_dir,
        sources,
        config.settings.files.allowed,
        previous.catalogue if previous else catalogue.EMPTY,
    )
    generation = previous.generation + 1 if previous else 1
    return Loaded(config, workflows, (*problems, *more), generation)


class Reloader:
    """`current` is what is in force. `applied` is called with the difference after each change."""

    def __init__(
        self, loaded: Loaded, applied: Callable[[Diff, Loaded], None], environ: Mapping[str, str] | None = None
    ) -> None:
        self.current = loaded
        self._applied = applied
        self._environ = environ

    async def reload(self) -> None:
        """Reads the files now (SIGHUP does, too)."""
        before = self.current
        now = await trio.to_thread.run_sync(load_all, before.config.folder, self._environ, before)
        for problem in now.problems:
            if problem not in before.problems:
                log.error("configuration: %s; the previous content stays in force", problem)
        if (now.config, now.catalogue) == (before.config, before.catalogue):
            self.current = msgspec.structs.replace(now, generation=before.generation)
            return
        self.current = now
        changes = diff(before.config, now.config)
        for part in changes.needs_restart:
            log.warning("configuration: the changes under [%s] apply after a restart", part)
        self._applied(changes, now)
        log.info("configuration: generation %d is in force", now.generation)

    async def run(self) -> None:
        """Watches until cancelled. A workflows folder named by a changed setting is watched from then on."""
        while True:
            watched = self._folders()
            stop = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_set_when_cancelled, stop)
                async for _ in watchfiles.awatch(
                    *watched, watch_filter=_counts, step=SETTLE_MS, stop_event=stop, recursive=True
                ):
                    await self.reload()
                    if self._folders() != watched:
                        break
                nursery.cancel_scope.cancel()

    def _folders(self) -> list[Path]:
        config = self.current.config
        return sorted({config.folder, config.workflows_dir})


async def _set_when_cancelled(stop: trio.Event) -> None:
    """Ends watchfiles' thread at once: being cancelled alone takes it up to 5 s (its `rust_timeout`)."""
    try:
        await trio.sleep_forever()
    finally:
        stop.set()


def _counts(_: watchfiles.Change, path: str) -> bool:
    name = os.path.basename(path)
    return not (name.startswith((".", "#", "4913")) or name.endswith(IGNORED))
