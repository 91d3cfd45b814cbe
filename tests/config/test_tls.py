"""TLS files of the configuration: each mistake is named with its key, its file and what to do."""

from __future__ import annotations

import errno
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bridged.config.load import load
from bridged.config.schema import Backend
from bridged.config.tls import ClientContexts, last_day
from bridged.daemon import check
from bridged.errors import ConfigError
from tests.e2e.authority import Authority, Pair

NOTHING: dict[str, str] = {}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "workflows").mkdir()
    return tmp_path / "etc"


@pytest.fixture
def authority(folder: Path) -> Authority:
    return Authority(folder)


def serve_with(folder: Path, pair: Pair) -> None:
    text = f'[server]\ntls_cert = "{pair.cert.name}"\ntls_key = "{pair.key.name}"\n'
    (folder / "bridged.toml").write_text(text)


def backend_with(folder: Path, lines: str, url: str = "https://pc.example.org") -> None:
    (folder / "backends.toml").write_text(f'[[backend]]\nname = "pc"\nurl = "{url}"\n{lines}\n')


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        load(folder, NOTHING)
    return str(refused.value)


# -- what HTTPS is served with -------------------------------------------------------------------------------------


def test_a_pair_beside_the_configuration(folder: Path, authority: Authority) -> None:
    serve_with(folder, authority.pair("a"))
    assert load(folder, NOTHING)[1] == []
    assert check(folder, NOTHING) == []


@pytest.mark.parametrize("missing", ["a.crt", "a.key"])
def test_a_file_that_is_not_there(folder: Path, authority: Authority, missing: str) -> None:
    serve_with(folder, authority.pair("a"))
    (folder / missing).unlink()
    key = "tls_cert" if missing == "a.crt" else "tls_key"
    wanted = f"bridged.toml: server.{key}: {folder / missing}: No such file or directory; correct the path"
    assert refusal(folder) == wanted


def test_a_key_that_the_service_must_not_read(
    folder: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = authority.pair("a")
    serve_with(folder, pair)
    opened = Path.open

    def as_nobody(path: Path, *how: Any, **more: Any) -> Any:  # root, who may run this, reads everything
        if path == pair.key:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *how, **more)

    monkeypatch.setattr(Path, "open", as_nobody)
    assert refusal(folder).endswith(f"{pair.key}: Permission denied; let the service's user read it")


def test_a_key_of_another_certificate(folder: Path, authority: Authority) -> None:
    one, other = authority.pair("a"), authority.pair("b")
    serve_with(folder, Pair(one.cert, other.key))
    text = refusal(folder)
    assert text.startswith(f"bridged.toml: server.tls_key: {other.key}: it is not the key of the first certificate")


def test_files_that_are_something_else(folder: Path, authority: Authority) -> None:
    pair = authority.pair("a")
    serve_with(folder, pair._replace(cert=pair.key))
    assert "tls_cert: " in refusal(folder)
    assert "there is no certificate in it" in refusal(folder)
    serve_with(folder, pair._replace(key=pair.cert))
    assert "there is no private key in it" in refusal(folder)
    (folder / "bad.crt").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    serve_with(folder, pair._replace(cert=folder / "bad.crt"))
    assert "bad.crt: it cannot be used" in refusal(folder)
    (folder / "binary.crt").write_bytes(bytes(range(256)))
    serve_with(folder, pair._replace(cert=folder / "binary.crt"))
    assert "there is no certificate in it" in refusal(folder)


def test_a_key_with_a_passphrase_asks_nobody(folder: Path, authority: Authority) -> None:
    pair = authority.pair("a")
    command = f"openssl pkey -in {pair.key} -aes256 -passout pass:x -out {folder}/locked.key"
    subprocess.run(command.split(), check=True)
    serve_with(folder, pair._replace(key=folder / "locked.key"))
    assert "openssl pkey -in KEY -out NEWKEY" in refusal(folder)


def test_what_is_over_or_open_to_all_is_warned_of_and_works(folder: Path, authority: Authority) -> None:
    pair = authority.pair("a", days=-2, age=9)
    pair.key.chmod(0o644)
    serve_with(folder, pair)
    assert load(folder, NOTHING)[1] == []
    day = (datetime.now(UTC) - timedelta(days=2)).date()
    assert check(folder, NOTHING) == [
        f"bridged.toml: server.tls_cert: {pair.cert}: it expired on {day}; renew it",
        f"bridged.toml: server.tls_key: {pair.key}: everybody on this machine can read it; chmod 640, or 600",
    ]


def test_new_names_of_files_that_cannot_be_used_are_told_while_it_runs(folder: Path, authority: Authority) -> None:
    pair = authority.pair("a")
    serve_with(folder, pair)
    before, _ = load(folder, NOTHING)
    serve_with(folder, pair._replace(key=folder / "gone.key"))
    _, problems = load(folder, NOTHING, before)
    assert [f"bridged.toml: server.tls_key: {folder / 'gone.key'}" in problem for problem in problems] == [True]


# -- what backends are known by ------------------------------------------------------------------------------------


def test_a_backends_files_are_seen_from_the_folder(folder: Path, authority: Authority) -> None:
    authority.pair("me")
    backend_with(folder, 'tls_ca = "ca.pem"\ntls_cert = "me.crt"\ntls_key = "../etc/me.key"')
    (backend,) = load(folder, NOTHING)[0].backends
    assert (backend.tls_ca, backend.tls_key) == (str(folder / "ca.pem"), str(folder / "me.key"))
    context = ClientContexts().get(backend)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('tls_ca = "gone.pem"', "backend[0].tls_ca: {folder}/gone.pem: No such file or directory"),
        ('tls_ca = "me.key"', "backend[0].tls_ca: {folder}/me.key: there is no certificate in it"),
        ('tls_cert = "me.crt"', "backend[0]: give `tls_cert` and `tls_key`, or neither"),
        ('tls_cert = "me.crt"\ntls_key = "it.key"', "backend[0].tls_key: {folder}/it.key: it is not the key"),
        ('tls_ca = "\\u0000"', "backend[0].tls_ca: "),
    ],
)
def test_a_backends_files_that_cannot_be_used(folder: Path, authority: Authority, lines: str, said: str) -> None:
    authority.pair("me")
    authority.pair("it")
    backend_with(folder, lines)
    assert refusal(folder).startswith("backends.toml: " + said.format(folder=folder))


def test_tls_files_without_https_protect_nothing(folder: Path, authority: Authority) -> None:
    backend_with(folder, 'tls_ca = "ca.pem"', "http://pc.example.org")
    assert refusal(folder).startswith("backends.toml: backend[0].tls_ca: without https://")


def test_check_warns_of_a_backends_files_too(folder: Path, authority: Authority) -> None:
    authority.pair("me", days=-1, age=9).key.chmod(0o604)
    backend_with(folder, 'tls_cert = "me.crt"\ntls_key = "me.key"')
    expired, readable = check(folder, NOTHING)
    assert expired.startswith(f"backends.toml: backend pc.tls_cert: {folder}/me.crt: it expired on ")
    assert readable.startswith(f"backends.toml: backend pc.tls_key: {folder}/me.key: everybody")


def test_a_context_is_kept_until_a_file_changes(folder: Path, authority: Authority) -> None:
    contexts = ClientContexts()
    pair = authority.pair("me")
    one = Backend(name="one", url="https://a", tls_ca=str(authority.ca), tls_cert=str(pair.cert), tls_key=str(pair.key))
    other = Backend(name="other", url="https://b", tls_ca=str(authority.ca))
    assert contexts.get(one) is contexts.get(one) is not contexts.get(other)
    before = contexts.get(one)
    authority.pair("me")
    assert contexts.get(one) is not before
    pair.key.unlink()
    with pytest.raises(ConfigError, match=r"backends.toml: backend one.tls_key: "):
        contexts.get(one)


def test_when_a_certificate_ends_as_openssl_says(folder: Path, authority: Authority) -> None:
    for days in (1, 400, 9000, 20_000):  # beyond 2049 the date has another form
        pair = authority.pair("a", days=days)
        said = subprocess.run(
            ["openssl", "x509", "-in", pair.cert, "-noout", "-enddate"], capture_output=True, text=True, check=True
        )
        wanted = ssl.cert_time_to_seconds(said.stdout.strip().removeprefix("notAfter="))
        assert last_day(pair.cert.read_text()) == wanted


@pytest.mark.parametrize("der", [b"", b"0", b"0\x80", b"0\x84\xff\xff\xff\xff0", b"0\x030\x01\xa0", bytes(range(99))])
def test_what_is_no_certificate_has_no_end(der: bytes) -> None:
    assert last_day(ssl.DER_cert_to_PEM_cert(der)) is None
    assert last_day("") is None
