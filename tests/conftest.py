from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, settings

from tests.e2e.house import BLURS, INVERT, PATTERN, House
from tests.fakes.comfyui import FakeComfyUI

REAL_URLS = [url.strip() for url in os.environ.get("COMFYUI_URLS", "").split(",") if url.strip()]

# Examples may take their time where the machine is busy; CI's own profile of Hypothesis, where it is in force, stays.
settings.register_profile("bridged", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("bridged")

StartFake = Callable[[str], Awaitable[FakeComfyUI]]


@pytest.fixture
async def house(tmp_path: Path, nursery: trio.Nursery) -> House:
    """A configuration folder with the workflows `pattern`, `invert` and `blurs`; no backend yet, not started."""
    house = House(tmp_path, nursery)
    house.write_workflow("pattern", PATTERN)
    house.write_workflow("invert", INVERT)
    house.write_workflow("blurs", BLURS)
    return house


@pytest.fixture
async def start_fake(nursery: trio.Nursery) -> StartFake:
    """Starts a fake ComfyUI of that name on a free port."""

    async def start(name: str) -> FakeComfyUI:
        fake = FakeComfyUI(name=name)
        await nursery.start(fake.serve)
        return fake

    return start


@pytest.fixture
async def served(house: House, start_fake: StartFake) -> House:
    """A running daemon on two backends: two fakes, or the real servers that COMFYUI_URLS names."""
    urls = list(REAL_URLS)
    for name in ("one", "two") if not urls else ():
        fake = await start_fake(name)
        # `blurs` takes a second here, too: a fake would else be through with it before a poll has seen it run.
        fake.script.durations = {str(node): 0.05 for node in range(20, 42)}
        urls.append(fake.url)
    names = [f"pc-{number}" for number in range(1, len(urls) + 1)]
    house.write_backends(*zip(names, urls, strict=True))
    await house.start()
    await house.wait_up(*names)
    return house


@pytest.fixture
async def fake(house: House, start_fake: StartFake) -> FakeComfyUI:
    """A fake that the house's daemon runs on, alone; the daemon is started."""
    fake = await start_fake("one")
    house.write_backends(("pc-1", fake.url))
    await house.start()
    await house.wait_up("pc-1")
    return fake
