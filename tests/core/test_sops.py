"""The SOPS format: what is written is read back and by others, and whatever was touched is refused."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyrage
import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from shiftable import sops
from shiftable.errors import ConfigError, IntegrityError, InvalidArgument, OperationError, Unauthenticated, Unsupported
from shiftable.masking import Masked

PRIVATE, PUBLIC = sops.generate_identity()
ME = sops.parse_identities(PRIVATE)
FORMATS: tuple[sops.Format, ...] = ("yaml", "json")

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
CURIOUS = st.sampled_from(
    [
        *(
            "yes",
            "NO",
            "null",
            "~",
            "",
            " ",
            "1e3",
            "0o14",
            "0x1F",
            "012",
            "1_000",
            "2026-01-01",
            "1:30",
            "=",
            "<<",
            "- a",
        ),
        *(
            "a: b",
            "#x",
            "'",
            '"',
            "|",
            ">",
            "%a",
            "@a",
            "`",
            "\t",
            "\r\n",
            "a\n",
            "\na",
            " a ",
            "\x00",
            "\u2028",
            "\ufeff",
        ),
        *("ENC[AES256_GCM,data:,iv:,tag:,type:str]", "-----BEGIN AGE ENCRYPTED FILE-----\n x"),
    ]
)
KEYS = st.one_of(TEXTS, CURIOUS)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.one_of(
    TEXTS, CURIOUS, st.integers(-(2**53), 2**53), FLOATS, st.booleans(), st.none(), TEXTS.map(lambda text: text * 300)
)
TREES = st.dictionaries(
    KEYS,
    st.recursive(
        LEAVES, lambda below: st.lists(below, max_size=4) | st.dictionaries(KEYS, below, max_size=4), max_leaves=12
    ),
    max_size=5,
).filter(lambda tree: "sops" not in tree)


def dumped(data: dict[str, Any], format: sops.Format = "yaml", **options: Any) -> bytes:
    return sops.dump(sops.Document(data, recipients=(PUBLIC,), **options), format=format)


def same(left: Any, right: Any) -> bool:
    """Compare with types and order: 1, 1.0 and True differ, and so do two orders of keys."""
    return repr(left) == repr(right)


def decoded(content: bytes, format: sops.Format, plain: Callable[[str], bool] = lambda _: False) -> Any:
    """Decrypt with age, AES-GCM and a foreign parser: nothing of the code under test. Checks the MAC as well."""
    tree = yaml.safe_load(content) if format == "yaml" else json.loads(content)
    meta = tree.pop("sops")
    cipher = AESGCM(pyrage.decrypt(meta["age"][0]["enc"].encode(), [pyrage.x25519.Identity.from_str(PRIVATE.reveal())]))
    digest = hashlib.sha512()
    types: dict[str, Callable[[bytes], Any]] = {
        "str": bytes.decode,
        "int": int,
        "float": float,
        "bool": b"True".__eq__,
        "bytes": bytes,
    }

    def opened(text: str, place: str) -> tuple[str, bytes]:
        match = re.fullmatch(r"ENC\[AES256_GCM,data:(.*),iv:(.*),tag:(.*),type:(.*)\]", text)
        assert match is not None
        data, iv, tag = (base64.b64decode(part) for part in match.group(1, 2, 3))
        assert (32, 16) == (len(iv), len(tag))
        return match[4], cipher.decrypt(iv, data + tag, place.encode())

    def walk(node: Any, place: str) -> Any:
        if isinstance(node, dict):
            return {key: walk(value, f"{place}{key}:") for key, value in node.items()}
        if isinstance(node, list):
            return [walk(item, place) for item in node]
        if node is None or node == "":
            return node
        if plain(place):
            digest.update(str(node).encode())
            return node
        kind, value = opened(node, place)
        digest.update(value)
        return types[kind](value)

    found = walk(tree, "")
    assert digest.hexdigest().upper().encode() == opened(meta["mac"], meta["lastmodified"])[1]
    return found


# round trips


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=150, deadline=None)
@given(tree=TREES)
def test_what_is_written_is_read(format: sops.Format, tree: dict[str, Any]) -> None:
    assert same(tree, sops.load(dumped(tree, format), ME, format=format).data)


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=150, deadline=None)
@given(tree=TREES)
def test_values_in_clear_are_read_as_they_were(format: sops.Format, tree: dict[str, Any]) -> None:
    rule = sops.Rule("encrypted_regex", "^$.")  # matches nothing
    assert same(tree, sops.load(dumped(tree, format, rule=rule), ME, format=format).data)


@settings(max_examples=100, deadline=None)
@given(tree=TREES)
def test_a_document_moves_between_the_formats(tree: dict[str, Any]) -> None:
    document = sops.load(dumped(tree), ME)
    assert same(tree, sops.load(sops.dump(document, format="json"), ME, format="json").data)


@pytest.mark.parametrize("format", FORMATS)
def test_a_foreign_decoder_reads_what_is_written(format: sops.Format) -> None:
    tree = {
        "text": "grün\n",
        "list": [1, -2, True, False, {"deep": ["x"]}, []],
        "number": 2.5,
        "big": 2**62,
        "nothing": None,
        "empty": "",
        "clear_unencrypted": {"a": "b", "n": 5, "t": True},
    }
    assert same(tree, decoded(dumped(tree, format), format, lambda place: "_unencrypted" in place))


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, b"1"), (1e22, b"1" + b"0" * 22), (5e-7, b"0.0000005"), (-0.0, b"-0")]
)
def test_floats_are_noted_without_an_exponent(value: float, text: bytes) -> None:
    document = sops.Document({"a": value}, recipients=(PUBLIC,))
    noted = yaml.safe_load(sops.dump(document))["a"]
    data, iv, tag = (base64.b64decode(noted.split(f"{part}:")[1].split(",", 1)[0]) for part in ("data", "iv", "tag"))
    assert text == AESGCM(document._key).decrypt(iv, data + tag, b"a:")


def test_bytes_are_kept() -> None:
    assert same({"a": b"\x00\xff"}, sops.load(dumped({"a": b"\x00\xff"}), ME).data)


# what sops itself wrote


def test_a_file_in_the_words_of_sops_is_read() -> None:
    """The style of version 3.13: other order, other keys beside age, words without quotes; with a key of this test."""
    ours = yaml.safe_load(dumped({"test_key": "value", "flag_unencrypted": True, "n_unencrypted": 1e6}))
    meta = ours["sops"]
    enc = "".join(f"            {line}\n" for line in meta["age"][0]["enc"].splitlines())
    theirs = (
        f"test_key: {ours['test_key']}\nflag_unencrypted: true\n# a comment\nn_unencrypted: 1e+06\nsops:\n    kms: []\n"
        f'    age:\n        - enc: |\n{enc}          recipient: {PUBLIC}\n    lastmodified: "{meta["lastmodified"]}"\n'
        f"    mac: {meta['mac']}\n    pgp:\n        - fp: 7FB8\n"
        f"    unencrypted_suffix: _unencrypted\n    version: 3.13.3\n"
    ).encode()
    document = sops.load(theirs, ME)
    assert {"test_key": "value", "flag_unencrypted": True, "n_unencrypted": 1e6} == document.data
    assert [{"fp": "7FB8"}] == yaml.safe_load(sops.dump(document))["sops"]["pgp"]
    with pytest.raises(Unsupported, match="remove recipients with sops"):
        document.for_recipients((sops.generate_identity()[1],))


# rules


@pytest.mark.parametrize(
    ("rule", "clear"),
    [
        (sops.Rule(), {"b_unencrypted", "deep_unencrypted"}),
        (sops.Rule("unencrypted_suffix", "_plain"), {"c_plain"}),
        (sops.Rule("encrypted_suffix", "_secret"), {"a", "b_unencrypted", "c_plain", "deep_unencrypted"}),
        (sops.Rule("unencrypted_regex", "^[ab]"), {"a", "b_unencrypted"}),
        (sops.Rule("encrypted_regex", "^d_"), {"a", "b_unencrypted", "c_plain", "deep_unencrypted"}),
    ],
)
def test_a_rule_says_what_stands_in_clear(rule: sops.Rule, clear: set[str]) -> None:
    tree = {"a": "1", "b_unencrypted": "2", "c_plain": "3", "d_secret": {"x": ["4"]}, "deep_unencrypted": {"x": ["5"]}}
    content = dumped(tree, rule=rule)
    written = yaml.safe_load(content)
    assert clear == {key for key in tree if written[key] == tree[key]}
    assert rule == sops.load(content, ME).rule
    assert same(tree, sops.load(content, ME).data)


def test_a_mac_over_encrypted_values_lets_the_others_be_edited() -> None:
    content = dumped({"a": "secret", "b_unencrypted": "one"}, mac_only_encrypted=True)
    edited = content.replace(b"b_unencrypted: one", b"b_unencrypted: two")
    document = sops.load(edited, ME)
    assert "two" == document.data["b_unencrypted"]
    assert sops.load(sops.dump(document), ME).mac_only_encrypted
    for weakened in (content.replace(b"mac_only_encrypted: true", b"mac_only_encrypted: false"),):
        with pytest.raises(IntegrityError):
            sops.load(weakened, ME)


# small changes


@pytest.mark.parametrize("format", FORMATS)
def test_what_did_not_change_keeps_its_ciphertext(format: sops.Format) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    first = sops.Document({f"k{number}": f"value {number}" for number in range(50)}, recipients=(PUBLIC,))
    before = sops.dump(first, format=format, now=now)
    document = sops.load(before, ME, format=format)
    assert before == sops.dump(document, format=format, now=now)
    document.data["k7"] = "another"
    after = sops.dump(document, format=format, now=now + timedelta(hours=1))
    lines = zip(before.decode().splitlines(), after.decode().splitlines(), strict=True)
    changed = [new.strip().strip('"').partition(":")[0].strip('"') for old, new in lines if old != new]
    assert ["k7", "lastmodified", "mac"] == changed


def test_the_time_is_told_in_utc() -> None:
    document = sops.Document({"a": "b"}, recipients=(PUBLIC,))
    sops.dump(document, now=datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=2))))
    assert "2025-12-31T23:00:00Z" == document.lastmodified


# tampering


SECRET = "canary-4f1c"
SAMPLE = {
    "a": {"x": SECRET, "y": "two"},
    "b": [f"{SECRET}-1", f"{SECRET}-2"],
    "c": 5,
    "d_unencrypted": {"e": "f", "g": "h"},
}


def _edit(change: Callable[[dict[str, Any]], object]) -> bytes:
    tree = json.loads(dumped(SAMPLE, "json"))
    change(tree)
    return json.dumps(tree).encode()


def _swap(tree: dict[str, Any], one: str, other: str) -> None:
    tree[one], tree[other] = tree[other], tree[one]


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: _swap(tree["a"], "x", "y"),
        lambda tree: tree["b"].reverse(),
        lambda tree: tree["b"].pop(),
        lambda tree: tree["b"].append(tree["b"][0]),
        lambda tree: tree.pop("c"),
        lambda tree: tree.update(c=5),
        lambda tree: tree.update(c=""),
        lambda tree: tree.update(c="5"),
        lambda tree: tree.update(z=tree["c"]),
        lambda tree: tree.update(new_unencrypted="x"),
        lambda tree: tree.update({"a2": tree.pop("a")}),
        lambda tree: tree["d_unencrypted"].update(e="F"),
        lambda tree: _swap(tree["d_unencrypted"], "e", "g"),
        lambda tree: tree.update(c=tree["c"].replace("type:int", "type:bool")),
        lambda tree: tree["a"].update(x=tree["a"]["x"].replace("type:str", "type:int")),
        lambda tree: tree["a"].update(x=tree["a"]["x"].replace("type:str", "type:float")),
        lambda tree: tree["a"].update(x=tree["a"]["x"].replace("type:str", "type:time")),
        lambda tree: tree["sops"].pop("mac"),
        lambda tree: tree["sops"].update(mac=tree["a"]["x"]),
        lambda tree: tree["sops"].update(mac=""),
        lambda tree: tree["sops"].pop("lastmodified"),
        lambda tree: tree["sops"].update(lastmodified="2020-01-01T00:00:00Z"),
        lambda tree: tree["sops"].update(unencrypted_suffix="c"),
        lambda tree: tree["sops"].update(encrypted_regex="x"),
        lambda tree: tree["sops"].update(mac_only_encrypted=True),
        lambda tree: tree["sops"].update(age=[{"recipient": 5}]),
        lambda tree: tree.pop("sops"),
    ],
    ids=itertools.count(),
)
def test_whatever_was_changed_moved_or_dropped_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(IntegrityError) as caught:
        sops.load(_edit(change), ME, format="json", name="app.json")
    assert "app.json" in str(caught.value)
    chain: BaseException | None = caught.value
    while chain is not None:
        assert "canary" not in f"{chain} {chain!r} {chain.args!r}"
        chain = chain.__cause__ or chain.__context__


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_no_byte_of_a_file_can_be_changed_unnoticed(data: st.DataObject) -> None:
    """What cannot be told apart is told again as it was: spaces, and parts of the metadata that decide nothing."""
    style = data.draw(st.sampled_from(FORMATS))
    content = FILES[style]
    place = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(0, 255))
    changed = content[:place] + bytes([byte]) + content[place + 1 :]
    try:
        found = sops.load(changed, ME, format=style)
    except (IntegrityError, Unauthenticated, Unsupported, InvalidArgument) as error:
        assert "canary" not in str(error)  # noqa: PT017  most changes raise, some do nothing
    else:
        assert _values(SAMPLE) == _values(found.data)


FILES: dict[sops.Format, bytes] = {style: dumped(SAMPLE, style) for style in FORMATS}


def _values(node: Any) -> list[str]:
    """Return the values in order, without their types and the names of keys in clear: the MAC covers neither."""
    if isinstance(node, dict):
        return [value for below in node.values() for value in _values(below)]
    return [value for below in node for value in _values(below)] if isinstance(node, list) else [str(node)]


@pytest.mark.parametrize(
    ("content", "format", "why"),
    [
        (b"", "yaml", "not one document"),
        (b"", "json", "line 1 is no JSON"),
        (b"\xff", "yaml", "not UTF-8"),
        (b"a: 1\n---\nb: 2", "yaml", "not one document"),
        (b"a: &x 1\nb: *x", "yaml", "line 2: aliases"),
        (b"a: 1\na: 2", "yaml", "line 1: a key below is not text or occurs twice"),
        (b'{"a": 1, "a": 2}', "json", "occurs twice"),
        (b"1: a", "yaml", "a key below is not text"),
        (b"a: 2026-01-01", "yaml", "line 1: readers of YAML differ"),
        (b"a: 0x1F", "yaml", "readers of YAML differ"),
        (b"a: !!binary eA==", "yaml", "values of the kind"),
        (b"a: !!python/object/apply:os.getcwd []", "yaml", "no SOPS file"),
        (b"a: " + b"[" * 100_000, "yaml", "nested too deeply"),
        (b"- " * 100_000, "yaml", "nested too deeply"),
        (b"[" * 100_000, "json", "nested too deeply"),
        (b'{"a":' * 500 + b"1" + b"}" * 500, "json", "no SOPS file"),
        (b'{"a": NaN}', "json", "NaN is no JSON"),
        (b'{"a": ' + b"1" * 5000 + b"}", "json", "too long"),
        (b"a: 1\nsops: 5", "yaml", "no SOPS file"),
        (b"{", "yaml", "no YAML"),
        (b"[]", "json", "no object"),
    ],
    ids=itertools.count(),
)
def test_a_file_that_is_none_is_refused_with_its_line(content: bytes, format: sops.Format, why: str) -> None:
    with pytest.raises(IntegrityError, match=why):
        sops.load(content, ME, format=format)


@pytest.mark.parametrize("name", ["key_groups", "encrypted_comment_regex"])
def test_parts_of_the_format_that_are_not_supported_are_named(name: str) -> None:
    with pytest.raises(Unsupported, match=name):
        sops.load(_edit(lambda tree: tree["sops"].update({name: "x"})), ME, format="json")


# what cannot be written


@pytest.mark.parametrize(
    ("tree", "why"),
    [
        ({"a": {"b": object()}}, "'a:b:' is a object"),
        ({"a": datetime(2026, 1, 1, tzinfo=UTC)}, "quote dates"),
        ({"a": 2**63}, "more than 64 bits"),
        ({"a": f"{SECRET}\ud800"}, "'a:' is not Unicode"),
        ({1: "a"}, "not text"),
        ({"sops": "a"}, "the format's own"),
        ({"a_unencrypted": b"x"}, "only be stored encrypted"),
        ({"a_unencrypted": float("inf")}, "only be stored encrypted"),
    ],
    ids=itertools.count(),
)
def test_a_value_that_cannot_be_kept_is_refused_with_its_place(tree: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidArgument, match=why) as caught:
        dumped(tree)
    assert "canary" not in str(caught.value)


def test_a_number_in_clear_that_json_would_round_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="too large a number"):
        dumped({"a_unencrypted": 2**53 + 1}, "json")


def test_a_document_without_recipients_is_not_written() -> None:
    with pytest.raises(InvalidArgument, match="no recipient"):
        sops.dump(sops.Document({"a": "b"}, recipients=()))


def test_a_document_does_not_show_its_values_or_its_key() -> None:
    document = sops.load(dumped({"a": SECRET}), ME)
    assert SECRET not in repr(document)
    assert repr(document._key) not in repr(document)
    assert PRIVATE.reveal() not in repr(ME)


# recipients and identities


def _ssh(kind: str) -> tuple[Masked, str]:
    key = ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else rsa.generate_private_key(65537, 2048)
    nothing = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, nothing)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return Masked(private), f"{public.decode()} ada@example.com"


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_ssh_keys_are_recipients_and_identities(kind: str) -> None:
    private, public = _ssh(kind)
    content = sops.dump(sops.Document({"a": "b"}, recipients=(PUBLIC, public)))
    assert (PUBLIC, public) == sops.recipients(content)
    for identities in (sops.parse_identities(private), ME):
        assert {"a": "b"} == sops.load(content, identities).data


def test_a_wrong_key_is_told_for_whom_the_file_is() -> None:
    other = sops.parse_identities(sops.generate_identity()[0], source="other.key")
    with pytest.raises(Unauthenticated, match=f"encrypted for {PUBLIC}; tried the keys of other.key") as caught:
        sops.load(dumped({"a": SECRET}), other, name="app.yaml")
    assert "file 'app.yaml'" in str(caught.value)
    with pytest.raises(Unauthenticated, match="there is no key"):
        sops.load(dumped({"a": SECRET}), sops.find_identities(environ={}, home=Path("/nowhere")))


def test_who_joins_gets_the_data_key_and_who_leaves_changes_it() -> None:
    private, public = sops.generate_identity()
    document = sops.load(dumped({"a": "b"}), ME)
    joined = sops.load(sops.dump(document.for_recipients((PUBLIC, public))), sops.parse_identities(private))
    assert document._key == joined._key
    left = sops.dump(joined.for_recipients((PUBLIC,)))
    assert {"a": "b"} == sops.load(left, ME).data
    assert joined._key != sops.load(left, ME)._key
    with pytest.raises(Unauthenticated):
        sops.load(left, sops.parse_identities(private))


@pytest.mark.parametrize("recipient", ["", "age1", "age1yubikey1qqq", "ssh-ecdsa AAAA", "ssh-ed25519 AAAA", "hello"])
def test_what_is_no_recipient_is_refused(recipient: str) -> None:
    with pytest.raises(InvalidArgument, match="is no recipient"):
        sops.dump(sops.Document({"a": "b"}, recipients=(recipient,)))


def test_identities_are_found_where_they_are_kept(tmp_path: Path) -> None:
    keys = [sops.generate_identity() for _ in range(6)]
    texts = [f"# created: today\n# public key: {public}\n\n{private.reveal()}\n" for private, public in keys]
    places = [tmp_path / place for place in ("a", "b", ".config/shiftable/age.key", ".config/sops/age/keys.txt")]
    for place, text in zip(places, texts[2:], strict=True):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    (tmp_path / ".ssh").mkdir()
    private, public = _ssh("ed25519")
    (tmp_path / ".ssh/id_ed25519").write_bytes(private.reveal_bytes())
    environ = {
        "SHIFTABLE_AGE_KEY": texts[0],
        "SHIFTABLE_AGE_KEY_FILE": str(places[0]),
        "SOPS_AGE_KEY": texts[1],
        "SOPS_AGE_KEY_FILE": str(places[1]),
    }
    found = sops.find_identities(environ=environ, home=tmp_path)
    assert tuple(keys[number][1] for number in (0, 2, 1, 3, 4, 5)) == found.recipients
    assert 7 == len(found.sources)
    for recipient in (*found.recipients, public):
        content = sops.dump(sops.Document({"a": "b"}, recipients=(recipient,)))
        assert {"a": "b"} == sops.load(content, found).data
    assert keys[2][1:] == sops.find_identities(places[0], environ={}, home=tmp_path / "none").recipients


def _protected(kind: str, passphrase: str) -> tuple[bytes, str]:
    key = ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else rsa.generate_private_key(65537, 2048)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.PrivateFormat.OpenSSH.encryption_builder().kdf_rounds(1).build(passphrase.encode()),
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private, f"{public.decode()} ada@example.com"


def test_an_ssh_key_with_a_passphrase_is_named_where_it_matters(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    file = tmp_path / ".ssh/id_ed25519"
    file.write_bytes(_protected("ed25519", "canary-pass")[0])
    found = sops.find_identities(environ={"SHIFTABLE_AGE_KEY": PRIVATE.reveal()}, home=tmp_path)
    assert {"a": "b"} == sops.load(dumped({"a": "b"}), found).data
    other = sops.dump(sops.Document({"a": "b"}, recipients=(sops.generate_identity()[1],)))
    with pytest.raises(Unauthenticated, match=f"{re.escape(str(file))} is protected by a passphrase"):
        sops.load(other, found)
    named = sops.find_identities(environ={"SOPS_AGE_KEY_FILE": str(file)}, home=tmp_path / "none")
    assert not named
    with pytest.raises(Unauthenticated, match="for which only the commands for files ask, on a terminal"):
        sops.load(other, named)


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_a_passphrase_is_asked_for_when_nothing_else_opens_and_once(tmp_path: Path, kind: str) -> None:
    private, public = _protected(kind, "canary-pass")
    (tmp_path / ".ssh").mkdir()
    (tmp_path / f".ssh/id_{kind}").write_bytes(private)
    answers = iter([Masked("wrong"), Masked("canary-pass")])
    asked = []

    def ask(source: str) -> Masked:
        asked.append(source)
        return next(answers)

    environ = {"SHIFTABLE_AGE_KEY": PRIVATE.reveal()}
    found = sops.find_identities(environ=environ, home=tmp_path, ask=ask)
    assert {"a": "b"} == sops.load(dumped({"a": "b"}), found).data
    assert [] == asked
    for _ in range(2):
        assert {"c": "d"} == sops.load(sops.dump(sops.Document({"c": "d"}, recipients=(public,))), found).data
    assert [str(tmp_path / f".ssh/id_{kind}")] * 2 == asked
    assert "canary" not in repr(found)


def test_a_passphrase_is_not_asked_for_where_it_opens_nothing_nor_forever(tmp_path: Path) -> None:
    private, public = _protected("ed25519", "canary-pass")
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/id_ed25519").write_bytes(private)
    asked: list[str] = []

    def ask(source: str) -> Masked:
        asked.append(source)
        return Masked("canary-wrong")

    found = sops.find_identities(environ={}, home=tmp_path, ask=ask)
    with pytest.raises(Unauthenticated):
        sops.load(dumped({"a": "b"}), found)
    assert [] == asked
    with pytest.raises(Unauthenticated) as caught:
        sops.load(sops.dump(sops.Document({"c": "d"}, recipients=(public,))), found)
    assert 3 == len(asked)
    assert "canary" not in str(caught.value)


def test_an_error_names_the_keys_that_were_tried_in_order_and_where_there_was_none(tmp_path: Path) -> None:
    other = sops.generate_identity()[0].reveal()
    file = tmp_path / "named.key"
    file.write_text(other)
    environ = {"SOPS_AGE_KEY": other, "SHIFTABLE_AGE_KEY_FILE": str(file)}
    with pytest.raises(Unauthenticated, match="tried the keys of .*named.key .SHIFTABLE_AGE_KEY_FILE., SOPS_AGE_KEY "):
        sops.load(dumped({"a": "b"}), sops.find_identities(environ=environ, home=tmp_path))
    with pytest.raises(Unauthenticated, match=r"there is no key; looked in SHIFTABLE_AGE_KEY, .*id_ed25519, .*id_rsa "):
        sops.load(dumped({"a": "b"}), sops.find_identities(environ={}, home=tmp_path))


@pytest.mark.parametrize("text", ["", "# only a comment", SECRET, f"{SECRET} PRIVATE KEY-----", "AGE-SECRET-KEY-1XX"])
def test_a_key_that_is_none_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ConfigError, match="SHIFTABLE_AGE_KEY") as caught:
        sops.find_identities(environ={"SHIFTABLE_AGE_KEY": text or "\n"}, home=Path("/nowhere"))
    assert "canary" not in str(caught.value)
    assert "1XX" not in str(caught.value)


def test_a_key_file_that_is_named_but_missing_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"/nowhere/key \(SHIFTABLE_AGE_KEY_FILE\) cannot be read"):
        sops.find_identities(environ={"SHIFTABLE_AGE_KEY_FILE": "/nowhere/key"}, home=Path("/nowhere"))


# packages


def test_importing_loads_no_package_of_the_extra() -> None:
    code = "import sys, shiftable.sops; print(*{'pyrage', 'cryptography', 'yaml'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "" == said.stdout.strip()


@pytest.mark.parametrize("module", ["pyrage", "yaml", "cryptography.hazmat.primitives.ciphers.aead"])
def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    content = dumped({"a": "b"})
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf'{module.split(".", 1)[0]}; run: pip install "shiftable\[sops\]"'):
        sops.load(content, ME)


def test_all_errors_are_of_the_library() -> None:
    with pytest.raises(OperationError) as caught:
        sops.recipients(b"x")
    assert isinstance(caught.value, IntegrityError)
