"""The double of Google Cloud, one for the whole run, emptied for each test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from shiftable_gcp import GcpProvider, GcpSettings, _session

if TYPE_CHECKING:
    from shiftable_gcp.double import GcpDouble

pytest.importorskip("googleapiclient", reason="the double of Google Cloud needs shiftable-gcp[testing]")


@pytest.fixture
def provider(gcp_double: GcpDouble) -> Iterator[GcpProvider]:
    made = GcpProvider(GcpSettings(**gcp_double.config))
    yield made
    made.close()


@pytest.fixture
def another(gcp_double: GcpDouble) -> Iterator[GcpProvider]:
    """Return a provider of another process."""
    made = GcpProvider(GcpSettings(**gcp_double.config))
    yield made
    made.close()


@pytest.fixture
def hasty(gcp_double: GcpDouble) -> Iterator[GcpProvider]:
    """Return a provider that gives up soon."""
    made = GcpProvider(GcpSettings(**{**gcp_double.config, "retry_seconds": 0.05}))
    yield made
    made.close()


@pytest.fixture
def watched(gcp_double: GcpDouble) -> Iterator[GcpDouble]:
    """Return the double, and take away afterwards what a test made it do."""
    before = list(gcp_double.validators)
    yield gcp_double
    gcp_double.validators[:] = before


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once, almost."""
    monkeypatch.setattr(_session, "_FIRST_WAIT", 0.01)
