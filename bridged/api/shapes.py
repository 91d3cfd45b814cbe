"""What several endpoints take or give, for the OpenAPI document: the submission, its parameters, a job's files."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from bridged.api.openapi import Parameter, Reply
from bridged.api.query import MAX_KEY, MAX_WAIT
from bridged.api.uploads import MAX_PARTS
from bridged.model import Fault

VALUE: dict[str, Any] = {"type": ["string", "number", "boolean"]}


class ResultFile(msgspec.Struct):
    """One file of a job's results; `content` in base64."""

    file_name: str
    content_type: str
    content: str


class RefusedFile(msgspec.Struct):
    """A file that a PC made and that did not pass the checks."""

    name: str
    reason: str


class ResultFiles(msgspec.Struct):
    files: list[ResultFile]
    refused: list[RefusedFile] | msgspec.UnsetType = msgspec.UNSET


class Queued(msgspec.Struct):
    """`detail`: "queued / N", N open jobs, this one included."""

    detail: str
    job_id: str


class Failed(msgspec.Struct):
    """Why a request or its job failed. The last two are of a job; `fault`: whose it was."""

    detail: str
    fault: Fault | msgspec.UnsetType = msgspec.UNSET
    job_id: str | msgspec.UnsetType = msgspec.UNSET


class Said(msgspec.Struct):
    """What was done, for people."""

    detail: str


ResType = Literal["multipart", "base64"]

RES_TYPE = Parameter(
    "resType",
    "how the files come",
    schema={"type": "string", "enum": ["multipart", "base64"], "default": "multipart"},
)

IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "printable ASCII; the same submission of the same client under the same key leads to the same job, however often "
    "it is sent",
    place="header",
    schema={"type": "string", "maxLength": MAX_KEY, "pattern": "^[ -~]*$"},
)

SUBMISSION = Reply(
    "The workflow, and values for its inputs (those of /workflow-info). Others keep their defaults.",
    {
        "application/json": {
            "type": "object",
            "required": ["workflow"],
            "properties": {
                "workflow": {"type": "string", "description": "an alias of /workflow-list"},
                "webhook": {
                    "type": "string",
                    "description": "URL to call at the job's end; its host must be allowed by the operator",
                },
            },
            "additionalProperties": {
                **VALUE,
                "description": "NODE/input: a value of that input's type; for a file an upload token of /upload",
            },
            "examples": [{"workflow": "portrait", "6/text": "a lighthouse", "15/seed": 1}],
        }
    },
)

UPLOAD = Reply(
    "Any number of files, at least one. A part's name is the caller's identifier for it; every part has a filename.",
    {
        "multipart/form-data": {
            "type": "object",
            "minProperties": 1,
            "maxProperties": MAX_PARTS,
            "additionalProperties": {"type": "string", "format": "binary"},
        }
    },
)

FILES = Reply(
    "The job's files. A file that did not pass the checks is not among them: see `X-Results-Refused`, and /jobs.",
    {
        "multipart/form-data": {
            "type": "object",
            "description": "parts result_0, result_1, … with filename and content type",
            "additionalProperties": {"type": "string", "format": "binary"},
        },
        "application/json": ResultFiles,
    },
    {
        "X-Job-Id": ("the job they are of", {"type": "string"}),
        "X-Results-Refused": ("how many files were refused, where some were", {"type": "integer", "minimum": 1}),
        "Content-Disposition": ("`attachment`", {"type": "string"}),
    },
)


def waiting(default: float, text: str) -> Parameter:
    return Parameter(
        "wait",
        text,
        schema={"type": "number", "minimum": 0, "maximum": MAX_WAIT, "default": default},
    )
