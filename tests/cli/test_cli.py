"""The command without any provider but memory: help, mistakes, exit codes, completion."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from unittest.mock import Mock

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from shiftable import registry
from shiftable.app import App
from shiftable.blob import BucketSpec
from shiftable.cli._context import Context
from shiftable.cli._dns import _diff_line
from shiftable.cli._main import COMMANDS, cli
from shiftable.errors import PermissionDenied, ProviderError
from shiftable.service import Change

FILE = """
[project]
name = "shop"
[environments.development]
provider = "memory"
[environments.production]
provider = "memory"
[blob.assets]
bucket = "shop-assets"
[secrets.app]
prefix = "shop"
"""


@pytest.fixture
def file(folder: Path) -> Path:
    path = folder / "shiftable.toml"
    path.write_text(FILE)
    return path


def test_help_names_every_command_and_the_exit_codes(shiftable) -> None:
    answer = shiftable("--help")
    assert 0 == answer.returncode
    for command in (
        "apply",
        "blob",
        "check",
        "compute",
        "db",
        "demo",
        "destroy",
        "dns",
        "init",
        "migrate",
        "plan",
        "providers",
        "run",
        "schema",
        "secrets",
    ):
        assert f"\n  {command} " in answer.stdout
    assert "Exit codes" in answer.stdout


@pytest.mark.parametrize("question", [("--help",), ("--version",), ("secrets", "--help"), ("providers",)])
def test_an_answer_that_cannot_be_written_is_one_error(question: tuple[str, ...], folder: Path) -> None:
    command = [str(Path(sys.executable).parent / "shiftable"), *question]
    with Path("/dev/full").open("w") as full:
        answer = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=folder)
    assert (1, "error: No space left on device\n") == (answer.returncode, answer.stderr)
    reader, writer = os.pipe()
    os.close(reader)
    answer = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, cwd=folder)
    os.close(writer)
    assert (141, "") == (answer.returncode, answer.stderr)


def commands(group: click.Group, *before: str) -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        yield " ".join([*before, name])
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, *before, name)


@pytest.mark.parametrize("command", tuple(commands(cli)))
def test_every_command_has_a_help_text(shiftable, command: str) -> None:
    answer = shiftable(*command.split(), "--help")
    assert 0 == answer.returncode
    assert len(answer.stdout.splitlines()) >= 4
    _, _, commands = answer.stdout.partition("Commands:")
    assert "..." not in commands


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []])
def test_the_help_shows_each_command_whole_and_imports_none(folder: Path, arguments: list[str]) -> None:
    script = f"""
import sys
from shiftable.cli._main import COMMANDS, cli
try:
    cli({arguments!r}, prog_name="shiftable")
finally:
    loaded = sorted({{f"shiftable.cli.{{module}}" for module, _ in COMMANDS.values()}} & {{*sys.modules}})
    print(loaded or "nothing", "importlib.metadata" in sys.modules)
"""
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=folder)
    lines = (answer.stdout + answer.stderr).splitlines()
    for name, (_, purpose) in COMMANDS.items():
        assert f"  {name:<9}  {purpose}" in lines
        assert purpose.endswith(".")
    assert "nothing False" in lines


def test_the_overview_names_all_commands_that_there_are() -> None:
    from shiftable.cli import _main

    files = {path.stem for path in Path(_main.__file__).parent.glob("_*.py")}
    assert {module for module, _ in COMMANDS.values()} <= files
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        assert (name, False) == (command.name, command.hidden)


def test_the_command_line_is_a_module_too() -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "shiftable", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    import shiftable as library

    assert library.__version__ in run("--version").stdout
    wrong = run("nothing")
    assert 2 == wrong.returncode
    assert wrong.stderr.startswith("Usage: shiftable ")


def test_the_version_is_told(shiftable) -> None:
    import shiftable as library

    assert library.__version__ in shiftable("--version").stdout


@pytest.mark.parametrize("command", ["migrate", "compute cutover web", "dns cutover shop", "db online orders"])
def test_a_move_to_where_it_comes_from_is_wrong_usage(file: Path, command: str) -> None:
    sides = ["--from", "memory", "--to", "memory"]
    told = CliRunner().invoke(cli, ["-f", str(file), *command.split(), *sides])
    assert (2, "error: source and target are both 'memory'; name two providers\n") == (told.exit_code, told.stderr)


def test_an_unknown_command_is_wrong_usage(shiftable) -> None:
    answer = shiftable("migrat")
    assert 2 == answer.returncode
    assert "No such command 'migrat'; did you mean migrate?" in answer.stderr


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("blob cpp", "No such command 'cpp'; did you mean cp?"),
        ("compute sho", "No such command 'sho'; did you mean show?"),
        ("compute disk atach", "No such command 'atach'; did you mean attach?"),
        ("db ur", "No such command 'ur'; did you mean url?"),
        ("dns qqq", "No such command 'qqq'; there is: cutover, diff, export, import, records, rm, serve, set, zones"),
        ("secrets gte", "No such command 'gte'; did you mean get?"),
    ],
)
def test_a_misspelt_command_of_a_group_names_the_near_one_or_all(shiftable, command: str, told: str) -> None:
    answer = shiftable(*command.split())
    assert (2, f"Error: {told}") == (answer.returncode, answer.stderr.splitlines()[-1])


def test_a_second_name_of_a_command_is_found_and_not_proposed(shiftable) -> None:
    assert "No such command" not in shiftable("secrets", "list", "app").stderr
    assert "No such command 'lst'; did you mean ls?" in shiftable("secrets", "lst").stderr
    assert "set" not in shiftable("secrets", "qqq").stderr.replace("git-setup", "").split("there is: ")[1].split(", ")


def test_no_file_is_one_clear_error(shiftable) -> None:
    answer = shiftable("plan")
    assert 2 == answer.returncode
    assert "there is no shiftable.toml in" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_all_mistakes_of_the_file_are_told_at_once(shiftable, file: Path) -> None:
    file.write_text(FILE.replace("bucket =", "bukket =") + '[providers.x]\ntype = "awz"\n')
    answer = shiftable("check")
    assert 2 == answer.returncode
    assert 2 == answer.stderr.count("error: ")
    assert "did you mean bucket?" in answer.stderr


def test_an_unknown_environment_is_answered_with_the_near_one(shiftable, file: Path) -> None:
    answer = shiftable("-e", "prodution", "plan")
    assert 2 == answer.returncode
    assert "did you mean production?" in answer.stderr


def test_the_file_may_be_named(shiftable, file: Path) -> None:
    other = file.rename(file.parent / "other.toml")
    assert 0 == shiftable("-f", str(other), "plan").returncode


def test_plan_shows_what_is_missing_and_changes_nothing(shiftable, file: Path) -> None:
    answer = shiftable("plan", "--json")
    assert 0 == answer.returncode
    assert ["blob.assets"] == [
        change["resource"] for change in json.loads(answer.stdout)["changes"] if change["action"] == "create"
    ][:1]
    assert 1 == shiftable("plan", "--exit-code").returncode


def test_plan_says_why_and_what_it_costs(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change = Change(
        service="blob",
        before=BucketSpec(name="shop-assets"),
        after=BucketSpec(name="shop-assets", versioning=True),
        reason="locks need versions",
        monthly_cost=Decimal("-1234.5"),
    )
    monkeypatch.setattr(App, "diff", lambda _, declared: (change,) if declared.service == "blob" else ())
    told = CliRunner().invoke(cli, ["-f", str(file), "plan"])
    assert (
        "    versioning: false → true\n    why: locks need versions\n    costs -1,234.50 USD a month\n"
    ) in told.stdout
    (found,) = json.loads(CliRunner().invoke(cli, ["-f", str(file), "plan", "--json"]).stdout)["changes"]
    assert ("locks need versions", "-1234.5") == (found["reason"], found["monthly_cost"])


def test_plan_counts_the_resources_that_were_asked(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(App, "diff", lambda *_: ())
    for asked, said in ((["plan", "blob.assets"], "(1 resource)"), (["plan"], "(2 resources)")):
        told = CliRunner().invoke(cli, ["-f", str(file), "-e", "production", *asked])
        assert f"production: everything is as declared {said}\n" == told.stdout


def test_why_a_change_failed_is_said_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionDenied("not yours")

    monkeypatch.setattr(App, "apply", refuse)
    told = CliRunner().invoke(cli, ["-f", str(file), "-e", "production", "apply", "blob.assets"])
    assert "create blob.assets (shop-assets): failed\n" == told.stdout
    assert "error: blob.assets: not yours\n" == told.stderr


def test_a_provider_that_is_not_there_is_wrong_configuration(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ProviderError(f"the provider {name!r} is not installed")

    monkeypatch.setattr(registry, "load", absent)
    for command in (["plan", "blob"], ["apply", "blob"], ["blob", "ls", "assets:"], ["providers", "aws"]):
        told = CliRunner().invoke(cli, ["-f", str(file), "-e", "production", *command])
        assert 2 == told.exit_code
        assert "is not installed" in told.stderr


def test_ctrl_c_at_a_prompt_is_an_interrupt_and_a_no_is_none(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for reason, code in ((KeyboardInterrupt(), 130), (EOFError(), 1)):
        abort = click.Abort()
        abort.__context__ = reason  # as click leaves it
        monkeypatch.setattr(App, "diff", Mock(side_effect=abort))
        assert code == CliRunner().invoke(cli, ["-f", str(file), "-e", "production", "plan"]).exit_code


def test_a_narrow_terminal_cuts_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    context, terminal = Context(), io.StringIO()
    monkeypatch.setattr(context, "_console", Console(file=terminal, force_terminal=True, width=12, color_system=None))
    context.table(("key", "modified"), [("deploy/key.pub", "2026-11-22")])
    lines = terminal.getvalue().splitlines()
    width = lines[0].index("modif")
    assert "key" + "deploy/key.pub" == "".join(line[:width].strip() for line in lines)


def test_a_difference_is_in_colour_on_a_terminal_but_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting, said in (("", "\x1b[31m-a\x1b[0m\n"), ("1", "-a\n")):
        terminal = io.StringIO()
        monkeypatch.setattr(terminal, "isatty", lambda: True)
        monkeypatch.setattr("sys.stdout", terminal)
        monkeypatch.setenv("NO_COLOR", setting)
        _diff_line("-", "a", "red")
        assert said == terminal.getvalue()


def test_a_resource_that_is_not_declared_is_named(shiftable, file: Path) -> None:
    answer = shiftable("plan", "blob.asets")
    assert 2 == answer.returncode
    assert "not declared: blob.asets; there is: blob.assets, secrets.app" in answer.stderr


def test_apply_says_what_it_did(shiftable, file: Path) -> None:
    answer = shiftable("apply", "blob")
    assert 0 == answer.returncode
    assert "create blob.assets (shop-assets): done\n" == answer.stdout


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Café Zürich", "cafe-zurich"),
        ("Магазин", "app"),
        ("店 shop №1", "shop-no1"),
        ("straße__x", "strae-x"),
        ("xn--a", "xn-a"),
        ("İstanbul", "istanbul"),
        ("-" * 5, "app"),
        ("a" * 90, "a" * 40),
    ],
)
def test_init_makes_a_valid_bucket_name_of_any_name(shiftable, folder: Path, name: str, label: str) -> None:
    assert 0 == shiftable("init", "--name", name).returncode
    assert f'bucket = "{label}-assets"' in (folder / "shiftable.toml").read_text()
    assert 0 == shiftable("check", "--offline").returncode


def test_check_tells_what_is_there_and_what_another_provider_lacks(shiftable, file: Path) -> None:
    assert 0 == shiftable("check").returncode
    assert 0 == shiftable("check", "--offline").returncode
    answer = shiftable("check", "--target", "gcp", "--json")
    found = json.loads(answer.stdout) if answer.stdout else None
    if found is None:  # gcp is not installed
        assert "pip install" in answer.stderr
    else:
        assert 1 == answer.returncode
        assert not found["good"]


def test_check_says_how_what_is_missing_is_made(shiftable, file: Path) -> None:
    can = "blob.assets on memory: shop-assets can be made"
    assert f"{can}: shiftable apply\n" in shiftable("check").stdout
    assert f"{can}\n" in shiftable("check", "--target", "memory").stdout  # where apply may make none


def test_check_tells_of_a_misspelt_provider_once(shiftable, file: Path) -> None:
    answer = shiftable("check", "--target", "memry")
    assert 2 == answer.returncode
    assert 1 == answer.stderr.count("memry")
    assert not answer.stdout


def test_providers_lists_what_is_installed(shiftable) -> None:
    assert "memory\tshiftable " in shiftable("providers").stdout
    assert "Blob" not in shiftable("providers").stderr
    answer = shiftable("providers", "memory", "--json")
    assert json.loads(answer.stdout)["blob"][0]["if_match"] is True
    answer = shiftable("providers", "memry")
    assert 2 == answer.returncode
    assert "did you mean memory?" in answer.stderr


@pytest.mark.parametrize(
    "error", [ModuleNotFoundError("No module named 'acme_sdk'"), TypeError("max_key is missing"), SyntaxError("oh")]
)
def test_a_provider_that_is_broken_says_so_in_the_list_and_by_name(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    class Broken:
        @staticmethod
        def features() -> None:
            raise error

    load = registry.load
    monkeypatch.setattr(registry, "load", lambda name: Broken if name == "memory" else load(name))
    why = f"the provider memory cannot be used: {type(error).__name__}: {error}"
    told = CliRunner().invoke(cli, ["providers", "memory"])
    assert (2, f"error: {why}\n") == (told.exit_code, told.stderr)
    told = CliRunner().invoke(cli, ["providers", "--json"])
    rows = {row["name"]: row for row in json.loads(told.stdout)}
    assert (1, why, []) == (told.exit_code, rows["memory"]["problem"], rows["memory"]["services"])


def test_the_schema_is_json(shiftable) -> None:
    assert "shiftable.toml" == json.loads(shiftable("schema").stdout)["title"]


def test_init_writes_a_file_that_is_right_once(shiftable, folder: Path) -> None:
    assert 0 == shiftable("init", "--name", "My Shop").returncode
    text = (folder / "shiftable.toml").read_text()
    assert 'name = "my-shop"' in text
    assert "*\n" == (folder / ".shiftable" / ".gitignore").read_text()
    json.loads((folder / ".shiftable" / "schema.json").read_text())
    again = shiftable("init")
    assert 2 == again.returncode
    assert "exists already" in again.stderr
    assert text == (folder / "shiftable.toml").read_text()


def test_init_on_a_full_disk_leaves_no_half_of_a_file(shiftable, folder: Path) -> None:
    script = f"ulimit -f 0; trap '' XFSZ; {Path(sys.executable).parent / 'shiftable'} init"
    answer = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, cwd=folder)
    assert (1, "error: File too large\n") == (answer.returncode, answer.stderr)
    assert [] == list(folder.iterdir())
    assert 0 == shiftable("init").returncode


def test_a_missing_object_is_a_failure_and_no_traceback(shiftable, file: Path) -> None:
    answer = shiftable("blob", "cat", "assets:absent")
    assert 1 == answer.returncode
    assert answer.stderr.startswith("error: blob.stream on object 'absent' in bucket 'shop-assets' (memory): ")


def test_destroy_needs_the_name_where_nobody_can_type_it(shiftable, file: Path) -> None:
    answer = shiftable("destroy", "secrets.app")
    assert answer.returncode in (0, 2)
    assert "Traceback" not in answer.stderr
    assert 2 == shiftable("destroy").returncode


def test_run_gives_the_resources_as_variables_and_the_exit_code_back(shiftable, file: Path) -> None:
    names = "BLOB_ASSETS_BUCKET", "SECRETS_APP_PREFIX", "SHIFTABLE_ENV"
    code = f"import os; print(*(os.environ[name] for name in {names}))"
    answer = shiftable("-e", "production", "run", "--", sys.executable, "-c", code)
    assert "shop-assets shop production\n" == answer.stdout
    assert 7 == shiftable("run", "--", sys.executable, "-c", "import sys; sys.exit(7)").returncode


def test_run_refuses_variables_that_are_taken_and_commands_that_are_not(
    shiftable, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = shiftable("run", "--", "no-such-command-here")
    assert 127 == answer.returncode
    monkeypatch.setenv("BLOB_ASSETS_BUCKET", "mine")
    answer = shiftable("run", "--", "env")
    assert 2 == answer.returncode
    assert "set already: BLOB_ASSETS_BUCKET" in answer.stderr
    assert 0 == shiftable("run", "--override", "--", "env").returncode


def test_two_resources_that_give_one_variable_are_refused(shiftable, file: Path) -> None:
    file.write_text(FILE + '[blob."a-b"]\n[blob.a_b]\n')
    answer = shiftable("run", "--", "env")
    assert 2 == answer.returncode
    assert "both give the variable BLOB_A_B_BUCKET" in answer.stderr


def test_commands_labels_and_files_are_completed(folder: Path, file: Path, completed) -> None:
    assert ["migrate"] == completed("shiftable mig")
    assert list(COMMANDS) == completed("shiftable ")
    assert ["--version", "--verbose"] == completed("shiftable --ver")
    assert ["assets:"] == completed("shiftable blob ls a")
    assert ["blob.assets", "secrets.app"] == completed("shiftable plan ")
    (folder / "a b").mkdir()
    (folder / "ä").write_text("")
    assert ["assets:", "a\\ b/"] == completed("shiftable blob cp a")
    assert ["ä"] == completed("shiftable blob cp ä")
    file.write_text("not toml [")
    assert [] == completed("shiftable blob ls a")


def test_names_are_completed_whichever_environment_is_meant(folder: Path, file: Path, completed) -> None:
    file.write_text(FILE.replace("development", "staging") + '[providers.local]\ntype = "memory"\n')
    assert ["production", "staging"] == sorted(completed("shiftable -e "))
    assert ["staging"] == completed("shiftable --env st")
    for chosen in ("", "-e staging ", "-e nowhere "):
        assert ["assets:"] == completed(f"shiftable {chosen}blob ls a")
        assert ["local", "memory"] == completed(f"shiftable {chosen}migrate --from ")
    file.rename(folder / "other.toml")
    assert [] == completed("shiftable -e st")
    assert ["staging"] == completed("shiftable -f other.toml -e st")


def test_without_its_packages_the_command_says_what_to_install(folder: Path) -> None:
    code = "import sys; sys.modules['click'] = None; from shiftable.cli import main; main()"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 2 == answer.returncode
    assert 'pip install "shiftable[cli]"' in answer.stderr


def test_a_reader_that_goes_away_is_no_error(folder: Path, file: Path) -> None:
    command = f"{Path(sys.executable).parent / 'shiftable'} schema | head -1"
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in answer.stderr
    assert "{\n" == answer.stdout
