"""What one combo input says, in any of its forms."""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec


class Remote(msgspec.Struct, frozen=True):
    """Where a combo's options are fetched, in the RFC's words; `refresh` in ms, 0 = never after the first.

    `extra`: what only ComfyUI's own block says (refresh_button, control_after_refresh, timeout, max_retries).
    """

    route: str
    response_key: str | None = None
    query_params: dict[str, Any] = {}
    refresh: int = 0
    cache_key: str | None = None
    invalidation_signal: str | None = None
    extra: dict[str, Any] = {}


class Combo(msgspec.Struct, frozen=True):
    """A combo input in any form. `settings`: all else that it says (default, tooltip, image_upload…)."""

    options: list[Any] | None
    remote: Remote | None
    settings: dict[str, Any]


_REMOTE_KEYS: Final = frozenset(Remote.__struct_fields__) - {"extra"}


def read_combo(spec: Any) -> Combo | None:
    """What a combo's spec says, in any form; None for other inputs.

    A remote block without a route is a setting like others.
    """
    if not isinstance(spec, list) or not spec or not (spec[0] == "COMBO" or isinstance(spec[0], list)):
        return None
    settings = dict(spec[1]) if len(spec) > 1 and isinstance(spec[1], dict) else {}
    listed = settings.pop("options", None) if spec[0] == "COMBO" else spec[0]
    remote = None
    block = settings.get("remote")
    if settings.get("type") == "remote" and isinstance(settings.get("route"), str):
        remote = _remote({key: settings.pop(key) for key in _REMOTE_KEYS & settings.keys()}, {})
        del settings["type"]
    elif isinstance(block, dict) and isinstance(block.get("route"), str):
        del settings["remote"]
        remote = _remote(block, {key: value for key, value in block.items() if key not in _REMOTE_KEYS})
    return Combo(listed if isinstance(listed, list) else None, remote, settings)


def _remote(said: dict[str, Any], extra: dict[str, Any]) -> Remote:
    def text(key: str) -> str | None:
        value = said.get(key)
        return value if isinstance(value, str) else None

    refresh, params = said.get("refresh"), said.get("query_params")
    is_time = isinstance(refresh, int | float) and math.isfinite(refresh) and refresh > 0
    return Remote(
        route=said["route"],
        response_key=text("response_key"),
        query_params=params if isinstance(params, dict) else {},
        refresh=int(refresh) if is_time and refresh is not None and not isinstance(refresh, bool) else 0,
        cache_key=text("cache_key"),
        invalidation_signal=text("invalidation_signal"),
        extra=extra,
    )
