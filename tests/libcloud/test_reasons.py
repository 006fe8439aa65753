"""Why libcloud is corrected: what its own driver does. Where one of these fails, libcloud has mended it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import libcloud
import pytest
from libcloud.common.types import MalformedResponseError
from libcloud.compute.base import NodeImage, NodeLocation, NodeSize
from libcloud.compute.drivers.linode import LinodeNodeDriverV4
from libcloud.dns.base import Zone
from libcloud.dns.drivers.digitalocean import DigitalOceanDNSDriver
from libcloud.dns.drivers.linode import LinodeDNSDriverV4
from libcloud.dns.drivers.vultr import VultrDNSDriverV2

from shiftable_libcloud._double_linode import LinodeDomain
from shiftable_libcloud.double import DigitalOceanDouble, HosterDouble, LinodeDouble, VultrDouble

from .hostile import of

NAME = "shop.example"


@contextmanager
def plainly(base: type[Any], double: HosterDouble) -> Iterator[Any]:
    """Make one of libcloud's drivers, with nothing changed but where the API is."""

    class Plain(base):
        def __new__(cls, *_args: object, **_kwargs: object) -> Any:
            return object.__new__(cls)

        def _ex_connection_class_kwargs(self) -> dict[str, Any]:
            return {"url": double.url}

    driver: Any = Plain(double.token)
    yield driver
    if driver.connection.connection is not None:
        driver.connection.connection.session.close()


@pytest.fixture
def plain(digitalocean: DigitalOceanDouble) -> Iterator[Any]:
    with plainly(DigitalOceanDNSDriver, digitalocean) as driver:
        yield driver


def held(double: DigitalOceanDouble) -> list[tuple[str, str, str]]:
    rows = double.domains.all[NAME].records.values()
    return sorted((row["name"], row["type"], row["data"]) for row in rows if row["type"] not in {"NS", "SOA"})


def test_a_new_zone_has_an_address_that_nobody_asked_for(digitalocean: DigitalOceanDouble, plain: Any) -> None:
    plain.create_zone(NAME)
    assert [("@", "A", "127.0.0.1")] == held(digitalocean)


def test_a_creation_whose_answer_is_lost_is_sent_again(
    digitalocean: DigitalOceanDouble, plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIBCLOUD_RETRY_FAILED_HTTP_REQUESTS", "1")
    monkeypatch.setattr("libcloud.utils.retry.time.sleep", lambda _seconds: None)
    zone = plain.create_zone(NAME)
    digitalocean.inject("drop_after", match=of("records.create"))
    plain.create_record("www", zone, "A", "192.0.2.1")
    assert 2 == held(digitalocean).count(("www", "A", "192.0.2.1"))


def test_a_type_becomes_another(digitalocean: DigitalOceanDouble, plain: Any) -> None:
    zone = plain.create_zone(NAME)
    digitalocean.domains.add(NAME, "afs", "AFSDB", "1 afs.example.net.")
    assert {"afs": "A"} == {each.name: each.type for each in plain.list_records(zone) if each.name == "afs"}


def test_one_unknown_type_makes_the_whole_zone_unreadable(digitalocean: DigitalOceanDouble, plain: Any) -> None:
    zone = plain.create_zone(NAME)
    digitalocean.domains.add(NAME, "web", "HTTPS", "1 .")
    with pytest.raises(AttributeError, match="HTTPS"):
        plain.list_records(zone)


def test_a_record_that_slips_to_another_page_is_lost(digitalocean: DigitalOceanDouble, plain: Any) -> None:
    zone = plain.create_zone(NAME)
    for number in range(10):
        digitalocean.domains.add(NAME, f"r{number}", "A", "192.0.2.1")
    digitalocean.page_size = 8

    def first_goes(call: Any) -> bool:
        if "&page=2&" in f"&{call.query}&":
            records = digitalocean.domains.all[NAME].records
            del records[next(number for number, row in records.items() if row["name"] == "r0")]
        return False

    digitalocean.inject("latency", match=first_goes)
    found = {each.name for each in plain.list_records(zone)}
    assert {row["name"] for row in digitalocean.domains.all[NAME].records.values()} - found


def test_flags_and_tags_of_a_caa_are_lost(digitalocean: DigitalOceanDouble, plain: Any) -> None:
    zone = plain.create_zone(NAME)
    digitalocean.domains.add(NAME, "caa", "CAA", "ca.example.net", flags=128, tag="issue")
    (found,) = (each for each in plain.list_records(zone) if each.name == "caa")
    assert {"port", "priority", "weight"} == found.extra.keys()


def test_the_status_of_an_answer_that_is_no_json_is_lost(digitalocean: DigitalOceanDouble, plain: Any) -> None:
    digitalocean.inject("status", status=503, body=b"<html>canary</html>")
    with pytest.raises(MalformedResponseError, match="canary"):
        plain.list_zones()


def test_an_odd_retry_after_is_a_value_error(digitalocean: DigitalOceanDouble, plain: Any) -> None:
    digitalocean.inject(
        "status", status=429, headers=[("Retry-After", "soon")], body=json.dumps({"id": "x", "message": "y"}).encode()
    )
    with pytest.raises(ValueError, match="soon"):
        plain.list_zones()


def test_the_debug_log_has_the_token(digitalocean: DigitalOceanDouble, plain: Any, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        try:
            libcloud.enable_debug(log)
            plain.connection.connection.session.close()
            plain.connection.connect()
            plain.list_zones()
        finally:
            libcloud.reset_debug()
    assert digitalocean.token in (tmp_path / "log").read_text()


def test_a_thread_reads_the_answer_to_the_call_of_another(digitalocean: DigitalOceanDouble, plain: Any) -> None:
    """The answer is kept in the connection between the call and its reading: here another call comes in between."""
    plain.create_zone(NAME)
    plain.create_zone("other.example")
    inner, there = plain.connection.connection, threading.Event()
    request = inner.request

    def slow(*args: Any, **kwargs: Any) -> None:
        request(*args, **kwargs)
        if kwargs["url"].startswith(f"/v2/domains/{NAME}") and not there.is_set():
            there.set()
            other = threading.Thread(target=plain.get_zone, args=("other.example",))
            other.start()
            other.join()

    inner.request = slow
    assert "other.example" == plain.get_zone(NAME).domain


# Linode's


@pytest.fixture
def plain_linode(linode: LinodeDouble) -> Iterator[Any]:
    with plainly(LinodeDNSDriverV4, linode) as driver:
        yield driver


def test_at_linode_the_tag_of_a_caa_is_lost(linode: LinodeDouble, plain_linode: Any) -> None:
    home = LinodeDomain({"id": 7, "domain": NAME, "type": "master", "ttl_sec": 0})
    linode.domains.all[NAME] = home
    linode.domains.add(NAME, "caa", "CAA", "ca.example.net", tag="issue")
    (found,) = plain_linode.list_records(Zone("7", NAME, "master", 300, plain_linode))
    assert "tag" not in found.extra


def test_at_linode_one_unknown_type_makes_the_whole_zone_unreadable(linode: LinodeDouble, plain_linode: Any) -> None:
    linode.domains.all[NAME] = LinodeDomain({"id": 7, "domain": NAME, "type": "master", "ttl_sec": 0})
    linode.domains.add(NAME, "web", "HTTPS", "1 .")
    with pytest.raises(AttributeError, match="HTTPS"):
        plain_linode.list_records(Zone("7", NAME, "master", 300, plain_linode))


def test_at_linode_a_page_has_25_rows_and_a_record_that_slips_to_another_is_lost(
    linode: LinodeDouble, plain_linode: Any
) -> None:
    linode.domains.all[NAME] = LinodeDomain({"id": 7, "domain": NAME, "type": "master", "ttl_sec": 0})
    for number in range(30):
        linode.domains.add(NAME, f"r{number}", "A", "192.0.2.1")

    def first_goes(call: Any) -> bool:
        if "&page=2&" in f"&{call.query}&":
            records = linode.domains.all[NAME].records
            del records[next(number for number, row in records.items() if row["name"] == "r0")]
        return False

    linode.inject("latency", match=first_goes)
    found = {each.name for each in plain_linode.list_records(Zone("7", NAME, "master", 300, plain_linode))}
    assert {"r25"} == {row["name"] for row in linode.domains.all[NAME].records.values()} - found


def test_at_linode_an_error_that_is_no_json_of_its_shape_is_another_one(
    linode: LinodeDouble, plain_linode: Any
) -> None:
    linode.inject("status", status=429, body=b'{"message": "slow down"}')
    with pytest.raises(KeyError, match="errors"):
        plain_linode.list_zones()


# Vultr's


@pytest.fixture
def plain_vultr(vultr: VultrDouble) -> Iterator[Any]:
    with plainly(VultrDNSDriverV2, vultr) as driver:
        driver.create_zone(NAME)
        yield driver


def test_at_vultr_a_new_zone_has_no_name_servers(plain_vultr: Any) -> None:
    assert [] == plain_vultr.list_records(plain_vultr.get_zone(NAME))


def test_at_vultr_one_unknown_type_makes_the_whole_zone_unreadable(vultr: VultrDouble, plain_vultr: Any) -> None:
    vultr.domains.add(NAME, "web", "HTTPS", "1 .")
    with pytest.raises(AttributeError, match="HTTPS"):
        plain_vultr.list_records(plain_vultr.get_zone(NAME))


def test_at_vultr_an_error_that_is_no_json_of_its_shape_is_another_one(vultr: VultrDouble, plain_vultr: Any) -> None:
    vultr.inject("status", status=429, body=b'["slow down"]')
    with pytest.raises(AttributeError):
        plain_vultr.list_zones()


# Linode's machines


@pytest.fixture
def plain_linodes(linode: LinodeDouble) -> Iterator[Any]:
    with plainly(LinodeNodeDriverV4, linode) as driver:
        yield driver


def plainly_made(driver: Any, name: str) -> Any:
    location = NodeLocation("eu-central", "Frankfurt", "de", driver)
    size = NodeSize("g6-nanode-1", "Nanode", 1024, 25, 1000, 5.0, driver)
    image = NodeImage("linode/debian12", "Debian", driver)
    return driver.create_node(location, name, size, image, root_pass="A-password-of-ours")


def test_at_linode_a_machine_is_made_without_a_firewall(linode: LinodeDouble, plain_linodes: Any) -> None:
    node = plainly_made(plain_linodes, "web-0")
    assert ["203.0.113."] == [str(address)[:10] for address in node.public_ips]
    assert {} == linode.machines.firewalls


def test_at_linode_machines_are_listed_in_pages_of_25(linode: LinodeDouble, plain_linodes: Any) -> None:
    for number in range(30):
        plainly_made(plain_linodes, f"web-{number}")
    before = sum(call.operation == "linodes.list" for call in linode.calls)
    assert 30 == len(plain_linodes.list_nodes())
    assert 2 == sum(call.operation == "linodes.list" for call in linode.calls) - before
