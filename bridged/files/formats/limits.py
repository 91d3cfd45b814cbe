"""How large a picture may be, decided by its headers: before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from bridged.files.formats.source import Refusal

TOTAL = 10
"""times `max_pixels`: what all frames together may have"""

BYTES = 2
"""bytes that each of these may unpack to on average: one frame has up to 8 a pixel, and 400 MB take a second"""


class Rules(Protocol):
    """What is said of pictures in the settings. `max_pixels` in millions."""

    @property
    def max_pixels(self) -> float: ...
    @property
    def max_side(self) -> int: ...
    @property
    def max_frames(self) -> int: ...


class Picture(NamedTuple):
    """What the headers say: sizes in pixels."""

    width: int
    height: int
    frames: int = 1

    @property
    def cost(self) -> int:
        """Pixels that a decoder works on: more than those of the picture where they come in padded tiles."""
        return self.width * self.height * self.frames


class PaddedPicture(Picture):
    """One whose decoder has more to do than its size says. A tuple of three all the same."""

    padded: int = 0

    @property
    def cost(self) -> int:
        return max(super().cost, self.padded)


@dataclass(frozen=True, slots=True)
class Limits:
    """`pixels` of one frame, `total` of all frames, each counted as large as the whole picture: that is what showing
    it costs."""

    pixels: int
    side: int
    frames: int

    @classmethod
    def of(cls, rules: Rules) -> Limits:
        return cls(int(rules.max_pixels * 1e6), rules.max_side, rules.max_frames)

    @property
    def total(self) -> int:
        return TOTAL * self.pixels

    @property
    def unpacked(self) -> int:
        return BYTES * self.total

    def size(self, width: int, height: int) -> None:
        """Raises Refusal: no pixels at all, or too many."""
        if width < 1 or height < 1:
            raise Refusal("its header has no valid size")
        if width > self.side or height > self.side:
            raise Refusal(f"it is {width} x {height} pixels; at most {self.side} are taken on a side")
        if width * height > self.pixels:
            raise Refusal(f"it has {width * height / 1e6:.1f} million pixels; at most {self.pixels / 1e6:g} are taken")

    def frames_of(self, width: int, height: int, frames: int) -> None:
        """Raises Refusal: too many frames of that size."""
        if frames > self.frames:
            raise Refusal(f"it has more than {self.frames} frames")
        if frames * width * height > self.total:
            raise Refusal(f"its frames have more than {self.total / 1e6:g} million pixels together")
