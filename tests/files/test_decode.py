"""Large pictures are decoded in a process of their own; what that says is what a small one would hear."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

from bridged.files.formats import decode as decoding
from bridged.files.formats.decode import LARGE, decode
from bridged.files.formats.limits import Picture
from bridged.files.formats.source import Refusal

SIZE = Picture(3000, 3000)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "a.tif"
    Image.new("L", SIZE[:2], 7).save(path)
    assert SIZE.width * SIZE.height > LARGE
    return path


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is decoded here, in this process."""
    here: list[str] = []
    inside = decoding._decode_here

    def noted(file: object, kind: str, picture: Picture) -> None:
        here.append(kind)
        inside(file, kind, picture)  # type: ignore[arg-type]

    monkeypatch.setattr(decoding, "_decode_here", noted)
    return here


def test_a_large_picture_is_decoded_elsewhere_whether_on_disk_or_not(large: Path, commands: list[str]) -> None:
    decode(large, "image/tiff", SIZE)
    decode(large.read_bytes(), "image/tiff", SIZE)
    assert commands == []


def test_a_small_one_here(tmp_path: Path, commands: list[str]) -> None:
    Image.new("L", (20, 10), 7).save(tmp_path / "a.tif")
    decode(tmp_path / "a.tif", "image/tiff", Picture(20, 10))
    assert commands == ["image/tiff"]


def test_its_refusal_comes_back_in_words(large: Path) -> None:
    with pytest.raises(Refusal, match="another size than its header says"):
        decode(large, "image/tiff", Picture(4000, 4000))
    with pytest.raises(Refusal, match="cannot be decoded"):
        decode(b"no picture at all", "image/tiff", SIZE)


def script(folder: Path, text: str) -> str:
    path = folder / "decoder"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("end", ["kill -XCPU $$", "kill -SEGV $$", f"exit {decoding.OUT_OF_MEMORY}"])
def test_a_picture_that_breaks_its_decoder_is_refused(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(sys, "executable", script(tmp_path, end))
    with pytest.raises(Refusal, match="within the time and the memory"):
        decode(large, "image/tiff", SIZE)


@pytest.mark.parametrize("end", ["kill -TERM $$", "kill -KILL $$", "exit 1"])
def test_an_end_that_is_not_the_pictures_doing_does_not_refuse_it(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(sys, "executable", script(tmp_path, end))
    with pytest.raises(OSError, match="decoder failed"):
        decode(large, "image/tiff", SIZE)


def test_nothing_of_the_services_folder_is_imported(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "resource.py").write_text("raise SystemExit(1)")
    monkeypatch.chdir(tmp_path)
    decode(large, "image/tiff", SIZE)


def test_one_that_takes_too_long_is_ended(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "PATIENCE", 0.001)
    with pytest.raises(Refusal, match="too long"):
        decode(large, "image/tiff", SIZE)
