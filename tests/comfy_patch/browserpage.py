"""A real ComfyUI's page in a real browser, for `test_browser.py`: what is clicked, and a bridge that records."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

NODES: list[dict[str, Any]] = [
    {
        "id": 1,
        "type": "EmptyImage",
        "pos": [50, 80],
        "size": [270, 130],
        "inputs": [],
        "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}],
        "properties": {},
        "widgets_values": [128, 96, 1, 16750899],
    },
    {
        "id": 2,
        "type": "ImageScaleBy",
        "pos": [380, 80],
        "size": [270, 82],
        "inputs": [{"name": "image", "type": "IMAGE", "link": 1}],
        "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [2]}],
        "properties": {},
        "widgets_values": ["lanczos", 2],
    },
    {
        "id": 3,
        "type": "SaveImage",
        "pos": [710, 80],
        "size": [270, 270],
        "inputs": [{"name": "images", "type": "IMAGE", "link": 2}],
        "outputs": [],
        "properties": {},
        "widgets_values": ["bridged/try"],
    },
]

WORKFLOW: dict[str, Any] = {
    "last_node_id": 3,
    "last_link_id": 2,
    "nodes": [{"flags": {}, "order": order, "mode": 0, **node} for order, node in enumerate(NODES)],
    "links": [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"]],
    "groups": [],
    "config": {},
    "extra": {},
    "version": 0.4,
}


def browser_path() -> str | None:
    """Where a Chromium is; None leaves it to Playwright."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


def open_workflow(page: Any, url: str) -> None:
    page.goto(url)
    page.wait_for_function("window.app?.graph && window.app.extensionManager?.workflow?.activeWorkflow")
    page.wait_for_function("document.querySelector('#bridged-style') !== null")  # our setup was called
    if page.evaluate("document.querySelector('.p-dialog-mask') !== null"):  # a new ComfyUI's first page shows templates
        page.keyboard.press("Escape")
        page.wait_for_function("document.querySelector('.p-dialog-mask') === null")
    page.evaluate("workflow => app.loadGraphData(workflow)", WORKFLOW)
    page.wait_for_function("app.graph.nodes.length === 3")
    page.evaluate("app.canvas.ds.offset = [70, 50]; app.canvas.ds.scale = 1; app.canvas.draw(true, true)")


def place_of(page: Any, node: int) -> tuple[float, float]:
    """Where the title of a node is on the page, px."""
    x, y = page.evaluate(
        """id => {
          const node = app.canvas.graph.getNodeById(id), {left, top} = app.canvas.canvas.getBoundingClientRect();
          const [x, y] = app.canvas.ds.convertOffsetToCanvas([node.pos[0] + 60, node.pos[1] - 12]);
          return [left + x, top + y];
        }""",
        node,
    )
    return x, y


def open_inputs(page: Any, node: int) -> Any:
    """The dialog of a node, opened as people do."""
    x, y = place_of(page, node)
    page.mouse.click(x, y)
    page.mouse.click(x, y, button="right")
    page.get_by_text("API inputs…", exact=True).first.click()
    dialog = page.locator("dialog.bridged-dialog")
    dialog.wait_for()
    return dialog


def mark(page: Any, node: int, *names: str) -> None:
    dialog = open_inputs(page, node)
    for name in names:
        dialog.get_by_label(name, exact=True).check()
    dialog.get_by_role("button", name="Save", exact=True).click()
    dialog.wait_for(state="detached")


def run(page: Any, command: str) -> None:
    page.evaluate("id => void app.extensionManager.command.execute(id)", command)


class Bridge:
    """Takes publications as a bridge does, and records them; `origins`: those it lets in by CORS."""

    def __init__(self, server: ThreadingHTTPServer, origins: set[str]) -> None:
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        self.origins = origins
        self.keys: list[str | None] = []
        self.published: list[dict[str, Any]] = []
        self.answer: tuple[int, Any] = (201, {"alias": "a", "inputs": [], "warnings": [], "previous": None})


@contextmanager
def bridge() -> Iterator[Bridge]:
    class Handler(BaseHTTPRequestHandler):
        def do_OPTIONS(self) -> None:
            self.say(204, None)

        def do_GET(self) -> None:
            self.say(200, {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            stub.keys.append(self.headers["Authorization"])
            stub.published.append(body)
            self.say(*stub.answer)

        def say(self, status: int, answer: Any) -> None:
            data = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(status)
            origin = self.headers["Origin"]
            if origin in stub.origins:
                self.send_header("Access-Control-Allow-Origin", origin)
                self.send_header("Access-Control-Allow-Headers", "Authorization, Content-Type")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        stub = Bridge(server, set())
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield stub
        finally:
            server.shutdown()
            thread.join()


def picture(page: Any, name: str) -> None:
    """Keeps a screenshot, where BRIDGED_SCREENSHOTS names a folder."""
    if folder := os.environ.get("BRIDGED_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")
