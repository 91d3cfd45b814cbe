"""Who may call: keys, addresses, hosts and origins, checked once per request before any endpoint sees it.

While no key exists, programs of this machine may call, and nobody else. As soon as one does, every request needs one.
A browser's page may call only where its origin is listed, whatever key it has.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs

import msgspec

from bridged.api.connections import network_of
from bridged.api.hosts import as_host, hop, host_and_port, is_local_name, is_loopback, same_origin
from bridged.api.limits import Buckets
from bridged.api.query import client_id
from bridged.config.hosts import HostRule, Network, address_of, host_rule, peer_of
from bridged.config.schema import ClientKey, Config
from bridged.errors import BadRequest, Forbidden, TooMany, Unauthorized
from bridged.model import own

FORWARDING = re.compile(
    rb"via|forwarded(-for)?|x-real-ip|(true-|x-|x-cluster-|fastly-|fly-|x-azure-)?client-?ip|fly-.*|"
    rb"(x-forwarded|x-original|x-envoy|x-azure|x-proxy|cf-|cdn-|fastly-).*"
)
"""names of headers that say of a request that it came through a proxy; `_` read as `-`"""

READ = frozenset(
    {b"host", b"origin", b"authorization", b"sec-fetch-site", b"sec-fetch-mode", b"x-forwarded-for"}
)

ANONYMOUS_SCOPES = frozenset({"submit", "admin", "raw"})
"""of a caller without a key, who is let in only while there is none"""

ANONYMOUS_BURST = 20

NO_KEYS = (
    "this service has no API keys yet, so it answers only programs of its own machine; its operator makes a key with "
    "`bridged key new NAME`, or sets [access] allow_anonymous = true"
)
NO_KEY = "an API key is needed: send it as `Authorization: Bearer KEY` (on a WebSocket `?key=KEY` will do)"
WRONG_KEY = "this API key is not valid"


class Caller(msgspec.Struct, frozen=True):
    """Who makes a request. `name` is that of its key, "" for one without; `address` is the client's own, also behind
    a proxy that is trusted; `digest` tells which of its keys was used."""

    name: str
    address: str
    scopes: frozenset[str] = ANONYMOUS_SCOPES
    aliases: frozenset[str] = frozenset()
    max_jobs: int = 0
    weight: float = 1.0
    digest: str = ""

    def client_id(self, args: Mapping[str, str]) -> str:
        """The `client_id` that the request's clientId stands for. Raises BadRequest."""
        return own(self.name, client_id(args))

    def may_run(self, alias: str) -> bool:
        return not self.aliases or alias in self.aliases

    def need_alias(self, alias: str) -> None:
        """Raises Forbidden: that workflow is not for its key."""
        if not self.may_run(alias):
            raise Forbidden(f"this API key may not run {alias[:200]!r}; /workflow-list names what it may")

    def need(self, scope: str) -> None:
        """Raises Forbidden: its key does not have that scope; "" is had by all."""
        if scope and scope not in self.scopes:
            raise Forbidden(f"this API key may not do that: it has no scope {scope!r}")


class _Rules:
    """What one configuration says, ready for look-ups."""

    def __init__(self, config: Config) -> None:
        access = config.settings.access
        self.config = config
        self.keys: dict[str, ClientKey] = {key: client for client in config.clients for key in client.keys}
        self.networks: list[Network] = [ipaddress.ip_network(entry) for entry in access.trusted_proxies]
        self.hosts: list[HostRule] = [host_rule(entry) for entry in access.hosts]
        self.origins = frozenset(access.cors)


class Gate:
    """`current` gives the configuration in force. `admit` is called once per request."""

    def __init__(self, current: Callable[[], Config], clock: Callable[[], float] = time.monotonic) -> None:
        self._current = current
        self._built: _Rules | None = None
        self._requests, self._submissions = Buckets(clock), Buckets(clock)
        self._lists, self._renewals = Buckets(clock), Buckets(clock)
        self._visits: set[Visit] = set()
        self._visits_of: Counter[str] = Counter()

    @property
    def _rules(self) -> _Rules:
        config = self._current()
        if self._built is None or self._built.config is not config:
            self._built = _Rules(config)
        return self._built

    def is_proxy(self, host: str) -> bool:
        """Whether that address is a trusted proxy's."""
        address = peer_of(host)
        return address is not None and any(address in network for network in self._rules.networks)

    def origin_allowed(self, origin: str) -> bool:
        """Whether pages of another origin may call."""
        return origin in self._rules.origins

    # -- one request -------------------------------------------------------------------------------------------------

    def admit(self, scope: Any) -> Caller:
        """Who makes this request. Raises Unauthorized, Forbidden, TooMany, BadRequest."""
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            if name in READ:
                headers.setdefault(name, []).append(value)
        rules = self._rules
        peer = scope["client"][0] if scope["client"] else ""
        address = self._address(peer, headers)
        host = _one(headers, b"host")
        self._check_page(scope, headers, host, rules)
        if rules.keys:
            caller = self._known(scope, headers, address, rules)
            if rules.hosts:
                self._check_host(host, rules)
        else:
            remote = _was_forwarded(scope) or not is_loopback(peer) or not is_local_name(host)
            if rules.config.settings.access.allow_anonymous:
                self._check_host(host, rules)
            elif remote:
                raise Unauthorized(NO_KEYS)
            caller = Caller("", address)
        self._count(caller, rules)
        return caller

    def submitting(self, caller: Caller, alias: str) -> None:
        """Raises Forbidden (not this workflow), TooMany, Unauthorized."""
        self.check_still(caller)
        caller.need_alias(alias)
        key = self._rules.keys.get(caller.digest)
        if key is not None:
            self._submissions.take(f"key {key.name}", key.rate, key.burst, "submissions")
        else:
            limit = self._rules.config.settings.limits.submissions_per_minute
            self._submissions.take(network_of(caller.address), limit, ANONYMOUS_BURST, "submissions")

    def look_up(self, caller: Caller, what: str, *, renews: bool = False) -> None:
        """Counts a look at `what` in the pool. Raises TooMany: each caller may look at each thing so often, and have
        the PCs asked for it less often."""
        limits = self._rules.config.settings.limits
        often = limits.lists_per_minute
        who = f"key {caller.name}" if caller.digest else network_of(caller.address)
        self._lists.take(f"{who} {what}", often, max(10.0, often), "look-ups of this")
        if renews:
            self._renewals.take(f"{who} {what}", limits.renewals_per_minute, 5, "renewals of this")

    def check_still(self, caller: Caller) -> None:
        """Raises Unauthorized: its key was withdrawn since it was let in, or keys have come: a body may take long."""
        known = self._rules.keys.get(caller.digest)
        if caller.digest and (known is None or known.name != caller.name):
            raise Unauthorized(WRONG_KEY)
        if not caller.digest and self._rules.keys:
            raise Unauthorized(NO_KEY)

    def _address(self, peer: str, headers: dict[bytes, list[bytes]]) -> str:
        """The client's own: the last address that a trusted proxy saw and that is not one of them."""
        if b"x-forwarded-for" not in headers or not self.is_proxy(peer):
            return peer
        address = peer
        for entry in reversed(b",".join(headers[b"x-forwarded-for"]).decode("latin-1").split(",")):
            named = hop(entry)
            if named is None:
                break  # what cannot be read says nothing, nor does what stands before it
            address = named
            if not self.is_proxy(named):
                break
        return address

    def _check_page(self, scope: Any, headers: dict[bytes, list[bytes]], host: str, rules: _Rules) -> None:
        """Raises Forbidden: a page of another site has a browser make this request."""
        if b"origin" in headers:
            origin = _one(headers, b"origin")
            if origin not in rules.origins and not same_origin(origin, host):
                reason = "its operator can list that: [access] cors"
                raise Forbidden(f"pages of {origin[:200]!r} may not call this service; {reason}")
        elif _one(headers, b"sec-fetch-site") in ("cross-site", "same-site") and (
            scope["path"] != "/" or _one(headers, b"sec-fetch-mode") != "navigate"  # a link to the greeting
        ):
            raise Forbidden("pages of other sites may not call this service")

    def _check_host(self, host: str, rules: _Rules) -> None:
        """Raises Forbidden: a name that is not ours, which a foreign page may have pointed at us (DNS rebinding)."""
        try:
            name, port = host_and_port(host)
        except ValueError:
            raise Forbidden("the Host header names no host") from None
        ours = address_of(name) is not None or is_local_name(host)
        if not ours and not any(rule.matches(name, port) for rule in rules.hosts):
            raise Forbidden(f"this service is not called {name[:200]!r}; its operator can list it: [access] hosts")

    def _known(self, scope: Any, headers: dict[bytes, list[bytes]], address: str, rules: _Rules) -> Caller:
        given = _one(headers, b"authorization")
        kind, _, key = given.partition(" ")
        key = key.strip() if kind.lower() == "bearer" else ""
        if kind.lower() != "bearer" and (not given or scope["type"] == "websocket"):  # another login is a proxy's
            key = parse_qs(scope["query_string"].decode("latin-1")).get("key", [""])[0]
            if key and scope["type"] != "websocket":
                raise BadRequest("send the key as `Authorization: Bearer KEY`: an address ends up in logs")
        if not given and not key:
            raise Unauthorized(NO_KEY)
        digest = f"sha256:{hashlib.sha256(key.encode('latin-1', 'replace')).hexdigest()}"
        found = rules.keys.get(digest)
        # A look-up by digest tells by its time no more than the digest's beginning, of which no key can be made.
        if found is None or not any(hmac.compare_digest(digest, known) for known in found.keys):
            raise Unauthorized(WRONG_KEY)
        return Caller(
            found.name,
            address,
            frozenset(found.scopes),
            frozenset(found.aliases),
            found.max_jobs,
            found.weight,
            digest,
        )

    def _count(self, caller: Caller, rules: _Rules) -> None:
        if caller.digest:
            limit = rules.keys[caller.digest].requests
            self._requests.take(f"key {caller.name}", limit, max(10.0, limit / 6), "requests")
        else:
            limit = rules.config.settings.limits.requests_per_minute
            self._requests.take(network_of(caller.address), limit, max(10.0, limit / 6), "requests")

    # -- WebSockets --------------------------------------------------------------------------------------------------

    @contextmanager
    def visit(self, caller: Caller) -> Iterator[Visit]:
        """Around a WebSocket's life. Raises TooMany, Unauthorized."""
        self.check_still(caller)
        place = f"{caller.name} {network_of(caller.address)}"  # of each key: a fleet may share one address
        most = self._rules.config.settings.limits.sessions_per_address
        if self._visits_of[place] >= most:
            raise TooMany(f"too many WebSockets from this address: at most {most}; close some", 10)
        visit = Visit(caller)
        self._visits.add(visit)
        self._visits_of[place] += 1
        try:
            yield visit
        finally:
            self._visits.discard(visit)
            self._visits_of[place] -= 1
            if not self._visits_of[place]:
                del self._visits_of[place]

    def end_withdrawn(self) -> None:
        """The configuration changed: ends the WebSockets of those who would not be let in any more."""
        for visit in list(self._visits):
            try:
                self.check_still(visit.caller)
            except Unauthorized:
                visit.withdraw()


class Visit:
    """One WebSocket of a caller."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self._withdrawn = False
        self._end: Callable[[], object] | None = None

    @property
    def is_withdrawn(self) -> bool:
        return self._withdrawn

    def on_withdrawn(self, end: Callable[[], object]) -> None:
        """`end` is called once its key is withdrawn: at once, where it was already."""
        self._end = end
        if self._withdrawn:
            end()

    def withdraw(self) -> None:
        self._withdrawn = True
        if self._end is not None:
            self._end()


def _was_forwarded(scope: Any) -> bool:
    """Whether a proxy had a part in it. nginx adds nothing by itself, but speaks HTTP/1.0, which no client of ours
    does."""
    if scope["http_version"] == "1.0":
        return True
    return any(FORWARDING.fullmatch(name.replace(b"_", b"-")) for name, _ in scope["headers"])


def scope_needed(path: str) -> str:
    """The scope that a path asks for; "": any key will do."""
    if path == "/status" or path.startswith("/admin"):
        return "admin"
    return "" if path in ("/", "/openapi.json") else "submit"


def check_start(config: Config) -> str | None:
    """What is wrong with serving this configuration to others, or None."""
    server = config.settings.server
    if config.clients or config.settings.access.allow_anonymous or is_local_name(as_host(server.host)):
        return None
    return (
        f"[server] host = {server.host!r} would open the service to everybody who reaches this machine: make a key "
        "with `bridged key new NAME`, or set [access] allow_anonymous = true, or keep host = \"127.0.0.1\""
    )


def _one(headers: dict[bytes, list[bytes]], name: bytes) -> str:
    """A header's only value; two of them are one that matches nothing."""
    return b"\n".join(headers.get(name, ())).decode("latin-1")
