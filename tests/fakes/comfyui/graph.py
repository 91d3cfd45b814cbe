"""What a ComfyUI 0.3.64 decides about a graph before it runs it: is it valid, and in which order would it
run.

Facts are from the recordings (`validation_errors`, `txt2img_*`) and from watching a real server.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from .script import Graph

CONVERT: Mapping[str, Callable[[Any], Any]] = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}
LONGEST_LIST_TOLD = 20


def is_link(value: object) -> bool:
    return isinstance(value, list)


def links_of(graph: Graph, node_id: str) -> list[str]:
    return [value[0] for value in graph[node_id]["inputs"].values() if is_link(value)]


def refusal(kind: str, message: str, details: str = "") -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": {}}


@dataclass
class Verdict:
    """`error` is None when at least one output node may run; then `node_errors` tells of the others."""

    error: dict[str, Any] | None
    node_errors: dict[str, Any] = field(default_factory=dict)
    targets: list[str] = field(default_factory=list)


def check(
    graph: Graph, classes: Mapping[str, Any], has_input: Callable[[str], bool], *, inputs: bool = True
) -> Verdict:
    """Judges a graph as POST /prompt does. `inputs=False` looks at classes and output nodes only."""
    outputs = []
    for node_id, node in graph.items():
        where = f"Node ID '#{node_id}'"
        if "class_type" not in node:
            message = "Cannot execute because a node is missing the class_type property."
            return Verdict(refusal("invalid_prompt", message, where))
        kind = node["class_type"]
        if kind not in classes:
            return Verdict(
                refusal("invalid_prompt", f"Cannot execute because node {kind} does not exist.", where)
            )
        if classes[kind]["output_node"]:
            outputs.append(node_id)
    if not outputs:
        return Verdict(refusal("prompt_no_outputs", "Prompt has no outputs"))
    if not inputs:
        return Verdict(None, targets=outputs)
    checker = _Checker(graph, classes, has_input)
    node_errors: dict[str, Any] = {}
    targets = []
    for output in outputs:
        if checker.valid(output):
            targets.append(output)
            continue
        # A real server repeats here whatever it has found so far, under every output that failed after it.
        for node_id, errors in checker.errors.items():
            if errors:
                entry = {
                    "errors": errors,
                    "dependent_outputs": [],
                    "class_type": graph[node_id]["class_type"],
                }
                node_errors.setdefault(node_id, entry)["dependent_outputs"].append(output)
    if targets:
        return Verdict(None, node_errors, targets)
    told = [
        f"{error['message']}: {error['details']}" for node_id in outputs for error in checker.errors[node_id]
    ]
    kind = "prompt_outputs_failed_validation"
    return Verdict(refusal(kind, "Prompt outputs failed validation", "\n".join(told)), node_errors)


class _Checker:
    """Judges nodes and what they depend on, each once."""

    def __init__(self, graph: Graph, classes: Mapping[str, Any], has_input: Callable[[str], bool]) -> None:
        self.errors: dict[str, list[dict[str, Any]]] = {}
        self._graph, self._classes, self._has_input = graph, classes, has_input
        self._valid: dict[str, bool] = {}

    def valid(self, node_id: str) -> bool:
        if node_id not in self._valid:
            self._valid[node_id] = True  # a cycle counts as valid here, and does not recurse for ever
            node = self._graph[node_id]
            spec = self._classes[node["class_type"]]["input"]
            found: list[dict[str, Any]] = []
            sound = True
            for name, config in {**spec.get("required", {}), **spec.get("optional", {})}.items():
                if name not in node["inputs"]:
                    if name in spec.get("required", {}):
                        found.append(self._error("required_input_missing", "Required input is missing", name))
                    continue
                value = node["inputs"][name]
                if is_link(value):
                    problem = self._link(name, config, value)
                    if problem is None:
                        sound = self.valid(value[0]) and sound
                else:
                    problem = self._value(node, name, config, value)
                if problem is not None:
                    found.append(problem)
            self.errors[node_id] = found
            self._valid[node_id] = sound and not found
        return self._valid[node_id]

    @staticmethod
    def _error(
        kind: str, message: str, name: str, details: str | None = None, **extra: object
    ) -> dict[str, Any]:
        info = {"input_name": name, **extra}
        return {
            "type": kind,
            "message": message,
            "details": name if details is None else details,
            "extra_info": info,
        }

    def _link(self, name: str, config: list[Any], value: list[Any]) -> dict[str, Any] | None:
        if len(value) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            return self._error("bad_linked_input", message, name, input_config=config, received_value=value)
        if value[0] not in self._graph:
            return self._error(
                "exception_during_validation", "Exception when validating node", name, repr(value[0])
            )
        given = self._classes[self._graph[value[0]]["class_type"]]["output"][value[1]]
        if isinstance(config[0], str) and "*" not in (given, config[0]) and given not in config[0].split(","):
            message = "Return type mismatch between linked nodes"
            details = f"{name}, received_type({given}) mismatch input_type({config[0]})"
            extra = {"input_config": config, "received_type": given, "linked_node": value}
            return self._error("return_type_mismatch", message, name, details, **extra)
        return None

    def _value(self, node: dict[str, Any], name: str, config: list[Any], value: Any) -> dict[str, Any] | None:
        kind, options = config[0], config[1] if len(config) > 1 else {}
        told = {"input_config": config, "received_value": value}
        if isinstance(kind, str) and kind in CONVERT:
            try:
                value = node["inputs"][name] = CONVERT[kind](value)
            except (TypeError, ValueError) as exc:
                message = f"Failed to convert an input value to a {kind} value"
                extra = {**told, "exception_message": str(exc)}
                return self._error("invalid_input_type", message, name, f"{name}, {value}, {exc}", **extra)
        if options.get("image_upload"):
            if not self._has_input(str(value)):
                message = "Custom validation failed for node"
                return self._error(
                    "custom_validation_failed", message, name, f"{name} - Invalid image file: {value}"
                )
            return None
        if "min" in options and value < options["min"]:
            message = f"Value {value} smaller than min of {options['min']}"
            return self._error("value_smaller_than_min", message, name, **told)
        if "max" in options and value > options["max"]:
            message = f"Value {value} bigger than max of {options['max']}"
            return self._error("value_bigger_than_max", message, name, **told)
        if isinstance(kind, list) and value not in kind:
            listed = str(kind) if len(kind) <= LONGEST_LIST_TOLD else f"(list of length {len(kind)})"
            told["input_config"] = config if len(kind) <= LONGEST_LIST_TOLD else None
            return self._error(
                "value_not_in_list", "Value not in list", name, f"{name}: '{value}' not in {listed}", **told
            )
        return None


def execution_order(
    graph: Graph, targets: list[str], cached: Collection[str], is_output: Callable[[str], bool]
) -> list[str]:
    """The nodes that a prompt visits, in the real order.

    Of the nodes that are ready, an output node goes first, then one that an output waits for, then one at two
    steps from an output, then the one that was found first. Cached nodes are not visited unless they are
    targets.
    """
    found: dict[str, set[str]] = {}  # node -> the nodes that wait for it, in the order of discovery
    waits: dict[str, int] = {}
    for target in targets:
        stack = [target]
        while stack:
            node_id = stack.pop()
            if node_id not in found:
                found[node_id] = set()
                stack += [other for other in links_of(graph, node_id) if other not in cached]
    for node_id in found:
        sources = {other for other in links_of(graph, node_id) if other in found}
        waits[node_id] = len(sources)
        for other in sources:
            found[other].add(node_id)

    def rank(node_id: str) -> int:
        if is_output(node_id):
            return 0
        if any(is_output(other) for other in found[node_id]):
            return 1
        return 2 if any(is_output(last) for other in found[node_id] for last in found[other]) else 3

    order: list[str] = []
    pending = list(found)
    while pending:
        ready = [node_id for node_id in pending if waits[node_id] == 0]
        if not ready:
            break  # a cycle: the rest never runs
        chosen = min(ready, key=rank)
        pending.remove(chosen)
        order.append(chosen)
        for other in found[chosen]:
            waits[other] -= 1
    return order


def signatures(graph: Graph) -> dict[str, str]:
    """By node: a hash that is equal for two nodes when their classes, values and everything upstream are
    equal.
    """
    known: dict[str, str] = {}

    def of(node_id: str) -> str:
        if node_id not in known:
            known[node_id] = "a cycle"
            node = graph[node_id]
            inputs = {
                name: [of(value[0]), value[1]] if is_link(value) else value
                for name, value in sorted(node["inputs"].items())
            }
            known[node_id] = hashlib.sha256(json.dumps([node["class_type"], inputs]).encode()).hexdigest()
        return known[node_id]

    for node_id in graph:
        of(node_id)
    return known
