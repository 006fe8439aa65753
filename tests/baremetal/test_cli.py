"""The command on this machine's files: what is declared is made, used, moved and destroyed."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

FILE = """
[project]
name = "shop"
[environments.development]
provider = "local"
[providers.local]
type = "baremetal"
root = "local"
[providers.cellar]
type = "baremetal"
root = "cellar"
[blob.assets]
bucket = "shop-assets"
[blob.logs]
[secrets.app]
prefix = "shop"
env = { STRIPE_KEY = "stripe/key" }
"""
CANARY = "canary-5c1e0f9b7d"


@pytest.fixture
def shop(folder: Path, shiftable) -> Path:
    (folder / "shiftable.toml").write_text(FILE)
    assert 0 == shiftable("apply").returncode
    return folder


def test_apply_makes_what_plan_shows_and_the_second_time_nothing(folder: Path, shiftable) -> None:
    (folder / "shiftable.toml").write_text(FILE.replace("[blob.logs]", "[blob.logs]\nversioning = true"))
    plan = json.loads(shiftable("plan", "--json").stdout)
    assert ["blob.assets", "blob.logs", "secrets.app"] == [change["resource"] for change in plan["changes"]]
    assert 0 == shiftable("apply").returncode
    assert "everything is as declared" in shiftable("apply").stdout
    assert 0 == shiftable("plan", "--exit-code").returncode
    (folder / "shiftable.toml").write_text(FILE)
    assert "versioning: true → false" in shiftable("plan").stdout
    assert 0 == shiftable("apply").returncode
    assert 0 == shiftable("plan", "--exit-code").returncode


@pytest.fixture
def half_broken(folder: Path) -> Path:
    """Give the first of three resources a provider that cannot be used."""
    (folder / "no-folder").write_text("a file")
    overrides = '[environments.development.overrides]\n"blob.assets" = "broken"\n[providers.local]'
    broken = '[providers.broken]\ntype = "baremetal"\nroot = "no-folder"\n'
    (folder / "shiftable.toml").write_text(FILE.replace("[providers.local]", overrides) + broken)
    return folder


def test_a_provider_that_fails_does_not_hide_the_others_from_a_plan(shiftable, half_broken: Path) -> None:
    answer = shiftable("plan", "--json")
    assert 2 == answer.returncode
    document = json.loads(answer.stdout)
    assert ["blob.logs", "secrets.app"] == [change["resource"] for change in document["changes"]]
    (failure,) = document["failures"]
    assert "blob.assets" == failure["resource"]
    assert "is no folder" in failure["error"]
    assert answer.stderr.startswith("error: blob.assets: ")
    said = shiftable("plan")
    assert 2 == said.returncode
    assert "+ blob.logs" in said.stdout


def test_a_provider_that_fails_does_not_keep_the_others_from_being_applied(shiftable, half_broken: Path) -> None:
    answer = shiftable("apply", "--json")
    assert 2 == answer.returncode
    document = json.loads(answer.stdout)
    assert [("blob.logs", "done"), ("secrets.app", "done")] == [
        (change["resource"], change["result"]) for change in document["changes"]
    ]
    assert ["blob.assets"] == [failure["resource"] for failure in document["failures"]]
    said = shiftable("apply")
    assert (2, "") == (said.returncode, said.stdout)
    assert 1 == said.stderr.count("error: ")


def test_nothing_known_to_change_is_not_everything_as_declared(shiftable, half_broken: Path) -> None:
    answer = shiftable("plan", "blob.assets")
    assert 2 == answer.returncode
    assert "not every resource could be asked" in answer.stdout
    assert "everything is as declared" not in shiftable("apply", "blob.assets").stdout


def test_what_is_applied_and_destroyed_is_written_down(shop: Path, shiftable) -> None:
    (shop / "local/blob/shop-assets/a").write_text("1")
    shiftable("destroy", "blob.assets", "blob.logs", "--yes", "shop-assets", "--yes", "logs")
    lines = [json.loads(line) for line in (shop / ".shiftable/applied.jsonl").read_text().splitlines()]
    assert [
        ("blob.assets", "create", "begun"),
        ("blob.assets", "create", "done"),
        ("blob.logs", "create", "begun"),
        ("blob.logs", "create", "done"),
        ("secrets.app", "create", "begun"),
        ("secrets.app", "create", "done"),
        ("blob.assets", "delete", "begun"),
        ("blob.assets", "delete", "failed"),
    ] == [(line["resource"], line["action"], line["state"]) for line in lines]
    assert {"local"} == {line["provider"] for line in lines}


def test_destroy_deletes_by_name_and_refuses_what_is_not_empty(shop: Path, shiftable) -> None:
    (shop / "local/blob/shop-assets/a").write_text("1")
    refused = shiftable("destroy", "blob.assets", "--yes", "shop-assets")
    assert 1 == refused.returncode
    assert (shop / "local/blob/shop-assets/a").exists()
    assert 2 == shiftable("destroy", "blob.logs").returncode
    assert (shop / "local/blob/logs").is_dir()
    assert "destroyed" in shiftable("destroy", "blob.logs", "--yes", "logs").stdout
    assert not (shop / "local/blob/logs").exists()
    assert "does not exist" in shiftable("destroy", "blob.logs", "--yes", "logs").stdout


def test_files_go_up_and_come_down(shop: Path, shiftable) -> None:
    (shop / "photo.bin").write_bytes(bytes(range(256)) * 40_000)
    assert 0 == shiftable("blob", "cp", "photo.bin", "assets:album/", "--content-type", "image/png").returncode
    assert "album/photo.bin\n" == shiftable("blob", "ls", "-r", "assets").stdout
    assert "album/\n" == shiftable("blob", "ls", "assets").stdout
    about = json.loads(shiftable("blob", "stat", "assets:album/photo.bin", "--json").stdout)
    assert (10_240_000, "image/png") == (about["size"], about["content_type"])
    assert 0 == shiftable("blob", "cp", "assets:album/photo.bin", "back.bin").returncode
    assert (shop / "photo.bin").read_bytes() == (shop / "back.bin").read_bytes()
    assert 1 == shiftable("blob", "cp", "photo.bin", "assets:album/", "--if-absent").returncode
    assert 0 == shiftable("blob", "cp", "assets:album/photo.bin", "logs:").returncode
    assert 0 == shiftable("blob", "rm", "assets:album/photo.bin").returncode
    assert "" == shiftable("blob", "ls", "-r", "assets").stdout
    assert 1 == shiftable("blob", "rm", "assets:album/photo.bin").returncode


def test_standard_input_and_output_are_files_too(shop: Path, shiftable) -> None:
    assert 0 == shiftable("blob", "cp", "-", "assets:greeting", stdin="hello").returncode
    assert "hello" == shiftable("blob", "cat", "assets:greeting").stdout
    assert "hello" == shiftable("blob", "cp", "assets:greeting", "-").stdout


def test_many_are_deleted_only_when_that_is_confirmed(shop: Path, shiftable) -> None:
    for name in ("x/1", "x/2", "y"):
        shiftable("blob", "cp", "-", f"assets:{name}", stdin=name)
    assert 2 == shiftable("blob", "rm", "-r", "assets:x/").returncode
    assert 0 == shiftable("blob", "rm", "-r", "--yes", "assets:x/").returncode
    assert "y\n" == shiftable("blob", "ls", "-r", "assets").stdout


def test_a_folder_that_is_not_mounted_empties_no_bucket(shop: Path, shiftable) -> None:
    for name in ("tree", "mounted"):
        (shop / name).mkdir()
    for number in range(12):
        (shop / "tree" / f"{number}").write_text("1")
    assert 0 == shiftable("blob", "sync", "tree", "assets:", "--apply").returncode
    sync = ("blob", "sync", "mounted", "assets:", "--delete")
    for refused in (shiftable(*sync), shiftable(*sync, "--apply"), shiftable(*sync, "--apply", "--delete-limit", "11")):
        assert 1 == refused.returncode
        assert "12 of 12 would be deleted, more than " in refused.stderr
    assert 12 == len(shiftable("blob", "ls", "assets").stdout.splitlines())
    assert 0 == shiftable(*sync, "--apply", "--delete-limit", "100%").returncode
    assert "" == shiftable("blob", "ls", "assets").stdout
    unused = shiftable("blob", "sync", "mounted", "assets:", "--delete-limit", "3")
    assert (2, "error: --delete-limit goes with --delete\n") == (unused.returncode, unused.stderr)


def test_sync_says_what_it_would_do_and_then_does_it_once(shop: Path, shiftable) -> None:
    tree = shop / "tree"
    for name in ("a", "b/c", "b-d"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    dry = shiftable("blob", "sync", "tree", "assets:site/")
    assert "copy a\ncopy b-d\ncopy b/c\n" == dry.stdout
    assert "" == shiftable("blob", "ls", "-r", "assets").stdout
    assert 0 == shiftable("blob", "sync", "tree", "assets:site/", "--apply").returncode
    assert "site/a\nsite/b-d\nsite/b/c\n" == shiftable("blob", "ls", "-r", "assets").stdout
    assert "" == shiftable("blob", "sync", "tree", "assets:site/", "--apply").stdout
    (tree / "a").unlink()
    assert "delete a\n" == shiftable("blob", "sync", "tree", "assets:site/", "--delete", "--apply").stdout
    assert 0 == shiftable("blob", "sync", "assets:site/", "down", "--apply").returncode
    assert "b/c" == (shop / "down/b/c").read_text()
    assert "" == shiftable("blob", "sync", "assets:site/", "down", "--apply").stdout
    assert 1 == shiftable("blob", "sync", "no-such-folder", "assets:", "--apply", "--delete").returncode
    assert "site/b-d\nsite/b/c\n" == shiftable("blob", "ls", "-r", "assets").stdout


def test_clean_says_what_killed_writers_left_and_drops_it_when_it_is_told_to(shop: Path, shiftable) -> None:
    folders = [shop / "local/blob/.shiftable/buckets/shop-assets/uploads" / name for name in ("0" * 32, "1" * 32)]
    for folder, key in zip(folders, ("x/large", "y"), strict=True):
        folder.mkdir(parents=True)
        (folder / "upload.json").write_text(json.dumps({"key": key, "started": 1_700_000_000 * 10**9}))
        (folder / "data").write_bytes(b"half")
    listed = "2023-11-14T22:13:20Z  x/large\n"
    dry = shiftable("blob", "clean", "assets:x/")
    assert (0, listed, "1 to drop; --apply does it\n") == (dry.returncode, dry.stdout, dry.stderr)
    assert "" == shiftable("blob", "clean", "assets", "--older-than", "10000w", "--apply").stdout
    assert [True, True] == [folder.exists() for folder in folders]
    done = shiftable("blob", "clean", "assets:x/", "--apply")
    assert (0, listed, "1 dropped\n") == (done.returncode, done.stdout, done.stderr)
    assert [False, True] == [folder.exists() for folder in folders]
    assert "1 dropped\n" == shiftable("blob", "clean", "assets", "--older-than", "0s", "--apply").stderr
    for wrong in ("1", "d", "-1d", "1y", "\uff11d", "9999999d"):
        answer = shiftable("blob", "clean", "assets", "--older-than", wrong)
        assert (2, True) == (answer.returncode, "is no duration such as" in answer.stderr)


def test_a_secret_is_shown_only_when_that_is_asked_for(shop: Path, shiftable) -> None:
    answers = [
        shiftable("-vv", "secrets", "set", "app", "stripe/key", stdin=CANARY + "\n"),
        shiftable("secrets", "list", "app"),
        shiftable("secrets", "list", "app", "--json"),
        shiftable("secrets", "get", "app", "stripe/key"),
        shiftable("secrets", "get", "app", "stripe/key", "--json"),
        shiftable("secrets", "history", "app", "stripe/key"),
        shiftable("secrets", "set", "app", "stripe/key", "--if-absent", stdin=CANARY + "2"),
    ]
    assert [0, 0, 0, 0, 0, 0, 1] == [answer.returncode for answer in answers]
    assert not any(CANARY in answer.stdout + answer.stderr for answer in answers)
    assert CANARY == shiftable("secrets", "get", "app", "stripe/key", "--reveal").stdout
    files = [path.read_bytes() for path in shop.rglob("*") if path.is_file()]
    assert not any(CANARY.encode() in content for content in files)


def test_versions_of_a_secret_are_kept_promoted_and_restored(shop: Path, shiftable) -> None:
    shiftable("secrets", "set", "app", "k", stdin="one")
    shiftable("secrets", "set", "app", "k", stdin="two")
    assert "one" == shiftable("secrets", "get", "app", "k", "--stage", "previous", "--reveal").stdout
    (old,) = [
        v["version"]
        for v in json.loads(shiftable("secrets", "history", "app", "k", "--json").stdout)
        if v["stages"] == ["previous"]
    ]
    assert 0 == shiftable("secrets", "promote", "app", "k", old).returncode
    assert "one" == shiftable("secrets", "get", "app", "k", "--reveal").stdout
    assert 0 == shiftable("secrets", "rm", "app", "k").returncode
    assert 1 == shiftable("secrets", "get", "app", "k").returncode
    assert 0 == shiftable("secrets", "restore", "app", "k").returncode
    assert "one" == shiftable("secrets", "get", "app", "k", "--reveal").stdout
    assert 2 == shiftable("secrets", "rm", "app", "k", "--purge").returncode
    assert 0 == shiftable("secrets", "rm", "app", "k", "--purge", "--yes").returncode
    assert 1 == shiftable("secrets", "restore", "app", "k").returncode


def test_run_hands_over_mapped_secrets_and_names_the_missing_ones(shop: Path, shiftable) -> None:
    command = ("run", "--", sys.executable, "-c", "import os; print(os.environ['STRIPE_KEY'])")
    missing = shiftable(*command)
    assert 1 == missing.returncode
    assert "stripe/key (for STRIPE_KEY)" in missing.stderr
    shiftable("secrets", "set", "app", "stripe/key", stdin=CANARY)
    assert CANARY + "\n" == shiftable(*command).stdout


def test_a_move_is_planned_done_verified_and_then_nothing_is_left(shop: Path, shiftable) -> None:
    for name in ("a", "b/c", "ü %+#?"):
        shiftable("blob", "cp", "-", f"assets:{name}", stdin=name)
    shiftable("secrets", "set", "app", "stripe/key", stdin=CANARY)
    move = ("migrate", "--from", "local", "--to", "cellar")
    plan = shiftable(*move)
    assert 0 == plan.returncode
    assert "create: 3 items" in plan.stdout
    assert not (shop / "cellar").exists()
    assert 0 == shiftable(*move, "--save-plan", "plan.json").returncode
    done = shiftable(*move, "--apply", "--plan", "plan.json")
    assert 0 == done.returncode, done.stderr
    assert "everything is there" in done.stdout
    assert "ü %+#?" == (shop / "cellar/blob/shop-assets/ü %+#?").read_text()
    events = [json.loads(line) for line in shiftable(*move, "--apply", "--json").stdout.splitlines()]
    reports = [event["report"] for event in events if event["event"] == "report"]
    assert 0 == reports[0]["changed"]
    assert all(report["complete"] for report in reports)
    (shop / "cellar/blob/shop-assets/a").write_text("A")
    wrong = shiftable(*move, "--verify")
    assert 1 == wrong.returncode
    assert "differs: a: " in wrong.stdout + wrong.stderr
    for answer in (plan, done, wrong):
        assert CANARY not in answer.stdout + answer.stderr
    assert CANARY.encode() not in (shop / ".shiftable/migrate.sqlite").read_bytes()


def test_a_plan_that_is_out_of_date_moves_nothing(shop: Path, shiftable) -> None:
    shiftable("blob", "cp", "-", "assets:a", stdin="1")
    move = ("migrate", "--from", "local", "--to", "cellar")
    shiftable(*move, "--save-plan", "plan.json")
    shiftable("blob", "cp", "-", "assets:b", stdin="1")
    answer = shiftable(*move, "--apply", "--plan", "plan.json")
    assert 1 == answer.returncode
    assert "'b' is new" in answer.stderr
    assert not (shop / "cellar/blob/shop-assets/a").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from", "local", "--to", "local"), "source and target are both 'local'"),
        (("--from", "local", "--to", "celler"), "did you mean cellar?"),
        (("--from", "local", "--to", "cellar", "blob.asets"), "blob.asets"),
        (("--from", "local", "--to", "cellar", "--plan", "shiftable.toml"), "--plan goes with --apply"),
        (("--from", "local", "--to", "cellar", "--apply", "--plan", "shiftable.toml"), "no saved plan"),
        (("--from", "local", "--to", "cellar", "--degrade", "colour"), "colour"),
    ],
)
def test_a_wrong_move_is_one_clear_error(shop: Path, shiftable, arguments: tuple[str, ...], said: str) -> None:
    answer = shiftable("migrate", *arguments)
    assert 2 == answer.returncode
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr


def test_an_unreadable_journal_is_one_clear_error_and_stays_as_it_is(shop: Path, shiftable) -> None:
    journal = shop / ".shiftable" / "migrate.sqlite"
    journal.parent.mkdir(exist_ok=True)
    journal.write_bytes(b"this is no database" * 100)
    answer = shiftable("migrate", "--from", "local", "--to", "cellar", "--apply")
    assert 1 == answer.returncode
    assert 1 == answer.stderr.count("error: ")
    assert b"this is no database" * 100 == journal.read_bytes()


def test_ctrl_c_ends_a_move_that_then_goes_on(shop: Path, shiftable) -> None:
    (shop / "shiftable.toml").write_text(FILE.replace('root = "cellar"', 'root = "cellar"\nfsync = false'))
    for n in range(3000):
        path = shop / f"local/blob/shop-assets/{n % 10}/{n}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(os.urandom(2000))
    command = [
        str(Path(sys.executable).parent / "shiftable"),
        "migrate",
        "--from",
        "local",
        "--to",
        "cellar",
        "--apply",
    ]
    with subprocess.Popen(command, cwd=shop, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        arrived = shop / "cellar/blob/shop-assets"
        while process.poll() is None and not (arrived.exists() and any(arrived.iterdir())):
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert 130 == process.returncode, errors
    assert "interrupted; the same command goes on" in errors
    assert "Traceback" not in errors
    assert 0 == shiftable("migrate", "--from", "local", "--to", "cellar", "--apply").returncode
    assert 3000 == sum(len(files) for _, _, files in os.walk(arrived))


def test_on_a_terminal_there_are_bars_and_a_prompt_that_hides(shop: Path) -> None:
    """Drive the command through a pseudo-terminal, as a person would."""

    def typed(arguments: list[str], keys: list[tuple[str, str]]) -> str:
        pid, terminal = pty.fork()
        if pid == 0:
            os.execv(str(Path(sys.executable).parent / "shiftable"), ["shiftable", *arguments])  # noqa: S606
        seen, waiting = "", list(keys)
        while select.select([terminal], [], [], 60)[0]:
            try:
                seen += os.read(terminal, 4096).decode(errors="replace")
            except OSError:
                break
            if waiting and waiting[0][0] in seen.rpartition("\x00")[2]:
                hidden = waiting[0][1] == CANARY
                while hidden and termios.tcgetattr(terminal)[3] & termios.ECHO:
                    time.sleep(0.001)  # a prompt may be written before the terminal stops to show what is typed
                os.write(terminal, (waiting.pop(0)[1] + "\n").encode())
                seen += "\x00"
        os.close(terminal)
        os.waitpid(pid, 0)
        return seen

    secret = typed(["secrets", "set", "app", "k"], [("value:", CANARY), ("epeat", CANARY)])
    assert "is current" in secret
    assert CANARY not in secret
    moved = typed(["migrate", "--from", "local", "--to", "cellar", "--apply"], [])
    assert "copying" in moved
    assert "\x1b[" in moved
    assert "Aborted" in typed(["destroy", "blob.logs"], [("to destroy it", "wrong")])
    assert "destroyed" in typed(["destroy", "blob.logs"], [("to destroy it", "logs")])
