"""Sources of nodes, run for real: what a stock ComfyUI and one that knows the new forms make of their classes."""

from __future__ import annotations

import json
import sys
import types
from typing import Any

import pytest

from bridged.nodedefs.forms import to_v2

FILES = {"loras": ["l1.safetensors", "l2.safetensors"], "text_encoders": ["t.safetensors"], "unet": ["u.gguf"]}
FILES["clip"], FILES["diffusion_models"] = FILES["text_encoders"], FILES["unet"]


def definitions(text: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The V2 definitions of all classes of a source that have inputs or outputs, file lists loaded."""
    stub = types.ModuleType("folder_paths")
    stub.get_filename_list = lambda folder: list(FILES[folder])  # type: ignore[attr-defined]
    types_stub = types.ModuleType("comfy.comfy_types")
    types_stub.IO = types.SimpleNamespace(IMAGE="IMAGE", ANY="*")  # type: ignore[attr-defined]
    for name, module in {
        "folder_paths": stub,
        "comfy": types.ModuleType("comfy"),
        "comfy.comfy_types": types_stub,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    space: dict[str, Any] = {"__name__": "pack"}
    exec(compile(text, "pack.py", "exec"), space)
    classes = [value for value in space.values() if isinstance(value, type)]
    return {c.__name__: _definition(c) for c in classes if hasattr(c, "RETURN_TYPES") or hasattr(c, "RETURNS")}


def _definition(owner: Any) -> Any:
    """As node_info of ComfyUI's server.py (0.3.64) has it; of RETURNS, where the class has that."""
    inputs = owner.INPUT_TYPES() if hasattr(owner, "INPUT_TYPES") else {}
    definition = json.loads(json.dumps({"input": inputs}))
    for name, spec in [pair for section in definition["input"].values() for pair in section.items()]:
        if len(spec) == 2 and isinstance(spec[1], dict) and spec[1].get("type") == "remote":
            folder = spec[1].pop("route").removeprefix("/internal/files/")
            assert (spec[1].pop("type"), spec[1].pop("response_key")) == ("remote", "files"), name
            spec[1]["options"] = FILES[folder]
    if hasattr(owner, "RETURNS"):
        definition["output"] = [dict(output) for output in owner.RETURNS]
    else:
        kinds = list(owner.RETURN_TYPES)
        definition["output"] = kinds
        definition["output_is_list"] = list(getattr(owner, "OUTPUT_IS_LIST", [False] * len(kinds)))
        definition["output_name"] = list(getattr(owner, "RETURN_NAMES", kinds))
        if hasattr(owner, "OUTPUT_TOOLTIPS"):
            definition["output_tooltips"] = list(owner.OUTPUT_TOOLTIPS)
    same = to_v2(json.loads(json.dumps(definition)))
    same.pop("v1", None)  # in which of the old forms it stood
    return same
