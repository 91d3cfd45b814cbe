"""Every benign upload of the corpus, by the library that it takes. Each must be answered with 200."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.corpus import (
    benign_byhand,
    benign_encoders,
    benign_media,
    benign_names,
    benign_stills,
    benign_words,
)
from tests.corpus.case import Case, of_kind

KINDS: dict[str, tuple[Callable[[], Iterator[Case]], ...]] = {
    "Pillow": (
        benign_stills.png,
        benign_stills.jpeg,
        benign_stills.gif,
        benign_stills.webp,
        benign_stills.bmp,
        benign_stills.tiff,
    ),
    "by hand": (
        benign_byhand.words,
        benign_byhand.png,
        benign_byhand.bmp,
        benign_byhand.tiff,
        benign_byhand.gif,
        benign_byhand.sound,
    ),
    "OpenCV": (benign_encoders.opencv,),
    "pypng": (benign_encoders.pypng,),
    "tifffile": (benign_encoders.tifffile,),
    "imagecodecs": (benign_encoders.imagecodecs,),
    "imageio": (benign_encoders.imageio,),
    "segno": (benign_encoders.segno,),
    "ffmpeg": (benign_encoders.ffmpeg, benign_media.films, benign_media.sounds),
    "libsndfile": (benign_media.soundfile,),
    "mutagen": (benign_media.tags,),
    "words": (benign_words.comfyui, benign_words.comments, benign_words.cameras, benign_words.depths),
    "names": (benign_names.names, benign_names.declared),
}


def cases(*kinds: str) -> Iterator[Case]:
    """All cases, or those of some kinds. Raises ImportError where a library of the `test` extra is missing."""
    for kind in kinds or KINDS:
        for make in KINDS[kind]:
            yield from of_kind(kind, make())
