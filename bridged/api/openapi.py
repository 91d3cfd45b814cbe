"""The service's OpenAPI document, made of the descriptions that handlers carry.

A handler is described where it stands, with `described`; the document is what the application's routes and the hot
endpoints have, so that none is forgotten (a test enumerates them). WebSockets are nothing that OpenAPI knows: `told`
gives theirs a place in the document's text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from bridged import __version__
from bridged.api.access import scope_needed

T = TypeVar("T", bound=Callable[..., Any])

Shape = Any
"""of a JSON value: a type that msgspec knows, or a JSON Schema as a dict"""

ALWAYS = (400, 401, 403, 408, 429)
"""refusals that any request may meet before its endpoint sees it"""

REFUSALS = {
    400: "Something in the request is wrong; `detail` says what would be right.",
    401: "No API key, or none that is valid. While there is no key at all: the request comes from another machine.",
    403: "The key has not the scope, or may not run that workflow; or a page of another site makes the request.",
    404: "There is no such thing (any more).",
    408: "The request took too long to arrive.",
    413: "The request is larger than the limit.",
    429: "A limit of this key or address, or of the queue: try again later.",
    503: "The service is stopping, its disk is full, or its virus scanner does not answer: try again later.",
}

RETRY_AFTER = {"Retry-After": ("seconds to wait before the next try", {"type": "integer", "minimum": 1})}
HEADERS: dict[int, dict[str, tuple[str, dict[str, Any]]]] = {
    401: {"WWW-Authenticate": ("`Bearer`", {"type": "string"})},
    429: RETRY_AFTER,
    503: RETRY_AFTER,
}

TEXT = """\
One service out of many ComfyUI servers: submit a workflow by its alias, with values for its inputs; fetch the files.

**Keys.** Once the operator has made one, every request needs an API key: `Authorization: Bearer KEY`. Each operation
says which scope its key must have.

**clientId** is a string of the caller's choice (a UUID is advised), shared by all that belongs together: the uploads,
the submissions, the WebSocket, the fetching. Two keys never see each other's jobs, whatever clientId they use.

**Errors** are JSON, `{"detail": "…"}`. Operations of the tag `bridge` answer 400 for every fault of the request
itself; the others have proper statuses. Beside what is listed, any path may answer 404 and 405 (with `Allow`), and
what is no HTTP at all is answered 400 or 431 with no body. `GET` operations answer `HEAD`, too.
"""


class Refusal(msgspec.Struct):
    """Why not, for people: what was wrong, and what would be right."""

    detail: str


class Parameter(msgspec.Struct, frozen=True):
    name: str
    text: str
    place: Literal["query", "header", "path"] = "query"
    required: bool = False
    schema: Mapping[str, Any] = msgspec.field(default_factory=lambda: {"type": "string"})


class Reply(msgspec.Struct, frozen=True):
    """An answer, or a request's body: content type -> what it is. `headers`: name -> what it says, schema."""

    text: str
    content: Mapping[str, Shape] = {}
    headers: Mapping[str, tuple[str, dict[str, Any]]] = {}


class Operation(msgspec.Struct, frozen=True):
    """What one handler does. `refusals` are statuses beside ALWAYS; `replies` win over the standard text of one."""

    summary: str
    text: str
    parameters: tuple[Parameter, ...]
    body: Reply | None
    replies: Mapping[int, Reply]
    refusals: tuple[int, ...]


class Route(NamedTuple):
    """One way to call a handler. `path` as OpenAPI has it, with {names}."""

    path: str
    method: str
    handler: Callable[..., Any]


CLIENT_ID = Parameter(
    "clientId",
    "the caller's handle: printable characters of its choice",
    required=True,
    schema={"type": "string", "minLength": 1, "maxLength": 256, "examples": ["3f9c6a4e-1b1e-4d0c-9a53-0d4f0c0f6f2a"]},
)


def json_reply(text: str, shape: Shape) -> Reply:
    return Reply(text, {"application/json": shape})


def described(
    summary: str,
    text: str = "",
    *,
    parameters: tuple[Parameter, ...] = (),
    body: Reply | None = None,
    replies: Mapping[int, Reply],
    refusals: tuple[int, ...] = (),
) -> Callable[[T], T]:
    """Attaches a description to a handler."""
    operation = Operation(summary, text, parameters, body, replies, refusals)

    def attach(handler: T) -> T:
        handler.openapi = operation  # type: ignore[attr-defined]
        return handler

    return attach


def told(text: str) -> Callable[[T], T]:
    """Attaches a WebSocket's description (Markdown) to its handler."""

    def attach(handler: T) -> T:
        handler.openapi = text  # type: ignore[attr-defined]
        return handler

    return attach


def operation_of(handler: Callable[..., Any]) -> Operation:
    """Raises LookupError: nobody described it."""
    found = getattr(handler, "openapi", None)
    if not isinstance(found, Operation):
        raise LookupError(f"{handler.__module__}.{handler.__qualname__} has no description for the OpenAPI document")
    return found


def text_of(handler: Callable[..., Any]) -> str:
    """A WebSocket's. Raises LookupError: nobody described it."""
    found = getattr(handler, "openapi", None)
    if not isinstance(found, str):
        raise LookupError(f"{handler.__module__}.{handler.__qualname__} has no text for the OpenAPI document")
    return found


def document(routes: Iterable[Route], sockets: Iterable[Callable[..., Any]]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these routes and WebSocket handlers. Raises LookupError: one is not described."""
    listed = [(route, operation_of(route.handler)) for route in sorted(routes, key=lambda route: route[:2])]
    shapes: dict[int, Shape] = {}
    for _, operation in listed:
        for reply in (*operation.replies.values(), operation.body or Reply("")):
            shapes |= {id(shape): shape for shape in reply.content.values() if not isinstance(shape, dict)}
    shapes[id(Refusal)] = Refusal
    schemas, components = msgspec.json.schema_components(shapes.values(), ref_template="#/components/schemas/{name}")
    made = dict(zip(shapes, schemas, strict=True))
    for component in components.values():
        if "description" in component:  # a docstring, broken into lines
            component["description"] = " ".join(component["description"].split())
    paths: dict[str, dict[str, Any]] = {}
    for route, operation in listed:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, operation, made)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "bridged",
            "version": __version__,
            "description": "\n".join([TEXT, *(text_of(socket) for socket in sockets)]),
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key of this service."},
                "key": {
                    "type": "apiKey",
                    "in": "query",
                    "name": "key",
                    "description": "The same key, on the WebSocket only: browsers can give it no headers.",
                },
            },
        },
    }


def _operation(route: Route, operation: Operation, made: Mapping[int, Any]) -> dict[str, Any]:
    scope = scope_needed(route.path)
    text = [operation.text] if operation.text else []
    text.append(f"Needs the scope `{scope}`." if scope else "Any key will do.")
    refusals = {
        status: Reply(REFUSALS[status], {"application/json": Refusal}, HEADERS.get(status, {}))
        for status in (*ALWAYS, *operation.refusals)
    }
    described: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{route.method.lower()}{route.path}").strip("_"),
        "tags": [route.handler.__module__.rpartition(".")[2]],
        "summary": operation.summary,
        "description": "\n\n".join(text),
        "responses": {
            str(status): _reply(reply, made) for status, reply in sorted((refusals | dict(operation.replies)).items())
        },
    }
    if operation.parameters:
        described["parameters"] = [_parameter(parameter) for parameter in operation.parameters]
    if operation.body is not None:
        body = _reply(operation.body, made)
        described["requestBody"] = {"required": True, **body}
    return described


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.text,
        "required": parameter.required,
        "schema": parameter.schema,
    }


def _reply(reply: Reply, made: Mapping[int, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": reply.text}
    if reply.content:
        answer["content"] = {
            kind: {"schema": shape if isinstance(shape, dict) else made[id(shape)]}
            for kind, shape in reply.content.items()
        }
    if reply.headers:
        answer["headers"] = {
            name: {"description": text, "schema": schema} for name, (text, schema) in reply.headers.items()
        }
    return answer
