"""schemathesis against the served OpenAPI document, over real HTTP, and what is left of it afterwards.

BRIDGED_FUZZ_SECONDS: for how long (`make fuzz`); without it a bounded part.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.conftest import StartFake
from tests.e2e.house import House

ROOT = Path(__file__).resolve().parents[2]
SECONDS = float(os.environ.get("BRIDGED_FUZZ_SECONDS", "0"))
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "missing_required_header",
]
"""what it holds each answer against. It finds by itself requests that were not answered (in time)."""

GROWTH, PER_JOB = 48 * 1024 * 1024, 16 * 1024
"""bytes that the process may grow by after a first round, and for each job that its fake PC keeps (8 kB, measured)"""

TIME_WAIT, LISTEN = "06", "0A"


async def schemathesis(house: House, *options: str, key: str = "") -> str:
    """One run; what it printed. Fails where it found something. With one worker: several threads of it disturb each
    other in what it reads of its own source (KeyError, SystemError: seen with 4.32)."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{house.url}/openapi.json", "--no-color"]
    command += ["--generation-database", "none", "--continue-on-failure", "--request-timeout", "10"]
    command += ["--checks", ",".join(CHECKS), "--warnings", "off", *options]
    if key:
        command += ["--header", f"Authorization: Bearer {key}"]
    env = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.e2e.schemathesis_hooks", "PYTHONPATH": str(ROOT)}
    done = await trio.run_process(
        command,
        env=env,
        cwd=house.folder,
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        check=False,
    )
    said = done.stdout.decode(errors="replace")
    print(said)  # shown by pytest where it failed; has the seed and what to send to see it again
    assert done.returncode == 0, said[-4000:]
    return said


def test_cases(said: str) -> int:
    found = re.search(r"(\d+) generated", said)
    assert found is not None, said
    return int(found[1])


test_cases.__test__ = False  # type: ignore[attr-defined]


def tasks(task: trio.lowlevel.Task | None = None) -> Iterator[str]:
    """The names of all tasks of this program but the fake PC's, which has one for each connection that is kept."""
    task = task or trio.lowlevel.current_root_task()
    if task is not None:
        if not task.name.startswith("tests."):
            yield task.name
        for nursery in task.child_nurseries:
            for child in nursery.child_tasks:
                yield from tasks(child)


def connections(house: House) -> int:
    """TCP connections to the service that are open."""
    port = f":{int(house.url.rpartition(':')[2]):04X}"
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return sum(1 for row in rows if row[1].endswith(port) and row[3] not in (TIME_WAIT, LISTEN))


def resident() -> int:
    """Bytes of memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def files(house: House) -> list[str]:
    return [str(path) for path in (house.folder / "state" / "spool").rglob("*") if path.is_file()]


async def nothing_is_left(house: House, before: list[str]) -> None:
    """Waits until all is as if nobody had been there: jobs and files have a time to live of a second here."""
    left: object = None
    with trio.move_on_after(15):
        while True:
            now, still = list(tasks()), connections(house)
            facts = await house.status()
            left = (
                facts["jobs"],
                facts["queue"],
                facts["clients"],
                [backend for backend in facts["backends"] if backend["state"] != "up" or backend["running"]],
                files(house),
                still,
                [name for name in set(now) if now.count(name) > before.count(name)],
            )
            if left == ({}, 0, 0, [], [], 0, []):
                return
            await trio.sleep(0.05)
    pytest.fail(f"left over: {left}")


@pytest.fixture
async def short_lived(house: House, start_fake: StartFake) -> House:
    """A daemon that forgets everything after a second."""
    fake = await start_fake("one")
    house.write_backends(("pc-1", fake.url))
    house.settings["jobs"] |= {"result_ttl": 1, "max_queued": 50}
    house.settings["files"] = {"upload_ttl": 1, "upload_max_size": 0.1}
    await house.start()
    await house.wait_up("pc-1")
    return house


async def test_nothing_that_the_document_allows_or_forbids_breaks_the_service(short_lived: House) -> None:
    house = short_lived
    before = list(tasks())
    with trio.fail_after(60):
        await schemathesis(house, "--phases", "examples,coverage", "--max-examples", "20")
        await nothing_is_left(house, before)
    was = resident()
    with trio.fail_after(SECONDS + 120):
        bounded = ["--max-examples", "60", "--no-shrink", "--seed", "1"]
        effort = ["--max-time", str(int(SECONDS))] if SECONDS else bounded
        said = await schemathesis(house, "--phases", "fuzzing,stateful", *effort)
        await nothing_is_left(house, before)
    grown = resident() - was
    done = (await house.status())["generation_count"]
    print(f"{test_cases(said)} test cases, {done} jobs, grown by {grown / 1e6:.1f} MB")
    assert test_cases(said) > 500
    assert done > 20
    assert grown < GROWTH + done * PER_JOB


async def test_nor_with_a_key_that_may_do_little(house: House, start_fake: StartFake) -> None:
    fake = await start_fake("one")
    house.write_backends(("pc-1", fake.url))
    house.write_clients("anna", anna='aliases = ["pattern"]\nmax_jobs = 3\nrate = 600\nburst = 10')
    await house.start()
    await house.wait_up("pc-1")
    with trio.fail_after(60):
        said = await schemathesis(
            house, "--phases", "coverage,fuzzing", "--max-examples", "10", "--no-shrink", key="key-of-anna"
        )
    assert test_cases(said) > 200
