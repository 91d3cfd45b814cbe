"""What a patched ComfyUI answers under `/bridged/v1/`, as values (docs/patch-api.md). No I/O.

The answers are a PC's: typed and bounded, and nothing in them is believed but about that PC.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import msgspec

from bridged.errors import BackendUnavailable
from bridged.model import PatchInfo

PROTOCOL = 1
"""the version of these shapes that we speak"""

MAX_LISTED, MAX_TEXT = 200, 200
"""entries of one list, and characters of one name, that are kept of an answer; of the characters those that do nothing
to a log or a terminal"""

MAX_ANSWER = 1_000_000
"""bytes of one: 60 MB of them held up the service for 1.3 s and took 1.5 GB (measured)"""

UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)

T = TypeVar("T")
Cancelled = Literal["queued", "running", "unknown"]


class _Cancel(msgspec.Struct):
    cancelled: Cancelled


class _Lease(msgspec.Struct):
    until: float


_info = msgspec.json.Decoder(PatchInfo)
_cancel = msgspec.json.Decoder(_Cancel)
_lease = msgspec.json.Decoder(_Lease)
_refusal = msgspec.json.Decoder(dict[str, msgspec.Raw])
_error = msgspec.json.Decoder(dict[str, object])


def parse_info(body: bytes) -> PatchInfo:
    """The answer to `GET info`. Raises BackendUnavailable (`answered`): it is none, or of a protocol that we do not
    speak."""
    info = _decoded(_info, body)
    if info.protocol != PROTOCOL:
        text = f"its patch speaks protocol {info.protocol}, this service speaks {PROTOCOL}"
        raise BackendUnavailable(text, answered=True)
    return msgspec.convert(_bounded(msgspec.to_builtins(info)), PatchInfo)


def parse_cancel(body: bytes) -> Cancelled:
    """What became of the prompt. Raises BackendUnavailable."""
    return _decoded(_cancel, body).cancelled


def parse_lease(body: bytes) -> float:
    """Until when, by the PC's clock. Raises BackendUnavailable."""
    return _decoded(_lease, body).until


def says_paused(body: bytes) -> bool:
    """Whether a refused POST /prompt was refused because the owner has paused the PC."""
    try:
        return _error.decode(_refusal.decode(body)["error"]).get("type") == "bridged_paused"
    except (*UNREADABLE, KeyError):
        return False


def _decoded(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    if len(body) > MAX_ANSWER:
        raise BackendUnavailable(f"its patch's answer is larger than {MAX_ANSWER / 1e6:g} MB", answered=True)
    try:
        return decoder.decode(body)
    except UNREADABLE as error:
        raise BackendUnavailable(f"its patch's answer is not readable: {error}", answered=True) from None


def _bounded(value: object) -> object:
    if isinstance(value, str):
        return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in value[:MAX_TEXT])
    if isinstance(value, dict):
        return {key: _bounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_bounded(each) for each in value[:MAX_LISTED]]
    return value
