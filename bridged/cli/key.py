"""`bridged key`: who may call the service. The key itself is shown once and kept nowhere."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bridged.cli.options import config_option
from bridged.config.load import CLIENTS_FILE, read_clients
from bridged.config.schema import ClientKey
from bridged.errors import BadInput

SETTINGS = {"scopes": "--scope", "aliases": "--alias", "rate": "--rate", "burst": "--burst"}
SETTINGS |= {"requests": "--requests", "max_jobs": "--max-jobs", "weight": "--weight"}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class _Number(click.FloatRange):
    """A number that is one: no limit is 0, not infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a number that can be counted to.", param, ctx)
        return number


@click.group()
def key() -> None:
    """Make, list and revoke API keys.

    A running service takes changes within a second.
    """


@key.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(["submit", "admin", "raw"]),
    help="What it may do: submit jobs, administer the service, send raw graphs. Repeat for more [default: submit].",
)
@click.option("--alias", "aliases", multiple=True, metavar="A", help="A workflow it may run. Repeat [default: all].")
@click.option("--rate", type=_Number(min=0), metavar="N", help="Submissions a minute [default: no limit].")
@click.option("--burst", type=click.IntRange(min=1), metavar="N", help="How many of them at once [default: 10].")
@click.option("--requests", type=_Number(min=0), metavar="N", help="Requests a minute [default: no limit].")
@click.option("--max-jobs", type=click.IntRange(min=0), metavar="N", help="Open jobs at a time [default: no limit].")
@click.option(
    "--weight",
    type=_Number(min=0, min_open=True, max=1000),
    metavar="N",
    help="Its share of the PCs where there is a queue [default: 1].",
)
@click.option("--replace", is_flag=True, help="A new key in place of the client's old ones.")
@click.option("--add", is_flag=True, help="A new key beside the client's old ones, which stay good.")
@config_option
def new(folder: Path, name: str, replace: bool, add: bool, **settings: Any) -> None:
    """Make a key for the client NAME and print it, alone on the last line.

    clients.toml gets its hash. The key is not kept and cannot be shown again.
    """
    from bridged.config import keys  # here, so that the other commands start quickly

    given = {field: value for field, value in settings.items() if value not in (None, ())}
    if replace and add:
        raise BadInput("give --replace or --add, not both")
    if (replace or add) and given:
        options = ", ".join(option for field, option in SETTINGS.items() if field in given)
        raise BadInput(f"a new key of a known client keeps its settings: leave {options} out, or edit {CLIENTS_FILE}")
    if not NAME.fullmatch(name):
        raise BadInput(f"{name!r} is no name; use letters, digits, . _ - (at most 64), a letter or digit first")
    secret = keys.make_key()
    known = keys.key_hash(secret)
    if replace or add:
        clients = keys.renew(folder, name, known, keep=add)
    else:
        clients = keys.add_client(folder, ClientKey(name=name, keys=(known,), **given))
    client = keys.find(clients, name)
    click.echo(f"{folder / CLIENTS_FILE}: {name} has {_count(client)}, for: {', '.join(client.scopes)}", err=True)
    if len(clients) == 1 and not (replace or add):
        click.echo("It is the first: from now on every request needs a key, from this machine, too.", err=True)
    click.echo(
        "Requests carry it as `Authorization: Bearer KEY`; bridged's own commands take it from BRIDGED_KEY or\n"
        "--key-file. It is not kept here and cannot be shown again: store it where its user keeps passwords.",
        err=True,
    )
    click.echo(secret)


@key.command("list")
@config_option
def list_(folder: Path) -> None:
    """List the clients, and the first digits of their keys' hashes, the newest key last."""
    clients = _clients(folder)
    if not clients:
        click.echo(f"{folder / CLIENTS_FILE}: no keys; `bridged key new NAME` makes one")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("NAME", "SCOPES", "WORKFLOWS", "RATE", "BURST", "REQUESTS", "MAX JOBS", "WEIGHT", "KEYS", "HASHES"):
        table.add_column(column, overflow="fold")
    for client in clients:
        hashes = "\n".join(known.removeprefix("sha256:")[:8] for known in client.keys)
        limits = (client.rate, client.burst, client.requests, client.max_jobs)
        table.add_row(
            client.name,
            " ".join(client.scopes),
            escape(", ".join(client.aliases)) or "all",
            *(f"{limit:g}" if limit else "-" for limit in limits),
            f"{client.weight:g}",
            str(len(client.keys)),
            hashes,
        )
    Console().print(table)


@key.command()
@click.argument("name")
@click.option("--hash", "prefix", metavar="PREFIX", help="Only the key whose hash begins so.")
@config_option
def revoke(folder: Path, name: str, prefix: str | None) -> None:
    """Remove the client NAME, or one of its keys."""
    from bridged.config import keys

    clients = keys.revoke(folder, name, prefix)
    left = next((client for client in clients if client.name == name), None)
    click.echo(f"{name} has {_count(left)} left" if left else f"{name} is removed")
    if not clients:
        click.echo("No key is left: requests from this machine need none now.", err=True)


def _clients(folder: Path) -> tuple[ClientKey, ...]:
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; give one with --config DIR")
    return read_clients(folder)


def _count(client: ClientKey) -> str:
    return "one key" if len(client.keys) == 1 else f"{len(client.keys)} keys"
