"""What the pages on moves say is so: options, patterns, fields."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shiftable.cli import _migrate as command
from shiftable.cli._migrate import migrate
from shiftable.files import save
from shiftable.migrate import SCHEMA, Document, JsonEvents, Options, Trouble
from shiftable.migrate._glob import Glob

DOCS = Path(__file__).parent.parent.parent / "docs"
HOW_TO = (DOCS / "how-to" / "migrate.md").read_text("utf-8")
REFERENCE = (DOCS / "reference" / "migrate.md").read_text("utf-8")


def test_every_option_of_the_pages_is_one_of_the_command() -> None:
    there = {name for param in migrate.params for name in param.opts}
    told = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", HOW_TO + REFERENCE))

    assert {"--include", "--report", "--delete-limit", "--inventory"} <= told
    assert set() == told - there - {"--target"}  # of `shiftable check`


def test_every_option_of_the_command_is_on_the_pages() -> None:
    told = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", HOW_TO + REFERENCE))
    beside = {"--concurrency", "--listers", "--verify", "--no-verify"}

    assert set() == {name for param in migrate.params for name in param.opts if name.startswith("--")} - told - beside


def rows(page: str, head: str) -> list[list[str]]:
    lines = page[page.index(head) :].splitlines()[2:]
    table = lines[: next(number for number, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*.jpg", ["a.jpg", "img/a.jpg"], ["a.jpg/"]),
        ("/*.jpg", ["a.jpg"], ["img/a.jpg"]),
        ("img/", ["img/a", "x/img/a/b"], ["img", "myimg/a"]),
        ("/logs/**/*.gz", ["logs/2026/1.gz"], ["logs/1.gz", "x/logs/2026/1.gz"]),
        ("202[4-6]-??", ["2025-12"], ["2023-12", "2025-1/"]),
        ("*.{jpg,tar.gz}", ["a.jpg", "a.tar.gz"], ["a.gz"]),
        ("\\*", ["*"], ["a"]),
    ],
)
def test_the_patterns_of_the_page_match_what_it_says(pattern: str, yes: list[str], no: list[str]) -> None:
    assert f"`{pattern}`" in [row[0] for row in rows(HOW_TO, "| pattern | matches |")]
    assert (yes, []) == ([k for k in yes if Glob(pattern).matches(k)], [k for k in no if Glob(pattern).matches(k)])


def test_the_page_names_every_pattern_that_is_tested_and_no_other() -> None:
    assert 7 == len(rows(HOW_TO, "| pattern | matches |"))


def test_the_reports_fields_are_those_of_the_page() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    document = Document(source="a", target="b", started=moment, finished=moment, options=Options().facts)
    told = {name for row in rows(REFERENCE, "| field | is |") for name in re.findall(r"`(\w+)`", row[0])}

    assert {"schema"} | told == set(json.loads(document.to_json()))
    assert f"`{SCHEMA}`" in REFERENCE


def test_the_events_are_those_of_the_page() -> None:
    told = {row[0].strip("`") for row in rows(REFERENCE, "| event | fields |")}
    written = {"phase", "progress", "item", "plan", "report"}  # JsonEvents' docstrings say each

    assert written == told
    docs = " ".join(str(getattr(JsonEvents, name).__doc__) for name in dir(JsonEvents) if name.startswith("on_"))
    assert written == set(re.findall(r"``(\w+)``", docs))


def test_every_trouble_is_on_the_page_on_its_side() -> None:
    counts, others = REFERENCE[REFERENCE.index("Troubles: ") :].partition("count against a move")[::2]

    assert {str(each) for each in Trouble if each.counts} == set(re.findall(r"`(\w+)`", counts))
    assert {str(each) for each in Trouble if not each.counts} == set(
        re.findall(r"`(\w+)`", others.partition("do\nnot")[0])
    )


def test_a_report_that_cannot_be_written_is_said_and_the_others_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    document = Document(source="a", target="b", started=moment, finished=moment, options=Options().facts)
    full, good = tmp_path / "full.json", tmp_path / "good.html"

    def write(stream: Iterable[bytes], path: Path) -> None:
        if path == full:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(stream, path)

    monkeypatch.setattr(command, "save", write)

    assert not command._written(document, [full, good])
    assert f"the report {full} cannot be written: No space left on device" in capsys.readouterr().err
    assert [good] == list(tmp_path.iterdir())
