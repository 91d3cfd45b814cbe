"""Ordinary words where words go: comments in many languages, ComfyUI's graphs, what cameras and editors write."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator

from PIL import Image, PngImagePlugin

from tests.corpus import forms
from tests.corpus.benign_stills import animation, exif, icc, photo
from tests.corpus.case import Case, mime
from tests.corpus.forms import jpeg_segment, jpeg_with
from tests.corpus.hostile_metadata import CARRIERS, xmp
from tests.corpus.seeds import pillow, scene, seed

WORDS = {
    "Korean": "봄 소풍, 한강에서 <3",
    "Japanese": "「夏の思い出」→ 海",
    "Chinese": "五一假期,西湖边",
    "Arabic": "رحلة إلى البحر",
    "Hebrew": "טיול בים",
    "Hindi": "गर्मी की छुट्टियाँ, क्‍ष",
    "Thai": "วันหยุดที่ทะเล",
    "Russian": "Отпуск у моря",
    "Greek": "Διακοπές στη θάλασσα",
    "emoji": "👩‍👩‍👧‍👦 at the 🏖️",
    "mathematics": "if a < b and c > d then a & b <= c; x<y>z",
    "code": "eval(x); import os; exec(code); SELECT * FROM t; DROP TABLE users; rm -rf /",
    "an address": "Photo by <jane@example.org>, https://example.org/?a=1&b=2",
    "a generic type": "std::vector<int>, List<String>, Array<T>",
    "PHP as a word": "I like PHP and JavaScript; script, html and body are words",
    "a price": "$5 <50% off> {ok} [yes] %d \\n `quoted` ${HOME}",
}

PROMPTS = {
    "a LoRA": "a cat <lora:detail_v2:0.8>, (masterpiece:1.2), [bad hands], BREAK <lora:x:1> <hypernet:y:1>",
    "code": "a terminal showing `import os; eval(input())`, SELECT name FROM users WHERE 1=1 --, def main(): pass",
    "wildcards": "{red|green|blue} __animal__ <wildcard:hair> <segm:face> ${color}",
    "Korean": "한복을 입은 소녀, 벚꽃, 최고의 품질",
    "long": "ultra detailed, " * 4000,
    "quotes": 'a sign that says "Hello <World> & \\"friends\\""',
}


def graph(text: str) -> tuple[str, str]:
    """`prompt` and `workflow` as ComfyUI's SaveImage writes them."""
    prompt = {
        "3": {
            "class_type": "KSampler",
            "inputs": {"seed": 1, "steps": 20, "model": ["4", 0], "positive": ["6", 0]},
        },
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd_xl_base_1.0.safetensors"}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": text, "clip": ["4", 1]}},
    }
    code = "import torch\nimport os\n\ndef run(x):\n    return eval(x) if x < 3 else exec(x)\n"
    nodes = [
        {"id": 6, "type": "CLIPTextEncode", "pos": [415, 186], "widgets_values": [text]},
        {"id": 9, "type": "PythonCode", "pos": [0, 0], "widgets_values": [code]},
        {
            "id": 10,
            "type": "Note",
            "pos": [0, 0],
            "widgets_values": ["see https://example.org/?q=<model>&x=1"],
        },
    ]
    workflow = {"last_node_id": 10, "nodes": nodes, "links": [], "version": 0.4}
    return json.dumps(prompt), json.dumps(workflow)


def _case(encoder: str, extension: str, label: str, data: bytes) -> Case:
    name = f"picture{extension}"
    return Case(f"words {extension} {label}", name, data, mime(name), label, encoder=encoder)


def comfyui() -> Iterator[Case]:
    for label, text in PROMPTS.items():
        prompt, workflow = graph(text)
        info = PngImagePlugin.PngInfo()
        info.add_text("prompt", prompt)
        info.add_text("workflow", workflow)
        yield _case("Pillow", ".png", f"ComfyUI, {label}", pillow(photo(), "PNG", pnginfo=info, compress_level=4))
        block = Image.Exif()
        block[0x0110], block[0x010F] = f"prompt:{prompt[:60000]}", f"workflow:{workflow[:60000]}"
        yield _case("Pillow", ".webp", f"ComfyUI, {label}", pillow(photo(), "WEBP", exif=block))
        info = PngImagePlugin.PngInfo()
        info.add_text("parameters", f"{text}\nNegative prompt: <lora:bad:1>\nSteps: 20, Sampler: Euler a, CFG scale: 7")
        yield _case("Pillow", ".png", f"A1111, {label}", pillow(photo(), "PNG", pnginfo=info))
    first = graph(PROMPTS["a LoRA"])
    data = forms.png_with(animation("PNG", 3), (b"comf", b"prompt\0" + first[0].encode()), before=b"acTL")
    yield _case("Pillow", ".png", "ComfyUI, animated, comf chunk", data)
    data = forms.png_with(animation("PNG", 3), (b"tEXt", b"workflow\0" + first[1].encode()), before=b"IEND")
    yield _case("Pillow", ".png", "ComfyUI, animated, at the end", data)
    packed = zlib.compress(first[1].encode())
    data = forms.png_with(seed(".png"), (b"zTXt", b"workflow\0\0" + packed))
    yield _case("Pillow", ".png", "ComfyUI, zTXt", data)


LATIN = ("JPEG EXIF ImageDescription", "TIFF ImageDescription", "PNG eXIf", "WebP EXIF")
RAW = (
    "PNG iTXt",
    "PNG iTXt, compressed",
    "JPEG COM",
    "GIF comment",
    "PNG tEXt",
    "PNG zTXt",
    "JPEG unknown APP",
)


def comments() -> Iterator[Case]:
    """Every carrier that the hostile cases use, with words."""
    for place, (language, text) in enumerate(WORDS.items()):
        for label in (RAW[place % 5], RAW[(place + 2) % 5]):
            extension, make = CARRIERS[label]
            yield _case("by hand", extension, f"{language} in {label}", make(text.encode()))
        for label in ("JPEG XMP", "WebP XMP", "GIF XMP", "TIFF XMP", "PNG XMP")[place % 5 :][:1]:
            extension, make = CARRIERS[label]
            escaped = text.replace("&", "&amp;").replace("<", "&lt;")
            inner = (
                f'<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{escaped}</rdf:li></rdf:Alt></dc:description>'
            )
            yield _case("by hand", extension, f"{language} in {label}", make(inner.encode()))
    for label in LATIN:
        extension, make = CARRIERS[label]
        for language in ("mathematics", "code", "an address"):
            yield _case("Pillow", extension, f"{language} in {label}", make(WORDS[language].encode()))
    for label in (
        "MP3 comment",
        "FLAC comment",
        "Ogg comment",
        "WAV comment",
        "MP4 comment",
        "MOV comment",
        "WebM comment",
    ):
        extension, make = CARRIERS[label]
        for language in ("mathematics", "code", "PHP as a word"):
            yield _case("ffmpeg", extension, f"{language} in {label}", make(WORDS[language].encode()))


MICRO_VIDEO = (
    b'<rdf:Description rdf:about="" xmlns:GCamera="http://ns.google.com/photos/1.0/camera/" GCamera:MicroVideo="1" '
    b'GCamera:MicroVideoVersion="1" GCamera:MicroVideoOffset="%d" GCamera:MicroVideoPresentationTimestampUs="0"/>'
)
MOTION_PHOTO = (
    b'<rdf:Description rdf:about="" xmlns:Camera="http://ns.google.com/photos/1.0/camera/" '
    b'xmlns:Container="http://ns.google.com/photos/1.0/container/" '
    b'xmlns:Item="http://ns.google.com/photos/1.0/container/item/" Camera:MotionPhoto="1" '
    b'Camera:MotionPhotoVersion="1"><Container:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"><Container:Item '
    b'Item:Mime="image/jpeg" Item:Semantic="Primary" Item:Length="0" Item:Padding="0"/></rdf:li><rdf:li '
    b'rdf:parseType="Resource"><Container:Item Item:Mime="video/mp4" Item:Semantic="MotionPhoto" Item:Length="%d"/>'
    b"</rdf:li></rdf:Seq></Container:Directory></rdf:Description>"
)
ULTRA_HDR = (
    b'<rdf:Description rdf:about="" xmlns:Container="http://ns.google.com/photos/1.0/container/" '
    b'xmlns:Item="http://ns.google.com/photos/1.0/container/item/" '
    b'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"><Container:Directory><rdf:Seq>'
    b'<rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="Primary" Item:Mime="image/jpeg"/></rdf:li>'
    b'<rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="GainMap" Item:Mime="image/jpeg" '
    b'Item:Length="%d"/></rdf:li></rdf:Seq></Container:Directory></rdf:Description>'
)


def _described(jpeg: bytes, description: bytes) -> bytes:
    whole = xmp(b"").replace(
        b'<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"></rdf:Description>',
        description,
    )
    return jpeg_with(jpeg, jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + whole))


def cameras() -> Iterator[Case]:
    """JPEGs as telephones, cameras and editors leave them."""
    jpeg = pillow(photo(width=160, height=120), "JPEG", exif=exif())
    film = seed(".mp4")
    thumbnail = pillow(photo(width=16, height=12), "JPEG", quality=40)
    yield _case("by hand", ".jpg", "EXIF with GPS and a thumbnail", with_thumbnail(seed(".jpg"), thumbnail))
    yield _case("by hand", ".jpg", "zeros behind the end", jpeg + bytes(9000))
    yield _case("by hand", ".jpg", "fill bytes before a marker", jpeg[:2] + b"\xff\xff\xff" + jpeg[2:])
    yield _case("by hand", ".jpg", "XMP of 30 kB of padding", _described(jpeg, b" " * 30_000))
    yield _case("by hand", ".jpg", "micro video (Google)", _described(jpeg, MICRO_VIDEO % len(film)) + film)
    yield _case("by hand", ".jpg", "motion photo (Google)", _described(jpeg, MOTION_PHOTO % len(film)) + film)
    yield _case("by hand", ".jpg", "Ultra HDR (Android)", _described(jpeg, ULTRA_HDR % len(thumbnail)) + thumbnail)
    trailer = b"\x00\x00\x01\x0a\x0e\x00\x00\x00Image_UTC_Data1714534245000"
    entry = struct.pack("<HHII", 0, 0x0A01, len(trailer), len(trailer))
    directory = b"SEFH" + struct.pack("<II", 106, 1) + entry
    yield _case(
        "by hand",
        ".jpg",
        "Samsung's trailer",
        jpeg + trailer + directory + struct.pack("<I", len(directory)) + b"SEFT",
    )
    photoshop = (
        b"Photoshop 3.0\x00"
        + b"8BIM\x03\xed\x00\x00\x00\x00\x00\x10"
        + struct.pack(">IHHIHH", 4718592, 1, 2, 4718592, 1, 2)
    )
    yield _case("by hand", ".jpg", "Photoshop resources", jpeg_with(jpeg, jpeg_segment(0xED, photoshop)))
    adobe = jpeg_segment(0xEE, b"Adobe\x00\x64\x00\x00\x00\x00\x01")
    yield _case("by hand", ".jpg", "Adobe marker", jpeg_with(seed(".jpg"), adobe))
    profile = icc()
    parts = [profile[at : at + 300] for at in range(0, len(profile), 300)]
    segments = [
        jpeg_segment(0xE2, b"ICC_PROFILE\0" + bytes([number, len(parts)]) + part)
        for number, part in enumerate(parts, 1)
    ]
    yield _case("by hand", ".jpg", "ICC in parts", jpeg_with(seed(".jpg"), *segments))
    ducky = jpeg_segment(0xEC, b"Ducky\x00\x01\x00\x04\x00\x00\x00\x3c\x00\x00")
    yield _case("by hand", ".jpg", "saved for the web", jpeg_with(seed(".jpg"), ducky))
    extended = b"JFXX\x00\x10" + thumbnail
    yield _case(
        "by hand",
        ".jpg",
        "JFIF extension with a thumbnail",
        jpeg_with(seed(".jpg"), jpeg_segment(0xE0, extended)),
    )
    history = b'<rdf:Description rdf:about="" xmlns:xmpMM="http://ns.adobe.com/xap/1.0/mm/"><xmpMM:History><rdf:Seq><rdf:li>saved</rdf:li></rdf:Seq></xmpMM:History></rdf:Description>'
    yield _case("by hand", ".jpg", "XMP of an editor", _described(jpeg, history))


def with_thumbnail(jpeg: bytes, thumbnail: bytes) -> bytes:
    """EXIF of two IFDs, the second of which has a small JPEG, as every camera writes it."""
    make = b"Canon\0"
    head = b"MM\x00\x2a\x00\x00\x00\x08"
    first = struct.pack(">HHHI", 1, 0x010F, 2, len(make)) + struct.pack(">I", 8 + 18)
    second_at = 8 + 18 + len(make)
    first += struct.pack(">I", second_at)
    place = second_at + 2 + 12 * 3 + 4
    second = struct.pack(">H", 3)
    second += struct.pack(">HHIHH", 0x0103, 3, 1, 6, 0)
    second += struct.pack(">HHII", 0x0201, 4, 1, place) + struct.pack(">HHII", 0x0202, 4, 1, len(thumbnail))
    block = head + first + make + second + bytes(4) + thumbnail
    return jpeg_with(jpeg, jpeg_segment(0xE1, b"Exif\0\0" + block))


def depths() -> Iterator[Case]:
    """Masks and control images as this kind of service is sent them."""
    for label, image in {
        "a mask": Image.new("L", (512, 512), 255),
        "alpha as a mask": _masked(),
        "edges": Image.fromarray((scene(200, 200, 3, 1) > 128).astype("uint8") * 255),
        "depth of 16 bits": photo("I;16", 64, 64),
    }.items():
        yield _case("Pillow", ".png", label, pillow(image, "PNG"))


def _masked() -> Image.Image:
    image = photo("RGB", 64, 64).convert("RGBA")
    image.putalpha(Image.new("L", (64, 64), 0))
    return image
