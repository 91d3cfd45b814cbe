"""What the owner of a PC installs into ComfyUI, and the command that does it.

`node/` is an ordinary custom-node package; everything else here copies it to its place, looks after it there and
takes it away again. Standard library only, Python 3.9 or newer (the oldest that ComfyUI 0.3.x runs on), Linux, Windows
and macOS, nothing of bridged: a copy of this folder alone is enough.
"""

__version__ = "1.0.0"
