"""Ordinary pictures out of the encoders that are not Pillow's, each imported only when its turn comes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from tests.corpus.case import Case, library, mime
from tests.corpus.seeds import Pixels, scene


def _case(encoder: str, extension: str, label: str, data: bytes) -> Case:
    name = f"picture{extension}"
    return Case(f"{encoder} {extension} {label}", name, bytes(data), mime(name), label, encoder=encoder)


def opencv() -> Iterator[Case]:
    cv = library("cv2")
    photo, grey, alpha = scene(40, 30), scene(40, 30, 2, 1), scene(40, 30, 4, 4)
    deep = photo.astype(np.uint16) * 257
    jobs: list[tuple[str, str, Any, list[int]]] = [
        (".png", "RGB", photo, []),
        (".png", "grey", grey, []),
        (".png", "alpha", alpha, []),
        (".png", "16 bits", deep, []),
        (".png", "bilevel", (grey > 128).astype(np.uint8) * 255, [cv.IMWRITE_PNG_BILEVEL, 1]),
        *((".png", f"level {n}", photo, [cv.IMWRITE_PNG_COMPRESSION, n]) for n in (0, 3, 9)),
        *((".png", f"strategy {n}", photo, [cv.IMWRITE_PNG_STRATEGY, n]) for n in range(5)),
        *((".jpg", f"quality {n}", photo, [cv.IMWRITE_JPEG_QUALITY, n]) for n in (5, 60, 100)),
        (".jpg", "grey", grey, []),
        (".jpg", "progressive", photo, [cv.IMWRITE_JPEG_PROGRESSIVE, 1]),
        (".jpg", "optimized", photo, [cv.IMWRITE_JPEG_OPTIMIZE, 1]),
        (".jpg", "restart intervals", photo, [cv.IMWRITE_JPEG_RST_INTERVAL, 3]),
        (".jpg", "4:4:4", photo, [cv.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]),
        *((".webp", f"quality {n}", photo, [cv.IMWRITE_WEBP_QUALITY, n]) for n in (1, 80, 101)),
        (".webp", "alpha", alpha, []),
        (".bmp", "RGB", photo, []),
        (".bmp", "grey", grey, []),
        (".bmp", "alpha", alpha, []),
        *((".tif", f"compression {n}", photo, [cv.IMWRITE_TIFF_COMPRESSION, n]) for n in (1, 5, 8, 32773)),
        (".tif", "grey", grey, []),
        (".tif", "16 bits", deep[..., 0], []),
        (".tif", "floats", grey.astype(np.float32), []),
        (".gif", "RGB", photo, []),
    ]
    for extension, label, pixels, options in jobs:
        done, data = cv.imencode(extension, pixels, options)
        if done:
            yield _case("OpenCV", extension, label, data.tobytes())


def pypng() -> Iterator[Case]:
    png = library("png")

    def write(label: str, rows: Any, width: int = 24, height: int = 16, **options: Any) -> Case:
        body = io.BytesIO()
        png.Writer(width, height, **options).write(body, rows)
        return _case("pypng", ".png", label, body.getvalue())

    grey, photo = scene(channels=1), scene()
    for bits in (1, 2, 4, 8):
        yield write(f"grey, {bits} bits", (grey >> (8 - bits)).tolist(), greyscale=True, bitdepth=bits)
    for bits in (1, 2, 4, 8):
        colours = [(n * 37 % 256, n * 11 % 256, n) for n in range(1 << bits)]
        yield write(f"palette, {bits} bits", (grey >> (8 - bits)).tolist(), palette=colours, bitdepth=bits)
    yield write("palette, alpha", (grey >> 6).tolist(), palette=[(1, 2, 3, 99)] * 4, bitdepth=2)
    flat = photo.reshape(16, -1)
    yield write("RGB", flat.tolist(), greyscale=False)
    yield write("RGB, 16 bits", (flat.astype(int) * 257).tolist(), greyscale=False, bitdepth=16)
    yield write("grey, 16 bits", (grey.astype(int) * 257).tolist(), greyscale=True, bitdepth=16)
    yield write("RGBA", scene(channels=4).reshape(16, -1).tolist(), greyscale=False, alpha=True)
    yield write("grey, alpha", scene(channels=2).reshape(16, -1).tolist(), greyscale=True, alpha=True)
    yield write("transparent colour", flat.tolist(), greyscale=False, transparent=(1, 2, 3))
    yield write("background", flat.tolist(), greyscale=False, background=(1, 2, 3))
    yield write("gamma", flat.tolist(), greyscale=False, gamma=0.45455)
    yield write("small chunks", flat.tolist(), greyscale=False, chunk_limit=16)
    yield write("no compression", flat.tolist(), greyscale=False, compression=0)
    yield write("physical size", flat.tolist(), greyscale=False, x_pixels_per_unit=99, y_pixels_per_unit=99)
    interlaced = png.Writer(24, 16, greyscale=True, interlace=True)
    body = io.BytesIO()
    interlaced.write_array(body, grey.flatten().tolist())
    yield _case("pypng", ".png", "interlaced", body.getvalue())


def tifffile() -> Iterator[Case]:
    tiff = library("tifffile")

    def write(label: str, pixels: Any, **options: Any) -> Case:
        body = io.BytesIO()
        head = {key: options.pop(key) for key in ("bigtiff", "byteorder", "imagej", "ome") if key in options}
        with tiff.TiffWriter(body, **head) as out:
            out.write(pixels, **options)
        return _case("tifffile", ".tif", label, body.getvalue())

    photo, grey = scene(64, 48), scene(64, 48, 2, 1)
    rgb: dict[str, Any] = {"photometric": "rgb"}
    yield write("RGB", photo, **rgb)
    yield write("grey", grey)
    yield write("big-endian", photo, byteorder=">", **rgb)
    yield write("BigTIFF", photo, bigtiff=True, **rgb)
    yield write("tiles of 16", photo, tile=(16, 16), **rgb)
    yield write("one row a strip", photo, rowsperstrip=1, **rgb)
    yield write("16 bits", grey.astype(np.uint16) * 257)
    yield write("16 bits, big-endian", grey.astype(np.uint16) * 257, byteorder=">")
    yield write("RGB, 16 bits", photo.astype(np.uint16) * 257, **rgb)
    yield write("floats", grey.astype(np.float32))
    yield write("32 bits", grey.astype(np.int32))
    yield write("alpha", scene(64, 48, 2, 4), extrasamples=["unassalpha"], **rgb)
    yield write("white is zero", grey, photometric="miniswhite")
    yield write("bilevel", grey > 128, photometric="minisblack")
    yield write("four pages", np.stack([grey] * 4), photometric="minisblack")
    yield write("ImageJ", np.stack([grey] * 3), imagej=True)
    yield write("OME", np.stack([grey] * 3), ome=True, photometric="minisblack")
    yield write("description", photo, description="봄 산책 <3".encode(), **rgb)
    yield write("resolution", photo, resolution=(300, 300), **rgb)
    for compression in ("zlib", "lzw", "packbits", "lzma", "zstd"):
        yield write(compression, photo, compression=compression, **rgb)
    for compression in ("zlib", "lzw"):
        yield write(f"{compression}, predictor", photo, compression=compression, predictor=True, **rgb)
    yield write("JPEG inside, tiled", photo, compression="jpeg", tile=(16, 16), **rgb)


def imagecodecs() -> Iterator[Case]:
    codecs = library("imagecodecs")
    photo, grey, alpha = scene(40, 30), scene(40, 30, 2, 1), scene(40, 30, 4, 4)
    deep = photo.astype(np.uint16) * 257
    jobs: list[tuple[str, str, Callable[[], bytes]]] = [
        *((".png", f"level {n}", lambda n=n: codecs.png_encode(photo, level=n)) for n in (0, 1, 5, 9)),
        (".png", "grey", lambda: codecs.png_encode(grey)),
        (".png", "alpha", lambda: codecs.png_encode(alpha)),
        (".png", "16 bits", lambda: codecs.png_encode(deep)),
        (".png", "spng", lambda: codecs.spng_encode(photo)),
        (".png", "spng, 16 bits", lambda: codecs.spng_encode(deep)),
        (".png", "APNG", lambda: codecs.apng_encode(np.stack([photo] * 3))),
        (".png", "APNG, delay", lambda: codecs.apng_encode(np.stack([alpha, alpha[::-1]]), delay=100)),
        *((".jpg", f"quality {n}", lambda n=n: codecs.jpeg8_encode(photo, level=n)) for n in (10, 75, 100)),
        (".jpg", "grey", lambda: codecs.jpeg8_encode(grey)),
        (".jpg", "4:4:4", lambda: codecs.jpeg8_encode(photo, subsampling="444")),
        (".jpg", "optimized", lambda: codecs.jpeg8_encode(photo, optimize=True)),
        (".jpg", "mozjpeg", lambda: codecs.mozjpeg_encode(photo)),
        (".webp", "lossless", lambda: codecs.webp_encode(photo, lossless=True)),
        *((".webp", f"quality {n}", lambda n=n: codecs.webp_encode(photo, level=n)) for n in (10, 80)),
        (".webp", "alpha", lambda: codecs.webp_encode(alpha, level=80)),
        (".gif", "grey", lambda: codecs.gif_encode(grey)),
        (".gif", "animation", lambda: codecs.gif_encode(np.stack([grey, grey[::-1]]))),
        (".bmp", "RGB", lambda: codecs.bmp_encode(photo)),
        (".bmp", "grey", lambda: codecs.bmp_encode(grey)),
        (".bmp", "ppm", lambda: codecs.bmp_encode(photo, ppm=3000)),
    ]
    for extension, label, encode in jobs:
        try:
            data = encode()
        except codecs.DelayedImportError:  # a codec that this build of it leaves out
            continue
        yield _case("imagecodecs", extension, label, data)


def imageio() -> Iterator[Case]:
    iio = library("imageio.v3")
    photo = scene(40, 30)
    for extension in (".png", ".jpg", ".gif", ".webp", ".bmp", ".tif"):
        yield _case("imageio", extension, "default", iio.imwrite("<bytes>", photo, extension=extension))
    frames = np.stack([photo, photo[::-1], photo[:, ::-1]])
    for extension in (".gif", ".webp", ".tif"):
        yield _case("imageio", extension, "frames", iio.imwrite("<bytes>", frames, extension=extension))
    yield _case("imageio", ".jpg", "quality", iio.imwrite("<bytes>", photo, extension=".jpg", quality=30))
    yield _case("imageio", ".png", "16 bits", iio.imwrite("<bytes>", scene(channels=1).astype("u2"), extension=".png"))


def segno() -> Iterator[Case]:
    codes = library("segno")
    for label, text, options in (
        ("black on white", "https://example.org", {}),
        ("coloured", "봄", {"dark": "darkred", "light": "lightblue"}),
        ("transparent", "hello", {"light": None}),
        ("large", "x" * 500, {"scale": 5}),
        ("dpi", "hello", {"dpi": 300}),
        ("many colours", "hello", {"dark": "#123", "data_dark": "#456", "finder_dark": "#789a"}),
    ):
        body = io.BytesIO()
        codes.make(text).save(body, kind="png", **options)
        yield _case("segno", ".png", label, body.getvalue())


def ffmpeg() -> Iterator[Case]:
    """ffmpeg's own picture encoders, as a frame grabbed from a film comes out."""
    jobs: list[tuple[str, str, str, dict[str, str]]] = [
        (".png", "png", "rgb24", {}),
        (".png", "png", "gray", {}),
        (".png", "png", "rgba", {}),
        (".png", "png", "rgb48be", {}),
        (".png", "png", "monob", {}),
        (".png", "png", "rgb24", {"pred": "mixed", "dpi": "300"}),
        (".jpg", "mjpeg", "yuvj420p", {}),
        (".jpg", "mjpeg", "yuvj444p", {"huffman": "default"}),
        (".bmp", "bmp", "bgr24", {}),
        (".bmp", "bmp", "bgra", {}),
        (".bmp", "bmp", "rgb565le", {}),
        (".bmp", "bmp", "gray", {}),
        (".tif", "tiff", "rgb24", {}),
        (".tif", "tiff", "gray", {"compression_algo": "lzw"}),
        (".tif", "tiff", "rgba", {"compression_algo": "deflate"}),
        (".tif", "tiff", "rgb24", {"compression_algo": "raw"}),
        (".webp", "libwebp", "yuv420p", {"lossless": "0"}),
        (".webp", "libwebp", "bgra", {"lossless": "1"}),
    ]
    for extension, codec, pixels, options in jobs:
        data = ffmpeg_picture(codec, pixels, scene(48, 32), options)
        yield _case("ffmpeg", extension, f"{pixels} {' '.join(options.values())}".strip(), data)


def ffmpeg_picture(codec: str, form: str, pixels: Pixels, options: dict[str, str]) -> bytes:
    """`pixels`: RGB; `form`: ffmpeg's name of the pixel format to encode."""
    av = library("av")
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=form)
    context = av.codec.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = frame.width, frame.height, form
    context.time_base, context.options = Fraction(1, 25), options
    context.thread_count = 1
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])
