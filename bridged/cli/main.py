"""`bridged`: the command line. Errors are one line on stderr and a non-zero exit."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click
import trio

from bridged import __version__
from bridged.cli import show
from bridged.cli.http import Service
from bridged.cli.key import key
from bridged.cli.nodedefs import nodedefs
from bridged.cli.options import config_option, service_options
from bridged.cli.workflow import workflow
from bridged.errors import BridgedError


class _Cli(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BridgedError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Cli, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bridged")
def main() -> None:
    """One dependable service out of many lent ComfyUI servers."""


main.add_command(key)
main.add_command(nodedefs)
main.add_command(workflow)


@main.command()
@config_option
def serve(folder: Path) -> None:
    """Run the service."""
    from bridged.daemon import Daemon  # here, so that the other commands start quickly

    try:
        trio.run(Daemon(folder).run)
    except* BridgedError as group:
        raise _first(group) from None


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@main.command()
@config_option
def check(folder: Path) -> None:
    """Check a configuration folder: exit 1 and say what is wrong, or say that all is well."""
    from bridged.cli.secrecy import readable_secrets
    from bridged.daemon import check as check_folder

    problems = check_folder(folder)
    for problem in problems:
        click.echo(problem, err=True)
    for warning in readable_secrets(folder):
        click.echo(f"warning: {warning}", err=True)
    if problems:
        sys.exit(1)
    click.echo(f"{folder}: all is well")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="The same facts as GET /status.")
@service_options
def status(service: Service, as_json: bool) -> None:
    """Show backends, queue and jobs of a running service."""
    show.status(service, as_json)


@main.command()
@service_options
def workflows(service: Service) -> None:
    """List the workflows, and whether any backend can run them."""
    show.workflows(service)


@main.command()
@click.argument("alias")
@service_options
def info(service: Service, alias: str) -> None:
    """Show the inputs of a workflow."""
    show.info(service, alias)


@main.command()
@click.argument("alias")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="An input; KEY=@FILE uploads a file.")
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), default=Path(), metavar="DIR")
@click.option("--rest", is_flag=True, help="Over REST alone, with no WebSocket.")
@service_options
def run(service: Service, alias: str, settings: tuple[str, ...], output: Path, rest: bool) -> None:
    """Run a workflow and save what it makes. Ctrl-C cancels the job."""
    from bridged.cli.run import run_alias

    try:
        files = run_alias(service, alias, settings, output, rest=rest)
    except KeyboardInterrupt:
        click.echo("cancelled", err=True)
        sys.exit(130)
    for file in files:
        click.echo(file)


@main.command()
@service_options
def smoke(service: Service) -> None:
    """Run every workflow that some backend can run, with its default inputs."""
    from bridged.cli.run import smoke_all

    if not smoke_all(service):
        sys.exit(1)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8188, show_default=True, help="0: any free one.")
@click.option("--base-directory", type=click.Path(path_type=Path, file_okay=False), help="input/, output/ and temp/.")
@click.option("--exit-with-stdin", is_flag=True, help="End when standard input ends.")
def worker(host: str, port: int, base_directory: Path | None, exit_with_stdin: bool) -> None:
    """Run the built-in ComfyUI-compatible worker alone (image nodes, no models, no GPU)."""
    from bridged.embedded.main import run_worker

    if base_directory is None:
        from bridged.config.load import state_dir

        base_directory = state_dir("", Path(), os.environ) / "worker"
    sys.exit(run_worker(host, port, base_directory, exit_with_stdin))
