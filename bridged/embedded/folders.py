"""The worker's folders, and which names inside them are allowed.

Everything here touches the disk and may raise OSError; call it from a thread when it lists or writes.
"""

from __future__ import annotations

import io
import os
import pathlib
import re
import shutil
import tempfile
import time
from typing import BinaryIO

from PIL import Image, ImageDraw

KINDS = ("input", "output", "temp")


class OutsideError(ValueError):
    """A name that points out of the folder it belongs to."""


class Folders:
    """`input`, `output` and `temp` under one base directory."""

    def __init__(self, base: pathlib.Path) -> None:
        self.base = pathlib.Path(os.path.realpath(base))
        self.input = self.base / "input"
        self.output = self.base / "output"
        self.temp = self.base / "temp"
        # Highest counter per prefix, and the folder's mtime after our own last write: while that has not
        # changed, nobody else has added or removed files, and the folder (ten thousands of pictures, in time)
        # need not be listed again.
        self._counters: dict[pathlib.Path, tuple[int, dict[str, int]]] = {}

    def prepare(self) -> None:
        """Make the folders, empty `temp` as ComfyUI does at start, and give a fresh `input` one picture to
        try things with."""
        fresh = not self.input.exists()
        shutil.rmtree(self.temp, ignore_errors=True)
        for kind in KINDS:
            (self.base / kind).mkdir(parents=True, exist_ok=True)
        if fresh:
            example_picture().save(self.input / "example.png")

    def of_kind(self, kind: str) -> pathlib.Path:
        """Raises OutsideError for anything but the three kinds."""
        if kind not in KINDS:
            raise OutsideError(f"{kind!r} is not one of {', '.join(KINDS)}")
        return self.base / kind

    def inside(self, folder: pathlib.Path, *names: str) -> pathlib.Path:
        """The path of those names under `folder`, links followed. Raises OutsideError when it is not
        inside."""
        try:
            path = pathlib.Path(os.path.realpath(folder.joinpath(*names)))
            os.fsencode(path)
        except ValueError as error:  # a NUL byte, or what is no text at all
            raise OutsideError(f"no file can have that name: {error}") from error
        if "\0" in str(path):
            raise OutsideError("a name with a NUL byte")
        if path != folder and folder not in path.parents:
            raise OutsideError(f"{os.path.join(*names)!r} points outside of {folder.name}/")
        return path

    def annotated(self, name: str) -> pathlib.Path:
        """The path of an input value such as `cat.png`, `sub/cat.png` or `cat.png [output]` (no mark means
        input).

        Raises OutsideError.
        """
        for kind in KINDS:
            if name.endswith(f"[{kind}]"):
                return self.inside(self.of_kind(kind), name.removesuffix(f"[{kind}]").removesuffix(" "))
        return self.inside(self.input, name)

    def newest_first(self, kind: str) -> list[str]:
        """Names of the files directly in that folder. Raises OutsideError."""
        with os.scandir(self.of_kind(kind)) as entries:
            files = [(-entry.stat().st_mtime, entry.name) for entry in entries if entry.is_file()]
        return [name for _, name in sorted(files, key=lambda file: file[0])]

    def save_series(self, kind: str, prefix: str, size: tuple[int, int]) -> Series:
        """Where to save pictures of that prefix, which may hold subfolders and `%width%`, `%height%`,
        `%year%` … `%second%`.

        Raises OutsideError when the prefix leads out of the folder.
        """
        root = self.of_kind(kind)
        filled = os.path.normpath(_fill(prefix, size))
        subfolder, stem = os.path.split(filled)
        folder = self.inside(root, subfolder) if subfolder else root
        folder.mkdir(parents=True, exist_ok=True)
        return Series(self, folder, subfolder, stem)

    def highest_counter(self, folder: pathlib.Path, stem: str) -> int:
        """The highest N among `stem_N_*` in that folder, 0 when there is none."""
        mtime = folder.stat().st_mtime_ns
        known = self._counters.get(folder)
        if known is None or known[0] != mtime:
            known = (mtime, {})
            self._counters[folder] = known
        if stem not in known[1]:
            pattern = re.compile(re.escape(stem) + r"_(\d+)(?:_.*)?")
            found = (pattern.fullmatch(name) for name in os.listdir(folder))
            known[1][stem] = max((int(match[1]) for match in found if match), default=0)
        return known[1][stem]

    def wrote(self, folder: pathlib.Path, stem: str, counter: int) -> None:
        known = self._counters[folder][1]
        known[stem] = counter
        self._counters[folder] = (folder.stat().st_mtime_ns, known)

    def forget(self, folder: pathlib.Path) -> None:
        self._counters.pop(folder, None)

    def store_upload(self, kind: str, subfolder: str, name: str, source: BinaryIO, overwrite: bool) -> str:
        """Keep an uploaded file and return the name it has got: another one, `name (1).png`, when the name is
        taken by other bytes, the same when it is taken by the same bytes. Raises OutsideError. Two calls must
        not overlap."""
        root = self.of_kind(kind)
        folder = self.inside(root, os.path.normpath(subfolder)) if subfolder else root
        target = self.inside(root, str(folder), name)
        if target == root or target.is_dir() or not name:
            raise OutsideError(f"{name!r} is not the name of a file")
        target.parent.mkdir(parents=True, exist_ok=True)
        stem, extension = os.path.splitext(name)
        taken = 0
        while not overwrite and target.exists():
            if _same_bytes(target, source):
                return name
            taken += 1
            name = f"{stem} ({taken}){extension}"
            target = self.inside(root, str(folder), name)
        # Written aside and renamed: a prompt that loads this name at the same time sees the old file or the
        # new one.
        handle, aside = tempfile.mkstemp(dir=target.parent, prefix=".upload-")
        try:
            with os.fdopen(handle, "wb") as file:
                source.seek(0)
                shutil.copyfileobj(source, file)
            os.replace(aside, target)
        except OSError:
            pathlib.Path(aside).unlink(missing_ok=True)
            raise
        return name


class Series:
    """The numbered files of one save: `stem_00001_.png`, `stem_00002_.png`, …"""

    def __init__(self, folders: Folders, folder: pathlib.Path, subfolder: str, stem: str) -> None:
        self._folders = folders
        self._folder = folder
        self._stem = stem
        self.subfolder = subfolder
        self._counter: int | None = None

    def write(self, data: bytes, batch_number: int) -> str:
        """Write the next file and return its name. Never replaces a file."""
        while True:
            counter = (
                self._folders.highest_counter(self._folder, self._stem)
                if self._counter is None
                else self._counter
            )
            name = f"{self._stem.replace('%batch_num%', str(batch_number))}_{counter + 1:05}_.png"
            try:
                _write_new(self._folder / name, data)
            except FileExistsError:
                # Somebody wrote it since the folder was listed: list it again, and when even that does not
                # show the name (a stem with %batch_num% is not found in it), simply count on.
                self._folders.forget(self._folder)
                seen = self._folders.highest_counter(self._folder, self._stem)
                self._counter = max(seen, counter + 1)
                continue
            self._counter = counter + 1
            self._folders.highest_counter(self._folder, self._stem)
            self._folders.wrote(self._folder, self._stem, self._counter)
            return name


def _write_new(path: pathlib.Path, data: bytes) -> None:
    """Raises FileExistsError. A full disk leaves no half of a picture behind."""
    with open(path, "xb") as file:
        try:
            file.write(data)
            file.flush()
        except OSError:
            path.unlink(missing_ok=True)
            raise


def _fill(prefix: str, size: tuple[int, int]) -> str:
    if "%" not in prefix:
        return prefix
    now = time.localtime()
    values = {
        "width": str(size[0]),
        "height": str(size[1]),
        "year": str(now.tm_year),
        "month": f"{now.tm_mon:02}",
        "day": f"{now.tm_mday:02}",
        "hour": f"{now.tm_hour:02}",
        "minute": f"{now.tm_min:02}",
        "second": f"{now.tm_sec:02}",
    }
    for name, value in values.items():
        prefix = prefix.replace(f"%{name}%", value)
    return prefix


def _same_bytes(path: pathlib.Path, source: BinaryIO) -> bool:
    source.seek(0, io.SEEK_END)
    if source.tell() != path.stat().st_size:
        return False
    source.seek(0)
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            if chunk != source.read(len(chunk)):
                return False
    return True


def example_picture(width: int = 256, height: int = 192) -> Image.Image:
    """A small picture, drawn here: a sunset, with something of every brightness and a sharp edge for blurs to
    work on."""
    picture = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(picture)
    for y in range(height):
        t = y / height
        draw.line([(0, y), (width, y)], fill=(int(60 + 190 * t), int(40 + 110 * t), int(130 - 40 * t)))
    draw.ellipse(
        [width * 0.55, height * 0.25, width * 0.8, height * 0.25 + width * 0.25], fill=(255, 236, 170)
    )
    ridge = [(0, height), (0, height * 0.8), (width * 0.3, height * 0.45), (width * 0.55, height * 0.8)]
    draw.polygon(
        [*ridge, (width * 0.75, height * 0.6), (width, height * 0.85), (width, height)], fill=(28, 24, 46)
    )
    return picture
