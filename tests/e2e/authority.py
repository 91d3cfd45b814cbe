"""Certificates of an authority of the test's own, and TLS in front of a server that speaks none."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

import trio
import trustme


class Pair(NamedTuple):
    cert: Path
    key: Path


class Authority:
    """One authority; `ca` is its certificate's file."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self.ca = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(str(self.ca))

    def pair(self, name: str, *identities: str, days: int = 30, age: int = 1) -> Pair:
        """A certificate for these names, `age` days old and good for `days` from now (fewer than 0: it is over)."""
        now = datetime.now(UTC)
        issued = self._ca.issue_cert(
            *(identities or ("127.0.0.1", "localhost")),
            not_before=now - timedelta(days=age),
            not_after=now + timedelta(days=days),
        )
        pair = Pair(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        pair.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        pair.key.write_bytes(issued.private_key_pem.bytes())
        pair.key.chmod(0o600)
        return pair

    def client(self) -> ssl.SSLContext:
        """What a client has that trusts this authority alone."""
        return ssl.create_default_context(cafile=self.ca)

    def server(self, pair: Pair, *, wants_client: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.ca)
        context.load_cert_chain(*pair)
        context.verify_mode = ssl.CERT_REQUIRED if wants_client else ssl.CERT_NONE
        return context


class TlsFront:
    """TLS in front of a plain server, byte by byte; `context` may be exchanged, `failed` counts refused handshakes."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.context = context
        self.failed = 0
        self.port = 0
        self._behind = port

    async def serve(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, self._converse, 0, host="127.0.0.1"))
            self.port = listener.socket.getsockname()[1]
            task_status.started(self.port)

    async def _converse(self, tcp: trio.SocketStream) -> None:
        outside = trio.SSLStream(tcp, self.context, server_side=True, https_compatible=True)
        try:
            await outside.do_handshake()
        except trio.BrokenResourceError:
            self.failed += 1
            with trio.move_on_after(1):
                # Trio leaves out the alert that says why (0.35), which other servers send; and closing with bytes
                # unread would reset the connection, and eat it.
                await tcp.send_all(outside._outgoing.read())
                while await tcp.receive_some():
                    pass
            return
        try:
            async with await trio.open_tcp_stream("127.0.0.1", self._behind) as inside, trio.open_nursery() as nursery:
                nursery.start_soon(_pump, inside, outside, nursery.cancel_scope)
                nursery.start_soon(_pump, outside, inside, nursery.cancel_scope)
        except OSError:
            pass


async def _pump(source: trio.abc.Stream, sink: trio.abc.Stream, both: trio.CancelScope) -> None:
    try:
        while data := await source.receive_some():
            await sink.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    both.cancel()
