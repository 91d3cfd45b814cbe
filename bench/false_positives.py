"""How many ordinary pictures the file checks refuse: 0 is right. Generated ones, made with random settings of as many
encoders as are installed, and those that came with this machine's software; and the same by the peer's rule, which
looks for words in a file's raw bytes. Each refusal is printed; the exit status is 1 if the checks refused any.

Shipped files count where their extension is on the allowed map, and Pillow, which is asked first, opens them as that
type: a package's PNG that is an SVG, or cut on purpose for a test, is no ordinary picture. What was left out for that
is printed too.
"""

from __future__ import annotations

import argparse
import io
import random
import site
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from bench.common import machine, table
from bridged.config.schema import Files
from bridged.errors import FileRefused
from bridged.files.verify import verify
from tests.corpus import forms
from tests.corpus.benign_encoders import ffmpeg_picture
from tests.corpus.benign_stills import exif, icc
from tests.corpus.benign_words import PROMPTS, graph
from tests.corpus.case import library
from tests.corpus.seeds import Pixels, pillow, scene

WORDS = (b"import ", b"eval(", b"<script", b"<?php")
"""the peer's rule: none of these in the raw bytes, upper or lower case"""

TYPES = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".gif": "GIF", ".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF",
    ".tiff": "TIFF",
}  # fmt: skip
Picture = tuple[str, str, bytes]
"""encoder, extension, content"""


def picture(chance: random.Random, channels: int = 3) -> Pixels:
    """Photo-like, noise, flat or a drawing, of 1 to 220 pixels a side."""
    width, height = (int(2 ** chance.uniform(0, 7.8)) for _ in range(2))
    seed = chance.getrandbits(32)
    match chance.randrange(4):
        case 0:
            return scene(width, height, seed, channels, noise=chance.choice([0.0, 2.0, 8.0, 60.0]))
        case 1:
            pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
        case 2:
            pixels = np.full((height, width, channels), chance.randrange(256), np.uint8)
        case _:
            letters = np.frombuffer(b" abcdefghijklmnoprstuvw()<>?%=\n", np.uint8)
            pixels = letters[np.random.default_rng(seed).integers(0, len(letters), (height, width, channels))]
    return pixels[..., 0] if channels == 1 else pixels


def from_pillow(chance: random.Random) -> Picture:
    extension = chance.choice([".png", ".jpg", ".gif", ".webp", ".bmp", ".tif"])
    image = Image.fromarray(picture(chance))
    options: dict[str, Any] = {}
    if chance.random() < 0.3 and extension != ".bmp":
        options["icc_profile"] = icc()
    if chance.random() < 0.3 and extension not in (".bmp", ".gif"):
        options["exif"] = exif(gps=chance.random() < 0.5)
    match extension:
        case ".png":
            image = image.convert(chance.choice(["1", "L", "LA", "P", "RGB", "RGBA"]))
            options |= {"compress_level": chance.randrange(10), "optimize": chance.random() < 0.2}
            if chance.random() < 0.4:
                options["pnginfo"] = _comfyui(chance)
        case ".jpg":
            image = image.convert(chance.choice(["L", "RGB", "CMYK"]))
            options |= {"quality": chance.randint(1, 100), "progressive": chance.random() < 0.4}
            options |= {"restart_marker_blocks": chance.choice([0, 0, 1, 7]), "optimize": chance.random() < 0.5}
        case ".gif":
            image = image.convert(chance.choice(["1", "L", "P"]))
            options |= {"interlace": chance.randrange(2), "comment": chance.choice([b"", b"import this", b"<3"])}
            if chance.random() < 0.3:
                options |= {"save_all": True, "append_images": [image.rotate(90), image.rotate(180)], "loop": 0}
        case ".webp":
            image = image.convert(chance.choice(["L", "RGB", "RGBA"]))
            options |= {
                "quality": chance.randrange(101),
                "lossless": chance.random() < 0.4,
                "method": chance.randrange(4),
            }
        case ".bmp":
            image = image.convert(chance.choice(["1", "L", "P", "RGB", "RGBA"]))
        case _:
            image = image.convert(chance.choice(["L", "P", "RGB", "RGBA", "CMYK", "F"]))
            options["compression"] = chance.choice([None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
    return "Pillow", extension, pillow(image, TYPES[extension], **options)


def _comfyui(chance: random.Random) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for key, text in zip(("prompt", "workflow"), graph(chance.choice(list(PROMPTS.values()))), strict=True):
        info.add_text(key, text, zip=chance.random() < 0.2)
    return info


def from_opencv(chance: random.Random) -> Picture:
    cv = library("cv2")
    extension = chance.choice([".png", ".jpg", ".webp", ".bmp", ".tif"])
    pixels: Any = picture(chance, chance.choice([1, 3] if extension == ".jpg" else [1, 3, 4]))
    options: list[int] = []
    match extension:
        case ".png":
            options = [cv.IMWRITE_PNG_COMPRESSION, chance.randrange(10), cv.IMWRITE_PNG_STRATEGY, chance.randrange(5)]
            if chance.random() < 0.2:
                pixels = pixels.astype(np.uint16) * 257
        case ".jpg":
            options = [
                cv.IMWRITE_JPEG_QUALITY,
                chance.randint(1, 100),
                cv.IMWRITE_JPEG_PROGRESSIVE,
                chance.randrange(2),
            ]
        case ".webp":
            options = [cv.IMWRITE_WEBP_QUALITY, chance.randint(1, 101)]
        case ".tif":
            options = [cv.IMWRITE_TIFF_COMPRESSION, chance.choice([1, 5, 8, 32773])]
    done, data = cv.imencode(extension, pixels, options)
    assert done
    return "OpenCV", extension, data.tobytes()


def from_pypng(chance: random.Random) -> Picture:
    png = library("png")
    grey = picture(chance, 1)
    body = io.BytesIO()
    bits = chance.choice([1, 2, 4, 8])
    colours = [(chance.randrange(256), n, n) for n in range(1 << bits)] if chance.random() < 0.5 else None
    kind: dict[str, Any] = {"palette": colours} if colours else {"greyscale": True}
    height, width = grey.shape
    writer = png.Writer(width, height, bitdepth=bits, compression=chance.randrange(10), **kind)
    writer.write(body, (grey >> (8 - bits)).tolist())
    return "pypng", ".png", body.getvalue()


def from_tifffile(chance: random.Random) -> Picture:
    tiff = library("tifffile")
    pixels = picture(chance, 3)
    body = io.BytesIO()
    options: dict[str, Any] = {"compression": chance.choice([None, "zlib", "lzw", "packbits"]), "photometric": "rgb"}
    if chance.random() < 0.4:
        options["tile"] = (16 * chance.randint(1, 4), 16 * chance.randint(1, 4))
    elif chance.random() < 0.5:
        options["rowsperstrip"] = chance.randint(1, pixels.shape[0])
    order = chance.choice("<>")
    big = order == "<" and chance.random() < 0.3  # Pillow cannot read big-endian BigTIFF
    with tiff.TiffWriter(body, byteorder=order, bigtiff=big) as out:
        if chance.random() < 0.3 and options["compression"] is None:
            out.write(np.stack([pixels] * 3), **options)  # one series: its pages lie side by side
        else:
            for _ in range(chance.choice([1, 1, 3])):
                out.write(pixels, contiguous=False, **options)
    return "tifffile", ".tif", body.getvalue()


def from_imagecodecs(chance: random.Random) -> Picture:
    codecs = library("imagecodecs")
    pixels = picture(chance, chance.choice([1, 3]))
    match chance.randrange(5):
        case 0:
            return "imagecodecs", ".png", bytes(codecs.png_encode(pixels, level=chance.randrange(10)))
        case 1:
            return "imagecodecs", ".jpg", bytes(codecs.jpeg8_encode(pixels, level=chance.randint(1, 100)))
        case 2:
            return "imagecodecs", ".webp", bytes(codecs.webp_encode(picture(chance, 3), level=chance.randint(1, 100)))
        case 3:
            return "imagecodecs", ".gif", bytes(codecs.gif_encode(picture(chance, 1)))
    return "imagecodecs", ".bmp", bytes(codecs.bmp_encode(pixels))


def from_ffmpeg(chance: random.Random) -> Picture:
    extension, codec, formats = chance.choice(
        [
            (".png", "png", ["rgb24", "gray", "rgba", "rgb48be"]),
            (".jpg", "mjpeg", ["yuvj420p", "yuvj444p"]),
            (".bmp", "bmp", ["bgr24", "bgra", "gray"]),
            (".tif", "tiff", ["rgb24", "gray", "rgba"]),
        ]
    )
    return "ffmpeg", extension, ffmpeg_picture(codec, chance.choice(formats), picture(chance, 3), {})


def from_imageio(chance: random.Random) -> Picture:
    extension = chance.choice([".png", ".jpg", ".gif", ".bmp", ".tif"])
    return "imageio", extension, library("imageio.v3").imwrite("<bytes>", picture(chance), extension=extension)


def from_segno(chance: random.Random) -> Picture:
    body = io.BytesIO()
    text = "".join(chance.choices("abcdefgh import eval(<>", k=chance.randint(1, 200)))
    library("segno").make(text).save(body, kind="png", scale=chance.randint(1, 6), border=chance.randrange(5))
    return "segno", ".png", body.getvalue()


def by_hand(chance: random.Random) -> Picture:
    """Uncompressed, with words in the pixels."""
    width, height = chance.randint(8, 120), chance.randint(24, 120)
    pixels = bytearray(chance.randbytes(width * 4 * height * 3))
    for word in chance.sample(WORDS, 3):
        at = chance.randrange(1500, len(pixels) - 20)
        pixels[at : at + len(word)] = word
    match chance.randrange(3):
        case 0:
            return "by hand", ".bmp", forms.bmp_of(width * 4, height, bytes(pixels))
        case 1:
            row = width * 12
            rows = b"".join(b"\0" + pixels[y * row : y * row + row] for y in range(height))
            return "by hand", ".png", forms.png_of(forms.png_header(width * 4, height, 8, 2), rows, level=0)
    grey = forms.tiff_grey(width * 12, height, len(pixels))
    return "by hand", ".tif", forms.tiff_of(grey, bytes(pixels))


MAKERS: list[Callable[[random.Random], Picture]] = [
    from_pillow, from_pillow, from_opencv, from_pypng, from_tifffile, from_imagecodecs, from_ffmpeg, from_imageio,
    from_segno, by_hand,
]  # fmt: skip


def generated(count: int, seed: int) -> Iterator[Picture]:
    chance = random.Random(seed)
    missing: set[str] = set()
    made = 0
    while made < count:
        make = chance.choice(MAKERS)
        try:
            yield make(random.Random(chance.getrandbits(64)))
            made += 1
        except (ImportError, RuntimeError) as error:  # not installed; or it cannot encode this picture
            if make.__name__ not in missing:
                missing.add(make.__name__)
                print(f"left out: {make.__name__} ({error})")


def shipped(folders: list[Path]) -> Iterator[tuple[Path, Picture]]:
    """Files of at most 20 MB, each content once; those that Pillow opens as what they are named."""
    seen: set[bytes] = set()
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            extension = path.suffix.lower()
            if extension not in TYPES or not path.is_file() or path.stat().st_size > 20_000_000:
                continue
            data = path.read_bytes()
            if data in seen:
                continue
            seen.add(data)
            try:
                with Image.open(io.BytesIO(data)) as image:
                    image.load()
                    right = image.format in (TYPES[extension], "MPO" if extension in (".jpg", ".jpeg") else "")
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
                right = False
            if right:
                yield path, ("shipped", extension, data)
            else:
                print(f"left out: {path} is not what it is named, or damaged")


class Tally:
    def __init__(self) -> None:
        self.seen: Counter[tuple[str, str]] = Counter()
        self.refused: Counter[tuple[str, str]] = Counter()
        self.peer: Counter[tuple[str, str]] = Counter()
        self.seconds = 0.0
        self.bytes = 0

    def add(self, made: Picture, rules: Files, what: str) -> None:
        encoder, extension, data = made
        key = encoder, extension
        self.seen[key] += 1
        self.bytes += len(data)
        began = time.perf_counter()
        try:
            verify(data, f"picture{extension}", rules=rules)
        except FileRefused as error:
            self.refused[key] += 1
            print(f"REFUSED {what} ({encoder} {extension}, {len(data)} bytes): {error}")
        self.seconds += time.perf_counter() - began
        lower = data.lower()
        self.peer[key] += any(word in lower for word in WORDS)

    def show(self) -> None:
        rows: list[list[object]] = []
        for encoder in sorted({name for name, _ in self.seen}):
            kinds = sorted(kind for name, kind in self.seen if name == encoder)
            rows += [[f"{encoder} {k}", *(c[encoder, k] for c in (self.seen, self.refused, self.peer))] for k in kinds]
        totals = [self.seen.total(), self.refused.total(), self.peer.total()]
        table(["pictures", "checked", "refused", "peer's rule refuses"], [*rows, ["all", *totals]])
        checked, refused, peer = totals
        spelling = sum(count for (encoder, _), count in self.seen.items() if encoder == "by hand")
        print(f"false positives: {refused}/{checked} = {refused / checked:.4%}")
        print(
            f"the peer's rule: {peer}/{checked} = {peer / checked:.2%}; {(peer - spelling) / (checked - spelling):.2%}"
            f" without the {spelling} by hand, whose pixels were made to spell what it looks for"
        )
        print(f"{1e3 * self.seconds / checked:.2f} ms and {self.bytes / checked / 1e3:.1f} kB a picture")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000, help="pictures to generate (5000)")
    parser.add_argument("--seed", type=int, default=1)
    default = [Path("/usr/share"), *map(Path, site.getsitepackages()), Path(sys.prefix)]
    parser.add_argument("--folder", type=Path, action="append", help="where to look for shipped ones, and below")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    print(machine())
    rules, tally = Files(), Tally()
    for number, made in enumerate(generated(arguments.count, arguments.seed)):
        tally.add(made, rules, f"number {number} of seed {arguments.seed}")
    for path, found in shipped(arguments.folder or default):
        tally.add(found, rules, str(path))
    tally.show()
    return 1 if tally.refused else 0


if __name__ == "__main__":
    sys.exit(main())
