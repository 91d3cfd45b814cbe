"""The fake's HTTP routes: what each answers and does."""

import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import trio

from .facts import MODEL_FOLDERS
from .files import StoredFile, view_reply
from .graph import Verdict, check, refusal
from .script import Call, PromptRecord, Reply

if TYPE_CHECKING:
    from .server import FakeComfyUI

Handler = Callable[["FakeComfyUI", Call, str], Awaitable[Reply]]

MALFORMED = Reply.text("500 Internal Server Error\n\nServer got itself in trouble", 500)


async def route(fake: "FakeComfyUI", call: Call) -> Reply:
    """The answer to a call. A path is looked up whole first, then without its last part, which the handler
    gets.
    """
    parent, _, last = call.route.rpartition("/")
    methods = ROUTES.get(call.route)
    rest = ""
    if methods is None and (methods := ROUTES.get(parent + "/*")) is not None:
        rest = last
    if fake.atomic_cancel and (job := await _jobs(fake, call)) is not None:
        return job
    method = "GET" if call.method == "HEAD" else call.method
    if methods is not None and method in methods:
        return await methods[method](fake, call, rest)
    # A real one serves its web page's files under /, so it knows every path, for GET: anything else is 405
    # (measured).
    return Reply(404) if method == "GET" else Reply.text("405: Method Not Allowed", 405)


async def _jobs(fake: "FakeComfyUI", call: Call) -> Reply | None:
    """GET /api/jobs/{id} and POST /api/jobs/{id}/cancel, as ComfyUI has them since mid-2026 (Comfy-
    Org/ComfyUI #14493).
    """
    parts = call.path.strip("/").split("/")
    if parts[:2] != ["api", "jobs"] or len(parts) not in (3, 4):
        return None
    prompt_id, engine = parts[2], fake.engine
    if call.method == "POST" and parts[3:] == ["cancel"]:
        _foreign(fake, "cancel", [prompt_id])
        if engine.running is not None and engine.running.prompt_id == prompt_id:
            engine.interrupt()
            return Reply.json({"cancelled": True})
        return Reply.json({"cancelled": engine.delete(prompt_id)})
    if call.method != "GET" or len(parts) != 3:
        return None
    record = fake.prompts.get(prompt_id)
    names = {
        "queued": "pending",
        "running": "in_progress",
        "done": "completed",
        "error": "failed",
        "interrupted": "cancelled",
    }
    if record is None or (not record.open and prompt_id not in engine.history):
        return Reply.json({"error": "Job not found"}, 404)
    job = {
        "id": prompt_id,
        "status": names[record.state],
        "priority": record.number,
        "outputs_count": len(record.images),
    }
    return Reply.json({**job, "outputs": record.outputs} if not record.open else job)


def _foreign(fake: "FakeComfyUI", deed: str, prompt_ids: list[Any]) -> None:
    for prompt_id in prompt_ids:
        record = fake.prompts.get(prompt_id)
        if record is not None and record.foreign:
            fake.violations.append(f"{deed} names the foreign prompt {prompt_id}")


async def get_prompt(fake: "FakeComfyUI", call: Call, rest: str) -> Reply:
    return Reply.json({"exec_info": {"queue_remaining": fake.engine.remaining}})


async def post_prompt(fake: "FakeComfyUI", call: Call, rest: str) -> Reply:
    body = call.json
    if not isinstance(body, dict):
        return MALFORMED
    engine = fake.engine
    number = (
        float(body["number"]) if "number" in body else engine.next_number() * (-1 if body.get("front") else 1)
    )
    if "prompt" not in body:
        return _refused(refusal("no_prompt", "No prompt provided", "No prompt provided"))
    prompt_id, graph = str(body.get("prompt_id") or uuid.uuid4()), body["prompt"]
    if fake.atomic_cancel and not _canonical(prompt_id):
        told = "prompt_id must be a UUID string in canonical lowercase hyphenated form"
        return _refused(refusal("invalid_prompt_id", "prompt_id must be a valid UUID", told))
    script = fake.script.prompt_script(graph, prompt_id)
    if script.post_status != 200:
        return Reply.json(script.post_body, script.post_status)
    verdict = check(graph, fake.classes, fake.files.has_input, inputs=fake.script.validate)
    if verdict.error is not None:
        return _refused(verdict.error, verdict)
    if script.post_accepts or script.post_fate == "answer":
        if prompt_id in fake.prompts:
            fake.duplicates.append(prompt_id)
        extra = dict(body.get("extra_data") or {})
        if "client_id" in body:
            extra["client_id"] = body["client_id"]
        engine.put(PromptRecord(prompt_id, number, graph, extra, verdict.targets, script))
    if script.post_gate is not None:
        await script.post_gate.wait()
    if script.post_delay:
        await trio.sleep(script.post_delay)
    reply = Reply.json({"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors})
    if script.post_answer_status != 200:
        reply = Reply.text("Bad Gateway", script.post_answer_status)
    reply.fate = script.post_fate
    return reply


def _refused(error: Mapping[str, Any], verdict: Verdict | None = None) -> Reply:
    return Reply.json({"error": error, "node_errors": verdict.node_errors if verdict else {}}, 400)


def _canonical(prompt_id: str) -> bool:
    try:
        return str(uuid.UUID(prompt_id)) == prompt_id
    except ValueError:
        return False


async def get_queue(fake: "FakeComfyUI", call: Call, rest: str) -> Reply:
    running = [fake.engine.running.item()] if fake.engine.running else []
    return Reply.json(
        {"queue_running": running, "queue_pending": [record.item() for record in fake.engine.pending]}
    )


async def post_queue(fake: "FakeComfyUI", call: Call, rest: str) -> Reply:
    if not isinstance(call.json, dict):
        return MALFORMED
    if call.json.get("clear"):
        fake.violations.append("POST /queue with clear: true")
        fake.engine.clear()
    named = call.json.get("delete", [])
    _foreign(fake, "POST /queue", named)
    for prompt_id in named:
        fake.engine.delete(prompt_id)
    return Reply()


async def get_history(fake: "FakeComfyUI", call: Call, rest: str) -> Reply:
    history = fake.engine.history
    if rest:
        return Reply.json({rest: history[rest]} if rest in history else {})
    ids = list(history)
    count = int(call.query.get("max_items", len(ids)))
    start = int(call.query.get("offset", -1))
    start = max(0, len(ids) - count) if start < 0 else start
    return Reply.json({prompt_id: history[prompt_id] for prompt_id in ids[start : start + count]})


async def post_history(fake: "FakeComfyUI", call: Call, rest: str) -> Reply:
    if not isinstance(call.json, dict):
        return MALFORMED
    if call.json.get("clear"):
        fake.violations.append("POST /history with clear: true")
        fake.engine.history.clear()
    named = call.json.get("delete", [])
    _foreign(fake, "POST /history", named)
    for prompt_id in named:
        fake.engine.history.pop(prompt_id, None)
    return Reply()


async def post_interrupt(fake: "FakeComfyUI", call: Call, rest: str) -> Reply:
    prompt_id = call.json.get("prompt_id") if isinstance(call.json, dict) else None
    if not prompt_id:
        fake.violations.append("POST /interrupt without a prompt_id")
        fake.engine.interrupt()
        return Reply()
    _foreign(fake, "POST /interrupt", [prompt_id])
    running = fake.engine.running
    if running is not None and running.prompt_id == prompt_id:
        if fake.script.interrupt_gate is not None:
            await fake.script.interrupt_gate.wait()
        fake.engine.interrupt()
    return Reply()


async def post_free(fake: "FakeComfyUI", call: Call, rest: str) -> Reply:
    if not isinstance(call.json, dict):
        return MALFORMED
    if call.json.get("free_memory"):
        fake.engine.cache.clear()
    return Reply()


async def post_upload(fake: "FakeComfyUI", call: Call, rest: str) -> Reply:
    script = fake.script
    if script.upload_gate is not None:
        await script.upload_gate.wait()
    if script.upload_delay:
        await trio.sleep(script.upload_delay)
    if script.upload_status != 200:
        return Reply(script.upload_status)
    if script.upload_fate != "answer":
        return Reply(fate=script.upload_fate)
    return fake.files.upload(call.fields)


async def get_view(fake: "FakeComfyUI", call: Call, rest: str) -> Reply:
    found = fake.files.find(call.query)
    if not isinstance(found, StoredFile):
        return found
    script = found.record.script if found.record is not None else fake.script
    if script.view_gate is not None:
        await script.view_gate.wait()
    if script.view_delay:
        await trio.sleep(script.view_delay)
    if script.view_status != 200:
        return Reply(script.view_status)
    content = found.content if script.view_body is None else script.view_body
    reply = view_reply(call.query["filename"], content, call.headers)
    reply.truncate, reply.chunked, reply.fate = script.view_truncate, script.view_chunked, script.view_fate
    return reply


async def get_object_info(fake: "FakeComfyUI", call: Call, rest: str) -> Reply:
    classes = fake.object_info()
    return Reply.json({name: info for name, info in classes.items() if not rest or name == rest})


async def get_models(fake: "FakeComfyUI", call: Call, rest: str) -> Reply:
    if not rest:
        return Reply.json(MODEL_FOLDERS)
    known = rest in fake.models or rest in MODEL_FOLDERS
    return Reply.json(list(fake.models.get(rest, ()))) if known else Reply(404)


async def get_embeddings(fake: "FakeComfyUI", call: Call, rest: str) -> Reply:
    return Reply.json(list(fake.models.get("embeddings", ())))


async def get_files(fake: "FakeComfyUI", call: Call, rest: str) -> Reply:
    return Reply.json(fake.files.names(rest))


async def get_system_stats(fake: "FakeComfyUI", call: Call, rest: str) -> Reply:
    return Reply.json(fake.system_stats)


async def get_features(fake: "FakeComfyUI", call: Call, rest: str) -> Reply:
    return Reply.json(fake.features)


async def dump_calls(fake: "FakeComfyUI", call: Call, rest: str) -> Reply:
    return Reply.json([each.as_json() for each in fake.calls if not each.route.startswith("/__")])


async def dump_prompts(fake: "FakeComfyUI", call: Call, rest: str) -> Reply:
    return Reply.json({prompt_id: record.as_json() for prompt_id, record in fake.prompts.items()})


async def dump_violations(fake: "FakeComfyUI", call: Call, rest: str) -> Reply:
    return Reply.json(fake.violations)


ROUTES: Mapping[str, Mapping[str, Handler]] = {
    "/prompt": {"GET": get_prompt, "POST": post_prompt},
    "/queue": {"GET": get_queue, "POST": post_queue},
    "/history": {"GET": get_history, "POST": post_history},
    "/history/*": {"GET": get_history},
    "/interrupt": {"POST": post_interrupt},
    "/free": {"POST": post_free},
    "/upload/image": {"POST": post_upload},
    "/view": {"GET": get_view},
    "/object_info": {"GET": get_object_info},
    "/object_info/*": {"GET": get_object_info},
    "/models": {"GET": get_models},
    "/models/*": {"GET": get_models},
    "/embeddings": {"GET": get_embeddings},
    "/internal/files/*": {"GET": get_files},
    "/system_stats": {"GET": get_system_stats},
    "/features": {"GET": get_features},
    "/__calls": {"GET": dump_calls},
    "/__prompts": {"GET": dump_prompts},
    "/__violations": {"GET": dump_violations},
}
