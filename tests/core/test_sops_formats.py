"""The other texts of the SOPS format: comments, dotenv, INI and binary files, and what the Go command makes of them.

The decoder below follows what getsops/sops does (``sops.go``, ``stores/dotenv``, ``stores/ini``, ``stores/flatten.go``)
with other means than the code under test.
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import itertools
import json
import os
import re
from collections.abc import Callable
from typing import Any

import pyrage
import pytest
import yaml
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from shiftable import sops
from shiftable.errors import IntegrityError, InvalidArgument, Unsupported
from shiftable.sops import Comment

PRIVATE, PUBLIC = sops.generate_identity()
ME = sops.parse_identities(PRIVATE)
SECRET = "canary-8d20"


def dumped(data: dict[str, Any], format: sops.Format, **options: Any) -> bytes:
    return sops.dump(sops.Document(data, recipients=(PUBLIC,), **options), format=format)


def loaded(content: bytes, format: sops.Format) -> sops.Document:
    return sops.load(content, ME, format=format)


def data_key(armored: str) -> bytes:
    return bytes(pyrage.decrypt(armored.encode(), [pyrage.x25519.Identity.from_str(PRIVATE.reveal())]))


def opened(key: bytes, text: str, place: str) -> tuple[str, bytes]:
    match = re.fullmatch(r"ENC\[AES256_GCM,data:(.*),iv:(.*),tag:(.*),type:(.*)\]", text)
    assert match is not None
    data, iv, tag = (base64.b64decode(part) for part in match.group(1, 2, 3))
    return match[4], AESGCM(key).decrypt(iv, data + tag, place.encode())


def sealed(key: bytes, kind: str, plain: bytes, place: str) -> str:
    iv = os.urandom(32)
    both = AESGCM(key).encrypt(iv, plain, place.encode())
    data, iv64, tag = (base64.b64encode(part).decode() for part in (both[:-16], iv, both[-16:]))
    return f"ENC[AES256_GCM,data:{data},iv:{iv64},tag:{tag},type:{kind}]"


def wrap(key: bytes) -> str:
    return str(pyrage.encrypt(key, [pyrage.x25519.Recipient.from_str(PUBLIC)], armored=True), "ascii")


# comments

TREE = {"first": "a", "nested": {"x": 1, "list": ["p", {"q": "r"}, "s"]}, "clear_unencrypted": {"k": "v"}, "last": "z"}
COMMENTS = (
    Comment(" above all", (), "first"),
    Comment(" two", (), "nested"),
    Comment(" lines", (), "nested"),
    Comment(" inside", ("nested",), "x"),
    Comment(" above a list", ("nested",), "list"),
    Comment(" first item", ("nested", "list"), 0),
    Comment(" before a mapping", ("nested", "list"), 1),
    Comment(" in an item", ("nested", "list", 1), "q"),
    Comment(" behind the list", ("nested", "list"), None),
    Comment(" behind nested", ("nested",), None),
    Comment(" in clear", ("clear_unencrypted",), "k"),
    Comment("", (), "last"),
    Comment(" ends # here: 'x' \"y\"", (), None),
)


def test_comments_are_kept_in_yaml_and_encrypted_where_the_values_are() -> None:
    content = dumped(TREE, "yaml", comments=COMMENTS)
    assert b"above" not in content
    assert b"# in clear" in content
    document = loaded(content, "yaml")
    assert TREE == document.data
    assert sorted(COMMENTS, key=repr) == sorted(document.comments, key=repr)
    assert [each.text for each in COMMENTS if each.text] == [each.text for each in document.comments if each.text]
    without = yaml.safe_load(content)
    assert [*TREE, "sops"] == list(without)
    assert "canary" not in repr(Comment("canary"))


def test_each_comment_is_bound_to_the_mapping_around_it() -> None:
    content = dumped(TREE, "yaml", comments=COMMENTS).decode()
    key = data_key(yaml.safe_load(content)["sops"]["age"][0]["enc"])
    found = {}
    for text in re.findall(r"#(ENC.*)", content):
        for place in (":", "nested:", "nested:list:", "nested:list:q:", "clear_unencrypted:"):
            try:
                kind, plain = opened(key, text, place)
            except InvalidTag:
                continue
            assert "comment" == kind
            found[plain.decode()] = place
    expected = {
        each.text: "".join(f"{key}:" for key in each.place if isinstance(key, str)) or ":"
        for each in COMMENTS
        if each.text and each.place[:1] != ("clear_unencrypted",)
    }
    assert expected == found


def test_comments_keep_their_ciphertext_and_their_place() -> None:
    first = dumped(TREE, "yaml", comments=COMMENTS)
    document = loaded(first, "yaml")
    document.data["last"] = "y"
    document.data["new"] = "n"
    del document.data["first"]
    second = sops.dump(document).decode()
    again = loaded(second.encode(), "yaml")
    old = set(re.findall(r"#ENC.*", first.decode()))
    assert old == set(re.findall(r"#ENC.*", second))
    assert Comment(" above all", (), None) in again.comments  # its neighbour is gone
    assert Comment(" inside", ("nested",), "x") in again.comments


def test_a_comment_whose_mapping_is_gone_is_dropped() -> None:
    document = loaded(dumped(TREE, "yaml", comments=COMMENTS), "yaml")
    document.data["nested"] = "text"
    again = loaded(sops.dump(document), "yaml")
    assert {()} | {("clear_unencrypted",)} == {each.place for each in again.comments}


def test_a_comment_in_the_style_of_go_is_found_where_it_was_encrypted() -> None:
    """An empty line ends the comments at a mapping's end; old versions of sops, and people, leave some in clear."""
    key = os.urandom(32)
    time = "2026-01-01T00:00:00Z"
    mac = sealed(key, "str", hashlib.sha512(b"12").hexdigest().upper().encode(), time)
    text = (
        f"#{sealed(key, 'comment', b' head', ':')}\n\n"
        f"a:\n    # by hand\n    b: {sealed(key, 'int', b'1', 'a:b:')}\n"
        f"    #{sealed(key, 'comment', b' foot', 'a:')}\n\n"
        f"c: {sealed(key, 'int', b'2', 'c:')} # beside\n"
        f"#{sealed(key, 'comment', b' moved', 'a:')}\n"
        f"sops:\n    age:\n        - recipient: {PUBLIC}\n          enc: |\n"
        + "".join(f"            {line}\n" for line in wrap(key).splitlines())
        + f'    lastmodified: "{time}"\n    mac: {mac}\n'
        "    unencrypted_suffix: _unencrypted\n    version: 3.13.1\n"
    )
    document = loaded(text.encode(), "yaml")
    assert {"a": {"b": 1}, "c": 2} == document.data
    *known, moved = document.comments
    assert [
        Comment(" head", (), "a"),
        Comment(" by hand", ("a",), "b"),
        Comment(" foot", ("a",), None),
        Comment(" beside", (), "c"),
    ] == known
    assert moved.text.startswith("ENC[")  # it is not of this place, as sops would find
    written = sops.dump(document)
    assert b"by hand" not in written


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# a\nk: v\n", [(" a", (), "k")]),
        ("k: v # a\n", [(" a", (), "k")]),
        ("k: '# no'\n", []),
        ('k: "# no"\n', []),
        ("k: |\n    # no\n    x\n# a\nl: v\n", [(" a", (), "l")]),
        ("k: |\n    x\n\n    # no\n\n# a\n", [(" a", (), None)]),
        ("k: v#no\n", []),
        ("k:\n    # a\n    l: v\n    # b\n# c\nm: v\n", [(" a", ("k",), "l"), (" b", ("k",), None), (" c", (), "m")]),
        ("k: # a\n    l: v\n", [(" a", (), "k")]),
        ("k:\n- a # b\n# c\n- d\n", [(" b", ("k",), 0), (" c", ("k",), 1)]),
        ("k:\n    - l: v\n      # a\n      m: v\n    # b\n", [(" a", ("k", 0), "m"), (" b", ("k",), None)]),
        ("k: {l: v, # a\n m: v}\n", [(" a", ("k",), "l")]),
        ("# ü€😀\nk: 😀 # b\n", [(" ü€😀", (), "k"), (" b", (), "k")]),
        ("\ufeff# a\nk: v\n", [(" a", (), "k")]),
        ("# a\r\nk: v\r\n# b\r\n", [(" a", (), "k"), (" b", (), None)]),
        ("---\n# a\nk: v\n...\n# b\n", [(" a", (), "k"), (" b", (), None)]),
        ("? k # a\n: v\n", [(" a", (), "k")]),
    ],
    ids=itertools.count(),
)
def test_comments_are_told_from_values(text: str, expected: list[tuple[str, tuple[str | int, ...], Any]]) -> None:
    from shiftable.sops._text import parsed

    _, found = parsed(text.encode(), "yaml")
    assert expected == [(each.text, *each.places[0]) for each in found]


LINES = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029\ufeff\ufffe\uffff"))
SMALL = st.recursive(
    st.sampled_from(["v", 1, True, None, "# x", "a\n# b\n", "ENC[x]"]),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from("abc#"), below, max_size=3),
    max_leaves=8,
)


def _containers(node: Any, place: tuple[str | int, ...] = ()) -> list[tuple[tuple[str | int, ...], Any]]:
    below = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    deeper = [found for key, value in below for found in _containers(value, (*place, key))]
    return ([(place, node)] if isinstance(node, dict | list) and node else []) + deeper


@settings(max_examples=200, deadline=None)
@given(data=st.data(), tree=st.dictionaries(st.sampled_from("abc"), SMALL, min_size=1, max_size=3))
def test_comments_anywhere_come_back_where_they_were(data: st.DataObject, tree: dict[str, Any]) -> None:
    comments = []
    for place, node in _containers(tree):
        for before in [*(node if isinstance(node, dict) else range(len(node))), None]:
            comments += [Comment(text, place, before) for text in data.draw(st.lists(LINES.filter(bool), max_size=2))]
    document = loaded(dumped(tree, "yaml", comments=tuple(comments)), "yaml")
    assert tree == document.data
    assert sorted((each.text, each.place) for each in comments) == sorted((e.text, e.place) for e in document.comments)
    kept = loaded(sops.dump(document), "yaml")
    assert sorted(document.comments, key=repr) == sorted(kept.comments, key=repr)


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "\u2028", "\x00", "\ud800", "\x85"], ids=ascii)
def test_a_comment_of_more_than_a_line_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="one line"):
        dumped({"a": "b"}, "yaml", comments=(Comment(text),))


def test_a_comment_is_not_covered_by_the_mac_and_an_altered_one_is_not_read_as_one() -> None:
    content = dumped({"a": SECRET}, "yaml", comments=(Comment(f" {SECRET}"),)).decode()
    (line,) = re.findall(r"#ENC.*\n", content)
    assert () == loaded(content.replace(line, "").encode(), "yaml").comments
    broken = content.replace(line, line.replace("data:", "data:AAAA"))
    (comment,) = loaded(broken.encode(), "yaml").comments
    assert comment.text.startswith("ENC[")


# dotenv


def test_a_dotenv_file_is_as_sops_writes_it() -> None:
    tree = {"HOST": "db.example", "PASSWORD": "a=b#c 'd' \"e\"\nsecond", "EMPTY": "", "NOTE_unencrypted": "in clear\nx"}
    content = dumped(tree, "dotenv", comments=(Comment(" the host", (), "HOST"), Comment("end"))).decode()
    lines = [line.partition("=") for line in content.splitlines() if not line.startswith("#")]
    flat = {name: value for name, _, value in lines}
    key = data_key(flat["sops_age__list_0__map_enc"].replace("\\n", "\n"))
    assert PUBLIC == flat["sops_age__list_0__map_recipient"]
    assert "in clear\\nx" == flat["NOTE_unencrypted"]
    assert "" == flat["EMPTY"]
    digest = hashlib.sha512()
    for name, value in tree.items():
        if name in ("HOST", "PASSWORD"):
            assert ("str", value.encode()) == opened(key, flat[name], f"{name}:")
        digest.update(value.encode())
    mac = opened(key, flat["sops_mac"], flat["sops_lastmodified"])[1]
    assert digest.hexdigest().upper().encode() == mac
    assert ("comment", b" the host") == opened(key, content.splitlines()[0][1:], ":")
    document = loaded(content.encode(), "dotenv")
    assert tree == document.data
    assert (Comment(" the host", (), "HOST"), Comment("end", (), None)) == document.comments
    assert (PUBLIC,) == sops.recipients(content.encode(), format="dotenv")


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="=\n#"), min_size=1).filter(
    lambda name: not name.startswith("sops")
)
ENV_TEXTS = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: "\\n" not in text)


@settings(max_examples=150, deadline=None)
@given(
    tree=st.dictionaries(NAMES, ENV_TEXTS, max_size=5),
    rule=st.sampled_from([sops.Rule(), sops.Rule("encrypted_regex", "^$.")]),
)
def test_dotenv_values_are_read_as_they_were(tree: dict[str, str], rule: sops.Rule) -> None:
    assert list(tree.items()) == list(loaded(dumped(tree, "dotenv", rule=rule), "dotenv").data.items())


@pytest.mark.parametrize(
    ("tree", "why"),
    [
        ({"A_unencrypted": 5}, "is a int"),
        ({"A": {"B": "c"}}, "is a dict"),
        ({"A": None}, "is a NoneType"),
        ({"A_unencrypted": "x\\ny"}, "backslash before an n"),
        ({"A=B": "c"}, "no name"),
        ({"#A": "c"}, "no name"),
        ({"": "c"}, "no name"),
        ({"sops_x": "c"}, "no name"),
    ],
    ids=itertools.count(),
)
def test_what_dotenv_cannot_hold_is_refused(tree: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        dumped(tree, "dotenv")


# INI


def test_an_ini_file_is_as_sops_writes_it() -> None:
    tree = {"DEFAULT": {"top": "t"}, "db": {"host": "h", "password": "p;#\"'`\n"}, "clear_unencrypted": {"a": "b c"}}
    content = dumped(tree, "ini", comments=(Comment("of the host", ("db",), "host"),)).decode()
    parser = configparser.RawConfigParser(delimiters=("=",), default_section="none")
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # as the documentation says
    parser.read_string(f"[DEFAULT]\n{content}")
    meta = parser["sops"]
    key = data_key(meta["age__list_0__map_enc"].replace("\\n", "\n"))
    assert ("str", b"t") == opened(key, parser["DEFAULT"]["top"], "DEFAULT:top:")
    assert ("str", b"p;#\"'`\n") == opened(key, parser["db"]["password"], "db:password:")
    assert "b c" == parser["clear_unencrypted"]["a"]
    assert ("comment", b"of the host") == opened(key, re.findall(r"; (ENC.*)", content)[0], "db:")
    document = loaded(content.encode(), "ini")
    assert tree == document.data
    assert (Comment("of the host", ("db",), "host"),) == document.comments


def test_metadata_between_three_quotes_is_read() -> None:
    """Versions of sops before 3.13.2 write the wrapped key so."""
    content = dumped({"a": {"b": "c"}}, "ini").decode()
    enc = re.findall(r"age__list_0__map_enc = (.*)", content)[0]
    quoted = content.replace(enc, '"""' + enc.replace("\\n", "\n") + '"""')
    assert quoted != content
    assert {"a": {"b": "c"}} == loaded(quoted.encode(), "ini").data


@pytest.mark.parametrize(
    ("tree", "why"),
    [
        ({"a": "b"}, "no section"),
        ({"a": {"b": {"c": "d"}}}, "is a dict"),
        ({"a": {"b_unencrypted": " x"}}, "needs quotes"),
        ({"a": {"b_unencrypted": "x;y"}}, "needs quotes"),
        ({"a": {"b=c": "x"}}, "needs quotes"),
        ({"a]": {"b": "x"}}, "no section"),
        ({"a": {}, "DEFAULT": {"b": "c"}}, "must be the first"),
    ],
    ids=itertools.count(),
)
def test_what_an_ini_file_cannot_hold_is_refused(tree: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        dumped(tree, "ini")


# binary


@pytest.mark.parametrize("content", [b"\x00\xff\xfe", b"text\n", b"", "ü".encode()], ids=repr)
def test_a_binary_file_is_one_value_of_bytes(content: bytes) -> None:
    written = dumped({"data": content}, "binary")
    tree = json.loads(written)
    if content:
        assert ("str", content) == opened(data_key(tree["sops"]["age"][0]["enc"]), tree["data"], "data:")
    assert {"data": content} == {"data": loaded(written, "binary").data["data"] or b""}
    document = loaded(written, "binary")
    document.recipients = (PUBLIC,)
    assert json.loads(sops.dump(document, format="binary"))["data"] == tree["data"]


@pytest.mark.parametrize(
    ("tree", "rule"),
    [({"data": b"x", "more": b"y"}, sops.Rule()), ({"data": b"x"}, sops.Rule("encrypted_regex", "^password$"))],
    ids=["two values", "in clear"],
)
def test_a_binary_file_that_would_be_none_is_refused(tree: dict[str, Any], rule: sops.Rule) -> None:
    with pytest.raises(InvalidArgument, match="one value, 'data'"):
        dumped(tree, "binary", rule=rule)


def test_no_bytes_are_no_value() -> None:
    with pytest.raises(InvalidArgument, match="'a:' is bytes, and none"):
        dumped({"a": b""}, "yaml")


# all of them

SAMPLES: dict[sops.Format, dict[str, Any]] = {
    "yaml": {"a": SECRET, "b": {"c": [SECRET, "x"]}, "d_unencrypted": "e"},
    "json": {"a": SECRET, "b": {"c": [SECRET, "x"]}, "d_unencrypted": "e"},
    "dotenv": {"A": SECRET, "B": "x", "C_unencrypted": "e"},
    "ini": {"s": {"a": SECRET, "b": "x", "c_unencrypted": "e"}},
    "binary": {"data": SECRET.encode()},
}


@pytest.mark.parametrize("format", sops.FORMATS)
def test_only_the_changed_lines_differ(format: sops.Format) -> None:
    before = dumped(SAMPLES[format], format)
    document = loaded(before, format)
    document.for_recipients((PUBLIC,))
    after = sops.dump(document, format=format)
    changed = [new for old, new in zip(before.splitlines(), after.splitlines(), strict=True) if old != new]
    assert all(b"lastmodified" in line or b"mac" in line for line in changed)


@pytest.mark.parametrize("format", sops.FORMATS)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_byte_of_any_format_can_be_changed_unnoticed(format: sops.Format, data: st.DataObject) -> None:
    content = FILES[format]
    place = data.draw(st.integers(0, len(content) - 1))
    changed = content[:place] + bytes([data.draw(st.integers(0, 255))]) + content[place + 1 :]
    try:
        found = loaded(changed, format)
    except Exception as error:  # noqa: BLE001  which error, another test tells; here: no value in any
        assert "canary" not in f"{error} {error.__context__!r}"  # noqa: PT017  most changes raise, some do nothing
    else:
        assert _values(SAMPLES[format]) == _values(found.data)


FILES = {style: dumped(tree, style) for style, tree in SAMPLES.items()}


def _values(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return [value for below in node.values() for value in _values(below)]
    return [value for below in node for value in _values(below)] if isinstance(node, list) else [node]


SWAPS: dict[str, Callable[[list[str]], list[str]]] = {
    "dropped": lambda lines: lines[1:],
    "repeated": lambda lines: [lines[0], *lines],
    "reordered": lambda lines: [lines[1], lines[0], *lines[2:]],
    "swapped": lambda lines: [
        f"A={lines[1].partition('=')[2]}",
        f"B={lines[0].partition('=')[2]}",
        *lines[2:],
    ],
}


@pytest.mark.parametrize("change", SWAPS.values(), ids=SWAPS)
def test_lines_that_were_moved_are_refused(change: Callable[[list[str]], list[str]]) -> None:
    lines = FILES["dotenv"].decode().split("\n")
    with pytest.raises(IntegrityError):
        loaded("\n".join(change(lines)).encode(), "dotenv")


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.yaml", "yaml"),
        ("x/a.yml", "yaml"),
        ("a.json", "json"),
        (".env", "dotenv"),
        ("prod.env", "dotenv"),
        ("a.ini", "ini"),
        ("cert.pem", "binary"),
        ("yaml", "binary"),
    ],
)
def test_the_name_of_a_file_tells_its_format(name: str, format: sops.Format) -> None:
    assert format == sops.format_of(name)


@pytest.mark.parametrize(
    ("content", "format", "why"),
    [
        (b"A", "dotenv", "line 1 is no NAME=value"),
        (b"A=1\nA=2", "dotenv", "line 2"),
        (b"A=1", "dotenv", "no SOPS file"),
        (b"sops_age__map_x=1\nsops_age__list_0=2", "dotenv", "contradict"),
        (b"sops_age=1\nsops_age__list_0__map_enc=2", "dotenv", "contradict"),
        (b"sops_age__list_99999999999=1", "dotenv", "is none"),
        (b"[a]\nb", "ini", "line 2 is no 'key = value'"),
        (b"[a]\nb = 'c'", "ini", "line 2 is no"),
        (b"[a]\nb = c ; d", "ini", "line 2 is no"),
        (b"[a]\nb = c \\\n d", "ini", "line 2 is no"),
        (b'[a]\nb = """c', "ini", "does not end"),
        (b"[a]\nb=1\nb=2", "ini", "line 3: the key occurs twice"),
        (b"[a]\n[a]", "ini", "line 2: the section occurs twice"),
        (b"[a]\nb=1", "ini", "no SOPS file"),
        (b"\xff", "dotenv", "not UTF-8"),
        (b"x", "binary", "it is no SOPS file: it is not encrypted"),
    ],
    ids=itertools.count(),
)
def test_a_file_that_is_none_is_refused_with_its_line(content: bytes, format: sops.Format, why: str) -> None:
    with pytest.raises(IntegrityError, match=why):
        loaded(content, format)


@pytest.mark.parametrize(
    "section", [{"key_groups": [{"age": []}]}, {"shamir_threshold": 2}], ids=["groups", "threshold"]
)
def test_groups_of_keys_are_refused_with_what_to_do(section: dict[str, Any]) -> None:
    tree = json.loads(FILES["json"])
    tree["sops"] |= section
    with pytest.raises(Unsupported, match=r"Shamir.*`sops updatekeys`"):
        loaded(json.dumps(tree).encode(), "json")
