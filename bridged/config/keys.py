"""API keys: making them, and editing clients.toml, which has their hashes and never a key.

An edit is a function of the clients there are; what it changes is put into the text, and the rest of the text, comments
and all, stays as it is.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT, Table

from bridged.config.folder import locked, sync
from bridged.config.load import CLIENTS_FILE, read_clients
from bridged.config.schema import ClientKey
from bridged.errors import BadInput, ConfigError

PREFIX = "bk_"
"""what a key begins with, so that tools that look for leaked secrets know one: bk_[A-Za-z0-9_-]{43}"""

MODE = 0o640
"""of a new clients.toml: its group is the folder's, which is the service's where the folder is set up for one"""

Clients = tuple[ClientKey, ...]


def make_key() -> str:
    """A new key: 256 random bits, which need no slow hash to be safe in a file that somebody reads."""
    return PREFIX + secrets.token_urlsafe(32)


def key_hash(key: str) -> str:
    """A key as clients.toml has it."""
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def add_client(folder: Path, client: ClientKey) -> Clients:
    """Adds a client; returns all clients. Raises BadInput: the name is taken; ConfigError: see `edit`."""

    def change(clients: Clients) -> Clients:
        if any(other.name == client.name for other in clients):
            raise BadInput(
                f"{client.name!r} has a key already: --replace puts a new one in its place, --add keeps the old one "
                "valid, too"
            )
        return (*clients, client)

    return edit(folder, change)


def renew(folder: Path, name: str, new: str, *, keep: bool) -> Clients:
    """Puts the key with the hash `new` in place of a client's keys, or (`keep`) beside them; returns all clients.

    Raises BadInput: there is no such client; ConfigError: see `edit`.
    """

    def change(clients: Clients) -> Clients:
        client = find(clients, name)
        keys = (*client.keys, new) if keep else (new,)
        return _with(clients, msgspec.structs.replace(client, keys=keys))

    return edit(folder, change)


def revoke(folder: Path, name: str, prefix: str | None = None) -> Clients:
    """Removes a client, or the one of its keys whose hash begins with `prefix`; returns the clients that are left.

    Raises BadInput: there is no such client or key, or several, or it is the client's only key; ConfigError: see
    `edit`.
    """

    def change(clients: Clients) -> Clients:
        client = find(clients, name)
        if prefix is None:
            return tuple(other for other in clients if other.name != name)
        wanted = prefix.lower().removeprefix("sha256:")
        found = [key for key in client.keys if wanted and key.removeprefix("sha256:").startswith(wanted)]
        if len(found) != 1:
            raise BadInput(
                f"{len(found) or 'no'} keys of {name!r} have a hash that begins with {prefix!r}; "
                "`bridged key list` shows the first digits of each"
            )
        if len(client.keys) == 1:
            raise BadInput(f"that is the only key of {name!r}; without --hash the whole client is removed")
        keys = tuple(key for key in client.keys if key not in found)
        return _with(clients, msgspec.structs.replace(client, keys=keys))

    return edit(folder, change)


def find(clients: Clients, name: str) -> ClientKey:
    """The client of that name. Raises BadInput."""
    for client in clients:
        if client.name == name:
            return client
    raise BadInput(f"there is no client {name!r}; there are: {', '.join(c.name for c in clients) or 'none'}")


def edit(folder: Path, change: Callable[[Clients], Clients]) -> Clients:
    """Changes clients.toml: all of it or nothing, one edit at a time. Returns the clients there are then. Blocking.

    A missing file is made, for its owner and the folder's group; otherwise mode and owner stay. A link to a file is
    followed. Raises ConfigError: the file has a mistake, or it cannot be read or written; it is as it was then.
    """
    # Where the file is a link, what it names is replaced, not the link.
    target = Path(os.path.realpath(folder / CLIENTS_FILE))
    try:
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder; give one with --config DIR")
        with locked(target.parent, str(target.parent)):
            before = read_clients(folder)
            after = change(before)
            raw = target.read_bytes().decode() if target.exists() else ""
            newline = "\r\n" if "\r\n" in raw else "\n"
            text = _edited(raw.replace("\r\n", "\n"), before, after)
            with tempfile.TemporaryDirectory(prefix=".clients-", dir=target.parent) as beside:
                _write(Path(beside), text.replace("\n", newline), target)
                if read_clients(Path(beside)) != after:
                    raise ConfigError(f"{CLIENTS_FILE}: it is written in a way that only you can edit; nothing changed")
                os.replace(Path(beside, CLIENTS_FILE), target)
            sync(target.parent)
            return after
    except TOMLKitError as error:
        raise ConfigError(f"{CLIENTS_FILE}: {error}; nothing changed") from None
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written: {error.strerror}; nothing changed") from None


def _with(clients: Clients, changed: ClientKey) -> Clients:
    return tuple(changed if client.name == changed.name else client for client in clients)


def _edited(text: str, before: Clients, after: Clients) -> str:
    """The text with what tells `after` from `before`: clients that are gone, others' keys, clients at the end."""
    if text and not text.endswith("\n"):
        text += "\n"
    left = {client.name: client for client in after}
    for index, client in reversed(list(enumerate(before))):
        now = left.pop(client.name, None)
        if now == client:
            continue
        document: Any = tomlkit.parse(text)
        tables = document["client"]
        if now is not None:
            _change_keys(tables[index]["keys"], now.keys)
        elif isinstance(tables, AoT):
            text = _without(document, tables.body[index])
            continue
        else:
            del tables[index]
        text = document.as_string()
    for client in left.values():
        text = _appended(text, client)
    return text


def _change_keys(array: Any, keys: tuple[str, ...]) -> None:
    for key in keys:
        if key not in array:
            array.append(key)
    for position in reversed(range(len(array))):
        if array[position] not in keys:
            del array[position]
    if len(array) > 1 and "\n" not in array.as_string():
        array.multiline(True)


def _without(document: Any, table: Table) -> str:
    """Cuts a [[client]] out, from its header to its last setting. What follows that, comments on the next client
    most likely, counts as this table's for TOML, but not for who wrote it."""
    items = table.value.body
    settings = max(position for position, (key, _) in enumerate(items) if key is not None)
    after_it = sum(len(item.as_string()) for _, item in items[settings + 1 :])
    whole = len(table.as_string())
    marker = secrets.token_hex()
    table.comment(marker)  # finds the header's line in the text
    text: str = document.as_string()
    found = text.index(marker)
    head, tail = text[: text.rfind("\n", 0, found) + 1], text[text.index("\n", found) + 1 + whole - after_it :]
    # One empty line where there was one on either side.
    if head.endswith("\n\n") and not tail:
        return head[:-1]
    if tail.startswith("\n") and (not head or head.endswith("\n\n")):
        return head + tail[1:]
    return head + tail


def _appended(text: str, client: ClientKey) -> str:
    defaults = {field.name: field.default for field in msgspec.structs.fields(ClientKey)}
    said = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in msgspec.structs.asdict(client).items()
        if name == "scopes" or value != defaults[name]
    }
    document: Any = tomlkit.parse(text)
    if "client" in document and not isinstance(document["client"], AoT):
        entry = tomlkit.inline_table()
        entry.update(said)
        document["client"].append(entry)
        return str(document.as_string())
    return text + ("\n" if text else "") + tomlkit.dumps({"client": [said]})


def _write(beside: Path, text: str, target: Path) -> None:
    """Writes clients.toml into `beside`, with the mode and the owner of `target`."""
    descriptor = os.open(beside / CLIENTS_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        try:
            old = target.stat()
        except FileNotFoundError:
            with suppress(PermissionError):  # a group that is not ours: then it is our own file alone
                os.fchown(descriptor, -1, target.parent.stat().st_gid)
            os.fchmod(descriptor, MODE)
        else:
            if (old.st_uid, old.st_gid) != (os.geteuid(), os.fstat(descriptor).st_gid):
                os.fchown(descriptor, old.st_uid, old.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
        os.fsync(descriptor)
