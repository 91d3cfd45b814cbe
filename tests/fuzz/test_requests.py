"""What a client sends, parser by parser: it is understood, or refused with one of our errors, never anything else."""

from __future__ import annotations

import atexit
import ipaddress
import json
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, cast

import msgspec
import trio
from hypothesis import example
from hypothesis import strategies as st
from werkzeug.exceptions import HTTPException

from bridged.actors.clients import Clients
from bridged.api import query
from bridged.api.access import Caller, Gate, scope_needed
from bridged.api.app import Services, create_app
from bridged.api.entrance import one_path
from bridged.api.hosts import host_and_port, is_local_name, same_origin
from bridged.api.hot import HotRequest, decode_object
from bridged.api.uploads import receive_files
from bridged.config.keys import key_hash
from bridged.config.schema import Access, ClientKey, Config, Limits, Settings
from bridged.errors import BadRequest, Forbidden, TooLarge, TooMany, Unauthorized
from bridged.files.spool import Spool
from bridged.model import own
from tests.files.pictures import picture
from tests.fuzz.mutation import damaged, pieces
from tests.fuzz.target import target

# -- multipart -------------------------------------------------------------------------------------------------------

FOLDER = tempfile.TemporaryDirectory()
atexit.register(FOLDER.cleanup)
SPOOL = Spool(Path(FOLDER.name) / "spool")
SPOOL.prepare(set())
FILES = Settings().files

PNG = picture(".png")
PART = b'--B\r\nContent-Disposition: form-data; name="%b"; filename="%b"\r\nContent-Type: image/png\r\n\r\n%b\r\n'
BODIES = [
    PART % (b"a", b"a.png", PNG) + b"--B--\r\n",
    PART % (b"a", b"a.png", PNG) + PART % (b"b", b"b.png", PNG) + b"--B--\r\n",
    b'--B\r\nContent-Disposition: form-data; name="text"\r\n\r\nvalue\r\n--B--\r\n',
    PART % (b"a", b"", b"") + b"--B--\r\n",
    b"preamble\r\n--B\r\ncontent-disposition: form-data; name=a; filename*=UTF-8''%E2%82%AC.png\r\n\r\n"
    + PNG
    + b"\r\n--B--\r\nepilogue",
]
WORDS = [
    b"--B",
    b"--B--",
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"--",
    b"-",
    b'"',
    b"\\",
    b";",
    b'filename="',
    b"*0*=",
    b"\0",
    b"%",
]
TYPES = [
    "multipart/form-data; boundary=B",
    'multipart/form-data; boundary="B"',
    "multipart/form-data",
    "multipart/form-data; boundary=",
    "multipart/mixed; boundary=B",
]


@target(
    st.sampled_from([*TYPES[:1] * 20, *TYPES]) | st.sampled_from(TYPES[:2]) | st.text(max_size=40),
    pieces(damaged(BODIES, WORDS) | st.binary(max_size=300)),
    st.sampled_from([200, 100_000]),
)
def test_any_multipart_body_is_stored_whole_or_refused_whole(kind: str, body: list[bytes], limit: int) -> None:
    async def chunks() -> AsyncGenerator[bytes, None]:
        for piece in body:
            yield piece

    async def receive() -> None:
        try:
            received = await receive_files(kind, chunks(), SPOOL, limit=limit, rules=FILES)
        except (BadRequest, TooLarge):
            stored = set()
        else:
            stored = {file.file.path for file in received}
            assert all(file.file.size <= limit for file in received)
            assert len(stored) == len(received) > 0
        assert {path for path in SPOOL.folder.rglob("*") if path.is_file()} == stored
        await SPOOL.discard(*(file.file for file in (received if stored else [])))

    trio.run(receive)


# -- who may come in -------------------------------------------------------------------------------------------------

KEY = "bk_a-key"
PEERS = ["127.0.0.1", "::1", "192.0.2.7", "10.1.2.3", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", ""]
HOSTS = [
    "localhost",
    "localhost:8000",
    "LOCALHOST.",
    "127.0.0.1",
    "127.0.0.1:1",
    "[::1]:80",
    "bridge.example",
    "evil.example",
    "a@localhost",
    "localhost@evil.example",
    "localhost.evil.example",
    "evil.localhost",
    "0x7f.1",
    "127.1",
    "[::ffff:7f00:1]",
    "localhost:99999",
    "x,y",
    "[::1",
    "]:",
    "127.0.0.1.nip.io",
]
VALUES = st.sampled_from([host.encode() for host in HOSTS]) | st.binary(max_size=20)
NAMES = [
    *[b"host", b"origin", b"authorization", b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"via"],
    *[b"x-real-ip", b"x-forwarded-proto", b"sec-fetch-site", b"sec-fetch-mode", b"other"],
]
HEADER = (
    st.tuples(st.sampled_from(NAMES), VALUES)
    | st.tuples(st.just(b"host"), VALUES)
    | st.tuples(st.just(b"origin"), VALUES.map(lambda host: b"http://" + host) | st.just(b"null"))
    | st.tuples(
        st.just(b"authorization"),
        st.sampled_from(
            [f"Bearer {KEY}".encode(), f"bearer  {KEY} ".encode(), b"Bearer wrong", b"Basic x", b"Bearer "]
        ),
    )
    | st.tuples(
        st.just(b"x-forwarded-for"),
        st.lists(st.sampled_from(PEERS) | st.text(max_size=8), max_size=4).map(
            lambda hops: ", ".join(hops).encode("utf-8", "replace")
        ),
    )
    | st.tuples(st.sampled_from([b"sec-fetch-site"]), st.sampled_from([b"cross-site", b"same-site", b"none"]))
)
ACCESS = st.sampled_from(
    [
        Access(),
        Access(allow_anonymous=True),
        Access(hosts=("bridge.example", "*.example.org:8443")),
        Access(trusted_proxies=("127.0.0.0/8", "10.0.0.0/8", "::1/128"), cors=("http://app.example",)),
    ]
)
CLIENT = ClientKey(name="anna", keys=(key_hash(KEY),), requests=1e9)


def config(access: Access, clients: tuple[ClientKey, ...] = ()) -> Config:
    settings = Settings(access=access, limits=Limits(requests_per_minute=1e9))
    return Config(Path(), settings, (), clients, (), Path(), Path(), Path())


@target(
    st.lists(HEADER, max_size=6)
    | st.lists(HEADER, max_size=2).map(lambda more: [(b"host", b"localhost"), *more])
    | st.lists(HEADER, max_size=2).map(lambda more: [(b"authorization", f"Bearer {KEY}".encode()), *more]),
    st.sampled_from([*PEERS[:1] * 4, *PEERS]),
    st.binary(max_size=20)
    | st.sampled_from([b"key=bk_a-key", b"key=&key=bk_a-key", b"%6bey=bk_a%2Dkey", b"key=%ff"]),
    ACCESS,
    st.booleans(),
    st.sampled_from(["http", "websocket"]),
    st.sampled_from(["1.1", "1.0"]),
)
@example([(b"host", b"localhost"), (b"origin", b"http://[")], "127.0.0.1", b"", Access(), False, "http", "1.1")
def test_whoever_comes_is_a_caller_or_refused(
    headers: list[tuple[bytes, bytes]], peer: str, text: bytes, access: Access, keyed: bool, kind: str, version: str
) -> None:
    gate = Gate(lambda: setting)
    setting = config(access, (CLIENT,) if keyed else ())
    scope = {
        **{"type": kind, "headers": headers, "path": "/status", "query_string": text, "method": "GET"},
        "http_version": version,
        "client": (peer, 1) if peer else None,
    }
    try:
        caller = gate.admit(scope)
    except (Unauthorized, Forbidden, TooMany, BadRequest) as error:
        str(error).encode()
        return
    assert isinstance(caller, Caller)
    given = [value for name, value in headers if name == b"authorization"]
    if keyed:
        assert caller.name == "anna"
        assert KEY.encode() in b"".join(given) or kind == "websocket"
    elif not access.allow_anonymous:
        named = [value for name, value in headers if name == b"host"]
        assert not {name for name, _ in headers} & set(NAMES[3:9])
        assert peer in ("127.0.0.1", "::1", "::ffff:127.0.0.1")
        assert len(named) == 1
        assert local(named[0].decode("latin-1")), named
    origins = [value for name, value in headers if name == b"origin"]
    assert all(origin.startswith(b"http") and len(origins) == 1 for origin in origins)


def local(host: str) -> bool:
    """Whether a browser would take that Host for this machine, read without the product's code."""
    name = host.lower().rpartition(":")[0] if not host.endswith("]") and ":" in host else host.lower()
    name = name.removesuffix(".")
    if name.startswith("["):
        address = ipaddress.IPv6Address(name[1:-1])
        return (address.ipv4_mapped or address).is_loopback
    try:
        return ipaddress.IPv4Address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


@target(st.sampled_from(HOSTS) | st.text(max_size=30), st.sampled_from(HOSTS) | st.text(max_size=30))
def test_hosts_and_origins_are_read_or_are_none(host: str, other: str) -> None:
    is_local_name(host)
    try:
        name, port = host_and_port(host)
    except ValueError:
        assert not same_origin(f"http://{host}", host)
        return
    assert 0 <= port < 65536
    assert host_and_port(f"[{name}]" if ":" in name else name)[0] == name
    assert same_origin(f"http://{host}", host)
    if same_origin(f"https://{other}", host):
        assert host_and_port(other)[0] == name


# -- paths, queries, bodies ------------------------------------------------------------------------------------------

URLS = create_app(Services(*[cast("Any", None)] * len(Services.__struct_fields__))).url_map.bind("localhost")


@target(
    st.text("/status:.%2Fhp@?#[]\\ \n", max_size=24)
    | st.lists(st.sampled_from(["/", "//", "status", "http:", "x:", "h", ".", "..", ";", "\t", "ws"])).map("".join)
)
@example("http://localhost/status")
@example("x:/status")
@example("//status")
def test_a_path_that_leads_to_the_status_asks_for_its_scope(path: str) -> None:
    meant = one_path(path)
    assert meant.startswith("/")
    assert one_path(meant) == meant
    try:
        endpoint, _ = URLS.match(meant, "GET")
    except HTTPException:
        return
    if endpoint == "admin.status":
        assert scope_needed(meant) == "admin"


@target(
    st.binary(max_size=60)
    | st.lists(
        st.tuples(
            st.sampled_from(["clientId", "wait", "resType", "jobId", "%77ait", "", "resume"]),
            st.text(max_size=12)
            | st.sampled_from(["nan", "inf", "-0", "1e3", "1_0", " 1", "%ff", "%00", "٣", "base64"]),
        )
    ).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs).encode("utf-8", "surrogatepass"))
)
def test_any_query_is_read_or_refused(text: bytes) -> None:
    request = HotRequest({"query_string": text, "headers": [(b"idempotency-key", text)]}, cast("Any", None))
    caller = Caller("", "127.0.0.1")
    for name, value in request.args.items():
        (name + value).encode()
    for read in (
        lambda: caller.client_id(request.args).encode(),
        lambda: query.result_kind(request.args),
        lambda: query.required(request.args, "workflow", "…"),
        lambda: query.idempotency_key(request.header(b"idempotency-key")),
        lambda: query.seconds(request.args, "wait", 1.0),
    ):
        try:
            found: object = read()
        except BadRequest as error:
            str(error).encode()
            continue
        if isinstance(found, float):
            assert 0 <= found <= query.MAX_WAIT


JSONS = [
    b'{"workflow": "pattern", "1/width": 16, "webhook": "https://a.example/", "6/text": "\\u00fc\\ud83d\\ude00"}',
    b'{"workflow": null, "webhook": [], "a": {"b": [1, 2.5e300, true, -0]}}',
    b"[]",
]
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.none() | st.booleans() | NUMBERS | st.text(max_size=9)
OBJECTS = st.dictionaries(
    st.sampled_from(["workflow", "webhook", "6/text", ""]) | st.text(max_size=6),
    PLAIN | st.lists(PLAIN, max_size=3) | st.dictionaries(st.text(max_size=3), PLAIN, max_size=2),
    max_size=4,
).map(lambda value: json.dumps(value).encode())


TOKENS_OF_JSON = [b"[", b"{", b'"', b"\\u", b"1e999", b"\xff", b"\\ud800", b"0" * 400, b"NaN"]


@target(damaged(JSONS, TOKENS_OF_JSON) | OBJECTS | st.binary())
@example(b"[" * 500_000)
@example(b'{"workflow":' + b'{"a":' * 200_000)
@example(b'{"workflow":"a","x":' + b"9" * 5000 + b"}")
@example(b'{"workflow":"\xed\xa0\x80"}')
def test_any_body_is_a_submission_or_refused(body: bytes) -> None:
    try:
        alias, values, webhook = query.submission(decode_object(body))
    except BadRequest as error:
        str(error).encode()
        return
    msgspec.json.encode([alias, values, webhook])
    assert alias == json.loads(body)["workflow"]


# -- tokens ----------------------------------------------------------------------------------------------------------


class NoLedger:
    def now(self) -> float:
        return 0.0


CLIENTS = Clients(cast("Any", None), cast("Any", NoLedger()), cast("Any", None), b"secret")
TOKENS = [CLIENTS.obtain(name).resume_token for name in ("c1", own("anna", "c1"), "ü" * 20)]


@target(
    damaged([token.encode() for token in TOKENS], [b".", b"=", b"-", b"_"]).map(
        lambda b: b.decode("utf-8", "replace")
    )
    | st.text(st.characters(exclude_categories=["Cs"]))  # a query's text has none
)
def test_any_resume_token_is_one_of_ours_or_refused(token: str) -> None:
    try:
        name = CLIENTS.resumed(token)
    except BadRequest:
        assert token not in TOKENS
        return
    assert token in TOKENS
    assert name in ("c1", own("anna", "c1"), "ü" * 20)
