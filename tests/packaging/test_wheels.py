"""What is in the wheels: everything that is needed, nothing that is not, and one version."""

import tomllib
import zipfile
from email.parser import HeaderParser
from functools import cache
from pathlib import Path, PurePosixPath
from tempfile import mkdtemp

import pytest
from hatchling.builders.wheel import WheelBuilder

from shiftable import registry

ROOT = Path(__file__).parent.parent.parent
DISTRIBUTIONS = {
    "shiftable": ROOT,
    **{f"shiftable-{path.parent.name}": path.parent for path in sorted(ROOT.glob("providers/*/pyproject.toml"))},
}
LIGHT = {"attrs", "cattrs"}


@cache
def wheel(name: str) -> zipfile.ZipFile:
    (path,) = WheelBuilder(str(DISTRIBUTIONS[name])).build(directory=mkdtemp(), versions=["standard"])
    return zipfile.ZipFile(path)


def metadata(name: str) -> dict[str, list[str]]:
    (path,) = [each for each in wheel(name).namelist() if each.endswith(".dist-info/METADATA")]
    message = HeaderParser().parsestr(wheel(name).read(path).decode())
    return {key: message.get_all(key, []) for key in set(message.keys())}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_wheel_holds_its_package_and_nothing_else(name: str) -> None:
    package = name.replace("-", "_")
    names = [PurePosixPath(each) for each in wheel(name).namelist()]
    assert {package, f"{package}-{metadata(name)['Version'][0]}.dist-info"} == {path.parts[0] for path in names}
    assert PurePosixPath(package, "py.typed") in names
    beside = [path for path in names if path.parent != PurePosixPath("shiftable/migrate/prices")]  # data of the package
    assert not [path for path in beside if "tests" in path.parts or path.suffix in {".pyc", ".toml", ".sqlite"}]


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_every_module_of_the_checkout_is_in_the_wheel(name: str) -> None:
    package = name.replace("-", "_")
    folder = DISTRIBUTIONS[name] / package
    wanted = {f"{package}/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*.py")}
    assert wanted == {each for each in wheel(name).namelist() if each.endswith(".py")}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_licence_is_mit_and_the_readme_is_there(name: str) -> None:
    assert ["MIT"] == metadata(name)["License-Expression"]
    assert [">=3.11"] == metadata(name)["Requires-Python"]
    assert ["text/markdown"] == metadata(name)["Description-Content-Type"]


def test_the_licence_text_goes_with_the_core() -> None:
    assert any(each.endswith("licenses/LICENSE") for each in wheel("shiftable").namelist())


def test_all_distributions_have_one_version() -> None:
    assert 1 == len({metadata(name)["Version"][0] for name in DISTRIBUTIONS})


def test_the_core_depends_on_attrs_and_cattrs_alone() -> None:
    needed = {each.partition(">")[0] for each in metadata("shiftable")["Requires-Dist"] if "extra ==" not in each}
    assert LIGHT == needed


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_no_dependency_is_pinned_to_one_version_or_to_a_place(name: str) -> None:
    for each in metadata(name).get("Requires-Dist", []):
        requirement = each.partition(";")[0]
        assert "==" not in requirement, each
        assert "@" not in requirement, each


def test_every_provider_and_the_command_have_their_entry_points() -> None:
    found = {}
    for name in DISTRIBUTIONS:
        for path in wheel(name).namelist():
            if path.endswith("entry_points.txt"):
                found[name] = wheel(name).read(path).decode()
    assert "shiftable = shiftable.cli:main" in found["shiftable"]
    assert "memory = shiftable.memory:MemoryProvider" in found["shiftable"]
    assert {"aws", "azure", "baremetal", "gcp", "libcloud"} == {*registry.KNOWN}
    for name, distribution in registry.KNOWN.items():
        assert f"{name} = shiftable_{name}:" in found[distribution]
    assert "shiftable-s3" not in found


def test_the_checkout_names_no_registry_and_no_machine() -> None:
    words = (
        "py" + "pi.org",
        "python" + "hosted",
        "npm" + "js.org",
        "deb." + "debian.org",
        "/wo" + "rk/",
        "/ro" + "ot/",
    )
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert config["project"]["name"] == "shiftable"
    folders = ("shiftable", "providers", "tests", "docs", "benchmarks", ".ci")
    files = [
        path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".md", ".toml", ""}
    ]
    for path in (*files, ROOT / "README.md", ROOT / "pyproject.toml", ROOT / "noxfile.py"):
        if path.is_file() and not {"_build", "venv", "__pycache__"} & set(path.parts):
            text = path.read_text(encoding="utf-8", errors="replace")
            assert not [word for word in words if word in text], path
