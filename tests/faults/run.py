"""Runs scenarios and says what came of them."""

from __future__ import annotations

import re
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import trio

from .disk import Skipped
from .machines import ROOT
from .scenarios import SCENARIOS
from .world import Scale, Verdict, world

LIMIT = 1500.0
"""seconds for one scenario, whatever happens"""

NUMBERS = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d+(?:\.\d+)?|\b(?:paint|blend|break|client|socket)\b")
"""in which violations of one kind differ"""


async def run(name: str, seed: str, scale: Scale, source: Path = ROOT, keep: bool = False) -> Verdict:
    """One scenario in a world of its own, healed, settled and judged. The seed's choices are the scenario's, too."""
    verdict = Verdict(name, seed)
    began = trio.current_time()
    try:
        with trio.fail_after(LIMIT):
            async with world(f"{seed}/{name}", scale, source, keep) as made:
                verdict.violations = made.book.violations
                try:
                    await SCENARIOS[name](made)
                    await made.settle()
                    await made.judge(verdict)
                except Skipped as reason:
                    verdict.skipped = str(reason)
                except Exception as error:
                    # Kept, and the folder with it: what ended the scenario is a finding, of the daemon or of the suite.
                    made.book.violation("".join(traceback.format_exception(error)).strip())
    except trio.TooSlowError:
        verdict.violations.append(f"the scenario took more than {LIMIT:g} s")
    verdict.seconds = trio.current_time() - began
    return verdict


def told(verdict: Verdict, scale: Scale) -> str:
    """A scenario's outcome, with the command that repeats it."""
    head = f"{verdict.scenario:9} {verdict.seconds:6.1f} s  "
    if verdict.skipped:
        return f"{head}SKIPPED: {verdict.skipped}"
    ends = ", ".join(f"{count} {end}" for end, count in sorted(verdict.ends.items()))
    faults = ", ".join(f"{count} {name}" for name, count in sorted(verdict.faults.items()))
    lines = [
        f"{head}{'ok' if not verdict.violations else 'FAILED'}  {verdict.acknowledged} acknowledged ({ends}),"
        f" {verdict.reruns} reruns, {verdict.owners} owners' prompts",
        f"  faults: {faults}",
    ]
    lines += [f"  note: {count} × {name}" for name, count in sorted(verdict.notes.items())]
    alike = Counter(_kind(text) for text in verdict.violations)
    firsts = {_kind(text): text for text in reversed(verdict.violations)}
    for kind, count in alike.most_common():
        lines.append(f"  WRONG: {firsts[kind]}" + (f" (and {count - 1} more of this kind)" if count > 1 else ""))
    if verdict.violations:
        again = f"--scenario {verdict.scenario} --seed {verdict.seed} --scale {scale.name}"
        lines.append(f"  again: python -m tests.faults {again}")
    return "\n".join(lines)


def _kind(violation: str) -> str:
    return NUMBERS.sub("#", violation)


def summary(verdicts: Sequence[Verdict], seed: str) -> str:
    """The report line."""
    skipped = [verdict.scenario for verdict in verdicts if verdict.skipped]
    return (
        f"{sum(v.faults.total() for v in verdicts)} faults injected, "
        f"{sum(v.acknowledged for v in verdicts)} jobs acknowledged, "
        f"{sum(v.lost for v in verdicts)} lost, "
        f"{sum(v.duplicates for v in verdicts)} duplicated without a reason, "
        f"{sum(v.reruns for v in verdicts)} reruns with a reason, "
        f"{sum(v.owners for v in verdicts)} owners' prompts, "
        f"{sum(len(v.violations) for v in verdicts)} violations, seed {seed}"
        + (f", skipped: {', '.join(skipped)}" if skipped else "")
    )
