"""Publishing: a workflow that is sent is checked, written into the state folder, and in force when it is answered."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import trio

from bridged.actors.reloader import Reloader
from bridged.config import published
from bridged.config.load import load
from bridged.config.schema import Config
from bridged.errors import BadRequest, BridgedError, FileRefused, UnknownAlias
from bridged.files.clamd import Scanner
from bridged.files.spool import storage_errors
from bridged.publication import Checked, Publication, check, decoded, write_floats

log = logging.getLogger(__name__)

T = TypeVar("T")


class Published(msgspec.Struct, frozen=True):
    """`inputs` are the keys of /workflow-info; `previous`: the file that keeps the version that was replaced."""

    alias: str
    inputs: list[str]
    warnings: list[str]
    previous: str | None


class Listed(msgspec.Struct, frozen=True):
    """A published workflow. `replaces`: the operator's own folder has one of that alias, too; `previous`: the files
    that keep its earlier versions, the oldest first."""

    alias: str
    fn: str
    description: str
    inputs: list[str]
    replaces: bool
    previous: list[str]


class Publisher:
    """`known` gives the node classes of each backend that has answered; `floats` the inputs of one that are FLOATs."""

    def __init__(
        self,
        reloader: Reloader,
        scanner: Scanner,
        known: Callable[[], Mapping[str, frozenset[str]]],
        floats: Callable[[str], Awaitable[frozenset[str]]],
    ) -> None:
        self._reloader = reloader
        self._scanner = scanner
        self._known = known
        self._floats = floats
        self._checks = trio.CapacityLimiter(1)

    async def publish(self, publication: Publication, who: str) -> tuple[Published, bool]:
        """Puts it in force; whether its alias is new among what is published. `who` is for the log. Raises BadRequest
        (all that is wrong with it), ScannerAway, OutOfSpace, StorageFailed."""
        config = self._reloader.current.config
        known = self._known()
        checked = await trio.to_thread.run_sync(
            partial(check, publication, config.settings.files, known),
            limiter=self._checks,
            abandon_on_cancel=True,
        )
        await _scanned(self._scanner, config, checked)
        kinds = {content["class_type"] for content in checked.version.graph.values()}
        write_floats(checked.version.graph, {kind: await self._floats(kind) for kind in kinds})
        written = await self._write(partial(published.publish, config.published_dir, checked.version))
        now = self._reloader.current
        in_force = now.published.workflows.get(publication.alias)
        if in_force is None or in_force.fn != written.fn:
            raise BridgedError(f"it is written, and not in force: {'; '.join(now.problems) or 'the log says why'}")
        warnings = list(checked.warnings)
        if written.new and publication.alias in now.shipped.workflows:
            warnings.append("the workflows folder has one of that name, too; the published one wins")
        log.info("workflow %r was published by %s", publication.alias, who)
        return Published(publication.alias, checked.inputs, warnings, written.previous), written.new

    async def remove(self, alias: str, who: str) -> None:
        """`who` is for the log. Raises UnknownAlias: nothing was published under that alias; OutOfSpace,
        StorageFailed."""
        now = self._reloader.current
        try:
            await self._write(partial(published.remove, now.config.published_dir, alias))
        except UnknownAlias as error:
            if alias in now.shipped.workflows:
                raise UnknownAlias(f"{error}; the one of that name is in the workflows folder") from None
            raise
        log.info("workflow %r was taken out by %s", alias, who)

    async def listed(self) -> list[Listed]:
        """What is published, in the order of the list."""
        now = self._reloader.current

        def look() -> list[Listed]:
            return [
                Listed(
                    alias=each.alias,
                    fn=each.fn,
                    description=each.description,
                    inputs=list(each.inputs),
                    replaces=each.alias in now.shipped.workflows,
                    previous=published.versions(now.config.published_dir, each.alias),
                )
                for each in now.published.workflows.values()
            ]

        return await trio.to_thread.run_sync(look)

    async def _write(self, write: Callable[[], T]) -> T:
        with storage_errors():
            return await self._reloader.change(write)


async def _scanned(scanner: Scanner, config: Config, checked: Checked) -> None:
    """Raises BadRequest: the virus scanner found something; ScannerAway."""
    clamd = config.settings.files.clamd
    for (_, name), content in checked.version.pictures.items() if clamd else ():
        try:
            await scanner.scan(clamd, content, name)
        except FileRefused as error:
            raise BadRequest(str(error)) from None


# -- without a running service ---------------------------------------------------------------------------------------


async def publish_offline(folder: Path, environ: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """Publishes into the state folder of that configuration; a service that starts, or watches it, takes it up. Which
    nodes the PCs have is not known here. Raises as `Publisher.publish`."""
    config, _ = load(folder, environ)
    checked = check(decoded(body), config.settings.files, {})
    await _scanned(Scanner(), config, checked)
    with storage_errors(), published.as_its_owner(config.published_dir):
        written = published.publish(config.published_dir, checked.version)
    said = Published(checked.version.alias, checked.inputs, checked.warnings, written.previous)
    return {**msgspec.to_builtins(said), "folder": str(config.published_dir)}


def remove_offline(folder: Path, environ: Mapping[str, str], alias: str) -> str:
    """Where it was. Raises UnknownAlias, OutOfSpace, StorageFailed."""
    config, _ = load(folder, environ)
    with storage_errors(), published.as_its_owner(config.published_dir):
        published.remove(config.published_dir, alias)
    return str(config.published_dir)
