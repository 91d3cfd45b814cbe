"""Taking a submission: from an alias and values to a queued job."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from bridged import catalogue
from bridged.actors.dispatcher import Dispatcher
from bridged.actors.session import Clients
from bridged.config.schema import Settings
from bridged.errors import QueueFull
from bridged.model import Job


class Submitted(msgspec.Struct, frozen=True):
    """`position`: open jobs now, this one included."""

    job_id: str
    position: int


class Intake:
    """`current` gives the catalogue and the settings in force."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        clients: Clients,
        current: Callable[[], tuple[catalogue.Catalogue, Settings]],
    ) -> None:
        self._dispatcher = dispatcher
        self._clients = clients
        self._current = current

    def submit(self, client_id: str, alias: str, values: Mapping[str, Any]) -> Submitted:
        """Checks and queues a job; the graph is a snapshot of the alias as it is now.

        Raises UnknownAlias, BadInput, NoBackendCanRun, QueueFull, Stopping; then there is no job.
        """
        workflows, settings = self._current()
        workflow = workflows.get(alias)
        graph, files = catalogue.apply(workflow, values, lambda token: self._clients.resolve(client_id, token))
        job = Job(
            id=str(uuid.uuid4()),
            client_id=client_id,
            alias=alias,
            graph=graph,
            files=files,
            requires=workflow.requires,
            created_at=time.time(),
        )
        self._dispatcher.refuse_if_impossible(job)
        if self._dispatcher.queued() >= settings.jobs.max_queued:
            raise QueueFull(f"{settings.jobs.max_queued} jobs are waiting already; try again later")
        return Submitted(job.id, self._dispatcher.on_submitted(job))
