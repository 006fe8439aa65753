"""Moves between all providers: a few dozen objects for every run of the tests, thousands and many kills with --full."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shiftable.testing.harness import Double

from .corpus import FEW, FULL
from .sides import SIDES, OnDouble, Side
from .vaults import VAULTS, Vault

for _module, _name in (("moto", "aws"), ("googleapiclient", "gcp"), ("azure.storage.blob", "azure")):
    pytest.importorskip(_module, reason=f"moves need the double of every provider: shiftable-{_name}[testing]")

PAIRS = ("azure-gcp", "aws-baremetal", "gcp-azure", "baremetal-aws", "aws-azure", "gcp-aws")
"""Of moves of secrets that are killed."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full", action="store_true", help="moves: 2,000 objects and 500 secrets each way, 50 kills; some minutes"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make as many killed moves as are wanted. The option exists only where this folder is named in the command."""
    scale = FULL if metafunc.config.getoption("--full", default=False) else FEW
    if "scale" in metafunc.fixturenames:
        metafunc.parametrize("scale", [scale], ids=["full" if scale is FULL else "few"])
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(scale.scenarios))
    if "pair" in metafunc.fixturenames:
        metafunc.parametrize("pair", PAIRS if scale is FULL else PAIRS[:2])


@pytest.fixture
def side(shiftable_double: Callable[[str], Double], folder: Path) -> Callable[[str], Side]:
    """Hand out a provider by its name: empty, and on loopback."""

    def made(name: str) -> Side:
        kind = SIDES[name]
        return kind(shiftable_double(name), folder) if issubclass(kind, OnDouble) else kind(folder)

    return made


@pytest.fixture
def vault(side: Callable[[str], Side]) -> Callable[[str], Vault]:
    """Hand out a provider of secrets by its name: empty, and on loopback."""
    return lambda name: VAULTS[name](side(name))
