"""Starts the command line, as `python -m comfy_patch` and as `python PATH/comfy_patch`.

The second form is for the Python of ComfyUI's Windows portable: its `._pth` file keeps the current folder out of
`sys.path`, so that `-m` does not find this package there, whatever folder it is started in.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path


def _main() -> int:
    here = Path(__file__).resolve().parent
    if not __package__:
        sys.path[0] = str(here.parent)
    status: int = import_module(f"{__package__ or here.name}.cli").main(sys.argv[1:])
    return status


if __name__ == "__main__":
    sys.exit(_main())
