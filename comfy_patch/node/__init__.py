"""bridged_patch: what a PC's owner adds to ComfyUI, so that the bridge that it is lent to can do better by it.

An ordinary package of custom nodes, without nodes. Where this ComfyUI lacks something that it needs, it goes on without
that: what is missing is named in one line of the log.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

NODE_CLASS_MAPPINGS: dict[str, Any] = {}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {}

WEB_DIRECTORY = "./web"

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY"]


def _start() -> None:
    try:
        from .wiring import install

        install(HERE)
    except Exception:  # ComfyUI, and its front end's part of this package, must work all the same
        logging.getLogger("bridged_patch").exception("bridged_patch: its server part is left out")


_start()
