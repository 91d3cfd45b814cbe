"""Removes what is over: uploads and results past their time, jobs nobody comes back for, clients that are gone."""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from bridged.actors.clients import Clients
from bridged.config.schema import Settings
from bridged.files.spool import Spool

log = logging.getLogger(__name__)

ROUND = 1.0
"""seconds between rounds: how late something may be removed or revoked"""


async def run(clients: Clients, spool: Spool, settings: Callable[[], Settings]) -> None:
    """Until cancelled."""
    while True:
        await trio.sleep(ROUND)
        clients.lapse()
        now = settings()
        try:
            await spool.discard(*clients.expire(now.jobs.result_ttl, now.files.results_max_total * 1e6))
        except OSError as error:
            log.error("files that are over cannot be removed: %s", error)  # the next start sweeps them
