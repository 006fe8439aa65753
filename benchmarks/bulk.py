"""Many objects, and large ones: shiftable's bulk lane beside rclone, s5cmd, the SDK and obstore in the same run.

A responder in a process of its own plays S3, Cloud Storage or Azure (``--service``) and answers from memory;
``--latency`` lets each answer wait. Every tool is a process of its own and measured from its start to its end, imports
included. Each round runs all tools of a work in turns, in another order each time; the table shows medians of the
seconds and of the ratios to rclone in that round. Programs in Python tell besides what the work took without the start
of the process: `inside`.

    python benchmarks/bulk.py [--service s3|gcs|azure] [--objects 5000] [--latency 0.02 --workers 256] [work …]

Works: upload, download, copy (to another endpoint), migrate (the same through ``shiftable migrate``, checked on the
way and journalled), list (100,000 keys), large (uploads of 4 files of 512 MiB, to S3). rclone and s5cmd take part where
they are on the PATH, obstore where it is installed; the last two with S3 alone.
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
from _responder import Responder, Service, content

BUCKET, OTHER = "shop-assets", "shop-copies"
MIB = 1024 * 1024
MANIFEST = f"""
[project]
name = "bench"
[environments.production]
provider = "one"
[providers.one]
ONE
[providers.two]
TWO
[blob.assets]
bucket = "{BUCKET}"
"""
PROVIDERS = {
    "s3": 'type = "aws"\nendpoint = "{url}"',
    "gcs": 'type = "gcp"\nendpoint = "{url}"\nproject = "bench"',
    "azure": 'type = "azure"\nendpoint = "{url}/bench"\nstorage_account = "bench"\n'
    'account_key = {{ env = "AZURE_KEY" }}',
}
ENVIRON = {
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench",
    "AZURE_KEY": "YmVuY2g=",
}
REMOTES = {
    "s3": ':s3,provider=Other,env_auth=true,force_path_style=true,endpoint="{url}":{bucket}',
    "gcs": ':gcs,anonymous=true,no_check_bucket=true,endpoint="{url}/storage/v1/":{bucket}',
    "azure": ':azureblob,account=bench,key="YmVuY2g=",no_check_container=true,endpoint="{url}/bench":{bucket}',
}
"""How rclone is told of a service."""


@attrs.frozen
class Job:
    """What the tools are to do."""

    service: Service
    folder: Path
    url: str
    other: str
    workers: int


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

Command = Callable[[str, Job], list[str] | None]


def _python(program: str) -> Command:
    def command(work: str, job: Job) -> list[str]:
        where = [job.service, work, str(job.folder), job.url, job.other, str(job.workers)]
        return [sys.executable, str(Path(__file__).with_name(program)), *where]

    return command


def _shiftable(work: str, job: Job) -> list[str] | None:
    if work != "migrate":
        return _python("_bulk_ours.py")(work, job)
    program = str(Path(sys.executable).parent / "shiftable")
    return [program, "migrate", "--from", "one", "--to", "two", "--apply", "--no-verify"]


def _rclone(work: str, job: Job) -> list[str] | None:
    program = shutil.which("rclone")
    if program is None:
        return None

    def remote(url: str, bucket: str) -> str:
        return REMOTES[job.service].format(url=url, bucket=bucket)

    base = [program, "--config", "/dev/null", "--transfers", str(job.workers), "--checkers", str(job.workers)]
    base += ["--disable", "Copy"]  # of Azure it would ask the one endpoint to read from the other
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
    if program is None or job.service != "s3" or work in {"copy", "migrate"}:  # it knows one endpoint
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
    missing = job.service != "s3" or importlib.util.find_spec("obstore") is None
    return None if missing else _python("_bulk_obstore.py")(work, job)


TOOLS: dict[str, Command] = {
    "rclone": _rclone,
    "shiftable": _shiftable,
    "s5cmd": _s5cmd,
    "SDK": _python("_bulk_sdk.py"),
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
        Responder(arguments.service, latency=arguments.latency, fill=source) as url,
        Responder(arguments.service, latency=arguments.latency) as other,
    ):
        folder = Path(name) / "files"
        folder.mkdir()
        _filled(folder, work, count)
        job = Job(arguments.service, folder, url, other, arguments.workers)
        one, two = (PROVIDERS[job.service].format(url=each) for each in (url, other))
        (Path(name) / "shiftable.toml").write_text(MANIFEST.replace("ONE", one).replace("TWO", two))
        command = TOOLS[tool](work, job)
        if command is None:
            return None
        usual = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environ = usual | ENVIRON | {"HOME": name}
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
    wanted = "SDK" if work == "list" else "rclone"
    reference = next(tool for tool in (wanted, "SDK", *found) if tool in found)
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
    parser.add_argument("works", nargs="*", choices=[*works, []], help="else all but the last")
    parser.add_argument("--service", choices=list(REMOTES), default="s3")
    parser.add_argument("--objects", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", type=float, default=0.0, help="of each answer, in seconds")
    parser.add_argument("--workers", type=int, default=32, help="requests at once")
    parser.add_argument("--tools", nargs="*", choices=list(TOOLS), default=list(TOOLS))
    parser.add_argument("--folder", help="where files are written; a RAM disk takes the disk out of the numbers")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')};", end=" ")
    print(f"{arguments.service}, {arguments.objects:,} objects of 4 KiB,", end=" ")
    print(f"latency {arguments.latency * 1000:g} ms, {arguments.workers} at once")
    for work in arguments.works or works[:-1]:
        _compare(work, arguments)


if __name__ == "__main__":
    main()
