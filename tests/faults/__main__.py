"""The fault suite on the command line. Exits with 1 where anything was wrong."""

from __future__ import annotations

import argparse
import secrets
import sys
from pathlib import Path

import trio

from .machines import ROOT
from .routes import enter
from .run import run, summary, told
from .scenarios import SCENARIOS
from .world import FULL, SMALL, Scale, Verdict


async def run_all(names: list[str], seed: str, scale: Scale, source: Path, keep: bool) -> list[Verdict]:
    verdicts = []
    for name in names:
        print(f"{name} …", flush=True)
        verdicts.append(await run(name, seed, scale, source, keep))
        print(told(verdicts[-1], scale), flush=True)
    return verdicts


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", default=secrets.token_hex(4), help="default: a new one")
    parser.add_argument("--scenario", action="append", choices=sorted(SCENARIOS), help="may be repeated; default: all")
    parser.add_argument("--scale", choices=("small", "full"), default="full")
    parser.add_argument("--source", type=Path, default=ROOT, help="the checkout whose daemon is tried; default: this")
    parser.add_argument("--keep", action="store_true", help="keep logs, diaries and state, also where all is well")
    args = parser.parse_args()
    enter(["--seed", args.seed, *sys.argv[1:]])
    scale = FULL if args.scale == "full" else SMALL
    print(f"seed {args.seed}")
    verdicts = trio.run(run_all, args.scenario or list(SCENARIOS), args.seed, scale, args.source.resolve(), args.keep)
    print(summary(verdicts, args.seed))
    sys.exit(any(verdict.violations for verdict in verdicts))


if __name__ == "__main__":
    main()
