"""`bridged status`, `workflows` and `info`: what a running service says, as tables."""

from __future__ import annotations

import json
from typing import Any

import click
import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bridged.cli.http import Service, checked, service_errors
from bridged.errors import Forbidden


def _get(service: Service, path: str, **query: str) -> Any:
    with service_errors(service.url):
        return checked(httpx.get(f"{service.url}{path}", params=query, timeout=10, **service.options())).json()


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def status(service: Service, as_json: bool) -> None:
    facts = _get(service, "/status")
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    console = Console()
    jobs = ", ".join(f"{count} {state}" for state, count in facts["jobs"].items()) or "none"
    console.print(f"bridged {facts['version']} at {service.url}, up {facts['uptime']:.0f} s", highlight=False)
    console.print(f"jobs: {jobs}; started ever: {facts['generation_count']}", highlight=False)
    table = _table("BACKEND", "STATE", "RUNNING", "PREFETCHED", "OWNER'S", "DONE", "PATCH", "")
    for b in facts["backends"]:
        numbers = (b["running"], b["prefetched"], b["owner_prompts"], b["completed"])
        patch = b["patch"]["patch"] if b["patch"] else "-"
        table.add_row(b["name"], b["state"], *map(str, numbers), Text(patch), Text(b["reason"]))
    console.print(table)
    for error in facts["configuration"]["errors"]:
        console.print(f"configuration: {error}", style="red", markup=False, highlight=False)


def workflows(service: Service) -> None:
    listed = _get(service, "/workflow-list")
    try:
        runnable = {w["alias"]: _verdict(w["obstacles"]) for w in _get(service, "/status")["workflows"]}
    except Forbidden:  # a key without the scope "admin" runs workflows all the same
        runnable = {}
    table = _table("ALIAS", "CAN RUN", "DESCRIPTION")
    for workflow in listed:
        table.add_row(workflow["alias"], runnable.get(workflow["alias"], "?"), workflow["description"])
    Console().print(table)


def _verdict(obstacles: dict[str, str] | None) -> str:
    if obstacles is None:
        return "yes"
    return "no backend can run this: " + ("; ".join(f"{n} {why}" for n, why in obstacles.items()) or "none is there")


def info(service: Service, alias: str) -> None:
    table = _table("INPUT", "TYPE", "DEFAULT", "TITLE")
    for key, declared in _get(service, "/workflow-info", workflow=alias).items():
        table.add_row(key, declared["type"], json.dumps(declared["default"], ensure_ascii=False), declared["title"])
    Console().print(table)
