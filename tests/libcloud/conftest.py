"""The doubles of DigitalOcean, Linode and Vultr, one each for the whole run, emptied for each test; little patience."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from shiftable_libcloud import LibcloudProvider, LibcloudSettings

if TYPE_CHECKING:
    from shiftable.testing.harness import Double
    from shiftable_libcloud.double import DigitalOceanDouble, HosterDouble, LinodeDouble, VultrDouble


@pytest.fixture
def digitalocean(shiftable_double: Callable[[str], Double]) -> DigitalOceanDouble:
    from shiftable_libcloud.double import DigitalOceanDouble

    double = shiftable_double("digitalocean")
    assert isinstance(double, DigitalOceanDouble)
    return double


@pytest.fixture
def linode(shiftable_double: Callable[[str], Double]) -> LinodeDouble:
    from shiftable_libcloud.double import LinodeDouble

    double = shiftable_double("linode")
    assert isinstance(double, LinodeDouble)
    return double


@pytest.fixture
def vultr(shiftable_double: Callable[[str], Double]) -> VultrDouble:
    from shiftable_libcloud.double import VultrDouble

    double = shiftable_double("vultr")
    assert isinstance(double, VultrDouble)
    return double


@pytest.fixture(params=["digitalocean", "linode", "vultr"])
def hoster(request: pytest.FixtureRequest) -> HosterDouble:
    """Return each hoster's double."""
    from shiftable_libcloud.double import HosterDouble

    double = request.getfixturevalue(request.param)
    assert isinstance(double, HosterDouble)
    return double


@pytest.fixture
def digitalocean_provider(digitalocean: DigitalOceanDouble) -> Iterator[LibcloudProvider]:
    yield from _provider(digitalocean)


@pytest.fixture
def linode_provider(linode: LinodeDouble) -> Iterator[LibcloudProvider]:
    yield from _provider(linode)


@pytest.fixture
def vultr_provider(vultr: VultrDouble) -> Iterator[LibcloudProvider]:
    yield from _provider(vultr)


def _provider(double: HosterDouble) -> Iterator[LibcloudProvider]:
    made = LibcloudProvider(LibcloudSettings(**double.config))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no time worth naming before a call is sent again."""
    from shiftable_libcloud import _connection

    monkeypatch.setattr(_connection, "_FIRST_PAUSE", 0.001)


@pytest.fixture
def open_service() -> Iterator[Callable[..., Any]]:
    """Return what makes a driver: of a service, at a double, with other settings than the double's. All are closed."""
    made = list[Any]()

    def open_it(service: str, double: HosterDouble, **settings: object) -> object:
        provider = LibcloudProvider(LibcloudSettings(**{**double.config, **settings}))
        made.append(getattr(provider, service)())
        return made[-1]

    yield open_it
    for driver in made:
        driver.close()
