"""The dispatcher against recorded effects: no sleeping, no tasks, one plain call after another."""

from __future__ import annotations

from typing import Any

import pytest

from bridged.actors.dispatcher import TOO_LARGE_FOR
from bridged.errors import NoBackendCanRun, Stopping
from bridged.model import OUT_OF_MEMORY, Attempt, AttemptLog, AttemptState, Failure, Fault, Job, JobState, Results
from bridged.store.ledger import AttemptMoved, JobAdded, JobFacts, JobMoved, JobsForgotten, ProgressSeen, SavedJob
from tests.fakes.recorded_effects import CLASSES, Pool, job, outputs

NOT_RETRIED = [Fault.WORKFLOW, Fault.CLIENT, Fault.POLICY]
RETRIED = [Fault.HOST, Fault.NETWORK]


@pytest.fixture
def pool() -> Pool:
    return Pool()


def states(pool: Pool, job_id: str) -> list[str]:
    return [event.state.value for event in pool.effects.of(job_id)]


# -- placement -------------------------------------------------------------------------------------------------------


def test_a_job_waits_until_a_backend_is_up(pool: Pool) -> None:
    pool.backend("a", up=False)
    job_id = pool.submit()
    assert pool.state(job_id) is JobState.QUEUED
    assert pool.effects.placed() == []
    pool.dispatcher.on_backend_up("a", CLASSES, 0)
    assert pool.effects.placed() == [(job_id, "a")]
    assert states(pool, job_id) == ["queued", "placed"]


def test_placed_is_published_before_the_start_is_caused(pool: Pool) -> None:
    pool.backend("a")
    job_id = pool.submit()
    kinds = [(kind, what) for kind, what, _ in pool.effects.calls]
    assert kinds == [("publish", job_id), ("publish", job_id), ("start", pool.prompt(job_id))]


def test_running_places_are_filled_before_anything_is_prefetched(pool: Pool) -> None:
    pool.backend("a")
    pool.backend("b")
    jobs = [pool.submit() for _ in range(5)]
    assert pool.effects.placed() == [(jobs[0], "a"), (jobs[1], "b"), (jobs[2], "a"), (jobs[3], "b")]
    assert pool.state(jobs[4]) is JobState.QUEUED


def test_the_longest_idle_backend_gets_the_next_job(pool: Pool) -> None:
    pool.backend("a")
    pool.backend("b")
    first, second = pool.submit(), pool.submit()
    pool.now = 5.0
    pool.finish(second)  # b is idle since 5
    pool.now = 9.0
    pool.finish(first)  # a is idle since 9
    assert [pool.where(pool.submit()) for _ in range(2)] == ["b", "a"]


def test_the_least_loaded_backend_wins_over_the_longest_idle(pool: Pool) -> None:
    pool.backend("a", max_running=2)
    pool.backend("b", max_running=2)
    placed = [pool.where(pool.submit()) for _ in range(4)]
    assert placed == ["a", "b", "a", "b"]


def test_jobs_are_placed_in_the_order_of_submission(pool: Pool) -> None:
    pool.backend("a")
    jobs = [pool.submit() for _ in range(6)]
    done: list[str] = []
    while pool.dispatcher.open_jobs():
        running = pool.effects.attempts[len(done)].job_id
        pool.finish(running)
        done.append(running)
    assert done == jobs


def test_a_job_that_fits_nowhere_now_holds_up_nobody(pool: Pool) -> None:
    pool.backend("a")
    pool.backend("rare", up=False)
    waiting = pool.submit(requires={"RareNode"})
    following = pool.submit()
    assert pool.state(waiting) is JobState.QUEUED
    assert pool.where(following) == "a"


def test_only_backends_that_know_every_node_class_are_used(pool: Pool) -> None:
    pool.backend("a", classes={"LoadImage"})
    pool.backend("b", classes={"LoadImage", "SaveImage", "Extra"})
    assert pool.where(pool.submit()) == "b"


def test_prefetch_zero_means_none(pool: Pool) -> None:
    alone = Pool(prefetch=0)
    alone.backend("a")
    alone.submit()
    assert alone.state(alone.submit()) is JobState.QUEUED


def test_a_changed_prefetch_setting_is_used_without_a_restart(pool: Pool) -> None:
    pool.backend("a")
    pool.submit(), pool.submit()
    pool.dispatcher.prefetch = 0
    third = pool.submit()
    pool.finish("job-1")
    assert pool.state(third) is JobState.QUEUED
    pool.dispatcher.prefetch = 1
    fourth = pool.submit()
    assert (pool.where(third), pool.state(fourth)) == ("a", JobState.QUEUED)


def test_max_running_of_a_backend_is_filled_and_one_prefetched(pool: Pool) -> None:
    pool.backend("a", max_running=3)
    for _ in range(6):
        pool.submit()
    assert len(pool.effects.attempts) == 4
    (snapshot,) = pool.dispatcher.snapshots()
    assert (snapshot.load, snapshot.capacity) == (4, 4)


def test_a_place_is_free_again_while_outputs_are_collected(pool: Pool) -> None:
    pool.backend("a")
    jobs = [pool.submit() for _ in range(3)]
    first = pool.run(jobs[0])
    pool.dispatcher.on_collecting(first)
    assert pool.where(jobs[2]) == "a"
    assert pool.state(jobs[0]) is JobState.RUNNING
    pool.dispatcher.on_collecting(first)
    assert pool.dispatcher.snapshots()[0].load == 2
    assert pool.finish(jobs[0])


# -- owners, draining, away ------------------------------------------------------------------------------------------


def test_a_backend_busy_with_its_owner_gets_nothing(pool: Pool) -> None:
    pool.backend("a", foreign=1)
    job_id = pool.submit()
    assert pool.state(job_id) is JobState.QUEUED
    pool.dispatcher.on_load("a", 0)
    assert pool.where(job_id) == "a"


def test_the_owner_takes_back_the_prefetched_but_not_the_running(pool: Pool) -> None:
    pool.backend("a")
    running, prefetched = pool.submit(), pool.submit()
    pool.run(running)
    pool.dispatcher.on_load("a", 2)
    assert pool.effects.withdrawn == [pool.prompt(prefetched)]
    assert pool.effects.cancelled == []
    pool.dispatcher.on_withdrawn(pool.prompt(prefetched))
    assert pool.state(prefetched) is JobState.QUEUED
    assert pool.record(prefetched).attempts == 0
    pool.dispatcher.on_load("a", 0)
    assert pool.where(prefetched) == "a"


def test_a_placed_job_that_has_not_started_gives_way_to_the_owner_too(pool: Pool) -> None:
    pool.backend("a")
    job_id = pool.submit()
    pool.dispatcher.on_load("a", 1)
    assert pool.effects.withdrawn == [pool.prompt(job_id)]


def test_nothing_is_withdrawn_twice(pool: Pool) -> None:
    pool.backend("a")
    pool.submit()
    pool.dispatcher.on_load("a", 1)
    pool.dispatcher.on_load("a", 2)
    pool.dispatcher.on_load("a", 3)
    assert len(pool.effects.withdrawn) == 1


def test_a_prefetched_job_moves_to_a_backend_that_gets_idle(pool: Pool) -> None:
    pool.backend("a")
    pool.backend("b")
    on_a, on_b, prefetched = pool.submit(), pool.submit(), pool.submit()
    pool.run(on_a), pool.run(on_b)
    assert pool.where(prefetched) == "a"
    pool.finish(on_b)
    assert pool.effects.withdrawn == [pool.prompt(prefetched)]
    pool.dispatcher.on_withdrawn(pool.prompt(prefetched))
    assert pool.where(prefetched) == "b"
    assert (pool.attempt(prefetched).number, pool.record(prefetched).attempts) == (2, 1)  # taking back is no failure


def test_a_new_backend_takes_a_prefetched_job_over(pool: Pool) -> None:
    pool.backend("a")
    pool.submit()
    prefetched = pool.submit()
    pool.backend("b")
    assert pool.effects.withdrawn == [pool.prompt(prefetched)]


def test_nothing_is_withdrawn_for_a_backend_that_cannot_run_it(pool: Pool) -> None:
    pool.backend("a")
    pool.submit(), pool.submit()
    pool.backend("b", classes={"Other"})
    pool.backend("c", foreign=1)
    pool.backend("d", draining=True)
    pool.backend("e", up=False)
    assert pool.effects.withdrawn == []


def test_a_queued_job_is_preferred_over_moving_a_prefetched_one(pool: Pool) -> None:
    pool.backend("a")
    _, _, queued = pool.submit(), pool.submit(), pool.submit()
    pool.backend("b")
    assert pool.where(queued) == "b"
    assert pool.effects.withdrawn == []


def test_one_free_place_takes_back_one_prefetched_job_only(pool: Pool) -> None:
    pool.backend("a")
    pool.backend("b")
    for _ in range(4):
        pool.submit()
    pool.backend("c")
    assert len(pool.effects.withdrawn) == 1
    pool.dispatcher.on_load("a", 0)
    pool.dispatcher.on_backend_up("c", CLASSES, 0)  # the withdrawal is still under way
    assert len(pool.effects.withdrawn) == 1


def test_a_refused_withdrawal_leaves_the_job_where_it_is(pool: Pool) -> None:
    pool.backend("a")
    job_id = pool.submit()
    prompt_id = pool.prompt(job_id)
    pool.dispatcher.on_load("a", 1)
    pool.dispatcher.on_started(prompt_id)
    pool.dispatcher.on_withdraw_refused(prompt_id)
    pool.dispatcher.on_load("a", 2)
    assert pool.effects.withdrawn == [prompt_id]
    assert pool.state(job_id) is JobState.RUNNING
    assert pool.finish(job_id)


def test_a_withdrawal_that_could_not_be_asked_is_tried_again(pool: Pool) -> None:
    pool.backend("a")
    prompt_id = pool.prompt(pool.submit())
    pool.dispatcher.on_load("a", 1)
    pool.dispatcher.on_withdraw_refused(prompt_id)
    pool.dispatcher.on_load("a", 2)
    assert pool.effects.withdrawn == [prompt_id, prompt_id]


def test_a_draining_backend_finishes_what_runs_and_gets_nothing_new(pool: Pool) -> None:
    pool.backend("a")
    running, prefetched, queued = pool.submit(), pool.submit(), pool.submit()
    pool.run(running)
    pool.dispatcher.on_backend_configured("a", max_running=1, draining=True)
    assert pool.effects.withdrawn == [pool.prompt(prefetched)]
    pool.dispatcher.on_withdrawn(pool.prompt(prefetched))
    assert pool.finish(running)
    assert len(pool.effects.attempts) == 2
    pool.dispatcher.on_backend_configured("a", max_running=1, draining=False)
    assert pool.effects.placed()[2:] == [(prefetched, "a"), (queued, "a")]


def test_a_backend_that_went_down_keeps_its_attempts_and_gets_nothing_new(pool: Pool) -> None:
    pool.backend("a")
    running = pool.submit()
    pool.run(running)
    pool.dispatcher.on_backend_down("a", "its event socket closed")
    waiting = pool.submit()
    assert pool.state(waiting) is JobState.QUEUED
    assert pool.state(running) is JobState.RUNNING
    assert pool.dispatcher.backend_reason("a") == "its event socket closed"
    pool.dispatcher.on_backend_up("a", CLASSES, 0)
    assert pool.dispatcher.backend_reason("a") == ""
    assert pool.where(waiting) == "a"
    assert pool.finish(running)


def test_a_prefetched_job_of_a_backend_that_went_down_is_wanted_back(pool: Pool) -> None:
    pool.backend("a")
    pool.backend("b")
    on_a, on_b, prefetched = pool.submit(), pool.submit(), pool.submit()
    pool.run(on_a), pool.run(on_b)
    pool.dispatcher.on_backend_down("a", "away")
    pool.finish(on_b)
    assert pool.effects.withdrawn == [pool.prompt(prefetched)]


def test_a_backend_may_be_reconfigured_while_it_works(pool: Pool) -> None:
    pool.backend("a")
    jobs = [pool.submit() for _ in range(4)]
    assert pool.state(jobs[2]) is JobState.QUEUED
    pool.dispatcher.on_backend_configured("a", max_running=3, draining=False)
    assert pool.where(jobs[3]) == "a"
    pool.dispatcher.on_backend_configured("a", max_running=1, draining=False)
    assert pool.dispatcher.snapshots()[0].load == 4
    for job_id in jobs:
        pool.finish(job_id)
    assert pool.dispatcher.completed_on("a") == 4


def test_removed_and_added_again_it_starts_afresh(pool: Pool) -> None:
    pool.backend("a")
    done = pool.submit()
    pool.finish(done)
    pool.dispatcher.on_backend_removed("a")
    assert pool.dispatcher.snapshots() == []
    waiting = job("late")
    with pytest.raises(NoBackendCanRun):
        pool.dispatcher.refuse_if_impossible(waiting)
    pool.backend("a", up=False)
    assert pool.dispatcher.completed_on("a") == 0
    assert not pool.dispatcher.snapshots()[0].up


def test_a_report_about_a_removed_backend_still_counts(pool: Pool) -> None:
    pool.backend("a")
    job_id = pool.submit()
    prompt_id = pool.prompt(job_id)
    pool.dispatcher.on_backend_removed("a")
    assert pool.dispatcher.on_finished(prompt_id, Results(outputs(job_id)))
    assert pool.state(job_id) is JobState.SUCCEEDED


# -- refused when impossible -----------------------------------------------------------------------------------------


def test_impossible_jobs_are_refused_with_the_reason_of_each_backend(pool: Pool) -> None:
    pool.backend("gpu-1", classes={"LoadImage"})
    pool.backend("gpu-2", classes=CLASSES, draining=True)
    with pytest.raises(NoBackendCanRun) as refused:
        pool.dispatcher.refuse_if_impossible(job("x"))
    text = str(refused.value)
    assert "'an-alias'" in text
    assert "gpu-1 lacks SaveImage" in text
    assert "gpu-2 is being drained" in text
    assert "://" not in text


def test_without_any_backend_the_refusal_says_so(pool: Pool) -> None:
    with pytest.raises(NoBackendCanRun, match="no backend is configured"):
        pool.dispatcher.refuse_if_impossible(job("x"))


@pytest.mark.parametrize("how", ["never seen", "away", "owner at work", "full"])
def test_a_backend_that_is_only_not_there_now_is_no_reason_to_refuse(pool: Pool, how: str) -> None:
    pool.backend("lacking", classes={"Other"})
    pool.backend("a", up=how != "never seen", foreign=how == "owner at work")
    if how == "away":
        pool.dispatcher.on_backend_down("a", "away")
    if how == "full":
        pool.submit(), pool.submit()
    pool.dispatcher.refuse_if_impossible(job("x"))


def test_what_the_last_unknown_backend_lacks_ends_the_jobs_that_waited_for_it(pool: Pool) -> None:
    pool.backend("a", classes={"LoadImage"})
    pool.backend("b", up=False)
    waiting = pool.submit()
    assert pool.state(waiting) is JobState.QUEUED
    pool.dispatcher.on_backend_up("b", frozenset({"Other"}), 0)
    (end,) = pool.effects.terminal(waiting)
    assert end.state is JobState.FAILED
    assert end.failure is not None
    assert end.failure.fault is Fault.POLICY
    assert "a lacks SaveImage" in end.failure.message
    assert "b lacks LoadImage, SaveImage" in end.failure.message


def test_a_removed_backend_ends_the_jobs_that_only_it_could_run(pool: Pool) -> None:
    pool.backend("a", classes={"Other"})
    pool.backend("b", up=False)
    waiting = pool.submit()
    pool.dispatcher.on_backend_removed("b")
    assert pool.state(waiting) is JobState.FAILED


def test_a_job_that_only_its_failed_backend_is_left_for_does_not_wait_for_ever(pool: Pool) -> None:
    pool.backend("a")
    pool.backend("b", up=False)
    job_id = pool.submit()
    pool.fail(job_id, Fault.HOST, "out of memory")
    assert pool.state(job_id) is JobState.QUEUED
    pool.dispatcher.on_backend_removed("b")
    (end,) = pool.effects.terminal(job_id)
    assert end.failure == Failure(Fault.HOST, "on a: out of memory")


def test_with_no_backend_at_all_a_queued_job_waits_for_the_next(pool: Pool) -> None:
    pool.backend("a", up=False)
    waiting = pool.submit()
    pool.dispatcher.on_backend_removed("a")
    assert pool.state(waiting) is JobState.QUEUED
    pool.backend("b")
    assert pool.where(waiting) == "b"


# -- retries ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", RETRIED)
def test_a_fault_of_host_or_network_is_tried_elsewhere(pool: Pool, fault: Fault) -> None:
    pool.backend("a")
    pool.backend("b")
    job_id = pool.submit()
    if fault is Fault.NETWORK:
        pool.dispatcher.on_backend_down("a", "a request to it failed")  # what its actor says first
    first = pool.fail(job_id, fault)
    assert pool.where(job_id) == "b"
    assert pool.prompt(job_id) != first
    assert pool.attempt(job_id).number == 2
    assert states(pool, job_id) == ["queued", "placed", "queued", "placed"]
    assert pool.finish(job_id)
    assert len(pool.effects.terminal(job_id)) == 1


@pytest.mark.parametrize("fault", NOT_RETRIED)
def test_other_faults_end_the_job(pool: Pool, fault: Fault) -> None:
    pool.backend("a")
    pool.backend("b")
    job_id = pool.submit()
    pool.fail(job_id, fault, "value too small")
    (end,) = pool.effects.terminal(job_id)
    assert end.state is JobState.FAILED
    assert end.failure == Failure(fault, "on a: value too small")
    assert len(pool.effects.attempts) == 1


def test_a_retry_goes_before_the_queue_and_never_to_a_backend_it_failed_on(pool: Pool) -> None:
    pool.backend("a")
    pool.backend("b")
    jobs = [pool.submit() for _ in range(6)]
    pool.fail(jobs[0], Fault.HOST)  # a has a place again, but not for this one
    assert pool.where(jobs[4]) == "a"
    assert pool.state(jobs[0]) is JobState.QUEUED
    pool.finish(jobs[1])  # a place on b
    assert pool.where(jobs[0]) == "b"
    assert pool.state(jobs[5]) is JobState.QUEUED


def test_it_waits_for_another_backend_rather_than_go_back(pool: Pool) -> None:
    pool.backend("a")
    pool.backend("b", up=False)
    job_id = pool.submit()
    pool.fail(job_id, Fault.HOST)
    pool.dispatcher.on_backend_up("a", CLASSES, 0)
    assert pool.state(job_id) is JobState.QUEUED
    pool.dispatcher.on_backend_up("b", CLASSES, 0)
    assert pool.where(job_id) == "b"


def test_after_a_network_fault_it_may_go_back_when_the_network_is_back(pool: Pool) -> None:
    pool.backend("a")
    job_id = pool.submit()
    pool.dispatcher.on_backend_down("a", "a request to it failed")
    pool.fail(job_id, Fault.NETWORK)
    assert pool.state(job_id) is JobState.QUEUED
    pool.dispatcher.on_backend_up("a", CLASSES, 0)
    assert pool.where(job_id) == "a"
    assert pool.attempt(job_id).number == 2


def test_where_no_other_backend_can_run_it_the_job_fails_at_once(pool: Pool) -> None:
    pool.backend("a")
    pool.backend("b", classes={"Other"})
    job_id = pool.submit()
    pool.fail(job_id, Fault.HOST, "out of memory")
    (end,) = pool.effects.terminal(job_id)
    assert end.failure is not None
    assert end.failure.fault is Fault.HOST
    assert "on a: out of memory" in end.failure.message


def test_attempts_are_bounded(pool: Pool) -> None:
    for name in "abcde":
        pool.backend(name)
    job_id = pool.submit()
    for _ in range(3):
        pool.fail(job_id, Fault.HOST)
    assert pool.state(job_id) is JobState.FAILED
    assert [backend for _, backend in pool.effects.placed()] == ["a", "b", "c"]
    assert len(pool.effects.terminal(job_id)) == 1


def test_a_withdrawal_costs_no_attempt(pool: Pool) -> None:
    alone = Pool(max_attempts=1)
    alone.backend("a")
    job_id = alone.submit()
    for _ in range(3):
        prompt_id = alone.prompt(job_id)
        alone.dispatcher.on_load("a", 1)
        alone.dispatcher.on_withdrawn(prompt_id)
        alone.dispatcher.on_load("a", 0)
    assert alone.record(job_id).attempts == 1
    assert len({attempt.prompt_id for attempt in alone.effects.attempts}) == 4


def test_prompt_ids_are_canonical_and_new_for_each_attempt(pool: Pool) -> None:
    for name in "abc":
        pool.backend(name)
    job_id = pool.submit()
    pool.fail(job_id, Fault.HOST), pool.fail(job_id, Fault.HOST)
    ids = [attempt.prompt_id for attempt in pool.effects.attempts]
    assert len(set(ids)) == 3
    assert all(len(i) == 36 and i == i.lower() and i.count("-") == 4 for i in ids)


# -- progress and the generation count -------------------------------------------------------------------------------


def test_progress_never_falls_not_even_over_a_retry(pool: Pool) -> None:
    pool.backend("a")
    pool.backend("b")
    job_id = pool.submit()
    for percent in (10.0, 60.0, 40.0):
        pool.dispatcher.on_progress(pool.prompt(job_id), percent)
    pool.fail(job_id, Fault.HOST)
    for percent in (5.0, 60.0, 70.0):
        pool.dispatcher.on_progress(pool.prompt(job_id), percent)
    pool.finish(job_id)
    seen = [event.percent for event in pool.effects.of(job_id)]
    assert seen == sorted(seen)
    assert seen[-1] == 100.0
    published = [event.percent for event in pool.effects.of(job_id) if event.state is JobState.RUNNING]
    assert published == [0.0, 10.0, 60.0, 60.0, 70.0]


def test_progress_of_an_earlier_attempt_is_not_shown(pool: Pool) -> None:
    pool.backend("a")
    pool.backend("b")
    job_id = pool.submit()
    old = pool.fail(job_id, Fault.HOST)
    pool.dispatcher.on_progress(old, 99.0)
    assert pool.record(job_id).percent == 0.0


def test_a_job_counts_as_started_once(pool: Pool) -> None:
    pool.backend("a")
    pool.backend("b")
    job_id, never = pool.submit(), pool.submit()
    pool.run(job_id)
    pool.run(job_id)
    pool.fail(job_id, Fault.HOST)
    pool.run(job_id)
    pool.finish(job_id)
    pool.dispatcher.on_revoked(never, "gone")
    assert pool.effects.counted == [job_id]


def test_a_success_whose_start_was_missed_counts_as_started(pool: Pool) -> None:
    pool.backend("a")
    job_id = pool.submit()
    pool.finish(job_id)
    assert pool.effects.counted == [job_id]


# -- revocation ------------------------------------------------------------------------------------------------------


def ended_as_cancelled(pool: Pool, job_id: str) -> None:
    (end,) = pool.effects.terminal(job_id)
    assert end.state is JobState.CANCELLED
    assert end.failure == Failure(Fault.CLIENT, "its client left")


def test_a_queued_job_is_revoked_without_any_backend(pool: Pool) -> None:
    pool.backend("a", up=False)
    job_id = pool.submit()
    assert pool.dispatcher.on_revoked(job_id, "its client left")
    ended_as_cancelled(pool, job_id)
    assert (pool.dispatcher.queued(), pool.effects.cancelled) == (0, [])
    pool.dispatcher.on_backend_up("a", CLASSES, 0)
    assert pool.effects.attempts == []


@pytest.mark.parametrize("started", [False, True])
def test_a_placed_or_running_job_is_cancelled_on_its_backend(pool: Pool, started: bool) -> None:
    pool.backend("a")
    job_id = pool.submit()
    prompt_id = pool.run(job_id) if started else pool.prompt(job_id)
    assert pool.dispatcher.on_revoked(job_id, "its client left")
    assert pool.effects.cancelled == [prompt_id]
    ended_as_cancelled(pool, job_id)
    assert pool.dispatcher.open_jobs() == 0
    # The place is filled until the backend confirms: nobody else is put in front of a prompt that still runs.
    assert pool.dispatcher.snapshots()[0].load == 1
    pool.dispatcher.on_cancelled(prompt_id)
    assert pool.dispatcher.snapshots()[0].load == 0
    ended_as_cancelled(pool, job_id)


def test_a_revoked_job_is_not_withdrawn_as_well(pool: Pool) -> None:
    pool.backend("a")
    pool.submit()
    prefetched = pool.submit()
    pool.dispatcher.on_revoked(prefetched, "its client left")
    pool.backend("b")
    pool.dispatcher.on_load("a", 1)
    pool.dispatcher.on_backend_configured("a", max_running=1, draining=True)
    assert pool.effects.withdrawn == [pool.prompt("job-1")], "the other one, for its owner"


@pytest.mark.parametrize("answer", ["withdrawn", "refused", "cancelled"])
def test_a_job_is_revoked_while_it_is_being_withdrawn(pool: Pool, answer: str) -> None:
    pool.backend("a")
    job_id = pool.submit()
    prompt_id = pool.prompt(job_id)
    pool.dispatcher.on_load("a", 1)
    pool.dispatcher.on_revoked(job_id, "its client left")
    assert pool.effects.cancelled == [prompt_id]
    if answer == "refused":
        pool.dispatcher.on_withdraw_refused(prompt_id)
        pool.dispatcher.on_load("a", 2)
        assert pool.effects.withdrawn == [prompt_id]
    if answer == "withdrawn":
        pool.dispatcher.on_withdrawn(prompt_id)
    else:
        pool.dispatcher.on_cancelled(prompt_id)
    ended_as_cancelled(pool, job_id)
    assert pool.dispatcher.queued() == 0
    assert pool.dispatcher.snapshots()[0].load == 0


def test_a_job_is_revoked_while_its_outputs_are_collected(pool: Pool) -> None:
    pool.backend("a")
    job_id = pool.submit()
    prompt_id = pool.run(job_id)
    pool.dispatcher.on_collecting(prompt_id)
    pool.dispatcher.on_revoked(job_id, "its client left")
    assert pool.effects.cancelled == [prompt_id]
    assert not pool.dispatcher.on_finished(prompt_id, Results(outputs(job_id)))
    ended_as_cancelled(pool, job_id)


def test_a_retried_job_is_revoked_where_it_is_now(pool: Pool) -> None:
    pool.backend("a")
    pool.backend("b")
    job_id = pool.submit()
    pool.fail(job_id, Fault.HOST)
    second = pool.prompt(job_id)
    pool.dispatcher.on_revoked(job_id, "its client left")
    assert pool.effects.cancelled == [second]


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled", "unknown"])
def test_revoking_what_is_over_changes_nothing(pool: Pool, state: str) -> None:
    pool.backend("a")
    job_id = pool.submit()
    match state:
        case "succeeded":
            pool.finish(job_id)
        case "failed":
            pool.fail(job_id, Fault.WORKFLOW)
        case "cancelled":
            pool.dispatcher.on_revoked(job_id, "first")
        case _:
            job_id = "unknown"
    before = list(pool.effects.calls)
    assert not pool.dispatcher.on_revoked(job_id, "again")
    assert pool.effects.calls == before


def test_a_cancelled_running_job_frees_its_backend_for_the_next(pool: Pool) -> None:
    quick = Pool(prefetch=0)
    quick.backend("a")
    running, queued = quick.submit(), quick.submit()
    prompt_id = quick.run(running)
    quick.dispatcher.on_revoked(running, "gone")
    assert quick.state(queued) is JobState.QUEUED
    quick.dispatcher.on_cancelled(prompt_id)
    assert quick.where(queued) == "a"


# -- late and duplicate reports --------------------------------------------------------------------------------------


def every_report(pool: Pool, prompt_id: str) -> None:
    pool.dispatcher.on_started(prompt_id)
    pool.dispatcher.on_progress(prompt_id, 100.0)
    pool.dispatcher.on_collecting(prompt_id)
    pool.dispatcher.on_withdraw_refused(prompt_id)
    pool.dispatcher.on_failed(prompt_id, Failure(Fault.HOST, "late"))
    pool.dispatcher.on_failed(prompt_id, Failure(Fault.WORKFLOW, "late"))
    pool.dispatcher.on_cancelled(prompt_id)
    pool.dispatcher.on_withdrawn(prompt_id)
    assert not pool.dispatcher.on_finished(prompt_id, Results(outputs("late")))


@pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled", "retried", "withdrawn", "unknown"])
def test_late_reports_change_nothing(pool: Pool, end: str) -> None:
    pool.backend("a")
    pool.backend("b")
    job_id = pool.submit()
    prompt_id = pool.prompt(job_id)
    match end:
        case "succeeded":
            pool.finish(job_id)
        case "failed":
            pool.fail(job_id, Fault.WORKFLOW)
        case "cancelled":
            pool.dispatcher.on_revoked(job_id, "gone")
            pool.dispatcher.on_cancelled(prompt_id)
        case "retried":
            pool.fail(job_id, Fault.HOST)
        case "withdrawn":
            pool.dispatcher.on_load("a", 1)
            pool.dispatcher.on_withdrawn(prompt_id)
        case _:
            prompt_id = "00000000-0000-0000-0000-000000000000"
    before = list(pool.effects.calls), pool.dispatcher.snapshots(), pool.state(job_id), pool.where(job_id)
    every_report(pool, prompt_id)
    assert (list(pool.effects.calls), pool.dispatcher.snapshots(), pool.state(job_id), pool.where(job_id)) == before


def test_a_paused_backend_gives_back_what_has_not_begun_and_gets_nothing_new(pool: Pool) -> None:
    pool.backend("a")
    running, prefetched, queued = pool.submit(), pool.submit(), pool.submit()
    pool.run(running)
    pool.dispatcher.on_lending("a", True)
    assert pool.effects.withdrawn == [pool.prompt(prefetched)]
    pool.dispatcher.on_withdrawn(pool.prompt(prefetched))
    pool.finish(running)
    pool.dispatcher.on_lending("a", True)
    assert [pool.state(job_id) for job_id in (prefetched, queued)] == [JobState.QUEUED] * 2
    pool.dispatcher.on_lending("a", False)
    assert [pool.state(job_id) for job_id in (prefetched, queued)] == [JobState.PLACED] * 2


def test_an_excused_attempt_goes_elsewhere_and_costs_no_try(pool: Pool) -> None:
    pool.dispatcher.max_attempts = 1
    pool.backend("a")
    job_id = pool.submit()
    pool.run(job_id)
    prompt_id = pool.prompt(job_id)
    pool.dispatcher.on_lending("a", True)
    pool.dispatcher.on_excused(prompt_id, "its owner paused the PC")
    assert pool.state(job_id) is JobState.QUEUED
    pool.backend("b")
    assert pool.where(job_id) == "b"
    record = pool.dispatcher.jobs[job_id]
    assert (record.attempts, record.excluded, record.facts.reruns) == (1, frozenset(), 1)
    pool.dispatcher.on_excused(prompt_id, "again")
    assert pool.where(job_id) == "b", "a late report changes nothing"


def test_a_prompt_that_was_interrupted_by_nobody_of_ours_is_queued_again(pool: Pool) -> None:
    pool.backend("a")
    job_id = pool.submit()
    prompt_id = pool.prompt(job_id)
    pool.dispatcher.on_load("a", 1)
    pool.dispatcher.on_cancelled(prompt_id)
    assert pool.state(job_id) is JobState.QUEUED


def test_positions_count_open_jobs_and_include_the_new_one(pool: Pool) -> None:
    pool.backend("a")
    positions = [pool.dispatcher.on_submitted(job(f"j{number}")) for number in range(4)]
    assert positions == [1, 2, 3, 4]
    pool.finish("j0")
    pool.dispatcher.on_revoked("j3", "gone")
    assert pool.dispatcher.on_submitted(job("j4")) == 3
    assert pool.dispatcher.open_jobs() == 3


def test_only_ended_jobs_can_be_forgotten(pool: Pool) -> None:
    pool.backend("a")
    job_id = pool.submit()
    assert pool.dispatcher.forget(job_id) is None
    pool.now = 7.0
    pool.finish(job_id)
    record = pool.dispatcher.forget(job_id)
    assert record is not None
    assert (record.ended_at, record.outputs) == (7.0, outputs(job_id))
    assert pool.dispatcher.forget(job_id) is None


# -- detach ----------------------------------------------------------------------------------------------------------


def test_after_detach_nothing_is_placed_revoked_or_withdrawn(pool: Pool) -> None:
    pool.backend("a")
    running, prefetched, queued = pool.submit(), pool.submit(), pool.submit()
    pool.run(running)
    pool.dispatcher.detach()
    before = len(pool.effects.calls)
    assert not pool.dispatcher.on_revoked(running, "gone")
    assert not pool.dispatcher.on_revoked(queued, "gone")
    pool.dispatcher.on_load("a", 3)
    pool.backend("b")
    pool.dispatcher.on_backend_configured("a", max_running=4, draining=True)
    assert len(pool.effects.calls) == before
    with pytest.raises(Stopping):
        pool.dispatcher.refuse_if_impossible(job("x"))
    # What ends by itself still ends well.
    assert pool.finish(running)
    assert pool.state(running) is JobState.SUCCEEDED
    assert [pool.state(job_id) for job_id in (prefetched, queued)] == [JobState.PLACED, JobState.QUEUED]


def test_after_detach_a_network_fault_waits_for_the_next_run_of_the_service(pool: Pool) -> None:
    pool.backend("a")
    pool.backend("b")
    job_id = pool.submit()
    pool.dispatcher.detach()
    pool.fail(job_id, Fault.NETWORK)
    assert len(pool.effects.attempts) == 1
    assert pool.state(job_id) is JobState.QUEUED
    assert pool.effects.terminal(job_id) == []


# -- the attempt log -------------------------------------------------------------------------------------------------


def attempts(pool: Pool, job_id: str) -> list[tuple[int, str, str, str]]:
    log = pool.record(job_id).log.values()
    return [(each.attempt.number, each.attempt.backend, each.state.value, each.reason) for each in log]


def test_every_attempt_is_logged_with_how_it_went(pool: Pool) -> None:
    pool.backend("a")
    pool.backend("b")
    job_id = pool.submit()
    pool.now = 1.0
    pool.dispatcher.on_load("a", 1)
    pool.dispatcher.on_withdrawn(pool.prompt(job_id))
    pool.now = 2.0
    pool.run(job_id)
    pool.fail(job_id, Fault.HOST, "no disk")
    pool.now = 3.0
    pool.dispatcher.on_load("a", 0)
    pool.run(job_id)
    pool.finish(job_id)
    assert attempts(pool, job_id) == [
        (1, "a", "withdrawn", "it was taken back unstarted"),
        (2, "b", "failed", "no disk"),
        (3, "a", "succeeded", ""),
    ]
    log = list(pool.record(job_id).log.values())
    assert [(each.placed_at, each.ended_at) for each in log] == [(0.0, 1.0), (1.0, 2.0), (3.0, 3.0)]


def test_the_ledger_is_told_what_is_remembered(pool: Pool) -> None:
    """What the changes amount to is what the records say: of jobs and of attempts."""
    pool.backend("a")
    pool.backend("b")
    jobs = [pool.submit() for _ in range(4)]
    pool.run(jobs[0]), pool.finish(jobs[0])
    pool.run(jobs[1]), pool.fail(jobs[1], Fault.HOST)
    pool.dispatcher.on_revoked(jobs[2], "gone")
    pool.dispatcher.on_cancelled(pool.prompt(jobs[2]))
    facts: dict[str, JobFacts] = {}
    log: dict[str, AttemptLog] = {}
    for change in pool.effects.changes:
        if isinstance(change, JobAdded):
            facts[change.job.id] = JobFacts()
        elif isinstance(change, JobMoved):
            assert (facts[change.job_id].state, facts[change.job_id].prompt_id) == (change.before, change.before_prompt)
            facts[change.job_id] = change.facts
        elif isinstance(change, AttemptMoved):
            before = log.get(change.log.attempt.prompt_id)
            assert before is None or not before.state.terminal
            log[change.log.attempt.prompt_id] = change.log
    assert facts == {job_id: pool.record(job_id).facts for job_id in jobs}
    assert log == {key: entry for job_id in jobs for key, entry in pool.record(job_id).log.items()}


def test_the_start_is_written_down_before_the_backend_is_told(pool: Pool) -> None:
    pool.backend("a", up=False)
    job_id = pool.submit()
    seen: list[int] = []
    start = pool.effects.start

    def starting(of: Job, attempt: Attempt) -> None:
        written = [c for c in pool.effects.changes if isinstance(c, AttemptMoved | JobMoved)]
        seen.append(len(written))
        start(of, attempt)

    pool.effects.start = starting  # type: ignore[method-assign, assignment]
    pool.dispatcher.on_backend_up("a", CLASSES, 0)
    assert (seen, pool.where(job_id)) == ([2], "a")


def test_percentages_are_written_in_steps_and_at_the_stop(pool: Pool) -> None:
    pool.backend("a")
    job_id = pool.submit()
    for percent in range(1, 23):
        pool.dispatcher.on_progress(pool.prompt(job_id), float(percent))
    pool.dispatcher.detach()
    written = [change.percent for change in pool.effects.changes if isinstance(change, ProgressSeen)]
    assert written == [5.0, 10.0, 15.0, 20.0, 22.0]


# -- a node's exception is confirmed ---------------------------------------------------------------------------------


def throw(pool: Pool, job_id: str, signature: str = "5 ValueError") -> str:
    prompt_id = pool.prompt(job_id)
    pool.dispatcher.on_started(prompt_id)
    pool.dispatcher.on_failed(prompt_id, Failure(Fault.WORKFLOW, "bad value", signature))
    return prompt_id


def test_a_nodes_exception_is_tried_once_more_elsewhere(pool: Pool) -> None:
    pool.backend("a")
    pool.backend("b")
    pool.backend("c")
    job_id = pool.submit()
    throw(pool, job_id)
    assert pool.where(job_id) == "b"
    throw(pool, job_id)
    (end,) = pool.effects.terminal(job_id)
    assert end.failure == Failure(Fault.WORKFLOW, "on b: bad value", "5 ValueError")
    assert (pool.record(job_id).facts.reruns, len(pool.effects.attempts)) == (1, 2)


def test_a_nodes_exception_that_nobody_can_confirm_is_final(pool: Pool) -> None:
    pool.backend("a")
    pool.backend("b", up=False)
    job_id = pool.submit()
    throw(pool, job_id)
    assert pool.state(job_id) is JobState.FAILED


def test_a_job_that_waits_for_confirmation_ends_when_nobody_is_left_for_it(pool: Pool) -> None:
    pool.backend("a")
    pool.backend("b")
    first, other = pool.submit(), pool.submit()
    third, fourth = pool.submit(), pool.submit()
    assert [pool.where(each) for each in (first, other, third, fourth)] == ["a", "b", "a", "b"]
    throw(pool, first)
    assert pool.state(first) is JobState.QUEUED
    pool.dispatcher.on_backend_down("b", "away")
    (end,) = pool.effects.terminal(first)
    assert end.failure == Failure(Fault.WORKFLOW, "on a: bad value", "5 ValueError")


# -- out of memory ---------------------------------------------------------------------------------------------------


def out_of_memory(pool: Pool, job_id: str) -> None:
    prompt_id, backend = pool.run(job_id), pool.where(job_id)
    assert backend is not None
    pool.dispatcher.on_out_of_memory(backend, "an-alias")
    pool.dispatcher.on_failed(prompt_id, Failure(Fault.HOST, "CUDA out of memory", OUT_OF_MEMORY))


def test_out_of_memory_goes_elsewhere_and_the_alias_avoids_that_backend_for_an_hour(pool: Pool) -> None:
    pool.backend("a")
    pool.backend("b")
    job_id = pool.submit()
    out_of_memory(pool, job_id)
    assert pool.where(job_id) == "b"
    pool.finish(job_id)
    busy = pool.submit()
    assert pool.where(busy) == "b", "though a has been idle for longer"
    assert pool.where(pool.submit()) == "b", "prefetched there rather than run on a"
    assert pool.where(pool.submit()) == "a", "before it waits"
    for each in [each for each in pool.dispatcher.jobs if not pool.state(each).terminal]:
        pool.finish(each)
    pool.now = TOO_LARGE_FOR - 1
    again = pool.submit()
    assert pool.where(again) == "b"
    pool.finish(again)
    pool.now = TOO_LARGE_FOR + 1
    assert pool.where(pool.submit()) == "a"


def test_where_nobody_else_can_run_it_it_may_try_once_more_after_free(pool: Pool) -> None:
    pool.backend("a")
    job_id = pool.submit()
    out_of_memory(pool, job_id)
    assert pool.where(job_id) == "a"
    out_of_memory(pool, job_id)
    (end,) = pool.effects.terminal(job_id)
    assert end.failure is not None
    assert (end.failure.fault, len(pool.effects.attempts)) == (Fault.HOST, 2)


# -- quarantine and reruns -------------------------------------------------------------------------------------------


def go_down(pool: Pool, job_id: str) -> None:
    backend = pool.where(job_id)
    assert backend is not None
    pool.dispatcher.on_backend_down(backend, "away")
    failure = Failure(Fault.HOST, "the prompt is gone")
    pool.dispatcher.on_failed(pool.prompt(job_id), failure, lost=True, down=True)


def test_a_job_that_took_two_backends_down_is_quarantined(pool: Pool) -> None:
    for name in "abc":
        pool.backend(name)
    job_id = pool.submit()
    for _ in range(2):
        pool.run(job_id)
        go_down(pool, job_id)
    (end,) = pool.effects.terminal(job_id)
    assert end.state is JobState.FAILED
    assert end.failure is not None
    assert end.failure.message.startswith("quarantined: a, b went down while running it")
    assert len(pool.effects.attempts) == 2


def test_while_all_are_away_at_once_no_job_is_blamed(pool: Pool) -> None:
    for name in "abc":
        pool.backend(name)
    job_id = pool.submit()
    pool.dispatcher.suspended = True
    for _ in range(2):
        pool.run(job_id)
        go_down(pool, job_id)
    assert (pool.state(job_id), pool.where(job_id)) == (JobState.PLACED, "c")
    assert pool.record(job_id).facts.crashed_on == frozenset()


def test_reruns_count_the_attempts_that_may_have_run(pool: Pool) -> None:
    for name in "abcde":
        pool.backend(name)
    many = Pool(max_attempts=5)
    for name in "abcde":
        many.backend(name)
    job_id = many.submit()
    many.fail(job_id, Fault.NETWORK, "never posted")
    assert many.record(job_id).facts.reruns == 0
    many.run(job_id), many.fail(job_id, Fault.NETWORK, "started")
    assert many.record(job_id).facts.reruns == 1
    many.dispatcher.on_failed(many.prompt(job_id), Failure(Fault.NETWORK, "who knows"), lost=True)
    assert many.record(job_id).facts.reruns == 2
    many.finish(job_id)
    assert many.record(job_id).facts.reruns == 2


def test_a_lost_run_that_may_not_be_tried_again_is_lost_and_not_failed(pool: Pool) -> None:
    once = Pool(max_attempts=1)
    once.backend("a")
    once.backend("b")
    job_id = once.submit()
    once.run(job_id)
    go_down(once, job_id)
    (end,) = once.effects.terminal(job_id)
    assert end.state is JobState.LOST
    assert attempts(once, job_id) == [(1, "a", "lost", "the prompt is gone")]


def test_what_a_lost_run_says_later_is_fenced_off(pool: Pool) -> None:
    pool.backend("a")
    pool.backend("b")
    job_id = pool.submit()
    first = pool.run(job_id)
    go_down(pool, job_id)
    before = list(pool.effects.changes)
    every_report(pool, first)
    assert pool.effects.changes == before
    assert pool.finish(job_id)
    assert attempts(pool, job_id)[0][2:] == ("lost", "the prompt is gone")


# -- taking up what an earlier run left ------------------------------------------------------------------------------


def left(name: str, state: JobState = JobState.QUEUED, *logs: AttemptLog, **facts: Any) -> SavedJob:
    current = next((entry.attempt.prompt_id for entry in logs if not entry.state.terminal), None)
    given = {"state": state, "prompt_id": current, "attempts": len(logs)} | facts
    return SavedJob(job(name), JobFacts(**given), 42.0, False, logs)


def entry(
    name: str, number: int = 1, state: AttemptState = AttemptState.PLACED, backend: str = "a", reason: str = ""
) -> AttemptLog:
    at = 1.0 if state.terminal else None
    return AttemptLog(Attempt(f"{name}-{number}", name, backend, number), state, 0.5, at, reason)


def adopted(pool: Pool) -> list[tuple[str, str]]:
    return [(what, detail) for kind, what, detail in pool.effects.calls if kind == "adopt"]


def test_queued_jobs_are_taken_up_in_their_order(pool: Pool) -> None:
    pool.backend("a", up=False)
    pool.dispatcher.restore([left(name) for name in ("c", "a", "b")])
    assert [pool.dispatcher.position(name) for name in ("c", "a", "b")] == [1, 2, 3]
    assert pool.effects.changes == [], "nothing happened: nothing is written"
    pool.dispatcher.on_backend_up("a", CLASSES, 0)
    assert pool.effects.placed() == [("c", "a"), ("a", "a")]


@pytest.mark.parametrize("running", [False, True])
def test_what_was_on_a_backend_is_adopted_and_fills_its_place(pool: Pool, running: bool) -> None:
    pool.backend("a", up=False)
    attempt_state = AttemptState.RUNNING if running else AttemptState.PLACED
    state = JobState.RUNNING if running else JobState.PLACED
    pool.dispatcher.restore([left("j", state, entry("j", 1, attempt_state), was_started=running), left("k"), left("l")])
    assert adopted(pool) == [("j-1", "wanted")]
    assert (pool.state("j"), pool.record("j").percent, pool.where("j")) == (state, 42.0, "a")
    pool.dispatcher.on_backend_up("a", CLASSES, 0)
    assert (pool.where("k"), pool.where("l")) == ("a", None)
    assert pool.dispatcher.open_jobs() == 3
    pool.dispatcher.on_progress("j-1", 20.0)
    pool.dispatcher.on_progress("j-1", 50.0)
    assert [event.percent for event in pool.effects.of("j") if event.state is JobState.RUNNING][-1] == 50.0
    assert pool.finish("j")
    assert (pool.record("j").facts.reruns, len(pool.record("j").log)) == (0, 1)
    assert pool.effects.counted == ([] if running else ["j"])


def test_numbers_of_attempts_go_on(pool: Pool) -> None:
    pool.backend("a")
    pool.backend("b")
    logs = (entry("j", 1, AttemptState.WITHDRAWN), entry("j", 2))
    pool.dispatcher.restore([left("j", JobState.PLACED, *logs, attempts=1)])
    pool.dispatcher.on_failed("j-2", Failure(Fault.HOST, "no"), lost=True)
    assert (pool.attempt("j").number, pool.where("j"), pool.record("j").attempts) == (3, "b", 1)
    assert attempts(pool, "j")[:2] == [(1, "a", "withdrawn", ""), (2, "a", "lost", "no")]


def test_what_failed_before_the_restart_still_counts_after_it(pool: Pool) -> None:
    pool.backend("a")
    pool.backend("b", up=False)
    again = left("j", JobState.QUEUED, entry("j", 1, AttemptState.FAILED), excluded=frozenset({"a"}))
    pool.dispatcher.restore([again])
    assert pool.state("j") is JobState.QUEUED
    pool.dispatcher.on_backend_up("b", CLASSES, 0)
    assert pool.where("j") == "b"


def test_what_runs_for_a_job_that_is_over_is_stopped(pool: Pool) -> None:
    pool.backend("a")
    over = left("j", JobState.CANCELLED, entry("j", 1, AttemptState.RUNNING), ended_at=1.0)
    pool.dispatcher.restore([over])
    assert adopted(pool) == [("j-1", "unwanted")]
    assert pool.dispatcher.snapshots()[0].load == 1
    assert pool.dispatcher.open_jobs() == 0
    assert not pool.dispatcher.on_finished("j-1", Results(outputs("j"))), "too late: it was cancelled"
    assert pool.state("j") is JobState.CANCELLED
    assert pool.dispatcher.snapshots()[0].load == 0


def test_what_ran_on_a_backend_that_is_gone_runs_again_and_says_so(pool: Pool) -> None:
    pool.backend("b")
    pool.dispatcher.restore([left("x"), left("j", JobState.RUNNING, entry("j", 1, AttemptState.RUNNING)), left("y")])
    assert pool.effects.placed() == [("x", "b"), ("j", "b")], "where it was in the queue"
    assert attempts(pool, "j")[0][2:] == ("lost", "it ended with the service, or its PC left")
    assert pool.record("j").facts.reruns == 1


def test_ended_jobs_are_known_and_nothing_happens_to_them(pool: Pool) -> None:
    pool.backend("a")
    ends = [state for state in JobState if state.terminal]
    pool.dispatcher.restore([left(each.value, each, ended_at=2.0) for each in ends])
    assert [pool.state(each.value) for each in ends] == ends
    assert pool.effects.changes == []
    assert all(pool.dispatcher.forget(each.value) for each in ends)


def test_a_restored_prefetched_job_gives_way_to_the_owner(pool: Pool) -> None:
    pool.backend("a")
    pool.dispatcher.restore([left("j", JobState.PLACED, entry("j"))])
    pool.dispatcher.on_load("a", 1)
    assert pool.effects.withdrawn == ["j-1"]


def test_a_restored_job_can_be_revoked(pool: Pool) -> None:
    pool.backend("a")
    pool.dispatcher.restore([left("j", JobState.RUNNING, entry("j", 1, AttemptState.RUNNING)), left("k")])
    assert pool.dispatcher.on_revoked("j", "gone")
    assert pool.effects.cancelled == ["j-1"]
    assert pool.dispatcher.on_revoked("k", "gone")
    assert pool.dispatcher.open_jobs() == 0


# -- found by a review of the ledger ---------------------------------------------------------------------------------


def test_a_stop_ends_no_job_that_waits_for_a_second_opinion(pool: Pool) -> None:
    pool.backend("a")
    pool.backend("b")
    job_id, *_ = [pool.submit() for _ in range(4)]
    prompt_id = pool.run(job_id)
    pool.dispatcher.on_failed(prompt_id, Failure(Fault.WORKFLOW, "x", "5 V"))
    assert pool.state(job_id) is JobState.QUEUED
    pool.dispatcher.detach()
    for name in ("a", "b"):
        pool.dispatcher.on_backend_down(name, "its actor ended")
    assert pool.state(job_id) is JobState.QUEUED


def test_after_a_restart_a_second_opinion_may_come_from_a_backend_that_connects_later(pool: Pool) -> None:
    pool.backend("a", up=False)
    pool.backend("b", up=False)
    failure = Failure(Fault.WORKFLOW, "on a: x", "5 V")
    tried = entry("j", 1, AttemptState.FAILED)
    facts = {"excluded": frozenset("a"), "signature": "5 V", "failure": failure}
    pool.dispatcher.restore([left("j", JobState.QUEUED, tried, **facts)])
    pool.dispatcher.on_backend_up("a", CLASSES, 0)
    assert pool.state("j") is JobState.QUEUED
    pool.dispatcher.on_backend_up("b", CLASSES, 0)
    assert pool.where("j") == "b"


def test_but_not_for_ever(pool: Pool) -> None:
    pool.backend("a", up=False)
    pool.backend("b", up=False)
    failure = Failure(Fault.WORKFLOW, "on a: x", "5 V")
    facts = {"excluded": frozenset("a"), "signature": "5 V", "failure": failure}
    pool.dispatcher.restore([left("j", JobState.QUEUED, entry("j", 1, AttemptState.FAILED), **facts)])
    pool.dispatcher.on_backend_up("a", CLASSES, 0)
    pool.now += 31
    pool.dispatcher.on_backend_down("b", "no answer")  # as at each try to connect
    assert (pool.state("j"), pool.record("j").failure) == (JobState.FAILED, failure)


def test_a_forgotten_job_stays_written_down_until_its_prompt_has_ended(pool: Pool) -> None:
    pool.backend("a")
    job_id = pool.submit()
    prompt_id = pool.run(job_id)
    pool.dispatcher.on_revoked(job_id, "gone")
    pool.dispatcher.forget(job_id)
    assert JobsForgotten((job_id,)) not in pool.effects.changes
    pool.dispatcher.on_cancelled(prompt_id)
    assert pool.effects.changes[-1] == JobsForgotten((job_id,))


def test_a_lost_prompt_stays_fenced_over_a_restart(pool: Pool) -> None:
    pool.backend("a")
    pool.backend("b")
    lost, running = entry("j", 1, AttemptState.LOST), entry("j", 2, AttemptState.RUNNING, "b")
    pool.dispatcher.restore([left("j", JobState.RUNNING, lost, running)])
    assert ("fence", lost.attempt.prompt_id, "a") in pool.effects.calls


def test_want_of_memory_does_not_exceed_the_tries() -> None:
    pool = Pool(max_attempts=1)
    pool.backend("a")
    job_id = pool.submit()
    pool.dispatcher.on_failed(pool.run(job_id), Failure(Fault.HOST, "oom", OUT_OF_MEMORY))
    assert (pool.state(job_id), len(pool.effects.attempts)) == (JobState.FAILED, 1)


def test_a_drain_of_the_only_pc_ends_no_job_that_was_lost_there(pool: Pool) -> None:
    pool.backend("a")
    job_id = pool.submit()
    pool.run(job_id)
    pool.dispatcher.on_backend_configured("a", max_running=1, draining=True)
    pool.dispatcher.on_failed(pool.prompt(job_id), Failure(Fault.NETWORK, "gone"), lost=True)
    assert pool.state(job_id) is JobState.QUEUED


def test_restarts_before_it_ever_ran_cost_a_job_no_attempt(pool: Pool) -> None:
    pool.backend("a")
    placed = entry("j", 1, AttemptState.PLACED)
    pool.dispatcher.restore([left("j", JobState.PLACED, placed, prompt_id=placed.attempt.prompt_id, attempts=3)])
    pool.dispatcher.on_failed(placed.attempt.prompt_id, Failure(Fault.NETWORK, "nowhere"), lost=True)
    assert pool.state("j") is JobState.PLACED  # at once, on the same PC
    assert pool.record("j").attempts == 3


def test_the_outlook_of_the_whole_queue(pool: Pool) -> None:
    pool.backend("a")
    first = pool.submit()
    pool.run(first)
    pool.now += 10
    pool.finish(first)
    jobs = [pool.submit() for _ in range(4)]  # one begins, one is prefetched, two wait
    assert pool.dispatcher.outlook() == {jobs[2]: (1, 30.0), jobs[3]: (2, 40.0)}
