"""``shiftable policy``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("shiftable_aws", reason="needs shiftable-aws")

FILE = """
[project]
name = "shop"
[environments.production]
provider = "frankfurt"
[environments.production.overrides]
"secrets.local" = "here"
[providers.frankfurt]
type = "aws"
region = "eu-central-1"
access_key = { env = "NOBODY_HAS_THIS" }
secret_key = { env = "NOBODY_HAS_THIS_EITHER" }
[providers.here]
type = "memory"
[blob.assets]
bucket = "shop-assets"
[blob.logs]
bucket = "shop-logs"
[secrets.local]
prefix = "shop"
"""
LISTS = {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": ["arn:aws:s3:::shop-assets"]}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "shiftable.toml"
    path.write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return path


@pytest.mark.usefixtures("shop")
def test_it_prints_what_iam_takes(shiftable) -> None:
    found = json.loads(shiftable("policy", "blob.assets", "--for", "read").stdout)
    assert ("2012-10-17", LISTS) == (found["Version"], found["Statement"][0])
    usual, written = (shiftable("policy", "blob", *more).stdout for more in ((), ("--for", "write")))
    assert usual == written
    assert "arn:aws:s3:::shop-logs/*" in usual
    assert "s3:PutObject" in usual
    assert "s3:CreateBucket" not in usual
    assert "s3:CreateBucket" in shiftable("policy", "blob", "--for", "write", "--for", "apply").stdout


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        ((), 2, "resources at frankfurt, here; name resources of one of them"),
        (("secrets.local",), 1, "for memory no policy is written"),
        (("--provider", "nowhere"), 2, "nowhere"),
        (("blobs",), 2, "not declared: blobs; there is: blob.assets"),
        (("--for", "everything"), 2, "'everything' is not one of 'read', 'write', 'plan', 'apply'"),
    ],
)
def test_what_cannot_be_written_is_said(shiftable, arguments: tuple[str, ...], status: int, expected: str) -> None:
    answer = shiftable("policy", *arguments)
    assert (status, "") == (answer.returncode, answer.stdout)
    assert expected in answer.stderr


@pytest.mark.usefixtures("shop")
def test_another_provider_is_where_the_resources_will_be(shiftable) -> None:
    found = json.loads(shiftable("policy", "--provider", "frankfurt").stdout)
    assert "arn:aws:secretsmanager:eu-central-1:*:secret:shop/*" in [each["Resource"][0] for each in found["Statement"]]


def test_neither_sdk_nor_credentials_are_needed(shop: Path) -> None:
    code = (
        "import sys; from shiftable.app import load\n"
        f"app = load({str(shop)!r})\n"
        "assert app.policy('apply', declared=app.declared('blob'))\n"
        "assert not {'boto3', 'botocore'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
