"""A virus scanner in the way of every file: what clients see of it. Against a fake clamd, and against a real one with
the EICAR test file and a signature database of its own."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.conftest import StartFake
from tests.e2e.house import Client, House
from tests.fakes.clamd import FakeClamd
from tests.fakes.comfyui import FakeComfyUI
from tests.files.pictures import picture
from tests.files.secret_pictures import chunk

EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
AWAY = "the virus scanner does not answer; files are refused until it does"
CLAMD = shutil.which("clamd") or shutil.which("clamd", path="/usr/sbin:/usr/local/sbin")


def stored(house: House, area: str) -> list[Path]:
    return list((house.folder / "state" / "spool" / area).iterdir())


async def upload(client: Client, name: str, content: bytes) -> httpx.Response:
    return await client.http.post("/upload", files={"file": (name, content)})


async def facts_of(client: Client, job_id: str) -> dict[str, Any]:
    """The job, once it has ended."""
    with trio.fail_after(15):
        while True:
            facts: dict[str, Any] = (await client.http.get(f"/jobs/{job_id}")).json()
            if facts["ended_at"] is not None:
                return facts
            await trio.sleep(0.01)


@pytest.fixture
async def scanner(house: House, nursery: trio.Nursery) -> FakeClamd:
    """A fake clamd that the house's daemon is told of; that is not started yet."""
    scanner = FakeClamd(infected=EICAR)
    house.settings["files"] = {"clamd": await nursery.start(scanner.serve_unix, house.folder / "clamd.sock")}
    return scanner


@pytest.fixture
async def pc(house: House, scanner: FakeClamd, start_fake: StartFake) -> FakeComfyUI:
    fake = await start_fake("one")
    house.write_backends(("pc-1", fake.url))
    await house.start()
    await house.wait_up("pc-1")
    return fake


async def test_uploads_and_results_pass_the_scanner(
    house: House, scanner: FakeClamd, pc: FakeComfyUI
) -> None:
    content = picture(".png", 300, noise=True)
    async with house.client() as client:
        tokens = await client.upload(file=("a.png", content))
        await client.submit("invert", **{"10__image": tokens["file"]})
        (result,) = await client.result()
    (prompt,) = pc.prompts.values()
    assert scanner.scanned == [content, prompt.images[0]]
    assert result["file_name"].endswith(".png")


async def test_an_infected_upload_is_refused_by_name(
    house: House, scanner: FakeClamd, pc: FakeComfyUI
) -> None:
    scanner.infected = b"IHDR"
    async with house.client() as client:
        answer = await upload(client, "a.png", picture())
    assert answer.status_code == 400
    assert answer.json() == {"detail": "a.png: the virus scanner found Eicar-Test-Signature in it"}
    assert stored(house, "uploads") == []


async def test_an_infected_result_is_not_delivered_and_the_job_says_why(
    house: House, scanner: FakeClamd, pc: FakeComfyUI
) -> None:
    scanner.infected = b"IHDR"
    async with house.client() as client:
        facts = await facts_of(client, (await client.submit("pattern"))["job_id"])
        assert await client.result(wait=0) == []
    assert "Eicar-Test-Signature" in json.dumps(facts)
    assert facts["outputs"] == []
    assert stored(house, "results") == []


async def test_while_the_scanner_is_away_uploads_are_refused(
    house: House, scanner: FakeClamd, pc: FakeComfyUI
) -> None:
    scanner.answer = b""
    async with house.client() as client:
        answer = await upload(client, "a.png", picture())
        assert (answer.status_code, answer.json()) == (503, {"detail": AWAY})
        assert "Retry-After" in answer.headers
        assert stored(house, "uploads") == []
        scanner.answer = b"stream: OK\0"
        assert (await upload(client, "a.png", picture())).status_code == 200


async def test_a_result_waits_for_a_scanner_that_comes_back(
    house: House, scanner: FakeClamd, pc: FakeComfyUI
) -> None:
    scanner.before = [b"", b"", b""]
    async with house.client() as client:
        facts = await facts_of(client, (await client.submit("pattern"))["job_id"])
        assert (facts["state"], len(facts["attempts"])) == ("succeeded", 1)
    assert scanner.before == []


async def test_a_job_whose_results_nobody_can_scan_fails_and_no_pc_is_blamed(
    house: House, scanner: FakeClamd, pc: FakeComfyUI
) -> None:
    scanner.answer = b"stream: out of order ERROR\0"
    async with house.client() as client:
        facts = await facts_of(client, (await client.submit("pattern"))["job_id"])
    assert (facts["state"], facts["fault"], len(facts["attempts"])) == ("failed", "policy", 1)
    assert AWAY in facts["reason"]
    assert stored(house, "results") == []


async def test_a_job_can_be_cancelled_while_its_result_is_scanned(
    house: House, scanner: FakeClamd, pc: FakeComfyUI
) -> None:
    scanner.gate = trio.Event()
    async with house.client() as client:
        job_id = (await client.submit("pattern"))["job_id"]
        await scanner.asked.wait()
        async with client.socket():
            pass  # the connection's end revokes what is left
        facts = await facts_of(client, job_id)
    assert facts["state"] == "cancelled"
    with trio.fail_after(5):
        while stored(house, "results"):
            await trio.sleep(0.01)


# -- a real clamd ----------------------------------------------------------------------------------------------------


class RealClamd:
    """clamd with one signature, on a socket in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.address = f"unix:{folder / 'clamd.sock'}"
        self._config = folder / "clamd.conf"
        (folder / "db").mkdir(parents=True)
        (folder / "db" / "test.ndb").write_text(f"Test.Eicar:0:*:{EICAR.hex()}\n")
        self._config.write_text(
            f"LocalSocket {folder / 'clamd.sock'}\nDatabaseDirectory {folder / 'db'}\nTemporaryDirectory {folder}\n"
            "Foreground yes\nFixStaleSocket yes\nStreamMaxLength 2M\nAlertExceedsMax yes\n"
        )

    def start(self) -> None:
        assert CLAMD
        self._process = subprocess.Popen(
            [CLAMD, "-c", str(self._config)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._process.stdout
        said = []
        for line in self._process.stdout:
            said.append(line)
            if line.startswith("Self checking"):
                return
        raise AssertionError("".join(said))

    def stop(self) -> None:
        self._process.terminate()
        self._process.communicate()


@pytest.fixture
def real_clamd(tmp_path: Path) -> Iterator[RealClamd]:
    if CLAMD is None:
        pytest.skip("no clamd is installed here; apt-get install clamav-daemon")
    clamd = RealClamd(tmp_path / "clamav")
    clamd.start()
    yield clamd
    clamd.stop()


@pytest.fixture
async def scanned(house: House, real_clamd: RealClamd) -> House:
    """A started house with that clamd, which takes plain text, too."""
    house.settings["files"] = {"clamd": real_clamd.address}
    house.settings["files.allowed"] = {'"image/png"': [".png"], '"text/plain"': [".txt"]}
    await house.start()
    return house


def png_with(content: bytes) -> bytes:
    plain = picture()
    return plain[:33] + chunk(b"tEXt", b"Comment\0" + content) + plain[33:]


HARMLESS: dict[str, Callable[[], tuple[str, bytes]]] = {
    "text": lambda: ("a.txt", b"nothing to see here\n"),
    "a picture": lambda: ("a.png", picture()),
    "a large picture": lambda: ("a.png", picture(".png", 700, noise=True)),
}
INFECTED: dict[str, Callable[[], tuple[str, bytes]]] = {
    "the test file": lambda: ("eicar.txt", EICAR),
    "in a picture": lambda: ("a.png", png_with(EICAR)),
    "deep in a large text": lambda: ("a.txt", b"harmless words\n" * 60_000 + EICAR + b"\n"),
}


@pytest.mark.parametrize("what", INFECTED)
async def test_a_real_clamd_finds_eicar_in_an_upload(scanned: House, what: str) -> None:
    name, content = INFECTED[what]()
    async with scanned.client() as client:
        answer = await upload(client, name, content)
    assert (answer.status_code, stored(scanned, "uploads")) == (400, [])
    assert answer.json()["detail"] == f"{name}: the virus scanner found Test.Eicar.UNOFFICIAL in it"


@pytest.mark.parametrize("what", HARMLESS)
async def test_a_real_clamd_lets_harmless_files_pass(scanned: House, what: str) -> None:
    name, content = HARMLESS[what]()
    async with scanned.client() as client:
        assert (await upload(client, name, content)).status_code == 200
    assert [path.read_bytes() for path in stored(scanned, "uploads")] == [content]


async def test_one_infected_file_takes_the_whole_request_with_it(scanned: House) -> None:
    async with scanned.client() as client:
        files = {"one": ("a.png", picture()), "two": ("b.txt", EICAR)}
        assert (await client.http.post("/upload", files=files)).status_code == 400
    assert stored(scanned, "uploads") == []


async def test_a_file_beyond_a_real_clamds_limit_is_refused(scanned: House) -> None:
    content = bytes(random.Random(1).choices(range(97, 123), k=3_000_000))
    async with scanned.client() as client:
        answer = await upload(client, "a.txt", content)
    assert (answer.status_code, stored(scanned, "uploads")) == (503, [])
    assert "takes no files of this size" in answer.json()["detail"]


async def test_a_real_clamd_may_go_and_come_back(scanned: House, real_clamd: RealClamd) -> None:
    async with scanned.client() as client:
        await trio.to_thread.run_sync(real_clamd.stop)
        answer = await upload(client, "a.png", picture())
        assert (answer.status_code, answer.json()) == (503, {"detail": AWAY})
        await trio.to_thread.run_sync(real_clamd.start)
        assert (await upload(client, "a.png", picture())).status_code == 200
        assert (await upload(client, "a.txt", EICAR)).status_code == 400


async def test_a_real_clamd_finds_eicar_in_a_result(
    house: House, real_clamd: RealClamd, start_fake: StartFake
) -> None:
    house.settings["files"] = {"clamd": real_clamd.address}
    fake = await start_fake("one")
    fake.script.output_bytes = png_with(EICAR)
    house.write_backends(("pc-1", fake.url))
    await house.start()
    await house.wait_up("pc-1")
    async with house.client() as client:
        facts = await facts_of(client, (await client.submit("pattern"))["job_id"])
    assert "Test.Eicar.UNOFFICIAL" in json.dumps(facts)
    assert stored(house, "results") == []
