"""Every change goes through the ledger and comes back; a late or doubled one never overwrites."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bridged.model import AttemptState, JobState
from bridged.store.ledger import (
    AttemptMoved,
    Change,
    ClientConnected,
    DeliveryAdded,
    DeliveryMoved,
    JobAdded,
    JobFacts,
    JobMoved,
    JobsForgotten,
    JobStarted,
    ProgressSeen,
    ResultFetched,
    Saved,
    SavedDelivery,
    SavedJob,
    UploadAdded,
    UploadsForgotten,
    ended,
    moved,
)
from bridged.store.sqlite import SqliteLedger
from tests.store.samples import FULL_FACTS, full_job, job, log_of, opened, reloaded, rows, upload

PLACED = JobFacts(state=JobState.PLACED, prompt_id="j-1", attempts=1)
HOOK = DeliveryAdded("d", "j", "https://example.org/ü", b'{"\x00\xff": 1}', 50.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


@pytest.fixture
def ledger(path: Path) -> Iterator[SqliteLedger]:
    ledger = opened(path)
    yield ledger
    ledger.close()


def saved(path: Path, *changes: Change) -> Saved:
    ledger = opened(path)
    ledger.write(*changes)
    ledger.close()
    return reloaded(path)


def test_a_submission_comes_back_with_all_of_its_fields(path: Path) -> None:
    found = saved(path, JobAdded(full_job("j")), JobAdded(job("k")))
    assert found == Saved(
        (SavedJob(full_job("j"), JobFacts(), 0.0, False, ()), SavedJob(job("k"), JobFacts(), 0.0, False, ()))
    )


def test_the_facts_of_a_job_come_back_with_all_of_their_fields(path: Path) -> None:
    (found,) = saved(path, JobAdded(full_job("j")), moved("j", JobFacts(), FULL_FACTS)).jobs
    assert found.facts == FULL_FACTS
    for field in msgspec.structs.fields(JobFacts):
        assert getattr(FULL_FACTS, field.name) != field.default, f"{field.name} shows nothing: it is the default"


def test_what_an_ended_job_was_made_of_is_not_kept(path: Path) -> None:
    (found,) = saved(path, JobAdded(full_job("j")), moved("j", JobFacts(), FULL_FACTS)).jobs
    assert found.job == msgspec.structs.replace(full_job("j"), graph={}, files=())
    assert rows(path, "SELECT work FROM jobs") == [None]


def test_the_order_of_jobs_is_that_of_their_submission_whatever_became_of_them(path: Path) -> None:
    names = ["z", "a", "m", "b"]
    saved(path, *(JobAdded(job(name)) for name in names))
    again = saved(path, moved("z", JobFacts(), PLACED), JobsForgotten(("m",)), JobAdded(job("0")), JobAdded(job("m")))
    assert [each.job.id for each in again.jobs] == ["z", "a", "b", "0", "m"]


def test_attempts_come_back_in_their_order(path: Path) -> None:
    logs = [log_of("j", number, reason=f"ünï {number}") for number in (10, 2, 1)]
    (found,) = saved(path, JobAdded(job("j")), *map(AttemptMoved, logs)).jobs
    assert found.attempts == tuple(reversed(logs))


@pytest.mark.parametrize("state", [state for state in AttemptState if state.terminal])
def test_an_ended_attempt_never_changes(path: Path, state: AttemptState) -> None:
    first = log_of("j")
    end = ended(first, state, 7.0, "why")
    changes = [first, msgspec.structs.replace(first, state=AttemptState.RUNNING), end, first]
    changes += [ended(first, late, 9.0, "late") for late in AttemptState if late.terminal]
    (found,) = saved(path, JobAdded(job("j")), *map(AttemptMoved, changes)).jobs
    assert found.attempts == (end,)


def test_percentages_only_rise(path: Path) -> None:
    (found,) = saved(path, JobAdded(job("j")), *(ProgressSeen("j", each) for each in (10.0, 55.5, 20.0))).jobs
    assert found.percent == 55.5


def test_fetched_results_are_known_as_such(path: Path) -> None:
    found = saved(path, JobAdded(job("j")), JobAdded(job("k")), ResultFetched("k"), ResultFetched("k"))
    assert [each.fetched for each in found.jobs] == [False, True]


def test_a_forgotten_job_leaves_nothing(path: Path) -> None:
    many = [job(name) for name in "abc"]
    log = [AttemptMoved(log_of(each.id, number)) for each in many for number in (1, 2)]
    found = saved(path, *map(JobAdded, many), *log, JobsForgotten(("a", "c", "unknown")))
    assert [each.job.id for each in found.jobs] == ["b"]
    assert rows(path, "SELECT DISTINCT job_id FROM attempts") == ["b"]


def test_uploads_come_and_go(path: Path) -> None:
    found = saved(path, *(UploadAdded(upload(token)) for token in "abc"), UploadsForgotten(("b", "x")))
    assert sorted(found.uploads, key=lambda each: each.token) == [upload("a"), upload("c")]
    assert saved(path, UploadsForgotten(("a", "c"))).uploads == ()


def test_who_is_connected(path: Path) -> None:
    came = [ClientConnected(each, True) for each in ("a", "b", "b", "ünï")]
    found = saved(path, *came, ClientConnected("a", False), ClientConnected("never", False))
    assert found.connected == {"b", "ünï"}
    assert saved(path, ClientConnected("a", True)).connected == {"a", "b", "ünï"}


def test_the_count_of_started_jobs(path: Path) -> None:
    saved(path, *(JobStarted(each) for each in "abc"))
    ledger = opened(path)
    assert ledger.generation_count == 3
    ledger.close()


def test_deliveries_wait_for_their_time_and_go_when_taken(path: Path) -> None:
    later = msgspec.structs.replace(HOOK, id="e", due_at=40.0)
    found = saved(path, DeliveryAdded("f", "j", "u", b"", 1.0), DeliveryAdded("g", "j", "u", b"", 2.0))
    assert [each.delivery.id for each in found.deliveries] == ["f", "g"]
    found = saved(
        path,
        *(DeliveryAdded(HOOK.id, HOOK.job_id, HOOK.url, HOOK.body, HOOK.due_at), later),
        *(DeliveryMoved("d", 2, 30.0), DeliveryMoved("f", 1, None), DeliveryMoved("g", 9, None)),
        DeliveryMoved("unknown", 1, 5.0),
    )
    assert found.deliveries == (
        SavedDelivery(msgspec.structs.replace(HOOK, due_at=30.0), 2),
        SavedDelivery(later, 0),
    )


def test_every_kind_of_change_is_tried_here() -> None:
    import tests.store.test_changes as here

    for kind in Change.__args__:
        assert kind.__name__ in vars(here), f"{kind.__name__} has no test"


# -- compare and set -------------------------------------------------------------------------------------------------


LATE = {
    "from another state": JobMoved("j", JobState.QUEUED, "j-1", FULL_FACTS),
    "from another attempt": JobMoved("j", JobState.PLACED, "j-0", FULL_FACTS),
    "from no attempt": JobMoved("j", JobState.PLACED, None, FULL_FACTS),
    "of an unknown job": JobMoved("nobody", JobState.PLACED, "j-1", FULL_FACTS),
}


@pytest.mark.parametrize("late", LATE)
def test_a_late_report_changes_nothing_and_is_logged(
    path: Path, ledger: SqliteLedger, late: str, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.write(JobAdded(job("j")), moved("j", JobFacts(), PLACED), LATE[late], ResultFetched("j"))
    ledger.close()
    (found,) = reloaded(path).jobs
    assert (found.facts, found.job.graph) == (PLACED, job("j").graph)
    assert found.fetched, "the change after it is not held up"
    assert "the ledger refused job" in caplog.text


def test_a_doubled_report_changes_nothing(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = JobFacts(state=JobState.FAILED, ended_at=1.0)
    other = JobFacts(state=JobState.SUCCEEDED, ended_at=2.0)
    (found,) = saved(path, JobAdded(job("j")), moved("j", JobFacts(), one), moved("j", JobFacts(), other)).jobs
    assert found.facts == one
    assert caplog.text.count("the ledger refused job j from queued to succeeded") == 1


def test_a_former_owner_moves_no_job(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    former = opened(path)
    former.write(JobAdded(job("j")))
    former._commit_here()
    present = opened(path)
    former.write(moved("j", JobFacts(), FULL_FACTS))
    former.close()
    assert "the ledger refused job j" in caplog.text
    assert present.load().jobs[0].facts == JobFacts()
    present.write(moved("j", JobFacts(), PLACED))
    present.close()
    assert reloaded(path).jobs[0].facts == PLACED
