"""All open connections of a server: how many there may be, of one address and in all, and their end."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bridged.config.hosts import peer_of
from bridged.config.schema import Limits

if TYPE_CHECKING:
    from bridged.api.connection import Connection

MOST_REFUSED = 64
"""connections at once that are told why they are refused"""


class Connections:
    """The open connections of one server: how many there may be, and their end.

    `exempt` says of an address that it is a proxy of ours, behind which many clients are. A `stalled` client (s) is one
    that takes nothing of what it is sent. `most` is what the process can have open.
    """

    def __init__(
        self, limits: Callable[[], Limits], exempt: Callable[[str], bool], stalled: float, most: float = math.inf
    ) -> None:
        self.limits = limits
        self.stalled = stalled
        self.stopping = False
        self._exempt = exempt
        self._most = most
        self._open: dict[str, set[Connection]] = {}
        """address -> its connections"""
        self._count = 0
        self._refused = 0

    @contextmanager
    def holding(self, connection: Connection, host: str) -> Iterator[bool]:
        """Counts a connection while it lasts. Gives False, and does not count it, where it is one too many."""
        address = network_of(host)
        if not self._has_room(host, address):
            yield False
            return
        self._open.setdefault(address, set()).add(connection)
        self._count += 1
        try:
            yield True
        finally:
            self._forget(connection, address)

    def _has_room(self, host: str, address: str) -> bool:
        limits = self.limits()
        held = len(self._open.get(address, ()))
        if held >= limits.connections_per_address and not self._exempt(host):
            return False
        if self._count < min(limits.connections, self._most):
            return True
        # Full: whoever has most gives up one that it does not use, so that a few addresses cannot keep all others out.
        most = max(self._open, key=lambda each: len(self._open[each]))
        if len(self._open[most]) <= held + 1:
            return False
        idle = next((each for each in self._open[most] if each.is_idle()), None)
        if idle is None:
            return False
        idle.cut()
        self._forget(idle, most)
        return True

    def _forget(self, connection: Connection, address: str) -> None:
        """It counts no more; once is enough."""
        connections = self._open.get(address, set())
        if connection in connections:
            self._count -= 1
            connections.discard(connection)
            if not connections:
                del self._open[address]

    @contextmanager
    def refusing(self) -> Iterator[bool]:
        """Around telling one that it is one too many. False: so many are being told that this one is just closed."""
        self._refused += 1
        try:
            yield self._refused <= MOST_REFUSED
        finally:
            self._refused -= 1

    def _all(self) -> list[Connection]:
        return [connection for connections in self._open.values() for connection in connections]

    def stop(self) -> None:
        """The server stops: connections without a request end now, the others after theirs."""
        self.stopping = True
        for connection in self._all():
            connection.end_if_idle()

    def cut(self) -> None:
        """Ends every connection at once, also one that is being sent to."""
        for connection in self._all():
            connection.cut()


def network_of(host: str) -> str:
    """What counts as one address: an IPv4 address, the /64 of an IPv6 one (what one subscriber has: RFC 6177)."""
    address = peer_of(host)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return host if address is None else str(address)
