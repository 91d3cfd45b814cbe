"""The node definitions of all backends: learnt with each connection, kept, renewed behind the caller's back.

Jobs never wait for any of it: answers are made in a thread, requests to a backend go two at a time beside its
control calls, and what is not there is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import trio
from msgspec.structs import replace

from bridged.actors.fetches import Fetches
from bridged.actors.folders import PATIENCE, Choices, Folders
from bridged.errors import BackendUnavailable, NotYetKnown, UnknownFolder
from bridged.model import Graph
from bridged.nodedefs.forms import Definition, inputs_of
from bridged.nodedefs.localise import localised
from bridged.nodedefs.parse import NodeClasses, parse_combos
from bridged.nodedefs.views import Offered, View, Views, definition_of, has_unknown_lists, remotes_of, witnesses

log = logging.getLogger(__name__)

COMBOS = "/bridged/v1/combos"
"""of a patched ComfyUI: which combos list which folders (docs/node-definitions.md)"""

OBJECT_INFO = "object_info"
"""the signal that some backend's node definitions have changed"""

IN_PLACE = 64_000
"""bytes of a class's definitions that are merged on the event loop, some 0.5 ms; more are in a thread"""

PLAIN = View(owners=True)
"""what a backend says itself"""


class Nodes:
    """`backends` names those whose nodes can be used, in the order of the configuration; `refresh` gives the seconds
    for which an answer is fresh (0: until it is renewed by hand); `ask` and `definitions` ask one backend."""

    def __init__(
        self,
        backends: Callable[[], Sequence[str]],
        ask: Callable[[str, str], Awaitable[bytes | None]],
        definitions: Callable[[str], Awaitable[NodeClasses]],
        refresh: Callable[[], float],
    ) -> None:
        self._backends = backends
        self._refresh = refresh
        self.folders = Folders(backends, ask, refresh, self._on_files)
        self._definitions: Fetches[str, NodeClasses] = Fetches(lambda name, _: definitions(name), self._on_answer)
        self._offered: dict[str, Offered] = {}
        self._hints: dict[str, Mapping[tuple[str, str], str]] = {}
        self._views = Views()
        self._one_at_a_time = trio.CapacityLimiter(1)
        self._version = 0
        self._kept: dict[View, tuple[tuple[Offered, ...], bytes]] = {}
        self._locks: dict[View, trio.Lock] = {}

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._definitions.run)
            nursery.start_soon(self.folders.run)

    # -- what is said of backends ------------------------------------------------------------------------------------

    def on_connected(self, backend: str, classes: NodeClasses, combos: bytes | None) -> None:
        """It connected, perhaps after a restart, with other nodes and files. `combos`: its answer to COMBOS."""
        hints: Mapping[tuple[str, str], str] = {}
        if combos is not None:
            try:
                hints = parse_combos(combos)
            except BackendUnavailable as error:
                log.warning("backend %s: its patch is not understood: %s", backend, error)
        self._hints[backend] = hints
        self._definitions.on_back(backend)
        self.folders.on_back(backend)
        self._definitions.put(backend, OBJECT_INFO, classes)

    def on_removed(self, backend: str) -> None:
        """It is no part of the pool any more."""
        self._definitions.forget(backend)
        self._offered.pop(backend, None)
        self._version += 1
        self._hints.pop(backend, None)
        self.folders.tell(OBJECT_INFO)
        self.folders.on_removed(backend)

    def _on_answer(self, backend: str, _: str, classes: NodeClasses, changed: bool) -> None:
        known = self._offered.get(backend)
        if known is None or changed or known.hints != self._hints.get(backend, {}):
            self._put(Offered(backend, classes.definitions, self._hints.get(backend, {})))
        if changed or known is None:
            self.folders.tell(OBJECT_INFO)

    def _on_files(self, backend: str, folder: str, files: Sequence[str]) -> None:
        """A list was read after the definitions: where it says something else, it wins."""
        offered = self._offered.get(backend)
        if offered is None:
            return
        newer = {name: names for name, names in offered.newer.items() if name != folder}
        if not _have_same(offered.lists.get(folder, ()), files):
            newer[folder] = files
        if newer != offered.newer:
            self._put(replace(offered, newer=newer))

    @property
    def version(self) -> int:
        """Counts changes of what is known of node definitions."""
        return self._version

    def localised(self, backend: str, graph: Graph) -> Graph:
        """The graph with the names that a backend knows its files by."""
        offered = self._offered.get(backend)
        return graph if offered is None else localised(graph, offered.classes)

    # -- asked -------------------------------------------------------------------------------------------------------

    async def object_info(self, view: View, *, renewed: bool = False) -> bytes:
        """All classes, as JSON. `renewed`: what the backends say now, not what they said lately.

        Raises NotYetKnown: no backend has answered yet.
        """
        view = self._timed(view)
        pool = await self._pool(view, renewed=renewed)
        async with self._locks.setdefault(view, trio.Lock()):
            kept = self._kept.get(view)
            if kept is None or kept[0] != pool:
                kept = self._kept[view] = (pool, await self._in_thread(self._views.whole, pool, view))
        return kept[1]

    async def class_info(self, name: str, view: View, *, renewed: bool = False) -> bytes | None:
        """One class, as JSON; None where no backend has it. Raises NotYetKnown."""
        view = self._timed(view)
        pool = await self._pool(view, renewed=renewed)
        made: bytes | None = await self._in_thread(self._views.one, pool, name, view)
        return made

    async def definition(self, name: str, *, owners: bool) -> Definition | None:
        """One class in V2 with lazy options, of what is known now; None where no backend has it."""
        pool = [await self._with_own_lists(offered) for offered in self._offers() if name in offered.classes]
        make = partial(definition_of, pool, name, self._timed(View(v2=True, owners=owners)))
        is_small = sum(len(offered.classes[name]) for offered in pool) <= IN_PLACE
        made: Definition | None = make() if is_small else await trio.to_thread.run_sync(make)
        return made

    async def floats(self, name: str) -> frozenset[str]:
        """The inputs of a class that are FLOATs, of what is known now."""
        definition = await self.definition(name, owners=False)
        inputs = inputs_of(definition) if definition else ()
        return frozenset(key for _, key, spec in inputs if isinstance(spec, list) and spec[:1] == ["FLOAT"])

    async def choices(self, name: str, key: str, *, renewed: bool = False) -> Choices:
        """What a remote combo of a node's own lists. Raises UnknownFolder: there is none; NotYetKnown."""
        pool = [offered for offered in self._offers() if name in offered.classes]
        remotes, signal = await self._in_thread(remotes_of, pool, name, key)
        if not remotes:
            raise UnknownFolder(f"no PC has a node {name[:200]!r} with a remote combo {key[:200]!r}")
        return await self.folders.remote(remotes, signal, renewed=renewed)

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _in_thread(self, make: Callable[..., Any], *args: Any) -> Any:
        return await trio.to_thread.run_sync(make, *args, limiter=self._one_at_a_time)

    async def _pool(self, view: View, *, renewed: bool) -> tuple[Offered, ...]:
        """What all backends have, with what the view needs of it."""
        asked = dict.fromkeys(self._backends(), OBJECT_INFO)
        if renewed:
            await self._definitions.renew(asked, 4 * PATIENCE)
        # In V2 the lists of files are fetched one by one, so there is nothing that only the whole could renew.
        await self._definitions.wait(asked, 0 if view.v2 else self._refresh(), PATIENCE)
        pool = tuple(self._offers())
        if not pool:
            raise NotYetKnown("no PC has said yet which nodes it has; try again in a moment")
        if view == PLAIN and len(pool) == 1:
            return pool
        async with trio.open_nursery() as nursery:
            for offered in pool:
                nursery.start_soon(self._gather, offered)
        return tuple(self._offers())

    def _timed(self, view: View) -> View:
        """With how long lists are fresh; V1 does not say it."""
        return replace(view, refresh=round(1000 * self._refresh())) if view.v2 else view

    def _offers(self) -> Iterator[Offered]:
        return (self._offered[name] for name in self._backends() if name in self._offered)

    async def _gather(self, offered: Offered) -> None:
        """Finds the lists of files by which its combos are recognised: those that its own definitions have, and, where
        these leave something open, those that it gives for its other folders."""
        offered = await self._with_own_lists(offered)
        if offered.is_complete:
            return
        others: Mapping[str, Sequence[str]] | None = {}
        if await self._in_thread(has_unknown_lists, offered):
            others = await self.folders.of_one(offered.backend, offered.lists)
        if others is not None:
            self._learn(offered, {**offered.lists, **others}, is_complete=True)

    async def _with_own_lists(self, offered: Offered) -> Offered:
        if offered.lists or offered.is_complete:
            return offered
        found = await self._in_thread(witnesses, offered.classes)
        return self._learn(offered, found) if found else offered

    def _learn(self, offered: Offered, lists: Mapping[str, Sequence[str]], *, is_complete: bool = False) -> Offered:
        """With the lists that belong to its definitions; kept, unless it has others by now."""
        known = self._offered.get(offered.backend, offered)
        same = known.classes is offered.classes
        newer = known.newer if same else offered.newer
        newer = {name: files for name, files in newer.items() if not _have_same(lists.get(name, ()), files)}
        learnt = replace(offered, lists=lists, newer=newer, is_complete=is_complete)
        if same and offered.backend in self._offered:
            self._put(learnt)
        return learnt

    def _put(self, offered: Offered) -> None:
        self._offered[offered.backend] = offered
        self._version += 1


def _have_same(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two lists name the same files; they seldom differ, and then mostly in number."""
    return len(one) == len(other) and (list(one) == list(other) or set(one) == set(other))
