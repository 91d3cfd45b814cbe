"""Which combo of a node lists which folder: file lists that remember where they come from.

While `Listings.watch` is on in a thread, `folder_paths.get_filename_list` gives a `Listing`: a list that knows its
folder and what was put before and after its files. Where such a list is a combo's options, the folder is proven. What a
node made of it in any other way (`sorted`, a filter, a loop) is a plain list, and proves nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, SupportsIndex

MAX_EXTRAS = 16
"""choices that are no files; more of them than that, and it is no list of files"""


TAKEN = frozenset({"type", "route", "response_key", "query_params", "refresh", "remote"})
"""settings by which a combo says already where its choices are, or that mean something else"""


class Listing(list):  # type: ignore[type-arg]  # Python 3.8 and 3.9 could not say list[str] here
    """`first` and `last`: the choices before and after the folder's files that a node has added."""

    def __init__(
        self, files: Iterable[Any] = (), folder: str = "", first: Sequence[Any] = (), last: Sequence[Any] = ()
    ) -> None:
        self.folder = folder
        self.files = list(files)
        self.first = list(first)
        self.last = list(last)
        self.source: Listing = self
        """what get_filename_list gave; this list may be made of it"""
        self.was_read = False
        """of a source: somebody has looked at what is in it, or in a list made of it"""
        super().__init__([*self.first, *self.files, *self.last])

    def _with(self, first: Sequence[Any] = (), last: Sequence[Any] = ()) -> Listing:
        made = Listing(self.files, self.folder, [*first, *self.first], [*self.last, *last])
        made.source = self.source
        return made

    @property
    def is_proven(self) -> bool:
        """Whether it still is its folder's list, with a few texts before and after it."""
        extras = [*self.first, *self.last]
        return (
            bool(self.folder)
            and len(extras) <= MAX_EXTRAS
            and all(isinstance(extra, str) for extra in extras)
            and list.__eq__(self, [*self.first, *self.files, *self.last])
        )

    def __add__(self, other: Any) -> Any:
        if isinstance(other, list) and self.is_proven and not isinstance(other, Listing):
            return self._with(last=other)
        self.source.was_read = True
        return [*self, *other] if isinstance(other, list) else NotImplemented

    def __radd__(self, other: Any) -> Any:
        if not isinstance(other, list):
            return NotImplemented
        return self._with(first=other) if self.is_proven else [*other, *self]

    def __iadd__(self, other: Any) -> Any:
        self.extend(other)
        return self

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice) and place == slice(None) and self.is_proven:
            return self._with()
        self.source.was_read = True
        return super().__getitem__(place)

    def copy(self) -> Any:
        return self[:]

    def append(self, item: Any) -> None:
        self.extend([item])

    def extend(self, items: Iterable[Any]) -> None:
        added = list(items)
        if self.is_proven:
            self.last += added
        super().extend(added)

    def insert(self, place: SupportsIndex, item: Any) -> None:
        if place == 0 and self.is_proven:
            self.first.insert(0, item)
        else:
            self.source.was_read = True  # where that is depends on how many there are
        super().insert(place, item)


def _reading(name: str) -> Any:
    original = getattr(list, name)

    @wraps(original)
    def method(self: Listing, *args: Any, **kwargs: Any) -> Any:
        self.source.was_read = True
        return original(self, *args, **kwargs)

    return method


for _name in (
    *(
        "__iter__",
        "__len__",
        "__contains__",
        "__eq__",
        "__ne__",
        "__lt__",
        "__gt__",
        "__reversed__",
        "__mul__",
        "__rmul__",
    ),
    *("__delitem__", "__setitem__", "count", "index", "pop", "remove", "reverse", "sort"),
):
    setattr(Listing, _name, _reading(_name))


class Listings:
    """The stand-in for `folder_paths.get_filename_list`: that function itself, except where `watch` is on.

    `original`: ComfyUI's function; `known`: a folder's list as it was last scanned, None if it never was;
    `canonical`: the folder's name today ("unet" is "diffusion_models").
    """

    def __init__(
        self,
        original: Callable[[str], list[str]],
        known: Callable[[str], list[str] | None],
        canonical: Callable[[str], str],
    ) -> None:
        self._original = original
        self._known = known
        self._canonical = canonical
        self._thread = threading.local()

    def get_filename_list(self, folder_name: str, *args: Any, **kwargs: Any) -> list[str]:
        asked: list[Listing] | None = getattr(self._thread, "asked", None)
        if asked is None or args or kwargs:
            return self._original(folder_name, *args, **kwargs)
        folder = self._canonical(folder_name)
        # An extension may keep what it gets: so there is in it what can be had without reading a disk.
        files = self._original(folder_name) if self._thread.scan else self._known(folder)
        listing = Listing(files or (), folder)
        asked.append(listing)
        return listing

    @contextmanager
    def watch(self, scan: bool) -> Iterator[list[Listing]]:
        """The lists that are asked for in this thread meanwhile. Without `scan` no disk is read: a folder that was not
        scanned before is empty."""
        self._thread.asked, self._thread.scan = [], scan
        try:
            yield self._thread.asked
        finally:
            self._thread.asked = None


def options_of(spec: Any) -> Any:
    """The choices of an input's specification, in ComfyUI's old form or its newer one; None: it is no such combo."""
    if not isinstance(spec, (list, tuple)) or not spec:
        return None
    if isinstance(spec[0], (list, tuple)):
        return spec[0]
    settings = spec[1] if len(spec) > 1 else None
    if spec[0] != "COMBO" or not isinstance(settings, dict):
        return None
    options = settings.get("options")
    return options if isinstance(options, (list, tuple)) else None


def proven(spec: Any) -> Listing | None:
    """The folder's list that an input shows, where that is certain and its settings leave room to name it instead."""
    options = options_of(spec)
    if not isinstance(options, Listing) or not options.is_proven:
        return None
    settings = spec[1] if len(spec) > 1 else {}
    if not isinstance(settings, dict) or not TAKEN.isdisjoint(settings):
        return None
    return None if spec[0] is options and "options" in settings else options


def inputs_of(input_types: Any) -> Iterator[tuple[str, str, Any]]:
    """(section, name, specification) of all inputs; nothing where it has another form."""
    if not isinstance(input_types, dict):
        return
    for section, inputs in input_types.items():
        if section != "hidden" and isinstance(inputs, dict):
            for name, spec in inputs.items():
                yield section, name, spec


def all_accounted(asked: Sequence[Listing], input_types: Any) -> bool:
    """Whether each list that a node asked for stands in it, unread: then nothing hangs on its contents."""
    seen = {id(found.source) for _, _, spec in inputs_of(input_types) if (found := proven(spec)) is not None}
    return all(id(listing) in seen and not listing.was_read for listing in asked)
