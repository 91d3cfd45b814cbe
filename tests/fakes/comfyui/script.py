"""What a fake ComfyUI is told to do (`Script`), and what it remembers of what was done to it (`Call`,
`PromptRecord`).
"""

import dataclasses
import json
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import trio

Graph = dict[str, Any]
State = Literal["queued", "running", "done", "error", "interrupted", "deleted", "lost"]
Fate = Literal["answer", "hang", "reset", "close"]

# Points other than a node at which `PromptScript.gates` can hold a prompt.
START = "@start"  # off the queue, execution_start not sent; an interrupt is lost here, as on a real one
END = "@end"  # every node ran, execution_success not sent; too late for an interrupt
STORE = "@store"  # execution_success sent, history not stored yet; too late for an interrupt


@dataclass(eq=False)
class Reply:
    """An HTTP answer, and what happens to the connection that should carry it.

    `fate`: "answer" sends it; "hang" reads the connection until the client leaves; "reset" sends RST; "close"
    sends FIN. `truncate` sends only so many bytes of the body under the full Content-Length and then closes
    (RST if `fate` is "reset").
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    chunked: bool = False
    truncate: int | None = None
    fate: Fate = "answer"

    @classmethod
    def json(cls, value: object, status: int = 200) -> "Reply":
        return cls(status, json.dumps(value).encode(), {"Content-Type": "application/json; charset=utf-8"})

    @classmethod
    def text(cls, value: str, status: int = 200) -> "Reply":
        return cls(status, value.encode(), {"Content-Type": "text/plain; charset=utf-8"})


@dataclass(eq=False)
class Call:
    """One HTTP request (a WebSocket handshake is `GET /ws`), recorded when it has been read whole.

    `route` is the path without `/api`. `t` is `trio.current_time()`, `mono` is `time.monotonic()`, `wall` is
    `time.time()`, all in seconds. `status` is 0 until an answer has been decided; 101 for a WebSocket.
    """

    method: str
    path: str
    route: str
    query: dict[str, str]
    headers: dict[str, str]
    size: int
    t: float
    mono: float
    wall: float
    json: Any = None
    upload_name: str | None = None
    upload_subfolder: str | None = None
    status: int = 0
    fields: dict[str, tuple[str | None, bytes]] = field(default_factory=dict, repr=False)
    """Of a multipart body, name -> (filename, content); dropped once the call is answered."""

    def as_json(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "fields"}


@dataclass(eq=False)
class PromptScript:
    """How one prompt goes. Durations are in seconds; nodes are named by their id in the graph."""

    # The run itself
    node_duration: float = 0.0  # of every executed node, spread over its steps
    durations: Mapping[str, float] = field(default_factory=dict)  # by node, instead of node_duration
    steps: int = 0  # progress events of every executed node
    node_steps: Mapping[str, int] = field(default_factory=dict)  # by node, instead of steps
    gate: trio.Event | None = None  # holds the first executed node, after its `executing` event
    gates: Mapping[str, trio.Event] = field(default_factory=dict)  # by node, or START, END, STORE
    busy: Mapping[str, trio.Event] = field(
        default_factory=dict
    )  # by node: at work until set, deaf to interrupts
    cached: Collection[str] | Literal["all"] = ()  # nodes that are not run; outputs repeat earlier file names
    omit_executed: bool = False  # no `executed` events: the outputs are in the history alone
    fail_node: str | None = None  # a node id or a class: fails after its duration
    fail_type: str = "RuntimeError"
    fail_message: str = "the fake was told to fail"
    history_lag: float = 0.0  # between execution_success and the history entry
    lose_at: Literal["", "queued", "running", "history"] = ""  # the prompt vanishes: no event, no history
    # Events
    ws_events: bool = True  # False: this prompt's events are not sent (status broadcasts still are)
    preview: bytes | None = None  # an image (JPEG or PNG) sent with every step
    # Outputs
    images_per_node: int = 1
    output_bytes: bytes | None = None  # instead of the PNG that is unique to prompt, node and index
    output_extension: str = ".png"
    output_key: str = "images"
    # POST /prompt
    post_status: int = 200  # other than 200: not accepted, answered with post_body
    post_body: object = None
    post_accepts: bool = True  # False with post_fate "hang" or "reset": never reached the queue
    post_delay: float = 0.0  # between accepting and answering
    post_gate: trio.Event | None = None  # likewise
    post_fate: Fate = "answer"
    post_answer_status: int = 200  # accepted, and answered with this status and no JSON, as a proxy in front may
    # GET /view of this prompt's outputs
    view_status: int = 200
    view_body: bytes | None = None
    view_delay: float = 0.0
    view_gate: trio.Event | None = None
    view_truncate: int | None = None
    view_chunked: bool = False
    view_fate: Fate = "answer"


@dataclass(eq=False)
class Script(PromptScript):
    """What a fake does; may be changed at any time. The `PromptScript` part is what prompts start with.

    A prompt keeps the values it was accepted with, unless `for_prompt(graph, prompt_id)` gives it its own.
    """

    for_prompt: Callable[[Graph, str], PromptScript | None] | None = None
    validate: bool = True  # False: only unknown classes and missing outputs are refused
    auto_cache: bool = False  # as the real one: what the previous prompt ran with equal inputs is cached
    upload_status: int = 200
    upload_delay: float = 0.0
    upload_gate: trio.Event | None = None
    upload_fate: Fate = "answer"
    # Between an /interrupt's comparison of the prompt id and its effect (the hole of a stock ComfyUI).
    interrupt_gate: trio.Event | None = None
    event_filter: Callable[[str, dict[str, Any]], bool] | None = None  # False: this event is not sent
    # What goes out in the place of a WebSocket message; None: nothing does.
    frame_filter: Callable[[str | bytes], str | bytes | None] | None = None
    on_state: "Callable[[PromptRecord], object] | None" = None  # told of each state that a prompt enters
    hook: Callable[[Call], Awaitable[Reply | None]] | None = (
        None  # before every route; a Reply goes out instead
    )

    def prompt_script(self, graph: Graph, prompt_id: str) -> PromptScript:
        own = self.for_prompt(graph, prompt_id) if self.for_prompt is not None else None
        if own is not None:
            return own
        return PromptScript(**{f.name: getattr(self, f.name) for f in dataclasses.fields(PromptScript)})


@dataclass(eq=False)
class PromptRecord:
    """Everything known of one accepted prompt. `times` (trio) and `mono` (time.monotonic) are by state, in
    seconds.
    """

    prompt_id: str
    number: float
    graph: Graph
    extra_data: dict[str, Any]
    targets: list[str]  # the output nodes that will be executed
    script: PromptScript
    foreign: bool = False
    state: State = "queued"
    times: dict[str, float] = field(default_factory=dict)
    mono: dict[str, float] = field(default_factory=dict)
    node: str | None = None  # the node being executed
    held_at: str | None = None  # the gate that it waits at
    executed: list[str] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)  # by node, as in the history
    images: list[bytes] = field(default_factory=list)  # the files it wrote, in order
    on_state: "Callable[[PromptRecord], object] | None" = None

    @property
    def client_id(self) -> str | None:
        value = self.extra_data.get("client_id")
        return None if value is None else str(value)

    @property
    def open(self) -> bool:
        return self.state in ("queued", "running")

    def item(self) -> list[Any]:
        """The form that queue and history give it."""
        return [self.number, self.prompt_id, self.graph, self.extra_data, self.targets]

    def enter(self, state: State) -> None:
        self.state = state
        self.times[state] = trio.current_time()
        self.mono[state] = time.monotonic()
        if self.on_state is not None:
            self.on_state(self)

    def as_json(self) -> dict[str, Any]:
        names = (
            "prompt_id",
            "number",
            "client_id",
            "foreign",
            "state",
            "times",
            "mono",
            "node",
            "held_at",
            "outputs",
        )
        return {name: getattr(self, name) for name in names}
