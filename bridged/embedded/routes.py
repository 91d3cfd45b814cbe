"""The worker's HTTP side: ComfyUI 0.3.64's routes, without its browser interface."""

from __future__ import annotations

import functools
import json
import os
import sys
import uuid
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy
import PIL
import trio
from quart import Response, abort, request
from quart_trio import QuartTrio

from bridged.embedded.definitions import object_info
from bridged.embedded.folders import Folders, OutsideError
from bridged.embedded.queue import Item
from bridged.embedded.sockets import FEATURES, MAX_UPLOAD, Listener, refuse_other_sites
from bridged.embedded.validation import validate
from bridged.embedded.views import file_response, picture_response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bridged.embedded.executor import Executor
    from bridged.embedded.hub import Hub

VERSION = "0.3.64"
"""The ComfyUI whose behaviour this is."""

MODEL_FOLDERS = [
    "checkpoints",
    "configs",
    "loras",
    "vae",
    "text_encoders",
    "diffusion_models",
    "clip_vision",
    "style_models",
    "embeddings",
    "diffusers",
    "vae_approx",
    "controlnet",
    "gligen",
    "upscale_models",
    "custom_nodes",
    "hypernetworks",
    "photomaker",
    "classifiers",
    "model_patches",
    "audio_encoders",
]
"""The kinds of models a ComfyUI knows; this worker has none of any kind."""


class Routes:
    """The routes, bound to one executor. `app` is what hypercorn serves."""

    def __init__(self, folders: Folders, hub: Hub, executor: Executor) -> None:
        self._folders = folders
        self._hub = hub
        self._executor = executor
        self._number = 0
        self._uploads = trio.Lock()
        self.app = self._make_app()

    def _make_app(self) -> QuartTrio:
        app = QuartTrio("bridged.embedded", static_folder=None)
        app.config.update(MAX_CONTENT_LENGTH=MAX_UPLOAD, BODY_TIMEOUT=60, RESPONSE_TIMEOUT=60)
        app.before_request(refuse_other_sites)
        app.before_websocket(refuse_other_sites)

        def both(rule: str, handler: Callable[..., Any], method: str = "GET") -> None:
            for prefix in ("", "/api"):
                endpoint = f"{method} {prefix}{rule}"
                app.add_url_rule(prefix + rule, endpoint, handler, methods=[method], strict_slashes=False)

        async def root() -> Response:
            return Response("bridged embedded worker\n", content_type="text/plain; charset=utf-8")

        app.add_url_rule("/", "root", root)
        app.add_url_rule("/internal/files/<kind>", "internal_files", self._internal_files)
        listener = Listener(self._hub, self._executor)
        for prefix in ("", "/api"):
            app.add_websocket(prefix + "/ws", f"{prefix}/ws", listener.handle)
        both("/prompt", self._get_prompt)
        both("/prompt", self._post_prompt, "POST")
        both("/queue", self._get_queue)
        both("/queue", self._post_queue, "POST")
        both("/history", self._get_history)
        both("/history/<prompt_id>", self._get_history_of)
        both("/history", self._post_history, "POST")
        both("/interrupt", self._post_interrupt, "POST")
        both("/free", self._post_free, "POST")
        both("/upload/image", self._post_upload, "POST")
        both("/view", self._get_view)
        both("/object_info", self._get_object_info)
        both("/object_info/<path:class_type>", self._get_object_info)
        both("/system_stats", self._get_system_stats)
        both("/features", self._constant(FEATURES))
        both("/models", self._constant(MODEL_FOLDERS))
        both("/models/<folder>", self._get_models)
        both("/embeddings", self._constant([]))
        both("/extensions", self._constant([]))
        return app

    @staticmethod
    def _constant(value: Any) -> Callable[[], Awaitable[Response]]:
        async def handler() -> Response:
            return _json(value)

        return handler

    # Prompts

    async def _get_prompt(self) -> Response:
        return _json(self._executor.status())

    async def _post_prompt(self) -> Response:
        body = await _body()
        if "number" in body:
            number = float(body["number"])
        else:
            number = -self._number if body.get("front") else self._number
            self._number += 1
        if "prompt" not in body:
            return _json(_no_prompt(), 400)
        prompt = body["prompt"]
        try:
            verdict = validate(prompt, self._folders, body.get("partial_execution_targets"))
        except (TypeError, AttributeError):
            abort(500)  # as a real ComfyUI answers a prompt that is no mapping of nodes
        if verdict.error is not None:
            return _json({"error": verdict.error, "node_errors": verdict.node_errors}, 400)
        extra_data = dict(body.get("extra_data") or {})
        if "client_id" in body:
            extra_data["client_id"] = body["client_id"]
        prompt_id = str(body.get("prompt_id", uuid.uuid4()))
        self._executor.queue.put(Item(number, prompt_id, prompt, extra_data, verdict.outputs))
        return _json({"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors})

    async def _get_queue(self) -> Response:
        queue = self._executor.queue
        running = [queue.running.as_list()] if queue.running is not None else []
        return _json({"queue_running": running, "queue_pending": [item.as_list() for item in queue.pending]})

    async def _post_queue(self) -> Response:
        body = await _body()
        if body.get("clear"):
            self._executor.queue.clear()
        for prompt_id in body.get("delete", []):
            self._executor.queue.delete(prompt_id)
        return Response(b"")

    async def _get_history(self) -> Response:
        max_items = request.args.get("max_items", None, int)
        return _json(self._executor.queue.history_slice(max_items, request.args.get("offset", -1, int)))

    async def _get_history_of(self, prompt_id: str) -> Response:
        history = self._executor.queue.history
        return _json({prompt_id: history[prompt_id]} if prompt_id in history else {})

    async def _post_history(self) -> Response:
        body = await _body()
        if body.get("clear"):
            self._executor.queue.history.clear()
        for prompt_id in body.get("delete", []):
            self._executor.queue.history.pop(prompt_id, None)
        return Response(b"")

    async def _post_interrupt(self) -> Response:
        try:
            body = json.loads(await request.get_data())
        except ValueError:
            body = {}
        self._executor.interrupt((body.get("prompt_id") or None) if isinstance(body, dict) else None)
        return Response(b"")

    async def _post_free(self) -> Response:
        if (await _body()).get("free_memory"):
            self._executor.free()
        return Response(b"")

    # Files

    async def _post_upload(self) -> Response:
        form, files = await request.form, await request.files
        upload = files.get("image")
        if upload is None or not upload.filename:
            return Response(b"", 400)
        kind, subfolder = form.get("type", "input"), form.get("subfolder", "")
        store = functools.partial(
            self._folders.store_upload,
            kind,
            subfolder,
            upload.filename,
            cast("BinaryIO", upload.stream),
            form.get("overwrite") in ("true", "1"),
        )
        try:
            async with self._uploads:
                name = await trio.to_thread.run_sync(store)
        except OutsideError:
            return Response(b"", 400)
        return _json({"name": name, "subfolder": subfolder, "type": kind})

    async def _get_view(self) -> Response:
        name = request.args.get("filename")
        if name is None:
            return Response(b"", 404)
        if not name or name.startswith("/") or ".." in name:
            return Response(b"", 400)
        try:
            root = self._folders.of_kind(request.args.get("type", "output"))
        except OutsideError:
            return Response(b"", 400)
        try:
            folder = self._folders.inside(root, request.args.get("subfolder", ""))
            path = self._folders.inside(root, str(folder), os.path.basename(name))
        except OutsideError:
            return Response(b"", 403)
        preview, channel = request.args.get("preview"), request.args.get("channel", "")
        try:
            if preview is not None or channel in ("rgb", "a"):
                return await picture_response(path, preview, channel)
            return await file_response(path, request.headers)
        except OSError:
            return Response(b"", 404)

    async def _internal_files(self, kind: str) -> Response:
        try:
            return _json(await trio.to_thread.run_sync(self._folders.newest_first, kind))
        except OutsideError:
            return _json({"error": "Invalid directory type"}, 400)

    # What this worker is

    async def _get_object_info(self, class_type: str | None = None) -> Response:
        return _json(await trio.to_thread.run_sync(object_info, self._folders.input, class_type))

    async def _get_models(self, folder: str) -> Response:
        return _json([]) if folder in MODEL_FOLDERS else Response(b"", 404)

    async def _get_system_stats(self) -> Response:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
        system = {
            "os": os.name,
            "ram_total": total,
            "ram_free": free,
            "comfyui_version": VERSION,
            "required_frontend_version": "",
            "installed_templates_version": "",
            "required_templates_version": "",
            "python_version": sys.version,
            "pytorch_version": f"none (numpy {numpy.__version__}, Pillow {PIL.__version__})",
            "embedded_python": False,
            "argv": ["bridged", "worker"],
        }
        device = {
            "name": "cpu",
            "type": "cpu",
            "index": None,
            "vram_total": total,
            "vram_free": free,
            "torch_vram_total": total,
            "torch_vram_free": free,
        }
        return _json({"system": system, "devices": [device]})


async def _body() -> dict[str, Any]:
    """The JSON object in the request. Anything else gives 500, as in a real ComfyUI."""
    try:
        body = json.loads(await request.get_data())
    except ValueError:
        body = None
    if not isinstance(body, dict):
        abort(500)
    return body


def _json(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value), status, content_type="application/json; charset=utf-8")


def _no_prompt() -> dict[str, Any]:
    text = "No prompt provided"
    return {
        "error": {"type": "no_prompt", "message": text, "details": text, "extra_info": {}},
        "node_errors": {},
    }
