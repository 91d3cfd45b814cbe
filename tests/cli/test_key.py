"""`bridged key`: a key is shown once, on the last line, and is in no file afterwards."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner, Result

from bridged.cli.main import main
from bridged.config.keys import key_hash
from bridged.config.load import read_clients
from bridged.config.schema import ClientKey
from tests.cli.commands import bridged


def run(folder: Path, *arguments: str, code: int = 0) -> Result:
    """`bridged key ARGUMENTS` on that configuration folder, which must end with `code`."""
    result = CliRunner().invoke(main, ["key", *arguments, "--config", str(folder)], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result


def last_line(output: str) -> str:
    """The key that was printed."""
    assert output.endswith("\n")
    line = output.splitlines()[-1]
    assert re.fullmatch(r"bk_[A-Za-z0-9_-]{43}", line)
    return line


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_key_stands_alone_on_the_last_line_and_fits_the_hash_that_is_kept(tmp_path: Path) -> None:
    made = run(tmp_path, "new", "web")
    key = last_line(made.stdout)
    assert made.stdout == f"{key}\n", "KEY=$(bridged key new web) has the key and nothing else"
    assert key not in made.stderr
    assert f"{tmp_path}/clients.toml: web has one key, for: submit" in made.stderr
    assert "It is the first: from now on every request needs a key, from this machine, too." in made.stderr
    assert "Authorization: Bearer KEY" in made.stderr
    assert "BRIDGED_KEY" in made.stderr
    assert read_clients(tmp_path) == (ClientKey(name="web", keys=(key_hash(key),)),)
    assert key.encode() not in everything(tmp_path)
    second = run(tmp_path, "new", "game")
    assert "It is the first" not in second.stderr
    assert last_line(second.stdout) != key


def test_every_setting_has_its_option(tmp_path: Path) -> None:
    options = "--scope submit --scope admin --alias a --alias b/c --rate 30 --burst 5 --requests 600 --max-jobs 20"
    key = last_line(run(tmp_path, "new", "web", *options.split(), "--weight", "2.5").stdout)
    assert read_clients(tmp_path) == (
        ClientKey(
            name="web",
            keys=(key_hash(key),),
            scopes=("submit", "admin"),
            aliases=("a", "b/c"),
            rate=30.0,
            burst=5,
            requests=600.0,
            max_jobs=20,
            weight=2.5,
        ),
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a b"], "'a b' is no name"),
        (["web\n"], "is no name"),
        (["x" * 65], "is no name"),
        (["web", "--scope", "root"], "'root' is not one of"),
        (["web", "--rate", "-1"], "-1"),
        (["web", "--rate", "inf"], "inf"),
        (["web", "--rate", "nan"], "nan"),
        (["web", "--burst", "0"], "0"),
        (["web", "--weight", "0"], "0"),
        (["web", "--weight", "1001"], "1001"),
        (["web", "--max-jobs", "1.5"], "1.5"),
        (["web", "--add", "--replace"], "--replace or --add, not both"),
        (["web", "--add"], "there is no client 'web'; there are: none"),
        (["web", "--replace", "--rate", "5", "--scope", "admin"], "leave --scope, --rate out, or edit clients.toml"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path: Path, arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["key", "new", *arguments, "--config", str(tmp_path)])
    assert result.exit_code in (1, 2)
    assert said in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_says_what_to_do(tmp_path: Path) -> None:
    first = last_line(run(tmp_path, "new", "web", "--rate", "30").stdout)
    taken = run(tmp_path, "new", "web", code=1)
    assert "'web' has a key already: --replace puts a new one in its place, --add keeps the old" in taken.stderr
    assert taken.stdout == ""

    second = last_line(run(tmp_path, "new", "web", "--add").stdout)
    (client,) = read_clients(tmp_path)
    assert (client.keys, client.rate) == ((key_hash(first), key_hash(second)), 30.0)

    third = last_line(run(tmp_path, "new", "web", "--replace").stdout)
    (client,) = read_clients(tmp_path)
    assert (client.keys, client.rate) == ((key_hash(third),), 30.0)


def test_the_list_shows_who_may_what_and_no_more_of_a_hash_than_its_first_digits(tmp_path: Path) -> None:
    assert "no keys; `bridged key new NAME` makes one" in run(tmp_path, "list").output
    keys = [
        last_line(run(tmp_path, "new", "web", "--alias", "[red]a", "--rate", "0.5", "--max-jobs", "7").stdout),
        last_line(run(tmp_path, "new", "web", "--add").stdout),
        last_line(run(tmp_path, "new", "desk", "--scope", "admin", "--scope", "submit").stdout),
    ]
    listed = run(tmp_path, "list").output
    digits = [key_hash(key).removeprefix("sha256:") for key in keys]
    lines = [line.split() for line in listed.splitlines()]
    assert lines[1] == ["web", "submit", "[red]a", "0.5", "10", "-", "7", "1", "2", digits[0][:8]]
    assert lines[2] == [digits[1][:8]]
    assert lines[3] == ["desk", "admin", "submit", "all", "-", "10", "-", "-", "1", "1", digits[2][:8]]
    assert not any(hash[:9] in listed for hash in digits)


def test_a_client_or_one_of_its_keys_is_revoked(tmp_path: Path) -> None:
    first = last_line(run(tmp_path, "new", "web").stdout)
    second = last_line(run(tmp_path, "new", "web", "--add").stdout)
    prefix = key_hash(first).removeprefix("sha256:")[:8]
    assert "web has one key left" in run(tmp_path, "revoke", "web", "--hash", prefix).output
    assert read_clients(tmp_path)[0].keys == (key_hash(second),)
    only = run(tmp_path, "revoke", "web", "--hash", key_hash(second), code=1)
    assert "that is the only key of 'web'; without --hash the whole client is removed" in only.stderr
    gone = run(tmp_path, "revoke", "web")
    assert "web is removed" in gone.stdout
    assert "No key is left: requests from this machine need none now." in gone.stderr
    assert read_clients(tmp_path) == ()
    assert "there is no client 'web'; there are: none" in run(tmp_path, "revoke", "web", code=1).stderr


def test_a_broken_file_is_an_error_for_every_command_and_stays_as_it_is(tmp_path: Path) -> None:
    text = '[[client]]\nname = "web"\nkeys = ["oops"]\n'
    (tmp_path / "clients.toml").write_text(text)
    for arguments in (["new", "x"], ["new", "web", "--replace"], ["list"], ["revoke", "web"]):
        refused = run(tmp_path, *arguments, code=1)
        assert refused.stderr.startswith("Error: clients.toml: line 1: client[0].keys[0]: Expected")
        assert refused.stdout == ""
    assert (tmp_path / "clients.toml").read_text() == text


def test_no_folder_is_said_plainly(tmp_path: Path) -> None:
    for arguments in (["new", "x"], ["list"], ["revoke", "x"]):
        assert "no such folder; give one with --config DIR" in run(tmp_path / "no", *arguments, code=1).stderr


async def test_processes_that_make_keys_at_the_same_time_lose_none(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "clients.toml").write_text("# ours\n")
    keys: dict[str, str] = {}

    async def make(name: str) -> None:
        done = await bridged(tmp_path, "key", "new", name)
        assert done.returncode == 0, done.stderr
        keys[name] = last_line(done.stdout)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(make, f"client-{number}")
    made = {client.name: client.keys for client in read_clients(tmp_path / "etc")}
    assert made == {name: (key_hash(key),) for name, key in keys.items()}
    assert len(made) == 6
    assert (tmp_path / "etc" / "clients.toml").read_text().startswith("# ours\n")
    found = everything(tmp_path)
    assert not any(key.encode() in found for key in keys.values())
    assert [path.name for path in (tmp_path / "etc").iterdir()] == ["clients.toml"]


async def test_threads_that_edit_at_the_same_time_wait_for_each_other(tmp_path: Path) -> None:
    from bridged.config.keys import add_client

    async def add(number: int) -> None:
        new = ClientKey(name=f"c{number}", keys=(key_hash(str(number)),))
        await trio.to_thread.run_sync(add_client, tmp_path, new)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(add, number)
    assert {client.name for client in read_clients(tmp_path)} == {f"c{number}" for number in range(20)}
