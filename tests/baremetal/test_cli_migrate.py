"""``shiftable migrate`` from outside: filters, limits, reports, what is said and with which exit code."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shiftable.cli._migrate import _show_plan
from shiftable.migrate._plan import Plan, ResourcePlan
from shiftable.migrate._report import LossCount
from shiftable.migrate.mover import Options, Trouble

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
[secrets.app]
prefix = "shop"
"""
MOVE = ("migrate", "--from", "local", "--to", "cellar", "blob")


@pytest.fixture
def shop(folder: Path, shiftable) -> Path:
    (folder / "shiftable.toml").write_text(FILE)
    assert 0 == shiftable("apply").returncode
    return folder


@pytest.fixture
def put(shop: Path):
    import shiftable

    def put(**objects: bytes) -> None:
        with shiftable.load(shop / "shiftable.toml") as app:
            for key, data in objects.items():
                app.blob("assets").put(key.replace("__", "/").replace("_", "."), data)

    return put


def moved(shiftable, *arguments: str, code: int = 0) -> list[str]:
    """Move, and return the keys that are on the target then, as the target's own listing tells them."""
    answer = shiftable(*MOVE, "--apply", *arguments)
    assert code == answer.returncode, answer.stderr
    import shiftable as library

    with library.load("shiftable.toml") as app:
        return [found.key for found in app.cloud("cellar").blob.bucket("shop-assets").list()]


def test_the_first_pattern_that_matches_decides_in_the_order_of_the_command_line(shop: Path, put, shiftable) -> None:
    put(a_jpg=b"1", b_txt=b"2", tmp__c_jpg=b"3", tmp__keep__d_jpg=b"4")

    assert ["a.jpg", "tmp/keep/d.jpg"] == moved(
        shiftable, "--include", "tmp/keep/", "--exclude=tmp/", "--include", "*.jpg"
    )


def test_the_other_order_is_another_filter(shop: Path, put, shiftable) -> None:
    put(a_jpg=b"1", tmp__c_jpg=b"3")

    assert ["a.jpg", "tmp/c.jpg"] == moved(shiftable, "--include", "*.jpg", "--exclude", "tmp/", "--include", "x")


def test_prefixes_sizes_and_times_choose(shop: Path, put, shiftable) -> None:
    put(a__small=b"1", a__large=b"12345", b__large=b"12345")

    assert ["a/large"] == moved(shiftable, "--prefix", "a/", "--min-size", "2", "--max-size", "1KiB")
    assert ["a/large"] == moved(shiftable, "--modified-before", "2001-01-01")
    assert ["a/large", "a/small", "b/large"] == moved(shiftable, "--modified-after", "2001-01-01T00:00+02:00")


@pytest.mark.parametrize(
    "text", [b"a.jpg\nimg/b.jpg\r\n\nabsent\n", b"a.jpg\0img/b.jpg\0", b"\xef\xbb\xbfa.jpg\nimg/b.jpg"]
)
def test_a_list_of_keys_is_read_from_a_file_or_from_standard_input(shop: Path, put, shiftable, text: bytes) -> None:
    put(a_jpg=b"1", img__b_jpg=b"2", c_jpg=b"3")
    (shop / "keys").write_bytes(text)

    told = shiftable(*MOVE, "--files-from", "keys")
    assert (b"absent" in text) == ("absent: the list of keys has it, and the source does not" in told.stdout)
    assert ["a.jpg", "img/b.jpg"] == moved(shiftable, "--files-from", "keys")
    command = [str(Path(sys.executable).parent / "shiftable"), *MOVE, "--files-from", "-", "--json"]
    answer = subprocess.run(command, input=text, capture_output=True, check=True)
    assert {"unchanged": {"count": 2, "bytes": 2}, "hidden": {"count": 1, "bytes": 1}} == json.loads(
        answer.stdout.splitlines()[-1]
    )["plan"]["resources"][0]["actions"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--include", "a[b"), "the pattern 'a[b' cannot be used: a [ is not closed (character 2)"),
        (("--min-size", "10M"), "'10M' is no size; write 4096, 10KiB"),
        (("--min-size", "2", "--max-size", "1"), "no object is larger than 2 and smaller than 1 bytes"),
        (("--modified-after", "yesterday"), "'yesterday' is no time; write 2026-03-31"),
        (("--delete-limit", "5"), "--delete-limit goes with --delete"),
        (("--delete", "--delete-limit", "many"), "is no limit"),
        (("--limit-bandwidth", "0"), "at a speed of nothing nothing moves"),
        (("--limit-requests", "10/day"), "'10/day' is no rate; write 100/s"),
        (("--report", "report.pdf"), "the name ends in .json or .html"),
        (("--report", "no/where/report.html"), "nothing can be written to no/where"),
        (("--files-from", "binary"), "it is not UTF-8 text"),
        (("--files-from", "absent"), "--files-from absent: No such file or directory"),
        (("--prun",), "No such option"),
        (("--includ", "x"), "--include"),
        (("secrets", "--exclude", "x"), "a filter chooses objects of buckets and says nothing of secrets.app"),
    ],
)
def test_what_is_written_wrong_is_refused_with_what_to_write(shop: Path, shiftable, arguments, told: str) -> None:
    (shop / "binary").write_bytes(b"\xff\xfe")
    answer = shiftable(*MOVE, *arguments)

    assert answer.returncode in (1, 2)
    assert told in " ".join(answer.stderr.replace("│", " ").split())
    assert "Traceback" not in answer.stderr


def test_delete_deletes_within_its_limit(shop: Path, put, shiftable) -> None:
    import shiftable as library

    put(**{f"k{number:02}": b"1" for number in range(40)})
    moved(shiftable)
    with library.load("shiftable.toml") as app:
        for number in range(20):
            app.blob("assets").delete(f"k{number:02}")

    answer = shiftable(*MOVE, "--apply", "--delete")
    assert 1 == answer.returncode
    assert "deletes at most 30% of them" in answer.stderr
    answer = shiftable(*MOVE, "--apply", "--delete", "--delete-limit", "19")
    assert 1 == answer.returncode
    assert "deletes at most 19 items" in answer.stderr
    assert 20 == len(moved(shiftable, "--delete", "--delete-limit", "50%"))


def test_the_plan_says_what_it_would_ask_for_and_what_nobody_knows(shop: Path, put, shiftable) -> None:
    put(a=b"1" * 2048)
    told = shiftable(*MOVE, "--exclude", "x\u202e").stdout

    assert "only: exclude x\\u202e; include the rest" in told
    assert "requests, to move and to verify: " in told
    assert "data that leaves: 4.0 KiB from local, 2.0 KiB from cellar" in told
    assert "cost of requests to local, requests to cellar: unknown, no list prices of baremetal are known\n" in told
    assert " 0.00 " not in told


def test_reports_are_written_as_the_name_says(shop: Path, put, shiftable) -> None:
    put(a=b"123", b=b"4")
    answer = shiftable(*MOVE, "--apply", "--report", "r.json", "--report", "r.html")
    found = json.loads((shop / "r.json").read_text())

    assert 0 == answer.returncode, answer.stderr
    assert ("shiftable.migrate.report/1", "complete") == (found["schema"], found["outcome"])
    assert {"create": {"count": 2, "bytes": 4}} == found["move"]["resources"][0]["done"]
    assert {"count": 2, "bytes": 4} == found["verification"]["resources"][0]["verified"]
    assert (shop / "r.html").read_text().startswith("<!DOCTYPE html>")
    assert 0o644 == (shop / "r.html").stat().st_mode & 0o777
    assert {"r.html", "r.json", "shiftable.toml"} == {path.name for path in shop.iterdir() if path.is_file()}


def test_a_report_is_written_of_a_plan_too(shop: Path, put, shiftable) -> None:
    put(a=b"123")
    assert 0 == shiftable(*MOVE, "--report", "r.json").returncode
    found = json.loads((shop / "r.json").read_text())

    assert (None, {"create": {"count": 1, "bytes": 3}}) == (found["move"], found["plan"]["resources"][0]["actions"])


def test_a_report_is_written_when_it_fails(shop: Path, put, shiftable) -> None:
    put(a=b"123")
    (shop / ".shiftable" / "migrate.sqlite").write_bytes(b"not a journal" * 1000)
    answer = shiftable(*MOVE, "--apply", "--report", "r.json")
    found = json.loads((shop / "r.json").read_text())

    assert 1 == answer.returncode
    assert "failed" == found["outcome"]
    assert "journal" in found["failure"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_report_is_written_when_it_is_interrupted(shop: Path, put, number: int) -> None:
    put(**{f"k{number:04}": b"1" * 1000 for number in range(1500)})
    command = [str(Path(sys.executable).parent / "shiftable"), *MOVE, "--apply", "--concurrency", "1", "--json"]
    command += ["--report", "r.json", "--report", "r.html"]
    with subprocess.Popen(
        [*command, "--report", "r.json", "--report", "r.html"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "progress" and event["phase"] == "copy":
                os.kill(process.pid, number)
                break
        rest = process.stdout.read().splitlines()
        code = process.wait(60)
    found = json.loads((shop / "r.json").read_text())

    assert 130 == code
    assert ("stopped", "interrupted") == (found["outcome"], found["move"]["stopped"])
    assert 0 < found["move"]["changed"] < 1500
    assert "Stopped before the end" in (shop / "r.html").read_text()
    assert "interrupted" == json.loads(rest[-1])["report"]["stopped"]


def test_providers_facets_and_resources_are_completed(shop: Path) -> None:
    def completed(words: str) -> list[str]:
        env = os.environ | {
            "_SHIFTABLE_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
            "COMP_LINE": words,
            "COMP_POINT": str(len(words)),
        }
        command = [str(Path(sys.executable).parent / "shiftable")]
        answer = subprocess.run(command, env=env, cwd=shop, capture_output=True, text=True, check=True)
        return [line.partition(",")[2] for line in answer.stdout.splitlines() if line]

    assert ["cellar", "local"] == completed("shiftable migrate --from ")
    assert ["cellar"] == completed("shiftable migrate --from local --to c")
    assert ["blob.assets", "secrets.app"] == completed("shiftable migrate --from local --to cellar ")
    assert ["tags"] == completed("shiftable migrate --degrade ta")


def test_an_unknown_provider_or_facet_is_answered_with_the_near_one(shop: Path, shiftable) -> None:
    assert "did you mean cellar?" in shiftable("migrate", "--from", "local", "--to", "celler").stderr
    assert "did you mean tags?" in shiftable(*MOVE, "--degrade", "tag").stderr


def test_limits_are_kept_and_part_of_the_estimate(shop: Path, put, shiftable) -> None:
    put(a=b"1" * 3_000_000)
    told = shiftable(*MOVE, "--limit-bandwidth", "1MB/s").stdout
    assert "time: at least 3 s, by the move's own limit of bandwidth" in told
    answer = shiftable(*MOVE, "--apply", "--no-verify", "--limit-bandwidth", "1MB", "--report", "r.json")
    report = json.loads((shop / "r.json").read_text())

    assert 0 == answer.returncode, answer.stderr
    assert 1_000_000 == report["options"]["bandwidth"]
    assert 0 == shiftable(*MOVE, "--apply", "--limit-requests", "1000/s").returncode


def test_an_inventory_stands_in_for_the_listing(shop: Path, put, shiftable) -> None:
    put(a_jpg=b"1", b_jpg=b"2", c_jpg=b"3")
    (shop / "inventory.csv").write_text("key\nc.jpg\na.jpg\n")

    assert ["a.jpg", "c.jpg"] == moved(shiftable, "--inventory", "inventory.csv")
    answer = shiftable(*MOVE, "--inventory", "inventory.csv", "--delete")
    assert 2 == answer.returncode
    assert "goes without delete" in answer.stderr


def test_what_would_not_arrive_is_told_with_what_accepts_it_if_anything_does(shop: Path, shiftable) -> None:
    (shop / "shiftable.toml").write_text(f'{FILE}[compute.web]\nimage = "debian-12"\ncpus = 1\nmemory_gib = 1\n')
    refused = shiftable("migrate", "--from", "local", "--to", "cellar", "compute.web")
    assert 1 == refused.returncode
    assert "REFUSED as a whole" in refused.stdout
    assert refused.stdout.endswith("something would not arrive: see above\n")


def test_a_plan_names_what_accepts_its_losses(capsys: pytest.CaptureFixture[str]) -> None:
    losses = tuple(
        LossCount(facet=facet, detail="not there", accepted=accepted, count=1, examples=("a",))
        for facet, accepted in (("tags", False), ("headers", False), ("metadata", True), ("keys", None))
    )
    found = ResourcePlan(address="blob.assets", spec="", losses=losses, troubles={Trouble.REFUSED: 1})
    _show_plan(Plan(source="here", target="there", options=Options(), resources=(found,)), None)
    told = "something would not arrive: see above; --degrade headers --degrade tags accepts what would be lost"
    assert told == capsys.readouterr().out.splitlines()[-1]
