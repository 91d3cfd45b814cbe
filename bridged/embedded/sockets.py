"""The worker's WebSockets: who may open one, what is said on it."""

from __future__ import annotations

import json
import logging
import urllib.parse
import uuid
from ipaddress import ip_address
from typing import TYPE_CHECKING

import trio
from quart import Response, request, websocket

if TYPE_CHECKING:
    from bridged.embedded.executor import Executor
    from bridged.embedded.hub import Hub, Outbox

logger = logging.getLogger(__name__)

MAX_UPLOAD = 100 * 1024 * 1024
"""Bytes in one request body (ComfyUI's default)."""

FEATURES = {"supports_preview_metadata": True, "max_upload_size": MAX_UPLOAD}


class Listener:
    def __init__(self, hub: Hub, executor: Executor) -> None:
        self._hub = hub
        self._executor = executor

    async def handle(self) -> None:
        # An exception that leaves the handler would reach the client as a normal close (1000).
        try:
            await self._converse()
        except Exception:
            logger.exception("a WebSocket handler failed")
            await websocket.close(1011)

    async def _converse(self) -> None:
        client_id = websocket.args.get("clientId") or uuid.uuid4().hex
        await websocket.accept()
        outbox = self._hub.open(client_id)
        try:
            self._hub.send("status", {"status": self._executor.status(), "sid": client_id}, client_id)
            node_id = self._executor.current_node(client_id)
            if node_id is not None:
                self._hub.send("executing", {"node": node_id}, client_id)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, client_id, outbox)
                while (message := await outbox.get()) is not None:
                    await websocket.send(message)
                nursery.cancel_scope.cancel()
        finally:
            self._hub.close(client_id, outbox)
        await websocket.close(1001 if outbox.closing else 1008)

    async def _listen(self, client_id: str, outbox: Outbox) -> None:
        first = True
        while True:
            message = await websocket.receive()
            if isinstance(message, bytes):
                continue
            try:
                content = json.loads(message)
            except ValueError:
                continue
            if first and isinstance(content, dict) and content.get("type") == "feature_flags":
                flags = content.get("data")
                outbox.features = flags if isinstance(flags, dict) else {}
                outbox.put(json.dumps({"type": "feature_flags", "data": FEATURES}), droppable=False)
            first = False


async def refuse_other_sites() -> Response | None:
    """A web page from elsewhere, open in a browser on this machine, must not be able to queue work here: 403
    when the Origin is not the Host and the Host is this machine (ComfyUI has the same rule)."""
    connection = request if request else websocket
    origin, host = connection.headers.get("Origin"), connection.headers.get("Host")
    if origin is None or host is None:
        return None
    ours, theirs = urllib.parse.urlsplit(f"//{host.lower()}"), urllib.parse.urlsplit(origin.lower())
    if not _is_loopback(ours.hostname) or theirs.hostname is None:
        return None
    same = ours.hostname == theirs.hostname and (
        ours.port is None or theirs.port is None or ours.port == theirs.port
    )
    return None if same else Response(b"", 403)


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return host is not None and ip_address(host).is_loopback
    except ValueError:
        return False
