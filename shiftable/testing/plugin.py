"""The pytest plugin: doubles of the providers as fixtures, and readable assertions in the conformance classes.

It is loaded in every pytest run of an environment that has shiftable, so it imports nothing until a fixture is used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from shiftable.app import App
    from shiftable.postgresql import Cluster
    from shiftable.testing.harness import Double

__all__ = ["aws_double", "azure_double", "gcp_double", "postgresql_cluster", "shiftable_app", "shiftable_double"]

pytest.register_assert_rewrite("shiftable.testing.conformance")


@pytest.fixture(scope="session")
def _shiftable_doubles() -> Iterator[Callable[[str], Double]]:
    """Start each double once, when it is first asked for, and stop them all at the end."""
    from shiftable.testing.doubles import load

    running: dict[str, Double] = {}
    with contextlib.ExitStack() as stack:

        def started(name: str) -> Double:
            if name not in running:
                double = load(name)()
                stack.callback(double.close)
                running[name] = double.start()
            return running[name]

        yield started


@pytest.fixture
def shiftable_double(_shiftable_doubles: Callable[[str], Double]) -> Iterator[Callable[[str], Double]]:
    """Hand out a provider's double by name, empty; the test fails if what it did broke the provider's rules.

    >>> def test_upload(shiftable_double):
    ...     double = shiftable_double("aws")
    ...     cloud = shiftable.connect("aws", **double.config)
    """
    used: dict[str, Double] = {}

    def double(name: str) -> Double:
        if name not in used:
            used[name] = _shiftable_doubles(name)
            used[name].reset()
        return used[name]

    yield double
    for found in used.values():
        found.check()


@pytest.fixture
def aws_double(shiftable_double: Callable[[str], Double]) -> Double:
    """AWS on loopback, empty. It needs ``shiftable-aws[testing]``."""
    return shiftable_double("aws")


@pytest.fixture
def azure_double(shiftable_double: Callable[[str], Double]) -> Double:
    """Azure on loopback, empty. It needs ``shiftable-azure[testing]``."""
    return shiftable_double("azure")


@pytest.fixture
def gcp_double(shiftable_double: Callable[[str], Double]) -> Double:
    """Google Cloud on loopback, empty. It needs ``shiftable-gcp[testing]``."""
    return shiftable_double("gcp")


@pytest.fixture
def shiftable_app(shiftable_double: Callable[[str], Double], tmp_path: Path) -> Iterator[Callable[..., App]]:
    """Hand out the application of ``shiftable.toml``, here or above, at a double or in memory, with all it declares.

    >>> def test_orders(shiftable_app):
    ...     app = shiftable_app("aws")    # or "memory"; a second argument is the file
    ...     app.blob("assets").put("logo.png", data)
    """
    from shiftable.testing.applications import application

    def made(name: str, path: Path | None = None, *, make: bool = True) -> App:
        double = None if name == "memory" else shiftable_double(name)
        provider, settings = (double.name, double.config) if double else (name, {})
        return stack.enter_context(application(path, provider, settings, state=tmp_path / ".shiftable", make=make))

    with contextlib.ExitStack() as stack:
        yield made


@pytest.fixture(scope="session")
def postgresql_cluster() -> Iterator[Cluster]:
    """A private PostgreSQL that one can replicate from logically; one for all tests, so make databases of your own.

    It listens on its socket and on 127.0.0.1, and its superuser needs no password on the socket. It needs PostgreSQL
    on this machine, or ``shiftable[postgresql-server]``.
    """
    from shiftable.postgresql import temporary_cluster

    parameters = {"wal_level": "logical", "max_wal_senders": "20", "max_replication_slots": "20"}
    with temporary_cluster(parameters=parameters, tcp=True) as cluster:
        yield cluster
