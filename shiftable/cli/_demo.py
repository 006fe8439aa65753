"""``demo``: an application moves from AWS to this machine, on a double of AWS, with nothing to sign up for."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from shiftable.app import load
from shiftable.blob import Bucket
from shiftable.cli._context import size_text
from shiftable.errors import ShiftableError
from shiftable.testing import doubles

__all__ = ["demo"]

FILE = """\
[project]
name = "shop"

[environments.production]
provider = "frankfurt"

[providers.frankfurt]
type = "aws"
region = "eu-central-1"
endpoint = "{endpoint}"
access_key = {{ env = "DEMO_ACCESS_KEY" }}
secret_key = {{ env = "DEMO_SECRET_KEY" }}

[providers.local]
type = "baremetal"
root = "local"
identity_file = "age.key"

[providers.cellar]
type = "baremetal"
root = "cellar"
identity_file = "age.key"

[blob.assets]
bucket = "shop-assets"

[secrets.app]
prefix = "shop"
"""

APPLICATION = '''\
"""A small shop: reads all its assets and signs the catalogue with its secrets. It does not know where it runs."""

import hashlib
import hmac

import shiftable

app = shiftable.load()
assets, secrets = app.blob("assets"), app.secrets("app")
catalogue, count, size = hashlib.sha256(), 0, 0
for item in assets.list():
    info = assets.stat(item.key)
    catalogue.update(f"{item.key}\\0{info.headers.content_type}\\0{sorted(info.metadata.items())}\\0".encode())
    with assets.stream(item.key) as content:
        for chunk in content:
            catalogue.update(chunk)
    count, size = count + 1, size + item.size
keys = sorted(info.name for info in secrets.list())
signing = b"".join(secrets.get(key).reveal_bytes() for key in keys)
print(count, size, len(keys), hmac.new(signing, catalogue.digest(), "sha256").hexdigest())
'''

ODD_NAMES = (
    "odd/with space and + and % and #.txt",
    "odd/quo\"te's & <angle>.txt",
    "odd/ünïcödé/naïve café.txt",
    "odd/日本語/ファイル.txt",
    "odd/emoji-😀-🚀.txt",
    "odd/back\\slash.txt",
    "odd/.hidden",
    "odd/percent%2Fencoded%20name",
    "odd/-leading-dash",
    "odd/trailing.dot.",
    "odd/" + "long-" * 48,
    "odd/combining-e\u0301.txt",
    "odd/composed-\u00e9.txt",
    "odd/empty",
)
ENOUGH = 320
LARGE = 16 * 1024 * 1024
SKIPPED = {".git", ".nox", ".venv", "venv", "__pycache__", "node_modules", ".shiftable"}


@click.command()
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), help="Work here and keep it.")
def demo(folder: Path | None) -> None:
    """Watch an application move from AWS to this machine.

    It needs the providers aws (with its extra [testing]) and baremetal, and neither an account nor a network.
    """
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        _Demo(folder.resolve()).run()
        return
    with tempfile.TemporaryDirectory(prefix="shiftable-demo-") as temporary:
        _Demo(Path(temporary).resolve()).run()


class _Demo:
    """The steps, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.began = time.monotonic()
        self.steps = 0

    def run(self) -> None:
        with doubles.load("aws")() as aws:
            config: Mapping[str, object] = aws.config
            os.environ["DEMO_ACCESS_KEY"] = "AKIADEMODEMODEMODEMO"
            os.environ["DEMO_SECRET_KEY"] = secrets.token_urlsafe(30)
            for setting, variable in (("access_key", "DEMO_ACCESS_KEY"), ("secret_key", "DEMO_SECRET_KEY")):
                given = config.get(setting)
                if given is not None:
                    os.environ[variable] = given.reveal()  # type: ignore[attr-defined]  # a Credential
            self._write("shiftable.toml", FILE.format(endpoint=config["endpoint"]))
            self._write("shop.py", APPLICATION)
            self._fill()
            before = self._application("the application runs on AWS")
            self._migrate()
            self._flip()
            after = self._application("the same application, unchanged, runs on this machine")
            self._compare(before, after)
            self._kill_and_resume()
        click.echo(
            f"\ndone in {time.monotonic() - self.began:.1f} s; AWS was never touched by the moves, and was never AWS"
        )

    # the steps

    def _fill(self) -> None:
        self._step("an application's files and secrets go to AWS (a double of it, on loopback)")
        with load(self.folder) as app:
            for declared in app.declared():
                for change in app.diff(declared):
                    app.service(declared).apply(change)
            count, size = _upload(app.blob("assets"))
            store = app.secrets("app")
            for key, value in (
                ("stripe/key", secrets.token_hex(16)),
                ("db/password", "pä$$ wörd\n2nd line"),
                ("tls/seed", secrets.token_bytes(64)),
            ):
                store.put(key, value)
            store.put("db/password", secrets.token_urlsafe(24))
        click.echo(f"   {count} objects, {size_text(size)}, and 3 secrets, one of them with a previous version")

    def _application(self, title: str) -> str:
        self._step(title)
        answer = subprocess.run(
            [sys.executable, "shop.py"], cwd=self.folder, capture_output=True, text=True, check=False
        )
        if answer.returncode:
            raise ShiftableError(f"the application failed: {answer.stderr.strip()}")
        click.echo(f"   python shop.py  →  {answer.stdout.strip()}")
        return answer.stdout

    def _migrate(self) -> None:
        self._step("shiftable migrate --from frankfurt --to local --apply")
        began = time.monotonic()
        self._shiftable("migrate", "--from", "frankfurt", "--to", "local", "--apply")
        click.echo(f"   copied, then read on both sides and compared, in {time.monotonic() - began:.1f} s")

    def _flip(self) -> None:
        self._step("one line of shiftable.toml changes")
        path = self.folder / "shiftable.toml"
        before = path.read_text(encoding="utf-8")
        path.write_text(before.replace('provider = "frankfurt"', 'provider = "local"'), encoding="utf-8")
        click.echo('   -provider = "frankfurt"\n   +provider = "local"')

    def _compare(self, before: str, after: str) -> None:
        if before != after:
            raise ShiftableError("the application does not see the same on both sides")
        click.echo("   the two digests over all keys, headers, metadata, contents and secrets are equal")

    def _kill_and_resume(self) -> None:
        self._step("a second move, to another place, is killed in the middle (kill -9)")
        command = [*_SHIFTABLE, "migrate", "--from", "frankfurt", "--to", "cellar", "--apply", "--json"]
        arrived = self.folder / "cellar" / "blob" / "shop-assets"
        with subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while process.poll() is None and _count(arrived) < ENOUGH // 3:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        click.echo(f"   killed after {_count(arrived)} objects had arrived")
        self._step("the same command goes on where it stopped")
        report = self._report("migrate", "--from", "frankfurt", "--to", "cellar", "--apply", "--json")
        click.echo(f"   {report['changed']} more items written, everything verified: {report['complete']}")
        self._step("and once more: there is nothing left to do")
        report = self._report("migrate", "--from", "frankfurt", "--to", "cellar", "--apply", "--no-verify", "--json")
        click.echo(f"   items written: {report['changed']}")
        if report["changed"] or not report["complete"]:
            raise ShiftableError("the second run was not empty")

    # tools

    def _step(self, title: str) -> None:
        self.steps += 1
        click.secho(f"{self.steps}. {title}", bold=True)

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")

    def _shiftable(self, *arguments: str) -> str:
        answer = subprocess.run([*_SHIFTABLE, *arguments], cwd=self.folder, capture_output=True, text=True, check=False)
        for line in answer.stdout.splitlines():
            if not line.startswith("{"):
                click.echo(f"   {line}")
        if answer.returncode:
            raise ShiftableError(f"shiftable {arguments[0]} failed with {answer.returncode}: {answer.stderr.strip()}")
        return answer.stdout

    def _report(self, *arguments: str) -> dict[str, object]:
        """Run a move and add up its reports: what was written by the first, whether all of them are complete."""
        events = [json.loads(line) for line in self._shiftable(*arguments).splitlines()]
        reports = [event["report"] for event in events if event["event"] == "report"]
        return {"changed": reports[0]["changed"], "complete": all(report["complete"] for report in reports)}


_SHIFTABLE = [sys.executable, "-c", "from shiftable.cli import main; main()"]


def _upload(bucket: Bucket) -> tuple[int, int]:
    """Put a real tree of files, a few large ones and some odd names into a bucket; return objects and bytes."""
    jobs = [(f"tree/{name}", path) for name, path in _tree()]
    large: list[tuple[str, bytes]] = [
        (f"large/{n}.bin", hashlib.shake_128(str(n).encode()).digest(LARGE)) for n in (1, 2)
    ]
    odd = [(name, b"" if name.endswith("empty") else name.encode()) for name in ODD_NAMES]

    def put(job: tuple[str, Path | bytes]) -> int:
        key, data = job
        content_type = "text/x-python" if key.endswith(".py") else None
        return bucket.put(key, data, content_type=content_type, metadata={"origin": "demo"}).size

    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(put, [*jobs, *large, *odd]))
    return len(sizes), sum(sizes)


def _tree() -> Iterator[tuple[str, Path]]:
    """Yield this project's own files, from the checkout if there is one, and others' sources until there are enough."""
    count = 0
    places = [Path.cwd()] if (Path.cwd() / "shiftable" / "cli").is_dir() else []
    site = Path(sysconfig.get_path("purelib"))
    places += [
        site / name for name in ("shiftable", "shiftable_aws", "shiftable_baremetal", "rich", "click", "attr", "cattrs")
    ]
    for place in places:
        for path in sorted(place.rglob("*") if place.is_dir() else ()):
            inner = path.relative_to(place)
            if path.is_file() and not SKIPPED & set(inner.parts) and path.suffix != ".pyc":
                yield f"{place.name}/{inner.as_posix()}", path
                count += 1
                if count == ENOUGH:
                    return


def _count(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))
