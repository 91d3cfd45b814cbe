"""`python -m tests.fuzz.guided NAME SECONDS`: parsers of bytes under atheris, which looks for new ways through them.

Needs atheris (`pip install -e '.[fuzz]'`), which has wheels for Linux on x86-64 only. What it found is kept, by target,
in a folder of its own (BRIDGED_FUZZ_CORPUS, else the user's cache), and is where the next run begins.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

Check = Callable[[bytes], object]

FORMATS = ["png", "jpg", "webp", "gif", "bmp", "tif", "mp4", "mov", "webm", "mp3", "wav", "flac", "ogg"]
TARGETS = [
    *[f"guided.file.{extension}" for extension in FORMATS],
    *["guided.file.svg", "guided.file.json", "guided.multipart", "guided.messages", "guided.answers"],
]
UNIT = 20
"""seconds that one input may take"""


def available() -> bool:
    return importlib.util.find_spec("atheris") is not None


def corpus(name: str) -> Path:
    base = os.environ.get("BRIDGED_FUZZ_CORPUS") or Path.home() / ".cache" / "bridged-fuzz"
    return Path(base) / name


def prepared(name: str) -> tuple[Check, Sequence[bytes]]:
    """What to do with an input, and the inputs to begin with. Imports what it needs, to be instrumented."""
    kind = name.removeprefix("guided.")
    if kind.startswith("file."):
        from tests.corpus.seeds import seed
        from tests.fuzz import test_files

        extension = kind.removeprefix("file")

        def check_file(data: bytes) -> None:
            found = test_files.checked(data, f"a{extension}")
            if found is not None:
                test_files.cleaned(data, found, extension)

        return check_file, test_files.TEXTS if extension in (".svg", ".json") else [seed(extension)]
    if kind == "multipart":
        from tests.fuzz import test_requests

        multipart = test_requests.test_any_multipart_body_is_stored_whole_or_refused_whole
        check_whole = multipart.hypothesis.inner_test  # type: ignore[attr-defined]
        return lambda data: check_whole(test_requests.TYPES[0], [data[:50], data[50:]], 100_000), test_requests.BODIES
    from bridged.comfy import protocol
    from bridged.errors import BackendUnavailable
    from bridged.nodedefs.parse import parse_classes
    from tests.fuzz import test_backends

    def check_message(data: bytes) -> None:
        protocol.parse_message(data)
        event = protocol.parse_message(data.decode("utf-8", "replace"))
        if event is not None:
            protocol.PromptProgress({"1": {"class_type": "A", "inputs": {}}}).feed(event)

    def check_answer(data: bytes) -> None:
        for parse in (protocol.parse_queue, parse_classes, lambda data: protocol.parse_history(data, "p")):
            try:
                read = parse(data)
            except BackendUnavailable:
                continue
            if isinstance(read, protocol.HistoryEntry):
                read.outcome()
                for output in read.outputs.values():
                    protocol.files_of(output)

    if kind == "messages":
        return check_message, [test_backends.EVENT, *test_backends.MESSAGES]
    return check_answer, [*test_backends.PROMPTS, *test_backends.DEFINITIONS, *test_backends.RECORDS]


def main() -> None:
    import atheris

    name, seconds = sys.argv[1], sys.argv[2]
    with atheris.instrument_imports(include=["bridged", "werkzeug.sansio"]):
        check, seeds = prepared(name)
    known = corpus(name)
    known.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds):
        (known / f"seed-{number}").write_bytes(data)
    atheris.Setup(
        [
            *[sys.argv[0], str(known), f"-max_total_time={int(float(seconds))}", f"-timeout={UNIT}"],
            *["-rss_limit_mb=3000", "-print_final_stats=1", "-verbosity=0", f"-artifact_prefix={known.parent}/{name}-"],
        ],
        check,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
