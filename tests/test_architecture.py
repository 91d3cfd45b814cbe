"""The rooms of the house import downward only (docs/architecture.md), and its laws that can be read off the code.

Every import statement counts, wherever it stands: in a function and under `if TYPE_CHECKING` too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "bridged"

BASE = {"model", "errors"}
EVERYTHING_BELOW_DAEMON = {
    "api",
    "actors",
    "comfy",
    "placement",
    "store",
    "catalogue",
    "publication",
    "files",
    "nodedefs",
    "config",
    "ops",
    "embedded",
    *BASE,
}

MAY_IMPORT: dict[str, set[str]] = {
    "__init__": set(),
    "__main__": {"cli"},
    "cli": {"daemon", "publication", "config", "nodedefs", *BASE},
    "daemon": EVERYTHING_BELOW_DAEMON,
    "api": {"actors", "catalogue", "publication", "nodedefs", "files", "config", "ops", *BASE},
    "actors": {"comfy", "placement", "store", "catalogue", "publication", "files", "nodedefs", "config", "ops", *BASE},
    "placement": {"nodedefs", *BASE},
    "catalogue": {"files", "nodedefs", *BASE},
    "publication": {"catalogue", "files", "config", *BASE},
    "comfy": BASE,
    "store": BASE,
    "nodedefs": BASE,
    "files": BASE,
    "config": BASE,
    "ops": BASE,
    "embedded": {"files", "nodedefs", *BASE},
    "model": set(),
    "errors": set(),
}

EXCEPTIONS: dict[tuple[str, str], str] = {
    ("bridged.cli.main", "embedded"): "`bridged worker` runs the worker in its own process, with no daemon between",
}
"""(module, room) -> why it may all the same. One that is not needed any more fails the test."""

PLAIN_INTERFACES = {
    *("books", "clients", "dispatcher", "messages", "session", "intake"),
    *("pool", "publisher", "nodes", "folders"),
}
"""what of the actors the api may see: synchronous calls and records, never the code that talks to a backend"""

PURE = {
    "__future__",
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "heapq",
    "itertools",
    "math",
    "operator",
    "statistics",
    "typing",
    "msgspec",
}
"""all that pure functions over values need"""


@cache
def modules(package: str = PACKAGE) -> dict[str, Path]:
    """Dotted name -> file, of every module of the package."""
    found: dict[str, Path] = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(name: str, path: Path) -> set[str]:
    """The dotted names of all modules that a module imports; `from package import module` names the module."""
    found: set[str] = set()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
                base = f"{parent}.{base}".rstrip(".")
            for alias in node.names:
                longer = f"{base}.{alias.name}"
                found.add(longer if longer in modules() else base)
    return found


def room(name: str) -> str:
    """The room of one of our modules; the package itself has only the version."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name == PACKAGE or name.startswith(f"{PACKAGE}.")}


def in_room(wanted: str) -> list[str]:
    return [name for name in modules() if room(name) == wanted]


def dialects() -> set[str]:
    """The api's files that register routes."""
    return {
        name
        for name in in_room("api")
        if any(isinstance(node, ast.FunctionDef) and node.name == "routes" for node in tree(modules()[name]).body)
    }


def test_every_room_has_its_rule() -> None:
    assert len(modules()) > 30
    assert {room(name) for name in modules()} <= MAY_IMPORT.keys()


@pytest.mark.parametrize("name", modules())
def test_imports_run_downward_only(name: str) -> None:
    here = room(name)
    reached = {room(imported) for imported in ours(imports(name, modules()[name]))} - {here, "__init__"}
    excepted = {there for module, there in EXCEPTIONS if module == name}
    assert excepted <= reached, "an exception is not needed any more"
    assert reached - excepted <= MAY_IMPORT[here]


def test_no_module_imports_what_is_not_there() -> None:
    for name, path in modules().items():
        assert ours(imports(name, path)) <= modules().keys(), name


def test_one_dialect_never_imports_another() -> None:
    found = dialects()
    assert {"bridged.api.bridge", "bridged.api.admin"} <= found
    for name in found:
        assert not imports(name, modules()[name]) & (found - {name}), name


def test_what_dialects_share_does_not_depend_on_one() -> None:
    shared = set(in_room("api")) - dialects() - {"bridged.api.app"}  # the app registers them
    for name in shared:
        assert not imports(name, modules()[name]) & dialects(), name


def test_the_api_sees_only_the_plain_interfaces_of_the_actors() -> None:
    for name in in_room("api"):
        actors = {found for found in imports(name, modules()[name]) if room(found) == "actors"}
        assert {found.split(".")[2] for found in actors} <= PLAIN_INTERFACES, name


def test_the_api_never_imports_comfy_nor_a_client_library() -> None:
    for name in in_room("api"):
        found = imports(name, modules()[name])
        clients = {"httpx", "trio_websocket", "httptools"}
        if name not in ("bridged.api.connection", "bridged.api.http11"):
            clients.add("h11")
        assert not {module for module in found if module.split(".")[0] in clients}, name
        assert not {module for module in found if module.startswith("bridged.comfy")}, name


def test_placement_is_pure() -> None:
    for name in in_room("placement"):
        path = modules()[name]
        roots = {module.split(".")[0] for module in imports(name, path)} - {PACKAGE}
        assert roots <= PURE, name
        assert not calls(path) & {"open", "print", "input", "exec", "eval", "__import__", "globals", "setattr"}, name
        assert not [node for node in ast.walk(tree(path)) if isinstance(node, ast.Global | ast.AsyncFunctionDef)], name


@pytest.mark.parametrize("name", ["bridged.comfy.protocol", "bridged.model", "bridged.errors"])
def test_values_and_parsers_do_no_io(name: str) -> None:
    roots = {module.split(".")[0] for module in imports(name, modules()[name])} - {PACKAGE}
    assert roots <= PURE | {"struct", "pathlib"}
    assert "open" not in calls(modules()[name])


def test_the_dispatcher_never_awaits() -> None:
    path = modules()["bridged.actors.dispatcher"]
    waiting = (ast.AsyncFunctionDef, ast.Await, ast.AsyncWith, ast.AsyncFor)
    assert not [node.lineno for node in ast.walk(tree(path)) if isinstance(node, waiting)]
    assert not {"trio", "time", "os", "threading"} & imports("bridged.actors.dispatcher", path)


def test_the_patch_and_the_bridge_know_nothing_of_each_other() -> None:
    for name, path in modules().items():
        assert "comfy_patch" not in {module.split(".")[0] for module in imports(name, path)}, name
    for name, path in modules("comfy_patch").items():
        assert not ours(imports(name, path)), name


@pytest.mark.parametrize("name", modules())
def test_laws_that_can_be_read(name: str) -> None:
    path = modules()[name]
    for node in ast.walk(tree(path)):
        where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.ExceptHandler):
            caught = {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)} if node.type else {"BaseException"}
            assert "BaseException" not in caught, f"{where} catches BaseException, and with it trio.Cancelled"
        if isinstance(node, ast.Attribute) and node.attr == "nursery" and isinstance(node.value, ast.Name):
            assert node.value.id not in {"app", "current_app"}, f"{where} uses Quart's app.nursery"
        if isinstance(node, ast.Call) and any(keyword.arg == "shield" for keyword in node.keywords):
            called = ast.unparse(node.func)
            deadline = called.rsplit(".", 1)[-1] in {"move_on_after", "move_on_at", "fail_after", "fail_at"}
            deadline |= any(keyword.arg in {"deadline", "relative_deadline"} for keyword in node.keywords)
            assert deadline, f"{where}: a shield with no deadline"
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).endswith(".shield"):
            pytest.fail(f"{where}: a shield is set apart from its deadline")


@pytest.mark.parametrize("name", modules())
def test_no_generator_yields_inside_a_nursery_or_a_cancel_scope(name: str) -> None:
    for function in ast.walk(tree(modules()[name])):
        if not isinstance(function, ast.AsyncFunctionDef | ast.FunctionDef):
            continue
        decorators = {ast.unparse(decorator).rsplit(".", 1)[-1] for decorator in function.decorator_list}
        if decorators & {"asynccontextmanager", "contextmanager", "fixture"}:
            continue
        for block in own_nodes(function):
            if isinstance(block, ast.With | ast.AsyncWith) and scopes(block):
                inside = [node for node in own_nodes(block) if isinstance(node, ast.Yield | ast.YieldFrom)]
                assert not inside, f"{name}: {function.name} yields inside {ast.unparse(block.items[0])}"


def scopes(block: ast.With | ast.AsyncWith) -> bool:
    names = {"open_nursery", "CancelScope", "move_on_after", "move_on_at", "fail_after", "fail_at"}
    entered = [item.context_expr for item in block.items]
    return any(isinstance(e, ast.Call) and ast.unparse(e.func).rsplit(".", 1)[-1] in names for e in entered)


def own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below, without those of functions defined inside."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from own_nodes(child)


def calls(path: Path) -> set[str]:
    """The plain names that a module calls."""
    return {
        node.func.id for node in ast.walk(tree(path)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
