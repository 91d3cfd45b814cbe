"""Pixel maths on batches of pictures.

Every picture batch is a float32 array of shape (batch, height, width, channels), values nominally 0 to 1. The
arithmetic follows what ComfyUI 0.3.64 does with PyTorch on the CPU, so that the 8-bit results differ by at
most one level per channel. Nothing here changes its arguments; an answer may share memory with them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

Picture: TypeAlias = npt.NDArray[np.float32]
Pixels: TypeAlias = npt.NDArray[np.uint8]
Check: TypeAlias = Callable[[], None]
"""Called now and then in long work; raises to stop it."""

MAX_PIXELS = 64 * 1024 * 1024
"""Pixels in one batch (768 MiB of float32 RGB): a request for more is refused rather than left to the
kernel's OOM killer."""

_BICUBIC_A = np.float32(-0.75)  # PyTorch's choice; Pillow's and most textbooks' is -0.5


def require_size(batch: int, height: int, width: int) -> None:
    """Raises ValueError when a batch of that shape is empty or above MAX_PIXELS."""
    if min(batch, height, width) < 1:
        raise ValueError(f"height and width must be > 0, not {width}x{height}")
    if batch * height * width > MAX_PIXELS:
        raise ValueError(
            f"{batch} x {width}x{height} is more than this worker's limit of {MAX_PIXELS} pixels"
        )


def to_pixels(picture: Picture) -> Pixels:
    """8-bit levels: scaled by 255, clipped, and truncated (not rounded), as ComfyUI saves pictures."""
    pixels: Pixels = np.clip(np.float32(255.0) * picture, 0, 255).astype(np.uint8)
    return pixels


def from_pixels(pixels: Pixels) -> Picture:
    return pixels.astype(np.float32) / np.float32(255.0)


def solid(batch: int, height: int, width: int, color: int) -> Picture:
    """One colour, 0xRRGGBB, everywhere."""
    require_size(batch, height, width)
    picture = np.empty((batch, height, width, 3), np.float32)
    picture[:] = [((color >> shift) & 0xFF) / 255 for shift in (16, 8, 0)]
    return picture


def resize(picture: Picture, width: int, height: int, method: str, crop: str = "disabled") -> Picture:
    """Resize to width x height pixels. `crop` "center" first cuts the middle part that has the new aspect
    ratio.

    Raises ValueError for an unknown method or a size that `require_size` refuses.
    """
    require_size(picture.shape[0], height, width)
    if crop == "center":
        picture = _center_crop(picture, width / height)
    if method == "lanczos":
        return _lanczos(picture, width, height)
    if method not in _AXIS_RESIZERS:
        raise ValueError(f"unknown upscale method: {method}")
    on_axis = _AXIS_RESIZERS[method]
    # The axis that shrinks most goes first, so that the second pass has less to do.
    if width * picture.shape[1] <= height * picture.shape[2]:
        return on_axis(on_axis(picture, 2, width), 1, height)
    return on_axis(on_axis(picture, 1, height), 2, width)


def _center_crop(picture: Picture, new_aspect: float) -> Picture:
    _, height, width, _ = picture.shape
    aspect = width / height
    x = y = 0
    if aspect > new_aspect:
        x = round((width - width * (new_aspect / aspect)) / 2)
    elif aspect < new_aspect:
        y = round((height - height * (aspect / new_aspect)) / 2)
    return picture[:, y : height - y, x : width - x]


def _lanczos(picture: Picture, width: int, height: int) -> Picture:
    """Through 8 bits and Pillow, as ComfyUI does it: this is where one level can be lost."""
    resized = [
        np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))
        for pixels in to_pixels(picture)
    ]
    return from_pixels(np.stack(resized))


def _centers(old: int, new: int) -> npt.NDArray[np.float32]:
    """Where the centre of each new pixel falls, in old pixels counted from the first one's left edge."""
    positions: npt.NDArray[np.float32] = (np.arange(new, dtype=np.float32) + np.float32(0.5)) * np.float32(
        old / new
    )
    return positions


def _nearest(picture: Picture, axis: int, new: int) -> Picture:
    old = picture.shape[axis]
    index = np.minimum(np.floor(_centers(old, new)).astype(np.intp), old - 1)
    taken: Picture = picture.take(index, axis=axis)
    return taken


def _bilinear(picture: Picture, axis: int, new: int) -> Picture:
    old = picture.shape[axis]
    if new == old:
        return picture
    position = np.maximum(_centers(old, new) - np.float32(0.5), np.float32(0))
    left = np.minimum(position.astype(np.intp), old - 1)
    share = (position - left).astype(np.float32)
    right = np.minimum(left + 1, old - 1)
    return _weighted(picture, axis, [(left, np.float32(1) - share), (right, share)])


def _bicubic(picture: Picture, axis: int, new: int) -> Picture:
    old = picture.shape[axis]
    if new == old:
        return picture
    position = _centers(old, new) - np.float32(0.5)
    base = np.floor(position)
    t = (position - base).astype(np.float32)
    a = _BICUBIC_A

    def near(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:  # |x| <= 1
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:  # 1 < |x| < 2
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    weights = [far(t + 1), near(t), near(1 - t), far(2 - t)]
    taps = [
        (np.clip(base.astype(np.intp) + offset, 0, old - 1), weight)
        for offset, weight in zip((-1, 0, 1, 2), weights, strict=True)
    ]
    return _weighted(picture, axis, taps)


def _area(picture: Picture, axis: int, new: int) -> Picture:
    """Each new pixel is the mean of the old pixels that its span touches, counted whole."""
    old = picture.shape[axis]
    if new == old:
        return picture
    index = np.arange(new)
    start = index * old // new
    end = -((index + 1) * old // -new)
    length = end - start
    taps = [
        (np.minimum(start + step, old - 1), ((step < length) / length).astype(np.float32))
        for step in range(int(length.max()))
    ]
    return _weighted(picture, axis, taps)


def _weighted(
    picture: Picture, axis: int, taps: list[tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]]
) -> Picture:
    shape = [1] * picture.ndim
    shape[axis] = -1
    total: Picture | None = None
    for index, weight in taps:
        part = picture.take(index, axis=axis)
        part *= weight.reshape(shape)
        if total is None:
            total = part
        else:
            total += part
    assert total is not None
    return total


_AXIS_RESIZERS: dict[str, Callable[[Picture, int, int], Picture]] = {
    "nearest-exact": _nearest,
    "bilinear": _bilinear,
    "area": _area,
    "bicubic": _bicubic,
}


def gaussian(radius: int, sigma: float) -> npt.NDArray[np.float32]:
    """One axis of ComfyUI's blur kernel, which is separable; it sums to 1. Sigma counts in radii, not in
    pixels."""
    x = np.linspace(-1, 1, 2 * radius + 1, dtype=np.float32)
    weights = np.exp(-(x * x) / np.float32(2.0 * sigma * sigma))
    normal: npt.NDArray[np.float32] = weights / weights.sum()
    return normal


def blur(picture: Picture, radius: int, sigma: float, check: Check = lambda: None) -> Picture:
    """Gaussian blur with reflected borders. Raises ValueError when a side is not longer than the radius."""
    if radius >= min(picture.shape[1:3]):
        raise ValueError(
            f"Padding size should be less than the corresponding input dimension: radius {radius} on a "
            f"{picture.shape[2]}x{picture.shape[1]} picture"
        )
    weights = gaussian(radius, sigma)
    return _convolve(_convolve(picture, 1, weights, check), 2, weights, check)


def _convolve(picture: Picture, axis: int, weights: npt.NDArray[np.float32], check: Check) -> Picture:
    radius, length = len(weights) // 2, picture.shape[axis]
    widths = [(0, 0)] * picture.ndim
    widths[axis] = (radius, radius)
    padded = np.pad(picture, widths, mode="reflect")
    window: list[slice] = [slice(None)] * picture.ndim
    total = np.zeros(picture.shape, np.float32)
    part = np.empty(picture.shape, np.float32)
    for tap, weight in enumerate(weights):
        check()
        window[axis] = slice(tap, tap + length)
        np.multiply(padded[tuple(window)], weight, out=part)
        total += part
    return total


def sharpen(
    picture: Picture, radius: int, sigma: float, alpha: float, check: Check = lambda: None
) -> Picture:
    """Unsharp mask of strength 10 x alpha, clamped to 0 to 1. Raises as `blur` does."""
    strength = np.float32(alpha * 10)
    blurred = blur(picture, radius, sigma, check)
    return np.clip(picture + strength * (picture - blurred), 0, 1)


def blend(first: Picture, second: Picture, factor: float, mode: str) -> Picture:
    """`first`, moved towards the mix of both by `factor` (0 to 1). `second` takes the size of `first`.

    Raises ValueError for an unknown mode, or when both are batches of different lengths.
    """
    if first.shape != second.shape:
        second = resize(second, first.shape[2], first.shape[1], "bicubic", crop="center")
    mixed = _mix(first, second, mode)
    return np.clip(first * np.float32(1 - factor) + mixed * np.float32(factor), 0, 1)


def _mix(a: Picture, b: Picture, mode: str) -> Picture:
    match mode:
        case "normal":
            return b
        case "multiply":
            return a * b
        case "screen":
            return 1 - (1 - a) * (1 - b)
        case "overlay":
            return np.where(a <= 0.5, 2 * a * b, 1 - 2 * (1 - a) * (1 - b))
        case "soft_light":
            lighter = np.where(a <= 0.25, ((16 * a - 12) * a + 4) * a, np.sqrt(np.maximum(a, 0)))
            return np.where(b <= 0.5, a - (1 - 2 * b) * a * (1 - a), a + (2 * b - 1) * (lighter - a))
        case "difference":
            return a - b
    raise ValueError(f"Unsupported blend mode: {mode}")
