"""The examples of both forms of a definition that the bridge and the front end's module are tested with.

`python -m tests.comfy_patch.forms_examples` writes them anew; the expectations are what `bridged.nodedefs.forms` says.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from bridged.nodedefs.brief import brief, whole
from bridged.nodedefs.combos import read_combo
from bridged.nodedefs.forms import is_v2, to_v1, to_v2
from tests.nodedefs.samples import recorded

FILE = Path(__file__).parent.parent / "data" / "patch" / "forms.json"

RECORDED = ("SaveImage", "EmptyLatentImage", "VAELoader", "ImageCompositeMasked", "RebatchLatents", "GetImageSize")
"""small classes of a real ComfyUI, of its older and its newer schema"""

NAME = "SaveImage"
"""what every example is called for `brief` and `whole`"""

_LISTS: dict[str, Any] = {"output_is_list": [False], "output_name": ["model"]}
_TWO = {"a": ["INT"], "b": ["INT"]}
_V2_OUTPUT = {"type": "MODEL", "name": "model", "is_list": False, "tooltip": "The loaded model"}

INVENTED: tuple[Any, ...] = (
    {},
    {"output": []},
    {"output": [], "output_is_list": [], "output_name": []},
    # As the RFC writes them: both forms of one class.
    {"input": {"required": {"a": [["x", "y"], {"default": "x"}]}}, "output": ["MODEL"], **_LISTS},
    {"input": {"required": {"a": ["COMBO", {"options": ["x", "y"], "default": "x"}]}}, "output": [_V2_OUTPUT]},
    # A list combo whose settings hide V2's own keys; empty settings; three parts; no combo at all.
    {
        "input": {
            "required": {"a": [["x"], {"options": ["z"], "type": "remote"}], "b": [["x"], {}], "c": [["x"], {}, 1]},
            "optional": {"d": ["INT", {"min": 0}], "e": "STRING", "f": []},
        },
        "output": ["MODEL"],
        **_LISTS,
    },
    # The order of inputs: as the keys say, another one, and one that JavaScript's objects cannot have.
    {"input": {"required": _TWO}, "input_order": {"required": ["a", "b"]}, "output": ["A"], **_LISTS},
    {"input": {"required": _TWO}, "input_order": {"required": ["b", "a"]}, "output": ["A"], **_LISTS},
    {"input": {"required": {"1": ["INT"]}}, "input_order": {"required": ["1"]}, "output": ["A"], **_LISTS},
    {"input": {"required": {"a": ["INT"]}}, "output": [_V2_OUTPUT], "input_order": {}},
    # What goes without saying.
    {"input": {}, "output": [], "name": NAME, "display_name": NAME, "description": "", "category": "c"},
    {"input": {}, "output": [], "name": NAME, "display_name": "Save", "description": "It saves."},
    {"description": "", "display_name": NAME, "name": NAME, "output": [], "input": {}},
    # Remote combos of both kinds stay what they are.
    {
        "input": {
            "required": {
                "a": ["COMBO", {"type": "remote", "route": "/internal/files/vae", "response_key": "files"}],
                "b": ["COMBO", {"remote": {"route": "/internal/files/output", "refresh_button": True}}],
            }
        },
        "output": [_V2_OUTPUT],
    },
    # Outputs: a combo's choices, lists of other lengths, strange values, the RFC's name of the tooltips.
    {"output": [["x", "y"]], "output_is_list": [False], "output_name": ["choice"]},
    {"output": ["A"], "output_is_list": [False, True], "output_name": ["A", "B"], "output_tooltips": [None, "b"]},
    {"output": ["A", 5], "output_is_list": [0, 1], "output_name": "A"},
    {"output": ["A"], "output_is_list": [False], "output_name": ["A"], "output_tooltip": ["t"], "output_node": True},
    {"output": ["A"], "output_optional": [True], "output_name": ["A"], "output_is_list": [False]},
    {"output": [{"type": "A"}], "output_name": ["A"]},
    {"output": {"0": "A"}, "output_name": []},
    {"output": [{"type": ["x", "y"], "name": "n"}]},
    {"output": [{"type": "A", "optional": True}, {"type": "B", "tooltip": None}]},
    # What the node itself has under our key, and residues that are none.
    {"output": ["A"], "output_is_list": [False], "output_name": ["A"], "v1": {"combos": "list"}},
    {"output": [{"type": "A"}], "v1": {"combos": "explicit"}, "input": {"required": {"a": [["x"]]}}},
    {"output": [{"type": "A"}], "v1": {"combos": "none"}},
    {"output": "strange", "v1": {"kept": True, "order": ["v1", "output"]}},
    {"name": "a", "output": ["A"], "display_name": "A", "output_name": ["A"], "output_is_list": [False]},
    {
        "input": {"required": {"a": ["COMBO", {"options": [1, 2]}], "b": ["COMBO", {"options": []}]}},
        "output": [],
        "output_is_list": [],
        "output_name": [],
    },
    {
        "input": {"required": {"a": [["x"]], "b": ["COMBO", {"options": ["y"]}]}},
        "output": ["A"],
        "output_is_list": [False],
        "output_name": ["A"],
        "output_tooltips": [None],
        "deprecated": False,
        "experimental": False,
        "api_node": False,
    },
    {"input": {"required": ["a"], "optional": None, "hidden": {"__proto__": [["x"]]}}, "output": None},
)

COMBOS: tuple[Any, ...] = (
    [["x", "y"], {"default": "x"}],
    [["x"]],
    [[]],
    ["COMBO"],
    ["COMBO", {"options": ["x"], "tooltip": "t"}],
    ["COMBO", {"options": "x"}],
    ["COMBO", {"type": "remote", "route": "/a", "refresh": 1500.9, "query_params": {"first": ["None"]}, "default": 1}],
    ["COMBO", {"type": "remote", "route": "/a", "refresh": True, "cache_key": 5, "invalidation_signal": "files.a"}],
    ["COMBO", {"type": "remote", "route": 5}],
    ["COMBO", {"remote": {"route": "/a", "refresh_button": True, "refresh": -1, "query_params": []}}],
    ["COMBO", {"remote": {"refresh": 1}, "options": ["x"]}],
    ["INT", {"min": 0}],
    [],
    "COMBO",
    None,
)


def current() -> str:
    """The file's text as it should be."""
    definitions = [recorded()[name] for name in RECORDED] + list(INVENTED)
    examples = [
        {
            "definition": each,
            "is_v2": is_v2(each),
            "v2": to_v2(each),
            "v1": to_v1(each),
            "brief": brief(to_v2(each), NAME),
            "whole": whole(each, NAME),
        }
        for each in definitions
    ]
    combos = [{"spec": spec, "combo": msgspec.to_builtins(read_combo(spec))} for spec in COMBOS]
    lines = [",\n".join(json.dumps(each) for each in part) for part in (examples, combos)]
    return f'{{"name": "{NAME}",\n"definitions": [\n{lines[0]}\n],\n"combos": [\n{lines[1]}\n]}}\n'


if __name__ == "__main__":
    FILE.write_text(current(), encoding="utf-8")
