"""What a custom node's Python source says of its names and classes, without running it.

Everything here errs towards "unknown": a name that is bound twice, under a star import or by anything but a plain
assignment, an import or a class has no value that a rewriting could count on.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from typing import Literal

import msgspec

from bridged.errors import BadInput

OLD_OUTPUTS = ("RETURN_TYPES", "RETURN_NAMES", "OUTPUT_IS_LIST", "OUTPUT_TOOLTIPS")
WATCHED = frozenset({*OLD_OUTPUTS, "RETURNS", "INPUT_TYPES"})
_GENERIC = {"", "type", "object"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Binding(msgspec.Struct, frozen=True):
    """What one statement binds a name to: an expression, a module or what is imported from one, a class, a parameter.

    `text` is the dotted name of an import, relative ones with their leading dots.
    """

    how: Literal["value", "import", "class", "parameter", "builtin", "other"]
    node: ast.AST | None = None
    text: str = ""


OTHER = Binding("other")
Names = dict[str, list[Binding]]


class Frame(msgspec.Struct, frozen=True):
    """One scope: its names, and the line of its last star import (0: none), which may have rebound any of them."""

    names: Names
    star: int = 0


Frames = tuple[Frame, ...]
"""the scopes that an expression sees, the innermost first; the module is the last"""


class NodeClass(msgspec.Struct, frozen=True):
    """A class statement. `body` is its own scope; `frames` are those around it, which its methods see, too."""

    node: ast.ClassDef
    frames: Frames
    body: Frame
    bases: tuple[str, ...]
    """last parts of the bases' names; "" where a base is computed"""

    @property
    def name(self) -> str:
        return self.node.name

    def sets(self, attribute: str) -> bool:
        return attribute in self.body.names


class Use(msgspec.Struct, frozen=True):
    """A place that reads or sets a watched attribute of the class called `owner`; "" is some class unknown."""

    owner: str
    attribute: str
    write: bool
    line: int


class Elsewhere(msgspec.Struct, frozen=True):
    """What other files do with classes that they know by name.

    `derived`: names of base classes whose subclasses set outputs of their own.
    """

    uses: frozenset[Use] = frozenset()
    derived: frozenset[str] = frozenset()

    def __or__(self, other: Elsewhere) -> Elsewhere:
        return Elsewhere(self.uses | other.uses, self.derived | other.derived)


class Source(msgspec.Struct, frozen=True):
    """A parsed file: its text without a byte order mark, its module scope, all classes, all uses of what is watched."""

    text: str
    tree: ast.Module
    module: Frame
    classes: tuple[NodeClass, ...]
    uses: tuple[Use, ...]

    def elsewhere(self) -> Elsewhere:
        """What this file says about classes that other files may define."""
        derived = {base for known in self.classes if any(map(known.sets, OLD_OUTPUTS)) for base in known.bases}
        derived -= _GENERIC | {known.name for known in self.classes}
        return Elsewhere(frozenset(use for use in self.uses if use.owner), frozenset(derived))


def parse(text: str) -> Source:
    """Raises BadInput: it is no Python that this Python can read; the message begins with the line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            tree = ast.parse(text)
        seen = _Reader(tree)
        seen.visit(tree)
    except SyntaxError as error:
        raise BadInput(f"line {error.lineno or 1}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"line 1: {error}") from None
    return Source(text, tree, seen.module, tuple(seen.classes), tuple(seen.uses))


def find(name: str, frames: Frames) -> tuple[Binding, Frames]:
    """What a name is bound to, and the scopes that its value sees; OTHER where that is not certain."""
    for depth, frame in enumerate(frames):
        bindings = frame.names.get(name, [])
        if bindings:
            first = bindings[0]
            line = getattr(bindings[-1].node, "lineno", 0)
            certain = len(bindings) == 1 or (
                first.how == "import" and all(b.how == "import" and b.text == first.text for b in bindings)
            )
            return (first if certain and frame.star <= line else OTHER), frames[depth:]
        if frame.star:
            return OTHER, frames[depth:]
    return Binding("builtin", text=name), ()


def dotted(expression: ast.expr, frames: Frames) -> str:
    """The full name of something imported: `fp.get_filename_list` -> "folder_paths.get_filename_list"; else ""."""
    if isinstance(expression, ast.Attribute):
        base = dotted(expression.value, frames)
        return f"{base}.{expression.attr}" if base else ""
    if isinstance(expression, ast.Name):
        binding, _ = find(expression.id, frames)
        return binding.text if binding.how == "import" else ""
    return ""


def loads(name: str, tree: ast.AST) -> list[ast.Name]:
    """All places that mention a name other than to bind it."""
    return [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == name and not isinstance(n.ctx, ast.Store)]


def scope(body: list[ast.stmt], arguments: ast.arguments | None = None) -> Frame:
    """The names that a body binds in its own scope, in any branch."""
    names: Names = {}
    star = 0
    if arguments:
        everyone = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        for argument in everyone:
            if argument:
                names.setdefault(argument.arg, []).append(Binding("parameter", argument))
    for node in _own(body):
        for name, binding in _bound(node):
            if name == "*":
                star = max(star, getattr(node, "lineno", 0))
            else:
                names.setdefault(name, []).append(binding)
    return Frame(names, star)


def _own(body: list[ast.stmt]) -> Iterator[ast.AST]:
    todo: list[ast.AST] = list(reversed(body))
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, Function | ast.ClassDef | ast.Lambda):
            todo.extend(ast.iter_child_nodes(node))


def _bound(node: ast.AST) -> Iterator[tuple[str, Binding]]:
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        yield node.targets[0].id, Binding("value", node.value)
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        if node.value:
            yield node.target.id, Binding("value", node.value)
    elif isinstance(node, ast.Assign | ast.AugAssign | ast.For | ast.AsyncFor | ast.NamedExpr | ast.Delete):
        targets = node.targets if isinstance(node, ast.Assign | ast.Delete) else [node.target]
        for target in targets:
            yield from _others(target)
    elif isinstance(node, ast.withitem) and node.optional_vars:
        yield from _others(node.optional_vars)
    elif isinstance(node, ast.Import):
        for alias in node.names:
            bound = alias.asname or alias.name.partition(".")[0]
            yield bound, Binding("import", node, alias.name if alias.asname else bound)
    elif isinstance(node, ast.ImportFrom):
        module = "." * node.level + (node.module or "")
        for alias in node.names:
            yield alias.asname or alias.name, Binding("import", node, f"{module}.{alias.name}")
    elif isinstance(node, ast.ClassDef):
        yield node.name, Binding("class", node)
    elif isinstance(node, ast.Global | ast.Nonlocal):
        yield from ((name, OTHER) for name in node.names)
    elif isinstance(node, Function | ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
        yield node.name, OTHER
    elif isinstance(node, ast.MatchMapping) and node.rest:
        yield node.rest, OTHER


def _others(target: ast.expr) -> Iterator[tuple[str, Binding]]:
    for node in ast.walk(target):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id, OTHER


class _Reader(ast.NodeVisitor):
    """Walks a module once, with the scopes, the class around it, and the names that mean that class's objects."""

    def __init__(self, tree: ast.Module) -> None:
        self.module = scope(tree.body)
        for node in ast.walk(tree):
            if isinstance(node, ast.Global):
                for name in node.names:
                    self.module.names.setdefault(name, []).append(OTHER)
        self.classes: list[NodeClass] = []
        self.uses: list[Use] = []
        self._frames: Frames = (self.module,)
        self._around: NodeClass | None = None
        self._in_class = False
        self._me: set[str] = set()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        bases = tuple(dotted(base, self._frames).rpartition(".")[2] or _last(base) for base in node.bases)
        known = NodeClass(node, self._frames, scope(node.body), bases)
        self.classes.append(known)
        kept = self._around, self._in_class, self._me
        self._around, self._in_class, self._me = known, True, set()
        self.generic_visit(node)
        self._around, self._in_class, self._me = kept

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        kept = self._frames, self._in_class, self._me
        own = scope(node.body, node.args)
        first = next(iter([*node.args.posonlyargs, *node.args.args]), None)
        self._me = {first.arg} if self._in_class and first else self._me - own.names.keys()
        self._frames, self._in_class = (own, *self._frames), False
        self.generic_visit(node)
        self._frames, self._in_class, self._me = kept

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr in WATCHED:
            self._use(node.value, node.attr, not isinstance(node.ctx, ast.Load), node.lineno)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func.id if isinstance(node.func, ast.Name) else ""
        if called in {"getattr", "hasattr", "setattr", "delattr"} and len(node.args) > 1:
            owner, attribute = node.args[:2]
            if isinstance(attribute, ast.Constant) and attribute.value in WATCHED:
                self._use(owner, str(attribute.value), called in {"setattr", "delattr"}, node.lineno)
                for other in [node.func, owner, *node.args[2:], *node.keywords]:
                    self.visit(other)
                return
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and node.value in WATCHED:
            self.uses.append(Use("", node.value, False, node.lineno))

    def _use(self, owner: ast.expr, attribute: str, write: bool, line: int) -> None:
        for name in self._owners(owner):
            self.uses.append(Use(name, attribute, write, line))

    def _owners(self, owner: ast.expr) -> tuple[str, ...]:
        if isinstance(owner, ast.Attribute) and owner.attr == "__class__":
            return self._owners(owner.value)
        if isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name):
            if owner.func.id == "type" and len(owner.args) == 1:
                return self._owners(owner.args[0])
            if owner.func.id == "super" and self._around:
                return self._around.bases or ("",)
        if isinstance(owner, ast.Name):
            if owner.id in self._me and self._around:
                return (self._around.name,)
            binding, _ = find(owner.id, self._frames)
            if binding.how == "class":
                return (owner.id,)
        return (dotted(owner, self._frames).rpartition(".")[2],)


def _last(expression: ast.expr) -> str:
    if isinstance(expression, ast.Name):
        return expression.id
    return expression.attr if isinstance(expression, ast.Attribute) else ""
