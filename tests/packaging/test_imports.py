"""What ``import shiftable`` loads, and what the public names are."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

import shiftable

SDKS = {
    "azure",
    "boto3",
    "botocore",
    "cattrs",
    "click",
    "cryptography",
    "dns",
    "google",
    "httpx",
    "libcloud",
    "pyrage",
    "rich",
    "sqlalchemy",
    "yaml",
}


def loaded(code: str) -> set[str]:
    """Run code in a new interpreter and return the top-level packages that are loaded afterwards."""
    script = f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


def test_importing_shiftable_loads_no_sdk() -> None:
    assert set() == loaded("import shiftable") & SDKS


def test_connecting_loads_no_sdk_but_the_one_that_is_used() -> None:
    assert set() == loaded("import shiftable; shiftable.connect('memory').blob") & SDKS


def test_loading_providers_loads_no_sdk() -> None:
    code = "from shiftable import registry\nfor name in registry.names(): registry.load(name)"
    assert set() == loaded(code) & SDKS


def test_every_public_name_exists_and_the_lists_are_sorted() -> None:
    for name in shiftable.__all__:
        assert getattr(shiftable, name) is not None
    assert sorted(shiftable.__all__) == shiftable.__all__
    assert set(shiftable.__all__) == set(shiftable._HOMES)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = shiftable.nothing


def public_modules() -> list[str]:
    found = ["shiftable"]
    for package in (
        "shiftable",
        "shiftable_aws",
        "shiftable_azure",
        "shiftable_baremetal",
        "shiftable_gcp",
        "shiftable_libcloud",
        "shiftable_s3",
    ):
        try:
            root = importlib.import_module(package)
        except ModuleNotFoundError:
            continue  # an environment with one provider only
        names = (info.name for info in pkgutil.walk_packages(root.__path__, f"{package}."))
        found += [name for name in names if not any(part.startswith("_") for part in name.split("."))]
    return sorted(set(found))


@pytest.mark.parametrize("name", public_modules())
def test_every_public_module_says_what_it_offers(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    exported = getattr(module, "__all__", None)
    assert exported is not None, f"{name} has no __all__"
    assert sorted(exported) == sorted(set(exported))
    for each in exported:
        assert hasattr(module, each), f"{name}.{each}"
