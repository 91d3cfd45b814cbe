"""TLS files as the configuration names them: PEM certificates and keys to contexts, or what is wrong with them.

Reads files, so it belongs into a thread. Only Python's own `ssl` is used; it tells no certificate's dates apart from a
handshake, so those are read off the certificate here (`last_day`).
"""

from __future__ import annotations

import os
import re
import ssl
import stat
import time
from datetime import UTC, datetime
from pathlib import Path

from bridged.config.schema import Backend, Server
from bridged.errors import ConfigError

CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
ENCRYPTED = re.compile(r"-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: 4,ENCRYPTED", re.MULTILINE)

Stamp = tuple[int, ...]


def resolve(folder: Path, path: str) -> Path:
    """A path of the configuration, seen from its folder."""
    return Path(os.path.normpath(folder / Path(path).expanduser()))


def stamp(*paths: Path) -> Stamp:
    """What changes when one of these files does, also through symbolic links anywhere in the paths. Raises OSError."""
    found: list[int] = []
    for path in paths:
        facts = path.stat()
        found += (facts.st_dev, facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_size)
    return tuple(found)


# -- contexts ------------------------------------------------------------------------------------------------------


def server_context(cert: Path, key: Path, where: str = "bridged.toml: server") -> ssl.SSLContext:
    """HTTP/1.1 over TLS 1.2 or newer: forward secrecy and AEAD only (Python's own choice has CBC for old clients).

    Raises ConfigError: file and remedy.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    _load_pair(context, where, cert, key)
    return context


def client_context(ca: Path | None, cert: Path | None, key: Path | None, where: str) -> ssl.SSLContext:
    """For connections to one backend: its certificate and its name are verified, against `ca` alone where there is
    one, else against the system's authorities. Raises ConfigError: key and file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    _load_client_files(context, ca, cert, key, where)
    return context


class ClientContexts:
    """The contexts of the backends that have TLS files of their own; a context is kept until a file changes.

    One context costs 0.8 MB and 26 ms with the system's authorities in it (measured), and 1 ms without.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], tuple[Stamp, ssl.SSLContext]] = {}

    def get(self, backend: Backend) -> ssl.SSLContext:
        """Blocking. Raises ConfigError; what was given before is still good then."""
        files = (backend.tls_ca, backend.tls_cert, backend.tls_key)
        ca, cert, key = (Path(file) if file else None for file in files)
        try:
            now = stamp(*(path for path in (ca, cert, key) if path is not None))
        except OSError:
            now = ()
        known = self._known.get(files)
        if known is None or known[0] != now:
            where = f"backends.toml: backend {backend.name}"
            known = self._known[files] = now, client_context(ca, cert, key, where)
        return known[1]


# -- checks of a configuration -------------------------------------------------------------------------------------


def check_server(folder: Path, server: Server) -> None:
    """Raises ConfigError: HTTPS cannot be served with what [server] names."""
    if server.tls_cert:
        server_context(resolve(folder, server.tls_cert), resolve(folder, server.tls_key))


def with_files(where: str, folder: Path, backend: Backend) -> tuple[str, str, str]:
    """A backend's ca, cert and key as absolute paths, or "", once they were found to be usable together.

    Raises ConfigError, which begins with `where` and the key.
    """
    names = ("tls_ca", "tls_cert", "tls_key")
    paths = [resolve(folder, name) if (name := getattr(backend, key)) else None for key in names]
    ca, cert, key = paths
    if not any(paths):
        return "", "", ""
    first = next(name for name, path in zip(names, paths, strict=True) if path)
    if not backend.url.startswith("https:"):
        raise ConfigError(f"{where}.{first}: without https:// in its url nothing is encrypted and nobody is verified")
    if (cert is None) != (key is None):
        raise ConfigError(f"{where}: give `tls_cert` and `tls_key`, or neither")
    # Without the system's authorities, which take 26 ms to read: they are not what is checked here.
    _load_client_files(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ca, cert, key, where)
    return str(ca or ""), str(cert or ""), str(key or "")


def warnings(folder: Path, server: Server, backends: tuple[Backend, ...] = ()) -> list[str]:
    """What works and should not be left as it is: certificates that are over, keys that everybody can read."""
    found = []
    if server.tls_cert:
        found += pair_warnings(
            "bridged.toml: server", resolve(folder, server.tls_cert), resolve(folder, server.tls_key)
        )
    for backend in backends:
        where = f"backends.toml: backend {backend.name}"
        if backend.tls_cert:
            found += pair_warnings(where, resolve(folder, backend.tls_cert), resolve(folder, backend.tls_key))
        if backend.tls_ca:
            found += _expiry(f"{where}.tls_ca", resolve(folder, backend.tls_ca))
    return found


def pair_warnings(where: str, cert: Path, key: Path) -> list[str]:
    found = _expiry(f"{where}.tls_cert", cert)
    try:
        if stat.S_IMODE(key.stat().st_mode) & stat.S_IROTH:
            found.append(f"{where}.tls_key: {key}: everybody on this machine can read it; chmod 640, or 600")
    except OSError:
        pass  # loading it says so
    return found


def _expiry(where: str, path: Path) -> list[str]:
    try:
        ends = last_day(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    if ends is None or ends > time.time():
        return []
    return [f"{where}: {path}: it expired on {datetime.fromtimestamp(ends, UTC):%Y-%m-%d}; renew it"]


# -- files ---------------------------------------------------------------------------------------------------------


def _load_client_files(
    context: ssl.SSLContext, ca: Path | None, cert: Path | None, key: Path | None, where: str
) -> None:
    if ca is not None:
        if not CERTIFICATE.search(_read(f"{where}.tls_ca", ca)):
            raise ConfigError(f"{where}.tls_ca: {ca}: there is no certificate in it; give a PEM file")
        try:
            context.load_verify_locations(ca)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(f"{where}.tls_ca: {ca}: it cannot be used ({_reason(error)})") from None
    if cert is not None and key is not None:
        _load_pair(context, where, cert, key)


def _load_pair(context: ssl.SSLContext, where: str, cert: Path, key: Path) -> None:
    if not CERTIFICATE.search(_read(f"{where}.tls_cert", cert)):
        raise ConfigError(f"{where}.tls_cert: {cert}: there is no certificate in it; give a PEM file")
    text = _read(f"{where}.tls_key", key)
    if ENCRYPTED.search(text):
        raise ConfigError(
            f"{where}.tls_key: {key}: it has a passphrase, and nobody to ask for it; "
            "write it without one: openssl pkey -in KEY -out NEWKEY"
        )
    if not PRIVATE_KEY.search(text):
        raise ConfigError(f"{where}.tls_key: {key}: there is no private key in it; give a PEM file")
    try:
        context.load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(
                f"{where}.tls_key: {key}: it is not the key of the first certificate in {cert}; "
                "give the pair that was made together, the server's own certificate first"
            ) from None
        raise ConfigError(f"{where}.tls_cert: {cert}: it cannot be used ({_reason(error)})") from None
    except OSError as error:
        raise ConfigError(f"{where}.tls_cert: {cert}: it cannot be used ({_reason(error)})") from None


def _read(where: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(10_000_000).decode("utf-8", "replace")
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else "this is no path"
        remedy = "let the service's user read it" if isinstance(error, PermissionError) else "correct the path"
        raise ConfigError(f"{where}: {path}: {what}; {remedy}") from None


def _reason(error: OSError) -> str:
    return (error.reason if isinstance(error, ssl.SSLError) else error.strerror) or type(error).__name__


# -- dates ---------------------------------------------------------------------------------------------------------


def last_day(pem: str) -> float | None:
    """When the first certificate of a PEM text ends, in seconds since 1970; None where that cannot be read off it.

    RFC 5280 4.1: Certificate { TBSCertificate { [0] version, serialNumber, signature, issuer, Validity { notBefore,
    notAfter } … } }. Both times are UTC, as YYMMDDHHMMSSZ (the years 1950 to 2049) or YYYYMMDDHHMMSSZ.
    """
    block = CERTIFICATE.search(pem)
    if block is None:
        return None
    try:
        inside = _content(_content(ssl.PEM_cert_to_DER_cert(block.group())))
        if inside[0] == 0xA0:
            inside = _after(inside)
        for _ in range(3):
            inside = _after(inside)
        text = _content(_after(_content(inside))).decode("ascii")
        if len(text) == 13:
            text = ("19" if text[:2] >= "50" else "20") + text
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except (ValueError, IndexError):
        return None


def _bounds(data: bytes) -> tuple[int, int]:
    """Of the DER value at the beginning: where its content starts and ends."""
    length = data[1]
    if length < 0x80:
        return 2, 2 + length
    size = length & 0x7F
    return 2 + size, 2 + size + int.from_bytes(data[2 : 2 + size], "big")


def _content(data: bytes) -> bytes:
    start, end = _bounds(data)
    return data[start:end]


def _after(data: bytes) -> bytes:
    return data[_bounds(data)[1] :]
