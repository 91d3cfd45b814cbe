"""multipart/form-data request bodies into the spool, part by part, as they arrive."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack

import msgspec
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from bridged.errors import BadRequest
from bridged.files.names import bare_name
from bridged.files.spool import Spool
from bridged.model import StoredFile

MAX_PARTS = 64
MAX_PART_HEADER = 16 * 1024
"""bytes without a part's headers being complete"""


class ReceivedFile(msgspec.Struct, frozen=True):
    """`identifier` is the part's name, `name` its filename."""

    identifier: str
    name: str
    file: StoredFile


async def receive_files(
    content_type: str,
    chunks: AsyncIterator[bytes],
    spool: Spool,
    *,
    limit: int,
    allowed: Mapping[str, Sequence[str]],
) -> list[ReceivedFile]:
    """Stores every part; all of them or none.

    Raises BadRequest (no multipart, a part without filename, …), FileRefused, TooLarge, OutOfSpace; then, and when
    cancelled, nothing is left on disk.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get("boundary", "")
    if kind != "multipart/form-data" or not 1 <= len(boundary) <= 200:
        raise BadRequest("send the files as multipart/form-data")
    received: list[ReceivedFile] = []
    complete = False
    async with AsyncExitStack() as undo:
        undo.callback(_remove, received)
        header: File | None = None
        incoming = spool.incoming("uploads")
        async for event in _events(MultipartDecoder(boundary.encode("latin-1"), max_parts=MAX_PARTS), chunks):
            if isinstance(event, Field):
                raise BadRequest(f"part {event.name!r} has no filename: every part must be a file")
            if isinstance(event, File):
                if event.name in {file.identifier for file in received}:
                    raise BadRequest(f"two parts are named {event.name!r}; each needs a name of its own")
                bare_name(event.filename)
                header = event
                incoming = await undo.enter_async_context(spool.incoming("uploads"))
            elif isinstance(event, Data) and header is not None:
                await incoming.write(event.data, limit)
                if not event.more_data:
                    name = bare_name(header.filename)
                    received.append(ReceivedFile(header.name, name, await incoming.finish(name, allowed)))
                    header = None
            elif isinstance(event, Epilogue):
                complete = True
        if not complete:
            raise BadRequest("the multipart body ends too early")
        if not received:
            raise BadRequest("the request has no file; send at least one part with a filename")
        undo.pop_all()
    return received


def _remove(received: list[ReceivedFile]) -> None:
    # A few unlinks of local files: quick enough to do right here, also while being cancelled.
    for file in received:
        file.file.path.unlink(missing_ok=True)


async def _events(decoder: MultipartDecoder, chunks: AsyncIterator[bytes]) -> AsyncIterator[Event]:
    """What the decoder makes of the body. Raises BadRequest where it is malformed."""
    in_header = 0
    async for chunk in chunks:
        try:
            decoder.receive_data(chunk)
            in_header += len(chunk)
            while not isinstance(event := decoder.next_event(), NeedData | Epilogue):
                in_header = 0
                yield event
        except RequestEntityTooLarge:
            raise BadRequest(f"the request has more than {MAX_PARTS} parts") from None
        except ValueError as error:
            raise BadRequest(f"the multipart body is malformed: {error}") from None
        if isinstance(event, Epilogue):
            yield event
            return
        if in_header > MAX_PART_HEADER + len(chunk):
            raise BadRequest("a part's headers are too long")
