"""Files that a client or a PC made up: the gate takes them or refuses them, and says nothing else."""

from __future__ import annotations

import tempfile
from pathlib import Path

import trio
import trio.testing
from hypothesis import strategies as st

from bridged.config.schema import DEFAULT_TYPES, Files
from bridged.errors import FileRefused, ScannerAway
from bridged.files import clamd, clean
from bridged.files.clamd import Scanner
from bridged.files.verify import is_cheap, verify
from tests.corpus.seeds import seed
from tests.fuzz.mutation import damaged
from tests.fuzz.target import target

MORE_TYPES = {
    **{"image/avif": [".avif"], "image/svg+xml": [".svg"], "text/plain": [".txt"], "application/json": [".json"]},
    **{"audio/mp4": [".m4a"], "video/x-matroska": [".mkv"]},
}
RULES = Files(max_pixels=1.0, max_side=4096, max_frames=50, allowed=DEFAULT_TYPES | MORE_TYPES)
EXTENSIONS = [extension for extensions in RULES.allowed.values() for extension in extensions]

PICTURES = [".png", ".jpg", ".webp", ".gif", ".bmp", ".tif"]
MEDIA = [".mp4", ".mov", ".webm", ".mp3", ".wav", ".flac", ".ogg"]
TEXTS = [
    b"plain text, with \xc3\xbcml\xc3\xa4uts\n",
    b'{"a": [1, 2.5, null], "b": {"c": "\\u00e4"}}',
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><g id="a"><path d="M0 0"/></g></svg>',
]
WORDS = [
    *[b"IHDR", b"IDAT", b"IEND", b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"acTL", b"fcTL", b"fdAT", b"eXIf"],
    *[b"\xff\xd8", b"\xff\xd9", b"\xff\xda", b"\xff\xe1", b"\xff\xc0", b"\xff\xc4", b"Exif\0\0", b"II*\0", b"MM\0*"],
    *[b"RIFF", b"WEBP", b"VP8 ", b"VP8L", b"VP8X", b"ANIM", b"ANMF", b"WAVE", b"fmt ", b"data", b"LIST", b"RF64"],
    *[b"ftyp", b"moov", b"mdat", b"trak", b"stsd", b"uuid", b"free", b"meta", b"\0\0\0\1"],
    *[b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75", b"\x01\xff\xff\xff\xff\xff\xff\xff", b"OggS"],
    *[b"fLaC", b"ID3\4", b"TAG", b"\xff\xfb", b"PK\3\4", b"PK\5\6", b"<script>", b"<?php", b"<!DOCTYPE", b"<!ENTITY"],
    *[b"%PDF-1.4", b"MZ", b"\x7fELF", b"\0;", b"!\xfe", b"!\xf9\4", b"\xef\xbb\xbf", b"\xff\xfe", b"&#x"],
]


@st.composite
def files(draw: st.DrawFn, extensions: list[str]) -> tuple[bytes, str]:
    """A damaged file, and the extension it had before."""
    extension = draw(st.sampled_from(extensions))
    return draw(damaged([seed(extension)], WORDS)), extension


def checked(content: bytes | Path, name: str, declared: str = "") -> str | None:
    try:
        kind = verify(content, name, RULES, declared)
    except FileRefused as refusal:
        str(refusal).encode()
        return None
    assert kind in RULES.allowed
    return kind


@target(
    st.binary(max_size=200) | st.sampled_from(WORDS).flatmap(lambda word: st.binary(max_size=60).map(word.__add__)),
    st.sampled_from(EXTENSIONS),
    st.sampled_from(["", "image/png", ";", "text/html; charset=x", "*/*", "\0"]),
)
def test_any_bytes_are_of_an_allowed_type_or_refused(content: bytes, extension: str, declared: str) -> None:
    is_cheap(content)
    checked(content, f"a{extension}", declared)


@target(files(PICTURES))
def test_any_damaged_picture_is_taken_or_refused(file: tuple[bytes, str]) -> None:
    content, extension = file
    is_cheap(content)
    kind = checked(content, f"a{extension}")
    if kind is not None:
        cleaned(content, kind, extension)


@target(files(MEDIA), examples=150)
def test_any_damaged_sound_or_video_is_taken_or_refused(file: tuple[bytes, str]) -> None:
    content, extension = file
    kind = checked(content, f"a{extension}")
    if kind is not None:
        cleaned(content, kind, extension)


def cleaned(content: bytes, kind: str, extension: str) -> None:
    """What was taken can be cleaned, or is refused then; what comes of it passes again."""
    try:
        without = clean.strip_bytes(content, kind, "a")
    except FileRefused:
        return
    assert verify(without, f"a{extension}", RULES) == kind
    try:
        anew = clean.reencode_bytes(content, kind, RULES, "a")
    except FileRefused:
        return
    assert verify(anew, f"a{extension}", RULES) == kind


@target(damaged(TEXTS, WORDS), st.sampled_from([".txt", ".json", ".svg", ".png"]))
def test_any_text_is_taken_or_refused(content: bytes, extension: str) -> None:
    checked(content, f"a{extension}")


@target(files(PICTURES + MEDIA), examples=150)
def test_what_is_on_disk_is_judged_as_what_is_in_memory(file_and_extension: tuple[bytes, str]) -> None:
    content, extension = file_and_extension
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        assert checked(Path(file.name), f"a{extension}") == checked(content, f"a{extension}")


# -- the virus scanner's replies -------------------------------------------------------------------------------------

REPLIES = [
    *[b"stream: OK\0", b"stream: Eicar-Test-Signature FOUND\0", b"INSTREAM size limit exceeded. ERROR\0"],
    *[b"stream: OK", b"", b"\0", b"stream:  FOUND\0", b"stream: OK FOUND\0", b"UNKNOWN COMMAND\0"],
]


@target(damaged(REPLIES, [b"\0", b"OK", b" FOUND", b"\n", b"stream: "]) | st.binary(max_size=5000))
def test_only_a_clear_answer_of_the_scanner_counts(reply: bytes) -> None:
    async def ask() -> bool:
        ours, theirs = trio.testing.memory_stream_pair()
        await theirs.send_all(reply)
        await theirs.send_eof()

        async def connected(address: str) -> trio.abc.Stream:
            return ours

        before, clamd._connected = clamd._connected, connected  # type: ignore[assignment]
        try:
            await Scanner().scan("unix:/nowhere", b"content", "a.png")
        except (FileRefused, ScannerAway) as refusal:
            str(refusal).encode()
            return False
        finally:
            clamd._connected = before
        return True

    if trio.run(ask):
        said = "".join(c for c in reply.split(b"\0")[0].decode(errors="replace") if c.isprintable())
        assert said.strip() == "stream: OK"
        assert b"\0" in reply[:8192]
