"""Telling webhooks of their jobs' ends: one supervised task that works through the ledger's deliveries.

At least once: a delivery is in the ledger from its job's end on and leaves it when it was taken (any 2xx), refused for
good (410), or given up. A daemon that dies after a receiver took it and before the ledger knows sends it again; it
has the same id then.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import random
import ssl
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable

import msgspec
import trio

from bridged.actors import callback_hosts
from bridged.actors.announcement import ended_at
from bridged.actors.callback import Resolver, SigningKey, call, signature
from bridged.config import schema
from bridged.config.hosts import address_of
from bridged.errors import BadInput, BridgedError, QueueFull
from bridged.store.ledger import DeliveryAdded, DeliveryMoved, Ledger, SavedDelivery

log = logging.getLogger(__name__)

AT_ONCE, PER_HOST = 8, 2
"""tries at once, in all and to one host: one that hangs leaves room for others"""

FIRST, LONGEST = 1.0, 3600.0
"""seconds until the second try; it doubles with each try up to the longest"""

MAX_WAITING = 10_000
"""deliveries that wait for one host, about 15 MB of memory: then new submissions that name it are refused. What was
accepted is never dropped for want of room."""

COOL_DOWN = 5.0
"""seconds after a crash of this task"""

GONE = 410


class _Delivery:
    """One delivery and how it goes. `since`: when its job ended."""

    def __init__(self, added: DeliveryAdded, tries: int, since: float) -> None:
        self.added = added
        self.tries = tries
        self.since = since


class _Host:
    """What is to be told to one host: `waiting` is a heap of (due_at, number, delivery)."""

    def __init__(self) -> None:
        self.waiting: list[tuple[float, int, _Delivery]] = []
        self.busy = 0


class Webhooks:
    """`restore` and `take` may be called before `run`. `settings` gives those in force, `resolve` a name's addresses,
    `wall` the seconds that signatures carry, `first` (s) the wait after a first failure."""

    def __init__(
        self,
        ledger: Ledger,
        settings: Callable[[], schema.Webhooks],
        key: SigningKey,
        ssl_context: ssl.SSLContext,
        *,
        resolve: Callable[[str, int], Awaitable[list[str]]] | None = None,
        wall: Callable[[], float] = time.time,
        first: float = FIRST,
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        self._key = key
        self._ssl = ssl_context
        self._resolve = resolve or Resolver()
        self._wall = wall
        self._first = first
        self._hosts: OrderedDict[str, _Host] = OrderedDict()
        """by name; whose turn was longest ago comes first"""
        self._numbers = itertools.count()
        self._busy = 0
        self._changed = trio.Event()

    # -- what comes in -----------------------------------------------------------------------------------------------

    def check(self, url: str) -> None:
        """Raises BadInput: a job may not have this webhook. QueueFull: its host does not take what it has."""
        target = callback_hosts.parse(url)
        callback_hosts.check(target, self._settings())
        host = self._hosts.get(target.host)
        if host is not None and len(host.waiting) >= MAX_WAITING:
            raise QueueFull(f"webhook: {len(host.waiting)} deliveries wait for {target.host} already; try again later")

    def take(self, added: DeliveryAdded, tries: int = 0) -> None:
        """A delivery that is safe in the ledger."""
        try:
            since = ended_at(added)
        except msgspec.MsgspecError:
            since = added.due_at
        self._wait(_Delivery(added, tries, since), added.due_at)

    def restore(self, saved: Iterable[SavedDelivery]) -> None:
        """Takes up what an earlier run left."""
        for each in saved:
            self.take(each.delivery, each.tries)

    def waiting(self) -> int:
        """Deliveries that have not been taken yet, those under way included."""
        return self._busy + sum(len(host.waiting) for host in self._hosts.values())

    # -- the task ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        try:
            await self._key.current()  # made at the first start, so that receivers can be given it before they need it
        except BridgedError as error:
            log.error("%s", error)
        while True:
            try:
                await self._deliver_on()
            except Exception:
                log.exception("delivering to webhooks crashed; it goes on in %g s", COOL_DOWN)
                await trio.sleep(COOL_DOWN)

    async def _deliver_on(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                if self._changed.is_set():
                    self._changed = trio.Event()
                while (found := self._next()) is not None:
                    host, delivery = found
                    host.busy += 1
                    self._busy += 1
                    nursery.start_soon(self._try, host, delivery)
                with trio.move_on_after(self._idle_for()):
                    await self._changed.wait()

    def _next(self) -> tuple[_Host, _Delivery] | None:
        """The delivery to try now, the hosts in turn; None where there is none, or no room for one."""
        now = self._ledger.now()
        for name, host in self._hosts.items() if self._busy < AT_ONCE else ():
            if host.busy < PER_HOST and host.waiting and host.waiting[0][0] <= now:
                self._hosts.move_to_end(name)
                return host, heapq.heappop(host.waiting)[2]
        return None

    def _idle_for(self) -> float:
        """Seconds until something is due that there is room for."""
        if self._busy >= AT_ONCE:
            return float("inf")
        due = [host.waiting[0][0] for host in self._hosts.values() if host.waiting and host.busy < PER_HOST]
        return max(0.0, min(due) - self._ledger.now()) if due else float("inf")

    async def _try(self, host: _Host, delivery: _Delivery) -> None:
        """One try and what follows from it. Cancelled, it is as if it had not begun."""
        due_at: float | None = delivery.added.due_at
        try:
            delivery.tries += 1
            try:
                due_at = self._judge(delivery, await self._call(delivery.added))
            except BridgedError as error:
                due_at = self._failed(delivery, str(error))
            except OSError as error:
                due_at = self._failed(delivery, f"its name cannot be looked up ({error})")
            except Exception:
                log.exception("the call of the webhook of job %s crashed", delivery.added.job_id)
                due_at = self._failed(delivery, "the call crashed")
            self._ledger.write(DeliveryMoved(delivery.added.id, delivery.tries, due_at))
        finally:
            host.busy -= 1
            self._busy -= 1
            if due_at is not None:
                self._wait(delivery, due_at)
            elif not host.waiting and not host.busy:
                self._hosts.pop(_host_of(delivery.added.url), None)
            self._changed.set()

    async def _call(self, added: DeliveryAdded) -> int:
        """The status of the answer. Raises BridgedError, OSError: there is none, or nobody may be asked."""
        settings = self._settings()
        target = callback_hosts.parse(added.url)
        callback_hosts.check(target, settings)
        key = await self._key.current()
        addresses = [target.host]
        if address_of(target.host) is None:
            with trio.move_on_after(settings.timeout) as scope:
                addresses = await self._resolve(target.host, target.port)
            if scope.cancelled_caught:
                raise BridgedError(f"its name was not found within {settings.timeout:g} s")
        permitted = callback_hosts.checked(target, addresses, settings)
        timestamp = int(self._wall())
        headers = {
            "Bridged-Delivery": added.id,
            "Bridged-Timestamp": str(timestamp),
            "Bridged-Signature": signature(key, timestamp, added.body),
            "Idempotency-Key": added.id,
        }
        return await call(target, permitted, added.body, headers, self._ssl, settings.timeout)

    # -- what follows ------------------------------------------------------------------------------------------------

    def _judge(self, delivery: _Delivery, status: int) -> float | None:
        """When it is due again; None: never."""
        job_id, host = delivery.added.job_id, _host_of(delivery.added.url)
        if 200 <= status < 300:
            log.info("job %s: its webhook at %s took delivery %s", job_id, host, delivery.added.id)
            return None
        if status == GONE:
            log.warning("job %s: its webhook at %s wants no more (HTTP status 410); given up", job_id, host)
            return None
        redirect = ", and redirects are not followed" if 300 <= status < 400 else ""
        return self._failed(delivery, f"it answers with HTTP status {status}{redirect}")

    def _failed(self, delivery: _Delivery, reason: str) -> float | None:
        """When it is due again; None: it is given up."""
        job_id, host, now = delivery.added.job_id, _host_of(delivery.added.url), self._ledger.now()
        end = delivery.since + self._settings().give_up_after
        if now >= end:
            log.error(
                "job %s: its webhook at %s was not told in %d tries and is given up: %s",
                *(job_id, host, delivery.tries, reason),
            )
            return None
        longest = min(LONGEST, self._first * 2.0 ** min(delivery.tries - 1, 40))
        # Jitter: the receivers' outage ends for all deliveries at once. The last try is right at the end.
        due_at = min(end, now + longest * random.uniform(0.5, 1.0))
        log.warning(
            "job %s: try %d of its webhook at %s failed, the next is in %.1f s: %s",
            *(job_id, delivery.tries, host, due_at - now, reason),
        )
        return due_at

    def _wait(self, delivery: _Delivery, due_at: float) -> None:
        delivery.added = msgspec.structs.replace(delivery.added, due_at=due_at)
        host = self._hosts.setdefault(_host_of(delivery.added.url), _Host())
        heapq.heappush(host.waiting, (due_at, next(self._numbers), delivery))
        self._changed.set()


def _host_of(url: str) -> str:
    """The host of a URL for logs and turns: the rest of a URL may be a secret."""
    try:
        return callback_hosts.parse(url).host
    except BadInput:
        return "an address that cannot be read"
