#!/usr/bin/env python3
"""Sends a picture through the workflow `image-to-image` and follows it over a WebSocket.

    pip install requests websocket-client
    python3 python_websocket.py PICTURE [OUTPUT_FOLDER]

BRIDGED_URL is the service's address (default http://127.0.0.1:8000), BRIDGED_KEY the API key, where it wants one.
Ending this program cancels its job: the service takes back what a client wanted when its WebSocket goes away.
"""

import base64
import json
import os
import sys
import uuid
from pathlib import Path

import requests
import websocket

URL = os.environ.get("BRIDGED_URL", "http://127.0.0.1:8000")
CLIENT = {"clientId": str(uuid.uuid4())}  # one string of our choice belongs to everything that one job needs
HEADERS = {"Authorization": f"Bearer {os.environ['BRIDGED_KEY']}"} if os.environ.get("BRIDGED_KEY") else {}


def checked(answer):
    """The answer, or the end of the program with the service's own words."""
    if answer.status_code >= 400:
        try:
            detail = answer.json()["detail"]
        except (ValueError, KeyError, TypeError):
            detail = answer.text
        path = answer.request.path_url.partition("?")[0]
        sys.exit(f"{path}: refused with {answer.status_code}: {detail}")
    return answer


def follow(socket):
    """Shows progress until the service says that the last job has ended; exits where it failed."""
    while True:
        text = socket.recv()
        if not text:
            sys.exit("\nthe service closed the connection before the job had ended")
        message = json.loads(text)
        if message["status"] == "progress":
            print(f"\r{message['detail']:>7}", end="", flush=True)
        elif message["status"] == "error":
            sys.exit(f"\nthe job failed: {message['detail']}")
        elif message["status"] == "closed":
            print()
            return


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    picture, folder = Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) == 3 else ".")
    if not picture.is_file():
        sys.exit(f"{picture}: no such file")
    api = requests.Session()
    api.params = CLIENT
    api.headers.update(HEADERS)
    address = f"{URL.replace('http', 'ws', 1)}/ws?clientId={CLIENT['clientId']}"
    socket = websocket.create_connection(address, header=HEADERS, redirect_limit=0, timeout=60)
    with picture.open("rb") as file:
        tokens = checked(api.post(f"{URL}/upload", files={"picture": file}, timeout=60)).json()
    job = {"workflow": "image-to-image", "1/image": tokens["picture"], "2/width": 640, "4/blend_factor": 0.8}
    answer = checked(api.post(f"{URL}/generate-based-workflow", json=job, timeout=60))
    print(answer.json()["detail"])
    follow(socket)
    socket.close()
    result = checked(api.get(f"{URL}/history", params={"resType": "base64"}, timeout=60))
    if result.status_code == 204:
        sys.exit("the job ended with no result")
    folder.mkdir(parents=True, exist_ok=True)
    for file in result.json()["files"]:
        path = folder / Path(file["file_name"]).name
        path.write_bytes(base64.b64decode(file["content"]))
        print(path)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\ncancelled")
    except websocket.WebSocketBadStatusException as error:
        sys.exit(f"/ws: refused with {error.status_code}: {(error.resp_body or b'').decode()}")
    except (OSError, websocket.WebSocketException) as error:
        sys.exit(f"no service answers at {URL}: {error}")
