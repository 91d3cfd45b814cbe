"""`GET /jobs`, an endpoint of ours: what became of a job, with every attempt, in states that people can tell apart.

Proper status codes: 404 for a job nobody knows (or whose time is over), 400 for a request that is wrong.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from quart import Blueprint, Response, request

from bridged.actors.books import JobRecord
from bridged.api.app import Services, caller, error_response, json_response
from bridged.api.openapi import CLIENT_ID, Parameter, described, json_reply
from bridged.api.shapes import RefusedFile
from bridged.errors import UnknownJob
from bridged.model import AttemptLog, AttemptState, Fault, JobState, shown_client_id

MAX_JOBS = 1000
"""jobs of one client in one answer: the newest"""


class AttemptShown(msgspec.Struct):
    """One try of a job on one PC; times in seconds since 1970."""

    number: int
    backend: str
    prompt_id: str
    state: AttemptState
    reason: str
    placed_at: float
    ended_at: float | None


class OutputShown(msgspec.Struct):
    """One file; `size` in bytes, `available`: it can still be fetched."""

    name: str
    size: int
    content_type: str
    sha256: str
    available: bool


class JobShown(msgspec.Struct):
    """A job: times in seconds since 1970, `position` 1 for the next one, `eta` in seconds. `fault`: whose the failure
    was."""

    job_id: str
    clientId: str
    workflow: str
    state: JobState
    position: int | None
    eta: float | None
    percent: float
    created_at: float
    ended_at: float | None
    reruns: int
    attempts: list[AttemptShown]
    outputs: list[OutputShown]
    refused: list[RefusedFile]
    reason: str | msgspec.UnsetType = msgspec.UNSET
    fault: Fault | msgspec.UnsetType = msgspec.UNSET
    cancelled_by: Literal["client", "service"] | msgspec.UnsetType = msgspec.UNSET


class JobList(msgspec.Struct):
    jobs: list[JobShown]


def routes(services: Services) -> Blueprint:
    jobs = Blueprint("jobs", __name__)

    @jobs.get("/jobs/<job_id>")
    @described(
        "What became of a job",
        parameters=(Parameter("job_id", "as a submission was answered", place="path", required=True),),
        replies={200: json_reply("The job.", JobShown)},
        refusals=(404,),
    )
    async def one(job_id: str) -> Response:
        record = services.dispatcher.jobs.get(job_id)
        if record is None or not _may_see(record):
            error = UnknownJob(f"no job {job_id!r}: it never was, or its time (result_ttl) is over")
            return error_response(error, proper=True)
        if record.job.owner == caller().name:
            services.clients.get(record.job.client_id)  # asking renews the client's lease
        outlook = services.dispatcher.outlook() if record.state is JobState.QUEUED else {}
        return json_response(describe(record, outlook))

    @jobs.get("/jobs")
    @described(
        "A client's jobs",
        parameters=(CLIENT_ID,),
        replies={200: json_reply(f"In the order of submission, the newest {MAX_JOBS}.", JobList)},
    )
    async def of_client() -> Response:
        client = services.clients.get(caller().client_id(request.args))
        records = list(client.jobs.values())[-MAX_JOBS:] if client is not None else []
        outlook = services.dispatcher.outlook()
        return json_response(JobList([describe(record, outlook) for record in records]))

    return jobs


def _may_see(record: JobRecord) -> bool:
    """An operator sees every job, others their own: nobody learns that another's exists."""
    return record.job.owner == caller().name or "admin" in caller().scopes


def describe(record: JobRecord, outlook: dict[str, tuple[int, float | None]]) -> JobShown:
    """`outlook`: job id -> its place in the queue, and in how many seconds it may begin."""
    job, state = record.job, record.shown_state
    known = state is record.state
    failure, outputs = (record.failure, record.outputs) if known else (None, ())
    position, eta = outlook.get(job.id, (None, None))
    shown = JobShown(
        job_id=job.id,
        clientId=shown_client_id(job.client_id),
        workflow=job.alias,
        state=state,
        position=position,
        eta=eta,
        percent=round(record.percent, 2),
        created_at=job.created_at,
        ended_at=record.ended_at if known else None,
        reruns=record.facts.reruns,
        attempts=[_attempt(entry) for entry in record.log.values()],
        outputs=[
            OutputShown(
                output.name,
                output.file.size,
                output.file.content_type,
                output.file.sha256,
                available=not record.facts.outputs_gone,
            )
            for output in outputs
        ],
        refused=[RefusedFile(each.name, each.reason) for each in (record.facts.refused if known else ())],
    )
    if failure is not None:
        shown.reason, shown.fault = failure.message, failure.fault
    if state is JobState.CANCELLED:
        shown.cancelled_by = "client" if failure and failure.fault is Fault.CLIENT else "service"
    return shown


def _attempt(entry: AttemptLog) -> AttemptShown:
    return AttemptShown(
        number=entry.attempt.number,
        backend=entry.attempt.backend,
        prompt_id=entry.attempt.prompt_id,
        state=entry.state,
        reason=entry.reason,
        placed_at=entry.placed_at,
        ended_at=entry.ended_at,
    )
