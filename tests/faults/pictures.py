"""The one right result of a job: a PNG that is made of the job's value, and of nothing else."""

from __future__ import annotations

import hashlib
import struct
import zlib
from functools import lru_cache

PADDING = (0, 0, 0, 40_000, 0, 200_000, 0, 0)
"""bytes, by value: most results are small, some take several writes"""


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@lru_cache(maxsize=256)
def picture_of(value: int) -> bytes:
    """A real 2x2 PNG whose colours are a hash of the value, some of them with padding that is one, too."""
    seed = hashlib.sha256(f"value {value}".encode()).digest()
    header = struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0)
    pixels = b"\0" + seed[:6] + b"\0" + seed[6:12]
    padding = hashlib.shake_128(seed).digest(PADDING[value % len(PADDING)])
    chunks = [_chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(pixels))]
    if padding:
        chunks.append(_chunk(b"paDd", padding))
    return b"".join((b"\x89PNG\r\n\x1a\n", *chunks, _chunk(b"IEND", b"")))


@lru_cache(maxsize=4096)
def sha256_of(value: int) -> str:
    """Of the picture, in hex."""
    return hashlib.sha256(picture_of(value)).hexdigest()
