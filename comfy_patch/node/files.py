"""A folder's files: `/internal/files/{folder}`, and all folders with sizes for `models`."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

MAX_SIZED = 20_000
"""files whose size is looked up for one answer; the others have size null. About 1 s on a slow disk."""

FRESH = 5.0
"""seconds for which sizes are told again without a look at the disk"""

NOT_MODELS = frozenset({"custom_nodes"})
"""its "files" are all files of all node packs"""

OWNERS = frozenset({"input", "output", "temp"})
"""no model folders; ComfyUI's own front end reads their lists at the same address, in ComfyUI's own form"""

log = logging.getLogger("bridged_patch")


class Folders(Protocol):
    """ComfyUI's folder_paths. `files` raises KeyError: there is no such folder."""

    def names(self) -> Sequence[str]: ...

    def files(self, folder: str) -> list[str]: ...

    def path(self, folder: str, name: str) -> str | None: ...

    def owners_files(self, folder: str) -> list[str]: ...

    def of_content_types(self, files: list[str], types: list[str]) -> list[str]: ...


class Files:
    """All of it is for a thread that may wait for a disk."""

    def __init__(self, folders: Folders, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._folders = folders
        self._monotonic = monotonic
        self._one_at_a_time = threading.Lock()
        self._sized: tuple[float, dict[str, Any]] | None = None

    def listed(
        self,
        folder: str,
        filter_ext: Collection[str] = (),
        filter_content_type: Collection[str] = (),
        first: Sequence[str] = (),
        last: Sequence[str] = (),
    ) -> list[str] | None:
        """The folder's files that pass, between the choices that are no files; None: there is no such folder."""
        if folder in OWNERS:
            files = self._folders.owners_files(folder)
        elif folder in NOT_MODELS:
            return None
        else:
            try:
                files = self._folders.files(folder)
            except KeyError:
                return None
        if filter_ext:
            endings = tuple(ending.lower() for ending in filter_ext)
            files = [name for name in files if name.lower().endswith(endings)]
        if filter_content_type:
            files = self._folders.of_content_types(files, list(filter_content_type))
        return [*first, *files, *last]

    def models(self) -> dict[str, list[dict[str, Any]]]:
        """Folder -> its files with sizes in bytes."""
        with self._one_at_a_time:
            if self._sized is None or self._monotonic() - self._sized[0] > FRESH:
                self._sized = (self._monotonic(), self._sizes())
            return self._sized[1]

    def _sizes(self) -> dict[str, list[dict[str, Any]]]:
        left = MAX_SIZED
        found: dict[str, list[dict[str, Any]]] = {}
        for folder in self._folders.names():
            if folder in NOT_MODELS:
                continue
            try:
                names = self._folders.files(folder)
            except Exception as error:  # a drive that is gone, a folder that an extension took back
                log.debug("bridged_patch: the folder %s cannot be listed: %r", folder, error)
                continue
            found[folder] = [
                {"name": name, "size": self._size(folder, name) if place < left else None}
                for place, name in enumerate(names)
            ]
            left = max(0, left - len(names))
        return found

    def _size(self, folder: str, name: str) -> int | None:
        try:
            path = self._folders.path(folder, name)
            return None if path is None else os.stat(path).st_size
        except (OSError, ValueError):
            return None
