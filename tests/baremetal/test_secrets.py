"""The driver of secrets in SOPS files: the rules for all drivers, and what files alone can suffer."""

from __future__ import annotations

import base64
import errno
import fcntl
import hashlib
import itertools
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pyrage
import pytest
import yaml
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import settings

from shiftable import sops
from shiftable.errors import (
    Conflict,
    IntegrityError,
    InvalidArgument,
    NotFound,
    OperationError,
    ParentNotFound,
    PermissionDenied,
    QuotaExceeded,
    Unauthenticated,
)
from shiftable.secrets import Secrets, SecretsSpec, SecretStore
from shiftable.testing.conformance.secrets import SecretsConformance, secrets_machine
from shiftable_baremetal.secrets import FEATURES, SopsDriver

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


@attrs.define
class Clock:
    """A clock that moves only when it is told to."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now


@attrs.frozen
class Decoder:
    """Reads the store's files with age, AES-GCM and a YAML parser: nothing of the code under test."""

    root: Path
    key: str = attrs.field(repr=False)

    def document(self, path: Path) -> dict[str, Any]:
        """Decrypt a file and check its MAC."""
        tree = yaml.safe_load(path.read_bytes())
        meta = tree.pop("sops")
        identity = pyrage.x25519.Identity.from_str(self.key)
        cipher = AESGCM(pyrage.decrypt(meta["age"][0]["enc"].encode(), [identity]))
        digest = hashlib.sha512()

        def opened(text: str, place: str) -> bytes:
            data, iv, tag = (
                base64.b64decode(text.split(f"{part}:")[1].split(",", 1)[0]) for part in ("data", "iv", "tag")
            )
            return cipher.decrypt(iv, data + tag, place.encode())

        def walk(node: Any, place: str) -> Any:
            if isinstance(node, dict):
                return {key: walk(value, f"{place}{key}:") for key, value in node.items()}
            if node is None:
                return None
            value = opened(node, place).decode() if place.endswith("value:") else node
            digest.update(str(value).encode())
            return value

        plain = walk(tree, "")
        assert digest.hexdigest().upper().encode() == opened(meta["mac"], meta["lastmodified"])
        return plain

    def value(self, name: str) -> bytes | None:
        path = self.root / f"{name}.yaml"
        if not path.exists():
            return None
        tree = self.document(path)
        version = tree["versions"][tree["current"]]
        return base64.b64decode(version["value"]) if version["kind"] == "binary" else version["value"].encode()

    def names(self) -> list[str]:
        found = (path.relative_to(self.root) for path in self.root.rglob("*.yaml"))
        return [str(path).removesuffix(".yaml") for path in found if path.parts[0] != ".deleted"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the tests away from the keys of who runs them."""
    for owner, name in itertools.product(("SHIFTABLE", "SOPS"), ("AGE_KEY", "AGE_KEY_FILE")):
        monkeypatch.delenv(f"{owner}_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "secrets"


@pytest.fixture
def driver(root: Path, clock: Clock) -> SopsDriver:
    made = SopsDriver(root, clock=clock)
    made.create(SecretsSpec(name="shop"))
    return made


@pytest.fixture
def decoder(driver: SopsDriver, root: Path, home: Path) -> Decoder:
    return Decoder(root, (home / ".config/shiftable/age.key").read_text().splitlines()[1])


@pytest.fixture
def shop(driver: SopsDriver) -> SecretStore:
    return Secrets(driver).store("shop")


class TestConformance(SecretsConformance):
    @pytest.fixture
    def driver(self, root: Path) -> SopsDriver:
        made = SopsDriver(root)
        made.create(SecretsSpec(name="any"))
        return made

    @pytest.fixture
    def oracle(self, decoder: Decoder) -> Decoder:
        return decoder


# the state machine


def _empty_store(folder: Path) -> Callable[[], SecretStore]:
    def make() -> SecretStore:
        driver = SopsDriver(Path(tempfile.mkdtemp(dir=folder)), identity_file=folder / "age.key")
        driver.create(SecretsSpec(name="shop"))
        return Secrets(driver).store("shop")

    return make


def test_any_sequence_of_calls_answers_as_the_memory_model(tmp_path: Path) -> None:
    machine = secrets_machine(_empty_store(tmp_path)).TestCase
    machine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
    machine().runTest()


# the file


def test_a_file_shows_everything_but_the_values(shop: SecretStore, root: Path, clock: Clock) -> None:
    first = shop.put("db/password", "hunter2", labels={"team": "core"}, expires=START + timedelta(days=30))
    second = shop.put("db/password", b"\x00\xff")
    content = (root / "shop/db/password.yaml").read_text()
    tree = yaml.safe_load(content)
    versions = tree["versions"]
    assert "shop/db/password" == tree["name"]
    assert {"team": "core"} == tree["labels"]
    assert "2026-01-31T12:00:00+00:00" == tree["expires"]
    assert (second.version, first.version, None) == (tree["current"], tree["previous"], tree["pending"])
    assert ["binary", "text"] == [version["kind"] for version in versions.values()]
    assert all(version["value"].startswith("ENC[AES256_GCM,") for version in versions.values())
    assert "hunter2" not in content


def test_a_second_version_leaves_the_ciphertext_of_the_first(shop: SecretStore, root: Path) -> None:
    shop.put("key", "one")
    before = yaml.safe_load((root / "shop/key.yaml").read_bytes())
    shop.put("key", "two")
    after = yaml.safe_load((root / "shop/key.yaml").read_bytes())
    (id_, version), *_ = before["versions"].items()
    assert version == after["versions"][id_]
    assert before["sops"]["age"] == after["sops"]["age"]


def test_encrypted_files_may_be_read_by_all_and_the_private_key_by_its_owner(
    shop: SecretStore, root: Path, home: Path
) -> None:
    before = os.umask(0o022)
    try:
        shop.put("sub/key", "value")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (root / "shop/sub/key.yaml", root / "shop/sub")]
    assert [0o644, 0o755] == modes
    assert 0o600 == stat.S_IMODE((home / ".config/shiftable/age.key").stat().st_mode)


def test_the_last_versions_are_kept_and_all_with_a_stage(shop: SecretStore) -> None:
    first = shop.put("key", "first")
    pending = shop.put("key", "pending", stage="pending")
    limit = FEATURES.max_versions.value if FEATURES.max_versions else 0
    for number in range(limit + 2):
        latest = shop.put("key", f"value {number}")
    kept = [entry.version for entry in shop.history("key")]
    assert limit == len(kept)
    assert latest.version == kept[0]
    assert pending.version == kept[-1]
    assert first.version not in kept
    assert "pending" == shop.get("key", stage="pending").reveal()


def test_labels_of_any_text_are_kept(shop: SecretStore) -> None:
    labels = {"value": "x", "0x1F": "yes", "a: b": "- c\n#d", "ü\u2028\x85\x00": "", "null": "2026-01-01", "~": "1e3"}
    shop.put("key", "value", labels=labels)
    assert labels == dict(shop.get("key").labels)


def test_labels_that_are_not_unicode_are_refused(shop: SecretStore) -> None:
    with pytest.raises(InvalidArgument, match="not Unicode"):
        shop.put("key", "value", labels={"a": "\ud800"})


# tampering, by somebody without the key


def _exchange_values(tree: dict[str, Any]) -> None:
    new, old = tree["versions"].values()
    new["value"], old["value"] = old["value"], new["value"]


def _rename_version(tree: dict[str, Any]) -> None:
    (new, version), *rest = tree["versions"].items()
    tree["versions"] = {f"9{new}": version, **dict(rest)}
    tree["current"] = f"9{new}"


TAMPERINGS: dict[str, Callable[[dict[str, Any]], object]] = {
    "another name": lambda tree: tree.update(name="shop/other"),
    "another label": lambda tree: tree["labels"].update(team="web"),
    "labels with exchanged names": lambda tree: tree.update(
        labels=dict(zip(("env", "team"), ("core", "prod"), strict=True))
    ),
    "a byte moved to the next label": lambda tree: tree.update(labels={"team": "cor", "env": "eprod"}),
    "another expiry": lambda tree: tree.update(expires="2030-01-01T00:00:00+00:00"),
    "previous made pending": lambda tree: tree.update(previous=None, pending=tree["previous"]),
    "current and previous exchanged": lambda tree: tree.update(current=tree["previous"], previous=tree["current"]),
    "another revision": lambda tree: tree.update(revision="0" * 16),
    "a version dropped": lambda tree: tree["versions"].popitem(),
    "versions reordered": lambda tree: tree.update(versions=dict(reversed(tree["versions"].items()))),
    "a version renamed": _rename_version,
    "values exchanged": _exchange_values,
    "a version disabled": lambda tree: next(iter(tree["versions"].values())).update(enabled=False),
    "text said to be binary": lambda tree: next(iter(tree["versions"].values())).update(kind="binary"),
    "an idempotency key added": lambda tree: next(iter(tree["versions"].values())).update(idempotency_key="x"),
    "a value emptied": lambda tree: next(iter(tree["versions"].values())).update(value=""),
    "a null added": lambda tree: tree.update(note=None),
    "an empty list added": lambda tree: tree.update(note=[]),
    "an empty text added": lambda tree: tree.update(note=""),
    "the seal dropped": lambda tree: tree.pop("seal"),
    "the mac dropped": lambda tree: tree["sops"].pop("mac"),
    "another time": lambda tree: tree["sops"].update(lastmodified="2026-01-01T12:00:01Z"),
    "another rule": lambda tree: tree["sops"].update(encrypted_regex="^(value|note)$"),
    "no rule": lambda tree: tree["sops"].pop("encrypted_regex"),
    "a second rule": lambda tree: tree["sops"].update(unencrypted_suffix="_unencrypted"),
    "a rule that is no expression": lambda tree: tree["sops"].update(encrypted_regex="("),
    "a weaker mac": lambda tree: tree["sops"].update(mac_only_encrypted=True),
    "no metadata": lambda tree: tree.pop("sops"),
    "metadata of another kind": lambda tree: tree.update(sops=[1]),
    "recipients of another kind": lambda tree: tree["sops"].update(age="x"),
    "nothing": lambda tree: tree.clear(),
}


@pytest.mark.parametrize("tamper", TAMPERINGS.values(), ids=TAMPERINGS)
def test_a_file_that_was_changed_is_refused_and_named(
    shop: SecretStore, root: Path, tamper: Callable[[dict[str, Any]], object]
) -> None:
    shop.put("key", "canary-old", labels={"team": "core", "env": "prod"}, expires=START + timedelta(days=1))
    shop.put("key", "canary-new")
    path = root / "shop/key.yaml"
    tree = yaml.safe_load(path.read_bytes())
    tamper(tree)
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    acts: list[Callable[[], object]] = [
        lambda: shop.get("key"),
        lambda: list(shop.list()),
        lambda: list(shop.history("key")),
        lambda: shop.put("key", "another"),
        lambda: shop.delete("key"),
    ]
    for act in acts:
        with pytest.raises(IntegrityError, match=re.escape(str(path))) as caught:
            act()
        assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "edit",
    [
        lambda tree: tree.pop("seal"),
        lambda tree: tree["labels"].update(team="web"),
        lambda tree: tree.update(current=None),
        lambda tree: tree.update(previous="7-00000000"),
        lambda tree: tree.update(expires="tomorrow"),
        lambda tree: tree.update(labels=None),
        lambda tree: tree.update(versions=[]),
        lambda tree: tree.update(versions={"first": next(iter(tree["versions"].values()))}, current="first"),
        lambda tree: next(iter(tree["versions"].values())).update(created=None),
        lambda tree: next(iter(tree["versions"].values())).update(value=5),
        lambda tree: next(iter(tree["versions"].values())).update(kind="binary", value="no base64"),
        lambda tree: tree.clear(),
    ],
    ids=itertools.count(),
)
def test_a_file_that_sops_edited_is_refused_and_named(
    shop: SecretStore, root: Path, home: Path, edit: Callable[[dict[str, Any]], object]
) -> None:
    shop.put("key", "value")
    path = root / "shop/key.yaml"
    document = sops.load(path.read_bytes(), sops.find_identities())
    edit(document.data)
    path.write_bytes(sops.dump(document))
    with pytest.raises(IntegrityError, match=r"key\.yaml: .*was not written by shiftable"):
        shop.get("key")


def test_a_rewritten_but_unchanged_file_is_accepted(shop: SecretStore, root: Path) -> None:
    shop.put("key", "value", labels={"team": "core"})
    path = root / "shop/key.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_bytes()), sort_keys=False))
    assert "value" == shop.get("key").reveal()


def test_files_that_change_places_are_refused_and_named(shop: SecretStore, root: Path) -> None:
    shop.put("a", "one")
    shop.put("b", "two")
    for source, target in (("a", "c"), ("b", "a"), ("c", "b")):
        (root / f"shop/{source}.yaml").rename(root / f"shop/{target}.yaml")
    for key, other in (("a", "b"), ("b", "a")):
        with pytest.raises(IntegrityError, match=f"{key}.yaml: the file is not where it was written.*'shop/{other}'"):
            shop.get(key)


def test_a_deleted_file_cannot_be_moved_back_by_hand(shop: SecretStore, root: Path) -> None:
    shop.put("key", "value")
    shop.delete("key")
    (root / ".deleted/shop/key.yaml").rename(root / "shop/key.yaml")
    with pytest.raises(IntegrityError, match="not where it was written"):
        shop.get("key")


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"[" * 100_000, b"a: *a", b"- 1", b"a: 1\n---\nb: 2", b"{"], ids=ascii
)
def test_a_file_that_is_no_document_is_refused(shop: SecretStore, root: Path, content: bytes) -> None:
    (root / "shop").mkdir()
    (root / "shop/key.yaml").write_bytes(content)
    with pytest.raises(IntegrityError, match=r"key\.yaml"):
        shop.get("key")


# names and the way out of the root


@pytest.mark.parametrize(
    "name",
    [
        *(".", "..", "a/..", "../a", "a/../../b", "/etc/passwd", "a//b", "a b", "ü", "a\n", "a\x00", "x" * 201),
        *(".deleted/a", ".lock", "a.yaml/b", "a\\b", "a:b", "~", "*", "a/" * 600 + "a", ""),
    ],
    ids=ascii,
)
def test_a_name_that_is_no_path_below_the_root_is_refused(driver: SopsDriver, name: str) -> None:
    assert driver.check_secret(name)
    everything = Secrets(driver).store("")
    with pytest.raises(InvalidArgument):
        everything.put(name, "value")
    with pytest.raises(Exception, match=re.escape(driver.check_secret(name) or "")):
        driver.get(name, stage="current", version=None)


def test_a_listing_does_not_look_outside_the_root(shop: SecretStore, root: Path) -> None:
    (root.parent / "outside").mkdir()
    (root.parent / "outside/x.yaml").write_text("secret")
    assert [] == list(shop.list("../../outside/"))


def test_an_error_of_the_system_names_the_file(shop: SecretStore, root: Path) -> None:
    (root / ".lock").unlink()
    (root / ".lock").mkdir()
    with pytest.raises(OperationError, match=re.escape(f"{root}/.lock: Is a directory")):
        shop.put("key", "value")


def test_a_pipe_in_place_of_a_secret_keeps_nobody_waiting(shop: SecretStore, root: Path) -> None:
    shop.put("key", "value")
    (root / "shop" / "key.yaml").unlink()
    os.mkfifo(root / "shop" / "key.yaml")
    with pytest.raises(OperationError, match="is not one document"):
        shop.get("key")
    assert [] == list(shop.list())


@pytest.mark.parametrize("link", ["shop", "shop/key.yaml", "shop/inner"])
def test_symbolic_links_are_not_followed(shop: SecretStore, root: Path, link: str) -> None:
    outside = root.parent / "outside"
    (outside / "inner").mkdir(parents=True)
    shop.put("inner/key", "value")
    shop.put("key", "value")
    for source in ("key.yaml", "inner/key.yaml"):
        shutil.copy(root / "shop" / source, outside / source)
    path = root / link
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    path.symlink_to(outside / Path(link).relative_to("shop"))
    before = {file: file.read_bytes() for file in outside.rglob("*.yaml")}
    key = "key" if link.endswith("yaml") else "inner/key"
    for act in (lambda: shop.get(key), lambda: shop.put(key, "another"), lambda: shop.delete(key)):
        with pytest.raises(Conflict, match="symbolic link"):
            act()
    assert before == {file: file.read_bytes() for file in outside.rglob("*.yaml")}


# recipients and identities


def test_creating_makes_the_folder_and_a_key_of_this_user(root: Path, home: Path) -> None:
    secrets = Secrets(SopsDriver(root))
    with pytest.raises(NotFound):
        secrets.describe("shop")
    (change,) = secrets.diff(SecretsSpec(name="shop"))
    assert "create" == change.action
    for _ in range(2):
        secrets.apply(change)
        assert () == secrets.diff(SecretsSpec(name="shop"))
    key = (home / ".config/shiftable/age.key").read_text().splitlines()
    public = str(pyrage.x25519.Identity.from_str(key[1]).to_public())
    assert f"# public key: {public}" == key[0]
    assert public == (root / ".recipients").read_text().splitlines()[-1]


def test_creating_uses_the_key_that_is_there(tmp_path: Path, root: Path, home: Path) -> None:
    private, public = sops.generate_identity()
    file = tmp_path / "own.key"
    file.write_text(private.reveal())
    SopsDriver(root, identity_file=file).create(SecretsSpec(name="shop"))
    assert public == (root / ".recipients").read_text().splitlines()[-1]
    assert not home.exists()


def test_creating_does_not_replace_a_key_file_that_it_cannot_read(tmp_path: Path, root: Path) -> None:
    file = tmp_path / "own.key"
    file.write_text("canary")
    with pytest.raises(Conflict, match="own.key, line 1: this is no identity") as caught:
        Secrets(SopsDriver(root, identity_file=file)).create(SecretsSpec(name="shop"))
    assert "canary" == file.read_text()
    assert "canary" not in str(caught.value)
    assert not (root / ".recipients").exists()


def test_a_store_that_was_not_made_says_what_to_do(root: Path) -> None:
    shop = Secrets(SopsDriver(root)).store("shop")
    with pytest.raises(ParentNotFound, match="run `shiftable apply`"):
        shop.put("key", "value")
    root.mkdir()
    with pytest.raises(ParentNotFound, match=r"write a public key to .*\.recipients"):
        shop.put("key", "value")
    with pytest.raises(NotFound):
        shop.get("key")


def test_recipients_of_the_settings_replace_those_of_the_folder(tmp_path: Path, root: Path, driver: SopsDriver) -> None:
    private, public = sops.generate_identity()
    file = tmp_path / "own.key"
    file.write_text(private.reveal())
    shop = Secrets(SopsDriver(root, recipients=(public,), identity_file=file)).store("shop")
    shop.put("key", "value")
    assert (public,) == sops.recipients((root / "shop/key.yaml").read_bytes())
    assert "value" == shop.get("key").reveal()
    with pytest.raises(Unauthenticated, match=f"encrypted for {public}; tried the keys of .*age.key"):
        Secrets(driver).store("shop").get("key")


def test_who_joins_reads_after_the_next_write_and_who_leaves_does_not(
    tmp_path: Path, root: Path, shop: SecretStore
) -> None:
    private, public = sops.generate_identity()
    file = tmp_path / "other.key"
    file.write_text(private.reveal())
    recipients = root / ".recipients"
    only_me = recipients.read_text()
    shop.put("key", "one")
    recipients.write_text(f"{only_me}\n{public}  # Ada\n")
    shop.put("key", "two")
    path = root / "shop/key.yaml"
    kept = sops.load(path.read_bytes(), sops.parse_identities(private))
    assert "two" == next(iter(kept.data["versions"].values()))["value"]
    recipients.write_text(only_me)
    shop.put("key", "three")
    with pytest.raises(Unauthenticated):
        sops.load(path.read_bytes(), sops.parse_identities(private))
    tree = yaml.safe_load(path.read_bytes())
    value = next(iter(tree["versions"].values()))["value"]
    data, iv, tag = (base64.b64decode(value.split(f"{part}:")[1].split(",", 1)[0]) for part in ("data", "iv", "tag"))
    with pytest.raises(Exception, match="^$"):  # InvalidTag: the old data key opens nothing of the new file
        AESGCM(kept._key).decrypt(iv, data + tag, f"versions:{tree['current']}:value:".encode())


def test_a_private_key_among_the_recipients_is_not_shown(root: Path, shop: SecretStore) -> None:
    private, _ = sops.generate_identity()
    (root / ".recipients").write_text(private.reveal())
    with pytest.raises(InvalidArgument, match="is no recipient") as caught:
        shop.put("key", "value")
    assert private.reveal()[16:] not in str(caught.value)


# deletion and its clock


def test_a_deleted_secret_ends_at_the_first_write_after_its_time(shop: SecretStore, root: Path, clock: Clock) -> None:
    shop.put("key", "value")
    shop.delete("key", recovery=timedelta(days=7))
    file = root / ".deleted/shop/key.yaml"
    clock.now += timedelta(days=7, seconds=-1)
    shop.put("other", "value")
    assert ["key"] == [info.name for info in shop.list(deleted=True)]
    clock.now += timedelta(seconds=1)
    assert [] == list(shop.list(deleted=True))
    with pytest.raises(NotFound):
        shop.restore("key")
    assert file.exists()
    shop.put("other", "value")
    assert not file.exists()
    shop.put("key", "another")


def test_a_checkout_by_git_does_not_shorten_the_recovery(shop: SecretStore, root: Path, clock: Clock) -> None:
    shop.put("key", "value")
    shop.delete("key", recovery=timedelta(days=7))
    os.utime(root / ".deleted/shop/key.yaml", (0, 0))
    shop.put("other", "value")
    shop.restore("key")
    assert "value" == shop.get("key").reveal()


def test_a_deletion_that_was_cut_short_is_none(shop: SecretStore, root: Path) -> None:
    shop.put("key", "value")
    file = root / "shop/key.yaml"
    before = file.read_bytes()
    shop.delete("key")
    file.write_bytes(before)  # the machine went down between the two steps
    assert "value" == shop.get("key").reveal()
    assert [] == list(shop.list(deleted=True))
    shop.put("key", "another")
    shop.delete("key", recovery=None)
    assert [] == list(shop.list(deleted=True))


def test_a_damaged_deleted_file_does_not_stop_the_writes_of_others(
    shop: SecretStore, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shop.put("key", "value")
    shop.delete("key")
    file = root / ".deleted/shop/key.yaml"
    file.write_text("damaged")
    os.utime(file, (0, 0))
    shop.put("other", "value")
    assert "value" == shop.get("other").reveal()
    assert "cannot be ended" in caplog.text


def test_removing_a_prefix_removes_its_empty_folders(driver: SopsDriver, shop: SecretStore, root: Path) -> None:
    shop.put("a/b/c", "value")
    shop.delete("a/b/c", recovery=None)
    Secrets(driver).delete("shop")
    assert not (root / "shop").exists()


# crashes, full disks, other processes

WRITER = """
import itertools, sys
from pathlib import Path
from shiftable.secrets import Secrets
from shiftable_baremetal.secrets import SopsDriver
shop = Secrets(SopsDriver(Path(sys.argv[1]))).store("shop")
print("ready", flush=True)
for number in itertools.count(int(sys.argv[2])):
    for key in ("a", "b/c"):
        shop.put(key, f"value {number}")
    print(number, flush=True)
"""


def test_a_writer_that_is_killed_leaves_every_file_old_or_new(shop: SecretStore, root: Path, decoder: Decoder) -> None:
    moments = random.Random(20)  # noqa: S311  moments, not keys
    done = -1
    for _ in range(20):
        command = [sys.executable, "-c", WRITER, str(root), str(done + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert "ready\n" == child.stdout.readline()
            said = [child.stdout.readline() for _ in range(moments.randint(0, 3))]
            time.sleep(moments.uniform(0, 0.03))  # to anywhere in one of the next writes
            child.send_signal(signal.SIGKILL)
            said += child.stdout.read().split()
        done = max([done, *map(int, said)])  # what the writer was told is stored; the next begins after it
        for name, key in (("shop/a", "a"), ("shop/b/c", "b/c")):
            value = decoder.value(name)
            assert value is not None or done == -1
            if value is not None:
                assert done <= int(value.split()[1]) <= done + 1
                assert value == shop.get(key).reveal_bytes()
    assert done >= 0
    assert {"shop/a", "shop/b/c"} == set(decoder.names())


COUNTER = """
import sys
from pathlib import Path
from shiftable.errors import PreconditionFailed
from shiftable.secrets import Secrets
from shiftable_baremetal.secrets import SopsDriver
shop = Secrets(SopsDriver(Path(sys.argv[1]))).store("shop")
for _ in range(25):
    while True:
        found = shop.get("counter")
        try:
            shop.put("counter", str(int(found.reveal()) + 1), if_match=found.token)
            break
        except PreconditionFailed:
            pass
"""


def test_two_processes_that_compare_and_swap_lose_no_step(shop: SecretStore, root: Path, decoder: Decoder) -> None:
    shop.put("counter", "0")
    children = [subprocess.Popen([sys.executable, "-c", COUNTER, str(root)]) for _ in range(2)]
    assert [0, 0] == [child.wait(timeout=120) for child in children]
    assert b"50" == decoder.value("shop/counter")
    assert 51 == len(list(shop.history("counter")))


def test_a_writer_waits_for_the_lock(shop: SecretStore, root: Path, decoder: Decoder) -> None:
    shop.put("counter", "0")
    with (root / ".lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with subprocess.Popen([sys.executable, "-c", WRITER, str(root), "0"], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert b"ready\n" == child.stdout.readline()
            time.sleep(0.05)
            assert {"shop/counter"} == set(decoder.names())
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert b"0\n" == child.stdout.readline()
            child.kill()
    assert decoder.value("shop/a") is not None


FULL = """
import resource, signal, sys
from pathlib import Path
from shiftable.secrets import Secrets
from shiftable_baremetal.secrets import SopsDriver
shop = Secrets(SopsDriver(Path(sys.argv[1]))).store("shop")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    shop.put("key", "x" * 5000)
except Exception as error:
    print(type(error).__name__)
"""


def test_a_write_that_finds_no_room_changes_nothing(shop: SecretStore, root: Path, decoder: Decoder) -> None:
    shop.put("key", "value")
    before = (root / "shop/key.yaml").read_bytes()
    said = subprocess.run([sys.executable, "-c", FULL, str(root)], capture_output=True, text=True, check=True)
    assert "QuotaExceeded\n" == said.stdout
    assert before == (root / "shop/key.yaml").read_bytes()
    assert not (root / ".new").exists()
    shop.put("key", "another")
    assert b"another" == decoder.value("shop/key")


@pytest.mark.parametrize("step", range(6))
def test_a_disk_that_fails_at_any_step_leaves_the_secret_readable(
    shop: SecretStore, root: Path, decoder: Decoder, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    shop.put("key", "old")
    left = itertools.count(step, -1)
    sync = os.fsync

    def full(handle: int) -> None:
        if next(left) == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    outcomes: list[type[OperationError]] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for act in (lambda: shop.put("key", "new"), lambda: shop.delete("key"), lambda: shop.restore("key")):
            try:
                act()
            except (QuotaExceeded, NotFound) as error:
                outcomes.append(type(error))
    if QuotaExceeded in outcomes:
        shop.restore("key")
    assert shop.get("key").reveal() in ("old", "new")
    assert decoder.value("shop/key") in (b"old", b"new")
    shop.put("key", "later")
    assert b"later" == decoder.value("shop/key")


def test_a_folder_that_may_not_be_written_is_a_refused_permission(
    shop: SecretStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionDenied):
        shop.put("key", "value")
    assert not shop.exists("key")
