"""One connection: what it is told, in which order; and what a client that polls is told."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable
from typing import Any

import trio

from bridged.actors.clients import Client, Session
from bridged.actors.messages import Message
from bridged.model import JobState, shown_client_id

PACE = 0.05
"""seconds between two messages of mere progress on one socket: nobody reads more than 20 a second"""


async def converse(
    client: Client, session: Session, *, interval: float, limit: int
) -> AsyncGenerator[Message, None]:
    """What one connection is sent, in order, until we end it: `listening` every `interval` seconds while nothing else
    is said; after `limit` of them with no job submitted a time-out error."""
    yield Message("connected", f"connected / {shown_client_id(client.client_id)}", resume=client.resume_token)
    for record in client.open_jobs():
        if record.state is JobState.RUNNING:
            yield Message("progress", f"{record.percent:.2f}%", record.job.id)
    submitted = client.submitted
    idle = 0
    spoke = -math.inf
    while session.closing is None:
        with trio.move_on_after(interval) as patience:
            await session.mailbox.wait()
        with trio.move_on_at(spoke + PACE):
            await session.mailbox.wait_urgent()
        if session.mailbox.overflowed:
            session.close("it does not take its messages")
            return
        messages = session.mailbox.take()
        spoke = trio.current_time() if messages else spoke
        for message in messages:
            if message.status == "closed" and client.open_jobs():
                continue  # a new job came before this was sent
            if message.status == "closed":
                session.close("done")
            yield message
            if session.closing is not None:
                return
        if patience.cancelled_caught and not messages:
            idle = idle + 1 if client.submitted == submitted and not client.open_jobs() else 0
            if idle >= limit:
                yield Message("error", f"time out error: exceed {limit * interval:g}s")
                session.close("timed out")
                return
            yield Message("listening", "listening")


def info(client: Client | None, position: Callable[[str], int | None]) -> dict[str, Any] | None:
    """The answer of /execution-info; `position` gives a queued job's place in the queue."""
    if client is None:
        return None
    answer: dict[str, Any] = {"status": client.newest.status, "detail": client.newest.detail}
    if client.jobs:
        record = next(reversed(client.jobs.values()))
        answer |= {"details": answer["detail"], "job_id": record.job.id, "state": record.shown_state.value}
        if record.state is JobState.QUEUED:
            answer["position"] = position(record.job.id)
        if record.failure is not None and record.shown_state is record.state:
            answer |= {"reason": record.failure.message, "fault": record.failure.fault.value}
    return answer
