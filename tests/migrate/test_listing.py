"""Listing files: every format, in any order, whatever keys are made of; and what they do to a move."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shiftable.errors import MigrationError
from shiftable.migrate import Action, Filter, Inventory, Rule, Trouble, _listing
from shiftable.migrate._listing import Entry

MOMENT = datetime(2026, 3, 31, 12, 30, 15, tzinfo=UTC)
AWKWARD = ["a//b", "../x", "trailing/", "a b+c%20?#", 'quote"s,comma', "emoji 😀", "e\u0301", "\u00e9", "\n", "é" * 500]


def entries(path: Path, bucket: str = "b") -> list[Entry]:
    return list(Inventory(str(path)).entries(bucket))


def written(path: Path, rows: Iterable[Iterable[object]]) -> Path:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def by_bytes(found: Iterable[str]) -> list[str]:
    return sorted({*found}, key=lambda key: key.encode())


@pytest.mark.parametrize("name", ["list", "list.txt", "list.txt.gz"])
def test_a_plain_list_is_keys_in_lines_or_ended_by_nul(tmp_path: Path, name: str) -> None:
    for data in (b"b\r\na\n\nb\nc d", b"b\0a\0c d\0"):
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        assert [Entry(key="a"), Entry(key="b"), Entry(key="c d")] == entries(tmp_path / name)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)))
def test_any_key_survives_every_format(tmp_path_factory: pytest.TempPathFactory, keys: list[str]) -> None:
    folder = tmp_path_factory.mktemp("listing")
    (folder / "nul").write_bytes(b"".join(key.encode() + b"\0" for key in keys) or b"\0")
    named = written(folder / "named.csv", [["Key", "Size"], *([key, 1] for key in keys)])
    bare = written(folder / "bare.csv.gz", [["b", quote(key, safe="")] for key in keys])
    plus = written(folder / "plus.csv", [["b", quote_plus(key), 1, "e"] for key in keys])

    for path in (folder / "nul", named, bare, plus):
        assert by_bytes(keys) == [entry.key for entry in entries(path)]


def test_columns_are_told_by_their_names_in_any_order(tmp_path: Path) -> None:
    path = written(
        tmp_path / "x.csv",
        [
            [
                "ETag",
                "Key",
                "IsLatest",
                "Last-Modified Date",
                "Owner",
                "Bucket",
                "Size",
                "IsDeleteMarker",
                "StorageClass",
            ],
            ["e1", "b", "true", "2026-03-31T12:30:15.000Z", "me", "b", "7", "false", "GLACIER"],
            ["e2", "b", "false", "2026-03-30T12:30:15Z", "me", "b", "8", "false", ""],
            ["", "gone", "true", "2026-03-30T12:30:15Z", "me", "b", "", "true", ""],
            ["", "a", "true", "", "me", "b", "", "false", ""],
        ],
    )

    assert [
        Entry(key="a"),
        Entry(key="b", size=7, etag="e1", modified=MOMENT, storage_class="GLACIER"),
    ] == entries(path)


def manifest(folder: Path, rows: list[list[object]], **changes: Any) -> Path:
    """Lay out an inventory as S3 does."""
    (folder / "data").mkdir()
    (folder / "2026-04-01T01-00Z").mkdir()
    data = written(folder / "data" / "0c3a.csv.gz", rows)
    found = {
        "sourceBucket": "b",
        "version": "2016-11-30",
        "fileFormat": "CSV",
        "fileSchema": "Bucket, Key, Size, LastModifiedDate, ETag",
        "files": [
            {
                "key": f"prefix/b/config/data/{data.name}",
                "size": data.stat().st_size,
                "MD5checksum": hashlib.md5(data.read_bytes(), usedforsecurity=False).hexdigest(),
            }
        ],
    }
    path = folder / "2026-04-01T01-00Z" / "manifest.json"
    path.write_text(json.dumps(found | changes))
    return path


def test_an_s3_inventory_is_read_by_its_manifest(tmp_path: Path) -> None:
    rows: list[list[object]] = [["b", quote_plus(key), 5, "2026-03-31T12:30:15.000Z", "e"] for key in AWKWARD]
    path = manifest(tmp_path, rows)

    assert [Entry(key=key, size=5, etag="e", modified=MOMENT) for key in by_bytes(AWKWARD)] == entries(path)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"sourceBucket": "other"}, "is the inventory of the bucket other, not of b"),
        ({"fileFormat": "ORC"}, "in the format ORC; CSV and Parquet can be read"),
        ({"files": [{"key": "data/absent.csv.gz"}]}, "which is not in"),
        ({"files": [{"key": "data/0c3a.csv.gz", "MD5checksum": "0" * 32}]}, "is not what the manifest says"),
        ({"files": 7}, "is no manifest of S3 Inventory"),
        ({"fileSchema": "Bucket, Key"}, "has 5 columns in row"),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_reason(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    path = manifest(tmp_path, [["b", "k", 5, "2026-03-31T12:30:15.000Z", "e"]], **changes)
    with pytest.raises(MigrationError, match=why):
        entries(path)


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("x.csv", b"other,k\n", "tells of the bucket other, not of b"),
        ("x.csv", b"b,k,1,e,more\n", "has 5 columns and no line that names them"),
        ("x.csv", b"key,size\na,1\nb\n", "has 1 columns in row 3, not 2"),
        ("x.csv", b"key,size\na,many\n", "is damaged at the key 'a'"),
        ("x.csv", b"key,size\n,1\n", "has a row without a key"),
        ("x.csv", b"key,modified\na,yesterday\n", "is damaged at the key 'a'"),
        ("x.csv", b"key\n\xff\xfe\n", "it is damaged"),
        ("x.csv.gz", b"no gzip", "cannot be read"),
        ("x.csv.gz", gzip.compress(b"b,k\n" * 100, mtime=0)[:-12], "it is damaged"),
        ("list", b"a\n\xff\n", "it is damaged"),
        ("manifest.json", b"{", "is no manifest"),
    ],
)
def test_a_damaged_file_is_refused_with_the_reason(tmp_path: Path, name: str, data: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(MigrationError, match=why):
        entries(tmp_path / name)


def test_no_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match=r"the listing .*absent.csv cannot be read: No such file"):
        entries(tmp_path / "absent.csv")


def test_an_empty_file_is_an_empty_bucket(tmp_path: Path) -> None:
    for name in ("x.csv", "list"):
        (tmp_path / name).write_bytes(b"")
        assert [] == entries(tmp_path / name)


def test_more_than_memory_should_hold_is_sorted_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_listing, "_SORTED_AT_ONCE", 7)
    keys = [f"{number * 37 % 100:02}\u00e9" for number in range(150)]
    rows: list[list[object]] = [
        ["key", "size", "etag", "modified"],
        *([key, 3, "e", MOMENT.isoformat()] for key in keys),
    ]

    assert [Entry(key=key, size=3, etag="e", modified=MOMENT) for key in by_bytes(keys)] == entries(
        written(tmp_path / "x.csv", rows)
    )


def test_parquet_is_read_where_pyarrow_is(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="it is the extra shiftable[parquet]")
    from pyarrow import parquet

    table = pyarrow.table(
        {
            "bucket": ["b"] * 3,
            "key": ["z%20", "a//b", "old"],
            "size": [1, 2, 3],
            "last_modified_date": [MOMENT] * 3,
            "e_tag": ["e", None, "e"],
            "is_latest": [True, True, False],
        }
    )
    parquet.write_table(table, tmp_path / "x.parquet")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1")

    assert [
        Entry(key="a//b", size=2, modified=MOMENT),
        Entry(key="z%20", size=1, etag="e", modified=MOMENT),
    ] == entries(tmp_path / "x.parquet")
    with pytest.raises(MigrationError, match="is damaged or no Parquet file"):
        entries(tmp_path / "damaged.parquet")


def test_without_pyarrow_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(MigrationError, match=r'pip install "shiftable\[parquet\]"'):
        entries(tmp_path / "x.parquet")


# moves


def inventory(world: Any, folder: Path, *, lies: dict[str, str] | None = None) -> Inventory:
    """Write what the source's listing tells into a file, as an inventory does."""
    rows = [["key", "size", "etag", "modified"]]
    for found in world.source.list():
        etag = (lies or {}).get(found.key, found.token.value)
        rows.append([found.key, str(found.size), etag, found.modified.isoformat()])
    return Inventory(str(written(folder / "inventory.csv", rows)))


def counted(world: Any) -> dict[str, int]:
    calls: dict[str, int] = {"list": 0, "stat": 0}
    real = world.left.list

    def listing(bucket: str, **kwargs: Any) -> Any:
        calls["list"] += 1
        return real(bucket, **kwargs)

    def hook(operation: str, _key: str) -> None:
        calls[operation] = calls.get(operation, 0) + 1

    world.left.list, world.left.hook = listing, hook
    return calls


def test_an_inventory_that_tells_all_stands_in_for_the_listing(world: Any, tmp_path: Path) -> None:
    for number in range(300):
        world.source.put(f"{number:03}", b"x" * number)
    world.left.lists_md5 = False
    file = inventory(world, tmp_path)
    calls = counted(world)
    report = world.migration("blob", inventory=file).apply()

    assert report.complete
    assert (1, 0) == (calls["list"], calls["stat"])  # one look at the first object
    assert world.contents(world.target) == world.contents(world.source)
    world.left.hook = lambda *_: None
    assert world.migration("blob").apply().changed == 0  # the journal has what a listing tells


def test_a_list_of_keys_is_asked_for_one_by_one(world: Any, tmp_path: Path) -> None:
    for key in ("a", "b", "c"):
        world.source.put(key, key.encode())
    (tmp_path / "keys").write_bytes(b"c\na\n")
    report = world.migration("blob", inventory=Inventory(str(tmp_path / "keys"))).apply()

    assert (True, {"a": b"a", "c": b"c"}) == (report.complete, world.contents(world.target))
    assert 1 == world.migration("blob").apply().changed


def test_what_changed_since_the_inventory_is_moved_as_it_is_now(world: Any, tmp_path: Path) -> None:
    for number in range(20):
        world.source.put(f"{number:02}", b"old")
    world.left.lists_md5 = False
    file = inventory(world, tmp_path)
    world.source.put("07", b"newer")
    world.source.delete("13")
    report = world.migration("blob", inventory=file).apply()

    assert world.contents(world.target) == world.contents(world.source)
    assert {Trouble.CHANGED: 1, Trouble.VANISHED: 1} == dict(report.resources[0].troubles)
    assert report.complete


def test_an_inventory_of_other_etags_is_not_believed(world: Any, tmp_path: Path) -> None:
    for number in range(20):
        world.source.put(f"{number:02}", b"1")
    file = inventory(world, tmp_path, lies={f"{number:02}": "0" * 32 for number in range(20)})
    report = world.migration("blob", inventory=file).apply()

    assert (True, 20, {}) == (report.complete, report.changed, dict(report.resources[0].troubles))


def test_a_key_that_is_nowhere_is_named(world: Any, tmp_path: Path) -> None:
    world.source.put("a", b"1")
    (tmp_path / "keys").write_bytes(b"a\nabsent\n")
    options = {"inventory": Inventory(str(tmp_path / "keys"))}
    plan, report = world.migration("blob", **options).plan(), world.migration("blob", **options).apply()

    assert {Trouble.VANISHED: 1} == dict(report.resources[0].troubles) == dict(plan.resources[0].troubles)
    assert "absent" == report.resources[0].named[0].key


def test_what_is_gone_since_the_inventory_is_not_missed_by_the_comparison(world: Any, tmp_path: Path) -> None:
    for key in ("a", "before", "after"):
        world.source.put(key, b"1")
    (tmp_path / "keys").write_bytes(b"a\nafter\nbefore\n")
    migration = world.migration("blob", inventory=Inventory(str(tmp_path / "keys")))
    world.source.delete("before")
    assert migration.apply().complete
    world.source.delete("after")
    report = migration.verify()

    assert (True, {Trouble.VANISHED: 2}) == (report.complete, dict(report.resources[0].troubles))
    world.target.delete("a")
    report = migration.verify()
    assert (False, 1) == (report.complete, report.resources[0].troubles[Trouble.MISSING])
    world.source.delete("a")
    world.cloud("frankfurt").service("blob").delete(world.source.name)
    assert not migration.verify().complete  # a bucket that is gone is no object that is gone


def test_what_an_inventory_does_not_tell_of_is_left_alone(world: Any, tmp_path: Path) -> None:
    for key in ("a", "b"):
        world.source.put(key, b"1")
    world.migration("blob").apply()
    (tmp_path / "keys").write_bytes(b"a\n")
    plan = world.migration("blob", inventory=Inventory(str(tmp_path / "keys"))).plan()

    assert {Action.UNCHANGED: 1, Action.HIDDEN: 1} == {
        action: tally.count for action, tally in plan.resources[0].actions.items()
    }


def test_an_inventory_goes_with_one_bucket_and_without_prune(world: Any, tmp_path: Path) -> None:
    file = Inventory(str(tmp_path / "keys"))
    with pytest.raises(MigrationError, match=r"one bucket; name it, of these: blob\.assets, secrets\.app"):
        world.migration(inventory=file)
    with pytest.raises(MigrationError, match="it goes without delete"):
        world.migration("blob", inventory=file, prune=True)


def test_a_filter_chooses_from_an_inventory_too(world: Any, tmp_path: Path) -> None:
    for key in ("a/1.jpg", "a/2.txt", "b/3.jpg"):
        world.source.put(key, b"1")
    chosen = Filter(prefixes=["a/"], rules=[Rule(True, "*.jpg")])
    world.migration("blob", inventory=inventory(world, tmp_path), filter=chosen).apply()

    assert ["a/1.jpg"] == list(world.contents(world.target))
