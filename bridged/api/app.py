"""The Quart application: what all dialects share (services, errors, reading bodies)."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

import msgspec
import trio
from quart import Response, has_request_context, request, websocket
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from bridged.actors.clients import Clients
from bridged.actors.dispatcher import Dispatcher
from bridged.actors.intake import Intake
from bridged.actors.nodes import Nodes
from bridged.actors.pool import Pool
from bridged.actors.publisher import Publisher
from bridged.api.access import Caller, Gate
from bridged.api.flow import Flow
from bridged.api.hot import DRAIN, Answer, Endpoint, error_answer, json_answer
from bridged.api.openapi import Route, described, document, json_reply
from bridged.catalogue import Catalogue
from bridged.config.schema import Settings
from bridged.errors import BridgedError, TooLarge
from bridged.files.spool import Spool

KEY_WITHDRAWN = "the API key of this connection is not valid any more"
"""why a WebSocket is closed with code 1008"""

log = logging.getLogger(__name__)


class Services(msgspec.Struct, frozen=True):
    """What handlers may use. `durable` returns once everything so far is safe in the ledger; `status` gives
    the facts of `GET /status`."""

    gate: Gate
    dispatcher: Dispatcher
    clients: Clients
    intake: Intake
    pool: Pool
    nodes: Nodes
    spool: Spool
    stopping: Callable[[], Awaitable[None]]
    durable: Callable[[], Awaitable[None]]
    settings: Callable[[], Settings]
    catalogue: Callable[[], Catalogue]
    publisher: Publisher
    generation_count: Callable[[], int]
    status: Callable[[], dict[str, Any]]

    def max_json(self) -> int:
        """Bytes of a JSON body: values only, files go through /upload."""
        return int(self.settings().limits.json_max_size * 1e6)


def json_response(value: Any, status: int = 200) -> Response:
    return _response(json_answer(value, status))


def error_response(error: BridgedError, *, proper: bool = False) -> Response:
    return _response(error_answer(error, proper=proper))


def refused_upgrade(error: BridgedError) -> Response:
    """The answer to a request for a WebSocket that is refused."""
    refusal = error_response(error)
    refusal.headers["Connection"] = "close"  # hypercorn cannot go on with it
    return refusal


async def read_and_ignore() -> None:
    """Reads the present WebSocket until cancelled. Clients need not say anything, but what they say must be taken:
    behind it waits the news that they left."""
    while True:
        await websocket.receive()


def _response(answer: Answer) -> Response:
    return Response(answer.body, answer.status, answer.headers, content_type=answer.content_type)


def hot_endpoints(services: Services) -> dict[str, Endpoint]:
    """Path -> endpoint, for what is served beside Quart."""
    from bridged.api import bridge, run

    return bridge.hot_endpoints(services) | run.hot_endpoints(services)


def create_app(services: Services) -> QuartTrio:
    """The application with all dialects registered."""
    from bridged.api import admin, bridge, jobs, nodedefs  # each registers its routes; none knows another

    app = QuartTrio("bridged", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = None  # each endpoint has its own limit
    app.config["RESPONSE_TIMEOUT"] = None  # it would truncate long downloads silently
    app.config["BODY_TIMEOUT"] = None
    app.register_blueprint(bridge.routes(services))
    app.register_blueprint(admin.routes(services))
    app.register_blueprint(jobs.routes(services))
    app.register_blueprint(nodedefs.routes(services))

    @app.get("/openapi.json")
    @described("This document", replies={200: json_reply("OpenAPI 3.1.", {"type": "object"})})
    async def openapi() -> Response:
        return json_response(written)

    written = msgspec.Raw(msgspec.json.encode(document(*endpoints(app, hot_endpoints(services)))))

    @app.errorhandler(BridgedError)
    async def refuse(error: BridgedError) -> Response:
        if has_request_context():  # else it is a WebSocket's
            await finish_reading()
        return error_response(error)

    @app.errorhandler(HTTPException)
    async def plain(error: HTTPException) -> Response:
        what = f"{request.method} {request.path}: " if has_request_context() else ""
        response = json_response({"detail": f"{what}{error.name}"}, error.code or 500)
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
        return response

    @app.errorhandler(Exception)
    async def broken(error: Exception) -> Response:
        what = f"{request.method} {request.path}" if has_request_context() else "a WebSocket"
        log.error("%s failed", what, exc_info=error)
        return json_response({"detail": "internal error; the service's log says more"}, 500)

    return app


def endpoints(app: QuartTrio, hot: Mapping[str, Endpoint]) -> tuple[list[Route], list[Callable[..., Any]]]:
    """Every way to call a handler, Quart's own and the hot ones, and the handlers of WebSockets."""
    routes = [Route(path, method, each.handler) for path, each in hot.items() for method in each.methods]
    sockets = []
    for rule in app.url_map.iter_rules():
        handler = app.view_functions[rule.endpoint]
        if rule.websocket:
            sockets.append(handler)
        else:
            path = re.sub(r"<(?:[^:>]+:)?(\w+)>", r"{\1}", rule.rule)
            routes += [Route(path, method, handler) for method in rule.methods or ()]
    return [route for route in routes if route.method not in ("HEAD", "OPTIONS")], sockets


def caller() -> Caller:
    """Who makes the request, or opened the WebSocket, that is being handled."""
    scope: Any = request.scope if has_request_context() else websocket.scope
    found: Caller = scope["bridged.caller"]
    return found


async def body_chunks(limit: int) -> AsyncGenerator[bytes, None]:
    """The body as it arrives. Raises TooLarge as soon as that is known."""
    if (request.content_length or 0) > limit:
        raise TooLarge(f"the request is larger than the limit of {limit / 1e6:g} MB")
    size = 0
    async for chunk in request.body:
        _took(len(chunk))
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"the request is larger than the limit of {limit / 1e6:g} MB")
        yield chunk


async def finish_reading() -> None:
    """Reads on for a moment after a refusal (see `DRAIN`)."""
    with trio.move_on_after(DRAIN):
        async for chunk in request.body:
            _took(len(chunk))


def _took(size: int) -> None:
    flow: Flow = request.scope["bridged.flow"]  # type: ignore[typeddict-item]
    flow.took(size)
