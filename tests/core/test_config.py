"""Configuration: exact types, all problems at once, references instead of credentials, a schema that agrees."""

import json
import pickle
import re
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shiftable.checks import is_not_negative, is_positive
from shiftable.config import (
    BucketReference,
    Credential,
    Place,
    as_in_file,
    did_you_mean,
    line_of,
    schema,
    structure,
)
from shiftable.errors import ConfigError
from shiftable.manifest import spec_type
from shiftable.provider import SERVICES
from shiftable.service import Spec

TYPES = re.compile(
    r": must be (text|a whole number|a number|true or false|a list|a table|a date|a duration|one of '|\{)"
)


@attrs.frozen(kw_only=True)
class Inner:
    x: int


@attrs.frozen(kw_only=True)
class Settings:
    """Settings.

    Args:
        region: where,
            on two lines.
    """

    region: str
    size_gib: float = 1.0
    count: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    flag: bool = False
    mode: Literal["fast", "safe"] = "safe"
    key: Credential | None = None
    items: tuple[str, ...] = ()
    env: Mapping[str, str] = attrs.Factory(dict)
    inner: Inner | None = None
    path: Path | None = None
    keep: timedelta = timedelta(days=1)
    price: Decimal | None = None


@attrs.frozen(kw_only=True)
class NamedSpec(Spec):
    name_key = "bucket"


def made(table: dict[str, Any], **place: Any) -> Settings:
    return structure(Settings, {"region": "eu"} | table, Place("providers.x", **place))


def problems(table: dict[str, Any], **place: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        made(table, **place)
    return [str(problem) for problem in caught.value.problems]


def test_every_kind_of_value_is_read(tmp_path: Path) -> None:
    table = {
        "size_gib": 4,
        "count": 2,
        "flag": True,
        "mode": "fast",
        "items": ["a", "b"],
        "env": {"A": "b"},
        "inner": {"x": 1},
        "path": "sub/file",
        "keep": "90s",
        "price": 1.5,
    }
    got = made(table, folder=tmp_path)
    assert (4, 2, True, "fast", ("a", "b"), {"A": "b"}, Inner(x=1)) == (
        got.size_gib,
        got.count,
        got.flag,
        got.mode,
        got.items,
        got.env,
        got.inner,
    )
    assert (tmp_path / "sub/file", timedelta(seconds=90), Decimal("1.5")) == (got.path, got.keep, got.price)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"region": 5}, "[providers.x] region: must be text, not a whole number"),
        ({"count": "5"}, "[providers.x] count: must be a whole number, not text"),
        ({"count": True}, "[providers.x] count: must be a whole number, not true or false"),
        ({"count": 1.0}, "[providers.x] count: must be a whole number, not a number"),
        ({"flag": "false"}, "[providers.x] flag: must be true or false, not text"),
        ({"flag": 1}, "[providers.x] flag: must be true or false, not a whole number"),
        ({"size_gib": "4"}, "[providers.x] size_gib: must be a number, not text"),
        ({"mode": "quick"}, "[providers.x] mode: must be one of 'fast', 'safe'"),
        ({"items": "ab"}, "[providers.x] items: must be a list, not text"),
        ({"items": ["a", 2]}, "[providers.x] items.1: must be text, not a whole number"),
        ({"env": ["A"]}, "[providers.x] env: must be a table, not a list"),
        ({"env": {"A": 1}}, "[providers.x] env.A: must be text, not a whole number"),
        ({"inner": 1}, "[providers.x] inner: must be a table, not a whole number"),
        ({"inner": {"x": 1, "y": 1}}, "[providers.x] inner.y: unknown; there is: x"),
        ({"inner": {}}, "[providers.x] inner.x: is missing"),
        ({"keep": "3 years"}, '[providers.x] keep: must be a duration such as "90s", "15m", "12h", "30d" or "4w"'),
        ({"count": 0}, "[providers.x] count: 'count' must be >= 1: 0"),
        ({"regoin": "eu"}, "[providers.x] regoin: unknown; did you mean region?"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(table: dict[str, Any], expected: str) -> None:
    assert [expected] == problems(table)


def test_all_problems_come_at_once() -> None:
    assert 4 == len(problems({"count": "5", "flag": "no", "regoin": "x", "items": [1]}))


@attrs.frozen(kw_only=True)
class Judged:
    """Fields that are judged, of which one asks for another."""

    count: int = attrs.field(validator=is_positive)
    least: int = attrs.field(default=0, validator=is_not_negative)
    most: int = attrs.field(default=9)
    step: int = attrs.field(default=1, validator=attrs.validators.ge(1))

    @most.validator
    def _is_more(self, _: object, value: int) -> None:
        if value < self.least + self.step:
            raise ValueError(f"most must be at least {self.least + self.step}, not {value}")

    def __attrs_post_init__(self) -> None:
        if self.count == 7:
            raise ValueError("give another count")


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"count": 0, "least": -1}, {"count: must be at least 1, not 0", "least: must not be negative, not -1"}),
        (
            {"count": 0, "least": "x", "y": 1},
            {
                "count: must be at least 1, not 0",
                "least: must be a whole number, not text",
                "y: unknown; there is: count, least, most, step",
            },
        ),
        ({"least": -1}, {"count: is missing", "least: must not be negative, not -1"}),
        ({"count": 1, "most": 0}, {"most: must be at least 1, not 0"}),
        (
            {"count": 1, "most": 0, "step": "x"},
            {"step: must be a whole number, not text", "most: must be at least 1, not 0"},
        ),
        ({"count": 1, "step": 0}, {"step: 'step' must be >= 1: 0"}),
        ({"count": 7}, {": give another count"}),
    ],
)
def test_each_field_is_judged_although_another_one_is_wrong(table: dict[str, Any], expected: set[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        structure(Judged, table, Place("x"))
    assert expected == {f"{each.place}: {each.message}".removeprefix("[x]").lstrip() for each in caught.value.problems}


def test_a_missing_value_is_named() -> None:
    with pytest.raises(ConfigError, match=r"\[providers.x\] region: is missing"):
        structure(Settings, {}, Place("providers.x"))


def test_a_literal_credential_is_refused_with_its_line_and_never_shown() -> None:
    text = '[providers.x]\nregion = "eu"\nkey = "AKIACANARY"\n'
    (problem,) = problems({"key": "AKIACANARY"}, text=text)
    assert problem.endswith("(line 3)")
    assert "does not stand in the file" in problem
    assert "CANARY" not in problem


def test_a_credential_is_read_late(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    credential = made({"key": {"env": "X_KEY"}}).key
    assert credential is not None
    with pytest.raises(ConfigError, match="X_KEY is not set"):
        credential.reveal()
    monkeypatch.setenv("X_KEY", "canary")
    assert "canary" == credential.reveal()
    (tmp_path / "key").write_text("canary2\n")
    from_file = made({"key": {"file": "key"}}, folder=tmp_path).key
    assert from_file is not None
    assert "canary2" == from_file.reveal()
    from_secret = made({"key": {"secret": "app/x"}}, secret=lambda name: f"value of {name}").key
    assert from_secret is not None
    assert "value of app/x" == from_secret.reveal()


def test_a_credential_never_shows_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X_KEY", "canary")
    settings = made({"key": {"env": "X_KEY"}})
    literal = made({}), Settings(region="eu", key=Credential.literal("canary"))
    shown = (settings, *literal, settings.key, attrs.asdict(literal[1]), attrs.astuple(literal[1]), vars)
    for value in shown:
        assert "canary" not in f"{value!r} {value!s}"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(literal[1])


def test_credentials_are_equal_when_their_references_are() -> None:
    assert Credential.env("A") == Credential.env("A")
    assert Credential.env("A") != Credential.env("B")
    assert Credential.literal("A") != Credential.env("A")
    assert 2 == len({Credential.literal("a"), Credential.literal("a"), Credential.literal("b")})


@pytest.mark.parametrize("value", [{}, {"env": 1}, {"env": "A", "file": "b"}, {"vault": "x"}, ["A"]])
def test_any_other_shape_of_a_credential_is_refused(value: object) -> None:
    (problem,) = problems({"key": value})
    assert problem.startswith("[providers.x] key: ")


def test_an_unreadable_credential_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the credential file"):
        Credential.file(tmp_path / "absent").reveal()


def test_a_spec_has_its_name_under_its_own_key() -> None:
    assert NamedSpec(name="shop") == structure(NamedSpec, {"bucket": "shop"}, Place("blob.x"))
    with pytest.raises(ConfigError, match="name: unknown; did you mean|there is: bucket"):
        structure(NamedSpec, {"bucket": "shop", "name": "x"}, Place("blob.x"))
    with pytest.raises(ConfigError, match="native: unknown"):
        structure(NamedSpec, {"bucket": "shop", "native": {}}, Place("blob.x"))


def test_near_words_are_suggested_and_others_listed() -> None:
    assert "; did you mean region?" == did_you_mean("regoin", ["region", "profile"])
    assert "; there is: profile, region" == did_you_mean("zzz", ["region", "profile"])
    assert "" == did_you_mean("zzz", [])


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("project", "name"), 2),
        (("providers", "a b", "type"), 5),
        (("environments", "production", "overrides", "blob.assets"), 8),
        (("blob", "assets", "headers", "x"), 10),
        (("blob", "assets", "absent"), 9),
        (("blob", "logs", "bucket"), 11),
        (("nothing",), None),
    ],
)
def test_the_line_of_a_key_is_found(path: tuple[str, ...], line: int | None) -> None:
    text = """[project]
name = "x"

[providers."a b"] # local
type = "memory"
[environments.production]
provider = "a b"
overrides."blob.assets" = "gcp"
[blob.assets]
headers = { x = 1 }
[blob] logs.bucket = "y"
""".replace("[blob] logs", "blob.logs").replace('blob.logs.bucket = "y"', "[blob.logs]")
    assert line == line_of(text, path)


def test_the_schema_agrees_with_what_is_taken() -> None:
    import jsonschema

    wanted = schema(Settings)
    json.dumps(wanted)
    validator = jsonschema.Draft202012Validator(wanted)
    good = {"region": "eu", "key": {"env": "X"}, "items": ["a"], "keep": "3d", "inner": {"x": 1}, "size_gib": 2}
    assert [] == list(validator.iter_errors(good))
    for bad in (
        {},
        {"region": 1},
        {"region": "eu", "key": "AKIA"},
        {"region": "eu", "x": 1},
        {"region": "eu", "keep": "3"},
        {"region": "eu", "inner": {}},
    ):
        assert list(validator.iter_errors(bad)), bad
    assert "where, on two lines." == wanted["properties"]["region"]["description"]
    assert "name" not in schema(NamedSpec)["properties"]
    assert "bucket" in schema(NamedSpec)["properties"]
    assert "required" not in schema(NamedSpec)


def test_the_schema_takes_and_refuses_what_reading_does() -> None:
    """Whatever stands at a key of a declared resource, editors and the application say the same of it."""
    import jsonschema

    values: list[Any] = ["x", "", 5, -1, 1.5, True, 10**40, [], ["a"], [5], [True], {}, {"a": "b"}, {"a": 1}]
    values += [{"env": "X"}, {"file": "x"}, {"secret": "app/x"}, {"env": "X", "file": "x"}, {"env": 1}, "postgresql"]
    for service in SERVICES:
        cls = spec_type(service)
        wanted = schema(cls)
        full = {"image": "debian-12", "engine": "postgresql", "version": "16", "zone": "shop.example"}
        full |= {"cpus": 1, "memory_gib": 1, "storage_gib": 1, "bucket": "x", "prefix": "x"}
        good = {cls.name_key: "shop.example"} | {k: v for k, v in full.items() if k in wanted["properties"]}
        validator = jsonschema.Draft202012Validator(wanted)
        for key in [*wanted["properties"], "unknown", "native"]:
            for value in values:
                table = good | {key: value}
                try:
                    structure(cls, table, Place("x", secret=str))
                    wrong = ""
                except ConfigError as exc:
                    wrong = str(exc)
                refused = bool(list(validator.iter_errors(table)))
                if refused:
                    assert wrong, f"{service}: the schema refuses {key} = {value!r}"
                elif wrong:  # the schema knows types; what a value may be beside that, only the class does
                    assert not TYPES.search(wrong), f"{service}: {key} = {value!r}: {wrong}"
                    assert ": unknown" not in wrong
                    assert ": is missing" not in wrong


def test_lines_are_counted_as_editors_and_toml_do() -> None:
    assert 3 == line_of("# a\u2028b\x0bc\n[project]\r\nname = 'x'\n", ("project", "name"))


@attrs.frozen(kw_only=True)
class Keeping:
    archive: BucketReference | None = None


def test_a_bucket_is_referred_to_by_its_label_and_opened_when_it_is_needed() -> None:
    opened: list[str] = []
    place = Place("providers.x", bucket=lambda label: opened.append(label) or label.upper())
    kept = structure(Keeping, {"archive": {"bucket": "backups", "prefix": "db/"}}, place)
    assert kept.archive is not None
    assert [] == opened
    assert ("BACKUPS", "db/") == (kept.archive.open(), kept.archive.prefix)
    assert kept == structure(Keeping, {"archive": {"bucket": "backups", "prefix": "db/"}}, place)
    assert structure(Keeping, {"archive": kept.archive}, Place("")) == kept
    assert "BucketReference('backups', prefix='db/')" == repr(kept.archive)
    assert ["bucket"] == schema(BucketReference)["required"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("backups", "must be { bucket"),
        ({"bucket": 1}, "must be { bucket"),
        ({"bucket": "x", "key": "y"}, "must be { bucket"),
        ({"bucket": "x"}, "in shiftable.toml only"),
    ],
)
def test_what_is_no_reference_to_a_bucket_is_refused(value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        structure(Keeping, {"archive": value}, Place("providers.x"))


WORDS = st.text(max_size=8)
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


@given(VALUES)
def test_values_are_shown_as_a_file_would_have_them(value: Any) -> None:
    text = as_in_file(value)
    assert text.isprintable()
    assert tomllib.loads(f"x = {text}") == {"x": value}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (timedelta(hours=36), '"36h"'),
        (Path("/srv/x"), '"/srv/x"'),
        (frozenset({"b", "a"}), '["a", "b"]'),
        (Decimal("1.50"), "1.50"),
        (Credential.literal("canary"), '"***"'),
        (Inner(x=1), "{ x = 1 }"),
        (Settings(region="here", inner=Inner(x=2), flag=True), '{ region = "here", flag = true, inner = { x = 2 } }'),
    ],
)
def test_what_a_value_is_made_of_is_shown_for_it(value: object, text: str) -> None:
    assert as_in_file(value) == text


def test_a_reference_is_shown_as_one(tmp_path: Path) -> None:
    found = made({"region": "here", "key": {"env": "KEY"}})
    assert as_in_file(found.key) == '{ env = "KEY" }'
    assert as_in_file(BucketReference("backups", lambda _: None, "x/")) == '{ bucket = "backups", prefix = "x/" }'
