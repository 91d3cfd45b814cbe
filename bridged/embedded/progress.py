"""Telling clients how far a prompt is: `progress_state`, `progress` and previews, in ComfyUI 0.3.64's shapes
and order."""

from __future__ import annotations

import io
import json
import struct
from typing import Any, Protocol

from PIL import Image, ImageOps

from bridged.embedded.imaging import Picture, to_pixels

PREVIEW_SIDE = 512
"""Pixels; longer sides are scaled down to it (ComfyUI 0.3.64)."""

PREVIEW, PREVIEW_WITH_METADATA = 1, 4  # binary event types
JPEG = 1  # picture format of a PREVIEW


class Publisher(Protocol):
    """Where events go. A client_id of None means every socket."""

    def send(self, event: str, data: dict[str, Any], client_id: str | None) -> None: ...

    def send_bytes(self, message: bytes, client_id: str | None) -> None: ...

    def is_heard(self, client_id: str | None) -> bool:
        """Is there a socket for this client? May be called from any thread."""

    def understands_metadata(self, client_id: str | None) -> bool:
        """Has the client's socket announced supports_preview_metadata?"""


class Progress:
    """The state of each node of one prompt that has been started."""

    def __init__(self, publisher: Publisher, prompt_id: str, client_id: str | None) -> None:
        self._publisher = publisher
        self._prompt_id = prompt_id
        self._client_id = client_id
        self._nodes: dict[str, dict[str, Any]] = {}

    def start(self, node_id: str) -> None:
        self._set(node_id, 0.0, 1.0, "running")

    def finish(self, node_id: str) -> None:
        total = self._nodes[node_id]["max"] if node_id in self._nodes else 1
        self._set(node_id, total, total, "finished")

    def step(self, node_id: str, value: int, total: int, jpeg: bytes | None) -> None:
        """`value` of `total` parts are done; `jpeg` shows the newest one."""
        if self._nodes[node_id]["state"] == "finished":
            return
        self._set(node_id, value, total, "running")
        data = {"value": value, "max": total, "prompt_id": self._prompt_id, "node": node_id}
        # The newer preview comes before its progress event, the older one after it (recorded).
        if jpeg is not None and self._publisher.understands_metadata(self._client_id):
            self._publisher.send_bytes(self._preview_with_metadata(node_id, jpeg), self._client_id)
            jpeg = None
        self._publisher.send("progress", data, self._client_id)
        if jpeg is not None:
            self._publisher.send_bytes(struct.pack(">II", PREVIEW, JPEG) + jpeg, self._client_id)

    def _set(self, node_id: str, value: float, total: float, state: str) -> None:
        entry = {
            "value": value,
            "max": total,
            "state": state,
            "node_id": node_id,
            "prompt_id": self._prompt_id,
        }
        self._nodes[node_id] = entry | self._place(node_id)
        nodes = {"prompt_id": self._prompt_id, "nodes": dict(self._nodes)}
        self._publisher.send("progress_state", nodes, self._client_id)

    def _place(self, node_id: str) -> dict[str, Any]:
        """Where the node is in the graph: always itself, since no node here expands into others."""
        return {"display_node_id": node_id, "parent_node_id": None, "real_node_id": node_id}

    def _preview_with_metadata(self, node_id: str, jpeg: bytes) -> bytes:
        metadata = {
            "node_id": node_id,
            "prompt_id": self._prompt_id,
            **self._place(node_id),
            "image_type": "image/jpeg",
        }
        head = json.dumps(metadata).encode()
        return struct.pack(">II", PREVIEW_WITH_METADATA, len(head)) + head + jpeg


def preview_jpeg(picture: Picture) -> bytes:
    """A (height, width, channels) picture as a small JPEG. Takes milliseconds: for the worker thread."""
    image = Image.fromarray(to_pixels(picture))
    if max(image.size) > PREVIEW_SIDE:
        image = ImageOps.contain(image, (PREVIEW_SIDE, PREVIEW_SIDE), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()
