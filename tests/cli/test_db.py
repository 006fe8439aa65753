"""``shiftable db``: servers from making one to a prompt on it, by the command line."""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import click
import pytest
from click.testing import CliRunner, Result
from psycopg import sql

from shiftable.app import load
from shiftable.cli._db import db
from shiftable.cli._main import cli
from shiftable.database import DatabaseInfo, DatabaseSpec, SizeChoice
from shiftable.database.driver import ServerSize
from shiftable.memory import MemoryProvider
from shiftable.memory.database import FEATURES, MemoryDatabaseDriver
from shiftable.memory.secrets import MemorySecretsDriver
from shiftable.postgresql import Cluster

FILE = """
[project]
name = "shop"
[environments.production]
provider = "memory"
[secrets.app]
prefix = "shop"
[database.orders]
engine = "postgresql"
version = "16"
cpus = 2
memory_gib = 8
storage_gib = 50
databases = ["shop"]
deletion_protection = false
password = { secret = "app/db/orders" }
"""

Run = Callable[..., Result]


@attrs.define
class Sized(MemoryDatabaseDriver):
    """Databases of one size; somebody presses Ctrl-C when one is seen in a certain state."""

    interrupt: Callable[[str], bool] = attrs.field(default=lambda _: False, kw_only=True)

    def info(self, name: str) -> DatabaseInfo:
        found = MemoryDatabaseDriver.info(self, name)
        if self.interrupt(found.state):
            raise KeyboardInterrupt
        return found

    def size(self, spec: DatabaseSpec) -> SizeChoice:
        return SizeChoice(ServerSize(name="m2", cpus=2, memory=8 * 2**30), "the smallest of 1 size")


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Sized:
    """Let what one command has made be there for the next one, which the memory of a process is not."""
    made, secrets = Sized(attrs.evolve(FEATURES, sizes=True)), MemorySecretsDriver()
    monkeypatch.setattr(MemoryProvider, "database", lambda _: made)
    monkeypatch.setattr(MemoryProvider, "secrets", lambda _: secrets)
    return made


@pytest.fixture
def run(folder: Path, driver: Sized) -> Run:
    (folder / "shiftable.toml").write_text(FILE)

    def start(*arguments: str, **more: Any) -> Result:
        result = CliRunner().invoke(cli, ["db", *arguments], **more)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return start


@pytest.fixture
def orders(run: Run) -> Run:
    assert 0 == run("create", "orders").exit_code
    return run


# making and looking


def test_a_declared_server_is_made_waited_for_and_says_why_its_size(run: Run, driver: Sized) -> None:
    made = run("create", "orders")
    assert (0, "orders: created\n") == (made.exit_code, made.stdout)
    assert "m2 (2 CPUs, 8 GiB): the smallest of 1 size\norders: available\n" == made.stderr
    assert driver.describe("orders").databases == ("shop",)
    again = run("create", "orders")
    assert 1 == again.exit_code
    assert "database.create on database 'orders' (memory): there is such a server" in again.stderr


def test_the_generated_password_is_in_the_store_and_in_no_output(run: Run, folder: Path) -> None:
    said = [run("create", "orders"), run("show", "orders"), run("show", "orders", "--json"), run("url", "orders")]
    password = run("url", "orders", "--reveal").stdout.split(":")[2].split("@")[0]
    assert 40 == len(password)
    for result in said:
        assert 0 == result.exit_code
        assert password not in result.output
    for path in folder.rglob("*"):
        assert path.is_dir() or password not in path.read_text(errors="replace")
    assert password == CliRunner().invoke(cli, ["secrets", "get", "app", "db/orders", "--reveal"]).stdout.strip()


def test_a_server_that_is_not_declared_is_made_by_options(run: Run, driver: Sized) -> None:
    size = ("--engine", "postgresql", "--version", "16", "--cpus", "2", "--memory-gib", "8", "--storage-gib", "20")
    assert 0 == run("create", "memory:other", *size, "--database", "a", "--password", "app/db/other").exit_code
    assert ("a",) == driver.describe("other").databases
    missing = run("create", "memory:third", *size[:4])
    assert 2 == missing.exit_code
    assert "memory:third is not declared; say --cpus, --memory-gib, --storage-gib" in missing.stderr
    declared = run("create", "orders", "--cpus", "4")
    assert 2 == declared.exit_code
    assert "[database.orders] says what it is" in declared.stderr
    assert 2 == run("create", "memory:fourth", *size[:3], "16-beta", *size[4:]).exit_code


def test_servers_are_listed(orders: Run, driver: Sized) -> None:
    assert "memory:orders\n" == orders("list").stdout
    (line,) = orders("list", "-l", "memory", "memory").stdout.splitlines()
    assert ["memory:orders", "available", "postgresql", "16", "", "orders.memory.invalid:5432"] == line.split("\t")
    (fact,) = (json.loads(line) for line in orders("list", "--json").stdout.splitlines())
    assert ("orders", "available", "orders.memory.invalid") == (fact["name"], fact["state"], fact["host"])
    plain = driver.describe("orders")
    for number in range(149):
        driver.create(attrs.evolve(plain, name=f"many-{number}"))
    assert 150 == len(orders("list").stdout.splitlines())
    assert 3 == len(orders("list", "--limit", "3").stdout.splitlines())


def test_a_server_is_shown_for_people_and_programs(orders: Run) -> None:
    shown = dict(line.split(": ", 1) for line in orders("show", "orders").stdout.splitlines())
    assert ("available", "2", "shop", "yes") == tuple(
        shown[name] for name in ("state", "cpus", "databases", "storage_autogrow")
    )
    facts = json.loads(orders("show", "memory:orders", "--json").stdout)
    assert (8, ["shop"], "required") == (facts["memory_gib"], facts["databases"], facts["tls"])


def test_a_url_is_masked_and_names_the_database(orders: Run) -> None:
    plain = orders("url", "orders").stdout
    assert plain.startswith("postgresql://shiftadmin:***@orders.memory.invalid:5432/shop?sslmode=verify-full")
    assert "/other?" in orders("url", "orders", "other").stdout
    facts = json.loads(orders("url", "orders", "--json").stdout)
    assert ("***" in facts["url"], "shiftadmin", "shop") == (True, facts["user"], facts["database"])


# changing


def test_states_and_sizes_are_changed_and_waited_for(orders: Run, driver: Sized) -> None:
    assert "orders: stopped\n" == orders("stop", "orders").stdout
    assert (
        "orders: has 4 CPUs, 8 GiB, 60 GiB of storage\n"
        == orders("resize", "orders", "--cpus=4", "--storage-gib=60").stdout
    )
    other = orders("resize", "orders", "--cpus=4", "--memory-gib=8").stderr
    assert "[database.orders] says otherwise: write cpus = 4 there, too, as `shiftable apply` goes by it\n" in other
    assert "says otherwise" not in orders("resize", "memory:orders", "--cpus=4").stderr
    assert "stopped" == driver.info("orders").state
    assert "orders: started\n" == orders("start", "orders").stdout
    assert "orders: restarted\n" == orders("restart", "orders").stdout
    assert "available" == json.loads(orders("restart", "orders", "--json").stdout)["state"]
    assert "orders: available; see `shiftable db show memory:orders`\n" == orders("start", "orders", "--no-wait").stdout
    shrunk = orders("resize", "orders", "--storage-gib", "10")
    assert (1, True) == (shrunk.exit_code, "storage does not shrink from 60 to 10 GiB" in shrunk.stderr)
    assert 2 == orders("resize", "orders").exit_code


def test_a_shell_on_a_stopped_server_says_how_it_is_started(
    orders: Run, driver: Sized, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sized, "features", attrs.evolve(driver.features, connect=True))
    assert 0 == orders("stop", "orders").exit_code
    refused = orders("shell", "orders", "--", "-c", "SELECT 1")
    assert (1, "") == (refused.exit_code, refused.stdout)
    assert "database.shell on database 'orders' (memory): it is stopped; `shiftable db start orders` starts it" in (
        refused.stderr
    )


def test_snapshots_are_taken_listed_restored_and_deleted(orders: Run, driver: Sized) -> None:
    assert "before\n" == orders("snapshot", "orders", "before").stdout
    assert orders("snapshot", "orders").stdout.startswith("orders-2")
    listed = [line.split("\t") for line in orders("snapshots", "orders").stdout.splitlines()]
    assert [("before", "available", "50 GiB")] == [(row[0], row[1], row[3]) for row in listed if row[0] == "before"]
    assert 2 == len(listed)
    copied = orders("restore", "orders", "copy", "--snapshot", "before")
    assert "copy: restored\n" == copied.stdout
    assert "it is not declared, and called memory:copy\n" in copied.stderr
    assert 0 == orders("show", "memory:copy").exit_code
    assert 50 == driver.describe("copy").storage_gib
    assert 1 == orders("restore", "orders", "copy", "--snapshot", "before").exit_code
    assert 2 == orders("restore", "orders", "another").exit_code
    assert 2 == orders("restore", "orders", "another", "--at", "yesterday").exit_code
    now = datetime.now(UTC).isoformat()
    assert "then: restored\n" == orders("restore", "orders", "then", "--at", now).stdout
    assert 2 == orders("delete-snapshot", "orders", "before").exit_code
    assert "before: deleted\n" == orders("delete-snapshot", "orders", "before", "--yes").stdout
    assert 1 == orders("delete-snapshot", "orders", "before", "--yes").exit_code


def test_a_server_that_is_gone_is_restored_as_it_is_declared(orders: Run, driver: Sized) -> None:
    assert 0 == orders("snapshot", "orders", "last").exit_code
    assert 0 == orders("delete", "orders", "--yes", "orders", "--no-final-snapshot").exit_code
    assert "back: restored\n" == orders("restore", "orders", "back", "--snapshot", "last").stdout
    assert ("shop",) == driver.describe("back").databases
    gone = orders("restore", "memory:orders", "again", "--snapshot", "last")
    assert (1, True) == (gone.exit_code, "there is no such server" in gone.stderr)
    missing = orders("restore", "orders", "again", "--snapshot", "never")
    assert (1, True) == (missing.exit_code, "never" in missing.stderr)


def test_a_server_is_deleted_by_its_name_and_leaves_a_snapshot(orders: Run, driver: Sized) -> None:
    unconfirmed = orders("delete", "orders")
    assert 2 == unconfirmed.exit_code
    assert "to delete orders (memory) without a terminal, say --yes orders" in unconfirmed.stderr
    assert 2 == orders("delete", "orders", "--yes", "ordres").exit_code
    assert "available" == driver.info("orders").state
    assert "orders: deleted\n" == orders("delete", "orders", "--yes", "orders").stdout
    assert "" == orders("list").stdout
    assert ["orders-final"] == [line[:12] for line in orders("snapshots", "orders").stdout.splitlines()]
    assert 1 == orders("delete", "orders").exit_code  # there is nothing to confirm


def test_a_protected_server_is_not_deleted(run: Run, folder: Path) -> None:
    (folder / "shiftable.toml").write_text(FILE.replace("deletion_protection = false\n", ""))
    assert 0 == run("create", "orders").exit_code
    refused = run("delete", "orders", "--yes", "orders")
    assert (1, True) == (refused.exit_code, "protected from deletion" in refused.stderr)
    assert "--unprotect" in refused.stderr
    assert 2 == run("delete", "orders", "--unprotect", "--yes", "ordres").exit_code
    assert run("show", "orders", "--json").stdout.count('"deletion_protection": true') == 1
    assert 0 == run("delete", "orders", "--unprotect", "--yes", "orders").exit_code
    assert 1 == run("show", "orders").exit_code


def test_a_restored_copy_that_is_protected_is_deleted_stopped_or_not(run: Run, folder: Path) -> None:
    (folder / "shiftable.toml").write_text(FILE.replace("deletion_protection = false\n", ""))
    assert 0 == run("create", "orders").exit_code
    assert 0 == run("snapshot", "orders", "before").exit_code
    assert 0 == run("restore", "orders", "back", "--snapshot", "before").exit_code
    assert 0 == run("stop", "orders").exit_code
    for server, name in (("memory:back", "back"), ("orders", "orders")):
        gone = run("delete", server, "--unprotect", "--yes", name)
        assert (0, f"{name}: deleted\n") == (gone.exit_code, gone.stdout)


# mistakes


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("show", "ordres"), 2, "declares no [database.ordres]; did you mean orders?"),
        (("show", "memory:"), 2, "'memory:' is no database; say LABEL of [database.LABEL], or PROVIDER:NAME"),
        (("show", "nowhere:x"), 2, "has no [providers.nowhere]"),
        (("show", "orders"), 1, "database.info on database 'orders' (memory): there is no such server"),
        (("show", "memory:Not_A_Name"), 1, "the name must be lower-case letters"),
        (("shell", "orders"), 2, "orders is only simulated: there is no server to connect to"),
        (("stop", "orders", "--timeout", "soon"), 2, "'soon' is no duration"),
    ],
)
def test_a_mistake_is_one_sentence_and_a_code(run: Run, words: tuple[str, ...], code: int, said: str) -> None:
    answer = run(*words)
    assert (code, True) == (answer.exit_code, said in answer.stderr), answer.stderr
    assert "Traceback" not in answer.output


def test_a_wait_that_is_interrupted_says_that_it_goes_on(orders: Run, driver: Sized) -> None:
    driver._delay = timedelta(hours=1)
    driver.interrupt = lambda state: state == "stopping"
    answer = orders("stop", "orders")
    assert 130 == answer.exit_code
    assert "interrupted; orders: it goes on at the provider" in answer.stderr
    driver.interrupt = lambda state: False
    taken = orders("snapshot", "orders", "s")
    assert (1, True) == (taken.exit_code, "it is stopping" in taken.stderr)


def test_a_wait_that_takes_too_long_is_a_failure(orders: Run, driver: Sized) -> None:
    driver._delay = timedelta(hours=1)
    answer = orders("stop", "orders", "--timeout", "0s")
    assert (1, True) == (answer.exit_code, "waited 0:00:00 for database 'orders' to be stopped" in answer.stderr)


def test_labels_are_completed(folder: Path, completed: Callable[..., list[str]]) -> None:
    (folder / "shiftable.toml").write_text(FILE)
    assert ["orders"] == completed("shiftable db show o")
    assert ["shell", "show"] == completed("shiftable db sh")
    assert ["memory"] == completed("shiftable db list ")


GUIDE = (Path(__file__).parents[2] / "docs/how-to/databases.md").read_text("utf-8")


def test_the_commands_of_the_guide_exist_as_they_stand_there() -> None:
    lines = [line.removeprefix("$ shiftable db ") for line in GUIDE.splitlines() if line.startswith("$ shiftable db ")]
    assert 14 == len(lines)
    for line in lines:
        name, *arguments = shlex.split(line, comments=True)
        command = db.get_command(click.Context(db), name)
        assert command is not None, line
        command.make_context(name, arguments)


def test_the_declarations_of_the_guide_are_right(folder: Path) -> None:
    first, login, token, office, archive = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
    head = '[project]\nname = "shop"\n[environments.production]\nprovider = "memory"\n[secrets.app]\n[blob.backups]\n'
    archived = office + archive.splitlines()[-1]
    for text in (
        first,
        *(first + more.partition("\n")[2] for more in (login, token)),
        *(first + more for more in (office, archived)),
    ):
        (folder / "shiftable.toml").write_text(head + text)
        (declared,) = load(folder).declared("database")
        assert "orders" == declared.spec.name


# a prompt

CANARY = "c4n4ry:p\\w{0}'$"

START = """
import attrs, sys
from pathlib import Path
from shiftable.database import DatabaseInfo, Server
from shiftable.memory import MemoryProvider
from shiftable.memory.database import FEATURES, MemoryDatabaseDriver

class Real(MemoryDatabaseDriver):
    def info(self, name):
        where = Server(host="{host}", port={port}, admin="{user}", tls={tls}, ca=Path("/ca.pem") if {tls} else None)
        return attrs.evolve(MemoryDatabaseDriver.info(self, name), server=where)

driver = Real(attrs.evolve(FEATURES, connect=True))
MemoryProvider.database = lambda _: driver
from shiftable import load
app = load()
app.service(app.declared("database")[0]).create(app.spec(app.declared("database")[0]))
from shiftable.cli import main
main()
"""


def _shell(
    folder: Path,
    *arguments: str,
    path: str | None = None,
    engine: str = "postgresql",
    env: dict[str, str] | None = None,
    tls: bool = False,
    stdin: str = "",
    **where: object,
) -> subprocess.CompletedProcess[str]:
    text = FILE.replace('"postgresql"', f'"{engine}"').replace('databases = ["shop"]', 'databases = ["postgres"]')
    (folder / "shiftable.toml").write_text(text.replace('{ secret = "app/db/orders" }', '{ env = "DB_CANARY" }'))
    facts = {"host": "127.0.0.1", "port": 1, "user": "shell_user", "tls": tls, **where}
    code = START
    for name, value in facts.items():
        code = code.replace("{" + name + "}", str(value))
    variables = {**os.environ, "DB_CANARY": CANARY, **(env or {})}
    if path is not None:
        variables["PATH"] = path
    command = [sys.executable, "-c", code, "db", "shell", "orders", *arguments]
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, check=False, cwd=folder, env=variables, timeout=60
    )


@pytest.fixture
def shell_user(postgresql_cluster: Cluster) -> Any:
    name = sql.Identifier("shell_user")
    with postgresql_cluster.connect(autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(name, sql.Literal(CANARY)))
        yield "shell_user"
        connection.execute(sql.SQL("DROP ROLE {}").format(name))


def test_a_real_psql_logs_in_with_a_password_that_nobody_sees(
    folder: Path, postgresql_cluster: Cluster, shell_user: str
) -> None:
    look = r"\! tr '\0' '\n' < /proc/$PPID/environ; tr '\0' '\n' < /proc/$PPID/cmdline"
    script = f"SELECT current_user || '@' || current_database();\n{look}\n"
    answer = _shell(
        folder,
        "--",
        "-XAtq",
        port=postgresql_cluster.port,
        stdin=script,
        path=f"{postgresql_cluster.binaries.folder}:{os.environ['PATH']}",
        env={"PGPASSWORD": "of something else", "PGHOST": "elsewhere.invalid", "PGSERVICE": "x"},
    )
    assert (0, "") == (answer.returncode, answer.stderr)
    lines = answer.stdout.splitlines()
    assert "shell_user@postgres" == lines[0]
    assert "-XAtq" == lines[-1]
    # what was named by us is gone with the test's own variable, which stands for the secret store
    assert [] == [line for line in lines if "c4n4ry" in line and not line.startswith("DB_CANARY=")]
    assert [] == [line for line in lines if line.startswith(("PGPASSWORD", "PGSERVICE"))]
    assert [] == [path for path in folder.rglob("*") if path.is_file() and "c4n4ry" in path.read_text(errors="replace")]


def test_the_exit_code_and_the_database_are_those_of_the_client(
    folder: Path, postgresql_cluster: Cluster, shell_user: str
) -> None:
    where = {"port": postgresql_cluster.port, "path": f"{postgresql_cluster.binaries.folder}:{os.environ['PATH']}"}
    other = _shell(folder, "template1", "-XAtc", "SELECT current_database()", **where)
    assert (0, "template1\n") == (other.returncode, other.stdout)
    failed = _shell(folder, "-XAt", "-v", "ON_ERROR_STOP=1", "-c", "SELECT 1/0", **where)
    assert (1, True) == (failed.returncode, "division by zero" in failed.stderr)
    wrong = _shell(folder, "--", "-XAtc", "SELECT 1", user="nobody_here", **where)
    assert 2 == wrong.returncode
    assert "c4n4ry" not in wrong.stderr


CLIENT = """\
#!{python}
import json, os, pathlib, stat, sys
if sys.argv[1:] == ["--version"]:
    print("{version}")
    raise SystemExit
path = next(word.split("=", 1)[1] for word in sys.argv if word.startswith("--defaults-extra-file="))
found = os.stat(path)
print(json.dumps({{"argv": sys.argv[1:], "env": dict(os.environ), "file": pathlib.Path(path).read_text(),
                  "mode": stat.S_IMODE(found.st_mode)}}))
"""


@pytest.mark.parametrize(
    ("version", "verifies"),
    [
        ("mariadb from 11.4.2-MariaDB, client 15.2", 'ssl-verify-server-cert="1"'),
        ("mysql  Ver 8.4.0 for Linux", 'ssl-mode="VERIFY_IDENTITY"'),
    ],
)
def test_mysqls_client_reads_everything_from_a_file_that_has_no_name(folder: Path, version: str, verifies: str) -> None:
    programs = folder / "bin"
    programs.mkdir()
    (programs / "mysql").write_text(CLIENT.format(python=sys.executable, version=version))
    (programs / "mysql").chmod(0o755)
    answer = _shell(folder, "--", "--table", path=str(programs), engine="mysql", env={"MYSQL_PWD": "other"}, tls=True)
    assert (0, "") == (answer.returncode, answer.stderr)
    seen = json.loads(answer.stdout)
    assert seen["argv"][0].startswith("--defaults-extra-file=/dev/fd/")
    assert ["postgres", "--table"] == seen["argv"][1:]
    assert "MYSQL_PWD" not in seen["env"]
    assert [] == [name for name, value in seen["env"].items() if "c4n4ry" in value and name != "DB_CANARY"]
    assert stat.S_IRUSR | stat.S_IWUSR == seen["mode"]
    lines = seen["file"].splitlines()
    assert "[client]" == lines[0]
    password = CANARY.replace("\\", "\\\\")
    for line in ('user="shell_user"', f'password="{password}"', 'ssl-ca="/ca.pem"', 'protocol="tcp"', verifies):
        assert line in lines, line


def test_a_client_that_is_missing_is_named(folder: Path) -> None:
    answer = _shell(folder, engine="mariadb", path=str(folder))
    assert 2 == answer.returncode
    assert "error: there is no mariadb and no mysql on this machine; install the client of mariadb\n" == answer.stderr
