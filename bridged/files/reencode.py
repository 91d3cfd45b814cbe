"""Pictures decoded and encoded anew, one function per format: what is not picture does not survive that."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO

from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, TiffImagePlugin, WebPImagePlugin

from bridged.files.clean_images import after_blocks, gif, gif_colours
from bridged.files.orientation import EXIF_HEADER, UPRIGHT, exif_of, orientation_of
from bridged.files.reencode_png import encode_png
from bridged.files.riff import riff_chunks
from bridged.files.splice import Piece, Source, Unclean, rewrite
from bridged.files.verify import Rules

QUALITY = 95
"""of JPEG and lossy WebP, of 100"""

Encoder = Callable[[BinaryIO, BinaryIO, Rules], None]


def _jpeg(old: BinaryIO, new: BinaryIO, rules: Rules) -> None:
    with JpegImagePlugin.JpegImageFile(old) as image:
        _refuse_if_large(image, rules)
        sampling = JpegImagePlugin.get_sampling(image)
        if sampling == -1 and image.layers == 3:
            sampling = 0  # an unusual one: none loses the least
        more = _kept(image, "icc_profile", "dpi")
        orientation = orientation_of(image.info.get("exif", b""))
        if orientation != UPRIGHT:
            more["exif"] = EXIF_HEADER + exif_of(orientation)
        progressive = "progressive" in image.info
        image.load()
        image.info.clear()
        image.save(new, "JPEG", quality=QUALITY, subsampling=sampling, progressive=progressive, **more)


def _webp(old: BinaryIO, new: BinaryIO, rules: Rules) -> None:
    """The colours of fully transparent pixels are not kept in animations."""
    lossless = _webp_is_lossless(old)
    with WebPImagePlugin.WebPImageFile(old) as image:
        _refuse_if_large(image, rules)
        more = _kept(image, "icc_profile", "background", "loop") | {"lossless": lossless, "quality": QUALITY}
        orientation = orientation_of(image.info.get("exif", b""))
        if orientation != UPRIGHT:
            more["exif"] = exif_of(orientation)
        if image.n_frames == 1:
            image.load()
            image.save(new, "WEBP", exact=True, **more)
            return
        durations = []
        for number in range(image.n_frames):
            image.seek(number)
            image.load()
            durations.append(image.info["duration"])
        image.seek(0)
        image.save(new, "WEBP", save_all=True, duration=durations, **more)


def _webp_is_lossless(old: BinaryIO) -> bool:
    source = Source(old)
    stop = min(source.size, 8 + int(struct.unpack("<I", source.at(4, 4))[0]))
    kinds = set()
    for kind, at, end in riff_chunks(source, 12, stop):
        kinds.add(kind)
        if kind == b"ANMF":
            kinds.update(inner for inner, _, _ in riff_chunks(source, at + 24, end))
    old.seek(0)
    return b"VP8 " not in kinds


def _gif(old: BinaryIO, new: BinaryIO, rules: Rules) -> None:
    """Frame by frame, so that palettes, places, disposal and timing stay what they are."""
    source = Source(old)
    if not rewrite(source, gif(source, partial(_gif_image, rules=rules)), new):
        raise Unclean("it has no picture")


def _gif_image(source: Source, at: int, end: int, *, rules: Rules) -> Iterator[Piece]:
    descriptor = bytearray(source.at(at, 10))
    width, height = struct.unpack_from("<HH", descriptor, 5)
    if not 0 < width * height <= rules.max_pixels * 1e6:
        raise Unclean("a frame of it has a size that is not allowed")
    colours = gif_colours(descriptor[9])
    screen = struct.pack("<6sHHBBB", b"GIF89a", width, height, 0xF7, 0, 0)
    palette = bytes(value for index in range(256) for value in (index, 0, 0))
    place = struct.pack("<BHHHHB", ord(","), 0, 0, width, height, descriptor[9] & 0x40)
    alone = screen + palette + place + source.at(at + 10 + colours, end - at - 10 - colours) + b";"
    with GifImagePlugin.GifImageFile(io.BytesIO(alone)) as image:
        image.load()
        indices = image.tobytes()
        if image.mode != "P" or len(indices) != width * height:
            raise Unclean("a frame of it is malformed")
    packed = io.BytesIO()
    Image.frombytes("L", (width, height), indices).save(packed, "GIF", optimize=False, interlace=False)
    descriptor[9] &= ~0x40  # not interlaced any more
    yield bytes(descriptor) + source.at(at + 10, colours) + _gif_data(Source(packed))


def _gif_data(source: Source) -> bytes:
    """The compressed data of a GIF's first image."""
    at = 13 + gif_colours(source.at(10, 1)[0])
    while source.at(at, 1) == b"!":
        at = after_blocks(source, at + 2)
    start = at + 10 + gif_colours(source.at(at + 9, 1)[0])
    return source.at(start, after_blocks(source, start + 1) - start)


def _tiff(old: BinaryIO, new: BinaryIO, rules: Rules) -> None:
    """Every page, deflated; turned upright by Pillow where an orientation said so."""
    with TiffImagePlugin.TiffImageFile(old) as image, TiffImagePlugin.AppendingTiffWriter(new) as pages:
        for number in range(image.n_frames):
            image.seek(number)
            _refuse_if_large(image, rules)
            bits = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
            if len(bits) > 1 and max(bits) > 8:
                raise Unclean("it has more than 8 bits a channel, which Pillow does not keep")
            more = _kept(image, "icc_profile", "dpi")
            page = image.copy()
            page.info.clear()
            page.save(pages, "TIFF", compression="tiff_adobe_deflate", **more)
            pages.newFrame()


def _bmp(old: BinaryIO, new: BinaryIO, rules: Rules) -> None:
    with BmpImagePlugin.BmpImageFile(old) as image:
        _refuse_if_large(image, rules)
        image.load()
        if image.mode == "RGBA":
            new.write(_bmp_with_alpha(image))
        else:
            image.save(new, "BMP", **_kept(image, "dpi"))


def _bmp_with_alpha(image: Image.Image) -> bytes:
    """BITMAPV4HEADER with bit fields; Pillow would write one whose alpha channel readers ignore."""
    pixels = image.tobytes("raw", "BGRA", 0, -1)
    size, masks = 14 + 108, (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    head = struct.pack("<2sIII", b"BM", size + len(pixels), 0, size)
    info = struct.pack(
        "<IiiHHIIiiII", 108, image.width, image.height, 1, 32, 3, len(pixels), 3780, 3780, 0, 0
    )
    return head + info + struct.pack("<4I4s48x", *masks, b"BGRs") + pixels


def _kept(image: Image.Image, *names: str) -> dict[str, Any]:
    return {name: image.info[name] for name in names if image.info.get(name)}


def _refuse_if_large(image: Image.Image, rules: Rules) -> None:
    if image.width * image.height > rules.max_pixels * 1e6:
        raise Unclean("it is larger than is allowed")


def _in_memory(encode: Encoder) -> Encoder:
    """Pillow's errors as ours, and none of them mistaken for the disk's: it encodes into memory first."""

    def encoder(old: BinaryIO, new: BinaryIO, rules: Rules) -> None:
        encoded = io.BytesIO()
        try:
            encode(old, encoded, rules)
        except Unclean:
            raise
        except MemoryError:
            raise Unclean("there is not enough memory for it") from None
        except Exception as error:  # its decoders raise whatever comes
            raise Unclean(f"it cannot be decoded: {error}") from error
        new.write(encoded.getbuffer())

    return encoder


ENCODERS: dict[str, Encoder] = {
    "image/png": encode_png,
    "image/jpeg": _in_memory(_jpeg),
    "image/webp": _in_memory(_webp),
    "image/gif": _in_memory(_gif),
    "image/tiff": _in_memory(_tiff),
    "image/bmp": _in_memory(_bmp),
}
"""by content type: (what it was, where to write it, the rules) -> None; raises Unclean"""
