"""Watches the configuration folder and the workflows, and applies what changed.

Folders are watched, not files (a watched file misses atomic replaces). An invalid file keeps its previous content and
is reported once; the next good save clears the report.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar

import msgspec
import trio
import watchfiles

from bridged import catalogue
from bridged.config.diff import Diff, diff
from bridged.config.load import load
from bridged.config.schema import AliasEntry, Config
from bridged.errors import ConfigError

log = logging.getLogger(__name__)

SETTLE_MS = 100
"""a save is often several changes (write, rename, chmod): they are taken together when this long passes without one"""

LOOK_AGAIN_MS = 1000
"""how often to look whether a watched folder was replaced by another (the watch stays with the old one)"""

IGNORED = (".swp", ".swx", ".swo", "~", ".tmp", ".part", ".bak", ".orig")


T = TypeVar("T")


class Loaded(msgspec.Struct, frozen=True):
    """One generation of the configuration, and what of the files on disk could not be used. `catalogue` is what
    applies of the operator's own workflows (`shipped`) and of those that were published."""

    config: Config
    shipped: catalogue.Catalogue
    published: catalogue.Catalogue
    catalogue: catalogue.Catalogue
    problems: tuple[str, ...]
    generation: int


def load_all(folder: Path, environ: Mapping[str, str] | None = None, previous: Loaded | None = None) -> Loaded:
    """Reads everything. Blocking. Raises ConfigError: bridged.toml or backends.toml is bad and there is no previous."""
    config, problems = load(folder, environ, previous.config if previous else None)
    allowed = config.settings.files.allowed
    shipped, wrong = catalogue.load(
        config.workflows_dir, _sources(config.aliases), allowed, previous.shipped if previous else catalogue.EMPTY
    )
    published, more = catalogue.load(
        config.published_dir, _sources(config.published), allowed, previous.published if previous else catalogue.EMPTY
    )
    problems += [*wrong, *(f"published workflows: {each}" for each in more)]
    generation = previous.generation + 1 if previous else 1
    return Loaded(
        config, shipped, published, catalogue.over(shipped, published), tuple(problems), generation
    )


def _sources(entries: Iterable[AliasEntry]) -> list[catalogue.Source]:
    return [
        catalogue.Source(
            entry.alias,
            entry.fn,
            entry.description,
            entry.thumbnail,
            catalogue.Options(entry.on_disconnect, entry.max_runtime, entry.no_progress_timeout, entry.metadata),
        )
        for entry in entries
    ]


class Reloader:
    """`current` is what is in force. `applied` is called with the difference after each change."""

    def __init__(
        self, loaded: Loaded, applied: Callable[[Diff, Loaded], None], environ: Mapping[str, str] | None = None
    ) -> None:
        self.current = loaded
        self._applied = applied
        self._environ = environ
        self._reloading = trio.Lock()

    async def reload(self) -> None:
        """Reads the files now (SIGHUP does, too), one reading after the other. Whatever is wrong with them, what is
        in force stays."""
        async with self._reloading:
            await self._reload()

    async def change(self, write: Callable[[], T]) -> T:
        """Runs `write` (blocking), which changes what is watched; when this returns, that is in force. One at a time,
        and no reading sees the half of it. Raises what `write` raises."""
        async with self._reloading:
            written = await trio.to_thread.run_sync(write)
            await self._reload()
            return written

    async def _reload(self) -> None:
        before = self.current
        try:
            now = await trio.to_thread.run_sync(load_all, before.config.folder, self._environ, before)
        except Exception as error:
            foreseen = isinstance(error, ConfigError)
            problem = str(error) if foreseen else "it could not be read; the log says why"
            now = msgspec.structs.replace(before, problems=(problem,))
            if now.problems != before.problems and not foreseen:
                log.exception("configuration: it could not be read")
        self._put_in_force(before, now)

    def _put_in_force(self, before: Loaded, now: Loaded) -> None:
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
        """Watches until cancelled. Folders that are replaced, or newly named by a setting, are watched from then on."""
        while True:
            watched = self._folders()
            identities = _identities(watched)
            stop = trio.Event()
            is_first = True
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_set_when_cancelled, stop)
                changes = watchfiles.awatch(
                    *(folder for folder, identity in zip(watched, identities, strict=True) if identity),
                    watch_filter=_counts,
                    step=SETTLE_MS,
                    stop_event=stop,
                    rust_timeout=LOOK_AGAIN_MS,
                    yield_on_timeout=True,
                )
                try:
                    async with aclosing(changes):
                        async for changed in changes:
                            # What was saved after the last reading and before this watch began, nobody tells.
                            if changed or is_first:
                                is_first = False
                                await self.reload()
                            if self._folders() != watched or _identities(watched) != identities:
                                break
                except OSError as error:
                    log.warning("configuration: its folders cannot be watched: %s", error.strerror)
                    await trio.sleep(LOOK_AGAIN_MS / 1000)
                nursery.cancel_scope.cancel()
            await self.reload()

    def _folders(self) -> list[Path]:
        config = self.current.config
        return sorted({config.folder, config.workflows_dir, config.published_dir})


def _identities(folders: list[Path]) -> list[tuple[int, int] | None]:
    """What tells a folder from another one that took its name; None for one that is not there."""
    found: list[tuple[int, int] | None] = []
    for folder in folders:
        try:
            stat = folder.stat()
            found.append((stat.st_dev, stat.st_ino))
        except OSError:
            found.append(None)
    return found


async def _set_when_cancelled(stop: trio.Event) -> None:
    """Ends watchfiles' thread at once: being cancelled alone takes it up to 5 s (its `rust_timeout`)."""
    try:
        await trio.sleep_forever()
    finally:
        stop.set()


def _counts(_: watchfiles.Change, path: str) -> bool:
    name = os.path.basename(path)
    return not (name.startswith((".", "#", "4913")) or name.endswith(IGNORED))
