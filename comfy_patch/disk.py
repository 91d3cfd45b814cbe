"""Every step by which the installer changes a disk, one function each, and what it needs to know of files.

A step either happened or did not, save `write`, whose files nobody reads before they are complete. `before` is called
ahead of each: tests replace it and so end the installer at any step.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import shutil
import stat
import sys
import time
from pathlib import Path


def before(step: str, path: Path) -> None:
    """Is told of each step that is about to be made; does nothing."""


def is_link(path: Path) -> bool:
    """Whether the path is a symlink or a Windows junction. A file that OneDrive keeps in the cloud is neither."""
    try:
        found = path.lstat()
    except OSError:
        return False
    tag = getattr(found, "st_reparse_tag", 0)
    return stat.S_ISLNK(found.st_mode) or tag == getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", -1)


def exists(path: Path) -> bool:
    """Whether there is anything of this name; a link that leads nowhere is something."""
    return os.path.lexists(path)


def sha256(path: Path) -> str:
    """In hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def make_folder(path: Path) -> None:
    """Makes the folder and those above it; fine if it is there."""
    if not path.is_dir():
        before("make_folder", path)
        path.mkdir(parents=True, exist_ok=True)


def write(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Makes a new file and waits until it is on the disk. Never follows a link: the name must be free.

    `mode` is narrowed by the umask; Windows knows nothing of it but write protection.
    """
    before("write", path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags, mode), "wb") as file:
        half = len(content) // 2
        file.write(content[:half])
        file.flush()
        before("write the second half of", path)
        file.write(content[half:])
        file.flush()
        os.fsync(file.fileno())


def overwrite(path: Path, content: bytes) -> None:
    """Gives an existing file other content at once, and keeps its mode."""
    part = path.with_name(path.name + ".bridged-part")
    if exists(part):
        remove(part)
    write(part, content)
    before("copy the mode to", part)
    shutil.copymode(path, part)
    before("overwrite", path)
    os.replace(part, path)


def move(source: Path, target: Path) -> None:
    """Renames within one file system. Raises FileExistsError where the name is taken: POSIX would replace it."""
    if exists(target):
        raise FileExistsError(errno.EEXIST, "is there already", str(target))
    before("move", source)
    for patience in (0.05, 0.2, 0.8, 0.0):
        try:
            os.rename(source, target)
            return
        except PermissionError:
            # A virus scanner holds files for a moment after they were written, and tells nobody when it is done.
            if os.name != "nt" or not patience:
                raise
            time.sleep(patience)


def move_anywhere(source: Path, target: Path) -> None:
    """Moves a file or a link, to another file system too; the source goes only once the copy is whole."""
    try:
        move(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        before("copy", source)
        part = target.with_name(target.name + ".part")
        shutil.copy2(source, part, follow_symlinks=False)
        move(part, target)
        remove(source)


def exchange(one: Path, other: Path) -> bool:
    """Lets two folders of one file system change places in one step. False where the system cannot: nothing happened.

    renameat2(2) with RENAME_EXCHANGE on Linux (not every file system has it), renamex_np(2) with RENAME_SWAP on macOS.
    """
    before("exchange", other)
    names = os.fsencode(one), os.fsencode(other)
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        if sys.platform.startswith("linux"):
            failed = libc.renameat2(-100, names[0], -100, names[1], ctypes.c_uint(2))
        elif sys.platform == "darwin":
            failed = libc.renamex_np(names[0], names[1], ctypes.c_uint(2))
        else:
            return False
        if not failed:
            return True
    # Whatever the reason was, the two renames that follow meet it again and say so.
    return False


def remove(path: Path) -> None:
    """Deletes a file or a link, a write-protected one too."""
    before("remove", path)
    try:
        path.unlink()
    except PermissionError:
        if os.name != "nt":
            raise
        path.chmod(stat.S_IWRITE)
        path.unlink()


def remove_folder(path: Path) -> None:
    """Deletes an empty folder."""
    before("remove_folder", path)
    path.rmdir()


def give(path: Path, uid: int, gid: int) -> None:
    """Makes a file or folder somebody else's. Only root can, and only where there are users."""
    before("give", path)
    if sys.platform != "win32":
        os.chown(path, uid, gid, follow_symlinks=False)


class Backup:
    """A folder `bridged-backup-YYYYMMDD-HHMMSS` (local time) in `root`, made when the first thing is put into it.

    It has a `.gitignore` of its own: `git status` of a checkout stays as it was, and `git clean` leaves it alone.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.folder: Path | None = None
        self.names: list[str] = []

    def take(self, path: Path, name: str) -> Path:
        """Moves a file or a link into the backup, under `name` (with `/`), and says where it is now."""
        target = self._place(name)
        move_anywhere(path, target)
        self.names.append(name)
        return target

    def copy(self, path: Path, name: str) -> Path:
        """Copies a file into the backup and says where."""
        target = self._place(name)
        write(target, path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
        self.names.append(name)
        return target

    def _place(self, name: str) -> Path:
        if self.folder is None:
            stamp = time.strftime("bridged-backup-%Y%m%d-%H%M%S")
            folder, number = self._root / stamp, 1
            while exists(folder):
                number += 1
                folder = self._root / f"{stamp}-{number}"
            make_folder(folder)
            write(folder / ".gitignore", b"*\n")
            self.folder = folder
        target = self.folder.joinpath(*name.split("/"))
        make_folder(target.parent)
        number = 1
        while exists(target):
            number += 1
            target = target.with_name(f"{name.rsplit('/', 1)[-1]}.{number}")
        return target
