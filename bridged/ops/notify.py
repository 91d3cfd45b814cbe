"""sd_notify (systemd.io, sd_notify(3)): says to the service manager how the daemon is. Silent without one."""

from __future__ import annotations

import os
import socket
import time

import trio


def notify(*lines: str) -> bool:
    """Sends assignments such as "READY=1". False where there is no service manager to tell."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(address)
            sock.send("\n".join(lines).encode())
    except OSError:
        return False
    return True


def ready() -> bool:
    return notify("READY=1", "STATUS=serving")


def reloading() -> bool:
    """Type=notify-reload wants the monotonic time with it."""
    return notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def stopping() -> bool:
    return notify("STOPPING=1", "STATUS=stopping; running prompts stay on their PCs")


async def watchdog() -> None:
    """Pings at half of systemd's WATCHDOG_USEC, for as long as the event loop turns."""
    period = int(os.environ.get("WATCHDOG_USEC") or 0) / 2e6
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()) or period <= 0:
        return
    while notify("WATCHDOG=1"):  # noqa: ASYNC110 - a ping is for a clock, not for an event
        await trio.sleep(period)
