"""What nodes the pool has, and which files they can choose: ComfyUI's `/object_info`, and the RFC's lazy lists."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import msgspec
import trio
from msgspec.structs import replace
from quart import Blueprint, Response, request, websocket

from bridged.actors.folders import Choices, Listener
from bridged.api.app import KEY_WITHDRAWN, Services, caller, error_response, read_and_ignore, refused_upgrade
from bridged.api.openapi import CLIENT_ID, Parameter, Reply, described, told
from bridged.api.query import client_id, required
from bridged.api.stored import Store
from bridged.errors import BadRequest, BridgedError, UnknownFolder
from bridged.model import own
from bridged.nodedefs.lazy import PRIVATE, select
from bridged.nodedefs.views import View, hides

log = logging.getLogger(__name__)

MAX_FILTERS, MAX_FILTER = 32, 255
"""values of one query parameter, and characters of one"""

IN_PLACE = 2000
"""names that are sorted and encoded on the event loop: 1 ms; more are in a thread"""

SOCKET = """\
**The WebSocket** `/internal/signals` (scope `submit`) says which lists have changed, as JSON texts
`{"type": SIGNAL, "data": {}}`, SIGNAL being the `invalidation_signal` of a remote combo, or `object_info`. Nothing has
to be sent.
"""

FORMAT = Parameter(
    "format",
    "`v1`: as ComfyUI answers; `v2`: explicit combos, lazy lists of files, one list of outputs",
    schema={"type": "string", "enum": ["v1", "v2"], "default": "v1"},
)
AVAILABILITY = Parameter(
    "availability",
    "1: also how many PCs offer it; their names for keys with the scope `admin`",
    schema={"type": "string", "enum": ["0", "1"], "default": "0"},
)
NO_CACHE = Parameter(
    "Cache-Control",
    "`no-cache`: what the PCs say now, not what they said lately",
    place="header",
)
FILTERS = (
    Parameter("filter_ext", "only names that end so: one or several, with commas between or said again"),
    Parameter("filter_content_type", "only these kinds of files: `image`, `video`, `audio`, `model` (3D)"),
    Parameter("first", "a choice that is no file, to stand before them; may be said again"),
    Parameter("last", "one to stand after them"),
    AVAILABILITY,
    replace(CLIENT_ID, required=False, text="whose uploads are listed, where the folder is `input`"),
)
FILES = {
    "type": "object",
    "required": ["files"],
    "properties": {
        "files": {"type": "array", "items": {"type": ["string", "number", "boolean"]}},
        "availability": {"type": "object", "description": "file -> how many PCs have it, or which"},
        "unknown": {"type": ["integer", "array"], "description": "PCs that have not said yet what they have"},
    },
}
DEFINITIONS = Reply(
    "Class -> definition.",
    {"application/json": {"type": "object", "additionalProperties": {"type": "object"}}},
    {"ETag": ("of this answer, for If-None-Match", {"type": "string"})},
)
LIST = Reply(
    "The choices, sorted; folders are parted with `/`.",
    {"application/json": FILES},
    {"ETag": ("of this answer, for If-None-Match", {"type": "string"})},
)
UNCHANGED = Reply("Not changed since the answer with that ETag.")
COMBO = (
    Parameter("class", "the node class", required=True),
    Parameter("input", "its input", required=True),
)


def routes(services: Services) -> Blueprint:
    nodedefs = Blueprint("nodedefs", __name__)
    nodes, store = services.nodes, Store()

    @nodedefs.errorhandler(BridgedError)
    async def refuse(error: BridgedError) -> Response:
        return error_response(error, proper=True)

    @nodedefs.get("/object_info")
    @described(
        "All node classes of the pool",
        "As they are known; renewed behind the caller's back.",
        parameters=(FORMAT, AVAILABILITY, NO_CACHE),
        replies={200: DEFINITIONS, 304: UNCHANGED},
        refusals=(503,),
    )
    async def object_info() -> Response:
        view, renewed = _view(), _wants_news()
        services.gate.look_up(caller(), "object_info", renews=renewed)
        body = await nodes.object_info(view, renewed=renewed)
        return await (await store.get(view, (body,), partial(_as_it_is, body))).response()

    @nodedefs.get("/object_info/<path:name>")
    @described(
        "One node class",
        "An unknown one gives `{}`, as ComfyUI does; 404 is for what cannot be a name (a line break, slashes alone).",
        parameters=(
            Parameter("name", "the class", place="path", required=True),
            FORMAT,
            AVAILABILITY,
            NO_CACHE,
        ),
        replies={200: DEFINITIONS, 304: UNCHANGED},
        refusals=(404, 503),
    )
    async def class_info(name: str) -> Response:
        view, renewed = _view(), _wants_news()
        services.gate.look_up(caller(), "object_info", renews=renewed)
        found = await nodes.class_info(name, view, renewed=renewed)
        body = b"{}" if found is None else b"{" + msgspec.json.encode(name) + b": " + found + b"}"
        return await (await store.get((name, view), (found,), partial(_as_it_is, body))).response()

    async def files(folder: str, *, renewed: bool) -> Response:
        _check_folder(folder)
        owners = "admin" in caller().scopes
        services.gate.look_up(caller(), f"files {folder}", renews=renewed)
        if folder in PRIVATE:
            return await private(folder, owners=owners, renewed=renewed)
        choices = await nodes.folders.files(folder, renewed=renewed)
        return await shown(folder, choices, owners=owners)

    async def private(folder: str, *, owners: bool, renewed: bool) -> Response:
        """The caller's own uploads, and the PCs' files for those who may see them."""
        theirs = await nodes.folders.files(folder, renewed=renewed) if owners else Choices((), {}, ())
        own_files: list[str] = []
        if folder == "input" and request.args.get("clientId"):
            name = own(caller().name, client_id(request.args))
            own_files = [upload.token for upload in services.clients.uploads_of(name)]
        choices = replace(theirs, names=tuple(dict.fromkeys((*own_files, *theirs.names))))
        return await shown(None, choices, owners=owners)

    async def shown(key: str | None, choices: Choices, *, owners: bool) -> Response:
        query, availability = _filters(), request.args.get("availability") == "1"
        make = partial(_encode, choices, query, owners=owners, availability=availability)

        async def made() -> bytes:
            return make() if len(choices.names) <= IN_PLACE else await trio.to_thread.run_sync(make)

        kept = await store.get((key, query, availability, owners), (choices,), made)
        return await kept.response()

    @nodedefs.get("/internal/files/<folder>")
    @described(
        "The files of a folder, on all PCs together",
        "A model folder's (`checkpoints`, `loras`, …). `input`, `output` and `temp` give the caller's own uploads, "
        "as values for an input; with the scope `admin` the PCs' files, too.",
        parameters=(Parameter("folder", "its name", place="path", required=True), *FILTERS),
        replies={200: LIST, 304: UNCHANGED},
        refusals=(404, 503),
    )
    async def folder_files(folder: str) -> Response:
        return await files(folder, renewed=_wants_news())

    @nodedefs.get("/internal/files")
    @described(
        "The same, as the RFC writes it",
        parameters=(Parameter("folder_path", "the folder's name", required=True), *FILTERS),
        replies={200: LIST, 304: UNCHANGED},
        refusals=(404, 503),
    )
    async def folder_path_files() -> Response:
        return await files(required(request.args, "folder_path", "the name of a folder"), renewed=_wants_news())

    @nodedefs.post("/internal/files/<folder>/refresh")
    @described(
        "Read a folder anew",
        "Asks every PC, and answers what they say. Who listens for the folder's signal hears of it.",
        parameters=(Parameter("folder", "its name", place="path", required=True), *FILTERS),
        replies={200: LIST, 304: UNCHANGED},
        refusals=(404, 503),
    )
    async def refresh(folder: str) -> Response:
        return await files(folder, renewed=True)

    async def choices_of(*, renewed: bool) -> Response:
        kind, key = required(request.args, "class", "a node class"), required(request.args, "input", "its input")
        owners = "admin" in caller().scopes
        services.gate.look_up(caller(), f"combos {kind[:200]} {key[:200]}", renews=renewed)
        choices = await nodes.choices(kind, key, renewed=renewed)
        return await shown(f"{kind}\n{key}", choices, owners=owners)

    @nodedefs.get("/internal/combos")
    @described(
        "The choices of a node's own remote combo",
        "Fetched from the PCs whose definitions have it, each by the route that it names itself.",
        parameters=(*COMBO, AVAILABILITY),
        replies={200: LIST, 304: UNCHANGED},
        refusals=(404, 503),
    )
    async def combo_choices() -> Response:
        return await choices_of(renewed=_wants_news())

    @nodedefs.post("/internal/combos/refresh")
    @described(
        "Read them anew",
        parameters=(*COMBO, AVAILABILITY),
        replies={200: LIST, 304: UNCHANGED},
        refusals=(404, 503),
    )
    async def refresh_combo() -> Response:
        return await choices_of(renewed=True)

    @nodedefs.websocket("/internal/signals")
    @told(SOCKET)
    async def signals() -> Response | None:
        with ExitStack() as held:
            try:
                visit = held.enter_context(services.gate.visit(caller()))
            except BridgedError as error:
                return refused_upgrade(error)
            listener = held.enter_context(nodes.folders.listen())
            await websocket.accept()
            code, reason = 1001, ""
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(read_and_ignore)
                    nursery.start_soon(_tell, listener)
                    visit.on_withdrawn(nursery.cancel_scope.cancel)
                    await services.stopping()
                    nursery.cancel_scope.cancel()
            except Exception:
                log.exception("a listener's WebSocket failed")  # quart-trio would close it as if all were well
                code, reason = 1011, "internal error"
            if visit.is_withdrawn:
                code, reason = 1008, KEY_WITHDRAWN
            await websocket.close(code, reason)
            return None

    return nodedefs


async def _as_it_is(body: bytes) -> bytes:
    return body


async def _tell(listener: Listener) -> None:
    while True:
        for signal in await listener.take():
            await websocket.send(msgspec.json.encode({"type": signal, "data": {}}).decode())


def _view() -> View:
    """Raises BadRequest."""
    form = request.args.get("format", "v1")
    if form not in ("v1", "v2"):
        raise BadRequest(f"format must be v1 or v2, not {form[:50]!r}")
    return View(form == "v2", "admin" in caller().scopes, request.args.get("availability") == "1")


def _wants_news() -> bool:
    return bool(request.cache_control.no_cache)


def _check_folder(folder: str) -> None:
    """Raises UnknownFolder: no folder can be called so."""
    if not (0 < len(folder) <= 128 and folder.isprintable()) or folder in (".", "..") or set(folder) & set("/\\"):
        raise UnknownFolder(f"no PC has a folder {folder[:200]!r}")


class _Filters(msgspec.Struct, frozen=True):
    filter_ext: tuple[str, ...]
    filter_content_type: tuple[str, ...]
    first: tuple[str, ...]
    last: tuple[str, ...]


def _filters() -> _Filters:
    """Raises BadRequest: too many, or too long ones."""

    def values(name: str, *, split: bool) -> tuple[str, ...]:
        given = [*request.args.getlist(name), *request.args.getlist(f"{name}[]")]  # as axios writes a list
        found = [part for text in given for part in (text.split(",") if split else [text]) if part]
        if len(found) > MAX_FILTERS or any(len(part) > MAX_FILTER for part in found):
            raise BadRequest(f"{name}: at most {MAX_FILTERS} values of {MAX_FILTER} characters")
        return tuple(dict.fromkeys(found))

    return _Filters(
        values("filter_ext", split=True),
        values("filter_content_type", split=True),
        values("first", split=False),
        values("last", split=False),
    )


def _encode(choices: Choices, query: _Filters, *, owners: bool, availability: bool) -> bytes:
    """`owners`: the caller may know of owners' files, and the PCs' names."""
    files: Sequence[Any] = choices.names if owners else [each for each in choices.names if not hides(each)]
    if all(isinstance(file, str) for file in files):
        files = select(sorted(files), query.filter_ext, query.filter_content_type, query.first, query.last)
    answer: dict[str, Any] = {"files": files}
    if availability:
        everybody = choices.who()
        found = {file: everybody[file] for file in files if file in everybody}
        answer["availability"] = {str(file): who if owners else len(who) for file, who in found.items()}
        answer["unknown"] = list(choices.unknown) if owners else len(choices.unknown)
    return msgspec.json.encode(answer)
