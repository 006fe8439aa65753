"""Three-way merges of encrypted documents, held to a model of dictionaries."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shiftable import sops
from shiftable.errors import IntegrityError
from shiftable.masking import Masked

PRIVATE, PUBLIC = sops.generate_identity()
ME = sops.parse_identities(PRIVATE)
KEYS = st.sampled_from("abcd")
FLAT = st.dictionaries(KEYS, st.integers(0, 3), max_size=4)


def dumped(data: dict[str, Any], **options: Any) -> bytes:
    return sops.dump(sops.Document(data, recipients=(PUBLIC,), **options))


def merged(base: dict[str, Any] | None, ours: dict[str, Any], theirs: dict[str, Any]) -> sops.Merge:
    return sops.merged(None if base is None else dumped(base), dumped(ours), dumped(theirs), ME, format="yaml")


@settings(max_examples=150, deadline=None)
@given(base=FLAT, ours=FLAT, theirs=FLAT, deep=st.booleans())
def test_each_key_is_taken_from_the_side_that_changed_it(
    base: dict[str, int],
    ours: dict[str, int],
    theirs: dict[str, int],
    deep: bool,  # noqa: FBT001  drawn
) -> None:
    expected: dict[str, int] = {}
    conflicts = set()
    for key in {*base, *ours, *theirs}:
        before, one, other = base.get(key), ours.get(key), theirs.get(key)
        if one != other and before not in (one, other):
            conflicts.add(f"x.{key}" if deep else key)
        value = other if one == before else one
        if value is not None:
            expected[key] = value
    wrap = (lambda tree: {"x": {**tree, "z": 9}}) if deep else dict
    result = merged(wrap(base), wrap(ours), wrap(theirs))
    assert conflicts == set(result.conflicts)
    assert (result.content is None) is bool(conflicts)
    if result.content is not None:
        assert wrap(expected) == sops.load(result.content, ME).data


@settings(max_examples=50, deadline=None)
@given(base=FLAT, theirs=FLAT)
def test_what_only_one_side_changed_is_that_side(base: dict[str, int], theirs: dict[str, int]) -> None:
    for result in (merged(base, base, theirs), merged(base, theirs, base), merged(base, theirs, theirs)):
        assert result.content is not None
        assert theirs == sops.load(result.content, ME).data


def test_lists_and_types_are_values() -> None:
    assert ("a",) == merged({"a": [1]}, {"a": [1, 2]}, {"a": [0, 1]}).conflicts
    assert ("a",) == merged({"a": 0}, {"a": 1}, {"a": True}).conflicts
    assert ("a",) == merged({"a": {"b": 1}}, {"a": 5}, {"a": {"b": 2}}).conflicts
    assert ("a.b",) == merged({"a": {}}, {"a": {"b": 1}}, {"a": {"b": 2}}).conflicts


def test_two_new_files_merge_where_they_agree() -> None:
    result = merged(None, {"a": 1, "same": 2}, {"b": 3, "same": 2})
    assert result.content is not None
    assert {"a": 1, "same": 2, "b": 3} == sops.load(result.content, ME).data
    assert ("same",) == merged(None, {"same": 1}, {"same": 2}).conflicts


def test_rules_that_both_sides_changed_are_a_conflict() -> None:
    contents = [dumped({"a": "b"}, rule=sops.Rule("encrypted_regex", f"^{name}")) for name in "abc"]
    result = sops.merged(contents[0], contents[1], contents[2], ME, format="yaml")
    assert ("the rule of what is encrypted",) == result.conflicts
    one = sops.merged(contents[0], contents[0], contents[2], ME, format="yaml")
    assert one.content is not None
    assert sops.Rule("encrypted_regex", "^c") == sops.load(one.content, ME).rule


def test_a_merge_shows_no_value() -> None:
    result = merged({"a": "x"}, {"a": "canary-1"}, {"a": "canary-2"})
    assert "canary" not in repr(result)


def test_what_did_not_change_keeps_its_ciphertext_in_a_merge() -> None:
    base = sops.Document({"a": "1", "b": "2", "c": "3"}, recipients=(PUBLIC,))
    start = sops.dump(base)
    contents = []
    for key in ("a", "b"):
        document = sops.load(start, ME)
        document.data[key] = "new"
        contents.append(sops.dump(document))
    result = sops.merged(start, contents[0], contents[1], ME, format="yaml")
    assert result.content is not None
    (line,) = [line for line in start.splitlines() if line.startswith(b"c: ")]
    assert line in result.content.splitlines()


def test_what_is_shown_tells_changes_apart_and_nothing_else() -> None:
    key = Masked(bytes(32))

    def shown(data: dict[str, Any], **options: Any) -> str:
        return sops.shown(dumped(data), ME, format="yaml", tag_key=key, policy=None, **options)

    first = shown({"a": "canary", "b": "canary", "c": 1, "d": None, "e": "", "f_unencrypted": "clear"})
    assert "canary" not in first
    assert "f_unencrypted: clear" in first
    tags = [line.partition("*** ")[2] for line in first.splitlines() if "***" in line]
    assert 3 == len(set(tags))  # equal values at two places are not seen to be equal
    assert first == shown({"a": "canary", "b": "canary", "c": 1, "d": None, "e": "", "f_unencrypted": "clear"})
    assert first != shown({"a": "canary", "b": "canary", "c": 2, "d": None, "e": "", "f_unencrypted": "clear"})
    assert "a: canary" in shown({"a": "canary"}, reveal=True)
    with pytest.raises(IntegrityError):
        sops.shown(dumped({"a": "b"}).replace(b"a: ", b"c: "), ME, format="yaml", tag_key=key, policy=None)
