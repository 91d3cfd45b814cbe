"""Refusals and event sequences that a real ComfyUI 0.3.64 gave for the prompts in `graphs.py`.

`tests/real/test_embedded_parity.py` holds the stored answers against a real server.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.embedded.graphs import FOLDER, REFUSED, SEQUENCES, events, refusal
from tests.fakes.recording import DATA, differences

if TYPE_CHECKING:
    from tests.embedded.client import Client

STORED = json.loads((DATA / "embedded.json").read_text())


@pytest.fixture
async def prepared(client: Client) -> Client:
    for number, name in enumerate(["noise.png", "other.png", "grey.png"]):
        buffer = io.BytesIO()
        Image.new("RGB", (97, 61), (number, 0, 0)).save(buffer, "PNG")
        await client.upload(name, buffer.getvalue(), subfolder=FOLDER)
    return client


@pytest.mark.parametrize("name", REFUSED)
async def test_a_refusal_reads_as_a_real_one(prepared: Client, name: str) -> None:
    assert differences(STORED["refusals"][name], await refusal(prepared, REFUSED[name])) == []


@pytest.mark.parametrize("name", SEQUENCES)
async def test_events_come_in_the_real_order(prepared: Client, name: str) -> None:
    assert differences(STORED["events"][name], await events(prepared, name)) == []
