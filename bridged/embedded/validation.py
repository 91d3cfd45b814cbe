"""Is a prompt runnable? Errors have the types, messages, details and shapes of ComfyUI 0.3.64 (recorded)."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from bridged.embedded.nodes import NODES, Node

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridged.embedded.folders import Folders

Prompt: TypeAlias = dict[str, Any]
Error: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    error: Error | None
    """Why nothing can run, or None."""
    node_errors: dict[str, Any]
    """Per node id; may be non-empty although some outputs can run."""
    outputs: list[str]
    """The output nodes that will run."""


def validate(prompt: Prompt, folders: Folders, targets: list[str] | None = None) -> Verdict:
    """Judge a whole prompt. Number and text inputs that came in another type are converted in place, as
    ComfyUI does.

    `targets` limits the run to those output nodes. Raises TypeError when the prompt is not a mapping of
    mappings.
    """
    outputs = []
    for node_id, node in prompt.items():
        if "class_type" not in node:
            return _refused("Cannot execute because a node is missing the class_type property.", node_id)
        known = NODES.get(node["class_type"])
        if known is None:
            return _refused(f"Cannot execute because node {node['class_type']} does not exist.", node_id)
        if known.is_output and (targets is None or node_id in targets):
            outputs.append(node_id)
    if not outputs:
        return Verdict(_error("prompt_no_outputs", "Prompt has no outputs"), {}, [])

    judge = _Judge(prompt, folders)
    good: list[str] = []
    node_errors: dict[str, Any] = {}
    summary: list[str] = []
    for output in outputs:
        try:
            valid = judge.node(output)
        except Exception as cause:  # anything a malformed graph provokes is that graph's fault
            valid = False
            judge.fail(
                output, [_exception("exception_during_validation", "Exception when validating node", cause)]
            )
        if valid:
            good.append(output)
            continue
        summary += [f"{error['message']}: {error['details']}" for error in judge.errors[output]]
        for node_id, errors in judge.errors.items():
            if errors:
                class_type = prompt[node_id]["class_type"]
                entry = node_errors.setdefault(
                    node_id, {"errors": errors, "dependent_outputs": [], "class_type": class_type}
                )
                entry["dependent_outputs"].append(output)
    if good:
        return Verdict(None, node_errors, good)
    error = _error("prompt_outputs_failed_validation", "Prompt outputs failed validation", "\n".join(summary))
    return Verdict(error, node_errors, [])


@dataclass
class _Judge:
    prompt: Prompt
    folders: Folders
    errors: dict[str, list[Error]] = field(default_factory=dict)
    """Of the nodes judged so far. A node below a bad one is bad too, with no errors of its own."""
    _valid: dict[str, bool] = field(default_factory=dict)
    _open: set[str] = field(default_factory=set)

    def node(self, node_id: str) -> bool:
        if node_id in self._valid:
            return self._valid[node_id]
        if node_id in self._open:
            raise ValueError("Dependency cycle detected")
        self._open.add(node_id)
        try:
            return self._judge(node_id)
        finally:
            self._open.discard(node_id)

    def fail(self, node_id: str, errors: list[Error]) -> None:
        self.errors[node_id] = errors
        self._valid[node_id] = False

    def _judge(self, node_id: str) -> bool:
        inputs = self.prompt[node_id]["inputs"]
        node = NODES[self.prompt[node_id]["class_type"]]
        errors: list[Error] = []
        upstream = True
        for name, spec in node.inputs.items():
            if name not in inputs:
                errors.append(
                    _error("required_input_missing", "Required input is missing", name, {"input_name": name})
                )
            elif isinstance(inputs[name], list):
                upstream &= self._link(name, spec, inputs[name], errors)
            else:
                _value(name, spec, inputs, node, errors)
        errors += self._custom(node, inputs)
        self.errors[node_id] = errors
        self._valid[node_id] = upstream and not errors
        return self._valid[node_id]

    def _link(self, name: str, spec: list[Any], link: list[Any], errors: list[Error]) -> bool:
        """False when what the link leads to is bad; what is wrong with the link itself goes to `errors`."""
        about = _about(name, spec)
        if len(link) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            errors.append(_error("bad_linked_input", message, name, about | {"received_value": link}))
            return True
        source = link[0]
        received = NODES[self.prompt[source]["class_type"]].output_types[link[1]]
        if received != spec[0]:
            errors.append(
                _error(
                    "return_type_mismatch",
                    "Return type mismatch between linked nodes",
                    f"{name}, received_type({received}) mismatch input_type({spec[0]})",
                    about | {"received_type": received, "linked_node": link},
                )
            )
            return True
        try:
            return self.node(source)
        except Exception as error:  # as in `validate`: the graph's fault
            inner = _exception(
                "exception_during_inner_validation", "Exception when validating inner node", error
            )
            extra = about | {"exception_message": str(error)} | inner["extra_info"] | {"linked_node": link}
            self.fail(source, [inner | {"extra_info": extra}])
            return False

    def _custom(self, node: Node, inputs: Mapping[str, Any]) -> list[Error]:
        if node.validate is None:
            return []
        given = {
            name: inputs[name] for name in node.validates if name in inputs and not _is_link(inputs[name])
        }
        if not given:
            return []
        fault = node.validate(self.folders, **given)
        if fault is None:
            return []
        return [
            _error(
                "custom_validation_failed",
                "Custom validation failed for node",
                f"{name} - {fault}",
                {"input_name": name},
            )
            for name in given
        ]


def _value(name: str, spec: list[Any], inputs: dict[str, Any], node: Node, errors: list[Error]) -> None:
    kind, options = spec[0], (spec[1] if len(spec) > 1 else {})
    value = inputs[name]
    about = _about(name, spec)
    try:
        if (
            isinstance(value, dict) and "__value__" in value
        ):  # how a prompt says "this list is a value, not a link"
            value = value["__value__"]
        if isinstance(kind, str) and kind in _CONVERSIONS:
            value = _CONVERSIONS[kind](value)
        inputs[name] = value
    except (ValueError, TypeError, OverflowError) as error:
        extra = about | {"received_value": value, "exception_message": str(error)}
        message = f"Failed to convert an input value to a {kind} value"
        errors.append(_error("invalid_input_type", message, f"{name}, {value}, {error}", extra))
        return
    if name in node.validates:
        return
    about["received_value"] = value
    if "min" in options and value < options["min"]:
        message = f"Value {value} smaller than min of {options['min']}"
        errors.append(_error("value_smaller_than_min", message, name, about))
    elif "max" in options and value > options["max"]:
        message = f"Value {value} bigger than max of {options['max']}"
        errors.append(_error("value_bigger_than_max", message, name, about))
    elif isinstance(kind, list) and value not in kind:
        errors.append(
            _error("value_not_in_list", "Value not in list", f"{name}: '{value}' not in {kind}", about)
        )


_CONVERSIONS: dict[str, type] = {"INT": int, "FLOAT": float, "STRING": str}


def _is_link(value: Any) -> bool:
    return isinstance(value, list)


def _about(name: str, spec: list[Any]) -> dict[str, Any]:
    return {"input_name": name, "input_config": [spec[0], spec[1] if len(spec) > 1 else {}]}


def _refused(message: str, node_id: str) -> Verdict:
    return Verdict(_error("invalid_prompt", message, f"Node ID '#{node_id}'"), {}, [])


def _error(kind: str, message: str, details: str = "", extra: dict[str, Any] | None = None) -> Error:
    return {"type": kind, "message": message, "details": details, "extra_info": extra or {}}


def _exception(kind: str, message: str, error: Exception) -> Error:
    extra = {"exception_type": type_name(error), "traceback": traceback.format_tb(error.__traceback__)}
    return _error(kind, message, str(error), extra)


def type_name(error: BaseException) -> str:
    """With its module, except for Python's own."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
