"""The doubles of DigitalOcean and Linode, one each for the whole run, emptied for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from shiftable_libcloud import LibcloudProvider, LibcloudSettings

if TYPE_CHECKING:
    from shiftable.testing.harness import Double
    from shiftable_libcloud.double import DigitalOceanDouble, HosterDouble, LinodeDouble


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


@pytest.fixture(params=["digitalocean", "linode"])
def hoster(request: pytest.FixtureRequest) -> HosterDouble:
    """Return each hoster's double."""
    from shiftable_libcloud.double import HosterDouble

    double = request.getfixturevalue(request.param)
    assert isinstance(double, HosterDouble)
    return double


@pytest.fixture
def provider(digitalocean: DigitalOceanDouble) -> Iterator[LibcloudProvider]:
    made = LibcloudProvider(LibcloudSettings(**digitalocean.config))
    yield made
    made.close()
