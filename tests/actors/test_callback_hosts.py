"""Where a webhook may lead: no DNS, no sockets, one plain call after another."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.actors.callback_hosts import MAX_URL, Target, check, checked, parse, permitted
from bridged.config.hosts import host_or_network, host_rule
from bridged.config.schema import Webhooks
from bridged.errors import BadInput


def allowing(*hosts: str, private: tuple[str, ...] = ()) -> Webhooks:
    return Webhooks(hosts=hosts, private=private)


def refusal(url: str, settings: Webhooks) -> str:
    with pytest.raises(BadInput) as refused:
        check(parse(url), settings)
    return str(refused.value)


# -- URLs ------------------------------------------------------------------------------------------------------------


def test_a_url_in_parts() -> None:
    assert parse("https://Example.ORG./a%20b?x=1") == Target("https", "example.org", 443, "/a%20b?x=1")
    assert parse("HTTP://example.org:8080?x") == Target("http", "example.org", 8080, "/?x")
    assert parse("http://[0:0::1]:81/") == Target("http", "::1", 81, "/")


def test_the_host_header_is_the_names() -> None:
    assert parse("https://example.org:443/").host_header == "example.org"
    assert parse("https://example.org:80/").host_header == "example.org:80"
    assert parse("http://[::1]:81/").host_header == "[::1]:81"


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("ftp://example.org/", "must start with https://"),
        ("//example.org/", "must start with https://"),
        ("example.org", "must start with https://"),
        ("http:/example.org", "must start with https://"),
        ("https://user:pass@example.org/", "no user name"),
        ("https://@example.org/", "no user name"),
        ("https://example.org/#top", "no fragment"),
        ("https://example.org#", "no fragment"),
        (f"https://example.org/{'x' * MAX_URL}", "at most 2048"),
        ("https://example.org/a b", "no spaces"),
        ("https://example.org/\t", "no spaces"),
        ("https://example.org\\@127.0.0.1/", "no \\"),
        ("https://bücher.example/", "printable ASCII"),
        ("https:///path", "is no host"),
        ("https://example.org:0/", "no port 0"),
        ("https://example.org:65536/", "no port 65536"),
        ("https://example.org:x/", "cannot be read"),
        ("https://[::1/", "cannot be read"),
        ("https://[::1]x/", "cannot be read"),
        ("https://127.1/", "is no host"),
        ("https://2130706433/", "is no host"),
        ("https://0x7f000001/", "is no host"),
        ("https://0177.0.0.1/", "is no host"),
        ("https://exa%6dple.org/", "is no host"),
        ("https://example..org/", "is no host"),
        ("https://-example.org/", "is no host"),
    ],
)
def test_a_url_that_cannot_be_one_is_refused_with_what_is_wrong(url: str, what: str) -> None:
    message = refusal(url, allowing("example.org", "127.0.0.1"))
    assert what in message
    assert message.startswith("webhook: ")


@given(st.text(alphabet="ahtps:/@?#[]%.0127\\\t xX-_é", max_size=40), st.sampled_from(["http://", "https://", ""]))
def test_what_is_taken_means_the_same_host_to_everybody(rest: str, scheme: str) -> None:
    try:
        target = parse(scheme + rest)
    except BadInput:
        return
    assert (urlsplit(scheme + rest).hostname or "").removesuffix(".") in (target.host, f"[{target.host}]") or (
        ipaddress.ip_address(urlsplit(scheme + rest).hostname or "") == ipaddress.ip_address(target.host)
    )
    sent = httpx.URL(scheme=target.scheme, host="192.0.2.1", port=target.port, raw_path=target.path.encode())
    assert sent.host == "192.0.2.1"


# -- allowed hosts ---------------------------------------------------------------------------------------------------


def test_with_no_hosts_there_are_no_webhooks_and_the_error_says_what_to_configure() -> None:
    assert "[webhooks] hosts" in refusal("https://example.org/", allowing())


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("example.org", "https://example.org/x"),
        ("Example.org.", "https://eXample.org./x"),
        ("example.org", "http://example.org:8080/"),
        ("example.org:8443", "https://example.org:8443/"),
        ("example.org:443", "https://example.org/"),
        ("*.example.org", "https://a.example.org/"),
        ("*.example.org", "https://a.b.example.org/"),
        ("*.example.org:8443", "https://a.example.org:8443/"),
        ("192.88.98.1", "https://192.88.98.1/"),
        ("2606:4700:0::1", "https://[2606:4700::1]/"),
        ("[2606:4700::1]:8443", "https://[2606:4700::1]:8443/"),
    ],
)
def test_hosts_that_are_listed_are_allowed(entry: str, url: str) -> None:
    check(parse(url), allowing("other.example", entry))


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("example.org", "https://example.org.evil.example/"),
        ("example.org", "https://a.example.org/"),
        ("example.org:8443", "https://example.org/"),
        ("*.example.org", "https://example.org/"),
        ("*.example.org", "https://evilexample.org/"),
        ("*.example.org:8443", "https://a.example.org:8444/"),
    ],
)
def test_others_are_not(entry: str, url: str) -> None:
    assert "is not allowed" in refusal(url, allowing(entry))


@pytest.mark.parametrize(
    "entry",
    ["", "*", "*.*", "a b", "http://x", "x/y", "x:", "x:0", "x:99999", "*.1.2.3.4", "[::1", "1.2.3", "ö.example"],
)
def test_entries_that_are_no_host(entry: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        host_rule(entry)


@pytest.mark.parametrize("entry", ["10.0.0.1/8", "10.0.0.0/33", "x:80", "", "a/b"])
def test_entries_that_are_no_private_host_or_network(entry: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        host_or_network(entry)


# -- addresses -------------------------------------------------------------------------------------------------------

PUBLIC = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
NOT_PUBLIC = [
    *("127.0.0.1", "127.255.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
    *("198.18.0.1", "192.0.2.1", "240.0.0.1"),
    *("::1", "fe80::1", "fc00::1", "fd12::1", "fec0::1", "2001:db8::1", "3fff::1", "2001::1", "100::1", "4000::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "::10.0.0.1"),
    *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:c0a8:101::1"),
]
NEVER = ["0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "ff02::1", "ff0e::1", "::ffff:0.0.0.0", "fe80::1%eth0"]
SOMEONE = parse("https://hooks.example.org/")


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_permitted(address: str) -> None:
    assert permitted(ipaddress.ip_address(address), SOMEONE, allowing())


@pytest.mark.parametrize("address", NOT_PUBLIC + NEVER)
def test_no_other_address_is(address: str) -> None:
    assert not permitted(ipaddress.ip_address(address), SOMEONE, allowing())


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_a_host_listed_as_private_may_be_there(address: str) -> None:
    assert permitted(ipaddress.ip_address(address), SOMEONE, allowing(private=("hooks.example.org",)))
    assert not permitted(ipaddress.ip_address(address), SOMEONE, allowing(private=("other.example.org",)))


@pytest.mark.parametrize("address", NEVER)
def test_what_is_no_one_machines_is_never_permitted(address: str) -> None:
    settings = allowing(private=("hooks.example.org", "0.0.0.0/0", "::/0"))
    assert not permitted(ipaddress.ip_address(address), SOMEONE, settings)


@pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::a01:203", "2002:a01:203::1"])
def test_a_private_network_may_be_listed_however_its_addresses_are_wrapped(address: str) -> None:
    assert permitted(ipaddress.ip_address(address), SOMEONE, allowing(private=("10.0.0.0/8",)))
    assert not permitted(ipaddress.ip_address(address), SOMEONE, allowing(private=("10.2.0.0/16", "::/0")))


def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    public = ["8.8.8.8", "2606:4700::1", "8.8.8.8"]
    assert [str(found) for found in checked(SOMEONE, public, allowing())] == ["8.8.8.8", "2606:4700::1"]
    with pytest.raises(BadInput, match=r"is at 10\.0\.0\.1"):
        checked(SOMEONE, [*public, "10.0.0.1"], allowing())
    with pytest.raises(BadInput, match="has no address"):
        checked(SOMEONE, [], allowing())


def test_an_address_in_the_url_is_judged_at_once() -> None:
    assert "not a public address" in refusal("http://127.0.0.1:80/", allowing("127.0.0.1"))
    assert "not a public address" in refusal("http://[::ffff:127.0.0.1]/", allowing("::ffff:7f00:1"))
    check(parse("http://127.0.0.1:80/"), allowing("127.0.0.1", private=("127.0.0.0/8",)))
