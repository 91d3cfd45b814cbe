"""The fake's input, output and temp folders: in memory, with the naming rules of ComfyUI 0.3.64."""

import email.parser
import email.policy
import hashlib
import mimetypes
import posixpath
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from .script import PromptRecord, Reply


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_for(prompt_id: str, node_id: str = "", index: int = 0) -> bytes:
    """A real 2x2 RGB PNG whose 12 colour bytes are a hash of the arguments: a mix-up of outputs shows."""
    pixels = hashlib.sha256(f"{prompt_id}/{node_id}/{index}".encode()).digest()[:12]
    rows = b"\0" + pixels[:6] + b"\0" + pixels[6:]
    header = struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", header),
            _chunk(b"IDAT", zlib.compress(rows)),
            _chunk(b"IEND", b""),
        )
    )


@dataclass(eq=False, slots=True)
class StoredFile:
    content: bytes
    record: PromptRecord | None = None  # of the prompt that wrote it


class FileStore:
    """Files by (folder, subfolder, name), with folder one of input, output, temp."""

    def __init__(self, inputs: Mapping[str, bytes]) -> None:
        self.files: dict[tuple[str, str, str], StoredFile] = {}
        self._counters: dict[tuple[str, str, str], int] = {}
        for path, content in inputs.items():
            subfolder, name = posixpath.split(path)
            self.files["input", subfolder, name] = StoredFile(content)

    def names(self, folder: str) -> list[str]:
        """The top-level names of a folder, as `/internal/files` and LoadImage's list give them."""
        return sorted(name for kind, subfolder, name in self.files if kind == folder and not subfolder)

    def has_input(self, value: str) -> bool:
        """Whether a LoadImage value ("a.png", "sub/a.png", "a.png [output]") names a file."""
        folder = "input"
        for kind in ("input", "output", "temp"):
            if value.endswith(f" [{kind}]"):
                value, folder = value[: -len(kind) - 3], kind
        subfolder, name = posixpath.split(value.replace("\\", "/"))
        return (folder, subfolder, name) in self.files

    def save(self, folder: str, prefix: str, extension: str, file: StoredFile) -> dict[str, str]:
        """Writes an output under the next free `prefix_00001_` name; returns the entry for `outputs`.

        The count is per fake: every backend writes ComfyUI_00001_.png, which is the trap that this keeps.
        """
        subfolder, stem = posixpath.split(posixpath.normpath(prefix))
        number = self._counters.get((folder, subfolder, stem), 0) + 1
        self._counters[folder, subfolder, stem] = number
        name = f"{stem}_{number:05}_{extension}"
        self.files[folder, subfolder, name] = file
        return {"filename": name, "subfolder": subfolder, "type": folder}

    def upload(self, fields: Mapping[str, tuple[str | None, bytes]]) -> Reply:
        """POST /upload/image: same name and same bytes reuse the file, other bytes get a ` (1)` name."""
        plain = {key: value.decode() for key, (_, value) in fields.items() if key != "image"}
        name, content = fields.get("image", (None, b""))
        if not name:
            return Reply(400)
        folder = plain.get("type", "input")
        subfolder = plain.get("subfolder", "")
        where = posixpath.normpath(posixpath.join(subfolder, posixpath.dirname(name)))
        if where.startswith(("..", "/")):
            return Reply(400)
        where = "" if where == "." else where
        name = posixpath.basename(name)
        stem, extension = posixpath.splitext(name)
        if plain.get("overwrite") not in ("true", "1"):
            count = 0
            while (old := self.files.get((folder, where, name))) is not None and old.content != content:
                count += 1
                name = f"{stem} ({count}){extension}"
        self.files[folder, where, name] = StoredFile(content)
        return Reply.json({"name": name, "subfolder": subfolder, "type": folder})

    def find(self, query: Mapping[str, str]) -> StoredFile | Reply:
        """The file that a /view asks for, or the refusal."""
        filename = query.get("filename")
        if filename is None:
            return Reply(404)
        if not filename or filename[0] == "/" or ".." in filename:
            return Reply(400)
        folder = query.get("type", "output")
        if folder not in ("input", "output", "temp"):
            return Reply(400)
        subfolder = posixpath.normpath(query.get("subfolder", "") or ".")
        if subfolder.startswith(("..", "/")):
            return Reply(403)
        key = (folder, "" if subfolder == "." else subfolder, posixpath.basename(filename))
        return self.files.get(key) or Reply(404)


def view_reply(filename: str, content: bytes, headers: Mapping[str, str]) -> Reply:
    """A /view answer with the recorded headers; understands If-None-Match and one byte range."""
    etag = f'"{zlib.crc32(content):x}-{len(content):x}"'
    kind = mimetypes.guess_type(filename)[0] or "application/octet-stream"
    out = {
        "Content-Disposition": f'filename="{posixpath.basename(filename)}"',
        "Content-Type": kind,
        "Etag": etag,
        "Last-Modified": "Sun, 22 Nov 2026 12:12:05 GMT",
        "Accept-Ranges": "bytes",
    }
    if headers.get("if-none-match") == etag:
        return Reply(304, headers={"Etag": etag})
    unit, _, span = headers.get("range", "").partition("=")
    if unit == "bytes" and "," not in span and "-" in span:
        first, _, last = span.partition("-")
        start = int(first) if first else max(0, len(content) - int(last))
        stop = min(int(last) + 1, len(content)) if first and last else len(content)
        if start >= len(content):
            return Reply(416, headers={"Content-Range": f"bytes */{len(content)}"})
        out["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        return Reply(206, content[start:stop], out)
    return Reply(200, content, out)


def parse_multipart(content_type: str, body: bytes) -> dict[str, tuple[str | None, bytes]]:
    """The parts of a multipart/form-data body: name -> (filename or None, content)."""
    header = email.parser.HeaderParser(policy=email.policy.HTTP).parsestr(f"Content-Type: {content_type}\n\n")
    boundary = header.get_boundary()
    if boundary is None:
        return {}
    fields: dict[str, tuple[str | None, bytes]] = {}
    for piece in (b"\r\n" + body).split(b"\r\n--" + boundary.encode())[1:]:
        if piece.startswith(b"--"):
            break
        head, _, content = piece.partition(b"\r\n\r\n")
        part = email.parser.BytesHeaderParser(policy=email.policy.HTTP).parsebytes(head.lstrip(b"\r\n"))
        name = part.get_param("name", header="content-disposition")
        if isinstance(name, str):
            fields[name] = (part.get_filename(), content)
    return fields
