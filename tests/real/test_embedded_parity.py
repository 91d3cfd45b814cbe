"""The embedded worker gives the same pictures and the same refusals as a real ComfyUI.

Runs only when COMFYUI_URLS names a real server (the first of a comma-separated list is used). Uploads a few
small pictures into its `input/bridged-parity/` and saves results as previews, which it clears at its next
start.
"""

from __future__ import annotations

import io
import json
import os
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from PIL import Image

from bridged.embedded.folders import Folders
from bridged.embedded.imaging import to_pixels
from bridged.embedded.nodes import Call, load_image
from tests.embedded.client import Client
from tests.embedded.conftest import running_worker
from tests.embedded.graphs import FOLDER, REFUSED, SEQUENCES, events, graph, load, refusal
from tests.fakes.recording import DATA, differences

if TYPE_CHECKING:
    import pathlib
    from collections.abc import AsyncIterator

URLS = [url for url in os.environ.get("COMFYUI_URLS", "").split(",") if url]

STORED = DATA / "embedded.json"

pytestmark = pytest.mark.skipif(not URLS, reason="COMFYUI_URLS names no real ComfyUI")


def noise(width: int, height: int, mode: str = "RGB", seed: int = 1) -> Image.Image:
    channels = len(mode) if mode in ("RGB", "RGBA", "LA") else 1
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(pixels.squeeze(), mode)


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(noise(20, 12), exif=exif)


def animated() -> bytes:
    frames = [noise(24, 16, seed=seed) for seed in range(3)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


UPLOADS = {
    "noise.png": encoded(noise(97, 61)),
    "other.png": encoded(noise(64, 80, seed=2)),
    "alpha.png": encoded(noise(33, 21, "RGBA")),
    "grey.png": encoded(noise(33, 21, "L")),
    "grey-alpha.png": encoded(noise(33, 21, "LA")),
    "palette.png": encoded(noise(33, 21).quantize(16)),
    "clear-palette.png": encoded(noise(33, 21).quantize(16), transparency=3),
    "sixteen-bit.png": encoded(
        Image.fromarray(np.arange(0, 65536, 97)[:600].astype(np.uint16).reshape(20, 30))
    ),
    "bilevel.png": encoded(noise(33, 21, "L").convert("1")),
    "turned.png": turned(),
    "animated.gif": animated(),
    "photo.jpg": encoded(noise(40, 30), "JPEG", quality=80),
    "lossless.webp": encoded(noise(40, 30), "WEBP", lossless=True),
    "truncated.png": encoded(noise(80, 80))[:-9000],
}


GRAPHS: dict[str, dict[str, Any]] = {f"load {name}": graph(source=name) for name in UPLOADS}
GRAPHS["empty"] = {
    "1": {
        "class_type": "EmptyImage",
        "inputs": {"width": 5, "height": 7, "batch_size": 2, "color": 0x12FEA9},
    },
    "show": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}
for method in ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]:
    for width, height in [(200, 131), (40, 25), (97, 120), (13, 0), (0, 200), (0, 0), (97, 61), (1, 1)]:
        if (width, height) == (0, 0) and method != "area":
            continue
        size = {"upscale_method": method, "width": width, "height": height, "crop": "disabled"}
        GRAPHS[f"scale {method} to {width}x{height}"] = graph(("ImageScale", size))
    for width, height in [(64, 64), (30, 90)]:
        size = {"upscale_method": method, "width": width, "height": height, "crop": "center"}
        GRAPHS[f"scale {method} to {width}x{height}, cropped"] = graph(("ImageScale", size))
    for factor in (0.37, 1.7):
        by = {"upscale_method": method, "scale_by": factor}
        GRAPHS[f"scale {method} by {factor}"] = graph(("ImageScaleBy", by))
GRAPHS["invert"] = graph(("ImageInvert", {}))
for radius, sigma in [(1, 1.0), (5, 0.3), (15, 3.0), (31, 10.0)]:
    GRAPHS[f"blur {radius} {sigma}"] = graph(("ImageBlur", {"blur_radius": radius, "sigma": sigma}))
for radius, sigma, alpha in [(1, 1.0, 1.0), (4, 0.5, 0.1), (10, 2.0, 0.37)]:
    GRAPHS[f"sharpen {radius} {sigma} {alpha}"] = graph(
        ("ImageSharpen", {"sharpen_radius": radius, "sigma": sigma, "alpha": alpha})
    )
for x, y, width, height in [(0, 0, 10, 10), (90, 50, 100, 100), (500, 500, 5, 5)]:
    box = {"width": width, "height": height, "x": x, "y": y}
    GRAPHS[f"crop {x} {y} {width} {height}"] = graph(("ImageCrop", box))
for mode in ["normal", "multiply", "screen", "overlay", "soft_light", "difference"]:
    pair = {"image1": ["load", 0], "image2": ["other", 0], "blend_factor": 0.6, "blend_mode": mode}
    GRAPHS[f"blend {mode}"] = graph(("ImageBlend", pair))
for flip in ["x-axis: vertically", "y-axis: horizontally"]:
    GRAPHS[f"flip {flip[0]}"] = graph(("ImageFlip", {"flip_method": flip}))
for rotation in ["none", "90 degrees", "180 degrees", "270 degrees"]:
    GRAPHS[f"rotate {rotation}"] = graph(("ImageRotate", {"rotation": rotation}))
GRAPHS["blur a batch"] = graph(("ImageBlur", {"blur_radius": 3, "sigma": 1.0}), source="animated.gif")
GRAPHS["a chain"] = graph(
    ("ImageScale", {"upscale_method": "bilinear", "width": 120, "height": 0, "crop": "disabled"}),
    ("ImageInvert", {}),
    ("ImageBlur", {"blur_radius": 2, "sigma": 0.7}),
    ("ImageRotate", {"rotation": "90 degrees"}),
)

FAILING = {
    "an unknown blend mode": graph(
        (
            "ImageBlend",
            {"image1": ["load", 0], "image2": ["other", 0], "blend_factor": 0.5, "blend_mode": "x"},
        )
    ),
    "a prefix that leads out": {
        "1": load("noise.png"),
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "../out"}},
    },
    "a blur wider than the picture": graph(
        ("ImageCrop", {"width": 8, "height": 8, "x": 0, "y": 0}),
        ("ImageBlur", {"blur_radius": 8, "sigma": 1}),
    ),
}


async def prepare(client: Client) -> None:
    for name, data in UPLOADS.items():
        answer = await client.upload(name, data, subfolder=FOLDER, overwrite="true")
        assert answer.status_code == 200


@pytest.fixture
async def worker(tmp_path: pathlib.Path) -> AsyncIterator[Client]:
    async with running_worker(tmp_path / "worker") as client:
        await prepare(client)
        yield client


@pytest.fixture
async def real() -> AsyncIterator[Client]:
    async with httpx.AsyncClient(base_url=URLS[0], timeout=60) as http:
        client = Client(URLS[0], http)
        await prepare(client)
        yield client


async def pictures(client: Client, prompt: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
    entry = await client.run(prompt, client_id="bridged-parity")
    assert entry["status"]["status_str"] == "success", entry["status"]["messages"][-1]
    count = len(entry["outputs"]["show"]["images"])
    raw = [await client.picture(entry, "show", index) for index in range(count)]
    return [np.asarray(Image.open(io.BytesIO(data))).astype(int) for data in raw]


async def test_the_same_pictures(worker: Client, real: Client) -> None:
    faults = []
    for name, prompt in GRAPHS.items():
        theirs, ours = await pictures(real, prompt), await pictures(worker, prompt)
        if [picture.shape for picture in theirs] != [picture.shape for picture in ours]:
            faults.append(f"{name}: {theirs[0].shape} x {len(theirs)}, ours {ours[0].shape} x {len(ours)}")
            continue
        worst = max(int(np.abs(a - b).max()) for a, b in zip(theirs, ours, strict=True))
        if worst > 1:
            faults.append(f"{name}: differs by {worst} levels")
    assert faults == []


async def test_the_same_masks(worker: Client, real: Client, tmp_path: pathlib.Path) -> None:
    """A real server shows its masks as pictures; ours come from the node itself, which has no such company
    here."""
    call = Call(Folders(tmp_path / "worker"))
    for name in UPLOADS:
        prompt = {
            "1": load(name),
            "2": {"class_type": "MaskToImage", "inputs": {"mask": ["1", 1]}},
            "show": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
        }
        theirs = np.stack(await pictures(real, prompt))[..., 0]
        _, masks = load_image(call, f"{FOLDER}/{name}").outputs
        assert np.abs(to_pixels(masks).astype(int) - theirs).max() <= 1, name
        assert masks.shape == theirs.shape, name


async def test_the_same_refusals(worker: Client, real: Client) -> None:
    for name, prompt in REFUSED.items():
        theirs, ours = await refusal(real, prompt), await refusal(worker, prompt)
        assert theirs["status"] == 400, name
        assert differences(theirs, ours) == [], name


async def test_the_same_failures(worker: Client, real: Client) -> None:
    for name, prompt in FAILING.items():
        endings = []
        for client in (real, worker):
            entry = await client.run(prompt, client_id="bridged-parity")
            kind, data = entry["status"]["messages"][-1]
            endings.append(
                (entry["status"]["status_str"], kind, data["node_id"], data["node_type"], data.keys())
            )
        assert endings[0] == endings[1], name


async def test_the_same_events(worker: Client, real: Client) -> None:
    for name in SEQUENCES:
        assert differences(await events(real, name), await events(worker, name)) == [], name


async def test_what_the_offline_tests_compare_with_is_what_a_real_server_says(real: Client) -> None:
    assert differences(json.loads(STORED.read_text()), await recorded_answers(real)) == []


async def recorded_answers(client: Client) -> dict[str, Any]:
    return {
        "refusals": {name: await refusal(client, prompt) for name, prompt in REFUSED.items()},
        "events": {name: await events(client, name) for name in SEQUENCES},
    }
