"""One small, valid file of each allowed type: what hostile cases are made from, and scenes for benign ones."""

from __future__ import annotations

import functools
import io
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.corpus.case import library

Pixels = NDArray[np.uint8]


def scene(width: int = 24, height: int = 16, seed: int = 1, channels: int = 3, noise: float = 8.0) -> Pixels:
    """Something like a photo: soft light, an edge, and a sensor's noise. Shape (height, width[, channels])."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    planes = []
    for _ in range(channels):
        a, b, c = generator.uniform(0.02, 0.4, 3)
        plane = 128 + 60 * np.sin(a * x + c) * np.cos(b * y) + 50 * (x * a + y * b > (width * a + height * b) / 2)
        planes.append(plane + generator.normal(0, noise, plane.shape))
    stacked = np.stack(planes, axis=-1).clip(0, 255).astype(np.uint8)
    return stacked[..., 0] if channels == 1 else stacked


def pillow(image: Image.Image, form: str, **options: Any) -> bytes:
    body = io.BytesIO()
    image.save(body, form, **options)
    return body.getvalue()


def tone(seconds: float = 0.3, rate: int = 44100, channels: int = 1, pitch: float = 440.0) -> NDArray[np.float32]:
    """Samples of shape (frames, channels), within -0.5 to 0.5."""
    time = np.arange(int(seconds * rate)) / rate
    wave = 0.5 * np.sin(2 * math.pi * pitch * time)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


@contextmanager
def _file(
    av: Any, form: str, tags: dict[str, str] | None, container: dict[str, str] | None
) -> Iterator[tuple[io.BytesIO, Any]]:
    """A file to be written on disk, since some muxers read it again at the end; then its bytes."""
    body = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        options = {"fflags": "+bitexact"} | (container or {})
        with av.open(str(path), "w", format=form, container_options=options) as out:
            out.metadata.update(tags or {})
            yield body, out
        body.write(path.read_bytes())


def audio(
    form: str,
    codec: str,
    *,
    rate: int = 44100,
    layout: str = "mono",
    seconds: float = 0.3,
    tags: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    **options: str,
) -> bytes:
    """Through ffmpeg (PyAV)."""
    av = library("av")
    with _file(av, form, tags, container) as (body, out):
        stream = out.add_stream(codec, rate=rate, options=options)
        stream.codec_context.layout = layout
        _encode_tone(av, out, stream, rate, layout, seconds)
    return body.getvalue()


def _encode_tone(av: Any, out: Any, stream: Any, rate: int, layout: str, seconds: float) -> None:
    if not stream.codec_context.is_open:
        stream.codec_context.open()
    wanted = stream.codec_context.format.name
    samples = tone(seconds, rate, av.AudioLayout(layout).nb_channels)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=layout)
    frame.sample_rate = rate
    frame.pts = 0
    frame.time_base = Fraction(1, rate)
    size = stream.codec_context.frame_size or 1024
    resampler = av.AudioResampler(format=wanted, layout=layout, rate=rate, frame_size=size)
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        out.mux(stream.encode(piece))
    out.mux(stream.encode(None))


def video(
    form: str,
    codec: str,
    *,
    width: int = 64,
    height: int = 48,
    frames: int = 6,
    pixels: str = "yuv420p",
    rate: int = 12,
    sound: str = "",
    tags: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    **options: str,
) -> bytes:
    """Through ffmpeg (PyAV). `sound`: an audio codec, for a second stream."""
    av = library("av")
    with _file(av, form, tags, container) as (body, out):
        stream = out.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.codec_context.thread_count = 1
        second = None
        if sound:
            second = out.add_stream(sound, rate=48000)
            second.codec_context.layout = "stereo"
        for number in range(frames):
            picture = av.VideoFrame.from_ndarray(scene(width, height, 1) + np.uint8(number * 5 % 256), format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, rate)
            out.mux(stream.encode(picture.reformat(format=pixels)))
        out.mux(stream.encode(None))
        if second is not None:
            _encode_tone(av, out, second, 48000, "stereo", frames / rate)
    return body.getvalue()


@functools.cache
def seed(extension: str, comment: str = "") -> bytes:
    """A valid file of that type; `comment` goes into its metadata (audio and video only)."""
    image = Image.fromarray(scene())
    tags = {"comment": comment} if comment else {}
    match extension:
        case ".png":
            return pillow(image, "PNG")
        case ".jpg":
            return pillow(image, "JPEG", quality=85)
        case ".gif":
            return pillow(image.quantize(32), "GIF")
        case ".webp":
            return pillow(image, "WEBP", quality=80)
        case ".bmp":
            return pillow(image, "BMP")
        case ".tif":
            return pillow(image, "TIFF")
        case ".mp4":
            return video("mp4", "libx264", tags=tags, preset="ultrafast")
        case ".mov":
            return video("mov", "libx264", tags=tags, preset="ultrafast")
        case ".webm":
            return video("webm", "libvpx", tags=tags, deadline="realtime")
        case ".mp3":
            return audio("mp3", "libmp3lame", tags=tags)
        case ".wav":
            return audio("wav", "pcm_s16le", tags=tags)
        case ".flac":
            return audio("flac", "flac", tags=tags)
        case ".ogg":
            return audio("ogg", "libopus", rate=48000, tags=tags)
    raise ValueError(f"no seed for {extension}")


EXTENSIONS = (
    ".png", ".jpg", ".gif", ".webp", ".bmp", ".tif", ".mp4", ".mov", ".webm", ".mp3", ".wav", ".flac", ".ogg",
)  # fmt: skip
IMAGES = EXTENSIONS[:6]
