"""Result bodies: a job's files as multipart/form-data or as base64 in JSON, streamed from disk."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Protocol

import msgspec

from bridged.actors.books import JobRecord
from bridged.actors.clients import Client
from bridged.api.app import Services
from bridged.api.hot import Answer
from bridged.files.multipart import Encoded, Part, read_blocks
from bridged.model import Output, Refused, StoredFile

BASE64_BLOCK = 3 * 64 * 1024
"""bytes of a file per block: a multiple of 3, so that blocks join without padding in between"""


class Body(Protocol):
    """A body whose `length` in bytes is known before it is made."""

    @property
    def content_type(self) -> str: ...
    @property
    def length(self) -> int: ...
    def chunks(self) -> AsyncGenerator[bytes, None]: ...
    def whole(self) -> bytes | None:
        """The body at once where that costs no I/O, else None."""
        ...


def result_answer(services: Services, client: Client, record: JobRecord, kind: str) -> Answer:
    """A job's files as `multipart` or `base64`; once all of the body was taken, the job counts as fetched."""
    refused = record.facts.refused
    if kind == "multipart":
        body = multipart_body(record.outputs, services.spool.recall)
    else:
        body = base64_body(record.outputs, refused)
    headers = {"Content-Disposition": f'attachment; filename="{record.job.id}"', "X-Job-Id": record.job.id}
    if refused:
        headers["X-Results-Refused"] = str(len(refused))
    taken = partial(services.clients.fetched, client, record.job.id)
    whole = body.whole()
    if whole is not None:
        return Answer(200, whole, body.content_type, headers, sent=taken)
    headers["Content-Length"] = str(body.length)
    return Answer(200, b"", body.content_type, headers, body.chunks(), taken)


def multipart_body(
    outputs: Sequence[Output], recall: Callable[[StoredFile], bytes | None] = lambda _: None
) -> Body:
    """Parts result_0, result_1, … with filename and content type. `recall` may know a file's bytes already."""
    return Encoded(
        [
            Part(
                f"result_{number}",
                data=recall(output.file),
                path=output.file.path,
                size=output.file.size,
                filename=output.name,
                content_type=output.file.content_type,
            )
            for number, output in enumerate(outputs)
        ]
    )


def base64_body(outputs: Sequence[Output], refused: Sequence[Refused] = ()) -> Body:
    """`{"files":[{"file_name","content_type","content"}]}`, and `"refused":[{"name","reason"}]` where some are."""
    return _Base64(outputs, refused)


class _Base64:
    content_type = "application/json"

    def __init__(self, outputs: Sequence[Output], refused: Sequence[Refused]) -> None:
        self._pieces: list[tuple[bytes, Output]] = []
        opening = b'{"files":['
        for output in outputs:
            head = msgspec.json.encode({"file_name": output.name, "content_type": output.file.content_type})
            self._pieces.append((opening + head[:-1] + b',"content":"', output))
            opening = b'"},'
        end = b',"refused":' + msgspec.json.encode(refused) + b"}" if refused else b"}"
        self._end = (b'"}]' if self._pieces else b'{"files":[]') + end
        self.length = len(self._end) + sum(
            len(head) + 4 * ((output.file.size + 2) // 3) for head, output in self._pieces
        )

    def whole(self) -> bytes | None:
        return None

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        for head, output in self._pieces:
            pending = head
            async with aclosing(read_blocks(output.file.path, BASE64_BLOCK)) as blocks:
                async for block in blocks:
                    yield pending + base64.b64encode(block)
                    pending = b""
        yield self._end
