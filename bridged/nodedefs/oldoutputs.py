"""Which classes of a source say their outputs in parallel lists, and whether one RETURNS provably says the same."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import msgspec

from bridged.nodedefs.pysource import OLD_OUTPUTS, Binding, Elsewhere, NodeClass, Source, dotted, find
from bridged.nodedefs.pyvalues import kind_of

_ROW = {"RETURN_TYPES": "type", "RETURN_NAMES": "name", "OUTPUT_IS_LIST": "is_list", "OUTPUT_TOOLTIPS": "tooltip"}
_HARMLESS = {"abc.ABC", "comfy.comfy_types.ComfyNodeABC", "comfy.comfy_types.node_typing.ComfyNodeABC"}
"""bases from elsewhere that set no outputs (comfy/comfy_types/node_typing.py of ComfyUI 0.3.64)"""

Row = dict[str, ast.expr]


class Outputs(msgspec.Struct):
    """One class's old outputs. `rows`: what RETURNS has to say; None with the `reason` where that is not certain.

    `reads` is why the old attributes cannot be taken away even so, `done`: a RETURNS that says the same is there.
    """

    owner: NodeClass
    old: tuple[str, ...]
    rows: list[Row] | None = None
    reason: str = ""
    reads: str = ""
    done: bool = False


def old_outputs(source: Source, elsewhere: Elsewhere) -> list[Outputs]:
    """All classes that set one of the four old attributes, in the order of the file."""
    found = [Outputs(known, old) for known in source.classes if (old := tuple(filter(known.sets, OLD_OUTPUTS)))]
    for outputs in found:
        try:
            outputs.rows = _rows(outputs.owner, outputs.old)
            _check_surroundings(outputs, source, elsewhere)
            outputs.done = _is_done(outputs)
        except _Unproven as unproven:
            outputs.rows, outputs.reason = None, str(unproven)
    _leave_families_together(found, source)
    return found


def relatives(owner: NodeClass, source: Source) -> set[str]:
    """The class, its ancestors and its descendants, as far as this file has them, by name."""
    parents = {known.name: known.bases for known in source.classes}

    def ancestors(name: str) -> set[str]:
        names, todo = {name}, [name]
        while todo:
            for base in parents.get(todo.pop(), ()):
                if base in parents and base not in names:
                    names.add(base)
                    todo.append(base)
        return names

    return ancestors(owner.name) | {name for name in parents if owner.name in ancestors(name)}


def first_use(owner: NodeClass, source: Source, elsewhere: Elsewhere, attributes: set[str], write: bool) -> str:
    """The first place that reads (or sets) one of the attributes on this class or a relative, as a reason; else ""."""
    names = relatives(owner, source) | {""}
    said = "is set" if write else "is read"
    for use in sorted(source.uses, key=lambda use: use.line):
        if use.attribute in attributes and use.write is write and use.owner in names:
            whose = "" if use.owner else " of a class that cannot be told"
            return f"{use.attribute}{whose} {said} in line {use.line}"
    for use in sorted(elsewhere.uses, key=lambda use: (use.attribute, use.line)):
        if use.attribute in attributes and use.write is write and use.owner in names - {""}:
            return f"{use.attribute} {said} in another file"
    return ""


def remade(owner: NodeClass) -> str:
    """Why the class statement is not the whole truth about the class, or ""."""
    if owner.node.decorator_list:
        return "the class has a decorator, which may change it"
    return "the class has a metaclass or other keywords" if owner.node.keywords else ""


class _Unproven(Exception):
    """Why it stays as it is."""


def _rows(owner: NodeClass, old: tuple[str, ...]) -> list[Row]:
    if reason := remade(owner):
        raise _Unproven(reason)
    columns = {attribute: _elements(owner, attribute) for attribute in old}
    if "RETURN_TYPES" not in columns:
        raise _Unproven(f"{old[0]} without RETURN_TYPES")
    types = columns["RETURN_TYPES"]
    for attribute, elements in columns.items():
        if len(elements) != len(types):
            raise _Unproven(f"{attribute} has {len(elements)} entries for {len(types)} outputs")
        for element in elements:
            _check(owner, attribute, element)
    rows: list[Row] = []
    for number, kind in enumerate(types):
        row: Row = {"type": kind, "name": kind, "is_list": ast.Constant(False)}
        said = {_ROW[attribute]: elements[number] for attribute, elements in columns.items()}
        rows.append(row | {key: value for key, value in said.items() if not _is_none(value)})
    return rows


def _elements(owner: NodeClass, attribute: str) -> list[ast.expr]:
    value = assigned(owner, attribute)
    if isinstance(value, str):
        raise _Unproven(value)
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        raise _Unproven(f"{attribute} is a string, not a tuple: a comma is missing")
    if not isinstance(value, ast.Tuple | ast.List):
        raise _Unproven(f"{attribute} is computed")
    if any(isinstance(element, ast.Starred) for element in value.elts):
        raise _Unproven(f"{attribute} has a * in it")
    return value.elts


def assigned(owner: NodeClass, attribute: str) -> ast.expr | str:
    """The one expression that a class body assigns, in a statement with a line of its own; else why there is none."""
    body = owner.node.body
    for place, statement in enumerate(body):
        target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None
        if value is None or not isinstance(target, ast.Name) or target.id != attribute:
            continue
        if len(owner.body.names[attribute]) != 1:
            return f"{attribute} is assigned more than once"
        if isinstance(statement, ast.Assign) and len(statement.targets) > 1:
            return f"{attribute} is assigned together with another name"
        if any(_share_a_line(statement, other) for other in [*body[:place][-1:], *body[place + 1 :][:1], owner.node]):
            return f"{attribute} shares its line with another statement"
        return value
    return f"{attribute} is assigned in a branch, or together with another name"


def _share_a_line(one: ast.stmt, other: ast.stmt) -> bool:
    if isinstance(other, ast.ClassDef) and one in other.body:
        return other.lineno == one.lineno
    return one.lineno <= (other.end_lineno or 0) and other.lineno <= (one.end_lineno or 0)


def _check(owner: NodeClass, attribute: str, element: ast.expr) -> None:
    if attribute == "OUTPUT_IS_LIST":
        if not (isinstance(element, ast.Constant) and isinstance(element.value, bool)):
            raise _Unproven(f"{attribute} has {short(element)}, which is neither True nor False")
        return
    if attribute == "OUTPUT_TOOLTIPS" and _is_none(element):
        return
    kind = kind_of(element, (owner.body, *owner.frames))
    if kind == "list" and attribute == "RETURN_TYPES":
        raise _Unproven(f"an output's type is a list of choices: {short(element)}")
    if kind != "string":
        raise _Unproven(f"{attribute} has {short(element)}, which is not seen here to be a string")


def _is_none(element: ast.expr) -> bool:
    """An output without a tooltip, among others that have one."""
    return isinstance(element, ast.Constant) and element.value is None


def _check_surroundings(outputs: Outputs, source: Source, elsewhere: Elsewhere) -> None:
    owner, four = outputs.owner, set(OLD_OUTPUTS)
    if set(outputs.old) != four and (base := _unknown_base(owner, source)):
        raise _Unproven(f"it derives from {base}, which is not in this file and may set what is missing here")
    if owner.name in elsewhere.derived:
        raise _Unproven("a class in another file derives from it and sets outputs of its own")
    if reason := first_use(owner, source, elsewhere, four | {"RETURNS"}, write=True):
        raise _Unproven(reason)
    outputs.reads = first_use(owner, source, elsewhere, four, write=False)
    for node in _class_level(owner):
        if isinstance(node, ast.Name) and node.id in four and isinstance(node.ctx, ast.Load):
            outputs.reads = outputs.reads or f"{node.id} is read in line {node.lineno}"


def _class_level(owner: NodeClass) -> Iterator[ast.AST]:
    for statement in owner.node.body:
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from ast.walk(statement)


def _unknown_base(owner: NodeClass, source: Source) -> str:
    """The first base, near or far, that may set outputs out of this file's sight."""
    todo, seen = [owner], {id(owner)}
    while todo:
        known = todo.pop()
        for base, name in zip(known.node.bases, known.bases, strict=True):
            binding, _ = find(base.id, known.frames) if isinstance(base, ast.Name) else (Binding("other"), ())
            if binding.how == "class":
                near = [c for c in source.classes if c.node is binding.node and id(c) not in seen]
                seen |= set(map(id, near))
                todo += near
            elif not (binding.how == "builtin" and name == "object") and dotted(base, known.frames) not in _HARMLESS:
                return name or "a computed class"
    return ""


def _is_done(outputs: Outputs) -> bool:
    """A RETURNS is there that says what the old attributes say. Raises _Unproven: it says something else."""
    if not outputs.owner.sets("RETURNS"):
        return False
    value = assigned(outputs.owner, "RETURNS")
    if isinstance(value, str):
        raise _Unproven(value)
    there: list[dict[str, str]] = []
    for element in value.elts if isinstance(value, ast.Tuple | ast.List) else []:
        if isinstance(element, ast.Dict) and all(isinstance(key, ast.Constant) for key in element.keys):
            pairs = zip(element.keys, element.values, strict=True)
            row = {str(key.value): ast.dump(said) for key, said in pairs if isinstance(key, ast.Constant)}
            there.append({"is_list": ast.dump(ast.Constant(False)), "name": row.get("type", ""), **row})
    wanted = [{key: ast.dump(said) for key, said in row.items()} for row in outputs.rows or []]
    if not isinstance(value, ast.Tuple | ast.List) or len(there) != len(value.elts):
        raise _Unproven("RETURNS is there, but computed")
    if len(there) != len(wanted) or any({k: t.get(k) for k in w} != w for t, w in zip(there, wanted, strict=True)):
        raise _Unproven("RETURNS says something else than the old attributes")
    return True


def _leave_families_together(found: list[Outputs], source: Source) -> None:
    """A class that is left alone leaves its relatives alone: half a family would inherit two truths."""
    by_name = {outputs.owner.name: outputs for outputs in found}
    for outputs in found:
        for name in _parents(outputs.owner, source):
            lacking = [old for old in by_name[name].old if old not in outputs.old] if name in by_name else []
            if lacking and outputs.rows is not None:
                outputs.rows, outputs.reason = None, f"it takes {lacking[0]} from its base class {name}"
    changed = True
    while changed:
        changed = False
        for outputs in found:
            left = [n for n in relatives(outputs.owner, source) if n in by_name and by_name[n].rows is None]
            if outputs.rows is not None and left:
                outputs.rows, outputs.reason = None, f"its relative {min(left)} is left alone"
                changed = True
            for name in relatives(outputs.owner, source) & by_name.keys():
                if by_name[name].reads and not outputs.reads:
                    outputs.reads = f"of its relative {name}, {by_name[name].reads}"
                    changed = True


def _parents(owner: NodeClass, source: Source) -> set[str]:
    """All ancestors in this file."""
    parents = {known.name: known.bases for known in source.classes}
    names: set[str] = set()
    todo = list(owner.bases)
    while todo:
        name = todo.pop()
        if name in parents and name not in names:
            names.add(name)
            todo += parents[name]
    return names


def short(expression: ast.expr) -> str:
    """The expression on one line of at most 60 characters."""
    text = " ".join(ast.unparse(expression).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
