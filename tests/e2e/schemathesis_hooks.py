"""Loaded by schemathesis (SCHEMATHESIS_HOOKS): lets what it generates get past the first check now and then.

Of what the document allows next to nothing is a workflow that exists, a picture that is one, or the same client twice:
without help, every request would end at the same refusals.
"""

from __future__ import annotations

import base64
import random
from typing import Any

import schemathesis

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)
CLIENTS = ["anna", "ben", "ü\u2009\U0001f4f7", "a" * 256]
WAITS = [0, 0.05, 1]
GOOD: list[dict[str, Any]] = [
    {"workflow": "pattern"},
    {"workflow": "pattern", "1/width": 16, "1/color": 7},
    {"workflow": "invert", "12/width": 8},
    {"workflow": "blurs"},
]
FILENAMES = ["a.png", "b.PNG", "bild ü.png", "../a.png", "a.php.png", "con.png", "a.jpg", "", "x" * 300 + ".png"]

tokens: list[str] = []


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    # Seeded by what was generated, so that the same seed makes the same run.
    chance = random.Random(repr((case.method, case.path, case.body, case.query)))
    query = case.query if isinstance(case.query, dict) else {}
    if "clientId" in query and chance.random() < 0.6:
        query["clientId"] = chance.choice(CLIENTS)
    if "wait" in query and chance.random() < 0.9:
        query["wait"] = chance.choice(WAITS)
    if case.method == "POST" and case.path in ("/run", "/generate-based-workflow") and isinstance(case.body, dict):
        if chance.random() < 0.6:
            good = dict(chance.choice(GOOD))
            if good["workflow"] == "invert" and tokens:
                good["10/image"] = chance.choice(tokens)
            odd = {name: value for name, value in case.body.items() if name not in ("workflow", "webhook")}
            case.body = good | (odd if chance.random() < 0.3 else {})
    elif case.method == "POST" and case.path == "/upload" and chance.random() < 0.7:
        names = [name for name in case.body if name] if isinstance(case.body, dict) else []
        kwargs["files"] = [
            (name, (chance.choice(FILENAMES), damaged(chance) if chance.random() < 0.4 else PNG, "image/png"))
            for name in (names or ["file"])[:3]
        ]


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    if (case.method, case.path) == ("POST", "/upload") and response.status_code == 200:
        tokens.extend(response.json().values())
        del tokens[:-20]


def damaged(chance: random.Random) -> bytes:
    data = bytearray(PNG)
    for _ in range(chance.randrange(1, 4)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data[: chance.randrange(len(data) + 1)])
