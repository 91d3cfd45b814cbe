"""Endpoints of ours for operators: how the service is. Backends by name, never by address."""

from __future__ import annotations

import msgspec
from quart import Blueprint, Response

from bridged.api.app import Services, caller, json_response
from bridged.api.openapi import described, json_reply
from bridged.model import JobState


class BackendStatus(msgspec.Struct):
    """One PC: its state and why, what of ours runs and waits on it, its owner's prompts, and what it knows."""

    name: str
    state: str
    reason: str
    running: int
    prefetched: int
    owner_prompts: int
    completed: int
    node_classes: int | None


class WorkflowStatus(msgspec.Struct):
    """`obstacles`: PC -> why it cannot run the workflow; null where one can."""

    alias: str
    obstacles: dict[str, str] | None


class ConfigurationStatus(msgspec.Struct):
    """`generation` counts changes; `errors`: what is wrong with files that are left out."""

    generation: int
    errors: list[str]


class Status(msgspec.Struct):
    """`uptime` in seconds; `queue`: jobs that wait for a PC; `clients`: open WebSockets."""

    version: str
    uptime: float
    stopping: bool
    suspended: bool
    backends: list[BackendStatus]
    queue: int
    jobs: dict[JobState, int]
    clients: int
    generation_count: int
    workflows: list[WorkflowStatus]
    configuration: ConfigurationStatus


def routes(services: Services) -> Blueprint:
    admin = Blueprint("admin", __name__)

    @admin.get("/status")
    @described("How the service is", replies={200: json_reply("PCs by name, never by address.", Status)})
    async def status() -> Response:
        caller().need("admin")
        return json_response(services.status())

    return admin
