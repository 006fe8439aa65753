"""Images that the real qemu-img has written are what the importers of clouds take, by their doubles."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

import shiftable
from shiftable.blob import BucketSpec
from shiftable.compute import DiskImage
from shiftable.compute.convert import SUFFIXES, convert_image
from shiftable.compute.driver import ImageForm
from shiftable.testing.conformance.compute import small_fleet
from shiftable.testing.harness import Double
from shiftable_aws import AwsProvider, AwsSettings

MIB = 1024**2


@pytest.fixture(autouse=True)
def _programs(debian: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATH", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, debian.environ[name])


@pytest.mark.parametrize(
    ("cloud", "form"), [("aws", "raw"), ("aws", "vhd"), ("aws", "vmdk"), ("gcp", "gce"), ("azure", "vhd")]
)
def test_what_qemu_img_writes_is_imported_and_makes_machines(
    tmp_path: Path, shiftable_double: Callable[[str], Double], cloud: str, form: ImageForm
) -> None:
    (tmp_path / "disk").write_bytes(os.urandom(MIB) + bytes(20 * MIB + 512))
    made = convert_image(tmp_path / "disk", tmp_path / f"web{SUFFIXES[form]}", form)
    double = shiftable_double(cloud)
    with shiftable.connect(cloud, **double.config) as connected:
        if cloud == "aws":
            _let_importers_read(double)
        bucket = connected.blob.create(BucketSpec(name="images"))
        info = bucket.put(made.path.name, made.path)
        source = DiskImage(bucket="images", key=info.key, form=form, version=str(info.token))
        image = connected.compute.import_image("golden", source)
        assert ("golden", 1, True) == (image.name, image.disk_gib, image.ready)
        (machine,) = connected.compute.create(attrs.evolve(small_fleet("web"), image=image.id)).wait()
        assert image.id == machine.image
        connected.compute.delete("web")
        connected.compute.delete_image(image.id)


@pytest.mark.parametrize("form", ["qcow2", "raw"])
def test_what_qemu_img_writes_makes_machines_here(tmp_path: Path, form: ImageForm) -> None:
    (tmp_path / "disk").write_bytes(os.urandom(MIB) + bytes(20 * MIB + 512))
    made = convert_image(tmp_path / "disk", tmp_path / f"web{SUFFIXES[form]}", form)
    with shiftable.connect("baremetal", root=tmp_path / "data", qemu={"accelerator": "tcg"}) as connected:
        connected.blob.create(BucketSpec(name="images")).put("web", made.path)
        image = connected.compute.import_image("golden", DiskImage(bucket="images", key="web", form=form))
        assert ("golden", 1, True) == (image.name, image.disk_gib, image.ready)
        disk = tmp_path / "data/compute/.images/golden/disk"
        done = subprocess.run(["qemu-img", "compare", "-f", form, "-F", "raw", disk, tmp_path / "disk"], check=False)
        assert 0 == done.returncode
        (machine,) = connected.compute.create(attrs.evolve(small_fleet("web"), image=image.id)).wait()
        assert image.id == machine.image
        connected.compute.delete("web")
        connected.compute.delete_image(image.id)


def _let_importers_read(double: Double) -> None:
    """Make the role that EC2's importer takes."""
    trusted = {"Effect": "Allow", "Principal": {"Service": "vmie.amazonaws.com"}, "Action": "sts:AssumeRole"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [trusted]})
    provider = AwsProvider(AwsSettings(**double.config))
    provider.session.client("iam").create_role(RoleName="vmimport", AssumeRolePolicyDocument=policy)
    provider.close()
