"""Ordinary pictures out of Pillow, in every mode and with every setting that people use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

from tests.corpus.case import Case, mime
from tests.corpus.seeds import pillow, scene

Stills = dict[str, bytes]


def _cases(extension: str, stills: Stills) -> Iterator[Case]:
    for label, data in stills.items():
        name = f"picture{extension}"
        yield Case(f"Pillow {extension} {label}", name, data, mime(name), label, encoder="Pillow")


def photo(mode: str = "RGB", width: int = 24, height: int = 16, seed: int = 3) -> Image.Image:
    image = Image.fromarray(scene(width, height, seed))
    match mode:
        case "P":
            return image.quantize(64)
        case "RGBA" | "LA":
            image = image.convert(mode)
            image.putalpha(Image.fromarray(scene(width, height, seed + 1, 1)))
            return image
        case "I;16":
            return Image.fromarray(scene(width, height, seed, 1).astype(np.uint16) * 257)
    return image.convert(mode)


def exif(gps: bool = True) -> Image.Exif:
    """What a telephone writes."""
    block = Image.Exif()
    block[0x010F], block[0x0110], block[0x0112], block[0x0131] = "Samsung", "SM-S918N", 1, "S918NKSU3"
    block[0x0132] = "2024:05:01 12:30:45"
    inner = block.get_ifd(0x8769)
    inner[0x9003], inner[0x829A], inner[0x8827] = "2024:05:01 12:30:45", 0.01, 200
    inner[0x9286] = b"UNICODE\0" + "봄 소풍 <3".encode("utf-16-le")
    if gps:
        place = block.get_ifd(0x8825)
        place[1], place[2] = "N", (37.0, 33.0, 59.4)
        place[3], place[4] = "E", (126.0, 58.0, 40.8)
    return block


def icc() -> bytes:
    data: bytes = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return data[:24] + bytes.fromhex("07e800050001000c001e002d") + data[36:]  # not the time of this run


def animation(form: str, count: int = 5, mode: str = "RGB", **options: Any) -> bytes:
    frames = [photo(mode, seed=10 + number) for number in range(count)]
    return pillow(frames[0], form, save_all=True, append_images=frames[1:], **options)


def png() -> Iterator[Case]:
    stills: Stills = {
        f"mode {mode}": pillow(photo(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
    }
    for level in (0, 1, 6, 9):
        stills[f"compress level {level}"] = pillow(photo(), "PNG", compress_level=level)
    for bits in (1, 2, 4):
        stills[f"palette of {bits} bits"] = pillow(photo().quantize(1 << bits), "PNG", bits=bits)
    stills["palette, one transparent"] = pillow(photo("P"), "PNG", transparency=3)
    stills["palette, alphas"] = pillow(photo("P"), "PNG", transparency=bytes(range(64)))
    stills["grey, one transparent"] = pillow(photo("L"), "PNG", transparency=7)
    stills["RGB, one transparent"] = pillow(photo(), "PNG", transparency=(1, 2, 3))
    stills["optimized"] = pillow(photo(), "PNG", optimize=True)
    stills["dpi"] = pillow(photo(), "PNG", dpi=(300, 300))
    stills["ICC"] = pillow(photo(), "PNG", icc_profile=icc())
    stills["EXIF with GPS"] = pillow(photo(), "PNG", exif=exif())
    stills["one pixel"] = pillow(photo(width=1, height=1), "PNG")
    stills["one row"] = pillow(photo(width=3000, height=1), "PNG")
    stills["one column"] = pillow(photo(width=1, height=3000), "PNG")
    stills["all black"] = pillow(Image.new("RGB", (512, 512)), "PNG")
    stills["all white, large"] = pillow(Image.new("L", (4000, 3000), 255), "PNG")
    stills["noise"] = pillow(photo(width=300, height=200), "PNG")
    stills["APNG"] = animation("PNG")
    stills["APNG, RGBA, disposal"] = animation("PNG", mode="RGBA", disposal=1, blend=0, duration=80, loop=0)
    stills["APNG, default image apart"] = animation("PNG", default_image=True)
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "Adobe Photoshop 25.0 (Windows)")
    info.add_itxt("Title", "제목: 봄", "ko", "제목")
    info.add_text("Comment", "long " * 3000, zip=True)
    stills["texts of three kinds"] = pillow(photo(), "PNG", pnginfo=info)
    yield from _cases(".png", stills)


def jpeg() -> Iterator[Case]:
    stills: Stills = {f"mode {mode}": pillow(photo(mode), "JPEG") for mode in ("L", "RGB", "CMYK", "YCbCr")}
    for quality in (1, 30, 75, 95, 100):
        stills[f"quality {quality}"] = pillow(photo(), "JPEG", quality=quality)
    for sampling in (0, 1, 2):
        stills[f"subsampling {sampling}"] = pillow(photo(), "JPEG", subsampling=sampling)
    stills["progressive"] = pillow(photo(width=200, height=150), "JPEG", progressive=True)
    stills["progressive, grey"] = pillow(photo("L"), "JPEG", progressive=True)
    stills["optimized"] = pillow(photo(), "JPEG", optimize=True)
    stills["restart intervals"] = pillow(photo(width=200, height=90), "JPEG", restart_marker_blocks=2)
    stills["restart rows"] = pillow(photo(width=200, height=90), "JPEG", restart_marker_rows=1)
    stills["RGB kept"] = pillow(photo(), "JPEG", keep_rgb=True)
    stills["EXIF with GPS"] = pillow(photo(), "JPEG", exif=exif())
    stills["EXIF without GPS"] = pillow(photo(), "JPEG", exif=exif(gps=False))
    stills["ICC"] = pillow(photo(), "JPEG", icc_profile=icc())
    stills["CMYK with ICC"] = pillow(photo("CMYK"), "JPEG", icc_profile=icc(), quality=90)
    stills["comment"] = pillow(photo(), "JPEG", comment="CREATOR: gd-jpeg v1.0 (using IJG JPEG v62), quality = 80\n")
    stills["one pixel"] = pillow(photo(width=1, height=1), "JPEG")
    stills["a photo's size"] = pillow(photo(width=1600, height=1200), "JPEG", quality=80)
    stills["turned by EXIF"] = pillow(photo(), "JPEG", exif=_turned())
    stills["several pictures (MPF)"] = animation("MPO", 2)
    stills["several pictures and EXIF"] = animation("MPO", 3, exif=exif())
    yield from _cases(".jpg", stills)
    name = "picture.jpeg"
    yield Case("Pillow .jpeg", name, pillow(photo(), "JPEG"), mime(name), "the long extension", encoder="Pillow")


def _turned() -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = 6
    return block


def gif() -> Iterator[Case]:
    stills: Stills = {f"mode {mode}": pillow(photo(mode), "GIF") for mode in ("1", "L", "P", "RGB", "RGBA")}
    stills["interlaced"] = pillow(photo("P", 90, 70), "GIF", interlace=1)
    stills["not interlaced"] = pillow(photo("P", 90, 70), "GIF", interlace=0)
    stills["transparent"] = pillow(photo("P"), "GIF", transparency=0)
    stills["comment"] = pillow(photo("P"), "GIF", comment="Created with GIMP")
    stills["animation"] = animation("GIF", 8, "P", duration=90, loop=0)
    stills["animation, disposal"] = animation("GIF", 6, "P", duration=40, disposal=2)
    stills["animation, optimized"] = animation("GIF", 6, "P", optimize=True)
    stills["animation of 200 frames"] = animation("GIF", 200, "P")
    stills["one pixel"] = pillow(photo("P", 1, 1), "GIF")
    yield from _cases(".gif", stills)


def webp() -> Iterator[Case]:
    stills: Stills = {f"lossy, quality {quality}": pillow(photo(), "WEBP", quality=quality) for quality in (1, 50, 100)}
    stills["lossless"] = pillow(photo(), "WEBP", lossless=True)
    stills["lossless, RGBA"] = pillow(photo("RGBA"), "WEBP", lossless=True, exact=True)
    stills["lossless, palette"] = pillow(photo("P"), "WEBP", lossless=True)
    stills["lossy, alpha"] = pillow(photo("RGBA"), "WEBP", quality=60, alpha_quality=30)
    stills["slowest method"] = pillow(photo(), "WEBP", method=6)
    stills["animation"] = animation("WEBP", 6, duration=90)
    stills["animation, lossless"] = animation("WEBP", 4, "RGBA", lossless=True)
    stills["animation, mixed"] = animation("WEBP", 6, allow_mixed=True, minimize_size=True)
    stills["EXIF"] = pillow(photo(), "WEBP", exif=exif())
    stills["ICC"] = pillow(photo(), "WEBP", icc_profile=icc())
    stills["one pixel"] = pillow(photo(width=1, height=1), "WEBP")
    stills["odd sizes"] = pillow(photo(width=37, height=23), "WEBP", lossless=True)
    yield from _cases(".webp", stills)


def bmp() -> Iterator[Case]:
    modes = ("1", "L", "P", "RGB", "RGBA")
    stills: Stills = {f"mode {mode}": pillow(photo(mode, 23, 17), "BMP") for mode in modes}
    stills["dpi"] = pillow(photo(), "BMP", dpi=(72, 72))
    stills["one pixel"] = pillow(photo(width=1, height=1), "BMP")
    yield from _cases(".bmp", stills)


def tiff() -> Iterator[Case]:
    modes = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "LAB")
    stills: Stills = {}
    for mode in modes:
        image = _lab() if mode == "LAB" else photo(mode)
        stills[f"mode {mode}"] = pillow(image, "TIFF")
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "jpeg", "zstd", "lzma"):
        stills[compression] = pillow(photo(), "TIFF", compression=compression)
    for compression in ("group3", "group4", "tiff_ccitt"):
        stills[compression] = pillow(photo("1", 200, 100), "TIFF", compression=compression)
    stills["LZW, predictor"] = pillow(photo(), "TIFF", compression="tiff_lzw", tiffinfo={317: 2})
    stills["three pages"] = animation("TIFF", 3)
    stills["BigTIFF"] = pillow(photo(), "TIFF", big_tiff=True)
    stills["EXIF and description"] = pillow(photo(), "TIFF", exif=exif(), description="A walk by the river, 5 < 6")
    stills["ICC"] = pillow(photo(), "TIFF", icc_profile=icc())
    stills["dpi"] = pillow(photo(), "TIFF", dpi=(600, 600))
    stills["many strips"] = pillow(photo(width=200, height=300), "TIFF", compression="tiff_lzw", strip_size=2000)
    yield from _cases(".tif", stills)
    name = "picture.tiff"
    yield Case("Pillow .tiff", name, pillow(photo(), "TIFF"), mime(name), "the long extension", encoder="Pillow")


def _lab() -> Image.Image:
    return Image.frombytes("LAB", (24, 16), scene().tobytes())
