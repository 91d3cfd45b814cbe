"""The lists that combos show: each backend's folders, and whatever else its nodes name a route for.

A list is asked for when somebody opens it; backends that are away keep what they said last. Who listens hears when
a list that was opened lately has changed.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import trio

from bridged.actors.fetches import Fetches
from bridged.errors import NotYetKnown, UnknownFolder
from bridged.nodedefs.combos import Remote
from bridged.nodedefs.lazy import PRIVATE, normalise, signal_of
from bridged.nodedefs.loaders import LEGACY
from bridged.nodedefs.parse import parse_list

PATIENCE = 5.0
"""seconds that a caller waits for backends that have never answered a question; then it is told what is there"""

ROUTE = re.compile(r"/[A-Za-z0-9_.~!$'()*+,;=:@/-]{0,500}")
"""of a PC's own server, in one way to write it: nothing is percent-encoded"""

INTERNAL = frozenset({"internal", "userdata", "users", "settings", "view", "history", "queue", "logs"})
"""what ComfyUI has there is its owner's"""

MAX_PATH = 2000
"""characters"""

MAX_FOLDERS = 200
"""of one PC, that are read to find out what its combos list"""

IN_PLACE = 5000
"""choices that are united on the event loop: about 1 ms; more are in a thread"""

MOST = 256
"""lists that are kept united"""

LATELY = 3600.0
"""seconds for which a list that was opened is watched, while somebody listens"""


class Question(msgspec.Struct, frozen=True):
    """What a backend is asked. `signal`: the event that says of another answer; "" for none."""

    path: str
    response_key: str = ""
    is_files: bool = False
    folder: str = ""
    signal: str = ""


class Choices(msgspec.Struct, frozen=True):
    """What all backends together list. `names`: each choice once, in the order of the backends; `lists`: what each of
    them says; `unknown`: who has not answered yet."""

    names: Sequence[Any]
    lists: Mapping[str, Sequence[Any]]
    unknown: tuple[str, ...]

    def who(self) -> dict[Any, list[str]]:
        """Choice -> the backends that have it."""
        found: dict[Any, list[str]] = {choice: [] for choice in self.names}
        for backend, choices in self.lists.items():
            for choice in dict.fromkeys(choices):
                found[choice].append(backend)
        return found


FOLDERS = Question("/models")


def models(folder: str) -> Question:
    """The files of one of ComfyUI's model folders, or of input, output and temp."""
    place = "/internal/files" if folder in PRIVATE else "/models"
    return Question(f"{place}/{quote(folder, safe='')}", is_files=True, folder=folder, signal=signal_of(folder))


class Listener:
    """Somebody who hears signals: each once, however often it came before it was taken."""

    def __init__(self) -> None:
        self._waiting: dict[str, None] = {}
        self._news = trio.Event()

    def put(self, signal: str) -> None:
        self._waiting[signal] = None
        self._news.set()

    async def take(self) -> list[str]:
        await self._news.wait()
        self._news = trio.Event()
        signals, self._waiting = list(self._waiting), {}
        return signals


class Folders:
    """`backends`: whose files can be chosen, in the order of the configuration; `refresh`: seconds for which a list is
    fresh (0: until it is renewed by hand); `ask`: GET a path of a backend, None where it has none such (raises
    BackendUnavailable)."""

    def __init__(
        self,
        backends: Callable[[], Sequence[str]],
        ask: Callable[[str, str], Awaitable[bytes | None]],
        refresh: Callable[[], float],
        on_files: Callable[[str, str, Sequence[str]], object],
    ) -> None:
        self._backends = backends
        self._ask = ask
        self._refresh = refresh
        self._on_files = on_files
        self._lists: Fetches[Question, tuple[Any, ...]] = Fetches(self._fetch, self._on_answer)
        self._by_cache_key: dict[tuple[str, str], Question] = {}
        """a key of a node author's own: combos that have it share what the first of them was asked"""
        self._united: OrderedDict[tuple[tuple[str, Question], ...], tuple[dict[str, tuple[Any, ...]], Choices]] = (
            OrderedDict()
        )
        """questions -> the answers, and what was made of them"""
        self._one_at_a_time = trio.Lock()
        self._opened: dict[tuple[str, Question], tuple[float, float]] = {}
        """what somebody opened -> when, and the seconds for which it is fresh"""
        self._listeners: set[Listener] = set()
        self._somebody = trio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._lists.run)
            while True:
                await self._somebody.wait()
                await trio.sleep(self._refresh() or LATELY)
                self._look_again()

    # -- asked -------------------------------------------------------------------------------------------------------

    async def files(self, folder: str, *, renewed: bool = False) -> Choices:
        """The files of a folder, by names that are the same for every PC.

        Raises UnknownFolder: no backend has it; NotYetKnown: none has said.
        """
        backends = self._backends()
        question = models(await self._known(folder, backends))
        return await self._choices(dict.fromkeys(backends, question), self._refresh(), renewed=renewed)

    async def remote(self, remotes: Mapping[str, Remote], signal: str, *, renewed: bool = False) -> Choices:
        """What a node's own remote combo lists: of each backend only what its own definition names.

        Raises NotYetKnown, UnknownFolder (a route that is none of ComfyUI's).
        """
        asked = {}
        for backend, remote in remotes.items():
            question = question_of(remote, signal)
            if remote.cache_key is not None:
                question = self._by_cache_key.setdefault((backend, remote.cache_key), question)
            asked[backend] = question
        refresh = min((remote.refresh for remote in remotes.values()), default=0) / 1000
        return await self._choices(asked, refresh, renewed=renewed)

    async def of_one(self, backend: str, but: Container[str]) -> dict[str, Sequence[str]] | None:
        """The folders of one backend, but for those, with their files; None where it does not answer in time."""
        answers: dict[str, Sequence[str]] = {}
        with trio.move_on_after(PATIENCE):
            known = await self._lists.wait({backend: FOLDERS}, self._refresh(), PATIENCE)
            named = (name for name in known.get(backend, ()) if isinstance(name, str) and name not in but)
            wanted = list(islice(named, MAX_FOLDERS))
            for name in wanted:
                self._lists.get(backend, models(name), self._refresh())
            for name in wanted:
                found = await self._lists.wait({backend: models(name)}, self._refresh(), PATIENCE)
                if backend in found:
                    answers[name] = found[backend]
            return answers if backend in known and len(answers) == len(wanted) else None
        return None

    # -- told --------------------------------------------------------------------------------------------------------

    def on_back(self, backend: str) -> None:
        """It has connected, perhaps after a restart, with other files."""
        self._lists.on_back(backend)

    def on_removed(self, backend: str) -> None:
        self._by_cache_key = {key: question for key, question in self._by_cache_key.items() if key[0] != backend}
        for question in self._lists.forget(backend):
            self.tell(question.signal)

    def tell(self, signal: str) -> None:
        for listener in self._listeners if signal else ():
            listener.put(signal)

    @contextmanager
    def listen(self) -> Iterator[Listener]:
        """Somebody who hears signals, until the end of the block."""
        listener = Listener()
        self._listeners.add(listener)
        self._somebody.set()
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            if not self._listeners:
                self._somebody = trio.Event()

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _known(self, folder: str, backends: Sequence[str]) -> str:
        if folder in PRIVATE:
            return folder
        said = await self._lists.wait(dict.fromkeys(backends, FOLDERS), self._refresh(), PATIENCE)
        if not said:
            raise NotYetKnown("no PC has said yet which folders it has; try again in a moment")
        for name in (folder, LEGACY.get(folder)):
            if name is not None and any(name in folders for folders in said.values()):
                return name
        raise UnknownFolder(f"no PC has a folder {folder[:200]!r}")

    async def _choices(self, asked: Mapping[str, Question], refresh: float, *, renewed: bool) -> Choices:
        now = trio.current_time()
        self._opened |= {(backend, question): (now, refresh) for backend, question in asked.items()}
        if renewed:
            await self._lists.renew(asked, 2 * PATIENCE)
        said = await self._lists.wait(asked, refresh, PATIENCE)
        if not said:
            raise NotYetKnown("no PC has answered that yet; try again in a moment")
        key = tuple(asked.items())
        kept = self._united.get(key)
        if kept is None or not _are_same(kept[0], said):
            async with self._one_at_a_time:  # of many that ask at once, the first one makes it for all
                kept = self._united.get(key)
                if kept is None or not _are_same(kept[0], said):
                    make = partial(_unite, asked, said)
                    is_small = sum(map(len, said.values())) <= IN_PLACE
                    kept = said, make() if is_small else await trio.to_thread.run_sync(make)
                    self._united[key] = kept
        if key in self._united:
            self._united.move_to_end(key)
        while len(self._united) > MOST:
            self._united.popitem(last=False)
        return kept[1]

    async def _fetch(self, backend: str, question: Question) -> tuple[Any, ...]:
        body = await self._ask(backend, question.path)
        if body is None:
            return ()
        parse = partial(parse_list, body, question.response_key, files=question.is_files)
        return await trio.to_thread.run_sync(parse)

    def _on_answer(self, backend: str, question: Question, answer: tuple[Any, ...], changed: bool) -> None:
        if question.is_files:
            self._on_files(backend, question.folder, answer)
        if changed:
            self.tell(question.signal)

    def _look_again(self) -> None:
        """Somebody listens: what was opened lately is asked for where it is stale, so that a change is heard of."""
        now = trio.current_time()
        self._opened = {key: seen for key, seen in self._opened.items() if now - seen[0] <= LATELY}
        backends = set(self._backends())
        for (backend, question), (_, refresh) in self._opened.items():
            if backend in backends:
                self._lists.get(backend, question, refresh)


def _unite(asked: Mapping[str, Question], said: Mapping[str, Sequence[Any]]) -> Choices:
    lists = {backend: _normalised(names) if asked[backend].is_files else names for backend, names in said.items()}
    names = tuple(dict.fromkeys(chain.from_iterable(lists.values())))
    return Choices(names, lists, tuple(backend for backend in asked if backend not in said))


def _normalised(names: Sequence[str]) -> Sequence[str]:
    """All names in one pass: some thousand from each PC are usual. None of them has a line break (`parse_list`)."""
    text = "\n".join(names)
    return normalise(text).split("\n") if "\\" in text else names


def _are_same(kept: Mapping[str, object], said: Mapping[str, object]) -> bool:
    return kept.keys() == said.keys() and all(kept[backend] is said[backend] for backend in said)


def question_of(remote: Remote, signal: str) -> Question:
    """What a backend is asked for a remote combo of its own. Raises UnknownFolder: its route leads somewhere else."""
    place, joint, own_query = remote.route.partition("?")
    steps = place.split("/")[1:]
    if not ROUTE.fullmatch(place) or any(step in ("", ".", "..") for step in steps[:-1]) or steps[-1] in (".", ".."):
        raise UnknownFolder(f"the route {remote.route[:200]!r} is none of its ComfyUI's")
    if steps[0] in INTERNAL or (steps[0] == "api" and steps[1:2] and steps[1] in INTERNAL):
        raise UnknownFolder(f"the route {remote.route[:200]!r} is its owner's")
    query = urlencode(sorted(remote.query_params.items()), doseq=True)
    path = place + ("?" if joint or query else "") + "&".join(filter(None, (quote(own_query, safe="&=+,%"), query)))
    if len(path) > MAX_PATH:
        raise UnknownFolder(f"the route {remote.route[:200]!r} is too long with its parameters")
    return Question(path, remote.response_key or "", signal=signal)
