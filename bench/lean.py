"""A lean HTTP/1.1 and WebSocket client on Trio: the same for every contender, and cheap enough not to be what is
measured. It knows just what the servers here send (a Content-Length, chunks or 204; unfragmented server frames
without extensions), and a WebSocket can be reset (RST) like a client that crashed.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Any
from urllib.parse import urlsplit

import msgspec
import trio

READ = 64 * 1024


class Refused(Exception):
    """An answer that the benchmark did not expect."""


def address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or 80


class _Wire:
    """A TCP connection with a read buffer."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._buffer = bytearray()

    async def _more(self) -> None:
        data = await self.stream.receive_some(READ)
        if not data:
            raise trio.BrokenResourceError("the server closed the connection")
        self._buffer += data

    async def until(self, mark: bytes) -> bytes:
        while (end := self._buffer.find(mark)) < 0:
            await self._more()
        data = bytes(self._buffer[:end])
        del self._buffer[: end + len(mark)]
        return data

    async def exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._more()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data


class Http:
    """One keep-alive connection. Use as an async context manager, or `connect` and `close`."""

    def __init__(self, url: str) -> None:
        self.host, self.port = address(url)
        self._wire: _Wire | None = None
        self._last = False
        """the server has said that it closes this connection: the next request needs another"""

    async def __aenter__(self) -> Http:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def connect(self) -> None:
        self._wire = _Wire(await trio.open_tcp_stream(self.host, self.port))

    def close(self) -> None:
        if self._wire is not None:
            self._wire.stream.socket.close()
            self._wire = None

    async def aclose(self) -> None:
        self.close()

    async def request(
        self, method: str, target: str, body: bytes = b"", content_type: str = "application/json"
    ) -> tuple[int, bytes]:
        """The status and the whole body."""
        assert self._wire is not None, "not connected"
        if self._last:
            self.close()
            await self.connect()
        wire = self._wire
        head = f"{method} {target} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
        if body or method == "POST":
            head += f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        await wire.stream.send_all(head.encode() + b"\r\n" + body)
        first, *lines = (await wire.until(b"\r\n\r\n")).split(b"\r\n")
        status = int(first[9:12])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        self._last = headers.get(b"connection", b"").lower() == b"close"
        if b"content-length" in headers:
            return status, await wire.exactly(int(headers[b"content-length"]))
        if b"transfer-encoding" not in headers:
            return status, b""
        chunks = []
        while size := int((await wire.until(b"\r\n")).split(b";")[0], 16):
            chunks.append(await wire.exactly(size))
            await wire.exactly(2)
        await wire.until(b"\r\n")
        return status, b"".join(chunks)

    async def json(self, method: str, target: str, value: object = None) -> Any:
        """The decoded body. Raises Refused for anything but 2xx."""
        status, body = await self.request(method, target, b"" if value is None else msgspec.json.encode(value))
        if not 200 <= status < 300:
            raise Refused(f"{method} {target}: {status} {body[:300]!r}")
        return msgspec.json.decode(body) if body else None

    async def bytes(self, target: str, method: str = "GET", value: object = None) -> bytes:
        """The body as it is. Raises Refused for anything but 200."""
        status, body = await self.request(method, target, b"" if value is None else msgspec.json.encode(value))
        if status != 200:
            raise Refused(f"{method} {target}: {status} {body[:300]!r}")
        return body


class WebSocket:
    """A WebSocket client; `await WebSocket.connect(url, target)`. Pings are answered while it is read."""

    def __init__(self, wire: _Wire) -> None:
        self.wire = wire
        self.close_code: int | None = None

    @classmethod
    async def connect(cls, url: str, target: str, *, receive_buffer: int | None = None) -> WebSocket:
        """`receive_buffer` (bytes): SO_RCVBUF, set before connecting so that the window starts small too."""
        host, port = address(url)
        sock = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await sock.connect((host, port))
        wire = _Wire(trio.SocketStream(sock))
        await wire.stream.send_all(
            f"GET {target} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = await wire.until(b"\r\n\r\n")
        if b" 101" not in head[:13]:
            raise Refused(f"GET {target}: {head[:100]!r}")
        return cls(wire)

    async def receive(self) -> str | bytes | None:
        """The next message; None once the server has closed it, with `close_code`."""
        while True:
            first, second = await self.wire.exactly(2)
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack(">H", await self.wire.exactly(2))
            elif size == 127:
                (size,) = struct.unpack(">Q", await self.wire.exactly(8))
            payload = await self.wire.exactly(size)
            match first & 0x0F:
                case 1:
                    return payload.decode()
                case 2:
                    return payload
                case 8:
                    self.close_code = int.from_bytes(payload[:2], "big") if payload else 1005
                    await self._send(8, payload[:2])
                    self.wire.stream.socket.close()
                    return None
                case 9:
                    await self._send(10, payload)

    async def ping(self, payload: bytes) -> None:
        await self._send(9, payload)

    async def _send(self, opcode: int, payload: bytes) -> None:
        assert len(payload) < 126
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        await self.wire.stream.send_all(bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + masked)

    def reset(self) -> None:
        """Ends the connection with RST."""
        sock = self.wire.stream.socket
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    async def leave(self) -> None:
        """Closes the connection without a closing handshake."""
        self.wire.stream.socket.close()
