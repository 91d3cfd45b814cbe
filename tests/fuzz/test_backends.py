"""What a hostile PC may say, wire and all: an event, an answer, or a backend that cannot be used; nothing else.

What `comfy.protocol` makes of frames, histories and queues is held by tests/comfy/test_protocol.py.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import ssl
import struct

import trio
import trio.testing
from hypothesis import strategies as st

from bridged.comfy import protocol
from bridged.comfy.client import ComfyClient
from bridged.comfy.eventsocket import EventSocket
from bridged.comfy.hotpath import HotPath, _Connection
from bridged.errors import AttemptFailed, BackendUnavailable
from bridged.nodedefs.parse import parse_classes
from tests.fuzz.mutation import damaged, pieces
from tests.fuzz.target import target

TLS = ssl.create_default_context()
DEEP = b"[" * 100_000

# -- answers to the two requests of the hot path ---------------------------------------------------------------------

ANSWERS = [
    b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{"number": 1}',
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
    b"HTTP/1.0 400 Bad Request\r\n\r\nno length",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\nContent-Length: 0\r\n\r\n",
]
LINES = [
    *[
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\r",
        b"HTTP/1.1 200 OK\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: -1\r\n",
    ],
    *[b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b"Connection: Upgrade\r\nUpgrade: x\r\n"],
    *[
        b"0\r\n\r\n",
        b"ffffffffffffffff\r\n",
        b": ",
        b"X: y\r\n",
        b"\0",
        b" folded\r\n",
        b"HTTP/1.1 101 X\r\n",
        b"HTTP/2.0",
    ],
]


@target(pieces(damaged(ANSWERS, LINES) | st.binary(max_size=120)), st.booleans())
def test_any_answer_on_the_hot_path_is_one_or_a_backend_that_cannot_be_used(answer: list[bytes], get: bool) -> None:
    async def ask() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            for piece in answer:
                theirs.sendall(piece)
            theirs.shutdown(socket.SHUT_WR)
            hot = HotPath("http://pc.example:8188", {}, TLS, timeout=2)
            wrapped = trio.SocketStream.__new__(trio.SocketStream)  # it wants TCP, to set options of it
            wrapped.socket = trio.socket.from_stdlib_socket(ours)
            connection = _Connection(wrapped, None)

            async def connect() -> _Connection:
                return connection

            hot.connect = connect  # type: ignore[method-assign]
            try:
                if get:
                    async with hot.get("/view?filename=a.png") as (response, chunks):
                        body = b"".join([chunk async for chunk in chunks])
                    status = response.status
                else:
                    status, body = await hot.post_json("/prompt", b"{}")
            except BackendUnavailable:
                return
            finally:
                await hot.aclose()
                connection.close()
            assert 200 <= status <= 999
            whole = b"".join(answer)
            assert str(status).encode() in whole
            assert len(body) <= len(whole)

    trio.run(ask)


PROMPTS = [
    b'{"prompt_id": "a", "node_errors": {"3": {"errors": [{"type": "x", "message": "m", "details": 1}]}}}',
    b'{"error": {"type": "prompt_no_outputs", "message": "m", "details": "d", "extra_info": {}}, "node_errors": []}',
    b'{"error": "t", "node_errors": {"3": {"class_type": "A", "errors": [{"type": "value_not_in_list"}], "x": null}}}',
    b'{"name": "a.png", "subfolder": "bridged", "type": "input"}',
]
TOKENS = [b"null", b"[]", b"{}", b'"', b"[", b"{", b"1e999", b"\xff", b"\\ud800", b"0" * 300, b"true", b"-1", DEEP]


@target(st.sampled_from([200, 400, 401, 500, 302, 599]), damaged(PROMPTS, TOKENS) | st.binary(max_size=60))
def test_any_answer_to_a_prompt_queues_it_or_says_whose_fault_it_is(status: int, body: bytes) -> None:
    async def ask() -> None:
        client = ComfyClient("http://pc.example:8188", {}, "us", TLS)

        async def post_json(path: str, body_: bytes) -> tuple[int, bytes]:
            return status, body

        client._hot.post_json = post_json  # type: ignore[assignment,method-assign]
        try:
            answer = await client.post_prompt("p", {})
        except (AttemptFailed, BackendUnavailable) as error:
            client.without_address(str(error))
            return
        finally:
            await client.aclose()
        protocol.describe_node_errors(answer.node_errors)

    trio.run(ask)


# -- node definitions ------------------------------------------------------------------------------------------------

RECORDS = [
    b'{"p": {"outputs": {"2": {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}]}}, "status": '
    b'{"status_str": "error", "completed": false, "messages": [["execution_error", {"node_id": "2"}]]}}}',
    b'{"queue_running": [[0, "p", {}, {}, ["2"]]], "queue_pending": []}',
]
DEFINITIONS = [
    json.dumps(
        {
            "SaveImage": {"input": {"required": {"images": ["IMAGE"]}}, "output_node": True, "name": "SaveImage"},
            "KSampler": {"input": {"required": {"seed": ["INT", {"default": 0}]}}, "output": ["LATENT"]},
        }
    ).encode(),
    b'{"A": {"output_node": false}}',
    b"{}",
]


@target(damaged(DEFINITIONS, TOKENS) | st.binary(max_size=40))
def test_any_node_definitions_are_read_or_a_backend_that_cannot_be_used(body: bytes) -> None:
    try:
        classes = parse_classes(body)
    except BackendUnavailable:
        return
    assert classes.outputs <= classes.names


# -- the event socket ------------------------------------------------------------------------------------------------


def frame(opcode: int, payload: bytes, final: bool = True, mask: bool = False) -> bytes:
    """RFC 6455 5.2."""
    size = len(payload)
    length = (
        bytes([size])
        if size < 126
        else b"\x7e" + struct.pack(">H", size)
        if size < 65536
        else b"\x7f" + struct.pack(">Q", size)
    )
    head = bytes([final << 7 | opcode, length[0] | mask << 7]) + length[1:]
    return head + (b"\0\0\0\0" if mask else b"") + payload


EVENT = b'{"type": "executing", "data": {"prompt_id": "p", "node": "1"}}'
MESSAGES = [
    b'{"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 1}}}}',
    b'{"type": "progress_state", "data": {"prompt_id": "p", "nodes": {"1": {"value": 1, "max": 2, "state": "x"}}}}',
    b'{"type": "executed", "data": {"prompt_id": "p", "node": "1", "output": {"images": [{"filename": "a.png"}]}}}',
    struct.pack(">II", 4, 18) + b'{"prompt_id": "p"}' + b"image",
]
FRAMES = [
    frame(1, EVENT),
    frame(1, EVENT[:9], final=False) + frame(9, b"ping") + frame(0, EVENT[9:]),
    frame(2, struct.pack(">II", 4, 2) + b"{}" + b"image" * 40) + frame(8, struct.pack(">H", 1000) + b"bye"),
    frame(10, b"pong") + frame(1, EVENT, mask=True) + frame(1, "ü".encode()[:1]),
]
BITS = [
    b"\x81\x7f",
    b"\x81\xff",
    b"\x88\x01x",
    b"\x88\x02\x03\xe7",
    b"\xf1\x00",
    b"\x89\x7e\x01\x00",
    b"\x00\x00",
    b"\x83\x00",
]
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %b\r\n\r\n"
)
REFUSALS = [
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
    b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    SWITCH % b"wrong",
]
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@target(
    damaged(REFUSALS, LINES) | st.binary(max_size=60) | st.just(b""),
    pieces(damaged(FRAMES, BITS, most=3) | st.binary(max_size=60)),
    st.sampled_from([True, True, True, False]),
)
def test_any_event_socket_gives_messages_and_ends(refusal: bytes, frames: list[bytes], accepted: bool) -> None:
    """`accepted`: the handshake is right, and frames follow; else `refusal` is in its place."""

    async def listen() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        events = EventSocket(ours)

        async def speak() -> None:
            asked = b""
            while b"\r\n\r\n" not in asked:
                asked += await theirs.receive_some()
            found = re.search(rb"(?i)sec-websocket-key: *(\S+)", asked)
            assert found is not None
            accept = base64.b64encode(hashlib.sha1(found[1] + GUID).digest())
            await theirs.send_all(SWITCH % accept if accepted else refusal)
            for piece in frames:
                await theirs.send_all(piece)
                await trio.testing.wait_all_tasks_blocked()
            await theirs.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak)
            with trio.fail_after(5):
                try:
                    await events.open("pc.example", "/ws", {}, protocol.HELLO)
                except BackendUnavailable:
                    if accepted:
                        raise
                    nursery.cancel_scope.cancel()
                    return
                async for message in events.messages():
                    protocol.parse_message(message)
                await events.close()
            nursery.cancel_scope.cancel()

    trio.run(listen)
