"""What a migration writes, what it leaves alone and why; and that what it writes means the same when it is run."""

from __future__ import annotations

import tokenize
from collections import Counter
from collections.abc import Iterator
from io import StringIO
from textwrap import dedent, indent

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridged.errors import BadInput
from bridged.nodedefs.lint import KINDS, Kind
from bridged.nodedefs.migrate import migrate
from bridged.nodedefs.pysource import parse
from tests.nodedefs.nodesource import definitions

HEAD = """\
import folder_paths
import folder_paths as fp
from folder_paths import get_filename_list as names
from comfy.comfy_types import IO

MODES = ["a", "b"]
KIND = "IMAGE"
class AnyType(str):
    def __ne__(self, other): return False
any_type = AnyType("*")

"""

OUTPUTS = {
    "one": ('RETURN_TYPES = ("A",)', '{"type": "A", "name": "A", "is_list": False},'),
    "a list": ('RETURN_TYPES = ["A"]', '{"type": "A", "name": "A", "is_list": False},'),
    "no brackets": ('RETURN_TYPES = "A",', '{"type": "A", "name": "A", "is_list": False},'),
    "annotated": ('RETURN_TYPES: tuple = ("A",)', '{"type": "A", "name": "A", "is_list": False},'),
    "all four": (
        'RETURN_TYPES = ("A", "B")\nRETURN_NAMES = ("a", "b")\n'
        'OUTPUT_IS_LIST = (False, True)\nOUTPUT_TOOLTIPS = ("x", None)',
        '{"type": "A", "name": "a", "is_list": False, "tooltip": "x"},\n{"type": "B", "name": "b", "is_list": True},',
    ),
    "names of strings": (
        "RETURN_TYPES = (KIND, IO.IMAGE, any_type)",
        '{"type": KIND, "name": KIND, "is_list": False},\n'
        '{"type": IO.IMAGE, "name": IO.IMAGE, "is_list": False},\n'
        '{"type": any_type, "name": any_type, "is_list": False},',
    ),
    "a name that is bound between them": (
        'RETURN_TYPES = ("A",)\nNAME = "n"\nRETURN_NAMES = (NAME,)',
        '{"type": "A", "name": NAME, "is_list": False},',
    ),
}

INPUTS = {
    '(["a", "b"],)': '("COMBO", {"options": ["a", "b"]})',
    '(["a", "b"], )': '("COMBO", {"options": ["a", "b"]})',
    '[["a"]]': '["COMBO", {"options": ["a"]}]',
    '(["a"], {})': '("COMBO", {"options": ["a"]})',
    "([], {})": '("COMBO", {"options": []})',
    "(['a', 1, True], {'default': 1})": "(\"COMBO\", {\"options\": ['a', 1, True], 'default': 1})",
    '((["a"]), {"tooltip": "t",})': '("COMBO", {"options": (["a"]), "tooltip": "t",})',
    "(MODES, {})": '("COMBO", {"options": MODES})',
    "(s.sizes,)": '("COMBO", {"options": s.sizes})',
    "([str(n) for n in range(3)],)": '("COMBO", {"options": [str(n) for n in range(3)]})',
    '(["None"] + fp.get_filename_list("loras"),)': '("COMBO", {"options": ["None"] + fp.get_filename_list("loras")})',
    "(sorted(MODES),)": '("COMBO", {"options": sorted(MODES)})',
    '(folder_paths.get_filename_list("loras"),)': (
        '("COMBO", {"type": "remote", "route": "/internal/files/loras", "response_key": "files"})'
    ),
    '(fp.get_filename_list("loras"), {"default": "l1.safetensors"})': (
        '("COMBO", {"type": "remote", "route": "/internal/files/loras", "response_key": "files",'
        ' "default": "l1.safetensors"})'
    ),
    '(names("clip"),)': (
        '("COMBO", {"type": "remote", "route": "/internal/files/text_encoders", "response_key": "files"})'
    ),
    "(local,)": '("COMBO", {"type": "remote", "route": "/internal/files/loras", "response_key": "files"})',
}

LEFT_INPUTS = {
    '(("a", "b"),)': "its choices are a tuple, not a list",
    "(MODES, dict(default=1))": "its settings are computed",
    '(MODES, {**{"default": 1}})': "some of its settings' names are computed",
    '(MODES, {"type": "x"})': "its settings have 'type', which means something else in the new form",
    '(MODES, {"remote": {}})': "its settings have 'remote', which means something else in the new form",
    '(MODES, {}, "more")': "it has more than choices and settings",
    "(*MODES,)": "the input is computed",
    "spec()": "the input is computed",
    "(TWICE,)": "its type or choices come from elsewhere",
    "(spec(),)": "its type or choices come from elsewhere",
    "(OUT,)": "an output in this file has this list as its type; a link from it would be refused",
    "(KSampler.SAMPLERS,)": "nodes of many packs give out this list as a type; a link from them would be refused",
}


def outputs(body: str) -> str:
    return f"{HEAD}class Node:\n{indent(body, '    ')}\n    FUNCTION = 'f'\n"


def inputs(spec: str) -> str:
    return (
        HEAD
        + dedent("""\
        class Node:
            sizes = [1, 2]
            RETURN_TYPES = ()
            @classmethod
            def INPUT_TYPES(s):
                local = names("loras")
                return {"required": {"x": ("INT",), "y": %s}, "hidden": {"z": "PROMPT"}}
        """)
        % spec
    )


def new(text: str, drop_old: bool = False) -> str:
    """The migrated text; migrating it once more does nothing."""
    done = migrate(text, drop_old=drop_old)
    again = migrate(done.text, drop_old=drop_old)
    assert again.text == done.text
    assert not again.done
    return done.text


def reason(text: str, kinds: frozenset[Kind] = frozenset(KINDS), drop_old: bool = False) -> str:
    """Why it is left alone, as it must be to the letter."""
    done = migrate(text, kinds, drop_old=drop_old)
    assert done.text == text
    assert len(done.left) == 1
    return done.left[0].by_hand


def comments(text: str) -> list[str]:
    return [t.string for t in tokenize.generate_tokens(StringIO(text).readline) if t.type == tokenize.COMMENT]


@pytest.mark.parametrize("case", OUTPUTS)
def test_outputs_get_a_returns_beside_them(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old, rows = OUTPUTS[case]
    text = outputs(old)
    kept = new(text)
    assert kept == outputs(f"{old}\nRETURNS = (\n{indent(rows, '    ')}\n)")
    assert definitions(kept, monkeypatch) == definitions(text, monkeypatch)


@pytest.mark.parametrize("case", OUTPUTS)
def test_or_in_their_place(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old, rows = OUTPUTS[case]
    text = outputs(old)
    others = "".join(line + "\n" for line in old.split("\n") if not line.startswith(("RETURN_", "OUTPUT_")))
    dropped = new(text, drop_old=True)
    assert dropped == outputs(f"{others}RETURNS = (\n{indent(rows, '    ')}\n)")
    assert definitions(dropped, monkeypatch) == definitions(text, monkeypatch)
    assert new(new(text), drop_old=True) == dropped, "in two steps, it is the same"


def test_a_node_without_outputs() -> None:
    assert new(outputs("RETURN_TYPES = ()"), drop_old=True) == outputs("RETURNS = ()")


@pytest.mark.parametrize("spec", INPUTS)
def test_choices_become_explicit(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = inputs(spec).replace("RETURN_TYPES = ()", "RETURN_TYPES = ()\n    RETURNS = ()")
    assert new(text) == text.replace(spec, INPUTS[spec])
    assert definitions(new(text), monkeypatch) == definitions(text, monkeypatch)


@pytest.mark.parametrize("spec", LEFT_INPUTS)
def test_what_is_not_certain_stays(spec: str) -> None:
    more = "from comfy.samplers import KSampler\nTWICE = []\nTWICE = {}\nOUT = ['o']\n"
    more += "class Gives:\n    RETURN_TYPES = (OUT,)\n"
    found = migrate(more + inputs(spec), frozenset({"combos", "files"}))
    assert [left.by_hand for left in found.left] == [LEFT_INPUTS[spec]]
    assert found.text == more + inputs(spec)


@pytest.mark.parametrize(
    ("before", "why"),
    [
        ("folder_paths = other\n", "its type or choices come from elsewhere"),
        ("from x import *\n", "its type or choices come from elsewhere"),
        ("def f():\n    global folder_paths\n", "its type or choices come from elsewhere"),
        ("folder_paths.get_filename_list = f\n", "this file replaces folder_paths.get_filename_list"),
    ],
)
def test_a_folder_paths_that_may_be_another(before: str, why: str) -> None:
    text = "import folder_paths\n" + before + inputs('(folder_paths.get_filename_list("loras"),)').removeprefix(HEAD)
    assert reason(text, frozenset({"files", "combos"})) == why


@pytest.mark.parametrize(
    "change", ['local.insert(0, "None")', "first = local[0]", 'local = ["None"]', "for local in MODES: pass"]
)
def test_a_local_list_of_files_that_may_be_changed_is_not_fetched_remotely(change: str) -> None:
    text = inputs("(local,)").replace('return {"', f'{change}\n        return {{"')
    found = migrate(text)
    assert "remote" not in found.text
    assert "get_filename_list" in found.text


@pytest.mark.parametrize(
    ("function", "why"),
    [
        ("    return make()", "what INPUT_TYPES returns is computed"),
        (
            "    d = {'required': {'x': (['a'],)}}\n    d['optional'] = {}\n    return d",
            "what INPUT_TYPES returns is computed",
        ),
        ("    return {'required': make()}", "the inputs of 'required' are computed"),
        ("    return {'required': {**make()}}", "inputs come from elsewhere by **"),
        ("    return {**make()}", "a section of INPUT_TYPES is computed"),
        ("    return {'required': {make(): (['a'],)}}", "an input's name is computed"),
    ],
)
def test_inputs_that_are_out_of_sight_are_said(function: str, why: str) -> None:
    text = f"class Node:\n    @classmethod\n    def INPUT_TYPES(s):\n{indent(function, '    ')}\n"
    found = migrate(text)
    assert found.text == text
    assert [(left.by_hand, left.certain) for left in found.left] == [(why, False)]


@pytest.mark.parametrize(
    "use",
    [
        "print(Node.INPUT_TYPES())",
        "class B(Node):\n    def f(self): super().INPUT_TYPES()",
        "x.INPUT_TYPES()",
        "getattr(Node, 'INPUT_TYPES')",
    ],
)
def test_inputs_that_other_code_reads_stay(use: str) -> None:
    found = migrate(inputs('(["a"],)') + use + "\n", frozenset({"combos"}))
    assert not found.done
    assert "INPUT_TYPES" in found.left[0].by_hand


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ('RETURN_TYPES = ("IMAGE")', "RETURN_TYPES is a string, not a tuple: a comma is missing"),
        ('RETURN_TYPES = ("A",) * 2', "RETURN_TYPES is computed"),
        ('RETURN_TYPES = ("A", *MODES)', "RETURN_TYPES has a * in it"),
        ("RETURN_TYPES = (UNKNOWN,)", "RETURN_TYPES has UNKNOWN, which is not seen here to be a string"),
        ("RETURN_TYPES = (MODES,)", "an output's type is a list of choices: MODES"),
        ('RETURN_TYPES = (["a"],)', "an output's type is a list of choices: ['a']"),
        ('RETURN_TYPES = ("A",)\nRETURN_NAMES = ("a", "b")', "RETURN_NAMES has 2 entries for 1 outputs"),
        ('RETURN_TYPES = ("A",)\nOUTPUT_TOOLTIPS = ("a", "b")', "OUTPUT_TOOLTIPS has 2 entries for 1 outputs"),
        ('RETURN_TYPES = ("A",)\nRETURN_NAMES = RETURN_TYPES', "RETURN_NAMES is computed"),
        ('RETURN_TYPES = ("A",)\nOUTPUT_IS_LIST = (1,)', "OUTPUT_IS_LIST has 1, which is neither True nor False"),
        ('RETURN_NAMES = ("a",)', "RETURN_NAMES without RETURN_TYPES"),
        ('RETURN_TYPES = ("A",)\nRETURN_TYPES = ("B",)', "RETURN_TYPES is assigned more than once"),
        ('if MODES:\n    RETURN_TYPES = ("A",)', "RETURN_TYPES is assigned in a branch, or together with another name"),
        ('RETURN_TYPES = X = ("A",)', "RETURN_TYPES is assigned together with another name"),
        ('RETURN_TYPES, X = ("A",), 1', "RETURN_TYPES is assigned in a branch, or together with another name"),
        ('RETURN_TYPES = ("A",); X = 1', "RETURN_TYPES shares its line with another statement"),
        ('RETURN_TYPES = ("A",)\nRETURNS = make()', "RETURNS is there, but computed"),
        ("KIND = make()\nRETURN_TYPES = (KIND,)", "RETURN_TYPES has KIND, which is not seen here to be a string"),
        ('RETURN_TYPES = ("A",)\ndef f(self):\n    self.RETURN_TYPES = ()', "RETURN_TYPES is set in line 15"),
    ],
)
def test_outputs_that_are_not_certain_stay(body: str, why: str) -> None:
    assert reason(outputs(body)) == why


@pytest.mark.parametrize(
    ("after", "why"),
    [
        ("Node.RETURN_TYPES = ()", "RETURN_TYPES is set in line 3"),
        ("setattr(Node, 'RETURN_NAMES', ())", "RETURN_NAMES is set in line 3"),
        ("make().OUTPUT_IS_LIST = ()", "OUTPUT_IS_LIST of a class that cannot be told is set in line 3"),
    ],
)
def test_outputs_that_are_set_from_outside_stay(after: str, why: str) -> None:
    assert reason(f"class Node:\n    RETURN_TYPES = ('A',)\n{after}\n") == why


@pytest.mark.parametrize(
    "after",
    [
        "print(Node.RETURN_TYPES)",
        "getattr(make(), 'RETURN_TYPES')",
        "class B(Node):\n    def f(self): return super().RETURN_TYPES",
        "class B(Node):\n    def f(cls): return cls.RETURN_TYPES",
        "vars(Node)['RETURN_TYPES']",
    ],
)
def test_attributes_that_are_read_can_get_a_returns_beside_them_but_not_go(after: str) -> None:
    text = f"class Node:\n    RETURN_TYPES = ('A',)\n{after}\n"
    assert "RETURNS" in new(text)
    assert reason(text, drop_old=True).endswith("so the old attributes have to stay")


@pytest.mark.parametrize(
    "head", ["class Node(Elsewhere):", "class Node(metaclass=M):", "@change\nclass Node:", "class Node(make()):"]
)
def test_a_class_that_something_unseen_makes_stays(head: str) -> None:
    assert reason(f"{head}\n    RETURN_TYPES = ('A',)\n")


def test_a_class_with_all_four_depends_on_no_base() -> None:
    all_four = 'RETURN_TYPES = ("A",)\nRETURN_NAMES = ("a",)\nOUTPUT_IS_LIST = (False,)\nOUTPUT_TOOLTIPS = ("t",)'
    assert "RETURNS" in new(f"class Node(Elsewhere):\n{indent(all_four, '    ')}\n")


def test_families_go_together_or_not_at_all() -> None:
    base = "class A:\n    RETURN_TYPES = ('A',)\n    RETURN_NAMES = ('a',)\n"
    whole = base + "class B(A):\n    RETURN_TYPES = ('B',)\n    RETURN_NAMES = ('b',)\nclass C(B): pass\n"
    assert new(whole).count("RETURNS") == 2
    partly = base + "class B(A):\n    RETURN_TYPES = ('B',)\n"
    found = migrate(partly)
    assert found.text == partly
    assert [left.by_hand for left in found.left] == [
        "its relative B is left alone",
        "it takes RETURN_NAMES from its base class A",
    ]


def test_other_files_count_too() -> None:
    text = inputs('(["a"],)')
    reads = parse("from .pack import Node as Theirs\nTheirs.INPUT_TYPES()\nTheirs.RETURN_TYPES\n").elsewhere()
    assert not migrate(text, frozenset({"combos"}), elsewhere=reads).done
    assert migrate(text, frozenset({"outputs"}), elsewhere=reads).done
    assert not migrate(text, frozenset({"outputs"}), elsewhere=reads, drop_old=True).done
    derived = parse("from .pack import Node\nclass B(Node):\n    RETURN_NAMES = ()\n").elsewhere()
    assert migrate(text, frozenset({"outputs"}), elsewhere=derived).left[0].by_hand == (
        "a class in another file derives from it and sets outputs of its own"
    )


def test_only_what_was_asked_for() -> None:
    text = inputs('(["a"],), "z": (names("loras"),)')
    assert [finding.kind for finding in migrate(text, frozenset({"combos"})).not_asked] == ["outputs", "files"]
    assert "RETURNS" not in migrate(text, frozenset({"combos"})).text
    assert 'names("loras"),)' in migrate(text, frozenset({"combos", "outputs"})).text


def test_comments_and_formatting_survive(monkeypatch: pytest.MonkeyPatch) -> None:
    text = dedent("""\
        import folder_paths

        class Node:
        \t\"\"\"doc\"\"\"

        \t# above the types
        \tRETURN_TYPES = ( # opening
        \t\t"A",  # one
        \t\t# about two
        \t\t'B' # two
        \t\t,
        \t\t# end
        \t)  # behind
        \t# above the names
        \tRETURN_NAMES = ["a", # name one
        \t    "b"]

        \tFUNCTION   =   'f' # function
        \t@classmethod
        \tdef INPUT_TYPES( s ):
        \t\treturn {"required": { # inputs
        \t\t\t"x": (["a", # choice a
        \t\t\t\t"b"], # choices
        \t\t\t\t),
        \t\t\t"y": (folder_paths.get_filename_list("loras"), # files
        \t\t\t\t{
        \t\t\t\t\t# default
        \t\t\t\t\t'default' : "l1.safetensors", # settings
        \t\t\t\t}),
        \t\t}}
        """)
    after = new(text, drop_old=True)
    assert sorted(comments(after)) == sorted(comments(text))
    assert definitions(after, monkeypatch) == definitions(text, monkeypatch)
    assert after.splitlines()[5:17] == [
        "\t# above the types",
        "\t# behind",
        "\t# above the names",
        "\tRETURNS = (",
        "\t\t# opening",
        "\t\t# one",
        "\t\t# name one",
        '\t\t{"type": "A", "name": "a", "is_list": False},',
        "\t\t# about two",
        "\t\t# two",
        '\t\t{"type": \'B\', "name": "b", "is_list": False},',
        "\t\t# end",
    ]
    assert "\tFUNCTION   =   'f' # function\n\t@classmethod\n\tdef INPUT_TYPES( s ):\n" in after


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("end", ["", "\n", "\n\n    \n", "\n  ", "  "])
def test_line_ends_and_the_end_of_the_file_stay(newline: str, end: str) -> None:
    text = ("class A:\n    RETURN_TYPES = ('A',)\n    X = 1" + end).replace("\n", newline)
    after = new(text)
    assert after.endswith(("    X = 1" + end).replace("\n", newline))
    assert after.count("\n") == after.count(newline)


@pytest.mark.parametrize("text", ["class A:\n  RETURN_TYPES = (\n", "x = '", "\0"])
def test_what_is_no_python_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(BadInput, match=r"^line \d+: "):
        migrate(text)


SPACE = st.sampled_from(["", " ", "\n", "  # note\n", "\n\n        # own line\n        "])


@st.composite
def sources(draw: st.DrawFn) -> str:
    """A node with comments and blanks wherever brackets allow them."""
    notes: Iterator[int] = iter(range(100))

    def space() -> str:
        return draw(SPACE).replace("note", f"note {next(notes)}").replace("own line", f"own line {next(notes)}")

    def column(values: list[str]) -> str:
        inside = "".join(f"{space()}{value}{space()},{space()}" for value in values)
        return f"({inside})" if draw(st.booleans()) else f"[{inside}]"

    count = draw(st.integers(0, 3))
    body = [f"RETURN_TYPES = {column([repr(f'T{n}') for n in range(count)])}"]
    if draw(st.booleans()):
        body.append(f"RETURN_NAMES = {column([repr(f'n{n}') for n in range(count)])}")
    if draw(st.booleans()):
        body.append(f"OUTPUT_IS_LIST = {column([str(draw(st.booleans())) for _ in range(count)])}")
    body.append("FUNCTION = 'f'")
    lines = "".join(
        f"    {line}{draw(st.sampled_from(['', '  # behind', chr(10)]))}\n" for line in draw(st.permutations(body))
    )
    choices = draw(st.sampled_from(["['a', 'b']", "MODES", "folder_paths.get_filename_list('loras')"]))
    given_settings = (
        f"{space()}{{{space()}'default':{space()}'a'{space()},{space()}}}{space()}" if draw(st.booleans()) else ""
    )
    spec = f"({space()}{choices}{space()},{given_settings}{space()})"
    function = (
        f"    @classmethod\n    def INPUT_TYPES(s):\n        return {{'required': {{{space()}'m': {spec}{space()}}}}}\n"
    )
    return f"import folder_paths\nMODES = ['a']\nclass Node:\n{lines}{function}"


@given(text=sources(), drop_old=st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_formatting_survives(text: str, drop_old: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    after = new(text, drop_old=drop_old)
    assert "COMBO" in after
    assert "RETURNS" in after
    assert Counter(comments(after)) == Counter(comments(text))
    assert definitions(after, monkeypatch) == definitions(text, monkeypatch)
