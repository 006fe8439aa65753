"""Machines of QEMU when things go wrong: killed processes, several at once, full disks, monitors that hang."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

import shiftable
from shiftable.compute import Compute, FleetSpec, Machine, Rule
from shiftable.compute._rules import token_of
from shiftable.errors import (
    AlreadyExists,
    ConfigError,
    Conflict,
    InvalidArgument,
    NotFound,
    OperationError,
    PermissionDenied,
    QuotaExceeded,
    Unavailable,
    Unsupported,
)
from shiftable.testing.conformance.compute import small_fleet
from shiftable_baremetal import _qemu_monitor, _qemu_probe
from shiftable_baremetal._qemu_files import Area, Definition, Home
from shiftable_baremetal._qemu_images import Source
from shiftable_baremetal._qemu_monitor import Monitor, MonitorError
from shiftable_baremetal._qemu_process import ProgramError
from shiftable_baremetal.compute import QemuComputeDriver, classify

CANARY = "canary-" + "5e1f" * 4


@pytest.fixture
def compute(qemu: Any) -> Compute:
    found: Compute = qemu.compute()
    return found


@pytest.fixture
def machine(compute: Compute) -> Machine:
    compute.create(small_fleet()).wait()
    return compute.fleet("conf").machine("conf-0")


# programs


def test_where_qemu_is_missing_it_is_said_how_to_get_it(qemu: Any, tmp_path: Path) -> None:
    driver = QemuComputeDriver(qemu.root, tmp_path, own={"debian-12": qemu.folder / "images" / "debian-12"})
    compute = Compute(driver)
    how = r"apt install qemu-system-x86 qemu-utils.*dnf install.*brew install qemu"
    with pytest.raises(Unsupported, match=how):
        compute.create(small_fleet())
    assert list(compute.list()) == []
    assert qemu.left() == []
    with pytest.raises(ConfigError, match=how):
        compute.create_disk("orders", 1)


def test_without_qemu_no_image_is_fetched(qemu: Any, tmp_path: Path) -> None:
    nowhere = Source("http://127.0.0.1:9/disk.qcow2", "http://127.0.0.1:9/SHA512SUMS")
    compute = Compute(QemuComputeDriver(qemu.root, tmp_path, own={}, sources={"debian-12": nowhere}))
    with pytest.raises(Unsupported, match="this provider has no QEMU on this computer"):
        compute.create(small_fleet())


@pytest.mark.parametrize("program", ["qemu-system-x86_64", "qemu-img"])
def test_a_declaration_needs_all_of_qemu(qemu: Any, program: str) -> None:
    compute = Compute(QemuComputeDriver(qemu.root, qemu.programs))
    assert compute.missing_features(small_fleet()) == ()
    (qemu.programs / program).unlink()
    (why,) = compute.missing_features(small_fleet())
    assert "QEMU on this computer (apt install" in why


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ProgramError("write failed: No space left on device"), QuotaExceeded),
        (ProgramError("cannot set up guest memory 'pc.ram': Cannot allocate memory"), QuotaExceeded),
        (ProgramError("Could not access KVM kernel module: Permission denied"), PermissionDenied),
        (ProgramError("Could not open 'disk': Permission denied"), PermissionDenied),
        (ProgramError('Failed to get "write" lock'), Conflict),
        (ProgramError("Could not set up host forwarding rule 'tcp:127.0.0.1:1-:22'"), Conflict),
        (ProgramError("another QEMU is still running here"), Conflict),
        (ProgramError("Could not open 'base': No such file or directory"), NotFound),
        (ProgramError("Image is not in qcow2 format"), InvalidArgument),
        (ProgramError("it ended with status 139"), Unavailable),
        (MonitorError("Duplicate nodes with node-name='x'", "GenericError"), Conflict),
        (MonitorError("Device 'x' not found", "DeviceNotFound"), NotFound),
        (MonitorError("the monitor of QEMU does not answer: timed out"), Unavailable),
        (OSError(28, "No space left on device"), QuotaExceeded),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, Exception) else None,
)
def test_what_qemu_says_has_a_class(error: Exception, expected: type[OperationError]) -> None:
    fault = classify(error)
    assert fault is not None
    assert fault.error is expected


def test_what_is_not_of_qemu_is_not_claimed() -> None:
    assert classify(KeyError("x")) is None


@pytest.mark.parametrize(
    ("step", "says", "error"),
    [
        ("info", "No space left on device", QuotaExceeded),
        ("create", "No space left on device", QuotaExceeded),
        ("qemu-system-x86_64", "cannot set up guest memory: Cannot allocate memory", QuotaExceeded),
        ("qemu-system-x86_64", "Could not set up host forwarding rule", Conflict),
    ],
)
def test_a_creation_that_fails_halfway_leaves_nothing(
    qemu: Any, compute: Compute, step: str, says: str, error: type[OperationError]
) -> None:
    qemu.order("refuse", f"{step} {says}")
    with pytest.raises(error, match=says):
        compute.create(small_fleet(count=2))
    assert (qemu.left(), qemu.living(), list(compute.debris())) == ([], [], [])
    qemu.cancel("refuse")
    assert len(compute.create(small_fleet(count=2)).wait()) == 2


def test_a_snapshot_that_fails_leaves_the_machine_running(qemu: Any, compute: Compute, machine: Machine) -> None:
    before = qemu.left()
    qemu.order("refuse", "convert No space left on device")
    with pytest.raises(QuotaExceeded):
        machine.snapshot("golden")
    assert (machine.info().state, machine.info().raw_state) == ("running", "running")
    assert [image for image in compute.images() if image.own] == []
    assert [left for left in qemu.left() if left not in before] == [".images"]


def test_a_machine_whose_disk_is_full_says_so_and_goes_on(qemu: Any, machine: Machine) -> None:
    qemu.order("status", "io-error")
    assert (machine.info().state, machine.info().raw_state) == ("failed", "io-error")
    with pytest.raises(Conflict):
        machine.reboot()
    machine.start()
    assert machine.info().state == "running"
    qemu.order("status", "guest-panicked")
    machine.stop()
    assert (machine.info().state, qemu.living()) == ("stopped", [])


# several processes


def test_another_process_lists_and_drives_the_machines(qemu: Any, machine: Machine) -> None:
    other = """
        import sys
        from pathlib import Path
        from shiftable.compute import Compute
        from shiftable_baremetal.compute import QemuComputeDriver
        (machine,) = Compute(QemuComputeDriver(Path(sys.argv[1]), Path(sys.argv[2]))).fleet("conf").machines()
        machine.stop()
        print(machine.id, machine.wait("stopped").state)
    """
    call = [sys.executable, "-c", textwrap.dedent(other), str(qemu.root), str(qemu.programs)]
    told = subprocess.run(call, check=True, capture_output=True, text=True).stdout.split()
    assert told == [machine.id, "stopped"]
    assert (machine.info().state, qemu.living()) == ("stopped", [])
    machine.start()
    assert machine.wait().id == machine.id


def test_a_machine_outlives_the_process_that_made_it(qemu: Any) -> None:
    maker = """
        import sys
        from pathlib import Path
        from shiftable.compute import Compute, FleetSpec
        from shiftable_baremetal.compute import QemuComputeDriver
        own = {"debian-12": Path(sys.argv[3])}
        driver = QemuComputeDriver(Path(sys.argv[1]), Path(sys.argv[2]), own=own, accelerator="tcg")
        Compute(driver).create(FleetSpec(name="conf", image="debian-12", cpus=1, memory_gib=1))
    """
    image = qemu.folder / "images" / "debian-12"
    call = [sys.executable, "-c", textwrap.dedent(maker), str(qemu.root), str(qemu.programs), str(image)]
    subprocess.run(call, check=True)
    (found,) = qemu.compute().fleet("conf").machines()
    assert (found.seen.state, len(qemu.living())) == ("running", 1)


def test_many_who_make_the_same_machine_get_one(qemu: Any) -> None:
    driver, ids, size = qemu.driver(), [], qemu.driver().choose(small_fleet()).size

    def make() -> None:
        made = driver.create_machine(small_fleet(), "conf-0", size=size, token=token_of("conf-0"), user_data=None)
        ids.append(made.id)

    threads = [threading.Thread(target=make) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(ids), len(set(ids)), len(qemu.living())) == (5, 1, 1)


def test_a_name_that_is_taken_by_another_fleet_is_refused(qemu: Any, machine: Machine) -> None:
    driver, spec = qemu.driver(), attrs.evolve(small_fleet(), name="other")
    size = driver.choose(spec).size
    for fleet, token in (("other", token_of("conf-0")), ("conf", token_of("conf-1"))):
        wrong = attrs.evolve(spec, name=fleet)
        with pytest.raises(Exception, match="there is a machine 'conf-0', of the fleet 'conf'") as caught:
            driver.create_machine(wrong, "conf-0", size=size, token=token, user_data=None)
        fault = driver.classify(caught.value)
        assert fault is not None
        assert fault.error is AlreadyExists
    assert machine.info().state == "running"


def test_a_name_that_leads_out_of_the_root_is_refused(qemu: Any) -> None:
    driver = qemu.driver()
    size = driver.choose(small_fleet()).size
    for name in ("../out", "a/b", ".hidden", ""):
        with pytest.raises(Exception, match="a machine's name is that of a host"):
            driver.create_machine(small_fleet(), name, size=size, token="x", user_data=None)
    for id_ in ("../out.x", "conf-0", "..", ""):
        with pytest.raises(Exception, match="there is no such machine"):
            driver.machine(id_)
    assert qemu.left() == []


# killed processes


def test_a_machine_whose_qemu_was_killed_is_stopped_and_starts_again(qemu: Any, machine: Machine) -> None:
    qemu.kill()
    assert (machine.info().state, machine.info().addresses, machine.info().ports) == ("stopped", (), {})
    with pytest.raises(Conflict):
        machine.reboot()
    machine.start()
    assert machine.wait().id == machine.id


def test_nobody_elses_process_is_killed(qemu: Any, compute: Compute, machine: Machine) -> None:
    qemu.kill()
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        (qemu.root / "conf-0" / "pid").write_text(str(bystander.pid))
        assert machine.info().state == "stopped"
        compute.delete("conf")
        assert bystander.poll() is None
    finally:
        bystander.communicate(b"\n")
    assert qemu.left() == []


def test_locks_of_the_dead_hold_nobody_up(qemu: Any) -> None:
    qemu.root.mkdir(mode=0o700)
    for name in (".lock~conf-0", ".lock~.disks", ".lock~.images"):
        (qemu.root / name).touch()
    compute = qemu.compute()
    compute.create(small_fleet()).wait()
    compute.delete("conf")
    assert qemu.left() == []


STEPS = frozenset({"os.mkdir", "os.rename", "os.remove", "subprocess.Popen", "socket.connect", "fcntl.flock"})


def _die_at(number: int) -> None:
    """Kill this process when it is about to do the next thing that others can see."""
    left = [number]

    def hook(event: str, _: object) -> None:
        if event in STEPS:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _killed(act: Callable[[], object], step: int) -> bool:
    """Do something in a process that is killed at a step; tell whether it came to that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, which take no part in this
        child = os.fork()
    if child == 0:
        try:
            _die_at(step)
            act()
            os._exit(0)
        except BaseException:  # noqa: BLE001  the parent tells it by the status
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def _every_step(act: Callable[[], object]) -> Iterator[int]:
    """Yield after each step at which a process was killed, until one comes to its end."""
    for step in range(1, 200):
        killed = _killed(act, step)
        yield step
        if not killed:
            return
    raise AssertionError("it has no end")


def test_a_creation_that_is_killed_anywhere_is_done_again_and_leaves_nothing(qemu: Any) -> None:
    spec = small_fleet()
    for step in _every_step(lambda: qemu.compute().create(spec)):
        compute = qemu.compute()
        found = [each.seen.state for each in compute.fleet("conf").machines()]
        assert found in ([], ["running"]), step
        if found:
            assert compute.diff(spec) == ()
        else:
            for change in compute.diff(spec):
                compute.apply(change)
        assert [each.name for each in compute.fleet("conf").wait()] == ["conf-0"]
        assert len(qemu.living()) == 1
        compute.delete("conf")
        assert (qemu.left(), qemu.living(), list(compute.debris())) == ([], [], []), step
    assert step > 5


def test_a_deletion_that_is_killed_anywhere_is_finished_by_a_sweep(qemu: Any) -> None:
    spec = small_fleet()
    compute = qemu.compute()
    compute.create(spec).wait()
    for step in _every_step(lambda: qemu.compute().delete("conf")):
        if compute.exists("conf"):
            assert compute.fleet("conf").machine("conf-0").info().state in {"running", "stopped"}, step
            compute.delete("conf")
        for left in compute.debris():
            assert left.name == "conf-0"
        compute.sweep(older_than=timedelta(0))
        assert (qemu.left(), qemu.living()) == ([], []), step
        compute.create(spec).wait()
    assert step > 3


def test_a_snapshot_that_is_killed_anywhere_lets_the_machine_go_on(qemu: Any) -> None:
    compute = qemu.compute()
    (machine,) = compute.create(small_fleet()).machines()
    for step in _every_step(lambda: machine.snapshot("golden")):
        assert machine.info().state == "running", step
        made = [image for image in compute.images() if image.own]
        if made:
            compute.delete_image("golden")
        machine.reboot()
        assert machine.info().raw_state == "running", step
        compute.sweep()
    assert step > 5


def test_an_attachment_that_is_killed_anywhere_is_done_again(qemu: Any) -> None:
    compute = qemu.compute()
    (machine,) = compute.create(small_fleet()).machines()
    disk = compute.create_disk("data", 1)
    for act, wanted in ((machine.attach, (disk.id,)), (machine.detach, ())):
        undo = machine.detach if wanted else machine.attach
        for step in _every_step(lambda: act(disk.id)):  # noqa: B023  used up before the next
            assert machine.info().state == "running", step
            act(disk.id)
            assert machine.info().disks == wanted, step
            with Monitor(qemu.root / "conf-0" / "monitor") as monitor:
                there = {each["name"] for each in monitor.ask("qom-list", {"path": "/machine/peripheral"})}
            assert (disk.id in there) is bool(wanted), step
            undo(disk.id)
        act(disk.id)


def test_a_resize_that_is_killed_anywhere_is_whole_or_not_at_all(qemu: Any) -> None:
    compute = qemu.compute()
    (machine,) = compute.create(small_fleet()).machines()
    machine.stop()
    machine.wait("stopped")
    for _ in _every_step(lambda: machine.resize(cpus=4)):
        assert machine.info().cpus in {1, 4}
        machine.resize(cpus=1)
        assert machine.info().cpus == 1


def test_a_labelling_that_is_killed_anywhere_is_whole_or_not_at_all(qemu: Any) -> None:
    before, after = {"team": "shop", "stage": "test"}, {"team": "data", "note": "x"}
    (machine,) = qemu.compute().create(attrs.evolve(small_fleet(), labels=before)).machines()
    found = []
    for _ in _every_step(lambda: machine.relabel(after, remove=["stage"])):
        found.append(machine.info().user_labels)
        machine.relabel(before, remove=["note"])
    assert [labels for labels in found if labels not in (before, after)] == []
    assert found[-1] == after
    assert machine.info().state == "running"


def test_a_machine_that_vanishes_before_it_is_labelled_is_missing(qemu: Any, machine: Machine) -> None:
    (same,) = qemu.compute().fleet("conf").machines()
    same.delete()
    with pytest.raises(NotFound):
        machine.relabel({"team": "data"})
    assert qemu.left() == []


def test_opening_ports_that_is_killed_anywhere_is_done_again(qemu: Any) -> None:
    compute = qemu.compute()
    (machine,) = compute.create(small_fleet()).machines()
    opened = attrs.evolve(small_fleet(), open_ports=(443, 8080))

    def become(spec: FleetSpec) -> None:
        for change in compute.diff(spec):
            compute.apply(change)

    for step in _every_step(lambda: become(opened)):
        become(opened)
        assert (compute.diff(opened), sorted(machine.info().ports)) == ((), [22, 443, 8080]), step
        become(small_fleet())
        assert (machine.info().firewall, sorted(machine.info().ports)) == ((), [22]), step
    assert step > 3


# stopping, and monitors that hang


def test_a_machine_that_ignores_its_button_is_ended_after_a_while(qemu: Any, machine: Machine) -> None:
    qemu.order("linger")
    machine.stop()
    assert machine.info().state == "stopping"
    with pytest.raises(Conflict, match="stopping"):
        machine.start()
    other = qemu.compute(patience=0).fleet("conf").machine("conf-0")  # whoever looks ends it
    assert (other.info().state, qemu.living()) == ("stopped", [])
    machine.start()
    assert machine.wait().state == "running"


def test_a_monitor_that_hangs_holds_up_nothing(
    qemu: Any, compute: Compute, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_qemu_monitor, "PATIENCE", 0.2)
    qemu.order("hang")
    info = machine.info()
    assert info.state == "unknown"
    assert "does not answer" in info.raw_state
    with pytest.raises(Conflict, match="unknown"):
        machine.reboot()
    machine.stop()
    assert machine.wait("stopped").raw_state == "no process"
    machine.start()
    assert machine.info().state == "unknown"
    compute.delete("conf")
    assert (qemu.left(), qemu.living()) == ([], [])


@pytest.mark.parametrize(
    "told",
    [b"", b'{"QMP":', b"hello\n", b"[1]\n", b'{"QMP": {}}\n{"error": {"class": "C", "desc": "no"}}\n', b"x" * 2**25],
    ids=["nothing", "half", "text", "list", "error", "endless"],
)
def test_a_monitor_that_is_none_is_told(tmp_path: Path, told: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_qemu_monitor, "PATIENCE", 2.0)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "m"))
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                try:
                    connection.sendall(told)
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(MonitorError), Monitor(tmp_path / "m") as monitor:
            monitor.status()
        thread.join()


def test_a_monitor_far_down_is_reached(make_qemu: Callable[[Path], Any], tmp_path: Path) -> None:
    deep = tmp_path / "/".join(["a-folder-with-a-long-name"] * 6)
    compute = make_qemu(deep).compute()
    assert len(os.fsencode(deep)) > 108
    assert compute.create(small_fleet()).wait()[0].state == "running"


# ports


def test_ports_lead_to_the_machine_from_this_computer_alone(qemu: Any, compute: Compute) -> None:
    rules = (Rule(port=53, protocol="udp"), Rule(port=8000, last_port=8002))
    (info,) = compute.create(attrs.evolve(small_fleet(), open_ports=(443,), rules=rules)).wait()
    assert (info.addresses, sorted(info.ports)) == (("127.0.0.1",), [22, 53, 443, 8000, 8001, 8002])
    with socket.create_connection(("127.0.0.1", info.ports[443]), timeout=5):
        pass
    forwards = [word for word in qemu.calls().replace('"', ",").split(",") if word.startswith("hostfwd=")]
    assert len(forwards) == 6
    assert all(forward.split(":")[1] == "127.0.0.1" for forward in forwards)


def test_too_many_ports_are_refused(qemu: Any, compute: Compute) -> None:
    with pytest.raises(InvalidArgument, match="65,535 ports"):
        compute.create(attrs.evolve(small_fleet(), rules=(Rule(port=1, last_port=65535),)))
    assert qemu.left() == []


# images


def test_an_image_that_machines_were_made_from_is_not_deleted(qemu: Any, compute: Compute, machine: Machine) -> None:
    image = machine.snapshot("golden")
    compute.create(attrs.evolve(small_fleet("twin"), image=image.id)).wait()
    with pytest.raises(Conflict, match="twin-0"):
        compute.delete_image(image.id)
    for name in ("debian-12", "../out", "Upper", ""):
        with pytest.raises(InvalidArgument):
            machine.snapshot(name)
    with pytest.raises(AlreadyExists):
        machine.snapshot("golden")
    assert machine.info().state == "running"


def test_an_image_is_not_deleted_under_a_machine_that_is_just_being_made(
    qemu: Any, compute: Compute, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, told, real = machine.snapshot("golden"), [], Home.write

    def write(self: Home, definition: Definition) -> None:
        real(self, definition)
        with pytest.raises(Conflict, match="twin-0") as caught:
            qemu.compute().delete_image(image.id)
        told.append(caught.value)

    monkeypatch.setattr(Home, "write", write)
    compute.create(attrs.evolve(small_fleet("twin"), image=image.id)).wait()
    assert len(told) == 1
    monkeypatch.undo()
    compute.delete("twin")
    take_away = Area.take_away

    def taken(self: Area, name: str, place: Path) -> Path:
        gone = take_away(self, name, place)
        compute.create(attrs.evolve(small_fleet("late"), image="debian-12"))
        home = self.home("late-0")
        definition = home.definition()
        assert definition is not None
        home.write(attrs.evolve(definition, image=image.id))  # as one that began before
        return gone

    monkeypatch.setattr(Area, "take_away", taken)
    with pytest.raises(Conflict, match="late-0"):
        compute.delete_image(image.id)
    assert [found.id for found in compute.images() if found.own] == [image.id]


def test_an_image_that_is_not_there_is_refused_before_anything_is_made(
    qemu: Any, compute: Compute, tmp_path: Path
) -> None:
    for image in ("debian-99", "relative/path", "/nowhere/at/all", "../x", ".cache"):
        with pytest.raises(InvalidArgument, match="there is no image"):
            compute.create(attrs.evolve(small_fleet(), image=image))
    assert qemu.left() == []


def qcow2(*, backing: bytes = b"", bits: int = 16, data: int = 3, features: int = 0) -> bytes:
    """Return a qcow2 file with one cluster of data after its two tables, by QEMU's docs/interop/qcow2.txt."""
    cluster = 2**16
    head = b"QFI\xfb" + struct.pack(">IQIIQIIQ", 3, 200 if backing else 0, len(backing), bits, 2**20, 0, 1, cluster)
    head = (head.ljust(72, b"\0") + struct.pack(">Q", features)).ljust(200, b"\0") + backing
    tables = struct.pack(">Q", 2**63 | 2 * cluster), struct.pack(">QQ", 2**63 | (data * cluster), 1 | 2**50)
    return b"".join(part.ljust(cluster, b"\0") for part in (head, *tables, b"data"))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is an empty file"),
        (b"<html>not found</html>", "is neither qcow2 nor raw: no disk has 22 bytes"),
        (qcow2()[:20], "was cut off"),
        (qcow2()[:60], "was cut off"),
        (qcow2()[: 2**16], "was cut off"),  # before its first table
        (qcow2(data=1)[: 2**17 + 100], "was cut off"),  # in the second
        (qcow2()[: 3 * 2**16], "was cut off"),  # before its data
        (qcow2(data=2**62 // 2**16 + 3)[: 3 * 2**16], "was cut off"),  # which are compressed
        (qcow2(bits=70), "is damaged: no qcow2 file has clusters of 2\\^70 bytes"),
        (qcow2(backing=b"base"), "reads another file, 'base', which is not there"),
        (qcow2(backing=b"file:/nowhere/base"), "reads another file, '/nowhere/base', which is not there"),
    ],
)
def test_a_file_that_is_no_image_is_refused_before_anything_is_made(
    qemu: Any, compute: Compute, tmp_path: Path, content: bytes, why: str
) -> None:
    (tmp_path / "image").write_bytes(content)
    with pytest.raises(InvalidArgument, match=f"the image {tmp_path}/image {why}"):
        compute.create(attrs.evolve(small_fleet(), image=str(tmp_path / "image")))
    assert qemu.left() == []


@pytest.mark.parametrize(
    "content",
    [
        bytes(512),
        qcow2(),
        qcow2(data=2**62 // 2**16 + 3),
        qcow2(backing=b"base"),
        qcow2(backing=b"file:base"),
        qcow2(backing=b"nbd://127.0.0.1/base"),
        qcow2(backing=b"json:{}"),
        qcow2(data=99, features=4),  # which lie in another file
        qcow2(data=99, features=16),  # not its place, but what is used of a longer entry
    ],
)
def test_an_image_that_is_whole_is_taken(qemu: Any, compute: Compute, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "base").write_bytes(bytes(512))
    (tmp_path / "image").write_bytes(content)
    (info,) = compute.create(attrs.evolve(small_fleet(), image=str(tmp_path / "image"))).wait()
    assert info.image == str(tmp_path / "image")


def test_an_image_that_was_mended_is_taken(qemu: Any, compute: Compute, tmp_path: Path) -> None:
    spec = attrs.evolve(small_fleet(), image=str(tmp_path / "image"))
    (tmp_path / "image").write_bytes(qcow2(bits=70))
    with pytest.raises(InvalidArgument, match="is damaged"):
        compute.create(spec)
    (tmp_path / "image").write_bytes(qcow2())
    assert len(compute.create(spec).wait()) == 1
    (tmp_path / "image").write_bytes(qcow2(bits=70))
    with pytest.raises(InvalidArgument, match="is damaged"):
        compute.create(attrs.evolve(spec, name="other"))


def test_the_file_of_a_declared_image_is_named_if_it_is_not_there(qemu: Any, tmp_path: Path) -> None:
    compute = qemu.compute(own={"golden": tmp_path / "gone"})
    with pytest.raises(InvalidArgument, match=f"'golden' is to be in {tmp_path}/gone, and there is no such file"):
        compute.create(attrs.evolve(small_fleet(), image="golden"))


def test_a_disk_is_never_smaller_than_its_image(qemu: Any, compute: Compute, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(31 * 2**30 + 512)
    (info,) = compute.create(attrs.evolve(small_fleet(), image=str(large))).wait()
    assert (info.image, info.disk_gib) == (str(large), 32)


# the accelerator


def test_an_accelerator_that_boots_nothing_is_not_taken_and_not_tried_again(
    qemu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_qemu_probe, "_candidate", lambda: "kvm")
    compute = qemu.compute(accelerator="auto")
    compute.create(small_fleet(count=2)).wait()
    calls = [json.loads(line) for line in qemu.calls().splitlines()]
    probes = [call for call in calls if any("isa-debug-exit" in word for word in call)]
    machines = [call for call in calls if "-daemonize" in call]
    assert [("q35,accel=tcg" in call, "q35,accel=kvm" in call) for call in probes] == [(True, False), (False, True)]
    assert [call[call.index("-machine") + 1] for call in machines] == ["q35,accel=tcg"] * 2
    kept = qemu.root / ".accelerator.json"
    kept.write_text(kept.read_text().replace("Linux", "another").replace("Darwin", "another"))
    compute.create(small_fleet("more")).wait()
    assert qemu.calls().count("isa-debug-exit") == 4


# secrets


def test_user_data_lies_in_the_seed_alone(qemu: Any, compute: Compute, capfd: pytest.CaptureFixture[str]) -> None:
    spec = attrs.evolve(small_fleet(), user_data_text=f"#cloud-config\npassword: {CANARY}\n")
    (info,) = compute.create(spec).wait()
    holders = [path for path in qemu.folder.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    assert [str(path.relative_to(qemu.root)) for path in holders] == ["conf-0/seed"]
    assert [oct(path.stat().st_mode & 0o777) for path in (*holders, qemu.root, qemu.root / "conf-0")] == [
        "0o600",
        "0o700",
        "0o700",
    ]
    assert CANARY not in qemu.calls() + repr(info) + repr(compute) + "".join(capfd.readouterr())


# listing


def test_250_machines_are_listed_in_three_calls(qemu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(250):
        name = f"web-{number}"
        definition = Definition(
            id=f"{name}.ab12cd34",
            name=name,
            fleet="web",
            token=token_of(name),
            image="debian-12",
            cpus=1,
            memory=2**30,
            disk_gib=20,
            user="shift",
            created=datetime.now(UTC),
        )
        home = Area(qemu.root).home(name)
        home.folder.mkdir(parents=True)
        home.write(definition)
    calls, real = [], QemuComputeDriver.machines

    def counted(self: QemuComputeDriver, *given: Any, **more: Any) -> Any:
        calls.append(more)
        return real(self, *given, **more)

    monkeypatch.setattr(QemuComputeDriver, "machines", counted)
    found = list(qemu.compute(page_size=100).fleet("web").machines())
    assert (len({each.id for each in found}), len(calls)) == (250, 3)
    assert {each.seen.state for each in found} == {"stopped"}


# as declared


def test_a_declaration_names_programs_images_and_a_kernel(qemu: Any, tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(b"kernel")
    (tmp_path / "shiftable.toml").write_text(
        textwrap.dedent(f"""
            [project]
            name = "shop"
            [environments.development]
            provider = "local"
            [providers.local]
            type = "baremetal"
            root = "{tmp_path}/data"
            [providers.local.qemu]
            programs = "{qemu.programs}"
            accelerator = "tcg"
            images = [{{ name = "golden", file = "{qemu.folder}/images/debian-12" }}]
            [compute.web]
            image = "golden"
            cpus = 1
            memory_gib = 1
            [compute.web.baremetal]
            kernel = "{kernel}"
            append = "console=ttyS0"
        """)
    )
    fleet = shiftable.load(tmp_path).compute("web")
    assert fleet.declared is not None
    provider = shiftable.connect("baremetal", root=tmp_path / "data")
    with shiftable.load(tmp_path) as app:
        (change,) = app.cloud("local").compute.diff(fleet.declared)
        app.cloud("local").compute.apply(change)
        (machine,) = app.compute("web").machines()
    (call,) = [json.loads(line) for line in qemu.calls().splitlines() if "-daemonize" in line]
    assert call[call.index("-kernel") + 1] == str(kernel)
    assert call[call.index("-append") + 1] == "console=ttyS0"
    assert [each.id for each in provider.compute.fleet("web").machines()] == [machine.id]
    machine.delete()
    assert (tmp_path / "data" / "compute" / "web-0").exists() is False
