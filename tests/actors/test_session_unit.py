"""Clients and sessions without a network: what is told, in which order, and what ends what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from bridged.actors.clients import Client, Clients
from bridged.actors.messages import MAX_WAITING, Mailbox, Message
from bridged.actors.session import converse, info
from bridged.catalogue import TOKEN_PREFIX
from bridged.config.schema import Jobs
from bridged.errors import BadRequest
from bridged.model import Attempt, Fault, FileInput, Job, JobEvent, JobState, StoredFile
from tests.fakes.recorded_effects import CLASSES, Pool, RecordedLedger, outputs
from tests.fakes.recorded_effects import job as make_job


class ClientsPool(Pool):
    """A pool whose publications reach clients, as in the daemon."""

    def __init__(self, *, max_attempts: int = 3) -> None:
        super().__init__(max_attempts=max_attempts)
        self.clients = Clients(self.dispatcher, RecordedLedger(lambda: self.now), Jobs)
        record = self.effects.publish

        def publish(event: JobEvent) -> None:
            record(event)
            self.clients.on_event(event)

        self.effects.publish = publish  # type: ignore[method-assign]

    def of(self, client_id: str = "client") -> Client:
        return self.clients.obtain(client_id)


@pytest.fixture
def pool() -> ClientsPool:
    pool = ClientsPool()
    pool.backend("a")
    return pool


def stored(name: str = "u") -> StoredFile:
    return StoredFile(Path(f"/spool/{name}"), 1, f"sha-{name}", "image/png", ".png")


def said(messages: list[Message]) -> list[tuple[str, str]]:
    return [(message.status, message.detail) for message in messages]


# -- what a job's events say -----------------------------------------------------------------------------------------


def test_a_job_from_submission_to_closed(pool: ClientsPool) -> None:
    job_id = pool.submit()
    client = pool.of()
    assert (client.newest.status, client.newest.detail) == ("progress", "0.00%")
    with pool.clients.session("client") as (_, session):
        pool.run(job_id)
        pool.dispatcher.on_progress(pool.prompt(job_id), 12.619)
        assert said(session.mailbox.take()) == [("progress", "12.62%")]
        pool.finish(job_id)
        assert said(session.mailbox.take()) == [("progress", "100.00%"), ("closed", "Execution is done")]
        session.close("done")


def test_closed_is_said_when_the_last_open_job_has_ended(pool: ClientsPool) -> None:
    first, second = pool.submit(), pool.submit()
    with pool.clients.session("client") as (_, session):
        pool.finish(first)
        assert "closed" not in dict(said(session.mailbox.take()))
        pool.fail(second, Fault.WORKFLOW, "bad value")
        assert said(session.mailbox.take()) == [("error", "on a: bad value"), ("closed", "Execution is done")]


def test_a_retry_is_not_told_and_progress_does_not_fall() -> None:
    pool = ClientsPool()
    pool.backend("a")
    pool.backend("b")
    job_id = pool.submit()
    with pool.clients.session("client") as (_, session):
        pool.dispatcher.on_progress(pool.prompt(job_id), 50.0)
        assert said(session.mailbox.take()) == [("progress", "50.00%")]
        pool.fail(job_id, Fault.HOST)
        assert session.mailbox.take() == []
        pool.dispatcher.on_progress(pool.prompt(job_id), 10.0)
        assert said(session.mailbox.take()) == [("progress", "50.00%")]


def test_one_client_hears_nothing_of_another(pool: ClientsPool) -> None:
    with pool.clients.session("other") as (_, session):
        pool.finish(pool.submit(client_id="client"))
        assert session.mailbox.take() == []
    assert pool.clients.get("nobody") is None
    assert info(pool.clients.get("nobody"), pool.dispatcher.position) is None


def test_execution_info_is_the_newest_state(pool: ClientsPool) -> None:
    job_id = pool.submit()
    pool.dispatcher.on_progress(pool.prompt(job_id), 33.333)
    answer = info(pool.clients.get("client"), pool.dispatcher.position)
    assert answer == {
        "status": "progress",
        "detail": "33.33%",
        "details": "33.33%",
        "job_id": job_id,
        "state": "running",
    }
    pool.finish(job_id)
    after = info(pool.clients.get("client"), pool.dispatcher.position)
    assert after is not None
    assert (after["status"], after["state"]) == ("closed", "succeeded")


def test_who_polls_a_failed_job_still_sees_why(pool: ClientsPool) -> None:
    job_id = pool.submit()
    pool.fail(job_id, Fault.WORKFLOW, "value too small")
    assert info(pool.clients.get("client"), pool.dispatcher.position) == {
        "status": "error",
        "detail": "on a: value too small",
        "details": "on a: value too small",
        "job_id": job_id,
        "state": "failed",
        "reason": "on a: value too small",
        "fault": "workflow",
    }


def test_results_come_oldest_first_and_once(pool: ClientsPool) -> None:
    jobs = [pool.submit() for _ in range(3)]
    client = pool.of()
    assert client.next_result() is None
    pool.finish(jobs[1])
    pool.finish(jobs[0])
    pool.fail(jobs[2], Fault.WORKFLOW)
    first = client.next_result()
    assert first is not None
    assert first.job.id == jobs[0]
    named = client.next_result(jobs[1])
    assert named is not None
    assert named.job.id == jobs[1]
    assert client.next_result(jobs[2]) is None
    assert client.next_result("unknown") is None
    client.fetched(jobs[0])
    assert client.next_result() is named
    assert client.next_result(jobs[0]) is first, "by its id it is given again"


# -- who going away revokes what -------------------------------------------------------------------------------------


async def test_a_cancelled_session_revokes_its_clients_jobs_and_nobody_elses(pool: ClientsPool) -> None:
    mine, queued, others = pool.submit(), pool.submit(), pool.submit(client_id="other")
    prompt_id = pool.run(mine)
    with trio.CancelScope() as scope, pool.clients.session("client") as (client, _):
        scope.cancel()
        await trio.lowlevel.checkpoint()
    assert pool.effects.cancelled[0] == prompt_id
    assert [pool.state(job_id) for job_id in (mine, queued)] == [JobState.CANCELLED] * 2
    assert not pool.state(others).terminal
    assert client.session is None


async def test_a_session_that_we_close_revokes_nothing_even_when_it_is_cancelled_then(pool: ClientsPool) -> None:
    job_id = pool.submit()
    with trio.CancelScope() as scope, pool.clients.session("client") as (_, session):
        session.close("done")
        scope.cancel()
        await trio.lowlevel.checkpoint()
    assert not pool.state(job_id).terminal


async def test_the_end_of_a_socket_that_was_taken_over_revokes_nothing(pool: ClientsPool) -> None:
    job_id = pool.submit()
    older, newer = pool.clients.session("client"), pool.clients.session("client")
    with trio.CancelScope() as scope, older as (client, first):
        _, second = newer.__enter__()
        assert first.closing is not None
        assert client.session is second
        scope.cancel()
        await trio.lowlevel.checkpoint()
    assert not pool.state(job_id).terminal
    second.close("ours")
    newer.__exit__(None, None, None)
    assert not pool.state(job_id).terminal


async def test_after_a_take_over_the_newer_socket_is_the_client(pool: ClientsPool) -> None:
    job_id = pool.submit()
    older = pool.clients.session("client")
    older.__enter__()
    with trio.CancelScope() as scope, pool.clients.session("client"):
        scope.cancel()
        await trio.lowlevel.checkpoint()
    assert pool.state(job_id) is JobState.CANCELLED
    older.__exit__(None, None, None)


async def test_the_older_socket_ending_does_not_deregister_the_newer(pool: ClientsPool) -> None:
    older = pool.clients.session("client")
    _, first = older.__enter__()
    newer = pool.clients.session("client")
    client, second = newer.__enter__()
    older.__exit__(None, None, None)
    assert client.session is second
    assert pool.clients.connected() == 1
    pool.run(pool.submit())
    assert first.mailbox.take() == []
    assert said(second.mailbox.take()) == [("progress", "0.00%")]
    newer.__exit__(None, None, None)
    assert pool.clients.connected() == 0


def test_our_own_failure_is_not_the_client_going_away(pool: ClientsPool) -> None:
    job_id = pool.submit()
    with pytest.raises(ZeroDivisionError), pool.clients.session("client"):
        raise ZeroDivisionError
    with pytest.raises(ExceptionGroup), pool.clients.session("client"):
        raise ExceptionGroup("a nursery's", [ZeroDivisionError()])
    assert not pool.state(job_id).terminal


async def test_stopping_closes_every_session_and_revokes_nothing(pool: ClientsPool) -> None:
    job_id, others = pool.submit(), pool.submit(client_id="late")
    with trio.CancelScope() as scope, pool.clients.session("client") as (client, session):
        ended = client.job_ended
        pool.clients.stop()
        assert session.closing is not None
        assert ended.is_set(), "whoever waits for a result is woken"
        scope.cancel()
        await trio.lowlevel.checkpoint()
    with trio.CancelScope() as scope, pool.clients.session("late"):
        scope.cancel()
        await trio.lowlevel.checkpoint()
    assert not pool.state(job_id).terminal
    assert not pool.state(others).terminal


def test_revoking_a_client_ends_its_open_jobs_only(pool: ClientsPool) -> None:
    done, running, queued = pool.submit(), pool.submit(), pool.submit()
    pool.finish(done)
    assert pool.clients.revoke(pool.of(), "interrupted by its client") == 2
    assert pool.clients.revoke(pool.of(), "again") == 0
    assert pool.state(done) is JobState.SUCCEEDED
    assert {pool.state(running), pool.state(queued)} == {JobState.CANCELLED}
    assert said([pool.of().newest]) == [("error", "interrupted by its client")]


# -- the mailbox -----------------------------------------------------------------------------------------------------


def test_progress_coalesces_per_job_and_nothing_else_does() -> None:
    mailbox = Mailbox()
    for number in range(5):
        mailbox.put(Message("progress", f"{number}%", "one"))
        mailbox.put(Message("progress", f"{number}%", "two"))
        mailbox.put(Message("error", str(number), "one"))
    taken = mailbox.take()
    assert [m.detail for m in taken if m.status == "progress"] == ["4%", "4%"]
    assert [m.detail for m in taken if m.status == "error"] == ["0", "1", "2", "3", "4"]
    assert taken.index(Message("progress", "4%", "one")) > taken.index(Message("error", "3", "one"))
    assert mailbox.take() == []
    assert not mailbox.overflowed


def test_a_full_mailbox_drops_nothing_in_silence() -> None:
    mailbox = Mailbox()
    for number in range(MAX_WAITING):
        mailbox.put(Message("error", "x", str(number)))
    assert not mailbox.overflowed
    mailbox.put(Message("error", "x", "one more"))
    assert mailbox.overflowed


# -- one connection --------------------------------------------------------------------------------------------------


async def collect(messages: AsyncIterator[Message], count: int | None = None) -> list[Message]:
    got: list[Message] = []
    async with aclosing(messages) as stream:  # type: ignore[type-var]
        async for message in stream:
            got.append(message)
            if count is not None and len(got) >= count:
                break
    return got


async def test_an_idle_connection_hears_listening_and_then_a_time_out(
    pool: ClientsPool, autojump_clock: MockClock
) -> None:
    with pool.clients.session("client") as (client, session):
        began = trio.current_time()
        got = await collect(converse(client, session, interval=0.5, limit=4))
    assert trio.current_time() - began == pytest.approx(2.0)
    assert got[0].status == "connected"
    assert said(got[1:]) == [("listening", "listening")] * 3 + [("error", "time out error: exceed 2s")]
    assert session.closing == "timed out"


async def test_the_time_out_is_said_in_the_contracts_words(pool: ClientsPool, autojump_clock: MockClock) -> None:
    with pool.clients.session("client") as (client, session):
        got = await collect(converse(client, session, interval=1.0, limit=60))
    assert said(got[-1:]) == [("error", "time out error: exceed 60s")]


async def test_a_waiting_job_does_not_time_out_and_done_ends_the_connection(
    pool: ClientsPool, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    pool.dispatcher.on_load("a", 1)

    async def later() -> None:
        await trio.sleep(0.9)
        job_id = pool.submit()  # in the last interval before the time-out
        await trio.sleep(50)
        pool.dispatcher.on_load("a", 0)
        pool.run(job_id)
        await trio.sleep(50)
        pool.finish(job_id)

    with pool.clients.session("client") as (client, session):
        nursery.start_soon(later)
        got = await collect(converse(client, session, interval=0.5, limit=2))
    assert session.closing == "done"
    spoken = [pair for pair in said(got) if pair[0] != "listening"]
    assert spoken[1:] == [("progress", "0.00%"), ("progress", "100.00%"), ("closed", "Execution is done")]
    assert len(got) > 190, "it kept listening all the time"


async def test_a_reconnecting_client_hears_where_its_jobs_are(pool: ClientsPool, autojump_clock: MockClock) -> None:
    running, _waiting = pool.submit(), pool.submit()
    pool.dispatcher.on_progress(pool.prompt(running), 40.0)
    with pool.clients.session("client") as (client, session):
        got = await collect(converse(client, session, interval=1.0, limit=5), 2)
        assert said(got)[1:] == [("progress", "40.00%")]
        session.close("done")


async def test_closed_is_taken_back_when_a_new_job_came_before_it_was_sent(
    pool: ClientsPool, autojump_clock: MockClock
) -> None:
    with pool.clients.session("client") as (client, session):
        pool.finish(pool.submit())
        second = pool.submit()
        messages = converse(client, session, interval=1.0, limit=5)
        first = [await anext(messages) for _ in range(3)]
        assert [m.status for m in first] == ["connected", "progress", "listening"]
        pool.finish(second)
        assert said(await collect(messages)) == [("progress", "100.00%"), ("closed", "Execution is done")]


async def test_a_connection_that_was_taken_over_ends_at_once(pool: ClientsPool, autojump_clock: MockClock) -> None:
    with pool.clients.session("client") as (client, session):
        messages = converse(client, session, interval=100.0, limit=5)
        assert (await anext(messages)).status == "connected"
        began = trio.current_time()
        with pool.clients.session("client") as (_, newer):
            assert await collect(messages) == []
            newer.close("ours")
    assert trio.current_time() == began


async def test_who_does_not_take_a_terminal_message_is_disconnected(
    pool: ClientsPool, autojump_clock: MockClock
) -> None:
    with pool.clients.session("client") as (client, session):
        messages = converse(client, session, interval=1.0, limit=5)
        await anext(messages)
        for number in range(MAX_WAITING + 1):
            client.tell(Message("error", "x", str(number)))
        assert await collect(messages) == []
    assert session.closing == "it does not take its messages"


# -- uploads and what is over ----------------------------------------------------------------------------------------


def test_an_upload_token_is_its_clients_alone_and_expires(pool: ClientsPool) -> None:
    token = pool.clients.add_upload("client", "photo.png", stored(), ttl=10.0).token
    assert token.startswith(TOKEN_PREFIX)
    assert len(token) > len(TOKEN_PREFIX) + 20
    assert pool.clients.resolve("client", token) == stored()
    refusals = set()
    for client_id, asked in (("other", token), ("client", token + "x"), ("client", "")):
        with pytest.raises(BadRequest) as refused:
            pool.clients.resolve(client_id, asked)
        refusals.add(str(refused.value))
    pool.now = 10.0
    with pytest.raises(BadRequest) as refused:
        pool.clients.resolve("client", token)
    assert refusals | {str(refused.value)} == {"unknown or expired upload token; upload the file again"}


def test_expiry_keeps_what_is_in_use_and_what_is_fresh(pool: ClientsPool) -> None:
    pool.clients.add_upload("client", "used.png", stored("used"), ttl=10.0)
    pool.clients.add_upload("client", "unused.png", stored("unused"), ttl=10.0)
    fresh = pool.clients.add_upload("client", "fresh.png", stored("fresh"), ttl=100.0)
    made = make_job("j")
    using = Job(
        id=made.id,
        client_id="client",
        alias=made.alias,
        graph=made.graph,
        files=(FileInput("1", "image", stored("used")),),
        requires=CLASSES,
        created_at=0.0,
    )
    pool.dispatcher.on_submitted(using)
    pool.now = 10.0
    assert pool.clients.expire(1000.0, 1e12) == [stored("unused")]
    pool.finish("j")
    pool.now = 20.0
    assert pool.clients.expire(1000.0, 1e12) == [stored("used")]
    assert pool.clients.resolve("client", fresh.token) == stored("fresh")


def test_results_expire_and_then_the_client_is_forgotten(pool: ClientsPool) -> None:
    done, open_job = pool.submit(), pool.submit()
    pool.now = 5.0
    pool.finish(done)
    pool.now = 64.0
    assert pool.clients.expire(60.0, 1e12) == []
    pool.now = 65.0
    assert pool.clients.expire(60.0, 1e12) == [output.file for output in outputs(done)]
    assert done not in pool.dispatcher.jobs
    assert pool.clients.expire(60.0, 1e12) == []
    assert open_job in pool.of().jobs
    pool.finish(open_job)
    pool.now = 1000.0
    assert len(pool.clients.expire(60.0, 1e12)) == 1
    assert pool.clients.get("client") is None
    assert pool.dispatcher.jobs == {}


def test_a_connected_client_is_never_forgotten(pool: ClientsPool) -> None:
    with pool.clients.session("client"):
        pool.now = 1e6
        pool.clients.expire(1.0, 1e12)
        assert pool.clients.connected() == 1
    pool.now = 2e6
    pool.clients.expire(1.0, 1e12)
    assert pool.clients.get("client") is None


def test_messages_name_backends_and_never_prompts(pool: ClientsPool) -> None:
    job_id = pool.submit()
    attempt: Attempt = pool.attempt(job_id)
    pool.fail(job_id, Fault.HOST, "out of memory")
    events = [event for event in pool.effects.of(job_id) if event.failure]
    assert events
    assert all(attempt.prompt_id not in str(event.failure) for event in events)
