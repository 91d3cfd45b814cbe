"""Prompts whose answers and events were taken from a real ComfyUI 0.3.64
(`tests/data/comfyui-0.3.64/embedded.json`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.fakes.recording import mask

if TYPE_CHECKING:
    from tests.embedded.client import Client

FOLDER = "bridged-parity"
"""Where the prompts expect noise.png, other.png and grey.png, under input/."""


def load(name: str) -> dict[str, Any]:
    return {"class_type": "LoadImage", "inputs": {"image": f"{FOLDER}/{name}"}}


def graph(*nodes: tuple[str, dict[str, Any]], source: str = "noise.png") -> dict[str, Any]:
    """Load `source` and `other.png`, run the nodes one after the other ("image" is the one before, unless
    given), and preview."""
    prompt = {"load": load(source), "other": load("other.png")}
    last = "load"
    for number, (class_type, inputs) in enumerate(nodes):
        given = (
            inputs
            if any(isinstance(value, list) for value in inputs.values())
            else {"image": [last, 0], **inputs}
        )
        last = f"step{number}"
        prompt[last] = {"class_type": class_type, "inputs": given}
    return prompt | {"show": {"class_type": "PreviewImage", "inputs": {"images": [last, 0]}}}


REFUSED: dict[str, Any] = {
    "a link to nowhere": graph(("ImageInvert", {"image": ["nobody", 0]})),
    "a link to nowhere, further up": graph(("ImageInvert", {"image": ["nobody", 0]}), ("ImageInvert", {})),
    "a slot that is not there": graph(("ImageInvert", {"image": ["load", 7]})),
    "a mask for a picture": graph(("ImageInvert", {"image": ["load", 1]})),
    "a long link": graph(("ImageInvert", {"image": ["load", 0, 0]})),
    "no class": {"1": {"inputs": {}}},
    "no inputs": {"1": {"class_type": "PreviewImage"}},
    "a value out of the list": graph(("ImageFlip", {"flip_method": "z"})),
    "a list as a value": graph(("ImageFlip", {"image": ["load", 0], "flip_method": {"__value__": ["z"]}})),
    "too much blur": graph(("ImageBlur", {"blur_radius": 32, "sigma": "10.5"})),
    "no number": graph(("ImageBlur", {"blur_radius": None, "sigma": "much"})),
    "a file that is not there": graph(source="nope.png"),
}


def _sequences() -> dict[str, list[dict[str, Any]]]:
    two_outputs = graph(("ImageInvert", {}), ("ImageBlur", {"blur_radius": 2, "sigma": 1.0}))
    two_outputs["early"] = {"class_type": "PreviewImage", "inputs": {"images": ["step0", 0]}}
    blend = {"image1": ["load", 0], "image2": ["other", 0], "blend_factor": 0.5, "blend_mode": "screen"}
    branches = graph(("ImageBlend", blend), ("ImageInvert", {}))
    twins = {
        "a": load("noise.png"),
        "b": load("noise.png"),
        "c": {"class_type": "ImageBlend", "inputs": blend | {"image1": ["a", 0], "image2": ["b", 0]}},
        "show": {"class_type": "PreviewImage", "inputs": {"images": ["c", 0]}},
    }
    return {
        "branches": [branches, branches],
        "two outputs": [two_outputs],
        "twins": [twins],
        "a changed end": [
            graph(("ImageInvert", {})),
            graph(("ImageFlip", {"flip_method": "x-axis: vertically"})),
        ],
    }


SEQUENCES = _sequences()
"""Prompts to run one after the other. Graphs with branches, caches, twins, and outputs in the middle."""


async def refusal(client: Client, prompt: dict[str, Any]) -> dict[str, Any]:
    """The answer, masked and with lists in one order: a real server's order is that of Python sets."""
    answer = await client.post("/prompt", {"prompt": prompt})
    body = mask(answer.json())
    for entry in body["node_errors"].values():
        entry["errors"].sort(key=str)
        entry["dependent_outputs"].sort()
    return {"status": answer.status_code, "body": body}


async def events(client: Client, name: str) -> list[Any]:
    """What a client hears of the prompts of that sequence, masked, without `status`."""
    await client.run(graph(source="grey.png"))  # so that nothing is cached
    async with client.socket("bridged-parity") as socket:
        for prompt in SEQUENCES[name]:
            await client.submit(prompt, "bridged-parity")
            await socket.until_over()
    heard = [unnamed(event) for event in socket.masked() if event["type"] != "status"]
    if name == "two outputs":  # which output comes first is a matter of hashes in a real server
        return sorted(event["type"] for event in heard)
    return heard


def unnamed(event: Any) -> Any:
    """Without the names of previews, which are random."""
    if event["type"] == "executed" and event["data"]["output"]:
        event["data"]["output"]["images"] = len(event["data"]["output"]["images"])
    return event
