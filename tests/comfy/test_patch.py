"""The shapes that the bridge and the patch share, as in the example files that both are held to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.comfy import protocol
from bridged.comfy.patch import MAX_LISTED, MAX_TEXT, parse_cancel, parse_info, parse_lease, says_paused
from bridged.errors import BackendUnavailable
from bridged.model import Lending, NodePack

DATA = Path(__file__).parents[1] / "data" / "patch"


def example(name: str) -> bytes:
    return (DATA / f"{name}.json").read_bytes()


def altered(**changes: Any) -> bytes:
    return json.dumps({**json.loads(example("info")), **changes}).encode()


def test_info_is_read_whole() -> None:
    info = parse_info(example("info"))
    told = json.loads(example("info"))
    assert (info.protocol, info.patch, info.comfyui) == (told["protocol"], told["patch"], told["comfyui"])
    assert [{"name": p.name, "version": p.version} for p in info.node_packs] == told["node_packs"]
    (device, *_), (model, *_) = info.devices, info.loaded_models
    assert device.memory_total == told["devices"][0]["memory_total"]
    assert device.memory_free == told["devices"][0]["memory_free"]
    assert model.size == told["loaded_models"][0]["size"]
    assert (info.owner.active, info.owner.running) == (told["owner"]["active"], told["owner"]["running"])
    assert (info.owner.queued, info.owner.last) == (told["owner"]["queued"], told["owner"]["last"])
    assert (info.lending.paused, info.lending.until) == (told["lending"]["paused"], told["lending"]["until"])
    assert (info.served.date, info.served.jobs) == (told["served"]["date"], told["served"]["jobs"])
    assert info.served.seconds == told["served"]["seconds"]


def test_the_other_answers_are_read() -> None:
    assert parse_cancel(example("cancel")) == json.loads(example("cancel"))["cancelled"]
    assert parse_lease(example("lease")) == json.loads(example("lease"))["until"]
    told = json.loads(example("lending"))
    event = protocol.parse_message(json.dumps({"type": "bridged.lending", "data": told}))
    assert event == Lending(told["paused"], told["until"])
    assert protocol.parse_message('{"type": "bridged.lending", "data": {"paused": "yes"}}') is None


def test_another_protocol_and_what_is_no_answer_are_refused() -> None:
    with pytest.raises(BackendUnavailable, match="speaks protocol 2, this service speaks 1"):
        parse_info(altered(protocol=2))
    for body in (
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        altered(lending=None),
        altered(owner={"running": -1}),
    ):
        with pytest.raises(BackendUnavailable):
            parse_info(body)
    with pytest.raises(BackendUnavailable):
        parse_cancel(b'{"cancelled": "perhaps"}')


def test_what_a_pc_says_without_end_is_cut() -> None:
    info = parse_info(altered(node_packs=[{"name": "n" * 1000}] * 900))
    assert info.node_packs == [NodePack("n" * MAX_TEXT)] * MAX_LISTED
    with pytest.raises(BackendUnavailable, match="larger than 1 MB"):
        parse_info(altered(node_packs=[{"name": ""}] * 100_000))


def test_what_it_says_does_nothing_to_a_log_or_a_terminal() -> None:
    info = parse_info(altered(patch="1.0\n<3>bridged: forged\x1b]0;title\x07"))
    assert info.patch.isprintable()
    assert info.patch.startswith("1.0\N{REPLACEMENT CHARACTER}<3>")


def test_what_newer_patches_add_is_passed_over() -> None:
    assert parse_info(altered(weather="fine")) == parse_info(example("info"))


def test_a_refusal_for_a_pause_is_told_from_others() -> None:
    assert says_paused(b'{"error": {"type": "bridged_paused", "message": "later"}}')
    for body in (b"", b"{}", b"Bad Gateway", b'{"error": "bridged_paused"}', b'{"error": {"type": "other"}}'):
        assert not says_paused(body)


@given(st.binary(max_size=200))
def test_nothing_else_is_raised_for_any_bytes(body: bytes) -> None:
    says_paused(body)
    for parse in (parse_info, parse_cancel, parse_lease):
        with pytest.raises(BackendUnavailable):
            parse(body)
