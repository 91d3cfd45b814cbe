"""The fake in a process of its own, for benchmarks."""

import argparse
import json
from functools import partial

import trio

from . import FakeComfyUI, Script, recorded_classes


async def run(fake: FakeComfyUI, port: int) -> None:
    async with trio.open_nursery() as nursery:
        url = await nursery.start(partial(fake.serve, port=port))
        print(json.dumps({"name": fake.name, "url": url}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.fakes.comfyui", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 (the default) takes a free one and prints it")
    parser.add_argument("--name", default="fake")
    parser.add_argument("--node-duration", type=float, default=0.0, help="seconds that every node takes")
    parser.add_argument("--steps", type=int, default=0, help="progress events of every node")
    parser.add_argument("--all-classes", action="store_true", help="know all recorded node classes")
    parser.add_argument("--atomic-cancel", action="store_true", help="serve /api/jobs/{id}/cancel")
    args = parser.parse_args()
    fake = FakeComfyUI(
        name=args.name,
        classes=recorded_classes() if args.all_classes else None,
        script=Script(node_duration=args.node_duration, steps=args.steps),
        atomic_cancel=args.atomic_cancel,
    )
    try:
        trio.run(run, fake, args.port)
    except* KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
