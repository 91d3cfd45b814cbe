"""The two requests every job costs, over httptools on Trio: POST /prompt and GET /view.

A small request takes 0.04 ms of CPU here, 0.12 ms with h11 in this place, 0.4 to 0.5 ms with httpx (one run of
bench/http_clients.py; 0.03 ms of it are Trio's wait and the system calls). One job is 5 to 11 ms in all, so the
difference decides whether the bridge is felt. Everything else goes through httpx.

What makes it cheap: the head of a request is written by hand, an answer that comes in one piece costs one send, one
wait and one recv under one deadline, and the parser (llhttp, at its strict defaults) lives as long as its connection.
"""

from __future__ import annotations

import re
import select
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import httptools
import msgspec
import trio

from bridged.comfy import tls
from bridged.errors import BackendUnavailable

READ = 64 * 1024
MAX_HEAD = 64 * 1024
"""bytes that may come without any of the body among them: head, interim answers, trailers. One read may exceed it."""
MAX_JSON = 16 * 1024 * 1024
"""bytes of an answer to POST /prompt; a real one has a few hundred, refusals some thousand"""

NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
VALUE = re.compile(r"[\t -~]*")
TARGET = re.compile(r"/[!-~]*")
START = b"HTTP/1."
FRAMING = {"content-length", "transfer-encoding"}

NETWORK_ERRORS = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class Response(msgspec.Struct, frozen=True):
    """An answer's head; names of headers in lower case, of repeated ones the last."""

    status: int
    headers: dict[bytes, bytes]


class _Refused(Exception):
    """Ends the parser's work from within a callback."""


def _failed(error: Exception) -> BackendUnavailable:
    return BackendUnavailable(tls.trouble(error) or f"the connection failed ({type(error).__name__})")


class _Transport(trio.abc.Stream):
    """What TLS runs over. A read that `probe` wraps ends, cancelled, where nothing is left to decrypt."""

    def __init__(self, tcp: trio.SocketStream) -> None:
        self._tcp = tcp
        self.probe: trio.CancelScope | None = None

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self.probe is not None:
            self.probe.cancel()
        return await self._tcp.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._tcp.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._tcp.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._tcp.aclose()


class _Connection:
    """A connection and the answer that is being read on it. Whatever raises here, the connection is to be closed.

    Reads and writes go past Trio's streams where there is no TLS: those try a recv that fails before each wait.
    """

    def __init__(self, tcp: trio.SocketStream, tls: trio.SSLStream[_Transport] | None) -> None:
        self._tls = tls
        self._tcp = tcp  # with TLS it stays the owner
        self._socket = socket.socket(fileno=tcp.socket.detach()) if tls is None else None
        if self._socket is not None:
            self._socket.setblocking(False)
        self._fd = self._socket.fileno() if self._socket is not None else tcp.socket.fileno()
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        self._without_body = 0
        self._is_first = True
        self._headers: dict[bytes, bytes] = {}
        self.chunks: list[bytes] = []
        """of the body: read, and not yet taken"""
        self.response: Response | None = None
        self.complete = False
        self.reusable = False
        # Two of the parser's callbacks are C functions: a frame less for each header and each piece.
        self.on_header = self._headers.__setitem__
        self.on_body = self.chunks.append
        self._parser = httptools.HttpResponseParser(self)

    # -- what the parser tells -------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.complete:
            raise _Refused("a second answer")
        self._headers.clear()

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:
            self.response = Response(status, {name.lower(): value for name, value in self._headers.items()})
        elif status < 100 or status == 101:
            raise _Refused(f"status {status}")

    def on_message_complete(self) -> None:
        if self.response is not None:
            self.complete = True
            self.reusable = self._parser.should_keep_alive() and self._parser.get_http_version() == "1.1"

    # -- one exchange ----------------------------------------------------------------------------------------------

    async def ask(self, request: bytes, timeout: float) -> Response:
        """Sends a request and reads to the end of the answer's head, at least."""
        self.response = None
        self.complete = self.reusable = False
        self._is_first = True
        with trio.move_on_after(timeout) as scope:
            try:
                if await self._send(request):
                    scope.deadline = trio.current_time() + timeout
                while True:
                    await self._receive()
                    if self.response is not None:
                        return self.response
                    scope.deadline = trio.current_time() + timeout
            except NETWORK_ERRORS as error:
                raise _failed(error) from error
        raise BackendUnavailable("it did not answer in time")

    async def more(self, timeout: float) -> None:
        """Reads once. `chunks` are taken before, and the answer is not complete."""
        try:
            if self._is_first and self._socket is not None:
                # ComfyUI sends a file just after its head: mostly it is there by now, and neither deadline nor wait
                # is needed. Later reads always wait, which lets other tasks run.
                self._is_first = False
                with suppress(BlockingIOError):
                    return self._feed(self._socket.recv(READ))
            with trio.move_on_after(timeout):
                return await self._receive()
        except NETWORK_ERRORS as error:
            raise _failed(error) from error
        raise BackendUnavailable("it did not answer in time")

    def take(self) -> bytes:
        """What has come of the body."""
        chunks = self.chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        return data

    async def _send(self, data: bytes) -> bool:
        """Whether it took more than one go."""
        if self._socket is None:
            assert self._tls is not None
            await self._tls.send_all(data)
            return True
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return False
        with memoryview(data) as view:
            while sent < len(data):
                await trio.lowlevel.wait_writable(self._fd)
                try:
                    sent += self._socket.send(view[sent:])
                except BlockingIOError:
                    continue
        return True

    async def _receive(self) -> None:
        if self._socket is None:
            assert self._tls is not None
            return self._feed(bytes(await self._tls.receive_some(READ)))
        while True:
            await trio.lowlevel.wait_readable(self._fd)
            try:
                data = self._socket.recv(READ)
            except BlockingIOError:
                continue
            return self._feed(data)

    def _feed(self, data: bytes) -> None:
        if not data:
            return self._end()
        size = len(data)
        if self.response is None and not self._without_body and not data.startswith(START[:size]):
            raise BackendUnavailable("its answer is not HTTP")  # the parser knows RTSP too, and skips empty lines
        try:
            if data[-1] in b"\r\n":
                # The parser passes over empty lines between answers without a word. Fed apart, the last byte tells
                # whether the answer ends with it or before it.
                self._parser.feed_data(data[:-1])
                if self.complete:
                    self.reusable = False
                    return
                data = data[-1:]
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.complete:
                raise BackendUnavailable(f"its answer is not HTTP: {error.__context__ or error}") from error
            self.reusable = False
        if self.complete or self.chunks:
            self._without_body = 0
            return
        self._without_body += size
        if self._without_body > MAX_HEAD:
            raise BackendUnavailable("the head of its answer does not end")

    def _end(self) -> None:
        if self.response is None:
            raise BackendUnavailable("it closed the connection without an answer")
        if not self.response.headers.keys().isdisjoint((b"content-length", b"transfer-encoding")):
            raise BackendUnavailable("it closed the connection in the middle of a file")
        self.complete = True

    # -- between exchanges -------------------------------------------------------------------------------------------

    async def is_stale(self) -> bool:
        """Whether the server has closed it, or said something unasked: either way it cannot be used again."""
        if self._poll.poll(0):
            return True
        if self._tls is None:
            return False
        # What it said may have been received and not yet decrypted.
        with trio.CancelScope() as scope:
            self._tls.transport_stream.probe = scope
            try:
                await self._tls.receive_some(1)
            except NETWORK_ERRORS:
                return True
            finally:
                self._tls.transport_stream.probe = None
        return not scope.cancelled_caught

    def close(self) -> None:
        if self._socket is None:
            self._tcp.socket.close()
        else:
            trio.lowlevel.notify_closing(self._fd)
            self._socket.close()


class _Get:
    """One GET: the context, and in it the chunks."""

    __slots__ = ("_connection", "_hot", "_request")

    def __init__(self, hot: HotPath, request: bytes) -> None:
        self._hot = hot
        self._request = request
        self._connection: _Connection | None = None

    async def __aenter__(self) -> tuple[Response, AsyncIterator[bytes]]:
        self._connection = connection = await self._hot.connect()
        response = None
        try:
            response = await connection.ask(self._request, self._hot.timeout)
        finally:
            if response is None:
                connection.close()
        return response, self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        connection, self._connection = self._connection, None
        assert connection is not None
        self._hot.release(connection)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        connection = self._connection
        if connection is None:
            raise trio.ClosedResourceError("the answer was left")  # its connection may have another one by now
        while not connection.chunks:
            if connection.complete:
                raise StopAsyncIteration
            await connection.more(self._hot.timeout)
        return connection.take()


class HotPath:
    """Keep-alive connections to one backend. `timeout` (s) bounds connecting and each silence of the server.

    Raises ValueError where URL or headers are nothing to be sent over HTTP.
    """

    def __init__(
        self, url: str, headers: Mapping[str, str], ssl_context: ssl.SSLContext, *, timeout: float = 30.0
    ) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._tls = ssl_context if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._prefix = parts.path.rstrip("/")
        fields = list(headers.items())
        if "host" not in map(str.lower, headers):
            fields.insert(0, ("Host", parts.netloc))
        for name, value in fields:
            if not NAME.fullmatch(name) or not VALUE.fullmatch(value) or name.lower() in FRAMING:
                raise ValueError(f"{name!r} is no header that can be sent")
        self._head = " HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields)
        self._post_head = f"{self._head}Content-Type: application/json\r\nContent-Length: "
        self._idle: list[_Connection] = []
        self.timeout = timeout

    async def post_json(self, target: str, body: bytes) -> tuple[int, bytes]:
        """The status and the whole answer. Raises BackendUnavailable, also when the answer never came: the
        request may then have been accepted all the same."""
        request = f"POST {self._checked(target)}{self._post_head}{len(body)}\r\n\r\n".encode("ascii") + body
        connection = await self.connect()
        try:
            response = await connection.ask(request, self.timeout)
            data = connection.take()
            if not connection.complete:
                data = await self._rest(connection, bytearray(data))
            return response.status, data
        finally:
            self.release(connection)

    async def _rest(self, connection: _Connection, data: bytearray) -> bytes:
        while not connection.complete:
            await connection.more(self.timeout)
            data += connection.take()
            if len(data) > MAX_JSON:
                raise BackendUnavailable("its answer does not end")
        return bytes(data)

    def get(self, target: str) -> AbstractAsyncContextManager[tuple[Response, AsyncIterator[bytes]]]:
        """The answer's head, then its body as it arrives. Raises BackendUnavailable, also for a cut-off body."""
        return _Get(self, f"GET {self._checked(target)}{self._head}\r\n".encode("ascii"))

    def _checked(self, target: str) -> str:
        target = self._prefix + target
        if not TARGET.fullmatch(target):
            raise ValueError("the target is nothing to be sent over HTTP")
        return target

    async def connect(self) -> _Connection:
        """An idle connection that the server has left alone, else a new one. Raises BackendUnavailable."""
        while self._idle:
            connection, stale = self._idle.pop(), True
            try:
                stale = await connection.is_stale()
            finally:
                if stale:
                    connection.close()
            if not stale:
                return connection
        with trio.move_on_after(self.timeout):
            try:
                return await self._open()
            except NETWORK_ERRORS as error:
                raise _failed(error) from None  # the cause's text has the address in it
        raise BackendUnavailable("it did not answer in time")

    async def _open(self) -> _Connection:
        tcp = await trio.open_tcp_stream(self._host, self._port)
        if self._tls is None:
            return _Connection(tcp, None)
        tls = trio.SSLStream(_Transport(tcp), self._tls, server_hostname=self._host)
        connection = _Connection(tcp, tls)
        done = False
        try:
            await tls.do_handshake()
            done = True
        finally:
            if not done:
                connection.close()
        return connection

    def release(self, connection: _Connection) -> None:
        """Keeps a connection whose exchange is over on both sides with nothing behind it, and closes any other."""
        if connection.reusable:
            connection.chunks.clear()
            self._idle.append(connection)
        else:
            connection.close()

    async def use(self, ssl_context: ssl.SSLContext) -> None:
        """From now on connections are made with this context."""
        if self._tls is not None:
            self._tls = ssl_context
            await self.aclose()

    async def aclose(self) -> None:
        """Closes the connections that nobody uses."""
        while self._idle:
            self._idle.pop().close()
