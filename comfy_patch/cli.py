"""The command line: what is asked, what is said, and with which status it ends."""

from __future__ import annotations

import argparse
import platform
import re
import sys
from pathlib import Path

from . import __version__, ancestor, disk, install
from .layouts import Layout, NotComfyUI, recognise

SOURCE = Path(__file__).resolve().parent / "node"

_EPILOG = """\
Without a command it installs. Exit status: 0 done, or (status) all is as this copy would install it;
1 the system refused something, or (status) it is not so; 2 the command or the folder is wrong, nothing was changed."""


def main(argv: list[str]) -> int:
    """Runs one command and returns the exit status, as `--help` describes it."""
    for stream in (sys.stdout, sys.stderr):
        # A console of Windows may know neither the letters of a path (cp949, cp1252) nor how to say so.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    asked = _parser().parse_args(argv)
    try:
        layout = recognise(asked.dest, asked.base_directory)
        print(layout)
        if asked.command == "status":
            return _status(layout, asked.show_token)
        if asked.command == "uninstall":
            return _uninstall(layout, asked.dry_run)
        return _install(layout, asked.dry_run)
    except (NotComfyUI, install.Refused) as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"Failed: {error}", file=sys.stderr)
        if isinstance(error, PermissionError):
            print("Close ComfyUI, check that you may write there, and try again.", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="comfy_patch",
        description="Installs bridged's package for ComfyUI, says how it stands, or removes it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", nargs="?", default="install", choices=["install", "status", "uninstall"])
    parser.add_argument("--dest", metavar="PATH", help="ComfyUI: a checkout, the portable's folder, the desktop app's")
    parser.add_argument("--base-directory", metavar="PATH", help="as ComfyUI is started with it")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")
    parser.add_argument("--show-token", action="store_true", help="status: say the token too")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def _install(layout: Layout, dry_run: bool) -> int:
    report = install.install(layout, SOURCE, __version__, dry_run)
    remains = ancestor.find(layout)
    _say_report(layout, report, dry_run)
    _say_remains(remains, "would be put away" if dry_run else "")
    status = 0
    if not dry_run and (remains.files or remains.launchers):
        backup = disk.Backup(layout.code or layout.base)
        try:
            for line in ancestor.put_away(remains, backup):
                print(f"  {line}")
        except OSError as error:
            print(f"  Failed, so not all of it is put away; install again to do so: {error}")
            status = 1
        print(f"  The originals are in {backup.folder}")
    if remains.files or remains.launchers:
        print("  What starts main_adapted.py from elsewhere (a shortcut, a service) must start main.py instead.")
    if dry_run:
        return 0
    print("Restart ComfyUI now.")
    print()
    print("For the operator of the bridge, and nobody else:")
    print()
    print("token (kept from before):" if not report.fresh_token else "token:")
    print(report.token)
    print()
    print("lines for backends.toml:")
    print("[[backend]]")
    print(f'name = "{_own_name()}"')
    print('url = "http://ADDRESS-OF-THIS-PC:8188"')
    print(f'token = "{report.token}"')
    return status


def _uninstall(layout: Layout, dry_run: bool) -> int:
    report = install.uninstall(layout, dry_run)
    _say_report(layout, report, dry_run)
    if not dry_run and not report.done.startswith("nothing"):
        print("Restart ComfyUI now, and tell the operator of the bridge.")
    return 0


def _status(layout: Layout, show_token: bool) -> int:
    found = install.status(layout, SOURCE)
    if found.foreign:
        print(f"{layout.package}: there is one, but this installer did not make it")
    elif found.installed is None:
        print(f"{layout.package}: not installed; this copy is {__version__}")
    else:
        same = "exactly this copy" if found.current else f"not this copy, {__version__}: install brings it"
        print(f"{layout.package}: {found.installed}, {same}")
        for word in ("changed", "missing", "added"):
            for name in getattr(found.contents, word):
                print(f"  {word}: {name}")
        shown = found.token if show_token else "there (--show-token says it)"
        print(f"token: {shown if found.token else 'none, install again to make one'}")
        if found.token_open:
            print("  others on this PC can read its file; install again to close it")
    for path in found.interrupted:
        print(f"{path}: left by an interrupted run; install or uninstall again to clear it away")
    remains = ancestor.find(layout)
    _say_remains(remains, "install puts away")
    good = found.current and found.token and not (found.token_open or found.interrupted)
    return 0 if good and not (remains.files or remains.launchers) else 1


def _say_report(layout: Layout, report: install.Report, dry_run: bool) -> None:
    print(f"{layout.package}: {'would be: ' if dry_run else ''}{report.done}")
    if report.kept:
        where = report.backup or f"a new folder bridged-backup-... in {layout.base}"
        print(f"Files there that are yours, {'would be kept' if dry_run else 'kept'} in {where}:")
        for name in report.kept:
            print(f"  {name}")
    for problem in report.problems:
        print(f"But: {problem}")


def _say_remains(remains: ancestor.Remains, verb: str) -> None:
    if not remains:
        return
    print("Of the older bridge's patch:")
    if verb:
        for path in remains.files.values():
            print(f"  {path}: {verb} (moved to a backup)")
        for path in remains.launchers.values():
            print(f"  {path}: {verb} (main.py instead of main_adapted.py)")
    for note in remains.notes:
        print(f"  {note}")


def _own_name() -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "-", platform.node()).strip("-")[:40] or "this-pc"
