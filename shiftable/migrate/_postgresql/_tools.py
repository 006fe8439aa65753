"""PostgreSQL's own programs for the schema: ``pg_dump -Fc -s``, and ``pg_restore`` of one section."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import attrs
from psycopg.conninfo import make_conninfo

from shiftable.errors import MigrationError
from shiftable.migrate._postgresql._side import Side
from shiftable.postgresql import all_binaries

__all__ = ["Archive", "Entry", "Tools"]

_ENTRY = re.compile(r"^(\d+); (\d+) (\d+) (.*)$")
_SHOWN = 3

# What pg_restore of one version says first to a server of another, and it does without.
_HARMLESS = re.compile(
    r"SET (transaction_timeout|idle_session_timeout|idle_in_transaction_session_timeout|default_table_access_method"
    r"|row_security|lock_timeout|xmloption|default_tablespace|default_with_oids|restrict_nonsystem_relation_kind) = "
    r"|COMMENT ON EXTENSION |COMMENT ON SCHEMA public |CREATE SCHEMA public;"
)
_FAILED = re.compile(r"^pg_restore: error: could not execute query: (.*)$")
_COMMAND = "Command was: "
_ATTACHED = "INDEX ATTACH "
_FOREIGN = "FK CONSTRAINT "
_ALIKE = ("--no-owner", "--no-acl", "--no-tablespaces")
_HEAD, _BELOW, _FOOT = b"\n-- Name: ", b"\n--\n\n", b"\n-- PostgreSQL database dump complete"
_LITERAL = re.compile(r"[('$=]")
_WORDS = 4


@attrs.frozen
class Entry:
    """A line of an archive's table of contents.

    Args:
        object: the catalogue and the number of the object at the source; zeroes where it has none of its own.
        kind: ``INDEX public orders_key owner``: what it is, and its names.
    """

    line: str
    object: tuple[int, int]
    kind: str


@attrs.frozen
class Tools:
    """The programs of one version."""

    folder: Path
    major: int

    @classmethod
    def found(cls, source: int, target: int) -> Tools:
        """Choose the programs for two servers: not older than the source, and rather as new as the target.

        Raises:
            MigrationError: all that are found are too old, or none is.
        """
        every = [cls(each.folder, each.major) for each in all_binaries(programs=("pg_dump", "pg_restore"))]
        here = {tools.major: tools for tools in reversed(every)}
        fit = [major for major in sorted(here) if major >= source]
        if not fit:
            seen = f"found: {', '.join(map(str, sorted(here)))}" if here else "none was found"
            raise MigrationError(
                f"pg_dump and pg_restore of PostgreSQL {source} or newer are needed ({seen}):"
                " pip install 'shiftable[postgresql-server]', or apt-get install postgresql-client"
            )
        return here[next((major for major in fit if major >= target), fit[-1]) if target in here else fit[0]]

    def dump(self, source: Side, snapshot: str) -> Archive:
        """Read the whole schema as it is under a snapshot."""
        command: list[str | Path] = [self.folder / "pg_dump", "-Fc", "-s", "--no-password", "--lock-wait-timeout=60s"]
        command.append(f"--snapshot={snapshot}")
        done = subprocess.run(  # noqa: S603  a program that was looked for
            command, env=source.environment(self.major), stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if done.returncode:
            raise MigrationError(f"{source.name}: the schema could not be read: {_last(done.stderr)}")
        return Archive(self, done.stdout)


@attrs.define
class Archive:
    """A schema as ``pg_dump`` wrote it. It is kept in memory: user mappings hold passwords."""

    tools: Tools
    _data: bytes = attrs.field(repr=False)

    @cached_property
    def digest(self) -> str:
        """Tell two schemas apart by what they would do."""
        done = self._run(["-f", "-"], {})
        told = (line for line in done.stdout.splitlines() if not line.startswith((b"--", b"\\")) and line)
        return hashlib.blake2b(b"\n".join(told), digest_size=16).hexdigest()

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """The table of contents."""
        lines = self._run(["-l"], {}).stdout.decode().splitlines()
        found = ((line, _ENTRY.match(line)) for line in lines)
        return tuple(Entry(line, (int(match[2]), int(match[3])), match[4]) for line, match in found if match)

    def script(self, entry: Entry) -> bytes:
        """Return what makes one object, without what a restore tells its session before and after."""
        with _kept(entry.line.encode()) as contents:
            done = self._run([*_ALIKE, "-L", f"/dev/fd/{contents}", "-f", "-"], {}, files=(contents,))
        return done.stdout.partition(_HEAD)[2].partition(_BELOW)[2].rpartition(_FOOT)[0]

    def restore(
        self,
        target: Side,
        section: str,
        *,
        jobs: int = 1,
        without: Iterable[tuple[int, int]] = (),
        weights: Mapping[tuple[int, int], int] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Make what one section holds.

        Args:
            section: ``pre-data`` or ``post-data``.
            without: objects of the source that are left out.
            weights: how long objects take, about: those that take longest come first, where several jobs make them.

        Raises:
            MigrationError: not everything could be made; the first of what it was is named, without its definition.
        """
        left_out = frozenset(without)
        wanted = [entry for entry in self.entries if entry.object == (0, 0) or entry.object not in left_out]
        if weights and jobs > 1:  # whose order is that of what they need, whatever comes first here
            wanted.sort(key=lambda entry: -weights.get(entry.object, 0))
        if section != "post-data" or not any(entry.kind.startswith(_ATTACHED) for entry in wanted):
            self._restore(target, section, wanted, jobs, settings or {})
            return
        # Indexes of partitions that are attached at the same moment do not see each other, and the one that they are
        # attached to stays invalid; foreign keys need it.
        attached = [entry for entry in wanted if entry.kind.startswith(_ATTACHED)]
        keys = [entry for entry in wanted if entry.kind.startswith(_FOREIGN)]
        others = [entry for entry in wanted if not entry.kind.startswith((_ATTACHED, _FOREIGN))]
        for entries, width in ((others, jobs), (attached, 1), (keys, jobs)):
            self._restore(target, section, entries, width, settings or {})

    def _restore(
        self, target: Side, section: str, entries: Sequence[Entry], jobs: int, settings: Mapping[str, str]
    ) -> None:
        command = [
            *_ALIKE,
            *("--no-publications", "--no-subscriptions", "--no-password"),
            f"--section={section}",
            f"--dbname={make_conninfo(dbname=target.arguments()['dbname'])}",  # a name may look like one itself
        ]
        with _kept("\n".join(entry.line for entry in entries).encode()) as contents:
            command += ["-L", f"/dev/fd/{contents}"]
            done = self._run(command, target.environment(self.tools.major, settings), jobs=jobs, files=(contents,))
        failures = [*_failures(done.stderr.decode(errors="replace"))]
        if failures:
            more = f", and {len(failures) - _SHOWN} more" if len(failures) > _SHOWN else ""
            raise MigrationError(f"{target.name}: {'; '.join(failures[:_SHOWN])}{more}")
        if done.returncode not in {0, 1}:
            raise MigrationError(f"{target.name}: pg_restore ended with status {done.returncode}: {_last(done.stderr)}")
        if done.returncode and b"errors ignored on restore" not in done.stderr:
            raise MigrationError(f"{target.name}: the schema could not be made: {_last(done.stderr)}")

    def _run(
        self, arguments: Sequence[str], environment: Mapping[str, str], *, jobs: int = 1, files: tuple[int, ...] = ()
    ) -> subprocess.CompletedProcess[bytes]:
        with _kept(self._data) as archive:
            parallel = [f"--jobs={jobs}"] if jobs > 1 else []
            command: list[str | Path] = [self.tools.folder / "pg_restore", *arguments, *parallel, f"/dev/fd/{archive}"]
            done = subprocess.run(  # noqa: S603  a program that was looked for
                command,
                env=dict(environment) or {"LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                pass_fds=(archive, *files),
            )
        if not environment and done.returncode:
            raise MigrationError(f"pg_restore cannot read what pg_dump wrote: {_last(done.stderr)}")
        return done


def _failures(text: str) -> Iterator[str]:
    """Yield what failed and counts: what the server said, and the first words of the command; never its values."""
    error = None
    for line in text.splitlines():
        match = _FAILED.match(line)
        if match:
            if error is not None:
                yield error
            error = match[1].removeprefix("ERROR:  ")
        elif line.startswith(_COMMAND) and error is not None:
            command = line.removeprefix(_COMMAND)
            if not _HARMLESS.match(command):
                yield f"{' '.join(_LITERAL.split(command)[0].split()[:_WORDS])}: {error}"
            error = None
    if error is not None:
        yield error


def _last(text: bytes) -> str:
    lines = [line for line in text.decode(errors="replace").splitlines() if line.strip()]
    return "; ".join(line.partition(": error: ")[2] or line for line in lines[-_SHOWN:]) or "it said nothing"


@contextlib.contextmanager
def _kept(data: bytes) -> Iterator[int]:
    """Keep data in a file that has no name, and yield its descriptor."""
    with contextlib.ExitStack() as stack:
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("shiftable")
            stack.callback(os.close, descriptor)
        else:
            descriptor = stack.enter_context(tempfile.TemporaryFile()).fileno()
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
