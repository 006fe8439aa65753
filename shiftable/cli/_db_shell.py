"""``db shell``: psql or mariadb, with a password that stands in no argument and no environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence

import attrs

from shiftable.cli._child import Child, Command
from shiftable.cli._handing import Numbers
from shiftable.database import DatabaseUrl
from shiftable.database.driver import Engine
from shiftable.errors import ConfigError
from shiftable.masking import Masked

__all__ = ["run_shell"]

_PROGRAMS: Mapping[Engine, tuple[str, ...]] = {
    "postgresql": ("psql",),
    "mysql": ("mysql", "mariadb"),
    "mariadb": ("mariadb", "mysql"),
}
_KEPT = ("PGAPPNAME", "PGCLIENTENCODING", "PGDATESTYLE", "PGLOCALEDIR", "PGOPTIONS", "PGTZ")
"""What libpq reads of the environment and is left as it is; the rest would lead elsewhere."""


@attrs.frozen
class _Start:
    """What is started: arguments and variables, and the file with the password, whose path is put in for ``{}``."""

    arguments: tuple[str, ...]
    variables: Mapping[str, str]
    file: Masked


def run_shell(url: DatabaseUrl, arguments: Sequence[str]) -> int:
    """Run the engine's own client, and return its exit code. A private server runs as long as this process uses it.

    The password is in a file without a name, in memory, that only the client and what it starts have open. The file of
    psql's says for which server and user it is, so that ``connect`` to another one, at its prompt, does not send it.

    Raises:
        ConfigError: the client is not installed.
    """
    program = _found(url.engine)
    start = _psql(url) if url.engine == "postgresql" else _mysql(url, is_mariadb=_is_mariadb(program))
    if not hasattr(os, "memfd_create"):
        raise ConfigError("`db shell` keeps the password in a file without a name, which needs Linux; see `db url`")
    files = Numbers({"password": start.file}, mode=0o600)
    (path,) = files.paths.values()
    words = (program, *(word.format(path) for word in start.arguments), *arguments)
    variables = {name: value.format(path) for name, value in start.variables.items()}
    sys.stdout.flush()
    with Child.quiet():
        return Child(Command(program, words), lambda: _environment(url.engine) | variables).run()


def _psql(url: DatabaseUrl) -> _Start:
    login = url.login()
    user, password = login.user or url.user, login.password.reveal()
    if "\n" in password or "\0" in password:
        raise ConfigError("the password has a line break, which psql cannot read from a file")
    line = (
        ":".join(_escaped(part) for part in (url.host, str(url.port))) + f":*:{_escaped(user)}:{_escaped(password)}\n"
    )
    named = url.arguments()
    variables = {"PGHOST": url.host, "PGPORT": str(url.port), "PGUSER": user, "PGDATABASE": url.database}
    if "sslmode" in named:
        variables |= {"PGSSLMODE": named["sslmode"], "PGSSLROOTCERT": named["sslrootcert"]}
    plain = {name: value.replace("{", "{{").replace("}", "}}") for name, value in variables.items()}
    return _Start((), plain | {"PGPASSFILE": "{}"}, Masked(line))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace(":", "\\:")


def _mysql(url: DatabaseUrl, *, is_mariadb: bool) -> _Start:
    login = url.login()
    options = {"user": login.user or url.user, "password": login.password.reveal()}
    if url.host.startswith("/"):
        options |= {"socket": url.host}
    else:
        options |= {"host": url.host, "port": str(url.port), "protocol": "tcp"}
        if url.ca is not None:
            options |= {"ssl-ca": url.ca}
            if is_mariadb:
                options |= {"ssl-verify-server-cert": "1" if url.check_name else "0"}
            else:
                options |= {"ssl-mode": "VERIFY_IDENTITY" if url.check_name else "VERIFY_CA"}
            if login.expires is not None:  # a token goes to the server as it is, in what TLS has encrypted
                options |= {"loose-enable-cleartext-plugin": "1"}
    lines = "".join(f'{name}="{_quoted(value)}"\n' for name, value in options.items())
    database = (url.database.replace("{", "{{").replace("}", "}}"),) if url.database else ()
    return _Start(("--defaults-extra-file={}", *database), {}, Masked(f"[client]\n{lines}"))


def _quoted(text: str) -> str:
    for plain, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        text = text.replace(plain, escaped)
    return text


def _found(engine: Engine) -> str:
    programs = _PROGRAMS[engine]
    for name in programs:
        found = shutil.which(name)
        if found is not None:
            return found
    if engine == "postgresql":
        from shiftable.postgresql import find_binaries

        try:
            return str(find_binaries().program("psql"))
        except ConfigError:
            pass
    raise ConfigError(f"there is no {' and no '.join(programs)} on this machine; install the client of {engine}")


def _is_mariadb(program: str) -> bool:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    return "mariadb" in said.lower()


def _environment(engine: Engine) -> dict[str, str]:
    """Return this process's, without what would lead the client elsewhere or hold another password."""
    prefix = "PG" if engine == "postgresql" else "MYSQL_"
    return {name: value for name, value in os.environ.items() if not name.startswith(prefix) or name in _KEPT}
