"""What changed between two configurations: only that is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridged.config.diff import diff
from bridged.config.schema import Backend, Config, Jobs, Server, Settings


def config(*backends: Backend, settings: Settings | None = None, state: str = "/s") -> Config:
    folders = (Path("/w"), Path(state), Path(state) / "workflows")
    return Config(Path("/etc/b"), settings or Settings(), backends, (), (), *folders)


A = Backend(name="a", url="http://a")
B = Backend(name="b", url="http://b")


def test_nothing_changed() -> None:
    changes = diff(config(A, B), config(B, A))
    assert (changes.added, changes.removed, changes.reconnect, changes.retuned, changes.needs_restart) == ((),) * 5


def test_added_and_removed() -> None:
    changes = diff(config(A), config(B))
    assert (changes.added, changes.removed, changes.reconnect, changes.retuned) == ((B,), ("a",), (), ())


@pytest.mark.parametrize(
    "new", [Backend(name="a", url="http://x"), Backend(name="a", url="http://a", headers={"K": "v"})]
)
def test_another_address_or_login_reconnects(new: Backend) -> None:
    changes = diff(config(A, B), config(new, B))
    assert (changes.reconnect, changes.retuned, changes.added, changes.removed) == ((new,), (), (), ())


@pytest.mark.parametrize(
    "new",
    [
        Backend(name="a", url="http://a", drain=True),
        Backend(name="a", url="http://a", max_running=2),
        Backend(name="a", url="http://a", tags=("t",)),
    ],
)
def test_other_options_keep_the_connection(new: Backend) -> None:
    changes = diff(config(A), config(new))
    assert (changes.reconnect, changes.retuned) == ((), (new,))


def test_what_only_a_restart_applies_is_named() -> None:
    assert diff(config(), config(settings=Settings(server=Server(port=1)))).needs_restart == ("server",)
    assert diff(config(), config(state="/t")).needs_restart == ("state",)
    assert diff(config(), config(settings=Settings(jobs=Jobs(max_attempts=9)))).needs_restart == ()
