"""Whose fault a node's exception is: what torch, CUDA, ComfyUI and the kernel say, and what nodes say of themselves."""

from __future__ import annotations

import pytest

from bridged.comfy.blame import blame
from bridged.model import OUT_OF_MEMORY, Failure, Fault

CUDA = "CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 23.69 GiB total capacity)"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("torch.OutOfMemoryError", CUDA),
        ("torch.cuda.OutOfMemoryError", CUDA),
        ("OutOfMemoryError", ""),
        ("torch.OutOfMemoryError", "Allocation on device 0 would exceed allowed memory."),
        ("MemoryError", ""),
        ("numpy.core._exceptions._ArrayMemoryError", "Unable to allocate: out of memory"),
        ("RuntimeError", "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        ("RuntimeError", "CUDA error: out of memory"),
        ("OSError", "[Errno 12] Cannot allocate memory"),
    ],
)
def test_want_of_memory_is_the_hosts_and_has_a_signature_of_its_own(kind: str, message: str) -> None:
    failure = blame("5", "VAEDecode", kind, message)
    assert (failure.fault, failure.signature) == (Fault.HOST, OUT_OF_MEMORY)


@pytest.mark.parametrize(
    "message",
    [
        "[Errno 28] No space left on device",
        "[Errno 122] Disk quota exceeded",
        "[Errno 30] Read-only file system: '/out/x.png'",
        "[Errno 5] Input/output error",
        "CUDA error: an illegal memory access was encountered",
        "CUDA driver error: unknown error",
        "HIP error: invalid device function",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED",
    ],
)
def test_what_is_wrong_with_the_pc_is_the_hosts(message: str) -> None:
    failure = blame("5", "SaveImage", "RuntimeError", message)
    assert failure == Failure(Fault.HOST, f"node 5 (SaveImage): RuntimeError: {message}")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("ValueError", "width must be a multiple of 8"),
        ("RuntimeError", "mat1 and mat2 shapes cannot be multiplied (77x768 and 1024x320)"),
        ("FileNotFoundError", "[Errno 2] No such file or directory: 'x.safetensors'"),
        ("KeyError", "'device'"),
        ("", ""),
    ],
)
def test_anything_else_is_the_workflows_until_shown_otherwise(kind: str, message: str) -> None:
    failure = blame("5", "KSampler", kind, message)
    assert (failure.fault, failure.signature) == (Fault.WORKFLOW, f"5 {kind}")


def test_the_signature_tells_nodes_and_types_apart_but_not_words() -> None:
    same = {blame("5", "A", "ValueError", words).signature for words in ("seed 1", "seed 2")}
    assert len(same) == 1
    assert blame("6", "A", "ValueError", "seed 1").signature not in same
    assert blame("5", "A", "TypeError", "seed 1").signature not in same
    assert OUT_OF_MEMORY not in same


def test_people_read_the_node_its_type_and_its_own_words() -> None:
    failure = blame("5", "KSampler", "ValueError", "  no such sampler\n")
    assert failure.message == "node 5 (KSampler): ValueError: no such sampler"


def test_without_a_node_there_is_only_what_was_said() -> None:
    assert blame(None, None, "ValueError", "odd").message == "odd"
