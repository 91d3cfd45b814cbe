"""One dependable service out of many lent ComfyUI servers."""

__version__ = "0.1.0"
