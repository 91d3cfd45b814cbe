"""What is answered where (docs/patch-api.md). No I/O but through the parts that it is given, and nothing of aiohttp."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from .access import Headers, Token, is_owner
from .definitions import Definitions
from .files import OWNERS, Files
from .leases import Leases
from .lending import Lending
from .prompts import LONGEST_LEASE, Jobs, lease_of
from .watch import Watch

PREFIX = "/bridged/v1/"
PROTOCOL = 1

MAX_BODY = 64 * 1024
"""bytes, of our own routes"""

MAX_MINUTES = 366 * 24 * 60
MAX_TEXT = 255
MAX_VALUES = 32

log = logging.getLogger("bridged_patch")


@dataclass(frozen=True)
class Request:
    """`path`: decoded; `query`: name -> values; `peer`: the other end's address, "" for none."""

    method: str
    path: str
    query: Mapping[str, Sequence[str]] = field(default_factory=dict)
    headers: Headers = field(default_factory=dict)
    peer: str = ""
    body: bytes = b""
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    body: bytes
    status: int = 200


def answer(value: Any, status: int = 200) -> Answer:
    return Answer(json.dumps(value).encode(), status)


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Route:
    """`waits`: it may wait for a disk, and is for a thread; `aside`: it may wait for long.
    `owner`: the owner needs no token at the PC itself."""

    method: str
    path: str
    handler: Callable[[Request], Any]
    waits: bool = False
    owner: bool = False
    aside: bool = False


class Routes:
    """`info`: the answer of that route, but for what is known here. A part that is None is one that this ComfyUI lacks
    an interface for: its routes are not there."""

    def __init__(
        self,
        token: Token,
        info: Callable[[], dict[str, Any]],
        lending: Lending,
        jobs: Jobs | None = None,
        leases: Leases | None = None,
        watch: Watch | None = None,
        files: Files | None = None,
        definitions: Definitions | None = None,
        announce: Callable[[dict[str, Any]], object] = lambda lending: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._token = token
        self._info = info
        self._lending = lending
        self._jobs = jobs
        self._leases = leases
        self._watch = watch
        self._files = files
        self._definitions = definitions
        self._announce = announce
        self._clock = clock

    def table(self) -> list[Route]:
        """Our own routes."""
        routes = [
            Route("GET", "info", self._get_info, waits=True),
            Route("GET", "page", self._get_page, owner=True),
            Route("POST", "pause", self._pause, waits=True, owner=True),
            Route("POST", "resume", self._resume, waits=True, owner=True),
        ]
        if self._jobs is not None:
            routes.append(Route("POST", "jobs/{prompt_id}/cancel", self._cancel))
        if self._leases is not None:
            routes.append(Route("POST", "lease", self._lease))
        if self._files is not None:
            routes.append(Route("GET", "models", self._models, aside=True))
        if self._definitions is not None:
            routes.append(Route("GET", "combos", self._combos, aside=True))
        return [Route(r.method, PREFIX + r.path, r.handler, r.waits, r.owner, r.aside) for r in routes]

    def call(self, route: Route, request: Request) -> Answer:
        """What one of our routes answers; raises nothing."""
        try:
            allowed = self._token.is_in(request.headers) or (route.owner and is_owner(request.peer, request.headers))
            if not allowed:
                raise Refused(403, "this needs the header X-Bridged-Token with the token of this PC's bridged_patch")
            if len(request.body) > MAX_BODY:
                raise Refused(413, f"more than {MAX_BODY} bytes")
            return answer(route.handler(request))
        except Refused as refused:
            return answer({"error": str(refused)}, refused.status)
        except Exception:
            log.exception("bridged_patch: %s %s failed", request.method, route.path)
            return answer({"error": "this failed; ComfyUI's log says why"}, 500)

    # -- requests to ComfyUI's own addresses --

    def intercepts(
        self, method: str, path: str, query: Mapping[str, Sequence[str]]
    ) -> Callable[[Request], Answer | None] | None:
        """Who answers a request in ComfyUI's stead; None: ComfyUI. What is found may still leave it to ComfyUI (None).
        It is for a thread: it may wait for a disk."""
        path = path[4:] if path.startswith("/api/") else path
        if method == "POST" and path == "/prompt":
            return self._refuse_prompt if self._lending.paused else None
        if method != "GET":
            return None
        if self._definitions is not None and "format" in query and re.fullmatch(r"/object_info(/.+)?", path):
            return self._object_info
        if self._files is not None and re.fullmatch(r"/internal/files(/.+)?", path):
            return self._internal_files if _asks_for_rfc(path, query) else None
        return None

    def _refuse_prompt(self, request: Request) -> Answer | None:
        try:
            said = json.loads(request.body)
        except (ValueError, UnicodeError):
            return None
        if not isinstance(said, dict) or lease_of(said.get("extra_data")) is None or not self._lending.paused:
            return None
        error = {
            "type": "bridged_paused",
            "message": "The owner of this PC has paused lending it",
            "details": "",
            "extra_info": self._lending.state(),
        }
        return answer({"error": error, "node_errors": {}}, 503)

    def _object_info(self, request: Request) -> Answer | None:
        form = request.query["format"][-1]
        if form == "v1":
            return None
        if form != "v2" or self._definitions is None:
            return answer({"error": "format is v1 or v2"}, 400)
        path = request.path[4:] if request.path.startswith("/api/") else request.path
        name = path[len("/object_info/") :] if path != "/object_info" else None
        return Answer(self._definitions.v2(name))

    def _internal_files(self, request: Request) -> Answer | None:
        path = request.path[4:] if request.path.startswith("/api/") else request.path
        folder = path[len("/internal/files/") :] or "".join(request.query.get("folder_path", ())[-1:])
        try:
            filters = {key: _values(request.query, key, split=True) for key in ("filter_ext", "filter_content_type")}
            extras = {key: _values(request.query, key, split=False) for key in ("first", "last")}
        except Refused as refused:
            return answer({"error": str(refused)}, refused.status)
        found = self._files.listed(folder, **filters, **extras) if self._files is not None else None
        return answer({"error": "there is no such folder"}, 404) if found is None else answer({"files": found})

    # -- our own --

    def _get_info(self, request: Request) -> Any:
        return {"protocol": PROTOCOL, **self._info(), **self._get_page(request)}

    def _get_page(self, request: Request) -> Any:
        return {"owner": self._owner(), "lending": self._lending.state(), "served": self._lending.served()}

    def _owner(self) -> Any:
        if self._jobs is None:
            return {"active": False, "running": 0, "queued": 0, "last": None}
        owner = self._jobs.owner()
        active = bool(owner.running or owner.queued)
        return {"active": active, "running": owner.running, "queued": owner.queued, "last": owner.last}

    def _models(self, request: Request) -> Any:
        return {"folders": self._files.models() if self._files is not None else {}}

    def _combos(self, request: Request) -> Any:
        return {"combos": self._definitions.combos() if self._definitions is not None else {}}

    def _cancel(self, request: Request) -> Any:
        return {"cancelled": self._jobs.cancel(request.params["prompt_id"]) if self._jobs is not None else "unknown"}

    def _lease(self, request: Request) -> Any:
        said = _object(request.body)
        client_id, seconds = said.get("client_id"), _number(said.get("seconds"))
        if not isinstance(client_id, str) or not 0 < len(client_id) <= MAX_TEXT:
            raise Refused(400, f"client_id is a text of 1 to {MAX_TEXT} characters")
        if seconds is None or not 0 < seconds <= LONGEST_LEASE:
            raise Refused(400, f"seconds is a number above 0, at most {LONGEST_LEASE:g}")
        if self._leases is not None:
            self._leases.renew(client_id, seconds)
        if self._watch is not None:
            self._watch.poke()  # a shorter one ends before the alarm that is set
        return {"until": self._clock() + seconds}

    def _pause(self, request: Request) -> Any:
        said = _object(request.body)
        minutes, stop = _number(said.get("minutes")), said.get("stop", False)
        if said.get("minutes") is not None and (minutes is None or not 0 < minutes <= MAX_MINUTES):
            raise Refused(400, f"minutes is a number above 0, at most {MAX_MINUTES}, or null: until resumed")
        if not isinstance(stop, bool):
            raise Refused(400, "stop is true or false")
        return self._changed(lambda: self._lending.pause(minutes, stop))

    def _resume(self, request: Request) -> Any:
        return self._changed(self._lending.resume)

    def _changed(self, change: Callable[[], None]) -> Any:
        try:
            change()
        except OSError as error:
            log.warning("bridged_patch: lending cannot be written down, and is forgotten at a restart: %s", error)
        state = self._lending.state()
        self._announce(state)
        if self._watch is not None:
            self._watch.poke()
        return {"lending": state}


def _asks_for_rfc(path: str, query: Mapping[str, Sequence[str]]) -> bool:
    """Whether ComfyUI's own list of the owner's folders is not what is meant."""
    folder = path[len("/internal/files/") :]
    if folder in OWNERS:
        return not {"filter_ext", "filter_content_type", "first", "last"}.isdisjoint(query)
    return bool(folder) or "folder_path" in query


def _values(query: Mapping[str, Sequence[str]], key: str, split: bool) -> list[str]:
    """A parameter's values: said again, or, where names have no commas, with commas between."""
    said = query.get(key, ())
    values = [value for text in said for value in (text.split(",") if split else [text]) if value]
    if len(values) > MAX_VALUES or any(len(value) > MAX_TEXT for value in values):
        raise Refused(400, f"{key} has at most {MAX_VALUES} values of {MAX_TEXT} characters")
    return values


def _object(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body) if body else {}
    except (ValueError, UnicodeError):
        said = None
    if not isinstance(said, dict):
        raise Refused(400, "the body is no JSON object")
    return said


def _number(value: Any) -> float | None:
    """None: it is none, or one that is too large for anything."""
    with suppress(OverflowError):
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    return None
