"""Typed settings: the shape of `etc/bridged.toml` and `etc/backends.toml`.

Every field has a default that is right for a first run; msgspec refuses unknown keys and wrong types by key path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from bridged.config.hosts import host_or_network, host_rule
from bridged.model import Disconnect

Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(gt=0, le=86400 * 365)]
SecondsOrNone = Annotated[float, Meta(ge=0, le=86400 * 365)]
BackendName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]

DEFAULT_TYPES: dict[str, list[str]] = {
    "image/png": [".png"],
    "image/jpeg": [".jpg", ".jpeg"],
    "image/webp": [".webp"],
    "image/gif": [".gif"],
    "image/bmp": [".bmp"],
    "image/tiff": [".tif", ".tiff"],
    "video/mp4": [".mp4"],
    "video/webm": [".webm"],
    "video/quicktime": [".mov"],
    "audio/mpeg": [".mp3"],
    "audio/x-wav": [".wav"],
    "audio/flac": [".flac"],
    "audio/ogg": [".ogg"],
}


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Server(_Section, frozen=True):
    """Where to listen. `shutdown_budget` (s) bounds a whole stop; `stalled_client_timeout` (s) ends a connection
    whose peer acknowledges nothing (kernel TCP_USER_TIMEOUT)."""

    host: str = "127.0.0.1"
    port: Port = 8000
    shutdown_budget: Annotated[float, Meta(ge=1, le=600)] = 10.0
    stalled_client_timeout: Annotated[float, Meta(ge=1, le=600)] = 30.0


class Jobs(_Section, frozen=True):
    """`timeout_interval` (s) is the `listening` rhythm; an idle socket ends after `limit_timeout_count` of them.
    `result_ttl` (s): how long results stay. `unreachable_after` (s): how long a backend may be away before its
    jobs are tried elsewhere. `witness_interval` (s): how long a running job may be silent before its backend is asked.
    `on_disconnect`: what becomes of the jobs of a client whose connection ends, unless their alias says otherwise:
    "cancel", "detach" or { grace = SECONDS }. `reconnect_grace` (s): how long a client may take to come back after a
    restart of the service, and is told what it missed. `rest_lease` (s, 0: none): jobs of a client without a
    connection end when it asks for nothing for so long. `max_runtime` and `no_progress_timeout` (s, 0: none): a run
    that takes longer, or shows nothing for longer, is taken for hung and tried elsewhere.
    """

    max_attempts: Annotated[int, Meta(ge=1, le=20)] = 3
    timeout_interval: Seconds = 1.0
    limit_timeout_count: Annotated[int, Meta(ge=1)] = 60
    result_ttl: Seconds = 3600.0
    unreachable_after: Seconds = 60.0
    witness_interval: Seconds = 5.0
    prefetch: Annotated[int, Meta(ge=0, le=1)] = 1
    max_queued: Annotated[int, Meta(ge=1)] = 10_000
    on_disconnect: Disconnect = "cancel"
    reconnect_grace: Seconds = 60.0
    rest_lease: SecondsOrNone = 0.0
    max_runtime: SecondsOrNone = 0.0
    no_progress_timeout: SecondsOrNone = 1800.0


class Files(_Section, frozen=True):
    """Sizes in MB (10**6 bytes): one upload request, one result file, all results together (`results_max_total`:
    beyond it those that were fetched go first, oldest first, before their time; others stay). `allowed`: content
    type -> extensions."""

    upload_max_size: Annotated[float, Meta(gt=0)] = 100.0
    result_max_size: Annotated[float, Meta(gt=0)] = 1000.0
    upload_ttl: Seconds = 3600.0
    results_max_total: Annotated[float, Meta(gt=0)] = 20_000.0
    allowed: dict[str, list[str]] = msgspec.field(
        default_factory=lambda: {kind: list(extensions) for kind, extensions in DEFAULT_TYPES.items()}
    )


class State(_Section, frozen=True):
    """Where the service keeps its own files; empty: $STATE_DIRECTORY, else the XDG state folder.

    `durability`: what an acknowledged job survives: the end of the "process" at any moment, or the loss of "power"
    too (one fsync more per group of changes). `reserve` (MB, 10**6 bytes): room kept on the disk for the ledger.
    """

    dir: str = ""
    durability: Literal["process", "power"] = "process"
    reserve: Annotated[float, Meta(ge=1, le=10_000)] = 16.0


class Log(_Section, frozen=True):
    level: Literal["debug", "info", "warning", "error"] = "info"


class Webhooks(_Section, frozen=True):
    """Who may be told of a job's end. `hosts`: "example.org" (any port), "example.org:8443", "*.example.org" (every
    name below it); with none there are no webhooks. `private`: networks ("10.0.0.0/8") and hosts whose addresses may
    be private, loopback or link-local; all others must be public. `secret` or `secret_file` (seen from the
    configuration's folder): the key of the signatures; with neither one is made in the state folder (`webhook-secret`).
    `timeout` (s) bounds one try, `give_up_after` (s) all tries of one delivery, counted from the job's end.
    """

    hosts: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    secret: str = ""
    secret_file: str = ""
    timeout: Annotated[float, Meta(ge=0.1, le=300)] = 10.0
    give_up_after: Seconds = 86400.0

    def __post_init__(self) -> None:
        for entry in self.hosts:
            host_rule(entry)
        for entry in self.private:
            host_or_network(entry)
        if self.secret and self.secret_file:
            raise ValueError("give `secret` or `secret_file`, not both")
        if "\0" in self.secret_file:
            raise ValueError("`secret_file` is no path: it has a NUL character")


class Workflows(_Section, frozen=True):
    """Folders and the alias list, relative to the configuration folder."""

    dir: str = "../workflows"
    aliases: str = "workflow_alias.json"


class Embedded(_Section, frozen=True):
    """The built-in worker: `auto` runs it only while no backend is listed."""

    worker: Literal["auto", "always", "never"] = "auto"


class Settings(_Section, frozen=True):
    """The whole of bridged.toml."""

    server: Server = Server()
    jobs: Jobs = Jobs()
    files: Files = msgspec.field(default_factory=Files)
    state: State = State()
    log: Log = Log()
    webhooks: Webhooks = Webhooks()
    workflows: Workflows = Workflows()
    embedded: Embedded = Embedded()


class Backend(_Section, frozen=True):
    """One lent PC. `headers` are sent with every request to it (a login in front of it, say)."""

    name: BackendName
    url: str
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    max_running: Annotated[int, Meta(ge=1, le=64)] = 1
    tags: tuple[str, ...] = ()
    drain: bool = False

    @property
    def place(self) -> tuple[str, dict[str, str]]:
        """What a connection depends on: where this changes, it is another backend under the same name."""
        return self.url, self.headers


class BackendsFile(_Section, frozen=True):
    """The whole of backends.toml."""

    backend: list[Backend] = msgspec.field(default_factory=list)


class AliasEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of workflow_alias.json, the format existing operators have, and options of ours: as in [jobs], for
    this alias alone. `fn` and `thumbnail` are bare names."""

    alias: Annotated[str, Meta(min_length=1, max_length=200)]
    fn: Annotated[str, Meta(min_length=1)]
    description: str = ""
    thumbnail: str | None = None
    on_disconnect: Disconnect | None = None
    max_runtime: SecondsOrNone | None = None
    no_progress_timeout: SecondsOrNone | None = None


class Config(msgspec.Struct, frozen=True):
    """Everything that the configuration folder says, as one value. Paths are absolute."""

    folder: Path
    settings: Settings
    backends: tuple[Backend, ...]
    aliases: tuple[AliasEntry, ...]
    workflows_dir: Path
    state_dir: Path
