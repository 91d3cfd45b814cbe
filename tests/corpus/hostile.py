"""Every hostile upload of the corpus, by class. Each must be answered with a 4xx that says why."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.corpus import (
    hostile_bombs,
    hostile_damage,
    hostile_metadata,
    hostile_names,
    hostile_polyglots,
    hostile_types,
)
from tests.corpus.case import Case, of_kind

KINDS: dict[str, tuple[Callable[[], Iterator[Case]], ...]] = {
    "extension": (hostile_types.wrong_extension,),
    "declared": (hostile_types.wrong_declaration,),
    "not allowed": (hostile_types.not_allowed,),
    "disguise": (hostile_types.disguised,),
    "magic only": (hostile_types.magic_only,),
    "tiny": (hostile_types.tiny,),
    "name": (hostile_names.names, hostile_names.lengths, hostile_names.not_utf8),
    "truncated": (hostile_damage.truncated,),
    "damaged": (hostile_damage.damaged_png, hostile_damage.damaged_jpeg, hostile_damage.damaged_others),
    "container": (hostile_damage.lying_mp4, hostile_damage.lying_ebml, hostile_damage.lying_sound),
    "bomb": (
        hostile_bombs.png,
        hostile_bombs.gif,
        hostile_bombs.webp,
        hostile_bombs.tiff,
        hostile_bombs.others,
    ),
    "appended": (hostile_polyglots.appended,),
    "polyglot": (
        hostile_polyglots.archives_within,
        hostile_polyglots.archives_in_pixels,
        hostile_polyglots.gaps,
        hostile_polyglots.early,
        hostile_polyglots.scripts,
    ),
    "metadata": (hostile_metadata.active, hostile_metadata.hidden),
}


def cases(*kinds: str) -> Iterator[Case]:
    """All cases, or those of some classes."""
    for kind in kinds or KINDS:
        for make in KINDS[kind]:
            yield from of_kind(kind, make())
