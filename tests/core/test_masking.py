"""A masked value shows itself to nothing but reveal() and reveal_bytes()."""

from __future__ import annotations

import copy
import csv
import dataclasses
import io
import json
import logging
import pickle
import pprint
import reprlib
import string
import traceback
from collections.abc import Callable

import attrs
import cattrs
import pytest
import yaml

from shiftable.masking import Masked

CANARY = "canary-4b825dc642cb"


@attrs.frozen
class Credentials:
    user: str
    password: Masked


@dataclasses.dataclass
class Settings:
    user: str
    password: Masked


def _written(masked: Masked) -> str:
    stream = io.StringIO()
    csv.writer(stream).writerow(["app", masked])
    print("app", masked, file=stream)
    return stream.getvalue()


@pytest.fixture(params=[CANARY, CANARY.encode(), CANARY.encode() + b"\xff"], ids=["text", "bytes", "binary"])
def masked(request: pytest.FixtureRequest) -> Masked:
    return Masked(request.param)


@pytest.mark.parametrize(
    "shown",
    [
        str,
        repr,
        ascii,
        lambda masked: f"{masked}",
        lambda masked: f"{masked!r:>40}",
        lambda masked: f"{masked:>40}",
        lambda masked: "%s %r" % (masked, masked),  # noqa: UP031  this way too
        lambda masked: "{} {!r}".format(masked, masked),  # noqa: UP032  this way too
        lambda masked: str([masked]),
        lambda masked: str({"password": masked}),
        lambda masked: repr(Credentials("app", masked)),
        lambda masked: str(attrs.asdict(Credentials("app", masked))),
        lambda masked: repr(ValueError("no such password", masked)),
        lambda masked: json.dumps({"password": masked}, default=str),
        lambda masked: str(dir(masked)),
        lambda masked: str(attrs.astuple(Credentials("app", masked))),
        lambda masked: str(cattrs.unstructure(Credentials("app", masked))),
        lambda masked: repr(Settings("app", masked)),
        lambda masked: str(dataclasses.asdict(Settings("app", masked))),
        lambda masked: str(dataclasses.astuple(Settings("app", masked))),
        lambda masked: pprint.pformat({"password": masked}),
        lambda masked: reprlib.repr([masked]),
        lambda masked: string.Template("$password").substitute(password=masked),
        lambda masked: "{password!s:>9}".format_map({"password": masked}),
        lambda masked: json.dumps(attrs.asdict(Credentials("app", masked)), default=repr),
        lambda masked: "".join(traceback.format_exception(KeyError(masked, [masked]))),
        _written,
    ],
)
def test_no_text_of_it_shows_the_value(masked: Masked, shown: Callable[[Masked], str]) -> None:
    text = shown(masked)
    assert CANARY not in text
    assert text


def test_it_is_three_stars() -> None:
    assert [str(Masked("x")), repr(Masked("x")), f"{Masked('x'):>9}"] == ["***", "Masked(***)", "***"]


def test_it_has_no_dictionary_of_attributes(masked: Masked) -> None:
    with pytest.raises(TypeError):
        vars(masked)


def test_it_is_not_json() -> None:
    with pytest.raises(TypeError, match="Masked"):
        json.dumps({"password": Masked(CANARY)})


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_is_not_pickled(masked: Masked, protocol: int) -> None:
    for value in (masked, [masked], Credentials("app", masked)):
        with pytest.raises(TypeError, match="not pickled") as caught:
            pickle.dumps(value, protocol)
        assert CANARY not in str(caught.value)


def test_no_way_around_pickle_hands_out_the_value(masked: Masked) -> None:
    ways: list[Callable[[], object]] = [
        masked.__reduce__,
        lambda: masked.__reduce_ex__(2),
        masked.__getstate__,
        lambda: yaml.dump(masked),
        lambda: pickle.dumps(ValueError("no such password", masked)),
        lambda: pickle.dumps(Settings("app", masked)),
    ]
    for way in ways:
        with pytest.raises(TypeError, match="not pickled") as caught:
            way()
        assert CANARY not in "".join(traceback.TracebackException.from_exception(caught.value).format())


def test_it_is_not_text_and_not_bytes(masked: Masked) -> None:
    ways: list[Callable[[], object]] = [
        lambda: bytes(masked),  # type: ignore[call-overload]  # that it is refused is what is tested
        lambda: "x" + masked,  # type: ignore[operator]  # the same
        lambda: list(masked),  # type: ignore[call-overload]  # the same
        lambda: len(masked),  # type: ignore[arg-type]  # the same
    ]
    for way in ways:
        with pytest.raises(TypeError) as caught:
            way()
        assert CANARY not in str(caught.value)


def test_a_log_record_shows_stars(masked: Masked, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("test")
    with caplog.at_level(logging.DEBUG):
        logger.debug("password %s", masked)
        logger.debug("credentials %r", {"password": masked})
    assert [record.getMessage() for record in caplog.records] == [
        "password ***",
        "credentials {'password': Masked(***)}",
    ]


def test_a_traceback_with_local_variables_shows_stars(masked: Masked) -> None:
    def connect(password: Masked) -> None:
        credentials = Credentials("app", password)
        raise OSError(f"no route for {credentials}")

    with pytest.raises(OSError, match="no route") as caught:
        connect(masked)
    text = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "password = Masked(***)" in text
    assert CANARY not in text


def test_reveal_gives_text_and_bytes() -> None:
    assert [Masked("grün").reveal(), Masked("grün".encode()).reveal()] == ["grün", "grün"]
    assert [Masked("grün").reveal_bytes(), Masked(b"\xff").reveal_bytes()] == ["grün".encode(), b"\xff"]
    assert [Masked("x").is_text, Masked(b"x").is_text] == [True, False]


@pytest.mark.parametrize(
    ("masked", "reveal", "message"),
    [
        (Masked(CANARY.encode() + b"\xff"), Masked.reveal, "use reveal_bytes"),
        (Masked(CANARY + "\ud800"), Masked.reveal_bytes, "lone surrogates"),
    ],
    ids=["binary as text", "lone surrogates as bytes"],
)
def test_a_refused_reveal_carries_no_error_that_holds_the_value(
    masked: Masked, reveal: Callable[[Masked], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        reveal(masked)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert CANARY not in repr(caught.value)


def test_values_are_compared_by_kind_and_content() -> None:
    assert Masked("a") == Masked("a")
    assert Masked(b"a") == Masked(b"a")
    assert Masked("a") != Masked("b")
    assert Masked("a") != Masked(b"a")
    assert Masked("a") != "a"


def test_it_is_not_hashable() -> None:
    with pytest.raises(TypeError, match="not hashable"):
        hash(Masked(CANARY))


def test_a_copy_is_the_same(masked: Masked) -> None:
    assert copy.copy(masked) is masked
    assert copy.deepcopy([masked])[0] is masked


def test_an_object_that_holds_it_can_be_copied() -> None:
    credentials = Credentials("app", Masked(CANARY))
    assert copy.deepcopy(credentials) == credentials
