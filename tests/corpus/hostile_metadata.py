"""Programs in what is meant for words: comments, titles, EXIF, XMP. Whoever includes such a file, or shows its title
on a page, runs them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator

from PIL import Image, PngImagePlugin

from tests.corpus import forms
from tests.corpus.case import MIME, Case
from tests.corpus.payloads import ACTIVE, JAR, PHP, SCRIPT, ZIP
from tests.corpus.seeds import pillow, scene, seed

XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:dc="http://purl.org/dc/elements/1.1/">%s</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


def xmp(inner: bytes) -> bytes:
    return (XMP % "@").encode().replace(b"@", inner)


def exif(tag: int, value: bytes | str, place: int = 0) -> bytes:
    """An EXIF block with one tag; `place` 0x8769: in the Exif IFD."""
    block = Image.Exif()
    if place:
        block.get_ifd(place)[tag] = value
    else:
        block[tag] = value
    data: bytes = block.tobytes()
    return data


def _jpeg_app(payload: bytes) -> bytes:
    return forms.jpeg_with(seed(".jpg"), forms.jpeg_segment(0xE1, payload))


def _picture(form: str, **options: object) -> bytes:
    return pillow(Image.fromarray(scene()), form, **options)


def _itxt(text: bytes, packed: bool) -> bytes:
    head = b"Comment\0" + bytes([packed, 0]) + b"en\0\0"
    return forms.png_with(seed(".png"), (b"iTXt", head + (zlib.compress(text) if packed else text)))


def _late(text: bytes) -> bytes:
    return forms.png_with(seed(".png"), (b"tEXt", b"Comment\0" + text), before=b"IEND")


def _comfy(text: bytes) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", '{"6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat"}}}')
    info.add_text("parameters", text.decode("latin-1"))
    return _picture("PNG", pnginfo=info)


def _animated(text: bytes) -> bytes:
    first, second = Image.fromarray(scene()), Image.fromarray(scene(seed=2))
    body = io.BytesIO()
    first.save(body, "PNG", save_all=True, append_images=[second])
    return forms.png_with(body.getvalue(), (b"tEXt", b"Title\0" + text), before=b"fdAT")


CARRIERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "PNG tEXt": (".png", lambda text: forms.png_with(seed(".png"), (b"tEXt", b"Comment\0" + text))),
    "PNG tEXt keyword": (".png", lambda text: forms.png_with(seed(".png"), (b"tEXt", text[:79] + b"\0hello"))),
    "PNG tEXt behind the pixels": (".png", _late),
    "PNG zTXt": (".png", lambda text: forms.png_with(seed(".png"), (b"zTXt", b"Comment\0\0" + zlib.compress(text)))),
    "PNG iTXt": (".png", lambda text: _itxt(text, False)),
    "PNG iTXt, compressed": (".png", lambda text: _itxt(text, True)),
    "PNG eXIf": (".png", lambda text: _picture("PNG", exif=exif(0x010E, text.decode("latin-1")))),
    "PNG XMP": (".png", lambda text: forms.png_with(
        seed(".png"), (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(text))
    )),
    "PNG private chunk": (".png", lambda text: forms.png_with(seed(".png"), (b"noTe", text))),
    "PNG beside a prompt": (".png", _comfy),
    "APNG tEXt": (".png", _animated),
    "JPEG COM": (".jpg", lambda text: forms.jpeg_with(seed(".jpg"), forms.jpeg_segment(0xFE, text))),
    "JPEG second COM": (".jpg", lambda text: forms.jpeg_with(
        seed(".jpg"), forms.jpeg_segment(0xFE, b"holiday"), forms.jpeg_segment(0xFE, text)
    )),
    "JPEG EXIF UserComment": (".jpg", lambda text: _picture(
        "JPEG", exif=exif(0x9286, b"ASCII\0\0\0" + text, 0x8769)
    )),
    "JPEG EXIF ImageDescription": (".jpg", lambda text: _picture("JPEG", exif=exif(0x010E, text.decode("latin-1")))),
    "JPEG EXIF Make": (".jpg", lambda text: _picture("JPEG", exif=exif(0x010F, text.decode("latin-1")))),
    "JPEG EXIF XPComment": (".jpg", lambda text: _picture(
        "JPEG", exif=exif(0x9C9C, text.decode("latin-1").encode("utf-16-le"))
    )),
    "JPEG XMP": (".jpg", lambda text: _jpeg_app(b"http://ns.adobe.com/xap/1.0/\0" + xmp(text))),
    "JPEG IPTC caption": (".jpg", lambda text: forms.jpeg_with(
        seed(".jpg"), forms.jpeg_segment(0xED, _iptc(text))
    )),
    "JPEG unknown APP": (".jpg", lambda text: forms.jpeg_with(seed(".jpg"), forms.jpeg_segment(0xE9, text))),
    "GIF comment": (".gif", lambda text: forms.gif_with(seed(".gif"), forms.gif_comment(text))),
    "GIF plain text": (".gif", lambda text: forms.gif_with(
        seed(".gif"), b"\x21\x01\x0c" + struct.pack("<HHHHBBBB", 0, 0, 8, 8, 8, 8, 0, 1) + forms.gif_blocks(text)
    )),
    "GIF application": (".gif", lambda text: forms.gif_with(
        seed(".gif"), b"\x21\xff\x0bEVILAPP1.00" + forms.gif_blocks(text)
    )),
    "GIF XMP": (".gif", lambda text: forms.gif_with(seed(".gif"), b"\x21\xff\x0bXMP DataXMP" + xmp(text) + _magic())),
    "WebP EXIF": (".webp", lambda text: _picture("WEBP", exif=exif(0x010E, text.decode("latin-1")))),
    "WebP XMP": (".webp", lambda text: _picture("WEBP", xmp=xmp(text))),
    "TIFF ImageDescription": (".tif", lambda text: _picture("TIFF", tiffinfo={270: text.decode("latin-1")})),
    "TIFF Software": (".tif", lambda text: _picture("TIFF", tiffinfo={305: text.decode("latin-1")})),
    "TIFF XMP": (".tif", lambda text: _picture("TIFF", tiffinfo={700: xmp(text)})),
    "MP3 comment": (".mp3", lambda text: seed(".mp3", text.decode("latin-1"))),
    "FLAC comment": (".flac", lambda text: seed(".flac", text.decode("latin-1"))),
    "Ogg comment": (".ogg", lambda text: seed(".ogg", text.decode("latin-1"))),
    "WAV comment": (".wav", lambda text: seed(".wav", text.decode("latin-1"))),
    "MP4 comment": (".mp4", lambda text: seed(".mp4", text.decode("latin-1"))),
    "MOV comment": (".mov", lambda text: seed(".mov", text.decode("latin-1"))),
    "WebM comment": (".webm", lambda text: seed(".webm", text.decode("latin-1"))),
}  # fmt: skip
"""where words go -> the extension, and a file with those words"""


def _iptc(text: bytes) -> bytes:
    record = b"\x1c\x02\x78" + struct.pack(">H", len(text)) + text
    record += b"\x00" * (len(record) & 1)
    return b"Photoshop 3.0\0" + b"8BIM\x04\x04\x00\x00" + struct.pack(">I", len(record)) + record


def _magic() -> bytes:
    """The tail by which a reader of GIF sub-blocks gets through XMP, whose bytes are not in sub-blocks."""
    return b"\x01" + bytes(range(255, -1, -1)) + b"\x00"


def active() -> Iterator[Case]:
    """PHP and a script in every carrier; all the other forms in the three that everybody has."""
    for label, (extension, make) in CARRIERS.items():
        for name in ("php", "script"):
            data = make(ACTIVE[name])
            yield Case(f"{name} in {label}", f"file{extension}", data, MIME[extension], f"active content in {label}")
    for label in ("PNG tEXt", "JPEG COM", "GIF comment"):
        extension, make = CARRIERS[label]
        for name in [name for name in ACTIVE if name not in ("php", "script")]:
            why = f"active content in {label}"
            yield Case(f"{name} in {label}", f"file{extension}", make(ACTIVE[name]), MIME[extension], why)


def hidden() -> Iterator[Case]:
    """Archives and programs in place of words, and scripts in the thumbnail of a photo."""
    for label in ("PNG tEXt", "JPEG COM", "GIF comment", "JPEG unknown APP"):
        extension, make = CARRIERS[label]
        for name, data in (("ZIP", ZIP), ("JAR", JAR)):
            yield Case(f"{name} in {label}", f"file{extension}", make(data), MIME[extension], f"{name} in {label}")
    profile = forms.png_with(seed(".png"), (b"iCCP", b"ICC\0\0" + zlib.compress(PHP * 20)))
    yield Case("PHP in PNG iCCP", "file.png", profile, "image/png", "the colour profile is a program")
    colour = forms.jpeg_segment(0xE2, b"ICC_PROFILE\0\x01\x01" + SCRIPT * 20)
    jpeg = forms.jpeg_with(seed(".jpg"), colour)
    yield Case("script in JPEG ICC", "file.jpg", jpeg, "image/jpeg", "the colour profile is a page")
