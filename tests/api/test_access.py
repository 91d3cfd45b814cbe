"""Who is let in, by every header that says something about where a request comes from: no server, no clock."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bridged.api.access import Caller, Gate, check_start, scope_needed
from bridged.api.connections import network_of
from bridged.api.limits import MOST, Buckets
from bridged.config.schema import Access, ClientKey, Config, Limits, Server, Settings
from bridged.errors import BadRequest, BridgedError, Forbidden, TooMany, Unauthorized


def hashed(key: str) -> str:
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def config(*clients: ClientKey, host: str = "127.0.0.1", limits: Limits | None = None, **access: Any) -> Config:
    settings = Settings(server=Server(host=host), access=Access(**access), limits=limits or Limits())
    return Config(Path("/etc/b"), settings, (), clients, (), Path("/w"), Path("/s"), Path("/s/workflows"))


ANNA = ClientKey(name="anna", keys=(hashed("anna's"), hashed("anna's next")), aliases=("one",), max_jobs=3, weight=2.0)
OPERATOR = ClientKey(name="operator", keys=(hashed("operator's"),), scopes=("admin",))

Header = tuple[str, str]


def scope(
    *headers: Header,
    peer: str = "127.0.0.1",
    kind: str = "http",
    path: str = "/history",
    query: str = "",
    version: str = "1.1",
) -> Any:
    if not any(name == "host" for name, _ in headers):
        headers = (("host", "127.0.0.1:8000"), *headers)
    return {
        "type": kind,
        "method": "GET",
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
        "client": (peer, 40000),
        "http_version": version,
    }


def gate(*args: ClientKey, **more: Any) -> Gate:
    made = config(*args, **more)
    return Gate(lambda: made, lambda: 0.0)


def outcome(work: Callable[[], object]) -> str:
    try:
        work()
    except BridgedError as error:
        return type(error).__name__
    return "let in"


# -- without keys ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "peer", "expected"),
    [
        ((), "127.0.0.1", "let in"),
        ((), "127.8.9.1", "let in"),
        ((), "::1", "let in"),
        ((), "::ffff:127.0.0.1", "let in"),
        ((("host", "localhost"),), "127.0.0.1", "let in"),
        ((("host", "LocalHost:8000"),), "127.0.0.1", "let in"),
        ((("host", "[::1]:8000"),), "::1", "let in"),
        ((("host", "bridged.localhost"),), "127.0.0.1", "let in"),
        ((), "192.168.0.9", "Unauthorized"),
        ((), "::ffff:192.168.0.9", "Unauthorized"),
        ((("host", "bridged.example.org"),), "127.0.0.1", "Unauthorized"),
        ((("host", "127.0.0.1.example.org"),), "127.0.0.1", "Unauthorized"),
        ((("host", "localhost.example.org"),), "127.0.0.1", "Unauthorized"),
        ((("host", "127.0.0.1@example.org"),), "127.0.0.1", "Unauthorized"),
        ((("host", "192.168.0.2"),), "127.0.0.1", "Unauthorized"),
        ((("host", ""),), "127.0.0.1", "Unauthorized"),
        ((("x-forwarded-for", "203.0.113.9"),), "127.0.0.1", "Unauthorized"),
        ((("x-forwarded-for", "127.0.0.1"),), "127.0.0.1", "Unauthorized"),
        ((("x-real-ip", "127.0.0.1"),), "127.0.0.1", "Unauthorized"),
        ((("forwarded", "for=127.0.0.1"),), "127.0.0.1", "Unauthorized"),
        ((("via", "1.1 nginx"),), "127.0.0.1", "Unauthorized"),
        ((("x-forwarded-proto", "https"),), "127.0.0.1", "Unauthorized"),
        *(
            (((name, "127.0.0.1"),), "127.0.0.1", "Unauthorized")
            for name in (
                *("x-forwarded-host", "x-forwarded-server", "x_forwarded_for", "forwarded-for", "x-original-host"),
                *("x-client-ip", "x-cluster-client-ip", "true-client-ip", "cf-connecting-ip", "fly-client-ip"),
                *("x-envoy-external-address", "x-azure-clientip", "cdn-loop", "fastly-client-ip"),
            )
        ),
        ((("x-client-version", "3"),), "127.0.0.1", "let in"),
        ((("host", "loc\talhost"),), "127.0.0.1", "Unauthorized"),
    ],
)
def test_an_open_loopback_is_open_to_its_own_machine_alone(
    headers: tuple[Header, ...], peer: str, expected: str
) -> None:
    assert outcome(lambda: gate().admit(scope(*headers, peer=peer))) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.168.0.2:8000", "let in"),
        ("[2001:db8::1]", "let in"),
        ("localhost", "let in"),
        ("bridged.example.org", "let in"),
        ("BRIDGED.example.org.:443", "let in"),
        ("evil.example.com", "Forbidden"),
        ("xbridged.example.org", "Forbidden"),
        ("bridged.example.org/x", "Forbidden"),
        ("bad host", "Forbidden"),
    ],
)
def test_who_lets_everybody_in_still_goes_by_names_of_its_own(host: str, expected: str) -> None:
    """DNS rebinding: a page whose name was pointed at the service's address sends that name."""
    door = gate(allow_anonymous=True, hosts=("bridged.example.org",))
    assert outcome(lambda: door.admit(scope(("host", host), peer="192.168.0.9"))) == expected


def test_a_proxy_that_adds_nothing_gives_itself_away_by_its_version() -> None:
    """nginx's `proxy_pass` alone: HTTP/1.0, its own Host, no header more."""
    assert outcome(lambda: gate().admit(scope(version="1.0"))) == "Unauthorized"
    assert outcome(lambda: gate(allow_anonymous=True).admit(scope(version="1.0"))) == "let in"


# -- with keys -------------------------------------------------------------------------------------------------------


def test_a_key_says_who_calls_and_what_it_may() -> None:
    caller = gate(ANNA, OPERATOR).admit(scope(("authorization", "Bearer anna's")))
    assert (caller.name, set(caller.scopes), caller.max_jobs, caller.weight) == ("anna", {"submit"}, 3, 2.0)
    assert caller.may_run("one")
    assert not caller.may_run("two")
    assert gate(ANNA).admit(scope(("authorization", "bearer  anna's next"))).name == "anna"
    with pytest.raises(Forbidden):
        caller.need("admin")
    with pytest.raises(Forbidden):
        caller.need_alias("two")


@pytest.mark.parametrize(
    ("headers", "peer"),
    [
        ((), "127.0.0.1"),
        ((("authorization", "Bearer wrong"),), "127.0.0.1"),
        ((("authorization", "Bearer "),), "127.0.0.1"),
        ((("authorization", "Basic anna's"),), "127.0.0.1"),
        ((("authorization", "anna's"),), "127.0.0.1"),
        ((("authorization", f"Bearer {hashed(chr(97))}"),), "127.0.0.1"),
        ((("authorization", "Bearer anna's"), ("authorization", "Bearer anna's")), "127.0.0.1"),
        ((("authorization", "Bearer \xff\xfe"),), "127.0.0.1"),
    ],
)
def test_once_there_is_a_key_everybody_needs_one(headers: tuple[Header, ...], peer: str) -> None:
    with pytest.raises(Unauthorized):
        gate(ANNA).admit(scope(*headers, peer=peer))


def test_a_wrong_key_learns_nothing_of_those_that_exist() -> None:
    texts = set()
    for key in ("anna", "operator", "nobody", "anna's "[:-2], ANNA.keys[0], ""):
        with pytest.raises(Unauthorized) as refused:
            gate(ANNA, OPERATOR).admit(scope(("authorization", f"Bearer {key}")))
        texts.add(str(refused.value))
    assert texts == {"this API key is not valid"}


def test_a_key_in_the_address_is_for_websockets_alone() -> None:
    assert gate(ANNA).admit(scope(kind="websocket", query="clientId=x&key=anna%27s")).name == "anna"
    with pytest.raises(Unauthorized):
        gate(ANNA).admit(scope(kind="websocket", query="key=wrong"))
    with pytest.raises(BadRequest, match="Authorization"):
        gate(ANNA).admit(scope(query="key=anna%27s"))


def test_a_proxys_own_login_does_not_hide_a_websockets_key() -> None:
    basic = ("authorization", "Basic eDp5")
    assert gate(ANNA).admit(scope(basic, kind="websocket", query="key=anna%27s")).name == "anna"
    with pytest.raises(Unauthorized):
        gate(ANNA).admit(scope(("authorization", "Bearer wrong"), kind="websocket", query="key=anna%27s"))


def test_a_key_that_was_withdrawn_meanwhile_submits_nothing() -> None:
    current = [config(ANNA)]
    door = Gate(lambda: current[0], lambda: 0.0)
    caller = door.admit(scope(("authorization", "Bearer anna's")))
    door.submitting(caller, "one")
    current[0] = config(OPERATOR)
    with pytest.raises(Unauthorized):
        door.submitting(caller, "one")
    with pytest.raises(Unauthorized), door.visit(caller):
        pass
    with pytest.raises(Unauthorized):
        door.submitting(Caller("", "127.0.0.1"), "one")  # let in before there was a key


def test_with_keys_the_list_of_names_holds_where_there_is_one() -> None:
    key = ("authorization", "Bearer anna's")
    assert outcome(lambda: gate(ANNA).admit(scope(("host", "any.example.com"), key))) == "let in"
    strict = gate(ANNA, hosts=("b.example.org:8443",))
    assert outcome(lambda: strict.admit(scope(("host", "any.example.com"), key))) == "Forbidden"
    assert outcome(lambda: strict.admit(scope(("host", "b.example.org:8443"), key))) == "let in"
    assert outcome(lambda: strict.admit(scope(("host", "b.example.org"), key))) == "Forbidden"


def test_clients_of_two_keys_never_share_a_client_id() -> None:
    args = {"clientId": "same"}
    ids = {Caller(name, "1.2.3.4").client_id(args) for name in ("", "anna", "operator")}
    assert len(ids) == 3
    with pytest.raises(BadRequest):
        Caller("", "1.2.3.4").client_id({"clientId": "anna\x1fsame"})


# -- pages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ((("origin", "http://127.0.0.1:8000"),), "let in"),
        ((("origin", "https://app.example.org"),), "let in"),
        ((("origin", "http://127.0.0.1:3000"),), "Forbidden"),
        ((("origin", "http://127.0.0.1"),), "Forbidden"),
        ((("origin", "https://evil.example.com"),), "Forbidden"),
        ((("origin", "https://app.example.org.evil.com"),), "Forbidden"),
        ((("origin", "http://app.example.org"),), "Forbidden"),
        ((("origin", "null"),), "Forbidden"),
        ((("origin", ""),), "Forbidden"),
        ((("origin", "https://app.example.org"), ("origin", "https://evil.example.com")), "Forbidden"),
        ((("sec-fetch-site", "cross-site"),), "Forbidden"),
        ((("sec-fetch-site", "same-site"), ("sec-fetch-mode", "no-cors")), "Forbidden"),
        ((("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")), "Forbidden"),
        ((("sec-fetch-site", "same-origin"),), "let in"),
        ((("sec-fetch-site", "none"),), "let in"),
    ],
)
def test_a_page_may_call_where_its_origin_is_ours_or_listed(headers: tuple[Header, ...], expected: str) -> None:
    door = gate(cors=("https://app.example.org",))
    assert outcome(lambda: door.admit(scope(*headers))) == expected
    assert outcome(lambda: door.admit(scope(*headers, kind="websocket", path="/ws"))) == expected


def test_a_link_to_the_greeting_works() -> None:
    headers = (("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"))
    assert outcome(lambda: gate().admit(scope(*headers, path="/"))) == "let in"


def test_behind_a_proxy_that_speaks_tls_its_own_pages_may_call() -> None:
    key = ("authorization", "Bearer anna's")
    headers = (("host", "b.example.org"), ("origin", "https://b.example.org"), key)
    assert outcome(lambda: gate(ANNA).admit(scope(*headers))) == "let in"


# -- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["6.6.6.6, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["6.6.6.6, 203.0.113.9, 10.0.0.2"], "203.0.113.9"),
        ("10.0.0.1", ["6.6.6.6", "203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["203.0.113.9:5000"], "203.0.113.9"),
        ("10.0.0.1", ["[2001:db8::7]:5000"], "2001:db8::7"),
        ("10.0.0.1", ["6.6.6.6, unknown"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("192.168.0.9", ["203.0.113.9"], "192.168.0.9"),
    ],
)
def test_the_clients_own_address_is_the_last_one_a_trusted_proxy_saw(
    peer: str, forwarded: list[str], expected: str
) -> None:
    door = gate(ANNA, trusted_proxies=("10.0.0.0/8",))
    headers = [("x-forwarded-for", value) for value in forwarded]
    caller = door.admit(scope(("authorization", "Bearer anna's"), *headers, peer=peer))
    assert caller.address == expected


def test_one_subscriber_of_ipv6_is_one_address() -> None:
    assert network_of("2001:db8:1:2:3::4") == network_of("2001:db8:1:2::9")
    assert network_of("2001:db8:1:2:3::4") != network_of("2001:db8:1:3::4")
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1") != network_of("192.0.2.2")


@pytest.mark.parametrize(
    ("host", "open_"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("::", False), ("10.0.0.2", False)],
)
def test_serving_others_without_keys_is_refused_with_the_remedy(host: str, open_: bool) -> None:
    assert (check_start(config(host=host)) is None) == open_
    assert check_start(config(ANNA, host=host)) is None
    assert check_start(config(host=host, allow_anonymous=True)) is None
    if not open_:
        assert "bridged key new" in (check_start(config(host=host)) or "")


# -- limits ----------------------------------------------------------------------------------------------------------


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    now = 0.0
    buckets = Buckets(lambda: now)
    for _ in range(3):
        buckets.take("a", 60, 3, "requests")
    with pytest.raises(TooMany, match="at most 60 a minute; try again in 1 s") as refused:
        buckets.take("a", 60, 3, "requests")
    assert refused.value.retry_after == 1
    buckets.take("b", 60, 3, "requests")
    now = 0.9
    with pytest.raises(TooMany):
        buckets.take("a", 60, 3, "requests")
    now = 1.0
    buckets.take("a", 60, 3, "requests")
    now = 1e6
    for _ in range(3):
        buckets.take("a", 60, 3, "requests")
    with pytest.raises(TooMany):
        buckets.take("a", 60, 3, "requests")


def test_buckets_are_bounded() -> None:
    buckets = Buckets(lambda: 0.0)
    for number in range(MOST + 10):
        buckets.take(str(number), 1, 1, "requests")
    assert len(buckets._levels) == MOST
    buckets.take("unlimited", 0, 1, "requests")


def test_a_keys_limits_are_its_own_and_an_addresss_are_for_those_without() -> None:
    one = ClientKey(name="one", keys=(hashed("1"),), rate=1, burst=1, requests=60)
    door = gate(one, ANNA, limits=Limits(requests_per_minute=1, submissions_per_minute=1))
    caller = door.admit(scope(("authorization", "Bearer 1")))
    door.submitting(caller, "any")
    with pytest.raises(TooMany):
        door.submitting(caller, "any")
    other = door.admit(scope(("authorization", "Bearer anna's")))
    for _ in range(50):
        door.submitting(other, "one")  # its key has no limit, though it has the same address
    for _ in range(9):
        door.admit(scope(("authorization", "Bearer 1")))
    with pytest.raises(TooMany):
        door.admit(scope(("authorization", "Bearer 1")))

    anonymous = gate(limits=Limits(requests_per_minute=60))
    for _ in range(10):
        anonymous.admit(scope())
    with pytest.raises(TooMany):
        anonymous.admit(scope())
    assert outcome(lambda: anonymous.admit(scope(peer="127.0.0.2"))) == "let in"


def test_a_withdrawn_key_ends_its_websockets_and_no_others() -> None:
    current = [config(ANNA, OPERATOR)]
    door = Gate(lambda: current[0])
    ended: list[str] = []
    first = door.admit(scope(("authorization", "Bearer anna's")))
    second = door.admit(scope(("authorization", "Bearer anna's next")))
    third = door.admit(scope(("authorization", "Bearer operator's")))
    with door.visit(first) as a, door.visit(second) as b, door.visit(third) as c:
        for visit, name in ((a, "a"), (b, "b"), (c, "c")):
            visit.on_withdrawn(partial(ended.append, name))
        door.end_withdrawn()
        assert ended == []
        current[0] = config(ClientKey(name="anna", keys=(hashed("anna's next"),)), OPERATOR)
        door.end_withdrawn()
        assert ended == ["a"]
        current[0] = config(OPERATOR)
        door.end_withdrawn()
        assert sorted(ended) == ["a", "a", "b"]


def test_an_address_has_a_limited_number_of_websockets() -> None:
    door = gate(limits=Limits(sessions_per_address=1))
    caller = door.admit(scope())
    with door.visit(caller):
        with pytest.raises(TooMany), door.visit(caller):
            pass
        with door.visit(door.admit(scope(peer="127.0.0.2"))):
            pass
    with door.visit(caller):
        pass


def test_what_is_an_operators_matter() -> None:
    needed = {path: scope_needed(path) for path in ("/", "/openapi.json", "/status", "/admin/x", "/ws", "/run", "/new")}
    assert needed == {
        **{"/": "", "/openapi.json": "", "/status": "admin", "/admin/x": "admin"},
        **{"/ws": "submit", "/run": "submit", "/new": "submit"},
    }
