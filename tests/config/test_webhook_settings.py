"""The [webhooks] section: what is taken, and that a mistake is named where it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridged.config.load import read_settings
from bridged.errors import ConfigError


def test_with_nothing_said_there_are_no_webhooks(tmp_path: Path) -> None:
    found = read_settings(tmp_path, {}).webhooks
    assert (found.hosts, found.private, found.secret, found.secret_file) == ((), (), "", "")
    assert (found.timeout, found.give_up_after) == (10.0, 86400.0)


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    (tmp_path / "bridged.toml").write_text(
        '[webhooks]\nhosts = ["example.org", "*.example.org:8443", "[::1]:80"]\n'
        'private = ["10.0.0.0/8", "::1", "nas"]\n'
        'secret_file = "key.txt"\ntimeout = 3\ngive_up_after = 60\n'
    )
    found = read_settings(tmp_path, {}).webhooks
    assert found.hosts == ("example.org", "*.example.org:8443", "[::1]:80")
    assert found.private == ("10.0.0.0/8", "::1", "nas")
    assert (found.secret_file, found.timeout, found.give_up_after) == ("key.txt", 3.0, 60.0)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('hosts = ["https://example.org"]', "no port after its colon"),
        ('hosts = ["example.org/hook"]', "is no host"),
        ('hosts = ["*"]', "is no host"),
        ('hosts = ["example.org:0"]', "1 to 65535"),
        ('private = ["10.0.0.1/8"]', "has host bits set"),
        ('private = ["nas:80"]', "leave the port out"),
        ('secret = "a"\nsecret_file = "b"', "not both"),
        ('secret_file = "a\\u0000"', "is no path"),
        ("timeout = 0", "`float` >= 0.1"),
        ('secrets = "a"', "did you mean `secret`"),
    ],
)
def test_a_mistake_is_named_where_it_stands(tmp_path: Path, line: str, what: str) -> None:
    (tmp_path / "bridged.toml").write_text(f"[webhooks]\n{line}\n")
    with pytest.raises(ConfigError) as refused:
        read_settings(tmp_path, {})
    assert str(refused.value).startswith("bridged.toml: line ")
    assert "webhooks" in str(refused.value)
    assert what in str(refused.value)
