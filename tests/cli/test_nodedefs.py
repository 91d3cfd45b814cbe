"""`bridged nodedefs`: files, their encodings, modes and links; what is written, what is only shown, and exit codes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bridged.cli.main import main
from tests.cli.commands import bridged

NODE = """\
class Node:
    RETURN_TYPES = ("IMAGE",)
    @classmethod
    def INPUT_TYPES(s):
        return {"required": {"mode": (["a", "b"],)}}
"""
RETURNS = '    RETURNS = (\n        {"type": "IMAGE", "name": "IMAGE", "is_list": False},\n    )\n'
NEW = NODE.replace('E",)\n', f'E",)\n{RETURNS}').replace('(["a", "b"],)', '("COMBO", {"options": ["a", "b"]})')
LORAS = """\
import folder_paths
class Loras:
    @classmethod
    def INPUT_TYPES(s):
        return {"required": {"lora": (folder_paths.get_filename_list("loras"),)}}
"""


def nodedefs(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["nodedefs", *map(str, arguments)])


@pytest.fixture
def node(tmp_path: Path) -> Path:
    path = tmp_path / "node.py"
    path.write_text(NODE)
    return path


def test_lint_says_the_place_and_the_new_form_and_exits_1(node: Path) -> None:
    done = nodedefs("lint", node)
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        f"{node}:1:1: Node: outputs: RETURN_TYPES -> "
        'RETURNS = ({"type": \'IMAGE\', "name": \'IMAGE\', "is_list": False},)',
        f"{node}:5:30: Node: combos: \"mode\": ['a', 'b'] -> (\"COMBO\", {{\"options\": ['a', 'b'], …}})",
    ]


def test_lint_exits_0_where_all_is_new_and_2_where_a_file_is_not_readable(node: Path) -> None:
    node.write_text(NEW)
    assert nodedefs("lint", node).exit_code == 0
    assert nodedefs("lint", node).output == ""
    bad = node.with_name("bad.py")
    bad.write_text("x = (\n")
    done = nodedefs("lint", bad, node)
    assert done.exit_code == 2
    assert done.stderr == f"{bad}: line 1: '(' was never closed\n"


def test_what_is_only_perhaps_old_does_not_count(node: Path) -> None:
    node.write_text("class N:\n    @classmethod\n    def INPUT_TYPES(s):\n        return make()\n")
    done = nodedefs("lint", node)
    assert (done.exit_code, done.stdout) == (
        0,
        f"{node}:4:16: N: combos: make() (perhaps; what INPUT_TYPES returns is computed)\n",
    )


def test_a_folder_stands_for_its_python_files(tmp_path: Path) -> None:
    for name in ("b.py", "a/a.py", "a/other.txt", ".hidden/c.py", "__pycache__/d.py", ".e.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(NODE)
    done = nodedefs("lint", tmp_path, tmp_path / "b.py")
    said = [line.removeprefix(f"{tmp_path}/").partition(":")[0] for line in done.stdout.splitlines()]
    assert said == ["b.py", "b.py", "a/a.py", "a/a.py"]


def test_without_write_nothing_is_changed_and_the_diff_applies(node: Path) -> None:
    done = nodedefs("migrate", node)
    assert done.exit_code == 0
    assert node.read_text() == NODE
    assert done.stderr == "would migrate 1 outputs, 1 combos, 0 file lists in 1 files; 0 left alone\n"
    if shutil.which("patch") is None:
        pytest.skip("there is no patch here")
    subprocess.run(["patch", "-s", str(node)], input=done.stdout_bytes, check=True)
    assert node.read_text() == NEW


def test_with_write_it_is_changed_once(node: Path) -> None:
    first = nodedefs("migrate", "--write", node)
    assert (first.exit_code, first.stdout, node.read_text()) == (0, "", NEW)
    assert first.stderr == "migrated 1 outputs, 1 combos, 0 file lists in 1 files; 0 left alone\n"
    before = node.stat()
    again = nodedefs("migrate", "--write", node)
    assert again.stderr == "migrated 0 outputs, 0 combos, 0 file lists in 0 files; 0 left alone\n"
    assert node.stat().st_ino == before.st_ino, "it was not written again"
    assert list(node.parent.iterdir()) == [node]


def test_old_attributes_go_when_asked(node: Path) -> None:
    nodedefs("migrate", "--write", "--drop-old", "--only", "outputs", node)
    assert node.read_text() == NODE.replace('    RETURN_TYPES = ("IMAGE",)\n', RETURNS)


def test_file_lists_are_migrated_only_when_asked(node: Path) -> None:
    node.write_text(LORAS)
    stays = nodedefs("migrate", "--write", node)
    assert node.read_text() == LORAS
    assert "1 file lists stay: stock ComfyUI would show no choices; --only files migrates them" in stays.stderr
    nodedefs("migrate", "--write", "--only", "files", node)
    remote = '("COMBO", {"type": "remote", "route": "/internal/files/loras", "response_key": "files"})'
    assert node.read_text() == LORAS.replace('(folder_paths.get_filename_list("loras"),)', remote)


def test_what_is_left_alone_is_said_with_the_reason(node: Path) -> None:
    node.write_text('class N:\n    RETURN_TYPES = ("IMAGE")\n')
    done = nodedefs("migrate", node)
    assert done.exit_code == 0
    assert done.stderr.startswith(f"left alone: {node}:1:1: N: outputs: RETURN_TYPES")
    assert "(RETURN_TYPES is a string, not a tuple: a comma is missing)\n" in done.stderr


def test_files_given_together_know_of_each_other(node: Path) -> None:
    other = node.with_name("other.py")
    other.write_text("from .node import Node\nprint(Node.INPUT_TYPES())\n")
    assert "0 combos" in nodedefs("migrate", node, other).stderr
    assert "1 combos" in nodedefs("migrate", node).stderr


@pytest.mark.parametrize("bad", [b"x = (\n", b"# coding: nonsense\n", b"\xff\xfe", b"x = '\xe9'\n", b"\0", None])
def test_a_bad_file_does_not_hold_up_the_others(node: Path, bad: bytes | None) -> None:
    broken = node.with_name("broken.py")
    if bad is not None:
        broken.write_bytes(bad)
    done = nodedefs("migrate", "--write", broken, node)
    assert done.exit_code == 2
    assert node.read_text() == NEW
    first, *_ = done.stderr.splitlines()
    assert first.startswith(f"{broken}: ")
    assert len(done.stderr.splitlines()) == 2
    assert bad is None or broken.read_bytes() == bad


@pytest.mark.parametrize(
    ("head", "encoding", "newline"),
    [
        ("# é\n", "utf-8-sig", "\n"),
        ("# é\n", "utf-8-sig", "\r\n"),
        ("# -*- coding: latin-1 -*-\nE = 'é'\n", "latin-1", "\n"),
        ("# é\n", "utf-8", "\r\n"),
        ("\x0c# coding: cp1252\n# é €\n", "cp1252", "\r\n"),
        ("# coding: euc-jp\nJ = '日本'\n", "euc-jp", "\n"),
    ],
)
@pytest.mark.parametrize("end", ["", "X = 1", "\n\n  \n"])
def test_encoding_and_line_ends_stay(node: Path, head: str, encoding: str, newline: str, end: str) -> None:
    node.write_bytes((head + NODE + end).replace("\n", newline).encode(encoding))
    shown = nodedefs("migrate", node)
    done = nodedefs("migrate", "--write", node)
    assert done.exit_code == 0, done.output
    assert node.read_bytes() == (head + NEW + end).replace("\n", newline).encode(encoding)
    assert (newline + "+    RETURNS = (" + newline).encode() in shown.stdout_bytes


def test_tabs_stay(node: Path) -> None:
    node.write_text(NODE.replace("    ", "\t"))
    nodedefs("migrate", "--write", node)
    assert node.read_text() == NEW.replace("    ", "\t")


def test_the_mode_stays_and_a_link_stays_a_link(node: Path) -> None:
    node.chmod(0o750)
    link = node.with_name("link.py")
    link.symlink_to(node.name)
    assert nodedefs("migrate", "--write", link).exit_code == 0
    assert link.is_symlink()
    assert node.read_text() == NEW
    assert node.stat().st_mode & 0o777 == 0o750


def test_a_file_that_cannot_be_replaced_is_said_and_stays(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    done = nodedefs("migrate", "--write", node)
    assert done.exit_code == 2
    assert done.stderr.splitlines()[0] == f"{node}: Permission denied"
    assert list(node.parent.iterdir()) == [node]
    assert node.read_text() == NODE


async def test_as_a_process(node: Path) -> None:
    assert (await bridged(node.parent, "nodedefs", "lint", "node.py")).returncode == 1
    assert (await bridged(node.parent, "nodedefs", "migrate", "--write", ".")).returncode == 0
    assert node.read_text() == NEW
    assert (await bridged(node.parent, "nodedefs", "lint", "node.py")).stdout == ""
    refused = await bridged(node.parent, "nodedefs", "migrate")
    assert refused.returncode == 2
    assert "Missing argument 'FILE…'" in refused.stderr


def test_the_service_does_not_load_what_only_authors_need() -> None:
    code = "import sys, bridged.cli.main, bridged.daemon; sys.exit('libcst' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
