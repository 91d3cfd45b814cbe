"""What a ComfyUI 0.3.64 says of itself, as recorded."""

import functools
from collections.abc import Mapping
from typing import Any

from tests.fakes.recording import object_info

GIB = 1024**3
FEATURES: Mapping[str, Any] = {"supports_preview_metadata": True, "max_upload_size": 104857600}

DEFAULT_CLASSES = [
    "EmptyImage",
    "LoadImage",
    "ImageScale",
    "ImageScaleBy",
    "ImageInvert",
    "ImageBlur",
    "ImageSharpen",
    "ImageCrop",
    "ImageBlend",
    "ImageFlip",
    "ImageRotate",
    "SaveImage",
    "PreviewImage",
]

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


@functools.cache
def recorded_classes(*names: str) -> Mapping[str, Any]:
    """The recorded `/object_info` of these classes; of all 477 when none is named."""
    known = object_info()
    return {name: known[name] for name in names} if names else known


def system_stats() -> dict[str, Any]:
    vram = {
        "vram_total": 24 * GIB,
        "vram_free": 20 * GIB,
        "torch_vram_total": 24 * GIB,
        "torch_vram_free": 20 * GIB,
    }
    return {
        "system": {
            "os": "posix",
            "ram_total": 32 * GIB,
            "ram_free": 24 * GIB,
            "comfyui_version": "0.3.64",
            "required_frontend_version": "1.27.10",
            "installed_templates_version": "0.1.95",
            "required_templates_version": "0.1.95",
            "python_version": "3.11.7 (main, May  9 2026, 07:35:25) [GCC 12.2.0]",
            "pytorch_version": "2.15.0+cu132",
            "embedded_python": False,
            "argv": ["main.py", "--listen", "127.0.0.1"],
        },
        "devices": [{"name": "cpu", "type": "cpu", "index": None, **vram}],
    }
