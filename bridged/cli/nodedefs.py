"""`bridged nodedefs`: for authors of custom nodes. What is old in a node's source, and the new forms in its place."""

from __future__ import annotations

import difflib
import re
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bridged.cli.sources import Sources, replace
from bridged.errors import BadInput

if TYPE_CHECKING:
    from bridged.nodedefs.lint import Finding, Kind

SAFE: tuple[Kind, ...] = ("outputs", "combos")
"""what a stock ComfyUI 0.3.64 works with as well"""
FILES = click.argument("paths", metavar="FILE…", nargs=-1, required=True, type=click.Path(path_type=Path))


@click.group()
def nodedefs() -> None:
    """Find and migrate old forms in the Python source of custom nodes.

    No code of the nodes is run. A directory stands for all *.py files below it, but for hidden ones and __pycache__.
    Give all files of a pack at once: what one file does with another's classes is then seen.
    """


@nodedefs.command()
@FILES
def lint(paths: tuple[Path, ...]) -> None:
    """Say which old forms the files use, and what the new form would be.

    One line each: file, line, column, class, kind (outputs, combos, files), what is there, what it would be. Lines
    with (perhaps) are places where that cannot be seen; they do not count.

    Exit status: 0 where no old form was found, 1 where some were, 2 where a file could not be read.
    """
    from bridged.nodedefs.lint import findings  # here, so that the other commands start quickly

    sources = Sources(paths)
    found = False
    for path, read in sources.good.items():
        for finding in findings(read.source, sources.elsewhere):
            click.echo(_line(path, finding))
            found |= finding.certain
    sys.exit(2 if sources.bad else 1 if found else 0)


@nodedefs.command()
@FILES
@click.option("--write", is_flag=True, help="Change the files [default: show what would change, as a diff].")
@click.option(
    "--only",
    "kinds",
    multiple=True,
    type=click.Choice(["outputs", "combos", "files"]),
    help="Migrate these forms only. Repeat for more [default: outputs and combos].",
)
@click.option(
    "--keep-old/--drop-old",
    default=True,
    help="Whether RETURN_TYPES and its companions stay beside RETURNS [default: they stay].",
)
def migrate(paths: tuple[Path, ...], write: bool, kinds: tuple[Kind, ...], keep_old: bool) -> None:
    """Rewrite the files' old forms to the new ones, where that provably means the same.

    Without --write nothing is changed: the diff goes to standard output, for you to read or for `patch`. What is
    left alone is said on standard error, with the reason. A second run changes nothing.

    \b
    What a stock ComfyUI makes of each form (0.3.64: its server tried, its front end 1.27.10 read):
      outputs  RETURNS is not read. Beside the old attributes it changes nothing, so they stay by default.
               Alone (--drop-old) the class is missing from /object_info, and links from it are refused.
      combos   ("COMBO", {"options": […]}) shows the same choices. But the server no longer checks that
               a value is one of them, and refuses links from outputs whose type is that list.
      files    A remote COMBO is no combo there: no choices are shown, and no value is checked. So this
               needs --only files; use it for a ComfyUI that reads the new forms.

    Exit status: 0, or 2 where a file could not be read or written; the others are still done.
    """
    from bridged.nodedefs.migrate import migrate as migrated

    sources = Sources(paths)
    done: Counter[str] = Counter()
    files = left = apart = 0
    for path, read in sources.good.items():
        try:
            new = migrated(
                read.source.text, frozenset(kinds or SAFE), drop_old=not keep_old, elsewhere=sources.elsewhere
            )
            content = read.encode(new.text)
            if new.done and write:
                replace(path, read.content, content)
        except (BadInput, OSError) as error:
            sources.refuse(path, error)
            continue
        if new.done and not write:
            _diff(path, read.content, content)
        for finding in new.left:
            click.echo(f"left alone: {_line(path, finding)}", err=True)
        files += bool(new.done)
        left += len(new.left)
        apart += sum(finding.kind == "files" for finding in new.not_asked)
        done.update(finding.kind for finding in new.done)
    what = f"{done['outputs']} outputs, {done['combos']} combos, {done['files']} file lists"
    click.echo(f"{'migrated' if write else 'would migrate'} {what} in {files} files; {left} left alone", err=True)
    if apart and not kinds:
        click.echo(
            f"{apart} file lists stay: stock ComfyUI would show no choices; --only files migrates them", err=True
        )
    sys.exit(2 if sources.bad else 0)


def _line(path: Path, finding: Finding) -> str:
    instead = f" -> {finding.instead}" if finding.instead else ""
    why = f" ({'' if finding.certain else 'perhaps; '}{finding.by_hand})" if finding.by_hand else ""
    return f"{path}:{finding.line}:{finding.column}: {finding.node}: {finding.kind}: {finding.what}{instead}{why}"


def _diff(path: Path, old: bytes, new: bytes) -> None:
    """In the file's own bytes, so that the diff can be applied whatever its encoding and line endings are."""
    before, after = (
        re.findall(r"[^\n]*\n|[^\n]+$", content.decode("ascii", "surrogateescape")) for content in (old, new)
    )
    out = sys.stdout.buffer
    for line in difflib.unified_diff(before, after, fromfile=str(path), tofile=str(path)):
        whole = line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
        out.write(whole.encode("utf-8", "surrogateescape"))
    out.flush()
