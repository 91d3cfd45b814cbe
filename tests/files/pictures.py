"""Small real files, made by Pillow."""

from __future__ import annotations

import io
import random

from PIL import Image

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".gif": "GIF",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tiff": "TIFF",
}


def picture(extension: str = ".png", size: int = 4, *, noise: bool = False) -> bytes:
    """A `size` x `size` picture in the format of that extension; `noise` makes its file about 3 bytes a pixel."""
    image = Image.new("RGB", (size, size), (200, 100, 50))
    if noise:
        image = Image.frombytes("RGB", (size, size), random.Random(1).randbytes(3 * size * size))
    body = io.BytesIO()
    image.save(body, FORMATS[extension])
    return body.getvalue()
