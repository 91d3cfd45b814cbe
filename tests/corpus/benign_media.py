"""Ordinary sounds and films: ffmpeg (PyAV), libsndfile (soundfile), and tags as players write them (mutagen)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from PIL import Image

from tests.corpus.case import Case, library, mime
from tests.corpus.seeds import audio, pillow, scene, seed, tone, video

TAGS = {
    "title": "봄날 <3",
    "artist": "Ἀνάγνωσις & Söhne",
    "comment": "eval(this) import that; 5 < 6",
    "date": "2024",
}


def _case(encoder: str, extension: str, label: str, data: bytes, declared: str | None = None) -> Case:
    name = f"medium{extension}"
    return Case(f"{encoder} {extension} {label}", name, data, declared or mime(name), label, encoder=encoder)


def films() -> Iterator[Case]:
    fast: Any = {"preset": "ultrafast"}
    quiet: Any = {"x265-params": "log-level=none"}
    live: Any = {"deadline": "realtime", "cpu-used": "8"}
    made: list[tuple[str, str, bytes]] = [
        (".mp4", "H.264", video("mp4", "libx264", **fast)),
        (".mp4", "H.264, faststart", video("mp4", "libx264", container={"movflags": "+faststart"}, **fast)),
        (".mp4", "H.264, fragmented", video("mp4", "libx264", container={
            "movflags": "+frag_keyframe+empty_moov+default_base_moof"}, **fast)),
        (".mp4", "H.264 and AAC", video("mp4", "libx264", sound="aac", **fast)),
        (".mp4", "H.264, 4:4:4", video("mp4", "libx264", pixels="yuv444p", **fast)),
        (".mp4", "H.265", video("mp4", "libx265", **fast, **quiet)),
        (".mp4", "MPEG-4", video("mp4", "mpeg4")),
        (".mp4", "VP9", video("mp4", "libvpx-vp9", **live)),
        (".mp4", "tags", video("mp4", "libx264", tags=TAGS, **fast)),
        (".mp4", "one frame", video("mp4", "libx264", frames=1, **fast)),
        (".mp4", "60 frames", video("mp4", "libx264", frames=60, width=32, height=32, **fast)),
        (".mov", "H.264", video("mov", "libx264", **fast)),
        (".mov", "H.264 and sound", video("mov", "libx264", sound="pcm_s16le", **fast)),
        (".mov", "ProRes", video("mov", "prores", pixels="yuv422p10le")),
        (".mov", "Motion JPEG", video("mov", "mjpeg", pixels="yuvj420p")),
        (".mov", "Animation", video("mov", "qtrle", pixels="rgb24")),
        (".mov", "PNG", video("mov", "png", pixels="rgb24")),
        (".mov", "faststart", video("mov", "libx264", container={"movflags": "+faststart"}, **fast)),
        (".mov", "tags", video("mov", "libx264", tags=TAGS, **fast)),
        (".webm", "VP8", video("webm", "libvpx", **live)),
        (".webm", "VP9", video("webm", "libvpx-vp9", **live)),
        (".webm", "VP8 and Opus", video("webm", "libvpx", sound="libopus", **live)),
        (".webm", "VP9, tags", video("webm", "libvpx-vp9", tags=TAGS, **live)),
        (".webm", "live", video("webm", "libvpx", container={"live": "1"}, **live)),
        (".webm", "cues first", video("webm", "libvpx", container={"cues_to_front": "1"}, **live)),
        (".webm", "sound only", audio("webm", "libopus", rate=48000)),
    ]  # fmt: skip
    for extension, label, data in made:
        yield _case("ffmpeg", extension, label, data)


def sounds() -> Iterator[Case]:
    made: list[tuple[str, str, bytes]] = [
        *((".mp3", f"{rate} kbit/s", audio("mp3", "libmp3lame", b=f"{rate}k")) for rate in (32, 128, 320)),
        (".mp3", "stereo", audio("mp3", "libmp3lame", layout="stereo")),
        (".mp3", "22 kHz", audio("mp3", "libmp3lame", rate=22050)),
        (".mp3", "8 kHz", audio("mp3", "libmp3lame", rate=8000)),
        (".mp3", "variable", audio("mp3", "libmp3lame", layout="stereo", global_quality="236", flags="+qscale")),
        (".mp3", "no tag", audio("mp3", "libmp3lame", container={"id3v2_version": "0", "write_xing": "0"})),
        (".mp3", "ID3v1 too", audio("mp3", "libmp3lame", tags=TAGS, container={"write_id3v1": "1"})),
        (".mp3", "ID3v2.3", audio("mp3", "libmp3lame", tags=TAGS, container={"id3v2_version": "3"})),
        (".mp3", "5 s", audio("mp3", "libmp3lame", seconds=5)),
        *((".wav", codec, audio("wav", codec)) for codec in (
            "pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "pcm_alaw", "pcm_mulaw",
            "adpcm_ms", "adpcm_ima_wav")),
        (".wav", "5.1", audio("wav", "pcm_s16le", layout="5.1", rate=48000)),
        (".wav", "tags", audio("wav", "pcm_s16le", tags=TAGS)),
        (".flac", "mono", audio("flac", "flac")),
        (".flac", "stereo", audio("flac", "flac", layout="stereo")),
        (".flac", "24 bits", audio("flac", "flac", rate=96000, layout="stereo", compression_level="8")),
        (".flac", "fast", audio("flac", "flac", compression_level="0")),
        (".flac", "tags", audio("flac", "flac", tags=TAGS)),
        (".flac", "blocks of 4608", audio("flac", "flac", seconds=2, frame_size="4608")),
        (".ogg", "Opus", audio("ogg", "libopus", rate=48000)),
        (".ogg", "Opus, stereo", audio("ogg", "libopus", rate=48000, layout="stereo", seconds=3)),
        (".ogg", "Opus, tags", audio("ogg", "libopus", rate=48000, tags=TAGS)),
        (".ogg", "Vorbis", audio("ogg", "vorbis", layout="stereo", strict="-2")),
        (".ogg", "FLAC inside", audio("ogg", "flac")),
    ]  # fmt: skip
    for extension, label, data in made:
        yield _case("ffmpeg", extension, label, data)


def soundfile() -> Iterator[Case]:
    sf = library("soundfile")
    jobs: list[tuple[str, str, str, int, int]] = [
        *((".wav", "WAV", kind, 44100, 1) for kind in (
            "PCM_16", "PCM_24", "PCM_32", "PCM_U8", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM")),
        (".wav", "WAVEX", "PCM_16", 48000, 2),
        (".wav", "WAVEX", "PCM_24", 48000, 6),
        (".flac", "FLAC", "PCM_S8", 44100, 1),
        (".flac", "FLAC", "PCM_16", 44100, 2),
        (".flac", "FLAC", "PCM_24", 96000, 2),
        (".flac", "FLAC", "PCM_16", 8000, 1),
        (".ogg", "OGG", "VORBIS", 44100, 1),
        (".ogg", "OGG", "VORBIS", 48000, 2),
        (".ogg", "OGG", "OPUS", 48000, 2),
        (".mp3", "MP3", "MPEG_LAYER_III", 44100, 2),
        (".mp3", "MP3", "MPEG_LAYER_III", 16000, 1),
    ]  # fmt: skip
    for extension, form, kind, rate, channels in jobs:
        body = io.BytesIO()
        body.name = "x" + extension
        sf.write(body, tone(0.5, rate, channels), rate, subtype=kind, format=form)
        yield _case("libsndfile", extension, f"{form} {kind} {rate} {channels}", body.getvalue())
    body = io.BytesIO()
    with sf.SoundFile(body, "w", 44100, 1, "PCM_16", format="WAV") as out:
        out.title, out.comment, out.software = "hello", "import os", "a recorder"
        out.write(tone(0.2))
    yield _case("libsndfile", ".wav", "tags", body.getvalue())


def tags() -> Iterator[Case]:
    """Covers, words and chapters put in by a tagger."""
    cover = _cover()
    flac, id3, mp4, ogg, wav = (library(f"mutagen.{name}") for name in ("flac", "id3", "mp4", "oggopus", "wave"))

    def edited(extension: str, kind: Any, edit: Any, **options: Any) -> bytes:
        body = io.BytesIO(seed(extension))
        file = kind(body)
        edit(file)
        body.seek(0)
        file.save(body, **options)
        return body.getvalue()

    def frames(file: Any) -> None:
        file.add(id3.TIT2(encoding=3, text="봄날"))
        file.add(id3.COMM(encoding=1, lang="kor", desc="", text="안녕 <3 import os"))
        file.add(id3.APIC(encoding=0, mime="image/jpeg", type=3, desc="", data=cover))
        file.add(id3.USLT(encoding=3, lang="eng", text="a line\n" * 200))

    def in_mp3(**options: Any) -> bytes:
        body = io.BytesIO(seed(".mp3"))
        words = id3.ID3()
        frames(words)
        words.save(body, **options)
        return body.getvalue()

    yield _case("mutagen", ".mp3", "ID3v2.4 with a cover", in_mp3())
    yield _case("mutagen", ".mp3", "ID3v2.3 and ID3v1", in_mp3(v1=2, v2_version=3))
    yield _case("mutagen", ".mp3", "APEv2 at the end", _ape())

    def picture(file: Any) -> None:
        image = flac.Picture()
        image.data, image.mime, image.type = cover, "image/jpeg", 3
        file.add_picture(image)
        file["TITLE"], file["LYRICS"] = "봄날", "a line\n" * 200

    yield _case("mutagen", ".flac", "a cover", edited(".flac", flac.FLAC, picture))
    yield _case("mutagen", ".flac", "padding", edited(".flac", flac.FLAC, lambda f: None, padding=lambda _: 8192))

    def words(file: Any) -> None:
        file["title"], file["comment"] = "봄날", "5 < 6 & import"

    yield _case("mutagen", ".ogg", "words", edited(".ogg", ogg.OggOpus, words))

    def cells(file: Any) -> None:
        file["\xa9nam"], file["covr"] = "봄날", [mp4.MP4Cover(cover)]

    yield _case("mutagen", ".mp4", "a cover", edited(".mp4", mp4.MP4, cells))

    def in_wav(file: Any) -> None:
        file.add_tags()
        frames(file.tags)

    yield _case("mutagen", ".wav", "ID3 with a cover", edited(".wav", wav.WAVE, in_wav))


def _ape() -> bytes:
    apev2 = library("mutagen.apev2")
    body = io.BytesIO(seed(".mp3"))
    words = apev2.APEv2()
    words["Title"], words["Comment"] = "봄날", "import os"
    words.save(body)
    return body.getvalue()


def _cover() -> bytes:
    return pillow(Image.fromarray(scene(60, 60)), "JPEG")
