"""Runs the prompts, one at a time, one node after the other, each in the one worker thread."""

from __future__ import annotations

import logging
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from bridged.embedded.graph import Cache, Done, Schedule
from bridged.embedded.nodes import NODES, Call, Interrupted, Result
from bridged.embedded.progress import Progress, Publisher, preview_jpeg
from bridged.embedded.queue import Item, PromptQueue
from bridged.embedded.validation import type_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridged.embedded.folders import Folders
    from bridged.embedded.imaging import Picture

logger = logging.getLogger(__name__)

REPORT_INTERVAL = 0.05
"""Seconds between two progress reports of a node; quicker ones are skipped, except the first and the last."""


class Executor:
    def __init__(self, folders: Folders, publisher: Publisher) -> None:
        self._folders = folders
        self._publisher = publisher
        self.queue = PromptQueue(self._publish_status)
        self._cache = Cache()
        self._memories: dict[tuple[str, str], dict[str, Any]] = {}
        self._one_thread = trio.CapacityLimiter(1)
        self._interrupted = False
        self._free_wanted = False
        self._current: tuple[str | None, str] | None = None

    def status(self) -> dict[str, Any]:
        return {"exec_info": {"queue_remaining": self.queue.remaining}}

    def current_node(self, client_id: str) -> str | None:
        """The node that runs now, if it is that client's prompt."""
        return self._current[1] if self._current is not None and self._current[0] == client_id else None

    def interrupt(self, prompt_id: str | None) -> None:
        """Stop the running prompt; with a prompt_id only if it is that one. Takes effect at the next node,
        picture or pass."""
        running = self.queue.running
        if running is not None and prompt_id in (None, running.prompt_id):
            self._interrupted = True

    def free(self) -> None:
        """Drop all cached pictures once nothing runs."""
        self._free_wanted = True
        self.queue.wake()

    async def run(self) -> None:
        """Until cancelled. A node that is running then is told to stop, and not waited for."""
        try:
            while True:
                await self.queue.wait()
                while (item := self.queue.take()) is not None:
                    self._interrupted = False
                    await self._run_prompt(item)
                    self._free_if_wanted()
                self._free_if_wanted()
        finally:
            self._interrupted = True

    def _free_if_wanted(self) -> None:
        if self._free_wanted:
            self._free_wanted = False
            self._cache.clear()

    async def _run_prompt(self, item: Item) -> None:
        run = _Run(self, item)
        try:
            completed = await run.execute()
        except Exception:
            logger.exception("prompt %s failed in the worker itself", item.prompt_id)
            completed = False
        self._current = None
        # A real ComfyUI announces success a moment before the history has it. Clients must live with that, so
        # they meet it here too.
        await trio.lowlevel.checkpoint()
        outputs: dict[str, Any] = {}
        meta: dict[str, Any] = {}
        for node_id in item.prompt:
            done = self._cache.get(node_id)
            if done is not None and done.result.ui is not None:
                outputs[node_id], meta[node_id] = done.result.ui, done.meta
        status = {
            "status_str": "success" if completed else "error",
            "completed": completed,
            "messages": [list(message) for message in run.messages],
        }
        self.queue.done(outputs, meta, status)
        if item.client_id is not None:
            self._publisher.send("executing", {"node": None, "prompt_id": item.prompt_id}, item.client_id)

    def _publish_status(self) -> None:
        self._publisher.send("status", {"status": self.status()}, None)

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        # Abandoning is only for the end of the process: `run` sets the interrupt flag, which stops the thread
        # soon.
        return await trio.to_thread.run_sync(work, limiter=self._one_thread, abandon_on_cancel=True)


@dataclass
class _Failure:
    error: Exception
    inputs: dict[str, Any]


class _Run:
    """One prompt's run."""

    def __init__(self, executor: Executor, item: Item) -> None:
        self._executor = executor
        self._publisher = executor._publisher
        self._cache = executor._cache
        self._item = item
        self._client_id = item.client_id
        self._prompt = item.prompt
        self._executed: list[str] = []
        self._progress = Progress(self._publisher, item.prompt_id, item.client_id)
        self.messages: list[tuple[str, dict[str, Any]]] = []

    async def execute(self) -> bool:
        """True when every output is there."""
        self._message("execution_start", {"prompt_id": self._item.prompt_id})
        fingerprints = await self._fingerprints()
        self._cache.begin(self._prompt, fingerprints)
        self._forget_memories()
        # A real ComfyUI puts the fingerprints into the prompt that it writes into pictures.
        prompt = {
            node_id: node | ({"is_changed": [fingerprints[node_id]]} if node_id in fingerprints else {})
            for node_id, node in self._prompt.items()
        }
        cached = [node_id for node_id in self._prompt if self._cache.get(node_id) is not None]
        self._message("execution_cached", {"nodes": cached, "prompt_id": self._item.prompt_id})
        schedule = Schedule(self._prompt, self._item.outputs, self._cache)
        while schedule:
            node_id = schedule.next()
            failure = await self._node(node_id, prompt)
            if failure is not None:
                self._report_failure(node_id, failure)
                return False
            schedule.finished(node_id)
        self._message("execution_success", {"prompt_id": self._item.prompt_id})
        return True

    async def _node(self, node_id: str, prompt: dict[str, Any]) -> _Failure | None:
        cached = self._cache.get(node_id)
        if cached is not None:
            self._to_client("executed", node_id, output=cached.result.ui)
            self._progress.finish(node_id)
            return None
        self._progress.start(node_id)
        self._executor._current = (self._client_id, node_id)
        self._to_client("executing", node_id)
        inputs = self._inputs(node_id)
        work = _Work(self._executor, self._item, node_id, self._progress)
        try:
            result: Result = await self._executor._in_thread(lambda: work(prompt, inputs))
        except Exception as error:  # a node's failure is the prompt's, not the worker's
            return _Failure(error, inputs)
        meta = {"node_id": node_id, "display_node": node_id, "parent_node": None, "real_node_id": node_id}
        self._cache.put(node_id, Done(result, meta))
        if result.ui is not None:
            self._to_client("executed", node_id, output=result.ui)
        self._progress.finish(node_id)
        self._executed.append(node_id)
        return None

    def _inputs(self, node_id: str) -> dict[str, Any]:
        node = self._prompt[node_id]
        inputs = {}
        for name in NODES[node["class_type"]].inputs:
            value = node["inputs"].get(name)
            if isinstance(value, list):
                done = self._cache.get(value[0])
                assert done is not None
                value = done.result.outputs[value[1]]
            inputs[name] = value
        return inputs

    async def _fingerprints(self) -> dict[str, str]:
        wanted = {
            node_id: (fingerprint, node["inputs"])
            for node_id, node in self._prompt.items()
            if (fingerprint := NODES[node["class_type"]].fingerprint) is not None
            and isinstance(node.get("inputs"), dict)
        }
        if not wanted:
            return {}

        def compute() -> dict[str, str]:
            found = {}
            for node_id, (fingerprint, inputs) in wanted.items():
                names = NODES[self._prompt[node_id]["class_type"]].inputs
                try:
                    found[node_id] = fingerprint(
                        self._executor._folders, **{name: inputs[name] for name in names}
                    )
                except (OSError, ValueError, KeyError, TypeError):
                    found[node_id] = f"unknown since {time.monotonic_ns()}"  # it runs, and says what is wrong
            return found

        answer: dict[str, str] = await self._executor._in_thread(compute)
        return answer

    def _forget_memories(self) -> None:
        memories = self._executor._memories
        keys = {(node_id, node["class_type"]) for node_id, node in self._prompt.items()}
        for key in memories.keys() - keys:
            del memories[key]

    def _report_failure(self, node_id: str, failure: _Failure) -> None:
        data: dict[str, Any] = {
            "prompt_id": self._item.prompt_id,
            "node_id": node_id,
            "node_type": self._prompt[node_id]["class_type"],
            "executed": list(self._executed),
        }
        if isinstance(failure.error, Interrupted):
            self._message("execution_interrupted", data, broadcast=True)
            return
        logger.info("node %s (%s) failed: %r", node_id, data["node_type"], failure.error)
        data |= {
            "exception_message": f"{failure.error}\n",
            "exception_type": type_name(failure.error),
            "traceback": traceback.format_tb(failure.error.__traceback__),
            "current_inputs": {name: [_shown(value)] for name, value in failure.inputs.items()},
            "current_outputs": list(self._prompt),
        }
        self._message("execution_error", data)

    def _message(self, event: str, data: dict[str, Any], *, broadcast: bool = False) -> None:
        """An event that the history keeps. Without a client_id it is sent to nobody, or with `broadcast` to
        everybody."""
        data = data | {"timestamp": int(time.time() * 1000)}
        self.messages.append((event, data))
        if self._client_id is not None or broadcast:
            self._publisher.send(event, data, self._client_id)

    def _to_client(self, event: str, node_id: str, **more: Any) -> None:
        if self._client_id is not None:
            data = {"node": node_id, "display_node": node_id, **more, "prompt_id": self._item.prompt_id}
            self._publisher.send(event, data, self._client_id)


class _Work:
    """One node's call; runs in the worker thread, and tells the event loop's thread about progress without
    waiting for it."""

    def __init__(self, executor: Executor, item: Item, node_id: str, progress: Progress) -> None:
        self._executor = executor
        self._item = item
        self._node_id = node_id
        self._progress = progress
        self._token = trio.lowlevel.current_trio_token()
        self._last_report = 0.0

    def __call__(self, prompt: dict[str, Any], inputs: dict[str, Any]) -> Result:
        self._check()
        class_type = self._item.prompt[self._node_id]["class_type"]
        call = Call(
            self._executor._folders,
            prompt,
            self._item.extra_data.get("extra_pnginfo"),
            self._check,
            self._report,
            self._executor._memories.setdefault((self._node_id, class_type), {}),
        )
        return NODES[class_type].function(call, **inputs)

    def _check(self) -> None:
        if self._executor._interrupted:
            raise Interrupted

    def _report(self, done: int, total: int, picture: Picture | None) -> None:
        now = time.monotonic()
        if done < total and now - self._last_report < REPORT_INTERVAL:
            return
        self._last_report = now
        heard = picture is not None and self._executor._publisher.is_heard(self._item.client_id)
        jpeg = preview_jpeg(picture) if heard and picture is not None else None
        self._token.run_sync_soon(self._progress.step, self._node_id, done, total, jpeg)


def _shown(value: Any) -> Any:
    if value is None or isinstance(value, int | float | str):
        return value
    return f"picture of shape {value.shape}" if hasattr(value, "shape") else str(value)
