"""As much of QEMU's two programs as the driver uses, so that its tests need no QEMU: run it, do not import it.

``python qemu_standin.py qemu-system-x86_64 …``, ``… qemu-system-aarch64 …`` and ``… qemu-img …`` take the options that
the driver gives and refuse others; the monitor speaks QMP and knows the commands that the driver gives. A machine
"boots" at once, listens where its ports are forwarded, and ends with its folder. What goes wrong is ordered by files
beside the programs: ``refuse`` (a word of the command line, and the text with which it fails), ``linger`` (machines
ignore their button), ``hang`` (monitors say nothing), ``status`` (what monitors say), ``data`` (where QEMU's data
lies). ``calls`` tells what was called, and ``born`` the processes.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

ORDERS = Path(os.environ["QEMU_STANDIN"])

ONCE = {
    "-name",
    "-machine",
    "-cpu",
    "-display",
    "-smp",
    "-m",
    "-netdev",
    "-chardev",
    "-bios",
    "-drive",
    "-serial",
    "-qmp",
    "-pidfile",
}
OFTEN = {"-blockdev", "-device"}
ALONE = {"-nodefaults", "-no-user-config", "-daemonize"}
KERNEL = {"-kernel", "-initrd", "-append"}
DEBUG_EXIT = 67


def fail(text: str, status: int = 1) -> None:
    sys.stderr.write(f"{Path(sys.argv[1]).name}: {text}\n")
    sys.exit(status)


def fields(text: str) -> dict[str, str]:
    parts = (part for part in re.split(r"(?<!,),(?!,)", text))
    return {key: value.replace(",,", ",") for key, _, value in (part.partition("=") for part in parts)}


# qemu-img: an image is a JSON file that begins as qcow2 does


def image(arguments: list[str]) -> None:
    if arguments[:4] == ["create", "-q", "-f", "qcow2"]:
        rest, backing = arguments[4:], None
        if rest[0] == "-b":
            backing, kind, rest = rest[1], rest[3], rest[4:]
            if not Path(backing).is_file():
                fail(f"{rest[0]}: Could not open '{backing}': No such file or directory")
            with Path(backing).open("rb") as file:
                begin = file.read(4)
            if (kind == "qcow2") is not (begin == b"QFI\xfb"):
                fail(f"{rest[0]}: Could not open backing image: Image is not in {kind} format")
        path, size = rest
        Path(path).write_bytes(content(backing, int(size.removesuffix("G")) * 2**30))
    elif arguments[:3] == ["info", "--output=json", "-f"]:
        _, _, _, kind, path = arguments
        size = read(path)["virtual-size"] if kind == "qcow2" else Path(path).stat().st_size
        print(json.dumps({"virtual-size": size, "format": kind}))  # noqa: T201  a program
    elif arguments[0] == "dd":
        _, _, kind, _, _, _, count, source, target = arguments
        with Path(source.removeprefix("if=")).open("rb") as file:
            data = file.read(512 * int(count.removeprefix("count="))) if kind == "raw" else b""
        Path(target.removeprefix("of=")).write_bytes(data)
    elif arguments[:4] == ["convert", "-U", "-O", "qcow2"]:
        _, _, _, _, source, target = arguments
        Path(target).write_bytes(content(None, read(source)["virtual-size"]))
    elif arguments[:4] == ["resize", "-q", "-f", "qcow2"]:
        _, _, _, _, target, size = arguments
        Path(target).write_bytes(content(read(target)["backing"], int(size.removesuffix("G")) * 2**30))
    else:
        fail(f"Invalid parameter {arguments}")


def content(backing: str | None, size: int) -> bytes:
    return b"QFI\xfb" + json.dumps({"backing": backing, "virtual-size": size}).encode()


def read(path: str) -> dict[str, Any]:
    data = Path(path).read_bytes()
    if not data.startswith(b"QFI\xfb"):
        fail(f"{path}: Image is not in qcow2 format")
    if data[4:5] == b"\0":  # QEMU's own
        return {"backing": None, "virtual-size": int.from_bytes(data[24:32], "big")}
    known: dict[str, Any] = json.loads(data[4:])
    if known["backing"] is not None and not Path(known["backing"]).is_file():
        fail(f"{path}: Could not open backing file '{known['backing']}': No such file or directory")
    return known


# qemu-system


def system(arguments: list[str]) -> None:
    once, often = options(arguments)
    check_board(once)
    for block in often["-blockdev"]:
        described = fields(block)
        path = described.get("file.filename") or described["filename"]
        if not Path(path).is_file():
            fail(f"-blockdev {block}: Could not open '{path}': No such file or directory")
        if described["driver"] == "qcow2":
            read(path)
    if "isa-debug-exit,iobase=0xf4,iosize=4" in often["-device"]:
        sys.exit(DEBUG_EXIT if "accel=tcg" in once["-machine"] else 1)
    kernel = once.get("-kernel")
    if kernel is not None and not Path(kernel).is_file():
        fail(f"could not open kernel file '{kernel}': No such file or directory")
    machine = Machine(once, often)
    ready, told = os.pipe()
    if os.fork():
        os.close(told)
        sys.exit(0 if os.read(ready, 1) else 1)
    os.setsid()
    if os.fork():
        os._exit(0)
    machine.serve(told)


def check_board(once: dict[str, str]) -> None:
    board, firmware = ("virt,", True) if "aarch64" in sys.argv[1] else ("q35,", False)
    if not once["-machine"].startswith(board) or ("-bios" in once) is not firmware:
        fail("unsupported machine type, or no firmware where there must be some")
    if "-drive" in once:
        flash = fields(once["-drive"])
        if (flash["if"], flash["format"], flash["readonly"]) != ("pflash", "raw", "on") or board != "q35,":
            fail("no flash that this board has")
        if not Path(flash["file"]).is_file():
            fail(f"Could not open '{flash['file']}': No such file or directory")
    if once.get("-serial") == "stdio":  # the probe
        print("shiftable" if "accel=tcg" in once["-machine"] else "")  # noqa: T201  a program
        sys.exit(0)


def options(arguments: list[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    once: dict[str, str] = {}
    often: dict[str, list[str]] = {option: [] for option in OFTEN}
    rest = list(arguments)
    while rest:
        option = rest.pop(0)
        if option in ALONE:
            continue
        if option in OFTEN:
            often[option].append(rest.pop(0))
        elif option in ONCE | KERNEL and option not in once:
            once[option] = rest.pop(0)
        else:
            fail(f"{option}: invalid option")
    return once, often


class Machine:
    def __init__(self, once: dict[str, str], often: dict[str, list[str]]) -> None:
        self.folder = os.open(".", os.O_RDONLY)
        self.status = "running"
        self.nodes = {fields(block)["node-name"]: block for block in often["-blockdev"]}
        self.devices = {fields(each)["id"] for each in often["-device"] if "id" in fields(each)}
        self.let_go: dict[str, int] = {}
        self.ports: dict[socket.socket, tuple[str, int]] = {}
        for forward in re.findall(r"hostfwd=([^,]+)", once["-netdev"]):
            self.forward(forward)
        self.listener = socket.socket(socket.AF_UNIX)
        path = fields(once["-qmp"].removeprefix("unix:"))
        self.listener.bind(next(iter(path)))
        self.listener.listen()
        self.console = Path(fields(once["-chardev"])["path"]).open("w", buffering=1)  # noqa: SIM115  as long as it runs
        self.console.write("booting\n")
        self.pid = Path(once["-pidfile"]).resolve()

    def forward(self, text: str) -> None:
        found = re.fullmatch(r"(tcp|udp):127\.0\.0\.1:0-:(\d+)", text)
        if found is None:
            fail(f"Could not set up host forwarding rule '{text}'")
        else:
            held = socket.socket(type=socket.SOCK_STREAM if found[1] == "tcp" else socket.SOCK_DGRAM)
            held.bind(("127.0.0.1", 0))
            if found[1] == "tcp":
                held.listen()
            self.ports[held] = found[1], int(found[2])

    def serve(self, told: int) -> None:
        self.pid.write_text(f"{os.getpid()}\n")
        with (ORDERS / "born").open("a") as born:
            born.write(f"{os.getpid()}\n")
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        os.chdir("/")
        os.write(told, b"1")
        os.close(told)
        while True:
            if select.select([self.listener], [], [], 0.5)[0]:
                connection, _ = self.listener.accept()
                with connection:
                    self.converse(connection)
            if not ORDERS.is_dir() or "machine.json" not in os.listdir(self.folder):  # noqa: PTH208  of a descriptor
                os._exit(0)

    def converse(self, connection: socket.socket) -> None:
        while (ORDERS / "hang").exists():
            time.sleep(0.05)
        stream = connection.makefile("rwb")
        try:
            self.say(stream, {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}, "capabilities": []}})
            if json.loads(stream.readline() or "{}").get("execute") != "qmp_capabilities":
                return
            self.say(stream, {"return": {}})
            for line in stream:
                asked = json.loads(line)
                self.say(stream, {"timestamp": {"seconds": 0, "microseconds": 0}, "event": "RTC_CHANGE"})
                self.say(stream, self.answer(asked["execute"], asked.get("arguments", {})))
        except OSError:
            return

    def say(self, stream: Any, told: object) -> None:
        stream.write(json.dumps(told).encode() + b"\r\n")
        stream.flush()

    def answer(self, command: str, given: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"return": self.act(command, given)}
        except (KeyError, ValueError) as exc:
            return {"error": {"class": "GenericError", "desc": str(exc.args[0])}}

    def act(self, command: str, given: dict[str, Any]) -> Any:
        verb = getattr(self, "do_" + command.replace("-", "_"), None)
        if verb is None:
            raise ValueError(f"The command {command} has not been found")
        told = verb(**{key.replace("-", "_"): value for key, value in given.items()})
        return {} if told is None else told

    def do_query_status(self) -> dict[str, Any]:
        ordered = ORDERS / "status"
        status = ordered.read_text() if ordered.exists() else self.status
        return {"status": status, "running": status == "running"}

    def do_stop(self) -> None:
        self.status = "paused"

    def do_cont(self) -> None:
        self.status = "running"
        (ORDERS / "status").unlink(missing_ok=True)

    def do_system_powerdown(self) -> None:
        if self.status == "running" and not (ORDERS / "linger").exists():
            os._exit(0)

    def do_system_reset(self) -> None:
        self.console.write("booting again\n")

    def do_quit(self) -> None:
        os._exit(0)

    def do_human_monitor_command(self, command_line: str) -> str:
        return self.human(command_line)

    def do_query_named_block_nodes(self, *, flat: bool) -> list[dict[str, str]]:
        return [{"node-name": name} for name in self.nodes if flat]

    def do_qom_list(self, path: str) -> list[dict[str, str]]:
        if path != "/machine/peripheral":
            raise ValueError(f"Device '{path}' not found")
        return [{"name": "type", "type": "string"}, *({"name": name, "type": "child"} for name in self.devices)]

    def do_blockdev_add(self, driver: str, node_name: str, file: dict[str, str]) -> None:
        if node_name in self.nodes:
            raise ValueError(f"Duplicate nodes with node-name='{node_name}'")
        if not Path(file["filename"]).is_file():
            raise ValueError(f"Could not open '{file['filename']}': No such file or directory")
        self.nodes[node_name] = driver

    def do_blockdev_del(self, node_name: str) -> None:
        if node_name in self.devices:
            raise ValueError(f"Node {node_name} is in use")
        if self.let_go.pop(node_name, 0):  # as QEMU: for a moment after its device is gone
            raise ValueError(f"Node {node_name} is in use")
        del self.nodes[node_name]

    def do_device_add(self, driver: str, bus: str, drive: str, id: str, serial: str) -> None:
        if drive not in self.nodes or (driver, bus, serial) != ("scsi-hd", "scsi.0", id):
            raise ValueError(f"Cannot find device={drive} nor node-name={drive}")
        self.devices.add(id)

    def do_device_del(self, id: str) -> None:
        self.devices.remove(id)
        self.let_go[id] = 1

    def human(self, line: str) -> str:
        if line == "info usernet":
            rows = (
                f"  {kind.upper()}[HOST_FORWARD]  {held.fileno()}       127.0.0.1 {held.getsockname()[1]} "
                f"      10.0.2.15   {port}     0     0\r\n"
                for held, (kind, port) in self.ports.items()
            )
            head = (
                "Hub -1 (net):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n"
            )
            return head + "".join(rows)
        verb, _, rest = line.partition(" net ")
        if verb == "hostfwd_add":
            self.forward(rest)
            return ""
        protocol, _, outside = rest.split(":")
        for held, (kind, _) in self.ports.items():
            if (kind, held.getsockname()[1]) == (protocol, int(outside)):
                del self.ports[held]
                held.close()
                return f"host forwarding rule for {rest} removed\r\n"
        return f"host forwarding rule for {rest} not found\r\n"


def main() -> None:
    program, arguments = sys.argv[1], sys.argv[2:]
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    with (ORDERS / "calls").open("a") as calls:
        calls.write(json.dumps([program, *arguments]) + "\n")
    refuse = ORDERS / "refuse"
    if refuse.exists():
        wanted, _, text = refuse.read_text().partition(" ")
        if wanted in [program, *arguments]:
            fail(text)
    if arguments == ["-L", "help"]:
        data = ORDERS / "data"
        print(data.read_text() if data.exists() else ORDERS)  # noqa: T201  a program
        return
    (image if program == "qemu-img" else system)(arguments)


if __name__ == "__main__":
    main()
