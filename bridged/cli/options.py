"""Options that several commands have."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bridged.cli.http import Service, read_key
from bridged.config.load import default_folder, read_settings
from bridged.errors import ConfigError


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--config DIR, for every command that reads configuration."""

    @click.option(
        "--config",
        "folder",
        type=click.Path(path_type=Path, file_okay=False),
        help="Configuration folder [default: ./etc if it is there, else /etc/bridged].",
    )
    @functools.wraps(command)
    def with_folder(*args: Any, folder: Path | None, **kwargs: Any) -> Any:
        return command(*args, folder=folder or default_folder(), **kwargs)

    return with_folder


def service_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--url and --key-file, for every command that talks to a running service."""

    @click.option(
        "--url",
        envvar="BRIDGED_URL",
        help="The service's address [default: as the configuration says, else http://127.0.0.1:8000].",
    )
    @click.option(
        "--key-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="A file with the API key [default: the key itself in the environment, BRIDGED_KEY]. There is no option "
        "for the key itself: everybody on this machine can see the arguments of a command.",
    )
    @config_option
    @functools.wraps(command)
    def with_service(*args: Any, folder: Path, url: str | None, key_file: Path | None, **kwargs: Any) -> Any:
        address = (url or _configured_url(folder)).rstrip("/")
        service = Service(address, read_key(key_file, os.environ), None if url else folder)
        return command(*args, service=service, **kwargs)

    return with_service


def _configured_url(folder: Path) -> str:
    try:
        server = read_settings(folder, os.environ).server
    except ConfigError:
        return "http://127.0.0.1:8000"
    scheme = "https" if server.tls_cert else "http"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(server.host, server.host)
    return f"{scheme}://[{host}]:{server.port}" if ":" in host else f"{scheme}://{host}:{server.port}"
