"""Data frames over shiftable://, with the libraries that people use; ``nox -s frames`` installs them all."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import shiftable

pytest.importorskip("fsspec", reason="needs shiftable[fsspec]")
pytest.importorskip("shiftable_baremetal", reason="needs shiftable-baremetal")

FILE = """
[project]
name = "shop"
[environments.development]
provider = "local"
[providers.local]
type = "baremetal"
root = "local"
fsync = false
[blob.assets]
"""


@pytest.fixture(autouse=True)
def keys(folder: Path) -> Iterator[Any]:
    (folder / "shiftable.toml").write_text(FILE)
    with shiftable.load() as app:
        (declared,) = app.declared("blob")
        app.service(declared).create(app.spec(declared))
        yield lambda: [item.key for item in app.blob("assets").list()]


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet"])
def test_pandas_reads_what_it_has_written(keys: Any, kind: str) -> None:
    pandas = pytest.importorskip("pandas", reason="nox -s frames has pandas")
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="nox -s frames has pyarrow")
    url = f"shiftable://assets/sales/2026.{kind}"
    frame = pandas.DataFrame({"n": range(5000), "word": [f"w{n % 7} ü" for n in range(5000)]})
    if kind == "parquet":
        frame.to_parquet(url)
        back = pandas.read_parquet(url, columns=["n"])
        assert back.equals(frame[["n"]])
    else:
        frame.to_csv(url, index=False)
        back = pandas.read_csv(url)
        assert back.equals(frame)
    assert [f"sales/2026.{kind}"] == keys()


def test_polars_reads_what_it_has_written(keys: Any) -> None:
    polars = pytest.importorskip("polars", reason="nox -s frames has polars")
    import fsspec

    frame = polars.DataFrame({"n": range(5000), "word": [f"w{n % 7} ü" for n in range(5000)]})
    for kind in ("csv", "parquet"):
        url = f"shiftable://assets/sales.{kind}"
        with fsspec.open(url, "wb") as file:
            getattr(frame, f"write_{kind}")(file)
        with fsspec.open(url, "rb") as file:
            assert frame.equals(getattr(polars, f"read_{kind}")(file))
    assert ["sales.csv", "sales.parquet"] == keys()


def test_pyarrow_reads_and_writes_a_data_set(keys: Any) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="nox -s frames has pyarrow")
    from fsspec import filesystem
    from pyarrow import dataset

    table = pyarrow.table({"year": [2025, 2026, 2026], "n": [1, 2, 3]})
    options = {"filesystem": filesystem("shiftable"), "format": "parquet"}
    dataset.write_dataset(table, "assets/sales", partitioning=["year"], partitioning_flavor="hive", **options)
    assert ["sales/year=2025/part-0.parquet", "sales/year=2026/part-0.parquet"] == keys()
    found = dataset.dataset("assets/sales", partitioning="hive", **options)
    assert [2, 3] == found.to_table(filter=dataset.field("year") == 2026)["n"].to_pylist()


def test_dask_reads_and_writes_parts(keys: Any) -> None:
    frames = pytest.importorskip("dask.dataframe", reason="nox -s frames has dask")
    pandas = pytest.importorskip("pandas", reason="nox -s frames has pandas")
    frame = pandas.DataFrame({"n": range(100)})
    frames.from_pandas(frame, npartitions=3).to_csv("shiftable://assets/parts/*.csv", index=False)
    assert ["parts/0.csv", "parts/1.csv", "parts/2.csv"] == keys()
    back = frames.read_csv("shiftable://assets/parts/*.csv").compute(scheduler="threads")
    assert list(range(100)) == list(back["n"])
