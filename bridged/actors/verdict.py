"""What becomes of a job whose attempt failed: tried again, or ended. A pure function.

The rules; the numbers stand beside the code:

0. What a PC's patch ended, because its owner paused the PC or we were away for too long, is nobody's fault: it is tried
   again and does not count, wherever it can run; not for ever: after EXCUSES runs it counts like a host's fault.
1. A node's exception is the workflow's fault once it was seen twice, on two backends, with the same node and type.
   Until then it is tried once more, where another backend that is up can run it.
2. Validation, policy and the client's own faults are final.
3. A backend that ran out of memory was asked to free it: where no other can run the job, it may have it once more.
4. A job whose run went down with its backend on two backends is quarantined: it is not sent to a third.
5. Host and network faults are tried again, at most `max_attempts` times in all; never again on a host that was at
   fault. A network may be back: such a backend may have the job again.
6. Where no other backend can run it, that is the end, with the reason of the last attempt.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from bridged.model import OUT_OF_MEMORY, BackendSnapshot, Failure, Fault, Job, JobState
from bridged.placement.capability import can_run, obstacles
from bridged.store.ledger import JobFacts

QUARANTINE = 2
"""backends that may go down under one job"""

EXCUSES = 10
"""runs of one job that may end in vain before a patch that ends the next one is taken for a fault"""


class Failed:
    """How an attempt failed. `started`: it had begun to run. `lost`: nobody can say whether it ran to its end.
    `down`: its backend went away with it; `excused`: its backend's patch ended it."""

    def __init__(
        self,
        backend: str,
        failure: Failure,
        *,
        started: bool = False,
        lost: bool = False,
        down: bool = False,
        excused: bool = False,
    ) -> None:
        self.backend = backend
        self.failure = failure
        self.started = started
        self.lost = lost
        self.down = down
        self.excused = excused


def judge(
    job: Job, facts: JobFacts, failed: Failed, snapshots: Sequence[BackendSnapshot], *, max_attempts: int
) -> JobFacts:
    """The job's new facts: QUEUED, FAILED or LOST."""
    if failed.excused and facts.reruns < EXCUSES:  # 0
        return replace(
            facts,
            state=JobState.QUEUED,
            prompt_id=None,
            attempts=facts.attempts - 1,
            reruns=facts.reruns + failed.started,
        )
    fault, signature = failed.failure.fault, failed.failure.signature
    where = f"on {failed.backend}: {failed.failure.message}"
    excluded, crashed_on = facts.excluded, facts.crashed_on
    if fault in (Fault.HOST, Fault.WORKFLOW):
        excluded = excluded | {failed.backend}
    if failed.down and failed.started:
        crashed_on = crashed_on | {failed.backend}
    others = [s for s in snapshots if s.name not in excluded]
    some_day = [replace(s, draining=False) for s in others]  # a drain is an operator's passing wish
    end = replace(
        facts,
        state=JobState.LOST if failed.lost else JobState.FAILED,
        failure=Failure(fault, where, signature),
        excluded=excluded,
        crashed_on=crashed_on,
    )
    again = replace(
        end,
        state=JobState.QUEUED,
        prompt_id=None,
        signature=signature or facts.signature,
        reruns=facts.reruns + (failed.started or failed.lost),
    )
    if fault is Fault.WORKFLOW and signature and signature != facts.signature:  # 1
        elsewhere = any(s.up and can_run(job.requires, s) for s in others)
        return again if elsewhere and facts.attempts < max_attempts else end
    if fault not in (Fault.HOST, Fault.NETWORK):  # 2
        return end
    if signature == OUT_OF_MEMORY != facts.signature and obstacles(job.requires, some_day) is not None:  # 3
        return replace(again, excluded=facts.excluded) if facts.attempts < max_attempts else end
    if len(crashed_on) >= QUARANTINE:  # 4
        took = ", ".join(sorted(crashed_on))
        message = f"quarantined: {took} went down while running it; the last time {where}"
        return replace(end, state=JobState.FAILED, failure=Failure(Fault.WORKFLOW, message))
    if facts.attempts >= max_attempts:  # 5
        return end
    if obstacles(job.requires, some_day) is not None:  # 6
        return replace(end, failure=Failure(fault, f"{where}; no other backend can run it"))
    return again
