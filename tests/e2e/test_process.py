"""The program as a newcomer and systemd run it: real processes, the command line, the embedded worker, signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio

from tests.conftest import StartFake
from tests.e2e.house import BLURS, PATTERN, House

ROOT = Path(__file__).parents[2]


def environment(folder: Path, **more: str) -> dict[str, str]:
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    return kept | {"PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(folder / "xdg"), "COLUMNS": "200"} | more


async def bridged(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs `bridged ARGUMENTS` to its end."""
    done = await trio.run_process(
        [sys.executable, "-m", "bridged", *arguments],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        cwd=folder,
        env=environment(folder, **more),
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


class Service:
    def __init__(self, process: trio.Process, url: str) -> None:
        self.process = process
        self.url = url


@asynccontextmanager
async def service(folder: Path, **more: str) -> AsyncIterator[Service]:
    """`bridged serve` in `folder` on a port that was free a moment ago, once it says READY=1 as systemd hears it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = str(folder / "notify")
    notify = trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    await notify.bind(address)
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "bridged", "serve"],
        cwd=folder,
        env=environment(folder, PORT=str(port), NOTIFY_SOCKET=address, **more),
        stderr=subprocess.DEVNULL,
    )
    try:
        with notify, trio.fail_after(20):
            while b"READY=1" not in await notify.recv(4096):
                pass
        yield Service(process, f"http://127.0.0.1:{port}")
    finally:
        if process.returncode is None:
            process.kill()
        with trio.move_on_after(5, shield=True):
            await process.wait()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The shipped configuration and workflows, as `make run` finds them."""
    for name in ("etc", "workflows"):
        subprocess.run(["cp", "-r", str(ROOT / name), str(tmp_path / name)], check=True)
    return tmp_path


async def runnable(url: str, *backends: str) -> None:
    async with httpx.AsyncClient() as http:
        with trio.fail_after(20):
            while True:
                facts = (await http.get(f"{url}/status")).json()
                if {b["name"] for b in facts["backends"] if b["state"] == "up"} >= set(backends):
                    return
                await trio.sleep(0.02)


async def test_a_newcomers_first_job_runs_on_the_embedded_worker(checkout: Path) -> None:
    async with service(checkout) as running:
        await runnable(running.url, "embedded")
        done = await bridged(checkout, "run", "generate-pattern", "-o", "out", "--url", running.url)
        assert done.returncode == 0, done.stderr
        (file,) = (checkout / "out").iterdir()
        assert done.stdout.strip() == f"out/{file.name}"
        assert file.read_bytes().startswith(b"\x89PNG")

        smoke = await bridged(checkout, "smoke", "--url", running.url)
        assert smoke.returncode == 0, smoke.stdout + smoke.stderr
        assert "ok       image-to-image" in smoke.stdout
        assert "skipped  text-to-image: no backend can run this: embedded lacks" in smoke.stdout

        listed = await bridged(checkout, "workflows", "--url", running.url)
        assert "CheckpointLoaderSimple" in listed.stdout

        status = await bridged(checkout, "status", "--json", "--url", running.url)
        facts = json.loads(status.stdout)
        assert facts["jobs"]["succeeded"] >= 3
        running.process.send_signal(signal.SIGTERM)
        with trio.fail_after(12):
            assert await running.process.wait() == 0
    assert not (checkout / "etc" / "state").exists()
    assert sorted(path.name for path in checkout.iterdir()) == ["etc", "notify", "out", "workflows", "xdg"]


async def test_the_embedded_worker_leaves_when_an_operator_lists_a_pc(checkout: Path, start_fake: StartFake) -> None:
    fake = await start_fake("real")
    async with service(checkout) as running:
        await runnable(running.url, "embedded")
        (checkout / "etc" / "backends.toml").write_text(f'[[backend]]\nname = "pc-1"\nurl = "{fake.url}"\n')
        async with httpx.AsyncClient() as http:
            with trio.fail_after(10):
                while True:
                    names = [b["name"] for b in (await http.get(f"{running.url}/status")).json()["backends"]]
                    if names == ["pc-1"]:
                        break
                    await trio.sleep(0.02)


async def test_a_killed_daemon_leaves_no_worker_behind(checkout: Path) -> None:
    async with service(checkout) as running:
        await runnable(running.url, "embedded")
        threads = Path(f"/proc/{running.process.pid}/task").iterdir()
        children = [child for thread in threads for child in (thread / "children").read_text().split()]
        assert children
        running.process.kill()
        await running.process.wait()
        with trio.fail_after(5):
            while any(alive(int(child)) for child in children):
                await trio.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


async def test_sigterm_with_a_running_job_leaves_it_on_its_pc(checkout: Path, start_fake: StartFake) -> None:
    fake = await start_fake("real")
    fake.script.gate = trio.Event()
    async with service(checkout, COMFYUI_SERVERS=fake.url.removeprefix("http://")) as running:
        await runnable(running.url, "comfyui-1")
        async with httpx.AsyncClient(base_url=running.url, params={"clientId": "c"}) as http:
            (checkout / "workflows" / "slow.json").write_text(json.dumps(PATTERN))
            with trio.fail_after(5):
                body = {"workflow": "slow.json"}
                while (await http.post("/generate-based-workflow", json=body)).status_code != 200:
                    await trio.sleep(0.02)
            with trio.fail_after(5):
                await fake.wait_for(lambda: any(p.held_at for p in fake.prompts.values()))
        running.process.send_signal(signal.SIGTERM)
        with trio.fail_after(12):
            assert await running.process.wait() == 0
    assert [p.state for p in fake.prompts.values()] == ["running"]
    assert fake.calls_to("POST", "/interrupt") == []


async def test_ctrl_c_on_run_cancels_the_job(checkout: Path, start_fake: StartFake) -> None:
    fake = await start_fake("real")
    fake.script.gate = trio.Event()
    (checkout / "workflows" / "blurs.json").write_text(json.dumps(BLURS))
    async with service(checkout, COMFYUI_SERVERS=fake.url.removeprefix("http://")) as running:
        await runnable(running.url, "comfyui-1")
        for options in ([], ["--rest"]):
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "bridged", "run", "blurs.json", "--url", running.url, *options],
                cwd=checkout,
                env=environment(checkout),
                stderr=subprocess.PIPE,
            )
            with trio.fail_after(10):
                await fake.wait_for(lambda: any(prompt.held_at for prompt in fake.prompts.values()))
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            said = bytearray()
            with trio.fail_after(10):
                async for chunk in process.stderr:
                    said += chunk
                assert await process.wait() == 130
            await process.stderr.aclose()
            assert said.decode().strip() == "cancelled"
            with trio.fail_after(5):
                await fake.wait_for(lambda: all(p.state == "interrupted" for p in fake.prompts.values()))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "nope"], "'nope' is not registered"),
        (["run", "generate-pattern", "--set", "9/nope=1"], "'9/nope' is no input"),
        (["run", "generate-pattern", "--set", "oops"], "write KEY=VALUE"),
        (["run", "text-to-image"], "no backend can run 'text-to-image': embedded lacks"),
        (["run", "generate-pattern", "--set", "@missing.png"], "write KEY=VALUE"),
        (["info", "nope"], "'nope' is not registered"),
    ],
)
async def test_errors_are_one_line_and_exit_non_zero(
    one_service: Service, tmp_path_factory: pytest.TempPathFactory, arguments: list[str], said: str
) -> None:
    done = await bridged(tmp_path_factory.mktemp("cwd"), *arguments, "--url", one_service.url)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


@pytest.fixture
async def one_service(checkout: Path) -> AsyncIterator[Service]:
    async with service(checkout) as running:
        await runnable(running.url, "embedded")
        yield running


async def test_no_service_is_said_plainly(tmp_path: Path) -> None:
    for command in (["status"], ["workflows"], ["run", "x"], ["run", "x", "--rest"], ["smoke"]):
        done = await bridged(tmp_path, *command, "--url", "http://127.0.0.1:9")
        assert done.returncode == 1
        assert "no service answers at http://127.0.0.1:9" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr


async def test_check_accepts_what_is_shipped_and_says_what_is_wrong(checkout: Path) -> None:
    good = await bridged(checkout, "check")
    assert good.returncode == 0, good.stderr
    (checkout / "etc" / "bridged.toml").write_text("[server]\nport = 'x'\n")
    (checkout / "workflows" / "broken.json").write_text("{")
    bad = await bridged(checkout, "check", "--config", "etc")
    assert bad.returncode == 1
    assert "bridged.toml: line 2: server.port: Expected `int`, got `str`" in bad.stderr
    missing = await bridged(checkout, "check", "--config", "nowhere")
    assert missing.returncode == 1
    assert "no such folder" in missing.stderr
    served = await bridged(checkout, "serve", "--config", "etc")
    assert served.returncode == 1
    assert "bridged.toml: line 2" in served.stderr


async def test_an_address_in_use_is_said_plainly(checkout: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = await bridged(checkout, "serve", PORT=str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "Address already in use; choose another [server] host or port" in done.stderr


async def test_a_stalled_client_and_a_running_job_do_not_hold_a_stop(house: House, start_fake: StartFake) -> None:
    """The client takes nothing; the daemon's answer to it fills every buffer on the way."""
    fake = await start_fake("one")
    fake.script.gate = trio.Event()
    house.write_backends(("pc-1", fake.url))
    big = "x" * 400_000
    (house.workflows / "thumbnail" / "t.png").write_bytes(big.encode())
    for number in range(20):
        house.write_workflow(f"w{number}", PATTERN, thumbnail="t.png")
    await house.start()
    await house.wait_up("pc-1")
    host, port = house.url.removeprefix("http://").rsplit(":", 1)
    async with house.client() as client:
        await client.submit("pattern")
        await client.wait_info(state="running")
        stalled = trio.socket.socket()
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with stalled:
            await stalled.connect((host, int(port)))
            await stalled.send(b"GET /workflow-list HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await stalled.recv(100)
            house.daemon.stop()
            with trio.fail_after(3):  # the budget of this house
                await house.ended.wait()
    assert fake.calls_to("POST", "/interrupt") == []
