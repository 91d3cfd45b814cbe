"""What a backend's answers say of its nodes. Backends are not trusted: each answer is typed and bounded here.

Sources: ComfyUI 0.3.64, `/object_info`, `/models`, `/models/{folder}`, `/internal/files/{folder}`; `/bridged/v1/combos`
is what our patch answers beside them (docs/node-definitions.md).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any
from unicodedata import category

import msgspec

from bridged.errors import BackendUnavailable

MAX_CHOICES = 100_000
"""of one list of one backend; what goes beyond is left out"""

MAX_NAME = 1024
"""characters of a choice"""

FILE_NAME = re.compile(r"(?!\.{1,2}([/\\]|\Z))[^/\\:]+([/\\](?!\.{1,2}([/\\]|\Z))[^/\\]+)*")
"""below a folder, in either system's writing: nothing that leads out of it"""

UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)


class NodeClasses(msgspec.Struct, frozen=True):
    """`names`: every node class of a backend; `outputs`: those of them that ComfyUI runs for their own sake;
    `definitions`: class -> its definition, as JSON and as it came."""

    names: frozenset[str]
    outputs: frozenset[str]
    definitions: Mapping[str, bytes]


class _Definition(msgspec.Struct):
    output_node: bool | None = False


class _Combo(msgspec.Struct):
    folder: str


class _Combos(msgspec.Struct):
    combos: dict[str, dict[str, _Combo]]


_classes = msgspec.json.Decoder(dict[str, msgspec.Raw])
_definition = msgspec.json.Decoder(_Definition)
_combos = msgspec.json.Decoder(_Combos)


def parse_classes(object_info: bytes) -> NodeClasses:
    """Reads a whole `/object_info` answer (V1, ComfyUI 0.3.64), looking only at what is needed: about 0.5 MB and up.

    Raises BackendUnavailable: it is no object_info.
    """
    try:
        found = {name: bytes(raw) for name, raw in _classes.decode(object_info).items()}
        outputs = frozenset(name for name, raw in found.items() if _definition.decode(raw).output_node)
    except UNREADABLE as error:
        raise BackendUnavailable(f"its node definitions are not readable: {error}") from None
    return NodeClasses(frozenset(found), outputs, found)


class ClassesReader:
    """Of one backend: for the text that it gave the last time too, the very same object, as most times."""

    def __init__(self) -> None:
        self._last: tuple[bytes, NodeClasses] | None = None

    def read(self, object_info: bytes) -> NodeClasses:
        """Blocking, as `parse_classes`. Raises BackendUnavailable."""
        digest = hashlib.blake2b(object_info).digest()
        if self._last is None or self._last[0] != digest:
            self._last = digest, parse_classes(object_info)
        return self._last[1]


def parse_list(body: bytes, response_key: str | None = None, *, files: bool = False) -> tuple[Any, ...]:
    """The choices of a listing: a JSON list, or an object with it under `response_key`. Anything but text, numbers and
    booleans is left out, and text that is no fit name; of `files` also whatever is no name of a file.

    Raises BackendUnavailable: it is neither.
    """
    try:
        answer = msgspec.json.decode(body)
    except UNREADABLE as error:
        raise BackendUnavailable(f"its list is not readable: {error}") from None
    found = answer.get(response_key) if response_key and isinstance(answer, dict) else answer
    if not isinstance(found, list):
        raise BackendUnavailable("it gives no list where one was asked for")
    if _are_plain_files(found):
        return tuple(found)[:MAX_CHOICES]
    choices = (choice for choice in found if _is_choice(choice))
    if files:
        choices = (choice for choice in choices if isinstance(choice, str) and is_file_name(choice))
    return tuple(choices)[:MAX_CHOICES]


def parse_combos(body: bytes) -> dict[tuple[str, str], str]:
    """(class, input) -> the folder that it lists. Raises BackendUnavailable: it is no such answer."""
    try:
        combos = _combos.decode(body).combos
    except UNREADABLE as error:
        raise BackendUnavailable(f"its list of combos is not readable: {error}") from None
    return {(kind, name): combo.folder for kind, inputs in combos.items() for name, combo in inputs.items()}


def is_file_name(name: str) -> bool:
    """Whether it can be a file below a folder, in either system's writing: nothing that leads out of it."""
    return FILE_NAME.fullmatch(name) is not None


def _are_plain_files(found: list[Any]) -> bool:
    """Whether all are file names beyond doubt: in a few passes over all of them, a sixth of the time for one by one."""
    if set(map(type, found)) != {str} or max(map(len, found)) > MAX_NAME:
        return False
    text = f"/{'/'.join(found)}/".replace("\\", "/")
    return text.isprintable() and not any(odd in text for odd in (":", "//", "/./", "/../"))


def _is_choice(choice: Any) -> bool:
    if isinstance(choice, str):
        return 0 < len(choice) <= MAX_NAME and (choice.isprintable() or all(map(_is_shown, choice)))
    return isinstance(choice, bool | int | float)


def _is_shown(character: str) -> bool:
    return character.isprintable() or category(character) == "Zs"  # Japanese names have spaces of their own
