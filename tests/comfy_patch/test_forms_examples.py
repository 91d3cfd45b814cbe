from __future__ import annotations

from tests.comfy_patch.forms_examples import FILE, current


def test_the_front_ends_examples_say_what_the_bridge_does() -> None:
    """If not: `python -m tests.comfy_patch.forms_examples` writes them anew; then the front end's tests are next."""
    assert FILE.read_text(encoding="utf-8") == current()
