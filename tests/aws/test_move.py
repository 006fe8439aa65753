"""An application moves from AWS to files of this machine, by the command, while everything goes wrong.

What is on both sides afterwards is read by other means than those under test: boto3 and the double's own objects there,
plain files, age and AES-GCM here.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import boto3
import pyrage
import pytest
import yaml
from botocore.config import Config
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shiftable.testing.harness import Call, Request
from shiftable_aws.double import AwsDouble

from ..small_disk import resized, small_disk

FILE = """
[project]
name = "shop"
[environments.production]
provider = "frankfurt"
[providers.frankfurt]
type = "aws"
[providers.cellar]
type = "baremetal"
root = "cellar"
fsync = false
[blob.assets]
bucket = "shop-assets"
versioning = true
[secrets.app]
prefix = "shop"
"""
BUCKET = "shop-assets"
CANARY = "canary-81f3a6"
MOVE = ("migrate", "--from", "frankfurt", "--to", "cellar")
BACK = ("migrate", "--from", "cellar", "--to", "frankfurt")
COMMAND = str(Path(sys.executable).parent / "shiftable")
PART = 5 * 1024 * 1024

AWKWARD = [
    "-rf",
    " leading and trailing ",
    "a+b %2F%00 #?&=;:@,!$'()*~[]{}|^`\"<>\\",
    "&amp;<Key>x</Key>",
    "..x",
    "...",
    ".hidden/.shift",
    "con/NUL.txt",
    "tab\there",
    "line\nbreak",
    "Ünïcode/é/e\u0301",
    "日本語/😀/\U0010ffff",
    "\u202eright to left",
    "s" * 255,
    "/".join(["deep"] * 60),
    "a-b",
    "a/b",
    "a0",
    "blob/shop-assets",
]


@attrs.frozen(kw_only=True)
class Blob:
    """An object as it should be."""

    data: bytes = attrs.field(repr=False)
    content_type: str = "binary/octet-stream"
    metadata: Mapping[str, str] = attrs.Factory(dict)
    tags: Mapping[str, str] = attrs.Factory(dict)


@attrs.frozen(kw_only=True)
class Hidden:
    """A secret as it should be."""

    current: str | bytes = attrs.field(repr=False)
    previous: str | bytes | None = attrs.field(default=None, repr=False)
    labels: Mapping[str, str] = attrs.Factory(dict)
    expires: datetime | None = None


Blobs = dict[str, Blob]
Secrets = dict[str, Hidden]


def blobs(seed: int, count: int, large: int = 3) -> Blobs:
    """Make up objects: awkward names, empty ones, some of several megabytes that were written in parts."""
    chance = random.Random(seed)  # noqa: S311  makes up contents
    made = {key: Blob(data=key.encode()) for key in AWKWARD}
    for number in range(count - len(made) - large):
        made[f"folder {number % 7}/{number}.dat"] = Blob(
            data=chance.randbytes(chance.choice((0, 1, 700, 5000))),
            content_type=chance.choice(("text/plain; charset=utf-8", "image/png")),
            metadata={"number": str(number)} if number % 3 else {},
            tags={"team": "core", "n": str(number)} if number % 5 == 0 else {},
        )
    for number in range(large):
        size = 2 * PART + chance.randrange(PART)
        made[f"large/{number}"] = Blob(data=chance.randbytes(size), metadata={"large": "yes"}, tags={"size": "large"})
    return made


def hidden(count: int) -> Secrets:
    """Make up secrets: text and bytes, previous versions, labels, dates; each value holds the canary."""
    made = {}
    for number in range(count):
        value: str | bytes = f"{CANARY}-{number}\nü"
        if number % 4 == 1:
            value = CANARY.encode() + bytes([0, 255, number])
        made[f"group-{number % 3}/key.{number}"] = Hidden(
            current=value,
            previous=f"{CANARY}-old-{number}" if number % 2 else None,
            labels={"owner": "payments", "number": str(number)} if number % 3 == 0 else {},
            expires=datetime(2031, 5, 1 + number, 12, tzinfo=UTC) if number % 5 == 0 else None,
        )
    return made


@attrs.frozen
class Decoder:
    """Reads files of secrets with age, AES-GCM and a YAML parser."""

    identity: pyrage.x25519.Identity = attrs.field(repr=False)

    @classmethod
    def of(cls, home: Path) -> Decoder:
        lines = (home / ".config/shiftable/age.key").read_text().splitlines()
        key = next(line for line in lines if line.startswith("AGE-SECRET-KEY-"))
        return cls(pyrage.x25519.Identity.from_str(key))

    def read(self, path: Path) -> Hidden:
        """Decrypt all versions; there must be no other than the current and the previous one."""
        tree = yaml.safe_load(path.read_bytes())
        cipher = AESGCM(pyrage.decrypt(tree["sops"]["age"][0]["enc"].encode(), [self.identity]))
        staged = [tree[stage] for stage in ("current", "previous") if tree[stage]]
        assert sorted(staged) == sorted(tree["versions"])
        assert tree["pending"] is None
        values = [self._value(cipher, id_, tree["versions"][id_]) for id_ in staged]
        return Hidden(
            current=values[0],
            previous=values[1] if values[1:] else None,
            labels=tree["labels"],
            expires=datetime.fromisoformat(tree["expires"]) if tree["expires"] else None,
        )

    @staticmethod
    def _value(cipher: AESGCM, id_: str, version: Mapping[str, Any]) -> str | bytes:
        text = version["value"]
        data, iv, tag = (base64.b64decode(text.split(f"{part}:")[1].split(",")[0]) for part in ("data", "iv", "tag"))
        plain = cipher.decrypt(iv, data + tag, f"versions:{id_}:value:".encode())
        return base64.b64decode(plain) if version["kind"] == "binary" else plain.decode()


@attrs.frozen
class Answer:
    """How the command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def results(self) -> list[dict[str, Any]]:
        """The plan, or the reports of the move and of the comparison afterwards, among the events of ``--json``."""
        events = [json.loads(line) for line in self.out.splitlines()]
        return [event[event["event"]] for event in events if event["event"] in {"plan", "report"}]

    @property
    def named(self) -> dict[str, str]:
        """What the plan, or the first report, names, and why."""
        resources = self.results[0]["resources"]
        return {each["key"]: each["trouble"] for found in resources for each in found["named"]}

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


class Shop:
    """The application, its home on AWS and its place on this machine."""

    def __init__(self, double: AwsDouble, folder: Path, home: Path) -> None:
        self.double = double
        self.folder = folder
        self.home = home
        self.root = folder / "cellar"
        self.tree = self.root / "blob" / BUCKET
        self.vault = self.root / "secrets" / "shop"
        self.environ = os.environ | double.environ | {"HOME": str(home)}
        self.configure(FILE)
        options = {"endpoint_url": double.url, "config": Config(max_pool_connections=16)}
        settings = {
            "region_name": double.region,
            "aws_access_key_id": double.environ["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": double.environ["AWS_SECRET_ACCESS_KEY"],
        }
        self.s3 = boto3.client("s3", **options, **settings)
        self.manager = boto3.client("secretsmanager", **options, **settings)

    def configure(self, text: str) -> None:
        (self.folder / "shiftable.toml").write_text(text)

    # the command

    def start(self, *arguments: str, wrapper: tuple[str, ...] = (), **options: Any) -> subprocess.Popen[str]:
        settings = {"env": self.environ, "cwd": self.folder, "stdin": subprocess.DEVNULL} | options
        return subprocess.Popen([*wrapper, COMMAND, *arguments], stdout=-1, stderr=-1, text=True, **settings)

    def run(self, *arguments: str, **options: Any) -> Answer:
        with self.start(*arguments, **options) as process:
            out, err = process.communicate(timeout=300)
        assert "Traceback" not in err, err
        return Answer(process.returncode, out, err)

    def fails(self, *arguments: str, code: int = 1, **options: Any) -> str:
        """Run the command, which must end with one clear error; return it."""
        answer = self.run(*arguments, **options)
        assert code == answer.code, answer.out + answer.err
        (error,) = answer.errors
        return error

    # the source

    def fill(self, objects: Blobs, secrets: Secrets) -> None:
        location = {"LocationConstraint": self.double.region}
        self.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration=location)
        self.s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        for key, blob in objects.items():
            self.put(key, blob)
        for name, secret in secrets.items():
            self.hide(name, secret)

    def put(self, key: str, blob: Blob) -> None:
        tags = "&".join(f"{name}={value}" for name, value in blob.tags.items())
        about = {"ContentType": blob.content_type, "Metadata": dict(blob.metadata), "Tagging": tags}
        if len(blob.data) < PART:
            self.s3.put_object(Bucket=BUCKET, Key=key, Body=blob.data, **about)
            return
        upload = {"Bucket": BUCKET, "Key": key}
        upload["UploadId"] = self.s3.create_multipart_upload(**upload, **about)["UploadId"]
        parts = []
        for number, start in enumerate(range(0, len(blob.data), PART), 1):
            sent = self.s3.upload_part(PartNumber=number, Body=blob.data[start : start + PART], **upload)
            parts.append({"PartNumber": number, "ETag": sent["ETag"]})
        self.s3.complete_multipart_upload(MultipartUpload={"Parts": parts}, **upload)

    def hide(self, name: str, secret: Hidden) -> None:
        tags = dict(secret.labels)
        if secret.expires is not None:
            tags["shiftable-expires"] = secret.expires.strftime("%Y-%m-%dT%H:%M:%SZ")
        values = [value for value in (secret.previous, secret.current) if value is not None]
        kinds = [{"SecretString" if isinstance(value, str) else "SecretBinary": value} for value in values]
        given = [{"Key": key, "Value": value} for key, value in tags.items()]
        self.manager.create_secret(Name=f"shop/{name}", Tags=given, **kinds[0])
        for kind in kinds[1:]:
            self.manager.put_secret_value(SecretId=f"shop/{name}", **kind)

    def stored(self) -> dict[str, Any]:
        """Everything that the double holds, with the times of its writes: to see that nothing was written."""
        keys = {
            key: [(version.version_id, version.last_modified) for version in versions]
            for bucket in self.double.backend("s3", "aws").buckets.values()
            for key, versions in bucket.keys.lists()
        }
        secrets = {
            name: (secret.last_changed_date, sorted(secret.versions))
            for name, secret in self.double.backend("secretsmanager").secrets.items()
        }
        return keys | secrets

    def on_aws(self) -> tuple[Blobs, Secrets]:
        """Read AWS; there must be one version of each object, and no version of a secret without a stage."""
        objects = {}
        for key in (key for key, _ in self.double.backend("s3", "aws").buckets[BUCKET].keys.items()):
            found = self.s3.get_object(Bucket=BUCKET, Key=key)
            tags = self.s3.get_object_tagging(Bucket=BUCKET, Key=key)["TagSet"]
            objects[key] = Blob(
                data=found["Body"].read(),
                content_type=found["ContentType"],
                metadata=found["Metadata"],
                tags={tag["Key"]: tag["Value"] for tag in tags},
            )
        versions = [v for page in self.pages("list_object_versions") for v in page["Versions"]]
        assert sorted(objects) == sorted(version["Key"] for version in versions)
        backend = self.double.backend("secretsmanager").secrets
        return objects, {name.removeprefix("shop/"): self._hidden(secret) for name, secret in backend.items()}

    def pages(self, operation: str) -> Iterator[dict[str, Any]]:
        yield from self.s3.get_paginator(operation).paginate(Bucket=BUCKET)

    @staticmethod
    def _hidden(secret: Any) -> Hidden:
        values: dict[str, str | bytes] = {}
        for version in secret.versions.values():
            (stage,) = version["version_stages"]
            text = version.get("secret_string")
            values[stage] = text if text is not None else base64.b64decode(version["secret_binary"])
        tags = {tag["Key"]: tag["Value"] for tag in secret.tags or ()}
        expires = tags.pop("shiftable-expires", None)
        return Hidden(
            current=values.pop("AWSCURRENT"),
            previous=values.pop("AWSPREVIOUS", None),
            labels=tags,
            expires=datetime.fromisoformat(expires) if expires else None,
        )

    # the target

    def files(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.tree)): path.read_bytes() for path in _files(self.tree)}

    def moved_blobs(self) -> Blobs:
        """Read the files, and what goes with them; there must be one record for each, and none besides."""
        area = self.root / "blob/.shiftable/buckets" / BUCKET
        records = {path.name.split(".")[0]: path for path in _files(area / "sidecars")}
        assert len(records) == len(_files(area / "sidecars"))
        found = {}
        for key, data in self.files().items():
            about = json.loads(records.pop(hashlib.sha256(key.encode()).hexdigest()[:40]).read_bytes())
            kind = about["headers"]["content_type"]
            found[key] = Blob(data=data, content_type=kind, metadata=about["metadata"], tags=about["tags"])
        assert records == {}
        assert _files(area / "versions") == []  # nothing was written twice
        return found

    def moved_secrets(self) -> Secrets:
        decoder = Decoder.of(self.home)
        return {str(p.relative_to(self.vault)).removesuffix(".yaml"): decoder.read(p) for p in _files(self.vault)}

    def check(self, objects: Blobs, secrets: Secrets) -> None:
        found = self.moved_blobs()
        assert sorted(found) == sorted(objects)
        assert [key for key in found if found[key] != objects[key]] == []
        assert self.moved_secrets() == secrets


def nothing_is_left_to_do(shop: Shop) -> None:
    answer = shop.run(*MOVE, "--apply", "--no-verify", "--json")
    assert [(0, True)] == [(report["changed"], report["complete"]) for report in answer.results]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def shop(aws_double: AwsDouble, folder: Path, _own_home: Path) -> Shop:
    return Shop(aws_double, folder, _own_home)


def test_everything_moves_and_the_source_stays_as_it_is(shop: Shop) -> None:
    objects, secrets = blobs(0, 120), hidden(20)
    shop.fill(objects, secrets)
    before = shop.stored()

    answer = shop.run(*MOVE, "--apply")

    assert 0 == answer.code, answer.err
    assert 1 == answer.out.count("everything is there")
    shop.check(objects, secrets)
    nothing_is_left_to_do(shop)
    assert before == shop.stored()


# killed


def killed(shop: Shop, how: str, chance: random.Random) -> int:
    """Begin the move, end it with SIGKILL at some point, and return the exit code."""
    process = shop.start(*MOVE, "--apply")
    seen, wanted, arrived = 0, chance.randrange(1, 40 if how == "secretsmanager" else 120), len(_files(shop.tree))

    def shoot(call: Call) -> bool:
        nonlocal seen
        seen += call.service == how
        if seen == wanted:
            process.kill()
        return False

    shop.double.inject("latency", match=shoot, times=None)
    with process:
        if how == "delay":
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0.3, 1.5))
        elif how == "files":
            while process.poll() is None and len(_files(shop.tree)) < arrived + wanted // 2:
                time.sleep(0.001)
        if how in {"delay", "files"}:
            process.kill()
        process.communicate(timeout=60)
    return process.returncode


@pytest.mark.parametrize("seed", range(4))
def test_a_move_that_is_killed_five_times_loses_nothing_and_doubles_nothing(shop: Shop, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  chooses where to kill
    objects, secrets = blobs(seed, 310), hidden(20)
    shop.fill(objects, secrets)
    before = shop.stored()

    ends = [killed(shop, how, chance) for how in ("s3", "files", "delay", "secretsmanager", "secretsmanager")]

    assert {-signal.SIGKILL} == {*ends[:2], *ends[3:]}
    assert ends[2] in {0, -signal.SIGKILL}
    answer = shop.run(*MOVE, "--apply", "--no-verify")
    assert 0 == answer.code, answer.err
    shop.check(objects, secrets)
    nothing_is_left_to_do(shop)
    assert before == shop.stored()


# faults

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
FAULTS: Mapping[str, dict[str, Any]] = {
    "SlowDown": {"kind": "status", "status": 503, "body": SLOW_DOWN, "service": "s3"},
    "ThrottlingException": {
        "kind": "status",
        "status": 400,
        "body": b'{"__type": "ThrottlingException", "message": "Rate exceeded"}',
        "service": "secretsmanager",
    },
    "drop_before": {"kind": "drop_before"},
    "drop_after": {"kind": "drop_after"},
    "truncate": {"kind": "truncate"},
    "latency": {"kind": "latency", "seconds": 0.3},
}


def disturb(shop: Shop, seed: int, share: float, names: tuple[str, ...]) -> list[Any]:
    """Let a share of all calls go wrong in each of these ways."""
    chance = random.Random(seed)  # noqa: S311  chooses which calls fail
    injections = []
    for name in names:
        fault = dict(FAULTS[name])
        service = fault.pop("service", None)

        def unlucky(call: Call, service: str | None = service) -> bool:
            return service in {None, call.service} and chance.random() < share

        injections.append(shop.double.inject(fault.pop("kind"), match=unlucky, times=None, **fault))
    return injections


@pytest.mark.parametrize(
    "names",
    [("SlowDown", "ThrottlingException"), ("drop_before",), ("drop_after",), ("truncate",), (*FAULTS,)],
    ids=str,
)
def test_a_move_through_faults_is_complete(shop: Shop, names: tuple[str, ...]) -> None:
    objects, secrets = blobs(1, 60), hidden(8)
    shop.fill(objects, secrets)
    before = shop.stored()
    injections = disturb(shop, 1, 0.03 if len(names) > 2 else 0.06, names)

    answer = shop.run(*MOVE, "--apply")

    assert 0 == answer.code, answer.err
    assert all(injection.hits for injection in injections)
    shop.check(objects, secrets)
    nothing_is_left_to_do(shop)
    assert before == shop.stored()


def test_a_move_back_through_faults_writes_nothing_twice(shop: Shop) -> None:
    objects, secrets = blobs(2, 60), hidden(8)
    shop.fill(objects, secrets)
    assert 0 == shop.run(*MOVE, "--apply").code
    shop.double.reset()
    injections = disturb(shop, 2, 0.03, tuple(FAULTS))

    answer = shop.run(*BACK, "--apply")

    assert 0 == answer.code, answer.err
    assert all(injection.hits for injection in injections)
    for injection in injections:
        injection.times = 0
    assert (objects, secrets) == shop.on_aws()


# the source's credentials

EXPIRED = "The provided token has expired."
REFERENCES = FILE.replace('"aws"', '"aws"\naccess_key = { env = "SHOP_KEY" }\nsecret_key = { env = "SHOP_SECRET" }')
Variables = Mapping[str, str | None]


@pytest.mark.parametrize(
    ("variables", "code", "said", "resources"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, 1, "The request signature we calculated does not match", ("secrets",)),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, 1, "The request signature we calculated does not match", ()),
        ({"AWS_ACCESS_KEY_ID": "AKIANOBODY"}, 1, "The AWS Access Key Id you provided does not exist", ()),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, 1, "Unable to locate credentials", ()),
        ({"AWS_SECRET_ACCESS_KEY": None}, 2, "missing: AWS_SECRET_ACCESS_KEY", ()),
        (
            {"AWS_DEFAULT_REGION": None},
            2,
            "region; say region in the settings, or set AWS_DEFAULT_REGION",
            (),
        ),
        ({"AWS_PROFILE": "nobody"}, 2, "The config profile (nobody) could not be found", ()),
        ({"AWS_ENDPOINT_URL": "no url"}, 2, "Invalid endpoint: no url", ()),
    ],
    ids=str,
)
def test_wrong_settings_of_the_source_are_one_error_and_nothing_is_written(
    shop: Shop, variables: Variables, code: int, said: str, resources: tuple[str, ...]
) -> None:
    shop.fill(blobs(0, 25, large=0), hidden(2))
    changed = shop.environ | variables
    shop.environ = {name: value for name, value in changed.items() if value is not None}

    assert said in shop.fails(*MOVE, "--apply", *resources, code=code)
    assert _files(shop.root) == []
    assert _files(shop.home) == []


def test_a_reference_to_a_variable_that_is_not_set_is_one_error(shop: Shop) -> None:
    shop.configure(REFERENCES)
    error = "error: the environment variable SHOP_KEY is not set, and a credential refers to it"
    assert error == shop.fails(*MOVE, "--apply", code=2)
    assert _files(shop.root) == []


def test_credentials_that_expire_in_the_middle_stop_the_move_and_new_ones_let_it_go_on(shop: Shop) -> None:
    objects, secrets = blobs(3, 120, large=1), hidden(3)
    shop.fill(objects, secrets)
    body = f"<Error><Code>ExpiredToken</Code><Message>{EXPIRED}</Message></Error>".encode()
    calls = iter(range(80))
    expired = shop.double.inject("status", match=lambda _: next(calls, None) is None, times=None, status=400, body=body)

    assert EXPIRED in shop.fails(*MOVE, "--apply")
    assert 0 < len(shop.files()) < 120

    expired.times = 0
    assert 0 == shop.run(*MOVE, "--apply", "--no-verify").code
    shop.check(objects, secrets)


# the target's disk


def mortal() -> tuple[str, ...]:
    """Return what runs a command as somebody whom permissions stop: root, too, without the capabilities for it."""
    if os.geteuid():
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("root is stopped by no permission, and there is no setpriv to make it so")
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


@pytest.mark.parametrize(
    ("mode", "code", "said"),
    [(0o000, 2, "cannot be read: give this user the permission"), (0o555, 1, "Permission denied [EACCES]")],
)
def test_a_root_without_permissions_is_one_error_until_they_are_given(
    shop: Shop, mode: int, code: int, said: str
) -> None:
    objects, secrets = blobs(4, 25, large=0), hidden(2)
    shop.fill(objects, secrets)
    before = shop.stored()
    shop.root.mkdir(mode=mode)
    assert said in shop.fails(*MOVE, "--apply", code=code, wrapper=mortal())
    shop.root.chmod(0o755)
    assert list(shop.root.iterdir()) == []
    assert 0 == shop.run(*MOVE, "--apply", "--no-verify", wrapper=mortal()).code
    shop.check(objects, secrets)
    assert before == shop.stored()


def test_a_root_that_is_a_file_or_has_no_parent_is_one_error(shop: Shop) -> None:
    shop.fill({}, {})
    shop.root.write_bytes(b"a file")
    assert "is no folder: remove it, or choose another" in shop.fails(*MOVE, "--apply", code=2)
    assert b"a file" == shop.root.read_bytes()
    shop.configure(FILE.replace('root = "cellar"', 'root = "no/such/place"'))
    assert "has no parent: make the folder" in shop.fails(*MOVE, "--apply", code=2)


def test_a_full_disk_is_named_and_with_more_room_the_same_command_completes_the_move(shop: Shop) -> None:
    objects, secrets = blobs(5, 60), hidden(5)
    shop.fill(objects, secrets)
    before = shop.stored()
    with small_disk(shop.root, 20) as disk:
        full = shop.run(*MOVE, "--apply", "--no-verify", "--json")
        assert 1 == full.code
        assert full.named
        assert {"failed"} == {*full.named.values()}
        assert "QuotaExceeded: blob.put" in full.out
        assert "No space left on device [ENOSPC]" in full.out
        arrived = shop.files()
        assert {key: objects[key].data for key in arrived} == arrived
        resized(disk, 90)
        assert 0 == shop.run(*MOVE, "--apply", "--no-verify").code
        shop.check(objects, secrets)
        nothing_is_left_to_do(shop)
    assert before == shop.stored()


def test_a_disk_that_is_full_for_everything_ends_the_move_after_a_few_items(shop: Shop) -> None:
    objects, secrets = blobs(5, 60, large=1), hidden(2)
    shop.fill(objects, secrets)
    with small_disk(shop.root, 20) as disk:
        filler = shop.root / "filler"
        filler.write_bytes(bytes(20 * 1024 * 1024 - 64 * 1024))
        error = shop.fails(*MOVE, "--apply")
        assert "No space left on device [ENOSPC]" in error
        filler.unlink()
        resized(disk, 90)
        assert 0 == shop.run(*MOVE, "--apply", "--no-verify").code
        shop.check(objects, secrets)


def test_a_journal_without_room_is_one_error_and_with_more_room_the_move_completes(shop: Shop) -> None:
    objects, secrets = blobs(5, 60, large=0), hidden(2)
    shop.fill(objects, secrets)
    with small_disk(shop.folder / "state", 20) as disk:
        (shop.folder / ".shiftable").symlink_to("state")
        (shop.folder / "state/filler").write_bytes(bytes(20 * 1024 * 1024 - 72 * 1024))
        error = shop.fails(*MOVE, "--apply")
        assert "migrate.sqlite cannot be used: " in error
        assert "make room or correct the permissions and run the same again" in error
        resized(disk, 90)
        assert 0 == shop.run(*MOVE, "--apply", "--no-verify").code
        shop.check(objects, secrets)
        nothing_is_left_to_do(shop)


def test_files_that_may_not_be_large_are_named_and_move_when_they_may(shop: Shop) -> None:
    objects, secrets = blobs(6, 60), hidden(5)
    shop.fill(objects, secrets)
    limit = f"import os, resource, sys; {LIMIT}; os.execv(sys.argv[1], sys.argv[1:])"
    limited = shop.run(*MOVE, "--apply", "--no-verify", "--json", wrapper=(sys.executable, "-c", limit))
    assert 1 == limited.code
    assert {f"large/{number}": "failed" for number in range(3)} == limited.named
    assert "QuotaExceeded: blob.put" in limited.out
    assert 0 == shop.run(*MOVE, "--apply", "--no-verify").code
    shop.check(objects, secrets)


LIMIT = "resource.setrlimit(resource.RLIMIT_FSIZE, (1000_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))"


# the journal


def damage(data: bytes) -> Mapping[str, bytes]:
    return {
        "another file": b"this is no database" * 1000,
        "truncated": data[: len(data) // 2],
        "a page of noise": data[:4096] + random.Random(0).randbytes(4096) + data[8192:],  # noqa: S311
        "another version": data[:60] + (7).to_bytes(4) + data[64:],
        "another program's": data[:68] + b"GPKG" + data[72:],
    }


def test_a_journal_that_cannot_be_used_stays_as_it_is_and_without_it_all_is_found_again(shop: Shop) -> None:
    objects, secrets = blobs(7, 60, large=1), hidden(4)
    shop.fill(objects, secrets)
    assert 0 == shop.run(*MOVE, "--apply", "--no-verify").code
    journal = shop.folder / ".shiftable/migrate.sqlite"
    said = {}
    for how, data in damage(journal.read_bytes()).items():
        journal.write_bytes(data)
        said[how] = shop.fails(*MOVE, "--apply")
        assert data == journal.read_bytes()
    assert ["is damaged and was left as it is" in error for error in said.values()] == [True] * 3 + [False] * 2
    assert "has version 7, this shiftable knows 2" in said["another version"]
    assert "is another program's database" in said["another program's"]

    for lost in (journal.unlink, lambda: journal.write_bytes(b"")):
        lost()
        nothing_is_left_to_do(shop)
        shop.check(objects, secrets)


def test_two_moves_at_once_are_refused_until_the_first_one_ends(shop: Shop) -> None:
    objects, secrets = blobs(8, 60, large=1), hidden(4)
    shop.fill(objects, secrets)
    held = shop.double.inject("latency", match=lambda call: call.path.endswith("/large/0"), seconds=600)
    with shop.start(*MOVE, "--apply") as first:
        while not held.hits and first.poll() is None:
            time.sleep(0.01)
        error = shop.fails(*MOVE, "--apply")
        first.kill()
        first.communicate()
    assert (
        f"another move is using the journal {shop.folder / '.shiftable/migrate.sqlite'} (process {first.pid})" in error
    )
    assert 0 == shop.run(*MOVE, "--apply", "--no-verify").code
    shop.check(objects, secrets)


# a source that lives on


def meanwhile(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, when: Callable[[Request], bool], do: Callable[[], Any]
) -> None:
    """Do something at the source when the double has heard a request and not yet executed it, once."""
    real, todo = shop.double.answer, [do]

    def answer(request: Request, environ: Any) -> Any:
        if todo and when(request):
            todo.pop()()
        return real(request, environ)

    monkeypatch.setattr(shop.double, "answer", answer)


def reads(key: str, *, part: bool = False) -> Callable[[Request], bool]:
    def match(request: Request) -> bool:
        read = request.method == "GET" and not request.query and request.path == f"/{BUCKET}/{key}"
        return read and part == request.headers.get("Range", "").startswith("bytes=")

    return match


def test_an_object_that_changes_before_or_while_it_is_read_arrives_in_its_newest_version(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects, secrets = blobs(9, 60, large=2), hidden(2)
    shop.fill(objects, secrets)
    newer = Blob(data=random.Random(1).randbytes(2 * PART + 5), metadata={"new": "yes"})  # noqa: S311
    key = "large/1"
    shop.double.inject("truncate", match=lambda call: call.path == f"/{BUCKET}/{key}" and call.method == "GET")
    meanwhile(shop, monkeypatch, reads(key, part=True), lambda: shop.put(key, newer))
    meanwhile(shop, monkeypatch, reads("a0"), lambda: shop.put("a0", newer))

    answer = shop.run(*MOVE, "--apply", "--json")

    assert 0 == answer.code, answer.err
    assert {key: "changed", "a0": "changed"} == answer.named
    shop.check(objects | {key: newer, "a0": newer}, secrets)
    nothing_is_left_to_do(shop)


def test_an_object_that_vanishes_before_it_is_read_is_named_and_comes_when_it_is_back(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects, secrets = blobs(10, 60, large=0), hidden(2)
    shop.fill(objects, secrets)
    meanwhile(shop, monkeypatch, reads("a0"), lambda: shop.s3.delete_object(Bucket=BUCKET, Key="a0"))

    answer = shop.run(*MOVE, "--apply", "--json")

    assert 0 == answer.code, answer.err
    assert {"a0": "vanished"} == answer.named
    back = Blob(data=b"back")
    shop.put("a0", back)
    assert 0 == shop.run(*MOVE, "--apply", "--no-verify").code
    shop.check(objects | {"a0": back}, secrets)


def test_an_object_that_appears_behind_the_listing_is_named_and_comes_with_the_next_run(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects, secrets = blobs(11, 60, large=0), hidden(2)
    shop.fill(objects, secrets)
    late = Blob(data=b"late")
    meanwhile(shop, monkeypatch, reads("a0"), lambda: shop.put("zz late", late))

    first = shop.run(*MOVE, "--apply", "--json")
    second = shop.run(*MOVE, "--apply", "--json")

    assert (1, 0) == (first.code, second.code)
    assert {} == first.named
    compared = first.results[1]["resources"][0]["named"]
    assert [("zz late", "missing")] == [(each["key"], each["trouble"]) for each in compared]
    assert 1 == second.results[0]["changed"]
    shop.check(objects | {"zz late": late}, secrets)


def test_a_secret_that_is_rotated_or_deleted_while_it_is_read_is_named(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects, secrets = blobs(12, 25, large=0), hidden(4)
    shop.fill(objects, secrets)
    rotated, gone, *_ = secrets
    value = f"{CANARY}-rotated"

    def value_of(name: str) -> Callable[[Request], bool]:
        asked = f'"shop/{name}"'.encode()
        return lambda request: (
            request.headers.get("X-Amz-Target", "").endswith(".GetSecretValue") and (asked in request.body)
        )

    change = {"SecretId": f"shop/{rotated}", "SecretString": value}
    meanwhile(shop, monkeypatch, value_of(rotated), lambda: shop.manager.put_secret_value(**change))
    meanwhile(shop, monkeypatch, value_of(gone), lambda: shop.manager.delete_secret(SecretId=f"shop/{gone}"))

    answer = shop.run(*MOVE, "--apply", "--json")

    assert 0 == answer.code, answer.err
    assert {rotated: "changed", gone: "vanished"} == answer.named
    newer = attrs.evolve(secrets[rotated], current=value, previous=secrets[rotated].current)
    shop.check(objects, {name: secrets[name] for name in secrets if name != gone} | {rotated: newer})
    nothing_is_left_to_do(shop)


# what files cannot hold

IMPOSSIBLE = [
    "a//b",
    "../x",
    "x/../y",
    "./z",
    "/first",
    "last/",
    "a/b/c",
    "t" * 256,
    "nest/.shiftable",
    ".shiftable/locks/00",
]
UNSPEAKABLE = ["a!b", "a//b", "x.yaml/y", "s" * 201, "a/../b"]


def test_what_files_cannot_hold_is_refused_by_the_plan_as_by_the_move_and_all_else_moves(shop: Shop) -> None:
    objects, secrets = blobs(13, 60, large=1), hidden(4)
    shop.fill(
        objects | {key: Blob(data=b"refused") for key in IMPOSSIBLE},
        secrets | {name: Hidden(current=CANARY) for name in (*UNSPEAKABLE, "rotating")},
    )
    pending = {"SecretId": "shop/rotating", "SecretString": "next", "VersionStages": ["AWSPENDING"]}
    shop.manager.put_secret_value(**pending)
    before = shop.stored()

    plan = shop.run(*MOVE, "--json")
    answer = shop.run(*MOVE, "--apply", "--json")

    assert (1, 1) == (plan.code, answer.code)
    assert dict.fromkeys([*IMPOSSIBLE, *UNSPEAKABLE, "rotating"], "refused") == answer.named
    reasons = [
        [(each["resource"], each["key"], each["reason"]) for found in result["resources"] for each in found["named"]]
        for result in (plan.results[0], answer.results[0])
    ]
    assert sorted(reasons[0]) == sorted(reasons[1])
    shop.check(objects, secrets)
    assert before == shop.stored()


def test_a_key_that_no_client_can_read_is_refused_by_the_plan_as_by_the_move(shop: Shop) -> None:
    shop.configure(FILE.replace("versioning = true\n", ""))  # moto cannot list versions of such a key
    shop.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": shop.double.region})
    for key in ("control \x01", "good"):
        shop.put(key, Blob(data=b"1"))
    answers = [shop.run(*MOVE, *more, "--json") for more in ((), ("--apply",))]
    assert [(1, {"control \x01": "refused"})] * 2 == [(answer.code, answer.named) for answer in answers]
    assert {"good": b"1"} == shop.files()


# providers


@pytest.mark.parametrize(
    ("file", "arguments", "said"),
    [
        (FILE.replace('"aws"', '"awz"'), (), "unknown provider 'awz'; did you mean aws?"),
        (FILE, ("--to", "celler"), "has no [providers.celler]; did you mean cellar?"),
        (FILE, ("--from", "frankfort"), "has no [providers.frankfort]; did you mean frankfurt?"),
    ],
)
def test_an_unknown_provider_is_one_error_with_the_near_one(
    shop: Shop, file: str, arguments: tuple[str, ...], said: str
) -> None:
    shop.configure(file)
    assert said in shop.fails(*MOVE, *arguments, "--apply", code=2)
    assert not shop.root.exists()


WITHOUT_AWS = """
import importlib.metadata as metadata

found = metadata.entry_points


def entry_points(**wanted):
    points = found(**wanted)
    if wanted.get("group") != "shiftable.providers":
        return points
    return [point for point in points if point.name != "aws"]


metadata.entry_points = entry_points
"""


def test_a_provider_that_is_not_installed_is_one_error_that_says_how_to_install_it(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "without").mkdir()
    (tmp_path / "without/sitecustomize.py").write_text(WITHOUT_AWS)
    shop.environ |= {"PYTHONPATH": str(tmp_path / "without")}
    error = shop.fails(*MOVE, "--apply", code=2)
    assert "the provider 'aws' is not installed; run: pip install \"shiftable-aws\"" in error
    assert not shop.root.exists()


# secrets stay secret


def test_no_value_is_told_however_much_is_asked_for(shop: Shop) -> None:
    """Search all that was said and written for values: in clear, in Base64, in hex.

    botocore's own logger shows values at DEBUG; ``-vv`` does not touch it.
    """
    objects, secrets = blobs(14, 25, large=0), hidden(12)
    shop.fill(objects, secrets)
    injections = disturb(shop, 14, 0.05, ("ThrottlingException", "truncate", "drop_after"))
    answers = [
        shop.run("-vv", *MOVE, "--save-plan", "plan.json"),
        shop.run("-vv", *MOVE, "--apply", "--plan", "plan.json", "--json"),
        shop.run("-vv", *MOVE, "--verify"),
    ]
    shop.manager.put_secret_value(SecretId="shop/group-0/key.0", SecretString=f"{CANARY}-other")
    _rewrite(shop.vault / "group-0/key.0.yaml")
    answers += [shop.run("-vv", *MOVE), shop.run("-vv", *MOVE, "--apply"), shop.run("-vv", *MOVE, "--apply", "--json")]
    for injection in injections:
        injection.times = 0
    shop.environ |= {"AWS_SECRET_ACCESS_KEY": "wrong"}
    answers.append(shop.run("-vv", *MOVE, "--apply"))

    assert [0, 0, 0, 1, 1, 1, 1] == [answer.code for answer in answers]
    assert any("DEBUG shiftable" in answer.err for answer in answers)
    said = [text.encode() for answer in answers for text in (answer.out, answer.err)]
    written = [path.read_bytes() for path in _files(shop.folder)]
    canaries = [CANARY.encode(), CANARY.encode().hex().encode(), *_in_base64(CANARY)]
    canaries.append(shop.double.environ["AWS_SECRET_ACCESS_KEY"].encode())
    assert [] == [canary for canary in canaries for text in [*said, *written] if canary in text]


def _in_base64(text: str) -> list[bytes]:
    """Return what Base64 makes of a text at each of three offsets, less the ends that depend on what is around it."""
    return [base64.b64encode(bytes(offset) + text.encode())[4:16] for offset in range(3)]


def _rewrite(path: Path) -> None:
    """Change a file as a merge gone wrong would."""
    path.write_text(path.read_text().replace("name: shop", "name: shpo"))
