"""The installer is ended at every single step that it makes, and every step is refused once."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from comfy_patch import disk, install
from tests.comfy_patch.installer import Fault, Killed, Place, no_exchange, write

MINE = {"host.py": "mine\n", "own.txt": "own\n"}


def no_space() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


def faults(
    place: Place,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Callable[[], BaseException],
    run: Callable[[Place], object],
) -> list[tuple[Place, str, bool]]:
    """A copy of the place for each step of `run`, ended there; with the step's name, and whether `run` raised."""
    copies: list[tuple[Place, str, bool]] = []
    for at in range(1, 200):
        copy = place.copy_to(folder / str(at))
        fault = Fault(at, error)
        monkeypatch.setattr(disk, "before", fault)
        raised = False
        try:
            run(copy)
        except (Killed, OSError):
            raised = True
        monkeypatch.setattr(disk, "before", lambda step, path: None)
        if len(fault.steps) < at:
            return copies
        copies.append((copy, fault.steps[at - 1], raised))
    raise AssertionError("it never ends")


def owners_files(copy: Place) -> set[str]:
    """Where the owner's files are, wherever that is."""
    return {path.read_text() for path in copy.comfyui.rglob("*") if path.name in MINE} & set(MINE.values())


@pytest.mark.parametrize("mine", [False, True])
def test_killed_at_any_step_an_update_leaves_the_old_or_the_new_package_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mine: bool
) -> None:
    place = Place(tmp_path / "first").with_old()
    if mine:
        write(place.package, {"own.txt": "own\n"})
    probe = place.copy_to(tmp_path / "probe")
    if not disk.exchange(probe.package, probe.layout.custom_nodes / "other"):
        pytest.skip("this file system cannot exchange folders")

    versions = []
    for copy, step, _ in faults(place, tmp_path / "runs", monkeypatch, Killed, lambda copy: copy.install()):
        if (copy.package / "own.txt").exists():
            (copy.package / "own.txt").unlink()
            found = copy.version()
            write(copy.package, {"own.txt": "own\n"})
        else:
            found = copy.version()
        versions.append(found)
        assert copy.loadable() == {"other", "bridged_patch"}, step
        copy.install()
        assert copy.version() == "1.1.0", step
        assert not copy.leftovers(), step
        assert set(copy.backed_up().values()) == ({"own\n"} if mine else set()), step
    assert None not in versions
    assert versions == sorted(versions, key=str)
    assert set(versions) == {"1.0.0", "1.1.0"}


def test_where_folders_cannot_be_exchanged_a_kill_between_the_renames_is_made_good_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "exchange", no_exchange)
    place = Place(tmp_path / "first").with_old()
    without = []
    for copy, step, _ in faults(place, tmp_path / "runs", monkeypatch, Killed, lambda copy: copy.install()):
        if copy.version() is None:
            without.append(step)
            again = copy.copy_to(tmp_path / "again")
            install.uninstall(again.layout)
            assert again.loadable() == {"other"}
            assert not again.leftovers()
        copy.install()
        assert copy.version() == "1.1.0", step
        assert not copy.leftovers(), step
    assert without == ["move bridged_patch.new.disabled"]


@pytest.mark.parametrize("exchanges", [True, False])
def test_an_error_at_any_step_leaves_a_whole_package_and_no_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    if not exchanges:
        monkeypatch.setattr(disk, "exchange", no_exchange)
    place = Place(tmp_path / "first").with_old()
    for copy, step, raised in faults(place, tmp_path / "runs", monkeypatch, no_space, lambda copy: copy.install()):
        assert copy.version() == ("1.0.0" if raised else "1.1.0"), step
        if raised:
            assert not copy.leftovers(), step
        assert copy.loadable() == {"other", "bridged_patch"}, step
        copy.install()
        assert copy.version() == "1.1.0", step
        assert not copy.leftovers(), step


def test_killed_at_any_step_a_first_install_leaves_nothing_that_loads_or_the_whole_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path / "first")
    for copy, step, _ in faults(place, tmp_path / "runs", monkeypatch, Killed, lambda copy: copy.install()):
        assert copy.loadable() == {"other"}, step
        copy.install()
        found = install.status(copy.layout, copy.sources["1.1.0"])
        assert found.current, step
        assert not copy.leftovers(), step
        assert not copy.backed_up(), step


def test_killed_at_any_step_a_removal_loses_no_file_of_the_owners_and_can_be_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path / "first").with_old()
    write(place.package, MINE)
    write(place.comfyui, {"user/bridged_patch.json": "{}"})
    run = faults(place, tmp_path / "runs", monkeypatch, Killed, lambda copy: install.uninstall(copy.layout))
    assert len(run) > len(MINE)
    for copy, step, _ in run:
        assert owners_files(copy) == set(MINE.values()), step
        install.uninstall(copy.layout)
        assert copy.loadable() == {"other"}, step
        assert not copy.leftovers(), step
        assert set(copy.backed_up().values()) == set(MINE.values()), step
        assert not (copy.comfyui / "user" / "bridged_patch.json").exists(), step
