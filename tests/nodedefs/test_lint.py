"""What counts as an old form, where it is said to stand, and what is only perhaps one."""

from __future__ import annotations

import textwrap

import pytest

from bridged.errors import BadInput
from bridged.nodedefs.lint import Finding, lint
from bridged.nodedefs.pysource import parse

NODE = """
import folder_paths
from utils import SOMETHING

MODES = ["a", "b"]


class Node:
    @classmethod
    def INPUT_TYPES(s):
        return {"required": {%s}, "hidden": {"prompt": (["not", "an input"],)}}

    RETURN_TYPES = ("IMAGE",)
    RETURNS = ({"type": "IMAGE", "name": "IMAGE", "is_list": False},)
"""


def the_input(entry: str) -> list[Finding]:
    return lint(NODE % entry)


def outputs(body: str) -> Finding | None:
    found = lint("class Node:\n" + textwrap.indent(textwrap.dedent(body).strip(), "    ") + "\n")
    return found[0] if found else None


@pytest.mark.parametrize(
    ("entry", "kind", "what", "instead"),
    [
        ('"m": (["a"],)', "combos", "\"m\": ['a']", '("COMBO", {"options": [\'a\'], …})'),
        ('"m": [["a"], {"default": "a"}]', "combos", "\"m\": ['a']", '("COMBO", {"options": [\'a\'], …})'),
        ('"m": (MODES,)', "combos", '"m": MODES', '("COMBO", {"options": MODES, …})'),
        (
            '"m": (folder_paths.get_filename_list("loras"),)',
            "files",
            "\"m\": folder_paths.get_filename_list('loras')",
            '("COMBO", {"type": "remote", "route": "/internal/files/loras", "response_key": "files", …})',
        ),
    ],
)
def test_old_choices_and_what_they_become(entry: str, kind: str, what: str, instead: str) -> None:
    (found,) = the_input(entry)
    assert (found.node, found.kind, found.what, found.instead, found.by_hand) == ("Node", kind, what, instead, "")
    assert (found.line, found.column) == (11, 30)


@pytest.mark.parametrize(
    "entry",
    ['"m": ("COMBO", {"options": ["a"]})', '"m": ("IMAGE",)', '"m": ("INT", {"default": 1})', '"m": ()', ""],
)
def test_new_and_other_inputs_are_no_finding(entry: str) -> None:
    assert the_input(entry) == []


def test_what_comes_from_elsewhere_is_perhaps_a_choice() -> None:
    (found,) = the_input('"m": (SOMETHING, {})')
    assert not found.certain
    assert found.by_hand == "its type or choices come from elsewhere"
    assert found.instead == ""


def test_columns_count_characters_and_not_bytes() -> None:
    assert the_input('"ä": ("IMAGE",), "m": (["a"],)')[0].column == 47


def test_outputs_are_said_with_the_first_of_the_new_ones() -> None:
    found = outputs('RETURN_TYPES = ("IMAGE", "MASK")\nRETURN_NAMES = ("a", "b")')
    assert found
    assert (found.line, found.column, found.what) == (1, 1, "RETURN_TYPES, RETURN_NAMES")
    assert found.instead == 'RETURNS = ({"type": \'IMAGE\', "name": \'a\', "is_list": False}, …)'


def test_returns_beside_old_attributes_that_agree_is_no_finding() -> None:
    agreeing = 'RETURN_TYPES = ("A",)\nRETURNS = ({"type": "A", "name": "A", "is_list": False, "optional": True},)'
    assert outputs(agreeing) is None
    assert outputs('RETURN_TYPES = ("A",)\nRETURNS = ({"type": "A"},)') is None


def test_returns_that_says_something_else_is_one() -> None:
    found = outputs('RETURN_TYPES = ("A",)\nRETURNS = ({"type": "B", "name": "A"},)')
    assert found
    assert found.by_hand == "RETURNS says something else than the old attributes"


def test_only_what_knows_the_name_of_a_class_counts_as_a_use_elsewhere() -> None:
    other = parse(
        "from nodes import Node\nNode.INPUT_TYPES()\nfoo().RETURN_TYPES\nclass B(Node):\n    RETURN_NAMES = ()\n"
    )
    there = other.elsewhere()
    assert {(use.owner, use.attribute, use.write) for use in there.uses} == {("Node", "INPUT_TYPES", False)}
    assert there.derived == {"Node"}


@pytest.mark.parametrize("text", ["def (", "x = '\n", "\0", "(" * 1000, "if x:\n\ty\n        z\n"])
def test_what_is_no_python_is_one_line(text: str) -> None:
    with pytest.raises(BadInput, match=r"^line \d+: .+$"):
        lint(text)
