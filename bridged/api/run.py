"""`POST /run`, an endpoint of ours: one request that submits a job and is answered with its files.

A client that goes away while it waits takes its job with it, as a WebSocket client does, unless it gave an
Idempotency-Key: then it may come again for it. Proper status codes: 200 with
the files, 202 where the job still goes on after `wait` seconds, 4xx and 5xx by whose fault it was.
"""

from __future__ import annotations

import uuid
from functools import partial

import msgspec

from bridged.actors.books import JobRecord
from bridged.api.app import Services
from bridged.api.hot import Answer, ClientGone, Endpoint, HotRequest, json_answer
from bridged.api.openapi import CLIENT_ID, described, json_reply
from bridged.api.query import idempotency_key, result_kind, seconds, submission
from bridged.api.results import result_answer
from bridged.api.shapes import FILES, IDEMPOTENCY_KEY, RES_TYPE, SUBMISSION, Failed, waiting
from bridged.errors import BadRequest
from bridged.model import Fault, JobState, shown_client_id

STATUS_OF_FAULT = {Fault.WORKFLOW: 422, Fault.HOST: 502, Fault.NETWORK: 502, Fault.CLIENT: 409, Fault.POLICY: 422}


class StillOpen(msgspec.Struct):
    """Where the job goes on: its files are fetched with /history under this clientId."""

    detail: str
    job_id: str
    clientId: str


def hot_endpoints(services: Services) -> dict[str, Endpoint]:
    @described(
        "Submit a job and wait for its files",
        "A client that goes away while it waits takes the job with it, unless it gave an Idempotency-Key.",
        parameters=(
            msgspec.structs.replace(CLIENT_ID, required=False),
            IDEMPOTENCY_KEY,
            RES_TYPE,
            waiting(60, "seconds to wait for the job's end"),
        ),
        body=SUBMISSION,
        replies={
            200: FILES,
            202: json_reply("The job still goes on.", StillOpen),
            409: json_reply("The job was cancelled.", Failed),
            422: json_reply("A value is wrong, no PC can run the workflow, or it failed on them.", Failed),
            502: json_reply("The job failed for a reason that lies with the PCs or the network.", Failed),
        },
        refusals=(404, 413, 503),
    )
    async def run(request: HotRequest) -> Answer:
        key = idempotency_key(request.header(b"idempotency-key"))
        if key and "clientId" not in request.args:
            raise BadRequest("an Idempotency-Key is one client's: it needs ?clientId=…")
        caller = request.caller
        name = caller.client_id({"clientId": str(uuid.uuid4()), **request.args})
        kind, wait = result_kind(request.args), seconds(request.args, "wait", 60.0)
        alias, values, webhook = submission(await request.json(services.max_json()))
        services.gate.submitting(caller, alias)
        submitted = await services.intake.submit(
            name, alias, values, key=key, webhook=webhook, max_jobs=caller.max_jobs, weight=caller.weight
        )
        client = services.clients.obtain(name)
        record = client.jobs[submitted.job_id]
        try:
            ended = await request.while_connected(partial(client.wait_ended, record, wait))
        except ClientGone:
            if not key:  # who gave one may send it again, or does so already
                services.dispatcher.on_revoked(submitted.job_id, "its client disconnected")
            raise
        if not ended:
            detail = f"still {record.shown_state.value}; fetch it with /history"
            return json_answer({"detail": detail, "job_id": submitted.job_id, "clientId": shown_client_id(name)}, 202)
        if record.state is JobState.SUCCEEDED and record.outputs:
            return result_answer(services, client, record, kind)
        return _failure(record)

    return {"/run": Endpoint(("POST",), run, proper=True)}


def _failure(record: JobRecord) -> Answer:
    if record.failure is None:
        return json_answer({"detail": "the job ended with no result", "job_id": record.job.id}, 422)
    answer = {"detail": record.failure.message, "fault": record.failure.fault.value, "job_id": record.job.id}
    return json_answer(answer, STATUS_OF_FAULT[record.failure.fault])
