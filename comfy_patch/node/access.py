"""Who may call: bridges with the token, and the owner, at this very machine."""

from __future__ import annotations

import hmac
import ipaddress
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

HEADER = "x-bridged-token"
LONGEST = 1024
"""bytes of a token file that are read"""

FORWARDED = frozenset({"forwarded", "x-real-ip", "via"})

Headers = Mapping[str, Sequence[str]]
"""name in lower case -> its values"""


class Token:
    """The token that the installer made. It is read at each use, so that a new one needs no restart."""

    def __init__(self, path: Path, environment: Mapping[str, str] = os.environ) -> None:
        self._path = path
        self._environment = environment

    def value(self) -> str:
        """ "" where there is none."""
        if from_environment := self._environment.get("BRIDGED_TOKEN", "").strip():
            return from_environment
        try:
            with self._path.open(encoding="utf-8") as file:
                return file.read(LONGEST).strip()
        except (OSError, UnicodeError):
            return ""

    def is_in(self, headers: Headers) -> bool:
        """Compared in constant time."""
        wanted, given = self.value(), headers.get(HEADER, ())
        if not wanted or len(given) != 1:
            return False
        return hmac.compare_digest(wanted.encode(), given[0].encode("utf-8", "surrogateescape"))


def is_owner(peer: str, headers: Headers) -> bool:
    """Whether a request comes from a page of this very ComfyUI, in a browser on this machine.

    `peer`: the address at the other end of the connection; "" for none. A proxy on this machine would make everybody
    look like the owner: hence no forwarding header. A name that an attacker's DNS points at this machine is no
    loopback `Host`, and a page of another site has no `Sec-Fetch-Site: same-origin` (browsers write it, pages cannot).
    Where a proxy says nothing of itself and writes its own `Host`, as nginx does unasked, `Origin` still is the page's.
    """
    return (
        _is_loopback(peer)
        and not any(name in FORWARDED or name.startswith("x-forwarded") for name in headers)
        and len(headers.get("host", ())) == 1
        and _is_loopback_host(headers["host"][0])
        and list(headers.get("sec-fetch-site", ())) == ["same-origin"]
        and all(_host_of(origin) == headers["host"][0].lower() for origin in headers.get("origin", ()))
    )


def _is_loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def _host_of(origin: str) -> str:
    return origin.partition("://")[2].lower()


def _is_loopback_host(host: str) -> bool:
    """localhost, 127.0.0.0/8 or [::1], with or without a port."""
    if host.startswith("["):
        name, closed, rest = host[1:].partition("]")
        return bool(closed) and name == "::1" and _is_port(rest)
    name, colon, port = host.partition(":")
    if not _is_port(colon + port):
        return False
    return name.lower() == "localhost" or (name.count(".") == 3 and _is_loopback(name))


def _is_port(text: str) -> bool:
    return text == "" or (text[0] == ":" and text[1:].isascii() and text[1:].isdigit())
