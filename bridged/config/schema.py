"""Typed settings: the shape of `etc/bridged.toml` and `etc/backends.toml`.

Every field has a default that is right for a first run; msgspec refuses unknown keys and wrong types by key path.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from bridged.config.hosts import host_or_network, host_rule
from bridged.model import Disconnect

Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(gt=0, le=86400 * 365)]
Metadata = Literal["keep", "strip"]
SecondsOrNone = Annotated[float, Meta(ge=0, le=86400 * 365)]
ClientName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
KeyHash = Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}$")]
BackendName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]

Token = Annotated[str, Meta(pattern=r"^[!-~]{0,512}\Z")]

ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")

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
    whose peer acknowledges nothing (kernel TCP_USER_TIMEOUT). `tls_cert` and `tls_key`: PEM files, relative to the
    configuration's folder, with which HTTPS is served; they are read again when they change."""

    host: str = "127.0.0.1"
    port: Port = 8000
    tls_cert: str = ""
    tls_key: str = ""
    shutdown_budget: Annotated[float, Meta(ge=1, le=600)] = 10.0
    stalled_client_timeout: Annotated[float, Meta(ge=1, le=600)] = 30.0

    def __post_init__(self) -> None:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("give `tls_cert` and `tls_key`, or neither")


class Access(_Section, frozen=True):
    """Who may call. `allow_anonymous`: everybody who reaches the port, while no key exists. `hosts`: the names by
    which the service may be addressed, beside loopback and plain IP addresses. `cors`: origins
    ("https://app.example.org") whose pages may call it. `trusted_proxies`: networks of proxies whose
    X-Forwarded-For is believed.
    """

    allow_anonymous: bool = False
    hosts: tuple[str, ...] = ()
    cors: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for entry in self.hosts:
            host_rule(entry)
        for origin in self.cors:
            if not ORIGIN.fullmatch(origin):
                raise ValueError(f"`cors`: {origin!r} is no origin; write it like https://app.example.org")
        for entry in self.trusted_proxies:
            try:
                ipaddress.ip_network(entry)
            except ValueError:
                raise ValueError(f"`trusted_proxies`: {entry!r} is no network; write it like 10.0.0.0/8") from None


class Limits(_Section, frozen=True):
    """What one address or one request may take. `json_max_size` (MB) of a request's values. `header_timeout` (s) for
    a request's headers to be complete, `body_timeout` (s) for the next bytes of its body, which must also arrive at
    `body_min_rate` (kB/s) on average. `connections` open at once in all, `connections_per_address` from one, and
    `sessions_per_address` WebSockets. `submissions_per_minute` and `requests_per_minute` of one address without a
    key (0: no limit); keys have limits of their own. `uploads_per_key` (MB) waiting to be used; callers without a key
    share one. `lists_per_minute`: how often a caller may look at one list of choices or at the node definitions,
    `renewals_per_minute`: how often it may have the PCs asked for one anew (0: no limit).
    """

    json_max_size: Annotated[float, Meta(gt=0, le=16)] = 1.0
    header_timeout: Annotated[float, Meta(ge=0.1, le=600)] = 10.0
    body_timeout: Annotated[float, Meta(ge=0.1, le=600)] = 20.0
    body_min_rate: Annotated[float, Meta(ge=0, le=100_000)] = 1.0
    connections: Annotated[int, Meta(ge=1)] = 4096
    connections_per_address: Annotated[int, Meta(ge=1)] = 1024
    sessions_per_address: Annotated[int, Meta(ge=1)] = 512
    submissions_per_minute: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    requests_per_minute: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    uploads_per_key: Annotated[float, Meta(gt=0)] = 5000.0
    lists_per_minute: Annotated[float, Meta(ge=0, le=1e9)] = 1000.0
    renewals_per_minute: Annotated[float, Meta(ge=0, le=1e9)] = 12.0


class Jobs(_Section, frozen=True):
    """`timeout_interval` (s) is the `listening` rhythm; an idle socket ends after `limit_timeout_count` of them.
    `result_ttl` (s): how long results stay. `unreachable_after` (s): how long a backend may be away before its
    jobs are tried elsewhere. `witness_interval` (s): how long a running job may be silent before its backend is asked.
    `on_disconnect`: what becomes of the jobs of a client whose connection ends, unless their alias says otherwise:
    "cancel", "detach" or { grace = SECONDS }. `reconnect_grace` (s): how long a client may take to come back after a
    restart of the service, and is told what it missed. `rest_lease` (s, 0: none): jobs of a client without a
    connection end when it asks for nothing for so long. `max_runtime` and `no_progress_timeout` (s, 0: none): a run
    that takes longer, or shows nothing for longer, is taken for hung and tried elsewhere. `lease` (s): how long a
    patched PC goes on with a job of ours after it last heard from us.
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
    lease: Annotated[float, Meta(ge=1, le=86400)] = 120.0


class Files(_Section, frozen=True):
    """Sizes in MB (10**6 bytes): one upload request, one result file, all results together (`results_max_total`:
    beyond it those that were fetched go first, oldest first, before their time; others stay). `allowed`: content
    type -> extensions. Pictures: at most `max_side` pixels wide and high, `max_pixels` (million) in each of at most
    `max_frames` frames, ten times that in all frames together. `reencode`: uploaded pictures are decoded and
    written anew. `clamd`: the socket of a ClamAV daemon that every file must pass ("unix:/run/clamav/clamd.ctl" or
    "tcp:HOST:PORT"). `metadata`: what becomes of a result's metadata (ComfyUI writes the whole graph into its
    pictures), unless its alias says otherwise."""

    upload_max_size: Annotated[float, Meta(gt=0)] = 100.0
    result_max_size: Annotated[float, Meta(gt=0)] = 1000.0
    upload_ttl: Seconds = 3600.0
    results_max_total: Annotated[float, Meta(gt=0)] = 20_000.0
    max_pixels: Annotated[float, Meta(gt=0, le=1000)] = 100.0
    max_side: Annotated[int, Meta(ge=1, le=1_000_000)] = 32_768
    max_frames: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    reencode: bool = False
    clamd: Annotated[str, Meta(pattern=r"^(|unix:/.+|tcp:.+:[0-9]{1,5})$")] = ""
    metadata: Metadata = "keep"
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


class Nodes(_Section, frozen=True):
    """`refresh` (s): how long node definitions and lists of files are fresh; then the next look at them has the PCs
    asked again, behind its back. 0: they stay until they are renewed by hand, or their PC connects anew."""

    refresh: SecondsOrNone = 60.0


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
    access: Access = Access()
    limits: Limits = Limits()
    jobs: Jobs = Jobs()
    files: Files = msgspec.field(default_factory=Files)
    state: State = State()
    log: Log = Log()
    webhooks: Webhooks = Webhooks()
    nodes: Nodes = Nodes()
    workflows: Workflows = Workflows()
    embedded: Embedded = Embedded()


class Backend(_Section, frozen=True):
    """One lent PC. `headers` are sent with every request to it (a login in front of it, say). `tls_ca`: a PEM file of
    the authorities that its certificate must come from, in place of the system's; `tls_cert` and `tls_key`: what
    the bridge shows of itself (mutual TLS). `token` or `token_file` (a file of one line with it; once loaded `token`
    has what it says): what its patch asks for, if it has one. Paths are relative to the configuration's folder."""

    name: BackendName
    url: str
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    max_running: Annotated[int, Meta(ge=1, le=64)] = 1
    tags: tuple[str, ...] = ()
    drain: bool = False
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    token: Token = ""
    token_file: str = ""

    def __post_init__(self) -> None:
        if "\0" in self.token_file:
            raise ValueError("`token_file` is no path: it has a NUL character")

    def __repr__(self) -> str:
        """Without what must not get into a log: address, headers, token."""
        return f"Backend({self.name!r})"

    @property
    def place(self) -> tuple[object, ...]:
        """What a connection depends on: where this changes, it is another backend under the same name."""
        return self.url, self.headers, self.tls_ca, self.tls_cert, self.tls_key, self.token


class BackendsFile(_Section, frozen=True):
    """The whole of backends.toml."""

    backend: list[Backend] = msgspec.field(default_factory=list)


class ClientKey(_Section, frozen=True):
    """One caller that has a key. `keys`: "sha256:" and the hex digest of each key that is good for it. `scopes`:
    "submit" jobs, "admin" the service, "raw" graphs. `aliases`: the workflows it may run; empty: all. `rate`:
    submissions a minute (0: no limit), `burst` of them at once; `requests`: requests a minute of any kind (0: no
    limit). `max_jobs`: open jobs at a time (0: no limit). `weight`: its share of the PCs, where there is a queue."""

    name: ClientName
    keys: Annotated[tuple[KeyHash, ...], Meta(min_length=1)]
    scopes: tuple[Literal["submit", "admin", "raw"], ...] = ("submit",)
    aliases: tuple[str, ...] = ()
    rate: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    burst: Annotated[int, Meta(ge=1)] = 10
    requests: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    max_jobs: Annotated[int, Meta(ge=0)] = 0
    weight: Annotated[float, Meta(ge=0.001, le=1000)] = 1.0


class ClientsFile(_Section, frozen=True):
    """The whole of clients.toml."""

    client: list[ClientKey] = msgspec.field(default_factory=list)


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
    metadata: Metadata | None = None


class Config(msgspec.Struct, frozen=True):
    """Everything that the configuration folder says, as one value. Paths are absolute."""

    folder: Path
    settings: Settings
    backends: tuple[Backend, ...]
    clients: tuple[ClientKey, ...]
    aliases: tuple[AliasEntry, ...]
    workflows_dir: Path
    state_dir: Path
    published_dir: Path
    """workflows that were published to the running service, or with `bridged workflow add`"""
    published: tuple[AliasEntry, ...] = ()
