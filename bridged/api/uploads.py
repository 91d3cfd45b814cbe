"""multipart/form-data request bodies into the spool, part by part, as they arrive."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, aclosing, contextmanager
from pathlib import Path

import msgspec
from werkzeug.datastructures import Headers
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from bridged.errors import BadRequest, FileRefused
from bridged.files.names import bare_name
from bridged.files.spool import Spool
from bridged.files.verify import Rules
from bridged.model import StoredFile

MAX_PARTS = 64
MAX_PART_HEADER = 16 * 1024
"""bytes without a part's headers being complete"""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""a header's name (RFC 9110, 5.6.2)"""

_FOLDERS = re.compile(r"(?<!\\)(?:\\\\)*\\(?![\"\\])")
"""a backslash that escapes nothing: the decoder would drop it, and make one name of a folder and a file"""

MAX_HELD = 256
"""bytes of dashes: longer than any boundary that is accepted"""


class ReceivedFile(msgspec.Struct, frozen=True):
    """`identifier` is the part's name, `name` its filename."""

    identifier: str
    name: str
    file: StoredFile


async def receive_files(
    content_type: str,
    chunks: AsyncGenerator[bytes, None],
    spool: Spool,
    *,
    limit: int,
    rules: Rules,
) -> list[ReceivedFile]:
    """Stores every part; all of them or none.

    Raises BadRequest (no multipart, a part without filename, …), FileRefused, TooLarge, OutOfSpace; then, and when
    cancelled, nothing is left on disk.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get("boundary", "")
    if kind != "multipart/form-data" or not 1 <= len(boundary) <= 200 or not boundary.isascii():
        raise BadRequest("send the files as multipart/form-data")
    received: list[ReceivedFile] = []
    complete = False
    async with AsyncExitStack() as undo:
        unwanted = undo.enter_context(_removing())
        header: File | None = None
        incoming = spool.incoming("uploads")
        decoder = MultipartDecoder(boundary.encode(), max_parts=MAX_PARTS)
        events = await undo.enter_async_context(aclosing(_events(decoder, chunks)))
        async for event in events:
            if isinstance(event, Field | File):
                _check_headers(event.headers)
            if isinstance(event, Field):
                raise BadRequest(f"part {event.name!r} has no filename: every part must be a file")
            if isinstance(event, File):
                if not event.name:
                    raise BadRequest("a part has no name: its name is what the answer's token goes by")
                if event.name in {file.identifier for file in received}:
                    raise BadRequest(f"two parts are named {event.name!r}; each needs a name of its own")
                bare_name(event.filename)
                header = event
                incoming = await undo.enter_async_context(spool.incoming("uploads"))
            elif isinstance(event, Data) and header is not None:
                await incoming.write(event.data, limit)
                if not event.more_data:
                    name = bare_name(header.filename)
                    declared = header.headers.get("content-type", "")
                    stored = await incoming.finish(name, rules, declared)
                    received.append(ReceivedFile(header.name, name, stored))
                    unwanted.append(received[-1].file.path)
                    header = None
            elif isinstance(event, Epilogue):
                complete = True
        if not complete:
            raise BadRequest("the multipart body ends too early")
        if not received:
            raise BadRequest("the request has no file; send at least one part with a filename")
        unwanted.clear()
    return received


def _check_headers(headers: Headers) -> None:
    """Raises BadRequest, FileRefused: a part's headers are too long, or no headers, or its name has a path."""
    if sum(len(key) + len(value) + len(": \r\n") for key, value in headers) > MAX_PART_HEADER:
        raise BadRequest("a part's headers are too long")
    if not all(_TOKEN.fullmatch(key) for key, _ in headers):
        raise BadRequest("a part has a line among its headers that is none")
    disposition = headers.get("content-disposition", "")
    if disposition.partition(";")[0].strip().lower() != "form-data":
        raise BadRequest("a part is no form-data: its Content-Disposition must be form-data")
    if _FOLDERS.search(disposition):
        raise FileRefused("a filename has backslashes; it must be a bare name, with no folders")


@contextmanager
def _removing() -> Iterator[list[Path]]:
    """Files that are removed at the end, unless the list was cleared by then."""
    unwanted: list[Path] = []
    try:
        yield unwanted
    finally:
        # A few unlinks of local files: quick enough to do right here, also while being cancelled.
        for path in unwanted:
            path.unlink(missing_ok=True)


async def _events(decoder: MultipartDecoder, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[Event, None]:
    """What the decoder makes of the body. Raises BadRequest where it is malformed."""
    in_header = 0
    held = b""
    async with aclosing(chunks):
        async for chunk in chunks:
            # Where the decoder's data ends between the two last dashes of a body, it takes the line break before the
            # boundary for content, and the file gets a byte too many (werkzeug #3285): dashes wait for what follows.
            data = held + chunk
            held = data[len(data.rstrip(b"-")) :][-MAX_HELD:]
            in_header += len(chunk)
            for event in _decode(decoder, data[: len(data) - len(held)]):
                in_header = 0
                yield event
            if in_header > MAX_PART_HEADER + len(chunk):
                raise BadRequest("a part's headers are too long")
    for rest in (held, None):
        for event in _decode(decoder, rest):
            yield event


def _decode(decoder: MultipartDecoder, chunk: bytes | None) -> Iterator[Event]:
    try:
        decoder.receive_data(chunk)
        while not isinstance(event := decoder.next_event(), NeedData):
            yield event
            if isinstance(event, Epilogue):
                return
    except RequestEntityTooLarge:
        raise BadRequest(f"the request has more than {MAX_PARTS} parts") from None
    except UnicodeDecodeError:
        raise BadRequest("a part's name or headers have bytes that are not UTF-8") from None
    except ValueError as error:
        raise BadRequest(f"the multipart body is malformed or ends too early: {error}") from None
