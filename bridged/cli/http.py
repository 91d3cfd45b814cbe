"""What every command needs to talk to a running service: its address and the key, errors as one line."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from bridged.errors import BadInput, BridgedError, Forbidden, Unauthorized

KEY_VARIABLE = "BRIDGED_KEY"


@dataclass(frozen=True)
class Service:
    """Where the service is, and the key that it is shown; "": none. `folder`: the configuration that says where, None
    where its address was given."""

    url: str
    key: str = field(default="", repr=False)
    folder: Path | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    @cached_property
    def certificates(self) -> ssl.SSLContext | None:
        """Whom to believe that it is the service: the system's authorities, or those in $SSL_CERT_FILE."""
        return ssl.create_default_context() if self.url.startswith("https:") else None

    def options(self) -> dict[str, Any]:
        """For httpx, one client or one request. The key goes to this address and nowhere else: not to another one
        that it redirects to, nor past the proxy of the environment."""
        return {
            "headers": self.headers,
            "follow_redirects": False,
            "trust_env": False,
            "verify": self.certificates or True,
        }


def read_key(file: Path | None, environ: Mapping[str, str]) -> str:
    """The key in `file`, else in $BRIDGED_KEY, else "". Raises BadInput, which never says what is there."""
    if file is None:
        source, text = KEY_VARIABLE, environ.get(KEY_VARIABLE, "").strip()
        if not text:
            return ""
    else:
        try:
            source, text = str(file), file.read_text(encoding="ascii").strip()
        except OSError as error:
            raise BadInput(f"{file}: {error.strerror}") from None
        except ValueError:
            source, text = str(file), ""
    if not re.fullmatch(r"[!-~]{1,512}", text):
        raise BadInput(f"{source}: this is no key; a key is one line, as `bridged key new` printed it")
    return text


class NoService(BridgedError):
    """Nothing listens at the service's address."""


@contextmanager
def service_errors(url: str) -> Iterator[None]:
    """Turns what can go wrong on the way into a message that says what to do."""
    try:
        yield
    except httpx.ConnectError as error:
        if "CERTIFICATE" in str(error):
            raise BridgedError(f"{url}: {error}; SSL_CERT_FILE=FILE names other authorities to trust") from None
        raise NoService(f"no service answers at {url}; start it with `bridged serve`, or give --url") from None
    except httpx.InvalidURL as error:
        raise BridgedError(f"{url} is no address: {error}") from None
    except httpx.HTTPError as error:
        raise BridgedError(f"{url}: {error or type(error).__name__}") from None


def checked(response: httpx.Response) -> httpx.Response:
    """Raises BridgedError with the service's own words where it refused."""
    if response.is_redirect:
        there = response.headers["location"]
        raise BridgedError(f"the service is elsewhere: {there!r}; give that address with --url")
    if response.status_code >= 400:
        raise refusal(response.status_code, response.content, with_key="authorization" in response.request.headers)
    return response


def refusal(status: int, body: bytes | None, *, with_key: bool) -> BridgedError:
    """The service's own words, and where they are about the key, how to give one (or another one)."""
    try:
        detail = str(json.loads(body or b"")["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"HTTP status {status}"
    kind = {401: Unauthorized, 403: Forbidden}.get(status)
    if kind is None:
        return BridgedError(detail)
    remedy = f"look into {KEY_VARIABLE}, or give another" if with_key else f"set {KEY_VARIABLE}, or give"
    return kind(f"{' '.join(detail.split())}; {remedy} --key-file FILE")
