"""Loading and saving, and the folders they use."""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from bridged.embedded import imaging
from bridged.embedded.folders import Folders, OutsideError
from bridged.embedded.nodes import (
    Call,
    Interrupted,
    image_crop,
    image_flip,
    image_rotate,
    load_image,
    save_image,
)

if TYPE_CHECKING:
    import pathlib


@pytest.fixture
def call(tmp_path: pathlib.Path) -> Call:
    folders = Folders(tmp_path / "base")
    folders.prepare()
    return Call(folders, prompt={"1": {"class_type": "EmptyImage"}})


def numbered(width: int, height: int) -> imaging.Picture:
    """A picture whose pixels are 0, 1, 2, … in reading order."""
    return np.arange(width * height, dtype=np.float32).reshape(1, height, width, 1)


def test_a_turn_is_clockwise() -> None:
    (picture,) = image_rotate(Call(None), numbered(2, 2), "90 degrees").outputs  # type: ignore[arg-type]
    assert picture.reshape(-1).tolist() == [2, 0, 3, 1]


def test_flips_and_crops() -> None:
    (down,) = image_flip(Call(None), numbered(2, 2), "x-axis: vertically").outputs  # type: ignore[arg-type]
    assert down.reshape(-1).tolist() == [2, 3, 0, 1]
    (corner,) = image_crop(Call(None), numbered(3, 3), 9, 9, 2, 50).outputs  # type: ignore[arg-type]
    assert corner.reshape(-1).tolist() == [8]


def test_transparency_becomes_the_mask(call: Call) -> None:
    picture = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    picture.putpixel((1, 0), (0, 0, 0, 51))
    picture.save(call.folders.input / "clear.png")
    image, mask = load_image(call, "clear.png").outputs
    assert image.shape == (1, 1, 2, 3)
    assert mask.reshape(-1).tolist() == pytest.approx([0, 0.8])


def test_a_picture_without_transparency_has_a_small_empty_mask(call: Call) -> None:
    _, mask = load_image(call, "example.png").outputs
    assert mask.shape == (1, 64, 64)
    assert not mask.any()


def test_frames_become_a_batch_and_exif_turns_the_picture(call: Call) -> None:
    frames = [Image.new("RGB", (4, 3), color) for color in ("red", "green", "blue")]
    frames[0].save(call.folders.input / "frames.gif", save_all=True, append_images=frames[1:])
    assert load_image(call, "frames.gif").outputs[0].shape == (3, 3, 4, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    frames[0].save(call.folders.input / "turned.png", exif=exif)
    assert load_image(call, "turned.png").outputs[0].shape == (1, 4, 3, 3)


def test_a_decompression_bomb_is_refused(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(Image.DecompressionBombError):
        load_image(call, "example.png")


def test_too_many_frames_are_refused(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imaging, "MAX_PIXELS", 30)
    frames = [Image.new("RGB", (4, 3), color) for color in ("red", "green", "blue")]
    frames[0].save(call.folders.input / "frames.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match="limit"):
        load_image(call, "frames.gif")


def saved(call: Call, prefix: str, count: int = 1) -> list[str]:
    result = save_image(call, imaging.solid(count, 3, 5, 0x0000FF), prefix)
    assert result.ui is not None
    return [f"{image['subfolder']}/{image['filename']}" for image in result.ui["images"]]


def test_saved_pictures_carry_the_prompt_and_what_else_is_given(call: Call) -> None:
    call.extra_pnginfo = {"workflow": {"nodes": []}, "k": "v"}
    (name,) = saved(call, "p")
    with Image.open(call.folders.output / name[1:]) as picture:
        assert picture.size == (5, 3)
        assert picture.getpixel((0, 0)) == (0, 0, 255)
        assert json.loads(picture.info["prompt"]) == call.prompt
        assert json.loads(picture.info["workflow"]) == {"nodes": []}
        assert json.loads(picture.info["k"]) == "v"


def test_names_count_on_from_what_is_there(call: Call) -> None:
    assert saved(call, "p", 2) == ["/p_00001_.png", "/p_00002_.png"]
    (call.folders.output / "p_00041_.png").touch()
    (call.folders.output / "pp_00099_.png").touch()
    assert saved(call, "p") == ["/p_00042_.png"]
    for path in call.folders.output.glob("p_*"):
        path.unlink()
    assert saved(call, "p") == ["/p_00001_.png"]


def test_a_name_taken_behind_our_back_is_not_overwritten(call: Call) -> None:
    series = call.folders.save_series("output", "p", (1, 1))
    assert series.write(b"1", 0) == "p_00001_.png"
    (call.folders.output / "p_00002_.png").write_bytes(b"mine")
    assert series.write(b"3", 1) == "p_00003_.png"
    assert (call.folders.output / "p_00002_.png").read_bytes() == b"mine"


def test_prefixes_may_have_subfolders_and_variables(call: Call) -> None:
    assert saved(call, "a/b/p") == ["a/b/p_00001_.png"]
    assert saved(call, "%width%x%height%") == ["/5x3_00001_.png"]
    (dated,) = saved(call, "%year%-%month%-%day%/%hour%%minute%%second%")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d/\d{6}_00001_\.png", dated)
    assert saved(call, "n%batch_num%", 2) == ["/n0_00001_.png", "/n1_00002_.png"]


@pytest.mark.parametrize("prefix", ["../p", "a/../../p", "/tmp/p", "a/../../base/output2/p", "p\0q/x"])
def test_a_prefix_cannot_lead_out(call: Call, prefix: str) -> None:
    with pytest.raises(OutsideError):
        saved(call, prefix)


def test_a_link_out_of_the_folder_is_not_followed(call: Call, tmp_path: pathlib.Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (call.folders.output / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutsideError):
        saved(call, "link/p")
    with pytest.raises(OutsideError):
        load_image(call, "../output/link/x.png")


def test_inputs_can_be_taken_from_the_output_folder(call: Call) -> None:
    (name,) = saved(call, "p")
    assert load_image(call, f"{name[1:]} [output]").outputs[0].shape == (1, 3, 5, 3)


def test_saving_a_batch_can_be_interrupted(call: Call) -> None:
    checks = iter([None, Interrupted()])

    def check() -> None:
        if (raised := next(checks)) is not None:
            raise raised

    call.check = check
    with pytest.raises(Interrupted):
        saved(call, "p", 3)
    assert [path.name for path in call.folders.output.iterdir()] == ["p_00001_.png"]


def test_a_fresh_folder_has_an_example_and_a_used_one_is_left_alone(tmp_path: pathlib.Path) -> None:
    folders = Folders(tmp_path / "fresh")
    folders.prepare()
    with Image.open(folders.input / "example.png") as picture:
        assert picture.size == (256, 192)
    (folders.input / "example.png").unlink()
    (folders.temp / "old.png").touch()
    folders.prepare()
    assert list(folders.input.iterdir()) == []
    assert list(folders.temp.iterdir()) == []


def test_an_upload_gets_a_free_name(call: Call) -> None:
    def upload(data: bytes, *, overwrite: bool = False) -> str:
        return call.folders.store_upload("input", "s", "a.png", io.BytesIO(data), overwrite)

    names = [upload(b"1"), upload(b"1"), upload(b"22"), upload(b"22"), upload(b"3")]
    assert names == ["a.png", "a.png", "a (1).png", "a (1).png", "a (2).png"]
    assert upload(b"4", overwrite=True) == "a.png"
    assert (call.folders.input / "s" / "a.png").read_bytes() == b"4"
    assert sorted(path.name for path in (call.folders.input / "s").iterdir()) == [
        "a (1).png",
        "a (2).png",
        "a.png",
    ]


@pytest.mark.parametrize("name", ["..", ".", "../x.png", "/etc/x.png", "a\0b"])
def test_an_upload_cannot_leave_its_folder(call: Call, name: str) -> None:
    with pytest.raises(OutsideError):
        call.folders.store_upload("input", "", name, io.BytesIO(b""), False)
