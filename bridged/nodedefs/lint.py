"""Which old forms a custom node's source uses, what the new form would be, and why a migration would leave a place."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import msgspec

from bridged.nodedefs.oldcombos import Choice, old_combos
from bridged.nodedefs.oldoutputs import Outputs, Row, old_outputs, short
from bridged.nodedefs.pysource import Elsewhere, Source, parse

Kind = Literal["outputs", "combos", "files"]

KINDS: tuple[Kind, ...] = ("outputs", "combos", "files")
"""outputs: the four parallel attributes · combos: a list in place of a type · files: that list is a model folder's"""

NOTHING = Elsewhere()


class Finding(msgspec.Struct, frozen=True):
    """One place in an old form. `line` and `column` count from 1; `node` is the class.

    `certain` is False where it cannot be seen whether the place is in an old form at all. `by_hand` says why a
    migration leaves it as it is; empty where it would not.
    """

    line: int
    column: int
    node: str
    kind: Kind
    what: str
    instead: str
    certain: bool = True
    by_hand: str = ""


def lint(text: str, elsewhere: Elsewhere = NOTHING) -> list[Finding]:
    """All old forms in one file's text, in its order. Raises BadInput: it is no Python that can be read."""
    return findings(parse(text), elsewhere)


def findings(source: Source, elsewhere: Elsewhere) -> list[Finding]:
    """The same of a source that is parsed already.

    A class that has RETURNS beside old attributes that say the same is no finding: both generations of ComfyUI read it.
    """
    found = [of_outputs(outputs, source) for outputs in old_outputs(source, elsewhere) if not outputs.done]
    found += [of_choice(choice, source) for choice in old_combos(source, elsewhere)]
    return sorted(found, key=lambda finding: (finding.line, finding.column))


def of_outputs(outputs: Outputs, source: Source) -> Finding:
    """The finding that says it."""
    node = outputs.owner.node
    instead = f"RETURNS = ({_row(outputs.rows[0])}, …)" if outputs.rows else "RETURNS = ({…}, …)"
    if outputs.rows and len(outputs.rows) == 1:
        instead = instead.replace(", …)", ",)")
    elif outputs.rows == []:
        instead = "RETURNS = ()"
    return Finding(
        node.lineno,
        _column(source, node.lineno, node.col_offset),
        node.name,
        "outputs",
        ", ".join(outputs.old),
        instead,
        by_hand=outputs.reason,
    )


def of_choice(choice: Choice, source: Source) -> Finding:
    """The finding that says it."""
    if choice.folder:
        new = f'"type": "remote", "route": "{route(choice.folder)}", "response_key": "files"'
    else:
        new = f'"options": {choice.options}'
    return Finding(
        choice.line,
        _column(source, choice.line, choice.column),
        choice.owner.name,
        "files" if choice.folder else "combos",
        f'"{choice.name}": {choice.options}' if choice.name else choice.options,
        f'("COMBO", {{{new}, …}})' if choice.certain else "",
        certain=choice.certain,
        by_hand=choice.reason,
    )


def route(folder: str) -> str:
    """The path that answers with the files of a model folder (RFC 1.2)."""
    return f"/internal/files/{folder}"


def _row(row: Row) -> str:
    return "{" + ", ".join(f'"{key}": {short(value)}' for key, value in row.items()) + "}"


def _column(source: Source, line: int, offset: int) -> int:
    """From Python's byte offset to what editors count."""
    return character(source.text, line, offset) + 1


def character(text: str, line: int, offset: int) -> int:
    """How many characters stand before a byte offset of UTF-8 in a line, which is how Python's parser says a column."""
    return len(_lines(text)[line - 1].encode()[:offset].decode(errors="replace"))


@lru_cache(maxsize=1)
def _lines(text: str) -> list[str]:
    """As Python counts them: a form feed does not end one."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
