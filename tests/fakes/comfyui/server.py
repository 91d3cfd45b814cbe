"""`FakeComfyUI`: the fake as tests hold it. See the package's docstring for how to use it."""

import contextlib
import json
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import h11
import trio
from trio import socket as trio_socket

from . import routes
from .engine import Engine
from .facts import DEFAULT_CLASSES, FEATURES, recorded_classes, system_stats
from .files import FileStore, png_for
from .patched import FakePatch
from .script import Call, Graph, PromptRecord, PromptScript, Reply, Script
from .wire import Connection, WebSocketPeer, end, read_call


class FakeComfyUI:
    """A scriptable ComfyUI 0.3.64 on a real socket, which runs no node.

    `classes` is its `/object_info` (default: the image nodes of `DEFAULT_CLASSES`, as recorded), `lacks`
    names what to leave out of that, `inputs` are its input files by path, `models` its model lists by folder.
    `atomic_cancel` makes it a ComfyUI of mid-2026, with `/api/jobs/{id}` and `/api/jobs/{id}/cancel`, and
    prompt ids that must be UUIDs. `token` gives it a patch that asks for that token (`patch`).
    """

    def __init__(
        self,
        *,
        name: str = "fake",
        classes: Mapping[str, Any] | None = None,
        lacks: Collection[str] = (),
        inputs: Mapping[str, bytes] | None = None,
        models: Mapping[str, Sequence[str]] | None = None,
        script: Script | None = None,
        atomic_cancel: bool = False,
        token: str = "",
    ) -> None:
        self.name = name
        self.port = 0
        self.script = script if script is not None else Script()
        self.atomic_cancel = atomic_cancel
        self._patch = FakePatch(self, token) if token else None
        known = recorded_classes(*DEFAULT_CLASSES) if classes is None else classes
        self.classes = {kind: info for kind, info in known.items() if kind not in lacks}
        self.files = FileStore(inputs if inputs is not None else {"example.png": png_for("example.png")})
        self.models = dict(models or {})
        self.features = dict(FEATURES)
        self.system_stats = system_stats()
        self.calls: list[Call] = []
        self.violations: list[str] = []  # what nobody who shares a PC may do; a test asserts that it is empty
        self.duplicates: list[str] = []  # prompt ids that were accepted more than once
        self.engine = Engine(self, self.files, self.classes)
        self.sockets: dict[str, WebSocketPeer] = {}  # by client id, as the real one knows them
        self._peers: set[WebSocketPeer] = set()  # all that are open
        self._streams: set[trio.SocketStream] = set()
        self._listener: trio.SocketListener | None = None
        self._nursery: trio.Nursery | None = None
        self._changed = trio.Event()
        self._responsive = trio.Event()
        self._responsive.set()
        self._silent = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def patch(self) -> FakePatch:
        assert self._patch is not None, "it was made without a token"
        return self._patch

    @property
    def prompts(self) -> dict[str, PromptRecord]:
        """Every prompt that was ever accepted, in order."""
        return self.engine.prompts

    @property
    def connected(self) -> list[str]:
        """The client ids of all open WebSockets, those that the server has lost track of included."""
        return [peer.sid for peer in self._peers if not peer.dropped]

    def calls_to(self, method: str, route: str) -> list[Call]:
        """The calls to a route; `/history/*` stands for everything below `/history/`."""
        below = route[:-1] if route.endswith("/*") else None
        return [
            call
            for call in self.calls
            if call.method == method
            and (call.route == route or (below is not None and call.route.startswith(below)))
        ]

    async def wait_for(self, predicate: Callable[[], object]) -> None:
        """Returns when the predicate holds; it is asked again at every call and every step of a prompt.

        Has no deadline: use it inside `trio.fail_after`.
        """
        await trio.lowlevel.checkpoint()
        while not predicate():
            await self._changed.wait()

    def submit_foreign(
        self,
        *,
        duration: float = 0.0,
        gate: trio.Event | None = None,
        prompt_id: str | None = None,
        client_id: str | None = None,
        graph: Graph | None = None,
        script: PromptScript | None = None,
    ) -> str:
        """Queues a prompt of the PC's owner. It lasts `duration` seconds, or until `gate` is set; returns its
        id.
        """
        prompt_id = prompt_id or str(uuid.uuid4())
        if graph is None:
            empty = {"width": 64, "height": 64, "batch_size": 1, "color": 0}
            save = {"images": ["1", 0], "filename_prefix": "owner"}
            graph = {
                "1": {"class_type": "EmptyImage", "inputs": empty},
                "2": {"class_type": "SaveImage", "inputs": save},
            }
        script = script or PromptScript(durations={"1": duration}, gate=gate)
        extra: dict[str, Any] = {} if client_id is None else {"client_id": client_id}
        number, targets = self.engine.next_number(), [key for key in graph if self._is_output(graph, key)]
        self.engine.put(PromptRecord(prompt_id, number, graph, extra, targets, script, foreign=True))
        return prompt_id

    def _is_output(self, graph: Graph, node_id: str) -> bool:
        return bool(self.classes[graph[node_id]["class_type"]]["output_node"])

    # The network's moods

    def drop_websockets(self, *, reset: bool = False) -> None:
        """Ends every WebSocket with FIN or RST, without a closing handshake. HTTP connections stay."""
        for peer in list(self._peers):
            peer.drop(reset=reset)
        self.sockets.clear()
        self.changed()

    def close_websockets(self, code: int = 1001) -> None:
        """Starts the closing handshake on every WebSocket."""
        for peer in self._peers:
            peer.close(code)

    def drop_connections(self, *, reset: bool = False) -> None:
        """Ends every connection, HTTP and WebSocket."""
        self.drop_websockets(reset=reset)
        for stream in list(self._streams):
            end(stream, reset=reset)

    def stop_listening(self) -> None:
        """New connections are refused; open ones live on."""
        if self._listener is not None:
            self._listener.socket.close()
            self._listener = None

    async def start_listening(self) -> None:
        """Listens again, on the same port."""
        assert self._nursery is not None, "serve() is not running"
        if self._listener is None:
            self._listener = await self._bind(self.port)
            self._nursery.start_soon(self._accept, self._listener)

    def crash(self) -> None:
        """The process dies: every connection gets RST, queue and history are gone. `start_listening` starts
        the next one.
        """
        self.stop_listening()
        self.drop_connections(reset=True)
        self.engine.crash()

    def go_silent(self) -> None:
        """WebSockets stay open and answer pings, but events are lost; HTTP works. Until `resume`."""
        self._silent = True

    def black_hole(self) -> None:
        """As a process that is stopped: connections are accepted, nothing is answered, events wait. Until
        `resume`.
        """
        self._responsive = trio.Event()

    def resume(self, *, discard: bool = False) -> None:
        """Ends `go_silent` and `black_hole`. What came during a black hole is served now, late; `discard`
        resets it instead.
        """
        if discard:
            self.drop_connections(reset=True)
        self._silent = False
        self._responsive.set()

    # Events

    def emit(self, kind: str, data: dict[str, Any], sid: str | None = None) -> None:
        """Sends an event to one client id, or to all; a test may send what it likes."""
        wanted = self.script.event_filter
        if not self._silent and (wanted is None or wanted(kind, data)):
            self._send(json.dumps({"type": kind, "data": data}), sid)

    def emit_binary(self, message: bytes, sid: str | None = None) -> None:
        if not self._silent:
            self._send(message, sid)

    def _send(self, message: str | bytes, sid: str | None) -> None:
        if self.script.frame_filter is not None:
            instead = self.script.frame_filter(message)
            if instead is None:
                return
            message = instead
        if sid is None:
            for peer in self.sockets.values():
                peer.send(message)
        elif sid in self.sockets:
            self.sockets[sid].send(message)

    def takes_metadata(self, sid: str | None) -> bool:
        return sid in self.sockets and self.sockets[sid].flags.get("supports_preview_metadata") is True

    def changed(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # Serving

    async def serve(
        self, *, port: int = 0, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serves until cancelled; reports its URL once it listens. Everything that the fake runs is in its
        nursery.
        """
        self._listener = await self._bind(port)
        self.port = self._listener.socket.getsockname()[1]
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self.engine.run)
                self._nursery.start_soon(self._accept, self._listener)
                if self._patch is not None:
                    self._nursery.start_soon(self._patch.run)
                task_status.started(self.url)
        finally:
            self._nursery = None
            self.stop_listening()
            for stream in self._streams:
                stream.socket.close()

    @staticmethod
    async def _bind(port: int) -> trio.SocketListener:
        sock = trio_socket.socket(trio_socket.AF_INET, trio_socket.SOCK_STREAM)
        try:
            sock.setsockopt(trio_socket.SOL_SOCKET, trio_socket.SO_REUSEADDR, 1)
            await sock.bind(("127.0.0.1", port))
            sock.listen(512)
        except OSError:
            sock.close()
            raise
        return trio.SocketListener(sock)

    async def _accept(self, listener: trio.SocketListener) -> None:
        assert self._nursery is not None
        with contextlib.suppress(trio.ClosedResourceError):
            while True:
                stream = await listener.accept()
                self._streams.add(stream)
                self._nursery.start_soon(self._converse, stream)

    async def _barrier(self) -> None:
        while not self._responsive.is_set():
            await self._responsive.wait()

    async def _converse(self, stream: trio.SocketStream) -> None:
        """One connection, from its first request to its end."""
        connection = Connection(stream)
        try:
            while (received := await connection.next_request()) is not None:
                request, body = received
                call = read_call(request, body)
                self.calls.append(call)
                self.changed()
                await self._barrier()
                reply = await self.script.hook(call) if self.script.hook is not None else None
                if reply is None and call.route == "/ws":
                    return await self._websocket(connection, call, request)
                if reply is None and self._patch is not None:
                    reply = await self._patch.route(call)
                if reply is None:
                    reply = await routes.route(self, call)
                call.fields = {}
                call.status = reply.status
                await self._barrier()
                if not await connection.send(reply, head_only=call.method == "HEAD"):
                    return
                self.changed()
        finally:
            self._streams.discard(stream)
            stream.socket.close()
            self.changed()

    async def _websocket(self, connection: Connection, call: Call, request: h11.Request) -> None:
        sid = call.query.get("clientId") or uuid.uuid4().hex
        peer = WebSocketPeer(connection.stream, sid, request, self._barrier)
        if not peer.accept(connection.trailing()):
            await connection.send(Reply(400))
            return
        call.status = 101
        self.sockets.pop(
            sid, None
        )  # a second socket of the same client takes over; the first stays open, unheard
        self.sockets[sid] = peer
        self._peers.add(peer)
        info = {"status": {"exec_info": {"queue_remaining": self.engine.remaining}}, "sid": sid}
        self.emit("status", info, sid)
        if self.engine.client_id == sid and self.engine.last_node is not None:
            self.emit("executing", {"node": self.engine.last_node}, sid)
        self.changed()
        first = True

        def on_text(text: str) -> None:
            nonlocal first
            try:
                message = json.loads(text)
            except ValueError:
                return
            if first and message.get("type") == "feature_flags" and sid in self.sockets:
                self.sockets[sid].flags = message.get("data", {})
                self.emit("feature_flags", self.features, sid)
            first = False

        try:
            await peer.run(on_text)
        finally:
            self._peers.discard(peer)
            if not peer.dropped:
                # Whoever has the client id now loses it: closing an old socket deregisters a new one (0.3.64,
                # measured).
                self.sockets.pop(sid, None)
            self.changed()

    def object_info(self) -> dict[str, Any]:
        """What /object_info answers: `classes`, with the input files of the moment in LoadImage's list."""
        info = dict(self.classes)
        if "LoadImage" in info:
            choice = {"image": [self.files.names("input"), {"image_upload": True}]}
            info["LoadImage"] = {
                **info["LoadImage"],
                "input": {**info["LoadImage"]["input"], "required": choice},
            }
        return info
