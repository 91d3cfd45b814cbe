"""Removes what is over: uploads and results past their time, clients that are gone."""

from __future__ import annotations

from collections.abc import Callable

import trio

from bridged.actors.session import Clients
from bridged.config.schema import Settings
from bridged.files.spool import Spool

ROUND = 5.0
"""seconds between rounds: how late something may be removed"""


async def run(clients: Clients, spool: Spool, settings: Callable[[], Settings]) -> None:
    """Until cancelled."""
    while True:
        await trio.sleep(ROUND)
        await spool.discard(*clients.expire(settings().jobs.result_ttl))
