"""Edits of clients.toml: all or nothing, one at a time, and what the operator wrote stays as it is."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from bridged.config import folder, keys
from bridged.config.keys import add_client, key_hash, make_key, renew, revoke
from bridged.config.load import read_clients
from bridged.config.schema import ClientKey
from bridged.errors import BadInput, ConfigError

SHIPPED = Path(__file__).parents[2] / "etc" / "clients.toml"
A, B, C = ("sha256:" + digit * 64 for digit in "abc")

WRITTEN = f"""\
# Our clients. Ask Kim before you change them.
[[client]]   # the web page
name = 'web'
keys = ['{A}'] # from March
rate   = 30

# The game: see ticket 17.
[[client]]
name = "game"
keys = [
  "{B}", # release 1
  "{C}", # release 2
]
# end of file
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "clients.toml"
    path.write_text(WRITTEN)
    return path


def client(name: str, key: str = "sha256:" + "d" * 64) -> ClientKey:
    return ClientKey(name=name, keys=(key,))


def test_keys_are_long_recognisable_and_hashed_as_the_service_looks_them_up() -> None:
    key = make_key()
    assert re.fullmatch(r"bk_[A-Za-z0-9_-]{43}", key)
    assert key_hash(key) == "sha256:" + sha256(key.encode()).hexdigest()
    assert len({make_key() for _ in range(100)}) == 100


def test_the_shipped_file_has_no_client_and_its_examples_are_right_when_uncommented(tmp_path: Path) -> None:
    assert read_clients(SHIPPED.parent) == ()
    lines = SHIPPED.read_text().splitlines()
    example = re.compile(r"# (\[\[client\]\]|[a-z_]+ = .*)")
    (tmp_path / "clients.toml").write_text("\n".join(m[1] for line in lines if (m := example.fullmatch(line))))
    assert [c.name for c in read_clients(tmp_path)] == ["game", "studio"]
    assert {f for c in read_clients(tmp_path) for f in c.__struct_fields__} == {
        word for line in lines for word in re.findall(r"^# ([a-z_]+) = ", line)
    }


def test_a_new_client_comes_last_and_nothing_else_changes(file: Path) -> None:
    full = ClientKey(
        name="x",
        keys=("sha256:" + "d" * 64,),
        scopes=("submit", "admin"),
        aliases=('a "b" \\ 그림',),
        rate=0.5,
        burst=3,
        requests=60.0,
        max_jobs=4,
        weight=2.5,
    )
    assert [c.name for c in add_client(file.parent, full)] == ["web", "game", "x"]
    assert file.read_text().startswith(WRITTEN + "\n[[client]]\n")
    assert read_clients(file.parent)[2] == full


def test_what_was_added_and_is_removed_leaves_no_trace(file: Path) -> None:
    for text in (WRITTEN, SHIPPED.read_text(), "", "# no client, no empty line at the end\n"):
        file.write_text(text)
        for name in ("x", "y"):
            add_client(file.parent, client(name, key_hash(name)))
        for name in ("x", "y"):
            revoke(file.parent, name)
        assert file.read_text() == text


def test_a_removed_client_takes_its_table_and_no_comment_on_others(file: Path) -> None:
    revoke(file.parent, "web")
    assert file.read_text() == WRITTEN.replace(WRITTEN[WRITTEN.index("[[") : WRITTEN.index("\n# The game")], "")
    revoke(file.parent, "game")
    assert file.read_text() == (
        "# Our clients. Ask Kim before you change them.\n\n# The game: see ticket 17.\n# end of file\n"
    )


def test_a_key_changes_in_its_place(file: Path) -> None:
    new, newer = key_hash("new"), key_hash("newer")
    renew(file.parent, "web", new, keep=False)
    assert file.read_text() == WRITTEN.replace(f"'{A}'", f'"{new}"')
    renew(file.parent, "game", newer, keep=True)
    assert f'  "{C}", # release 2\n  "{newer}",\n]\n# end of file\n' in file.read_text()
    revoke(file.parent, "game", "BBBB")
    assert [c.keys for c in read_clients(file.parent)] == [(new,), (C, newer)]
    assert "# The game: see ticket 17." in file.read_text()
    renew(file.parent, "game", A, keep=False)
    assert [c.keys for c in read_clients(file.parent)] == [(new,), (A,)]


@pytest.mark.parametrize(
    ("name", "prefix", "said"),
    [
        ("nobody", None, "there is no client 'nobody'; there are: web, game"),
        ("game", "f", "no keys of 'game'"),
        ("game", "", "no keys of 'game'"),
        ("game", "sha256:", "no keys of 'game'"),
        ("web", "a", "that is the only key of 'web'; without --hash the whole client is removed"),
    ],
)
def test_what_is_not_there_is_not_revoked(file: Path, name: str, prefix: str | None, said: str) -> None:
    with pytest.raises(BadInput, match=re.escape(said)):
        revoke(file.parent, name, prefix)
    assert file.read_text() == WRITTEN


def test_a_prefix_of_several_keys_revokes_none(file: Path) -> None:
    text = WRITTEN.replace(C, "sha256:" + "b" * 63 + "0")
    file.write_text(text)
    with pytest.raises(BadInput, match="2 keys of 'game'"):
        revoke(file.parent, "game", "sha256:b")
    assert file.read_text() == text


def test_inline_tables_are_edited_too(file: Path) -> None:
    file.write_text(f'# ours\nclient = [\n  {{ name = "a", keys = ["{A}"] }}, # first\n]\n# end\n')
    add_client(file.parent, client("b", B))
    renew(file.parent, "a", C, keep=True)
    assert [(c.name, c.keys) for c in read_clients(file.parent)] == [("a", (A, C)), ("b", (B,))]
    revoke(file.parent, "a")
    assert [c.name for c in read_clients(file.parent)] == ["b"]
    assert file.read_text().startswith("# ours\n")
    assert file.read_text().endswith("# end\n")


def test_line_ends_of_windows_stay(file: Path) -> None:
    file.write_bytes(WRITTEN.replace("\n", "\r\n").encode())
    add_client(file.parent, client("x"))
    revoke(file.parent, "web")
    assert b"\r\n" in file.read_bytes()
    assert b"\n" not in file.read_bytes().replace(b"\r\n", b"")
    assert [c.name for c in read_clients(file.parent)] == ["game", "x"]


@pytest.mark.parametrize(
    "text",
    [
        "[[client]",
        "[[client]]\nname = 'a'\n",
        WRITTEN + "nope = 1\n",
        WRITTEN.replace("game", "web"),
        "client = 1",
    ],
)
def test_a_file_with_a_mistake_is_left_as_it_is(file: Path, text: str) -> None:
    file.write_text(text)
    before = file.stat()
    with pytest.raises(ConfigError, match=r"^clients\.toml: "):
        add_client(file.parent, client("x"))
    assert file.read_text() == text
    assert file.stat() == before
    assert [p.name for p in file.parent.iterdir()] == ["clients.toml"]


def test_what_is_not_utf8_is_left_as_it_is(file: Path) -> None:
    file.write_bytes(b"# \xff\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        add_client(file.parent, client("x"))
    assert file.read_bytes() == b"# \xff\n"


def test_a_text_that_comes_out_wrong_is_not_put_in_force(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_appended", lambda text, client: text)
    with pytest.raises(ConfigError, match="nothing changed"):
        add_client(file.parent, client("x"))
    assert file.read_text() == WRITTEN
    assert [p.name for p in file.parent.iterdir()] == ["clients.toml"]


def test_a_new_file_is_for_its_owner_and_the_folders_group(tmp_path: Path) -> None:
    groups = [gid for gid in os.getgroups() if gid != os.getegid()]
    if os.geteuid() == 0:
        groups = [4711]
    if groups:
        os.chown(tmp_path, -1, groups[0])
    mask = os.umask(0o077)
    try:
        add_client(tmp_path, client("x"))
    finally:
        os.umask(mask)
    made = (tmp_path / "clients.toml").stat()
    assert stat.S_IMODE(made.st_mode) == 0o640
    assert made.st_gid == tmp_path.stat().st_gid


def test_mode_and_owner_stay_and_the_file_is_replaced_at_once(file: Path) -> None:
    file.chmod(0o604)
    if os.geteuid() == 0:
        os.chown(file, 4711, 4712)
    before = file.stat()
    with file.open() as reader:
        add_client(file.parent, client("x"))
        assert reader.read() == WRITTEN, "who reads meanwhile sees all of the old one"
    after = file.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino


def test_a_link_stays_a_link(tmp_path: Path, file: Path) -> None:
    (tmp_path / "etc").mkdir()
    link = tmp_path / "etc" / "clients.toml"
    link.symlink_to("../clients.toml")
    add_client(link.parent, client("x"))
    assert link.is_symlink()
    assert [c.name for c in read_clients(tmp_path)] == ["web", "game", "x"]
    assert [p.name for p in link.parent.iterdir()] == ["clients.toml"]


def test_no_folder_and_no_permission_are_said_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"nowhere: no such folder; give one with --config DIR"):
        add_client(tmp_path / "nowhere", client("x"))

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(ConfigError, match=r"clients\.toml: cannot be written: Permission denied; nothing changed"):
        add_client(tmp_path, client("x"))
    assert list(tmp_path.iterdir()) == []


def test_an_edit_waits_for_another_one_but_not_for_ever(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "LOCK_TIMEOUT", 0.05)
    holder = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another command holds its lock; try again"):
            add_client(file.parent, client("x"))
    finally:
        os.close(holder)
    assert file.read_text() == WRITTEN
    add_client(file.parent, client("x"))


def test_settings_are_kept_with_a_new_key(file: Path) -> None:
    before = read_clients(file.parent)[0]
    after = renew(file.parent, "web", B.replace("b", "e"), keep=False)[0]
    assert msgspec.structs.replace(after, keys=before.keys) == before
    with pytest.raises(BadInput, match="there is no client 'nobody'"):
        renew(file.parent, "nobody", A, keep=True)
    with pytest.raises(BadInput, match="--replace puts a new one in its place, --add keeps the old one"):
        add_client(file.parent, client("web"))
