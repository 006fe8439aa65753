"""One data directory, and the server on it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import attrs

from shiftable.errors import ConfigError
from shiftable.postgresql import _supervisor
from shiftable.postgresql._binaries import Binaries, find_binaries
from shiftable.postgresql._locks import is_locked, locked, take
from shiftable.postgresql._owner import Owner, environment
from shiftable.postgresql._reach import within_reach
from shiftable.postgresql._template import PORTABLE, ClusterError, copy_data, give_identity, make_data

if TYPE_CHECKING:
    import psycopg

__all__ = ["Cluster", "ClusterError", "temporary_cluster"]

_PORT = 5432
_LONGEST_SOCKET = 103  # bytes of sun_path without its end: 108 on Linux, 104 on macOS and the BSDs
_LOG_TAIL = 4000
_LOG_KEPT = 10 * 1024 * 1024
_STEP = 0.01
_STATEMENTS = re.compile(r"^.*STATEMENT:.*\n(?:\t.*\n?)*", re.MULTILINE)
_CLOCK_STEP = 60  # seconds by which the clock may have been set since
_READY = frozenset({"ready", "standby"})
_TRIES = 5  # to find a port that nobody takes meanwhile

_HBA = """\
# Written at each start. Only its owner and root reach the folder of the socket.
local all         postgres              trust
local replication postgres              trust
local all         all                   scram-sha-256
host  all         all      127.0.0.1/32 scram-sha-256
host  replication all      127.0.0.1/32 scram-sha-256
"""


def _absolute(folder: Path) -> Path:
    return folder.absolute()


# Servers that processes use until they end: the descriptor of the lock that says so, by the identity of its file. It is
# of the process, not of an object: an engine's connections live longer than the driver that knows how to start it.
_USED_UNTIL_EXIT: dict[tuple[int, int], int] = {}


@attrs.define(eq=False)
class Cluster:
    """A private PostgreSQL: one data directory, and a server that only its owner reaches, over a Unix socket.

    The server runs as long as a process uses it, or until ``stop``: a process uses it from its ``start`` until its own
    ``stop`` or its end, however it ends. As root the server runs as another user: the data's owner, ``postgres`` or
    nobody; no user is made. Its superuser is ``postgres``, who needs no password on the socket; others have scram.

    Args:
        folder: the cluster's own, closed to others: data, log, locks and, where its path is short enough, the socket.
        binaries: else those that ``find_binaries`` finds.
        parameters: of the server; they count from its next start on.
        tcp: listen on 127.0.0.1 too, on a free port that stays the same while nobody else takes it.
        durable: what is committed survives a power failure, not only a crash. Tests need not wait for the disk.
        linger: the server runs until ``stop``, also if no process uses it.
        until_exit: this process uses the server until it ends, also if this object is gone.
        locale: of new data directories.
    """

    folder: Path = attrs.field(converter=_absolute)
    binaries: Binaries = attrs.field(factory=find_binaries)
    parameters: Mapping[str, str] = attrs.field(factory=dict, kw_only=True)
    tcp: bool = attrs.field(default=False, kw_only=True)
    durable: bool = attrs.field(default=True, kw_only=True)
    linger: bool = attrs.field(default=False, kw_only=True)
    until_exit: bool = attrs.field(default=False, kw_only=True)
    locale: str = attrs.field(default=PORTABLE, kw_only=True)
    _users: int | None = attrs.field(default=None, init=False, repr=False)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, cls: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    # where it is

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """What the server wrote since its last starts."""
        return self.folder / "log"

    @property
    def owner(self) -> Owner:
        """Who runs the server."""
        return Owner.choose(self.data)

    @property
    def host(self) -> str:
        """The folder of the socket, which libpq takes as a host."""
        place = self.folder / "socket"
        return str(place.readlink() if place.is_symlink() else place)

    @property
    def port(self) -> int:
        """The port; without TCP only part of the socket's name."""
        return int(self._noted("port") or _PORT) if self.tcp else _PORT

    @property
    def pid(self) -> int | None:
        """The server's process, if it runs."""
        if not self.running:
            return None
        with contextlib.suppress(OSError, ValueError, IndexError):
            number = int((self.data / "postmaster.pid").read_text().splitlines()[0])
            return number if _is_postgres(number) else None
        return None

    @property
    def running(self) -> bool:
        """Whether the server, or what is left of it, still runs."""
        return is_locked(self.folder / "alive")

    @property
    def in_use(self) -> bool:
        """Whether the server runs and this process uses it already."""
        with contextlib.suppress(FileNotFoundError):
            used = self._users is not None
            if self.until_exit:
                found = (self.folder / "users").stat()
                used = (found.st_dev, found.st_ino) in _USED_UNTIL_EXIT
            return used and self.running and self._status in _READY
        return False

    # its life

    def create(self) -> None:
        """Make the data directory, unless it is there.

        Raises:
            ClusterError: there is one of another major version, or initdb refused.
        """
        self._make_folder()
        with self._exclusively(60):
            self._create()

    def start(self, *, timeout: float = 60) -> None:
        """Make the data directory if need be, start the server unless it runs, and use it from now on.

        Args:
            timeout: seconds; recovery after a crash may take long.

        Raises:
            ClusterError: it did not start; the message ends with the server's own words.
        """
        self._make_folder()
        with self._exclusively(timeout):
            self._create()
            self._use(timeout)
            try:
                if not self._settles(timeout):
                    self._launch(timeout)
                self._wait_for(_READY, timeout)  # another process may have begun to start it
            except BaseException:
                self._use_no_more()
                raise

    def stop(self, *, immediately: bool = False, timeout: float = 60) -> None:
        """Stop the server, also for others that use it. One that does not run is left alone.

        Args:
            immediately: as in a crash; the next start recovers.
            timeout: seconds after which it is stopped immediately.

        Raises:
            ClusterError: it does not end.
        """
        if not self.folder.is_dir():
            return
        with self._exclusively(timeout):
            for number in (signal.SIGQUIT,) if immediately else (signal.SIGINT, signal.SIGQUIT):
                if (pid := self.pid) is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
                if self._ends(timeout):
                    break
            else:
                raise ClusterError(f"the server in {self.folder} does not end")
            self._use_no_more()

    def wait_recovered(self, *, timeout: float) -> None:
        """Wait until a server that replays WAL has ended its recovery.

        Raises:
            ClusterError: it has not, and why.
        """
        self._wait_for({"ready"}, timeout)

    def reload(self) -> None:
        """Have a running server read ``parameters``; those that need a restart count from then on."""
        self._write_settings()
        if (pid := self.pid) is not None:
            os.kill(pid, signal.SIGHUP)

    def back_up(self, to: Path, *, timeout: float = 60) -> None:
        """Copy the data, consistent as of one moment, to a folder that does not exist; the server runs on if it runs.

        Raises:
            ClusterError: pg_basebackup failed; the message holds its words.
        """
        with contextlib.ExitStack() as stack:
            with self._exclusively(timeout):
                if self.running:
                    if self._users is None and not self.until_exit:
                        stack.callback(self._use_no_more)
                    self._use(timeout)
                if not self._settles(timeout):  # perhaps since just now: nobody used it, and that was its end
                    copy_data(self.data, to, Owner())
                    if self.durable:
                        os.sync()
                    return
            sync = () if self.durable else ("--no-sync",)
            self.run("pg_basebackup", "--pgdata", to, "--checkpoint=fast", "--wal-method=stream", *sync)

    def fill(self, data: Path) -> None:
        """Copy data that were backed up into this cluster, which must have none."""
        self._make_folder()
        with self._exclusively(60):
            if self.data.exists():
                raise ClusterError(f"{self.data} exists already")
            with tempfile.TemporaryDirectory(dir=self.folder, prefix="data-") as name:
                copy_data(data, Path(name) / "data", self.owner)
                if self.durable:
                    os.sync()
                (Path(name) / "data").rename(self.data)

    def become_another(self) -> None:
        """Give the cluster a system identifier of its own; it must have been stopped in order."""
        with self._exclusively(60):
            if self.running:
                raise ClusterError(f"the server in {self.folder} runs")
            give_identity(self._programs, self.data, self.owner)

    def remove(self) -> None:
        """Stop the server and delete all of it."""
        self.stop()
        shutil.rmtree(self.host, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    # using it

    def connect(self, database: str = "postgres", **options: Any) -> psycopg.Connection[Any]:  # noqa: ANN401  psycopg's
        """Connect over the socket as the superuser, or as ``options`` of psycopg say."""
        try:
            import psycopg
        except ImportError as exc:
            raise ConfigError("connecting to PostgreSQL needs psycopg: pip install 'shiftable[postgresql]'") from exc
        where = {"host": self.host, "port": self.port, "user": "postgres", "dbname": database}
        return psycopg.connect(**{**where, **options})

    def run(self, program: str, *arguments: str | Path, data: bytes | None = None) -> bytes:
        """Run a program of PostgreSQL's against this server, as its superuser, and return what it prints.

        Raises:
            ClusterError: it failed; the message holds its words.
        """
        where = {"PGHOST": self.host, "PGPORT": str(self.port), "PGUSER": "postgres"}
        command = [self.binaries.program(program), *arguments]
        done = subprocess.run(  # noqa: S603  a program of PostgreSQL's
            command, input=data or b"", capture_output=True, check=False, env={**environment(), **where}
        )
        if done.returncode:
            raise ClusterError(f"{program} failed: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout

    # below: one step each; those that change something, under the lock

    @property
    def _programs(self) -> Binaries:
        return within_reach(self.binaries, self.owner)

    def _make_folder(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextlib.contextmanager
    def _exclusively(self, timeout: float) -> Iterator[None]:
        with locked(self.folder / "lock", timeout=timeout) as taken:
            if not taken:
                raise ClusterError(
                    f"another process has been starting or stopping the server in {self.folder} for long"
                )
            yield

    def _create(self) -> None:
        try:
            major = (self.data / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            for left in self.folder.glob("data-*"):
                shutil.rmtree(left, ignore_errors=True)
            make_data(self._programs, self.locale, self.data, self.owner, durable=self.durable)
            return
        if major != str(self.binaries.major):
            why = f"the data in {self.data} is of PostgreSQL {major}, the programs are {self.binaries.version}"
            raise ClusterError(f"{why}: install PostgreSQL {major}, or move the data")

    def _use(self, timeout: float) -> None:
        """Take the lock that says that this process uses the server; wait for a server that is just being stopped."""
        if self._users is not None:
            return
        descriptor = take(self.folder / "users", shared=True, timeout=timeout)
        if descriptor is None:
            raise ClusterError(f"the server in {self.folder} has been stopping for more than {timeout:g} s")
        if not self.until_exit:
            self._users = descriptor
            return
        found = os.fstat(descriptor)
        if _USED_UNTIL_EXIT.setdefault((found.st_dev, found.st_ino), descriptor) != descriptor:
            os.close(descriptor)

    def _use_no_more(self) -> None:
        descriptor, self._users = self._users, None
        if self.until_exit:
            with contextlib.suppress(FileNotFoundError):
                found = (self.folder / "users").stat()
                descriptor = _USED_UNTIL_EXIT.pop((found.st_dev, found.st_ino), None)
        if descriptor is not None:
            os.close(descriptor)

    def _launch(self, timeout: float) -> None:
        for left in range(_TRIES, 0, -1):
            begin = self._prepare()
            answer = self._ask_supervisor(timeout)
            if answer == "ready":
                return
            self._ends(timeout)
            said = self._said(begin)
            if not (self.tcp and "could not bind" in said and left > 1):
                break
            self._note("port", "")
        raise ClusterError(
            f"PostgreSQL {self.binaries.version} did not start in {self.folder}: {answer}\n{said}".strip()
        )

    def _prepare(self) -> int:
        """Make all ready for a start, and return where the log of it begins."""
        owner = self.owner
        if owner.uid is not None:
            self.folder.chmod(0o711)  # its data are closed all the same, and its archive lies beside them
        self._clear_stale()
        self._make_socket_folder(owner)
        if self.tcp and not _is_free(self._noted("port")):
            self._note("port", str(_free_port()))
        self._write_settings()
        size = self.log.stat().st_size if self.log.exists() else 0
        if size > _LOG_KEPT:
            self.log.replace(self.folder / "log.1")
            size = 0
        return size

    def _clear_stale(self) -> None:
        """Remove the mark of a server that is gone; its number may be another process's by now."""
        mark = self.data / "postmaster.pid"
        try:
            lines = mark.read_text().splitlines()
            number, began = int(lines[0]), int(lines[2])
        except (OSError, ValueError, IndexError):
            return
        if _serves(number, self.data, began):
            why = f"process {number} serves {self.data} already, and was not started by this library"
            raise ClusterError(f"{why}: stop it first")
        if sys.platform == "linux":
            mark.unlink(missing_ok=True)

    def _make_socket_folder(self, owner: Owner) -> None:
        place = self.folder / "socket"
        if len(os.fsencode(place)) + len("/.s.PGSQL.65535") <= _LONGEST_SOCKET:
            place.mkdir(mode=0o700, exist_ok=True)
        else:
            target = place.readlink() if place.is_symlink() else _short_place(self.folder)
            if not _is_private(target, owner):
                target = Path(tempfile.mkdtemp(prefix="shiftable-", dir=target.parent))
            if not place.is_symlink() or place.readlink() != target:
                place.unlink(missing_ok=True)
                place.symlink_to(target)
            place = target
        owner.take(place)
        for left in place.glob(".s.PGSQL.*"):
            left.unlink(missing_ok=True)

    def _write_settings(self) -> None:
        owner = self.owner
        settings = {
            "listen_addresses": "127.0.0.1" if self.tcp else "",
            "port": str(self.port),
            "unix_socket_permissions": "0700",
            "password_encryption": "scram-sha-256",
            "log_line_prefix": "%m [%p] %q%u@%d ",
            **({} if self.durable else {"fsync": "off", "full_page_writes": "off"}),
            **self.parameters,
        }
        lines = "".join(f"{name} = {_quoted(value)}\n" for name, value in settings.items())
        for name, text in {"shiftable.conf": lines, "pg_hba.conf": _HBA}.items():
            new = self.data / f"{name}.new"
            new.write_text(text)
            new.chmod(0o600)
            owner.take(new)
            new.replace(self.data / name)
        conf = self.data / "postgresql.conf"
        include = "include_if_exists 'shiftable.conf'\n"
        if include not in conf.read_text():
            with conf.open("a") as file:
                file.write(include)

    def _ask_supervisor(self, timeout: float) -> str:
        owner = self.owner
        command = [str(self._programs.program("postgres")), "-D", "{data}", "-c", "unix_socket_directories={socket}"]
        orders = {
            "folder": str(self.folder),
            "command": command,
            "environment": environment(),
            "uid": owner.uid,
            "gid": owner.gid,
            "data": str(self.data),
            "socket": self.host,
            "linger": self.linger,
        }
        interpreter = [_python(), "-I", "-S", _supervisor.__file__]
        try:
            done = subprocess.run(  # noqa: S603  this interpreter
                interpreter, input=json.dumps(orders).encode(), capture_output=True, check=False, timeout=timeout
            )
        except subprocess.TimeoutExpired:
            return f"it has been starting for more than {timeout:g} s"
        return (done.stdout or done.stderr).decode(errors="replace").strip()

    @property
    def _status(self) -> str:
        """What the server says of itself; nothing, if it is not that far, or has ended."""
        with contextlib.suppress(OSError, IndexError):
            return (self.data / "postmaster.pid").read_text().splitlines()[7].strip()
        return ""

    def _wait_for(self, states: Collection[str], timeout: float) -> None:
        end = time.monotonic() + timeout
        while True:
            if self._status in states:
                return
            if time.monotonic() > end or not self.running:
                raise ClusterError(f"the server in {self.folder} does not come up\n{self._said(0)}")
            time.sleep(_STEP)

    def _settles(self, timeout: float) -> bool:
        """Wait for what others began, and may have been killed in; tell whether it runs then."""
        end = time.monotonic() + timeout
        while self.running and self._status not in _READY and time.monotonic() < end:
            time.sleep(_STEP)
        return self.running

    def _ends(self, timeout: float) -> bool:
        end = time.monotonic() + timeout
        while self.running:
            if time.monotonic() > end:
                return False
            time.sleep(_STEP)
        return True

    def _said(self, begin: int) -> str:
        """Return the end of what the server wrote since then, without statements, which may hold what is secret."""
        with contextlib.suppress(OSError), self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(begin, size - _LOG_TAIL))
            return _STATEMENTS.sub("", file.read().decode(errors="replace")).strip()
        return ""

    def _noted(self, name: str) -> str | None:
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / name).read_text()
        return None

    def _note(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)


@contextlib.contextmanager
def temporary_cluster(
    binaries: Binaries | None = None, *, parameters: Mapping[str, str] | None = None, tcp: bool = False
) -> Iterator[Cluster]:
    """Run an empty server, without waiting for the disk, until the end of the block; then nothing is left of it."""
    folder = Path(tempfile.mkdtemp(prefix="shiftable-pg-"))
    cluster = Cluster(folder, binaries or find_binaries(), parameters=parameters or {}, tcp=tcp, durable=False)
    try:
        with cluster:
            yield cluster
    finally:
        cluster.remove()


def _serves(number: int, data: Path, began: int) -> bool:
    """Tell whether a process is a server on those data that began at that time; where it cannot be known, no."""
    try:
        return Path(f"/proc/{number}/cwd").samefile(data)
    except PermissionError:  # root in a container may not look at other users' processes
        ticks = int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[19])
        booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return _is_postgres(number) and abs(booted + ticks / os.sysconf("SC_CLK_TCK") - began) < _CLOCK_STEP
    except OSError:
        return False


def _is_postgres(number: int) -> bool:
    """Tell whether a process is a PostgreSQL; where it cannot be known, yes."""
    if sys.platform != "linux":
        return True
    try:
        return Path(f"/proc/{number}/comm").read_text().strip() in {"postgres", "postmaster"}
    except OSError:
        return False


def _short_place(folder: Path) -> Path:
    """Return where the socket of a folder with a long path goes: the same place each time."""
    mark = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    above = runtime if runtime.is_dir() and len(os.fsencode(runtime)) < 40 else Path("/tmp")  # noqa: S108  0700 below
    return above / f"shiftable-{os.geteuid()}-{mark}"


def _is_private(folder: Path, owner: Owner) -> bool:
    """Make a folder that is ours alone, or tell whether it is."""
    with contextlib.suppress(FileExistsError, FileNotFoundError):
        folder.mkdir(mode=0o700)
        return True
    with contextlib.suppress(FileNotFoundError):
        found = os.lstat(folder)
        mine = found.st_uid in {os.geteuid(), owner.uid}
        return mine and not folder.is_symlink() and folder.is_dir() and not found.st_mode & 0o077
    return False


def _is_free(port: str | None) -> bool:
    if not port:
        return False
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", int(port)))
        return True
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


def _python() -> str:
    """Return an interpreter; servers that embed Python name themselves in ``sys.executable``."""
    if re.match(r"(python|pypy)", Path(sys.executable).name):
        return sys.executable
    return str(Path(sys.base_exec_prefix) / "bin" / f"python{sys.version_info.major}")
