"""The folder of published workflows: whatever a crash interrupts, it has the old or the new version."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridged import catalogue
from bridged.config.load import ALIASES_FILE, read_aliases
from bridged.config.published import KEPT, Version, as_its_owner, generated_name, publish, remove, versions
from bridged.errors import ConfigError, UnknownAlias

TYPES = {"image/png": [".png"]}


class Crash(BaseException):
    """The process ends here."""


def version(number: int, alias: str = "a") -> Version:
    name = generated_name("w", b"%d" % number, ".png")
    meta = {"apiinput": "x", "descimage": name}
    graph: dict[str, Any] = {"1": {"class_type": "A", "inputs": {"x": number}, "_meta": meta}}
    thumbnail = generated_name("thumbnail", b"t%d" % number, ".png")
    pictures = {("descimage", name): b"%d" % number, ("thumbnail", thumbnail): b"t%d" % number}
    return Version(alias, f"number {number}", graph, thumbnail, pictures)


def content(folder: Path) -> dict[str, tuple[Any, ...]]:
    """What the service would make of it."""
    sources = [
        catalogue.Source(entry.alias, entry.fn, entry.description, entry.thumbnail)
        for entry in read_aliases(folder / ALIASES_FILE)
    ]
    found, problems = catalogue.load(folder, sources, TYPES)
    assert problems == []
    return {
        each.alias: (
            each.description,
            each.thumbnail,
            *((i.default, i.descimage) for i in each.inputs.values()),
        )
        for each in found.workflows.values()
    }


def of(number: int) -> tuple[Any, ...]:
    return f"number {number}", b"t%d" % number, (number, b"%d" % number)


CHANGES: dict[str, tuple[Callable[[Path], object], list[dict[str, Any]]]] = {
    "the first": (lambda folder: publish(folder, version(1)), [{}, {"a": of(1)}]),
    "another": (lambda folder: publish(folder, version(2)), [{"a": of(1)}, {"a": of(2)}]),
    "removed": (lambda folder: remove(folder, "a"), [{"a": of(1)}, {}]),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_point_leaves_the_old_or_the_new_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, after: bool
) -> None:
    act, allowed = CHANGES[change]
    for step in range(1, 100):
        folder = tmp_path / str(step)
        if change != "the first":
            publish(folder, version(1))
        left = step
        with monkeypatch.context() as patch:

            def ends_at(real: Callable[..., Any]) -> Callable[..., Any]:
                def call(*args: Any, **options: Any) -> Any:
                    nonlocal left
                    left -= 1
                    if left == 0 and not after:
                        raise Crash
                    done = real(*args, **options)
                    if left == 0:
                        raise Crash
                    return done

                return call

            for name in ("replace", "unlink", "fsync"):
                patch.setattr(os, name, ends_at(getattr(os, name)))
            try:
                act(folder)
            except Crash:
                pass
            else:
                break
        assert content(folder) in allowed, step
        publish(folder, version(3))  # the next one finds nothing in its way, and clears up
        assert content(folder) == {"a": of(3)}
        assert len(list(folder.glob("*.json"))) == 2
        assert len(list((folder / "descimage").glob("*.png"))) == 1
    assert step > 5
    assert content(folder) == allowed[-1]


def test_a_few_versions_are_kept_of_each_alias(tmp_path: Path) -> None:
    publish(tmp_path, version(1, "b.x"))
    publish(tmp_path, version(2, "b.x"))
    names = [publish(tmp_path, version(number, "b")).previous for number in range(KEPT + 5)]
    assert names[0] is None
    assert versions(tmp_path, "b") == names[-KEPT:]
    assert len(versions(tmp_path, "b.x")) == 1
    kept = json.loads((tmp_path / "previous" / str(names[-1])).read_text())
    assert (kept["alias"], kept["description"]) == ("b", f"number {KEPT + 3}")
    assert kept["thumbnail"].startswith("data:image/png;base64,")
    assert list(kept["descimages"]) == [kept["workflow"]["1"]["_meta"]["descimage"]]


def test_aliases_that_are_no_file_names_have_files_of_their_own(tmp_path: Path) -> None:
    odd = ["a b", "a-b", "a/b", "그림", "A", ".a", "x" * 200, "workflow_alias", "a.0123456789ab"]
    names = {publish(tmp_path, version(1, alias)).fn for alias in odd}
    assert len(names) == len(odd)
    assert all(Path(name).name == name and not name.startswith(".") for name in names)
    assert content(tmp_path) == {alias: of(1) for alias in odd}
    for alias in odd:
        remove(tmp_path, alias)
    assert content(tmp_path) == {}
    assert [path.name for path in tmp_path.glob("*.json")] == [ALIASES_FILE]


def test_what_somebody_put_there_by_hand_stays(tmp_path: Path) -> None:
    publish(tmp_path, version(1))
    (tmp_path / "mine.json").write_text(json.dumps(version(5).graph))
    picture = next(name for area, name in version(5).pictures if area == "descimage")
    (tmp_path / "descimage" / picture).write_bytes(b"5")
    (tmp_path / "thumbnail" / "mine.png").write_bytes(b"m")
    publish(tmp_path, version(2))
    assert (tmp_path / "descimage" / picture).is_file()
    assert (tmp_path / "thumbnail" / "mine.png").is_file()
    assert content(tmp_path).keys() == {"a", "mine.json"}
    remove(tmp_path, "mine.json")
    assert content(tmp_path).keys() == {"a"}
    with pytest.raises(UnknownAlias):
        remove(tmp_path, "mine.json")
    with pytest.raises(UnknownAlias):
        remove(tmp_path, ALIASES_FILE)


def test_a_file_of_somebody_that_is_replaced_is_kept_and_no_workflow_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(version(5).graph))
    (tmp_path / ALIASES_FILE).write_text('[{"alias": "a", "fn": "mine.json", "max_runtime": 7}]')
    (tmp_path / "descimage").mkdir()
    picture = next(name for area, name in version(5).pictures if area == "descimage")
    (tmp_path / "descimage" / picture).write_bytes(b"5")
    done = publish(tmp_path, version(6))
    assert content(tmp_path) == {"a": of(6)}
    assert json.loads((tmp_path / "previous" / str(done.previous)).read_text())["workflow"] == version(5).graph
    assert read_aliases(tmp_path / ALIASES_FILE)[0].max_runtime == 7
    (tmp_path / "mine.json").write_text("{")  # this one could not be kept
    (tmp_path / ALIASES_FILE).write_text('[{"alias": "a", "fn": "mine.json"}]')
    publish(tmp_path, version(6))
    assert (tmp_path / "mine.json").read_text() == "{"


def test_versions_of_aliases_that_look_like_each_others_are_apart(tmp_path: Path) -> None:
    for number in (1, 2):
        publish(tmp_path, version(number, "a"))
        publish(tmp_path, version(number, "a.0123456789ab"))
    assert [len(versions(tmp_path, alias)) for alias in ("a", "a.0123456789ab")] == [1, 1]


def test_what_a_crash_left_half_written_goes_with_the_next_change(tmp_path: Path) -> None:
    publish(tmp_path, version(1))
    names = [name for name in (ALIASES_FILE, "previous/x.json", "thumbnail/x.png", "descimage/x.png")]
    publish(tmp_path, version(2))
    halves = [(tmp_path / name).with_name(f".{Path(name).name}.4711.tmp") for name in names]
    for half in halves:
        half.write_text("{")
    publish(tmp_path, version(3))
    assert [half for half in halves if half.exists()] == []


def test_what_cannot_be_cleared_up_does_not_keep_a_version_from_being_published(tmp_path: Path) -> None:
    (tmp_path / "x.0123456789ab.json").mkdir()
    publish(tmp_path, version(1))
    assert content(tmp_path) == {"a": of(1)}


@pytest.mark.skipif(os.geteuid() != 0, reason="it is about root")
def test_root_writes_as_the_owner_of_the_state_folder_and_follows_no_link_out_of_it() -> None:
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        base.chmod(0o755)
        secret, state = base / "secret", base / "state"
        secret.mkdir(mode=0o755)
        state.mkdir()
        os.chown(state, 65534, 65534)
        folder = state / "workflows"
        with as_its_owner(folder):
            publish(folder, version(1))
        assert os.geteuid() == 0
        assert {(path.stat().st_uid, path.stat().st_gid) for path in folder.rglob("*")} == {(65534, 65534)}
        shutil.rmtree(folder / "thumbnail")
        (folder / "thumbnail").symlink_to(secret)
        with pytest.raises(PermissionError), as_its_owner(folder):
            publish(folder, version(2))
        assert os.geteuid() == 0
        assert (list(secret.iterdir()), secret.stat().st_uid) == ([], 0)


def test_nothing_is_written_over_a_list_that_cannot_be_read(tmp_path: Path) -> None:
    publish(tmp_path, version(1))
    (tmp_path / ALIASES_FILE).write_text("[")
    with pytest.raises(ConfigError, match=ALIASES_FILE):
        publish(tmp_path, version(2))
    assert (tmp_path / ALIASES_FILE).read_text() == "["


def test_it_is_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "workflows"
    publish(folder, version(1))
    publish(folder, version(2))
    assert {oct(path.stat().st_mode & 0o777) for path in folder.rglob("*") if path.is_file()} == {"0o600"}
    assert {oct(path.stat().st_mode & 0o777) for path in (folder, *folder.iterdir()) if path.is_dir()} == {"0o700"}
