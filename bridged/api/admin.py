"""Endpoints of ours for operators: how the service is. Backends by name, never by address."""

from __future__ import annotations

from quart import Blueprint, Response

from bridged.api.app import Services, json_response


def routes(services: Services) -> Blueprint:
    admin = Blueprint("admin", __name__)

    @admin.get("/status")
    async def status() -> Response:
        return json_response(services.status())

    return admin
