"""What an operator writes, what `bridged key` edits, and the addresses that webhooks name."""

from __future__ import annotations

import atexit
import tempfile
from pathlib import Path

from hypothesis import example
from hypothesis import strategies as st

from bridged.actors.callback_hosts import check, checked, parse
from bridged.config import keys
from bridged.config.load import load, read_clients
from bridged.config.schema import ClientKey, Webhooks
from bridged.errors import BadInput, ConfigError
from tests.fuzz.mutation import damaged
from tests.fuzz.target import target

FOLDER = tempfile.TemporaryDirectory()
atexit.register(FOLDER.cleanup)
ETC = Path(FOLDER.name) / "etc"
ETC.mkdir()
(ETC.parent / "workflows").mkdir()

SHIPPED = Path(__file__).resolve().parents[2] / "etc"
HASH = keys.key_hash("a key")
SETTINGS = [
    *[(SHIPPED / name).read_bytes() for name in ("bridged.toml", "backends.toml", "clients.toml")],
    b'[server]\nhost = "127.0.0.1"\nport = 8000\n[access]\nhosts = ["a.example"]\ntrusted_proxies = ["10.0.0.0/8"]\n',
    b'[files]\nallowed = { "image/png" = [".png"] }\nclamd = "unix:/x"\n[jobs]\non_disconnect = { grace = 5 }\n',
    b'[[backend]]\nname = "pc-1"\nurl = "http://192.168.0.20:8188"\nheaders = { Authorization = "Bearer x" }\n',
    f'[[client]]\nname = "anna"\nkeys = ["{HASH}"]\nscopes = ["submit"]\naliases = ["a"]\nrate = 1.5\n'.encode(),
]
ALIASES = [
    (SHIPPED / "workflow_alias.json").read_bytes(),
    b'[{"alias": "a", "fn": "a.json", "description": "d", "thumbnail": null, "on_disconnect": {"grace": 3}}]',
    b'[{"alias": "a", "fn": "../a.json"}, {"alias": "a", "fn": "a\\u0000.json"}]',
]
WORDS = [
    *[b"\n", b'"', b"'''", b"=", b"[", b"[[", b"]", b"{", b".", b"inf", b"nan", b"-1", b"1e999", b"0x", b"9" * 400],
    *[b"1979-05-27T07:32:00Z", b"true", b"\xff", b"\\u0000", b"\\ud800", b"[server]\n", b"~", b"\0", b"\xef\xbb\xbf"],
]


@target(
    st.sampled_from(["bridged.toml", "backends.toml", "clients.toml", "workflow_alias.json"]),
    damaged(SETTINGS + ALIASES, WORDS) | st.binary(max_size=60),
)
@example("workflow_alias.json", b"[" * 100_000)
@example("bridged.toml", b"a = " + b"[" * 100_000)
@example("bridged.toml", b"a." * 2_000 + b"a = 1")
@example("bridged.toml", b'[access]\nhosts = ["' + b"." * 300 + b'"]')
def test_any_configuration_is_read_or_refused(name: str, content: bytes) -> None:
    for other in ETC.iterdir():
        other.unlink()
    (ETC / name).write_bytes(content)
    try:
        config, problems = load(ETC, {})
    except ConfigError as error:
        said = str(error)
        assert name in said
        return
    assert all(name in problem for problem in problems)
    _, again = load(ETC, {}, config)
    assert again == problems


NEW = ClientKey(name="newcomer", keys=(keys.key_hash("another key"),))
CLIENTS = [
    SETTINGS[-1],
    f"# both\nclient = [ {{ name = 'anna', keys = ['{HASH}'] }}, ]\n".encode(),
    f'[[client]]\r\nname = "anna" # her\r\nkeys = [\r\n  "{HASH}", # one\r\n]\r\n\r\n# ben\r\n[[client]]\r\n'
    f'name = "ben"\r\nkeys = ["{keys.key_hash("b")}"]\r\n'.encode(),
]


@target(damaged(CLIENTS, WORDS, most=3), st.sampled_from(["add", "keep", "replace", "revoke", "one"]), examples=150)
def test_any_list_of_keys_is_edited_or_left_as_it_is(content: bytes, how: str) -> None:
    for other in ETC.iterdir():
        other.unlink()
    file = ETC / "clients.toml"
    file.write_bytes(content)
    try:
        before = read_clients(ETC)
    except ConfigError:
        before = None
    try:
        if how == "add":
            after = keys.add_client(ETC, NEW)
        elif how == "revoke":
            after = keys.revoke(ETC, "anna")
        elif how == "one":
            after = keys.revoke(ETC, "anna", HASH[:12])
        else:
            after = keys.renew(ETC, "anna", NEW.keys[0], keep=how == "keep")
    except (ConfigError, BadInput):
        assert file.read_bytes() == content
        return
    assert before is not None
    assert read_clients(ETC) == after != before
    kept = {client.name for client in before} - ({"anna"} if how == "revoke" else set())
    assert {client.name for client in after} == kept | ({NEW.name} if how == "add" else set())
    assert list(ETC.iterdir()) == [file]


# -- webhooks --------------------------------------------------------------------------------------------------------

URLS = [
    *[b"https://hooks.example.org/a?b=c", b"http://[2001:db8::1]:8080/", b"https://a.hooks.example.org.:443"],
    *[b"http://127.0.0.1/", b"https://user:pass@hooks.example.org/", b"http://[::ffff:10.0.0.1]/", b"http://0x7f.1/"],
]
PLACES = [
    "8.8.8.8",
    "127.0.0.1",
    "::1",
    "fe80::1%eth0",
    "64:ff9b::a00:1",
    "2002:7f00:1::",
    "::ffff:10.0.0.1",
    "x",
    "",
]
ALLOWED = Webhooks(hosts=("hooks.example.org", "*.hooks.example.org", "127.0.0.1"), private=("10.0.0.0/8",))


@target(
    damaged(URLS + URLS[:1] * 8, [b"@", b"#", b"\\", b"//", b":", b"[", b"]", b"%00", b"hooks.example.org", b"\t"]),
    st.lists(
        st.sampled_from([*["8.8.8.8", "10.0.0.1"] * 4, *PLACES]) | st.ip_addresses().map(str) | st.text(max_size=9),
        max_size=3,
    ),
)
def test_any_webhook_leads_to_an_allowed_host_at_public_addresses_or_is_refused(
    url: bytes, places: list[str]
) -> None:
    text = url.decode("utf-8", "replace")
    try:
        goal = parse(text)
        check(goal, ALLOWED)
        addresses = checked(goal, places, ALLOWED)
    except BadInput as error:
        str(error).encode()
        return
    assert goal.host == "hooks.example.org" or goal.host.endswith(".hooks.example.org")
    assert addresses
    for address in addresses:
        packed = address.packed
        nested = [packed[-4:], packed[2:6]] if len(packed) == 16 else [packed]  # mapped, NAT64; 6to4
        assert address.is_global or any(four[0] == 10 for four in nested), address
    assert goal.path.startswith("/")
    assert not set(goal.path) & set("\r\n \t\\#")
