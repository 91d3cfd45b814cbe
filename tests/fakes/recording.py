"""Recorded conversations with a real ComfyUI, and how to compare a live one with them.

A transcript is a JSON-lines file, one step per line, in the order in which a client saw the steps:

{"kind": "request", "method", "path", "params", "json", "note"}     what the client sent over HTTP {"kind":
"response", "status", "headers", "json" | "body_b64"}      the answer to the request just before it {"kind":
"ws_send", "json"}                                         what the client sent over its WebSocket {"kind":
"ws", "json" | "binary_b64"}                               what arrived on the WebSocket

Two runs never give the same ids, times, paths or file counters, so both sides go through `mask` before
`differences` compares them. A replay sends the recorded requests with `Ids.translate`, which swaps the
recorded prompt ids for the live ones.

Use:

    transcript = load("success")
    for request, response in transcript.exchanges(): ...
    assert not differences(mask(response.json), mask(live_json))
    assert not differences(transcript.events(), [mask(message) for message in live_messages])
"""

from __future__ import annotations

import base64
import json
import pathlib
import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = pathlib.Path(__file__).resolve().parent.parent / "data" / "comfyui-0.3.64"

Json: TypeAlias = Any

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b[0-9a-f]{32}\b")
COUNTER = re.compile(r"_\d{5,}_(?=\.\w+$)")
ABSOLUTE_PATH = re.compile(r"(?<![\w/])/(?:[\w.() -]+/)+")

SCALARS_THAT_DIFFER = {"timestamp": 0, "number": 0}
UNORDERED = {"executed", "current_outputs"}
"""Lists that a real ComfyUI makes from Python sets: their order means nothing."""


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    params: dict[str, str] | None
    json: Json
    note: str | None


@dataclass(frozen=True)
class Response:
    status: int
    headers: dict[str, str]
    json: Json
    """None when the answer was not JSON."""
    body: bytes | None
    """None when the answer was JSON."""


@dataclass(frozen=True)
class Frame:
    """One WebSocket message: either `json` or `binary` is set."""

    sent: bool
    """True when the client sent it."""
    json: Json
    binary: bytes | None


Step: TypeAlias = Request | Response | Frame


@dataclass(frozen=True)
class Transcript:
    name: str
    steps: tuple[Step, ...]

    def exchanges(self) -> Iterator[tuple[Request, Response]]:
        request: Request | None = None
        for step in self.steps:
            if isinstance(step, Request):
                request = step
            elif isinstance(step, Response):
                assert request is not None, f"{self.name}: a response without a request"
                yield request, step
                request = None

    def frames(self) -> list[Frame]:
        """What arrived on the WebSocket."""
        return [step for step in self.steps if isinstance(step, Frame) and not step.sent]

    def events(self) -> list[Json]:
        """What arrived on the WebSocket, masked; previews as `preview_summary` gives them."""
        return [mask_frame(frame.json if frame.binary is None else frame.binary) for frame in self.frames()]

    def class_types(self) -> set[str]:
        """Every node class that any recorded graph uses."""
        found: set[str] = set()
        for request, _ in self.exchanges():
            graph = request.json.get("prompt") if isinstance(request.json, dict) else None
            if isinstance(graph, dict):
                found |= {node["class_type"] for node in graph.values() if "class_type" in node}
        return found


def names() -> list[str]:
    return sorted(path.stem for path in (DATA / "transcripts").glob("*.jsonl"))


def load(name: str) -> Transcript:
    """The transcript of that name (see `names`). Raises FileNotFoundError."""
    text = (DATA / "transcripts" / f"{name}.jsonl").read_text()
    return Transcript(name, tuple(_step(json.loads(line)) for line in text.splitlines() if line))


def object_info() -> dict[str, Json]:
    """The whole recorded `/object_info`."""
    answer: dict[str, Json] = json.loads((DATA / "object_info.json").read_text())
    return answer


def _step(line: dict[str, Json]) -> Step:
    match line["kind"]:
        case "request":
            return Request(line["method"], line["path"], line["params"], line["json"], line["note"])
        case "response":
            body = base64.b64decode(line["body_b64"]) if "body_b64" in line else None
            return Response(line["status"], line["headers"], line.get("json"), body)
        case "ws" | "ws_send" as kind:
            binary = base64.b64decode(line["binary_b64"]) if "binary_b64" in line else None
            return Frame(kind == "ws_send", line.get("json"), binary)
        case kind:
            raise ValueError(f"unknown step kind {kind!r}")


@dataclass
class Ids:
    """The live prompt ids that stand for the recorded ones."""

    live_by_recorded: dict[str, str] = field(default_factory=dict)

    def learn(self, recorded: Json, live: Json) -> None:
        """Take the pair of prompt ids from a recorded and a live answer to `POST /prompt`, if they have
        any."""
        if isinstance(recorded, dict) and "prompt_id" in recorded and "prompt_id" in live:
            self.live_by_recorded[recorded["prompt_id"]] = live["prompt_id"]

    def translate(self, value: Json) -> Json:
        """The same value with live ids, inside strings (paths, `not-<id>`) as well."""
        if isinstance(value, dict):
            return {self.translate(key): self.translate(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.translate(item) for item in value]
        if isinstance(value, str):
            for recorded, live in self.live_by_recorded.items():
                value = value.replace(recorded, live)
        return value


def mask(value: Json, key: str = "") -> Json:
    """A copy in which everything that differs from run to run has a fixed value: ids, times, queue numbers,
    absolute folders, file counters, tracebacks, and the order of lists that come from sets."""
    if key in SCALARS_THAT_DIFFER and isinstance(value, int | float):
        return SCALARS_THAT_DIFFER[key]
    if key == "traceback":
        return []
    if isinstance(value, dict):
        return {mask(name): mask(item, name) for name, item in value.items()}
    if isinstance(value, list):
        if (
            len(value) == 5
            and isinstance(value[0], int | float)
            and isinstance(value[1], str)
            and isinstance(value[2], dict)
        ):
            value = [0, *value[1:]]  # a queue item: number, prompt_id, prompt, extra_data, outputs
        items = [mask(item) for item in value]
        return sorted(items, key=str) if key in UNORDERED else items
    if isinstance(value, str):
        return ABSOLUTE_PATH.sub("<folder>/", COUNTER.sub("_#####_", UUID.sub("<id>", value)))
    return value


def mask_frame(message: Json | bytes) -> Json:
    """`mask` for a WebSocket message that may be binary."""
    return preview_summary(message) if isinstance(message, bytes) else mask(message)


def preview_summary(message: bytes) -> dict[str, Json]:
    """What a binary message is, without its pixels: {"binary": type, …}. Type 1 has "format" (1 JPEG, 2 PNG),
    type 4 its masked "metadata", type 3 "node" and "text" (ComfyUI 0.3.64, server.py). "magic" is the first
    bytes of the picture, in hex."""
    (kind,) = struct.unpack_from(">I", message)
    summary: dict[str, Json] = {"binary": kind}
    if kind == 1:
        summary["format"] = struct.unpack_from(">I", message, 4)[0]
        summary["magic"] = message[8:10].hex()
    elif kind in (3, 4):
        (length,) = struct.unpack_from(">I", message, 4)
        head, rest = message[8 : 8 + length], message[8 + length :]
        if kind == 4:
            summary["metadata"] = mask(json.loads(head))
            summary["magic"] = rest[:2].hex()
        else:
            summary["node"], summary["text"] = head.decode(), rest.decode()
    return summary


def differences(recorded: Json, live: Json, path: str = "$") -> list[str]:
    """Where two masked values differ, one line each; empty when they are equal. 1 and 1.0 are equal, as in
    JSON."""
    if isinstance(recorded, dict) and isinstance(live, dict):
        found = [f"{path}.{key}: missing" for key in recorded.keys() - live.keys()]
        found += [f"{path}.{key}: not in the recording" for key in live.keys() - recorded.keys()]
        for key in recorded.keys() & live.keys():
            found += differences(recorded[key], live[key], f"{path}.{key}")
        return sorted(found)
    if isinstance(recorded, list) and isinstance(live, list):
        found = []
        for index, (left, right) in enumerate(zip(recorded, live, strict=False)):
            found += differences(left, right, f"{path}[{index}]")
        if len(recorded) != len(live):
            found.append(f"{path}: {len(recorded)} items in the recording, {len(live)} live")
        return found
    if recorded != live or isinstance(recorded, bool) != isinstance(live, bool):
        return [f"{path}: recorded {recorded!r}, live {live!r}"]
    return []
