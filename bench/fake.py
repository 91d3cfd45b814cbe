"""A fake ComfyUI (tests/fakes/comfyui) in a process of its own whose graphs say how they go, so that one fake plays
short and long jobs: EmptyImage's `width` is its duration in ms, told in `height` progress steps (also when an
interrupt is heard), and `batch_size` above 1 pads the result to that many MB. `python -m bench.fake`
prints one JSON line with its URL. `GET /__calls` and `/__prompts` tell what happened, on time.monotonic().
"""

from __future__ import annotations

import argparse
import json
import struct
import zlib
from functools import partial

import trio

from tests.fakes.comfyui import FakeComfyUI, Graph, PromptScript, Script, png_for

SOURCE, SAVE = "1", "2"
"""the node ids of bench.common.graph"""


def padded_png(size: int) -> bytes:
    """A valid PNG of about `size` bytes: an ancillary chunk before its end."""
    png, end = png_for("large")[:-12], png_for("large")[-12:]
    filler = b"biGx" + bytes(size)
    return png + struct.pack(">I", size) + filler + struct.pack(">I", zlib.crc32(filler)) + end


def script_of(graph: Graph, prompt_id: str) -> PromptScript:
    inputs = graph[SOURCE]["inputs"]
    large = inputs["batch_size"] > 1
    return PromptScript(
        durations={SOURCE: inputs["width"] / 1000},
        node_steps={SOURCE: inputs["height"]},
        output_bytes=padded_png(inputs["batch_size"] * 1_000_000) if large else None,
    )


async def run(fake: FakeComfyUI, port: int) -> None:
    async with trio.open_nursery() as nursery:
        url = await nursery.start(partial(fake.serve, port=port))
        print(json.dumps({"url": url}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.fake", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 (the default) takes a free one and prints it")
    args = parser.parse_args()
    try:
        trio.run(run, FakeComfyUI(name="bench", script=Script(for_prompt=script_of)), args.port)
    except* KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
