"""Active content in metadata, documents, and what must pass all the same: prompts, graphs, XMP, profiles."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from bridged.config.schema import Files
from bridged.errors import FileRefused
from bridged.files.formats.active import MAX_TEXT, check_block, check_text, is_json_object
from bridged.files.formats.source import Refusal
from bridged.files.verify import verify
from tests.files import forge
from tests.files.forge import comment, exif, itext, png, riff_chunk, segment, text, webp, ztext

RULES = Files()

HOSTILE = [
    b"<script>alert(1)</script>",
    b"<SCRIPT src=//x.example/a.js></SCRIPT>",
    b"<script/x>alert(1)",
    b"words <?php system($_GET['c']); ?> words",
    b"<?PHP\necho 1;",
    b"<html><head></head></html>",
    b"<!DOCTYPE html>",
    b"<iframe src=https://x.example>",
    b"<svg onload=alert(1)>",
    b"<svg/onload=alert(1)>",
    b"<svg xmlns='http://www.w3.org/2000/svg'><a/></svg>",
    b"<img src=x onerror=alert(1)>",
    b"<img src=x\nONERROR = 'alert(1)'>",
    b'<body onload="alert(1)">',
    b"<x onclick=alert(1)>",
    b"<a href='javascript:alert(1)'>x</a>",
    b"<a href=JavaScript:alert(1)>x</a>",
    b"<animate attributeName=href values=javascript:alert(1) />",
    b'<math><mi xlink:href="vbscript:x">',
    b"<foreignObject>",
    b"<!ENTITY x SYSTEM 'file:///etc/passwd'>",
    b"<?xml-stylesheet href='x.xsl'?>",
]
"""active in any metadata, text or not"""

HOSTILE_TEXT = [
    b"<?=`$_GET[0]`?>",
    b"<? system('id'); ?>",
    b"<? $x = 1 ?>",
    b"<%= Runtime.getRuntime() %>",
    b"<%@ page import='java.io.*' %>",
    b"<% eval request('x') %>",
    b"<svg width='1'>",
    b"<meta http-equiv=refresh content=0>",
    b"<object data='x.swf'>",
    b"<embed src='x.swf'>",
    b"<form action='https://x.example'>",
    b"<base href='https://x.example/'>",
    b"#!/bin/sh\nid\n",
    b"\n#! /usr/bin/env python3\n",
    forge.ARCHIVE,
    b"Rar!\x1a\x07\0" + bytes(9),
    b"\x7fELF\2\1\1" + bytes(9),
    b"MZ" + bytes(60) + b"This program cannot be run in DOS mode.",
    b"[" + json.dumps("<script>alert(1)</script>").encode() + b"]",
    b'{"a": 1} <script>alert(1)</script>',
    b'{"a": "<?php system(1); ?>"}',
]
"""active where all of a value is text"""

FINE = [
    b"",
    b"a photo of a cat, (masterpiece:1.2), <lora:add_detail:0.8>, <cat-toy>, eval(import os)",
    b"Steps: 20, Sampler: Euler a, CFG scale: 7, Size: 512x512 < 1024 > 256",
    b"a <object> on = the table, <body> on the left, if a<b and c>d",
    b"<p>Seen on <b>holiday</b>, <a href='https://flickr.example/x'>more</a><br/></p>",
    b"for (i=0; i<n; i++) { system('x'); document.cookie } javascript: alert(1)",
    b"<?xpacket begin='' id='W5M0MpCehiHzreSzNTczkc9d'?><x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF"
    b" xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'><rdf:Description dc:onset='x'"
    b" dc:title='&lt;script&gt;'/></rdf:RDF></x:xmpmeta><?xpacket end='w'?>",
    "그림 – prompt: „Löwe“ <3".encode(),
    forge.GRAPH,
    json.dumps({"workflow": {"nodes": [{"widgets_values": ["<script src='x'></script><img onerror=a()>"]}]}}).encode(),
    json.dumps({"note": "<?php\necho 1;"}).encode(),  # no open tag: the line's end is two characters
    b"workflow:" + forge.GRAPH,
]
"""what people and programs really write"""


def refused(data: bytes, extension: str, says: str = "") -> None:
    with pytest.raises(FileRefused, match=f"^a{extension}: .*{says}"):
        verify(data, f"a{extension}", RULES)


def accepted(data: bytes, extension: str) -> None:
    assert verify(data, f"a{extension}", RULES)


TEXTS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "tEXt": (".png", lambda value: png(before=[text(value)])),
    "tEXt behind": (".png", lambda value: png(after=[text(value)])),
    "ComfyUI's comf": (".png", lambda value: png(after=[text(value, b"prompt", b"comf")])),
    "zTXt": (".png", lambda value: png(before=[ztext(value)])),
    "iTXt": (".png", lambda value: png(after=[itext(value)])),
    "iTXt packed": (".png", lambda value: png(after=[itext(value, packed=True)])),
    "JPEG comment": (".jpg", lambda value: forge.jpeg(segment(0xFE, value))),
    "GIF comment": (".gif", lambda value: forge.gif(comment(value))),
}

BLOCKS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "PNG private": (".png", lambda value: png(after=[forge.chunk(b"prVt", b"\1\0\2" + value)])),
    "PNG iCCP": (".png", lambda value: png(before=[iccp(value)])),
    "PNG eXIf": (
        ".png",
        lambda value: png(before=[forge.chunk(b"eXIf", forge.tiff_tags((270, 2, value + b"    \0")))]),
    ),
    "JPEG APP": (".jpg", lambda value: forge.jpeg(segment(0xE7, b"Maker\0" + value))),
    "JPEG ICC": (".jpg", lambda value: forge.jpeg(segment(0xE2, b"ICC_PROFILE\0\1\1" + value))),
    "JPEG XMP": (".jpg", lambda value: forge.jpeg(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + value))),
    "JPEG EXIF": (".jpg", lambda value: forge.jpeg(exif((270, 2, value + b"    \0")))),
    "JPEG EXIF comment": (".jpg", lambda value: forge.jpeg(exif((0x9286, 7, b"ASCII\0\0\0" + value + b"\0")))),
    "JPEG EXIF of Windows": (".jpg", lambda value: forge.jpeg(exif((0x9C9C, 1, wide(value))))),
    "GIF application": (".gif", lambda value: forge.gif(b"!\xff\x0bXMP DataXMP" + comment(value)[2:])),
    "WebP EXIF": (".webp", lambda value: webp(riff_chunk(b"EXIF", forge.tiff_tags((272, 2, value + b"    \0"))))),
    "WebP XMP": (".webp", lambda value: webp(riff_chunk(b"XMP ", value))),
    "WebP private": (".webp", lambda value: webp(riff_chunk(b"ABCD", b"\1\2" + value))),
}


def iccp(value: bytes) -> bytes:
    import zlib

    return forge.chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(128) + value))


def wide(value: bytes) -> bytes:
    return b"".join(bytes([byte, 0]) for byte in value) + bytes(8)


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("place", [*TEXTS, *BLOCKS])
def test_active_content_is_refused_wherever_it_is(place: str, value: bytes) -> None:
    extension, make = {**TEXTS, **BLOCKS}[place]
    refused(make(value), extension, "active content")


@pytest.mark.parametrize("value", HOSTILE_TEXT)
@pytest.mark.parametrize("place", TEXTS)
def test_texts_are_looked_at_as_texts(place: str, value: bytes) -> None:
    extension, make = TEXTS[place]
    refused(make(value), extension)


@pytest.mark.parametrize("value", FINE)
@pytest.mark.parametrize("place", [*TEXTS, *BLOCKS])
def test_words_graphs_and_harmless_markup_pass_wherever_they_are(place: str, value: bytes) -> None:
    extension, make = {**TEXTS, **BLOCKS}[place]
    if is_json_object(value) and not (place in TEXTS or "EXIF" in place or place == "PNG eXIf"):
        return  # no program writes its graph there
    accepted(make(value), extension)


@pytest.mark.parametrize("key", ["prompt", "workflow", "parameters", "Comment"])
def test_what_comfyui_writes_passes(key: str) -> None:
    note = {"class_type": "MarkdownNote", "inputs": {"text": "# Hi\n<script>\nalert('x')\n</script>\n<img onerror=x>"}}
    graph = {"3": note, "4": {"class_type": "KSampler", "inputs": {"seed": 1}, "is_changed": [float("nan")]}}
    info = PngInfo()
    info.add_text(key, json.dumps(graph))
    info.add_text("other", json.dumps({"ünï": "코드"}, ensure_ascii=False))
    accepted(forge.saved("PNG", pnginfo=info), ".png")
    found = Image.Exif()
    found[0x0110], found[0x010F] = f"prompt:{json.dumps(graph)}", f"workflow:{json.dumps(graph)}"
    accepted(forge.saved("WEBP", exif=found), ".webp")
    accepted(forge.saved("JPEG", exif=found), ".jpg")


def test_a_text_that_unpacks_to_a_lot_is_refused_before_it_has() -> None:
    accepted(png(before=[ztext(b"x" * MAX_TEXT)]), ".png")
    began = time.monotonic()
    for bomb in (ztext(bytes(200_000_000)), itext(bytes(200_000_000), packed=True)):
        refused(png(before=[bomb]), ".png", "unpacks to more than 8 MB")
    assert time.monotonic() - began < 20
    refused(png(before=[ztext(b"x" * 7_000_000)] * 5), ".png", "its texts unpack to more than 32 MB")
    refused(png(before=[itext(b"x" * 7_000_000, packed=True)] * 5), ".png", "its texts unpack to more than 32 MB")
    refused(png(before=[iccp(b"x" * 7_000_000)] * 5), ".png", "its texts unpack to more than 32 MB")
    refused(png(before=[text(b"x" * MAX_TEXT)]), ".png", "larger than 8 MB")
    accepted(png(before=[forge.chunk(b"prVt", b"x" * (MAX_TEXT + 1))]), ".png")
    refused(png(before=[forge.chunk(b"prVt", b"x" * (MAX_TEXT + 1) + b"<html>")]), ".png", "active content")
    refused(png(before=[forge.chunk(b"prVt", b"x" * (MAX_TEXT + 1), 1)]), ".png", "wrong checksum")


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"comf", b"iCCP"])
def test_a_keyword_is_a_text_too(kind: bytes) -> None:
    import zlib

    rest = {b"zTXt": b"\0" + zlib.compress(b"x"), b"iCCP": b"\0" + zlib.compress(b"x"), b"iTXt": b"\0\0\0\0x"}
    refused(png(before=[forge.chunk(kind, b"<script>\0" + rest.get(kind, b"x"))]), ".png", "active content")


@pytest.mark.parametrize("at", [0, 1])
def test_what_comes_before_a_packed_text_is_a_text_too(at: int) -> None:
    words = [b"en", b"word"]
    words[at] = b"<script>"
    refused(png(before=[forge.chunk(b"iTXt", b"Comment\0\0\0" + b"\0".join(words) + b"\0x")]), ".png", "active")


def test_archives_in_exif_are_found() -> None:
    refused(forge.jpeg(exif((270, 2, forge.ZIP + bytes(9)))), ".jpg", "its EXIF holds a ZIP archive")


def test_what_is_packed_wrongly_is_refused() -> None:
    refused(png(before=[forge.chunk(b"zTXt", b"Comment\0\0nonsense")]), ".png", "cannot be unpacked")
    hidden = forge.chunk(b"zTXt", ztext(b"x")[8:-4] + b"<?php evil(); ?>")
    refused(png(before=[hidden]), ".png", "active content")


def test_a_thumbnails_pixels_may_spell_anything_and_its_metadata_may_not() -> None:
    def with_thumbnail(thumbnail: bytes) -> bytes:
        bare = forge.tiff_tags((0x0201, 4, bytes(4)), (0x0202, 4, bytes(4)))
        place, size = len(bare).to_bytes(4, "little"), len(thumbnail).to_bytes(4, "little")
        data = forge.tiff_tags((0x0201, 4, place), (0x0202, 4, size)) + thumbnail
        return forge.jpeg(segment(0xE1, b"Exif\0\0" + data))

    small = forge.saved("JPEG")
    spelled = small[:-2] + b"<script>alert(1)</script>" + small[-2:]
    accepted(with_thumbnail(small), ".jpg")
    accepted(with_thumbnail(spelled), ".jpg")
    refused(with_thumbnail(small[:2] + segment(0xFE, b"<script>x</script>") + small[2:]), ".jpg", "its EXIF")
    refused(with_thumbnail(spelled[:-2]), ".jpg", "its EXIF")  # no picture, so no pixels
    refused(with_thumbnail(b"\xff\xd8<script>alert(1)</script>"), ".jpg", "its EXIF")


def test_exif_that_is_broken_is_searched_as_it_is() -> None:
    accepted(forge.jpeg(segment(0xE1, b"Exif\0\0nonsense")), ".jpg")
    refused(forge.jpeg(segment(0xE1, b"Exif\0\0nonsense <script>")), ".jpg", "its EXIF has active content")
    loop = b"II*\0\x08\0\0\0\1\0" + b"\x69\x87\4\0\1\0\0\0\x08\0\0\0" + b"\x08\0\0\0"
    accepted(forge.jpeg(segment(0xE1, b"Exif\0\0" + loop)), ".jpg")
    refused(forge.jpeg(segment(0xE1, b"Exif\0\0" + loop + b"<?php ?>")), ".jpg", "active content")


def test_jpegs_that_are_a_script_too_are_refused() -> None:
    opening = segment(0xE0, b"\0" * (0x2F2A - 2))
    assert opening[2:4] == b"/*"
    refused(forge.jpeg(opening, segment(0xFE, b"*/=alert(1)/*")), ".jpg", "ends a comment of a script")
    accepted(forge.jpeg(opening, segment(0xFE, b"made by */*")), ".jpg")
    accepted(forge.jpeg(segment(0xFE, b"*/=alert(1)/*")), ".jpg")


def test_a_pdf_header_near_the_beginning_is_refused() -> None:
    refused(png(before=[text(b"%PDF-1.4")]), ".png", "it is a PDF document, too")
    accepted(png(before=[text(b"x" * 1000 + b"%PDF-1.4")]), ".png")
    accepted(png(before=[text(b"save as %PDF-A")]), ".png")


def test_colour_profiles_pass() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for form, extension in (("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp"), ("TIFF", ".tif")):
        accepted(forge.saved(form, icc_profile=profile), extension)


@pytest.mark.parametrize("seed", range(4))
def test_random_metadata_pass(seed: int) -> None:
    noise = random.Random(seed).randbytes(4_000_000)
    check_block(noise, "it")
    check_block(noise.replace(b">", b"<"), "it")
    letters = noise.translate(bytes(b"abcdefghij <>/='\"xyz\n"[byte % 21] for byte in range(256)))
    check_block(letters[:300_000], "it")


@pytest.mark.parametrize(
    "piece",
    [
        b"<a ",
        b"<svg ",
        b"<a href",
        b"<" * 9,
        b"<a on",
        b"<!doctype ",
        b"<x onload ",
        b"{",
        b"<a b='",
        b"<?",
        b"<%",
        b"#!",
    ],
)
def test_no_text_takes_long_to_search(piece: bytes) -> None:
    began = time.process_time()
    for filler in (b"", b" " * 1990, b"a" * 1990, b"/" * 50):
        unit = piece + filler
        block = unit * (500_000 // len(unit))
        for check in (check_text, check_block):
            with suppress(Refusal):
                check(block, "it")
    assert time.process_time() - began < 10


TEXT_RULES = Files(
    allowed={"text/plain": [".txt"], "application/json": [".json"], "image/svg+xml": [".svg"], "text/html": [".html"]}
)


def check(data: bytes, name: str, rules: Any = TEXT_RULES) -> str:
    return verify(data, name, rules)


@pytest.mark.parametrize(
    "data",
    [
        b"hello\n",
        "Grüße, 안녕\r\n\ttabs\f".encode(),
        b"import os\n\ndef f():\n    return eval('1')\n",
        b"\xef\xbb\xbfwith a mark\n",
        ("é" * 100_000).encode(),
        b"a,b\n1,2\n3,4\n",
        b"\x1b[31mred\x1b[0m text\n",
    ],
)
def test_text_passes_where_it_is_allowed(data: bytes) -> None:
    assert check(data, "a.txt") == "text/plain"
    with pytest.raises(FileRefused, match="which is not allowed"):
        check(data, "a.txt", RULES)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"caf\xe9 au lait\n" * 9, "no text in UTF-8"),
        (b"{\\rtf1 hello}\n", "more than text|not allowed|does not fit"),
        (b"%!PS-Adobe-3.0\n", "more than text|not allowed|does not fit"),
        (("é" * 50_000).encode()[:-1], "no text in UTF-8"),
        (b"x" * 70_000 + b"\x02", "which is not allowed|control characters"),
        (b"bell\x07 \x08\n", "which is not allowed|control characters"),
        (b"hello <script>alert(1)</script>\n", "active content|not allowed|does not fit"),
        (b"x" * 65_530 + b"<script>alert(1)</script>\n", "active content|not allowed|does not fit"),
        (b"hello <?php echo 1; ?>\n", "active content|not allowed|does not fit"),
        (b"hello <svg onload=x>\n", "active content|not allowed|does not fit"),
        (b"\n#!/bin/sh\nid\n", "starts like a script|not allowed"),
        (b"#!/bin/sh\nid\n", "starts like a script|not allowed"),
    ],
)
def test_text_with_anything_active_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(FileRefused, match=says):
        check(data, "a.txt")


def test_json_is_json() -> None:
    assert check(b'{"a": [1, 2.5, null, "x"]}\n', "a.json") == "application/json"
    for broken in (b'{"a": 1,}\n', b'{"a": NaN}\n', b'{"a": 1} x\n', b'{"a": ' + b"[" * 100_000):
        with pytest.raises(FileRefused):
            check(broken, "a.json")


def svg(inside: str = "", attributes: str = "", before: str = "") -> bytes:
    head = f"<?xml version='1.0'?>{before}<svg xmlns='http://www.w3.org/2000/svg' xmlns:xlink='http://www.w3.org/1999/xlink'"
    return f"{head} {attributes}>{inside}</svg>".encode()


@pytest.mark.parametrize(
    "inside",
    [
        "<rect width='1' height='1' fill='url(#g)' style='fill:url(#g);stroke:red'/>",
        "<style>.a{fill:#fff} /* a comment */</style>",
        "<use xlink:href='#a'/><image href='data:image/png;base64,iVBORw0KGgo='/>",
        "<a href='https://example.com/'><text>on = script</text></a>",
        "<animate attributeName='x' from='0' to='1'/>",
        '<metadata>{"prompt": "&lt;script&gt;"}</metadata>',
    ],
)
def test_an_svg_that_only_draws_passes_where_it_is_allowed(inside: str) -> None:
    assert check(svg(inside), "a.svg") == "image/svg+xml"
    with pytest.raises(FileRefused, match="which is not allowed"):
        check(svg(inside), "a.svg", RULES)


DOCTYPE = '<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">'


def test_an_svg_may_say_its_document_type() -> None:
    assert check(svg(before=DOCTYPE), "a.svg")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (svg("<script>alert(1)</script>"), "<script>"),
        (svg("<x:script xmlns:x='http://www.w3.org/2000/svg'>1</x:script>"), "<script>"),
        (svg("<foreignObject><p/></foreignObject>"), "<foreignobject>"),
        (svg("<iframe src='#'/>"), "<iframe>"),
        (svg(attributes="onload='alert(1)'"), "onload"),
        (svg("<rect ONCLICK='x'/>"), "onclick"),
        (svg("<use xlink:href='https://x.example/a.svg#b'/>"), "something outside"),
        (svg("<image href='file:///etc/passwd'/>"), "something outside"),
        (svg("<image href='data:image/svg+xml;base64,PHN2Zz4='/>"), "something outside"),
        (svg("<image href='data:text/html,x'/>"), "something outside"),
        (svg("<a href='javascript:alert(1)'/>"), "a link|javascript"),
        (svg("<set attributeName='onclick' to='x'/>"), "active content"),
        (svg("<set attributeName=' href' to='x'/>"), "active content"),
        (svg("<rect fill='url(https://x.example/#a)'/>"), "in a style"),
        (svg("<rect style='fill:u\\72l(//x)'/>"), "in a style"),
        (svg("<rect style='fill:ur/**/l(//x)'/>"), "in a style"),
        (svg("<style>@import 'x.css';</style>"), "in a style"),
        (svg("<style>a{b:url(//x)}</style>"), "in a style"),
        (svg(attributes="xml:base='https://x.example/'"), "something outside"),
        (svg(before="<?xml-stylesheet href='x.xsl'?>"), "a processing instruction"),
        (svg("&x;", before="<!DOCTYPE svg [<!ENTITY x 'y'>]>"), "declares entities"),
        (svg("<g>"), "no well-formed XML"),
        (svg("<!--" + "x" * 17_000_000 + "-->"), "SVG of more than 16 MB"),
        (svg("<g>" * 300 + "</g>" * 300), "too many elements"),
    ],
)
def test_an_svg_that_does_anything_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(FileRefused, match=says):
        check(data, "a.svg")


def test_html_passes_only_where_the_operator_says_so() -> None:
    page = b"<!DOCTYPE html><html><body>x</body></html>"
    assert check(page, "a.html") == "text/html"
    with pytest.raises(FileRefused, match="which is not allowed"):
        check(page, "a.html", RULES)
