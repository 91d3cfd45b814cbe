"""A clamd that says what it is told to, over INSTREAM."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import trio

OK, FOUND, LIMIT = (
    b"stream: OK\0",
    b"stream: Eicar-Test-Signature FOUND\0",
    b"INSTREAM size limit exceeded. ERROR\0",
)


class FakeClamd:
    """`answer` is what it says at the end, where `infected` is not in the file; those in `before` come first, one
    each. `limit`: bytes it takes. `gate`: it answers once this is set. `reads`: it takes anything at all."""

    def __init__(self, answer: bytes = OK, infected: bytes = b"\xff never there \xff") -> None:
        self.answer = answer
        self.before: list[bytes] = []
        self.infected = infected
        self.limit = 1 << 30
        self.gate = trio.Event()
        self.gate.set()
        self.reads = True
        self.scanned: list[bytes] = []
        self.asked = trio.Event()
        self.now = self.most = 0
        """connections at this time, and at any time"""
        self.address = ""

    async def serve_unix(
        self, path: Path, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
    ) -> None:
        listening = trio.socket.socket(socket.AF_UNIX)
        await listening.bind(str(path))
        await self._serve(listening, f"unix:{path}", task_status)

    async def serve_tcp(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        listening = trio.socket.socket(socket.AF_INET)
        await listening.bind(("127.0.0.1", 0))
        await self._serve(listening, f"tcp:127.0.0.1:{listening.getsockname()[1]}", task_status)

    async def _serve(
        self, listening: trio.socket.SocketType, address: str, told: trio.TaskStatus[str]
    ) -> None:
        listening.listen(100)
        self.address = address
        told.started(address)
        await trio.serve_listeners(self._connection, [trio.SocketListener(listening)])

    async def _connection(self, stream: trio.SocketStream) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            async with stream:
                await self._scan(stream)
        except trio.BrokenResourceError:
            pass
        finally:
            self.now -= 1

    async def _scan(self, stream: trio.SocketStream) -> None:
        self.asked.set()
        if not self.reads:
            await trio.sleep_forever()
        held = b""

        async def take(count: int) -> bytes:
            nonlocal held
            while len(held) < count:
                data = await stream.receive_some()
                if not data:
                    raise trio.BrokenResourceError
                held += data
            taken, held = held[:count], held[count:]
            return taken

        assert await take(10) == b"zINSTREAM\0"
        content = bytearray()
        while size := struct.unpack(">I", await take(4))[0]:
            content += await take(size)
            if len(content) > self.limit:
                await stream.send_all(LIMIT)
                return
        self.scanned.append(bytes(content))
        await self.gate.wait()
        if self.before:
            await stream.send_all(self.before.pop(0))
            return
        await stream.send_all(FOUND if self.infected in content else self.answer)
