"""The final report: JSON of a known schema, and a page that shows whatever keys are made of and obeys none."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shiftable.errors import MigrationError, QuotaExceeded, Throttled
from shiftable.migrate import (
    SCHEMA,
    Action,
    Document,
    Large,
    LossCount,
    Named,
    Options,
    Phase,
    Progress,
    Recorder,
    Report,
    ResourceReport,
    Sample,
    Silent,
    Tally,
    Trouble,
)
from shiftable.migrate._html import visible
from shiftable.migrate._report import Losses
from shiftable.migrate.mover import Loss

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
VOID = {"meta"}


class Page(HTMLParser):
    """Reads a page as a browser would, and insists on what a page of ours is."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    def names(self) -> set[str]:
        return {tag for tag, _ in self.tags}


def document(**fields: Any) -> Document:
    return Document(
        **{
            "source": "frankfurt",
            "target": "local",
            "started": NOON,
            "finished": NOON + timedelta(seconds=90),
            "options": Options().facts,
            **fields,
        }
    )


def report(*resources: ResourceReport, **fields: Any) -> Report:
    return Report(source="frankfurt", target="local", plan="", resources=resources, **fields)


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a\u202egpj.exe",
    "a\x00\x1b[31m\r\n",
    "\ud800",
    "&lt;b&gt;",
    "]]><!--",
    "\u2066\u200b\u00ad\ufeff",
    "x" * 1024,
]


def hostile() -> Document:
    named = tuple(Named("blob.<b>", key, Trouble.FAILED, f"why {key}") for key in HOSTILE)
    losses = tuple(
        LossCount(facet=f"f{key}", detail=key, accepted=False, count=2, examples=tuple(HOSTILE)) for key in HOSTILE
    )
    resource = ResourceReport(
        address="blob.<b>",
        done={Action.CREATE: Tally(3, 10)},
        troubles={Trouble.FAILED: len(HOSTILE)},
        losses=losses,
        named=named,
        refused=tuple(HOSTILE),
        largest=tuple(Large(key, 5) for key in HOSTILE),
    )
    return document(
        source=HOSTILE[0],
        target=HOSTILE[1],
        move=report(resource, skipped=tuple(HOSTILE), stopped=HOSTILE[0]),
        verification=report(resource, kind="verification"),
        options=Options().facts | {"filter": HOSTILE},
        samples=(Sample(0, "copy", HOSTILE[0], 0, 0), Sample(2, "copy", HOSTILE[0], 5, 100)),
    )


def test_hostile_keys_are_shown_and_never_obeyed() -> None:
    text = hostile().to_html()
    page = Page(text)

    assert text.encode()  # no half of a pair is left in it
    assert not {"script", "img", "b", "link", "iframe", "object"} & page.names()
    assert not any(name.startswith("on") or name in {"src", "href"} for _, given in page.tags for name in given)
    assert not set(text) & set("\x00\x1b\r\u202e\u2066\u200b\u00ad\ufeff")
    assert "<script>alert(1)</script>" in "".join(page.texts)
    assert "a\\u{202e}gpj.exe" in "".join(page.texts)
    assert "&lt;b&gt;" in "".join(page.texts)


@given(st.text(alphabet=st.characters(codec=None)).filter(lambda text: "\\u{" not in text))
def test_any_text_comes_out_as_it_is(text: str) -> None:
    page = Page(f"<p>{visible(text)}</p>")

    assert text == unspelt("".join(page.texts))
    assert {"p", "span"} >= page.names()


def unspelt(text: str) -> str:
    return re.sub(r"\\u\{([0-9a-f]+)\}", lambda found: chr(int(found[1], 16)), text)


def test_the_page_needs_nothing_from_elsewhere() -> None:
    text = hostile().to_html()

    assert "http" not in text.replace("http-equiv", "")
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_charts_are_named_and_tables_have_captions_and_heads() -> None:
    page = Page(hostile().to_html())
    charts = [given for tag, given in page.tags if tag == "svg" and "aria-hidden" not in given]

    assert len(charts) >= 5
    assert all(given["role"] == "img" and given["aria-label"] for given in charts)
    assert [tag for tag, _ in page.tags].count("table") == [tag for tag, _ in page.tags].count("caption") > 0
    assert all(given.get("scope") == "col" for tag, given in page.tags if tag == "th")
    assert {"lang": "en"} in [given for tag, given in page.tags if tag == "html"]


def test_colours_can_be_told_from_the_paper_in_both_modes() -> None:
    style = hostile().to_html().partition("<style>")[2].partition("</style>")[0]
    light, dark = style.partition("@media (prefers-color-scheme: dark)")[::2]
    for mode in (light, dark):
        found = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", mode))
        assert {"ink", "soft", "paper", "card", "a", "b", "c", "d", "e", "f", "good", "bad"} <= set(found)
        for name in ("ink", "soft", "good", "bad", "a"):  # WCAG 2.2, 1.4.3: text
            assert 4.5 <= contrast(found[name], found["paper"])
        for name in "abcdef":  # 1.4.11: graphics
            assert 3 <= contrast(found[name], found["paper"])


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({}, "failed"),
        ({"move": report()}, "complete"),
        ({"move": report(stopped="interrupted")}, "stopped"),
        ({"move": report(), "failure": "MigrationError: x"}, "failed"),
        ({"move": report(), "verification": report(ResourceReport(address="a", refused=("no",)))}, "incomplete"),
    ],
)
def test_an_empty_or_broken_off_document_is_one_too(fields: dict[str, Any], outcome: str) -> None:
    found = document(**fields)

    assert outcome == found.outcome == json.loads(found.to_json())["outcome"]
    assert "main" in Page(found.to_html()).names()


def test_a_huge_document_stays_small_and_says_what_was_cut() -> None:
    named = tuple(Named("blob.a", f"key {number}", Trouble.FAILED, "why") for number in range(1000))
    resource = ResourceReport(address="blob.a", troubles={Trouble.FAILED: 2_000_000}, named=named)
    samples = tuple(Sample(number, "copy", "blob.a", number, number) for number in range(512))
    text = document(move=report(resource), samples=samples).to_html()

    assert "the first 500 of 2,000,000" in text
    assert 500 == text.count("<bdi>key ")
    assert len(text) < 200_000


def test_json_has_its_schema_and_keys_as_they_are() -> None:
    found = json.loads(hostile().to_json())

    assert (SCHEMA, "shiftable.migrate.report/1") == (found["schema"], SCHEMA)
    assert [
        "schema", "outcome", "failure", "source", "target", "started", "finished", "options", "plan", "move",
        "verification", "samples",
    ] == list(found)  # fmt: skip
    assert HOSTILE == [each["key"] for each in found["move"]["resources"][0]["named"]]
    assert HOSTILE == [each["key"] for each in found["move"]["resources"][0]["largest"]]


def test_the_share_that_was_verified_is_told() -> None:
    resource = ResourceReport(address="a", verified=Tally(3, 3), troubles={Trouble.DIFFERS: 1})
    assert "3 of 4 items are equal on both sides (75.0%)" in document(verification=report(resource)).to_html()
    whole = ResourceReport(address="a", verified=Tally(3, 3))
    assert "(100 %)" in document(verification=report(whole)).to_html()


# what is gathered


def test_a_recorder_keeps_some_hundred_samples_however_long_it_takes() -> None:
    moment = iter(range(10**9))
    recorder = Recorder(Silent(), clock=lambda: float(next(moment)), most=64)
    recorder.on_phase(Phase("copy", "blob.a"))
    for number in range(100_000):
        recorder.on_progress(Progress("copy", "blob.a", number, number * 10))
    samples = recorder.samples

    assert 16 <= len(samples) <= 65
    assert (0, 99_999) == (samples[0].items, samples[-1].items)
    assert [sample.seconds for sample in samples] == sorted(sample.seconds for sample in samples)


def test_a_recorder_of_many_short_phases_stays_small_too() -> None:
    recorder = Recorder(Silent(), clock=lambda: 0.0, most=64)
    for number in range(10_000):
        recorder.on_phase(Phase("copy", f"blob.{number}"))

    assert len(recorder.samples) <= 65


def test_losses_stay_few_however_many_names_they_have() -> None:
    losses = Losses()
    for number in range(5000):
        losses.add(f"key {number}", (Loss("metadata", f"the name {number} is not possible", accepted=True),))
    found = losses.counted()

    assert 5000 == sum(loss.count for loss in found)
    assert len(found) == 201
    assert [("and others", 4800)] == [(loss.detail, loss.count) for loss in found if loss.count > 1]


def recorded(world: Any, **options: Any) -> tuple[Any, Recorder]:
    return world.migration("blob", **options), Recorder(Silent())


def test_a_move_and_its_verification_make_a_document(world: Any) -> None:
    for number in range(30):
        world.source.put(f"{number:02}", b"x" * number)
    migration, recorder = recorded(world)
    migration.plan(recorder)
    migration.apply(None, recorder)
    migration.verify(recorder)
    made = Document.of(recorder, route=("frankfurt", "local"), options=migration.options, times=(NOON, NOON))
    found = json.loads(made.to_json())

    assert "complete" == made.outcome
    assert {"create": {"count": 30, "bytes": 435}} == found["move"]["resources"][0]["done"]
    assert {"count": 30, "bytes": 435} == found["verification"]["resources"][0]["verified"]
    assert ["29", "28"] == [each["key"] for each in found["move"]["resources"][0]["largest"][:2]]
    assert 20 == len(found["move"]["resources"][0]["largest"])
    assert "segments" not in found["plan"]["resources"][0]
    assert {"plan", "copy", "verify"} == {sample["phase"] for sample in found["samples"]}
    assert "Verified" in made.to_html()


def test_a_move_that_is_stopped_tells_what_it_did(world: Any) -> None:
    for number in range(200):
        world.source.put(f"{number:03}", b"1")
    migration, recorder = recorded(world, concurrency=1)
    writes = iter(range(1000))

    def stop(operation: str, _key: str) -> None:
        if operation == "put" and next(writes) == 100:
            raise KeyboardInterrupt

    world.right.hook = stop
    with pytest.raises(KeyboardInterrupt):
        migration.apply(None, recorder)
    made = Document.of(recorder, route=("frankfurt", "local"), options=migration.options, times=(NOON, NOON))

    assert made.move is not None
    assert ("stopped", "interrupted") == (made.outcome, made.move.stopped)
    assert 100 <= made.move.changed < 110  # the thread that was interrupted may have had the next one already
    assert not made.move.complete


def test_a_move_that_fails_tells_why(world: Any) -> None:
    for number in range(100):
        world.source.put(f"{number:03}", b"1")

    def full(operation: str, _key: str) -> None:
        if operation == "put":
            raise world.fault(QuotaExceeded, "the disk is full")

    world.right.hook = full
    migration, recorder = recorded(world)
    with pytest.raises(MigrationError):
        migration.apply(None, recorder)
    made = Document.of(recorder, route=("frankfurt", "local"), options=migration.options, times=(NOON, NOON))

    assert "stopped" == made.outcome
    assert made.move is not None
    assert "10 failures in a row of the kind QuotaExceeded" in made.move.stopped
    assert "the disk is full" in made.to_html()
    assert attrs.asdict(made.move.resources[0])["named"]


def test_progress_says_what_is_under_way_and_whether_a_provider_asks_for_less(world: Any) -> None:
    for number in range(200):
        world.source.put(f"{number:03}", b"1")
    first = iter([True])

    def slow(operation: str, _key: str) -> None:
        if operation == "put" and next(first, False):
            raise world.fault(Throttled)

    class Keeping(Silent):
        def __init__(self) -> None:
            self.seen: list[Progress] = []

        def on_progress(self, progress: Progress) -> None:
            self.seen.append(progress)

    world.right.hook = slow
    keeping = Keeping()
    assert world.migration("blob").apply(None, keeping).complete

    copying = [each for each in keeping.seen if each.phase == "copy"]
    assert all(each.in_flight is not None and 0 <= each.in_flight <= 16 for each in copying)
    assert any(each.throttled for each in copying)
    assert 0 == copying[-1].in_flight
