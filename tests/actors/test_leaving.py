"""What becomes of a client's jobs when it leaves, comes back, or asks for nothing; and of results beyond their room."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from bridged.actors.clients import Client, Clients, Session
from bridged.actors.messages import CLOSED
from bridged.config.schema import Jobs
from bridged.errors import BadRequest
from bridged.model import Disconnect, Fault, Grace, JobEvent, JobState, Output, Results, StoredFile
from bridged.store.ledger import ClientConnected, Saved, SavedJob
from tests.fakes.recorded_effects import Pool, RecordedLedger
from tests.fakes.recorded_effects import job as make_job


class House(Pool):
    """A pool with clients, over settings that a test may change."""

    def __init__(self) -> None:
        super().__init__()
        self.settings = Jobs()
        self.ledger = RecordedLedger(lambda: self.now)
        self.clients = Clients(self.dispatcher, self.ledger, lambda: self.settings, b"secret")
        self.effects.publish = self._publish  # type: ignore[method-assign]
        self.backend("a", max_running=9)

    def _publish(self, event: JobEvent) -> None:
        self.clients.on_event(event)

    def send(self, job_id: str, policy: Disconnect = "cancel", client_id: str = "client") -> str:
        self.dispatcher.on_submitted(replace(make_job(job_id, client_id=client_id), disconnect=policy))
        return job_id

    def leave(self, client_id: str = "client") -> None:
        """A connection that the client itself ends."""
        with pytest.raises(GeneratorExit), self.clients.session(client_id):
            raise GeneratorExit  # as a cancellation: no Exception

    def come_back(self, *, resumed: bool = False) -> tuple[Client, list[str]]:
        """Connects, and returns what it is told at once."""
        with self.clients.session("client", resumed=resumed) as (client, session):
            return client, told(session)


def told(session: Session) -> list[str]:
    return [message.detail for message in session.mailbox.take()]


@pytest.fixture
def house() -> House:
    return House()


# -- the policies ----------------------------------------------------------------------------------------------------


def test_each_job_goes_by_its_own_policy(house: House) -> None:
    house.send("cancels")
    house.send("waits", Grace(30))
    house.send("stays", "detach")
    house.leave()
    assert [house.state(name).value for name in ("cancels", "waits", "stays")] == ["cancelled", "placed", "placed"]
    house.now += 29.9
    house.clients.lapse()
    assert house.state("waits") is JobState.PLACED
    house.now += 0.2
    house.clients.lapse()
    assert house.state("waits") is JobState.CANCELLED
    failure = house.record("waits").failure
    assert failure is not None
    assert (failure.fault, failure.message) == (Fault.CLIENT, "its client disconnected and did not come back")
    house.now += 1e6
    house.clients.lapse()
    assert house.state("stays") is JobState.PLACED


def test_who_comes_back_in_time_keeps_its_job(house: House) -> None:
    house.send("waits", Grace(30))
    house.leave()
    house.now += 20
    house.come_back()
    house.now += 20
    house.clients.lapse()
    assert house.state("waits") is JobState.PLACED


def test_a_job_sent_after_leaving_is_not_taken_for_left_behind(house: House) -> None:
    house.send("left", Grace(30))
    house.leave()
    house.send("later", Grace(30))
    house.now += 31
    house.clients.lapse()
    assert (house.state("left"), house.state("later")) == (JobState.CANCELLED, JobState.PLACED)


# -- what was missed -------------------------------------------------------------------------------------------------


def test_who_comes_back_is_told_what_it_missed_and_then_closed(house: House) -> None:
    house.send("waits", Grace(30))
    house.leave()
    house.finish("waits")
    client, said = house.come_back()
    assert said == ["100.00%", CLOSED.detail]
    assert client.next_result() is house.record("waits")
    assert house.come_back()[1] == [], "once"


def test_a_failure_that_was_missed_is_told_with_its_reason(house: House) -> None:
    house.send("waits", "detach")
    house.leave()
    house.fail("waits", Fault.WORKFLOW, "broken")
    assert house.come_back()[1] == ["on a: broken", CLOSED.detail]


def test_a_job_revoked_by_leaving_is_no_news(house: House) -> None:
    """A client with a fixed id that connects for its next job would take the old end for the new one's."""
    house.send("cancels")
    house.leave()
    assert house.come_back()[1] == []


def test_after_the_grace_only_a_resume_token_brings_back_what_was_missed(house: House) -> None:
    house.send("stays", "detach")
    house.leave()
    house.finish("stays")
    house.now += house.settings.reconnect_grace + 1
    assert house.come_back()[1] == []
    assert house.come_back(resumed=True)[1] == [CLOSED.detail]


def test_resume_tokens_are_ours_and_for_one_client(house: House) -> None:
    token = house.clients.obtain("klient ü").resume_token
    assert house.clients.resumed(token) == "klient ü"
    other = Clients(house.dispatcher, house.ledger, Jobs, b"another secret")
    for wrong in (other.obtain("klient ü").resume_token, token[:-1], "x" + token, "", ".", "é.é"):
        with pytest.raises(BadRequest):
            house.clients.resumed(wrong)


# -- over a restart --------------------------------------------------------------------------------------------------


POLICIES: tuple[tuple[str, Disconnect], ...] = (("cancels", "cancel"), ("waits", Grace(500)), ("stays", "detach"))


def restarted(house: House, connected: frozenset[str]) -> House:
    jobs = tuple(
        SavedJob(r.job, r.facts, r.percent, False, tuple(r.log.values())) for r in house.dispatcher.jobs.values()
    )
    after = House()
    after.now = house.now
    after.dispatcher.restore(jobs)
    after.clients.restore(Saved(jobs, (), connected))
    return after


def test_a_connected_client_gets_time_to_come_back_after_a_restart(house: House) -> None:
    for name, policy in POLICIES:
        house.send(name, policy)
    after = restarted(house, frozenset({"client"}))
    after.now += after.settings.reconnect_grace - 1
    after.clients.lapse()
    assert [after.state(name).value for name in ("cancels", "waits", "stays")] == ["placed"] * 3
    after.now += 2
    after.clients.lapse()
    assert [after.state(name).value for name in ("cancels", "waits", "stays")] == ["cancelled", "placed", "placed"]
    after.now += 500
    after.clients.lapse()
    assert after.state("waits") is JobState.CANCELLED


def test_one_that_was_not_connected_is_not_waited_for(house: House) -> None:
    house.send("polled")
    after = restarted(house, frozenset())
    after.now += 1e6
    after.clients.lapse()
    assert after.state("polled") is JobState.PLACED


def test_an_end_shortly_before_a_crash_is_told_again(house: House) -> None:
    house.send("done")
    house.finish("done")
    after = restarted(house, frozenset({"client"}))
    assert after.come_back()[1] == ["100.00%", CLOSED.detail]


def test_connections_are_written_down_and_a_stop_leaves_them(house: House) -> None:
    with house.clients.session("client"):
        pass
    house.leave("other")
    assert house.ledger.changes == [
        ClientConnected("client", True),
        ClientConnected("client", False),
        ClientConnected("other", True),
        ClientConnected("other", False),
    ]
    with house.clients.session("stays"):
        house.clients.stop()
    assert house.ledger.changes[-1] == ClientConnected("stays", True)


# -- leases of those who poll ----------------------------------------------------------------------------------------


def test_without_a_lease_an_abandoned_job_runs_on(house: House) -> None:
    house.send("job")
    house.now += 1e6
    house.clients.lapse()
    assert house.state("job") is JobState.PLACED


def test_a_job_nobody_asks_for_expires(house: House) -> None:
    house.settings = Jobs(rest_lease=10)
    house.send("job")
    for _ in range(5):
        house.now += 9
        house.clients.get("client")  # any request of its
        house.clients.lapse()
    assert house.state("job") is JobState.PLACED
    house.now += 11
    house.clients.lapse()
    assert house.state("job") is JobState.EXPIRED
    assert house.prompt("job") in house.effects.cancelled


def test_a_request_that_waits_holds_the_lease(house: House) -> None:
    house.settings = Jobs(rest_lease=10)
    house.send("job")
    with house.clients.obtain("client").polling():
        house.now += 100
        house.clients.lapse()
    house.now += 9
    house.clients.lapse()
    assert house.state("job") is JobState.PLACED


def test_a_connection_needs_no_lease(house: House) -> None:
    house.settings = Jobs(rest_lease=10)
    with house.clients.session("client"):
        house.send("job")
        house.now += 1000
        house.clients.lapse()
    assert house.state("job") is JobState.PLACED


# -- room ------------------------------------------------------------------------------------------------------------


def result(name: str, size: int) -> Output:
    return Output(name, StoredFile(Path(f"/spool/{name}"), size, name, "image/png", ".png"))


def test_beyond_the_room_what_was_delivered_goes_first_and_the_rest_stays(house: House) -> None:
    for name in ("old", "fetched", "newer", "fetched-later"):
        house.send(name)
        house.dispatcher.on_finished(house.prompt(name), Results((result(name, 100),)))
        house.now += 1
    client = house.clients.obtain("client")
    for name in ("fetched", "fetched-later"):
        house.clients.fetched(client, name)
    assert house.clients.expire(1e9, 400) == []
    assert [file.sha256 for file in house.clients.expire(1e9, 399)] == ["fetched"]
    assert [file.sha256 for file in house.clients.expire(1e9, 0)] == ["fetched-later"]
    assert house.clients.stored == 200
    assert house.state("fetched") is JobState.SUCCEEDED, "its files are gone, what became of it stays known"
    assert (len(house.record("fetched").outputs), client.next_result("fetched")) == (1, None)
    assert {file.sha256 for file in house.clients.expire(0, 0)} == {"old", "newer"}
    assert (house.clients.stored, house.dispatcher.jobs) == (0, {})
