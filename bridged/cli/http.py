"""What every command needs to talk to a running service: one client, errors as one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from bridged.errors import BridgedError


@contextmanager
def service_errors(url: str) -> Iterator[None]:
    """Turns what can go wrong on the way into a message that says what to do."""
    try:
        yield
    except httpx.ConnectError:
        raise BridgedError(f"no service answers at {url}; start it with `bridged serve`, or give --url") from None
    except httpx.InvalidURL as error:
        raise BridgedError(f"{url} is no address: {error}") from None
    except httpx.HTTPError as error:
        raise BridgedError(f"{url}: {error or type(error).__name__}") from None


def checked(response: httpx.Response) -> httpx.Response:
    """Raises BridgedError with the service's own words where it refused."""
    if response.status_code >= 400:
        try:
            detail = response.json()["detail"]
        except (ValueError, KeyError, TypeError):
            detail = f"HTTP status {response.status_code}"
        raise BridgedError(str(detail))
    return response
