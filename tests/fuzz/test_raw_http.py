"""Any bytes on a TCP connection to the whole service: every connection ends, or is answered, in time; nobody else
notices; nothing is left.
"""

from __future__ import annotations

import atexit
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

from hypothesis import strategies as st

from tests.files.pictures import picture
from tests.fuzz.mutation import damaged, pieces
from tests.fuzz.target import target

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 0.15
"""seconds of the service's own deadlines here"""

LONGEST = 5.0
"""seconds in which a connection must be over: the deadlines, what it reads on after a refusal, and a busy machine"""

GROWTH = 48 * 1024 * 1024
"""bytes of memory that the service may need more than just after its start, whatever was sent to it"""

SETTINGS = f"""
[server]
port = 0
[limits]
header_timeout = {PATIENCE}
body_timeout = {PATIENCE}
json_max_size = 0.01
[files]
upload_max_size = 0.05
upload_ttl = 1
[jobs]
result_ttl = 1
timeout_interval = 0.2
limit_timeout_count = 1
[embedded]
worker = "never"
"""


class Service:
    """`bridged serve` in a process of its own, with no PC, and a client of it that behaves well."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.folder = Path(self._folder.name)
        etc = self.folder / "etc"
        etc.mkdir()
        (self.folder / "workflows").mkdir()
        (etc / "bridged.toml").write_text(SETTINGS)
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bridged", "serve", "--config", str(etc)],
                env={**os.environ, "PYTHONPATH": str(ROOT), "STATE_DIRECTORY": str(self.folder / "state")},
                stderr=log,
            )
        atexit.register(self.stop)
        while not (found := re.search(r"listens on http://127\.0\.0\.1:(\d+)", self.log())):
            assert self.process.poll() is None, self.log()
            time.sleep(0.02)
        self.port = int(found[1])
        self.bystander = self.connect()
        self.ask()
        self.descriptors, self.resident = self._descriptors(), self._resident()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        if hasattr(self, "bystander"):  # else it did not start
            self.bystander.close()
        self._folder.cleanup()

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=LONGEST)

    def ask(self) -> None:
        """The other client is answered as ever."""
        began = time.monotonic()
        self.bystander.sendall(REQUEST % (b"GET", b"/generation-count", b"", b""))
        answer = b""
        while not re.search(rb"\r\n\r\n\d", answer):
            data = self.bystander.recv(65536)
            assert data, answer
            answer += data
        assert answer.startswith(b"HTTP/1.1 200"), answer
        assert time.monotonic() - began < 2

    def audit(self) -> None:
        """Nothing is left: descriptors, memory and files are what they were, and the log tells of no fault of ours."""
        deadline = time.monotonic() + 10
        while (left := (self._descriptors() - self.descriptors, self._files())) != (0, []):
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
        assert self._resident() - self.resident < GROWTH
        faults = [line for line in self.log().splitlines() if " ERROR " in line or line.startswith("Traceback")]
        assert not faults, self.log()[-4000:]
        assert self.process.poll() is None

    def _descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def _files(self) -> list[Path]:
        return [path for path in (self.folder / "state" / "spool").rglob("*") if path.is_file()]

    def _resident(self) -> int:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@cache
def service() -> Service:
    return Service()


REQUEST = b"%b %b HTTP/1.1\r\nHost: localhost\r\n%b\r\n%b"
JSON = b"Content-Type: application/json\r\nContent-Length: %d\r\n"
FORM = b"Content-Type: multipart/form-data; boundary=B\r\nContent-Length: %d\r\n"
CHUNKED = b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
SUBMISSION = b'{"workflow": "pattern", "1/width": 16}'
PART = (
    b'--B\r\nContent-Disposition: form-data; name="a"; filename="a.png"\r\n\r\n' + picture(".png") + b"\r\n--B--\r\n"
)
GETS = [
    "/",
    "/workflow-list",
    "/workflow-info?workflow=x",
    "/execution-info?clientId=a",
    "/history?clientId=a",
    "/generation-count",
    "/status",
    "/jobs?clientId=a",
    "/jobs/1",
    "/openapi.json",
    "/nowhere",
    "//status",
    "http://localhost/status",
    "*",
    "/%00",
    "/jobs/%2e%2e%2f",
]
WHOLE = [
    *[REQUEST % (b"GET", path.encode(), b"", b"") for path in GETS],
    *[
        REQUEST % (method, b"/status", b"", b"")
        for method in (b"HEAD", b"OPTIONS", b"DELETE", b"CONNECT", b"PRI", b"M-SEARCH")
    ],
    *[
        REQUEST % (b"POST", path, JSON % len(SUBMISSION), SUBMISSION)
        for path in (b"/generate-based-workflow?clientId=a", b"/run", b"/interrupt?clientId=a", b"/free?clientId=a")
    ],
    REQUEST % (b"POST", b"/upload?clientId=a", FORM % len(PART), PART),
    REQUEST % (b"POST", b"/run?clientId=a", CHUNKED, b"%x\r\n%b\r\n0\r\n\r\n" % (len(SUBMISSION), SUBMISSION)),
    REQUEST % (b"POST", b"/upload?clientId=a", b"Expect: 100-continue\r\n" + FORM % len(PART), PART),
    REQUEST % (b"GET", b"/ws?clientId=a", UPGRADE, b"\x81\x82\0\0\0\0hi\x88\x80\0\0\0\0"),
    REQUEST % (b"GET", b"/ws?clientId=b", UPGRADE, b""),
    REQUEST % (b"GET", b"/ws", UPGRADE, b""),
    REQUEST % (b"GET", b"/ws?resume=x.y", UPGRADE + b"Sec-WebSocket-Extensions: permessage-deflate\r\n", b"\xc1\x00"),
    REQUEST % (b"GET", b"/", b"Connection: close\r\n", b"") * 2,
    REQUEST % (b"GET", b"/", b"", b"") * 5,
    REQUEST
    % (
        b"GET",
        b"/",
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        b"",
    ),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
]
LINES = [
    *[
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b"Content-Length: 5\r\n",
        b"Content-Length: -1\r\n",
    ],
    *[
        b"Content-Length: 99999999999999999999\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: identity\r\n",
    ],
    *[b"Host: a\r\n", b"Host:\r\n", b"Connection: close\r\n", b"Connection: Upgrade\r\n", b"Upgrade: websocket\r\n"],
    *[
        b"Expect: 100-continue\r\n",
        b"ffffffff\r\n",
        b"0\r\n\r\n",
        b"HTTP/1.0",
        b"HTTP/0.9",
        b"HTTP/9.9",
        b"X: " + b"y" * 70_000,
    ],
    *[
        b"Origin: http://evil.example\r\n",
        b"Authorization: Bearer \xff\r\n",
        b"X-Forwarded-For: ,,\r\n",
        b"%",
        b"\xff",
        b"?key=",
    ],
]


@target(
    pieces(damaged(WHOLE, LINES) | st.binary(max_size=100), most=2),
    st.sampled_from(["waits", "is done", "leaves"]),
    examples=100,
    audit=lambda: service().audit(),
)
def test_any_bytes_are_answered_in_time_and_bother_nobody(sent: list[bytes], then: str) -> None:
    """A client that `waits` for its answers, says that it `is done` (FIN), or `leaves` (RST)."""
    began = time.monotonic()
    said = b""
    with service().connect() as client:
        try:
            for piece in sent:
                client.sendall(piece)
            if then == "is done":
                client.shutdown(socket.SHUT_WR)
            elif then == "leaves":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            # Who waits is answered; but a connection on which nothing was asked may stay idle.
            while then != "leaves" and (then == "is done" or (not said and b"".join(sent).strip(b"\r\n"))):
                data = client.recv(65536)
                if not data:
                    break
                said += data
        except TimeoutError:
            raise AssertionError(f"neither answered nor closed within {LONGEST:g} s") from None
        except OSError:
            pass  # it said no and closed, and we went on
    assert time.monotonic() - began < LONGEST
    statuses = re.findall(rb"(?:^|\r\n\r\n|[}\n])HTTP/1\.1 (\d\d\d) ", said)
    assert statuses or not said, said[:200]
    assert all(100 <= int(status) < 500 for status in statuses), said
    service().ask()


def test_nothing_is_left_of_all_those_connections() -> None:
    service().audit()
