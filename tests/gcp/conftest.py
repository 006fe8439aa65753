"""The double of Google Cloud, one for the whole run, emptied for each test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from shiftable_gcp import GcpProvider, GcpSettings

if TYPE_CHECKING:
    from shiftable_gcp.double import GcpDouble

pytest.importorskip("googleapiclient", reason="the double of Google Cloud needs shiftable-gcp[testing]")


@pytest.fixture
def provider(gcp_double: GcpDouble) -> Iterator[GcpProvider]:
    made = GcpProvider(GcpSettings(**gcp_double.config))
    yield made
    made.close()
