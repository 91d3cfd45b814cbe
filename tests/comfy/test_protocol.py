"""What a ComfyUI says, parsed: any bytes at all, and everything that a real 0.3.64 was recorded saying."""

from __future__ import annotations

import json
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridged.comfy import protocol
from bridged.comfy.protocol import (
    Cached,
    Errored,
    Executed,
    Executing,
    HistoryEntry,
    Interrupted,
    NodeState,
    Preview,
    Progress,
    ProgressState,
    PromptAnswer,
    PromptProgress,
    PromptRefusal,
    RemoteFile,
    Started,
    Status,
    Succeeded,
    UploadAnswer,
    describe_node_errors,
    files_of,
    parse_history,
    parse_message,
    parse_queue,
)
from bridged.errors import BackendUnavailable
from bridged.model import Graph
from tests.fakes import recording

DEEP = 100_000
TYPES = [
    "status",
    "execution_start",
    "execution_cached",
    "executing",
    "progress",
    "progress_state",
    "executed",
    "execution_success",
    "execution_interrupted",
    "execution_error",
    "feature_flags",
    "some_custom_node",
]
WORDS = """prompt_id node nodes output value max state status exec_info queue_remaining messages outputs
    status_str filename errors error images completed queue_running queue_pending"""
KEYS = st.sampled_from(WORDS.split())
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=4), inner, max_size=6)
)
FIELDS = st.dictionaries(KEYS, JSON, max_size=8)


def text(value: Any) -> str:
    return json.dumps(value)


# -- nothing that arrives raises -------------------------------------------------------------------------------------


@given(st.binary())
@example(b"")
@example(b"\x00\x00\x00\x04\xff\xff\xff\xff{}")
@example(b'\x00\x00\x00\x04\x00\x00\x00\x05{"a":')
@example(b"\x00\x00\x00\x04\x00\x00\x00\x04\xff\xfe\xfd\xfc")
@example(struct.pack(">II", 4, DEEP) + b"[" * DEEP)
@example(struct.pack(">II", 4, DEEP + 17) + b'{"prompt_id":"p",' + b"[" * DEEP)
def test_no_binary_message_raises(message: bytes) -> None:
    parse_message(message)


@given(
    st.text() | JSON.map(text) | st.builds(lambda t, d: text({"type": t, "data": d}), st.sampled_from(TYPES), FIELDS)
)
@example("")
@example('{"type":"status"}')
@example('{"type":"status","data":null}')
@example('{"type":"executed","data":{"prompt_id":"p","node":"1","output":' + "[" * DEEP + "]" * DEEP + "}}")
@example('{"type":"custom","data":' + "[" * DEEP + "]" * DEEP + "}")
@example('{"type":"progress","data":{"prompt_id":"p","node":"1","value":1e999,"max":1}}')
@example('{"type":"status","data":{"status":{"exec_info":{"queue_remaining":' + "9" * 5000 + "}}}}")
def test_no_text_message_raises(message: str) -> None:
    event = parse_message(message)
    if event is not None:
        PromptProgress({"1": {"class_type": "A", "inputs": {}}}).feed(event)


def test_a_text_message_that_is_no_text_is_skipped() -> None:
    assert parse_message('{"type":"executed","data":{"prompt_id":"\ud800","node":"1"}}') is None


BODIES = st.binary() | JSON.map(lambda value: text(value).encode())


@given(BODIES | st.builds(lambda entry: text({"p": entry}).encode(), FIELDS))
@example(b'{"p":{"outputs":{"1":{"images":[{"filename":"\xff"}]}}}}')
@example(b'{"p":{"outputs":' + b"[" * DEEP + b"]" * DEEP + b"}}")
@example(
    b'{"p":{"outputs":{"1":[1,2],"2":null,"3":"x"},"status":{"status_str":"error","messages":[1,[],["execution_error"]]}}}'
)
def test_any_history_is_an_entry_or_a_backend_that_cannot_be_used(body: bytes) -> None:
    try:
        entry = parse_history(body, "p")
    except BackendUnavailable:
        return
    if entry is not None:
        assert isinstance(entry.outcome(), Succeeded | Interrupted | Errored)
        for output in entry.outputs.values():
            files_of(output)


@given(BODIES | st.builds(lambda queue: text(queue).encode(), FIELDS))
@example(b'{"queue_running":[[1]]}')
@example(b'{"queue_running":[[1,"\xff"]]}')
@example(b'{"queue_running":[' + b"[" * DEEP + b"]" * DEEP + b"]}")
def test_any_queue_is_a_queue_or_a_backend_that_cannot_be_used(body: bytes) -> None:
    try:
        view = parse_queue(body)
    except BackendUnavailable:
        return
    assert all(isinstance(prompt_id, str) for prompt_id in (*view.running, *view.pending))


@given(JSON)
def test_any_node_errors_and_outputs_are_described(value: Any) -> None:
    assert isinstance(describe_node_errors(value), str)
    assert all(isinstance(file, RemoteFile) for file in files_of(value))
    try:
        refusal = msgspec.convert({"error": value, "node_errors": value}, PromptRefusal)
    except msgspec.ValidationError:
        return
    assert isinstance(refusal.text(), str)
    assert isinstance(refusal.kinds(), set)


# -- single messages -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "event"),
    [
        ({"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 3}}, "sid": "x"}}, Status(3)),
        ({"type": "execution_start", "data": {"prompt_id": "p", "timestamp": 1}}, Started("p")),
        ({"type": "execution_cached", "data": {"prompt_id": "p", "nodes": ["1", "2"]}}, Cached("p", ("1", "2"))),
        ({"type": "executing", "data": {"prompt_id": "p", "node": "1", "display_node": "1"}}, Executing("p", "1")),
        ({"type": "executing", "data": {"prompt_id": "p", "node": None}}, Executing("p", None)),
        ({"type": "executing", "data": {"node": "7"}}, Executing("", "7")),
        ({"type": "progress", "data": {"prompt_id": "p", "node": "1", "value": 1, "max": 4}}, Progress("p", "1", 1, 4)),
        (
            {
                "type": "progress_state",
                "data": {
                    "prompt_id": "p",
                    "nodes": {"1": {"value": 1.0, "max": 2.0, "state": "running", "node_id": "1"}},
                },
            },
            ProgressState("p", {"1": NodeState(1.0, 2.0, "running")}),
        ),
        ({"type": "executed", "data": {"prompt_id": "p", "node": "1", "output": None}}, Executed("p", "1", None)),
        ({"type": "execution_success", "data": {"prompt_id": "p"}}, Succeeded("p")),
        (
            {"type": "execution_interrupted", "data": {"prompt_id": "p", "node_id": "1", "executed": []}},
            Interrupted("p"),
        ),
        (
            {
                "type": "execution_error",
                "data": {
                    "prompt_id": "p",
                    "node_id": "1",
                    "node_type": "KSampler",
                    "exception_type": "RuntimeError",
                    "exception_message": "CUDA out of memory",
                    "traceback": ["…"],
                    "current_outputs": [],
                },
            },
            Errored("p", "1", "KSampler", "RuntimeError", "CUDA out of memory"),
        ),
        ({"type": "feature_flags", "data": {"supports_preview_metadata": True}}, None),
        ({"type": "rgthree.whatever", "data": [1, 2]}, None),
        ({"type": "progress", "data": {"node": "1"}}, None),
    ],
)
def test_one_message(message: Any, event: protocol.Event | None) -> None:
    assert parse_message(text(message)) == event


def test_only_previews_that_say_whose_they_are_are_taken() -> None:
    meta = json.dumps({"prompt_id": "p", "node_id": "3", "image_type": "image/png"}).encode()
    assert parse_message(struct.pack(">II", 4, len(meta)) + meta + b"PICTURE") == Preview("p", b"PICTURE")
    nobody = b'{"node_id": "3"}'
    assert parse_message(struct.pack(">II", 4, len(nobody)) + nobody + b"PICTURE") is None
    assert parse_message(struct.pack(">II", 1, 2) + b"PICTURE") is None
    assert parse_message(struct.pack(">II", 3, 1) + b"3text") is None


def test_the_greeting_asks_for_previews_with_their_owner() -> None:
    assert json.loads(protocol.HELLO) == {"type": "feature_flags", "data": {"supports_preview_metadata": True}}


# -- progress --------------------------------------------------------------------------------------------------------

NODES = st.sampled_from(["1", "2", "3", "made while running"])
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-3, 30).map(float)
EVENTS = st.one_of(
    st.builds(Cached, st.just("p"), st.lists(NODES).map(tuple)),
    st.builds(Executing, st.just("p"), st.none() | NODES),
    st.builds(Progress, st.just("p"), st.none() | NODES, NUMBERS, NUMBERS),
    st.builds(
        ProgressState,
        st.just("p"),
        st.dictionaries(NODES, st.builds(NodeState, NUMBERS, NUMBERS, st.sampled_from(["running", "finished", "?"]))),
    ),
    st.builds(Executed, st.just("p"), NODES),
    st.just(Started("p")),
    st.just(Succeeded("p")),
    st.just(Status(1)),
)


@given(st.lists(EVENTS, max_size=40))
def test_percentages_rise_and_stay_below_100_before_success(events: list[protocol.Event]) -> None:
    progress = PromptProgress({node: {"class_type": "A", "inputs": {}} for node in "123"})
    told = [percent for event in events if (percent := progress.feed(event)) is not None]
    assert told == sorted(set(told))
    assert all(0.0 < percent < 100.0 for percent in told)


@given(st.lists(EVENTS))
def test_an_empty_graph_has_no_progress(events: list[protocol.Event]) -> None:
    progress = PromptProgress({})
    assert [percent for event in events if (percent := progress.feed(event)) is not None] == []


def test_nodes_count_alike_and_by_their_own_share() -> None:
    progress = PromptProgress({node: {"class_type": "A", "inputs": {}} for node in "1234"})
    assert progress.feed(Cached("p", ("1",))) == 25.0
    assert progress.feed(Cached("p", ("1",))) is None
    assert progress.feed(Executing("p", "2")) is None
    assert progress.feed(Progress("p", "2", 1, 2)) == 37.5
    assert progress.feed(Progress("p", "2", 1, 4)) is None
    assert progress.feed(Executing("p", "3")) == 50.0
    assert progress.feed(ProgressState("p", {"3": NodeState(3, 4, "running")})) == 68.75
    assert progress.feed(ProgressState("p", {"3": NodeState(0, 4, "finished")})) == 75.0
    assert progress.feed(Executed("p", "4")) == 99.99
    assert progress.feed(Succeeded("p")) is None


def test_a_node_that_begins_again_keeps_its_best_share() -> None:
    progress = PromptProgress({node: {"class_type": "A", "inputs": {}} for node in "1234"})
    assert progress.feed(Progress("p", "1", 1, 2)) == 12.5
    assert progress.feed(Progress("p", "1", 0, 2)) is None
    assert progress.feed(Executed("p", "2")) == 37.5


def test_the_last_node_is_done_when_the_prompt_has_left() -> None:
    progress = PromptProgress({"1": {"class_type": "A", "inputs": {}}, "2": {"class_type": "B", "inputs": {}}})
    assert progress.feed(Executing("p", "1")) is None
    assert progress.feed(Executing("p", None)) == 50.0


# -- the recordings --------------------------------------------------------------------------------------------------

RECORDINGS = recording.names()
PASSED_OVER = {"feature_flags"}


def test_there_are_recordings() -> None:
    assert len(RECORDINGS) >= 11


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_recorded_frame_has_its_right_value(name: str) -> None:
    for frame in recording.load(name).frames():
        if frame.binary is not None:
            event = parse_message(frame.binary)
            (kind,) = struct.unpack_from(">I", frame.binary)
            if kind == 4:
                (length,) = struct.unpack_from(">I", frame.binary, 4)
                meta = json.loads(frame.binary[8 : 8 + length])
                assert event == Preview(meta["prompt_id"], frame.binary[8 + length :])
            else:
                assert event is None
            continue
        kind, data = frame.json["type"], frame.json["data"]
        event = parse_message(text(frame.json))
        match kind:
            case "status":
                assert event == Status(data["status"]["exec_info"]["queue_remaining"])
            case "execution_start":
                assert event == Started(data["prompt_id"])
            case "execution_cached":
                assert event == Cached(data["prompt_id"], tuple(data["nodes"]))
            case "executing":
                assert event == Executing(data.get("prompt_id", ""), data["node"])
            case "progress":
                assert event == Progress(data["prompt_id"], data["node"], data["value"], data["max"])
            case "progress_state":
                states = {n: NodeState(s["value"], s["max"], s["state"]) for n, s in data["nodes"].items()}
                assert event == ProgressState(data["prompt_id"], states)
            case "executed":
                assert event == Executed(data["prompt_id"], data["node"], data["output"])
            case "execution_success":
                assert event == Succeeded(data["prompt_id"])
            case "execution_interrupted":
                assert event == Interrupted(data["prompt_id"])
            case "execution_error":
                fields = ("prompt_id", "node_id", "node_type", "exception_type", "exception_message")
                assert event == Errored(*(data[field] for field in fields))
            case _:
                assert kind in PASSED_OVER
                assert event is None


def graphs(transcript: recording.Transcript) -> dict[str, Graph]:
    """prompt_id -> the graph that was accepted under it."""
    return {
        response.json["prompt_id"]: request.json["prompt"]
        for request, response in transcript.exchanges()
        if (request.method, request.path, response.status) == ("POST", "/prompt", 200)
    }


def events_of(transcript: recording.Transcript, prompt_id: str) -> list[protocol.Event]:
    parsed = [parse_message(text(f.json) if f.binary is None else f.binary) for f in transcript.frames()]
    return [event for event in parsed if event is not None and getattr(event, "prompt_id", "") == prompt_id]


@pytest.mark.parametrize("name", RECORDINGS)
def test_progress_over_a_whole_recording(name: str) -> None:
    transcript = recording.load(name)
    for prompt_id, graph in graphs(transcript).items():
        events = events_of(transcript, prompt_id)
        progress = PromptProgress(graph)
        told = [percent for event in events if (percent := progress.feed(event)) is not None]
        assert told == sorted(set(told))
        if Succeeded(prompt_id) in events:
            assert told, "at least one per job"
            assert told[-1] == 99.99, "all nodes were done"
        elif told:
            assert told[-1] < 99.0


@pytest.mark.parametrize(
    ("name", "least"), [("success", 4), ("txt2img_progress_previews", 10), ("cached_rerun", 1), ("own_prompt_id", 2)]
)
def test_how_finely_recorded_jobs_are_told(name: str, least: int) -> None:
    transcript = recording.load(name)
    ((prompt_id, graph),) = graphs(transcript).items()
    progress = PromptProgress(graph)
    told = [p for event in events_of(transcript, prompt_id) if (p := progress.feed(event)) is not None]
    assert len(told) >= least


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_recorded_answer_has_its_right_value(name: str) -> None:
    for request, response in recording.load(name).exchanges():
        body = text(response.json).encode()
        if request.path == "/queue" and request.method == "GET":
            view = parse_queue(body)
            assert view.running == tuple(item[1] for item in response.json["queue_running"])
            assert view.pending == tuple(item[1] for item in response.json["queue_pending"])
        elif request.path.startswith("/history/"):
            prompt_id = request.path.rsplit("/", 1)[1]
            entry = parse_history(body, prompt_id)
            if response.json == {}:
                assert entry is None
                continue
            assert entry is not None
            recorded = response.json[prompt_id]
            assert entry.outputs == recorded["outputs"]
            kinds = [message[0] for message in recorded["status"]["messages"]]
            expected: type = Succeeded if recorded["status"]["status_str"] == "success" else Errored
            expected = Interrupted if "execution_interrupted" in kinds else expected
            assert type(entry.outcome()) is expected
        elif request.path == "/prompt" and request.method == "POST" and response.status == 200:
            answer = msgspec.json.decode(body, type=PromptAnswer)
            assert answer.prompt_id == response.json["prompt_id"]
            assert answer.node_errors == response.json["node_errors"]
        elif request.path == "/prompt" and request.method == "POST":
            refusal = msgspec.json.decode(body, type=PromptRefusal)
            recorded = response.json
            expected_kinds = {recorded["error"]["type"]}
            node_errors = recorded["node_errors"] or {}
            for node, entry_ in node_errors.items():
                expected_kinds |= {error["type"] for error in entry_["errors"]}
                assert f"node {node} ({entry_['class_type']})" in refusal.text()
            assert refusal.kinds() == expected_kinds
            if not node_errors:
                assert recorded["error"]["message"] in refusal.text()
        elif request.path == "/upload/image" and response.status == 200:
            stored = msgspec.json.decode(body, type=UploadAnswer)
            prefix = f"{response.json['subfolder']}/" if response.json["subfolder"] else ""
            assert stored.value == prefix + response.json["name"]


def test_the_recorded_error_says_which_node_and_why() -> None:
    transcript = recording.load("execution_error")
    ((prompt_id, _),) = graphs(transcript).items()
    (errored,) = [event for event in events_of(transcript, prompt_id) if isinstance(event, Errored)]
    (body,) = [r.json for q, r in transcript.exchanges() if q.path.startswith("/history/")]
    entry = parse_history(text(body).encode(), prompt_id)
    assert entry is not None
    by_history = entry.outcome()
    assert isinstance(by_history, Errored)
    assert errored == by_history, "socket and history are two witnesses of one thing"
    assert errored.node_type == "LoadImage"
    assert errored.exception_message


def test_a_recorded_partial_acceptance_is_noticed_and_described() -> None:
    answers = [r.json for q, r in recording.load("validation_errors").exchanges() if r.status == 200]
    (answer,) = [msgspec.convert(a, PromptAnswer) for a in answers if "prompt_id" in a]
    assert "node 3" in describe_node_errors(answer.node_errors)
    assert "Required input is missing" in describe_node_errors(answer.node_errors)


@pytest.mark.parametrize("name", ["success", "cached_rerun", "txt2img_progress_previews"])
def test_socket_and_history_name_the_same_files(name: str) -> None:
    transcript = recording.load(name)
    ((prompt_id, _),) = graphs(transcript).items()
    by_socket = [f for e in events_of(transcript, prompt_id) if isinstance(e, Executed) for f in files_of(e.output)]
    bodies = [r.json for q, r in transcript.exchanges() if q.path == f"/history/{prompt_id}" and r.json]
    entry = parse_history(text(bodies[0]).encode(), prompt_id)
    assert entry is not None
    by_history = [file for output in entry.outputs.values() for file in files_of(output)]
    assert by_socket == by_history
    assert len(by_socket) == 1


# -- files and endings -----------------------------------------------------------------------------------------------


def test_files_are_found_whatever_a_node_calls_its_lists() -> None:
    output = {
        "images": [{"filename": "a.png", "subfolder": "", "type": "output"}],
        "gifs": [{"filename": "b.mp4", "subfolder": "clips", "type": "temp", "format": "video/h264-mp4"}],
        "animated": [True],
        "text": ["hello"],
        "audio": [{"filename": None}, {"filename": "c.flac", "type": 3}, {"filename": "d.flac"}, "x"],
        "count": 4,
    }
    assert files_of(output) == [
        RemoteFile("a.png"),
        RemoteFile("b.mp4", "clips", "temp"),
        RemoteFile("d.flac"),
    ]
    assert files_of(None) == []


def test_how_a_prompt_ended_by_its_history() -> None:
    def ended(status: str, *messages: Any) -> Any:
        return msgspec.convert({"status": {"status_str": status, "messages": list(messages)}}, HistoryEntry).outcome()

    assert isinstance(ended("success", ["execution_success", {}]), Succeeded)
    assert isinstance(ended("error", ["execution_start", {}], ["execution_interrupted", {"node_id": "1"}]), Interrupted)
    assert ended("error", ["execution_error", {"node_id": 5, "exception_message": "no"}]) == Errored(
        "", node_id="5", exception_message="no"
    )
    assert ended("error").exception_message == "the backend gives no reason"
