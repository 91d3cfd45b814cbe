"""The scripted execution of one prompt, with the events of ComfyUI 0.3.64 in their order."""

import json
import struct
import time
from typing import Any, Protocol

import trio

from .files import FileStore, StoredFile, png_for
from .graph import execution_order, signatures
from .script import PromptRecord, PromptScript, Script

PREVIEW, PREVIEW_WITH_METADATA = 1, 4
JPEG_MAGIC = b"\xff\xd8"


class Surroundings(Protocol):
    """What the engine needs of the fake that it works in."""

    script: Script
    violations: list[str]

    def emit(self, kind: str, data: dict[str, Any], sid: str | None = None) -> None: ...
    def emit_binary(self, message: bytes, sid: str | None = None) -> None: ...
    def changed(self) -> None: ...
    def takes_metadata(self, sid: str | None) -> bool: ...


class Worker(Protocol):
    """What an execution needs of the engine that runs it."""

    client_id: str | None
    last_node: str | None
    files: FileStore
    cache: dict[str, Any]
    written: dict[str, Any]

    def take_interrupt(self) -> bool: ...
    def is_output(self, record: PromptRecord, node_id: str) -> bool: ...
    async def hold(
        self, record: PromptRecord, point: str, gate: trio.Event | None, *, interruptible: bool = True
    ) -> None: ...


class Interrupted(Exception):
    pass


class NodeFailed(Exception):
    pass


class Play:
    """One execution of one prompt."""

    def __init__(self, engine: Worker, around: Surroundings, record: PromptRecord) -> None:
        self.messages: list[list[Any]] = []
        self.was_interrupted = False
        self._engine, self._around, self._record = engine, around, record
        self._script: PromptScript = record.script
        self._progress: dict[str, dict[str, Any]] = {}
        self._signatures: dict[str, str] = {}

    def emit(self, kind: str, data: dict[str, Any]) -> None:
        """To the prompt's client, or to everybody when it has none."""
        if self._script.ws_events:
            self._around.emit(kind, data, self._engine.client_id)

    def message(self, kind: str, data: dict[str, Any], *, broadcast: bool = False) -> None:
        """An event that also goes into the history."""
        data = {**data, "timestamp": int(time.time() * 1000)}
        self.messages.append([kind, data])
        if self._engine.client_id is not None or broadcast:
            self.emit(kind, data)

    async def nodes(self) -> None:
        record, engine = self._record, self._engine
        prompt_id = record.prompt_id
        self._around.changed()
        self.message("execution_start", {"prompt_id": prompt_id})
        self._signatures = signatures(record.graph)
        cached = self._cached()
        self.message("execution_cached", {"nodes": cached, "prompt_id": prompt_id})
        order = execution_order(
            record.graph, record.targets, cached, lambda node: engine.is_output(record, node)
        )
        gate = self._script.gate
        for node_id in order:
            if node_id in cached:
                self._repeat(node_id)
                continue
            record.node = node_id
            await self._node(node_id, self._script.gates.get(node_id, gate))
            gate = None
        record.node = None

    def _cached(self) -> list[str]:
        known = self._engine.cache
        # As the real one: only what the prompt before this one had stays.
        self._engine.cache = {sig: known[sig] for sig in self._signatures.values() if sig in known}
        if self._script.cached == "all":
            return list(self._record.graph)
        if self._around.script.auto_cache:
            return [node_id for node_id, sig in self._signatures.items() if sig in self._engine.cache]
        return [node_id for node_id in self._record.graph if node_id in self._script.cached]

    def _repeat(self, node_id: str) -> None:
        """A cached target: its earlier output once more (a new file when there never was one)."""
        ui = self._engine.written.get(self._signatures[node_id])
        if ui is None and self._engine.is_output(self._record, node_id):
            ui = self._write(node_id)
        if ui is not None:
            self._record.outputs[node_id] = ui
        if self._engine.client_id is not None and not self._script.omit_executed:
            self._executed(node_id, ui)
        self._set_progress(node_id, 1, 1, "finished")

    def _executed(self, node_id: str, ui: Any) -> None:
        where = {"node": node_id, "display_node": node_id}
        self.emit("executed", {**where, "output": ui, "prompt_id": self._record.prompt_id})

    async def _node(self, node_id: str, gate: trio.Event | None) -> None:
        script, engine, record = self._script, self._engine, self._record
        self._set_progress(node_id, 0.0, 1.0, "running")
        if engine.client_id is not None:
            engine.last_node = node_id
            where = {"node": node_id, "display_node": node_id}
            self.emit("executing", {**where, "prompt_id": record.prompt_id})
        self._around.changed()
        self._check_interrupt(node_id)
        await engine.hold(record, node_id, gate)
        self._check_interrupt(node_id)
        steps = script.node_steps.get(node_id, script.steps)
        duration = script.durations.get(node_id, script.node_duration) / max(steps, 1)
        for step in range(max(steps, 1)):
            # Even a node of no duration lets others run: a real server's worker is a thread of its own.
            await trio.sleep(duration)
            if steps:
                self._check_interrupt(node_id)
                self._step(node_id, step + 1, steps)
        await engine.hold(record, node_id, script.busy.get(node_id), interruptible=False)
        if script.fail_node in (node_id, record.graph[node_id]["class_type"]):
            self._fail(node_id)
        ui = self._write(node_id) if engine.is_output(record, node_id) else None
        engine.cache[self._signatures[node_id]] = ui
        if ui is not None:
            record.outputs[node_id] = engine.written[self._signatures[node_id]] = ui
            if engine.client_id is not None and not script.omit_executed:
                self._executed(node_id, ui)
        entry = self._progress[node_id]
        self._set_progress(node_id, entry["max"], entry["max"], "finished")
        record.executed.append(node_id)

    def _check_interrupt(self, node_id: str) -> None:
        if not self._engine.take_interrupt():
            return
        self.was_interrupted = True
        self.message("execution_interrupted", self._where(node_id), broadcast=True)
        raise Interrupted

    def _fail(self, node_id: str) -> None:
        inputs = self._record.graph[node_id]["inputs"]
        details = {
            "exception_message": f"{self._script.fail_message}\n",
            "exception_type": self._script.fail_type,
            "traceback": ['  File "nodes.py", line 1, in run\n'],
            "current_inputs": {k: [v] for k, v in inputs.items() if not isinstance(v, list)},
            "current_outputs": list(self._record.graph),
        }
        self.message("execution_error", {**self._where(node_id), **details})
        raise NodeFailed

    def _where(self, node_id: str) -> dict[str, Any]:
        record = self._record
        node_type = record.graph[node_id]["class_type"]
        where = {"prompt_id": record.prompt_id, "node_id": node_id, "node_type": node_type}
        return {**where, "executed": list(record.executed)}

    def _set_progress(self, node_id: str, value: float, limit: float, state: str) -> None:
        self._progress[node_id] = {
            "value": value,
            "max": limit,
            "state": state,
            "node_id": node_id,
            "prompt_id": self._record.prompt_id,
            "display_node_id": node_id,
            "parent_node_id": None,
            "real_node_id": node_id,
        }
        self.emit("progress_state", {"prompt_id": self._record.prompt_id, "nodes": self._progress})

    def _step(self, node_id: str, value: int, limit: int) -> None:
        """One step's events; the preview comes before `progress` with metadata, and after it without."""
        self._set_progress(node_id, value, limit, "running")
        sid, image = self._engine.client_id, self._script.preview
        described = image is not None and self._around.takes_metadata(sid)
        if described:
            self._preview(node_id, described=True)
        where = {"prompt_id": self._record.prompt_id, "node": node_id}
        self.emit("progress", {"value": value, "max": limit, **where})
        if image is not None and not described:
            self._preview(node_id, described=False)
        self._around.changed()

    def _preview(self, node_id: str, *, described: bool) -> None:
        image = self._script.preview
        if image is None or not self._script.ws_events:
            return
        jpeg = image.startswith(JPEG_MAGIC)
        head = struct.pack(">II", PREVIEW, 1 if jpeg else 2)
        if described:
            names = ("node_id", "prompt_id", "display_node_id", "parent_node_id", "real_node_id")
            metadata = {name: self._progress[node_id][name] for name in names}
            metadata["image_type"] = "image/jpeg" if jpeg else "image/png"
            text = json.dumps(metadata).encode()
            head = struct.pack(">II", PREVIEW_WITH_METADATA, len(text)) + text
        self._around.emit_binary(head + image, self._engine.client_id)

    def _write(self, node_id: str) -> dict[str, Any]:
        """The files of an output node, each with bytes of its own."""
        script, record = self._script, self._record
        node = record.graph[node_id]
        temporary = node["class_type"].startswith("Preview")
        prefix = str(node["inputs"].get("filename_prefix", "ComfyUI")) + ("_temp_abcde" if temporary else "")
        entries = []
        for index in range(script.images_per_node):
            content = script.output_bytes
            if content is None:
                content = png_for(record.prompt_id, node_id, index)
            record.images.append(content)
            file = StoredFile(content, record)
            entries.append(
                self._engine.files.save(
                    "temp" if temporary else "output", prefix, script.output_extension, file
                )
            )
        return {script.output_key: entries}
