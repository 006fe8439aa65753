"""Fixtures of tests that move databases: two private clusters and a fresh database on each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shiftable.postgresql import Cluster, temporary_cluster

from .pairs import Pair

__all__ = ["pair", "target_cluster"]


@pytest.fixture(scope="session")
def target_cluster() -> Iterator[Cluster]:
    """The server to which things are moved; the source is ``postgresql_cluster``."""
    with temporary_cluster() as cluster:
        yield cluster


@pytest.fixture
def pair(postgresql_cluster: Cluster, target_cluster: Cluster) -> Iterator[Pair]:
    """An empty database on each of two servers."""
    found = Pair(postgresql_cluster, target_cluster)
    found.make()
    yield found
    found.drop()
