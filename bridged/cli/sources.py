"""Python files of others: read with the encoding that they declare, replaced whole with all that they had."""

from __future__ import annotations

import codecs
import io
import os
import stat
import tempfile
import tokenize
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import msgspec

from bridged.errors import BadInput
from bridged.nodedefs.pysource import Elsewhere, Source, parse


class Read(msgspec.Struct, frozen=True):
    """One file: its bytes, how they are to be understood, and its text, parsed."""

    content: bytes
    encoding: str
    mark: bool
    source: Source

    def encode(self, text: str) -> bytes:
        """The bytes of a changed text, in the same encoding, with a byte order mark where there was one."""
        return (codecs.BOM_UTF8 if self.mark else b"") + text.encode(self.encoding)


class Sources:
    """All files of a command line; one that cannot be used is said on standard error and does not hold up the rest."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self.good: dict[Path, Read] = {}
        self.bad = False
        self.elsewhere = Elsewhere()
        seen: set[Path] = set()
        for path in self._walk(paths):
            real = path.resolve()
            if real in seen:
                continue
            seen.add(real)
            try:
                read = _read(path)
            except (BadInput, OSError) as error:
                self.refuse(path, error)
                continue
            self.good[path] = read
            self.elsewhere |= read.source.elsewhere()

    def refuse(self, path: Path, error: BadInput | OSError) -> None:
        """Says in one line what is wrong with a file."""
        self.bad = True
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        click.echo(f"{path}: {reason}", err=True)

    def _walk(self, paths: tuple[Path, ...]) -> Iterator[Path]:
        for path in paths:
            if not path.is_dir():
                yield path
                continue
            for folder, folders, files in os.walk(path, onerror=self._unreadable):
                folders[:] = sorted(name for name in folders if name != "__pycache__" and not name.startswith("."))
                for name in sorted(files):
                    if name.endswith(".py") and not name.startswith("."):
                        yield Path(folder, name)

    def _unreadable(self, error: OSError) -> None:
        self.refuse(Path(error.filename), error)


def _read(path: Path) -> Read:
    content = path.read_bytes()
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        mark = encoding == "utf-8-sig"
        encoding = "utf-8" if mark else encoding
        text = content.removeprefix(codecs.BOM_UTF8).decode(encoding) if mark else content.decode(encoding)
        if text.encode(encoding) != content[len(codecs.BOM_UTF8) if mark else 0 :]:
            raise BadInput(f"line 1: {encoding} does not give it back as it is")
    except (SyntaxError, UnicodeError, LookupError) as error:
        raise BadInput(f"line 1: {error}") from None
    return Read(content, encoding, mark, parse(text))


def replace(path: Path, old: bytes, new: bytes) -> None:
    """Replaces a file at once: whoever reads it sees all of the old or all of the new text.

    Mode and, where we may, owner stay; of a symbolic link, what it points to is replaced. Raises BadInput: the file
    is not what was read any more; OSError.
    """
    target = path.resolve()
    status = target.stat()
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(new)
            with suppress(PermissionError):  # a file of somebody else's that we may write becomes ours
                os.fchown(file.fileno(), status.st_uid, status.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(status.st_mode))
            file.flush()
            os.fsync(file.fileno())
        if target.read_bytes() != old:
            raise BadInput("it was changed meanwhile; nothing was written")
        os.replace(name, target)
    except (OSError, BadInput):
        with suppress(OSError):
            os.unlink(name)
        raise
