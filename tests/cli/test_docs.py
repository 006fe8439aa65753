"""What the pages say: every command is one that there is, every link leads to something."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest

from shiftable.blob.driver import BlobDriver
from shiftable.cli._main import cli
from shiftable.errors import NotFound

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*/*.md")), *sorted(ROOT.glob("providers/*/README.md"))]
PAGES = [page for page in PAGES if page.parent.name != "changes"]
OPERATORS = {"|", "&&"}


def told(page: Path) -> Iterator[list[str]]:
    """Yield the arguments of each ``$ shiftable …`` of a page."""
    text = re.sub(r"\\\n\s*", " ", page.read_text("utf-8"))
    for line in re.findall(r"^\s*\$ (.*)$", text, re.MULTILINE):
        words = shlex.split(line, comments=True)
        while words:
            end = next((at for at, word in enumerate(words) if word in OPERATORS), len(words))
            if words[:1] == ["shiftable"]:
                yield words[1:end]
            words = words[end + 1 :]


def parse(arguments: list[str]) -> None:
    """Read arguments as the command would, and run nothing."""
    command: click.Command = cli
    parent: click.Context | None = None
    while True:
        parent = command.make_context(command.name, arguments, parent=parent)
        if not isinstance(command, click.Group):
            return
        name, found, arguments = command.resolve_command(parent, [*_protected(parent), *parent.args])
        assert found is not None, name
        command = found


def _protected(context: click.Context) -> list[str]:
    """Return what is left for a group's command, which older clicks keep under a public name."""
    state = vars(context)
    return list(state.get("_protected_args") or state.get("protected_args") or [])


@pytest.fixture(autouse=True)
def _no_file_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a path as it is: the files of a page are its reader's."""
    for kind in (click.Path, click.File):
        monkeypatch.setattr(kind, "convert", lambda _self, value, *_: value)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_of_a_page_is_one_that_there_is(page: Path) -> None:
    wrong = []
    for arguments in told(page):
        try:
            parse(arguments)
        except click.UsageError as exc:
            wrong.append((shlex.join(arguments), exc.format_message()))
    assert [] == wrong


def test_commands_are_found_on_the_pages_and_wrong_ones_are_noticed(tmp_path: Path) -> None:
    assert 100 < sum(len(list(told(page))) for page in PAGES)
    page = tmp_path / "page.md"
    page.write_text("$ shiftable plan && shiftable aply  # x\n$ cat x | shiftable blob cp - a:b --no-such\n")
    assert [["plan"], ["aply"], ["blob", "cp", "-", "a:b", "--no-such"]] == list(told(page))
    parse(["plan"])
    for wrong in (["aply"], ["blob", "cp", "-", "a:b", "--no-such"], ["blob", "sync", "a:"]):
        with pytest.raises(click.UsageError):
            parse(wrong)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_to_something(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text("utf-8"))
    assert [] == [link for link in links if not (page.parent / link).exists()]


def test_every_how_to_is_linked_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    pages = [page.relative_to(ROOT).as_posix() for page in sorted(ROOT.glob("docs/how-to/*.md"))]
    assert 15 < len(pages)
    assert [] == [page for page in pages if f"]({page})" not in text]


def test_the_provider_that_a_page_shows_is_loaded_and_lacks_nothing_but_verbs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs/how-to/write-a-provider.md").read_text("utf-8")
    for path, code in re.findall(r"^```python\n# (shiftable_acme/\S+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        file = tmp_path / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(code, "utf-8")
    (tmp_path / "acme.py").write_text("class Error(Exception):\n    code, text = 'no-bucket', 'gone'\n")
    monkeypatch.syspath_prepend(tmp_path)
    acme = import_module("shiftable_acme")
    assert "shiftable_acme.blob" not in sys.modules, "loading the class imports no SDK"

    (features,) = acme.AcmeProvider.features()["blob"]
    driver = import_module("shiftable_acme.blob").AcmeBlobDriver
    assert {"provider", "features", "classify"} == BlobDriver.__abstractmethods__ - driver.__abstractmethods__
    monkeypatch.setattr(driver, "__abstractmethods__", frozenset())
    made = acme.AcmeProvider(acme.AcmeSettings(region="here")).blob()

    assert ("acme", features) == (made.provider, made.features)
    fault = made.classify(import_module("acme").Error())
    assert (NotFound, "gone", "bucket") == (fault.error, fault.message, fault.missing)
    assert made.classify(ValueError()) is None
