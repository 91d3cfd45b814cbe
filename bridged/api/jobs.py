"""`GET /jobs`, an endpoint of ours: what became of a job, with every attempt, in states that people can tell apart.

Proper status codes: 404 for a job nobody knows (or whose time is over), 400 for a request that is wrong.
"""

from __future__ import annotations

from typing import Any

from quart import Blueprint, Response, request

from bridged.actors.books import JobRecord
from bridged.api.app import Services, caller, error_response, json_response
from bridged.errors import UnknownJob
from bridged.model import AttemptLog, Fault, JobState, shown_client_id

MAX_JOBS = 1000
"""jobs of one client in one answer: the newest"""


def routes(services: Services) -> Blueprint:
    jobs = Blueprint("jobs", __name__)

    @jobs.get("/jobs/<job_id>")
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
    async def of_client() -> Response:
        client = services.clients.get(caller().client_id(request.args))
        records = list(client.jobs.values())[-MAX_JOBS:] if client is not None else []
        outlook = services.dispatcher.outlook()
        return json_response({"jobs": [describe(record, outlook) for record in records]})

    return jobs


def _may_see(record: JobRecord) -> bool:
    """An operator sees every job, others their own: nobody learns that another's exists."""
    return record.job.owner == caller().name or "admin" in caller().scopes


def describe(record: JobRecord, outlook: dict[str, tuple[int, float | None]]) -> dict[str, Any]:
    """A job as JSON: times in seconds since 1970, sizes in bytes, `position` 1 for the next one."""
    job, state = record.job, record.shown_state
    known = state is record.state
    failure, outputs = (record.failure, record.outputs) if known else (None, ())
    position, eta = outlook.get(job.id, (None, None))
    answer: dict[str, Any] = {
        "job_id": job.id,
        "clientId": shown_client_id(job.client_id),
        "workflow": job.alias,
        "state": state.value,
        "position": position,
        "eta": eta,
        "percent": round(record.percent, 2),
        "created_at": job.created_at,
        "ended_at": record.ended_at if known else None,
        "reruns": record.facts.reruns,
        "attempts": [_attempt(entry) for entry in record.log.values()],
        "outputs": [
            {
                "name": output.name,
                "size": output.file.size,
                "content_type": output.file.content_type,
                "sha256": output.file.sha256,
                "available": not record.facts.outputs_gone,
            }
            for output in outputs
        ],
        "refused": [{"name": each.name, "reason": each.reason} for each in (record.facts.refused if known else ())],
    }
    if failure is not None:
        answer |= {"reason": failure.message, "fault": failure.fault.value}
    if state is JobState.CANCELLED:
        answer["cancelled_by"] = "client" if failure and failure.fault is Fault.CLIENT else "service"
    return answer


def _attempt(entry: AttemptLog) -> dict[str, Any]:
    return {
        "number": entry.attempt.number,
        "backend": entry.attempt.backend,
        "prompt_id": entry.attempt.prompt_id,
        "state": entry.state.value,
        "reason": entry.reason,
        "placed_at": entry.placed_at,
        "ended_at": entry.ended_at,
    }
