"""The older bridge's patch is found, put away with a backup, and what is ComfyUI's own is only spoken of."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from comfy_patch import ancestor, disk
from comfy_patch.layouts import Layout, recognise
from tests.comfy_patch.installer import Fault, Killed, checkout, write

PATCH = {
    "main_adapted.py": "from main import *\nimport server_adapted\n",
    "server_adapted.py": "import server\nclass BridgeServer(server.PromptServer): ...\n",
    "make_models_symlink.py": "def create_symbolic_links(src_dir, dst_dir): ...\n",
    "web/extensions/apiinput_widget.js": "node.apiinput = selected;\n",
}
MARKED = "x = 1 // comfyui_bridge_server\n"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    root = tmp_path / "portable"
    (root / "python_embeded").mkdir(parents=True)
    checkout(root / "ComfyUI")
    return recognise(str(root))


def code(layout: Layout) -> Path:
    assert layout.code is not None
    return layout.code


def put_away(layout: Layout) -> tuple[Path, list[str]]:
    backup = disk.Backup(code(layout))
    said = ancestor.put_away(ancestor.find(layout), backup)
    assert backup.folder is not None
    return backup.folder, said


def test_a_comfyui_without_it_has_no_remains(layout: Layout) -> None:
    assert layout.root is not None
    write(layout.root, {"run_cpu.bat": "python ComfyUI\\main.py\r\n"})
    assert not ancestor.find(layout)


def test_its_files_are_moved_to_a_dated_backup(layout: Layout) -> None:
    write(code(layout), PATCH)
    write(code(layout), {"old_server_adapted.py": MARKED, "my_adapted.py": "from server import PromptServer\n"})

    backup, said = put_away(layout)

    kept = {path.relative_to(backup).as_posix(): path.read_text() for path in backup.rglob("*") if path.is_file()}
    assert kept == {**PATCH, "old_server_adapted.py": MARKED, ".gitignore": "*\n"}
    assert not any((code(layout) / name).exists() for name in PATCH)
    assert (code(layout) / "my_adapted.py").exists()
    assert len(said) == len(PATCH) + 1
    assert not ancestor.find(layout)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        (
            "run_nvidia_gpu.bat",
            b".\\python_embeded\\python.exe -s ComfyUI\\main_adapted.py --listen\r\npause\r\n",
            b".\\python_embeded\\python.exe -s ComfyUI\\main.py --listen\r\npause\r\n",
        ),
        (
            "korean.bat",
            "rem 시작\r\npython main_adapted.py".encode("cp949"),
            "rem 시작\r\npython main.py".encode("cp949"),
        ),
        ("start.ps1", "python main_adapted.py\r\n".encode("utf-16"), "python main.py\r\n".encode("utf-16")),
        ("bom.cmd", b'\xef\xbb\xbfmain_adapted.py;"main_adapted.py"', b'\xef\xbb\xbfmain.py;"main.py"'),
        ("comfyui.service", b"ExecStart=/v/bin/python /c/main_adapted.py\n", b"ExecStart=/v/bin/python /c/main.py\n"),
        ("zero.sh", b"\0\xff python3 ./main_adapted.py\r\r\n", b"\0\xff python3 ./main.py\r\r\n"),
    ],
)
def test_launch_commands_are_changed_and_every_other_byte_stays(
    layout: Layout, name: str, before: bytes, after: bytes
) -> None:
    write(code(layout), PATCH)
    assert layout.root is not None
    for folder in (layout.root, code(layout)):
        (folder / name).write_bytes(before)
        (folder / name).chmod(0o750)

    backup, _ = put_away(layout)

    for folder in (layout.root, code(layout)):
        assert (folder / name).read_bytes() == after
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o750
    assert sorted(path.read_bytes() for path in backup.rglob(name)) == [before, before]


@pytest.mark.parametrize(
    "text", [b"my_main_adapted.py", b"main_adapted.pyc", b"x-main_adapted.py", b"main_adapted.py3"]
)
def test_other_names_that_contain_it_stay(text: bytes) -> None:
    assert ancestor.renamed(text) == text
    wide = b"\xff\xfe" + text.decode().encode("utf-16-le")
    assert ancestor.renamed(wide) == wide


def test_a_main_adapted_of_somebody_elses_stays_with_what_starts_it(layout: Layout) -> None:
    write(code(layout), {"main_adapted.py": "print('mine')\n", "run.sh": "python main_adapted.py\n"})
    remains = ancestor.find(layout)
    assert not remains.files
    assert not remains.launchers
    assert "nothing of the old patch in it but its name" in remains.notes[0]


def test_links_are_spoken_of_and_left(layout: Layout, tmp_path: Path) -> None:
    write(tmp_path, {"elsewhere.sh": "python main_adapted.py\n", **PATCH})
    (code(layout) / "start.sh").symlink_to(tmp_path / "elsewhere.sh")
    (code(layout) / "server_adapted.py").symlink_to(tmp_path / "server_adapted.py")
    remains = ancestor.find(layout)
    assert not remains.files
    assert not remains.launchers
    assert sum("is a link" in note for note in remains.notes) == 2


def test_killed_at_any_step_something_that_can_be_started_is_there_and_the_next_run_ends_it(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in range(1, 100):
        write(code(layout), {**PATCH, "run.sh": "python main_adapted.py\n"})
        fault = Fault(at, Killed)
        monkeypatch.setattr(disk, "before", fault)
        killed = False
        try:
            put_away(layout)
        except Killed:
            killed = True
        monkeypatch.setattr(disk, "before", lambda step, path: None)

        started = (code(layout) / "run.sh").read_text().split()[1]
        assert started == "main.py" or all(
            (code(layout) / name).exists() for name in ("main_adapted.py", "server_adapted.py")
        )
        if not killed:
            assert at > len(PATCH)
            return
        put_away(layout)
        assert not ancestor.find(layout)
        assert not list(code(layout).glob("*.bridged-part"))
        for backup in code(layout).glob("bridged-backup-*"):
            shutil.rmtree(backup)
    raise AssertionError("it never ends")


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_comfyuis_own_files_are_only_spoken_of_with_the_command_that_restores_them(layout: Layout) -> None:
    folder = code(layout)
    write(folder, {"web/assets/index-A.js": "x\n", "web/scripts/app.js": "x\n", ".gitignore": "/custom_nodes/\n"})
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "x"]):
        subprocess.run(["git", "-C", str(folder), *command], check=True, env=env)
    write(folder, {"web/scripts/app.js": MARKED, "server.py": "changed\n", "web/assets/index-B.js": MARKED, **PATCH})
    index = (folder / ".git" / "index").read_bytes()

    notes = sorted(ancestor.find(layout).notes)

    assert len(notes) == 3
    assert notes[0].startswith(str(folder / "server.py"))
    assert notes[0].endswith(f"git -C {folder} checkout -- server.py")
    assert "index-B.js: of the old patch, and not part of this ComfyUI" in notes[1]
    assert notes[2].endswith(f"changed by the old patch; restore it: git -C {folder} checkout -- web/scripts/app.js")
    assert (folder / ".git" / "index").read_bytes() == index

    put_away(layout)
    status = ["git", "-C", str(folder), "status", "--porcelain"]
    left = subprocess.run(status, check=True, env=env, capture_output=True, text=True).stdout.split("\n")
    assert sorted(left) == ["", " M server.py", " M web/scripts/app.js", "?? web/assets/index-B.js"]


def test_a_marked_front_end_package_is_spoken_of_with_its_pinned_version(layout: Layout) -> None:
    assert layout.root is not None
    write(code(layout), {"requirements.txt": "comfyui-frontend-package==1.27.10\ntorch\n", "server.py": MARKED})
    bundle = "python_embeded/Lib/site-packages/comfyui_frontend_package/static/assets/index-C.js"
    write(layout.root, {bundle: MARKED})
    server, front_end = ancestor.find(layout).notes
    assert "update or reinstall ComfyUI" in server
    assert front_end.endswith("pip install --force-reinstall --no-deps comfyui-frontend-package==1.27.10")
