"""Configuration files and environment -> one `Config`, or the errors: file, line or key path, what would be right.

Each file stands alone: one that cannot be used leaves its previous content in force, and the others still apply.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from bridged.config import tls
from bridged.config.schema import AliasEntry, Backend, BackendsFile, ClientKey, ClientsFile, Config, Server, Settings
from bridged.errors import ConfigError

SETTINGS_FILE = "bridged.toml"
BACKENDS_FILE = "backends.toml"
CLIENTS_FILE = "clients.toml"
ALIASES_FILE = "workflow_alias.json"
PUBLISHED = "workflows"
"""the folder of published workflows, in the state folder"""
FRAMING = frozenset({"content-length", "transfer-encoding", "connection", "upgrade", "te", "expect"})
EMBEDDED_NAME = "embedded"

HEADER_VALUE = re.compile(r"(?:[!-~](?:[\t -~]*[!-~])?)?")
"""ASCII with no outer spaces: what both HTTP clients send as it is"""

T = TypeVar("T")


def default_folder() -> Path:
    """`./etc` if it is there, else `/etc/bridged`."""
    local = Path("etc")
    return local if local.is_dir() else Path("/etc/bridged")


def load(
    folder: Path, environ: Mapping[str, str] | None = None, previous: Config | None = None
) -> tuple[Config, list[str]]:
    """Reads the folder. Returns the configuration and what is wrong with it, one line per file.

    A bad file is replaced by its part of `previous`.
    Raises ConfigError: the folder is not there, or a bad file has no previous content to fall back on.
    """
    environ = os.environ if environ is None else environ
    folder = folder.absolute()
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; give one with --config DIR")
    problems: list[str] = []

    def part(read: Callable[[], T], before: T | None) -> T:
        try:
            return read()
        except ConfigError as error:
            if before is None:
                raise
            problems.append(str(error))
            return before

    settings = part(lambda: read_settings(folder, environ), previous.settings if previous else None)
    if previous is None or previous.settings.server != settings.server:
        try:  # while it runs, `api.tls` looks after the files that are in use
            tls.check_server(folder, settings.server)
        except ConfigError as error:
            if previous is None:
                raise
            problems.append(str(error))
    backends = part(lambda: read_backends(folder, environ), previous.backends if previous else None)
    clients = part(lambda: _still_clients(folder, previous), previous.clients if previous else None)
    workflows_dir = part(lambda: _workflows_dir(folder, settings), previous.workflows_dir if previous else None)
    state = part(lambda: state_dir(settings.state.dir, folder, environ), previous.state_dir if previous else None)
    try:
        aliases = read_aliases(_beside(folder, settings.workflows.aliases, "workflows.aliases"))
    except ConfigError as error:
        # A broken alias list costs the aliases, not the service: the workflows still go by their file names.
        problems.append(str(error))
        aliases = previous.aliases if previous else ()
    # Where the service has them now: another state folder needs a restart.
    published_dir = previous.published_dir if previous else state / PUBLISHED
    try:
        published = read_aliases(published_dir / ALIASES_FILE)
    except ConfigError as error:
        problems.append(f"published workflows: {error}")
        published = previous.published if previous else ()
    config = Config(
        folder=folder,
        settings=settings,
        backends=backends,
        clients=clients,
        aliases=aliases,
        workflows_dir=workflows_dir,
        state_dir=state,
        published_dir=published_dir,
        published=published,
    )
    return config, problems


def _workflows_dir(folder: Path, settings: Settings) -> Path:
    found = _beside(folder, settings.workflows.dir, "workflows.dir")
    if not found.is_dir():
        raise ConfigError(
            f"{SETTINGS_FILE}: workflows.dir: no folder {settings.workflows.dir!r} (seen from the configuration's "
            "folder); make it, or name one that is there"
        )
    return found


def read_settings(folder: Path, environ: Mapping[str, str]) -> Settings:
    """bridged.toml (a missing file means all defaults), then HOST and PORT from the environment."""
    settings = _toml(folder / SETTINGS_FILE, Settings)
    for kind, extensions in settings.files.allowed.items():
        for extension in extensions:
            if not re.fullmatch(r"\.[a-z0-9]{1,10}", extension):
                raise ConfigError(
                    f"{SETTINGS_FILE}: files.allowed.{kind!r}: {extension!r} is no extension; "
                    'write a dot and lower-case letters, like ".png"'
                )
    changes: dict[str, Any] = {}
    if host := environ.get("HOST"):
        changes["host"] = host
    if port := environ.get("PORT"):
        if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
            raise ConfigError(f"environment: PORT: {port[:80]!r} is no port; use 0 to 65535")
        changes["port"] = int(port)
    if changes:
        server: Server = msgspec.structs.replace(settings.server, **changes)
        settings = msgspec.structs.replace(settings, server=server)
    return settings


def read_backends(folder: Path, environ: Mapping[str, str]) -> tuple[Backend, ...]:
    """backends.toml, or COMFYUI_SERVERS (comma-separated host:port, named comfyui-1, comfyui-2, …) in its place."""
    if servers := environ.get("COMFYUI_SERVERS"):
        listed = [part.strip() for part in servers.split(",") if part.strip()]
        backends = [
            Backend(name=f"comfyui-{number}", url=server if "://" in server else f"http://{server}")
            for number, server in enumerate(listed, 1)
        ]
        source = "environment: COMFYUI_SERVERS"
    else:
        backends = _toml(folder / BACKENDS_FILE, BackendsFile).backend
        source = BACKENDS_FILE
    seen: set[str] = set()
    for index, backend in enumerate(backends):
        where = f"{source}: backend[{index}]"
        _check_url(where, backend.url)
        if backend.name in seen:
            raise ConfigError(f"{where}.name: {backend.name!r} is used twice; every backend needs its own name")
        if backend.name == EMBEDDED_NAME:
            raise ConfigError(f"{where}.name: {EMBEDDED_NAME!r} is the built-in worker's name; choose another")
        for name, value in backend.headers.items():
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or not HEADER_VALUE.fullmatch(value):
                raise ConfigError(f"{where}.headers: {name!r} is no header that HTTP allows")
            if name.lower() in FRAMING:
                raise ConfigError(f"{where}.headers: {name!r} is the service's to set: it says where a request ends")
        seen.add(backend.name)
        ca, cert, key = tls.with_files(where, folder, backend)
        token = _token(where, folder, backend)
        backends[index] = msgspec.structs.replace(backend, tls_ca=ca, tls_cert=cert, tls_key=key, token=token)
    return tuple(backends)


def _token(where: str, folder: Path, backend: Backend) -> str:
    """What is sent to the backend's patch, "" for nothing. Raises ConfigError, which never says what is in the file."""
    if not backend.token_file:
        return backend.token
    if backend.token:
        raise ConfigError(f"{where}: give `token` or `token_file`, not both")
    where = f"{where}.token_file: {backend.token_file!r}"
    try:
        text = (folder / Path(backend.token_file).expanduser()).read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigError(f"{where} cannot be read: {error.strerror}") from None
    except (ValueError, RuntimeError):  # not ASCII; a home folder that is none
        text = ""
    if not re.fullmatch(r"[!-~]{1,512}", text):
        raise ConfigError(f"{where} has no token; it must be one line, as the patch's installer wrote it")
    return text


def _still_clients(folder: Path, previous: Config | None) -> tuple[ClientKey, ...]:
    """As `read_clients`, but a file that is gone or empty, where there were keys, does not open the service: that is a
    save half-way, or a mistake."""
    if previous is not None and previous.clients and not (_read(folder / CLIENTS_FILE) or "").strip():
        raise ConfigError(
            f"{CLIENTS_FILE}: it is gone or empty, and there were keys; put it back, or remove clients with "
            "`bridged key revoke NAME`"
        )
    return read_clients(folder)


def read_clients(folder: Path) -> tuple[ClientKey, ...]:
    """clients.toml: who has a key. A missing file means nobody."""
    clients = _toml(folder / CLIENTS_FILE, ClientsFile).client
    names: set[str] = set()
    keys: set[str] = set()
    for index, client in enumerate(clients):
        where = f"{CLIENTS_FILE}: client[{index}]"
        if client.name in names:
            raise ConfigError(f"{where}.name: {client.name!r} is used twice; every client needs its own name")
        if not keys.isdisjoint(client.keys):
            raise ConfigError(f"{where}.keys: another client has the same key; make one with `bridged key new NAME`")
        names.add(client.name)
        keys.update(client.keys)
    return tuple(clients)


def read_aliases(path: Path) -> tuple[AliasEntry, ...]:
    """workflow_alias.json: a list of entries. A missing file means none: workflows go by their file names."""
    text = _read(path)
    if text is None:
        return ()
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path.name}: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets without end
        raise ConfigError(f"{path.name}: cannot be read: {error}") from None
    entries = _convert(path.name, text, raw, list[AliasEntry])
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        for field, value in (("fn", entry.fn), ("thumbnail", entry.thumbnail)):
            if value is not None and (Path(value).name != value or value in ("", ".", "..") or "\\" in value):
                raise ConfigError(f"{path.name}: [{index}].{field}: {value!r} must be a bare file name")
        if entry.alias in seen:
            raise ConfigError(f"{path.name}: [{index}].alias: {entry.alias!r} is used twice")
        seen.add(entry.alias)
    return tuple(entries)


def state_dir(configured: str, folder: Path, environ: Mapping[str, str]) -> Path:
    """`[state] dir`, else systemd's $STATE_DIRECTORY, else the XDG state folder; never the checkout by default."""
    if configured:
        return _beside(folder, configured, "state.dir")
    if given := environ.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])
    base = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "bridged"


def _beside(folder: Path, path: str, where: str) -> Path:
    try:
        if "\0" in path:
            raise ValueError("it has a NUL character")
        return Path(os.path.normpath(folder / Path(path).expanduser()))
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"{SETTINGS_FILE}: {where}: this is no path: {error}") from None


def _check_url(where: str, url: str) -> None:
    # The address itself is not repeated: what is wrong here is shown to clients, too.
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and _is_host(parts.hostname or "") and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"{where}.url: this is no address; write it like http://192.168.0.20:8188")
    if parts.username or parts.query or parts.fragment:
        raise ConfigError(f"{where}.url: only scheme, host, port and path; put a login into `headers`")


def _is_host(host: str) -> bool:
    """An IP address, or a name of ASCII labels; what ends in a number must be a whole IPv4 address (RFC 1123 2.1)."""
    if ":" in host or host.rpartition(".")[2].isdigit():
        ipaddress.ip_address(host.partition("%")[0])
        return True
    return len(host) <= 253 and bool(re.fullmatch(r"(?!-)[A-Za-z0-9_-]{1,63}(\.(?!-)[A-Za-z0-9_-]{1,63})*\.?", host))


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path.name}: byte {error.start}: not UTF-8; save the file as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path.name}: cannot be read: {error.strerror}") from None


def _toml(path: Path, kind: type[T]) -> T:
    text = _read(path)
    if text is None:
        return kind()
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError says the line; the others are no TOML to speak of
        raise ConfigError(f"{path.name}: {error}") from None
    return _convert(path.name, text, raw, kind)


def _convert(name: str, text: str, raw: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(name, text, str(error), kind)) from None


def _explain(name: str, text: str, message: str, kind: Any) -> str:
    """msgspec's `WHAT - at `$.server.port`` as `FILE: line N: server.port: WHAT; did you mean …?`."""
    what, _, path = message.partition(" - at ")
    path = path.strip("`").removeprefix("$").lstrip(".").replace("[...]", "")
    unknown = re.search(r"unknown field `(.+?)`", what)
    key = unknown.group(1) if unknown else path.rsplit(".", 1)[-1]
    hint = ""
    if unknown:
        near = difflib.get_close_matches(key, _field_names(kind), 1)
        hint = f"; did you mean `{near[0]}`?" if near else ""
        path = f"{path}.{key}" if path else key
        what = "there is no such setting"
    line = _line_of(text, path, key)
    place = f"{name}: line {line}" if line else name
    return f"{place}: {path or 'the file'}: {what}{hint}"


def _line_of(text: str, path: str, key: str) -> int | None:
    """The line that sets `key`, looked for under `[section]`, the right one of several `[[section]]`, or in the right
    item of a JSON list; the first line of that where the key is not there; None where it cannot be told."""
    lines = text.split("\n")
    place = re.match(r"([^.\[]*)(?:\[(\d+)\])?", path)
    section, index = place.groups() if place else ("", None)
    first, end = None, len(lines)
    if section:
        name = re.escape(section)
        header = re.compile(rf"\s*\[\[\s*{name}\s*\]\]" if index else rf"\s*\[\s*{name}\b")
        starts = [i for i, line in enumerate(lines) if header.match(line)][int(index or 0) :]
        if starts:
            first = starts[0]
            end = next((i for i in range(first + 1, end) if re.match(r"\s*\[", lines[i])), end)
    elif index:
        first, end = _json_item(text, int(index))
    setting = re.compile(rf"""\s*[{{,]?\s*["']?{re.escape(key)}["']?\s*[=:]""")
    for i in range(first or 0, end):
        if key and setting.match(lines[i]):
            return i + 1
    return None if first is None else first + 1


def _json_item(text: str, index: int) -> tuple[int, int]:
    """The first line of an item of a (valid) JSON list, and the line after its last."""
    start = position = text.index("[") + 1
    for _ in range(index + 1):
        start = len(text) - len(text[position:].lstrip(" \t\r\n,"))
        _, position = json.JSONDecoder().raw_decode(text, start)
    return text.count("\n", 0, start), text.count("\n", 0, position) + 1


def _field_names(kind: Any) -> list[str]:
    names: list[str] = []
    todo = [kind]
    while todo:
        current = todo.pop()
        if isinstance(current, type) and issubclass(current, msgspec.Struct):
            for field in msgspec.structs.fields(current):
                names.append(field.encode_name)
                todo.append(field.type)
        else:
            todo.extend(getattr(current, "__args__", ()))
    return names
