"""Query parameters that several endpoints share, checked."""

from __future__ import annotations

from quart import request

from bridged.errors import BadRequest

MAX_CLIENT_ID = 256
MAX_WAIT = 300.0
"""seconds that a request may wait for a result"""


def client_id_of_request() -> str:
    """Raises BadRequest: there is none, or none that can be used."""
    return checked_client_id(request.args.get("clientId"))


def checked_client_id(value: str | None) -> str:
    if not value:
        raise BadRequest("clientId is required: add ?clientId=… with a string of your choice (a UUID is advised)")
    if len(value) > MAX_CLIENT_ID or not value.isprintable():
        raise BadRequest(f"clientId must be at most {MAX_CLIENT_ID} printable characters")
    return value


def required(name: str, meaning: str) -> str:
    value = request.args.get(name)
    if not value:
        raise BadRequest(f"{name} is required: {meaning}")
    return value


def seconds(name: str, default: float) -> float:
    """A waiting time of 0 to MAX_WAIT seconds."""
    text = request.args.get(name)
    try:
        value = default if text is None else float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= MAX_WAIT:
        raise BadRequest(f"{name} must be a number of seconds from 0 to {MAX_WAIT:g}, not {text!r}")
    return value


def result_kind() -> str:
    """`multipart` (the default) or `base64`."""
    kind = request.args.get("resType", "multipart")
    if kind not in ("multipart", "base64"):
        raise BadRequest(f"resType {kind!r} is unknown; use multipart or base64")
    return kind
