"""Ordinary names in many scripts, and the ways in which good clients declare a type."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from tests.corpus.case import Case, mime
from tests.corpus.seeds import audio, seed

NAMES = (
    "photo.png",
    "PHOTO.PNG",
    "Photo.Png",
    "a.png",
    "한국어 사진.png",
    "日本語の写真.png",
    "中文照片.png",
    "صورة.png",
    "תמונה.png",
    "तस्वीर.png",
    "क्\u200dष और क्\u200cष.png",  # ZWJ and ZWNJ, which Indic scripts need
    "می\u200cخواهم.png",  # ZWNJ, which Persian needs
    "ภาพถ่าย.png",
    "фотография.png",
    "φωτογραφία.png",
    "ảnh chụp.png",
    "İstanbul'da.png",
    "Übergrößenträger.png",
    "😀🎉.png",
    "👩\u200d👩\u200d👧\u200d👦 family.png",
    "❤\ufe0f.png",
    "🇰🇷 flag.png",
    "👍🏽.png",
    "my holiday photo.png",
    "Screenshot 2024-05-01 at 12.30.45.png",
    "IMG_20240501_123045.png",
    "ComfyUI_00001_.png",
    "v1.2.3-final_FINAL (2).png",
    "photo (1).png",
    "photo [copy].png",
    "photo, edited & resized.png",
    "50% grey.png",
    "100%.png",
    "it's mine.png",
    'say "hi".png',
    "a+b=c.png",
    "#1 @home!.png",
    "tilde~name.png",
    "dash-dash--dash.png",
    "semi;colon.png",
    "under_score.png",
    "two..dots.png",
    "console.png",
    "con-artist.png",
    "auxiliary.png",
    "nullable.png",
    "com10.png",
    "complete.works.of.png",
    "phpinfo.png",
    "executive.summary.png",
    "a" * 200 + ".png",
    "가" * 60 + ".png",
    unicodedata.normalize("NFD", "각도기.png"),  # as macOS sends it
    unicodedata.normalize("NFD", "Übung.png"),
    "ｆｕｌｌ　ｗｉｄｔｈ.png",
    "naïve café.png",
    "Ω≈ç√∫.png",
    "№5 — “quoted”.png",
)

DECLARED = {
    ".png": (
        None,
        "application/octet-stream",
        "image/png",
        "IMAGE/PNG",
        "image/png; charset=binary",
        "image/x-png",
    ),
    ".jpg": (None, "application/octet-stream", "image/jpg", "image/pjpeg"),
    ".gif": (None, "image/gif"),
    ".webp": (None, "application/octet-stream"),
    ".bmp": ("image/x-ms-bmp", "image/x-bmp", "image/bmp"),
    ".tif": (None, "image/tiff"),
    ".mp4": (None, "application/octet-stream"),
    ".mov": (None, "video/quicktime"),
    ".webm": (None, "video/webm"),
    ".mp3": (None, "audio/mp3", "audio/mpeg3"),
    ".wav": (None, "audio/wav", "audio/wave", "audio/vnd.wave"),
    ".flac": (None, "audio/x-flac"),
    ".ogg": (None, "application/ogg", "audio/ogg"),
}
"""what browsers, curl and Python's mimetypes say"""


def names() -> Iterator[Case]:
    png = seed(".png")
    for name in NAMES:
        yield Case(f"name {name[:40]}", name, png, mime(name), "an ordinary name", encoder="Pillow")
    for name in ("photo.JPG", "photo.JPEG", "사진.jpeg"):
        yield Case(f"name {name}", name, seed(".jpg"), "image/jpeg", "an ordinary name", encoder="Pillow")
    for name, extension in (
        ("노래.mp3", ".mp3"),
        ("a song.FLAC", ".flac"),
        ("film.MOV", ".mov"),
        ("scan.TIFF", ".tif"),
    ):
        yield Case(f"name {name}", name, seed(extension), mime(name), "an ordinary name", encoder="ffmpeg")


def declared() -> Iterator[Case]:
    for extension, types in DECLARED.items():
        for kind in types:
            yield Case(
                f"declared {extension} {kind}",
                f"file{extension}",
                seed(extension),
                kind,
                "as clients say it",
                encoder="Pillow",
            )
    sound = audio("webm", "libopus", rate=48000)
    yield Case("declared audio/webm", "sound.webm", sound, "audio/webm", "as browsers record it", encoder="ffmpeg")
