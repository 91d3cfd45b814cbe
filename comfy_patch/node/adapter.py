"""aiohttp's requests to ours, and our answers to aiohttp's."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from .host import Host
from .routes import MAX_BODY, Request, Route, Routes

log = logging.getLogger("bridged_patch")

Handler = Callable[[Any], Awaitable[Any]]


def add_routes(host: Host, routes: Routes) -> None:
    """Ours; ComfyUI serves them under /api, too."""
    for route in routes.table():
        host.add_route(route.method, route.path, _handler(host, routes, route))


def add_interception(host: Host, routes: Routes) -> None:
    """Some requests to ComfyUI's own addresses. Where something of ours fails, ComfyUI answers."""

    async def before(request: Any, handler: Handler) -> Any:
        try:
            query = _query(request)
            call = routes.intercepts(request.method, request.path, query)
            if call is not None:
                ours = _request(request, query, await request.read())  # aiohttp keeps it for ComfyUI's handler
                found = await host.wait(partial(call, ours), aside=request.method == "GET")  # POST is the owner's, too
                if found is not None:
                    return host.response(found.body, found.status)
        except Exception as error:
            if hasattr(error, "status"):  # aiohttp's own: a body too large
                raise
            log.exception("bridged_patch: %s %s is left to ComfyUI", request.method, request.path)
        return await handler(request)

    host.add_middleware(before)


def _handler(host: Host, routes: Routes, route: Route) -> Handler:
    async def handle(request: Any) -> Any:
        ours = _request(request, _query(request), await _body(request))
        call = partial(routes.call, route, ours)
        found = await host.wait(call, route.aside) if route.waits or route.aside else call()
        return host.response(found.body, found.status)

    return handle


def _query(request: Any) -> dict[str, list[str]]:
    return {key: request.query.getall(key) for key in request.query}


async def _body(request: Any) -> bytes:
    """No more than it takes to see that it is too much."""
    body = b""
    while len(body) <= MAX_BODY and (chunk := await request.content.read(MAX_BODY + 1 - len(body))):
        body += chunk
    return body


def _request(request: Any, query: dict[str, list[str]], body: bytes) -> Request:
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    return Request(
        method=request.method,
        path=request.path,
        query=query,
        headers={key.lower(): request.headers.getall(key) for key in request.headers},
        peer=peer[0] if isinstance(peer, tuple) else "",
        body=body,
        params=dict(request.match_info),
    )
