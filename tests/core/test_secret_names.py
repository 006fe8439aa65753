"""Names become ids of stores that allow fewer characters, and come back; no two become the same."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from shiftable.secrets.names import NameMap

LETTERS = string.ascii_letters + string.digits
GCP = NameMap("__", LETTERS + "_-", longest=255)
AZURE = NameMap("--", LETTERS + "-", longest=127, folds=True, beside=("pending",))
MAPS = pytest.mark.parametrize("names", [GCP, AZURE], ids=["gcp", "azure"])
PATTERNS = {GCP: r"[A-Za-z0-9_-]{1,255}", AZURE: r"[a-z0-9-]{1,127}"}
HASH = "0123456789abcdef01234567"

segments = st.from_regex(r"[a-z0-9]{1,4}(-[a-z0-9]{1,4}){0,2}", fullmatch=True)
portable = st.lists(segments, min_size=1, max_size=4).map("/".join)
awkward = st.text("abA1-_/~.ü ", min_size=1, max_size=12)
near_escapes = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(("", "~", "~~")),
    st.text("ab-_", max_size=4),
    st.sampled_from(("--", "__", "---", "___", "----", "____")),
    st.sampled_from((HASH, f"{HASH}-pending", "pending", HASH[:-1], "", "b", HASH.upper(), "Pending")),
)
natives = st.one_of(
    st.text("abA1-_", min_size=1, max_size=12), near_escapes.map(lambda text: text.replace("~", "")), portable
)
anything = st.one_of(portable, awkward, near_escapes, natives, st.text(min_size=1, max_size=60))


def ids(names: NameMap, text: str) -> str:
    """Make an id of the store of any text."""
    return "".join(character for character in text if character in names.allowed)


def portably(name: str) -> bool:
    """Say it in another way than the code does."""
    return all(
        word and set(word) <= set(string.ascii_lowercase + string.digits)
        for segment in name.split("/")
        for word in segment.split("-")
    )


@MAPS
@given(name=portable)
def test_a_portable_name_has_only_its_slashes_replaced_and_needs_no_label(names: NameMap, name: str) -> None:
    native = names.native(name)
    assert names.separator.join(name.split("/")) == native
    assert name == names.name(native)
    assert names.original(name) is None


@MAPS
@given(name=anything)
def test_a_name_comes_back_from_its_id_and_what_is_kept_beside_it(names: NameMap, name: str) -> None:
    assert name == names.name(names.native(name), names.original(name))


@MAPS
@given(name=anything)
def test_every_id_is_one_of_the_store(names: NameMap, name: str) -> None:
    assume(names.refusal(name) is None)
    assert re.fullmatch(PATTERNS[names], names.native(name))


@MAPS
@given(left=anything, right=anything)
def test_two_names_never_become_one_id(names: NameMap, left: str, right: str) -> None:
    assume(left != right)
    assert names.native(left) != names.native(right)


@MAPS
@given(name=anything)
def test_the_escapes_of_what_escaping_made_are_others(names: NameMap, name: str) -> None:
    made = {name}
    for _ in range(3):
        native = names.native(name)
        assert native not in made or native == name
        made |= {native}
        name = native


@MAPS
@given(native=natives, original=st.none() | anything)
def test_an_id_of_another_tool_has_a_name_that_becomes_it_again_whatever_its_label_says(
    names: NameMap, native: str, original: str | None
) -> None:
    native = ids(names, native)
    assume(native)
    name = names.name(native, original)
    expected = native.lower() if names.folds else native
    if names.is_aside(native):
        assert expected != names.native(name)
    else:
        assert expected == names.native(name)


@MAPS
@given(native=natives)
def test_an_id_is_its_own_name_unless_a_portable_name_becomes_it_or_it_looks_escaped(
    names: NameMap, native: str
) -> None:
    native = ids(names, native)
    assume(native)
    native = native.lower() if names.folds else native
    name = names.name(native)
    if name not in (native, f"~{native}"):
        assert portably(name)
        assert native == name.replace("/", names.separator)
    elif name != native:
        assert re.search(rf"{names.separator}{names.separator[-1]}([0-9a-f]{{24}}|([0-9a-f]{{24}}-)?pending)$", native)


@MAPS
@given(name=anything, length=st.integers(0, 60))
def test_ids_begin_as_the_beginnings_of_their_names_say(names: NameMap, name: str, length: int) -> None:
    assert names.native(name).startswith(names.beginning(name[:length]))


@given(left=natives, right=natives, name=anything)
def test_what_stands_beside_an_id_is_no_name_s_id_and_one_id_s_only(left: str, right: str, name: str) -> None:
    left, right = ids(AZURE, left).lower(), ids(AZURE, right).lower()
    assume(left and right)
    beside = AZURE.aside(left, "pending")
    assert AZURE.is_aside(beside)
    assert AZURE.native(name) != beside
    assert not AZURE.is_aside(AZURE.native(name))
    assert (left == right) is (beside == AZURE.aside(right, "pending"))


@example(left="a" * 127, right="a" * 126 + "b")
@given(left=st.text("ab", min_size=110, max_size=127), right=st.text("ab", min_size=110, max_size=127))
def test_what_stands_beside_a_long_id_is_no_longer_than_allowed(left: str, right: str) -> None:
    beside = AZURE.aside(left, "pending")
    assert len(beside) <= 127
    assert AZURE.is_aside(beside)
    assert (left == right) is (beside == AZURE.aside(right, "pending"))


def test_upper_case_is_kept_where_the_store_tells_it_apart_and_escaped_where_it_does_not() -> None:
    assert ("Key", "key") == (GCP.native("Key"), GCP.native("key"))
    assert "key" == AZURE.native("key")
    assert len({"key", AZURE.native("Key"), AZURE.native("KEY")}) == 3
    assert ("Key", "KEY") == tuple(AZURE.name(AZURE.native(name), name) for name in ("Key", "KEY"))


def test_another_tool_s_upper_case_is_shown_in_lower_case_where_the_store_does_not_tell_it_apart() -> None:
    assert "connectionstrings/default" == AZURE.name("ConnectionStrings--Default")
    assert "ConnectionStrings--Default".lower() == AZURE.native("connectionstrings/default")


def test_letters_whose_lower_case_is_ascii_are_not_taken_for_it() -> None:
    kelvin = "\u212a"
    assert AZURE.native("k") != AZURE.native(kelvin)
    assert re.fullmatch(r"----[0-9a-f]{24}", AZURE.native(kelvin))


@MAPS
@given(name=anything, label=anything)
def test_the_id_of_a_certain_name_is_nobody_else_s_whatever_its_label_says(
    names: NameMap, name: str, label: str
) -> None:
    native = names.native(name)
    if names.is_certain(name):
        assert name == names.name(native, label) == names.name(native)
    else:
        assert name in (f"~{native}", names.name(native, name))


def test_an_escaped_id_without_its_label_is_shown_with_a_mark_and_reached_so() -> None:
    native = GCP.native("a.b")
    assert f"~{native}" == GCP.name(native)
    assert native == GCP.native(f"~{native}")
    assert "a.b" == GCP.name(native, "a.b")


def test_a_label_that_was_copied_to_another_id_does_not_count() -> None:
    assert "a" == GCP.name("a", "a.b")
    assert f"~{GCP.native('a.b')}" == GCP.name(GCP.native("a.b"), "a.c")
    assert "a/b" == GCP.name("a__b", "a__b")


@MAPS
def test_a_name_that_becomes_too_long_is_refused_with_both_numbers(names: NameMap) -> None:
    fits = "/".join(["a"] * (names.longest // 3 + 1))
    assert names.refusal(fits[: names.longest // 3]) is None
    assert f"limit is {names.longest}" in str(names.refusal("/".join(["a"] * names.longest)))
    assert names.refusal("a" * names.longest) is None
    assert names.refusal("a" * (names.longest + 1)) is not None


@MAPS
@pytest.mark.parametrize("name", ["a\nb", "a\x00", "\x7f", "\ud800"], ids=ascii)
def test_a_name_that_no_label_holds_safely_is_refused(names: NameMap, name: str) -> None:
    assert "control characters" in str(names.refusal(name))


@MAPS
def test_an_escaped_name_of_any_length_becomes_an_id_that_is_not_too_long(names: NameMap) -> None:
    long = "ü/" * 5000 + "x"
    assert names.longest == len(names.native(long))
    assert names.native(long) != names.native(long + "x")
