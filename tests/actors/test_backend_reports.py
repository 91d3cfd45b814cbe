"""A backend actor's reports and the calls that cross them, with the network replaced by gates."""

from __future__ import annotations

import ssl
from types import SimpleNamespace
from typing import Any

import trio
import trio.testing

from bridged.actors.backend import BackendActor, Shared
from bridged.actors.dispatcher import Dispatcher
from bridged.actors.health import Outage
from bridged.comfy import protocol
from bridged.config.schema import Backend, Settings
from bridged.errors import AttemptFailed
from bridged.model import Attempt, Fault, Job, JobState
from tests.fakes.recorded_effects import CLASSES, RecordedEffects, RecordedLedger, job


class ToActor(RecordedEffects):
    actor: BackendActor

    def start(self, job: Job, attempt: Attempt) -> None:
        self.actor.start(job, attempt)

    def cancel(self, attempt: Attempt) -> None:
        self.actor.cancel(attempt.prompt_id)

    def withdraw(self, attempt: Attempt) -> None:
        self.actor.withdraw(attempt.prompt_id)


async def test_an_upload_refused_while_the_job_ahead_is_being_cancelled_leaks_no_place(
    nursery: trio.Nursery,
) -> None:
    """Its end makes the owner's load change, which wants to withdraw that same attempt before it was reported."""
    effects = ToActor()
    dispatcher = Dispatcher(effects, trio.current_time)
    no_spool: Any = SimpleNamespace()
    no_nodes: Any = SimpleNamespace()
    ledger = RecordedLedger(trio.current_time)
    shared = Shared(dispatcher, no_nodes, no_spool, ledger, ssl.create_default_context(), "c", Settings)
    actor = effects.actor = BackendActor(Backend(name="pc", url="http://127.0.0.1:1"), shared, Outage())
    refuse = trio.Event()

    async def attempt(follow: Any) -> Any:
        if follow.job.id == "posted":
            follow.posted = True
            follow.settled.set()
            await trio.sleep_forever()
        await refuse.wait()
        raise AttemptFailed("it refuses a file (HTTP status 500)", Fault.HOST)

    async def never_confirmed(follow: Any) -> None:
        await trio.sleep_forever()

    actor._runner._attempt = attempt  # type: ignore[method-assign]
    actor._control.cancel = never_confirmed  # type: ignore[method-assign]
    dispatcher.on_backend_configured("pc", max_running=1, draining=False)
    actor._nursery = nursery
    dispatcher.on_backend_up("pc", CLASSES, 0)
    dispatcher.on_submitted(job("posted"))
    dispatcher.on_submitted(job("uploads"))
    await trio.testing.wait_all_tasks_blocked()
    actor._on_event(protocol.Status(1))  # the first is in its queue
    dispatcher.on_revoked("posted", "its client disconnected")
    refuse.set()
    await trio.testing.wait_all_tasks_blocked()
    assert dispatcher.jobs["uploads"].state is JobState.FAILED
    assert [entry.record.job.id for _, entry in dispatcher._on_backend.values()] == ["posted"]
    assert dispatcher.on_revoked("uploads", "again") is False
