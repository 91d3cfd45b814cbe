"""Endpoints of ours for operators: how the service is. Backends by name, never by address."""

from __future__ import annotations

from contextlib import aclosing

import msgspec
from quart import Blueprint, Response

from bridged.actors.publisher import Listed, Published
from bridged.api.app import Services, body_chunks, caller, error_response, finish_reading, json_response
from bridged.api.openapi import Parameter, Reply, described, json_reply
from bridged.errors import BridgedError, Forbidden
from bridged.model import JobState, PatchInfo
from bridged.publication import MAX_BODY, Publication, decoded


class BackendStatus(msgspec.Struct):
    """One PC: its state and why, what of ours runs and waits on it, its owner's prompts, and what it knows. `patch`:
    what a patched ComfyUI last said of itself; null for a stock one, and for one that takes no token of ours."""

    name: str
    state: str
    reason: str
    running: int
    prefetched: int
    owner_prompts: int
    completed: int
    node_classes: int | None
    patch: PatchInfo | None


class WorkflowStatus(msgspec.Struct):
    """`obstacles`: PC -> why it cannot run the workflow; null where one can."""

    alias: str
    obstacles: dict[str, str] | None


class ConfigurationStatus(msgspec.Struct):
    """`generation` counts changes; `errors`: what is wrong with files that are left out."""

    generation: int
    errors: list[str]


class Status(msgspec.Struct):
    """`uptime` in seconds; `queue`: jobs that wait for a PC; `clients`: open WebSockets."""

    version: str
    uptime: float
    stopping: bool
    suspended: bool
    backends: list[BackendStatus]
    queue: int
    jobs: dict[JobState, int]
    clients: int
    generation_count: int
    workflows: list[WorkflowStatus]
    configuration: ConfigurationStatus


class PublishedList(msgspec.Struct):
    workflows: list[Listed]


def routes(services: Services) -> Blueprint:
    admin = Blueprint("admin", __name__)

    @admin.errorhandler(BridgedError)
    async def refuse(error: BridgedError) -> Response:
        await finish_reading()
        return error_response(error, proper=True)

    @admin.get("/status")
    @described("How the service is", replies={200: json_reply("PCs by name, never by address.", Status)})
    async def status() -> Response:
        caller().need("admin")
        return json_response(services.status())

    def need_author() -> None:
        """Raises Forbidden: who publishes has every PC run what it likes, so not everybody may who may call."""
        if services.settings().access.allow_anonymous and not caller().digest:
            raise Forbidden("while everybody may call ([access] allow_anonymous), publishing needs an API key")

    def who() -> str:
        return f"key {caller().name!r}" if caller().digest else f"a program at {caller().address}"

    @admin.get("/admin/workflows")
    @described(
        "The published workflows",
        "Those of the operator's own folder are not among them.",
        replies={200: json_reply("In the order in which they came.", PublishedList)},
    )
    async def listed() -> Response:
        return json_response(PublishedList(await services.publisher.listed()))

    @admin.post("/admin/workflows")
    @described(
        "Publish a workflow",
        "It can be run when this is answered, and wins over one of that alias in the operator's folder. What it takes "
        "the place of is kept. A refusal's `detail` says everything that is wrong.",
        body=Reply("The workflow.", {"application/json": Publication}),
        replies={
            200: json_reply("It took the place of what was published under that alias.", Published),
            201: json_reply("It is published.", Published),
        },
        refusals=(413, 503),
    )
    async def publish() -> Response:
        need_author()
        body = bytearray()
        async with aclosing(body_chunks(MAX_BODY)) as chunks:
            async for chunk in chunks:
                body += chunk
        services.gate.check_still(caller())  # the body may have taken long
        done, is_new = await services.publisher.publish(decoded(bytes(body)), who())
        return json_response(done, 201 if is_new else 200)

    @admin.delete("/admin/workflows/<path:alias>")
    @described(
        "Take a published workflow out",
        "Jobs that were submitted run on. One of that alias in the operator's folder is there again.",
        parameters=(Parameter("alias", "as it was published", place="path", required=True),),
        replies={204: Reply("It is gone; its last version is kept.")},
        refusals=(404, 503),
    )
    async def remove(alias: str) -> Response:
        need_author()
        await services.publisher.remove(alias, who())
        done = Response(b"", 204)  # with no body at all Quart breaks the connection off
        del done.headers["Content-Type"]
        return done

    return admin
