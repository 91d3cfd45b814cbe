"""The bridge API: the wire contract that existing clients speak. Only wire <-> model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack, aclosing
from functools import partial
from typing import Any

import msgspec
import trio
from quart import Blueprint, Response, request, websocket

from bridged import __version__
from bridged.actors.books import JobRecord
from bridged.actors.clients import Client, Session
from bridged.actors.messages import Message
from bridged.actors.session import converse, info
from bridged.api.access import Visit
from bridged.api.app import (
    KEY_WITHDRAWN,
    Services,
    body_chunks,
    caller,
    json_response,
    read_and_ignore,
    refused_upgrade,
)
from bridged.api.hot import Answer, Endpoint, HotRequest, json_answer
from bridged.api.openapi import CLIENT_ID, Parameter, Reply, described, json_reply, told
from bridged.api.query import idempotency_key, required, result_kind, seconds, submission
from bridged.api.results import result_answer
from bridged.api.shapes import FILES, IDEMPOTENCY_KEY, RES_TYPE, SUBMISSION, UPLOAD, Queued, Said, waiting
from bridged.api.stored import Store
from bridged.api.uploads import ReceivedFile, receive_files
from bridged.catalogue import Catalogue, to_base64
from bridged.errors import BadRequest, BridgedError, Unauthorized
from bridged.model import Fault, JobState, owner_of, shown_client_id
from bridged.nodedefs.views import about_input

log = logging.getLogger(__name__)

GREETING = (
    f"bridged {__version__}: one service out of many ComfyUIs.\n"
    "GET /workflow-list names the workflows, GET /status says how the service is.\n"
)


SOCKET = """\
**The WebSocket** `/ws?clientId=…` (scope `submit`; `?key=…` in place of the header will do) tells of a client's jobs,
as JSON texts `{"status", "detail", "details", "job_id", "resume"}`, the last two where there is something to say:
`connected` once; `listening` while nothing else is said; `progress` with "12.62%"; `error` with a reason; `closed` once
the client's last open job has ended; then the service closes the connection, and the files are fetched with /history.
A client that goes away takes its jobs with it, unless their workflow says otherwise. `?resume=TOKEN`, the token of the
first message, proves to be the client that went away. Nothing has to be sent. Close codes: 1000 done, 1001 the service
stops, 1008 the key was withdrawn. What is wrong with the request is answered before the upgrade, as on other paths.
"""


class WorkflowListed(msgspec.Struct):
    """`fn`: its file; `thumbnail`: a picture in base64."""

    alias: str
    fn: str
    description: str
    thumbnail: str | None


class InputShown(msgspec.Struct):
    """`type`: str, int, float, bool, or the MIME type of a file, whose value is an upload token; `descimage`: a picture
    in base64. The rest is what the PCs say of the input: its limits, and its choices (`options`), or where they are
    fetched (`remote`, a remote combo of the RFC)."""

    type: str
    title: str
    default: str | int | float | bool
    descimage: str | None
    tooltip: str | msgspec.UnsetType = msgspec.UNSET
    multiline: bool | msgspec.UnsetType = msgspec.UNSET
    min: int | float | msgspec.UnsetType = msgspec.UNSET
    max: int | float | msgspec.UnsetType = msgspec.UNSET
    step: int | float | msgspec.UnsetType = msgspec.UNSET
    options: list[Any] | msgspec.UnsetType = msgspec.UNSET
    remote: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class Info(msgspec.Struct):
    """A client's newest state, as the WebSocket would have told it, and what became of its newest job; `position` is 1
    for the next one."""

    status: str
    detail: str
    details: str | msgspec.UnsetType = msgspec.UNSET
    job_id: str | msgspec.UnsetType = msgspec.UNSET
    state: JobState | msgspec.UnsetType = msgspec.UNSET
    position: int | msgspec.UnsetType | None = msgspec.UNSET
    reason: str | msgspec.UnsetType = msgspec.UNSET
    fault: Fault | msgspec.UnsetType = msgspec.UNSET


def hot_endpoints(services: Services) -> dict[str, Endpoint]:
    """What every job costs: submit and fetch."""

    @described(
        "Submit a job",
        parameters=(CLIENT_ID, IDEMPOTENCY_KEY),
        body=SUBMISSION,
        replies={200: json_reply("It is queued.", Queued)},
        refusals=(413, 503),
    )
    async def generate(request: HotRequest) -> Answer:
        caller = request.caller
        name = caller.client_id(request.args)
        key = idempotency_key(request.header(b"idempotency-key"))
        alias, values, webhook = submission(await request.json(services.max_json()))
        services.gate.submitting(caller, alias)
        submitted = await services.intake.submit(
            name, alias, values, key=key, webhook=webhook, max_jobs=caller.max_jobs, weight=caller.weight
        )
        return json_answer({"detail": f"queued / {submitted.position}", "job_id": submitted.job_id})

    @described(
        "Fetch a job's files",
        "The oldest finished job of the client whose files were not fetched yet. After a whole answer it counts as "
        "fetched.",
        parameters=(
            CLIENT_ID,
            RES_TYPE,
            Parameter("jobId", "this job of the client, also where it was fetched before"),
            waiting(0, "seconds to wait while the client has open jobs"),
        ),
        replies={200: FILES, 204: Reply("An unknown client, or nothing to give.")},
    )
    async def history(request: HotRequest) -> Answer:
        client = services.clients.get(request.caller.client_id(request.args))
        kind, wait = result_kind(request.args), seconds(request.args, "wait", 0.0)
        if client is None:
            return Answer(204)
        job_id = request.args.get("jobId")
        record = client.next_result(job_id)
        if record is None and wait > 0:
            record = await request.while_connected(partial(_result, client, job_id, wait))
        return Answer(204) if record is None else result_answer(services, client, record, kind)

    return {
        "/generate-based-workflow": Endpoint(("POST",), generate),
        "/history": Endpoint(("GET", "HEAD"), history),
    }


def routes(services: Services) -> Blueprint:
    """The blueprint of this dialect's other endpoints."""
    bridge = Blueprint("bridge", __name__)
    kept, kept_info = _Kept(services.catalogue), Store()

    @bridge.get("/")
    @described("A greeting", replies={200: Reply("For people.", {"text/plain": {"type": "string"}})})
    async def greeting() -> Response:
        return Response(GREETING, content_type="text/plain; charset=utf-8")

    @bridge.get("/workflow-list")
    @described("The workflows", replies={200: json_reply("Those that the key may run.", list[WorkflowListed])})
    async def workflow_list() -> Response:
        mine = caller()
        return kept.response(
            mine.aliases,
            lambda catalogue: [
                WorkflowListed(w.alias, w.fn, w.description, to_base64(w.thumbnail))
                for w in catalogue.workflows.values()
                if mine.may_run(w.alias)
            ],
        )

    @bridge.get("/workflow-info")
    @described(
        "A workflow's inputs",
        parameters=(Parameter("workflow", "an alias of /workflow-list", required=True),),
        replies={200: json_reply("NODE/input -> what it is.", dict[str, InputShown])},
    )
    async def workflow_info() -> Response:
        alias = required(request.args, "workflow", "an alias of /workflow-list")
        caller().need_alias(alias)
        workflow, owners = services.catalogue().get(alias), "admin" in caller().scopes

        async def make() -> bytes:
            return msgspec.json.encode(
                {
                    key: InputShown(
                        declared.type,
                        declared.title,
                        declared.default,
                        to_base64(declared.descimage),
                        **await about(workflow.graph[declared.node]["class_type"], declared.name, owners),
                    )
                    for key, declared in workflow.inputs.items()
                }
            )

        stored = await kept_info.get((alias, owners), (workflow, services.nodes.version), make)
        return await stored.response()

    async def about(kind: str, name: str, owners: bool) -> dict[str, Any]:
        definition = await services.nodes.definition(kind, owners=owners)
        return {} if definition is None else about_input(definition, name)

    @bridge.post("/upload")
    @described(
        "Upload input files",
        "All of them are taken, or none. Names, types and contents are checked.",
        parameters=(CLIENT_ID,),
        body=UPLOAD,
        replies={200: json_reply("Identifier -> the token that stands for the file as a value.", dict[str, str])},
        refusals=(413, 503),
    )
    async def upload() -> Response:
        name = caller().client_id(request.args)
        files = services.settings().files
        limit = int(files.upload_max_size * 1e6)
        most = services.settings().limits.uploads_per_key * 1e6
        with services.clients.room_for_upload(name, min(request.content_length or limit, limit), most):
            received = await receive_files(
                request.headers.get("Content-Type", ""),
                body_chunks(limit),
                services.spool,
                limit=limit,
                rules=files,
            )
            await _keep_only(services, received)
        tokens = {
            part.identifier: services.clients.add_upload(name, part.name, part.file, files.upload_ttl).token
            for part in received
        }
        await services.durable()
        return json_response(tokens)

    @bridge.get("/execution-info")
    @described(
        "A client's state",
        "For clients without a WebSocket.",
        parameters=(CLIENT_ID,),
        replies={200: json_reply("Its newest state; null for an unknown client.", Info | None)},
    )
    async def execution_info() -> Response:
        return json_response(info(services.clients.get(caller().client_id(request.args)), services.dispatcher.position))

    @bridge.get("/generation-count")
    @described("Jobs ever started", replies={200: json_reply("A number.", int)})
    async def generation_count() -> Response:
        return json_response(services.generation_count())

    @bridge.post("/free")
    @described(
        "Free the PCs' memory",
        "Of the PCs that hold the client's jobs; with no clientId of all, which needs the scope `admin`, too.",
        parameters=(msgspec.structs.replace(CLIENT_ID, required=False),),
        replies={200: json_reply("They were told.", Said)},
    )
    async def free() -> Response:
        if "clientId" not in request.args:
            caller().need("admin")  # it costs every other client's next job the time to load its models
            await _free_all(services, [snapshot.name for snapshot in services.dispatcher.snapshots()])
            return json_response({"detail": "server memory free now / ALL"})
        name = caller().client_id(request.args)
        client = services.clients.get(name)
        attempts = [record.attempt for record in client.open_jobs()] if client is not None else []
        await _free_all(services, sorted({attempt.backend for attempt in attempts if attempt is not None}))
        return json_response({"detail": f"server memory free now / {shown_client_id(name)}"})

    @bridge.post("/interrupt")
    @described(
        "Cancel a client's jobs",
        parameters=(CLIENT_ID,),
        replies={200: json_reply("They are dequeued or interrupted.", Said)},
    )
    async def interrupt() -> Response:
        name = caller().client_id(request.args)
        client = services.clients.get(name)
        if client is not None:
            services.clients.revoke(client, "interrupted by its client")
        return json_response({"detail": f"interrupted that clientId will be ignored. / {shown_client_id(name)}"})

    @bridge.websocket("/ws")
    @told(SOCKET)
    async def ws() -> Response | None:
        with ExitStack() as held:
            try:
                name, resumed = _who(services)
                visit = held.enter_context(services.gate.visit(caller()))
            except BridgedError as error:
                return refused_upgrade(error)
            await websocket.accept()
            code, reason = await _session(services, name, resumed, visit)
            await websocket.close(code, reason)
            return None

    return bridge


async def _keep_only(services: Services, received: list[ReceivedFile]) -> None:
    """Raises Unauthorized, and removes what was received: the caller's key was withdrawn while it arrived."""
    try:
        services.gate.check_still(caller())
    except Unauthorized:
        await services.spool.discard(*(part.file for part in received))
        raise


def _who(services: Services) -> tuple[str, bool]:
    """Whose connection this is, and whether it proved to be the one that went away. Raises BadRequest."""
    token = websocket.args.get("resume")
    if token is None:
        return caller().client_id(websocket.args), False
    name = services.clients.resumed(token)
    if owner_of(name) != caller().name:
        raise BadRequest("this resume token belongs to another API key")
    if websocket.args.get("clientId", shown_client_id(name)) != shown_client_id(name):
        raise BadRequest("this resume token belongs to another clientId")
    return name, True


class _Kept:
    """Answers that tell of the catalogue, made once for each: with their pictures they may have some MB, which a slow
    reader would else hold a copy of."""

    def __init__(self, catalogue: Callable[[], Catalogue]) -> None:
        self._catalogue = catalogue
        self._of: Catalogue | None = None
        self._bodies: dict[object, bytes] = {}

    def response(self, key: object, make: Callable[[Catalogue], Any]) -> Response:
        catalogue = self._catalogue()
        if catalogue is not self._of:
            self._of, self._bodies = catalogue, {}
        body = self._bodies.get(key)
        if body is None:
            body = self._bodies[key] = msgspec.json.encode(make(catalogue))
        return Response(body, content_type="application/json")


async def _session(services: Services, name: str, resumed: bool, visit: Visit) -> tuple[int, str]:
    """One connection from its acceptance to its end by us; with which code and reason to close it."""
    try:
        with services.clients.session(name, resumed=resumed) as (client, session):
            visit.on_withdrawn(partial(session.close, KEY_WITHDRAWN))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_and_ignore)
                await _talk(client, session, services)
                nursery.cancel_scope.cancel()
    except Exception:
        # quart-trio would turn this into close code 1000, as if all were well.
        log.exception("the session of a client failed")
        return 1011, "internal error"
    if services.dispatcher.detached:
        return 1001, session.closing or ""
    return 1008 if session.closing == KEY_WITHDRAWN else 1000, session.closing or ""


async def _talk(client: Client, session: Session, services: Services) -> None:
    jobs = services.settings().jobs
    talk = converse(client, session, interval=jobs.timeout_interval, limit=jobs.limit_timeout_count)
    async with aclosing(talk):
        async for message in talk:
            await websocket.send(_encode(message))


def _encode(message: Message) -> str:
    value: dict[str, Any] = {"status": message.status, "detail": message.detail, "details": message.detail}
    if message.job_id is not None:
        value["job_id"] = message.job_id
    if message.resume is not None:
        value["resume"] = message.resume
    return msgspec.json.encode(value).decode()


async def _result(client: Client, job_id: str | None, wait: float) -> JobRecord | None:
    """The result to give, waiting up to `wait` seconds while the client has open jobs and the service goes on."""
    record = client.next_result(job_id)
    with trio.move_on_after(wait), client.polling():
        while record is None and wait > 0 and client.open_jobs() and not client.stopping:
            await client.job_ended.wait()
            record = client.next_result(job_id)
    return record


async def _free_all(services: Services, names: list[str]) -> None:
    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(services.pool.free, name)
