"""One call of a webhook: signed, and sent to exactly the address that was checked."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import socket
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import trio

from bridged import __version__
from bridged.actors.callback_hosts import Target
from bridged.config.hosts import Address
from bridged.config.schema import Webhooks
from bridged.errors import BridgedError

log = logging.getLogger(__name__)

MAX_ADDRESSES = 4
"""addresses of one name that are tried, one after the other"""

MAX_ANSWER, ANSWER_TIME = 64_000, 1.0
"""bytes and seconds of an answer's body, which nobody looks at, that are read all the same: a server that is cut off
while it writes logs an error"""

GENERATED = "webhook-secret"


class NoAnswer(BridgedError):
    """The receiver did not answer; it may have got the call all the same."""


class SigningKey:
    """The key of the signatures that is in force: the configured one, or this installation's own.

    `folder` is the configuration's. The own one is the text in the state folder's file `webhook-secret`, made when it
    is first needed.
    """

    def __init__(self, settings: Callable[[], Webhooks], folder: Path, state_dir: Path) -> None:
        self._settings = settings
        self._folder = folder
        self.path = state_dir / GENERATED
        self._own = b""
        self._making = trio.Lock()

    async def current(self) -> bytes:
        """Raises BridgedError: there is none now."""
        settings = self._settings()
        if settings.secret:
            return settings.secret.encode()
        if settings.secret_file:
            return await trio.to_thread.run_sync(_read_key, self._folder / Path(settings.secret_file))
        async with self._making:
            if not self._own:
                self._own = await trio.to_thread.run_sync(_own_key, self.path)
        return self._own


def signature(key: bytes, timestamp: int, body: bytes) -> str:
    """`v1=` and the hex HMAC-SHA256 of `TIMESTAMP.BODY`. The timestamp is in it, so that an old call cannot be sent
    again as a new one."""
    return "v1=" + hmac.new(key, f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()


class Resolver:
    """The machine's own. At most `AT_ONCE` look-ups run; one that hangs keeps its thread until it gives up."""

    AT_ONCE = 8

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(self.AT_ONCE)

    async def __call__(self, host: str, port: int) -> list[str]:
        """A name's addresses as text, the preferred one first. Raises OSError."""
        found = await trio.to_thread.run_sync(
            lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM),
            abandon_on_cancel=True,
            limiter=self._limiter,
        )
        return [str(address[0]) for *_, address in found]


async def call(
    target: Target,
    addresses: Sequence[Address],
    body: bytes,
    headers: dict[str, str],
    ssl_context: ssl.SSLContext,
    timeout: float,
) -> int:
    """POSTs JSON to the target at these addresses and no other. Returns the status. Raises NoAnswer: within `timeout`
    (s) there was none.

    The connection goes to the address itself, while the Host header and the certificate are the name's: between the
    check and the connection there is no second look-up that could give another address (DNS rebinding).
    """
    addresses = addresses[:MAX_ADDRESSES]
    reason = f"no answer within {timeout:g} s"
    answered: list[int] = []
    with trio.move_on_after(timeout):
        for address in addresses:
            try:
                await _post(target, address, body, headers, ssl_context, timeout / len(addresses), answered.append)
                break
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                reason = f"it cannot be reached at {address} ({_short(error)})"
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                if not answered:
                    raise NoAnswer(f"no answer that can be read ({_short(error)})") from error
                break
    if not answered:
        raise NoAnswer(reason)
    return answered[0]


async def _post(
    target: Target,
    address: Address,
    body: bytes,
    headers: dict[str, str],
    ssl_context: ssl.SSLContext,
    connect_timeout: float,
    on_status: Callable[[int], object],
) -> None:
    url = httpx.URL(scheme=target.scheme, host=str(address), port=target.port, raw_path=target.path.encode())
    own = {
        "Host": target.host_header,
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
        "Connection": "close",
        "User-Agent": f"bridged/{__version__}",
    }
    # A client for each call: a kept connection goes by its address, and two names may share one; the second would be
    # sent over a connection whose certificate was checked for the first.
    async with (
        httpx.AsyncClient(
            verify=ssl_context,
            timeout=httpx.Timeout(None, connect=connect_timeout),
            limits=httpx.Limits(max_keepalive_connections=0),
            follow_redirects=False,
            trust_env=False,
        ) as client,
        client.stream(
            "POST", url, content=body, headers=own | headers, extensions={"sni_hostname": target.host}
        ) as response,
    ):
        on_status(response.status_code)
        with trio.move_on_after(ANSWER_TIME) as scope:
            size = 0
            async for chunk in response.aiter_raw():
                size += len(chunk)
                if size > MAX_ANSWER:
                    scope.cancel()  # a `break` would leave httpx's generators to the garbage collector


def _short(error: BaseException) -> str:
    """What it is, and the deepest text of its causes: httpx says nothing where a certificate is refused."""
    name, text = type(error).__name__, ""
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause) or text
        cause = cause.__cause__ or cause.__context__
    return f"{name}: {text}"[:200]


def _read_key(path: Path) -> bytes:
    try:
        key = path.expanduser().read_bytes().strip()
    except (OSError, RuntimeError) as error:
        raise BridgedError(f"the webhooks' secret_file {path} cannot be read: {error}") from error
    if not key:
        raise BridgedError(f"the webhooks' secret_file {path} is empty")
    return key


def _own_key(path: Path) -> bytes:
    if path.exists():
        return _read_key(path)
    key = secrets.token_hex(32)
    try:
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        fd = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(f"{key}\n")
            file.flush()
            os.fsync(fd)
        new.replace(path)
    except OSError as error:
        raise BridgedError(f"the webhooks' key {path} cannot be made: {error}") from error
    log.info("webhooks are signed with the key in %s", path)
    return key.encode()
