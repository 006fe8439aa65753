"""User data for cloud-init: what the standard library's mail parser finds in it, read as cloud-init reads it."""

from __future__ import annotations

import email
import email.message
import gzip
import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from shiftable.compute import Compute, FleetSpec, MachineInfo, cloud_init
from shiftable.errors import InvalidArgument
from shiftable.features import Limit
from shiftable.memory.compute import FEATURES, MemoryComputeDriver
from shiftable.testing.conformance.compute import small_fleet

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 ops@example"
SPEC = attrs.evolve(small_fleet("web"), user="ops", ssh_keys=(KEY,))


def parts(data: bytes) -> list[tuple[str, bytes, email.message.Message]]:
    """Return type, content and headers of all leaves, as cloud-init does: from text, walking."""
    message = email.message_from_string(data.decode())
    assert message.get_content_type() == "multipart/mixed"
    assert not message.defects
    leaves = [part for part in message.walk() if part.get_content_maintype() != "multipart"]
    return [(part.get_content_type(), _payload(part), part) for part in leaves]


def _payload(part: email.message.Message) -> bytes:
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload


def ours(data: bytes) -> tuple[dict[str, Any], email.message.Message]:
    kind, content, headers = parts(data)[-1]
    assert kind == "text/cloud-config"
    first, rest = content.split(b"\n", 1)
    assert first == b"#cloud-config"
    config: dict[str, Any] = json.loads(rest)
    return config, headers


def test_a_machine_has_its_name_and_its_user_with_keys_and_no_password() -> None:
    config, _ = ours(cloud_init(SPEC, "web-0", None))
    assert config == {
        "hostname": "web-0",
        "manage_etc_hosts": "localhost",
        "ssh_pwauth": False,
        "disable_root": True,
        "users": [
            {
                "name": "ops",
                "shell": "/bin/bash",
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "lock_passwd": True,
                "ssh_authorized_keys": [KEY],
            }
        ],
    }
    assert not ours(cloud_init(attrs.evolve(SPEC, user="root"), "web-0", None))[0]["disable_root"]


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        ("#!/bin/sh", "text/x-shellscript"),
        ("#cloud-config", "text/cloud-config"),
        ("#Cloud-Config", "text/cloud-config"),
        ("\n  #cloud-config", "text/cloud-config"),
        ("#cloud-config-archive", "text/cloud-config-archive"),
        ("#cloud-config-jsonp", "text/cloud-config-jsonp"),
        ("#cloud-boothook", "text/cloud-boothook"),
        ("#include", "text/x-include-url"),
        ("#include-once", "text/x-include-once-url"),
        ("#part-handler", "text/part-handler"),
        ("## template: jinja", "text/jinja2"),
    ],
)
def test_the_users_data_goes_first_under_the_type_of_its_first_line(first: str, kind: str) -> None:
    given = f"{first}\nrest: of it\n".encode()
    theirs, last = parts(cloud_init(SPEC, "web-0", given))
    assert (theirs[0], theirs[1]) == (kind, given)
    assert last[0] == "text/cloud-config"


def test_ours_is_merged_by_adding_users_and_replacing_nothing() -> None:
    _, headers = ours(cloud_init(SPEC, "web-0", b"#cloud-config\nusers: []\n"))
    assert headers["Merge-Type"] == "list(append)+dict(no_replace,recurse_list)+str()"


@pytest.mark.parametrize(
    "given",
    [
        b"#!/bin/sh",
        b"#!/bin/sh\n\n\n",
        b"#!/bin/sh\r\necho a\r\n",
        "#!/bin/sh\necho grüße 😀\n".encode(),
        b"#!/bin/sh\n--shiftable-0\n--\n\nFrom me\n.\n",
        b"#!/bin/sh\n\x00\xff\x0c\x85" + bytes(range(256)),
        b"#!/bin/sh\n" + b"x" * 5_000,
    ],
)
def test_the_users_data_arrives_byte_for_byte(given: bytes) -> None:
    theirs, _ = parts(cloud_init(SPEC, "web-0", given))
    assert theirs[1] == given


def test_data_that_is_mime_keeps_its_parts_and_its_headers() -> None:
    inner = (
        b"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n"
        b"--b\nContent-Type: text/x-shellscript\n\n#!/bin/sh\n"
        b"--b\nContent-Type: text/cloud-config\nMerge-Type: list(prepend)\n\n#cloud-config\n--b--\n"
    )
    kinds = [(kind, headers["Merge-Type"]) for kind, _, headers in parts(cloud_init(SPEC, "web-0", inner))]
    assert kinds[:2] == [("text/x-shellscript", None), ("text/cloud-config", "list(prepend)")]
    assert len(kinds) == 3


def test_wrapped_data_can_be_wrapped_again() -> None:
    twice = cloud_init(SPEC, "web-1", cloud_init(SPEC, "web-0", b"#!/bin/sh\n"))
    assert [kind for kind, *_ in parts(twice)] == ["text/x-shellscript", "text/cloud-config", "text/cloud-config"]


def test_compressed_data_goes_compressed() -> None:
    given = b"#!/bin/sh\n" + b"echo\n" * 10_000
    wrapped = cloud_init(SPEC, "web-0", gzip.compress(given))
    assert len(wrapped) < 1_000
    assert gzip.decompress(wrapped) == cloud_init(SPEC, "web-0", given)


def test_the_same_input_gives_the_same_bytes() -> None:
    for given in (None, b"#!/bin/sh\n", gzip.compress(b"#!/bin/sh\n", mtime=1)):
        assert cloud_init(SPEC, "web-0", given) == cloud_init(SPEC, "web-0", given)
    assert cloud_init(SPEC, "web-0", None) != cloud_init(SPEC, "web-1", None)


@pytest.mark.parametrize("given", [b"echo hello\n", b'{"ignition": {}}', b"\x1f\x8bbroken", b"#clod-config\n"])
def test_data_that_cloud_init_would_ignore_is_refused_and_not_shown(given: bytes) -> None:
    with pytest.raises(ValueError, match=r"cloud-init|decompressed") as caught:
        cloud_init(SPEC, "web-0", given)
    assert "hello" not in str(caught.value)


def test_a_key_of_any_comment_stays_as_it_is() -> None:
    key = f'{KEY} 😀 "it\'s" \\ ☃'
    config, _ = ours(cloud_init(attrs.evolve(SPEC, ssh_keys=(key,)), "web-0", None))
    assert config["users"][0]["ssh_authorized_keys"] == [key]


@pytest.mark.parametrize(
    "key",
    [
        "",
        "AAAA",
        f"{KEY}\nssh-ed25519 BBBB",
        f"{KEY}\r",
        "-----BEGIN OPENSSH " + "PRIVATE KEY-----",
        "ssh-ed25519 AAAA\x1b[2J",
    ],
)
def test_what_is_no_public_key_on_one_line_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ValueError, match="ssh_keys: number 2 is no public key") as caught:
        attrs.evolve(SPEC, ssh_keys=(KEY, key))
    assert "AAAA" not in str(caught.value)
    assert "PRIVATE" not in str(caught.value)


@pytest.mark.parametrize(
    "key", ["ecdsa-sha2-nistp256 AAAA=", "sk-ssh-ed25519@openssh.com AA", f'restrict,from="*" {KEY}']
)
def test_public_keys_are_taken_as_in_authorized_keys(key: str) -> None:
    assert attrs.evolve(SPEC, ssh_keys=(key,)).ssh_keys == (key,)


@pytest.mark.parametrize("user", ["", "-oProxyCommand=x", "a b", "Upper", "x" * 33, "a\n", "0a"])
def test_what_is_no_user_of_linux_is_refused(user: str) -> None:
    with pytest.raises(ValueError, match="user must be"):
        attrs.evolve(SPEC, user=user)


# by drivers that wrap


class Wrapping(MemoryComputeDriver):
    """Makes users and keys by cloud-init, as EC2 does, and keeps what each machine got."""

    got: dict[str, bytes | None]

    def user_data(self, spec: FleetSpec, name: str, given: bytes | None) -> bytes | None:
        return cloud_init(spec, name, given)

    def create_machine(self, spec: FleetSpec, name: str, *, user_data: bytes | None, **more: Any) -> MachineInfo:
        self.got[name] = user_data
        return super().create_machine(spec, name, user_data=user_data, **more)


def wrapping(limit: int = 16_384) -> tuple[Compute, Wrapping]:
    driver = Wrapping(attrs.evolve(FEATURES, max_user_data=Limit(limit, "chosen")))
    driver.got = {}
    return Compute(driver), driver


def test_each_machine_gets_its_own() -> None:
    compute, driver = wrapping()
    spec = attrs.evolve(SPEC, count=2, user_data_text="#!/bin/sh\n")
    compute.create(spec)
    assert driver.got == {name: cloud_init(spec, name, b"#!/bin/sh\n") for name in ("web-0", "web-1")}


def test_the_size_is_that_of_the_whole() -> None:
    spec = attrs.evolve(SPEC, count=11, user_data_text="#!/bin/sh\n")
    largest = len(cloud_init(spec, "web-10", b"#!/bin/sh\n"))
    wrapping(largest)[0].create(spec)
    compute, driver = wrapping(largest - 1)
    with pytest.raises(InvalidArgument, match=rf"{largest} bytes, {largest - 10} of them for its user and keys"):
        compute.create(spec)
    assert not driver.got


def test_what_cannot_be_wrapped_is_refused_before_anything_is_made() -> None:
    compute, driver = wrapping()
    spec = attrs.evolve(SPEC, user_data_text="echo hello")
    with pytest.raises(InvalidArgument, match="cloud-init knows no user data that begins so"):
        compute.create(spec)
    assert not driver.got
    (lacking,) = compute.missing_features(spec)
    assert lacking.startswith("way to take the user data: cloud-init knows no user data that begins so")


def test_user_data_that_is_not_here_is_no_fault_of_the_provider(tmp_path: Path) -> None:
    assert wrapping()[0].missing_features(attrs.evolve(SPEC, user_data=tmp_path / "nowhere")) == ()
