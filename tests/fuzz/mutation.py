"""Strategies: valid bytes, damaged in the ways that find parsers' mistakes."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

NUMBERS = [
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    16,
    255,
    256,
    32767,
    32768,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63,
    2**64 - 1,
]
KINDS = ["flip", "set", "cut", "insert", "again", "number", "end", "other", "word"]


@st.composite
def damaged(draw: st.DrawFn, seeds: Sequence[bytes], words: Sequence[bytes] = (), most: int = 6) -> bytes:
    """One of `seeds`, with at most `most` changes. `words` are put into it: what means something to its parser."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 2, 0, *range(3, most + 1)]))):
        kind = draw(st.sampled_from(KINDS))
        at = draw(st.integers(0, len(data)))
        if kind == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set" and at < len(data):
            data[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del data[at : at + draw(st.integers(1, 64))]
        elif kind == "insert":
            data[at:at] = draw(st.binary(max_size=16))
        elif kind == "again":
            data[at:at] = data[at : at + draw(st.integers(1, 256))] * draw(st.sampled_from([1, 1, 2, 20]))
        elif kind == "number":
            size = draw(st.sampled_from([1, 2, 4, 8]))
            number = draw(st.sampled_from(NUMBERS)) % 256**size
            data[at : at + size] = number.to_bytes(size, draw(st.sampled_from(["big", "little"])))
        elif kind == "end":
            del data[at:]
        elif kind == "other":
            other = draw(st.sampled_from(seeds))
            data[at:] = other[draw(st.integers(0, len(other))) :]
        elif kind == "word" and words:
            data[at:at] = draw(st.sampled_from(words))
    return bytes(data)


@st.composite
def pieces(draw: st.DrawFn, whole: st.SearchStrategy[bytes], most: int = 4) -> list[bytes]:
    """The same bytes as they may arrive: in several pieces."""
    data = draw(whole)
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=most)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if start < end]
