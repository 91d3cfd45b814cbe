"""The fast lane: what it takes for a request, that hypercorn's parser would read the same, and what it answers."""

from __future__ import annotations

import re
from typing import Any

import h11
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from bridged.api import fastlane
from bridged.api.fastlane import Exchange, FastLane, Plain, recognised
from bridged.api.hot import ClientGone
from tests.e2e.house import House
from tests.fakes.comfyui import FakeComfyUI
from tests.fuzz.mutation import damaged

PATHS = {"/history": ("GET", "HEAD"), "/run": ("POST",), "/generate-based-workflow": ("POST",)}


def request(line: str = "GET /history?clientId=a", *headers: str, body: bytes = b"", host: str = "localhost") -> bytes:
    head = [f"{line} HTTP/1.1", f"Host: {host}", *headers]
    return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1") + body


def post(body: bytes = b'{"workflow":"x"}', *headers: str, line: str = "POST /run?clientId=a") -> bytes:
    return request(line, "Content-Type: application/json", f"Content-Length: {len(body)}", *headers, body=body)


PLAIN = [
    request(),
    request("HEAD /history?clientId=%41&wait=1"),
    request("GET /history", "Connection: keep-alive", "User-Agent: a client/1.0 (of some kind)", "Accept: */*"),
    request("GET /history", "Authorization: Bearer abc", "Origin: http://a.example", "X-Forwarded-For: 1.2.3.4, ::1"),
    post(),
    post(b"\r\n\r\n\0\xff", "Idempotency-Key:abc"),
    post(b"x" * 60_000, line="POST /generate-based-workflow?clientId=a"),
]

ODD = {
    "nothing": b"",
    "another path": request("GET /status"),
    "a longer path": request("GET /history/"),
    "two slashes": request("GET //history"),
    "an encoded path": request("GET /%68istory"),
    "an absolute target": request("GET http://localhost/history"),
    "a fragment": request("GET /history?a#b"),
    "another method": request("DELETE /history"),
    "a method for another path": request("GET /run"),
    "a small method": request("get /history"),
    "two spaces": request("GET  /history"),
    "not ASCII in the target": request("GET /history?clientId=\xe4"),
    "HTTP/1.0": request().replace(b"HTTP/1.1", b"HTTP/1.0"),
    "HTTP/2": request().replace(b"HTTP/1.1", b"HTTP/2.0"),
    "an empty line before": b"\r\n" + request(),
    "bare line feeds": request().replace(b"\r\n", b"\n"),
    "one bare line feed": request("GET /history", "A: b").replace(b"\r\nA", b"\nA"),
    "a bare carriage return": request("GET /history", "A: b\rC: d"),
    "a folded header": request("GET /history", "A: b\r\n c"),
    "a space before the colon": request("GET /history", "A : b"),
    "a space before the name": request("GET /history", " A: b"),
    "a tab": request("GET /history", "A:\tb"),
    "two spaces after the colon": request("GET /history", "A:  b"),
    "a space at the end": request("GET /history", "A: b "),
    "an empty value": request("GET /history", "A:"),
    "no colon": request("GET /history", "A"),
    "no name": request("GET /history", ": b"),
    "an underscore": request("GET /history", "Content_Length: 5"),
    "not ASCII": request("GET /history", "A: \xe4"),
    "a NUL": request("GET /history", "A: b\0c"),
    "no host": b"GET /history HTTP/1.1\r\nA: b\r\n\r\n",
    "no headers": b"GET /history HTTP/1.1\r\n\r\n",
    "two hosts": request("GET /history", "host: other"),
    "half a head": request()[:-2],
    "something behind": request() + b"G",
    "a second request": request() + request(),
    "a body to a GET": request("GET /history", "Content-Length: 1", body=b"x"),
    "a GET that says 0": request("GET /history", "Content-Length: 0"),
    "a POST with no length": request("POST /run"),
    "a POST of nothing": request("POST /run", "Content-Length: 0"),
    "more than a body": post() + b"\r\n",
    "two lengths": post(b"ab", "Content-Length: 2"),
    "two that differ": post(b"ab", "Content-Length: 1"),
    "a list of lengths": request("POST /run", "Content-Length: 2, 2", body=b"ab"),
    "a length with a sign": request("POST /run", "Content-Length: +2", body=b"ab"),
    "a length with a zero": request("POST /run", "Content-Length: 02", body=b"ab"),
    "a length in words": request("POST /run", "Content-Length: two", body=b"ab"),
    "a long length": request("POST /run", "Content-Length: 100000", body=b"x" * 100_000),
    "chunks": request("POST /run", "Transfer-Encoding: chunked", body=b"2\r\nab\r\n0\r\n\r\n"),
    "chunks and a length": post(b"2\r\nab\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
    "a coding nobody knows": post(b"ab", "Transfer-Encoding: identity"),
    "an expectation": post(b"ab", "Expect: 100-continue"),
    "the last one": request("GET /history", "Connection: close"),
    "an option": request("GET /history", "Connection: keep-alive, host"),
    "an upgrade": request("GET /history", "Connection: Upgrade", "Upgrade: websocket"),
    "an upgrade that is not named": request("GET /history", "Upgrade: h2c"),
    "trailers": post(b"ab", "Trailer: a"),
    "a long head": request("GET /history", f"A: {'b' * 9000}"),
}


@pytest.mark.parametrize("data", PLAIN)
def test_plain_requests_are_taken(data: bytes) -> None:
    assert recognised(data, PATHS) is not None


@pytest.mark.parametrize("sent", [0, 1, len(post()) - post().index(b"{") - 1])
def test_the_rest_of_a_body_is_still_to_come(sent: int) -> None:
    data = post()[: post().index(b"{") + sent]
    request = recognised(data, PATHS)
    assert request is not None
    assert len(request.body) == sent
    assert len(data) + request.missing == len(post())


@pytest.mark.parametrize("name", ODD)
def test_everything_else_is_left(name: str) -> None:
    assert recognised(ODD[name], PATHS) is None


def by_h11(data: bytes) -> Plain:
    """As hypercorn's parser reads it. Raises where it would be more, or less, than one request."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    head = connection.next_event()
    assert isinstance(head, h11.Request)
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert connection.trailing_data == (b"", False)
    assert not connection.they_are_waiting_for_100_continue
    # Nothing was said about the connection: after an answer it goes on.
    connection.send(h11.Response(status_code=204, headers=[]))
    connection.send(h11.EndOfMessage())
    connection.start_next_cycle()
    path, _, query = head.target.partition(b"?")
    return Plain(head.method.decode(), path.decode(), query, list(head.headers), body, 0)


WORDS = [
    *(b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"?", b"#", b"\x0b", b"\x85", b"\xa0", b"_"),
    *(b"Content-Length: 5\r\n", b"Content-Length: 16\r\n", b"content-length:16\r\n", b"Content-Length: 1_6\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding : chunked\r\n", b"transfer-encoding:\tchunked\r\n"),
    *(b"Host: a\r\n", b"Host:\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"A: b\r\n c\r\n"),
    *(b"Expect: 100-continue\r\n", b"Upgrade: websocket\r\n", b"HTTP/1.0", b"GET /history HTTP/1.1\r\n", b"/run"),
]


@given(damaged(PLAIN[:-1], WORDS))
def test_whatever_is_taken_hypercorns_parser_reads_the_same(data: bytes) -> None:
    request = recognised(data, PATHS)
    if request is not None:
        whole = data + b"x" * request.missing
        assert by_h11(whole) == request._replace(body=request.body + b"x" * request.missing, missing=0)


LINES = [
    *(b"Host: a", b"Host: b", b"Content-Length: 2", b"Content-Length: 3", b"content-length:2", b"Content-Length: 02"),
    *(b"Content-Length : 2", b"Content-Length: 2,2", b"Transfer-Encoding: chunked", b"transfer-encoding:chunked"),
    *(b"Transfer-Encoding: identity", b"Connection: keep-alive", b"Connection: Keep-Alive", b"Connection: close"),
    *(b"Connection: host", b"Expect: 100-continue", b"Upgrade: h2c", b"A: b", b"A: b c", b"A:  b", b"A: b ", b" c"),
]


@given(
    st.sampled_from([b"GET /history", b"HEAD /history?a=b", b"POST /run", b"POST /run?a", b"POST //run", b"post /run"]),
    st.lists(st.sampled_from(LINES), max_size=3),
    st.lists(st.sampled_from([b"A: b", b"Content-Length: 2", b"Host: a"]), max_size=2),
    st.sampled_from([b"", b"", b"ab", b"ab", b"abc", b"2\r\nab\r\n0\r\n\r\n", b"\r\n"]),
)
def test_also_of_what_is_put_together_from_pieces(
    target: bytes, odd: list[bytes], plain: list[bytes], body: bytes
) -> None:
    data = b"\r\n".join([target + b" HTTP/1.1", b"Host: localhost", *odd, *plain, b"", body])
    request = recognised(data, PATHS)
    if request is not None:
        whole = data + b"x" * request.missing
        assert by_h11(whole) == request._replace(body=request.body + b"x" * request.missing, missing=0)


# -- one exchange ----------------------------------------------------------------------------------------------------

LENGTH = (b"content-length", b"4")
START = {"type": "http.response.start", "status": 200, "headers": [LENGTH]}


def body(data: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


class Lane:
    """A fast lane whose application says `messages`, and its client."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self._messages = messages
        ours, self.client = trio.socket.socketpair()
        self.stream = trio.SocketStream(ours)
        self.slow: list[bytes] = []
        """what did not go out at once"""
        app: Any = self._app
        read = self.stream.receive_some
        self.lane = FastLane(app, PATHS, self.stream, read, self._send, ("127.0.0.1", 1), ("127.0.0.1", 2))

    async def _app(self, scope: Any, receive: Any, send: Any, *_: Any) -> None:
        await trio.lowlevel.checkpoint()
        for message in self._messages:
            await send(message)

    async def _send(self, data: bytes) -> bool:
        await trio.lowlevel.checkpoint()
        self.slow.append(data)
        return True

    async def heard(self) -> bytes:
        await self.stream.send_eof()
        said = b""
        while data := await self.client.recv(65536):
            said += data
        return said

    async def __aenter__(self) -> Lane:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.client.close()
        await self.stream.aclose()


async def test_head_and_body_go_out_together() -> None:
    async with Lane(START, body(b"ab", more=True), body(b"cd")) as lane:
        assert await lane.lane.served(PLAIN[0])
        first = await lane.client.recv(65536)
        assert re.fullmatch(rb"HTTP/1\.1 200 \r\ncontent-length: 4\r\ndate: [^\r]+ GMT\r\n\r\nab(cd)?", first)
        assert (first + await lane.heard()).endswith(b"\r\n\r\nabcd")
        assert not lane.lane.gone


@pytest.mark.parametrize(
    "said",
    [
        (START, body(b"abc")),
        (START, body(b"abcde")),
        (START, body(b"ab", more=True), body(b"cde")),
        ({**START, "headers": []}, body(b"abcd")),
        ({**START, "headers": [LENGTH, (b"x", b"a\r\nb: c")]}, body(b"abcd")),
        ({**START, "headers": [LENGTH, (b"x", b"a\nb: c")]}, body(b"abcd")),
        ({**START, "headers": [LENGTH, (b"x\r\nb", b"c")]}, body(b"abcd")),
    ],
)
async def test_an_answer_that_does_not_fit_together_ends_the_connection(said: tuple[dict[str, Any], ...]) -> None:
    async with Lane(*said) as lane:
        with pytest.raises(RuntimeError):
            await lane.lane.served(PLAIN[0])
        heard = await lane.heard() + b"".join(lane.slow)
    assert heard.startswith((b"HTTP/1.1 500 ", b"HTTP/1.1 200 "))
    assert heard.count(b"HTTP/1.1") == 1
    assert b"b: c" not in heard


async def test_one_that_stays_away_ends_the_connection() -> None:
    async with Lane() as lane:
        assert await lane.lane.served(PLAIN[0])
        assert lane.lane.gone


async def test_what_the_socket_does_not_take_at_once_goes_out_with_patience() -> None:
    size = 8_000_000
    start = {**START, "headers": [(b"content-length", b"%d" % size)]}
    async with Lane(start, body(b"x" * size)) as lane:
        assert await lane.lane.served(PLAIN[0])
        heard = await lane.heard() + b"".join(lane.slow)
    assert heard.partition(b"\r\n\r\n")[2] == b"x" * size
    assert lane.slow


async def test_nothing_counts_as_taken_where_the_client_is_gone() -> None:
    async with Lane() as lane:
        lane.client.close()
        request = recognised(PLAIN[0], PATHS)
        assert request is not None
        exchange = Exchange(lane.lane, request)
        await exchange.send(START)
        await exchange.send(body(b"ab", more=True))
        with pytest.raises(ClientGone):
            await exchange.send(body(b"cd"))
        assert lane.lane.gone
        assert (await exchange.receive())["type"] == "http.request"
        assert (await exchange.receive())["type"] == "http.disconnect"


# -- both lanes ------------------------------------------------------------------------------------------------------


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[Plain]:
    """What took the fast lane."""
    requests: list[Plain] = []

    def spied(data: bytes, paths: fastlane.Paths) -> Plain | None:
        request = recognised(data, paths)
        if request is not None:
            requests.append(request)
        return request

    monkeypatch.setattr(fastlane, "recognised", spied)
    return requests


async def said(house: House, data: bytes) -> bytes:
    """All that a connection hears until it says that it is done and the daemon closes it; without what differs each
    time."""
    host, port = house.url.removeprefix("http://").rsplit(":", 1)
    heard = b""
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(data)
        with trio.fail_after(10):
            while b"\r\n\r\n" not in heard and (chunk := await stream.receive_some()):
                heard += chunk
            await stream.send_eof()
            while chunk := await stream.receive_some():
                heard += chunk
    heard = re.sub(rb"date: [A-Za-z0-9,: ]+ GMT", b"date: D", heard)
    heard = re.sub(rb"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{32}", b"ID", heard)
    return re.sub(rb"queued / \d+", b"queued / N", heard)


def bearer(key: str) -> str:
    return f"Authorization: Bearer {key}"


async def test_both_lanes_answer_alike(
    house: House, fake: FakeComfyUI, monkeypatch: pytest.MonkeyPatch, taken: list[Plain]
) -> None:
    """Ordinary and odd requests, each on a connection of its own: status, headers and body to the byte."""
    house.settings["limits"] = {"json_max_size": 0.02, "header_timeout": 0.3, "body_timeout": 0.3}
    house.settings["access"] = {"cors": ["http://listed.example"]}
    keys = house.write_clients("anna", "watch", watch="scopes = []")
    house.write_settings()
    await house.wait_status(lambda s: s["configuration"]["generation"] > 1)
    anna = bearer(keys["anna"])
    async with house.client("a", keys["anna"]) as client:
        job = (await client.submit("pattern"))["job_id"]
        assert len(await client.result()) == 1
    fetch = f"GET /history?clientId=a&jobId={job}"
    small = b'{"workflow":"pattern","1/color":7}'
    requests = [
        *(request(f"{line}", anna) for line in (fetch, f"{fetch}&resType=base64", f"{fetch}&resType=none")),
        *(request(f"HEAD{fetch[3:]}", anna), request(f"HEAD{fetch[3:]}&resType=base64", anna)),
        *(request(f"GET /history{query}", anna) for query in ("", "?clientId=n", "?clientId=n&wait=x", "?clientId=%0")),
        *(request(), request("GET /history?clientId=a", bearer("wrong")), request("GET /history?key=abc")),
        *(request("GET /history?clientId=a", bearer(keys["watch"])), request("DELETE /history", anna)),
        *(request("GET /history?clientId=n", anna, f"Origin: http://{name}.example") for name in ("listed", "other")),
        request("GET /history?clientId=n", anna, "Sec-Fetch-Site: cross-site"),
        request("GET /history?clientId=n", anna, host="attacker.example"),
        request("GET /history?clientId=n", anna, host="a b"),
        # With a key for the job: the second time it is the same one.
        post(small, anna, "Idempotency-Key: r"),
        post(small, anna, line="POST /generate-based-workflow?clientId=a"),
        *(post(b"{", anna, line=f"POST {path}?clientId=a") for path in ("/run", "/generate-based-workflow")),
        *(post(b"[]", anna), post(b'{"workflow":"none"}', anna)),
        *(post(small, line="POST /run"), post(b"{" + b" " * 30_000 + b"}", anna)),
        request("OPTIONS /run", "Origin: http://listed.example", "Access-Control-Request-Method: POST"),
    ]
    fast: dict[bytes, bytes] = {}
    for data in [*requests, *PLAIN, *ODD.values()]:
        fast[data] = await said(house, data) if data else b""
    assert len(taken) >= len(requests) - 3 + len(PLAIN)
    monkeypatch.setattr(fastlane, "recognised", lambda *_: None)
    for data, heard in fast.items():
        if data:
            assert heard == await said(house, data), data
    assert {int(heard[9:12]) for heard in fast.values() if heard} >= {200, 204, 400, 401, 403, 404, 405, 413}
