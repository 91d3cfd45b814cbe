"""The one way in: a path means the same to whoever looks at it."""

from __future__ import annotations

import pytest
import trio

from bridged.api.entrance import one_path
from tests.e2e.house import House

OTHER_WRITINGS = [
    "//status",
    "///status",
    "http://localhost/status",
    "HTTPS://a.b:1//status",
    "x+y://@/status",
    "/%2Fstatus",
]


@pytest.mark.parametrize(
    "path", ["/status", "//status", "http://localhost/status", "HTTP://[::1]:80//status", "x://status/status"]
)
def test_paths_that_are_one(path: str) -> None:
    assert one_path(path) == "/status"


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("", "/"),
        ("/", "/"),
        ("*", "/*"),
        ("http://localhost", "/"),
        ("http:/status", "/http:/status"),
        ("localhost:80", "/localhost:80"),
        ("/status/", "/status/"),
        ("/jobs//a//b", "/jobs/a/b"),
        ("/a\nb", "/a\nb"),
        ("http://h/a\n//b", "/a\n/b"),
    ],
)
def test_paths_that_are_others(path: str, meant: str) -> None:
    assert one_path(path) == meant


@pytest.mark.parametrize("path", ["/status", *OTHER_WRITINGS])
async def test_a_scope_is_asked_for_however_the_path_is_written(house: House, path: str) -> None:
    """hypercorn, Quart and werkzeug each read the target in their own way: a submit key got `//status` (found so)."""
    house.write_backends()
    house.write_clients("anna")
    await house.start()
    for key, status in (("key-of-anna", 403), ("key-of-tester", 200)):
        assert await answered(house, path, key) == status


@pytest.mark.parametrize("path", ["//generation-count", "http://x/generation-count", "//history?clientId=a"])
async def test_hot_endpoints_and_others_are_found_alike(house: House, path: str) -> None:
    house.write_backends()
    await house.start()
    assert await answered(house, path) in (200, 204)


async def answered(house: House, target: str, key: str = "") -> int:
    """The status of an answer to a request for exactly this target: client libraries would make it a nicer one."""
    host, port = house.url.removeprefix("http://").rsplit(":", 1)
    login = f"Authorization: Bearer {key}\r\n" if key else ""
    with trio.fail_after(5):
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(
                f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{login}Connection: close\r\n\r\n".encode()
            )
            answer = b""
            while chunk := await stream.receive_some():
                answer += chunk
    return int(answer.split(b" ", 2)[1])
