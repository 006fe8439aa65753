"""The settings of a bare-metal provider, and what is wrong with a root."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import shiftable
from shiftable.blob import BucketSpec
from shiftable.config import Credential
from shiftable.errors import ConfigError, NotFound
from shiftable_baremetal import BaremetalProvider, BaremetalSettings
from shiftable_baremetal.blob import FilesDriver

TOML = """
[project]
name = "shop"
[environments.development]
provider = "baremetal"
[blob.assets]
bucket = "shop-assets"
"""


def test_buckets_lie_in_the_folder_blob_of_the_root(tmp_path: Path) -> None:
    with shiftable.connect("baremetal", root=tmp_path / "data", fsync=False) as cloud:
        cloud.blob.create(BucketSpec(name="shop")).put("key", b"x")
        assert not cloud.blob.unwrap(FilesDriver).fsync
    assert (tmp_path / "data/blob/shop/key").read_bytes() == b"x"


def test_without_settings_the_data_lie_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    project.mkdir()
    elsewhere.mkdir()
    (project / "shiftable.toml").write_text(TOML)
    monkeypatch.chdir(elsewhere)
    with shiftable.load(project) as app:
        for change in app.diff(app.config.resources["blob.assets"]):
            app.service(app.config.resources["blob.assets"]).apply(change)
        app.blob("assets").put("key", b"x")
        assert (app.state_dir / "data/blob/shop-assets/key").read_bytes() == b"x"
    assert list(elsewhere.iterdir()) == []


def broken(root: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        BaremetalProvider(BaremetalSettings(root=root)).blob()
    return str(caught.value)


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    assert broken(path) == f"root: {path} is no folder: remove it, or choose another"
    assert broken(path / "data") == f"root: {path} is no folder: choose another place for data"


def test_a_root_without_a_parent_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "absent/data"
    assert broken(path) == f"root: {path} has no parent: make the folder {path.parent} first, or choose another"
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_cannot_be_made_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != tmp_path)  # root may write everywhere
    path = tmp_path / "data"
    assert broken(path) == f"root: {path} cannot be made: {tmp_path} is not writable; make it, or choose another"


def test_connecting_and_looking_make_nothing(tmp_path: Path) -> None:
    with shiftable.connect("baremetal", root=tmp_path / "data") as cloud:
        assert not cloud.blob.exists("shop")
        assert list(cloud.blob.list()) == []
        assert len(cloud.blob.diff(BucketSpec(name="shop"))) == 1
        assert not cloud.secrets.exists("shop")
        assert list(cloud.secrets.store("shop").list()) == []
        with pytest.raises(NotFound):
            cloud.blob.bucket("shop").get("key")
        with pytest.raises(NotFound):
            cloud.blob.delete("shop")
    assert list(tmp_path.iterdir()) == []


UNREADABLE = """
import os, sys
import shiftable_baremetal.blob  # while the files of Python can still be read
from pathlib import Path
from shiftable.errors import ConfigError
from shiftable_baremetal import BaremetalProvider, BaremetalSettings

if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
try:
    BaremetalProvider(BaremetalSettings(root=Path(sys.argv[1]))).blob()
except ConfigError as exc:
    print(exc)
"""


def test_a_root_that_cannot_be_read_is_refused() -> None:
    with tempfile.TemporaryDirectory() as outer:  # pytest's own folders are closed to other users
        Path(outer).chmod(0o755)
        path = Path(outer) / "data"
        path.mkdir()
        path.chmod(0o000)
        said = subprocess.run(
            [sys.executable, "-c", UNREADABLE, str(path)], check=True, capture_output=True, text=True
        ).stdout
    assert said == f"root: {path} cannot be read: give this user the permission, or choose another folder\n"


def test_an_endpoint_sends_blobs_to_a_server(tmp_path: Path) -> None:
    settings = BaremetalSettings(
        root=tmp_path / "never",
        endpoint="http://127.0.0.1:1",
        access_key=Credential.literal("key"),
        secret_key=Credential.literal("canary"),
    )
    driver = BaremetalProvider(settings).blob()
    assert type(driver).__name__ == "S3Driver"
    assert driver.provider == "baremetal"
    assert "canary" not in repr(settings) + repr(driver)
    assert list(tmp_path.iterdir()) == []


def test_the_features_name_both_homes_of_blobs_and_the_secrets() -> None:
    titles = {service: [each.title for each in found] for service, found in BaremetalProvider.features().items()}
    assert titles["blob"] == ["files", "S3-compatible server"]
    assert titles["secrets"] == ["SOPS files with age", "Vault, OpenBao"]


def test_the_settings_of_machines_load_no_service() -> None:
    services = {f"shiftable.{name}" for name in ("blob", "compute", "database", "dns", "secrets")}
    code = f"import sys, shiftable_baremetal; print({services} & sys.modules.keys())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


def test_loading_the_provider_and_writing_files_loads_no_sdk(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from shiftable_baremetal import *;"
        f"BaremetalProvider(BaremetalSettings(root=Path({str(tmp_path)!r}))).blob();"
        "print({'boto3', 'botocore', 'pyrage', 'yaml', 'cryptography'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"
