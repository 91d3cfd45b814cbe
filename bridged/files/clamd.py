"""ClamAV: files are streamed to its daemon, one connection each, and count as stored only once it says OK.

The wire (clamd(8), INSTREAM): a command, then chunks with their sizes as 4 bytes, then a size of 0; one line answers.
Own code, because what the package index has (clamd, aioclamd, pyvalve) blocks a thread for a whole scan, or needs
asyncio. A clamd passes what is beyond its MaxFileSize and MaxScanSize unless `AlertExceedsMax yes` is set: its answer
does not tell that.
"""

from __future__ import annotations

import logging
import struct
from contextlib import aclosing
from pathlib import Path

import trio

from bridged.errors import FileRefused, ScannerAway
from bridged.files.multipart import read_blocks

log = logging.getLogger(__name__)

CONNECT, SEND, ANSWER = 5.0, 30.0, 150.0
"""seconds for a connection, for each block to be taken, and for the answer (clamd's own MaxScanTime is 120)"""

PLACES = 16
"""scans at a time: clamd's MaxThreads is 10, and beyond its backlog it refuses connections"""

LONGEST = 4096
"""bytes of an answer"""

FULL = "INSTREAM size limit exceeded"
TOO_LARGE = "the virus scanner takes no files of this size (its StreamMaxLength); they are refused"


class Scanner:
    """Every file's way to clamd. Knows whether it was away, so that the log says so once."""

    def __init__(self) -> None:
        self._places = trio.CapacityLimiter(PLACES)
        self._away = False

    async def scan(self, address: str, content: Path | bytes, name: str, patience: float = 0.0) -> None:
        """Returns where clamd at `address` ("unix:PATH", "tcp:HOST:PORT") finds nothing in it.

        Raises FileRefused: it found something; ScannerAway: nobody knows, and `patience` seconds of asking again
        changed nothing; OSError: the file cannot be read.
        """
        give_up_at, pause = trio.current_time() + patience, 0.1
        while True:
            try:
                found = await self._once(address, content)
                break
            except ScannerAway:
                if trio.current_time() + pause > give_up_at:
                    raise
            await trio.sleep(pause)
            pause = min(pause * 2, 2.0)
        if found:
            raise FileRefused(f"{name}: the virus scanner found {found} in it")

    async def _once(self, address: str, content: Path | bytes) -> str:
        """The signature it found, or ""."""
        try:
            with trio.fail_after(ANSWER):
                await self._places.acquire()
            try:
                answer = await _ask(address, content)
            finally:
                self._places.release()
        except (trio.BrokenResourceError, trio.TooSlowError) as error:
            self._note(str(error) or "it takes too long")
            raise ScannerAway() from error
        if answer != "stream: OK" and not (answer.startswith("stream: ") and answer.endswith(" FOUND")):
            self._note(f"its answer is {answer!r}")
            raise ScannerAway(TOO_LARGE if answer.startswith(FULL) else "")
        if self._away:
            self._away = False
            log.warning("the virus scanner answers again")
        if answer == "stream: OK":
            return ""
        return answer.removeprefix("stream: ").removesuffix("FOUND").strip() or "something it does not name"

    def _note(self, why: str) -> None:
        if not self._away:
            log.error("the virus scanner is of no use, so files are refused: %s", why)
        self._away = True


async def _ask(address: str, content: Path | bytes) -> str:
    with trio.fail_after(CONNECT):
        stream = await _connected(address)
    async with stream:
        try:
            await _send(stream, b"zINSTREAM\0")
            if isinstance(content, bytes):
                await _send(stream, _sized(content))
            else:
                async with aclosing(read_blocks(content)) as blocks:
                    async for block in blocks:
                        await _send(stream, _sized(block))
            await _send(stream, _sized(b""))
        except trio.BrokenResourceError:
            pass  # it may have said why before it closed: that there is too much of the file
        return await _answer(stream)


def _sized(block: bytes) -> bytes:
    return struct.pack(">I", len(block)) + block


async def _connected(address: str) -> trio.SocketStream:
    kind, _, place = address.partition(":")
    try:
        if kind == "unix":
            return await trio.open_unix_socket(place)
        host, _, port = place.rpartition(":")
        return await trio.open_tcp_stream(host.strip("[]"), int(port))
    except OSError as error:
        raise trio.BrokenResourceError(f"no connection: {error}") from error


async def _send(stream: trio.SocketStream, data: bytes) -> None:
    with trio.fail_after(SEND):
        await stream.send_all(data)


async def _answer(stream: trio.SocketStream) -> str:
    """Its one line, of printable characters."""
    said = b""
    with trio.fail_after(ANSWER):
        while b"\0" not in said and len(said) < LONGEST:
            more = await stream.receive_some(LONGEST)
            if not more:
                break
            said += more
    if b"\0" not in said:
        raise trio.BrokenResourceError("it closed the connection without an answer")
    text = said.partition(b"\0")[0].decode(errors="replace").strip()
    return "".join(c for c in text if c.isprintable())
