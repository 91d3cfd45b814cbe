"""A worker of its own for each test, on a free port, with folders under tmp_path."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from bridged.embedded.server import serve
from tests.embedded.client import Client

if TYPE_CHECKING:
    import pathlib
    from collections.abc import AsyncIterator


@asynccontextmanager
async def running_worker(base: pathlib.Path) -> AsyncIterator[Client]:
    """A worker in this process, stopped in order at the end."""
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        url = await nursery.start(partial(serve, "127.0.0.1", 0, base, shutdown_trigger=stop.wait))
        async with httpx.AsyncClient(base_url=url, timeout=20) as http:
            yield Client(url, http)
        stop.set()


@pytest.fixture
def base(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "worker"


@pytest.fixture
async def client(base: pathlib.Path) -> AsyncIterator[Client]:
    async with running_worker(base) as client:
        yield client
