"""The two requests every job costs, over h11 on Trio: POST /prompt and GET /view.

httpx takes about 0.5 ms of CPU per small request where this takes 0.16 ms (bench/http_clients.py), and one job is 5 to
11 ms in all, so the difference decides whether the bridge is felt. Everything else goes through httpx.
"""

from __future__ import annotations

import select
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from urllib.parse import urlsplit

import h11
import msgspec
import trio

from bridged.errors import BackendUnavailable

READ = 64 * 1024
MAX_JSON = 16 * 1024 * 1024
"""bytes of an answer to POST /prompt; a real one has a few hundred, refusals some thousand"""


class Response(msgspec.Struct, frozen=True):
    status: int
    headers: dict[bytes, bytes]


@contextmanager
def _network_errors() -> Iterator[None]:
    """What can go wrong on the way to a backend, as the one error its callers handle."""
    try:
        yield
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise BackendUnavailable(f"the connection failed ({type(error).__name__})") from error
    except trio.TooSlowError as error:
        raise BackendUnavailable("it did not answer in time") from error
    except h11.ProtocolError as error:
        raise BackendUnavailable(f"its answer is not HTTP: {error}") from error


class _Connection:
    def __init__(self, stream: trio.abc.Stream, socket: trio.socket.SocketType) -> None:
        self.stream = stream
        self.socket = socket
        self.http = h11.Connection(h11.CLIENT)

    def is_done(self) -> bool:
        """Whether the exchange is over on both sides. Bytes beyond it would be taken for the next answer."""
        states = (self.http.our_state, self.http.their_state)
        return states == (h11.DONE, h11.DONE) and not self.http.trailing_data[0]

    def is_stale(self) -> bool:
        """Whether the server has closed it, or said something unasked: either way it cannot be used again."""
        poll = select.poll()
        poll.register(self.socket.fileno(), select.POLLIN)
        return bool(poll.poll(0))


class HotPath:
    """Keep-alive connections to one backend. `timeout` (s) bounds connecting and each silence of the server."""

    def __init__(
        self, url: str, headers: Mapping[str, str], ssl_context: ssl.SSLContext, *, timeout: float = 30.0
    ) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._tls = ssl_context if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._prefix = parts.path.rstrip("/")
        self._headers = [("Host", parts.netloc), *headers.items()]
        self._timeout = timeout
        self._idle: list[_Connection] = []

    async def post_json(self, target: str, body: bytes) -> tuple[int, bytes]:
        """The status and the whole answer. Raises BackendUnavailable, also when the answer never came: the
        request may then have been accepted all the same."""
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        async with self._exchange("POST", target, headers, body) as (response, chunks):
            data = bytearray()
            async for chunk in chunks:
                data += chunk
                if len(data) > MAX_JSON:
                    raise BackendUnavailable("its answer does not end")
            return response.status, bytes(data)

    @asynccontextmanager
    async def get(self, target: str) -> AsyncIterator[tuple[Response, AsyncIterator[bytes]]]:
        """The answer's head, then its body as it arrives. Raises BackendUnavailable, also for a cut-off body."""
        async with self._exchange("GET", target, [], b"") as answer:
            yield answer

    @asynccontextmanager
    async def _exchange(
        self, method: str, target: str, headers: list[tuple[str, str]], body: bytes
    ) -> AsyncIterator[tuple[Response, AsyncIterator[bytes]]]:
        connection = await self._connect()
        reusable = False
        try:
            request = h11.Request(method=method, target=self._prefix + target, headers=self._headers + headers)
            with _network_errors(), trio.fail_after(self._timeout):
                data = connection.http.send(request) or b""
                if body:
                    data += connection.http.send(h11.Data(data=body)) or b""
                await connection.stream.send_all(data + (connection.http.send(h11.EndOfMessage()) or b""))
            head = await self._next(connection)
            while isinstance(head, h11.InformationalResponse):
                head = await self._next(connection)
            if not isinstance(head, h11.Response):
                raise BackendUnavailable("it closed the connection without an answer")
            async with aclosing(self._body(connection)) as body_chunks:
                yield Response(head.status_code, dict(head.headers)), body_chunks
            reusable = connection.is_done()
        finally:
            if reusable:
                connection.http.start_next_cycle()
                self._idle.append(connection)
            else:
                await trio.aclose_forcefully(connection.stream)

    async def _body(self, connection: _Connection) -> AsyncGenerator[bytes, None]:
        while True:
            event = await self._next(connection)
            if isinstance(event, h11.EndOfMessage):
                return
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            else:
                raise BackendUnavailable("it closed the connection in the middle of a file")

    async def _next(self, connection: _Connection) -> object:
        while True:
            with _network_errors():
                event = connection.http.next_event()
            if event is not h11.NEED_DATA:
                return event
            with _network_errors(), trio.fail_after(self._timeout):
                connection.http.receive_data(bytes(await connection.stream.receive_some(READ)))

    async def _connect(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_stale():
                return connection
            await trio.aclose_forcefully(connection.stream)
        with _network_errors(), trio.fail_after(self._timeout):
            tcp = await trio.open_tcp_stream(self._host, self._port)
            stream: trio.abc.Stream = tcp
            if self._tls is not None:
                secure = trio.SSLStream(tcp, self._tls, server_hostname=self._host)
                await secure.do_handshake()
                stream = secure
        return _Connection(stream, tcp.socket)

    async def aclose(self) -> None:
        while self._idle:
            with suppress(OSError):
                await trio.aclose_forcefully(self._idle.pop().stream)
