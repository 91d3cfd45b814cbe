"""Bodies of POST /upload that no client of good will sends, whole: the multipart form itself is what is wrong."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from urllib.parse import quote

from tests.corpus.case import Case, Request
from tests.corpus.seeds import seed

BOUNDARY = b"----corpus7MA4YWxkTrZu0gW"
FORM = f"multipart/form-data; boundary={BOUNDARY.decode()}"


def part(disposition: bytes, data: bytes, *headers: bytes) -> bytes:
    lines = [b"Content-Disposition: " + disposition, *headers]
    return b"--" + BOUNDARY + b"\r\n" + b"\r\n".join(lines) + b"\r\n\r\n" + data + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--" + BOUNDARY + b"--\r\n"


def disposition(filename: str | bytes, name: str = "file") -> bytes:
    """As browsers write it (HTML, multipart/form-data encoding): UTF-8, with `"`, CR and LF percent-encoded. A name
    with other control characters is said twice, raw and as filename* (RFC 8187)."""
    raw = filename if isinstance(filename, bytes) else filename.encode("utf-8", "surrogatepass")
    quoted = raw.replace(b'"', b"%22").replace(b"\r", b"%0D").replace(b"\n", b"%0A")
    written = b'form-data; name="' + name.encode() + b'"; filename="' + quoted + b'"'
    if isinstance(filename, str) and ("\r" in filename or "\n" in filename):
        written += b"; filename*=UTF-8''" + quote(filename, safe="").encode()
    return written


def upload(case: Case, name: str = "file") -> bytes:
    """The body that carries this case alone."""
    headers = [] if case.content_type is None else [b"Content-Type: " + case.content_type.encode()]
    return form(part(disposition(case.filename, name), case.data(), *headers))


def malformed() -> Iterator[Request]:
    png = seed(".png")
    kind = b"Content-Type: image/png"
    good = part(b'form-data; name="good"; filename="good.png"', png, kind)
    named = b'form-data; name="a"; filename="a.png"'
    plain = form(part(named, png, kind))

    def request(name: str, body: bytes, content_type: str | None = FORM) -> Request:
        return Request(name, content_type, body, name)

    yield request("10000 parts", form(*(part(disposition("a.png", f"p{n}"), png[:1], kind) for n in range(10_000))))
    yield request("a part header of 1 MB", form(good, part(named, png, b"X-Long: " + b"a" * 1_000_000)))
    yield request("a part header of 100 kB in the name", form(part(disposition("a.png", "n" * 100_000), png, kind)))
    yield request("5000 part headers", form(part(named, png, *[b"X-%d: y" % n for n in range(5000)])))
    yield request("a part header without an end", b"--" + BOUNDARY + b"\r\n" + b"X: " + b"a" * 500_000)
    yield request("no filename", form(good, part(b'form-data; name="text"', b"hello")))
    yield request("an empty filename", form(good, part(b'form-data; name="a"; filename=""', png, kind)))
    yield request("two parts of one name", form(good, good))
    yield request("no name", form(part(b'form-data; filename="a.png"', png, kind)))
    yield request("an empty name", form(part(b'form-data; name=""; filename="a.png"', png, kind)))
    yield request("no Content-Disposition", form(b"--" + BOUNDARY + b"\r\n" + kind + b"\r\n\r\n" + png + b"\r\n"))
    yield request("attachment in place of form-data", form(part(b"attachment", png, kind)))
    yield request("a wrong boundary", plain, "multipart/form-data; boundary=another")
    yield request("no boundary", plain, "multipart/form-data")
    yield request("an empty boundary", plain, "multipart/form-data; boundary=")
    yield request("a boundary of 5 kB", plain, "multipart/form-data; boundary=" + "b" * 5000)
    yield request("no Content-Type", plain, None)
    yield request("JSON", b'{"file": "a.png"}', "application/json")
    yield request("a URL-encoded form", b"file=a.png", "application/x-www-form-urlencoded")
    yield request("a picture without a form", png, "image/png")
    yield request("multipart/mixed", plain, f"multipart/mixed; boundary={BOUNDARY.decode()}")
    yield request("an empty body", b"")
    yield request("no part", form())
    yield request("no last boundary", good)
    yield request("the last boundary without its dashes", good + b"--" + BOUNDARY + b"\r\n")
    yield request("cut in the content", plain[: len(plain) // 2])
    yield request("cut in a header", good + b"--" + BOUNDARY + b"\r\nContent-Dispo")
    yield request("only a preamble", b"x" * 300_000)
    yield request("no boundary line at all", png * 20)
    yield request("a header without a colon", form(part(named, png, b"this is no header")))
    yield request("a bad file behind a good one", form(good, part(named, b"MZ" + bytes(500), kind)))
    yield request("a bad name behind a good file", form(good, part(b'form-data; name="a"; filename="../a.png"', png)))
    yield request("a bad file before a good one", form(part(named, png[:50], kind), good))
    many = [part(disposition("a.png", f"p{n}"), png, kind) for n in range(20)]
    yield request("19 good files and a bad one", form(*many[:-1], part(named, b"<html>", kind)))
    encoded = base64.b64encode(png)
    yield request("base64", form(part(named, encoded, kind, b"Content-Transfer-Encoding: base64")))
    inner = b"--in\r\nContent-Disposition: file; filename=a.png\r\n\r\n" + png + b"\r\n--in--"
    nested = part(b"form-data; name=a", inner, b"Content-Type: multipart/mixed; boundary=in")
    yield request("a form in a form", form(nested))
    yield request("NUL in a header", form(part(b'form-data; name="a\0b"; filename="a\0.png"', png, kind)))
