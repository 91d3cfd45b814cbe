"""From a prompt that succeeded to verified files in the spool."""

from __future__ import annotations

import re
from typing import Any

import trio

from bridged.actors.attempt import Follow
from bridged.comfy.client import ComfyClient
from bridged.comfy.protocol import RemoteFile, files_of
from bridged.config.schema import Files
from bridged.errors import AttemptFailed, BackendUnavailable
from bridged.files.names import extension_of
from bridged.files.spool import Spool
from bridged.model import Fault, Output, StoredFile

HISTORY_DEADLINE = 10.0
"""seconds for the history entry to appear: `execution_success` comes before it is stored (ComfyUI 0.3.64)"""

TRIES = 3
"""downloads of one file: the job is done, so a cut connection is no reason to run it again"""


async def collect(
    follow: Follow, client: ComfyClient, spool: Spool, settings: Files, output_classes: frozenset[str]
) -> tuple[Output, ...]:
    """Fetches everything the prompt saved (or, where it saved nothing, its previews), checked, in node order.

    Raises AttemptFailed, BackendUnavailable, FileRefused, TooLarge, OutOfSpace; then nothing is left in the spool.
    """
    job = follow.job
    expected = {node for node, content in job.graph.items() if content["class_type"] in output_classes}
    outputs: dict[str, Any] = dict(follow.outputs)
    if follow.gap or not expected or not expected <= outputs.keys():
        outputs = await _from_history(follow.prompt_id, client)
    files = [file for node in sorted(outputs, key=_node_order) for file in files_of(outputs[node])]
    wanted = [file for file in files if file.type == "output"] or files
    limit = int(settings.result_max_size * 1e6)
    stem = re.sub(r"[^\w.-]+", "-", job.alias).strip("-.") or "result"
    results: list[Output] = []
    try:
        for number, file in enumerate(wanted, 1):
            name = f"{stem}-{job.id[:8]}-{number}{extension_of(file.filename)}"
            stored = await _download(file, name, client, spool, limit, settings.allowed)
            results.append(Output(name, stored))
    finally:
        if len(results) < len(wanted):
            with trio.move_on_after(5, shield=True):
                await spool.discard(*(output.file for output in results))
    return tuple(results)


async def _from_history(prompt_id: str, client: ComfyClient) -> dict[str, Any]:
    pause = 0.01
    with trio.move_on_after(HISTORY_DEADLINE):
        while True:
            entry = await client.history(prompt_id)
            if entry is not None:
                return entry.outputs
            await trio.sleep(pause)
            pause = min(pause * 2, 1.0)
    raise AttemptFailed("it says that the prompt succeeded and has no record of it", Fault.HOST)


async def _download(
    file: RemoteFile, name: str, client: ComfyClient, spool: Spool, limit: int, allowed: dict[str, list[str]]
) -> StoredFile:
    for remaining in reversed(range(TRIES)):
        try:
            async with client.view(file) as (response, chunks):
                if response.status != 200:
                    raise AttemptFailed(f"it does not give a result file (HTTP status {response.status})", Fault.HOST)
                return await spool.receive("results", name, chunks, limit=limit, allowed=allowed)
        except BackendUnavailable:
            if not remaining:
                raise
            await trio.sleep(0.2)
    raise AssertionError("unreachable")


def _node_order(node: str) -> tuple[int, str]:
    return (int(node), node) if node.isascii() and node.isdigit() else (1 << 62, node)
