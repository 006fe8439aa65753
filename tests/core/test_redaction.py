"""No value passes a redactor: as it is or encoded, in a log record or in a stream that comes in pieces."""

from __future__ import annotations

import base64
import copy
import html
import io
import json
import logging
import pickle
import random
import re
import string
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shiftable.memory.secrets import MemorySecretsDriver
from shiftable.secrets import Masked, RedactingFilter, RedactingStream, Redactor, Secrets

CANARY = "canary \"4b825dc6\" & 42/'eb9a'+ü\\"
LINES = ("-----BEGIN PRIVATE KEY-----", "MIIEvQIBADANBgkqhkiG9w0BAQEF", "AASCBKcwggSjAgEAAoIBAQC7VJTU", "t9==")
KEY = "\n".join((*LINES, "-----END PRIVATE KEY-----", ""))

SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64 behind a user": lambda value: base64.b64encode(f"user:{value}".encode()).decode(),
    "base64 behind two characters": lambda value: base64.b64encode(f"u:{value}|".encode()).decode(),
    "base64 behind one character": lambda value: base64.b64encode(f":{value}||".encode()).decode(),
    "base64 for URLs": lambda value: base64.urlsafe_b64encode(value.encode()).decode(),
    "base64 for URLs behind a user": lambda value: base64.urlsafe_b64encode(f"user:{value}".encode()).decode(),
    "URL": quote,
    "URL with slashes": lambda value: quote(value, safe=""),
    "form": quote_plus,
    "form with its name": lambda value: urlencode({"password": value}),
    "URL in small letters": lambda value: re.sub("%..", lambda found: found[0].lower(), quote(value, safe="")),
    "JSON": json.dumps,
    "JSON in its own alphabet": lambda value: json.dumps({"password": value}, ensure_ascii=False),
    "JSON in JSON": lambda value: json.dumps({"body": json.dumps({"password": value})}),
    "repr": repr,
    "repr of bytes": lambda value: repr(value.encode()),
    "hex": lambda value: value.encode().hex(),
    "HEX": lambda value: value.encode().hex().upper(),
    "HTML": html.escape,
}


def redactor_of(*values: Any) -> Redactor:
    redactor = Redactor()
    for value in values:
        redactor.add(value)
    return redactor


# spellings


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("value", [CANARY, "sk_live_51H8xYzAbCdEf", "pässwört"], ids=["canary", "key", "umlauts"])
def test_a_value_is_masked_in_each_spelling(value: str, spelling: Callable[[str], str]) -> None:
    text = spelling(value)
    masked = redactor_of(value).mask(f"before {text} after")
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert "***" in masked
    assert not told(masked, value)


def told(text: str, value: str) -> bool:
    """Tell whether four characters of a value, in any spelling, stand in a text: no chance in these tests."""
    raw = value.encode()
    pieces = {text_of(raw[at : at + 6]) for at in range(len(raw) - 5)}
    encoded = {base64.b64encode(bytes(at) + raw).decode()[at + 2 :][:8] for at in range(3)}
    return any(piece in text for piece in pieces | encoded | {raw.hex()[:12]} if piece)


def text_of(raw: bytes) -> str:
    return raw.decode(errors="replace")


@given(
    value=st.text(st.characters(codec="utf-8"), min_size=8, max_size=60),
    before=st.text(st.characters(codec="utf-8"), max_size=20),
    after=st.text(st.characters(codec="utf-8"), max_size=20),
    spelling=st.sampled_from(sorted(SPELLINGS)),
)
def test_any_value_is_masked_in_any_place(value: str, before: str, after: str, spelling: str) -> None:
    text = SPELLINGS[spelling](value)
    masked = redactor_of(value).mask(before + text + after)
    assert value not in masked or value in before + "***" + after or "***" in value
    assert "***" in masked


@given(
    raw=st.binary(min_size=8, max_size=60),
    before=st.binary(max_size=9),
    after=st.binary(max_size=9),
    url=st.booleans(),
)
def test_no_whole_byte_of_a_value_is_left_of_base64(raw: bytes, before: bytes, after: bytes, *, url: bool) -> None:
    """What is left decodes to what stands before and after the value, less what shares a character with it."""
    encode = base64.urlsafe_b64encode if url else base64.b64encode
    text = encode(before + raw + after).decode()
    masked = redactor_of(raw).mask(text)
    left, _, right = masked.partition("***")
    if masked.count("***") == 1:
        assert len(left) * 6 // 8 <= len(before)
        assert text.startswith(left)
        assert text.endswith(right)
        assert len(right.rstrip("=")) * 6 // 8 <= len(after)
    assert "***" in masked


def test_binary_values_are_masked(caplog: pytest.LogCaptureFixture) -> None:
    value = bytes(range(200, 232))
    redactor = redactor_of(value)
    for text in (base64.b64encode(b"x" + value).decode(), value.hex(), repr(value), repr({"k": value}), quote(value)):
        assert "***" in redactor.mask(text)
        assert len(redactor.mask(text)) < 20
    assert b"a***b" == redactor.mask_bytes(b"a" + value + b"b")


def test_a_value_is_masked_wherever_it_begins() -> None:
    redactor = redactor_of("12345678")
    for before in range(40):
        text = "x" * before
        assert f"{text}***y" == redactor.mask(f"{text}12345678y")


def test_values_beside_and_in_each_other_leave_nothing() -> None:
    redactor = redactor_of("abcdefgh", "defghijk", "abcdefghijklmno", "abcdefghXYZ")
    assert "***" == redactor.mask("abcdefghijk")
    assert "***" == redactor.mask("abcdefghijklmno")
    assert "***" == redactor.mask("abcdefghXYZ")
    assert "*** ***" == redactor.mask("abcdefgh defghijk")
    assert "******" == redactor.mask("abcdefghabcdefgh")
    assert "***" == redactor_of("aaaaaaaa").mask("a" * 20)


def test_thousands_of_values_with_the_same_beginning_are_told_apart() -> None:
    values = [f"sk_live_0123456789_{number:06}_tail" for number in range(3000)]
    redactor = redactor_of(*values)
    assert max(len(found) for found in redactor._grams.values()) < 1000
    assert "a *** b *** c" == redactor.mask(f"a {values[17]} b {values[2999]} c")
    assert "sk_live_0123456789_no" == redactor.mask("sk_live_0123456789_no")


def test_what_is_no_value_stays_the_same_text() -> None:
    redactor = redactor_of(CANARY, KEY)
    for text in ("", "short", "no value here, nor any beginning of one: canary", "x" * 10_000):
        assert redactor.mask(text) is text
    data = bytes(range(256))
    assert redactor.mask_bytes(data) is data


# lines, and what is cut short


def test_a_value_of_several_lines_is_masked_as_a_whole_and_line_by_line() -> None:
    redactor = redactor_of(KEY)
    assert "key: ***" == redactor.mask(f"key: {KEY}")
    assert "key: ***" == redactor.mask("key: " + KEY.replace("\n", "\r\n"))
    assert '"***"' == redactor.mask(json.dumps(KEY))
    lines = KEY.splitlines()
    assert ["  ***", "***", "t9=="] == [redactor.mask(line) for line in (f"  {lines[1]}", lines[2], lines[3])]


def test_the_first_line_of_a_key_is_no_value() -> None:
    assert "-----BEGIN PRIVATE KEY-----" == redactor_of(KEY).mask("-----BEGIN PRIVATE KEY-----")
    other = KEY.replace("M", "N").replace("A", "B")
    assert other == redactor_of(KEY).mask(other)


def test_a_value_without_the_newline_of_its_file_is_masked() -> None:
    assert "***" == redactor_of("correct horse\n").mask("correct horse")
    assert "***" == redactor_of(b"  correct horse  \n").mask("correct horse")


def test_the_beginning_of_a_long_value_is_masked_where_a_message_is_cut_short() -> None:
    value = "".join(random.Random(7).choices(string.ascii_letters, k=500))  # noqa: S311  no secret
    redactor = redactor_of(value)
    assert "bad value ***..." == redactor.mask(f"bad value {value[:100]}...")
    assert "bad value ***" == redactor.mask(f"bad value {value[:32]}")
    assert "***X" == redactor.mask(f"{value[:77]}X")


DOCUMENT = {
    "username": "orders_app",
    "host": "db.example.com",
    "password": "p4ss/word+one",
    "nested": {"api_keys": ["key-number-one", {"a": "key-number-two"}], "port": 5432, "name": "a longer name"},
    "short_key": "1234567",
    "dsn_of_old": None,
    "url": "postgresql://orders_app:url%2Fpassword@db.example.com/orders",
    "inner": json.dumps({"token": "token-within"}),
}


def test_the_secret_parts_of_a_json_document_are_masked_and_the_others_are_not() -> None:
    redactor = redactor_of(json.dumps(DOCUMENT, indent=2))
    assert "*** *** *** ***" == redactor.mask("p4ss/word+one key-number-one key-number-two token-within")
    assert "*** ***" == redactor.mask("url%2Fpassword url/password")
    for text in ("orders_app", "db.example.com", "a longer name", "1234567"):
        assert text == redactor.mask(text)
    assert "***" == redactor.mask(quote(str(DOCUMENT["password"]), safe=""))
    assert "***" == redactor.mask(json.dumps(DOCUMENT, indent=2))
    assert 1 == len(redactor)


def test_the_password_of_a_url_is_masked() -> None:
    redactor = redactor_of("postgresql://app:correct-horse@db.example.com:5432/orders")
    assert "user app, password ***, db.example.com" == redactor.mask("user app, password correct-horse, db.example.com")


@pytest.mark.parametrize(
    "value", ["{not json at all", "[" * 20_000, "http://[broken@x:y", '["only", "texts of it"]', "a://b:@c-d-e-f"]
)
def test_what_only_looks_like_a_document_is_masked_as_a_whole(value: str) -> None:
    assert "***" == redactor_of(value).mask(value)


# short values, and how they are added


@pytest.mark.parametrize("value", ["1234567", b"1234567", "äöüäöüä", ""], ids=["text", "bytes", "umlauts", "empty"])
def test_a_short_value_is_not_masked_and_that_is_said(value: str | bytes, caplog: pytest.LogCaptureFixture) -> None:
    redactor = Redactor()
    assert redactor.add(value, name="db/pin") is False
    assert redactor.add(value) is False
    assert 0 == len(redactor)
    assert [
        "db/pin is shorter than 8 characters and is not masked",
        "a value is shorter than 8 characters and is not masked",
    ] == [record.getMessage() for record in caplog.records]
    assert "pin 1234567" == redactor.mask("pin 1234567")


def test_masked_values_secrets_text_and_bytes_are_taken() -> None:
    store = Secrets(MemorySecretsDriver()).store("shop")
    redactor = redactor_of(Masked("value-one"), store.put("key", "value-two"), "value-three", b"value-four")
    assert 4 == len(redactor)
    assert "*** *** *** ***" == redactor.mask("value-one value-two value-three value-four")


def test_the_same_value_again_is_no_other(caplog: pytest.LogCaptureFixture) -> None:
    redactor = redactor_of("value-one", "value-one", b"value-one")
    assert 1 == len(redactor)


def test_what_a_store_reads_and_writes_is_masked_from_then_on() -> None:
    redactor = Redactor()
    plain = Secrets(MemorySecretsDriver()).store("shop")
    store = plain.observed(redactor.add)
    plain.put("read", "value-read")
    plain.put("cached", "value-cached-1")
    store.put("written", "value-written")
    store.get("read")
    cache = store.cached()
    cache.get("cached")
    plain.put("cached", "value-cached-2")
    assert "*** *** ***" == redactor.mask("value-read value-written value-cached-1")
    assert "value-cached-2" == redactor.mask("value-cached-2")
    cache.refresh("cached")
    assert "***" == redactor.mask("value-cached-2")
    plain.put("env", "value-environment")
    store.environment({"A": "env"})
    assert "***" == redactor.mask("value-environment")


def test_a_redactor_shows_no_value_and_is_not_pickled() -> None:
    redactor = redactor_of(CANARY)
    assert "<Redactor of 1 values>" == repr(redactor) == str(redactor)
    for way in (pickle.dumps, copy.copy, copy.deepcopy, vars, lambda each: each.__getstate__()):
        with pytest.raises(TypeError) as caught:
            way(redactor)
        assert "canary" not in str(caught.value)


def test_values_are_added_while_other_threads_mask() -> None:
    redactor = redactor_of("value-zero")
    done, failures = threading.Event(), list[BaseException]()

    def mask() -> None:
        try:
            while not done.is_set():
                assert "a *** b" == redactor.mask("a value-zero b")
                assert b"a *** b" == b"".join(redactor.pieces([b"a value", b"-zero b"]))
        except BaseException as exc:  # noqa: BLE001  it is looked at below
            failures.append(exc)

    threads = [threading.Thread(target=mask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(300):
        redactor.add(f"value-number-{number}-of-many")
    done.set()
    for thread in threads:
        thread.join()
    assert [] == failures
    assert "***" == redactor.mask("value-number-299-of-many")


# streams


@given(
    values=st.lists(st.text("ab", min_size=8, max_size=14), min_size=1, max_size=4),
    text=st.text("abc\n", max_size=120),
    cuts=st.lists(st.integers(0, 120), max_size=12),
)
def test_a_stream_in_pieces_is_masked_as_a_whole_one(values: list[str], text: str, cuts: list[int]) -> None:
    redactor = redactor_of(*values)
    text = text[: len(text) // 2] + values[0] + text[len(text) // 2 :]
    data, places = text.encode(), sorted({0, *cuts, len(text)})
    chunks = [data[begin:end] for begin, end in zip(places, [*places[1:], len(data)], strict=True)]
    assert redactor.mask_bytes(data) == b"".join(redactor.pieces(chunks))


@given(st.data())
def test_a_key_in_pieces_is_masked(data: st.DataObject) -> None:
    redactor = redactor_of(KEY, CANARY)
    text = f"one {KEY} two {json.dumps(CANARY)} three {base64.b64encode(KEY.encode()).decode()} four ü\xff".encode()
    chunks, rest = [], text
    while rest:
        size = data.draw(st.integers(1, 60))
        chunks.append(rest[:size])
        rest = rest[size:]
    assert b'one *** two "***" three *** four \xc3\xbc\xc3\xbf' == b"".join(redactor.pieces(chunks))


def test_what_goes_with_base64_is_masked_in_pieces_too() -> None:
    redactor = redactor_of(CANARY)
    for before in range(3):
        text = base64.b64encode(b"u" * before + CANARY.encode() + b"") + b"\n"
        for cut in range(len(text)):
            (masked,) = b"".join(redactor.pieces([text[:cut], text[cut:]])).split()
            assert masked.startswith(text[:before])
            assert masked[before:] in (b"***", text[before : before + 1] + b"***")
    assert b"***" == b"".join(redactor.pieces([base64.b64encode(CANARY.encode())]))


def test_bytes_that_are_no_text_pass_as_they_are() -> None:
    data = bytes(range(256)) * 3
    assert data == b"".join(redactor_of(CANARY).pieces(data[at : at + 7] for at in range(0, len(data), 7)))


def test_what_is_no_beginning_of_a_value_passes_at_once() -> None:
    redactor, seen = redactor_of("correct horse battery", KEY), list[bytes]()
    pieces = redactor.pieces(iter([b"Password: ", b"cor", b"ner", b" correct hors"]))
    seen = [next(pieces) for _ in range(4)]
    assert [b"Password: ", b"", b"corner", b" "] == seen
    assert [b"correct hors"] == list(pieces)


def test_a_wrapped_stream_masks_what_prints_write_in_pieces() -> None:
    below = io.StringIO()
    stream = redactor_of(CANARY).wrap(below)
    print("user", CANARY[:9], sep=" ", end="", file=stream)
    print(CANARY[9:], "done", file=stream)
    stream.flush()
    assert "user *** done\n" == below.getvalue()
    stream.write("cana")
    stream.flush()
    assert "user *** done\n" == below.getvalue()
    stream.close()
    stream.close()
    assert "user *** done\ncana" == below.getvalue()
    assert not below.closed
    with pytest.raises(ValueError, match="closed"):
        stream.write("x")


def test_a_wrapped_stream_is_as_the_one_behind_it(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="latin-1") as below:
        stream = redactor_of(CANARY).wrap(below)
        assert (False, below.fileno(), "latin-1", True) == (
            stream.isatty(),
            stream.fileno(),
            stream.encoding,
            stream.writable(),
        )
        stream.close()
    assert isinstance(stream, RedactingStream)


def test_what_is_held_back_is_written_when_the_process_ends() -> None:
    code = """
import sys
from shiftable.secrets import Redactor
redactor = Redactor()
redactor.add("correct horse battery")
sys.stdout = redactor.wrap(sys.stdout)
print("a correct horse battery, a correct", end="")
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ("a ***, a correct", "") == (answer.stdout, answer.stderr)


# logging


class Pair(NamedTuple):
    first: str
    second: object


class Kept(logging.Handler):
    """Keeps what a formatter makes of records, and the records."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        try:
            self.lines.append(self.format(record))
        except Exception:  # noqa: BLE001  as the handlers of the standard library do
            self.handleError(record)


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def log(kept: Kept) -> logging.Logger:
    kept.addFilter(RedactingFilter(redactor_of(CANARY)))
    parent = logging.Logger("parent")  # noqa: LOG001  one that no other test has
    parent.addHandler(kept)
    child = logging.Logger("child")  # noqa: LOG001  the same
    child.parent = parent
    return child


def test_messages_and_arguments_are_masked(log: logging.Logger, kept: Kept) -> None:
    log.warning("password %s for %s", CANARY, "app")
    log.warning(f"password {CANARY}")  # noqa: G004  as people do
    log.warning("body %r", [CANARY])
    log.warning("%(password)s", {"password": CANARY})
    log.warning(ValueError(CANARY))
    assert ["password *** for app", "password ***", "body ['***']", "***", "***"] == kept.lines
    assert "canary" not in repr([vars(record) for record in kept.records])


def test_a_record_without_a_value_stays_as_it_is(log: logging.Logger, kept: Kept) -> None:
    log.warning("order %d of %s", 7, "app", extra={"shop": "north", "sizes": {"a": (1, 2)}})
    (record,) = kept.records
    assert ("order %d of %s", (7, "app")) == (record.msg, record.args)
    assert ("north", {"a": (1, 2)}) == (vars(record)["shop"], vars(record)["sizes"])


def failed(error: Exception, cause: Exception | None = None) -> None:
    raise error from cause


def test_tracebacks_are_masked(log: logging.Logger, kept: Kept) -> None:
    try:
        failed(ValueError(f"bad password {CANARY}"), KeyError(CANARY))
    except ValueError:
        log.exception("failed", stack_info=True)
    (line,) = kept.lines
    assert "ValueError: bad password ***" in line
    assert "KeyError: '***'" in line
    assert "canary" not in line
    assert kept.records[0].exc_info is None


def test_a_traceback_without_a_value_stays_an_exception(log: logging.Logger, kept: Kept) -> None:
    error = ValueError("bad password")
    try:
        failed(error)
    except ValueError:
        log.exception("failed")
    info = kept.records[0].exc_info
    assert info is not None
    assert error is info[1]


def test_whatever_a_record_carries_is_masked(log: logging.Logger, kept: Kept) -> None:
    extra = {"header": f"Basic {CANARY}", "raw": CANARY.encode(), "deep": [{"a": (CANARY,)}, {CANARY}], "count": 3}
    log.warning("sent", extra=extra)
    found = vars(kept.records[0])
    assert ("Basic ***", b"***", [{"a": ("***",)}, ("***",)], 3) == tuple(found[name] for name in extra)
    assert CANARY in extra["header"]  # type: ignore[operator]  # the caller's own stays


def test_arguments_that_the_message_does_not_show_are_masked_too(log: logging.Logger, kept: Kept) -> None:
    log.warning("user %(user)s, %(age)d", {"user": "app", "age": 7, "password": CANARY})
    assert ["user app, 7"] == kept.lines
    assert {"user": "app", "age": 7, "password": "***"} == kept.records[0].args


def test_what_shows_no_value_stays_the_same_object(log: logging.Logger, kept: Kept) -> None:
    extra = {"pair": Pair("a", {"b": [1, {"c"}]}), "names": {"x", "y"}, "count": 3, "raw": b"raw"}
    log.warning("order %d", 7, extra=extra)
    assert all(vars(kept.records[0])[name] is value for name, value in extra.items())


def test_a_record_that_cannot_be_formatted_fails_in_its_handler_and_shows_no_value(
    log: logging.Logger, kept: Kept, capsys: pytest.CaptureFixture[str]
) -> None:
    log.warning("%d items of " + CANARY, CANARY)  # noqa: G003  as people do
    errors = capsys.readouterr().err
    assert "Logging error" in errors
    assert "canary" not in errors.replace('canary \\"4b', "x") or "4b825dc6" not in errors
    assert CANARY not in errors
    assert [] == kept.lines


def test_values_that_are_added_later_are_masked_too(kept: Kept) -> None:
    redactor = Redactor()
    kept.addFilter(RedactingFilter(redactor))
    logger = logging.Logger("own")  # noqa: LOG001  the same
    logger.addHandler(kept)
    logger.warning("value-one")
    redactor.add("value-one")
    logger.warning("value-one")
    assert ["value-one", "***"] == kept.lines


def test_the_filter_may_stand_before_several_handlers(log: logging.Logger, kept: Kept) -> None:
    second = Kept()
    second.addFilter(kept.filters[0])
    cast("logging.Logger", log.parent).addHandler(second)
    log.warning("password %s", CANARY)
    assert ["password ***"] == kept.lines == second.lines


def test_the_errors_of_a_redactor_show_no_value() -> None:
    with pytest.raises(ValueError, match="lone surrogates") as caught:
        Redactor().add("canary-4b825dc6\ud800")
    report = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    report.stack[:] = [frame for frame in report.stack if frame.filename != __file__]
    assert "canary" not in "".join(report.format())
