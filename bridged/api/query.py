"""Query parameters that several endpoints share, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridged.errors import BadRequest

MAX_CLIENT_ID = 256
MAX_KEY = 255
MAX_WAIT = 300.0
"""seconds that a request may wait for a result"""


def client_id(args: Mapping[str, str]) -> str:
    """Raises BadRequest: there is none, or none that can be used."""
    value = args.get("clientId")
    if not value:
        raise BadRequest("clientId is required: add ?clientId=… with a string of your choice (a UUID is advised)")
    if len(value) > MAX_CLIENT_ID or not value.isprintable():
        raise BadRequest(f"clientId must be at most {MAX_CLIENT_ID} printable characters")
    return value


def submission(body: dict[str, Any]) -> tuple[str, dict[str, Any], str]:
    """The alias, the values and the webhook ("": none) of a submission's body. Raises BadRequest: it names no
    workflow."""
    values = dict(body)
    alias, webhook = values.pop("workflow", None), values.pop("webhook", "")
    if not isinstance(alias, str):
        raise BadRequest("`workflow` is required: an alias of /workflow-list")
    if not isinstance(webhook, str):
        raise BadRequest("`webhook` must be the URL to call at the job's end")
    return alias, values, webhook


def idempotency_key(value: str) -> str:
    """The Idempotency-Key header's value, "" for none. Raises BadRequest."""
    if len(value) > MAX_KEY or not (value.isascii() and value.isprintable()):
        raise BadRequest(f"Idempotency-Key must be at most {MAX_KEY} printable ASCII characters")
    return value


def required(args: Mapping[str, str], name: str, meaning: str) -> str:
    value = args.get(name)
    if not value:
        raise BadRequest(f"{name} is required: {meaning}")
    return value


def seconds(args: Mapping[str, str], name: str, default: float) -> float:
    """A waiting time of 0 to MAX_WAIT seconds."""
    text = args.get(name)
    try:
        value = default if text is None else float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= MAX_WAIT:
        raise BadRequest(f"{name} must be a number of seconds from 0 to {MAX_WAIT:g}, not {text!r}")
    return value


def result_kind(args: Mapping[str, str]) -> str:
    """`multipart` (the default) or `base64`."""
    kind = args.get("resType", "multipart")
    if kind not in ("multipart", "base64"):
        raise BadRequest(f"resType {kind!r} is unknown; use multipart or base64")
    return kind
