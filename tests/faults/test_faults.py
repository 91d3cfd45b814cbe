"""A bounded part of the fault suite. The whole of it: `make faults`."""

from __future__ import annotations

import gc
import secrets

import pytest

from .run import run, told
from .world import SMALL


# httpx leaves the body of a request half read where the daemon was killed while it was sent.
@pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning")
@pytest.mark.parametrize("scenario", ["storm", "disk"])
async def test_nothing_acknowledged_is_lost(scenario: str) -> None:
    verdict = await run(scenario, secrets.token_hex(4), SMALL)
    gc.collect()  # such a body is this test's, not the next one's
    if verdict.skipped:
        pytest.skip(verdict.skipped)
    assert not verdict.violations, told(verdict, SMALL)
    assert verdict.acknowledged
    assert verdict.faults
