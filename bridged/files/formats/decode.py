"""Full decoding by Pillow of what was walked before: every frame, by the decoder of the one format that it is.

Our own limits hold, which the walk has checked; Pillow's guard against large pictures would only warn. PNG is not
decoded here: `png.py` counts its scanlines in constant memory. Pictures of more than LARGE pixels are decoded in a
process of their own (this module, run), with limits of memory and time: one of 96 million pixels took 288 MB of the
service's memory as a progressive JPEG, and 132 MB as a TIFF (measured).
"""

from __future__ import annotations

import ctypes
import io
import logging
import resource
import signal
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, TiffImagePlugin, WebPImagePlugin
from PIL.ImageFile import ImageFile

from bridged.files.formats.limits import Picture
from bridged.files.formats.source import Refusal

log = logging.getLogger(__name__)

Image.MAX_IMAGE_PIXELS = None
warnings.filterwarnings("ignore", module=r"PIL\.")  # of damaged metadata: the walk has judged that


def _silence_libtiff() -> None:
    """libtiff writes what it dislikes to standard error, a line per row of a damaged fax: a file could fill the log."""
    with suppress(OSError, AttributeError):
        maps = Path("/proc/self/maps").read_text(errors="replace").splitlines()
        for path in {line.split(maxsplit=5)[-1] for line in maps if "/libtiff" in line}:
            library = ctypes.CDLL(path)
            library.TIFFSetErrorHandler(None)
            library.TIFFSetWarningHandler(None)


_silence_libtiff()

_PLUGINS: dict[str, type[ImageFile]] = {
    "image/jpeg": JpegImagePlugin.JpegImageFile,  # not the factory, which would go on to an MPO's other pictures
    "image/gif": GifImagePlugin.GifImageFile,
    "image/webp": WebPImagePlugin.WebPImageFile,
    "image/bmp": BmpImagePlugin.BmpImageFile,
    "image/tiff": TiffImagePlugin.TiffImageFile,
}

LARGE = 8_000_000
"""pixels of all frames; decoding them takes less time than a process needs to start (0.15 s)"""

PATIENCE, CPU, MEMORY = 60, 30, 4 * 10**9
"""seconds, seconds of CPU and bytes of address space that the process may take"""

REFUSED, OUT_OF_MEMORY = 3, 4
"""its exit status when it says why on its standard output, and when it cannot go on"""

BROKE_IT = {OUT_OF_MEMORY, *(-number for number in (signal.SIGXCPU, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS))}
"""how it ends by what is in the picture; every other end is a fault of ours"""

PR_SET_PDEATHSIG = 1
"""prctl(2)"""

_EIGHTH = 8
"""JPEG: decoded at an eighth of its size, which reads all of its data and needs a 64th of the memory"""


def decode(content: Path | bytes, kind: str, picture: Picture) -> None:
    """Decodes every frame of a picture that has the given size; with no frames, only opens it. Blocking, up to PATIENCE
    seconds.

    Raises Refusal for whatever Pillow says of it, and OSError where the disk cannot be read.
    """
    # A file object and no name: given a name, Pillow would map a BMP into memory.
    with io.BytesIO(content) if isinstance(content, bytes) else open(content, "rb") as file:
        if picture.cost > LARGE:
            _decode_apart(file, kind, picture)
        else:
            _decode_here(file, kind, picture)


def _decode_here(file: BinaryIO, kind: str, picture: Picture) -> None:
    try:
        _decode(file, kind, picture)
    except Refusal:
        raise
    except OSError as error:
        if error.errno is not None and not isinstance(error, EOFError):
            raise  # the disk's, not the picture's
        raise Refusal(f"it cannot be decoded: {_said(error)}") from None
    except Exception as error:
        raise Refusal(f"it cannot be decoded: {_said(error)}") from None


def _decode_apart(file: BinaryIO, kind: str, picture: Picture) -> None:
    given: dict[str, Any] = {"input": file.getvalue()} if isinstance(file, io.BytesIO) else {"stdin": file}
    try:
        ended: subprocess.CompletedProcess[bytes] = subprocess.run(
            [sys.executable, "-P", "-m", __spec__.name, kind, *map(str, picture)],
            capture_output=True,
            timeout=PATIENCE,
            cwd="/",
            env={"PYTHONPATH": str(Path(__file__).parents[3])},
            start_new_session=True,  # what the terminal says to the service is not for it
            **given,
        )
    except subprocess.TimeoutExpired:
        raise Refusal("it takes too long to decode") from None
    if ended.returncode == REFUSED:
        raise Refusal(ended.stdout.decode(errors="replace"))
    if ended.returncode in BROKE_IT:
        raise Refusal("it cannot be decoded within the time and the memory that a picture may take")
    if ended.returncode:
        said = ended.stderr.decode(errors="replace")[-2000:]
        log.error("the picture decoder ended with %d: %s", ended.returncode, said)
        raise OSError("the picture decoder failed")


def _main(kind: str, width: str, height: str, frames: str) -> int:
    """The process: the picture comes on standard input. It ends with the thread that waits for it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # told to the whole service: its own stop is what counts
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU, CPU))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    stream = sys.stdin.buffer
    file = stream if stream.seekable() else io.BytesIO(stream.read())
    try:
        _decode_here(file, kind, Picture(int(width), int(height), int(frames)))
    except Refusal as refusal:
        sys.stdout.write(str(refusal))
        return REFUSED
    except MemoryError:
        return OUT_OF_MEMORY
    return 0


def _decode(file: BinaryIO, kind: str, picture: Picture) -> None:
    with _PLUGINS[kind](file) as image:
        if kind != "image/gif" and image.size != picture[:2] and image.size[::-1] != picture[:2]:
            raise Refusal("its decoder sees another size than its header says")
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            image.draft(None, (max(1, picture.width // _EIGHTH), max(1, picture.height // _EIGHTH)))
        for number in range(picture.frames):
            if number:
                image.seek(number)
            image.load()


def _said(error: Exception) -> str:
    """Pillow's words, without what they may say of the file's place."""
    words = str(error).split("<", 1)[0].strip(" :")
    return words[:100] if words else type(error).__name__


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
