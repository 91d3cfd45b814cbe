"""What becomes of the graph that ComfyUI writes into its results: `metadata = "keep" | "strip"`, for all and per
alias. On the embedded worker, which writes it as ComfyUI does, and on a fake that saves other formats."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable
from typing import Any

import pytest
import trio
from PIL import Image

from tests.conftest import StartFake
from tests.e2e.house import PATTERN, Client, House
from tests.fakes.comfyui import FakeComfyUI
from tests.files.media import SECRET, heard_and_seen, sound, video
from tests.files.pictures import picture
from tests.files.secret_pictures import PICTURES, base, exif, png_notes, saved, seen

GRAPH_PNG = saved(base(), "PNG", pnginfo=png_notes())


async def result_of(client: Client, alias: str, **values: Any) -> bytes:
    """The first file that the job gives, by both ways of fetching it."""
    job_id = (await client.submit(alias, **values))["job_id"]
    return await fetched(client, job_id)


async def fetched(client: Client, job_id: str) -> bytes:
    (file,) = await client.result(jobId=job_id)
    content = base64.b64decode(file["content"])
    whole = await client.http.get("/history", params={"jobId": job_id})
    assert content in whole.content
    facts = (await client.http.get(f"/jobs/{job_id}")).json()["outputs"]
    assert [(each["size"], each["sha256"]) for each in facts] == [
        (len(content), hashlib.sha256(content).hexdigest())
    ]
    return content


def told(content: bytes) -> dict[str, str]:
    with Image.open(io.BytesIO(content)) as image:
        return dict(getattr(image, "text", {}))


async def test_the_graph_in_a_result_stays_or_goes_by_the_alias_and_by_the_settings(house: House) -> None:
    house.settings["embedded"] = {"worker": "always"}
    house.write_workflow("kept", PATTERN, metadata="keep")
    house.write_workflow("bare", PATTERN, metadata="strip")
    await house.start()
    await house.wait_up("embedded")
    async with house.client() as client:
        plain, kept, bare = [await result_of(client, alias) for alias in ("pattern", "kept", "bare")]
        assert "EmptyImage" in told(plain)["prompt"]
        assert "EmptyImage" in told(kept)["prompt"]
        assert told(bare) == {}
        assert b"EmptyImage" not in bare
        assert seen(bare) == seen(kept) == seen(plain)
        house.settings["files"] = {"metadata": "strip"}
        house.write_settings()
        await house.wait_status(lambda s: s["configuration"]["generation"] == 2)
        plain, kept, bare = [await result_of(client, alias) for alias in ("pattern", "kept", "bare")]
        assert (told(plain), told(bare)) == ({}, {})
        assert "EmptyImage" in told(kept)["prompt"]


async def test_a_change_of_an_alias_is_for_new_jobs(house: House, fake: FakeComfyUI) -> None:
    fake.script.output_bytes = GRAPH_PNG
    gate = fake.script.gate = trio.Event()
    async with house.client() as client:
        old = [(await client.submit("pattern"))["job_id"] for _ in range(3)]
        house.write_workflow("pattern", PATTERN, metadata="strip")
        await house.wait_status(lambda s: s["configuration"]["generation"] == 2)
        new = (await client.submit("pattern"))["job_id"]
        gate.set()
        assert [await fetched(client, job) for job in old] == [GRAPH_PNG] * 3
        bare = await fetched(client, new)
    assert (told(bare), seen(bare)) == ({}, seen(GRAPH_PNG))


async def test_a_restart_does_not_forget_it(house: House, start_fake: StartFake) -> None:
    fake = await start_fake("one")
    fake.script.output_bytes = GRAPH_PNG
    fake.script.gate = trio.Event()
    house.settings["jobs"] |= {"on_disconnect": "detach"}
    house.write_workflow("bare", PATTERN, metadata="strip")
    house.write_backends(("pc-1", fake.url))
    await house.start()
    await house.wait_up("pc-1")
    async with house.client() as client:
        jobs = [(await client.submit("bare"))["job_id"] for _ in range(3)]
    await house.stop()
    house.write_workflow("bare", PATTERN, metadata="keep")
    house.ended = trio.Event()
    await house.start()
    await house.wait_up("pc-1")
    for gate in {fake.script.gate, *(prompt.script.gate for prompt in fake.prompts.values())}:
        if isinstance(gate, trio.Event):
            gate.set()
    async with house.client() as client:
        for job in jobs:
            assert told(await fetched(client, job)) == {}


async def start(house: House, start_fake: StartFake, content: bytes, extension: str) -> None:
    fake = await start_fake("one")
    fake.script.output_bytes, fake.script.output_extension = content, extension
    house.settings["files"] = {"metadata": "strip"}
    house.write_backends(("pc-1", fake.url))
    await house.start()
    await house.wait_up("pc-1")


OTHERS: dict[str, Callable[[], tuple[bytes, str]]] = {
    "a video": lambda: (video("mp4", "libx264", "aac", movflags="use_metadata_tags"), ".mp4"),
    "a song": lambda: (sound("flac", "flac"), ".flac"),
    "an animation": lambda: (PICTURES["webp, animated"], ".webp"),
    "a photo": lambda: (saved(base(), "JPEG", exif=exif(6), quality=90), ".jpg"),
}


@pytest.mark.parametrize("what", OTHERS)
async def test_other_formats_lose_it_too_and_play_the_same(
    house: House, start_fake: StartFake, what: str
) -> None:
    content, extension = OTHERS[what]()
    assert SECRET.encode() in content
    await start(house, start_fake, content, extension)
    async with house.client() as client:
        bare = await result_of(client, "pattern")
    assert SECRET.encode() not in bare
    show = heard_and_seen if what in ("a video", "a song") else seen
    assert show(bare) == show(content)


async def test_a_result_that_cannot_be_cleaned_is_not_delivered(house: House, start_fake: StartFake) -> None:
    await start(house, start_fake, sound("wav", "pcm_s16le", rf64="always"), ".wav")
    async with house.client() as client:
        job_id = (await client.submit("pattern"))["job_id"]
        with trio.fail_after(10):
            while (facts := (await client.http.get(f"/jobs/{job_id}")).json())["ended_at"] is None:
                await trio.sleep(0.01)
    assert facts["outputs"] == []
    assert "its metadata cannot be removed for certain" in str(facts)
    assert list((house.folder / "state" / "spool" / "results").iterdir()) == []


async def test_uploads_keep_their_metadata_unless_they_are_encoded_anew(
    house: House, fake: FakeComfyUI
) -> None:
    content = saved(base(), "JPEG", exif=exif(6), quality=90)
    large = saved(base().resize((700, 700)), "PNG", pnginfo=png_notes(), compress_level=0)
    house.settings["files"] = {"metadata": "strip"}
    house.write_settings()
    await house.wait_status(lambda s: s["configuration"]["generation"] == 2)
    uploads = house.folder / "state" / "spool" / "uploads"
    async with house.client() as client:
        await client.upload(file=("a.jpg", content))
        assert [path.read_bytes() for path in uploads.iterdir()] == [content]
        house.settings["files"] = {"reencode": True}
        house.write_settings()
        await house.wait_status(lambda s: s["configuration"]["generation"] == 3)
        tokens = await client.upload(
            small=("a.jpg", content), large=("b.png", large), bmp=("c.bmp", picture(".bmp"))
        )
        anew = [path.read_bytes() for path in uploads.iterdir() if path.read_bytes() != content]
        assert len(anew) == 3
        assert not any(SECRET.encode() in each for each in anew)
        assert seen(large) in [seen(each) for each in anew]
        await client.submit("invert", **{"10__image": tokens["large"]})
        assert len(await client.result()) == 1
    (sent,) = fake.calls_to("POST", "/upload/image")
    (large_anew,) = (each for each in anew if seen(each) == seen(large))
    assert sent.upload_name == f"{hashlib.sha256(large_anew).hexdigest()[:32]}.png"
    assert len(large_anew) < sent.size < len(large_anew) + 1000
