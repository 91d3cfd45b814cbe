"""The checks every file passes, uploads and results alike, before anyone else sees it.

Here: the name, the content's type, and whether both fit. Deeper checks (full decode, what follows an image's end)
belong into `verify`, which is the one gate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bridged.errors import FileRefused
from bridged.files.names import bare_name, extension_of
from bridged.files.sniff import sniff


def verify(content: Path | bytes, name: str, allowed: Mapping[str, Sequence[str]]) -> str:
    """Checks a stored file, or the bytes that will be one; returns its content type. Blocking.

    Raises FileRefused: the name is not bare, or content and extension do not fit or are not allowed.
    """
    bare_name(name)
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
