"""Which folders are recognised as a ComfyUI, and what is said of the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy_patch.layouts import NotComfyUI, recognise
from tests.comfy_patch.installer import checkout, write


def desktop(folder: Path) -> Path:
    for name in ("models", "custom_nodes", "user", "input", "output", ".venv"):
        (folder / name).mkdir(parents=True)
    return folder


def portable(folder: Path) -> Path:
    checkout(folder / "ComfyUI")
    write(folder, {"python_embeded/python312._pth": "../ComfyUI\npython312.zip\n.\nimport site\n"})
    return write(folder, {"run_nvidia_gpu.bat": ".\\python_embeded\\python.exe -s ComfyUI\\main.py\r\npause\r\n"})


def test_a_source_checkout(tmp_path: Path) -> None:
    layout = recognise(str(checkout(tmp_path / "any name")))
    assert layout.package == tmp_path / "any name" / "custom_nodes" / "bridged_patch"
    assert (layout.code, layout.root, layout.version) == (tmp_path / "any name", None, "0.3.64")


@pytest.mark.parametrize("given", ["", "ComfyUI", "ComfyUI/"])
def test_the_windows_portable_from_outside_and_inside(tmp_path: Path, given: str) -> None:
    root = portable(tmp_path / "ComfyUI_windows_portable")
    layout = recognise(f"{root}/{given}")
    assert layout.package == root / "ComfyUI" / "custom_nodes" / "bridged_patch"
    assert (layout.root, layout.version) == (root, "0.3.64")
    assert "portable" in str(layout)


def test_a_quotation_mark_that_cmd_leaves_at_the_end_is_no_part_of_the_path(tmp_path: Path) -> None:
    assert recognise(f'{checkout(tmp_path / "a b")}"').code == tmp_path / "a b"


@pytest.mark.parametrize("option", ["dest", "base_directory"])
def test_the_desktop_apps_base_directory_as_either_option(tmp_path: Path, option: str) -> None:
    base = desktop(tmp_path / "Documents" / "ComfyUI")
    layout = recognise(**{"dest": None, option: str(base)})
    assert (layout.code, layout.package) == (None, base / "custom_nodes" / "bridged_patch")
    assert "version not known" in str(layout)


def test_a_base_directory_beside_a_checkout(tmp_path: Path) -> None:
    (tmp_path / "base" / "user").mkdir(parents=True)
    layout = recognise(str(checkout(tmp_path / "code")), str(tmp_path / "base"))
    assert layout.package == tmp_path / "base" / "custom_nodes" / "bridged_patch"
    assert (layout.code, layout.version) == (tmp_path / "code", "0.3.64")


def test_the_program_of_the_desktop_app_is_refused_unless_its_base_directory_is_said_too(tmp_path: Path) -> None:
    program = checkout(tmp_path / "resources" / "ComfyUI")
    (tmp_path / "resources" / "app.asar").touch()
    with pytest.raises(NotComfyUI, match=r"desktop app.*update would remove"):
        recognise(str(program))
    assert recognise(str(program), str(desktop(tmp_path / "base"))).base == tmp_path / "base"


def test_anything_else_is_told_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "main.py").touch()
    with pytest.raises(NotComfyUI) as refused:
        recognise(str(tmp_path))
    for word in ("main.py", "folder_paths.py", "python_embeded", "custom_nodes", str(tmp_path)):
        assert word in str(refused.value)
    assert "Did you mean" not in str(refused.value)


def test_a_near_miss_is_named(tmp_path: Path) -> None:
    code = checkout(tmp_path / "ComfyUI")
    for near in (tmp_path, code / "custom_nodes"):
        with pytest.raises(NotComfyUI, match="Did you mean") as refused:
            recognise(str(near))
        assert f"--dest {code} ?" in str(refused.value)


def test_wrong_and_missing_paths(tmp_path: Path) -> None:
    with pytest.raises(NotComfyUI, match="there is no folder"):
        recognise(str(tmp_path / "nowhere"))
    with pytest.raises(NotComfyUI, match="Say where ComfyUI is"):
        recognise(None)
    with pytest.raises(NotComfyUI, match="is no base directory"):
        recognise(str(checkout(tmp_path / "code")), str(tmp_path))


@pytest.mark.parametrize(
    ("files", "version"),
    [
        ({"comfyui_version.py": "__version__ = '0.3.70'\n", "pyproject.toml": '[project]\nversion = "1"\n'}, "0.3.70"),
        (
            {
                "comfyui_version.py": "",
                "pyproject.toml": '[x]\nversion = "9"\n[project]\nname = "a"\nversion = "0.3.1"\n',
            },
            "0.3.1",
        ),
        ({"comfyui_version.py": "", "pyproject.toml": '[project]\nname = "a"\n[x]\nversion = "9"\n'}, None),
        ({"comfyui_version.py": ""}, None),
    ],
)
def test_the_version_is_read_from_either_file(tmp_path: Path, files: dict[str, str], version: str | None) -> None:
    assert recognise(str(write(checkout(tmp_path / "c"), files))).version == version
