"""BIND, Knot and PowerDNS out of Debian's packages: plain processes on loopback, with zones that tests make.

The fixtures are in ``conftest.py``; a benchmark may start the same servers by itself.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import attrs
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.tsig
import dns.zone

__all__ = ["ALGORITHM", "KEY", "SECRET", "Bind", "Knot", "NameServer", "PowerDns", "bind", "knot", "powerdns"]

KEY, ALGORITHM = "tests-key", "hmac-sha256"
SECRET = "dGhpcyBpcyBub3QgYSBzZWNyZXQgb2YgYW55Ym9keSE="

NEW = """$ORIGIN {name}.
{name}. 900 IN SOA ns1.{name}. hostmaster.{name}. 1 7200 900 1209600 300
{name}. 3600 IN NS ns1.outside.test.
"""
"""A zone as it is made: nothing but its own SOA and NS, whose server is elsewhere."""


_numbers = itertools.count()


class Programs(Protocol):
    """What starts programs: ``Debian`` of ``conftest.py``."""

    @property
    def root(self) -> Path: ...
    @property
    def libraries(self) -> Path: ...
    def run(self, *command: str | Path, data: bytes = b"") -> bytes: ...
    def running(
        self, log: Path, *command: str | Path
    ) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]: ...


Waiting = Callable[[Callable[[], bool], str, Path, "subprocess.Popen[bytes]"], None]


@attrs.define(kw_only=True)
class NameServer:
    """One running server.

    Args:
        port: of DNS, UDP and TCP, on 127.0.0.1.
        folder: of its configuration, zones and log.
        process: of the server, to be killed by a test.
    """

    programs: Programs = attrs.field(repr=False)
    folder: Path
    port: int
    process: subprocess.Popen[bytes] = attrs.field(repr=False)

    @property
    def address(self) -> str:
        """As the settings of RFC 2136 want it."""
        return f"127.0.0.1:{self.port}"

    @property
    def keyring(self) -> Mapping[dns.name.Name, dns.tsig.Key] | None:
        """For dnspython; none, where zones are given by address."""
        key = dns.tsig.Key(KEY, SECRET, ALGORITHM)
        return {key.name: key}

    def transfer(self, zone: str) -> dns.zone.Zone:
        """Fetch a zone as dnspython does it, past everything of ours."""
        messages = dns.query.xfr(
            "127.0.0.1", zone, port=self.port, relativize=False, keyring=self.keyring, keyalgorithm=f"{ALGORITHM}."
        )
        return dns.zone.from_xfr(messages, relativize=False, check_origin=False)

    def held(self, zone: str) -> dict[tuple[str, str], tuple[int, frozenset[Any]]]:
        """Say what a zone holds: TTL and values by owner in lower case and type."""
        return {
            (str(name).lower(), dns.rdatatype.to_text(rdataset.rdtype)): (rdataset.ttl, frozenset(rdataset))
            for name, rdataset in self.transfer(zone).iterate_rdatasets()
        }

    def _written(self, text: str) -> Path:
        """Write a zone file of a name of its own: BIND removes an old one some time after it says so."""
        file = self.folder / f"{next(_numbers)}.zone"
        file.write_text(text)
        return file

    def ask(self, name: str, kind: str) -> dns.message.Message:
        """Ask one question, over TCP."""
        return dns.query.tcp(dns.message.make_query(name, kind), "127.0.0.1", port=self.port, timeout=10)


@attrs.define(kw_only=True)
class Bind(NameServer):
    """BIND, whose zones may be changed by the holder of the key."""

    def create(self, name: str, *, text: str | None = None, policy: str = f'grant "{KEY}." zonesub ANY;') -> None:
        """Make a zone; without a text it is empty."""
        file = self._written(text or NEW.format(name=name))
        self._control("addzone", name, f'{{ type primary; file "{file}"; update-policy {{ {policy} }}; }};')

    def secondary(self, name: str) -> None:
        """Make a zone that another server has, and which does not answer."""
        file = self._written(NEW.format(name=name))
        self._control("addzone", name, f'{{ type secondary; file "{file}"; primaries {{ 127.0.0.1 port 1; }}; }};')

    def delete(self, name: str) -> None:
        """Delete a zone and its files."""
        self._control("delzone", "-clean", name)

    def _control(self, *command: str) -> None:
        self.programs.run("rndc", "-c", self.folder / "rndc.conf", *command)


@attrs.define(kw_only=True)
class Knot(NameServer):
    """Knot, whose zones may be changed by the holder of the key."""

    def create(self, name: str, *, text: str | None = None) -> None:
        """Make a zone; without a text it is empty."""
        file = self._written(text or NEW.format(name=name))
        zone = f"zone[{name}]"
        self._configure(("conf-set", zone), ("conf-set", f"{zone}.file", str(file)))
        deadline = time.monotonic() + 60  # it loads the zone behind the answer
        while self.ask(name, "SOA").rcode() != dns.rcode.NOERROR:
            assert time.monotonic() < deadline, f"Knot does not load {name}"
            time.sleep(0.005)

    def delete(self, name: str) -> None:
        """Delete a zone and its files."""
        self._configure(("conf-unset", f"zone[{name}]"))
        self._control("-f", "zone-purge", "+orphan", name)

    def _configure(self, *commands: Iterable[str]) -> None:
        for command in (("conf-begin",), *commands, ("conf-commit",)):
            self._control(*command)

    def _control(self, *command: str) -> None:
        self.programs.run("knotc", "-s", self.folder / "control", "-b", *command)


@attrs.define(kw_only=True)
class PowerDns(NameServer):
    """PowerDNS with its HTTP API."""

    web: int
    api_key: str = attrs.field(default="tests-key", repr=False)

    @property
    def keyring(self) -> None:
        """There is no key: it goes by address."""

    @property
    def url(self) -> str:
        """Where the API is."""
        return f"http://127.0.0.1:{self.web}"

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Use the API with the standard library alone."""
        request = urllib.request.Request(  # noqa: S310  its own
            f"{self.url}/api/v1/servers/localhost{path}",
            method=method,
            headers={"X-API-Key": self.api_key, "Content-Type": "application/json"},
            data=None if body is None else json.dumps(body).encode(),
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  the same
            text = answer.read()
        return json.loads(text) if text else None

    def create(self, name: str) -> None:
        """Make an empty zone."""
        self.call("POST", "/zones", {"name": f"{name}.", "kind": "Native", "nameservers": ["ns1.outside.test."]})

    def delete(self, name: str) -> None:
        """Delete a zone with all that is in it."""
        self.call("DELETE", f"/zones/{name.replace('/', '=2F')}.")


BIND = """
options {{
    directory "{folder}";
    pid-file none;
    session-keyfile none;
    listen-on port {port} {{ 127.0.0.1; }};
    listen-on-v6 {{ none; }};
    recursion no;
    dnssec-validation no;
    notify no;
    allow-new-zones yes;
    allow-transfer {{ key "{key}."; }};
}};
key "{key}." {{ algorithm {algorithm}; secret "{secret}"; }};
controls {{ inet 127.0.0.1 port {control} allow {{ 127.0.0.1; }} keys {{ "{key}."; }}; }};
"""

RNDC = """
key "{key}." {{ algorithm {algorithm}; secret "{secret}"; }};
options {{ default-server 127.0.0.1; default-port {control}; default-key "{key}."; }};
"""

KNOT = """
server:
    listen: 127.0.0.1@{port}
    rundir: {folder}
    background-workers: 1
    tcp-workers: 2
    udp-workers: 1
    tcp-io-timeout: 20000
database:
    storage: {folder}/db
key:
  - id: {key}
    algorithm: {algorithm}
    secret: {secret}
acl:
  - id: all
    key: {key}
    action: [transfer, update]
template:
  - id: default
    storage: {folder}
    acl: all
    zonefile-sync: -1
    journal-content: changes
    semantic-checks: off
control:
    listen: {folder}/control
"""

POWERDNS = """
launch=gsqlite3
gsqlite3-database={folder}/db
gsqlite3-dnssec=yes
gsqlite3-pragma-synchronous={synchronous}
module-dir={modules}
local-address=127.0.0.1
local-port={port}
api=yes
api-key={api_key}
webserver=yes
webserver-address=127.0.0.1
webserver-port={web}
webserver-loglevel=none
socket-dir={folder}
security-poll-suffix=
version-string=anonymous
allow-axfr-ips=127.0.0.1
dnsupdate=yes
allow-dnsupdate-from=
loglevel=4
"""


@contextlib.contextmanager
def bind(programs: Programs, folder: Path, ports: tuple[int, int], wait: Waiting) -> Iterator[Bind]:
    """Run BIND until the end of the block."""
    port, control = ports
    known = {"folder": folder, "port": port, "control": control, "key": KEY, "algorithm": ALGORITHM, "secret": SECRET}
    (folder / "named.conf").write_text(BIND.format(**known))
    (folder / "rndc.conf").write_text(RNDC.format(**known))
    log = folder / "log"
    command = (programs.root / "usr/sbin/named", "-g", "-n", "2", "-c", folder / "named.conf")
    with programs.running(log, *command) as process:
        server = Bind(programs=programs, folder=folder, port=port, process=process)
        wait(lambda: _answers(server), "BIND", log, process)
        yield server


@contextlib.contextmanager
def knot(programs: Programs, folder: Path, port: int, wait: Waiting) -> Iterator[Knot]:
    """Run Knot until the end of the block."""
    known = {"folder": folder, "port": port, "key": KEY, "algorithm": ALGORITHM, "secret": SECRET}
    (folder / "knot.conf").write_text(KNOT.format(**known))
    (folder / "db").mkdir(exist_ok=True)
    log = folder / "log"
    with programs.running(log, programs.root / "usr/sbin/knotd", "-c", folder / "knot.conf") as process:
        server = Knot(programs=programs, folder=folder, port=port, process=process)
        wait(lambda: _answers(server), "Knot", log, process)
        yield server


@contextlib.contextmanager
def powerdns(
    programs: Programs, folder: Path, ports: tuple[int, int], wait: Waiting, *, synchronous: bool = False
) -> Iterator[PowerDns]:
    """Run PowerDNS until the end of the block.

    Args:
        synchronous: whether its database waits for the disk, as it does by default.
    """
    port, web = ports
    if not (folder / "db").exists():
        (schema,) = programs.root.glob("usr/share/doc/pdns-backend-sqlite3/schema.sqlite3.sql")
        with contextlib.closing(sqlite3.connect(folder / "db")) as database:
            database.executescript(schema.read_text())
    server = PowerDns(programs=programs, folder=folder, port=port, web=web, process=None)  # type: ignore[arg-type]  # below
    (folder / "pdns.conf").write_text(
        POWERDNS.format(
            folder=folder,
            port=port,
            web=web,
            api_key=server.api_key,
            modules=programs.libraries / "pdns",
            synchronous=int(synchronous),
        )
    )
    log = folder / "log"
    command = (programs.root / "usr/sbin/pdns_server", f"--config-dir={folder}", "--guardian=no", "--daemon=no")
    with programs.running(log, *command) as server.process:
        wait(lambda: _serves(server), "PowerDNS", log, server.process)
        yield server


def _answers(server: NameServer) -> bool:
    """Tell whether a server answers, be it that it knows nothing."""
    try:
        dns.query.udp(dns.message.make_query("nobody.test", "SOA"), "127.0.0.1", port=server.port, timeout=0.2)
    except (dns.exception.Timeout, OSError):
        return False
    return True


def _serves(server: PowerDns) -> bool:
    try:
        server.call("GET", "")
    except (urllib.error.URLError, OSError):
        return False
    return _answers(server)
