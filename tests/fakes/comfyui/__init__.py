"""A scriptable fake ComfyUI that speaks real HTTP and WebSocket on a real socket, and executes no pixels.

It plays any graph of classes that it knows with the events of ComfyUI 0.3.64, in their order, one prompt at a
time, and gives every output node a real PNG that no other prompt's output equals (`png_for`). Tests tell it
how things go (`Script`), look at what was done to it (`calls`, `prompts`, `violations`), and end or stall its
connections. Use:

    fake = FakeComfyUI(name="one")
    async with trio.open_nursery() as nursery:
        await nursery.start(fake.serve)
        fake.script.gate = trio.Event()                     # every prompt stops in its first node …
        ...                                                 # … submit something to fake.url
        with trio.fail_after(5):
            await fake.wait_for(lambda: any(prompt.held_at for prompt in fake.prompts.values()))
        fake.script.gate.set()                              # … until now
        ...
        assert fake.violations == []
        nursery.cancel_scope.cancel()

`violations` collects what nobody who shares a PC with its owner may do: an interrupt without a prompt_id,
`clear: true`, naming or hitting a prompt that came from `submit_foreign`.

In a process of its own: `python -m tests.fakes.comfyui --port 8188 --node-duration 0.01`. It prints one JSON
line with its URL; `GET /__calls`, `/__prompts` and `/__violations` tell what happened, with time.monotonic()
times (`mono`).
"""

from .facts import DEFAULT_CLASSES, recorded_classes
from .files import png_for
from .script import END, START, STORE, Call, Graph, PromptRecord, PromptScript, Reply, Script
from .server import FakeComfyUI

__all__ = [
    "DEFAULT_CLASSES",
    "END",
    "START",
    "STORE",
    "Call",
    "FakeComfyUI",
    "Graph",
    "PromptRecord",
    "PromptScript",
    "Reply",
    "Script",
    "png_for",
    "recorded_classes",
]
