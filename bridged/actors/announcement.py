"""What a webhook is told of a job's end: the delivery that goes into the ledger together with that end. Pure."""

from __future__ import annotations

import msgspec

from bridged.model import Job, Refused, shown_client_id
from bridged.store.ledger import DeliveryAdded, JobFacts


class _OutputTold(msgspec.Struct, frozen=True):
    name: str
    size: int
    content_type: str
    sha256: str


class Announcement(msgspec.Struct, frozen=True):
    """The body, as JSON. Times in seconds since 1970, sizes in bytes; `reason` and `fault` are null for a success."""

    job_id: str
    client_id: str = msgspec.field(name="clientId")
    workflow: str
    state: str
    reason: str | None
    fault: str | None
    created_at: float
    ended_at: float
    outputs: tuple[_OutputTold, ...]
    refused: tuple[Refused, ...]
    delivery_id: str


def announcement(job: Job, facts: JobFacts, delivery_id: str) -> tuple[DeliveryAdded, ...]:
    """The delivery that an ended job's webhook is due, at once; none where it has no webhook."""
    if not job.webhook or facts.ended_at is None:
        return ()
    failure = facts.failure
    told = Announcement(
        job_id=job.id,
        client_id=shown_client_id(job.client_id),
        workflow=job.alias,
        state=facts.state.value,
        reason=failure.message if failure is not None else None,
        fault=failure.fault.value if failure is not None else None,
        created_at=job.created_at,
        ended_at=facts.ended_at,
        outputs=tuple(
            _OutputTold(output.name, output.file.size, output.file.content_type, output.file.sha256)
            for output in facts.outputs
        ),
        refused=facts.refused,
        delivery_id=delivery_id,
    )
    return (DeliveryAdded(delivery_id, job.id, job.webhook, msgspec.json.encode(told), facts.ended_at),)


def ended_at(delivery: DeliveryAdded) -> float:
    """When the job of a delivery ended: the ledger's `due_at` moves with each try."""
    return msgspec.json.decode(delivery.body, type=Announcement).ended_at
