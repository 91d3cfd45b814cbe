"""The dispatcher against recorded effects: no sleeping, no tasks, one plain call after another."""

from __future__ import annotations

import pytest

from bridged.errors import NoBackendCanRun, Stopping
from bridged.model import Failure, Fault, JobState
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
    assert pool.dispatcher.on_finished(prompt_id, outputs(job_id))
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
    assert not pool.dispatcher.on_finished(prompt_id, outputs(job_id))
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
    assert not pool.dispatcher.on_finished(prompt_id, outputs("late"))


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
    assert len(pool.effects.terminal(job_id)) == 1
