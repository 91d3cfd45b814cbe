"""The few interfaces of ComfyUI's server that the patch uses (comfy_patch/node/host.py), as they are in 0.3.64."""

from __future__ import annotations

import asyncio
import heapq
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

Item = tuple[Any, ...]


class Clock:
    def __init__(self, now: float = 1_795_438_800.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Timer:
    """An event loop whose time is the test's. Calls that are due are made by `run`."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.alarms: list[list[Any]] = []

    def soon(self, call: Callable[[], object]) -> None:
        self.later(0, call)

    def later(self, delay: float, call: Callable[[], object]) -> Callable[[], object]:
        alarm = [self.clock.now + delay, call]
        self.alarms.append(alarm)
        return lambda: self.alarms.remove(alarm) if alarm in self.alarms else None

    def monotonic(self) -> float:
        return self.clock.now

    def run(self, seconds: float = 0.0, *, asleep: bool = False) -> int:
        """Lets time pass; `asleep`: nothing rings before all of it has passed. How many alarms rang."""
        end, rang = self.clock.now + seconds, 0
        if asleep:
            self.clock.now = end
        while due := [alarm for alarm in self.alarms if alarm[0] <= end]:
            alarm = min(due, key=lambda each: each[0])
            self.alarms.remove(alarm)
            self.clock.now = max(self.clock.now, alarm[0])
            alarm[1]()
            rang += 1
            assert rang < 1000, "it never sleeps"
        self.clock.now = end
        return rang


class PromptQueue:
    """ComfyUI's execution.PromptQueue, without the copies."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.mutex = threading.RLock()
        self.queue: list[Item] = []
        self.currently_running: dict[int, Item] = {}
        self.history: dict[str, Any] = {}
        self.counter = 0
        self.on_delete: Callable[[], object] = lambda: None

    def put(self, item: Item) -> None:
        with self.mutex:
            heapq.heappush(self.queue, item)
            self.server.queue_updated()

    def get(self) -> tuple[Item, int] | None:
        with self.mutex:
            if not self.queue:
                return None
            item = heapq.heappop(self.queue)
            self.counter += 1
            self.currently_running[self.counter] = item
            self.server.queue_updated()
            return item, self.counter

    def task_done(self, key: int, completed: bool) -> None:
        with self.mutex:
            item = self.currently_running.pop(key)
            self.history[item[1]] = {"outputs": {}, "status": {"completed": completed}}
            self.server.queue_updated()

    def delete_queue_item(self, function: Callable[[Item], bool]) -> bool:
        with self.mutex:
            for place, item in enumerate(self.queue):
                if function(item):
                    self.queue.pop(place)
                    heapq.heapify(self.queue)
                    self.server.queue_updated()
                    self.on_delete()
                    return True
        return False


CPU = SimpleNamespace(type="cpu")


class Interrupted(Exception):
    pass


class Management:
    """comfy.model_management's flag."""

    def __init__(self) -> None:
        self.flag = False
        self.current_loaded_models = [
            SimpleNamespace(device=CPU, model=SimpleNamespace(model=Sdxl(), model_size=lambda: 7))
        ]

    def interrupt_current_processing(self, value: bool = True) -> None:
        self.flag = value

    def throw_if_interrupted(self) -> None:
        if self.flag:
            self.flag = False
            raise Interrupted

    def get_torch_device(self) -> Any:
        return CPU

    def get_total_memory(self, device: Any) -> int:
        return 16

    def get_free_memory(self, device: Any) -> int:
        return 8


class Sdxl:
    pass


class Comfy:
    """`find` is what importlib.import_module would be in ComfyUI's process."""

    def __init__(self, user: Path, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.events: list[tuple[str, Any]] = []
        self.routes: dict[tuple[str, str], Any] = {}
        self.middlewares: list[Any] = []
        self.started: list[Any] = []
        self.loop = loop
        self.management = Management()
        self.server = SimpleNamespace(
            routes=SimpleNamespace(
                route=lambda method, path: lambda handler: self.routes.__setitem__((method, path), handler)
            ),
            loop=self.loop,
            app=SimpleNamespace(middlewares=self.middlewares, on_startup=self.started),
            send_sync=lambda event, data: self.events.append((event, data)),
            queue_updated=lambda: None,
        )
        self.queue = self.server.prompt_queue = PromptQueue(self.server)
        self.files = {"loras": ["a.safetensors", "sub/b.safetensors"], "vae": [], "custom_nodes": ["secret.py"]}
        self.scanned: list[str] = []
        self.classes: dict[str, Any] = {}
        self.modules: dict[str, Any] = {
            "server": SimpleNamespace(PromptServer=SimpleNamespace(instance=self.server)),
            "comfyui_version": SimpleNamespace(__version__="0.3.64"),
            "aiohttp.web": SimpleNamespace(Response=SimpleNamespace, middleware=lambda call: call),
            "comfy.model_management": self.management,
            "folder_paths": SimpleNamespace(
                get_user_directory=lambda: str(user),
                get_folder_paths=lambda name: [str(user / name)],
                folder_names_and_paths=self.files,
                filename_list_cache={},
                get_filename_list=self._scan,
                get_full_path=lambda folder, name: str(user / folder / name),
                map_legacy=lambda name: {"lora": "loras"}.get(name, name),
            ),
            "nodes": SimpleNamespace(
                interrupt_processing=lambda value=True: self.management.interrupt_current_processing(value),
                NODE_CLASS_MAPPINGS=self.classes,
                NODE_DISPLAY_NAME_MAPPINGS={"Loader": "A loader"},
                LOADED_MODULE_DIRS={"x": str(user / "custom_nodes" / "x"), "nodes_latent": str(user / "comfy_extras")},
            ),
        }

    def find(self, module: str) -> Any:
        if module not in self.modules:
            raise ModuleNotFoundError(module)
        return self.modules[module]

    @property
    def folder_paths(self) -> Any:
        return self.modules["folder_paths"]

    def _scan(self, folder: str) -> list[str]:
        folder = self.folder_paths.map_legacy(folder)
        self.scanned.append(folder)
        self.folder_paths.filename_list_cache[folder] = (list(self.files[folder]), {}, 0.0)
        return list(self.files[folder])

    # -- its worker, step by step --

    def submit(
        self, prompt_id: str, client: str = "bridge", lease: float | None = 60.0, number: float | None = None
    ) -> None:
        extra: dict[str, Any] = {"client_id": client}
        if lease is not None:
            extra["bridged"] = {"lease": lease}
        place = len(self.queue.queue) + self.queue.counter if number is None else number
        self.queue.put((place, prompt_id, {}, extra, []))

    def take(self) -> int:
        """The next prompt counts as running from now on."""
        taken = self.queue.get()
        assert taken is not None
        return taken[1]

    def begin(self) -> None:
        """It begins to execute it, a moment later."""
        self.modules["nodes"].interrupt_processing(False)

    def node(self) -> None:
        """Between two nodes. Raises Interrupted."""
        self.management.throw_if_interrupted()

    def done(self, key: int, completed: bool = True) -> None:
        self.queue.task_done(key, completed)
