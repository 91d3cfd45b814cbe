"""One PC of the suite: the fake ComfyUI as a process of its own, with a diary that survives its being killed.

    python -m tests.faults.pc --port 8188 --name pc-1 --diary FILE --seed S

Every output is `picture_of` the value of its graph (the colour of its EmptyImage). The diary gets a line for each state
that a prompt enters, written by one system call each. `POST /control` gives orders (`Orders`), by JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio

from tests.fakes.comfyui import Call, FakeComfyUI, Graph, PromptRecord, PromptScript, Reply
from tests.fakes.comfyui.routes import route

from .pictures import picture_of

OWNER = "owner"
"""how the client ids of the PC's owner begin"""

WRONG_SHAPES = (b"null", b"[]", b'"?"', b"17")
"""JSON that none of the routes may answer, so that it is a fault and no lie"""

WRONG_FRAMES = ("[]", "null", '{"type": 5}', '{"type": "executing", "data": null}', '{"type": "progress"}', "\ufffd{")


@dataclass
class Orders:
    """What a PC is told to do from now on. Shares are 0.0 to 1.0, times are seconds.

    `mangle` maps a route (`POST /prompt`, `GET /history/*`, …) to the ways in which its answers may go wrong:
    truncate, cut (truncate and RST), garbage, wrong, error, empty, hang, reset.
    """

    mangle: dict[str, list[str]] = field(default_factory=dict)
    share: float = 0.0
    frames: float = 0.0  # share of WebSocket messages that are broken
    silent: bool = False  # WebSockets stay open and say nothing
    history_lag: float = 0.0
    slow: float = 0.0  # added to every answer
    node_duration: float = 0.02
    steps: int = 3


class Diary:
    """Lines of JSON, appended. A line is in the kernel's hands when `write` returns."""

    def __init__(self, path: str, name: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._name = name
        self.write("boot")

    def write(self, event: str, **facts: object) -> None:
        line = json.dumps({"pc": self._name, "event": event, "at": time.monotonic(), **facts})
        os.write(self._fd, line.encode() + b"\n")


class Violations(list[str]):
    """The fake's list of what nobody may do, which goes into the diary, too."""

    def __init__(self, diary: Diary) -> None:
        super().__init__()
        self._diary = diary

    def append(self, text: str) -> None:
        super().append(text)
        self._diary.write("violation", text=text)


def value_of(graph: Graph) -> int:
    """The value that makes a job's graph unlike all others; 0 where it has none."""
    colours = [node["inputs"].get("color") for node in graph.values() if node.get("class_type") == "EmptyImage"]
    return int(colours[0]) if colours and isinstance(colours[0], int) else 0


class Pc:
    """The process: the fake, its orders, its diary."""

    def __init__(self, name: str, diary: Diary, seed: str) -> None:
        self.orders = Orders()
        self._rng = random.Random(seed)
        self._diary = diary
        self.fake = FakeComfyUI(name=name)
        self.fake.violations = Violations(diary)
        script = self.fake.script
        script.hook, script.for_prompt = self._hook, self._script_of
        script.on_state, script.frame_filter = self._note, self._frame

    def _script_of(self, graph: Graph, prompt_id: str) -> PromptScript:
        value = value_of(graph)
        orders = self.orders
        return PromptScript(
            node_duration=orders.node_duration * (0.5 + value % 7 / 4),
            steps=orders.steps,
            output_bytes=picture_of(value),
            fail_node="ImageInvert",  # only the workflow that always fails has one
            fail_message="this workflow always fails",
            history_lag=orders.history_lag,
        )

    def _note(self, record: PromptRecord) -> None:
        record.foreign = (record.client_id or "").startswith(OWNER)
        facts: dict[str, object] = {"prompt": record.prompt_id, "value": value_of(record.graph)}
        self._diary.write(record.state, owner=record.foreign, **facts)

    def _frame(self, message: str | bytes) -> str | bytes | None:
        if self.orders.silent:
            return None
        if self._rng.random() >= self.orders.frames:
            return message
        how = self._rng.randrange(4)
        if how == 0:
            return self._rng.choice(WRONG_FRAMES)
        if how == 1:
            return self._rng.randbytes(self._rng.randrange(40))
        if isinstance(message, str):
            return message[: self._rng.randrange(1, len(message))]
        return message[:3]

    async def _hook(self, call: Call) -> Reply | None:
        """Orders first; then the answer of the fake, and what becomes of it on its way."""
        if call.route == "/control":
            for name, value in (call.json or {}).items():
                setattr(self.orders, name, value)
            return Reply.json({"pid": os.getpid(), "remaining": self.fake.engine.remaining})
        if call.route == "/ws" or call.headers.get("x-owner"):
            return None
        if self.orders.slow:
            await trio.sleep(self.orders.slow * self._rng.random() * 2)
        ways = self.orders.mangle.get(f"{call.method} {call.route}") or self.orders.mangle.get(_wild(call))
        if not ways or self._rng.random() >= self.orders.share:
            return None
        return self._mangled(await route(self.fake, call), self._rng.choice(ways), call.route == "/view")

    def _mangled(self, reply: Reply, how: str, is_file: bool) -> Reply:
        """Damage that can be told: bytes that flip in a file cannot, and TCP has sums against them."""
        match how:
            case "truncate" | "cut":
                reply.truncate = self._rng.randrange(max(len(reply.body), 1))
                reply.fate = "reset" if how == "cut" else "answer"
            case "garbage":
                reply.body = b"<html>Bad gateway</html>" if is_file else self._rng.randbytes(60)
            case "wrong":
                reply.body = b"" if is_file else self._rng.choice(WRONG_SHAPES)
            case "error":
                status = self._rng.choice((500, 502, 503, 504))
                return Reply.text("gateway trouble", status)
            case "empty":
                reply.body = b""
            case "hang":
                reply.fate = "hang"
            case "reset":
                reply.fate = "reset"
        return reply


def _wild(call: Call) -> str:
    return f"{call.method} {call.route.rpartition('/')[0]}/*"


async def run(pc: Pc, port: int) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(pc.fake.serve, port=port))
        print("ready", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.faults.pc", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--diary", required=True)
    parser.add_argument("--seed", default="0")
    parser.add_argument("--orders", default="{}", help="JSON")
    args = parser.parse_args()
    orders: dict[str, Any] = json.loads(args.orders)
    pc = Pc(args.name, Diary(args.diary, args.name), args.seed)
    for name, value in orders.items():
        setattr(pc.orders, name, value)
    try:
        trio.run(run, pc, args.port)
    except* KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
