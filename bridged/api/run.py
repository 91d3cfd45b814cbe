"""`POST /run`, an endpoint of ours: one request that submits a job and is answered with its files.

A client that goes away while it waits takes its job with it, as a WebSocket client does. Proper status codes: 200 with
the files, 202 where the job still goes on after `wait` seconds, 4xx and 5xx by whose fault it was.
"""

from __future__ import annotations

import uuid

from quart import Blueprint, Response, request

from bridged.actors.dispatcher import JobRecord
from bridged.api.app import Services, error_response, finish_reading, json_response, read_json
from bridged.api.query import checked_client_id, result_kind, seconds
from bridged.api.results import result_response
from bridged.errors import BadRequest, BridgedError
from bridged.model import Fault, JobState

STATUS_OF_FAULT = {Fault.WORKFLOW: 422, Fault.HOST: 502, Fault.NETWORK: 502, Fault.CLIENT: 409, Fault.POLICY: 422}


def routes(services: Services) -> Blueprint:
    runs = Blueprint("run", __name__)

    @runs.post("/run")
    async def run() -> Response:
        client_id = checked_client_id(request.args.get("clientId", str(uuid.uuid4())))
        kind, wait = result_kind(), seconds("wait", 60.0)
        body = await read_json()
        alias = body.pop("workflow", None)
        if not isinstance(alias, str):
            raise BadRequest("`workflow` is required: an alias of /workflow-list")
        submitted = services.intake.submit(client_id, alias, body)
        client = services.clients.obtain(client_id)
        record = client.jobs[submitted.job_id]
        answered = False
        try:
            ended = await client.wait_ended(record, wait)
            answered = True
        finally:
            if not answered:
                services.dispatcher.on_revoked(submitted.job_id, "its client disconnected")
        if not ended:
            detail = f"still {record.state.value}; fetch it with /history"
            return json_response({"detail": detail, "job_id": submitted.job_id, "clientId": client_id}, 202)
        if record.state is JobState.SUCCEEDED and record.outputs:
            return result_response(client, record, kind, services.spool)
        return _failure(record)

    @runs.errorhandler(BridgedError)
    async def refuse(error: BridgedError) -> Response:
        await finish_reading()
        return error_response(error, proper=True)

    return runs


def _failure(record: JobRecord) -> Response:
    if record.failure is None:
        return json_response({"detail": "the job ended with no result", "job_id": record.job.id}, 422)
    answer = {"detail": record.failure.message, "fault": record.failure.fault.value, "job_id": record.job.id}
    return json_response(answer, STATUS_OF_FAULT[record.failure.fault])
