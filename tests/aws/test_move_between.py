"""From one S3 to another: both sides give way, so one thread has all small objects under way, in fibers.

The source is the double of this process, the target one in a process of its own. What arrives is read with boto3.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import boto3
import pytest

from shiftable import fibers
from shiftable.testing.harness import Call, Kind
from shiftable_aws.double import AwsDouble

pytestmark = pytest.mark.skipif(
    not fibers.AVAILABLE, reason="fibers need greenlet and Linux; threads are tested elsewhere"
)

BUCKET = "shop-assets"
COMMAND = str(Path(sys.executable).parent / "shiftable")
MOVE = ("migrate", "--from", "frankfurt", "--to", "dublin", "--apply", "--json")
FILE = """
[project]
name = "shop"
[environments.production]
provider = "frankfurt"
[providers.frankfurt]
type = "aws"
[providers.dublin]
type = "aws"
endpoint = "ENDPOINT"
region = "eu-central-1"
access_key = { env = "DUBLIN_KEY" }
secret_key = { env = "DUBLIN_SECRET" }
[blob.assets]
bucket = "shop-assets"
"""
ELSEWHERE = """
import json, random, sys
from shiftable_aws.double import AwsDouble
chance, shares = random.Random(int(sys.argv[1])), {}
with AwsDouble() as double:
    print(json.dumps({"url": double.url, "environ": dict(double.environ)}), flush=True)
    for line in sys.stdin:
        kind, share = line.split()
        if kind not in shares:
            double.inject(kind, match=lambda _, kind=kind: chance.random() < shares[kind], times=None)
        shares[kind] = float(share)
        print("ok", flush=True)
"""


@attrs.frozen
class Stored:
    """An object as it should be."""

    data: bytes = attrs.field(repr=False)
    content_type: str
    metadata: dict[str, str]
    tags: dict[str, str]


def made(count: int) -> dict[str, Stored]:
    chance = random.Random(3)  # noqa: S311  makes up contents
    sizes = [0, 1, 700, 4096] * count
    sizes[:5] = [300_000, 2_000_000, 9_000_000, 17_000_000, 255_999]
    return {
        f"folder {number % 7}/a+b %2F ü {number}": Stored(
            chance.randbytes(sizes[number]),
            "text/plain" if number % 2 else "image/png",
            {"number": str(number)} if number % 3 else {},
            {"team": "core"} if number % 5 == 0 else {},
        )
        for number in range(count)
    }


class Pair:
    """Two S3s and the command."""

    def __init__(self, here: AwsDouble, there: subprocess.Popen[str], folder: Path) -> None:
        assert there.stdout is not None
        told = json.loads(there.stdout.readline())
        self.here, self._there, self.folder = here, there, folder
        self.environ = os.environ | here.environ | {"HOME": str(folder)}
        self.environ |= {
            "DUBLIN_KEY": told["environ"]["AWS_ACCESS_KEY_ID"],
            "DUBLIN_SECRET": told["environ"]["AWS_SECRET_ACCESS_KEY"],
        }
        (folder / "shiftable.toml").write_text(FILE.replace("ENDPOINT", told["url"]))
        self.source, self.target = client(here.url, here.environ), client(told["url"], told["environ"])

    def fill(self, objects: dict[str, Stored]) -> None:
        self.source.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": self.here.region})
        for key, found in objects.items():
            tags = "&".join(f"{name}={value}" for name, value in found.tags.items())
            about = {"ContentType": found.content_type, "Metadata": found.metadata, "Tagging": tags}
            self.source.put_object(Bucket=BUCKET, Key=key, Body=found.data, **about)

    def disturb_target(self, kind: str, share: float) -> None:
        assert self._there.stdin is not None
        assert self._there.stdout is not None
        self._there.stdin.write(f"{kind} {share}\n")
        self._there.stdin.flush()
        assert self._there.stdout.readline() == "ok\n"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [COMMAND, *arguments], stdout=-1, stderr=-1, text=True, env=self.environ, cwd=self.folder
        )

    def run(self, *arguments: str) -> list[dict[str, Any]]:
        """Run the command to its good end; return its reports."""
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=300)
        assert (0, "") == (process.returncode, "\n".join(line for line in err.splitlines() if "Traceback" in line)), err
        return [event["report"] for event in map(json.loads, out.splitlines()) if event["event"] == "report"]

    def arrived(self) -> dict[str, Stored]:
        found = {}
        for page in self.target.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
            for key in (entry["Key"] for entry in page.get("Contents", ())):
                answer = self.target.get_object(Bucket=BUCKET, Key=key)
                tags = self.target.get_object_tagging(Bucket=BUCKET, Key=key)["TagSet"]
                found[key] = Stored(
                    answer["Body"].read(),
                    answer["ContentType"],
                    answer["Metadata"],
                    {tag["Key"]: tag["Value"] for tag in tags},
                )
        return found


def client(url: str, environ: Any) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="eu-central-1",
        aws_access_key_id=environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environ["AWS_SECRET_ACCESS_KEY"],
    )


@pytest.fixture
def pair(aws_double: AwsDouble, tmp_path: Path) -> Iterator[Pair]:
    command = [sys.executable, "-c", ELSEWHERE, "5"]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as there:
        yield Pair(aws_double, there, tmp_path)
        assert there.stdin is not None
        there.stdin.close()


def test_all_that_is_there_arrives_and_a_second_run_has_nothing_to_do(pair: Pair) -> None:
    objects = made(240)
    pair.fill(objects)

    moved, compared = pair.run(*MOVE)
    assert (True, True) == (moved["complete"], compared["complete"])
    assert objects == pair.arrived()

    again = pair.run(*MOVE, "--no-verify")
    assert [(0, True)] == [(report["changed"], report["complete"]) for report in again]


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
def test_all_arrives_through_faults_of_both_sides(pair: Pair, kind: Kind) -> None:
    objects = made(90)
    pair.fill(objects)
    chance = random.Random(9)  # noqa: S311  chooses which calls fail
    injected = pair.here.inject(kind, match=lambda _: chance.random() < 0.04, times=None)
    pair.disturb_target(kind, 0.04)

    pair.run(*MOVE)

    injected.times = 0
    pair.disturb_target(kind, 0.0)
    assert injected.hits
    assert objects == pair.arrived()


def test_one_answer_that_takes_long_holds_nobody_up(pair: Pair) -> None:
    objects = made(60)
    pair.fill(objects)
    slow = pair.here.inject("latency", seconds=2, match=lambda call: call.path.endswith(" 7"), times=1)

    (moved,) = pair.run(*MOVE, "--no-verify")

    read = [call.path for call in pair.here.calls if call.operation == "GetObject" or call.method == "GET"]
    last = next(number for number, path in enumerate(read) if path.endswith(" 7"))
    assert (1, True) == (slow.hits, moved["complete"])
    assert last > len(objects) // 2


@pytest.mark.parametrize(("end", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_move_that_is_ended_goes_on_where_it_was(pair: Pair, end: signal.Signals, code: int) -> None:
    objects = made(160)
    pair.fill(objects)
    for wanted in (20, 60) if end is signal.SIGKILL else (20,):
        process = pair.start(*MOVE)
        note = pair.here.inject("latency", match=ends(process, end, wanted), times=None)
        with process:
            _, err = process.communicate(timeout=120)
        note.times = 0
        assert (code, False) == (process.returncode, "Traceback" in err), err

    pair.run(*MOVE)

    assert objects == pair.arrived()


def ends(process: subprocess.Popen[str], end: signal.Signals, wanted: int) -> Callable[[Call], bool]:
    """Send a signal with the call of that number, and let all pass."""
    seen = 0

    def count(_: Call) -> bool:
        nonlocal seen
        seen += 1
        if seen == wanted:
            process.send_signal(end)
        return False

    return count
