from __future__ import annotations

import logging
from typing import Any

import pytest

from comfy_patch.node.returns import NAMES, Returns, old_attributes

OUTPUT = {"type": "IMAGE", "name": "picture", "is_list": True, "tooltip": "t"}


class New:
    RETURNS = (OUTPUT, {"type": "MASK"})


class Old:
    RETURN_TYPES = ("INT",)


class Both:
    RETURN_TYPES = ("INT",)
    RETURNS = (OUTPUT,)


def derive(*classes: type) -> None:
    Returns({each.__name__: each for each in classes}).derive()


def test_the_old_attributes_are_derived() -> None:
    assert old_attributes(New.RETURNS) == {
        "RETURN_TYPES": ("IMAGE", "MASK"),
        "OUTPUT_IS_LIST": (True, False),
        "RETURN_NAMES": ("picture", "MASK"),
        "OUTPUT_TOOLTIPS": ("t", ""),
    }
    assert old_attributes([{"type": "INT"}]) == {"RETURN_TYPES": ("INT",), "OUTPUT_IS_LIST": (False,)}
    assert old_attributes(()) == {"RETURN_TYPES": (), "OUTPUT_IS_LIST": ()}


def test_a_choice_is_a_list_of_choices() -> None:
    output = {"type": "COMBO", "options": ["a", "b"]}
    assert old_attributes((output,))["RETURN_TYPES"] == (["a", "b"],)
    assert old_attributes((output, {"type": "INT", "name": "n"}))["RETURN_NAMES"] == ("COMBO", "n")


def test_both_kinds_live_side_by_side() -> None:
    derive(New, Old, Both)
    assert New.RETURN_TYPES == ("IMAGE", "MASK")  # type: ignore[attr-defined]
    assert not any(hasattr(Old, name) for name in NAMES[1:])
    assert Both.RETURN_TYPES == ("INT",)
    assert not hasattr(Both, "OUTPUT_IS_LIST")


def test_the_nearest_that_says_its_outputs_counts() -> None:
    base = type("Base", (), {"RETURNS": (OUTPUT,)})
    inherits = type("Inherits", (base,), {})
    says_otherwise = type("SaysOtherwise", (base,), {"RETURNS": ({"type": "INT"},)})
    old_way = type("OldWay", (base,), {"RETURN_TYPES": ("FLOAT",)})
    over_old = type("OverOld", (Old,), {"RETURNS": ({"type": "LATENT"},)})
    derive(base, inherits, says_otherwise, old_way, over_old)
    classes: list[Any] = [base, inherits, says_otherwise, old_way, over_old]
    found = {each.__name__: each.RETURN_TYPES for each in classes}
    assert found == {
        "Base": ("IMAGE",),
        "Inherits": ("IMAGE",),
        "SaysOtherwise": ("INT",),
        "OldWay": ("FLOAT",),
        "OverOld": ("LATENT",),
    }


def test_classes_that_come_later_are_found() -> None:
    mappings: dict[str, Any] = {}
    returns = Returns(mappings)
    returns.derive()
    mappings["Late"] = late = type("Late", (), {"RETURNS": (OUTPUT,)})
    returns.derive()
    assert late.RETURN_TYPES == ("IMAGE",)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "returns",
    [
        *("IMAGE", None, {"type": "IMAGE"}, (1,), ({},), ({"type": ["a"]},)),
        *(
            ({"type": "A", key: value},)
            for key, value in (("name", 1), ("is_list", "no"), ("tooltip", 5), ("optional", 1))
        ),
        ({"type": "COMBO", "options": "ab"},),
    ],
)
def test_what_does_not_fit_is_logged_once_and_left_alone(returns: Any, caplog: pytest.LogCaptureFixture) -> None:
    odd = type("Odd", (), {"RETURNS": returns})
    mappings: dict[str, Any] = {"Odd": odd}
    found = Returns(mappings)
    with caplog.at_level(logging.WARNING):
        found.derive()
        mappings["New"] = New
        found.derive()
    assert not hasattr(odd, "RETURN_TYPES")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Odd" in caplog.text
