"""The front-end extension in a real ComfyUI, in a real browser.

`COMFYUI_PATCHED_URL=http://127.0.0.1:8188 python -m pytest tests/comfy_patch/test_browser.py` with Playwright and a
Chromium installed. The ComfyUI needs the web folder of the patch only: lending is answered here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridged.catalogue import Source, read_workflow
from tests.comfy_patch.browserpage import (
    Bridge,
    bridge,
    browser_path,
    mark,
    open_inputs,
    open_workflow,
    picture,
    run,
)

URL = os.environ.get("COMFYUI_PATCHED_URL", "")
pytestmark = pytest.mark.skipif(not URL, reason="COMFYUI_PATCHED_URL names no ComfyUI with the patch's web folder")

LENDING = {
    "lending": {"paused": False, "until": None},
    "served": {"date": "2026-11-23", "jobs": 12, "seconds": 754.0},
    "owner": {"active": False, "running": 0, "queued": 0, "last": None},
}
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c4944415408d763f8cfc000000301010018dd8db00000000049454e44ae426082"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with playwright.sync_playwright() as found:
        opened = found.chromium.launch(executable_path=browser_path(), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1200, "height": 760}, accept_downloads=True)
    context.set_default_timeout(20_000)
    page = context.new_page()
    posted: list[tuple[str, Any, str | None]] = []
    page.posted = posted
    lending = json.loads(json.dumps(LENDING))

    def owner(route: Any) -> None:
        request = route.request
        name = request.url.rsplit("/", 1)[1]
        if request.method == "POST":
            posted.append((name, request.post_data_json, request.headers.get("x-bridged-token")))
            minutes = request.post_data_json.get("minutes")
            until = page.evaluate("Date.now() / 1000") + minutes * 60 if minutes else None
            lending["lending"] = {"paused": name == "pause", "until": until}
            route.fulfill(json={"lending": lending["lending"]})
        else:
            route.fulfill(json=lending)

    page.route("**/bridged/v1/*", owner)
    open_workflow(page, URL)
    yield page
    context.close()


@pytest.fixture
def stub() -> Iterator[Bridge]:
    with bridge() as found:
        yield found


def exported(page: Any) -> dict[str, Any]:
    """What "Export (API)" downloads."""
    with page.expect_download() as download:
        run(page, "Comfy.ExportWorkflowAPI")
        name = page.get_by_role("dialog").get_by_role("textbox").first
        name.fill("tried")
        name.press("Enter")
    found: dict[str, Any] = json.loads(Path(download.value.path()).read_text())
    return found


def test_marked_inputs_are_in_the_export_survive_a_reload_and_are_what_the_bridge_reads(
    page: Any, tmp_path: Path
) -> None:
    mark(page, 2, "upscale_method", "scale_by")
    mark(page, 1, "color")
    picture(page, "marks")
    first = exported(page)
    assert first["2"]["_meta"] == {"title": "Upscale Image By", "apiinput": "upscale_method,scale_by"}
    assert first["1"]["_meta"]["apiinput"] == "color"
    assert first["3"]["_meta"] == {"title": "Save Image"}

    # ComfyUI keeps the open workflow in the browser once it has seen the change.
    page.wait_for_function(
        "[localStorage, sessionStorage].some(kept => Object.values(kept).some(text => text.includes('API input')))"
    )
    page.reload()
    page.wait_for_function("window.app?.graph?.nodes?.length === 3")
    assert exported(page) == first

    (tmp_path / "tried.json").write_text(json.dumps(first))
    workflow = read_workflow(tmp_path, Source("tried", "tried.json"), {})
    assert [(each.key, each.type, each.title) for each in workflow.inputs.values()] == [
        ("1/color", "int", "EmptyImage / color"),
        ("2/upscale_method", "str", "Upscale Image By / upscale_method"),
        ("2/scale_by", "int", "Upscale Image By / scale_by"),
    ]


def test_what_is_queued_is_what_comfyui_would_queue(page: Any) -> None:
    mark(page, 2, "scale_by")
    queued: list[Any] = []

    def prompt(route: Any) -> None:
        if route.request.method != "POST":
            route.continue_()
            return
        queued.append(route.request.post_data_json)
        route.fulfill(json={"prompt_id": "p", "number": 1, "node_errors": {}})

    page.route("**/api/prompt", prompt)
    page.evaluate("app.queuePrompt(0, 1)")
    assert queued[0]["prompt"]["2"]["_meta"] == {"title": "Upscale Image By"}


def test_the_property_and_the_dialog_say_the_same(page: Any) -> None:
    assert page.evaluate("app.graph.getNodeById(1).properties['API input']") == ""
    page.evaluate("app.graph.getNodeById(1).setProperty('API input', 'height,  gone')")
    dialog = open_inputs(page, 1)
    assert dialog.get_by_label("height", exact=True).is_checked()
    assert not dialog.get_by_label("width", exact=True).is_checked()
    assert dialog.get_by_text("the node has no such widget any more").is_visible()
    dialog.get_by_label("gone", exact=True).uncheck()
    dialog.get_by_label("Title for callers").fill("Canvas")
    page.keyboard.press("Enter")
    dialog.wait_for(state="detached")
    assert page.evaluate("app.graph.getNodeById(1).properties['API input']") == "height"
    assert exported(page)["1"]["_meta"] == {"title": "Canvas", "apiinput": "height"}
    # Nodes without marks are saved as ever.
    assert page.evaluate("'API input' in app.graph.getNodeById(3).serialize().properties") is False


def test_a_linked_widget_cannot_be_chosen_and_says_why(page: Any) -> None:
    page.evaluate(
        """() => {
          const number = LiteGraph.createNode("PrimitiveInt"), target = app.graph.getNodeById(1);
          number.pos = [50, 320];
          app.graph.add(number);
          const slot = () => target.inputs.findIndex(each => each.widget?.name === "width");
          // In older front ends a widget had a slot only once it was turned into one.
          if (slot() < 0) target.convertWidgetToInput(target.widgets.find(each => each.name === "width"));
          number.connect(0, target, slot());
        }"""
    )
    dialog = open_inputs(page, 1)
    assert dialog.get_by_label("width", exact=True).is_disabled()
    assert dialog.get_by_text("linked to another node").is_visible()
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")


def test_a_subgraphs_widget_is_offered_under_the_inner_nodes_id(page: Any) -> None:
    if not page.evaluate("typeof app.graph.convertToSubgraph === 'function'"):
        pytest.skip("this front end has no subgraphs")
    subgraph = page.evaluate(
        """() => {
          const node = app.graph.getNodeById(2);
          app.canvas.selectItems([node]);
          const {subgraph, node: made} = app.graph.convertToSubgraph(new Set([node]));
          const inner = subgraph.nodes[0];
          const slot = inner.inputs.findIndex(each => each.widget?.name === "scale_by");
          const input = subgraph.addInput("scale", "FLOAT");
          input.connect(inner.inputs[slot], inner);
          made.pos = [380, 80];
          app.canvas.draw(true, true);
          return made.id;
        }"""
    )
    page.wait_for_function("id => app.graph.getNodeById(id).widgets.length > 0", arg=subgraph)
    mark(page, subgraph, "scale")
    graph = exported(page)
    (inner,) = (node for node in graph if node.startswith(f"{subgraph}:"))
    assert graph[inner]["_meta"]["apiinput"] == "scale_by"
    assert graph[inner]["inputs"]["scale_by"] == 2
    assert "apiinput" not in graph["1"]["_meta"]


def test_a_workflow_is_published_with_its_pictures_and_the_key_stays_in_the_browser(page: Any, stub: Bridge) -> None:
    origin = page.evaluate("location.origin")
    dialog = open_inputs(page, 2)
    dialog.get_by_label("scale_by", exact=True).check()
    dialog.get_by_label("upscale_method", exact=True).check()
    dialog.get_by_label("Description picture of scale_by").set_input_files(
        {"name": "How large!.png", "mimeType": "image/png", "buffer": PNG}
    )
    dialog.locator("img[title='How-large.png']").wait_for()
    picture(page, "inputs")
    dialog.get_by_role("button", name="Save", exact=True).click()
    dialog.wait_for(state="detached")

    run(page, "bridged.publish")
    dialog.wait_for()
    dialog.get_by_label("Alias").fill("enlarge")
    dialog.get_by_label("Description").fill("Makes a picture larger")
    dialog.get_by_label("Bridge").fill(stub.url)
    dialog.get_by_label("Admin key").fill("bk_secret")
    publish = dialog.get_by_role("button", name="Publish", exact=True)
    publish.click()
    dialog.get_by_text(f'cors = ["{origin}"]').wait_for()

    stub.origins.add(origin)
    stub.answer = (400, {"detail": ["node 2: no backend knows ImageScaleBy", "node 3: nor SaveImage"]})
    publish.click()
    dialog.get_by_text("node 3: nor SaveImage").wait_for()
    assert dialog.get_by_text("node 2: no backend knows ImageScaleBy").is_visible()

    stub.answer = (
        201,
        {
            "alias": "enlarge",
            "inputs": ["2/upscale_method", "2/scale_by"],
            "warnings": ["no PC is connected: classes are not checked"],
            "previous": None,
        },
    )
    publish.click()
    dialog.get_by_text("enlarge is published.").wait_for()
    assert dialog.get_by_text("no PC is connected").is_visible()
    picture(page, "publish")
    sent = stub.published[-1]
    assert sent["alias"] == "enlarge"
    assert sent["description"] == "Makes a picture larger"
    assert sent["thumbnail"].startswith("data:image/png;base64,")
    assert len(sent["thumbnail"]) < 500_000
    assert list(sent["descimages"]) == ["How-large.png"]
    assert sent["workflow"]["2"]["_meta"]["descimage"] == ["", "How-large.png"]
    assert stub.keys[-1] == "Bearer bk_secret"

    kept = page.evaluate("JSON.stringify(app.graph.serialize())")
    assert '"alias":"enlarge"' in kept
    assert "bk_secret" not in kept
    settings = page.evaluate("fetch('/api/settings').then(answer => answer.text())")
    assert "bk_secret" not in settings


def test_the_owner_pauses_and_resumes_lending(page: Any) -> None:
    button = page.locator(".bridged-lend")
    assert button.inner_text() == "Lend this PC: on"
    button.click()
    dialog = page.locator("dialog.bridged-dialog")
    dialog.get_by_text("Today it ran 12 jobs for the bridge, 13 min in all.").wait_for()
    picture(page, "lend")
    dialog.get_by_role("button", name="Pause 15 min").click()
    dialog.wait_for(state="detached")
    assert button.inner_text().startswith("Lend this PC: paused until ")
    picture(page, "paused")
    # Another tab, or the server itself, may change it.
    page.evaluate(
        "comfyAPI.api.api.dispatchEvent(new CustomEvent('bridged.lending', {detail: {paused: true, until: null}}))"
    )
    assert button.inner_text() == "Lend this PC: paused"
    button.click()
    dialog.get_by_role("button", name="Resume", exact=True).click()
    dialog.wait_for(state="detached")
    assert button.inner_text() == "Lend this PC: on"
    assert page.posted == [("pause", {"minutes": 15, "stop": False}, None), ("resume", {}, None)]
