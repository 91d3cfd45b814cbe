"""`bridged workflow`: publish workflows, to the running service, or into its state folder where none runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import click
import httpx
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bridged.cli.http import NoService, Service, checked, service_errors
from bridged.cli.options import service_options

T = TypeVar("T")

TIMEOUT = 60.0
"""seconds; pictures are decoded, and may wait for a virus scanner"""

FILE = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.group()
def workflow() -> None:
    """Publish workflows, list and remove those that were published.

    They go through the running service, which checks them against the nodes of its PCs (the key needs the scope admin).
    Where none runs they are written into its state folder: as the user that it runs as. With --url it has to run.
    """


@workflow.command()
@click.argument("file", type=FILE)
@click.option("--alias", metavar="A", help="Its name [default: the file's, without its extension].")
@click.option("--description", default="", metavar="D", help="What it does, for those who choose.")
@click.option("--thumbnail", type=FILE, metavar="F", help="A PNG, JPEG or WebP picture of it.")
@service_options
def add(service: Service, file: Path, alias: str | None, description: str, thumbnail: Path | None) -> None:
    """Publish the workflow in FILE, as Export (API) writes it.

    The inputs that clients may set stand in its nodes ("_meta": {"apiinput": "seed,steps"}). Pictures that
    "descimage" names are looked for in descimage/ beside FILE, then beside FILE. A version that was kept, in previous/
    of the state folder, can be published again. One that is published under that name is replaced.
    """
    from bridged.publication import from_file  # here, so that the other commands start quickly

    body = msgspec.json.encode(from_file(file, alias, description, thumbnail))

    def ask() -> dict[str, Any]:
        headers = {**service.headers, "Content-Type": "application/json"}
        options = {**service.options(), "headers": headers}
        url = f"{service.url}/admin/workflows"
        answer: dict[str, Any] = checked(httpx.post(url, content=body, timeout=TIMEOUT, **options)).json()
        return answer

    def write(folder: Path) -> dict[str, Any]:
        from bridged.daemon import publish

        return publish(folder, body)

    done = _done(service, ask, write)
    where = f" in {done['folder']}; no service runs" if "folder" in done else ""
    click.echo(f"{done['alias']} is published{where}")
    click.echo(f"inputs: {', '.join(done['inputs']) or 'none'}")
    if done["previous"]:
        click.echo(f"what was there is kept: {done['previous']}")
    for warning in done["warnings"]:
        click.echo(f"warning: {warning}", err=True)


@workflow.command()
@click.argument("alias")
@service_options
def remove(service: Service, alias: str) -> None:
    """Take a published workflow out. Its last version is kept."""

    def ask() -> str:
        checked(httpx.delete(f"{service.url}/admin/workflows/{quote(alias)}", timeout=TIMEOUT, **service.options()))
        return ""

    def write(folder: Path) -> str:
        from bridged.daemon import unpublish

        return unpublish(folder, alias)

    folder = _done(service, ask, write)
    click.echo(f"{alias} is removed" + (f" from {folder}; no service runs" if folder else ""))


@workflow.command("list")
@service_options
def list_(service: Service) -> None:
    """List the published workflows. `bridged workflows` lists all, and says what can be run."""

    def ask() -> list[dict[str, Any]]:
        answer = checked(httpx.get(f"{service.url}/admin/workflows", timeout=TIMEOUT, **service.options())).json()
        found: list[dict[str, Any]] = answer["workflows"]
        return found

    def write(folder: Path) -> list[dict[str, Any]]:
        from bridged.daemon import published

        return published(folder)

    found = _done(service, ask, write)
    if not found:
        click.echo("nothing is published")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("ALIAS", "INPUTS", "DESCRIPTION"):
        table.add_column(column, overflow="fold")
    for each in found:
        table.add_row(Text(each["alias"]), Text(", ".join(each["inputs"])), Text(each["description"]))
    Console().print(table)


def _done(service: Service, ask: Callable[[], T], write: Callable[[Path], T]) -> T:
    """By the service; where none runs at the configured address, by hand."""
    try:
        with service_errors(service.url):
            return ask()
    except NoService:
        if service.folder is None:
            raise
        return write(service.folder)
