"""The pytest plugin in somebody else's test run: fixtures by name, violations that fail, and no cost unasked."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

DOUBLE = """
from shiftable.testing.harness import Double

class Shop(Double):
    name = "shop"
    started = 0

    def __init__(self):
        super().__init__(self.app, validators=[self.rule])
        self.puts = []

    def app(self, environ, start_response):
        self.puts.append(environ["PATH_INFO"])
        start_response("200 OK", [])
        return [b"ok"]

    def rule(self, request, response):
        return ["that is forbidden"] if request.path == "/bad" else []

    def start(self):
        Shop.started += 1
        return super().start()

    def forget(self):
        self.puts.clear()
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder that is a project with an installed double of its own."""
    (tmp_path / "shop_double.py").write_text(DOUBLE)
    info = tmp_path / "shop-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[shiftable.doubles]\nshop = shop_double:Shop\n")
    return tmp_path


def run(project: Path, test: str) -> tuple[int, str]:
    (project / "test_it.py").write_text(textwrap.dedent(test))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "test_it.py"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout + done.stderr


def test_a_double_is_started_once_and_emptied_for_each_test(project: Path) -> None:
    code, out = run(
        project,
        """
        import urllib.request
        import pytest

        @pytest.mark.parametrize("number", range(3))
        def test_put(shiftable_double, number):
            double = shiftable_double("shop")
            assert double is shiftable_double("shop")
            assert double.puts == []
            assert urllib.request.urlopen(f"{double.url}/{number}").read() == b"ok"
            assert double.puts == [f"/{number}"]
            assert [call.path for call in double.calls] == [f"/{number}"]
            assert type(double).started == 1
        """,
    )
    assert (code, "3 passed" in out) == (0, True), out


def test_a_violation_fails_the_test_that_caused_it_and_no_other(project: Path) -> None:
    code, out = run(
        project,
        """
        import urllib.request

        def test_bad(shiftable_double):
            urllib.request.urlopen(f"{shiftable_double('shop').url}/bad").read()

        def test_good(shiftable_double):
            urllib.request.urlopen(f"{shiftable_double('shop').url}/good").read()
        """,
    )
    assert code == 1
    assert "2 passed, 1 error" in out
    assert "GET /bad: that is forbidden" in out


def test_an_unknown_double_names_those_that_there_are(project: Path) -> None:
    _, out = run(project, "def test_it(shiftable_double):\n    shiftable_double('nimbus')\n")
    assert "no double of 'nimbus'; installed:" in out
    assert "shop" in out


def test_a_run_that_uses_no_double_imports_nothing_of_it(project: Path) -> None:
    code, out = run(
        project,
        """
        import sys

        def test_it():
            heavy = {"werkzeug", "moto", "boto3", "flask", "shiftable.testing.harness", "shiftable.config", "attrs"}
            assert heavy & set(sys.modules) == set()
        """,
    )
    assert code == 0, out
