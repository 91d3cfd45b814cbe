"""The endpoints that every job costs, as plain ASGI beside Quart: submit, fetch, run.

Quart's contexts, routing and signals take about as long as all else that such a request needs (bench/overhead.py), and
a job in flight is a few milliseconds in all. An endpoint here is a function from `HotRequest` to `Answer`; errors,
HEAD, limits and a client that goes away are dealt with once, in `serve`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import parse_qsl

import msgspec
import trio

from bridged.errors import BadRequest, BridgedError, TooLarge

if TYPE_CHECKING:
    from bridged.api.access import Caller

log = logging.getLogger(__name__)

KEPT_STATUS = frozenset({401, 403, 408, 413, 429, 503})
"""statuses the bridge dialect uses as they are; every other fault of a request is 400 there (wire contract)"""

DRAIN = 2.0
"""seconds to read on after a refusal: a client that still sends would otherwise see a reset, not why"""

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


T = TypeVar("T")


class ClientGone(Exception):
    """The client went away while its request was waiting: nobody is left to answer."""


class Answer(msgspec.Struct):
    """A response: its body is `body`, or what `chunks` gives; then `sent` is called once all of it was taken."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = {}
    chunks: AsyncGenerator[bytes, None] | None = None
    sent: Callable[[], object] | None = None


def json_answer(value: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(status, msgspec.json.encode(value), headers=headers)


def error_answer(error: BridgedError, *, proper: bool = False) -> Answer:
    """`proper`: the error's own status, as endpoints of ours give it; else as the wire contract has it."""
    status = error.status if proper or error.status in KEPT_STATUS or error.status >= 500 else 400
    headers = {"Retry-After": str(math.ceil(getattr(error, "retry_after", 5.0)))} if status in (429, 503) else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return json_answer({"detail": str(error)}, status, **headers)


def decode_object(body: bytes | bytearray) -> dict[str, Any]:
    """A body as a JSON object. Raises BadRequest."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadRequest('the body must be a JSON object such as {"workflow": "ALIAS"}')
    return value


class HotRequest:
    """One request: `args` are its query parameters, the first of each name."""

    def __init__(self, scope: Any, receive: Receive) -> None:
        self._receive = receive
        self._scope = scope
        self.args: dict[str, str] = {}
        self._headers = scope["headers"]
        query = scope["query_string"].decode("latin-1")
        for name, value in parse_qsl(query, keep_blank_values=True, errors="replace") if query else ():
            self.args.setdefault(name, value)
        self.body_is_read = self.client_is_gone = False

    @property
    def caller(self) -> Caller:
        return cast("Caller", self._scope["bridged.caller"])

    @property
    def is_head(self) -> bool:
        return bool(self._scope["method"] == "HEAD")

    def header(self, name: bytes) -> str:
        """A header's value, "" where there is none; `name` in lower case."""
        return next((value.decode("latin-1") for key, value in self._headers if key == name), "")

    async def json(self, limit: int) -> dict[str, Any]:
        """A body of at most `limit` bytes. Raises BadRequest, TooLarge, ClientGone (it went away in the middle)."""
        body = bytearray()
        async with aclosing(self.body()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > limit:
                    raise TooLarge(f"the request is larger than the limit of {limit / 1e6:g} MB")
        if self.client_is_gone:
            raise ClientGone
        return decode_object(body)

    async def body(self) -> AsyncGenerator[bytes, None]:
        """The rest of the body; ends early where the client goes away."""
        while not self.body_is_read:
            message = await self._receive()
            self.client_is_gone = message["type"] != "http.request"
            self.body_is_read = self.client_is_gone or not message.get("more_body")
            yield message.get("body", b"")

    async def while_connected(self, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` gives. Raises ClientGone: the client went away first, and `work` was cancelled."""
        results: list[T] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            results.append(await work())
            nursery.cancel_scope.cancel()
        if not results:
            raise ClientGone
        return results[0]

    async def _watch(self, scope: trio.CancelScope) -> None:
        async for _ in self.body():
            pass
        while (await self._receive())["type"] != "http.disconnect":
            pass
        scope.cancel()


Handler = Callable[[HotRequest], Awaitable[Answer]]


class Endpoint(msgspec.Struct, frozen=True):
    """`proper`: errors have their own statuses, not the wire contract's."""

    methods: tuple[str, ...]
    handler: Handler
    proper: bool = False


async def serve(endpoint: Endpoint, scope: Any, receive: Receive, send: Send) -> None:
    """Answers one request."""
    request = HotRequest(scope, receive)
    if scope["method"] in endpoint.methods:
        try:
            answer = await _answered(endpoint, request)
        except ClientGone:
            return
    else:
        detail = f"{scope['method']} {scope['path']}: Method Not Allowed"
        answer = json_answer({"detail": detail}, 405, Allow=", ".join(endpoint.methods))
    await respond(answer, request, send)


async def respond(answer: Answer, request: HotRequest, send: Send) -> None:
    """Sends an answer; after a refusal the rest of the request is read first, for a while."""
    if answer.status >= 400:
        with trio.move_on_after(DRAIN):
            async for _ in request.body():
                pass
    with suppress(ClientGone):
        await _respond(answer, request, request.is_head, send)


async def _answered(endpoint: Endpoint, request: HotRequest) -> Answer:
    try:
        return await endpoint.handler(request)
    except ClientGone:
        raise
    except BridgedError as error:
        return error_answer(error, proper=endpoint.proper)
    except Exception:
        log.exception("a request failed")
        return json_answer({"detail": "internal error; the service's log says more"}, 500)


async def _send_chunks(chunks: AsyncGenerator[bytes, None], send: Send) -> None:
    async with aclosing(chunks):
        async for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def _respond(answer: Answer, request: HotRequest, head: bool, send: Send) -> None:
    """Raises ClientGone: it went away before the end of a streamed body, which then does not count as taken."""
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in answer.headers.items()]
    if answer.status != 204:
        headers.append((b"content-type", answer.content_type.encode("latin-1")))
        if answer.chunks is None:
            headers.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if answer.chunks is not None and not head:
        # The last message goes outside: in the middle of it hypercorn says that the request is over.
        await request.while_connected(partial(_send_chunks, answer.chunks, send))
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    else:
        await send({"type": "http.response.body", "body": b"" if head else answer.body, "more_body": False})
    if answer.sent is not None and not head:
        answer.sent()
