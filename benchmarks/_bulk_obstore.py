"""What `bulk.py` measures of obstore in threads: SERVICE (s3) WORK FOLDER URL OTHER WORKERS."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import obstore
from obstore.store import S3Store


def _store(url: str, name: str) -> Any:  # noqa: ANN401  obstore's own
    return S3Store(name, endpoint=url, region="eu-central-1", client_options={"allow_http": True})


def main() -> None:
    """Do one work, and tell how long it took without the start."""
    _service, work, place, url, other, count = sys.argv[1:]
    workers, folder = int(count), Path(place)
    began = time.perf_counter()
    if work == "list":
        pages = obstore.list(_store(url, "shop-many"), chunk_size=1000)
        found = sum(1 for page in pages for entry in page if entry["e_tag"])
        assert found == 100_000, found  # noqa: S101  else it was fast because it did not do its work
    elif work == "large":
        large = _store(url, "shop-large")
        with ThreadPoolExecutor(4) as pool:
            for _ in pool.map(lambda path: obstore.put(large, path.name, path), sorted(folder.iterdir())):
                pass
    else:
        _each(work, folder, url, other, workers)
    print("inside", time.perf_counter() - began)


def _each(work: str, folder: Path, url: str, other: str, workers: int) -> None:
    source, target, uploads = _store(url, "shop-assets"), _store(other, "shop-copies"), _store(url, "shop-uploads")

    def upload(key: str) -> None:
        obstore.put(uploads, key, (folder / key).read_bytes())

    def download(key: str) -> None:
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(obstore.get(source, key).bytes())

    def copy(key: str) -> None:
        obstore.put(target, key, obstore.get(source, key).bytes())

    what = {"upload": upload, "download": download, "copy": copy, "migrate": copy}[work]
    files = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    listed = (entry["path"] for page in obstore.list(source, chunk_size=1000) for entry in page)
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(what, files if work == "upload" else listed):
            pass


if __name__ == "__main__":
    main()
