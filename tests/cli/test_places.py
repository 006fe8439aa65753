"""What people write, and where that is: labels, URLs, accounts, paths."""

from pathlib import Path

import pytest

import shiftable
from shiftable.app import App
from shiftable.cli._context import Context, shown
from shiftable.cli._places import Local, Location, PlaceType, Remote, matching
from shiftable.cloud import Cloud
from shiftable.errors import ConfigError

FILE = """
[project]
name = "shop"
[environments.development]
provider = "memory"
[environments.production]
provider = "frankfurt"
[providers.frankfurt]
type = "aws"
[providers.dublin]
type = "aws"
[providers.alps]
type = "gcp"
[providers.north]
type = "azure"
storage_account = "northshop"
[blob.assets]
"""


class Recorder:
    """Stands where providers would be connected, and notes which."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[object] = []
        monkeypatch.setattr(Context, "connected", self.connected)
        monkeypatch.setattr(App, "cloud", self.cloud)

    def connected(self, provider: str, **settings: object) -> Cloud:
        self.asked.append((provider, settings))
        return shiftable.connect("memory")

    def cloud(self, label: str) -> Cloud:
        self.asked.append(label)
        return shiftable.connect("memory")


@pytest.fixture
def recorder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return Recorder(monkeypatch)


def opened(text: str, environment: str | None = None) -> tuple[str, str, str]:
    location = Remote(text).open(Context(environment=environment))
    return location.bucket.name, location.key, str(location)


@pytest.mark.parametrize(
    ("text", "is_remote"),
    [
        ("assets:", True),
        ("assets:a:b", True),
        ("s3://bucket/key", True),
        ("./a:b", False),
        ("a/b:c", False),
        (":a", False),
        ("a", False),
        ("-", False),
        ("/abs", False),
    ],
)
def test_a_colon_before_any_slash_makes_it_remote(text: str, is_remote: object) -> None:
    assert (Remote(text) if is_remote else Local(text)) == PlaceType().convert(text)


@pytest.mark.parametrize(
    ("text", "provider", "settings", "where"),
    [
        ("s3://bucket/a/b", "aws", {}, ("bucket", "a/b")),
        ("s3://bucket", "aws", {}, ("bucket", "")),
        ("s3://bucket//a", "aws", {}, ("bucket", "/a")),
        ("gs://bucket/a?b#c%20", "gcp", {}, ("bucket", "a?b#c%20")),
        ("az://account/box/a/b", "azure", {"storage_account": "account"}, ("box", "a/b")),
        ("az://account.blob.core.windows.net/box/a", "azure", {"storage_account": "account"}, ("box", "a")),
    ],
)
def test_without_a_file_a_url_means_the_providers_own_credentials(
    recorder: Recorder, text: str, provider: str, settings: dict[str, str], where: tuple[str, str]
) -> None:
    assert (*where, text if where[1] else f"{text}/") == opened(text)
    assert [(provider, settings)] == recorder.asked


@pytest.mark.parametrize(
    ("text", "account", "where"),
    [
        ("az://box/a/b", "mine", ("box", "a/b", "az://box/a/b")),
        ("az://mine/box/a", "mine", ("box", "a", "az://mine/box/a")),
        ("az://other.blob.core.windows.net/box/a", "other", ("box", "a", "az://other.blob.core.windows.net/box/a")),
    ],
)
def test_an_account_of_the_environment_makes_the_first_name_a_container(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, text: str, account: str, where: tuple[str, str, str]
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "mine")
    assert where == opened(text)
    assert [("azure", {"storage_account": account})] == recorder.asked


@pytest.mark.parametrize(
    ("text", "environment", "asked"),
    [
        ("s3://bucket/a", "production", "frankfurt"),
        ("dublin://bucket/a", "production", "dublin"),
        ("gs://bucket/a", "development", "alps"),
        ("az://box/a", "development", "north"),
        ("az://northshop/box/a", "development", "north"),
        ("az://south.blob.core.windows.net/box/a", "development", ("azure", {"storage_account": "south"})),
    ],
)
def test_with_a_file_a_url_means_its_providers(
    recorder: Recorder, folder: Path, text: str, environment: str, asked: object
) -> None:
    (folder / "shiftable.toml").write_text(FILE)
    assert text == opened(text, environment)[2]
    assert [asked] == recorder.asked


def test_a_scheme_of_several_providers_is_refused_with_the_choices(recorder: Recorder, folder: Path) -> None:
    (folder / "shiftable.toml").write_text(FILE)
    with pytest.raises(ConfigError, match="several providers of type aws: write frankfurt://, dublin://"):
        opened("s3://bucket/a", "development")


def test_a_file_without_that_type_leaves_the_own_credentials(recorder: Recorder, folder: Path) -> None:
    (folder / "shiftable.toml").write_text(FILE.replace('type = "gcp"', 'type = "memory"'))
    opened("gs://bucket/a", "development")
    assert [("gcp", {})] == recorder.asked


def test_a_wrong_file_is_told_also_for_a_url(recorder: Recorder, folder: Path) -> None:
    (folder / "shiftable.toml").write_text("not toml [")
    with pytest.raises(ConfigError, match="is not TOML"):
        opened("s3://bucket/a")
    assert [] == recorder.asked


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s3://", "names no bucket"),
        ("az://", "names no bucket"),
        ("az://account", "az://account/ is an account and names no container"),
        ("az://account/", "az://account/ is an account and names no container"),
    ],
)
def test_a_url_without_a_bucket_is_refused(recorder: Recorder, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        opened(text)


@pytest.mark.parametrize(
    ("pattern", "folder", "matches", "others"),
    [
        ("a/*.txt", "a/", ["a/b.txt", "a/.txt", "a/b\n.txt"], ["a/b/c.txt", "a/b.txt.gz"]),
        ("a/**.txt", "a/", ["a/b/c.txt", "a/b.txt"], ["b/a/c.txt"]),
        ("a-?/[xy]", "", ["a-1/x", "a-2/y"], ["a-1/z", "a-/x", "a-//x"]),
        ("a[!0-9]", "", ["ax"], ["a1", "a"]),
        ("a/[*]", "a/", ["a/*"], ["a/b"]),
        ("a.b+c/x", "a.b+c/", ["a.b+c/x"], ["aXb+c/x", "a.bbc/x"]),
        ("[", "", ["["], ["a"]),
    ],
)
def test_a_pattern_finds_keys_as_shells_find_files(
    pattern: str, folder: str, matches: list[str], others: list[str]
) -> None:
    bucket = shiftable.connect("memory").blob.bucket("b")
    found, expression = matching(Location(bucket, "b:", pattern))
    assert folder == found
    assert matches == [key for key in [*matches, *others] if expression.fullmatch(key)]


@pytest.mark.parametrize(
    ("text", "on_a_terminal"),
    [
        ("plain ü 店 👩‍🚀", "plain ü 店 👩‍🚀"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\r\tc\x00\x7f\x9b", "a\\nb\\r\\tc\\x00\\x7f\\x9b"),
        ("\u202egpj\u2066\u200f\ufeff\u2028", "\\u202egpj\\u2066\\u200f\\ufeff\\u2028"),
        ("\udcff", "\\udcff"),
    ],
)
def test_what_could_fool_a_terminal_is_escaped(text: str, on_a_terminal: str) -> None:
    assert on_a_terminal == shown(text)
