"""Patterns against a slow reference, filters as values, and what they do to a move."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from shiftable.blob import BlobStore
from shiftable.errors import InvalidArgument, MigrationError
from shiftable.migrate import Action, Filter, KeyList, Plan, Rule
from shiftable.migrate._glob import Glob

# The reference reads the rules of the documentation word for word: for every pattern all the ends that it can have.


def reference(pattern: str, key: str) -> bool:
    starts = [0]
    if pattern.startswith("/"):
        pattern = pattern[1:]
    else:
        starts += [place + 1 for place, char in enumerate(key) if char == "/"]
    below = pattern.endswith("/")
    return any(end == len(key) or below for start in starts for end in ends(pattern, key, start))


def ends(pattern: str, key: str, at: int) -> Iterator[int]:
    """Every place of the key where the pattern, begun at a place, can end."""
    if not pattern:
        yield at
        return
    places, rest = first_piece(pattern, key, at)
    for place in places:
        yield from ends(rest, key, place)


def first_piece(pattern: str, key: str, at: int) -> tuple[list[int], str]:
    """Every place where the pattern's first piece can end, and what follows it."""
    here, rest = pattern[0], pattern[1:]
    if here == "{":
        ways, rest = alternatives(rest)
        return [place for way in ways for place in ends(way, key, at)], rest
    if here == "*":
        rest = pattern.lstrip("*")
        slashes = pattern.startswith("**")
        return [to for to in range(at, len(key) + 1) if slashes or "/" not in key[at:to]], rest
    allowed, rest = single(here, rest)
    return [at + 1] if at < len(key) and allowed(key[at]) else [], rest


def single(here: str, rest: str) -> tuple[Callable[[str], bool], str]:
    if here == "?":
        return lambda char: char != "/", rest
    if here == "[":
        members, negated, rest = members_of(rest)
        return lambda char: char != "/" and (char in members) != negated, rest
    if here == "\\":
        here, rest = rest[0], rest[1:]
    return lambda char: char == here, rest


def alternatives(text: str) -> tuple[list[str], str]:
    found, depth, start, place = [], 0, 0, 0
    while True:
        char = text[place]
        if char == "\\":
            place += 1
        elif char == "[":
            place += len(text[place:]) - len(members_of(text[place + 1 :])[2]) - 1
        elif char == "{":
            depth += 1
        elif char == "}" and depth:
            depth -= 1
        elif char in ",}" and not depth:
            found.append(text[start:place])
            start = place + 1
            if char == "}":
                return found, text[start:]
        place += 1


def members_of(text: str) -> tuple[set[str], bool, str]:
    negated = text[0] in "!^"
    text = text[negated:]
    found: set[str] = set()
    first = True
    while first or text[0] != "]":
        first = False
        escaped = text[0] == "\\"
        low, text = text[escaped], text[1 + escaped :]
        high = low
        if text[0] == "-" and text[1] != "]":
            escaped = text[1] == "\\"
            high, text = text[1 + escaped], text[2 + escaped :]
        found |= {chr(code) for code in range(ord(low), ord(high) + 1)}
    return found, negated, text[1:]


LETTERS = "ab/é"
pieces = st.recursive(
    st.sampled_from(
        [*LETTERS, "*", "**", "?", "[ab]", "[!a]", "[^b/]", "[a-b-]", "[]a]", "\\*", "\\a", "\\{", "-", ","]
    ),
    lambda inner: st.lists(st.lists(inner, max_size=3).map("".join), min_size=1, max_size=3).map(
        lambda ways: "{" + ",".join(ways) + "}"
    ),
    max_leaves=8,
)
patterns = st.lists(pieces, min_size=1, max_size=7).map("".join)
keys = st.text(LETTERS + "*{-],", max_size=10)


@settings(max_examples=500, deadline=None)
@given(patterns, keys)
@example("**a*b", "a/ab")
@example("a/", "x/a/")
@example("{a/,b}", "a/")
@example("{*,a}*", "b/c")
@example("/{,a}", "a")
def test_patterns_match_what_their_rules_say(pattern: str, key: str) -> None:
    assume(pattern != "/")
    try:
        found = Glob(pattern).matches(key)
    except InvalidArgument as exc:
        if "more than 1,000 alternatives" not in str(exc):
            raise
        assume(False)
    assert reference(pattern, key) == found


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*.jpg", ["a.jpg", "x/a.jpg", ".jpg", "x/.jpg"], ["a.JPG", "a.jpg/", "a.jpgx"]),
        ("/*.jpg", ["a.jpg"], ["x/a.jpg", "/a.jpg"]),
        ("//a", ["/a"], ["a", "x//a"]),
        ("logs/**", ["logs/", "logs/a/b", "x/logs/1"], ["logs", "catalogs/1"]),
        ("logs/", ["logs/", "logs/a/b"], ["logs"]),
        ("/a/**/b", ["a/x/b", "a/x/y/b", "a//b"], ["a/b", "x/a/x/b"]),
        ("202[4-6]-??", ["2025-12", "x/2024-01"], ["2023-01", "2025-1/"]),
        ("*.{jpg,{tar.,}gz}", ["a.jpg", "a.gz", "a.tar.gz"], ["a.tar", "a.jpg,"]),
        ("\u00e9", ["\u00e9"], ["e\u0301"]),
        ("a?b", ["a\nb", "a😀b"], ["a/b", "ab"]),
    ],
)
def test_patterns_of_the_documentation(pattern: str, yes: list[str], no: list[str]) -> None:
    assert (yes, []) == (
        [key for key in yes if Glob(pattern).matches(key)],
        [k for k in no if Glob(pattern).matches(k)],
    )


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("", "it is empty"),
        ("/", "it is empty"),
        ("a[b", r"a \[ is not closed \(character 2\)"),
        ("[]", r"a \[ is not closed"),
        ("a{b", r"a \{ is not closed \(character 2\)"),
        ("a\\", "nothing follows the backslash"),
        ("[b-a]", "the range b-a is backwards"),
        ("{a,b}" * 10, "more than 1,000 alternatives"),
    ],
)
def test_what_is_no_pattern_is_refused_with_the_place(pattern: str, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        Rule(include=True, pattern=pattern)


@pytest.mark.parametrize("pattern", ["*a*a*a*a*a*a*b", "/**a**a**a**a**a**b", "{*a*,**a}*a*a**a*b", "/**a**b"])
def test_no_key_stalls_a_pattern(pattern: str) -> None:
    assert not Glob(pattern).matches("a" * 1023 + "/")  # going back and forth would take longer than anybody waits


def test_a_pattern_can_be_sent_to_another_process() -> None:
    chosen = Filter(rules=[Rule(True, "*.jpg")], keys=KeyList.of(["a.jpg"]))
    again = pickle.loads(pickle.dumps(chosen))  # noqa: S301  it is ours
    assert [True, False] == [again.admits_key(key) for key in ("a.jpg", "b.jpg")]


def rules(*texts: str) -> Filter:
    return Filter(rules=tuple(Rule(text[0] == "+", text[2:]) for text in texts))


@pytest.mark.parametrize(
    ("texts", "passing"),
    [
        ((), "abc"),
        (("+ a",), "a"),
        (("- a",), "bc"),
        (("- a", "+ a", "+ b"), "b"),
        (("+ a", "- a", "- b"), "ac"),
        (("- **", "+ a"), ""),
        (("+ a", "- **"), "a"),
    ],
)
def test_the_first_rule_decides_and_the_rest_is_the_opposite_of_the_last(texts: tuple[str, ...], passing: str) -> None:
    assert passing == "".join(key for key in "abc" if rules(*texts).admits_key(key))


@given(st.lists(st.text("ab/", max_size=4), max_size=5), st.text("ab/", max_size=6))
def test_prefixes_are_those_that_were_given_whatever_is_below_another(prefixes: list[str], key: str) -> None:
    found = Filter(prefixes=prefixes)
    assert (not prefixes or key.startswith(tuple(prefixes))) == found.admits_key(key)
    assert list(found.prefixes) == sorted(found.prefixes)
    assert not any(one != other and one.startswith(other) for one in found.prefixes for other in found.prefixes)


def test_sizes_include_their_bounds_and_windows_of_time_share_nothing() -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    sized, after, before = Filter(min_size=2, max_size=3), Filter(modified_after=noon), Filter(modified_before=noon)

    assert [False, True, True, False] == [sized.admits("k", size, None) for size in (1, 2, 3, 4)]
    assert [False, True, True] == [after.admits("k", 0, noon + timedelta(seconds=step)) for step in (-1, 0, 1)]
    assert [True, False, False] == [before.admits("k", 0, noon + timedelta(seconds=step)) for step in (-1, 0, 1)]
    assert not after.admits("k", 0, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_size": 2, "max_size": 1},
        {"modified_after": datetime(2026, 1, 2, tzinfo=UTC), "modified_before": datetime(2026, 1, 1, tzinfo=UTC)},
        {"modified_after": datetime(2026, 1, 2)},  # noqa: DTZ001  that is what is refused
    ],
)
def test_a_filter_that_nothing_can_pass_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        Filter(**wrong)


@given(st.lists(st.text(max_size=5), max_size=50), st.text(max_size=5))
def test_a_list_of_keys_holds_what_was_listed(listed: list[str], other: str) -> None:
    found = KeyList.of(listed)
    assert all(key in found for key in listed)
    assert (other in listed) == (other in found)
    assert (KeyList.of(reversed(listed)), len({*listed})) == (found, found.count)
    met = bytearray(found.count)
    assert {*listed} == {*found.but(met)}
    for key in listed[::2]:
        met[found.place(key)] = 1
    assert sorted({*listed} - {*listed[::2]}) == sorted(found.but(met))


# moves


def filled(world: Any) -> None:
    for number, key in enumerate(["a.jpg", "b.txt", "img/c.jpg", "img/d.txt", "logs/e.gz"]):
        world.source.put(key, b"x" * number)


def moved(world: Any, **filters: Any) -> list[str]:
    report = world.migration("blob", filter=Filter(**filters)).apply()
    assert report.complete
    return sorted(world.contents(world.target))


def test_only_what_passes_is_moved(world: Any) -> None:
    filled(world)
    assert ["img/c.jpg"] == moved(world, prefixes=["img/"], rules=[Rule(True, "*.jpg")])
    assert ["img/c.jpg", "logs/e.gz"] == moved(world, min_size=4)
    assert ["a.jpg", "img/c.jpg", "logs/e.gz"] == moved(world, keys=KeyList.of(["a.jpg", "absent"]))
    assert 5 == len(moved(world))


def named(report: Any) -> list[tuple[str, str]]:
    (found,) = report.resources
    return sorted((str(each.trouble), each.key) for each in found.named)


def test_listed_keys_that_the_source_has_not_are_named(world: Any) -> None:
    filled(world)
    chosen = Filter(keys=KeyList.of(["a.jpg", "b.txt", "absent", "img/Ä", "logs/f.gz"]))
    missing = [("vanished", "absent"), ("vanished", "img/Ä"), ("vanished", "logs/f.gz")]
    for _ in range(2):
        assert missing == named(world.migration("blob", filter=chosen).plan())
    for report in (world.migration("blob", filter=chosen).apply(), world.migration("blob", filter=chosen).verify()):
        assert (missing, True) == (named(report), report.complete)
    assert ["a.jpg", "b.txt"] == sorted(world.contents(world.target))

    world.source.delete("b.txt")  # what was moved and is gone since is another thing
    world.target.put("absent", b"somebody else's")
    assert [("stale", "b.txt"), *missing] == named(world.migration("blob", filter=chosen).plan())
    for rest in ({"prefixes": ["logs/"]}, {"rules": [Rule(True, "*.gz")]}):
        narrower = Filter(keys=chosen.keys, **rest)
        assert [("vanished", "logs/f.gz")] == named(world.migration("blob", filter=narrower).plan())
    unmet = Filter(keys=chosen.keys, min_size=1000)
    assert missing == named(world.migration("blob", filter=unmet).plan())


def test_of_two_buckets_neither_misses_what_may_be_in_the_other(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(world)
    other = attrs.evolve(world.bucket_spec, name="other-bucket")
    BlobStore(world.left).create(other).put("in/the/other", b"1")
    (assets, _) = world.declared()
    both = (assets, attrs.evolve(assets, label="other", spec=other))
    monkeypatch.setattr(world, "declared", lambda: both)
    report = world.migration("blob", filter=Filter(keys=KeyList.of(["a.jpg", "in/the/other"]))).apply()
    assert [(1, ()), (1, ())] == [(found.changed, found.named) for found in report.resources]


def test_prefixes_are_listed_and_nothing_else(world: Any) -> None:
    filled(world)
    asked: list[str] = []
    real = world.left.list

    def listing(bucket: str, **kwargs: Any) -> Any:
        asked.append(kwargs["prefix"])
        return real(bucket, **kwargs)

    world.left.list = listing
    world.migration("blob", filter=Filter(prefixes=["logs/", "img/"])).plan()

    assert ["img/", "logs/"] == asked


def test_the_plan_counts_what_is_hidden(world: Any) -> None:
    filled(world)
    plan = world.migration("blob", filter=Filter(rules=[Rule(False, "*.jpg")])).plan()

    assert {"create": (3, 8), "hidden": (2, 2)} == {
        str(action): (tally.count, tally.bytes) for action, tally in plan.resources[0].actions.items()
    }
    assert (plan.complete, plan.resources[0].to_do.count) == (True, 3)


def test_prune_never_deletes_what_the_filter_hides(world: Any) -> None:
    filled(world)
    world.migration("blob").apply()
    for found in list(world.source.list()):
        world.source.delete(found.key)
    world.source.put("logs/e.gz", b"grown beyond the bound")
    chosen = Filter(rules=[Rule(False, "*.txt")], max_size=3)
    plan = world.migration("blob", prune=True, filter=chosen).plan()
    report = world.migration("blob", prune=True, filter=chosen).apply()

    assert {Action.DELETE: 2, Action.HIDDEN: 3} == {
        action: tally.count for action, tally in plan.resources[0].actions.items()
    }
    assert (report.changed, sorted(world.contents(world.target))) == (2, ["b.txt", "img/d.txt", "logs/e.gz"])
    assert b"xxxx" == world.target.get("logs/e.gz")


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_whatever_was_moved_by_whatever_filter_prune_touches_only_what_passes(
    world_class: Any, data: st.DataObject
) -> None:
    names = ["a/x", "a/y", "b/x", "b/y", "x", "y"]
    chosen = st.lists(st.sampled_from(["+ a/", "- a/", "+ x", "- y", "- **", "+ /[xy]"]), max_size=3)
    with tempfile.TemporaryDirectory() as folder:
        world = world_class(Path(folder))
        for name in names:
            world.source.put(name, b"1")
        world.migration("blob", filter=rules(*data.draw(chosen))).apply()
        before = set(world.contents(world.target))
        for name in data.draw(st.sets(st.sampled_from(names))):
            world.source.delete(name)
        last = rules(*data.draw(chosen))
        world.migration("blob", prune=True, prune_share=1.0, filter=last).apply()
        there = set(world.contents(world.source))
        expected = {key for key in before if not last.admits_key(key) or key in there}
        expected |= {key for key in there if last.admits_key(key)}

        assert expected == set(world.contents(world.target))


def test_a_filter_is_part_of_the_plan(world: Any) -> None:
    filled(world)
    plans = [
        world.migration("blob", filter=chosen).plan()
        for chosen in (
            Filter(),
            Filter(rules=[Rule(True, "**")]),
            Filter(keys=KeyList.of(["a.jpg"])),
            Filter(keys=KeyList.of(["a.jpg", "absent"])),
            Filter(modified_after=datetime(2020, 1, 1, tzinfo=UTC)),
        )
    ]

    assert len(plans) == len({plan.digest for plan in plans})
    assert plans == [Plan.from_json(plan.to_json()) for plan in plans]
    with pytest.raises(MigrationError, match="moved: the options are others than the plan's; plan again"):
        world.migration("blob").apply(plans[2])


def test_a_pinned_plan_does_not_mind_what_it_does_not_see(world: Any) -> None:
    filled(world)
    migration = world.migration("blob", filter=Filter(rules=[Rule(False, "*.txt")]))
    plan = migration.plan()
    world.source.put("b.txt", b"changed")

    assert migration.apply(plan).complete


def test_a_stopped_move_goes_on_with_another_filter(world: Any) -> None:
    for number in range(200):
        world.source.put(f"{number:03}.{'ab'[number % 2]}", b"1")
    writes = iter(range(1000))

    def stop(operation: str, _key: str) -> None:
        if operation == "put" and next(writes) == 50:
            raise KeyboardInterrupt

    world.right.hook = stop
    with pytest.raises(KeyboardInterrupt):
        world.migration("blob", filter=rules("+ *.a")).apply()
    world.right.hook = lambda *_: None
    world.migration("blob", filter=rules("+ *.b")).apply()
    there = sorted(world.contents(world.target))
    report = world.migration("blob").apply()

    assert 100 == sum(key.endswith(".b") for key in there)
    assert (True, 200) == (report.complete, len(world.contents(world.target)))
    assert len(world.right.writes) == 200


def test_verify_compares_only_what_passes(world: Any) -> None:
    filled(world)
    world.make_target().put("b.txt", b"other")
    report = world.migration("blob", filter=rules("- *.txt", "- *.gz")).apply()
    verified = world.migration("blob", filter=rules("- *.txt", "- *.gz")).verify()

    assert (True, True, 2) == (report.complete, verified.complete, verified.resources[0].verified.count)


def test_a_filter_goes_with_buckets_only(world: Any) -> None:
    with pytest.raises(MigrationError, match=r"says nothing of secrets\.app; name what is to be moved"):
        world.migration(filter=rules("- x"))


def test_a_list_of_keys_that_a_saved_plan_does_not_hold_is_asked_for(world: Any) -> None:
    filled(world)
    saved = Plan.from_json(world.migration("blob", filter=Filter(keys=KeyList.of(["a.jpg"]))).plan().to_json())

    with pytest.raises(InvalidArgument, match="give the list again"):
        saved.options.filter.admits_key("a.jpg")
    assert saved.options.filter.keys is not None
    with pytest.raises(InvalidArgument, match="give the list again"):
        list(saved.options.filter.keys.but(b"\0"))
