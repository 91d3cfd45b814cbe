"""Where a webhook may lead: which URLs are taken, and which addresses may be spoken to. Pure functions.

Whoever submits a job chooses the URL, and this daemon stands inside somebody's network: without rules it would fetch
for strangers what only that network may see (SSRF). So the host must be listed, and every address that its name has
must be public, unless it was listed as private.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

import msgspec

from bridged.config.hosts import Address, HostRule, address_of, host_name, host_or_network, host_rule
from bridged.config.schema import Webhooks
from bridged.errors import BadInput

MAX_URL = 2048
SHAPE = re.compile(r"(https?)://([^/?]*)(.*)", re.IGNORECASE)
AUTHORITY = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?")

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""RFC 6052: its last 32 bits are the IPv4 address that is spoken to"""

UNICAST6 = ipaddress.IPv6Network("2000::/3")
"""All that IANA has given out for global unicast; `is_global` calls everything global that nobody reserved"""

NOT_PUBLIC6 = (ipaddress.IPv6Network("2001:db8::/32"), ipaddress.IPv6Network("3fff::/20"))
"""Documentation; the second is newer (RFC 9637) than some Python 3.11"""


class Target(msgspec.Struct, frozen=True):
    """A webhook's URL in parts. `host` as `config.hosts.host_name` gives it; `path` with the query, "/" at least."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _default_port(self.scheme) else f"{host}:{self.port}"


def parse(url: str) -> Target:
    """Raises BadInput: it is no http(s) URL, or has what a webhook must not have."""
    if len(url) > MAX_URL:
        raise BadInput(f"webhook: the URL has {len(url)} characters; at most {MAX_URL} are taken")
    if not re.fullmatch(r"[!-~]+", url) or "\\" in url:
        raise BadInput("webhook: the URL must be printable ASCII with no spaces and no \\; encode others as %XX")
    shape = SHAPE.fullmatch(url)
    if shape is None:
        raise BadInput("webhook: the URL must start with https:// or http://")
    scheme, authority, path = shape[1].lower(), shape[2], shape[3]
    if "#" in url:
        raise BadInput("webhook: the URL must have no fragment (#…)")
    if "@" in authority:
        raise BadInput("webhook: the URL must have no user name and no password; the signature says who calls")
    parts = AUTHORITY.fullmatch(authority)
    try:
        if parts is None:
            raise ValueError("the URL's host or port cannot be read")
        host = host_name(parts[1])
    except ValueError as error:
        raise BadInput(f"webhook: {error}") from None
    port = int(parts[2]) if parts[2] else _default_port(scheme)
    if not 0 < port < 65536:
        raise BadInput(f"webhook: there is no port {port}")
    return Target(scheme, host, port, path if path.startswith("/") else f"/{path}")


def check(target: Target, settings: Webhooks) -> None:
    """Raises BadInput: that host is not allowed, as far as that is known without asking the DNS."""
    if not settings.hosts:
        raise BadInput('webhook: this service calls none; its operator can allow hosts: [webhooks] hosts = ["…"]')
    if not any(host_rule(entry).matches(target.host, target.port) for entry in settings.hosts):
        raise BadInput(
            f"webhook: the host {target.host_header!r} is not allowed; its operator can list it: [webhooks] hosts"
        )
    literal = address_of(target.host)
    if literal is not None and not permitted(literal, target, settings):
        raise BadInput(
            f"webhook: {target.host} is not a public address; the operator can permit it: [webhooks] private"
        )


def checked(target: Target, addresses: Sequence[str], settings: Webhooks) -> list[Address]:
    """The addresses of the target's name, without repetitions. Raises BadInput: there is none, or one of them is not
    permitted. One is enough, though others may be public: who answers so means to lead us astray."""
    found = {address: address_of(address) for address in addresses}
    for text, address in found.items():
        if address is None or not permitted(address, target, settings):
            raise BadInput(f"webhook: {target.host} is at {text}, which is not public and not in [webhooks] private")
    if not found:
        raise BadInput(f"webhook: {target.host} has no address")
    return [address for address in found.values() if address is not None]


def permitted(address: Address, target: Target, settings: Webhooks) -> bool:
    """Whether the address is public, or listed as private, itself or by its host. Never: what is no one machine's
    (multicast, broadcast, 0.0.0.0, which is this one), and addresses with a zone."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return False
        address = _inner(address)
    if address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255":
        return False
    if _is_public(address):
        return True
    for rule in map(host_or_network, settings.private):
        if rule.matches(target.host, target.port) if isinstance(rule, HostRule) else address in rule:
            return True
    return False


def _inner(address: ipaddress.IPv6Address) -> Address:
    """The IPv4 address that is really spoken to: of mapped ones (::ffff:0:0/96), NAT64 and 6to4 (2002::/16)."""
    if address in NAT64:
        return ipaddress.IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour or address


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and (
        address not in UNICAST6 or any(address in network for network in NOT_PUBLIC6)
    ):
        return False
    return address.is_global and not address.is_reserved


def _default_port(scheme: str) -> int:
    return 443 if scheme == "https" else 80
