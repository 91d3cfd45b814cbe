"""Which inputs of a source are choices in an old form, and whether the explicit COMBO provably means the same."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import msgspec

from bridged.nodedefs.oldoutputs import first_use, remade, short
from bridged.nodedefs.pysource import Elsewhere, Frames, NodeClass, Source, find, loads
from bridged.nodedefs.pyvalues import folder_of, function_frames, is_shared_list, kind_of

_TAKEN = {
    *("type", "options", "remote", "route", "response_key", "query_params", "refresh", "cache_key"),
    "invalidation_signal",
}
"""settings that mean something in the new forms"""


class Choice(msgspec.Struct, frozen=True):
    """One input. `line`, `column` (from 1 and 0) are its key's; `folder`: a plain list of that model folder's files.

    `certain` is False where it may well be no choice at all. With a `reason` it stays as it is.
    """

    owner: NodeClass
    name: str
    line: int
    column: int
    options: str
    folder: str | None = None
    certain: bool = True
    reason: str = ""


def old_combos(source: Source, elsewhere: Elsewhere) -> list[Choice]:
    """All inputs in old forms, and places where inputs are out of sight, in the order of the file."""
    types = _output_types(source)
    patched = any(
        isinstance(n, ast.Attribute) and n.attr == "get_filename_list" and isinstance(n.ctx, ast.Store)
        for n in ast.walk(source.tree)
    )
    found: list[Choice] = []
    for owner in source.classes:
        functions = [f for f in owner.node.body if isinstance(f, ast.FunctionDef) and f.name == "INPUT_TYPES"]
        for function in functions:
            whole = _whole(owner, function, source, elsewhere) or (
                "this file replaces folder_paths.get_filename_list" if patched else ""
            )
            found += [
                msgspec.structs.replace(choice, reason=choice.reason or whole)
                for choice in _Inputs(owner, function, types).choices()
            ]
    return found


def _whole(owner: NodeClass, function: ast.FunctionDef, source: Source, elsewhere: Elsewhere) -> str:
    """What speaks against touching any input of this class."""
    if reason := remade(owner):
        return reason
    if len(owner.body.names["INPUT_TYPES"]) > 1:
        return "INPUT_TYPES is defined more than once"
    decorators = [
        d.id if isinstance(d, ast.Name) else d.attr if isinstance(d, ast.Attribute) else "?"
        for d in function.decorator_list
    ]
    if strange := [d for d in decorators if d not in {"classmethod", "staticmethod", "abstractmethod"}]:
        return f"INPUT_TYPES has the decorator {strange[0]}"
    for write in (False, True):
        if reason := first_use(owner, source, elsewhere, {"INPUT_TYPES"}, write):
            return reason
    return ""


def _output_types(source: Source) -> set[str]:
    """All that stands in a RETURN_TYPES of this file and is no literal string."""
    found: set[str] = set()
    for owner in source.classes:
        for binding in owner.body.names.get("RETURN_TYPES", []):
            if isinstance(binding.node, ast.Tuple | ast.List):
                found |= {ast.dump(e) for e in binding.node.elts if not isinstance(e, ast.Constant)}
    return found


class _Inputs:
    """The inputs of one class, as far as its INPUT_TYPES says them in literals."""

    def __init__(self, owner: NodeClass, function: ast.FunctionDef, output_types: set[str]) -> None:
        self._owner, self._function, self._output_types = owner, function, output_types
        self._frames: Frames = function_frames(function, owner)
        self._firsts: set[int] = set()

    def choices(self) -> list[Choice]:
        entries = []
        hidden = []
        for returned in self._returned():
            literal = self._dict(returned)
            if literal is None:
                hidden.append(self._out_of_sight(returned, "what INPUT_TYPES returns is computed"))
                continue
            for section, value in zip(literal.keys, literal.values, strict=True):
                if not isinstance(section, ast.Constant):
                    hidden.append(self._out_of_sight(value, "a section of INPUT_TYPES is computed"))
                elif section.value in ("required", "optional"):
                    inputs = self._dict(value)
                    if inputs is None:
                        hidden.append(self._out_of_sight(value, f"the inputs of {section.value!r} are computed"))
                    else:
                        entries += list(zip(inputs.keys, inputs.values, strict=True))
        for _, specification in entries:
            if isinstance(specification, ast.Tuple | ast.List) and specification.elts:
                self._firsts.add(id(specification.elts[0]))
        found = [choice for key, value in entries if (choice := self._choice(key, value))]
        return sorted([*found, *hidden], key=lambda choice: (choice.line, choice.column))

    def _returned(self) -> Iterator[ast.expr]:
        todo: list[ast.AST] = list(self._function.body)
        while todo:
            node = todo.pop()
            if isinstance(node, ast.Return) and node.value:
                yield node.value
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
                todo += ast.iter_child_nodes(node)

    def _dict(self, expression: ast.expr) -> ast.Dict | None:
        """The literal itself, or that of a local name which is only ever used here."""
        if isinstance(expression, ast.Name):
            binding, seen = find(expression.id, self._frames)
            local = seen == self._frames and binding.how == "value"
            alone = len(loads(expression.id, self._function)) == 1
            return binding.node if local and alone and isinstance(binding.node, ast.Dict) else None
        return expression if isinstance(expression, ast.Dict) else None

    def _out_of_sight(self, at: ast.expr, reason: str) -> Choice:
        return Choice(self._owner, "", at.lineno, at.col_offset, short(at), certain=False, reason=reason)

    def _choice(self, key: ast.expr | None, value: ast.expr) -> Choice | None:
        if key is None:
            return self._out_of_sight(value, "inputs come from elsewhere by **")
        if not (isinstance(key, ast.Constant) and isinstance(key.value, str)):
            return self._out_of_sight(key, "an input's name is computed")
        if not isinstance(value, ast.Tuple | ast.List):
            return self._place(key, value, certain=False, reason="the input is computed")
        if not value.elts or isinstance(value.elts[0], ast.Starred):
            return self._place(key, value, certain=False, reason="the input is computed") if value.elts else None
        kind = kind_of(value.elts[0], self._frames, self._owner)
        if kind == "string" or isinstance(value.elts[0], ast.Constant | ast.Dict):
            return None
        if kind == "list":
            return self._list(key, value)
        if isinstance(value.elts[0], ast.Tuple):
            return self._place(key, value.elts[0], reason="its choices are a tuple, not a list")
        return self._place(key, value.elts[0], certain=False, reason="its type or choices come from elsewhere")

    def _list(self, key: ast.Constant, value: ast.Tuple | ast.List) -> Choice:
        first = value.elts[0]
        reason = ""
        if is_shared_list(first, self._frames):
            reason = "nodes of many packs give out this list as a type; a link from them would be refused"
        elif ast.dump(first) in self._output_types:
            reason = "an output in this file has this list as its type; a link from it would be refused"
        else:
            reason = _against(value)
        return self._place(key, first, folder=self._folder(first), reason=reason)

    def _folder(self, first: ast.expr) -> str | None:
        """The folder of a plain file list; through a local name only where nothing else can have changed the list."""
        if isinstance(first, ast.Name):
            binding, seen = find(first.id, self._frames)
            if binding.how != "value" or seen != self._frames or not isinstance(binding.node, ast.expr):
                return None
            if any(id(use) not in self._firsts for use in loads(first.id, self._function)):
                return None
            return folder_of(binding.node, seen)
        return folder_of(first, self._frames)

    def _place(
        self,
        key: ast.Constant,
        options: ast.expr,
        folder: str | None = None,
        certain: bool = True,
        reason: str = "",
    ) -> Choice:
        return Choice(self._owner, str(key.value), key.lineno, key.col_offset, short(options), folder, certain, reason)


def _against(value: ast.Tuple | ast.List) -> str:
    if len(value.elts) == 1:
        return ""
    settings = value.elts[1]
    if len(value.elts) > 2 or isinstance(settings, ast.Starred):
        return "it has more than choices and settings"
    if not isinstance(settings, ast.Dict):
        return "its settings are computed"
    for key in settings.keys:
        if not (isinstance(key, ast.Constant) and isinstance(key.value, str)):
            return "some of its settings' names are computed"
        if key.value in _TAKEN:
            return f"its settings have {key.value!r}, which means something else in the new form"
    return ""
