"""The fault suite: the real daemon as a process, PCs as processes, and everything that can go wrong between them.

    python -m tests.faults                          every scenario, full size, a new seed
    python -m tests.faults --scenario kills --seed 7 --scale small
    make faults                                     the same as the first, in .venv

How it is told, from the bottom up:

    pictures    what the one right result of a job looks like
    pc          a PC: the fake ComfyUI as a process that keeps a diary and takes orders on /control
    machines    the suite's hold on a PC: kill, freeze, restart, order, and the proxy in front of it
    proxy       a TCP proxy that loses, delays, cuts and resets
    routes      cables that are pulled: the kernel drops a PC's packets, in a network namespace of our own
    service     the daemon as a process, its configuration folder, what /proc says of it
    book        what was acknowledged, and all that was seen of it
    customers   the clients
    owner       the owner's own prompts, which nobody may touch
    diary       what the PCs wrote down: executions by job
    invariants  what must hold after every scenario
    world       one of each, set up, healed, settled and judged
    scenarios…  what goes wrong, each a function of the world; its random choices come from the seed

Black box: nothing here imports `bridged`. Settings are written only where the daemon under test has them.
"""
