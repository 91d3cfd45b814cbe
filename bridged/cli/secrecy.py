"""What `bridged check` says of secrets that every account of the machine can read.

Not of clients.toml: a hash of 256 random bits gives nothing away.
"""

from __future__ import annotations

import stat
from contextlib import suppress
from pathlib import Path

from bridged.config.load import BACKENDS_FILE, SETTINGS_FILE, read_backends, read_settings
from bridged.errors import ConfigError


def readable_secrets(folder: Path) -> list[str]:
    """One line for each file with a secret that others than its owner and group can read."""
    found = []
    with suppress(ConfigError):  # the check itself says so
        if any(backend.headers for backend in read_backends(folder, {})) and _public(folder / BACKENDS_FILE):
            found.append(f"{BACKENDS_FILE}: it has `headers`, and everybody on this machine can read it; chmod 640")
    with suppress(ConfigError):
        if read_settings(folder, {}).webhooks.secret and _public(folder / SETTINGS_FILE):
            found.append(f"{SETTINGS_FILE}: it has a `secret`, and everybody on this machine can read it; chmod 640")
    return found


def _public(path: Path) -> bool:
    return bool(path.stat().st_mode & stat.S_IROTH)
