"""Rewrites a custom node's source to the new forms, as little of it as possible, and only what provably means the same.

What is to be done is decided on Python's own syntax tree (`oldoutputs.py`, `oldcombos.py`); libcst then changes those
places, so that everything else keeps its formatting and its comments (`rewrite.py`).
"""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from collections import Counter
from collections.abc import Set

import msgspec

from bridged.errors import BadInput
from bridged.nodedefs.lint import KINDS, NOTHING, Finding, Kind, character, of_choice, of_outputs, route
from bridged.nodedefs.oldcombos import old_combos
from bridged.nodedefs.oldoutputs import Outputs, old_outputs
from bridged.nodedefs.pysource import Elsewhere, parse


class Migration(msgspec.Struct, frozen=True):
    """One file's new text, what was changed in it, and what was left alone although it was asked for.

    Each of `left` says why in `by_hand`. `not_asked`: what could be migrated, of kinds that were not asked for.
    """

    text: str
    done: tuple[Finding, ...] = ()
    left: tuple[Finding, ...] = ()
    not_asked: tuple[Finding, ...] = ()


def migrate(
    text: str, kinds: Set[Kind] = frozenset(KINDS), *, drop_old: bool = False, elsewhere: Elsewhere = NOTHING
) -> Migration:
    """Migrates one file's text, which has no byte order mark; migrating the result changes nothing.

    `drop_old`: RETURNS takes the place of the old attributes; else it is added beside them. `elsewhere`: what other
    files do with this one's classes. Raises BadInput: the text is no Python that can be read.
    """
    source = parse(text)
    done: list[Finding] = []
    left: list[Finding] = []
    not_asked: list[Finding] = []
    classes: dict[tuple[int, int], str] = {}
    inputs: dict[tuple[int, int], str] = {}
    for outputs in old_outputs(source, elsewhere):
        finding = of_outputs(outputs, source)
        if outputs.done and not drop_old:
            continue
        if reason := _obstacle(outputs, drop_old):
            left.append(msgspec.structs.replace(finding, by_hand=reason))
        elif "outputs" not in kinds:
            not_asked.append(finding)
        else:
            node = outputs.owner.node
            how = "add" if not drop_old else "remove" if outputs.done else "replace"
            classes[node.lineno, character(text, node.lineno, node.col_offset)] = how
            done.append(finding)
    for choice in old_combos(source, elsewhere):
        finding = of_choice(choice, source)
        if choice.reason:
            left.append(finding)
        elif finding.kind not in kinds:
            not_asked.append(finding)
        else:
            inputs[choice.line, finding.column - 1] = route(choice.folder) if choice.folder else ""
            done.append(finding)
    left = [finding for finding in left if finding.kind in kinds]
    if not done:
        return Migration(text, (), _in_order(left), _in_order(not_asked))
    from bridged.nodedefs.rewrite import rewrite  # here: libcst takes a while to load

    try:
        new = rewrite(text, classes, inputs)
    except RecursionError:
        raise BadInput("line 1: it is nested too deeply") from None
    _check(text, new)
    return Migration(new, _in_order(done), _in_order(left), _in_order(not_asked))


def _obstacle(outputs: Outputs, drop_old: bool) -> str:
    return outputs.reason or (
        f"{outputs.reads}, so the old attributes have to stay" if drop_old and outputs.reads else ""
    )


def _in_order(findings: list[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: (finding.line, finding.column)))


def _check(old: str, new: str) -> None:
    """The net under the rewriting. Raises BadInput: what came out is no Python, or a comment is not in it any more."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(new)
        lost = _comments(old) - _comments(new)
    except (SyntaxError, tokenize.TokenError) as error:
        raise BadInput(
            f"line 1: the migrated text would not be readable ({error}); this is a fault of bridged"
        ) from None
    if lost:
        raise BadInput(f"line 1: the comment {min(lost)!r} would be lost; this is a fault of bridged")


def _comments(text: str) -> Counter[str]:
    tokens = tokenize.generate_tokens(io.StringIO(text, newline=None).readline)
    return Counter(token.string.rstrip() for token in tokens if token.type == tokenize.COMMENT)
