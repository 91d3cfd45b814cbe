"""A backend's event socket, read over wsproto on Trio: one task, no queue in between.

trio-websocket hands each message from a reader task over a channel to its consumer; a job of two nodes has 13 messages
of which each then costs two task switches more. Here the reader is the consumer: what is read is parsed and handled at
once. (The command line, which reads one message a second, uses trio-websocket.)
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError

from bridged.comfy import tls
from bridged.errors import BackendUnavailable

READ = 64 * 1024

MAX_EVENT = 64 * 1024 * 1024
"""bytes of one message; previews and node outputs can be large"""


class EventSocket:
    """One WebSocket client connection. `open` it, read `messages()`, `close` it; its stream is closed by its owner."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._ws = WSConnection(ConnectionType.CLIENT)
        self._sending = trio.Lock()

    async def open(self, host: str, target: str, headers: Mapping[str, str], hello: str) -> None:
        """The handshake, then our first message. Raises BackendUnavailable, also for what is no ComfyUI."""
        extra = [(name.encode(), value.encode()) for name, value in headers.items()]
        try:
            await self._send(self._ws.send(Request(host=host, target=target, extra_headers=extra)))
            while True:
                for event in self._ws.events():
                    if isinstance(event, AcceptConnection):
                        await self._send(self._ws.send(TextMessage(data=hello)))
                        return
                    if isinstance(event, RejectConnection):
                        raise BackendUnavailable(_rejection(event.status_code))
                    if isinstance(event, RejectData | CloseConnection):
                        raise BackendUnavailable("it closed its event socket at once")
                if not await self._receive():
                    raise BackendUnavailable("it closed its event socket at once")
        except ProtocolError:
            # What the parser says of it repeats what came, which may be anything.
            raise BackendUnavailable("its event socket does not open: its answer is no WebSocket's") from None
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            text = tls.trouble(error) or f"its event socket does not open ({type(error).__name__})"
            raise BackendUnavailable(text) from error

    async def messages(self) -> AsyncGenerator[str | bytes, None]:
        """Every whole message, until the connection ends, whoever ends it and however."""
        text: list[str] = []
        data: list[bytes] = []
        size = 0
        try:
            while True:
                for event in self._ws.events():
                    if isinstance(event, TextMessage):
                        if event.message_finished and not text:
                            yield event.data
                            continue
                        text.append(event.data)
                        size += len(event.data)
                        if event.message_finished:
                            yield "".join(text)
                            text, size = [], 0
                    elif isinstance(event, BytesMessage):
                        data.append(bytes(event.data))
                        size += len(event.data)
                        if event.message_finished:
                            yield b"".join(data)
                            data, size = [], 0
                    elif isinstance(event, Ping):
                        await self._send(self._ws.send(event.response()))
                    elif isinstance(event, CloseConnection):
                        with suppress(ProtocolError):  # it is the answer to ours
                            await self._send(self._ws.send(event.response()))
                        return
                    elif not isinstance(event, Pong):
                        return
                    if size > MAX_EVENT:
                        return
                if not await self._receive():
                    return
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, ProtocolError):
            return

    async def close(self) -> None:
        """Says goodbye and ends our half: `messages` ends when the other side does, or when the stream is closed."""
        with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError, ProtocolError):
            await self._send(self._ws.send(CloseConnection(code=1000)))

    async def abort(self) -> None:
        """Closes the stream at once: `messages` ends."""
        await trio.aclose_forcefully(self._stream)

    async def _receive(self) -> bool:
        """False at the end of the stream."""
        data = await self._stream.receive_some(READ)
        self._ws.receive_data(bytes(data) if data else None)
        return bool(data)

    async def _send(self, data: bytes) -> None:
        async with self._sending:
            await self._stream.send_all(data)


def _rejection(status: int) -> str:
    text = f"it answers /ws with HTTP status {status}"
    if status in (401, 403):
        return f"{text}: it wants a login; give it as `headers`, or as `tls_cert` and `tls_key`"
    if 300 <= status < 400:
        return f"{text}: it redirects, which is not followed; give the address it leads to as `url`"
    return f"it is no ComfyUI: {text}"
