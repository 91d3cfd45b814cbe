"""Hosts as the configuration names them: `example.org`, `example.org:8443`, `*.example.org`, `[::1]:8080`, networks."""

from __future__ import annotations

import ipaddress
import re

import msgspec

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LABEL = r"(?!-)[a-z0-9_-]{1,63}"
NAME = re.compile(rf"{LABEL}(?:\.{LABEL})*")


class HostRule(msgspec.Struct, frozen=True):
    """One entry. `name`: canonical, as `host_name` gives it; `below`: what ends in it is meant, not itself (`*.`);
    `port` None: any."""

    name: str
    port: int | None = None
    below: bool = False

    def matches(self, host: str, port: int) -> bool:
        """`host` as `host_name` gives it. An address is never below a name."""
        if self.port is not None and self.port != port:
            return False
        return host.endswith(f".{self.name}") if self.below else host == self.name


def address_of(host: str) -> Address | None:
    """A host that is written as an address, without brackets; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def peer_of(host: str) -> Address | None:
    """`address_of` for who connects: an IPv4 address that an IPv6 socket shows mapped is that IPv4 address."""
    address = address_of(host)
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def host_name(text: str) -> str:
    """The one way to write a host: lower case, no final dot, no brackets, addresses in their shortest form.

    Raises ValueError: it is neither a name of ASCII labels nor an address. What ends in a number is an address, or
    wrong (RFC 1123 2.1): resolvers take `127.1` and `0x7f.1` for addresses, too.
    """
    host = text.lower().removesuffix(".")
    if host.startswith("[") and host.endswith("]"):
        return str(ipaddress.IPv6Address(host[1:-1]))
    address = address_of(host)
    if address is not None:
        return str(address)
    last = host.rpartition(".")[2]
    if len(host) > 253 or not NAME.fullmatch(host) or re.fullmatch(r"[0-9]+|0x[0-9a-f]*", last):
        raise ValueError(f"{text[:80]!r} is no host; write a name in ASCII (xn--… for others) or an IP address")
    return host


def host_rule(entry: str) -> HostRule:
    """Raises ValueError: it is none."""
    below = entry.startswith("*.")
    rest = entry[2:] if below else entry
    name, colon, port = rest.rpartition(":")
    if not colon or address_of(rest) is not None or rest.endswith("]"):
        name, port = rest, ""
    elif not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise ValueError(f"{entry[:80]!r} has no port after its colon; use 1 to 65535")
    host = host_name(name)
    if below and address_of(host) is not None:
        raise ValueError(f"{entry[:80]!r} puts a star before an address; it goes before a name")
    return HostRule(host, int(port) if port else None, below)


def host_or_network(entry: str) -> HostRule | Network:
    """`10.0.0.0/8`, an address, or a host without a port. Raises ValueError: it is none."""
    if "/" in entry or address_of(entry) is not None:
        return ipaddress.ip_network(entry)
    rule = host_rule(entry)
    if rule.port is not None:
        raise ValueError(f"{entry[:80]!r}: leave the port out here")
    return rule
