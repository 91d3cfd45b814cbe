"""Checksums of Ogg and FLAC, which the standard library has not."""

from __future__ import annotations

import zlib

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def ogg_crc(*pieces: bytes) -> int:
    """CRC-32 of polynomial 0x04C11DB7, most significant bit first, starting at 0 (RFC 3533, 6): zlib's, which goes
    the other way round, over bytes that were turned, without its two inversions."""
    value = 0xFFFFFFFF
    for piece in pieces:
        value = zlib.crc32(piece.translate(_REVERSED), value)
    value ^= 0xFFFFFFFF
    return int(f"{value:032b}"[::-1], 2)


def _table(polynomial: int, bits: int) -> list[int]:
    top, mask = 1 << bits - 1, (1 << bits) - 1
    table = []
    for byte in range(256):
        value = byte << bits - 8
        for _ in range(8):
            value = (value << 1 ^ polynomial) & mask if value & top else value << 1 & mask
        table.append(value)
    return table


_TABLE_8, _TABLE_16 = _table(0x07, 8), _table(0x8005, 16)


def flac_crc8(data: bytes) -> int:
    """Of a frame's header (RFC 9639, 9.1.8)."""
    value = 0
    for byte in data:
        value = _TABLE_8[value ^ byte]
    return value


def flac_crc16(data: bytes, value: int = 0) -> int:
    """Of a whole frame (RFC 9639, 9.3): 0 where its own checksum is included. 8 ms for 100 kB. `value`: of what came
    before."""
    table = _TABLE_16
    for byte in data:
        value = (value << 8 & 0xFFFF) ^ table[value >> 8 ^ byte]
    return value
