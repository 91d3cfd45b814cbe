"""Pictures of every kind with a secret in every place that metadata can be in."""

from __future__ import annotations

import io
import random
import struct
import zlib
from typing import Any

from PIL import Image, ImageCms, PngImagePlugin

SECRET = b"the secret prompt of 51.5007N 0.1246W"
TEXT = SECRET.decode()
LONG = TEXT * 1500
"""longer than a segment of a JPEG takes together with the rest, and a page of any format"""

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
DURATIONS = [40, 90, 200, 100]


def exif(orientation: int = 1) -> Image.Exif:
    found = Image.Exif()
    found[0x0112], found[0x010E] = orientation, LONG
    found.get_ifd(0x8825)[2] = (51.0, 30.0, 2.5)
    return found


def base(mode: str = "RGB", seed: int = 1) -> Image.Image:
    noise = Image.frombytes("RGBA", (53, 37), random.Random(seed).randbytes(53 * 37 * 4))
    if mode == "I;16":
        return Image.frombytes("I;16", (53, 37), random.Random(seed).randbytes(53 * 37 * 2))
    return noise if mode == "RGBA" else noise.convert("RGB").convert(mode)


def frames(mode: str = "RGBA") -> list[Image.Image]:
    return [base(mode, seed) for seed in range(4)]


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    body = io.BytesIO()
    image.save(body, form, **options)
    return body.getvalue()


def animated(form: str, mode: str = "RGBA", **options: Any) -> bytes:
    first, *others = frames(mode)
    return saved(first, form, save_all=True, append_images=others, duration=DURATIONS, loop=2, **options)


def png_notes() -> PngImagePlugin.PngInfo:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("prompt", LONG)
    notes.add_text("workflow", LONG, zip=True)
    notes.add_itxt("XML:com.adobe.xmp", TEXT)
    notes.add(b"tIME", b"\x07\xe8\x05\x17\x0c\x00\x00")
    notes.add(b"prVt", SECRET)
    notes.add(b"comf", SECRET, True)
    return notes


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def deep_png(colour: int, channels: int) -> bytes:
    """16 bits a channel, which Pillow cannot write."""
    rows = b"".join(bytes((row % 5,)) + random.Random(row).randbytes(33 * channels * 2) for row in range(21))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 33, 21, 16, colour, 0, 0, 0)) + chunk(
        b"gAMA", b"\0\0\xb1\x8f"
    )
    body = chunk(b"tEXt", b"a\0" + SECRET) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + body


def interlaced_png(width: int, height: int) -> bytes:
    """Adam7, of 4 bits a pixel; Pillow writes none."""
    rows = b""
    for column, row, over, down in (
        *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
        *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
    ):
        columns, count = -(-(width - column) // over), -(-(height - row) // down)
        if columns > 0 and count > 0:
            rows += b"".join(b"\0" + random.Random(7).randbytes((columns * 4 + 7) // 8) for _ in range(count))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 4, 0, 0, 0, 1)) + chunk(
        b"tEXt", b"a\0" + SECRET
    )
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def jpeg(mode: str = "RGB", orientation: int = 1, **options: Any) -> bytes:
    """With a comment, EXIF, XMP, IPTC and something private, the last two also where few look."""
    plain = saved(base(mode), "JPEG", exif=exif(orientation), icc_profile=PROFILE, comment=SECRET, **options)
    segments = (
        *((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + SECRET), (0xED, b"Photoshop 3.0\x008BIM" + SECRET)),
        *((0xE0, b"JFXX\0\x10" + SECRET), (0xE2, b"FPXR\0" + SECRET), (0xE5, SECRET), (0xFE, SECRET)),
    )
    more = b"".join(struct.pack(">BBH", 0xFF, code, len(data) + 2) + data for code, data in segments)
    scan = plain.rindex(b"\xff\xda")
    return plain[:2] + plain[2:scan] + more + plain[scan:] + SECRET


def tiff(mode: str = "RGB", **options: Any) -> bytes:
    return saved(base(mode), "TIFF", description=LONG, artist=TEXT, icc_profile=PROFILE, **options)


PICTURES: dict[str, bytes] = {
    **{
        f"png {mode}": saved(base(mode), "PNG", pnginfo=png_notes(), icc_profile=PROFILE)
        for mode in ("1", "L", "LA")
    },
    **{f"png {mode}": saved(base(mode), "PNG", pnginfo=png_notes()) for mode in ("P", "RGB", "RGBA", "I;16")},
    "png, see-through palette": saved(
        base("P"), "PNG", pnginfo=png_notes(), transparency=3, gamma=0.5, dpi=(90, 90)
    ),
    "png with an orientation": saved(base(), "PNG", pnginfo=png_notes(), exif=exif(6)),
    "png, animated": animated("PNG", pnginfo=png_notes()),
    "png, animated, with a cover": animated("PNG", pnginfo=png_notes(), default_image=True),
    "png, 16-bit colour": deep_png(2, 3),
    "png, 16-bit alpha": deep_png(6, 4),
    "png, interlaced": interlaced_png(33, 21),
    "png, interlaced, tiny": interlaced_png(1, 3),
    **{f"jpeg {mode}": jpeg(mode) for mode in ("L", "RGB", "CMYK")},
    **{f"jpeg, sampling {sampling}": jpeg(subsampling=sampling, dpi=(72, 72)) for sampling in (0, 1, 2)},
    "jpeg, progressive": jpeg(progressive=True),
    "jpeg, restarts": jpeg(restart_marker_rows=1),
    **{f"jpeg, orientation {turn}": jpeg(orientation=turn) for turn in range(2, 9)},
    "webp, lossy": saved(base(), "WEBP", exif=exif(), xmp=SECRET, icc_profile=PROFILE),
    "webp, lossy, alpha": saved(base("RGBA"), "WEBP", exif=exif(3), xmp=SECRET),
    "webp, lossless": saved(
        base("RGBA"), "WEBP", lossless=True, exif=exif(8), xmp=SECRET, icc_profile=PROFILE
    ),
    "webp, animated": animated("WEBP", exif=exif(), xmp=SECRET),
    "webp, animated, lossless": animated("WEBP", "RGB", lossless=True, exif=exif(6), icc_profile=PROFILE),
    "gif": saved(base("P"), "GIF", comment=SECRET),
    "gif, animated": animated("GIF", "RGB", comment=SECRET),
    "gif, animated, see-through": animated("GIF", comment=SECRET, disposal=2),
    **{f"tiff {mode}": tiff(mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "F", "CMYK")},
    **{
        f"tiff, {how}": tiff(compression=how)
        for how in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    },
    "tiff with EXIF and GPS": saved(base(), "TIFF", exif=exif(5)),
    "tiff, pages": saved(
        base(), "TIFF", save_all=True, append_images=[base("L"), base("1")], description=TEXT
    ),
    "tiff, big": tiff(big_tiff=True),
    **{f"bmp {mode}": saved(base(mode), "BMP") for mode in ("1", "L", "P", "RGB")},
}
LOSSY = ("jpeg", "webp, lossy", "webp, animated")


def seen(content: bytes) -> list[tuple[Any, ...]]:
    """What a viewer shows: of each frame mode, size, time, orientation, ICC profile and pixels."""
    found: list[tuple[Any, ...]] = []
    with Image.open(io.BytesIO(content)) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            image.load()
            pixels = image.convert("RGBA") if image.mode in ("P", "PA") else image
            turn = image.getexif().get(0x0112, 1)
            profile = image.info.get("icc_profile")
            found.append(
                (image.mode, image.size, image.info.get("duration"), turn, profile, pixels.tobytes())
            )
    return found
