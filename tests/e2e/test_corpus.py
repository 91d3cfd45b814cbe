"""The corpus over real HTTP: whatever is hostile is refused and leaves nothing, whatever is ordinary is taken as it is.

What is wrong in a class of cases is collected and told at once: a list to work through, not the first stone only.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import trio

from tests.corpus import benign, hostile, requests, texts
from tests.corpus.case import Case
from tests.corpus.forms import PNG_MAGIC, png_chunk, png_header
from tests.corpus.seeds import seed
from tests.e2e.house import House
from tests.e2e.test_process import service
from tests.e2e.wire import Answer, Wire, wire

MB = 1_000_000
UPLOAD = "/upload?clientId=corpus"
INTERNAL = re.compile(
    r"Traceback|[a-z]Error\b|Exception|<_io|object at 0x|Errno|internal error|\bNone\b|/tmp|spool|codec can't"
    r"|cannot identify image|assert|\bline \d+"
)
"""what no reason for a refusal has in it: our own insides"""

SAYS = {
    "name": re.compile("name|characters|bytes", re.IGNORECASE),
    "extension": re.compile("extension|fit|name|content", re.IGNORECASE),
    "declared": re.compile("declared|content.type|fit", re.IGNORECASE),
}
"""of classes whose every case is wrong in one way: what the reason must be about"""


async def send(client: Wire, case: Case) -> Answer:
    return await client.ask("POST", UPLOAD, [("Content-Type", requests.FORM)], requests.upload(case))


def wrong_refusal(answer: Answer, kind: str = "") -> str:
    """Why this is no good refusal, or ""."""
    if not 400 <= answer.status < 500:
        return f"answered {answer.status}: {answer.body[:200]!r}"
    if answer.headers.get("content-type") != "application/json":
        return f"{answer.status}, but the answer is {answer.headers.get('content-type')}"
    detail = answer.json().get("detail")
    if not isinstance(detail, str) or len(detail) < 12 or " " not in detail:
        return f"{answer.status} without a reason: {detail!r}"
    if found := INTERNAL.search(detail):
        return f"{answer.status}, the reason shows our insides ({found[0]}): {detail}"
    if kind in SAYS and not SAYS[kind].search(detail):
        return f"{answer.status}, the reason is beside the point: {detail}"
    return ""


def told(wrong: dict[str, str], of: int) -> str:
    return f"{len(wrong)} of {of}:\n" + "\n".join(f"  {name} -> {what}" for name, what in wrong.items())


def on_disk(house: House) -> list[Path]:
    return [path for path in (house.folder / "state" / "spool").rglob("*") if path.is_file()]


async def refuse_all(house: House, cases: Iterator[Case]) -> None:
    """Each is refused on one connection, which stays; nothing is left; a good file is still taken afterwards."""
    wrong: dict[str, str] = {}
    sent = 0
    async with wire(house.url) as client:
        for case in cases:
            sent += 1
            answer = await send(client, case)
            if problem := wrong_refusal(answer, case.kind):
                wrong[case.name] = problem
            for path in on_disk(house):
                if answer.status != 200:
                    wrong[case.name] = f"left {path.name} on disk"
                path.unlink()
        assert sent
        assert not wrong, told(wrong, sent)
        assert client.connections == 1
        assert (await send(client, Case("", "good.png", seed(".png"), "image/png", ""))).status == 200
    assert len(on_disk(house)) == 1


async def accept_all(house: House, cases: Iterator[Case]) -> None:
    """Each is taken on one connection; what is on disk is those files, byte for byte, and no other."""
    wrong: dict[str, str] = {}
    accepted: Counter[str] = Counter()
    async with wire(house.url) as client:
        for case in cases:
            answer = await send(client, case)
            if answer.status == 200 and answer.json()["file"].startswith("bridge_server_comfyui_"):
                accepted[hashlib.sha256(case.data()).hexdigest()] += 1
            else:
                wrong[case.name] = f"{answer.status}: {answer.body.decode(errors='replace')[:300]}"
        connections = client.connections
    assert accepted
    assert not wrong, told(wrong, accepted.total() + len(wrong))
    assert connections == 1
    assert Counter(hashlib.sha256(path.read_bytes()).hexdigest() for path in on_disk(house)) == accepted


@pytest.fixture
async def gate(house: House) -> House:
    """A daemon without a PC: uploads need none."""
    house.write_backends()
    await house.start()
    return house


@pytest.mark.parametrize("kind", hostile.KINDS)
async def test_what_is_hostile_is_refused(gate: House, kind: str) -> None:
    await refuse_all(gate, hostile.cases(kind))


@pytest.mark.parametrize("kind", benign.KINDS)
async def test_what_is_ordinary_is_taken(gate: House, kind: str) -> None:
    await accept_all(gate, benign.cases(kind))


async def test_text_is_utf8_without_active_content(house: House) -> None:
    house.settings["files.allowed"] = {'"text/plain"': [".txt"], '"image/png"': [".png"]}
    house.write_backends()
    await house.start()
    await refuse_all(house, texts.hostile())
    for path in on_disk(house):
        path.unlink()
    await accept_all(house, texts.benign())


async def test_malformed_forms_are_refused_whole(gate: House) -> None:
    wrong: dict[str, str] = {}
    async with wire(gate.url) as client:
        for request in requests.malformed():
            headers = [] if request.content_type is None else [("Content-Type", request.content_type)]
            answer = await client.ask("POST", UPLOAD, headers, request.data())
            if problem := wrong_refusal(answer):
                wrong[request.name] = problem
            for path in on_disk(gate):
                wrong[request.name] = f"{answer.status}, and left {path.name} on disk"
                path.unlink()
        good = await send(client, Case("", "good.png", seed(".png"), "image/png", ""))
    assert not wrong, told(wrong, len(list(requests.malformed())))
    assert good.status == 200


async def test_what_is_too_large_is_refused_before_it_has_come(house: House) -> None:
    house.settings["files"] = {"upload_max_size": 1}
    house.write_backends()
    await house.start()
    head = requests.form(requests.part(requests.disposition("a.wav"), b"")).split(b"\r\n\r\n")[0] + b"\r\n\r\n"

    def endless() -> Iterator[bytes]:
        yield head + seed(".wav")
        while True:
            yield bytes(65536)

    async with wire(house.url) as client:
        for length in (10**15, None):
            headers = [("Content-Type", requests.FORM)]
            answer = await client.ask("POST", UPLOAD, headers, endless(), length, seconds=5)
            assert answer.status == 413
            assert not wrong_refusal(answer)
            assert on_disk(house) == []


# -- memory ------------------------------------------------------------------------------------------------------

SIDE = 5750
"""pixels: a square of random RGB is 99 MB"""


def random_png() -> Iterator[bytes]:
    """Noise, which does not compress: stored blocks of 64 kB, each in an IDAT of its own."""
    generator = np.random.default_rng(4)
    yield PNG_MAGIC + png_chunk(*png_header(SIDE, SIDE, 8, 2))
    pending, checksum, first = b"", 1, True
    for number in range(SIDE):
        row = b"\0" + generator.bytes(3 * SIDE)
        checksum = zlib.adler32(row, checksum)
        pending += row
        last = number == SIDE - 1
        while len(pending) >= 65535 or (last and pending):
            block, pending = pending[:65535], pending[65535:]
            final = last and not pending
            stored = struct.pack("<BHH", final, len(block), 0xFFFF - len(block)) + block
            data = (b"\x78\x01" if first else b"") + stored + (struct.pack(">I", checksum) if final else b"")
            yield png_chunk(b"IDAT", data)
            first = False
    yield png_chunk(b"IEND")


def random_wav() -> Iterator[bytes]:
    size = 99 * MB
    yield b"RIFF" + struct.pack("<I", size + 36) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 2, 44100, 176400, 4, 16)
    yield b"data" + struct.pack("<I", size)
    generator = np.random.default_rng(4)
    for _ in range(size // 100_000):
        yield generator.bytes(100_000)


def memory(pid: int, what: str) -> int:
    """kB; `what`: VmRSS now, VmHWM the most since the last reset."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1])


@pytest.mark.parametrize(("name", "pieces"), [("noise.png", random_png), ("noise.wav", random_wav)])
async def test_an_upload_of_100_MB_takes_less_than_20_MB_of_memory(
    tmp_path: Path, name: str, pieces: Callable[[], Iterator[bytes]]
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "workflows").mkdir()
    (tmp_path / "etc" / "bridged.toml").write_text('[embedded]\nworker = "never"\n')
    mime = "image/png" if name.endswith(".png") else "audio/wav"
    size = sum(map(len, pieces()))
    assert 95 * MB < size < 100 * MB
    whole = requests.form(requests.part(requests.disposition(name), b"@@", b"Content-Type: " + mime.encode()))
    before, after = whole.split(b"@@")

    def body() -> Iterator[bytes]:
        yield before
        yield from pieces()
        yield after

    async with service(tmp_path) as running, wire(running.url) as client:
        pid = running.process.pid
        for extension in (".png", ".wav", ".png", ".wav"):  # what is loaded and allocated once
            small = Case("", f"a{extension}", seed(extension), None, "")
            assert (await send(client, small)).status == 200
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        resting = memory(pid, "VmRSS")
        headers = [("Content-Type", requests.FORM)]
        length = len(before) + size + len(after)
        answer = await client.ask("POST", UPLOAD, headers, body(), length, seconds=60)
        assert answer.status == 200, answer.body
        grown = memory(pid, "VmHWM") - resting
        await trio.lowlevel.checkpoint()
    assert grown < 20_000, f"grew by {grown} kB"


# -- the corpus itself -------------------------------------------------------------------------------------------


def test_the_corpus_is_as_large_as_it_says_and_always_the_same() -> None:
    assert len(list(hostile.cases())) >= 300
    listed = list(benign.cases())
    assert len(listed) >= 300
    assert len({case.encoder for case in listed}) >= 8
    for kind in ("damaged", "polyglot", "metadata"):
        first, second = ([case.data() for case in hostile.cases(kind)] for _ in range(2))
        assert first == second
