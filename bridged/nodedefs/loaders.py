"""Which folders ComfyUI's own loaders list, read from its node sources (0.3.64: nodes.py, comfy_extras,
comfy_api_nodes).

Not here: DiffusersLoader and LoadImageSetFromFolderNode list folders, no files; LoadImageOutput names its own
route.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec


class Listing(msgspec.Struct, frozen=True):
    """What a combo lists: all of a folder (a name as in `/models`, or input, output, temp), or part of it."""

    folder: str
    filter_ext: tuple[str, ...] = ()
    filter_content_type: tuple[str, ...] = ()


CHECKPOINTS: Final = Listing("checkpoints")
LORAS: Final = Listing("loras")
TEXT_ENCODERS: Final = Listing("text_encoders")
CONTROLNET: Final = Listing("controlnet")
DOCUMENTS: Final = Listing("input", filter_ext=(".txt", ".pdf"))

LOADERS: Final[Mapping[tuple[str, str], Listing]] = {
    ("CheckpointLoaderSimple", "ckpt_name"): CHECKPOINTS,
    ("CheckpointLoader", "ckpt_name"): CHECKPOINTS,
    ("CheckpointLoader", "config_name"): Listing("configs"),
    ("unCLIPCheckpointLoader", "ckpt_name"): CHECKPOINTS,
    ("ImageOnlyCheckpointLoader", "ckpt_name"): CHECKPOINTS,
    ("CreateHookModelAsLora", "ckpt_name"): CHECKPOINTS,
    ("CreateHookModelAsLoraModelOnly", "ckpt_name"): CHECKPOINTS,
    ("LoraLoader", "lora_name"): LORAS,
    ("LoraLoaderModelOnly", "lora_name"): LORAS,
    ("CreateHookLora", "lora_name"): LORAS,
    ("CreateHookLoraModelOnly", "lora_name"): LORAS,
    ("TrainLoraNode", "existing_lora"): LORAS,
    ("VAELoader", "vae_name"): Listing("vae"),
    ("UNETLoader", "unet_name"): Listing("diffusion_models"),
    ("CLIPLoader", "clip_name"): TEXT_ENCODERS,
    ("DualCLIPLoader", "clip_name1"): TEXT_ENCODERS,
    ("DualCLIPLoader", "clip_name2"): TEXT_ENCODERS,
    ("TripleCLIPLoader", "clip_name1"): TEXT_ENCODERS,
    ("TripleCLIPLoader", "clip_name2"): TEXT_ENCODERS,
    ("TripleCLIPLoader", "clip_name3"): TEXT_ENCODERS,
    ("QuadrupleCLIPLoader", "clip_name1"): TEXT_ENCODERS,
    ("QuadrupleCLIPLoader", "clip_name2"): TEXT_ENCODERS,
    ("QuadrupleCLIPLoader", "clip_name3"): TEXT_ENCODERS,
    ("QuadrupleCLIPLoader", "clip_name4"): TEXT_ENCODERS,
    ("CLIPVisionLoader", "clip_name"): Listing("clip_vision"),
    ("StyleModelLoader", "style_model_name"): Listing("style_models"),
    ("ControlNetLoader", "control_net_name"): CONTROLNET,
    ("DiffControlNetLoader", "control_net_name"): CONTROLNET,
    ("GLIGENLoader", "gligen_name"): Listing("gligen"),
    ("HypernetworkLoader", "hypernetwork_name"): Listing("hypernetworks"),
    ("UpscaleModelLoader", "model_name"): Listing("upscale_models"),
    ("PhotoMakerLoader", "photomaker_model_name"): Listing("photomaker"),
    ("ModelPatchLoader", "name"): Listing("model_patches"),
    ("AudioEncoderLoader", "audio_encoder_name"): Listing("audio_encoders"),
    ("LoadImage", "image"): Listing("input", filter_content_type=("image",)),
    ("LoadImageMask", "image"): Listing("input"),
    ("LoadVideo", "file"): Listing("input", filter_content_type=("video",)),
    ("LoadAudio", "audio"): Listing("input", filter_content_type=("audio", "video")),
    ("LoadLatent", "latent"): Listing("input", filter_ext=(".latent",)),
    ("Load3D", "model_file"): Listing("input", filter_ext=(".gltf", ".glb", ".obj", ".fbx", ".stl")),
    ("Load3DAnimation", "model_file"): Listing("input", filter_ext=(".gltf", ".glb", ".fbx")),
    ("GeminiInputFiles", "file"): DOCUMENTS,
    ("OpenAIInputFiles", "file"): DOCUMENTS,
}

SUBFOLDERS: Final = frozenset({("LoadImageSetFromFolderNode", "folder"), ("LoadImageTextSetFromFolderNode", "folder")})
"""Combos that list folders within the input folder: no files, but the owner's all the same."""

UPLOADS: Final[Mapping[str, tuple[str, ...]]] = {
    "image_upload": ("image",),
    "animated_image_upload": ("image",),
    "video_upload": ("video",),
    "audio_upload": ("audio", "video"),
    "file_upload": (),
}
"""A setting that lets a combo upload to the input folder -> the content types it then lists, () = all."""

LEGACY: Final[Mapping[str, str]] = {"unet": "diffusion_models", "clip": "text_encoders"}
"""Folder names of old nodes (folder_paths.map_legacy)."""

WORDS: Final[Mapping[str, str]] = {
    "ckpt": "checkpoints",
    "clip": "text_encoders",
    "unet": "diffusion_models",
    "config": "configs",
    "upscale": "upscale_models",
}
"""Parts of input names that mean a folder whose own name is another."""

CONTENT_TYPES: Final[Mapping[str, str]] = {
    "webp": "image",
    "avif": "image",
    "heic": "image",
    "fbx": "model",
    "glb": "model",
    "gltf": "model",
    "obj": "model",
    "stl": "model",
    "flac": "audio",
    "m4a": "audio",
    "ogg": "audio",
    "opus": "audio",
    "mkv": "video",
}
"""Extension -> content type, beside what Python's mimetypes knows by itself. ComfyUI adds webp and fbx; a PC
knows the others from its own tables."""
