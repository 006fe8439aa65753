"""A zone of 10,000 records moves from BIND to PowerDNS, beside octoDNS: the whole copy, and a plan that finds nothing.

    pip install octodns octodns-bind octodns-powerdns
    python tests/servers/install.py && python benchmarks/migrate_zone.py

Both tools are processes from start to end, on the same servers, in turn, each into an empty zone. shiftable verifies
what it wrote: it reads both sides again and asks the target's name server for every record set; octoDNS does not.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import attrs

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.servers import conftest, nameservers
from tests.servers.nameservers import ALGORITHM, KEY, SECRET

ZONE = "bench.test"
RECORDS = 10_000
TOOLS_FOLDER = Path(sys.executable).parent


@attrs.frozen
class Servers:
    """The source, to be read by AXFR, and the target with its HTTP API."""

    bind: nameservers.Bind
    powerdns: nameservers.PowerDns


@attrs.frozen
class Cost:
    """What one process took, in seconds."""

    wall: float
    cpu: float


def zone_text() -> str:
    """Write a zone of 10,000 records as many have it: hosts, some with several addresses, mail, texts, aliases."""
    lines = [
        f"$ORIGIN {ZONE}.",
        f"{ZONE}. 900 IN SOA ns1.outside.test. hostmaster.{ZONE}. 1 7200 900 1209600 300",
        f"{ZONE}. 3600 IN NS ns1.outside.test.",
    ]
    number = 0
    while len(lines) < RECORDS:
        host = f"host{number}.{ZONE}."
        lines.append(f"{host} 300 IN A 10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        if number % 3 == 0:
            lines.append(f"{host} 300 IN AAAA 2001:db8::{number:x}")
        if number % 5 == 0:
            lines.append(f"{host} 300 IN A 172.16.{number >> 8 & 255}.{number & 255}")
        if number % 7 == 0:
            lines.append(f'{host} 600 IN TXT "v=spf1 include:_spf{number}.example.net -all"')
        if number % 11 == 0:
            lines += [f"{host} 600 IN MX {order} mx{order}.example.net." for order in (10, 20)]
        if number % 13 == 0:
            lines.append(f"alias{number}.{ZONE}. 60 IN CNAME {host}")
        number += 1
    return "\n".join(lines) + "\n"


def timed(command: list[str], folder: Path, **environ: str) -> Cost:
    """Run a process to its end."""
    began = time.perf_counter()
    log = folder / "log.txt"
    usual = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out, env={**usual, **environ})
        _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{log.read_text()[-3000:]}")
    return Cost(wall, usage.ru_utime + usage.ru_stime)


def octodns(folder: Path, servers: Servers, program: str) -> Iterator[Cost]:
    """Copy, and plan again."""
    (folder / "config.yaml").write_text(
        f"""
providers:
  bind:
    class: octodns_bind.AxfrSource
    host: 127.0.0.1
    port: {servers.bind.port}
    key_name: {KEY}
    key_secret: {SECRET}
    key_algorithm: {ALGORITHM}
  powerdns:
    class: octodns_powerdns.PowerDnsProvider
    host: 127.0.0.1
    port: {servers.powerdns.web}
    api_key: {servers.powerdns.api_key}
    timeout: 60
zones:
  {ZONE}.:
    sources: [bind]
    targets: [powerdns]
"""
    )
    command = [program, "--config-file", "config.yaml", "--quiet"]
    yield timed([*command, "--doit", "--force"], folder)
    yield timed(command, folder)


def shiftable(folder: Path, servers: Servers, program: str) -> Iterator[Cost]:
    """Copy with verification, and plan again."""
    (folder / "shiftable.toml").write_text(
        f"""
[project]
name = "bench"
[environments.development]
provider = "bind"
[providers.bind]
type = "baremetal"
[providers.bind.rfc2136]
server = "{servers.bind.address}"
key_name = "{KEY}"
key_secret = {{ env = "BENCH_TSIG" }}
key_algorithm = "{ALGORITHM}"
zones = ["{ZONE}"]
[providers.powerdns]
type = "baremetal"
[providers.powerdns.powerdns]
address = "{servers.powerdns.url}"
api_key = {{ env = "BENCH_API_KEY" }}
[dns.bench]
zone = "{ZONE}"
"""
    )
    command = [program, "migrate", "--from", "bind", "--to", "powerdns", "dns"]
    environ = {"BENCH_TSIG": SECRET, "BENCH_API_KEY": servers.powerdns.api_key}
    yield timed([*command, "--ask", f"127.0.0.1@{servers.powerdns.port}", "--apply"], folder, **environ)
    yield timed(command, folder, **environ)


TOOLS: Mapping[str, Callable[[Path, Servers, str], Iterator[Cost]]] = {"octoDNS": octodns, "shiftable": shiftable}


def main(rounds: int, programs: Mapping[str, str]) -> None:
    """Print what each took, and shiftable as a ratio."""
    found: dict[str, list[tuple[Cost, Cost]]] = {name: [] for name in TOOLS}
    with ExitStack() as stack:
        debian = conftest.Debian(conftest.ROOT)
        one, other = (Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2))
        ports = conftest.free_ports(4)
        bind = stack.enter_context(nameservers.bind(debian, one, (ports[0], ports[1]), conftest.wait_until))
        powerdns = stack.enter_context(nameservers.powerdns(debian, other, (ports[2], ports[3]), conftest.wait_until))
        bind.create(ZONE, text=zone_text())
        for _ in range(rounds):
            for name, tool in TOOLS.items():
                powerdns.create(ZONE)
                with tempfile.TemporaryDirectory() as folder:
                    copied, planned = tool(Path(folder), Servers(bind, powerdns), programs[name])
                found[name].append((copied, planned))
                count = len(powerdns.call("GET", f"/zones/{ZONE}.")["rrsets"])
                print(f"{name}: copy {copied}, plan {planned}, {count:,} record sets", flush=True)
                powerdns.delete(ZONE)
    report(found)


def report(found: Mapping[str, list[tuple[Cost, Cost]]]) -> None:
    """Print medians and ratios."""
    for at, what in enumerate(("copy", "plan that finds nothing")):
        for measure in ("wall", "cpu"):
            peer, ours = (statistics.median(getattr(each[at], measure) for each in found[name]) for name in TOOLS)
            print(f"{what}, {measure}: octoDNS {peer:.2f} s, shiftable {ours:.2f} s: {ours / peer:.2f} x")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--octodns", default=str(TOOLS_FOLDER / "octodns-sync"), help="path of octodns-sync")
    options = parser.parse_args()
    main(options.rounds, {"octoDNS": options.octodns, "shiftable": str(TOOLS_FOLDER / "shiftable")})
