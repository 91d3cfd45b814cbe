#!/usr/bin/env python3
"""Sends a picture through the workflow `image-to-image` over REST. Python's standard library only.

    python3 python_rest.py PICTURE [OUTPUT_FOLDER]

BRIDGED_URL is the service's address (default http://127.0.0.1:8000), BRIDGED_KEY the API key, where it wants one.
"""

import base64
import contextlib
import json
import mimetypes
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path

URL = os.environ.get("BRIDGED_URL", "http://127.0.0.1:8000")
KEY = os.environ.get("BRIDGED_KEY")
CLIENT_ID = str(uuid.uuid4())  # one string of our choice belongs to everything that one job needs


def call(method, path, body=None, content_type=None, **query):
    """One request; the answer's JSON, or None for an answer without a body."""
    address = f"{URL}{path}?{urllib.parse.urlencode({'clientId': CLIENT_ID, **query})}"
    headers = {"Content-Type": content_type} if content_type else {}
    request = urllib.request.Request(address, data=body, headers=headers, method=method)
    if KEY:
        request.add_unredirected_header("Authorization", f"Bearer {KEY}")  # for this address, not for a redirect's
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            data = answer.read()
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        with contextlib.suppress(ValueError, KeyError, TypeError):
            text = json.loads(text)["detail"]
        sys.exit(f"{method} {path}: refused with {error.code}: {text}")
    except OSError as error:
        sys.exit(f"no service answers at {URL}: {error}")
    return json.loads(data) if data else None


def upload(picture):
    """Sends a file as multipart/form-data; returns the token that stands for it."""
    boundary = uuid.uuid4().hex
    kind = mimetypes.guess_type(picture.name)[0] or "application/octet-stream"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="picture"; filename="{picture.name}"\r\n'
        f"Content-Type: {kind}\r\n\r\n"
    )
    body = head.encode() + picture.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
    return call("POST", "/upload", body, f"multipart/form-data; boundary={boundary}")["picture"]


def wait_for_end():
    """Shows progress until the job has ended; exits where it failed."""
    while True:
        info = call("GET", "/execution-info")
        if info["status"] == "error" or info.get("state") in ("failed", "cancelled", "expired"):
            sys.exit(f"\nthe job failed: {info.get('reason') or info['detail']}")
        if info["status"] == "closed":
            print("\r100.00%")
            return
        if info["status"] == "progress":
            print(f"\r{info['detail']:>7}", end="", flush=True)
        time.sleep(0.25)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    picture, folder = Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) == 3 else ".")
    if not picture.is_file():
        sys.exit(f"{picture}: no such file")
    job = {"workflow": "image-to-image", "1/image": upload(picture), "2/width": 640, "4/blend_factor": 0.8}
    answer = call("POST", "/generate-based-workflow", json.dumps(job).encode(), "application/json")
    print(answer["detail"])
    try:
        wait_for_end()
    except KeyboardInterrupt:
        call("POST", "/interrupt")  # a REST client says so itself when its jobs are not wanted any more
        sys.exit("\ncancelled")
    result = call("GET", "/history", resType="base64")
    if result is None:
        sys.exit("the job ended with no result")
    folder.mkdir(parents=True, exist_ok=True)
    for file in result["files"]:
        path = folder / Path(file["file_name"]).name
        path.write_bytes(base64.b64decode(file["content"]))
        print(path)


if __name__ == "__main__":
    main()
