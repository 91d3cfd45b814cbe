"""Files that are two things at once: a valid picture, film or sound, and something that another program runs or opens.

After the tricks collected by Ange Albertini (Corkami, Mitra), GIFAR (2008) and Gareth Heyes' JPEG that is a script.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.corpus import forms, payloads
from tests.corpus.case import MIME, Case
from tests.corpus.payloads import APPENDED, HTML, JAR, PDF, PHP, SCRIPT, ZIP, archive
from tests.corpus.seeds import EXTENSIONS, pillow, scene, seed


def _case(extension: str, label: str, content: bytes, why: str) -> Case:
    return Case(f"{extension} {label}", f"file{extension}", content, MIME[extension], why)


def appended() -> Iterator[Case]:
    for extension in EXTENSIONS:
        for label, payload in APPENDED.items():
            yield _case(extension, f"+ {label}", seed(extension) + payload, f"{label} behind the end")
    for extension in (".png", ".jpg", ".gif", ".mp4"):
        padded = seed(extension) + bytes(5000)
        yield _case(extension, "+ zeros + ZIP", padded + ZIP, "a ZIP behind the end and some padding")
        yield _case(extension, "+ zeros + PHP", padded + PHP, "PHP behind the end and some padding")
        yield _case(extension, "+ newline + script", seed(extension) + b"\r\n" + SCRIPT, "a script behind the end")


def spanning(before: bytes, after: bytes) -> bytes:
    """A ZIP to be put between `before` and `after`, whose comment takes in all of `after`: it is found from the end of
    the file, and its offsets are right."""
    zipped = archive({"evil.php": PHP, "Evil.class": payloads.JAVA_CLASS})
    end = zipped.rindex(b"PK\x05\x06")
    directory = struct.unpack_from("<I", zipped, end + 16)[0]
    body = bytearray(zipped)
    struct.pack_into("<I", body, end + 16, directory + len(before))
    struct.pack_into("<H", body, end + 20, len(after))
    at = directory
    while body[at : at + 4] == b"PK\x01\x02":
        names = struct.unpack_from("<HHH", body, at + 28)
        struct.pack_into("<I", body, at + 42, struct.unpack_from("<I", body, at + 42)[0] + len(before))
        at += 46 + sum(names)
    return bytes(body)


def archives_within() -> Iterator[Case]:
    """No byte follows the end, and yet unzip, Python and Java open it: the archive's end is in a comment, an unused
    chunk, or among samples that nobody looks at."""
    size = len(spanning(b"", b""))
    jpeg = seed(".jpg")
    head = jpeg[:2] + b"\xff\xfe" + struct.pack(">H", size + 2)
    yield _case(".jpg", "ZIP in COM", head + spanning(head, jpeg[2:]) + jpeg[2:], "an archive in a comment")
    head = jpeg[:2] + b"\xff\xeb" + struct.pack(">H", size + 2)
    yield _case(".jpg", "ZIP in APP11", head + spanning(head, jpeg[2:]) + jpeg[2:], "an archive in a segment")

    png = seed(".png")
    tail = forms.png_chunk(b"IEND")
    head = png[: -len(tail)] + struct.pack(">I", size) + b"ziPp"
    zipped = spanning(head, bytes(4) + tail)
    whole = head + zipped + struct.pack(">I", zlib.crc32(b"ziPp" + zipped)) + tail
    yield _case(".png", "ZIP in a private chunk", whole, "an archive in an unknown chunk")
    yield _case(".png", "JAR in a private chunk", forms.png_with(png, (b"jaRr", JAR), before=b"IEND"), "a JAR")
    yield _case(".png", "chunk behind IEND", png + forms.png_chunk(b"tEXt", b"Comment\0" + PHP), "data behind the end")
    yield _case(".png", "PNG behind PNG with PHP", png + png + PHP, "PHP behind a second picture")

    gif = seed(".gif")
    yield _case(".gif", "ZIP in an unknown extension", forms.gif_with(gif, b"\x21\x99" + forms.gif_blocks(ZIP)), "ZIP")

    webp = seed(".webp")
    yield _case(".webp", "ZIP in an unknown chunk", forms.riff_with(webp, (b"ZIPP", ZIP)), "an archive in a chunk")
    yield _case(".webp", "PHP in an unknown chunk", forms.riff_with(webp, (b"NOTE", PHP)), "PHP in a chunk")

    wav = seed(".wav")
    yield _case(".wav", "ZIP in an unknown chunk", forms.riff_with(wav, (b"zip ", ZIP)), "an archive in a chunk")
    yield _case(".wav", "HTML in an unknown chunk", forms.riff_with(wav, (b"note", HTML)), "a page in a chunk")

    for extension in (".mp4", ".mov"):
        mp4 = seed(extension)
        for label, payload in (("ZIP", ZIP), ("HTML", HTML), ("PHP", PHP)):
            yield _case(extension, f"{label} in free", mp4 + forms.box(b"free", payload), f"{label} in padding")
        yield _case(extension, "ZIP in skip", mp4 + forms.box(b"skip", ZIP), "an archive in padding")
        yield _case(extension, "JAR in an unknown box", mp4 + forms.box(b"jarr", JAR), "an archive in a box")

    webm = seed(".webm")
    start = webm.find(b"\x18\x53\x80\x67")
    for label, payload in (("HTML", HTML), ("PHP", PHP)):
        hidden = webm[:start] + forms.element(b"\xec", payload) + webm[start:]
        yield _case(".webm", f"{label} in Void", hidden, f"{label} in padding")
    yield _case(".webm", "ZIP in Void", webm + forms.element(b"\xec", ZIP), "an archive in padding")

    flac = seed(".flac")
    for label, payload in (("ZIP", ZIP), ("PHP", PHP)):
        block = b"\x02" + (len(payload) + 4).to_bytes(3, "big") + b"evil" + payload
        hidden = flac[:42] + block + flac[42:]
        yield _case(".flac", f"{label} in APPLICATION", hidden, f"{label} in a metadata block")
        padding = b"\x01" + len(payload).to_bytes(3, "big") + payload
        yield _case(".flac", f"{label} in PADDING", flac[:42] + padding + flac[42:], f"{label} in padding")


def archives_in_pixels() -> Iterator[Case]:
    """Uncompressed pixels or samples that are a whole archive up to the file's end. What pixels merely spell is
    innocent; that unzip opens the file is not."""
    bmp = forms.bmp_of(32, 64, bytes(scene(32, 64).tobytes()))
    body = bmp[: -len(spanning(b"", b""))]
    yield _case(".bmp", "pixels are a ZIP", body + spanning(body, b""), "unzip opens it")
    wav = seed(".wav")
    body = wav[: -len(spanning(b"", b""))]
    yield _case(".wav", "samples are a ZIP", body + spanning(body, b""), "unzip opens it")
    grey = forms.tiff_of(forms.tiff_grey(64, 64, 4096), scene(64, 64, channels=1).tobytes())
    body = grey[: -len(spanning(b"", b""))]
    yield _case(".tif", "pixels are a ZIP", body + spanning(body, b""), "unzip opens it")

    # Deflate stores what does not compress: the archive's bytes stand in the file as they are.
    size = len(spanning(b"", b""))
    noise = np.random.default_rng(5).integers(0, 256, (4, 3 * size), np.uint8)
    raw = b"".join(b"\0" + row.tobytes() for row in noise)
    tail = bytes(8) + forms.png_chunk(b"IEND")
    head = forms.png_header(3 * size, 4)
    before = len(forms.PNG_MAGIC + forms.png_chunk(*head)) + 8 + 2 + 5 + len(raw) - size
    raw = raw[:-size] + spanning(bytes(before), tail)
    yield _case(".png", "pixels are a ZIP", forms.png_of(head, raw, level=0), "unzip opens it")


def gaps() -> Iterator[Case]:
    """Bytes that no reader of the picture ever looks at."""
    hidden = {"HTML": HTML, "PDF": PDF, "PHP": PHP, "ZIP": ZIP}
    for label, payload in hidden.items():
        bmp = forms.bmp_of(16, 16, scene(16, 16).tobytes(), gap=payload)
        yield _case(".bmp", f"{label} before the pixels", bmp, f"{label} in the first bytes, where no pixels are")
        tif = forms.tiff_of(forms.tiff_grey(16, 16, 256), scene(16, 16, channels=1).tobytes(), gap=payload)
        yield _case(".tif", f"{label} before the IFD", tif, f"{label} in the first bytes, where no pixels are")


def early() -> Iterator[Case]:
    """What a reader that guesses takes them for: HTML within the first 256 bytes, a PDF's header within 1 kB."""
    for label, payload in (("HTML", HTML), ("PDF", PDF)):
        why = f"{label} where readers look for it"
        for extension, data in _with_early(payload):
            yield _case(extension, f"{label} at the start", data, why)


def _with_early(payload: bytes) -> Iterator[tuple[str, bytes]]:
    yield ".jpg", forms.jpeg_with(seed(".jpg"), forms.jpeg_segment(0xFE, payload), first=True)
    yield ".png", forms.png_with(seed(".png"), (b"tEXt", b"Comment\0" + payload))
    yield ".gif", forms.gif_with(forms.gif_of(1, 1, forms.gif_frame()), forms.gif_comment(payload))
    yield ".tif", pillow(Image.fromarray(scene()), "TIFF", tiffinfo={270: payload.decode("latin-1")})
    yield ".mp3", b"ID3\x03\x00\x00" + _synchsafe(len(payload) + 15) + _frame(payload) + seed(".mp3")
    yield (
        ".flac",
        seed(".flac")[:42] + b"\x04" + _comment_block(payload) + _second_comments_gone(seed(".flac")),
    )


def _synchsafe(size: int) -> bytes:
    return bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0))


def _frame(text: bytes) -> bytes:
    return b"COMM" + struct.pack(">IH", len(text) + 5, 0) + b"\x00eng\x00" + text


def _comment_block(text: bytes) -> bytes:
    entry = b"comment=" + text
    body = struct.pack("<I", 4) + b"ffmp" + struct.pack("<II", 1, len(entry)) + entry
    return len(body).to_bytes(3, "big") + body


def _second_comments_gone(flac: bytes) -> bytes:
    """The blocks behind STREAMINFO without the encoder's own comments, and the frames."""
    at, kept, last = 42, b"", False
    while not last:
        last, kind = bool(flac[at] & 0x80), flac[at] & 0x7F
        size = int.from_bytes(flac[at + 1 : at + 4], "big")
        if kind != 4:
            kept += flac[at : at + 4 + size]
        elif last:
            kept += b"\x81\x00\x00\x00"
        at += 4 + size
    return kept + flac[at:]


def scripts() -> Iterator[Case]:
    """Headers that are the start of a comment in JavaScript, whose end and code are in a comment of the picture."""
    gif = forms.gif_of(0x2A2F, 1, forms.gif_comment(payloads.JS), forms.gif_frame())
    yield _case(".gif", "GIF/JS, in a comment", gif, "runs as <script src>")
    narrow = forms.gif_of(0x2A2F, 1, forms.gif_frame())
    yield _case(".gif", "GIF/JS, behind the end", narrow + payloads.JS, "runs as <script src>")
    yield _case(".gif", "GIF89a=1", b"GIF89a=1;alert(1)//" + bytes(40) + b"\x3b", "runs as <script src>")
    bmp = bytearray(forms.bmp_of(16, 16, scene(16, 16).tobytes()))
    bmp[2:4] = b"/*"
    yield _case(".bmp", "BMP/JS", bytes(bmp) + payloads.JS, "runs as <script src>")
    jpeg = seed(".jpg")
    wide = b"\xff\xe0\x2f\x2aJFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00" + bytes(0x2F2A - 16)
    hidden = jpeg[:2] + wide + forms.jpeg_segment(0xFE, payloads.JS) + forms.jpeg_without(jpeg, 0xE0)[2:]
    yield _case(".jpg", "JPEG/JS", hidden, "runs as <script src charset=latin-1>")
    webp = seed(".webp")
    yield _case(".webp", "RIFF/JS", webp[:4] + b"=0/*" + webp[8:] + payloads.JS, "runs as <script src>")
