"""The fake's queue, history and one worker, as in ComfyUI 0.3.64: one prompt at a time, smallest number
first.
"""

import heapq
import itertools
from collections.abc import Mapping
from typing import Any

import trio

from .files import FileStore
from .play import Interrupted, NodeFailed, Play, Surroundings
from .script import END, START, STORE, PromptRecord, State


class Engine:
    """The prompts of one fake. All methods but `run` are synchronous, so each is atomic."""

    def __init__(self, around: Surroundings, files: FileStore, classes: Mapping[str, Any]) -> None:
        self.prompts: dict[str, PromptRecord] = {}
        self.history: dict[str, dict[str, Any]] = {}
        self.running: PromptRecord | None = None
        self.client_id: str | None = None  # of the prompt that runs, or ran last
        self.last_node: str | None = None  # sent to its client when that reconnects
        self.files = files
        self._around, self._classes = around, classes
        self._heap: list[tuple[float, str, int, PromptRecord]] = []
        self._sequence = itertools.count()
        self._numbers = itertools.count()
        self._work = trio.Event()
        self._life = trio.CancelScope()
        self._interrupt = False
        self._hold_scope: trio.CancelScope | None = None
        self.cache: dict[str, Any] = {}  # signature -> ui output or None; what auto_cache goes by
        self.written: dict[
            str, Any
        ] = {}  # signature -> the ui output it last had; what scripted caching repeats

    # The queue

    def next_number(self) -> int:
        return next(self._numbers)

    @property
    def pending(self) -> list[PromptRecord]:
        """In heap order, as GET /queue gives it."""
        return [entry[3] for entry in self._heap]

    @property
    def remaining(self) -> int:
        return len(self._heap) + (self.running is not None)

    def put(self, record: PromptRecord) -> None:
        self.prompts[record.prompt_id] = record
        record.on_state = self._around.script.on_state
        record.enter("queued")
        if record.script.lose_at == "queued":
            record.enter("lost")
        else:
            entry = (record.number, record.prompt_id, next(self._sequence), record)
            heapq.heappush(self._heap, entry)
            self.announce()
            self._work.set()
        self._around.changed()

    def delete(self, prompt_id: str) -> bool:
        """Takes a pending prompt off the queue; nothing happens to a running one."""
        for entry in self._heap:
            if entry[1] == prompt_id:
                if len(self._heap) == 1:
                    self.announce(less=1)  # a real one wipes the queue then, and announces twice
                self._heap.remove(entry)
                heapq.heapify(self._heap)
                entry[3].enter("deleted")
                self.announce()
                self._around.changed()
                return True
        return False

    def clear(self) -> None:
        for entry in self._heap:
            entry[3].enter("deleted")
        self._heap.clear()
        self.announce()
        self._around.changed()

    def interrupt(self) -> None:
        """Stops whatever runs, at its next node, step or gate."""
        self._interrupt = True
        if self._hold_scope is not None:
            self._hold_scope.cancel()

    def take_interrupt(self) -> bool:
        """Whether an interrupt is due; it is taken by that."""
        due, self._interrupt = self._interrupt, False
        return due

    def crash(self) -> None:
        """The process dies: queue, history and the running prompt are gone, files stay."""
        for record in [*self.pending, *([self.running] if self.running else [])]:
            record.enter("lost")
        self._heap.clear()
        self.history.clear()
        self.cache.clear()
        self.running = self.client_id = self.last_node = None
        self._numbers = itertools.count()
        self._life.cancel()
        self._around.changed()

    def announce(self, less: int = 0) -> None:
        self._around.emit("status", {"status": {"exec_info": {"queue_remaining": self.remaining - less}}})

    # The worker

    async def run(self) -> None:
        while True:
            while not self._heap:
                self._work = trio.Event()
                await self._work.wait()
            record = heapq.heappop(self._heap)[3]
            self.running = record
            record.enter("running")
            self.announce()
            self._around.changed()
            with trio.CancelScope() as self._life:
                await self._play(record)

    async def _play(self, record: PromptRecord) -> None:
        await self.hold(record, START, record.script.gates.get(START), interruptible=False)
        if record.script.lose_at == "running":
            self.running = None
            record.enter("lost")
            self.announce()
            self._around.changed()
            return
        self._interrupt = False
        self.client_id = record.client_id
        play = Play(self, self._around, record)
        end: State = "done"
        try:
            await play.nodes()
        except Interrupted:
            end = "interrupted"
        except NodeFailed:
            end = "error"
        if end == "done":
            await self.hold(record, END, record.script.gates.get(END), interruptible=False)
            play.message("execution_success", {"prompt_id": record.prompt_id})
            self._around.changed()
        await self.hold(record, STORE, record.script.gates.get(STORE), interruptible=False)
        if record.script.history_lag:
            await trio.sleep(record.script.history_lag)
        self.last_node = None
        self._store(record, play, completed=end == "done")
        record.enter(end)
        self.announce()
        if self.client_id is not None:
            play.emit("executing", {"node": None, "prompt_id": record.prompt_id})
        self._around.changed()

    def _store(self, record: PromptRecord, play: Play, *, completed: bool) -> None:
        self.running = None
        if record.foreign and play.was_interrupted:
            self._around.violations.append(f"foreign prompt {record.prompt_id} was interrupted")
        if record.script.lose_at != "history":
            self.history[record.prompt_id] = {
                "prompt": record.item(),
                "outputs": dict(record.outputs),
                "status": {
                    "status_str": "success" if completed else "error",
                    "completed": completed,
                    "messages": play.messages,
                },
                "meta": {
                    node: {"node_id": node, "display_node": node, "parent_node": None, "real_node_id": node}
                    for node in record.outputs
                },
            }

    async def hold(
        self, record: PromptRecord, point: str, gate: trio.Event | None, *, interruptible: bool = True
    ) -> None:
        if gate is None or gate.is_set():
            return
        record.held_at = point
        self._around.changed()
        with trio.CancelScope() as scope:
            self._hold_scope = scope if interruptible else None
            await gate.wait()
        self._hold_scope = None
        record.held_at = None

    def is_output(self, record: PromptRecord, node_id: str) -> bool:
        return bool(self._classes[record.graph[node_id]["class_type"]]["output_node"])
