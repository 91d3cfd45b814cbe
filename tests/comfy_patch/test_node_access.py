from __future__ import annotations

from pathlib import Path

import pytest

from comfy_patch.node.access import Token, is_owner

SECRET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ"


def headers(**more: str) -> dict[str, list[str]]:
    return {"host": ["127.0.0.1:8188"], "sec-fetch-site": ["same-origin"]} | {
        name.replace("_", "-"): [value] for name, value in more.items()
    }


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8188", "LOCALHOST:80", "127.0.0.1", "127.1.2.3:8188", "[::1]", "[::1]:8188"]
)
def test_the_owner_at_the_pc(peer: str, host: str) -> None:
    assert is_owner(peer, headers(host=host))


@pytest.mark.parametrize("peer", ["", "192.168.1.5", "::ffff:192.168.1.5", "fe80::1", "localhost", "127.0.0.1.evil"])
def test_another_machine_is_not_the_owner(peer: str) -> None:
    assert not is_owner(peer, headers())


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "127.0.0.1.evil.example", "127.1", "127.evil.example:80", "localhost.evil",
     "localhost:x", "localhost:80:1", "[::1", "[::1]x", "[::2]", "::1", "10.0.0.1", "[::1]:", "127.0.0.1:"],
)  # fmt: skip
def test_a_name_that_only_leads_here_is_not_the_owners(host: str) -> None:
    assert not is_owner("127.0.0.1", headers(host=host))


@pytest.mark.parametrize(
    "name", ["forwarded", "via", "x-real-ip", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-anything"]
)
def test_what_comes_through_a_proxy_is_not_the_owner(name: str) -> None:
    assert not is_owner("127.0.0.1", {**headers(), name: [""]})


@pytest.mark.parametrize(
    "site", [[], ["cross-site"], ["same-site"], ["none"], ["same-origin", "same-origin"], ["Same-Origin"]]
)
def test_a_page_of_another_site_is_not_the_owners(site: list[str]) -> None:
    assert not is_owner("127.0.0.1", {**headers(), "sec-fetch-site": site})


@pytest.mark.parametrize("origin", ["https://pc.example", "http://127.0.0.1:3000", "http://localhost:8188", "null", ""])
def test_the_page_of_a_proxy_that_does_not_say_so_is_not_the_owners(origin: str) -> None:
    assert is_owner("127.0.0.1", headers(origin="http://127.0.0.1:8188"))
    assert not is_owner("127.0.0.1", headers(origin=origin))


def test_two_hosts_are_none() -> None:
    assert not is_owner("127.0.0.1", {**headers(), "host": ["localhost", "localhost"]})


def test_the_token_is_read_at_each_use(tmp_path: Path) -> None:
    file = tmp_path / "token"
    token = Token(file, {})
    assert not token.is_in({"x-bridged-token": [""]})
    assert not token.is_in({"x-bridged-token": [SECRET]})
    file.write_text(SECRET + "\n")
    assert token.is_in({"x-bridged-token": [SECRET]})
    file.write_text("another")
    assert not token.is_in({"x-bridged-token": [SECRET]})


def test_the_environment_wins(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("in the file")
    token = Token(tmp_path / "token", {"BRIDGED_TOKEN": SECRET})
    assert token.is_in({"x-bridged-token": [SECRET]})
    assert not token.is_in({"x-bridged-token": ["in the file"]})


@pytest.mark.parametrize("given", [[], [SECRET, SECRET], [SECRET[:-1]], [SECRET + "x"], ["\udcff"], ["ü"]])
def test_anything_else_is_no_token(tmp_path: Path, given: list[str]) -> None:
    (tmp_path / "token").write_text(SECRET)
    assert not Token(tmp_path / "token", {}).is_in({"x-bridged-token": given})


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_a_file_without_a_token_lets_nobody_in(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    assert not Token(tmp_path / "token", {}).is_in({"x-bridged-token": [""]})
