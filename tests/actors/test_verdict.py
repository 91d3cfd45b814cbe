"""What becomes of a job whose attempt failed: every rule, and what holds for all of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bridged.actors.verdict import EXCUSES, QUARANTINE, Failed, judge
from bridged.model import OUT_OF_MEMORY, BackendSnapshot, Failure, Fault, JobState
from bridged.store.ledger import JobFacts
from tests.fakes.recorded_effects import CLASSES, job

JOB = job("j")
RAN = JobFacts(state=JobState.RUNNING, prompt_id="p", attempts=1, was_started=True)
THROWN = Failure(Fault.WORKFLOW, "bad value", "5 ValueError")
MEMORY = Failure(Fault.HOST, "CUDA out of memory", OUT_OF_MEMORY)
BROKEN = Failure(Fault.HOST, "no disk")
AWAY = Failure(Fault.NETWORK, "no answer")


def pc(
    name: str, *, up: bool = True, draining: bool = False, classes: frozenset[str] | None = CLASSES
) -> BackendSnapshot:
    return BackendSnapshot(
        name=name, up=up, draining=draining, classes=classes, foreign=0, load=0, max_running=1, capacity=2, idle_since=0
    )


def verdict(facts: JobFacts, failed: Failed, *snapshots: BackendSnapshot, max_attempts: int = 3) -> JobFacts:
    return judge(JOB, facts, failed, snapshots, max_attempts=max_attempts)


# -- 0: what a patch ended -------------------------------------------------------------------------------------------


def test_what_a_patch_ended_is_nobodys_fault_and_does_not_count() -> None:
    ended = Failed("a", Failure(Fault.HOST, "its owner paused the PC"), started=True, excused=True)
    again = verdict(RAN, ended, pc("a"), max_attempts=1)
    assert again == replace(RAN, state=JobState.QUEUED, prompt_id=None, attempts=0, reruns=1)
    unstarted = Failed("a", ended.failure, excused=True)
    assert verdict(RAN, unstarted, pc("a"), max_attempts=1).reruns == 0


def test_but_not_for_ever() -> None:
    ended = Failed("a", Failure(Fault.HOST, "its owner paused the PC"), started=True, excused=True)
    facts = RAN
    for _ in range(EXCUSES):
        facts = replace(verdict(facts, ended, pc("a"), max_attempts=1), attempts=1)
        assert facts.state is JobState.QUEUED
    assert verdict(facts, ended, pc("a"), max_attempts=1).state is JobState.FAILED


# -- 1: a node's exception -------------------------------------------------------------------------------------------


def test_an_exception_is_tried_once_more_where_another_can() -> None:
    facts = verdict(RAN, Failed("a", THROWN, started=True), pc("a"), pc("b"))
    assert facts == replace(
        RAN,
        state=JobState.QUEUED,
        prompt_id=None,
        excluded=frozenset("a"),
        signature=THROWN.signature,
        failure=Failure(Fault.WORKFLOW, "on a: bad value", THROWN.signature),
        reruns=1,
    )


def test_an_exception_that_repeats_is_the_workflows() -> None:
    once = verdict(RAN, Failed("a", THROWN, started=True), pc("a"), pc("b"), pc("c"))
    twice = verdict(replace(once, attempts=2), Failed("b", THROWN, started=True), pc("a"), pc("b"), pc("c"))
    assert (twice.state, twice.reruns) == (JobState.FAILED, 1)
    assert twice.failure == Failure(Fault.WORKFLOW, "on b: bad value", THROWN.signature)


def test_another_exception_is_no_confirmation() -> None:
    once = replace(RAN, signature="7 KeyError", excluded=frozenset("a"), attempts=2)
    assert verdict(once, Failed("b", THROWN), pc("a"), pc("b"), pc("c")).state is JobState.QUEUED
    assert verdict(replace(once, attempts=3), Failed("b", THROWN), pc("c")).state is JobState.FAILED


def test_an_exception_that_nobody_is_there_to_confirm_is_final() -> None:
    for others in ([], [pc("b", up=False)], [pc("b", draining=True)], [pc("b", classes=frozenset({"X"}))]):
        assert verdict(RAN, Failed("a", THROWN), pc("a"), *others).state is JobState.FAILED
    assert verdict(RAN, Failed("a", THROWN), pc("a"), pc("b", classes=None)).state is JobState.FAILED


# -- 2: final faults -------------------------------------------------------------------------------------------------


def test_validation_policy_and_the_clients_own_faults_are_final() -> None:
    for fault in (Fault.WORKFLOW, Fault.POLICY, Fault.CLIENT):
        facts = verdict(RAN, Failed("a", Failure(fault, "no")), pc("a"), pc("b"))
        assert (facts.state, facts.failure) == (JobState.FAILED, Failure(fault, "on a: no"))


# -- 3: out of memory ------------------------------------------------------------------------------------------------


def test_out_of_memory_goes_elsewhere_where_there_is_an_elsewhere() -> None:
    facts = verdict(RAN, Failed("a", MEMORY, started=True), pc("a"), pc("b", up=False))
    assert (facts.state, facts.excluded, facts.reruns) == (JobState.QUEUED, frozenset("a"), 1)


def test_alone_it_may_have_it_once_more_after_it_freed_its_memory() -> None:
    once = verdict(RAN, Failed("a", MEMORY, started=True), pc("a"), pc("b", classes=frozenset({"X"})))
    assert (once.state, once.excluded) == (JobState.QUEUED, frozenset())
    twice = verdict(replace(once, attempts=2), Failed("a", MEMORY, started=True), pc("a"))
    assert (twice.state, twice.excluded) == (JobState.FAILED, frozenset("a"))


# -- 4: quarantine ---------------------------------------------------------------------------------------------------


def test_two_backends_that_went_down_under_it_are_enough() -> None:
    facts = RAN
    for name in ("a", "b"):
        assert facts.state is not JobState.FAILED
        failed = Failed(name, AWAY, started=True, lost=True, down=True)
        facts = verdict(facts, failed, pc("a"), pc("b"), pc("c"))
    assert (facts.state, facts.crashed_on) == (JobState.FAILED, frozenset("ab"))
    assert facts.failure == Failure(
        Fault.WORKFLOW, "quarantined: a, b went down while running it; the last time on b: no answer"
    )
    assert len(facts.crashed_on) == QUARANTINE


def test_one_backend_that_went_down_twice_is_one() -> None:
    facts = RAN
    for _ in range(2):
        facts = verdict(facts, Failed("a", AWAY, started=True, lost=True, down=True), pc("a"))
    assert (facts.state, facts.crashed_on) == (JobState.QUEUED, frozenset("a"))


def test_what_had_not_started_took_nothing_down() -> None:
    assert verdict(RAN, Failed("a", AWAY, lost=True, down=True), pc("a"), pc("b")).crashed_on == frozenset()


# -- 5 and 6: tried again, or nobody left ----------------------------------------------------------------------------


def test_a_host_at_fault_never_has_it_again_a_network_may() -> None:
    assert verdict(RAN, Failed("a", BROKEN), pc("a"), pc("b")).excluded == {"a"}
    assert verdict(RAN, Failed("a", AWAY), pc("a"), pc("b")).excluded == frozenset()


def test_at_most_max_attempts() -> None:
    for failure in (BROKEN, AWAY):
        for attempts in (1, 2, 3, 4):
            facts = verdict(replace(RAN, attempts=attempts), Failed("a", failure), pc("a"), pc("b"))
            assert facts.state is (JobState.QUEUED if attempts < 3 else JobState.FAILED)


def test_where_nobody_else_can_run_it_that_is_said() -> None:
    facts = verdict(RAN, Failed("a", BROKEN), pc("a"), pc("c", classes=frozenset()))
    assert facts.failure == Failure(Fault.HOST, "on a: no disk; no other backend can run it")


def test_a_run_that_may_have_ended_well_is_lost_and_not_failed() -> None:
    for facts, snapshots in ((replace(RAN, attempts=3), [pc("b")]), (RAN, [pc("a", classes=frozenset())])):
        assert verdict(facts, Failed("a", AWAY, lost=True), *snapshots).state is JobState.LOST


NAMES = st.sampled_from("abc")
SNAPSHOTS = st.lists(
    st.builds(
        pc, NAMES, up=st.booleans(), draining=st.booleans(), classes=st.sampled_from([CLASSES, None, frozenset()])
    ),
    max_size=3,
    unique_by=lambda snapshot: snapshot.name,
)
FAILURES = st.builds(
    Failure, st.sampled_from(Fault), st.just("why"), st.sampled_from(["", "5 ValueError", "6 KeyError", OUT_OF_MEMORY])
)
FAILED = st.builds(Failed, NAMES, FAILURES, started=st.booleans(), lost=st.booleans(), down=st.booleans())


@given(st.lists(FAILED, min_size=1, max_size=8), SNAPSHOTS, st.integers(1, 4))
def test_whatever_fails_it_ends(failures: list[Failed], snapshots: list[BackendSnapshot], max_attempts: int) -> None:
    """At most one attempt more than allowed (a backend that freed its memory), each rerun is counted, and an end says
    why."""
    facts, placed, ran = JobFacts(), 0, 0
    for failed in failures:
        placed += 1
        ran += failed.started or failed.lost
        before = replace(facts, state=JobState.PLACED, prompt_id=str(placed), attempts=facts.attempts + 1)
        facts = verdict(before, failed, *snapshots, max_attempts=max_attempts)
        assert facts.attempts == placed
        assert facts.excluded >= before.excluded
        assert facts.failure is not None
        assert f"on {failed.backend}: why" in facts.failure.message
        if facts.state is not JobState.QUEUED:
            assert facts.state in (JobState.FAILED, JobState.LOST)
            assert facts.reruns == before.reruns
            break
        assert facts.prompt_id is None
        assert facts.reruns == ran
    assert placed <= max_attempts + 1
