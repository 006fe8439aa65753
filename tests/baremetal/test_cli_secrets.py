"""``shiftable secrets``: values go in and out by streams and files, never by arguments, and show only if asked for."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import shiftable as library
from shiftable.secrets import SecretStore

FILE = """
[project]
name = "shop"
[environments.development]
provider = "local"
[providers.local]
type = "baremetal"
root = "local"
[secrets.app]
prefix = "shop"
"""
CANARY, FRESH = "canary-5c1e0f9b7d", "canary-fresh-99ab12"
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def store(folder: Path) -> SecretStore:
    (folder / "shiftable.toml").write_text(FILE)
    app = library.load(folder)
    for declared in app.declared():
        for change in app.diff(declared):
            app.apply(declared, change)
    return app.secrets("app")


def answered(shiftable: Command, *arguments: str, **options: Any) -> Any:
    answer = shiftable("secrets", *arguments, "--json", **options)
    assert (0, "") == (answer.returncode, answer.stderr)
    assert "canary" not in answer.stdout
    return json.loads(answer.stdout)


def refused(shiftable: Command, *arguments: str, **options: Any) -> tuple[int, str]:
    answer = shiftable("secrets", *arguments, **options)
    assert "canary" not in answer.stdout + answer.stderr
    return answer.returncode, answer.stderr


# in and out


@pytest.mark.parametrize(
    ("given", "kept"),
    [("value\n", "value"), ("value\r\n", "value"), ("value", "value"), ("two\n\n", "two\n"), ("cr\r", "cr\r")],
    ids=["newline", "newline of Windows", "none", "two", "half a newline of Windows"],
)
def test_a_value_from_standard_input_loses_one_newline(
    shiftable: Command, folder: Path, store: SecretStore, given: str, kept: str
) -> None:
    command = [Path(sys.executable).parent / "shiftable", "secrets", "put", "app", "key"]
    subprocess.run(command, input=given.encode(), check=True, capture_output=True, timeout=120)
    assert kept == store.get("key").reveal()


def test_a_value_from_a_file_is_text_or_bytes(shiftable: Command, folder: Path, store: SecretStore) -> None:
    (folder / "text").write_bytes(f"{CANARY}\n".encode())
    (folder / "binary").write_bytes(b"\xff\x00\n")
    assert 0 == shiftable("secrets", "put", "app", "text", "--in", "text").returncode
    assert CANARY == store.get("text").reveal()
    assert 0 == shiftable("secrets", "put", "app", "dash", "--in", "-", stdin=CANARY).returncode
    assert CANARY == store.get("dash").reveal()
    assert (2, "error: the value is not UTF-8 text; say --binary\n") == refused(
        shiftable, "put", "app", "binary", "--in", "binary"
    )
    assert 0 == shiftable("secrets", "put", "app", "binary", "--in", "binary", "--binary").returncode
    assert b"\xff\x00\n" == store.get("binary").reveal_bytes()
    assert 2 == refused(shiftable, "put", "app", "key", "--in", "no-such-file")[0]


def test_a_value_is_never_an_argument(shiftable: Command, store: SecretStore) -> None:
    for command in ("put", "set"):
        code, errors = refused(shiftable, command, "app", "key", CANARY, FRESH)
        assert (2, True) == (code, errors.startswith("error: a value is never an argument"))
    assert not store.exists("key")


def test_a_value_goes_into_a_file_that_only_its_owner_reads(
    shiftable: Command, folder: Path, store: SecretStore
) -> None:
    store.put("key", f"{CANARY}\nü")
    store.put("binary", b"\xff\x00")
    out = folder / "value"
    out.write_text("x")
    out.chmod(0o644)
    answer = shiftable("secrets", "get", "app", "key", "--out", "value")
    assert 0 == answer.returncode
    assert "value: in value\n" in answer.stdout
    assert "canary" not in answer.stdout + answer.stderr
    assert f"{CANARY}\nü".encode() == out.read_bytes()
    assert 0o600 == stat.S_IMODE(out.stat().st_mode)
    answered(shiftable, "get", "app", "binary", "--out", "value")
    assert b"\xff\x00" == out.read_bytes()
    assert 1 == refused(shiftable, "get", "app", "key", "--out", "no-such-folder/value")[0]
    status, said = refused(shiftable, "get", "app", "key", "--out", "-")
    assert (2, True, False) == (status, "--reveal" in said, (folder / "-").exists())
    assert {"shiftable.toml", "local", ".shiftable", "value"} == {each.name for each in folder.iterdir()}


def test_a_value_does_not_take_the_place_of_a_pipe(shiftable: Command, folder: Path, store: SecretStore) -> None:
    store.put("key", CANARY)
    os.mkfifo(folder / "pipe")
    status, said = refused(shiftable, "get", "app", "key", "--out", "pipe")
    assert (1, "error: pipe: is no file that could be replaced, name another one\n") == (status, said)
    assert (folder / "pipe").is_fifo()


def test_labels_expiry_and_idempotency_key_go_with_a_value(shiftable: Command, store: SecretStore) -> None:
    options = ("--label", "team=core", "--label", "cost=a=b", "--expires", "2031-01-01", "--idempotency-key", "k1")
    first = answered(shiftable, "put", "app", "key", *options, stdin=CANARY)
    again = answered(shiftable, "put", "app", "key", *options, stdin=CANARY)
    assert first["version"] == again["version"]
    found = answered(shiftable, "get", "app", "key")
    assert ({"team": "core", "cost": "a=b"}, "2031-01-01T00:00:00+00:00") == (found["labels"], found["expires"])
    assert "\nexpires: 2031-01-01 00:00:00Z\n" in shiftable("secrets", "get", "app", "key").stdout
    answered(shiftable, "put", "app", "key", "--label", "team=web", stdin=FRESH)
    assert {"team": "web", "cost": "a=b"} == dict(store.get("key").labels)
    assert (2, "error: 'team' is no label; say NAME=VALUE\n") == refused(
        shiftable, "put", "app", "key", "--label", "team", stdin=CANARY
    )
    assert 1 == refused(shiftable, "put", "app", "key", "--idempotency-key", "k1", stdin=FRESH)[0]


def test_an_expiry_that_has_passed_is_refused(shiftable: Command, store: SecretStore) -> None:
    code, errors = refused(shiftable, "put", "app", "key", "--expires", "2020-01-01", stdin=CANARY)
    assert (2, True) == (code, "Invalid value for '--expires': '2020-01-01' has passed" in errors)
    assert not store.exists("key")
    store.put("key", CANARY)
    code, errors = refused(shiftable, "labels", "app", "key", "team=web", "--expires", "2020-01-01T12:00+02:00")
    assert (2, True) == (code, "has passed: it is 2020-01-01T10:00:00Z" in errors)
    assert ({}, None) == (dict(store.get("key").labels), store.get("key").expires)


def test_the_first_names_of_put_and_ls_still_work(shiftable: Command, store: SecretStore) -> None:
    assert 0 == shiftable("secrets", "set", "app", "key", stdin=CANARY).returncode
    assert ["key"] == [each["key"] for each in answered(shiftable, "list", "app")]
    assert ["key"] == [each["key"] for each in answered(shiftable, "ls", "app", "k")]
    assert [] == answered(shiftable, "ls", "app", "x")
    assert "\n  set " not in shiftable("secrets", "--help").stdout


# versions, labels, the end


def test_versions_are_promoted_disabled_and_destroyed(shiftable: Command, store: SecretStore) -> None:
    old, new = (store.put("key", value).version for value in (CANARY, FRESH))
    assert {"key": "key", "version": old, "result": f"version {old} is current"} == answered(
        shiftable, "promote", "app", "key", old
    )
    assert CANARY == store.get("key").reveal()
    answered(shiftable, "disable", "app", "key", new)
    code, errors = refused(shiftable, "get", "app", "key", "--version", new)
    assert (1, True) == (code, "is disabled" in errors)
    assert 2 == refused(shiftable, "destroy", "app", "key", new)[0]
    answered(shiftable, "destroy", "app", "key", new, "--yes")
    assert [old] == [each["version"] for each in answered(shiftable, "history", "app", "key")]
    code, errors = refused(shiftable, "destroy", "app", "key", old, "--yes")
    assert (1, True) == (code, "promote another one first" in errors)


def test_labels_are_shown_and_changed_without_a_version(shiftable: Command, store: SecretStore) -> None:
    version = store.put("key", CANARY, labels={"team": "core", "old": "x"}).version
    assert "old=x\nteam=core\n" == shiftable("secrets", "labels", "app", "key").stdout
    changed = answered(
        shiftable, "labels", "app", "key", "team=web", "new=", "--remove", "old", "--expires", "2031-01-01"
    )
    assert {"key": "key", "labels": {"team": "web", "new": ""}, "expires": "2031-01-01T00:00:00+00:00"} == changed
    assert "new=\nteam=web\nexpires: 2031-01-01 00:00:00Z\n" == shiftable("secrets", "labels", "app", "key").stdout
    assert answered(shiftable, "labels", "app", "key", "--expires", "never")["expires"] is None
    assert [version] == [each.version for each in store.history("key")]
    assert 2 == refused(shiftable, "labels", "app", "key", "--expires", "soon")[0]
    assert 1 == refused(shiftable, "labels", "app", "missing", "a=b")[0]


def test_a_deleted_secret_is_restored_or_purged(shiftable: Command, store: SecretStore) -> None:
    store.put("key", CANARY)
    assert "brings it back for 30 days" in answered(shiftable, "rm", "app", "key")["result"]
    assert ["key"] == [each["key"] for each in answered(shiftable, "ls", "app", "--deleted")]
    assert 1 == refused(shiftable, "rm", "app", "key")[0]
    assert {"key": "key", "result": "restored"} == answered(shiftable, "restore", "app", "key")
    assert "brings it back for 12:00:00" in answered(shiftable, "rm", "app", "key", "--recovery", "12h")["result"]
    assert 2 == refused(shiftable, "rm", "app", "key", "--purge", "--recovery", "12h")[0]
    assert (2, True) == (
        (said := refused(shiftable, "rm", "app", "key", "--purge"))[0],
        "is final; without a terminal, say --yes" in said[1],
    )
    assert "deleted for good" == answered(shiftable, "rm", "app", "key", "--purge", "--yes")["result"]
    assert 1 == refused(shiftable, "restore", "app", "key")[0]
    assert 1 == refused(shiftable, "rm", "app", "key", "--purge", "--yes")[0]


def test_changes_are_told_until_ctrl_c(folder: Path, store: SecretStore) -> None:
    first = store.put("key", CANARY).version
    command = [Path(sys.executable).parent / "shiftable", "secrets", "watch", "app", "key", "--every", "1s"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert f"app/key: version {first} is current\n" == process.stdout.readline()
        second = store.put("key", FRESH).version
        assert f"app/key: version {second} is current\n" == process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert 130 == process.returncode
    assert "Traceback" not in errors


def test_keys_are_completed(store: SecretStore, completed) -> None:
    for key in ("db/password", "db/user", "stripe"):
        store.put(key, CANARY)
    assert ["db/password", "db/user"] == completed("shiftable secrets get app db")
    assert ["stripe"] == completed("shiftable secrets labels app s")
    assert [] == completed("shiftable secrets get nobody s")


def test_what_is_missing_is_said_with_its_name_and_place(shiftable: Command, store: SecretStore) -> None:
    for verb in ("get", "history", "labels", "rm", "restore"):
        code, errors = refused(shiftable, verb, "app", "no/such")
        assert 1 == code
        assert "no/such" in errors
        assert "shop" in errors
    code, errors = refused(shiftable, "get", "ap", "key")
    assert (2, True) == (code, "did you mean app?" in errors)


def test_no_value_is_left_in_a_file_of_ours(shiftable: Command, folder: Path, store: SecretStore) -> None:
    shiftable("-vv", "secrets", "put", "app", "key", stdin=CANARY)
    shiftable("-vv", "secrets", "put", "app", "key", "--if-absent", stdin=FRESH)
    shiftable("-vv", "secrets", "get", "app", "key", "--reveal")
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    assert not any(b"canary" in path.read_bytes() for path in files)
    assert os.listdir(folder)  # noqa: PTH208  names too
    assert not any("canary" in str(path) for path in folder.rglob("*"))


@pytest.mark.parametrize("command", ["put", "get", "rm", "history"])
def test_a_key_in_the_label_is_told_how_it_is_written(shiftable: Command, store: SecretStore, command: str) -> None:
    assert store.exists(CANARY) is False
    code, told = refused(shiftable, command, f"app:{CANARY}")
    assert (2, True) == (code, "named by two arguments, LABEL and KEY, with a blank between them" in told)
