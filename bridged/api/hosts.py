"""Host and Origin headers, forwarded addresses, and what a listed origin's page is answered: text in, facts out."""

from __future__ import annotations

from urllib.parse import urlsplit

from bridged.config.hosts import address_of, host_name, peer_of

ALLOWED = b"Authorization, Cache-Control, Content-Type, Idempotency-Key, If-None-Match"


def cors_headers(origin: bytes, *, preflight: bool) -> list[tuple[bytes, bytes]]:
    """What an answer to a page of a listed origin says."""
    headers = [(b"access-control-allow-origin", origin), (b"vary", b"Origin")]
    if preflight:
        return [
            *headers,
            (b"access-control-allow-methods", b"GET, HEAD, POST, DELETE"),
            (b"access-control-allow-headers", ALLOWED),
            (b"access-control-max-age", b"600"),
        ]
    exposed = b"ETag, Retry-After, X-Job-Id, X-Results-Refused, Content-Disposition"
    return [*headers, (b"access-control-expose-headers", exposed)]


def as_host(address: str) -> str:
    """As a Host header has it."""
    return f"[{address}]" if ":" in address else address


def hop(text: str) -> str | None:
    """One entry of X-Forwarded-For as an address; None where it is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    address = address_of(text)
    return str(address) if address is not None else None


def is_loopback(host: str) -> bool:
    address = peer_of(host)
    return address is not None and address.is_loopback


def host_and_port(host: str) -> tuple[str, int]:
    """Raises ValueError: that is no Host header."""
    if not host.isprintable() or " " in host:  # urlsplit would drop some of it
        raise ValueError(host)
    parts = urlsplit(f"//{host}")
    if parts.path or parts.query or parts.fragment or parts.username is not None or not parts.hostname:
        raise ValueError(host)
    return host_name(as_host(parts.hostname)), parts.port or 0


def is_local_name(host: str) -> bool:
    """Whether a Host header names this machine's loopback."""
    try:
        name, _ = host_and_port(host)
    except ValueError:
        return False
    return name == "localhost" or name.endswith(".localhost") or is_loopback(name)


def same_origin(origin: str, host: str) -> bool:
    """Whether a page of this origin talks to the host it came from; the scheme is a proxy's matter."""
    scheme, found, place = origin.partition("://")
    default = {"http": 80, "https": 443}.get(scheme)
    if not found or default is None:
        return False
    try:
        (name, port), (own_name, own_port) = host_and_port(place), host_and_port(host)
    except ValueError:
        return False
    return name == own_name and (port or default) == (own_port or default)
