"""`bridged run` and `smoke`: one job as a client does it, over the public API."""

from __future__ import annotations

import base64
import json
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import trio
import trio_websocket
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from bridged.cli.http import Service, checked, refusal, service_errors
from bridged.errors import BadInput, BridgedError

POLL = 0.2
"""seconds between looks at a job over REST"""


class JobClient:
    """One clientId of the service. `progress` is told a percentage each time it is heard of."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.client_id = str(uuid.uuid4())
        self._http = httpx.AsyncClient(
            base_url=service.url, params={"clientId": self.client_id}, timeout=60, **service.options()
        )

    async def run(self, alias: str, settings: Sequence[str], bar: Progress, *, rest: bool) -> list[dict[str, str]]:
        """The job's files. Raises BridgedError: refused, failed. Cancelling it takes the job back."""
        task = bar.add_task(alias, total=100)
        async with self._http:
            declared = checked(await self._http.get("/workflow-info", params={"workflow": alias})).json()
            try:
                if rest:
                    await self._submit(alias, await self._values(declared, settings))
                    await self._poll(bar, task)
                else:
                    await self._follow(alias, declared, settings, bar, task)
            except (trio.Cancelled, KeyboardInterrupt):
                with trio.move_on_after(2, shield=True):
                    await self._http.post("/interrupt")
                raise
            answer = checked(await self._http.get("/history", params={"resType": "base64"}))
            files: list[dict[str, str]] = answer.json()["files"] if answer.status_code == 200 else []
            return files

    async def _values(self, declared: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for setting in settings:
            key, equals, text = setting.partition("=")
            if not equals:
                raise BadInput(f"--set {setting}: write KEY=VALUE, or KEY=@FILE to upload a file")
            if key not in declared:
                raise BadInput(f"{key!r} is no input; the inputs are: {', '.join(declared) or 'none'}")
            values[key] = await self._upload(Path(text[1:])) if text.startswith("@") else _typed(key, text, declared)
        return values

    async def _upload(self, path: Path) -> str:
        try:
            data = await trio.Path(path).read_bytes()
        except OSError as error:
            raise BadInput(f"{path}: {error.strerror}") from None
        answer = checked(await self._http.post("/upload", files={"file": (path.name, data)}))
        token: str = answer.json()["file"]
        return token

    async def _submit(self, alias: str, values: dict[str, Any]) -> None:
        checked(await self._http.post("/generate-based-workflow", json={"workflow": alias, **values}))

    async def _follow(
        self, alias: str, declared: dict[str, Any], settings: Sequence[str], bar: Progress, task: Any
    ) -> None:
        address = self.service.url.replace("http", "ws", 1) + f"/ws?clientId={self.client_id}"
        headers = [(name.encode(), value.encode()) for name, value in self.service.headers.items()]
        failure: str | None = None
        async with trio_websocket.open_websocket_url(
            address, self.service.certificates, extra_headers=headers
        ) as socket:
            await self._submit(alias, await self._values(declared, settings))
            try:
                while True:
                    message = json.loads(await socket.get_message())
                    if message["status"] == "progress":
                        bar.update(task, completed=float(message["detail"].rstrip("%")))
                    elif message["status"] == "error":
                        failure = message["detail"]
                    elif message["status"] == "closed":
                        break
            except trio_websocket.ConnectionClosed as closed:
                if failure is None:
                    raise BridgedError(f"the service closed the connection: {closed.reason}") from None
        if failure is not None:
            raise BridgedError(failure)

    async def _poll(self, bar: Progress, task: Any) -> None:
        while True:
            state = checked(await self._http.get("/execution-info")).json()
            if state["status"] == "progress":
                bar.update(task, completed=float(state["detail"].rstrip("%")))
            if state["status"] == "error":
                raise BridgedError(state["detail"])
            if state["status"] == "closed":
                bar.update(task, completed=100)
                return
            await trio.sleep(POLL)


def run_alias(service: Service, alias: str, settings: Sequence[str], output: Path, *, rest: bool) -> list[Path]:
    """Runs a job and saves its files into `output`. Raises BridgedError."""
    files = _run(service, alias, settings, rest=rest)
    output.mkdir(parents=True, exist_ok=True)
    saved = []
    for file in files:
        path = output / Path(file["file_name"]).name
        path.write_bytes(base64.b64decode(file["content"]))
        saved.append(path)
    if not saved:
        raise BridgedError("the job ended with no result")
    return saved


def smoke_all(service: Service) -> bool:
    """Runs every runnable alias with its defaults, one line each. False where one failed."""
    console = Console()
    plain: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}
    with service_errors(service.url):
        facts = checked(httpx.get(f"{service.url}/status", timeout=10, **service.options())).json()
    well = True
    for workflow in facts["workflows"]:
        alias, obstacles = workflow["alias"], workflow["obstacles"]
        if obstacles is not None:
            why = "; ".join(f"{name} {reason}" for name, reason in obstacles.items())
            console.print(f"skipped  {alias}: no backend can run this: {why}", **plain)
            continue
        try:
            files = _run(service, alias, (), rest=False)
            size = sum(len(file["content"]) * 3 // 4 for file in files)
            verdict, well = (f"ok       {alias}: {len(files)} files, {size} bytes", well and bool(files))
        except BridgedError as error:
            verdict, well = f"FAILED   {alias}: {error}", False
        console.print(verdict, **plain)
    return well


def _run(service: Service, alias: str, settings: Sequence[str], *, rest: bool) -> list[dict[str, str]]:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    url, quiet = service.url, not sys.stderr.isatty()
    console = Console(stderr=True)
    with service_errors(url), Progress(*columns, console=console, disable=quiet, transient=True) as bar:
        try:
            return trio.run(_job, service, alias, settings, bar, rest)
        except trio_websocket.ConnectionRejected as error:
            raise refusal(error.status_code, error.body, with_key=bool(service.key)) from None
        except trio_websocket.HandshakeError:
            raise BridgedError(f"no service answers at {url}; start it with `bridged serve`, or give --url") from None


async def _job(
    service: Service, alias: str, settings: Sequence[str], bar: Progress, rest: bool
) -> list[dict[str, str]]:
    return await JobClient(service).run(alias, settings, bar, rest=rest)


def _typed(key: str, text: str, declared: dict[str, Any]) -> Any:
    kind = declared[key]["type"]
    try:
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
        if kind == "bool":
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
    except (ValueError, KeyError):
        raise BadInput(f"--set {key}={text}: must be {kind}") from None
    return text
