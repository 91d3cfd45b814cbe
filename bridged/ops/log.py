"""Log lines: to stderr, one line each; under systemd with the journal's priorities in place of a clock."""

from __future__ import annotations

import logging
import os
import sys

_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class _Journal(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        priority = f"<{_PRIORITY.get(record.levelno, 6)}>"
        # The journal takes a priority per line, and a traceback has many.
        return "\n".join(priority + line for line in super().format(record).splitlines())


def configure(level: str) -> None:
    """`level`: debug, info, warning or error. Libraries below us speak from warning on."""
    handler = logging.StreamHandler(sys.stderr)
    if os.environ.get("JOURNAL_STREAM"):
        handler.setFormatter(_Journal("%(name)s: %(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    handler.set_name("bridged")
    root = logging.getLogger()
    root.handlers[:] = [other for other in root.handlers if other.get_name() != "bridged"] + [handler]
    logging.getLogger("bridged").setLevel(level.upper())
    # A handshake that fails is the caller's business; h11 and wsproto say nothing useful below this.
    for noisy in ("httpx", "httpcore", "trio-websocket", "hypercorn", "quart.app", "quart.serving"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
