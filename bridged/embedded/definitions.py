"""What each node looks like from outside: the `/object_info` entries of ComfyUI 0.3.64 for the classes this
worker has.

Input specs are `(type, options)` pairs as ComfyUI's JSON has them; a list as the type is a choice among
strings.
"""

from __future__ import annotations

import mimetypes
import os
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import pathlib

Spec: TypeAlias = list[Any]
Info: TypeAlias = dict[str, Any]

MAX_RESOLUTION = 16384
"""Pixels; the largest width or height an input may ask for (ComfyUI 0.3.64)."""

UPSCALE_METHODS = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]
CROP_METHODS = ["disabled", "center"]
BLEND_MODES = ["normal", "multiply", "screen", "overlay", "soft_light", "difference"]
FLIP_METHODS = ["x-axis: vertically", "y-axis: horizontally"]
ROTATIONS = ["none", "90 degrees", "180 degrees", "270 degrees"]

_PICTURE_HIDDEN = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
_SAVE_DESCRIPTION = "Saves the input images to your ComfyUI output directory."
_PREFIX_TOOLTIP = (
    "The prefix for the file to save. This may include formatting information such as %date:yyyy-MM-dd% or "
    "%Empty Latent Image.width% to include values from nodes."
)


def _int(default: int, low: int, high: int, step: int | None = 1, **more: Any) -> Spec:
    options = {"default": default, "min": low, "max": high}
    return ["INT", options | ({"step": step} if step is not None else {}) | more]


def _float(default: float, low: float, high: float, step: float) -> Spec:
    return ["FLOAT", {"default": default, "min": low, "max": high, "step": step}]


def _node(
    name: str,
    required: dict[str, Spec],
    *,
    category: str,
    display_name: str | None,
    module: str = "nodes",
    output: tuple[str, ...] = ("IMAGE",),
    hidden: dict[str, str] | None = None,
    description: str = "",
    output_node: bool = False,
) -> Info:
    inputs: dict[str, dict[str, Any]] = {"required": required}
    if hidden:
        inputs["hidden"] = hidden
    return {
        "input": inputs,
        "input_order": {kind: list(specs) for kind, specs in inputs.items()},
        "output": list(output),
        "output_is_list": [False] * len(output),
        "output_name": list(output),
        "name": name,
        "display_name": display_name,
        "description": description,
        "python_module": module,
        "category": category,
        "output_node": output_node,
    }


def _post_processing(name: str, required: dict[str, Spec]) -> Info:
    """A node of ComfyUI's newer definition style: it has no display name and a few more keys."""
    info = _node(
        name,
        required,
        category="image/postprocessing",
        display_name=None,
        module="comfy_extras.nodes_post_processing",
    )
    return info | {"output_tooltips": [None], "deprecated": False, "experimental": False, "api_node": False}


def _transform(name: str, display_name: str, required: dict[str, Spec]) -> Info:
    return _node(
        name,
        required,
        category="image/transform",
        display_name=display_name,
        module="comfy_extras.nodes_images",
    )


def _side(default: int, low: int) -> Spec:
    return _int(default, low, MAX_RESOLUTION)


DEFINITIONS: dict[str, Info] = {
    info["name"]: info
    for info in (
        _node(
            "EmptyImage",
            {
                "width": _side(512, 1),
                "height": _side(512, 1),
                "batch_size": _int(1, 1, 4096, step=None),
                "color": _int(0, 0, 0xFFFFFF, display="color"),
            },
            category="image",
            display_name="EmptyImage",
        ),
        _node(
            "LoadImage",
            {"image": [[], {"image_upload": True}]},
            category="image",
            display_name="Load Image",
            output=("IMAGE", "MASK"),
        ),
        _node(
            "SaveImage",
            {
                "images": ["IMAGE", {"tooltip": "The images to save."}],
                "filename_prefix": ["STRING", {"default": "ComfyUI", "tooltip": _PREFIX_TOOLTIP}],
            },
            category="image",
            display_name="Save Image",
            output=(),
            hidden=_PICTURE_HIDDEN,
            description=_SAVE_DESCRIPTION,
            output_node=True,
        ),
        _node(
            "PreviewImage",
            {"images": ["IMAGE"]},
            category="image",
            display_name="Preview Image",
            output=(),
            hidden=_PICTURE_HIDDEN,
            description=_SAVE_DESCRIPTION,
            output_node=True,
        ),
        _node(
            "ImageScale",
            {
                "image": ["IMAGE"],
                "upscale_method": [UPSCALE_METHODS],
                "width": _side(512, 0),
                "height": _side(512, 0),
                "crop": [CROP_METHODS],
            },
            category="image/upscaling",
            display_name="Upscale Image",
        ),
        _node(
            "ImageScaleBy",
            {
                "image": ["IMAGE"],
                "upscale_method": [UPSCALE_METHODS],
                "scale_by": _float(1.0, 0.01, 8.0, 0.01),
            },
            category="image/upscaling",
            display_name="Upscale Image By",
        ),
        _node("ImageInvert", {"image": ["IMAGE"]}, category="image", display_name="Invert Image"),
        _post_processing(
            "ImageBlur",
            {
                "image": ["IMAGE", {}],
                "blur_radius": _int(1, 1, 31),
                "sigma": _float(1.0, 0.1, 10.0, 0.1),
            },
        ),
        _post_processing(
            "ImageSharpen",
            {
                "image": ["IMAGE", {}],
                "sharpen_radius": _int(1, 1, 31),
                "sigma": _float(1.0, 0.1, 10.0, 0.01),
                "alpha": _float(1.0, 0.0, 5.0, 0.01),
            },
        ),
        _post_processing(
            "ImageBlend",
            {
                "image1": ["IMAGE", {}],
                "image2": ["IMAGE", {}],
                "blend_factor": _float(0.5, 0.0, 1.0, 0.01),
                "blend_mode": ["COMBO", {"multiselect": False, "options": BLEND_MODES}],
            },
        ),
        _transform(
            "ImageCrop",
            "Image Crop",
            {
                "image": ["IMAGE"],
                "width": _side(512, 1),
                "height": _side(512, 1),
                "x": _side(0, 0),
                "y": _side(0, 0),
            },
        ),
        _transform("ImageFlip", "ImageFlip", {"image": ["IMAGE"], "flip_method": [FLIP_METHODS]}),
        _transform("ImageRotate", "ImageRotate", {"image": ["IMAGE"], "rotation": [ROTATIONS]}),
    )
}


def object_info(input_folder: pathlib.Path, class_type: str | None = None) -> dict[str, Info]:
    """The `/object_info` answer, for one class or for all; an unknown class gives {}.

    LoadImage's choices are the picture files directly in `input_folder`, sorted, as ComfyUI lists them (by
    extension). Reads the disk.
    """
    if class_type is not None:
        chosen = {class_type: DEFINITIONS[class_type]} if class_type in DEFINITIONS else {}
    else:
        chosen = dict(DEFINITIONS)
    if "LoadImage" in chosen:
        image = [_pictures_in(input_folder), {"image_upload": True}]
        chosen["LoadImage"] = chosen["LoadImage"] | {"input": {"required": {"image": image}}}
    return chosen


def _pictures_in(folder: pathlib.Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_file() and _is_picture(entry.name))


def _is_picture(name: str) -> bool:
    kind, _ = mimetypes.guess_type(name, strict=False)
    return kind is not None and kind.startswith("image/")
