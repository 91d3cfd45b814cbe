"""What placement needs from a backend's node definitions: which classes there are, and which give results."""

from __future__ import annotations

import msgspec

from bridged.errors import BackendUnavailable


class NodeClasses(msgspec.Struct, frozen=True):
    """`names`: every node class of a backend; `outputs`: those of them that ComfyUI runs for their own sake."""

    names: frozenset[str]
    outputs: frozenset[str]


class _Definition(msgspec.Struct):
    output_node: bool | None = False


_decoder = msgspec.json.Decoder(dict[str, _Definition])


def parse_classes(object_info: bytes) -> NodeClasses:
    """Reads a whole `/object_info` answer (V1, ComfyUI 0.3.64), looking only at what is needed: about 0.5 MB and up.

    Raises BackendUnavailable: it is no object_info.
    """
    try:
        definitions = _decoder.decode(object_info)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BackendUnavailable(f"its node definitions are not readable: {error}") from None
    return NodeClasses(
        names=frozenset(definitions),
        outputs=frozenset(name for name, definition in definitions.items() if definition.output_node),
    )
