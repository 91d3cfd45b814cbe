"""What an expression in a node's source is bound to be: a string, a list of choices, the files of a model folder."""

from __future__ import annotations

import ast
import re
from typing import Literal

from bridged.nodedefs.pysource import Binding, Frame, Frames, NodeClass, dotted, find, scope

Kind = Literal["string", "list", ""]

FILE_LIST = "folder_paths.get_filename_list"
SHARED_LISTS = frozenset(
    f"comfy.samplers.{name}"
    for name in ("KSampler.SAMPLERS", "KSampler.SCHEDULERS", "SAMPLER_NAMES", "SCHEDULER_NAMES", "KSAMPLER_NAMES")
)
"""ComfyUI's own lists (0.3.64, comfy/samplers.py), which nodes of many packs give out as the type of an output"""
_TYPE_NAMES = re.compile(r"comfy\.comfy_types\.(node_typing\.)?IO\.[A-Z0-9_]+")
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_RENAMED = {"unet": "diffusion_models", "clip": "text_encoders"}
"""folder_paths.map_legacy of ComfyUI 0.3.64"""
_DEPTH = 8


def kind_of(expression: ast.AST | None, frames: Frames, own: NodeClass | None = None, depth: int = _DEPTH) -> Kind:
    """ "" where it is neither for certain. `own`: the class of which the function's first parameter is an object."""
    if depth == 0:
        return ""
    match expression:
        case ast.Constant(value=str()) | ast.JoinedStr():
            return "string"
        case ast.List() | ast.ListComp():
            return "list"
        case ast.BinOp(op=ast.Add()):
            left = kind_of(expression.left, frames, own, depth - 1)
            return left if left == kind_of(expression.right, frames, own, depth - 1) else ""
        case ast.IfExp():
            one = kind_of(expression.body, frames, own, depth - 1)
            return one if one == kind_of(expression.orelse, frames, own, depth - 1) else ""
        case ast.Call():
            return _of_call(expression, frames, depth)
        case ast.Name():
            binding, seen = find(expression.id, frames)
            return kind_of(binding.node, seen, None, depth - 1) if binding.how == "value" else ""
        case ast.Attribute():
            return _of_attribute(expression, frames, own, depth)
    return ""


def _of_call(call: ast.Call, frames: Frames, depth: int) -> Kind:
    if dotted(call.func, frames) == FILE_LIST:
        return "list"
    if not isinstance(call.func, ast.Name):
        return ""
    binding, seen = find(call.func.id, frames)
    if binding.how == "builtin":
        return "list" if binding.text in {"list", "sorted"} else "string" if binding.text == "str" else ""
    return "string" if _is_string_class(binding, seen, depth) else ""


def _is_string_class(binding: Binding, frames: Frames, depth: int) -> bool:
    """A subclass of str, as `class AnyType(str)`: its objects go into JSON as strings."""
    if binding.how != "class" or not isinstance(binding.node, ast.ClassDef) or depth == 0:
        return False
    node = binding.node
    if node.keywords or node.decorator_list or "__new__" in scope(node.body).names:
        return False
    for base in node.bases[:1]:
        if isinstance(base, ast.Name):
            found, seen = find(base.id, frames)
            return (found.how == "builtin" and base.id == "str") or _is_string_class(found, seen, depth - 1)
    return False


def _of_attribute(attribute: ast.Attribute, frames: Frames, own: NodeClass | None, depth: int) -> Kind:
    if _TYPE_NAMES.fullmatch(dotted(attribute, frames)):
        return "string"
    if is_shared_list(attribute, frames):
        return "list"
    if own and isinstance(attribute.value, ast.Name):
        binding, _ = find(attribute.value.id, frames)
        values = own.body.names.get(attribute.attr, [])
        if binding.how == "parameter" and len(values) == 1 and values[0].how == "value":
            return kind_of(values[0].node, (own.body, *own.frames), None, depth - 1)
    return ""


def is_shared_list(expression: ast.expr, frames: Frames) -> bool:
    """One of the lists of ComfyUI that are used as types of outputs, too."""
    return dotted(expression, frames) in SHARED_LISTS


def folder_of(expression: ast.expr, frames: Frames) -> str | None:
    """The model folder that `folder_paths.get_filename_list("loras")` lists, by its present name, or None."""
    match expression:
        case ast.Call(args=[ast.Constant(value=str(folder))], keywords=[]) if (
            dotted(expression.func, frames) == FILE_LIST
        ):
            return _RENAMED.get(folder, folder) if _FOLDER.fullmatch(folder) else None
    return None


def function_frames(function: ast.FunctionDef, owner: NodeClass) -> Frames:
    """The scopes that a method's body sees: not the class's own."""
    own: Frame = scope(function.body, function.args)
    return (own, *owner.frames)
