"""Installing, updating, repairing and removing, with the owner's files in the way."""

from __future__ import annotations

import ast
import os
import stat
import sys
from pathlib import Path

import pytest

import comfy_patch
from comfy_patch import disk, install, package
from tests.comfy_patch.installer import NEW, OLD, TOKEN, Place, no_exchange, write


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        path.relative_to(folder).as_posix(): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


def test_the_first_install_makes_the_package_a_manifest_and_a_token_only_its_owner_reads(place: Place) -> None:
    before = everything(place.comfyui)

    report = place.install()

    names = {path.relative_to(place.package).as_posix() for path in place.package.rglob("*") if path.is_file()}
    assert names == {*NEW, package.MANIFEST, package.TOKEN}
    assert report.fresh_token
    assert (place.package / package.TOKEN).read_text() == report.token + "\n"
    assert len(report.token) == 43
    assert stat.S_IMODE((place.package / package.TOKEN).stat().st_mode) == 0o600
    after = everything(place.comfyui)
    assert {name: after[name] for name in before} == before
    assert all(name.startswith("custom_nodes/bridged_patch") for name in after.keys() - before.keys())


def test_installing_again_changes_nothing(place: Place) -> None:
    first = place.install()
    before = everything(place.comfyui)

    second = place.install()

    assert everything(place.comfyui) == before
    assert (second.token, second.fresh_token) == (first.token, False)


@pytest.mark.parametrize("exchanges", [True, False])
def test_an_update_replaces_the_package_and_keeps_the_token(
    place: Place, exchanges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.with_old()
    if not exchanges:
        monkeypatch.setattr(disk, "exchange", no_exchange)

    report = place.install()

    assert place.version() == "1.1.0"
    assert (report.token, report.fresh_token, report.kept) == (TOKEN, False, [])
    assert place.loadable() == {"other", "bridged_patch"}
    assert not place.leftovers()
    assert not place.backed_up()


def test_an_update_backs_up_what_the_owner_changed_or_added(place: Place) -> None:
    place.with_old()
    write(place.package, {"host.py": "mine\n", "notes/own.txt": "own\n"})
    write(place.package, {"__pycache__/host.cpython-312.pyc": "compiled", "web/bridged.js": "mine too\n"})

    report = place.install()

    assert place.version() == "1.1.0"
    mine = {"host.py": "mine\n", "notes/own.txt": "own\n", "web/bridged.js": "mine too\n"}
    assert place.backed_up() == {f"custom_nodes/bridged_patch/{name}": content for name, content in mine.items()}
    assert sorted(report.kept) == sorted(place.backed_up())
    assert report.backup is not None
    assert (report.backup / ".gitignore").read_text() == "*\n"


def test_missing_files_and_an_exposed_token_are_repaired(place: Place) -> None:
    place.with_old()
    place.install()
    (place.package / "host.py").unlink()
    (place.package / package.TOKEN).chmod(0o644)
    found = install.status(place.layout, place.sources["1.1.0"])
    assert (found.current, found.contents.missing, found.token_open) == (False, ["host.py"], True)

    place.install()

    assert place.version() == "1.1.0"
    found = install.status(place.layout, place.sources["1.1.0"])
    assert (found.current, found.token, found.token_open) == (True, TOKEN, False)


def test_an_empty_token_file_is_given_a_token(place: Place) -> None:
    place.install()
    (place.package / package.TOKEN).write_text("\n")
    report = place.install()
    assert report.fresh_token
    assert package.read_token(place.package) == report.token


def test_uninstall_leaves_the_comfyui_as_it_was(place: Place) -> None:
    write(place.comfyui, {"user/comfy.settings.json": "{}"})
    before = everything(place.comfyui)
    place.install()
    write(place.package, {"__pycache__/host.cpython-312.pyc": "compiled"})
    write(place.comfyui, {"user/bridged_patch.json": "{}", "user/.bridged_patch.json.x1": ""})

    install.uninstall(place.layout)

    assert everything(place.comfyui) == before
    assert install.uninstall(place.layout).done.startswith("nothing to do")


def test_uninstall_keeps_the_owners_files_outside_custom_nodes_and_names_them(place: Place) -> None:
    place.with_old()
    write(place.package, {"host.py": "mine\n", "web/own.js": "own\n"})

    report = install.uninstall(place.layout)

    assert not place.package.exists()
    assert place.loadable() == {"other"}
    assert sorted(report.kept) == ["custom_nodes/bridged_patch/host.py", "custom_nodes/bridged_patch/web/own.js"]
    assert set(place.backed_up().values()) == {"mine\n", "own\n"}
    assert TOKEN not in str(place.backed_up())


def test_nothing_behind_a_link_is_touched(place: Place, tmp_path: Path) -> None:
    place.with_old()
    models = write(tmp_path / "models", {"a.safetensors": "weights", "host.py": "old\n"})
    (place.package / "models").symlink_to(models)
    (place.package / "host.py").unlink()
    (place.package / "host.py").symlink_to(models / "host.py")
    users = write(tmp_path / "users", {"bridged_patch.json": "{}"})
    (place.comfyui / "user").symlink_to(users)

    install.uninstall(place.layout)

    assert (users / "bridged_patch.json").exists()

    assert {path.name: path.read_text() for path in models.iterdir()} == {
        "a.safetensors": "weights",
        "host.py": "old\n",
    }
    (backup,) = place.comfyui.glob("bridged-backup-*")
    assert {path.name for path in backup.rglob("*") if path.is_symlink()} == {"models", "host.py"}


def test_a_package_that_is_not_ours_is_refused_by_both(place: Place) -> None:
    write(place.package, {"__init__.py": "somebody else's\n", package.MANIFEST: '{"package": "theirs", "files": {}}'})
    before = everything(place.comfyui)

    with pytest.raises(install.Refused, match="not made by this installer"):
        place.install()
    with pytest.raises(install.Refused, match="not made by this installer"):
        install.uninstall(place.layout)

    assert everything(place.comfyui) == before
    assert install.status(place.layout, place.sources["1.1.0"]).foreign


@pytest.mark.parametrize("name", ["bridged_patch", "bridged_patch.new.disabled", "bridged_patch/token"])
def test_links_in_the_places_of_ours_are_refused(place: Place, tmp_path: Path, name: str) -> None:
    if name.endswith("token"):
        place.install()
        (place.package / "token").unlink()
    target = write(tmp_path / "target", {"__init__.py": "theirs"})
    (place.layout.custom_nodes / name).symlink_to(target)

    with pytest.raises(install.Refused, match="is a link"):
        place.install()
    with pytest.raises(install.Refused, match="is a link"):
        install.uninstall(place.layout)

    assert (target / "__init__.py").read_text() == "theirs"


def test_a_manifest_that_names_files_elsewhere_reaches_none_of_them(place: Place) -> None:
    place.with_old()
    victim = place.comfyui / "server.py"
    files = {"../../server.py": disk.sha256(victim), str(victim): disk.sha256(victim)}
    manifest = package.Manifest("1.0.0", {**package.load(place.package).files, **files})  # type: ignore[union-attr]
    (place.package / package.MANIFEST).write_bytes(manifest.dump())

    install.uninstall(place.layout)

    assert victim.exists()
    assert not place.package.exists()


def test_a_dry_run_writes_nothing_and_names_what_it_would_keep(place: Place) -> None:
    place.with_old()
    write(place.package, {"host.py": "mine\n"})
    before = everything(place.comfyui)

    assert install.install(place.layout, place.sources["1.1.0"], "1.1.0", dry_run=True).kept == ["host.py"]
    assert install.uninstall(place.layout, dry_run=True).kept == ["host.py"]

    assert everything(place.comfyui) == before


def test_what_a_source_has_of_an_installation_or_of_python_is_not_copied(place: Place) -> None:
    source = place.sources["1.1.0"]
    write(source, {"token": "the author's own", ".manifest.json": "{}", "__pycache__/x.pyc": "", "host.pyc": ""})
    assert sorted(package.read_source(source)) == sorted(NEW)
    assert place.install().token != "the author's own"


def test_a_copy_without_the_package_says_so(place: Place, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="not complete"):
        install.install(place.layout, tmp_path / "empty", "1.0.0")
    assert not place.package.exists()


def test_another_file_system_gets_the_owners_files_as_copies(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.with_old()
    write(place.package, {"host.py": "mine\n"})
    (place.package / "link").symlink_to("nowhere")
    rename = os.rename

    def rename_here(source: Path, target: Path) -> None:
        if ("bridged-backup" in str(source)) != ("bridged-backup" in str(target)):
            raise OSError(18, "Invalid cross-device link")
        rename(source, target)

    monkeypatch.setattr(os, "rename", rename_here)
    report = install.uninstall(place.layout)

    assert report.backup is not None
    kept = report.backup / "custom_nodes" / "bridged_patch"
    assert {path.name for path in kept.iterdir()} == {"host.py", "link"}
    assert (kept / "host.py").read_text() == "mine\n"
    assert os.readlink(kept / "link") == "nowhere"


def test_installed_by_root_the_package_is_given_to_the_owner_of_custom_nodes(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, tuple[int, int]] = {}
    real = Path.stat

    def owned(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        found = real(path, follow_symlinks=follow_symlinks)
        if path == place.layout.custom_nodes:
            return os.stat_result((*found[:4], 1234, 5678, *found[6:]))
        return found

    monkeypatch.setattr(Path, "stat", owned)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(disk, "give", lambda path, uid, gid: given.update({path.name: (uid, gid)}))

    place.install()

    assert set(given.values()) == {(1234, 5678)}
    assert {"token", ".manifest.json", "__init__.py", "web", "bridged_patch.new.disabled"} <= set(given)


def test_the_modules_are_python_3_9_and_use_the_standard_library_alone() -> None:
    folder = Path(comfy_patch.__file__).parent
    modules = sorted(folder.glob("*.py"))
    assert {"install.py", "layouts.py", "ancestor.py", "__main__.py"} <= {path.name for path in modules}
    for path in modules:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 9))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names, path


def test_the_stand_ins_differ() -> None:
    assert set(OLD) - set(NEW)
    assert set(NEW) - set(OLD)
