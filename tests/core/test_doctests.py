"""Every example in a docstring runs, and says the truth."""

import doctest
import importlib
import pkgutil

import pytest

import shiftable


def modules() -> list[str]:
    names = [info.name for info in pkgutil.walk_packages(shiftable.__path__, "shiftable.")]
    return ["shiftable", *(name for name in names if not name.startswith(("shiftable.cli", "shiftable.testing")))]


@pytest.mark.parametrize("name", modules())
def test_examples_are_true(name: str) -> None:
    module = importlib.import_module(name)
    assert 0 == doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for name in modules() for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(found) >= 4
