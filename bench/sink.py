"""A server that takes request bodies and throws them away, one connection after another: what uploading costs when
nothing is done with what was uploaded. Prints its URL.
"""

from __future__ import annotations

import json
import re
import socket

BLOCK = 1024 * 1024
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


def serve(listener: socket.socket) -> None:
    buffer = bytearray(BLOCK)
    while True:
        connection, _ = listener.accept()
        with connection:
            head = b""
            while b"\r\n\r\n" not in head and (data := connection.recv(65536)):
                head += data
            lines, _, begun = head.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: *(\d+)", lines)
            missing = int(length[1]) - len(begun) if length else 0
            while missing > 0 and (count := connection.recv_into(buffer)):
                missing -= count
            connection.sendall(ANSWER)


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}"}), flush=True)
        serve(listener)
