"""Answers that are kept and asked for again and again: with ETag, 304, and gzip where the client takes it."""

from __future__ import annotations

import hashlib
import operator
import zlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

import trio
from quart import Response, request

MOST = 128
"""answers that are kept; beyond that the one goes that was not asked for longest"""

MOST_BYTES = 64_000_000
"""of bodies that are kept, unless one alone is larger"""

WORTH = 1024
"""bytes from which an answer is compressed"""

FAST = 1
"""zlib's level: node definitions shrink to a tenth at a third of the default's cost"""

IN_PLACE = 64_000
"""bytes that are hashed and compressed on the event loop: 1 ms; more goes to a thread"""


class Stored:
    """One answer. It is never changed."""

    def __init__(self, made_of: tuple[object, ...], body: bytes) -> None:
        self.made_of = made_of
        self.body = body
        self._etag = ""
        self._packed: bytes | None = None

    async def response(self) -> Response:
        """What the present request is answered: the body, packed or not, or that it has not changed."""
        if not self._etag:
            self._etag = f'W/"{await _maybe_in_thread(_digest, self.body)}"'
        headers = {"ETag": self._etag, "Vary": "Accept-Encoding", "Cache-Control": "private, no-cache"}
        if request.if_none_match.contains_weak(self._etag[3:-1]):
            unchanged = Response(b"", 304, headers)
            del unchanged.headers["Content-Type"]
            return unchanged
        if len(self.body) < WORTH or not request.accept_encodings.quality("gzip"):
            return Response(self.body, 200, headers, content_type="application/json")
        if self._packed is None:
            self._packed = await _maybe_in_thread(_gzip, self.body)
        headers["Content-Encoding"] = "gzip"
        return Response(self._packed, 200, headers, content_type="application/json")


class Store:
    """Keeps an answer for as long as it is made of the same."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, Stored] = OrderedDict()
        self._one_at_a_time = trio.Lock()

    async def get(self, key: Hashable, made_of: tuple[object, ...], make: Callable[[], Awaitable[bytes]]) -> Stored:
        """`make` is called where nothing is kept under the key that was made of these very objects."""
        kept = self._kept.get(key)
        if kept is None or not all(map(operator.is_, kept.made_of, made_of)):
            async with self._one_at_a_time:  # of many that ask at once, the first one makes it for all
                kept = self._kept.get(key)
                if kept is None or not all(map(operator.is_, kept.made_of, made_of)):
                    kept = self._kept[key] = Stored(made_of, await make())
        if key in self._kept:
            self._kept.move_to_end(key)
        while len(self._kept) > 1 and (len(self._kept) > MOST or self._size() > MOST_BYTES):
            self._kept.popitem(last=False)
        return kept

    def _size(self) -> int:
        return sum(len(kept.body) for kept in self._kept.values())


def _digest(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=16).hexdigest()


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(FAST, wbits=16 + zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


async def _maybe_in_thread(make: Callable[[bytes], Any], body: bytes) -> Any:
    return make(body) if len(body) <= IN_PLACE else await trio.to_thread.run_sync(make, body)
