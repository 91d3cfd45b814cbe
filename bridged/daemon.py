"""The composition root: it alone puts the parts together and owns every nursery, the signals and the stop."""

from __future__ import annotations

import fcntl
import logging
import os
import resource
import signal
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import trio

from bridged import __version__, catalogue
from bridged.actors import janitor
from bridged.actors.backend import Shared
from bridged.actors.callback import SigningKey
from bridged.actors.clients import Clients
from bridged.actors.dispatcher import Dispatcher
from bridged.actors.intake import Intake
from bridged.actors.nodes import Nodes
from bridged.actors.pool import Pool
from bridged.actors.publisher import Publisher, publish_offline, remove_offline
from bridged.actors.reloader import Loaded, Reloader, load_all
from bridged.actors.webhooks import Webhooks
from bridged.api.access import Gate, check_start
from bridged.api.app import Services, create_app, hot_endpoints
from bridged.api.connections import Connections
from bridged.api.entrance import Entrance
from bridged.api.server import listen, serve
from bridged.api.tls import open_certificate
from bridged.config import tls
from bridged.config.diff import Diff
from bridged.config.load import EMBEDDED_NAME
from bridged.config.schema import Backend, Server, Settings
from bridged.embedded.process import run_worker_process
from bridged.errors import BridgedError, ConfigError
from bridged.files.spool import Spool
from bridged.model import Attempt, BackendSnapshot, Job, JobEvent
from bridged.ops import log as ops_log
from bridged.ops import notify
from bridged.placement.capability import obstacles
from bridged.store.ledger import Change, DeliveryAdded, Ledger
from bridged.store.sqlite import SqliteLedger

log = logging.getLogger(__name__)


MANY = 65536
"""open files that are always enough"""

KEPT_FILES = 256
"""open files that are not for clients' connections: PCs, files, the ledger"""

RENEWAL = 2.0
"""seconds of a stop that patched PCs get to renew the lease of what runs on them"""

KEY_WITHDRAWN = "its API key was withdrawn"


def check(folder: Path, environ: Mapping[str, str] | None = None) -> list[str]:
    """What is wrong with a configuration folder, one line each; empty where all is well."""
    try:
        loaded = load_all(folder, environ)
    except ConfigError as error:
        return [str(error)]
    config = loaded.config
    return [*loaded.problems, *tls.warnings(config.folder, config.settings.server, config.backends)]


def publish(folder: Path, body: bytes, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Publishes a workflow into the state folder of a configuration, with no running service: what the service would
    have answered, and the `folder`. Raises BridgedError."""
    return trio.run(publish_offline, folder, os.environ if environ is None else environ, body)


def unpublish(folder: Path, alias: str, environ: Mapping[str, str] | None = None) -> str:
    """Takes a published workflow out of that folder, which is returned. Raises BridgedError."""
    return remove_offline(folder, os.environ if environ is None else environ, alias)


def published(folder: Path, environ: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """What is published there, and can be read: alias, description, inputs. Raises ConfigError."""
    return [
        {"alias": each.alias, "description": each.description, "inputs": list(each.inputs)}
        for each in load_all(folder, environ).published.workflows.values()
    ]


class _Effects:
    """The dispatcher's effects, carried out by the actors."""

    def __init__(self) -> None:
        self.pool: Pool
        self.clients: Clients
        self.webhooks: Webhooks
        self.ledger: Ledger
        self.restored = False
        """until then the clients learn of the jobs from the ledger"""

    def start(self, job: Job, attempt: Attempt) -> None:
        self.pool.actor(attempt.backend).start(job, attempt)

    def adopt(self, job: Job, attempt: Attempt, *, wanted: bool) -> None:
        self.pool.adopt(job, attempt, wanted=wanted)

    def fence(self, attempt: Attempt) -> None:
        self.pool.fence(attempt)

    def cancel(self, attempt: Attempt) -> None:
        self.pool.actor(attempt.backend).cancel(attempt.prompt_id)

    def withdraw(self, attempt: Attempt) -> None:
        self.pool.actor(attempt.backend).withdraw(attempt.prompt_id)

    def write(self, *changes: Change) -> None:
        self.ledger.write(*changes)
        for change in changes:
            if isinstance(change, DeliveryAdded):
                self.ledger.after_commit(partial(self.webhooks.take, change))  # nor tell anybody of one

    def publish(self, event: JobEvent) -> None:
        if event.state.terminal:
            self.ledger.after_commit(partial(self.clients.on_event, event))  # nobody may see an end that is undone
        elif self.restored:
            self.clients.on_event(event)


class Daemon:
    """The whole service over one configuration folder. The constructor reads nothing; `run` does everything."""

    def __init__(self, folder: Path, environ: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._environ = environ
        self._stopping = trio.Event()
        self._leases_renewed = trio.Event()
        self._started_at = time.time()
        self._worker_url: str | None = None
        self._worker_changed = trio.Event()

    def stop(self) -> None:
        """Begins a graceful stop; `run` returns within the shutdown budget."""
        self._stopping.set()

    async def run(self, *, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves until `stop`, SIGTERM or SIGINT. Reports the URLs it listens on.

        Raises ConfigError (the configuration cannot be used at all), BridgedError (the state folder cannot).
        """
        loaded = await trio.to_thread.run_sync(load_all, self._folder, self._environ)
        ops_log.configure(loaded.config.settings.log.level)
        if open_to_all := check_start(loaded.config):
            raise ConfigError(open_to_all)
        for problem in loaded.problems:
            log.error("configuration: %s; it is left out", problem)
        self._certificate = await trio.to_thread.run_sync(open_certificate, loaded.config)
        state_dir = loaded.config.state_dir
        lock = _lock(state_dir)
        try:
            state = loaded.config.settings.state
            ledger = SqliteLedger(
                state_dir / "ledger.sqlite3", durability=state.durability, reserve=int(state.reserve * 1e6)
            )
            await trio.to_thread.run_sync(ledger.open)
            with closing(ledger), listen(loaded.config.settings.server) as listener:
                await self._run(loaded, ledger, listener, task_status)
        finally:
            os.close(lock)

    async def _run(
        self,
        loaded: Loaded,
        ledger: SqliteLedger,
        listener: socket.socket,
        task_status: trio.TaskStatus[list[str]],
    ) -> None:
        self._ledger = ledger
        self._build(loaded, ledger)
        await self._recover(ledger)
        budget = loaded.config.settings.server.shutdown_budget
        async with trio.open_nursery() as root:
            await root.start(self._on_signals, root)
            for child in (
                ledger.run,
                partial(janitor.run, self.clients, self.spool, self._settings),
                self.webhooks.run,
                self.reloader.run,
                self.pool.run,
                self.nodes.run,
                partial(self._embedded_worker, loaded.config.state_dir),
            ):
                root.start_soon(self._core, child)
            root.start_soon(self._prepare_stop, root, budget)
            urls: list[str] = await root.start(self._serve, loaded.config.settings.server, listener, root)
            self._revoke_strangers()
            notify.ready()
            root.start_soon(notify.watchdog)
            log.info("bridged %s listens on %s", __version__, ", ".join(urls))
            task_status.started(urls)

    async def _core(self, child: Callable[[], Awaitable[None]]) -> None:
        """A part without which there is no service: a crash of it ends all, and must not pass for the clients' leaving,
        which would revoke their jobs."""
        try:
            await child()
        except Exception:
            self.dispatcher.detach()
            self.clients.stop()
            raise

    async def _serve(
        self,
        server: Server,
        listener: socket.socket,
        root: trio.Nursery,
        *,
        task_status: trio.TaskStatus[list[str]],
    ) -> None:
        """The HTTP side; when it has ended, so has everything."""
        limits = Connections(
            lambda: self._settings().limits,
            self._gate.is_proxy,
            server.stalled_client_timeout,
            max(16, _open_files() - KEPT_FILES),
        )
        await serve(
            Entrance(self._app, self._hot, self._gate, server.stalled_client_timeout),
            server,
            listener,
            limits,
            certificate=self._certificate,
            stopping=self._stopping.wait,
            task_status=task_status,
        )
        if self._stopping.is_set():
            await self._leases_renewed.wait()
        root.cancel_scope.cancel()

    def _build(self, loaded: Loaded, ledger: SqliteLedger) -> None:
        jobs = loaded.config.settings.jobs
        effects = _Effects()
        self.dispatcher = Dispatcher(
            effects, ledger.now, max_attempts=jobs.max_attempts, prefetch=jobs.prefetch
        )
        self.clients = Clients(self.dispatcher, ledger, lambda: self._settings().jobs, ledger.secret)
        reserve = int(loaded.config.settings.state.reserve * 1e6)
        with suppress(OSError):  # then the log says why, with the first workflow that is published
            loaded.config.published_dir.mkdir(mode=0o700, exist_ok=True)
        state = loaded.config.settings.state
        self.spool = Spool(
            loaded.config.state_dir / "spool", keep_free=reserve, fsync=state.durability == "power"
        )
        self.reloader = Reloader(loaded, self._apply, self._environ)
        ssl_context = ssl.create_default_context()  # one for all: each costs 0.8 MB and 26 ms (measured)
        self.nodes = Nodes(
            lambda: [snapshot.name for snapshot in self.dispatcher.snapshots() if not snapshot.draining],
            lambda name, path: self.pool.ask(name, path),
            lambda name: self.pool.definitions(name),
            lambda: self._settings().nodes.refresh,
        )
        self.pool = Pool(
            Shared(
                dispatcher=self.dispatcher,
                nodes=self.nodes,
                spool=self.spool,
                ledger=ledger,
                ssl_context=ssl_context,
                client_id=f"bridged-{ledger.instance_id}",
                settings=self._settings,
            )
        )
        self.webhooks = Webhooks(
            ledger,
            lambda: self._settings().webhooks,
            SigningKey(lambda: self._settings().webhooks, loaded.config.folder, loaded.config.state_dir),
            ssl_context,
        )
        effects.pool, effects.clients, effects.ledger = self.pool, self.clients, ledger
        effects.webhooks = self.webhooks
        self._effects = effects
        self._intake = Intake(
            self.dispatcher,
            self.clients,
            ledger,
            lambda: (self._catalogue(), self._settings()),
            self.webhooks.check,
        )
        self._gate = Gate(lambda: self.reloader.current.config)
        services = Services(
            gate=self._gate,
            dispatcher=self.dispatcher,
            clients=self.clients,
            intake=self._intake,
            pool=self.pool,
            nodes=self.nodes,
            stopping=self._stopping.wait,
            spool=self.spool,
            durable=ledger.durable,
            settings=self._settings,
            catalogue=self._catalogue,
            publisher=Publisher(self.reloader, self.spool.scanner, self._known_classes, self.nodes.floats),
            generation_count=lambda: ledger.generation_count,
            status=self.status,
        )
        self._app, self._hot = create_app(services), hot_endpoints(services)

    async def _recover(self, ledger: SqliteLedger) -> None:
        """Takes up what an earlier run left: before anybody can ask, and before any backend is spoken to."""
        saved = await trio.to_thread.run_sync(ledger.load)
        self._apply_backends()
        self.dispatcher.restore(saved.jobs)
        if self._wants_worker() and self.reloader.current.config.backends:
            # It listens a moment later than the PCs are up: what only it can run waits for it.
            self.dispatcher.on_backend_configured(EMBEDDED_NAME, max_running=1, draining=True, moving=True)
        self.clients.restore(saved)
        self._intake.restore()
        self.webhooks.restore(saved.deliveries)
        self._effects.restored = True
        removed = await trio.to_thread.run_sync(self.spool.prepare, self.clients.files())
        if saved.jobs or removed:
            log.info(
                "recovered %d jobs, %d of them open; removed %d files that nobody knows",
                len(saved.jobs),
                self.dispatcher.open_jobs(),
                removed,
            )

    def _settings(self) -> Settings:
        return self.reloader.current.config.settings

    def _known_classes(self) -> dict[str, frozenset[str]]:
        return {s.name: s.classes for s in self.dispatcher.snapshots() if s.classes is not None}

    def _catalogue(self) -> catalogue.Catalogue:
        return self.reloader.current.catalogue

    # -- configuration -----------------------------------------------------------------------------------------------

    def _apply(self, changes: Diff, loaded: Loaded) -> None:
        settings = loaded.config.settings
        ops_log.configure(settings.log.level)
        self.dispatcher.max_attempts = settings.jobs.max_attempts
        self.dispatcher.prefetch = settings.jobs.prefetch
        for name in (*[b.name for b in changes.added], *changes.removed):
            log.info("configuration: backend %s %s", name, "removed" if name in changes.removed else "added")
        self._gate.end_withdrawn()
        for owner in changes.withdrawn:
            log.info("configuration: client %s removed", owner)
            self.clients.revoke_owner(owner, KEY_WITHDRAWN)
        self._apply_backends()

    def _revoke_strangers(self) -> None:
        """Jobs of an earlier run whose owner's key was withdrawn since."""
        known = {client.name for client in self.reloader.current.config.clients} | {""}
        for owner in {record.job.owner for record in self.dispatcher.jobs.values()} - known:
            self.clients.revoke_owner(owner, KEY_WITHDRAWN)

    def _apply_backends(self) -> None:
        self._worker_changed.set()
        self._worker_changed = trio.Event()
        backends = list(self.reloader.current.config.backends)
        if self._wants_worker() and self._worker_url is not None:
            backends.append(Backend(name=EMBEDDED_NAME, url=self._worker_url))
        self.pool.apply(backends)

    # -- the embedded worker -----------------------------------------------------------------------------------------

    def _wants_worker(self) -> bool:
        config = self.reloader.current.config
        mode = config.settings.embedded.worker
        return mode == "always" or (mode == "auto" and not config.backends)

    async def _embedded_worker(self, state_dir: Path) -> None:
        """Runs the worker process while it is wanted, and until it has finished what runs on it."""
        while True:
            while not self._wants_worker():
                await self._worker_changed.wait()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(run_worker_process, state_dir, on_url=self._worker_listens))
                while self._wants_worker():
                    await self._worker_changed.wait()
                await self.pool.wait_removed(EMBEDDED_NAME)
                nursery.cancel_scope.cancel()
            self._worker_url = None

    def _worker_listens(self, url: str) -> None:
        self._worker_url = url
        self._apply_backends()

    # -- signals and the stop ----------------------------------------------------------------------------------------

    async def _on_signals(
        self, root: trio.Nursery, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    notify.reloading()
                    await self.reloader.reload()
                    if self._certificate is not None:
                        await self._certificate.reload()
                    notify.ready()
                elif self._stopping.is_set():
                    log.warning("stopping at once")
                    root.cancel_scope.cancel()
                else:
                    self.stop()

    async def _prepare_stop(self, root: trio.Nursery, budget: float) -> None:
        """No new jobs, nothing is revoked any more, sessions are closed by us; running prompts stay on their PCs."""
        await self._stopping.wait()
        notify.stopping()
        running = self.dispatcher.open_jobs()
        log.info("stopping within %g s; %d open jobs are left as they are", budget, running)
        root.cancel_scope.deadline = trio.current_time() + budget
        self.dispatcher.detach()
        self.clients.stop()
        try:
            with trio.move_on_after(RENEWAL):
                await self.pool.renew_leases()
        finally:
            self._leases_renewed.set()

    # -- status ------------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """The facts of `GET /status` and `bridged status --json`."""
        loaded = self.reloader.current
        snapshots = self.dispatcher.snapshots()
        return {
            "version": __version__,
            "uptime": round(time.time() - self._started_at, 1),
            "stopping": self.dispatcher.detached,
            "suspended": self.dispatcher.suspended,
            "backends": [self._backend_status(snapshot) for snapshot in snapshots],
            "queue": self.dispatcher.queued(),
            "jobs": dict(self.dispatcher.states()),
            "clients": self.clients.connected(),
            "generation_count": self._ledger.generation_count,
            "workflows": [
                {"alias": workflow.alias, "obstacles": obstacles(workflow.requires, snapshots)}
                for workflow in loaded.catalogue.workflows.values()
            ],
            "configuration": {"generation": loaded.generation, "errors": [*loaded.problems, *self._renewal_problem()]},
        }

    def _renewal_problem(self) -> list[str]:
        """What is wrong with new TLS files, while those before them are in use."""
        return [self._certificate.problem] if self._certificate is not None and self._certificate.problem else []

    def _backend_status(self, snapshot: BackendSnapshot) -> dict[str, Any]:
        reason = self.dispatcher.backend_reason(snapshot.name)
        patch = self.pool.patch(snapshot.name)
        if self.pool.is_crashed(snapshot.name):
            state = "crashed"
        elif snapshot.draining:
            state = "draining"
        elif probation := self.pool.probation(snapshot.name):
            state, reason = "probation", probation
        elif snapshot.up and snapshot.paused and patch is not None:
            state, reason = "paused", patch.reason()
        else:
            state = "up" if snapshot.up else "down"
            if state == "down" and self.dispatcher.suspended:
                reason = f"suspended: most PCs went away at once, so nothing on them is given up yet; {reason}"
        return {
            "name": snapshot.name,
            "state": state,
            "reason": reason,
            "running": min(snapshot.load, snapshot.max_running),
            "prefetched": max(0, snapshot.load - snapshot.max_running),
            "owner_prompts": snapshot.foreign,
            "completed": self.dispatcher.completed_on(snapshot.name),
            "node_classes": len(snapshot.classes) if snapshot.classes is not None else None,
            "patch": patch.info if patch is not None else None,
        }


def _open_files() -> int:
    """How many files the process may have open, after making it as many as it is allowed to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard > MANY:
        hard = max(MANY, soft)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _lock(state_dir: Path) -> int:
    """Takes the state folder for this process. Raises BridgedError: another daemon has it, or it cannot be written."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(state_dir / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BridgedError(
            f"the state folder {state_dir} cannot be used: {error.strerror}; set [state] dir in bridged.toml"
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise BridgedError(
            f"another bridged uses the state folder {state_dir}; stop it, or give this one its own [state] dir"
        ) from None
    return fd
