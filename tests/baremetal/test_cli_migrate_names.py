"""``shiftable migrate --names``: a bucket that is called otherwise on the target."""

import json
from pathlib import Path

import pytest

import shiftable as library

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
bucket = "shop-logs"
"""
MOVE = ("migrate", "--from", "local", "--to", "cellar", "blob")


@pytest.fixture
def shop(folder: Path, shiftable) -> Path:
    (folder / "shiftable.toml").write_text(FILE)
    assert 0 == shiftable("apply").returncode
    with library.load("shiftable.toml") as app:
        app.blob("assets").put("a", b"content of assets")
        app.blob("logs").put("b", b"content of logs")
    return folder


def at(root: Path) -> dict[str, bytes]:
    """Return the objects below a root, as the files that they are."""
    found = (path for path in (root / "blob").rglob("*") if path.is_file() and ".shiftable" not in path.parts)
    return {path.relative_to(root / "blob").as_posix(): path.read_bytes() for path in found}


def test_a_bucket_moves_to_another_name_and_the_others_keep_theirs(shop: Path, shiftable) -> None:
    source = at(shop / "local")
    for _ in range(2):
        answer = shiftable(*MOVE, "--names", "assets=new-assets", "--apply")
        assert 0 == answer.returncode, answer.stderr
        assert {"new-assets/a": b"content of assets", "shop-logs/b": b"content of logs"} == at(shop / "cellar")
    assert source == at(shop / "local")
    again = json.loads(shiftable(*MOVE, "--names", "blob.assets=new-assets", "--json").stdout.splitlines()[-1])
    assert 0 == shiftable(*MOVE, "--names", "blob.assets=new-assets", "--verify").returncode
    assert "new-assets" in json.dumps(again)


def test_with_the_new_name_in_the_file_the_application_finds_its_objects(shop: Path, shiftable) -> None:
    assert 0 == shiftable(*MOVE, "--names", "assets=new-assets", "--apply").returncode
    file = shop / "shiftable.toml"
    text = file.read_text().replace('bucket = "shop-assets"', 'bucket = "new-assets"')
    file.write_text(text.replace('provider = "local"', 'provider = "cellar"'))
    with library.load("shiftable.toml") as app:
        assert b"content of assets" == app.blob("assets").get("a")


def test_a_plan_for_one_name_is_no_plan_for_another(shop: Path, shiftable) -> None:
    assert 0 == shiftable(*MOVE, "--names", "assets=new-assets", "--save-plan", "plan.json").returncode
    for names in ((), ("--names", "assets=other-assets")):
        assert 1 == shiftable(*MOVE, *names, "--apply", "--plan", "plan.json").returncode
        assert not (shop / "cellar" / "blob").exists() or {} == at(shop / "cellar")
    assert 0 == shiftable(*MOVE, "--names", "assets=new-assets", "--apply", "--plan", "plan.json").returncode


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["assets"], "write LABEL=BUCKET"),
        (["assets="], "write LABEL=BUCKET"),
        (["asets=x"], "did you mean assets?"),
        (["assets=shop-logs"], "two buckets would become one, shop-logs"),
        (["assets=one", "logs=one"], "two buckets would become one, one"),
        (["assets=one", "assets=two"], "assets has two names"),
    ],
    ids=["no name", "an empty name", "a wrong label", "taken", "twice", "two"],
)
def test_a_name_that_cannot_be_is_refused_before_anything_is_done(
    shop: Path, shiftable, names: list[str], said: str
) -> None:
    options = [part for name in names for part in ("--names", name)]
    answer = shiftable(*MOVE, *options, "--apply")
    assert answer.returncode in (1, 2)
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not (shop / "cellar" / "blob").exists()


def test_a_name_that_the_target_cannot_have_is_refused_with_its_bucket(shop: Path, shiftable) -> None:
    answer = shiftable(*MOVE, "--names", "assets=a/b", "--apply")
    assert 1 == answer.returncode
    assert "a/b" in answer.stdout
    assert {"shop-logs/b": b"content of logs"} == at(shop / "cellar")
