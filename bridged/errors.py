"""Every error a caller can see: a class, a stable code, the HTTP status it deserves.

The bridge dialect keeps 400 for every fault of the request itself (the wire contract says so); it maps `status`
to 400 where the contract asks for that. New endpoints use `status` as it is.
"""

from __future__ import annotations


class BridgedError(Exception):
    """Base of all errors with a message for people; `str(error)` is that message."""

    code = "error"
    status = 500


class ConfigError(BridgedError):
    """A configuration file is wrong; the message starts with FILE, then a line or a key path."""

    code = "config_invalid"
    status = 400


class BadRequest(BridgedError):
    """The request itself is wrong."""

    code = "bad_request"
    status = 400


class UnknownAlias(BadRequest):
    """No workflow of that name is registered."""

    code = "unknown_workflow"
    status = 404


class BadInput(BadRequest):
    """One input's key or value is wrong; the message names the key."""

    code = "bad_input"
    status = 422


class NoBackendCanRun(BadRequest):
    """No configured backend has the nodes; the message gives the reason per backend name, never an address."""

    code = "no_backend_can_run"
    status = 422


class FileRefused(BadRequest):
    """A file's name, type or content is not acceptable; `kind` is its content's type where that was looked at."""

    code = "file_refused"
    status = 422

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


class TooLarge(BridgedError):
    """The body or a file is larger than the configured limit."""

    code = "too_large"
    status = 413


class KeyReused(BadRequest):
    """An Idempotency-Key came again, with another submission than the first time."""

    code = "idempotency_key_reused"
    status = 422


class Unauthorized(BridgedError):
    """No key, or none that is good; the message is the same for both kinds of wrong."""

    code = "unauthorized"
    status = 401


class Forbidden(BridgedError):
    """The caller is known and may not do this, or the request comes from where it may not."""

    code = "forbidden"
    status = 403


class TooMany(BridgedError):
    """A limit of this caller or address; `retry_after` in seconds."""

    code = "too_many"
    status = 429

    def __init__(self, message: str, retry_after: float = 5.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnknownFolder(BadRequest):
    """No backend has a folder, a node class or a combo of that name."""

    code = "unknown_folder"
    status = 404


class NotYetKnown(BridgedError):
    """No backend has answered that question yet: they are all away, or have only just come."""

    code = "not_yet_known"
    status = 503


class UnknownJob(BadRequest):
    """No job of that id is known (any more)."""

    code = "unknown_job"
    status = 404


class Stopping(BridgedError):
    """The service is stopping and takes no new work."""

    code = "stopping"
    status = 503


class QueueFull(BridgedError):
    """More jobs wait than the configuration allows."""

    code = "queue_full"
    status = 429


class OutOfSpace(BridgedError):
    """The disk is full: new work is refused, running work goes on."""

    code = "out_of_space"
    status = 503

    def __init__(self) -> None:
        super().__init__("the service's disk is full; try again later")


class StorageFailed(BridgedError):
    """The service's own disk refuses; the log says more than the caller is told."""

    code = "storage_failed"
    status = 503


class ScannerAway(BridgedError):
    """The virus scanner that every file must pass does not answer, or cannot say of this one."""

    code = "scanner_away"
    status = 503

    def __init__(self, message: str = "") -> None:
        super().__init__(message or "the virus scanner does not answer; files are refused until it does")


class AttemptFailed(BridgedError):
    """One attempt of a job ended badly on its backend; carries who is at fault (a `model.Fault`).

    `lost`: nobody knows whether it ran to its end; `down`: the backend went away with it; `signature`: see
    `model.Failure`.
    """

    code = "attempt_failed"

    def __init__(
        self, message: str, fault: str, *, lost: bool = False, down: bool = False, signature: str = ""
    ) -> None:
        super().__init__(message)
        self.fault = fault
        self.lost = lost
        self.down = down
        self.signature = signature


class BackendUnavailable(BridgedError):
    """A backend did not answer, or answered what no ComfyUI answers.

    `refused`: its PC refuses connections, so no ComfyUI runs there; False also where that was not looked at.
    `answered`: it did answer, but nothing that says whether it did what it was asked.
    """

    code = "backend_unavailable"
    status = 502

    def __init__(self, message: str, *, refused: bool = False, answered: bool = False) -> None:
        super().__init__(message)
        self.refused = refused
        self.answered = answered


class PausedByOwner(BridgedError):
    """A PC refuses a prompt because its owner does not lend it for now: nobody's fault."""

    code = "paused_by_owner"
    status = 503
