"""Puts the parts together, as far as this ComfyUI has what they need."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import host as interfaces
from .access import Token
from .adapter import add_interception, add_routes
from .definitions import Definitions
from .files import Files
from .host import Host
from .info import Info
from .leases import Leases
from .lending import Lending, Store
from .prompts import Jobs, Prompt
from .returns import Returns
from .routes import Routes
from .watch import Watch

EVENT = "bridged.lending"

log = logging.getLogger("bridged_patch")


def install(folder: Path, find: Callable[[str], Any] = importlib.import_module) -> Routes | None:
    """`folder`: where this package lies, with its token; `find`: ComfyUI's modules, by name. None: this ComfyUI cannot
    be extended, or is already."""
    try:
        host = Host(find)
    except LookupError:
        return None  # it has been said
    if not host.claim():
        log.warning("bridged_patch: %s is left out: the package is loaded already. Keep one, restart ComfyUI", folder)
        return None
    lending = Lending(Store(host.state_file(folder), folder))

    def announce(state: dict[str, Any]) -> None:
        host.announce(EVENT, state)

    jobs = leases = watch = files = definitions = None
    if host.has(interfaces.CANCEL, interfaces.INTERRUPT):
        leases = Leases()
        jobs, watch = _supervise(host, leases, lending, announce)
    if host.has(interfaces.MODELS):
        files = Files(host)
    if host.has(interfaces.MODELS, interfaces.LAZY, interfaces.RETURNS):
        definitions = Definitions(host, host.listings())
    token = Token(folder / "token")
    info = Info(host.version(), host.packs, host.devices, host.loaded_models)
    routes = Routes(token, info, lending, jobs, leases, watch, files, definitions, announce)
    add_routes(host, routes)
    if host.has(interfaces.EARLY):
        add_interception(host, routes)
    if host.has(interfaces.RETURNS):
        returns = Returns(host.classes)
        returns.derive()
        host.at_start(returns.derive)
    if watch is not None:
        watch.poke()  # a pause that was written down may end
    if not token.value():
        log.warning("bridged_patch: there is no token; only the owner's page answers. Install it again to get one.")
    return routes


def _supervise(host: Host, leases: Leases, lending: Lending, announce: Any) -> tuple[Jobs, Watch]:
    def save() -> None:
        try:
            lending.save()
        except OSError as error:
            log.warning("bridged_patch: what was served cannot be written down: %s", error)

    def on_submitted(prompt: Prompt) -> None:
        leases.begin(prompt.holder, prompt.lease or 0.0)
        watch.poke()

    def on_completed(prompt: Prompt, seconds: float) -> None:
        lending.count(seconds)
        host.in_thread(save)

    queue = host.queue()
    jobs = Jobs(queue, on_submitted, on_completed)
    watch = Watch(host, jobs, leases, lending, announce)
    queue.observe(jobs.on_change, jobs.on_reset)
    return jobs, watch
