"""Taking a submission: from an alias and values to a queued job, safe in the ledger."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from bridged import catalogue
from bridged.actors.clients import Clients
from bridged.actors.dispatcher import Dispatcher
from bridged.config.schema import Settings
from bridged.errors import BadInput, BridgedError, KeyReused, QueueFull, TooMany
from bridged.model import Job, owner_of
from bridged.store.ledger import Ledger

NOT_STORED = "it could not be stored"
"""why a submission ended that was refused: its key was not used"""


class Submitted(msgspec.Struct, frozen=True):
    """`position`: open jobs now, this one included."""

    job_id: str
    position: int


def _no_webhooks(url: str) -> None:
    raise BadInput("webhook: this service calls none")


class Intake:
    """`current` gives the catalogue and the settings in force; `check_webhook` raises where a URL cannot be one."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        clients: Clients,
        ledger: Ledger,
        current: Callable[[], tuple[catalogue.Catalogue, Settings]],
        check_webhook: Callable[[str], None] = _no_webhooks,
    ) -> None:
        self._dispatcher = dispatcher
        self._clients = clients
        self._ledger = ledger
        self._current = current
        self._check_webhook = check_webhook
        self._keys: dict[tuple[str, str], str] = {}
        """(client_id, idempotency key) -> job_id"""

    def restore(self) -> None:
        """Takes up the keys of the jobs that the dispatcher knows."""
        for record in self._dispatcher.jobs.values():
            job = record.job
            if job.idempotency_key and (record.failure is None or record.failure.message != NOT_STORED):
                self._keys[job.client_id, job.idempotency_key] = job.id

    async def submit(
        self,
        client_id: str,
        alias: str,
        values: Mapping[str, Any],
        *,
        key: str = "",
        webhook: str = "",
        max_jobs: int = 0,
        weight: float = 1.0,
    ) -> Submitted:
        """Checks and queues a job, and returns once it is safe; the graph is a snapshot of the alias as it is now.

        With a `key` that this client used before, it is that job again. `max_jobs` (0: no limit) open ones its owner
        may have, `weight` is its share of the pool. Raises KeyReused (for something else),
        UnknownAlias, BadInput, NoBackendCanRun, QueueFull, TooMany, OutOfSpace, StorageFailed, Stopping; then there is
        no job.
        """
        digest = _digest(alias, values, webhook) if key else ""
        known = self._known(client_id, key, digest)
        if known is not None:
            await self._ledger.durable()
            return Submitted(known, self._dispatcher.open_jobs())
        self._ledger.refuse_if_full()
        job = self._job(client_id, alias, values, key, digest, webhook, weight)
        self._dispatcher.refuse_if_impossible(job)
        max_queued = self._current()[1].jobs.max_queued
        if self._dispatcher.is_full_for(job.owner, max_queued):
            raise QueueFull(f"{max_queued} jobs are waiting already; try again later")
        owner = owner_of(client_id)
        if max_jobs and self._dispatcher.open_jobs_of(owner) >= max_jobs:
            raise TooMany(f"{owner} has {max_jobs} open jobs, as many as its key may; try again once one has ended")
        position = self._dispatcher.on_submitted(job)
        if key:
            self._remember(job)
        try:
            await self._ledger.durable()
        except BridgedError:
            self._keys.pop((client_id, key), None)
            self._dispatcher.on_revoked(job.id, NOT_STORED, announced=False)
            raise
        return Submitted(job.id, position)

    def _job(
        self,
        client_id: str,
        alias: str,
        values: Mapping[str, Any],
        key: str,
        digest: str,
        webhook: str,
        weight: float,
    ) -> Job:
        workflows, settings = self._current()
        workflow = workflows.get(alias)
        if webhook:
            self._check_webhook(webhook)
        graph, files = catalogue.apply(workflow, values, lambda token: self._clients.resolve(client_id, token))
        jobs, options = settings.jobs, workflow.options
        return Job(
            id=str(uuid.uuid4()),
            client_id=client_id,
            alias=alias,
            graph=graph,
            files=files,
            requires=workflow.requires,
            created_at=self._ledger.now(),
            disconnect=jobs.on_disconnect if options.on_disconnect is None else options.on_disconnect,
            max_runtime=jobs.max_runtime if options.max_runtime is None else options.max_runtime,
            no_progress_timeout=(
                jobs.no_progress_timeout if options.no_progress_timeout is None else options.no_progress_timeout
            ),
            idempotency_key=key,
            digest=digest,
            webhook=webhook,
            weight=weight,
            metadata=settings.files.metadata if options.metadata is None else options.metadata,
        )

    def _known(self, client_id: str, key: str, digest: str) -> str | None:
        """The job that was submitted under this key. Raises KeyReused."""
        job_id = self._keys.get((client_id, key)) if key else None
        record = self._dispatcher.jobs.get(job_id or "")
        if record is None:
            return None
        if record.job.digest != digest:
            raise KeyReused(f"the Idempotency-Key {key!r} was used for another submission: job {record.job.id}")
        return record.job.id

    def _remember(self, job: Job) -> None:
        if len(self._keys) > 2 * len(self._dispatcher.jobs) + 1000:
            self._keys = {each: job_id for each, job_id in self._keys.items() if job_id in self._dispatcher.jobs}
        self._keys[job.client_id, job.idempotency_key] = job.id


def _digest(alias: str, values: Mapping[str, Any], webhook: str) -> str:
    """The same for the same submission, however its JSON was written."""
    whole = msgspec.json.encode([alias, dict(values), webhook], order="deterministic")
    return hashlib.sha256(whole).hexdigest()
