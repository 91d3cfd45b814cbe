"""`bridged check` on who may call, and on secrets that everybody can read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bridged.cli.main import main

ROOT = Path(__file__).parents[2]
HEADERS = '[[backend]]\nname = "pc"\nurl = "http://127.0.0.1:1"\nheaders = { Authorization = "Bearer s3cret" }\n'


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("COMFYUI_SERVERS", raising=False)
    for name in ("etc", "workflows"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path / "etc"


def check(etc: Path) -> Result:
    return CliRunner().invoke(main, ["check", "--config", str(etc)])


def test_a_mistake_in_clients_toml_is_said_with_its_line(etc: Path) -> None:
    assert check(etc).exit_code == 0
    (etc / "clients.toml").write_text('[[client]]\nname = "web"\nkey = "bk_oops"\n')
    bad = check(etc)
    assert bad.exit_code == 1
    assert "clients.toml: line 3: client[0].key: there is no such setting; did you mean `keys`?" in bad.stderr
    assert "bk_oops" not in bad.output


def test_secrets_that_everybody_can_read_are_a_warning(etc: Path) -> None:
    (etc / "backends.toml").write_text(HEADERS)
    (etc / "backends.toml").chmod(0o644)
    open_to_all = check(etc)
    assert open_to_all.exit_code == 0
    said = "warning: backends.toml: it has `headers`, and everybody on this machine can read it; chmod 640\n"
    assert open_to_all.stderr == said
    assert "s3cret" not in open_to_all.output

    (etc / "backends.toml").chmod(0o640)
    assert check(etc).stderr == ""

    (etc / "bridged.toml").write_text('[webhooks]\nsecret = "s3cret"\n')
    (etc / "bridged.toml").chmod(0o604)
    assert "warning: bridged.toml: it has a `secret`" in check(etc).stderr


def test_so_are_tokens_of_patched_pcs(etc: Path) -> None:
    one = '[[backend]]\nname = "pc"\nurl = "http://127.0.0.1:1"\n'
    (etc / "backends.toml").write_text(f'{one}token = "s3cret"\n')
    (etc / "backends.toml").chmod(0o644)
    said = "warning: backends.toml: it has a `token`, and everybody on this machine can read it; chmod 640\n"
    assert check(etc).stderr == said
    (etc / "backends.toml").write_text(f'{one}token_file = "token"\n')
    (etc / "token").write_text("s3cret\n")
    (etc / "token").chmod(0o644)
    found = check(etc)
    assert found.stderr == "warning: token: everybody on this machine can read that token; chmod 640\n"
    assert "s3cret" not in found.output
    (etc / "token").chmod(0o600)
    assert check(etc).stderr == ""


def test_hashes_of_keys_may_be_read(etc: Path) -> None:
    CliRunner().invoke(main, ["key", "new", "web", "--config", str(etc)])
    (etc / "clients.toml").chmod(0o644)
    assert check(etc).stderr == ""
