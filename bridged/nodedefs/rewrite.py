"""The changes themselves, on libcst's lossless tree: which places, and what each becomes, is decided elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider

from bridged.errors import BadInput
from bridged.nodedefs.pysource import OLD_OUTPUTS

Place = tuple[int, int]
"""line from 1, column in characters from 0"""

_NEW = "RETURNS"
_END = re.compile(r"\S[^\S\r\n]*(?:\r\n|\r(?!\n)|\n)(\s+)\Z")


def rewrite(text: str, classes: Mapping[Place, str], inputs: Mapping[Place, str]) -> str:
    """`classes`: class statements whose RETURNS to "add", or to "replace" the old attributes; "remove": only those go.

    `inputs`: keys of inputs whose value becomes an explicit COMBO: the route of a remote one, or "" for options in
    place. Raises BadInput: libcst cannot read the text, or does not have these places.
    """
    # libcst 1.9 forgets some blank lines at the end of a file (measured on published packs): they stay out of it
    end = _END.search(text)
    text, blanks = (text[: end.start(1)], end[1]) if end else (text, "")
    try:
        module = cst.parse_module(text)
    except cst.ParserSyntaxError as error:
        raise BadInput(f"line {error.raw_line}: libcst cannot read it: {error.message}") from None
    if module.code != text:
        raise BadInput("line 1: libcst does not give it back as it is")
    rewriter = _Rewriter(module, classes, inputs)
    new = MetadataWrapper(module, unsafe_skip_copy=True).visit(rewriter)
    if missed := (classes.keys() | inputs.keys()) - rewriter.done:
        raise BadInput(f"line {min(missed)[0]}: the place is not found again; this is a fault of bridged")
    return new.code + blanks


class _Rewriter(cst.CSTTransformer):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, module: cst.Module, classes: Mapping[Place, str], inputs: Mapping[Place, str]) -> None:
        super().__init__()
        self._indent = module.default_indent
        self._classes, self._inputs = classes, inputs
        self.done: set[Place] = set()

    def _place(self, node: cst.CSTNode) -> Place:
        start = self.get_metadata(PositionProvider, node).start
        return start.line, start.column

    def leave_DictElement(self, original_node: cst.DictElement, updated_node: cst.DictElement) -> cst.DictElement:
        place = self._place(original_node.key)
        new = self._inputs.get(place)
        if new is None or not isinstance(updated_node.value, cst.Tuple | cst.List):
            return updated_node
        self.done.add(place)
        return updated_node.with_changes(value=_combo(updated_node.value, new))

    def leave_ClassDef(self, original_node: cst.ClassDef, updated_node: cst.ClassDef) -> cst.ClassDef:
        place = self._place(original_node)
        how = self._classes.get(place)
        if how is None or not isinstance(updated_node.body, cst.IndentedBlock):
            return updated_node
        self.done.add(place)
        body = cast("Sequence[cst.SimpleStatementLine]", updated_node.body.body)
        old = {name: line for line in body if (name := _target(line)) in OLD_OUTPUTS}  # in the order of the body
        columns = {name: _tuple(old[name]) for name in OLD_OUTPUTS if name in old}
        last = max(body.index(line) for line in old.values())
        new: list[cst.BaseStatement] = []
        for number, line in enumerate(body):
            if how == "add" or line not in old.values():
                new.append(_with_notes(line, list(old.values())) if how == "remove" and _target(line) == _NEW else line)
            if number == last and how == "add":
                new.append(_line(_returns(columns, {}, self._indent), []))
            elif number == last and how == "replace":
                notes = _Notes(body, list(old.values()))
                new.append(_line(_returns(columns, notes.rows, self._indent), notes.above))
        return updated_node.with_changes(body=updated_node.body.with_changes(body=new))


# ---- inputs


def _combo(value: cst.Tuple | cst.List, route: str) -> cst.Tuple | cst.List:
    first = value.elements[0]
    if route:
        new = [
            _pair("type", _string("remote")),
            _pair("route", _string(route)),
            _pair("response_key", _string("files")),
        ]
    else:
        new = [_pair("options", first.value)]
    comma = first.comma
    if len(value.elements) == 1:
        settings = cst.Element(cst.Dict(_separated(new)), comma=cst.MaybeSentinel.DEFAULT)
        if isinstance(comma, cst.Comma) and _has_comment(comma):
            settings = settings.with_changes(comma=comma)
        head = cst.Element(_string("COMBO"), comma=cst.Comma(whitespace_after=cst.SimpleWhitespace(" ")))
        return _tight(value).with_changes(elements=[head, settings])
    old = cst.ensure_type(value.elements[1].value, cst.Dict)
    return value.with_changes(
        elements=[first.with_changes(value=_string("COMBO")), value.elements[1].with_changes(value=_merged(new, old))]
    )


def _tight(value: cst.Tuple | cst.List) -> cst.Tuple | cst.List:
    """Without the blank that the only element's comma had behind it: `(x, )`."""
    if not isinstance(value, cst.Tuple) or not value.rpar:
        return value
    end = value.rpar[0]
    if isinstance(end.whitespace_before, cst.SimpleWhitespace):
        end = end.with_changes(whitespace_before=cst.SimpleWhitespace(""))
    return value.with_changes(rpar=[end, *value.rpar[1:]])


def _merged(new: list[cst.DictElement], old: cst.Dict) -> cst.Dict:
    """The settings with the new ones first, each on a line of its own where the old ones are."""
    if not old.elements:
        return old.with_changes(elements=_separated(new))
    after: cst.BaseParenthesizableWhitespace = cst.SimpleWhitespace(" ")
    opening = old.lbrace.whitespace_after
    if isinstance(opening, cst.ParenthesizedWhitespace):
        after = cst.ParenthesizedWhitespace(indent=opening.indent, last_line=opening.last_line)
    spaced = [element.with_changes(comma=cst.Comma(whitespace_after=after)) for element in new]
    return old.with_changes(elements=[*spaced, *old.elements])


def _separated(elements: Sequence[cst.DictElement]) -> list[cst.DictElement]:
    comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
    return [*(element.with_changes(comma=comma) for element in elements[:-1]), elements[-1]]


def _pair(key: str, value: cst.BaseExpression) -> cst.DictElement:
    return cst.DictElement(_string(key), value)


def _string(text: str) -> cst.SimpleString:
    return cst.SimpleString(f'"{text}"')


# ---- outputs


def _target(line: cst.BaseStatement) -> str:
    if isinstance(line, cst.SimpleStatementLine) and len(line.body) == 1:
        statement = line.body[0]
        target: cst.CSTNode | None = None
        if isinstance(statement, cst.Assign):
            target = statement.targets[0].target
        elif isinstance(statement, cst.AnnAssign) and statement.value:
            target = statement.target
        if isinstance(target, cst.Name):
            return target.value
    return ""


def _tuple(line: cst.SimpleStatementLine) -> cst.Tuple | cst.List:
    return cast("cst.Tuple | cst.List", cast("cst.Assign", line.body[0]).value)


def _returns(columns: Mapping[str, cst.Tuple | cst.List], notes: Mapping[int, list[str]], indent: str) -> cst.Assign:
    """`RETURNS = (…)`, one output a line. `notes`: the comment lines above each, by number; one more is the end."""
    types = columns["RETURN_TYPES"].elements
    rows: list[cst.BaseElement] = []
    for number in range(len(types)):
        row = [_pair("type", types[number].value)]
        names = columns.get("RETURN_NAMES", columns["RETURN_TYPES"]).elements
        row.append(_pair("name", names[number].value))
        lists = columns.get("OUTPUT_IS_LIST")
        row.append(_pair("is_list", lists.elements[number].value if lists else cst.Name("False")))
        tooltips = columns.get("OUTPUT_TOOLTIPS")
        tooltip = tooltips.elements[number].value if tooltips else None
        if tooltip and not (isinstance(tooltip, cst.Name) and tooltip.value == "None"):
            row.append(_pair("tooltip", tooltip))
        value = cst.Dict(_separated([element.with_changes(value=_copy(element.value)) for element in row]))
        final = number == len(types) - 1
        after = _newline(
            notes.get(number + 1, []), "" if final and number + 1 not in notes else indent, "" if final else indent
        )
        rows.append(cst.Element(value, comma=cst.Comma(whitespace_after=after)))
    lpar = cst.LeftParen(whitespace_after=_newline(notes.get(0, []), indent, indent)) if rows else cst.LeftParen()
    return cst.Assign([cst.AssignTarget(cst.Name(_NEW))], cst.Tuple(rows, lpar=[lpar], rpar=[cst.RightParen()]))


def _copy(node: cst.BaseExpression) -> cst.BaseExpression:
    return node.deep_clone()


def _newline(comments: Sequence[str], indent: str, last: str) -> cst.ParenthesizedWhitespace:
    lines = [
        cst.EmptyLine(indent=True, whitespace=cst.SimpleWhitespace(indent), comment=cst.Comment(comment))
        for comment in comments
    ]
    return cst.ParenthesizedWhitespace(empty_lines=lines, indent=True, last_line=cst.SimpleWhitespace(last))


def _line(statement: cst.Assign, above: Sequence[cst.EmptyLine]) -> cst.SimpleStatementLine:
    return cst.SimpleStatementLine([statement], leading_lines=above)


def _with_notes(line: cst.SimpleStatementLine, old: Sequence[cst.SimpleStatementLine]) -> cst.SimpleStatementLine:
    comments = _Notes(old, old).everything()
    return line.with_changes(leading_lines=[*comments, *line.leading_lines])


class _Notes:
    """The comments in and around statements that go away: those above and behind them, and those at each output."""

    def __init__(self, body: Sequence[cst.BaseStatement], lines: Sequence[cst.SimpleStatementLine]) -> None:
        self.above: list[cst.EmptyLine] = []
        self.rows: dict[int, list[str]] = {}
        places = [body.index(line) for line in lines]
        together = places[-1] - places[0] == len(lines) - 1
        for number, line in enumerate(lines):
            keeps_blank = number == 0 if together else number == len(lines) - 1
            self.above += [empty for empty in line.leading_lines if keeps_blank or empty.comment]
            self._collect(_tuple(line))
            if line.trailing_whitespace.comment:
                self.above.append(cst.EmptyLine(comment=line.trailing_whitespace.comment))
        if not _tuple(lines[0]).elements:
            self.above += self._rows()
            self.rows.clear()

    def _collect(self, value: cst.Tuple | cst.List) -> None:
        opening: list[cst.LeftParen | cst.LeftSquareBracket] = [*value.lpar]
        closing: list[cst.RightParen | cst.RightSquareBracket] = [*value.rpar]
        if isinstance(value, cst.List):
            opening.append(value.lbracket)
            closing.insert(0, value.rbracket)
        for bracket in opening:
            self._add(0, bracket.whitespace_after)
        for number, element in enumerate(value.elements):
            if isinstance(element.comma, cst.Comma):
                self._add(number, element.comma.whitespace_before)
                self._add(number, element.comma.whitespace_after, number + 1)
        for end in closing:
            self._add(max(0, len(value.elements) - 1), end.whitespace_before, len(value.elements))

    def _add(self, row: int, space: cst.BaseParenthesizableWhitespace, following: int | None = None) -> None:
        """A comment at the end of an output's line is about that output; one on a line of its own, about the next."""
        if not isinstance(space, cst.ParenthesizedWhitespace):
            return
        if space.first_line.comment:
            self.rows.setdefault(row, []).append(space.first_line.comment.value)
        for empty in space.empty_lines:
            if empty.comment:
                self.rows.setdefault(row if following is None else following, []).append(empty.comment.value)

    def everything(self) -> list[cst.EmptyLine]:
        return [*(line for line in self.above if line.comment), *self._rows()]

    def _rows(self) -> Iterator[cst.EmptyLine]:
        for _, comments in sorted(self.rows.items()):
            yield from (cst.EmptyLine(comment=cst.Comment(comment)) for comment in comments)


def _has_comment(node: cst.CSTNode) -> bool:
    if isinstance(node, cst.Comment):
        return True
    return any(map(_has_comment, node.children))
