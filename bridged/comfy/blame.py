"""Whose fault a node's exception is, from what ComfyUI says of it: the host's where another PC may fare better.

Sources: torch raises `torch.OutOfMemoryError` (before 2.5 `torch.cuda.OutOfMemoryError`), ComfyUI's own allocator says
"Allocation on device"; CUDA and HIP faults stay with the process until it is restarted: every next job has them, too.
"""

from __future__ import annotations

from bridged.model import OUT_OF_MEMORY, Failure, Fault

MEMORY = ("out of memory", "allocation on device", "can't allocate memory", "cannot allocate memory")
HOST = (
    "no space left on device",
    "disk quota exceeded",
    "read-only file system",
    "input/output error",
    "cuda error",
    "cuda driver error",
    "hip error",
    "cudnn error",
    "cublas_status",
)


def blame(node_id: str | None, node_type: str | None, exception_type: str, message: str) -> Failure:
    """The failure of one attempt, for people, with the node, its type and the exception's own words."""
    where = f"node {node_id} ({node_type}): {exception_type}: " if node_id else ""
    text = f"{where}{message.strip()}"
    said = message.lower()
    if exception_type.rpartition(".")[2] in ("OutOfMemoryError", "MemoryError") or any(word in said for word in MEMORY):
        return Failure(Fault.HOST, text, OUT_OF_MEMORY)
    if any(word in said for word in HOST):
        return Failure(Fault.HOST, text)
    return Failure(Fault.WORKFLOW, text, f"{node_id} {exception_type}")
