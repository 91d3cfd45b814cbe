"""Configuration files: every refusal says which file, where in it, what is wrong and what would be right."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bridged.config.load import default_folder, load, read_aliases, read_backends, state_dir
from bridged.config.schema import AliasEntry, Backend, Config
from bridged.errors import ConfigError

NOTHING: dict[str, str] = {}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "workflows").mkdir()
    return tmp_path / "etc"


def write(folder: Path, **files: str) -> None:
    """Writes bridged=…, backends=… (.toml) and aliases=… (workflow_alias.json)."""
    names = {"bridged": "bridged.toml", "backends": "backends.toml", "aliases": "workflow_alias.json"}
    for name, content in files.items():
        (folder / names[name]).write_text(content, encoding="utf-8")


def good(folder: Path, environ: dict[str, str] | None = None, previous: Config | None = None) -> Config:
    config, problems = load(folder, environ or NOTHING, previous)
    assert problems == []
    return config


def refusal(folder: Path, environ: dict[str, str] | None = None) -> str:
    """The error, which is one line."""
    with pytest.raises(ConfigError) as refused:
        load(folder, environ or NOTHING)
    text = str(refused.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


# -- what is read ----------------------------------------------------------------------------------------------------


def test_an_empty_folder_is_all_defaults(folder: Path) -> None:
    config = good(folder)
    assert (config.settings.server.host, config.settings.server.port) == ("127.0.0.1", 8000)
    assert config.settings.jobs.max_attempts == 3
    assert (config.backends, config.aliases) == ((), ())
    assert config.settings.files.allowed["image/jpeg"] == [".jpg", ".jpeg"]


def test_everything_that_can_be_said(folder: Path) -> None:
    write(
        folder,
        bridged="""
            [server]
            host = "0.0.0.0"
            port = 0
            [jobs]
            timeout_interval = 2
            [files]
            upload_max_size = 0.5
            allowed = {"image/png" = [".png"]}
            [state]
            dir = "../state"
            [log]
            level = "debug"
            [workflows]
            dir = "../workflows"
            [embedded]
            worker = "never"
            """,
        backends="""
            [[backend]]
            name = "gpu-1"
            url = "http://192.168.0.20:8188"
            [[backend]]
            name = "gpu-2"
            url = "https://pc.example/comfy"
            headers = {Authorization = "Basic eDp5"}
            max_running = 2
            tags = ["big"]
            drain = true
            """,
        aliases="""[
            {"alias": "i2i", "fn": "a.json", "description": "그림", "thumbnail": "t.png"},
            {"alias": "b", "fn": "b.json"}
        ]""",
    )
    config = good(folder)
    assert config.settings.server.port == 0
    assert config.settings.jobs.timeout_interval == 2.0
    assert config.settings.files.allowed == {"image/png": [".png"]}
    assert config.state_dir == folder.parent / "state"
    assert config.settings.embedded.worker == "never"
    assert config.backends == (
        Backend(name="gpu-1", url="http://192.168.0.20:8188"),
        Backend(
            name="gpu-2",
            url="https://pc.example/comfy",
            headers={"Authorization": "Basic eDp5"},
            max_running=2,
            tags=("big",),
            drain=True,
        ),
    )
    assert config.aliases == (AliasEntry("i2i", "a.json", "그림", "t.png"), AliasEntry("b", "b.json"))


def test_relative_paths_start_at_the_folder_not_at_the_working_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "flows").mkdir()
    write(folder, bridged='[workflows]\ndir = "flows"\naliases = "other.json"\n[state]\ndir = "var"')
    (folder / "other.json").write_text('[{"alias": "x", "fn": "x.json"}]')
    monkeypatch.chdir(folder.parent)
    config = good(Path("etc"))
    assert config.folder == folder
    assert config.workflows_dir == folder / "flows"
    assert config.state_dir == folder / "var"
    assert [entry.alias for entry in config.aliases] == ["x"]


def test_absolute_paths_and_home_are_taken_as_they_are(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    write(folder, bridged=f'[workflows]\ndir = "{folder}"\n[state]\ndir = "~/state"')
    config = good(folder)
    assert config.workflows_dir == folder
    assert config.state_dir == folder.parent / "state"


def test_the_default_folder_is_the_checkouts_or_the_systems(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert default_folder().resolve() == folder
    monkeypatch.chdir(folder)
    assert default_folder() == Path("/etc/bridged")


@pytest.mark.parametrize(
    ("configured", "environ", "expected"),
    [
        ("", {"HOME": "/h"}, "HOME/.local/state/bridged"),
        ("", {"XDG_STATE_HOME": "/x"}, "/x/bridged"),
        ("", {"XDG_STATE_HOME": "/x", "STATE_DIRECTORY": "/var/lib/bridged"}, "/var/lib/bridged"),
        ("", {"STATE_DIRECTORY": "/var/lib/bridged:/var/lib/other"}, "/var/lib/bridged"),
        ("/srv/state", {"STATE_DIRECTORY": "/var/lib/bridged"}, "/srv/state"),
        ("../s", {"STATE_DIRECTORY": "/var/lib/bridged"}, "/etc/s"),
    ],
)
def test_where_state_goes(
    configured: str, environ: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    wanted = Path(expected.replace("HOME", "/home/someone"))
    assert state_dir(configured, Path("/etc/bridged"), environ) == wanted


def test_host_port_and_servers_come_from_the_environment_when_they_are_there(folder: Path) -> None:
    write(
        folder,
        bridged='[server]\nhost = "10.0.0.1"\nport = 9\nshutdown_budget = 3',
        backends='[[backend]]\nname = "a"\nurl = "http://a:1"',
    )
    environ = {"HOST": "0.0.0.0", "PORT": "8123", "COMFYUI_SERVERS": "one:8188, https://two:1/x ,"}
    config = good(folder, environ)
    assert (config.settings.server.host, config.settings.server.port) == ("0.0.0.0", 8123)
    assert config.settings.server.shutdown_budget == 3
    assert [(b.name, b.url) for b in config.backends] == [
        ("comfyui-1", "http://one:8188"),
        ("comfyui-2", "https://two:1/x"),
    ]
    empty = good(folder, {"HOST": "", "PORT": "", "COMFYUI_SERVERS": ""})
    assert (empty.settings.server.host, empty.settings.server.port) == ("10.0.0.1", 9)
    assert [b.name for b in empty.backends] == ["a"]


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("[server\n", ["bridged.toml: ", "line 1"]),
        ("[server]\nport = 1\nport = 2\n", ["bridged.toml: ", "line 3"]),
        ('\n[server]\nport = "x"', ["bridged.toml: line 3: server.port: ", "Expected `int`, got `str`"]),
        ("[server]\nport = 70000", ["bridged.toml: line 2: server.port: ", "<= 65535"]),
        ("[server]\nport = -1", ["bridged.toml: line 2: server.port: ", ">= 0"]),
        ("[server]\nprot = 1", ["bridged.toml: line 2: server.prot: ", "no such setting", "did you mean `port`?"]),
        ("[serve]\nport = 1", ["bridged.toml: line 1: serve: ", "no such setting", "did you mean `server`?"]),
        ("[jobs]\nx_y_z = 1", ["bridged.toml: line 2: jobs.x_y_z: ", "no such setting"]),
        ("[jobs]\nmax_attempts = 0", ["bridged.toml: line 2: jobs.max_attempts: ", ">= 1"]),
        ("[jobs]\ntimeout_interval = 0", ["line 2: jobs.timeout_interval: ", "> 0"]),
        ("[jobs]\nprefetch = 2", ["line 2: jobs.prefetch: ", "<= 1"]),
        ("[files]\nupload_max_size = 0", ["line 2: files.upload_max_size: ", "> 0"]),
        ('[log]\nlevel = "loud"', ["line 2: log.level: ", "loud"]),
        ('[embedded]\nworker = "sometimes"', ["line 2: embedded.worker: ", "sometimes"]),
        ("# port = 1\n[jobs]\nmax_attempts = 2\n[server]\n# port\n  port = 1.5", ["line 6: server.port: "]),
        (
            "[files]\nallowed = {'image/png' = ['png']}",
            ["bridged.toml: files.allowed.'image/png': 'png'", 'like ".png"'],
        ),
        ("[files]\nallowed = {'image/png' = ['.PNG']}", ["files.allowed.'image/png': '.PNG'", "lower-case"]),
        ("[files]\nallowed = {'image/png' = '.png'}", ["bridged.toml: line 2: files.allowed"]),
        ("server = 3", ["bridged.toml: line 1: server: ", "Expected `object`, got `int`"]),
        ("x = " + "9" * 5000, ["bridged.toml: "]),
        ("x = " + "[" * 100_000, ["bridged.toml: "]),
        ('[workflows]\ndir = "gone"', ["bridged.toml: workflows.dir: ", "no folder", "gone", "make it, or name one"]),
    ],
)
def test_settings_are_refused_with_place_and_remedy(folder: Path, content: str, parts: list[str]) -> None:
    write(folder, bridged=content)
    text = refusal(folder)
    assert text.startswith("bridged.toml: ")
    for part in parts:
        assert part in text


ONE = '[[backend]]\nname = "a"\nurl = "http://a:1"\n'


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (ONE + '[[backend]]\nname = "b"\nurl = 5', ["line 6: backend[1].url: ", "Expected `str`, got `int`"]),
        (ONE + '[[backend]]\nname = "b"\n', ["line 4: backend[1]: ", "missing required field `url`"]),
        (ONE + ONE, ["backend[1].name: 'a' is used twice; every backend needs its own name"]),
        (ONE + "drian = true", ["line 4: backend[0].drian: ", "did you mean `drain`?"]),
        (ONE + "max_running = 0", ["line 4: backend[0].max_running: ", ">= 1"]),
        ('[[backend]]\nname = "a b"\nurl = "http://a"', ["line 2: backend[0].name: "]),
        ('[[backend]]\nname = "embedded"\nurl = "http://a"', ["backend[0].name: 'embedded'", "choose another"]),
        (
            '[[backend]]\nname = "a"\nurl = "a:8188"',
            ["backend[0].url: this is no address", "like http://192.168.0.20:8188"],
        ),
        ('[[backend]]\nname = "a"\nurl = "ftp://a"', ["backend[0].url: ", "like http://"]),
        ('[[backend]]\nname = "a"\nurl = "http://"', ["backend[0].url: ", "like http://"]),
        ('[[backend]]\nname = "a"\nurl = "http://a:99999"', ["backend[0].url: ", "like http://"]),
        ('[[backend]]\nname = "a"\nurl = "http://[::1"', ["backend[0].url: ", "like http://"]),
        ('[[backend]]\nname = "a"\nurl = "http://u:p@a"', ["backend[0].url: ", "put a login into `headers`"]),
        ('[[backend]]\nname = "a"\nurl = "http://a/?x=1"', ["backend[0].url: ", "only scheme, host, port and path"]),
        (ONE + 'token = "a b"', ["backends.toml: line 4: backend[0].token: "]),
        (ONE + 'token = "abc\\n"', ["backends.toml: line 4: backend[0].token: "]),
        (ONE + 'token = "a"\ntoken_file = "b"', ["backend[0]: give `token` or `token_file`, not both"]),
        (ONE + 'token_file = "gone"', ["backend[0].token_file: 'gone' cannot be read: No such file"]),
        (ONE + "headers = {'a b' = 'x'}", ["backend[0].headers: 'a b' is no header"]),
        (ONE + 'headers = {a = "x\\ny"}', ["backend[0].headers: 'a' is no header"]),
        (ONE + 'headers = {a = "ü"}', ["backend[0].headers: 'a' is no header"]),
        (ONE + 'headers = {a = " x"}', ["backend[0].headers: 'a' is no header"]),
        (ONE + 'headers = {Content-Length = "1"}', ["backend[0].headers: 'Content-Length' is the service's to set"]),
        ("backend = 3", ["backends.toml: line 1: backend: ", "Expected `array`, got `int`"]),
        ("backends = []", ["backends.toml: line 1: backends: ", "did you mean `backend`?"]),
    ],
)
def test_backends_are_refused_with_place_and_remedy(folder: Path, content: str, parts: list[str]) -> None:
    write(folder, backends=content)
    text = refusal(folder)
    assert text.startswith("backends.toml: ")
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    ("environ", "parts"),
    [
        ({"PORT": "http"}, ["environment: PORT: 'http'", "use 0 to 65535"]),
        ({"PORT": "65536"}, ["environment: PORT: '65536'", "use 0 to 65535"]),
        ({"PORT": "-1"}, ["environment: PORT: '-1'"]),
        ({"PORT": "²"}, ["environment: PORT: '²'"]),
        ({"PORT": "9" * 5000}, ["environment: PORT: "]),
        ({"COMFYUI_SERVERS": "a:1,b:x"}, ["environment: COMFYUI_SERVERS: backend[1].url: ", "like http://"]),
    ],
)
def test_the_environment_is_refused_the_same_way(folder: Path, environ: dict[str, str], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        load(folder, environ)
    for part in parts:
        assert part in str(refused.value)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ('[\n{"alias": "a" "fn": "x"}]', ["line 2, column "]),
        ("{", ["line 1, column "]),
        ("{}", ["the file: ", "Expected `array`, got `object`"]),
        ('[{"alias": "a", "fn": "../x.json"}]', ["[0].fn: '../x.json' must be a bare file name"]),
        ('[{"alias": "a", "fn": "x\\\\y.json"}]', ["[0].fn: ", "must be a bare file name"]),
        ('[{"alias": "a", "fn": ".."}]', ["[0].fn: '..' must be a bare file name"]),
        ('[{"alias": "a", "fn": "x", "thumbnail": "/etc/passwd"}]', ["[0].thumbnail: '/etc/passwd' must be"]),
        ('[{"alias": "a", "fn": "x"},\n{"alias": "a", "fn": "y"}]', ["[1].alias: 'a' is used twice"]),
        ('[\n{"alias": "a", "fn": "x"},\n{"alias": "", "fn": "y"}\n]', ["line 3: [1].alias: ", ">= 1"]),
        ('[\n {\n  "alias": "a",\n  "fn": "x"\n },\n {\n  "alias": "b",\n  "fn": 4\n }\n]', ["line 8: [1].fn: "]),
        (
            '[\n {"alias": "a", "fn": "x"},\n {"alias": "b", "fn": "y",\n "descripton": "y"}]',
            ["line 4: [1].descripton: ", "did you mean `description`?"],
        ),
        ('[\n\n {"alias": "a"}]', ["line 3: [0]: ", "missing required field `fn`"]),
        ("[" * 100_000, [""]),
        ("[" + "9" * 5000 + "]", [""]),
    ],
)
def test_a_broken_alias_list_is_a_problem_and_costs_only_the_aliases(
    folder: Path, content: str, parts: list[str]
) -> None:
    write(folder, aliases=content, backends=ONE)
    config, problems = load(folder, NOTHING)
    assert config.aliases == ()
    assert len(config.backends) == 1
    (text,) = problems
    assert text.startswith("workflow_alias.json: ")
    assert "\n" not in text
    for part in parts:
        assert part in text


@pytest.mark.parametrize("name", ["bridged.toml", "backends.toml", "workflow_alias.json"])
def test_files_that_are_not_utf_8_or_no_files(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"# \xff")
    try:
        _, problems = load(folder, NOTHING)
    except ConfigError as error:
        problems = [str(error)]
    assert problems == [f"{name}: byte 2: not UTF-8; save the file as UTF-8"]
    (folder / name).unlink()
    (folder / name).mkdir()
    try:
        _, problems = load(folder, NOTHING)
    except ConfigError as error:
        problems = [str(error)]
    assert problems == [f"{name}: cannot be read: Is a directory"]


def test_no_folder_says_how_to_name_one(tmp_path: Path) -> None:
    assert refusal(tmp_path / "gone") == f"{tmp_path}/gone: no such folder; give one with --config DIR"


# -- the previous content stays --------------------------------------------------------------------------------------


def test_each_bad_file_keeps_its_own_previous_content(folder: Path) -> None:
    write(folder, bridged="[server]\nport = 1", backends=ONE, aliases='[{"alias": "a", "fn": "x.json"}]')
    before = good(folder)
    write(folder, bridged="[server]\nport = 'x'", backends=ONE + 'tags = ["new"]', aliases="[")
    after, problems = load(folder, NOTHING, before)
    assert after.settings == before.settings
    assert after.aliases == before.aliases
    assert after.backends[0].tags == ("new",)
    assert [text.split(":")[0] for text in problems] == ["bridged.toml", "workflow_alias.json"]
    write(folder, bridged="[server]\nport = 2", backends="[[backend", aliases="[]")
    after, problems = load(folder, NOTHING, before)
    assert (after.settings.server.port, after.backends, after.aliases) == (2, before.backends, ())
    assert [text.split(":")[0] for text in problems] == ["backends.toml"]


def test_a_workflows_folder_that_went_away_keeps_the_previous(folder: Path) -> None:
    before = good(folder)
    write(folder, bridged='[workflows]\ndir = "gone"')
    after, problems = load(folder, NOTHING, before)
    assert after.workflows_dir == before.workflows_dir
    assert len(problems) == 1
    assert problems[0].startswith("bridged.toml: workflows.dir: no folder ")


def test_reading_twice_gives_equal_values(folder: Path) -> None:
    write(folder, backends=ONE)
    assert good(folder) == good(folder)


def test_the_configuration_is_frozen(folder: Path) -> None:
    config = good(folder)
    with pytest.raises(AttributeError):
        config.settings.server.port = 1  # type: ignore[misc]
    assert msgspec.structs.asdict(config)["folder"] == folder


def test_the_default_types_are_not_shared_between_configurations(folder: Path) -> None:
    good(folder).settings.files.allowed["image/png"].append(".evil")
    good(folder).settings.files.allowed["text/html"] = [".html"]
    assert good(folder).settings.files.allowed.get("text/html") is None
    assert good(folder).settings.files.allowed["image/png"] == [".png"]


def test_a_missing_alias_list_means_none(folder: Path) -> None:
    assert read_aliases(folder / "gone.json") == ()
    assert read_backends(folder, NOTHING) == ()


# -- tokens of patched PCs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["s3cret-token", "s3cret-token\n", " s3cret-token \r\n"])
def test_a_token_file_is_read_beside_the_configuration(folder: Path, content: str) -> None:
    (folder / "tokens").mkdir()
    (folder / "tokens" / "pc").write_text(content)
    write(folder, backends=ONE + 'token_file = "tokens/pc"')
    (backend,) = good(folder).backends
    assert backend.token == "s3cret-token"
    assert "s3cret" not in repr(backend) + str(backend)
    assert backend.place != msgspec.structs.replace(backend, token="another").place, "a new token is a new connection"


@pytest.mark.parametrize("content", ["", "s3cret one", "s3cret\nsecond", "s3cret-ü"])
def test_a_token_file_without_a_token_is_refused_and_not_repeated(folder: Path, content: str) -> None:
    (folder / "token").write_text(content)
    write(folder, backends=ONE + 'token_file = "token"')
    said = refusal(folder)
    assert "backends.toml: backend[0].token_file: 'token' has no token" in said
    assert "s3cret" not in said


def test_published_workflows_are_read_from_the_state_folder_that_is_in_use(folder: Path, tmp_path: Path) -> None:
    published = tmp_path / "var" / "workflows"
    published.mkdir(parents=True)
    (published / "workflow_alias.json").write_text('[{"alias": "p", "fn": "p.json"}]')
    write(folder, bridged='[state]\ndir = "../var"')
    before = good(folder)
    assert (before.published_dir, [entry.alias for entry in before.published]) == (published, ["p"])
    (published / "workflow_alias.json").write_text("[")
    after, (problem,) = load(folder, NOTHING, before)
    assert problem.startswith("published workflows: workflow_alias.json: line 1")
    assert after.published == before.published
    write(folder, bridged='[state]\ndir = "../elsewhere"')
    assert load(folder, NOTHING, before)[0].published_dir == published, "another one needs a restart"
