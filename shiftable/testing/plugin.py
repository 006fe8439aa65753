"""The pytest plugin: readable assertions in the conformance classes."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("shiftable.testing.conformance")
