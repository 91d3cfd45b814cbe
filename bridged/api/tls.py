"""The certificate that HTTPS is served with: the one that is on the disk now, whoever renews it and however.

It is looked at once a minute, and on SIGHUP. A look is two `stat` calls, which follow every symbolic link on the way:
certbot moves the last one (`live/NAME/fullchain.pem`), Kubernetes one in the middle (`..data`), and a third replaces
the file. Watching would need the folder of each link of the chain, again after every change, permission to read them,
and a file system that tells of changes. A renewal comes weeks before it is needed: a minute is soon enough.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import trio

from bridged.config.schema import Config
from bridged.config.tls import Stamp, pair_warnings, resolve, server_context, stamp, warnings
from bridged.errors import ConfigError

log = logging.getLogger(__name__)

LOOK_AGAIN = 60.0
"""seconds between looks at the files"""

SETTLE = 1.0
"""seconds that they must have been the same for: certificate and key are two files, and change one after the other"""


class Certificate:
    """A pair of PEM files, and the context for new connections, which is the same object for ever.

    What a connection gets is decided in its handshake: before the server answers, OpenSSL asks which context's
    certificate it is to show (the hook for server names, which is called without one, too). A loaded pair is never
    changed in place: OpenSSL keeps one certificate per kind of key, so an old RSA one would stay beside a new ECDSA
    one, and clients that take both would get either.
    """

    def __init__(self, cert: Path, key: Path) -> None:
        self._cert = cert
        self._key = key
        self._stamp: Stamp = ()
        self._current: ssl.SSLContext
        self._reloading = trio.Lock()
        self.problem = ""
        """what is wrong with the files now, while an earlier pair is in use; "" where all is well"""
        self.context: ssl.SSLContext

    def load(self) -> None:
        """Before anything else. Blocking. Raises ConfigError: file and remedy."""
        self._stamp = self._look()
        self._current = self.context = server_context(self._cert, self._key)
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._current

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(LOOK_AGAIN)
            if await trio.to_thread.run_sync(self._look) != self._stamp:
                await self.reload()

    async def reload(self) -> None:
        """Takes the files as they are, once they stay so. Whatever is wrong with them, what is in use stays."""
        async with self._reloading:
            seen = await trio.to_thread.run_sync(self._look)
            while seen != self._stamp:
                await trio.sleep(SETTLE)
                now = await trio.to_thread.run_sync(self._look)
                if now == seen:
                    self._stamp = seen
                    await trio.to_thread.run_sync(self._replace)
                seen = now

    def _replace(self) -> None:
        try:
            new = server_context(self._cert, self._key)
        except ConfigError as error:
            if str(error) != self.problem:
                log.error("%s; the previous certificate stays in use", error)
            self.problem = str(error)
            return
        self._current = new
        self.problem = ""
        log.info("a new certificate is in use")
        for warning in pair_warnings("bridged.toml: server", self._cert, self._key):
            log.warning("configuration: %s", warning)

    def _look(self) -> Stamp:
        try:
            return stamp(self._cert, self._key)
        except OSError:
            return ()  # loading it says what is wrong


def open_certificate(config: Config) -> Certificate | None:
    """What this configuration serves HTTPS with, loaded; None where it serves HTTP. Says what is to be renewed, also
    of the backends' files. Blocking. Raises ConfigError."""
    server = config.settings.server
    for warning in warnings(config.folder, server, config.backends):
        log.warning("configuration: %s", warning)
    if not server.tls_cert:
        return None
    certificate = Certificate(resolve(config.folder, server.tls_cert), resolve(config.folder, server.tls_key))
    certificate.load()
    return certificate
