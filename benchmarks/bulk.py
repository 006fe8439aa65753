"""Many objects, and large ones: shiftable's bulk lane beside rclone, s5cmd, boto3 and obstore in the same run.

A responder in a process of its own plays S3 and answers from memory; ``--latency`` lets each answer wait. Every tool is
a process of its own and measured from its start to its end, imports included. Each round runs all tools of a work in
turns, in another order each time; the table shows medians of the seconds and of the ratios to rclone in that round.
Programs in Python tell besides what the work took without the start of the process: `inside`.

    python benchmarks/bulk.py [--objects 5000] [--rounds 3] [--latency 0.02 --workers 256] [work …]

Works: upload, download, copy (S3 to S3), migrate (the same through ``shiftable migrate``, checked on the way and
journalled), list (100,000 keys), large (uploads of 4 files of 512 MiB). rclone and s5cmd take part where they are on
the PATH, obstore where it is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import attrs
from _responder import Responder, content

BUCKET, OTHER = "shop-assets", "shop-copies"
MIB = 1024 * 1024
MANIFEST = f"""
[project]
name = "bench"
[environments.production]
provider = "one"
[providers.one]
type = "aws"
endpoint = "ONE"
[providers.two]
type = "aws"
endpoint = "TWO"
[blob.assets]
bucket = "{BUCKET}"
"""


@attrs.frozen(kw_only=True)
class Job:
    """What the tools are to do."""

    folder: Path
    url: str
    other: str
    workers: int
    objects: int


@attrs.frozen
class Run:
    """What one tool took."""

    seconds: float
    peak: float
    """MiB."""
    cpu: float
    inside: float | None
    """Seconds without the start, where the tool tells them."""


# the tools: each is a program and its arguments

OURS = """
import sys, time
from pathlib import Path
from shiftable_aws import AwsProvider, AwsSettings
from shiftable.blob import BlobStore, sync
from shiftable.blob._bulk import copy_many
def bucket(url, name):
    return BlobStore(AwsProvider(AwsSettings(endpoint=url)).blob()).bucket(name)
def done(steps):
    for step in steps:
        if getattr(step, "error", None):
            raise step.error
work, folder, url, other, workers = sys.argv[1:]
workers, folder = int(workers), Path(folder)
names = {"upload": "shop-uploads", "list": "shop-many", "large": "shop-large"}
here = bucket(url, names.get(work, "shop-assets"))
there = bucket(other, "shop-copies") if work == "copy" else here
here.lane(), there.lane()
began = time.perf_counter()
if work == "upload":
    done(sync(folder, here, workers=workers))
elif work == "download":
    done(sync(here, folder, workers=workers))
elif work == "copy":
    keys = (item.key for item in here.lane().list())
    done(copy_many(here, there, keys, concurrency=workers))
elif work == "list":
    count = sum(1 for item in here.lane().list() if item.md5)
    assert count == 100_000, count
elif work == "large":
    done(sync(folder, here, workers=4))
print("inside", time.perf_counter() - began)
"""
BOTO3 = """
import sys, time, boto3
from botocore.config import Config
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
work, folder, url, other, workers = sys.argv[1:]
workers, folder = int(workers), Path(folder)
def client(url):
    return boto3.client("s3", endpoint_url=url, config=Config(max_pool_connections=workers))
s3 = client(url)
began = time.perf_counter()
def keys(name):
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=name):
        for entry in page["Contents"]:
            yield entry["Key"]
if work == "list":
    count = 0
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket="shop-many"):
        count += sum(1 for entry in page["Contents"] if entry["ETag"])
    assert count == 100_000
elif work == "large":
    for path in sorted(folder.iterdir()):
        s3.upload_file(str(path), "shop-large", path.name)
else:
    there = client(other)
    def upload(path):
        s3.put_object(Bucket="shop-uploads", Key=str(path.relative_to(folder)), Body=path.read_bytes())
    def download(key):
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(s3.get_object(Bucket="shop-assets", Key=key)["Body"].read())
    def copy(key):
        found = s3.get_object(Bucket="shop-assets", Key=key)
        there.put_object(Bucket="shop-copies", Key=key, Body=found["Body"].read(), Metadata=found["Metadata"])
    what = {"upload": upload, "download": download, "copy": copy, "migrate": copy}[work]
    items = [path for path in folder.rglob("*") if path.is_file()] if work == "upload" else keys("shop-assets")
    with ThreadPoolExecutor(min(workers, 64)) as pool:
        for _ in pool.map(what, items):
            pass
print("inside", time.perf_counter() - began)
"""
OBSTORE = """
import os, sys, time, obstore
from concurrent.futures import ThreadPoolExecutor
from obstore.store import S3Store
from pathlib import Path
work, folder, url, other, workers = sys.argv[1:]
workers, folder = int(workers), Path(folder)
def store(url, name):
    return S3Store(name, endpoint=url, region="eu-central-1", client_options={"allow_http": True})
began = time.perf_counter()
if work == "list":
    found = obstore.list(store(url, "shop-many"), chunk_size=1000)
    assert sum(1 for page in found for entry in page if entry["e_tag"]) == 100_000
elif work == "large":
    large = store(url, "shop-large")
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda path: obstore.put(large, path.name, path), sorted(folder.iterdir())):
            pass
else:
    source, target = store(url, "shop-assets"), store(other, "shop-copies")
    uploads = store(url, "shop-uploads")
    def upload(path):
        obstore.put(uploads, str(path.relative_to(folder)), path.read_bytes())
    def download(key):
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(obstore.get(source, key).bytes())
    def copy(key):
        obstore.put(target, key, obstore.get(source, key).bytes())
    what = {"upload": upload, "download": download, "copy": copy, "migrate": copy}[work]
    if work == "upload":
        items = [path for path in folder.rglob("*") if path.is_file()]
    else:
        items = (entry["path"] for page in obstore.list(source, chunk_size=1000) for entry in page)
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(what, items):
            pass
print("inside", time.perf_counter() - began)
"""

Command = Callable[[str, Job], list[str] | None]


def _python(program: str) -> Command:
    def command(work: str, job: Job) -> list[str]:
        return [sys.executable, "-c", program, work, str(job.folder), job.url, job.other, str(job.workers)]

    return command


def _shiftable(work: str, job: Job) -> list[str] | None:
    if work != "migrate":
        return _python(OURS)(work, job)
    program = str(Path(sys.executable).parent / "shiftable")
    return [program, "migrate", "--from", "one", "--to", "two", "--apply", "--no-verify"]


def _rclone(work: str, job: Job) -> list[str] | None:
    program = shutil.which("rclone")
    if program is None:
        return None

    def remote(url: str, bucket: str) -> str:
        return f':s3,provider=Other,env_auth=true,force_path_style=true,endpoint="{url}":{bucket}'

    base = [program, "--config", "/dev/null", "--transfers", str(job.workers), "--checkers", str(job.workers)]
    ends = {
        "upload": ["copy", str(job.folder), remote(job.url, "shop-uploads")],
        "download": ["copy", remote(job.url, BUCKET), str(job.folder)],
        "copy": ["copy", remote(job.url, BUCKET), remote(job.other, OTHER)],
        "migrate": ["copy", remote(job.url, BUCKET), remote(job.other, OTHER)],
        "list": ["lsf", "-R", "--fast-list", "--hash", "md5", "--format", "ph", remote(job.url, "shop-many")],
        "large": ["copy", str(job.folder), remote(job.url, "shop-large")],
    }
    return base + ends[work]


def _s5cmd(work: str, job: Job) -> list[str] | None:
    program = shutil.which("s5cmd")
    if program is None or work in {"copy", "migrate"}:  # it knows one endpoint
        return None
    base = [program, "--endpoint-url", job.url, "--numworkers", str(job.workers), "--log", "error"]
    ends = {
        "upload": ["cp", f"{job.folder}/", "s3://shop-uploads/"],
        "download": ["cp", f"s3://{BUCKET}/*", f"{job.folder}/"],
        "list": ["ls", "-e", "s3://shop-many/*"],
        "large": ["cp", f"{job.folder}/", "s3://shop-large/"],
    }
    return base + ends[work]


def _obstore(work: str, job: Job) -> list[str] | None:
    return None if importlib.util.find_spec("obstore") is None else _python(OBSTORE)(work, job)


TOOLS: dict[str, Command] = {
    "rclone": _rclone,
    "shiftable": _shiftable,
    "s5cmd": _s5cmd,
    "boto3": _python(BOTO3),
    "obstore": _obstore,
}


# running them


def _timed(command: list[str], folder: Path, environ: dict[str, str]) -> Run:
    """Run a tool to its end; the kernel tells what it took."""
    began = time.perf_counter()
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, cwd=folder, env=environ, stdout=said, stderr=said) as process,
    ):
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read().decode(errors="replace")
        if process.returncode:
            raise SystemExit(f"{command[:3]}: {text[-2000:]}")
    told = [float(line.removeprefix("inside ")) for line in text.splitlines() if line.startswith("inside ")]
    return Run(seconds, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime, told[0] if told else None)


def _filled(folder: Path, work: str, objects: int) -> None:
    """Write what is to be uploaded."""
    if work == "large":
        for number in range(4):
            with (folder / f"large-{number}").open("wb") as file:
                for block in range(512):
                    file.write(content(MIB, block % 7))
    elif work == "upload":
        for number in range(objects):
            path = folder / f"folder-{number % 10}" / f"object-{number:07d}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content(4096, number % 61))


def _arrived(work: str, folder: Path, objects: int) -> None:
    """Fail if a tool was fast because it did not do its work."""
    if work == "download":
        found = [path for path in folder.rglob("object-*") if path.stat().st_size == 4096]
        if len(found) != objects:
            raise SystemExit(f"{len(found)} of {objects} files arrived")


def _round(work: str, tool: str, arguments: argparse.Namespace) -> Run | None:
    """Run one tool once, with servers and folders of its own."""
    count = arguments.objects
    source = {BUCKET: (count, 4096)} if work in {"download", "copy", "migrate"} else {}
    if work == "list":
        source = {"shop-many": (100_000, 4096)}
    with (
        tempfile.TemporaryDirectory(dir=arguments.folder) as name,
        Responder(latency=arguments.latency, fill=source) as url,
        Responder(latency=arguments.latency) as other,
    ):
        folder = Path(name) / "files"
        folder.mkdir()
        _filled(folder, work, count)
        (Path(name) / "shiftable.toml").write_text(MANIFEST.replace("ONE", url).replace("TWO", other))
        job = Job(folder=folder, url=url, other=other, workers=arguments.workers, objects=count)
        command = TOOLS[tool](work, job)
        if command is None:
            return None
        usual = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environ = usual | {
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "HOME": name,
        }
        run = _timed(command, Path(name), environ)
        _arrived(work, folder, count)
        return run


def _compare(work: str, arguments: argparse.Namespace) -> None:
    found: dict[str, list[Run]] = {}
    for _ in range(arguments.rounds):
        for tool in random.sample(arguments.tools, len(arguments.tools)):
            run = _round(work, tool, arguments)
            if run is not None:
                found.setdefault(tool, []).append(run)
    wanted = "boto3" if work == "list" else "rclone"
    reference = next(tool for tool in (wanted, "boto3", *found) if tool in found)
    print(f"\n{work}: median of {arguments.rounds}; times = {reference}'s seconds / the tool's, in the same round")
    print(f"{'':12}{'seconds':>9}{'inside':>8}{'CPU':>8}{'MiB':>7}{'times':>8}")
    for tool in [tool for tool in TOOLS if tool in found]:
        runs = found[tool]
        times = statistics.median(base.seconds / run.seconds for base, run in zip(found[reference], runs, strict=True))
        seconds, cpu = (statistics.median(getattr(run, each) for run in runs) for each in ("seconds", "cpu"))
        told = [run.inside for run in runs if run.inside is not None]
        inside = f"{statistics.median(told):8.2f}" if told else " " * 8
        print(f"{tool:12}{seconds:9.2f}{inside}{cpu:8.2f}{max(run.peak for run in runs):7.0f}{times:8.2f}", flush=True)


def main() -> None:
    """Compare in every work that is named."""
    works = ["upload", "download", "copy", "migrate", "list", "large"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("works", nargs="*", choices=[*works, []], default=works[:-1])
    parser.add_argument("--objects", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", type=float, default=0.0, help="of each answer, in seconds")
    parser.add_argument("--workers", type=int, default=32, help="requests at once")
    parser.add_argument("--tools", nargs="*", choices=list(TOOLS), default=list(TOOLS))
    parser.add_argument("--folder", help="where files are written; a RAM disk takes the disk out of the numbers")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')};", end=" ")
    print(
        f"{arguments.objects:,} objects of 4 KiB, latency {arguments.latency * 1000:g} ms, {arguments.workers} at once"
    )
    for work in arguments.works:
        _compare(work, arguments)


if __name__ == "__main__":
    main()
