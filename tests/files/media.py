"""Real sound and video with a secret in their metadata, made by FFmpeg's libraries as ComfyUI makes them (PyAV), and
what is heard and seen in such a file."""

from __future__ import annotations

import hashlib
import io
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np

SECRET = "the secret prompt of 51.5007N 0.1246W"
GRAPH = (
    '{"3": {"class_type": "KSampler", "inputs": {"text": "' + SECRET + '"}}, "pad": "' + "x" * 70_000 + '"}'
)
"""longer than a page or a segment of any format"""

RATE = 48000

TAGS = {
    "prompt": GRAPH,
    "workflow": GRAPH,
    "title": SECRET,
    "comment": SECRET,
    "location": "+51.5007-000.1246/",
}


def sound(form: str, codec: str, tags: dict[str, str] = TAGS, **options: str) -> bytes:
    """Half a second of a chord, stereo."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made"
        with av.open(str(path), "w", format=form, options=options) as container:
            container.metadata.update(tags)
            _add_sound(container, _sound_stream(container, codec))
        return path.read_bytes()


def video(form: str, codec: str, audio: str = "", tags: dict[str, str] = TAGS, **options: str) -> bytes:
    """Twelve frames of 64 x 48, moving; with sound where `audio` names a codec."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made"
        with av.open(str(path), "w", format=form, options=options) as container:
            container.metadata.update(tags)
            stream: Any = container.add_stream(codec, rate=12)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.metadata["title"] = SECRET
            heard = _sound_stream(container, audio) if audio else None
            for number in range(12):
                picture = np.zeros((48, 64, 3), np.uint8)
                picture[:, number * 5 : number * 5 + 8] = (250, number * 20, 90)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 12)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
            if heard is not None:
                _add_sound(container, heard)
        return path.read_bytes()


def _sound_stream(container: Any, codec: str) -> Any:
    return container.add_stream(codec, rate=RATE, layout="stereo", options={"strict": "experimental"})


def _add_sound(container: Any, stream: Any) -> None:
    times = np.arange(RATE // 2) / RATE
    wave = np.stack([np.sin(times * 2764) * 0.4, np.sin(times * 4147) * 0.3]).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def heard_and_seen(content: Path | bytes) -> list[tuple[Any, ...]]:
    """Every decoded frame of every stream: what it is of, when it is shown, and a digest of it."""
    found: list[tuple[Any, ...]] = []
    with av.open(io.BytesIO(content) if isinstance(content, bytes) else str(content), "r") as container:
        for decoded in container.decode():
            frame = cast("Any", decoded)
            digest = hashlib.sha256(frame.to_ndarray().tobytes()).hexdigest()
            found.append((type(frame).__name__, frame.pts, frame.time_base, digest))
    assert found
    return found


def described(content: bytes) -> dict[str, str]:
    """Every tag a player would show, of the container and of its streams."""
    with av.open(io.BytesIO(content)) as container:
        tags = dict(container.metadata)
        for stream in container.streams:
            tags |= {f"{stream.index}.{key}": value for key, value in stream.metadata.items()}
    return tags
