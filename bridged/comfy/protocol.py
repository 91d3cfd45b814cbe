"""ComfyUI's messages <-> values, and the progress of one prompt. No I/O.

Facts verified against ComfyUI 0.3.64 (tests/data): unknown message types are skipped, since custom nodes invent them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import msgspec

from bridged.errors import BackendUnavailable
from bridged.model import Graph, Lending

HELLO = '{"type":"feature_flags","data":{"supports_preview_metadata":true}}'
"""must be the first message on a socket: only then do previews say whose they are (binary type 4 for type 1)"""


class RemoteFile(msgspec.Struct, frozen=True):
    """A file on a backend, as `/view` wants it named."""

    filename: str
    subfolder: str = ""
    type: str = "output"


class Status(msgspec.Struct, frozen=True):
    """How many prompts a backend has in all, running and pending, anyone's."""

    queue_remaining: int


class Started(msgspec.Struct, frozen=True):
    prompt_id: str


class Cached(msgspec.Struct, frozen=True):
    prompt_id: str
    nodes: tuple[str, ...] = ()


class Executing(msgspec.Struct, frozen=True):
    """`node` is None when the prompt has left the queue for good. A reconnected socket gets it with no prompt_id."""

    prompt_id: str = ""
    node: str | None = None


class Progress(msgspec.Struct, frozen=True):
    prompt_id: str
    node: str | None
    value: float
    max: float


class NodeState(msgspec.Struct, frozen=True):
    value: float = 0
    max: float = 1
    state: str = ""


class ProgressState(msgspec.Struct, frozen=True):
    prompt_id: str
    nodes: dict[str, NodeState]


class Executed(msgspec.Struct, frozen=True):
    prompt_id: str
    node: str
    output: dict[str, Any] | None = None


class Succeeded(msgspec.Struct, frozen=True):
    prompt_id: str


class Interrupted(msgspec.Struct, frozen=True):
    prompt_id: str


class Errored(msgspec.Struct, frozen=True):
    prompt_id: str
    node_id: str = ""
    node_type: str = ""
    exception_type: str = ""
    exception_message: str = ""


class Preview(msgspec.Struct, frozen=True):
    """A preview picture of a running prompt."""

    prompt_id: str
    image: bytes


Event = (
    Status
    | Started
    | Cached
    | Executing
    | Progress
    | ProgressState
    | Executed
    | Succeeded
    | Interrupted
    | Errored
    | Preview
    | Lending
)


class _Envelope(msgspec.Struct):
    type: str
    data: msgspec.Raw = msgspec.Raw(b"{}")


class _ExecInfo(msgspec.Struct):
    exec_info: Status


class _StatusData(msgspec.Struct):
    status: _ExecInfo


class _PreviewMeta(msgspec.Struct):
    prompt_id: str = ""


UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""all that msgspec raises for bytes that are no JSON, no UTF-8 or nested without end: a backend's fault, not ours"""

_envelope = msgspec.json.Decoder(_Envelope)
_status = msgspec.json.Decoder(_StatusData)
_preview_meta = msgspec.json.Decoder(_PreviewMeta)
_events: dict[str, msgspec.json.Decoder[Any]] = {
    "execution_start": msgspec.json.Decoder(Started),
    "execution_cached": msgspec.json.Decoder(Cached),
    "executing": msgspec.json.Decoder(Executing),
    "progress": msgspec.json.Decoder(Progress),
    "progress_state": msgspec.json.Decoder(ProgressState),
    "executed": msgspec.json.Decoder(Executed),
    "execution_success": msgspec.json.Decoder(Succeeded),
    "execution_interrupted": msgspec.json.Decoder(Interrupted),
    "execution_error": msgspec.json.Decoder(Errored, strict=False),
    "bridged.lending": msgspec.json.Decoder(Lending),  # of a patched one
}


def parse_message(message: str | bytes) -> Event | None:
    """One WebSocket message; None for what we do not use, know or understand."""
    try:
        if isinstance(message, bytes):
            return _parse_binary(message)
        envelope = _envelope.decode(message)
        if envelope.type == "status":
            return _status.decode(envelope.data).status.exec_info
        decoder = _events.get(envelope.type)
        event: Event | None = decoder.decode(envelope.data) if decoder else None
        return event
    except (*UNREADABLE, struct.error):
        return None


def _parse_binary(message: bytes) -> Preview | None:
    """Type 4 only: u32 type, u32 length, JSON, image. Type 1 does not say whose preview it is."""
    kind, length = struct.unpack_from(">II", message)
    if kind != 4 or len(message) < 8 + length:
        return None
    meta = _preview_meta.decode(message[8 : 8 + length])
    return Preview(meta.prompt_id, message[8 + length :]) if meta.prompt_id else None


class PromptProgress:
    """How far one prompt is, in percent of its nodes; never falls, and is 100 only when the prompt has succeeded.

    Nodes count alike; a running one counts by its own value/max. Cached ones count as done. Nodes that a node made
    while running (ids that are not in the graph) do not count.
    """

    def __init__(self, graph: Graph) -> None:
        self._done = dict.fromkeys(graph, 0.0)
        self._current: str | None = None
        self._highest = 0.0

    def feed(self, event: Event) -> float | None:
        """The new percentage where this event changed it, else None."""
        match event:
            case Cached(nodes=nodes):
                for node in nodes:
                    self._set(node, 1.0)
            case Executing(node=node):
                if self._current is not None and node != self._current:
                    self._set(self._current, 1.0)
                self._current = node
            case Progress(node=str(node), value=value, max=highest):
                self._set(node, value / highest if highest > 0 else 0.0)
            case ProgressState(nodes=states):
                for node, state in states.items():
                    done = 1.0 if state.state == "finished" else state.value / state.max if state.max > 0 else 0.0
                    self._set(node, done)
            case Executed(node=node):
                self._set(node, 1.0)
            case _:
                return None
        percent = min(99.99, 100.0 * sum(self._done.values()) / max(1, len(self._done)))
        if percent <= self._highest:
            return None
        self._highest = percent
        return percent

    def _set(self, node: str, fraction: float) -> None:
        if node in self._done:
            self._done[node] = max(self._done[node], min(1.0, fraction))


def files_of(output: object) -> list[RemoteFile]:
    """The files that one node's output names, whatever the node calls its lists (images, gifs, audio, …)."""
    found: list[RemoteFile] = []
    for values in output.values() if isinstance(output, Mapping) else ():
        for value in values if isinstance(values, list) else ():
            if isinstance(value, dict) and isinstance(value.get("filename"), str):
                try:
                    found.append(msgspec.convert(value, RemoteFile))
                except msgspec.ValidationError:
                    continue
    return found


class PromptAnswer(msgspec.Struct, frozen=True):
    """What POST /prompt says: `node_errors` may be non-empty although it was accepted (some outputs dropped)."""

    prompt_id: str = ""
    node_errors: dict[str, Any] = {}


class _PromptError(msgspec.Struct):
    type: str = ""
    message: str = ""
    details: str = ""


class PromptRefusal(msgspec.Struct):
    """What POST /prompt says with 400."""

    error: _PromptError | str = ""
    node_errors: dict[str, Any] | list[Any] = {}

    def kinds(self) -> set[str]:
        """The error types, of the prompt and of its nodes."""
        kinds = {self.error.type} if isinstance(self.error, _PromptError) else set()
        return kinds | {kind for kind, _ in _node_error_texts(self.node_errors)}

    def text(self) -> str:
        """For people: which node, which input, what is wrong."""
        texts = [text for _, text in _node_error_texts(self.node_errors)]
        if texts:
            return "; ".join(texts[:5])
        if isinstance(self.error, _PromptError):
            return f"{self.error.message} {self.error.details}".strip()
        return self.error


def _node_error_texts(node_errors: Any) -> list[tuple[str, str]]:
    texts: list[tuple[str, str]] = []
    for node, entry in node_errors.items() if isinstance(node_errors, dict) else ():
        if not isinstance(entry, dict):
            continue
        errors = entry.get("errors")
        for error in errors if isinstance(errors, list) else ():
            if isinstance(error, dict):
                kind = str(error.get("type", ""))
                where = f"node {node} ({entry.get('class_type', '?')})"
                texts.append((kind, f"{where}: {error.get('message', kind)}: {error.get('details', '')}"))
    return texts


def describe_node_errors(node_errors: Any) -> str:
    """The node_errors of a POST /prompt answer, for people."""
    return "; ".join(text for _, text in _node_error_texts(node_errors)[:5])


class _HistoryStatus(msgspec.Struct):
    status_str: str = ""
    completed: bool = False
    messages: list[Any] = []


class HistoryEntry(msgspec.Struct):
    """One prompt of `/history/{id}`."""

    outputs: dict[str, Any] = {}
    status: _HistoryStatus | None = None

    def outcome(self) -> Succeeded | Interrupted | Errored:
        """How it ended, as the socket would have said (an interrupted one is `error` plus a message)."""
        status = self.status or _HistoryStatus("success", True)
        if status.status_str == "success":
            return Succeeded("")
        for message in status.messages:
            match message:
                case ["execution_interrupted", *_]:
                    return Interrupted("")
                case ["execution_error", dict(data)]:
                    fields = {name: str(data.get(name, "")) for name in Errored.__struct_fields__}
                    return Errored(**fields)
        return Errored("", exception_message="the backend gives no reason")


_history = msgspec.json.Decoder(dict[str, HistoryEntry])


def parse_history(body: bytes, prompt_id: str) -> HistoryEntry | None:
    """The entry of that prompt, or None where there is none (yet). Raises BackendUnavailable: it is no history."""
    try:
        return _history.decode(body).get(prompt_id)
    except UNREADABLE as error:
        raise BackendUnavailable(f"its history is not readable: {error}") from None


class QueueView(msgspec.Struct, frozen=True):
    """Everyone's prompt_ids on a backend."""

    running: tuple[str, ...]
    pending: tuple[str, ...]


class _Queue(msgspec.Struct):
    queue_running: list[list[Any]] = []
    queue_pending: list[list[Any]] = []


def parse_queue(body: bytes) -> QueueView:
    """Raises BackendUnavailable: it is no queue."""
    try:
        queue = msgspec.json.decode(body, type=_Queue)
        return QueueView(
            running=tuple(str(item[1]) for item in queue.queue_running),
            pending=tuple(str(item[1]) for item in queue.queue_pending),
        )
    except (*UNREADABLE, IndexError) as error:
        raise BackendUnavailable(f"its queue is not readable: {error}") from None


class UploadAnswer(msgspec.Struct, frozen=True):
    """What /upload/image stored the file as; the name to use, which need not be the one that was sent."""

    name: str
    subfolder: str = ""

    @property
    def value(self) -> str:
        """As a LoadImage-like node wants it."""
        return f"{self.subfolder}/{self.name}" if self.subfolder else self.name
