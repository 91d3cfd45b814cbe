"""`bridged workflow` where no service runs: it writes into the state folder, and says so."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bridged.cli.main import main

ROOT = Path(__file__).parents[2]
GRAPH = {"1": {"class_type": "A", "inputs": {"x": 1}, "_meta": {"apiinput": "x", "descimage": "w.png"}}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration in etc/, whose service does not run, a workflow and its picture."""
    for name in ("COMFYUI_SERVERS", "BRIDGED_URL", "BRIDGED_KEY", "HOST", "STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PORT", "1")
    for name in ("etc", "workflows"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "etc" / "bridged.toml").write_text('[state]\ndir = "../state"\n')
    (tmp_path / "waves.json").write_text(json.dumps(GRAPH))
    shutil.copy(ROOT / "workflows" / "descimage" / "width.png", tmp_path / "w.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def workflow(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["workflow", *arguments], catch_exceptions=False)


def test_it_is_written_into_the_state_folder_and_taken_out_again(folder: Path) -> None:
    published = folder / "state" / "workflows"
    assert workflow("list").output == "nothing is published\n"
    done = workflow("add", "waves.json", "--alias", "my waves", "--description", "of [red] light")
    assert done.stdout == f"my waves is published in {published}; no service runs\ninputs: 1/x\n"
    assert done.stderr == "warning: no PC has said yet which nodes it has, so the node classes were not checked\n"
    (entry,) = json.loads((published / "workflow_alias.json").read_text())
    assert (entry["alias"], entry["description"]) == ("my waves", "of [red] light")
    (picture,) = (published / "descimage").iterdir()
    assert picture.read_bytes() == (folder / "w.png").read_bytes()
    listed = workflow("list").output
    assert "my waves" in listed
    assert "of [red] light" in listed
    assert workflow("remove", "my waves").output == f"my waves is removed from {published}; no service runs\n"
    gone = workflow("remove", "my waves")
    assert (gone.exit_code, gone.output) == (1, "Error: no workflow 'my waves' was published\n")


def test_a_kept_version_can_be_published_again(folder: Path) -> None:
    workflow("add", "waves.json", "--thumbnail", "w.png")
    (folder / "waves.json").write_text(json.dumps({"1": {"class_type": "A", "inputs": {"x": 2}}}))
    said = workflow("add", "waves.json").stdout
    name = said.partition("what was there is kept: ")[2].strip()
    kept = folder / "state" / "workflows" / "previous" / name
    assert workflow("add", str(kept)).exit_code == 0
    published = folder / "state" / "workflows"
    (entry,) = json.loads((published / "workflow_alias.json").read_text())
    assert json.loads((published / entry["fn"]).read_text())["1"]["inputs"] == {"x": 1}
    assert (published / "thumbnail" / entry["thumbnail"]).read_bytes() == (folder / "w.png").read_bytes()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "waves.json: it is no JSON"),
        (b"[]", "waves.json: it must be a workflow in API format"),
        (b'{"nodes": []}', "this is a workflow saved for the editor"),
        (
            b'{"1": {"class_type": "A", "inputs": {}, "_meta": {"descimage": "gone.png"}}}',
            "gone.png: cannot be read",
        ),
        (
            b'{"1": {"class_type": "A", "inputs": {}, "_meta": {"descimage": "w.txt"}}}',
            "must be .png, .jpg, .jpeg",
        ),
        (
            b'{"1": {"class_type": "A", "inputs": {}, "_meta": {"apiinput": "y"}}}',
            "the node has no such input",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(folder: Path, content: bytes, said: str) -> None:
    (folder / "waves.json").write_bytes(content)
    refused = workflow("add", "waves.json")
    assert refused.exit_code == 1
    assert said in refused.output
    assert refused.output.count("\n") == 1
    assert not (folder / "state" / "workflows").exists()


def test_a_service_that_was_named_must_be_there(folder: Path) -> None:
    refused = workflow("add", "waves.json", "--url", "http://127.0.0.1:1")
    assert (refused.exit_code, "no service answers at http://127.0.0.1:1" in refused.output) == (1, True)
    assert not (folder / "state" / "workflows").exists()


def test_a_picture_that_is_none_is_refused(folder: Path) -> None:
    (folder / "w.png").write_bytes(base64.b64decode("R0lGODlhAQABAAAAACw="))
    refused = workflow("add", "waves.json")
    assert (refused.exit_code, "descimages: 'w.png': " in refused.output) == (1, True)
