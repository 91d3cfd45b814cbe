"""The command line as owners use it: what it prints, with which status it ends, on which consoles."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import comfy_patch
from comfy_patch import __version__, cli, disk
from tests.comfy_patch.installer import NEW, Fault, Place, no_exchange, write
from tests.comfy_patch.test_install_ancestor import PATCH


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    place = Place(tmp_path)
    monkeypatch.setattr(cli, "SOURCE", place.sources["1.1.0"])
    return place


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    status = cli.main(list(argv))
    return status, *capsys.readouterr()


def test_an_owners_way_through_it(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    dest = ("--dest", str(place.comfyui))
    assert run(capsys, "status", *dest)[0] == 1

    status, out, _ = run(capsys, *dest)
    assert status == 0
    token = (place.package / "token").read_text().strip()
    lines = out.splitlines()
    assert lines[lines.index("token:") + 1] == token
    assert f'token = "{token}"' in lines
    assert "[[backend]]" in lines

    status, out, _ = run(capsys, "status", *dest)
    assert status == 0
    assert token not in out
    assert f"{__version__}, exactly this copy" in out
    assert token in run(capsys, "status", "--show-token", *dest)[1]

    write(place.package, {"host.py": "mine\n", "own.py": ""})
    status, out, _ = run(capsys, "status", *dest)
    assert status == 1
    assert "changed: host.py" in out
    assert "added: own.py" in out

    status, out, _ = run(capsys, "uninstall", *dest)
    assert status == 0
    assert "custom_nodes/bridged_patch/own.py" in out
    assert token not in out
    assert not place.package.exists()
    assert run(capsys, "uninstall", *dest)[0] == 0


def test_the_older_patch_is_put_away_by_install_and_shown_by_status_and_a_dry_run(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    write(place.comfyui, {**PATCH, "run.sh": "python main_adapted.py\n"})
    dest = ("--dest", str(place.comfyui))
    for command in (["install", "--dry-run"], ["status"]):
        _, out, _ = run(capsys, *command, *dest)
        assert all(str(place.comfyui / name) in out for name in [*PATCH, "run.sh"])
        assert not place.backed_up()
        assert not place.package.exists()

    status, out, _ = run(capsys, "install", *dest)

    assert status == 0
    assert set(place.backed_up()) == {*PATCH, "run.sh"}
    assert (place.comfyui / "run.sh").read_text() == "python main.py\n"
    assert "must start main.py instead" in out
    assert run(capsys, "status", *dest)[0] == 0


def test_an_older_patch_that_cannot_be_put_away_does_not_undo_the_install(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(place.comfyui, PATCH)
    monkeypatch.setattr(disk.Backup, "take", lambda *_: (_ for _ in ()).throw(PermissionError("no")))
    status, out, _ = run(capsys, "--dest", str(place.comfyui))
    assert status == 1
    assert "not all of it is put away" in out
    assert f'token = "{(place.package / "token").read_text().strip()}"' in out


def test_wrong_folders_and_refusals_end_with_2_and_errors_of_the_system_with_1(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, out, err = run(capsys, "install", "--dest", str(tmp_path / "old"))
    assert (status, out) == (2, "")
    assert "What I looked for" in err
    assert run(capsys)[0] == 2

    place.with_old()
    monkeypatch.setattr(disk, "exchange", no_exchange)
    monkeypatch.setattr(disk, "before", Fault(12, lambda: PermissionError(13, "Access is denied")))
    status, _, err = run(capsys, "--dest", str(place.comfyui))
    assert status == 1
    assert "Access is denied" in err
    assert "Close ComfyUI" in err
    monkeypatch.setattr(disk, "before", lambda step, path: None)
    assert place.version() == "1.0.0"

    shutil.rmtree(place.package)
    write(place.package, {"__init__.py": ""})
    for command in ("install", "uninstall"):
        assert run(capsys, command, "--dest", str(place.comfyui))[0] == 2
    status, out, _ = run(capsys, "status", "--dest", str(place.comfyui))
    assert status == 1
    assert "this installer did not make it" in out

    with pytest.raises(SystemExit) as ended:
        cli.main(["remove"])
    assert ended.value.code == 2


def test_an_interrupted_run_is_shown(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.install(__version__)
    (place.layout.custom_nodes / "bridged_patch.new.disabled").mkdir()
    status, out, _ = run(capsys, "status", "--dest", str(place.comfyui))
    assert status == 1
    assert "left by an interrupted run" in out


@pytest.mark.parametrize(("how", "encoding"), [("-m", "cp949"), ("-m", "cp1252"), ("isolated", "utf-8")])
def test_a_copy_of_the_folder_works_alone_on_any_console(tmp_path: Path, how: str, encoding: str) -> None:
    """`-I` is what the portable's `._pth` file amounts to: no current folder on the path, no PYTHON variables."""
    place = Place(tmp_path / "그림 é")
    copy = tmp_path / "copy" / "comfy_patch"
    for path in Path(comfy_patch.__file__).parent.glob("*.py"):
        write(copy, {path.name: path.read_text(encoding="utf-8")})
    write(copy / "node", NEW)
    start = ["-m", "comfy_patch"] if how == "-m" else ["-I", str(copy)]
    env = {**os.environ, "PYTHONIOENCODING": encoding, "LC_ALL": "C.UTF-8"}
    env.pop("PYTHONPATH", None)

    ended = subprocess.run(
        [sys.executable, *start, "--dest", str(place.comfyui)],
        cwd=copy.parent if how == "-m" else tmp_path,
        env=env,
        capture_output=True,
        timeout=60,
    )

    assert ended.returncode == 0, ended.stderr
    assert (place.package / "web" / "bridged.js").read_text() == "new\n"
    assert b"Traceback" not in ended.stderr


def test_a_script_that_may_not_be_read_is_named_and_the_token_is_said(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """chmod would not do: the tests may run as root."""
    write(place.comfyui, {"roots.sh": "python main.py\n"})
    read_bytes = Path.read_bytes

    def refused(path: Path) -> bytes:
        if path.name == "roots.sh":
            raise PermissionError(13, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    status, out, err = run(capsys, "--dest", str(place.comfyui))
    assert (status, err) == (0, "")
    assert f'token = "{(place.package / "token").read_text().strip()}"' in out
    assert f"{place.comfyui / 'roots.sh'}: cannot be read" in out
