"""Both lanes of a connection, the fast one and hypercorn's, over real sockets: the same bytes, in the same pieces, with
the same pauses, have the same answers, to the byte, at the same time; and the application sees the same of them.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import pytest
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.trio.worker_context import WorkerContext
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from bridged.api.access import Gate
from bridged.api.connection import Connection, ServerConfig
from bridged.api.connections import Connections
from bridged.api.entrance import Entrance
from bridged.api.hot import Answer, ClientGone, Endpoint, HotRequest, json_answer, serve
from bridged.config.schema import Limits
from tests.api.test_access import config
from tests.fuzz.mutation import damaged

LIMITS = Limits(header_timeout=3.0, body_timeout=1.5, body_min_rate=0.1)
MOST_JSON = 60
TRIES = 10


@dataclass
class Outcome:
    """What a script led to. `seen` are the requests as the application got them, `events` what became of them."""

    heard: bytes = b""
    closed: float | None = None
    """seconds from the last step of the script to the end of the connection, by the service"""
    seen: list[Any] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    in_lane: int = 0
    """requests that took the fast lane"""

    def comparable(self) -> tuple[Any, ...]:
        heard = re.sub(rb"date: [A-Za-z0-9,: ]+ GMT", b"date: D", self.heard)
        closed = None if self.closed is None else round(self.closed, 3)
        return heard, closed, self.seen, self.events


class Service:
    """A service whose hot endpoints say what they were asked. `?wait` waits for `gate`."""

    def __init__(self, outcome: Outcome, *, lane: bool, origin: str = "http://listed.example") -> None:
        self.gate = trio.Event()
        self.is_over = False
        self.context = WorkerContext(None)
        self._outcome = outcome
        made = config(cors=[origin])
        hot = {
            "/history": Endpoint(("GET", "HEAD"), self._history),
            "/chunks": Endpoint(("GET", "HEAD"), self._chunks),
            "/run": Endpoint(("POST",), self._run, proper=True),
            "/echo": Endpoint(("POST",), self._echo),
            "/broken": Endpoint(("GET", "POST"), self._broken),
        }
        self._entrance = Entrance(self._quart, hot, Gate(lambda: made, lambda: 0.0), 5.0)  # type: ignore[arg-type]
        self.config = ServerConfig()
        self.config.connections = Connections(lambda: LIMITS, lambda _: False, 5.0)
        self.config.fast = self._entrance.fast if lane else {}
        self.config.keep_alive_max_requests = 3
        self.config.h11_max_incomplete_size = 32 * 1024
        self.config.include_server_header = False
        self.config.accesslog = self.config.errorlog = None

    async def connection(self, stream: trio.SocketStream) -> None:
        app: Any = ASGIWrapper(self._app)
        whole: Any = stream
        connection = Connection(app, self.config, self.context, {}, whole)
        self._task = trio.lowlevel.current_task()
        await connection.run()
        self.is_over = True

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self._outcome.in_lane += trio.lowlevel.current_task() is self._task  # hypercorn has a task for each
        seen = {key: value for key, value in scope.items() if key not in ("client", "server")}
        self._outcome.seen.append({**seen, "headers": list(seen["headers"]), "host": scope["client"][0]})
        await self._entrance(scope, receive, send)

    async def _quart(self, scope: Any, receive: Any, send: Any) -> None:
        await serve(Endpoint(("GET", "HEAD", "POST", "DELETE"), self._echo), scope, receive, send)

    def _told(self, request: HotRequest, body: bytes) -> bytes:
        return repr((request.args, request.header(b"a"), request.caller.address, body)).encode()

    async def _waited(self, request: HotRequest) -> None:
        if "wait" in request.args:
            try:
                await request.while_connected(self.gate.wait)
            except ClientGone:
                self._outcome.events.append("gone")
                raise

    async def _history(self, request: HotRequest) -> Answer:
        await self._waited(request)
        return Answer(200, self._told(request, b""), sent=lambda: self._outcome.events.append("taken"))

    async def _chunks(self, request: HotRequest) -> Answer:
        await self._waited(request)

        async def chunks() -> AsyncGenerator[bytes, None]:
            for _ in range(3):
                yield b"chunk" * 2000
                await trio.lowlevel.checkpoint()

        headers = {"Content-Length": "30000"}
        return Answer(200, b"", "text/plain", headers, chunks(), lambda: self._outcome.events.append("taken"))

    async def _run(self, request: HotRequest) -> Answer:
        body = await request.json(MOST_JSON)
        await self._waited(request)
        return json_answer(body)

    async def _echo(self, request: HotRequest) -> Answer:
        body = b""
        async for chunk in request.body():
            body += chunk
        if request.client_is_gone:
            self._outcome.events.append(f"gone after {len(body)}")
            raise ClientGone
        return Answer(200, self._told(request, body), "text/plain")

    async def _broken(self, request: HotRequest) -> Answer:
        raise BrokenPipeError("as handlers may")


Step = bytes | float | str | None
"""bytes to send, seconds to wait, "stop": the service begins to stop, or None: those who wait get their answers"""


def outcome(script: Sequence[Step], end: str, *, lane: bool) -> Outcome:
    """`end`: the client then says that it is done (eof), resets the connection (rst), or is silent until it is over."""
    clock = MockClock()
    found = Outcome()

    async def main() -> None:
        service = Service(found, lane=lane)
        with trio.socket.socket() as client:
            async with trio.open_nursery() as nursery:
                (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
                await client.connect(listener.socket.getsockname())
                stream = await listener.accept()
                nursery.start_soon(service.connection, stream)
                nursery.start_soon(listen, client)
                for step in script:
                    if isinstance(step, bytes):
                        await sent(client, step)
                    elif step is None:
                        service.gate.set()
                    elif isinstance(step, str):
                        await service.context.terminated.set()
                        service.config.connections.stop()
                    else:
                        await passed(step)
                    await wait_all_tasks_blocked(0.001)
                began[0] = trio.current_time()
                if end == "silence":
                    service.gate.set()
                elif end == "eof":
                    shut(client)
                else:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    client.close()
                while not service.is_over:
                    await wait_all_tasks_blocked(0.001)
                    until = trio.lowlevel.current_statistics().seconds_to_next_deadline
                    clock.jump(min(until, 1000.0))
                await listener.aclose()
                nursery.cancel_scope.cancel()

    began = [0.0]

    async def listen(client: trio.socket.SocketType) -> None:
        try:
            while data := await client.recv(65536):
                found.heard += data
        except (OSError, trio.ClosedResourceError):
            return  # by a reset
        found.closed = trio.current_time() - began[0]

    async def sent(client: trio.socket.SocketType, data: bytes) -> None:
        with suppress(OSError):  # it was closed
            while data:
                data = data[await client.send(data) :]

    async def passed(seconds: float) -> None:
        until = trio.current_time() + seconds
        while (left := until - trio.current_time()) > 0:
            await wait_all_tasks_blocked(0.001)
            clock.jump(min(left, trio.lowlevel.current_statistics().seconds_to_next_deadline))

    def shut(client: trio.socket.SocketType) -> None:
        with suppress(OSError):
            client.shutdown(socket.SHUT_WR)

    trio.run(main, clock=clock)
    return found


def alike(script: Sequence[Step], end: str) -> Outcome:
    """The outcome, which hypercorn's lane has, too. What that says to a client that goes on after `Connection: close`,
    or after it was refused, depends on which of its tasks is first: so it may try again."""
    fast = outcome(script, end, lane=True)
    others: list[Outcome] = []
    while fast.in_lane and fast.comparable() not in [other.comparable() for other in others]:
        others.append(outcome(script, end, lane=False))
        assert others[-1].in_lane == 0
        if len(others) == TRIES:
            assert fast.comparable() == others[0].comparable()
    return fast


# -- what clients may say --------------------------------------------------------------------------------------------


def request(target: str, *lines: str, body: bytes = b"") -> bytes:
    return "\r\n".join([f"{target} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode("latin-1") + body


def post(path: str, body: bytes, *lines: str) -> bytes:
    return request(f"POST {path}", *lines, f"Content-Length: {len(body)}", body=body)


PLAIN = [
    request("GET /history"),
    request("HEAD /history?a=%41+b", "Connection: keep-alive", "User-Agent: some client"),
    request("GET /history?wait=1", "A: b", "A: c"),
    request("GET /chunks?x", "X-Forwarded-For: 1.2.3.4", "Accept: */*"),
    request("GET /chunks?wait"),
    request("HEAD /chunks"),
    request("GET /broken"),
    request("GET /history", "Origin: http://listed.example"),
    request("GET /history", "Origin: http://other.example"),
    post("/run", b'{"workflow":"x"}'),
    post("/run?wait", b'{"workflow":"x"}', "Idempotency-Key: k"),
    post("/run", b"[" * 30),
    post("/run", b'{"workflow":"too long for it"}' + b" " * MOST_JSON),
    post("/run", b'{"workflow":"x"}', "X-Forwarded-For: 1.2.3.4"),
    post("/echo?a=1&a=2", bytes(range(256))),
    post("/echo", b"GET /history HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    post("/broken", b"ab"),
    request("POST /echo", "Transfer-Encoding: chunked", body=b"2\r\nab\r\n0\r\n\r\n"),
    request("GET /other", "A: b"),
    request("DELETE /history"),
    request("GET /history", "Connection: close"),
    post("/echo", b"abc", "Expect: 100-continue"),
]

WORDS = [
    *(
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b"?",
        b"#",
        b"%",
        b"/",
        b".",
        b"\x0b",
        b"\x85",
        b"\xa0",
    ),
    *(b"Content-Length: 5\r\n", b"Content-Length: 16\r\n", b"content-length:16\r\n", b"Content-Length: 1_6\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding : chunked\r\n", b"transfer-encoding:\tchunked\r\n"),
    *(b"Host: a\r\n", b"Host:\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"A: b\r\n c\r\n"),
    *(b"Expect: 100-continue\r\n", b"HTTP/1.0", b"GET /history HTTP/1.1\r\n", b"/run", b"/../", b"%2e", b"http://a"),
]

LINES = [
    *("Host: a", "Host:", "Content-Length: 2", "Content-Length: 3", "content-length:2", "CONTENT-LENGTH: 2"),
    *("Content-Length: 02", "Content-Length: +2", "Content-Length: 2,2", "Content-Length: 2, 3", "Content-Length: 0x2"),
    *("Content-Length: -2", "Content-Length: \xb2", "Content-Length: 2 ", "Content-Length:", "Content-Length: 99999"),
    *("Content-Length : 2", " Content-Length: 2", "Content-Length: 2\x0b", "Content-Length\t: 2", "Content_Length: 2"),
    *("Transfer-Encoding: chunked", "transfer-encoding:CHUNKED", "Transfer-Encoding: identity", "Transfer-Encoding:"),
    *("Transfer-Encoding: chunked, chunked", "Transfer-Encoding:\x0bchunked", "A: b\r\n Transfer-Encoding: chunked"),
    *("Connection: keep-alive", "Connection: Keep-Alive", "Connection: close", "Connection: host", "Connection:close"),
    *(
        "Connection: keep-alive, close",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: close",
        "Upgrade: h2c",
        "TE: trailers",
    ),
    *("Expect: 100-continue", "Expect: 200", "Trailer: A", "HTTP2-Settings: AAM", "Upgrade: websocket"),
    *(
        "A: b",
        "A: b c",
        "A:  b",
        "A: b ",
        "A:",
        "A: \xe4",
        "A: b\0c",
        "A: b\rC: d",
        "A: b\nC: d",
        "A\r\n: b",
        ": b",
        "A",
    ),
    *(
        " folded",
        "\tfolded",
        "A!#$: b",
        "A B: c",
        "A\xe4: b",
        "A: \x7f",
        "A: \x01",
        f"A: {'b' * 9000}",
        f"{'A' * 9000}: b",
    ),
    *("X-Forwarded-For: 1.2.3.4", "Sec-WebSocket-Extensions: permessage-deflate", "Sec-Fetch-Site: cross-site"),
]

TARGETS = [
    *(
        "GET /history",
        "HEAD /history?a=b",
        "GET /chunks",
        "POST /run",
        "POST /echo?a",
        "POST /echo?wait",
        "GET /broken",
    ),
    *("POST //echo", "post /echo", "POST  /echo", "POST /echo/", "POST /%65cho", "POST /./echo", "POST /a/../echo"),
    *("POST http://localhost/echo", "POST /echo?a=#b", "POST /echo?a=\xe4", "POST /echo?a=\x7f", 'POST /echo?a="b"'),
    *(
        "POST /echo?a?b=%00",
        "POST echo",
        "POST *",
        "OPTIONS /echo",
        "GET /echo",
        "POST /history",
        "POST /echo ",
        "POST /echo;a",
    ),
]

BODIES = [b"", b"ab", b"ab", b"ab", b"abc", b"2\r\nab\r\n0\r\n\r\n", b"2\r\nab\r\n0\r\nA: b\r\n\r\n", b"\r\n", b"{}"]


@st.composite
def put_together(draw: st.DrawFn) -> bytes:
    """A request of odd pieces, most of them not so odd."""
    target = draw(st.sampled_from(TARGETS))
    version = draw(st.sampled_from(["HTTP/1.1"] * 6 + ["HTTP/1.0", "HTTP/2.0", "http/1.1", "HTTP/1.1 ", "HTTP/01.1"]))
    lines = draw(st.lists(st.sampled_from(LINES), max_size=2))
    lines += draw(st.sampled_from([[], ["Content-Length: 2"], ["Content-Length: 2"]]))
    host = draw(st.sampled_from([["Host: localhost"]] * 6 + [[], ["host:localhost"], ["Host: a b"]]))
    lines = draw(st.permutations([*host, *lines]))
    end = draw(st.sampled_from(["\r\n"] * 8 + ["\n", "\r", "\r\r\n"]))
    return end.join([f"{target} {version}", *lines, "", ""]).encode("latin-1") + draw(st.sampled_from(BODIES))


REQUESTS = st.sampled_from(PLAIN) | st.sampled_from(PLAIN) | damaged(PLAIN, WORDS, most=3) | put_together()


def together(each: list[st.SearchStrategy[int]]) -> st.SearchStrategy[list[int]]:
    return st.tuples(*each).map(list)


@st.composite
def scripts(draw: st.DrawFn) -> list[Step]:
    """One to three requests, most of them apart, cut anywhere else, too, above all where a head ends; with pauses."""
    requests = draw(st.lists(REQUESTS, min_size=1, max_size=3))
    data = b"".join(requests)
    between = [place for place in accumulate(map(len, requests[:-1])) if draw(st.sampled_from([True] * 4 + [False]))]
    heads = st.sampled_from([found.end() for found in re.finditer(rb"\r\n\r\n", data)] or [0])
    cuts = between + draw(st.sampled_from([[], [heads], [heads, heads], [st.integers(0, len(data))]]).flatmap(together))
    steps: list[Step] = []
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), len(data)], strict=True):
        steps.append(data[start:stop])
        steps += draw(st.sampled_from([[], [], [], [None], [0.7], [1.4]]))
    return [step for step in steps if step != b""]


ENDS = st.sampled_from(["eof", "silence", "rst"])


@settings(derandomize=True, database=None, deadline=None, max_examples=250)
@given(scripts(), ENDS)
def test_both_lanes_are_one(script: list[Step], end: str) -> None:
    alike(script, end)


SWEEP = [
    *(
        request(f"{method} /echo", line, *more, body=body)
        for line in LINES
        for method, more, body in [("POST", ["Content-Length: 2"], b"ab"), ("POST", [], b"ab"), ("GET", [], b"")]
    ),
    *(request(line, "Content-Length: 2", body=b"ab") for line in TARGETS),
    *(request(line) for line in TARGETS),
    *(request("GET /history").replace(b"HTTP/1.1", version) for version in (b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.1 ")),
    *(request("GET /history", "A: b").replace(b"\r\n", end) for end in (b"\n", b"\r", b"\r\r\n", b"\n\r")),
    *(request("GET /history", *(f"A{n}: b" for n in range(count))) for count in (100, 1000, 5000)),
    b"\r\n" + request("GET /history"),
]


@pytest.mark.parametrize("part", range(4))
def test_each_oddity_by_itself(part: int) -> None:
    for data in SWEEP[part::4]:
        alike([data, request("GET /history")], "eof")


HEAD = request("POST /echo", "Content-Length: 4")
REFUSED = request("POST /echo", "Content-Length: 4", "X-Forwarded-For: 1.2.3.4")
NEXT = request("GET /history")
SLOWLY: list[Step] = [0.7, b"a" * 100] * 5

STORIES: dict[str, list[Step]] = {
    "a body behind its head": [HEAD, b"abcd", NEXT],
    "a body in pieces": [HEAD + b"a", b"b", 1.0, b"cd", NEXT],
    "a body and the next request": [HEAD, b"abcd" + NEXT],
    "a body and half the next request": [HEAD, b"abcd" + NEXT[:9], 1.0, NEXT[9:]],
    "a body that does not come": [HEAD],
    "half a body": [HEAD, b"ab"],
    "a body that is too late": [HEAD, 1.6, b"abcd", NEXT],
    "a body after a pause": [NEXT, 20.0, HEAD, 1.4, b"abcd", NEXT],
    "pauses that are too long together": [HEAD, 0.7, b"a", 0.7, b"b", 0.7, b"c", 0.7, b"d", NEXT],
    "a refusal before the body": [REFUSED, 1.0, b"abcd", NEXT],
    "a refusal without a body": [REFUSED],
    "a refusal, and time goes on": [REFUSED.replace(b": 4", b": 500"), *SLOWLY, NEXT],
    "a slow body": [HEAD.replace(b": 4", b": 500"), *SLOWLY, NEXT],
    "a stop before the body": [HEAD, "stop", b"abcd", NEXT],
    "a stop, and no body": [NEXT, HEAD, "stop"],
    "a stop while it waits": [request("GET /history?wait"), "stop", 1.0, None, NEXT],
    "a stop while it waits, with the next one sent": [request("GET /history?wait"), NEXT, "stop", None],
    "a stop while idle": [NEXT, "stop"],
    "the next one while it waits": [request("GET /chunks?wait"), NEXT, 2.0, NEXT, None, NEXT],
    "half the next one while it waits": [request("GET /history?wait"), NEXT[:9], 5.0, None, 1.0, NEXT[9:]],
    "a post while it waits": [post("/run?wait", b"{}"), HEAD, 5.0, None, 1.0, b"abcd"],
    "one too many": [NEXT, HEAD, b"abcd", NEXT, NEXT],
}


@pytest.mark.parametrize("end", ["eof", "silence", "rst"])
@pytest.mark.parametrize("name", STORIES)
def test_stories(name: str, end: str) -> None:
    assert alike(STORIES[name], end).in_lane
