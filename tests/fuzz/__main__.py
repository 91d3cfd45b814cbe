"""`python -m tests.fuzz [--seconds 600] [--jobs N] [NAME …]`: every target for so long, each in a process of its own.

Prints a line for each: how many examples were tried, and what failed, with the input that does it again; ends with 1
where something did. NAME: a part of a target's name. Where atheris is installed, parsers of bytes run under it, too.
"""

from __future__ import annotations

import argparse
import faulthandler
import functools
import importlib
import json
import os
import pkgutil
import re
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hypothesis import HealthCheck, Phase, settings

import tests.fuzz
from tests.fuzz import guided

ELSEWHERE = {
    "tests.actors.test_callback_hosts": ["test_what_is_taken_means_the_same_host_to_everybody"],
    "tests.comfy.test_protocol": [
        "test_no_binary_message_raises",
        "test_no_text_message_raises",
        "test_any_history_is_an_entry_or_a_backend_that_cannot_be_used",
        "test_any_queue_is_a_queue_or_a_backend_that_cannot_be_used",
        "test_any_node_errors_and_outputs_are_described",
    ],
    "tests.files.test_multipart": ["test_no_name_can_add_headers_or_parts"],
    "tests.files.test_names": ["test_any_text_is_a_bare_name_or_refused"],
    "tests.test_catalogue": ["test_any_values_are_refused_or_make_a_graph_that_can_be_sent"],
}
"""targets that stand beside other tests of their parser"""

ROUND = 1000
"""examples between two looks at the clock, about; each round begins with other ones"""

MEMORY = 4 * 1024**3
"""bytes of address space of one target: a parser that wants more has failed"""

SLACK = 120.0
"""seconds that a target may take beyond its time: to shrink what failed; then it hangs, and is asked where"""

Target = Callable[[], None]


def load() -> dict[str, Target]:
    """Module and function -> target. The profile must be loaded by then."""
    found: dict[str, Target] = {}
    for module in pkgutil.iter_modules(tests.fuzz.__path__, "tests.fuzz."):
        if module.name.rpartition(".")[2].startswith("test_"):
            loaded = importlib.import_module(module.name)
            found |= {
                f"{module.name}.{name}": value
                for name, value in vars(loaded).items()
                if name.startswith("test_") and getattr(value, "is_hypothesis_test", False)
            }
    for module_name, names in ELSEWHERE.items():
        found |= {f"{module_name}.{name}": getattr(importlib.import_module(module_name), name) for name in names}
    return found


def run(test: Any, seconds: float) -> dict[str, Any]:
    """One target, in this process: rounds of new examples until its time is over, or one fails."""
    end, examples, inner = time.monotonic() + seconds, 0, test.hypothesis.inner_test
    failing = False

    @functools.wraps(inner)
    def counted(*args: Any, **kwargs: Any) -> None:
        nonlocal examples, failing
        if time.monotonic() > end and not failing:
            return  # the rest of the last round
        examples += 1
        try:
            inner(*args, **kwargs)
        except Exception:
            failing = True  # it is shrunk now, however long that takes
            raise

    test.hypothesis.inner_test = counted
    failure = ""
    audit = getattr(test, "audit", None)
    while time.monotonic() < end and not failure:
        try:
            test()
            if audit is not None:
                audit()
        except Exception:
            failure = traceback.format_exc()
    return {"examples": examples, "failure": failure}


def in_process(name: str, seconds: float) -> dict[str, Any]:
    """One target, in a process of its own; one that hangs is killed, and tells where it was."""
    is_guided = name in guided.TARGETS
    what = (
        ["tests.fuzz.guided", name, str(seconds)]
        if is_guided
        else ["tests.fuzz", "--only", name, "--seconds", str(seconds)]
    )
    command = [sys.executable, "-m", *what]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said, complaints = process.communicate(timeout=seconds + SLACK)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        said, complaints = process.communicate()
        return {"examples": 0, "failure": f"it hangs\n{complaints[-8000:]}"}
    if is_guided:
        tried = re.search(r"number_of_executed_units: (\d+)", complaints)
        failed = process.returncode != 0
        return {"examples": int(tried[1]) if tried else 0, "failure": _of_atheris(said + complaints) if failed else ""}
    if process.returncode != 0 or not said:
        return {"examples": 0, "failure": f"it ended with {process.returncode}\n{complaints[-8000:]}"}
    told: dict[str, Any] = json.loads(said.splitlines()[-1])
    return told


def _of_atheris(said: str) -> str:
    """What it says from the exception on, with where it has put the input."""
    said = re.sub(r"(?m)^(INFO|WARNING): .*\n", "", said)
    return said[max(0, said.find("=== Uncaught Python exception")) :][:8000]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=600, help="for each target")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at a time")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", help="parts of names; none: all")
    options = parser.parse_args()
    settings.register_profile(
        "fuzz",
        max_examples=ROUND,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
    )
    settings.load_profile("fuzz")
    targets = load()
    names = [*targets, *(guided.TARGETS if guided.available() else [])]
    if options.only:
        faulthandler.enable()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        print(json.dumps(run(targets[options.only], options.seconds)))
        return 0
    chosen = [name for name in names if not options.names or any(part in name for part in options.names)]
    if not guided.available():
        print(f"skipped {len(guided.TARGETS)} targets: atheris is not installed")
    failed = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for name, result in zip(
            chosen, pool.map(lambda name: in_process(name, options.seconds), chosen), strict=True
        ):
            failed += bool(result["failure"])
            what = "FAILED" if result["failure"] else "ok"
            print(f"{what:7} {result['examples']:>9} examples  {name.removeprefix('tests.')}", flush=True)
            if result["failure"]:
                print(result["failure"], flush=True)
    print(f"{len(chosen)} targets, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
