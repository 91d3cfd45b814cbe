"""What each node does. Node functions run in the worker thread: they compute and touch the disk, and never
see the event loop."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image, ImageFile, ImageOps, ImageSequence
from PIL.PngImagePlugin import PngInfo

from bridged.embedded import imaging
from bridged.embedded.definitions import DEFINITIONS, Info
from bridged.embedded.folders import Folders, OutsideError

if TYPE_CHECKING:
    import pathlib

    from bridged.embedded.imaging import Picture


class Interrupted(Exception):
    """The prompt was interrupted: not an error, somebody asked for it."""


@dataclass
class Call:
    """What a node may use besides its inputs.

    `check` raises Interrupted; `report(done, total, picture)` tells the client about progress, `picture`
    being one (height, width, channels) array to show, or None; `memory` belongs to the node id and lives as
    long as prompts keep having that node.
    """

    folders: Folders
    prompt: dict[str, Any] = field(default_factory=dict)
    extra_pnginfo: Any = None
    check: Callable[[], None] = lambda: None
    report: Callable[[int, int, Picture | None], None] = lambda done, total, picture: None
    memory: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    outputs: tuple[Any, ...] = ()
    ui: dict[str, Any] | None = None
    """What `executed` events and the history show, or None."""


Function: TypeAlias = Callable[..., Result]


@dataclass(frozen=True)
class Node:
    definition: Info
    function: Function
    """Called with a Call and the inputs by name."""
    validate: Callable[..., str | None] | None = None
    """Called with the Folders and those inputs by name that `validates` names and that are not links: what is
    wrong, or None."""
    validates: frozenset[str] = frozenset()
    """Inputs that `validate` judges instead of the definition's range or list."""
    fingerprint: Callable[..., str] | None = None
    """Called with the Folders and the inputs by name: changes when the node must run again with the same
    inputs."""

    @property
    def output_types(self) -> tuple[str, ...]:
        return tuple(self.definition["output"])

    @property
    def is_output(self) -> bool:
        return bool(self.definition["output_node"])

    @property
    def inputs(self) -> dict[str, list[Any]]:
        specs: dict[str, list[Any]] = self.definition["input"]["required"]
        return specs


def empty_image(call: Call, width: int, height: int, batch_size: int = 1, color: int = 0) -> Result:
    return Result((imaging.solid(batch_size, height, width, color),))


def load_image(call: Call, image: str) -> Result:
    """Turned upright by its EXIF, all frames of its first frame's size. The mask is what is transparent, or
    an empty 64x64."""
    opened = _forgiving(Image.open, call.folders.annotated(image))
    with opened:
        pictures: list[imaging.Pixels] = []
        masks: list[Picture] = []
        size: tuple[int, int] | None = None
        for frame in ImageSequence.Iterator(opened):
            call.check()
            upright = _forgiving(ImageOps.exif_transpose, frame)
            if upright.mode == "I":
                upright = upright.point(lambda level: level * (1 / 255))
            rgb = upright.convert("RGB")
            if size is None:
                size = rgb.size
            if rgb.size != size:
                continue
            imaging.require_size(len(pictures) + 1, size[1], size[0])
            pictures.append(np.asarray(rgb))
            masks.append(_mask(upright))
            if opened.format == "MPO":
                break  # the further frames are the same scene again: depth, the other eye, a thumbnail
    return Result((imaging.from_pixels(np.stack(pictures)), np.stack(masks)))


def _mask(picture: Image.Image) -> Picture:
    """(height, width), 1 where the picture is transparent."""
    if "A" in picture.getbands():
        alpha = picture.getchannel("A")
    elif picture.mode == "P" and "transparency" in picture.info:
        alpha = picture.convert("RGBA").getchannel("A")
    else:
        return np.zeros((64, 64), np.float32)
    return np.float32(1) - imaging.from_pixels(np.asarray(alpha))


def _forgiving(function: Callable[..., Any], argument: Any) -> Any:
    """Truncated files are filled up with grey rather than refused, as ComfyUI does: Pillow has only a global
    switch for it."""
    try:
        return function(argument)
    except (OSError, ValueError):
        before = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            return function(argument)
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def validate_load_image(folders: Folders, image: Any) -> str | None:
    try:
        exists = folders.annotated(str(image)).is_file()
    except (OutsideError, OSError):
        exists = False
    return None if exists else f"Invalid image file: {image}"


def fingerprint_load_image(folders: Folders, image: str) -> str:
    """SHA-256 of the file, in hex: the same bytes uploaded again are not a change."""
    path = folders.annotated(image)
    status = os.stat(path)
    key = (path, status.st_mtime_ns, status.st_size, status.st_ino)
    if key not in _hashes:
        if (
            len(_hashes) >= 256
        ):  # about 100 bytes each; a worker rarely sees more pictures than that between two changes
            _hashes.clear()
        with open(path, "rb") as file:
            _hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _hashes[key]


_hashes: dict[tuple[pathlib.Path, int, int, int], str] = {}


def save_image(call: Call, images: Picture, filename_prefix: str = "ComfyUI") -> Result:
    return _save(call, "output", images, filename_prefix, compress_level=4)


def preview_image(call: Call, images: Picture) -> Result:
    if "suffix" not in call.memory:
        call.memory["suffix"] = "".join(random.choices(string.ascii_lowercase, k=5))
    return _save(call, "temp", images, "ComfyUI_temp_" + call.memory["suffix"], compress_level=1)


def _save(call: Call, kind: str, images: Picture, prefix: str, compress_level: int) -> Result:
    series = call.folders.save_series(kind, prefix, (images.shape[2], images.shape[1]))
    notes = PngInfo()
    notes.add_text("prompt", json.dumps(call.prompt))
    for key, value in (call.extra_pnginfo or {}).items():
        notes.add_text(key, json.dumps(value))
    saved = []
    for number, pixels in enumerate(imaging.to_pixels(images)):
        call.check()
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG", pnginfo=notes, compress_level=compress_level)
        name = series.write(buffer.getvalue(), number)
        saved.append({"filename": name, "subfolder": series.subfolder, "type": kind})
    return Result(ui={"images": saved})


def _one_by_one(call: Call, images: Picture, work: Callable[[Picture], Picture]) -> Result:
    """Apply `work` to batches of one picture each, with an interrupt check before each. Only a batch reports
    progress: for a single picture a real ComfyUI's image nodes report none."""
    done: list[Picture] = []
    for number in range(images.shape[0]):
        call.check()
        done.append(work(images[number : number + 1]))
        if images.shape[0] > 1:
            call.report(number + 1, images.shape[0], done[-1][0])
    return Result((done[0] if len(done) == 1 else np.concatenate(done),))


def image_scale(
    call: Call, image: Picture, upscale_method: str, width: int, height: int, crop: str
) -> Result:
    """A side of 0 follows from the other one and the aspect ratio; both 0 change nothing."""
    if width == 0 and height == 0:
        return Result((image,))
    _, old_height, old_width, _ = image.shape
    if width == 0:
        width = max(1, round(old_width * height / old_height))
    elif height == 0:
        height = max(1, round(old_height * width / old_width))
    imaging.require_size(image.shape[0], height, width)
    return _one_by_one(call, image, lambda one: imaging.resize(one, width, height, upscale_method, crop))


def image_scale_by(call: Call, image: Picture, upscale_method: str, scale_by: float) -> Result:
    width, height = round(image.shape[2] * scale_by), round(image.shape[1] * scale_by)
    imaging.require_size(image.shape[0], height, width)
    return _one_by_one(call, image, lambda one: imaging.resize(one, width, height, upscale_method))


def image_invert(call: Call, image: Picture) -> Result:
    return Result((np.float32(1) - image,))


def image_blur(call: Call, image: Picture, blur_radius: int, sigma: float) -> Result:
    return _one_by_one(call, image, lambda one: imaging.blur(one, blur_radius, sigma, call.check))


def image_sharpen(call: Call, image: Picture, sharpen_radius: int, sigma: float, alpha: float) -> Result:
    return _one_by_one(
        call, image, lambda one: imaging.sharpen(one, sharpen_radius, sigma, alpha, call.check)
    )


def image_crop(call: Call, image: Picture, width: int, height: int, x: int, y: int) -> Result:
    """A corner beyond the picture moves to its last pixel; what lies outside is not filled up."""
    x, y = min(x, image.shape[2] - 1), min(y, image.shape[1] - 1)
    return Result((image[:, y : y + height, x : x + width],))


def image_blend(call: Call, image1: Picture, image2: Picture, blend_factor: float, blend_mode: str) -> Result:
    return Result((imaging.blend(image1, image2, blend_factor, blend_mode),))


def image_flip(call: Call, image: Picture, flip_method: str) -> Result:
    return Result((image[:, ::-1] if flip_method.startswith("x") else image[:, :, ::-1],))


def image_rotate(call: Call, image: Picture, rotation: str) -> Result:
    """Clockwise."""
    turns = {"90": 1, "180": 2, "270": 3}.get(rotation.split(" ")[0], 0)
    return Result((np.rot90(image, turns, axes=(2, 1)),))


def _nodes(functions: Iterable[tuple[str, Function]]) -> dict[str, Node]:
    nodes = {name: Node(DEFINITIONS[name], function) for name, function in functions}
    nodes["LoadImage"] = Node(
        DEFINITIONS["LoadImage"],
        load_image,
        validate=validate_load_image,
        validates=frozenset({"image"}),
        fingerprint=fingerprint_load_image,
    )
    assert nodes.keys() == DEFINITIONS.keys()
    return nodes


NODES: dict[str, Node] = _nodes(
    [
        ("EmptyImage", empty_image),
        ("SaveImage", save_image),
        ("PreviewImage", preview_image),
        ("ImageScale", image_scale),
        ("ImageScaleBy", image_scale_by),
        ("ImageInvert", image_invert),
        ("ImageBlur", image_blur),
        ("ImageSharpen", image_sharpen),
        ("ImageCrop", image_crop),
        ("ImageBlend", image_blend),
        ("ImageFlip", image_flip),
        ("ImageRotate", image_rotate),
    ]
)
