"""The checks every file passes, uploads and results alike, before anyone else sees it.

Here: the name, the content's type, and whether both fit. Deeper checks (full decode, what follows an image's end)
belong into `verify`, which is the one gate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from bridged.errors import FileRefused
from bridged.files.names import bare_name, extension_of
from bridged.files.sniff import sniff


class Rules(Protocol):
    """What is acceptable, as the settings have it (`config.schema.Files` is one). `max_pixels` in millions."""

    @property
    def allowed(self) -> Mapping[str, Sequence[str]]: ...
    @property
    def max_pixels(self) -> float: ...
    @property
    def max_side(self) -> int: ...
    @property
    def max_frames(self) -> int: ...
    @property
    def reencode(self) -> bool: ...
    @property
    def clamd(self) -> str: ...


def verify(content: Path | bytes, name: str, rules: Rules) -> str:
    """Checks a stored file, or the bytes that will be one; returns its content type. Blocking.

    Raises FileRefused: the name is not bare, or content and extension do not fit or are not allowed.
    """
    bare_name(name)
    allowed = rules.allowed
    kind = sniff(content)
    if kind not in allowed:
        raise FileRefused(f"{name}: its content is {kind}, which is not allowed; allowed: {', '.join(allowed)}", kind)
    extension = extension_of(name)
    if extension not in allowed[kind]:
        fitting = " or ".join(allowed[kind])
        raise FileRefused(
            f"{name}: the extension {extension or '(none)'} does not fit its content {kind}; use {fitting}", kind
        )
    return kind
