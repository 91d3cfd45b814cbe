"""What becomes of a file by what clamd says, and where it says nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import trio
import trio.testing

from bridged.config.schema import Files
from bridged.errors import FileRefused, ScannerAway
from bridged.files import clamd
from bridged.files.clamd import Scanner
from bridged.files.spool import Spool
from bridged.model import StoredFile
from tests.fakes.clamd import FakeClamd
from tests.files.pictures import picture


@pytest.fixture
async def fake(tmp_path: Path, nursery: trio.Nursery) -> FakeClamd:
    fake = FakeClamd()
    await nursery.start(fake.serve_unix, tmp_path / "clamd.sock")
    return fake


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool")
    spool.prepare(set())
    return spool


def stored(spool: Spool) -> list[str]:
    return [path.suffix for area in ("uploads", "results") for path in (spool.folder / area).iterdir()]


async def give(spool: Spool, fake: FakeClamd | str, content: bytes, patience: float = 0.0) -> StoredFile:
    async def chunks() -> AsyncGenerator[bytes, None]:
        for at in range(0, len(content), 50_000):
            yield content[at : at + 50_000]

    rules = Files(clamd=fake if isinstance(fake, str) else fake.address)
    return await spool.receive("uploads", "a.png", chunks(), limit=10**8, rules=rules, patience=patience)


@pytest.mark.parametrize("noise", [4, 400])
async def test_a_clean_file_is_stored_and_was_scanned_as_it_is(
    spool: Spool, fake: FakeClamd, noise: int
) -> None:
    content = picture(".png", noise, noise=True)
    file = await give(spool, fake, content)
    assert fake.scanned == [content] == [file.path.read_bytes()]
    assert stored(spool) == [".file"]


async def test_over_tcp_too(spool: Spool, nursery: trio.Nursery) -> None:
    fake = FakeClamd()
    await nursery.start(fake.serve_tcp)
    await give(spool, fake, picture())
    assert fake.scanned == [picture()]


@pytest.mark.parametrize("noise", [4, 400])
async def test_an_infected_file_is_refused_by_the_name_of_what_it_has(
    spool: Spool, fake: FakeClamd, noise: int
) -> None:
    fake.infected = b"IHDR"
    with pytest.raises(FileRefused, match=r"a.png: the virus scanner found Eicar-Test-Signature in it"):
        await give(spool, fake, picture(".png", noise, noise=True))
    assert stored(spool) == []


async def test_the_file_has_its_final_name_only_after_the_scan(
    spool: Spool, fake: FakeClamd, nursery: trio.Nursery
) -> None:
    fake.gate = trio.Event()
    nursery.start_soon(give, spool, fake, picture())
    await fake.asked.wait()
    assert stored(spool) == [".part"]
    fake.gate.set()
    with trio.fail_after(5):
        while stored(spool) != [".file"]:
            await trio.lowlevel.checkpoint()


ANSWERS = {
    "an error": b"stream: Can't allocate memory ERROR\0",
    "garbage": b"\xff\xfe\x00",
    "too much": b"x" * 100_000,
    "half an answer": b"stream: OK",
    "an answer to something else": b"PONG\0",
    "nothing": b"",
}


@pytest.mark.parametrize("what", ANSWERS)
async def test_what_is_no_verdict_refuses_the_file(spool: Spool, fake: FakeClamd, what: str) -> None:
    fake.answer = ANSWERS[what]
    with pytest.raises(ScannerAway) as refused:
        await give(spool, fake, picture())
    assert str(refused.value) == "the virus scanner does not answer; files are refused until it does"
    assert (refused.value.code, refused.value.status) == ("scanner_away", 503)
    assert stored(spool) == []


async def test_a_file_beyond_clamds_limit_is_refused_and_it_says_so(spool: Spool, fake: FakeClamd) -> None:
    fake.limit = 300_000
    with pytest.raises(ScannerAway, match="takes no files of this size"):
        await give(spool, fake, picture(".png", 800, noise=True))
    assert stored(spool) == []


@pytest.mark.parametrize("address", ["unix:/nowhere/clamd.sock", "tcp:127.0.0.1:1", "tcp:[::1]:1"])
async def test_a_clamd_that_is_away_refuses_every_file_without_telling_where_it_is(
    spool: Spool, address: str
) -> None:
    with pytest.raises(ScannerAway) as refused:
        await give(spool, address, picture())
    assert "127" not in str(refused.value)
    assert "nowhere" not in str(refused.value)
    assert stored(spool) == []


@pytest.mark.parametrize("how", ["silent", "deaf"])
async def test_a_clamd_that_hangs_is_not_waited_for_without_end(
    spool: Spool, fake: FakeClamd, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clamd, "ANSWER", 0.2)
    monkeypatch.setattr(clamd, "SEND", 0.2)
    fake.reads = how == "silent"
    fake.gate = trio.Event()
    with trio.fail_after(5), pytest.raises(ScannerAway):
        await give(spool, fake, picture(".png", 800, noise=True))
    assert stored(spool) == []


async def test_cancelling_a_scan_leaves_nothing_behind(
    spool: Spool, fake: FakeClamd, nursery: trio.Nursery
) -> None:
    fake.gate = trio.Event()
    with trio.CancelScope() as scope:

        async def cancel() -> None:
            await fake.asked.wait()
            scope.cancel()

        nursery.start_soon(cancel)
        await give(spool, fake, picture(".png", 400, noise=True))
    assert scope.cancelled_caught
    assert stored(spool) == []
    with trio.fail_after(5):
        while fake.now:
            fake.gate.set()
            await trio.lowlevel.checkpoint()


async def test_with_patience_a_scanner_that_comes_back_is_asked_again(
    spool: Spool, fake: FakeClamd, caplog: pytest.LogCaptureFixture
) -> None:
    fake.before = [b"", b"garbage\0"]
    with trio.fail_after(10):
        await give(spool, fake, picture(), patience=8)
        await give(spool, fake, picture())
    assert len(fake.scanned) == 4
    assert stored(spool) == [".file"] * 2
    told = [record.message for record in caplog.records if "scanner" in record.message]
    assert len(told) == 2, "once that it is away, once that it is back"


async def test_patience_ends(autojump_clock: trio.testing.MockClock) -> None:
    """On a clock of its own: between two tries nothing happens."""
    began = trio.current_time()
    with pytest.raises(ScannerAway):
        await Scanner().scan("unix:/nowhere/clamd.sock", b"x", "a.png", patience=60)
    assert 57 < trio.current_time() - began <= 60


async def test_a_burst_of_files_does_not_open_connections_without_end(
    spool: Spool, fake: FakeClamd, nursery: trio.Nursery
) -> None:
    with trio.fail_after(30):
        async with trio.open_nursery() as burst:
            for _ in range(60):
                burst.start_soon(give, spool, fake, picture())
    assert len(fake.scanned) == 60
    assert fake.most <= clamd.PLACES
