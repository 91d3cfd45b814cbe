"""A TCP proxy in front of one PC, in the suite's process: the network between the daemon and the PC."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from typing import Literal

import trio

Mode = Literal["open", "swallow", "hole", "slow", "cut"]
"""open: passes everything · swallow: takes all bytes and passes none (half-open) · hole: takes and passes nothing, new
connections wait in the kernel · slow: every piece is late and short · cut: RST after some bytes of an answer"""

READ_SIZE = 65536
GONE = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


class Proxy:
    """Listens on `port` for the daemon and connects to `target`, the PC's own port."""

    def __init__(self, target: int, rng: random.Random) -> None:
        self.target = target
        self.host = "127.0.0.1"
        self.port = 0
        self.mode: Mode = "open"
        self._rng = rng
        self._listener: trio.SocketListener | None = None
        self._nursery: trio.Nursery | None = None
        self._pairs: set[tuple[trio.SocketStream, trio.SocketStream]] = set()
        self._changed = trio.Event()
        self._spoiled = False  # bytes were swallowed: what is open now can never be right again

    async def serve(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves until cancelled; reports its port."""
        try:
            async with trio.open_nursery() as self._nursery:
                await self.listen()
                task_status.started(self.port)
                await trio.sleep_forever()
        finally:
            self.refuse()
            self.reset()

    async def listen(self) -> None:
        """Takes new connections (again), on the same port."""
        if self._listener is None and self._nursery is not None:
            sock = trio.socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            await sock.bind((self.host, self.port))
            sock.listen(64)
            self.port = sock.getsockname()[1]
            self._listener = trio.SocketListener(sock)
            self._nursery.start_soon(self._accept, self._listener)

    def refuse(self) -> None:
        """New connections are refused; open ones live on."""
        if self._listener is not None:
            self._listener.socket.close()
            self._listener = None

    def set(self, mode: Mode) -> None:
        """From now on, for open and new connections. After `swallow`, what is open is reset."""
        self._spoiled |= mode == "swallow"
        if self._spoiled and mode != "swallow":
            self._spoiled = False
            self.reset()
        self.mode = mode
        self._changed.set()
        self._changed = trio.Event()

    def reset(self) -> None:
        """RST on all connections, on both sides."""
        for pair in list(self._pairs):
            for stream in pair:
                _reset(stream)

    async def heal(self) -> None:
        """All is well again."""
        await self.listen()
        self.set("open")

    async def _accept(self, listener: trio.SocketListener) -> None:
        assert self._nursery is not None
        with contextlib.suppress(*GONE):
            while True:
                await self._while_hole()
                self._nursery.start_soon(self._carry, await listener.accept())

    async def _carry(self, near: trio.SocketStream) -> None:
        """One connection, both ways."""
        try:
            far = await trio.open_tcp_stream("127.0.0.1", self.target)
        except OSError:
            _reset(near)  # the PC is not there: as near to a refusal as a proxy comes
            return
        except trio.Cancelled:
            near.socket.close()
            raise
        pair = (near, far)
        self._pairs.add(pair)
        left = self._rng.randrange(20, 4000) if self.mode == "cut" else None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, near, far, None)
                nursery.start_soon(self._pump, far, near, left)
        finally:
            self._pairs.discard(pair)
            near.socket.close()
            far.socket.close()

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream, left: int | None) -> None:
        """Carries bytes until one side is gone; both are closed then in the way it went."""
        try:
            while True:
                await self._while_hole()
                data = await source.receive_some(READ_SIZE)
                await self._while_hole()
                if self.mode == "swallow":
                    if data:
                        continue
                    await self._until_other()
                elif self.mode == "slow":
                    await trio.sleep(self._rng.random() * 0.2)
                if not data:
                    break
                if left is not None and len(data) > left:
                    await sink.send_all(data[:left])
                    _reset(sink)
                    _reset(source)
                    return
                left = left - len(data) if left is not None else None
                await sink.send_all(data)
            with contextlib.suppress(*GONE):
                await sink.send_eof()
        except GONE:
            _reset(sink)
            _reset(source)

    async def _while_hole(self) -> None:
        while self.mode == "hole":
            await self._changed.wait()

    async def _until_other(self) -> None:
        """While bytes are swallowed, ends are, too."""
        while self.mode == "swallow":
            await self._changed.wait()


def _reset(stream: trio.SocketStream) -> None:
    with contextlib.suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()
