"""SOPS files and Debian's age, which is another implementation in another language: each opens what the other wrote.

Debian has no ``sops``; what it would do beside age (AES-GCM for each value, the MAC) is done here with ``cryptography``
and the standard library, from the data key that age's own command unwraps.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import stat
from pathlib import Path
from typing import Any

import attrs
import pytest
import yaml
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shiftable import sops
from shiftable.errors import IntegrityError, Unauthenticated
from shiftable.masking import Masked
from shiftable.secrets import Secrets, SecretsSpec, SecretStore
from shiftable_baremetal.secrets import SopsDriver

VALUE = "s3cret ✓\nsecond line"
LEAF = re.compile(r"ENC\[AES256_GCM,data:(.*),iv:(.*),tag:(.*),type:str\]")


@attrs.frozen
class Key:
    """A private key in a file, and the public key that belongs to it."""

    file: Path
    recipient: str

    @property
    def identities(self) -> sops.Identities:
        return sops.parse_identities(Masked(self.file.read_text()))


def age_key(debian: Any, folder: Path, name: str = "age.key") -> Key:
    file = folder / name
    debian.run("age-keygen", "-o", file)
    return Key(file, debian.run("age-keygen", "-y", file).decode().strip())


def ssh_key(debian: Any, folder: Path, kind: str = "ed25519") -> Key:
    file = folder / f"id_{kind}"
    bits = ("-b", "2048") if kind == "rsa" else ()
    debian.run("ssh-keygen", "-q", "-t", kind, *bits, "-N", "", "-C", "ada@example.net", "-f", file)
    return Key(file, file.with_name(f"{file.name}.pub").read_text().strip())


@pytest.fixture(params=["age", "ssh-ed25519", "ssh-rsa"])
def key(request: pytest.FixtureRequest, debian: Any, tmp_path: Path) -> Key:
    if request.param == "age":
        return age_key(debian, tmp_path)
    return ssh_key(debian, tmp_path, request.param.removeprefix("ssh-"))


def wraps(content: bytes) -> list[str]:
    """Return the data key as the file holds it, for each of its recipients."""
    return [entry["enc"] for entry in yaml.safe_load(content)["sops"]["age"]]


def opened(text: str, data_key: bytes, place: str) -> str:
    """Decrypt one leaf of a SOPS file."""
    match = LEAF.fullmatch(text)
    assert match is not None
    data, iv, tag = (base64.b64decode(part) for part in match.groups())
    return AESGCM(data_key).decrypt(iv, data + tag, place.encode()).decode()


def sealed(text: str, data_key: bytes, place: str) -> str:
    """Encrypt one leaf of a SOPS file."""
    iv = os.urandom(32)
    whole = AESGCM(data_key).encrypt(iv, text.encode(), place.encode())
    data, iv64, tag = (base64.b64encode(part).decode() for part in (whole[:-16], iv, whole[-16:]))
    return f"ENC[AES256_GCM,data:{data},iv:{iv64},tag:{tag},type:str]"


def by_hand(values: dict[str, str], data_key: bytes, wrapped: dict[str, str]) -> bytes:
    """Write a SOPS file whose data key is wrapped already: nothing of the code under test."""
    now = "2026-11-21T00:00:00Z"
    mac = hashlib.sha512("".join(values.values()).encode()).hexdigest().upper()
    meta = {
        "age": [{"recipient": recipient, "enc": armored} for recipient, armored in wrapped.items()],
        "lastmodified": now,
        "mac": sealed(mac, data_key, now),
        "unencrypted_suffix": "_unencrypted",
        "version": "3.9.0",
    }
    tree = {name: sealed(value, data_key, f"{name}:") for name, value in values.items()}
    return yaml.safe_dump({**tree, "sops": meta}).encode()


def test_age_opens_the_data_key_of_what_we_write(debian: Any, key: Key) -> None:
    content = sops.dump(sops.Document({"password": VALUE}, recipients=(key.recipient,)))
    (armored,) = wraps(content)
    data_key = debian.run("age", "--decrypt", "--identity", key.file, data=armored.encode())
    assert len(data_key) == 32
    assert opened(yaml.safe_load(content)["password"], data_key, "password:") == VALUE


def test_we_open_what_age_has_wrapped(debian: Any, key: Key) -> None:
    data_key = os.urandom(32)
    armored = debian.run("age", "--armor", "--recipient", key.recipient, data=data_key).decode()
    document = sops.load(by_hand({"password": VALUE}, data_key, {key.recipient: armored}), key.identities)
    assert document.data == {"password": VALUE}
    assert document.recipients == (key.recipient,)


def test_what_age_has_wrapped_stays_as_it_is_when_we_write_again(debian: Any, key: Key) -> None:
    data_key = os.urandom(32)
    armored = debian.run("age", "--armor", "--recipient", key.recipient, data=data_key).decode()
    document = sops.load(by_hand({"password": VALUE}, data_key, {key.recipient: armored}), key.identities)
    document.data["password"] = "another"
    again = sops.dump(document)
    assert wraps(again) == [armored]
    assert opened(yaml.safe_load(again)["password"], data_key, "password:") == "another"


def test_each_of_several_readers_opens_it_with_a_key_of_ones_own_kind(debian: Any, tmp_path: Path) -> None:
    readers = (age_key(debian, tmp_path), ssh_key(debian, tmp_path), age_key(debian, tmp_path, "second.key"))
    content = sops.dump(sops.Document({"password": VALUE}, recipients=tuple(each.recipient for each in readers)))
    found = {
        debian.run("age", "--decrypt", "--identity", reader.file, data=armored.encode())
        for reader, armored in zip(readers, wraps(content), strict=True)
    }
    assert len(found) == 1
    for reader in readers:
        assert sops.load(content, reader.identities).data == {"password": VALUE}
    with pytest.raises(Unauthenticated):
        sops.load(content, age_key(debian, tmp_path, "stranger.key").identities)


def test_a_wrap_of_age_for_somebody_else_is_not_opened(debian: Any, tmp_path: Path) -> None:
    mine, other = age_key(debian, tmp_path), age_key(debian, tmp_path, "other.key")
    armored = debian.run("age", "--armor", "--recipient", other.recipient, data=os.urandom(32)).decode()
    with pytest.raises(Unauthenticated):
        sops.load(by_hand({}, os.urandom(32), {mine.recipient: armored}), mine.identities)


def test_another_data_key_than_that_of_the_values_is_noticed(debian: Any, key: Key) -> None:
    armored = debian.run("age", "--armor", "--recipient", key.recipient, data=os.urandom(32)).decode()
    with pytest.raises(IntegrityError):
        sops.load(by_hand({"password": VALUE}, os.urandom(32), {key.recipient: armored}), key.identities)


def test_age_takes_a_key_that_we_made(debian: Any, tmp_path: Path) -> None:
    private, public = sops.generate_identity()
    file = tmp_path / "ours.key"
    file.write_text(f"# public key: {public}\n{private.reveal()}\n")
    assert debian.run("age-keygen", "-y", file).decode().strip() == public
    binary = debian.run("age", "--recipient", public, data=VALUE.encode())
    assert debian.run("age", "--decrypt", "--identity", file, data=binary).decode() == VALUE


def test_a_key_file_of_age_keygen_tells_its_own_recipient(debian: Any, tmp_path: Path) -> None:
    made = age_key(debian, tmp_path)
    assert made.identities.recipients == (made.recipient,)
    assert stat.S_IMODE(made.file.stat().st_mode) == 0o600


def test_an_ssh_key_with_a_passphrase_opens_a_file_if_it_is_told_and_is_named_if_not(
    debian: Any, tmp_path: Path
) -> None:
    file = tmp_path / "id_locked"
    debian.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "a long passphrase", "-f", file)
    public = file.with_name("id_locked.pub").read_text().strip()
    content = sops.dump(sops.Document({"password": VALUE}, recipients=(public,)))
    environ, home = {"SOPS_AGE_SSH_PRIVATE_KEY_FILE": str(file)}, tmp_path / "none"
    with pytest.raises(Unauthenticated, match=r"id_locked \(.*\) is protected by a passphrase"):
        sops.load(content, sops.find_identities(environ=environ, home=home))
    told = sops.find_identities(environ=environ, home=home, ask=lambda _: Masked("a long passphrase"))
    assert sops.load(content, told).data == {"password": VALUE}


# the store


@pytest.fixture
def store(tmp_path: Path, key: Key) -> SecretStore:
    return Secrets(SopsDriver(tmp_path / "secrets", (key.recipient,), key.file)).create(SecretsSpec(name="shop"))


def test_age_opens_a_file_of_the_store(debian: Any, store: SecretStore, key: Key, tmp_path: Path) -> None:
    first, second = store.put("db/password", "first"), store.put("db/password", VALUE)
    content = (tmp_path / "secrets/shop/db/password.yaml").read_bytes()
    tree = yaml.safe_load(content)
    (armored,) = wraps(content)
    data_key = debian.run("age", "--decrypt", "--identity", key.file, data=armored.encode())
    found = {
        name: opened(version["value"], data_key, f"versions:{name}:value:")
        for name, version in tree["versions"].items()
    }
    assert found == {first.version: "first", second.version: VALUE}


def test_the_store_reads_with_a_key_of_age_keygen_where_sops_looks_for_it(
    debian: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = age_key(debian, tmp_path)
    monkeypatch.setenv("SOPS_AGE_KEY_FILE", str(made.file))
    writer = Secrets(SopsDriver(tmp_path / "secrets", (made.recipient,))).create(SecretsSpec(name="shop"))
    writer.put("password", VALUE)
    assert Secrets(SopsDriver(tmp_path / "secrets")).store("shop").get("password").reveal() == VALUE
