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
        backends = read_backends(folder, {})
        secrets = ["`headers`"] if any(backend.headers for backend in backends) else []
        secrets += ["a `token`"] if any(backend.token and not backend.token_file for backend in backends) else []
        if secrets and _public(folder / BACKENDS_FILE):
            what = " and ".join(secrets)
            found.append(f"{BACKENDS_FILE}: it has {what}, and everybody on this machine can read it; chmod 640")
        for backend in backends:
            if backend.token_file and _public(folder / Path(backend.token_file).expanduser()):
                found.append(f"{backend.token_file}: everybody on this machine can read that token; chmod 640")
    with suppress(ConfigError):
        if read_settings(folder, {}).webhooks.secret and _public(folder / SETTINGS_FILE):
            found.append(f"{SETTINGS_FILE}: it has a `secret`, and everybody on this machine can read it; chmod 640")
    return found


def _public(path: Path) -> bool:
    return bool(path.stat().st_mode & stat.S_IROTH)
