"""Deliveries over real sockets and a real ledger; only names are looked up in a table of the test's."""

from __future__ import annotations

import json
import logging
import shutil
import socket
import sqlite3
import ssl
import stat
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from bridged.actors import webhooks as module
from bridged.actors.announcement import announcement
from bridged.actors.callback import SigningKey, signature
from bridged.actors.webhooks import AT_ONCE, PER_HOST, Webhooks
from bridged.config import schema
from bridged.errors import BadInput, BridgedError, QueueFull
from bridged.model import Failure, Fault, JobState, Results
from bridged.store.ledger import Change, DeliveryAdded, JobAdded, JobFacts, JobMoved
from bridged.store.sqlite import SqliteLedger
from tests.fakes.receiver import Call, Receiver
from tests.fakes.recorded_effects import Pool, RecordedEffects, job, outputs

SECRET = "a secret of the test"
LOOPBACK = ("127.0.0.0/8",)

Start = Callable[..., Awaitable[Receiver]]


@pytest.fixture
async def start(nursery: trio.Nursery) -> Start:
    async def start(tls: ssl.SSLContext | None = None) -> Receiver:
        receiver = Receiver(tls=tls)
        await nursery.start(receiver.serve)
        return receiver

    return start


@pytest.fixture
async def receiver(start: Start) -> Receiver:
    return await start()


class Desk:
    """A ledger and the webhooks on it. `names` is the DNS: each look-up of a name takes its next answer, the last one
    for ever."""

    def __init__(self, folder: Path, settings: schema.Webhooks, tls: ssl.SSLContext | None, first: float) -> None:
        self.folder = folder
        self.settings = settings
        self.names: dict[str, list[list[str]]] = {}
        self.looked_up: list[str] = []
        self.ledger = SqliteLedger(folder / "ledger.sqlite3", reserve=1000)
        self.ledger.open()
        self.key = SigningKey(lambda: self.settings, folder, folder)
        context = tls or ssl.create_default_context()
        self.webhooks = Webhooks(
            self.ledger,
            lambda: self.settings,
            self.key,
            context,
            resolve=self._resolve,
            wall=lambda: 1700000000.9,
            first=first,
        )
        self._ended = 0
        self.failed = trio.Event()
        """a try has failed"""
        judge = self.webhooks._failed

        def note(delivery: module._Delivery, reason: str) -> float | None:
            self.failed.set()
            return judge(delivery, reason)

        self.webhooks._failed = note  # type: ignore[method-assign]

    async def _resolve(self, host: str, port: int) -> list[str]:
        await trio.lowlevel.checkpoint()
        self.looked_up.append(host)
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        answers = self.names[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def end_job(self, url: str) -> str:
        """A job with this webhook ends; the id of its delivery."""
        self._ended += 1
        facts = JobFacts(JobState.SUCCEEDED, ended_at=self.ledger.now())
        ended = msgspec.structs.replace(job(f"job-{self._ended}"), webhook=url)
        (added,) = announcement(ended, facts, f"delivery-{self._ended}")
        self.ledger.write(added)
        self.ledger.after_commit(partial(self.webhooks.take, added))
        return added.id

    def change(self, **settings: object) -> None:
        self.settings = msgspec.structs.replace(self.settings, **settings)

    async def wait_settled(self) -> None:
        """Until nothing waits any more, in memory and in the ledger."""
        with trio.fail_after(10):
            while self.webhooks.waiting():
                await self.webhooks._changed.wait()
            await self.ledger.committed()
        assert self.ledger.load().deliveries == ()


@asynccontextmanager
async def desk(
    folder: Path, *hosts: str, tls: ssl.SSLContext | None = None, first: float = 0.02, **settings: object
) -> AsyncIterator[Desk]:
    known = {"private": LOOPBACK, "secret": SECRET, "hosts": ("127.0.0.1", *hosts)} | settings
    made = Desk(folder, msgspec.convert(known, schema.Webhooks), tls, first)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.ledger.run)
            made.webhooks.restore(made.ledger.load().deliveries)
            nursery.start_soon(made.webhooks.run)
            yield made
            nursery.cancel_scope.cancel()
    finally:
        made.ledger.close()


# -- what a job's end leaves in the ledger ---------------------------------------------------------------------------


class Writes(RecordedEffects):
    """Keeps apart what was written together."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[Change, ...]] = []

    def write(self, *changes: Change) -> None:
        super().write(*changes)
        self.batches.append(changes)


def ended_in(pool: Pool) -> list[tuple[JobMoved, DeliveryAdded]]:
    """The writes that have a delivery."""
    assert isinstance(pool.effects, Writes)
    found = []
    for batch in pool.effects.batches:
        if any(isinstance(change, DeliveryAdded) for change in batch):
            moved, added = batch
            assert isinstance(moved, JobMoved)
            assert isinstance(added, DeliveryAdded)
            found.append((moved, added))
    return found


@pytest.fixture
def pool() -> Pool:
    pool = Pool(max_attempts=1)
    pool.effects = pool.dispatcher._effects = Writes()
    return pool


def submit(pool: Pool, webhook: str = "http://example.org/hook?token=1") -> str:
    pool.dispatcher.on_submitted(msgspec.structs.replace(job("j"), webhook=webhook))
    return "j"


def test_a_success_and_its_delivery_are_written_together(pool: Pool) -> None:
    pool.backend("a")
    submit(pool)
    pool.now = 7.0
    made = outputs("j")
    pool.dispatcher.on_finished(pool.prompt("j"), Results(made))
    ((moved, added),) = ended_in(pool)
    assert moved.facts.state is JobState.SUCCEEDED
    assert (added.job_id, added.url, added.due_at) == ("j", "http://example.org/hook?token=1", 7.0)
    assert json.loads(added.body) == {
        "job_id": "j",
        "clientId": "client",
        "workflow": pool.record("j").job.alias,
        "state": "succeeded",
        "reason": None,
        "fault": None,
        "created_at": pool.record("j").job.created_at,
        "ended_at": 7.0,
        "outputs": [
            {"name": o.name, "size": o.file.size, "content_type": o.file.content_type, "sha256": o.file.sha256}
            for o in made
        ],
        "refused": [],
        "delivery_id": added.id,
    }


def test_so_is_every_other_end_once(pool: Pool) -> None:
    pool.backend("a")
    submit(pool)
    prompt = pool.prompt("j")
    pool.dispatcher.on_failed(prompt, Failure(Fault.WORKFLOW, "node 3 broke"))
    ((_, added),) = ended_in(pool)
    told = json.loads(added.body)
    assert (told["state"], told["reason"], told["fault"]) == ("failed", "on a: node 3 broke", "workflow")
    assert not pool.dispatcher.on_finished(prompt, Results(()))
    assert not pool.dispatcher.on_revoked("j", "too late")
    assert len(ended_in(pool)) == 1


def test_a_revoked_job_is_told_too_but_not_one_that_its_client_was_told_is_none(pool: Pool) -> None:
    submit(pool)
    pool.dispatcher.on_revoked("j", "it could not be stored", announced=False)
    assert ended_in(pool) == []
    submit(pool)
    pool.dispatcher.on_revoked("j", "interrupted by its client")
    ((_, added),) = ended_in(pool)
    assert json.loads(added.body)["state"] == "cancelled"


def test_a_job_with_no_webhook_leaves_nothing(pool: Pool) -> None:
    submit(pool, "")
    pool.dispatcher.on_revoked("j", "interrupted")
    assert ended_in(pool) == []


def test_a_crash_right_after_the_end_loses_neither(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "l.sqlite3", reserve=1000)
    ledger.open()
    made = msgspec.structs.replace(job("j"), webhook="http://example.org/")
    facts = JobFacts(JobState.CANCELLED, ended_at=5.0)
    ledger.write(JobAdded(made))
    ledger.write(JobMoved("j", JobState.QUEUED, None, facts), *announcement(made, facts, "d"))
    ledger.close()
    again = SqliteLedger(tmp_path / "l.sqlite3", reserve=1000)
    again.open()
    saved = again.load()
    again.close()
    assert saved.jobs[0].facts.state is JobState.CANCELLED
    assert [(each.delivery.id, each.delivery.url, each.tries) for each in saved.deliveries] == [
        ("d", "http://example.org/", 0)
    ]


# -- delivering ------------------------------------------------------------------------------------------------------


async def test_a_delivery_is_signed_json_and_goes_once(
    tmp_path: Path, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bridged")
    async with desk(tmp_path) as there:
        id_ = there.end_job(f"{receiver.url}/a/hook?token=hidden%20x")
        (call,) = await receiver.wait_calls(1)
        await there.wait_settled()
    assert call.target == "/a/hook?token=hidden%20x"
    assert call.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert call.headers["content-type"] == "application/json"
    assert call.headers["bridged-delivery"] == call.headers["idempotency-key"] == call.told["delivery_id"] == id_
    assert call.headers["bridged-timestamp"] == "1700000000"
    assert call.is_signed(SECRET.encode())
    assert not call.is_signed(b"another")
    assert len(receiver.calls) == 1
    assert "job job-1: its webhook at 127.0.0.1 took delivery delivery-1" in caplog.text
    assert "hidden" not in caplog.text  # a URL may be a secret


@pytest.mark.parametrize(
    "answer",
    [500, 404, 429, 301, "close", b"no HTTP\r\n\r\n", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000],
)
async def test_anything_but_a_2xx_is_tried_again_with_the_same_id(
    tmp_path: Path, receiver: Receiver, answer: int | bytes | str, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers += [answer, answer]
    async with desk(tmp_path) as there:
        there.end_job(receiver.url)
        calls = await receiver.wait_calls(3)
        await there.wait_settled()
    assert len({call.id for call in calls}) == len({call.body for call in calls}) == 1
    assert "job job-1: try 2 of its webhook at 127.0.0.1 failed, the next is in" in caplog.text


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_any_2xx_takes_it(tmp_path: Path, receiver: Receiver, status: int) -> None:
    receiver.answers.append(status)
    async with desk(tmp_path) as there:
        there.end_job(receiver.url)
        await receiver.wait_calls(1)
        await there.wait_settled()
    assert len(receiver.calls) == 1


async def test_a_receiver_that_says_nothing_is_given_the_time_out(
    tmp_path: Path, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers.append("hang")
    async with desk(tmp_path, timeout=0.2) as there:
        there.end_job(receiver.url)
        await receiver.wait_calls(2)
        await there.wait_settled()
    assert "no answer within 0.2 s" in caplog.text


@pytest.mark.parametrize("body", [b"x" * 300_000, b"x", b""])
async def test_an_answers_body_is_neither_waited_for_nor_kept(tmp_path: Path, receiver: Receiver, body: bytes) -> None:
    receiver.answers.append(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 100000000\r\n\r\n" + body)
    async with desk(tmp_path) as there:
        there.end_job(receiver.url)
        await receiver.wait_calls(1)
        await there.wait_settled()
    assert len(receiver.calls) == 1


async def test_the_waits_double_and_end_at_the_longest(tmp_path: Path) -> None:
    async with desk(tmp_path) as there:
        webhooks = there.webhooks
        webhooks._first = 1.0
        added = DeliveryAdded("d", "j", "http://127.0.0.1/", b"", 0.0)
        waits = []
        for tries in (1, 2, 3, 4, 20, 2000):
            delivery = module._Delivery(added, tries, there.ledger.now())
            due_at = webhooks._failed(delivery, "no")
            assert due_at is not None
            waits.append(due_at - there.ledger.now())
    for wait, longest in zip(waits, (1, 2, 4, 8, 3600, 3600), strict=True):
        assert longest / 2 - 0.1 <= wait <= longest


async def test_it_is_given_up_after_a_while_with_a_last_try_at_the_end(
    tmp_path: Path, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers += [503] * 1000
    async with desk(tmp_path, give_up_after=0.5) as there:
        there.end_job(receiver.url)
        await receiver.wait_calls(1)
        await there.wait_settled()
        tries = len(receiver.calls)
        assert 1 <= tries <= 12
        since = there.ledger.now() - 0.3  # the end is near: the next wait is shorter, not the last one skipped
        last = there.webhooks._failed(module._Delivery(DeliveryAdded("d", "j", "", b"", 0.0), 9, since), "no")
        assert last == since + 0.5
    assert f"was not told in {tries} tries and is given up: it answers with HTTP status 503" in caplog.text


async def test_410_gives_up_at_once(tmp_path: Path, receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    receiver.answers += [410]
    async with desk(tmp_path) as there:
        there.end_job(receiver.url)
        await receiver.wait_calls(1)
        await there.wait_settled()
    assert len(receiver.calls) == 1
    assert "wants no more (HTTP status 410); given up" in caplog.text


async def test_redirects_are_not_followed(tmp_path: Path, start: Start, caplog: pytest.LogCaptureFixture) -> None:
    first, other = await start(), await start()
    for status in (301, 302, 303, 307, 308):
        first.answers.append(
            f"HTTP/1.1 {status} Elsewhere\r\nLocation: {other.url}/\r\nContent-Length: 0\r\n\r\n".encode()
        )
    async with desk(tmp_path) as there:
        there.end_job(first.url)
        await first.wait_calls(6)
        await there.wait_settled()
    assert other.connections == 0
    assert "HTTP status 302, and redirects are not followed" in caplog.text


async def test_proxies_of_the_environment_are_not_used(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with desk(tmp_path) as there:
        there.end_job(receiver.url)
        await receiver.wait_calls(1)
        await there.wait_settled()


async def test_a_restart_goes_on_where_it_was(tmp_path: Path, receiver: Receiver) -> None:
    receiver.answers += [500, 500]
    async with desk(tmp_path, first=1000) as there:
        id_ = there.end_job(receiver.url)
        await receiver.wait_calls(1)
        while there.webhooks._busy:  # the answer is on its way
            await there.webhooks._changed.wait()
        due = there.webhooks._hosts["127.0.0.1"].waiting[0][0]
        assert due - there.ledger.now() > 400
    ledger = SqliteLedger(tmp_path / "ledger.sqlite3", reserve=1000)
    ledger.open()
    (saved,) = ledger.load().deliveries
    assert (saved.tries, saved.delivery.due_at) == (1, due)
    assert saved.delivery.body == receiver.calls[0].body
    ledger.close()
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite3")) as connection, connection:
        connection.execute("UPDATE deliveries SET due_at = 0")  # as if that time had passed
    async with desk(tmp_path) as there:
        calls = await receiver.wait_calls(3)
        await there.wait_settled()
    assert [call.id for call in calls] == [id_] * 3


async def test_a_try_that_a_stop_interrupts_is_made_again(tmp_path: Path, receiver: Receiver) -> None:
    receiver.answers += ["hang"]
    async with desk(tmp_path) as there:
        there.end_job(receiver.url)
        await receiver.wait_calls(1)
    async with desk(tmp_path) as there:
        first, second = await receiver.wait_calls(2)
        await there.wait_settled()
    assert first.id == second.id


async def test_a_crash_of_the_task_is_survived(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "COOL_DOWN", 0.01)
    receiver.answers += ["hang"]
    async with desk(tmp_path) as there:
        there.end_job(receiver.url)
        await receiver.wait_calls(1)

        def broken() -> float:
            del there.webhooks._idle_for
            raise RuntimeError("a mistake of ours")

        there.webhooks._idle_for = broken  # type: ignore[method-assign]
        there.end_job(receiver.url)
        await receiver.wait_calls(3)
        await there.wait_settled()
        assert there.webhooks._busy == 0
    assert "delivering to webhooks crashed" in caplog.text


# -- room ------------------------------------------------------------------------------------------------------------


async def test_a_host_that_hangs_holds_two_places_and_the_others_go_on(tmp_path: Path, start: Start) -> None:
    hanging, other = await start(), await start()
    hanging.answers += ["hang"] * 100
    async with desk(tmp_path, "hangs.example", "works.example") as there:
        there.names = {"hangs.example": [["127.0.0.1"]], "works.example": [["127.0.0.1"]]}
        for _ in range(6):
            there.end_job(f"http://hangs.example:{hanging.port}/")
        await hanging.wait_calls(PER_HOST)
        for _ in range(6):
            there.end_job(f"http://works.example:{other.port}/")
        await other.wait_calls(6)
        assert hanging.most_open == PER_HOST
        assert other.most_open <= PER_HOST


async def test_so_many_go_at_once_and_no_more(tmp_path: Path, receiver: Receiver) -> None:
    receiver.answers += ["hang"] * 100
    async with desk(tmp_path, "*.example") as there:
        for number in range(AT_ONCE):
            there.names[f"h{number}.example"] = [["127.0.0.1"]]
            for _ in range(PER_HOST):
                there.end_job(f"http://h{number}.example:{receiver.port}/")
        await receiver.wait_calls(AT_ONCE)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert receiver.connections == AT_ONCE
        assert len({call.headers["host"] for call in receiver.calls}) == AT_ONCE  # each host had its turn


async def test_a_host_that_takes_nothing_gets_no_more_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    async with desk(tmp_path, "gone.example", "other.example", first=1000) as there:
        for _ in range(3):
            there.webhooks.check("http://gone.example/")
            there.end_job("http://gone.example/")
        while there.webhooks._busy or len(there.looked_up) < 3:
            await there.webhooks._changed.wait()
        with pytest.raises(QueueFull, match=r"3 deliveries wait for gone\.example"):
            there.webhooks.check("http://gone.example/again")
        there.webhooks.check("http://other.example/")


# -- where it may go -------------------------------------------------------------------------------------------------


async def test_a_name_is_looked_up_once_a_try_and_its_checked_address_is_called(
    tmp_path: Path, receiver: Receiver
) -> None:
    async with desk(tmp_path, "hooks.example") as there:
        there.names["hooks.example"] = [["127.0.0.1"]]  # no DNS knows it: a second look-up would fail
        there.end_job(f"http://hooks.example:{receiver.port}/x")
        (call,) = await receiver.wait_calls(1)
        await there.wait_settled()
    assert there.looked_up == ["hooks.example"]
    assert call.headers["host"] == f"hooks.example:{receiver.port}"


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["::ffff:127.0.0.1"], ["64:ff9b::7f00:1"], ["::1"]]
)
async def test_a_name_with_a_private_address_is_not_called(
    tmp_path: Path, receiver: Receiver, addresses: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with desk(tmp_path, "hooks.example", private=(), give_up_after=0.1) as there:
        there.names["hooks.example"] = [addresses]
        there.end_job(f"http://hooks.example:{receiver.port}/")
        await there.ledger.committed()
        await there.wait_settled()
    assert receiver.connections == 0
    assert "which is not public and not in [webhooks] private" in caplog.text


async def test_a_name_that_moves_to_a_private_address_is_checked_each_time(tmp_path: Path, start: Start) -> None:
    permitted, private = await start(), await start()
    permitted.answers.append(500)
    async with desk(tmp_path, "hooks.example", private=("127.0.0.1",), give_up_after=1.0) as there:
        there.names["hooks.example"] = [["127.0.0.1"], ["127.0.0.2"]]
        there.end_job(f"http://hooks.example:{permitted.port}/")
        await permitted.wait_calls(1)
        await there.wait_settled()
        assert len(there.looked_up) > 1
    assert permitted.connections == 1
    assert private.connections == 0


async def test_the_settings_in_force_count_not_those_of_the_submission(tmp_path: Path, receiver: Receiver) -> None:
    async with desk(tmp_path) as there:
        there.change(private=())
        there.end_job(receiver.url)
        with trio.fail_after(5):
            await there.failed.wait()
        assert receiver.connections == 0
        there.change(private=LOOPBACK, hosts=())
        with pytest.raises(BadInput, match="hosts"):
            there.webhooks.check(receiver.url)
        there.change(hosts=("127.0.0.1",))
        await receiver.wait_calls(1)
        await there.wait_settled()


async def test_a_name_that_is_not_found_is_tried_again(tmp_path: Path, receiver: Receiver) -> None:
    async with desk(tmp_path, "hooks.example") as there:
        there.end_job(f"http://hooks.example:{receiver.port}/")
        with trio.fail_after(5):
            await there.failed.wait()
        there.names["hooks.example"] = [["127.0.0.1"]]
        await receiver.wait_calls(1)
        await there.wait_settled()


async def test_of_several_addresses_one_that_can_be_reached_is_enough(tmp_path: Path, receiver: Receiver) -> None:
    async with desk(tmp_path, "hooks.example") as there:
        there.names["hooks.example"] = [["127.0.0.2", "127.0.0.3", "127.0.0.1"]]
        there.end_job(f"http://hooks.example:{receiver.port}/")
        await receiver.wait_calls(1)
        await there.wait_settled()
    assert there.looked_up == ["hooks.example"]


# -- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of hooks.example, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=t -addext subjectAltName=DNS:hooks.example"
    subprocess.run([*command.split(), "-keyout", path, "-out", f"{path}.crt"], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


async def test_the_certificate_is_the_names_though_the_connection_is_the_addresss(
    tmp_path: Path, start: Start, certificate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    asked: list[str | None] = []

    def note_name(_socket: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        asked.append(name)

    server.sni_callback = note_name
    receiver = await start(server)
    trusting = ssl.create_default_context(cafile=f"{certificate}.crt")
    async with desk(tmp_path, "hooks.example", "other.example", tls=trusting) as there:
        there.names = {"hooks.example": [["127.0.0.1"]], "other.example": [["127.0.0.1"]]}
        there.end_job(f"https://hooks.example:{receiver.port}/")
        await receiver.wait_calls(1)
        await there.wait_settled()
        assert asked == ["hooks.example"]
        there.change(give_up_after=0.2)
        there.end_job(f"https://other.example:{receiver.port}/")
        await there.ledger.committed()
        await there.wait_settled()
    assert len(receiver.calls) == 1
    assert asked[1] == "other.example"
    assert "CERTIFICATE_VERIFY_FAILED" in caplog.text


async def test_a_certificate_nobody_vouches_for_is_refused(tmp_path: Path, start: Start, certificate: Path) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    receiver = await start(server)
    async with desk(tmp_path, "hooks.example", give_up_after=0.2) as there:
        there.names = {"hooks.example": [["127.0.0.1"]]}
        there.end_job(f"https://hooks.example:{receiver.port}/")
        await there.ledger.committed()
        await there.wait_settled()
    assert receiver.connections > 0
    assert receiver.calls == []


# -- the key ---------------------------------------------------------------------------------------------------------


async def test_with_no_secret_one_is_made_once_for_its_owner_alone(tmp_path: Path, receiver: Receiver) -> None:
    keys: list[bytes] = []
    for _ in range(2):
        async with desk(tmp_path, secret="") as there:
            there.end_job(receiver.url)
            await receiver.wait_calls(len(keys) + 1)
            keys.append((tmp_path / "webhook-secret").read_bytes().strip())
            assert stat.S_IMODE((tmp_path / "webhook-secret").stat().st_mode) == 0o600
            await there.wait_settled()
    assert keys[0] == keys[1]
    assert len(keys[0]) == 64
    assert all(call.is_signed(keys[0]) for call in receiver.calls)


async def test_a_secret_file_is_read_anew_each_time_and_waited_for(tmp_path: Path, receiver: Receiver) -> None:
    async with desk(tmp_path, secret="", secret_file="key.txt") as there:
        with pytest.raises(BridgedError, match=r"key\.txt cannot be read"):
            await there.key.current()
        there.end_job(receiver.url)
        with trio.fail_after(5):
            await there.failed.wait()
        assert receiver.connections == 0
        for number, key in enumerate((b"first", b"second"), 1):
            (tmp_path / "key.txt").write_bytes(key + b"\n")
            if number > 1:
                there.end_job(receiver.url)
            calls = await receiver.wait_calls(number)
            assert calls[-1].is_signed(key)
        await there.wait_settled()
        (tmp_path / "key.txt").write_bytes(b"\n")
        with pytest.raises(BridgedError, match="is empty"):
            await there.key.current()


def test_the_signature_is_one_that_others_compute() -> None:
    call = Call("/", {"bridged-timestamp": "1700000000", "bridged-signature": ""}, b'{"a":1}', 0.0)
    call.headers["bridged-signature"] = signature(b"k", 1700000000, call.body)
    assert call.is_signed(b"k")
    # by: printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac k
    assert call.headers["bridged-signature"] == "v1=1b6ad1bc9bf48c52ce01939866d5877c6cc4e87ddad27e16673cb8c4964394a3"
