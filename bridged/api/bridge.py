"""The bridge API: the wire contract that existing clients speak. Only wire <-> model."""

from __future__ import annotations

import logging
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
from bridged.api.app import Services, body_chunks, caller, error_response, json_response
from bridged.api.hot import Answer, Endpoint, HotRequest, json_answer
from bridged.api.query import idempotency_key, required, result_kind, seconds, submission
from bridged.api.results import result_answer
from bridged.api.uploads import receive_files
from bridged.catalogue import to_base64
from bridged.errors import BadRequest, BridgedError
from bridged.model import owner_of, shown_client_id

KEY_WITHDRAWN = "the API key of this connection is not valid any more"

log = logging.getLogger(__name__)

GREETING = (
    f"bridged {__version__}: one service out of many ComfyUIs.\n"
    "GET /workflow-list names the workflows, GET /status says how the service is.\n"
)


def hot_endpoints(services: Services) -> dict[str, Endpoint]:
    """What every job costs: submit and fetch."""

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

    @bridge.get("/")
    async def greeting() -> Response:
        return Response(GREETING, content_type="text/plain; charset=utf-8")

    @bridge.get("/workflow-list")
    async def workflow_list() -> Response:
        return json_response(
            [
                {"alias": w.alias, "fn": w.fn, "description": w.description, "thumbnail": to_base64(w.thumbnail)}
                for w in services.catalogue().workflows.values()
                if caller().may_run(w.alias)
            ]
        )

    @bridge.get("/workflow-info")
    async def workflow_info() -> Response:
        workflow = services.catalogue().get(required(request.args, "workflow", "an alias of /workflow-list"))
        caller().need_alias(workflow.alias)
        return json_response(
            {
                key: {
                    "type": declared.type,
                    "title": declared.title,
                    "default": declared.default,
                    "descimage": to_base64(declared.descimage),
                }
                for key, declared in workflow.inputs.items()
            }
        )

    @bridge.post("/upload")
    async def upload() -> Response:
        name = caller().client_id(request.args)
        files = services.settings().files
        limit = int(files.upload_max_size * 1e6)
        services.clients.refuse_upload(name, services.settings().limits.uploads_per_client * 1e6)
        received = await receive_files(
            request.headers.get("Content-Type", ""),
            body_chunks(limit),
            services.spool,
            limit=limit,
            rules=files,
        )
        tokens = {
            part.identifier: services.clients.add_upload(name, part.name, part.file, files.upload_ttl).token
            for part in received
        }
        await services.durable()
        return json_response(tokens)

    @bridge.get("/execution-info")
    async def execution_info() -> Response:
        return json_response(info(services.clients.get(caller().client_id(request.args)), services.dispatcher.position))

    @bridge.get("/generation-count")
    async def generation_count() -> Response:
        return json_response(services.generation_count())

    @bridge.post("/free")
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
    async def interrupt() -> Response:
        name = caller().client_id(request.args)
        client = services.clients.get(name)
        if client is not None:
            services.clients.revoke(client, "interrupted by its client")
        return json_response({"detail": f"interrupted that clientId will be ignored. / {shown_client_id(name)}"})

    @bridge.websocket("/ws")
    async def ws() -> Response | None:
        with ExitStack() as held:
            try:
                name, resumed = _who(services)
                visit = held.enter_context(services.gate.visit(caller()))
            except BridgedError as error:
                refusal = error_response(error)
                refusal.headers["Connection"] = "close"  # hypercorn cannot go on with it
                return refusal
            await websocket.accept()
            code, reason = await _session(services, name, resumed, visit)
            await websocket.close(code, reason)
            return None

    return bridge


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


async def _session(services: Services, name: str, resumed: bool, visit: Visit) -> tuple[int, str]:
    """One connection from its acceptance to its end by us; with which code and reason to close it."""
    try:
        with services.clients.session(name, resumed=resumed) as (client, session):
            visit.end = partial(session.close, KEY_WITHDRAWN)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_read_and_ignore)
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


async def _read_and_ignore() -> None:
    """Clients need not say anything, but what they say must be taken: behind it waits the news that they left."""
    while True:
        await websocket.receive()


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
