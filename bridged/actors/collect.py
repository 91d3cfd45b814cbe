"""From a prompt that succeeded to verified files in the spool."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from typing import Any, Self

import trio

from bridged.actors.attempt import Follow
from bridged.comfy.client import ComfyClient
from bridged.comfy.protocol import RemoteFile, files_of
from bridged.config.schema import Files
from bridged.errors import AttemptFailed, BackendUnavailable, BridgedError, FileRefused, ScannerAway, TooLarge
from bridged.files.names import extension_of
from bridged.files.spool import Spool
from bridged.model import Fault, Output, Refused, Results

log = logging.getLogger(__name__)

HISTORY_DEADLINE = 10.0
"""seconds for the history entry to appear: `execution_success` comes before it is stored (ComfyUI 0.3.64)"""

TRIES = 3
"""downloads of one file that began and broke off"""

NO_RESULT = frozenset({"application/x-empty", "inode/x-empty", "text/html", "text/plain", "application/json"})
"""types of content that come where a result should: nothing, an error page, a message"""

MAX_FILES = 1000
"""result files of one prompt"""


async def collect(
    follow: Follow,
    client: ComfyClient,
    spool: Spool,
    settings: Files,
    from_history: bool,
    patience: float,
) -> Results:
    """Fetches everything the prompt saved (or, where it saved nothing, its previews), checked, in node order.

    `from_history`: the events do not tell them all. The job is done: a backend that does not answer now is asked again
    for `patience` seconds.
    A file that is not acceptable is left out, with the reason; where none is, there is no result.
    Raises AttemptFailed, BackendUnavailable, FileRefused, OutOfSpace; then nothing is left in the spool.
    """
    job = follow.job
    give_up_at = trio.current_time() + patience
    outputs: dict[str, Any] = dict(follow.outputs)
    if from_history:
        outputs = await _from_history(follow.prompt_id, client, give_up_at)
    files = [file for node in sorted(outputs, key=_node_order) for file in files_of(outputs[node])]
    wanted = [file for file in files if file.type == "output"] or files
    if len(wanted) > MAX_FILES:
        raise AttemptFailed(f"the prompt saved {len(wanted)} files; at most {MAX_FILES} are taken", Fault.WORKFLOW)
    download = _Download(follow, client, spool, settings, give_up_at)
    complete = False
    try:
        for number, file in enumerate(wanted, 1):
            await download.take(file, f"{_stem(job.alias)}-{job.id[:8]}-{number}{extension_of(file.filename)}")
        if download.refused and not download.outputs:
            raise FileRefused("; ".join(refused.reason for refused in download.refused)[:2000])
        complete = True
    finally:
        if not complete:
            with trio.move_on_after(5, shield=True):
                await spool.discard(*(output.file for output in download.outputs))
    return Results(tuple(download.outputs), tuple(download.refused))


def _stem(alias: str) -> str:
    """An alias as the beginning of a file name, of at most 120 bytes."""
    stem = re.sub(r"[^\w.-]+", "-", alias).encode()[:120].decode(errors="ignore")
    return stem.strip("-.") or "result"


async def _from_history(prompt_id: str, client: ComfyClient, give_up_at: float) -> dict[str, Any]:
    pause = 0.01
    missing_since: float | None = None
    while True:
        try:
            entry = await client.history(prompt_id)
            if entry is not None:
                return entry.outputs
            missing_since = missing_since or trio.current_time()
            if trio.current_time() - missing_since > HISTORY_DEADLINE:
                raise AttemptFailed("it says that the prompt succeeded and has no record of it", Fault.HOST)
        except BackendUnavailable:
            if trio.current_time() > give_up_at:
                raise
        await trio.sleep(pause)
        pause = min(pause * 2, 1.0)


class _Heard:
    """What is downloaded is a sign of life, too: on a slow line it may be the only one that comes through."""

    __slots__ = ("_chunks", "_follow")

    def __init__(self, follow: Follow, chunks: AsyncIterator[bytes]) -> None:
        self._follow = follow
        self._chunks = chunks

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        chunk = await anext(self._chunks)
        self._follow.last_heard = trio.current_time()
        return chunk


class _Download:
    """Files of one prompt on their way into the spool; `outputs` has those that are there."""

    def __init__(
        self,
        follow: Follow,
        client: ComfyClient,
        spool: Spool,
        settings: Files,
        give_up_at: float,
    ) -> None:
        self._follow = follow
        self._client = client
        self._spool = spool
        self._limit = int(settings.result_max_size * 1e6)
        self._most = int(settings.results_max_total * 1e6)
        """bytes of all files of one prompt: more than the results of everybody may have is nobody's"""
        self._settings = settings
        self._give_up_at = give_up_at
        self.outputs: list[Output] = []
        self.refused: list[Refused] = []

    async def take(self, file: RemoteFile, name: str) -> None:
        begun, pause = 0, 0.1
        room = self._most - sum(output.file.size for output in self.outputs)
        limit = max(0, min(self._limit, room))
        while True:
            count = len(self.outputs)
            try:
                async with self._client.view(file) as (response, chunks):
                    begun += 1
                    if response.status != 200:
                        message = f"it does not give a result file (HTTP status {response.status})"
                        raise AttemptFailed(message, Fault.HOST)
                    stored = await self._spool.receive(
                        *("results", name, _Heard(self._follow, chunks)),
                        limit=limit,
                        rules=self._settings,
                        strip=self._follow.job.metadata == "strip",
                        patience=self._give_up_at - trio.current_time(),
                    )
                    # Noted before the connection is left, where being cancelled would lose sight of the file.
                    self.outputs.append(Output(name, stored))
                return
            except FileRefused as error:
                # An error page in place of a picture: the file may be sound, and another try, or another PC, gives it.
                if error.kind not in NO_RESULT:
                    self._refuse(name, error)
                    return
                if begun >= TRIES:
                    raise AttemptFailed(f"a result is not what it should be: {error}", Fault.HOST) from error
            except TooLarge as error:
                self._refuse(name, error)
                return
            except ScannerAway as error:
                raise AttemptFailed(str(error), Fault.POLICY) from error
            except BackendUnavailable:
                if len(self.outputs) > count:
                    return
                if begun >= TRIES or trio.current_time() > self._give_up_at:
                    raise
            await trio.sleep(pause)
            pause = min(pause * 2, 2.0)


    def _refuse(self, name: str, error: BridgedError) -> None:
        log.warning("job %s: a result was refused: %s", self._follow.job.id, error)
        self.refused.append(Refused(name, str(error)))


def _node_order(node: str) -> tuple[int, str]:
    return (int(node), node) if node.isascii() and node.isdigit() else (1 << 62, node)
