"""The optional patch of a fake: what `/bridged/v1/` answers, and what an owner who pauses does (docs/patch-api.md)."""

import math
import time
from typing import TYPE_CHECKING, Any

import trio

from .script import Call, PromptRecord, Reply

if TYPE_CHECKING:
    from .server import FakeComfyUI


class FakePatch:
    """The patch of one fake. `token` is what it asks for; `leases` the renewals: (client_id, seconds).

    It does as the real one does: prompts of a bridge are those with its mark, their lease is their client's and begins
    with their submission (`run` ends those whose lease is over), a pause refuses them. `announces`: whether it says
    so to everybody; `refuses_prompts`: whether it could hook POST /prompt.
    """

    def __init__(self, fake: "FakeComfyUI", token: str) -> None:
        self._fake = fake
        self.token = token
        self.paused = False
        self.until: float | None = None
        self.announces = True
        self.refuses_prompts = True
        self.leases: list[tuple[str, float]] = []
        self.cancelled: list[tuple[str, str]] = []
        """(prompt_id, what was answered)"""
        self._ends: dict[str, float] = {}
        self._leased = trio.Event()

    @property
    def lending(self) -> dict[str, Any]:
        return {"paused": self.paused, "until": self.until}

    # What the owner does

    def pause(self, *, until: float | None = None, stop: bool = False) -> None:
        self.paused, self.until = True, until
        self._announce()
        for record in list(self._fake.prompts.values()) if stop else ():
            if self._is_a_bridges(record) and record.open:
                self._cancel(record.prompt_id)

    def resume(self) -> None:
        self.paused, self.until = False, None
        self._announce()

    def _announce(self) -> None:
        if self.announces:
            self._fake.emit("bridged.lending", self.lending)

    # What the server does

    async def route(self, call: Call) -> Reply | None:
        """None where the call is nothing of its."""
        if call.route == "/prompt" and call.method == "POST":
            return self._prompt(call)
        if not call.route.startswith("/bridged/v1/"):
            return None
        if call.headers.get("x-bridged-token") != self.token:
            return Reply.json({"error": "the token is missing or wrong"}, 403)
        what = call.route.removeprefix("/bridged/v1/").split("/")
        match call.method, what:
            case "GET", ["info"]:
                return Reply.json(self._info())
            case "POST", ["lease"]:
                self._renew(call.json["client_id"], call.json["seconds"])
                self.leases.append((call.json["client_id"], call.json["seconds"]))
                return Reply.json({"until": time.time() + call.json["seconds"]})
            case "POST", ["jobs", prompt_id, "cancel"]:
                done = self._cancel(prompt_id)
                self.cancelled.append((prompt_id, done))
                return Reply.json({"cancelled": done})
        return Reply(404)

    def _info(self) -> dict[str, Any]:
        owners = [record for record in self._fake.prompts.values() if record.open and record.foreign]
        running = sum(record.state == "running" for record in owners)
        return {
            "protocol": 1,
            "patch": "1.0.0",
            "comfyui": "0.3.64",
            "node_packs": [{"name": "x", "version": None}],
            "devices": [{"name": "cpu", "type": "cpu", "memory_total": 2000, "memory_free": 1000}],
            "loaded_models": [],
            "owner": {
                "active": bool(owners),
                "running": running,
                "queued": len(owners) - running,
                "last": None,
            },
            "lending": self.lending,
            "served": {"date": "2026-11-23", "jobs": 0, "seconds": 0.0},
        }

    def _prompt(self, call: Call) -> Reply | None:
        """As the hook of POST /prompt: refuses, or has the lease begin and lets it through."""
        extra = call.json.get("extra_data") if isinstance(call.json, dict) else None
        mark = extra.get("bridged") if isinstance(extra, dict) else None
        if mark is None:
            return None
        if self.paused and self.refuses_prompts:
            return Reply.json({"error": {"type": "bridged_paused", "message": "the owner has paused this PC"}}, 503)
        self._renew(call.json["client_id"], mark["lease"])
        return None

    def _renew(self, client_id: str, seconds: float) -> None:
        self._ends[client_id] = trio.current_time() + seconds
        self._leased.set()
        self._leased = trio.Event()

    def _cancel(self, prompt_id: str) -> str:
        engine = self._fake.engine
        if engine.running is not None and engine.running.prompt_id == prompt_id:
            if engine.running.foreign:
                self._fake.violations.append(f"cancel names the foreign prompt {prompt_id}")
            engine.interrupt()
            return "running"
        return "queued" if engine.delete(prompt_id) else "unknown"

    async def run(self) -> None:
        """Ends prompts whose lease is over."""
        while True:
            leased = self._leased
            with trio.move_on_at(min(self._ends.values(), default=trio.current_time() + 3600)):
                await leased.wait()
            self.end_leases(trio.current_time())

    def end_leases(self, now: float = math.inf) -> None:
        """Of all bridges that have not renewed theirs by now."""
        for client_id, end in list(self._ends.items()):
            if now >= end:
                del self._ends[client_id]
                for record in list(self._fake.prompts.values()):
                    if record.open and record.client_id == client_id and self._is_a_bridges(record):
                        self._cancel(record.prompt_id)

    @staticmethod
    def _is_a_bridges(record: PromptRecord) -> bool:
        return "bridged" in record.extra_data
