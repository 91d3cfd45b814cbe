"""Pixel maths against values worked out by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from bridged.embedded import imaging

if TYPE_CHECKING:
    from bridged.embedded.imaging import Picture


def row(*values: float) -> Picture:
    """One picture of one line, one channel."""
    return np.array(values, np.float32).reshape(1, 1, -1, 1)


def values(picture: Picture) -> list[float]:
    return [round(float(value), 5) for value in picture.reshape(-1)]


def test_levels_are_cut_off_not_rounded() -> None:
    assert imaging.to_pixels(row(-0.5, 0.0, 0.5, 0.999, 1.0, 7.0)).reshape(-1).tolist() == [
        0,
        0,
        127,
        254,
        255,
        255,
    ]


def test_a_colour_is_red_green_blue() -> None:
    picture = imaging.solid(2, 3, 4, 0xFF8001)
    assert picture.shape == (2, 3, 4, 3)
    assert imaging.to_pixels(picture)[1, 2, 3].tolist() == [255, 128, 1]


@pytest.mark.parametrize(
    ("method", "new", "expected"),
    [
        ("nearest-exact", 2, [1, 3]),
        ("nearest-exact", 6, [0, 1, 1, 2, 3, 3]),
        ("area", 2, [0.5, 2.5]),
        ("area", 3, [0.5, 1.5, 2.5]),  # spans 0-2, 1-3, 2-4: every pixel that is touched counts whole
        ("bilinear", 2, [0.5, 2.5]),
        ("bilinear", 8, [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]),
        # Half-way between pixels the weights are -0.09375, 0.59375, 0.59375, -0.09375.
        ("bicubic", 2, [0.5 - 2 * 0.09375 + 0.09375, 2.5 + 0.09375]),
    ],
)
def test_resizing_a_ramp(method: str, new: int, expected: list[float]) -> None:
    assert values(imaging.resize(row(0, 1, 2, 3), new, 1, method)) == pytest.approx(expected, abs=1e-5)


def test_lanczos_goes_through_eight_bits() -> None:
    picture = imaging.resize(row(0.5, 0.5).repeat(3, axis=3), 4, 1, "lanczos")
    assert picture == pytest.approx(np.full((1, 1, 4, 3), 127 / 255))


@pytest.mark.parametrize(("width", "height", "kept"), [(1, 1, [1, 2]), (4, 1, [0, 1, 2, 3]), (2, 2, [1, 2])])
def test_a_centred_crop_keeps_the_middle(width: int, height: int, kept: list[int]) -> None:
    picture = np.concatenate([row(0, 1, 2, 3), row(0, 1, 2, 3)], axis=1)[:, :2]
    if height == 1 and width == 4:
        picture = picture[:, :1]
    cropped = imaging._center_crop(picture, width / height)
    assert values(cropped[:, :1]) == kept


def test_a_blur_kernel_counts_sigma_in_radii() -> None:
    edge = np.exp(-0.5)
    expected = [edge / (1 + 2 * edge), 1 / (1 + 2 * edge), edge / (1 + 2 * edge)]
    assert imaging.gaussian(1, 1.0) == pytest.approx(np.array(expected), abs=1e-6)


def test_a_blur_spreads_a_dot_and_mirrors_the_border() -> None:
    picture = np.zeros((1, 3, 3, 1), np.float32)
    picture[0, 1, 1, 0] = 1
    side, middle, _ = imaging.gaussian(1, 1.0)
    blurred = imaging.blur(picture, 1, 1.0)[0, :, :, 0]
    assert blurred[1, 1] == pytest.approx(middle * middle)
    # The dot is mirrored behind the border: a corner sees it twice in each direction.
    assert blurred[0, 1] == pytest.approx(2 * side * middle)
    assert blurred[0, 0] == pytest.approx(4 * side * side)


def test_sharpening_leaves_a_flat_picture_alone_and_clamps() -> None:
    flat = np.full((1, 5, 5, 3), 0.25, np.float32)
    assert imaging.sharpen(flat, 2, 1.0, 1.0) == pytest.approx(flat, abs=1e-5)
    step = np.zeros((1, 4, 4, 1), np.float32)
    step[:, :, 2:] = 1
    sharpened = imaging.sharpen(step, 1, 1.0, 5.0)
    assert (sharpened.min(), sharpened.max()) == (0, 1)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("normal", [0.75, 0.25]),
        ("multiply", [0.15, 0.2]),
        ("screen", [0.8, 0.85]),
        ("overlay", [0.3, 0.7]),
        # 0.2 + 0.5 x (((16 x 0.2 - 12) x 0.2 + 4) x 0.2 - 0.2), and 0.8 - 0.5 x 0.8 x 0.2
        ("soft_light", [0.324, 0.72]),
        ("difference", [0, 0.55]),
    ],
)
def test_blending_all_the_way(mode: str, expected: list[float]) -> None:
    assert values(imaging.blend(row(0.2, 0.8), row(0.75, 0.25), 1.0, mode)) == pytest.approx(
        expected, abs=1e-5
    )


def test_blending_half_way_is_half_of_each() -> None:
    assert values(imaging.blend(row(0.2), row(0.6), 0.5, "normal")) == pytest.approx([0.4])


def test_a_picture_of_another_size_is_fitted_before_it_is_blended() -> None:
    first, second = np.zeros((1, 4, 4, 3), np.float32), np.ones((1, 8, 2, 3), np.float32)
    assert imaging.blend(first, second, 1.0, "normal") == pytest.approx(np.ones((1, 4, 4, 3)))


def test_too_many_pixels_are_refused_before_memory_is_asked_for() -> None:
    with pytest.raises(ValueError, match="limit"):
        imaging.solid(4096, 16384, 16384, 0)
    with pytest.raises(ValueError, match="limit"):
        imaging.resize(imaging.solid(1, 1, 1, 0), 16384, 16384, "bilinear")


def test_a_radius_as_long_as_the_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="Padding"):
        imaging.blur(imaging.solid(1, 4, 9, 0), 4, 1.0)


def test_a_long_blur_looks_at_the_interrupt_between_passes() -> None:
    class StopError(Exception):
        pass

    def stop() -> None:
        raise StopError

    with pytest.raises(StopError):
        imaging.blur(imaging.solid(1, 9, 9, 0), 2, 1.0, stop)
