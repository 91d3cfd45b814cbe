"""What must hold after every scenario, whatever went wrong in it."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

from .book import Book, Work
from .diary import Diaries, Prompt
from .pictures import picture_of, sha256_of

ENDED_WITH_A_REASON = frozenset({"failed", "cancelled", "withdrawn", "lost"})

NAMES = re.compile(r"\bpc-\d+\b|\b\w+-[0-9a-f]{8}-\d+\.png\b|\b50[0-9]\b")


class Executions:
    """Executions per job, against the attempts that the daemon owns up to."""

    def __init__(self, book: Book, diaries: Diaries) -> None:
        self.duplicates = 0
        self.reruns = 0
        self._book = book
        by_value = diaries.by_value()
        for work in book.acknowledged:
            if work.record is not None:
                self._check(work, work.record, by_value.get(work.value, []))

    def _check(self, work: Work, job: dict[str, Any], prompts: list[Prompt]) -> None:
        attempts = {attempt["prompt_id"]: attempt for attempt in job["attempts"]}
        started = [prompt for prompt in prompts if prompt.started]
        for prompt in prompts:
            if prompt.prompt_id not in attempts:
                self._book.violation(f"{work}: prompt {prompt.prompt_id} on {prompt.pc} is none of its attempts")
        unexplained = [prompt for prompt in started if not _has_reason(attempts.get(prompt.prompt_id))]
        if len(unexplained) > 1:
            self.duplicates += len(unexplained) - 1
            where = ", ".join(f"{p.pc}/{p.prompt_id} {p.states[-1]}" for p in unexplained)
            self._book.violation(f"{work} ran {len(started)} times, without a reason: {where}")
        self.reruns += max(0, len(started) - 1)
        for prompt in started[:-1]:
            reason = str(attempts.get(prompt.prompt_id, {}).get("reason"))
            self._book.note(f"runs that were not the last: {_general(reason)}")
        if len(started) - 1 > int(job["reruns"]):
            counted = f"ran {len(started)} times and counts {job['reruns']} reruns"
            self._book.violation(f"{work} {counted}: {_told(attempts)}")
        for prompt in started:
            if attempts.get(prompt.prompt_id, {}).get("state") == "withdrawn":
                self._book.violation(f"{work}: prompt {prompt.prompt_id} was withdrawn, and ran on {prompt.pc}")
        if sum("done" in prompt.states for prompt in prompts) > 1:
            self._book.note("jobs that ran to their end more than once, with a reason")
        if work.terminal == "succeeded" and not any("done" in prompt.states for prompt in prompts):
            self._book.violation(f"{work} succeeded, and no PC ran it")


def _has_reason(attempt: dict[str, Any] | None) -> bool:
    return attempt is not None and attempt["state"] in ENDED_WITH_A_REASON and bool(attempt.get("reason"))


def _told(attempts: dict[str, dict[str, Any]]) -> str:
    return "; ".join(f"{a['backend']} {a['state']}: {a.get('reason')}" for a in attempts.values())


def check_ends(book: Book) -> None:
    """Every acknowledged job has its one end, and its end is the right one."""
    for work in book.acknowledged:
        job = work.record or {}
        match work.terminal:
            case "succeeded":
                _check_success(book, work, job)
            case "failed":
                _check_failure(book, work, job)
            case "cancelled":
                if not work.may_cancel:
                    book.violation(f"{work} was cancelled, and not by its client: {job.get('reason')}")
            case "expired" | "lost":
                book.violation(f"{work} is {work.terminal}: {job.get('reason')}")
            case None:
                last = [f"{a['backend']} {a['state']}" for a in job.get("attempts", ())]
                book.violation(f"{work} has no end: {work.states} {last}")


def _check_success(book: Book, work: Work, job: dict[str, Any]) -> None:
    if work.alias == "break":
        book.violation(f"{work} succeeded, which its workflow cannot")
    expected = [(len(picture_of(work.value)), sha256_of(work.value), "image/png")]
    if [(o["size"], o["sha256"], o["content_type"]) for o in job["outputs"]] != expected:
        book.violation(f"{work} lists outputs that are not its own: {job['outputs']}")
    if not work.delivered:
        book.violation(f"{work} succeeded, and its result could not be fetched")


def _check_failure(book: Book, work: Work, job: dict[str, Any]) -> None:
    fault, reason = job.get("fault"), job.get("reason")
    if not reason or fault not in ("workflow", "host", "network", "client", "policy"):
        book.violation(f"{work} failed without saying why: fault {fault!r}, reason {reason!r}")
    if (work.alias == "break") is not (fault == "workflow"):
        book.violation(f"{work} failed, and the fault is said to be {fault}: {reason}")
    if work.alias != "break":
        book.note(f"jobs failed, {fault}: {_general(str(reason))}")


def _general(reason: str) -> str:
    """A reason without names, so that equal ones are counted together."""
    return NAMES.sub("…", reason)[:160]


def check_owners(book: Book, diaries: Diaries, histories: dict[str, dict[str, Any]]) -> int:
    """Every prompt of an owner ran to its end, or died with its PC; and its history is there. How many there were."""
    for text in diaries.violations:
        book.violation(text)
    for prompt in diaries.owners():
        if not prompt.killed and prompt.states[-1] != "done":
            book.violation(f"the owner's prompt {prompt.prompt_id} on {prompt.pc} ended as {prompt.states}")
        history = histories.get(prompt.pc)
        current = prompt.life == diaries.lives[prompt.pc]
        if history is not None and current and not prompt.killed and prompt.prompt_id not in history:
            book.violation(f"the history of the owner's prompt {prompt.prompt_id} on {prompt.pc} is gone")
    return len(diaries.owners())


def surplus(before: Counter[str], after: Counter[str], allowed: dict[str, int]) -> dict[str, int]:
    """What an idle daemon has more of than one that has done nothing, beyond what is allowed."""
    kinds = set(before) | set(after)
    more = {kind: after[kind] - before[kind] for kind in sorted(kinds)}
    return {kind: count for kind, count in more.items() if count > allowed.get(kind, 0)}


def check_spool(book: Book, spool: Path) -> None:
    """Every file on disk is an output that /jobs lists, and nothing is half a file."""
    listed: Counter[str] = Counter()
    for work in book.acknowledged:
        listed.update(output["sha256"] for output in (work.record or {}).get("outputs", ()))
    orphans: Counter[str] = Counter()
    for path in sorted((spool / "results").rglob("*")):
        if not path.is_file():
            continue
        if path.suffix == ".part":
            book.violation(f"half a file was left in the spool: {path.name}")
        else:
            orphans[hashlib.sha256(path.read_bytes()).hexdigest()] += 1
    orphans -= listed
    made_for = {sha256_of(work.value): work for work in book.works} if orphans else {}
    for sha256 in orphans:
        maker = made_for.get(sha256)
        if maker is not None and maker.job_id is None:
            continue  # its client left before it heard that it has a job
        whose = f"made for {maker}, which was {maker.states}" if maker is not None else "made for nobody"
        book.violation(f"a file in the spool is no output that /jobs lists: {whose}")
