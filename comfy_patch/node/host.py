"""Every interface of ComfyUI's server that this package uses. Only this module and its half
host_queue.py touch ComfyUI and aiohttp.

`INTERFACES` lists them; `Host` looks for each once, says in ONE line of the log what is missing, and offers the rest.
Tried with ComfyUI 0.3.12 and 0.3.64; read in the source of a 2026 release, whose prompts have a sixth part.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import logging
import operator
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .host_queue import HostQueue
from .info import version_of
from .lists import Listings

log = logging.getLogger("bridged_patch")


@dataclass(frozen=True)
class Interface:
    """`place`: module:attribute.attribute; `what_for`: what ends without it; `since`: when ComfyUI got it."""

    place: str
    what_for: str
    since: str


EVERYTHING = "everything"
CANCEL = "cancel, leases, owner's activity, served today"
INTERRUPT = "interrupting"
DEVICES = "memory of devices"
LOADED = "loaded models"
MODELS = "lists of models"
LAZY = "lazy combos"
RETURNS = "RETURNS"
PACKS = "node packs"
EVENTS = "events on WebSockets"
EARLY = "refusing prompts while paused, lists and definitions in the RFC's form"

INTERFACES = (
    Interface("server:PromptServer.instance.routes", EVERYTHING, "2023-03"),
    Interface("server:PromptServer.instance.loop", EVERYTHING, "2023-02"),
    Interface("aiohttp.web:Response", EVERYTHING, "2023-02"),
    Interface("aiohttp.web:middleware", EVERYTHING, "2023-02"),
    Interface("folder_paths:get_user_directory", "remembering a pause over restarts", "2024-09"),
    Interface("server:PromptServer.instance.app.middlewares", EARLY, "2023-02"),
    Interface("server:PromptServer.instance.app.on_startup", RETURNS, "2023-02"),
    Interface("server:PromptServer.instance.send_sync", EVENTS, "2023-02"),
    Interface("server:PromptServer.instance.queue_updated", CANCEL, "2023-02"),
    Interface("server:PromptServer.instance.prompt_queue.mutex", CANCEL, "2023-02"),
    Interface("server:PromptServer.instance.prompt_queue.queue", CANCEL, "2023-02"),
    Interface("server:PromptServer.instance.prompt_queue.currently_running", CANCEL, "2023-02"),
    Interface("server:PromptServer.instance.prompt_queue.history", CANCEL, "2023-02"),
    Interface("server:PromptServer.instance.prompt_queue.delete_queue_item", CANCEL, "2023-02"),
    Interface("nodes:interrupt_processing", INTERRUPT, "2023-03"),
    Interface("comfy.model_management:get_torch_device", DEVICES, "2023-02"),
    Interface("comfy.model_management:get_total_memory", DEVICES, "2023-06"),
    Interface("comfy.model_management:get_free_memory", DEVICES, "2023-02"),
    Interface("comfy.model_management:current_loaded_models", LOADED, "2023-08"),
    Interface("folder_paths:folder_names_and_paths", MODELS, "2023-03"),
    Interface("folder_paths:get_filename_list", MODELS, "2023-03"),
    Interface("folder_paths:get_full_path", MODELS, "2023-03"),
    Interface("folder_paths:filename_list_cache", LAZY, "2023-05"),
    Interface("nodes:NODE_CLASS_MAPPINGS", RETURNS, "2023-01"),
    Interface("nodes:NODE_DISPLAY_NAME_MAPPINGS", LAZY, "2023-03"),
    Interface("nodes:LOADED_MODULE_DIRS", PACKS, "2024-12"),
)
"""In use where they are there, without a word where they are not: `comfyui_version:__version__` (2025-01; else what the
pyproject.toml beside server.py says), `folder_paths:map_legacy` (2024-08), `folder_paths:get_directory_by_type` (2023),
`folder_paths:filter_files_content_types` (2024-09), `comfy.model_management:get_all_torch_devices` (2025), a loaded
model's `model_loaded_memory` (2024-12), `interrupt_current_processing` of `comfy.model_management` (2023-03) and of
`comfy.interruption` (forks)."""


ASIDE = 4
"""threads for what may take long: custom nodes' own code, a drive that does not answer"""


class Host:
    """Raises LookupError: what everything else stands on is missing. `find`: imports a module, for tests."""

    def __init__(self, find: Callable[[str], Any] = importlib.import_module) -> None:
        self._find = find
        absent = [interface for interface in INTERFACES if self._get(interface.place, _ABSENT) is _ABSENT]
        self._lacking = {interface.what_for for interface in absent}
        if absent:
            said = ", ".join(f"{interface.place} ({interface.what_for})" for interface in absent)
            log.warning("bridged_patch: this ComfyUI (%s) lacks, and does without: %s", self.version(), said)
        if EVERYTHING in self._lacking:
            raise LookupError("this ComfyUI has no server that can be extended")
        self._server: Any = self._get("server:PromptServer.instance")
        self._web = find("aiohttp.web")
        self._aside = ThreadPoolExecutor(ASIDE, thread_name_prefix="bridged_patch")

    def has(self, *features: str) -> bool:
        return self._lacking.isdisjoint(features)

    def _get(self, place: str, default: Any = None) -> Any:
        module, _, attributes = place.partition(":")
        try:
            return operator.attrgetter(attributes)(self._find(module))
        except Exception:  # a module may raise anything as it is imported
            return default

    # -- what it is --

    def version(self) -> str:
        said = self._get("comfyui_version:__version__")
        if isinstance(said, str):
            return said
        file = self._get("server:__file__")
        return (version_of(Path(file).parent) if isinstance(file, str) else None) or "unknown"

    def state_file(self, fallback: Path) -> Path:
        """Where we remember things: ComfyUI's user directory, else `fallback`."""
        directory = self._get("folder_paths:get_user_directory")
        return Path(directory() if callable(directory) else fallback) / "bridged_patch.json"

    def packs(self) -> Iterator[tuple[str, Path]]:
        """(name, folder) of the custom node packs that were loaded; a pack of one file has that file."""
        paths = self._get("folder_paths:get_folder_paths")
        roots = {Path(root).resolve() for root in paths("custom_nodes")} if callable(paths) else set()
        for module, folder in dict(self._get("nodes:LOADED_MODULE_DIRS", {})).items():
            place = Path(folder)
            if place.resolve() in roots:  # a file there: its module's name is its path without the ending
                yield Path(module).name, Path(module)
            elif place.resolve().parent in roots or place.parent in roots:
                yield place.name, place

    def devices(self) -> list[dict[str, Any]]:
        """Those that ComfyUI computes on: asking others for their memory would take some of it."""
        if not self.has(DEVICES):
            return []
        management = self._find("comfy.model_management")
        found = [management.get_torch_device()]
        with suppress(Exception):
            found += management.get_all_torch_devices()
        with suppress(Exception):
            found += [model.device for model in list(management.current_loaded_models)]
        names = list(dict.fromkeys(str(device) for device in found))
        by_name = {str(device): device for device in found}
        return [_memory(management, name, by_name[name]) for name in names]

    def loaded_models(self) -> list[dict[str, Any]]:
        models = []
        for loaded in list(self._get("comfy.model_management:current_loaded_models", ())):
            with suppress(Exception):  # it may be unloaded while we look
                patcher = loaded.model
                size = loaded.model_loaded_memory() if hasattr(loaded, "model_loaded_memory") else patcher.model_size()
                models.append({"name": type(getattr(patcher, "model", patcher)).__name__, "size": int(size)})
        return models

    # -- node classes and files --

    @property
    def classes(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._get("nodes:NODE_CLASS_MAPPINGS", {})
        return found

    @property
    def titles(self) -> Mapping[str, str]:
        found: Mapping[str, str] = self._get("nodes:NODE_DISPLAY_NAME_MAPPINGS", {})
        return found

    def listings(self) -> Listings:
        """Puts its function in the place of get_filename_list, which it calls, for good."""
        folder_paths = self._find("folder_paths")
        original = folder_paths.get_filename_list
        listings = Listings(original, self._known_files, self._canonical)
        folder_paths.get_filename_list = functools.wraps(original)(
            lambda *args, **kwargs: listings.get_filename_list(*args, **kwargs)
        )
        return listings

    def names(self) -> Sequence[str]:
        return list(self._find("folder_paths").folder_names_and_paths)

    def files(self, folder: str) -> list[str]:
        return list(self._find("folder_paths").get_filename_list(folder))

    def path(self, folder: str, name: str) -> str | None:
        found: str | None = self._find("folder_paths").get_full_path(folder, name)
        return found

    def owners_files(self, folder: str) -> list[str]:
        """As ComfyUI's own `/internal/files/{folder}`: the newest first, nothing of subfolders."""
        directory = self._get("folder_paths:get_directory_by_type")
        place = directory(folder) if callable(directory) else None
        if place is None:
            return []
        with suppress(OSError):
            entries = [entry for entry in Path(place).iterdir() if entry.is_file()]
            return [entry.name for entry in sorted(entries, key=lambda entry: -entry.stat().st_mtime)]
        return []

    def of_content_types(self, files: list[str], types: list[str]) -> list[str]:
        chosen = self._get("folder_paths:filter_files_content_types")
        return list(chosen(files, types)) if callable(chosen) else files

    def _known_files(self, folder: str) -> list[str] | None:
        folder_paths = self._find("folder_paths")
        if folder not in folder_paths.folder_names_and_paths:
            raise KeyError(folder)
        known = folder_paths.filename_list_cache.get(folder)
        return None if known is None else list(known[0])

    def _canonical(self, folder: str) -> str:
        today = self._get("folder_paths:map_legacy")
        return str(today(folder)) if callable(today) else folder

    # -- the queue --

    def queue(self) -> HostQueue:
        """A prompt's start clears the interrupt flag through `nodes`; extensions may do so where the flag is."""
        modules = [self._find("nodes")]
        for name in ("comfy.model_management", "comfy.interruption"):
            with suppress(Exception):
                modules.append(self._find(name))
        return HostQueue(self._server, modules)

    # -- the server --

    def announce(self, event: str, data: Any) -> None:
        """To every WebSocket; from any thread."""
        if self.has(EVENTS):
            self._server.send_sync(event, data)

    def claim(self) -> bool:
        """Whether nobody was here before us: a second copy of the package, or this one loaded again, would count and
        remember everything twice."""
        first = not hasattr(self._server, "bridged_patch")
        self._server.bridged_patch = True
        return first

    def at_start(self, call: Callable[[], object]) -> None:
        """When all extensions are loaded and nobody is served yet."""

        async def started(app: Any) -> None:
            call()

        self._server.app.on_startup.append(started)

    def soon(self, call: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop is closed: ComfyUI ends
            self._server.loop.call_soon_threadsafe(call)

    def later(self, delay: float, call: Callable[[], object]) -> Callable[[], object]:
        cancel: Callable[[], object] = self._server.loop.call_later(delay, call).cancel
        return cancel

    def monotonic(self) -> float:
        return time.monotonic()

    def in_thread(self, call: Callable[[], object]) -> None:
        """From any thread; nobody waits for it."""
        self.soon(lambda: self._server.loop.run_in_executor(None, call))

    def add_route(self, method: str, path: str, handler: Callable[[Any], Any]) -> None:
        self._server.routes.route(method, path)(handler)

    def add_middleware(self, middleware: Callable[[Any, Any], Any]) -> None:
        """The innermost: after ComfyUI's check of the origin."""
        self._server.app.middlewares.append(self._web.middleware(middleware))

    def response(self, body: bytes, status: int) -> Any:
        headers = {"Cache-Control": "no-store"}
        return self._web.Response(
            body=body, status=status, content_type="application/json", charset="utf-8", headers=headers
        )

    async def wait(self, call: Callable[[], Any], aside: bool = False) -> Any:
        """The result of a call that may wait, in a thread. `aside`: for long, and so in none of those that ComfyUI
        serves its files and uploads with."""
        return await asyncio.get_running_loop().run_in_executor(self._aside if aside else None, call)


def _memory(management: Any, name: str, device: Any) -> dict[str, Any]:
    try:
        total, free = int(management.get_total_memory(device)), int(management.get_free_memory(device))
    except Exception as error:  # a driver's
        log.debug("bridged_patch: the memory of %s cannot be asked: %r", name, error)
        total = free = 0
    return {
        "name": name,
        "type": str(getattr(device, "type", name)),
        "memory_total": total,
        "memory_free": free,
    }


_ABSENT = object()
