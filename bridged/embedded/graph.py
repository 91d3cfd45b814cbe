"""The order in which a prompt's nodes run, and which of them need not run again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bridged.embedded.nodes import NODES, Result

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


def links(node: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    """(input, source node, slot) of each input that the node's class knows and that is a link."""
    for name in NODES[node["class_type"]].inputs:
        value = node["inputs"].get(name)
        if (
            isinstance(value, list)
            and len(value) == 2
            and isinstance(value[0], str)
            and isinstance(value[1], int)
        ):
            yield name, value[0], value[1]


@dataclass(frozen=True)
class Done:
    """A node that ran: what it gave, and what the history says about who gave it."""

    result: Result
    meta: dict[str, Any]


@dataclass
class Cache:
    """Results of the previous prompt's nodes, by signature. What the current prompt does not have is dropped:
    this bounds the memory by one prompt's intermediate pictures."""

    _done: dict[bytes, Done] = field(default_factory=dict)
    _signatures: dict[str, bytes] = field(default_factory=dict)

    def begin(self, prompt: Mapping[str, Any], fingerprints: Mapping[str, str]) -> None:
        self._signatures = signatures(prompt, fingerprints)
        used = set(self._signatures.values())
        self._done = {signature: done for signature, done in self._done.items() if signature in used}

    def get(self, node_id: str) -> Done | None:
        signature = self._signatures.get(node_id)
        return None if signature is None else self._done.get(signature)

    def put(self, node_id: str, done: Done) -> None:
        self._done[self._signatures[node_id]] = done

    def clear(self) -> None:
        self._done.clear()


def signatures(prompt: Mapping[str, Any], fingerprints: Mapping[str, str]) -> dict[str, bytes]:
    """A digest per node of its class, inputs, fingerprint, and all that is upstream of it, whatever the node
    ids are. Nodes of a malformed part of the graph (a cycle, a link to nowhere), which no good output depends
    on, have none."""
    known: dict[str, bytes] = {}
    bad: set[str] = set()
    for start in prompt:
        stack, opened = [start], set[str]()
        while stack:
            node_id = stack[-1]
            if node_id in known or node_id in bad:
                stack.pop()
                continue
            node = prompt.get(node_id)
            if node is None or not isinstance(node.get("inputs"), dict):
                bad.add(node_id)
                continue
            sources = {name: (source, slot) for name, source, slot in links(node)}
            missing = [source for source, _ in sources.values() if source not in known]
            if any(source in bad for source in missing) or (missing and node_id in opened):
                bad.add(node_id)
            elif missing:
                opened.add(node_id)
                stack += missing
            else:
                inputs = {
                    name: [known[sources[name][0]].hex(), sources[name][1]]
                    if name in sources
                    else {"value": value}
                    for name, value in node["inputs"].items()
                }
                text = json.dumps([node["class_type"], fingerprints.get(node_id), inputs], sort_keys=True)
                known[node_id] = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return known


class Schedule:
    """Which node to run next: of those whose inputs are ready an output node, else one that feeds an output
    node, else one two steps before an output node, else the first found. So pictures show early, and in the
    order of a real ComfyUI."""

    def __init__(self, prompt: Mapping[str, Any], outputs: Iterable[str], cache: Cache) -> None:
        self._prompt = prompt
        self._waiting_for: dict[str, set[str]] = {}
        self._feeds: dict[str, list[str]] = {}
        for output in outputs:
            self._add(output, cache)

    def _add(self, output: str, cache: Cache) -> None:
        stack = [output]
        while stack:
            node_id = stack.pop()
            if node_id in self._waiting_for:
                continue
            sources = dict.fromkeys(
                source for _, source, _ in links(self._prompt[node_id]) if cache.get(source) is None
            )
            self._waiting_for[node_id] = set(sources)
            self._feeds.setdefault(node_id, [])
            for source in sources:
                self._feeds.setdefault(source, []).append(node_id)
            stack += sources

    def __bool__(self) -> bool:
        return bool(self._waiting_for)

    def next(self) -> str:
        ready = [node_id for node_id, sources in self._waiting_for.items() if not sources]
        for steps in range(3):
            for node_id in ready:
                if self._reaches_output(node_id, steps):
                    return node_id
        return ready[0]

    def _reaches_output(self, node_id: str, steps: int) -> bool:
        if steps == 0:
            return NODES[self._prompt[node_id]["class_type"]].is_output
        return any(self._reaches_output(fed, steps - 1) for fed in self._feeds[node_id])

    def finished(self, node_id: str) -> None:
        del self._waiting_for[node_id]
        for fed in self._feeds[node_id]:
            self._waiting_for[fed].discard(node_id)
